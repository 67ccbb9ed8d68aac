/*
 * tok_ggml.h: the kinds of GGUF vocabularies.
 */

#ifndef TOK_GGML_H
#define TOK_GGML_H


#include "tokenizer/tok_build.h"


/* One step; s and r are C strings or NULL. */
int tok_ggml_op(tok_build_t *b, tok_vec_t *list, uint16_t type, uint32_t a,
    uint32_t c, const char *s, const char *r);

/* Ids around the text; TOK_NO_ID: none. */
int tok_ggml_template(tok_build_t *b, uint32_t before, uint32_t between,
    uint32_t after, uint32_t type_b);

/* id if the flag says so, or is absent and otherwise is true. */
uint32_t tok_ggml_if(int flag, bool otherwise, uint32_t id);

/*
 * tok_ggml_pre.c: false if no tokenizer.ggml.pre of this name is known; else
 * *at is for the others: whether texts begin with bos if the file does not
 * say, and the normalizers and pre-tokenizers of that name.
 */
bool tok_ggml_pre_find(tok_str_t name, size_t *at);
bool tok_ggml_pre_bos(size_t at);
int tok_ggml_pre(tok_build_t *b, size_t at);

/* Tokens and added tokens are there for gpt2 and t5 only. */
int tok_ggml_llama(tok_build_t *b, const tok_gguf_t *g);
int tok_ggml_bert(tok_build_t *b, const tok_gguf_t *g);
int tok_ggml_t5(tok_build_t *b, const tok_gguf_t *g);
int tok_ggml_tokens(tok_build_t *b, const tok_gguf_t *g);
int tok_ggml_added(tok_build_t *b, const tok_gguf_t *g);

enum {                              /* tokenizer.ggml.token_type */
    TOK_TYPE_NORMAL = 1, TOK_TYPE_UNKNOWN, TOK_TYPE_CONTROL, TOK_TYPE_USER,
    TOK_TYPE_UNUSED, TOK_TYPE_BYTE
};


#endif /* TOK_GGML_H */
