/*
 * Sixteen floats as two ymm registers.  Part of kern_v16.h, which says
 * what all of its forms share; included by nothing else.
 */
#ifndef KERN_V16_AVX2_H
#define KERN_V16_AVX2_H

#include <immintrin.h>
#include <stdint.h>

typedef struct { __m256 l, h; } v16;
typedef struct { __m256i l, h; } v16i;

#define V_FN static inline __attribute__((always_inline))
#define V_2(op, a, b)    ((v16) { op((a).l, (b).l), op((a).h, (b).h) })

V_FN v16
v_load(const float *p)
{
    return (v16) { _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) };
}

V_FN void
v_store(float *p, v16 a)
{
    _mm256_storeu_ps(p, a.l);
    _mm256_storeu_ps(p + 8, a.h);
}

V_FN v16
v_set(float a)
{
    return (v16) { _mm256_set1_ps(a), _mm256_set1_ps(a) };
}

V_FN v16 v_add(v16 a, v16 b) { return V_2(_mm256_add_ps, a, b); }
V_FN v16 v_sub(v16 a, v16 b) { return V_2(_mm256_sub_ps, a, b); }
V_FN v16 v_mul(v16 a, v16 b) { return V_2(_mm256_mul_ps, a, b); }
V_FN v16 v_div(v16 a, v16 b) { return V_2(_mm256_div_ps, a, b); }
V_FN v16 v_max(v16 a, v16 b) { return V_2(_mm256_max_ps, a, b); }
V_FN v16 v_min(v16 a, v16 b) { return V_2(_mm256_min_ps, a, b); }

V_FN v16
v_fma(v16 a, v16 b, v16 c)
{
    return (v16) { _mm256_fmadd_ps(a.l, b.l, c.l),
                   _mm256_fmadd_ps(a.h, b.h, c.h) };
}

V_FN v16i
v_seti(int32_t a)
{
    return (v16i) { _mm256_set1_epi32(a), _mm256_set1_epi32(a) };
}

#define V_2I(op, a, b)   ((v16i) { op((a).l, (b).l), op((a).h, (b).h) })
V_FN v16i v_addi(v16i a, v16i b) { return V_2I(_mm256_add_epi32, a, b); }
V_FN v16i v_subi(v16i a, v16i b) { return V_2I(_mm256_sub_epi32, a, b); }

#define V_SHIFT(name, op, n)                                                  \
V_FN v16i                                                                     \
name(v16i a)                                                                  \
{                                                                             \
    return (v16i) { op(a.l, n), op(a.h, n) };                                 \
}

V_SHIFT(v_shl7, _mm256_slli_epi32, 7)
V_SHIFT(v_shl23, _mm256_slli_epi32, 23)
V_SHIFT(v_sar7, _mm256_srai_epi32, 7)

V_FN v16
v_bits(v16i a)
{
    return (v16) { _mm256_castsi256_ps(a.l), _mm256_castsi256_ps(a.h) };
}

V_FN v16i
v_int(v16 a)
{
    return (v16i) { _mm256_cvtps_epi32(a.l), _mm256_cvtps_epi32(a.h) };
}

V_FN v16
v_rint(v16 a)
{
    return (v16) { _mm256_round_ps(a.l, 8), _mm256_round_ps(a.h, 8) };
}

V_FN v16
v_flt(v16i a)
{
    return (v16) { _mm256_cvtepi32_ps(a.l), _mm256_cvtepi32_ps(a.h) };
}

V_FN v16
v_abs(v16 a)
{
    __m256 s = _mm256_set1_ps(-0.0f);

    return (v16) { _mm256_andnot_ps(s, a.l), _mm256_andnot_ps(s, a.h) };
}

/* a < b ? x : y */
V_FN v16
v_lt(v16 a, v16 b, v16 x, v16 y)
{
    return (v16) {
        _mm256_blendv_ps(y.l, x.l, _mm256_cmp_ps(a.l, b.l, _CMP_LT_OQ)),
        _mm256_blendv_ps(y.h, x.h, _mm256_cmp_ps(a.h, b.h, _CMP_LT_OQ)) };
}

V_FN v16
v_loadh(const uint16_t *p)
{
    return (v16) {
        _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p)),
        _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) (p + 8))) };
}

/* 16 pairs of bfloat16 as two vectors: a from the upper halves. */
V_FN void
v_loadb2(const void *p, v16 *a, v16 *b)
{
    __m256i  l = _mm256_loadu_si256(p);
    __m256i  h = _mm256_loadu_si256((const __m256i *) p + 1);
    __m256i  upper = _mm256_set1_epi32((int) 0xffff0000);

    *a = (v16) { _mm256_castsi256_ps(_mm256_and_si256(l, upper)),
                 _mm256_castsi256_ps(_mm256_and_si256(h, upper)) };
    *b = (v16) { _mm256_castsi256_ps(_mm256_slli_epi32(l, 16)),
                 _mm256_castsi256_ps(_mm256_slli_epi32(h, 16)) };
}

V_FN void
v_storeh(uint16_t *p, v16 a)
{
    _mm_storeu_si128((__m128i *) p, _mm256_cvtps_ph(a.l, 0));
    _mm_storeu_si128((__m128i *) (p + 8), _mm256_cvtps_ph(a.h, 0));
}

V_FN v16
v_loadh8(const uint16_t *p)
{
    return (v16) { _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p)),
                   _mm256_setzero_ps() };
}

V_FN __m256
v_loadi8x8(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(
        (const __m128i *) p)));
}

V_FN v16
v_loadi8(const int8_t *p)
{
    return (v16) { v_loadi8x8(p), v_loadi8x8(p + 8) };
}

V_FN v16
v_loadi8_8(const int8_t *p)
{
    return (v16) { v_loadi8x8(p), _mm256_setzero_ps() };
}

/* max of m and |a| compared as integers, so that NaN counts as largest. */
V_FN v16i
v_absmax(v16i m, v16 a)
{
    a = v_abs(a);
    return (v16i) { _mm256_max_epi32(m.l, _mm256_castps_si256(a.l)),
                    _mm256_max_epi32(m.h, _mm256_castps_si256(a.h)) };
}

V_FN int32_t
v_hmaxi(v16i a)
{
    __m256i  h = _mm256_max_epi32(a.l, a.h);
    __m128i  q = _mm_max_epi32(_mm256_castsi256_si128(h),
                               _mm256_extracti128_si256(h, 1));

    q = _mm_max_epi32(q, _mm_shuffle_epi32(q, 0x4e));
    q = _mm_max_epi32(q, _mm_shuffle_epi32(q, 0xb1));
    return _mm_cvtsi128_si32(q);
}

/* Values in [-128, 127] as bytes. */
V_FN __m128i
v_bytes(v16i a)
{
    __m128i  l = _mm_packs_epi32(_mm256_castsi256_si128(a.l),
                                 _mm256_extracti128_si256(a.l, 1));
    __m128i  h = _mm_packs_epi32(_mm256_castsi256_si128(a.h),
                                 _mm256_extracti128_si256(a.h, 1));

    return _mm_packs_epi16(l, h);
}

/* Pairs apart and together: e = even lanes of a|b, o = odd ones. */
V_FN __m256
v_even8(__m256 a, __m256 b, int odd)
{
    __m256  t = odd ? _mm256_shuffle_ps(a, b, 0xdd)
                    : _mm256_shuffle_ps(a, b, 0x88);

    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(t), 0xd8));
}

V_FN void
v_unzip(v16 a, v16 b, v16 *e, v16 *o)
{
    *e = (v16) { v_even8(a.l, a.h, 0), v_even8(b.l, b.h, 0) };
    *o = (v16) { v_even8(a.l, a.h, 1), v_even8(b.l, b.h, 1) };
}

V_FN v16
v_zip8(__m256 e, __m256 o)
{
    __m256  l = _mm256_unpacklo_ps(e, o), h = _mm256_unpackhi_ps(e, o);

    return (v16) { _mm256_permute2f128_ps(l, h, 0x20),
                   _mm256_permute2f128_ps(l, h, 0x31) };
}

V_FN void
v_zip(v16 e, v16 o, v16 *a, v16 *b)
{
    *a = v_zip8(e.l, o.l);
    *b = v_zip8(e.h, o.h);
}

#define V_HALVES(name, op)                                                    \
V_FN __m256                                                                   \
name(v16 a)                                                                   \
{                                                                             \
    return op(a.l, a.h);                                                      \
}

#endif
