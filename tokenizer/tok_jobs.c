/*
 * tok_jobs.c: byte-pair merges of several short words side by side; the same
 * merges in the same order as tok_bpe.c makes them in one word.
 */

#include "tokenizer/tok_jobs.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif


#define NONE   INT32_MAX            /* of keys: no merge */


/* The live places behind and before at; there are such. */
static inline unsigned
behind(uint64_t live, unsigned at)
{
    return (unsigned) __builtin_ctzll(live & (~(uint64_t) 1 << at));
}


static inline unsigned
before(uint64_t live, unsigned at)
{
    return 63 - (unsigned) __builtin_clzll(live
                                           & (((uint64_t) 1 << at) - 1));
}


/* The merge of two symbols will be looked up: first in the filter. */
static inline void
ask(const tok_t *t, tok_job_t *j, unsigned at, unsigned next)
{
    uint64_t  h = tok_pair_hash(j->ids[at], j->ids[next]);

    __builtin_prefetch(&t->filter[(uint32_t) (h >> 32) & t->filter_mask]);
    j->key[at] = NONE;
    j->open |= (uint64_t) 1 << at;
}


void
tok_job_begin(const tok_t *t, tok_job_t *j, const uint8_t *bytes)
{
    tok_pair_t  pair;
    unsigned    i, n = j->n;

    assert(n > 0 && n <= TOK_JOB_SYMBOLS);
    memmove(j->ids + 1, j->ids, n * sizeof(j->ids[0]));
    j->ids[0] = j->ids[n + 1] = TOK_NO_ID;
    j->live = ((uint64_t) 1 << (n + 2)) - 1;
    j->open = j->found = 0;
    j->key[0] = NONE;
    for (i = 1; i < n; i++) {
        if (bytes == NULL) {
            ask(t, j, i, i + 1);
            continue;
        }
        pair = t->pairs[bytes[i - 1] << 8 | bytes[i]];
        j->key[i] = pair.rank == UINT32_MAX ? NONE
                    : (int32_t) (pair.rank << 6 | i);
        j->to[i] = pair.to;
    }
    do {
        j->key[i++] = NONE;
    } while (i < 16 || i % 8);
}


#ifdef __SSE2__

static inline __m128i
min4(__m128i a, __m128i b)
{
    __m128i  less = _mm_cmplt_epi32(a, b);

    return _mm_or_si128(_mm_and_si128(less, a), _mm_andnot_si128(less, b));
}


/* The lowest rank, of equals the leftmost; nearly all words have up to 16
 * symbols. */
static inline int32_t
lowest(const tok_job_t *j)
{
    const __m128i  *k = (const __m128i *) j->key, *end;
    __m128i         a = min4(k[0], k[1]), b = min4(k[2], k[3]);

    end = k + ((j->n + 8) / 8) * 2;
    for (k += 4; k < end; k += 2) {
        a = min4(a, k[0]);
        b = min4(b, k[1]);
    }
    a = min4(a, b);
    a = min4(a, _mm_shuffle_epi32(a, 0x4e));
    a = min4(a, _mm_shuffle_epi32(a, 0xb1));
    return _mm_cvtsi128_si32(a);
}

#else

static inline int32_t
lowest(const tok_job_t *j)
{
    int32_t   best = NONE;
    unsigned  i;

    for (i = 0; i <= j->n; i++) {
        best = j->key[i] < best ? j->key[i] : best;
    }
    return best;
}

#endif


/*
 * What was asked for.  Of the pairs that wait for the filter those that pass
 * wait for the merge table; false if there are such.
 */
static inline bool
hear(const tok_t *t, tok_job_t *j)
{
    const tok_merge_t  *m;
    uint64_t            h;
    uint32_t            a, b;
    unsigned            at;
    bool                may;

    for (/* void */; j->found; j->found &= j->found - 1) {
        at = (unsigned) __builtin_ctzll(j->found);
        a = j->ids[at];
        b = j->ids[behind(j->live, at)];
        m = tok_merge_get(t, a, b, tok_pair_hash(a, b));
        if (m != NULL) {
            j->key[at] = (int32_t) (m->rank << 6 | at);
            j->to[at] = m->to;
        }
    }
    for (/* void */; j->open; j->open &= j->open - 1) {
        at = (unsigned) __builtin_ctzll(j->open);
        h = tok_pair_hash(j->ids[at], j->ids[behind(j->live, at)]);
        /* No branch, for nobody could foresee it. */
        may = tok_merge_may(t, h);
        j->found |= (uint64_t) may << at;
        __builtin_prefetch(may ? (const void *) &t->merges[(uint32_t) (h >> 32)
                                                           & t->merge_mask]
                           : j);
    }
    return j->found == 0;
}


/* A merge, if nothing has to be waited for; false: there is none left. */
static inline bool
step(const tok_t *t, tok_job_t *j)
{
    int32_t   best;
    unsigned  at, next;

    if (!hear(t, j)) {
        return true;
    }
    best = lowest(j);
    if (best == NONE) {
        return false;
    }
    at = best & 63;
    next = behind(j->live, at);
    assert(at > 0 && next <= j->n && (j->live >> at & 1));
    j->ids[at] = j->to[at];
    j->key[next] = NONE;
    j->live &= ~((uint64_t) 1 << next);
    ask(t, j, at, behind(j->live, at));
    ask(t, j, before(j->live, at), at);
    return true;
}


void
tok_jobs_run(const tok_t *t, tok_job_t *jobs[], size_t n)
{
    tok_job_t  *run[TOK_JOBS], *j;
    uint64_t    live;
    size_t      i, k, left = n;

    assert(n <= TOK_JOBS);
    memcpy(run, jobs, n * sizeof(run[0]));
    while (left) {
        for (i = k = 0; i < left; i++) {
            run[k] = run[i];
            k += step(t, run[i]);
        }
        left = k;
    }
    for (i = 0; i < n; i++) {
        j = jobs[i];
        live = j->live & ~(uint64_t) 1 & ~((uint64_t) 1 << (j->n + 1));
        for (k = 0; live; live &= live - 1) {
            j->ids[k++] = j->ids[__builtin_ctzll(live)];
        }
        j->n = (uint32_t) k;
    }
}
