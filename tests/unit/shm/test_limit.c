/* Limits per key: rates, settling, keys that go, processes that are killed. */

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/shr_limit.h"


#define S         1000000000ull
#define ZONE      (64u << 10)
#define CHILDREN  4u


static const shr_limit_rate_t  rate = { 600, 60 * S, 100, 3 };


static void *
shared(size_t size)
{
    void  *p;

    p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_SHARED,
             -1, 0);
    assert_true(p != MAP_FAILED);

    return p;
}


static void
open_zone(shr_limit_t *l, uint32_t owners)
{
    void  *bytes;

    bytes = shared(ZONE);
    assert_non_null(shr_limit_format(bytes, ZONE, owners));
    (void) shr_limit_open(l, bytes);
}


static shr_limit_verdict_t
reserve(shr_limit_t *l, uint64_t key, uint32_t tokens, uint64_t now,
    shr_limit_hold_t *h, shr_limit_state_t *s)
{
    memset(h, 0, sizeof(*h));

    return shr_limit_reserve(l, &rate, key, tokens, now, h, s);
}


static void
test_tokens(void **state)
{
    uint64_t           now = S;
    shr_limit_t        l;
    shr_limit_hold_t   a, b, c;
    shr_limit_state_t  s;

    (void) state;
    open_zone(&l, SHR_LIMIT_OWNERS);
    assert_int_equal(reserve(&l, 1, 101, now, &a, &s), SHR_LIMIT_NEVER);
    assert_int_equal(reserve(&l, 1, 60, now, &a, &s), SHR_LIMIT_PASS);
    assert_int_equal(s.remaining, 40);
    assert_int_equal(s.reset_ns, 6 * S);
    assert_int_equal(s.running, 1);
    assert_int_equal(reserve(&l, 1, 41, now, &b, &s), SHR_LIMIT_TOKENS);
    assert_int_equal(s.wait_ns, S / 10);
    assert_int_equal(reserve(&l, 2, 100, now, &c, &s), SHR_LIMIT_PASS);
    assert_int_equal(reserve(&l, 1, 40, now, &b, &s), SHR_LIMIT_PASS);
    assert_int_equal(s.remaining, 0);

    /* less was used: the rest is there again, ten tokens a second more */
    shr_limit_settle(&l, &rate, &a, 10, now);
    shr_limit_settle(&l, &rate, &a, 10, now);
    shr_limit_settle(&l, &rate, &b, 40, now);
    assert_int_equal(reserve(&l, 1, 51, now, &a, &s), SHR_LIMIT_TOKENS);
    assert_int_equal(reserve(&l, 1, 60, now + S, &a, &s), SHR_LIMIT_PASS);
    assert_int_equal(s.remaining, 0);

    /* more was used: others wait for it */
    shr_limit_settle(&l, &rate, &a, 160, now + S);
    assert_int_equal(reserve(&l, 1, 1, now + S, &a, &s), SHR_LIMIT_TOKENS);
    assert_int_equal(s.wait_ns, 101 * S / 10);
    assert_int_equal(reserve(&l, 1, 1, now + S + s.wait_ns, &a, &s),
                     SHR_LIMIT_PASS);
    shr_limit_settle(&l, &rate, &a, 0, now);
    shr_limit_settle(&l, &rate, &c, 0, now);
    assert_int_equal(reserve(&l, 2, 100, now, &c, &s), SHR_LIMIT_PASS);
    munmap(l.zone, ZONE);
}


static void
test_running(void **state)
{
    uint32_t           i;
    shr_limit_t        l;
    shr_limit_hold_t   h[4];
    shr_limit_state_t  s;

    (void) state;
    open_zone(&l, SHR_LIMIT_OWNERS);

    for (i = 0; i < 3; i++) {
        assert_int_equal(reserve(&l, 7, 0, S, &h[i], &s), SHR_LIMIT_PASS);
    }

    assert_int_equal(reserve(&l, 7, 0, S, &h[3], &s), SHR_LIMIT_RUNNING);
    shr_limit_settle(&l, &rate, &h[0], 0, S);
    assert_int_equal(reserve(&l, 7, 0, S, &h[3], &s), SHR_LIMIT_PASS);
    munmap(l.zone, ZONE);
}


/* More keys than places: those in use stay, the others give way. */
static void
test_keys_give_way(void **state)
{
    uint64_t           key, keys, tokens, running;
    shr_limit_t        l;
    shr_limit_hold_t   h, held[8];
    shr_limit_state_t  s;

    (void) state;
    assert_null(shr_limit_format(held, sizeof(held), SHR_LIMIT_OWNERS));
    open_zone(&l, SHR_LIMIT_OWNERS);

    for (key = 1; key <= 8; key++) {
        /* all of them in one set */
        assert_int_equal(reserve(&l, key * 1000003 * 31, 10, S,
                                 &held[key - 1], &s), SHR_LIMIT_PASS);
    }

    for (key = 100; key < 5000; key++) {
        if (reserve(&l, key, 10, key * S, &h, &s) == SHR_LIMIT_PASS) {
            shr_limit_settle(&l, &rate, &h, 10, key * S);
        }
    }

    shr_limit_count(&l, &keys, &tokens, &running);
    assert_int_equal(running, 8);
    assert_int_equal(tokens, 80);
    assert_true(keys > 100);

    for (key = 1; key <= 8; key++) {
        shr_limit_settle(&l, &rate, &held[key - 1], 10, S);
    }

    shr_limit_count(&l, &keys, &tokens, &running);
    assert_int_equal(running, 0);
    assert_int_equal(tokens, 0);
    munmap(l.zone, ZONE);
}


static void
test_full_set(void **state)
{
    uint32_t           i;
    shr_limit_t        l;
    shr_limit_hold_t   h[SHR_LIMIT_WAYS], more;
    shr_limit_state_t  s;

    (void) state;
    l.zone = shared(4096);
    assert_non_null(shr_limit_format(l.zone, 4096, SHR_LIMIT_OWNERS));
    assert_int_equal(shr_limit_open(&l, l.zone), 0);

    for (i = 0; i < SHR_LIMIT_WAYS; i++) {
        assert_int_equal(reserve(&l, i + 1, 1, S, &h[i], &s),
                         SHR_LIMIT_PASS);
    }

    assert_int_equal(reserve(&l, 99, 1, S, &more, &s), SHR_LIMIT_NO_PLACE);
    shr_limit_settle(&l, &rate, &h[3], 1, S);
    assert_int_equal(reserve(&l, 99, 1, S, &more, &s), SHR_LIMIT_PASS);
    munmap(l.zone, 4096);
}


/* A process without a column takes part, and what it takes is gone. */
static void
test_no_column(void **state)
{
    shr_limit_t        l, second;
    shr_limit_hold_t   h, h2;
    shr_limit_state_t  s;

    (void) state;
    open_zone(&l, 1);
    assert_int_equal(shr_limit_open(&second, l.zone), -1);
    assert_int_equal(reserve(&second, 5, 60, S, &h2, &s), SHR_LIMIT_PASS);
    assert_false(h2.held);
    shr_limit_settle(&second, &rate, &h2, 0, S);
    assert_int_equal(reserve(&l, 5, 41, S, &h, &s), SHR_LIMIT_TOKENS);
    assert_int_equal(reserve(&l, 5, 40, S, &h, &s), SHR_LIMIT_PASS);
    assert_int_equal(reserve(&second, 5, 1, S, &h2, &s), SHR_LIMIT_TOKENS);
    shr_limit_settle(&l, &rate, &h, 0, S);
    shr_limit_close(&l);
    assert_int_equal(shr_limit_open(&second, l.zone), 0);
    munmap(l.zone, ZONE);
}


typedef struct {
    _Atomic uint64_t  passed;
} board_t;


static void
child(shr_limit_zone_t *zone, board_t *board)
{
    uint64_t           seed = (uint64_t) getpid() * 7919 + 1;
    shr_limit_t        l;
    shr_limit_hold_t   h;
    shr_limit_state_t  s;
    static const shr_limit_rate_t  two = { 1000000000, S, 1 << 30, 2 };

    if (shr_limit_open(&l, zone) != 0) {
        _exit(3);
    }

    for ( ;; ) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        memset(&h, 0, sizeof(h));

        if (shr_limit_reserve(&l, &two, seed % 16 == 0 ? (seed >> 20) % 2000
                                                         + 2 : 1,
                              (uint32_t) (seed >> 40) % 100, S, &h, &s)
            != SHR_LIMIT_PASS)
        {
            continue;
        }

        atomic_fetch_add(&board->passed, 1);

        shr_limit_settle(&l, &two, &h, (seed >> 50) % 100, S);
    }
}


/* Whoever is killed where: nobody waits for it, and in the end nothing is
 * held. */
static void
test_killed(void **state)
{
    int                status;
    pid_t              pid[CHILDREN];
    board_t           *board;
    uint32_t           i, round;
    uint64_t           keys, tokens, running;
    shr_limit_t        l;
    struct timespec    pause = { 0, 300000 };

    (void) state;
    open_zone(&l, 12);
    board = shared(sizeof(*board));

    for (i = 0; i < CHILDREN; i++) {
        pid[i] = fork();

        if (pid[i] == 0) {
            child(l.zone, board);
        }
    }

    for (round = 0; round < 400; round++) {
        i = round % CHILDREN;
        (void) nanosleep(&pause, NULL);
        assert_int_equal(kill(pid[i], SIGKILL), 0);
        assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        (void) shr_limit_reap(&l);
        pid[i] = fork();

        if (pid[i] == 0) {
            child(l.zone, board);
        }
    }

    for (i = 0; i < CHILDREN; i++) {
        assert_int_equal(kill(pid[i], SIGKILL), 0);
        assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }

    (void) shr_limit_reap(&l);
    shr_limit_count(&l, &keys, &tokens, &running);
    assert_int_equal(running, 0);
    assert_int_equal(tokens, 0);
    assert_true(keys > 100);
    assert_true(atomic_load(&board->passed) > 1000);
    munmap(board, sizeof(*board));
    munmap(l.zone, ZONE);
}


typedef struct {
    _Atomic uint32_t  in, most;
} gate_t;


/* Six at once for three places: never more than three. */
static void
test_never_too_many(void **state)
{
    pid_t              pid[6];
    gate_t            *gate;
    uint32_t           i, round, n, most;
    shr_limit_t        l, mine;
    shr_limit_hold_t   h;
    shr_limit_state_t  s;

    (void) state;
    open_zone(&l, 12);
    gate = shared(sizeof(*gate));

    for (i = 0; i < 6; i++) {
        pid[i] = fork();

        if (pid[i] != 0) {
            continue;
        }

        (void) shr_limit_open(&mine, l.zone);

        for (round = 0; round < 30000; round++) {
            if (reserve(&mine, 1, 0, S, &h, &s) != SHR_LIMIT_PASS) {
                continue;
            }

            n = atomic_fetch_add(&gate->in, 1) + 1;
            most = atomic_load(&gate->most);

            while (n > most
                   && !atomic_compare_exchange_weak(&gate->most, &most, n))
            { /* void */ }

            atomic_fetch_sub(&gate->in, 1);
            shr_limit_settle(&mine, &rate, &h, 0, S);
        }

        _exit(0);
    }

    for (i = 0; i < 6; i++) {
        assert_int_equal(waitpid(pid[i], NULL, 0), pid[i]);
    }

    assert_in_range(atomic_load(&gate->most), 1, 3);
    munmap(gate, sizeof(*gate));
    munmap(l.zone, ZONE);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_running),
        cmocka_unit_test(test_keys_give_way),
        cmocka_unit_test(test_full_set),
        cmocka_unit_test(test_no_column),
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_never_too_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
