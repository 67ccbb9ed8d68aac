/* Taking a generation apart from a control socket: in pieces, too much, too
 * little, out of order; no descriptor may be left open after an error. */

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "shm/shr_error.h"
#include "worker/wrk_super_rx.h"


typedef struct {
    int       pair[2];
    int       before;               /* descriptors open at the start */
    int       null[SHR_CTL_FDS_MAX];
    wrk_rx_t  rx;
} fixture_t;


static int
count_fds(void)
{
    int   n = 0;
    DIR  *dir = opendir("/proc/self/fd");

    assert_non_null(dir);
    while (readdir(dir) != NULL) {
        n++;
    }
    closedir(dir);
    return n;
}


static int
setup(void **state)
{
    int         i;
    fixture_t  *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0,
                                f->pair), 0);
    f->null[0] = open("/dev/null", O_RDONLY);
    for (i = 1; i < SHR_CTL_FDS_MAX; i++) {
        f->null[i] = f->null[0];
    }
    wrk_rx_init(&f->rx, 0);
    f->before = count_fds();
    *state = f;
    return 0;
}


static int
teardown(void **state)
{
    fixture_t  *f = *state;

    wrk_rx_reset(&f->rx);
    assert_int_equal(count_fds(), f->before);
    close(f->pair[0]);
    close(f->pair[1]);
    close(f->null[0]);
    free(f);
    return 0;
}


static void
send_part(fixture_t *f, uint32_t type, const shr_geom_t *geom, uint32_t nfds)
{
    shr_ctl_msg_t  msg;

    memset(&msg, 0, sizeof(msg));
    msg.type = type;
    msg.nfds = nfds;
    msg.geom = *geom;
    assert_int_equal(shr_ctl_send(f->pair[0], &msg, f->null), 0);
}


static const shr_geom_t  small = { 2, 3, 64, 64, 8192, 0 };     /* 11 */
static const shr_geom_t  large = { 256, 32, 16, 16, 8192, 0 };  /* 577 */


static void
whole(void **state)
{
    int         idle;
    fixture_t  *f = *state;

    assert_int_equal(wrk_rx_read(&f->rx, f->pair[1], &idle), -SHR_EAGAIN);
    assert_true(idle);

    send_part(f, SHR_CTL_ATTACH, &small, 11);
    assert_int_equal(wrk_rx_read(&f->rx, f->pair[1], &idle), 0);
    assert_int_equal(f->rx.nfds, 11);
    assert_int_equal(count_fds(), f->before + 11);
    wrk_rx_reset(&f->rx);

    send_part(f, SHR_CTL_PING, &small, 0);
    assert_int_equal(wrk_rx_read(&f->rx, f->pair[1], &idle), 0);
    assert_int_equal(f->rx.msg.type, SHR_CTL_PING);
}


static void
in_parts(void **state)
{
    int         i, idle;
    fixture_t  *f = *state;

    send_part(f, SHR_CTL_ATTACH, &large, 200);
    assert_int_equal(wrk_rx_read(&f->rx, f->pair[1], &idle), -SHR_EAGAIN);
    assert_false(idle);
    send_part(f, SHR_CTL_FDS, &large, 200);
    assert_int_equal(wrk_rx_read(&f->rx, f->pair[1], &idle), -SHR_EAGAIN);
    send_part(f, SHR_CTL_FDS, &large, 177);
    assert_int_equal(wrk_rx_read(&f->rx, f->pair[1], &idle), 0);
    assert_int_equal(f->rx.nfds, 577);
    wrk_rx_reset(&f->rx);

    for (i = 0; i < 11; i++) {
        send_part(f, i == 0 ? SHR_CTL_ATTACH : SHR_CTL_FDS, &small, 1);
        assert_int_equal(wrk_rx_read(&f->rx, f->pair[1], &idle),
                         i == 10 ? 0 : -SHR_EAGAIN);
    }
    wrk_rx_reset(&f->rx);
}


static void
part_of_a_worker(void **state)
{
    int         idle;
    fixture_t  *f = *state;

    wrk_rx_init(&f->rx, 1);
    send_part(f, SHR_CTL_ATTACH, &small, 7);
    assert_int_equal(wrk_rx_read(&f->rx, f->pair[1], &idle), 0);
    assert_int_equal(f->rx.nfds, wrk_ctl_worker_nfds(&small));
    wrk_rx_reset(&f->rx);
}


static void
expect_broken(fixture_t *f)
{
    int  idle;

    assert_int_equal(wrk_rx_read(&f->rx, f->pair[1], &idle), -SHR_EBROKEN);
    assert_int_equal(f->rx.nfds, 0);
    assert_int_equal(count_fds(), f->before);
}


static void
broken(void **state)
{
    int         idle;
    fixture_t  *f = *state;
    shr_geom_t  wrong = small;

    send_part(f, SHR_CTL_ATTACH, &small, 12);           /* one too many */
    expect_broken(f);
    send_part(f, SHR_CTL_ATTACH, &small, 0);            /* none at all */
    expect_broken(f);
    send_part(f, SHR_CTL_FDS, &small, 5);               /* no beginning */
    expect_broken(f);
    send_part(f, SHR_CTL_PING, &small, 1);              /* brings a gift */
    expect_broken(f);
    wrong.nclients = 257;
    send_part(f, SHR_CTL_ATTACH, &wrong, 11);
    expect_broken(f);
    send_part(f, SHR_CTL_MAX, &small, 0);
    expect_broken(f);

    send_part(f, SHR_CTL_ATTACH, &small, 5);            /* begun twice */
    assert_int_equal(wrk_rx_read(&f->rx, f->pair[1], &idle), -SHR_EAGAIN);
    send_part(f, SHR_CTL_ATTACH, &small, 5);
    expect_broken(f);

    send_part(f, SHR_CTL_ATTACH, &small, 5);            /* another between */
    assert_int_equal(wrk_rx_read(&f->rx, f->pair[1], &idle), -SHR_EAGAIN);
    send_part(f, SHR_CTL_PING, &small, 0);
    expect_broken(f);

    send_part(f, SHR_CTL_ATTACH, &small, 5);            /* goes on too long */
    assert_int_equal(wrk_rx_read(&f->rx, f->pair[1], &idle), -SHR_EAGAIN);
    send_part(f, SHR_CTL_FDS, &small, 200);
    expect_broken(f);

    send_part(f, SHR_CTL_ATTACH, &small, 5);            /* stops */
    assert_int_equal(wrk_rx_read(&f->rx, f->pair[1], &idle), -SHR_EAGAIN);
    send_part(f, SHR_CTL_FDS, &small, 0);
    expect_broken(f);

    send_part(f, SHR_CTL_ATTACH, &small, 11);           /* and all is well */
    assert_int_equal(wrk_rx_read(&f->rx, f->pair[1], &idle), 0);
    wrk_rx_reset(&f->rx);
}


static void
peer_goes(void **state)
{
    int         idle;
    fixture_t  *f = *state;

    send_part(f, SHR_CTL_ATTACH, &small, 5);
    assert_int_equal(wrk_rx_read(&f->rx, f->pair[1], &idle), -SHR_EAGAIN);
    assert_int_equal(shutdown(f->pair[0], SHUT_RDWR), 0);
    assert_int_equal(wrk_rx_read(&f->rx, f->pair[1], &idle), -SHR_EDONE);
    assert_int_equal(count_fds(), f->before);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test_setup_teardown(whole, setup, teardown),
        cmocka_unit_test_setup_teardown(in_parts, setup, teardown),
        cmocka_unit_test_setup_teardown(part_of_a_worker, setup, teardown),
        cmocka_unit_test_setup_teardown(broken, setup, teardown),
        cmocka_unit_test_setup_teardown(peer_goes, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
