/* A few seeds of the simulation, and its canaries, with every test run. */

#define SIM_NO_MAIN

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/sim/sim_sched.c"


static void
test_seeds(void **state)
{
    (void) state;
    assert_int_equal(sim_seeds(1, 150), 0);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_seeds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
