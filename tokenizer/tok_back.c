/*
 * tok_back.c: a word as tokens after each other, the longest first.
 *
 * What merges make of a word is the only row of tokens, each of which comes
 * out of its own text, in which all neighbours stay apart: until a merge
 * crosses a border, both its sides merge as if they were alone.  The same
 * holds for each beginning of the word, so no place is reached by two such
 * rows, and a search that goes back where no token fits visits each place
 * once.  (The idea is that of the backtracking encoder of the article named in
 * tok_made.h.)
 */

#include "tokenizer/tok_made.h"


typedef struct {
    const uint8_t    *p;
    size_t            len;
    const tok_ref_t  *text;         /* of tokens, as they are in p */
    uint32_t         *ids;          /* the row */
    size_t            n, first;     /* behind the last unknown character */
    uint64_t         *near;
    uint8_t          *dead;         /* a bit for each place: leads nowhere */
    size_t            work;
    bool              any_dead;
} back_t;


bool
tok_merge_ends(const tok_t *t, uint32_t *sym, size_t n, size_t k,
    const tok_merge_t **last)
{
    const tok_merge_t  *m, *best;
    size_t              i, at, parts = k ? 2 : 1;

    for (;;) {
        best = NULL;
        at = 0;
        for (i = 0; i + 1 < n; i++) {
            m = tok_merge_find(t, sym[i], sym[i + 1]);
            if (m != NULL && (best == NULL || m->rank < best->rank)) {
                best = m;
                at = i;
            }
        }
        if (best == NULL) {
            return n == parts;
        }
        if (at + 1 == k) {
            return false;
        }
        *last = best;
        sym[at] = best->to;
        n--;
        k -= at < k;
        memmove(&sym[at + 1], &sym[at + 2], (n - at - 1) * sizeof(*sym));
    }
}


/* The symbols of a token, n of them there already; 0: too many. */
static size_t
symbols(const tok_t *t, tok_ref_t r, uint32_t *sym, size_t n)
{
    const uint8_t  *p = t->pool + r.off;
    size_t          i, size;

    for (i = 0; i < r.len; i += size) {
        if (n == TOK_ODD_SYMBOLS) {
            return 0;
        }
        if (t->img->bpe_flags & TOK_BPE_BYTE_MODE) {
            size = 1;
            sym[n++] = t->byte_ids[p[i]];

        } else {
            size = tok_utf8_size(p[i]);
            sym[n++] = tok_model_find(t, p + i, size);
        }
    }
    return n;
}


/* Whether two tokens stay apart that merges make in an order of their own. */
static bool
odd_apart(const tok_t *t, back_t *b, uint32_t x, uint32_t y)
{
    const tok_merge_t  *last;
    uint32_t            sym[TOK_ODD_SYMBOLS];
    size_t              k = symbols(t, b->text[x], sym, 0);
    size_t              n = k ? symbols(t, b->text[y], sym, k) : 0;

    if (n == 0 || b->work < n * n / 8) {
        b->work = 0;
        return false;
    }
    b->work -= n * n / 8;
    return tok_merge_ends(t, sym, n, k, &last);
}


/* Texts with one thing again and again ask for the same neighbours. */
static inline bool
stay_apart(const tok_t *t, back_t *b, uint32_t x, uint32_t y)
{
    uint64_t  key = (uint64_t) (x + 1) << 32 | y << 1, *e;
    bool      apart;

    e = &b->near[tok_pair_hash(x, y) >> (64 - TOK_NEAR_LOG)];
    if ((*e & ~(uint64_t) 1) == key) {
        b->work -= b->work > 0;
        return *e & 1;
    }
    if (t->made[x].rank == TOK_MADE_ODD || t->made[y].rank == TOK_MADE_ODD) {
        apart = odd_apart(t, b, x, y);

    } else {
        apart = tok_stay_apart(t, x, y, TOK_NO_ID, &b->work);
    }
    if (b->work) {
        *e = key | apart;
    }
    return apart;
}


/* The longest token at p. */
static inline uint32_t
longest(const tok_t *t, const back_t *b, const uint8_t *p, const uint8_t *end,
    size_t *len)
{
    const tok_cell_t  *cells = t->trie, *c;
    const uint8_t     *q = p;
    tok_ref_t          r;
    uint32_t           node = 0, next, id = TOK_NO_ID, base = cells->base;

    while (q < end) {
        next = base + *q++;
        c = &cells[next];
        if (c->check != node + 1) {
            break;
        }
        node = next;
        base = c->base;
        if (c->value != TOK_NO_ID) {
            id = c->value;
            *len = (size_t) (q - p);
        }
        if (base & TOK_CELL_TAIL) {
            r = b->text[base & ~TOK_CELL_TAIL];
            if (r.len <= (size_t) (end - p)
                && tok_same(q, t->pool + r.off + (q - p),
                            r.len - (size_t) (q - p)))
            {
                id = base & ~TOK_CELL_TAIL;
                *len = r.len;
            }
            break;
        }
    }
    return id;
}


/*
 * The next row: with id or a shorter one at at, or shorter before; false: no
 * row is left, or too much work is done.
 */
static bool
extend(const tok_t *t, back_t *b, uint32_t id, size_t n, size_t *at)
{
    uint32_t  last;

    for (;;) {
        last = b->n > b->first ? b->ids[b->n - 1] : TOK_NO_ID;
        while (id != TOK_NO_ID) {
            if (!(b->any_dead && (b->dead[(*at + n) / 8] >> (*at + n) % 8 & 1))
                && (last == TOK_NO_ID
                    || stay_apart(t, b, last, id)))
            {
                b->ids[b->n++] = id;
                *at += n;
                return true;
            }
            if (b->work == 0) {
                return false;
            }
            id = t->made[id].shorter;
            n = id == TOK_NO_ID ? 0 : b->text[id].len;
        }
        if (last == TOK_NO_ID) {
            return false;
        }
        b->dead[*at / 8] |= (uint8_t) (1u << *at % 8);
        b->any_dead = true;
        b->n--;
        *at -= b->text[last].len;
        if (b->n > b->first && b->ids[b->n - 1] == last) {
            id = longest(t, b, b->p + *at, b->p + b->len, &n);  /* see again */
            b->work -= b->work < n ? b->work : n;
            continue;
        }
        id = t->made[last].shorter;
        n = id == TOK_NO_ID ? 0 : b->text[id].len;
    }
}


/*
 * The last token once more, if it was the last but one too: what is found first
 * does not matter, and in runs this is what fits.
 */
static inline bool
again(const tok_t *t, back_t *b, size_t *at)
{
    uint32_t  last;
    size_t    n, end;

    if (b->n < b->first + 2 || b->ids[b->n - 1] != b->ids[b->n - 2]) {
        return false;
    }
    last = b->ids[b->n - 1];
    n = b->text[last].len;
    end = *at + n;
    if (end > b->len || (b->any_dead && (b->dead[end / 8] >> end % 8 & 1))
        || memcmp(b->p + *at, b->p + *at - n, n) != 0
        || !stay_apart(t, b, last, last))
    {
        return false;
    }
    b->ids[b->n++] = last;
    *at = end;
    return true;
}


/* A character that no token has: its bytes. */
static bool
odd_character(const tok_t *t, back_t *b, size_t *at)
{
    size_t  n = tok_utf8_size(b->p[*at]), i;

    if ((t->img->bpe_flags & TOK_BPE_BYTE_MODE) || n > b->len - *at) {
        return false;
    }
    for (i = 0; i < n; i++) {
        b->ids[b->n++] = t->byte_ids[b->p[*at + i]];
    }
    b->first = b->n;
    *at += n;
    return true;
}


static void
spans(const tok_t *t, tok_scratch_t *s, const back_t *b, size_t base)
{
    size_t  i, n;

    for (i = s->ids.n; i < s->ids.n + b->n; i++) {
        n = b->text[tok_ids(s)[i]].len;
        if (!(t->img->bpe_flags & TOK_BPE_BYTE_MODE)
            && t->made[tok_ids(s)[i]].rank == TOK_NO_ID)
        {
            n = 1;                  /* <0xAB> */
        }
        tok_spans(s)[i] = (tok_span_t) { (uint32_t) base,
                                         (uint32_t) (base + n) };
        base += n;
    }
}


int
tok_back_word(const tok_t *t, tok_scratch_t *s, const uint8_t *word,
    size_t len, size_t base, bool *done)
{
    const uint8_t  *end = word + len;
    uint32_t        id;
    size_t          at = 0, n = 0;
    back_t          b = { word, len, NULL, NULL, 0, 0, s->near, NULL, 0,
                           false };
    int             rc;

    *done = false;
    assert(t->made != NULL);
    s->dead.n = 0;
    rc = tok_room(s, &s->dead, len / 8 + 1, 1);
    if (rc != 0) {
        return rc;
    }
    b.text = t->img->bpe_flags & TOK_BPE_BYTE_MODE ? t->bytes : t->tokens;
    b.ids = tok_ids(s) + s->ids.n;
    b.dead = s->dead.ptr;
    b.work = TOK_BACK_STEPS * len + 1024;
    memset(b.dead, 0, len / 8 + 1);
    while (at < len) {
        if (again(t, &b, &at)) {
            continue;
        }
        id = longest(t, &b, word + at, end, &n);
        if (id == TOK_NO_ID ? !odd_character(t, &b, &at)
            : !extend(t, &b, id, n, &at))
        {
            return 0;
        }
    }
    if (s->want_spans) {
        spans(t, s, &b, base);
    }
    s->ids.n += b.n;
    *done = true;
    return 0;
}
