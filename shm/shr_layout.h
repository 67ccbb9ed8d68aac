/*
 * The shared-memory ABI: every byte that an nginx process and an inference
 * worker both see.  Nothing here knows nginx or a model.
 *
 * A pool has one *client region* per nginx worker process (that process is its
 * only writer) and one *worker region* per inference worker (that worker is its
 * only writer; while no worker lives, its supervisor).  The other side maps a
 * region read-only.  All words that the other side may change under our feet
 * are atomics, read once into a private copy and checked at full width there.
 *
 * A slot is a place for one request.  Every word about it carries the slot's
 * generation in its upper half, so a stale word is recognised by itself: a
 * slot is reused by writing a higher generation, never by waiting.
 */

#ifndef SHR_LAYOUT_H
#define SHR_LAYOUT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>


#define SHR_MAGIC           0x3172686e69676eULL    /* "ngihr1" */
#define SHR_ABI_VERSION     4

#define SHR_LINE            64          /* bytes of a cache line */

#define SHR_CLIENTS_MAX     256         /* nginx worker processes */
#define SHR_WORKERS_MAX     32          /* inference workers of a pool */
#define SHR_SLOTS_MIN       16
#define SHR_SLOTS_MAX       4096        /* requests of one nginx worker */
#define SHR_CHUNK_BYTES     4096
#define SHR_CHUNKS_MIN      16
#define SHR_CHUNKS_MAX      65536       /* 256 MiB of payload */
#define SHR_RESP_BYTES_MIN  8192
#define SHR_RESP_BYTES_MAX  (1u << 20)

#define SHR_CHUNK_END       UINT32_MAX  /* ends a list of chunks */


/* The sizes of a pool; both sides get them in the attach message, checked by
 * shr_geom_check().  Slots and resp_bytes are powers of two. */
typedef struct {
    uint32_t  nclients;
    uint32_t  nworkers;
    uint32_t  nslots;               /* per client */
    uint32_t  nchunks;              /* per client */
    uint32_t  resp_bytes;           /* response ring of one slot */
    uint32_t  reserved;
} shr_geom_t;


/* From one response ring to the next.  Not a power of two: most rings are used
 * at their beginning, and the beginnings must not share a few sets of the
 * caches. */
#define shr_ring_stride(geom)                                                 \
    ((size_t) (geom)->resp_bytes + 5 * SHR_LINE)


/* A word that names a generation in its upper half. */
#define shr_word(gen, low)      (((uint64_t) (gen) << 32) | (uint32_t) (low))
#define shr_word_gen(word)      ((uint32_t) ((word) >> 32))
#define shr_word_low(word)      ((uint32_t) (word))

#define SHR_SLOT_CANCEL     1u          /* low half of shr_slot_t.word */


/* Written once by the creator, before anybody else maps the region. */
typedef struct {
    uint64_t    magic;
    uint32_t    abi;
    uint32_t    index;              /* of this client or worker */
    shr_geom_t  geom;
    uint8_t     pad[SHR_LINE - 40];
} shr_region_hdr_t;

_Static_assert(sizeof(shr_region_hdr_t) == SHR_LINE, "one line");


/* An index alone on its cache line: one writer, no false sharing. */
typedef struct {
    _Atomic uint32_t  value;
    uint8_t           pad[SHR_LINE - 4];
} shr_index_t;

_Static_assert(sizeof(shr_index_t) == SHR_LINE, "one line");


/* Client region: header, this line, slots, cq heads, rings, chunks. */
typedef struct {
    _Atomic uint32_t  epoch;        /* +1 for each process that takes over */
    _Atomic int32_t   pid;
    _Atomic uint32_t  armed;        /* +1 each time the client may sleep */
    uint8_t           pad[SHR_LINE - 12];
} shr_client_line_t;

_Static_assert(sizeof(shr_client_line_t) == SHR_LINE, "one line");


typedef struct {
    _Atomic uint64_t  word;         /* generation | SHR_SLOT_CANCEL */
    _Atomic uint64_t  consumed;     /* generation | response bytes read */
    _Atomic uint32_t  first_chunk;  /* of the payload */
    _Atomic uint32_t  len;          /* bytes of the payload */
    uint8_t           pad[SHR_LINE - 24];
} shr_slot_t;

_Static_assert(sizeof(shr_slot_t) == SHR_LINE, "one line");


/* Worker states, in shr_worker_line_t.state */
typedef enum {
    SHR_WORKER_NONE = 0,            /* no process */
    SHR_WORKER_LOADING,
    SHR_WORKER_READY,
    SHR_WORKER_DRAINING             /* ends with its last request */
} shr_worker_state_t;

/* Worker region: header, these lines, sq heads, rings, responses, bytes. */
typedef struct {
    _Atomic uint32_t  incarnation;  /* +1 for each process; 0: never one */
    _Atomic uint32_t  state;        /* shr_worker_state_t */
    _Atomic int32_t   pid;
    uint32_t          reserved;
    _Atomic uint64_t  beat_ns;      /* CLOCK_MONOTONIC, each loop turn */
    uint8_t           pad[SHR_LINE - 24];
} shr_worker_line_t;

_Static_assert(sizeof(shr_worker_line_t) == SHR_LINE, "one line");

typedef struct {
    _Atomic uint32_t  sleeping;     /* odd: asleep or about to be */
    uint8_t           pad[SHR_LINE - 4];
} shr_sleep_line_t;

_Static_assert(sizeof(shr_sleep_line_t) == SHR_LINE, "one line");


/* What a worker tells of itself; relaxed atomics, each a value of its own.
 * Gauges first, then counters that only grow within an incarnation. */
typedef enum {
    SHR_G_WAITING = 0,              /* requests taken, not yet running */
    SHR_G_WAITING_TOKENS,           /* their prompt tokens */
    SHR_G_RUNNING,                  /* sequences in the batch */
    SHR_G_KV_USED,                  /* bytes */
    SHR_G_KV_TOTAL,
    SHR_G_CONTEXT,                  /* tokens: the context length served */
    SHR_G_LOAD_US,                  /* exec to ready */
    SHR_G_IO_URING,                 /* 1: io_uring, 0: epoll */
    SHR_G_ISA,                      /* kern_isa_t */
    SHR_C_REQUESTS,
    SHR_C_PROMPT_TOKENS,
    SHR_C_CACHED_TOKENS,
    SHR_C_TOKENS,                   /* generated */
    SHR_C_STEPS,
    SHR_C_STEP_TOKENS,              /* sum of batch sizes */
    SHR_C_CANCELLED_WAITING,
    SHR_C_CANCELLED_PREFILL,
    SHR_C_CANCELLED_DECODE,
    SHR_C_PREEMPTED,
    SHR_C_SHED,
    SHR_C_EXPIRED,                  /* deadline */
    SHR_C_DRAFTED,                  /* tokens guessed */
    SHR_C_DRAFTS_RIGHT,             /* and confirmed */
    SHR_NCOUNTERS
} shr_counter_t;

#define SHR_COUNTERS_BYTES  512

typedef struct {
    _Atomic uint64_t  value[SHR_COUNTERS_BYTES / 8];
} shr_counters_t;

_Static_assert(SHR_NCOUNTERS <= SHR_COUNTERS_BYTES / 8, "counters fit");


/* The worker's words about one slot of one client. */
typedef struct {
    _Atomic uint64_t  taken;        /* generation | incarnation */
    _Atomic uint64_t  produced;     /* generation | response bytes written */
    _Atomic uint64_t  done;         /* generation | 1: nothing more comes */
    _Atomic uint64_t  want_room;    /* generation | 1: paused on a full ring */
    uint8_t           pad[SHR_LINE - 32];
} shr_resp_t;

_Static_assert(sizeof(shr_resp_t) == SHR_LINE, "one line");


/* Rings hold words (generation | slot).  Indices run freely through 2^32. */

/* Offsets into a client region. */
typedef struct {
    size_t  line;                   /* shr_client_line_t */
    size_t  slots;                  /* shr_slot_t [nslots] */
    size_t  cq_head;                /* shr_index_t [nworkers] */
    size_t  sq_tail;                /* shr_index_t [nworkers] */
    size_t  sq;                     /* _Atomic uint64_t [nworkers][nslots] */
    size_t  chunk_next;             /* _Atomic uint32_t [nchunks] */
    size_t  chunks;                 /* [nchunks][SHR_CHUNK_BYTES] */
    size_t  size;
} shr_client_layout_t;

/* Offsets into a worker region. */
typedef struct {
    size_t  line;                   /* shr_worker_line_t */
    size_t  sleep;                  /* shr_sleep_line_t */
    size_t  counters;               /* shr_counters_t */
    size_t  sq_head;                /* shr_index_t [nclients] */
    size_t  cq_tail;                /* shr_index_t [nclients] */
    size_t  cq;                     /* _Atomic uint64_t [nclients][nslots] */
    size_t  resp;                   /* shr_resp_t [nclients][nslots] */
    size_t  bytes;                  /* [nclients][nslots][shr_ring_stride] */
    size_t  size;
} shr_worker_layout_t;


/* 0, or -SHR_EINVAL when a size is out of its bounds. */
int shr_geom_check(const shr_geom_t *geom);

/* The offsets for a checked geometry; both sides compute them alone. */
void shr_client_layout(const shr_geom_t *geom, shr_client_layout_t *layout);
void shr_worker_layout(const shr_geom_t *geom, shr_worker_layout_t *layout);

/* A hash of the ABI version, the structures' sizes and offsets: two binaries
 * that disagree on it must not share memory. */
uint64_t shr_abi_hash(void);

/* FNV-1a, 64 bits: names configurations; not for adversarial input. */
uint64_t shr_hash64(const void *data, size_t len);


#endif /* SHR_LAYOUT_H */
