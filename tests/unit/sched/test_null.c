/* The null engine: its answers, and that a delay does not block. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/unit/sched/fake_run.h"
#include "worker/wrk_null.h"


static block_t   block;
static sink_t    sinks[3];
static uint64_t  now;


static uint64_t
test_clock(void *data)
{
    return *(uint64_t *) data;
}


static wrk_sched_t *
open_null(eng_t *eng, tok_t *tok, chat_template_t *tmpl,
    const wrk_null_opts_t *no)
{
    wrk_sched_t       *s;
    wrk_sched_opts_t   opts;

    assert_int_equal(wrk_null_create(no, tok, eng), 0);
    wrk_sched_opts_init(&opts);
    opts.request_bytes_max = 1 << 16;
    opts.clock = test_clock;
    opts.clock_data = &now;
    s = wrk_sched_create(&opts, eng, tok, tmpl, NULL);
    assert_non_null(s);

    return s;
}


/* One choice, two, and three cut short: each request has its own sink. */
static void
submit_three(wrk_sched_t *s, const char *msgs)
{
    uint32_t  i;

    for (i = 0; i < 3; i++) {
        sink_init(&sinks[i], 8192);
        block_fields(&block.fixed, SHR_TASK_CHAT);
        block.fixed.max_tokens = i == 2 ? 5 : 100;
        block.fixed.n = 1 + i;
        block.fixed.queued_ns = 1;
        block_begin(&block);
        shr_req_add(&block.w, SHR_R_MESSAGES, msgs, strlen(msgs));
        block_end(&block);
        wrk_sched_submit(s, block.buf, block.w.len, &sink_ops, &sinks[i],
                         now);
    }
}


static void
test_null(void **state)
{
    uint32_t          i, delay, steps;
    eng_t             eng;
    tok_t            *tok;
    chat_err_t        err;
    wrk_sched_t      *s;
    chat_template_t  *tmpl;
    wrk_null_opts_t   no = { .tokens = 12 };
    const char       *msgs = "[{\"role\":\"user\",\"content\":\"the end\"}]";

    (void) state;
    tok = fake_tok_open();
    tmpl = chat_compile(NULL, 0, &err);
    assert_non_null(tok);
    assert_non_null(tmpl);

    for (delay = 0; delay <= 500; delay += 500) {
        no.delay_us = delay;
        s = open_null(&eng, tok, tmpl, &no);
        now = 1000000;

        submit_three(s, msgs);

        for (steps = 0; !wrk_sched_idle(s); steps++) {
            assert_true(steps < 1000);

            if (!wrk_sched_step(s, now)) {
                /* nothing to do on the CPU: that is the point */
                assert_true(delay != 0 || wrk_sched_idle(s));
                assert_int_equal(wrk_sched_step(s, now), 0);

                if (delay != 0 && !wrk_sched_idle(s)) {
                    assert_true(wrk_sched_next_ns(s) == now + 500000);
                    now = wrk_sched_next_ns(s);
                }
            }

            for (i = 0; i < 3; i++) {
                sinks[i].unread = 0;
            }
        }

        for (i = 0; i < 3; i++) {
            assert_int_equal(sinks[i].done, 1);
            assert_int_equal(sinks[i].error, 0);
            assert_int_equal(sinks[i].choices[i].reason,
                             i == 2 ? SHR_FINISH_LENGTH : SHR_FINISH_STOP);
            /* twelve tokens and the end */
            assert_int_equal(sinks[i].choices[i].tokens, i == 2 ? 5 : 13);
            assert_memory_equal(sinks[i].choices[0].text, " This", 5);
        }

        /* one delay for each step of the batch, the siblings' one more */
        assert_true(delay == 0 || (now - 1000000) / 500000 <= 16);
        wrk_sched_destroy(s);
        eng_destroy(&eng);
    }

    chat_free(tmpl);
    tok_close(tok);
}


static void
test_limits(void **state)
{
    eng_t            eng;
    tok_t           *tok;
    wrk_null_opts_t  no = { .tokens = WRK_NULL_TOKENS_MAX + 1 };

    (void) state;
    tok = fake_tok_open();
    assert_non_null(tok);
    assert_int_equal(wrk_null_create(&no, tok, &eng), ENG_EINVAL);
    no.tokens = 1;
    no.sequences = ENG_SEQS_MAX + 1;
    assert_int_equal(wrk_null_create(&no, tok, &eng), ENG_EINVAL);
    tok_close(tok);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_null),
        cmocka_unit_test(test_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
