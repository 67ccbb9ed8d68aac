/*
 * Guesses by prompt lookup (Saxena, 2023; speculative decoding: Leviathan et
 * al., 2022): where the last tokens of a sequence stand in it once before,
 * what followed there is likely to follow here.  A step computes such drafts
 * along with the token that is due, and samples position by position: a draft
 * stands exactly if it is the token that would have been drawn, so the answer
 * is the same bytes with and without.
 *
 * Worth it for few sequences and texts that repeat themselves.  How much is
 * guessed follows what has been right: doubled after a whole hit, and after a
 * miss nothing for a while, twice as long each time.
 */

#include <assert.h>

#include "worker/wrk_sched_int.h"


#define WRK_SPEC_SEATS     4u       /* with more running, none guesses */
#define WRK_SPEC_MATCH     3u       /* tokens that must have stood there */
#define WRK_SPEC_LONGEST   8u       /* a longer match is not better */
#define WRK_SPEC_FIRST     2u       /* drafts of a first try */
#define WRK_SPEC_MAX       15u      /* of any */
#define WRK_SPEC_WAIT      16u      /* tokens after a miss, the first time */
#define WRK_SPEC_WAIT_MAX  128u


void
wrk_spec_begin(wrk_sched_t *s)
{
    uint32_t           i, n, rows, tokens;
    const wrk_seat_t  *seat;

    s->drafts_max = 0;
    s->ndrafts = 0;

    if (!s->opts.speculate || s->nused > WRK_SPEC_SEATS) {
        return;
    }

    for (i = 0, n = 0; i < s->nused; i++) {
        seat = &s->seats[s->order[i]];

        /* a prompt makes good use of a step by itself */
        if (seat->state != WRK_SEAT_RUN || wrk_seat_scores(seat)
            || seat->ntokens - seat->computed != 1)
        {
            return;
        }

        n++;
    }

    if (n == 0) {
        return;
    }

    rows = s->eng->limits.max_logits;
    tokens = wrk_min(s->opts.batch, rows);
    s->drafts_max = tokens > n ? wrk_min((tokens - n) / n, WRK_SPEC_MAX) : 0;
}


/* Where the sequence goes on as after its longest known end; 0: nowhere. */
static uint32_t
wrk_spec_match(const wrk_seat_t *seat)
{
    uint32_t         i, n, best, best_n;
    const uint32_t  *t;

    t = seat->tokens;
    best = 0;
    best_n = WRK_SPEC_MATCH - 1;

    /* t[i] is the last token of a candidate; the latest of the longest wins */
    for (i = seat->ntokens - 2; i >= WRK_SPEC_MATCH - 1; i--) {
        if (t[i] != t[seat->ntokens - 1]) {
            continue;
        }

        for (n = 1; n <= i && n < WRK_SPEC_LONGEST
             && t[i - n] == t[seat->ntokens - 1 - n]; n++) { /* void */ }

        if (n > best_n) {
            best_n = n;
            best = i + 1;
        }

        if (n == WRK_SPEC_LONGEST) {
            break;
        }
    }

    return best;
}


uint32_t
wrk_spec_draft(wrk_sched_t *s, wrk_seat_t *seat)
{
    uint32_t  i, k, from, left;

    if (s->drafts_max == 0 || seat->ntokens < 2 * WRK_SPEC_MATCH) {
        return 0;
    }

    if (seat->spec_wait != 0) {
        seat->spec_wait--;
        return 0;
    }

    /* the last token of an answer needs no draft after it */
    left = seat->nprompt + seat->max_tokens - seat->ntokens - 1;
    k = wrk_min(wrk_min(seat->spec_k, s->drafts_max), left);
    k = wrk_min(k, s->ctx - seat->ntokens);
    from = k != 0 ? wrk_spec_match(seat) : 0;

    if (from == 0) {
        return 0;
    }

    k = wrk_kv_more(s, seat, k);

    /* may run on into what has just been written: a text with a period */
    for (i = 0; i < k && wrk_seat_promise(s, seat); i++) {
        seat->tokens[seat->ntokens + i] = seat->tokens[from + i];
    }

    s->ndrafts += i;

    return i;
}


void
wrk_spec_start(wrk_seat_t *seat)
{
    seat->ndraft = 0;
    seat->spec_k = WRK_SPEC_FIRST;
    seat->spec_wait = 0;
    seat->spec_miss = WRK_SPEC_WAIT;
}


void
wrk_spec_learn(wrk_sched_t *s, wrk_seat_t *seat, uint32_t k, uint32_t right)
{
    assert(right <= k);

    s->count[SHR_C_DRAFTED] += k;
    s->count[SHR_C_DRAFTS_RIGHT] += right;

    if (right == 0) {
        seat->spec_k = WRK_SPEC_FIRST;
        seat->spec_wait = seat->spec_miss;
        seat->spec_miss = wrk_min(2 * seat->spec_miss, WRK_SPEC_WAIT_MAX);
        return;
    }

    seat->spec_miss = WRK_SPEC_WAIT;
    seat->spec_k = right == k ? wrk_min(2 * seat->spec_k, WRK_SPEC_MAX)
                              : wrk_max(right, WRK_SPEC_FIRST);
}
