/* Stamp of the row and attention templates for AVX2. */
#define KERN_NAME(op)   op##__avx2
#define KERN_ATTN_T     3
#define KERN_ATTN_WIDE  0
#define KERN_FULL_Q     4
#define KERN_FULL_G     1

#include "worker/kernels/kern_rows.inc"
#include "worker/kernels/kern_attn.inc"
#include "worker/kernels/kern_full.inc"
