/*
 * Activations: m columns of k values, prepared once and multiplied by any
 * number of matrices of that k.  Included by kern.h.  The memory is the
 * caller's.
 *
 * Quantised weights take integers with one scale per 32 values, rounded to
 * nearest even: I8 is int8, d = max|x| / 127.  I15 has 15 bits in two planes
 * of int8, q = 128 upper + lower with d = max|x| / (127 * 128): products take
 * twice the work, and what is lost is near what floats lose.  Float weights
 * take floats; those of BF16 take floats rounded to bfloat16 as well, to
 * nearest even and denormals to zero.
 */
#ifndef KERN_PANEL_H
#define KERN_PANEL_H

#include <stddef.h>
#include <stdint.h>

typedef enum {
    KERN_PANEL_I8 = 0,
    KERN_PANEL_F32,
    KERN_PANEL_I15,
    KERN_PANEL_BF16
} kern_panel_kind_t;

typedef struct {
    kern_panel_kind_t   kind;
    uint32_t            m;
    uint32_t            k;
    void               *data;   /* int8 or float, opaque order */
    float              *meta;   /* scales and sums (integers only) */
    size_t              plane;  /* bytes to the lower plane; 0: there is none */
    const void         *next;   /* a hint, NULL after kern_panel_init(): what
                                   the caller reads after the weights of a
                                   product is prefetched at their end */
    uint32_t            sums;   /* KERN_SUMS_*: which are kept of integers */
    int                 pairs;  /* bfloat16 in pairs, as the level in use wants
                                   it; else as floats */
} kern_panel_t;

/* Sums of the integers that types want besides their scale. */
#define KERN_SUMS_MIN       1u
#define KERN_SUMS_BIAS      2u
#define KERN_SUMS_HALVES    4u
#define KERN_SUMS_ALL       7u

/* Those that products with a type want.  A panel has all of them unless
 * `sums` is set to less before it is filled, for the types that it meets. */
uint32_t kern_panel_sums(kern_wtype_t type);

/* What the matrix type takes: I8 (I15 serves as well) or F32 (for BF16, a
 * panel of BF16 as well).  A matmul asserts that they agree. */
kern_panel_kind_t kern_panel_kind(kern_wtype_t type);

/* Bytes for a panel of m x k; monotone in m and k, so that memory for the
 * largest m holds every smaller one. */
size_t kern_panel_bytes(kern_panel_kind_t kind, uint32_t m, uint32_t k);

/* Lays a panel over memory (KERN_ALIGN aligned, kern_panel_bytes()). */
void kern_panel_init(kern_panel_t *p, kern_panel_kind_t kind, uint32_t m,
    uint32_t k, void *mem);

/* Fills columns [begin, end) of the panel; x is column 0's first value and
 * ldx the distance between columns.  Columns are independent.  Non-finite
 * input gives a defined (useless) column, never a crash. */
void kern_quant(const kern_panel_t *p, uint32_t begin, uint32_t end,
    const float *x, size_t ldx);

/* Only the values [k_begin, k_end), multiples of KERN_BLOCK: who has part of a
 * column fills part of it.  x is as above. */
void kern_quant_part(const kern_panel_t *p, uint32_t begin, uint32_t end,
    uint32_t k_begin, uint32_t k_end, const float *x, size_t ldx);

/* The same of x / sqrt(mean(x^2) + eps) * w, equal to kern_rmsnorm() followed
 * by kern_quant(). */
void kern_quant_rmsnorm(const kern_panel_t *p, uint32_t begin, uint32_t end,
    const float *x, size_t ldx, const float *w, float eps);

typedef enum {
    KERN_ACT_SILU = 0,
    KERN_ACT_GELU_TANH,
    KERN_ACT_GELU_ERF,
    KERN_ACT_RELU
} kern_act_t;

/* The same of act(gate) * up; gate and up share the stride. */
void kern_quant_glu(const kern_panel_t *p, uint32_t begin, uint32_t end,
    kern_act_t act, const float *gate, const float *up, size_t ldx);
void kern_quant_glu_part(const kern_panel_t *p, uint32_t begin, uint32_t end,
    uint32_t k_begin, uint32_t k_end, kern_act_t act, const float *gate,
    const float *up, size_t ldx);

#endif
