/*
 * tok_jobs_avx2.c: jobs where eight keys are compared at once.
 */

#include "tokenizer/tok_jobs_steps.h"


#ifdef __AVX2__

void
tok_jobs_run_avx2(const tok_t *t, tok_job_t *jobs[], size_t n)
{
    tok_jobs_run_all(t, jobs, n);
}


#endif
