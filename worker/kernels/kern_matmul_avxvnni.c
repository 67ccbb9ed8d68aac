/*
 * Integer matrix products for AVX-VNNI: CPUs that have vpdpbusd in 256 bits
 * and no AVX-512.  A tile is 8 rows (half a packed group) against up to 4
 * columns.  The tile is kern_tile.inc's, the walk kern_int.h's.
 *
 * A test stamps this file with the same instruction in AVX-512VL's encoding,
 * so that the arithmetic is also tested where AVX-VNNI is not.
 */
#include "worker/kernels/kern_int_avx2.h"

#ifndef KERN_NAME
#define KERN_NAME(op)   op##__avxvnni
#define KERN_ENCODING   "%{vex%} "
#endif
#define KERN_COLS       4u      /* columns per tile */
#define KERN_COLS_N     4
#define KERN_DIRECT     8u      /* columns that unpack on their way, at most */


/* One loop serves all bytes, unsigned ones. */
KERN_FN_INLINE int
kern_bits(const int form)
{
    (void) form;
    return 0;
}


KERN_FN_INLINE int
kern_biased(const int bits)
{
    (void) bits;
    return 1;
}


KERN_FN_INLINE __m256i
kern_weights(const uint8_t *q, uint32_t t, uint32_t half, const int form)
{
    return kern_stored(q, t, half, form);
}


/* acc + w (unsigned) . x (signed), per lane.  Inline assembly because the
 * encoding depends on the extension that gcc is told of. */
KERN_FN_INLINE i_t
kern_dp(i_t acc, i_t w, i_t x)
{
    __asm__ (KERN_ENCODING "vpdpbusd %2, %1, %0"
             : "+x" (acc) : "x" (w), "x" (x));
    return acc;
}


/* The dot products of a block with n columns; those of its upper 16 columns
 * go to dot1. */
KERN_FN_INLINE void
kern_dots(i_t *dot, i_t *dot1, const uint8_t *q, const int8_t *x,
    uint32_t half, const uint32_t n, const int form, const int bits)
{
    i_t      w, v;
    int32_t  word;

    (void) bits;

#pragma GCC unroll 8
    for (uint32_t i = 0; i < 8; i++) {
        /* a nibble vector serves k and k + 4: keep them adjacent */
        const uint32_t  k = i / 2 + i % 2 * 4;

        w = kern_weights(q, k, half, form);

#pragma GCC unroll 8
        for (uint32_t c = 0; c < n; c++) {
            memcpy(&word, x + 32 * c + 4 * k, sizeof(word));
            v = i_set(word);

            if (k >= 4) {
                dot1[c] = kern_dp(dot1[c], w, v);
            } else {
                dot[c] = kern_dp(dot[c], w, v);
            }
        }
    }
}


#include "worker/kernels/kern_tile.inc"


KERN_BYTES(d, 0, KERN_SCALE_D)
KERN_BYTES(dm, 0, KERN_SCALE_DM)
KERN_BYTES(kh, 0, KERN_SCALE_KH)
KERN_BYTES(khm, 0, KERN_SCALE_KHM)

static const kern_slice_pt  kern_bytes[1][KERN_SCALE_KHM + 1] = {
    [0][KERN_SCALE_D] = kern_bytes_d,
    [0][KERN_SCALE_DM] = kern_bytes_dm,
    [0][KERN_SCALE_KH] = kern_bytes_kh,
    [0][KERN_SCALE_KHM] = kern_bytes_khm,
};

KERN_INT_TYPES(KERN_STAMP)
