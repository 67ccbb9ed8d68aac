/* Shares and priorities: who is next, for random loads, by the rules of
 * wrk_fair.h; and of a scheduler as a whole. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SINK_TEXT_MAX      64u
#define SINK_CHOICES       1u
#define SINK_LOGPROBS_MAX  1u
#define SINK_IDS_MAX       1u

#include <assert.h>
#include <stdio.h>

#include "tests/unit/sched/fake_run.h"
#include "worker/wrk_fair.h"


#define ITEMS   64u
#define KEYS    5u
#define COST    100u


typedef struct {
    wrk_fair_item_t  fair;          /* first: an item is its entry */
    uint64_t         key;
    int32_t          priority;
    uint64_t         number;
} entry_t;


static uint64_t  seed = 11;


static uint32_t
rnd(uint32_t n)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;

    return (uint32_t) (seed >> 33) % n;
}


/* Keys that always have something waiting get the same, up to what one item
 * costs; each key's items come in their order. */
static void
test_equal_shares(void **state)
{
    uint32_t     i, k, cost, round;
    uint64_t     got[KEYS] = { 0 }, last[KEYS] = { 0 }, number = 0, most,
                 least;
    entry_t      e[KEYS * 3], *next;
    wrk_fair_t   f;

    (void) state;
    memset(e, 0, sizeof(e));
    assert_int_equal(wrk_fair_init(&f, KEYS * 3), 0);

    for (i = 0; i < KEYS * 3; i++) {
        e[i].key = i % KEYS;
        e[i].number = ++number;
        wrk_fair_push(&f, &e[i].fair, e[i].key, 0, 0);
    }

    for (round = 0; round < 20000; round++) {
        next = (entry_t *) wrk_fair_next(&f, 0);
        assert_non_null(next);
        k = (uint32_t) next->key;
        assert_true(next->number > last[k]);
        last[k] = next->number;

        wrk_fair_take(&f, &next->fair, 0);
        /* this key is dear, that one cheap: their shares are still equal */
        cost = 1 + rnd(k == 0 ? COST : 10);
        wrk_fair_charge(&next->fair, cost);
        got[k] += cost;
        wrk_fair_leave(&f, &next->fair);

        next->number = ++number;
        wrk_fair_push(&f, &next->fair, next->key, 0, 0);

        for (i = 0, most = 0, least = UINT64_MAX; i < KEYS; i++) {
            most = got[i] > most ? got[i] : most;
            least = got[i] < least ? got[i] : least;
        }

        assert_true(most - least <= COST);
    }

    for (i = 0; i < KEYS * 3; i++) {
        wrk_fair_leave(&f, &e[i].fair);
    }

    assert_null(wrk_fair_next(&f, 0));
    wrk_fair_destroy(&f);
}


/* Who was away has saved nothing up, and owes nothing for being alone. */
static void
test_coming_back(void **state)
{
    uint32_t     i, runs;
    entry_t      a, b, c, *next;
    wrk_fair_t   f;

    (void) state;
    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    memset(&c, 0, sizeof(c));
    a.key = 1;
    b.key = 2;
    assert_int_equal(wrk_fair_init(&f, 8), 0);

    for (i = 0; i < 1000; i++) {
        wrk_fair_push(&f, &a.fair, 1, 0, 0);
        assert_ptr_equal(wrk_fair_next(&f, 0), &a);
        wrk_fair_take(&f, &a.fair, 0);
        wrk_fair_charge(&a.fair, 10);
        wrk_fair_leave(&f, &a.fair);
    }

    wrk_fair_push(&f, &a.fair, 1, 0, 0);
    wrk_fair_push(&f, &b.fair, 2, 0, 0);

    for (i = 0, runs = 0; i < 100; i++) {
        next = (entry_t *) wrk_fair_next(&f, 0);
        runs += next == &b;
        wrk_fair_take(&f, &next->fair, 0);
        wrk_fair_charge(&next->fair, 10);
        wrk_fair_leave(&f, &next->fair);
        wrk_fair_push(&f, &next->fair, next->key, 0, 0);
    }

    assert_in_range(runs, 50, 52);
    wrk_fair_leave(&f, &a.fair);
    wrk_fair_leave(&f, &b.fair);
    wrk_fair_destroy(&f);
}


static void
test_priorities(void **state)
{
    uint32_t     i, low;
    uint64_t     now = 1;
    entry_t      a, b, *next;
    wrk_fair_t   f;

    (void) state;
    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    a.priority = 3;
    b.priority = 0;
    a.key = b.key = 1;
    assert_int_equal(wrk_fair_init(&f, 4), 0);
    wrk_fair_push(&f, &b.fair, 1, b.priority, now);
    wrk_fair_push(&f, &a.fair, 1, a.priority, now);

    for (i = 0, low = 0; i < 1000; i++) {
        next = (entry_t *) wrk_fair_next(&f, now);
        low += next == &b;
        wrk_fair_take(&f, &next->fair, now);
        wrk_fair_leave(&f, &next->fair);
        wrk_fair_push(&f, &next->fair, 1, next->priority, now);
        now += WRK_FAIR_AGE_NS / 10;
    }

    /* a hundred times its age, in which it goes up by 3 and then one more */
    assert_in_range(low, 24, 34);
    wrk_fair_leave(&f, &a.fair);
    wrk_fair_leave(&f, &b.fair);
    wrk_fair_destroy(&f);
}


/* More keys than the table remembers, in any order of events. */
static void
test_random(void **state)
{
    uint32_t          i, round, waiting, holding;
    entry_t           e[ITEMS];
    wrk_fair_t        f;
    wrk_fair_item_t  *next;

    (void) state;
    memset(e, 0, sizeof(e));
    assert_int_equal(wrk_fair_init(&f, ITEMS), 0);

    for (round = 0; round < 200000; round++) {
        i = rnd(ITEMS);

        if (e[i].fair.key == NULL) {
            e[i].priority = SHR_PRIORITY_MIN + (int32_t) rnd(WRK_FAIR_BANDS);
            wrk_fair_push(&f, &e[i].fair, rnd(2) ? rnd(4) : rnd(100000),
                          e[i].priority, round);

        } else if (e[i].fair.waits && rnd(3)) {
            next = wrk_fair_next(&f, round);
            assert_non_null(next);
            assert_true(next->waits);
            wrk_fair_take(&f, next, round);
            wrk_fair_charge(next, rnd(1000));

        } else {
            wrk_fair_leave(&f, &e[i].fair);
        }

        for (i = 0, waiting = 0, holding = 0; round % 64 == 0 && i < ITEMS;
             i++)
        {
            waiting += e[i].fair.key != NULL && e[i].fair.waits;
            holding += e[i].fair.key != NULL;
        }

        assert_true(round % 64 != 0 || holding >= waiting);
        assert_true(round % 64 != 0
                    || (wrk_fair_next(&f, round) != NULL) == (waiting != 0));
    }

    for (i = 0; i < ITEMS; i++) {
        wrk_fair_leave(&f, &e[i].fair);
    }

    for (i = 0; i < WRK_FAIR_BANDS; i++) {
        assert_true(wrk_link_empty(&f.bands[i].keys));
    }

    wrk_fair_destroy(&f);
}


/* A full queue: who has more gives way to who has less, the youngest first. */
static void
test_yield(void **state)
{
    uint32_t     i;
    entry_t      e[8];
    wrk_fair_t   f;

    (void) state;
    memset(e, 0, sizeof(e));
    assert_int_equal(wrk_fair_init(&f, 8), 0);
    assert_null(wrk_fair_yield(&f, 1, 0));

    for (i = 0; i < 6; i++) {
        wrk_fair_push(&f, &e[i].fair, i < 4 ? 1 : 2, 0, 0);
    }

    assert_null(wrk_fair_yield(&f, 1, 0));
    assert_ptr_equal(wrk_fair_yield(&f, 2, 0), &e[3]);
    assert_ptr_equal(wrk_fair_yield(&f, 3, 0), &e[3]);
    assert_ptr_equal(wrk_fair_yield(&f, 1, 1), &e[3]);
    assert_null(wrk_fair_yield(&f, 3, -1));

    wrk_fair_leave(&f, &e[3].fair);
    assert_null(wrk_fair_yield(&f, 2, 0));
    assert_ptr_equal(wrk_fair_yield(&f, 3, 0), &e[2]);

    wrk_fair_push(&f, &e[6].fair, 1, -2, 0);
    assert_ptr_equal(wrk_fair_yield(&f, 1, 0), &e[6]);
    assert_null(wrk_fair_yield(&f, 1, -2));

    for (i = 0; i < 7; i++) {
        wrk_fair_leave(&f, &e[i].fair);
    }

    wrk_fair_destroy(&f);
}


/* One key has 40 requests waiting when another sends its own: that one starts
 * as soon as a seat is free. */
static void
test_flood(void **state)
{
    uint32_t        i, done;
    run_t           r;
    static block_t  b[42];
    static sink_t   k[42];

    (void) state;
    run_open(&r, 2, 128, 32, 64);

    for (i = 0; i < 40; i++) {
        block_prompt(&b[i], "abcdefgh", 16);
        ((shr_req_t *) b[i].buf)->fair = 1;
        ((shr_req_t *) b[i].buf)->flags |= SHR_REQ_IGNORE_EOS;
        sink_init(&k[i], 1 << 16);
        run_submit(&r, &b[i], &k[i]);
    }

    (void) run_step(&r);

    for (i = 40; i < 42; i++) {
        block_prompt(&b[i], "abcdefgh", 4);
        ((shr_req_t *) b[i].buf)->fair = i == 40 ? 2 : 1;
        ((shr_req_t *) b[i].buf)->priority = i == 40 ? 0 : 1;
        sink_init(&k[i], 1 << 16);
        run_submit(&r, &b[i], &k[i]);
    }

    while (!k[40].done || !k[41].done) {
        assert_true(run_step(&r));
    }

    for (i = 0, done = 0; i < 40; i++) {
        done += k[i].done != 0;
    }

    assert_in_range(done, 1, 4);

    while (run_step(&r)) { /* void */ }

    for (i = 0; i < 42; i++) {
        assert_true(k[i].done);
        assert_int_equal(k[i].error, 0);
    }

    run_close(&r);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_equal_shares),
        cmocka_unit_test(test_coming_back),
        cmocka_unit_test(test_priorities),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_yield),
        cmocka_unit_test(test_flood),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
