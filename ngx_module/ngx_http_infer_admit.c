/*
 * Who may wait: the queue's limits, deadlines that cannot be met, places that
 * are given up for a request with a higher priority or a smaller share, and
 * what a refusal says.  Everything here is read from memory, so that a refusal
 * costs microseconds however long the queue is.
 */

#include "ngx_module/ngx_http_infer_api.h"


#define NGX_HTTP_INFER_RETRY_MIN_MS   100
#define NGX_HTTP_INFER_RETRY_MAX_MS   30000
#define NGX_HTTP_INFER_RETRY_MS       1000      /* while no rate is known */
#define NGX_HTTP_INFER_RATE_MIN_MS    1000      /* of a window, */
#define NGX_HTTP_INFER_RATE_MAX_MS    10000
#define NGX_HTTP_INFER_RATE_ENDS      16        /* with so many in it */
#define NGX_HTTP_INFER_SHARES         256       /* keys are counted in */


/* Of the requests of this nginx worker that wait, as one of them sees it. */
typedef struct {
    ngx_uint_t             higher;      /* with a higher priority */
    ngx_uint_t             same;        /* with its own */
    ngx_uint_t             own;         /* and of its own key */
    ngx_uint_t             keys;        /* at its priority, its own included */
    ngx_uint_t             all;
    ngx_http_infer_ctx_t  *victim;      /* who would go; NULL: nobody */
} ngx_http_infer_share_t;


/* Requests that wait, of all nginx workers as far as the inference workers
 * have seen them, and our own that they have not. */
uint64_t
ngx_http_infer_waiting(ngx_http_infer_pool_t *pool, uint64_t *tokens)
{
    uint32_t           w;
    uint64_t           n;
    shr_worker_load_t  load;

    n = 0;
    *tokens = 0;

    for (w = 0; w < pool->geom.nworkers; w++) {
        shr_client_load(pool->client, w, &load);

        if (ngx_http_infer_is_retired(&pool->peers[w], &load)) {
            continue;                   /* it may lie about that too */
        }

        n += shr_client_backlog(pool->client, w);
        n += ngx_min(load.waiting, UINT32_MAX);
        *tokens += ngx_min(load.waiting_tokens, UINT32_MAX);
    }

    return n;
}


static ngx_uint_t
ngx_http_infer_is_waiting(ngx_http_infer_ctx_t *ctx)
{
    return ctx != NULL && !ctx->started && !ctx->ended && !ctx->finished;
}


/*
 * Looks at all requests that wait.  Somebody with a lower priority gives up
 * his place first; else one of the key that has the most, if that has more
 * than ours.  Of several the youngest, which has waited the shortest.
 */
static void
ngx_http_infer_look(ngx_http_infer_ctx_t *ctx, ngx_http_infer_share_t *s)
{
    uint32_t               i, k, most;
    int32_t                lowest;
    ngx_http_infer_ctx_t  *other, **slots;
    static uint16_t        count[NGX_HTTP_INFER_SHARES];

    ngx_memzero(s, sizeof(ngx_http_infer_share_t));
    ngx_memzero(count, sizeof(count));
    slots = ctx->pool->slots;
    lowest = ctx->req.priority;
    k = ctx->req.fair % NGX_HTTP_INFER_SHARES;
    count[k] = 1;
    s->keys = 1;

    for (i = 0; i < ctx->pool->geom.nslots; i++) {
        other = slots[i];

        if (!ngx_http_infer_is_waiting(other)) {
            continue;
        }

        s->all++;
        s->higher += other->req.priority > ctx->req.priority;
        lowest = ngx_min(lowest, other->req.priority);

        if (other->req.priority == ctx->req.priority) {
            s->same++;
            s->own += other->req.fair == ctx->req.fair;
            s->keys += count[other->req.fair % NGX_HTTP_INFER_SHARES]++ == 0;
        }
    }

    most = 0;

    for (i = 0; i < NGX_HTTP_INFER_SHARES; i++) {
        most = ngx_max(most, count[i]);
    }

    /* of equal ones none gives way: count[k] has the new one in it */
    if (lowest == ctx->req.priority && most <= count[k]) {
        return;
    }

    for (i = 0; i < ctx->pool->geom.nslots; i++) {
        other = slots[i];

        if (!ngx_http_infer_is_waiting(other)
            || other->req.priority != lowest
            || (lowest == ctx->req.priority
                && count[other->req.fair % NGX_HTTP_INFER_SHARES] != most))
        {
            continue;
        }

        if (s->victim == NULL
            || other->req.queued_ns > s->victim->req.queued_ns)
        {
            s->victim = other;
        }
    }
}


/* Its place is free at once, its answer goes out in the next turn. */
static void
ngx_http_infer_displace(ngx_http_infer_ctx_t *ctx)
{
    (void) ngx_http_infer_busy(ctx, NGX_HTTP_INFER_SHED_DISPLACED);
    ctx->end_ns = ngx_http_infer_now();
    ngx_http_infer_count_end(ctx);
    ngx_http_infer_release(ctx);

    /* an nginx worker that shuts down waits for it still */
    ngx_add_timer(&ctx->timer, ctx->timeout);
    ctx->ended = 1;
    ngx_http_infer_news(ctx);
    ngx_http_infer_event_post();
}


/* Milliseconds until n requests have ended, as things go; 0: not known. */
static ngx_msec_t
ngx_http_infer_drain_ms(ngx_http_infer_pool_t *pool, uint64_t n)
{
    return pool->rate == 0 ? 0
           : (ngx_msec_t) ngx_min(n * 1024000 / pool->rate,
                                  (uint64_t) NGX_MAX_INT32_VALUE);
}


/* A request that would only be told later that it has come too late. */
static ngx_uint_t
ngx_http_infer_too_late(ngx_http_infer_ctx_t *ctx, uint64_t waiting)
{
    uint64_t                ahead, share;
    ngx_msec_t              limit;
    ngx_http_infer_share_t  s;

    limit = ngx_min(ctx->timeout, ctx->model->queue_timeout);

    if (ngx_http_infer_drain_ms(ctx->pool, waiting) <= limit) {
        return 0;
    }

    /* not the whole queue stands before it, perhaps: what this nginx worker
     * knows of its own requests is taken for all */
    ngx_http_infer_look(ctx, &s);
    share = ngx_min((uint64_t) (s.own + 1) * s.keys, s.same);
    ahead = s.all != 0 ? waiting * (s.higher + share) / s.all : waiting;

    return ngx_http_infer_drain_ms(ctx->pool, ahead) > limit;
}


ngx_int_t
ngx_http_infer_admit(ngx_http_infer_ctx_t *ctx)
{
    uint64_t                 n, tokens;
    ngx_http_infer_model_t  *model;
    ngx_http_infer_share_t   s;

    model = ctx->model;
    n = ngx_http_infer_waiting(ctx->pool, &tokens);

    if (n == 0) {
        return NGX_OK;
    }

    ngx_http_infer_measure(ctx->pool);

    if (ngx_http_infer_too_late(ctx, n)) {
        return ngx_http_infer_busy(ctx, NGX_HTTP_INFER_SHED_DEADLINE);
    }

    if (n < model->queue_requests
        && (model->queue_tokens == 0 || tokens < model->queue_tokens))
    {
        return NGX_OK;
    }

    if (ctx->conf->fair_key == NULL && ctx->conf->priority == NULL) {
        return ngx_http_infer_busy(ctx, NGX_HTTP_INFER_SHED_QUEUE);
    }

    ngx_http_infer_look(ctx, &s);

    if (s.victim != NULL) {
        ngx_http_infer_displace(s.victim);
        return NGX_OK;
    }

    /* those who have more than this one may have it at other nginx workers:
     * the inference worker sees them all */
    if (s.own == 0 && n < 2 * (uint64_t) model->queue_requests) {
        return NGX_OK;
    }

    return ngx_http_infer_busy(ctx, NGX_HTTP_INFER_SHED_QUEUE);
}


/* A refusal that a later try may not meet. */
ngx_int_t
ngx_http_infer_busy(ngx_http_infer_ctx_t *ctx, ngx_http_infer_shed_e reason)
{
    ngx_http_infer_count_shed(ctx->model, reason);

    switch (reason) {

    case NGX_HTTP_INFER_SHED_QUEUE:
        (void) ngx_http_infer_fail(ctx, NGX_HTTP_TOO_MANY_REQUESTS,
                                   "queue_full", NULL,
                                   "The queue of model \"%V\" is full (%ui "
                                   "requests, %ui tokens). Please retry "
                                   "later.", &ctx->model->name,
                                   ctx->model->queue_requests,
                                   ctx->model->queue_tokens);
        break;

    case NGX_HTTP_INFER_SHED_SLOTS:
        (void) ngx_http_infer_fail(ctx, NGX_HTTP_SERVICE_UNAVAILABLE,
                                   "server_overloaded", NULL,
                                   "The server has no room for another "
                                   "request to model \"%V\". Please retry "
                                   "later.", &ctx->model->name);
        break;

    case NGX_HTTP_INFER_SHED_TIMEOUT:
        (void) ngx_http_infer_fail(ctx, NGX_HTTP_SERVICE_UNAVAILABLE,
                                   "queue_timeout", NULL,
                                   "The request has waited %M ms for model "
                                   "\"%V\" and was not begun. Please retry "
                                   "later.", ctx->model->queue_timeout,
                                   &ctx->model->name);
        break;

    case NGX_HTTP_INFER_SHED_DISPLACED:
        (void) ngx_http_infer_fail(ctx, NGX_HTTP_TOO_MANY_REQUESTS,
                                   "displaced", NULL,
                                   "The queue of model \"%V\" is full, and "
                                   "the request has given its place to one "
                                   "with a higher priority or a smaller "
                                   "share. Please retry later.",
                                   &ctx->model->name);
        break;

    case NGX_HTTP_INFER_SHED_DEADLINE:
        (void) ngx_http_infer_fail(ctx, NGX_HTTP_SERVICE_UNAVAILABLE,
                                   "deadline_unreachable", NULL,
                                   "The request would wait longer for model "
                                   "\"%V\" than its limit of %M ms. Please "
                                   "retry later.", &ctx->model->name,
                                   ngx_min(ctx->timeout,
                                           ctx->model->queue_timeout));
        break;

    default:
        (void) ngx_http_infer_fail(ctx, NGX_HTTP_SERVICE_UNAVAILABLE,
                                   "model_unavailable", NULL,
                                   "No worker serves model \"%V\" now. "
                                   "Please retry later.", &ctx->model->name);
    }

    ctx->error.retry = ctx->pool != NULL && ctx->pool->client != NULL
                       ? ngx_http_infer_retry_after(ctx->pool)
                       : NGX_HTTP_INFER_RETRY_MS;

    return NGX_ERROR;
}


/*
 * How fast requests end, those of all nginx workers together.  Only a window
 * in which somebody waited at both ends says what the workers can do; others
 * say how many came.
 */
void
ngx_http_infer_measure(ngx_http_infer_pool_t *pool)
{
    uint64_t    ends, n, rate, tokens;
    ngx_msec_t  age;

    age = ngx_current_msec - pool->rate_time;

    if (age < NGX_HTTP_INFER_RATE_MIN_MS) {
        return;
    }

    ends = ngx_http_infer_count_answers(pool->model);
    n = ends - pool->rate_ends;

    if (pool->rate_busy && n < NGX_HTTP_INFER_RATE_ENDS
        && age < NGX_HTTP_INFER_RATE_MAX_MS)
    {
        return;
    }

    tokens = 0;
    rate = n * 1024000 / age;

    if (pool->rate_busy && ngx_http_infer_waiting(pool, &tokens) != 0) {
        pool->rate = pool->rate != 0 ? (pool->rate + rate) / 2 : rate;
    }

    pool->rate_ends = ends;
    pool->rate_time = ngx_current_msec;
    pool->rate_busy = ngx_http_infer_waiting(pool, &tokens) != 0;
}


ngx_msec_t
ngx_http_infer_retry_after(ngx_http_infer_pool_t *pool)
{
    uint64_t    tokens;
    ngx_msec_t  ms;

    if (pool->rate == 0) {
        return NGX_HTTP_INFER_RETRY_MS;
    }

    ms = ngx_http_infer_drain_ms(pool, ngx_http_infer_waiting(pool, &tokens));
    ms = ngx_max(ms, NGX_HTTP_INFER_RETRY_MIN_MS);

    return ngx_min(ms, NGX_HTTP_INFER_RETRY_MAX_MS);
}


/* "8", "2.5", "2.5s" or "800ms"; 0: it is none of these. */
static ngx_msec_t
ngx_http_infer_parse_deadline(ngx_str_t *value)
{
    u_char    *p, *last;
    uint64_t   ms, unit;

    p = value->data;
    last = p + value->len;
    unit = 1000;

    if (value->len > 2 && last[-2] == 'm' && last[-1] == 's') {
        last -= 2;
        unit = 1;

    } else if (value->len > 1 && last[-1] == 's') {
        last--;
    }

    if (p == last || *p < '0' || *p > '9') {
        return 0;
    }

    for (ms = 0; p < last && *p >= '0' && *p <= '9'; p++) {
        ms = ms * 10 + (uint64_t) (*p - '0') * unit;

        if (ms > NGX_MAX_INT32_VALUE) {
            return NGX_MAX_INT32_VALUE;
        }
    }

    if (p < last && *p == '.') {
        for (p++; p < last && *p >= '0' && *p <= '9'; p++) {
            unit /= 10;
            ms += (uint64_t) (*p - '0') * unit;
        }
    }

    return p == last ? (ngx_msec_t) ngx_max(ms, 1) : 0;
}


/* A number from SHR_PRIORITY_MIN to SHR_PRIORITY_MAX; 0 for anything else. */
static int32_t
ngx_http_infer_parse_priority(ngx_str_t *value)
{
    ngx_int_t   n;
    ngx_uint_t  minus;

    minus = value->len != 0 && value->data[0] == '-';
    n = ngx_atoi(value->data + minus, value->len - minus);

    if (n == NGX_ERROR) {
        return 0;
    }

    return minus ? (int32_t) -ngx_min(n, -SHR_PRIORITY_MIN)
                 : (int32_t) ngx_min(n, SHR_PRIORITY_MAX);
}


void
ngx_http_infer_set_limits(ngx_http_infer_ctx_t *ctx)
{
    uint64_t                    now;
    ngx_str_t                   s;
    ngx_msec_t                  ms;
    ngx_http_request_t         *r;
    ngx_http_infer_loc_conf_t  *conf;

    r = ctx->request;
    conf = ctx->conf;
    ctx->timeout = conf->timeout;

    if (conf->deadline != NULL
        && ngx_http_complex_value(r, conf->deadline, &s) == NGX_OK)
    {
        ms = ngx_http_infer_parse_deadline(&s);
        ctx->timeout = ms != 0 ? ngx_min(ctx->timeout, ms) : ctx->timeout;
    }

    now = ngx_http_infer_now();
    ctx->req.queued_ns = now;
    ctx->req.deadline_ns = now + (uint64_t) ctx->timeout * 1000000;
    ctx->req.queue_deadline_ns = now + (uint64_t) ctx->model->queue_timeout
                                       * 1000000;

    if (conf->scope != NULL
        && ngx_http_complex_value(r, conf->scope, &s) == NGX_OK)
    {
        ctx->req.scope = ngx_http_infer_key(&s);
    }

    if (conf->fair_key != NULL
        && ngx_http_complex_value(r, conf->fair_key, &s) == NGX_OK)
    {
        ctx->req.fair = ngx_http_infer_key(&s);
    }

    if (conf->priority != NULL
        && ngx_http_complex_value(r, conf->priority, &s) == NGX_OK)
    {
        ctx->req.priority = ngx_http_infer_parse_priority(&s);
    }
}
