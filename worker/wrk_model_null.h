/*
 * The null engine: everything of a request's way but the model.  It answers
 * with a fixed text, a token for each step, and pretends that a step takes
 * delay_us on a device of its own.  For measuring and testing what surrounds
 * the arithmetic.
 */

#ifndef WRK_MODEL_NULL_H
#define WRK_MODEL_NULL_H

#include <stdint.h>

#include "tokenizer/tok.h"
#include "worker/engine/eng.h"


typedef struct {
    const tok_t  *tok;                  /* outlives the engine */
    uint32_t      delay_us;             /* of a step; 0: none */
    uint32_t      tokens;               /* of an answer; 0: no end by itself */
    uint32_t      max_seqs;
    uint32_t      ctx_len;
    uint32_t      max_batch_tokens;
} wrk_null_opts_t;


/* 0, or -1 when memory is short or the text cannot be tokenized. */
int wrk_null_create(const wrk_null_opts_t *opts, eng_t *eng);


#endif /* WRK_MODEL_NULL_H */
