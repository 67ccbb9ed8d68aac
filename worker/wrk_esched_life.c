/*
 * Requests of the encoder scheduler come and go: submission, cancellation,
 * deadlines, the one end of each.
 */

#include <assert.h>
#include <string.h>

#include "worker/wrk_esched_int.h"


static int wrk_ereq_fill(wrk_esched_t *s, wrk_ereq_t *r, const void *req,
    size_t len, uint64_t now_ns);


static int
wrk_ereq_overloaded(wrk_esched_t *s)
{
    s->count[SHR_C_SHED]++;

    return wrk_req_fail(&s->err, SHR_E_OVERLOADED, NULL,
                        "the model is overloaded: %u requests and %u tokens "
                        "are waiting", s->waiting, s->waiting_tokens);
}


static void
wrk_ereq_queue(wrk_esched_t *s, wrk_ereq_t *r, uint64_t now_ns)
{
    r->state = WRK_EREQ_QUEUED;
    wrk_link_append(&s->queue, &r->link);
    wrk_fair_push(&s->fair, &r->fair, r->share, r->priority, now_ns);
    s->waiting++;
    s->waiting_tokens += r->ntokens;
    s->waiting_inputs += r->ninputs;

    if (r->deadline_ns != 0) {
        s->next_deadline = wrk_min(s->next_deadline, r->deadline_ns);
    }

    if (r->queue_deadline_ns != 0) {
        s->next_deadline = wrk_min(s->next_deadline, r->queue_deadline_ns);
    }
}


static void
wrk_ereq_unqueue(wrk_esched_t *s, wrk_ereq_t *r)
{
    assert(r->state == WRK_EREQ_QUEUED && s->waiting > 0);
    assert(s->waiting_tokens >= r->ntokens);
    assert(s->waiting_inputs >= r->ninputs);

    s->waiting--;
    s->waiting_tokens -= r->ntokens;
    s->waiting_inputs -= r->ninputs;
    wrk_link_remove(&r->link);
}


void
wrk_ereq_start(wrk_esched_t *s, wrk_ereq_t *r, uint64_t now_ns)
{
    wrk_ereq_unqueue(s, r);
    wrk_fair_take(&s->fair, &r->fair, now_ns);
    wrk_fair_charge(&r->fair, r->ntokens);
    wrk_link_append(&s->running, &r->link);
    s->nrunning++;
    r->state = WRK_EREQ_RUNNING;
    r->started_ns = now_ns;
    s->count[SHR_C_PROMPT_TOKENS] += r->ntokens;
    wrk_eout_start(r);
}


/* Tokens only: there is nothing to wait for but the ring. */
static void
wrk_ereq_reply(wrk_esched_t *s, wrk_ereq_t *r, uint64_t now_ns)
{
    wrk_link_append(&s->running, &r->link);
    s->nrunning++;
    r->state = WRK_EREQ_RUNNING;
    r->started_ns = now_ns;
    r->taken = r->ninputs;
    wrk_eout_start(r);
    wrk_eout_send(s, r);
}


void
wrk_esched_submit(wrk_esched_t *s, const void *req, size_t len,
    const wrk_sink_ops_t *ops, void *ctx, uint64_t now_ns)
{
    wrk_link_t  *link;
    wrk_ereq_t  *r;

    if (!ops->wanted(ctx)) {
        s->count[SHR_C_CANCELLED_WAITING]++;
        ops->done(ctx);
        return;
    }

    if (wrk_link_empty(&s->free)) {
        wrk_ereq_overloaded(s);
        wrk_sink_refuse(s->err.code, s->err.text, ops, ctx);
        return;
    }

    link = s->free.next;
    wrk_link_remove(link);
    r = wrk_link_ereq(link);
    assert(r->state == WRK_EREQ_FREE);

    memset(r, 0, sizeof(*r));
    r->sink.ops = ops;
    r->sink.ctx = ctx;

    if (wrk_ereq_fill(s, r, req, len, now_ns) != 0) {
        wrk_ereq_fail(s, r);
        return;
    }

    s->count[SHR_C_REQUESTS]++;

    if (r->task == SHR_TASK_TOKENIZE) {
        wrk_ereq_reply(s, r, now_ns);
        return;
    }

    wrk_ereq_queue(s, r, now_ns);
}


/* Cuts n bytes off a block, 8-aligned. */
static void *
wrk_ereq_part(uint8_t **at, size_t n)
{
    void  *p;

    p = *at;
    *at += (n + 7) & ~(size_t) 7;

    return p;
}


/* What the request keeps: tokens, and the window of its results. */
static int
wrk_ereq_block(wrk_esched_t *s, wrk_ereq_t *r)
{
    size_t    bytes, row, ids, lists, spans;
    uint8_t  *at;

    r->ninputs = s->in.ninputs;
    r->ntokens = s->at[r->ninputs];
    r->width = s->eng->info.width;

    if (r->task == SHR_TASK_EMBED) {
        r->width = s->in.fixed.dims != 0 ? s->in.fixed.dims : r->width;

    } else if (r->task == SHR_TASK_CLASSIFY) {
        r->nlabels = s->eng->info.labels;
    }

    row = r->width * sizeof(float);
    r->window = (uint32_t) (WRK_ESCHED_WINDOW_BYTES / row);
    r->window = wrk_min(wrk_max(r->window, 1u), r->ninputs);

    ids = r->ntokens * sizeof(uint32_t);
    lists = (r->ninputs + 1) * sizeof(uint32_t);
    spans = s->offsets != NULL ? r->ntokens * sizeof(tok_span_t) : 0;
    bytes = ids + 2 * lists + r->window * row + spans + 5 * 8;

    r->block = wrk_mem_alloc(&s->mem, bytes);

    if (r->block == NULL) {
        return wrk_ereq_overloaded(s);
    }

    at = r->block;
    r->at = wrk_ereq_part(&at, lists);
    r->second = wrk_ereq_part(&at, lists);
    r->ids = wrk_ereq_part(&at, ids);
    r->rows = wrk_ereq_part(&at, r->window * row);

    if (spans != 0) {
        r->offsets = wrk_ereq_part(&at, spans);
        memcpy(r->offsets, s->offsets, spans);
    }

    assert(at <= (uint8_t *) r->block + bytes);

    memcpy(r->at, s->at, lists);
    memcpy(r->second, s->second, r->ninputs * sizeof(uint32_t));
    memcpy(r->ids, s->ids, ids);

    return 0;
}


/* A place in the queue from somebody who has more of them; -1: from nobody. */
static int
wrk_ereq_yield(wrk_esched_t *s, const wrk_ereq_t *r)
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
    wrk_ereq_fail(s, wrk_fair_ereq(item));

    return 0;
}


static int
wrk_ereq_fill(wrk_esched_t *s, wrk_ereq_t *r, const void *req, size_t len,
    uint64_t now_ns)
{
    const shr_req_t  *f;

    if (wrk_ein_decode(s, req, len) != 0) {
        return -1;
    }

    f = &s->in.fixed;
    r->task = f->task;
    r->flags = f->flags;
    r->share = f->fair;
    r->priority = f->priority;
    memcpy(r->id, s->in.id.data != NULL ? s->in.id.data : "",
           wrk_min(s->in.id.len, sizeof(r->id) - 1));
    r->deadline_ns = f->deadline_ns;
    r->queue_deadline_ns = f->queue_deadline_ns;
    /* another process' word: not in the future */
    r->queued_ns = f->queued_ns != 0 ? wrk_min(f->queued_ns, now_ns) : now_ns;
    r->came_ns = now_ns;

    /* Refused before it costs anything. */
    if (s->waiting >= s->opts.queue_requests + s->opts.sequences
        && wrk_ereq_yield(s, r) != 0)
    {
        return wrk_ereq_overloaded(s);
    }

    if (wrk_ein_tokenize(s) != 0) {
        return -1;
    }

    while (s->opts.queue_tokens != 0 && s->waiting != 0
           && (uint64_t) s->waiting_tokens + s->at[s->in.ninputs]
              > s->opts.queue_tokens)
    {
        if (wrk_ereq_yield(s, r) != 0) {
            return wrk_ereq_overloaded(s);
        }
    }

    return wrk_ereq_block(s, r);
}


/* --- the end ------------------------------------------------------------ */

void
wrk_ereq_done(wrk_esched_t *s, wrk_ereq_t *r)
{
    uint32_t  i;

    /* what runs elsewhere is forgotten */
    for (i = 0; s->pending && i < s->nmembers; i++) {
        if (s->members[i].request == r) {
            s->members[i].request = NULL;
        }
    }

    if (r->state == WRK_EREQ_QUEUED) {
        wrk_ereq_unqueue(s, r);

    } else if (r->state == WRK_EREQ_RUNNING) {
        wrk_link_remove(&r->link);
        s->nrunning--;
    }
    wrk_fair_leave(&s->fair, &r->fair);

    if (r->block != NULL) {
        wrk_mem_free(&s->mem, r->block);
        r->block = NULL;
    }

    r->state = WRK_EREQ_FREE;
    s->again = 1;
    r->sink.ops->done(r->sink.ctx);
    wrk_link_append(&s->free, &r->link);
}


void
wrk_ereq_fail(wrk_esched_t *s, wrk_ereq_t *r)
{
    wrk_eout_error(r, &s->err);
    wrk_ereq_done(s, r);
}


void
wrk_ereq_drop(wrk_esched_t *s, wrk_ereq_t *r)
{
    s->count[r->state == WRK_EREQ_QUEUED ? SHR_C_CANCELLED_WAITING
                                         : SHR_C_CANCELLED_PREFILL]++;
    wrk_ereq_done(s, r);
}


/* --- cancelled and late ------------------------------------------------- */

static void
wrk_esched_sift_list(wrk_esched_t *s, wrk_link_t *head, uint32_t max)
{
    wrk_link_t  *link, *next;
    wrk_ereq_t  *r;

    for (link = head->next; link != head && max > 0; link = next, max--) {
        next = link->next;
        r = wrk_link_ereq(link);

        if (!wrk_sink_wanted(&r->sink)) {
            wrk_ereq_drop(s, r);
        }
    }
}


static uint64_t
wrk_ereq_due(const wrk_ereq_t *r)
{
    uint64_t  due;

    due = r->deadline_ns != 0 ? r->deadline_ns : UINT64_MAX;

    if (r->state == WRK_EREQ_QUEUED && r->queue_deadline_ns != 0) {
        due = wrk_min(due, r->queue_deadline_ns);
    }

    return due;
}


static void
wrk_esched_expire_list(wrk_esched_t *s, wrk_link_t *head, uint64_t now_ns)
{
    uint64_t     due;
    wrk_link_t  *link, *next;
    wrk_ereq_t  *r;

    for (link = head->next; link != head; link = next) {
        next = link->next;
        r = wrk_link_ereq(link);
        due = wrk_ereq_due(r);

        if (now_ns < due) {
            s->next_deadline = wrk_min(s->next_deadline, due);
            continue;
        }

        wrk_req_fail(&s->err, SHR_E_DEADLINE, NULL,
                     r->state == WRK_EREQ_QUEUED
                     ? "the request waited longer than its limit"
                     : "the request did not end within its time limit");
        s->count[SHR_C_EXPIRED]++;
        wrk_ereq_fail(s, r);
    }
}


/* Of a long queue its beginning, which is what runs next. */
void
wrk_esched_sift(wrk_esched_t *s, uint64_t now_ns)
{
    wrk_esched_sift_list(s, &s->running, UINT32_MAX);
    wrk_esched_sift_list(s, &s->queue, WRK_WANTED_PER_STEP);

    if (now_ns >= s->next_deadline) {
        s->next_deadline = UINT64_MAX;
        wrk_esched_expire_list(s, &s->running, now_ns);
        wrk_esched_expire_list(s, &s->queue, now_ns);
    }
}
