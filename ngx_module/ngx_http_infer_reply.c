/*
 * The answer's way back: frames from the worker, rendered (_render.c), sent
 * through nginx's filters.  A stream is flushed once per wake-up; while the
 * client has not taken what was sent, no further frames are read, so that the
 * response ring fills and the worker pauses that sequence alone.
 */

#include "ngx_module/ngx_http_infer_input.h"


#define NGX_HTTP_INFER_FRAMES       128         /* of one request, per turn */
#define NGX_HTTP_INFER_ANSWER_MAX   (64u << 20) /* of frames that are kept */


static ngx_int_t ngx_http_infer_frame(ngx_http_infer_ctx_t *ctx,
    shr_frame_t *frame, u_char *data);
static void ngx_http_infer_usage(ngx_http_infer_ctx_t *ctx, u_char *data);
static void ngx_http_infer_frame_error(ngx_http_infer_ctx_t *ctx,
    u_char *data);
static void ngx_http_infer_end(ngx_http_infer_ctx_t *ctx);
static ngx_int_t ngx_http_infer_flush(ngx_http_infer_ctx_t *ctx,
    ngx_uint_t last);
static ngx_int_t ngx_http_infer_send_stream_header(ngx_http_infer_ctx_t *ctx);
static void ngx_http_infer_wait_client(ngx_http_infer_ctx_t *ctx);


uint64_t
ngx_http_infer_now(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}


/* Reads up to NGX_HTTP_INFER_FRAMES frames; the number of texts among them is
 * added to *texts.  0, or what shr_client_read() said last. */
static int
ngx_http_infer_read(ngx_http_infer_ctx_t *ctx, ngx_uint_t *texts)
{
    int                            rc;
    ngx_uint_t                     n;
    shr_frame_t                    frame;
    static _Alignas(8) u_char      data[SHR_PAYLOAD_MAX];

    for (n = 0; n < NGX_HTTP_INFER_FRAMES; n++) {
        rc = shr_client_read(ctx->pool->client, ctx->slot, &frame, data);

        if (rc != 0) {
            return rc;
        }

        *texts += frame.type == SHR_F_TEXT;

        if (ngx_http_infer_frame(ctx, &frame, data) != NGX_OK) {
            return -SHR_EBROKEN;
        }

        if (ctx->ended) {
            return 0;
        }
    }

    return 0;
}


void
ngx_http_infer_reply(ngx_http_infer_ctx_t *ctx)
{
    int         rc;
    uint64_t    now;
    ngx_uint_t  texts;

    if (ctx->finished || ctx->out.busy != NULL) {
        return;
    }

    if (ctx->ended || !ctx->claimed) {
        ngx_http_infer_reply_error(ctx);        /* found by _dispatch.c */
        return;
    }

    texts = 0;
    rc = ngx_http_infer_read(ctx, &texts);

    if (texts != 0 && ctx->stream) {
        now = ngx_http_infer_now();

        if (ctx->first_ns == 0) {
            ctx->first_ns = now;

        } else {
            ngx_http_infer_count_gap(ctx, now - ctx->last_ns, texts);
        }

        ctx->last_ns = now;
    }

    if (rc == -SHR_EBROKEN) {
        ngx_http_infer_retire(ctx->pool, ctx->worker, ctx);
        return;                                 /* it is listed again */
    }

    if (rc == -SHR_EDONE) {
        (void) ngx_http_infer_fail(ctx, NGX_HTTP_BAD_GATEWAY,
                                   "worker_failed", NULL,
                                   "The worker of model \"%V\" gave no "
                                   "complete answer.", &ctx->model->name);
        ctx->ended = 1;
    }

    if (ctx->ended) {
        ngx_http_infer_end(ctx);
        return;
    }

    if (ctx->stream && ngx_http_infer_flush(ctx, 0) != NGX_OK) {
        ctx->finished = 1;
        ngx_http_finalize_request(ctx->request, NGX_ERROR);
        return;
    }

    if (rc == 0 && ctx->out.busy == NULL) {
        ngx_http_infer_news(ctx);               /* there may be more */
        ngx_http_infer_event_post();
    }
}


/* What an answer makes us keep has an end: all of it, or in a stream the log
 * probabilities that no text has followed yet.  A client that asks for much
 * gets there too, so this is the request's fault and not its worker's. */
static ngx_int_t
ngx_http_infer_keep(ngx_http_infer_ctx_t *ctx, shr_frame_t *frame)
{
    if (ctx->stream && ctx->generate == NULL && frame->type != SHR_F_LOGPROB) {
        return NGX_OK;
    }

    ctx->bytes += sizeof(shr_frame_t) + frame->len;

    if (ctx->bytes <= NGX_HTTP_INFER_ANSWER_MAX) {
        return NGX_OK;
    }

    ctx->ended = 1;

    return ngx_http_infer_fail(ctx, NGX_HTTP_BAD_REQUEST, "answer_too_large",
                               NULL, "The answer takes more than %ui bytes. "
                               "Please ask for fewer choices, tokens or log "
                               "probabilities%s.",
                               (ngx_uint_t) NGX_HTTP_INFER_ANSWER_MAX,
                               ctx->stream ? "" : ", or for a stream");
}


/* Whether such a frame can belong to an answer of this kind. */
static ngx_uint_t
ngx_http_infer_expects(ngx_http_infer_ctx_t *ctx, shr_frame_t *frame)
{
    if (frame->choice >= ctx->nchoices) {
        return 0;
    }

    switch (frame->type) {

    case SHR_F_TEXT:
    case SHR_F_FINISH:
    case SHR_F_IDS:
    case SHR_F_OFFSETS:
        return ctx->encode == NULL;

    case SHR_F_LOGPROB:
        return ctx->encode == NULL && (ctx->req.flags & SHR_REQ_LOGPROBS);

    case SHR_F_VALUES:
    case SHR_F_LABELS:
        return ctx->encode != NULL;

    default:
        return 1;
    }
}


static void
ngx_http_infer_said(ngx_http_infer_ctx_t *ctx, shr_frame_t *frame,
    u_char *data)
{
    /* an answer in one piece is sent when all of it is there: until then
       another worker may begin it anew */
    ctx->said = ctx->stream;

    if (ctx->holds != NULL) {
        ctx->holds->texts++;
        ctx->holds->text_bytes += frame->len;
    }

    ngx_http_infer_render_text(ctx, frame->choice, data, frame->len);
}


static ngx_int_t
ngx_http_infer_frame(ngx_http_infer_ctx_t *ctx, shr_frame_t *frame,
    u_char *data)
{
    shr_start_t   start;
    shr_finish_t  finish;

    if (!ngx_http_infer_expects(ctx, frame)) {
        return NGX_ERROR;
    }

    if (ngx_http_infer_keep(ctx, frame) != NGX_OK) {
        return NGX_OK;
    }

    switch (frame->type) {

    case SHR_F_START:
        ngx_memcpy(&start, data, sizeof(shr_start_t));
        ctx->started = 1;
        ctx->usage.prompt_tokens = start.prompt_tokens;
        ctx->usage.cached_tokens = start.cached_tokens;
        ctx->usage.queue_us = start.queue_us;
        return NGX_OK;

    case SHR_F_TEXT:
        ngx_http_infer_said(ctx, frame, data);
        return NGX_OK;

    case SHR_F_LOGPROB:
        ngx_http_infer_render_logprob(ctx, frame->choice, data, frame->len);
        return NGX_OK;

    case SHR_F_FINISH:
        ngx_memcpy(&finish, data, sizeof(shr_finish_t));
        ctx->reason = finish.reason;
        ngx_http_infer_render_finish(ctx, frame->choice, finish.reason);
        return NGX_OK;

    case SHR_F_IDS:
    case SHR_F_OFFSETS:
        ngx_http_infer_render_ids(ctx, frame->type == SHR_F_OFFSETS, data,
                                  frame->len);
        return NGX_OK;

    case SHR_F_VALUES:
        return ngx_http_infer_encode_values(ctx, frame->choice, data,
                                            frame->len);

    case SHR_F_LABELS:
        return ngx_http_infer_encode_labels(ctx, data, frame->len);

    case SHR_F_USAGE:
        ngx_http_infer_usage(ctx, data);
        return NGX_OK;

    case SHR_F_ERROR:
        ngx_http_infer_frame_error(ctx, data);
        return NGX_OK;

    default:                                    /* SHR_F_END */
        ctx->ended = 1;
        return NGX_OK;
    }
}


/* The text of an answer in one piece may come late and all at once: then it is
 * the worker that knows when its tokens were there. */
static void
ngx_http_infer_usage(ngx_http_infer_ctx_t *ctx, u_char *data)
{
    shr_usage_t  *u;

    u = &ctx->usage;
    ngx_memcpy(u, data, sizeof(shr_usage_t));

    if (ctx->stream || u->completion_tokens == 0) {
        return;
    }

    ctx->first_ns = ctx->req.queued_ns
                    + ngx_min(u->queue_us + u->prefill_us, UINT32_MAX) * 1000;

    if (u->completion_tokens > 1) {
        ngx_http_infer_count_gap(ctx, ngx_min(u->decode_us, UINT32_MAX) * 1000,
                                 u->completion_tokens - 1);
    }
}


typedef struct {
    ngx_uint_t   status;
    const char  *code;
} ngx_http_infer_code_t;

static const ngx_http_infer_code_t  ngx_http_infer_codes[SHR_E_MAX] = {
    [SHR_E_INVALID] = { NGX_HTTP_BAD_REQUEST, "invalid_value" },
    [SHR_E_CONTEXT] = { NGX_HTTP_BAD_REQUEST, "context_length_exceeded" },
    [SHR_E_UNSUPPORTED] = { NGX_HTTP_BAD_REQUEST, "unsupported_value" },
    [SHR_E_OVERLOADED] = { NGX_HTTP_TOO_MANY_REQUESTS, "queue_full" },
    [SHR_E_DEADLINE] = { NGX_HTTP_GATEWAY_TIME_OUT, "timeout" },
    [SHR_E_INTERNAL] = { NGX_HTTP_INTERNAL_SERVER_ERROR, "server_error" },
    [SHR_E_SHUTDOWN] = { NGX_HTTP_SERVICE_UNAVAILABLE, "worker_ended" },
};


static void
ngx_http_infer_frame_error(ngx_http_infer_ctx_t *ctx, u_char *data)
{
    u_char                       *p;
    ngx_str_t                     text;
    shr_error_t                   error;
    const ngx_http_infer_code_t  *code;

    ngx_memcpy(&error, data, sizeof(shr_error_t));
    code = &ngx_http_infer_codes[error.code];

    /* nothing was said yet: another worker may do it */
    if (error.code == SHR_E_SHUTDOWN && ngx_http_infer_resubmit(ctx) == NGX_OK)
    {
        return;
    }

    text.data = data + sizeof(shr_error_t) + error.param_len;
    text.len = error.message_len;

    (void) ngx_http_infer_fail(ctx, code->status, code->code, NULL, "%V",
                               &text);

    if (ctx->encode != NULL && error.param_len == sizeof("input") - 1
        && ngx_strncmp(data + sizeof(shr_error_t), "input", 5) == 0)
    {
        ctx->error.param.data = (u_char *) ngx_http_infer_encode_name(ctx);
        ctx->error.param.len = ngx_strlen(ctx->error.param.data);

    } else if (error.param_len != 0) {
        p = ngx_pnalloc(ctx->request->pool, error.param_len);

        if (p != NULL) {
            ctx->error.param.data = p;
            ctx->error.param.len = error.param_len;
            ngx_memcpy(p, data + sizeof(shr_error_t), error.param_len);
        }
    }

    switch (error.code) {

    case SHR_E_OVERLOADED:
        ngx_http_infer_count_shed(ctx->model, NGX_HTTP_INFER_SHED_QUEUE);
        ctx->error.retry = ngx_http_infer_retry_after(ctx->pool);
        break;

    case SHR_E_DEADLINE:
        if (!ctx->started) {
            ngx_http_infer_count_shed(ctx->model, NGX_HTTP_INFER_SHED_TIMEOUT);
            ctx->error.status = NGX_HTTP_SERVICE_UNAVAILABLE;
            ctx->error.code = "queue_timeout";
            ctx->error.retry = ngx_http_infer_retry_after(ctx->pool);
        }
        break;

    case SHR_E_SHUTDOWN:
        ctx->error.retry = 1000;
        break;
    }

    ctx->ended = 1;
}


/* The answer is complete, or it never will be. */
static void
ngx_http_infer_end(ngx_http_infer_ctx_t *ctx)
{
    ngx_int_t            rc;
    ngx_http_request_t  *r;

    r = ctx->request;

    if (ctx->error.status != 0) {
        ngx_http_infer_reply_error(ctx);
        return;
    }

    if (ctx->encode != NULL && ngx_http_infer_encode_end(ctx) != NGX_OK) {
        (void) ngx_http_infer_fail(ctx, NGX_HTTP_BAD_GATEWAY,
                                   "worker_failed", NULL,
                                   "The worker of model \"%V\" gave no "
                                   "complete answer.", &ctx->model->name);
        ngx_http_infer_reply_error(ctx);
        return;
    }

    ctx->end_ns = ngx_http_infer_now();
    ngx_http_infer_count_end(ctx);
    ngx_http_infer_release(ctx);

    ctx->finished = 1;

    if (ctx->done != NULL) {
        ctx->done(ctx);
        return;
    }

    if (ctx->encode == NULL && !ctx->plain) {
        ngx_http_infer_render_end(ctx);
    }

    if (ctx->stream) {
        rc = ngx_http_infer_flush(ctx, 1);

    } else if (ctx->plain) {
        rc = ngx_http_infer_input_send(ctx);

    } else {
        rc = ngx_http_infer_send_out(r, NGX_HTTP_OK, "application/json",
                                     &ctx->out);
    }

    ngx_http_finalize_request(r, rc);
}


void
ngx_http_infer_reply_error(ngx_http_infer_ctx_t *ctx)
{
    ngx_int_t            rc;
    ngx_http_request_t  *r;

    r = ctx->request;

    if (ctx->error.status == 0) {
        (void) ngx_http_infer_fail(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR,
                                   "server_error", NULL,
                                   "The request failed.");
    }

    ctx->end_ns = ngx_http_infer_now();
    ngx_http_infer_count_end(ctx);
    ngx_http_infer_release(ctx);
    ctx->finished = 1;

    if (ctx->done != NULL) {
        ctx->done(ctx);
        return;
    }

    if (!ctx->sent) {
        rc = ngx_http_infer_send_error(ctx);

    } else {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "infer: stream ended by an error: %V, request id %*s",
                      &ctx->error.message, (size_t) NGX_HTTP_INFER_ID_LEN,
                      ctx->id);

        /* clients raise on this event; no [DONE] follows it */
        ngx_http_infer_out(&ctx->out, "data: ");
        ngx_http_infer_render_error(&ctx->out, &ctx->error);
        ngx_http_infer_out(&ctx->out, "\n\n");
        rc = ngx_http_infer_flush(ctx, 1);
    }

    ngx_http_finalize_request(r, rc);
}


/* A comment, as the format of server-sent events has it: proxies see that the
 * stream lives, clients pass it over.  With it the status is sent. */
ngx_int_t
ngx_http_infer_reply_ping(ngx_http_infer_ctx_t *ctx)
{
    if (ctx->out.busy != NULL) {
        return NGX_OK;                  /* it is the client that waits */
    }

    ngx_http_infer_out(&ctx->out, ": ping\n\n");

    if (ngx_http_infer_flush(ctx, 0) == NGX_OK) {
        return NGX_OK;
    }

    ctx->finished = 1;
    ngx_http_finalize_request(ctx->request, NGX_ERROR);

    return NGX_ERROR;
}


/* Another worker starts from the beginning. */
void
ngx_http_infer_reply_reset(ngx_http_infer_ctx_t *ctx)
{
    ctx->started = 0;
    ctx->first_ns = 0;
    ctx->last_ns = 0;
    ctx->nids = 0;
    ctx->bytes = 0;
    ngx_memzero(&ctx->usage, sizeof(shr_usage_t));

    if (ctx->holds != NULL) {
        ctx->holds->texts = 0;
        ctx->holds->text_bytes = 0;
    }

    if (ngx_http_infer_render_init(ctx) != NGX_OK) {
        ctx->ended = 1;
    }
}


/* Sends what was rendered; NGX_ERROR when the client is not there. */
static ngx_int_t
ngx_http_infer_flush(ngx_http_infer_ctx_t *ctx, ngx_uint_t last)
{
    ngx_int_t            rc;
    ngx_buf_t           *b;
    ngx_chain_t         *cl;
    ngx_http_request_t  *r;

    r = ctx->request;
    b = ctx->out.buf;
    cl = ngx_http_infer_out_take(&ctx->out);

    if (ctx->out.failed) {
        return NGX_ERROR;
    }

    if (cl == NULL || b == NULL) {
        return last ? ngx_http_send_special(r, NGX_HTTP_LAST) : NGX_OK;
    }

    b->flush = 1;

    if (last) {
        b->last_buf = r == r->main;
        b->last_in_chain = 1;
    }

    if (!ctx->sent) {
        rc = ngx_http_infer_send_stream_header(ctx);

        if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
            return last ? rc : NGX_ERROR;
        }
    }

    rc = ngx_http_output_filter(r, cl);
    ngx_http_infer_out_update(&ctx->out, cl);

    if (rc == NGX_ERROR || last) {
        return rc;
    }

    if (ctx->out.busy != NULL) {
        ngx_http_infer_wait_client(ctx);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_infer_send_stream_header(ngx_http_infer_ctx_t *ctx)
{
    ngx_str_t            value;
    ngx_http_request_t  *r;

    r = ctx->request;
    ctx->sent = 1;

    r->headers_out.status = NGX_HTTP_OK;
    ngx_str_set(&r->headers_out.content_type, "text/event-stream");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;
    ngx_http_clear_content_length(r);

    ngx_str_set(&value, "no-cache");

    if (ngx_http_infer_add_header(r, "Cache-Control", &value) != NGX_OK) {
        return NGX_ERROR;
    }

    /* for a proxy before us */
    ngx_str_set(&value, "no");

    if (ngx_http_infer_add_header(r, "X-Accel-Buffering", &value) != NGX_OK
        || ngx_http_infer_limit_headers(r) != NGX_OK
        || ngx_http_infer_add_request_id(r) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_send_header(r);
}


/* The client has not taken everything: its send_timeout runs. */
static void
ngx_http_infer_wait_client(ngx_http_infer_ctx_t *ctx)
{
    ngx_event_t               *wev;
    ngx_http_request_t        *r;
    ngx_http_core_loc_conf_t  *clcf;

    r = ctx->request;
    wev = r->connection->write;

    /* a subrequest whose turn has not come waits for its parent */
    if (r->connection->data != r) {
        return;
    }

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (!wev->delayed) {
        ngx_add_timer(wev, clcf->send_timeout);
    }

    if (ngx_handle_write_event(wev, clcf->send_lowat) != NGX_OK) {
        r->connection->error = 1;
    }
}


void
ngx_http_infer_write_handler(ngx_http_request_t *r)
{
    ngx_int_t              rc;
    ngx_event_t           *wev;
    ngx_connection_t      *c;
    ngx_http_infer_ctx_t  *ctx;

    c = r->connection;
    wev = c->write;
    ctx = ngx_http_infer_ctx(r);

    if (ctx == NULL || ctx->finished) {
        return;
    }

    if (wev->timedout) {
        ngx_log_error(NGX_LOG_INFO, c->log, NGX_ETIMEDOUT,
                      "infer: client does not read");
        c->timedout = 1;
        ngx_http_finalize_request(r, NGX_HTTP_REQUEST_TIME_OUT);
        return;
    }

    if (ctx->out.busy == NULL) {
        return;
    }

    rc = ngx_http_output_filter(r, NULL);
    ngx_http_infer_out_update(&ctx->out, NULL);

    if (rc == NGX_ERROR) {
        ngx_http_finalize_request(r, NGX_ERROR);
        return;
    }

    if (ctx->out.busy != NULL) {
        ngx_http_infer_wait_client(ctx);
        return;
    }

    if (wev->timer_set && !wev->delayed) {
        ngx_del_timer(wev);
    }

    ngx_http_infer_reply(ctx);
}
