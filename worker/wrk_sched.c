/*
 * The scheduler's frame: memory plan, the order of things in a step, figures.
 * What happens to a request is in wrk_sched_submit.c (comes), _life.c (waits,
 * gets a seat, ends), _kv.c (gets pages), _batch.c (computes), _spec.c
 * (guesses), _beam.c (searches) and _out.c (speaks).
 */

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "worker/wrk_sched_int.h"


/* Requests that only want tokens or text need entries too. */
#define WRK_REPLIES_MAX     64u
#define WRK_MEM_REQUEST     4096u           /* of a request, besides tokens */
#define WRK_MEM_TOKENS_MAX  (64u << 20)


static int wrk_sched_plan_memory(wrk_sched_t *s);
static int wrk_sched_open_seats(wrk_sched_t *s);


void
wrk_sched_opts_init(wrk_sched_opts_t *opts)
{
    memset(opts, 0, sizeof(*opts));
    opts->sequences = 64;
    opts->queue_requests = 256;
    opts->gap_ms = WRK_SCHED_GAP_MS;
    opts->prefix_cache = 1;
    opts->prefix_hash_bits = 64;
    opts->request_bytes_max = WRK_SCHED_REQUEST_BYTES;
    opts->name = "model";
}


uint64_t
wrk_sched_now(const wrk_sched_t *s)
{
    struct timespec  ts;

    if (s->opts.clock != NULL) {
        return s->opts.clock(s->opts.clock_data);
    }

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}


/* Options within the engine's limits. */
static void
wrk_sched_options(wrk_sched_t *s, const wrk_sched_opts_t *opts)
{
    uint64_t             kv;
    wrk_sched_opts_t    *o;
    const eng_limits_t  *l;

    l = &s->eng->limits;
    s->opts = *opts;
    o = &s->opts;

    o->batch = o->batch != 0 ? wrk_min(o->batch, l->max_batch_tokens)
                             : l->max_batch_tokens;
    o->sequences = wrk_max(wrk_min(o->sequences, l->max_seqs), 1u);
    /* every running sequence has its token in each step */
    o->sequences = wrk_min(o->sequences, o->batch);
    o->sequences = wrk_min(o->sequences, l->max_logits);
    o->queue_requests = wrk_min(o->queue_requests, WRK_SCHED_QUEUE_MAX);
    o->gap_ms = o->gap_ms != 0 ? o->gap_ms : WRK_SCHED_GAP_MS;
    /* an engine that runs elsewhere keeps no pages */
    o->prefix_cache = o->prefix_cache && s->eng->ops->step_tokens == NULL;
    o->speculate = o->speculate && s->eng->ops->step_tokens == NULL;
    o->request_bytes_max = o->request_bytes_max != 0
                           ? wrk_min(o->request_bytes_max, SHR_REQ_BYTES_MAX)
                           : WRK_SCHED_REQUEST_BYTES;

    if (o->seed == 0
        && getrandom(&o->seed, sizeof(o->seed), GRND_NONBLOCK) < 0)
    {
        o->seed = wrk_sched_now(s);
    }

    kv = (uint64_t) l->kv_pages * l->page_tokens;
    s->ctx = (uint32_t) wrk_min((uint64_t) l->ctx_len, kv);
    s->vocab = l->vocab;
}


wrk_sched_t *
wrk_sched_create(const wrk_sched_opts_t *opts, eng_t *eng, const tok_t *tok,
    const chat_template_t *tmpl, const char **why)
{
    size_t        room;
    wrk_sched_t  *s;

    assert(eng->limits.vocab > 0 && eng->limits.ctx_len > 0);
    assert(eng->limits.page_tokens > 0 && eng->limits.kv_pages > 0);
    assert(eng->limits.max_seqs > 0 && eng->limits.max_logits > 0);
    assert(!opts->beams || opts->answer_max != 0);

    room = tok_stream_room(tok);
    s = calloc(1, sizeof(*s) + 2 * room);

    if (s == NULL) {
        goto failed;
    }

    wrk_link_init(&s->free);
    wrk_link_init(&s->queue);
    wrk_link_init(&s->running);
    wrk_link_init(&s->replies);
    s->eng = eng;
    s->tok = tok;
    s->piece_room = room;
    s->eos = tok_eos_all(tok, &s->neos);
    wrk_sched_options(s, opts);

    s->enc = wrk_enc_create(tok, tmpl, s->opts.request_bytes_max);
    s->sampler = wrk_sampler_create(s->vocab);

    if (s->opts.prefix_cache) {
        s->prefix = wrk_prefix_create(eng, s->opts.prefix_hash_bits);
    }

    if (s->enc == NULL || s->sampler == NULL
        || (s->opts.prefix_cache && s->prefix == NULL)
        || wrk_sched_plan_memory(s) != 0
        || wrk_sched_open_seats(s) != 0)
    {
        goto failed;
    }

    return s;

failed:

    if (why != NULL) {
        *why = "the scheduler's memory cannot be had: lower sequences, queue "
               "or context";
    }

    wrk_sched_destroy(s);

    return NULL;
}


static int
wrk_sched_plan_memory(wrk_sched_t *s)
{
    size_t    tokens, bytes;
    uint32_t  i;

    s->nseats = s->opts.sequences;
    s->nrequests = s->opts.queue_requests + s->nseats + WRK_REPLIES_MAX;
    s->pend_cap = WRK_ECHO_BYTES + WRK_STOP_BYTES_MAX + 4 * s->piece_room;
    s->next_deadline = UINT64_MAX;

    /* Twice, for a buddy's block may be twice as large as what is in it. */
    tokens = s->opts.queue_tokens != 0
             ? s->opts.queue_tokens
             : (size_t) s->opts.queue_requests * s->ctx;
    tokens += (size_t) (s->nseats + 1) * s->ctx;
    tokens = wrk_min(tokens, (size_t) WRK_MEM_TOKENS_MAX);
    bytes = 2 * (tokens * sizeof(uint32_t)
                 + (size_t) s->nrequests * WRK_MEM_REQUEST
                 + 12 * (size_t) s->opts.request_bytes_max);

    s->requests = wrk_mem_map(s->nrequests * sizeof(wrk_request_t));
    s->seats = wrk_mem_map(s->nseats * sizeof(wrk_seat_t));
    s->stride = (size_t) s->ctx + WRK_SEAT_SPREAD;
    s->tokens = wrk_mem_map(s->nseats * s->stride * sizeof(uint32_t));
    s->pend = wrk_mem_map(s->nseats * s->pend_cap);
    s->logprobs = wrk_mem_map(((size_t) s->nseats * s->opts.answer_max + 1)
                              * sizeof(float));
    s->order = calloc(s->nseats, sizeof(uint32_t));
    s->members = calloc(s->nseats, sizeof(uint32_t));
    s->batch = calloc(s->opts.batch, sizeof(eng_tok_t));
    s->rows = calloc(s->opts.batch, sizeof(float *));
    s->forced = calloc(s->eng->limits.max_logits, sizeof(uint32_t));

    if (s->requests == NULL || s->seats == NULL || s->tokens == NULL
        || s->pend == NULL || s->logprobs == NULL || s->order == NULL
        || s->members == NULL || s->batch == NULL || s->rows == NULL
        || s->forced == NULL
        || wrk_fair_init(&s->fair, s->nrequests) != 0
        || wrk_mem_init(&s->mem, bytes) != 0)
    {
        return -1;
    }

    s->glance = &s->queue;

    for (i = 0; i < s->nrequests; i++) {
        wrk_link_append(&s->free, &s->requests[i].link);
    }

    return 0;
}


/* Each seat keeps one of the engine's sequences. */
static int
wrk_sched_open_seats(wrk_sched_t *s)
{
    uint32_t     i;
    wrk_seat_t  *seat;

    for (i = 0; i < s->nseats; i++) {
        seat = &s->seats[i];
        seat->seq = WRK_SEAT_NONE;
        seat->tokens = s->tokens + i * s->stride;
        seat->pend = s->pend + i * s->pend_cap;
        seat->logprobs = s->logprobs + (size_t) i * s->opts.answer_max;
        s->order[i] = i;
    }

    for (i = 0; i < s->nseats; i++) {
        if (eng_seq_open(s->eng, &s->seats[i].seq) != 0) {
            return -1;
        }
    }

    return 0;
}


void
wrk_sched_destroy(wrk_sched_t *s)
{
    uint32_t  i;

    if (s == NULL) {
        return;
    }

    if (s->seats != NULL && s->order != NULL) {
        assert(wrk_sched_idle(s));

        for (i = 0; i < s->nseats; i++) {
            if (s->seats[i].tokens != NULL
                && s->seats[i].seq != WRK_SEAT_NONE)
            {
                eng_seq_close(s->eng, s->seats[i].seq);
            }
        }
    }

    wrk_prefix_destroy(s->prefix);
    wrk_fair_destroy(&s->fair);
    wrk_mem_unmap(s->requests, s->nrequests * sizeof(wrk_request_t));
    wrk_mem_unmap(s->seats, s->nseats * sizeof(wrk_seat_t));
    wrk_mem_unmap(s->tokens, s->nseats * s->stride * sizeof(uint32_t));
    wrk_mem_unmap(s->pend, s->nseats * s->pend_cap);
    wrk_mem_unmap(s->logprobs, ((size_t) s->nseats * s->opts.answer_max + 1)
                               * sizeof(float));

    if (s->mem.base != NULL) {
        wrk_mem_destroy(&s->mem);
    }

    free(s->order);
    free(s->members);
    free(s->batch);
    free(s->rows);
    free(s->forced);
    wrk_sampler_destroy(s->sampler);
    wrk_enc_destroy(s->enc);
    free(s);
}


/* --- a step ------------------------------------------------------------- */

static void
wrk_sched_replies(wrk_sched_t *s)
{
    wrk_link_t  *link, *next;

    for (link = s->replies.next; link != &s->replies; link = next) {
        next = link->next;
        wrk_out_reply(s, wrk_link_request(link));
    }
}


/* Whoever sends the answer in one piece need not be woken for each token of
 * it; its end is told at once, and what takes long is heard of. */
static int
wrk_sched_due(const wrk_sched_t *s, const wrk_request_t *r)
{
    return !(r->flags & SHR_REQ_WHOLE) || r->sink.waits_room || s->pending
           || r->first_ns == 0 || r->last_ns >= r->told_ns + WRK_WHOLE_NS;
}


static void
wrk_sched_publish(wrk_sched_t *s)
{
    wrk_link_t     *link;
    wrk_request_t  *r;

    for (link = s->running.next; link != &s->running; link = link->next) {
        r = wrk_link_request(link);

        if (r->sink.dirty && wrk_sched_due(s, r)) {
            r->told_ns = wrk_max(r->told_ns, r->last_ns);
            wrk_sink_publish(&r->sink);
        }
    }
}


int
wrk_sched_step(wrk_sched_t *s, uint64_t now_ns)
{
    s->again = 0;

    if (s->pending) {
        if (now_ns < s->pending_ns) {
            return 0;
        }

        s->pending = 0;
        wrk_batch_apply(s, now_ns);
    }

    wrk_sched_sift(s, now_ns);
    wrk_sched_replies(s);
    wrk_sched_admit(s, now_ns);
    wrk_batch_plan(s);

    if (s->nbatch != 0) {
        s->parked = 0;

        if (wrk_batch_run(s, now_ns)) {
            wrk_batch_apply(s, wrk_sched_now(s));
        }
    }

    wrk_sched_publish(s);

    if (!s->pending && (s->nbatch != 0 || s->again) && !wrk_sched_idle(s)) {
        return 1;
    }

    if (!s->pending && !s->parked) {
        s->parked = 1;
        eng_park(s->eng);
    }

    return 0;
}


uint64_t
wrk_sched_next_ns(const wrk_sched_t *s)
{
    return s->pending ? wrk_min(s->pending_ns, s->next_deadline)
                      : s->next_deadline;
}


int
wrk_sched_idle(const wrk_sched_t *s)
{
    return wrk_link_empty(&s->queue) && wrk_link_empty(&s->running)
           && wrk_link_empty(&s->replies);
}


void
wrk_sched_shutdown(wrk_sched_t *s)
{
    uint32_t     i;
    wrk_link_t  *lists[3] = { &s->running, &s->replies, &s->queue };

    wrk_req_fail(&s->err, SHR_E_SHUTDOWN, NULL,
                 "the worker of model \"%s\" ends", s->opts.name);

    for (i = 0; i < 3; i++) {
        while (!wrk_link_empty(lists[i])) {
            wrk_request_fail(s, wrk_link_request(lists[i]->next), &s->err);
        }
    }

    assert(wrk_sched_idle(s) && s->nused == 0 && s->nheld == 0);
}


void
wrk_sched_stats(const wrk_sched_t *s, uint64_t value[SHR_NCOUNTERS])
{
    uint32_t  i, used;

    used = s->eng->limits.kv_pages - eng_kv_free_pages(s->eng);
    used -= s->prefix != NULL ? wrk_prefix_idle(s->prefix) : 0;
    value[SHR_G_WAITING] = s->waiting;
    value[SHR_G_WAITING_TOKENS] = s->waiting_tokens;
    value[SHR_G_RUNNING] = s->nused + s->nheld;
    value[SHR_G_KV_USED] = used * s->opts.kv_page_bytes;
    value[SHR_G_KV_TOTAL] = s->eng->limits.kv_pages * s->opts.kv_page_bytes;
    value[SHR_G_CONTEXT] = s->ctx;

    for (i = SHR_C_REQUESTS; i < SHR_NCOUNTERS; i++) {
        value[i] = s->count[i];
    }
}
