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
    var("infer_limit_status", NGX_HTTP_INFER_VAR_LIMIT),
    var("infer_reserved_tokens", NGX_HTTP_INFER_VAR_RESERVED),
    var("infer_charged_tokens", NGX_HTTP_INFER_VAR_CHARGED),
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

    default:
        return ngx_http_infer_limit_value(ctx, what - NGX_HTTP_INFER_VAR_LIMIT,
                                          p);
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
