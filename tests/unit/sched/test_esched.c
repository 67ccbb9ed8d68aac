/*
 * The encoder scheduler on a fake engine: rows reach their inputs whatever the
 * batches are, limits and cuts, rings that are full.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/sched/fake_erun.h"


/* The row of these tokens as the request wants it. */
static void
assert_row(const float *got, const uint32_t *ids, const uint8_t *types,
    uint32_t n, uint32_t dims, int normalize)
{
    float     want[64];
    uint8_t   zero[64] = { 0 };
    uint32_t  k;

    for (k = 0; k < r.fake.info.width; k++) {
        want[k] = fake_value(ids, types != NULL ? types : zero, n, k);
    }

    enc_vector(want, dims, normalize);
    assert_memory_equal(got, want, dims * sizeof(float));
}


static void
test_one_text(void **state)
{
    sink_t          *k = &sinks[0];
    const uint32_t   ids[4] = { FAKE_CLS, 4, 6, FAKE_SEP };

    (void) state;
    begin_run(ENC_EMBED, 16, 64, 8, 8);
    ask(k, SHR_TASK_EMBED, 0, "a c");
    assert_int_equal(k->error, 0);
    assert_int_equal(k->started.prompt_tokens, 4);
    assert_int_equal(k->used.prompt_tokens, 4);
    assert_int_equal(k->used.completion_tokens, 0);
    assert_int_equal(k->nvalues, 8);
    assert_row(k->values, ids, NULL, 4, 8, 0);

    ask(k, SHR_TASK_EMBED, SHR_REQ_NORMALIZE, "a c");
    assert_row(k->values, ids, NULL, 4, 8, 1);

    /* the model's own word, and a request that does not want it */
    r.eng.info.normalize = 1;
    ask(k, SHR_TASK_EMBED, 0, "a c");
    assert_row(k->values, ids, NULL, 4, 8, 1);
    ask(k, SHR_TASK_EMBED, SHR_REQ_RAW, "a c");
    assert_row(k->values, ids, NULL, 4, 8, 0);
    assert_int_equal(r.fake.parked, 1);
    end_run();
}


static void
test_dimensions(void **state)
{
    sink_t          *k = &sinks[0];
    const uint32_t   ids[3] = { FAKE_CLS, 5, FAKE_SEP };

    (void) state;
    begin_run(ENC_EMBED, 16, 64, 8, 8);
    r.eng.info.normalize = 1;
    sink_init(k, 8192);
    begin(SHR_TASK_EMBED, 0);
    ((shr_req_t *) buf)->dims = 3;
    add(SHR_R_PROMPT, "b");
    submit(k);
    run(k, 1);
    assert_int_equal(k->nvalues, 3);
    assert_row(k->values, ids, NULL, 3, 3, 1);

    sink_init(k, 8192);
    begin(SHR_TASK_EMBED, 0);
    ((shr_req_t *) buf)->dims = 9;
    add(SHR_R_PROMPT, "b");
    submit(k);
    assert_int_equal(k->failed.code, SHR_E_INVALID);
    assert_non_null(strstr(k->message, "dimensions"));
    end_run();
}


/* Requests of many sizes at once: every row is the one that its text has
 * alone, whatever was in the batch with it. */
static void
test_many_requests(void **state)
{
    char      text[128];
    uint32_t  i, k, n, m, at, ids[20], turn;

    (void) state;
    srand(7);

    for (turn = 0; turn < 30; turn++) {
        begin_run(ENC_EMBED, 16, 16 + (uint32_t) rand() % 64,
                  1 + (uint32_t) rand() % 12, 5);
        r.fake.delay_ns = turn % 2 ? 5000 : 0;
        srand(turn);

        for (i = 0; i < SINKS; i++) {
            sink_init(&sinks[i], 1500 + (uint32_t) rand() % 8000);
            begin(SHR_TASK_EMBED, 0);

            for (n = 1 + (uint32_t) rand() % 40; n > 0; n--) {
                for (k = 0, m = 1 + (uint32_t) rand() % 14; k < m; k++) {
                    text[2 * k] = (char) ('a' + rand() % 26);
                    text[2 * k + 1] = ' ';
                }

                text[2 * m] = '\0';
                add(SHR_R_PROMPT, text);
            }

            submit(&sinks[i]);
        }

        while (!wrk_esched_idle(r.s)) {
            run(sinks, SINKS);
        }

        srand(turn);

        for (i = 0; i < SINKS; i++) {
            assert_int_equal(sinks[i].end, 1);
            assert_int_equal(sinks[i].error, 0);
            (void) rand();

            for (n = 1 + (uint32_t) rand() % 40, at = 0; n > 0; n--, at += 5)
            {
                m = 1 + (uint32_t) rand() % 14;
                ids[0] = FAKE_CLS;

                for (k = 0; k < m; k++) {
                    ids[k + 1] = 4 + (uint32_t) rand() % 26;
                }

                ids[m + 1] = FAKE_SEP;
                assert_row(sinks[i].values + at, ids, NULL, m + 2, 5, 0);
            }

            assert_int_equal(sinks[i].nvalues, at);
        }

        end_run();
    }
}


/* As many as there may be, a row wider than the ring, a slow reader. */
static void
test_largest(void **state)
{
    uint32_t         i;
    sink_t          *k = &sinks[0];
    const uint32_t   ids[3] = { FAKE_CLS, 4, FAKE_SEP };

    (void) state;
    begin_run(ENC_EMBED, 16, 64, 8, 4);
    sink_init(k, 8192);
    begin(SHR_TASK_EMBED, 0);

    for (i = 0; i < SHR_INPUTS_MAX; i++) {
        add(SHR_R_PROMPT, "a");
    }

    submit(k);
    run(k, 1);
    assert_int_equal(k->done, 1);
    assert_int_equal(k->nvalues, 4 * SHR_INPUTS_MAX);
    assert_row(k->values + 4 * (SHR_INPUTS_MAX - 1), ids, NULL, 3, 4, 0);

    sink_init(k, 8192);
    begin(SHR_TASK_EMBED, 0);

    for (i = 0; i < SHR_INPUTS_MAX + 1; i++) {
        add(SHR_R_PROMPT, "a");
    }

    submit(k);
    assert_int_equal(k->failed.code, SHR_E_INVALID);
    end_run();

    begin_run(ENC_EMBED, 16, 64, 8, 5000);
    sink_init(k, 2048);
    begin(SHR_TASK_EMBED, 0);

    for (i = 0; i < 13; i++) {
        add(SHR_R_PROMPT, "a");
    }

    submit(k);

    for (i = 0; i < 1000 && !k->done; i++) {
        r.fake.now_ns += 1000;
        (void) wrk_esched_step(r.s, r.fake.now_ns);
        assert_true(k->done || k->want_room);
        k->unread = 0;
    }

    assert_int_equal(k->nvalues, 13 * 5000);
    assert_int_equal(k->end, 1);
    end_run();
}


/* While one client does not read, others are served. */
static void
test_slow_reader(void **state)
{
    uint32_t  i;

    (void) state;
    begin_run(ENC_EMBED, 16, 64, 8, 64);
    sink_init(&sinks[0], 2048);
    begin(SHR_TASK_EMBED, 0);

    for (i = 0; i < 1500; i++) {
        add(SHR_R_PROMPT, "a");
    }

    submit(&sinks[0]);

    for (i = 0; i < 4000; i++) {
        r.fake.now_ns += 1000;
        (void) wrk_esched_step(r.s, r.fake.now_ns);
    }

    assert_false(sinks[0].done);
    assert_true(sinks[0].want_room);
    assert_int_equal(wrk_esched_step(r.s, r.fake.now_ns), 0);   /* asleep */
    ask(&sinks[1], SHR_TASK_EMBED, 0, "b");
    assert_int_equal(sinks[1].end, 1);
    sinks[0].cancelled = 1;
    (void) wrk_esched_step(r.s, r.fake.now_ns);
    assert_int_equal(sinks[0].done, 1);
    end_run();
}


/* A large request does not hold up a small one. */
static void
test_sharing(void **state)
{
    uint32_t  i;

    (void) state;
    begin_run(ENC_EMBED, 16, 32, 32, 4);
    sink_init(&sinks[0], 1 << 16);
    begin(SHR_TASK_EMBED, 0);

    for (i = 0; i < 1000; i++) {
        add(SHR_R_PROMPT, "a b");
    }

    submit(&sinks[0]);
    (void) wrk_esched_step(r.s, r.fake.now_ns);
    sink_init(&sinks[1], 8192);
    begin(SHR_TASK_EMBED, 0);
    add(SHR_R_PROMPT, "a");
    submit(&sinks[1]);
    (void) wrk_esched_step(r.s, r.fake.now_ns);
    assert_int_equal(sinks[1].done, 1);
    assert_false(sinks[0].done);
    assert_true(r.fake.last_tokens > 28);   /* and the batch is full */
    run(sinks, 2);
    assert_int_equal(sinks[0].nvalues, 4000);
    end_run();

    /* where sequences are what is short */
    begin_run(ENC_EMBED, 16, 320, 4, 4);
    sink_init(&sinks[0], 1 << 16);
    begin(SHR_TASK_EMBED, 0);

    for (i = 0; i < 1000; i++) {
        add(SHR_R_PROMPT, "a b");
    }

    submit(&sinks[0]);
    (void) wrk_esched_step(r.s, r.fake.now_ns);
    sink_init(&sinks[1], 8192);
    begin(SHR_TASK_EMBED, 0);
    add(SHR_R_PROMPT, "a");
    submit(&sinks[1]);
    (void) wrk_esched_step(r.s, r.fake.now_ns);
    assert_int_equal(sinks[1].done, 1);
    assert_int_equal(r.fake.last_seqs, 4);
    run(sinks, 2);
    end_run();
}


static void
test_context(void **state)
{
    sink_t  *k = &sinks[0];
    const uint32_t  first[5] = { FAKE_CLS, 4, 5, 6, FAKE_SEP };
    const uint32_t  last[5] = { FAKE_CLS, 6, 7, 8, FAKE_SEP };

    (void) state;
    begin_run(ENC_EMBED, 5, 64, 8, 8);
    ask(k, SHR_TASK_EMBED, 0, "a b c");
    assert_int_equal(k->error, 0);
    ask(k, SHR_TASK_EMBED, 0, "a b c d");
    assert_int_equal(k->failed.code, SHR_E_CONTEXT);
    assert_non_null(strstr(k->message, " 5 tokens"));
    assert_non_null(strstr(k->message, " 6 tokens"));
    ask(k, SHR_TASK_EMBED, SHR_REQ_TRUNCATE, "a b c d e");
    assert_int_equal(k->used.prompt_tokens, 5);
    assert_row(k->values, first, NULL, 5, 8, 0);
    ask(k, SHR_TASK_EMBED, SHR_REQ_TRUNCATE|SHR_REQ_LEFT, "a b c d e");
    assert_row(k->values, last, NULL, 5, 8, 0);

    r.opts.context = 4;
    again();
    assert_int_equal(wrk_esched_context(r.s), 4);
    ask(k, SHR_TASK_EMBED, 0, "a b c");
    assert_int_equal(k->failed.code, SHR_E_CONTEXT);
    end_run();
}


/* Pairs: types, and the longer text gives first when they are cut. */
static void
test_rerank(void **state)
{
    float           want;
    sink_t         *k = &sinks[0];
    const uint32_t  pair[6] = { FAKE_CLS, 4, FAKE_SEP, 5, 6, FAKE_SEP };
    const uint8_t   types[6] = { 0, 0, 0, 1, 1, 1 };
    const uint32_t  cut[7] = { FAKE_CLS, 4, FAKE_SEP, 5, 6, 7, FAKE_SEP };
    const uint8_t   cut_types[7] = { 0, 0, 0, 1, 1, 1, 1 };

    (void) state;
    begin_run(ENC_RERANK, 7, 64, 8, 1);
    sink_init(k, 8192);
    begin(SHR_TASK_RERANK, SHR_REQ_RAW | SHR_REQ_TRUNCATE);
    add(SHR_R_QUERY, "a");
    add(SHR_R_PROMPT, "b c");
    add(SHR_R_PROMPT, "b c d e f g");
    submit(k);
    run(k, 1);
    assert_int_equal(k->nvalues, 2);
    assert_true(k->values[0] == fake_value(pair, types, 6, 0));
    assert_true(k->values[1] == fake_value(cut, cut_types, 7, 0));
    assert_int_equal(k->nlabel_bytes, 0);

    sink_init(k, 8192);
    begin(SHR_TASK_RERANK, 0);
    add(SHR_R_QUERY, "a");
    add(SHR_R_PROMPT, "b c");
    submit(k);
    run(k, 1);
    want = fake_value(pair, types, 6, 0);
    enc_scores(&want, 1, ENC_SCORE_SIGMOID);
    assert_true(k->values[0] == want);
    end_run();
}


static void
test_classify(void **state)
{
    float           want[3];
    sink_t         *k = &sinks[0];
    uint32_t        i;
    const uint32_t  ids[3] = { FAKE_CLS, 4, FAKE_SEP };
    const uint32_t  pair[5] = { FAKE_CLS, 4, FAKE_SEP, 5, FAKE_SEP };
    const uint8_t   types[5] = { 0, 0, 0, 1, 1 };

    (void) state;
    begin_run(ENC_CLASSIFY, 16, 64, 8, 3);
    sink_init(k, 8192);
    begin(SHR_TASK_CLASSIFY, 0);
    add(SHR_R_PROMPT, "a");
    add(SHR_R_PROMPT, "a");
    add(SHR_R_PAIR, "b");
    submit(k);
    run(k, 1);
    assert_int_equal(k->nvalues, 6);
    assert_memory_equal(k->labels, "class 0\0class 1\0class 2", 24);
    assert_int_equal(k->nlabel_bytes, 24);

    for (i = 0; i < 3; i++) {
        want[i] = fake_value(ids, types, 3, i);
    }

    enc_scores(want, 3, ENC_SCORE_SOFTMAX);
    assert_memory_equal(k->values, want, sizeof(want));

    for (i = 0; i < 3; i++) {
        want[i] = fake_value(pair, types, 5, i);
    }

    enc_scores(want, 3, ENC_SCORE_SOFTMAX);
    assert_memory_equal(k->values + 3, want, sizeof(want));
    end_run();
}


static void
test_token_ids(void **state)
{
    sink_t    *k = &sinks[0];
    uint32_t   ids[7] = { FAKE_CLS, 9, 9, FAKE_SEP, 4, 4, 4 };

    (void) state;
    begin_run(ENC_EMBED, 6, 64, 8, 8);
    sink_init(k, 8192);
    begin(SHR_TASK_EMBED, 0);
    shr_req_add(&w, SHR_R_PROMPT_IDS, ids, 4 * 4);
    submit(k);
    run(k, 1);
    assert_row(k->values, ids, NULL, 4, 8, 0);

    sink_init(k, 8192);
    begin(SHR_TASK_EMBED, 0);
    shr_req_add(&w, SHR_R_PROMPT_IDS, ids, 7 * 4);
    submit(k);
    assert_int_equal(k->failed.code, SHR_E_CONTEXT);

    sink_init(k, 8192);
    begin(SHR_TASK_EMBED, SHR_REQ_TRUNCATE|SHR_REQ_LEFT);
    shr_req_add(&w, SHR_R_PROMPT_IDS, ids, 7 * 4);
    submit(k);
    run(k, 1);
    assert_row(k->values, ids + 1, NULL, 6, 8, 0);

    ids[1] = FAKE_VOCAB;
    sink_init(k, 8192);
    begin(SHR_TASK_EMBED, 0);
    shr_req_add(&w, SHR_R_PROMPT_IDS, ids, 4 * 4);
    submit(k);
    assert_int_equal(k->failed.code, SHR_E_INVALID);
    end_run();
}


/* Tokens of a text of any length, with their places, through a small ring. */
static void
test_tokenize(void **state)
{
    uint32_t     i;
    static char  text[8001];
    sink_t      *k = &sinks[0];

    (void) state;
    begin_run(ENC_EMBED, 6, 64, 8, 8);
    sink_init(k, 8192);
    begin(SHR_TASK_TOKENIZE, SHR_REQ_OFFSETS);
    add(SHR_R_PROMPT, "a c");
    submit(k);
    assert_int_equal(k->done, 1);
    assert_int_equal(k->nids, 4);
    assert_int_equal(k->noffsets, 4);
    assert_int_equal(k->ids[0], FAKE_CLS);
    assert_int_equal(k->ids[2], 6);

    sink_init(k, 8192);
    begin(SHR_TASK_TOKENIZE, SHR_REQ_NO_SPECIAL);
    add(SHR_R_PROMPT, "a c");
    submit(k);
    assert_int_equal(k->nids, 2);
    assert_int_equal(k->noffsets, 0);

    for (i = 0; i < sizeof(text) - 1; i++) {
        text[i] = i % 2 ? ' ' : 'a';
    }

    sink_init(k, 8192);
    begin(SHR_TASK_TOKENIZE, SHR_REQ_OFFSETS);
    add(SHR_R_PROMPT, text);
    submit(k);
    assert_int_equal(k->done, 0);
    assert_int_equal(k->want_room, 1);

    for (i = 0; i < 100 && !k->done; i++) {
        k->unread = 0;
        (void) wrk_esched_step(r.s, r.fake.now_ns);
    }

    assert_int_equal(k->nids, 4002);
    assert_int_equal(k->noffsets, 4002);
    assert_int_equal(k->used.prompt_tokens, 4002);
    assert_int_equal(r.fake.batches, 0);

    for (i = 0; i < 2; i++) {
        sink_init(k, 8192);
        begin(SHR_TASK_TOKENIZE, 0);
        add(i == 0 ? SHR_R_MESSAGES : SHR_R_PROMPT, "[]");
        add(SHR_R_PROMPT, "a");
        submit(k);
        assert_int_equal(k->failed.code, SHR_E_INVALID);
    }

    end_run();
}


/* What no module sends, and what is for another kind of model. */
static void
test_refusals(void **state)
{
    uint32_t  i, ids[1] = { 4 };
    sink_t   *k = &sinks[0];

    (void) state;
    begin_run(ENC_EMBED, 16, 64, 8, 8);

    for (i = 0; i < 11; i++) {
        sink_init(k, 8192);
        begin(i == 0 ? SHR_TASK_CHAT : i == 1 ? SHR_TASK_RERANK
              : i == 2 ? SHR_TASK_CLASSIFY : SHR_TASK_EMBED, 0);

        switch (i) {
        case 3:                                         /* nothing */
            break;
        case 4:
            add(SHR_R_PROMPT, "");
            break;
        case 5:
            add(SHR_R_PROMPT, "a");
            shr_req_add(&w, SHR_R_PROMPT_IDS, ids, 4);
            break;
        case 6:
            add(SHR_R_PAIR, "a");
            add(SHR_R_PROMPT, "a");
            break;
        case 7:
            add(SHR_R_PROMPT, "a");
            add(SHR_R_PAIR, "b");
            break;
        case 8:
            add(SHR_R_QUERY, "a");
            add(SHR_R_PROMPT, "b");
            break;
        case 9:
            add(SHR_R_PROMPT, "a \xff");
            break;
        case 10:
            add(SHR_R_PROMPT, "a");
            add(SHR_R_STOP, "b");
            break;
        default:
            add(SHR_R_QUERY, "a");
            add(SHR_R_PROMPT, "a");
        }

        submit(k);
        assert_int_equal(k->done, 1);
        assert_int_equal(k->error, 1);
        assert_int_equal(k->failed.code, i < 3 ? SHR_E_UNSUPPORTED
                                               : SHR_E_INVALID);
    }

    ask(k, SHR_TASK_EMBED, 0, "a");
    assert_int_equal(k->error, 0);
    end_run();
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_one_text),
        cmocka_unit_test(test_dimensions),
        cmocka_unit_test(test_many_requests),
        cmocka_unit_test(test_largest),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_sharing),
        cmocka_unit_test(test_context),
        cmocka_unit_test(test_rerank),
        cmocka_unit_test(test_classify),
        cmocka_unit_test(test_token_ids),
        cmocka_unit_test(test_tokenize),
        cmocka_unit_test(test_refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
