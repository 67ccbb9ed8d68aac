/*
 * Passes over a whole row of logits, for wrk_sample.c only.  The same source
 * is compiled for several instruction sets; every operation is per element or
 * in a fixed order, so that all of them give the same bits.
 */

#ifndef WRK_SAMPLE_ROW_H
#define WRK_SAMPLE_ROW_H

#include <stdint.h>


#define WRK_ROW_BLOCK  64u      /* floats summarised by one value */


typedef struct {
    /* blocks[i]: the largest of block i; returns the largest of all.  NaN is
       skipped; -INFINITY when nothing else is there. */
    float   (*max)(const float *x, uint32_t n, float *blocks);
    /* blocks[i]: the sum of exp((x - max) * scale) in block i. */
    double  (*expsum)(const float *x, uint32_t n, float max, float scale,
                float *blocks);
    /* out[i] = exp((x[i] - max) * scale); out may be x. */
    void    (*exps)(const float *x, uint32_t n, float max, float scale,
                float *out);
} wrk_row_ops_t;


extern const wrk_row_ops_t  wrk_row_base;
extern const wrk_row_ops_t  wrk_row_avx2;
extern const wrk_row_ops_t  wrk_row_avx512;

/* The best that this CPU has. */
const wrk_row_ops_t *wrk_row_ops(void);


#endif /* WRK_SAMPLE_ROW_H */
