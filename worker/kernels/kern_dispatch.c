/*
 * The choice of a level and the public functions: preconditions are asserted
 * here, once per call, and the kernel of the table does the work.
 */
#include <stdio.h>
#include <stdlib.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "worker/kernels/kern_internal.h"

/* Changes when a packed, panel or page layout changes. */
#define KERN_LAYOUT_ID  0x4b520003u

kern_ops_t         kern_ops;
static kern_isa_t  kern_level = KERN_ISA_AUTO;

static const char  *kern_isa_names[KERN_ISA_N] = {
    "auto", "scalar", "avx2", "avxvnni", "avx512", "vnni", "bf16"
};


void
kern_assert_failed(const char *expr, const char *file, int line)
{
    fprintf(stderr, "kernels: assertion failed: %s (%s:%d)\n", expr, file,
            line);
    abort();
}


const char *
kern_isa_name(kern_isa_t level)
{
    return (unsigned) level < KERN_ISA_N ? kern_isa_names[level] : "?";
}


kern_isa_t
kern_isa(void)
{
    return kern_level;
}


uint32_t
kern_layout_id(void)
{
    return KERN_LAYOUT_ID;
}


#if defined(__x86_64__)

/* CPUID leaf 7, subleaf 1: EAX bit 4.  gcc 12 has no name for it. */
static int
kern_cpu_avxvnni(void)
{
    unsigned  a, b, c, d;

    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4) != 0;
}

#endif


int
kern_isa_supported(kern_isa_t level)
{
#if defined(__x86_64__)
    int  avx2, avx512;

    /* The builtin also asks whether the system saves the registers. */
    __builtin_cpu_init();
    avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
           && __builtin_cpu_supports("f16c");
    avx512 = avx2 && __builtin_cpu_supports("avx512f")
             && __builtin_cpu_supports("avx512bw")
             && __builtin_cpu_supports("avx512vl")
             && __builtin_cpu_supports("avx512dq");

    switch (level) {
    case KERN_ISA_AUTO:
    case KERN_ISA_SCALAR:
        return 1;
    case KERN_ISA_AVX2:
        return avx2;
    case KERN_ISA_AVXVNNI:
        return avx2 && kern_cpu_avxvnni();
    case KERN_ISA_AVX512:
        return avx512;
    case KERN_ISA_VNNI:
        return avx512 && __builtin_cpu_supports("avx512vnni");
    case KERN_ISA_BF16:
        return avx512 && __builtin_cpu_supports("avx512vnni")
               && __builtin_cpu_supports("avx512bf16");
    default:
        return 0;
    }
#else
    return level == KERN_ISA_AUTO || level == KERN_ISA_SCALAR;
#endif
}


/* Whether a kernel for `isa` belongs to a level: AVX-512 came without
 * AVX-VNNI for years. */
static int
kern_isa_has(kern_isa_t level, kern_isa_t isa)
{
    return isa <= level && (isa != KERN_ISA_AVXVNNI || isa == level);
}


/* Whether pairs of bfloat16 are multiplied faster than floats.  AMD's CPUs
 * take half the time; Intel's since Sapphire Rapids twice as long, as their
 * matrix unit is meant for it.  The results are the same, so a CPU of which
 * that is not known has the level by name only. */
static int
kern_bf16_fast(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_is("amd") != 0;
#else
    return 0;
#endif
}


/* The best level of this CPU, or the one that INFER_KERN_ISA names if the
 * CPU has it (for tests and for comparing levels; a wrong name is ignored). */
static kern_isa_t
kern_isa_auto(void)
{
    int          level;
    const char  *name = getenv("INFER_KERN_ISA");

    for (level = KERN_ISA_N - 1; level > KERN_ISA_SCALAR; level--) {
        if (name != NULL && strcmp(name, kern_isa_names[level]) == 0
            && kern_isa_supported((kern_isa_t) level))
        {
            return (kern_isa_t) level;
        }
    }

    if (name != NULL && strcmp(name, kern_isa_names[KERN_ISA_SCALAR]) == 0) {
        return KERN_ISA_SCALAR;
    }

    for (level = KERN_ISA_N - 1; level > KERN_ISA_SCALAR; level--) {
        if (kern_isa_supported((kern_isa_t) level)
            && (level != KERN_ISA_BF16 || kern_bf16_fast()))
        {
            break;
        }
    }

    return (kern_isa_t) level;
}


int
kern_ops_of(kern_isa_t level, kern_ops_t *ops)
{
    if (level == KERN_ISA_AUTO || !kern_isa_supported(level)) {
        return KERN_E_ISA;
    }

    /* The list ascends by level: a later line replaces an earlier one. */
#define KERN_OP(op, type)       ops->op = NULL;
#define KERN_FN(name, isa, fn)                                                \
    if (kern_isa_has(level, KERN_ISA_##isa)) {                                \
        ops->name = fn;                                                       \
    }
#include "worker/kernels/kern_list.inc"
#undef KERN_OP
#undef KERN_FN

    return KERN_OK;
}


int
kern_init(kern_isa_t level)
{
    int         rc;
    kern_ops_t  ops;

    if (level == KERN_ISA_AUTO) {
        level = kern_isa_auto();
    }

    rc = kern_ops_of(level, &ops);

    if (rc == KERN_OK) {
        kern_ops = ops;
        kern_level = level;
    }

    return rc;
}


static int
kern_kind_float(kern_panel_kind_t kind)
{
    return kind == KERN_PANEL_F32 || kind == KERN_PANEL_BF16;
}


size_t
kern_panel_bytes(kern_panel_kind_t kind, uint32_t m, uint32_t k)
{
    size_t  values = (size_t) m * k;

    KERN_ASSERT(m > 0 && m <= KERN_BATCH_MAX);
    KERN_ASSERT(k > 0 && k <= KERN_COLS_MAX && k % KERN_BLOCK == 0);

    if (kern_kind_float(kind)) {
        return values * sizeof(float);
    }

    /* One cache line after the values keeps meta aligned. */
    values = (values + KERN_ALIGN - 1) / KERN_ALIGN * KERN_ALIGN
             + values / KERN_BLOCK * KERN_META_N * sizeof(float);

    if (kind == KERN_PANEL_I15) {
        values = (values + KERN_ALIGN - 1) / KERN_ALIGN * KERN_ALIGN * 2;
    }

    return values;
}


void
kern_panel_init(kern_panel_t *p, kern_panel_kind_t kind, uint32_t m,
    uint32_t k, void *mem)
{
    size_t  values = (size_t) m * k;

    KERN_ASSERT(kern_panel_bytes(kind, m, k) > 0);
    KERN_ASSERT((uintptr_t) mem % KERN_ALIGN == 0);

    p->kind = kind;
    p->m = m;
    p->k = k;
    p->data = mem;
    p->meta = NULL;
    p->next = NULL;
    p->sums = KERN_SUMS_ALL;
    p->plane = kind == KERN_PANEL_I15 ? kern_panel_bytes(kind, m, k) / 2 : 0;
    p->pairs = kind == KERN_PANEL_BF16 && kern_level == KERN_ISA_BF16;

    if (!kern_kind_float(kind)) {
        values = (values + KERN_ALIGN - 1) / KERN_ALIGN * KERN_ALIGN;
        p->meta = (float *) ((uint8_t *) mem + values);
    }
}


void
kern_quant(const kern_panel_t *p, uint32_t begin, uint32_t end,
    const float *x, size_t ldx)
{
    kern_quant_part(p, begin, end, 0, p->k, x, ldx);
}


void
kern_quant_part(const kern_panel_t *p, uint32_t begin, uint32_t end,
    uint32_t k_begin, uint32_t k_end, const float *x, size_t ldx)
{
    KERN_ASSERT(begin <= end && end <= p->m);
    KERN_ASSERT(k_begin <= k_end && k_end <= p->k);
    KERN_ASSERT(k_begin % KERN_BLOCK == 0 && k_end % KERN_BLOCK == 0);

    for (uint32_t c = begin; c < end; c++) {
        kern_ops.quant(p, c, k_begin / KERN_BLOCK, k_end / KERN_BLOCK,
                       x + c * ldx + k_begin);
    }
}


void
kern_quant_rmsnorm(const kern_panel_t *p, uint32_t begin, uint32_t end,
    const float *x, size_t ldx, const float *w, float eps)
{
    KERN_ASSERT(begin <= end && end <= p->m);

    for (uint32_t c = begin; c < end; c++) {
        kern_ops.quant_rmsnorm(p, c, x + c * ldx, w, eps);
    }
}


void
kern_quant_glu(const kern_panel_t *p, uint32_t begin, uint32_t end,
    kern_act_t act, const float *gate, const float *up, size_t ldx)
{
    kern_quant_glu_part(p, begin, end, 0, p->k, act, gate, up, ldx);
}


void
kern_quant_glu_part(const kern_panel_t *p, uint32_t begin, uint32_t end,
    uint32_t k_begin, uint32_t k_end, kern_act_t act, const float *gate,
    const float *up, size_t ldx)
{
    KERN_ASSERT(begin <= end && end <= p->m);
    KERN_ASSERT(k_begin <= k_end && k_end <= p->k);
    KERN_ASSERT(k_begin % KERN_BLOCK == 0 && k_end % KERN_BLOCK == 0);

    for (uint32_t c = begin; c < end; c++) {
        kern_ops.quant_glu(p, c, k_begin / KERN_BLOCK, k_end / KERN_BLOCK,
                           act, gate + c * ldx + k_begin,
                           up + c * ldx + k_begin);
    }
}


uint32_t
kern_panel_sums(kern_wtype_t type)
{
    const kern_trait_t  *t = &kern_traits[type];

    if (kern_has_halves(t->scales)) {
        return KERN_SUMS_HALVES;
    }
    if (kern_has_min(t->scales)) {
        return KERN_SUMS_MIN;
    }

    return t->bias != 0 ? KERN_SUMS_BIAS : 0;
}


static kern_matmul_pt
kern_matmul_of(kern_wtype_t type)
{
    switch (type) {
    case KERN_F32:
        return kern_ops.matmul_f32;
    case KERN_F16:
        return kern_ops.matmul_f16;
    case KERN_BF16:
        return kern_ops.matmul_bf16;
    case KERN_Q8_0:
        return kern_ops.matmul_q8_0;
    case KERN_Q4_0:
        return kern_ops.matmul_q4_0;
    case KERN_Q4_1:
        return kern_ops.matmul_q4_1;
    case KERN_Q5_0:
        return kern_ops.matmul_q5_0;
    case KERN_Q5_1:
        return kern_ops.matmul_q5_1;
    case KERN_Q2_K:
        return kern_ops.matmul_q2_k;
    case KERN_Q3_K:
        return kern_ops.matmul_q3_k;
    case KERN_Q4_K:
        return kern_ops.matmul_q4_k;
    case KERN_Q5_K:
        return kern_ops.matmul_q5_k;
    case KERN_Q6_K:
        return kern_ops.matmul_q6_k;
    case KERN_IQ4_NL:
        return kern_ops.matmul_iq4_nl;
    case KERN_IQ4_XS:
        return kern_ops.matmul_iq4_xs;
    default:
        return NULL;
    }
}


void
kern_matmul(const kern_weight_t *w, const kern_panel_t *p, float *out,
    size_t ldo, uint32_t row_begin, uint32_t row_end)
{
    kern_matmul_pt  fn = kern_matmul_of(w->type);

    KERN_ASSERT(fn != NULL);
    KERN_ASSERT(p->k == w->cols
                && kern_kind_float(p->kind)
                   == (kern_panel_kind(w->type) == KERN_PANEL_F32));
    KERN_ASSERT(p->kind != KERN_PANEL_BF16 || w->type == KERN_BF16);
    KERN_ASSERT(!p->pairs || kern_level == KERN_ISA_BF16);
    KERN_ASSERT(row_begin % KERN_ROW_GROUP == 0 && row_begin <= row_end);
    KERN_ASSERT(row_end == w->rows
                || (row_end < w->rows && row_end % KERN_ROW_GROUP == 0));
    KERN_ASSERT((uintptr_t) w->packed % KERN_ALIGN == 0);
    KERN_ASSERT(p->m == 1 || ldo >= w->rows);

    fn(w, p, out, ldo, row_begin, row_end);
}


void
kern_rmsnorm(float *y, const float *x, const float *w, uint32_t n, float eps)
{
    KERN_ASSERT(n > 0);
    kern_ops.rmsnorm(y, x, w, n, eps);
}


void
kern_layernorm(float *y, const float *x, const float *w, const float *b,
    uint32_t n, float eps)
{
    KERN_ASSERT(n > 0);
    kern_ops.layernorm(y, x, w, b, n, eps);
}


void
kern_add(float *y, const float *a, const float *b, uint32_t n)
{
    kern_ops.add(y, a, b, n);
}


void
kern_scale(float *y, const float *x, float s, uint32_t n)
{
    kern_ops.scale(y, x, s, n);
}


void
kern_softcap(float *y, const float *x, float cap, uint32_t n)
{
    KERN_ASSERT(cap > 0);
    kern_ops.softcap(y, x, cap, n);
}


void
kern_act(kern_act_t act, float *y, const float *x, uint32_t n)
{
    kern_ops.act(act, y, x, n);
}


void
kern_glu(kern_act_t act, float *y, const float *gate, const float *up,
    uint32_t n)
{
    kern_ops.glu(act, y, gate, up, n);
}


void
kern_rope(kern_rope_t order, float *x, uint32_t n_head, uint32_t head_dim,
    uint32_t rot_dim, const float *cs, const float *sn)
{
    KERN_ASSERT(rot_dim % 2 == 0 && rot_dim <= head_dim);
    kern_ops.rope(order, x, n_head, head_dim, rot_dim, cs, sn);
}


float
kern_logsumexp(const float *x, uint32_t n)
{
    KERN_ASSERT(n > 0);
    return kern_ops.logsumexp(x, n);
}


void
kern_softmax(float *y, const float *x, uint32_t n)
{
    KERN_ASSERT(n > 0);
    kern_ops.softmax(y, x, n);
}


size_t
kern_kv_page_bytes(kern_kvtype_t type, uint32_t n_kv_head, uint32_t head_dim)
{
    if ((unsigned) type >= KERN_KV_N || n_kv_head == 0 || n_kv_head > 4096
        || head_dim == 0 || head_dim > KERN_HEAD_MAX || head_dim % 8 != 0)
    {
        return 0;
    }

    /* 32 positions * (key + value) * 2 bytes = 128 bytes per dimension */
    if (type == KERN_KV_F16) {
        return (size_t) n_kv_head * head_dim * KERN_KV_PAGE * 4;
    }

    return n_kv_head * ((size_t) head_dim * KERN_KV_PAGE * 2
                        + KERN_KV_SCALES(head_dim) * 2 * sizeof(uint16_t));
}


void
kern_kv_append(kern_kvtype_t type, void *page, uint32_t slot,
    uint32_t n_kv_head, uint32_t head_dim, const float *k, const float *v)
{
    KERN_ASSERT(kern_kv_page_bytes(type, n_kv_head, head_dim) != 0);
    KERN_ASSERT(slot < KERN_KV_PAGE);
    KERN_ASSERT((uintptr_t) page % KERN_ALIGN == 0);

    kern_ops.kv_append(type, page, slot, n_kv_head, head_dim, k, v);
}


static void
kern_attn_check(const kern_attn_t *a)
{
    KERN_ASSERT(kern_kv_page_bytes(a->type, a->n_kv_head, a->head_dim) != 0);
    KERN_ASSERT(a->n_head > 0 && a->n_head % a->n_kv_head == 0);
    KERN_ASSERT(a->n_key > 0 && a->page_offset % KERN_ALIGN == 0);
    KERN_ASSERT(!a->causal || (a->n_key >= a->n_query
                               && a->pos <= a->n_key - a->n_query));
}


void
kern_attn(const kern_attn_t *a, uint32_t kvh_begin, uint32_t kvh_end,
    uint32_t q_begin, uint32_t q_end)
{
    kern_attn_check(a);
    KERN_ASSERT(kvh_begin <= kvh_end && kvh_end <= a->n_kv_head);
    KERN_ASSERT(q_begin <= q_end && q_end <= a->n_query);

    for (uint32_t h = kvh_begin; h < kvh_end; h++) {
        kern_ops.attn(a, h, q_begin, q_end);
    }
}


void
kern_attn_part(const kern_attn_t *a, uint32_t kvh, uint32_t block,
    float *part)
{
    kern_attn_check(a);
    KERN_ASSERT(kvh < a->n_kv_head && a->n_query == 1);

    kern_ops.attn_part(a, kvh, block, part);
}


void
kern_attn_merge(const kern_attn_t *a, uint32_t kvh, uint32_t blocks,
    const float *part)
{
    kern_attn_check(a);
    KERN_ASSERT(kvh < a->n_kv_head && a->n_query == 1 && blocks > 0);

    kern_ops.attn_merge(a, kvh, blocks, part);
}


size_t
kern_full_keys(uint32_t n, uint32_t head_dim)
{
    return ((size_t) n + KERN_FULL_KEYS - 1) / KERN_FULL_KEYS
           * KERN_FULL_KEYS * head_dim;
}


size_t
kern_full_scratch(uint32_t n)
{
    return kern_full_keys(n, KERN_FULL_QUERY);
}


void
kern_full_pack(float *dst, const float *k, size_t ldk, uint32_t n,
    uint32_t head_dim)
{
    KERN_ASSERT((uintptr_t) dst % KERN_ALIGN == 0);
    kern_ops.full_pack(dst, k, ldk, n, head_dim);
}


void
kern_full(const kern_full_t *a, uint32_t begin, uint32_t end)
{
    KERN_ASSERT(begin <= end && end <= a->n_query);
    KERN_ASSERT(a->n_key > 0 && a->n_query <= a->n_key);
    KERN_ASSERT(a->head_dim > 0 && a->head_dim <= KERN_HEAD_MAX
                && a->head_dim % 16 == 0);
    KERN_ASSERT((uintptr_t) a->keys % KERN_ALIGN == 0
                && (uintptr_t) a->scratch % KERN_ALIGN == 0);
    kern_ops.full(a, begin, end);
}
