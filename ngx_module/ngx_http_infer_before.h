/*
 * The pool of before: where a reload has changed a model, the generation keeps
 * the former configuration's pool next to the new one.  It answers until the
 * new one is ready, and goes on answering if that never comes.
 */

#ifndef NGX_HTTP_INFER_BEFORE_H
#define NGX_HTTP_INFER_BEFORE_H

#include "ngx_module/ngx_http_infer.h"


/* Whether a worker of it is ready and has been seen lately; in any process. */
ngx_uint_t ngx_http_infer_pool_is_ready(ngx_http_infer_pool_t *pool);

/* Whether all its workers are ready and have nothing to do. */
ngx_uint_t ngx_http_infer_pool_is_idle(ngx_http_infer_pool_t *pool);

/* In the master: the model's pool in the running configuration, a copy in the
 * new cycle's memory; NULL when there is none that serves, or when it is the
 * same pool. */
ngx_http_infer_model_t *ngx_http_infer_before_model(ngx_cycle_t *cycle,
    ngx_http_infer_model_t *model);

/* In nginx workers: the pool that answers requests to a model now. */
ngx_http_infer_pool_t *ngx_http_infer_pool_now(
    ngx_http_infer_generation_t *gen, ngx_http_infer_model_t *model);


#endif /* NGX_HTTP_INFER_BEFORE_H */
