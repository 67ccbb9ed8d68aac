/*
 * Inside the worker's end: what shr_server.c and shr_server_take.c share.
 */

#ifndef SHR_SERVER_INT_H
#define SHR_SERVER_INT_H

#include <string.h>

#include "shm/shr_server.h"


/* What we keep about a slot of a client. */
typedef struct {
    uint32_t  gen;              /* that owns the response ring; 0: none */
    uint32_t  dirty;            /* bytes of the ring that were written */
    uint64_t  cq_index;         /* of its last completion entry */
    uint8_t   ended;            /* done was said; the ring may be cleared */
} shr_hold_t;

typedef struct {
    shr_client_line_t  *line;
    shr_slot_t         *slots;
    shr_index_t        *cq_head;
    shr_index_t        *sq_tail;
    _Atomic uint64_t   *sq;
    _Atomic uint32_t   *chunk_next;
    uint8_t            *chunks;
    shr_hold_t         *holds;          /* [nslots] */
    uint32_t            sq_head;
    uint32_t            rung;           /* the arming we have rung for */
    /* the shared indices are the low halves; ours never run round, so that a
     * slot's last entry may lie any time back */
    uint64_t            cq_tail;
    uint64_t            cq_seen;        /* entries before it were taken */
    int                 bell;
    int                 news;           /* entries since the last ring */
} shr_peer_t;

struct shr_server_s {
    shr_geom_t          geom;
    shr_worker_line_t  *line;
    shr_sleep_line_t   *sleep;
    shr_counters_t     *counters;
    shr_index_t        *sq_head;        /* [nclients] */
    shr_index_t        *cq_tail;        /* [nclients] */
    _Atomic uint64_t   *cq;             /* [nclients][nslots] */
    shr_resp_t         *resp;           /* [nclients][nslots] */
    uint8_t            *bytes;          /* likewise, shr_ring_stride each */
    shr_hold_t         *holds;          /* [nclients][nslots] */
    uint32_t            next_client;
    uint32_t            incarnation;
    uint32_t            sweep_client;
    shr_peer_t          peers[];
};


static inline shr_resp_t *
resp_of(shr_server_t *s, uint32_t client, uint32_t slot)
{
    return &s->resp[(size_t) client * s->geom.nslots + slot];
}


static inline uint8_t *
ring_of(shr_server_t *s, uint32_t client, uint32_t slot)
{
    return s->bytes + ((size_t) client * s->geom.nslots + slot)
                      * shr_ring_stride(&s->geom);
}


static inline void
ring_clear(shr_server_t *s, uint32_t client, uint32_t slot)
{
    shr_hold_t  *hold;

    hold = &s->peers[client].holds[slot];
    memset(ring_of(s, client, slot), 0, hold->dirty);
    hold->dirty = 0;
}


#endif /* SHR_SERVER_INT_H */
