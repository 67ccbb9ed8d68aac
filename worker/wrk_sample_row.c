/* The row passes for any CPU, and the choice among the compiled ones. */

#define WRK_ROW_OPS  wrk_row_base

#include "worker/wrk_sample_row.inc"


const wrk_row_ops_t *
wrk_row_ops(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512vl")
        && __builtin_cpu_supports("avx512dq"))
    {
        return &wrk_row_avx512;
    }

    if (__builtin_cpu_supports("avx2")) {
        return &wrk_row_avx2;
    }
#endif

    return &wrk_row_base;
}
