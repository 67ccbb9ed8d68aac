/*
 * From hidden states to what was asked for: pooled vectors, class logits, the
 * states themselves, or the decoder's keys and values.
 */
#include <string.h>

#include "worker/encoder/enc_int.h"
#include "worker/engine/eng_chk.h"


/* Tokens [t0, t1) of one sequence to one vector. */
static void
pool(const enc_run_t *r, uint32_t t0, uint32_t t1, float *v)
{
    uint32_t      t, i, embd = r->e->m->hp.embd;
    const float  *x = enc_row(r, t0);

    switch (r->e->how) {
    case ENC_POOL_CLS:
        memcpy(v, x, embd * sizeof(float));
        return;
    case ENC_POOL_LAST:
        memcpy(v, enc_row(r, t1 - 1), embd * sizeof(float));
        return;
    case ENC_POOL_MAX:
        memcpy(v, x, embd * sizeof(float));
        for (t = t0 + 1; t < t1; t++) {
            x = enc_row(r, t);
            for (i = 0; i < embd; i++) {
                v[i] = x[i] > v[i] ? x[i] : v[i];
            }
        }
        return;
    case ENC_POOL_MEAN:
    default:
        memcpy(v, x, embd * sizeof(float));
        for (t = t0 + 1; t < t1; t++) {
            kern_add(v, v, enc_row(r, t), embd);
        }
        kern_scale(v, v, 1.0f / (float) (t1 - t0), embd);
    }
}


/* Logits of sequences [s, s + n) from their pooled vectors. */
static void
classify(enc_run_t *r, uint32_t s, uint32_t n)
{
    int                 rows = r->rows;
    enc_t              *e = r->e;
    float              *v = e->pooled + (size_t) s * e->m->hp.embd;
    float              *d = e->dense + (size_t) s * e->m->hp.embd, *x;
    uint32_t            c, i, embd = e->m->hp.embd;
    kern_panel_t        p;
    const enc_model_t  *m = e->m;

    r->rows = 0;            /* this thread alone */
    enc_panel(r, &p, KERN_F32, v, embd, n, embd);
    enc_product(r, &m->dense, &p, d, embd);
    for (c = 0; c < n; c++) {
        x = d + (size_t) c * embd;
        if (m->hp.head->tanh) {
            for (i = 0; i < embd; i++) {
                x[i] = __builtin_tanhf(x[i]);
            }
        } else {
            kern_act(m->hp.head->act, x, x, embd);
        }
        if (m->head_norm.w != NULL) {
            enc_norm(m, &m->head_norm, x, x);
        }
    }
    enc_panel(r, &p, KERN_F32, d, embd, n, embd);
    enc_product(r, &m->out, &p, e->out + (size_t) s * m->hp.labels,
                m->hp.labels);
    r->rows = rows;
}


static void
pool_all(enc_run_t *r)
{
    enc_t           *e = r->e;
    uint32_t         s, n, embd = e->m->hp.embd;
    const uint32_t  *at = e->batch.offsets;
    float           *v = e->m->hp.head != NULL ? e->pooled : e->out;

    for (s = r->task.s0; s < r->task.s1; s++) {
        pool(r, at[s], at[s + 1], v + (size_t) s * embd);
    }
    if (e->m->hp.head == NULL) {
        return;
    }
    for (s = r->task.s0; s < r->task.s1; s += n) {
        n = r->task.s1 - s < ENC_CHUNK ? r->task.s1 - s : ENC_CHUNK;
        classify(r, s, n);
    }
}


/* Keys and values of tokens [t, t + n), which are of sequence s. */
static void
cross(enc_run_t *r, uint32_t s, uint32_t t, uint32_t n)
{
    enc_t           *e = r->e;
    float           *kv = r->own->tmp;
    uint32_t         i, c, at, embd = e->m->hp.embd;
    uint32_t         heads = e->m->hp.heads, d = e->m->hp.head_dim;
    uint32_t         inner = heads * d;
    uint8_t         *page;
    kern_panel_t     p;
    const eng_seq_t *q = &e->src.seq[e->source[s]];

    enc_panel(r, &p, e->m->wtype, enc_row(r, t), embd, n, embd);
    for (i = 0; i < e->m->hp.dec_layers; i++) {
        enc_product(r, &e->m->dec[i].ckv, &p, kv, 2 * (size_t) inner);
        for (c = 0; c < n; c++) {
            at = t + c - e->batch.offsets[s];
            /* the pages are ours alone until the job is done */
            page = e->src.memory + (size_t) q->page[at / KERN_KV_PAGE]
                   * e->src.plan.page_bytes + i * e->layer_bytes;
            kern_kv_append(KERN_KV_F16, page, at % KERN_KV_PAGE, heads, d,
                           kv + (size_t) c * 2 * inner,
                           kv + (size_t) c * 2 * inner + inner);
        }
    }
}


static void
cross_all(enc_run_t *r)
{
    int              rows = r->rows;
    uint32_t         s, t, end, n, a = r->a, b = r->b;
    const uint32_t  *at = r->e->batch.offsets;

    if (rows) {
        /* all tokens are everybody's: share them now */
        a = r->t0 + (uint32_t) ((uint64_t) (r->t1 - r->t0) * r->thread
                                / r->team);
        b = r->t0 + (uint32_t) ((uint64_t) (r->t1 - r->t0)
                                * (r->thread + 1) / r->team);
    }
    r->rows = 0;
    for (s = r->task.s0; s < r->task.s1; s++) {
        t = at[s] > a ? at[s] : a;
        end = at[s + 1] < b ? at[s + 1] : b;
        for ( /* void */ ; t < end; t += n) {
            n = end - t < ENC_CHUNK ? end - t : ENC_CHUNK;
            cross(r, s, t, n);
        }
    }
    r->rows = rows;
}


void
enc_result(enc_run_t *r)
{
    enc_t     *e = r->e;
    uint32_t   embd = e->m->hp.embd;

    eng_assert(r->task.s0 < r->task.s1);
    if (e->job == ENC_JOB_SOURCE) {
        cross_all(r);
        return;
    }

    if (!r->rows) {
        enc_barrier(r);
    }
    if (r->team > 1 && r->thread != 0) {
        return;
    }
    if (e->job == ENC_JOB_HIDDEN) {
        memcpy(e->out + (size_t) r->t0 * embd, enc_row(r, r->t0),
               (size_t) (r->t1 - r->t0) * embd * sizeof(float));
    } else {
        pool_all(r);
    }
}
