/* The row passes, compiled for AVX512; the Makefile goes by the file's name. */

#define WRK_ROW_OPS  wrk_row_avx512

#include "worker/wrk_sample_row.inc"
