/*
 * tok_ucd.h: grapheme clusters and characters one by one, inside the tokenizer.
 */

#ifndef TOK_UCD_H
#define TOK_UCD_H


#include <stdbool.h>
#include <stdint.h>


/* Grapheme_Cluster_Break, numbered as in tools/gen_ucd.py. */
enum {
    TOK_G_OTHER, TOK_G_CR, TOK_G_LF, TOK_G_CONTROL, TOK_G_EXTEND, TOK_G_ZWJ,
    TOK_G_RI, TOK_G_PREPEND, TOK_G_SPACING, TOK_G_L, TOK_G_V, TOK_G_T,
    TOK_G_LV, TOK_G_LVT, TOK_G_PICT
};

/* Indic_Conjunct_Break. */
enum { TOK_C_NONE, TOK_C_CONSONANT, TOK_C_LINKER, TOK_C_EXTEND = 4 };

uint32_t tok_cluster_class(uint32_t cp);
uint32_t tok_conjunct_class(uint32_t cp);

/*
 * What one character of a word becomes by itself, whatever is beside it: in
 * form D without its marks (marks: these are taken away), in lower case
 * (lower).  Writes up to TOK_FORM_BYTES; returns how many, or -1 where that
 * depends on others or where something comes out that may end a word.
 */
#define TOK_FORM_BYTES  256

int tok_form_alone(uint32_t c, bool marks, bool lower, uint8_t *out);

/* Whether the same leaves c as it is. */
bool tok_form_same(uint32_t c, bool marks, bool lower);


#endif /* TOK_UCD_H */
