/*
 * From shared memory to the scheduler and back: one entry for each request
 * that was taken, and the sink through which the scheduler answers it.
 */

#include "worker/wrk_loop_int.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "shm/shr_error.h"
#include "worker/wrk_log.h"


static int sink_put(void *ctx, uint32_t type, uint32_t choice, const void *a,
    size_t alen, const void *b, size_t blen);
static uint32_t sink_room(void *ctx);
static int sink_wanted(void *ctx);
static void sink_publish(void *ctx);
static void sink_want_room(void *ctx, int want);
static void sink_done(void *ctx);
static int take_one(loop_t *l, loop_gen_t *g);


static const wrk_sink_ops_t  sink = {
    sink_put, sink_room, sink_wanted, sink_publish, sink_want_room, sink_done
};


/* The scheduler refuses what is too much, so there is always an entry for one
 * more than it can hold. */
int
loop_entries_create(loop_t *l)
{
    uint32_t  i, n;

    n = l->conf.queue_requests + l->conf.sequences + LOOP_SPARE_ENTRIES;

    l->entries = calloc(n, sizeof(loop_entry_t));
    if (l->entries == NULL) {
        return -1;
    }
    for (i = 0; i < n; i++) {
        l->entries[i].loop = l;
        l->entries[i].next = l->free_entries;
        l->free_entries = &l->entries[i];
    }

    /* Address space; pages come with the first request that needs them. */
    l->buf = mmap(NULL, l->buf_bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return l->buf == MAP_FAILED ? -1 : 0;
}


/* One request of each generation in turn, so that none starves. */
uint32_t
loop_take(loop_t *l)
{
    int          rc;
    uint32_t     n = 0, empty = 0;
    loop_gen_t  *g;

    if (l->draining || l->ngens == 0) {
        return 0;
    }

    while (n < l->take_max && empty < l->ngens && l->free_entries != NULL) {
        l->next_gen = (l->next_gen + 1) % l->ngens;
        g = l->gens[l->next_gen];
        rc = g->gone ? -SHR_EAGAIN : take_one(l, g);
        if (rc == -SHR_EAGAIN) {
            empty++;
        } else {
            empty = 0;
            n++;
        }
    }
    return n;
}


static int
take_one(loop_t *l, loop_gen_t *g)
{
    int            rc;
    size_t         len = 0;
    loop_entry_t  *e = l->free_entries;

    rc = shr_server_take(g->server, &e->taken, l->buf, l->buf_bytes, &len);

    if (rc == -SHR_EAGAIN) {
        return rc;
    }
    if (rc != 0 && rc != -SHR_ETOOBIG) {
        if (l->now - l->broken_ns > LOOP_TICK_NS) {
            l->broken_ns = l->now;
            wrk_log(WRK_LOG_ALERT, "an nginx worker wrote a submission that "
                    "cannot be (%s)", shr_strerror(rc));
        }
        return rc;
    }

    l->free_entries = e->next;
    e->next = NULL;
    e->gen = g;
    g->nentries++;
    assert(e->taken.client < g->geom.nclients);

    (void) shr_server_client_pid(g->server, e->taken.client, &e->epoch);
    if (e->epoch != g->clients[e->taken.client].epoch) {
        loop_clients_look(l, g);
    }

    if (rc == -SHR_ETOOBIG) {
        wrk_sink_refuse(SHR_E_INVALID, "the request is longer than this "
                        "model's context can be", &sink, e);
        return 0;
    }
    if (shr_req_check(l->buf, len) != 0) {
        wrk_log(WRK_LOG_ALERT, "an nginx worker sent a malformed request of "
                "%zu bytes", len);
        wrk_sink_refuse(SHR_E_INTERNAL, "malformed request", &sink, e);
        return 0;
    }

    wrk_serve_submit(&l->serve, l->buf, len, &sink, e, l->now);

    if (len > LOOP_KEEP_BYTES) {
        (void) madvise(l->buf, l->buf_bytes, MADV_DONTNEED);
    }
    return 0;
}


static int
sink_put(void *ctx, uint32_t type, uint32_t choice, const void *a,
    size_t alen, const void *b, size_t blen)
{
    loop_entry_t  *e = ctx;

    if (e->gen->gone) {
        return -SHR_ELOST;
    }
    return shr_server_put(e->gen->server, &e->taken, type, choice, a, alen, b,
                          blen);
}


static uint32_t
sink_room(void *ctx)
{
    loop_entry_t  *e = ctx;

    return e->gen->gone ? 0 : shr_server_room(e->gen->server, &e->taken);
}


static int
sink_wanted(void *ctx)
{
    loop_entry_t         *e = ctx;
    const loop_client_t  *client = &e->gen->clients[e->taken.client];

    if (e->gen->gone || (client->dead && client->epoch == e->epoch)) {
        return 0;
    }
    return shr_server_wanted(e->gen->server, &e->taken);
}


static void
sink_publish(void *ctx)
{
    loop_entry_t  *e = ctx;

    if (!e->gen->gone) {
        shr_server_publish(e->gen->server, &e->taken);
    }
}


static void
sink_want_room(void *ctx, int want)
{
    loop_entry_t  *e = ctx;

    if (!e->gen->gone) {
        shr_server_want_room(e->gen->server, &e->taken, want);
    }
}


static void
sink_done(void *ctx)
{
    loop_t        *l;
    loop_entry_t  *e = ctx;

    assert(e->next == NULL && e->gen->nentries > 0);

    if (!e->gen->gone) {
        shr_server_done(e->gen->server, &e->taken);
    }
    e->gen->nentries--;
    e->gen = NULL;

    l = e->loop;
    e->next = l->free_entries;
    l->free_entries = e;
}
