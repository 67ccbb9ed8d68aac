/* The prefix cache: what is shared, what is not, and what comes back. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/sched/fake_run.h"
#include "worker/wrk_prefix.h"


#define PAGES  16u


static fake_eng_t  fake;
static eng_t       eng;
static run_t       run;
static block_t     block;
static sink_t      sinks[16];


static int
open_run(void **state)
{
    (void) state;
    run_open(&run, 8, 512, 64, 512);

    return 0;
}


static int
close_run(void **state)
{
    (void) state;

    if (!wrk_sched_idle(run.sched)) {
        wrk_sched_shutdown(run.sched);
    }

    run_close(&run);

    return 0;
}


/* --- the tree itself ---------------------------------------------------- */

/* A sequence of n pages, the i-th full of the tokens first + i, becomes
 * known; how many of them were known before. */
static uint32_t
learn(wrk_prefix_t *p, uint64_t scope, uint32_t first, uint32_t n)
{
    uint32_t    i, seq, known, tokens[PAGES * FAKE_PAGE];
    wrk_path_t  path;

    assert_int_equal(eng_seq_open(&eng, &seq), 0);

    for (i = 0; i < n * FAKE_PAGE; i++) {
        tokens[i] = first + i / FAKE_PAGE;
    }

    wrk_path_init(&path, scope);
    known = wrk_prefix_walk(p, &path, tokens, n);

    if (known != 0) {
        wrk_prefix_attach(p, &path, seq);
    }

    while (eng_kv_free_pages(&eng) < n - known) {
        wrk_prefix_evict(p);
    }

    assert_int_equal(eng_seq_reserve(&eng, seq, n * FAKE_PAGE), 0);

    while (path.n < n) {
        wrk_prefix_add(p, &path, tokens, eng_seq_page(&eng, seq, path.n));
    }

    eng_seq_close(&eng, seq);
    wrk_prefix_leave(p, &path);

    return known;
}


static void
tree(uint32_t hash_bits)
{
    wrk_prefix_t  *p;

    fake_create(&fake, &eng, 100, 4, PAGES * FAKE_PAGE, 8, PAGES);
    p = wrk_prefix_create(&eng, hash_bits);
    assert_non_null(p);

    assert_int_equal(learn(p, 0, 1, 6), 0);
    assert_int_equal(wrk_prefix_idle(p), 6);
    assert_int_equal(learn(p, 0, 1, 4), 4);
    assert_int_equal(learn(p, 0, 2, 4), 0);         /* not at its place */
    assert_int_equal(wrk_prefix_idle(p), 10);
    assert_int_equal(learn(p, 1, 1, 4), 0);         /* another scope */
    assert_int_equal(learn(p, 1, 1, 4), 4);
    assert_int_equal(wrk_prefix_idle(p), 14);

    /* needs 3, has 2: the end of the longest unused one goes */
    assert_int_equal(learn(p, 0, 50, 3), 0);
    assert_int_equal(wrk_prefix_idle(p), 16);
    assert_int_equal(learn(p, 0, 1, 5), 5);
    assert_int_equal(learn(p, 0, 1, 6), 5);
    assert_int_equal(eng_kv_free_pages(&eng), 0);

    wrk_prefix_destroy(p);
    assert_int_equal(eng_kv_free_pages(&eng), PAGES);
    eng_destroy(&eng);
}


static void
test_tree(void **state)
{
    (void) state;
    tree(64);
}


/* Every two texts have the same hash, or one of two. */
static void
test_collisions(void **state)
{
    (void) state;
    tree(0);
    tree(1);
}


/* --- in the scheduler --------------------------------------------------- */

/* A completion of a letter many times, then a tail; its cached tokens. */
static uint32_t
complete(sink_t *k, char letter, uint32_t n, const char *tail, uint64_t scope)
{
    char  text[400];

    memset(text, letter, n);
    memcpy(text + n, tail, strlen(tail) + 1);
    block_prompt(&block, text, 12);
    ((shr_req_t *) block.buf)->flags = SHR_REQ_IGNORE_EOS;
    ((shr_req_t *) block.buf)->scope = scope;
    run_one(&run, &block, k);
    assert_int_equal(k->error, 0);

    return k->used.cached_tokens;
}


static void
assert_same(const sink_t *a, const sink_t *b)
{
    assert_memory_equal(a->choices, b->choices, sizeof(a->choices));
}


static void
test_reuse(void **state)
{
    uint32_t  n, prompt;
    uint64_t  counts[SHR_NCOUNTERS], tokens;

    (void) state;
    assert_int_equal(complete(&sinks[0], 'q', 100, "x", 0), 0);
    prompt = sinks[0].used.prompt_tokens;
    tokens = run.fake.tokens;
    n = complete(&sinks[1], 'q', 100, "x", 0);
    assert_same(&sinks[0], &sinks[1]);

    /* all but the last token, in whole pages */
    assert_int_equal(n, (prompt - 1) / FAKE_PAGE * FAKE_PAGE);
    assert_int_equal(run.fake.tokens - tokens, prompt - n + 11);
    wrk_sched_stats(run.sched, counts);
    assert_int_equal(counts[SHR_C_CACHED_TOKENS], n);
    assert_int_equal(counts[SHR_G_KV_USED], 0);

    assert_true(complete(&sinks[2], 'q', 100, "something else", 0) != 0);
    assert_int_equal(complete(&sinks[3], 'z', 100, "x", 0), 0);
    assert_int_equal(complete(&sinks[4], 'q', 100, "x", 1), 0);
    assert_same(&sinks[0], &sinks[4]);
    assert_int_equal(complete(&sinks[5], 'q', 100, "x", 1), n);

    run.opts.prefix_cache = 0;
    run_again(&run);
    assert_int_equal(complete(&sinks[6], 'q', 100, "x", 0), 0);
    assert_int_equal(complete(&sinks[7], 'q', 100, "x", 0), 0);
    assert_same(&sinks[0], &sinks[7]);
    assert_int_equal(eng_kv_free_pages(&run.eng), run.eng.limits.kv_pages);
}


/* An answer is known to the request that goes on with it. */
static void
test_turns(void **state)
{
    uint32_t  i, ids[101];

    (void) state;
    block_fields(&block.fixed, SHR_TASK_COMPLETE);
    block.fixed.flags = SHR_REQ_IGNORE_EOS | SHR_REQ_LOGPROBS;
    block.fixed.max_tokens = 100;
    ids[0] = 7;
    block_begin(&block);
    shr_req_add(&block.w, SHR_R_PROMPT_IDS, ids, sizeof(ids[0]));
    block_end(&block);
    run_one(&run, &block, &sinks[0]);
    assert_int_equal(sinks[0].nlogprobs, 100);

    for (i = 0; i < 100; i++) {
        ids[i + 1] = sinks[0].logprobs[i].id;
    }

    block_begin(&block);
    shr_req_add(&block.w, SHR_R_PROMPT_IDS, ids, sizeof(ids));
    block_end(&block);
    run_one(&run, &block, &sinks[1]);
    assert_int_equal(sinks[1].used.prompt_tokens, 101);
    assert_int_equal(sinks[1].used.cached_tokens, 100 / FAKE_PAGE * FAKE_PAGE);
}


/* Those that come together compute what they share once. */
static void
test_together(void **state)
{
    char       text[400];
    uint32_t   i;
    uint64_t   tokens;
    sink_t    *all[6];

    (void) state;
    memset(text, 'q', 300);
    text[302] = '\0';
    text[300] = 'x';

    for (i = 0; i < 6; i++) {
        all[i] = &sinks[i];
        sink_init(all[i], 1 << 16);
        text[301] = (char) ('a' + i);
        block_prompt(&block, text, 5);
        ((shr_req_t *) block.buf)->flags = SHR_REQ_IGNORE_EOS;
        run_submit(&run, &block, all[i]);
    }

    tokens = run.fake.tokens;
    run_all(&run, all, 6);
    tokens = run.fake.tokens - tokens;

    for (i = 0; i < 6; i++) {
        assert_int_equal(all[i]->done, 1);
        assert_int_equal(all[i]->error, 0);
        assert_int_equal(all[i]->used.completion_tokens, 5);
    }

    assert_int_equal(sinks[0].used.cached_tokens, 0);
    assert_true(tokens < sinks[0].used.prompt_tokens + 6 * 20);
}


/* Nobody waits for one that does not go on. */
static void
test_paused(void **state)
{
    char      text[400];
    uint32_t  i;

    (void) state;
    memset(text, 'q', 300);
    text[300] = '\0';
    sink_init(&sinks[0], 8192);
    block_fields(&block.fixed, SHR_TASK_COMPLETE);
    block.fixed.flags = SHR_REQ_ECHO | SHR_REQ_LOGPROBS;
    block_begin(&block);
    shr_req_add(&block.w, SHR_R_PROMPT, text, 300);
    block_end(&block);
    run_submit(&run, &block, &sinks[0]);
    sink_init(&sinks[1], 1 << 16);
    block_prompt(&block, text, 5);
    run_submit(&run, &block, &sinks[1]);

    for (i = 0; i < 100; i++) {
        run_step(&run);
        sinks[1].unread = 0;
    }

    assert_int_equal(sinks[0].done, 0);
    assert_int_equal(sinks[1].done, 1);
}


/* Few pages: what was not used for longest goes, all of it if need be, and a
 * preempted sequence finds what is left of it. */
static void
test_short_of_pages(void **state)
{
    char       text[64];
    uint32_t   i;
    uint64_t   counts[SHR_NCOUNTERS];
    sink_t    *all[4];
    static sink_t  alone[4];

    (void) state;
    run_close(&run);
    run_open(&run, 4, 128, 64, 24);

    for (i = 0; i < 4; i++) {
        memset(text, (int) ('e' + i), 60);
        text[60] = '\0';
        block_prompt(&block, text, 60);
        ((shr_req_t *) block.buf)->flags = SHR_REQ_IGNORE_EOS;
        run_one(&run, &block, &alone[i]);
        all[i] = &sinks[i];
    }

    assert_true(eng_kv_free_pages(&run.eng) <= 1);

    for (i = 0; i < 4; i++) {
        sink_init(all[i], 1 << 16);
        memset(text, (int) ('e' + i), 60);
        block_prompt(&block, text, 60);
        ((shr_req_t *) block.buf)->flags = SHR_REQ_IGNORE_EOS;
        run_submit(&run, &block, all[i]);
    }

    run_all(&run, all, 4);

    for (i = 0; i < 4; i++) {
        assert_int_equal(all[i]->done, 1);
        assert_same(&alone[i], all[i]);
    }

    wrk_sched_stats(run.sched, counts);
    assert_true(counts[SHR_C_PREEMPTED] > 0);
}


/* Choices share the prompt with each other and with earlier requests; it is
 * counted once. */
static void
test_choices(void **state)
{
    uint32_t  prompt;

    (void) state;
    block_fields(&block.fixed, SHR_TASK_COMPLETE);
    block.fixed.n = 4;
    block.fixed.flags = SHR_REQ_SEED;
    block.fixed.temperature = 1;
    block_begin(&block);
    shr_req_add(&block.w, SHR_R_PROMPT, "a beginning of some length, and so on",
                37);
    block_end(&block);
    run_one(&run, &block, &sinks[0]);
    assert_int_equal(sinks[0].used.cached_tokens, 0);
    run_one(&run, &block, &sinks[1]);
    assert_same(&sinks[0], &sinks[1]);
    prompt = sinks[1].used.prompt_tokens;
    assert_int_equal(sinks[1].used.cached_tokens,
                     (prompt - 1) / FAKE_PAGE * FAKE_PAGE);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_tree),
        cmocka_unit_test(test_collisions),
        cmocka_unit_test_setup_teardown(test_reuse, open_run, close_run),
        cmocka_unit_test_setup_teardown(test_turns, open_run, close_run),
        cmocka_unit_test_setup_teardown(test_together, open_run, close_run),
        cmocka_unit_test_setup_teardown(test_paused, open_run, close_run),
        cmocka_unit_test_setup_teardown(test_short_of_pages, open_run,
                                        close_run),
        cmocka_unit_test_setup_teardown(test_choices, open_run, close_run),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
