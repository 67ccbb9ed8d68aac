/*
 * Real models against what the reference implementation answers, teacher
 * forced: the share of equal best tokens and the difference of the best log
 * probability.  Skips a model whose file is absent.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <cjson/cJSON.h>

#include "worker/engine/eng.h"
#include "worker/kernels/kern.h"

#define IDS_MAX    512

typedef struct {
    eng_t     e;
    uint32_t  steps, equal;
    double    diff;
} golden_t;

static int  ran;


static void
check_step(golden_t *g, const float *logits, const cJSON *top)
{
    const cJSON  *best = cJSON_GetArrayItem(top, 0);
    uint32_t      want, got;
    double        sum, logprob;

    want = (uint32_t) cJSON_GetArrayItem(best, 0)->valuedouble;
    logprob = cJSON_GetArrayItem(best, 1)->valuedouble;
    got = kern_argmax(logits, g->e.limits.vocab);
    sum = kern_logsumexp(logits, g->e.limits.vocab);
    g->steps++;
    g->equal += got == want;
    g->diff += fabs(logits[got] - sum - logprob);
}


static void
check_case(golden_t *g, const cJSON *c)
{
    uint32_t        n = 0, i, prompt, seq;
    eng_tok_t       t[IDS_MAX];
    const cJSON    *id, *steps, *step;
    const float    *l[IDS_MAX];

    assert_int_equal(eng_seq_open(&g->e, &seq), 0);
    memset(t, 0, sizeof(t));
    cJSON_ArrayForEach(id, cJSON_GetObjectItem(c, "prompt_ids")) {
        assert_true(n < IDS_MAX);
        t[n] = (eng_tok_t) { (uint32_t) id->valuedouble, seq, n, 0 };
        n++;
    }
    prompt = n;
    t[n - 1].want_logits = 1;
    cJSON_ArrayForEach(id, cJSON_GetObjectItem(c, "tokens")) {
        assert_true(n < IDS_MAX);
        t[n] = (eng_tok_t) { (uint32_t) id->valuedouble, seq, n, 1 };
        n++;
    }
    n--;                          /* nothing follows the last token */

    assert_int_equal(eng_seq_reserve(&g->e, seq, n), 0);
    assert_int_equal(eng_step(&g->e, t, n, l), 0);
    steps = cJSON_GetObjectItem(c, "steps_top5");
    i = prompt - 1;
    cJSON_ArrayForEach(step, steps) {
        assert_true(i < n);
        check_step(g, l[i++], step);
    }
    eng_seq_close(&g->e, seq);
}


static char *
read_file(const char *path)
{
    long   n;
    char  *p;
    FILE  *f = fopen(path, "rb");

    if (f == NULL) {
        fail_msg("cannot open %s", path);
    }
    fseek(f, 0, SEEK_END);
    n = ftell(f);
    rewind(f);
    p = calloc(1, (size_t) n + 1);
    assert_int_equal(fread(p, 1, (size_t) n, f), n);
    fclose(f);

    return p;
}


/* agree: the least share of equal best tokens; diff: the largest mean
 * difference of the best log probability. */
static void
check_model(const char *name, eng_prec_t precision, double agree, double diff)
{
    char              path[1024], *text;
    cJSON            *root;
    golden_t          g = { .steps = 0 };
    eng_err_t         err;
    const cJSON      *c;
    const char       *dir = getenv("INFER_MODELS"), *home = getenv("HOME");
    eng_model_t      *m;
    eng_ctx_opts_t    co = ENG_CTX_OPTS_INIT;
    eng_model_opts_t  mo = ENG_MODEL_OPTS_INIT;

    if (dir != NULL) {
        snprintf(path, sizeof(path), "%s/%s.gguf", dir, name);
    } else {
        snprintf(path, sizeof(path), "%s/.cache/nginx-infer/%s.gguf",
                 home != NULL ? home : "", name);
    }
    if (access(path, R_OK) != 0) {
        skip();
    }
    ran = 1;
    mo.precision = precision;
    if (eng_model_open(path, &mo, &m, &err) != 0) {
        fail_msg("%s", err.text);
    }
    co.max_seqs = 1;
    co.ctx_len = IDS_MAX;
    co.max_batch_tokens = IDS_MAX;
    co.max_logits = IDS_MAX;
    assert_int_equal(eng_create(m, &co, &g.e, &err), 0);

    snprintf(path, sizeof(path), "tests/golden/engine/generation-%s.json",
             name);
    text = read_file(path);
    root = cJSON_Parse(text);
    assert_non_null(root);
    cJSON_ArrayForEach(c, cJSON_GetObjectItem(root, "cases")) {
        check_case(&g, c);
    }
    print_message("%s%s: %u of %u best tokens equal, mean difference %.5f\n",
                  name, precision == ENG_PREC_EXACT ? ", exact" : "",
                  g.equal, g.steps, g.diff / g.steps);
    assert_true(g.steps > 100);
    assert_true(g.equal >= agree * g.steps);
    assert_true(g.diff <= diff * g.steps);

    cJSON_Delete(root);
    free(text);
    eng_destroy(&g.e);
    eng_model_close(m);
}


static void
test_smollm2(void **state)
{
    (void) state;
    check_model("smollm2", ENG_PREC_INT8, 0.94, 0.08);
}


static void
test_gemma3(void **state)
{
    (void) state;
    check_model("gemma3", ENG_PREC_INT8, 0.94, 0.08);
}


static void
test_smollm2_exact(void **state)
{
    (void) state;
    check_model("smollm2", ENG_PREC_EXACT, 0.99, 0.01);
}


static void
test_gemma3_exact(void **state)
{
    (void) state;
    check_model("gemma3", ENG_PREC_EXACT, 0.99, 0.01);
}


int
main(void)
{
    int                      rc;
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_smollm2),
        cmocka_unit_test(test_gemma3),
        cmocka_unit_test(test_smollm2_exact),
        cmocka_unit_test(test_gemma3_exact),
    };

    rc = cmocka_run_group_tests(tests, NULL, NULL);

    return rc == 0 && !ran ? 77 : rc;
}
