/*
 * tok_fast.h: the shortcuts of encode, and the cached word that they share.
 */

#ifndef TOK_FAST_H
#define TOK_FAST_H


#include "tokenizer/tok_jobs.h"


/* Words that are gathered before the first of them is looked up. */
#define TOK_BATCH_WORDS  160

/* Of those, the last that wait on: the cache has not answered them yet. */
#define TOK_BATCH_WAIT   32

/* Room that a batch takes for ids beside those of the words. */
#define TOK_BATCH_ROOM   2048

/*
 * Words one after the other; their ids come in that order, at the latest with
 * tok_batch_end.  Up to end can be read; p stays as it is until then.  s->ids
 * has room for as many ids as there are bytes and TOK_BATCH_ROOM more, spans
 * are off.
 */
void tok_batch_begin(tok_scratch_t *s);
int tok_batch_word(const tok_t *t, tok_scratch_t *s, const uint8_t *p,
    size_t len, const uint8_t *end);
int tok_batch_end(const tok_t *t, tok_scratch_t *s);

/* The symbols of a word, if none is unknown (j->ids, j->n). */
bool tok_fast_spm_symbols(const tok_t *t, tok_scratch_t *s, const uint8_t *p,
    size_t len, tok_job_t *j);

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
