/*
 * The client's end.  Own words are written with plain private copies kept
 * beside them; words of a worker region are loaded once, then checked.
 */

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/shr_client.h"
#include "shm/shr_error.h"


typedef enum {
    SLOT_FREE = 0,
    SLOT_CLAIMED,
    SLOT_SUBMITTED
} slot_use_t;

typedef struct {
    uint32_t    gen;
    uint32_t    worker;
    uint32_t    consumed;
    uint32_t    first_chunk;
    uint32_t    len;
    uint32_t    next_free;
    slot_use_t  use;
} slot_t;

/* Where a worker region's words are, and what we keep about it. */
typedef struct {
    uint8_t            *base;
    shr_worker_line_t  *line;
    shr_sleep_line_t   *sleep;
    shr_counters_t     *counters;
    shr_index_t        *sq_head;
    shr_index_t        *cq_tail;
    _Atomic uint64_t   *cq;
    shr_resp_t         *resp;           /* [nslots], of this client */
    uint8_t            *bytes;          /* [nslots][shr_ring_stride] */
    uint32_t            sq_tail;
    uint32_t            cq_head;
    uint32_t            rung;           /* the sleep we have rung for */
    uint32_t            broken_tail;    /* a tail that cannot be */
    uint32_t            broken;         /* broken_tail is set */
    int                 doorbell;
} peer_t;

struct shr_client_s {
    shr_geom_t           geom;
    shr_client_line_t   *line;
    shr_slot_t          *shared;        /* [nslots] */
    shr_index_t         *cq_head;       /* [nworkers] */
    shr_index_t         *sq_tail;       /* [nworkers] */
    _Atomic uint64_t    *sq;            /* [nworkers][nslots] */
    _Atomic uint32_t    *chunk_next;
    uint8_t             *chunks;
    slot_t              *slots;
    uint32_t            *chunk_link;    /* private copy of chunk_next */
    uint32_t            *chunk_stack;   /* free chunks */
    uint32_t             nchunks_free;
    uint32_t             first_free;    /* slots, last used first */
    uint32_t             inflight;
    peer_t               peers[];
};


static uint32_t
next_gen(uint32_t gen)
{
    /* 0 is what fresh memory holds, so no request has it */
    return gen + 1 != 0 ? gen + 1 : 1;
}


static void
peer_init(peer_t *peer, const shr_geom_t *geom, uint32_t index, void *region,
    int doorbell)
{
    shr_worker_layout_t  at;

    shr_worker_layout(geom, &at);

    peer->base = region;
    peer->line = (shr_worker_line_t *) (peer->base + at.line);
    peer->sleep = (shr_sleep_line_t *) (peer->base + at.sleep);
    peer->counters = (shr_counters_t *) (peer->base + at.counters);
    peer->sq_head = (shr_index_t *) (peer->base + at.sq_head) + index;
    peer->cq_tail = (shr_index_t *) (peer->base + at.cq_tail) + index;
    peer->cq = (_Atomic uint64_t *) (peer->base + at.cq)
               + (size_t) index * geom->nslots;
    peer->resp = (shr_resp_t *) (peer->base + at.resp)
                 + (size_t) index * geom->nslots;
    peer->bytes = peer->base + at.bytes
                  + (size_t) index * geom->nslots * shr_ring_stride(geom);
    peer->doorbell = doorbell;
}


/* Clears what a killed predecessor left of a payload (I4).  The links are of
 * our own region; the bounds only guard against a half-written chain. */
static void
payload_clear(shr_client_t *c, shr_slot_t *slot)
{
    uint32_t  n, chunk;

    n = atomic_load_explicit(&slot->len, memory_order_relaxed)
        / SHR_CHUNK_BYTES + 1;
    chunk = atomic_load_explicit(&slot->first_chunk, memory_order_relaxed);

    for (/* void */; n != 0 && chunk < c->geom.nchunks; n--) {
        memset(c->chunks + (size_t) chunk * SHR_CHUNK_BYTES, 0,
               SHR_CHUNK_BYTES);
        chunk = atomic_load_explicit(&c->chunk_next[chunk],
                                     memory_order_relaxed);
    }

    atomic_store_explicit(&slot->len, 0, memory_order_relaxed);
}


/* What a predecessor left: all slots move on before any chunk is used again,
 * so a worker that still copies its payload finds out (shr_server_take). */
static void
client_take_over(shr_client_t *c)
{
    uint32_t  i;

    for (i = 0; i < c->geom.nslots; i++) {
        c->slots[i].gen = next_gen(shr_word_gen(
            atomic_load_explicit(&c->shared[i].word, memory_order_relaxed)));
        atomic_store_explicit(&c->shared[i].word,
                              shr_word(c->slots[i].gen, 0),
                              memory_order_relaxed);
        c->slots[i].next_free = i + 1;
    }

    atomic_thread_fence(memory_order_release);

    for (i = 0; i < c->geom.nslots; i++) {
        payload_clear(c, &c->shared[i]);
    }

    for (i = 0; i < c->geom.nchunks; i++) {
        c->chunk_stack[i] = c->geom.nchunks - 1 - i;
    }

    c->nchunks_free = c->geom.nchunks;

    for (i = 0; i < c->geom.nworkers; i++) {
        c->peers[i].sq_tail = atomic_load_explicit(&c->sq_tail[i].value,
                                                   memory_order_relaxed);
        c->peers[i].cq_head = atomic_load_explicit(&c->cq_head[i].value,
                                                   memory_order_relaxed);
    }

    /* release; pairs with the acquire in shr_server_client_pid: who sees the
     * new epoch sees the slots moved on */
    atomic_store_explicit(&c->line->pid, (int32_t) getpid(),
                          memory_order_relaxed);
    atomic_fetch_add_explicit(&c->line->epoch, 1, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
}


shr_client_t *
shr_client_open(const shr_geom_t *geom, uint32_t index, void *region,
    void *const *workers, const int *doorbells)
{
    uint32_t              i;
    uint8_t              *base;
    shr_client_t         *c;
    shr_client_layout_t   at;

    assert(shr_geom_check(geom) == 0 && index < geom->nclients);

    c = calloc(1, sizeof(shr_client_t) + geom->nworkers * sizeof(peer_t));
    if (c == NULL) {
        return NULL;
    }

    c->slots = calloc(geom->nslots, sizeof(slot_t));
    c->chunk_link = calloc(geom->nchunks, sizeof(uint32_t));
    c->chunk_stack = calloc(geom->nchunks, sizeof(uint32_t));

    if (c->slots == NULL || c->chunk_link == NULL || c->chunk_stack == NULL) {
        shr_client_close(c);
        return NULL;
    }

    shr_client_layout(geom, &at);
    base = region;

    c->geom = *geom;
    c->line = (shr_client_line_t *) (base + at.line);
    c->shared = (shr_slot_t *) (base + at.slots);
    c->cq_head = (shr_index_t *) (base + at.cq_head);
    c->sq_tail = (shr_index_t *) (base + at.sq_tail);
    c->sq = (_Atomic uint64_t *) (base + at.sq);
    c->chunk_next = (_Atomic uint32_t *) (base + at.chunk_next);
    c->chunks = base + at.chunks;

    for (i = 0; i < geom->nworkers; i++) {
        peer_init(&c->peers[i], geom, index, workers[i], doorbells[i]);
    }

    client_take_over(c);

    return c;
}


void
shr_client_close(shr_client_t *c)
{
    free(c->slots);
    free(c->chunk_link);
    free(c->chunk_stack);
    free(c);
}


int
shr_client_claim(shr_client_t *c, uint32_t *slot)
{
    slot_t  *s;

    if (c->first_free == c->geom.nslots) {
        return -SHR_EFULL;
    }

    *slot = c->first_free;
    s = &c->slots[*slot];
    assert(s->use == SLOT_FREE);

    c->first_free = s->next_free;
    c->inflight++;

    s->use = SLOT_CLAIMED;
    s->first_chunk = SHR_CHUNK_END;
    s->len = 0;

    return 0;
}


/* Takes a free chunk and links it behind `prev` (SHR_CHUNK_END: none). */
static uint32_t
chunk_take(shr_client_t *c, uint32_t prev)
{
    uint32_t  chunk;

    chunk = c->chunk_stack[--c->nchunks_free];
    c->chunk_link[chunk] = SHR_CHUNK_END;
    atomic_store_explicit(&c->chunk_next[chunk], SHR_CHUNK_END,
                          memory_order_relaxed);

    if (prev != SHR_CHUNK_END) {
        c->chunk_link[prev] = chunk;
        atomic_store_explicit(&c->chunk_next[prev], chunk,
                              memory_order_relaxed);
    }

    return chunk;
}


/* Where the payload lies is written before the first of its bytes, so that a
 * successor can clear it wherever we are killed. */
static void
payload_announce(shr_client_t *c, uint32_t slot, uint32_t chunk)
{
    slot_t  *s;

    s = &c->slots[slot];
    s->first_chunk = chunk;
    atomic_store_explicit(&c->shared[slot].first_chunk, chunk,
                          memory_order_relaxed);
    atomic_store_explicit(&c->shared[slot].len, s->len, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
}


int
shr_client_write(shr_client_t *c, uint32_t slot, const void *data, size_t len)
{
    size_t          n, part;
    slot_t         *s;
    uint32_t        chunk;
    const uint8_t  *from;

    s = &c->slots[slot];
    assert(slot < c->geom.nslots && s->use == SLOT_CLAIMED && s->len == 0);

    n = (len + SHR_CHUNK_BYTES - 1) / SHR_CHUNK_BYTES;

    if (len > SHR_REQ_BYTES_MAX || n > c->nchunks_free) {
        return -SHR_EFULL;
    }

    s->len = (uint32_t) len;
    chunk = SHR_CHUNK_END;

    for (from = data; len != 0; len -= part) {
        chunk = chunk_take(c, chunk);

        if (s->first_chunk == SHR_CHUNK_END) {
            payload_announce(c, slot, chunk);
        }

        part = len < SHR_CHUNK_BYTES ? len : SHR_CHUNK_BYTES;
        memcpy(c->chunks + (size_t) chunk * SHR_CHUNK_BYTES, from, part);
        from += part;
    }

    return 0;
}


/* Called after a store that a sleeping worker must learn of. */
static void
peer_ring(peer_t *peer)
{
    uint32_t  sleeping;
    uint64_t  one = 1;
    ssize_t   n;

    /* seq_cst; pairs with the fence in shr_server_sleep: either we see it
     * asleep, or it sees what we stored */
    atomic_thread_fence(memory_order_seq_cst);
    sleeping = atomic_load_explicit(&peer->sleep->sleeping,
                                    memory_order_relaxed);

    if ((sleeping & 1) == 0 || sleeping == peer->rung) {
        return;
    }

    peer->rung = sleeping;
    n = write(peer->doorbell, &one, sizeof(one));
    (void) n;       /* EAGAIN: the counter is far from empty, it is awake */
}


int
shr_client_submit(shr_client_t *c, uint32_t slot, uint32_t worker)
{
    slot_t    *s;
    peer_t    *peer;
    uint32_t   head;

    assert(slot < c->geom.nslots && worker < c->geom.nworkers);
    s = &c->slots[slot];
    peer = &c->peers[worker];
    assert(s->use != SLOT_FREE);

    /* acquire; pairs with the release in shr_server_take: an entry that was
     * read may be overwritten */
    head = atomic_load_explicit(&peer->sq_head->value, memory_order_acquire);

    if (peer->sq_tail - head >= c->geom.nslots) {
        return -SHR_EFULL;      /* or a foreign lie: then it stays full */
    }

    s->gen = next_gen(s->gen);
    s->worker = worker;
    s->consumed = 0;
    s->use = SLOT_SUBMITTED;

    atomic_store_explicit(&c->shared[slot].consumed, shr_word(s->gen, 0),
                          memory_order_relaxed);
    atomic_store_explicit(&c->shared[slot].len, s->len, memory_order_relaxed);
    /* release; pairs with the acquire in shr_server_wanted and take */
    atomic_store_explicit(&c->shared[slot].word, shr_word(s->gen, 0),
                          memory_order_release);

    atomic_store_explicit(&c->sq[(size_t) worker * c->geom.nslots
                                 + (peer->sq_tail & (c->geom.nslots - 1))],
                          shr_word(s->gen, slot), memory_order_relaxed);
    peer->sq_tail++;
    /* release; pairs with the acquire in shr_server_take: entry, slot and
     * payload are visible before the tail */
    atomic_store_explicit(&c->sq_tail[worker].value, peer->sq_tail,
                          memory_order_release);

    peer_ring(peer);

    return 0;
}


int
shr_client_poll(shr_client_t *c, uint32_t worker, uint32_t *slot)
{
    peer_t    *peer;
    uint32_t   tail, n, low;
    uint64_t   entry;

    assert(worker < c->geom.nworkers);
    peer = &c->peers[worker];

    /* acquire; pairs with the release in shr_server_publish */
    tail = atomic_load_explicit(&peer->cq_tail->value, memory_order_acquire);
    n = tail - peer->cq_head;
    peer->broken = n > c->geom.nslots;

    if (peer->broken) {
        peer->broken_tail = tail;
        return -SHR_EBROKEN;
    }

    for (/* void */; n != 0; n--) {
        entry = atomic_load_explicit(
            &peer->cq[peer->cq_head & (c->geom.nslots - 1)],
            memory_order_relaxed);
        peer->cq_head++;
        atomic_store_explicit(&c->cq_head[worker].value, peer->cq_head,
                              memory_order_release);
        /* seq_cst; pairs with the fence in shr_server_publish: either the
         * worker sees the entry taken and queues another one, or we see what
         * it has produced */
        atomic_thread_fence(memory_order_seq_cst);

        low = shr_word_low(entry);
        if (low >= c->geom.nslots) {
            return -SHR_EBROKEN;
        }

        /* Whatever the entry's generation: the worker queues no second entry
         * for a slot while one waits, so an entry of an earlier request may
         * stand for news of the present one. */
        if (c->slots[low].use == SLOT_SUBMITTED
            && c->slots[low].worker == worker)
        {
            /* read soon; another core wrote it */
            __builtin_prefetch(&peer->resp[low]);
            __builtin_prefetch(peer->bytes
                               + (size_t) low * shr_ring_stride(&c->geom)
                               + (c->slots[low].consumed
                                  & (c->geom.resp_bytes - 1)));
            *slot = low;
            return 0;
        }
    }

    return -SHR_EAGAIN;
}


static void
copy_out(uint8_t *to, const uint8_t *ring, uint32_t size, uint32_t at,
    size_t len)
{
    size_t  first;

    at &= size - 1;
    first = size - at < len ? size - at : len;
    memcpy(to, ring + at, first);
    memcpy(to + first, ring, len - first);
}


/* Nothing is left to read: did the response end?  A worker that is paused on
 * its full ring is told that there is room again. */
static int
read_empty(peer_t *peer, const slot_t *s, uint32_t slot, uint64_t done)
{
    uint64_t  want;

    if (shr_word_gen(done) == s->gen && shr_word_low(done) != 0) {
        return -SHR_EDONE;
    }

    /* seq_cst; pairs with the fence in shr_server_want_room */
    atomic_thread_fence(memory_order_seq_cst);
    want = atomic_load_explicit(&peer->resp[slot].want_room,
                                memory_order_relaxed);

    if (want == shr_word(s->gen, 1)) {
        peer_ring(peer);
    }

    return -SHR_EAGAIN;
}


int
shr_client_read(shr_client_t *c, uint32_t slot, shr_frame_t *frame,
    void *payload)
{
    size_t     padded;
    slot_t    *s;
    peer_t    *peer;
    uint8_t   *ring;
    uint32_t   left;
    uint64_t   done, produced;

    s = &c->slots[slot];
    assert(slot < c->geom.nslots && s->use == SLOT_SUBMITTED);
    peer = &c->peers[s->worker];

    /* acquire; pairs with the release in shr_server_done.  Before produced:
     * who sees the end sees all bytes before it */
    done = atomic_load_explicit(&peer->resp[slot].done, memory_order_acquire);
    /* acquire; pairs with the release in shr_server_publish */
    produced = atomic_load_explicit(&peer->resp[slot].produced,
                                    memory_order_acquire);

    left = shr_word_gen(produced) == s->gen
           ? shr_word_low(produced) - s->consumed : 0;

    if (left == 0) {
        return read_empty(peer, s, slot, done);
    }

    if (left > c->geom.resp_bytes || left < sizeof(*frame)) {
        return -SHR_EBROKEN;
    }

    ring = peer->bytes + (size_t) slot * shr_ring_stride(&c->geom);
    copy_out((uint8_t *) frame, ring, c->geom.resp_bytes, s->consumed,
             sizeof(*frame));

    if (frame->len > SHR_PAYLOAD_MAX) {
        return -SHR_EBROKEN;
    }

    padded = ((size_t) frame->len + 7) & ~(size_t) 7;
    if (padded > left - sizeof(*frame)) {
        return -SHR_EBROKEN;
    }

    copy_out(payload, ring, c->geom.resp_bytes,
             s->consumed + (uint32_t) sizeof(*frame), frame->len);

    if (shr_frame_check(frame, payload) != 0) {
        return -SHR_EBROKEN;
    }

    s->consumed += (uint32_t) (sizeof(*frame) + padded);
    /* release; pairs with the acquire in shr_server_room: the bytes are read
     * before they may be overwritten */
    atomic_store_explicit(&c->shared[slot].consumed,
                          shr_word(s->gen, s->consumed),
                          memory_order_release);

    return 0;
}


shr_req_state_t
shr_client_state(shr_client_t *c, uint32_t slot)
{
    slot_t    *s;
    peer_t    *peer;
    uint64_t   taken, done;

    s = &c->slots[slot];
    assert(slot < c->geom.nslots && s->use == SLOT_SUBMITTED);
    peer = &c->peers[s->worker];

    /* acquire; pair with the releases in shr_server_done and resp_begin */
    done = atomic_load_explicit(&peer->resp[slot].done, memory_order_acquire);
    taken = atomic_load_explicit(&peer->resp[slot].taken,
                                 memory_order_acquire);

    if (shr_word_gen(taken) != s->gen) {
        return SHR_REQ_QUEUED;
    }

    if (done == shr_word(s->gen, 1)) {
        return SHR_REQ_DONE;
    }

    /* acquire; pairs with the release in shr_worker_reset */
    return shr_word_low(taken)
           == atomic_load_explicit(&peer->line->incarnation,
                                   memory_order_acquire)
           ? SHR_REQ_RUNNING : SHR_REQ_LOST;
}


void
shr_client_cancel(shr_client_t *c, uint32_t slot)
{
    slot_t  *s;

    s = &c->slots[slot];
    assert(slot < c->geom.nslots && s->use == SLOT_SUBMITTED);

    /* release; pairs with the acquire in shr_server_wanted */
    atomic_store_explicit(&c->shared[slot].word,
                          shr_word(s->gen, SHR_SLOT_CANCEL),
                          memory_order_release);
    peer_ring(&c->peers[s->worker]);
}


/* Clears and frees the payload's chunks.  The slot has moved on before: a
 * worker that copies just now will see that and drop its copy. */
static void
chunks_free(shr_client_t *c, slot_t *s)
{
    size_t    part;
    uint32_t  chunk, left;

    chunk = s->first_chunk;

    for (left = s->len; left != 0; left -= (uint32_t) part) {
        part = left < SHR_CHUNK_BYTES ? left : SHR_CHUNK_BYTES;
        memset(c->chunks + (size_t) chunk * SHR_CHUNK_BYTES, 0, part);
        c->chunk_stack[c->nchunks_free++] = chunk;
        chunk = c->chunk_link[chunk];
    }
}


void
shr_client_release(shr_client_t *c, uint32_t slot)
{
    int      running;
    slot_t  *s;

    s = &c->slots[slot];
    assert(slot < c->geom.nslots && s->use != SLOT_FREE);

    running = s->use == SLOT_SUBMITTED
              && shr_client_state(c, slot) != SHR_REQ_DONE;

    s->gen = next_gen(s->gen);
    /* release; pairs with the acquire in shr_server_wanted */
    atomic_store_explicit(&c->shared[slot].word, shr_word(s->gen, 0),
                          memory_order_release);
    /* release; pairs with the acquire fence in shr_server_take: no byte of a
     * payload changes before the slot's word has */
    atomic_thread_fence(memory_order_release);
    chunks_free(c, s);

    if (running) {
        peer_ring(&c->peers[s->worker]);
    }

    s->use = SLOT_FREE;
    s->next_free = c->first_free;
    c->first_free = slot;
    c->inflight--;
}


int
shr_client_arm(shr_client_t *c)
{
    uint32_t  i, tail;
    peer_t   *peer;

    atomic_fetch_add_explicit(&c->line->armed, 1, memory_order_relaxed);
    /* seq_cst; pairs with the fence in shr_server_ring: either the worker
     * sees us armed, or we see its entry */
    atomic_thread_fence(memory_order_seq_cst);

    for (i = 0; i < c->geom.nworkers; i++) {
        peer = &c->peers[i];
        tail = atomic_load_explicit(&peer->cq_tail->value,
                                    memory_order_relaxed);

        /* what was found broken is no news until it changes: else a ring that
         * stays broken would keep us awake */
        if (tail != peer->cq_head
            && !(peer->broken && tail == peer->broken_tail))
        {
            return 1;
        }
    }

    return 0;
}


void
shr_client_info(shr_client_t *c, uint32_t worker, shr_worker_info_t *info)
{
    uint32_t  i;
    peer_t   *peer;

    assert(worker < c->geom.nworkers);
    peer = &c->peers[worker];

    /* acquire; pairs with the release in shr_worker_reset */
    info->incarnation = atomic_load_explicit(&peer->line->incarnation,
                                             memory_order_acquire);
    info->state = atomic_load_explicit(&peer->line->state,
                                       memory_order_relaxed);
    info->pid = atomic_load_explicit(&peer->line->pid, memory_order_relaxed);
    info->beat_ns = atomic_load_explicit(&peer->line->beat_ns,
                                         memory_order_relaxed);

    if (info->state > SHR_WORKER_DRAINING) {
        info->state = SHR_WORKER_NONE;
    }

    for (i = 0; i < SHR_NCOUNTERS; i++) {
        info->counters[i] = atomic_load_explicit(&peer->counters->value[i],
                                                 memory_order_relaxed);
    }
}


void
shr_client_load(shr_client_t *c, uint32_t worker, shr_worker_load_t *load)
{
    peer_t  *peer;

    assert(worker < c->geom.nworkers);
    peer = &c->peers[worker];

    /* acquire; pairs with the release in shr_worker_reset */
    load->incarnation = atomic_load_explicit(&peer->line->incarnation,
                                             memory_order_acquire);
    load->state = atomic_load_explicit(&peer->line->state,
                                       memory_order_relaxed);

    if (load->state > SHR_WORKER_DRAINING) {
        load->state = SHR_WORKER_NONE;
    }

    load->waiting = atomic_load_explicit(
        &peer->counters->value[SHR_G_WAITING], memory_order_relaxed);
    load->waiting_tokens = atomic_load_explicit(
        &peer->counters->value[SHR_G_WAITING_TOKENS], memory_order_relaxed);
    load->running = atomic_load_explicit(
        &peer->counters->value[SHR_G_RUNNING], memory_order_relaxed);
    load->beat_ns = atomic_load_explicit(&peer->line->beat_ns,
                                         memory_order_relaxed);
}


uint32_t
shr_client_backlog(shr_client_t *c, uint32_t worker)
{
    uint32_t  n;
    peer_t   *peer;

    assert(worker < c->geom.nworkers);
    peer = &c->peers[worker];
    n = peer->sq_tail - atomic_load_explicit(&peer->sq_head->value,
                                             memory_order_relaxed);

    return n < c->geom.nslots ? n : c->geom.nslots;
}


uint32_t
shr_client_inflight(const shr_client_t *c)
{
    return c->inflight;
}
