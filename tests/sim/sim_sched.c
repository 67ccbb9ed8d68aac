/*
 * Simulation of the scheduler: random arrivals, cancellations, deadlines, slow
 * readers, too few KV pages, several choices, prompts that begin alike, on an
 * engine whose answers depend on every token in its cache, of a few keys that
 * share it and at several priorities.  For each seed:
 *
 *   - every request ends exactly once;
 *   - an answer is what the request gives alone, or, where it was cancelled or
 *     late, the beginning of that;
 *   - no frame is put without room, no rule of the engine is broken (both
 *     asserted in the fakes);
 *   - everything ends in a bounded number of steps;
 *   - all KV pages and all of the plan's memory are back;
 *   - where every request has a scope of its own, nothing is found in the
 *     prefix cache.
 *
 * usage: sim_sched [FIRST [COUNT]]; exit status 1 with the seed that failed.
 * At the end some seeds run on an engine that makes mistakes: if none of them
 * is noticed, the simulation itself is broken, and that is a failure too.
 */

#define SINK_TEXT_MAX      1024u
#define SINK_CHOICES       8u
#define SINK_LOGPROBS_MAX  1024u
#define SINK_IDS_MAX       1024u

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/sched/fake_run.h"


#define SIM_REQUESTS   40u
#define SIM_STEPS_MAX  200000u
#define SIM_CANARIES   20u
#define SIM_BASES      3u       /* beginnings that prompts share */
#define SIM_TEXT       256u


typedef struct {
    block_t   block;
    sink_t    alone, sink;
    uint32_t  arrives, cancels;     /* step; cancels 0: never */
    uint32_t  drain;                /* bytes read per step */
    uint32_t  asleep;               /* reads nothing before this step */
    int       sent;
} sim_request_t;

typedef struct {
    uint64_t       rng;
    uint64_t       seed;
    tok_t         *tok;             /* shared by all seeds */
    chat_template_t *tmpl;
    run_t          run, big;
    uint64_t       total[SHR_NCOUNTERS];
    uint64_t       paused;          /* a sink was told to want room */
    uint64_t       alone;           /* requests with their own scopes */
    int            copies;          /* the model repeats itself */
    uint32_t       scopes;          /* of this seed; 0: one each */
    char           bases[SIM_BASES][SIM_TEXT];
    uint32_t       n;
    sim_request_t  requests[SIM_REQUESTS];
} sim_t;


static uint32_t
sim_rnd(sim_t *s, uint32_t n)
{
    s->rng = s->rng * 6364136223846793005ull + 1442695040888963407ull;

    return (uint32_t) (s->rng >> 33) % n;
}


static void
sim_open(sim_t *s, run_t *r, uint32_t seqs, uint32_t ctx, uint32_t batch,
    uint32_t pages, uint32_t queue)
{
    r->tok = s->tok;
    r->tmpl = s->tmpl;
    fake_create(&r->fake, &r->eng, FAKE_TOK_N, seqs, ctx, batch, pages);
    r->fake.copies = s->copies;
    r->fake.ns_step = 1000000;
    r->fake.ns_token = 10000 * sim_rnd(s, 100);
    wrk_sched_opts_init(&r->opts);
    r->opts.sequences = seqs;
    r->opts.request_bytes_max = 1 << 16;
    r->opts.queue_requests = queue;
    r->opts.kv_page_bytes = 1;
    r->opts.prefix_cache = r != &s->big && sim_rnd(s, 8) != 0;
    r->opts.speculate = r != &s->big && sim_rnd(s, 2);
    r->opts.prefix_hash_bits = sim_rnd(s, 4) ? 64 : sim_rnd(s, 4);
    r->opts.gap_ms = 5 + sim_rnd(s, 100);
    r->opts.seed = 1;
    r->opts.clock = fake_clock;
    r->opts.clock_data = &r->fake;
    r->sched = wrk_sched_create(&r->opts, &r->eng, r->tok, r->tmpl, NULL);
    assert(r->sched != NULL);
}


static void
sim_close(run_t *r)
{
    uint64_t  counts[SHR_NCOUNTERS];

    assert(wrk_sched_idle(r->sched));
    wrk_sched_stats(r->sched, counts);
    assert(counts[SHR_G_KV_USED] == 0);
    wrk_sched_destroy(r->sched);
    assert(eng_kv_free_pages(&r->eng) == r->eng.limits.kv_pages);
    eng_destroy(&r->eng);
}


/* Letters; many begin like others. */
static void
sim_text(sim_t *s, char *text, uint32_t n)
{
    uint32_t  i, same, base;

    base = sim_rnd(s, SIM_BASES);
    same = sim_rnd(s, 4) ? sim_rnd(s, n + 1) : 0;

    for (i = 0; i < n; i++) {
        text[i] = i < same ? s->bases[base][i] : (char) ('a' + sim_rnd(s, 26));
    }
}


static void
sim_block(sim_t *s, block_t *b, uint32_t ctx)
{
    char        text[SIM_TEXT];
    uint32_t    j, n, max, prompts;
    shr_req_t  *f = &b->fixed;

    block_fields(f, SHR_TASK_COMPLETE);
    prompts = s->scopes != 0 && sim_rnd(s, 8) == 0 ? 2 : 1;
    f->scope = s->scopes != 0 ? sim_rnd(s, s->scopes) : ++s->alone;
    max = 1 + sim_rnd(s, sim_rnd(s, 3) ? 20 : ctx / 2);
    n = 1 + sim_rnd(s, sim_rnd(s, 3) ? 20 : ctx - max);
    n = n < sizeof(text) ? n : sizeof(text);
    f->fair = sim_rnd(s, 3);
    f->priority = sim_rnd(s, 4) ? 0 : (int32_t) sim_rnd(s, 17)
                                      + SHR_PRIORITY_MIN;
    f->flags = SHR_REQ_SEED;
    f->flags |= sim_rnd(s, 3) ? SHR_REQ_IGNORE_EOS : 0;
    f->seed = s->rng;
    f->n = sim_rnd(s, 4) == 0 ? 1 + sim_rnd(s, 4) : 1;
    f->max_tokens = max;
    f->temperature = (float) sim_rnd(s, 3) * 0.7f;
    f->top_k = sim_rnd(s, 2) ? (int32_t) sim_rnd(s, 30) : 0;
    f->top_p = sim_rnd(s, 2) ? 0.9f : 1;
    f->presence_penalty = sim_rnd(s, 3) ? 0 : 1;

    if (sim_rnd(s, 5) == 0) {
        f->flags |= SHR_REQ_LOGPROBS;
        f->top_logprobs = sim_rnd(s, 4);
        f->n = 1;
        prompts = 1;
    }

    if (sim_rnd(s, 6) == 0) {
        f->flags |= SHR_REQ_ECHO;
        f->max_tokens = sim_rnd(s, max < 3 ? max + 1 : 3);
    }

    block_begin(b);

    for (j = 0; j < prompts; j++) {
        sim_text(s, text, n);
        shr_req_add(&b->w, SHR_R_PROMPT, text, n);
    }

    if (sim_rnd(s, 4) == 0) {
        shr_req_add(&b->w, SHR_R_STOP, "e", 1);
        shr_req_add(&b->w, SHR_R_STOP, "th", 2);
    }

    block_end(b);
}


static void
sim_request(sim_t *s, sim_request_t *q, uint32_t ctx, int faults)
{
    shr_req_t  *f;

    sim_block(s, &q->block, ctx);
    run_one(&s->big, &q->block, &q->alone);
    assert(q->alone.error == 0);

    sink_init(&q->sink, sim_rnd(s, 2) ? 1 << 16 : 6144 + sim_rnd(s, 4096));
    q->arrives = sim_rnd(s, 200);
    q->cancels = 0;
    if (faults && sim_rnd(s, 5) == 0) {
        /* soon: few requests are in their prefill for long */
        q->cancels = 1 + sim_rnd(s, sim_rnd(s, 2) ? 12 : 400);
    }
    q->drain = sim_rnd(s, 3) ? 1 << 16 : 64 + sim_rnd(s, 400);
    q->asleep = sim_rnd(s, 4) ? 0 : sim_rnd(s, 1000);
    q->sent = 0;

    if (faults && sim_rnd(s, 6) == 0) {
        f = (shr_req_t *) q->block.buf;
        f->deadline_ns = 1000000u * (1 + sim_rnd(s, 1000));
        f->queue_deadline_ns = 1000000u * (1 + sim_rnd(s, 500));
    }
}


/* The client's side of a step. */
static void
sim_client(sim_t *s, sim_request_t *q, uint32_t step)
{
    sink_t  *k = &q->sink;

    if (!q->sent && q->arrives <= step) {
        q->sent = 1;
        run_submit(&s->run, &q->block, k);
    }

    if (k->done || !q->sent) {
        return;
    }

    if (q->cancels != 0 && q->arrives + q->cancels <= step) {
        k->cancelled = 1;
    }

    if (q->asleep <= step) {
        k->unread -= k->unread < q->drain ? k->unread : q->drain;
    }
}


/* 0: what it should be. */
static int
sim_compare(const sim_t *s, const sim_request_t *q)
{
    int                   whole;
    uint32_t              i;
    const sink_t         *k = &q->sink, *a = &q->alone;
    const sink_choice_t  *c, *w;

    (void) s;
    whole = !k->cancelled && k->error == 0;

    for (i = 0; i < SINK_CHOICES; i++) {
        c = &k->choices[i];
        w = &a->choices[i];

        if (c->len > w->len || memcmp(c->text, w->text, c->len) != 0
            || (c->reason != 0 && (c->len != w->len || c->reason != w->reason
                                   || c->tokens != w->tokens))
            || (whole && c->reason != w->reason))
        {
            return -1;
        }
    }

    if (whole && (k->nlogprobs != a->nlogprobs
                  || memcmp(k->logprobs, a->logprobs,
                            k->nlogprobs * sizeof(k->logprobs[0])) != 0))
    {
        return -1;
    }

    if (k->error && k->failed.code != SHR_E_DEADLINE
        && k->failed.code != SHR_E_OVERLOADED)
    {
        return -1;
    }

    return 0;
}


static void
sim_random(sim_t *s, uint64_t seed)
{
    uint32_t  i, j;

    s->seed = seed;
    /* neighbours must not draw alike (the mixing step of splitmix64) */
    s->rng = seed * 0x9e3779b97f4a7c15ull;
    s->rng = (s->rng ^ s->rng >> 30) * 0xbf58476d1ce4e5b9ull;
    s->n = 5 + sim_rnd(s, SIM_REQUESTS - 5);
    s->scopes = sim_rnd(s, 4);
    s->copies = sim_rnd(s, 2) != 0;

    for (i = 0; i < SIM_BASES; i++) {
        for (j = 0; j < SIM_TEXT; j++) {
            s->bases[i][j] = (char) ('a' + sim_rnd(s, 26));
        }
    }
}


/* The number of requests that went wrong. */
static uint32_t
sim_seed(sim_t *s, uint64_t seed, uint32_t corrupt)
{
    uint32_t  i, step, ctx, pages, seqs, left, wrong;
    uint64_t  counts[SHR_NCOUNTERS];

    sim_random(s, seed);
    ctx = 64 + FAKE_PAGE * sim_rnd(s, 20);
    seqs = 1 + sim_rnd(s, 8);
    pages = ctx / FAKE_PAGE + sim_rnd(s, ctx / FAKE_PAGE * seqs);
    sim_open(s, &s->big, 8, ctx, 64, 8 * (ctx / FAKE_PAGE + 1), 64);
    sim_open(s, &s->run, seqs, ctx, seqs + sim_rnd(s, 64), pages,
             1 + sim_rnd(s, SIM_REQUESTS));

    for (i = 0; i < s->n; i++) {
        sim_request(s, &s->requests[i], ctx, seed % 4 != 0);
    }

    s->run.fake.corrupt = corrupt;

    for (step = 0, left = s->n; left != 0; step++) {
        if (step == SIM_STEPS_MAX) {
            fprintf(stderr, "seed %llu: %u of %u requests never end\n",
                    (unsigned long long) seed, left, s->n);
            exit(1);
        }

        for (i = 0, left = 0; i < s->n; i++) {
            s->paused += s->requests[i].sink.want_room != 0;
            sim_client(s, &s->requests[i], step);
            left += !s->requests[i].sink.done;
        }

        if (!run_step(&s->run)) {
            s->run.fake.now_ns += 500000;
        }
    }

    for (i = 0, wrong = 0; i < s->n; i++) {
        wrong += sim_compare(s, &s->requests[i]) != 0;
    }

    wrk_sched_stats(s->run.sched, counts);
    assert(counts[SHR_G_RUNNING] == 0 && counts[SHR_G_WAITING] == 0);
    assert(counts[SHR_G_WAITING_TOKENS] == 0);
    assert(s->scopes != 0 || counts[SHR_C_CACHED_TOKENS] == 0);

    for (i = SHR_C_REQUESTS; i < SHR_NCOUNTERS; i++) {
        s->total[i] += counts[i];
    }

    sim_close(&s->run);
    sim_close(&s->big);

    return wrong;
}


/* A simulation in which nothing happens finds nothing. */
static int
sim_covers(const sim_t *s)
{
    size_t            i;
    static const int  must[] = {
        SHR_C_CANCELLED_WAITING, SHR_C_CANCELLED_PREFILL,
        SHR_C_CANCELLED_DECODE, SHR_C_PREEMPTED, SHR_C_SHED, SHR_C_EXPIRED,
        SHR_C_CACHED_TOKENS, SHR_C_DRAFTED, SHR_C_DRAFTS_RIGHT
    };

    for (i = 0; i < sizeof(must) / sizeof(must[0]); i++) {
        printf("%llu ", (unsigned long long) s->total[must[i]]);

        if (s->total[must[i]] == 0) {
            fprintf(stderr, "counter %d stayed 0\n", must[i]);
            return 0;
        }
    }

    printf("%llu (cancelled waiting, in prefill, in decode; preempted; shed; "
           "late; cached, guessed, rightly guessed tokens; turns without "
           "room)\n",
           (unsigned long long) s->paused);

    return s->paused != 0;
}


/* 0: all of them were right, and the canaries were not. */
static int
sim_seeds(uint64_t first, uint64_t count)
{
    int          rc;
    uint32_t     noticed;
    uint64_t     i;
    sim_t       *s;
    chat_err_t   err;

    s = calloc(1, sizeof(*s));
    assert(s != NULL);
    s->tok = fake_tok_open();
    s->tmpl = chat_compile(NULL, 0, &err);
    assert(s->tok != NULL && s->tmpl != NULL);
    rc = 0;

    for (i = first; i < first + count && rc == 0; i++) {
        if (sim_seed(s, i, 0) != 0) {
            fprintf(stderr, "seed %llu: an answer depends on the batch\n",
                    (unsigned long long) i);
            rc = 1;
        }
    }

    if (rc == 0 && count >= SIM_CANARIES && !sim_covers(s)) {
        rc = 1;
    }

    for (i = 0, noticed = 0; i < SIM_CANARIES; i++) {
        noticed += sim_seed(s, i, 97) != 0;
    }

    if (noticed == 0) {
        fprintf(stderr, "no canary was noticed\n");
        rc = 1;
    }

    chat_free(s->tmpl);
    tok_close(s->tok);
    free(s);

    return rc;
}


#ifndef SIM_NO_MAIN

/* Decimal digits only; 0 for anything else. */
static uint64_t
sim_number(const char *text)
{
    uint64_t  n;

    for (n = 0; *text >= '0' && *text <= '9' && n < 1000000000000; text++) {
        n = n * 10 + (uint64_t) (*text - '0');
    }

    return n;
}


int
main(int argc, char **argv)
{
    uint64_t  first, count;

    first = argc > 1 ? sim_number(argv[1]) : 1;
    count = argc > 2 ? sim_number(argv[2]) : 1000;

    if (sim_seeds(first, count) != 0) {
        return 1;
    }

    printf("sim_sched: %llu seeds from %llu, all right\n",
           (unsigned long long) count, (unsigned long long) first);

    return 0;
}

#endif
