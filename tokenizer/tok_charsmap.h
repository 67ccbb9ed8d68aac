/*
 * tok_charsmap.h: the precompiled character map of SentencePiece.
 */

#ifndef TOK_CHARSMAP_H
#define TOK_CHARSMAP_H


#include "tokenizer/tok_core.h"


/* A character that is not written yet: what follows may change its count. */
typedef struct {
    uint32_t  c;
    int       change;
    bool      have;
} tok_part_t;

/* 0 if map is one; every later use is safe then. */
int tok_charsmap_check(const uint8_t *map, size_t len);

/* Whether text begins with a key; then *to is what replaces all of it. */
bool tok_charsmap_find(const uint8_t *map, size_t map_len,
    const uint8_t *text, size_t len, const uint8_t **to, size_t *to_len);


#endif /* TOK_CHARSMAP_H */
