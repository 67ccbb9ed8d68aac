/*
 * The door to OpenBLAS, in a file of its own: a program that does not call it
 * (the worker: its own kernels take all products) does not load the library,
 * whose start takes 4 ms of CPU time in each process.
 */
#include <cblas.h>

#include "worker/kernels/kern_internal.h"


void
kern_sgemm(uint32_t m, uint32_t n, uint32_t k, const float *a, size_t lda,
    const float *b, size_t ldb, float *c, size_t ldc)
{
    KERN_ASSERT(m > 0 && n > 0 && k > 0);
    KERN_ASSERT(lda >= k && ldb >= k && ldc >= n && lda <= KERN_ROWS_MAX);

    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int) m, (int) n,
                (int) k, 1.0f, a, (int) lda, b, (int) ldb, 0.0f, c,
                (int) ldc);
}
