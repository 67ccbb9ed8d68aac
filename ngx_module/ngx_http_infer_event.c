/*
 * From the pools' bell to the requests: one eventfd per nginx worker, edge
 * triggered and never read; then the completion rings say which requests have
 * news.  Each turn does a bounded amount of work, the rest waits for the next
 * turn of nginx's event loop.
 */

#include "ngx_module/ngx_http_infer_api.h"


#define NGX_HTTP_INFER_TURNS    4       /* polls before other events */


static void ngx_http_infer_bell(ngx_event_t *ev);
static void ngx_http_infer_collect(ngx_http_infer_pool_t *pool, uint32_t w);
static void ngx_http_infer_run(void);


static ngx_http_infer_generation_t  *ngx_http_infer_gen;
static ngx_queue_t                   ngx_http_infer_ready;
static ngx_event_t                   ngx_http_infer_again;
static ngx_connection_t              ngx_http_infer_again_dummy;


ngx_int_t
ngx_http_infer_event_init(ngx_cycle_t *cycle, ngx_http_infer_generation_t *gen,
    ngx_uint_t index)
{
    ngx_connection_t  *c;

    ngx_http_infer_gen = gen;
    ngx_queue_init(&ngx_http_infer_ready);

    ngx_http_infer_again_dummy.fd = (ngx_socket_t) -1;
    ngx_http_infer_again.handler = ngx_http_infer_bell;
    ngx_http_infer_again.data = &ngx_http_infer_again_dummy;
    ngx_http_infer_again.log = cycle->log;

    c = ngx_get_connection(gen->bells[index], cycle->log);
    if (c == NULL) {
        return NGX_ERROR;
    }

    c->log = cycle->log;
    c->read->handler = ngx_http_infer_bell;
    c->read->log = cycle->log;
    c->write->log = cycle->log;
    c->read->channel = 1;               /* not a client to wait for */

    if (ngx_add_event(c->read, NGX_READ_EVENT, NGX_CLEAR_EVENT) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_infer_event_post();        /* arms the bell */

    return NGX_OK;
}


void
ngx_http_infer_event_post(void)
{
    ngx_post_event(&ngx_http_infer_again, &ngx_posted_next_events);
}


void
ngx_http_infer_news(ngx_http_infer_ctx_t *ctx)
{
    if (!ctx->queued) {
        ctx->queued = 1;
        ngx_queue_insert_tail(&ngx_http_infer_ready, &ctx->queue);
    }
}


static void
ngx_http_infer_bell(ngx_event_t *ev)
{
    uint32_t                w;
    ngx_uint_t              i, turn, again;
    ngx_http_infer_pool_t  *pool;

    for (turn = 0; turn < NGX_HTTP_INFER_TURNS; turn++) {

        for (i = 0; i < ngx_http_infer_gen->npools; i++) {
            pool = &ngx_http_infer_gen->pools[i];

            for (w = 0; w < pool->geom.nworkers; w++) {
                ngx_http_infer_collect(pool, w);
            }
        }

        ngx_http_infer_run();

        /* whoever has news from now on rings */
        again = !ngx_queue_empty(&ngx_http_infer_ready);

        for (i = 0; i < ngx_http_infer_gen->npools; i++) {
            again |= shr_client_arm(ngx_http_infer_gen->pools[i].client) != 0;
        }

        if (!again) {
            return;
        }
    }

    ngx_http_infer_event_post();
}


/* Lists the requests that one inference worker has news for. */
static void
ngx_http_infer_collect(ngx_http_infer_pool_t *pool, uint32_t w)
{
    int                     rc;
    uint32_t                slot, n;
    shr_worker_load_t       load;
    ngx_http_infer_peer_t  *peer;

    peer = &pool->peers[w];
    rc = -SHR_EAGAIN;

    for (n = 0; n < pool->geom.nslots; n++) {
        rc = shr_client_poll(pool->client, w, &slot);

        if (rc != 0) {
            break;
        }

        if (pool->slots[slot] != NULL) {
            ngx_http_infer_news(pool->slots[slot]);
        }
    }

    if (rc == -SHR_EBROKEN) {
        ngx_http_infer_retire(pool, w, NULL);
    }

    /* after the ring: what a dead worker has said is read first */
    shr_client_load(pool->client, w, &load);

    if (load.state == SHR_WORKER_READY) {
        peer->served = load.incarnation;
    }

    if (load.incarnation != peer->incarnation) {
        ngx_http_infer_run();
        peer->incarnation = load.incarnation;
        ngx_http_infer_lost(pool, w);
    }
}


/* Answers each listed request once. */
static void
ngx_http_infer_run(void)
{
    ngx_uint_t             n;
    ngx_queue_t           *q;
    ngx_connection_t      *c;
    ngx_http_request_t    *r;
    ngx_http_infer_ctx_t  *ctx;

    /* a request that is not done with its frames lists itself again: the
     * number bounds this turn */
    for (n = 0; n < SHR_SLOTS_MAX; n++) {

        if (ngx_queue_empty(&ngx_http_infer_ready)) {
            return;
        }

        q = ngx_queue_head(&ngx_http_infer_ready);
        ngx_queue_remove(q);

        ctx = ngx_queue_data(q, ngx_http_infer_ctx_t, queue);
        ctx->queued = 0;

        r = ctx->request;
        c = r->connection;
        ngx_http_set_log_request(c->log, r);

        ngx_http_infer_reply(ctx);
        ngx_http_run_posted_requests(c);
    }
}
