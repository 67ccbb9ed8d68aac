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

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <signal.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "shm/shr_client.h"
#include "shm/shr_ctl.h"
#include "shm/shr_error.h"
#include "shm/shr_region.h"


#define REQUESTS_MAX  4096
#define NAME_MAX_     32
#define LINE_MAX_     (1 << 16)
#define REQ_MAX       (1 << 17)
#define BENCH_MAX     2000000

typedef struct {
    char      name[NAME_MAX_];
    int       used;
    int       ended;
    int       paused;
    uint32_t  slot;
    uint64_t  begin_ns;
} request_t;

typedef struct {
    const char     *socket;
    shr_geom_t      geom;
    shr_ctl_msg_t   hello;
    int             ctl;
    int             lifeline;                   /* write end: ours */
    int             nfds;
    int             fds[600];
    void           *clients[SHR_CLIENTS_MAX];
    void           *workers[SHR_WORKERS_MAX];
    shr_client_t   *me;
    request_t       requests[REQUESTS_MAX];
    uint64_t        tokens;                     /* text frames' tokens */
    int             quiet;
} probe_t;

static const char *const  type_names[SHR_F_MAX] = {
    "?", "start", "text", "logprob", "finish", "ids", "offsets", "usage",
    "error", "end"
};

static probe_t  probe;
static uint8_t  request_buf[REQ_MAX] __attribute__((aligned(8)));


static void
die(const char *what)
{
    fprintf(stderr, "shr_probe: %s: %s\n", what, strerror(errno));
    exit(1);
}


static void
say(const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}


static uint64_t
clock_ns(void)
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
        die("a number is missing");
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
        die("eventfd");
    }
    return fd;
}


static void
make_generation(probe_t *p)
{
    int        fd, pipefd[2];
    uint32_t   i, nc = p->geom.nclients, nw = p->geom.nworkers;

    if (pipe2(pipefd, O_CLOEXEC) != 0) {
        die("pipe");
    }
    p->lifeline = pipefd[1];
    p->fds[0] = pipefd[0];
    p->nfds = 1;

    for (i = 0; i < nc; i++) {
        fd = shr_region_create_client(&p->geom, i);
        if (fd < 0) {
            die("client region");
        }
        p->clients[i] = shr_region_map_client(fd, &p->geom, i, 1);
        if (p->clients[i] == NULL || shr_region_seal_writes(fd) != 0) {
            die("client region");
        }
        p->fds[p->nfds++] = fd;
    }
    for (i = 0; i < nw; i++) {
        fd = shr_region_create_worker(&p->geom, i);
        if (fd < 0) {
            die("worker region");
        }
        p->workers[i] = shr_region_map_worker(fd, &p->geom, i, 0);
        if (p->workers[i] == NULL) {
            die("worker region");
        }
        p->fds[p->nfds++] = fd;
    }
    for (i = 0; i < nc + nw; i++) {
        p->fds[p->nfds++] = bell();
    }
    assert((uint32_t) p->nfds == shr_ctl_nfds(&p->geom));
}


static shr_client_t *
open_client(probe_t *p, uint32_t index)
{
    shr_client_t  *c;

    c = shr_client_open(&p->geom, index, p->clients[index], p->workers,
                        p->fds + 1 + 2 * p->geom.nclients + p->geom.nworkers);
    if (c == NULL) {
        die("shr_client_open");
    }
    return c;
}


static int
my_bell(const probe_t *p, uint32_t index)
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
        die(conf);
    }
    n = fread(p->hello.text, 1, sizeof(p->hello.text), f);
    fclose(f);

    p->hello.type = SHR_CTL_ATTACH;
    p->hello.text_len = (uint32_t) n;
    p->hello.abi_hash = shr_abi_hash();
    p->hello.model_hash = shr_hash64(p->hello.text, n);
    p->hello.geom = p->geom;
    if (getrandom(p->hello.generation, 16, 0) != 16) {
        die("getrandom");
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
            say("error connect: %s", strerror(errno));
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
        say("error %s", shr_strerror(rc));
        close(p->ctl);
        p->ctl = -1;
        return;
    }
    if (msg.type == SHR_CTL_OK) {
        say("ok");
    } else {
        say("refused %.*s", (int) msg.text_len, msg.text);
    }
}


/* ---- requests ----------------------------------------------------------- */

static size_t
build(const char *text, uint32_t max_tokens, int chat)
{
    int                rc;
    char               json[LINE_MAX_ + 64];
    shr_req_t          req;
    shr_req_writer_t   w;

    memset(&req, 0, sizeof(req));
    req.task = chat ? SHR_TASK_CHAT : SHR_TASK_COMPLETE;
    req.max_tokens = max_tokens;
    req.n = 1;
    req.top_p = 1;
    req.repetition_penalty = 1;
    req.queued_ns = clock_ns();

    shr_req_begin(&w, request_buf, sizeof(request_buf), &req);
    if (chat) {
        rc = snprintf(json, sizeof(json),
                      "[{\"role\":\"user\",\"content\":\"%s\"}]", text);
        shr_req_add(&w, SHR_R_MESSAGES, json, (size_t) rc);
    } else {
        shr_req_add(&w, SHR_R_PROMPT, text, strlen(text));
    }
    if (shr_req_end(&w) != 0 || shr_req_check(request_buf, w.len) != 0) {
        errno = E2BIG;
        die("request");
    }
    return w.len;
}


static int
send_request(shr_client_t *c, const char *text, uint32_t max_tokens,
    int chat, uint32_t worker, uint32_t *slot)
{
    int     rc;
    size_t  len = build(text, max_tokens, chat);

    rc = shr_client_claim(c, slot);
    if (rc != 0) {
        return rc;
    }
    rc = shr_client_write(c, *slot, request_buf, len);
    if (rc == 0) {
        rc = shr_client_submit(c, *slot, worker);
    }
    if (rc != 0) {
        shr_client_release(c, *slot);
    }
    return rc;
}


static request_t *
find(probe_t *p, const char *name)
{
    uint32_t  i;

    for (i = 0; i < REQUESTS_MAX; i++) {
        if (p->requests[i].used && strcmp(p->requests[i].name, name) == 0) {
            return &p->requests[i];
        }
    }
    return NULL;
}


static request_t *
new_request(probe_t *p, const char *name)
{
    uint32_t  i;

    for (i = 0; i < REQUESTS_MAX; i++) {
        if (!p->requests[i].used) {
            memset(&p->requests[i], 0, sizeof(request_t));
            p->requests[i].used = 1;
            snprintf(p->requests[i].name, NAME_MAX_, "%s", name);
            return &p->requests[i];
        }
    }
    errno = ENOSPC;
    die("requests");
    return NULL;
}


static void
submit(probe_t *p, const char *name, uint32_t worker, uint32_t max_tokens,
    const char *text, int chat)
{
    int         rc;
    request_t  *r = new_request(p, name);

    r->begin_ns = clock_ns();
    rc = send_request(p->me, text, max_tokens, chat, worker, &r->slot);
    if (rc != 0) {
        r->used = 0;
        say("error %s: %s", name, shr_strerror(rc));
        return;
    }
    say("submitted %s", name);
}


static void
print_text(const uint8_t *s, size_t n)
{
    size_t  i;

    for (i = 0; i < n; i++) {
        if (s[i] < 0x20 || s[i] == '\\' || s[i] == 0x7f) {
            printf("\\x%02x", s[i]);
        } else {
            putchar(s[i]);
        }
    }
}


static void
print_frame(const request_t *r, const shr_frame_t *f, const uint8_t *payload)
{
    shr_error_t   error;
    shr_usage_t   usage;
    shr_finish_t  finish;

    printf("frame %s %s %u ", r->name,
           f->type < SHR_F_MAX ? type_names[f->type] : "?", f->choice);

    switch (f->type) {
    case SHR_F_TEXT:
        print_text(payload, f->len);
        break;
    case SHR_F_ERROR:
        memcpy(&error, payload, sizeof(error));
        printf("%u ", error.code);
        print_text(payload + sizeof(error), f->len - sizeof(error));
        break;
    case SHR_F_USAGE:
        memcpy(&usage, payload, sizeof(usage));
        printf("%u %u %" PRIu64 " %" PRIu64 " %" PRIu64, usage.prompt_tokens,
               usage.completion_tokens, usage.queue_us, usage.prefill_us,
               usage.decode_us);
        break;
    case SHR_F_FINISH:
        memcpy(&finish, payload, sizeof(finish));
        printf("%u %u", finish.reason, finish.tokens);
        break;
    default:
        break;
    }
    putchar('\n');
    fflush(stdout);
}


/* Reads what there is; 1 when something came. */
static int
drain(probe_t *p, request_t *r)
{
    int           rc, news = 0;
    uint8_t       payload[SHR_PAYLOAD_MAX];
    shr_frame_t   frame;

    if (!r->used || r->ended || r->paused) {
        return 0;
    }

    for ( ;; ) {
        rc = shr_client_read(p->me, r->slot, &frame, payload);
        if (rc == -SHR_EAGAIN) {
            if (shr_client_state(p->me, r->slot) == SHR_REQ_LOST) {
                r->ended = 1;
                say("lost %s", r->name);
                return 1;
            }
            return news;
        }
        if (rc != 0) {
            r->ended = 1;
            if (!p->quiet) {
                say("done %s%s%s", r->name, rc == -SHR_EDONE ? "" : " ",
                    rc == -SHR_EDONE ? "" : shr_strerror(rc));
            }
            return 1;
        }
        news = 1;
        if (shr_frame_check(&frame, payload) != 0) {
            say("broken %s", r->name);
        }
        if (frame.type == SHR_F_USAGE) {
            shr_usage_t  usage;

            memcpy(&usage, payload, sizeof(usage));
            p->tokens += usage.completion_tokens;
        }
        if (!p->quiet) {
            print_frame(r, &frame, payload);
        }
    }
}


static void
clear_bell(int fd)
{
    uint64_t  n;

    if (read(fd, &n, sizeof(n)) < 0 && errno != EAGAIN) {
        die("bell");
    }
}


/* 1: somebody had news; waits at most until end_ns. */
static int
wait_news(probe_t *p, uint64_t end_ns)
{
    uint64_t       now = clock_ns();
    struct pollfd  wait;

    if (shr_client_arm(p->me)) {
        return 1;
    }
    wait.fd = my_bell(p, 0);
    wait.events = POLLIN;
    (void) poll(&wait, 1, now < end_ns
                          ? (int) ((end_ns - now) / 1000000) + 1 : 0);
    clear_bell(wait.fd);
    return clock_ns() < end_ns;
}


static void
poll_workers(probe_t *p)
{
    int       rc;
    uint32_t  w, slot;

    /* Slots are looked at in any case; this empties the completion rings. */
    for (w = 0; w < p->geom.nworkers; w++) {
        while ((rc = shr_client_poll(p->me, w, &slot)) == 0) {
            /* next */
        }
        if (rc == -SHR_EBROKEN) {
            say("broken worker %u", w);
        }
    }
}


static void
read_all(probe_t *p, uint32_t ms)
{
    uint32_t  i, open;
    uint64_t  end = clock_ns() + (uint64_t) ms * 1000000;

    for ( ;; ) {
        poll_workers(p);
        open = 0;
        for (i = 0; i < REQUESTS_MAX; i++) {
            (void) drain(p, &p->requests[i]);
            open += p->requests[i].used && !p->requests[i].ended
                    && !p->requests[i].paused;
        }
        if (open == 0) {
            say("idle");
            return;
        }
        if (!wait_news(p, end)) {
            say("timeout");
            return;
        }
    }
}


static void
show_info(probe_t *p, uint32_t w)
{
    uint32_t           i;
    shr_worker_info_t  info;

    if (w >= p->geom.nworkers) {
        say("error no worker %u", w);
        return;
    }
    shr_client_info(p->me, w, &info);
    printf("info %u %u %u %d %" PRIu64, w, info.incarnation, info.state,
           info.pid, info.beat_ns);
    for (i = 0; i < SHR_NCOUNTERS; i++) {
        printf(" %" PRIu64, info.counters[i]);
    }
    say("");
}


static void
show_state(probe_t *p, const request_t *r)
{
    static const char *const  names[] = {
        "?", "queued", "running", "lost", "done"
    };

    say("state %s %s", r->name, names[shr_client_state(p->me, r->slot)]);
}


static void
start_child(probe_t *p, uint32_t index, uint32_t worker, uint32_t max_tokens,
    const char *text)
{
    pid_t          pid;
    uint32_t       slot;
    shr_client_t  *c;

    if (index == 0 || index >= p->geom.nclients) {
        say("error no client %u", index);
        return;
    }
    pid = fork();
    if (pid < 0) {
        die("fork");
    }
    if (pid == 0) {
        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        c = open_client(p, index);
        if (send_request(c, text, max_tokens, 0, worker, &slot) != 0) {
            _exit(1);
        }
        for ( ;; ) {
            (void) pause();
        }
    }
    say("child %d", (int) pid);
}


/* ---- measuring ---------------------------------------------------------- */

static int
compare(const void *a, const void *b)
{
    uint32_t  x = *(const uint32_t *) a, y = *(const uint32_t *) b;

    return x < y ? -1 : x > y;
}


static void
bench(probe_t *p, uint32_t total, uint32_t concurrent, uint32_t worker,
    uint32_t max_tokens, const char *text)
{
    int        rc, news;
    uint32_t   i, sent = 0, done = 0, *us;
    uint64_t   begin = clock_ns(), tokens = p->tokens;

    if (total == 0 || total > BENCH_MAX || concurrent == 0
        || concurrent > REQUESTS_MAX
        || (us = calloc(total, sizeof(*us))) == NULL)
    {
        say("error bench");
        return;
    }
    p->quiet = 1;

    while (done < total) {
        poll_workers(p);
        news = 0;
        for (i = 0; i < concurrent; i++) {
            request_t  *r = &p->requests[i];

            news |= drain(p, r);
            if (r->used && r->ended) {
                us[done++] = (uint32_t) ((clock_ns() - r->begin_ns) / 1000);
                shr_client_release(p->me, r->slot);
                r->used = 0;
            }
            if (!r->used && sent < total) {
                r = new_request(p, "b");
                r->begin_ns = clock_ns();
                rc = send_request(p->me, text, max_tokens, 0, worker,
                                  &r->slot);
                if (rc != 0) {
                    die(shr_strerror(rc));
                }
                sent++;
                news = 1;
            }
        }
        if (!news && done < total
            && !wait_news(p, clock_ns() + 10000000000ull))
        {
            say("error bench: no answer in 10 s");
            break;
        }
    }

    qsort(us, done, sizeof(*us), compare);
    say("bench %u %.6f %u %u %" PRIu64, done,
        (double) (clock_ns() - begin) / 1e9, done ? us[done / 2] : 0,
        done ? us[(size_t) done * 99 / 100] : 0, p->tokens - tokens);
    p->quiet = 0;
    free(us);
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
    request_t  *r = name != NULL ? find(p, name) : NULL;

    if (strcmp(cmd, "pause") != 0 && strcmp(cmd, "resume") != 0
        && strcmp(cmd, "retry") != 0 && strcmp(cmd, "cancel") != 0
        && strcmp(cmd, "release") != 0 && strcmp(cmd, "state") != 0)
    {
        return 0;
    }
    if (r == NULL) {
        say("error no request");
        return 1;
    }

    if (strcmp(cmd, "pause") == 0 || strcmp(cmd, "resume") == 0) {
        r->paused = cmd[0] == 'p';
        say("ok");
    } else if (strcmp(cmd, "retry") == 0) {
        r->ended = 0;
        say("%s", shr_client_submit(p->me, r->slot, number(word(&line))) == 0
                  ? "ok" : "error");
    } else if (strcmp(cmd, "cancel") == 0) {
        shr_client_cancel(p->me, r->slot);
        say("ok");
    } else if (strcmp(cmd, "release") == 0) {
        shr_client_release(p->me, r->slot);
        r->used = 0;
        say("ok");
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
        submit(p, name, w, max, line != NULL ? line : "", 0);
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
        say("ok");
    } else if (strcmp(cmd, "info") == 0) {
        show_info(p, number(word(&line)));
    } else if (strcmp(cmd, "read") == 0) {
        read_all(p, number(word(&line)));
    } else if (strcmp(cmd, "many") == 0) {
        on_many(p, line);
    } else if (strcmp(cmd, "submit") == 0 || strcmp(cmd, "chat") == 0) {
        name = word(&line);
        a = number(word(&line));
        b = number(word(&line));
        submit(p, name, a, b, line != NULL ? line : "", cmd[0] == 'c');
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
        bench(p, a, b, c, d, line != NULL ? line : "");
    } else if (!on_request(p, cmd, line)) {
        say("error unknown command %s", cmd);
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
    p->me = open_client(p, 0);

    while (fgets(line, sizeof(line), stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (!on_line(p, line)) {
            break;
        }
    }
    return 0;
}
