/*
 * Beam search over one source, as the reference implementation defines it:
 * hypotheses end at eos, score = sum of log probabilities / length^penalty.
 *
 * A search is a state that the caller steps, so that its tokens share
 * enc_step() with those of others:
 *
 *     n = enc_beam_want(b, t);  enc_step(e, t, n, rows);
 *     over = enc_beam_take(b, rows);
 *
 * It is made of *lanes*, one for each beam: a sequence and room for tokens,
 * all of it in the engine's memory plan.  There are limits.max_seqs_out of
 * them, for all searches and the sequences that the caller opens himself.
 */
#ifndef ENC_BEAM_H
#define ENC_BEAM_H

#include "worker/encoder/enc.h"

typedef struct {
    uint32_t  beams;              /* 1..ENC_BEAMS_MAX; 1: greedy             */
    uint32_t  max_new;            /* tokens with eos, <= max_out             */
    float     length_penalty;     /* usually 1                               */
    int       early_stopping;     /* stop at `beams` finished hypotheses     */
} enc_beam_opts_t;

typedef struct {
    uint32_t  token;
    float     logprob;            /* after those before it                   */
} enc_found_t;

typedef struct enc_beam  enc_beam_t;

/* ENG_EINVAL: options out of range, no such source; ENG_ENOSEQ: no lanes. */
int enc_beam_open(enc_t *e, uint32_t src, const enc_beam_opts_t *o,
    enc_beam_t **b);
/* At any time before its source is closed. */
void enc_beam_close(enc_beam_t *b);

/* The tokens of the next step: 1..beams of them, how many. */
uint32_t enc_beam_want(const enc_beam_t *b, enc_tok_t *t);
/* Their logits.  0: it goes on; 1: it is over; ENG_EINVAL: they are not
   finite; ENG_ENOKV: no page for a beam.  After an error: close it. */
int enc_beam_take(enc_beam_t *b, const float *const *logits);

/* When it is over: the best answer without start token, with eos if it ended;
   valid until the search is closed. */
const enc_found_t *enc_beam_best(const enc_beam_t *b, uint32_t *n,
    float *score);

/* A whole search, alone.  out[max_new]. */
int enc_beam(enc_t *e, uint32_t src, const enc_beam_opts_t *o,
    uint32_t *out, uint32_t *n_out, float *score);

#endif
