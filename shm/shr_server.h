/*
 * The worker's end of a pool: used by one inference worker's loop thread.  It
 * serves the clients of several generations (configuration loads) at once; a
 * shr_server_t is the end of one generation.  Client regions are foreign
 * bytes; nothing here asserts on them, blocks, or allocates after open.
 */

#ifndef SHR_SERVER_H
#define SHR_SERVER_H

#include "shm/shr_layout.h"
#include "shm/shr_msg.h"


typedef struct shr_server_s shr_server_t;

/* A request that was taken; plain data, kept by the caller. */
typedef struct {
    uint32_t  client;
    uint32_t  slot;
    uint32_t  gen;
    uint32_t  produced;             /* bytes written, published or not */
    uint32_t  published;
} shr_taken_t;


/*
 * Opens the worker's end: `region` is this worker's region, mapped read-write;
 * clients[c] the client regions, mapped read-only; bells[c] the clients'
 * eventfds (not owned).  The incarnation must have been raised by the
 * supervisor (shr_worker_reset).  NULL when memory is short.
 */
shr_server_t *shr_server_open(const shr_geom_t *geom, uint32_t index,
    void *region, void *const *clients, const int *bells);
void shr_server_close(shr_server_t *s);

/* The supervisor's part, while no worker process lives: raises the
 * incarnation, sets state NONE; then rings all clients (they find what was
 * lost).  Returns the new incarnation. */
uint32_t shr_worker_reset(const shr_geom_t *geom, void *region,
    const int *bells);

/* Says what this worker is doing, and wakes who waits for it. */
void shr_server_set_state(shr_server_t *s, shr_worker_state_t state,
    int32_t pid);
/* Shows that the loop turns; the supervisor kills a worker whose beat stops. */
void shr_server_beat(shr_server_t *s, uint64_t now_ns);
/* Sets a gauge or counter that nginx shows. */
void shr_server_set(shr_server_t *s, shr_counter_t counter, uint64_t value);

/*
 * Takes the next submitted request, round robin over clients, and copies its
 * payload into buf.  0; -SHR_EAGAIN: none; -SHR_ETOOBIG: longer than cap (it
 * is taken: answer with an error); -SHR_EBROKEN: the client wrote nonsense
 * (entry skipped, call again).  Stale entries are skipped silently.
 */
int shr_server_take(shr_server_t *s, shr_taken_t *req, void *buf, size_t cap,
    size_t *len);

/* 0 when the request was cancelled, released, or its client was replaced. */
int shr_server_wanted(shr_server_t *s, const shr_taken_t *req);

/* The pid of a client's process (foreign; 0 when none) and its epoch. */
int32_t shr_server_client_pid(shr_server_t *s, uint32_t client,
    uint32_t *epoch);

/* Bytes that can be put now without overtaking the client. */
uint32_t shr_server_room(shr_server_t *s, const shr_taken_t *req);

/* Writes a frame whose payload is the concatenation of two parts (b may be
 * NULL); -SHR_EFULL when there is no room, -SHR_ETOOBIG past SHR_FRAME_MAX. */
int shr_server_put(shr_server_t *s, shr_taken_t *req, uint32_t type,
    uint32_t choice, const void *a, size_t alen, const void *b, size_t blen);

/* Makes what was put visible and queues a completion entry. */
void shr_server_publish(shr_server_t *s, shr_taken_t *req);

/* Publishes, then marks the response as ended; the request is forgotten. */
void shr_server_done(shr_server_t *s, shr_taken_t *req);

/* Marks (or unmarks) a request as waiting for room: the client rings when it
 * has read.  Check room again after marking. */
void shr_server_want_room(shr_server_t *s, const shr_taken_t *req, int want);

/* Rings each client that sleeps and was given news since the last call. */
void shr_server_ring(shr_server_t *s);

/* Before sleeping: marks the worker asleep.  1: a submission came meanwhile,
 * do not sleep.  After 0, look once more at the requests that are held (room,
 * wanted): only what changes from here on rings.  After waking:
 * shr_server_awake(). */
int shr_server_sleep(shr_server_t *s);
void shr_server_awake(shr_server_t *s);

/* Clears response bytes that their clients have read to the end (I4); called
 * when there is time, at the latest once a second. */
void shr_server_sweep(shr_server_t *s);


#endif /* SHR_SERVER_H */
