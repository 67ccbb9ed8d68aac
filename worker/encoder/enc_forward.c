/*
 * The encoder, one layer after the other, for all families.
 *
 * A task's tokens are columns.  A thread alone does a task from top to bottom
 * without meeting anybody.  Threads together either split the tokens, and
 * meet around attention only, or, for a few tokens, split the rows of every
 * matrix: then each keeps its own copy of the residual stream and repeats the
 * small work, which costs less than more barriers would.
 */
#include <string.h>

#include "worker/encoder/enc_int.h"
#include "worker/engine/eng_chk.h"


void
enc_panel(const enc_run_t *r, kern_panel_t *p, kern_wtype_t type,
    const float *x, size_t ldx, uint32_t n, uint32_t k)
{
    kern_panel_init(p, enc_panel_kind(type), n, k, r->own->panel);
    p->sums = kern_panel_sums(type);
    kern_quant(p, 0, n, x, ldx);
}


/* Activation of a feed forward's first product, as input of the second. */
static void
ffn_act(const enc_run_t *r, kern_panel_t *p, float *up, uint32_t n)
{
    uint32_t            c;
    const enc_model_t  *m = r->e->m;
    const enc_hp_t     *hp = &m->hp;

    if (!(hp->flags & ENC_F_GLU)) {
        for (c = 0; c < n; c++) {
            kern_act(hp->act, up + (size_t) c * hp->ff,
                     up + (size_t) c * hp->ff, hp->ff);
        }
        enc_panel(r, p, m->wtype, up, hp->ff, n, hp->ff);
        return;
    }

    kern_panel_init(p, enc_panel_kind(m->wtype), n, hp->ff, r->own->panel);
    p->sums = kern_panel_sums(m->wtype);
    kern_quant_glu(p, 0, n, hp->act, up, up + hp->ff, 2 * (size_t) hp->ff);
}


/* Rows [r0, r1), bias added. */
static void
product(const enc_linear_t *l, const kern_panel_t *p, float *out, size_t ldo,
    uint32_t r0, uint32_t r1)
{
    float     *y;
    uint32_t   c;

    if (r0 >= r1) {
        return;
    }

    kern_matmul(&l->w, p, out, ldo, r0, r1);
    if (l->b != NULL) {
        for (c = 0; c < p->m; c++) {
            y = out + c * ldo + r0;
            kern_add(y, y, l->b + r0, r1 - r0);
        }
    }
}


void
enc_product(const enc_run_t *r, const enc_linear_t *l, const kern_panel_t *p,
    float *out, size_t ldo)
{
    uint32_t  groups, r0 = 0, r1 = l->w.rows;

    if (r->rows) {
        groups = (l->w.rows + KERN_ROW_GROUP - 1) / KERN_ROW_GROUP;
        r0 = (uint32_t) ((uint64_t) groups * r->thread / r->team)
             * KERN_ROW_GROUP;
        r1 = (uint32_t) ((uint64_t) groups * (r->thread + 1) / r->team)
             * KERN_ROW_GROUP;
        r1 = r1 < l->w.rows ? r1 : l->w.rows;
    }
    product(l, p, out, ldo, r0, r1);
}


void
enc_ffn_rows(const enc_run_t *r, const enc_linear_t *l,
    const kern_panel_t *in, kern_panel_t *p)
{
    float              *up = r->own->up;
    size_t              ld = l->w.rows;
    uint32_t            c, k0, k1, n = in->m;
    const enc_model_t  *m = r->e->m;
    const enc_hp_t     *hp = &m->hp;

    k0 = hp->ff / KERN_BLOCK * r->thread / r->team * KERN_BLOCK;
    k1 = hp->ff / KERN_BLOCK * (r->thread + 1) / r->team * KERN_BLOCK;
    product(l, in, up, ld, k0, k1);
    kern_panel_init(p, enc_panel_kind(m->wtype), n, hp->ff, r->e->inner);
    p->sums = kern_panel_sums(m->wtype);
    if (hp->flags & ENC_F_GLU) {
        product(l, in, up, ld, hp->ff + k0, hp->ff + k1);
        kern_quant_glu_part(p, 0, n, k0, k1, hp->act, up, up + hp->ff, ld);
    } else {
        for (c = 0; c < n; c++) {
            kern_act(hp->act, up + c * ld + k0, up + c * ld + k0, k1 - k0);
        }
        kern_quant_part(p, 0, n, k0, k1, up, ld);
    }
    enc_barrier(r);
}


void
enc_norm(const enc_model_t *m, const enc_norm_t *n, float *y, const float *x)
{
    uint32_t  embd = m->hp.embd;

    if (n->w == NULL) {
        if (y != x) {
            memcpy(y, x, embd * sizeof(float));
        }
    } else if (m->hp.flags & ENC_F_RMS) {
        kern_rmsnorm(y, x, n->w, embd, m->hp.eps);
    } else {
        kern_layernorm(y, x, n->w, n->b, embd, m->hp.eps);
    }
}


/*
 * The residual stream has dimensions that are many times larger than the
 * others: with int8 for 32 values together, the others' bits are lost.
 * Matrices that have their columns ordered for that (enc_order.c) get the
 * values so.
 */
static void
ordered_panel(const enc_run_t *r, kern_panel_t *p, const float *x, uint32_t n)
{
    float              *row = r->own->tmp;
    uint32_t            c, embd = r->e->m->hp.embd;
    const enc_model_t  *m = r->e->m;

    eng_assert(!(m->hp.flags & ENC_F_PRENORM));     /* x may be tmp there */
    kern_panel_init(p, KERN_PANEL_I8, n, embd + KERN_BLOCK, r->own->panel);
    p->sums = kern_panel_sums(m->wtype);
    for (c = 0; c < n; c++) {
        enc_order_values(m, x + (size_t) c * embd, row);
        kern_quant(p, c, c + 1, row, 0);
    }
}


/*
 * For the others the stream's columns have 15 bits where attention reads them,
 * and for the feed forward where it matters: these dimensions grow from layer
 * to layer, and what the last one rounds goes through no other.
 */
static void
stream_panel(const enc_run_t *r, kern_panel_t *p, const float *x, uint32_t n)
{
    uint32_t           embd = r->e->m->hp.embd;
    kern_panel_kind_t  kind = kern_panel_kind(r->e->m->wtype);

    if (kind != KERN_PANEL_I8) {
        enc_panel(r, p, r->e->m->wtype, x, embd, n, embd);
        return;
    }
    kern_panel_init(p, KERN_PANEL_I15, n, embd, r->own->panel);
    p->sums = kern_panel_sums(r->e->m->wtype);
    kern_quant(p, 0, n, x, embd);
}


/* n columns of x from `token` on as input of a matrix, behind the norm if
   there is one in front of the block; fine: see above. */
static void
block_input(const enc_run_t *r, kern_panel_t *p, const enc_norm_t *norm,
    const enc_linear_t *to, uint32_t token, uint32_t n, int fine)
{
    float              *x = enc_row(r, token), *tmp = r->own->tmp;
    uint32_t            c, embd = r->e->m->hp.embd;
    const enc_model_t  *m = r->e->m;

    if ((m->hp.flags & ENC_F_PRENORM) && norm->w != NULL) {
        for (c = 0; c < n; c++) {
            enc_norm(m, norm, tmp + (size_t) c * embd,
                     x + (size_t) c * embd);
        }
        x = tmp;
    }
    if (to->w.cols > embd) {
        ordered_panel(r, p, x, n);
    } else if (fine) {
        stream_panel(r, p, x, n);
    } else {
        enc_panel(r, p, m->wtype, x, embd, n, embd);
    }
}


/* x += sub, and the norm behind the block where it stands there. */
static void
block_output(const enc_run_t *r, const enc_norm_t *norm, const float *sub,
    uint32_t token, uint32_t n)
{
    float              *x;
    uint32_t            c, embd = r->e->m->hp.embd;
    const enc_model_t  *m = r->e->m;

    for (c = 0; c < n; c++) {
        x = enc_row(r, token + c);
        kern_add(x, x, sub + (size_t) c * embd, embd);
        if (!(m->hp.flags & ENC_F_PRENORM)) {
            enc_norm(m, norm, x, x);
        }
    }
}


static int
fine_feed_forward(const enc_hp_t *hp, uint32_t layer)
{
    return layer >= hp->layers / 2 && layer + 1 < hp->layers;
}


static int
windowed(const enc_hp_t *hp, uint32_t layer)
{
    return hp->window > 0 && layer % hp->global_every != 0;
}


/* In rows mode a thread has the rows that it computed: heads are whole only
   behind the barrier, so rotation happens where keys are read. */
static void
rotate(const enc_run_t *r, uint32_t layer, uint32_t token, uint32_t first,
    uint32_t n_head)
{
    enc_t           *e = r->e;
    uint32_t         d = e->m->hp.head_dim;
    uint32_t         inner = e->m->hp.heads * d;
    float           *q = e->qkv + (size_t) token * 3 * inner
                         + (size_t) first * d;
    const float     *cs = e->rope[windowed(&e->m->hp, layer)]
                          + (size_t) e->pos[token] * d;

    kern_rope(KERN_ROPE_NEOX, q, n_head, d, d, cs, cs + d / 2);
    kern_rope(KERN_ROPE_NEOX, q + inner, n_head, d, d, cs, cs + d / 2);
}


static void
attend(const enc_run_t *r, uint32_t layer, uint32_t s, uint32_t head)
{
    enc_t           *e = r->e;
    uint32_t         t, d = e->m->hp.head_dim;
    uint32_t         inner = e->m->hp.heads * d;
    uint32_t         t0 = e->batch.offsets[s];
    uint32_t         n = e->batch.offsets[s + 1] - t0;
    const float     *q = e->qkv + (size_t) t0 * 3 * inner
                         + (size_t) head * d;
    kern_full_t      a = { .n_query = n, .n_key = n, .head_dim = d,
                           .scale = e->m->hp.scale, .q = q,
                           .ldq = 3 * (size_t) inner, .keys = r->own->keys,
                           .v = q + 2 * inner, .ldv = 3 * (size_t) inner,
                           .ldo = inner, .scratch = r->own->scratch };

    if (e->m->hp.flags & ENC_F_ROPE) {
        for (t = t0; t < t0 + n; t++) {
            rotate(r, layer, t, head, 1);
        }
    }
    if (windowed(&e->m->hp, layer)) {
        a.window = e->m->hp.window;
    }
    if (e->rel != NULL) {
        a.bias = e->rel + (size_t) head * (2 * e->limits.max_seq - 1)
                 + e->limits.max_seq - 1;
    }
    a.out = e->att + (size_t) t0 * inner + (size_t) head * d;
    kern_full_pack(r->own->keys, q + inner, a.ldq, n, d);
    kern_full(&a, 0, n);
}


static void
attention(const enc_run_t *r, uint32_t layer)
{
    uint32_t  s, h, i = 0;

    for (s = r->task.s0; s < r->task.s1; s++) {
        for (h = 0; h < r->e->m->hp.heads; h++, i++) {
            if (i % r->team == r->thread) {
                attend(r, layer, s, h);
            }
        }
    }
}


static void
feed_forward(const enc_run_t *r, const enc_layer_t *l, uint32_t token,
    uint32_t n)
{
    enc_t         *e = r->e;
    float         *sub = e->sub + (size_t) token * e->m->hp.embd;
    kern_panel_t   in, p;

    block_input(r, &in, &l->ffn_norm, &l->up, token, n,
                fine_feed_forward(&r->e->m->hp,
                                  (uint32_t) (l - r->e->m->layer)));
    if (r->rows) {
        enc_ffn_rows(r, &l->up, &in, &p);
    } else {
        enc_product(r, &l->up, &in, r->own->up, l->up.w.rows);
        ffn_act(r, &p, r->own->up, n);
    }
    enc_product(r, &l->down, &p, sub, e->m->hp.embd);
    if (r->rows) {
        enc_barrier(r);
    }
    block_output(r, &l->ffn_norm, sub, token, n);
}


static void
layer(const enc_run_t *r, uint32_t i)
{
    float              *sub;
    enc_t              *e = r->e;
    uint32_t            t, n, embd = e->m->hp.embd;
    uint32_t            inner = e->m->hp.heads * e->m->hp.head_dim;
    kern_panel_t        p;
    const enc_layer_t  *l = &e->m->layer[i];

    for (t = r->a; t < r->b; t += n) {
        n = r->b - t < ENC_CHUNK ? r->b - t : ENC_CHUNK;
        block_input(r, &p, &l->attn_norm, &l->qkv, t, n, 1);
        enc_product(r, &l->qkv, &p, e->qkv + (size_t) t * 3 * inner,
                    3 * (size_t) inner);
    }
    enc_barrier(r);
    attention(r, i);
    enc_barrier(r);

    for (t = r->a; t < r->b; t += n) {
        n = r->b - t < ENC_CHUNK ? r->b - t : ENC_CHUNK;
        sub = e->sub + (size_t) t * embd;
        enc_panel(r, &p, e->m->wtype, e->att + (size_t) t * inner, inner, n,
                  inner);
        enc_product(r, &l->o, &p, sub, embd);
        if (r->rows) {
            enc_barrier(r);
        }
        block_output(r, &l->attn_norm, sub, t, n);
        feed_forward(r, l, t, n);
    }
}


/* Adds a table's row, which is in the file's own type. */
static void
add_row(const enc_run_t *r, const enc_table_t *t, uint32_t row, float *x)
{
    float  *tmp = r->own->tmp;

    eng_assert(row < t->rows);
    kern_gguf_row_f32(t->type, t->data + row * t->row_bytes, t->cols, tmp);
    kern_add(x, x, tmp, t->cols);
}


static void
embed(const enc_run_t *r, uint32_t token)
{
    float              *x = enc_row(r, token);
    enc_t              *e = r->e;
    uint32_t            id = e->batch.ids[token], type;
    const enc_model_t  *m = e->m;

    if (m->tok_packed.rows > 0) {
        kern_row_f32(&m->tok_packed, id, x);
    } else {
        kern_gguf_row_f32(m->tok.type, m->tok.data + id * m->tok.row_bytes,
                          m->tok.cols, x);
    }
    if (m->type.rows > 0) {
        type = e->batch.types != NULL ? e->batch.types[token] : 0;
        add_row(r, &m->type, type, x);
    }
    if (m->pos.rows > 0) {
        add_row(r, &m->pos, e->pos[token], x);
    }
    if (m->emb_norm.w != NULL) {
        enc_norm(m, &m->emb_norm, x, x);
    }
}


void
enc_forward(enc_run_t *r)
{
    uint32_t            t, i;
    const enc_model_t  *m = r->e->m;

    for (t = r->a; t < r->b; t++) {
        embed(r, t);
    }
    for (i = 0; i < m->hp.layers; i++) {
        layer(r, i);
    }
    if (m->last_norm.w != NULL) {
        for (t = r->a; t < r->b; t++) {
            enc_norm(m, &m->last_norm, enc_row(r, t), enc_row(r, t));
        }
    }
}
