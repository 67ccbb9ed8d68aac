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

/* config: text of tokenizer_config.json, or NULL. */
int tok_json_memory(tok_t **t, const char *json, size_t len,
    const char *config, size_t config_len, const char *name, tok_err_t *err);

int tok_image_open(tok_t **t, const char *path, tok_err_t *err);


#endif /* TOK_LOAD_H */
