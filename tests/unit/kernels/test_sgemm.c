/*
 * The float product of OpenBLAS behind kern_sgemm(): values, strides, and what
 * lies between rows stays as it was.
 */
#include "tests/unit/kernels/kern_test.h"


static void
one(uint32_t m, uint32_t n, uint32_t k, uint32_t pad)
{
    float   *a = kt_floats((size_t) m * (k + pad));
    float   *b = kt_floats((size_t) n * (k + 2 * pad));
    float   *c = kt_floats((size_t) m * (n + pad)), *was;
    double   sum, size;

    was = kt_alloc((size_t) m * (n + pad) * sizeof(float));
    memcpy(was, c, (size_t) m * (n + pad) * sizeof(float));
    kern_sgemm(m, n, k, a, k + pad, b, k + 2 * pad, c, n + pad);

    for (uint32_t i = 0; i < m; i++) {
        for (uint32_t j = 0; j < n; j++) {
            sum = size = 0;

            for (uint32_t l = 0; l < k; l++) {
                sum += (double) a[i * (k + pad) + l]
                       * (double) b[j * (k + 2 * pad) + l];
                size += fabs((double) a[i * (k + pad) + l]
                             * (double) b[j * (k + 2 * pad) + l]);
            }

            if (!(fabs(c[i * (n + pad) + j] - sum) <= 1e-5 * size)) {
                fail_msg("%u x %u x %u: row %u column %u: %g, expected %g",
                         m, n, k, i, j, (double) c[i * (n + pad) + j], sum);
            }
        }

        assert_memory_equal(c + i * (n + pad) + n, was + i * (n + pad) + n,
                            pad * sizeof(float));
    }

    free(a);
    free(b);
    free(c);
    free(was);
}


static void
test_values(void **state)
{
    static const uint32_t  sizes[] = { 1, 2, 7, 16, 33, 130 };

    (void) state;

    for (int i = 0; i < 6 * 6 * 6; i++) {
        one(sizes[i % 6], sizes[i / 6 % 6], sizes[i / 36], i % 4);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_values),
    };

    if (kern_init(KERN_ISA_AUTO) != KERN_OK) {
        return 1;
    }

    return cmocka_run_group_tests(tests, NULL, NULL);
}
