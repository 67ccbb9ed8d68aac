/*
 * The scalar level: matrix products in plain C, written to be read, and the
 * row and attention templates over a plain C vector.  It is the reference of
 * the tests and the level of machines without AVX2.
 */
#define KERN_NAME(op)   op##__ref
#define KERN_ATTN_T     1
#define KERN_ATTN_WIDE  1
#define KERN_FULL_Q     2
#define KERN_FULL_G     1

#include "worker/kernels/kern_rows.inc"
#include "worker/kernels/kern_attn.inc"
#include "worker/kernels/kern_full.inc"


/* acc plus the contribution of a block of one row and one column.  Types
 * with scales per 16 take two steps, all others one. */
static float
kern_block_dot(const kern_block_t *b, uint32_t r, const int8_t *x,
    const float *meta, size_t field, int scales, float acc)
{
    float     d = meta[KERN_META_D * field];
    int32_t   dot[2] = { 0, 0 };

    for (uint32_t j = 0; j < KERN_BLOCK; j++) {
        dot[j / 16] += b->q[r][j] * x[j];
    }

    if (!kern_has_halves(scales)) {
        acc = fmaf((float) (dot[0] + dot[1]), b->d[r][0] * d, acc);
        return kern_has_min(scales)
               ? fmaf(b->min[r][0], meta[KERN_META_DS * field], acc) : acc;
    }

    acc = fmaf((float) dot[0], b->d[r][0] * d, acc);
    acc = fmaf((float) dot[1], b->d[r][1] * d, acc);

    if (kern_has_min(scales)) {
        acc = fmaf(b->min[r][0], meta[KERN_META_DSA * field], acc);
        acc = fmaf(b->min[r][1], meta[KERN_META_DSB * field], acc);
    }

    return acc;
}


/* Adds block i of a 16-row group to the sums of all columns of a plane;
 * `first`: they begin here. */
static void
kern_block_int(const kern_weight_t *w, const uint8_t *group,
    const kern_panel_t *p, uint32_t i, int first, float *out, size_t ldo,
    uint32_t rows)
{
    float          acc;
    size_t         at, field = (size_t) p->m * (p->k / KERN_BLOCK);
    uint32_t       slice;
    const float   *meta;
    const int8_t  *x;
    kern_block_t   b;

    kern_block_get(w->type, group, w->cols, i, &b);

    for (uint32_t c = 0; c < p->m; c++) {
        slice = c / KERN_SLICE;
        at = (size_t) i * kern_slice_width(p, slice) + c % KERN_SLICE;
        x = kern_panel_i8(p, slice) + at * KERN_BLOCK;
        meta = kern_panel_meta(p, 0, slice) + at;

        for (uint32_t r = 0; r < rows; r++) {
            acc = first ? 0.0f : out[c * ldo + r];
            out[c * ldo + r] = kern_block_dot(&b, r, x, meta, field,
                                   kern_traits[w->type].scales, acc);
        }
    }
}


/* The dot products of a 16-row group with all columns of the panel: blocks
 * ascending, in stretches that meet one plane after the other. */
static void
kern_group_int(const kern_weight_t *w, const uint8_t *group,
    const kern_panel_t *p, float *out, size_t ldo, uint32_t rows)
{
    uint32_t      end, nb = p->k / KERN_BLOCK;
    kern_panel_t  plane;

    for (uint32_t b = 0; b < nb; b += KERN_STRETCH) {
        end = nb - b < KERN_STRETCH ? nb : b + KERN_STRETCH;

        for (uint32_t n = 0; kern_panel_plane(p, n, &plane); n++) {
            for (uint32_t i = b; i < end; i++) {
                kern_block_int(w, group, &plane, i, i == 0 && n == 0, out,
                               ldo, rows);
            }
        }
    }
}


static void
kern_group_float(const kern_weight_t *w, const uint8_t *group,
    const kern_panel_t *p, float *out, size_t ldo, uint32_t rows)
{
    float         acc;
    uint32_t      width;
    const float  *x;

    for (uint32_t c = 0; c < p->m; c++) {
        width = kern_slice_width(p, c / KERN_SLICE);
        x = kern_panel_f32(p, c / KERN_SLICE) + c % KERN_SLICE;

        for (uint32_t r = 0; r < rows; r++) {
            acc = 0.0f;

            for (uint32_t i = 0; i < w->cols; i++) {
                acc = fmaf(kern_float_get(w->type, group, i, r),
                           x[(size_t) i * width], acc);
            }

            out[c * ldo + r] = acc;
        }
    }
}


static void
kern_matmul_ref(const kern_weight_t *w, const kern_panel_t *p, float *out,
    size_t ldo, uint32_t row_begin, uint32_t row_end)
{
    size_t               group_bytes;
    uint32_t             rows;
    const uint8_t       *group;
    const kern_trait_t  *t = &kern_traits[w->type];

    group_bytes = kern_group_bytes(t, w->cols);

    for (uint32_t r = row_begin; r < row_end; r += KERN_ROW_GROUP) {
        group = (const uint8_t *) w->packed
                + r / KERN_ROW_GROUP * group_bytes;
        rows = row_end - r < KERN_ROW_GROUP ? row_end - r : KERN_ROW_GROUP;

        if (t->form != KERN_FORM_FLOAT) {
            kern_group_int(w, group, p, out + r, ldo, rows);
        } else {
            kern_group_float(w, group, p, out + r, ldo, rows);
        }
    }
}


/* One name per type, because the table has one member per type. */
#define KERN_MATMUL_REF(op)                                                   \
void                                                                          \
kern_##op##__ref(const kern_weight_t *w, const kern_panel_t *p, float *out,   \
    size_t ldo, uint32_t row_begin, uint32_t row_end)                         \
{                                                                             \
    kern_matmul_ref(w, p, out, ldo, row_begin, row_end);                      \
}

KERN_MATMUL_REF(matmul_f32)
KERN_MATMUL_REF(matmul_f16)
KERN_MATMUL_REF(matmul_bf16)
KERN_MATMUL_REF(matmul_q8_0)
KERN_MATMUL_REF(matmul_q4_0)
KERN_MATMUL_REF(matmul_q4_1)
KERN_MATMUL_REF(matmul_q5_0)
KERN_MATMUL_REF(matmul_q5_1)
KERN_MATMUL_REF(matmul_q2_k)
KERN_MATMUL_REF(matmul_q3_k)
KERN_MATMUL_REF(matmul_q4_k)
KERN_MATMUL_REF(matmul_q5_k)
KERN_MATMUL_REF(matmul_q6_k)
KERN_MATMUL_REF(matmul_iq4_nl)
KERN_MATMUL_REF(matmul_iq4_xs)
