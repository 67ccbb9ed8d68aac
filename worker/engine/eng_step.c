/*
 * The forward pass of one batch.  Every thread runs this file from top to
 * bottom; barriers stand between what one thread writes and another reads.
 *
 *   stage          reads            writes          split by
 *   embed          embd, tok        x, rope         columns
 *   norm+quantise  x                panel           columns
 *   q, k, v        panel            act             rows
 *   rope, append   act              act, KV page    head or token
 *   attention      act, KV pages    att             sequence, kv head, queries
 *   quantise       att              panel           columns
 *   (last layer)   x, att           x, att          wanted columns move up
 *   o              panel            sub             rows
 *   add, norm, q.  x, sub           x, panel        columns
 *   gate, up       panel            act             rows
 *   glu, quantise  act              panel           columns
 *   down           panel            sub             rows
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
#include "worker/engine/eng_ctx.h"

#define QUERIES_MIN   16u         /* of an attention task                    */

/* One thread's view of the step. */
typedef struct {
    eng_ctx_t       *x;
    const eng_hp_t  *hp;
    uint32_t         thread, threads;
    int              redundant;
    int              narrow;      /* columns are the wanted tokens only      */
    uint32_t         n;           /* columns                                 */
    uint32_t         c0, c1;      /* columns whose residual stream is ours   */
    uint32_t         t0, t1;      /* columns split evenly in any mode        */
    float           *res;         /* residual stream, column 0               */
    uint8_t         *panel_mem[2];
    uint32_t         nq, nk;      /* sizes of q and of k, v                  */
    uint32_t         qkv;
} view_t;

static void embed(view_t *v);
static void layer(view_t *v, uint32_t i);
static void attention(view_t *v, const eng_layer_t *l, uint32_t i);
static int narrow(view_t *v);
static void add_residual(view_t *v, const float *post_norm);
static void output(view_t *v);


static void
split(uint32_t n, uint32_t part, uint32_t parts, uint32_t *a, uint32_t *b)
{
    *a = (uint32_t) ((uint64_t) n * part / parts);
    *b = (uint32_t) ((uint64_t) n * (part + 1) / parts);
}


static void
view_init(view_t *v, eng_ctx_t *x, uint32_t thread)
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
    v->qkv = v->nq + 2 * v->nk;
    split(n, thread, v->threads, &v->t0, &v->t1);

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
    view_t      v;
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


/* After work split by columns: others may read it. */
static void
sync_columns(const view_t *v)
{
    if (!v->redundant) {
        eng_pool_barrier(v->x->pool);
    }
}


static void
sync_all(const view_t *v)
{
    eng_pool_barrier(v->x->pool);
}


/* ---- panels and products ------------------------------------------------ */

/* Which panel kinds a set of matrices needs: bit per kind. */
static uint32_t
kinds_of(const kern_weight_t *const *w, uint32_t n)
{
    uint32_t  i, kinds = 0;

    for (i = 0; i < n; i++) {
        kinds |= 1u << kern_panel_kind(w[i]->type);
    }

    return kinds;
}


static void
panel_at(const view_t *v, uint32_t kind, uint32_t m, uint32_t k,
    kern_panel_t *p)
{
    kern_panel_init(p, (kern_panel_kind_t) kind, m, k, v->panel_mem[kind]);
}


/*
 * out[c][offset of the matrix + row] for all columns and this thread's share
 * of the matrices' row groups, which are dealt as if they were one matrix.
 */
static void
product(const view_t *v, const kern_weight_t *const *w, uint32_t n,
    uint32_t m, float *out, size_t ldo)
{
    uint32_t      i, g0, g1, base, groups, all = 0, r0, r1;
    kern_panel_t  p;

    for (i = 0; i < n; i++) {
        all += (w[i]->rows + KERN_ROW_GROUP - 1) / KERN_ROW_GROUP;
    }
    split(all, v->thread, v->threads, &g0, &g1);

    for (i = 0, base = 0; i < n; i++) {
        groups = (w[i]->rows + KERN_ROW_GROUP - 1) / KERN_ROW_GROUP;
        r0 = g0 > base ? (g0 - base) * KERN_ROW_GROUP : 0;
        r1 = g1 > base ? (g1 - base) * KERN_ROW_GROUP : 0;
        r1 = r1 > w[i]->rows ? w[i]->rows : r1;
        if (r0 < r1) {
            panel_at(v, kern_panel_kind(w[i]->type), m, w[i]->cols, &p);
            kern_matmul(w[i], &p, out, ldo, r0, r1);
        }
        out += w[i]->rows;
        base += groups;
    }
}


static void
quant_norm(const view_t *v, uint32_t kinds, const float *w)
{
    uint32_t      kind;
    kern_panel_t  p;

    for (kind = 0; kind < 2; kind++) {
        if ((kinds >> kind) & 1) {
            panel_at(v, kind, v->n, v->hp->embd, &p);
            kern_quant_rmsnorm(&p, v->c0, v->c1, v->res, v->hp->embd, w,
                               v->hp->eps);
        }
    }
}


/* ---- stages ------------------------------------------------------------- */

static void
embed(view_t *v)
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
        kern_rope_table(t, t + half, v->hp->freq, half, x->tok[c].pos,
                        v->hp->rope_mscale);
        if (v->hp->arch->global_every != 0) {
            kern_rope_table(t + 2 * half, t + 3 * half, v->hp->freq_local,
                            half, x->tok[c].pos, 1.0f);
        }
    }
}


static void
layer(view_t *v, uint32_t i)
{
    eng_ctx_t             *x = v->x;
    uint32_t               kind, ff = v->hp->ff;
    kern_panel_t           p;
    const eng_layer_t     *l = &x->m->layer[i];
    const kern_weight_t   *qkv[3] = { &l->q, &l->k, &l->v };
    const kern_weight_t   *gu[2] = { &l->gate, &l->up };
    const kern_weight_t   *o = &l->o, *down = &l->down;

    quant_norm(v, kinds_of(qkv, 3), l->attn_norm);
    sync_columns(v);
    product(v, qkv, 3, v->n, x->act, v->qkv);
    sync_all(v);

    attention(v, l, i);
    sync_all(v);
    if (i + 1 == v->hp->layers && !narrow(v)) {
        return;
    }

    kind = kern_panel_kind(o->type);
    panel_at(v, kind, v->n, v->nq, &p);
    kern_quant(&p, v->c0, v->c1, x->att, v->nq);
    sync_columns(v);
    product(v, &o, 1, v->n, x->sub, v->hp->embd);
    sync_all(v);

    add_residual(v, l->post_attn_norm);
    quant_norm(v, kinds_of(gu, 2), l->ffn_norm);
    sync_columns(v);
    product(v, gu, 2, v->n, x->act, 2 * (size_t) ff);
    sync_all(v);

    kind = kern_panel_kind(down->type);
    panel_at(v, kind, v->n, ff, &p);
    kern_quant_glu(&p, v->c0, v->c1, v->hp->arch->act, x->act, x->act + ff,
                   2 * (size_t) ff);
    sync_columns(v);
    product(v, &down, 1, v->n, x->sub, v->hp->embd);
    sync_all(v);

    add_residual(v, l->post_ffn_norm);
}


/*
 * In the last layer only tokens whose logits are wanted go on: their columns
 * move to the front.  Two steps through `act`, which is free now, because
 * the places overlap.  0: nobody goes on.
 */
static int
narrow(view_t *v)
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

    split(x->n_want, v->thread, v->threads, &a, &b);
    for (j = a; j < b; j++) {
        t = x->act + (size_t) j * (e + v->nq);
        memcpy(t, v->res + (size_t) x->want[j] * e, e * sizeof(float));
        memcpy(t + e, x->att + (size_t) x->want[j] * v->nq,
               v->nq * sizeof(float));
    }
    sync_all(v);
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
add_residual(view_t *v, const float *post_norm)
{
    float        *r;
    uint32_t      c, e = v->hp->embd;
    const float  *s;

    for (c = v->c0; c < v->c1; c++) {
        r = v->res + (size_t) c * e;
        s = v->x->sub + (size_t) c * e;
        if (post_norm != NULL) {
            kern_rmsnorm(v->x->own[v->thread].row, s, post_norm, e,
                         v->hp->eps);
            s = v->x->own[v->thread].row;
        }
        kern_add(r, r, s, e);
    }
}


/* ---- attention ---------------------------------------------------------- */

/* Bias, norm and rotation of kv heads [h0, h1) of one token with the queries
   that belong to them, then into the cache. */
static void
place_token(view_t *v, const eng_layer_t *l, uint32_t i, uint32_t col,
    const eng_seq_t *seq, uint32_t h0, uint32_t h1)
{
    eng_ctx_t    *x = v->x;
    uint32_t      h, hd = v->hp->head_dim, half = v->hp->rot_dim / 2;
    uint32_t      group = v->hp->heads / v->hp->heads_kv, n = h1 - h0;
    uint32_t      pos = x->tok[col].pos;
    float        *q = x->act + (size_t) col * v->qkv + h0 * group * hd;
    float        *k = x->act + (size_t) col * v->qkv + v->nq + h0 * hd;
    float        *val = k + v->nk;
    size_t        at;
    uint8_t      *page;
    const float  *cs = x->rope + (size_t) col * 4 * half;

    if (l->q_bias != NULL) {
        kern_add(q, q, l->q_bias + h0 * group * hd, n * group * hd);
        kern_add(k, k, l->k_bias + h0 * hd, n * hd);
        kern_add(val, val, l->v_bias + h0 * hd, n * hd);
    }
    if (l->q_norm != NULL) {
        for (h = 0; h < n * group; h++) {
            kern_rmsnorm(q + h * hd, q + h * hd, l->q_norm, hd, v->hp->eps);
        }
        for (h = 0; h < n; h++) {
            kern_rmsnorm(k + h * hd, k + h * hd, l->k_norm, hd, v->hp->eps);
        }
    }

    if (eng_layer_windowed(v->hp, i)) {
        cs += 2 * half;
    }
    if (eng_layer_roped(v->hp, i)) {
        kern_rope(v->hp->arch->rope, q, n * group, hd, v->hp->rot_dim, cs,
                  cs + half);
        kern_rope(v->hp->arch->rope, k, n, hd, v->hp->rot_dim, cs, cs + half);
    }

    /* heads stand one after the other in a page: a part of them is a page of
       fewer heads */
    at = x->plan.layer_page_bytes * i
         + x->plan.layer_page_bytes / v->hp->heads_kv * h0;
    page = x->kv.memory
           + (size_t) seq->page[pos / KERN_KV_PAGE] * x->plan.page_bytes;
    kern_kv_append(KERN_KV_F16, page + at, pos % KERN_KV_PAGE, n, hd, k, val);
}


static void
attend(view_t *v, uint32_t i, const eng_seg_t *s, uint32_t h, uint32_t q0,
    uint32_t q1)
{
    eng_ctx_t    *x = v->x;
    kern_attn_t   a;

    memset(&a, 0, sizeof(a));
    a.type = KERN_KV_F16;
    a.n_head = v->hp->heads;
    a.n_kv_head = v->hp->heads_kv;
    a.head_dim = v->hp->head_dim;
    a.scale = v->hp->attn_scale;
    a.softcap = v->hp->attn_softcap;
    a.window = eng_layer_windowed(v->hp, i) ? v->hp->window : 0;
    a.causal = 1;
    a.n_query = s->n;
    a.pos = s->pos;
    a.n_key = s->pos + s->n;
    a.q = x->act + (size_t) s->first * v->qkv;
    a.ldq = v->qkv;
    a.out = x->att + (size_t) s->first * v->nq;
    a.ldo = v->nq;
    a.pages = x->kv.seq[s->seq].address;
    a.page_offset = x->plan.layer_page_bytes * i;

    kern_attn(&a, h, h + 1, q0, q1);
}


static int
any_wanted(const eng_ctx_t *x, const eng_seg_t *g, uint32_t q0, uint32_t q1)
{
    uint32_t  q;

    for (q = q0; q < q1; q++) {
        if (x->tok[g->first + q].want_logits) {
            return 1;
        }
    }

    return 0;
}


/*
 * Deals the tasks of (sequence, kv head, some queries) by their cost, which
 * is the number of keys seen: a task belongs to the thread in whose share its
 * middle lies.  With place set, the task's token is first put into the cache
 * (decode: a task then needs nobody else's work).
 */
static void
deal_tasks(view_t *v, const eng_layer_t *l, uint32_t i, int place)
{
    double            all = 0, done = 0, cost;
    uint32_t          s, h, q0, q1, step, owner, heads = v->hp->heads_kv;
    eng_ctx_t        *x = v->x;
    const eng_seg_t  *g;

    for (s = 0; s < x->n_seg; s++) {
        g = &x->seg[s];
        all += (double) g->n * (g->pos + 0.5 * g->n + 16) * heads;
    }

    for (s = 0; s < x->n_seg; s++) {
        g = &x->seg[s];
        step = g->n / (4 * v->threads);
        step = step < QUERIES_MIN ? QUERIES_MIN : step;
        for (h = 0; h < heads; h++) {
            for (q0 = 0; q0 < g->n; q0 = q1) {
                q1 = g->n - q0 <= step ? g->n : q0 + step;
                cost = (double) (q1 - q0)
                       * (g->pos + 0.5 * (q0 + q1) + 16);
                owner = (uint32_t) ((done + 0.5 * cost) / all * v->threads);
                done += cost;
                if (owner != v->thread
                    && !(owner >= v->threads && v->thread == v->threads - 1))
                {
                    continue;
                }
                if (place) {
                    place_token(v, l, i, g->first, &x->kv.seq[g->seq], h,
                                h + 1);
                }
                if (i + 1 < v->hp->layers || any_wanted(x, g, q0, q1)) {
                    attend(v, i, g, h, q0, q1);
                }
            }
        }
    }
}


static void
attention(view_t *v, const eng_layer_t *l, uint32_t i)
{
    uint32_t          s, c;
    eng_ctx_t        *x = v->x;
    const eng_seg_t  *g;

    if (!x->decode_only) {
        for (s = 0; s < x->n_seg; s++) {
            g = &x->seg[s];
            for (c = g->first; c < g->first + g->n; c++) {
                if (c >= v->t0 && c < v->t1) {
                    place_token(v, l, i, c, &x->kv.seq[g->seq], 0,
                                v->hp->heads_kv);
                }
            }
        }
        sync_all(v);
    }

    deal_tasks(v, l, i, x->decode_only);
}


/* ---- logits ------------------------------------------------------------- */

static void
output(view_t *v)
{
    uint32_t              j, c, kind, g0, g1, groups, r0, r1;
    uint32_t              rows = v->hp->vocab;
    eng_ctx_t            *x = v->x;
    kern_panel_t          p;
    const kern_weight_t  *w = &x->m->output;

    kind = kern_panel_kind(w->type);
    panel_at(v, kind, x->n_want, v->hp->embd, &p);
    for (j = 0; j < x->n_want; j++) {
        c = v->narrow ? j : x->want[j];
        if (c >= v->c0 && c < v->c1) {
            /* stride 0: the one column begins at the given address */
            kern_quant_rmsnorm(&p, j, j + 1,
                               v->res + (size_t) c * v->hp->embd, 0,
                               x->m->output_norm, v->hp->eps);
        }
    }
    sync_columns(v);

    product(v, &w, 1, x->n_want, x->logits, rows);

    if (v->hp->final_softcap != 0.0f) {
        groups = (rows + KERN_ROW_GROUP - 1) / KERN_ROW_GROUP;
        split(groups, v->thread, v->threads, &g0, &g1);
        r0 = g0 * KERN_ROW_GROUP;
        r1 = g1 * KERN_ROW_GROUP > rows ? rows : g1 * KERN_ROW_GROUP;
        for (j = 0; j < x->n_want && r0 < r1; j++) {
            float  *y = x->logits + (size_t) j * rows;

            kern_softcap(y + r0, y + r0, v->hp->final_softcap, r1 - r0);
        }
    }
}
