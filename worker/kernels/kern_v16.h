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

#if defined(__AVX512F__)
#include "worker/kernels/kern_v16_avx512.h"
#elif defined(__AVX2__)
#include "worker/kernels/kern_v16_avx2.h"
#else
#include "worker/kernels/kern_v16_c.h"
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


#if defined(__AVX2__) && !defined(__AVX512F__)

V_FN __m256
v_bf16_8(__m256 a)
{
    __m256i  u = _mm256_castps_si256(a), r, exp;

    r = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    r = _mm256_add_epi32(_mm256_add_epi32(u, r), _mm256_set1_epi32(0x7fff));
    a = _mm256_blendv_ps(_mm256_castsi256_ps(r), _mm256_or_ps(a,
            _mm256_castsi256_ps(_mm256_set1_epi32(0x400000))),
            _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    r = _mm256_and_si256(_mm256_castps_si256(a),
                         _mm256_set1_epi32((int) 0xffff0000));
    exp = _mm256_and_si256(u, _mm256_set1_epi32(0x7f800000));
    return _mm256_castsi256_ps(_mm256_andnot_si256(
        _mm256_cmpeq_epi32(exp, _mm256_setzero_si256()), r));
}

/* As kern_f32_bf16(). */
V_FN v16
v_bf16(v16 a)
{
    return (v16) { v_bf16_8(a.l), v_bf16_8(a.h) };
}

#endif


#if defined(__AVX2__)

V_FN void
v_store8(int8_t *p, v16i a)
{
    _mm_storeu_si128((__m128i *) p, v_bytes(a));
}

/* 32 values in [-128, 127] as bytes, and the sums of both halves. */
V_FN void
v_store8_sums(int8_t *p, v16i a, v16i b, int32_t *sa, int32_t *sb)
{
    __m256i  q = _mm256_inserti128_si256(_mm256_castsi128_si256(v_bytes(a)),
                                         v_bytes(b), 1), s;

    _mm256_storeu_si256((__m256i *) p, q);
    s = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), q),
                          _mm256_set1_epi16(1));
    s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0x4e));
    s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0xb1));
    *sa = _mm_cvtsi128_si32(_mm256_castsi256_si128(s));
    *sb = _mm_cvtsi128_si32(_mm256_extracti128_si256(s, 1));
}

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
