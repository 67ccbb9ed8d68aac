/*
 * Requests and seats come and go: the queue, admission, cancellation,
 * deadlines, the one end of each request.  No frames are made here but by
 * calling wrk_sched_out.c.
 */

#include <assert.h>
#include <string.h>

#include "worker/wrk_log.h"
#include "worker/wrk_sched_int.h"


wrk_request_t *
wrk_request_new(wrk_sched_t *s)
{
    wrk_link_t     *link;
    wrk_request_t  *r;

    if (wrk_link_empty(&s->free)) {
        return NULL;
    }

    link = s->free.next;
    wrk_link_remove(link);
    r = wrk_link_request(link);
    assert(r->state == WRK_REQUEST_FREE);

    memset(r, 0, sizeof(*r));
    r->number = s->number++;

    return r;
}


void
wrk_request_queue(wrk_sched_t *s, wrk_request_t *r, uint64_t now_ns)
{
    r->state = WRK_REQUEST_QUEUED;
    wrk_link_append(&s->queue, &r->link);
    wrk_fair_push(&s->fair, &r->fair, r->share, r->priority, now_ns);
    s->waiting++;
    s->waiting_tokens += r->prompt_tokens;

    if (r->deadline_ns != 0) {
        s->next_deadline = wrk_min(s->next_deadline, r->deadline_ns);
    }

    if (r->queue_deadline_ns != 0) {
        s->next_deadline = wrk_min(s->next_deadline, r->queue_deadline_ns);
    }
}


/* It is no longer among the waiting. */
static void
wrk_request_unqueue(wrk_sched_t *s, wrk_request_t *r)
{
    assert(r->state == WRK_REQUEST_QUEUED && s->waiting > 0);
    assert(s->waiting_tokens >= r->prompt_tokens);

    if (s->glance == &r->link) {
        s->glance = r->link.next;
    }

    s->waiting--;
    s->waiting_tokens -= r->prompt_tokens;
    wrk_link_remove(&r->link);
}


void
wrk_request_done(wrk_sched_t *s, wrk_request_t *r)
{
    uint32_t  i;

    for (i = s->nused; i > 0; i--) {
        if (s->seats[s->order[i - 1]].request == r) {
            wrk_seat_free(s, &s->seats[s->order[i - 1]]);
        }
    }

    if (r->state == WRK_REQUEST_QUEUED) {
        wrk_request_unqueue(s, r);

    } else if (r->state != WRK_REQUEST_FREE) {
        wrk_link_remove(&r->link);
    }

    if (s->partial == r) {
        s->partial = NULL;
    }

    wrk_fair_leave(&s->fair, &r->fair);

    if (r->block != NULL) {
        wrk_mem_free(&s->mem, r->block);
        r->block = NULL;
    }

    r->state = WRK_REQUEST_FREE;
    s->again = 1;
    r->sink.ops->done(r->sink.ctx);
    wrk_link_append(&s->free, &r->link);
}


void
wrk_request_fail(wrk_sched_t *s, wrk_request_t *r, const wrk_req_error_t *err)
{
    if (err->code == SHR_E_INTERNAL) {
        wrk_log(WRK_LOG_ERROR, "request %s failed: %s", r->id, err->text);
    }

    wrk_sink_error(&r->sink, err);
    wrk_request_done(s, r);
}


void
wrk_request_drop(wrk_sched_t *s, wrk_request_t *r)
{
    if (r->state == WRK_REQUEST_QUEUED) {
        s->count[SHR_C_CANCELLED_WAITING]++;

    } else if (r->first_ns == 0) {
        s->count[SHR_C_CANCELLED_PREFILL]++;

    } else {
        s->count[SHR_C_CANCELLED_DECODE]++;
    }

    wrk_request_done(s, r);
}


void
wrk_request_end(wrk_sched_t *s, wrk_request_t *r)
{
    wrk_out_usage(r);
    wrk_request_done(s, r);
}


/* --- cancelled and late ------------------------------------------------- */

static int
wrk_request_wanted(const wrk_request_t *r)
{
    return wrk_sink_wanted(&r->sink);
}


static void
wrk_sift_list(wrk_sched_t *s, wrk_link_t *head)
{
    wrk_link_t  *link, *next;

    for (link = head->next; link != head; link = next) {
        next = link->next;

        if (!wrk_request_wanted(wrk_link_request(link))) {
            wrk_request_drop(s, wrk_link_request(link));
        }
    }
}


/* The queue may be long: some of it per step, round and round. */
void
wrk_sched_sift_queue(wrk_sched_t *s)
{
    uint32_t     n;
    wrk_link_t  *link;

    for (n = wrk_min(s->waiting, WRK_WANTED_PER_STEP); n > 0; n--) {
        link = s->glance != &s->queue ? s->glance : s->queue.next;

        if (link == &s->queue) {
            break;
        }

        s->glance = link->next;

        if (!wrk_request_wanted(wrk_link_request(link))) {
            wrk_request_drop(s, wrk_link_request(link));
        }
    }
}


/* When this request is late; UINT64_MAX: never. */
static uint64_t
wrk_request_due(const wrk_request_t *r)
{
    uint64_t  due;

    due = r->deadline_ns != 0 ? r->deadline_ns : UINT64_MAX;

    if (r->state == WRK_REQUEST_QUEUED && r->queue_deadline_ns != 0) {
        due = wrk_min(due, r->queue_deadline_ns);
    }

    return due;
}


static void
wrk_expire_list(wrk_sched_t *s, wrk_link_t *head, uint64_t now_ns)
{
    uint64_t        due;
    wrk_link_t     *link, *next;
    wrk_request_t  *r;

    for (link = head->next; link != head; link = next) {
        next = link->next;
        r = wrk_link_request(link);
        due = wrk_request_due(r);

        if (now_ns < due) {
            s->next_deadline = wrk_min(s->next_deadline, due);
            continue;
        }

        wrk_req_fail(&s->err, SHR_E_DEADLINE, NULL,
                     r->state == WRK_REQUEST_QUEUED
                     ? "the request waited longer than its limit"
                     : "the request did not end within its time limit");
        s->count[SHR_C_EXPIRED]++;
        wrk_request_fail(s, r, &s->err);
    }
}


void
wrk_sched_sift(wrk_sched_t *s, uint64_t now_ns)
{
    wrk_sift_list(s, &s->running);
    wrk_sift_list(s, &s->replies);
    wrk_sched_sift_queue(s);

    if (now_ns >= s->next_deadline) {
        s->next_deadline = UINT64_MAX;
        wrk_expire_list(s, &s->running, now_ns);
        wrk_expire_list(s, &s->replies, now_ns);
        wrk_expire_list(s, &s->queue, now_ns);
    }
}


/* --- seats -------------------------------------------------------------- */

void
wrk_seat_free(wrk_sched_t *s, wrk_seat_t *seat)
{
    uint32_t  i, index;

    index = (uint32_t) (seat - s->seats);
    assert(seat->state != WRK_SEAT_FREE);

    for (i = 0; s->order[i] != index; i++) {
        assert(i < s->nused);
    }

    s->nused--;
    memmove(&s->order[i], &s->order[i + 1],
            (s->nused - i) * sizeof(uint32_t));
    s->order[s->nused] = index;

    wrk_kv_give(s, seat);
    wrk_beam_release(s, seat);
    seat->state = WRK_SEAT_FREE;
    seat->request = NULL;
    seat->batch_n = 0;
    s->again = 1;
}


/* The detokenizer sees the end of the prompt, so that a model's leading space
 * is kept or dropped as inside a text. */
static void
wrk_seat_prime(wrk_sched_t *s, wrk_seat_t *seat)
{
    size_t    len;
    uint32_t  i;

    tok_stream_init(&seat->stream,
                    seat->request->flags & SHR_REQ_KEEP_SPECIAL
                    ? 0 : TOK_SKIP_SPECIAL);

    if (s->opts.prompt_max != 0 || (seat->request->flags & SHR_REQ_ECHO)) {
        return;
    }

    i = seat->nprompt > WRK_PRIME_TOKENS ? seat->nprompt - WRK_PRIME_TOKENS
                                         : 0;

    for (/* void */; i < seat->nprompt; i++) {
        (void) tok_stream_step(&seat->stream, s->tok, seat->tokens[i],
                               s->piece, s->piece_room, &len);
    }
}


static void
wrk_seat_take(wrk_sched_t *s, wrk_request_t *r)
{
    uint32_t     prompt;
    wrk_seat_t  *seat;

    assert(s->nused < s->nseats && r->admitted < r->nchoices);

    /* order[] is a permutation: the free seats stand behind the used. */
    seat = &s->seats[s->order[s->nused++]];
    assert(seat->state == WRK_SEAT_FREE);

    prompt = r->admitted / r->n;
    seat->state = WRK_SEAT_START;
    seat->paused = 0;
    seat->request = r;
    seat->choice = r->admitted++;
    seat->prompt = prompt;
    seat->nprompt = r->at[prompt + 1] - r->at[prompt];
    seat->ntokens = seat->nprompt;
    seat->computed = 0;
    seat->reserved = 0;
    seat->counted = 0;
    wrk_path_init(&seat->path, r->scope);
    wrk_spec_start(seat);
    wrk_beam_hold(s, seat);
    seat->max_tokens = wrk_min(r->max_tokens, s->ctx - seat->nprompt);
    seat->max_tokens = s->opts.answer_max != 0
                       ? wrk_min(seat->max_tokens, s->opts.answer_max)
                       : seat->max_tokens;
    seat->echo_at = r->flags & SHR_REQ_ECHO ? 0 : seat->nprompt;
    seat->batch_n = 0;
    seat->chars = 0;
    seat->pend_len = 0;

    memcpy(seat->tokens, r->ids + r->at[prompt],
           seat->nprompt * sizeof(uint32_t));
    wrk_stop_start(&seat->stop);
    wrk_seat_prime(s, seat);
}


static int
wrk_seats_enough(const wrk_sched_t *s, const wrk_request_t *r)
{
    return s->nused + s->nheld + wrk_beam_seats(r) <= s->nseats;
}


/* The next request to start: that of the key with the smallest share. */
static wrk_request_t *
wrk_queue_next(wrk_sched_t *s, uint64_t now_ns)
{
    wrk_fair_item_t  *item;

    item = wrk_fair_next(&s->fair, now_ns);
    assert((item == NULL) == wrk_link_empty(&s->queue));

    return item != NULL ? wrk_fair_request(item) : NULL;
}


/* A request that needs more seats than are free is waited for: nobody behind
 * it starts, so it comes to have them. */
void
wrk_sched_admit(wrk_sched_t *s, uint64_t now_ns)
{
    wrk_request_t  *r;

    while (s->nused + s->nheld < s->nseats) {
        r = s->partial != NULL ? s->partial : wrk_queue_next(s, now_ns);

        if (r == NULL) {
            break;
        }

        if (r->state == WRK_REQUEST_QUEUED) {
            if (!wrk_request_wanted(r)) {
                wrk_request_drop(s, r);
                continue;
            }

            if (!wrk_seats_enough(s, r)) {
                break;
            }

            wrk_request_unqueue(s, r);
            wrk_fair_take(&s->fair, &r->fair, now_ns);
            wrk_fair_charge(&r->fair, r->prompt_tokens);
            wrk_link_append(&s->running, &r->link);
            r->state = WRK_REQUEST_RUNNING;
            r->started_ns = now_ns;
            r->told_ns = now_ns;
            s->count[SHR_C_PROMPT_TOKENS] += r->prompt_tokens;
            wrk_out_start(r);
        }

        if (!wrk_seats_enough(s, r)) {
            break;
        }

        wrk_seat_take(s, r);
        s->partial = r->admitted < r->nchoices ? r : NULL;
    }
}
