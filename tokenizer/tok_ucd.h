/*
 * tok_ucd.h: grapheme clusters, inside the tokenizer.
 */

#ifndef TOK_UCD_H
#define TOK_UCD_H


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


#endif /* TOK_UCD_H */
