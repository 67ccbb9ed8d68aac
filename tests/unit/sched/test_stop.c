/* Stop strings against a search in the whole text. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/wrk_stop.h"


static uint64_t  seed = 42;


static uint32_t
rnd(uint32_t n)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;

    return (uint32_t) (seed >> 33) % n;
}


/* The first end of any string in text, the longest there; 0: none. */
static size_t
naive(const char *text, size_t len, char strings[][300], uint32_t n,
    size_t *match)
{
    size_t    i, l;
    uint32_t  j;

    for (i = 1; i <= len; i++) {
        for (j = 0, *match = 0; j < n; j++) {
            l = strlen(strings[j]);

            if (l <= i && l > *match
                && memcmp(text + i - l, strings[j], l) == 0)
            {
                *match = l;
            }
        }

        if (*match != 0) {
            return i;
        }
    }

    return 0;
}


/* The longest suffix of text that begins a string. */
static size_t
naive_hold(const char *text, size_t len, char strings[][300], uint32_t n)
{
    size_t    l, hold;
    uint32_t  j;

    for (j = 0, hold = 0; j < n; j++) {
        for (l = 1; l < strlen(strings[j]) && l <= len; l++) {
            if (memcmp(text + len - l, strings[j], l) == 0 && l > hold) {
                hold = l;
            }
        }
    }

    return hold;
}


static void
test_random(void **state)
{
    char              strings[WRK_STOP_STRINGS_MAX][300], text[400];
    size_t            i, len, fed, end, total, match, want, want_match, piece;
    uint32_t          n, j, round;
    uint8_t           mem[2 * 16 * 300];
    wrk_stop_set_t    set;
    wrk_stop_state_t  st;

    (void) state;

    for (round = 0; round < 20000; round++) {
        n = rnd(4) == 0 ? WRK_STOP_STRINGS_MAX : 1 + rnd(3);

        for (j = 0, total = 0; j < n; j++) {
            len = 1 + rnd(rnd(8) == 0 ? WRK_STOP_BYTES_MAX : 6);

            for (i = 0; i < len; i++) {
                strings[j][i] = (char) ('a' + rnd(2));
            }

            strings[j][len] = '\0';
            total += len;
        }

        assert_true(wrk_stop_memory(total) <= sizeof(mem));
        wrk_stop_init(&set, mem, total);

        for (j = 0; j < n; j++) {
            wrk_stop_add(&set, strings[j], strlen(strings[j]));
        }

        len = rnd(sizeof(text));

        for (i = 0; i < len; i++) {
            text[i] = (char) ('a' + rnd(rnd(20) == 0 ? 3 : 2));
        }

        want = naive(text, len, strings, n, &want_match);
        wrk_stop_start(&st);

        for (fed = 0, match = 0; fed < len && match == 0; fed += end) {
            assert_int_equal(wrk_stop_hold(&set, &st),
                             naive_hold(text, fed, strings, n));
            piece = 1 + rnd(7);
            piece = piece < len - fed ? piece : len - fed;
            match = wrk_stop_feed(&set, &st, text + fed, piece, &end);
            assert_true(end <= piece);
        }

        if (want == 0) {
            assert_int_equal(match, 0);
        } else {
            assert_int_equal(fed, want);
            assert_int_equal(match, want_match);
        }
    }
}


/* 256 equal bytes: the longest string, the longest border. */
static void
test_limit(void **state)
{
    char              text[WRK_STOP_BYTES_MAX];
    size_t            end;
    uint8_t           mem[2 * WRK_STOP_BYTES_MAX];
    wrk_stop_set_t    set;
    wrk_stop_state_t  st;

    (void) state;
    memset(text, 'x', sizeof(text));
    wrk_stop_init(&set, mem, sizeof(text));
    wrk_stop_add(&set, text, sizeof(text));
    wrk_stop_start(&st);
    assert_int_equal(wrk_stop_feed(&set, &st, text, 255, &end), 0);
    assert_int_equal(wrk_stop_hold(&set, &st), 255);
    assert_int_equal(wrk_stop_feed(&set, &st, "yx", 2, &end), 0);
    assert_int_equal(wrk_stop_hold(&set, &st), 1);
    assert_int_equal(wrk_stop_feed(&set, &st, text, 256, &end), 256);
    assert_int_equal(end, 255);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
