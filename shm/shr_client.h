/*
 * The client's end of a pool: used by one nginx worker process, never by two
 * at a time.  It writes its own client region and reads the worker regions,
 * all of whose bytes are foreign.  Nothing here blocks, allocates after
 * shr_client_open(), or asserts on foreign bytes.
 *
 * A request: claim a slot, write its payload, submit it to a worker, read its
 * frames, release the slot.  Release is possible at any time: it cancels what
 * still runs, and the slot's next generation cannot be mixed up with it.
 */

#ifndef SHR_CLIENT_H
#define SHR_CLIENT_H

#include "shm/shr_layout.h"
#include "shm/shr_msg.h"


typedef struct shr_client_s shr_client_t;

typedef enum {
    SHR_REQ_QUEUED = 1,             /* not yet seen by its worker */
    SHR_REQ_RUNNING,                /* taken by the worker that lives */
    SHR_REQ_LOST,                   /* taken by a worker that has died */
    SHR_REQ_DONE                    /* ended; unread frames may be left */
} shr_req_state_t;

/* A private copy of what a worker says of itself. */
typedef struct {
    uint32_t  incarnation;
    uint32_t  state;                /* shr_worker_state_t, checked */
    int32_t   pid;
    uint64_t  beat_ns;
    uint64_t  counters[SHR_NCOUNTERS];
} shr_worker_info_t;


/* The part of it that the choice of a worker needs. */
typedef struct {
    uint32_t  incarnation;
    uint32_t  state;
    uint64_t  waiting;
    uint64_t  waiting_tokens;
    uint64_t  running;
    uint64_t  beat_ns;              /* CLOCK_MONOTONIC, when it last turned */
} shr_worker_load_t;


/*
 * Opens the client end.  `region` is this client's region, mapped read-write;
 * workers[w] the worker regions, mapped read-only; doorbells[w] their eventfds
 * (not owned, not closed).  The arrays are copied.  What a predecessor left in
 * the region is given up: the epoch rises and every slot moves on by one
 * generation.  NULL when memory is short.
 */
shr_client_t *shr_client_open(const shr_geom_t *geom, uint32_t index,
    void *region, void *const *workers, const int *doorbells);
void shr_client_close(shr_client_t *c);

/* Takes a free slot; -SHR_EFULL when none is left. */
int shr_client_claim(shr_client_t *c, uint32_t *slot);

/* Copies the payload into chunks of the region; -SHR_EFULL when they do not
 * suffice (nothing is kept then).  Once per claimed slot. */
int shr_client_write(shr_client_t *c, uint32_t slot, const void *data,
    size_t len);

/* Hands the slot to a worker and rings its doorbell when it sleeps.
 * -SHR_EFULL when its ring is full.  Called again for a slot that was lost or
 * is still queued, it moves the request, payload kept, as a new generation. */
int shr_client_submit(shr_client_t *c, uint32_t slot, uint32_t worker);

/* Next slot with news of `worker`, or -SHR_EAGAIN, or -SHR_EBROKEN (retire
 * that worker).  A slot may be named without news; that is harmless. */
int shr_client_poll(shr_client_t *c, uint32_t worker, uint32_t *slot);

/* Copies the next frame into *frame and payload (SHR_PAYLOAD_MAX bytes).
 * -SHR_EAGAIN: none now; -SHR_EDONE: none will come; -SHR_EBROKEN. */
int shr_client_read(shr_client_t *c, uint32_t slot, shr_frame_t *frame,
    void *payload);

/* Where a submitted slot stands. */
shr_req_state_t shr_client_state(shr_client_t *c, uint32_t slot);

/* Tells the worker to drop the request before its next step. */
void shr_client_cancel(shr_client_t *c, uint32_t slot);

/* Gives the slot back, cancelling it when it is not done; its chunks are
 * cleared (I4). */
void shr_client_release(shr_client_t *c, uint32_t slot);

/* Says that this process may sleep now.  1: something came meanwhile, poll
 * again before sleeping; 0: a worker with news will ring. */
int shr_client_arm(shr_client_t *c);

/* What worker w says of itself, copied and checked. */
void shr_client_info(shr_client_t *c, uint32_t worker,
    shr_worker_info_t *info);

/* How busy worker w says it is, copied likewise. */
void shr_client_load(shr_client_t *c, uint32_t worker,
    shr_worker_load_t *load);

/* Requests of this client not yet taken by the worker. */
uint32_t shr_client_backlog(shr_client_t *c, uint32_t worker);

/* Slots in use. */
uint32_t shr_client_inflight(const shr_client_t *c);


#endif /* SHR_CLIENT_H */
