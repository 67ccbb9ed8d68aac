/*
 * Threads: everybody meets at every barrier, what was written before is seen
 * after, and an idle pool uses no CPU time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>

#include "worker/engine/eng_pool.h"

#define THREADS   4u
#define BARRIERS  200u

typedef struct {
    eng_pool_t  *pool;
    uint32_t     threads;
    uint32_t     value[THREADS];
    uint32_t     wrong[THREADS];
} shared_t;


/* Plain words: a race here is a finding for TSan, a late one a wrong sum. */
static void
work(void *arg, uint32_t t)
{
    shared_t  *s = arg;
    uint32_t   round, i;

    for (round = 1; round <= BARRIERS; round++) {
        s->value[t] = round * (t + 1);
        eng_pool_barrier(s->pool);
        for (i = 0; i < s->threads; i++) {
            s->wrong[t] += s->value[i] != round * (i + 1);
        }
        eng_pool_barrier(s->pool);
    }
}


static void
run(uint32_t threads, uint32_t spin)
{
    uint32_t  i, k;
    shared_t  s = { .threads = threads };

    s.pool = eng_pool_create(threads, spin, NULL);
    assert_non_null(s.pool);
    for (k = 0; k < 20; k++) {
        eng_pool_run(s.pool, work, &s);
        if (k == 10) {
            eng_pool_park(s.pool);
        }
        for (i = 0; i < threads; i++) {
            assert_int_equal(s.value[i], BARRIERS * (i + 1));
            assert_int_equal(s.wrong[i], 0);
        }
    }
    eng_pool_destroy(s.pool);
}


static void
test_barriers(void **state)
{
    (void) state;
    run(1, 3000);
    run(2, 3000);
    run(2, 1);                    /* every wait becomes a futex sleep        */
    run(THREADS, 50);
    run(THREADS, 1);
}


static double
cpu_s(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);

    return (double) ts.tv_sec + (double) ts.tv_nsec * 1e-9;
}


static void
test_idle(void **state)
{
    double           used;
    shared_t         s = { .threads = 2 };
    struct timespec  ts = { 0, 300000000 };

    (void) state;
    s.pool = eng_pool_create(2, 3000, NULL);
    eng_pool_run(s.pool, work, &s);
    nanosleep(&ts, NULL);
    used = cpu_s();
    nanosleep(&ts, NULL);
    used = cpu_s() - used;
    assert_true(used < 0.01);
    eng_pool_destroy(s.pool);
}


static void
test_create_destroy(void **state)
{
    int          i;
    const int    cpus[2] = { 0, 1 };
    eng_pool_t  *p;

    (void) state;
    for (i = 0; i < 100; i++) {
        p = eng_pool_create(3, 10, NULL);
        assert_non_null(p);
        eng_pool_destroy(p);
    }
    p = eng_pool_create(2, 10, cpus);
    assert_non_null(p);
    eng_pool_destroy(p);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_barriers),
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_create_destroy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
