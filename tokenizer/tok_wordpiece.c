/*
 * tok_wordpiece.c: WordPiece (longest piece first) and WordLevel.
 */

#include "tokenizer/tok_core.h"


static int
unknown(const tok_t *t, tok_scratch_t *s, size_t base, size_t len)
{
    if (t->img->unk == TOK_NO_ID) {
        return TOK_E_UNK;
    }
    return tok_push_id(s, t->img->unk, base, base + len);
}


/* The cell after text from cell at, NONE if the trie has no such path. */
static inline uint32_t
walk(const tok_cell_t *cells, uint32_t at, uint8_t c)
{
    uint32_t  next = cells[at].base + c;

    return cells[next].check == at + 1 ? next : UINT32_MAX;
}


/*
 * The longest piece at word: a walk down the trie; the prefix of inner
 * pieces has been walked once at load (trie_inner).
 */
static uint32_t
longest(const tok_t *t, const uint8_t *word, size_t len, uint32_t at,
    size_t *n)
{
    uint32_t  id = TOK_NO_ID;
    size_t    i;

    for (i = 0; i < len && at != UINT32_MAX; i++) {
        at = walk(t->trie, at, word[i]);
        if (at == UINT32_MAX) {
            break;
        }
        if (t->trie[at].value != TOK_NO_ID
            && (i + 1 == len || (word[i + 1] & 0xc0) != 0x80))
        {
            id = t->trie[at].value;
            *n = i + 1;
        }
    }
    return id;
}


static bool
too_long(const tok_t *t, const uint8_t *word, size_t len)
{
    size_t  i, chars = 0;

    if (len <= t->img->word_chars_max) {
        return false;
    }
    for (i = 0; i < len; i++) {
        chars += (word[i] & 0xc0) != 0x80;
    }
    return chars > t->img->word_chars_max;
}


int
tok_wordpiece(const tok_t *t, tok_scratch_t *s, const uint8_t *word,
    size_t len, size_t base)
{
    size_t    at = 0, n = 0, from = s->ids.n;
    uint32_t  id;
    int       rc;

    if (too_long(t, word, len)) {
        return unknown(t, s, base, len);
    }
    while (at < len) {
        id = longest(t, word + at, len - at, at ? t->img->trie_inner : 0, &n);
        if (id == TOK_NO_ID) {
            s->ids.n = from;
            return unknown(t, s, base, len);
        }
        rc = tok_push_id(s, id, base + at, base + at + n);
        if (rc != 0) {
            return rc;
        }
        at += n;
    }
    return 0;
}


int
tok_wordlevel(const tok_t *t, tok_scratch_t *s, const uint8_t *word,
    size_t len, size_t base)
{
    uint32_t  id = tok_model_find(t, word, len);

    return id == TOK_NO_ID ? unknown(t, s, base, len)
           : tok_push_id(s, id, base, base + len);
}
