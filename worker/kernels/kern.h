/*
 * Kernels: the arithmetic of a forward pass on one CPU.  Packing of weight
 * matrices, quantisation of activations, matrix products, norms, rotary
 * embedding, attention over a paged key/value cache, and the vector work of
 * sampling.  What it is not: no files, no threads, no allocation, no model
 * knowledge.  Every function is thread-safe as long as the written ranges of
 * concurrent calls do not overlap; only inference workers, their tools and
 * tests call it.
 *
 * One table of kernels is chosen by kern_init() from the CPU's features.
 * Every level computes every output element by the same sequence of IEEE
 * operations (fused where written fused, fixed reduction order), so a result
 * depends neither on the batch size m, nor on the position in the batch, nor
 * on the split over threads, nor on the chosen level: all are bitwise equal.
 * Two exceptions: kern_sgemm(), which says so, and products of bfloat16 at
 * level BF16, whose instruction takes numbers below 2^-126 for zero.
 *
 * Notation: x[m][n] is row-major, n contiguous; "ld" is a row's stride in
 * elements; k is the inner length of a product and a multiple of 32.
 */
#ifndef KERN_H
#define KERN_H

#include <stddef.h>
#include <stdint.h>

/* Errors of the functions that meet foreign sizes or types. */
#define KERN_OK          0
#define KERN_E_TYPE     -1      /* weight type without kernels */
#define KERN_E_SHAPE    -2      /* rows, cols: 0, too large, not a multiple */
#define KERN_E_ISA      -3      /* level unknown or not offered by this CPU */

#define KERN_BLOCK      32u     /* k elements per activation scale */
#define KERN_ROW_GROUP  16u     /* rows interleaved in the packed layout */
#define KERN_ROWS_MAX   (1u << 24)
#define KERN_COLS_MAX   (1u << 17)
#define KERN_BATCH_MAX  (1u << 14)
#define KERN_HEAD_MAX   256u    /* head_dim */
#define KERN_KV_PAGE    32u     /* tokens per key/value page */
#define KERN_ALIGN      64u     /* of packed matrices, panels, kv pages */

/* Levels and dispatch. */

typedef enum {
    KERN_ISA_AUTO = 0,          /* best of this CPU; INFER_KERN_ISA lowers it */
    KERN_ISA_SCALAR,
    KERN_ISA_AVX2,              /* avx2, fma, f16c */
    KERN_ISA_AVXVNNI,           /* avx2 and avx_vnni */
    KERN_ISA_AVX512,            /* avx512 f, bw, vl, dq */
    KERN_ISA_VNNI,              /* avx512 and avx512_vnni */
    KERN_ISA_BF16,              /* vnni and avx512_bf16; AUTO takes it where
                                   it is known to be faster */
    KERN_ISA_N
} kern_isa_t;

/* Chooses the table; call once before any other function, before threads.
 * May be called again in tests.  KERN_E_ISA leaves the table as it was. */
int kern_init(kern_isa_t level);

/* The level in use; its name: "scalar", "avx2", "avxvnni" ... */
kern_isa_t kern_isa(void);
const char *kern_isa_name(kern_isa_t level);

int kern_isa_supported(kern_isa_t level);   /* by CPU and system: 0 or 1 */

/* Identifies the packed and kv layouts, the same for all levels of this
 * build; a prepared file that carries another value must be made again. */
uint32_t kern_layout_id(void);


/* Weight types.  The values are ours (not GGUF's) and part of the layout. */

typedef enum {
    KERN_F32 = 0,
    KERN_F16,
    KERN_BF16,
    KERN_Q8_0,
    KERN_Q4_0,
    KERN_Q4_1,
    KERN_Q5_0,
    KERN_Q5_1,
    KERN_Q2_K,
    KERN_Q3_K,
    KERN_Q4_K,
    KERN_Q5_K,
    KERN_Q6_K,
    KERN_IQ4_NL,
    KERN_IQ4_XS,
    KERN_WTYPE_N
} kern_wtype_t;

typedef struct {
    kern_wtype_t    type;
    uint32_t        rows;       /* outputs, any number */
    uint32_t        cols;       /* inputs k */
    const void     *packed;     /* kern_packed_bytes(), KERN_ALIGN aligned */
} kern_weight_t;

/* 1 if the type can be packed and multiplied; "Q4_1" and so on. */
int kern_wtype_supported(kern_wtype_t type);
const char *kern_wtype_name(kern_wtype_t type);

/* GGUF storage of one row: elements and bytes per block, bytes per row
 * (0 if the type is unknown or cols is not a multiple of the block). */
uint32_t kern_gguf_block_elems(kern_wtype_t type);
uint32_t kern_gguf_block_bytes(kern_wtype_t type);
size_t kern_gguf_row_bytes(kern_wtype_t type, uint32_t cols);

/* One GGUF row (n elements) to floats.  For tables that stay unpacked. */
void kern_gguf_row_f32(kern_wtype_t type, const void *row, uint32_t n,
    float *out);

/* Bytes of a packed matrix, rows padded to whole groups; 0 if the type or
 * shape is not supported or the size overflows.  Shapes come from files, so
 * this is the door: a non-zero answer makes kern_pack() and kern_matmul()
 * safe for that shape. */
size_t kern_packed_bytes(kern_wtype_t type, uint32_t rows, uint32_t cols);

/* Byte range [*begin, *end) of dst that the rows [row_begin, row_end) of a
 * packed matrix occupy: matrices may be concatenated by rows (q|k|v, gate|up)
 * when each part's rows are a multiple of KERN_ROW_GROUP. */
void kern_packed_range(kern_wtype_t type, uint32_t rows, uint32_t cols,
    uint32_t row_begin, uint32_t row_end, size_t *begin, size_t *end);

/* Packs rows [row_begin, row_end) of the GGUF matrix `rows_data` (its row 0
 * is row 0 of the matrix) into dst, the start of the packed matrix.
 * row_begin is a multiple of KERN_ROW_GROUP, row_end too or equal to rows:
 * ranges may be packed by different threads.  Values are kept exactly,
 * except that scales are read as they are: non-finite ones stay so. */
int kern_pack(kern_wtype_t type, uint32_t rows, uint32_t cols,
    const void *rows_data, void *dst, uint32_t row_begin, uint32_t row_end);

/* Row `row` of a packed matrix as floats (embedding look-up): out[cols]. */
void kern_row_f32(const kern_weight_t *w, uint32_t row, float *out);


#include "worker/kernels/kern_panel.h"  /* activations: contract there */


/* out[c][r] = sum over k of w[r][k] * x[c][k] for all columns c of the panel
 * and rows r in [row_begin, row_end); out points to row 0 of column 0, ldo is
 * the distance between columns.  row_begin is a multiple of KERN_ROW_GROUP,
 * row_end too or equal to w->rows: threads split rows.  Floats outside the
 * range are not touched.  Order: for int8, blocks of 32 ascending, each one
 * exact integer dot, then acc = fma(dot, dw * dx, acc) and for types with a
 * minimum acc = fma(min, dx * sum, acc); for two planes this for the upper
 * and then the lower plane of each stretch of 32 blocks; for floats fma over
 * k ascending. */
void kern_matmul(const kern_weight_t *w, const kern_panel_t *p,
    float *out, size_t ldo, uint32_t row_begin, uint32_t row_end);

/* c[m][n] = a[m][k] * b[n][k]^T by OpenBLAS on the calling thread.  Faster
 * for large float products, but the order of its sums depends on the shape:
 * not for anything that promises batch invariance (so not for serving). */
void kern_sgemm(uint32_t m, uint32_t n, uint32_t k, const float *a,
    size_t lda, const float *b, size_t ldb, float *c, size_t ldc);


/* Rows of floats.  y may equal an input.  n is any number. */

void kern_rmsnorm(float *y, const float *x, const float *w, uint32_t n,
    float eps);
/* (x - mean) / sqrt(var + eps) * w + b; b may be NULL. */
void kern_layernorm(float *y, const float *x, const float *w, const float *b,
    uint32_t n, float eps);
void kern_add(float *y, const float *a, const float *b, uint32_t n);
void kern_scale(float *y, const float *x, float s, uint32_t n);
void kern_act(kern_act_t act, float *y, const float *x, uint32_t n);
void kern_glu(kern_act_t act, float *y, const float *gate, const float *up,
    uint32_t n);
/* y = cap * tanh(x / cap) */
void kern_softcap(float *y, const float *x, float cap, uint32_t n);

typedef enum {
    KERN_ROPE_NORMAL = 0,
    KERN_ROPE_NEOX
} kern_rope_t;

/* Rotary embedding in place on n_head vectors of head_dim, the first rot_dim
 * of each (even, <= head_dim); cs and sn are that position's rot_dim / 2
 * cosines and sines.  Normal order pairs (2i, 2i+1), NeoX (i, i + rot/2). */
void kern_rope(kern_rope_t order, float *x, uint32_t n_head,
    uint32_t head_dim, uint32_t rot_dim, const float *cs, const float *sn);
/* cs[i] = mscale * cos(pos * freq[i]), sn likewise, computed in double. */
void kern_rope_table(float *cs, float *sn, const float *freq, uint32_t half,
    uint32_t pos, float mscale);


/* Vocabulary rows.  NaN counts as the smallest value. */

/* Index of the largest value, the lowest index of equals. */
uint32_t kern_argmax(const float *x, uint32_t n);
/* max + log(sum(exp(x - max))) */
float kern_logsumexp(const float *x, uint32_t n);
/* y = exp(x - max) / sum; exp's error is below 2 ulp. */
void kern_softmax(float *y, const float *x, uint32_t n);
#define KERN_TOPK_MAX   1024u
/* The k largest, descending, ties by index: idx[k], val[k]; k <= n and
 * k <= KERN_TOPK_MAX.  Returns the count of values that are not NaN, at most
 * k: that many were written. */
uint32_t kern_topk(const float *x, uint32_t n, uint32_t k, uint32_t *idx,
    float *val);


#include "worker/kernels/kern_attn.h"   /* attention: contracts there */
#include "worker/kernels/kern_full.h"
#endif
