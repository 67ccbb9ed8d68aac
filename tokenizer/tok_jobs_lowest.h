/*
 * tok_jobs_lowest.h: the merge of a job that is next, for files that are
 * compiled for several kinds of processors.
 */

#ifndef TOK_JOBS_LOWEST_H
#define TOK_JOBS_LOWEST_H


#include "tokenizer/tok_jobs.h"

#ifdef __SSE2__
#include <immintrin.h>
#endif


#define TOK_JOB_NONE   INT32_MAX            /* of keys: no merge */


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


#endif /* TOK_JOBS_LOWEST_H */
