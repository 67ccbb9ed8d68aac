/*
 * tok_bpe.c: byte-pair merges of one word.
 *
 * A word becomes symbols (bytes or characters); then the pair with the lowest
 * rank, the leftmost of equals, is merged until no pair has a merge.  Short
 * words are scanned for the lowest rank; long ones use a heap, so that the
 * time stays within n log n whatever the text.
 */

#include "tokenizer/tok_made.h"


#define NONE  UINT32_MAX


/* --- short words ------------------------------------------------------- */

static inline uint32_t
pair_rank(const tok_t *t, uint32_t a, uint32_t b, uint32_t *to)
{
    const tok_merge_t  *m = tok_merge_find(t, a, b);

    if (m == NULL) {
        *to = TOK_NO_ID;
        return NONE;
    }
    *to = m->to;
    return m->rank;
}


/*
 * Merges ids[0..n-1] in place, lens with them; returns how many are left.
 * bytes: what the ids stand for, if each of them is one byte, or NULL.
 */
static size_t
merge_small(const tok_t *t, uint32_t *ids, uint32_t *lens, size_t n,
    const uint8_t *bytes)
{
    uint32_t    rank[TOK_SCAN_SYMBOLS_MAX], to[TOK_SCAN_SYMBOLS_MAX], best;
    tok_pair_t  pair;
    size_t      i, at;

    assert(n <= TOK_SCAN_SYMBOLS_MAX);
    for (i = 0; i + 1 < n; i++) {
        if (bytes != NULL) {
            pair = t->pairs[bytes[i] << 8 | bytes[i + 1]];
            rank[i] = pair.rank;
            to[i] = pair.to;

        } else {
            rank[i] = pair_rank(t, ids[i], ids[i + 1], &to[i]);
        }
    }
    while (n > 1) {
        best = NONE;
        at = 0;
        for (i = 0; i + 1 < n; i++) {
            if (rank[i] < best) {
                best = rank[i];
                at = i;
            }
        }
        if (best == NONE) {
            break;
        }
        ids[at] = to[at];
        lens[at] += lens[at + 1];
        n--;
        for (i = at + 1; i < n; i++) {
            ids[i] = ids[i + 1];
            lens[i] = lens[i + 1];
        }
        for (i = at + 1; i + 1 < n; i++) {
            rank[i] = rank[i + 1];
            to[i] = to[i + 1];
        }
        if (at > 0) {
            rank[at - 1] = pair_rank(t, ids[at - 1], ids[at], &to[at - 1]);
        }
        if (at + 1 < n) {
            rank[at] = pair_rank(t, ids[at], ids[at + 1], &to[at]);
        }
    }
    return n;
}


/* --- long words -------------------------------------------------------- */

static void
heap_push(tok_heap_t *h, size_t *n, tok_heap_t e)
{
    size_t  i = (*n)++, up;

    while (i > 0) {
        up = (i - 1) / 4;
        if (h[up].key <= e.key) {
            break;
        }
        h[i] = h[up];
        i = up;
    }
    h[i] = e;
}


static void
heap_down(tok_heap_t *h, size_t n, size_t i, tok_heap_t e)
{
    size_t  kid, best, k;

    for (;;) {
        kid = 4 * i + 1;
        if (kid >= n) {
            break;
        }
        best = kid;
        for (k = kid + 1; k < kid + 4 && k < n; k++) {
            if (h[k].key < h[best].key) {
                best = k;
            }
        }
        if (h[best].key >= e.key) {
            break;
        }
        h[i] = h[best];
        i = best;
    }
    h[i] = e;
}


static tok_heap_t
heap_pop(tok_heap_t *h, size_t *n)
{
    tok_heap_t  top = h[0];

    assert(*n > 0);
    (*n)--;
    if (*n) {
        heap_down(h, *n, 0, h[*n]);
    }
    return top;
}


static void
offer(const tok_t *t, const tok_sym_t *sym, tok_heap_t *h, size_t *n,
    uint32_t at)
{
    const tok_merge_t  *m;
    uint32_t            next = sym[at].next;

    if (next == NONE) {
        return;
    }
    m = tok_merge_find(t, sym[at].id, sym[next].id);
    if (m != NULL) {
        heap_push(h, n, (tok_heap_t) { (uint64_t) m->rank << 32 | at,
                                       m->to });
    }
}


/*
 * Each merge takes one entry and leaves at most two, and there are fewer
 * merges than symbols: 3 n entries are always enough room.
 */
static void
merge_heap(const tok_t *t, tok_sym_t *sym, size_t n_sym, tok_heap_t *h)
{
    const tok_merge_t  *m;
    tok_heap_t          e;
    uint32_t            i, next;
    size_t              n = 0, k;

    for (i = 0; i + 1 < n_sym; i++) {
        m = tok_merge_find(t, sym[i].id, sym[i + 1].id);
        if (m != NULL) {
            h[n++] = (tok_heap_t) { (uint64_t) m->rank << 32 | i, m->to };
        }
    }
    for (k = n / 4 + 1; n > 1 && k-- > 0; /* void */) {
        heap_down(h, n, k, h[k]);
    }
    while (n) {
        e = heap_pop(h, &n);
        i = (uint32_t) e.key;
        next = sym[i].next;
        if (sym[i].len == 0 || next == NONE) {
            continue;
        }
        m = tok_merge_find(t, sym[i].id, sym[next].id);
        if (m == NULL || m->to != e.to) {
            continue;
        }
        sym[i].id = e.to;
        sym[i].len += sym[next].len;
        sym[i].next = sym[next].next;
        sym[next].len = 0;
        if (sym[i].next != NONE) {
            sym[sym[i].next].prev = i;
        }
        if (sym[i].prev != NONE) {
            offer(t, sym, h, &n, sym[i].prev);
        }
        offer(t, sym, h, &n, i);
        assert(n <= 3 * n_sym);
    }
}


/* The symbols of a long word, and a token of it (at: its first symbol). */
typedef struct {
    const uint32_t  *ids, *lens;
} word_syms_t;

typedef struct {
    uint32_t  id, len, at;
} tok_part_t;


static int
emit(tok_scratch_t *s, uint32_t id, size_t begin, size_t len)
{
    assert((s->ids.n + 1) * sizeof(uint32_t) <= s->ids.bytes);
    if (s->want_spans) {
        tok_spans(s)[s->ids.n] = (tok_span_t) { (uint32_t) begin,
                                                (uint32_t) (begin + len) };
    }
    tok_ids(s)[s->ids.n++] = id;
    return 0;
}


/* Room for the ids of a word, one for each symbol. */
static int
emit_room(tok_scratch_t *s, size_t n)
{
    int  rc = tok_room(s, &s->ids, n, sizeof(uint32_t));

    if (rc == 0 && s->want_spans) {
        s->spans.n = s->ids.n;
        rc = tok_room(s, &s->spans, n, sizeof(tok_span_t));
    }
    return rc;
}


/* Symbols from a on, merged as if the word were only those. */
static size_t
merge_window(const tok_t *t, tok_scratch_t *s, const word_syms_t *y,
    size_t a, size_t n, tok_part_t *out)
{
    tok_sym_t  *sym = s->syms.ptr;
    size_t      i, k = 0;
    uint32_t    at, next;

    for (i = 0; i < n; i++) {
        sym[i].id = y->ids[a + i];
        sym[i].len = y->lens[a + i];
        sym[i].prev = i ? (uint32_t) i - 1 : NONE;
        sym[i].next = i + 1 < n ? (uint32_t) i + 1 : NONE;
    }
    merge_heap(t, sym, n, s->heap.ptr);
    for (at = 0; at != NONE; at = next) {
        next = sym[at].next;
        out[k++] = (tok_part_t) { sym[at].id, sym[at].len,
                                  (uint32_t) (a + at) };
    }
    return k;
}


static size_t
emit_parts(tok_scratch_t *s, const tok_part_t *p, size_t n, size_t base)
{
    size_t  i;

    for (i = 0; i < n; i++) {
        emit(s, p[i].id, base, p[i].len);
        base += p[i].len;
    }
    return base;
}


/*
 * The first part that both lists have, each in order of places: *i in a, *k in
 * b.  A part is the same if the one behind it begins at the same place, too.
 */
static bool
same_part(const tok_part_t *a, size_t n, const tok_part_t *b, size_t m,
    size_t *i, size_t *k)
{
    for (*i = *k = 0; *i + 1 < n && *k + 1 < m; /* void */) {
        if (a[*i].at == b[*k].at && a[*i].id == b[*k].id
            && a[*i + 1].at == b[*k + 1].at)
        {
            return true;
        }
        if (a[*i].at <= b[*k].at) {
            (*i)++;

        } else {
            (*k)++;
        }
    }
    return false;
}


/*
 * A long word in windows, so that the heap stays small.  Two neighbours that
 * come out of one window would come out if they were all of the word: until
 * some merge crosses a border, both sides merge as if they were alone.  And
 * where all neighbours are such, no merge crosses any border first.  So two
 * windows that overlap and have one token in common make one sequence there.
 * Without one, the first is taken larger.
 */
static int
merge_long(const tok_t *t, tok_scratch_t *s, const uint32_t *ids,
    const uint32_t *lens, size_t n, size_t base)
{
    const word_syms_t  y = { ids, lens };
    const size_t       at = s->ids.n, begin = base;
    size_t             size = TOK_WINDOW_SYMBOLS, from = 0, n_a, n_b, i, k, m;
    tok_part_t        *a, *b, *hold, first = { 0, 0, 0 };
    int                rc;

    for (;;) {
        size = size < n ? size : n;
        s->syms.n = s->heap.n = s->parts.n = 0;
        rc = tok_room(s, &s->syms, size, sizeof(tok_sym_t));
        if (rc == 0) {
            rc = tok_room(s, &s->heap, 3 * size + 4, sizeof(tok_heap_t));
        }
        if (rc == 0) {
            rc = tok_room(s, &s->parts, 2 * size, sizeof(tok_part_t));
        }
        if (rc != 0) {
            return rc;
        }
        a = s->parts.ptr;
        b = a + size;
        n_a = merge_window(t, s, &y, from, size < n - from ? size : n - from,
                           a);
        if (from > 0 && (a[0].id != first.id || a[0].len != first.len)) {
            /* What stands before it was not made for that neighbour. */
            s->ids.n = at;
            base = begin;
            from = 0;
            size = n;
            continue;
        }
        while (from + size < n) {
            /* The next window begins with a part of the last quarter. */
            for (m = n_a - 1; m > 0 && a[m].at > from + size - size / 4; m--) {
                /* void */
            }
            if (m == 0) {
                break;
            }
            n_b = merge_window(t, s, &y, a[m].at, size < n - a[m].at ? size
                               : n - a[m].at, b);
            if (!same_part(a + m, n_a - m, b, n_b, &i, &k)) {
                break;
            }
            base = emit_parts(s, a, m + i, base);
            from = a[m].at;
            memmove(b, b + k, (n_b - k) * sizeof(*b));
            n_a = n_b - k;
            hold = a;
            a = b;
            b = hold;
        }
        if (from + size >= n) {
            (void) emit_parts(s, a, n_a, base);
            return 0;
        }
        /* What is not emitted begins with a[0]; again, in a larger window. */
        first = a[0];
        from = first.at;
        size *= 2;
    }
}


/* ids and lens: n each; bytes as for merge_small. */
static int
merge_word(const tok_t *t, tok_scratch_t *s, uint32_t *ids, uint32_t *lens,
    size_t n, size_t base, const uint8_t *bytes)
{
    size_t  i;
    int     rc = emit_room(s, n);

    if (rc != 0 || n == 0) {
        return rc;
    }
    if (n > TOK_SCAN_SYMBOLS_MAX) {
        return merge_long(t, s, ids, lens, n, base);
    }
    n = merge_small(t, ids, lens, n, bytes);
    for (i = 0; i < n; i++) {
        emit(s, ids[i], base, lens[i]);
        base += lens[i];
    }
    return 0;
}


/* --- words ------------------------------------------------------------- */

uint32_t
tok_model_find(const tok_t *t, const uint8_t *p, size_t len)
{
    uint64_t         h = tok_hash_bytes(p, len), e;
    uint32_t         at = (uint32_t) h & t->hash_mask, id;
    const tok_ref_t *r;

    for (;; at = (at + 1) & t->hash_mask) {
        e = t->hash[at];
        if (e == 0) {
            return TOK_NO_ID;
        }
        if ((e ^ h) >> 32) {
            continue;
        }
        id = (uint32_t) e - 1;
        r = &t->tokens[id];
        if (r->len == len && memcmp(t->pool + r->off, p, len) == 0) {
            return id;
        }
    }
}


uint32_t
tok_word_find(const tok_t *t, const uint8_t *p, size_t len)
{
    const tok_word_t  *e;
    const tok_ref_t   *r;
    tok_word_t         key;
    uint32_t           at, id;
    unsigned           same;
    bool               free;

    assert(len > 0);
    key = tok_word_key(p, len, &at);
    if (!tok_word_may(t, at)) {
        return TOK_NO_ID;
    }
    if (len <= TOK_WORD_BYTES) {
        return tok_word_get(t, key, at);
    }
    for (at &= ~(TOK_WORD_LINE - 1); /* void */; at += TOK_WORD_LINE) {
        e = &t->words[at & t->word_mask];
        same = tok_word_line(e, key, &free);
        for (/* void */; same; same &= same - 1) {
            id = (uint32_t) (e[__builtin_ctz(same)].k1 >> TOK_WORD_ID) - 1;
            r = &t->bytes[id];
            if (r->len == len && memcmp(t->pool + r->off, p, len) == 0) {
                return id;
            }
        }
        if (free) {
            return TOK_NO_ID;
        }
    }
}


/* A long word by tok_back.c, where that may be used. */
static int
try_back(const tok_t *t, tok_scratch_t *s, const uint8_t *word, size_t len,
    size_t base, bool *done)
{
    int  rc;

    *done = false;
    if (t->made == NULL || len <= TOK_SCAN_SYMBOLS_MAX) {
        return 0;
    }
    rc = emit_room(s, len);
    return rc == 0 ? tok_back_word(t, s, word, len, base, done) : rc;
}


/* The symbols are bytes; a byte without a token is left out. */
int
tok_bpe_merge(const tok_t *t, tok_scratch_t *s, const uint8_t *word,
    size_t len, size_t base)
{
    uint32_t  small[2 * TOK_SCAN_SYMBOLS_MAX], *ids = small;
    uint32_t *lens = small + TOK_SCAN_SYMBOLS_MAX;
    size_t    i, n = 0;
    bool      done = false;
    int       rc = 0;

    if (t->made != NULL && len >= TOK_LONG_WORD) {
        rc = emit_room(s, len);
        rc = rc == 0 ? tok_long_word(t, s, word, len, base, &done) : rc;
    }
    if (rc == 0 && !done) {
        rc = try_back(t, s, word, len, base, &done);
    }
    if (rc != 0 || done) {
        return rc;
    }
    if (len > TOK_SCAN_SYMBOLS_MAX) {
        s->small.n = 0;
        rc = tok_room(s, &s->small, 2 * len, sizeof(uint32_t));
        if (rc != 0) {
            return rc;
        }
        ids = s->small.ptr;
        lens = ids + len;
    }
    for (i = 0; i < len; i++) {
        ids[n] = t->byte_ids[word[i]];
        lens[n] = 1;
        n += ids[n] != TOK_NO_ID;
    }
    return merge_word(t, s, ids, lens, n, base, n == len ? word : NULL);
}


int
tok_bpe_bytes(const tok_t *t, tok_scratch_t *s, const uint8_t *word,
    size_t len, size_t base)
{
    uint32_t  id = tok_word_find(t, word, len);
    int       rc;

    if (id == TOK_NO_ID) {
        return tok_bpe_merge(t, s, word, len, base);
    }
    rc = emit_room(s, 1);
    return rc == 0 ? emit(s, id, base, len) : rc;
}


/* The spelling of symbol number i: affixes of the model around a character. */
static size_t
spell(const tok_t *t, uint8_t *buf, const uint8_t *p, size_t n, bool first,
    bool last)
{
    const tok_image_t  *h = t->img;
    size_t              at = 0;

    assert(h->prefix.len <= TOK_AFFIX_BYTES_MAX
           && h->suffix.len <= TOK_AFFIX_BYTES_MAX);
    if (!first) {
        memcpy(buf, t->pool + h->prefix.off, h->prefix.len);
        at = h->prefix.len;
    }
    memcpy(buf + at, p, n);
    at += n;
    if (last) {
        memcpy(buf + at, t->pool + h->suffix.off, h->suffix.len);
        at += h->suffix.len;
    }
    return at;
}


typedef struct {
    uint32_t  *ids, *lens;
    size_t     n;
    uint32_t   unk_len;             /* unknown text not yet written */
    bool       unk;
} symbols_t;


static void
add_symbol(symbols_t *y, uint32_t id, size_t len)
{
    y->ids[y->n] = id;
    y->lens[y->n++] = (uint32_t) len;
}


static void
flush_unknown(const tok_t *t, symbols_t *y)
{
    if (y->unk) {
        add_symbol(y, t->img->unk, y->unk_len);
        y->unk = false;
    }
}


/*
 * A character that is no token: its bytes, or the unknown token, or nothing.
 * The unknown text waits while bytes are written, as in the reference.
 */
static void
odd_character(const tok_t *t, symbols_t *y, const uint8_t *spelt, size_t n,
    size_t len)
{
    uint32_t  flags = t->img->bpe_flags;
    size_t    i;

    if (flags & TOK_BPE_BYTE_FALLBACK) {
        for (i = 0; i < n && t->byte_ids[spelt[i]] != TOK_NO_ID; i++) {
            /* void */
        }
        if (i == n) {
            for (i = 0; i < n; i++) {
                add_symbol(y, t->byte_ids[spelt[i]], 1);
            }
            return;
        }
    }
    if (!(flags & TOK_BPE_HAS_UNK)) {
        return;
    }
    if (y->unk && (flags & TOK_BPE_FUSE_UNK)) {
        y->unk_len += (uint32_t) len;
        return;
    }
    flush_unknown(t, y);
    y->unk = true;
    y->unk_len = (uint32_t) len;
}


int
tok_bpe_chars(const tok_t *t, tok_scratch_t *s, const uint8_t *word,
    size_t len, size_t base)
{
    uint8_t    buf[2 * TOK_AFFIX_BYTES_MAX + 4];
    symbols_t  y = { 0 };
    uint32_t   id;
    size_t     i, n, k, room;
    bool       done;
    int        rc = try_back(t, s, word, len, base, &done);

    if (rc != 0 || done) {
        return rc;
    }
    if (t->img->bpe_flags & TOK_BPE_IGNORE_MERGES) {
        id = tok_model_find(t, word, len);
        if (id != TOK_NO_ID) {
            rc = emit_room(s, 1);
            return rc == 0 ? emit(s, id, base, len) : rc;
        }
    }
    /* With byte fallback the affixes of a character become bytes too. */
    room = len + 1;
    if (t->img->bpe_flags & TOK_BPE_BYTE_FALLBACK) {
        room += len * t->img->prefix.len + t->img->suffix.len;
    }
    s->small.n = 0;
    rc = tok_room(s, &s->small, 2 * room, sizeof(uint32_t));
    if (rc != 0) {
        return rc;
    }
    y.ids = s->small.ptr;
    y.lens = y.ids + room;
    for (i = 0; i < len; i += n) {
        n = tok_utf8_size(word[i]);
        assert(n <= len - i);
        k = spell(t, buf, word + i, n, i == 0, i + n == len);
        id = tok_model_find(t, buf, k);
        if (id != TOK_NO_ID) {
            flush_unknown(t, &y);
            add_symbol(&y, id, n);
        } else {
            odd_character(t, &y, buf, k, n);
        }
    }
    flush_unknown(t, &y);
    assert(y.n <= room);
    return merge_word(t, s, y.ids, y.lens, y.n, base, NULL);
}
