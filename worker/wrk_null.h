/*
 * The null engine: the operations of an engine, and no model.  Every sequence
 * gets the same text of a given number of tokens and then the end token; a
 * step is done at once, or after a delay that stands for an accelerator (off
 * the CPU: the step says when its result may be used).  It measures what
 * everything around the engine costs.
 *
 * Who may call: an inference worker with `null 1`, tests, benches.
 */

#ifndef WRK_NULL_H
#define WRK_NULL_H

#include <stdint.h>

#include "tokenizer/tok.h"
#include "worker/engine/eng.h"


#define WRK_NULL_TOKENS_MAX   1000000u
#define WRK_NULL_DELAY_US_MAX 60000000u
#define WRK_NULL_CONTEXT      8192u


typedef struct {
    uint32_t  tokens;               /* of an answer, before the end token */
    uint32_t  delay_us;             /* of a step */
    uint32_t  sequences;            /* 0: ENG_SEQS_MAX */
    uint32_t  context;              /* 0: WRK_NULL_CONTEXT */
    uint32_t  batch;                /* 0: ENG_BATCH_MAX */
} wrk_null_opts_t;


/*
 * Fills eng; end it with eng_destroy().  tok supplies the vocabulary and the
 * text's tokens and is not kept.  0, or ENG_EINVAL (an option above its
 * maximum), ENG_ENOMEM, ENG_EUNSUP (the tokenizer cannot encode the text).
 */
int wrk_null_create(const wrk_null_opts_t *opts, const tok_t *tok,
    eng_t *eng);


#endif /* WRK_NULL_H */
