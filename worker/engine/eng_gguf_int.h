/*
 * Between eng_gguf.c (files) and eng_gguf_parse.c (bytes) only.
 */
#ifndef ENG_GGUF_INT_H
#define ENG_GGUF_INT_H

#include "worker/engine/eng_gguf.h"

/* Not an error: the copy ended, the file has more. */
#define ENG_GGUF_MORE      1

typedef struct {
    eng_gguf_t     *g;
    const uint8_t  *data;
    uint64_t        len;          /* bytes in memory                         */
    uint64_t        pos;          /* never above len                         */
    eng_err_t      *err;
} eng_gguf_cursor_t;

/* Parses and checks all of the header; 0, ENG_GGUF_MORE or an error. */
int eng_gguf_header(eng_gguf_cursor_t *c);

#endif
