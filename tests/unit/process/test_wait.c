/* Both twins of wrk_wait.h must behave alike: the same cases for each. */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "worker/wrk_wait.h"


#define MS  1000000ull


static wrk_wait_t *
open_twin(void **state)
{
    wrk_wait_t  *w;

    if (*state != NULL) {
        w = wrk_wait_open_uring();
        if (w == NULL) {
            print_message("io_uring: %s\n", strerror(errno));
            skip();
        }
        assert_true(w->is_uring);
        return w;
    }
    w = wrk_wait_open_epoll();
    assert_non_null(w);
    assert_false(w->is_uring);
    return w;
}


static uint64_t
clock_ns(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}


static void
ring(int fd)
{
    uint64_t  one = 1;

    assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
}


/* A bell that nobody reads rings for each write. */
static void
bell_rings_each_time(void **state)
{
    int          i, fd = eventfd(0, EFD_NONBLOCK);
    uint64_t     tags[WRK_WAIT_BATCH];
    wrk_wait_t  *w = open_twin(state);

    ring(fd);                           /* before: must not be lost */
    assert_int_equal(wrk_wait_add(w, fd, WRK_WAIT_READ, 7), 0);
    assert_int_equal(wrk_wait_run(w, 1000 * MS, tags), 1);
    assert_int_equal(tags[0], 7);
    assert_int_equal(wrk_wait_run(w, 0, tags), 0);

    for (i = 0; i < 5000; i++) {
        ring(fd);
        assert_int_equal(wrk_wait_run(w, 1000 * MS, tags), 1);
        assert_int_equal(tags[0], 7);
    }
    assert_int_equal(wrk_wait_run(w, 0, tags), 0);

    wrk_wait_del(w, fd, 7);
    ring(fd);
    assert_int_equal(wrk_wait_run(w, 5 * MS, tags), 0);

    wrk_wait_close(w);
    close(fd);
}


static void
times_out(void **state)
{
    uint64_t     begin, took, tags[WRK_WAIT_BATCH];
    wrk_wait_t  *w = open_twin(state);

    begin = clock_ns();
    assert_int_equal(wrk_wait_run(w, 20 * MS, tags), 0);
    took = clock_ns() - begin;
    assert_in_range(took, 20 * MS, 2000 * MS);

    begin = clock_ns();
    assert_int_equal(wrk_wait_run(w, 0, tags), 0);
    assert_in_range(clock_ns() - begin, 0, 500 * MS);
    wrk_wait_close(w);
}


/* The end of a pipe's writer, with WRK_WAIT_GONE; bytes in it say nothing. */
static void
lifeline_ends(void **state)
{
    int          fd[2];
    uint64_t     tags[WRK_WAIT_BATCH];
    wrk_wait_t  *w = open_twin(state);

    assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
    assert_int_equal(wrk_wait_add(w, fd[0], WRK_WAIT_GONE, 9), 0);
    assert_int_equal(wrk_wait_run(w, 5 * MS, tags), 0);
    close(fd[1]);
    assert_int_equal(wrk_wait_run(w, 1000 * MS, tags), 1);
    assert_int_equal(tags[0], 9);

    wrk_wait_del(w, fd[0], 9);
    assert_int_equal(wrk_wait_run(w, 5 * MS, tags), 0);
    close(fd[0]);

    /* The same when it had ended before. */
    assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
    close(fd[1]);
    assert_int_equal(wrk_wait_add(w, fd[0], WRK_WAIT_GONE, 10), 0);
    assert_int_equal(wrk_wait_run(w, 1000 * MS, tags), 1);
    assert_int_equal(tags[0], 10);
    wrk_wait_del(w, fd[0], 10);
    close(fd[0]);
    wrk_wait_close(w);
}


static void
process_ends(void **state)
{
    int          fd;
    pid_t        pid;
    uint64_t     tags[WRK_WAIT_BATCH];
    wrk_wait_t  *w = open_twin(state);

    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        for ( ;; ) {
            (void) pause();
        }
    }
    fd = (int) syscall(SYS_pidfd_open, pid, 0);
    assert_true(fd >= 0);
    assert_int_equal(wrk_wait_add(w, fd, WRK_WAIT_READ, 3), 0);
    assert_int_equal(wrk_wait_run(w, 5 * MS, tags), 0);
    kill(pid, SIGKILL);
    assert_int_equal(wrk_wait_run(w, 1000 * MS, tags), 1);
    assert_int_equal(tags[0], 3);
    waitpid(pid, NULL, 0);
    wrk_wait_del(w, fd, 3);
    close(fd);
    wrk_wait_close(w);
}


/* More at once than one call gives, and more than the kernel's queue holds:
 * none may be lost. */
static void
many_at_once(void **state)
{
    enum { MANY = 1500 };

    int          i, n, left = MANY, *fds = calloc(MANY, sizeof(int));
    char        *seen = calloc(MANY, 1);
    uint64_t     tags[WRK_WAIT_BATCH];
    wrk_wait_t  *w = open_twin(state);

    assert_non_null(fds);
    assert_non_null(seen);
    for (i = 0; i < MANY; i++) {
        fds[i] = eventfd(0, EFD_NONBLOCK);
        if (fds[i] < 0) {
            print_message("only %d descriptors\n", i);
            break;
        }
        assert_int_equal(wrk_wait_add(w, fds[i], WRK_WAIT_READ,
                                      (uint64_t) i), 0);
    }
    left = i;
    assert_true(left > 200);
    for (i = left - 1; i >= 0; i--) {
        ring(fds[i]);
    }

    for (i = left; i > 0; ) {
        n = wrk_wait_run(w, 200 * MS, tags);
        assert_true(n > 0);
        while (n-- > 0) {
            assert_true(tags[n] < (uint64_t) left);
            i -= !seen[tags[n]];
            seen[tags[n]] = 1;
        }
    }

    /* All are still armed. */
    memset(seen, 0, (size_t) left);
    while (wrk_wait_run(w, 0, tags) > 0) {
        /* what was armed again may tell once more */
    }
    ring(fds[left - 1]);
    assert_int_equal(wrk_wait_run(w, 1000 * MS, tags), 1);
    assert_int_equal(tags[0], left - 1);

    for (i = 0; i < left; i++) {
        wrk_wait_del(w, fds[i], (uint64_t) i);
        close(fds[i]);
    }
    wrk_wait_close(w);
    free(fds);
    free(seen);
}


static void
refused_then_epoll(void **state)
{
    int          refused = -1;
    wrk_wait_t  *w;

    (void) state;
    w = wrk_wait_open(0, &refused);
    assert_non_null(w);
    assert_false(w->is_uring);
    assert_int_equal(refused, 0);
    wrk_wait_close(w);

    w = wrk_wait_open(1, &refused);
    assert_non_null(w);
    assert_int_equal(w->is_uring, refused == 0);
    wrk_wait_close(w);
}


int
main(void)
{
    static int  uring;

    const struct CMUnitTest  tests[] = {
        cmocka_unit_test_prestate(bell_rings_each_time, NULL),
        cmocka_unit_test_prestate(times_out, NULL),
        cmocka_unit_test_prestate(lifeline_ends, NULL),
        cmocka_unit_test_prestate(process_ends, NULL),
        cmocka_unit_test_prestate(many_at_once, NULL),
        cmocka_unit_test_prestate(bell_rings_each_time, &uring),
        cmocka_unit_test_prestate(times_out, &uring),
        cmocka_unit_test_prestate(lifeline_ends, &uring),
        cmocka_unit_test_prestate(process_ends, &uring),
        cmocka_unit_test_prestate(many_at_once, &uring),
        cmocka_unit_test(refused_then_epoll),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
