/*
 * What the request side shares: the state of a request, and the functions of
 * its files in the order of a request's way.
 */

#ifndef NGX_HTTP_INFER_API_H
#define NGX_HTTP_INFER_API_H

#include "ngx_module/ngx_http_infer.h"
#include "ngx_module/ngx_http_infer_limit.h"
#include "ngx_module/ngx_http_infer_out.h"


#define NGX_HTTP_INFER_STOPS_MAX    16
#define NGX_HTTP_INFER_STOP_BYTES   256         /* of one stop string */
#define NGX_HTTP_INFER_BIASES_MAX   1024
#define NGX_HTTP_INFER_LISTS        4           /* of logprobs, completions */
#define NGX_HTTP_INFER_ID_LEN       32


/* An error to be told: OpenAI's object and its headers. */
typedef struct {
    ngx_uint_t                      native;     /* another object instead: */
#define NGX_HTTP_INFER_NATIVE_TEI   1           /* embeddings-inference's */
#define NGX_HTTP_INFER_NATIVE_TGI   2           /* generation-inference's */
    ngx_uint_t                      status;
    const char                     *type;
    const char                     *code;       /* NULL: null */
    ngx_str_t                       param;      /* empty: null */
    ngx_str_t                       message;
    ngx_msec_t                      retry;      /* 0: do not retry */
} ngx_http_infer_error_t;


/* See the headers of these names. */
typedef struct ngx_http_infer_encode_s  ngx_http_infer_encode_t;
typedef struct ngx_http_infer_generate_s  ngx_http_infer_generate_t;


typedef struct {
    ngx_http_infer_out_t            text;
    ngx_http_infer_out_t            lists[NGX_HTTP_INFER_LISTS];
    ngx_uint_t                      nlogprobs;  /* in the lists */
    size_t                          held;       /* bytes of them, as frames */
    ngx_uint_t                      reason;     /* shr_finish_reason_t or 0 */
    unsigned                        begun:1;
} ngx_http_infer_choice_t;


struct ngx_http_infer_ctx_s {
    void                           *ident[3];   /* nginx's debug log takes */
    ngx_socket_t                    ident_fd;   /* this for a connection */

    ngx_http_request_t             *request;
    ngx_http_infer_loc_conf_t      *conf;
    ngx_http_infer_model_t         *model;
    ngx_http_infer_pool_t          *pool;
    shr_req_t                       req;
    ngx_msec_t                      timeout;    /* of this request */
    ngx_event_t                     timer;
    ngx_http_infer_holds_t         *holds;      /* NULL: no limits */
    ngx_queue_t                     queue;      /* of those with news */
    ngx_str_t                       body;
    u_char                          id[NGX_HTTP_INFER_ID_LEN];

    uint32_t                        slot;
    uint32_t                        worker;
    ngx_uint_t                      retries;

    ngx_http_infer_error_t          error;
    ngx_http_infer_out_t            out;
    ngx_http_infer_api_e            api;
    ngx_http_infer_encode_t        *encode;     /* NULL: it generates */
    ngx_http_infer_generate_t      *generate;   /* NULL: in OpenAI's words */
    ngx_http_infer_choice_t        *choices;
    ngx_uint_t                      nchoices;
    ngx_str_t                       chunk;      /* head of each SSE chunk */
    size_t                          nids;       /* tokenize */
    size_t                          bytes;      /* of text and entries */
    ngx_chain_t                    *instead;    /* of nginx's error page */

    uint64_t                        first_ns;   /* first text */
    uint64_t                        last_ns;    /* last text */
    uint64_t                        ping_ns;    /* last sign of life */
    uint64_t                        end_ns;
    shr_usage_t                     usage;
    ngx_uint_t                      reason;

    unsigned                        claimed:1;  /* slot is ours */
    unsigned                        queued:1;   /* in the list of news */
    unsigned                        stream:1;
    unsigned                        include_usage:1;
    unsigned                        started:1;  /* START has come */
    unsigned                        sent:1;     /* header was sent */
    unsigned                        said:1;     /* and some of the answer */
    unsigned                        ended:1;    /* END or ERROR has come */
    unsigned                        finished:1; /* finalized; touch nothing */
    unsigned                        counted:1;  /* in the metrics */
    unsigned                        logprobs_chat:1;
    unsigned                        plain:1;    /* the answer is text */
    void                          (*done)(ngx_http_infer_ctx_t *ctx);
                                /* NULL, or called instead of an answer */
};

#define ngx_http_infer_ctx(r)                                                 \
    ((ngx_http_infer_ctx_t *) ngx_http_get_module_ctx(r,                      \
                                                      ngx_http_infer_module))


uint64_t ngx_http_infer_now(void);              /* CLOCK_MONOTONIC, ns */

/* error: fills ctx->error; always returns NGX_ERROR. */
ngx_int_t ngx_http_infer_fail(ngx_http_infer_ctx_t *ctx, ngx_uint_t status,
    const char *code, const char *param, const char *fmt, ...);
/* Sends ctx->error (no header was sent yet) by error_page, fallback or JSON;
 * what ngx_http_finalize_request() wants. */
ngx_int_t ngx_http_infer_send_error(ngx_http_infer_ctx_t *ctx);
/* The same for requests that have no state yet. */
ngx_int_t ngx_http_infer_refuse(ngx_http_request_t *r, ngx_uint_t status,
    const char *code, const char *fmt, ...);
void ngx_http_infer_render_error(ngx_http_infer_out_t *out,
    ngx_http_infer_error_t *error);
ngx_int_t ngx_http_infer_add_header(ngx_http_request_t *r, const char *name,
    ngx_str_t *value);
ngx_int_t ngx_http_infer_add_request_id(ngx_http_request_t *r);
/* Writes NGX_HTTP_INFER_ID_LEN hexadecimal digits. */
void ngx_http_infer_request_id(ngx_http_request_t *r, u_char *id);
/* A whole JSON or text answer. */
ngx_int_t ngx_http_infer_send_out(ngx_http_request_t *r, ngx_uint_t status,
    const char *type, ngx_http_infer_out_t *out);

/* openai: ctx->body becomes ctx->req and records in w; the writer's buffer is
 * the caller's.  NGX_ERROR: ctx->error says why. */
ngx_int_t ngx_http_infer_parse(ngx_http_infer_ctx_t *ctx,
    shr_req_writer_t *w);

void ngx_http_infer_defaults(shr_req_t *req);

/* dispatch */
ngx_int_t ngx_http_infer_submit(ngx_http_infer_ctx_t *ctx,
    shr_req_writer_t *w);
/* A request that was lost: NGX_OK when it runs again. */
ngx_int_t ngx_http_infer_resubmit(ngx_http_infer_ctx_t *ctx);
void ngx_http_infer_release(ngx_http_infer_ctx_t *ctx);
/* The worker wrote what cannot be: it gets nothing more, its requests move or
 * fail; `broken` (or NULL) is the one that showed it. */
void ngx_http_infer_retire(ngx_http_infer_pool_t *pool, uint32_t worker,
    ngx_http_infer_ctx_t *broken);
#define ngx_http_infer_is_retired(peer, info)                                 \
    ((peer)->retired != 0 && (peer)->retired == (info)->incarnation)
/* A worker's process has changed: finds what was lost. */
void ngx_http_infer_lost(ngx_http_infer_pool_t *pool, uint32_t worker);
ngx_uint_t ngx_http_infer_ready_workers(ngx_http_infer_pool_t *pool);

/* metrics: shared by all nginx workers, kept over reloads. */
typedef enum {
    NGX_HTTP_INFER_SHED_QUEUE = 0,      /* more waiting than allowed */
    NGX_HTTP_INFER_SHED_SLOTS,          /* no slot, no payload memory */
    NGX_HTTP_INFER_SHED_TIMEOUT,        /* waited too long */
    NGX_HTTP_INFER_SHED_DOWN,           /* no worker that could answer */
    NGX_HTTP_INFER_SHED_DISPLACED,      /* gave its place in the queue up */
    NGX_HTTP_INFER_SHED_DEADLINE,       /* would wait too long */
    NGX_HTTP_INFER_SHED_TOKENS,         /* infer_limit_tokens: its rate, */
    NGX_HTTP_INFER_SHED_RUNNING,        /* its concurrency */
    NGX_HTTP_INFER_NSHED
} ngx_http_infer_shed_e;

/* admit: deadline, scope, share and priority of a request that was parsed. */
void ngx_http_infer_set_limits(ngx_http_infer_ctx_t *ctx);
/* Whether it may wait; NGX_ERROR: ctx->error says why not. */
ngx_int_t ngx_http_infer_admit(ngx_http_infer_ctx_t *ctx);
/* A refusal that a later try may not meet; always NGX_ERROR. */
ngx_int_t ngx_http_infer_busy(ngx_http_infer_ctx_t *ctx,
    ngx_http_infer_shed_e reason);
/* Requests that wait, of all nginx workers, and the tokens of them that the
 * inference workers know. */
uint64_t ngx_http_infer_waiting(ngx_http_infer_pool_t *pool,
    uint64_t *tokens);
/* Milliseconds after which a new try makes sense. */
ngx_msec_t ngx_http_infer_retry_after(ngx_http_infer_pool_t *pool);
/* Looks how fast requests end; cheap, to be called often. */
void ngx_http_infer_measure(ngx_http_infer_pool_t *pool);

/* request: the body as one piece in ctx->body. */
ngx_int_t ngx_http_infer_body(ngx_http_infer_ctx_t *ctx);

/* prefix, trace: variables of any location. */
typedef enum {
    NGX_HTTP_INFER_TRACE_ALL = 0,       /* what is passed on */
    NGX_HTTP_INFER_TRACE_ID,
    NGX_HTTP_INFER_TRACE_SPAN,
    NGX_HTTP_INFER_TRACE_PARENT,
    NGX_HTTP_INFER_TRACE_STATE
} ngx_http_infer_trace_e;

ngx_int_t ngx_http_infer_prefix_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
ngx_int_t ngx_http_infer_trace_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);

/* reply: reads frames, sends what they say, finalizes at the end. */
void ngx_http_infer_reply(ngx_http_infer_ctx_t *ctx);
/* Ends with ctx->error: as a status, or as an event of an open stream. */
void ngx_http_infer_reply_error(ngx_http_infer_ctx_t *ctx);
void ngx_http_infer_reply_reset(ngx_http_infer_ctx_t *ctx);
/* Says in a stream that nothing has come for a while.  NGX_ERROR: the request
 * has gone. */
ngx_int_t ngx_http_infer_reply_ping(ngx_http_infer_ctx_t *ctx);
void ngx_http_infer_write_handler(ngx_http_request_t *r);

/* event: puts a request into the list of those with news. */
void ngx_http_infer_news(ngx_http_infer_ctx_t *ctx);

/* render: the dialect's objects. */
ngx_int_t ngx_http_infer_render_init(ngx_http_infer_ctx_t *ctx);
void ngx_http_infer_render_text(ngx_http_infer_ctx_t *ctx, ngx_uint_t choice,
    const u_char *text, size_t len);
void ngx_http_infer_render_logprob(ngx_http_infer_ctx_t *ctx,
    ngx_uint_t choice, const u_char *data, size_t len);
void ngx_http_infer_render_finish(ngx_http_infer_ctx_t *ctx,
    ngx_uint_t choice, ngx_uint_t reason);
void ngx_http_infer_render_ids(ngx_http_infer_ctx_t *ctx, ngx_uint_t pairs,
    const u_char *data, size_t len);
void ngx_http_infer_render_end(ngx_http_infer_ctx_t *ctx);

/* info: GET info */
ngx_int_t ngx_http_infer_info_handler(ngx_http_request_t *r,
    ngx_http_infer_loc_conf_t *ilcf, ngx_str_t *rest);

/* metrics */
/* Answers that were complete, of all nginx workers. */
uint64_t ngx_http_infer_count_answers(ngx_http_infer_model_t *model);
/* Members of a JSON object, each with a comma before it. */
void ngx_http_infer_metrics_json(ngx_http_infer_out_t *out,
    ngx_http_infer_model_t *model);
void ngx_http_infer_count_end(ngx_http_infer_ctx_t *ctx);
void ngx_http_infer_count_shed(ngx_http_infer_model_t *model,
    ngx_http_infer_shed_e reason);
void ngx_http_infer_count_retry(ngx_http_infer_model_t *model);
void ngx_http_infer_count_gap(ngx_http_infer_ctx_t *ctx, uint64_t ns,
    ngx_uint_t tokens);


#endif /* NGX_HTTP_INFER_API_H */
