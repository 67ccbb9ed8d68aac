/* The epoll twin of wrk_wait.h: edge-triggered, one system call per look. */

#include "worker/wrk_wait.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>


typedef struct {
    wrk_wait_t  wait;
    int         epfd;
    int         coarse;         /* no epoll_pwait2 here */
} epoll_wait_t;


static int
epoll_add(wrk_wait_t *w, int fd, wrk_wait_for_t what, uint64_t tag)
{
    epoll_wait_t        *e = (epoll_wait_t *) w;
    struct epoll_event   ev;

    assert(tag <= WRK_WAIT_TAG_MAX);

    ev.events = EPOLLET | (what == WRK_WAIT_READ ? EPOLLIN | EPOLLRDHUP : 0);
    ev.data.u64 = tag;
    return epoll_ctl(e->epfd, EPOLL_CTL_ADD, fd, &ev);
}


static void
epoll_del(wrk_wait_t *w, int fd, uint64_t tag)
{
    epoll_wait_t        *e = (epoll_wait_t *) w;
    struct epoll_event   ev = { 0 };

    (void) tag;
    (void) epoll_ctl(e->epfd, EPOLL_CTL_DEL, fd, &ev);
}


/* Milliseconds, rounded up: a worker that wakes before its deadline would
 * only go round and sleep again. */
static int
to_ms(uint64_t ns)
{
    uint64_t  ms;

    if (ns == UINT64_MAX) {
        return -1;
    }
    ms = ns / 1000000 + (ns % 1000000 != 0);
    return ms > 3600000 ? 3600000 : (int) ms;
}


/* To the nanosecond where the kernel can. */
static int
wait_for(epoll_wait_t *e, struct epoll_event *events, uint64_t timeout_ns)
{
    int              n;
    struct timespec  ts;

    if (!e->coarse) {
        ts.tv_sec = (time_t) (timeout_ns / 1000000000u);
        ts.tv_nsec = (long) (timeout_ns % 1000000000u);
        n = epoll_pwait2(e->epfd, events, WRK_WAIT_BATCH,
                         timeout_ns == UINT64_MAX ? NULL : &ts, NULL);
        if (n >= 0 || (errno != ENOSYS && errno != EPERM)) {
            return n;
        }
        e->coarse = 1;
    }
    return epoll_wait(e->epfd, events, WRK_WAIT_BATCH, to_ms(timeout_ns));
}


static int
epoll_run(wrk_wait_t *w, uint64_t timeout_ns, uint64_t *tags)
{
    epoll_wait_t        *e = (epoll_wait_t *) w;
    int                  i, n;
    struct epoll_event   events[WRK_WAIT_BATCH];

    n = wait_for(e, events, timeout_ns);
    if (n < 0) {
        return errno == EINTR ? 0 : -1;
    }
    for (i = 0; i < n; i++) {
        tags[i] = events[i].data.u64;
    }
    return n;
}


static void
epoll_close(wrk_wait_t *w)
{
    epoll_wait_t  *e = (epoll_wait_t *) w;

    close(e->epfd);
    free(e);
}


static const wrk_wait_ops_t  epoll_ops = {
    "epoll", epoll_add, epoll_del, epoll_run, epoll_close
};


wrk_wait_t *
wrk_wait_open_epoll(void)
{
    epoll_wait_t  *e;

    e = calloc(1, sizeof(*e));
    if (e == NULL) {
        return NULL;
    }
    e->wait.ops = &epoll_ops;
    e->epfd = epoll_create1(EPOLL_CLOEXEC);
    if (e->epfd < 0) {
        free(e);
        return NULL;
    }
    return &e->wait;
}
