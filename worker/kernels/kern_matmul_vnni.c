/*
 * Integer matrix products for AVX-512 VNNI.  One 16-row group against one
 * slice of up to 8 columns is a tile: its sums stay in registers, a dword of
 * each column is broadcast by the vpdpbusd itself.  The walk is kern_int.h's.
 */
#include <immintrin.h>

#include "worker/kernels/kern_int.h"

/* acc += w (unsigned) . dword at p (signed), per lane.  Inline assembly
 * because gcc 12 would load the broadcast into a register and spill. */
#define KERN_DP(acc, w, p)                                                    \
    __asm__ ("vpdpbusd %2%{1to16%}, %1, %0"                                   \
             : "+v" (acc) : "v" (w), "m" (*(const int32_t *) (p)))

/* Scales and minima of a block's halves; the second ones may be unused. */
typedef struct {
    __m512  d, d1, m, m1;
} kern_scales_t;


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
kern_weights(const uint8_t *q, uint32_t t, const int form)
{
    __m512i   v;
    uint64_t  fifth;

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


KERN_FN_INLINE __m512
kern_halfs(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p));
}


KERN_FN_INLINE __m512
kern_signed(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(
        (const __m128i *) p)));
}


/* -(dmin * mn) */
KERN_FN_INLINE __m512
kern_minimum(__m512 dmin, const uint8_t *p)
{
    __m512  m = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(
                    (const __m128i *) p)));

    return _mm512_xor_ps(_mm512_mul_ps(dmin, m), _mm512_set1_ps(-0.0f));
}


KERN_FN_INLINE kern_scales_t
kern_scales(const uint8_t *s, const uint8_t *super, const int expanded,
    const int scales)
{
    __m512          d, dmin;
    const float    *f = (const float *) s;
    kern_scales_t   r;

    r.d = r.d1 = r.m = r.m1 = _mm512_setzero_ps();

    if (expanded) {
        r.d = _mm512_load_ps(f + KERN_X_D);

        if (kern_has_halves(scales)) {
            r.d1 = _mm512_load_ps(f + KERN_X_D1);
            r.m1 = kern_has_min(scales) ? _mm512_load_ps(f + KERN_X_M1)
                                        : r.m1;
        }

        r.m = kern_has_min(scales) ? _mm512_load_ps(f + KERN_X_M) : r.m;
        return r;
    }

    if (scales == KERN_SCALE_D || scales == KERN_SCALE_DM) {
        r.d = kern_halfs(s);
        r.m = scales == KERN_SCALE_DM ? kern_halfs(s + 32) : r.m;
        return r;
    }

    d = kern_halfs(super);
    r.d = _mm512_mul_ps(d, kern_signed(s));

    if (kern_has_halves(scales)) {
        r.d1 = _mm512_mul_ps(d, kern_signed(s + 16));
    }

    if (kern_has_min(scales)) {
        dmin = kern_halfs(super + 32);
        r.m = kern_minimum(dmin, s + (kern_has_halves(scales) ? 32 : 16));
        r.m1 = kern_has_halves(scales) ? kern_minimum(dmin, s + 48) : r.m1;
    }

    return r;
}


/* The dot products of a block with n columns; with halves those of its upper
 * 16 columns go to dot1. */
KERN_FN_INLINE void
kern_dots(__m512i *dot, __m512i *dot1, const uint8_t *q, const int8_t *x,
    const uint32_t n, const int form, const int halves)
{
    __m512i  w;

#pragma GCC unroll 8
    for (uint32_t i = 0; i < 8; i++) {
        /* a nibble vector serves k and k + 4: keep them adjacent */
        const uint32_t  k = i / 2 + i % 2 * 4;

        w = kern_weights(q, k, form);

#pragma GCC unroll 8
        for (uint32_t c = 0; c < n; c++) {
            if (halves && k >= 4) {
                KERN_DP(dot1[c], w, x + 32 * c + 4 * k);
            } else {
                KERN_DP(dot[c], w, x + 32 * c + 4 * k);
            }
        }
    }
}


/* A block's dots, scaled, and its minima to the sums of n columns. */
KERN_FN_INLINE void
kern_scaled(__m512 *acc, const __m512i *dot, const __m512i *dot1,
    kern_scales_t sc, const float *d, const float *ds, const float *ds1,
    const uint32_t n, const int scales)
{
    __m512     dx;
    const int  halves = kern_has_halves(scales);
    const int  min = kern_has_min(scales);

#pragma GCC unroll 8
    for (uint32_t c = 0; c < n; c++) {
        dx = _mm512_set1_ps(d[c]);
        acc[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[c]),
                                 _mm512_mul_ps(sc.d, dx), acc[c]);

        if (halves) {
            acc[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot1[c]),
                                     _mm512_mul_ps(sc.d1, dx), acc[c]);
        }

        if (min) {
            acc[c] = _mm512_fmadd_ps(sc.m, _mm512_set1_ps(ds[c]), acc[c]);
        }

        if (min && halves) {
            acc[c] = _mm512_fmadd_ps(sc.m1, _mm512_set1_ps(ds1[c]), acc[c]);
        }
    }
}


/*
 * The tile.  n, form, scales are constants after inlining.  Arithmetic per
 * block and column: 8 vpdpbusd, then acc = fma(dot, dw * dx, acc) and
 * acc = fma(min, dx * sum, acc), each once per half where scales are.
 */
KERN_FN_INLINE void
kern_tile(const kern_tile_t *t, const uint32_t n, const int form,
    const int scales)
{
    size_t          q_bytes = kern_form_bytes(form), s_bytes;
    const int       expanded = form == KERN_FORM_BYTES;
    const int       halves = kern_has_halves(scales);
    const int       min = kern_has_min(scales);
    __m512          acc[KERN_SLICE];
    __m512i         dot[KERN_SLICE], dot1[KERN_SLICE];
    __mmask16       rows = (__mmask16) ((1u << t->rows) - 1);
    kern_scales_t   sc;
    const float    *d = t->d, *ds = t->ds, *ds1 = t->ds1;
    const char     *ahead = (const char *) t->ahead;
    const int8_t   *x = t->x;
    const int32_t  *bias = t->bias, *bias1 = t->bias1;
    const uint8_t  *q = t->q, *s = t->scale, *super = t->super;

    s_bytes = expanded ? KERN_X_N * sizeof(float) : kern_record_bytes(scales);

#pragma GCC unroll 8
    for (uint32_t c = 0; c < n; c++) {
        acc[c] = t->resume ? _mm512_maskz_loadu_ps(rows, t->out + c * t->ldo)
                           : _mm512_setzero_ps();
    }

    for (uint32_t b = 0; b < t->nb; b++) {

        if (n <= 2 && !expanded) {
            ahead = kern_ahead(ahead, q_bytes + s_bytes);
        }

#pragma GCC unroll 8
        for (uint32_t c = 0; c < n; c++) {
            dot[c] = min ? _mm512_setzero_si512()
                         : _mm512_set1_epi32(bias[c]);
            dot1[c] = min || !halves ? _mm512_setzero_si512()
                                     : _mm512_set1_epi32(bias1[c]);
        }

        kern_dots(dot, dot1, q, x, n, form, halves);
        sc = kern_scales(s, super, expanded, scales);
        kern_scaled(acc, dot, dot1, sc, d, ds, ds1, n, scales);

        q += q_bytes;
        s += s_bytes;
        x += 32 * n;
        d += n;
        ds += n;
        ds1 += n;
        bias += min ? 0 : n;
        bias1 += halves && !min ? n : 0;

        if (!expanded && b % 8 == 7) {
            super += kern_super_bytes(scales);
        }
    }

#pragma GCC unroll 8
    for (uint32_t c = 0; c < n; c++) {
        _mm512_mask_storeu_ps(t->out + c * t->ldo, rows, acc[c]);
    }
}


KERN_FN_INLINE void
kern_tile_any(const kern_tile_t *t, uint32_t n, const int form,
    const int scales)
{
    switch (n) {
    case 1: kern_tile(t, 1, form, scales); break;
    case 2: kern_tile(t, 2, form, scales); break;
    case 3: kern_tile(t, 3, form, scales); break;
    case 4: kern_tile(t, 4, form, scales); break;
    case 5: kern_tile(t, 5, form, scales); break;
    case 6: kern_tile(t, 6, form, scales); break;
    case 7: kern_tile(t, 7, form, scales); break;
    case 8: kern_tile(t, 8, form, scales); break;
    }
}


/* Tiles of expanded weights: one function per kind of record. */
#define KERN_BYTES(scales)                                                    \
static void                                                                   \
kern_bytes_##scales(const kern_tile_t *t, uint32_t n)                         \
{                                                                             \
    kern_tile_any(t, n, KERN_FORM_BYTES, scales);                             \
}

KERN_BYTES(KERN_SCALE_D)
KERN_BYTES(KERN_SCALE_DM)
KERN_BYTES(KERN_SCALE_KH)
KERN_BYTES(KERN_SCALE_KHM)

static const kern_slice_pt  kern_bytes[] = {
    [KERN_SCALE_D] = kern_bytes_KERN_SCALE_D,
    [KERN_SCALE_DM] = kern_bytes_KERN_SCALE_DM,
    [KERN_SCALE_KH] = kern_bytes_KERN_SCALE_KH,
    [KERN_SCALE_KHM] = kern_bytes_KERN_SCALE_KHM,
};


KERN_FN_INLINE void
kern_expand(kern_stretch_t *e, const uint8_t *group, uint32_t nb_all,
    uint32_t b, uint32_t nb, const int form, const int scales)
{
    float          *f;
    kern_scales_t   sc;
    const uint8_t  *q;

    for (uint32_t i = 0; i < nb; i++) {
        q = group + (b + i) * kern_form_bytes(form);
        f = e->scale[i];

#pragma GCC unroll 8
        for (uint32_t k = 0; k < 8; k++) {
            _mm512_store_si512(e->q[i] + 64 * k, kern_weights(q, k, form));
        }

        sc = kern_scales(kern_record(group, nb_all, b + i, form, scales),
                         kern_super(group, nb_all, b + i, form, scales), 0,
                         scales);
        _mm512_store_ps(f + KERN_X_D, sc.d);
        _mm512_store_ps(f + KERN_X_D1, sc.d1);
        _mm512_store_ps(f + KERN_X_M, sc.m);
        _mm512_store_ps(f + KERN_X_M1, sc.m1);
    }
}


#define KERN_STAMP(type, form, scales)                                        \
static void                                                                   \
kern_packed_##type(const kern_tile_t *t, uint32_t n)                          \
{                                                                             \
    kern_tile_any(t, n, form, scales);                                        \
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
kern_matmul_##type##__vnni(const kern_weight_t *w, const kern_panel_t *p,     \
    float *out, size_t ldo, uint32_t row_begin, uint32_t row_end)             \
{                                                                             \
    kern_int_matmul(w, p, out, ldo, row_begin, row_end, 2 * KERN_SLICE,      \
                    kern_packed_##type,                                       \
                    kern_bytes[kern_expanded_scales(scales)],                 \
                    kern_expand_##type, form, scales);                        \
}

KERN_INT_TYPES(KERN_STAMP)
