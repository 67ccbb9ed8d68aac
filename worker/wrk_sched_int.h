/*
 * Inside the scheduler: what wrk_sched*.c share.  Nobody else includes this
 * but its tests.
 *
 * A *request* holds what came and where its frames go.  Its *choices* (prompts
 * times n) run in *seats*; a seat holds one engine sequence, the tokens so far
 * and the text not yet sent.  `computed` of `ntokens` tokens are in the KV
 * cache: the first pass over a prompt, a decode step and the recomputation
 * after a preemption differ in the distance between the two only.
 */

#ifndef WRK_SCHED_INT_H
#define WRK_SCHED_INT_H

#include "worker/wrk_fair.h"
#include "worker/wrk_link.h"
#include "worker/wrk_prefix.h"
#include "worker/wrk_req.h"
#include "worker/wrk_sample.h"
#include "worker/wrk_sched.h"
#include "worker/wrk_sched_mem.h"
#include "worker/wrk_stop.h"


#define WRK_SEAT_NONE         UINT32_MAX
#define WRK_PRIME_TOKENS      4u        /* of the prompt, for the detokenizer */
#define WRK_WANTED_PER_STEP   256u      /* waiting requests looked at */
#define WRK_CHUNK_MIN         8u        /* prompt tokens of a step */
#define WRK_ECHO_BYTES        2000u     /* of a prompt, in one frame */
#define WRK_SEAT_SPREAD       80u       /* tokens (5 lines) between seats, so
                                           that they share no cache sets */
#define WRK_WHOLE_BYTES       512u      /* kept back of a text not streamed */
#define WRK_WHOLE_NS          20000000u /* and how long its frames may wait */

#define wrk_min(a, b)  ((a) < (b) ? (a) : (b))
#define wrk_max(a, b)  ((a) > (b) ? (a) : (b))


typedef enum {
    WRK_SEAT_FREE = 0,
    WRK_SEAT_START,             /* has no KV pages: new, or preempted */
    WRK_SEAT_RUN
} wrk_seat_state_t;

typedef enum {
    WRK_REQUEST_FREE = 0,
    WRK_REQUEST_QUEUED,         /* nothing of it has run */
    WRK_REQUEST_RUNNING,
    WRK_REQUEST_REPLY           /* tokens or text to be sent, no sequence */
} wrk_request_state_t;

typedef struct wrk_request_s  wrk_request_t;

struct wrk_request_s {
    wrk_link_t             link;        /* free, queue, running or replies */
    wrk_fair_item_t        fair;        /* its place among those that wait */
    wrk_request_state_t    state;
    void                  *block;       /* ids and all that varies */
    wrk_sink_t             sink;
    uint64_t               number;      /* age: smaller is older */

    uint32_t               task, flags, n, top_logprobs;
    uint32_t               beams;       /* of a search; 0: none */
    float                  length_penalty;
    uint32_t               max_tokens;
    uint64_t               queued_ns, deadline_ns, queue_deadline_ns;
    uint64_t               scope;       /* prefixes are shared inside it */
    uint64_t               share;       /* key of its share */
    int32_t                priority;
    char                   id[33];      /* for logs; maybe cut */
    wrk_sample_params_t    sample;
    wrk_stop_set_t         stops;
    uint32_t               nstop_ids;
    uint32_t              *stop_ids;

    uint32_t               nprompts;
    uint32_t               prompt_tokens;   /* of all prompts */
    uint32_t               nchoices;
    uint32_t               admitted;    /* choices that got a seat */
    uint32_t               finished;
    uint32_t              *at;          /* nprompts + 1: where each begins */
    uint32_t              *ids;

    /* replies: at[] counts tokens, or bytes of the text */
    uint32_t               reply_prompt, reply_at;      /* sent so far */
    char                  *text;        /* detokenize; else NULL */
    tok_span_t            *offsets;     /* or NULL */

    uint8_t                short_room;  /* something found no room this step */
    size_t                 room_seen;   /* what the sink said */
    size_t                 room;        /* of it, not yet promised */

    uint32_t               completion_tokens;
    uint32_t               cached_tokens;   /* of its prompts */
    uint64_t               started_ns, first_ns, last_ns;
    uint64_t               told_ns;     /* last publication */
};

typedef struct {
    wrk_seat_state_t   state;
    uint8_t            paused;          /* no room for its next token */
    uint8_t            counted;         /* its cached tokens have been told */
    wrk_path_t         path;            /* its pages in the prefix cache */
    uint32_t           seq;             /* of the engine, opened once */
    wrk_request_t     *request;
    uint32_t           choice, prompt;  /* of the request */
    uint32_t           ntokens, nprompt, computed, reserved;
    uint32_t           max_tokens;
    uint32_t           echo_at;         /* prompt tokens sent; nprompt: all */
    uint32_t           batch_n;         /* tokens in this step */
    uint32_t           nrows;           /* its last tokens that want logits */
    uint32_t           row_at;          /* the first of them in the batch */
    uint32_t           forced_at;       /* and among all that want logits */
    uint32_t           ndraft;          /* of them, guessed */
    uint32_t           spec_k;          /* drafts to try next */
    uint32_t           spec_wait;       /* tokens until then */
    uint32_t           spec_miss;       /* and after the next miss */
    uint32_t           held;            /* other beams of its search */
    uint32_t           nfound;          /* tokens that it has found */
    uint32_t           chars;           /* of the choice's text */
    uint32_t           pend_len;
    uint32_t          *tokens;          /* prompt and generated, ctx long */
    float             *logprobs;        /* of what was found */
    char              *pend;            /* text not yet sent */
    tok_stream_t       stream;
    wrk_stop_state_t   stop;
} wrk_seat_t;

struct wrk_sched_s {
    wrk_sched_opts_t   opts;
    eng_t             *eng;
    const tok_t       *tok;
    wrk_enc_t         *enc;
    wrk_sampler_t     *sampler;
    wrk_prefix_t      *prefix;          /* NULL: off */
    wrk_mem_t          mem;
    const uint32_t    *eos;
    size_t             neos;
    size_t             piece_room;      /* tok_stream_room */
    size_t             pend_cap;
    uint32_t           ctx;             /* longest sequence served */
    uint32_t           vocab;
    uint64_t           number;

    uint32_t           nrequests;
    wrk_request_t     *requests;
    wrk_link_t         free, queue, running, replies;
    wrk_fair_t         fair;            /* whose turn it is in the queue */
    wrk_link_t        *glance;          /* next of the queue to look at */
    wrk_request_t     *partial;         /* running, choices without a seat */

    uint32_t           nseats;
    wrk_seat_t        *seats;
    uint32_t          *order;           /* seats in use, the oldest first */
    uint32_t           nused, nheld;    /* seats; seats' worth of beams */
    uint32_t          *tokens;
    size_t             stride;          /* of a seat in tokens */
    char              *pend;
    float             *logprobs;        /* answer_max of each seat */

    eng_tok_t         *batch;
    uint32_t           nbatch, nrows, ndecode;
    uint32_t          *members;         /* seats in the batch */
    uint32_t           nmembers;
    uint32_t           drafts_max;      /* of a seat in this step */
    uint32_t           ndrafts;         /* in the batch */
    uint32_t           nwaits;          /* seats for another's prefill */
    int                again;           /* something changed: step again */
    int                parked;          /* the engine's threads sleep */
    const float      **rows;            /* per token of the batch */
    uint32_t          *forced;          /* of an engine that picks itself */
    int                pending;         /* a step runs elsewhere */
    uint64_t           pending_ns;

    /* moving averages, ns */
    double             cost_decode;     /* a step without prompt tokens */
    double             cost_token;      /* a prompt token */
    double             cost_over;       /* times both that a step takes */

    uint64_t           next_deadline;   /* none is earlier */
    uint32_t           waiting, waiting_tokens;
    uint64_t           count[SHR_NCOUNTERS];
    wrk_req_t          req;             /* the one being submitted */
    wrk_prompts_t      prompts;
    wrk_req_error_t    err;
    char               piece[];         /* piece_room, twice */
};


/* link is the first member. */
#define wrk_link_request(l)  ((wrk_request_t *) (l))
#define wrk_fair_request(item)                                                \
    ((wrk_request_t *) ((char *) (item) - offsetof(wrk_request_t, fair)))


/* --- wrk_sched_life.c: requests and seats come and go ------------------- */

/* Ends a request with an error; its seats are given back. */
void wrk_request_fail(wrk_sched_t *s, wrk_request_t *r,
    const wrk_req_error_t *err);
/* Ends it without a word more: it was cancelled. */
void wrk_request_drop(wrk_sched_t *s, wrk_request_t *r);
wrk_request_t *wrk_request_new(wrk_sched_t *s);
void wrk_request_queue(wrk_sched_t *s, wrk_request_t *r, uint64_t now_ns);
/* Looks at some of the queue and drops what was cancelled. */
void wrk_sched_sift_queue(wrk_sched_t *s);
/* Calls the sink's done() and frees the entry. */
void wrk_request_done(wrk_sched_t *s, wrk_request_t *r);
/* All choices have finished, or the reply is sent. */
void wrk_request_end(wrk_sched_t *s, wrk_request_t *r);
/* The cancelled and the late. */
void wrk_sched_sift(wrk_sched_t *s, uint64_t now_ns);
/* Gives free seats to the oldest choices. */
void wrk_sched_admit(wrk_sched_t *s, uint64_t now_ns);
/* A seat is done; its pages go back. */
void wrk_seat_free(wrk_sched_t *s, wrk_seat_t *seat);


/* --- wrk_sched_batch.c: a step ------------------------------------------ */

/* Fills the batch.  Choices that need no (more) tokens end here. */
void wrk_batch_plan(wrk_sched_t *s);
/* Runs it.  1: results are there; 0: later, or the engine has failed and
   every request in the batch was ended. */
int wrk_batch_run(wrk_sched_t *s, uint64_t now_ns);
/* Takes its results. */
void wrk_batch_apply(wrk_sched_t *s, uint64_t now_ns);
/* Promises room for one token more of this seat; 0: there is none. */
int wrk_seat_promise(wrk_sched_t *s, wrk_seat_t *seat);


/* --- wrk_sched.c -------------------------------------------------------- */

uint64_t wrk_sched_now(const wrk_sched_t *s);


#include "worker/wrk_beam_int.h"    /* wrk_sched_beam.c: searches */
#include "worker/wrk_kv_int.h"      /* wrk_sched_kv.c: pages */
#include "worker/wrk_out_int.h"     /* wrk_sched_out.c: frames */
#include "worker/wrk_spec_int.h"    /* wrk_sched_spec.c: guesses */


#endif /* WRK_SCHED_INT_H */
