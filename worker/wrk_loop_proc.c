/*
 * The worker as a process: what it may do and how it behaves towards nginx.
 *
 * The order of the full sandbox: loop_proc_start() before anything foreign is
 * read; the ring and the model are opened next; what takes rights away for
 * good belongs at the end of load_model() in wrk_loop.c, right before the
 * worker says that it is ready.
 */

#include "worker/wrk_loop_int.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
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


/*
 * nginx must not wait for a time slice behind us.  With automatic groups
 * nice(2) says nothing to processes of other sessions: there the group has a
 * nice value of its own (the pool is a session of its own, so it is ours).
 * SCHED_BATCH keeps our wake-ups from preempting anybody.
 */
void
loop_proc_nice(const wrk_conf_t *conf)
{
    int                 fd, n;
    char                text[16];
    struct sched_param  param = { 0 };

    if (conf->nice == 0) {
        return;
    }

    (void) setpriority(PRIO_PROCESS, 0, (int) conf->nice);
    (void) sched_setscheduler(0, SCHED_BATCH, &param);

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
