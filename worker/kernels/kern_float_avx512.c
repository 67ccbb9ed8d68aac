/* Stamp of the float matrix products for AVX-512. */
#define KERN_NAME(op)       op##__avx512
#define KERN_TILE_GROUPS    2u
#define KERN_TILE_COLS      8

#include "worker/kernels/kern_matmul_float.inc"
