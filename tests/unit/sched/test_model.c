/*
 * The scheduler on a real model: the same bytes whether a request runs alone,
 * in a batch, with its prompt in chunks, or computed again after a preemption.
 * Needs smollm2.gguf in INFER_MODELS (default ~/.cache/nginx-infer).
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/sched/fake_run.h"


#define REQUESTS  10u


static char         path[4096];
static block_t      block;
static sink_t       alone[REQUESTS], sinks[REQUESTS];
static eng_model_t *model;
static tok_t       *tok;
static const char  *texts[REQUESTS] = {
    "The capital of France is", "def fibonacci(n):", "Once upon a time",
    "1, 2, 3, 4,", "nginx is a web server that", "Water boils at",
    "The three primary colours are", "In 1969, the first", "To be or not to",
    "A recipe for bread: take flour, water, salt and yeast. Knead the dough "
    "for ten minutes, let it rise for an hour, then"
};


static void
request(uint32_t i)
{
    block_fields(&block.fixed, SHR_TASK_COMPLETE);
    block.fixed.flags = SHR_REQ_SEED | SHR_REQ_IGNORE_EOS
                        | (i % 4 == 3 ? SHR_REQ_LOGPROBS : 0);
    block.fixed.top_logprobs = 2;
    block.fixed.seed = i;
    block.fixed.temperature = i % 2 ? 0.9f : 0;
    block.fixed.top_p = i % 3 ? 0.9f : 1;
    block.fixed.n = i == 8 ? 2 : 1;
    block.fixed.max_tokens = 40 + i;
    block_begin(&block);
    shr_req_add(&block.w, SHR_R_PROMPT, texts[i], strlen(texts[i]));
    block_end(&block);
}


/* Runs all of them, at once or one after the other; the counters. */
static void
run_model(sink_t *to, int together, uint32_t batch, uint32_t ctx,
    uint64_t kv_bytes, uint64_t counts[SHR_NCOUNTERS])
{
    uint32_t          i;
    uint64_t          now;
    eng_t             eng;
    eng_err_t         err;
    wrk_sched_t      *s;
    eng_ctx_opts_t    co = ENG_CTX_OPTS_INIT;
    wrk_sched_opts_t  so;

    co.max_seqs = 6;
    co.ctx_len = ctx;
    co.max_batch_tokens = 64;
    co.kv_bytes = kv_bytes;
    assert_int_equal(eng_create(model, &co, &eng, &err), 0);
    wrk_sched_opts_init(&so);
    so.sequences = 6;
    so.batch = batch;
    so.request_bytes_max = 1 << 16;
    s = wrk_sched_create(&so, &eng, tok, NULL, NULL);
    assert_non_null(s);
    now = 1;

    for (i = 0; i < REQUESTS; i++) {
        sink_init(&to[i], 1 << 16);
        request(i);
        wrk_sched_submit(s, block.buf, block.w.len, &sink_ops, &to[i], now);

        while (!together && wrk_sched_step(s, now)) { /* void */ }
    }

    while (wrk_sched_step(s, now)) { /* void */ }

    for (i = 0; i < REQUESTS; i++) {
        assert_int_equal(to[i].done, 1);
        assert_int_equal(to[i].error, 0);
    }

    wrk_sched_stats(s, counts);
    wrk_sched_destroy(s);
    eng_destroy(&eng);
}


static void
compare(void)
{
    uint32_t  i;

    for (i = 0; i < REQUESTS; i++) {
        assert_memory_equal(alone[i].choices, sinks[i].choices,
                            2 * sizeof(sink_choice_t));
        assert_int_equal(alone[i].nlogprobs, sinks[i].nlogprobs);
        assert_memory_equal(alone[i].logprobs, sinks[i].logprobs,
                            sizeof(alone[i].logprobs[0])
                            * alone[i].nlogprobs);
    }
}


static void
test_same(void **state)
{
    uint64_t   counts[SHR_NCOUNTERS], page;
    eng_err_t  err;
    eng_model_opts_t  mo = ENG_MODEL_OPTS_INIT;
    tok_err_t  terr;

    (void) state;
    assert_int_equal(eng_model_open(path, &mo, &model, &err), 0);
    assert_int_equal(tok_open(&tok, path, &terr), 0);

    run_model(alone, 0, 64, 128, 0, counts);
    assert_true(alone[0].choices[0].len > 0);
    run_model(sinks, 1, 64, 128, 0, counts);
    compare();
    run_model(sinks, 1, 7, 128, 0, counts);
    compare();

    /* room for little more than one sequence of the whole context */
    page = eng_model_info(model)->kv_bytes_per_token;
    run_model(sinks, 1, 16, 128, page * 128, counts);
    assert_true(counts[SHR_C_PREEMPTED] > 0);
    compare();

    tok_close(tok);
    eng_model_close(model);
}


int
main(void)
{
    const char               *dir = getenv("INFER_MODELS");
    const char               *home = getenv("HOME");
    const struct CMUnitTest   tests[] = {
        cmocka_unit_test(test_same),
    };

    if (dir != NULL) {
        snprintf(path, sizeof(path), "%s/smollm2.gguf", dir);

    } else {
        snprintf(path, sizeof(path), "%s/.cache/nginx-infer/smollm2.gguf",
                 home != NULL ? home : "");
    }

    if (access(path, R_OK) != 0) {
        printf("no model at %s\n", path);
        return 77;
    }

    return cmocka_run_group_tests(tests, NULL, NULL);
}
