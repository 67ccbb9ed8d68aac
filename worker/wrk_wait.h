/*
 * Where the worker waits: one small interface, two twins behind it.  io_uring
 * where the kernel lets us, epoll where it does not (container profiles often
 * forbid io_uring) or where the configuration says so.
 *
 * Events are edges, whatever the twin: one notice for news, none for what is
 * still there.  A notice may be superfluous, and one may come for a tag that
 * has just been removed, so a tag carries what the caller needs to see that.
 * The descriptors stay the caller's; remove before closing.
 *
 * Who may call: the thread that opened it.  Nothing is allocated after open
 * (epoll) or after the queues of the kernel have grown (io_uring).
 */

#ifndef WRK_WAIT_H
#define WRK_WAIT_H

#include <stddef.h>
#include <stdint.h>


#define WRK_WAIT_BATCH      64          /* notices of one call */
#define WRK_WAIT_TAG_MAX    (UINT64_MAX >> 1)

typedef enum {
    WRK_WAIT_READ = 1,          /* readable, or the other end has gone */
    WRK_WAIT_GONE               /* the other end has gone, nothing else */
} wrk_wait_for_t;

typedef struct wrk_wait_s  wrk_wait_t;

typedef struct {
    const char  *name;          /* for the log */
    int        (*add)(wrk_wait_t *w, int fd, wrk_wait_for_t what,
                    uint64_t tag);
    void       (*del)(wrk_wait_t *w, int fd, uint64_t tag);
    int        (*run)(wrk_wait_t *w, uint64_t timeout_ns, uint64_t *tags);
    void       (*close)(wrk_wait_t *w);
} wrk_wait_ops_t;

struct wrk_wait_s {
    const wrk_wait_ops_t  *ops;
    int                    is_uring;
};


/*
 * Opens a twin.  want_uring 0: epoll.  When io_uring is wanted but refused,
 * epoll is opened and *refused is the errno, else 0.  NULL: neither (errno).
 */
wrk_wait_t *wrk_wait_open(int want_uring, int *refused);

/* The twins themselves; NULL with errno. */
wrk_wait_t *wrk_wait_open_uring(void);
wrk_wait_t *wrk_wait_open_epoll(void);


static inline void
wrk_wait_close(wrk_wait_t *w)
{
    w->ops->close(w);
}


/* Tells of fd from now on; what is there already counts as news.  A tag is at
 * most WRK_WAIT_TAG_MAX and names one fd at a time.  0, or -1 with errno. */
static inline int
wrk_wait_add(wrk_wait_t *w, int fd, wrk_wait_for_t what, uint64_t tag)
{
    return w->ops->add(w, fd, what, tag);
}


static inline void
wrk_wait_del(wrk_wait_t *w, int fd, uint64_t tag)
{
    w->ops->del(w, fd, tag);
}


/*
 * Waits until there is news, a signal handler ran, or timeout_ns is over (0:
 * only looks; UINT64_MAX: no limit).  Fills tags[WRK_WAIT_BATCH]; returns how
 * many, or -1 with errno when the wait itself is broken.
 */
static inline int
wrk_wait_run(wrk_wait_t *w, uint64_t timeout_ns, uint64_t *tags)
{
    return w->ops->run(w, timeout_ns, tags);
}


#endif /* WRK_WAIT_H */
