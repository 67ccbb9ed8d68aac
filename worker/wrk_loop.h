/*
 * The inference worker: one process, one loop that takes requests out of
 * shared memory, drives the scheduler, and waits when there is nothing to do.
 */

#ifndef WRK_LOOP_H
#define WRK_LOOP_H

#include <stdint.h>


typedef struct {
    int          ctl;           /* to the supervisor; not closed */
    int          weights_fd;    /* the pool's memfd, -1: none */
    const char  *tok_image;     /* where the pool keeps its tokenizer's image
                                   if no cache folder is configured; NULL */
    uint64_t     started_ns;    /* CLOCK_MONOTONIC, for the load time */
} wrk_loop_opts_t;


/* Serves until the pool ends or SIGTERM; the exit status of the process. */
int wrk_loop_run(const wrk_loop_opts_t *opts);


#endif /* WRK_LOOP_H */
