/*
 * tok_unicode.h: character classes (TOK_U_* of tok_classes.inc) and repair of
 * UTF-8, inside the tokenizer.
 */

#ifndef TOK_UNICODE_H
#define TOK_UNICODE_H


#include "tokenizer/tok_int.h"


extern const uint16_t *const  tok_class_rows;
extern const uint16_t *const  tok_class_rows_index;

/* The property word of a code point (below 0x110000). */
static inline uint32_t
tok_class(uint32_t cp)
{
    return tok_class_rows[(uint32_t) tok_class_rows_index[cp >> 7] * 128
                          + (cp & 127)];
}


/* How many bytes from p on are surely whole characters; where that is not all,
 * a mistake or the end of the text follows within 35 bytes.  For processors
 * with AVX2. */
size_t tok_utf8_good_avx2(const uint8_t *p, size_t len);

size_t tok_utf8_prefix(const uint8_t *p, size_t left, bool *good, bool *cut);


#endif /* TOK_UNICODE_H */
