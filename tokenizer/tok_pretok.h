/*
 * tok_pretok.h: pre-tokenizers, on the pieces of the normalized text.
 */

#ifndef TOK_PRETOK_H
#define TOK_PRETOK_H


#include "tokenizer/tok_core.h"


/* s->norm and s->pieces through all steps; pieces with an id stay whole. */
int tok_pretokenize(const tok_t *t, tok_scratch_t *s);

/* The script of a character, numbered by us; 0: any (tok_scripts.c). */
uint32_t tok_script(uint32_t cp);


#endif /* TOK_PRETOK_H */
