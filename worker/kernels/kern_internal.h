/*
 * Shared inside worker/kernels/ and by its tests: the table of kernels, the
 * layouts of packed matrices and panels, and the scalar view of a packed
 * block that the reference and the row look-up use.
 *
 * Packed matrix: groups of 16 rows, each kern_group_bytes().
 *   Integer types: first the quants of all blocks (32 columns each), then
 *   the scales of all blocks, padded to 64 bytes.
 *     8-bit: 8 vectors of 16 dwords; vector t, lane r = columns 4t..4t+3 of
 *            row r, as unsigned bytes w + 128.
 *     4-bit: 4 vectors; vector t, lane r = bytes 4t..4t+3 of row r's GGUF
 *            block: low nibbles are columns 4t.., high nibbles 16 + 4t..
 *     5-bit: as 4-bit, then 8 words of 64 bits: bit 4r + j of word t = the
 *            fifth bit of column 4t + j of row r.
 *     scales: 16 f16 d, then 16 f16 minima where the type has them.
 *   Float types: [cols][16] elements.
 *
 * Panel: columns in slices of 8, the last one narrower (w = its columns).
 *   Slice s starts at column 8 s; value order inside is [block][w][32 bytes]
 *   for int8 and [k][w] for floats.  meta has KERN_META_N fields, each
 *   [slice][block][w].
 */
#ifndef KERN_INTERNAL_H
#define KERN_INTERNAL_H

#include "worker/kernels/kern.h"
#include "worker/kernels/kern_f16.h"

#define KERN_SLICE      8u      /* columns per slice of a panel */

/* Stays on in release; the process that asserts dies and is replaced. */
#define KERN_ASSERT(c)                                                        \
    do {                                                                      \
        if (__builtin_expect(!(c), 0)) {                                      \
            kern_assert_failed(#c, __FILE__, __LINE__);                       \
        }                                                                     \
    } while (0)

_Noreturn void kern_assert_failed(const char *expr, const char *file,
    int line);

/* Fields of a panel's meta, floats or int32 in the same 4 bytes. */
enum {
    KERN_META_D = 0,            /* scale d */
    KERN_META_DS,               /* d * sum of the 32 int8 */
    KERN_META_N8,               /* -8 * sum, int32: bias of 4-bit types */
    KERN_META_N16,              /* -16 * sum, int32: bias of 5-bit types */
    KERN_META_N128,             /* -128 * sum, int32: bias of 8-bit types */
    KERN_META_N
};

/* Static facts of a weight type. */
typedef struct {
    const char         *name;
    uint16_t            gguf_elems;
    uint16_t            gguf_bytes;
    uint8_t             supported;
    kern_panel_kind_t   kind;
    uint8_t             quant_bytes;    /* packed, per block and row */
    uint8_t             scale_bytes;    /* packed, per block and row */
    int16_t             bias;           /* value = q - bias */
    int8_t              bias_field;     /* meta field, -1: none */
    uint8_t             has_min;
} kern_trait_t;

extern const kern_trait_t  kern_traits[KERN_WTYPE_N];

/* Bytes of one packed 16-row group; cols is a checked multiple of 32. */
static inline size_t
kern_group_bytes(const kern_trait_t *t, uint32_t cols)
{
    size_t  n = (size_t) cols / KERN_BLOCK * KERN_ROW_GROUP
                * ((size_t) t->quant_bytes + t->scale_bytes);

    return (n + KERN_ALIGN - 1) & ~((size_t) KERN_ALIGN - 1);
}

/* One packed block as the reference sees it. */
typedef struct {
    uint8_t     q[KERN_ROW_GROUP][KERN_BLOCK];
    float       d[KERN_ROW_GROUP];
    float       min[KERN_ROW_GROUP];    /* 0 where the type has none */
} kern_block_t;

void kern_block_get(kern_wtype_t type, const uint8_t *group, uint32_t cols,
    uint32_t block, kern_block_t *out);

/* Element [col][row] of a packed float group. */
float kern_float_get(kern_wtype_t type, const uint8_t *group, uint32_t col,
    uint32_t row);

/* Start of a slice's values and of a meta field. */
static inline const int8_t *
kern_panel_i8(const kern_panel_t *p, uint32_t slice)
{
    return (const int8_t *) p->data + (size_t) slice * KERN_SLICE * p->k;
}

static inline float *
kern_panel_f32(const kern_panel_t *p, uint32_t slice)
{
    return (float *) p->data + (size_t) slice * KERN_SLICE * p->k;
}

static inline float *
kern_panel_meta(const kern_panel_t *p, uint32_t field, uint32_t slice)
{
    size_t  nb = p->k / KERN_BLOCK;

    return p->meta + (size_t) field * p->m * nb
           + (size_t) slice * KERN_SLICE * nb;
}

static inline uint32_t
kern_slice_width(const kern_panel_t *p, uint32_t slice)
{
    uint32_t  left = p->m - slice * KERN_SLICE;

    return left < KERN_SLICE ? left : KERN_SLICE;
}


/* The table.  Signatures of the kernels; preconditions are asserted by the
 * public functions in kern_dispatch.c, once per call. */

typedef void (*kern_matmul_pt)(const kern_weight_t *w, const kern_panel_t *p,
    float *out, size_t ldo, uint32_t row_begin, uint32_t row_end);
typedef void (*kern_quant_pt)(const kern_panel_t *p, uint32_t col,
    const float *x);
typedef void (*kern_quant_rmsnorm_pt)(const kern_panel_t *p, uint32_t col,
    const float *x, const float *w, float eps);
typedef void (*kern_quant_glu_pt)(const kern_panel_t *p, uint32_t col,
    kern_act_t act, const float *gate, const float *up);
typedef void (*kern_rmsnorm_pt)(float *y, const float *x, const float *w,
    uint32_t n, float eps);
typedef void (*kern_layernorm_pt)(float *y, const float *x, const float *w,
    const float *b, uint32_t n, float eps);
typedef void (*kern_add_pt)(float *y, const float *a, const float *b,
    uint32_t n);
typedef void (*kern_scale_pt)(float *y, const float *x, float s, uint32_t n);
typedef void (*kern_act_pt)(kern_act_t act, float *y, const float *x,
    uint32_t n);
typedef void (*kern_glu_pt)(kern_act_t act, float *y, const float *gate,
    const float *up, uint32_t n);
typedef void (*kern_rope_pt)(kern_rope_t order, float *x, uint32_t n_head,
    uint32_t head_dim, uint32_t rot_dim, const float *cs, const float *sn);
/* Largest value, NaN ignored; -inf if there is none. */
typedef float (*kern_max_pt)(const float *x, uint32_t n);
typedef float (*kern_logsumexp_pt)(const float *x, uint32_t n);
typedef void (*kern_softmax_pt)(float *y, const float *x, uint32_t n);
typedef void (*kern_kv_append_pt)(kern_kvtype_t type, void *page,
    uint32_t slot, uint32_t n_kv_head, uint32_t head_dim, const float *k,
    const float *v);
typedef void (*kern_attn_pt)(const kern_attn_t *a, uint32_t kvh,
    uint32_t q_begin, uint32_t q_end);

/* One member per operation; matmul_<type> members per weight type. */
typedef struct {
#define KERN_OP(op, type)               kern_##type##_pt op;
#define KERN_FN(op, isa, fn)
#include "worker/kernels/kern_list.inc"
#undef KERN_OP
#undef KERN_FN
} kern_ops_t;

extern kern_ops_t  kern_ops;

/* The table of one level: a kernel that a level lacks comes from the level
 * below.  Returns 0, or KERN_E_ISA. */
int kern_ops_of(kern_isa_t level, kern_ops_t *ops);

/* Prototypes of all listed kernels. */
#define KERN_OP(op, type)
#define KERN_FN(op, isa, fn)            extern __typeof__(*kern_ops.op) fn;
#include "worker/kernels/kern_list.inc"
#undef KERN_OP
#undef KERN_FN

#endif
