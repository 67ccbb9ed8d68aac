/*
 * tok_find.h: looks into the tables of a vocabulary that encode takes for each
 * word: merges of pairs, words that are tokens.
 */

#ifndef TOK_FIND_H
#define TOK_FIND_H


#include "tokenizer/tok_keys.h"


/* --- merges ------------------------------------------------------------ */

/* Whether the pair with this hash may have a merge; most that have none do
 * not pass. */
static inline bool
tok_merge_may(const tok_t *t, uint64_t h)
{
    uint64_t  bits = tok_filter_bits(h);

    return (t->filter[(uint32_t) (h >> 32) & t->filter_mask] & bits) == bits;
}


/* The merge of a pair that passed the filter, or NULL. */
static inline const tok_merge_t *
tok_merge_get(const tok_t *t, uint32_t a, uint32_t b, uint64_t h)
{
    uint32_t            at = (uint32_t) (h >> 32) & t->merge_mask;
    const tok_merge_t  *m;

    for (/* void */; /* void */; at = (at + 1) & t->merge_mask) {
        m = &t->merges[at];
        if (m->a == a && m->b == b) {
            return m;
        }
        if (m->a == TOK_NO_ID) {
            return NULL;
        }
    }
}


/* The merge of a pair, or NULL. */
static inline const tok_merge_t *
tok_merge_find(const tok_t *t, uint32_t a, uint32_t b)
{
    uint64_t  h = tok_pair_hash(a, b);

    return tok_merge_may(t, h) ? tok_merge_get(t, a, b, h) : NULL;
}


/* --- words ------------------------------------------------------------- */

/* The places of a line that have this key, a bit for each; *free: a place is
 * empty, so the key is in no further line. */
static inline unsigned
tok_word_line(const tok_word_t *e, tok_word_t key, bool *free)
{
    unsigned  i, same = 0, none = 0;

    for (i = 0; i < TOK_WORD_LINE; i++) {
        same |= (unsigned) (((e[i].k0 ^ key.k0)
                             | ((e[i].k1 & TOK_WORD_KEY) ^ key.k1)) == 0) << i;
        none |= e[i].k1 == 0;
    }
    *free = none;
    return same;
}


/* Whether the word whose key has this place may be a token; most that are none
 * do not pass. */
static inline bool
tok_word_may(const tok_t *t, uint32_t at)
{
    uint64_t  bits = tok_sieve_bits(at);

    return (t->sieve[tok_sieve_at(at, t->word_mask)] & bits) == bits;
}


/* The id of a word of 1 to 12 bytes from its key (tok_word_short), or
 * TOK_NO_ID. */
static inline uint32_t
tok_word_get(const tok_t *t, tok_word_t key, uint32_t at)
{
    const tok_word_t  *e = &t->words[at & t->word_mask
                                     & ~(TOK_WORD_LINE - 1)];
    bool               free;
    unsigned           same = tok_word_line(e, key, &free);

    /* The first line nearly always knows, and what it says is no branch. */
    while (__builtin_expect(!same && !free, 0)) {
        at += TOK_WORD_LINE;
        e = &t->words[at & t->word_mask & ~(TOK_WORD_LINE - 1)];
        same = tok_word_line(e, key, &free);
    }
    return same ? (uint32_t) (e[__builtin_ctz(same)].k1 >> TOK_WORD_ID) - 1
           : TOK_NO_ID;
}


#endif /* TOK_FIND_H */
