/*
 * infer_classify at work: in the rewrite phases a request is put aside until
 * the labels and scores that its level asks for are there, then goes on.
 *
 * Each directive runs once for a client's request: what it found is a variable
 * that subrequests and redirects see as well.  All directives of a level run
 * at the same time.
 */

#include "ngx_module/ngx_http_infer_before.h"
#include "ngx_module/ngx_http_infer_classify.h"

#include <math.h>


typedef struct ngx_http_infer_verdict_s  ngx_http_infer_verdict_t;
typedef struct ngx_http_infer_waiter_s   ngx_http_infer_waiter_t;
typedef struct ngx_http_infer_verdicts_s ngx_http_infer_verdicts_t;

struct ngx_http_infer_verdict_s {
    ngx_http_infer_ctx_t            ctx;
    ngx_http_infer_classify_t      *classify;
    ngx_http_infer_verdicts_t      *all;
    ngx_http_infer_verdict_t       *next;
    unsigned                        done:1;
    unsigned                        failed:1;
    unsigned                        refused:1;  /* said so, once */
};

/* A request or subrequest that was put aside. */
struct ngx_http_infer_waiter_s {
    ngx_http_request_t             *request;
    ngx_http_infer_waiter_t        *next;
};

/* Of a client's request with all its subrequests. */
struct ngx_http_infer_verdicts_s {
    ngx_http_infer_verdict_t       *first;
    ngx_http_infer_waiter_t        *waiters;
};


static ngx_http_infer_verdicts_t *ngx_http_infer_verdicts(
    ngx_http_request_t *r);
static ngx_http_infer_verdict_t *ngx_http_infer_verdict_find(
    ngx_http_infer_verdicts_t *all, ngx_http_infer_classify_t *classify);
static ngx_int_t ngx_http_infer_verdict_body(ngx_http_request_t *r,
    ngx_http_infer_verdicts_t *all, ngx_array_t *classify);
static ngx_int_t ngx_http_infer_verdict_begin(ngx_http_request_t *r,
    ngx_http_infer_verdicts_t *all, ngx_http_infer_classify_t *classify);
static ngx_int_t ngx_http_infer_verdict_wait(ngx_http_request_t *r,
    ngx_http_infer_verdicts_t *all);
static void ngx_http_infer_verdict_done(ngx_http_infer_ctx_t *ctx);
static void ngx_http_infer_verdict_fail(ngx_http_infer_verdict_t *v);
static void ngx_http_infer_verdict_set(ngx_http_request_t *r, ngx_int_t index,
    u_char *data, size_t len);


ngx_int_t
ngx_http_infer_classify_handler(ngx_http_request_t *r)
{
    ngx_int_t                    rc;
    ngx_uint_t                   i, running;
    ngx_http_infer_verdict_t    *v;
    ngx_http_infer_verdicts_t   *all;
    ngx_http_infer_loc_conf_t   *ilcf;
    ngx_http_infer_classify_t  **c;

    ilcf = ngx_http_get_module_loc_conf(r, ngx_http_infer_module);

    if (ilcf->classify == NULL) {
        return NGX_DECLINED;
    }

    all = ngx_http_infer_verdicts(r);
    if (all == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_infer_verdict_body(r, all, ilcf->classify);
    if (rc != NGX_OK) {
        return rc;
    }

    c = ilcf->classify->elts;

    for (i = 0; i < ilcf->classify->nelts; i++) {
        if (ngx_http_infer_verdict_find(all, c[i]) == NULL
            && ngx_http_infer_verdict_begin(r, all, c[i]) != NGX_OK)
        {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    for (i = 0, running = 0; i < ilcf->classify->nelts; i++) {
        v = ngx_http_infer_verdict_find(all, c[i]);

        if (!v->done) {
            running = 1;

        } else if (v->failed && !v->refused && v->classify->status != 0) {
            v->refused = 1;
            return (ngx_int_t) v->classify->status;
        }
    }

    return running ? ngx_http_infer_verdict_wait(r, all) : NGX_DECLINED;
}


/* Whatever ends the request: slots come back. */
static void
ngx_http_infer_verdicts_cleanup(void *data)
{
    ngx_http_infer_verdicts_t *all = data;

    ngx_http_infer_verdict_t  *v;

    all->waiters = NULL;

    for (v = all->first; v != NULL; v = v->next) {
        if (v->ctx.claimed) {
            v->ctx.end_ns = ngx_http_infer_now();
            ngx_http_infer_count_end(&v->ctx);
        }

        v->done = 1;
        v->ctx.finished = 1;
        ngx_http_infer_release(&v->ctx);
    }
}


/* A redirect forgets a module's context, but not the cleanup. */
static ngx_http_infer_verdicts_t *
ngx_http_infer_verdicts(ngx_http_request_t *r)
{
    ngx_http_cleanup_t         *cln;
    ngx_http_infer_verdicts_t  *all;

    for (cln = r->main->cleanup; cln != NULL; cln = cln->next) {
        if (cln->handler == ngx_http_infer_verdicts_cleanup) {
            return cln->data;
        }
    }

    all = ngx_pcalloc(r->pool, sizeof(ngx_http_infer_verdicts_t));
    cln = ngx_http_cleanup_add(r, 0);
    if (all == NULL || cln == NULL) {
        return NULL;
    }

    cln->handler = ngx_http_infer_verdicts_cleanup;
    cln->data = all;

    return all;
}


static ngx_http_infer_verdict_t *
ngx_http_infer_verdict_find(ngx_http_infer_verdicts_t *all,
    ngx_http_infer_classify_t *classify)
{
    ngx_http_infer_verdict_t  *v;

    for (v = all->first; v != NULL && v->classify != classify; v = v->next) {
        /* void */
    }

    return v;
}


/* --- the body ------------------------------------------------------------ */

static void
ngx_http_infer_verdict_body_handler(ngx_http_request_t *r)
{
    r->preserve_body = 1;
    r->write_event_handler = ngx_http_core_run_phases;
    ngx_http_core_run_phases(r);
}


/* Reads the body if a directive that has not run needs it and it fits into
 * its buffer.  NGX_OK: go on. */
static ngx_int_t
ngx_http_infer_verdict_body(ngx_http_request_t *r,
    ngx_http_infer_verdicts_t *all, ngx_array_t *classify)
{
    off_t                        max;
    ngx_int_t                    rc;
    ngx_uint_t                   i, wanted;
    ngx_http_core_loc_conf_t    *clcf;
    ngx_http_infer_classify_t  **c;

    if (r != r->main || r->request_body != NULL || r->discard_body) {
        return NGX_OK;
    }

    c = classify->elts;

    for (i = 0, wanted = 0; i < classify->nelts; i++) {
        wanted |= c[i]->body
                  && ngx_http_infer_verdict_find(all, c[i]) == NULL;
    }

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);
    max = (off_t) clcf->client_body_buffer_size;

    if (clcf->client_max_body_size != 0) {
        max = ngx_min(max, clcf->client_max_body_size);
    }

    if (!wanted || r->headers_in.content_length_n > max) {
        return NGX_OK;
    }

    r->request_body_in_single_buf = 1;
    rc = ngx_http_read_client_request_body(r,
                                         ngx_http_infer_verdict_body_handler);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    ngx_http_finalize_request(r, NGX_DONE);

    return NGX_DONE;
}


/* The client sent a body that nobody could look at in one piece. */
static ngx_uint_t
ngx_http_infer_verdict_unread(ngx_http_request_t *r)
{
    ngx_http_request_t  *m;

    m = r->main;

    if (m->request_body != NULL) {
        return m->request_body->temp_file != NULL;
    }

    return m->headers_in.content_length_n > 0 || m->headers_in.chunked;
}


/* --- one text ------------------------------------------------------------ */

/* Results of nobody's endpoint: values and labels are kept. */
static ngx_int_t
ngx_http_infer_verdict_write(ngx_http_infer_verdict_t *v, ngx_str_t *text)
{
    size_t                      cap;
    ngx_uint_t                  i;
    shr_req_writer_t            w;
    ngx_http_infer_ctx_t       *ctx;
    ngx_http_infer_like_t      *like;
    ngx_http_infer_classify_t  *c;

    ctx = &v->ctx;
    c = v->classify;
    like = c->likes.elts;
    cap = text->len + 4096;

    for (i = 0; i < c->likes.nelts; i++) {
        cap += like[i].text.len + 32;
    }

    w.cap = cap;
    w.buf = ngx_palloc(ctx->request->pool, cap);
    if (w.buf == NULL) {
        return ngx_http_infer_fail(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR, NULL,
                                   NULL, "Out of memory.");
    }

    shr_req_begin(&w, w.buf, w.cap, &ctx->req);
    shr_req_add(&w, SHR_R_REQUEST_ID, ctx->id, NGX_HTTP_INFER_ID_LEN);
    shr_req_add(&w, SHR_R_PROMPT, text->data, text->len);

    for (i = 0; i < c->likes.nelts; i++) {
        shr_req_add(&w, SHR_R_PROMPT, like[i].text.data, like[i].text.len);
    }

    if (shr_req_end(&w) != 0 || w.len > SHR_REQ_BYTES_MAX / 2) {
        return ngx_http_infer_fail(ctx, NGX_HTTP_REQUEST_ENTITY_TOO_LARGE,
                                   "request_too_large", NULL, "The text has "
                                   "too many bytes (%uz).", text->len);
    }

    return ngx_http_infer_render_init(ctx) == NGX_OK
           ? ngx_http_infer_submit(ctx, &w) : NGX_ERROR;
}


static ngx_int_t
ngx_http_infer_verdict_ask(ngx_http_infer_verdict_t *v, ngx_str_t *text)
{
    ngx_uint_t                   similar;
    ngx_http_infer_ctx_t        *ctx;
    ngx_http_infer_main_conf_t  *imcf;

    ctx = &v->ctx;
    similar = v->classify->likes.nelts;

    ctx->encode = ngx_pcalloc(ctx->request->pool,
                              sizeof(ngx_http_infer_encode_t));
    if (ctx->encode == NULL) {
        return ngx_http_infer_fail(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR, NULL,
                                   NULL, "Out of memory.");
    }

    ngx_http_infer_defaults(&ctx->req);
    ctx->api = similar ? NGX_HTTP_INFER_SIMILARITY : NGX_HTTP_INFER_LABEL;
    ctx->req.task = similar ? SHR_TASK_EMBED : SHR_TASK_CLASSIFY;
    ctx->req.flags = SHR_REQ_WHOLE;
    ctx->req.flags |= similar ? SHR_REQ_NORMALIZE : 0;
    ctx->req.flags |= v->classify->truncate ? SHR_REQ_TRUNCATE : 0;
    ctx->nchoices = similar + 1;

    ctx->model = ((ngx_http_infer_model_t **) ctx->conf->models->elts)[0];
    imcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_infer_module);

    if (imcf->generation != NULL) {
        ctx->pool = ngx_http_infer_pool_now(imcf->generation, ctx->model);
    }

    ngx_http_infer_request_id(ctx->request, ctx->id);
    ngx_http_infer_set_limits(ctx);

    return ngx_http_infer_verdict_write(v, text);
}


/* Runs a directive: a verdict that is done, or one that runs. */
static ngx_int_t
ngx_http_infer_verdict_begin(ngx_http_request_t *r,
    ngx_http_infer_verdicts_t *all, ngx_http_infer_classify_t *classify)
{
    ngx_int_t                  rc;
    ngx_str_t                  text;
    ngx_http_infer_verdict_t  *v;

    v = ngx_pcalloc(r->pool, sizeof(ngx_http_infer_verdict_t));
    if (v == NULL) {
        return NGX_ERROR;
    }

    v->all = all;
    v->classify = classify;
    v->next = all->first;
    v->ctx.request = r;
    v->ctx.conf = &classify->conf;
    v->ctx.done = ngx_http_infer_verdict_done;

    if (ngx_http_complex_value(r, &classify->text, &text) != NGX_OK
        || ngx_http_infer_text(r->pool, &text, classify->unescape) != NGX_OK)
    {
        return NGX_ERROR;
    }

    all->first = v;

    if (classify->body && ngx_http_infer_verdict_unread(r)) {
        rc = ngx_http_infer_fail(&v->ctx, NGX_HTTP_REQUEST_ENTITY_TOO_LARGE,
                                 "request_too_large", NULL, "The request body "
                                 "does not fit into \"client_body_buffer_"
                                 "size\".");

    } else if (text.len == 0) {
        v->done = 1;                    /* of nothing: an empty value */
        ngx_http_infer_verdict_set(r, classify->index, (u_char *) "", 0);
        return NGX_OK;

    } else {
        rc = ngx_http_infer_verdict_ask(v, &text);
    }

    if (rc != NGX_OK) {
        ngx_http_infer_verdict_fail(v);
    }

    return NGX_OK;
}


/* Puts the request aside. */
static ngx_int_t
ngx_http_infer_verdict_wait(ngx_http_request_t *r,
    ngx_http_infer_verdicts_t *all)
{
    ngx_connection_t         *c;
    ngx_http_infer_waiter_t  *w;

    for (w = all->waiters; w != NULL; w = w->next) {
        if (w->request == r) {
            return NGX_DONE;
        }
    }

    w = ngx_palloc(r->pool, sizeof(ngx_http_infer_waiter_t));
    if (w == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    w->request = r;
    w->next = all->waiters;
    all->waiters = w;

    r->write_event_handler = ngx_http_request_empty_handler;

    if (r != r->main) {
        return NGX_DONE;
    }

    c = r->connection;
    r->read_event_handler = ngx_http_test_reading;

    if (c->read->pending_eof || c->read->eof || c->error) {
        ngx_post_event(c->read, &ngx_posted_events);

    } else if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return NGX_DONE;
}


/* --- what was found ------------------------------------------------------ */

/* All that wait go on: who still lacks a verdict waits again. */
static void
ngx_http_infer_verdict_wake(ngx_http_infer_verdicts_t *all)
{
    ngx_http_request_t       *r;
    ngx_http_infer_waiter_t  *w;

    w = all->waiters;
    all->waiters = NULL;

    for ( /* void */ ; w != NULL; w = w->next) {
        r = w->request;
        r->write_event_handler = ngx_http_core_run_phases;

        if (r == r->main) {
            r->read_event_handler = ngx_http_block_reading;
        }

        if (ngx_http_post_request(r, NULL) != NGX_OK) {
            r->connection->error = 1;
        }
    }
}


static void
ngx_http_infer_verdict_set(ngx_http_request_t *r, ngx_int_t index,
    u_char *data, size_t len)
{
    ngx_http_variable_value_t  *v;

    v = &r->variables[index];
    v->data = data;
    v->len = (unsigned) len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
}


static void
ngx_http_infer_verdict_fail(ngx_http_infer_verdict_t *v)
{
    ngx_str_t                  *instead;
    ngx_http_request_t         *r;
    ngx_http_infer_classify_t  *c;

    c = v->classify;
    r = v->ctx.request;
    instead = &c->instead;

    v->done = 1;
    v->failed = 1;

    ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                  "infer: $%V was not computed: %s: %V", &c->name,
                  v->ctx.error.code != NULL ? v->ctx.error.code : "error",
                  &v->ctx.error.message);

    ngx_http_infer_verdict_set(r, c->index, instead->data, instead->len);

    if (c->score != NGX_ERROR) {
        ngx_http_infer_verdict_set(r, c->score, (u_char *) "", 0);
    }
}


/* The i-th label and score; their number. */
static ngx_uint_t
ngx_http_infer_verdict_class(ngx_http_infer_verdict_t *v, ngx_uint_t i,
    ngx_str_t *label, float *score)
{
    ngx_http_infer_like_t    *like;
    ngx_http_infer_encode_t  *e;

    e = v->ctx.encode;

    if (v->classify->likes.nelts != 0) {
        like = v->classify->likes.elts;
        *label = like[i].label;
        *score = e->scores[i].score;
        return v->classify->likes.nelts;
    }

    *label = e->labels[i];
    *score = e->values[i];

    return e->width;
}


/* The likeliest class, or the one that was named: its best text counts. */
static ngx_int_t
ngx_http_infer_verdict_choose(ngx_http_infer_verdict_t *v, ngx_str_t *label,
    float *score)
{
    float                       s;
    ngx_str_t                   l;
    ngx_uint_t                  i, n, found;
    ngx_http_infer_classify_t  *c;

    c = v->classify;
    found = 0;
    n = 1;
    *score = 0;

    for (i = 0; i < n; i++) {
        n = ngx_http_infer_verdict_class(v, i, &l, &s);

        if (c->class.len != 0
            && (l.len != c->class.len
                || ngx_memcmp(l.data, c->class.data, l.len) != 0))
        {
            continue;
        }

        if ((!found || s > *score) && fabsf(s) < 1e6f) {
            found = 1;
            *label = l;
            *score = s;
        }
    }

    if (found) {
        return NGX_OK;
    }

    return ngx_http_infer_fail(&v->ctx, NGX_HTTP_INTERNAL_SERVER_ERROR,
                               "unknown_label", NULL, "Model \"%V\" has no "
                               "label \"%V\".", &v->ctx.model->name,
                               &c->class);
}


static void
ngx_http_infer_verdict_tell(ngx_http_infer_verdict_t *v, ngx_str_t *label,
    float score)
{
    u_char                     *text;
    size_t                      len;
    ngx_uint_t                  over;
    ngx_http_request_t         *r;
    ngx_http_infer_classify_t  *c;

    c = v->classify;
    r = v->ctx.request;
    over = isnan(c->over) || score > c->over;

    text = ngx_pnalloc(r->pool, NGX_HTTP_INFER_FLOAT_ROOM + 16);
    if (text == NULL) {
        ngx_http_infer_verdict_fail(v);
        return;
    }

    len = (size_t) (ngx_sprintf(text, "%s%.6f", score < 0 ? "-" : "",
                                (double) fabsf(score)) - text);

    if (c->score != NGX_ERROR) {
        ngx_http_infer_verdict_set(r, c->score, text, len);
    }

    if (c->class.len == 0) {
        label = over ? label : &c->instead;
        ngx_http_infer_verdict_set(r, c->index, label->data, label->len);

    } else if (isnan(c->over)) {
        ngx_http_infer_verdict_set(r, c->index, text, len);

    } else {
        ngx_http_infer_verdict_set(r, c->index,
                                   (u_char *) (over ? "1" : "0"), 1);
    }
}


/* The answer or an error is there; the slot was given back. */
static void
ngx_http_infer_verdict_done(ngx_http_infer_ctx_t *ctx)
{
    float                      score;
    ngx_str_t                  label;
    ngx_http_infer_verdict_t  *v;

    v = (ngx_http_infer_verdict_t *) ctx;

    if (ctx->error.status == 0
        && ngx_http_infer_verdict_choose(v, &label, &score) == NGX_OK)
    {
        v->done = 1;
        ngx_http_infer_verdict_tell(v, &label, score);

    } else {
        ngx_http_infer_verdict_fail(v);
    }

    ngx_http_infer_verdict_wake(v->all);
}
