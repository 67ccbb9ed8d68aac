/*
 * The folder of prepared files stays bounded, and only our files are touched.
 */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/wrk_cache.h"


static char  dir[] = "/tmp/infer-tidy-XXXXXX";


/* A file last used so many seconds after the epoch. */
static void
put(const char *name, long used)
{
    int              fd;
    char             path[128];
    struct timespec  ts[2] = { { used, 0 }, { used, 0 } };

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(futimens(fd, ts), 0);
    close(fd);
}


/* Whether it was there; it is not afterwards. */
static int
take(const char *name)
{
    char  path[128];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return unlink(path) == 0;
}


static void
test_tidy(void **state)
{
    (void) state;
    assert_non_null(mkdtemp(dir));

    put("0123456789abcdef-4b520002.img", 500);
    put("0123456789abcdef.tok", 100);
    put("1123456789abcdef-4b520002.img", 200);
    put("2123456789abcdef-4b520002.img.tmp", 150);
    put("3123456789abcdef.tok", 400);

    /* older than all, and nobody's business */
    put("m-0123456789abcdef.sock.lock", 1);
    put("0123456789abcdef.txt", 1);
    put("0123456789abcdeF.tok", 1);
    put("0123456789abcdef-4b52000.img", 1);

    wrk_cache_tidy(dir, 5);
    wrk_cache_tidy("/nonexistent/dir", 0);
    wrk_cache_tidy(dir, 2);

    assert_true(take("0123456789abcdef-4b520002.img"));
    assert_true(take("3123456789abcdef.tok"));
    assert_false(take("0123456789abcdef.tok"));
    assert_false(take("1123456789abcdef-4b520002.img"));
    assert_false(take("2123456789abcdef-4b520002.img.tmp"));
    assert_true(take("m-0123456789abcdef.sock.lock"));
    assert_true(take("0123456789abcdef.txt"));
    assert_true(take("0123456789abcdeF.tok"));
    assert_true(take("0123456789abcdef-4b52000.img"));
    assert_int_equal(rmdir(dir), 0);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_tidy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
