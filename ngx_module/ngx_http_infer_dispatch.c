/*
 * Hands a request to an inference worker: limits first (_admit.c), then a
 * slot, the payload, and the worker with the least to do.  A request that
 * loses its worker before a byte was sent goes to another one, once.
 */

#include "ngx_module/ngx_http_infer_api.h"


#define NGX_HTTP_INFER_QUIET_NS      3000000000 /* an idle one beats each 1 s */


static ngx_int_t ngx_http_infer_pick(ngx_http_infer_ctx_t *ctx,
    uint32_t *worker);
static ngx_int_t ngx_http_infer_claim(ngx_http_infer_ctx_t *ctx,
    shr_req_writer_t *w);
static ngx_msec_t ngx_http_infer_ping_ms(ngx_http_infer_ctx_t *ctx);
static void ngx_http_infer_timeout(ngx_event_t *ev);


ngx_int_t
ngx_http_infer_submit(ngx_http_infer_ctx_t *ctx, shr_req_writer_t *w)
{
    uint32_t                worker;
    ngx_http_infer_pool_t  *pool;

    pool = ctx->pool;

    if (pool == NULL || pool->client == NULL) {
        return ngx_http_infer_busy(ctx, NGX_HTTP_INFER_SHED_DOWN);
    }

    if (ngx_http_infer_limit(ctx, w->len) != NGX_OK
        || ngx_http_infer_admit(ctx) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_http_infer_pick(ctx, &worker) != NGX_OK) {
        return ngx_http_infer_busy(ctx, NGX_HTTP_INFER_SHED_DOWN);
    }

    if (ngx_http_infer_claim(ctx, w) != NGX_OK) {
        return NGX_ERROR;
    }

    if (shr_client_submit(pool->client, ctx->slot, worker) != 0) {
        shr_client_release(pool->client, ctx->slot);
        return ngx_http_infer_busy(ctx, NGX_HTTP_INFER_SHED_SLOTS);
    }

    ctx->claimed = 1;
    ctx->worker = worker;
    pool->slots[ctx->slot] = ctx;
    pool->peers[worker].inflight++;

    /* not cancelable: an nginx worker that shuts down waits for it */
    ctx->timer.handler = ngx_http_infer_timeout;
    ctx->timer.data = ctx;
    ctx->timer.log = ctx->request->connection->log;
    ctx->ident_fd = ctx->request->connection->fd;
    ngx_add_timer(&ctx->timer, ngx_min(ngx_min(ctx->timeout,
                                               ctx->model->queue_timeout),
                                       ngx_http_infer_ping_ms(ctx)));
    return NGX_OK;
}


/* 2: ready; 1: ready, but it has not shown itself for a while and may hang:
 * taken only when there is no other; 0: not ready. */
static ngx_uint_t
ngx_http_infer_readiness(shr_worker_load_t *load, uint64_t now)
{
    if (load->state != SHR_WORKER_READY) {
        return 0;
    }

    return now > load->beat_ns
           && now - load->beat_ns > NGX_HTTP_INFER_QUIET_NS ? 1 : 2;
}


/* The worker with the least to do among those that are ready; none ready: the
 * one with the fewest of our own waiting for it. */
static ngx_int_t
ngx_http_infer_pick(ngx_http_infer_ctx_t *ctx, uint32_t *worker)
{
    uint32_t                w;
    uint64_t                todo, least, now;
    ngx_uint_t              ready, best_ready, found;
    shr_worker_load_t       load;
    ngx_http_infer_pool_t  *pool;

    pool = ctx->pool;
    now = pool->geom.nworkers > 1 ? ngx_http_infer_now() : 0;
    found = 0;
    best_ready = 0;
    least = 0;

    for (w = 0; w < pool->geom.nworkers; w++) {
        shr_client_load(pool->client, w, &load);

        if (ngx_http_infer_is_retired(&pool->peers[w], &load)) {
            continue;
        }

        ready = ngx_http_infer_readiness(&load, now);
        todo = pool->peers[w].inflight;

        if (ready) {
            todo = ngx_min(load.waiting, UINT32_MAX)
                   + ngx_min(load.running, UINT32_MAX)
                   + shr_client_backlog(pool->client, w);
        }

        if (!found || ready > best_ready
            || (ready == best_ready && todo < least))
        {
            found = 1;
            best_ready = ready;
            least = todo;
            *worker = w;
        }
    }

    /* with a fallback nobody waits for a pool that is not there */
    if (!found || (!best_ready && ctx->conf->fallback.len != 0)) {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_infer_claim(ngx_http_infer_ctx_t *ctx, shr_req_writer_t *w)
{
    ngx_http_infer_pool_t  *pool;

    pool = ctx->pool;

    if (w->len > (size_t) pool->geom.nchunks * SHR_CHUNK_BYTES) {
        return ngx_http_infer_fail(ctx, NGX_HTTP_REQUEST_ENTITY_TOO_LARGE,
                                   "request_too_large", NULL,
                                   "The request takes %uz bytes, model "
                                   "\"%V\" has %uz for payloads.", w->len,
                                   &ctx->model->name,
                                   (size_t) pool->geom.nchunks
                                   * SHR_CHUNK_BYTES);
    }

    if (shr_client_claim(pool->client, &ctx->slot) != 0) {
        return ngx_http_infer_busy(ctx, NGX_HTTP_INFER_SHED_SLOTS);
    }

    if (shr_client_write(pool->client, ctx->slot, w->buf, w->len) != 0) {
        shr_client_release(pool->client, ctx->slot);
        return ngx_http_infer_busy(ctx, NGX_HTTP_INFER_SHED_SLOTS);
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_infer_resubmit(ngx_http_infer_ctx_t *ctx)
{
    uint32_t                worker;
    ngx_http_infer_pool_t  *pool;

    pool = ctx->pool;

    if (ctx->said || ctx->retries == NGX_HTTP_INFER_RETRIES
        || ngx_http_infer_pick(ctx, &worker) != NGX_OK
        || shr_client_submit(pool->client, ctx->slot, worker) != 0)
    {
        return NGX_ERROR;
    }

    ctx->retries++;
    pool->peers[ctx->worker].inflight--;
    pool->peers[worker].inflight++;
    ctx->worker = worker;

    ngx_http_infer_count_retry(ctx->model);
    ngx_http_infer_reply_reset(ctx);

    ngx_log_error(NGX_LOG_INFO, ctx->request->connection->log, 0,
                  "infer: request was lost with its worker, sent to "
                  "worker %uD of \"%V\"", worker, &ctx->model->name);
    return NGX_OK;
}


void
ngx_http_infer_release(ngx_http_infer_ctx_t *ctx)
{
    ngx_http_infer_pool_t  *pool;

    if (ctx->timer.timer_set) {
        ngx_del_timer(&ctx->timer);
    }

    if (ctx->queued) {
        ngx_queue_remove(&ctx->queue);
        ctx->queued = 0;
    }

    ngx_http_infer_limit_settle(ctx);

    if (!ctx->claimed) {
        return;
    }

    pool = ctx->pool;
    ctx->claimed = 0;
    pool->slots[ctx->slot] = NULL;
    pool->peers[ctx->worker].inflight--;
    shr_client_release(pool->client, ctx->slot);
    ngx_http_infer_measure(pool);
}


void
ngx_http_infer_retire(ngx_http_infer_pool_t *pool, uint32_t worker,
    ngx_http_infer_ctx_t *broken)
{
    uint32_t                i;
    shr_worker_info_t       info;
    ngx_http_infer_ctx_t   *ctx;
    ngx_http_infer_peer_t  *peer;

    peer = &pool->peers[worker];
    shr_client_info(pool->client, worker, &info);

    /* before it was seen ready, what is there may be its predecessor's */
    if (peer->served == info.incarnation
        && !ngx_http_infer_is_retired(peer, &info) && info.incarnation != 0)
    {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "infer: worker %uD of \"%V\" (incarnation %uD, pid %D) "
                      "wrote what cannot be into shared memory, it gets no "
                      "more requests", worker, &pool->model->name,
                      info.incarnation, info.pid);
        peer->retired = info.incarnation;
    }

    for (i = 0; i < pool->geom.nslots; i++) {
        ctx = pool->slots[i];

        if (ctx == NULL || ctx->worker != worker || ctx->ended) {
            continue;
        }

        /* its successor may still take what it has not */
        if (ctx != broken && !ngx_http_infer_is_retired(peer, &info)
            && shr_client_state(pool->client, i) == SHR_REQ_QUEUED)
        {
            continue;
        }

        if (ngx_http_infer_resubmit(ctx) != NGX_OK) {
            (void) ngx_http_infer_fail(ctx, NGX_HTTP_BAD_GATEWAY,
                                       "worker_failed", NULL,
                                       "The worker of model \"%V\" failed.",
                                       &ctx->model->name);
            ctx->ended = 1;
            ngx_http_infer_news(ctx);
        }
    }
}


/* Requests that it ran are submitted again or failed; those it has not seen
 * move when another worker is ready, else they wait for its successor. */
void
ngx_http_infer_lost(ngx_http_infer_pool_t *pool, uint32_t worker)
{
    uint32_t               i, to;
    ngx_uint_t             retries;
    shr_req_state_t        state;
    ngx_http_infer_ctx_t  *ctx;

    for (i = 0; i < pool->geom.nslots; i++) {
        ctx = pool->slots[i];

        if (ctx == NULL || ctx->worker != worker || ctx->ended) {
            continue;
        }

        state = shr_client_state(pool->client, i);

        if (state == SHR_REQ_QUEUED) {
            if (pool->geom.nworkers > 1
                && ngx_http_infer_pick(ctx, &to) == NGX_OK && to != worker)
            {
                retries = ctx->retries;
                ctx->retries = 0;
                (void) ngx_http_infer_resubmit(ctx);
                ctx->retries = retries;
            }

        } else if (state == SHR_REQ_LOST
                   && ngx_http_infer_resubmit(ctx) != NGX_OK)
        {
            (void) ngx_http_infer_fail(ctx, NGX_HTTP_BAD_GATEWAY,
                                       "worker_lost", NULL,
                                       "The worker of model \"%V\" ended "
                                       "before the answer was complete.",
                                       &ctx->model->name);
            ctx->ended = 1;
            ngx_http_infer_news(ctx);
        }
    }
}


ngx_uint_t
ngx_http_infer_ready_workers(ngx_http_infer_pool_t *pool)
{
    uint32_t           w;
    ngx_uint_t         n;
    shr_worker_load_t  load;

    if (pool == NULL || pool->client == NULL) {
        return 0;
    }

    n = 0;

    for (w = 0; w < pool->geom.nworkers; w++) {
        shr_client_load(pool->client, w, &load);
        n += load.state == SHR_WORKER_READY
             && !ngx_http_infer_is_retired(&pool->peers[w], &load);
    }

    return n;
}


/* Until its stream is to give a sign of life. */
static ngx_msec_t
ngx_http_infer_ping_ms(ngx_http_infer_ctx_t *ctx)
{
    return ctx->stream && ctx->conf->ping != 0 ? ctx->conf->ping
                                               : NGX_MAX_INT32_VALUE;
}


/* Gives it, if nothing was said for so long; *next becomes the time until the
 * next, if that is earlier.  NGX_ERROR: the request has gone. */
static ngx_int_t
ngx_http_infer_ping(ngx_http_infer_ctx_t *ctx, ngx_msec_t *next)
{
    uint64_t    now, last;
    ngx_msec_t  ms, age;

    ms = ngx_http_infer_ping_ms(ctx);

    if (ms == NGX_MAX_INT32_VALUE || ctx->ended) {
        return NGX_OK;
    }

    now = ngx_http_infer_now();
    last = ngx_max(ngx_max(ctx->last_ns, ctx->ping_ns), ctx->req.queued_ns);
    age = (ngx_msec_t) ((now - last) / 1000000) + 1;

    if (age < ms) {
        *next = ngx_min(*next, ms - age);
        return NGX_OK;
    }

    ctx->ping_ns = now;
    *next = ngx_min(*next, ms);

    return ngx_http_infer_reply_ping(ctx);
}


/*
 * The queue timeout or the request's own.  nginx's cached time may be some
 * milliseconds ahead of ours: a timer that comes too early waits for the rest
 * of whatever ends first.
 */
static void
ngx_http_infer_timeout(ngx_event_t *ev)
{
    ngx_msec_t             age, end, next;
    ngx_connection_t      *c;
    ngx_http_infer_ctx_t  *ctx;

    ctx = ev->data;
    c = ctx->request->connection;
    ngx_http_set_log_request(c->log, ctx->request);

    age = (ngx_msec_t) ((ngx_http_infer_now() - ctx->req.queued_ns)
                        / 1000000) + 1;

    end = ctx->started ? ctx->timeout
                       : ngx_min(ctx->timeout, ctx->model->queue_timeout);

    if (age < end) {
        next = ngx_min(end - age, ngx_http_infer_ping_ms(ctx));

        if (ngx_http_infer_ping(ctx, &next) == NGX_OK) {
            ngx_add_timer(ev, next);
        }

        ngx_http_run_posted_requests(c);
        return;
    }

    if (age < ctx->timeout) {
        (void) ngx_http_infer_busy(ctx, NGX_HTTP_INFER_SHED_TIMEOUT);

    } else {
        (void) ngx_http_infer_fail(ctx, NGX_HTTP_GATEWAY_TIME_OUT,
                                   "timeout", NULL,
                                   "The request was not answered within "
                                   "%M ms.", ctx->timeout);
    }

    ngx_http_infer_reply_error(ctx);
    ngx_http_run_posted_requests(c);
}
