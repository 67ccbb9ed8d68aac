/*
 * The kernels for AVX-VNNI, bitwise against the scalar level: here with their
 * one instruction in AVX-512VL's encoding, for CPUs that have this one and
 * not the other.  Where AVX-VNNI itself is, test_matmul.c tests the level.
 */
#include "tests/unit/kernels/kern_test.h"

#define KERN_NAME(op)   op##__evex
#define KERN_ENCODING   "%{evex%} "

#define KERN_PROTO(name, form, scales)                                        \
    void KERN_NAME(kern_matmul_##name)(const kern_weight_t *w,                \
        const kern_panel_t *p, float *out, size_t ldo, uint32_t row_begin,    \
        uint32_t row_end);

#include "worker/kernels/kern_int.h"

KERN_INT_TYPES(KERN_PROTO)

#include "worker/kernels/kern_matmul_avxvnni.c"

static const struct {
    kern_wtype_t    type;
    kern_matmul_pt  matmul;
} kernels[] = {
    { KERN_Q8_0, kern_matmul_q8_0__evex },
    { KERN_Q4_0, kern_matmul_q4_0__evex },
    { KERN_Q4_1, kern_matmul_q4_1__evex },
    { KERN_Q5_0, kern_matmul_q5_0__evex },
    { KERN_Q5_1, kern_matmul_q5_1__evex },
    { KERN_Q2_K, kern_matmul_q2_k__evex },
    { KERN_Q3_K, kern_matmul_q3_k__evex },
    { KERN_Q4_K, kern_matmul_q4_k__evex },
    { KERN_Q5_K, kern_matmul_q5_k__evex },
    { KERN_Q6_K, kern_matmul_q6_k__evex },
    { KERN_IQ4_NL, kern_matmul_iq4_nl__evex },
    { KERN_IQ4_XS, kern_matmul_iq4_xs__evex }
};

#define KERNELS  (sizeof(kernels) / sizeof(kernels[0]))


static void
one_shape(size_t i, kern_panel_kind_t kind, uint32_t rows, uint32_t cols,
    uint32_t m)
{
    char            what[96];
    uint32_t        k = kt_cols(kernels[i].type, cols);
    float          *x = kt_floats((size_t) m * k), *want, *got;
    size_t          n = (size_t) m * (rows + 3);
    uint8_t        *gguf = kt_gguf(kernels[i].type, rows, k);
    kern_panel_t    p;
    kern_weight_t   w = kt_weight(kernels[i].type, rows, k, gguf);

    want = kt_alloc(n * sizeof(float));
    got = kt_alloc(n * sizeof(float));
    kern_panel_init(&p, kind, m, k, kt_alloc(kern_panel_bytes(kind, m, k)));
    kern_quant(&p, 0, m, x, k);
    kern_matmul(&w, &p, want, rows + 3, 0, rows);
    kernels[i].matmul(&w, &p, got, rows + 3, 0, rows);
    snprintf(what, sizeof(what), "%s rows %u k %u m %u",
             kern_wtype_name(kernels[i].type), rows, k, m);
    kt_same(what, got, want, n);

    free(x);
    free(want);
    free(got);
    free(gguf);
    free(p.data);
    free((void *) w.packed);
}


static void
test_shapes(void **state)
{
    static const uint32_t  rows[] = { 1, 7, 8, 9, 15, 16, 31, 65 };

    (void) state;

    if (!kern_isa_supported(KERN_ISA_VNNI)) {
        skip();
    }

    assert_int_equal(kern_init(KERN_ISA_SCALAR), KERN_OK);

    for (size_t i = 0; i < KERNELS; i++) {
        for (uint32_t m = 1; m <= 26; m++) {
            one_shape(i, KERN_PANEL_I8, 17, m % 2 ? 32 : 96, m);
        }

        for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
            one_shape(i, KERN_PANEL_I8, rows[r], 1056, 5);
            one_shape(i, KERN_PANEL_I15, rows[r], 96, 9);
        }
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_shapes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
