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
 */

#ifndef WRK_T2T_H
#define WRK_T2T_H

#include "worker/encoder/enc.h"
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


#endif /* WRK_T2T_H */
