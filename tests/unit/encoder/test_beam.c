/*
 * Beam searches: the reference's answers for many widths and penalties; step
 * by step beside others the same bits as alone; whatever a search is left in,
 * everything is given back.
 */
#include "tests/unit/encoder/tiny_st.h"
#include "worker/encoder/enc_int.h"

#define MODELS  "tests/golden/encoder/families.json"
#define BEAMS   "tests/golden/encoder/beams.json"
#define OUT     32
#define SIDE    4

typedef struct {
    uint32_t         ids[64], n_ids;
    enc_beam_opts_t  o;
    uint32_t         out[OUT], n;
    float            score;
} search_t;

static cJSON        *models, *golden;
static char          path[TINY_PATH];
static enc_model_t  *model;
static enc_t        *e;


static void
open_model(const char *name, double eos)
{
    cJSON        *config;
    const cJSON  *m;

    cJSON_ArrayForEach(m, models) {
        if (strcmp(cJSON_GetObjectItem(m, "name")->valuestring, name) == 0) {
            break;
        }
    }
    assert_non_null(m);
    config = cJSON_GetObjectItem(m, "config");
    cJSON_SetNumberValue(cJSON_GetObjectItem(config, "eos_token_id"), eos);
    tiny_folder(path, m, NULL, NULL);
    model = tiny_open(path, ENC_PREC_F32);
    e = tiny_engine(model, 2);
}


static void
close_model(void)
{
    assert_int_equal(e->free_lanes, e->limits.max_seqs_out);
    assert_int_equal(e->ans.n_free, e->ans.plan.limits.kv_pages);
    assert_int_equal(e->src.n_free, e->src.plan.limits.kv_pages);
    enc_destroy(e);
    enc_model_close(model);
    tiny_drop(path);
}


static uint32_t
source(const search_t *s)
{
    uint32_t     src, at[2] = { 0, s->n_ids };
    enc_batch_t  b = { s->ids, NULL, at, 1 };

    assert_int_equal(enc_sources_open(e, &b, &src), 0);

    return src;
}


static void
read_case(const cJSON *c, search_t *s)
{
    memset(s, 0, sizeof(*s));
    s->n_ids = tiny_ids(cJSON_GetObjectItem(c, "ids"), s->ids, 64);
    s->o.beams = (uint32_t) cJSON_GetObjectItem(c, "beams")->valuedouble;
    s->o.max_new = (uint32_t) cJSON_GetObjectItem(c, "max")->valuedouble;
    s->o.length_penalty = (float) cJSON_GetObjectItem(c,
                                                      "penalty")->valuedouble;
    s->o.early_stopping = cJSON_IsTrue(cJSON_GetObjectItem(c, "early"));
}


/* The search alone, in one call. */
static void
alone(search_t *s)
{
    uint32_t  src = source(s);

    assert_int_equal(enc_beam(e, src, &s->o, s->out, &s->n, &s->score), 0);
    enc_source_close(e, src);
}


/* Keys and values are kept as halves, so of two beams that are nearly as good
 * the other one may be cut: once in a hundred times, and the loss is small. */
static void
test_golden(void **state)
{
    double        d;
    uint32_t      n, t[OUT], cases = 0, others = 0;
    search_t      s;
    const cJSON  *m, *c;

    (void) state;
    cJSON_ArrayForEach(m, golden) {
        open_model(cJSON_GetObjectItem(m, "name")->valuestring,
                   cJSON_GetObjectItem(m, "eos")->valuedouble);
        cJSON_ArrayForEach(c, cJSON_GetObjectItem(m, "cases")) {
            read_case(c, &s);
            alone(&s);
            n = tiny_ids(cJSON_GetObjectItem(c, "tokens"), t, OUT);
            d = (double) s.score
                - cJSON_GetObjectItem(c, "score")->valuedouble;
            d /= fmax(1, fabs((double) s.score));
            if (n != s.n || memcmp(t, s.out, n * sizeof(t[0])) != 0) {
                others++;
                d *= 0.5;
            }
            if (!(fabs(d) < 1e-3)) {
                fail_msg("case %u: %u beams, %u tokens for %u, score off by "
                         "%g", cases, s.o.beams, s.n, n, d);
            }
            cases++;
        }
        close_model();
    }
    assert_true(cases > 200 && others * 100 <= cases);
}


/* ---- beside others ------------------------------------------------------- */

typedef struct {
    search_t    *want;
    uint32_t     src, row, n, begins;
    enc_beam_t  *beam;
    int          over;
} run_t;

static search_t  wants[SIDE];
static uint32_t  greedy[OUT];


static void
learn(const cJSON *m)
{
    uint32_t      i = 0;
    float         score;
    search_t      s;
    const cJSON  *c;

    cJSON_ArrayForEach(c, cJSON_GetObjectItem(m, "cases")) {
        if (i < SIDE) {
            read_case(c, &wants[i]);
            if (wants[i].o.beams < 6) {     /* all of them have lanes */
                alone(&wants[i++]);
            }
        }
    }
    assert_int_equal(i, SIDE);
    s = wants[0];
    s.o = (enc_beam_opts_t) { 1, OUT, 1, 0 };
    i = source(&s);
    assert_int_equal(enc_beam(e, i, &s.o, greedy, &s.n, &score), 0);
    enc_source_close(e, i);
}


/* What a finished search says: the same bits. */
static void
compare(const run_t *r)
{
    float               score;
    double              sum = 0;
    uint32_t            i, n;
    const enc_found_t  *f = enc_beam_best(r->beam, &n, &score);

    assert_int_equal(n, r->want->n);
    assert_memory_equal(&score, &r->want->score, sizeof(score));
    for (i = 0; i < n; i++) {
        assert_int_equal(f[i].token, r->want->out[i]);
        assert_true(f[i].logprob <= 0);
        sum += (double) f[i].logprob;
    }
    sum /= pow(n, (double) r->want->o.length_penalty);
    assert_true(fabs(sum - (double) score) < 1e-3 * fmax(1, fabs(sum)));
}


/* Search i begins in step 2 i; one greedy answer runs through all of it. */
static void
beside(void)
{
    run_t         r[SIDE] = { 0 };
    uint32_t      i, n, k, left = SIDE, seq, src = source(&wants[0]);
    enc_tok_t     t[SIDE * ENC_BEAMS_MAX + 1];
    const float  *rows[SIDE * ENC_BEAMS_MAX + 1];

    assert_int_equal(enc_seq_open(e, src, &seq), 0);
    t[0] = (enc_tok_t) { seq, enc_model_info(model)->start_id };
    for (k = 0; left > 0; k++) {
        for (i = 0, n = k < OUT; i < SIDE; i++) {
            if (k == 2 * i) {
                r[i].want = &wants[i];
                r[i].src = source(r[i].want);
                assert_int_equal(enc_beam_open(e, r[i].src, &r[i].want->o,
                                               &r[i].beam), 0);
            }
            r[i].row = n;
            n += r[i].beam != NULL ? enc_beam_want(r[i].beam, t + n) : 0;
        }
        if (n == 0) {
            continue;
        }
        assert_int_equal(enc_step(e, t, n, rows), 0);
        if (k < OUT) {
            t[0].token = kern_argmax(rows[0], e->limits.vocab);
            assert_int_equal(t[0].token, greedy[k]);
        }
        for (i = 0; i < SIDE; i++) {
            if (r[i].beam == NULL) {
                continue;
            }
            r[i].over = enc_beam_take(r[i].beam, rows + r[i].row);
            assert_true(r[i].over >= 0);
            if (r[i].over) {
                compare(&r[i]);
                enc_beam_close(r[i].beam);
                enc_source_close(e, r[i].src);
                r[i].beam = NULL;
                left--;
            }
        }
    }
    enc_seq_close(e, seq);
    enc_source_close(e, src);
}


static void
test_beside(void **state)
{
    const cJSON  *m;

    (void) state;
    cJSON_ArrayForEach(m, golden) {
        open_model(cJSON_GetObjectItem(m, "name")->valuestring,
                   cJSON_GetObjectItem(m, "eos")->valuedouble);
        learn(m);
        beside();
        close_model();
    }
}


/* Left after k steps, for every k; close_model() counts. */
static void
test_left(void **state)
{
    uint32_t      k, i, n, src;
    enc_tok_t     t[ENC_BEAMS_MAX];
    search_t      s = { .ids = { 2, 17, 5, 40, 1 }, .n_ids = 5,
                        .o = { ENC_BEAMS_MAX, 20, 1, 0 } };
    enc_beam_t   *b;
    const float  *rows[ENC_BEAMS_MAX];

    (void) state;
    open_model("t5-relu-tied", 1);
    for (k = 0; k < 19; k++) {
        src = source(&s);
        assert_int_equal(enc_beam_open(e, src, &s.o, &b), 0);
        for (i = 0; i < k; i++) {
            n = enc_beam_want(b, t);
            assert_true(n == (i == 0 ? 1 : ENC_BEAMS_MAX));
            assert_int_equal(enc_step(e, t, n, rows), 0);
            if (enc_beam_take(b, rows) != 0) {
                break;
            }
        }
        enc_beam_close(b);
        enc_source_close(e, src);
        assert_int_equal(e->free_lanes, e->limits.max_seqs_out);
        assert_int_equal(e->ans.n_free, e->ans.plan.limits.kv_pages);
    }
    close_model();
}


static void
test_refused(void **state)
{
    float            bad[96];
    uint32_t         i, n, src;
    search_t         s = { .ids = { 2, 3, 1 }, .n_ids = 3 };
    enc_tok_t        t[ENC_BEAMS_MAX];
    enc_beam_t      *b, *more[64];
    const float     *rows[ENC_BEAMS_MAX];
    enc_beam_opts_t  o = { 4, 8, 1, 0 }, no[] = {
        { 0, 8, 1, 0 }, { ENC_BEAMS_MAX + 1, 8, 1, 0 }, { 4, 0, 1, 0 },
        { 4, OUT + 1, 1, 0 }, { 4, 8, NAN, 0 }, { 4, 8, INFINITY, 0 },
    };

    (void) state;
    open_model("t5-relu-tied", 1);
    src = source(&s);
    for (i = 0; i < sizeof(no) / sizeof(no[0]); i++) {
        assert_int_equal(enc_beam_open(e, src, &no[i], &b), ENG_EINVAL);
    }
    assert_int_equal(enc_beam_open(e, src + 1, &o, &b), ENG_EINVAL);
    assert_int_equal(e->free_lanes, e->limits.max_seqs_out);

    for (n = 0; enc_beam_open(e, src, &o, &more[n]) == 0; n++) {
        assert_true(n < 63);
    }
    assert_int_equal(n, e->limits.max_seqs_out / 4);
    while (n > 0) {
        enc_beam_close(more[--n]);
    }

    /* values that are none */
    assert_int_equal(e->limits.vocab, 96);
    for (i = 0; i < 96; i++) {
        bad[i] = NAN;
    }
    assert_int_equal(enc_beam_open(e, src, &o, &b), 0);
    n = enc_beam_want(b, t);
    assert_int_equal(enc_step(e, t, n, rows), 0);
    rows[0] = bad;
    assert_int_equal(enc_beam_take(b, rows), ENG_EINVAL);
    enc_beam_close(b);
    enc_source_close(e, src);
    close_model();
}


int
main(void)
{
    int                      failed;
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_beside),
        cmocka_unit_test(test_left),
        cmocka_unit_test(test_refused),
    };

    models = tiny_json(MODELS);
    golden = tiny_json(BEAMS);
    if (models == NULL || golden == NULL) {
        fprintf(stderr, "%s or %s is missing\n", MODELS, BEAMS);
        return 1;
    }
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    cJSON_Delete(models);
    cJSON_Delete(golden);

    return failed;
}
