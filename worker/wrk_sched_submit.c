/*
 * From a request's block to a queued request: decode, tokenize, check the
 * context length and the queue's limits, keep what the answer needs in one
 * block of the plan's memory.
 */

#include <assert.h>
#include <string.h>

#include "worker/wrk_sched_int.h"


static int wrk_submit_checked(wrk_sched_t *s, wrk_request_t *r,
    const void *req, size_t len, uint64_t now_ns);
static int wrk_submit_queue(wrk_sched_t *s, wrk_request_t *r);
static int wrk_submit_reply(wrk_sched_t *s, wrk_request_t *r);


static int
wrk_submit_overloaded(wrk_sched_t *s)
{
    s->count[SHR_C_SHED]++;

    return wrk_req_fail(&s->err, SHR_E_OVERLOADED, NULL,
                        "the model is overloaded: %u requests and %u tokens "
                        "are waiting", s->waiting, s->waiting_tokens);
}


void
wrk_sched_submit(wrk_sched_t *s, const void *req, size_t len,
    const wrk_sink_ops_t *ops, void *ctx, uint64_t now_ns)
{
    wrk_request_t  *r;

    if (!ops->wanted(ctx)) {
        s->count[SHR_C_CANCELLED_WAITING]++;
        ops->done(ctx);
        return;
    }

    r = wrk_request_new(s);

    if (r == NULL) {
        wrk_submit_overloaded(s);
        wrk_sink_refuse(s->err.code, s->err.text, ops, ctx);
        return;
    }

    r->sink.ops = ops;
    r->sink.ctx = ctx;

    if (wrk_submit_checked(s, r, req, len, now_ns) != 0) {
        wrk_request_fail(s, r, &s->err);
        return;
    }

    s->count[SHR_C_REQUESTS]++;

    if (r->task == SHR_TASK_TOKENIZE || r->task == SHR_TASK_DETOKENIZE) {
        r->state = WRK_REQUEST_REPLY;
        wrk_link_append(&s->replies, &r->link);
        wrk_out_reply(s, r);
        return;
    }

    wrk_request_queue(s, r, now_ns);
}


static void
wrk_submit_fields(wrk_sched_t *s, wrk_request_t *r, uint64_t now_ns)
{
    const shr_req_t  *f;

    f = &s->req.fixed;
    r->task = f->task;
    r->flags = f->flags;
    r->n = f->n;
    r->top_logprobs = f->top_logprobs;
    r->max_tokens = f->max_tokens;
    r->beams = f->beams > 1 ? f->beams : 0;
    r->length_penalty = f->length_penalty;
    r->scope = f->scope;
    r->share = f->fair;
    memcpy(r->id, s->req.id.data != NULL ? s->req.id.data : "",
           wrk_min(s->req.id.len, sizeof(r->id) - 1));
    r->priority = f->priority;
    r->deadline_ns = f->deadline_ns;
    r->queue_deadline_ns = f->queue_deadline_ns;
    /* another process' word: not in the future */
    r->queued_ns = f->queued_ns != 0 ? wrk_min(f->queued_ns, now_ns) : now_ns;

    if (r->task != SHR_TASK_COMPLETE) {
        r->flags &= ~SHR_REQ_ECHO;
    }

    r->sample.temperature = f->temperature;
    /* 0 keeps the likeliest token only */
    r->sample.top_p = wrk_max(f->top_p, 1e-9f);
    r->sample.min_p = f->min_p;
    r->sample.top_k = f->top_k;
    r->sample.repetition = f->repetition_penalty;
    r->sample.presence = f->presence_penalty;
    r->sample.frequency = f->frequency_penalty;
    r->sample.seed = f->flags & SHR_REQ_SEED
                     ? f->seed
                     : wrk_sample_random(s->opts.seed, 0,
                                         (uint32_t) r->number);
}


/* Encoder and decoder have a length each. */
static int
wrk_submit_lengths(wrk_sched_t *s, const wrk_request_t *r, size_t n)
{
    if (r->flags & SHR_REQ_ECHO) {
        return wrk_req_fail(&s->err, SHR_E_UNSUPPORTED, "echo",
                            "the model \"%s\" writes an answer of its own, it "
                            "cannot repeat the prompt", s->opts.name);
    }

    if (n > s->opts.prompt_max) {
        return wrk_req_fail(&s->err, SHR_E_CONTEXT, "prompt",
                            "This model's maximum input length is %u tokens, "
                            "but your prompt came to %zu tokens. Please "
                            "shorten the prompt.", s->opts.prompt_max, n);
    }

    if (r->max_tokens != SHR_MAX_TOKENS_REST
        && r->max_tokens > s->opts.answer_max)
    {
        return wrk_req_fail(&s->err, SHR_E_CONTEXT, "max_tokens",
                            "This model's answers have at most %u tokens, %u "
                            "were asked for.", s->opts.answer_max,
                            r->max_tokens);
    }

    return 0;
}


/* No prompt may leave the context, with what was asked for after it. */
static int
wrk_submit_context(wrk_sched_t *s, const wrk_request_t *r)
{
    size_t       n;
    uint32_t     i;
    uint64_t     want;
    const char  *what;

    what = r->task == SHR_TASK_CHAT ? "messages" : "prompt";

    for (i = 0; i < s->prompts.n; i++) {
        n = s->prompts.at[i + 1] - s->prompts.at[i];

        if (n == 0) {
            return wrk_req_fail(&s->err, SHR_E_INVALID, what,
                                "the %s must not be empty", what);
        }

        if (s->opts.prompt_max != 0) {
            if (wrk_submit_lengths(s, r, n) != 0) {
                return -1;
            }

            continue;
        }

        want = r->max_tokens != SHR_MAX_TOKENS_REST ? r->max_tokens : 1;

        if (n + want <= s->ctx) {
            continue;
        }

        if (r->max_tokens == SHR_MAX_TOKENS_REST) {
            return wrk_req_fail(&s->err, SHR_E_CONTEXT, what,
                                "This model's maximum context length is %u "
                                "tokens, but your %s came to %zu tokens. "
                                "Please shorten the %s.", s->ctx, what, n,
                                what);
        }

        return wrk_req_fail(&s->err, SHR_E_CONTEXT, what,
                            "This model's maximum context length is %u "
                            "tokens, but your %s came to %zu tokens and %u "
                            "more were asked for as the answer. Please "
                            "shorten the %s or ask for fewer tokens.",
                            s->ctx, what, n, r->max_tokens, what);
    }

    return 0;
}


static int
wrk_submit_ids(wrk_sched_t *s)
{
    size_t  i, n;

    n = s->prompts.at[s->prompts.n];

    for (i = 0; i < n; i++) {
        if (s->prompts.ids[i] >= s->vocab) {
            return wrk_req_fail(&s->err, SHR_E_INVALID, NULL,
                                "token id %u is beyond the model's %u tokens",
                                s->prompts.ids[i], s->vocab);
        }
    }

    return 0;
}


/* A slot that cannot hold what one token may need would never go on. */
static int
wrk_submit_room(wrk_sched_t *s, wrk_request_t *r)
{
    size_t      need;
    wrk_seat_t  probe;

    probe.request = r;
    probe.pend_len = WRK_STOP_BYTES_MAX
                     + (wrk_out_keeps(r, 0) ? WRK_WHOLE_BYTES : 0);
    need = wrk_out_token_room(s, &probe);

    if (r->flags & SHR_REQ_ECHO) {
        need = wrk_max(need, wrk_frame_bytes(WRK_ECHO_BYTES));
    }

    need += wrk_out_end_room(r);

    if (wrk_sink_room(&r->sink) < need) {
        return wrk_req_fail(&s->err, SHR_E_UNSUPPORTED, "n",
                            "%u choices need %zu bytes of response buffer, "
                            "there are %u", r->nchoices, need,
                            wrk_sink_room(&r->sink));
    }

    return 0;
}


/* A place in the queue from somebody who has more of them; -1: from nobody. */
static int
wrk_submit_yield(wrk_sched_t *s, const wrk_request_t *r)
{
    wrk_fair_item_t  *item;

    item = wrk_fair_yield(&s->fair, r->share, r->priority);

    if (item == NULL) {
        return -1;
    }

    s->count[SHR_C_SHED]++;
    wrk_req_fail(&s->err, SHR_E_OVERLOADED, NULL,
                 "the model is overloaded, and the request has given its "
                 "place to one with a higher priority or a smaller share");
    wrk_request_fail(s, wrk_fair_request(item), &s->err);

    return 0;
}


static int
wrk_submit_checked(wrk_sched_t *s, wrk_request_t *r, const void *req,
    size_t len, uint64_t now_ns)
{
    uint32_t  free_seats;

    if (((const shr_req_t *) req)->task > SHR_TASK_DETOKENIZE) {
        return wrk_req_fail(&s->err, SHR_E_UNSUPPORTED, "model",
                            "the model \"%s\" generates text, this endpoint "
                            "is for another kind of model", s->opts.name);
    }

    if (wrk_req_decode(&s->req, req, len, s->vocab, &s->err) != 0) {
        return -1;
    }

    wrk_submit_fields(s, r, now_ns);

    if (r->task == SHR_TASK_DETOKENIZE) {
        return wrk_submit_reply(s, r);
    }

    if (wrk_beam_check(s, r) != 0) {
        return -1;
    }

    /* Refused before it costs anything. */
    free_seats = s->nseats - s->nused - s->nheld;

    if (s->waiting >= s->opts.queue_requests + free_seats
        && r->task != SHR_TASK_TOKENIZE)
    {
        /* the client may have given up another one for this */
        wrk_sched_sift_queue(s);

        if (s->waiting >= s->opts.queue_requests + free_seats
            && wrk_submit_yield(s, r) != 0)
        {
            return wrk_submit_overloaded(s);
        }
    }

    if (wrk_enc_prompts(s->enc, &s->req, &s->prompts, &s->err) != 0) {
        return -1;
    }

    if (r->task == SHR_TASK_TOKENIZE) {
        return wrk_submit_reply(s, r);
    }

    if (wrk_submit_context(s, r) != 0 || wrk_submit_ids(s) != 0) {
        return -1;
    }

    return wrk_submit_queue(s, r);
}


/* Cuts n bytes off a block, 8-aligned. */
static void *
wrk_block_cut(uint8_t **at, size_t n)
{
    void  *p;

    p = *at;
    *at += (n + 7) & ~(size_t) 7;

    return p;
}


/* The block for what the request keeps; -1: there is none now. */
static int
wrk_submit_block(wrk_sched_t *s, wrk_request_t *r, size_t bytes, uint8_t **at)
{
    r->block = wrk_mem_alloc(&s->mem, bytes);

    if (r->block == NULL) {
        return wrk_submit_overloaded(s);
    }

    *at = r->block;

    return 0;
}


static void
wrk_submit_prompts(wrk_sched_t *s, wrk_request_t *r, uint8_t **at)
{
    size_t    ntokens;
    uint32_t  i;

    ntokens = s->prompts.at[s->prompts.n];
    r->nprompts = s->prompts.n;
    r->prompt_tokens = (uint32_t) ntokens;
    r->at = wrk_block_cut(at, (r->nprompts + 1) * sizeof(uint32_t));
    r->ids = wrk_block_cut(at, ntokens * sizeof(uint32_t));
    memcpy(r->ids, s->prompts.ids, ntokens * sizeof(uint32_t));

    for (i = 0; i <= r->nprompts; i++) {
        r->at[i] = (uint32_t) s->prompts.at[i];
    }
}


static int
wrk_submit_queue(wrk_sched_t *s, wrk_request_t *r)
{
    size_t            ntokens, stop_bytes, bytes;
    uint8_t          *at;
    uint32_t          i;
    void             *p;
    const wrk_req_t  *q;

    q = &s->req;
    ntokens = s->prompts.at[s->prompts.n];

    if (s->opts.queue_tokens != 0 && s->waiting != 0
        && s->waiting_tokens + ntokens > s->opts.queue_tokens)
    {
        return wrk_submit_overloaded(s);
    }

    stop_bytes = wrk_stop_memory(q->stop_bytes);
    bytes = (s->prompts.n + 1 + ntokens + q->nstop_ids) * sizeof(uint32_t)
            + q->nbias * sizeof(shr_bias_t) + stop_bytes + 5 * 8;

    if (wrk_submit_block(s, r, bytes, &at) != 0) {
        return -1;
    }

    wrk_submit_prompts(s, r, &at);
    r->nchoices = r->nprompts * r->n;

    r->nstop_ids = q->nstop_ids;
    r->stop_ids = wrk_block_cut(&at, q->nstop_ids * sizeof(uint32_t));
    r->sample.nbias = q->nbias;
    p = wrk_block_cut(&at, q->nbias * sizeof(shr_bias_t));
    r->sample.bias = p;

    if (q->nstop_ids != 0) {
        memcpy(r->stop_ids, q->stop_ids, q->nstop_ids * sizeof(uint32_t));
    }

    if (q->nbias != 0) {
        memcpy(p, q->bias, q->nbias * sizeof(shr_bias_t));
    }

    wrk_stop_init(&r->stops, wrk_block_cut(&at, stop_bytes), q->stop_bytes);

    for (i = 0; i < q->nstops; i++) {
        wrk_stop_add(&r->stops, q->stops[i].data, q->stops[i].len);
    }

    assert(at <= (uint8_t *) r->block + bytes);

    return wrk_submit_room(s, r);
}


/* Detokenize: the texts in a row; at[] counts bytes. */
static int
wrk_submit_texts(wrk_sched_t *s, wrk_request_t *r)
{
    size_t       bytes;
    uint8_t     *at;
    uint32_t     i;
    const char  *text;

    at = NULL;

    if (wrk_enc_texts(s->enc, &s->req, &s->prompts, &text, &s->err) != 0) {
        return -1;
    }

    for (i = 0; i < s->req.nprompts; i++) {
        r->prompt_tokens += (uint32_t) (s->req.prompts[i].len / 4);
    }

    r->nprompts = s->prompts.n;
    bytes = (r->nprompts + 1) * sizeof(uint32_t) + s->prompts.at[r->nprompts]
            + 2 * 8;

    if (wrk_submit_block(s, r, bytes, &at) != 0) {
        return -1;
    }

    r->at = wrk_block_cut(&at, (r->nprompts + 1) * sizeof(uint32_t));
    r->text = (char *) at;
    memcpy(r->text, text, s->prompts.at[r->nprompts]);

    for (i = 0; i <= r->nprompts; i++) {
        r->at[i] = (uint32_t) s->prompts.at[i];
    }

    return 0;
}


static int
wrk_submit_reply(wrk_sched_t *s, wrk_request_t *r)
{
    size_t    ntokens, bytes;
    uint8_t  *at;

    if (r->task == SHR_TASK_DETOKENIZE) {
        return wrk_submit_texts(s, r);
    }

    ntokens = s->prompts.at[s->prompts.n];
    bytes = (s->prompts.n + 1 + ntokens) * sizeof(uint32_t)
            + ntokens * sizeof(tok_span_t) + 3 * 8;

    if (wrk_submit_block(s, r, bytes, &at) != 0) {
        return -1;
    }

    wrk_submit_prompts(s, r, &at);

    if (s->prompts.offsets != NULL) {
        r->offsets = wrk_block_cut(&at, ntokens * sizeof(tok_span_t));
        memcpy(r->offsets, s->prompts.offsets, ntokens * sizeof(tok_span_t));
    }

    return 0;
}
