/*
 * Sizes and offsets of the regions.  Both sides compute them from the checked
 * geometry, so no offset ever travels through shared memory.
 */

#include "shm/shr_error.h"
#include "shm/shr_layout.h"


#define SHR_PAGE  4096u


static size_t
shr_align(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}


static int
shr_power_of_two(uint32_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}


static int
shr_within(uint32_t n, uint32_t min, uint32_t max)
{
    return n >= min && n <= max;
}


int
shr_geom_check(const shr_geom_t *geom)
{
    if (!shr_within(geom->nclients, 1, SHR_CLIENTS_MAX)
        || !shr_within(geom->nworkers, 1, SHR_WORKERS_MAX)
        || !shr_within(geom->nslots, SHR_SLOTS_MIN, SHR_SLOTS_MAX)
        || !shr_within(geom->nchunks, SHR_CHUNKS_MIN, SHR_CHUNKS_MAX)
        || !shr_within(geom->resp_bytes, SHR_RESP_BYTES_MIN,
                       SHR_RESP_BYTES_MAX)
        || !shr_power_of_two(geom->nslots)
        || !shr_power_of_two(geom->resp_bytes)
        || geom->reserved != 0)
    {
        return -SHR_EINVAL;
    }

    return 0;
}


/* The products below cannot overflow: every factor is bounded by
 * shr_geom_check() and size_t has 64 bits. */
_Static_assert(sizeof(size_t) == 8, "64-bit sizes");


void
shr_client_layout(const shr_geom_t *geom, shr_client_layout_t *layout)
{
    size_t  at;

    at = sizeof(shr_region_hdr_t);
    layout->line = at;
    at += sizeof(shr_client_line_t);
    layout->slots = at;
    at += sizeof(shr_slot_t) * geom->nslots;
    layout->cq_head = at;
    at += sizeof(shr_index_t) * geom->nworkers;
    layout->sq_tail = at;
    at += sizeof(shr_index_t) * geom->nworkers;
    layout->sq = at;
    at += sizeof(uint64_t) * geom->nworkers * geom->nslots;
    layout->chunk_next = at;
    at = shr_align(at + sizeof(uint32_t) * geom->nchunks, SHR_PAGE);
    layout->chunks = at;
    at += (size_t) SHR_CHUNK_BYTES * geom->nchunks;
    layout->size = shr_align(at, SHR_PAGE);
}


void
shr_worker_layout(const shr_geom_t *geom, shr_worker_layout_t *layout)
{
    size_t  at, nresp;

    nresp = (size_t) geom->nclients * geom->nslots;

    at = sizeof(shr_region_hdr_t);
    layout->line = at;
    at += sizeof(shr_worker_line_t);
    layout->sleep = at;
    at += sizeof(shr_sleep_line_t);
    layout->counters = at;
    at += sizeof(shr_counters_t);
    layout->sq_head = at;
    at += sizeof(shr_index_t) * geom->nclients;
    layout->cq_tail = at;
    at += sizeof(shr_index_t) * geom->nclients;
    layout->cq = at;
    at += sizeof(uint64_t) * nresp;
    layout->resp = at;
    at = shr_align(at + sizeof(shr_resp_t) * nresp, SHR_PAGE);
    layout->bytes = at;
    at += shr_ring_stride(geom) * nresp;
    layout->size = shr_align(at, SHR_PAGE);
}


uint64_t
shr_hash64(const void *data, size_t len)
{
    size_t          i;
    uint64_t        hash;
    const uint8_t  *bytes;

    bytes = data;
    hash = 0xcbf29ce484222325ULL;

    for (i = 0; i < len; i++) {
        hash ^= bytes[i];
        hash *= 0x100000001b3ULL;
    }

    return hash;
}


uint64_t
shr_abi_hash(void)
{
    /* Odd sizes, so that a moved field changes an offset somewhere. */
    static const shr_geom_t  geom = { 3, 5, 16, 17, SHR_RESP_BYTES_MIN, 0 };

    struct {
        uint64_t             numbers[8];
        shr_client_layout_t  client;
        shr_worker_layout_t  worker;
    } all = { { SHR_MAGIC, SHR_ABI_VERSION, SHR_CHUNK_BYTES, SHR_NCOUNTERS,
                sizeof(shr_slot_t), sizeof(shr_resp_t),
                offsetof(shr_slot_t, first_chunk),
                offsetof(shr_resp_t, want_room) },
              { 0 }, { 0 } };

    shr_client_layout(&geom, &all.client);
    shr_worker_layout(&geom, &all.worker);

    return shr_hash64(&all, sizeof(all));
}


const char *
shr_strerror(int code)
{
    static const char *const  text[] = {
        [SHR_OK] = "success",
        [SHR_EAGAIN] = "nothing there now",
        [SHR_EFULL] = "no room left",
        [SHR_ESTALE] = "the slot has moved on",
        [SHR_EDONE] = "ended",
        [SHR_ELOST] = "the inference worker died",
        [SHR_EBROKEN] = "the other side wrote what cannot be",
        [SHR_EINVAL] = "out of bounds",
        [SHR_ETOOBIG] = "too long",
        [SHR_ESYS] = "system call failed",
    };

    if (code < 0) {
        code = -code;
    }

    if (code < 0 || (size_t) code >= sizeof(text) / sizeof(text[0])) {
        return "unknown error";
    }

    return text[code];
}
