/*
 * The control socket: one structure a message, descriptors beside it.
 */

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shm/shr_ctl.h"
#include "shm/shr_error.h"


#define CTL_BACKLOG  64


static int
ctl_address(const char *path, struct sockaddr_un *sun)
{
    size_t  len;

    len = strlen(path);

    if (len == 0 || len >= sizeof(sun->sun_path)) {
        errno = ENAMETOOLONG;
        return -SHR_ESYS;
    }

    memset(sun, 0, sizeof(*sun));
    sun->sun_family = AF_UNIX;
    memcpy(sun->sun_path, path, len + 1);

    return 0;
}


static int
ctl_socket(void)
{
    return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}


int
shr_ctl_connect(const char *path)
{
    int                 fd;
    struct sockaddr_un  sun;

    if (ctl_address(path, &sun) != 0) {
        return -SHR_ESYS;
    }

    fd = ctl_socket();
    if (fd == -1) {
        return -SHR_ESYS;
    }

    if (connect(fd, (struct sockaddr *) &sun, sizeof(sun)) == -1) {
        int  err = errno;

        close(fd);
        errno = err;
        return -SHR_ESYS;
    }

    return fd;
}


int
shr_ctl_listen(const char *path)
{
    int                 fd;
    struct sockaddr_un  sun;

    if (ctl_address(path, &sun) != 0) {
        return -SHR_ESYS;
    }

    fd = shr_ctl_connect(path);

    if (fd >= 0) {
        close(fd);
        errno = EADDRINUSE;
        return -SHR_ESYS;
    }

    if (errno == ECONNREFUSED) {
        (void) unlink(path);        /* its owner was killed */
    }

    fd = ctl_socket();
    if (fd == -1) {
        return -SHR_ESYS;
    }

    if (bind(fd, (struct sockaddr *) &sun, sizeof(sun)) == -1
        || listen(fd, CTL_BACKLOG) == -1)
    {
        int  err = errno;

        close(fd);
        errno = err;
        return -SHR_ESYS;
    }

    return fd;
}


int
shr_ctl_check_peer(int fd)
{
    struct ucred  cred;
    socklen_t     len;

    len = sizeof(cred);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == -1) {
        return -SHR_ESYS;
    }

    return cred.uid == 0 || cred.uid == geteuid() ? 0 : -SHR_EINVAL;
}


int
shr_ctl_accept(int fd)
{
    int  s;

    s = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (s == -1) {
        return errno == EAGAIN || errno == ECONNABORTED || errno == EINTR
               ? -SHR_EAGAIN : -SHR_ESYS;
    }

    if (shr_ctl_check_peer(s) != 0) {
        close(s);
        return -SHR_EINVAL;
    }

    return s;
}


typedef union {
    char            buf[CMSG_SPACE(SHR_CTL_FDS_MAX * sizeof(int))];
    struct cmsghdr  align;
} ctl_cmsg_t;


int
shr_ctl_send(int fd, const shr_ctl_msg_t *msg, const int *fds)
{
    ssize_t          n;
    ctl_cmsg_t       control;
    struct iovec     iov;
    struct msghdr    hdr;
    struct cmsghdr  *cmsg;

    assert(msg->nfds <= SHR_CTL_FDS_MAX && msg->text_len <= SHR_CTL_TEXT_MAX);

    memset(&hdr, 0, sizeof(hdr));
    iov.iov_base = (void *) msg;
    iov.iov_len = sizeof(*msg);
    hdr.msg_iov = &iov;
    hdr.msg_iovlen = 1;

    if (msg->nfds != 0) {
        memset(&control, 0, sizeof(control));
        hdr.msg_control = control.buf;
        hdr.msg_controllen = CMSG_SPACE(msg->nfds * sizeof(int));
        cmsg = CMSG_FIRSTHDR(&hdr);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(msg->nfds * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, msg->nfds * sizeof(int));
    }

    n = sendmsg(fd, &hdr, MSG_NOSIGNAL);

    if (n == -1) {
        return errno == EAGAIN || errno == EINTR ? -SHR_EAGAIN : -SHR_ESYS;
    }

    return (size_t) n == sizeof(*msg) ? 0 : -SHR_ESYS;
}


static void
ctl_close_all(int *fds, uint32_t n)
{
    uint32_t  i;

    for (i = 0; i < n; i++) {
        close(fds[i]);
    }
}


/* Collects what descriptors came, however they came; returns their number. */
static uint32_t
ctl_take_fds(struct msghdr *hdr, int *fds)
{
    size_t           len;
    uint32_t         n;
    struct cmsghdr  *cmsg;

    n = 0;

    for (cmsg = CMSG_FIRSTHDR(hdr); cmsg != NULL;
         cmsg = CMSG_NXTHDR(hdr, cmsg))
    {
        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS) {
            continue;
        }

        len = cmsg->cmsg_len - CMSG_LEN(0);
        assert(len / sizeof(int) <= SHR_CTL_FDS_MAX - n);
        memcpy(fds + n, CMSG_DATA(cmsg), len);
        n += (uint32_t) (len / sizeof(int));
    }

    return n;
}


int
shr_ctl_recv(int fd, shr_ctl_msg_t *msg, int *fds)
{
    ssize_t        n;
    uint32_t       nfds;
    ctl_cmsg_t     control;
    struct iovec   iov;
    struct msghdr  hdr;

    memset(&hdr, 0, sizeof(hdr));
    iov.iov_base = msg;
    iov.iov_len = sizeof(*msg);
    hdr.msg_iov = &iov;
    hdr.msg_iovlen = 1;
    hdr.msg_control = control.buf;
    hdr.msg_controllen = sizeof(control.buf);

    n = recvmsg(fd, &hdr, MSG_CMSG_CLOEXEC);

    if (n == -1) {
        if (errno == EAGAIN || errno == EINTR) {
            return -SHR_EAGAIN;
        }

        return errno == ECONNRESET ? -SHR_EDONE : -SHR_ESYS;
    }

    if (n == 0) {
        return -SHR_EDONE;
    }

    nfds = ctl_take_fds(&hdr, fds);

    if ((size_t) n != sizeof(*msg)
        || (hdr.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0
        || msg->type == 0 || msg->type >= SHR_CTL_MAX
        || msg->nfds != nfds || msg->text_len > SHR_CTL_TEXT_MAX)
    {
        ctl_close_all(fds, nfds);
        return -SHR_EBROKEN;
    }

    return 0;
}


int
shr_ctl_send_generation(int fd, shr_ctl_msg_t *msg, const int *fds)
{
    int       rc;
    uint32_t  left, part;

    assert(shr_geom_check(&msg->geom) == 0);
    left = shr_ctl_nfds(&msg->geom);

    do {
        part = left < SHR_CTL_FDS_MAX ? left : SHR_CTL_FDS_MAX;
        msg->nfds = part;
        rc = shr_ctl_send(fd, msg, fds);

        if (rc != 0) {
            return rc;
        }

        fds += part;
        left -= part;
        msg->type = SHR_CTL_FDS;
    } while (left != 0);

    return 0;
}
