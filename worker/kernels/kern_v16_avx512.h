/*
 * Sixteen floats as one zmm register.  Part of kern_v16.h, which says
 * what all of its forms share; included by nothing else.
 */
#ifndef KERN_V16_AVX512_H
#define KERN_V16_AVX512_H

#include <immintrin.h>
#include <stdint.h>

typedef __m512  v16;
typedef __m512i v16i;

#define V_FN static inline __attribute__((always_inline))

V_FN v16 v_load(const float *p) { return _mm512_loadu_ps(p); }
V_FN void v_store(float *p, v16 a) { _mm512_storeu_ps(p, a); }
V_FN v16 v_set(float a) { return _mm512_set1_ps(a); }
V_FN v16 v_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
V_FN v16 v_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
V_FN v16 v_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
V_FN v16 v_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
V_FN v16 v_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
V_FN v16 v_max(v16 a, v16 b) { return _mm512_max_ps(a, b); }
V_FN v16 v_min(v16 a, v16 b) { return _mm512_min_ps(a, b); }
V_FN v16i v_seti(int32_t a) { return _mm512_set1_epi32(a); }
V_FN v16i v_addi(v16i a, v16i b) { return _mm512_add_epi32(a, b); }
V_FN v16i v_subi(v16i a, v16i b) { return _mm512_sub_epi32(a, b); }
V_FN v16i v_shl7(v16i a) { return _mm512_slli_epi32(a, 7); }
V_FN v16i v_sar7(v16i a) { return _mm512_srai_epi32(a, 7); }
V_FN v16i v_shl23(v16i a) { return _mm512_slli_epi32(a, 23); }
V_FN v16 v_bits(v16i a) { return _mm512_castsi512_ps(a); }
V_FN v16i v_int(v16 a) { return _mm512_cvtps_epi32(a); }
V_FN v16 v_rint(v16 a) { return _mm512_roundscale_ps(a, 8); }
V_FN v16 v_flt(v16i a) { return _mm512_cvtepi32_ps(a); }
V_FN v16 v_abs(v16 a) { return _mm512_abs_ps(a); }

/* a < b ? x : y */
V_FN v16
v_lt(v16 a, v16 b, v16 x, v16 y)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}

V_FN v16
v_loadn(const float *p, uint32_t n)
{
    return _mm512_maskz_loadu_ps((__mmask16) ((1u << n) - 1), p);
}

V_FN void
v_storen(float *p, v16 a, uint32_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16) ((1u << n) - 1), a);
}

V_FN v16
v_loadh(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p));
}

/* 16 pairs of bfloat16 as two vectors: a from the upper halves. */
V_FN void
v_loadb2(const void *p, v16 *a, v16 *b)
{
    __m512i  v = _mm512_loadu_si512(p);

    *a = _mm512_castsi512_ps(_mm512_and_si512(v,
                                 _mm512_set1_epi32((int) 0xffff0000)));
    *b = _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
}

/* As kern_f32_bf16(). */
V_FN v16
v_bf16(v16 a)
{
    __m512i  u = _mm512_castps_si512(a), r;

    r = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    r = _mm512_add_epi32(_mm512_add_epi32(u, r), _mm512_set1_epi32(0x7fff));
    r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), u,
                             _mm512_set1_epi32(0x400000));
    r = _mm512_maskz_and_epi32(
            _mm512_test_epi32_mask(u, _mm512_set1_epi32(0x7f800000)), r,
            _mm512_set1_epi32((int) 0xffff0000));
    return _mm512_castsi512_ps(r);
}

V_FN void
v_storeh(uint16_t *p, v16 a)
{
    _mm256_storeu_si256((__m256i *) p, _mm512_cvtps_ph(a, 0));
}

/* 8 halves in the low lanes, the others zero. */
V_FN v16
v_loadh8(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_castsi128_si256(_mm_loadu_si128(
        (const __m128i *) p)));
}

V_FN v16
v_loadi8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(
        (const __m128i *) p)));
}

V_FN v16
v_loadi8_8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadl_epi64(
        (const __m128i *) p)));
}

/* max of m and |a| compared as integers, so that NaN counts as largest. */
V_FN v16i
v_absmax(v16i m, v16 a)
{
    return _mm512_max_epi32(m, _mm512_castps_si512(_mm512_abs_ps(a)));
}

V_FN int32_t v_hmaxi(v16i a) { return _mm512_reduce_max_epi32(a); }

/* Values in [-128, 127] as bytes. */
V_FN __m128i v_bytes(v16i a) { return _mm512_cvtepi32_epi8(a); }

/* Pairs apart and together: e = even lanes of a|b, o = odd ones. */
V_FN void
v_unzip(v16 a, v16 b, v16 *e, v16 *o)
{
    __m512i  even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20,
                                      22, 24, 26, 28, 30);

    *e = _mm512_permutex2var_ps(a, even, b);
    *o = _mm512_permutex2var_ps(a, _mm512_add_epi32(even,
                                   _mm512_set1_epi32(1)), b);
}

V_FN void
v_zip(v16 e, v16 o, v16 *a, v16 *b)
{
    __m512i  low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5,
                                     21, 6, 22, 7, 23);

    *a = _mm512_permutex2var_ps(e, low, o);
    *b = _mm512_permutex2var_ps(e, _mm512_add_epi32(low,
                                   _mm512_set1_epi32(8)), o);
}

/* The eight sums or maxima of lanes i and i + 8. */
#define V_HALVES(name, op)                                                    \
V_FN __m256                                                                   \
name(v16 a)                                                                   \
{                                                                             \
    return op(_mm512_castps512_ps256(a), _mm256_castpd_ps(                    \
        _mm512_extractf64x4_pd(_mm512_castps_pd(a), 1)));                     \
}

#endif
