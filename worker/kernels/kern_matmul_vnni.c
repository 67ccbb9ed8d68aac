/*
 * Integer matrix products for AVX-512 VNNI.  One 16-row group against one
 * slice of up to 8 columns is a tile: its sums stay in registers, a dword of
 * each column is broadcast by the vpdpbusd itself.
 *
 * Up to 8 columns the tile unpacks the weights on its way (one pass over
 * memory, which is what bounds it).  Above, a stretch of the group is first
 * expanded to bytes and float scales in the first-level cache and then meets
 * all slices, so that unpacking is paid once and all types share one loop.
 */
#include <immintrin.h>

#include "worker/kernels/kern_internal.h"

#define KERN_STRETCH    32u     /* blocks expanded at a time: 20 KB */
#define KERN_COLS_PASS  512u    /* columns per pass over the weights */
#define KERN_AHEAD      16384   /* bytes prefetched ahead when streaming */

#define KERN_FN_INLINE  static inline __attribute__((always_inline))

/* How a tile finds its weights; the low values are the packed forms. */
enum {
    KERN_FORM_8 = 0,
    KERN_FORM_4,
    KERN_FORM_5,
    KERN_FORM_BYTES         /* expanded: bytes and float scales */
};

typedef struct {
    uint8_t     q[KERN_STRETCH][512] __attribute__((aligned(64)));
    float       scale[KERN_STRETCH][32];
} kern_stretch_t;

/* One tile: weights and activations of blocks [0, nb). */
typedef struct {
    const uint8_t  *q;          /* packed quants or expanded bytes */
    const uint8_t  *scale;      /* f16 d, min or float d, min */
    const int8_t   *x;
    const float    *d;
    const float    *ds;
    const int32_t  *bias;
    uint32_t        nb;
    const uint8_t  *ahead;      /* start of the memory to prefetch */
    float          *out;
    size_t          ldo;
    __mmask16       rows;
    int             resume;     /* sums continue those in out */
} kern_tile_t;


/* acc += w (unsigned) . dword at p (signed), per lane.  Inline assembly
 * because gcc 12 would load the broadcast into a register and spill. */
#define KERN_DP(acc, w, p)                                                    \
    __asm__ ("vpdpbusd %2%{1to16%}, %1, %0"                                   \
             : "+v" (acc) : "v" (w), "m" (*(const int32_t *) (p)))


/* Vector t of 8 of a block: the bytes of columns 4t..4t+3 of 16 rows. */
KERN_FN_INLINE __m512i
kern_weights(const uint8_t *q, uint32_t t, const int form)
{
    __m512i   v, nibble = _mm512_set1_epi8(15);
    uint64_t  fifth;

    if (form == KERN_FORM_8 || form == KERN_FORM_BYTES) {
        return _mm512_load_si512(q + 64 * t);
    }

    v = _mm512_loadu_si512(q + 64 * (t % 4));
    v = t < 4 ? v : _mm512_srli_epi16(v, 4);
    v = _mm512_and_si512(v, nibble);

    if (form == KERN_FORM_5) {
        memcpy(&fifth, q + 256 + 8 * t, sizeof(fifth));
        v = _mm512_mask_add_epi8(v, _cvtu64_mask64(fifth), v,
                                 _mm512_set1_epi8(16));
    }

    return v;
}


KERN_FN_INLINE size_t
kern_form_bytes(const int form)
{
    return form == KERN_FORM_4 ? 256 : form == KERN_FORM_5 ? 320 : 512;
}


KERN_FN_INLINE void
kern_scales(const uint8_t *s, const int form, const int min, __m512 *d,
    __m512 *m)
{
    if (form == KERN_FORM_BYTES) {
        *d = _mm512_load_ps(s);
        *m = min ? _mm512_load_ps(s + 64) : _mm512_setzero_ps();
        return;
    }

    *d = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) s));
    *m = min ? _mm512_cvtph_ps(_mm256_loadu_si256(
                   (const __m256i *) (s + 32)))
             : _mm512_setzero_ps();
}


/*
 * The tile.  n, form, min, bias are constants after inlining.  Arithmetic
 * per block and column: 8 vpdpbusd, then acc = fma(dot, dw * dx, acc) and
 * acc = fma(min, dx * sum, acc).
 */
KERN_FN_INLINE void
kern_tile(const kern_tile_t *t, const uint32_t n, const int form,
    const int min, const int bias)
{
    size_t          q_bytes = kern_form_bytes(form);
    size_t          s_bytes = form == KERN_FORM_BYTES ? 128
                              : min ? 64 : 32;
    __m512          acc[KERN_SLICE], d, m;
    __m512i         dot[KERN_SLICE], w;
    const float    *dx = t->d, *sx = t->ds;
    const int8_t   *x = t->x;
    const int32_t  *bx = t->bias;
    const uint8_t  *q = t->q, *s = t->scale;
    const char     *ahead = (const char *) t->ahead;

#pragma GCC unroll 8
    for (uint32_t c = 0; c < n; c++) {
        acc[c] = t->resume ? _mm512_maskz_loadu_ps(t->rows,
                                                   t->out + c * t->ldo)
                           : _mm512_setzero_ps();
    }

    for (uint32_t b = t->nb; b > 0; b--) {

        if (n <= 2 && form != KERN_FORM_BYTES) {
            /* one contiguous walk over quants and scales together */
            for (uint32_t i = 0; i < q_bytes + s_bytes; i += 64) {
                _mm_prefetch(ahead + i, _MM_HINT_T0);
            }

            ahead += q_bytes + s_bytes;
        }

#pragma GCC unroll 8
        for (uint32_t c = 0; c < n; c++) {
            dot[c] = bias ? _mm512_set1_epi32(bx[c])
                          : _mm512_setzero_si512();
        }

#pragma GCC unroll 8
        for (uint32_t i = 0; i < 8; i++) {
            /* a nibble vector serves i and i + 4: keep them adjacent */
            const uint32_t  k = i / 2 + i % 2 * 4;

            w = kern_weights(q, k, form);

#pragma GCC unroll 8
            for (uint32_t c = 0; c < n; c++) {
                KERN_DP(dot[c], w, x + 32 * c + 4 * k);
            }
        }

        kern_scales(s, form, min, &d, &m);

#pragma GCC unroll 8
        for (uint32_t c = 0; c < n; c++) {
            acc[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[c]),
                         _mm512_mul_ps(d, _mm512_set1_ps(dx[c])),
                         acc[c]);

            if (min) {
                acc[c] = _mm512_fmadd_ps(m,
                             _mm512_set1_ps(sx[c]), acc[c]);
            }
        }

        q += q_bytes;
        s += s_bytes;
        x += 32 * n;
        dx += n;
        sx += min ? n : 0;
        bx += bias ? n : 0;
    }

#pragma GCC unroll 8
    for (uint32_t c = 0; c < n; c++) {
        _mm512_mask_storeu_ps(t->out + c * t->ldo, t->rows, acc[c]);
    }
}


KERN_FN_INLINE void
kern_tile_any(const kern_tile_t *t, uint32_t n, const int form,
    const int min, const int bias)
{
    switch (n) {
    case 1: kern_tile(t, 1, form, min, bias); break;
    case 2: kern_tile(t, 2, form, min, bias); break;
    case 3: kern_tile(t, 3, form, min, bias); break;
    case 4: kern_tile(t, 4, form, min, bias); break;
    case 5: kern_tile(t, 5, form, min, bias); break;
    case 6: kern_tile(t, 6, form, min, bias); break;
    case 7: kern_tile(t, 7, form, min, bias); break;
    case 8: kern_tile(t, 8, form, min, bias); break;
    }
}


/* Expanded tiles, the loop of large batches: one for all types. */
static __attribute__((noinline)) void
kern_tile_bytes(const kern_tile_t *t, uint32_t n, int min, int bias)
{
    if (min) {
        kern_tile_any(t, n, KERN_FORM_BYTES, 1, 0);
    } else if (bias) {
        kern_tile_any(t, n, KERN_FORM_BYTES, 0, 1);
    } else {
        kern_tile_any(t, n, KERN_FORM_BYTES, 0, 0);
    }
}


/* Points a tile at blocks [b, b + nb) of a slice. */
KERN_FN_INLINE void
kern_tile_slice(kern_tile_t *t, const kern_panel_t *p, uint32_t slice,
    uint32_t width, uint32_t b, int bias_field)
{
    size_t  at = (size_t) b * width;

    t->x = kern_panel_i8(p, slice) + at * KERN_BLOCK;
    t->d = kern_panel_meta(p, KERN_META_D, slice) + at;
    t->ds = kern_panel_meta(p, KERN_META_DS, slice) + at;
    t->bias = bias_field < 0 ? NULL
              : (const int32_t *) kern_panel_meta(p, (uint32_t) bias_field,
                                                  slice) + at;
}


KERN_FN_INLINE __mmask16
kern_row_mask(uint32_t left)
{
    return left >= 16 ? 0xffff : (__mmask16) ((1u << left) - 1);
}


/* All slices of columns [begin, end) against one group, by stretches. */
KERN_FN_INLINE void
kern_group_large(const kern_trait_t *tr, const uint8_t *group,
    const kern_panel_t *p, uint32_t begin, uint32_t end, kern_tile_t *t,
    kern_stretch_t *e, float *out, const int form, const int min)
{
    size_t          q_bytes = kern_form_bytes(form);
    size_t          s_bytes = min ? 64 : 32;
    __m512          d, m;
    uint32_t        nb = p->k / KERN_BLOCK, width;
    const uint8_t  *scale = group + nb * q_bytes;

    for (uint32_t b = 0; b < nb; b += KERN_STRETCH) {
        t->nb = nb - b < KERN_STRETCH ? nb - b : KERN_STRETCH;

        for (uint32_t i = 0; i < t->nb; i++) {
            for (uint32_t k = 0; k < 8; k++) {
                _mm512_store_si512(e->q[i] + 64 * k, kern_weights(
                    group + (b + i) * q_bytes, k, form));
            }

            kern_scales(scale + (b + i) * s_bytes, form, min, &d, &m);
            _mm512_store_ps(e->scale[i], d);
            _mm512_store_ps(e->scale[i] + 16, m);
        }

        t->q = e->q[0];
        t->scale = (const uint8_t *) e->scale[0];
        t->resume = b > 0;

        for (uint32_t s = begin / KERN_SLICE; s * KERN_SLICE < end; s++) {
            width = kern_slice_width(p, s);
            kern_tile_slice(t, p, s, width, b, tr->bias_field);
            t->out = out + (size_t) s * KERN_SLICE * t->ldo;
            kern_tile_bytes(t, width, min, tr->bias_field >= 0);
        }
    }
}


KERN_FN_INLINE void
kern_matmul_vnni(const kern_weight_t *w, const kern_panel_t *p, float *out,
    size_t ldo, uint32_t row_begin, uint32_t row_end, const int form,
    const int min)
{
    size_t               bytes;
    uint32_t             nb = p->k / KERN_BLOCK, end;
    kern_tile_t          t;
    kern_stretch_t       e;
    const uint8_t       *group;
    const kern_trait_t  *tr = &kern_traits[w->type];

    KERN_ASSERT(tr->has_min == min);

    bytes = kern_group_bytes(tr, w->cols);
    t.ldo = ldo;

    if (p->m <= KERN_SLICE) {
        t.nb = nb;
        t.resume = 0;
        kern_tile_slice(&t, p, 0, p->m, 0, tr->bias_field);

        for (uint32_t r = row_begin; r < row_end; r += KERN_ROW_GROUP) {
            group = (const uint8_t *) w->packed + r / KERN_ROW_GROUP * bytes;
            t.q = group;
            t.scale = group + nb * kern_form_bytes(form);
            t.ahead = group + KERN_AHEAD;
            t.out = out + r;
            t.rows = kern_row_mask(row_end - r);
            kern_tile_any(&t, p->m, form, min, form != KERN_FORM_BYTES
                                               && !min);
        }
        return;
    }

    for (uint32_t c = 0; c < p->m; c += KERN_COLS_PASS) {
        end = p->m - c < KERN_COLS_PASS ? p->m : c + KERN_COLS_PASS;

        for (uint32_t r = row_begin; r < row_end; r += KERN_ROW_GROUP) {
            group = (const uint8_t *) w->packed + r / KERN_ROW_GROUP * bytes;
            t.ahead = group;
            t.rows = kern_row_mask(row_end - r);
            kern_group_large(tr, group, p, c, end, &t, &e, out + r, form,
                             min);
        }
    }
}


#define KERN_MATMUL_VNNI(op, form, min)                                       \
void                                                                          \
kern_##op##__vnni(const kern_weight_t *w, const kern_panel_t *p, float *out,  \
    size_t ldo, uint32_t row_begin, uint32_t row_end)                         \
{                                                                             \
    kern_matmul_vnni(w, p, out, ldo, row_begin, row_end, form, min);          \
}

KERN_MATMUL_VNNI(matmul_q8_0, KERN_FORM_8, 0)
KERN_MATMUL_VNNI(matmul_q4_0, KERN_FORM_4, 0)
KERN_MATMUL_VNNI(matmul_q4_1, KERN_FORM_4, 1)
KERN_MATMUL_VNNI(matmul_q5_0, KERN_FORM_5, 0)
KERN_MATMUL_VNNI(matmul_q5_1, KERN_FORM_5, 1)
