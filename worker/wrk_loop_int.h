/*
 * Inside the worker's loop: shared by wrk_loop*.c and nobody else.  One
 * thread; the engine's threads see nothing of this.
 */

#ifndef WRK_LOOP_INT_H
#define WRK_LOOP_INT_H

#include "shm/shr_server.h"
#include "worker/wrk_conf.h"
#include "worker/wrk_loop.h"
#include "worker/wrk_model.h"
#include "worker/wrk_sandbox.h"
#include "worker/wrk_serve.h"
#include "worker/wrk_super_rx.h"
#include "worker/wrk_wait.h"


#define LOOP_GENS_MAX       16      /* as the supervisor has */
#define LOOP_TICK_NS        1000000000ull   /* sweep, clients, beat */
#define LOOP_LOOK_NS        1000000ull      /* events while busy */
#define LOOP_FIGURES_NS     50000000ull     /* counters while busy */
#define LOOP_DRAIN_NS       5000000ull      /* a look while draining */
#define LOOP_NEAR_NS        120000ull        /* a moment: not slept through */
#define LOOP_ALONE_NS       2000000000ull   /* without generation: end */
#define LOOP_SPARE_ENTRIES  64      /* taken, to be refused at once */

/*
 * Submissions of one turn: many where a step is worth a batch; few where it
 * takes no time, so that the first are answered while the next are on their
 * way (with the null engine a tenth more requests, and a lower p99).
 */
#define LOOP_TAKE_MAX       64
#define LOOP_TAKE_FEW       8
#define LOOP_LONG_STEP_NS   200000ull

/* A larger copy of a request is given back to the kernel when it was used. */
#define LOOP_KEEP_BYTES     (256u << 10)

/* Tags of wrk_wait.h: what, serial of the generation, client. */
typedef enum {
    TAG_CTL = 1,
    TAG_SIGNAL,
    TAG_LIFELINE,
    TAG_DOORBELL,
    TAG_CLIENT
} loop_tag_t;

#define loop_tag(kind, serial, client) \
    (((uint64_t) (kind) << 56) | ((uint64_t) (serial) << 16) | (client))
#define loop_tag_kind(tag)    ((unsigned) ((tag) >> 56))
#define loop_tag_serial(tag)  ((uint32_t) ((tag) >> 16))
#define loop_tag_client(tag)  ((uint32_t) ((tag) & 0xffff))


/* The process behind a client region. */
typedef struct {
    uint32_t  epoch;                /* of the words below; 0: never one */
    int       pidfd;                /* -1: none */
    int       dead;                 /* the process of that epoch has ended */
} loop_client_t;

typedef struct {
    uint64_t         id[2];
    uint32_t         serial;        /* names it in tags */
    shr_geom_t       geom;
    int              foreign_pids;
    int              gone;          /* no nginx process of it is left */
    uint32_t         nentries;      /* requests taken and not done */
    uint32_t         index;         /* of this worker */
    int              lifeline;
    int              doorbell;
    int             *bells;         /* [nclients] */
    void           **regions;       /* [nclients], read-only */
    void            *region;        /* ours */
    shr_server_t    *server;
    loop_client_t   *clients;       /* [nclients] */
} loop_gen_t;

typedef struct loop_s  loop_t;

/* One taken request: the scheduler's ctx. */
typedef struct loop_entry_s {
    loop_t               *loop;
    loop_gen_t           *gen;
    uint32_t              epoch;    /* of the client when it was taken */
    shr_taken_t           taken;
    struct loop_entry_s  *next;     /* while free */
} loop_entry_t;

struct loop_s {
    const wrk_loop_opts_t  *opts;
    wrk_sandbox_t           sandbox;
    wrk_conf_t              conf;
    uint32_t                index;
    int                     configured;
    uint64_t                model_hash;
    wrk_rx_t                rx;
    int                     signal_fd;

    wrk_wait_t             *wait;
    wrk_model_t             model;
    wrk_serve_t             serve;

    shr_worker_state_t      state;
    int                     draining;
    int                     end;
    uint64_t                now;
    uint64_t                busy_ns;        /* of the last turn with work */
    uint64_t                look_ns;
    uint64_t                figures_ns;
    uint64_t                tick_ns;
    uint64_t                alone_ns;       /* 0: there is a generation */
    uint64_t                load_us;
    uint64_t                broken_ns;      /* last complaint about a client */
    int                     parked;
    uint32_t                take_max;       /* of the next turn */

    uint32_t                ngens;
    uint32_t                next_gen;       /* whose turn it is to be taken */
    uint32_t                serial;
    loop_gen_t             *gens[LOOP_GENS_MAX];

    uint8_t                *buf;            /* the private copy */
    size_t                  buf_bytes;
    loop_entry_t           *entries;
    loop_entry_t           *free_entries;
};


uint64_t loop_clock(void);

/* wrk_loop_gen.c */

/* Takes over a received generation; an error is logged and costs only it. */
void loop_gen_attach(loop_t *l);
loop_gen_t *loop_gen_find(loop_t *l, uint32_t serial);
/* No process of it is left: its requests are dropped in the next step. */
void loop_gen_gone(loop_t *l, loop_gen_t *g);
/* Frees those that have gone and have no request left. */
void loop_gens_collect(loop_t *l);
/* Looks who the clients are now. */
void loop_clients_look(loop_t *l, loop_gen_t *g);
/* A client's pidfd had news. */
void loop_client_event(loop_gen_t *g, uint32_t client);
void loop_set_state(loop_t *l, shr_worker_state_t state);

/* wrk_loop_take.c */

int loop_entries_create(loop_t *l);
/* Hands up to take_max submissions to the scheduler; how many. */
uint32_t loop_take(loop_t *l);

/* wrk_loop_proc.c */

/* Rights, limits, signals: before anything foreign is read.  The signalfd
 * for SIGTERM, or -1. */
int loop_proc_start(void);
/* Priority against nginx on the same CPUs. */
void loop_proc_nice(const wrk_conf_t *conf);

/* Before the model is opened: what files there are from now on. */
void loop_proc_sandbox(loop_t *l);


#endif /* WRK_LOOP_INT_H */
