/*
 * Attention of a step: bias, norm and rotation of queries and keys, keys and
 * values into the cache, and the tasks of (sequence, kv head, some queries)
 * dealt out to the threads.
 */
#include <string.h>

#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_step.h"

#define QUERIES_MIN   16u         /* of an attention task                    */


/* Bias, norm and rotation of kv heads [h0, h1) of one token with the queries
   that belong to them, then into the cache. */
static void
place_token(eng_view_t *v, const eng_layer_t *l, uint32_t i, uint32_t col,
    const eng_seq_t *seq, uint32_t h0, uint32_t h1)
{
    eng_ctx_t    *x = v->x;
    uint32_t      h, hd = v->hp->head_dim, half = v->hp->rot_dim / 2;
    uint32_t      group = v->hp->heads / v->hp->heads_kv, n = h1 - h0;
    uint32_t      pos = x->tok[col].pos;
    float        *q = x->act + (size_t) col * v->ld_qkv + h0 * group * hd;
    float        *k = x->act + (size_t) col * v->ld_qkv + v->nq + h0 * hd;
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

    if (eng_layer_local(v->hp, i)) {
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
    kern_kv_append(x->m->kv_type, page + at, pos % KERN_KV_PAGE, n, hd, k,
                   val);
}


static uint32_t
window_of(const eng_view_t *v, uint32_t i)
{
    return eng_layer_windowed(v->hp, i) ? v->hp->window : 0;
}


/* The attention of a segment in layer i. */
static kern_attn_t
attention_of(const eng_view_t *v, uint32_t i, const eng_seg_t *s)
{
    eng_ctx_t    *x = v->x;
    kern_attn_t   a;

    memset(&a, 0, sizeof(a));
    a.type = x->m->kv_type;
    a.n_head = v->hp->heads;
    a.n_kv_head = v->hp->heads_kv;
    a.head_dim = v->hp->head_dim;
    a.scale = v->hp->attn_scale;
    a.softcap = v->hp->attn_softcap;
    a.window = window_of(v, i);
    a.causal = 1;
    a.n_query = s->n;
    a.pos = s->pos;
    a.n_key = s->pos + s->n;
    a.q = x->act + (size_t) s->first * v->ld_qkv;
    a.ldq = v->ld_qkv;
    a.out = x->att + (size_t) s->first * v->nq;
    a.ldo = v->nq;
    a.pages = x->kv.seq[s->seq].address;
    a.page_offset = x->plan.layer_page_bytes * i;

    return a;
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


/* A task: kv head h, queries [q0, q1) of segment s.  cost of all tasks, done
   by those before it: it belongs to the thread in whose share its middle
   lies. */
typedef struct {
    double    all, done;
    uint32_t  s, h, q0, q1;
} task_t;


static void
tasks_begin(const eng_view_t *v, task_t *t)
{
    uint32_t          s;
    const eng_seg_t  *g;

    memset(t, 0, sizeof(*t));
    for (s = 0; s < v->x->n_seg; s++) {
        g = &v->x->seg[s];
        t->all += (double) g->n * (g->pos + 0.5 * g->n + 16)
                  * v->hp->heads_kv;
    }
}


/* The next task of this thread; 0: there is none.  The cost of a query is
   the number of keys it sees. */
static int
tasks_next(const eng_view_t *v, task_t *t)
{
    double            cost;
    uint32_t          step, owner;
    const eng_seg_t  *g;

    while (t->s < v->x->n_seg) {
        g = &v->x->seg[t->s];
        if (t->q1 == g->n) {
            t->q1 = 0;
            t->h++;
        }
        if (t->h == v->hp->heads_kv) {
            t->h = 0;
            t->s++;
            continue;
        }

        step = g->n / (4 * v->threads);
        step = step < QUERIES_MIN ? QUERIES_MIN : step;
        t->q0 = t->q1;
        t->q1 = g->n - t->q0 <= step ? g->n : t->q0 + step;
        cost = (double) (t->q1 - t->q0)
               * (g->pos + 0.5 * (t->q0 + t->q1) + 16);
        owner = (uint32_t) ((t->done + 0.5 * cost) / t->all * v->threads);
        owner = owner < v->threads ? owner : v->threads - 1;
        t->done += cost;
        if (owner == v->thread) {
            return 1;
        }
    }

    return 0;
}


/* Where the first page that a task reads in layer i begins. */
static const uint8_t *
task_page(const eng_view_t *v, uint32_t i, const task_t *t)
{
    size_t            head = v->x->plan.layer_page_bytes / v->hp->heads_kv;
    uint32_t          pos, window = window_of(v, i);
    const eng_seg_t  *g = &v->x->seg[t->s];

    pos = g->pos + t->q0;
    pos = window > 0 && pos >= window ? pos - window + 1 : 0;

    return v->x->kv.seq[g->seq].address[pos / KERN_KV_PAGE]
           + v->x->plan.layer_page_bytes * i + head * t->h;
}


const void *
eng_attention_first(const eng_view_t *v, uint32_t i)
{
    task_t  t;

    tasks_begin(v, &t);

    return tasks_next(v, &t) ? task_page(v, i, &t) : NULL;
}


/*
 * This thread's tasks.  With place set, their tokens are first put into the
 * cache (decode: a task then needs nobody else's work), those of all of them
 * before the first is computed: what was just written is slow to read.
 * Results go on into a panel, unless it is NULL.  next: what this thread reads
 * afterwards.
 */
static void
deal_tasks(eng_view_t *v, const eng_layer_t *l, uint32_t i, int place,
    kern_panel_t *panel, const void *next)
{
    int               more;
    uint32_t          size = v->nq / v->hp->heads_kv;
    task_t            t, ahead;
    eng_ctx_t        *x = v->x;
    kern_attn_t       a;
    const eng_seg_t  *g;

    if (place) {
        tasks_begin(v, &t);
        while (tasks_next(v, &t)) {
            g = &x->seg[t.s];
            place_token(v, l, i, g->first, &x->kv.seq[g->seq], t.h, t.h + 1);
        }
    }

    tasks_begin(v, &ahead);
    more = tasks_next(v, &ahead);
    while (more) {
        t = ahead;
        more = tasks_next(v, &ahead);
        g = &x->seg[t.s];
        if (i + 1 < v->hp->layers || any_wanted(x, g, t.q0, t.q1)) {
            a = attention_of(v, i, g);
            a.next = more ? task_page(v, i, &ahead) : next;
            kern_attn(&a, t.h, t.h + 1, t.q0, t.q1);
            if (panel != NULL) {
                kern_quant_part(panel, g->first + t.q0, g->first + t.q1,
                                t.h * size, (t.h + 1) * size, x->att, v->nq);
            }
        }
    }
}


/* Blocks of positions that a single token sees in layer i. */
static uint32_t
blocks_of(const eng_view_t *v, uint32_t i, const eng_seg_t *g,
    uint32_t *first)
{
    uint32_t  window = window_of(v, i);

    *first = window > 0 && g->pos >= window
             ? (g->pos - window + 1) / KERN_ATTN_BLOCK : 0;

    return g->pos / KERN_ATTN_BLOCK - *first + 1;
}


/*
 * Whether blocks are dealt instead of whole heads: the result is the same,
 * but it takes two more barriers.
 */
static int
by_blocks(const eng_view_t *v, uint32_t i)
{
    uint32_t          s, first;
    const eng_ctx_t  *x = v->x;

    if (!x->decode_only || v->threads == 1
        || x->n_seg * v->hp->heads_kv > ENG_SPLIT_TASKS * v->threads)
    {
        return 0;
    }
    for (s = 0; s < x->n_seg; s++) {
        if (blocks_of(v, i, &x->seg[s], &first) > 2) {
            return 1;
        }
    }

    return 0;
}


/* Single tokens: every (sequence, kv head, block) is a task; then every
   (sequence, kv head) puts its blocks together. */
static void
deal_blocks(eng_view_t *v, uint32_t i)
{
    float            *part;
    size_t            step = KERN_ATTN_PART(v->hp->head_dim)
                             * (v->hp->heads / v->hp->heads_kv);
    uint32_t          s, h, b, n, first, t0, t1, at = 0, all = 0;
    uint32_t          heads = v->hp->heads_kv;
    eng_ctx_t        *x = v->x;
    kern_attn_t       a;

    for (s = 0; s < x->n_seg; s++) {
        all += blocks_of(v, i, &x->seg[s], &first) * heads;
    }
    eng_split(all, v->thread, v->threads, &t0, &t1);

    for (s = 0; s < x->n_seg; s++) {
        n = blocks_of(v, i, &x->seg[s], &first);
        eng_assert(n <= eng_split_blocks(&x->plan));
        a = attention_of(v, i, &x->seg[s]);
        for (h = 0; h < heads; h++) {
            part = x->part + (s * heads + h) * step
                             * eng_split_blocks(&x->plan);
            for (b = 0; b < n; b++, at++) {
                if (at >= t0 && at < t1) {
                    kern_attn_part(&a, h, first + b, part + b * step);
                }
            }
        }
    }
    eng_sync_all(v);

    eng_split(x->n_seg * heads, v->thread, v->threads, &t0, &t1);
    for (at = t0; at < t1; at++) {
        s = at / heads;
        a = attention_of(v, i, &x->seg[s]);
        n = blocks_of(v, i, &x->seg[s], &first);
        kern_attn_merge(&a, at % heads, n, x->part + at * step
                                           * eng_split_blocks(&x->plan));
    }
}


/* Whether a task's result is whole blocks of columns that stay where they
   are. */
static int
can_fill(const eng_view_t *v, uint32_t i)
{
    return v->nq / v->hp->heads_kv % KERN_BLOCK == 0
           && (i + 1 < v->hp->layers || v->redundant
               || v->x->n_want == v->n);
}


int
eng_attention(eng_view_t *v, const eng_layer_t *l, uint32_t i,
    const void *next)
{
    int                   fill, blocks = by_blocks(v, i);
    uint32_t              s, c, kind = kern_panel_kind(l->o.type);
    eng_ctx_t            *x = v->x;
    kern_panel_t          p;
    const eng_seg_t      *g;
    const kern_weight_t  *o = &l->o;

    if (!x->decode_only || blocks) {
        for (s = 0; s < x->n_seg; s++) {
            g = &x->seg[s];
            for (c = g->first; c < g->first + g->n; c++) {
                if (c >= v->t0 && c < v->t1) {
                    place_token(v, l, i, c, &x->kv.seq[g->seq], 0,
                                v->hp->heads_kv);
                }
            }
        }
        eng_sync_all(v);
    }

    if (blocks) {
        deal_blocks(v, i);
        return 0;
    }

    fill = can_fill(v, i);
    eng_panel_init(v, kind, v->n, v->nq, x->panel[kind], &p);
    p.sums = eng_sums_of(&o, 1);
    deal_tasks(v, l, i, x->decode_only, fill ? &p : NULL, next);

    return fill;
}
