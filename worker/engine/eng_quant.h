/*
 * Quantisation: rows of floats into the blocks of GGUF's simple types, 32
 * values each.  Used while weights are packed and by `infer convert`.
 */
#ifndef ENG_QUANT_H
#define ENG_QUANT_H

#include <stdint.h>

#include "worker/engine/eng_gguf.h"
#include "worker/kernels/kern.h"

/*
 * The type for a name ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1"), or
 * ENG_QUANT_NONE for NULL, "" and "none"; ENG_EINVAL with a message for any
 * other.
 */
#define ENG_QUANT_NONE  KERN_F32
int eng_quant_type(const char *name, kern_wtype_t *type, eng_err_t *err);

/*
 * What a matrix of that GGUF name becomes: `to` where it holds floats and its
 * rows are whole blocks.  Embedding and output matrix get 8 bits at least;
 * small deciding ones (routers of experts) stay as they are, and so does what
 * is quantised already.
 */
kern_wtype_t eng_quant_choice(const char *name, kern_wtype_t from,
    kern_wtype_t to, uint64_t cols);

/*
 * n values (a multiple of 32) into dst: kern_gguf_row_bytes(type, n).  0, or
 * -1: a value is not finite or the scale does not fit a half.
 */
int eng_quant_row(kern_wtype_t type, const float *x, uint32_t n,
    uint8_t *dst);

#endif
