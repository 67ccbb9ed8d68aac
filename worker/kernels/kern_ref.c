/*
 * The scalar level: matrix products in plain C, written to be read, and the
 * row and attention templates over a plain C vector.  It is the reference of
 * the tests and the level of machines without AVX2.
 */
#define KERN_NAME(op)   op##__ref
#define KERN_ATTN_T     1
#define KERN_ATTN_WIDE  1

#include "worker/kernels/kern_rows.inc"
#include "worker/kernels/kern_attn.inc"


/* The dot products of a 16-row group with all columns of the panel. */
static void
kern_group_int(const kern_weight_t *w, const uint8_t *group,
    const kern_panel_t *p, float *out, size_t ldo, uint32_t rows)
{
    float                d, ds, acc;
    int32_t              dot;
    size_t               at;
    uint32_t             slice, width;
    const int8_t        *x;
    kern_block_t         b;
    const kern_trait_t  *t = &kern_traits[w->type];

    for (uint32_t i = 0; i < p->k / KERN_BLOCK; i++) {
        kern_block_get(w->type, group, w->cols, i, &b);

        for (uint32_t c = 0; c < p->m; c++) {
            slice = c / KERN_SLICE;
            width = kern_slice_width(p, slice);
            at = (size_t) i * width + c % KERN_SLICE;
            x = kern_panel_i8(p, slice) + at * KERN_BLOCK;
            d = kern_panel_meta(p, KERN_META_D, slice)[at];
            ds = kern_panel_meta(p, KERN_META_DS, slice)[at];

            for (uint32_t r = 0; r < rows; r++) {
                dot = 0;

                for (uint32_t j = 0; j < KERN_BLOCK; j++) {
                    dot += (b.q[r][j] - t->bias) * x[j];
                }

                acc = i == 0 ? 0.0f : out[c * ldo + r];
                acc = fmaf((float) dot, b.d[r] * d, acc);
                acc = t->has_min ? fmaf(b.min[r], ds, acc) : acc;
                out[c * ldo + r] = acc;
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

        if (t->kind == KERN_PANEL_I8) {
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
