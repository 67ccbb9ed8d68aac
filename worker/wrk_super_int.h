/*
 * Inside the supervisor: its state, shared by wrk_super*.c and nobody else.
 * One thread, one poll loop, no call that blocks.
 */

#ifndef WRK_SUPER_INT_H
#define WRK_SUPER_INT_H

#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/types.h>

#include "worker/wrk_conf.h"
#include "worker/wrk_super.h"
#include "worker/wrk_super_rx.h"


#define SUPER_GENS_MAX      16      /* configuration loads alive at once */
#define SUPER_CONNS_MAX     32      /* control connections */
#define SUPER_REASON_MAX    512
#define SUPER_BACKOFF_MS    50      /* the first pause */
#define SUPER_HEALTHY_MS    10000   /* ready for so long: failures forgotten */
#define SUPER_LINGER_MS     1000    /* after the last generation has gone */
#define SUPER_FIRST_MS      30000   /* waits for the first one */
#define SUPER_LOCK_MS       5000    /* waits for a predecessor's workers */
#define SUPER_TWIN_MS       1000    /* answers for so long: it lives */
#define SUPER_TICK_MS       1000
#define SUPER_RENEW_AFTER   3       /* failures to load in a row */
#define SUPER_RETRY_MS      20      /* a worker's socket was full */

/* signalfd, listening socket, lifelines, connections, workers. */
#define SUPER_POLLS_MAX  (2 + SUPER_GENS_MAX + SUPER_CONNS_MAX \
                          + SHR_WORKERS_MAX)

#define MS  1000000ull              /* nanoseconds */


typedef struct {
    uint64_t     id[2];
    shr_geom_t   geom;
    int          foreign_pids;      /* clients in another pid namespace */
    uint32_t     nfds;
    int         *fds;               /* as in shr_ctl.h */
    void        *regions[SHR_WORKERS_MAX];      /* worker regions, read-write */
    uint32_t     sent[SHR_WORKERS_MAX];         /* descriptors handed over */
} super_gen_t;

/* Descriptors of a generation by kind. */
#define gen_lifeline(g)      ((g)->fds[0])
#define gen_client(g, c)     ((g)->fds[1 + (c)])
#define gen_worker(g, w)     ((g)->fds[1 + (g)->geom.nclients + (w)])
#define gen_bells(g)         ((g)->fds + 1 + (g)->geom.nclients \
                              + (g)->geom.nworkers)
#define gen_doorbell(g, w)   ((g)->fds[1 + 2 * (g)->geom.nclients \
                              + (g)->geom.nworkers + (w)])

typedef enum {
    SUPER_IDLE = 0,                 /* no process; starts at due_ns */
    SUPER_LOADING,
    SUPER_READY
} super_phase_t;

typedef struct {
    super_phase_t  phase;
    pid_t          pid;
    int            ctl;             /* -1: none */
    uint64_t       due_ns;
    uint64_t       started_ns;
    uint64_t       ready_ns;
    uint32_t       failures;        /* in a row */
    uint64_t       beat;            /* last seen: a foreign value */
    uint64_t       still_ns;        /* it has stood still for so long */
    int            hung;            /* killed for that */
    char           reason[SUPER_REASON_MAX];    /* why it could not load */
} super_worker_t;

typedef struct {
    int            fd;              /* -1: free */
    int            foreign_pids;
    wrk_rx_t       rx;
} super_conn_t;

typedef struct {
    const wrk_super_opts_t  *opts;
    int                      lock_fd;
    int                      listen_fd;
    int                      signal_fd;
    int                      exe_fd;
    int                      weights_fd;    /* -1 until the first attach */
    char                     image[PATH_MAX];   /* of the tokenizer */

    int                      configured;
    uint64_t                 model_hash;
    uint32_t                 text_len;
    char                     text[SHR_CTL_TEXT_MAX];
    wrk_conf_t               conf;

    uint64_t                 now;           /* CLOCK_MONOTONIC of this turn */
    uint64_t                 watched_ns;    /* of the last look at beats */
    uint64_t                 alone_ns;      /* since when without generation */
    int                      draining;
    uint64_t                 drain_ns;      /* then SIGKILL */
    int                      end;           /* leave the loop now */

    uint32_t                 ngens;
    super_gen_t             *gens[SUPER_GENS_MAX];
    super_worker_t           workers[SHR_WORKERS_MAX];
    super_conn_t             conns[SUPER_CONNS_MAX];
} super_t;


uint64_t super_clock(void);

/* wrk_super_gen.c */

/* Takes a checked-in generation over, its descriptors too (whatever the
 * result).  0, or -1 with the reason for the keeper in why. */
int super_attach(super_t *s, wrk_rx_t *rx, int foreign_pids,
    char why[SUPER_REASON_MAX]);
super_gen_t *super_find(super_t *s, const uint64_t id[2]);
void super_drop_gen(super_t *s, uint32_t i);
/* The same before that end, for nginx has another pool now. */
void super_detach(super_t *s, const uint64_t id[2]);
void super_free_gens(super_t *s);
/* The worker has died: all clients are told. */
void super_worker_gone(super_t *s, uint32_t w);
/* Hands over what the worker does not have yet; 1: its socket is full. */
int super_send_gens(super_t *s, uint32_t w);

/* wrk_super_worker.c */

void super_reap(super_t *s);
/* Starts, watches and kills what is due; lowers *wait_ns to the next time. */
void super_tend(super_t *s, uint64_t *wait_ns);
/* Reads what a worker has to say. */
void super_hear(super_t *s, uint32_t w);
/* SIGTERM came: no more starts, what runs may finish. */
void super_drain(super_t *s);
/* Kills and forgets all workers; waits for each, which is short. */
void super_kill_all(super_t *s);
uint32_t super_alive(const super_t *s);

/* wrk_super_ctl.c */

void super_accept(super_t *s);
void super_talk(super_t *s, super_conn_t *conn);


#endif /* WRK_SUPER_INT_H */
