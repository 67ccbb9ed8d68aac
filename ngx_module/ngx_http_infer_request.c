/*
 * The content handler: which endpoint is meant, the small ones (models,
 * health) answered at once, the others as soon as their body is there.
 */

#include "ngx_module/ngx_http_infer_before.h"
#include "ngx_module/ngx_http_infer_input.h"

#include <ngx_sha1.h>
#include <sys/random.h>


#define NGX_HTTP_INFER_SMALL  65536     /* requests that need no allocation */


typedef struct ngx_http_infer_route_s  ngx_http_infer_route_t;

struct ngx_http_infer_route_s {
    ngx_str_t      tail;
    ngx_uint_t     methods;
    shr_task_t     task;                /* 0: answered by handler */
    ngx_uint_t     api;                 /* ngx_http_infer_api_e */
    ngx_int_t    (*handler)(ngx_http_request_t *r,
                     ngx_http_infer_loc_conf_t *ilcf, ngx_str_t *rest);
};


static ngx_int_t ngx_http_infer_models_handler(ngx_http_request_t *r,
    ngx_http_infer_loc_conf_t *ilcf, ngx_str_t *rest);
static ngx_int_t ngx_http_infer_healthz_handler(ngx_http_request_t *r,
    ngx_http_infer_loc_conf_t *ilcf, ngx_str_t *rest);
static ngx_int_t ngx_http_infer_readyz_handler(ngx_http_request_t *r,
    ngx_http_infer_loc_conf_t *ilcf, ngx_str_t *rest);
static ngx_int_t ngx_http_infer_task(ngx_http_request_t *r,
    ngx_http_infer_loc_conf_t *ilcf, const ngx_http_infer_route_t *route);
static void ngx_http_infer_body_handler(ngx_http_request_t *r);
static void ngx_http_infer_cleanup(void *data);


#define GET  (NGX_HTTP_GET|NGX_HTTP_HEAD)

#define POST(tail, task, api)                                                 \
    { ngx_string(tail), NGX_HTTP_POST, task, api, NULL }

static ngx_http_infer_route_t  ngx_http_infer_routes[] = {
    POST("chat/completions", SHR_TASK_CHAT, NGX_HTTP_INFER_OPENAI),
    POST("completions", SHR_TASK_COMPLETE, NGX_HTTP_INFER_OPENAI),
    POST("embeddings", SHR_TASK_EMBED, NGX_HTTP_INFER_EMBEDDINGS),
    POST("embed", SHR_TASK_EMBED, NGX_HTTP_INFER_EMBED),
    POST("similarity", SHR_TASK_EMBED, NGX_HTTP_INFER_SIMILARITY),
    POST("rerank", SHR_TASK_RERANK, NGX_HTTP_INFER_RERANK),
    POST("classify", SHR_TASK_CLASSIFY, NGX_HTTP_INFER_CLASSIFY),
    POST("predict", SHR_TASK_CLASSIFY, NGX_HTTP_INFER_PREDICT),
    POST("generate", SHR_TASK_COMPLETE, NGX_HTTP_INFER_GENERATE),
    POST("generate_stream", SHR_TASK_COMPLETE,
         NGX_HTTP_INFER_GENERATE_STREAM),
    POST("tokenize", SHR_TASK_TOKENIZE, NGX_HTTP_INFER_OPENAI),
    POST("detokenize", SHR_TASK_DETOKENIZE, NGX_HTTP_INFER_OPENAI),
    { ngx_string("models"), GET, 0, 0, ngx_http_infer_models_handler },
    { ngx_string("models/"), GET, 0, 0, ngx_http_infer_models_handler },
    { ngx_string("info"), GET, 0, 0, ngx_http_infer_info_handler },
    { ngx_string("healthz"), GET, 0, 0, ngx_http_infer_healthz_handler },
    { ngx_string("readyz"), GET, 0, 0, ngx_http_infer_readyz_handler },
    { ngx_null_string, 0, 0, 0, NULL }
};

#undef POST
#undef GET


/* Whether the route's tail matches; a tail that ends with a slash leaves the
 * rest to its handler. */
static ngx_uint_t
ngx_http_infer_route_match(ngx_http_infer_route_t *route, ngx_str_t *tail,
    ngx_uint_t anywhere, ngx_str_t *rest)
{
    u_char     *p, *last;
    ngx_str_t  *want;

    want = &route->tail;
    p = tail->data;
    last = tail->data + tail->len;

    if (want->data[want->len - 1] == '/') {

        if (tail->len <= want->len
            || ngx_strncmp(p, want->data, want->len) != 0)
        {
            return 0;
        }

        rest->data = p + want->len;
        rest->len = tail->len - want->len;
        return 1;
    }

    if (anywhere && tail->len > want->len) {
        p = last - want->len;

        if (p[-1] != '/') {
            return 0;
        }
    }

    return (size_t) (last - p) == want->len
           && ngx_strncmp(p, want->data, want->len) == 0;
}


/* The endpoint follows the location's prefix; in a location of another kind
 * (exact, regex, named) it is what the URI ends with. */
static ngx_http_infer_route_t *
ngx_http_infer_route(ngx_http_request_t *r, ngx_str_t *rest)
{
    ngx_str_t                  tail;
    ngx_uint_t                 anywhere;
    ngx_http_infer_route_t    *route;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    tail = r->uri;
    anywhere = 1;

    if (!clcf->exact_match && !clcf->named
#if (NGX_PCRE)
        && clcf->regex == NULL
#endif
        && clcf->name.len < tail.len
        && ngx_strncmp(tail.data, clcf->name.data, clcf->name.len) == 0)
    {
        anywhere = 0;
        tail.data += clcf->name.len;
        tail.len -= clcf->name.len;
    }

    if (tail.len != 0 && tail.data[0] == '/') {
        tail.data++;
        tail.len--;
    }

    if (!anywhere && tail.len > 3 && ngx_strncmp(tail.data, "v1/", 3) == 0) {
        tail.data += 3;
        tail.len -= 3;
    }

    for (route = ngx_http_infer_routes; route->tail.len != 0; route++) {
        if (ngx_http_infer_route_match(route, &tail, anywhere, rest)) {
            return route;
        }
    }

    return NULL;
}


/* Where variables are the input the URI says nothing, the model all. */
static ngx_http_infer_route_t *
ngx_http_infer_input_route(ngx_http_infer_loc_conf_t *ilcf)
{
    ngx_http_infer_api_e           api;
    static ngx_http_infer_route_t  route;

    ngx_http_infer_input_kind(ilcf, &route.task, &api);
    route.api = api;
    route.methods = NGX_HTTP_GET|NGX_HTTP_HEAD|NGX_HTTP_POST;

    return &route;
}


ngx_int_t
ngx_http_infer_handler(ngx_http_request_t *r)
{
    ngx_int_t                   rc;
    ngx_str_t                   rest, allow;
    ngx_http_infer_route_t     *route;
    ngx_http_infer_loc_conf_t  *ilcf;

    ilcf = ngx_http_get_module_loc_conf(r, ngx_http_infer_module);

    ngx_str_null(&rest);
    route = ilcf->input != NULL ? ngx_http_infer_input_route(ilcf)
                                : ngx_http_infer_route(r, &rest);

    if (route == NULL) {
        rc = ngx_http_discard_request_body(r);

        return rc != NGX_OK ? rc
               : ngx_http_infer_refuse(r, NGX_HTTP_NOT_FOUND, "unknown_url",
                                       "Unknown request URL: %V %V. Please "
                                       "check the URL for typos.",
                                       &r->method_name, &r->uri);
    }

    if (!(r->method & route->methods)) {
        rc = ngx_http_discard_request_body(r);
        if (rc != NGX_OK) {
            return rc;
        }

        if (route->methods == NGX_HTTP_POST) {
            ngx_str_set(&allow, "POST");

        } else if (route->methods & NGX_HTTP_POST) {
            ngx_str_set(&allow, "GET, HEAD, POST");

        } else {
            ngx_str_set(&allow, "GET, HEAD");
        }

        if (ngx_http_infer_add_header(r, "Allow", &allow) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        return ngx_http_infer_refuse(r, NGX_HTTP_NOT_ALLOWED,
                                     "method_not_allowed",
                                     "Method %V is not allowed for %V, use "
                                     "%V.", &r->method_name, &r->uri, &allow);
    }

    if (route->handler != NULL) {
        rc = ngx_http_discard_request_body(r);

        return rc != NGX_OK ? rc : route->handler(r, ilcf, &rest);
    }

    return ngx_http_infer_task(r, ilcf, route);
}


static void
ngx_http_infer_render_model(ngx_http_infer_out_t *out,
    ngx_http_infer_model_t *model)
{
    ngx_http_infer_out(out, "{\"id\":\"");
    ngx_http_infer_out_data(out, model->name.data, model->name.len);
    ngx_http_infer_out(out, "\",\"object\":\"model\",\"created\":");
    ngx_http_infer_out_number(out, (uint64_t) ngx_max(model->created, 0));
    ngx_http_infer_out(out, ",\"owned_by\":\"local\"}");
}


/* GET models, models/NAME */
static ngx_int_t
ngx_http_infer_models_handler(ngx_http_request_t *r,
    ngx_http_infer_loc_conf_t *ilcf, ngx_str_t *rest)
{
    ngx_uint_t                i;
    ngx_http_infer_out_t      out;
    ngx_http_infer_model_t  **models;

    ngx_http_infer_out_init(&out, r->pool, 1024, 4096);
    models = ilcf->models->elts;

    if (rest->len == 0) {
        ngx_http_infer_out(&out, "{\"object\":\"list\",\"data\":[");
    }

    for (i = 0; i < ilcf->models->nelts; i++) {

        if (rest->len == 0) {
            if (i != 0) {
                ngx_http_infer_out(&out, ",");
            }

            ngx_http_infer_render_model(&out, models[i]);

        } else if (models[i]->name.len == rest->len
                   && ngx_memcmp(models[i]->name.data, rest->data, rest->len)
                      == 0)
        {
            ngx_http_infer_render_model(&out, models[i]);
            return ngx_http_infer_send_out(r, NGX_HTTP_OK, "application/json",
                                           &out);
        }
    }

    if (rest->len != 0) {
        return ngx_http_infer_refuse(r, NGX_HTTP_NOT_FOUND, "model_not_found",
                                     "The model \"%V\" does not exist here.",
                                     rest);
    }

    ngx_http_infer_out(&out, "]}");

    return ngx_http_infer_send_out(r, NGX_HTTP_OK, "application/json", &out);
}


/* This nginx worker runs: that is what it says. */
static ngx_int_t
ngx_http_infer_healthz_handler(ngx_http_request_t *r,
    ngx_http_infer_loc_conf_t *ilcf, ngx_str_t *rest)
{
    ngx_http_infer_out_t  out;

    ngx_http_infer_out_init(&out, r->pool, 256, 256);
    ngx_http_infer_out(&out, "{\"status\":\"ok\"}");

    return ngx_http_infer_send_out(r, NGX_HTTP_OK, "application/json", &out);
}


/* Every model of this location has a worker that is ready. */
static ngx_int_t
ngx_http_infer_readyz_handler(ngx_http_request_t *r,
    ngx_http_infer_loc_conf_t *ilcf, ngx_str_t *rest)
{
    ngx_uint_t                    i, n, all;
    ngx_http_infer_out_t          out, list;
    ngx_http_infer_model_t      **models;
    ngx_http_infer_main_conf_t   *imcf;

    imcf = ngx_http_get_module_main_conf(r, ngx_http_infer_module);
    models = ilcf->models->elts;
    all = 1;

    ngx_http_infer_out_init(&out, r->pool, 512, 4096);
    ngx_http_infer_out_init(&list, r->pool, 512, 4096);

    for (i = 0; i < ilcf->models->nelts; i++) {
        n = imcf->generation != NULL
            ? ngx_http_infer_ready_workers(
                  ngx_http_infer_pool_now(imcf->generation, models[i]))
            : 0;

        all &= n != 0;

        if (i != 0) {
            ngx_http_infer_out(&list, ",");
        }

        ngx_http_infer_out(&list, "\"");
        ngx_http_infer_out_data(&list, models[i]->name.data,
                                models[i]->name.len);
        ngx_http_infer_out(&list, "\":");
        ngx_http_infer_out_number(&list, n);
    }

    ngx_http_infer_out(&out, "{\"status\":\"");

    if (all) {
        ngx_http_infer_out(&out, "ready");

    } else {
        ngx_http_infer_out(&out, "loading");
    }

    ngx_http_infer_out(&out, "\",\"ready_workers\":{");
    ngx_http_infer_out_splice(&out, &list);
    ngx_http_infer_out(&out, "}}");

    return ngx_http_infer_send_out(r, all ? NGX_HTTP_OK
                                          : NGX_HTTP_SERVICE_UNAVAILABLE,
                                   "application/json", &out);
}


static ngx_int_t
ngx_http_infer_task(ngx_http_request_t *r, ngx_http_infer_loc_conf_t *ilcf,
    const ngx_http_infer_route_t *route)
{
    ngx_int_t              rc;
    ngx_http_cleanup_t    *cln;
    ngx_http_infer_ctx_t  *ctx;

    ctx = ngx_pcalloc(r->pool, sizeof(ngx_http_infer_ctx_t));
    cln = ngx_http_cleanup_add(r, 0);
    if (ctx == NULL || cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->request = r;
    ctx->conf = ilcf;
    ctx->req.task = route->task;
    ctx->api = route->api;
    ctx->plain = ilcf->input != NULL && ilcf->input->plain;

    /* of the main request; only this pointer knows us after a redirect */
    cln->handler = ngx_http_infer_cleanup;
    cln->data = ctx;

    ngx_http_set_ctx(r, ctx, ngx_http_infer_module);

    r->request_body_in_single_buf = 1;

    rc = ngx_http_read_client_request_body(r, ngx_http_infer_body_handler);

    return rc >= NGX_HTTP_SPECIAL_RESPONSE ? rc : NGX_DONE;
}


/* Whatever happens to the request, the slot comes back. */
static void
ngx_http_infer_cleanup(void *data)
{
    ngx_http_infer_ctx_t *ctx = data;

    if (ctx->claimed) {
        ctx->end_ns = ngx_http_infer_now();
        ngx_http_infer_count_end(ctx);
    }

    ctx->finished = 1;
    ngx_http_infer_release(ctx);
}


/* The body as one piece of memory: the buffer that nginx read it into, or a
 * copy of its parts. */
ngx_int_t
ngx_http_infer_body(ngx_http_infer_ctx_t *ctx)
{
    off_t                size;
    u_char              *p;
    ssize_t              n;
    ngx_buf_t           *b;
    ngx_chain_t         *cl;
    ngx_http_request_t  *r;

    r = ctx->request;

    if (r->request_body == NULL || r->request_body->bufs == NULL) {
        return NGX_OK;
    }

    cl = r->request_body->bufs;
    b = cl->buf;

    if (cl->next == NULL && ngx_buf_in_memory(b)) {
        ctx->body.data = b->pos;
        ctx->body.len = (size_t) (b->last - b->pos);
        return NGX_OK;
    }

    for (size = 0; cl != NULL; cl = cl->next) {
        size += ngx_buf_size(cl->buf);
    }

    if (size > SHR_REQ_BYTES_MAX / 2) {
        return ngx_http_infer_fail(ctx, NGX_HTTP_REQUEST_ENTITY_TOO_LARGE,
                                   "request_too_large", NULL,
                                   "The request body has %O bytes, the limit "
                                   "is %d.", size, SHR_REQ_BYTES_MAX / 2);
    }

    p = ngx_palloc(r->pool, (size_t) size + 1);
    if (p == NULL) {
        return ngx_http_infer_fail(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR, NULL,
                                   NULL, "Out of memory.");
    }

    ctx->body.data = p;

    for (cl = r->request_body->bufs; cl != NULL; cl = cl->next) {
        b = cl->buf;

        if (ngx_buf_in_memory(b)) {
            p = ngx_cpymem(p, b->pos, (size_t) (b->last - b->pos));
            continue;
        }

        n = b->in_file ? ngx_read_file(b->file, p,
                                       (size_t) (b->file_last - b->file_pos),
                                       b->file_pos)
                       : 0;

        if (n != ngx_buf_size(b)) {
            return ngx_http_infer_fail(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR,
                                       NULL, NULL,
                                       "The request body could not be read "
                                       "back.");
        }

        p += n;
    }

    ctx->body.len = (size_t) (p - ctx->body.data);

    return NGX_OK;
}


/* Keys may be chosen by clients: nobody can find one that meets another's
 * without this secret.  It stays over reloads, so that what a tenant
 * has computed is found again. */
static u_char  ngx_http_infer_scope_secret[16];


ngx_int_t
ngx_http_infer_scope_init(ngx_cycle_t *cycle)
{
    ssize_t               n;
    static ngx_uint_t     done;

    if (done) {
        return NGX_OK;
    }

    n = sizeof(ngx_http_infer_scope_secret);

    if (getrandom(ngx_http_infer_scope_secret, n, 0) != n) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_errno,
                      "getrandom() failed");
        return NGX_ERROR;
    }

    done = 1;

    return NGX_OK;
}


uint64_t
ngx_http_infer_key(ngx_str_t *name)
{
    u_char      digest[20];
    uint64_t    key;
    ngx_sha1_t  sha1;

    ngx_sha1_init(&sha1);
    ngx_sha1_update(&sha1, ngx_http_infer_scope_secret,
                    sizeof(ngx_http_infer_scope_secret));
    ngx_sha1_update(&sha1, name->data, name->len);
    ngx_sha1_final(digest, &sha1);
    ngx_memcpy(&key, digest, sizeof(key));

    return key;
}


/* Body, checks, hand-over.  NGX_ERROR: ctx->error says why. */
static ngx_int_t
ngx_http_infer_begin(ngx_http_infer_ctx_t *ctx)
{
    u_char                      *buf;
    size_t                       cap;
    ngx_int_t                    rc;
    shr_req_writer_t             w;
    ngx_http_infer_main_conf_t  *imcf;
    static _Alignas(8) u_char    small[NGX_HTTP_INFER_SMALL];

    rc = ctx->conf->input != NULL ? ngx_http_infer_input_body(ctx)
                                  : ngx_http_infer_body(ctx);
    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    /* records take what their JSON takes, or twice that for lists of ids;
     * short texts take 16 bytes for 4 like "a",; shr_req_add() sees to it that
     * nothing is written past the end */
    cap = ctx->body.len * (ctx->api == NGX_HTTP_INFER_OPENAI ? 2 : 4) + 4096;
    buf = cap <= sizeof(small) ? small
                               : ngx_palloc(ctx->request->pool, cap);
    if (buf == NULL) {
        return ngx_http_infer_fail(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR, NULL,
                                   NULL, "Out of memory.");
    }

    w.buf = buf;
    w.cap = cap;

    rc = ngx_http_infer_parse(ctx, &w);

    /* a label is kept, not told as an object */
    if (ctx->plain && ctx->encode != NULL) {
        ctx->api = NGX_HTTP_INFER_LABEL;
    }

    if (rc == NGX_OK) {
        imcf = ngx_http_get_module_main_conf(ctx->request,
                                             ngx_http_infer_module);
        if (imcf->generation != NULL) {
            ctx->pool = ngx_http_infer_pool_now(imcf->generation, ctx->model);
        }

        ngx_http_infer_set_limits(ctx);
        ctx->req.nrecords = ((shr_req_t *) buf)->nrecords;
        ngx_memcpy(buf, &ctx->req, sizeof(shr_req_t));

        rc = shr_req_end(&w) == 0
             ? ngx_http_infer_render_init(ctx)
             : ngx_http_infer_fail(ctx, NGX_HTTP_REQUEST_ENTITY_TOO_LARGE,
                                   "request_too_large", NULL,
                                   "The request has more parts than this "
                                   "server takes.");
    }

    if (rc == NGX_OK) {
        rc = ngx_http_infer_submit(ctx, &w);
    }

    if (buf != small) {
        (void) ngx_pfree(ctx->request->pool, buf);
    }

    return rc;
}


/* From now on a client that goes away is noticed at once. */
static ngx_int_t
ngx_http_infer_watch_client(ngx_http_infer_ctx_t *ctx)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = ctx->request;
    c = r->connection;

    r->write_event_handler = ngx_http_infer_write_handler;

    if (r != r->main) {
        return NGX_OK;
    }

    if (ctx->conf->ignore_client_abort) {
        r->read_event_handler = ngx_http_block_reading;
        return NGX_OK;
    }

    r->read_event_handler = ngx_http_test_reading;

    if (c->read->pending_eof || c->read->eof || c->error) {
        ngx_post_event(c->read, &ngx_posted_events);
        return NGX_OK;
    }

    return ngx_handle_read_event(c->read, 0);
}


static void
ngx_http_infer_body_handler(ngx_http_request_t *r)
{
    ngx_http_infer_ctx_t  *ctx;

    ctx = ngx_http_infer_ctx(r);

    ngx_http_infer_request_id(r, ctx->id);

    if (ngx_http_infer_begin(ctx) != NGX_OK) {
        ngx_http_infer_reply_error(ctx);
        return;
    }

    if (ngx_http_infer_watch_client(ctx) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
    }
}
