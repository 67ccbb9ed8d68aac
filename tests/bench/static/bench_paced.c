/*
 * GETs a path at a fixed rate over one keep-alive connection and prints the
 * latencies, counted from when each request was due (no coordinated
 * omission).  Runs with real-time priority where it may: how long nginx takes
 * is the question, not how long the client waits for a CPU.
 *
 *   bench_paced PORT PATH RATE SECONDS
 *   → {"requests": N, "p50_us": …, "p99_us": …, "max_us": …}
 */

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>


#define REQUESTS_MAX  1000000


static uint64_t
now_ns(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}


static void
sleep_until(uint64_t ns)
{
    struct timespec  ts;

    ts.tv_sec = (time_t) (ns / 1000000000u);
    ts.tv_nsec = (long) (ns % 1000000000u);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) != 0) {
        /* interrupted: sleep on */
    }
}


static int
number(const char *text)
{
    int  n;

    for (n = 0; *text >= '0' && *text <= '9' && n < 100000000; text++) {
        n = n * 10 + (*text - '0');
    }

    return n;
}


static int
connect_to(int port)
{
    int                 fd, one = 1;
    struct sockaddr_in  sin = { .sin_family = AF_INET };

    sin.sin_port = htons((uint16_t) port);
    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd == -1 || connect(fd, (struct sockaddr *) &sin, sizeof(sin)) == -1) {
        perror("connect");
        exit(1);
    }

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));

    return fd;
}


/* Reads one answer; its Content-Length must be there. */
static void
read_answer(int fd)
{
    char     buf[65536], *end, *field;
    size_t   have, body;
    ssize_t  n;

    have = 0;

    for ( ;; ) {
        n = read(fd, buf + have, sizeof(buf) - have - 1);

        if (n <= 0) {
            fprintf(stderr, "bench_paced: the connection ended\n");
            exit(1);
        }

        have += (size_t) n;
        buf[have] = '\0';
        end = strstr(buf, "\r\n\r\n");
        field = strstr(buf, "Content-Length: ");

        if (end == NULL || field == NULL) {
            continue;
        }

        body = (size_t) number(field + 16);

        if (have >= (size_t) (end + 4 - buf) + body) {
            return;
        }
    }
}


static int
compare(const void *a, const void *b)
{
    uint64_t  x = *(const uint64_t *) a, y = *(const uint64_t *) b;

    return x < y ? -1 : x > y;
}


int
main(int argc, char **argv)
{
    int        fd, i, n, rate;
    char       request[1024];
    size_t     len;
    uint64_t   due, *took;
    const struct sched_param  param = { .sched_priority = 1 };

    if (argc != 5) {
        fprintf(stderr, "usage: bench_paced PORT PATH RATE SECONDS\n");
        return 2;
    }

    rate = number(argv[3]);
    n = rate * number(argv[4]);

    if (rate == 0 || n == 0 || n > REQUESTS_MAX) {
        fprintf(stderr, "bench_paced: 1 to %d requests\n", REQUESTS_MAX);
        return 2;
    }

    (void) sched_setscheduler(0, SCHED_FIFO, &param);
    took = calloc((size_t) n, sizeof(uint64_t));
    fd = connect_to(number(argv[1]));
    len = (size_t) snprintf(request, sizeof(request),
                            "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n",
                            argv[2]);
    due = now_ns() + 1000000;

    for (i = 0; i < n; i++, due += 1000000000u / (unsigned) rate) {
        sleep_until(due);

        if (write(fd, request, len) != (ssize_t) len) {
            perror("write");
            return 1;
        }

        read_answer(fd);
        took[i] = now_ns() - due;
    }

    qsort(took, (size_t) n, sizeof(uint64_t), compare);
    printf("{\"requests\": %d, \"p50_us\": %.1f, \"p99_us\": %.1f, "
           "\"max_us\": %.1f}\n", n, (double) took[n / 2] / 1e3,
           (double) took[(size_t) n * 99 / 100] / 1e3,
           (double) took[n - 1] / 1e3);
    free(took);

    return 0;
}
