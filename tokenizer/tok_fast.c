/*
 * tok_fast.c: words straight from the text: a hand-written scanner cuts them,
 * a cache of exact keys knows the ids of most, the model does the others.
 */

#include "tokenizer/tok_core.h"
#include "tokenizer/tok_fast.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif


/* Words that are found before the first of them is looked up. */
#define AHEAD  16

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


static inline int
take(const tok_t *t, tok_scratch_t *s, const word_t *w, const tok_short_t *e)
{
    uint32_t  *out = tok_ids(s) + s->ids.n;

    if (e->ids[0] == MANY) {
        return word_long(t, s, w->p, w->len);
    }
    memcpy(out, e->ids, sizeof(e->ids));
    out[0] &= 0x3fffffff;
    s->ids.n += 1 + (e->ids[0] >> 30);
    return 0;
}


/* The key of a word, and its bucket is asked for. */
static inline void
find(tok_scratch_t *s, word_t *w, const uint8_t *p, size_t len,
    const uint8_t *end)
{
    w->p = p;
    w->len = len;
    if (len > TOK_SHORT_BYTES) {
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


/* The ids of a word; there is room for them and a few more. */
static inline int
put(const tok_t *t, tok_scratch_t *s, const word_t *w)
{
    const tok_short_t  *e = w->bucket;

    if (w->len > TOK_SHORT_BYTES) {
        return w->len <= TOK_LONG_BYTES ? word_long(t, s, w->p, w->len)
               : model_word(t, s, w->p, w->len);
    }
    if (e[0].k0 == w->k0 && e[0].k1 == w->k1) {
        return take(t, s, w, e);
    }
    if (e[1].k0 == w->k0 && e[1].k1 == w->k1) {
        return take(t, s, w, e + 1);
    }
    return miss_short(t, s, w);
}


static inline int
word(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t len,
    const uint8_t *end)
{
    word_t  w;

    find(s, &w, p, len, end);
    return put(t, s, &w);
}


int
tok_fast_word(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t len,
    const uint8_t *end)
{
    return word(t, s, p, len, end);
}


/* --- byte-level BPE ---------------------------------------------------- */

#ifdef __SSE2__

/*
 * The end of the most frequent kind of piece, a word of ASCII letters with or
 * without a space before it, if it ends within 16 bytes and before an ASCII
 * character; else NULL.  cased: only the first letter may be a capital, and
 * no apostrophe may follow.  16 bytes can be read.
 */
static inline const uint8_t *
plain_word(const uint8_t *p, bool cased)
{
    const __m128i  v = _mm_loadu_si128((const __m128i *) p);
    const __m128i  low = _mm_or_si128(v, _mm_set1_epi8(0x20));
    const __m128i  bias = _mm_set1_epi8((char) (0x80 - 'a'));
    const __m128i  top = _mm_set1_epi8((char) (0x80 + 26));
    unsigned       letters, first, n, c;

    /* Unsigned c - 'a' < 26 as a signed comparison. */
    letters = (unsigned) _mm_movemask_epi8(
        _mm_cmplt_epi8(_mm_add_epi8(low, bias), top));
    first = p[0] == ' ';
    if (!(letters >> first & 1)) {
        return NULL;
    }
    if (cased) {
        /* Capitals are no part of the run behind the first letter. */
        letters &= (unsigned) _mm_movemask_epi8(
            _mm_cmplt_epi8(_mm_add_epi8(v, bias), top)) | 1u << first;
    }
    n = (unsigned) __builtin_ctz(~(letters >> first)) + first;
    if (n > TOK_SHORT_BYTES) {
        return NULL;
    }
    c = p[n];
    if (c >= 0x80 || (cased && (c == '\'' || (c >= 'A' && c <= 'Z')
                                || n == first + 1)))
    {
        return NULL;
    }
    return p + n;
}

#endif


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


/* The end of the piece at p. */
static inline const uint8_t *
piece_end(uint32_t scan, bool cased, const uint8_t *p, const uint8_t *end,
    const uint8_t **limit)
{
#ifdef __SSE2__
    const uint8_t  *q;

    if (end - p > 16) {
        q = plain_word(p, cased);
        if (q != NULL) {
            return q;
        }
    }
#else
    (void) cased;
#endif
    return tok_scan(scan, p, end, limit);
}


/*
 * Some words are found first and looked up then, so that the memory of the
 * cache is fetched for all of them at once.
 */
static int
scan_words(const tok_t *t, tok_scratch_t *s, const uint8_t *text, size_t len)
{
    const uint8_t  *p = text, *end = text + len, *q, *limit = NULL;
    uint32_t        scan = t->img->scan;
    bool            cased = scan == TOK_R_O200K || scan == TOK_R_TEKKEN;
    word_t          w[AHEAD];
    size_t          n, i;
    int             rc = 0;

    while (rc == 0 && p < end) {
        for (n = 0; n < AHEAD && p < end; n++) {
            q = piece_end(scan, cased, p, end, &limit);
            find(s, &w[n], p, (size_t) (q - p), end);
            p = q;
        }
        for (i = 0; rc == 0 && i < n; i++) {
            rc = put(t, s, &w[i]);
        }
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
