/*
 * The supervisor of one pool: a process of its own session between nginx and
 * the inference workers of one model.  It takes generations (configuration
 * loads) from nginx's keeper over a control socket, starts the workers, hands
 * each generation to them, starts a worker again that died or hangs, and ends
 * when no generation is left.  It never touches a request.
 *
 * Nothing survives it and nothing needs to: its workers are killed by the
 * kernel when it dies, and its successor is told everything again.
 */

#ifndef WRK_SUPER_H
#define WRK_SUPER_H

#include <stdint.h>


typedef struct {
    const char  *socket;            /* absolute path of the control socket */
    uint32_t     hang_ms;           /* no beat for so long: killed */
    uint32_t     backoff_max_ms;    /* longest pause before a start */
    uint32_t     drain_ms;          /* after SIGTERM, before SIGKILL */
    int          keep;              /* stay without any generation */
    int          core;              /* core files are wanted */
    int          verbose;
} wrk_super_opts_t;

#define WRK_SUPER_OPTS_INIT  { NULL, 60000, 10000, 30000, 0, 0, 0 }

#define WRK_SUPER_HANG_MS_MIN       100
#define WRK_SUPER_HANG_MS_MAX       3600000
#define WRK_SUPER_BACKOFF_MS_MIN    50
#define WRK_SUPER_BACKOFF_MS_MAX    600000
#define WRK_SUPER_DRAIN_MS_MAX      3600000

/* Descriptors that a worker finds open. */
#define WRK_FD_CTL      3           /* to its supervisor */
#define WRK_FD_LOCK     4           /* held as long as a worker lives */
#define WRK_FD_WEIGHTS  5           /* memfd that a pool's workers share */


/* Runs until the pool ends; the exit status of the process. */
int wrk_super_run(const wrk_super_opts_t *opts);

/* The pause before the next start of a worker, in ms: none after a worker that
 * had served for long, then 50 ms, doubled for each further failure.  *step
 * counts the failures. */
uint32_t wrk_super_backoff_ms(uint32_t *step, uint64_t ready_for_ms,
    uint32_t max_ms);


#endif /* WRK_SUPER_H */
