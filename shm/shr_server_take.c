/*
 * The worker's end: taking requests.  Client regions are mapped read-only;
 * every word of them is loaded once and checked.  A payload is copied once and
 * dropped when its slot moved on meanwhile (the pattern of a sequence lock).
 */

#include <string.h>

#include "shm/shr_error.h"
#include "shm/shr_server_int.h"


#define AHEAD_BYTES     1024u           /* of a payload, asked for early */


/* Copies a payload; the words may change while we read them, so they are
 * loaded as relaxed atomics.  0, -SHR_ETOOBIG or -SHR_EBROKEN. */
static int
copy_payload(shr_server_t *s, shr_peer_t *peer, uint32_t slot, uint8_t *buf,
    size_t cap, size_t *len)
{
    size_t             i, part;
    uint32_t           chunk, left;
    uint64_t           word;
    _Atomic uint64_t  *from;

    left = atomic_load_explicit(&peer->slots[slot].len, memory_order_relaxed);
    chunk = atomic_load_explicit(&peer->slots[slot].first_chunk,
                                 memory_order_relaxed);
    *len = left;

    if (left > SHR_REQ_BYTES_MAX || left > cap) {
        return -SHR_ETOOBIG;
    }

    while (left != 0) {
        if (chunk >= s->geom.nchunks) {
            return -SHR_EBROKEN;
        }

        from = (_Atomic uint64_t *) (peer->chunks
                                     + (size_t) chunk * SHR_CHUNK_BYTES);
        part = left < SHR_CHUNK_BYTES ? left : SHR_CHUNK_BYTES;

        for (i = 0; i < part; i += sizeof(word)) {
            word = atomic_load_explicit(from++, memory_order_relaxed);
            memcpy(buf + i, &word, part - i < 8 ? part - i : 8);
        }

        buf += part;
        left -= (uint32_t) part;
        chunk = atomic_load_explicit(&peer->chunk_next[chunk],
                                     memory_order_relaxed);
    }

    return 0;
}


/* The slot's response words now belong to gen; whoever wrote there before is
 * refused by its generation from here on. */
static void
resp_begin(shr_server_t *s, uint32_t client, uint32_t slot, uint32_t gen)
{
    shr_hold_t  *hold;
    shr_resp_t  *resp;

    hold = &s->peers[client].holds[slot];
    resp = resp_of(s, client, slot);

    ring_clear(s, client, slot);
    hold->gen = gen;
    hold->ended = 0;

    atomic_store_explicit(&resp->produced, shr_word(gen, 0),
                          memory_order_relaxed);
    atomic_store_explicit(&resp->done, shr_word(gen, 0),
                          memory_order_relaxed);
    atomic_store_explicit(&resp->want_room, shr_word(gen, 0),
                          memory_order_relaxed);
    /* release; pairs with the acquire in shr_client_state */
    atomic_store_explicit(&resp->taken, shr_word(gen, s->incarnation),
                          memory_order_release);
}


/* The entry is handled.  release; pairs with the acquire in
 * shr_client_submit.  `taken` was stored before, so a request is never seen
 * as neither queued nor taken. */
static void
sq_advance(shr_server_t *s, uint32_t client)
{
    atomic_store_explicit(&s->sq_head[client].value,
                          ++s->peers[client].sq_head, memory_order_release);
}


static int
take_entry(shr_server_t *s, uint32_t client, uint64_t entry, shr_taken_t *req,
    uint8_t *buf, size_t cap, size_t *len)
{
    int          rc;
    shr_peer_t  *peer;
    uint32_t     slot, gen;

    peer = &s->peers[client];
    slot = shr_word_low(entry);
    gen = shr_word_gen(entry);

    if (slot >= s->geom.nslots) {
        return -SHR_EBROKEN;
    }

    /* acquire; pairs with the release in shr_client_submit */
    if (atomic_load_explicit(&peer->slots[slot].word, memory_order_acquire)
        != shr_word(gen, 0))
    {
        return -SHR_ESTALE;
    }

    if (peer->holds[slot].gen == gen) {
        return -SHR_ESTALE;             /* read anew after peer_repair() */
    }

    resp_begin(s, client, slot, gen);
    rc = copy_payload(s, peer, slot, buf, cap, len);

    /* acquire; pairs with the release fence in shr_client_release: bytes of a
     * later owner are seen only together with its word */
    atomic_thread_fence(memory_order_acquire);

    if (shr_word_gen(atomic_load_explicit(&peer->slots[slot].word,
                                          memory_order_relaxed)) != gen)
    {
        return -SHR_ESTALE;
    }

    req->client = client;
    req->slot = slot;
    req->gen = gen;
    req->produced = 0;
    req->published = 0;

    if (rc == -SHR_EBROKEN) {
        shr_server_done(s, req);    /* the client sees an end without END */
    }

    return rc;
}


/*
 * Another core wrote the requests that wait, and read the answers that stood
 * in their rings: what the next will touch is asked for while this one is
 * handled.  Its slot's words must be here for that, so those of the one after
 * it are asked for too.  Hints only: whatever the words say, nothing is read.
 */
static void
look_ahead(shr_server_t *s, uint32_t client, uint32_t waiting)
{
    shr_peer_t  *peer;
    uint32_t     mask, slot, chunk, len, i;
    uint8_t     *at;

    peer = &s->peers[client];
    mask = s->geom.nslots - 1;

    if (waiting > 1) {
        slot = mask & shr_word_low(atomic_load_explicit(
            &peer->sq[(peer->sq_head + 1) & mask], memory_order_relaxed));
        __builtin_prefetch(&peer->slots[slot]);
    }
    if (waiting == 0) {
        return;
    }

    slot = mask & shr_word_low(atomic_load_explicit(
        &peer->sq[peer->sq_head & mask], memory_order_relaxed));
    chunk = atomic_load_explicit(&peer->slots[slot].first_chunk,
                                 memory_order_relaxed);
    len = atomic_load_explicit(&peer->slots[slot].len, memory_order_relaxed);
    __builtin_prefetch(resp_of(s, client, slot), 1);

    at = ring_of(s, client, slot);
    for (i = 0; i < peer->holds[slot].dirty && i < AHEAD_BYTES; i += SHR_LINE)
    {
        __builtin_prefetch(at + i, 1);
    }

    at = peer->chunks + (size_t) (chunk % s->geom.nchunks) * SHR_CHUNK_BYTES;
    for (i = 0; i < len && i < AHEAD_BYTES; i += SHR_LINE) {
        __builtin_prefetch(at + i);
    }
}


int
shr_server_take(shr_server_t *s, shr_taken_t *req, void *buf, size_t cap,
    size_t *len)
{
    int          rc;
    shr_peer_t  *peer;
    uint32_t     i, n, client;
    uint64_t     entry;

    for (i = 0; i < s->geom.nclients; i++) {
        client = s->next_client;
        s->next_client = (client + 1) % s->geom.nclients;
        peer = &s->peers[client];

        /* acquire; pairs with the release in shr_client_submit */
        n = atomic_load_explicit(&peer->sq_tail->value, memory_order_acquire)
            - peer->sq_head;

        if (n > s->geom.nslots) {
            peer->sq_head += n - 1;     /* what cannot be is skipped whole */
            sq_advance(s, client);
            return -SHR_EBROKEN;
        }

        for (/* void */; n != 0; n--) {
            entry = atomic_load_explicit(
                &peer->sq[peer->sq_head & (s->geom.nslots - 1)],
                memory_order_relaxed);
            rc = take_entry(s, client, entry, req, buf, cap, len);
            sq_advance(s, client);

            if (rc != -SHR_ESTALE) {
                look_ahead(s, client, n - 1);
                return rc;
            }
        }
    }

    return -SHR_EAGAIN;
}
