/* Regions, their seals and the control socket that carries them. */

#include "shm_pool.h"

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "shm/shr_ctl.h"


static const shr_geom_t  geom = { 2, 3, 16, 32, 8192, 0 };


static int
geom_ok(uint32_t c, uint32_t w, uint32_t s, uint32_t k, uint32_t r)
{
    shr_geom_t  g = { c, w, s, k, r, 0 };

    return shr_geom_check(&g) == 0;
}


static void
test_geometry_limits(void **state)
{
    (void) state;
    assert_true(geom_ok(1, 1, SHR_SLOTS_MIN, SHR_CHUNKS_MIN,
                        SHR_RESP_BYTES_MIN));
    assert_true(geom_ok(SHR_CLIENTS_MAX, SHR_WORKERS_MAX, SHR_SLOTS_MAX,
                        SHR_CHUNKS_MAX, SHR_RESP_BYTES_MAX));
    assert_false(geom_ok(0, 1, 16, 32, 8192));
    assert_false(geom_ok(1, 0, 16, 32, 8192));
    assert_false(geom_ok(SHR_CLIENTS_MAX + 1, 1, 16, 32, 8192));
    assert_false(geom_ok(1, SHR_WORKERS_MAX + 1, 16, 32, 8192));
    assert_false(geom_ok(1, 1, SHR_SLOTS_MAX * 2, 32, 8192));
    assert_false(geom_ok(1, 1, 24, 32, 8192));
    assert_false(geom_ok(1, 1, 8, 32, 8192));
    assert_false(geom_ok(1, 1, 16, SHR_CHUNKS_MAX + 1, 8192));
    assert_false(geom_ok(1, 1, 16, 32, 4096));
    assert_false(geom_ok(1, 1, 16, 32, 8200));
    assert_false(geom_ok(1, 1, 16, 32, SHR_RESP_BYTES_MAX * 2));
}


static void
test_layouts_do_not_overlap(void **state)
{
    size_t               i;
    shr_client_layout_t  c;
    shr_worker_layout_t  w;

    (void) state;
    shr_client_layout(&geom, &c);
    shr_worker_layout(&geom, &w);

    const size_t  at[] = { sizeof(shr_region_hdr_t), c.line, c.slots,
                           c.cq_head, c.sq_tail, c.sq, c.chunk_next, c.chunks,
                           c.size };
    const size_t  wat[] = { sizeof(shr_region_hdr_t), w.line, w.sleep,
                            w.counters, w.sq_head, w.cq_tail, w.cq, w.resp,
                            w.bytes, w.size };

    for (i = 1; i + 1 < sizeof(at) / sizeof(at[0]); i++) {
        assert_true(at[i] >= at[i - 1] && at[i] % SHR_LINE == 0);
        assert_true(at[i + 1] > at[i]);
    }

    for (i = 1; i + 1 < sizeof(wat) / sizeof(wat[0]); i++) {
        assert_true(wat[i] >= wat[i - 1] && wat[i] % SHR_LINE == 0);
        assert_true(wat[i + 1] > wat[i]);
    }

    assert_true(c.chunks + 32 * SHR_CHUNK_BYTES <= c.size);
    assert_true(w.bytes + 2 * 16 * 8192 <= w.size);
    assert_true(shr_abi_hash() != 0);
    assert_true(shr_abi_hash() == shr_abi_hash());
}


static void
test_seals(void **state)
{
    int     fd;
    void   *rw, *ro;

    (void) state;
    fd = shr_region_create_client(&geom, 1);
    assert_true(fd >= 0);
    rw = shr_region_map_client(fd, &geom, 1, 1);
    assert_non_null(rw);
    assert_int_equal(shr_region_seal_writes(fd), 0);

    assert_int_equal(ftruncate(fd, 4096), -1);
    assert_int_equal(errno, EPERM);
    assert_null(shr_region_map_client(fd, &geom, 1, 1));
    assert_int_equal(errno, EPERM);

    ro = shr_region_map_client(fd, &geom, 1, 0);
    assert_non_null(ro);
    ((uint8_t *) rw)[4000] = 7;             /* the old mapping still writes */
    assert_int_equal(((uint8_t *) ro)[4000], 7);
    assert_int_equal(mprotect(ro, 4096, PROT_READ | PROT_WRITE), -1);

    shr_region_unmap_client(rw, &geom);
    shr_region_unmap_client(ro, &geom);
    close(fd);
}


static void
test_wrong_regions_are_refused(void **state)
{
    int         fd, wfd, plain;
    char        name[] = "/tmp/shr_test_XXXXXX";
    shr_geom_t  other = geom;

    (void) state;
    other.nslots = 32;
    fd = shr_region_create_client(&geom, 0);
    wfd = shr_region_create_worker(&geom, 0);

    assert_null(shr_region_map_client(fd, &other, 0, 0));
    assert_int_equal(errno, EPROTO);
    assert_null(shr_region_map_client(fd, &geom, 1, 0));
    assert_int_equal(errno, EPROTO);
    assert_null(shr_region_map_client(wfd, &geom, 0, 0));
    assert_int_equal(errno, EPROTO);

    plain = mkstemp(name);                  /* could be truncated: SIGBUS */
    assert_true(plain >= 0);
    assert_null(shr_region_map_client(plain, &geom, 0, 0));
    close(plain);
    unlink(name);
    close(fd);
    close(wfd);
}


static int
open_fds(void)
{
    int  fd, n;

    for (fd = 0, n = 0; fd < 2048; fd++) {
        n += fcntl(fd, F_GETFD) != -1;
    }

    return n;
}


static void
test_many_descriptors(void **state)
{
    int             sv[2], i, before, got[SHR_CTL_FDS_MAX];
    uint32_t        total, seen;
    shr_ctl_msg_t  *msg, *in;
    int             fds[512];
    shr_geom_t      wide = { 100, 8, 16, 32, 8192, 0 };

    (void) state;
    before = open_fds();
    msg = calloc(1, sizeof(*msg));
    in = calloc(1, sizeof(*in));
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0,
                                sv), 0);
    total = shr_ctl_nfds(&wide);
    assert_int_equal(total, 217);

    for (i = 0; i < (int) total; i++) {
        fds[i] = eventfd((unsigned) i, EFD_NONBLOCK);
        assert_true(fds[i] >= 0);
    }

    msg->type = SHR_CTL_ATTACH;
    msg->geom = wide;
    assert_int_equal(shr_ctl_send_generation(sv[0], msg, fds), 0);

    for (seen = 0; seen < total; seen += in->nfds) {
        assert_int_equal(shr_ctl_recv(sv[1], in, got), 0);
        assert_int_equal(in->type, seen == 0 ? SHR_CTL_ATTACH : SHR_CTL_FDS);

        for (i = 0; i < (int) in->nfds; i++) {
            if (seen + (uint32_t) i != 0) {     /* the order is kept */
                assert_int_equal(bell_count(got[i]), seen + (uint32_t) i);
            }

            close(got[i]);
        }
    }

    assert_int_equal(shr_ctl_recv(sv[1], in, got), -SHR_EAGAIN);
    close(sv[0]);
    assert_int_equal(shr_ctl_recv(sv[1], in, got), -SHR_EDONE);
    close(sv[1]);

    for (i = 0; i < (int) total; i++) {
        close(fds[i]);
    }

    free(msg);
    free(in);
    assert_int_equal(open_fds(), before);
}


static void
test_broken_control_messages(void **state)
{
    int             sv[2], before, fds[SHR_CTL_FDS_MAX];
    shr_ctl_msg_t  *msg, *in;

    (void) state;
    msg = calloc(1, sizeof(*msg));
    in = calloc(1, sizeof(*in));
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0,
                                sv), 0);
    before = open_fds();
    fds[0] = sv[0];
    fds[1] = sv[1];

    assert_int_equal(send(sv[0], msg, 10, 0), 10);          /* short */
    assert_int_equal(shr_ctl_recv(sv[1], in, fds + 2), -SHR_EBROKEN);

    msg->type = SHR_CTL_MAX;                                /* unknown */
    assert_int_equal(shr_ctl_send(sv[0], msg, NULL), 0);
    assert_int_equal(shr_ctl_recv(sv[1], in, fds + 2), -SHR_EBROKEN);

    msg->type = SHR_CTL_OK;                                 /* descriptors */
    msg->nfds = 2;
    assert_int_equal(shr_ctl_send(sv[0], msg, fds), 0);
    assert_int_equal(shr_ctl_recv(sv[1], in, fds + 2), 0);
    close(fds[2]);
    close(fds[3]);

    msg->type = SHR_CTL_MAX;            /* unknown, and leaks nothing */
    assert_int_equal(shr_ctl_send(sv[0], msg, fds), 0);
    assert_int_equal(shr_ctl_recv(sv[1], in, fds + 2), -SHR_EBROKEN);
    assert_int_equal(open_fds(), before);

    close(sv[0]);
    close(sv[1]);
    free(msg);
    free(in);
}


static void
test_listen_and_connect(void **state)
{
    int   l, c, s;
    char  dir[] = "/tmp/shr_ctl_XXXXXX", path[64];

    (void) state;
    assert_non_null(mkdtemp(dir));
    (void) snprintf(path, sizeof(path), "%s/pool.sock", dir);

    assert_int_equal(shr_ctl_connect(path), -SHR_ESYS);
    l = shr_ctl_listen(path);
    assert_true(l >= 0);
    assert_int_equal(shr_ctl_accept(l), -SHR_EAGAIN);
    c = shr_ctl_connect(path);
    assert_true(c >= 0);
    s = shr_ctl_accept(l);
    assert_true(s >= 0);
    assert_int_equal(shr_ctl_check_peer(c), 0);

    assert_int_equal(shr_ctl_listen(path), -SHR_ESYS);      /* it answers */
    assert_int_equal(errno, EADDRINUSE);

    close(l);                                               /* killed */
    l = shr_ctl_listen(path);
    assert_true(l >= 0);

    close(l);
    close(c);
    close(s);
    unlink(path);
    rmdir(dir);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_geometry_limits),
        cmocka_unit_test(test_layouts_do_not_overlap),
        cmocka_unit_test(test_seals),
        cmocka_unit_test(test_wrong_regions_are_refused),
        cmocka_unit_test(test_many_descriptors),
        cmocka_unit_test(test_broken_control_messages),
        cmocka_unit_test(test_listen_and_connect),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
