/*
 * tok_jobs.h: several words merged at once, a step of each in turn: what a
 * step needs from the tables is asked for when the step before ends, and
 * the memory answers while the others have theirs.
 */

#ifndef TOK_JOBS_H
#define TOK_JOBS_H


#include "tokenizer/tok_core.h"


#define TOK_JOBS         64         /* words at once */
#define TOK_JOB_SYMBOLS  48
#define TOK_JOB_PLACES   56

/*
 * One word; ids[0 ... n - 1] are the symbols to merge, and the result.  While
 * it is merged they are ids[1 ... n], with an id that nothing merges with at
 * both ends, so that all have neighbours.  In the end live says where they
 * begin, from bit 1 on, and has the bit behind the last symbol.
 */
typedef struct {
    _Alignas(16) int32_t  key[TOK_JOB_PLACES];  /* rank << 6 | its place */
    uint32_t  ids[TOK_JOB_PLACES];
    uint32_t  to[TOK_JOB_PLACES];
    uint64_t  live;                 /* places that are not merged away */
    bool      open;                 /* the pairs are yet to be looked up */
    uint32_t  n;
    uint32_t  symbols;              /* the caller's */
} tok_job_t;

_Static_assert(TOK_JOB_PLACES <= 64 && TOK_JOB_PLACES % 8 == 0
               && TOK_JOB_SYMBOLS + 2 <= TOK_JOB_PLACES,
               "a place has six bits; keys are read by eight");
_Static_assert(TOK_MERGES_MAX <= 1u << 23, "a rank has 23 bits");

/* The n (1 ... TOK_JOB_SYMBOLS) symbols are one byte of a byte-level word each,
 * or, if bytes is NULL, those in ids. */
void tok_job_begin(const tok_t *t, tok_job_t *j, const uint8_t *bytes);

/* Merges n jobs (up to TOK_JOBS) that have begun; the second needs a processor
 * with AVX2. */
void tok_jobs_run(const tok_t *t, tok_job_t *jobs[], size_t n);
void tok_jobs_run_avx2(const tok_t *t, tok_job_t *jobs[], size_t n);


#endif /* TOK_JOBS_H */
