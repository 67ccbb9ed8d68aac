/*
 * tok_tables_whole.c: which tokens come out when their own bytes are a word.
 *
 * A token t made by merge r of a and b comes out whole if a and b do and no
 * merge across their border comes first.  That is seen by undoing the merges
 * at the border, the latest first: a pair across it with a rank below the
 * undone one would have been merged before.  (The idea is that of the pair
 * check in GitHub's article "So many tokens, so little time", 2024; the proof
 * needs parts with lower ranks than the whole, so other merges do not count
 * here and their words are merged step by step.)
 */

#include "tokenizer/tok_build.h"

#include <stdlib.h>


typedef struct {
    const tok_merge_t  *table;
    uint32_t            mask;
    uint32_t           *rank;       /* of the merge that makes a token */
    uint32_t           *left, *right;
} whole_t;

/* Tokens of one byte are made by no merge. */
#define BASE  0u


static uint32_t
pair_rank(const whole_t *w, uint32_t a, uint32_t b)
{
    uint64_t            key = (uint64_t) a << 32 | b;
    uint32_t            at;
    const tok_merge_t  *m;

    at = ((uint32_t) ((key * 0x9e3779b97f4a7c15ull) >> 32)) & w->mask;
    for (;; at = (at + 1) & w->mask) {
        m = &w->table[at];
        if (m->a == a && m->b == b) {
            return m->rank + 1;
        }
        if (m->a == TOK_NO_ID) {
            return UINT32_MAX;
        }
    }
}


/* Whether a and b stay apart while all merges below rank are done. */
static bool
stay_apart(const whole_t *w, uint32_t a, uint32_t b, uint32_t rank)
{
    for (;;) {
        if (pair_rank(w, a, b) < rank) {
            return false;
        }
        if (w->rank[a] == BASE && w->rank[b] == BASE) {
            return true;
        }
        if (w->rank[a] > w->rank[b]) {
            /* Of equal ranks the left one is merged first. */
            rank = w->rank[a];
            a = w->right[a];

        } else {
            rank = w->rank[b] + 1;
            b = w->left[b];
        }
    }
}


int
tok_tables_whole(tok_build_t *b)
{
    const tok_merge_t  *m = b->merges.ptr;
    const tok_vec_t    *table = &b->table[TOK_S_MERGES];
    const uint32_t     *base = b->table[TOK_S_BYTE_IDS].ptr;
    uint8_t            *flags = b->flags.ptr;
    size_t              n = b->tokens.n, i;
    uint32_t            r;
    whole_t             w;

    w.rank = malloc(3 * n * sizeof(uint32_t));
    if (w.rank == NULL) {
        return tok_fail(b->err, TOK_E_NOMEM, "tokenizer: no memory");
    }
    w.left = w.rank + n;
    w.right = w.left + n;
    w.table = table->ptr;
    w.mask = (uint32_t) table->n - 1;
    memset(w.rank, 0xff, n * sizeof(uint32_t));
    for (i = 0; i < 256; i++) {
        if (base[i] != TOK_NO_ID) {
            w.rank[base[i]] = BASE;
            flags[base[i]] |= TOK_F_WHOLE;
        }
    }
    for (i = 0; i < b->merges.n; i++) {
        r = (uint32_t) i + 1;
        if (w.rank[m[i].to] != UINT32_MAX || w.rank[m[i].a] >= r
            || w.rank[m[i].b] >= r || pair_rank(&w, m[i].a, m[i].b) != r
            || !stay_apart(&w, m[i].a, m[i].b, r))
        {
            continue;
        }
        w.rank[m[i].to] = r;
        w.left[m[i].to] = m[i].a;
        w.right[m[i].to] = m[i].b;
        flags[m[i].to] |= TOK_F_WHOLE;
    }
    free(w.rank);
    return 0;
}
