/*
 * tok_made.h: whether two tokens side by side stay what they are while the
 * merges of a word are made.
 */

#ifndef TOK_MADE_H
#define TOK_MADE_H


#include "tokenizer/tok_core.h"


/*
 * How merges make a token: of which two, by which rank + 1 (0: it is where
 * merges begin; TOK_NO_ID: they never make it; TOK_MADE_ODD: they do, but not
 * in the order of ranks).  shorter: the longest other token that merges make
 * and that it begins with, or TOK_NO_ID.
 */
#define TOK_MADE_ODD  (TOK_NO_ID - 1)

struct tok_made {
    uint32_t  left, right;
    uint32_t  rank;
    uint32_t  shorter;
};

/* In a trie's base (BPE): no children, but the one key more that this is. */
#define TOK_CELL_TAIL  (1u << 31)


/*
 * tok_back.c: merges n symbols (changed) one after the other.  Whether they end
 * as one token before sym[k] and one from there on, or as one if k is 0.
 * *last: the last merge made, if any.
 */
bool tok_merge_ends(const tok_t *t, uint32_t *sym, size_t n, size_t k,
    const tok_merge_t **last);

/*
 * Whether a and b stay apart while all merges below rank are made.  That is
 * seen by undoing the merges at the border, the latest first: a pair across it
 * with a rank below the undone one would have been merged before.  (The idea
 * is that of the pair check in GitHub's article "So many tokens, so little
 * time", 2024; the proof needs parts with lower ranks than the whole, so other
 * merges do not count in tok_made_t.)  Ranks count from 1.  *work goes down by
 * the number of steps; where it would end the answer is no.
 */
static inline bool
tok_stay_apart(const tok_t *t, uint32_t a, uint32_t b, uint32_t rank,
    size_t *work)
{
    const tok_merge_t  *m;
    const tok_made_t   *x = &t->made[a], *y = &t->made[b];

    for (;;) {
        m = tok_merge_find(t, a, b);
        if ((m != NULL && m->rank + 1 < rank) || *work == 0) {
            return false;
        }
        (*work)--;
        if ((x->rank | y->rank) == 0) {
            return true;
        }
        if (x->rank > y->rank) {
            /* Of equal ranks the left one is merged first. */
            rank = x->rank;
            a = x->right;
            x = &t->made[a];

        } else {
            rank = y->rank + 1;
            b = y->left;
            y = &t->made[b];
        }
    }
}


/*
 * tok_back.c: the ids of a word, where t->made is there; s->ids (and spans)
 * have room for as many as it has bytes.  *done is false, and nothing was
 * written, if the word took too much work.
 */
int tok_back_word(const tok_t *t, tok_scratch_t *s, const uint8_t *word,
    size_t len, size_t base, bool *done);

/* tok_long.c: the same for byte-level words of TOK_LONG_WORD bytes and more. */
#define TOK_LONG_WORD  128

int tok_long_word(const tok_t *t, tok_scratch_t *s, const uint8_t *word,
    size_t len, size_t base, bool *done);


#endif /* TOK_MADE_H */
