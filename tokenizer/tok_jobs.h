/*
 * tok_jobs.h: several words merged at once, a step of each in turn: what a
 * step needs from the tables is asked for when the step before ends, and
 * the memory answers while the others have theirs.
 */

#ifndef TOK_JOBS_H
#define TOK_JOBS_H


#include "tokenizer/tok_core.h"


#define TOK_JOBS         32         /* words at once */
#define TOK_JOB_SYMBOLS  48

/* One word; ids, n are the symbols to merge, and the result. */
typedef struct {
    uint32_t  ids[TOK_JOB_SYMBOLS];
    uint32_t  key[TOK_JOB_SYMBOLS]; /* rank << 6 | its place */
    uint32_t  to[TOK_JOB_SYMBOLS];
    uint64_t  live;                 /* places that are not merged away */
    uint32_t  n;
    uint8_t   left, at;             /* pairs that changed: left, at; at, - */
} tok_job_t;

_Static_assert(TOK_JOB_SYMBOLS <= 64, "a place has six bits");
_Static_assert(TOK_MERGES_MAX <= 1u << 23, "a rank has 23 bits");

/* bytes: what the n (1 ... TOK_JOB_SYMBOLS) symbols are if each is one byte of
 * a byte-level word, else NULL. */
void tok_job_begin(const tok_t *t, tok_job_t *j, const uint8_t *bytes);

/* Merges n jobs (up to TOK_JOBS) that have begun. */
void tok_jobs_run(const tok_t *t, tok_job_t *jobs[], size_t n);


#endif /* TOK_JOBS_H */
