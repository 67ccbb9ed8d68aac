/*
 * Attention of an encoder: all keys of one sequence are seen, or those of a
 * window around each query, in float32 without a cache.  Included by kern.h.
 *
 * Keys are packed once per head and then met by all queries: groups of 16
 * keys, transposed, [group][head_dim][16], the last group filled up with
 * zeros.  Values stay rows.
 *
 * Order of the sums: a score is one fma chain over ascending dimensions,
 * times scale, plus bias; weights are exp(score - maximum), their sum lane by
 * lane over keys mod 16 and then by the tree of all row operations; an output
 * is one fma chain over ascending keys, times 1 / sum.  It depends on nothing
 * but the sequence.
 */
#ifndef KERN_FULL_H
#define KERN_FULL_H

#include <stddef.h>
#include <stdint.h>

#define KERN_FULL_KEYS   16u    /* per group */
#define KERN_FULL_QUERY  8u     /* rows of scratch that one pass may use */

typedef struct {
    uint32_t        n_query;    /* query i stands at key position i */
    uint32_t        n_key;
    uint32_t        head_dim;   /* a multiple of 16 up to KERN_HEAD_MAX */
    float           scale;
    uint32_t        window;     /* 0: none, else |key - query| <= window */
    const float    *q;          /* [n_query][ldq] */
    size_t          ldq;
    const float    *keys;       /* packed */
    const float    *v;          /* [n_key][ldv] */
    size_t          ldv;
    float          *out;        /* [n_query][ldo] */
    size_t          ldo;
    const float    *bias;       /* NULL, or bias[key - query] for all pairs
                                   that are seen */
    float          *scratch;    /* kern_full_scratch() floats, aligned */
} kern_full_t;

/* Floats of packed keys and of scratch for n keys. */
size_t kern_full_keys(uint32_t n, uint32_t head_dim);
size_t kern_full_scratch(uint32_t n);

/* k is [n][ldk]; dst is KERN_ALIGN aligned. */
void kern_full_pack(float *dst, const float *k, size_t ldk, uint32_t n,
    uint32_t head_dim);

/* One head, queries [begin, end): threads split heads or queries, each with
 * its own scratch. */
void kern_full(const kern_full_t *a, uint32_t begin, uint32_t end);

#endif
