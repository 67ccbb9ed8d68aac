/*
 * Encoder-decoder models: greedy answers, logits and beams of small models
 * against the reference's, several sequences in a step, forks; and the full
 * size T5 with formula weights where it is present.
 */
#include "tests/unit/encoder/tiny_st.h"
#include "worker/encoder/enc_beam.h"
#include "worker/kernels/kern.h"

#define GOLDEN  "tests/golden/encoder/families.json"
#define T5      "tests/golden/encoder/t5-small.json"

static cJSON  *golden;


static double
log_prob(const float *logits, uint32_t n, uint32_t token)
{
    return (double) (logits[token] - kern_logsumexp(logits, n));
}


/* Teacher forced: every target's log probability, near the golden. */
static void
forced(enc_t *e, const cJSON *c, uint32_t start, double limit)
{
    double         d;
    uint32_t       i, n, src, seq, at[2] = { 0, 0 }, ids[512], t[64];
    enc_tok_t      tok;
    enc_batch_t    b = { ids, NULL, at, 1 };
    const float   *logits;
    const cJSON   *want = cJSON_GetObjectItem(c, "logprob");

    at[1] = tiny_ids(cJSON_GetObjectItem(c, "ids"), ids, 512);
    n = tiny_ids(cJSON_GetObjectItem(c, "target"), t, 64);
    assert_int_equal(enc_sources_open(e, &b, &src), 0);
    assert_int_equal(enc_seq_open(e, src, &seq), 0);
    tok = (enc_tok_t) { seq, start };
    for (i = 0; i < n; i++) {
        assert_int_equal(enc_step(e, &tok, 1, &logits), 0);
        d = log_prob(logits, enc_limits(e)->vocab, t[i])
            - cJSON_GetArrayItem(want, (int) i)->valuedouble;
        if (!(fabs(d) <= limit)) {
            fail_msg("step %u: log probability off by %g", i, d);
        }
        tok.token = t[i];
    }
    enc_seq_close(e, seq);
    enc_source_close(e, src);
}


static void
beams(enc_t *e, const cJSON *c, uint32_t width, const char *want)
{
    float            score;
    uint32_t         n, n_want, src, at[2] = { 0, 0 }, ids[512], t[64];
    uint32_t         out[64];
    enc_batch_t      b = { ids, NULL, at, 1 };
    enc_beam_opts_t  o = { width, 12, 1.0f, 0 };

    at[1] = tiny_ids(cJSON_GetObjectItem(c, "ids"), ids, 512);
    n_want = tiny_ids(cJSON_GetObjectItem(c, want), t, 64);
    assert_int_equal(enc_sources_open(e, &b, &src), 0);
    assert_int_equal(enc_beam(e, src, &o, out, &n, &score), 0);
    assert_int_equal(n, n_want);
    assert_memory_equal(out, t, n * sizeof(out[0]));
    if (width > 1) {
        assert_true(fabs((double) score - cJSON_GetObjectItem(c,
                         "beam_score")->valuedouble) < 2e-3);
    }
    enc_source_close(e, src);
}


static void
each(enc_prec_t precision,
    void (*fn)(enc_t *e, const cJSON *model, uint32_t start))
{
    char          path[TINY_PATH];
    uint32_t      threads;
    enc_t        *e;
    const cJSON  *model;
    enc_model_t  *m;

    cJSON_ArrayForEach(model, golden) {
        if (strncmp(cJSON_GetObjectItem(model, "name")->valuestring, "t5", 2)
            != 0)
        {
            continue;
        }
        tiny_folder(path, model, NULL, NULL);
        m = tiny_open(path, precision);
        for (threads = 1; threads < 4; threads++) {
            e = tiny_engine(m, threads);
            fn(e, model, enc_model_info(m)->start_id);
            enc_destroy(e);
        }
        enc_model_close(m);
        tiny_drop(path);
    }
}


static void
all_forced(enc_t *e, const cJSON *model, uint32_t start)
{
    const cJSON  *c;

    cJSON_ArrayForEach(c, cJSON_GetObjectItem(model, "cases")) {
        /* keys and values are kept as halves */
        forced(e, c, start, 5e-3);
        beams(e, c, 1, "target");
        beams(e, c, 3, "beam");
    }
}


static void
test_golden(void **state)
{
    (void) state;
    each(ENC_PREC_F32, all_forced);
}


static void
rounded_forced(enc_t *e, const cJSON *model, uint32_t start)
{
    const cJSON  *c;

    cJSON_ArrayForEach(c, cJSON_GetObjectItem(model, "cases")) {
        forced(e, c, start, 0.5);
    }
}


/* Weights and inputs of eight bits: near, here with a layer or two. */
static void
test_bfloat16(void **state)
{
    (void) state;
    each(ENC_PREC_BF16, rounded_forced);
}


/* Four sources encoded at once, two answers each, one of them a fork: the
   same bits as one by one. */
static void
together(enc_t *e, const cJSON *model, uint32_t start)
{
    float         *alone;
    uint32_t       i, k, n = 0, ids[512], at[8] = { 0 }, src[8], seq[16];
    uint32_t       vocab = enc_limits(e)->vocab, s, one[2] = { 0, 0 };
    enc_tok_t      tok[16];
    const float   *logits[16], *l1;
    const cJSON   *c;
    enc_batch_t    b = { ids, NULL, at, 0 }, b1;

    cJSON_ArrayForEach(c, cJSON_GetObjectItem(model, "cases")) {
        at[n + 1] = at[n] + tiny_ids(cJSON_GetObjectItem(c, "ids"),
                                     ids + at[n], 64);
        n++;
    }
    b.n_seqs = n;
    assert_int_equal(enc_sources_open(e, &b, src), 0);
    for (i = 0; i < n; i++) {
        assert_int_equal(enc_seq_open(e, src[i], &seq[i]), 0);
        assert_int_equal(enc_seq_open(e, src[i], &seq[n + i]), 0);
        tok[i] = (enc_tok_t) { seq[i], start };
    }
    assert_int_equal(enc_step(e, tok, n, logits), 0);
    for (i = 0; i < n; i++) {
        assert_int_equal(enc_seq_fork(e, seq[n + i], seq[i]), 0);
        tok[i] = (enc_tok_t) { seq[i], 7 };
        tok[n + i] = (enc_tok_t) { seq[n + i], 9 };
    }
    assert_int_equal(enc_step(e, tok, 2 * n, logits), 0);
    alone = malloc(2 * n * vocab * sizeof(float));
    for (i = 0; i < 2 * n; i++) {
        memcpy(alone + i * vocab, logits[i], vocab * sizeof(float));
    }
    for (i = 0; i < 2 * n; i++) {
        enc_seq_close(e, seq[i]);
    }
    for (i = 0; i < n; i++) {
        enc_source_close(e, src[i]);
    }

    for (i = 0; i < 2 * n; i++) {
        k = i % n;
        one[1] = at[k + 1] - at[k];
        b1 = (enc_batch_t) { ids + at[k], NULL, one, 1 };
        assert_int_equal(enc_sources_open(e, &b1, &s), 0);
        assert_int_equal(enc_seq_open(e, s, &seq[0]), 0);
        tok[0] = (enc_tok_t) { seq[0], start };
        assert_int_equal(enc_step(e, tok, 1, &l1), 0);
        tok[0].token = i < n ? 7 : 9;
        assert_int_equal(enc_step(e, tok, 1, &l1), 0);
        assert_memory_equal(l1, alone + i * vocab, vocab * sizeof(float));
        enc_seq_close(e, seq[0]);
        enc_source_close(e, s);
    }
    free(alone);
}


static void
test_together(void **state)
{
    (void) state;
    each(ENC_PREC_F32, together);
    each(ENC_PREC_BF16, together);
}


/* What the contract refuses. */
static void
refused(enc_t *e, const cJSON *model, uint32_t start)
{
    uint32_t      i, src, seq, s[64], at[2] = { 0, 3 };
    uint32_t      ids[3] = { 5, 6, 1 };
    enc_tok_t     tok;
    enc_batch_t   b = { ids, NULL, at, 1 };
    const float  *l;

    (void) model;
    tok = (enc_tok_t) { 0, start };
    assert_int_equal(enc_step(e, &tok, 1, &l), ENG_EINVAL);
    assert_int_equal(enc_seq_open(e, 0, &seq), ENG_EINVAL);
    ids[2] = 96;
    assert_int_equal(enc_sources_open(e, &b, &src), ENG_EINVAL);
    ids[2] = 1;
    for (i = 0; i < enc_limits(e)->max_sources; i++) {
        assert_int_equal(enc_sources_open(e, &b, &s[i]), 0);
    }
    assert_int_equal(enc_sources_open(e, &b, &src), ENG_ENOSEQ);
    assert_int_equal(enc_seq_open(e, s[0], &seq), 0);
    tok = (enc_tok_t) { seq, start };
    for (i = 0; i < enc_limits(e)->max_out; i++) {
        assert_int_equal(enc_step(e, &tok, 1, &l), 0);
    }
    assert_int_equal(enc_step(e, &tok, 1, &l), ENG_ELIMIT);
    enc_seq_close(e, seq);
    for (i = 0; i < enc_limits(e)->max_sources; i++) {
        enc_source_close(e, s[i]);
    }
}


static void
test_refused(void **state)
{
    (void) state;
    each(ENC_PREC_F32, refused);
}


/* t5-small.json: text's ids, a greedy answer with the five best per step. */
static void
test_small(void **state)
{
    char           path[TINY_PATH];
    enc_t         *e;
    uint32_t       i, n, best, src, seq, ids[512], t[64], at[2] = { 0, 0 };
    enc_tok_t      tok;
    eng_err_t      err;
    enc_opts_t     o = ENC_OPTS_INIT;
    enc_batch_t    b = { ids, NULL, at, 1 };
    const cJSON   *c, *top;
    const float   *l;
    enc_model_t   *m;
    cJSON         *root = tiny_json(T5);
    const char    *models = getenv("INFER_MODELS");

    (void) state;
    assert_non_null(root);
    snprintf(path, sizeof(path), "%s%s/t5-small", models != NULL ? models
             : getenv("HOME"), models != NULL ? "" : "/.cache/nginx-infer");
    if (access(path, R_OK) != 0) {
        cJSON_Delete(root);
        skip();
    }
    m = tiny_open(path, ENC_PREC_F32);
    assert_int_equal(enc_create(m, &o, &e, &err), 0);
    cJSON_ArrayForEach(c, cJSON_GetObjectItem(root, "cases")) {
        at[1] = tiny_ids(cJSON_GetObjectItem(c, "input_ids"), ids, 512);
        n = tiny_ids(cJSON_GetObjectItem(c, "tokens"), t, 64);
        assert_int_equal(enc_sources_open(e, &b, &src), 0);
        assert_int_equal(enc_seq_open(e, src, &seq), 0);
        tok = (enc_tok_t) { seq, 0 };
        for (i = 0; i < n; i++) {
            assert_int_equal(enc_step(e, &tok, 1, &l), 0);
            best = kern_argmax(l, enc_limits(e)->vocab);
            top = cJSON_GetArrayItem(cJSON_GetObjectItem(c, "steps_top5"),
                                     (int) i);
            if (best != t[i]) {
                /* close calls may go either way */
                assert_true(cJSON_GetArrayItem(cJSON_GetArrayItem(top, 0),
                                               1)->valuedouble
                            - cJSON_GetArrayItem(cJSON_GetArrayItem(top, 1),
                                                 1)->valuedouble < 0.02);
            }
            assert_true(fabs(log_prob(l, enc_limits(e)->vocab, t[i])
                        - cJSON_GetArrayItem(cJSON_GetArrayItem(top, 0),
                                             1)->valuedouble) < 0.02);
            tok.token = t[i];
        }
        enc_seq_close(e, seq);
        enc_source_close(e, src);
    }
    enc_destroy(e);
    enc_model_close(m);
    cJSON_Delete(root);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_bfloat16),
        cmocka_unit_test(test_together),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_small),
    };

    golden = tiny_json(GOLDEN);
    if (golden == NULL) {
        fprintf(stderr, "%s is missing\n", GOLDEN);
        return 1;
    }

    return cmocka_run_group_tests(tests, NULL, NULL);
}
