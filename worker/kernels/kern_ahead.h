/*
 * What is prefetched while a tile of the integer products works.  Private to
 * kern_int.h.
 */
#ifndef KERN_AHEAD_H
#define KERN_AHEAD_H

#include "worker/kernels/kern_form.h"
#include "worker/kernels/kern_internal.h"

#define KERN_AHEAD      16384   /* bytes prefetched ahead when streaming */
#define KERN_NEAR       1024    /* and from the second-level cache */

/* One tile: a 16-row group (or part of it) and columns of one slice. */
typedef struct {
    const uint8_t  *q;          /* packed quants or expanded bytes */
    const uint8_t  *scale;      /* packed records or expanded floats */
    const uint8_t  *super;      /* packed super-block words */
    const int8_t   *x;          /* 32 bytes per column, block by block */
    const float    *d;
    const float    *ds;         /* d * sum, of the lower half for halves */
    const float    *ds1;        /* of the upper half */
    const int32_t  *bias;
    const int32_t  *bias1;
    uint32_t        stride;     /* columns of the slice */
    uint32_t        nb;
    const uint8_t  *ahead;      /* where prefetching begins */
    uint32_t        turn;       /* this pass over the weights, of `turns` */
    uint32_t        turns;      /* (1, 2 or 4): each prefetches its part */
    const uint8_t  *end;        /* of the weights of this call */
    float          *out;
    size_t          ldo;
    uint32_t        rows;       /* that exist, 1..16 */
    int             resume;     /* sums continue those in out */
} kern_tile_t;

/*
 * Prefetches for block b of a walk, which is one over quants and scales
 * together: from memory what is far ahead, into the first level what is
 * near.  Where several passes go over a group, each takes its share of the
 * blocks, so that memory works all the time and not in the first pass only.
 */
KERN_FN_INLINE void
kern_ahead(const kern_tile_t *t, const uint8_t *q, uint32_t b, size_t q_bytes,
    size_t bytes)
{
    const uint8_t  *at = t->ahead + b * bytes;

    if ((b & (t->turns - 1)) == t->turn) {
#pragma GCC unroll 16
        for (size_t i = 0; i < bytes; i += 64) {
            __builtin_prefetch(at + i, 0, 2);
        }
    }

    if (t->turn == 0) {
#pragma GCC unroll 16
        for (size_t i = 0; i < q_bytes; i += 64) {
            __builtin_prefetch(q + KERN_NEAR + i, 0, 3);
        }
    }
}


/* Where to prefetch while a group is read: ahead in the weights, and at their
 * end in what the caller reads next, as if it followed. */
static inline const uint8_t *
kern_ahead_at(const uint8_t *group, const uint8_t *end, const void *next)
{
    size_t  left = (size_t) (end - group);

    return left > KERN_AHEAD || next == NULL
           ? group + KERN_AHEAD : (const uint8_t *) next + KERN_AHEAD - left;
}


#endif
