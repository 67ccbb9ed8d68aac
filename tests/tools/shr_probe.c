/*
 * Plays nginx's side of a pool with shm/ alone: makes a generation, attaches
 * it to a supervisor, submits requests, prints what comes back.  For tests and
 * measurements of everything behind the shared memory.
 *
 *   shr_probe --socket PATH --conf FILE [--clients N] [--workers N]
 *             [--slots N] [--resp BYTES]
 *
 * Reads commands from standard input, one per line, and answers with lines:
 *
 *   attach                    "ok" or "refused TEXT" or "error TEXT"
 *   attach-abi | attach-hash  the same with a wrong layout or model hash
 *   ping                      "ok" or "refused TEXT"
 *   close                     closes the control connection
 *   info W                    "info W INCARNATION STATE PID BEAT_NS C0 C1 ..."
 *   submit NAME W MAX TEXT    a completion; "submitted NAME"
 *   chat NAME W MAX TEXT      a chat of one user message
 *   many NAME N W MAX TEXT    N completions NAME0, NAME1, ...
 *   read MS                   frames of all requests until every one has ended
 *                             or the time is over; "idle" or "timeout"
 *   pause NAME | resume NAME  reads nothing of it meanwhile
 *   retry NAME W              submits it again
 *   cancel NAME | release NAME
 *   state NAME                "state NAME queued|running|lost|done"
 *   child C W MAX TEXT        a child process becomes client C, submits and
 *                             waits for ever; "child PID"
 *   bench N CONCURRENT W MAX TEXT    "bench N SECONDS P50_US P99_US TOKENS"
 *   quit                      (or end of input) ends all
 *
 * Frames: "frame NAME TYPE CHOICE TEXT", with the text escaped.
 */

#include "tests/tools/shr_probe.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "shm/shr_error.h"
#include "shm/shr_region.h"


static probe_t  probe;


void
probe_die(const char *what)
{
    fprintf(stderr, "shr_probe: %s: %s\n", what, strerror(errno));
    exit(1);
}


void
probe_say(const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}


uint64_t
probe_clock(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}


static uint32_t
number(const char *s)
{
    uint32_t  n = 0;

    if (s == NULL || *s == '\0') {
        errno = EINVAL;
        probe_die("a number is missing");
    }
    for ( /* void */ ; *s >= '0' && *s <= '9'; s++) {
        n = n * 10 + (uint32_t) (*s - '0');
    }
    return n;
}


/* ---- the generation ----------------------------------------------------- */

static int
bell(void)
{
    int  fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    if (fd < 0) {
        probe_die("eventfd");
    }
    return fd;
}


static void
make_generation(probe_t *p)
{
    int        fd, pipefd[2];
    uint32_t   i, nc = p->geom.nclients, nw = p->geom.nworkers;

    if (pipe2(pipefd, O_CLOEXEC) != 0) {
        probe_die("pipe");
    }
    p->lifeline = pipefd[1];
    p->fds[0] = pipefd[0];
    p->nfds = 1;

    for (i = 0; i < nc; i++) {
        fd = shr_region_create_client(&p->geom, i);
        if (fd < 0) {
            probe_die("client region");
        }
        p->clients[i] = shr_region_map_client(fd, &p->geom, i, 1);
        if (p->clients[i] == NULL || shr_region_seal_writes(fd) != 0) {
            probe_die("client region");
        }
        p->fds[p->nfds++] = fd;
    }
    for (i = 0; i < nw; i++) {
        fd = shr_region_create_worker(&p->geom, i);
        if (fd < 0) {
            probe_die("worker region");
        }
        p->workers[i] = shr_region_map_worker(fd, &p->geom, i, 0);
        if (p->workers[i] == NULL) {
            probe_die("worker region");
        }
        p->fds[p->nfds++] = fd;
    }
    for (i = 0; i < nc + nw; i++) {
        p->fds[p->nfds++] = bell();
    }
    assert((uint32_t) p->nfds == shr_ctl_nfds(&p->geom));
}


shr_client_t *
probe_open(probe_t *p, uint32_t index)
{
    shr_client_t  *c;

    c = shr_client_open(&p->geom, index, p->clients[index], p->workers,
                        p->fds + 1 + 2 * p->geom.nclients + p->geom.nworkers);
    if (c == NULL) {
        probe_die("shr_client_open");
    }
    return c;
}


int
probe_bell(const probe_t *p, uint32_t index)
{
    return p->fds[1 + p->geom.nclients + p->geom.nworkers + index];
}


static void
make_hello(probe_t *p, const char *conf)
{
    FILE    *f;
    size_t   n;

    f = fopen(conf, "r");
    if (f == NULL) {
        probe_die(conf);
    }
    n = fread(p->hello.text, 1, sizeof(p->hello.text), f);
    fclose(f);

    p->hello.type = SHR_CTL_ATTACH;
    p->hello.text_len = (uint32_t) n;
    p->hello.abi_hash = shr_abi_hash();
    p->hello.model_hash = shr_hash64(p->hello.text, n);
    p->hello.geom = p->geom;
    if (getrandom(p->hello.generation, 16, 0) != 16) {
        probe_die("getrandom");
    }
}


static void
ask(probe_t *p, uint32_t type, uint64_t abi_change, uint64_t hash_change)
{
    int             rc, fds[SHR_CTL_FDS_MAX];
    struct pollfd   wait;
    shr_ctl_msg_t   msg = p->hello;

    if (p->ctl < 0) {
        p->ctl = shr_ctl_connect(p->socket);
        if (p->ctl < 0) {
            probe_say("error connect: %s", strerror(errno));
            return;
        }
    }

    msg.type = type;
    msg.abi_hash ^= abi_change;
    msg.model_hash ^= hash_change;
    rc = type == SHR_CTL_ATTACH ? shr_ctl_send_generation(p->ctl, &msg, p->fds)
                                : shr_ctl_send(p->ctl, &msg, NULL);
    if (rc == 0) {
        wait.fd = p->ctl;
        wait.events = POLLIN;
        rc = poll(&wait, 1, 5000) == 1 ? shr_ctl_recv(p->ctl, &msg, fds)
                                       : -SHR_EAGAIN;
    }
    if (rc != 0) {
        probe_say("error %s", shr_strerror(rc));
        close(p->ctl);
        p->ctl = -1;
        return;
    }
    if (msg.type == SHR_CTL_OK) {
        probe_say("ok");
    } else {
        probe_say("refused %.*s", (int) msg.text_len, msg.text);
    }
}


static void
show_info(probe_t *p, uint32_t w)
{
    uint32_t           i;
    shr_worker_info_t  info;

    if (w >= p->geom.nworkers) {
        probe_say("error no worker %u", w);
        return;
    }
    shr_client_info(p->me, w, &info);
    printf("info %u %u %u %d %" PRIu64, w, info.incarnation, info.state,
           info.pid, info.beat_ns);
    for (i = 0; i < SHR_NCOUNTERS; i++) {
        printf(" %" PRIu64, info.counters[i]);
    }
    putchar('\n');
    fflush(stdout);
}


static void
show_state(probe_t *p, const request_t *r)
{
    static const char *const  names[] = {
        "?", "queued", "running", "lost", "done"
    };

    probe_say("state %s %s", r->name, names[shr_client_state(p->me, r->slot)]);
}


static void
start_child(probe_t *p, uint32_t index, uint32_t worker, uint32_t max_tokens,
    const char *text)
{
    pid_t          pid;
    uint32_t       slot;
    shr_client_t  *c;

    if (index == 0 || index >= p->geom.nclients) {
        probe_say("error no client %u", index);
        return;
    }
    pid = fork();
    if (pid < 0) {
        probe_die("fork");
    }
    if (pid == 0) {
        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        c = probe_open(p, index);
        if (probe_send(c, text, max_tokens, 0, worker, &slot) != 0) {
            _exit(1);
        }
        for ( ;; ) {
            (void) pause();
        }
    }
    probe_say("child %d", (int) pid);
}


/* ---- commands ----------------------------------------------------------- */

static char *
word(char **line)
{
    char  *w = *line, *end;

    if (w == NULL || *w == '\0') {
        return NULL;
    }
    end = strchr(w, ' ');
    if (end != NULL) {
        *end++ = '\0';
    }
    *line = end;
    return w;
}


static int
on_request(probe_t *p, const char *cmd, char *line)
{
    char       *name = word(&line);
    request_t  *r = name != NULL ? probe_find(p, name) : NULL;

    if (strcmp(cmd, "pause") != 0 && strcmp(cmd, "resume") != 0
        && strcmp(cmd, "retry") != 0 && strcmp(cmd, "cancel") != 0
        && strcmp(cmd, "release") != 0 && strcmp(cmd, "state") != 0)
    {
        return 0;
    }
    if (r == NULL) {
        probe_say("error no request");
        return 1;
    }

    if (strcmp(cmd, "pause") == 0 || strcmp(cmd, "resume") == 0) {
        r->paused = cmd[0] == 'p';
        probe_say("ok");
    } else if (strcmp(cmd, "retry") == 0) {
        r->ended = 0;
        probe_say("%s", shr_client_submit(p->me, r->slot,
                                          number(word(&line))) == 0
                        ? "ok" : "error");
    } else if (strcmp(cmd, "cancel") == 0) {
        shr_client_cancel(p->me, r->slot);
        probe_say("ok");
    } else if (strcmp(cmd, "release") == 0) {
        shr_client_release(p->me, r->slot);
        r->used = 0;
        probe_say("ok");
    } else {
        show_state(p, r);
    }
    return 1;
}


static void
on_many(probe_t *p, char *line)
{
    char      *base = word(&line), name[NAME_MAX_];
    uint32_t   i, n = number(word(&line)), w = number(word(&line));
    uint32_t   max = number(word(&line));

    for (i = 0; i < n; i++) {
        snprintf(name, sizeof(name), "%.20s%u", base, i);
        probe_submit(p, name, w, max, line != NULL ? line : "", 0);
    }
}


static int
on_line(probe_t *p, char *line)
{
    char      *cmd = word(&line), *name;
    uint32_t   a, b, c, d;

    if (cmd == NULL) {
        return 1;
    }
    if (strcmp(cmd, "quit") == 0) {
        return 0;
    } else if (strcmp(cmd, "attach") == 0) {
        ask(p, SHR_CTL_ATTACH, 0, 0);
    } else if (strcmp(cmd, "attach-abi") == 0) {
        ask(p, SHR_CTL_ATTACH, 1, 0);
    } else if (strcmp(cmd, "attach-hash") == 0) {
        ask(p, SHR_CTL_ATTACH, 0, 1);
    } else if (strcmp(cmd, "ping") == 0) {
        ask(p, SHR_CTL_PING, 0, 0);
    } else if (strcmp(cmd, "close") == 0) {
        close(p->ctl);
        p->ctl = -1;
        probe_say("ok");
    } else if (strcmp(cmd, "info") == 0) {
        show_info(p, number(word(&line)));
    } else if (strcmp(cmd, "read") == 0) {
        probe_read(p, number(word(&line)));
    } else if (strcmp(cmd, "many") == 0) {
        on_many(p, line);
    } else if (strcmp(cmd, "submit") == 0 || strcmp(cmd, "chat") == 0) {
        name = word(&line);
        a = number(word(&line));
        b = number(word(&line));
        probe_submit(p, name, a, b, line != NULL ? line : "", cmd[0] == 'c');
    } else if (strcmp(cmd, "child") == 0) {
        a = number(word(&line));
        b = number(word(&line));
        c = number(word(&line));
        start_child(p, a, b, c, line != NULL ? line : "");
    } else if (strcmp(cmd, "bench") == 0) {
        a = number(word(&line));
        b = number(word(&line));
        c = number(word(&line));
        d = number(word(&line));
        probe_bench(p, a, b, c, d, line != NULL ? line : "");
    } else if (!on_request(p, cmd, line)) {
        probe_say("error unknown command %s", cmd);
    }
    return 1;
}


int
main(int argc, char **argv)
{
    int          i;
    char         line[LINE_MAX_];
    probe_t     *p = &probe;
    const char  *conf = NULL;

    p->ctl = -1;
    p->geom.nclients = 1;
    p->geom.nworkers = 1;
    p->geom.nslots = 64;
    p->geom.nchunks = 1024;
    p->geom.resp_bytes = 16384;

    for (i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--socket") == 0) {
            p->socket = argv[i + 1];
        } else if (strcmp(argv[i], "--conf") == 0) {
            conf = argv[i + 1];
        } else if (strcmp(argv[i], "--clients") == 0) {
            p->geom.nclients = number(argv[i + 1]);
        } else if (strcmp(argv[i], "--workers") == 0) {
            p->geom.nworkers = number(argv[i + 1]);
        } else if (strcmp(argv[i], "--slots") == 0) {
            p->geom.nslots = number(argv[i + 1]);
        } else if (strcmp(argv[i], "--resp") == 0) {
            p->geom.resp_bytes = number(argv[i + 1]);
        } else {
            break;
        }
    }
    if (i != argc || p->socket == NULL || conf == NULL
        || shr_geom_check(&p->geom) != 0)
    {
        fprintf(stderr, "usage: shr_probe --socket PATH --conf FILE "
                "[--clients N] [--workers N] [--slots N] [--resp BYTES]\n");
        return 2;
    }

    make_generation(p);
    make_hello(p, conf);
    p->me = probe_open(p, 0);

    while (fgets(line, sizeof(line), stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (!on_line(p, line)) {
            break;
        }
    }
    return 0;
}
