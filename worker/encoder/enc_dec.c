/*
 * The decoder: one token of each sequence per step, and the pages of keys and
 * values behind it.  The threads split the rows of every matrix and keep a
 * copy of the residual stream each; columns are the step's sequences.
 */
#include <string.h>

#include "worker/encoder/enc_int.h"
#include "worker/engine/eng_chk.h"

#define KV_DEFAULT_MAX  (512ull << 20)


/* ---- pages --------------------------------------------------------------- */

static uint32_t
pages_of(uint32_t n)
{
    return (n + KERN_KV_PAGE - 1) / KERN_KV_PAGE;
}


uint64_t
enc_kv_plan(const enc_hp_t *hp, const enc_opts_t *o, eng_plan_t *src,
    eng_plan_t *ans)
{
    uint64_t  page, budget, all, n_src, n_ans;

    memset(src, 0, sizeof(*src));
    memset(ans, 0, sizeof(*ans));
    page = (uint64_t) kern_kv_page_bytes(KERN_KV_F16, hp->heads,
                                         hp->head_dim) * hp->dec_layers;
    src->limits.max_seqs = o->max_sources;
    src->limits.ctx_len = hp->max_seq;
    ans->limits.max_seqs = enc_answers(o->max_sources);
    ans->limits.ctx_len = o->max_out;
    n_src = (uint64_t) pages_of(hp->max_seq) * o->max_sources;
    n_ans = (uint64_t) pages_of(o->max_out) * ans->limits.max_seqs;

    budget = o->kv_bytes != 0 ? o->kv_bytes : KV_DEFAULT_MAX;
    all = (n_src + n_ans) * page;
    if (all > budget) {
        n_src = (uint64_t) ((double) n_src * (double) budget
                            / (double) all);
        n_ans = (uint64_t) ((double) n_ans * (double) budget
                            / (double) all);
        /* one source and one answer always fit */
        n_src = n_src > pages_of(hp->max_seq) ? n_src
                                              : pages_of(hp->max_seq);
        n_ans = n_ans > pages_of(o->max_out) ? n_ans : pages_of(o->max_out);
    }
    src->limits.kv_pages = (uint32_t) n_src;
    ans->limits.kv_pages = (uint32_t) n_ans;
    src->limits.page_tokens = ans->limits.page_tokens = KERN_KV_PAGE;
    src->page_bytes = ans->page_bytes = page;
    src->kv_bytes = n_src * page;
    ans->kv_bytes = n_ans * page;

    return (n_src + n_ans) * page;
}


int
enc_kv_create(enc_t *e, const enc_opts_t *o, eng_err_t *err)
{
    int             rc;
    enc_opts_t      opts = *o;
    eng_plan_t      src, ans;
    const enc_hp_t *hp = &e->m->hp;

    opts.max_sources = e->limits.max_sources;
    opts.max_out = e->limits.max_out;
    (void) enc_kv_plan(hp, &opts, &src, &ans);
    e->layer_bytes = kern_kv_page_bytes(KERN_KV_F16, hp->heads,
                                        hp->head_dim);
    rc = eng_kv_init(&e->src, &src, err);
    if (rc != 0) {
        return rc;
    }
    rc = eng_kv_init(&e->ans, &ans, err);
    if (rc != 0) {
        eng_kv_free(&e->src);
        return rc;
    }
    e->has_kv = 1;
    enc_beam_init(e);

    return 0;
}


void
enc_kv_destroy(enc_t *e)
{
    if (e->has_kv) {
        eng_kv_free(&e->src);
        eng_kv_free(&e->ans);
    }
}


void
enc_source_close(enc_t *e, uint32_t src)
{
    eng_kv_close(&e->src, src);
}


int
enc_seq_open(enc_t *e, uint32_t src, uint32_t *seq)
{
    int  rc;

    if (!e->has_kv || src >= e->limits.max_sources || !e->src.seq[src].open) {
        return ENG_EINVAL;
    }
    rc = eng_kv_open(&e->ans, seq);
    if (rc == 0) {
        e->src_of[*seq] = src;
    }

    return rc;
}


void
enc_seq_close(enc_t *e, uint32_t seq)
{
    eng_kv_close(&e->ans, seq);
}


int
enc_seq_fork(enc_t *e, uint32_t dst, uint32_t from)
{
    if (dst >= e->limits.max_seqs_out || from >= e->limits.max_seqs_out
        || !e->ans.seq[dst].open || !e->ans.seq[from].open
        || e->src_of[dst] != e->src_of[from])
    {
        return ENG_EINVAL;
    }
    eng_kv_trim(&e->ans, dst, 0);

    return eng_kv_fork(&e->ans, dst, from, e->ans.seq[from].length);
}


/* ---- a step -------------------------------------------------------------- */

/* The thread's copy of x behind a norm, as input. */
static void
input(const enc_run_t *r, kern_panel_t *p, const enc_norm_t *norm)
{
    float     *tmp = r->own->tmp;
    uint32_t   c, n = r->e->n_step, embd = r->e->m->hp.embd;

    for (c = 0; c < n; c++) {
        enc_norm(r->e->m, norm, tmp + (size_t) c * embd,
                 r->x + (size_t) c * embd);
    }
    enc_panel(r, p, r->e->m->wtype, tmp, embd, n, embd);
}


/* l(in) to sub; then every thread adds all of it to its x. */
static void
output(const enc_run_t *r, const enc_linear_t *l, const kern_panel_t *p)
{
    uint32_t  n = r->e->n_step, embd = r->e->m->hp.embd;

    enc_product(r, l, p, r->e->sub, embd);
    enc_barrier(r);
    kern_add(r->x, r->x, r->e->sub, n * embd);
}


static void
attend(const enc_run_t *r, const eng_seq_t *s, uint32_t c, uint32_t layer,
    uint32_t n_key, const float *q, size_t ldq, uint32_t h0, uint32_t h1,
    int self)
{
    enc_t        *e = r->e;
    uint32_t      heads = e->m->hp.heads, d = e->m->hp.head_dim;
    kern_attn_t   a = { .type = KERN_KV_F16, .n_head = heads,
                        .n_kv_head = heads, .head_dim = d,
                        .scale = e->m->hp.scale, .causal = self,
                        .n_query = 1, .n_key = n_key, .ldq = ldq,
                        .ldo = (size_t) heads * d, .pages = s->address,
                        .page_offset = layer * e->layer_bytes };

    a.q = q + c * ldq;
    a.out = e->att + (size_t) c * heads * d;
    if (self) {
        a.pos = n_key - 1;
        a.bias = e->dec_rel;
        a.ld_bias = e->limits.max_out;
        a.bias_zero = (int32_t) e->limits.max_out - 1;
    }
    kern_attn(&a, h0, h1, 0, 1);
}


static void
self_attention(const enc_run_t *r, const enc_layer_t *l, uint32_t layer)
{
    enc_t           *e = r->e;
    float           *qkv = e->qkv;
    uint8_t         *page;
    uint32_t         c, len, heads = e->m->hp.heads, d = e->m->hp.head_dim;
    uint32_t         inner = heads * d;
    kern_panel_t     p;
    const eng_seq_t *s;

    input(r, &p, &l->attn_norm);
    enc_product(r, &l->qkv, &p, qkv, 3 * (size_t) inner);
    enc_barrier(r);

    /* a sequence's keys are written and read by one thread */
    for (c = r->thread; c < e->n_step; c += r->team) {
        s = &e->ans.seq[e->step[c].seq];
        len = s->length;
        page = e->ans.memory + (size_t) s->page[len / KERN_KV_PAGE]
               * e->ans.plan.page_bytes + layer * e->layer_bytes;
        kern_kv_append(KERN_KV_F16, page, len % KERN_KV_PAGE, heads, d,
                       qkv + (size_t) c * 3 * inner + inner,
                       qkv + (size_t) c * 3 * inner + 2 * inner);
        attend(r, s, c, layer, len + 1, qkv, 3 * (size_t) inner, 0, heads,
               1);
    }
    enc_barrier(r);
    enc_panel(r, &p, e->m->wtype, e->att, inner, e->n_step, inner);
    output(r, &l->o, &p);
}


static void
cross_attention(const enc_run_t *r, const enc_layer_t *l, uint32_t layer)
{
    enc_t           *e = r->e;
    uint32_t         c, h, i = 0, heads = e->m->hp.heads;
    uint32_t         inner = heads * e->m->hp.head_dim;
    kern_panel_t     p;
    const eng_seq_t *s;

    input(r, &p, &l->cross_norm);
    enc_product(r, &l->cq, &p, e->qkv, inner);
    enc_barrier(r);
    for (c = 0; c < e->n_step; c++) {
        s = &e->src.seq[e->src_of[e->step[c].seq]];
        for (h = 0; h < heads; h++, i++) {
            if (i % r->team == r->thread) {
                attend(r, s, c, layer, s->length, e->qkv, inner, h, h + 1,
                       0);
            }
        }
    }
    enc_barrier(r);
    enc_panel(r, &p, e->m->wtype, e->att, inner, e->n_step, inner);
    output(r, &l->co, &p);
}


static void
feed_forward(const enc_run_t *r, const enc_layer_t *l)
{
    kern_panel_t  in, p;

    input(r, &in, &l->ffn_norm);
    enc_ffn_rows(r, &l->up, &in, &p);
    output(r, &l->down, &p);
}


void
enc_decode(enc_run_t *r)
{
    float              *x;
    enc_t              *e = r->e;
    uint32_t            c, i, embd = e->m->hp.embd;
    enc_linear_t        head = { .b = NULL };
    kern_panel_t        p;
    const enc_model_t  *m = e->m;

    eng_assert(e->n_step <= e->rows_max);
    for (c = 0; c < e->n_step; c++) {
        x = r->x + (size_t) c * embd;
        if (m->tok_packed.rows > 0) {
            kern_row_f32(&m->tok_packed, e->step[c].token, x);
        } else {
            kern_gguf_row_f32(m->tok.type, m->tok.data + e->step[c].token
                              * m->tok.row_bytes, embd, x);
        }
    }

    for (i = 0; i < m->hp.dec_layers; i++) {
        self_attention(r, &m->dec[i], i);
        cross_attention(r, &m->dec[i], i);
        feed_forward(r, &m->dec[i]);
    }

    for (c = 0; c < e->n_step; c++) {
        x = r->x + (size_t) c * embd;
        enc_norm(m, &m->dec_norm, x, x);
        kern_scale(x, x, m->hp.out_scale, embd);
    }
    head.w = m->hp.tied ? m->tok_packed : m->output;
    enc_panel(r, &p, head.w.type, r->x, embd, e->n_step, embd);
    enc_product(r, &head, &p, e->logits, m->hp.vocab);
}
