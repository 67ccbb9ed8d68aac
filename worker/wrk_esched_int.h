/*
 * Inside the encoder scheduler: what wrk_esched*.c share.  Nobody else
 * includes this but its tests.
 */

#ifndef WRK_ESCHED_INT_H
#define WRK_ESCHED_INT_H

#include "worker/wrk_esched.h"
#include "worker/wrk_fair.h"
#include "worker/wrk_link.h"
#include "worker/wrk_req.h"
#include "worker/wrk_sched_int.h"
#include "worker/wrk_sched_mem.h"


#define WRK_EREQ_TOKENS_MAX   (16u << 20)   /* of one request */


typedef enum {
    WRK_EREQ_FREE = 0,
    WRK_EREQ_QUEUED,            /* nothing of it has run */
    WRK_EREQ_RUNNING
} wrk_ereq_state_t;

typedef struct {
    wrk_link_t             link;        /* free, queue or running */
    wrk_ereq_state_t       state;
    void                  *block;       /* all that varies */
    wrk_sink_t             sink;
    char                   id[33];      /* for logs; maybe cut */
    wrk_fair_item_t        fair;        /* its place among those that wait */

    uint32_t               task, flags;
    uint64_t               queued_ns, deadline_ns, queue_deadline_ns;
    uint64_t               came_ns, started_ns, first_ns, last_ns;
    uint64_t               share;       /* whose it is */
    int32_t                priority;

    uint32_t               ninputs, ntokens;
    uint32_t              *at;          /* ninputs + 1: where each begins */
    uint32_t              *second;      /* of each: its tokens of type 0 */
    uint32_t              *ids;
    tok_span_t            *offsets;     /* tokenize: NULL, or one per id */

    uint32_t               width;       /* values of a row that is sent */
    uint32_t               window;      /* rows that may wait */
    float                 *rows;        /* row i at (i % window) * width */
    uint32_t               taken;       /* rows in a batch, or computed */
    uint32_t               ready;       /* rows computed */
    uint64_t               sent;        /* values */
    uint32_t               nlabels;     /* to be told first */
    uint32_t               labels_sent;

    uint8_t                news;        /* got rows of this batch */
} wrk_ereq_t;

/* One input as it came. */
typedef struct {
    wrk_bytes_t  a, b;                  /* b.data NULL: no pair */
} wrk_einput_t;

/* What came, decoded: spans of the request's copy. */
typedef struct {
    shr_req_t      fixed;
    uint32_t       ninputs;
    uint32_t       type;                /* SHR_R_PROMPT or SHR_R_PROMPT_IDS */
    uint32_t       npairs;
    wrk_bytes_t    query;
    wrk_bytes_t    id;
    wrk_einput_t   inputs[SHR_INPUTS_MAX];
} wrk_ein_t;

/* One sequence of the batch. */
typedef struct {
    wrk_ereq_t  *request;               /* NULL: it has gone */
    uint32_t     row, len;
    uint32_t     place;                 /* in the batch */
} wrk_emember_t;

struct wrk_esched_s {
    wrk_esched_opts_t   opts;
    const wrk_eeng_t   *eng;
    const tok_t        *tok;
    tok_scratch_t      *scratch;
    wrk_mem_t           mem;
    uint32_t            max_seq;

    uint32_t            nrequests;
    wrk_ereq_t         *requests;
    wrk_link_t          free, queue, running;   /* queue: as they came */
    wrk_fair_t          fair;           /* whose turn it is in the queue */

    wrk_ein_t           in;             /* the one being submitted */
    uint32_t           *ids;            /* its tokens */
    const tok_span_t   *offsets;        /* tokenize, when asked for */
    size_t              ids_cap;
    uint32_t            at[SHR_INPUTS_MAX + 1];
    uint32_t            second[SHR_INPUTS_MAX];
    wrk_req_error_t     err;

    wrk_emember_t      *members;        /* as they were taken */
    uint64_t           *keys;           /* to sort them by */
    uint32_t            nmembers, ntokens;
    uint32_t           *batch_ids;
    uint8_t            *batch_types;
    uint32_t           *batch_at;
    float              *out;            /* of the engine, a row per member */
    int                 pending;        /* a step runs elsewhere */
    uint64_t            pending_ns;
    int                 again;          /* something changed: step again */
    int                 parked;

    uint64_t            next_deadline;  /* none is earlier */
    uint32_t            waiting, waiting_tokens, waiting_inputs, nrunning;
    uint64_t            count[SHR_NCOUNTERS];
};

/* link is the first member. */
#define wrk_link_ereq(l)  ((wrk_ereq_t *) (l))
#define wrk_fair_ereq(item)                                                   \
    ((wrk_ereq_t *) ((char *) (item) - offsetof(wrk_ereq_t, fair)))


/* --- wrk_esched_req.c --------------------------------------------------- */

/* Decodes a block that passed shr_req_check() into s->in; 0, or -1 with
   s->err. */
int wrk_ein_decode(wrk_esched_t *s, const void *buf, size_t len);
/* Tokenizes s->in into s->ids, s->at and s->second; 0, or -1. */
int wrk_ein_tokenize(wrk_esched_t *s);


/* --- wrk_esched_life.c -------------------------------------------------- */

/* Ends a request with s->err. */
void wrk_ereq_fail(wrk_esched_t *s, wrk_ereq_t *r);
/* Ends it without a word more. */
void wrk_ereq_drop(wrk_esched_t *s, wrk_ereq_t *r);
/* Calls done() and frees the entry. */
void wrk_ereq_done(wrk_esched_t *s, wrk_ereq_t *r);
/* Out of the queue and running. */
void wrk_ereq_start(wrk_esched_t *s, wrk_ereq_t *r, uint64_t now_ns);
/* Drops the cancelled, fails the late. */
void wrk_esched_sift(wrk_esched_t *s, uint64_t now_ns);


/* --- wrk_esched_batch.c ------------------------------------------------- */

/* Fills the batch; when it should wait for more, there is none. */
void wrk_ebatch_plan(wrk_esched_t *s, uint64_t now_ns);
/* Runs it.  1: results are there; 0: later, or the engine has failed and
   everybody in the batch was ended. */
int wrk_ebatch_run(wrk_esched_t *s, uint64_t now_ns);
/* Hands the results to their requests. */
void wrk_ebatch_apply(wrk_esched_t *s, uint64_t now_ns);
/* When a batch that waits for more runs at the latest; UINT64_MAX: none. */
uint64_t wrk_ebatch_due(const wrk_esched_t *s);


/* --- wrk_esched_out.c --------------------------------------------------- */

void wrk_eout_start(wrk_ereq_t *r);
void wrk_eout_error(wrk_ereq_t *r, const wrk_req_error_t *err);
/* Stores a finished row. */
void wrk_eout_row(const wrk_esched_t *s, wrk_ereq_t *r, uint32_t row,
    float *v);
/* Sends what there is room for; ends the request after its last row. */
void wrk_eout_send(wrk_esched_t *s, wrk_ereq_t *r);


#endif /* WRK_ESCHED_INT_H */
