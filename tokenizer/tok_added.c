/*
 * tok_added.c: added tokens in a text: leftmost, then longest, with the
 * conditions that a token may carry (single word, white space around it).
 */

#include "tokenizer/tok_core.h"
#include "tokenizer/tok_unicode.h"


/* The longest key at text, its length in *n; TOK_NO_ID if none. */
static uint32_t
longest(const tok_cell_t *cells, size_t n_cells, const uint8_t *text,
    size_t len, size_t *n)
{
    uint32_t  node = 0, next, value = TOK_NO_ID;
    size_t    i;

    for (i = 0; i < len; i++) {
        next = cells[node].base + text[i];
        assert(next < n_cells);
        if (cells[next].check != node + 1) {
            break;
        }
        node = next;
        if (cells[node].value != TOK_NO_ID) {
            value = cells[node].value;
            *n = i + 1;
        }
    }
    return value;
}


static size_t
char_back(const uint8_t *text, size_t at)
{
    do {
        at--;
    } while (at > 0 && (text[at] & 0xc0) == 0x80);
    return at;
}


static bool
word_before(const uint8_t *text, size_t at)
{
    size_t  n;

    return at > 0 && (tok_class(tok_utf8_get(text + char_back(text, at), &n))
                      & TOK_U_W);
}


static bool
word_after(const uint8_t *text, size_t len, size_t at)
{
    size_t  n;

    return at < len && (tok_class(tok_utf8_get(text + at, &n)) & TOK_U_W);
}


static void
widen(const uint8_t *text, size_t len, uint32_t flags, size_t from,
    tok_match_t *m)
{
    size_t  back, n;

    if (flags & TOK_A_LSTRIP) {
        while (m->begin > from) {
            back = char_back(text, m->begin);
            if (!(tok_class(tok_utf8_get(text + back, &n)) & TOK_U_WS)) {
                break;
            }
            m->begin = back;
        }
        if (m->begin < from) {
            m->begin = from;
        }
    }
    if (flags & TOK_A_RSTRIP) {
        while (m->end < len
               && (tok_class(tok_utf8_get(text + m->end, &n)) & TOK_U_WS))
        {
            m->end += n;
        }
    }
}


/* The next byte that a token begins with; only: there is one such byte. */
static inline size_t
candidate(const uint8_t *text, size_t len, size_t at, const uint32_t *first,
    uint32_t only)
{
    const uint8_t  *hit;

    if (only < 256) {
        hit = memchr(text + at, (int) only, len - at);
        return hit == NULL ? len : (size_t) (hit - text);
    }
    while (at < len && !(first[text[at] >> 5] >> (text[at] & 31) & 1)) {
        at++;
    }
    return at;
}


bool
tok_added_next(const tok_t *t, const uint8_t *text, size_t len,
    bool normalized, bool special, size_t at, size_t from, tok_match_t *m)
{
    const tok_cell_t   *cells = normalized ? t->added_norm : t->added_raw;
    const uint32_t     *first = normalized ? t->img->first_norm
                                : t->img->first_raw;
    const tok_added_t  *a;
    uint32_t            i;
    size_t              n = 0, n_cells = normalized ? t->n_nrm : t->n_raw;

    for (/* void */; at < len; at++) {
        at = candidate(text, len, at, first,
                       normalized ? t->img->only_norm : t->img->only_raw);
        if (at == len) {
            break;
        }
        i = longest(cells, n_cells, text + at, len - at, &n);
        if (i == TOK_NO_ID) {
            continue;
        }
        assert(i < t->n_added && n > 0);
        a = &t->added[i];
        m->begin = at;
        m->raw = at;
        m->end = at + n;
        m->resume = at + n;
        m->id = a->id;
        /* A match that does not count still hides what it covers. */
        if ((a->flags & TOK_A_SPECIAL) && !special) {
            at += n - 1;
            continue;
        }
        if ((a->flags & TOK_A_SINGLE_WORD)
            && (word_before(text, at) || word_after(text, len, at + n)))
        {
            at += n - 1;
            continue;
        }
        widen(text, len, a->flags, from, m);
        return true;
    }
    return false;
}


const tok_added_t *
tok_added_find(const tok_t *t, uint32_t id)
{
    size_t  lo = 0, hi = t->n_added, mid;

    while (lo < hi) {
        mid = lo + (hi - lo) / 2;
        if (t->added[mid].id < id) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < t->n_added && t->added[lo].id == id ? &t->added[lo] : NULL;
}
