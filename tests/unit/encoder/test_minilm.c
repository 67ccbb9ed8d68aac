/*
 * all-MiniLM-L6-v2 against the reference's vectors: all texts in one batch,
 * their ids from the golden file.  Skipped where the model is not present.
 */
#include "tests/unit/encoder/tiny_st.h"

#define GOLDEN   "tests/golden/encoder/minilm.jsonl"
#define ROWS     32u
#define DIM      384u
#define TOKENS   4096u
#define LINE     (64u << 10)

static char      model[TINY_PATH];
static uint32_t  ids[TOKENS], offsets[ROWS + 1], rows;
static float     want[ROWS][DIM], got[ROWS * DIM];


static void
load(void)
{
    char         *line = malloc(LINE);
    FILE         *f = fopen(GOLDEN, "r");
    cJSON        *root;
    uint32_t      i;
    const cJSON  *v;

    assert_non_null(f);
    while (fgets(line, LINE, f) != NULL && rows < ROWS) {
        root = cJSON_Parse(line);
        offsets[rows + 1] = offsets[rows]
                            + tiny_ids(cJSON_GetObjectItem(root, "ids"),
                                       ids + offsets[rows],
                                       TOKENS - offsets[rows]);
        i = 0;
        cJSON_ArrayForEach(v, cJSON_GetObjectItem(root, "vec")) {
            want[rows][i++] = (float) v->valuedouble;
        }
        assert_int_equal(i, DIM);
        cJSON_Delete(root);
        rows++;
    }
    fclose(f);
    free(line);
    assert_true(rows >= 20);
}


static double
cosine(const float *a, const float *b)
{
    double    ab = 0, aa = 0, bb = 0;
    uint32_t  i;

    for (i = 0; i < DIM; i++) {
        ab += (double) a[i] * (double) b[i];
        aa += (double) a[i] * (double) a[i];
        bb += (double) b[i] * (double) b[i];
    }

    return ab / sqrt(aa * bb);
}


static void
check(enc_prec_t precision, double least, double mean)
{
    double        c, sum = 0;
    enc_t        *e;
    uint32_t      i;
    eng_err_t     err;
    enc_opts_t    o = ENC_OPTS_INIT;
    enc_batch_t   b = { ids, NULL, offsets, rows };
    enc_model_t  *m = tiny_open(model, precision);

    assert_int_equal(enc_model_info(m)->pool, ENC_POOL_MEAN);
    assert_int_equal(enc_model_info(m)->normalize, 1);
    assert_int_equal(enc_model_info(m)->max_seq, 256);
    assert_int_equal(enc_create(m, &o, &e, &err), 0);
    assert_int_equal(enc_run(e, &b, got), 0);
    for (i = 0; i < rows; i++) {
        c = cosine(got + i * DIM, want[i]);
        if (!(c >= least)) {
            fail_msg("text %u: cosine %.7f, at least %.7f", i, c, least);
        }
        sum += c;
    }
    assert_true(sum / rows >= mean);
    enc_destroy(e);
    enc_model_close(m);
}


static void
test_float32(void **state)
{
    (void) state;
    check(ENC_PREC_F32, 0.99999, 0.999999);
}


static void
test_bfloat16(void **state)
{
    (void) state;
    check(ENC_PREC_BF16, 0.9999, 0.9999);
}


static void
test_int8(void **state)
{
    (void) state;
    check(ENC_PREC_INT8, 0.9993, 0.9997);
}


int
main(void)
{
    const char               *dir = getenv("INFER_MODELS");
    const struct CMUnitTest   tests[] = {
        cmocka_unit_test(test_float32),
        cmocka_unit_test(test_bfloat16),
        cmocka_unit_test(test_int8),
    };

    snprintf(model, sizeof(model), "%s%s/minilm", dir != NULL ? dir
             : getenv("HOME"), dir != NULL ? "" : "/.cache/nginx-infer");
    if (access(model, R_OK) != 0) {
        fprintf(stderr, "%s: not here, skipped\n", model);
        return 77;
    }
    load();

    return cmocka_run_group_tests(tests, NULL, NULL);
}
