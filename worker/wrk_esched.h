/*
 * The scheduler of encoders: texts in, vectors, scores or class probabilities
 * out.  Beside wrk_sched.h, which generates: same sinks, same frames for what
 * is common, same rules for deadlines, cancellation and full queues.
 *
 * A request has up to SHR_INPUTS_MAX inputs, each one sequence.  Batches are
 * packed (no padding) up to a number of tokens; a large request is split over
 * batches and gives way to others in each.  Results wait in a small window of
 * their request until its ring has room: a slow reader pauses only itself.
 *
 * Who may call: the loop thread of one inference worker, tests.  All memory is
 * taken in wrk_esched_create(), but for the tokenizer's scratch while it meets
 * a longer text than ever before.
 */

#ifndef WRK_ESCHED_H
#define WRK_ESCHED_H

#include "tokenizer/tok.h"
#include "worker/wrk_eeng.h"
#include "worker/wrk_sched.h"


/* Results of a request that wait for room; one row if that is more. */
#define WRK_ESCHED_WINDOW_BYTES  (256u << 10)


typedef struct wrk_esched_s  wrk_esched_t;

typedef struct {
    uint32_t     context;           /* tokens of an input; 0: the model's */
    uint32_t     batch;             /* tokens of a batch; 0: the engine's.
                                       Raised to one input's */
    uint32_t     sequences;         /* of a batch; 0: the engine's */
    uint32_t     queue_requests;    /* waiting; beyond: SHR_E_OVERLOADED */
    uint32_t     queue_tokens;      /* of theirs; 0: no limit.  An empty queue
                                       takes any one request */
    uint32_t     delay_us;          /* how long the first of a batch that is
                                       not full may wait for others; 0: runs
                                       at once */
    const char  *name;              /* of the model, for messages */
    /* CLOCK_MONOTONIC in ns when NULL; a simulation brings its own. */
    uint64_t   (*clock)(void *data);
    void        *clock_data;
} wrk_esched_opts_t;


/* Sets every option to its default. */
void wrk_esched_opts_init(wrk_esched_opts_t *opts);

/* The engine and the tokenizer stay the caller's and must outlive it.  NULL:
 * no memory. */
wrk_esched_t *wrk_esched_create(const wrk_esched_opts_t *opts,
    const wrk_eeng_t *eng, const tok_t *tok);
/* Every request must have ended (wrk_esched_idle). */
void wrk_esched_destroy(wrk_esched_t *s);

/* These are as their namesakes in wrk_sched.h. */
void wrk_esched_submit(wrk_esched_t *s, const void *req, size_t len,
    const wrk_sink_ops_t *ops, void *ctx, uint64_t now_ns);
int wrk_esched_step(wrk_esched_t *s, uint64_t now_ns);
uint64_t wrk_esched_next_ns(const wrk_esched_t *s);
int wrk_esched_idle(const wrk_esched_t *s);
void wrk_esched_shutdown(wrk_esched_t *s);
void wrk_esched_stats(const wrk_esched_t *s, uint64_t value[SHR_NCOUNTERS]);

/* Tokens of an input, specials included: what is served. */
uint32_t wrk_esched_context(const wrk_esched_t *s);


#endif /* WRK_ESCHED_H */
