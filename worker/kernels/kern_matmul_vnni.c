/*
 * Integer matrix products for AVX-512 VNNI.  One 16-row group against one
 * slice of up to 8 columns is a tile: a dword of each column is broadcast by
 * the vpdpbusd itself.  The tile is kern_tile.inc's, the walk kern_int.h's.
 */
#include <immintrin.h>

#include "worker/kernels/kern_int.h"

#define KERN_NAME(op)   op##__vnni
#define KERN_LANES      16u
#define KERN_COLS       8u      /* columns per tile */
#define KERN_COLS_N     8
#define KERN_DIRECT     16u     /* columns that unpack on their way, at most */

typedef __m512  f_t;
typedef __m512i i_t;

/* acc += w (unsigned) . dword at p (signed), per lane.  Inline assembly
 * because gcc 12 would load the broadcast into a register and spill. */
#define KERN_DP(acc, w, p)                                                    \
    __asm__ ("vpdpbusd %2%{1to16%}, %1, %0"                                   \
             : "+v" (acc) : "v" (w), "m" (*(const int32_t *) (p)))

KERN_FN_INLINE f_t f_set(float a) { return _mm512_set1_ps(a); }
KERN_FN_INLINE f_t f_load(const float *p) { return _mm512_load_ps(p); }
KERN_FN_INLINE void f_store(float *p, f_t a) { _mm512_store_ps(p, a); }
KERN_FN_INLINE f_t f_mul(f_t a, f_t b) { return _mm512_mul_ps(a, b); }
KERN_FN_INLINE f_t f_int(i_t a) { return _mm512_cvtepi32_ps(a); }
KERN_FN_INLINE i_t i_set(int32_t a) { return _mm512_set1_epi32(a); }
KERN_FN_INLINE void i_store(uint8_t *p, i_t a) { _mm512_store_si512(p, a); }

KERN_FN_INLINE f_t
f_fma(f_t a, f_t b, f_t c)
{
    return _mm512_fmadd_ps(a, b, c);
}


KERN_FN_INLINE f_t
f_minus(f_t a)
{
    return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f));
}


/* f16, int8 and uint8 of the rows as floats. */
KERN_FN_INLINE f_t
f_halfs(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p));
}


KERN_FN_INLINE f_t
f_signed(const uint8_t *p)
{
    return f_int(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) p)));
}


KERN_FN_INLINE f_t
f_unsigned(const uint8_t *p)
{
    return f_int(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *) p)));
}


/* n sums of the result, 1 to 16. */
KERN_FN_INLINE f_t
f_take(const float *p, uint32_t n)
{
    return _mm512_maskz_loadu_ps((__mmask16) ((1u << n) - 1), p);
}


KERN_FN_INLINE void
f_put(float *p, f_t v, uint32_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16) ((1u << n) - 1), v);
}


/* The upper two bits of 6-bit quants of vector t, at bits 4 and 5. */
KERN_FN_INLINE __m512i
kern_upper_pair(const uint8_t *plane, uint32_t t)
{
    __m512i  v = _mm512_loadu_si512(plane + t / 4 * 64);

    switch (t % 4) {
    case 0:
        v = _mm512_slli_epi16(v, 4);
        break;
    case 1:
        v = _mm512_slli_epi16(v, 2);
        break;
    case 3:
        v = _mm512_srli_epi16(v, 2);
        break;
    }

    return _mm512_and_si512(v, _mm512_set1_epi8(0x30));
}


/* Vector t of 8 of a block: the bytes of columns 4t..4t+3 of 16 rows. */
KERN_FN_INLINE __m512i
kern_weights(const uint8_t *q, uint32_t t, uint32_t half, const int form)
{
    __m512i   v;
    uint64_t  fifth;

    (void) half;                /* there is one part, 0 */

    if (form == KERN_FORM_8 || form == KERN_FORM_BYTES) {
        return _mm512_load_si512(q + 64 * t);
    }

    v = _mm512_loadu_si512(q + 64 * (t % 4));
    v = t < 4 ? v : _mm512_srli_epi16(v, 4);
    v = _mm512_and_si512(v, _mm512_set1_epi8(15));

    if (form == KERN_FORM_5) {
        memcpy(&fifth, q + 256 + 8 * t, sizeof(fifth));
        v = _mm512_mask_add_epi8(v, _cvtu64_mask64(fifth), v,
                                 _mm512_set1_epi8(16));
    } else if (form == KERN_FORM_6) {
        v = _mm512_or_si512(v, kern_upper_pair(q + 256, t));
    } else if (form == KERN_FORM_NL) {
        v = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(
                (const __m128i *) kern_levels_nl)), v);
    }

    return v;
}


#include "worker/kernels/kern_dp.inc"
