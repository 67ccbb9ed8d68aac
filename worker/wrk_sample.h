/*
 * From a row of logits to a token, and the log probabilities of a row.
 *
 * Order of the steps (as in vLLM and Hugging Face's logits processors):
 *   1. logit_bias is added;
 *   2. repetition penalty over prompt and generated tokens: a positive logit
 *      is divided by it, a negative one multiplied (Keskar et al., CTRL);
 *   3. presence and frequency penalties over generated tokens (OpenAI);
 *   4. temperature; 0 takes the largest logit, the smallest id among equals;
 *   5. min_p: drops what is less likely than min_p times the likeliest;
 *   6. top_k: keeps the k likeliest, the smaller ids among equals;
 *   7. top_p: keeps the smallest number of likeliest with that mass or more;
 *   8. one draw among what is left.
 *
 * Random numbers: Philox4x32-10 (Salmon et al., 2011), key = seed, counter =
 * (index of the token, choice): a result depends on nothing but the request.
 * All sums have a fixed order, equal on every instruction set.
 *
 * Who may call: inference worker, `infer` tool, tests.  A sampler belongs to
 * one thread; nothing allocates after create.
 */

#ifndef WRK_SAMPLE_H
#define WRK_SAMPLE_H

#include <stdint.h>

#include "shm/shr_msg.h"


#define WRK_SAMPLE_TOP_MAX   20u            /* alternatives with logprobs */
#define WRK_SAMPLE_VOCAB_MAX (1u << 22)
#define WRK_SAMPLE_NONE      UINT32_MAX     /* no finite logit in the row */


typedef struct wrk_sampler_s  wrk_sampler_t;

typedef struct {
    float              temperature;     /* 0: greedy */
    float              top_p;           /* (0, 1]; 1: off */
    float              min_p;           /* [0, 1]; 0: off */
    int32_t            top_k;           /* 0: off */
    float              repetition;      /* 1: off */
    float              presence;        /* 0: off */
    float              frequency;       /* 0: off */
    uint64_t           seed;
    uint32_t           choice;
    uint32_t           nbias;
    const shr_bias_t  *bias;            /* ids < vocab */
} wrk_sample_params_t;

typedef struct {
    uint32_t  id;
    float     logprob;                  /* natural; not below -9999 */
} wrk_logprob_t;


/* vocab: 1..WRK_SAMPLE_VOCAB_MAX.  NULL: no memory. */
wrk_sampler_t *wrk_sampler_create(uint32_t vocab);
void wrk_sampler_destroy(wrk_sampler_t *s);

/* Greedy, everything else off. */
void wrk_sample_params_init(wrk_sample_params_t *p);

/*
 * Picks the token that follows tokens[0..ntokens-1] (ids < vocab), of which
 * the first nprompt are the prompt.  logits has vocab floats and is not
 * changed; NaN counts as minus infinity.  WRK_SAMPLE_NONE: no finite logit.
 */
uint32_t wrk_sample(wrk_sampler_t *s, const wrk_sample_params_t *p,
    const float *logits, const uint32_t *tokens, uint32_t nprompt,
    uint32_t ntokens);

/*
 * Log probabilities of the raw row (no bias, penalty or temperature): out[0]
 * is the chosen token, out[1..] the ntop likeliest, likeliest first.  out has
 * room for 1 + ntop; ntop <= WRK_SAMPLE_TOP_MAX.  Returns the entries set.
 */
uint32_t wrk_sample_logprobs(wrk_sampler_t *s, const float *logits,
    uint32_t chosen, uint32_t ntop, wrk_logprob_t *out);

/* The generator itself: 64 random bits of (seed, choice, index). */
uint64_t wrk_sample_random(uint64_t seed, uint32_t choice, uint32_t index);


#endif /* WRK_SAMPLE_H */
