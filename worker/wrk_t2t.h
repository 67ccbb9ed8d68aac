/*
 * Text-to-text models (encoder and decoder) behind the operations of an engine
 * that generates (eng.h), so that one scheduler serves both: a prompt is the
 * encoder's input, the answer's positions follow it.
 *
 * A sequence gathers its prompt, in chunks or not; the first token with logits
 * ends it: the prompt is encoded and the decoder begins.  From there on each
 * token of the sequence is one decoder step.  Pages are an account only, with
 * room for every sequence at its longest, so that no sequence is ever computed
 * again (what was prompt and what was answer could not be told apart).
 *
 * Who may call: an inference worker, tests.  The scheduler must not reuse
 * prefixes, speculate, or ask for logits within a prompt.
 *
 * An answer may also be searched (enc_beam.h): then each token of the sequence
 * is one step of the search, whatever the token, with a row of the decoder's
 * batch for each beam, and there are no logits.  A search takes as many of the
 * engine's `sequences` as it has beams; the caller counts them.
 */

#ifndef WRK_T2T_H
#define WRK_T2T_H

#include "worker/encoder/enc_beam.h"
#include "worker/engine/eng.h"


#define WRK_T2T_PAGE   64u
#define WRK_T2T_OUT    512u             /* tokens of an answer, at most */


/* How many sequences fit into so many bytes of keys and values, the prompts
 * and answers at their longest; at least 1, at most `want`. */
uint32_t wrk_t2t_sequences(const enc_info_t *info, uint32_t max_out,
    uint64_t bytes, uint32_t want);

/*
 * Takes over the engine (when it returns 0; end it with eng_destroy()), not the
 * model.  `sequences` as wrk_t2t_sequences() has it, with the same max_out as
 * the engine's; batch: tokens of a step.  ENG_ENOMEM.
 */
int wrk_t2t_open(eng_t *eng, const enc_model_t *model, enc_t *enc,
    uint32_t sequences, uint32_t batch);

/* The next answer of this sequence, which is empty, is searched; it forgets
 * that when it is emptied.  eng is one of these engines. */
void wrk_t2t_search(eng_t *eng, uint32_t seq, const enc_beam_opts_t *o);

/* 1: the search is over, *found points to *n tokens, n > 0, until the sequence
 * is emptied; 0: not yet; ENG_EINVAL: the model's logits were not finite. */
int wrk_t2t_found(eng_t *eng, uint32_t seq, const enc_found_t **found,
    uint32_t *n);


#endif /* WRK_T2T_H */
