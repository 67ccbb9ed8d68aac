/*
 * A minimal HTTP/1.1 upstream: one process, epoll, keep-alive, a unix socket,
 * one fixed answer to every request.  The best case for what a proxied
 * inference server could be, to measure the hop against.
 *
 *   bench_upstream SOCKET BODY-FILE
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>


#define CONNECTIONS_MAX  4096
#define REQUEST_MAX      16384
#define ANSWER_MAX       65536

typedef struct {
    int     fd;
    size_t  have;
    char    buf[REQUEST_MAX];
} connection_t;

static char    answer[ANSWER_MAX];
static size_t  answer_len;


static void
load_answer(const char *path)
{
    int      fd;
    char     body[ANSWER_MAX / 2];
    ssize_t  n;

    fd = open(path, O_RDONLY);
    n = fd == -1 ? -1 : read(fd, body, sizeof(body));

    if (n < 0) {
        perror(path);
        exit(1);
    }

    answer_len = (size_t) snprintf(answer, sizeof(answer),
                                   "HTTP/1.1 200 OK\r\n"
                                   "Content-Type: application/json\r\n"
                                   "Content-Length: %zd\r\n\r\n", n);
    memcpy(answer + answer_len, body, (size_t) n);
    answer_len += (size_t) n;
    close(fd);
}


static int
listen_at(const char *path)
{
    int                 fd;
    struct sockaddr_un  sun = { .sun_family = AF_UNIX };

    if (strlen(path) >= sizeof(sun.sun_path)) {
        fprintf(stderr, "bench_upstream: path too long\n");
        exit(1);
    }

    memcpy(sun.sun_path, path, strlen(path));
    unlink(path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

    if (fd == -1 || bind(fd, (struct sockaddr *) &sun, sizeof(sun)) == -1
        || listen(fd, 1024) == -1)
    {
        perror(path);
        exit(1);
    }

    return fd;
}


/* Bytes of the first whole request in the buffer, 0 when there is none. */
static size_t
whole_request(const connection_t *c)
{
    size_t       head, body;
    const char  *end, *field;

    end = memmem(c->buf, c->have, "\r\n\r\n", 4);
    if (end == NULL) {
        return 0;
    }

    head = (size_t) (end - c->buf) + 4;
    field = memmem(c->buf, head, "Content-Length: ", 16);
    body = 0;

    for (field = field != NULL ? field + 16 : end;
         *field >= '0' && *field <= '9'; field++)
    {
        body = body * 10 + (size_t) (*field - '0');
    }

    return head + body <= c->have ? head + body : 0;
}


/* 0 when the connection has ended. */
static int
serve(connection_t *c)
{
    size_t   n;
    ssize_t  got;

    got = read(c->fd, c->buf + c->have, sizeof(c->buf) - c->have);

    if (got <= 0) {
        return got == -1 && errno == EAGAIN;
    }

    c->have += (size_t) got;

    while ((n = whole_request(c)) != 0) {
        if (write(c->fd, answer, answer_len) != (ssize_t) answer_len) {
            return 0;
        }

        memmove(c->buf, c->buf + n, c->have - n);
        c->have -= n;
    }

    return c->have < sizeof(c->buf);
}


static void
accept_all(int ep, int fd)
{
    int                 s;
    connection_t       *c;
    struct epoll_event  ev;

    while ((s = accept4(fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        c = calloc(1, sizeof(*c));

        if (c == NULL) {
            close(s);
            return;
        }

        c->fd = s;
        ev.events = EPOLLIN;
        ev.data.ptr = c;
        (void) epoll_ctl(ep, EPOLL_CTL_ADD, s, &ev);
    }
}


int
main(int argc, char **argv)
{
    int                 ep, fd, i, n;
    connection_t       *c;
    struct epoll_event  ev, events[256];

    if (argc != 3) {
        fprintf(stderr, "usage: bench_upstream SOCKET BODY-FILE\n");
        return 2;
    }

    signal(SIGPIPE, SIG_IGN);       /* clients go while we answer */
    load_answer(argv[2]);
    fd = listen_at(argv[1]);
    ep = epoll_create1(0);
    ev.events = EPOLLIN;
    ev.data.ptr = NULL;
    (void) epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);

    for ( ;; ) {
        n = epoll_wait(ep, events, 256, -1);

        for (i = 0; i < n; i++) {
            c = events[i].data.ptr;

            if (c == NULL) {
                accept_all(ep, fd);

            } else if (!serve(c)) {
                close(c->fd);
                free(c);
            }
        }
    }
}
