/*
 * tok_jobs.c: byte-pair merges of several short words side by side; the same
 * merges in the same order as tok_bpe.c makes them in one word.
 */

#include "tokenizer/tok_jobs.h"


#define NONE   UINT32_MAX
#define NO_AT  0xff


/* The merge of two symbols will be looked up. */
static inline void
ask(const tok_t *t, uint32_t a, uint32_t b)
{
    uint32_t  at = (uint32_t) (tok_pair_hash(a, b) >> 32);

    __builtin_prefetch(&t->filter[at & t->filter_mask]);
    __builtin_prefetch(&t->merges[at & t->merge_mask]);
}


static inline void
answer(const tok_t *t, tok_job_t *j, unsigned at, unsigned next)
{
    const tok_merge_t  *m = tok_merge_find(t, j->ids[at], j->ids[next]);

    j->key[at] = m == NULL ? NONE : m->rank << 6 | at;
    j->to[at] = m == NULL ? TOK_NO_ID : m->to;
}


/* The live place behind at; NO_AT: there is none. */
static inline unsigned
behind(uint64_t live, unsigned at)
{
    live &= ~(uint64_t) 1 << at & ~(uint64_t) 0 << at;
    return live ? (unsigned) __builtin_ctzll(live) : NO_AT;
}


void
tok_job_begin(const tok_t *t, tok_job_t *j, const uint8_t *bytes)
{
    tok_pair_t  pair;
    unsigned    i, n = j->n;

    assert(n > 0 && n <= TOK_JOB_SYMBOLS);
    j->live = n == 64 ? ~(uint64_t) 0 : ((uint64_t) 1 << n) - 1;
    j->left = j->at = NO_AT;
    for (i = 0; i + 1 < n; i++) {
        if (bytes == NULL) {
            ask(t, j->ids[i], j->ids[i + 1]);
            continue;
        }
        pair = t->pairs[bytes[i] << 8 | bytes[i + 1]];
        j->key[i] = pair.rank == NONE ? NONE : pair.rank << 6 | i;
        j->to[i] = pair.to;
    }
    j->key[n - 1] = NONE;
    if (bytes == NULL) {
        j->left = 0;                /* all pairs are yet to be looked up */
    }
}


/* The lowest rank, of equals the leftmost. */
static inline uint32_t
lowest(const tok_job_t *j)
{
    uint32_t  a = NONE, b = NONE, x, y;
    unsigned  i;

    for (i = 0; i + 1 < j->n; i += 2) {
        x = j->key[i];
        y = j->key[i + 1];
        a = x < a ? x : a;
        b = y < b ? y : b;
    }
    return a < b ? a : b;
}


/* What the step before has asked for. */
static inline void
hear(const tok_t *t, tok_job_t *j)
{
    unsigned  i, next;

    if (j->at == NO_AT) {
        if (j->left != NO_AT) {
            for (i = 0; i + 1 < j->n; i++) {
                answer(t, j, i, i + 1);
            }
        }
        return;
    }
    if (j->left != NO_AT) {
        answer(t, j, j->left, j->at);
    }
    next = behind(j->live, j->at);
    if (next != NO_AT) {
        answer(t, j, j->at, next);
    }
}


/* One merge; false: there is none left. */
static inline bool
step(const tok_t *t, tok_job_t *j)
{
    uint32_t  best;
    uint64_t  before;
    unsigned  at, next;

    hear(t, j);
    best = lowest(j);
    if (best == NONE) {
        return false;
    }
    at = best & 63;
    next = behind(j->live, at);
    assert(next != NO_AT && (j->live >> at & 1));
    j->ids[at] = j->to[at];
    j->key[at] = j->key[next] = NONE;
    j->live &= ~((uint64_t) 1 << next);
    next = behind(j->live, at);
    if (next != NO_AT) {
        ask(t, j->ids[at], j->ids[next]);
    }
    before = j->live & (((uint64_t) 1 << at) - 1);
    j->at = (uint8_t) at;
    j->left = NO_AT;
    if (before) {
        j->left = (uint8_t) (63 - __builtin_clzll(before));
        ask(t, j->ids[j->left], j->ids[at]);
    }
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
        for (k = 0, live = j->live; live; live &= live - 1) {
            j->ids[k++] = j->ids[__builtin_ctzll(live)];
        }
        j->n = (uint32_t) k;
    }
}
