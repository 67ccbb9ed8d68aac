/*
 * tok_jobs_steps.h: how jobs are merged, for files that are compiled for
 * several kinds of processors.
 */

#ifndef TOK_JOBS_STEPS_H
#define TOK_JOBS_STEPS_H


#include "tokenizer/tok_jobs.h"

#ifdef __SSE2__
#include <immintrin.h>
#endif


#define TOK_JOB_NONE   INT32_MAX            /* of keys: no merge */


/* The live places behind and before at; there are such. */
static inline unsigned
tok_job_behind(uint64_t live, unsigned at)
{
    return (unsigned) __builtin_ctzll(live & (~(uint64_t) 1 << at));
}


static inline unsigned
tok_job_before(uint64_t live, unsigned at)
{
    return 63 - (unsigned) __builtin_clzll(live
                                           & (((uint64_t) 1 << at) - 1));
}


/* The merge of two symbols will be looked up: first in the filter. */
static inline void
tok_job_ask(const tok_t *t, tok_job_t *j, unsigned at, unsigned next)
{
    uint64_t  h = tok_pair_hash(j->ids[at], j->ids[next]);

    __builtin_prefetch(&t->filter[(uint32_t) (h >> 32) & t->filter_mask]);
    j->key[at] = TOK_JOB_NONE;
    j->open |= (uint64_t) 1 << at;
}


#if defined(__AVX2__)

/* The lowest rank, of equals the leftmost; nearly all words have up to 16
 * symbols. */
static inline int32_t
tok_job_lowest(const tok_job_t *j)
{
    const int32_t  *k = j->key, *end = k + (j->n + 8) / 8 * 8;
    __m256i         v = _mm256_min_epi32(_mm256_loadu_si256((const void *) k),
                                         _mm256_loadu_si256((const void *)
                                                            (k + 8)));
    __m128i         a;

    for (k += 16; k < end; k += 8) {
        v = _mm256_min_epi32(v, _mm256_loadu_si256((const void *) k));
    }
    a = _mm_min_epi32(_mm256_castsi256_si128(v),
                      _mm256_extracti128_si256(v, 1));
    a = _mm_min_epi32(a, _mm_shuffle_epi32(a, 0x4e));
    a = _mm_min_epi32(a, _mm_shuffle_epi32(a, 0xb1));
    return _mm_cvtsi128_si32(a);
}

#elif defined(__SSE2__)

static inline __m128i
tok_job_min(__m128i a, __m128i b)
{
    __m128i  less = _mm_cmplt_epi32(a, b);

    return _mm_or_si128(_mm_and_si128(less, a), _mm_andnot_si128(less, b));
}


static inline int32_t
tok_job_lowest(const tok_job_t *j)
{
    const __m128i  *k = (const __m128i *) j->key, *end;
    __m128i         a = tok_job_min(k[0], k[1]), b = tok_job_min(k[2], k[3]);

    end = k + ((j->n + 8) / 8) * 2;
    for (k += 4; k < end; k += 2) {
        a = tok_job_min(a, k[0]);
        b = tok_job_min(b, k[1]);
    }
    a = tok_job_min(a, b);
    a = tok_job_min(a, _mm_shuffle_epi32(a, 0x4e));
    a = tok_job_min(a, _mm_shuffle_epi32(a, 0xb1));
    return _mm_cvtsi128_si32(a);
}

#else

static inline int32_t
tok_job_lowest(const tok_job_t *j)
{
    int32_t   best = TOK_JOB_NONE;
    unsigned  i;

    for (i = 0; i <= j->n; i++) {
        best = j->key[i] < best ? j->key[i] : best;
    }
    return best;
}

#endif


/* A pair that passed the filter: of job number n, the symbol at. */
typedef struct {
    uint8_t  n, at;
} tok_passed_t;


/* Those that pass among the pairs that were asked for. */
static inline size_t
tok_jobs_filter(const tok_t *t, tok_job_t *run[], size_t n, tok_passed_t *p)
{
    tok_job_t  *j;
    uint64_t    h;
    size_t      i, k = 0;
    unsigned    at;
    bool        may;

    for (i = 0; i < n; i++) {
        j = run[i];
        for (/* void */; j->open; j->open &= j->open - 1) {
            at = (unsigned) __builtin_ctzll(j->open);
            h = tok_pair_hash(j->ids[at],
                              j->ids[tok_job_behind(j->live, at)]);
            /* No branch, for nobody could foresee it. */
            may = tok_merge_may(t, h);
            p[k] = (tok_passed_t) { (uint8_t) i, (uint8_t) at };
            k += may;
            __builtin_prefetch(may ? (const void *)
                                     &t->merges[(uint32_t) (h >> 32)
                                                & t->merge_mask]
                               : j);
        }
    }
    return k;
}


/* Their merges. */
static inline void
tok_jobs_look(const tok_t *t, tok_job_t *run[], const tok_passed_t *p,
    size_t n)
{
    const tok_merge_t  *m;
    tok_job_t          *j;
    uint32_t            a, b;
    size_t              i;
    unsigned            at;

    for (i = 0; i < n; i++) {
        j = run[p[i].n];
        at = p[i].at;
        a = j->ids[at];
        b = j->ids[tok_job_behind(j->live, at)];
        m = tok_merge_get(t, a, b, tok_pair_hash(a, b));
        if (m != NULL) {
            j->key[at] = (int32_t) (m->rank << 6 | at);
            j->to[at] = m->to;
        }
    }
}


/* A merge; false: there is none left. */
static inline bool
tok_job_step(const tok_t *t, tok_job_t *j)
{
    int32_t   best = tok_job_lowest(j);
    unsigned  at, next;

    if (best == TOK_JOB_NONE) {
        return false;
    }
    at = best & 63;
    next = tok_job_behind(j->live, at);
    assert(at > 0 && next <= j->n && (j->live >> at & 1));
    j->ids[at] = j->to[at];
    j->key[next] = TOK_JOB_NONE;
    j->live &= ~((uint64_t) 1 << next);
    tok_job_ask(t, j, at, tok_job_behind(j->live, at));
    tok_job_ask(t, j, tok_job_before(j->live, at), at);
    return true;
}


/*
 * All jobs are at the same step, and each part of it is done for all: so what
 * one waits for does not hold up the others, and few branches depend on what
 * is found.
 */
static inline void
tok_jobs_run_all(const tok_t *t, tok_job_t *jobs[], size_t n)
{
    tok_passed_t  passed[TOK_JOBS * TOK_JOB_PLACES + 1];
    tok_job_t    *run[TOK_JOBS], *j;
    uint64_t      live;
    size_t        i, k, left = n;

    assert(n <= TOK_JOBS);
    memcpy(run, jobs, n * sizeof(run[0]));
    while (left) {
        k = tok_jobs_filter(t, run, left, passed);
        tok_jobs_look(t, run, passed, k);
        for (i = k = 0; i < left; i++) {
            run[k] = run[i];
            k += tok_job_step(t, run[i]);
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


#endif /* TOK_JOBS_STEPS_H */
