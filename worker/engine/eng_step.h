/*
 * Inside of a step: one thread's view of it, and what the stages share.
 * Between eng_step.c (the walk through the layers), eng_attn.c and eng_moe.c
 * only.
 */
#ifndef ENG_STEP_H
#define ENG_STEP_H

#include <stddef.h>
#include <stdint.h>

#include "worker/engine/eng_ctx.h"

typedef struct {
    eng_ctx_t       *x;
    const eng_hp_t  *hp;
    uint32_t         thread, threads;
    int              redundant;   /* every thread has all columns itself     */
    int              narrow;      /* columns are the wanted tokens only      */
    uint32_t         n;           /* columns                                 */
    uint32_t         c0, c1;      /* columns whose residual stream is ours   */
    uint32_t         t0, t1;      /* columns split evenly in any mode        */
    float           *res;         /* residual stream, column 0               */
    uint8_t         *panel_mem[2];
    uint32_t         nq, nk;      /* sizes of q and of k, v                  */
    uint32_t         ld_qkv;      /* from column to column of q, k, v        */
    uint32_t         ld_sub;      /* of `sub`                                */
} eng_view_t;

/* Part `part` of `parts` of n things: [*a, *b). */
static inline void
eng_split(uint32_t n, uint32_t part, uint32_t parts, uint32_t *a, uint32_t *b)
{
    *a = (uint32_t) ((uint64_t) n * part / parts);
    *b = (uint32_t) ((uint64_t) n * (part + 1) / parts);
}


/* After work split by columns: others may read it. */
static inline void
eng_sync_columns(const eng_view_t *v)
{
    if (!v->redundant) {
        eng_pool_barrier(v->x->pool);
    }
}


static inline void
eng_sync_all(const eng_view_t *v)
{
    eng_pool_barrier(v->x->pool);
}


/* Which panel kinds a set of matrices needs: bit per kind. */
uint32_t eng_kinds_of(const kern_weight_t *const *w, uint32_t n);

/* A panel of m columns of k values over memory of that kind. */
void eng_panel_init(const eng_view_t *v, uint32_t kind, uint32_t m,
    uint32_t k, void *mem, kern_panel_t *p);

/* Which sums a panel keeps that these matrices meet. */
uint32_t eng_sums_of(const kern_weight_t *const *w, uint32_t n);

/*
 * out[c][offset of the matrix + row] for all columns and this thread's share
 * of the matrices' row groups, which are dealt as if they were one matrix.
 * panel: the memory of each kind, filled.  next: the first weights of this
 * thread's next product (eng_share), or NULL.
 */
void eng_product(const eng_view_t *v, const kern_weight_t *const *w,
    uint32_t n, uint32_t m, uint8_t *const panel[2], float *out, size_t ldo,
    const void *next);

/* Where this thread's share of a product's weights begins. */
const void *eng_share(const eng_view_t *v, const kern_weight_t *const *w,
    uint32_t n);

/* This thread's columns of the residual stream, normalised, into panels for n
   matrices. */
void eng_quant_norm(const eng_view_t *v, const kern_weight_t *const *w,
    uint32_t n, const float *norm);

/* Norm, experts and addition to the residual stream; eng_moe.c. */
void eng_moe(eng_view_t *v, const eng_layer_t *l);

/* q, k and v in `act` -> `att` for layer i; 1: and from there into the shared
   panel.  next: what this thread reads afterwards, or NULL.  The second: the
   first page of the cache that this thread's share reads, or NULL.
   eng_attn.c. */
int eng_attention(eng_view_t *v, const eng_layer_t *l, uint32_t i,
    const void *next);
const void *eng_attention_first(const eng_view_t *v, uint32_t i);

#endif
