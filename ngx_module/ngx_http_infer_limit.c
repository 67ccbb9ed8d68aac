/*
 * infer_limit_tokens: before a request is handed over, the tokens that it may
 * take are reserved for its key; when it has ended, however it did, those that
 * it took are charged instead.  What a killed nginx worker had reserved is
 * returned by the others.
 */

#include "ngx_module/ngx_http_infer_api.h"
#include "ngx_module/ngx_http_infer_limit.h"


#define NGX_HTTP_INFER_LIMIT_REAP_MS   1000
#define NGX_HTTP_INFER_BYTES_PER_TOKEN 4        /* an estimate */
#define NGX_HTTP_INFER_TEMPLATE_TOKENS 32       /* likewise */


static ngx_int_t ngx_http_infer_limit_refuse(ngx_http_infer_ctx_t *ctx,
    ngx_http_infer_limit_t *limit, uint64_t tokens);


static ngx_event_t       ngx_http_infer_limit_event;
static ngx_connection_t  ngx_http_infer_limit_dummy;


/* What a request may take: its prompt by the number of its bytes, and as much
 * answer as it allows. */
static uint64_t
ngx_http_infer_limit_estimate(ngx_http_infer_ctx_t *ctx, size_t len,
    uint64_t open)
{
    uint64_t  prompt, answer;

    prompt = (len - sizeof(shr_req_t)) / NGX_HTTP_INFER_BYTES_PER_TOKEN + 1;

    if (ctx->req.task == SHR_TASK_CHAT) {
        prompt += NGX_HTTP_INFER_TEMPLATE_TOKENS;
    }

    if (ctx->req.task != SHR_TASK_CHAT && ctx->req.task != SHR_TASK_COMPLETE) {
        return prompt;
    }

    answer = ctx->req.max_tokens == SHR_MAX_TOKENS_REST
             ? open : ctx->req.max_tokens;

    if (ctx->model->served != 0) {
        answer = ngx_min(answer, ctx->model->served);
    }

    return prompt + answer * ngx_max(ctx->nchoices, 1);
}


/* Of several limits the tightest is told. */
static void
ngx_http_infer_limit_note(ngx_http_infer_holds_t *h,
    ngx_http_infer_limit_t *limit, shr_limit_state_t *state)
{
    uint32_t           left;
    shr_limit_rate_t  *rate;

    rate = &limit->rate;
    h->limited = 1;

    if (rate->tokens != 0
        && (h->rate == NULL || h->verdict != SHR_LIMIT_PASS
            || state->remaining < h->state.remaining))
    {
        h->rate = rate;
        h->state = *state;
    }

    left = rate->running - ngx_min(state->running, rate->running);

    if (rate->running != 0 && (h->places == 0 || left < h->free)) {
        h->places = rate->running;
        h->free = left;
    }
}


ngx_int_t
ngx_http_infer_limit(ngx_http_infer_ctx_t *ctx, size_t len)
{
    uint64_t                  key, tokens;
    ngx_str_t                 s;
    ngx_uint_t                i;
    shr_limit_state_t         state;
    ngx_http_infer_limit_t  **limits, *limit;
    ngx_http_infer_holds_t   *h;

    if (ctx->conf->limits == NULL || ctx->conf->limits->nelts == 0
        || ctx->req.task == SHR_TASK_TOKENIZE
        || ctx->req.task == SHR_TASK_DETOKENIZE)
    {
        return NGX_OK;
    }

    h = ngx_pcalloc(ctx->request->pool, sizeof(ngx_http_infer_holds_t));
    if (h == NULL) {
        return ngx_http_infer_fail(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR, NULL,
                                   NULL, "Out of memory.");
    }

    ctx->holds = h;
    limits = ctx->conf->limits->elts;

    for (i = 0; i < ctx->conf->limits->nelts; i++) {
        limit = limits[i];

        if (ngx_http_complex_value(ctx->request, &limit->key, &s) != NGX_OK) {
            return ngx_http_infer_fail(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR,
                                       NULL, NULL, "Out of memory.");
        }

        if (s.len == 0) {
            continue;
        }

        key = ngx_http_infer_key(&s);
        tokens = ngx_http_infer_limit_estimate(ctx, len, limit->reserve);
        tokens = ngx_min(tokens, SHR_LIMIT_TOKENS_MAX);
        h->limit[h->n] = limit;
        h->verdict = shr_limit_reserve(&limit->table, &limit->rate,
                                       key != 0 ? key : 1, (uint32_t) tokens,
                                       ctx->req.queued_ns, &h->hold[h->n],
                                       &state);

        ngx_http_infer_limit_note(h, limit, &state);
        h->reserved = tokens;

        if (h->verdict != SHR_LIMIT_PASS) {
            return ngx_http_infer_limit_refuse(ctx, limit, tokens);
        }

        h->n++;
        (void) ngx_atomic_fetch_add(&limit->counts->passed, 1);
    }

    return NGX_OK;
}


/* What an answer that broke off has cost, as far as can be told from here. */
static uint64_t
ngx_http_infer_limit_used(ngx_http_infer_ctx_t *ctx)
{
    uint64_t                 n;
    ngx_http_infer_holds_t  *h;

    h = ctx->holds;

    if (!ctx->started) {
        return 0;
    }

    n = ctx->usage.completion_tokens;

    if (n == 0) {
        n = ngx_max(h->texts, h->text_bytes / NGX_HTTP_INFER_BYTES_PER_TOKEN);
        n = ngx_min(n, h->reserved);
    }

    return ctx->usage.prompt_tokens + n;
}


void
ngx_http_infer_limit_settle(ngx_http_infer_ctx_t *ctx)
{
    uint64_t                 now;
    ngx_uint_t               i;
    ngx_http_infer_holds_t  *h;

    h = ctx->holds;

    if (h == NULL || h->n == 0) {
        return;
    }

    h->charged = ngx_http_infer_limit_used(ctx);
    now = ngx_http_infer_now();

    for (i = 0; i < h->n; i++) {
        shr_limit_settle(&h->limit[i]->table, &h->limit[i]->rate, &h->hold[i],
                         h->charged, now);
        (void) ngx_atomic_fetch_add(&h->limit[i]->counts->tokens,
                                    (ngx_atomic_int_t) h->charged);
    }

    h->n = 0;
}


static ngx_int_t
ngx_http_infer_limit_refuse(ngx_http_infer_ctx_t *ctx,
    ngx_http_infer_limit_t *limit, uint64_t tokens)
{
    ngx_msec_t               ms;
    ngx_http_infer_holds_t  *h;

    h = ctx->holds;
    (void) ngx_atomic_fetch_add(&limit->counts->refused[h->verdict], 1);

    switch (h->verdict) {

    case SHR_LIMIT_NEVER:
        ngx_http_infer_count_shed(ctx->model, NGX_HTTP_INFER_SHED_TOKENS);
        return ngx_http_infer_fail(ctx, NGX_HTTP_TOO_MANY_REQUESTS,
                                   "rate_limit_exceeded", NULL,
                                   "The request may take %uL tokens, the "
                                   "limit is %uL at once. Please shorten it "
                                   "or ask for fewer tokens.", tokens,
                                   limit->rate.burst);

    case SHR_LIMIT_TOKENS:
        ngx_http_infer_count_shed(ctx->model, NGX_HTTP_INFER_SHED_TOKENS);
        ms = (ngx_msec_t) (h->state.wait_ns / 1000000) + 1;
        (void) ngx_http_infer_fail(ctx, NGX_HTTP_TOO_MANY_REQUESTS,
                                   "rate_limit_exceeded", NULL,
                                   "The limit of tokens is reached (%uL at "
                                   "once, this request may take %uL). Please "
                                   "retry in %M ms.", limit->rate.burst,
                                   tokens, ms);
        ctx->error.retry = ms;
        return NGX_ERROR;

    case SHR_LIMIT_RUNNING:
        ngx_http_infer_count_shed(ctx->model, NGX_HTTP_INFER_SHED_RUNNING);
        (void) ngx_http_infer_fail(ctx, NGX_HTTP_TOO_MANY_REQUESTS,
                                   "concurrency_limit_exceeded", NULL,
                                   "%uD requests run already, that is the "
                                   "limit. Please retry when one has ended.",
                                   limit->rate.running);
        ctx->error.retry = ngx_http_infer_retry_after(ctx->pool);
        return NGX_ERROR;

    default:
        ngx_log_error(NGX_LOG_ERR, ctx->request->connection->log, 0,
                      "infer: zone \"%V\" is full of keys in use",
                      &limit->zone->shm.name);
        (void) ngx_http_infer_fail(ctx, NGX_HTTP_SERVICE_UNAVAILABLE,
                                   "server_overloaded", NULL,
                                   "The server counts more clients than it "
                                   "has room for. Please retry later.");
        ctx->error.retry = NGX_HTTP_INFER_LIMIT_REAP_MS;
        return NGX_ERROR;
    }
}


/* --- what is told ------------------------------------------------------- */

static ngx_int_t
ngx_http_infer_limit_number(ngx_http_request_t *r, const char *name,
    const char *fmt, uint64_t a, uint64_t b)
{
    u_char     *p;
    ngx_str_t   value;

    p = ngx_pnalloc(r->pool, 2 * NGX_INT64_LEN + 2);
    if (p == NULL) {
        return NGX_ERROR;
    }

    value.data = p;
    value.len = (size_t) (ngx_sprintf(p, fmt, a, b) - p);

    return ngx_http_infer_add_header(r, name, &value);
}


ngx_int_t
ngx_http_infer_limit_headers(ngx_http_request_t *r)
{
    uint64_t                 ms;
    ngx_http_infer_ctx_t    *ctx;
    ngx_http_infer_holds_t  *h;

    ctx = ngx_http_infer_ctx(r);

    if (ctx == NULL || ctx->holds == NULL) {
        return NGX_OK;
    }

    h = ctx->holds;

    if (h->rate != NULL) {
        ms = h->state.reset_ns / 1000000;

        if (ngx_http_infer_limit_number(r, "x-ratelimit-limit-tokens", "%uL",
                                        h->rate->burst, 0) != NGX_OK
            || ngx_http_infer_limit_number(r, "x-ratelimit-remaining-tokens",
                                           "%uL", h->state.remaining, 0)
               != NGX_OK
            || ngx_http_infer_limit_number(r, "x-ratelimit-reset-tokens",
                                           "%uL.%03uLs", ms / 1000, ms % 1000)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (h->places != 0) {
        if (ngx_http_infer_limit_number(r, "x-ratelimit-limit-requests",
                                        "%uL", h->places, 0) != NGX_OK
            || ngx_http_infer_limit_number(r,
                   "x-ratelimit-remaining-requests", "%uL", h->free, 0)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


u_char *
ngx_http_infer_limit_value(ngx_http_infer_ctx_t *ctx, ngx_uint_t what,
    u_char *p)
{
    static const char  *words[] = {
        "passed", "tokens", "concurrency", "too_large", "no_place"
    };

    if (ctx->holds == NULL || !ctx->holds->limited) {
        return p;
    }

    switch (what) {
    case 0:
        return ngx_sprintf(p, "%s", words[ctx->holds->verdict]);
    case 1:
        return ngx_sprintf(p, "%uL", ctx->holds->reserved);
    default:
        return ctx->holds->verdict == SHR_LIMIT_PASS
               ? ngx_sprintf(p, "%uL", ctx->holds->charged) : p;
    }
}


void
ngx_http_infer_limit_metrics(ngx_http_infer_main_conf_t *imcf,
    ngx_http_infer_out_t *out)
{
    ngx_uint_t                      i, k;
    ngx_http_infer_limit_t        **limits;
    ngx_http_infer_limit_counts_t  *c;
    static const char              *reasons[] = {
        NULL, "tokens", "concurrency", "too_large", "no_place"
    };

    limits = imcf->limits.elts;

    if (imcf->limits.nelts == 0) {
        return;
    }

    ngx_http_infer_out(out, "# HELP nginx_infer_limit_passed_total Requests "
                       "that a limit let pass\n"
                       "# TYPE nginx_infer_limit_passed_total counter\n");

    for (i = 0; i < imcf->limits.nelts; i++) {
        ngx_http_infer_out_print(out, "nginx_infer_limit_passed_total"
                                 "{zone=\"%V\"} %uA\n",
                                 &limits[i]->zone->shm.name,
                                 limits[i]->counts->passed);
    }

    ngx_http_infer_out(out, "# HELP nginx_infer_limit_refused_total Requests "
                       "that a limit refused, by reason\n"
                       "# TYPE nginx_infer_limit_refused_total counter\n");

    for (i = 0; i < imcf->limits.nelts; i++) {
        c = limits[i]->counts;

        for (k = 1; k <= SHR_LIMIT_NO_PLACE; k++) {
            ngx_http_infer_out_print(out, "nginx_infer_limit_refused_total"
                                     "{zone=\"%V\",reason=\"%s\"} %uA\n",
                                     &limits[i]->zone->shm.name, reasons[k],
                                     c->refused[k]);
        }
    }

    ngx_http_infer_out(out, "# HELP nginx_infer_limit_tokens_total Tokens "
                       "that were charged to the keys of a limit\n"
                       "# TYPE nginx_infer_limit_tokens_total counter\n");

    for (i = 0; i < imcf->limits.nelts; i++) {
        ngx_http_infer_out_print(out, "nginx_infer_limit_tokens_total"
                                 "{zone=\"%V\"} %uA\n",
                                 &limits[i]->zone->shm.name,
                                 limits[i]->counts->tokens);
    }
}


/* --- processes ---------------------------------------------------------- */

static void
ngx_http_infer_limit_reap(ngx_event_t *ev)
{
    uint32_t                     n;
    ngx_uint_t                   i;
    ngx_http_infer_limit_t     **limits;
    ngx_http_infer_main_conf_t  *imcf;

    imcf = ((ngx_connection_t *) ev->data)->data;
    limits = imcf->limits.elts;

    for (i = 0; i < imcf->limits.nelts; i++) {
        n = shr_limit_reap(&limits[i]->table);

        if (n != 0) {
            ngx_log_error(NGX_LOG_NOTICE, ev->log, 0,
                          "infer: zone \"%V\": returned what %uD dead "
                          "processes held", &limits[i]->zone->shm.name, n);
        }
    }

    ngx_add_timer(ev, NGX_HTTP_INFER_LIMIT_REAP_MS);
}


ngx_int_t
ngx_http_infer_limit_init(ngx_cycle_t *cycle, ngx_http_infer_main_conf_t *imcf)
{
    ngx_uint_t                i;
    ngx_http_infer_limit_t  **limits;

    limits = imcf->limits.elts;

    for (i = 0; i < imcf->limits.nelts; i++) {
        if (shr_limit_open(&limits[i]->table, limits[i]->table.zone) != 0) {
            ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                          "infer: zone \"%V\" is used by more than %ud "
                          "processes: this one reserves what is not returned "
                          "and does not count its requests",
                          &limits[i]->zone->shm.name, SHR_LIMIT_OWNERS);
        }
    }

    if (imcf->limits.nelts != 0) {
        ngx_http_infer_limit_dummy.fd = (ngx_socket_t) -1;
        ngx_http_infer_limit_dummy.data = imcf;
        ngx_http_infer_limit_event.handler = ngx_http_infer_limit_reap;
        ngx_http_infer_limit_event.data = &ngx_http_infer_limit_dummy;
        ngx_http_infer_limit_event.log = cycle->log;
        ngx_http_infer_limit_event.cancelable = 1;
        ngx_add_timer(&ngx_http_infer_limit_event,
                      NGX_HTTP_INFER_LIMIT_REAP_MS);
    }

    return NGX_OK;
}


void
ngx_http_infer_limit_exit(ngx_cycle_t *cycle, ngx_http_infer_main_conf_t *imcf)
{
    ngx_uint_t                i;
    ngx_http_infer_limit_t  **limits;

    limits = imcf->limits.elts;

    for (i = 0; i < imcf->limits.nelts; i++) {
        if (limits[i]->table.zone != NULL) {
            shr_limit_close(&limits[i]->table);
        }
    }
}
