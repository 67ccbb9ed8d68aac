/* Stamp of the float matrix products for AVX2. */
#define KERN_NAME(op)       op##__avx2
#define KERN_TILE_GROUPS    1u
#define KERN_TILE_COLS      4

#include "worker/kernels/kern_matmul_float.inc"
