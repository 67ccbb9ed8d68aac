/*
 * tok_jobs_steps.h: how jobs are merged, for files that are compiled for
 * several kinds of processors.
 */

#ifndef TOK_JOBS_STEPS_H
#define TOK_JOBS_STEPS_H


#include "tokenizer/tok_jobs_lowest.h"


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


/* A pair whose merge is to be looked up: of job number n, the symbol at and the
 * next; slot is the first that can have it, if it passes the filter. */
typedef struct {
    uint32_t  ids[2];
    uint32_t  slot;
    uint8_t   n, at;
} tok_pair_job_t;

/* Such pairs at once. */
#define TOK_JOB_PAIRS  512

_Static_assert(TOK_JOB_PAIRS >= TOK_JOB_PLACES + 2 * TOK_JOBS,
               "two pairs of each job, or all of one");


/* The merge of two symbols will be looked up: first in the filter. */
static inline void
tok_job_ask(const tok_t *t, tok_job_t *j, size_t n, unsigned at,
    unsigned next, tok_pair_job_t *p)
{
    uint64_t  h = tok_pair_hash(j->ids[at], j->ids[next]);

    p->ids[0] = j->ids[at];
    p->ids[1] = j->ids[next];
    p->n = (uint8_t) n;
    p->at = (uint8_t) at;
    __builtin_prefetch(&t->filter[(uint32_t) (h >> 32) & t->filter_mask]);
    j->key[at] = TOK_JOB_NONE;
}


/* Those that pass among n pairs. */
static inline size_t
tok_jobs_filter(const tok_t *t, tok_pair_job_t *p, size_t n)
{
    const uint64_t     *filter = t->filter;
    const tok_merge_t  *merges = t->merges;
    uint32_t            mask = t->filter_mask, merge_mask = t->merge_mask;
    uint32_t            slot;
    uint64_t            h, bits;
    size_t              i, k = 0;
    bool                may;

    for (i = 0; i < n; i++) {
        h = tok_pair_hash(p[i].ids[0], p[i].ids[1]);
        bits = tok_filter_bits(h);
        slot = (uint32_t) (h >> 32);
        /* No branch, for nobody could foresee it: those that do not pass ask
         * for the first merge. */
        may = (filter[slot & mask] & bits) == bits;
        slot &= merge_mask;
        p[k] = p[i];
        p[k].slot = slot;
        k += may;
        __builtin_prefetch(&merges[slot & (0 - (uint32_t) may)]);
    }
    return k;
}


/* The merge of a pair, or the free slot where it would be. */
static const tok_merge_t *
tok_jobs_merge(const tok_t *t, const tok_pair_job_t *p)
{
    const tok_merge_t  *m;
    uint32_t            slot = p->slot;

    do {
        m = &t->merges[slot];
        slot = (slot + 1) & t->merge_mask;
    } while ((m->a != p->ids[0] || m->b != p->ids[1]) && m->a != TOK_NO_ID);
    return m;
}


static inline bool
tok_job_is(const tok_merge_t *m, uint64_t ids)
{
    return tok_load64(&m->a) == ids;
}


/*
 * The merges of pairs that passed.  Two slots nearly always tell, and which of
 * them does, and what, is no branch.
 */
static inline void
tok_jobs_look(const tok_t *t, tok_job_t *run[], const tok_pair_job_t *p,
    size_t n)
{
    const tok_merge_t  *m, *next;
    const uint32_t      mask = t->merge_mask;
    tok_job_t          *j;
    uint64_t            ids;
    size_t              i;
    unsigned            at;
    bool                here, there;

    for (i = 0; i < n; i++, p++) {
        j = run[p->n];
        at = p->at;
        ids = tok_load64(p->ids);
        m = &t->merges[p->slot];
        next = &t->merges[(p->slot + 1) & mask];
        here = tok_job_is(m, ids);
        there = tok_job_is(next, ids);
        if (__builtin_expect(!(here | there | (m->a == TOK_NO_ID)
                               | (next->a == TOK_NO_ID)), 0))
        {
            next = tok_jobs_merge(t, p);
            there = tok_job_is(next, ids);
        }
        m = here ? m : next;
        j->key[at] = here | there ? (int32_t) (m->rank << 6 | at)
                     : TOK_JOB_NONE;
        j->to[at] = m->to;
    }
}


/* A merge of job number n, and the two pairs that it makes; false: there is
 * none left. */
static inline bool
tok_job_step(const tok_t *t, tok_job_t *j, size_t n, tok_pair_job_t *p)
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
    tok_job_ask(t, j, n, at, tok_job_behind(j->live, at), p);
    tok_job_ask(t, j, n, tok_job_before(j->live, at), at, p + 1);
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
    tok_pair_job_t  pairs[TOK_JOB_PAIRS];
    tok_job_t      *run[TOK_JOBS], *j;
    uint64_t        live;
    size_t          i, k, pending = 0, left = n;
    unsigned        at;

    assert(n <= TOK_JOBS);
    memcpy(run, jobs, n * sizeof(run[0]));
    for (i = 0; i < n; i++) {
        j = jobs[i];
        if (pending + j->n > TOK_JOB_PAIRS) {
            pending = tok_jobs_filter(t, pairs, pending);
            tok_jobs_look(t, run, pairs, pending);
            pending = 0;
        }
        for (at = 1; j->open && at < j->n; at++) {
            tok_job_ask(t, j, i, at, at + 1, &pairs[pending++]);
        }
    }
    while (left) {
        pending = tok_jobs_filter(t, pairs, pending);
        tok_jobs_look(t, run, pairs, pending);
        for (i = k = pending = 0; i < left; i++) {
            run[k] = run[i];
            if (tok_job_step(t, run[i], k, &pairs[pending])) {
                pending += 2;
                k++;
            }
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
