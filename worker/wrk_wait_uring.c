/*
 * The io_uring twin of wrk_wait.h: multishot polls, so a descriptor is armed
 * once, and a look at the completion queue is no system call while nothing
 * has come.  Doorbells are never written through the ring: write(2) is
 * several times faster for an eventfd (measured, see the design notes).
 */

#include "worker/wrk_wait.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>


#define SQ_ENTRIES      64
#define CQ_ENTRIES      1024
#define POLLS_STEP      64

/* user_data of a removal's own completion: no caller's tag is that large. */
#define TAG_REMOVAL     UINT64_MAX

/* What is armed, so that a poll that the kernel ended can be armed again. */
typedef struct {
    int         fd;
    uint32_t    mask;
    uint64_t    tag;
} uring_poll_t;

typedef struct {
    wrk_wait_t       wait;
    struct io_uring  ring;
    uring_poll_t    *polls;
    uint32_t         npolls;
    uint32_t         capacity;
} uring_wait_t;


static int
get_sqe(uring_wait_t *u, struct io_uring_sqe **sqe)
{
    int  rc;

    *sqe = io_uring_get_sqe(&u->ring);
    if (*sqe == NULL) {
        rc = io_uring_submit(&u->ring);
        if (rc < 0) {
            errno = -rc;
            return -1;
        }
        *sqe = io_uring_get_sqe(&u->ring);
    }
    if (*sqe == NULL) {
        errno = EBUSY;
        return -1;
    }
    return 0;
}


static int
arm(uring_wait_t *u, const uring_poll_t *p)
{
    struct io_uring_sqe  *sqe;

    if (get_sqe(u, &sqe) != 0) {
        return -1;
    }
    io_uring_prep_poll_multishot(sqe, p->fd, p->mask);
    sqe->user_data = p->tag;
    return 0;
}


static int
uring_add(wrk_wait_t *w, int fd, wrk_wait_for_t what, uint64_t tag)
{
    uring_wait_t  *u = (uring_wait_t *) w;
    uint32_t       capacity;
    uring_poll_t  *p;

    assert(tag <= WRK_WAIT_TAG_MAX);

    if (u->npolls == u->capacity) {
        capacity = u->capacity + POLLS_STEP;
        p = realloc(u->polls, capacity * sizeof(*p));
        if (p == NULL) {
            return -1;
        }
        u->polls = p;
        u->capacity = capacity;
    }

    p = &u->polls[u->npolls];
    p->fd = fd;
    p->mask = what == WRK_WAIT_READ ? POLLIN | POLLRDHUP : 0;
    p->tag = tag;
    if (arm(u, p) != 0) {
        return -1;
    }
    u->npolls++;
    return 0;
}


/* Submits at once: the poll holds the file open, and the caller may be about
 * to close what somebody else waits to see closed. */
static void
uring_del(wrk_wait_t *w, int fd, uint64_t tag)
{
    uring_wait_t         *u = (uring_wait_t *) w;
    uint32_t              i;
    struct io_uring_sqe  *sqe;

    (void) fd;

    for (i = 0; i < u->npolls; i++) {
        if (u->polls[i].tag == tag) {
            u->polls[i] = u->polls[--u->npolls];
            break;
        }
    }
    if (get_sqe(u, &sqe) != 0) {
        return;
    }
    io_uring_prep_poll_remove(sqe, tag);
    sqe->user_data = TAG_REMOVAL;
    (void) io_uring_submit(&u->ring);
}


/* The kernel ends a multishot poll when the completion queue was full. */
static void
arm_again(uring_wait_t *u, uint64_t tag)
{
    uint32_t  i;

    for (i = 0; i < u->npolls; i++) {
        if (u->polls[i].tag == tag) {
            (void) arm(u, &u->polls[i]);
            return;
        }
    }
}


static int
collect(uring_wait_t *u, uint64_t *tags)
{
    int                   n = 0;
    unsigned              i, got;
    struct io_uring_cqe  *cqes[WRK_WAIT_BATCH];

    got = io_uring_peek_batch_cqe(&u->ring, cqes, WRK_WAIT_BATCH);

    for (i = 0; i < got; i++) {
        if (cqes[i]->user_data == TAG_REMOVAL || cqes[i]->res == -ECANCELED) {
            continue;
        }
        tags[n++] = cqes[i]->user_data;
        if (!(cqes[i]->flags & IORING_CQE_F_MORE) && cqes[i]->res >= 0) {
            arm_again(u, cqes[i]->user_data);
        }
    }

    io_uring_cq_advance(&u->ring, got);
    return n;
}


static int
uring_run(wrk_wait_t *w, uint64_t timeout_ns, uint64_t *tags)
{
    uring_wait_t              *u = (uring_wait_t *) w;
    int                        rc, n;
    struct io_uring_cqe       *cqe;
    struct __kernel_timespec   ts;

    n = collect(u, tags);

    if (io_uring_sq_ready(&u->ring) > 0 && (n > 0 || timeout_ns == 0)) {
        rc = io_uring_submit_and_get_events(&u->ring);
        if (rc < 0 && rc != -EINTR && rc != -EBUSY) {
            errno = -rc;
            return -1;
        }
        if (n == 0) {
            n = collect(u, tags);
        }
    }
    if (n > 0 || timeout_ns == 0) {
        return n;
    }

    ts.tv_sec = (long long) (timeout_ns / 1000000000u);
    ts.tv_nsec = (long long) (timeout_ns % 1000000000u);
    rc = io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1,
                                timeout_ns == UINT64_MAX ? NULL : &ts, NULL);
    if (rc < 0 && rc != -ETIME && rc != -EINTR && rc != -EBUSY) {
        errno = -rc;
        return -1;
    }
    return collect(u, tags);
}


static void
uring_close(wrk_wait_t *w)
{
    uring_wait_t  *u = (uring_wait_t *) w;

    io_uring_queue_exit(&u->ring);
    free(u->polls);
    free(u);
}


static const wrk_wait_ops_t  uring_ops = {
    "io_uring", uring_add, uring_del, uring_run, uring_close
};


/*
 * The ring starts disabled, learns that polls are all it will ever be asked
 * for, and is enabled: what takes the worker over cannot use it to open files
 * behind the system call filter.  Raw calls, because Debian 12's liburing does
 * not export its own.
 */
static int
restrict_ring(const struct io_uring *ring)
{
    size_t                        i;
    struct io_uring_restriction   rules[2];

    static const uint8_t  ops[] = { IORING_OP_POLL_ADD,
                                    IORING_OP_POLL_REMOVE };

    memset(rules, 0, sizeof(rules));
    for (i = 0; i < sizeof(ops); i++) {
        rules[i].opcode = IORING_RESTRICTION_SQE_OP;
        rules[i].sqe_op = ops[i];
    }

    if (syscall(SYS_io_uring_register, ring->ring_fd,
                IORING_REGISTER_RESTRICTIONS, rules, sizeof(ops)) != 0
        || syscall(SYS_io_uring_register, ring->ring_fd,
                   IORING_REGISTER_ENABLE_RINGS, NULL, 0) != 0)
    {
        return -errno;
    }
    return 0;
}


/*
 * Newer kernels run completions in our own context and only when we ask; an
 * older one says EINVAL to flags that it does not know.
 */
static int
setup_ring(struct io_uring *ring)
{
    int                     rc;
    size_t                  i;
    struct io_uring_params  params;

    static const unsigned  flags[] = {
        IORING_SETUP_CQSIZE | IORING_SETUP_SINGLE_ISSUER
            | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
        IORING_SETUP_CQSIZE | IORING_SETUP_COOP_TASKRUN
            | IORING_SETUP_TASKRUN_FLAG,
        IORING_SETUP_CQSIZE
    };

    for (i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        memset(&params, 0, sizeof(params));
        params.flags = flags[i] | IORING_SETUP_R_DISABLED;
        params.cq_entries = CQ_ENTRIES;
        rc = io_uring_queue_init_params(SQ_ENTRIES, ring, &params);
        if (rc != -EINVAL) {
            break;
        }
    }
    if (rc < 0) {
        return rc;
    }

    /* Without these a wait with a time-out or a lost event would need more
     * than this file has; such a kernel gets epoll. */
    if (!(params.features & IORING_FEAT_EXT_ARG)
        || !(params.features & IORING_FEAT_NODROP))
    {
        io_uring_queue_exit(ring);
        return -ENOSYS;
    }

    rc = restrict_ring(ring);
    if (rc != 0) {
        io_uring_queue_exit(ring);
    }
    return rc;
}


/* Multishot polls came with 5.13; an older kernel refuses the first one. */
static int
multishot_works(uring_wait_t *u)
{
    int                   rc, fd[2], works;
    struct io_uring_cqe  *cqe;
    struct io_uring_sqe  *sqe;
    uint64_t              tags[WRK_WAIT_BATCH];

    struct __kernel_timespec  ts = { 1, 0 };

    if (pipe2(fd, O_CLOEXEC | O_NONBLOCK) != 0) {
        return 0;
    }
    works = 0;
    if (write(fd[1], "", 1) == 1 && get_sqe(u, &sqe) == 0) {
        io_uring_prep_poll_multishot(sqe, fd[0], POLLIN);
        sqe->user_data = 1;
        rc = io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, &ts, NULL);
        works = rc >= 0 && cqe != NULL && cqe->res >= 0
                && (cqe->flags & IORING_CQE_F_MORE);
        (void) collect(u, tags);
    }
    uring_del(&u->wait, fd[0], 1);
    close(fd[0]);
    close(fd[1]);
    (void) uring_run(&u->wait, 0, tags);
    return works;
}


wrk_wait_t *
wrk_wait_open_uring(void)
{
    int            rc;
    uring_wait_t  *u;

    u = calloc(1, sizeof(*u));
    if (u == NULL) {
        return NULL;
    }
    u->wait.ops = &uring_ops;
    u->wait.is_uring = 1;

    rc = setup_ring(&u->ring);
    if (rc < 0) {
        free(u);
        errno = -rc;
        return NULL;
    }
    if (!multishot_works(u)) {
        uring_close(&u->wait);
        errno = ENOSYS;
        return NULL;
    }
    return &u->wait;
}
