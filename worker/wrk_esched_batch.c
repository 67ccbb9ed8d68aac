/*
 * A batch of the encoder scheduler: who takes part, in which order, and what
 * comes of it.
 *
 * First those that have begun (they take turns), then the queue by priority
 * and share (wrk_fair.h): as it came, where all have the same.
 * With others waiting, a request with many inputs gets its share of the tokens
 * only; what is left over is given out in a second round.  Who is next and
 * does not fit ends the round, so that nobody is overtaken for ever.
 */

#include <assert.h>
#include <math.h>
#include <string.h>

#include "worker/wrk_esched_int.h"


#define WRK_EBATCH_SHARES_MAX  64u      /* parts that a batch is cut into */


static uint32_t
wrk_ereq_len(const wrk_ereq_t *r, uint32_t row)
{
    return r->at[row + 1] - r->at[row];
}


/* Whether its window has a place for another row. */
static int
wrk_ereq_has_place(const wrk_ereq_t *r)
{
    return r->taken < r->ninputs && !r->sink.lost
           && r->taken - r->sent / r->width < r->window;
}


/* Puts inputs of a request into the batch, up to one part of `parts` of its
 * tokens and sequences, but one input if any.  0: its next one does not fit
 * into the batch any more. */
static int
wrk_ebatch_take(wrk_esched_t *s, wrk_ereq_t *r, uint32_t parts)
{
    uint32_t  len, tokens, inputs;

    tokens = 0;

    for (inputs = 0; wrk_ereq_has_place(r); inputs++, tokens += len) {
        len = wrk_ereq_len(r, r->taken);

        if (inputs != 0 && (tokens >= s->opts.batch / parts
                            || inputs >= s->opts.sequences / parts))
        {
            break;
        }

        if (s->nmembers == s->opts.sequences
            || len > s->opts.batch - s->ntokens)
        {
            return 0;
        }

        s->members[s->nmembers].request = r;
        s->members[s->nmembers].row = r->taken++;
        s->members[s->nmembers].len = len;
        s->nmembers++;
        s->ntokens += len;
    }

    return 1;
}


/* Ascending; at most some thousand keys.  Gaps: Ciura 2001. */
static void
wrk_ebatch_sort(uint64_t *keys, uint32_t n)
{
    uint64_t               key;
    uint32_t               g, gap, i, k;
    static const uint32_t  gaps[] = { 1750, 701, 301, 132, 57, 23, 10, 4, 1 };

    for (g = 0; g < sizeof(gaps) / sizeof(gaps[0]); g++) {
        gap = gaps[g];

        for (i = gap; i < n; i++) {
            key = keys[i];

            for (k = i; k >= gap && keys[k - gap] > key; k -= gap) {
                keys[k] = keys[k - gap];
            }

            keys[k] = key;
        }
    }
}


/* Lays the tokens down, the longest input first. */
static void
wrk_ebatch_lay(wrk_esched_t *s)
{
    uint32_t        i, at, second;
    wrk_ereq_t     *r;
    wrk_emember_t  *m;

    for (i = 0; i < s->nmembers; i++) {
        s->keys[i] = (uint64_t) (UINT32_MAX - s->members[i].len) << 32 | i;
    }

    wrk_ebatch_sort(s->keys, s->nmembers);

    for (i = 0, at = 0; i < s->nmembers; i++) {
        m = &s->members[(uint32_t) s->keys[i]];
        m->place = i;
        r = m->request;
        s->batch_at[i] = at;
        memcpy(s->batch_ids + at, r->ids + r->at[m->row],
               m->len * sizeof(uint32_t));

        second = r->second[m->row];
        assert(second <= m->len);
        memset(s->batch_types + at, 0, second);
        memset(s->batch_types + at + second, 1, m->len - second);
        at += m->len;
    }

    s->batch_at[i] = at;
    assert(at == s->ntokens && at <= s->opts.batch);
}


uint64_t
wrk_ebatch_due(const wrk_esched_t *s)
{
    if (s->opts.delay_us == 0 || wrk_link_empty(&s->queue)) {
        return UINT64_MAX;
    }

    return wrk_link_ereq(s->queue.next)->came_ns
           + (uint64_t) s->opts.delay_us * 1000;
}


/* A batch that would not be full waits for its first one's time. */
static int
wrk_ebatch_waits(const wrk_esched_t *s, uint64_t now_ns)
{
    uint64_t  due;

    if (!wrk_link_empty(&s->running)
        || s->waiting_tokens >= s->opts.batch
        || s->waiting_inputs >= s->opts.sequences)
    {
        return 0;
    }

    due = wrk_ebatch_due(s);

    return due != UINT64_MAX && now_ns < due;
}


/* A round over those that have begun.  0: the batch is full. */
static int
wrk_ebatch_round(wrk_esched_t *s, uint32_t parts)
{
    wrk_link_t  *link;

    for (link = s->running.next; link != &s->running; link = link->next) {
        if (!wrk_ebatch_take(s, wrk_link_ereq(link), parts)) {
            return 0;
        }
    }

    return 1;
}


/* Those that wait begin, whoever's turn it is.  0: the batch is full. */
static int
wrk_ebatch_begin(wrk_esched_t *s, uint32_t parts, uint64_t now_ns)
{
    int               fits;
    uint32_t          before;
    wrk_ereq_t       *r;
    wrk_fair_item_t  *item;

    while ((item = wrk_fair_next(&s->fair, now_ns)) != NULL) {
        r = wrk_fair_ereq(item);
        assert(r->state == WRK_EREQ_QUEUED && r->taken == 0);
        before = s->nmembers;
        fits = wrk_ebatch_take(s, r, parts);

        if (s->nmembers != before) {
            wrk_ereq_start(s, r, now_ns);
        }

        if (!fits) {
            return 0;
        }

        assert(s->nmembers != before);      /* its window is empty */
    }

    return 1;
}


void
wrk_ebatch_plan(wrk_esched_t *s, uint64_t now_ns)
{
    uint32_t     parts;
    wrk_link_t  *link;

    s->nmembers = 0;
    s->ntokens = 0;

    if (wrk_ebatch_waits(s, now_ns)) {
        return;
    }

    /* the one that begins this time is the last the next time */
    if (s->nrunning > 1) {
        link = s->running.next;
        wrk_link_remove(link);
        wrk_link_append(&s->running, link);
    }

    parts = wrk_min(s->nrunning + s->waiting, WRK_EBATCH_SHARES_MAX);
    parts = wrk_max(parts, 1u);

    if (wrk_ebatch_round(s, parts) && wrk_ebatch_begin(s, parts, now_ns)) {
        (void) wrk_ebatch_round(s, 1);
    }

    if (s->nmembers != 0) {
        wrk_ebatch_lay(s);
    }
}


static void
wrk_ebatch_failed(wrk_esched_t *s, const char *why)
{
    uint32_t     i;
    wrk_ereq_t  *r;

    wrk_req_fail(&s->err, SHR_E_INTERNAL, NULL, "%s", why);
    s->pending = 1;                     /* the ended are struck off */

    for (i = 0; i < s->nmembers; i++) {
        r = s->members[i].request;

        if (r != NULL) {
            wrk_ereq_fail(s, r);
        }
    }

    s->pending = 0;
    s->nmembers = 0;
}


int
wrk_ebatch_run(wrk_esched_t *s, uint64_t now_ns)
{
    uint64_t     ready_ns;
    enc_batch_t  batch;

    assert(s->nmembers > 0 && !s->pending);

    batch.ids = s->batch_ids;
    batch.types = s->eng->info.types > 1 ? s->batch_types : NULL;
    batch.offsets = s->batch_at;
    batch.n_seqs = s->nmembers;
    ready_ns = 0;

    if (s->eng->ops->run(s->eng->ctx, &batch, s->out, now_ns, &ready_ns)
        != ENG_OK)
    {
        wrk_ebatch_failed(s, "the engine failed");
        return 0;
    }

    s->count[SHR_C_STEPS]++;
    s->count[SHR_C_STEP_TOKENS] += s->ntokens;

    if (ready_ns > now_ns) {
        s->pending = 1;
        s->pending_ns = ready_ns;
        return 0;
    }

    return 1;
}


static int
wrk_ebatch_finite(const float *v, uint32_t n)
{
    uint32_t  i;

    for (i = 0; i < n; i++) {
        if (!isfinite(v[i])) {
            return 0;
        }
    }

    return 1;
}


/* A row for its request. */
static void
wrk_ebatch_give(wrk_esched_t *s, const wrk_emember_t *m, uint64_t now_ns)
{
    float       *row;
    uint32_t     width;
    wrk_ereq_t  *r;

    r = m->request;

    if (r == NULL || r->sink.lost) {
        return;
    }

    width = s->eng->info.width;
    row = s->out + (size_t) m->place * width;
    r->news = 1;
    r->first_ns = r->first_ns != 0 ? r->first_ns : now_ns;
    r->last_ns = now_ns;

    if (!wrk_ebatch_finite(row, width)) {
        wrk_req_fail(&s->err, SHR_E_INTERNAL, NULL,
                     "the model gave a value that is no number");
        wrk_eout_error(r, &s->err);
        r->sink.lost = 1;
        return;
    }

    wrk_eout_row(s, r, m->row, row);
}


void
wrk_ebatch_apply(wrk_esched_t *s, uint64_t now_ns)
{
    uint32_t     i;
    wrk_ereq_t  *r;

    /* those that end meanwhile strike themselves off */
    s->pending = 1;

    for (i = 0; i < s->nmembers; i++) {
        wrk_ebatch_give(s, &s->members[i], now_ns);
    }

    for (i = 0; i < s->nmembers; i++) {
        r = s->members[i].request;

        if (r != NULL && r->news) {
            r->news = 0;
            wrk_eout_send(s, r);
        }
    }

    s->pending = 0;
    s->nmembers = 0;
}
