/*
 * Every family against the reference's outputs for small models
 * (tests/golden/encoder), alone and in batches, with one and more threads.
 */
#include "tests/unit/encoder/tiny_st.h"
#include "worker/kernels/kern.h"

#define GOLDEN  "tests/golden/encoder/families.json"
#define CASES   16u
#define WIDTH   256u
#define COPIES  20u

typedef struct {
    uint32_t      ids[CASES * 64], offsets[CASES + 1], n;
    uint8_t       types[CASES * 64];
    int           typed;
    const cJSON  *want[CASES];
} cases_t;

static cJSON  *golden;


static void
load(cases_t *c, const cJSON *model, const char *want)
{
    uint32_t      i, at = 0;
    const cJSON  *x;

    memset(c, 0, sizeof(*c));
    cJSON_ArrayForEach(x, cJSON_GetObjectItem(model, "cases")) {
        at += tiny_ids(cJSON_GetObjectItem(x, "ids"), c->ids + at, 64);
        c->want[c->n] = cJSON_GetObjectItem(x, want);
        c->offsets[++c->n] = at;
        c->typed = cJSON_IsTrue(cJSON_GetObjectItem(x, "types"));
        for (i = c->offsets[c->n - 1]; i < at; i++) {
            c->types[i] = (uint8_t) ((i - c->offsets[c->n - 1]) % 2);
        }
    }
    assert_true(c->n > 0 && c->want[0] != NULL);
}


static double
distance(const float *a, const cJSON *want, uint32_t n)
{
    double        d = 0, max = 0;
    uint32_t      i = 0;
    const cJSON  *v;

    cJSON_ArrayForEach(v, want) {
        d = fabs((double) a[i++] - v->valuedouble);
        max = d > max || d != d ? d : max;
    }
    assert_int_equal(i, n);

    return max;
}


/* The cases twenty times over: many tasks, which go to any thread. */
static void
many(enc_t *e, const cases_t *c, const float *all)
{
    static float     got[COPIES * CASES * WIDTH];
    static uint8_t   types[COPIES * CASES * 64];
    static uint32_t  ids[COPIES * CASES * 64], at[COPIES * CASES + 1];
    uint32_t         i, n = c->offsets[c->n], w = enc_limits(e)->width;
    enc_batch_t      b = { ids, c->typed ? types : NULL, at,
                           COPIES * c->n };

    for (i = 0; i < COPIES; i++) {
        memcpy(ids + i * n, c->ids, n * sizeof(ids[0]));
        memcpy(types + i * n, c->types, n);
    }
    for (i = 0; i <= COPIES * c->n; i++) {
        at[i] = i / c->n * n + c->offsets[i % c->n];
    }
    assert_int_equal(enc_run(e, &b, got), 0);
    for (i = 0; i < COPIES; i++) {
        assert_memory_equal(got + i * c->n * w, all,
                            c->n * w * sizeof(float));
    }
}


/* All cases at once, then each alone: equal bits, and near the golden. */
static void
check(const enc_model_t *m, const cases_t *c, const char *name,
    enc_pool_t pool, double limit, uint32_t threads)
{
    float         all[CASES * WIDTH], one[WIDTH];
    double        d;
    enc_t        *e = tiny_engine(m, threads);
    uint32_t      i, w = enc_limits(e)->width, at[2] = { 0, 0 };
    enc_batch_t   b = { c->ids, c->typed ? c->types : NULL, c->offsets,
                        c->n };

    assert_true(w <= WIDTH);
    if (enc_model_info(m)->kind == ENC_EMBED) {
        enc_set_pool(e, pool);
    }
    assert_int_equal(enc_run(e, &b, all), 0);
    for (i = 0; i < c->n; i++) {
        d = distance(all + i * w, c->want[i], w);
        if (!(d <= limit)) {
            fail_msg("%s, case %u: off by %g, at most %g", name, i, d, limit);
        }
        at[1] = c->offsets[i + 1] - c->offsets[i];
        b = (enc_batch_t) { c->ids + c->offsets[i],
                            c->typed ? c->types + c->offsets[i] : NULL, at,
                            1 };
        assert_int_equal(enc_run(e, &b, one), 0);
        assert_memory_equal(one, all + i * w, w * sizeof(float));
    }
    many(e, c, all);
    enc_destroy(e);
}


static void
test_float32(void **state)
{
    char          path[TINY_PATH];
    cases_t       c;
    const char   *name;
    const cJSON  *model;
    enc_model_t  *m;

    (void) state;
    cJSON_ArrayForEach(model, golden) {
        name = cJSON_GetObjectItem(model, "name")->valuestring;
        if (strncmp(name, "t5", 2) == 0) {
            continue;
        }
        tiny_folder(path, model, NULL, NULL);
        m = tiny_open(path, ENC_PREC_F32);
        if (enc_model_info(m)->kind == ENC_EMBED) {
            load(&c, model, "mean");
            check(m, &c, name, ENC_POOL_MEAN, 1e-5, 1);
            check(m, &c, name, ENC_POOL_MEAN, 1e-5, 3);
            load(&c, model, "cls");
            check(m, &c, name, ENC_POOL_CLS, 1e-5, 2);
        } else {
            load(&c, model, "logits");
            check(m, &c, name, ENC_POOL_CLS, 1e-5, 1);
            check(m, &c, name, ENC_POOL_CLS, 1e-5, 2);
        }
        enc_model_close(m);
        tiny_drop(path);
    }
}


/* The lossy ones stay near; how near real models stay is in test_minilm. */
static void
test_lossy(void **state)
{
    int           k;
    char          path[TINY_PATH];
    cases_t       c;
    const char   *name;
    const cJSON  *model;
    enc_model_t  *m;

    (void) state;
    for (k = 0; k < 2; k++) {
        cJSON_ArrayForEach(model, golden) {
            name = cJSON_GetObjectItem(model, "name")->valuestring;
            if (strncmp(name, "t5", 2) == 0) {
                continue;
            }
            tiny_folder(path, model, NULL, NULL);
            m = tiny_open(path, k == 0 ? ENC_PREC_BF16 : ENC_PREC_INT8);
            load(&c, model, enc_model_info(m)->kind == ENC_EMBED ? "mean"
                                                                 : "logits");
            check(m, &c, name, ENC_POOL_MEAN, k == 0 ? 0.1 : 0.2, 2);
            enc_model_close(m);
            tiny_drop(path);
        }
    }
}


/* With bfloat16, alone and in a batch, at every level of kernels that this
   CPU has: the same bits. */
static void
test_levels(void **state)
{
    int                level;
    char               path[TINY_PATH];
    float              first[CASES * WIDTH], got[CASES * WIDTH];
    enc_t             *e;
    cases_t            c;
    size_t             bytes;
    eng_err_t          err;
    const cJSON       *model;
    enc_batch_t        b;
    enc_model_t       *m;
    enc_model_opts_t   mo = ENC_MODEL_OPTS_INIT;

    (void) state;
    mo.precision = ENC_PREC_BF16;
    cJSON_ArrayForEach(model, golden) {
        if (cJSON_GetObjectItem(cJSON_GetObjectItem(model, "cases")->child,
                                "mean") == NULL)
        {
            continue;
        }
        tiny_folder(path, model, NULL, NULL);
        load(&c, model, "mean");
        for (level = KERN_ISA_SCALAR; level < KERN_ISA_N; level++) {
            mo.kern_level = kern_isa_name((kern_isa_t) level);
            if (!kern_isa_supported((kern_isa_t) level)) {
                continue;
            }
            assert_int_equal(enc_model_open(path, &mo, &m, &err), 0);
            e = tiny_engine(m, 1 + (uint32_t) level % 3);
            bytes = enc_limits(e)->width * sizeof(float);
            b = (enc_batch_t) { c.ids, c.typed ? c.types : NULL, c.offsets,
                                c.n };
            assert_int_equal(enc_run(e, &b, got), 0);
            if (level == KERN_ISA_SCALAR) {
                memcpy(first, got, c.n * bytes);
            }
            assert_memory_equal(first, got, c.n * bytes);
            b.n_seqs = 1;
            assert_int_equal(enc_run(e, &b, got), 0);
            assert_memory_equal(first, got, bytes);
            enc_destroy(e);
            enc_model_close(m);
        }
        tiny_drop(path);
    }
    assert_int_equal(kern_init(KERN_ISA_AUTO), KERN_OK);
}


static void
test_facts(void **state)
{
    char               path[TINY_PATH];
    const char        *name;
    const cJSON       *model;
    enc_info_t         info;
    eng_err_t          err;
    enc_opts_t         co = ENC_OPTS_INIT;
    enc_model_t       *m;
    enc_model_opts_t   mo = ENC_MODEL_OPTS_INIT;

    (void) state;
    cJSON_ArrayForEach(model, golden) {
        name = cJSON_GetObjectItem(model, "name")->valuestring;
        tiny_folder(path, model, NULL, NULL);
        assert_int_equal(enc_can_open(path), 1);
        assert_int_equal(enc_model_check(path, &mo, &co, &info, &err), 0);
        assert_int_equal(info.vocab, 96);
        assert_int_equal(info.embd, 64);
        if (strcmp(name, "modernbert-classifier") == 0) {
            assert_int_equal(info.kind, ENC_CLASSIFY);
            assert_int_equal(info.labels, 3);
            assert_int_equal(info.score, ENC_SCORE_SOFTMAX);
            m = tiny_open(path, ENC_PREC_AUTO);
            assert_string_equal(enc_model_label(m, 1), "NEUTRAL");
            enc_model_close(m);
        }
        if (strcmp(name, "bert-reranker") == 0) {
            assert_int_equal(info.kind, ENC_RERANK);
            assert_int_equal(info.score, ENC_SCORE_SIGMOID);
        }
        if (strcmp(name, "roberta") == 0) {
            assert_int_equal(info.max_seq, 78);     /* 80 - pad id - 1 */
        }
        if (strncmp(name, "t5", 2) == 0) {
            assert_int_equal(info.kind, ENC_T2T);
            assert_true(info.kv_bytes > 0);
        }
        tiny_drop(path);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_float32),
        cmocka_unit_test(test_lossy),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_facts),
    };

    golden = tiny_json(GOLDEN);
    if (golden == NULL) {
        fprintf(stderr, "%s is missing\n", GOLDEN);
        return 1;
    }

    return cmocka_run_group_tests(tests, NULL, NULL);
}
