/*
 * Decoding of a neutral request.  The block comes from another process: the
 * fixed part is copied once, every number is compared with its limits here
 * even though the module did the same.
 */

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "worker/wrk_req.h"
#include "worker/wrk_sample.h"
#include "worker/wrk_stop.h"


static int wrk_req_numbers(const shr_req_t *f, wrk_req_error_t *err);
static int wrk_req_record(wrk_req_t *r, const shr_record_t *record,
    uint32_t vocab, wrk_req_error_t *err);
static int wrk_req_complete(const wrk_req_t *r, wrk_req_error_t *err);


int
wrk_req_fail(wrk_req_error_t *err, shr_error_code_t code, const char *param,
    const char *text, ...)
{
    va_list  args;

    err->code = code;
    snprintf(err->param, sizeof(err->param), "%s", param != NULL ? param : "");
    va_start(args, text);
    vsnprintf(err->text, sizeof(err->text), text, args);
    va_end(args);

    return -1;
}


int
wrk_req_decode(wrk_req_t *r, const void *buf, size_t len, uint32_t vocab,
    wrk_req_error_t *err)
{
    size_t               pos;
    const shr_record_t  *record;

    assert(len >= sizeof(shr_req_t) && (uintptr_t) buf % 8 == 0);

    /* The arrays of records are counted and need no clearing. */
    memcpy(&r->fixed, buf, sizeof(shr_req_t));
    memset(&r->messages, 0, sizeof(r->messages));
    r->tools = r->messages;
    r->args = r->messages;
    r->id = r->messages;
    r->nprompts = 0;
    r->prompt_type = 0;
    r->nstops = 0;
    r->stop_bytes = 0;
    r->nstop_ids = 0;
    r->stop_ids = NULL;
    r->nbias = 0;
    r->bias = NULL;

    if (wrk_req_numbers(&r->fixed, err) != 0) {
        return -1;
    }

    pos = 0;

    while ((record = shr_req_next(buf, &pos)) != NULL) {
        if (wrk_req_record(r, record, vocab, err) != 0) {
            return -1;
        }
    }

    return wrk_req_complete(r, err);
}


static int
wrk_req_range(double v, double min, double max, const char *param,
    wrk_req_error_t *err)
{
    /* false for a NaN */
    if (v >= min && v <= max) {
        return 0;
    }

    return wrk_req_fail(err, SHR_E_INVALID, param,
                        "%s must be between %g and %g, it is %g", param, min,
                        max, v);
}


static int
wrk_req_numbers(const shr_req_t *f, wrk_req_error_t *err)
{
    if (wrk_req_range(f->n, 1, SHR_CHOICES_MAX, "n", err) != 0
        || wrk_req_range(f->top_logprobs, 0, WRK_SAMPLE_TOP_MAX,
                         "top_logprobs", err) != 0
        || wrk_req_range(f->temperature, 0, 100, "temperature", err) != 0
        || wrk_req_range(f->top_p, 0, 1, "top_p", err) != 0
        || wrk_req_range(f->min_p, 0, 1, "min_p", err) != 0
        || wrk_req_range(f->top_k, 0, INT32_MAX, "top_k", err) != 0
        || wrk_req_range(f->repetition_penalty, 0.01, 100,
                         "repetition_penalty", err) != 0
        || wrk_req_range(f->presence_penalty, -100, 100,
                         "presence_penalty", err) != 0
        || wrk_req_range(f->frequency_penalty, -100, 100,
                         "frequency_penalty", err) != 0
        || wrk_req_range(f->beams, 0, SHR_BEAMS_MAX, "num_beams", err) != 0
        || wrk_req_range(f->length_penalty, -SHR_LENGTH_PENALTY,
                         SHR_LENGTH_PENALTY, "length_penalty", err) != 0)
    {
        return -1;
    }

    if (f->task == 0 || f->task >= SHR_TASK_MAX) {
        return wrk_req_fail(err, SHR_E_UNSUPPORTED, NULL,
                            "task %u is not served", f->task);
    }

    return 0;
}


/* A record that may come once. */
static int
wrk_req_single(wrk_bytes_t *to, const shr_record_t *record, const char *param,
    wrk_req_error_t *err)
{
    if (to->data != NULL) {
        return wrk_req_fail(err, SHR_E_INVALID, param, "%s comes twice",
                            param);
    }

    to->data = (const char *) (record + 1);
    to->len = record->len;

    return 0;
}


static int
wrk_req_ids(const uint32_t *ids, size_t n, uint32_t vocab, const char *param,
    wrk_req_error_t *err)
{
    size_t  i;

    for (i = 0; i < n; i++) {
        if (ids[i] >= vocab) {
            return wrk_req_fail(err, SHR_E_INVALID, param,
                                "%s: token id %u at index %zu is not in the "
                                "vocabulary of %u tokens", param, ids[i], i,
                                vocab);
        }
    }

    return 0;
}


static int
wrk_req_prompt(wrk_req_t *r, const shr_record_t *record, uint32_t vocab,
    wrk_req_error_t *err)
{
    if (r->nprompts == SHR_CHOICES_MAX) {
        return wrk_req_fail(err, SHR_E_INVALID, "prompt",
                            "more than %u prompts in one request",
                            SHR_CHOICES_MAX);
    }

    if (r->nprompts != 0 && r->prompt_type != record->type) {
        return wrk_req_fail(err, SHR_E_INVALID, "prompt",
                            "prompts must be all text or all token ids");
    }

    r->prompt_type = record->type;
    r->prompts[r->nprompts].data = (const char *) (record + 1);
    r->prompts[r->nprompts].len = record->len;
    r->nprompts++;

    if (record->type == SHR_R_PROMPT_IDS) {
        return wrk_req_ids((const uint32_t *) (record + 1), record->len / 4,
                           vocab, "prompt", err);
    }

    return 0;
}


static int
wrk_req_stop(wrk_req_t *r, const shr_record_t *record, wrk_req_error_t *err)
{
    if (r->nstops == WRK_STOP_STRINGS_MAX) {
        return wrk_req_fail(err, SHR_E_INVALID, "stop",
                            "more than %u stop strings",
                            WRK_STOP_STRINGS_MAX);
    }

    if (record->len == 0 || record->len > WRK_STOP_BYTES_MAX) {
        return wrk_req_fail(err, SHR_E_INVALID, "stop",
                            "a stop string must have 1 to %u bytes, it has %u",
                            WRK_STOP_BYTES_MAX, record->len);
    }

    r->stops[r->nstops].data = (const char *) (record + 1);
    r->stops[r->nstops].len = record->len;
    r->stop_bytes += record->len;
    r->nstops++;

    return 0;
}


static int
wrk_req_stop_ids(wrk_req_t *r, const shr_record_t *record, uint32_t vocab,
    wrk_req_error_t *err)
{
    if (r->stop_ids != NULL || record->len / 4 > WRK_REQ_STOP_IDS_MAX) {
        return wrk_req_fail(err, SHR_E_INVALID, "stop_token_ids",
                            "more than %u stop tokens", WRK_REQ_STOP_IDS_MAX);
    }

    r->stop_ids = (const uint32_t *) (record + 1);
    r->nstop_ids = record->len / 4;

    return wrk_req_ids(r->stop_ids, r->nstop_ids, vocab, "stop_token_ids",
                       err);
}


static int
wrk_req_bias(wrk_req_t *r, const shr_record_t *record, uint32_t vocab,
    wrk_req_error_t *err)
{
    uint32_t  i;

    if (r->bias != NULL
        || record->len / sizeof(shr_bias_t) > WRK_REQ_BIAS_MAX)
    {
        return wrk_req_fail(err, SHR_E_INVALID, "logit_bias",
                            "more than %u biases", WRK_REQ_BIAS_MAX);
    }

    r->bias = (const shr_bias_t *) (record + 1);
    r->nbias = record->len / sizeof(shr_bias_t);

    for (i = 0; i < r->nbias; i++) {
        if (wrk_req_ids(&r->bias[i].id, 1, vocab, "logit_bias", err) != 0
            || wrk_req_range(r->bias[i].bias, -1000, 1000, "logit_bias", err)
               != 0)
        {
            return -1;
        }
    }

    return 0;
}


static int
wrk_req_record(wrk_req_t *r, const shr_record_t *record, uint32_t vocab,
    wrk_req_error_t *err)
{
    switch (record->type) {

    case SHR_R_MESSAGES:
        return wrk_req_single(&r->messages, record, "messages", err);

    case SHR_R_TOOLS:
        return wrk_req_single(&r->tools, record, "tools", err);

    case SHR_R_TEMPLATE_ARGS:
        return wrk_req_single(&r->args, record, "chat_template_kwargs", err);

    case SHR_R_REQUEST_ID:
        if (record->len > WRK_REQ_ID_MAX) {
            return wrk_req_fail(err, SHR_E_INVALID, "request_id",
                                "the request id has %u bytes, more than %u",
                                record->len, WRK_REQ_ID_MAX);
        }

        return wrk_req_single(&r->id, record, "request_id", err);

    case SHR_R_PROMPT:
    case SHR_R_PROMPT_IDS:
        return wrk_req_prompt(r, record, vocab, err);

    case SHR_R_STOP:
        return wrk_req_stop(r, record, err);

    case SHR_R_STOP_IDS:
        return wrk_req_stop_ids(r, record, vocab, err);

    case SHR_R_LOGIT_BIAS:
        return wrk_req_bias(r, record, vocab, err);

    default:
        return wrk_req_fail(err, SHR_E_INVALID, NULL,
                            "record type %u is unknown", record->type);
    }
}


/* What the task asks for is there, and not more. */
static int
wrk_req_complete(const wrk_req_t *r, wrk_req_error_t *err)
{
    int       chat;
    uint32_t  task;

    task = r->fixed.task;
    chat = r->messages.data != NULL;

    if (chat && r->nprompts != 0) {
        return wrk_req_fail(err, SHR_E_INVALID, "prompt",
                            "give messages or a prompt, not both");
    }

    if (task == SHR_TASK_CHAT && !chat) {
        return wrk_req_fail(err, SHR_E_INVALID, "messages",
                            "messages are missing");
    }

    if (task != SHR_TASK_CHAT && r->nprompts == 0
        && !(task == SHR_TASK_TOKENIZE && chat))
    {
        return wrk_req_fail(err, SHR_E_INVALID, "prompt", "prompt is missing");
    }

    if (chat && task != SHR_TASK_CHAT && task != SHR_TASK_TOKENIZE) {
        return wrk_req_fail(err, SHR_E_INVALID, "messages",
                            "this task takes a prompt, not messages");
    }

    if (task == SHR_TASK_TOKENIZE && !chat && r->prompt_type != SHR_R_PROMPT) {
        return wrk_req_fail(err, SHR_E_INVALID, "prompt",
                            "tokenize takes text");
    }

    if (task == SHR_TASK_DETOKENIZE && r->prompt_type != SHR_R_PROMPT_IDS) {
        return wrk_req_fail(err, SHR_E_INVALID, "tokens",
                            "detokenize takes token ids");
    }

    /* both <= SHR_CHOICES_MAX: no overflow */
    if ((r->nprompts > 1 ? r->nprompts : 1) * r->fixed.n > SHR_CHOICES_MAX) {
        return wrk_req_fail(err, SHR_E_INVALID, "n",
                            "%u prompts with n %u are more than %u choices",
                            r->nprompts, r->fixed.n, SHR_CHOICES_MAX);
    }

    return 0;
}
