/*
 * Two processes against each other over one pool.
 *
 *   shm_stress messages N          N messages with sums checked; the indices
 *                                  start just below 2^32; prints the rate
 *   shm_stress threads N           the same between two threads
 *   shm_stress kill SECONDS SEED   kill -9 of either side at random instants,
 *                                  and a check of the invariants:
 *     I1, I2  the side that lives goes on: its progress counter moves
 *     I3      each accepted request of a client that lives ends exactly once
 *     I4      a response is of its own request; at the end no byte of a
 *             request or a response is left in the regions, whoever was killed
 *     I5      follows: nobody ever waits for a dead process
 *
 * Exit status 0 when all held.
 */

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/unit/shm/shm_pool.h"


#define CANARY      0xc0ffee5ec4e7da7aULL
#define WORDS_MAX   80              /* of a payload or a response */
#define INFLIGHT    768
#define QUIET_MS    5000            /* without progress: a hang */
#define SPINS       400             /* empty turns before a side sleeps */

/* Shared by all processes of a run; says how far each side came. */
typedef struct {
    _Atomic uint64_t  client_steps;
    _Atomic uint64_t  server_steps;
    _Atomic uint64_t  accepted;     /* by clients that were not killed since */
    _Atomic uint64_t  ended;
    _Atomic uint64_t  resubmitted;
    _Atomic uint64_t  wrong;
    _Atomic uint32_t  stop;         /* the client: no more, and drain */
    _Atomic uint32_t  stop_server;  /* after that */
    _Atomic uint32_t  drained;      /* the client has nothing in flight */
} board_t;

typedef struct {
    uint64_t  key;
    uint64_t  got;                  /* words read of the response */
    int       used;
} pending_t;

static pool_t    pool;
static board_t  *board;
static _Thread_local uint64_t  seed = 88172645463325252ULL;


static uint64_t
rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;

    return seed;
}


/* The i-th word that belongs to a key; carries the canary in its upper part
 * so that leftovers are found. */
static uint64_t
word_of(uint64_t key, uint64_t i)
{
    return (CANARY & 0xffffffff00000000ULL)
           | (uint32_t) ((key * 0x9e3779b97f4a7c15ULL + i * 0x2545f491) >> 16);
}


static void
fail(const char *what)
{
    atomic_fetch_add(&board->wrong, 1);
    fprintf(stderr, "shm_stress: %s (pid %d)\n", what, (int) getpid());
}


/* Waits on a bell for at most 100 ms. */
static void
bell_wait(int fd)
{
    struct pollfd  pfd = { .fd = fd, .events = POLLIN };

    if (poll(&pfd, 1, 100) == 1) {
        (void) bell_count(fd);
    }
}


/*
 * The server: for each request with key k and n words it checks the payload,
 * then answers n words in frames of random sizes.
 */
static void
serve_one(shr_server_t *s, shr_taken_t *req, const uint64_t *in, size_t len)
{
    int       rc;
    uint64_t  i, n, part, out[WORDS_MAX];

    n = len / 8 - 1;

    for (i = 0; i < n; i++) {
        if (in[i + 1] != word_of(in[0], i)) {
            fail("a payload is not what was sent");
            break;
        }
    }

    for (i = 0; i < n; i++) {
        out[i] = word_of(~in[0], i);
    }

    for (i = 0; i < n && shr_server_wanted(s, req); i += part) {
        part = 1 + rnd() % 16;
        part = part < n - i ? part : n - i;
        rc = shr_server_put(s, req, SHR_F_TEXT, 0, out + i, part * 8, NULL, 0);

        if (rc != 0) {
            if (shr_server_wanted(s, req)) {
                fail("no room in a ring that is large enough");
            }

            break;
        }

        if (rnd() % 4 == 0) {
            shr_server_publish(s, req);
        }
    }

    (void) shr_server_put(s, req, SHR_F_END, 0, NULL, 0, NULL, 0);
    shr_server_done(s, req);
}


static void
server_main(void)
{
    int           n, idle;
    size_t        len;
    shr_taken_t   req;
    shr_server_t *s;
    uint64_t      in[WORDS_MAX + 1];

    s = shr_server_open(&pool.geom, 0, pool.worker_rw[0], pool.client_ro,
                        pool.client_bell);
    shr_server_set_state(s, SHR_WORKER_READY, (int32_t) getpid());
    idle = 0;

    while (!atomic_load(&board->stop_server)) {
        for (n = 0; n < 64; n++) {
            if (shr_server_take(s, &req, in, sizeof(in), &len) != 0) {
                break;
            }

            serve_one(s, &req, in, len);
        }

        shr_server_ring(s);
        atomic_fetch_add(&board->server_steps, 1);
        idle = n == 0 ? idle + 1 : 0;

        if (idle > SPINS && shr_server_sleep(s) == 0) {
            shr_server_sweep(s);
            bell_wait(pool.worker_bell[0]);
            shr_server_awake(s);
        }
    }

    /* the last look: what clients released is cleared */
    shr_server_sweep(s);
    shr_server_close(s);
}


static int
client_send(shr_client_t *c, pending_t *pending)
{
    uint32_t  slot;
    uint64_t  i, n, out[WORDS_MAX + 1];

    if (shr_client_claim(c, &slot) != 0) {
        return 0;
    }

    n = 1 + rnd() % (WORDS_MAX - 1);
    out[0] = rnd();

    for (i = 0; i < n; i++) {
        out[i + 1] = word_of(out[0], i);
    }

    /* without the key word the canary scan would miss a leftover */
    if (shr_client_write(c, slot, out, (n + 1) * 8) != 0
        || shr_client_submit(c, slot, 0) != 0)
    {
        shr_client_release(c, slot);
        return 0;
    }

    pending[slot].key = out[0];
    pending[slot].got = 0;
    pending[slot].used = 1;
    atomic_fetch_add(&board->accepted, 1);

    return 1;
}


/* Reads what there is; 1 when the request has ended. */
static int
client_read(shr_client_t *c, uint32_t slot, pending_t *p)
{
    int          rc;
    uint64_t     i, word;
    shr_frame_t  frame;
    uint8_t      payload[SHR_PAYLOAD_MAX];

    while ((rc = shr_client_read(c, slot, &frame, payload)) == 0) {
        if (frame.type == SHR_F_END) {
            return 1;
        }

        for (i = 0; i < frame.len / 8; i++) {
            memcpy(&word, payload + i * 8, 8);

            if (word != word_of(~p->key, p->got++)) {
                fail("a response of another request");
            }
        }
    }

    if (rc == -SHR_EBROKEN) {
        fail("a broken response");
    }

    return rc == -SHR_EDONE || rc == -SHR_EBROKEN;
}


static void
client_end(shr_client_t *c, uint32_t slot, pending_t *p)
{
    if (!p->used) {
        fail("a request ended twice");
        return;
    }

    p->used = 0;
    shr_client_release(c, slot);
    atomic_fetch_add(&board->ended, 1);
}


/* What was lost with a dead worker is sent again from its start. */
static void
client_retry(shr_client_t *c, pending_t *pending)
{
    uint32_t  slot;

    for (slot = 0; slot < pool.geom.nslots; slot++) {
        if (!pending[slot].used
            || shr_client_state(c, slot) != SHR_REQ_LOST)
        {
            continue;
        }

        pending[slot].got = 0;

        if (shr_client_submit(c, slot, 0) == 0) {
            atomic_fetch_add(&board->resubmitted, 1);
        }
    }
}


static void
client_main(uint64_t limit)
{
    int            rc, idle;
    uint32_t       slot, incarnation;
    uint64_t       sent;
    pending_t      pending[SHR_SLOTS_MAX] = { 0 };
    shr_client_t  *c;
    shr_worker_info_t  info;

    c = shr_client_open(&pool.geom, 0, pool.client_rw[0], pool.worker_ro,
                        pool.worker_bell);
    incarnation = 0;
    sent = 0;
    idle = 0;

    for ( ;; ) {
        while (sent < limit && !atomic_load(&board->stop)
               && shr_client_inflight(c) < INFLIGHT
               && client_send(c, pending))
        {
            sent++;
        }

        for (idle++; (rc = shr_client_poll(c, 0, &slot)) == 0; idle = 0) {
            if (client_read(c, slot, &pending[slot])) {
                client_end(c, slot, &pending[slot]);
            } else if (rnd() % 64 == 0) {
                client_end(c, slot, &pending[slot]);    /* gives up early */
            }
        }

        if (rc == -SHR_EBROKEN) {
            fail("a broken completion ring");
        }

        shr_client_info(c, 0, &info);
        if (info.incarnation != incarnation) {
            incarnation = info.incarnation;
            client_retry(c, pending);
        }

        atomic_fetch_add(&board->client_steps, 1);

        if (shr_client_inflight(c) == 0
            && (sent >= limit || atomic_load(&board->stop)))
        {
            break;
        }

        if (idle > SPINS && shr_client_arm(c) == 0) {
            bell_wait(pool.client_bell[0]);
        }
    }

    atomic_store(&board->drained, 1);
    shr_client_close(c);
}


static uint64_t
now_ms(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000 + (uint64_t) ts.tv_nsec / 1000000;
}


static pid_t
spawn(void (*body)(void))
{
    pid_t  pid;

    pid = fork();

    if (pid == 0) {
        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        seed ^= (uint64_t) getpid() << 20;
        body();
        _exit(0);
    }

    return pid;
}


static uint64_t  messages_max;

static void
client_body(void)
{
    client_main(messages_max);
}


static void
start_server_reset(void)
{
    (void) shr_worker_reset(&pool.geom, pool.worker_rw[0], pool.client_bell);
}


/* Every 8-byte word of the payload chunks and response bytes: no canary. */
static uint64_t
leftovers(void)
{
    size_t               i;
    uint64_t             n, word;
    shr_client_layout_t  cl;
    shr_worker_layout_t  wl;

    shr_client_layout(&pool.geom, &cl);
    shr_worker_layout(&pool.geom, &wl);
    n = 0;

    for (i = cl.chunks; i < cl.size; i += 8) {
        memcpy(&word, (uint8_t *) pool.client_ro[0] + i, 8);
        n += word >> 32 == CANARY >> 32;
    }

    for (i = wl.bytes; i < wl.size; i += 8) {
        memcpy(&word, (uint8_t *) pool.worker_ro[0] + i, 8);
        n += word >> 32 == CANARY >> 32;
    }

    return n;
}


static void *
server_thread(void *arg)
{
    (void) arg;
    server_main();

    return NULL;
}


/* Both ends as threads of one process, for a sanitizer that looks at threads
 * only. */
static int
run_threads(uint64_t n)
{
    pthread_t  server;

    start_server_reset();

    if (pthread_create(&server, NULL, server_thread, NULL) != 0) {
        return 1;
    }

    client_main(n);
    atomic_store(&board->stop_server, 1);
    pthread_join(server, NULL);

    printf("messages %" PRIu64 ", ended %" PRIu64 ", wrong %" PRIu64
           ", words left %" PRIu64 "\n", atomic_load(&board->accepted),
           atomic_load(&board->ended), atomic_load(&board->wrong),
           leftovers());

    return atomic_load(&board->ended) == n && atomic_load(&board->wrong) == 0
           && leftovers() == 0 ? 0 : 1;
}


static int
run_messages(uint64_t n)
{
    int       status;
    pid_t     server, client;
    uint64_t  start, took;

    messages_max = n;
    start = now_ms();
    start_server_reset();
    server = spawn(server_main);
    client = spawn(client_body);
    waitpid(client, &status, 0);
    took = now_ms() - start;
    atomic_store(&board->stop_server, 1);
    waitpid(server, NULL, 0);

    printf("messages %" PRIu64 ", ended %" PRIu64 ", wrong %" PRIu64
           ", %" PRIu64 " ms, %.0f a second\n",
           atomic_load(&board->accepted), atomic_load(&board->ended),
           atomic_load(&board->wrong), took,
           (double) n * 1000 / (double) (took + 1));

    return WIFEXITED(status) && WEXITSTATUS(status) == 0
           && atomic_load(&board->ended) == n
           && atomic_load(&board->wrong) == 0 ? 0 : 1;
}


/* Does a counter move within QUIET_MS? */
static int
moves(_Atomic uint64_t *counter)
{
    uint64_t         before, until;
    struct timespec  ms = { 0, 1000000 };

    before = atomic_load(counter);
    until = now_ms() + QUIET_MS;

    while (atomic_load(counter) == before) {
        if (now_ms() > until) {
            return 0;
        }

        nanosleep(&ms, NULL);
    }

    return 1;
}


/* After the load: a fresh client must find everything free and working, and
 * what the killed ones left is overwritten or cleared. */
static int
settle(pid_t server, pid_t client)
{
    uint32_t  i;

    atomic_store(&board->stop, 1);
    waitpid(client, NULL, 0);
    atomic_store(&board->stop_server, 1);
    waitpid(server, NULL, 0);

    if (!atomic_load(&board->drained)) {
        fail("the last client did not drain");
    }

    /* the regions once more, by two fresh ends: all slots are free */
    atomic_store(&board->stop, 0);
    atomic_store(&board->stop_server, 0);
    start_server_reset();
    server = spawn(server_main);
    messages_max = 20 * pool.geom.nslots;
    client = spawn(client_body);
    waitpid(client, NULL, 0);
    atomic_store(&board->stop_server, 1);
    waitpid(server, NULL, 0);

    if (leftovers() != 0) {
        fail("bytes of a request or a response are left");
    }

    for (i = 0; i < pool.geom.nslots; i++) {
        shr_client_layout_t  cl;
        shr_slot_t          *slots;

        shr_client_layout(&pool.geom, &cl);
        slots = (shr_slot_t *) ((uint8_t *) pool.client_ro[0] + cl.slots);

        if (shr_word_low(atomic_load(&slots[i].word)) != 0) {
            fail("a slot is left cancelled");
        }
    }

    return atomic_load(&board->wrong) == 0 ? 0 : 1;
}


static int
run_kill(uint64_t seconds)
{
    pid_t     server, client;
    uint64_t  until, kills, lost, accepted;

    messages_max = UINT64_MAX;
    start_server_reset();
    server = spawn(server_main);
    client = spawn(client_body);
    until = now_ms() + seconds * 1000;
    kills = lost = 0;

    while (now_ms() < until && atomic_load(&board->wrong) == 0) {
        struct timespec  ts = { 0, (long) (rnd() % 3000000) };

        nanosleep(&ts, NULL);
        kills++;

        if (rnd() % 2) {
            kill(server, SIGKILL);
            waitpid(server, NULL, 0);
            start_server_reset();
            server = spawn(server_main);

            if (kills % 64 == 1 && !moves(&board->client_steps)) {
                fail("the client stands still");
            }

        } else {
            kill(client, SIGKILL);
            waitpid(client, NULL, 0);
            accepted = atomic_load(&board->accepted);
            lost += accepted - atomic_load(&board->ended);
            atomic_store(&board->ended, accepted);      /* died with it */
            client = spawn(client_body);

            if (kills % 64 == 1 && !moves(&board->server_steps)) {
                fail("the server stands still");
            }
        }
    }

    if (settle(server, client) != 0
        || atomic_load(&board->accepted) != atomic_load(&board->ended))
    {
        fail("accepted and ended differ");
    }

    printf("kills %" PRIu64 ", accepted %" PRIu64 ", resubmitted %" PRIu64
           ", died with their client %" PRIu64 ", wrong %" PRIu64
"\n",
           kills, atomic_load(&board->accepted),
           atomic_load(&board->resubmitted), lost,
           atomic_load(&board->wrong));

    return atomic_load(&board->wrong) == 0 ? 0 : 1;
}


static uint64_t
number(const char *text)
{
    uint64_t  n;

    for (n = 0; *text >= '0' && *text <= '9'; text++) {
        n = n * 10 + (uint64_t) (*text - '0');
    }

    return n;
}


int
main(int argc, char **argv)
{
    shr_geom_t  geom = { 1, 1, 1024, 1024, 8192, 0 };

    if (argc < 3) {
        fprintf(stderr, "usage: shm_stress messages N | threads N | "
                "kill SECONDS SEED\n");
        return 2;
    }

    if (argc > 3) {
        seed = number(argv[3]) * 2654435761u + 1;
    }

    board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pool_regions(&pool, &geom, UINT32_MAX - 7);

    if (strcmp(argv[1], "threads") == 0) {
        return run_threads(number(argv[2]));
    }

    if (strcmp(argv[1], "messages") == 0) {
        return run_messages(number(argv[2]));
    }

    return run_kill(number(argv[2]));
}
