/*
 * The encoder scheduler's frame: memory plan, the order of things in a step,
 * figures.
 */

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "worker/wrk_esched_int.h"


#define WRK_ESCHED_SPARE       64u          /* requests that run, at least */
#define WRK_ESCHED_SMALL       1024u        /* bytes of a request, besides */
#define WRK_ESCHED_TOKENS_MAX  (64u << 20)
#define WRK_ESCHED_ROWS_MAX    (512u << 20)


static int wrk_esched_plan_memory(wrk_esched_t *s);


void
wrk_esched_opts_init(wrk_esched_opts_t *opts)
{
    memset(opts, 0, sizeof(*opts));
    opts->queue_requests = 256;
    opts->name = "model";
}


static uint64_t
wrk_esched_now(const wrk_esched_t *s)
{
    struct timespec  ts;

    if (s->opts.clock != NULL) {
        return s->opts.clock(s->opts.clock_data);
    }

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}


wrk_esched_t *
wrk_esched_create(const wrk_esched_opts_t *opts, const wrk_eeng_t *eng,
    const tok_t *tok)
{
    wrk_esched_t           *s;
    wrk_esched_opts_t      *o;
    const wrk_eeng_info_t  *info;

    info = &eng->info;
    assert(info->width > 0 && info->vocab > 0 && info->max_seqs > 0);
    assert(info->max_seq > 0 && info->max_tokens >= info->max_seq);

    s = calloc(1, sizeof(*s));

    if (s == NULL) {
        return NULL;
    }

    s->opts = *opts;
    s->eng = eng;
    s->tok = tok;
    o = &s->opts;
    s->max_seq = o->context != 0 ? wrk_min(o->context, info->max_seq)
                                 : info->max_seq;
    o->batch = o->batch != 0 ? wrk_min(o->batch, info->max_tokens)
                             : info->max_tokens;
    o->batch = wrk_max(o->batch, s->max_seq);
    o->sequences = o->sequences != 0 ? wrk_min(o->sequences, info->max_seqs)
                                     : info->max_seqs;
    o->queue_requests = wrk_min(o->queue_requests, WRK_SCHED_QUEUE_MAX);
    s->next_deadline = UINT64_MAX;

    wrk_link_init(&s->free);
    wrk_link_init(&s->queue);
    wrk_link_init(&s->running);
    s->scratch = tok_scratch_new();

    if (s->scratch == NULL || wrk_esched_plan_memory(s) != 0) {
        wrk_esched_destroy(s);
        return NULL;
    }

    return s;
}


static int
wrk_esched_plan_memory(wrk_esched_t *s)
{
    size_t    bytes, tokens, row, rows;
    uint32_t  i;

    s->nrequests = s->opts.queue_requests + s->opts.sequences
                   + WRK_ESCHED_SPARE;
    s->ids_cap = wrk_min((size_t) SHR_INPUTS_MAX * s->max_seq,
                         (size_t) WRK_EREQ_TOKENS_MAX);

    /* Twice, for a buddy's block may be twice as large as what is in it. */
    tokens = s->opts.queue_tokens != 0
             ? s->opts.queue_tokens
             : (size_t) s->opts.queue_requests * s->max_seq;
    tokens = wrk_min(tokens + 2 * s->ids_cap, (size_t) WRK_ESCHED_TOKENS_MAX);
    row = s->eng->info.width * sizeof(float);
    rows = s->nrequests * wrk_max(row, (size_t) WRK_ESCHED_WINDOW_BYTES);
    rows = wrk_min(rows, (size_t) WRK_ESCHED_ROWS_MAX);
    bytes = 2 * (tokens * sizeof(uint32_t) + rows
                 + s->nrequests * (size_t) WRK_ESCHED_SMALL);

    s->requests = wrk_mem_map(s->nrequests * sizeof(wrk_ereq_t));
    s->ids = wrk_mem_map(s->ids_cap * sizeof(uint32_t));
    s->out = wrk_mem_map(s->opts.sequences * row);
    s->members = calloc(s->opts.sequences, sizeof(wrk_emember_t));
    s->keys = calloc(s->opts.sequences, sizeof(uint64_t));
    s->batch_ids = calloc(s->opts.batch, sizeof(uint32_t));
    s->batch_types = calloc(s->opts.batch, 1);
    s->batch_at = calloc(s->opts.sequences + 1, sizeof(uint32_t));

    if (s->requests == NULL || s->ids == NULL || s->out == NULL
        || s->members == NULL || s->keys == NULL || s->batch_ids == NULL
        || s->batch_types == NULL || s->batch_at == NULL
        || wrk_mem_init(&s->mem, bytes) != 0
        || wrk_fair_init(&s->fair, s->nrequests) != 0)
    {
        return -1;
    }

    for (i = 0; i < s->nrequests; i++) {
        wrk_link_append(&s->free, &s->requests[i].link);
    }

    return 0;
}


void
wrk_esched_destroy(wrk_esched_t *s)
{
    if (s == NULL) {
        return;
    }

    assert(wrk_esched_idle(s));

    wrk_mem_unmap(s->requests, s->nrequests * sizeof(wrk_ereq_t));
    wrk_mem_unmap(s->ids, s->ids_cap * sizeof(uint32_t));
    wrk_mem_unmap(s->out, s->opts.sequences * s->eng->info.width
                          * sizeof(float));

    if (s->mem.base != NULL) {
        wrk_mem_destroy(&s->mem);
    }

    wrk_fair_destroy(&s->fair);
    free(s->members);
    free(s->keys);
    free(s->batch_ids);
    free(s->batch_types);
    free(s->batch_at);
    tok_scratch_free(s->scratch);
    free(s);
}


/* --- a step ------------------------------------------------------------- */

/* Those that had no room and may have some now. */
static void
wrk_esched_resume(wrk_esched_t *s)
{
    wrk_link_t  *link, *next;

    for (link = s->running.next; link != &s->running; link = next) {
        next = link->next;

        if (wrk_link_ereq(link)->sink.waits_room) {
            wrk_eout_send(s, wrk_link_ereq(link));
        }
    }
}


/* START of those that have just begun. */
static void
wrk_esched_publish(wrk_esched_t *s)
{
    wrk_link_t  *link;
    wrk_ereq_t  *r;

    for (link = s->running.next; link != &s->running; link = link->next) {
        r = wrk_link_ereq(link);

        if (r->sink.dirty) {
            wrk_sink_publish(&r->sink);
        }
    }
}


int
wrk_esched_step(wrk_esched_t *s, uint64_t now_ns)
{
    s->again = 0;

    if (s->pending && now_ns >= s->pending_ns) {
        wrk_ebatch_apply(s, now_ns);
        s->again = 1;
    }

    wrk_esched_sift(s, now_ns);
    wrk_esched_resume(s);

    if (!s->pending) {
        wrk_ebatch_plan(s, now_ns);

        if (s->nmembers != 0) {
            s->parked = 0;
            s->again = 1;

            if (wrk_ebatch_run(s, now_ns)) {
                wrk_ebatch_apply(s, wrk_esched_now(s));
            }
        }
    }

    wrk_esched_publish(s);

    if (!s->pending && s->again && !wrk_esched_idle(s)) {
        return 1;
    }

    if (!s->pending && !s->parked) {
        s->parked = 1;
        s->eng->ops->park(s->eng->ctx);
    }

    return 0;
}


uint64_t
wrk_esched_next_ns(const wrk_esched_t *s)
{
    uint64_t  next;

    next = s->pending ? s->pending_ns : wrk_ebatch_due(s);

    return wrk_min(next, s->next_deadline);
}


int
wrk_esched_idle(const wrk_esched_t *s)
{
    return wrk_link_empty(&s->queue) && wrk_link_empty(&s->running);
}


void
wrk_esched_shutdown(wrk_esched_t *s)
{
    uint32_t     i;
    wrk_link_t  *lists[2] = { &s->running, &s->queue };

    wrk_req_fail(&s->err, SHR_E_SHUTDOWN, NULL,
                 "the worker of model \"%s\" ends", s->opts.name);

    for (i = 0; i < 2; i++) {
        while (!wrk_link_empty(lists[i])) {
            wrk_ereq_fail(s, wrk_link_ereq(lists[i]->next));
        }
    }

    assert(wrk_esched_idle(s));
}


uint32_t
wrk_esched_context(const wrk_esched_t *s)
{
    return s->max_seq;
}


void
wrk_esched_stats(const wrk_esched_t *s, uint64_t value[SHR_NCOUNTERS])
{
    uint32_t  i;

    value[SHR_G_WAITING] = s->waiting;
    value[SHR_G_WAITING_TOKENS] = s->waiting_tokens;
    value[SHR_G_RUNNING] = s->nrunning;
    value[SHR_G_CONTEXT] = s->max_seq;

    for (i = SHR_C_REQUESTS; i < SHR_NCOUNTERS; i++) {
        value[i] = s->count[i];
    }
}
