/*
 * tok_jobs.c: byte-pair merges of several short words side by side; the same
 * merges in the same order as tok_bpe.c makes them in one word.
 */

#include "tokenizer/tok_jobs_steps.h"


void
tok_job_begin(const tok_t *t, tok_job_t *j, const uint8_t *bytes)
{
    tok_pair_t  pair;
    unsigned    i, n = j->n;

    assert(n > 0 && n <= TOK_JOB_SYMBOLS);
    if (bytes == NULL) {
        memmove(j->ids + 1, j->ids, n * sizeof(j->ids[0]));

    } else {
        for (i = 0; i < n; i++) {
            j->ids[i + 1] = t->byte_ids[bytes[i]];
        }
    }
    j->ids[0] = j->ids[n + 1] = TOK_NO_ID;
    j->live = ((uint64_t) 1 << (n + 2)) - 1;
    j->open = bytes == NULL;
    j->key[0] = TOK_JOB_NONE;
    for (i = 1; i < n; i++) {
        j->key[i] = TOK_JOB_NONE;
        if (bytes == NULL) {
            continue;
        }
        pair = t->pairs[bytes[i - 1] << 8 | bytes[i]];
        j->key[i] = pair.rank == UINT32_MAX ? TOK_JOB_NONE
                    : (int32_t) (pair.rank << 6 | i);
        j->to[i] = pair.to;
    }
    do {
        j->key[i++] = TOK_JOB_NONE;
    } while (i < 16 || i % 8);
}


void
tok_jobs_run(const tok_t *t, tok_job_t *jobs[], size_t n)
{
#ifdef __SSE2__
    if (__builtin_cpu_supports("avx2")) {
        tok_jobs_run_avx2(t, jobs, n);
        return;
    }
#endif
    tok_jobs_run_all(t, jobs, n);
}
