/*
 * What answers a worker's requests: the scheduler that its model asks for, one
 * that generates (wrk_sched.h) or one for encoders (wrk_esched.h).  The loop
 * calls these and knows no more.
 *
 * Who may call: the loop thread of one inference worker.
 */

#ifndef WRK_SERVE_H
#define WRK_SERVE_H

#include "worker/wrk_conf.h"
#include "worker/wrk_esched.h"
#include "worker/wrk_model.h"
#include "worker/wrk_sched.h"


/* One of them is set. */
typedef struct {
    wrk_sched_t   *gen;
    wrk_esched_t  *enc;
} wrk_serve_t;


/* Bytes of the largest request that the model could need. */
size_t wrk_serve_request_bytes(const wrk_model_t *m);

/* 0, or -1 with a line for people in *why.  The model must outlive it. */
int wrk_serve_open(wrk_serve_t *v, wrk_model_t *m, const wrk_conf_t *conf,
    size_t request_bytes, const char **why);

/* As their namesakes in wrk_sched.h. */
void wrk_serve_submit(wrk_serve_t *v, const void *req, size_t len,
    const wrk_sink_ops_t *ops, void *ctx, uint64_t now_ns);
int wrk_serve_step(wrk_serve_t *v, uint64_t now_ns);
uint64_t wrk_serve_next_ns(const wrk_serve_t *v);
int wrk_serve_idle(const wrk_serve_t *v);
void wrk_serve_stats(const wrk_serve_t *v, uint64_t value[SHR_NCOUNTERS]);


#endif /* WRK_SERVE_H */
