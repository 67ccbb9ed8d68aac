/*
 * Attention of encoders: the scalar level against a plain double softmax,
 * every other level bitwise against the scalar one, and the same bits for any
 * split of the queries.
 */
#include "tests/unit/kernels/kern_test.h"

typedef struct {
    kern_full_t  a;
    float       *qkv, *keys, *scratch, *out, *bias;
    size_t       floats;
} case_t;


static case_t
make(uint32_t n, uint32_t d, uint32_t window, int bias)
{
    case_t  c = { 0 };

    c.qkv = kt_floats((size_t) n * 3 * d);
    c.keys = kt_alloc(kern_full_keys(n, d) * sizeof(float));
    c.scratch = kt_alloc(kern_full_scratch(n) * sizeof(float));
    c.floats = (size_t) n * d;
    c.out = kt_alloc(c.floats * sizeof(float));
    c.bias = kt_floats(2 * n - 1);
    c.a = (kern_full_t) {
        .n_query = n, .n_key = n, .head_dim = d,
        .scale = 1.0f / sqrtf((float) d), .window = window,
        .q = c.qkv, .ldq = 3 * d, .keys = c.keys,
        .v = c.qkv + 2 * d, .ldv = 3 * d, .out = c.out, .ldo = d,
        .bias = bias ? c.bias + n - 1 : NULL, .scratch = c.scratch,
    };

    return c;
}


static void
drop(case_t *c)
{
    free(c->qkv);
    free(c->keys);
    free(c->scratch);
    free(c->out);
    free(c->bias);
}


static int
seen(const kern_full_t *a, uint32_t q, uint32_t k)
{
    return a->window == 0 || (q > k ? q - k : k - q) <= a->window;
}


static void
against_double(const case_t *c)
{
    double              s[600], max, sum, o;
    uint32_t            d = c->a.head_dim, n = c->a.n_key;
    const kern_full_t  *a = &c->a;

    for (uint32_t q = 0; q < n; q++) {
        max = -1e300;
        sum = 0;

        for (uint32_t k = 0; k < n; k++) {
            s[k] = 0;

            for (uint32_t i = 0; i < d; i++) {
                s[k] += (double) c->qkv[q * 3 * d + i]
                        * (double) c->qkv[k * 3 * d + d + i];
            }

            s[k] = s[k] * (double) a->scale
                   + (a->bias != NULL
                      ? (double) a->bias[(ptrdiff_t) k - (ptrdiff_t) q] : 0);
            s[k] = seen(a, q, k) ? s[k] : -1e300;
            max = s[k] > max ? s[k] : max;
        }

        for (uint32_t k = 0; k < n; k++) {
            s[k] = exp(s[k] - max);
            sum += s[k];
        }

        for (uint32_t i = 0; i < d; i++) {
            o = 0;

            for (uint32_t k = 0; k < n; k++) {
                o += s[k] / sum * (double) c->qkv[k * 3 * d + 2 * d + i];
            }

            assert_true(fabs(o - (double) c->out[q * d + i]) < 2e-5);
        }
    }
}


static void
check(case_t *c)
{
    float     *want = kt_alloc(c->floats * sizeof(float));
    uint32_t   n = c->a.n_query, d = c->a.head_dim;

    for (int level = KERN_ISA_SCALAR; level < KERN_ISA_N; level++) {
        if (kern_init((kern_isa_t) level) != KERN_OK) {
            continue;
        }

        memset(c->keys, 0xff, kern_full_keys(n, d) * sizeof(float));
        memset(c->scratch, 0xff, kern_full_scratch(n) * sizeof(float));
        kern_full_pack(c->keys, c->qkv + d, 3 * d, n, d);
        memset(c->out, 0xff, c->floats * sizeof(float));
        kern_full(&c->a, 0, n);

        if (level == KERN_ISA_SCALAR) {
            against_double(c);
            memcpy(want, c->out, c->floats * sizeof(float));
            continue;
        }

        assert_memory_equal(want, c->out, c->floats * sizeof(float));
        memset(c->out, 0xff, c->floats * sizeof(float));
        kern_full(&c->a, 0, n / 3);
        kern_full(&c->a, n / 3, n);
        assert_memory_equal(want, c->out, c->floats * sizeof(float));
    }

    free(want);
}


static void
test_shapes(void **state)
{
    static const uint32_t  n[] = { 1, 2, 5, 15, 16, 17, 31, 33, 100, 131 };
    case_t                 c;

    (void) state;

    for (size_t i = 0; i < sizeof(n) / sizeof(n[0]); i++) {
        for (uint32_t d = 16; d <= 64; d += 16) {
            c = make(n[i], d, i % 3 == 0 ? 7 : 0, i % 2 == 1);
            check(&c);
            drop(&c);
        }
    }
}


static void
test_windows(void **state)
{
    static const uint32_t  window[] = { 1, 4, 15, 16, 17, 64, 299, 300, 999 };
    case_t                 c;

    (void) state;

    for (size_t i = 0; i < sizeof(window) / sizeof(window[0]); i++) {
        c = make(300, 32, window[i], 0);
        check(&c);
        drop(&c);
    }

    c = make(40, KERN_HEAD_MAX, 5, 1);
    check(&c);
    drop(&c);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_windows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
