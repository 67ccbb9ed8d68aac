/* The two ends of a pool against each other: the whole way of a request,
 * every limit and one past it, death of either side, hostile words. */

#include "shm_pool.h"
#include "shm/shr_server_int.h"

#include <cmocka.h>


#define CAP  (1u << 18)

static uint8_t  buf[CAP];
static uint8_t  payload[SHR_PAYLOAD_MAX];


/* Claims, writes, submits; returns the slot. */
static uint32_t
send_request(shr_client_t *c, const void *data, size_t len, uint32_t worker)
{
    uint32_t  slot;

    assert_int_equal(shr_client_claim(c, &slot), 0);
    assert_int_equal(shr_client_write(c, slot, data, len), 0);
    assert_int_equal(shr_client_submit(c, slot, worker), 0);

    return slot;
}


static void
test_whole_way(void **state)
{
    int          turn;
    size_t       len;
    pool_t       p;
    uint32_t     slot, got;
    shr_frame_t  frame;
    shr_taken_t  req;

    (void) state;
    pool_open(&p, 1, 1);

    for (turn = 0; turn < 40; turn++) {     /* the indices wrap on the way */
        slot = send_request(p.client[0], "question", 8, 0);
        assert_int_equal(shr_client_state(p.client[0], slot), SHR_REQ_QUEUED);
        assert_int_equal(shr_client_backlog(p.client[0], 0), 1);

        assert_int_equal(shr_server_take(p.server[0], &req, buf, CAP, &len),
                         0);
        assert_int_equal(len, 8);
        assert_memory_equal(buf, "question", 8);
        assert_int_equal(shr_client_state(p.client[0], slot),
                         SHR_REQ_RUNNING);
        assert_int_equal(shr_client_backlog(p.client[0], 0), 0);
        assert_int_equal(shr_client_poll(p.client[0], 0, &got), -SHR_EAGAIN);

        assert_int_equal(shr_server_put(p.server[0], &req, SHR_F_TEXT, 3,
                                        "ans", 3, "wer", 3), 0);
        assert_int_equal(shr_client_read(p.client[0], slot, &frame, payload),
                         -SHR_EAGAIN);      /* not yet published */
        shr_server_publish(p.server[0], &req);
        assert_int_equal(shr_server_put(p.server[0], &req, SHR_F_END, 0,
                                        NULL, 0, NULL, 0), 0);
        shr_server_done(p.server[0], &req);

        assert_int_equal(shr_client_poll(p.client[0], 0, &got), 0);
        assert_int_equal(got, slot);
        assert_int_equal(shr_client_poll(p.client[0], 0, &got), -SHR_EAGAIN);
        assert_int_equal(shr_client_read(p.client[0], slot, &frame, payload),
                         0);
        assert_int_equal(frame.type, SHR_F_TEXT);
        assert_int_equal(frame.choice, 3);
        assert_int_equal(frame.len, 6);
        assert_memory_equal(payload, "answer", 6);
        assert_int_equal(shr_client_read(p.client[0], slot, &frame, payload),
                         0);
        assert_int_equal(frame.type, SHR_F_END);
        assert_int_equal(shr_client_read(p.client[0], slot, &frame, payload),
                         -SHR_EDONE);
        shr_client_release(p.client[0], slot);
        assert_int_equal(shr_client_inflight(p.client[0]), 0);
    }

    pool_close(&p);
}


static void
test_slots_and_chunks_run_out(void **state)
{
    size_t    i, len;
    pool_t    p;
    uint32_t  slot[17];
    shr_taken_t  req;

    (void) state;
    pool_open(&p, 1, 1);

    for (i = 0; i < 16; i++) {
        assert_int_equal(shr_client_claim(p.client[0], &slot[i]), 0);
    }

    assert_int_equal(shr_client_claim(p.client[0], &slot[16]), -SHR_EFULL);

    /* 32 chunks: at the limit, and one byte past it */
    memset(buf, 'x', CAP);
    assert_int_equal(shr_client_write(p.client[0], slot[0], buf,
                                      32 * SHR_CHUNK_BYTES + 1), -SHR_EFULL);
    assert_int_equal(shr_client_write(p.client[0], slot[0], buf,
                                      32 * SHR_CHUNK_BYTES), 0);
    assert_int_equal(shr_client_write(p.client[0], slot[1], buf, 1),
                     -SHR_EFULL);
    assert_int_equal(shr_client_submit(p.client[0], slot[0], 0), 0);
    memset(buf, 0, CAP);
    assert_int_equal(shr_server_take(p.server[0], &req, buf, CAP, &len), 0);
    assert_int_equal(len, 32 * SHR_CHUNK_BYTES);

    for (i = 0; i < len; i++) {
        assert_int_equal(buf[i], 'x');
    }

    for (i = 0; i < 16; i++) {
        shr_client_release(p.client[0], slot[i]);
    }

    /* I4: no byte of the payload is left in the region */
    for (i = 0; i + 1 < 32 * SHR_CHUNK_BYTES; i++) {
        shr_client_layout_t  at;

        shr_client_layout(&p.geom, &at);
        assert_int_equal(((uint8_t *) p.client_ro[0])[at.chunks + i], 0);
    }

    assert_false(shr_server_wanted(p.server[0], &req));
    pool_close(&p);
}


static void
test_too_big_for_the_taker(void **state)
{
    size_t       len;
    pool_t       p;
    shr_taken_t  req;

    (void) state;
    pool_open(&p, 1, 1);
    memset(buf, 'y', 100);
    (void) send_request(p.client[0], buf, 100, 0);
    assert_int_equal(shr_server_take(p.server[0], &req, buf, 99, &len),
                     -SHR_ETOOBIG);
    assert_int_equal(len, 100);
    assert_true(shr_server_wanted(p.server[0], &req));
    pool_close(&p);
}


static void
test_full_ring_pauses_one(void **state)
{
    int          n, m;
    size_t       len;
    pool_t       p;
    uint32_t     slot;
    shr_frame_t  frame;
    shr_taken_t  req;

    (void) state;
    pool_open(&p, 1, 1);
    slot = send_request(p.client[0], "q", 1, 0);
    assert_int_equal(shr_server_take(p.server[0], &req, buf, CAP, &len), 0);
    memset(buf, 't', sizeof(payload));

    for (n = 0; shr_server_put(p.server[0], &req, SHR_F_TEXT, 0, buf, 1016,
                               NULL, 0) == 0; n++)
    {
        shr_server_publish(p.server[0], &req);
    }

    assert_int_equal(n, 8);                     /* 8 KiB, 1 KiB a frame */
    assert_int_equal(shr_server_room(p.server[0], &req), 0);
    assert_int_equal(shr_server_put(p.server[0], &req, SHR_F_TEXT, 0, buf,
                                    SHR_PAYLOAD_MAX + 1, NULL, 0),
                     -SHR_ETOOBIG);

    shr_server_want_room(p.server[0], &req, 1);
    assert_int_equal(shr_server_sleep(p.server[0]), 0);
    assert_int_equal(bell_count(p.worker_bell[0]), 0);

    for (m = 0; shr_client_read(p.client[0], slot, &frame, payload) == 0;
         m++)
    {
        assert_int_equal(frame.len, 1016);
    }

    assert_int_equal(m, n);
    assert_int_equal(bell_count(p.worker_bell[0]), 1);  /* room again */
    shr_server_awake(p.server[0]);
    assert_int_equal(shr_server_room(p.server[0], &req), 8192);
    pool_close(&p);
}


static void
test_cancel_and_reuse(void **state)
{
    size_t       len;
    pool_t       p;
    uint32_t     slot, again;
    shr_frame_t  frame;
    shr_taken_t  old, new;

    (void) state;
    pool_open(&p, 1, 1);
    slot = send_request(p.client[0], "old", 3, 0);
    assert_int_equal(shr_server_take(p.server[0], &old, buf, CAP, &len), 0);
    assert_true(shr_server_wanted(p.server[0], &old));
    shr_client_cancel(p.client[0], slot);
    assert_false(shr_server_wanted(p.server[0], &old));

    /* the slot is used again at once; the worker has not looked yet */
    shr_client_release(p.client[0], slot);
    again = send_request(p.client[0], "new", 3, 0);
    assert_int_equal(again, slot);
    assert_int_equal(shr_server_put(p.server[0], &old, SHR_F_TEXT, 0, "secret",
                                    6, NULL, 0), -SHR_EFULL);
    assert_int_equal(shr_server_take(p.server[0], &new, buf, CAP, &len), 0);
    assert_memory_equal(buf, "new", 3);

    /* what the old request still says goes nowhere */
    assert_int_equal(shr_server_put(p.server[0], &old, SHR_F_TEXT, 0, "secret",
                                    6, NULL, 0), -SHR_ESTALE);
    shr_server_publish(p.server[0], &old);
    shr_server_done(p.server[0], &old);
    assert_int_equal(shr_client_read(p.client[0], again, &frame, payload),
                     -SHR_EAGAIN);

    assert_int_equal(shr_server_put(p.server[0], &new, SHR_F_TEXT, 0, "fresh",
                                    5, NULL, 0), 0);
    shr_server_done(p.server[0], &new);
    assert_int_equal(shr_client_read(p.client[0], again, &frame, payload), 0);
    assert_memory_equal(payload, "fresh", 5);
    shr_client_release(p.client[0], again);
    pool_close(&p);
}


/* The entry of a request that was given up still waits in the ring when the
 * slot's next request ends: it must stand for that one too. */
static void
test_entry_of_an_earlier_request(void **state)
{
    size_t       len;
    pool_t       p;
    uint32_t     slot, got;
    shr_taken_t  req;

    (void) state;
    pool_open(&p, 1, 1);
    slot = send_request(p.client[0], "old", 3, 0);
    assert_int_equal(shr_server_take(p.server[0], &req, buf, CAP, &len), 0);
    shr_server_done(p.server[0], &req);
    shr_client_release(p.client[0], slot);

    assert_int_equal(send_request(p.client[0], "new", 3, 0), slot);
    assert_int_equal(shr_server_take(p.server[0], &req, buf, CAP, &len), 0);
    shr_server_done(p.server[0], &req);
    assert_int_equal(shr_client_poll(p.client[0], 0, &got), 0);
    assert_int_equal(got, slot);
    assert_int_equal(shr_client_state(p.client[0], slot), SHR_REQ_DONE);
    pool_close(&p);
}


static void
test_cancelled_before_taken(void **state)
{
    size_t       len;
    pool_t       p;
    uint32_t     slot;
    shr_taken_t  req;

    (void) state;
    pool_open(&p, 2, 1);
    slot = send_request(p.client[0], "one", 3, 0);
    (void) send_request(p.client[1], "two", 3, 0);
    shr_client_release(p.client[0], slot);
    assert_int_equal(shr_server_take(p.server[0], &req, buf, CAP, &len), 0);
    assert_int_equal(req.client, 1);
    assert_int_equal(shr_server_take(p.server[0], &req, buf, CAP, &len),
                     -SHR_EAGAIN);
    pool_close(&p);
}


static void
test_worker_dies(void **state)
{
    size_t       len;
    pool_t       p;
    uint32_t     ran, queued, got;
    shr_frame_t  frame;
    shr_taken_t  req;

    (void) state;
    pool_open(&p, 1, 2);
    ran = send_request(p.client[0], "ran", 3, 0);
    assert_int_equal(shr_server_take(p.server[0], &req, buf, CAP, &len), 0);
    queued = send_request(p.client[0], "queued", 6, 0);

    shr_server_close(p.server[0]);      /* as if killed here */
    pool_open_server(&p, 0);
    assert_true(bell_count(p.client_bell[0]) > 0);
    assert_int_equal(shr_client_state(p.client[0], ran), SHR_REQ_LOST);
    assert_int_equal(shr_client_state(p.client[0], queued), SHR_REQ_QUEUED);

    assert_int_equal(shr_client_submit(p.client[0], ran, 1), 0);
    assert_int_equal(shr_server_take(p.server[1], &req, buf, CAP, &len), 0);
    assert_memory_equal(buf, "ran", 3);
    assert_int_equal(shr_server_put(p.server[1], &req, SHR_F_END, 0, NULL, 0,
                                    NULL, 0), 0);
    shr_server_done(p.server[1], &req);
    assert_int_equal(shr_client_poll(p.client[0], 1, &got), 0);
    assert_int_equal(got, ran);
    assert_int_equal(shr_client_read(p.client[0], ran, &frame, payload), 0);
    assert_int_equal(shr_client_state(p.client[0], ran), SHR_REQ_DONE);

    assert_int_equal(shr_server_take(p.server[0], &req, buf, CAP, &len), 0);
    assert_memory_equal(buf, "queued", 6);
    pool_close(&p);
}


static void
test_client_dies(void **state)
{
    size_t       len;
    pool_t       p;
    uint32_t     epoch, before;
    shr_taken_t  req, fresh;

    (void) state;
    pool_open(&p, 1, 1);
    (void) send_request(p.client[0], "a", 1, 0);
    (void) send_request(p.client[0], "b", 1, 0);
    assert_int_equal(shr_server_take(p.server[0], &req, buf, CAP, &len), 0);
    (void) shr_server_client_pid(p.server[0], 0, &before);

    shr_client_close(p.client[0]);
    pool_open_client(&p, 0);
    assert_int_equal(shr_server_client_pid(p.server[0], 0, &epoch), getpid());
    assert_int_equal(epoch, before + 1);
    assert_false(shr_server_wanted(p.server[0], &req));
    assert_int_equal(shr_client_inflight(p.client[0]), 0);

    /* the predecessor's queued entry is stale, the successor's is served */
    (void) send_request(p.client[0], "c", 1, 0);
    assert_int_equal(shr_server_take(p.server[0], &fresh, buf, CAP, &len), 0);
    assert_int_equal(buf[0], 'c');
    pool_close(&p);
}


/* A slot that rested while more than 2^31 completions went by is heard of
 * again.  The time between is made: the indices of both ends are moved on. */
static void
test_slot_that_rested_long(void **state)
{
    size_t               len;
    pool_t               p;
    uint32_t             first, slot, got, on = 0x80000005u;
    shr_taken_t          req;
    shr_index_t         *index;
    shr_client_layout_t  cl;
    shr_worker_layout_t  wl;

    (void) state;
    pool_open(&p, 1, 1);
    shr_client_layout(&p.geom, &cl);
    shr_worker_layout(&p.geom, &wl);

    first = send_request(p.client[0], "a", 1, 0);
    assert_int_equal(shr_server_take(p.server[0], &req, buf, CAP, &len), 0);
    shr_server_done(p.server[0], &req);
    assert_int_equal(shr_client_poll(p.client[0], 0, &got), 0);
    shr_client_close(p.client[0]);

    index = (shr_index_t *) ((uint8_t *) p.worker_rw[0] + wl.cq_tail);
    atomic_fetch_add(&index->value, on);
    index = (shr_index_t *) ((uint8_t *) p.client_rw[0] + cl.cq_head);
    atomic_fetch_add(&index->value, on);
    p.server[0]->peers[0].cq_tail += on;
    p.server[0]->peers[0].cq_seen += on;

    pool_open_client(&p, 0);
    slot = send_request(p.client[0], "b", 1, 0);
    assert_int_equal(slot, first);
    assert_int_equal(shr_server_take(p.server[0], &req, buf, CAP, &len), 0);
    shr_server_done(p.server[0], &req);
    assert_int_equal(shr_client_poll(p.client[0], 0, &got), 0);
    assert_int_equal(got, slot);
    pool_close(&p);
}


static void
test_doorbells(void **state)
{
    size_t       len;
    pool_t       p;
    uint32_t     slot, got;
    shr_taken_t  req;

    (void) state;
    pool_open(&p, 1, 1);
    (void) bell_count(p.client_bell[0]);

    /* awake: nobody rings it */
    slot = send_request(p.client[0], "q", 1, 0);
    assert_int_equal(bell_count(p.worker_bell[0]), 0);
    assert_int_equal(shr_server_sleep(p.server[0]), 1); /* work is there */
    assert_int_equal(shr_server_take(p.server[0], &req, buf, CAP, &len), 0);
    assert_int_equal(shr_server_sleep(p.server[0]), 0);
    (void) send_request(p.client[0], "q", 1, 0);
    (void) send_request(p.client[0], "q", 1, 0);
    assert_int_equal(bell_count(p.worker_bell[0]), 1);  /* once a sleep */
    shr_server_awake(p.server[0]);
    (void) send_request(p.client[0], "q", 1, 0);
    assert_int_equal(bell_count(p.worker_bell[0]), 0);

    /* the client: rung once when armed, not at all when not */
    assert_int_equal(shr_client_arm(p.client[0]), 0);
    assert_int_equal(shr_server_put(p.server[0], &req, SHR_F_TEXT, 0, "t", 1,
                                    NULL, 0), 0);
    shr_server_publish(p.server[0], &req);
    shr_server_ring(p.server[0]);
    shr_server_ring(p.server[0]);
    assert_int_equal(bell_count(p.client_bell[0]), 1);
    assert_int_equal(shr_client_poll(p.client[0], 0, &got), 0);
    assert_int_equal(got, slot);
    assert_int_equal(shr_server_put(p.server[0], &req, SHR_F_TEXT, 0, "t", 1,
                                    NULL, 0), 0);
    shr_server_publish(p.server[0], &req);
    shr_server_ring(p.server[0]);
    assert_int_equal(bell_count(p.client_bell[0]), 0);
    assert_int_equal(shr_client_arm(p.client[0]), 1);
    pool_close(&p);
}


static void
test_bytes_are_cleared(void **state)
{
    size_t               i, len;
    pool_t               p;
    uint32_t             slot;
    shr_taken_t          req;
    shr_worker_layout_t  at;

    (void) state;
    pool_open(&p, 1, 1);
    shr_worker_layout(&p.geom, &at);
    slot = send_request(p.client[0], "q", 1, 0);
    assert_int_equal(shr_server_take(p.server[0], &req, buf, CAP, &len), 0);
    assert_int_equal(shr_server_put(p.server[0], &req, SHR_F_TEXT, 0, "canary",
                                    6, NULL, 0), 0);
    shr_server_done(p.server[0], &req);
    shr_server_sweep(p.server[0]);      /* not yet released: must stay */
    assert_memory_equal((uint8_t *) p.worker_ro[0] + at.bytes
                        + (size_t) slot * 8192 + 8, "canary", 6);
    shr_client_release(p.client[0], slot);
    shr_server_sweep(p.server[0]);

    for (i = 0; i < 16 * 8192; i++) {
        assert_int_equal(((uint8_t *) p.worker_ro[0])[at.bytes + i], 0);
    }

    pool_close(&p);
}


/* A small generator, so that failures repeat. */
static uint64_t  seed = 88172645463325252ULL;

static uint64_t
rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;

    return seed;
}


/* Overwrites some words of a region with interesting or random values. */
static void
mutate(void *region, size_t size)
{
    int              n;
    uint64_t         value;
    static uint64_t  nasty[] = { 0, 1, UINT32_MAX, UINT64_MAX, 1ULL << 32,
                                 0x80000000ULL, 0x7fffffffffffffffULL };

    for (n = (int) (rnd() % 8); n >= 0; n--) {
        value = rnd() % 2 ? rnd() : nasty[rnd() % 7];
        memcpy((uint8_t *) region + rnd() % (size / 8) * 8, &value, 8);
    }
}


/* The submission ring is taken as empty, else spoilt words would soon make it
 * look full for good and nothing more would be tried. */
static void
worker_keeps_up(pool_t *p)
{
    shr_client_layout_t  cl;
    shr_worker_layout_t  wl;

    shr_client_layout(&p->geom, &cl);
    shr_worker_layout(&p->geom, &wl);
    atomic_store(&((shr_index_t *) ((uint8_t *) p->worker_rw[0]
                                    + wl.sq_head))->value,
                 atomic_load(&((shr_index_t *) ((uint8_t *) p->client_rw[0]
                                                + cl.sq_tail))->value));
}


/* Spoils the words of this very request, under its own generation. */
static void
aim_at_request(pool_t *p, uint32_t slot)
{
    uint8_t             *ring;
    uint64_t             word;
    shr_resp_t          *resp;
    shr_frame_t          frame;
    shr_client_layout_t  cl;
    shr_worker_layout_t  wl;

    shr_client_layout(&p->geom, &cl);
    shr_worker_layout(&p->geom, &wl);
    word = atomic_load(&((shr_slot_t *) ((uint8_t *) p->client_rw[0]
                                         + cl.slots))[slot].word);
    resp = (shr_resp_t *) ((uint8_t *) p->worker_rw[0] + wl.resp) + slot;
    atomic_store(&resp->produced, shr_word(shr_word_gen(word),
                                           rnd() % 20000));

    ring = (uint8_t *) p->worker_rw[0] + wl.bytes + (size_t) slot * 8192;
    frame.type = (uint16_t) (rnd() % (SHR_F_MAX + 2));
    frame.len = (uint32_t) (rnd() % 10000);
    memcpy(ring, &frame, sizeof(frame));
    mutate(ring + 8, 64);
}


/* I1: whatever the worker's region holds, the client neither crashes nor
 * loops; sanitizers watch. */
static void
test_hostile_worker(void **state)
{
    int                  turn, i;
    pool_t               p;
    uint32_t             slot, got;
    shr_frame_t          frame;
    shr_worker_info_t    info;
    shr_worker_layout_t  at;

    (void) state;
    pool_open(&p, 1, 1);
    shr_worker_layout(&p.geom, &at);

    for (turn = 0; turn < 60000; turn++) {
        /* mostly the words, seldom the bytes */
        mutate(p.worker_rw[0], turn % 4 ? at.bytes : at.size);
        worker_keeps_up(&p);

        if (shr_client_claim(p.client[0], &slot) == 0) {
            (void) shr_client_write(p.client[0], slot, "q", 1);

            if (shr_client_submit(p.client[0], slot, 0) != 0) {
                shr_client_release(p.client[0], slot);
                continue;
            }

            if (turn % 2) {
                aim_at_request(&p, slot);
            }

            for (i = 0; i < 20; i++) {
                if (shr_client_read(p.client[0], slot, &frame, payload) != 0) {
                    break;
                }

                assert_true(frame.len <= SHR_PAYLOAD_MAX);
            }

            (void) shr_client_state(p.client[0], slot);
            shr_client_release(p.client[0], slot);
        }

        for (i = 0; i < 20; i++) {
            if (shr_client_poll(p.client[0], 0, &got) != 0) {
                break;
            }

            assert_true(got < 16);
        }

        (void) shr_client_arm(p.client[0]);
        shr_client_info(p.client[0], 0, &info);
        assert_true(info.state <= SHR_WORKER_DRAINING);
        assert_true(shr_client_backlog(p.client[0], 0) <= 16);
    }

    assert_int_equal(shr_client_inflight(p.client[0]), 0);
    pool_close(&p);
}


/* A tail further ahead than the ring is long cannot be: refused at once, not
 * walked through. */
static void
test_impossible_tails(void **state)
{
    size_t               len;
    pool_t               p;
    uint32_t             got;
    shr_index_t         *tail;
    shr_taken_t          req;
    shr_client_layout_t  cl;
    shr_worker_layout_t  wl;

    (void) state;
    pool_open(&p, 1, 1);
    shr_client_layout(&p.geom, &cl);
    shr_worker_layout(&p.geom, &wl);

    tail = (shr_index_t *) ((uint8_t *) p.worker_rw[0] + wl.cq_tail);
    atomic_fetch_add(&tail->value, 16);
    assert_int_equal(shr_client_poll(p.client[0], 0, &got), -SHR_EAGAIN);
    atomic_fetch_add(&tail->value, 17);
    assert_int_equal(shr_client_poll(p.client[0], 0, &got), -SHR_EBROKEN);

    tail = (shr_index_t *) ((uint8_t *) p.client_rw[0] + cl.sq_tail);
    atomic_fetch_add(&tail->value, 17);
    assert_int_equal(shr_server_take(p.server[0], &req, buf, CAP, &len),
                     -SHR_EBROKEN);
    assert_int_equal(shr_server_take(p.server[0], &req, buf, CAP, &len),
                     -SHR_EAGAIN);
    pool_close(&p);
}


/* A client whose own words are being spoilt may well be refused. */
static void
send_if_possible(shr_client_t *c)
{
    uint32_t  slot;

    if (rnd() % 2 == 0 || shr_client_claim(c, &slot) != 0) {
        return;
    }

    if (shr_client_write(c, slot, buf, rnd() % 9000) != 0
        || shr_client_submit(c, slot, 0) != 0)
    {
        shr_client_release(c, slot);
    }
}


/* The same the other way round. */
static void
test_hostile_client(void **state)
{
    int                  turn, i;
    size_t               len;
    pool_t               p;
    uint32_t             epoch, slot;
    shr_taken_t          req;
    shr_client_layout_t  at;

    (void) state;
    pool_open(&p, 2, 1);
    shr_client_layout(&p.geom, &at);

    for (turn = 0; turn < 60000; turn++) {
        slot = send_request(p.client[1], "honest", 6, 0);

        send_if_possible(p.client[0]);

        mutate(p.client_rw[0], turn % 4 ? at.chunks : at.size);

        for (i = 0; i < 200; i++) {
            int  rc = shr_server_take(p.server[0], &req, buf, CAP, &len);

            if (rc == -SHR_EAGAIN) {
                break;
            }

            if (rc != 0) {
                continue;
            }

            if (req.client == 1) {
                assert_int_equal(req.slot, slot);
                assert_memory_equal(buf, "honest", 6);
                slot = UINT32_MAX;
            }

            (void) shr_server_wanted(p.server[0], &req);
            (void) shr_server_put(p.server[0], &req, SHR_F_TEXT, 0, buf,
                                  rnd() % 1000, NULL, 0);
            shr_server_want_room(p.server[0], &req, 1);
            shr_server_done(p.server[0], &req);
        }

        assert_true(i < 200);
        assert_int_equal(slot, UINT32_MAX);     /* the honest one was served */
        shr_server_ring(p.server[0]);
        (void) shr_server_sleep(p.server[0]);
        shr_server_awake(p.server[0]);
        (void) shr_server_client_pid(p.server[0], 0, &epoch);
        shr_server_sweep(p.server[0]);

        for (i = 0; i < 16; i++) {              /* all are answered */
            uint32_t  got;

            if (shr_client_poll(p.client[1], 0, &got) == 0) {
                shr_client_release(p.client[1], got);
            }
        }

        if (turn % 64 == 0) {                   /* its process is replaced */
            shr_client_close(p.client[0]);
            pool_open_client(&p, 0);
        }
    }

    pool_close(&p);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_whole_way),
        cmocka_unit_test(test_slots_and_chunks_run_out),
        cmocka_unit_test(test_too_big_for_the_taker),
        cmocka_unit_test(test_full_ring_pauses_one),
        cmocka_unit_test(test_cancel_and_reuse),
        cmocka_unit_test(test_entry_of_an_earlier_request),
        cmocka_unit_test(test_cancelled_before_taken),
        cmocka_unit_test(test_worker_dies),
        cmocka_unit_test(test_client_dies),
        cmocka_unit_test(test_slot_that_rested_long),
        cmocka_unit_test(test_doorbells),
        cmocka_unit_test(test_bytes_are_cleared),
        cmocka_unit_test(test_impossible_tails),
        cmocka_unit_test(test_hostile_worker),
        cmocka_unit_test(test_hostile_client),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
