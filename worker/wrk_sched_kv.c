/*
 * KV pages: who gets them, who gives them back, what is shared.
 *
 * A sequence starts when its whole history fits, with the pages that the
 * prefix cache knows and the rest to be computed.  Pages that nobody uses are
 * taken back from the cache first.  Growing by a page may then take the pages
 * of a paused or a younger sequence, which computes again later what the cache
 * has lost of it meanwhile: nothing but time is lost, and the oldest always
 * goes on.
 */

#include <assert.h>
#include <string.h>

#include "worker/wrk_sched_int.h"


#define WRK_WAIT_PAGES  2u      /* worth waiting for another's prefill */


void
wrk_kv_give(wrk_sched_t *s, wrk_seat_t *seat)
{
    eng_seq_trim(s->eng, seat->seq, 0);
    seat->computed = 0;
    seat->reserved = 0;

    if (s->prefix != NULL) {
        wrk_prefix_leave(s->prefix, &seat->path);
    }
}


static void
wrk_kv_preempt(wrk_sched_t *s, wrk_seat_t *seat)
{
    assert(seat->state == WRK_SEAT_RUN && seat->batch_n == 0);

    wrk_kv_give(s, seat);
    seat->state = WRK_SEAT_START;
    s->count[SHR_C_PREEMPTED]++;
}


/* Whose pages to take for the seat at order[at]: the youngest paused one, else
 * the youngest behind it; NULL: none. */
static wrk_seat_t *
wrk_kv_victim(wrk_sched_t *s, uint32_t at)
{
    uint32_t     i;
    wrk_seat_t  *seat;

    for (i = s->nused; i > 0; i--) {
        seat = &s->seats[s->order[i - 1]];

        if (seat->state == WRK_SEAT_RUN && seat->paused && i - 1 != at) {
            return seat;
        }
    }

    for (i = s->nused; i > at + 1; i--) {
        seat = &s->seats[s->order[i - 1]];

        if (seat->state == WRK_SEAT_RUN && seat->batch_n == 0) {
            return seat;
        }
    }

    return NULL;
}


/* Pages that nobody uses go back until n are free; 0, or -1: there are not so
 * many, and none was taken. */
static int
wrk_kv_free(wrk_sched_t *s, uint32_t n)
{
    uint32_t  nfree;

    nfree = eng_kv_free_pages(s->eng);

    if (nfree >= n) {
        return 0;
    }

    if (s->prefix == NULL || n - nfree > wrk_prefix_idle(s->prefix)) {
        return -1;
    }

    for (/* void */; nfree < n; nfree++) {
        wrk_prefix_evict(s->prefix);
    }

    assert(eng_kv_free_pages(s->eng) == n);

    return 0;
}


/* Room in the KV cache for the first n positions, in whole pages. */
static int
wrk_kv_reserve(wrk_sched_t *s, wrk_seat_t *seat, uint32_t n)
{
    int       rc;
    uint32_t  page;

    if (n <= seat->reserved) {
        return 0;
    }

    page = s->eng->limits.page_tokens;
    n = wrk_min((n + page - 1) / page * page, s->ctx);

    if (wrk_kv_free(s, (n + page - 1) / page
                       - (seat->reserved + page - 1) / page) != 0)
    {
        return -1;
    }

    rc = eng_seq_reserve(s->eng, seat->seq, n);
    assert(rc == 0);
    (void) rc;
    seat->reserved = n;

    return 0;
}


int
wrk_kv_grow(wrk_sched_t *s, uint32_t at)
{
    wrk_seat_t  *seat, *victim;

    seat = &s->seats[s->order[at]];

    while (wrk_kv_reserve(s, seat, seat->ntokens) != 0) {
        victim = wrk_kv_victim(s, at);

        if (victim == NULL) {
            wrk_kv_preempt(s, seat);
            return -1;
        }

        wrk_kv_preempt(s, victim);
    }

    return 0;
}


uint32_t
wrk_kv_more(wrk_sched_t *s, wrk_seat_t *seat, uint32_t k)
{
    if (wrk_kv_reserve(s, seat, seat->ntokens + k) != 0) {
        k = wrk_min(k, seat->reserved - seat->ntokens);
    }

    return k;
}


void
wrk_kv_trim(wrk_sched_t *s, wrk_seat_t *seat)
{
    uint32_t  page, n;

    page = s->eng->limits.page_tokens;
    n = (seat->computed + page - 1) / page * page;
    eng_seq_trim(s->eng, seat->seq, seat->computed);
    seat->reserved = wrk_min(seat->reserved, n);
}


/* --- what can be shared ------------------------------------------------- */

void
wrk_kv_computed(wrk_sched_t *s, wrk_seat_t *seat)
{
    uint32_t  page;

    if (s->prefix == NULL) {
        return;
    }

    page = s->eng->limits.page_tokens;

    while ((seat->path.n + 1) * page <= seat->computed) {
        wrk_prefix_add(s->prefix, &seat->path, seat->tokens,
                       eng_seq_page(s->eng, seat->seq, seat->path.n));
    }
}


/* Positions that need not be computed, if they are known: all but the last, as
 * its logits are wanted, and those whose logits are sent. */
static uint32_t
wrk_kv_reusable(const wrk_seat_t *seat)
{
    if (wrk_seat_scores(seat)) {
        return wrk_max(seat->echo_at, 1u) - 1;
    }

    return seat->ntokens - 1;
}


/* Another choice of the same prompt, whose pages can be shared; NULL: none. */
static wrk_seat_t *
wrk_kv_sibling(wrk_sched_t *s, uint32_t at, int *wait)
{
    uint32_t     i;
    wrk_seat_t  *seat, *other;

    *wait = 0;
    seat = &s->seats[s->order[at]];

    for (i = 0; i < s->nused; i++) {
        other = &s->seats[s->order[i]];

        if (other == seat || other->request != seat->request
            || other->prompt != seat->prompt)
        {
            continue;
        }

        if (other->computed >= seat->nprompt - 1) {
            return other;
        }

        /* an older one is on its way there */
        *wait |= i < at;
    }

    return NULL;
}


/* Pages of the seat's tokens that the other will have computed. */
static uint32_t
wrk_kv_common(const wrk_sched_t *s, const wrk_seat_t *seat,
    const wrk_seat_t *other)
{
    size_t    bytes;
    uint32_t  n, max, page;

    page = s->eng->limits.page_tokens;
    bytes = page * sizeof(uint32_t);
    max = wrk_min(wrk_kv_reusable(seat), other->ntokens) / page;

    for (n = seat->path.n; n < max; n++) {
        if (memcmp(seat->tokens + (size_t) n * page,
                   other->tokens + (size_t) n * page, bytes) != 0)
        {
            break;
        }
    }

    return n;
}


/* 1: an older sequence is computing what this one begins with, so that waiting
 * for it is less work for all. */
static int
wrk_kv_worth_waiting(wrk_sched_t *s, uint32_t at)
{
    uint32_t           i, n, page;
    const wrk_seat_t  *seat, *other;

    page = s->eng->limits.page_tokens;
    seat = &s->seats[s->order[at]];

    for (i = 0; i < at; i++) {
        other = &s->seats[s->order[i]];

        if (other->state != WRK_SEAT_RUN || other->paused
            || other->ntokens - other->computed <= page
            || other->path.scope != seat->path.scope)
        {
            continue;
        }

        n = wrk_kv_common(s, seat, other);

        if (n >= seat->path.n + WRK_WAIT_PAGES && other->computed < n * page) {
            return 1;
        }
    }

    return 0;
}


/* The beginning of the seat's tokens from the cache: 1: as far as it is known;
 * 0: it comes to be known soon. */
static int
wrk_kv_attach(wrk_sched_t *s, uint32_t at)
{
    uint32_t     page;
    wrk_seat_t  *seat;

    seat = &s->seats[s->order[at]];
    page = s->eng->limits.page_tokens;

    wrk_prefix_walk(s->prefix, &seat->path, seat->tokens,
                    wrk_kv_reusable(seat) / page);

    if (wrk_kv_worth_waiting(s, at)) {
        wrk_prefix_leave(s->prefix, &seat->path);
        s->nwaits++;
        return 0;
    }

    if (seat->path.n != 0) {
        wrk_prefix_attach(s->prefix, &seat->path, seat->seq);
        seat->computed = seat->path.n * page;
        seat->reserved = seat->computed;
    }

    return 1;
}


/* The prompt's pages from a sibling.  -1: no page for it now. */
static int
wrk_kv_fork(wrk_sched_t *s, wrk_seat_t *seat, const wrk_seat_t *sibling)
{
    uint32_t  page, shared;

    page = s->eng->limits.page_tokens;
    shared = seat->nprompt - 1;

    if (wrk_kv_free(s, shared % page != 0) != 0
        || eng_seq_fork(s->eng, seat->seq, sibling->seq, shared) != 0)
    {
        return -1;
    }

    seat->computed = shared;
    seat->reserved = (shared + page - 1) / page * page;
    wrk_kv_computed(s, seat);

    return 0;
}


/* What the request is told: tokens of a prompt that were there already when it
 * came to it first. */
static void
wrk_kv_count(wrk_sched_t *s, wrk_seat_t *seat)
{
    if (seat->counted || seat->choice % seat->request->n != 0) {
        return;
    }

    seat->counted = 1;
    seat->request->cached_tokens += seat->computed;
    s->count[SHR_C_CACHED_TOKENS] += seat->computed;
}


/* --- starts ------------------------------------------------------------- */

/* 1: it runs; 0: it waits for another; -1: no pages for it now. */
static int
wrk_kv_start(wrk_sched_t *s, uint32_t at)
{
    int          wait;
    wrk_seat_t  *seat, *other;

    seat = &s->seats[s->order[at]];
    other = NULL;
    assert(seat->computed == 0 && seat->path.n == 0);

    /* Pages for somebody whose client does not read would be wasted. */
    if (wrk_out_token_room(s, seat) > seat->request->room) {
        seat->request->short_room = 1;
        return 0;
    }

    if (seat->nprompt > 1 && seat->request->nchoices > 1
        && !wrk_seat_scores(seat))
    {
        other = wrk_kv_sibling(s, at, &wait);

        if (wait && other == NULL) {
            return 0;
        }
    }

    if (other != NULL) {
        if (wrk_kv_fork(s, seat, other) != 0) {
            return -1;
        }

    } else if (s->prefix != NULL && !wrk_kv_attach(s, at)) {
        return 0;
    }

    if (wrk_kv_reserve(s, seat, seat->ntokens) != 0) {
        wrk_kv_give(s, seat);
        return -1;
    }

    if (other == NULL) {
        wrk_kv_count(s, seat);
    }

    wrk_beam_start(s, seat);
    seat->state = WRK_SEAT_RUN;

    return 1;
}


/* The oldest that runs out of pages stops all behind it, so that nobody is
 * overtaken for ever.  If nothing but paused ones hold pages, they give. */
void
wrk_kv_starts(wrk_sched_t *s)
{
    uint32_t     i;
    int          rc, active;
    wrk_seat_t  *seat, *victim;

    for (i = 0, active = 0; i < s->nused; i++) {
        seat = &s->seats[s->order[i]];
        active |= seat->state == WRK_SEAT_RUN && !seat->paused;
    }

    for (i = 0; i < s->nused; i++) {
        seat = &s->seats[s->order[i]];

        if (seat->state != WRK_SEAT_START) {
            continue;
        }

        rc = wrk_kv_start(s, i);

        while (rc < 0 && !active) {
            victim = wrk_kv_victim(s, i);

            if (victim == NULL || !victim->paused) {
                break;
            }

            wrk_kv_preempt(s, victim);
            rc = wrk_kv_start(s, i);
        }

        if (rc < 0) {
            break;
        }

        active |= rc;
    }
}
