/*
 * Stamp of the float matrix products for AVX512_BF16: an element is a pair of
 * bfloat16, and a step adds both products of a pair, the one of the upper
 * halves first, each rounded to nearest even.  So a sum's operations are those
 * of the other levels, in their order; products of bfloat16 are exact.  But
 * the instruction takes denormals, and what would become one, for zero.
 * (Intel's manual, VDPBF16PS.)
 *
 * tests/unit/kernels/test_matmul_bf16.c includes this with the instruction
 * written out.
 */
#if !defined(KERN_NAME)
#define KERN_NAME(op)       op##__bf16
#define KERN_STEP(w, a, acc)                                                  \
    _mm512_dpbf16_ps(acc, (__m512bh) (w), (__m512bh) (a))
#endif
#define KERN_TILE_GROUPS    2u
#define KERN_TILE_COLS      8

#include "worker/kernels/kern_matmul_float.inc"


void
KERN_NAME(kern_matmul_bf16)(const kern_weight_t *w, const kern_panel_t *p,
    float *out, size_t ldo, uint32_t row_begin, uint32_t row_end)
{
    kern_panel_t   x = *p;
    kern_weight_t  pairs = { KERN_F32, w->rows, w->cols / 2, w->packed };

    if (!p->pairs) {
        kern_matmul_bf16__avx512(w, p, out, ldo, row_begin, row_end);
        return;
    }

    x.k /= 2;
    kern_fmatmul(&pairs, &x, out, ldo, row_begin, row_end, KERN_F32);
}
