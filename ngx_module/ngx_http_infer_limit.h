/*
 * infer_limit_tokens: limits of tokens per time and of requests at once, for
 * keys from variables, in zones of shared memory that outlive reloads.  The
 * table itself is shm/shr_limit.h.
 */

#ifndef NGX_HTTP_INFER_LIMIT_H
#define NGX_HTTP_INFER_LIMIT_H

#include "ngx_module/ngx_http_infer.h"
#include "ngx_module/ngx_http_infer_out.h"

#include "shm/shr_limit.h"


#define NGX_HTTP_INFER_LIMITS_MAX  4            /* of one location */

typedef struct ngx_http_infer_limit_s  ngx_http_infer_limit_t;

/* In the zone, beside the table; kept over reloads. */
typedef struct {
    ngx_atomic_t             passed;
    ngx_atomic_t             refused[SHR_LIMIT_NO_PLACE + 1];
    ngx_atomic_t             tokens;
} ngx_http_infer_limit_counts_t;

struct ngx_http_infer_limit_s {
    ngx_shm_zone_t            *zone;
    ngx_str_t                  key_text;        /* as it was written */
    ngx_http_complex_value_t   key;
    shr_limit_rate_t           rate;
    uint64_t                   reserve;
    shr_limit_t                table;
    ngx_http_infer_limit_counts_t  *counts;     /* in the zone */
};

/* What a request holds of the limits of its location. */
typedef struct {
    ngx_uint_t               n;                 /* that have a hold */
    ngx_http_infer_limit_t  *limit[NGX_HTTP_INFER_LIMITS_MAX];
    shr_limit_hold_t         hold[NGX_HTTP_INFER_LIMITS_MAX];

    shr_limit_rate_t        *rate;              /* what is told of tokens: */
    shr_limit_state_t        state;             /* where fewest are left */
    uint32_t                 places;            /* and of requests at once; */
    uint32_t                 free;              /* 0 of 0: nothing */
    ngx_uint_t               limited;           /* a limit was asked */
    shr_limit_verdict_t      verdict;
    uint64_t                 reserved;
    uint64_t                 charged;
    uint64_t                 text_bytes;        /* of the answer so far, */
    uint64_t                 texts;             /* and its pieces */
} ngx_http_infer_holds_t;


char *ngx_http_infer_limit_tokens(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
/* At the end of the configuration: each zone has its key. */
ngx_int_t ngx_http_infer_limit_check(ngx_conf_t *cf,
    ngx_http_infer_main_conf_t *imcf);
/* In each nginx worker: takes part in all zones, and gives back now and then
 * what dead nginx workers held. */
ngx_int_t ngx_http_infer_limit_init(ngx_cycle_t *cycle,
    ngx_http_infer_main_conf_t *imcf);
void ngx_http_infer_limit_exit(ngx_cycle_t *cycle,
    ngx_http_infer_main_conf_t *imcf);

/* Reserves what a request of `len` bytes may take; NGX_ERROR:
 * ctx->error says why it may not. */
ngx_int_t ngx_http_infer_limit(ngx_http_infer_ctx_t *ctx, size_t len);
/* It has ended, as ctx says: what it took is charged, the rest returned.  Does
 * nothing when called again. */
void ngx_http_infer_limit_settle(ngx_http_infer_ctx_t *ctx);
ngx_int_t ngx_http_infer_limit_headers(ngx_http_request_t *r);
/* 0: what a limit said, 1: tokens reserved, 2: charged. */
u_char *ngx_http_infer_limit_value(ngx_http_infer_ctx_t *ctx, ngx_uint_t what,
    u_char *p);
void ngx_http_infer_limit_metrics(ngx_http_infer_main_conf_t *imcf,
    ngx_http_infer_out_t *out);


#endif /* NGX_HTTP_INFER_LIMIT_H */
