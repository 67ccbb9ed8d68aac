/*
 * tok_tables_trie.c: the vocabulary as a trie, for WordPiece and Unigram.
 */

#include "tokenizer/tok_build.h"

#include <stdlib.h>


static int
no_memory(tok_build_t *b)
{
    return tok_fail(b->err, TOK_E_NOMEM, "tokenizer: no memory for a trie of "
                    "%zu tokens", b->tokens.n);
}


/* The cell that the text of ref leads to; UINT32_MAX: none does. */
static uint32_t
cell_of(const tok_build_t *b, tok_ref_t ref)
{
    const tok_cell_t  *cells = b->table[TOK_S_TRIE].ptr;
    const uint8_t     *p = tok_build_text(b, ref);
    uint32_t           at = 0, next, i;

    for (i = 0; i < ref.len; i++) {
        next = cells[at].base + p[i];
        if (cells[next].check != at + 1) {
            return UINT32_MAX;
        }
        at = next;
    }
    return at;
}


int
tok_tables_trie(tok_build_t *b)
{
    const tok_ref_t  *tokens = b->tokens.ptr;
    const uint8_t    *flags = b->flags.ptr;
    tok_key_t        *keys = malloc(2 * (b->tokens.n + 1) * sizeof(*keys));
    size_t            n = 0;
    uint32_t          id;
    int               rc;

    if (keys == NULL) {
        return no_memory(b);
    }
    for (id = 0; id < b->tokens.n; id++) {
        if ((flags[id] & TOK_F_MODEL) && tokens[id].len) {
            keys[n].ptr = tok_build_text(b, tokens[id]);
            keys[n].len = tokens[id].len;
            keys[n++].value = id;
        }
    }
    rc = tok_trie_build(&b->table[TOK_S_TRIE], keys, n, NULL);
    free(keys);
    if (rc != 0) {
        return no_memory(b);
    }
    b->h.trie_inner = cell_of(b, b->h.prefix);
    return b->h.model == TOK_M_UNIGRAM ? tok_tables_bytes(b) : 0;
}
