/*
 * Errors in OpenAI's shape, with the headers its client libraries obey, and
 * the small answers.  A filter gives the same shape to errors that nginx
 * itself makes in our locations (body too large, limits, access).
 */

#include "ngx_module/ngx_http_infer_input.h"

#include <sys/random.h>


#define NGX_HTTP_INFER_MESSAGE_MAX    1024
#define NGX_HTTP_INFER_NEAR_MS        60000     /* a client may wait for */
#define NGX_HTTP_INFER_UNPROCESSABLE  422       /* RFC 9110; nginx lacks it */


static ngx_int_t ngx_http_infer_error_headers(ngx_http_request_t *r,
    ngx_uint_t status, ngx_msec_t retry);
static ngx_int_t ngx_http_infer_error_header_filter(ngx_http_request_t *r);
static ngx_int_t ngx_http_infer_error_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);


static ngx_http_output_header_filter_pt  ngx_http_infer_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_infer_next_body_filter;


static const char *
ngx_http_infer_error_type(ngx_uint_t status)
{
    switch (status) {
    case NGX_HTTP_UNAUTHORIZED:
        return "authentication_error";
    case NGX_HTTP_FORBIDDEN:
        return "permission_error";
    case NGX_HTTP_TOO_MANY_REQUESTS:
        return "rate_limit_error";
    default:
        return status < 500 ? "invalid_request_error" : "server_error";
    }
}


static ngx_int_t
ngx_http_infer_error_set(ngx_pool_t *pool, ngx_http_infer_error_t *error,
    ngx_uint_t status, const char *code, const char *fmt, va_list args)
{
    u_char  *p;

    error->status = status;
    error->type = ngx_http_infer_error_type(status);
    error->code = code;
    error->retry = 0;

    p = ngx_pnalloc(pool, NGX_HTTP_INFER_MESSAGE_MAX);

    if (p == NULL) {
        ngx_str_set(&error->message, "Out of memory.");
        return NGX_ERROR;
    }

    error->message.data = p;
    p = ngx_vslprintf(p, p + NGX_HTTP_INFER_MESSAGE_MAX, fmt, args);
    error->message.len = (size_t) (p - error->message.data);

    return NGX_OK;
}


ngx_int_t
ngx_http_infer_fail(ngx_http_infer_ctx_t *ctx, ngx_uint_t status,
    const char *code, const char *param, const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    (void) ngx_http_infer_error_set(ctx->request->pool, &ctx->error, status,
                                    code, fmt, args);
    va_end(args);

    ctx->error.param.data = (u_char *) param;
    ctx->error.param.len = param != NULL ? ngx_strlen(param) : 0;

    return NGX_ERROR;
}


static void
ngx_http_infer_render_string(ngx_http_infer_out_t *out, const u_char *data,
    size_t len)
{
    if (len == 0) {
        ngx_http_infer_out(out, "null");
        return;
    }

    ngx_http_infer_out(out, "\"");
    ngx_http_infer_out_text(out, data, len);
    ngx_http_infer_out(out, "\"");
}


/* {"error", "error_type"} of text-embeddings-inference, and of
 * text-generation-inference with other words. */
static void
ngx_http_infer_render_native(ngx_http_infer_out_t *out,
    ngx_http_infer_error_t *error)
{
    ngx_uint_t   tgi;
    const char  *word;

    tgi = error->native == NGX_HTTP_INFER_NATIVE_TGI;
    ngx_http_infer_out(out, "{\"error\":\"");
    ngx_http_infer_out_text(out, error->message.data, error->message.len);

    if (error->status == NGX_HTTP_TOO_MANY_REQUESTS) {
        word = tgi ? "overloaded" : "Overloaded";

    } else if (error->status == NGX_HTTP_SERVICE_UNAVAILABLE) {
        word = tgi ? "overloaded" : "Unhealthy";

    } else if (error->status < 500) {
        word = tgi ? "validation" : "Validation";

    } else {
        word = tgi ? "generation" : "Backend";
    }

    ngx_http_infer_out(out, "\",\"error_type\":\"");
    ngx_http_infer_out_data(out, word, ngx_strlen(word));
    ngx_http_infer_out(out, "\"}");
}


void
ngx_http_infer_render_error(ngx_http_infer_out_t *out,
    ngx_http_infer_error_t *error)
{
    if (error->native) {
        ngx_http_infer_render_native(out, error);
        return;
    }

    ngx_http_infer_out(out, "{\"error\":{\"message\":\"");
    ngx_http_infer_out_text(out, error->message.data, error->message.len);
    ngx_http_infer_out(out, "\",\"type\":\"");
    ngx_http_infer_out_data(out, error->type, ngx_strlen(error->type));
    ngx_http_infer_out(out, "\",\"param\":");
    ngx_http_infer_render_string(out, error->param.data, error->param.len);
    ngx_http_infer_out(out, ",\"code\":");
    ngx_http_infer_render_string(out, (u_char *) error->code,
                                 error->code != NULL
                                 ? ngx_strlen(error->code) : 0);
    ngx_http_infer_out(out, "}}");
}


ngx_int_t
ngx_http_infer_add_header(ngx_http_request_t *r, const char *name,
    ngx_str_t *value)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->hash = 1;
    h->key.data = (u_char *) name;
    h->key.len = ngx_strlen(name);
    h->value = *value;
    h->lowcase_key = NULL;
#if (nginx_version >= 1023000)
    h->next = NULL;
#endif

    return NGX_OK;
}


/* A word of an id: distinct for each n, evenly spread (splitmix64's mixing
 * function, Steele, Lea, Flood 2014). */
static uint64_t
ngx_http_infer_mix(uint64_t n)
{
    n = (n ^ n >> 30) * 0xbf58476d1ce4e5b9u;
    n = (n ^ n >> 27) * 0x94d049bb133111ebu;

    return n ^ n >> 31;
}


/* $request_id where the configuration uses it, else one of our own: ids name
 * requests in logs, they need not be hard to guess. */
void
ngx_http_infer_request_id(ngx_http_request_t *r, u_char *id)
{
    uint64_t                     words[2];
    ngx_uint_t                   i;
    ngx_http_variable_value_t   *v;
    ngx_http_infer_main_conf_t  *imcf;
    static uint64_t              seed[2];
    static ngx_pid_t             owner;
    static const u_char          hex[] = "0123456789abcdef";

    imcf = ngx_http_get_module_main_conf(r, ngx_http_infer_module);

    if (imcf->request_id != NGX_ERROR) {
        v = ngx_http_get_indexed_variable(r, (ngx_uint_t) imcf->request_id);

        if (v != NULL && !v->not_found && v->len == NGX_HTTP_INFER_ID_LEN) {
            ngx_memcpy(id, v->data, NGX_HTTP_INFER_ID_LEN);
            return;
        }
    }

    if (owner != ngx_pid) {
        if (getrandom(seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed)) {
            seed[0] = ngx_http_infer_now();
            seed[1] = (uint64_t) ngx_pid;
        }

        owner = ngx_pid;
    }

    words[0] = ngx_http_infer_mix(seed[0]++);
    words[1] = ngx_http_infer_mix(seed[1]);

    for (i = 0; i < NGX_HTTP_INFER_ID_LEN; i++) {
        id[i] = hex[words[i / 16] >> (60 - i % 16 * 4) & 15];
    }
}


/* The client's own id when it is fit to be repeated, else the request's. */
ngx_int_t
ngx_http_infer_add_request_id(ngx_http_request_t *r)
{
    size_t                       i;
    ngx_str_t                    id;
    ngx_uint_t                   n;
    ngx_list_part_t             *part;
    ngx_table_elt_t             *h;
    ngx_http_infer_ctx_t        *ctx;
    ngx_http_infer_main_conf_t  *imcf;

    part = &r->headers_in.headers.part;

    for (h = part->elts, n = 0; /* void */; n++) {

        if (n >= part->nelts) {
            if (part->next == NULL) {
                break;
            }

            part = part->next;
            h = part->elts;
            n = 0;
        }

        if (h[n].key.len != sizeof("X-Request-Id") - 1
            || ngx_strcasecmp(h[n].key.data, (u_char *) "X-Request-Id") != 0
            || h[n].value.len == 0 || h[n].value.len > 128)
        {
            continue;
        }

        for (i = 0; i < h[n].value.len; i++) {
            if (h[n].value.data[i] <= ' ' || h[n].value.data[i] >= 0x7f) {
                break;
            }
        }

        if (i == h[n].value.len) {
            return ngx_http_infer_add_header(r, "x-request-id", &h[n].value);
        }
    }

    imcf = ngx_http_get_module_main_conf(r, ngx_http_infer_module);

    if (imcf->models.nelts == 0) {
        return NGX_OK;
    }

    ctx = ngx_http_infer_ctx(r);
    id.len = NGX_HTTP_INFER_ID_LEN;

    if (ctx != NULL && ctx->id[0] != '\0') {
        id.data = ctx->id;

    } else {
        id.data = ngx_pnalloc(r->pool, NGX_HTTP_INFER_ID_LEN);

        if (id.data == NULL) {
            return NGX_ERROR;
        }

        ngx_http_infer_request_id(r, id.data);
    }

    return ngx_http_infer_add_header(r, "x-request-id", &id);
}


ngx_int_t
ngx_http_infer_send_out(ngx_http_request_t *r, ngx_uint_t status,
    const char *type, ngx_http_infer_out_t *out)
{
    ngx_int_t     rc;
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    b = out->buf;
    cl = ngx_http_infer_out_take(out);

    if (cl == NULL || b == NULL || out->failed) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b->last_buf = r == r->main;
    b->last_in_chain = 1;

    r->headers_out.status = status;
    r->headers_out.content_type.data = (u_char *) type;
    r->headers_out.content_type.len = ngx_strlen(type);
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;
    r->headers_out.content_length_n = ngx_http_infer_out_bytes(cl);

    if (ngx_http_infer_limit_headers(r) != NGX_OK
        || ngx_http_infer_add_request_id(r) != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    return ngx_http_output_filter(r, cl);
}


static ngx_int_t
ngx_http_infer_send_json(ngx_http_request_t *r, ngx_http_infer_error_t *error)
{
    ngx_http_infer_out_t  out;

    if (ngx_http_infer_error_headers(r, error->status, error->retry)
        != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_infer_out_init(&out, r->pool, 512, 4096);
    ngx_http_infer_render_error(&out, error);

    return ngx_http_infer_send_out(r, error->status, "application/json", &out);
}


ngx_int_t
ngx_http_infer_refuse(ngx_http_request_t *r, ngx_uint_t status,
    const char *code, const char *fmt, ...)
{
    va_list                  args;
    ngx_http_infer_error_t   error;

    ngx_memzero(&error, sizeof(ngx_http_infer_error_t));

    va_start(args, fmt);
    (void) ngx_http_infer_error_set(r->pool, &error, status, code, fmt, args);
    va_end(args);

    return ngx_http_infer_send_json(r, &error);
}


/* Whether error_page takes this status elsewhere. */
static ngx_uint_t
ngx_http_infer_error_page(ngx_http_request_t *r, ngx_uint_t status)
{
    ngx_uint_t                 i;
    ngx_http_err_page_t       *page;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (clcf->error_pages == NULL || r->error_page) {
        return 0;
    }

    page = clcf->error_pages->elts;

    for (i = 0; i < clcf->error_pages->nelts; i++) {
        if (page[i].status == (ngx_int_t) status) {
            return 1;
        }
    }

    return 0;
}


ngx_int_t
ngx_http_infer_send_error(ngx_http_infer_ctx_t *ctx)
{
    ngx_uint_t           status, level;
    ngx_http_request_t  *r;

    r = ctx->request;

    /* as generation-inference tells a request that is well formed but wrong */
    if (ctx->error.native == NGX_HTTP_INFER_NATIVE_TGI
        && ctx->error.status == NGX_HTTP_BAD_REQUEST)
    {
        ctx->error.status = NGX_HTTP_INFER_UNPROCESSABLE;
    }

    status = ctx->error.status;

    level = status >= 500 ? NGX_LOG_ERR : NGX_LOG_INFO;

    ngx_log_error(level, r->connection->log, 0,
                  "infer: %ui %s: %V, request id %*s", status,
                  ctx->error.code != NULL ? ctx->error.code : "error",
                  &ctx->error.message, (size_t) NGX_HTTP_INFER_ID_LEN,
                  ctx->id);

    if (ctx->conf->fallback.len != 0
        && (status == NGX_HTTP_TOO_MANY_REQUESTS
            || status >= NGX_HTTP_BAD_GATEWAY))
    {
        r->read_event_handler = ngx_http_block_reading;
        (void) ngx_http_named_location(r, &ctx->conf->fallback);
        return NGX_DONE;
    }

    if (ngx_http_infer_error_page(r, status)) {
        r->read_event_handler = ngx_http_block_reading;
        return (ngx_int_t) status;
    }

    return ctx->plain ? ngx_http_infer_input_error(ctx)
                      : ngx_http_infer_send_json(r, &ctx->error);
}


/* openai-python reads retry-after-ms, then Retry-After, and obeys
 * x-should-retry above all. */
static ngx_int_t
ngx_http_infer_error_headers(ngx_http_request_t *r, ngx_uint_t status,
    ngx_msec_t retry)
{
    u_char     *p;
    ngx_str_t   value;

    if (status != NGX_HTTP_TOO_MANY_REQUESTS && status < 500) {
        return NGX_OK;
    }

    if (retry == 0) {
        ngx_str_set(&value, "false");
        return ngx_http_infer_add_header(r, "x-should-retry", &value);
    }

    p = ngx_pnalloc(r->pool, 2 * NGX_INT_T_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    value.data = p;
    value.len = (size_t) (ngx_sprintf(p, "%M", (retry + 999) / 1000) - p);

    if (ngx_http_infer_add_header(r, "Retry-After", &value) != NGX_OK) {
        return NGX_ERROR;
    }

    value.data = p + NGX_INT_T_LEN;
    value.len = (size_t) (ngx_sprintf(value.data, "%M", retry) - value.data);

    if (ngx_http_infer_add_header(r, "retry-after-ms", &value) != NGX_OK) {
        return NGX_ERROR;
    }

    if (retry <= NGX_HTTP_INFER_NEAR_MS) {
        ngx_str_set(&value, "true");

    } else {
        ngx_str_set(&value, "false");
    }

    return ngx_http_infer_add_header(r, "x-should-retry", &value);
}


ngx_int_t
ngx_http_infer_error_filter_init(ngx_conf_t *cf)
{
    ngx_http_infer_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_infer_error_header_filter;

    ngx_http_infer_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_infer_error_body_filter;

    return NGX_OK;
}


/* An error page that nginx made up by itself, in a location of ours. */
static ngx_uint_t
ngx_http_infer_is_error_page(ngx_http_request_t *r)
{
    ngx_http_infer_loc_conf_t  *ilcf;

    if (r->err_status < NGX_HTTP_BAD_REQUEST || r != r->main) {
        return 0;
    }

    ilcf = ngx_http_get_module_loc_conf(r, ngx_http_infer_module);

    return ilcf->pass == 1 && (ilcf->input == NULL || !ilcf->input->plain)
           && r->headers_out.content_type.len == sizeof("text/html") - 1
           && ngx_strncmp(r->headers_out.content_type.data, "text/html",
                          sizeof("text/html") - 1) == 0;
}


static void
ngx_http_infer_error_of_nginx(ngx_http_request_t *r,
    ngx_http_infer_error_t *error)
{
    error->status = r->err_status;
    error->type = ngx_http_infer_error_type(error->status);

    switch (error->status) {

    case NGX_HTTP_REQUEST_ENTITY_TOO_LARGE:
        error->code = "request_too_large";
        ngx_str_set(&error->message, "The request body is larger than this "
                    "server accepts.");
        break;

    case NGX_HTTP_UNAUTHORIZED:
        error->code = "invalid_api_key";
        ngx_str_set(&error->message, "Authentication is required, or it "
                    "failed.");
        break;

    case NGX_HTTP_FORBIDDEN:
        error->code = "forbidden";
        ngx_str_set(&error->message, "Access is denied.");
        break;

    case NGX_HTTP_TOO_MANY_REQUESTS:
    case NGX_HTTP_SERVICE_UNAVAILABLE:
        error->code = error->status == NGX_HTTP_TOO_MANY_REQUESTS
                      ? "rate_limit_exceeded" : "server_overloaded";
        error->retry = 1000;
        ngx_str_set(&error->message, "Too many requests. Please retry "
                    "later.");
        break;

    default:
        error->code = error->status < 500 ? "bad_request" : "server_error";
        ngx_str_set(&error->message, "The server refused the request.");
    }
}


static ngx_int_t
ngx_http_infer_error_header_filter(ngx_http_request_t *r)
{
    ngx_buf_t              *b;
    ngx_http_infer_ctx_t   *ctx;
    ngx_http_infer_out_t    out;
    ngx_http_infer_error_t  error;

    if (!ngx_http_infer_is_error_page(r)) {
        return ngx_http_infer_next_header_filter(r);
    }

    ctx = ngx_http_infer_ctx(r);

    if (ctx == NULL) {
        ctx = ngx_pcalloc(r->pool, sizeof(ngx_http_infer_ctx_t));
        if (ctx == NULL) {
            return NGX_ERROR;
        }

        ctx->finished = 1;
        ngx_http_set_ctx(r, ctx, ngx_http_infer_module);
    }

    ngx_memzero(&error, sizeof(ngx_http_infer_error_t));
    ngx_http_infer_error_of_nginx(r, &error);
    ngx_http_infer_out_init(&out, r->pool, 512, 512);
    ngx_http_infer_render_error(&out, &error);

    b = out.buf;
    ctx->instead = ngx_http_infer_out_take(&out);

    if (out.failed || ctx->instead == NULL || b == NULL
        || ngx_http_infer_error_headers(r, error.status, error.retry)
           != NGX_OK
        || ngx_http_infer_add_request_id(r) != NGX_OK)
    {
        return NGX_ERROR;
    }

    b->last_buf = 1;
    b->last_in_chain = 1;

    ngx_http_clear_content_length(r);
    r->headers_out.content_length_n = ngx_http_infer_out_bytes(ctx->instead);
    ngx_str_set(&r->headers_out.content_type, "application/json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;

    return ngx_http_infer_next_header_filter(r);
}


static ngx_int_t
ngx_http_infer_error_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_uint_t             last;
    ngx_chain_t           *cl, *instead;
    ngx_http_infer_ctx_t  *ctx;

    if (r->err_status == 0) {
        return ngx_http_infer_next_body_filter(r, in);
    }

    ctx = ngx_http_infer_ctx(r);

    if (ctx == NULL || ctx->instead == NULL) {
        return ngx_http_infer_next_body_filter(r, in);
    }

    for (last = 0, cl = in; cl != NULL; cl = cl->next) {
        last |= cl->buf->last_buf;
        cl->buf->pos = cl->buf->last;
    }

    if (!last) {
        return NGX_OK;
    }

    instead = ctx->instead;
    ctx->instead = NULL;

    return ngx_http_infer_next_body_filter(r, instead);
}
