/*
 * POSTs one body over keep-alive connections and prints latencies.  Closed
 * loop: every connection sends its next request when it has its answer.  Open
 * loop: requests are due at a fixed rate and take any free connection;
 * latency counts from when a request was due (no coordinated omission).
 *
 *   bench_load PORT PATH BODY-FILE CONNECTIONS SECONDS [RATE [STEPS_US]]
 *   → {"requests": N, "errors": N, "rps": …, "p50_us": …, "p90_us": …,
 *      "p99_us": …, "p999_us": …, "max_us": …, "cpu_s": …}
 *
 * STEPS_US is what a request's own steps take on a simulated accelerator.
 * Then latencies are what lies beyond them, and beyond the rest of the step
 * that ran when the request came: an answer's X-Queue-Time, in seconds, unless
 * no other request was under way.  wait_p50_us is that of all.
 *
 * Answers must have a Content-Length.  The first eighth of the time is not
 * counted.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>


#define CONNECTIONS_MAX  4096
#define SAMPLES_MAX      (1u << 23)
#define REQUEST_MAX      65536
#define ANSWER_MAX       65536
#define EVENTS           256


typedef struct {
    int       fd;
    uint64_t  due;                      /* of the request under way; 0: none */
    int       alone;                    /* no other was */
    uint32_t  have;
    char      in[ANSWER_MAX];
} conn_t;


static conn_t    *conns;
static uint32_t   nconns;
static uint32_t   free_list[CONNECTIONS_MAX], nfree;
static char       request[REQUEST_MAX];
static size_t     request_len;
static uint32_t  *samples, *waits, nsamples;
static uint32_t   steps_us;
static uint64_t   errors, counted_from;
static int        epoll;


static uint64_t
now_ns(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}


static uint32_t
number(const char *text)
{
    uint32_t  n;

    for (n = 0; *text >= '0' && *text <= '9' && n < 100000000; text++) {
        n = n * 10 + (uint32_t) (*text - '0');
    }

    return n;
}


static int
die(const char *what)
{
    perror(what);
    exit(1);
}


static void
read_body(const char *port, const char *path, const char *file)
{
    int      fd;
    int      head;
    ssize_t  n;
    char     body[REQUEST_MAX / 2];

    fd = open(file, O_RDONLY);
    n = fd < 0 ? -1 : read(fd, body, sizeof(body));
    if (n < 0 || n == (ssize_t) sizeof(body)) {
        die(file);
    }
    close(fd);

    head = snprintf(request, sizeof(request) / 2, "POST %s HTTP/1.1\r\n"
                    "Host: 127.0.0.1:%s\r\nContent-Type: application/json\r\n"
                    "Content-Length: %zd\r\n\r\n", path, port, n);
    if (head < 0 || head >= (int) sizeof(request) / 2) {
        die(path);
    }
    memcpy(request + head, body, (size_t) n);
    request_len = (size_t) head + (size_t) n;
}


static void
connect_all(uint32_t port)
{
    int                 one = 1;
    uint32_t            i;
    struct sockaddr_in  to = { .sin_family = AF_INET,
                               .sin_port = htons((uint16_t) port) };
    struct epoll_event  ev;

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    epoll = epoll_create1(0);
    conns = calloc(nconns, sizeof(conn_t));
    samples = malloc(SAMPLES_MAX * sizeof(uint32_t));
    waits = malloc(SAMPLES_MAX * sizeof(uint32_t));
    if (epoll < 0 || conns == NULL || samples == NULL || waits == NULL) {
        die("memory");
    }

    for (i = 0; i < nconns; i++) {
        conns[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (conns[i].fd < 0
            || connect(conns[i].fd, (struct sockaddr *) &to, sizeof(to)) != 0)
        {
            die("connect");
        }
        (void) setsockopt(conns[i].fd, IPPROTO_TCP, TCP_NODELAY, &one,
                          sizeof(one));
        (void) fcntl(conns[i].fd, F_SETFL, O_NONBLOCK);
        ev.events = EPOLLIN | EPOLLET;
        ev.data.u32 = i;
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, conns[i].fd, &ev) != 0) {
            die("epoll_ctl");
        }
        free_list[nfree++] = nconns - 1 - i;
    }
}


static void
send_request(uint32_t i, uint64_t due)
{
    /* a request is far smaller than a socket's buffer */
    if (send(conns[i].fd, request, request_len, MSG_NOSIGNAL)
        != (ssize_t) request_len)
    {
        die("send");
    }
    conns[i].due = due;
    conns[i].alone = nfree + 1 == nconns;
    conns[i].have = 0;
}


/* Length of the whole answer, 0 while its head is not complete. */
static uint32_t
answer_length(const conn_t *c)
{
    const char  *end, *field;

    end = memmem(c->in, c->have, "\r\n\r\n", 4);
    if (end == NULL) {
        return 0;
    }
    field = strcasestr(c->in, "\r\ncontent-length: ");
    if (field == NULL || field > end) {
        fprintf(stderr, "an answer without Content-Length\n");
        exit(1);
    }

    return (uint32_t) (end + 4 - c->in) + number(field + 18);
}


/* 1 when an answer is complete. */
static int
receive(conn_t *c)
{
    ssize_t   n;
    uint32_t  want;

    for ( ;; ) {
        n = recv(c->fd, c->in + c->have, sizeof(c->in) - 1 - c->have, 0);
        if (n < 0 && errno == EAGAIN) {
            return 0;
        }
        if (n <= 0) {
            die("recv");
        }
        c->have += (uint32_t) n;
        c->in[c->have] = '\0';
        want = answer_length(c);
        if (want != 0 && c->have >= want) {
            return 1;
        }
        if (c->have == sizeof(c->in) - 1) {
            fprintf(stderr, "an answer above %d bytes\n", ANSWER_MAX);
            exit(1);
        }
    }
}


/* Microseconds that the answer says its request waited for its first step. */
static uint32_t
queue_us(const conn_t *c)
{
    uint32_t     us, i;
    const char  *at;

    at = strcasestr(c->in, "\r\nx-queue-time: ");
    if (at == NULL) {
        return 0;               /* each has an accelerator of its own */
    }
    at += 16;
    us = number(at);
    at += strcspn(at, ".\r");
    at += *at == '.';
    for (i = 0; i < 6; i++) {
        us = us * 10 + (*at >= '0' && *at <= '9' ? (uint32_t) (*at++ - '0')
                                                 : 0);
    }

    return us;
}


static uint32_t
beyond(uint64_t us, uint32_t less)
{
    return us > less ? (uint32_t) (us - less) : 0;
}


static void
account(const conn_t *c, uint64_t now)
{
    uint32_t  wait = 0;

    if (c->due < counted_from) {
        return;
    }
    if (memcmp(c->in + 9, "200", 3) != 0) {
        if (errors++ == 0) {
            fprintf(stderr, "%.300s\n", c->in);
        }
        return;
    }
    if (steps_us != 0 && !c->alone) {
        wait = queue_us(c);
    }
    if (nsamples < SAMPLES_MAX) {
        waits[nsamples] = wait;
        samples[nsamples++] = beyond((now - c->due) / 1000, steps_us + wait);
    }
}


/* Answers that are there within `wait_us`; closed: each sends the next. */
static void
turn(int64_t wait_us, int closed)
{
    int                 i, n;
    uint64_t            now;
    struct timespec     ts = { wait_us / 1000000, wait_us % 1000000 * 1000 };
    struct epoll_event  ev[EVENTS];

    n = epoll_pwait2(epoll, ev, EVENTS, &ts, NULL);
    for (i = 0; i < n; i++) {
        conn_t  *c = &conns[ev[i].data.u32];

        if (c->due == 0 || !receive(c)) {
            continue;
        }
        now = now_ns();
        account(c, now);
        if (closed) {
            send_request(ev[i].data.u32, now);
        } else {
            c->due = 0;
            free_list[nfree++] = ev[i].data.u32;
        }
    }
}


static void
closed_loop(uint64_t end)
{
    uint32_t  i;

    for (i = 0; i < nconns; i++) {
        send_request(i, now_ns());
    }
    while (now_ns() < end) {
        turn(100000, 1);
    }
}


static void
open_loop(uint64_t begin, uint64_t end, uint32_t rate)
{
    uint64_t  k = 0, due, now, late;

    for ( ;; ) {
        now = now_ns();
        late = now;
        for ( ;; k++) {
            due = begin + k * 1000000000u / rate;
            if (due > now || due >= end || nfree == 0) {
                break;
            }
            send_request(free_list[--nfree], due);
        }
        if (due >= end && nfree == nconns) {
            return;
        }
        if (now > end + 30000000000u) {
            fprintf(stderr, "answers stay away\n");
            exit(1);
        }
        turn(due > late && nfree != 0 ? (int64_t) ((due - late) / 1000) + 1
                                      : 100000, 0);
    }
}


static int
compare(const void *a, const void *b)
{
    uint32_t  x = *(const uint32_t *) a, y = *(const uint32_t *) b;

    return (x > y) - (x < y);
}


static uint32_t
quantile(const uint32_t *of, double q)
{
    return nsamples == 0 ? 0 : of[(uint32_t) (q * (nsamples - 1))];
}


int
main(int argc, char **argv)
{
    uint32_t       seconds, rate;
    uint64_t       begin, end;
    struct rusage  use;

    if (argc < 6) {
        fprintf(stderr, "bench_load PORT PATH BODY-FILE CONNECTIONS SECONDS "
                "[RATE [STEPS_US]]\n");
        return 2;
    }
    nconns = number(argv[4]);
    seconds = number(argv[5]);
    rate = argc > 6 ? number(argv[6]) : 0;
    steps_us = argc > 7 ? number(argv[7]) : 0;
    if (nconns == 0 || nconns > CONNECTIONS_MAX || seconds == 0) {
        return 2;
    }

    read_body(argv[1], argv[2], argv[3]);
    connect_all(number(argv[1]));
    begin = now_ns();
    end = begin + (uint64_t) seconds * 1000000000u;
    counted_from = begin + (end - begin) / 8;
    if (rate != 0) {
        open_loop(begin, end, rate);
    } else {
        closed_loop(end);
    }

    qsort(samples, nsamples, sizeof(uint32_t), compare);
    qsort(waits, nsamples, sizeof(uint32_t), compare);
    getrusage(RUSAGE_SELF, &use);
    printf("{\"requests\": %u, \"errors\": %llu, \"rps\": %.1f, "
           "\"p50_us\": %u, \"p90_us\": %u, \"p99_us\": %u, \"p999_us\": %u, "
           "\"max_us\": %u, \"wait_p50_us\": %u, \"cpu_s\": %.3f}\n", nsamples,
           (unsigned long long) errors,
           nsamples / ((double) (end - counted_from) / 1e9),
           quantile(samples, 0.5), quantile(samples, 0.9),
           quantile(samples, 0.99),
           quantile(samples, 0.999), quantile(samples, 1),
           quantile(waits, 0.5),
           (double) use.ru_utime.tv_sec + (double) use.ru_stime.tv_sec
           + (double) (use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6);

    return errors != 0;
}
