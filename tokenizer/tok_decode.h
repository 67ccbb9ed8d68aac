/*
 * tok_decode.h: what decode, the stream and the list decoder share.
 */

#ifndef TOK_DECODE_H
#define TOK_DECODE_H


#include "tokenizer/tok_core.h"


tok_ref_t tok_piece_of(const tok_t *t, uint32_t id, bool first, bool last);
bool tok_skipped(const tok_t *t, uint32_t id, unsigned flags);

/* tok_decode_list.c: any decoder program, step by step on token lists. */
int tok_decode_general(const tok_t *t, tok_scratch_t *s, const uint32_t *ids,
    size_t n, unsigned flags, const char **text, size_t *len);

/* One token through one step; the result is added to out. */
int tok_decode_op(const tok_t *t, tok_scratch_t *s, const tok_op_t *op,
    tok_vec_t *out, const uint8_t *p, size_t len, bool first, bool last);
int tok_byte_token(const uint8_t *p, size_t len);

int tok_append(tok_scratch_t *s, tok_vec_t *out, const void *p, size_t len);


#endif /* TOK_DECODE_H */
