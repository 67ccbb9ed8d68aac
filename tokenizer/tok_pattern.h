/*
 * tok_pattern.h: patterns that no scanner knows, run by PCRE2 with JIT and a
 * match limit.
 */

#ifndef TOK_PATTERN_H
#define TOK_PATTERN_H


#include "tokenizer/tok_core.h"


typedef struct {
    size_t  begin, end;
    bool    match;
} tok_cut_t;

/* Compiles every pattern of a bound vocabulary into t->re. */
int tok_pattern_compile(tok_t *t, tok_err_t *err);
void tok_pattern_free(tok_t *t);

/*
 * The next match of op's pattern in text from at on: 1, 0 (none) or an error.
 * op must be one of t's.
 */
int tok_pattern_next(const tok_t *t, tok_scratch_t *s, const tok_op_t *op,
    const uint8_t *text, size_t len, size_t at, size_t *begin, size_t *end);

void *tok_pattern_match_new(void);
void tok_pattern_match_free(void *match);


#endif /* TOK_PATTERN_H */
