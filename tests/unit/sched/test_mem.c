/* The buddy allocator: blocks never overlap, and all of it comes back. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "worker/wrk_sched_mem.h"


#define SLOTS  200u


static uint64_t  seed = 7;


static uint32_t
rnd(uint32_t n)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;

    return (uint32_t) (seed >> 33) % n;
}


static void
test_random(void **state)
{
    size_t     j, bytes[SLOTS] = { 0 };
    uint8_t   *p[SLOTS] = { NULL };
    uint32_t   i, round, failed;
    wrk_mem_t  m;

    (void) state;
    assert_int_equal(wrk_mem_init(&m, 1 << 20), 0);

    for (round = 0, failed = 0; round < 50000; round++) {
        i = rnd(SLOTS);

        if (p[i] != NULL) {
            for (j = 0; j < bytes[i]; j += 97) {
                assert_int_equal(p[i][j], (uint8_t) i);
            }

            wrk_mem_free(&m, p[i]);
            p[i] = NULL;
            continue;
        }

        bytes[i] = 1 + rnd(rnd(10) ? 4000 : 200000);
        p[i] = wrk_mem_alloc(&m, bytes[i]);
        failed += p[i] == NULL;

        if (p[i] != NULL) {
            memset(p[i], (int) i, bytes[i]);
        }
    }

    assert_true(failed > 0);

    for (i = 0; i < SLOTS; i++) {
        if (p[i] != NULL) {
            wrk_mem_free(&m, p[i]);
        }
    }

    assert_int_equal(m.used, 0);

    /* one piece again */
    p[0] = wrk_mem_alloc(&m, 1 << 20);
    assert_non_null(p[0]);
    assert_null(wrk_mem_alloc(&m, 1));
    wrk_mem_free(&m, p[0]);
    assert_null(wrk_mem_alloc(&m, (1 << 20) + 1));
    wrk_mem_destroy(&m);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
