/* The short form of tests/sim/sim_same.c, with every test run. */

#define SAME_NO_MAIN

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/sim/sim_same.c"


static void
test_short(void **state)
{
    (void) state;
    assert_int_equal(same_all(30, 1), 0);
}


int
main(void)
{
    real_t                   probe;
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_short),
    };

    if (real_find(&probe, "smollm2.gguf") != 0) {
        printf("no model at %s\n", probe.path);
        return 77;
    }

    return cmocka_run_group_tests(tests, NULL, NULL);
}
