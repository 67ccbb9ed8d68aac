/*
 * The supervisor's talk with nginx's keeper: attach a generation, or ask
 * whether it is attached.  Each question gets one answer.
 */

#include "worker/wrk_super_int.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shm/shr_error.h"
#include "worker/wrk_log.h"


#define PID_NS_MAX      64
#define MESSAGES_MAX    16      /* of one connection in a turn */


static int pids_are_foreign(int fd);
static void close_conn(super_conn_t *conn);
static int answer(super_t *s, super_conn_t *conn);
static void super_log(super_t *s, int fd);


void
super_accept(super_t *s)
{
    int       fd;
    uint32_t  i;

    fd = shr_ctl_accept(s->listen_fd);
    if (fd < 0) {
        if (fd == -SHR_EINVAL) {
            wrk_log(WRK_LOG_WARN, "a control connection of another user was "
                    "refused");
        }
        return;
    }

    for (i = 0; i < SUPER_CONNS_MAX; i++) {
        if (s->conns[i].fd == -1) {
            s->conns[i].fd = fd;
            s->conns[i].foreign_pids = pids_are_foreign(fd);
            wrk_rx_init(&s->conns[i].rx, 0);
            return;
        }
    }

    wrk_log(WRK_LOG_WARN, "more than %d control connections", SUPER_CONNS_MAX);
    close(fd);
}


/* An nginx in another pid namespace writes pids that mean other processes
 * here; then its clients' deaths are learned in slower ways. */
static int
pids_are_foreign(int fd)
{
    char          path[PID_NS_MAX], ours[PID_NS_MAX], theirs[PID_NS_MAX];
    ssize_t       a, b;
    socklen_t     len;
    struct ucred  cred;

    len = sizeof(cred);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0) {
        return 1;
    }
    snprintf(path, sizeof(path), "/proc/%d/ns/pid", (int) cred.pid);
    a = readlink("/proc/self/ns/pid", ours, sizeof(ours));
    b = readlink(path, theirs, sizeof(theirs));
    return a <= 0 || a != b || memcmp(ours, theirs, (size_t) a) != 0;
}


static void
close_conn(super_conn_t *conn)
{
    wrk_rx_reset(&conn->rx);
    close(conn->fd);
    conn->fd = -1;
}


void
super_talk(super_t *s, super_conn_t *conn)
{
    int  i, rc, idle;

    for (i = 0; i < MESSAGES_MAX; i++) {
        rc = wrk_rx_read(&conn->rx, conn->fd, &idle);

        if (rc == -SHR_EAGAIN) {
            if (idle) {
                return;
            }
            continue;
        }
        if (rc == -SHR_EBROKEN) {
            wrk_log(WRK_LOG_ERROR, "a control message that cannot be was "
                    "refused: are nginx's module and nginx-infer-worker of "
                    "the same version?");
        }
        if (rc != 0 || answer(s, conn) != 0) {
            close_conn(conn);
            return;
        }
    }
}


/* nginx has opened its log again: ours, and that of the workers.  One whose
 * socket is full goes on with the old one until the next time. */
static void
super_log(super_t *s, int fd)
{
    uint32_t       w;
    shr_ctl_msg_t  msg;

    memset(&msg, 0, sizeof(msg));
    msg.type = SHR_CTL_LOG;
    msg.nfds = 1;
    msg.abi_hash = shr_abi_hash();
    msg.model_hash = s->model_hash;

    for (w = 0; w < SHR_WORKERS_MAX; w++) {
        if (s->workers[w].pid != 0 && s->workers[w].ctl >= 0) {
            (void) shr_ctl_send(s->workers[w].ctl, &msg, &fd);
        }
    }

    wrk_log_reopen(fd);
}


static int
answer(super_t *s, super_conn_t *conn)
{
    int             ok;
    char            why[SUPER_REASON_MAX];
    wrk_rx_t       *rx = &conn->rx;
    shr_ctl_msg_t   reply;

    why[0] = '\0';

    switch (rx->msg.type) {

    case SHR_CTL_ATTACH:
        ok = super_attach(s, rx, conn->foreign_pids, why) == 0;
        if (!ok) {
            wrk_log(WRK_LOG_ERROR, "nginx was refused: %s", why);
        }
        break;

    case SHR_CTL_PING:
        ok = super_find(s, rx->msg.generation) != NULL;
        if (!ok) {
            snprintf(why, sizeof(why), "this generation is not attached");
        }
        break;

    case SHR_CTL_DETACH:
        super_detach(s, rx->msg.generation);
        ok = 1;
        break;

    case SHR_CTL_LOG:
        super_log(s, rx->fds[0]);
        rx->nfds = 0;
        ok = 1;
        break;

    default:
        return -1;
    }

    memset(&reply, 0, sizeof(reply));
    reply.type = ok ? SHR_CTL_OK : SHR_CTL_REFUSED;
    reply.abi_hash = shr_abi_hash();
    reply.model_hash = s->model_hash;
    reply.generation[0] = rx->msg.generation[0];
    reply.generation[1] = rx->msg.generation[1];
    reply.text_len = (uint32_t) strlen(why);
    memcpy(reply.text, why, reply.text_len);

    return shr_ctl_send(conn->fd, &reply, NULL);
}
