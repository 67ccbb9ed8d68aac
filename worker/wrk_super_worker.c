/*
 * The worker processes of a supervisor: start, hand-over, watch, end.
 */

#include "worker/wrk_super_int.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/shr_error.h"
#include "worker/wrk_log.h"


#define HIGH_FD         64      /* above all fixed numbers */
#define MESSAGES_MAX    8       /* of one worker in a turn */


static void start_worker(super_t *s, uint32_t w);
static void run_child(super_t *s, uint32_t w, int ctl, pid_t parent)
    __attribute__((noreturn));
static void worker_ended(super_t *s, uint32_t w, int status);
static void watch_beats(super_t *s);
static void renew_weights(super_t *s);


uint32_t
wrk_super_backoff_ms(uint32_t *step, uint64_t ready_for_ms, uint32_t max_ms)
{
    uint32_t  i;
    uint64_t  ms;

    if (ready_for_ms >= SUPER_HEALTHY_MS) {
        *step = 0;
    }
    if (*step == 0) {
        *step = 1;
        return 0;
    }

    ms = SUPER_BACKOFF_MS;
    for (i = 1; i < *step && ms < max_ms; i++) {
        ms *= 2;
    }
    if (*step < 64) {
        (*step)++;
    }
    return ms < max_ms ? (uint32_t) ms : max_ms;
}


void
super_tend(super_t *s, uint64_t *wait_ns)
{
    uint32_t         w;
    uint64_t         left, tick;
    super_worker_t  *p;

    if (!s->configured) {
        return;
    }

    for (w = 0; w < s->conf.workers; w++) {
        p = &s->workers[w];

        if (p->phase == SUPER_IDLE) {
            if (s->draining || s->ngens == 0) {
                continue;
            }
            if (p->due_ns <= s->now) {
                start_worker(s, w);
            }
            left = p->due_ns > s->now ? p->due_ns - s->now : 0;
            if (p->phase == SUPER_IDLE && left < *wait_ns) {
                *wait_ns = left;
            }
        }

        if (p->phase != SUPER_IDLE && super_send_gens(s, w)
            && *wait_ns > SUPER_RETRY_MS * MS)
        {
            *wait_ns = SUPER_RETRY_MS * MS;
        }
    }

    tick = s->opts->hang_ms * MS / 4;
    if (tick < *wait_ns) {
        *wait_ns = tick;
    }
    watch_beats(s);
}


static void
start_worker(super_t *s, uint32_t w)
{
    int              fds[2];
    pid_t            pid, parent;
    super_worker_t  *p = &s->workers[w];

    assert(p->pid == 0 && p->ctl == -1);

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
                   fds) != 0)
    {
        wrk_log(WRK_LOG_ALERT, "socketpair: %s", strerror(errno));
        p->due_ns = s->now + SUPER_TICK_MS * MS;
        return;
    }

    parent = getpid();
    pid = fork();

    if (pid == 0) {
        run_child(s, w, fds[1], parent);
    }

    close(fds[1]);
    if (pid < 0) {
        wrk_log(WRK_LOG_ALERT, "fork: %s", strerror(errno));
        close(fds[0]);
        p->due_ns = s->now + SUPER_TICK_MS * MS;
        return;
    }

    p->pid = pid;
    p->ctl = fds[0];
    p->phase = SUPER_LOADING;
    p->started_ns = s->now;
    p->hung = 0;
    p->reason[0] = '\0';
}


/* Between fork and exec.  The supervisor has one thread, so libc is usable. */
static void
run_child(super_t *s, uint32_t w, int ctl, pid_t parent)
{
    int       fds[3], i;
    char      index[16];
    sigset_t  none;

    char  *argv[] = { "nginx-infer-worker", "--worker", "--name",
                      s->conf.name, "--index", index, "--image", s->image,
                      s->opts->verbose ? "--verbose" : NULL, NULL };

    /* If the supervisor died before the first line, nothing will kill us. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent) {
        _exit(1);
    }

    fds[0] = fcntl(ctl, F_DUPFD, HIGH_FD);
    fds[1] = fcntl(s->lock_fd, F_DUPFD, HIGH_FD);
    fds[2] = fcntl(s->weights_fd, F_DUPFD, HIGH_FD);
    i = fcntl(s->exe_fd, F_DUPFD_CLOEXEC, HIGH_FD);
    if (fds[0] < 0 || fds[1] < 0 || fds[2] < 0 || i < 0
        || dup2(fds[0], WRK_FD_CTL) < 0 || dup2(fds[1], WRK_FD_LOCK) < 0
        || dup2(fds[2], WRK_FD_WEIGHTS) < 0
        || dup3(i, WRK_FD_WEIGHTS + 1, O_CLOEXEC) < 0
        || close_range(WRK_FD_WEIGHTS + 2, ~0u, 0) != 0)
    {
        wrk_log(WRK_LOG_ALERT, "descriptors of a worker: %s",
                strerror(errno));
        _exit(1);
    }

    snprintf(index, sizeof(index), "%u", w);
    sigemptyset(&none);
    (void) sigprocmask(SIG_SETMASK, &none, NULL);
    (void) signal(SIGPIPE, SIG_DFL);

    (void) execveat(WRK_FD_WEIGHTS + 1, "", argv, environ, AT_EMPTY_PATH);
    wrk_log(WRK_LOG_ALERT, "cannot run nginx-infer-worker: %s",
            strerror(errno));
    _exit(1);
}


void
super_hear(super_t *s, uint32_t w)
{
    int              i, rc, fds[SHR_CTL_FDS_MAX];
    uint32_t         n;
    super_worker_t  *p = &s->workers[w];
    shr_ctl_msg_t    msg;

    for (i = 0; i < MESSAGES_MAX && p->ctl >= 0; i++) {
        rc = shr_ctl_recv(p->ctl, &msg, fds);
        if (rc == -SHR_EAGAIN) {
            return;
        }
        if (rc != 0) {
            close(p->ctl);          /* SIGCHLD follows */
            p->ctl = -1;
            (void) kill(p->pid, SIGKILL);
            return;
        }
        while (msg.nfds > 0) {
            close(fds[--msg.nfds]);         /* it has none to give */
        }

        if (msg.type == SHR_CTL_READY && p->phase == SUPER_LOADING) {
            p->phase = SUPER_READY;
            p->ready_ns = s->now;
            p->still_ns = 0;

        } else if (msg.type == SHR_CTL_REFUSED) {
            n = msg.text_len < SUPER_REASON_MAX ? msg.text_len
                                                : SUPER_REASON_MAX - 1;
            memcpy(p->reason, msg.text, n);
            p->reason[n] = '\0';
        }
    }
}


void
super_reap(super_t *s)
{
    int       status;
    pid_t     pid;
    uint32_t  w;

    for (w = 0; w < SHR_WORKERS_MAX; w++) {
        if (s->workers[w].pid == 0) {
            continue;
        }
        pid = waitpid(s->workers[w].pid, &status, WNOHANG);
        if (pid == s->workers[w].pid) {
            worker_ended(s, w, status);
        }
    }
}


static void
describe_end(char *buf, size_t cap, const super_worker_t *p, int status)
{
    if (p->hung) {
        snprintf(buf, cap, "was killed, for it had stopped working");
    } else if (WIFSIGNALED(status)) {
        snprintf(buf, cap, "was ended by signal %d%s", WTERMSIG(status),
                 WCOREDUMP(status) ? " (core dumped)" : "");
    } else {
        snprintf(buf, cap, "ended with status %d", WEXITSTATUS(status));
    }
}


static void
worker_ended(super_t *s, uint32_t w, int status)
{
    int              quiet;
    char             how[128];
    uint32_t         ms;
    uint64_t         served_ms;
    super_worker_t  *p = &s->workers[w];

    if (p->ctl >= 0) {
        super_hear(s, w);           /* its last words */
    }
    if (p->ctl >= 0) {
        close(p->ctl);
        p->ctl = -1;
    }

    served_ms = p->phase == SUPER_READY ? (s->now - p->ready_ns) / MS : 0;
    ms = wrk_super_backoff_ms(&p->failures, served_ms,
                              s->opts->backoff_max_ms);
    if (p->phase == SUPER_LOADING && p->failures >= SUPER_RENEW_AFTER) {
        renew_weights(s);
    }

    p->pid = 0;
    p->phase = SUPER_IDLE;
    p->due_ns = s->now + ms * MS;
    super_worker_gone(s, w);

    quiet = s->draining || s->ngens == 0;
    describe_end(how, sizeof(how), p, status);

    if (p->reason[0] != '\0') {
        wrk_log(WRK_LOG_ERROR, "worker %u cannot serve: %s; next try in "
                "%u ms", w, p->reason, ms);
    } else if (quiet && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        wrk_log(WRK_LOG_INFO, "worker %u has ended", w);
    } else if (quiet) {
        wrk_log(WRK_LOG_NOTICE, "worker %u %s", w, how);
    } else {
        wrk_log(WRK_LOG_ERROR, "worker %u %s; a new one is started in %u ms",
                w, how, ms);
    }
}


/*
 * Workers that die while they load, again and again: the image in the memfd
 * that all share may be what kills them.  While nobody serves from it a new
 * one costs nothing but the time to pack it.
 */
static void
renew_weights(super_t *s)
{
    int       fd;
    uint32_t  w;

    for (w = 0; w < s->conf.workers; w++) {
        if (s->workers[w].phase == SUPER_READY) {
            return;
        }
    }

    fd = memfd_create("infer-weights", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd >= 0) {
        close(s->weights_fd);
        s->weights_fd = fd;
    }
}


/* The newest beat of a worker in any generation that it may know. */
static uint64_t
read_beat(const super_t *s, uint32_t w)
{
    uint32_t                  i;
    uint64_t                  beat, newest = 0;
    shr_worker_layout_t       layout;
    const shr_worker_line_t  *line;

    for (i = 0; i < s->ngens; i++) {
        shr_worker_layout(&s->gens[i]->geom, &layout);
        line = (const void *) ((const char *) s->gens[i]->regions[w]
                               + layout.line);
        /* relaxed: a value by itself, nothing else is read by it */
        beat = atomic_load_explicit(&line->beat_ns, memory_order_relaxed);
        newest = beat > newest ? beat : newest;
    }
    return newest;
}


/*
 * Counts how long each beat has stood still, by our own clock and at most one
 * tick a turn: if this process itself was stopped, or the machine, nobody is
 * to blame.
 */
static void
watch_beats(super_t *s)
{
    uint32_t         w;
    uint64_t         dt, beat;
    super_worker_t  *p;

    dt = s->now - s->watched_ns;
    s->watched_ns = s->now;
    if (dt > 2 * SUPER_TICK_MS * MS) {
        dt = 2 * SUPER_TICK_MS * MS;
    }

    for (w = 0; w < s->conf.workers; w++) {
        p = &s->workers[w];
        if (p->phase != SUPER_READY || s->ngens == 0) {
            continue;
        }
        beat = read_beat(s, w);
        if (beat != p->beat) {
            p->beat = beat;
            p->still_ns = 0;
            continue;
        }
        p->still_ns += dt;
        if (p->still_ns > s->opts->hang_ms * MS && !p->hung) {
            p->hung = 1;
            wrk_log(WRK_LOG_ERROR, "worker %u has not moved for %u ms: "
                    "killing process %d", w, s->opts->hang_ms, (int) p->pid);
            (void) kill(p->pid, SIGKILL);
        }
    }
}


void
super_drain(super_t *s)
{
    uint32_t         w;
    super_worker_t  *p;

    s->draining = 1;
    s->drain_ns = s->now + s->opts->drain_ms * MS;
    wrk_log(WRK_LOG_NOTICE, "pool is asked to end: running requests may "
            "take %u ms", s->opts->drain_ms);

    /* From now on a keeper finds nobody and starts a successor. */
    (void) unlink(s->opts->socket);
    close(s->listen_fd);
    s->listen_fd = -1;

    for (w = 0; w < SHR_WORKERS_MAX; w++) {
        p = &s->workers[w];
        if (p->pid != 0) {
            (void) kill(p->pid, p->phase == SUPER_READY ? SIGTERM : SIGKILL);
        }
    }
}


void
super_kill_all(super_t *s)
{
    int              status;
    uint32_t         w;
    super_worker_t  *p;

    for (w = 0; w < SHR_WORKERS_MAX; w++) {
        if (s->workers[w].pid != 0) {
            (void) kill(s->workers[w].pid, SIGKILL);
        }
    }

    for (w = 0; w < SHR_WORKERS_MAX; w++) {
        p = &s->workers[w];
        if (p->pid == 0) {
            continue;
        }
        while (waitpid(p->pid, &status, 0) < 0 && errno == EINTR) {
            /* again */
        }
        p->pid = 0;
        p->phase = SUPER_IDLE;
        if (p->ctl >= 0) {
            close(p->ctl);
            p->ctl = -1;
        }
        super_worker_gone(s, w);
    }
}


uint32_t
super_alive(const super_t *s)
{
    uint32_t  w, n = 0;

    for (w = 0; w < SHR_WORKERS_MAX; w++) {
        n += s->workers[w].pid != 0;
    }
    return n;
}
