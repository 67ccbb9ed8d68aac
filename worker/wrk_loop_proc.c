/*
 * The worker as a process: what it may do and how it behaves towards nginx.
 *
 * The order of the sandbox: loop_proc_start() before anything foreign is read;
 * the io_uring ring next; loop_proc_sandbox() before the model is opened;
 * wrk_sandbox_calls() in load_model() of wrk_loop.c, right before the worker
 * says that it is ready.
 */

#include "worker/wrk_loop_int.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "worker/wrk_log.h"


int
loop_proc_start(void)
{
    int       fd;
    sigset_t  set;

    (void) prctl(PR_SET_NAME, "infer-worker");
    (void) prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);

    /* exec has kept it; said again for a start by hand. */
    (void) prctl(PR_SET_PDEATHSIG, SIGKILL);

    /* Waits end when they should, not up to 50 us later. */
    (void) prctl(PR_SET_TIMERSLACK, 1);

    tzset();                        /* the log's times; its file goes away */

    (void) signal(SIGPIPE, SIG_IGN);
    (void) signal(SIGHUP, SIG_IGN);
    (void) signal(SIGINT, SIG_IGN);

    /* Blocked before the engine starts threads, so that only the loop gets
     * them. */
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGQUIT);
    if (sigprocmask(SIG_SETMASK, &set, NULL) != 0) {
        return -1;
    }
    fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0) {
        wrk_log(WRK_LOG_ALERT, "signalfd: %s", strerror(errno));
    }
    return fd;
}


/* The kernel's struct sched_attr; glibc has a name for it only since 2.41. */
typedef struct {
    uint32_t  size;
    uint32_t  policy;
    uint64_t  flags;
    int32_t   nice;
    uint32_t  priority;
    uint64_t  runtime;
    uint64_t  deadline;
    uint64_t  period;
} sched_attr_t;


/*
 * nginx must not wait for a time slice behind us.  SCHED_BATCH keeps our
 * wake-ups from preempting anybody.  The scheduler of Linux 6.12 and later
 * protects whom it has just picked for a slice, and looks again only at a tick,
 * unless the one that wakes up has the shorter slice: so ours is longer than
 * anybody's default (2.8 ms at most).  Older kernels do not look at it.
 * With automatic groups nice(2) says nothing to processes of other sessions:
 * there the group has a nice value of its own (the pool is a session of its
 * own, so it is ours).
 */
void
loop_proc_nice(const wrk_conf_t *conf)
{
    int           fd, n;
    char          text[16];
    sched_attr_t  attr = {
        .size = sizeof(attr),
        .policy = SCHED_BATCH,
        .nice = (int32_t) conf->nice,
        .runtime = 3 * 1000 * 1000     /* ns */
    };

    if (conf->nice == 0) {
        return;
    }

    if (syscall(SYS_sched_setattr, 0, &attr, 0) != 0) {
        (void) setpriority(PRIO_PROCESS, 0, (int) conf->nice);
    }

    fd = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return;                     /* a kernel without */
    }
    n = snprintf(text, sizeof(text), "%u", conf->nice);
    if (write(fd, text, (size_t) n) != n && errno != EAGAIN) {
        wrk_log(WRK_LOG_INFO, "nice of the session: %s", strerror(errno));
    }
    close(fd);
}


/* The tokenizer's image is made beside the pool's socket where no cache folder
 * is configured. */
void
loop_proc_sandbox(loop_t *l)
{
    char                folder[PATH_MAX] = "";
    const char         *slash;
    wrk_sandbox_path_t  paths[] = {
        { l->conf.file, WRK_SANDBOX_READ },
        { l->conf.template_path, WRK_SANDBOX_READ },
        { l->conf.cache, WRK_SANDBOX_CACHE },
        { folder, WRK_SANDBOX_CACHE },
        { "/proc/self/autogroup", WRK_SANDBOX_WRITE },
        { "/proc/cpuinfo", WRK_SANDBOX_READ },
        { "/sys/devices/system/cpu", WRK_SANDBOX_READ }
    };

    slash = l->opts->tok_image != NULL ? strrchr(l->opts->tok_image, '/')
                                       : NULL;
    if (slash != NULL) {
        snprintf(folder, sizeof(folder), "%.*s",
                 (int) (slash - l->opts->tok_image), l->opts->tok_image);
    }

    l->sandbox.off = !l->conf.sandbox;
    wrk_sandbox_files(&l->sandbox, paths, sizeof(paths) / sizeof(paths[0]));
}
