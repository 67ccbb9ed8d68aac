/*
 * Eight lanes: the vectors of the integer tiles for 256 bits, and how packed
 * weights become bytes in them.  Private to kern_matmul_avx2.c and
 * kern_matmul_avxvnni.c; names as kern_tile.inc wants them.
 */
#ifndef KERN_INT_AVX2_H
#define KERN_INT_AVX2_H

#include <immintrin.h>

#include "worker/kernels/kern_int.h"

#define KERN_LANES      8u

typedef __m256  f_t;
typedef __m256i i_t;

KERN_FN_INLINE f_t f_set(float a) { return _mm256_set1_ps(a); }
KERN_FN_INLINE f_t f_load(const float *p) { return _mm256_load_ps(p); }
KERN_FN_INLINE void f_store(float *p, f_t a) { _mm256_store_ps(p, a); }
KERN_FN_INLINE f_t f_mul(f_t a, f_t b) { return _mm256_mul_ps(a, b); }
KERN_FN_INLINE f_t f_int(i_t a) { return _mm256_cvtepi32_ps(a); }
KERN_FN_INLINE i_t i_set(int32_t a) { return _mm256_set1_epi32(a); }

KERN_FN_INLINE f_t
f_fma(f_t a, f_t b, f_t c)
{
    return _mm256_fmadd_ps(a, b, c);
}


KERN_FN_INLINE f_t
f_minus(f_t a)
{
    return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f));
}


KERN_FN_INLINE void
i_store(uint8_t *p, i_t a)
{
    _mm256_store_si256((__m256i *) p, a);
}


/* f16, int8 and uint8 of the rows as floats. */
KERN_FN_INLINE f_t
f_halfs(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p));
}


KERN_FN_INLINE f_t
f_signed(const uint8_t *p)
{
    return f_int(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) p)));
}


KERN_FN_INLINE f_t
f_unsigned(const uint8_t *p)
{
    return f_int(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *) p)));
}


/* n sums of the result, 1 to 8. */
KERN_FN_INLINE f_t
f_take(const float *p, uint32_t n)
{
    float  t[8] = { 0 };

    if (n == 8) {
        return _mm256_loadu_ps(p);
    }

    memcpy(t, p, n * sizeof(float));
    return _mm256_loadu_ps(t);
}


KERN_FN_INLINE void
f_put(float *p, f_t v, uint32_t n)
{
    float  t[8];

    if (n == 8) {
        _mm256_storeu_ps(p, v);
        return;
    }

    _mm256_storeu_ps(t, v);
    memcpy(p, t, n * sizeof(float));
}


KERN_FN_INLINE __m256i
kern_fifth_bits(const uint8_t *plane)
{
    __m256i  v;
    int32_t  word;

    /* 32 bits to the 0x10 of 32 bytes */
    memcpy(&word, plane, sizeof(word));
    v = _mm256_shuffle_epi8(_mm256_set1_epi32(word),
            _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,
                             2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3));
    v = _mm256_and_si256(v, _mm256_set1_epi64x(
                                (long long) 0x8040201008040201u));
    v = _mm256_cmpeq_epi8(v, _mm256_setzero_si256());
    return _mm256_andnot_si256(v, _mm256_set1_epi8(16));
}


/* The upper two bits of 6-bit quants of vector t, at bits 4 and 5. */
KERN_FN_INLINE __m256i
kern_upper_pair(const uint8_t *plane, uint32_t t)
{
    __m256i  v = _mm256_loadu_si256((const __m256i *) (plane + t / 4 * 64));

    switch (t % 4) {
    case 0:
        v = _mm256_slli_epi16(v, 4);
        break;
    case 1:
        v = _mm256_slli_epi16(v, 2);
        break;
    case 3:
        v = _mm256_srli_epi16(v, 2);
        break;
    }

    return _mm256_and_si256(v, _mm256_set1_epi8(0x30));
}


/* Vector t of 8, rows 8 half and on: columns 4t..4t+3 as they are stored,
 * unsigned. */
KERN_FN_INLINE __m256i
kern_stored(const uint8_t *q, uint32_t t, uint32_t half, const int form)
{
    __m256i  v;

    q += 32 * half;

    if (form == KERN_FORM_8 || form == KERN_FORM_BYTES) {
        return _mm256_loadu_si256((const __m256i *) (q + 64 * t));
    }

    v = _mm256_loadu_si256((const __m256i *) (q + 64 * (t % 4)));
    v = t < 4 ? v : _mm256_srli_epi16(v, 4);
    v = _mm256_and_si256(v, _mm256_set1_epi8(15));

    if (form == KERN_FORM_5) {
        /* the plane has 4 bytes per half, not 32 */
        v = _mm256_or_si256(v, kern_fifth_bits(q + 256 + 8 * t - 28 * half));
    } else if (form == KERN_FORM_6) {
        v = _mm256_or_si256(v, kern_upper_pair(q + 256, t));
    } else if (form == KERN_FORM_NL) {
        v = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(
                (const __m128i *) kern_levels_nl)), v);
    }

    return v;
}


#endif
