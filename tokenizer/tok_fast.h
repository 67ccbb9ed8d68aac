/*
 * tok_fast.h: the shortcuts of encode, and the cached word that they share.
 */

#ifndef TOK_FAST_H
#define TOK_FAST_H


#include "tokenizer/tok_core.h"


/*
 * One word, up to end can be read; s->ids has room for len ids and 8 more,
 * and spans are off.
 */
int tok_fast_word(const tok_t *t, tok_scratch_t *s, const uint8_t *p,
    size_t len, const uint8_t *end);

/* tok_fast_words.c: words of the other models, as their caches key them. */
int tok_fast_spm_word(const tok_t *t, tok_scratch_t *s, const uint8_t *p,
    size_t len);
int tok_fast_unigram_word(const tok_t *t, tok_scratch_t *s, const uint8_t *p,
    size_t len);

/*
 * A text between added tokens; *done is false if the shortcut does not apply
 * to it, and nothing was written then.
 */
int tok_fast_spm(const tok_t *t, tok_scratch_t *s, const uint8_t *text,
    size_t len, bool *done);
int tok_fast_wordpiece(const tok_t *t, tok_scratch_t *s, const uint8_t *text,
    size_t len, bool *done);
int tok_fast_unigram(const tok_t *t, tok_scratch_t *s, const uint8_t *text,
    size_t len, bool *done);


#endif /* TOK_FAST_H */
