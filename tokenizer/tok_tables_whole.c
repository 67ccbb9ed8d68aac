/*
 * tok_tables_whole.c: the tables for words as tokens after each other: which
 * tokens merges make in an order of their own, and a trie of all of them.
 */

#include "tokenizer/tok_build.h"
#include "tokenizer/tok_made.h"

#include <stdlib.h>


/* Merges whose tokens are tried, and symbols of such a token. */
#define TRY_TOKENS   8192
#define TRY_SYMBOLS  TOK_ODD_SYMBOLS


static int
no_memory(tok_build_t *b)
{
    return tok_fail(b->err, TOK_E_NOMEM, "tokenizer: no memory for what %zu "
                    "tokens are made of", b->tokens.n);
}


/* Whether merges, one after the other, make the text of id one token; *last is
 * the merge that does. */
static bool
comes_out(const tok_build_t *b, const tok_t *t, uint32_t id,
    const tok_merge_t **last)
{
    const uint32_t  *base = b->table[TOK_S_BYTE_IDS].ptr;
    bool             bytes = b->h.bpe_flags & TOK_BPE_BYTE_MODE;
    tok_ref_t        r = ((tok_ref_t *) (bytes ? b->bytes.ptr
                                         : b->tokens.ptr))[id];
    const uint8_t   *p = tok_build_text(b, r);
    uint32_t         sym[TRY_SYMBOLS];
    size_t           n = 0, i, size;

    for (i = 0; i < r.len; i += size) {
        size = bytes ? 1 : tok_utf8_size(p[i]);
        if (n == TRY_SYMBOLS) {
            return false;           /* see find_odd */
        }
        sym[n] = bytes ? base[p[i]] : tok_build_find(b, p + i, size);
        if (sym[n++] == TOK_NO_ID) {
            return false;           /* in no word as one of its symbols */
        }
    }
    return tok_merge_ends(t, sym, n, 0, last);
}


/*
 * Tokens that merges make in another order than that of their ranks: made by
 * trying.  false: there are too many, or too long ones, to know them all.
 */
static bool
find_odd(const tok_build_t *b)
{
    const tok_merge_t  *m = b->merges.ptr;
    const tok_merge_t  *last = NULL;
    const uint32_t     *bytes = b->table[TOK_S_BYTE_IDS].ptr;
    tok_made_t         *made = b->table[TOK_S_MADE].ptr;
    tok_t               t = tok_tables_view(b);
    size_t              i, n = 0;
    uint32_t            id;

    if (!(b->h.bpe_flags & TOK_BPE_BYTE_MODE)) {
        for (i = 0; i < 256; i++) {
            if (bytes[i] == TOK_NO_ID || made[bytes[i]].rank != TOK_NO_ID) {
                return false;       /* <0xAB> would stand for two things */
            }
        }
    }
    for (i = 0; i < b->merges.n; i++) {
        id = m[i].to;
        if (made[id].rank != TOK_NO_ID) {
            continue;
        }
        if (++n > TRY_TOKENS
            || ((tok_ref_t *) b->tokens.ptr)[id].len > TRY_SYMBOLS)
        {
            return false;
        }
        if (comes_out(b, &t, id, &last)) {
            assert(last != NULL && last->to == id);
            made[id].rank = TOK_MADE_ODD;
            made[id].left = last->a;
            made[id].right = last->b;
        }
    }
    return true;
}


/*
 * What merges make of a text they make of it inside of every word, so of all
 * merges to a token one at most is ever made: that which makes its own text
 * one token.  The others, in some files most of them, need no table.
 */
static int
drop_dead(tok_build_t *b)
{
    const tok_made_t  *made = b->table[TOK_S_MADE].ptr, *x;
    tok_merge_t       *m = b->merges.ptr;
    size_t             i, n = 0;

    for (i = 0; i < b->merges.n; i++) {
        x = &made[m[i].to];
        if (x->left == m[i].a && x->right == m[i].b) {
            m[n++] = m[i];
        }
    }
    b->merges.n = n;
    /* A few more do no harm. */
    return b->n_table - n <= n / 16 ? 0 : tok_tables_merges(b);
}


/*
 * The tables of tok_back.c, where tokens are such that it may be used; else
 * none.
 */
int
tok_tables_back(tok_build_t *b)
{
    const bool        bytes = b->h.bpe_flags & TOK_BPE_BYTE_MODE;
    const tok_ref_t  *text = bytes ? b->bytes.ptr : b->tokens.ptr;
    tok_made_t       *made = b->table[TOK_S_MADE].ptr;
    tok_key_t        *keys;
    size_t            i, n = 0;
    bool              lent;
    int               rc;

    if (!find_odd(b)) {
        b->table[TOK_S_MADE].n = 0;
        return tok_tables_merges(b);
    }
    rc = drop_dead(b);
    if (rc != 0) {
        return rc;
    }
    keys = tok_build_lend(b, 2 * (b->tokens.n + 1) * sizeof(*keys));
    lent = keys != NULL;
    keys = lent ? keys : tok_block(2 * (b->tokens.n + 1) * sizeof(*keys));
    if (keys == NULL) {
        return no_memory(b);
    }
    for (i = 0; i < b->tokens.n; i++) {
        if (made[i].rank != TOK_NO_ID) {
            keys[n].ptr = tok_build_text(b, text[i]);
            keys[n].len = text[i].len;
            keys[n++].value = (uint32_t) i;
        }
    }
    rc = tok_trie_build(&b->table[TOK_S_TRIE], keys, n, made);
    if (!lent) {
        free(keys);
    }
    return rc == 0 ? 0 : no_memory(b);
}
