/*
 * The table of kernels: the signature of each, one member per operation, and
 * the prototypes of all that kern_list.inc names.  Included by
 * kern_internal.h; private to worker/kernels/ and its tests.
 */
#ifndef KERN_TABLE_H
#define KERN_TABLE_H

#include "worker/kernels/kern.h"

/* Signatures of the kernels; preconditions are asserted by the
 * public functions in kern_dispatch.c, once per call. */

typedef void (*kern_matmul_pt)(const kern_weight_t *w, const kern_panel_t *p,
    float *out, size_t ldo, uint32_t row_begin, uint32_t row_end);
/* x, gate and up: the first value of block `block` */
typedef void (*kern_quant_pt)(const kern_panel_t *p, uint32_t col,
    uint32_t block, uint32_t end, const float *x);
typedef void (*kern_quant_rmsnorm_pt)(const kern_panel_t *p, uint32_t col,
    const float *x, const float *w, float eps);
typedef void (*kern_quant_glu_pt)(const kern_panel_t *p, uint32_t col,
    uint32_t block, uint32_t end, kern_act_t act, const float *gate,
    const float *up);
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
typedef void (*kern_full_pack_pt)(float *dst, const float *k, size_t ldk,
    uint32_t n, uint32_t head_dim);
typedef void (*kern_full_pt)(const kern_full_t *a, uint32_t begin,
    uint32_t end);
typedef void (*kern_attn_part_pt)(const kern_attn_t *a, uint32_t kvh,
    uint32_t block, float *part);
typedef void (*kern_attn_merge_pt)(const kern_attn_t *a, uint32_t kvh,
    uint32_t blocks, const float *part);

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
