/* Variables for log_format: what the request cost and how it ended. */

#include "ngx_module/ngx_http_infer_api.h"


typedef enum {
    NGX_HTTP_INFER_VAR_MODEL = 0,
    NGX_HTTP_INFER_VAR_PROMPT,
    NGX_HTTP_INFER_VAR_COMPLETION,
    NGX_HTTP_INFER_VAR_CACHED,
    NGX_HTTP_INFER_VAR_QUEUE,
    NGX_HTTP_INFER_VAR_PREFILL,
    NGX_HTTP_INFER_VAR_FIRST,
    NGX_HTTP_INFER_VAR_RATE,
    NGX_HTTP_INFER_VAR_REASON,
    NGX_HTTP_INFER_VAR_STATUS,
    NGX_HTTP_INFER_VAR_WORKER,
    NGX_HTTP_INFER_VAR_RETRIES,
    NGX_HTTP_INFER_VAR_OPERATION,
    NGX_HTTP_INFER_VAR_ID,
    NGX_HTTP_INFER_VAR_MAX,
    NGX_HTTP_INFER_VAR_TEMPERATURE,
    NGX_HTTP_INFER_VAR_TOP_P,
    NGX_HTTP_INFER_VAR_CHOICES,
    NGX_HTTP_INFER_VAR_STREAM,
    NGX_HTTP_INFER_VAR_PRIORITY,
    NGX_HTTP_INFER_VAR_LIMIT,
    NGX_HTTP_INFER_VAR_RESERVED,
    NGX_HTTP_INFER_VAR_CHARGED
} ngx_http_infer_var_e;


static ngx_int_t ngx_http_infer_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);


static ngx_http_variable_t  ngx_http_infer_vars[] = {
#define var(name, what)                                                       \
    { ngx_string(name), NULL, ngx_http_infer_variable, what,                  \
      NGX_HTTP_VAR_NOCACHEABLE, 0 }
    var("infer_model", NGX_HTTP_INFER_VAR_MODEL),
    var("infer_prompt_tokens", NGX_HTTP_INFER_VAR_PROMPT),
    var("infer_completion_tokens", NGX_HTTP_INFER_VAR_COMPLETION),
    var("infer_cached_tokens", NGX_HTTP_INFER_VAR_CACHED),
    var("infer_queue_time", NGX_HTTP_INFER_VAR_QUEUE),
    var("infer_prefill_time", NGX_HTTP_INFER_VAR_PREFILL),
    var("infer_first_token_time", NGX_HTTP_INFER_VAR_FIRST),
    var("infer_tokens_per_second", NGX_HTTP_INFER_VAR_RATE),
    var("infer_finish_reason", NGX_HTTP_INFER_VAR_REASON),
    var("infer_status", NGX_HTTP_INFER_VAR_STATUS),
    var("infer_worker", NGX_HTTP_INFER_VAR_WORKER),
    var("infer_retries", NGX_HTTP_INFER_VAR_RETRIES),
    var("infer_operation", NGX_HTTP_INFER_VAR_OPERATION),
    var("infer_response_id", NGX_HTTP_INFER_VAR_ID),
    var("infer_max_tokens", NGX_HTTP_INFER_VAR_MAX),
    var("infer_temperature", NGX_HTTP_INFER_VAR_TEMPERATURE),
    var("infer_top_p", NGX_HTTP_INFER_VAR_TOP_P),
    var("infer_choices", NGX_HTTP_INFER_VAR_CHOICES),
    var("infer_stream", NGX_HTTP_INFER_VAR_STREAM),
    var("infer_priority", NGX_HTTP_INFER_VAR_PRIORITY),
    var("infer_limit_status", NGX_HTTP_INFER_VAR_LIMIT),
    var("infer_reserved_tokens", NGX_HTTP_INFER_VAR_RESERVED),
    var("infer_charged_tokens", NGX_HTTP_INFER_VAR_CHARGED),
#undef var
    { ngx_string("infer_prefix_key"), NULL, ngx_http_infer_prefix_variable, 0,
      0, 0 },
#define var(name, what)                                                       \
    { ngx_string(name), NULL, ngx_http_infer_trace_variable, what, 0, 0 }
    var("infer_traceparent", NGX_HTTP_INFER_TRACE_ALL),
    var("infer_trace_id", NGX_HTTP_INFER_TRACE_ID),
    var("infer_span_id", NGX_HTTP_INFER_TRACE_SPAN),
    var("infer_parent_id", NGX_HTTP_INFER_TRACE_PARENT),
    var("infer_tracestate", NGX_HTTP_INFER_TRACE_STATE),
#undef var
    ngx_http_null_variable
};


ngx_int_t
ngx_http_infer_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t  *v, *var;

    for (v = ngx_http_infer_vars; v->name.len != 0; v++) {
        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


/* Seconds with microseconds, like "0.000123". */
static u_char *
ngx_http_infer_seconds(u_char *p, uint64_t us)
{
    return ngx_sprintf(p, "%uL.%06uL", us / 1000000, us % 1000000);
}


static u_char *
ngx_http_infer_rate(u_char *p, shr_usage_t *usage)
{
    uint64_t  tenths;

    if (usage->completion_tokens < 2 || usage->decode_us == 0) {
        return p;
    }

    tenths = (uint64_t) (usage->completion_tokens - 1) * 10000000
             / usage->decode_us;

    return ngx_sprintf(p, "%uL.%uL", tenths / 10, tenths % 10);
}


/* How it ended, in one word. */
static const char *
ngx_http_infer_outcome(ngx_http_infer_ctx_t *ctx)
{
    return ctx->error.status != 0
           ? (ctx->error.code != NULL ? ctx->error.code : "error")
           : ctx->ended ? "ok" : ctx->claimed ? "running" : "cancelled";
}


/* The names of OpenTelemetry's conventions where they have some. */
static const char *
ngx_http_infer_operation(ngx_http_infer_ctx_t *ctx)
{
    static const char  *names[SHR_TASK_MAX] = {
        [SHR_TASK_CHAT] = "chat",
        [SHR_TASK_COMPLETE] = "text_completion",
        [SHR_TASK_TOKENIZE] = "tokenize",
        [SHR_TASK_DETOKENIZE] = "detokenize",
        [SHR_TASK_EMBED] = "embeddings",
        [SHR_TASK_RERANK] = "rerank",
        [SHR_TASK_CLASSIFY] = "classify",
    };

    return names[ctx->req.task];
}


/* What was asked for; nothing while the request is not read. */
static u_char *
ngx_http_infer_asked(ngx_http_infer_ctx_t *ctx, ngx_uint_t what, u_char *p)
{
    shr_req_t  *req;

    req = &ctx->req;

    if (what == NGX_HTTP_INFER_VAR_OPERATION) {
        return ngx_sprintf(p, "%s", ngx_http_infer_operation(ctx));
    }

    if (ctx->model == NULL) {
        return p;
    }

    switch (what) {

    case NGX_HTTP_INFER_VAR_ID:
        return ngx_sprintf(p, "%s%*s",
                           req->task == SHR_TASK_CHAT ? "chatcmpl-" : "cmpl-",
                           (size_t) NGX_HTTP_INFER_ID_LEN, ctx->id);

    case NGX_HTTP_INFER_VAR_MAX:
        return req->max_tokens == SHR_MAX_TOKENS_REST ? p
               : ngx_sprintf(p, "%uD", req->max_tokens);

    case NGX_HTTP_INFER_VAR_TEMPERATURE:
        return ngx_sprintf(p, "%.3f", (double) req->temperature);

    case NGX_HTTP_INFER_VAR_TOP_P:
        return ngx_sprintf(p, "%.3f", (double) req->top_p);

    case NGX_HTTP_INFER_VAR_CHOICES:
        return ngx_sprintf(p, "%ui", ctx->nchoices);

    case NGX_HTTP_INFER_VAR_STREAM:
        return ngx_sprintf(p, "%s", ctx->stream ? "true" : "false");

    default:                            /* NGX_HTTP_INFER_VAR_PRIORITY */
        return ngx_sprintf(p, "%D", req->priority);
    }
}


static u_char *
ngx_http_infer_value(ngx_http_infer_ctx_t *ctx, ngx_uint_t what, u_char *p)
{
    uint64_t      us;
    shr_usage_t  *u;

    u = &ctx->usage;

    switch (what) {

    case NGX_HTTP_INFER_VAR_MODEL:
        return ctx->model == NULL ? p
               : ngx_cpymem(p, ctx->model->name.data, ctx->model->name.len);

    case NGX_HTTP_INFER_VAR_PROMPT:
        return ctx->started ? ngx_sprintf(p, "%uD", u->prompt_tokens) : p;

    case NGX_HTTP_INFER_VAR_COMPLETION:
        return ctx->started ? ngx_sprintf(p, "%uD", u->completion_tokens) : p;

    case NGX_HTTP_INFER_VAR_CACHED:
        return ctx->started ? ngx_sprintf(p, "%uD", u->cached_tokens) : p;

    case NGX_HTTP_INFER_VAR_QUEUE:
        return ctx->started ? ngx_http_infer_seconds(p, u->queue_us) : p;

    case NGX_HTTP_INFER_VAR_PREFILL:
        return ctx->first_ns != 0 && u->completion_tokens != 0
               ? ngx_http_infer_seconds(p, u->prefill_us) : p;

    case NGX_HTTP_INFER_VAR_FIRST:
        us = (ctx->first_ns - ctx->req.queued_ns) / 1000;
        return ctx->first_ns != 0 ? ngx_http_infer_seconds(p, us) : p;

    case NGX_HTTP_INFER_VAR_RATE:
        return ngx_http_infer_rate(p, u);

    case NGX_HTTP_INFER_VAR_REASON:
        return ctx->reason == 0 ? p
               : ngx_sprintf(p, "%s", ctx->reason == SHR_FINISH_LENGTH
                                      ? "length" : "stop");

    case NGX_HTTP_INFER_VAR_STATUS:
        return ngx_sprintf(p, "%s", ngx_http_infer_outcome(ctx));

    case NGX_HTTP_INFER_VAR_WORKER:
        return ctx->started ? ngx_sprintf(p, "%uD", ctx->worker) : p;

    case NGX_HTTP_INFER_VAR_RETRIES:
        return ngx_sprintf(p, "%ui", ctx->retries);

    case NGX_HTTP_INFER_VAR_LIMIT:
    case NGX_HTTP_INFER_VAR_RESERVED:
    case NGX_HTTP_INFER_VAR_CHARGED:
        return ngx_http_infer_limit_value(ctx, what - NGX_HTTP_INFER_VAR_LIMIT,
                                          p);

    default:
        return ngx_http_infer_asked(ctx, what, p);
    }
}


static ngx_int_t
ngx_http_infer_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    u_char                *p;
    ngx_http_infer_ctx_t  *ctx;

    ctx = ngx_http_infer_ctx(r);

    if (ctx == NULL || ctx->request == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, NGX_HTTP_INFER_NAME_MAX + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    v->data = p;
    v->len = (unsigned) (ngx_http_infer_value(ctx, data, p) - p);
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = v->len == 0;         /* "-" in logs */

    return NGX_OK;
}
