/*
 * tok_fast.c: words straight from the text: a hand-written scanner cuts them,
 * a cache of exact keys knows the ids of most, the model does the others.
 */

#include "tokenizer/tok_core.h"
#include "tokenizer/tok_fast.h"
#include "tokenizer/tok_win.h"


/* Words that are found before the first of them is looked up. */
#define AHEAD  64

/* In a short entry, no id: the word has more than four of them. */
#define MANY   UINT32_MAX

/* Sixteen bytes of ones, sixteen of zeros: a mask for every length. */
static const uint8_t  mask_bytes[32] = {
    255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255
};


/* The key of a word of 1 to 15 bytes of which 16 can be read. */
static inline void
short_key(const uint8_t *p, size_t len, uint64_t *k0, uint64_t *k1)
{
    *k0 = tok_load64(p) & tok_load64(mask_bytes + 16 - len);
    *k1 = (tok_load64(p + 8) & tok_load64(mask_bytes + 24 - len))
          | (uint64_t) len << 56;
}


/* Buckets of two entries: one cache line. */
static inline uint32_t
short_slot(uint64_t k0, uint64_t k1)
{
    uint64_t  h = (k0 ^ (k1 * 0x9e3779b97f4a7c15ull)) * 0xd6e8feb86659fd93ull;

    return (uint32_t) (h >> (64 - TOK_CACHE_SHORT_LOG)) & ~1u;
}


/* A word that no cache knows. */
static int
model_word(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t len)
{
    switch (t->img->fast) {
    case TOK_FAST_BYTES:
        return tok_bpe_bytes(t, s, p, len, 0);
    case TOK_FAST_SPM:
        return tok_fast_spm_word(t, s, p, len);
    case TOK_FAST_WORDPIECE:
        return tok_wordpiece(t, s, p, len, 0);
    default:
        assert(t->img->fast == TOK_FAST_UNIGRAM);
        return tok_fast_unigram_word(t, s, p, len);
    }
}


/* The entry where the cache would have a word of up to 48 bytes. */
static inline tok_long_t *
long_slot(tok_scratch_t *s, const uint8_t *p, size_t len, uint64_t *k)
{
    uint64_t  h;

    assert(len <= TOK_LONG_BYTES);
    memset(k, 0, TOK_LONG_BYTES);
    memcpy(k, p, len);
    h = tok_mix(tok_mix(k[0] ^ k[4], k[1] ^ k[5]) ^ k[2], k[3] + len);
    return &s->longs[h >> (64 - TOK_CACHE_LONG_LOG)];
}


/* The ids from at on are those of a word: remembered if they are few. */
static void
keep_long(tok_scratch_t *s, const uint8_t *p, size_t len, size_t at)
{
    uint64_t     k[TOK_LONG_BYTES / 8];
    tok_long_t  *e = long_slot(s, p, len, k);
    size_t       n = s->ids.n - at;

    if (n <= TOK_LONG_IDS) {
        memcpy(e->k, k, sizeof(k));
        memcpy(e->ids, tok_ids(s) + at, n * sizeof(uint32_t));
        e->n_len = (uint32_t) (n << 8 | len);
    }
}


/* Words of up to 48 bytes and 19 ids. */
static int
word_long(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t len)
{
    uint64_t           k[TOK_LONG_BYTES / 8];
    const tok_long_t  *e = long_slot(s, p, len, k);
    size_t             at = s->ids.n, n;
    int                rc;

    if ((e->n_len & 0xff) == len && memcmp(e->k, k, sizeof(k)) == 0) {
        n = e->n_len >> 8;
        memcpy(tok_ids(s) + at, e->ids, n * sizeof(uint32_t));
        s->ids.n = at + n;
        return 0;
    }
    rc = model_word(t, s, p, len);
    if (rc == 0) {
        keep_long(s, p, len, at);
    }
    return rc;
}


/* A word and where the cache would have it. */
typedef struct {
    const uint8_t  *p;
    size_t          len;
    uint64_t        k0, k1;
    tok_short_t    *bucket;
} word_t;

/* The bucket of a word that is too long for one: never its key. */
static tok_short_t  no_bucket[2];


/* A short word that its bucket does not have. */
static int
miss_short(const tok_t *t, tok_scratch_t *s, const word_t *w)
{
    tok_short_t  e = { w->k0, w->k1, { 0 } };
    size_t       at = s->ids.n, n, i;
    int          rc = model_word(t, s, w->p, w->len);

    n = s->ids.n - at;
    if (rc != 0 || n == 0) {
        return rc;
    }
    if (n > 4) {
        /* The bucket says only that the long words have it. */
        e.ids[0] = MANY;
        keep_long(s, w->p, w->len, at);

    } else {
        for (i = 0; i < n; i++) {
            e.ids[i] = tok_ids(s)[at + i];
        }
        e.ids[0] |= (uint32_t) (n - 1) << 30;
    }
    w->bucket[1] = w->bucket[0];
    w->bucket[0] = e;
    return 0;
}


static int
miss(const tok_t *t, tok_scratch_t *s, const word_t *w)
{
    return w->len <= TOK_SHORT_BYTES ? miss_short(t, s, w)
           : w->len <= TOK_LONG_BYTES ? word_long(t, s, w->p, w->len)
           : model_word(t, s, w->p, w->len);
}


/* The key of a word, and its bucket is asked for. */
static inline void
find(tok_scratch_t *s, word_t *w, const uint8_t *p, size_t len,
    const uint8_t *end)
{
    w->p = p;
    w->len = len;
    if (len > TOK_SHORT_BYTES) {
        w->k0 = w->k1 = 1;
        w->bucket = no_bucket;
        return;
    }
    if (end - p >= 16) {
        short_key(p, len, &w->k0, &w->k1);

    } else {
        w->k0 = tok_load_part(p, len);
        w->k1 = (len > 8 ? tok_load_part(p + 8, len - 8) : 0)
                | (uint64_t) len << 56;
    }
    w->bucket = &s->shorts[short_slot(w->k0, w->k1)];
    __builtin_prefetch(w->bucket);
}


/*
 * The ids of n words; there is room for them and a few more.  Which of the
 * two entries has a word is no branch, for nobody could foresee it.
 */
static inline int
put(const tok_t *t, tok_scratch_t *s, const word_t *w, size_t n)
{
    const tok_short_t  *e;
    const word_t       *end = w + n;
    uint32_t           *out = tok_ids(s) + s->ids.n, first;
    int                 rc;

    for (/* void */; w < end; w++) {
        e = w->bucket;
        e += ((e->k0 ^ w->k0) | (e->k1 ^ w->k1)) != 0;
        first = e->ids[0];
        if (((e->k0 ^ w->k0) | (e->k1 ^ w->k1)) == 0 && first != MANY) {
            memcpy(out, e->ids, sizeof(e->ids));
            *out = first & 0x3fffffff;
            out += 1 + (first >> 30);
            continue;
        }
        s->ids.n = (size_t) (out - tok_ids(s));
        rc = ((e->k0 ^ w->k0) | (e->k1 ^ w->k1)) == 0
             ? word_long(t, s, w->p, w->len) : miss(t, s, w);
        if (rc != 0) {
            return rc;
        }
        out = tok_ids(s) + s->ids.n;
    }
    s->ids.n = (size_t) (out - tok_ids(s));
    return 0;
}


static inline int
word(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t len,
    const uint8_t *end)
{
    word_t  w;

    find(s, &w, p, len, end);
    return put(t, s, &w, 1);
}


int
tok_fast_word(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t len,
    const uint8_t *end)
{
    return word(t, s, p, len, end);
}


/* --- byte-level BPE ---------------------------------------------------- */

/* The spans of the ids from at on: each token stands for its own bytes. */
static void
word_spans(const tok_t *t, tok_scratch_t *s, size_t at, size_t begin)
{
    size_t  len;

    for (/* void */; at < s->ids.n; at++) {
        len = t->bytes[tok_ids(s)[at]].len;
        tok_spans(s)[at] = (tok_span_t) { (uint32_t) begin,
                                          (uint32_t) (begin + len) };
        begin += len;
    }
}


/*
 * The next words of the text: those of a window, or one where it shows none.
 * Returns where they end.
 */
static inline const uint8_t *
cut(tok_scratch_t *s, uint32_t scan, const uint8_t *p, const uint8_t *end,
    const uint8_t **limit, word_t *w, size_t *n)
{
    const uint8_t  *base = p, *q;
    uint64_t        ends = 0;

    if (p[0] < 0x80 && (end - p == 1 || p[1] < 0x80)) {
        ends = tok_win_ends(scan, p, (size_t) (end - p));
    }
    if (ends == 0) {
        q = tok_scan(scan, p, end, limit);
        find(s, &w[(*n)++], p, (size_t) (q - p), end);
        return q;
    }
    do {
        q = base + __builtin_ctzll(ends);
        find(s, &w[(*n)++], p, (size_t) (q - p), end);
        p = q;
        ends &= ends - 1;
    } while (ends);
    return p;
}


/*
 * Some words are found first and looked up then, so that the memory of the
 * cache is fetched for all of them at once.
 */
static int
scan_words(const tok_t *t, tok_scratch_t *s, const uint8_t *text, size_t len)
{
    const uint8_t  *p = text, *end = text + len, *limit = NULL;
    uint32_t        scan = t->img->scan;
    word_t          w[AHEAD + TOK_WIN_BYTES];
    size_t          n;
    int             rc = 0;

    assert(tok_win_knows(scan));
    while (rc == 0 && p < end) {
        for (n = 0; n < AHEAD && p < end; /* void */) {
            p = cut(s, scan, p, end, &limit, w, &n);
        }
        rc = put(t, s, w, n);
    }
    return rc;
}


int
tok_fast_bytes(const tok_t *t, tok_scratch_t *s, const uint8_t *text,
    size_t len, size_t base)
{
    size_t  at = s->ids.n;
    bool    spans = s->want_spans;
    int     rc;

    rc = tok_room(s, &s->ids, len + 8, sizeof(uint32_t));
    if (rc == 0 && spans) {
        s->spans.n = s->ids.n;
        rc = tok_room(s, &s->spans, len + 8, sizeof(tok_span_t));
    }
    if (rc != 0) {
        return rc;
    }
    s->want_spans = false;
    rc = scan_words(t, s, text, len);
    s->want_spans = spans;
    if (rc == 0 && spans) {
        word_spans(t, s, at, base);
    }
    return rc;
}
