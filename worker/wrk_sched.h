/*
 * The scheduler: requests in, response frames out.  It tokenizes, checks,
 * queues, batches running sequences and chunks of prompts into engine steps,
 * samples, detokenizes, matches stop strings and writes frames.  It neither
 * waits nor knows shared memory: the loop hands it private copies of requests
 * and a sink per request, and calls wrk_sched_step() while there is work.
 *
 * Who may call: the loop thread of one inference worker, tests.  All memory
 * is taken in wrk_sched_create(); nothing is allocated afterwards, but by the
 * tokenizer's scratch while it meets a longer text than ever before.
 */

#ifndef WRK_SCHED_H
#define WRK_SCHED_H

#include <stddef.h>
#include <stdint.h>

#include "shm/shr_layout.h"
#include "shm/shr_msg.h"
#include "tokenizer/tok.h"
#include "worker/chat/chat.h"
#include "worker/engine/eng.h"
#include "worker/wrk_sink.h"


/* Limits.  Values of wrk_sched_opts_t are cut to these. */
#define WRK_SCHED_QUEUE_MAX       65536u    /* requests waiting */
#define WRK_SCHED_REQUEST_BYTES   (4u << 20) /* default of request_bytes_max */
#define WRK_SCHED_GAP_MS          100u      /* default of gap_ms */


typedef struct wrk_sched_s  wrk_sched_t;


typedef struct {
    uint32_t     sequences;         /* running at once; <= limits.max_seqs */
    uint32_t     batch;             /* tokens of a step; 0: the engine's */
    uint32_t     queue_requests;    /* waiting; beyond: SHR_E_OVERLOADED */
    uint32_t     queue_tokens;      /* their prompt tokens; 0: no limit.  An
                                       empty queue takes any one request */
    uint32_t     gap_ms;            /* bound of the gap between two tokens of
                                       a running stream; 0: the default */
    uint32_t     request_bytes_max; /* largest request that will come */
    uint64_t     kv_page_bytes;     /* for SHR_G_KV_*; may be 0 */
    uint32_t     prefix_cache;      /* 1: prompts that begin like earlier ones
                                       of their scope reuse their pages */
    uint32_t     prefix_hash_bits;  /* 64; tests take fewer */
    uint32_t     speculate;         /* 1: tokens are guessed from the text so
                                       far where that pays */
    uint32_t     prompt_max;        /* tokens; 0: what the context has room
                                       for.  Else the model has an encoder:
                                       the answer is a text of its own, and
                                       prompts cannot be echoed */
    uint32_t     answer_max;        /* tokens; 0: likewise */
    uint32_t     beams;             /* 1: the engine can search (wrk_t2t.h);
                                       then answer_max is not 0 */
    uint64_t     seed;              /* of requests without one; 0: random */
    const char  *name;              /* of the model, for messages */
    /* CLOCK_MONOTONIC in ns when NULL; a simulation brings its own. */
    uint64_t   (*clock)(void *data);
    void        *clock_data;
} wrk_sched_opts_t;


/* Sets every option to its default. */
void wrk_sched_opts_init(wrk_sched_opts_t *opts);

/*
 * The engine, tokenizer and template stay the caller's and must outlive the
 * scheduler; tmpl may be NULL (chat requests are refused as unsupported).
 * NULL when memory is short; then *why, if given, is a line for people.
 */
wrk_sched_t *wrk_sched_create(const wrk_sched_opts_t *opts, eng_t *eng,
    const tok_t *tok, const chat_template_t *tmpl, const char **why);

/* Every request must have ended (wrk_sched_idle). */
void wrk_sched_destroy(wrk_sched_t *s);

/*
 * Takes a request.  req is a private copy of len bytes that passed
 * shr_req_check(); it is 8-aligned and read during the call only.  Errors are
 * answered through the sink, so done() may be called before this returns.
 * ops and ctx stay the caller's until done().
 */
void wrk_sched_submit(wrk_sched_t *s, const void *req, size_t len,
    const wrk_sink_ops_t *ops, void *ctx, uint64_t now_ns);

/*
 * Drops what was cancelled or is late, resumes what has room again, then runs
 * at most one engine step.  1: call again, there is work that can run now.
 * 0: nothing to do until a request comes, a paused client has read, or
 * wrk_sched_next_ns().
 */
int wrk_sched_step(wrk_sched_t *s, uint64_t now_ns);

/* When to call wrk_sched_step() at the latest: the next deadline, or the end
 * of a step that the engine runs elsewhere.  UINT64_MAX: no such time. */
uint64_t wrk_sched_next_ns(const wrk_sched_t *s);

/* 1: no request is held (for draining). */
int wrk_sched_idle(const wrk_sched_t *s);

/* Ends every request with SHR_E_SHUTDOWN. */
void wrk_sched_shutdown(wrk_sched_t *s);

/* Sets the gauges and counters that the scheduler knows, leaves the rest as
 * it is: WAITING, WAITING_TOKENS, RUNNING, KV_USED, KV_TOTAL, CONTEXT and all
 * SHR_C_*. */
void wrk_sched_stats(const wrk_sched_t *s, uint64_t value[SHR_NCOUNTERS]);


#endif /* WRK_SCHED_H */
