/*
 * tok_fast.c: words straight from the text: a hand-written scanner cuts them,
 * a cache of exact keys knows the ids of most, the model does the others.
 */

#include "tokenizer/tok_core.h"
#include "tokenizer/tok_fast.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif


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


/* Words of up to 48 bytes and 19 ids. */
static int
word_long(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t len)
{
    uint64_t     k[6] = { 0 }, h;
    tok_long_t  *e;
    size_t       at = s->ids.n, n;
    int          rc;

    memcpy(k, p, len);
    h = tok_mix(tok_mix(k[0] ^ k[4], k[1] ^ k[5]) ^ k[2], k[3] + len);
    e = &s->longs[h >> (64 - TOK_CACHE_LONG_LOG)];
    if ((e->n_len & 0xff) == len && memcmp(e->k, k, sizeof(k)) == 0) {
        n = e->n_len >> 8;
        memcpy(tok_ids(s) + at, e->ids, n * sizeof(uint32_t));
        s->ids.n = at + n;
        return 0;
    }
    rc = model_word(t, s, p, len);
    n = s->ids.n - at;
    if (rc == 0 && n <= TOK_LONG_IDS) {
        memcpy(e->k, k, sizeof(k));
        memcpy(e->ids, tok_ids(s) + at, n * sizeof(uint32_t));
        e->n_len = (uint32_t) (n << 8 | len);
    }
    return rc;
}


/*
 * A short word that its bucket does not have; of more than four ids it is
 * kept among the long ones.
 */
static int
miss_short(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t len,
    tok_short_t *bucket, uint64_t k0, uint64_t k1)
{
    tok_short_t  e;
    size_t       at = s->ids.n, n, i;
    int          rc = len > 4 ? word_long(t, s, p, len)
                      : model_word(t, s, p, len);

    if (rc != 0) {
        return rc;
    }
    n = s->ids.n - at;
    if (n >= 1 && n <= 4) {
        e.k0 = k0;
        e.k1 = k1;
        for (i = 0; i < 4; i++) {
            e.ids[i] = i < n ? tok_ids(s)[at + i] : 0;
        }
        e.ids[0] |= (uint32_t) (n - 1) << 30;
        bucket[1] = bucket[0];
        bucket[0] = e;
    }
    return 0;
}


static inline void
take(tok_scratch_t *s, const tok_short_t *e)
{
    uint32_t  *out = tok_ids(s) + s->ids.n;

    out[0] = e->ids[0] & 0x3fffffff;
    out[1] = e->ids[1];
    out[2] = e->ids[2];
    out[3] = e->ids[3];
    s->ids.n += 1 + (e->ids[0] >> 30);
}


/* One word; there is room for its ids and a few more. */
static inline int
word(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t len,
    const uint8_t *end)
{
    uint8_t       tail[16] = { 0 };
    uint64_t      k0, k1;
    tok_short_t  *e;

    if (len > TOK_SHORT_BYTES) {
        return len <= TOK_LONG_BYTES ? word_long(t, s, p, len)
               : model_word(t, s, p, len);
    }
    if (end - p >= 16) {
        short_key(p, len, &k0, &k1);

    } else {
        memcpy(tail, p, len);
        short_key(tail, len, &k0, &k1);
    }
    e = &s->shorts[short_slot(k0, k1)];
    if (e->k0 == k0 && e->k1 == k1) {
        take(s, e);
        return 0;
    }
    if (e[1].k0 == k0 && e[1].k1 == k1) {
        take(s, e + 1);
        return 0;
    }
    return miss_short(t, s, p, len, e, k0, k1);
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


static int
scan_words(const tok_t *t, tok_scratch_t *s, const uint8_t *text, size_t len)
{
    const uint8_t  *p = text, *end = text + len, *q, *limit = NULL;
    uint32_t        scan = t->img->scan;
    int             rc = 0;
#ifdef __SSE2__
    bool            cased = scan == TOK_R_O200K || scan == TOK_R_TEKKEN;

    while (rc == 0 && end - p > 16) {
        q = plain_word(p, cased);
        if (q == NULL) {
            q = tok_scan(scan, p, end, &limit);
        }
        rc = word(t, s, p, (size_t) (q - p), end);
        p = q;
    }
#endif
    while (rc == 0 && p < end) {
        q = tok_scan(scan, p, end, &limit);
        rc = word(t, s, p, (size_t) (q - p), end);
        p = q;
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
