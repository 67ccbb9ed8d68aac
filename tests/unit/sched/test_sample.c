/*
 * The sampler against a plain reference: everything in double, all candidates
 * sorted, filters applied one after the other.
 */

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/wrk_sample.h"
#include "worker/wrk_sample_row.h"


#define VOCAB_MAX  5000u
#define HISTORY    64u


typedef struct {
    double    x, w;
    uint32_t  id;
} ref_t;


static uint64_t  rng_state = 88172645463325252ull;


static uint32_t
rnd(uint32_t n)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;

    return (uint32_t) ((rng_state >> 32) % n);
}


static void
fill(float *x, uint32_t n, float spread)
{
    uint32_t  i;

    for (i = 0; i < n; i++) {
        x[i] = ((float) rnd(20001) / 10000.0f - 1) * spread
               + (rnd(50) == 0 ? spread : 0);
    }
}


static int
ref_cmp(const void *a, const void *b)
{
    const ref_t  *x = a, *y = b;

    if (x->x != y->x) {
        return x->x > y->x ? -1 : 1;
    }

    return x->id < y->id ? -1 : 1;
}


static void
ref_change(const wrk_sample_params_t *p, ref_t *r, uint32_t vocab,
    const uint32_t *tokens, uint32_t nprompt, uint32_t ntokens)
{
    uint32_t  i, j, count, seen;
    float     x;

    for (i = 0; i < vocab; i++) {
        x = (float) r[i].x;

        for (j = 0; j < p->nbias; j++) {
            if (p->bias[j].id == i) {
                x += p->bias[j].bias;
            }
        }

        for (j = 0, seen = 0, count = 0; j < ntokens; j++) {
            seen |= tokens[j] == i;
            count += j >= nprompt && tokens[j] == i;
        }

        if (seen && p->repetition != 1) {
            x = x > 0 ? x / p->repetition : x * p->repetition;
        }

        if (count != 0) {
            x -= p->presence + p->frequency * (float) count;
        }

        r[i].x = (double) x;
    }
}


/* Applies the filters; returns how many are left, sorted, with weights. */
static uint32_t
ref_filter(const wrk_sample_params_t *p, ref_t *r, uint32_t vocab)
{
    double    sum, top, acc;
    uint32_t  i, n;

    qsort(r, vocab, sizeof(ref_t), ref_cmp);
    top = r[0].x;
    n = vocab;

    for (i = 0; i < n; i++) {
        r[i].w = exp((r[i].x - top) / (double) p->temperature);
    }

    if (p->min_p > 0) {
        for (i = 0; i < n && r[i].w >= (double) p->min_p * (1 - 1e-6); i++) { }
        n = i;
    }

    if (p->top_k > 0 && (uint32_t) p->top_k < n) {
        n = (uint32_t) p->top_k;
    }

    for (i = 0, sum = 0; i < n; i++) {
        sum += r[i].w;
    }

    if (p->top_p < 1) {
        for (i = 0, acc = 0; i < n && acc < (double) p->top_p * sum; i++) {
            acc += r[i].w;
        }

        n = i;
    }

    return n;
}


static void
random_params(wrk_sample_params_t *p, shr_bias_t *bias, uint32_t vocab)
{
    uint32_t  i;

    wrk_sample_params_init(p);
    p->temperature = 0.2f + (float) rnd(200) / 100;
    p->seed = rnd(1000000);
    p->choice = rnd(4);

    if (rnd(2)) {
        p->top_k = (int32_t) rnd(rnd(2) ? 10 : vocab + 10);
    }

    if (rnd(2)) {
        p->top_p = (float) (1 + rnd(99)) / 100;
    }

    if (rnd(3) == 0) {
        p->min_p = (float) (1 + rnd(99)) / 200;
    }

    if (rnd(3) == 0) {
        p->repetition = 0.8f + (float) rnd(100) / 100;
    }

    if (rnd(3) == 0) {
        p->presence = (float) rnd(400) / 100 - 2;
        p->frequency = (float) rnd(400) / 100 - 2;
    }

    if (rnd(3) == 0) {
        p->nbias = 1 + rnd(5);
        p->bias = bias;

        for (i = 0; i < p->nbias; i++) {
            bias[i].id = rnd(vocab);
            bias[i].bias = (float) rnd(200) - 100;
        }
    }
}


/* Every drawn token is in the reference's set, give or take a token at the
 * edge where float and double disagree. */
static void
test_filters(void **state)
{
    float                x[VOCAB_MAX];
    ref_t                r[VOCAB_MAX];
    uint32_t             i, j, n, round, vocab, tokens[HISTORY], got, nprompt;
    shr_bias_t           bias[8];
    wrk_sampler_t       *s;
    wrk_sample_params_t  p;

    (void) state;

    for (round = 0; round < 300; round++) {
        vocab = 1 + rnd(round % 3 == 0 ? 70 : VOCAB_MAX - 1);
        s = wrk_sampler_create(vocab);
        assert_non_null(s);
        fill(x, vocab, round % 5 == 0 ? 0.1f : 8.0f);
        random_params(&p, bias, vocab);

        for (i = 0; i < HISTORY; i++) {
            tokens[i] = rnd(vocab < 20 ? vocab : 20);
        }

        nprompt = rnd(HISTORY);

        for (i = 0; i < vocab; i++) {
            r[i].x = x[i];
            r[i].id = i;
        }

        ref_change(&p, r, vocab, tokens, nprompt, HISTORY);
        n = ref_filter(&p, r, vocab);

        for (j = 0; j < 40; j++) {
            p.seed += 1;
            got = wrk_sample(s, &p, x, tokens, nprompt, HISTORY);
            assert_true(got < vocab);
            assert_int_equal(got, wrk_sample(s, &p, x, tokens, nprompt,
                                             HISTORY));

            for (i = 0; i < vocab && r[i].id != got; i++) { }

            if (i >= n) {
                assert_true(i <= n + 1);
                assert_true(fabs(r[i].x - r[n - 1].x) < 1e-4);
            }
        }

        wrk_sampler_destroy(s);
    }
}


/* Frequencies agree with the probabilities: 5 sigma for each token. */
static void
test_distribution(void **state)
{
    float                x[200];
    ref_t                r[200];
    double               sum, prob, sigma;
    uint32_t             i, k, n, count[200];
    wrk_sampler_t       *s;
    wrk_sample_params_t  p;
    const uint32_t       draws = 20000;

    (void) state;
    s = wrk_sampler_create(200);

    for (k = 0; k < 5; k++) {
        fill(x, 200, 4);
        wrk_sample_params_init(&p);
        p.temperature = k == 1 ? 1.7f : 0.9f;
        p.top_k = k == 2 ? 7 : 0;
        p.top_p = k == 3 ? 0.8f : 1;
        p.min_p = k == 4 ? 0.1f : 0;

        for (i = 0; i < 200; i++) {
            r[i].x = x[i];
            r[i].id = i;
            count[i] = 0;
        }

        n = ref_filter(&p, r, 200);

        for (i = 0, sum = 0; i < n; i++) {
            sum += r[i].w;
        }

        for (i = 0; i < draws; i++) {
            p.seed = i;
            count[wrk_sample(s, &p, x, NULL, 0, 0)]++;
        }

        for (i = 0; i < 200; i++) {
            prob = i < n ? r[i].w / sum : 0;
            sigma = sqrt(draws * prob * (1 - prob));
            assert_true(fabs(count[r[i].id] - draws * prob) <= 5 * sigma + 1);
        }
    }

    wrk_sampler_destroy(s);
}


static void
test_greedy(void **state)
{
    float                x[130];
    uint32_t             i, tokens[3] = { 7, 7, 100 };
    shr_bias_t           bias = { 3, 100 };
    wrk_sampler_t       *s;
    wrk_sample_params_t  p;

    (void) state;
    s = wrk_sampler_create(130);
    wrk_sample_params_init(&p);

    for (i = 0; i < 130; i++) {
        x[i] = -5;
    }

    x[100] = 2;
    x[129] = 2;
    x[7] = 3;
    x[64] = NAN;
    assert_int_equal(wrk_sample(s, &p, x, NULL, 0, 0), 7);

    p.frequency = 0.6f;             /* 3 - 2 * 0.6 < 2, and 100 has one */
    assert_int_equal(wrk_sample(s, &p, x, tokens, 0, 3), 129);
    assert_int_equal(wrk_sample(s, &p, x, tokens, 3, 3), 7);

    p.frequency = 0;
    p.repetition = 2;               /* counts in the prompt too */
    assert_int_equal(wrk_sample(s, &p, x, tokens, 3, 3), 129);

    p.bias = &bias;
    p.nbias = 1;
    assert_int_equal(wrk_sample(s, &p, x, tokens, 3, 3), 3);

    p.nbias = 0;
    x[7] = NAN;
    x[100] = -INFINITY;
    x[129] = NAN;
    assert_int_equal(wrk_sample(s, &p, x, NULL, 0, 0), 0);

    for (i = 0; i < 130; i++) {
        x[i] = i % 2 ? NAN : -INFINITY;
    }

    assert_int_equal(wrk_sample(s, &p, x, NULL, 0, 0), WRK_SAMPLE_NONE);
    p.temperature = 1;
    assert_int_equal(wrk_sample(s, &p, x, NULL, 0, 0), WRK_SAMPLE_NONE);
    x[5] = INFINITY;
    assert_int_equal(wrk_sample(s, &p, x, NULL, 0, 0), WRK_SAMPLE_NONE);

    wrk_sampler_destroy(s);
}


static void
test_logprobs(void **state)
{
    float           x[VOCAB_MAX];
    ref_t           r[VOCAB_MAX];
    double          sum;
    uint32_t        i, n, round, vocab, ntop, chosen;
    wrk_logprob_t   out[1 + WRK_SAMPLE_TOP_MAX];
    wrk_sampler_t  *s;

    (void) state;

    for (round = 0; round < 100; round++) {
        vocab = 1 + rnd(VOCAB_MAX - 1);
        ntop = rnd(WRK_SAMPLE_TOP_MAX + 1);
        chosen = rnd(vocab);
        fill(x, vocab, 10);
        s = wrk_sampler_create(vocab);

        for (i = 0, sum = 0; i < vocab; i++) {
            r[i].x = x[i];
            r[i].id = i;
            sum += exp((double) x[i]);
        }

        qsort(r, vocab, sizeof(ref_t), ref_cmp);
        n = wrk_sample_logprobs(s, x, chosen, ntop, out);
        assert_int_equal(n, 1 + (ntop < vocab ? ntop : vocab));
        assert_int_equal(out[0].id, chosen);

        for (i = 0; i < n; i++) {
            assert_true(fabs(out[i].logprob - (x[out[i].id] - log(sum)))
                        < 1e-4);

            if (i > 0) {
                assert_int_equal(out[i].id, r[i - 1].id);
            }
        }

        wrk_sampler_destroy(s);
    }
}


/* Known answers of Random123's kat_vectors for philox4x32, 10 rounds. */
static void
test_philox(void **state)
{
    (void) state;
    assert_true(wrk_sample_random(0, 0, 0) == 0xe169c58d6627e8d5ull);
    assert_true(wrk_sample_random(1, 0, 0) != wrk_sample_random(0, 0, 0));
    assert_true(wrk_sample_random(0, 1, 0) != wrk_sample_random(0, 0, 1));
}


static void
test_row_isa(void **state)
{
    float                 x[1000], b0[16], b1[16], e0[1000], e1[1000];
    uint32_t              i, k, n, round;
    const wrk_row_ops_t  *ops[2] = { &wrk_row_avx2, &wrk_row_avx512 };
    int                   have[2] = { 0, 0 };

    (void) state;
#if defined(__x86_64__)
    have[0] = __builtin_cpu_supports("avx2") != 0;
    have[1] = wrk_row_ops() == &wrk_row_avx512;
#endif

    for (round = 0; round < 200; round++) {
        n = 1 + rnd(1000);
        fill(x, n, round % 2 ? 5 : 60);
        x[rnd(n)] = round % 7 ? 1 : NAN;
        x[rnd(n)] = round % 5 ? 1 : -INFINITY;
        wrk_row_base.exps(x, n, 3, 0.7f, e0);

        for (i = 0; i < n; i++) {
            if (isnan(x[i])) {
                assert_true(e0[i] == 0);
            } else if ((x[i] - 3) * 0.7f > -87) {
                assert_true(fabs(e0[i] / exp((double) ((x[i] - 3) * 0.7f)) - 1)
                            < 1e-6);
            }
        }

        for (k = 0; k < 2; k++) {
            if (!have[k]) {
                continue;
            }

            assert_true(wrk_row_base.max(x, n, b0) == ops[k]->max(x, n, b1));
            assert_memory_equal(b0, b1, (n + 63) / 64 * sizeof(float));
            assert_true(wrk_row_base.expsum(x, n, 70, 0.7f, b0)
                        == ops[k]->expsum(x, n, 70, 0.7f, b1));
            assert_memory_equal(b0, b1, (n + 63) / 64 * sizeof(float));
            ops[k]->exps(x, n, 3, 0.7f, e1);
            assert_memory_equal(e0, e1, n * sizeof(float));
        }
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_filters),
        cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_philox),
        cmocka_unit_test(test_row_isa),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
