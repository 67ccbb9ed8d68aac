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

#define KERN_COLS       4u      /* columns per tile */

/* Bits of a weight, which choose the loop. */
enum {
    KERN_BITS_4 = 4,
    KERN_BITS_5 = 5,
    KERN_BITS_6 = 6,
    KERN_BITS_S8 = 8            /* signed bytes */
};

/* Scales and minima of a block's halves; the second ones may be unused. */
typedef struct {
    __m256  d, d1, m, m1;
} kern_scales_t;


KERN_FN_INLINE int
kern_bits(const int form)
{
    return form == KERN_FORM_4 ? KERN_BITS_4
           : form == KERN_FORM_5 ? KERN_BITS_5
           : form == KERN_FORM_6 ? KERN_BITS_6 : KERN_BITS_S8;
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


KERN_FN_INLINE __m256
kern_halfs(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p));
}


KERN_FN_INLINE __m256
kern_signed(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(
        (const __m128i *) p)));
}


/* -(dmin * mn) */
KERN_FN_INLINE __m256
kern_minimum(__m256 dmin, const uint8_t *p)
{
    __m256  m = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(
                    (const __m128i *) p)));

    return _mm256_xor_ps(_mm256_mul_ps(dmin, m), _mm256_set1_ps(-0.0f));
}


KERN_FN_INLINE kern_scales_t
kern_scales(const uint8_t *s, const uint8_t *super, uint32_t half,
    const int expanded, const int scales)
{
    __m256          d, dmin;
    const float    *f = (const float *) s + 8 * half;
    kern_scales_t   r;

    r.d = r.d1 = r.m = r.m1 = _mm256_setzero_ps();

    if (expanded) {
        r.d = _mm256_load_ps(f + KERN_X_D);

        if (kern_has_halves(scales)) {
            r.d1 = _mm256_load_ps(f + KERN_X_D1);
            r.m1 = kern_has_min(scales) ? _mm256_load_ps(f + KERN_X_M1)
                                        : r.m1;
        }

        r.m = kern_has_min(scales) ? _mm256_load_ps(f + KERN_X_M) : r.m;
        return r;
    }

    if (scales == KERN_SCALE_D || scales == KERN_SCALE_DM) {
        r.d = kern_halfs(s + 16 * half);
        r.m = scales == KERN_SCALE_DM ? kern_halfs(s + 32 + 16 * half) : r.m;
        return r;
    }

    s += 8 * half;
    d = kern_halfs(super + 16 * half);
    r.d = _mm256_mul_ps(d, kern_signed(s));

    if (kern_has_halves(scales)) {
        r.d1 = _mm256_mul_ps(d, kern_signed(s + 16));
    }

    if (kern_has_min(scales)) {
        dmin = kern_halfs(super + 32 + 16 * half);
        r.m = kern_minimum(dmin, s + (kern_has_halves(scales) ? 32 : 16));
        r.m1 = kern_has_halves(scales) ? kern_minimum(dmin, s + 48) : r.m1;
    }

    return r;
}


KERN_FN_INLINE __m256
kern_take(const float *p, uint32_t n)
{
    float  t[8] = { 0 };

    if (n == 8) {
        return _mm256_loadu_ps(p);
    }

    memcpy(t, p, n * sizeof(float));
    return _mm256_loadu_ps(t);
}


KERN_FN_INLINE void
kern_put(float *p, __m256 v, uint32_t n)
{
    float  t[8];

    if (n == 8) {
        _mm256_storeu_ps(p, v);
        return;
    }

    _mm256_storeu_ps(t, v);
    memcpy(p, t, n * sizeof(float));
}


/* Adds the dots of four vectors of weights (`part` 0: columns 0..15 of the
 * block, 1: 16..31) with n columns to dot. */
KERN_FN_INLINE void
kern_dots(__m256i *dot, const uint8_t *q, const int8_t *x, uint32_t half,
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


/* A block's dots, scaled, and its minima to the sums of n columns. */
KERN_FN_INLINE void
kern_scaled(__m256 *acc, const __m256i *dot, const __m256i *dot1,
    kern_scales_t sc, const float *d, const float *ds, const float *ds1,
    const uint32_t n, const int scales)
{
    __m256     dx;
    const int  halves = kern_has_halves(scales);
    const int  min = kern_has_min(scales);

#pragma GCC unroll 8
    for (uint32_t c = 0; c < n; c++) {
        dx = _mm256_set1_ps(d[c]);
        acc[c] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[c]),
                                 _mm256_mul_ps(sc.d, dx), acc[c]);

        if (halves) {
            acc[c] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot1[c]),
                                     _mm256_mul_ps(sc.d1, dx), acc[c]);
        }

        if (min) {
            acc[c] = _mm256_fmadd_ps(sc.m, _mm256_set1_ps(ds[c]), acc[c]);
        }

        if (min && halves) {
            acc[c] = _mm256_fmadd_ps(sc.m1, _mm256_set1_ps(ds1[c]), acc[c]);
        }
    }
}


/* n, form, bits and scales are constants after inlining; half chooses the
 * rows. */
KERN_FN_INLINE void
kern_tile(const kern_tile_t *t, uint32_t half, uint32_t col,
    const uint32_t n, const int form, const int bits, const int scales)
{
    size_t          q_bytes = kern_form_bytes(form), s_bytes;
    const int       expanded = form == KERN_FORM_BYTES;
    const int       halves = kern_has_halves(scales);
    const int       min = kern_has_min(scales);
    const int       biased = !min && bits != KERN_BITS_S8;
    float          *out = t->out + col * t->ldo + 8 * half;
    __m256          acc[KERN_COLS];
    __m256i         dot[KERN_COLS], dot1[KERN_COLS];
    uint32_t        rows = t->rows - 8 * half < 8 ? t->rows - 8 * half : 8;
    kern_scales_t   sc;
    const float    *d = t->d + col, *ds = t->ds + col, *ds1 = t->ds1 + col;
    const char     *ahead = (const char *) t->ahead;
    const int8_t   *x = t->x + 32 * col;
    const int32_t  *bias = biased ? t->bias + col : NULL;
    const int32_t  *bias1 = biased && halves ? t->bias1 + col : NULL;
    const uint8_t  *q = t->q, *s = t->scale, *super = t->super;

    s_bytes = expanded ? KERN_X_N * sizeof(float) : kern_record_bytes(scales);

#pragma GCC unroll 8
    for (uint32_t c = 0; c < n; c++) {
        acc[c] = t->resume ? kern_take(out + c * t->ldo, rows)
                           : _mm256_setzero_ps();
    }

    for (uint32_t b = 0; b < t->nb; b++) {

        if (n <= 2 && !expanded && half == 0) {
            ahead = kern_ahead(ahead, q_bytes + s_bytes);
        }

#pragma GCC unroll 8
        for (uint32_t c = 0; c < n; c++) {
            dot[c] = biased ? _mm256_set1_epi32(bias[c])
                            : _mm256_setzero_si256();
            dot1[c] = biased && halves ? _mm256_set1_epi32(bias1[c])
                                       : _mm256_setzero_si256();
        }

        kern_dots(dot, q, x, half, 0, n, form, bits);
        kern_dots(halves ? dot1 : dot, q, x, half, 1, n, form, bits);
        sc = kern_scales(s, super, half, expanded, scales);
        kern_scaled(acc, dot, dot1, sc, d, ds, ds1, n, scales);

        q += q_bytes;
        s += s_bytes;
        x += 32 * t->stride;
        d += t->stride;
        ds += t->stride;
        ds1 += t->stride;
        bias += biased ? t->stride : 0;
        bias1 += biased && halves ? t->stride : 0;

        if (!expanded && b % 8 == 7) {
            super += kern_super_bytes(scales);
        }
    }

#pragma GCC unroll 8
    for (uint32_t c = 0; c < n; c++) {
        kern_put(out + c * t->ldo, acc[c], rows);
    }
}


/* A slice: both halves of the rows, KERN_COLS columns at a time. */
KERN_FN_INLINE void
kern_slice(const kern_tile_t *t, uint32_t width, const int form,
    const int bits, const int scales)
{
    for (uint32_t half = 0; 8 * half < t->rows; half++) {
        for (uint32_t c = 0; c < width; c += KERN_COLS) {
            switch (width - c) {
            case 1: kern_tile(t, half, c, 1, form, bits, scales); break;
            case 2: kern_tile(t, half, c, 2, form, bits, scales); break;
            case 3: kern_tile(t, half, c, 3, form, bits, scales); break;
            default: kern_tile(t, half, c, 4, form, bits, scales); break;
            }
        }
    }
}


KERN_FN_INLINE void
kern_expand(kern_stretch_t *e, const uint8_t *group, uint32_t nb_all,
    uint32_t b, uint32_t nb, const int form, const int scales)
{
    float          *f;
    kern_scales_t   sc;
    const uint8_t  *q;

    for (uint32_t i = 0; i < nb * 2; i++) {
        const uint32_t  at = i / 2, half = i % 2;

        q = group + (b + at) * kern_form_bytes(form);
        f = e->scale[at] + 8 * half;

#pragma GCC unroll 8
        for (uint32_t k = 0; k < 8; k++) {
            _mm256_store_si256((__m256i *) (e->q[at] + 64 * k + 32 * half),
                               kern_weights(q, k, half, form));
        }

        sc = kern_scales(kern_record(group, nb_all, b + at, form, scales),
                         kern_super(group, nb_all, b + at, form, scales),
                         half, 0, scales);
        _mm256_store_ps(f + KERN_X_D, sc.d);
        _mm256_store_ps(f + KERN_X_D1, sc.d1);
        _mm256_store_ps(f + KERN_X_M, sc.m);
        _mm256_store_ps(f + KERN_X_M1, sc.m1);
    }
}


/* The expanded kinds that the types need, by bits and record. */
#define KERN_BYTES(name, bits, scales)                                        \
static void                                                                   \
kern_bytes_##name(const kern_tile_t *t, uint32_t n)                           \
{                                                                             \
    kern_slice(t, n, KERN_FORM_BYTES, bits, scales);                          \
}

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


#define KERN_STAMP(type, form, scales)                                        \
static void                                                                   \
kern_packed_##type(const kern_tile_t *t, uint32_t n)                          \
{                                                                             \
    kern_slice(t, n, form, kern_bits(form), scales);                          \
}                                                                             \
                                                                              \
static void                                                                   \
kern_expand_##type(kern_stretch_t *e, const uint8_t *group, uint32_t nb_all,  \
    uint32_t b, uint32_t nb)                                                  \
{                                                                             \
    kern_expand(e, group, nb_all, b, nb, form, scales);                       \
}                                                                             \
                                                                              \
void                                                                          \
kern_matmul_##type##__avx2(const kern_weight_t *w, const kern_panel_t *p,     \
    float *out, size_t ldo, uint32_t row_begin, uint32_t row_end)             \
{                                                                             \
    kern_int_matmul(w, p, out, ldo, row_begin, row_end, KERN_COLS,            \
                    kern_packed_##type,                                       \
                    kern_bytes[kern_bits(form)]                               \
                              [kern_expanded_scales(scales)],                 \
                    kern_expand_##type, form, scales);                        \
}

KERN_INT_TYPES(KERN_STAMP)
