/* Stamp of the row and attention templates for AVX-512. */
#define KERN_NAME(op)   op##__avx512
#define KERN_ATTN_T     6
#define KERN_ATTN_WIDE  1
#define KERN_FULL_Q     8
#define KERN_FULL_G     2

#include "worker/kernels/kern_rows.inc"
#include "worker/kernels/kern_attn.inc"
#include "worker/kernels/kern_full.inc"
