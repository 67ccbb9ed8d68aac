/*
 * The supervisor's entry and its loop.  What it does with generations is in
 * wrk_super_gen.c, with worker processes in wrk_super_worker.c, with the
 * keeper in wrk_super_ctl.c.
 */

#include "worker/wrk_super_int.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "worker/wrk_log.h"


#define NOFILE_WANTED  65536


static int prepare_process(super_t *s);
static int check_folder(const char *path);
static int take_lock(super_t *s);
static int open_signals(super_t *s);
static void run_loop(super_t *s);
static void one_turn(super_t *s);
static void on_signals(super_t *s);
static void check_end(super_t *s, uint64_t *wait_ns);


int
wrk_super_run(const wrk_super_opts_t *opts)
{
    int       status = 1;
    uint32_t  i;
    super_t  *s;

    assert(opts->socket != NULL);

    s = calloc(1, sizeof(*s));
    if (s == NULL) {
        wrk_log(WRK_LOG_ALERT, "no memory for the supervisor");
        return 1;
    }
    s->opts = opts;
    s->lock_fd = s->listen_fd = s->signal_fd = s->exe_fd = -1;
    s->weights_fd = -1;
    for (i = 0; i < SUPER_CONNS_MAX; i++) {
        s->conns[i].fd = -1;
    }
    for (i = 0; i < SHR_WORKERS_MAX; i++) {
        s->workers[i].ctl = -1;
    }

    if (prepare_process(s) != 0 || check_folder(opts->socket) != 0) {
        goto done;
    }

    switch (take_lock(s)) {
    case 0:
        break;
    case 1:
        wrk_log(WRK_LOG_NOTICE, "another supervisor serves \"%s\" already",
                opts->socket);
        status = 0;
        goto done;
    default:
        goto done;
    }

    s->listen_fd = shr_ctl_listen(opts->socket);
    if (s->listen_fd < 0) {
        wrk_log(WRK_LOG_ALERT, "cannot listen at \"%s\": %s", opts->socket,
                strerror(errno));
        goto done;
    }

    /* Workers leave it there for their successors. */
    snprintf(s->image, sizeof(s->image), "%s.tok", opts->socket);
    (void) unlink(s->image);

    s->now = s->alone_ns = s->watched_ns = super_clock();
    run_loop(s);
    status = 0;

done:
    free(s);        /* the process ends; the kernel closes the rest */
    return status;
}


uint64_t
super_clock(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}


/*
 * nginx leaks its sockets into what it starts: only 0, 1 and 2 stay.  A
 * session of its own keeps the terminal's signals away.
 */
static int
prepare_process(super_t *s)
{
    int            fd;
    struct rlimit  lim;

    (void) close_range(3, ~0u, 0);
    (void) setsid();                /* EPERM: it leads a session already */
    umask(077);
    (void) prctl(PR_SET_NAME, "infer-super");
    (void) prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);

    fd = open("/dev/null", O_RDWR);
    if (fd >= 0) {
        (void) dup2(fd, STDIN_FILENO);
        (void) dup2(fd, STDOUT_FILENO);
        if (fd > STDERR_FILENO) {
            close(fd);
        }
    }

    if (getrlimit(RLIMIT_NOFILE, &lim) == 0) {
        lim.rlim_cur = lim.rlim_max < NOFILE_WANTED ? lim.rlim_max
                                                    : NOFILE_WANTED;
        (void) setrlimit(RLIMIT_NOFILE, &lim);
    }
    if (!s->opts->core) {
        lim.rlim_cur = lim.rlim_max = 0;
        (void) setrlimit(RLIMIT_CORE, &lim);
    }

    /* Kept open: the workers must be of this very binary, even if its file is
     * replaced meanwhile. */
    s->exe_fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);
    if (s->exe_fd < 0) {
        wrk_log(WRK_LOG_ALERT, "cannot open /proc/self/exe: %s",
                strerror(errno));
        return -1;
    }
    return open_signals(s);
}


/* Who may write into the folder may put a socket of his own there. */
static int
check_folder(const char *path)
{
    char         copy[PATH_MAX];
    const char  *dir;
    struct stat  st;

    if (path[0] != '/' || strlen(path) + sizeof(".lock") > sizeof(copy)) {
        wrk_log(WRK_LOG_ALERT, "--socket \"%s\" is not an absolute path",
                path);
        return -1;
    }

    memcpy(copy, path, strlen(path) + 1);
    dir = dirname(copy);

    if (stat(dir, &st) != 0) {
        wrk_log(WRK_LOG_ALERT, "folder \"%s\" of the control socket: %s", dir,
                strerror(errno));
        return -1;
    }
    if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0
        || (st.st_uid != geteuid() && st.st_uid != 0))
    {
        wrk_log(WRK_LOG_ALERT, "folder \"%s\" of the control socket can be "
                "written by others: it must belong to the pool's user, "
                "with mode 0700", dir);
        return -1;
    }
    return 0;
}


/*
 * The lock decides between two supervisors that start at once.  Workers
 * inherit the descriptor, so it is also held while a worker of a killed
 * predecessor still runs: two workers must never write one region.
 *
 * Whoever answers at the socket lives, but for a moment: a child of a
 * predecessor that was killed between fork and exec holds its socket until it
 * finds itself an orphan.
 * 0: ours; 1: another supervisor lives; -1: error.
 */
static int
take_lock(super_t *s)
{
    int       fd;
    char      path[PATH_MAX];
    uint64_t  start, met = 0;           /* since when somebody answers */

    snprintf(path, sizeof(path), "%s.lock", s->opts->socket);
    s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->lock_fd < 0) {
        wrk_log(WRK_LOG_ALERT, "cannot open \"%s\": %s", path,
                strerror(errno));
        return -1;
    }

    start = super_clock();

    while (flock(s->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            wrk_log(WRK_LOG_ALERT, "cannot lock \"%s\": %s", path,
                    strerror(errno));
            return -1;
        }
        fd = shr_ctl_connect(s->opts->socket);
        if (fd >= 0) {
            close(fd);
            met = met != 0 ? met : super_clock();
            if (super_clock() - met > SUPER_TWIN_MS * MS) {
                return 1;
            }
        } else {
            met = 0;
            if (super_clock() - start > SUPER_LOCK_MS * MS) {
                wrk_log(WRK_LOG_ERROR, "\"%s\" is still locked by a pool "
                        "that ends; giving up after %d ms", path,
                        SUPER_LOCK_MS);
                return -1;
            }
        }
        (void) poll(NULL, 0, fd >= 0 ? 20 : 5);
    }
    return 0;
}


static int
open_signals(super_t *s)
{
    sigset_t  set;

    (void) signal(SIGHUP, SIG_IGN);
    (void) signal(SIGINT, SIG_IGN);
    (void) signal(SIGPIPE, SIG_IGN);
    (void) signal(SIGCHLD, SIG_DFL);    /* may have been ignored: no wait */

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGQUIT);
    if (sigprocmask(SIG_SETMASK, &set, NULL) != 0) {
        return -1;
    }

    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s->signal_fd < 0) {
        wrk_log(WRK_LOG_ALERT, "signalfd: %s", strerror(errno));
        return -1;
    }
    return 0;
}


static void
run_loop(super_t *s)
{
    while (!s->end) {
        one_turn(s);
    }

    /* First nobody can reach us, then the workers end: a keeper that comes
     * now starts a successor, which waits for the lock. */
    if (s->listen_fd >= 0) {
        (void) unlink(s->opts->socket);
        close(s->listen_fd);
    }
    super_kill_all(s);
    (void) unlink(s->image);
    super_free_gens(s);
    wrk_log(WRK_LOG_NOTICE, "pool has ended");
}


static void
add_poll(struct pollfd *polls, uint32_t *n, int fd, short events)
{
    assert(*n < SUPER_POLLS_MAX);
    polls[*n].fd = fd;
    polls[*n].events = events;
    polls[*n].revents = 0;
    (*n)++;
}


/* The order in which one_turn() looks at the results. */
static uint32_t
fill_polls(const super_t *s, struct pollfd *polls)
{
    uint32_t  i, n = 0;

    add_poll(polls, &n, s->signal_fd, POLLIN);
    add_poll(polls, &n, s->listen_fd, POLLIN);
    for (i = 0; i < SUPER_CONNS_MAX; i++) {
        add_poll(polls, &n, s->conns[i].fd, POLLIN);
    }
    for (i = 0; i < SHR_WORKERS_MAX; i++) {
        add_poll(polls, &n, s->workers[i].ctl, POLLIN);
    }
    for (i = 0; i < s->ngens; i++) {
        add_poll(polls, &n, gen_lifeline(s->gens[i]), 0);
    }
    return n;
}


static void
one_turn(super_t *s)
{
    int                   n;
    uint32_t              i, npolls, ngens;
    uint64_t              wait_ns = SUPER_TICK_MS * MS;
    struct pollfd         polls[SUPER_POLLS_MAX];
    const struct pollfd  *p = polls;

    s->now = super_clock();
    super_tend(s, &wait_ns);
    check_end(s, &wait_ns);
    if (s->end) {
        return;
    }

    npolls = fill_polls(s, polls);
    ngens = s->ngens;

    n = poll(polls, npolls, (int) ((wait_ns + MS - 1) / MS));
    s->now = super_clock();
    if (n <= 0) {
        return;
    }

    if ((p++)->revents != 0) {
        on_signals(s);
    }
    if ((p++)->revents != 0) {
        super_accept(s);
    }
    for (i = 0; i < SUPER_CONNS_MAX; i++, p++) {
        if (p->revents != 0 && p->fd == s->conns[i].fd) {
            super_talk(s, &s->conns[i]);
        }
    }
    for (i = 0; i < SHR_WORKERS_MAX; i++, p++) {
        if (p->revents != 0 && p->fd == s->workers[i].ctl) {
            super_hear(s, i);
        }
    }
    /* Backwards: dropping one moves the later ones, new ones come after. */
    for (i = ngens; i > 0; i--) {
        if (p[i - 1].revents != 0) {
            super_drop_gen(s, i - 1);
        }
    }
}


static void
on_signals(super_t *s)
{
    struct signalfd_siginfo  info;

    while (read(s->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGCHLD) {
            super_reap(s);

        } else if (s->draining) {
            s->drain_ns = s->now;       /* asked twice: at once */

        } else {
            super_drain(s);
        }
    }
}


static void
check_end(super_t *s, uint64_t *wait_ns)
{
    uint64_t  limit, left;

    if (s->draining) {
        if (super_alive(s) == 0 || s->now >= s->drain_ns) {
            s->end = 1;
            return;
        }
        limit = s->drain_ns;

    } else if (s->ngens == 0) {
        limit = s->alone_ns + (s->configured ? SUPER_LINGER_MS
                                             : SUPER_FIRST_MS) * MS;
        if (s->opts->keep && !s->configured) {
            return;
        }
        if (s->now >= limit && s->opts->keep) {
            super_kill_all(s);
            (void) unlink(s->image);
            close(s->weights_fd);
            s->weights_fd = -1;
            s->configured = 0;
            wrk_log(WRK_LOG_NOTICE, "no nginx is left, waiting for one");
            wrk_log_name(NULL);
            return;
        }
        if (s->now >= limit) {
            s->end = 1;
            return;
        }

    } else {
        return;
    }

    left = limit - s->now;
    if (left < *wait_ns) {
        *wait_ns = left;
    }
}
