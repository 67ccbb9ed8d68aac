/*
 * Row operations: the scalar level against double arithmetic, every other
 * level bitwise against the scalar one, at lengths around the vector's.
 */
#include "tests/unit/kernels/kern_test.h"

#define LEN_MAX     70u


static void
near(const char *what, const float *got, const double *want, uint32_t n,
    double tolerance)
{
    for (uint32_t i = 0; i < n; i++) {
        if (!(fabs((double) got[i] - want[i])
              <= tolerance * (1.0 + fabs(want[i]))))
        {
            fail_msg("%s: element %u of %u: %.9g, expected %.9g", what, i, n,
                     (double) got[i], want[i]);
        }
    }
}


static void
test_norms(void **state)
{
    float   x[LEN_MAX], w[LEN_MAX], b[LEN_MAX], y[LEN_MAX], z[LEN_MAX];
    double  want[LEN_MAX], s, mean;

    (void) state;

    for (uint32_t n = 1; n <= LEN_MAX; n++) {
        s = mean = 0;

        for (uint32_t i = 0; i < n; i++) {
            x[i] = kt_float() * 3 + 1;
            w[i] = kt_float();
            b[i] = kt_float();
            s += (double) x[i] * (double) x[i];
            mean += (double) x[i] / n;
        }

        for (uint32_t i = 0; i < n; i++) {
            want[i] = (double) x[i] / sqrt(s / n + 1e-5) * (double) w[i];
        }

        kern_init(KERN_ISA_SCALAR);
        kern_rmsnorm(y, x, w, n, 1e-5f);
        near("rmsnorm", y, want, n, 1e-5);

        KT_LEVELS(level) {
            kern_init(level);
            memcpy(z, x, sizeof(z));
            kern_rmsnorm(z, z, w, n, 1e-5f);
            kt_same("rmsnorm", z, y, n);
        }

        s = 0;

        for (uint32_t i = 0; i < n; i++) {
            s += ((double) x[i] - mean) * ((double) x[i] - mean) / n;
        }

        for (uint32_t i = 0; i < n; i++) {
            want[i] = ((double) x[i] - mean) / sqrt(s + 1e-12) * (double) w[i]
                      + (double) b[i];
        }

        kern_init(KERN_ISA_SCALAR);
        kern_layernorm(y, x, w, b, n, 1e-12f);

        if (n > 1) {
            near("layernorm", y, want, n, 1e-4);
        }

        KT_LEVELS(level) {
            kern_init(level);
            memcpy(z, x, sizeof(z));
            kern_layernorm(z, z, w, b, n, 1e-12f);
            kt_same("layernorm", z, y, n);
        }
    }
}


static double
act_double(kern_act_t act, double x)
{
    switch (act) {
    case KERN_ACT_SILU:
        return x / (1 + exp(-x));
    case KERN_ACT_GELU_TANH:
        return x / 2 * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case KERN_ACT_GELU_ERF:
        return x / 2 * (1 + erf(x / sqrt(2)));
    default:
        return x > 0 ? x : 0;
    }
}


static void
test_activations(void **state)
{
    float   x[LEN_MAX], u[LEN_MAX], y[LEN_MAX], z[LEN_MAX];
    double  want[LEN_MAX], glu[LEN_MAX];

    (void) state;

    for (uint32_t n = 1; n <= LEN_MAX; n += 3) {
        for (int act = KERN_ACT_SILU; act <= KERN_ACT_RELU; act++) {
            for (uint32_t i = 0; i < n; i++) {
                x[i] = kt_float() * 8;
                u[i] = kt_float();
                want[i] = act_double((kern_act_t) act, (double) x[i]);
                glu[i] = want[i] * (double) u[i];
            }

            x[0] = n % 2 ? 100.0f : -100.0f;
            want[0] = act_double((kern_act_t) act, (double) x[0]);
            glu[0] = want[0] * (double) u[0];

            kern_init(KERN_ISA_SCALAR);
            kern_act((kern_act_t) act, y, x, n);
            near("act", y, want, n, 1e-6);

            KT_LEVELS(level) {
                kern_init(level);
                kern_act((kern_act_t) act, z, x, n);
                kt_same("act", z, y, n);
            }

            kern_init(KERN_ISA_SCALAR);
            kern_glu((kern_act_t) act, y, x, u, n);
            near("glu", y, glu, n, 2e-6);

            KT_LEVELS(level) {
                kern_init(level);
                kern_glu((kern_act_t) act, z, x, u, n);
                kt_same("glu", z, y, n);
            }
        }
    }
}


static void
test_simple(void **state)
{
    float   x[LEN_MAX], u[LEN_MAX], y[LEN_MAX], z[LEN_MAX];
    double  want[LEN_MAX];

    (void) state;

    for (uint32_t n = 1; n <= LEN_MAX; n++) {
        for (uint32_t i = 0; i < n; i++) {
            x[i] = kt_float() * 40;
            u[i] = kt_float();
            want[i] = 30 * tanh((double) x[i] / 30);
        }

        for (kern_isa_t level = KERN_ISA_SCALAR; level < KERN_ISA_N; level++) {
            if (kern_init(level) != KERN_OK) {
                continue;
            }

            kern_add(y, x, u, n);
            kern_scale(z, x, 3.0f, n);

            for (uint32_t i = 0; i < n; i++) {
                assert_true(y[i] == x[i] + u[i] && z[i] == x[i] * 3.0f);
            }

            kern_softcap(y, x, 30.0f, n);
            near("softcap", y, want, n, 1e-6);
            memcpy(z, level == KERN_ISA_SCALAR ? y : z, sizeof(z));
        }

        kern_init(KERN_ISA_SCALAR);
        kern_softcap(z, x, 30.0f, n);

        KT_LEVELS(level) {
            kern_init(level);
            kern_softcap(y, x, 30.0f, n);
            kt_same("softcap", y, z, n);
        }
    }
}


static void
test_rope(void **state)
{
    float   x[3 * 80], y[3 * 80], z[3 * 80], cs[40], sn[40], freq[40];
    double  want[3 * 80];

    (void) state;

    for (uint32_t rot = 2; rot <= 80; rot += 2) {
        for (uint32_t i = 0; i < rot / 2; i++) {
            freq[i] = powf(10000.0f, -2.0f * (float) i / (float) rot);
        }

        kern_rope_table(cs, sn, freq, rot / 2, 1234, 1.0f);

        for (int order = 0; order < 2; order++) {
            for (uint32_t i = 0; i < 240; i++) {
                x[i] = kt_float();
                want[i] = (double) x[i];
            }

            for (uint32_t h = 0; h < 3; h++) {
                for (uint32_t i = 0; i < rot / 2; i++) {
                    uint32_t  a = h * 80 + (order ? i : 2 * i);
                    uint32_t  b = h * 80 + (order ? i + rot / 2 : 2 * i + 1);
                    double    t = 1234 * (double) freq[i];

                    want[a] = (double) x[a] * cos(t) - (double) x[b] * sin(t);
                    want[b] = (double) x[a] * sin(t) + (double) x[b] * cos(t);
                }
            }

            kern_init(KERN_ISA_SCALAR);
            memcpy(y, x, sizeof(y));
            kern_rope((kern_rope_t) order, y, 3, 80, rot, cs, sn);
            near("rope", y, want, 240, 1e-6);

            KT_LEVELS(level) {
                kern_init(level);
                memcpy(z, x, sizeof(z));
                kern_rope((kern_rope_t) order, z, 3, 80, rot, cs, sn);
                kt_same("rope", z, y, 240);
            }
        }
    }
}


static void
test_vocabulary(void **state)
{
    float   *x = kt_floats(2000), *y = kt_alloc(8000), *z = kt_alloc(8000);
    float    lse;
    double   sum, *want = kt_alloc(2000 * sizeof(double));

    (void) state;

    for (uint32_t n = 1; n <= 2000; n += n < 40 ? 1 : 131) {
        sum = 0;

        for (uint32_t i = 0; i < n; i++) {
            x[i] = kt_float() * 10;
            sum += exp((double) x[i]);
        }

        x[n / 2] = -INFINITY;
        sum = 0;

        for (uint32_t i = 0; i < n; i++) {
            sum += exp((double) x[i]);
        }

        for (uint32_t i = 0; i < n; i++) {
            want[i] = exp((double) x[i]) / sum;
        }

        if (n == 1) {
            x[0] = 3.0f;
            want[0] = 1;
            sum = exp(3);
        }

        kern_init(KERN_ISA_SCALAR);
        kern_softmax(y, x, n);
        near("softmax", y, want, n, 1e-6);
        lse = kern_logsumexp(x, n);
        assert_true(fabs((double) lse - log(sum)) < 1e-5);

        KT_LEVELS(level) {
            kern_init(level);
            kern_softmax(z, x, n);
            kt_same("softmax", z, y, n);
            assert_true(kern_logsumexp(x, n) == lse);
        }
    }

    free(x);
    free(y);
    free(z);
    free(want);
}


static void
test_argmax_topk(void **state)
{
    float     *x = kt_floats(3000), val[1024];
    uint32_t   idx[1024], best, n, k, got, rank;

    (void) state;

    for (kern_isa_t level = KERN_ISA_SCALAR; level < KERN_ISA_N; level++) {
        if (kern_init(level) != KERN_OK) {
            continue;
        }

        for (int round = 0; round < 60; round++) {
            n = 1 + kt_rand() % (round % 3 ? 3000 : 40);
            k = 1 + kt_rand() % (n < 1024 ? n : 1024);

            for (uint32_t i = 0; i < n; i++) {
                /* few values, so that there are many ties */
                x[i] = round % 2 ? kt_float() : (float) (kt_rand() % 7) - 3;
            }

            best = 0;

            for (uint32_t i = 1; i < n; i++) {
                best = x[i] > x[best] ? i : best;
            }

            assert_int_equal(kern_argmax(x, n), best);
            got = kern_topk(x, n, k, idx, val);
            assert_int_equal(got, k);

            for (uint32_t i = 0; i < k; i++) {
                assert_true(val[i] == x[idx[i]]);
                assert_true(i == 0 || val[i] < val[i - 1]
                            || (val[i] == val[i - 1] && idx[i] > idx[i - 1]));
            }

            rank = 0;

            for (uint32_t i = 0; i < n; i++) {
                rank += x[i] > val[k - 1]
                        || (x[i] == val[k - 1] && i < idx[k - 1]);
            }

            assert_int_equal(rank, k - 1);
        }

        /* NaN ranks last; nothing but NaN gives the first index */
        x[0] = x[1] = x[2] = NAN;
        x[3] = -5;
        assert_int_equal(kern_argmax(x, 4), 3);
        assert_int_equal(kern_argmax(x, 3), 0);
        assert_int_equal(kern_topk(x, 4, 3, idx, val), 1);
        assert_int_equal(idx[0], 3);
        x[0] = x[1] = -INFINITY;
        assert_int_equal(kern_argmax(x, 2), 0);
    }

    free(x);
}


/* The same numbers and sums; between them are bytes that nobody reads. */
static void
same_panel(const kern_panel_t *p, const kern_panel_t *q)
{
    size_t  n = (size_t) p->m * p->k;

    if (p->kind == KERN_PANEL_F32) {
        assert_memory_equal(p->data, q->data, n * sizeof(float));
        return;
    }

    assert_memory_equal(p->data, q->data, n);
    assert_memory_equal(p->meta, q->meta,
                        n / KERN_BLOCK * KERN_META_N * sizeof(float));
}


/* The fused fillers equal their parts, for both panel kinds. */
static void
test_fused(void **state)
{
    float         *x = kt_floats(5 * 96), *u = kt_floats(5 * 96);
    float         *w = kt_floats(96), *t = kt_alloc(5 * 96 * 4);
    size_t         bytes;
    kern_panel_t   p, q;

    (void) state;

    for (kern_isa_t level = KERN_ISA_SCALAR; level < KERN_ISA_N; level++) {
        if (kern_init(level) != KERN_OK) {
            continue;
        }

        for (int kind = 0; kind < 2; kind++) {
            bytes = kern_panel_bytes((kern_panel_kind_t) kind, 5, 96);
            kern_panel_init(&p, (kern_panel_kind_t) kind, 5, 96,
                            kt_alloc(bytes));
            kern_panel_init(&q, (kern_panel_kind_t) kind, 5, 96,
                            kt_alloc(bytes));

            for (int c = 0; c < 5; c++) {
                kern_rmsnorm(t + c * 96, x + c * 96, w, 96, 1e-5f);
            }

            kern_quant(&p, 0, 5, t, 96);
            kern_quant_rmsnorm(&q, 0, 2, x, 96, w, 1e-5f);
            kern_quant_rmsnorm(&q, 2, 5, x, 96, w, 1e-5f);
            assert_memory_equal(p.data, q.data, bytes);

            for (int c = 0; c < 5; c++) {
                kern_glu(KERN_ACT_SILU, t + c * 96, x + c * 96, u + c * 96,
                         96);
            }

            kern_quant(&p, 0, 5, t, 96);
            kern_quant_glu(&q, 0, 5, KERN_ACT_SILU, x, u, 96);
            assert_memory_equal(p.data, q.data, bytes);

            memset(q.data, 0xff, bytes);
            kern_quant_glu_part(&q, 0, 5, 32, 96, KERN_ACT_SILU, x, u, 96);
            kern_quant_glu_part(&q, 0, 5, 0, 32, KERN_ACT_SILU, x, u, 96);
            same_panel(&p, &q);

            memset(q.data, 0xff, bytes);
            kern_quant_part(&q, 0, 5, 0, 64, t, 96);
            kern_quant_part(&q, 0, 5, 64, 96, t, 96);
            same_panel(&p, &q);
            free(p.data);
            free(q.data);
        }
    }

    free(x);
    free(u);
    free(w);
    free(t);
}


/* Panels of every level are the same bytes, edges of rounding included. */
static void
test_quant_levels(void **state)
{
    float         *x = kt_floats(9 * 64);
    size_t         bytes = kern_panel_bytes(KERN_PANEL_I8, 9, 64);
    kern_panel_t   p, q;

    (void) state;

    for (int i = 0; i < 32; i++) {
        /* amax 127: values are their own quants, halves round to even */
        x[64 + i] = (float) i * 4 - 0.5f;
        x[96 + i] = i == 3 ? 127.0f : (float) i - 15.5f;
    }

    x[64] = -127.0f;
    kern_init(KERN_ISA_SCALAR);
    kern_panel_init(&p, KERN_PANEL_I8, 9, 64, kt_alloc(bytes));
    kern_panel_init(&q, KERN_PANEL_I8, 9, 64, kt_alloc(bytes));
    kern_quant(&p, 0, 9, x, 64);

    KT_LEVELS(level) {
        kern_init(level);
        kern_quant(&q, 0, 9, x, 64);
        assert_memory_equal(p.data, q.data, bytes);
    }

    free(p.data);
    free(q.data);
    free(x);
}


/* e^x within 2 ulp on the whole range of a softmax. */
static void
test_exp_error(void **state)
{
    float   x[17], y[17];
    double  e, worst = 0;

    (void) state;
    kern_init(KERN_ISA_AUTO);

    for (int i = 0; i < 200000; i++) {
        x[0] = 0;
        x[1] = -87.0f * (float) i / 200000.0f;
        kern_softmax(y, x, 2);
        e = exp((double) x[1]);
        e = e / (1 + e);

        if (fabs((double) y[1] / e - 1) > worst) {
            worst = fabs((double) y[1] / e - 1);
        }
    }

    /* exp, the sum, its inverse and the product: 2 + 0.5 + 0.5 + 0.5 ulp */
    assert_true(worst < 3.5 * 0x1p-23);
}


static void
test_f16(void **state)
{
    (void) state;

    for (uint32_t h = 0; h < 65536; h++) {
        float  f = kern_f16_f32((uint16_t) h);

        if (f == f) {
            assert_int_equal(kern_f32_f16(f), h);
        }
    }

    assert_int_equal(kern_f32_f16(65519.996f), 0x7bff);
    assert_int_equal(kern_f32_f16(65520.0f), 0x7c00);
    assert_int_equal(kern_f32_f16(1.00048828125f), 0x3c00);
    assert_int_equal(kern_f32_f16(1.0004884f), 0x3c01);
    assert_int_equal(kern_f32_f16(2.9802322e-8f), 0x0000);
    assert_int_equal(kern_f32_f16(2.9802326e-8f), 0x0001);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_f16),
        cmocka_unit_test(test_norms),
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_simple),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_vocabulary),
        cmocka_unit_test(test_argmax_topk),
        cmocka_unit_test(test_fused),
        cmocka_unit_test(test_quant_levels),
        cmocka_unit_test(test_exp_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
