/*
 * Plays a pool that was taken over: serves the control socket of one pool as a
 * supervisor does, maps the worker regions read-write, and answers nginx's
 * requests as it is told.  For tests of what nginx makes of hostile memory.
 *
 *   shr_rogue --socket PATH --seed N
 *
 * Reads modes from standard input, one per line, each answered by "ok":
 *
 *   honest    a short, correct answer to each request (the initial mode)
 *   frames    correct rings, frames of random type, choice, length, payload
 *   words     answers as in honest, while random words of the regions change
 *   garbage   all of the regions is overwritten, again and again
 *   flood     log probabilities for ever, never a text or an end
 *   silent    takes requests, answers nothing
 *   quit      (or end of input) ends
 */

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "shm/shr_ctl.h"
#include "shm/shr_error.h"
#include "shm/shr_region.h"
#include "shm/shr_server.h"


#define FDS_MAX    (1 + 2 * SHR_CLIENTS_MAX + 2 * SHR_WORKERS_MAX)
#define HELD_MAX   64
#define REQ_MAX    (1 << 20)
#define LINE_MAX_  64

typedef enum {
    MODE_HONEST,
    MODE_FRAMES,
    MODE_WORDS,
    MODE_GARBAGE,
    MODE_FLOOD,
    MODE_SILENT,
    MODES
} rogue_mode_t;

static const char *const  mode_names[MODES] = {
    "honest", "frames", "words", "garbage", "flood", "silent"
};

typedef struct {
    shr_taken_t  req;
    int          used;
} held_t;

typedef struct {
    rogue_mode_t         mode;
    uint64_t             random;
    int                  listener;
    int                  ctl;
    int                  attached;
    shr_ctl_msg_t        hello;
    shr_worker_layout_t  at;
    uint32_t             nfds;
    int                  fds[FDS_MAX];
    void                *clients[SHR_CLIENTS_MAX];
    uint8_t             *workers[SHR_WORKERS_MAX];
    shr_server_t        *servers[SHR_WORKERS_MAX];
    held_t               held[SHR_WORKERS_MAX][HELD_MAX];
} rogue_t;


static rogue_t  rogue;
static uint8_t  request[REQ_MAX] __attribute__((aligned(8)));


static void
die(const char *what)
{
    fprintf(stderr, "shr_rogue: %s: %s\n", what, strerror(errno));
    exit(1);
}


/* xorshift64*: the same seed gives the same run, as far as time allows */
static uint64_t
next_random(rogue_t *r)
{
    r->random ^= r->random >> 12;
    r->random ^= r->random << 25;
    r->random ^= r->random >> 27;

    return r->random * 0x2545f4914f6cdd1dULL;
}


static uint64_t
now_ns(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}


/* ---- the generation ----------------------------------------------------- */

static void
detach(rogue_t *r)
{
    uint32_t           i;
    const shr_geom_t  *geom = &r->hello.geom;

    for (i = 0; r->attached && i < geom->nworkers; i++) {
        shr_server_close(r->servers[i]);
        shr_region_unmap_worker(r->workers[i], geom);
    }
    for (i = 0; r->attached && i < geom->nclients; i++) {
        shr_region_unmap_client(r->clients[i], geom);
    }
    for (i = 0; i < r->nfds; i++) {
        close(r->fds[i]);
    }
    r->nfds = 0;
    r->attached = 0;
    memset(r->held, 0, sizeof(r->held));
}


static void
open_workers(rogue_t *r)
{
    uint32_t           w;
    const int         *bells;
    const shr_geom_t  *geom = &r->hello.geom;

    bells = r->fds + 1 + geom->nclients + geom->nworkers;

    for (w = 0; w < geom->nworkers; w++) {
        (void) shr_worker_reset(geom, r->workers[w], bells);
        r->servers[w] = shr_server_open(geom, w, r->workers[w], r->clients,
                                        bells);
        if (r->servers[w] == NULL) {
            die("shr_server_open");
        }
        shr_server_set_state(r->servers[w], SHR_WORKER_READY, getpid());
    }
    memset(r->held, 0, sizeof(r->held));
}


static void
attach(rogue_t *r)
{
    uint32_t           i;
    const shr_geom_t  *geom = &r->hello.geom;

    for (i = 0; i < geom->nclients; i++) {
        r->clients[i] = shr_region_map_client(r->fds[1 + i], geom, i, 0);
        if (r->clients[i] == NULL) {
            die("client region");
        }
    }
    for (i = 0; i < geom->nworkers; i++) {
        r->workers[i] = shr_region_map_worker(r->fds[1 + geom->nclients + i],
                                              geom, i, 1);
        if (r->workers[i] == NULL) {
            die("worker region");
        }
    }
    shr_worker_layout(geom, &r->at);
    open_workers(r);
    r->attached = 1;
}


static void
answer(rogue_t *r)
{
    shr_ctl_msg_t  msg;

    memset(&msg, 0, sizeof(msg));
    msg.type = SHR_CTL_OK;
    msg.abi_hash = shr_abi_hash();
    (void) shr_ctl_send(r->ctl, &msg, NULL);
}


static void
on_message(rogue_t *r)
{
    int            rc, fds[SHR_CTL_FDS_MAX];
    shr_ctl_msg_t  msg;

    rc = shr_ctl_recv(r->ctl, &msg, fds);

    if (rc == -SHR_EAGAIN) {
        return;
    }
    if (rc != 0) {
        close(r->ctl);
        r->ctl = -1;
        return;
    }

    if (msg.type == SHR_CTL_ATTACH) {
        detach(r);
        r->hello = msg;
    }
    if (msg.nfds > FDS_MAX - r->nfds) {
        die("too many descriptors");
    }
    memcpy(r->fds + r->nfds, fds, msg.nfds * sizeof(int));
    r->nfds += msg.nfds;

    if (msg.type == SHR_CTL_PING) {
        answer(r);
    } else if (!r->attached && r->nfds == shr_ctl_nfds(&r->hello.geom)) {
        attach(r);
        answer(r);
    }
}


/* ---- what it answers ---------------------------------------------------- */

static void
say_honest(shr_server_t *s, shr_taken_t *req)
{
    shr_start_t   start = { .prompt_tokens = 3 };
    shr_usage_t   usage = { .prompt_tokens = 3, .completion_tokens = 1 };
    shr_finish_t  finish = { .reason = SHR_FINISH_STOP, .tokens = 1 };

    (void) shr_server_put(s, req, SHR_F_START, 0, &start, sizeof(start), NULL,
                          0);
    (void) shr_server_put(s, req, SHR_F_TEXT, 0, "honest", 6, NULL, 0);
    (void) shr_server_put(s, req, SHR_F_FINISH, 0, &finish, sizeof(finish),
                          NULL, 0);
    (void) shr_server_put(s, req, SHR_F_USAGE, 0, &usage, sizeof(usage), NULL,
                          0);
    (void) shr_server_put(s, req, SHR_F_END, 0, NULL, 0, NULL, 0);
    shr_server_publish(s, req);
    shr_server_done(s, req);
}


/* Sizes that the types ask for more often than not, so that the content is
 * looked at too. */
static void
say_frame(rogue_t *r, shr_server_t *s, shr_taken_t *req)
{
    size_t           i, len;
    uint32_t         type;
    uint8_t          payload[SHR_PAYLOAD_MAX];
    static const uint8_t  sizes[SHR_F_MAX] = {
        [SHR_F_START] = sizeof(shr_start_t), [SHR_F_TEXT] = 40,
        [SHR_F_LOGPROB] = 8 + 12 + 8, [SHR_F_FINISH] = sizeof(shr_finish_t),
        [SHR_F_IDS] = 16, [SHR_F_OFFSETS] = 16,
        [SHR_F_USAGE] = sizeof(shr_usage_t), [SHR_F_ERROR] = 12 + 20,
        [SHR_F_VALUES] = sizeof(shr_values_t) + 12, [SHR_F_LABELS] = 24,
    };

    type = (uint32_t) (next_random(r) % (SHR_F_MAX + 1));
    len = next_random(r) % 8 != 0 && type < SHR_F_MAX
          ? sizes[type] : next_random(r) % (sizeof(payload) + 1);

    for (i = 0; i < len; i++) {
        payload[i] = (uint8_t) (next_random(r) >> 40);
    }
    if (next_random(r) % 4 != 0 && len >= 12) {
        /* small numbers, as fields that count or name something have */
        memset(payload, 0, 12);
        payload[0] = (uint8_t) (next_random(r) % 8);
        payload[type == SHR_F_ERROR ? 8 : 16 % len]
            = (uint8_t) (next_random(r) % 24);
    }

    (void) shr_server_put(s, req, type, next_random(r) % 4 == 0
                          ? (uint32_t) (next_random(r) & 0xffff) : 0,
                          payload, len, NULL, 0);
    shr_server_publish(s, req);
}


static void
say_logprobs(shr_server_t *s, shr_taken_t *req)
{
    int                  i;
    uint8_t              payload[8 + 12 + SHR_TOKEN_TEXT_MAX];
    shr_logprob_t        lp = { .nentries = 1 };
    shr_logprob_entry_t  entry = { .len = SHR_TOKEN_TEXT_MAX };

    memset(payload, 0xff, sizeof(payload));
    memcpy(payload, &lp, sizeof(lp));
    memcpy(payload + sizeof(lp), &entry, sizeof(entry));

    for (i = 0; i < 1000; i++) {
        if (shr_server_put(s, req, SHR_F_LOGPROB, 0, payload, sizeof(payload),
                           NULL, 0) != 0)
        {
            break;
        }
    }
    shr_server_publish(s, req);
    shr_server_want_room(s, req, 1);
}


static void
say(rogue_t *r, uint32_t w, held_t *held)
{
    shr_server_t  *s = r->servers[w];

    if (!shr_server_wanted(s, &held->req)) {
        shr_server_done(s, &held->req);
        held->used = 0;
        return;
    }

    switch (r->mode) {
    case MODE_HONEST:
    case MODE_WORDS:
        say_honest(s, &held->req);
        held->used = 0;
        break;
    case MODE_FRAMES:
        say_frame(r, s, &held->req);
        if (next_random(r) % 16 == 0) {
            shr_server_done(s, &held->req);
            held->used = 0;
        }
        break;
    case MODE_FLOOD:
        say_logprobs(s, &held->req);
        break;
    default:
        break;
    }
}


/* ---- what it does to memory --------------------------------------------- */

/* One of: any word, a word of the worker's own lines, an index, a slot's
 * words; to a value that is random, near the old one, or at an edge. */
static void
change_word(rogue_t *r, uint32_t w)
{
    size_t              at;
    uint64_t            old;
    uint32_t           *word;
    static const uint32_t  edges[] = {
        0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 4096, 0xfffffff8
    };

    switch (next_random(r) % 4) {
    case 0:
        at = next_random(r) % r->at.size;
        break;
    case 1:
        at = r->at.line + next_random(r) % (r->at.sq_head - r->at.line);
        break;
    case 2:
        at = r->at.sq_head + next_random(r) % (r->at.cq - r->at.sq_head);
        break;
    default:
        /* the slots that are used most */
        at = r->at.cq + next_random(r) % 2 * (r->at.resp - r->at.cq)
             + next_random(r) % 256;
    }

    if (at >= r->at.size - 8) {
        return;
    }
    word = (uint32_t *) (r->workers[w] + (at & ~(size_t) 3));
    if ((uint8_t *) word < r->workers[w] + r->at.line) {
        return;
    }

    old = *word;
    switch (next_random(r) % 4) {
    case 0:
        *word = (uint32_t) next_random(r);
        break;
    case 1:
        *word = (uint32_t) (old + next_random(r) % 9 - 4);
        break;
    case 2:
        *word = edges[next_random(r) % (sizeof(edges) / sizeof(edges[0]))];
        break;
    default:
        *word = (uint32_t) (old ^ (1u << next_random(r) % 32));
    }
}


static void
overwrite(rogue_t *r, uint32_t w)
{
    size_t     i;
    uint64_t  *words = (uint64_t *) (r->workers[w] + r->at.line);

    for (i = 0; i < (r->at.size - r->at.line) / 8; i++) {
        words[i] = next_random(r);
    }
}


static void
ring_all(rogue_t *r)
{
    uint32_t           i;
    uint64_t           one = 1;
    const shr_geom_t  *geom = &r->hello.geom;

    for (i = 0; i < geom->nclients; i++) {
        if (write(r->fds[1 + geom->nclients + geom->nworkers + i], &one, 8)
            != 8)
        {
            continue;           /* its counter is full: it has been told */
        }
    }
}


static void
turn(rogue_t *r, uint32_t w)
{
    int            i, rc;
    size_t         len;
    held_t        *held;
    shr_server_t  *s = r->servers[w];

    shr_server_beat(s, now_ns());

    for (i = 0; i < HELD_MAX; i++) {
        held = &r->held[w][i];

        if (!held->used) {
            rc = shr_server_take(s, &held->req, request, sizeof(request),
                                 &len);
            held->used = rc == 0 || rc == -SHR_ETOOBIG;
        }
        if (held->used) {
            say(r, w, held);
        }
    }
    shr_server_ring(s);

    if (r->mode == MODE_WORDS) {
        for (i = 0; i < 64; i++) {
            change_word(r, w);
        }
        ring_all(r);
    } else if (r->mode == MODE_GARBAGE) {
        overwrite(r, w);
        ring_all(r);
    }
}


/* ---- */

/* Back to honesty needs regions that are honest: a supervisor would start a
 * new worker, which begins with clean words. */
static void
set_mode(rogue_t *r, rogue_mode_t mode)
{
    uint32_t  w;

    r->mode = mode;

    if (mode != MODE_HONEST || !r->attached) {
        return;
    }
    for (w = 0; w < r->hello.geom.nworkers; w++) {
        shr_server_close(r->servers[w]);
        memset(r->workers[w] + r->at.counters, 0, sizeof(shr_counters_t));
    }
    open_workers(r);
}


static int
on_line(rogue_t *r)
{
    int     i;
    size_t  n;
    char    line[LINE_MAX_];

    if (fgets(line, sizeof(line), stdin) == NULL) {
        return 0;
    }
    n = strcspn(line, "\n");
    line[n] = '\0';

    for (i = 0; i < MODES; i++) {
        if (strcmp(line, mode_names[i]) == 0) {
            set_mode(r, (rogue_mode_t) i);
            printf("ok\n");
            fflush(stdout);
            return 1;
        }
    }
    return strcmp(line, "quit") != 0;
}


static void
serve(rogue_t *r)
{
    uint32_t       w;
    struct pollfd  wait[4];

    for ( ;; ) {
        wait[0].fd = STDIN_FILENO;
        wait[1].fd = r->listener;
        wait[2].fd = r->ctl;
        wait[3].fd = r->attached ? r->fds[0] : -1;
        for (w = 0; w < 4; w++) {
            wait[w].events = POLLIN;
            wait[w].revents = 0;
        }
        (void) poll(wait, 4, r->mode == MODE_FLOOD ? 0 : 1);

        if (wait[0].revents != 0 && !on_line(r)) {
            return;
        }
        if (wait[2].revents != 0) {
            on_message(r);
        }
        if (wait[1].revents != 0 && r->ctl < 0) {
            r->ctl = shr_ctl_accept(r->listener);
        }
        if (wait[3].revents != 0 && r->attached) {
            detach(r);
        }
        for (w = 0; r->attached && w < r->hello.geom.nworkers; w++) {
            turn(r, w);
        }
    }
}


int
main(int argc, char **argv)
{
    const char  *p;

    if (argc != 5 || strcmp(argv[1], "--socket") != 0
        || strcmp(argv[3], "--seed") != 0)
    {
        fprintf(stderr, "usage: shr_rogue --socket PATH --seed N\n");
        return 2;
    }

    for (p = argv[4]; *p >= '0' && *p <= '9'; p++) {
        rogue.random = rogue.random * 10 + (uint64_t) (*p - '0');
    }
    rogue.random = (rogue.random + 1) * 0x9e3779b97f4a7c15ULL;
    rogue.ctl = -1;
    rogue.listener = shr_ctl_listen(argv[2]);
    if (rogue.listener < 0) {
        die(argv[2]);
    }
    serve(&rogue);

    return 0;
}
