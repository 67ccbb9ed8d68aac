/*
 * tok_load.h: the readers of the formats, for tok_open.c and the fuzzers.
 */

#ifndef TOK_LOAD_H
#define TOK_LOAD_H


#include "tokenizer/tok_int.h"


/* data: a GGUF file, at least its key-value part; name is for messages. */
int tok_gguf_memory(tok_t **t, const void *data, size_t len, const char *name,
    tok_err_t *err);
int tok_gguf_file(tok_t **t, const char *path, tok_err_t *err);

/* Texts beside a tokenizer.json; ptr NULL: there is none. */
typedef struct {
    tok_str_t  config;              /* tokenizer_config.json */
    tok_str_t  generation;          /* generation_config.json */
    tok_str_t  chat;                /* chat_template.jinja */
} tok_beside_t;

/*
 * spare: NULL, or memory (tok_block) of so many bytes that is json's; what is
 * made of it may take that, and *spare is NULL then.
 */
int tok_json_memory(tok_t **t, const char *json, size_t len, char **spare,
    const tok_beside_t *beside, const char *name, tok_err_t *err);

int tok_image_open(tok_t **t, const char *path, tok_err_t *err);


#endif /* TOK_LOAD_H */
