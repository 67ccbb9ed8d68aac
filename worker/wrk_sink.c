/*
 * The frames that every request has.
 */

#include <string.h>

#include "worker/wrk_sink.h"


_Static_assert(sizeof(shr_error_t) + WRK_REQ_PARAM_MAX + WRK_REQ_TEXT_MAX
               + sizeof(shr_frame_t) + 8 <= WRK_ERROR_ROOM, "errors fit");


void
wrk_sink_put(wrk_sink_t *k, uint32_t type, uint32_t choice, const void *a,
    size_t alen, const void *b, size_t blen)
{
    if (k->lost) {
        return;
    }

    if (k->ops->put(k->ctx, type, choice, a, alen, b, blen) != 0) {
        k->lost = 1;
        return;
    }

    k->dirty = 1;
}


uint64_t
wrk_sink_us(uint64_t from_ns, uint64_t to_ns)
{
    return from_ns != 0 && to_ns > from_ns ? (to_ns - from_ns) / 1000 : 0;
}


void
wrk_sink_start(wrk_sink_t *k, uint32_t prompt_tokens, uint64_t queue_us)
{
    shr_start_t  start;

    memset(&start, 0, sizeof(start));
    start.prompt_tokens = prompt_tokens;
    start.queue_us = queue_us;

    wrk_sink_put(k, SHR_F_START, 0, &start, sizeof(start), NULL, 0);
}


void
wrk_sink_usage(wrk_sink_t *k, const shr_usage_t *usage)
{
    wrk_sink_put(k, SHR_F_USAGE, 0, usage, sizeof(*usage), NULL, 0);
    wrk_sink_put(k, SHR_F_END, 0, NULL, 0, NULL, 0);
}


void
wrk_sink_error(wrk_sink_t *k, const wrk_req_error_t *err)
{
    char         text[WRK_REQ_PARAM_MAX + WRK_REQ_TEXT_MAX];
    shr_error_t  error;

    error.code = err->code;
    error.param_len = (uint32_t) strlen(err->param);
    error.message_len = (uint32_t) strlen(err->text);
    memcpy(text, err->param, error.param_len);
    memcpy(text + error.param_len, err->text, error.message_len);

    wrk_sink_put(k, SHR_F_ERROR, 0, &error, sizeof(error), text,
                 error.param_len + error.message_len);
    wrk_sink_put(k, SHR_F_END, 0, NULL, 0, NULL, 0);
}


void
wrk_sink_refuse(shr_error_code_t code, const char *text,
    const wrk_sink_ops_t *ops, void *ctx)
{
    wrk_sink_t       k = { .ops = ops, .ctx = ctx };
    wrk_req_error_t  err;

    wrk_req_fail(&err, code, NULL, "%s", text);
    wrk_sink_error(&k, &err);
    ops->done(ctx);
}
