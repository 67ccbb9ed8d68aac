/* Stop strings; see the header. */

#include <assert.h>
#include <string.h>

#include "worker/wrk_stop.h"


size_t
wrk_stop_memory(size_t total)
{
    return 2 * total;
}


void
wrk_stop_init(wrk_stop_set_t *set, void *mem, size_t total)
{
    memset(set, 0, sizeof(*set));
    set->bytes = mem;
    set->fail = set->bytes + total;
}


void
wrk_stop_add(wrk_stop_set_t *set, const void *text, size_t len)
{
    uint8_t   *p, *fail;
    uint32_t   i, k;

    assert(len > 0 && len <= WRK_STOP_BYTES_MAX);
    assert(set->n < WRK_STOP_STRINGS_MAX);
    assert(set->bytes + set->used + len <= set->fail);

    p = set->bytes + set->used;
    fail = set->fail + set->used;
    memcpy(p, text, len);

    /* fail[i]: the longest proper border of p[0..i] */
    fail[0] = 0;

    for (i = 1, k = 0; i < len; i++) {
        while (k > 0 && p[i] != p[k]) {
            k = fail[k - 1];
        }

        k += p[i] == p[k];
        fail[i] = (uint8_t) k;
    }

    set->at[set->n] = (uint16_t) set->used;
    set->len[set->n] = (uint16_t) len;
    set->used += (uint32_t) len;
    set->n++;
}


void
wrk_stop_start(wrk_stop_state_t *state)
{
    memset(state, 0, sizeof(*state));
}


/* One byte into one string's automaton; the new length of the match. */
static inline uint32_t
wrk_stop_byte(const uint8_t *p, const uint8_t *fail, uint32_t k, uint8_t c)
{
    while (k > 0 && p[k] != c) {
        k = fail[k - 1];
    }

    return k + (p[k] == c);
}


size_t
wrk_stop_feed(const wrk_stop_set_t *set, wrk_stop_state_t *state,
    const void *text, size_t len, size_t *end)
{
    size_t          i, best;
    uint32_t        j, k;
    const uint8_t  *bytes;

    bytes = text;

    for (i = 0; i < len; i++) {
        best = 0;

        for (j = 0; j < set->n; j++) {
            k = wrk_stop_byte(set->bytes + set->at[j], set->fail + set->at[j],
                              state->pos[j], bytes[i]);

            if (k == set->len[j]) {
                best = best > k ? best : k;
                k = 0;
            }

            state->pos[j] = (uint16_t) k;
        }

        if (best != 0) {
            *end = i + 1;
            return best;
        }
    }

    *end = len;
    return 0;
}


size_t
wrk_stop_hold(const wrk_stop_set_t *set, const wrk_stop_state_t *state)
{
    size_t    hold;
    uint32_t  j;

    for (j = 0, hold = 0; j < set->n; j++) {
        assert(state->pos[j] < set->len[j]);
        hold = hold > state->pos[j] ? hold : state->pos[j];
    }

    return hold;
}
