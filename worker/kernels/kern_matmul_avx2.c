/*
 * Integer matrix products for AVX2.  A tile is 8 rows (half a packed group)
 * against up to 4 columns.  vpmaddubsw multiplies unsigned weights by signed
 * activations and adds pairs into 16 bits; how many steps may be summed there
 * without saturating decides the three forms:
 *
 *   4 bits  15 * 127 * 2 * 8 steps = 30480: the whole block
 *   5 bits  31 * 127 * 2 * 4 steps = 31496: half a block
 *   8 bits  128 * 127 * 2 = 32512: one step, on |w| and sign(w) x
 *
 * Up to 4 columns weights are unpacked on the way; above, a stretch of the
 * group is first expanded to bytes and float scales in the first-level cache.
 */
#include <immintrin.h>

#include "worker/kernels/kern_internal.h"

#define KERN_STRETCH    32u     /* blocks expanded at a time: 20 KB */
#define KERN_COLS_PASS  512u    /* columns per pass over the weights */
#define KERN_COLS       4u      /* columns per tile */
#define KERN_AHEAD      16384   /* bytes prefetched ahead when streaming */

#define KERN_FN_INLINE  static inline __attribute__((always_inline))

enum {
    KERN_FORM_8 = 0,
    KERN_FORM_4,
    KERN_FORM_5
};

typedef struct {
    uint8_t     q[KERN_STRETCH][512] __attribute__((aligned(64)));
    float       scale[KERN_STRETCH][32];
} kern_stretch_t;

/* One tile: blocks [0, nb), rows 8 half .. 8 half + 7 of the group, columns
 * whose records lie `stride` columns apart from block to block. */
typedef struct {
    const uint8_t  *q;
    const uint8_t  *scale;
    const int8_t   *x;
    const float    *d;
    const float    *ds;
    const int32_t  *bias;
    uint32_t        nb;
    uint32_t        half;
    uint32_t        stride;
    const uint8_t  *ahead;
    float          *out;        /* row 0 of the half */
    size_t          ldo;
    uint32_t        rows;       /* 1..8 */
    int             resume;
} kern_tile_t;


KERN_FN_INLINE size_t
kern_form_bytes(const int form, const int expanded)
{
    return expanded || form == KERN_FORM_8 ? 512
           : form == KERN_FORM_4 ? 256 : 320;
}


/* Vector t of 8, 8 rows: columns 4t..4t+3 as unsigned bytes, or as signed
 * ones for the 8-bit form. */
KERN_FN_INLINE __m256i
kern_weights(const uint8_t *q, uint32_t t, uint32_t half, const int form,
    const int expanded)
{
    __m256i   v, bits;
    uint32_t  fifth;

    if (expanded) {
        return _mm256_load_si256((const __m256i *) (q + 64 * t + 32 * half));
    }

    if (form == KERN_FORM_8) {
        v = _mm256_loadu_si256((const __m256i *) (q + 64 * t + 32 * half));
        return _mm256_xor_si256(v, _mm256_set1_epi8((char) 0x80));
    }

    v = _mm256_loadu_si256((const __m256i *) (q + 64 * (t % 4) + 32 * half));
    v = t < 4 ? v : _mm256_srli_epi16(v, 4);
    v = _mm256_and_si256(v, _mm256_set1_epi8(15));

    if (form == KERN_FORM_5) {
        /* 32 bits to the 0x10 of 32 bytes */
        memcpy(&fifth, q + 256 + 8 * t + 4 * half, sizeof(fifth));
        bits = _mm256_shuffle_epi8(_mm256_set1_epi32((int) fifth),
            _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,
                             2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3));
        bits = _mm256_and_si256(bits, _mm256_set1_epi64x(
                                          (long long) 0x8040201008040201u));
        bits = _mm256_cmpeq_epi8(bits, _mm256_setzero_si256());
        v = _mm256_or_si256(v, _mm256_andnot_si256(bits,
                                                   _mm256_set1_epi8(16)));
    }

    return v;
}


/* Scales and minima of 8 rows. */
KERN_FN_INLINE void
kern_scales(const uint8_t *s, uint32_t half, const int expanded,
    const int min, __m256 *d, __m256 *m)
{
    if (expanded) {
        *d = _mm256_load_ps((const float *) s + 8 * half);
        *m = min ? _mm256_load_ps((const float *) s + 16 + 8 * half)
                 : _mm256_setzero_ps();
        return;
    }

    *d = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) (s + 16 * half)));
    *m = min ? _mm256_cvtph_ps(_mm_loadu_si128(
                   (const __m128i *) (s + 32 + 16 * half)))
             : _mm256_setzero_ps();
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


/* The integer dots of a block with n columns, bias included. */
KERN_FN_INLINE void
kern_dots(const kern_tile_t *t, const uint8_t *q, const int8_t *x,
    const int32_t *bias, __m256i *dot, const uint32_t n, const int form,
    const int expanded, const int biased)
{
    __m256i  sum[KERN_COLS], w, a, v, ones = _mm256_set1_epi16(1);

#pragma GCC unroll 8
    for (uint32_t c = 0; c < n; c++) {
        sum[c] = _mm256_setzero_si256();
        dot[c] = biased && form != KERN_FORM_8 ? _mm256_set1_epi32(bias[c])
                                               : _mm256_setzero_si256();
    }

#pragma GCC unroll 8
    for (uint32_t i = 0; i < 8; i++) {
        const uint32_t  k = form == KERN_FORM_8 ? i : i / 2 + i % 2 * 4;

        w = kern_weights(q, k, t->half, form, expanded);
        a = form == KERN_FORM_8 ? _mm256_abs_epi8(w) : w;

#pragma GCC unroll 8
        for (uint32_t c = 0; c < n; c++) {
            int32_t  word;

            memcpy(&word, x + 32 * c + 4 * k, sizeof(word));
            v = _mm256_set1_epi32(word);

            if (form == KERN_FORM_8) {
                v = _mm256_maddubs_epi16(a, _mm256_sign_epi8(v, w));
                dot[c] = _mm256_add_epi32(dot[c], _mm256_madd_epi16(v, ones));
                continue;
            }

            v = _mm256_maddubs_epi16(a, v);
            sum[c] = i == 0 || (form == KERN_FORM_5 && i == 4)
                     ? v : _mm256_add_epi16(sum[c], v);

            if (i == 7 || (form == KERN_FORM_5 && i == 3)) {
                dot[c] = _mm256_add_epi32(dot[c],
                                          _mm256_madd_epi16(sum[c], ones));
            }
        }
    }
}


/* n, form, expanded, min and biased are constants after inlining. */
KERN_FN_INLINE void
kern_tile(const kern_tile_t *t, const uint32_t n, const int form,
    const int expanded, const int min)
{
    size_t          q_bytes = kern_form_bytes(form, expanded);
    size_t          s_bytes = expanded ? 128 : min ? 64 : 32;
    __m256          acc[KERN_COLS], d, m;
    __m256i         dot[KERN_COLS];
    const int       biased = !min;
    const float    *dx = t->d, *sx = t->ds;
    const char     *ahead = (const char *) t->ahead;
    const int8_t   *x = t->x;
    const int32_t  *bx = t->bias;
    const uint8_t  *q = t->q, *s = t->scale;

#pragma GCC unroll 8
    for (uint32_t c = 0; c < n; c++) {
        acc[c] = t->resume ? kern_take(t->out + c * t->ldo, t->rows)
                           : _mm256_setzero_ps();
    }

    for (uint32_t b = t->nb; b > 0; b--) {

        if (n <= 2 && !expanded && t->half == 0) {
            for (uint32_t i = 0; i < q_bytes + s_bytes; i += 64) {
                _mm_prefetch(ahead + i, _MM_HINT_T0);
            }

            ahead += q_bytes + s_bytes;
        }

        kern_dots(t, q, x, bx, dot, n, form, expanded, biased);
        kern_scales(s, t->half, expanded, min, &d, &m);

#pragma GCC unroll 8
        for (uint32_t c = 0; c < n; c++) {
            acc[c] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[c]),
                         _mm256_mul_ps(d, _mm256_set1_ps(dx[c])), acc[c]);

            if (min) {
                acc[c] = _mm256_fmadd_ps(m, _mm256_set1_ps(sx[c]), acc[c]);
            }
        }

        q += q_bytes;
        s += s_bytes;
        x += 32 * t->stride;
        dx += t->stride;
        sx += t->stride;
        bx += biased ? t->stride : 0;
    }

#pragma GCC unroll 8
    for (uint32_t c = 0; c < n; c++) {
        kern_put(t->out + c * t->ldo, acc[c], t->rows);
    }
}


KERN_FN_INLINE void
kern_tile_any(const kern_tile_t *t, uint32_t n, const int form,
    const int expanded, const int min)
{
    switch (n) {
    case 1: kern_tile(t, 1, form, expanded, min); break;
    case 2: kern_tile(t, 2, form, expanded, min); break;
    case 3: kern_tile(t, 3, form, expanded, min); break;
    case 4: kern_tile(t, 4, form, expanded, min); break;
    }
}


/* Both halves of the group's rows against all columns of a slice, from
 * block b on. */
KERN_FN_INLINE void
kern_slice(kern_tile_t *t, const kern_panel_t *p, uint32_t slice, uint32_t b,
    int bias_field, float *out, uint32_t rows, const int form,
    const int expanded, const int min)
{
    size_t    at;
    uint32_t  width = kern_slice_width(p, slice), n;

    t->stride = width;

    for (uint32_t half = 0; half * 8 < rows; half++) {
        t->half = half;
        t->rows = rows - half * 8 < 8 ? rows - half * 8 : 8;

        for (uint32_t c = 0; c < width; c += KERN_COLS) {
            n = width - c < KERN_COLS ? width - c : KERN_COLS;
            at = (size_t) b * width + c;
            t->x = kern_panel_i8(p, slice) + at * KERN_BLOCK;
            t->d = kern_panel_meta(p, KERN_META_D, slice) + at;
            t->ds = kern_panel_meta(p, KERN_META_DS, slice) + at;
            t->bias = bias_field < 0 ? NULL
                      : (const int32_t *) kern_panel_meta(p,
                            (uint32_t) bias_field, slice) + at;
            t->out = out + ((size_t) slice * KERN_SLICE + c) * t->ldo
                     + half * 8;
            kern_tile_any(t, n, form, expanded, min);
        }
    }
}


/* All slices of columns [begin, end) against one group, by stretches. */
KERN_FN_INLINE void
kern_group_large(const kern_trait_t *tr, const uint8_t *group,
    const kern_panel_t *p, uint32_t begin, uint32_t end, kern_tile_t *t,
    kern_stretch_t *e, float *out, uint32_t rows, const int form,
    const int min)
{
    size_t          q_bytes = kern_form_bytes(form, 0);
    size_t          s_bytes = min ? 64 : 32;
    __m256          d, m;
    uint32_t        nb = p->k / KERN_BLOCK;
    const uint8_t  *scale = group + nb * q_bytes;

    for (uint32_t b = 0; b < nb; b += KERN_STRETCH) {
        t->nb = nb - b < KERN_STRETCH ? nb - b : KERN_STRETCH;

        for (uint32_t i = 0; i < t->nb * 2; i++) {
            uint32_t  at = i / 2, half = i % 2;

            for (uint32_t k = 0; k < 8; k++) {
                _mm256_store_si256((__m256i *) (e->q[at] + 64 * k + 32 * half),
                    kern_weights(group + (b + at) * q_bytes, k, half, form,
                                 0));
            }

            kern_scales(scale + (b + at) * s_bytes, half, 0, min, &d, &m);
            _mm256_store_ps(e->scale[at] + 8 * half, d);
            _mm256_store_ps(e->scale[at] + 16 + 8 * half, m);
        }

        t->q = e->q[0];
        t->scale = (const uint8_t *) e->scale[0];
        t->resume = b > 0;

        for (uint32_t s = begin / KERN_SLICE; s * KERN_SLICE < end; s++) {
            kern_slice(t, p, s, b, tr->bias_field, out, rows, form, 1, min);
        }
    }
}


KERN_FN_INLINE void
kern_matmul_avx2(const kern_weight_t *w, const kern_panel_t *p, float *out,
    size_t ldo, uint32_t row_begin, uint32_t row_end, const int form,
    const int min)
{
    size_t               bytes;
    uint32_t             nb = p->k / KERN_BLOCK, end, rows;
    kern_tile_t          t;
    kern_stretch_t       e;
    const uint8_t       *group;
    const kern_trait_t  *tr = &kern_traits[w->type];

    KERN_ASSERT(tr->has_min == min);

    bytes = kern_group_bytes(tr, w->cols);
    t.ldo = ldo;

    for (uint32_t c = 0; c < p->m; c += KERN_COLS_PASS) {
        end = p->m - c < KERN_COLS_PASS ? p->m : c + KERN_COLS_PASS;

        for (uint32_t r = row_begin; r < row_end; r += KERN_ROW_GROUP) {
            group = (const uint8_t *) w->packed + r / KERN_ROW_GROUP * bytes;
            rows = row_end - r < 16 ? row_end - r : 16;
            t.ahead = group + KERN_AHEAD;

            if (p->m > KERN_COLS) {
                kern_group_large(tr, group, p, c, end, &t, &e, out + r, rows,
                                 form, min);
                continue;
            }

            t.nb = nb;
            t.resume = 0;
            t.q = group;
            t.scale = group + nb * kern_form_bytes(form, 0);
            kern_slice(&t, p, 0, 0, tr->bias_field, out + r, rows, form, 0,
                       min);
        }
    }
}


#define KERN_MATMUL_AVX2(op, form, min)                                       \
void                                                                          \
kern_##op##__avx2(const kern_weight_t *w, const kern_panel_t *p, float *out,  \
    size_t ldo, uint32_t row_begin, uint32_t row_end)                         \
{                                                                             \
    kern_matmul_avx2(w, p, out, ldo, row_begin, row_end, form, min);          \
}

KERN_MATMUL_AVX2(matmul_q8_0, KERN_FORM_8, 0)
KERN_MATMUL_AVX2(matmul_q4_0, KERN_FORM_4, 0)
KERN_MATMUL_AVX2(matmul_q4_1, KERN_FORM_4, 1)
KERN_MATMUL_AVX2(matmul_q5_0, KERN_FORM_5, 0)
KERN_MATMUL_AVX2(matmul_q5_1, KERN_FORM_5, 1)
