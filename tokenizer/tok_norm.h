/*
 * tok_norm.h: normalizers, and the text with alignments that they work on.
 */

#ifndef TOK_NORM_H
#define TOK_NORM_H


#include "tokenizer/tok_core.h"


/*
 * One edit of a text: the source is read in order, characters are written
 * with a change as in the reference: 0 replaces the next source character,
 * n > 0 is new (it stands for what the character before it stands for), n < 0
 * replaces one and drops -n more.
 */
typedef struct {
    tok_scratch_t     *s;
    const uint8_t     *text;        /* source */
    const tok_span_t  *align;       /* NULL: alignments are not kept */
    size_t             len;
    size_t             at;
    uint32_t           shift;       /* original offset of the source's start */
    tok_ntext_t       *out;
    int                rc;
} tok_edit_t;

void tok_edit_begin(tok_edit_t *e, tok_scratch_t *s, const tok_ntext_t *in,
    size_t begin, size_t end, uint32_t shift, tok_ntext_t *out);
void tok_edit_put(tok_edit_t *e, uint32_t c, int change);
void tok_edit_skip(tok_edit_t *e, size_t chars);
void tok_edit_copy(tok_edit_t *e, size_t len);  /* whole characters, as is */

/* Replaces len source bytes by content, as the reference's replace does. */
void tok_edit_replace(tok_edit_t *e, size_t len, const uint8_t *content,
    size_t content_len);

/* s->norm becomes the normalized text; base: offset of text in the input. */
int tok_normalize(const tok_t *t, tok_scratch_t *s, const uint8_t *text,
    size_t len, size_t base);

/* Without alignments, for single strings; the result lies in the scratch. */
int tok_normalize_plain(const tok_t *t, tok_scratch_t *s, tok_str_t text,
    tok_str_t *norm);

/* tok_ucd.c: canonical and compatibility forms, case. */
int tok_edit_form(tok_edit_t *e, uint16_t type);
int tok_edit_lower(tok_edit_t *e);

/* True if the text is surely in form C: no character changes by itself or may
 * compose with one before it, and marks are in order. */
bool tok_is_nfc_sure(const uint8_t *p, size_t len);

/* tok_charsmap.c */
int tok_edit_charsmap(const tok_t *t, const tok_op_t *op, tok_edit_t *e);


#endif /* TOK_NORM_H */
