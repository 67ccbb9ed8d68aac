/*
 * An engine's life: one memory plan, threads, the checks of a batch and how
 * it is shared out.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "worker/encoder/enc_int.h"
#include "worker/engine/eng_chk.h"

#define SPIN_DEFAULT  3000u
#define WORK_MAX      (64ull << 30)

/* A plan: pieces are counted first, then laid over the memory. */
typedef struct {
    uint8_t   *base;              /* NULL: counting                          */
    uint64_t   bytes;
} plan_t;


static void *
piece(plan_t *p, uint64_t n, uint64_t size)
{
    uint64_t  at = p->bytes;

    /* limits of the parts: below 2^32 * 2^20 */
    p->bytes += (n * size + 127) & ~127ull;

    return p->base != NULL ? p->base + at : NULL;
}


static void
plan_own(plan_t *p, const enc_t *e, enc_own_t *o)
{
    uint32_t            embd = e->m->hp.embd, ff = e->m->hp.ff;
    uint32_t            inner = e->m->hp.heads * e->m->hp.head_dim;
    uint32_t            up = e->m->hp.flags & ENC_F_GLU ? 2 * ff : ff;
    uint32_t            most = embd > inner ? embd : inner, cols;
    uint64_t            panel, f32, i15;

    most = most > ff ? most : ff;
    most += KERN_BLOCK;         /* of ordered columns */
    cols = e->rows_max > ENC_CHUNK ? e->rows_max : ENC_CHUNK;
    panel = kern_panel_bytes(kern_panel_kind(e->m->wtype), cols, most);
    f32 = kern_panel_bytes(KERN_PANEL_F32, cols, embd);
    i15 = kern_panel_bytes(KERN_PANEL_I15, cols, embd);
    panel = panel > f32 ? panel : f32;
    o->panel = piece(p, panel > i15 ? panel : i15, 1);
    o->tmp = piece(p, (uint64_t) cols * (embd > 2 * inner ? embd
                                         : 2 * inner), sizeof(float));
    o->up = piece(p, (uint64_t) cols * up, sizeof(float));
    o->keys = piece(p, kern_full_keys(e->limits.max_seq,
                                      e->m->hp.head_dim), sizeof(float));
    o->scratch = piece(p, kern_full_scratch(e->limits.max_seq),
                       sizeof(float));
    o->x = piece(p, (uint64_t) e->rows_max * embd, sizeof(float));
}


static void
plan_all(plan_t *p, enc_t *e)
{
    uint32_t         i;
    uint64_t         t = e->limits.max_tokens, s = e->limits.max_seqs;
    const enc_hp_t  *hp = &e->m->hp;
    uint64_t         inner = (uint64_t) hp->heads * hp->head_dim;
    uint64_t         n = e->limits.max_seq;

    e->x = piece(p, t * hp->embd, sizeof(float));
    e->qkv = piece(p, t * inner, 3 * sizeof(float));
    e->att = piece(p, t * inner, sizeof(float));
    e->sub = piece(p, (t > e->rows_max ? t : e->rows_max) * hp->embd,
                   sizeof(float));
    e->inner = piece(p, kern_panel_bytes(enc_panel_kind(e->m->wtype),
                                         e->rows_max, hp->ff), 1);
    e->pooled = piece(p, s * hp->embd, sizeof(float));
    e->dense = piece(p, s * hp->embd, sizeof(float));
    e->pos = piece(p, t, sizeof(uint32_t));
    e->task = piece(p, s, sizeof(enc_task_t));
    if (hp->flags & ENC_F_ROPE) {
        e->rope[0] = piece(p, n * hp->head_dim, sizeof(float));
        e->rope[1] = piece(p, n * hp->head_dim, sizeof(float));
    }
    if (hp->flags & ENC_F_REL) {
        e->rel = piece(p, hp->heads * (2 * n - 1), sizeof(float));
    }
    if (hp->kind == ENC_T2T) {
        e->dec_rel = piece(p, (uint64_t) hp->heads * e->limits.max_out,
                           sizeof(float));
        e->logits = piece(p, (uint64_t) e->limits.max_seqs_out * hp->vocab,
                          sizeof(float));
        e->lane = piece(p, e->limits.max_seqs_out, sizeof(uint32_t));
        e->search = piece(p, e->limits.max_seqs_out, sizeof(enc_beam_t));
        e->found = piece(p, (uint64_t) 3 * e->limits.max_seqs_out
                         * e->limits.max_out, sizeof(enc_found_t));
        e->src_of = piece(p, e->limits.max_seqs_out, sizeof(uint32_t));
    }
    for (i = 0; i < e->threads; i++) {
        plan_own(p, e, &e->own[i]);
    }
}


static int
read_limits(enc_t *e, const enc_opts_t *o, eng_err_t *err)
{
    enc_limits_t     *l = &e->limits;
    const enc_hp_t   *hp = &e->m->hp;

    e->threads = o->threads == 0 ? 2 : o->threads;
    if (e->threads > ENG_THREADS_MAX) {
        return eng_fail(err, ENG_ELIMIT, "%u threads, at most %u", e->threads,
                        ENG_THREADS_MAX);
    }
    if (o->max_tokens > ENC_TOKENS_MAX || o->max_seqs > ENC_SEQS_MAX
        || o->max_seqs == 0)
    {
        return eng_fail(err, ENG_ELIMIT, "a batch of %u tokens, %u "
                        "sequences; at most %u and %u", o->max_tokens,
                        o->max_seqs, ENC_TOKENS_MAX, ENC_SEQS_MAX);
    }
    l->max_seq = hp->max_seq;
    l->max_tokens = o->max_tokens > l->max_seq ? o->max_tokens : l->max_seq;
    l->max_seqs = o->max_seqs;
    l->vocab = hp->vocab;
    l->types = e->m->type.rows > 0 || (hp->flags & ENC_F_TYPES)
               ? hp->types : 1;
    l->types = l->types > 0 ? l->types : 1;
    l->width = hp->head != NULL ? hp->labels : hp->embd;
    e->rows_max = ENC_ROWS_TOKENS;
    e->how = hp->pool;

    if (hp->kind == ENC_T2T) {
        l->max_sources = o->max_sources == 0 ? 16 : o->max_sources;
        l->max_out = o->max_out == 0 ? 512 : o->max_out;
        if (l->max_sources > ENG_SEQS_MAX / 2 || l->max_out > ENC_POS_MAX) {
            return eng_fail(err, ENG_ELIMIT, "%u sources with answers of %u "
                            "tokens; at most %u and %u", l->max_sources,
                            l->max_out, ENG_SEQS_MAX / 2, ENC_POS_MAX);
        }
        l->max_seqs_out = enc_answers(l->max_sources);
        e->rows_max = l->max_seqs_out > e->rows_max ? l->max_seqs_out
                                                    : e->rows_max;
    }
    if (l->max_tokens < e->rows_max) {
        l->max_tokens = e->rows_max;
    }

    return 0;
}


int
enc_plan_info(const enc_model_t *m, const enc_opts_t *o, enc_info_t *info,
    eng_err_t *err)
{
    int         rc;
    enc_t      *e = calloc(1, sizeof(*e));
    plan_t      p = { NULL, 0 };
    eng_plan_t  src, ans;

    if (e == NULL) {
        return eng_fail(err, ENG_ENOMEM, "no memory");
    }
    e->m = m;
    rc = read_limits(e, o, err);
    if (rc == 0) {
        plan_all(&p, e);
        info->work_bytes = p.bytes;
        info->kv_bytes = 0;
        if (m->hp.kind == ENC_T2T) {
            enc_opts_t  oo = *o;

            oo.max_sources = e->limits.max_sources;
            oo.max_out = e->limits.max_out;
            info->kv_bytes = enc_kv_plan(&m->hp, &oo, &src, &ans);
            info->kv_bytes_per_token = src.page_bytes / KERN_KV_PAGE;
        }
    }
    free(e);

    return rc;
}


/* Rotation: pairs of (i, i + half), base^(-2i/d) radians per position. */
static void
fill_rope(const enc_t *e)
{
    float     freq[KERN_HEAD_MAX / 2], base, *t;
    uint32_t  i, k, p, d = e->m->hp.head_dim;

    for (k = 0; k < 2; k++) {
        base = k == 0 ? e->m->hp.rope_base : e->m->hp.rope_base_local;
        for (i = 0; i < d / 2; i++) {
            freq[i] = (float) pow((double) base,
                                  -2.0 * (double) i / (double) d);
        }
        for (p = 0; p < e->limits.max_seq; p++) {
            t = e->rope[k] + (size_t) p * d;
            kern_rope_table(t, t + d / 2, freq, d / 2, p, 1.0f);
        }
    }
}


/*
 * Buckets of relative positions (Raffel et al., "Exploring the Limits of
 * Transfer Learning with a Unified Text-to-Text Transformer", 2020): half of
 * them exact, the rest logarithmic up to `distance`.
 */
static uint32_t
bucket(int64_t rel, uint32_t n, uint32_t distance, int both)
{
    float     v;
    uint32_t  at = 0, exact, large, d;

    if (both) {
        n /= 2;
        at = rel > 0 ? n : 0;
        d = (uint32_t) (rel > 0 ? rel : -rel);
    } else {
        d = (uint32_t) (rel < 0 ? -rel : 0);
    }
    exact = n / 2;
    if (d < exact) {
        return at + d;
    }

    v = logf((float) d / (float) exact)
        / (float) log((double) distance / (double) exact)
        * (float) (n - exact);
    large = exact + (uint32_t) v;

    return at + (large < n - 1 ? large : n - 1);
}


void
enc_rel_table(const enc_hp_t *hp, const enc_table_t *t, uint32_t n, int both,
    float *bias)
{
    float     row[ENC_HEADS_MAX];
    int64_t   rel;
    uint32_t  i, h, len = both ? 2 * n - 1 : n;

    for (i = 0; i < len; i++) {
        rel = (int64_t) i - (int64_t) (n - 1);
        h = bucket(rel, hp->buckets, hp->distance, both);
        kern_gguf_row_f32(t->type, t->data + h * t->row_bytes, hp->heads,
                          row);
        for (h = 0; h < hp->heads; h++) {
            bias[(size_t) h * len + i] = row[h];
        }
    }
}


static int
fill(enc_t *e, const enc_opts_t *o, eng_err_t *err)
{
    int                 rc = 0;
    const enc_model_t  *m = e->m;

    if (e->rope[0] != NULL) {
        fill_rope(e);
    }
    if (e->rel != NULL) {
        enc_rel_table(&m->hp, &m->rel, e->limits.max_seq, 1, e->rel);
    }
    if (m->hp.kind == ENC_T2T) {
        enc_rel_table(&m->hp, &m->dec_rel, e->limits.max_out, 0, e->dec_rel);
        rc = enc_kv_create(e, o, err);
    }
    if (rc == 0) {
        e->pool = eng_pool_create(e->threads, o->spin == 0 ? SPIN_DEFAULT
                                                           : o->spin,
                                  o->cpus);
        if (e->pool == NULL) {
            rc = eng_fail(err, ENG_ENOMEM, "cannot start %u threads",
                          e->threads);
        }
    }

    return rc;
}


int
enc_create(const enc_model_t *model, const enc_opts_t *opts, enc_t **eng,
    eng_err_t *err)
{
    int      rc;
    enc_t   *e;
    plan_t   p = { NULL, 0 };
    void    *mem;

    *eng = NULL;
    e = aligned_alloc(64, (sizeof(*e) + 63) / 64 * 64);
    if (e == NULL) {
        return eng_fail(err, ENG_ENOMEM, "no memory");
    }
    memset(e, 0, sizeof(*e));
    e->m = model;
    rc = read_limits(e, opts, err);
    if (rc != 0) {
        free(e);
        return rc;
    }

    plan_all(&p, e);
    mem = p.bytes > WORK_MAX ? MAP_FAILED
          : mmap(NULL, p.bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mem == MAP_FAILED) {
        free(e);
        return eng_fail(err, ENG_ENOMEM, "no memory for %llu bytes of work "
                        "space", (unsigned long long) p.bytes);
    }
    e->memory = mem;
    e->limits.memory_bytes = p.bytes;
    p = (plan_t) { mem, 0 };
    plan_all(&p, e);

    rc = fill(e, opts, err);
    if (rc != 0) {
        enc_destroy(e);
        return rc;
    }
    *eng = e;

    return 0;
}


void
enc_destroy(enc_t *e)
{
    if (e->pool != NULL) {
        eng_pool_destroy(e->pool);
    }
    enc_kv_destroy(e);
    (void) munmap(e->memory, e->limits.memory_bytes);
    free(e);
}


void
enc_park(enc_t *e)
{
    eng_pool_park(e->pool);
}


const enc_limits_t *
enc_limits(const enc_t *e)
{
    return &e->limits;
}


void
enc_set_pool(enc_t *e, enc_pool_t how)
{
    e->how = how;
}


/* ---- a batch ------------------------------------------------------------ */

static int
check(const enc_t *e, const enc_batch_t *b)
{
    uint32_t  i, n;

    if (b->n_seqs == 0 || b->n_seqs > e->limits.max_seqs
        || b->offsets[0] != 0)
    {
        return ENG_EINVAL;
    }
    for (i = 0; i < b->n_seqs; i++) {
        if (b->offsets[i + 1] <= b->offsets[i]
            || b->offsets[i + 1] > e->limits.max_tokens
            || b->offsets[i + 1] - b->offsets[i] > e->limits.max_seq)
        {
            return ENG_EINVAL;
        }
    }
    n = b->offsets[b->n_seqs];
    for (i = 0; i < n; i++) {
        if (b->ids[i] >= e->limits.vocab
            || (b->types != NULL && b->types[i] >= e->limits.types))
        {
            return ENG_EINVAL;
        }
    }

    return 0;
}


/* Where tokens stand.  Families that count from behind the pad id do not
   count pads, which stay at it. */
static void
positions(enc_t *e)
{
    uint32_t         i, s, n;
    const uint32_t  *at = e->batch.offsets;
    const enc_hp_t  *hp = &e->m->hp;

    for (s = 0; s < e->batch.n_seqs; s++) {
        n = 0;
        for (i = at[s]; i < at[s + 1]; i++) {
            if (!(hp->flags & ENC_F_PADPOS)) {
                e->pos[i] = n++;
            } else if (e->batch.ids[i] == hp->pad_id) {
                e->pos[i] = hp->pad_id;
            } else {
                e->pos[i] = hp->pad_id + ++n;
            }
        }
    }
}


/* Whole sequences to tasks; together if there are too few to go round. */
static void
share(enc_t *e)
{
    uint32_t         s, first = 0;
    const uint32_t  *at = e->batch.offsets;
    uint32_t         n = e->batch.n_seqs;

    e->n_tasks = 0;
    for (s = 0; s < n; s++) {
        if (at[s + 1] - at[first] >= ENC_TASK_TOKENS || s + 1 == n) {
            e->task[e->n_tasks++] = (enc_task_t) { first, s + 1 };
            first = s + 1;
        }
    }

    e->together = e->threads > 1 && e->n_tasks < 3 * e->threads;
    e->rows = 0;
    if (e->together) {
        e->task[0] = (enc_task_t) { 0, n };
        e->n_tasks = 1;
        e->rows = at[n] <= ENC_ROWS_TOKENS;
    }
    /* relaxed: published by the pool's start */
    atomic_store_explicit(&e->next, 0, memory_order_relaxed);
}


static void
run_task(enc_t *e, uint32_t me, uint32_t team, uint32_t i)
{
    uint32_t         n, thread = team == 1 ? 0 : me;
    enc_run_t        r = { .e = e, .own = &e->own[me], .thread = thread,
                           .team = team, .rows = e->rows,
                           .task = e->task[i] };
    const uint32_t  *at = e->batch.offsets;

    r.t0 = at[r.task.s0];
    r.t1 = at[r.task.s1];
    r.a = r.t0;
    r.b = r.t1;
    if (r.rows) {
        r.x = r.own->x;
    } else {
        r.x = e->x + (size_t) r.t0 * e->m->hp.embd;
        /* parts of whole slices of a panel: eight columns */
        n = (r.t1 - r.t0 + 7) / 8;
        r.a = r.t0 + (uint32_t) ((uint64_t) n * thread / team) * 8;
        r.b = r.t0 + (uint32_t) ((uint64_t) n * (thread + 1) / team) * 8;
        r.b = r.b < r.t1 ? r.b : r.t1;
    }
    enc_forward(&r);
    enc_result(&r);
}


static void
work(void *arg, uint32_t thread)
{
    enc_t     *e = arg;
    uint32_t   i;

    if (e->job == ENC_JOB_STEP) {
        enc_run_t  r = { .e = e, .own = &e->own[thread], .thread = thread,
                         .team = e->threads, .rows = 1,
                         .x = e->own[thread].x };

        enc_decode(&r);
        return;
    }
    if (e->together) {
        run_task(e, thread, e->threads, 0);
        return;
    }

    /* relaxed: only the number is shared */
    while ((i = atomic_fetch_add_explicit(&e->next, 1, memory_order_relaxed))
           < e->n_tasks)
    {
        run_task(e, thread, 1, i);
    }
}


static int
run(enc_t *e, const enc_batch_t *b, enc_job_t job, float *out)
{
    int  rc = check(e, b);

    if (rc != 0) {
        return rc;
    }
    e->batch = *b;
    e->job = job;
    e->out = out;
    positions(e);
    share(e);
    eng_pool_run(e->pool, work, e);

    return 0;
}


int
enc_run(enc_t *e, const enc_batch_t *b, float *out)
{
    return run(e, b, ENC_JOB_RESULT, out);
}


int
enc_hidden(enc_t *e, const enc_batch_t *b, float *out)
{
    return run(e, b, ENC_JOB_HIDDEN, out);
}


/* ---- text to text: the jobs ---------------------------------------------- */

int
enc_sources_open(enc_t *e, const enc_batch_t *b, uint32_t *src)
{
    int       rc = check(e, b);
    uint32_t  i, n = 0, len;

    if (rc != 0 || !e->has_kv) {
        return ENG_EINVAL;
    }
    for (i = 0; rc == 0 && i < b->n_seqs; i++) {
        rc = eng_kv_open(&e->src, &src[i]);
        if (rc == 0) {
            n = i + 1;
            len = b->offsets[i + 1] - b->offsets[i];
            rc = eng_kv_reserve(&e->src, src[i], len);
            e->src.seq[src[i]].length = rc == 0 ? len : 0;
        }
    }
    if (rc != 0) {
        for (i = 0; i < n; i++) {
            eng_kv_close(&e->src, src[i]);
        }
        return rc;
    }
    e->source = src;

    return run(e, b, ENC_JOB_SOURCE, NULL);
}


int
enc_step(enc_t *e, const enc_tok_t *t, uint32_t n, const float **logits)
{
    int       rc;
    uint32_t  i, len;

    if (!e->has_kv || n == 0 || n > e->limits.max_seqs_out) {
        return ENG_EINVAL;
    }
    for (i = 0; i < n; i++) {
        if (t[i].seq >= e->limits.max_seqs_out
            || !e->ans.seq[t[i].seq].open || t[i].token >= e->limits.vocab)
        {
            return ENG_EINVAL;
        }
        len = e->ans.seq[t[i].seq].length;
        rc = eng_kv_reserve(&e->ans, t[i].seq, len + 1);
        if (rc != 0) {
            return rc;
        }
    }

    e->step = t;
    e->n_step = n;
    e->job = ENC_JOB_STEP;
    eng_pool_run(e->pool, work, e);
    for (i = 0; i < n; i++) {
        e->ans.seq[t[i].seq].length++;
        logits[i] = e->logits + (size_t) i * e->limits.vocab;
    }

    return 0;
}
