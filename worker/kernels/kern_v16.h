/*
 * Sixteen floats as one value: a zmm register, two ymm registers, or plain C,
 * by the flags a file is compiled with.  Template bodies written on it run
 * the same IEEE operations per lane at every level, which is what makes the
 * levels bitwise equal.  Maximum and minimum follow x86: with a NaN operand
 * the second one is the result.  Private to this folder.
 */
#ifndef KERN_V16_H
#define KERN_V16_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "worker/kernels/kern_f16.h"

#if defined(__AVX512F__)

#include <immintrin.h>

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

V_FN v16
v_loadb(const uint16_t *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(
        _mm256_loadu_si256((const __m256i *) p)), 16));
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

/* max of m and |a| compared as integers, so that NaN counts as largest. */
V_FN v16i
v_absmax(v16i m, v16 a)
{
    return _mm512_max_epi32(m, _mm512_castps_si512(_mm512_abs_ps(a)));
}

V_FN int32_t v_hmaxi(v16i a) { return _mm512_reduce_max_epi32(a); }
V_FN int32_t v_hsumi(v16i a) { return _mm512_reduce_add_epi32(a); }

/* Values in [-128, 127] as bytes. */
V_FN void
v_store8(int8_t *p, v16i a)
{
    _mm_storeu_si128((__m128i *) p, _mm512_cvtepi32_epi8(a));
}

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

#elif defined(__AVX2__)

#include <immintrin.h>

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

V_FN v16i
v_addi(v16i a, v16i b)
{
    return (v16i) { _mm256_add_epi32(a.l, b.l), _mm256_add_epi32(a.h, b.h) };
}

V_FN v16i
v_shl23(v16i a)
{
    return (v16i) { _mm256_slli_epi32(a.l, 23), _mm256_slli_epi32(a.h, 23) };
}

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

V_FN v16
v_loadb(const uint16_t *p)
{
    return (v16) {
        _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(
            _mm_loadu_si128((const __m128i *) p)), 16)),
        _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(
            _mm_loadu_si128((const __m128i *) (p + 8))), 16)) };
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

V_FN int32_t
v_hsumi(v16i a)
{
    __m256i  h = _mm256_add_epi32(a.l, a.h);
    __m128i  q = _mm_add_epi32(_mm256_castsi256_si128(h),
                               _mm256_extracti128_si256(h, 1));

    q = _mm_add_epi32(q, _mm_shuffle_epi32(q, 0x4e));
    q = _mm_add_epi32(q, _mm_shuffle_epi32(q, 0xb1));
    return _mm_cvtsi128_si32(q);
}

/* Values in [-128, 127] as bytes. */
V_FN void
v_store8(int8_t *p, v16i a)
{
    __m128i  l = _mm_packs_epi32(_mm256_castsi256_si128(a.l),
                                 _mm256_extracti128_si256(a.l, 1));
    __m128i  h = _mm_packs_epi32(_mm256_castsi256_si128(a.h),
                                 _mm256_extracti128_si256(a.h, 1));

    _mm_storeu_si128((__m128i *) p, _mm_packs_epi16(l, h));
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

#else

typedef struct { float f[16]; } v16;
typedef struct { int32_t i[16]; } v16i;

#define V_FN static inline
#define V_EACH(type, field, expr)                                             \
    type r;                                                                   \
    for (int i = 0; i < 16; i++) {                                            \
        r.field[i] = (expr);                                                  \
    }                                                                         \
    return r

V_FN v16 v_load(const float *p) { V_EACH(v16, f, p[i]); }
V_FN void v_store(float *p, v16 a) { memcpy(p, a.f, sizeof(a.f)); }
V_FN v16 v_set(float a) { V_EACH(v16, f, a); }
V_FN v16 v_add(v16 a, v16 b) { V_EACH(v16, f, a.f[i] + b.f[i]); }
V_FN v16 v_sub(v16 a, v16 b) { V_EACH(v16, f, a.f[i] - b.f[i]); }
V_FN v16 v_mul(v16 a, v16 b) { V_EACH(v16, f, a.f[i] * b.f[i]); }
V_FN v16 v_div(v16 a, v16 b) { V_EACH(v16, f, a.f[i] / b.f[i]); }
V_FN v16
v_fma(v16 a, v16 b, v16 c) { V_EACH(v16, f, fmaf(a.f[i], b.f[i], c.f[i])); }
V_FN v16
v_max(v16 a, v16 b) { V_EACH(v16, f, a.f[i] > b.f[i] ? a.f[i] : b.f[i]); }
V_FN v16
v_min(v16 a, v16 b) { V_EACH(v16, f, a.f[i] < b.f[i] ? a.f[i] : b.f[i]); }
V_FN v16i v_seti(int32_t a) { V_EACH(v16i, i, a); }

V_FN v16i
v_addi(v16i a, v16i b)
{
    V_EACH(v16i, i, (int32_t) ((uint32_t) a.i[i] + (uint32_t) b.i[i]));
}

V_FN v16i
v_shl23(v16i a)
{
    V_EACH(v16i, i, (int32_t) ((uint32_t) a.i[i] << 23));
}

V_FN v16
v_bits(v16i a)
{
    v16  r;

    memcpy(r.f, a.i, sizeof(r.f));
    return r;
}

/* Out of range and NaN give INT32_MIN, as cvtps2dq does. */
V_FN v16i
v_int(v16 a)
{
    V_EACH(v16i, i, fabsf(a.f[i]) < 0x1p31f ? (int32_t) rintf(a.f[i])
                                            : INT32_MIN);
}

V_FN v16 v_rint(v16 a) { V_EACH(v16, f, rintf(a.f[i])); }
V_FN v16 v_flt(v16i a) { V_EACH(v16, f, (float) a.i[i]); }
V_FN v16 v_abs(v16 a) { V_EACH(v16, f, fabsf(a.f[i])); }

/* a < b ? x : y */
V_FN v16
v_lt(v16 a, v16 b, v16 x, v16 y)
{
    V_EACH(v16, f, a.f[i] < b.f[i] ? x.f[i] : y.f[i]);
}

V_FN v16 v_loadh(const uint16_t *p) { V_EACH(v16, f, kern_f16_f32(p[i])); }
V_FN v16 v_loadb(const uint16_t *p) { V_EACH(v16, f, kern_bf16_f32(p[i])); }

V_FN void
v_storeh(uint16_t *p, v16 a)
{
    for (int i = 0; i < 16; i++) {
        p[i] = kern_f32_f16(a.f[i]);
    }
}

V_FN v16
v_loadh8(const uint16_t *p) { V_EACH(v16, f, i < 8 ? kern_f16_f32(p[i]) : 0); }

/* max of m and |a| compared as integers, so that NaN counts as largest. */
V_FN v16i
v_absmax(v16i m, v16 a)
{
    for (int i = 0; i < 16; i++) {
        int32_t  b = (int32_t) (kern_f32_u32(a.f[i]) & 0x7fffffffu);

        m.i[i] = b > m.i[i] ? b : m.i[i];
    }
    return m;
}

V_FN int32_t
v_hmaxi(v16i a)
{
    int32_t  m = a.i[0];

    for (int i = 1; i < 16; i++) {
        m = a.i[i] > m ? a.i[i] : m;
    }
    return m;
}

V_FN int32_t
v_hsumi(v16i a)
{
    int32_t  s = 0;

    for (int i = 0; i < 16; i++) {
        s += a.i[i];
    }
    return s;
}

V_FN void
v_store8(int8_t *p, v16i a)
{
    for (int i = 0; i < 16; i++) {
        p[i] = (int8_t) a.i[i];
    }
}

/* Pairs apart and together: e = even lanes of a|b, o = odd ones. */
V_FN void
v_unzip(v16 a, v16 b, v16 *e, v16 *o)
{
    for (int i = 0; i < 8; i++) {
        e->f[i] = a.f[2 * i];
        e->f[i + 8] = b.f[2 * i];
        o->f[i] = a.f[2 * i + 1];
        o->f[i + 8] = b.f[2 * i + 1];
    }
}

V_FN void
v_zip(v16 e, v16 o, v16 *a, v16 *b)
{
    for (int i = 0; i < 8; i++) {
        a->f[2 * i] = e.f[i];
        a->f[2 * i + 1] = o.f[i];
        b->f[2 * i] = e.f[i + 8];
        b->f[2 * i + 1] = o.f[i + 8];
    }
}

#define V_TREE(name, expr)                                                    \
V_FN float                                                                    \
name(v16 a)                                                                   \
{                                                                             \
    for (int s = 8; s > 0; s /= 2) {                                          \
        for (int i = 0; i < s; i++) {                                         \
            float  x = a.f[i], y = a.f[i + s];                                \
            a.f[i] = (expr);                                                  \
        }                                                                     \
    }                                                                         \
    return a.f[0];                                                            \
}

V_TREE(v_hsum, x + y)
V_TREE(v_hmax, x > y ? x : y)

#endif


#if !defined(__AVX512F__)

/* Fewer than 16 values: the rest reads as zero and is not written. */
V_FN v16
v_loadn(const float *p, uint32_t n)
{
    float  t[16] = { 0 };

    memcpy(t, p, n * sizeof(float));
    return v_load(t);
}

V_FN void
v_storen(float *p, v16 a, uint32_t n)
{
    float  t[16];

    v_store(t, a);
    memcpy(p, t, n * sizeof(float));
}

#endif


#if defined(__AVX2__)

V_HALVES(v_hsum8, _mm256_add_ps)
V_HALVES(v_hmax8, _mm256_max_ps)

/* The tree of lanes i, i + 8; i, i + 4; i, i + 2; 0, 1. */
#define V_TREE(name, halves, op, ops)                                         \
V_FN float                                                                    \
name(v16 a)                                                                   \
{                                                                             \
    __m256  h = halves(a);                                                    \
    __m128  q = op(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));   \
                                                                              \
    q = op(q, _mm_movehl_ps(q, q));                                           \
    q = ops(q, _mm_movehdup_ps(q));                                           \
    return _mm_cvtss_f32(q);                                                  \
}

V_TREE(v_hsum, v_hsum8, _mm_add_ps, _mm_add_ss)
V_TREE(v_hmax, v_hmax8, _mm_max_ps, _mm_max_ss)

#endif

#endif
