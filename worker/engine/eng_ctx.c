/*
 * Life of an engine: memory plan, creation, the checked door of a step.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_ctx.h"

#define SPIN_DEFAULT   3000u
#define THREADS_DEFAULT   2u

static const eng_ops_t  ops;

/* Hands out pieces of the work memory; with base NULL it only counts. */
typedef struct {
    uint8_t   *base;
    uint64_t   used;
    int        overflow;
} carve_t;


/* ---- plan --------------------------------------------------------------- */

static void *
carve(carve_t *c, uint64_t n, uint64_t size)
{
    void      *p = c->base == NULL ? NULL : c->base + c->used;
    uint64_t   bytes = 0;

    if (!eng_chk_mul(n, size, &bytes) || !eng_chk_align(bytes, 128, &bytes)
        || !eng_chk_add(c->used, bytes, &c->used))
    {
        c->overflow = 1;
        return NULL;
    }

    return p;
}


static uint32_t
max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}


/* Floats of gate|up, of the router's scores, or of what else passes. */
static uint64_t
act_floats(const eng_hp_t *hp, uint64_t n)
{
    uint32_t  nq = hp->heads * hp->head_dim, nk = hp->heads_kv * hp->head_dim;
    uint64_t  row = max_u32(eng_stride(nq + 2 * nk), hp->embd + nq), moe;

    row = row > hp->experts + 1 ? row : hp->experts + 1;
    moe = 2 * ((uint64_t) hp->experts_used * hp->ff_exp + hp->ff_shared);
    moe = hp->experts > 0 ? moe : eng_stride(2 * hp->ff);

    return n * (row > moe ? row : moe);
}


static void
carve_moe(carve_t *c, eng_ctx_t *x, const eng_model_t *m,
    const eng_plan_t *plan)
{
    uint32_t         t, kind, used = m->hp.experts_used;
    uint32_t         n = plan->limits.max_batch_tokens;
    uint64_t         slots, wide, deep;
    const eng_hp_t  *hp = &m->hp;

    if (hp->experts == 0) {
        return;
    }

    slots = used + (hp->ff_shared > 0);
    x->moe_id = carve(c, n, used * sizeof(uint32_t));
    x->moe_weight = carve(c, n, slots * sizeof(float));
    x->moe_out = carve(c, n, slots * hp->embd * sizeof(float));
    for (kind = 0; kind < 2; kind++) {
        wide = slots * eng_panel_column(m, kind, hp->embd);
        deep = used * eng_panel_column(m, kind, hp->ff_exp);
        if (hp->ff_shared > 0) {
            deep += eng_panel_column(m, kind, hp->ff_shared);
        }
        x->moe_panel[kind] = carve(c, n, wide > deep ? wide : deep);
    }
    for (t = 0; t < plan->threads; t++) {
        x->own[t].group = carve(c, hp->experts + 1, sizeof(eng_group_t));
        x->own[t].column = carve(c, n, slots * sizeof(uint32_t));
        x->own[t].place = carve(c, n, slots * sizeof(uint32_t));
    }
}


/* The same walk measures and places: it cannot disagree with itself. */
static uint64_t
carve_all(eng_ctx_t *x, const eng_model_t *m, const eng_plan_t *plan,
    uint8_t *base, int *overflow)
{
    carve_t   c = { base, 0, 0 };
    uint32_t  t, kind;
    const eng_hp_t  *hp = &m->hp;
    uint32_t  n = plan->limits.max_batch_tokens;
    uint32_t  w = plan->limits.max_logits;
    uint32_t  nq = hp->heads * hp->head_dim;
    uint32_t  k_max = max_u32(hp->embd, nq);
    uint32_t  cols = max_u32(n, w);

    x->x = carve(&c, n, hp->embd * sizeof(float));
    x->act = carve(&c, act_floats(hp, n), sizeof(float));
    x->att = carve(&c, n, nq * sizeof(float));
    x->sub = carve(&c, n, eng_stride(hp->embd) * sizeof(float));
    x->part = carve(&c, (uint64_t) ENG_SPLIT_TASKS * plan->threads
                    * eng_split_blocks(plan), KERN_ATTN_PART(hp->head_dim)
                    * (hp->heads / hp->heads_kv) * sizeof(float));
    x->rope = carve(&c, n, 2 * hp->rot_dim * sizeof(float));
    x->logits = carve(&c, w, hp->vocab * sizeof(float));
    x->tok = carve(&c, n, sizeof(eng_tok_t));
    x->seg = carve(&c, n, sizeof(eng_seg_t));
    x->want = carve(&c, w, sizeof(uint32_t));
    x->own_panel_bytes = 0;
    for (kind = 0; kind < 2; kind++) {
        uint64_t           own;
        kern_panel_kind_t  as = eng_panel_kind(m, (kern_panel_kind_t) kind);

        x->panel[kind] = carve(&c, 1, kern_panel_bytes(as, cols, k_max));
        if (hp->experts == 0) {
            x->inner[kind] = carve(&c, 1, kern_panel_bytes(as, n, hp->ff));
        }
        own = kern_panel_bytes(as, ENG_REDUNDANT_MAX, k_max);
        own = (own + 127) / 128 * 128;
        if (own > x->own_panel_bytes) {
            x->own_panel_bytes = own;
        }
    }
    for (t = 0; t < plan->threads; t++) {
        x->own[t].x = carve(&c, ENG_REDUNDANT_MAX, hp->embd * sizeof(float));
        x->own[t].row = carve(&c, max_u32(nq, hp->embd), sizeof(float));
        x->own[t].panel = carve(&c, 2, x->own_panel_bytes);
    }

    carve_moe(&c, x, m, plan);
    *overflow = c.overflow;

    return c.used;
}


static int
check_opts(const eng_ctx_opts_t *co, const eng_hp_t *hp, eng_err_t *err)
{
    if (co->max_seqs == 0 || co->max_seqs > ENG_SEQS_MAX) {
        return eng_fail(err, ENG_ELIMIT, "%u sequences: allowed are 1 to %d",
                        co->max_seqs, ENG_SEQS_MAX);
    }
    if (co->max_batch_tokens == 0 || co->max_batch_tokens > ENG_BATCH_MAX) {
        return eng_fail(err, ENG_ELIMIT, "%u tokens per step: allowed are 1 "
                        "to %d", co->max_batch_tokens, ENG_BATCH_MAX);
    }
    if (co->max_logits > ENG_BATCH_MAX) {
        return eng_fail(err, ENG_ELIMIT, "%u logits per step: at most %d",
                        co->max_logits, ENG_BATCH_MAX);
    }
    if (co->threads > ENG_THREADS_MAX) {
        return eng_fail(err, ENG_ELIMIT, "%u threads: at most %d",
                        co->threads, ENG_THREADS_MAX);
    }
    if (co->ctx_len > hp->ctx_train) {
        return eng_fail(err, ENG_ELIMIT, "a context of %u positions: the "
                        "model was made for %u", co->ctx_len, hp->ctx_train);
    }

    return 0;
}


static int
plan_kv(const eng_model_t *m, const eng_ctx_opts_t *co, eng_plan_t *plan,
    eng_err_t *err)
{
    uint64_t         per_seq, pages;
    const eng_hp_t  *hp = &m->hp;

    plan->layer_page_bytes = kern_kv_page_bytes(m->kv_type, hp->heads_kv,
                                                hp->head_dim);
    if (plan->layer_page_bytes == 0
        || !eng_chk_mul(plan->layer_page_bytes, hp->layers,
                        &plan->page_bytes))
    {
        return eng_fail(err, ENG_EUNSUP, "no KV cache for %u heads of %u",
                        hp->heads_kv, hp->head_dim);
    }

    per_seq = (plan->limits.ctx_len + KERN_KV_PAGE - 1) / KERN_KV_PAGE;
    pages = per_seq * plan->limits.max_seqs;
    if (co->kv_bytes != 0 && co->kv_bytes / plan->page_bytes < pages) {
        pages = co->kv_bytes / plan->page_bytes;
    }
    if (pages < per_seq) {
        return eng_fail(err, ENG_ELIMIT, "a KV budget of %llu bytes holds "
                        "%llu positions, one sequence of %u needs %llu bytes: "
                        "raise the budget or lower the context",
                        (unsigned long long) co->kv_bytes,
                        (unsigned long long) pages * KERN_KV_PAGE,
                        plan->limits.ctx_len,
                        (unsigned long long) (per_seq * plan->page_bytes));
    }
    if (pages > UINT32_MAX / KERN_KV_PAGE
        || !eng_chk_mul(pages, plan->page_bytes, &plan->kv_bytes)
        || plan->kv_bytes > (uint64_t) INT64_MAX)
    {
        return eng_fail(err, ENG_ELIMIT, "%u sequences of %u positions need "
                        "more memory than can be addressed", co->max_seqs,
                        plan->limits.ctx_len);
    }
    plan->limits.kv_pages = (uint32_t) pages;

    return 0;
}


int
eng_plan(const eng_model_t *m, const eng_ctx_opts_t *co, eng_plan_t *plan,
    eng_err_t *err)
{
    int              rc, overflow;
    eng_ctx_t        dry;
    const eng_hp_t  *hp = &m->hp;

    memset(plan, 0, sizeof(*plan));

    rc = check_opts(co, hp, err);
    if (rc != 0) {
        return rc;
    }
    plan->limits.vocab = hp->vocab;
    plan->limits.max_seqs = co->max_seqs;
    plan->limits.ctx_len = co->ctx_len != 0 ? co->ctx_len : hp->ctx_train;
    plan->limits.max_batch_tokens = co->max_batch_tokens;
    plan->limits.max_logits = co->max_logits != 0 ? co->max_logits
                              : co->max_seqs;
    plan->limits.page_tokens = KERN_KV_PAGE;
    plan->threads = co->threads != 0 ? co->threads : THREADS_DEFAULT;

    rc = plan_kv(m, co, plan, err);
    if (rc != 0) {
        return rc;
    }

    memset(&dry, 0, sizeof(dry));
    plan->work_bytes = carve_all(&dry, m, plan, NULL, &overflow);
    if (overflow) {
        return eng_fail(err, ENG_ELIMIT, "%u tokens per step and %u logits "
                        "need more memory than can be addressed",
                        co->max_batch_tokens, plan->limits.max_logits);
    }

    return 0;
}


/* ---- life --------------------------------------------------------------- */

static void
ctx_destroy(void *arg)
{
    eng_ctx_t  *x = arg;

    if (x->pool != NULL) {
        eng_pool_destroy(x->pool);
    }
    if (x->memory != NULL) {
        (void) munmap(x->memory, x->memory_bytes);
    }
    eng_kv_free(&x->kv);
    free(x);
}


int
eng_create(const eng_model_t *model, const eng_ctx_opts_t *co, eng_t *eng,
    eng_err_t *err)
{
    int         rc, overflow;
    void       *p;
    eng_ctx_t  *x;

    x = calloc(1, sizeof(*x));
    if (x == NULL) {
        return eng_fail(err, ENG_ENOMEM, "no memory for an engine");
    }
    x->m = model;

    rc = eng_plan(model, co, &x->plan, err);
    if (rc == 0) {
        rc = eng_kv_init(&x->kv, &x->plan, err);
    }
    if (rc != 0) {
        ctx_destroy(x);
        return rc;
    }

    x->freq = eng_hp_freq(&model->hp, x->plan.limits.ctx_len);
    x->memory_bytes = x->plan.work_bytes;
    p = mmap(NULL, x->memory_bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    x->memory = p == MAP_FAILED ? NULL : p;
    if (x->memory != NULL) {
        (void) carve_all(x, model, &x->plan, x->memory, &overflow);
        x->pool = eng_pool_create(x->plan.threads,
                                  co->spin != 0 ? co->spin : SPIN_DEFAULT,
                                  co->cpus);
    }
    if (x->memory == NULL || x->pool == NULL) {
        ctx_destroy(x);
        return eng_fail(err, ENG_ENOMEM, "no memory for %llu bytes of work "
                        "space or %u threads",
                        (unsigned long long) co->max_batch_tokens,
                        co->threads);
    }

    eng->ops = &ops;
    eng->ctx = x;
    eng->limits = x->plan.limits;

    return 0;
}


/* ---- the functions of eng_ops_t ----------------------------------------- */

static int
ctx_seq_open(void *ctx, uint32_t *seq)
{
    return eng_kv_open(&((eng_ctx_t *) ctx)->kv, seq);
}


static void
ctx_seq_close(void *ctx, uint32_t seq)
{
    eng_kv_close(&((eng_ctx_t *) ctx)->kv, seq);
}


static int
ctx_seq_reserve(void *ctx, uint32_t seq, uint32_t n)
{
    return eng_kv_reserve(&((eng_ctx_t *) ctx)->kv, seq, n);
}


static void
ctx_seq_trim(void *ctx, uint32_t seq, uint32_t n)
{
    eng_kv_trim(&((eng_ctx_t *) ctx)->kv, seq, n);
}


static int
ctx_seq_fork(void *ctx, uint32_t dst, uint32_t src, uint32_t n)
{
    return eng_kv_fork(&((eng_ctx_t *) ctx)->kv, dst, src, n);
}


static int
ctx_seq_attach(void *ctx, uint32_t seq, const uint32_t *pages, uint32_t n)
{
    return eng_kv_attach(&((eng_ctx_t *) ctx)->kv, seq, pages, n);
}


static uint32_t
ctx_seq_page(void *ctx, uint32_t seq, uint32_t index)
{
    const eng_kv_t  *kv = &((eng_ctx_t *) ctx)->kv;

    eng_assert(seq < kv->plan.limits.max_seqs && kv->seq[seq].open);
    eng_assert(index < kv->seq[seq].n_pages);

    return kv->seq[seq].page[index];
}


static void
ctx_page_ref(void *ctx, uint32_t page)
{
    eng_kv_ref(&((eng_ctx_t *) ctx)->kv, page);
}


static void
ctx_page_unref(void *ctx, uint32_t page)
{
    eng_kv_unref(&((eng_ctx_t *) ctx)->kv, page);
}


static uint32_t
ctx_kv_free_pages(void *ctx)
{
    return ((eng_ctx_t *) ctx)->kv.n_free;
}


static void
ctx_park(void *ctx)
{
    eng_pool_park(((eng_ctx_t *) ctx)->pool);
}


/* Checks the batch and cuts it into segments; 0 or ENG_EINVAL. */
static int
take_batch(eng_ctx_t *x, const eng_tok_t *toks, uint32_t n)
{
    uint32_t    i, j;
    eng_seg_t  *s;

    x->n_seg = 0;
    x->n_want = 0;
    x->decode_only = 1;
    if (n == 0 || n > x->plan.limits.max_batch_tokens) {
        return ENG_EINVAL;
    }
    memcpy(x->tok, toks, n * sizeof(*toks));
    x->n_tok = n;

    for (i = 0; i < n; i++) {
        if (x->tok[i].token >= x->plan.limits.vocab) {
            return ENG_EINVAL;
        }
        if (x->tok[i].want_logits) {
            if (x->n_want == x->plan.limits.max_logits) {
                return ENG_EINVAL;
            }
            x->want[x->n_want++] = i;
        }
        if (i > 0 && x->tok[i].seq == x->tok[i - 1].seq) {
            if (x->tok[i].pos != x->tok[i - 1].pos + 1) {
                return ENG_EINVAL;
            }
            x->seg[x->n_seg - 1].n++;
            x->decode_only = 0;
            continue;
        }
        x->seg[x->n_seg++] = (eng_seg_t) { x->tok[i].seq, i, 1,
                                           x->tok[i].pos };
    }

    for (i = 0; i < x->n_seg; i++) {
        s = &x->seg[i];
        if (!eng_kv_writable(&x->kv, s->seq, s->pos, s->n)) {
            return ENG_EINVAL;
        }
        /* a sequence in two places would meet its own keys half-written;
           batches have few segments, so looking back is cheap */
        for (j = 0; j < i; j++) {
            if (x->seg[j].seq == s->seq) {
                return ENG_EINVAL;
            }
        }
    }

    return 0;
}


static int
ctx_step(void *ctx, const eng_tok_t *toks, uint32_t n, const float **logits)
{
    int         rc;
    uint32_t    i;
    eng_ctx_t  *x = ctx;

    rc = take_batch(x, toks, n);
    if (rc != 0) {
        return rc;
    }

    eng_pool_run(x->pool, eng_forward, x);

    for (i = 0; i < x->n_seg; i++) {
        x->kv.seq[x->seg[i].seq].length = x->seg[i].pos + x->seg[i].n;
    }
    for (i = 0; i < x->n_want; i++) {
        logits[x->want[i]] = x->logits + (size_t) i * x->plan.limits.vocab;
    }

    return 0;
}


static const eng_ops_t  ops = {
    .seq_open = ctx_seq_open,
    .seq_close = ctx_seq_close,
    .seq_reserve = ctx_seq_reserve,
    .seq_trim = ctx_seq_trim,
    .seq_fork = ctx_seq_fork,
    .seq_attach = ctx_seq_attach,
    .seq_page = ctx_seq_page,
    .page_ref = ctx_page_ref,
    .page_unref = ctx_page_unref,
    .kv_free_pages = ctx_kv_free_pages,
    .step = ctx_step,
    .park = ctx_park,
    .destroy = ctx_destroy,
};
