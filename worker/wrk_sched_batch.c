/*
 * One step: which tokens of which sequences go into the batch, the engine's
 * call, what its results mean.
 *
 * Every running sequence that has room for its next token gives one token;
 * what is left of the token budget goes to prompts, in chunks, the oldest
 * first.  While streams run, a chunk is no larger than fits their bound for
 * the gap between two tokens, by what earlier steps have cost.
 */

#include <assert.h>

#include "worker/wrk_sched_int.h"


#define WRK_GAP_ALONE      4.0      /* bounds, while no stream runs */
#define WRK_COST_WEIGHT    0.25     /* of the newest step in the averages */
#define WRK_OVER_MIN       1.5      /* times its expected cost that a step may
                                       take within the bound */
#define WRK_OVER_MAX       3.0
#define WRK_OVER_WEIGHT    0.01     /* by which it comes down again */
#define WRK_CHUNK_FIRST    64u      /* while no cost is known */


static void wrk_plan_decodes(wrk_sched_t *s);
static void wrk_plan_prompts(wrk_sched_t *s);
static void wrk_plan_room(wrk_sched_t *s);


/* Tokens to compute before the choice can end: a completion of nothing but an
 * echo needs no logits after its last token. */
static uint32_t
wrk_seat_goal(const wrk_seat_t *seat)
{
    if (seat->max_tokens != 0) {
        return seat->ntokens;
    }

    if (seat->request->flags & SHR_REQ_LOGPROBS) {
        return seat->nprompt - 1;
    }

    return 0;
}


void
wrk_batch_plan(wrk_sched_t *s)
{
    size_t          reserve, room;
    wrk_link_t     *link;
    wrk_request_t  *r;

    s->nbatch = 0;
    s->nrows = 0;
    s->ndecode = 0;
    s->nmembers = 0;
    s->nwaits = 0;

    for (link = s->running.next; link != &s->running; link = link->next) {
        r = wrk_link_request(link);
        reserve = wrk_out_end_room(r);
        room = wrk_sink_room(&r->sink);
        r->room_seen = room;
        r->room = room > reserve ? room - reserve : 0;
        r->short_room = 0;
    }

    wrk_kv_starts(s);
    wrk_plan_decodes(s);
    wrk_plan_prompts(s);
    wrk_plan_room(s);

    /* whom they wait for has just been paused */
    s->again |= s->nbatch == 0 && s->nwaits != 0;
}


/* --- the batch ---------------------------------------------------------- */

/* Adds the next n tokens of a seat; the last nrows of them want logits. */
static void
wrk_batch_add(wrk_sched_t *s, wrk_seat_t *seat, uint32_t n, uint32_t nrows)
{
    uint32_t    i;
    eng_tok_t  *t;

    assert(n > 0 && nrows <= n && seat->batch_n == 0);
    assert(seat->computed + n <= seat->reserved);

    seat->batch_n = n;
    seat->nrows = nrows;
    seat->row_at = s->nbatch + n - nrows;
    seat->forced_at = s->nrows;

    for (i = 0; i < n; i++) {
        t = &s->batch[s->nbatch++];
        t->token = seat->tokens[seat->computed + i];
        t->seq = seat->seq;
        t->pos = seat->computed + i;
        t->want_logits = i + nrows >= n;
    }

    s->nrows += nrows;
    s->members[s->nmembers++] = (uint32_t) (seat - s->seats);
}


int
wrk_seat_promise(wrk_sched_t *s, wrk_seat_t *seat)
{
    size_t          need;
    wrk_request_t  *r;

    r = seat->request;
    need = wrk_out_token_room(s, seat);

    if (need > r->room) {
        r->short_room = 1;
        return 0;
    }

    r->room -= need;

    return 1;
}


/* What must be sent before the seat goes on.  1: it can. */
static int
wrk_seat_ready(wrk_sched_t *s, wrk_seat_t *seat)
{
    if (seat->nfound != 0) {
        wrk_beam_speak(s, seat);
        return 0;
    }

    if (wrk_seat_scores(seat)) {
        if (seat->echo_at != 0) {
            return 1;
        }

        /* nothing comes before the first token, so no logits for it */
        if (!wrk_seat_promise(s, seat)) {
            return 0;
        }

        wrk_out_echo_token(s, seat, NULL);

    } else if (seat->echo_at < seat->nprompt) {
        wrk_out_echo(s, seat);

        if (seat->echo_at < seat->nprompt) {
            return 0;
        }
    }

    if (seat->max_tokens == 0 && seat->echo_at == seat->nprompt) {
        wrk_out_finish(s, seat, SHR_FINISH_LENGTH);
        return 0;
    }

    return 1;
}


/* Sequences that need one token only.  Iterates over order[] while seats may
 * leave it. */
static void
wrk_plan_decodes(wrk_sched_t *s)
{
    uint32_t     i, used;
    wrk_seat_t  *seat;

    wrk_spec_begin(s);

    for (i = 0; i < s->nused; i += used == s->nused) {
        used = s->nused;
        seat = &s->seats[s->order[i]];

        if (seat->state != WRK_SEAT_RUN) {
            continue;
        }

        seat->paused = !wrk_seat_ready(s, seat);

        if (seat->state != WRK_SEAT_RUN || seat->paused
            || wrk_seat_scores(seat)
            || seat->ntokens - seat->computed != 1)
        {
            continue;
        }

        if (s->nbatch == s->opts.batch || s->nrows == s->eng->limits.max_logits)
        {
            break;
        }

        if (!wrk_seat_promise(s, seat)) {
            seat->paused = 1;
            continue;
        }

        if (wrk_kv_grow(s, i) == 0) {
            s->ndecode += seat->ntokens > seat->nprompt;
            seat->ndraft = wrk_spec_draft(s, seat);
            wrk_batch_add(s, seat, 1 + seat->ndraft, 1 + seat->ndraft);
        }
    }
}


/* Prompt tokens that this step can take within the bound in time. */
static uint32_t
wrk_plan_budget(const wrk_sched_t *s)
{
    double    ns, n;
    uint32_t  left;

    left = s->opts.batch - s->nbatch;

    if (s->eng->ops->step_tokens != NULL) {
        return left;
    }

    if (s->cost_token <= 0) {
        return wrk_min(left, WRK_CHUNK_FIRST);
    }

    ns = (double) s->opts.gap_ms * 1e6;
    ns = s->ndecode != 0
         ? ns / wrk_max(s->cost_over, WRK_OVER_MIN) - s->cost_decode
         : ns * WRK_GAP_ALONE;
    n = wrk_max(ns / s->cost_token, (double) WRK_CHUNK_MIN);

    return n < left ? (uint32_t) n : left;
}


/*
 * A chunk of at most n tokens whose prompt tokens are echoed with their log
 * probabilities: a row of logits and room for each.
 */
static void
wrk_plan_scored(wrk_sched_t *s, wrk_seat_t *seat, uint32_t n)
{
    uint32_t  i, from, nrows;

    /* position p gives the probabilities of token p + 1 */
    from = wrk_max(seat->computed, seat->echo_at - 1);
    nrows = 0;

    for (i = 0; i < n; i++) {
        if (seat->computed + i < from) {
            continue;
        }

        if (s->nrows + nrows == s->eng->limits.max_logits
            || !wrk_seat_promise(s, seat))
        {
            break;
        }

        nrows++;
    }

    if (i != 0) {
        wrk_batch_add(s, seat, i, nrows);

    } else {
        seat->paused = 1;
    }
}


static void
wrk_plan_prompt(wrk_sched_t *s, wrk_seat_t *seat, uint32_t n)
{
    uint32_t  last;

    n = wrk_min(n, wrk_seat_goal(seat) - seat->computed);

    if (wrk_seat_scores(seat)) {
        wrk_plan_scored(s, seat, n);
        return;
    }

    last = seat->computed + n == seat->ntokens;

    if (last && (s->nrows == s->eng->limits.max_logits
                 || !wrk_seat_promise(s, seat)))
    {
        /* all but the one that gives a new token */
        last = 0;
        n--;
    }

    if (n != 0) {
        wrk_batch_add(s, seat, n, last);
    }
}


static int
wrk_seat_has_prompt(const wrk_seat_t *seat)
{
    return seat->state == WRK_SEAT_RUN && !seat->paused && seat->batch_n == 0
           && seat->computed < wrk_seat_goal(seat)
           && (seat->ntokens - seat->computed > 1 || wrk_seat_scores(seat));
}


/* The oldest prompt gets three quarters while others wait behind it, so that
 * a short one is not held up by a long one for all of its length. */
static void
wrk_plan_prompts(wrk_sched_t *s)
{
    uint32_t     i, n, others, budget;
    wrk_seat_t  *seat;

    for (i = 0, others = 0; i < s->nused; i++) {
        others += wrk_seat_has_prompt(&s->seats[s->order[i]]);
    }

    if (others == 0) {
        return;
    }

    budget = s->nbatch + wrk_plan_budget(s);

    for (i = 0; i < s->nused && s->nbatch < budget; i++) {
        seat = &s->seats[s->order[i]];

        if (!wrk_seat_has_prompt(seat)) {
            continue;
        }

        n = budget - s->nbatch;
        others--;
        n = others > 0 && n >= 4 ? n - n / 4 : n;
        wrk_plan_prompt(s, seat, n);
    }
}


/* Tells the sinks who waits for room; room that came meanwhile is work. */
static void
wrk_plan_room(wrk_sched_t *s)
{
    wrk_link_t     *link;
    wrk_request_t  *r;

    for (link = s->running.next; link != &s->running; link = link->next) {
        r = wrk_link_request(link);

        if (r->short_room == r->sink.waits_room) {
            continue;
        }

        wrk_sink_want_room(&r->sink, r->short_room);

        if (r->sink.waits_room && wrk_sink_room(&r->sink) > r->room_seen) {
            s->again = 1;
        }
    }
}


/* --- run and apply ------------------------------------------------------ */

/*
 * How far steps exceed what they were expected to take: up at once, down
 * slowly.  A machine that others use takes its time from some steps, and the
 * bound is for the worst of them.
 */
static void
wrk_batch_over(wrk_sched_t *s, double ns, uint32_t prompt)
{
    double  over;

    if (s->ndecode == 0 || prompt < WRK_CHUNK_MIN || s->cost_token <= 0) {
        return;
    }

    over = ns / (s->cost_decode + prompt * s->cost_token);
    over = wrk_min(over, WRK_OVER_MAX);
    s->cost_over += (over - s->cost_over)
                    * (over > s->cost_over ? 1 : WRK_OVER_WEIGHT);
}


static void
wrk_batch_cost(wrk_sched_t *s, double ns)
{
    double    token;
    uint32_t  prompt;

    prompt = s->nbatch - s->ndecode;

    if (s->ndrafts != 0) {
        /* neither the one nor the other */
        return;
    }

    if (prompt == 0) {
        s->cost_decode += (ns - s->cost_decode)
                          * (s->cost_decode > 0 ? WRK_COST_WEIGHT : 1);
        return;
    }

    wrk_batch_over(s, ns, prompt);

    if (s->ndecode != 0) {
        ns = wrk_max(ns - s->cost_decode, ns / s->nbatch);
    }

    token = ns / prompt;

    /* A few tokens say little of the cost of many. */
    if (prompt >= WRK_CHUNK_MIN || token < s->cost_token
        || s->cost_token <= 0)
    {
        s->cost_token += (token - s->cost_token)
                         * (s->cost_token > 0 ? WRK_COST_WEIGHT : 1);
    }
}


static void
wrk_batch_failed(wrk_sched_t *s, int rc)
{
    uint32_t     i;
    wrk_seat_t  *seat;

    wrk_req_fail(&s->err, SHR_E_INTERNAL, NULL,
                 "the engine failed (code %d)", rc);

    for (i = 0; i < s->nmembers; i++) {
        seat = &s->seats[s->members[i]];

        if (seat->batch_n != 0) {
            wrk_request_fail(s, seat->request, &s->err);
        }
    }
}


int
wrk_batch_run(wrk_sched_t *s, uint64_t now_ns)
{
    int       rc;
    uint64_t  start;

    assert(s->nbatch > 0 && s->nbatch <= s->opts.batch);

    s->count[SHR_C_STEPS]++;
    s->count[SHR_C_STEP_TOKENS] += s->nbatch;

    if (s->eng->ops->step_tokens != NULL) {
        s->pending_ns = 0;
        rc = s->eng->ops->step_tokens(s->eng->ctx, s->batch, s->nbatch,
                                      s->forced, now_ns, &s->pending_ns);
        s->pending = rc == 0 && s->pending_ns > now_ns;

    } else {
        start = wrk_sched_now(s);
        rc = eng_step(s->eng, s->batch, s->nbatch, s->rows);
        wrk_batch_cost(s, (double) (wrk_sched_now(s) - start));
    }

    if (rc != 0) {
        wrk_batch_failed(s, rc);
        return 0;
    }

    return !s->pending;
}


/* The token that follows; the row is NULL when the engine picked it. */
static void
wrk_seat_sample(wrk_sched_t *s, wrk_seat_t *seat, const float *row,
    uint64_t now_ns)
{
    uint32_t              id;
    wrk_request_t        *r;
    wrk_sample_params_t   p;

    r = seat->request;

    if (row == NULL) {
        id = s->forced[seat->forced_at + seat->nrows - 1];

    } else {
        p = r->sample;
        p.choice = seat->choice % r->n;
        id = wrk_sample(s->sampler, &p, row, seat->tokens, seat->nprompt,
                        seat->ntokens);
    }

    if (id >= s->vocab) {
        wrk_req_fail(&s->err, SHR_E_INTERNAL, NULL,
                     "the model's logits are not finite");
        wrk_request_fail(s, r, &s->err);
        return;
    }

    r->first_ns = r->first_ns != 0 ? r->first_ns : now_ns;
    r->last_ns = now_ns;
    r->completion_tokens++;
    s->count[SHR_C_TOKENS]++;
    wrk_fair_charge(&r->fair, 1);
    wrk_out_token(s, seat, id, row);
}


/* The token that follows, and as many more as were guessed right: rows has one
 * for each. */
static void
wrk_seat_accept(wrk_sched_t *s, wrk_seat_t *seat, const float **rows,
    uint64_t now_ns)
{
    uint32_t  i, k, draft;

    k = seat->ndraft;
    seat->ndraft = 0;

    for (i = 0; /* void */; i++) {
        /* stands where the token is put that it is compared with */
        draft = seat->tokens[seat->ntokens];
        wrk_seat_sample(s, seat, rows != NULL ? rows[i] : NULL, now_ns);

        if (seat->state != WRK_SEAT_RUN) {
            return;
        }

        if (i == k || seat->tokens[seat->ntokens - 1] != draft) {
            break;
        }

        seat->computed++;
        wrk_kv_computed(s, seat);
    }

    if (k != 0) {
        wrk_kv_trim(s, seat);
        wrk_spec_learn(s, seat, k, i);
    }
}


static void
wrk_seat_apply(wrk_sched_t *s, wrk_seat_t *seat, uint64_t now_ns)
{
    uint32_t       i, nrows;
    const float  **rows;

    nrows = seat->nrows;
    rows = s->eng->ops->step_tokens != NULL ? NULL : &s->rows[seat->row_at];
    seat->computed += seat->batch_n - seat->ndraft;
    seat->batch_n = 0;
    wrk_kv_computed(s, seat);

    for (i = 0; i < nrows && wrk_seat_scores(seat); i++) {
        assert(seat->computed - nrows + i + 1 == seat->echo_at);
        wrk_out_echo_token(s, seat, rows != NULL ? rows[i] : NULL);
    }

    if (seat->max_tokens != 0 && seat->computed == seat->ntokens) {
        assert(nrows > seat->ndraft);

        if (seat->request->beams != 0) {
            wrk_beam_apply(s, seat, now_ns);
            return;
        }

        wrk_seat_accept(s, seat, rows != NULL
                                 ? &rows[nrows - 1 - seat->ndraft] : NULL,
                        now_ns);
    }
}


void
wrk_batch_apply(wrk_sched_t *s, uint64_t now_ns)
{
    uint32_t     i;
    wrk_seat_t  *seat;

    for (i = 0; i < s->nmembers; i++) {
        seat = &s->seats[s->members[i]];

        /* 0: its request has ended meanwhile */
        if (seat->batch_n != 0) {
            wrk_seat_apply(s, seat, now_ns);
        }
    }

    s->nmembers = 0;
}
