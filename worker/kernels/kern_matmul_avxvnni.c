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


KERN_FN_INLINE __m256i
kern_weights(const uint8_t *q, uint32_t t, uint32_t half, const int form)
{
    return kern_stored(q, t, half, form);
}


/* acc + w (unsigned) . dword at p (signed), per lane.  Inline assembly because
 * the encoding depends on the extension that gcc is told of. */
KERN_FN_INLINE i_t
kern_dp(i_t acc, i_t w, const int8_t *p)
{
    int32_t  word;

    memcpy(&word, p, sizeof(word));
    __asm__ (KERN_ENCODING "vpdpbusd %2, %1, %0"
             : "+x" (acc) : "x" (w), "x" (i_set(word)));
    return acc;
}


#define KERN_DP(acc, w, p)      ((acc) = kern_dp(acc, w, p))

#include "worker/kernels/kern_dp.inc"
