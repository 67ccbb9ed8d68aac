/*
 * Integer matrix products for AVX2.  A tile is 8 rows (half a packed group)
 * against up to 4 columns.  vpmaddubsw multiplies unsigned weights by signed
 * activations and adds pairs into 16 bits; how many steps may be summed there
 * without saturating decides the loops:
 *
 *   4 bits  15 * 127 * 2 * 8 steps = 30480: the whole block
 *   5 bits  31 * 127 * 2 * 4 steps = 31496: half a block
 *   6 bits  63 * 127 * 2 * 2 steps = 32004: two steps
 *   8 bits  128 * 127 * 2 = 32512: one step, on |w| and sign(w) x
 *
 * 8-bit and NL weights are therefore taken as signed bytes and need no bias.
 * The walk is kern_int.h's; up to 4 columns unpack on their way.
 */
#include <immintrin.h>

#include "worker/kernels/kern_int.h"

#define KERN_NAME(op)   op##__avx2
#define KERN_LANES      8u
#define KERN_COLS       4u      /* columns per tile */
#define KERN_COLS_N     4
#define KERN_DIRECT     4u      /* columns that unpack on their way, at most */

/* Bits of a weight, which choose the loop. */
enum {
    KERN_BITS_4 = 4,
    KERN_BITS_5 = 5,
    KERN_BITS_6 = 6,
    KERN_BITS_S8 = 8            /* signed bytes */
};

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


KERN_FN_INLINE int
kern_bits(const int form)
{
    return form == KERN_FORM_4 ? KERN_BITS_4
           : form == KERN_FORM_5 ? KERN_BITS_5
           : form == KERN_FORM_6 ? KERN_BITS_6 : KERN_BITS_S8;
}


/* Whether the weights are unsigned and their bias comes from the panel. */
KERN_FN_INLINE int
kern_biased(const int bits)
{
    return bits != KERN_BITS_S8;
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


/* Vector t of 8, rows 8 half and on: columns 4t..4t+3 as unsigned bytes, or
 * as signed ones for 8-bit and NL. */
KERN_FN_INLINE __m256i
kern_weights(const uint8_t *q, uint32_t t, uint32_t half, const int form)
{
    __m256i  v, sign = _mm256_set1_epi8((char) 0x80);

    q += 32 * half;

    if (form == KERN_FORM_BYTES) {
        return _mm256_load_si256((const __m256i *) (q + 64 * t));
    }

    if (form == KERN_FORM_8) {
        v = _mm256_loadu_si256((const __m256i *) (q + 64 * t));
        return _mm256_xor_si256(v, sign);
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
        v = _mm256_xor_si256(v, sign);
    }

    return v;
}


/* Adds the dots of four vectors of weights (`part` 0: columns 0..15 of the
 * block, 1: 16..31) with n columns to dot. */
KERN_FN_INLINE void
kern_dots_part(__m256i *dot, const uint8_t *q, const int8_t *x, uint32_t half,
    const uint32_t part, const uint32_t n, const int form, const int bits)
{
    __m256i  sum[KERN_COLS], w, a, v, ones = _mm256_set1_epi16(1);

#pragma GCC unroll 8
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t  k = 4 * part + i;

        w = kern_weights(q, k, half, form);
        a = bits == KERN_BITS_S8 ? _mm256_abs_epi8(w) : w;

#pragma GCC unroll 8
        for (uint32_t c = 0; c < n; c++) {
            int32_t  word;

            memcpy(&word, x + 32 * c + 4 * k, sizeof(word));
            v = _mm256_set1_epi32(word);
            v = bits == KERN_BITS_S8 ? _mm256_sign_epi8(v, w) : v;
            v = _mm256_maddubs_epi16(a, v);

            if (bits == KERN_BITS_S8) {
                dot[c] = _mm256_add_epi32(dot[c], _mm256_madd_epi16(v, ones));
                continue;
            }

            sum[c] = i == 0 || (bits == KERN_BITS_6 && i == 2)
                     ? v : _mm256_add_epi16(sum[c], v);

            if (i == 3 || (bits == KERN_BITS_6 && i == 1)) {
                dot[c] = _mm256_add_epi32(dot[c],
                                          _mm256_madd_epi16(sum[c], ones));
            }
        }
    }
}


/* The dots of both halves of a block. */
KERN_FN_INLINE void
kern_dots(i_t *dot, i_t *dot1, const uint8_t *q, const int8_t *x,
    uint32_t half, const uint32_t n, const int form, const int bits)
{
    kern_dots_part(dot, q, x, half, 0, n, form, bits);
    kern_dots_part(dot1, q, x, half, 1, n, form, bits);
}


#include "worker/kernels/kern_tile.inc"


KERN_BYTES(s8_d, KERN_BITS_S8, KERN_SCALE_D)
KERN_BYTES(4_d, KERN_BITS_4, KERN_SCALE_D)
KERN_BYTES(4_dm, KERN_BITS_4, KERN_SCALE_DM)
KERN_BYTES(4_kh, KERN_BITS_4, KERN_SCALE_KH)
KERN_BYTES(4_khm, KERN_BITS_4, KERN_SCALE_KHM)
KERN_BYTES(5_d, KERN_BITS_5, KERN_SCALE_D)
KERN_BYTES(5_dm, KERN_BITS_5, KERN_SCALE_DM)
KERN_BYTES(6_kh, KERN_BITS_6, KERN_SCALE_KH)

static const kern_slice_pt  kern_bytes[9][KERN_SCALE_KHM + 1] = {
    [KERN_BITS_S8][KERN_SCALE_D] = kern_bytes_s8_d,
    [KERN_BITS_4][KERN_SCALE_D] = kern_bytes_4_d,
    [KERN_BITS_4][KERN_SCALE_DM] = kern_bytes_4_dm,
    [KERN_BITS_4][KERN_SCALE_KH] = kern_bytes_4_kh,
    [KERN_BITS_4][KERN_SCALE_KHM] = kern_bytes_4_khm,
    [KERN_BITS_5][KERN_SCALE_D] = kern_bytes_5_d,
    [KERN_BITS_5][KERN_SCALE_DM] = kern_bytes_5_dm,
    [KERN_BITS_6][KERN_SCALE_KH] = kern_bytes_6_kh,
};

KERN_INT_TYPES(KERN_STAMP)
