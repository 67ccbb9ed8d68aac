/*
 * Columns in the order of the dimensions' size: both sides agree on it, and
 * what int8 rounds away of the largest comes back in the block behind.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "worker/encoder/enc_model.h"

#define EMBD  96u
#define WIDE  (EMBD + KERN_BLOCK)

static uint32_t     order[EMBD];
static enc_model_t  model;


/* 35 has no factor in common with 96: every dimension once. */
static int
setup(void **state)
{
    uint32_t  i;

    (void) state;
    for (i = 0; i < EMBD; i++) {
        order[i] = i * 35 % EMBD;
    }
    model.hp.embd = EMBD;
    model.order = order;

    return 0;
}


static void
fill(float *x, float scale)
{
    uint32_t  i, s = 7;

    for (i = 0; i < EMBD; i++) {
        s = s * 1664525u + 1013904223u;     /* Knuth, TAOCP 2, 3.3.4 */
        x[i] = scale * (float) (int32_t) s / 2147483648.0f;
    }
}


static void
test_product(void **state)
{
    float     w[EMBD], x[EMBD], wide[WIDE], row[WIDE];
    double    want = 0, got = 0;
    uint32_t  i;

    (void) state;
    fill(w, 1.0f);
    fill(x, 9.0f);
    enc_order_weights(&model, w, wide);
    enc_order_values(&model, x, row);
    for (i = 0; i < EMBD; i++) {
        assert_true(wide[i] == w[order[i]] && row[i] == x[order[i]]);
        want += (double) w[i] * (double) x[i];
        got += (double) wide[i] * (double) row[i];
    }
    assert_true(fabs(want - got) < 1e-9);
    assert_memory_equal(wide + EMBD, wide + EMBD - KERN_BLOCK,
                        KERN_BLOCK * sizeof(float));
}


/* A rounded block and its rounded rest: 15 bits and not 8. */
static void
test_remainder(void **state)
{
    float     x[EMBD], row[WIDE], max = 0, rest = 0, d, r;
    uint32_t  i;

    (void) state;
    fill(x, 30.0f);
    enc_order_values(&model, x, row);
    for (i = 0; i < KERN_BLOCK; i++) {
        max = fmaxf(max, fabsf(row[EMBD - KERN_BLOCK + i]));
        rest = fmaxf(rest, fabsf(row[EMBD + i]));
    }
    d = max / 127.0f;
    r = rest / 127.0f;
    assert_true(rest > 0 && rest <= 0.5001f * d);
    for (i = 0; i < KERN_BLOCK; i++) {
        float  v = row[EMBD - KERN_BLOCK + i];
        float  twice = rintf(v / d) * d + rintf(row[EMBD + i] / r) * r;

        assert_true(fabsf(v - twice) <= max / (127.0f * 127.0f));
    }
}


/* Nothing to round, and values that have no remainder: none. */
static void
test_none(void **state)
{
    float        x[EMBD], row[WIDE];
    uint32_t     i, k;
    const float  hard[] = { 0.0f, 1e-38f, INFINITY, -INFINITY, NAN };

    (void) state;
    for (k = 0; k < sizeof(hard) / sizeof(hard[0]); k++) {
        for (i = 0; i < EMBD; i++) {
            x[i] = hard[k];
        }
        enc_order_values(&model, x, row);
        for (i = 0; i < KERN_BLOCK; i++) {
            assert_true(row[EMBD + i] == 0.0f);
        }
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_product),
        cmocka_unit_test(test_remainder),
        cmocka_unit_test(test_none),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
