/* The encoder scheduler: full queues, deadlines, clients that leave, engines
 * that fail, batches that wait for more, the null engine. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/sched/fake_erun.h"


static void
test_queue_limits(void **state)
{
    uint32_t  i, refused;

    (void) state;
    begin_run(ENC_EMBED, 16, 64, 4, 8);
    r.opts.queue_requests = 10;
    again();

    for (i = 0, refused = 0; i < SINKS; i++) {
        sink_init(&sinks[i], 8192);
        begin(SHR_TASK_EMBED, 0);
        add(SHR_R_PROMPT, "a");
        submit(&sinks[i]);
        refused += sinks[i].error != 0;
        assert_true(!sinks[i].error
                    || sinks[i].failed.code == SHR_E_OVERLOADED);
    }

    assert_int_equal(refused, SINKS - 14);      /* a batch, and the queue */
    run(sinks, SINKS);

    r.opts.queue_requests = 100;
    r.opts.queue_tokens = 5;
    again();

    for (i = 0; i < 3; i++) {
        sink_init(&sinks[i], 8192);
        begin(SHR_TASK_EMBED, 0);
        add(SHR_R_PROMPT, i == 0 ? "a" : "a b c d");
        submit(&sinks[i]);
    }

    assert_int_equal(sinks[0].error, 0);
    assert_int_equal(sinks[1].failed.code, SHR_E_OVERLOADED);
    run(sinks, 3);
    end_run();
}


static void
test_deadlines(void **state)
{
    (void) state;
    begin_run(ENC_EMBED, 16, 64, 1, 8);
    r.fake.delay_ns = 1000000;

    sink_init(&sinks[0], 8192);
    begin(SHR_TASK_EMBED, 0);
    ((shr_req_t *) buf)->deadline_ns = r.fake.now_ns + 500000;
    add(SHR_R_PROMPT, "a");
    submit(&sinks[0]);
    sink_init(&sinks[1], 8192);
    begin(SHR_TASK_EMBED, 0);
    ((shr_req_t *) buf)->queue_deadline_ns = r.fake.now_ns + 400000;
    add(SHR_R_PROMPT, "b");
    submit(&sinks[1]);

    assert_int_equal(wrk_esched_step(r.s, r.fake.now_ns), 0);
    assert_int_equal(wrk_esched_next_ns(r.s), r.fake.now_ns + 400000);
    r.fake.now_ns += 400000;
    (void) wrk_esched_step(r.s, r.fake.now_ns);
    assert_int_equal(sinks[1].failed.code, SHR_E_DEADLINE);
    assert_int_equal(sinks[1].start, 0);
    assert_false(sinks[0].done);
    r.fake.now_ns += 100000;
    (void) wrk_esched_step(r.s, r.fake.now_ns);
    assert_int_equal(sinks[0].failed.code, SHR_E_DEADLINE);
    assert_int_equal(sinks[0].start, 1);

    /* what still runs elsewhere is nobody's; its entry serves another */
    sink_init(&sinks[2], 8192);
    begin(SHR_TASK_EMBED, 0);
    add(SHR_R_PROMPT, "c");
    submit(&sinks[2]);

    while (!wrk_esched_idle(r.s)) {
        r.fake.now_ns = wrk_esched_next_ns(r.s);
        run(sinks, 3);
    }

    assert_int_equal(sinks[2].nvalues, 8);
    end_run();
}


static void
test_cancel(void **state)
{
    uint32_t  i;
    uint64_t  value[SHR_NCOUNTERS];

    (void) state;
    begin_run(ENC_EMBED, 16, 64, 2, 8);
    r.fake.delay_ns = 1000000;

    for (i = 0; i < 6; i++) {
        sink_init(&sinks[i], 8192);
        begin(SHR_TASK_EMBED, 0);
        add(SHR_R_PROMPT, "a b");
        submit(&sinks[i]);
    }

    (void) wrk_esched_step(r.s, r.fake.now_ns);
    sinks[0].cancelled = 1;             /* in the batch */
    sinks[4].cancelled = 1;             /* waits */
    r.fake.now_ns += 1000;
    (void) wrk_esched_step(r.s, r.fake.now_ns);
    assert_int_equal(sinks[0].done, 1);
    assert_int_equal(sinks[4].done, 1);

    while (!wrk_esched_idle(r.s)) {
        r.fake.now_ns = wrk_esched_next_ns(r.s);
        (void) wrk_esched_step(r.s, r.fake.now_ns);
    }

    memset(value, 0, sizeof(value));
    wrk_esched_stats(r.s, value);
    assert_int_equal(value[SHR_C_CANCELLED_WAITING], 1);
    assert_int_equal(value[SHR_C_CANCELLED_PREFILL], 1);
    assert_int_equal(value[SHR_C_REQUESTS], 6);
    assert_int_equal(value[SHR_G_WAITING], 0);
    assert_int_equal(value[SHR_G_WAITING_TOKENS], 0);
    assert_int_equal(value[SHR_G_RUNNING], 0);
    assert_int_equal(sinks[1].nvalues + sinks[2].nvalues + sinks[3].nvalues
                     + sinks[5].nvalues, 32);
    end_run();
}


static void
test_failures(void **state)
{
    sink_t  *k = &sinks[0];

    (void) state;
    begin_run(ENC_EMBED, 16, 64, 2, 8);
    r.fake.fail = 1;
    ask(k, SHR_TASK_EMBED, 0, "a");
    assert_int_equal(k->failed.code, SHR_E_INTERNAL);
    r.fake.fail = 2;
    ask(k, SHR_TASK_EMBED, 0, "a");
    assert_int_equal(k->failed.code, SHR_E_INTERNAL);
    r.fake.fail = 0;
    ask(k, SHR_TASK_EMBED, 0, "a");
    assert_int_equal(k->error, 0);

    r.fake.delay_ns = 1000;
    sink_init(k, 8192);
    begin(SHR_TASK_EMBED, 0);
    add(SHR_R_PROMPT, "a");
    submit(k);
    (void) wrk_esched_step(r.s, r.fake.now_ns);
    sink_init(&sinks[1], 8192);
    submit(&sinks[1]);
    wrk_esched_shutdown(r.s);
    assert_int_equal(k->failed.code, SHR_E_SHUTDOWN);
    assert_int_equal(sinks[1].failed.code, SHR_E_SHUTDOWN);
    end_run();
}


/* A batch that is not full waits for others, but not for long. */
static void
test_delay(void **state)
{
    uint64_t  came;

    (void) state;
    begin_run(ENC_EMBED, 16, 64, 3, 8);
    r.opts.delay_us = 200;
    again();
    sink_init(&sinks[0], 8192);
    begin(SHR_TASK_EMBED, 0);
    add(SHR_R_PROMPT, "a");
    submit(&sinks[0]);
    came = r.fake.now_ns;
    assert_int_equal(wrk_esched_step(r.s, r.fake.now_ns), 0);
    assert_int_equal(wrk_esched_next_ns(r.s), came + 200000);
    r.fake.now_ns += 150000;
    sink_init(&sinks[1], 8192);
    submit(&sinks[1]);
    assert_int_equal(wrk_esched_step(r.s, r.fake.now_ns), 0);
    r.fake.now_ns += 50000;
    (void) wrk_esched_step(r.s, r.fake.now_ns);
    assert_int_equal(r.fake.batches, 1);
    assert_int_equal(sinks[0].done + sinks[1].done, 2);

    sink_init(&sinks[0], 8192);         /* a full one does not wait */
    sink_init(&sinks[1], 8192);
    sink_init(&sinks[2], 8192);
    submit(&sinks[0]);
    submit(&sinks[1]);
    submit(&sinks[2]);
    (void) wrk_esched_step(r.s, r.fake.now_ns);
    assert_int_equal(r.fake.batches, 2);
    assert_int_equal(r.fake.last_seqs, 3);
    end_run();
}


static void
test_null_engine(void **state)
{
    double           sum;
    uint32_t         i;
    wrk_eeng_t       null;
    wrk_eeng_info_t  info;

    (void) state;
    begin_run(ENC_EMBED, 16, 64, 4, 32);
    info = r.fake.info;
    assert_int_equal(wrk_eeng_null(&null, &info, WRK_EENG_DELAY_US_MAX + 1),
                     -1);
    assert_int_equal(wrk_eeng_null(&null, &info, 20), 0);
    wrk_esched_destroy(r.s);
    r.s = wrk_esched_create(&r.opts, &null, r.tok);
    assert_non_null(r.s);
    sink_init(&sinks[0], 8192);
    begin(SHR_TASK_EMBED, 0);
    add(SHR_R_PROMPT, "a");
    add(SHR_R_PROMPT, "b");
    submit(&sinks[0]);
    assert_int_equal(wrk_esched_step(r.s, r.fake.now_ns), 0);
    assert_int_equal(wrk_esched_next_ns(r.s), r.fake.now_ns + 20000);
    r.fake.now_ns += 20000;
    (void) wrk_esched_step(r.s, r.fake.now_ns);
    assert_int_equal(sinks[0].nvalues, 64);

    for (i = 0, sum = 0; i < 32; i++) {
        sum += (double) sinks[0].values[i] * (double) sinks[0].values[i];
    }

    assert_true(sum > 0.999 && sum < 1.001);
    wrk_esched_destroy(r.s);
    wrk_eeng_close(&null);
    tok_close(r.tok);
}


/* One more of a key, at a priority. */
static void
wait_for(uint32_t i, uint64_t key, int32_t priority, const char *text)
{
    sink_init(&sinks[i], 8192);
    begin(SHR_TASK_EMBED, 0);
    ((shr_req_t *) buf)->fair = key;
    ((shr_req_t *) buf)->priority = priority;
    add(SHR_R_PROMPT, text);
    submit(&sinks[i]);
}


/* Batches of one that take a while: who has ended after n of them. */
static uint32_t
ended(uint32_t nsinks, uint32_t batches)
{
    uint32_t  i, n;

    for (i = 0; i < 2 * batches; i++) {
        (void) wrk_esched_step(r.s, r.fake.now_ns);
        r.fake.now_ns += 500000;
    }
    (void) wrk_esched_step(r.s, r.fake.now_ns);

    for (i = 0, n = 0; i < nsinks; i++) {
        n += (uint32_t) sinks[i].done << i;
    }

    return n;
}


/* Who comes late with little goes before the rest of one with much; equal
 * tokens, not equal requests; a priority before all that. */
static void
test_shares(void **state)
{
    uint32_t  i;

    (void) state;
    begin_run(ENC_EMBED, 16, 64, 1, 8);
    r.fake.delay_ns = 1000000;

    for (i = 0; i < 6; i++) {
        wait_for(i, 1, 0, "a");
    }
    assert_int_equal(ended(6, 2), 0x03);        /* as they came */
    wait_for(6, 2, 0, "b");
    wait_for(7, 2, 0, "b");
    wait_for(8, 3, 1, "c");
    /* 2 is running, begun before they came */
    assert_int_equal(ended(9, 2) & 0x1f8, 0x100);
    assert_int_equal(ended(9, 1) & 0x0c0, 0x040);
    assert_int_equal(ended(9, 4) & 0x0c0, 0x0c0);
    run(sinks, 9);
    r.fake.now_ns += 100000000;
    for (i = 0; i < 20; i++) {
        (void) wrk_esched_step(r.s, r.fake.now_ns);
        r.fake.now_ns += 1000000;
    }

    /* without keys: as they came */
    for (i = 0; i < 4; i++) {
        wait_for(i, 0, 0, i % 2 ? "a b c d" : "a");
    }
    assert_int_equal(ended(4, 2), 0x03);
    assert_int_equal(ended(4, 2), 0x0f);
    end_run();
}


/* A full queue: the newest of who has most makes room for who has none. */
static void
test_displaced(void **state)
{
    uint32_t  i, n;

    (void) state;
    begin_run(ENC_EMBED, 16, 64, 1, 8);
    r.opts.queue_requests = 4;
    again();
    r.fake.delay_ns = 1000000;

    for (i = 0; i < 8; i++) {
        wait_for(i, 1, 0, "a");
    }
    for (i = 0, n = 0; i < 8; i++) {
        n += (uint32_t) sinks[i].done << i;
    }
    assert_int_equal(n, 0xe0);                  /* a batch, and the queue */
    wait_for(8, 2, 0, "b");
    assert_int_equal(sinks[8].done, 0);
    assert_int_equal(sinks[4].failed.code, SHR_E_OVERLOADED);
    wait_for(9, 1, 0, "a");                     /* not from his own */
    assert_int_equal(sinks[9].failed.code, SHR_E_OVERLOADED);
    wait_for(10, 1, 8, "a");                    /* but by priority */
    assert_int_equal(sinks[10].done, 0);
    assert_int_equal(sinks[3].failed.code, SHR_E_OVERLOADED);
    for (i = 0; i < 20; i++) {
        (void) wrk_esched_step(r.s, r.fake.now_ns);
        r.fake.now_ns += 1000000;
    }
    for (i = 0; i < 11; i++) {
        assert_int_equal(sinks[i].done, 1);
    }

    /* by tokens as well: as many as are needed */
    r.opts.queue_requests = 100;
    r.opts.queue_tokens = 12;
    again();
    for (i = 0; i < 4; i++) {
        wait_for(i, 1, 0, "a");                 /* three tokens each */
    }
    wait_for(4, 2, 0, "a b c d");               /* six */
    assert_int_equal(sinks[3].failed.code, SHR_E_OVERLOADED);
    assert_int_equal(sinks[2].failed.code, SHR_E_OVERLOADED);
    assert_int_equal(sinks[4].done, 0);
    for (i = 0; i < 20; i++) {
        (void) wrk_esched_step(r.s, r.fake.now_ns);
        r.fake.now_ns += 1000000;
    }
    assert_int_equal(sinks[4].error, 0);
    assert_int_equal(sinks[4].done, 1);
    end_run();
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_queue_limits),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_delay),
        cmocka_unit_test(test_null_engine),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_displaced),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
