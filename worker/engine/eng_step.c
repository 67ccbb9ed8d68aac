/*
 * The forward pass of one batch.  Every thread runs this file from top to
 * bottom; barriers stand between what one thread writes and another reads.
 *
 *   stage          reads            writes          split by
 *   embed          embd, tok        x, rope         columns
 *   norm+quantise  x                panel           columns
 *   q, k, v        panel            act             rows
 *   rope, append   act              act, KV page    head or token
 *   attention      act, KV pages    att, panel      sequence, kv head, queries
 *   (last layer)   x, att           x, att          wanted columns move up
 *   o              panel            sub             rows
 *   add, norm, q.  x, sub           x, panel        columns
 *   (experts: eng_moe.c)
 *   gate, up, glu  panel            act, inner      rows, the same of both
 *   down           inner            sub             rows
 *   add            x, sub           x               columns
 *   (last) norm    x                panel           wanted columns
 *   output         panel            logits          rows
 *
 * A column is a token of the batch.  Small batches (redundant mode) give each
 * thread all columns, its own x and its own panel, and save the barrier
 * between the columns' work and the rows' work.  The arithmetic of a column
 * does not depend on any of this: the kernels promise it.
 */
#include <string.h>

#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_step.h"

static void embed(eng_view_t *v);
static void layer(eng_view_t *v, uint32_t i);
static int narrow(eng_view_t *v);
static void add_residual(eng_view_t *v, const float *post_norm);
static void output(eng_view_t *v);


static void
view_init(eng_view_t *v, eng_ctx_t *x, uint32_t thread)
{
    uint32_t  n = x->n_tok;

    v->x = x;
    v->hp = &x->m->hp;
    v->thread = thread;
    v->threads = x->plan.threads;
    v->redundant = n <= ENG_REDUNDANT_MAX && v->threads > 1;
    v->narrow = 0;
    v->n = n;
    v->nq = v->hp->heads * v->hp->head_dim;
    v->nk = v->hp->heads_kv * v->hp->head_dim;
    v->ld_qkv = eng_stride(v->nq + 2 * v->nk);
    v->ld_sub = eng_stride(v->hp->embd);
    eng_split(n, thread, v->threads, &v->t0, &v->t1);

    if (v->redundant) {
        v->c0 = 0;
        v->c1 = n;
        v->res = x->own[thread].x;
        v->panel_mem[0] = x->own[thread].panel;
        v->panel_mem[1] = x->own[thread].panel + x->own_panel_bytes;
    } else {
        v->c0 = v->t0;
        v->c1 = v->t1;
        v->res = x->x;
        v->panel_mem[0] = x->panel[0];
        v->panel_mem[1] = x->panel[1];
    }
}


void
eng_forward(void *arg, uint32_t thread)
{
    eng_view_t  v;
    uint32_t    i;
    eng_ctx_t  *x = arg;

    view_init(&v, x, thread);
    embed(&v);
    for (i = 0; i < v.hp->layers; i++) {
        layer(&v, i);
    }
    if (x->n_want > 0) {
        output(&v);
    }
}


/* ---- panels and products ------------------------------------------------ */

uint32_t
eng_kinds_of(const kern_weight_t *const *w, uint32_t n)
{
    uint32_t  i, kinds = 0;

    for (i = 0; i < n; i++) {
        if (w[i]->rows == 0) {
            continue;             /* part of another matrix                  */
        }
        kinds |= 1u << kern_panel_kind(w[i]->type);
    }

    return kinds;
}


void
eng_panel_init(const eng_view_t *v, uint32_t kind, uint32_t m, uint32_t k,
    void *mem, kern_panel_t *p)
{
    kern_panel_init(p, eng_panel_kind(v->x->m, (kern_panel_kind_t) kind), m, k,
                    mem);
}


uint32_t
eng_sums_of(const kern_weight_t *const *w, uint32_t n)
{
    uint32_t  i, sums = 0;

    for (i = 0; i < n; i++) {
        sums |= w[i]->rows == 0 ? 0 : kern_panel_sums(w[i]->type);
    }

    return sums;
}


static uint32_t
groups_of(const kern_weight_t *w)
{
    return (w->rows + KERN_ROW_GROUP - 1) / KERN_ROW_GROUP;
}


/* Where row r of a matrix begins, which is a group's first one. */
static const void *
row_at(const kern_weight_t *w, uint32_t r)
{
    size_t  begin, end;

    kern_packed_range(w->type, w->rows, w->cols, r, w->rows, &begin, &end);

    return (const uint8_t *) w->packed + begin;
}


/* This thread's row groups [*g0, *g1) of some matrices one after the other. */
static void
share_of(const eng_view_t *v, const kern_weight_t *const *w, uint32_t n,
    uint32_t *g0, uint32_t *g1)
{
    uint32_t  i, all = 0;

    for (i = 0; i < n; i++) {
        all += groups_of(w[i]);
    }
    eng_split(all, v->thread, v->threads, g0, g1);
}


const void *
eng_share(const eng_view_t *v, const kern_weight_t *const *w, uint32_t n)
{
    uint32_t  i, g0, g1;

    share_of(v, w, n, &g0, &g1);
    for (i = 0; i < n && g0 >= groups_of(w[i]); i++) {
        g0 -= groups_of(w[i]);
    }
    if (i == n) {
        return NULL;              /* fewer groups than threads               */
    }

    return row_at(w[i], g0 * KERN_ROW_GROUP);
}


/* Rows [r0, r1) of one matrix for all columns; out is row 0. */
static void
product_rows(const eng_view_t *v, const kern_weight_t *w, uint32_t r0,
    uint32_t r1, uint32_t m, uint8_t *const panel[2], float *out, size_t ldo,
    const void *next)
{
    uint32_t      kind = kern_panel_kind(w->type);
    kern_panel_t  p;

    if (r0 < r1) {
        eng_panel_init(v, kind, m, w->cols, panel[kind], &p);
        p.next = next;
        kern_matmul(w, &p, out, ldo, r0, r1);
    }
}


void
eng_product(const eng_view_t *v, const kern_weight_t *const *w, uint32_t n,
    uint32_t m, uint8_t *const panel[2], float *out, size_t ldo,
    const void *next)
{
    uint32_t  i, g0, g1, base, groups, r0, r1;

    share_of(v, w, n, &g0, &g1);

    for (i = 0, base = 0; i < n; i++) {
        groups = groups_of(w[i]);
        r0 = g0 > base ? (g0 - base) * KERN_ROW_GROUP : 0;
        r1 = g1 > base ? (g1 - base) * KERN_ROW_GROUP : 0;
        r1 = r1 > w[i]->rows ? w[i]->rows : r1;
        product_rows(v, w[i], r0, r1, m, panel, out, ldo,
                     g1 > base + groups ? w[i + 1]->packed : next);
        out += w[i]->rows;
        base += groups;
    }
}


void
eng_quant_norm(const eng_view_t *v, const kern_weight_t *const *w, uint32_t n,
    const float *norm)
{
    uint32_t      kind, kinds = eng_kinds_of(w, n);
    kern_panel_t  p;

    for (kind = 0; kind < 2; kind++) {
        if ((kinds >> kind) & 1) {
            eng_panel_init(v, kind, v->n, v->hp->embd, v->panel_mem[kind],
                           &p);
            p.sums = eng_sums_of(w, n);
            kern_quant_rmsnorm(&p, v->c0, v->c1, v->res, v->hp->embd, norm,
                               v->hp->eps);
        }
    }
}


/* ---- stages ------------------------------------------------------------- */

static void
embed(eng_view_t *v)
{
    float      *t;
    uint32_t    c, half = v->hp->rot_dim / 2;
    eng_ctx_t  *x = v->x;

    for (c = v->c0; c < v->c1; c++) {
        t = v->res + (size_t) c * v->hp->embd;
        kern_row_f32(&x->m->embd, x->tok[c].token, t);
        if (v->hp->embd_scale != 1.0f) {
            kern_scale(t, t, v->hp->embd_scale, v->hp->embd);
        }
    }

    for (c = v->t0; c < v->t1; c++) {
        t = x->rope + (size_t) c * 4 * half;
        kern_rope_table(t, t + half, x->freq, half, x->tok[c].pos,
                        v->hp->rope_mscale);
        if (v->hp->arch->base_local > 0.0f) {
            kern_rope_table(t + 2 * half, t + 3 * half, v->hp->freq_local,
                            half, x->tok[c].pos, 1.0f);
        }
    }
}


/* This thread's first weights after those of layer l, after the output matrix
   when l is NULL: then it is another step's first layer. */
static const void *
next_layer(const eng_view_t *v, const eng_layer_t *l)
{
    const eng_layer_t    *first = v->x->m->layer;
    const kern_weight_t  *output = &v->x->m->output;

    l = l == NULL ? first : l + 1;
    if (l == first + v->hp->layers) {
        return eng_share(v, &output, 1);
    }

    return eng_share(v, (const kern_weight_t *const []) { &l->q, &l->k,
                                                          &l->v }, 3);
}


/* This thread's part of the inner columns: whole blocks. */
static void
inner_share(const eng_view_t *v, uint32_t *k0, uint32_t *k1)
{
    eng_split(v->hp->ff / KERN_BLOCK, v->thread, v->threads, k0, k1);
    *k0 *= KERN_BLOCK;
    *k1 *= KERN_BLOCK;
}


/* Where this thread's first weights after attention's begin. */
static const void *
ffn_first(const eng_view_t *v, const eng_layer_t *l)
{
    uint32_t  k0, k1;

    if (v->hp->experts > 0) {
        return NULL;
    }
    inner_share(v, &k0, &k1);

    return row_at(&l->gate, k0);
}


/*
 * Each thread makes the same rows of gate and up, so that what comes of them
 * is its own part of the columns for down.
 */
static void
dense(eng_view_t *v, const eng_layer_t *l)
{
    int                   fused = l->up.rows == 0;
    eng_ctx_t            *x = v->x;
    uint32_t              k0, k1, at, ff = v->hp->ff;
    uint32_t              kind = kern_panel_kind(l->down.type);
    uint32_t              ld = eng_stride(2 * ff);
    const void           *next;
    kern_panel_t          p;
    const kern_weight_t  *gu[2] = { &l->gate, &l->up }, *down = &l->down;

    inner_share(v, &k0, &k1);
    at = fused ? ff : 0;                  /* the row of up that is its first */

    eng_quant_norm(v, gu, 2, l->ffn_norm);
    eng_sync_columns(v);
    next = eng_share(v, &down, 1);
    product_rows(v, gu[0], k0, k1, v->n, v->panel_mem, x->act, ld,
                 k0 < k1 ? row_at(gu[!fused], at + k0) : next);
    product_rows(v, gu[!fused], at + k0, at + k1, v->n, v->panel_mem,
                 x->act + ff - at, ld, next);

    eng_panel_init(v, kind, v->n, ff, x->inner[kind], &p);
    p.sums = eng_sums_of(&down, 1);
    kern_quant_glu_part(&p, 0, v->n, k0, k1, v->hp->arch->act, x->act,
                        x->act + ff, ld);
    eng_sync_all(v);
    eng_product(v, &down, 1, v->n, x->inner, x->sub, v->ld_sub,
                next_layer(v, l));
    eng_sync_all(v);

    add_residual(v, l->post_ffn_norm);
}


static void
layer(eng_view_t *v, uint32_t i)
{
    int                   filled;
    eng_ctx_t            *x = v->x;
    uint32_t              kind;
    kern_panel_t          p;
    const eng_layer_t    *l = &x->m->layer[i];
    const kern_weight_t  *qkv[3] = { &l->q, &l->k, &l->v }, *o = &l->o;

    eng_quant_norm(v, qkv, 3, l->attn_norm);
    eng_sync_columns(v);
    eng_product(v, qkv, 3, v->n, v->panel_mem, x->act, v->ld_qkv,
                eng_attention_first(v, i));
    eng_sync_all(v);

    filled = eng_attention(v, l, i, eng_share(v, &o, 1));
    eng_sync_all(v);
    if (i + 1 == v->hp->layers && !narrow(v)) {
        return;
    }

    if (!filled) {
        kind = kern_panel_kind(o->type);
        eng_panel_init(v, kind, v->n, v->nq, v->panel_mem[kind], &p);
        p.sums = eng_sums_of(&o, 1);
        kern_quant(&p, v->c0, v->c1, x->att, v->nq);
        eng_sync_columns(v);
    }
    eng_product(v, &o, 1, v->n, filled ? x->panel : v->panel_mem, x->sub,
                v->ld_sub, ffn_first(v, l));
    eng_sync_all(v);

    add_residual(v, l->post_attn_norm);
    if (v->hp->experts > 0) {
        eng_moe(v, l);
    } else {
        dense(v, l);
    }
}


/*
 * In the last layer only tokens whose logits are wanted go on: their columns
 * move to the front.  Two steps through `act`, which is free now, because
 * the places overlap.  0: nobody goes on.
 */
static int
narrow(eng_view_t *v)
{
    float      *t;
    uint32_t    j, a, b, e = v->hp->embd;
    eng_ctx_t  *x = v->x;

    if (x->n_want == 0) {
        return 0;
    }
    if (v->redundant || x->n_want == v->n) {
        return 1;
    }

    eng_split(x->n_want, v->thread, v->threads, &a, &b);
    for (j = a; j < b; j++) {
        t = x->act + (size_t) j * (e + v->nq);
        memcpy(t, v->res + (size_t) x->want[j] * e, e * sizeof(float));
        memcpy(t + e, x->att + (size_t) x->want[j] * v->nq,
               v->nq * sizeof(float));
    }
    eng_sync_all(v);
    for (j = a; j < b; j++) {
        t = x->act + (size_t) j * (e + v->nq);
        memcpy(v->res + (size_t) j * e, t, e * sizeof(float));
        memcpy(x->att + (size_t) j * v->nq, t + e, v->nq * sizeof(float));
    }

    /* The same thread goes on with these columns; `act` is written again only
       after the next barrier. */
    v->c0 = a;
    v->c1 = b;
    v->n = x->n_want;
    v->narrow = 1;

    return 1;
}


static void
add_residual(eng_view_t *v, const float *post_norm)
{
    float        *r;
    uint32_t      c, e = v->hp->embd;
    const float  *s;

    for (c = v->c0; c < v->c1; c++) {
        r = v->res + (size_t) c * e;
        s = v->x->sub + (size_t) c * v->ld_sub;
        if (post_norm != NULL) {
            kern_rmsnorm(v->x->own[v->thread].row, s, post_norm, e,
                         v->hp->eps);
            s = v->x->own[v->thread].row;
        }
        kern_add(r, r, s, e);
    }
}


/* ---- logits ------------------------------------------------------------- */

static void
output(eng_view_t *v)
{
    uint32_t              j, c, kind, g0, g1, groups, r0, r1;
    uint32_t              rows = v->hp->vocab;
    eng_ctx_t            *x = v->x;
    kern_panel_t          p;
    const kern_weight_t  *w = &x->m->output;

    kind = kern_panel_kind(w->type);
    eng_panel_init(v, kind, x->n_want, v->hp->embd, v->panel_mem[kind], &p);
    p.sums = eng_sums_of(&w, 1);
    for (j = 0; j < x->n_want; j++) {
        c = v->narrow ? j : x->want[j];
        if (c >= v->c0 && c < v->c1) {
            /* stride 0: the one column begins at the given address */
            kern_quant_rmsnorm(&p, j, j + 1,
                               v->res + (size_t) c * v->hp->embd, 0,
                               x->m->output_norm, v->hp->eps);
        }
    }
    eng_sync_columns(v);

    eng_product(v, &w, 1, x->n_want, v->panel_mem, x->logits, rows,
                next_layer(v, NULL));

    if (v->hp->final_softcap != 0.0f) {
        groups = (rows + KERN_ROW_GROUP - 1) / KERN_ROW_GROUP;
        eng_split(groups, v->thread, v->threads, &g0, &g1);
        r0 = g0 * KERN_ROW_GROUP;
        r1 = g1 * KERN_ROW_GROUP > rows ? rows : g1 * KERN_ROW_GROUP;
        for (j = 0; j < x->n_want && r0 < r1; j++) {
            float  *y = x->logits + (size_t) j * rows;

            kern_softcap(y + r0, y + r0, v->hp->final_softcap, r1 - r0);
        }
    }
}
