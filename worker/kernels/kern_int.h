/*
 * What the integer matrix products of all levels share: the tile, and the walk
 * over groups, stretches and slices.  Private to kern_matmul_<isa>.c.
 *
 * In a small batch a tile unpacks the weights on its way: memory is what
 * bounds it.  In a larger one a stretch of a group is first expanded to bytes
 * and float scales in the first-level cache and then meets all slices, so
 * that unpacking is paid once and all types share the same few loops.  The
 * planes of a panel are two panels to a tile: the lower one's sums go on from
 * the upper one's.
 */
#ifndef KERN_INT_H
#define KERN_INT_H

#include "worker/kernels/kern_form.h"
#include "worker/kernels/kern_internal.h"
#include "worker/kernels/kern_ahead.h"

#define KERN_COLS_PASS  512u    /* columns per pass over the weights */

/* Floats of an expanded block: scales and minima of both halves. */
enum {
    KERN_X_D = 0,
    KERN_X_D1 = 16,
    KERN_X_M = 32,
    KERN_X_M1 = 48,
    KERN_X_N = 64
};

typedef struct {
    uint8_t     q[KERN_STRETCH][512] __attribute__((aligned(64)));
    float       scale[KERN_STRETCH][KERN_X_N];
} kern_stretch_t;

/* The kernel of a level: a slice of columns against a group. */
typedef void (*kern_slice_pt)(const kern_tile_t *t, uint32_t width);
/* Expands blocks [b, b + nb) of a group. */
typedef void (*kern_expand_pt)(kern_stretch_t *e, const uint8_t *group,
    uint32_t nb_all, uint32_t b, uint32_t nb);


/* Points a tile at columns [col, ..) of a slice from block b on. */
static inline void
kern_tile_at(kern_tile_t *t, const kern_trait_t *tr, const kern_panel_t *p,
    uint32_t slice, uint32_t b)
{
    int       halves = kern_has_halves(tr->scales);
    int       field = kern_bias_field(tr->bias, halves);
    size_t    at = (size_t) b * kern_slice_width(p, slice);

    t->stride = kern_slice_width(p, slice);
    t->x = kern_panel_i8(p, slice) + at * KERN_BLOCK;
    t->d = kern_panel_meta(p, KERN_META_D, slice) + at;
    t->ds = kern_panel_meta(p, halves ? KERN_META_DSA : KERN_META_DS, slice)
            + at;
    t->ds1 = kern_panel_meta(p, KERN_META_DSB, slice) + at;
    t->bias = t->bias1 = NULL;

    if (field >= 0) {
        t->bias = (const int32_t *) kern_panel_meta(p, (uint32_t) field,
                                                    slice) + at;
    }

    if (field >= 0 && halves) {
        t->bias1 = (const int32_t *) kern_panel_meta(p, (uint32_t) field + 1,
                                                     slice) + at;
    }
}


/* What a walk over a weight type's groups calls. */
typedef struct {
    const kern_trait_t  *trait;
    kern_slice_pt        packed;    /* unpacks on its way */
    kern_slice_pt        bytes;     /* meets an expanded stretch */
    kern_expand_pt       expand;
} kern_walk_t;


/* Blocks [b, b + t->nb) of a packed group against all columns. */
KERN_FN_INLINE void
kern_int_direct(const kern_walk_t *k, kern_tile_t *t, const kern_panel_t *p,
    const uint8_t *group, uint32_t b, float *out, const int form,
    const int scales)
{
    uint32_t      nb = p->k / KERN_BLOCK;
    kern_panel_t  plane;

    t->q = group + b * kern_form_bytes(form);
    t->scale = kern_record(group, nb, b, form, scales);
    t->super = kern_super(group, nb, b, form, scales);
    t->ahead = kern_ahead_at(t->q, t->end, p->next);
    t->turns = (p->m > KERN_SLICE ? 2 : 1) * (p->plane != 0 ? 2 : 1);
    t->turn = 0;

    for (uint32_t i = 0; kern_panel_plane(p, i, &plane); i++) {
        t->resume = b > 0 || i > 0;

        for (uint32_t s = 0; s * KERN_SLICE < p->m; s++, t->turn++) {
            kern_tile_at(t, k->trait, &plane, s, b);
            t->out = out + (size_t) s * KERN_SLICE * t->ldo;
            k->packed(t, kern_slice_width(p, s));
        }
    }
}


/* The same expanded first, against columns [c, end). */
static inline void
kern_int_stretch(const kern_walk_t *k, kern_tile_t *t, const kern_panel_t *p,
    const uint8_t *group, uint32_t b, uint32_t c, uint32_t end, float *out)
{
    size_t          bytes = kern_group_bytes(k->trait, p->k);
    size_t          part;
    uint32_t        nb = p->k / KERN_BLOCK, passes;
    kern_panel_t    plane;
    kern_stretch_t  e;
    const uint8_t  *at;

    /* The same part of the next group is prefetched meanwhile, a piece by
       each pass; behind the last group comes what the caller reads next. */
    passes = ((end - c + KERN_SLICE - 1) / KERN_SLICE)
             * (p->plane != 0 ? 2 : 1);
    at = group + bytes < t->end ? group + bytes : (const uint8_t *) p->next;
    at += at == NULL ? 0 : bytes * b / nb;
    part = at == NULL ? 0 : (bytes * t->nb / nb / 64 + passes) / passes * 64;

    k->expand(&e, group, nb, b, t->nb);
    t->q = e.q[0];
    t->scale = (const uint8_t *) e.scale[0];
    t->super = NULL;

    for (uint32_t i = 0; kern_panel_plane(p, i, &plane); i++) {
        t->resume = b > 0 || i > 0;

        for (uint32_t s = c / KERN_SLICE; s * KERN_SLICE < end; s++) {
            for (size_t line = 0; line < part; line += 64) {
                __builtin_prefetch(at + line, 0, 2);
            }

            at += part;
            kern_tile_at(t, k->trait, &plane, s, b);
            t->out = out + (size_t) s * KERN_SLICE * t->ldo;
            k->bytes(t, kern_slice_width(p, s));
        }
    }
}


/* All columns of the panel against rows [row_begin, row_end).  `direct` is
 * the most columns that unpack on their way; one plane does so from end to
 * end, two planes meet stretch by stretch in any case. */
KERN_FN_INLINE void
kern_int_matmul(const kern_weight_t *w, const kern_panel_t *p, float *out,
    size_t ldo, uint32_t row_begin, uint32_t row_end, uint32_t direct,
    const kern_walk_t *k, const int form, const int scales)
{
    uint32_t        nb = p->k / KERN_BLOCK, step = KERN_STRETCH, end;
    kern_tile_t     t;
    const uint8_t  *group;

    KERN_ASSERT(k->trait->form == form && k->trait->scales == scales);
    KERN_ASSERT(direct <= 2 * KERN_SLICE);      /* so that turns are 1, 2, 4 */

    t.ldo = ldo;
    t.end = (const uint8_t *) w->packed
            + (row_end - row_begin + KERN_ROW_GROUP - 1) / KERN_ROW_GROUP
              * kern_group_bytes(k->trait, w->cols)
            + row_begin / KERN_ROW_GROUP
              * kern_group_bytes(k->trait, w->cols);

    if (p->m <= direct && p->plane == 0) {
        step = nb;
    }
    direct = form == KERN_FORM_8 ? KERN_COLS_PASS : direct;     /* is bytes */

    for (uint32_t c = 0; c < p->m; c += KERN_COLS_PASS) {
        end = p->m - c < KERN_COLS_PASS ? p->m : c + KERN_COLS_PASS;

        for (uint32_t r = row_begin; r < row_end; r += KERN_ROW_GROUP) {
            group = (const uint8_t *) w->packed + r / KERN_ROW_GROUP
                    * kern_group_bytes(k->trait, w->cols);
            t.rows = row_end - r < 16 ? row_end - r : 16;

            for (uint32_t b = 0; b < nb; b += step) {
                t.nb = nb - b < step ? nb - b : step;

                if (p->m <= direct) {
                    kern_int_direct(k, &t, p, group, b, out + r, form,
                                    scales);
                } else {
                    kern_int_stretch(k, &t, p, group, b, c, end, out + r);
                }
            }
        }
    }
}


/* The types: stamps use KERN_INT_TYPES(KERN_STAMP). */
#define KERN_INT_TYPES(stamp)                                                 \
    stamp(q8_0,   KERN_FORM_8,  KERN_SCALE_D)                                 \
    stamp(q4_0,   KERN_FORM_4,  KERN_SCALE_D)                                 \
    stamp(q4_1,   KERN_FORM_4,  KERN_SCALE_DM)                                \
    stamp(q5_0,   KERN_FORM_5,  KERN_SCALE_D)                                 \
    stamp(q5_1,   KERN_FORM_5,  KERN_SCALE_DM)                                \
    stamp(q2_k,   KERN_FORM_4,  KERN_SCALE_KHM)                               \
    stamp(q3_k,   KERN_FORM_4,  KERN_SCALE_KH)                                \
    stamp(q4_k,   KERN_FORM_4,  KERN_SCALE_KM)                                \
    stamp(q5_k,   KERN_FORM_5,  KERN_SCALE_KM)                                \
    stamp(q6_k,   KERN_FORM_6,  KERN_SCALE_KH)                                \
    stamp(iq4_nl, KERN_FORM_NL, KERN_SCALE_D)                                 \
    stamp(iq4_xs, KERN_FORM_NL, KERN_SCALE_K)

#endif
