/*
 * tok_win.h: pieces of a pattern found 64 bytes at a time, with one bit for
 * each byte.  It knows ASCII only and says how far it is sure; tok_scan does
 * the rest and is what it must agree with.
 */

#ifndef TOK_WIN_H
#define TOK_WIN_H


#include "tokenizer/tok_int.h"


#define TOK_WIN_BYTES  64

/* Bit i: byte i of the window is such a character. */
typedef struct {
    uint64_t  letter, upper, digit;
    uint64_t  space, blank, brk;    /* white space; ' '; \r and \n */
    uint64_t  quote, slash;
    uint64_t  control;              /* ASCII that none of \s \p{P} ... has */
    uint64_t  high;                 /* not ASCII */
} tok_win_t;

/* The classes of 64 bytes: as fast as this processor can, the plain way that
 * the others must agree with, and what one needs certain processors for. */
void tok_win_classes(tok_win_t *w, const uint8_t *p);
void tok_win_classes_ref(tok_win_t *w, const uint8_t *p);
void tok_win_classes_avx2(tok_win_t *w, const uint8_t *p);
void tok_win_classes_avx512(tok_win_t *w, const uint8_t *p);

/* Whether tok_win_ends knows the pattern (TOK_R_*). */
bool tok_win_knows(uint32_t scan);

/*
 * p is where a piece begins, left > 0 the bytes to the end of the text.  Bit i
 * of the result: a piece ends, and the next begins, at p + i (1 <= i <= 63).
 * 0: nothing is sure.
 */
uint64_t tok_win_ends(uint32_t scan, const uint8_t *p, size_t left);


#endif /* TOK_WIN_H */
