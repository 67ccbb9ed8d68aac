/*
 * The worker's end: opening, answering, bells and sleep.  Client regions are
 * mapped read-only; every word of them is loaded once and checked.
 */

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/shr_error.h"
#include "shm/shr_server_int.h"


#define CQ_FIRST        (1ull << 32)    /* no entry has a smaller index */


static void
peer_init(shr_peer_t *peer, shr_server_t *s, uint32_t index, uint32_t client,
    void *region, int bell)
{
    uint8_t              *base;
    shr_client_layout_t   at;

    shr_client_layout(&s->geom, &at);
    base = region;

    peer->line = (shr_client_line_t *) (base + at.line);
    peer->slots = (shr_slot_t *) (base + at.slots);
    peer->cq_head = (shr_index_t *) (base + at.cq_head) + index;
    peer->sq_tail = (shr_index_t *) (base + at.sq_tail) + index;
    peer->sq = (_Atomic uint64_t *) (base + at.sq)
               + (size_t) index * s->geom.nslots;
    peer->chunk_next = (_Atomic uint32_t *) (base + at.chunk_next);
    peer->chunks = base + at.chunks;
    peer->holds = s->holds + (size_t) client * s->geom.nslots;
    peer->bell = bell;
    peer->sq_head = atomic_load_explicit(&s->sq_head[client].value,
                                         memory_order_relaxed);
    peer->cq_tail = CQ_FIRST + atomic_load_explicit(&s->cq_tail[client].value,
                                                    memory_order_relaxed);
}


/* Indices that cannot be are what a predecessor left that was taken over.
 * Submissions are then read anew from the ring's oldest entry: those of the
 * past are recognised by themselves. */
static void
peer_repair(shr_server_t *s, uint32_t client, uint32_t cq_head)
{
    shr_peer_t  *peer;
    uint32_t     tail;

    peer = &s->peers[client];
    tail = atomic_load_explicit(&peer->sq_tail->value, memory_order_acquire);

    if (tail - peer->sq_head > s->geom.nslots) {
        peer->sq_head = tail - s->geom.nslots;
        atomic_store_explicit(&s->sq_head[client].value, peer->sq_head,
                              memory_order_release);
    }

    if ((uint32_t) peer->cq_tail - cq_head > s->geom.nslots) {
        peer->cq_tail = CQ_FIRST + cq_head;
        atomic_store_explicit(&s->cq_tail[client].value, cq_head,
                              memory_order_release);
    }
}


/* A predecessor's completion entries that the client has not taken yet still
 * stand in the ring: they count as queued, so it can never overflow. */
static void
peer_adopt(shr_server_t *s, uint32_t client)
{
    shr_peer_t        *peer;
    uint32_t           head, slot;
    uint64_t           entry, i;
    _Atomic uint64_t  *word;

    peer = &s->peers[client];
    head = atomic_load_explicit(&peer->cq_head->value, memory_order_acquire);
    peer_repair(s, client, head);

    peer->cq_seen = peer->cq_tail - ((uint32_t) peer->cq_tail - head);

    for (i = peer->cq_seen; i != peer->cq_tail; i++) {
        word = &s->cq[(size_t) client * s->geom.nslots
                      + (i & (s->geom.nslots - 1))];
        entry = atomic_load_explicit(word, memory_order_relaxed);
        slot = shr_word_low(entry) & (s->geom.nslots - 1);
        atomic_store_explicit(word, shr_word(shr_word_gen(entry), slot),
                              memory_order_relaxed);
        peer->holds[slot].cq_index = i;
    }
}


/* What a killed predecessor wrote into the response rings is cleared by the
 * sweep, once the client has moved on. */
static void
holds_adopt(shr_server_t *s)
{
    size_t       i, n;
    shr_hold_t  *hold;
    uint64_t     taken, done, produced;

    n = (size_t) s->geom.nclients * s->geom.nslots;

    for (i = 0; i < n; i++) {
        hold = &s->holds[i];
        taken = atomic_load_explicit(&s->resp[i].taken, memory_order_relaxed);

        if (shr_word_gen(taken) == 0) {
            continue;
        }

        done = atomic_load_explicit(&s->resp[i].done, memory_order_relaxed);
        produced = atomic_load_explicit(&s->resp[i].produced,
                                        memory_order_relaxed);
        hold->gen = shr_word_gen(taken);
        hold->ended = 1;
        /* killed before its end it may have written what it did not tell */
        hold->dirty = done == shr_word(hold->gen, 1)
                      && shr_word_low(produced) < s->geom.resp_bytes
                      ? shr_word_low(produced) : s->geom.resp_bytes;
    }
}


shr_server_t *
shr_server_open(const shr_geom_t *geom, uint32_t index, void *region,
    void *const *clients, const int *bells)
{
    uint32_t              i;
    uint8_t              *base;
    shr_server_t         *s;
    shr_worker_layout_t   at;

    assert(shr_geom_check(geom) == 0 && index < geom->nworkers);

    s = calloc(1, sizeof(shr_server_t) + geom->nclients * sizeof(shr_peer_t));
    if (s == NULL) {
        return NULL;
    }

    s->holds = calloc((size_t) geom->nclients * geom->nslots,
                      sizeof(shr_hold_t));
    if (s->holds == NULL) {
        free(s);
        return NULL;
    }

    shr_worker_layout(geom, &at);
    base = region;

    s->geom = *geom;
    s->line = (shr_worker_line_t *) (base + at.line);
    s->sleep = (shr_sleep_line_t *) (base + at.sleep);
    s->counters = (shr_counters_t *) (base + at.counters);
    s->sq_head = (shr_index_t *) (base + at.sq_head);
    s->cq_tail = (shr_index_t *) (base + at.cq_tail);
    s->cq = (_Atomic uint64_t *) (base + at.cq);
    s->resp = (shr_resp_t *) (base + at.resp);
    s->bytes = base + at.bytes;
    s->incarnation = atomic_load_explicit(&s->line->incarnation,
                                          memory_order_relaxed);

    holds_adopt(s);

    for (i = 0; i < geom->nclients; i++) {
        peer_init(&s->peers[i], s, index, i, clients[i], bells[i]);
        peer_adopt(s, i);
    }

    return s;
}


void
shr_server_close(shr_server_t *s)
{
    free(s->holds);
    free(s);
}


static void
bell_ring(int fd)
{
    ssize_t   n;
    uint64_t  one = 1;

    n = write(fd, &one, sizeof(one));
    (void) n;       /* EAGAIN: the counter is far from empty, it is awake */
}


uint32_t
shr_worker_reset(const shr_geom_t *geom, void *region, const int *bells)
{
    uint32_t              i, incarnation;
    shr_worker_line_t    *line;
    shr_worker_layout_t   at;

    shr_worker_layout(geom, &at);
    line = (shr_worker_line_t *) ((uint8_t *) region + at.line);

    atomic_store_explicit(&line->state, SHR_WORKER_NONE,
                          memory_order_relaxed);
    atomic_store_explicit(&line->pid, 0, memory_order_relaxed);
    /* release; pairs with the acquire in shr_client_state */
    incarnation = atomic_fetch_add_explicit(&line->incarnation, 1,
                                            memory_order_release) + 1;
    atomic_thread_fence(memory_order_seq_cst);

    for (i = 0; i < geom->nclients; i++) {
        bell_ring(bells[i]);
    }

    return incarnation;
}


void
shr_server_set_state(shr_server_t *s, shr_worker_state_t state, int32_t pid)
{
    uint32_t  i;

    atomic_store_explicit(&s->line->pid, pid, memory_order_relaxed);
    /* release; pairs with the acquire of the incarnation in
     * shr_client_info: a state is of the incarnation it is read with */
    atomic_store_explicit(&s->line->state, state, memory_order_release);

    /* who waits for a ready worker should look */
    for (i = 0; i < s->geom.nclients; i++) {
        bell_ring(s->peers[i].bell);
    }
}


void
shr_server_beat(shr_server_t *s, uint64_t now_ns)
{
    atomic_store_explicit(&s->line->beat_ns, now_ns, memory_order_relaxed);
}


void
shr_server_set(shr_server_t *s, shr_counter_t counter, uint64_t value)
{
    assert(counter < SHR_NCOUNTERS);
    atomic_store_explicit(&s->counters->value[counter], value,
                          memory_order_relaxed);
}


int
shr_server_wanted(shr_server_t *s, const shr_taken_t *req)
{
    shr_peer_t  *peer;

    peer = &s->peers[req->client];

    /* acquire; pairs with the releases in shr_client_cancel and release.  A
     * new process in the client's place has moved all slots on. */
    return peer->holds[req->slot].gen == req->gen
           && atomic_load_explicit(&peer->slots[req->slot].word,
                                   memory_order_acquire)
              == shr_word(req->gen, 0);
}


int32_t
shr_server_client_pid(shr_server_t *s, uint32_t client, uint32_t *epoch)
{
    assert(client < s->geom.nclients);

    /* acquire; pairs with the release in shr_client_open */
    *epoch = atomic_load_explicit(&s->peers[client].line->epoch,
                                  memory_order_acquire);

    return atomic_load_explicit(&s->peers[client].line->pid,
                                memory_order_relaxed);
}


uint32_t
shr_server_room(shr_server_t *s, const shr_taken_t *req)
{
    uint32_t  used;
    uint64_t  consumed;

    /* acquire; pairs with the release in shr_client_read */
    consumed = atomic_load_explicit(
        &s->peers[req->client].slots[req->slot].consumed,
        memory_order_acquire);

    if (shr_word_gen(consumed) != req->gen) {
        return 0;
    }

    used = req->produced - shr_word_low(consumed);

    return used <= s->geom.resp_bytes ? s->geom.resp_bytes - used : 0;
}


static void
copy_in(uint8_t *ring, uint32_t size, uint32_t at, const void *from,
    size_t len)
{
    size_t  first;

    if (len == 0) {
        return;
    }

    at &= size - 1;
    first = size - at < len ? size - at : len;
    memcpy(ring + at, from, first);
    memcpy(ring, (const uint8_t *) from + first, len - first);
}


int
shr_server_put(shr_server_t *s, shr_taken_t *req, uint32_t type,
    uint32_t choice, const void *a, size_t alen, const void *b, size_t blen)
{
    size_t       need;
    shr_hold_t  *hold;
    uint8_t     *ring;
    uint32_t     size;
    shr_frame_t  frame;

    hold = &s->peers[req->client].holds[req->slot];
    if (hold->gen != req->gen) {
        return -SHR_ESTALE;
    }

    if (alen > SHR_PAYLOAD_MAX || blen > SHR_PAYLOAD_MAX - alen) {
        return -SHR_ETOOBIG;
    }

    need = sizeof(frame) + ((alen + blen + 7) & ~(size_t) 7);
    if (need > shr_server_room(s, req)) {
        return -SHR_EFULL;
    }

    frame.type = (uint16_t) type;
    frame.choice = (uint16_t) choice;
    frame.len = (uint32_t) (alen + blen);

    ring = ring_of(s, req->client, req->slot);
    size = s->geom.resp_bytes;
    copy_in(ring, size, req->produced, &frame, sizeof(frame));
    copy_in(ring, size, req->produced + (uint32_t) sizeof(frame), a, alen);
    copy_in(ring, size, req->produced + (uint32_t) (sizeof(frame) + alen), b,
            blen);

    req->produced += (uint32_t) need;

    if (hold->dirty < size) {
        hold->dirty = req->produced < size ? req->produced : size;
    }

    return 0;
}


/* How far the client has read, as far as it can be believed. */
static void
cq_look(shr_server_t *s, shr_peer_t *peer)
{
    uint32_t  waiting;

    waiting = (uint32_t) peer->cq_tail
              - atomic_load_explicit(&peer->cq_head->value,
                                     memory_order_acquire);

    if (waiting <= s->geom.nslots) {
        peer->cq_seen = peer->cq_tail - waiting;
    }
}


/* Queues a completion entry unless the slot's last one still waits. */
static void
cq_push(shr_server_t *s, const shr_taken_t *req)
{
    shr_hold_t  *hold;
    shr_peer_t  *peer;

    peer = &s->peers[req->client];
    hold = &peer->holds[req->slot];

    if (hold->cq_index >= peer->cq_seen
        || peer->cq_tail - peer->cq_seen >= s->geom.nslots)
    {
        /* seq_cst; pairs with the fence in shr_client_poll: either we see the
         * last entry taken, or the client sees what was just produced */
        atomic_thread_fence(memory_order_seq_cst);
        cq_look(s, peer);

        if (hold->cq_index >= peer->cq_seen) {
            return;
        }
        if (peer->cq_tail - peer->cq_seen >= s->geom.nslots) {
            return;     /* only a lying client gets here; it harms itself */
        }
    }

    atomic_store_explicit(&s->cq[(size_t) req->client * s->geom.nslots
                                 + (peer->cq_tail & (s->geom.nslots - 1))],
                          shr_word(req->gen, req->slot),
                          memory_order_relaxed);
    hold->cq_index = peer->cq_tail;
    /* release; pairs with the acquire in shr_client_poll */
    atomic_store_explicit(&s->cq_tail[req->client].value,
                          (uint32_t) ++peer->cq_tail, memory_order_release);
    peer->news = 1;
}


static int
produced_store(shr_server_t *s, shr_taken_t *req)
{
    if (s->peers[req->client].holds[req->slot].gen != req->gen) {
        return 0;
    }

    /* release; pairs with the acquire in shr_client_read */
    atomic_store_explicit(&resp_of(s, req->client, req->slot)->produced,
                          shr_word(req->gen, req->produced),
                          memory_order_release);
    req->published = req->produced;

    return 1;
}


void
shr_server_publish(shr_server_t *s, shr_taken_t *req)
{
    if (req->published != req->produced && produced_store(s, req)) {
        cq_push(s, req);
    }
}


void
shr_server_done(shr_server_t *s, shr_taken_t *req)
{
    if (!produced_store(s, req)) {
        return;
    }

    /* release; pairs with the acquire in shr_client_read */
    atomic_store_explicit(&resp_of(s, req->client, req->slot)->done,
                          shr_word(req->gen, 1), memory_order_release);
    s->peers[req->client].holds[req->slot].ended = 1;
    cq_push(s, req);
}


void
shr_server_want_room(shr_server_t *s, const shr_taken_t *req, int want)
{
    if (s->peers[req->client].holds[req->slot].gen != req->gen) {
        return;
    }

    atomic_store_explicit(&resp_of(s, req->client, req->slot)->want_room,
                          shr_word(req->gen, want != 0),
                          memory_order_relaxed);
    /* seq_cst; pairs with the fence in read_empty of shr_client.c: either the
     * client sees the wish, or our next look at the room sees it read */
    atomic_thread_fence(memory_order_seq_cst);
}


void
shr_server_ring(shr_server_t *s)
{
    shr_peer_t  *peer;
    uint32_t     i, armed;

    for (i = 0; i < s->geom.nclients; i++) {
        peer = &s->peers[i];

        if (!peer->news) {
            continue;
        }

        peer->news = 0;
        /* seq_cst; pairs with the fence in shr_client_arm */
        atomic_thread_fence(memory_order_seq_cst);
        armed = atomic_load_explicit(&peer->line->armed,
                                     memory_order_relaxed);

        if (armed != peer->rung) {
            peer->rung = armed;
            bell_ring(peer->bell);
        }
    }
}


int
shr_server_sleep(shr_server_t *s)
{
    uint32_t  i, sleeping;

    sleeping = atomic_load_explicit(&s->sleep->sleeping,
                                    memory_order_relaxed);
    atomic_store_explicit(&s->sleep->sleeping, sleeping | 1,
                          memory_order_relaxed);
    /* seq_cst; pairs with the fence in peer_ring of shr_client.c */
    atomic_thread_fence(memory_order_seq_cst);

    for (i = 0; i < s->geom.nclients; i++) {
        if (atomic_load_explicit(&s->peers[i].sq_tail->value,
                                 memory_order_relaxed)
            != s->peers[i].sq_head)
        {
            shr_server_awake(s);
            return 1;
        }
    }

    return 0;
}


void
shr_server_awake(shr_server_t *s)
{
    if (atomic_load_explicit(&s->sleep->sleeping, memory_order_relaxed) & 1) {
        atomic_fetch_add_explicit(&s->sleep->sleeping, 1,
                                  memory_order_relaxed);
    }
}


void
shr_server_sweep(shr_server_t *s)
{
    shr_hold_t  *hold;
    shr_peer_t  *peer;
    uint32_t     slot, client;
    uint64_t     word;

    /* one client a call: the work of a turn stays bounded */
    client = s->sweep_client;
    s->sweep_client = (client + 1) % s->geom.nclients;
    peer = &s->peers[client];

    for (slot = 0; slot < s->geom.nslots; slot++) {
        hold = &peer->holds[slot];

        if (hold->dirty == 0 || !hold->ended) {
            continue;
        }

        /* acquire; pairs with the release in shr_client_release */
        word = atomic_load_explicit(&peer->slots[slot].word,
                                    memory_order_acquire);
        if (shr_word_gen(word) != hold->gen) {
            ring_clear(s, client, slot);
        }
    }
}
