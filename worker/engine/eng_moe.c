/*
 * The feed-forward part of a layer with experts: a router chooses a few for
 * each token, their outputs are summed with its weights.
 *
 *   stage          reads            writes            split by
 *   norm+quantise  x                panel             columns
 *   router         panel            act               rows
 *   choose         act              moe_id, _weight   columns
 *   group          moe_id           own tables        every thread the same
 *   norm+quantise  x                moe_panel         pairs
 *   gate, up       moe_panel        act               experts' rows, by cost
 *   glu, quantise  act              moe_panel         pairs
 *   down           moe_panel        moe_out           experts' rows, by cost
 *   weigh, add     x, moe_out       x                 columns
 *
 * A pair is a token and an expert that it meets; pairs stand together by
 * expert, within one by token, so that an expert's weights are read once for
 * all its tokens.  A shared expert is one more that all tokens meet.  What a
 * token gets does not depend on the others: its experts' outputs are added in
 * the order of its own choice, the largest weight first, the shared one last.
 */
#include <math.h>
#include <string.h>

#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_step.h"

/* What a group of rows costs beside its columns: reading the weights.  Only
   how work is dealt depends on it. */
#define READ_COST  4u

static void choose(const eng_view_t *v);
static void group_pairs(const eng_view_t *v);
static void gather(const eng_view_t *v, const eng_layer_t *l);
static void deal_products(const eng_view_t *v, const eng_layer_t *l,
    int down);
static void activate(const eng_view_t *v, const eng_layer_t *l);
static void combine(const eng_view_t *v);


static uint32_t
slots_of(const eng_hp_t *hp)
{
    return hp->experts_used + (hp->ff_shared > 0);
}


void
eng_moe(eng_view_t *v, const eng_layer_t *l)
{
    const kern_weight_t  *router[2] = { &l->router, &l->sh_router };

    eng_quant_norm(v, router, 2, l->ffn_norm);
    eng_sync_columns(v);
    eng_product(v, router, 2, v->n, v->panel_mem, v->x->act,
                (size_t) l->router.rows + l->sh_router.rows, NULL);
    eng_sync_all(v);

    choose(v);
    eng_sync_all(v);
    group_pairs(v);

    gather(v, l);
    eng_sync_all(v);
    deal_products(v, l, 0);
    eng_sync_all(v);
    activate(v, l);
    eng_sync_all(v);
    deal_products(v, l, 1);
    eng_sync_all(v);

    combine(v);
}


/* ---- routing ------------------------------------------------------------ */

static void
choose_column(const eng_hp_t *hp, const float *score, uint32_t *id,
    float *weight)
{
    float     base, sum = 0;
    uint32_t  s, n;

    /* a score that is no number comes from a broken model: such a token's
       result means nothing, but its experts must exist */
    n = kern_topk(score, hp->experts, hp->experts_used, id, weight);
    for (s = n; s < hp->experts_used; s++) {
        id[s] = 0;
        weight[s] = 0;
    }

    /* softmax over all, or over the chosen: the largest comes first */
    base = hp->experts_norm ? weight[0]
                            : kern_logsumexp(score, hp->experts);
    for (s = 0; s < n; s++) {
        weight[s] = expf(weight[s] - base);
        sum += weight[s];
    }
    for (s = 0; hp->experts_norm && s < n; s++) {
        weight[s] /= sum;
    }
}


static void
choose(const eng_view_t *v)
{
    float            *weight;
    uint32_t          c, c0, c1;
    eng_ctx_t        *x = v->x;
    const float      *score;
    const eng_hp_t   *hp = v->hp;
    const size_t      ld = hp->experts + (hp->ff_shared > 0);

    eng_split(v->n, v->thread, v->threads, &c0, &c1);
    for (c = c0; c < c1; c++) {
        score = x->act + c * ld;
        weight = x->moe_weight + (size_t) c * slots_of(hp);
        choose_column(hp, score, x->moe_id + (size_t) c * hp->experts_used,
                      weight);
        if (hp->ff_shared > 0) {
            weight[hp->experts_used] = 1.0f / (1.0f
                                       + expf(-score[hp->experts]));
        }
    }
}


/*
 * Counts, then places: a stable order, so ascending tokens within a group.
 * The shared expert's group comes last and is the identity.
 */
static void
group_pairs(const eng_view_t *v)
{
    uint32_t         c, s, g, p, at = 0;
    const eng_hp_t  *hp = v->hp;
    uint32_t         used = hp->experts_used, slots = slots_of(hp);
    const uint32_t  *id = v->x->moe_id;
    eng_own_t       *own = &v->x->own[v->thread];

    memset(own->group, 0, (hp->experts + 1) * sizeof(eng_group_t));
    for (p = 0; p < v->n * used; p++) {
        eng_assert(id[p] < hp->experts);
        own->group[id[p]].count++;
    }
    for (g = 0; g < hp->experts; g++) {
        own->group[g].first = at;
        at += own->group[g].count;
        own->group[g].count = 0;
    }
    own->group[g].first = at;
    own->group[g].count = slots > used ? v->n : 0;

    for (c = 0; c < v->n; c++) {
        for (s = 0; s < used; s++) {
            g = id[(size_t) c * used + s];
            p = own->group[g].first + own->group[g].count++;
            own->column[p] = c;
            own->place[(size_t) c * slots + s] = p;
        }
        if (slots > used) {
            own->column[at + c] = c;
            own->place[(size_t) c * slots + used] = at + c;
        }
    }
}


/* ---- groups ------------------------------------------------------------- */

/* Matrix g of several that stand one after the other. */
static kern_weight_t
one_of(const kern_weight_t *all, uint32_t g, uint32_t rows)
{
    size_t         begin, end;
    kern_weight_t  w = *all;

    kern_packed_range(all->type, all->rows, all->cols, g * rows,
                      (g + 1) * rows, &begin, &end);
    w.rows = rows;
    w.packed = (const uint8_t *) all->packed + begin;

    return w;
}


static void
matrices_of(const eng_view_t *v, const eng_layer_t *l, uint32_t g,
    kern_weight_t *gate, kern_weight_t *up, kern_weight_t *down)
{
    const eng_hp_t  *hp = v->hp;

    if (g == hp->experts) {
        *gate = l->sh_gate;
        *up = l->sh_up;
        *down = l->sh_down;
        return;
    }
    *gate = one_of(&l->exp_gate, g, hp->ff_exp);
    *up = one_of(&l->exp_up, g, hp->ff_exp);
    *down = one_of(&l->exp_down, g, hp->embd);
}


/* A group's panel: of its tokens, or of what its gate and up gave. */
static void
group_panel(const eng_view_t *v, uint32_t kind, uint32_t g, int inner,
    kern_panel_t *p)
{
    uint32_t            k, before;
    const eng_hp_t     *hp = v->hp;
    const eng_group_t  *group = &v->x->own[v->thread].group[g];

    before = inner ? hp->ff_exp : hp->embd;
    k = inner && g == hp->experts ? hp->ff_shared : before;
    eng_panel_init(v, kind, group->count, k, v->x->moe_panel[kind]
                   + group->first * eng_panel_column(v->x->m, kind, before),
                   p);
}


/* gate|up of a group's first pair; the next is 2 * ff floats on. */
static float *
group_act(const eng_view_t *v, uint32_t g)
{
    return v->x->act + (size_t) v->x->own[v->thread].group[g].first * 2
           * v->hp->ff_exp;
}


static uint32_t
group_ff(const eng_hp_t *hp, uint32_t g)
{
    return g == hp->experts ? hp->ff_shared : hp->ff_exp;
}


/* This thread's part of the group's pairs: [*j0, *j1) of 0..count. */
static void
own_pairs(const eng_view_t *v, uint32_t g, uint32_t *j0, uint32_t *j1)
{
    uint32_t            a, b;
    const eng_group_t  *group = &v->x->own[v->thread].group[g];
    uint32_t            end = group->first + group->count;

    eng_split(v->n * slots_of(v->hp), v->thread, v->threads, &a, &b);
    a = a > group->first ? a : group->first;
    b = b < end ? b : end;
    *j0 = a < b ? a - group->first : 0;
    *j1 = a < b ? b - group->first : 0;
}


static void
gather(const eng_view_t *v, const eng_layer_t *l)
{
    uint32_t              g, j, j0, j1, kind, kinds;
    const float          *x;
    kern_panel_t          p;
    const eng_own_t      *own = &v->x->own[v->thread];
    const kern_weight_t  *routed[2] = { &l->exp_gate, &l->exp_up };
    const kern_weight_t  *shared[2] = { &l->sh_gate, &l->sh_up };

    for (g = 0; g <= v->hp->experts; g++) {
        own_pairs(v, g, &j0, &j1);
        kinds = eng_kinds_of(g == v->hp->experts ? shared : routed, 2);
        for (kind = 0; kind < 2 && j0 < j1; kind++) {
            if (!((kinds >> kind) & 1)) {
                continue;
            }
            group_panel(v, kind, g, 0, &p);
            for (j = j0; j < j1; j++) {
                x = v->res + (size_t) own->column[own->group[g].first + j]
                             * v->hp->embd;
                /* stride 0: the one column begins at the given address */
                kern_quant_rmsnorm(&p, j, j + 1, x, 0, l->ffn_norm,
                                   v->hp->eps);
            }
        }
    }
}


static void
multiply(const eng_view_t *v, const kern_weight_t *w, uint32_t g, int down,
    float *out, size_t ldo, uint32_t r0, uint32_t r1)
{
    kern_panel_t  p;

    if (r0 < r1) {
        group_panel(v, kern_panel_kind(w->type), g, down, &p);
        kern_matmul(w, &p, out, ldo, r0 * KERN_ROW_GROUP,
                    r1 * KERN_ROW_GROUP);
    }
}


/* Row groups [r0, r1) of one expert's gate|up or down. */
static void
run_group(const eng_view_t *v, const eng_layer_t *l, uint32_t g, int down,
    uint32_t r0, uint32_t r1)
{
    size_t         ldo;
    uint32_t       half = group_ff(v->hp, g) / KERN_ROW_GROUP;
    kern_weight_t  wg, wu, wd;

    matrices_of(v, l, g, &wg, &wu, &wd);
    if (down) {
        multiply(v, &wd, g, 1, v->x->moe_out
                 + (size_t) v->x->own[v->thread].group[g].first
                   * v->hp->embd, v->hp->embd, r0, r1);
        return;
    }

    ldo = 2 * (size_t) wg.rows;
    multiply(v, &wg, g, 0, group_act(v, g), ldo, r0, r1 < half ? r1 : half);
    multiply(v, &wu, g, 0, group_act(v, g) + wg.rows, ldo,
             r0 > half ? r0 - half : 0, r1 > half ? r1 - half : 0);
}


/*
 * Deals the row groups of all experts that have tokens.  One costs its
 * columns and its reading; a thread's share is an interval of the sum, and a
 * row group belongs to where its beginning lies.
 */
static void
deal_products(const eng_view_t *v, const eng_layer_t *l, int down)
{
    uint32_t            g, rows;
    uint64_t            all = 0, at = 0, lo, hi, cost, r0, r1;
    const eng_hp_t     *hp = v->hp;
    const eng_group_t  *group = v->x->own[v->thread].group;

    for (g = 0; g <= hp->experts; g++) {
        rows = (down ? hp->embd : 2 * group_ff(hp, g)) / KERN_ROW_GROUP;
        all += group[g].count == 0 ? 0
               : (uint64_t) rows * (group[g].count + READ_COST);
    }
    lo = all * v->thread / v->threads;
    hi = all * (v->thread + 1) / v->threads;

    for (g = 0; g <= hp->experts; g++) {
        if (group[g].count == 0) {
            continue;
        }
        rows = (down ? hp->embd : 2 * group_ff(hp, g)) / KERN_ROW_GROUP;
        cost = group[g].count + READ_COST;
        r0 = lo > at ? (lo - at + cost - 1) / cost : 0;
        r1 = hi > at ? (hi - at + cost - 1) / cost : 0;
        r1 = r1 < rows ? r1 : rows;
        if (r0 < r1) {
            run_group(v, l, g, down, (uint32_t) r0, (uint32_t) r1);
        }
        at += rows * cost;
    }
    eng_assert(at == all);
}


static void
activate(const eng_view_t *v, const eng_layer_t *l)
{
    float         *act;
    uint32_t       g, j0, j1, ff;
    kern_panel_t   p;
    kern_wtype_t   type;

    for (g = 0; g <= v->hp->experts; g++) {
        own_pairs(v, g, &j0, &j1);
        if (j0 < j1) {
            ff = group_ff(v->hp, g);
            act = group_act(v, g);
            type = g == v->hp->experts ? l->sh_down.type : l->exp_down.type;
            group_panel(v, kern_panel_kind(type), g, 1, &p);
            kern_quant_glu(&p, j0, j1, v->hp->arch->act, act, act + ff,
                           2 * (size_t) ff);
        }
    }
}


static void
combine(const eng_view_t *v)
{
    float            *r, *sum;
    uint32_t          c, s, i, e = v->hp->embd, slots = slots_of(v->hp);
    eng_ctx_t        *x = v->x;
    const float      *out, *weight;
    const eng_own_t  *own = &x->own[v->thread];

    for (c = v->c0; c < v->c1; c++) {
        r = v->res + (size_t) c * e;
        sum = own->row;
        weight = x->moe_weight + (size_t) c * slots;
        for (s = 0; s < slots; s++) {
            out = x->moe_out + (size_t) own->place[(size_t) c * slots + s] * e;
            for (i = 0; i < e; i++) {
                sum[i] = (s == 0 ? 0.0f : sum[i]) + weight[s] * out[i];
            }
        }
        kern_add(r, r, sum, e);
    }
}
