/*
 * tok_fast.c: byte-level BPE straight on the text: a hand-written scanner
 * cuts words, a cache of exact keys knows the ids of most of them.
 */

#include "tokenizer/tok_core.h"


static const uint64_t  keep_low[9] = {
    0, 0xff, 0xffff, 0xffffff, 0xffffffff, 0xffffffffff, 0xffffffffffff,
    0xffffffffffffff, UINT64_MAX
};


/* The key of a word of 1 to 15 bytes of which 16 can be read. */
static inline void
short_key(const uint8_t *p, size_t len, uint64_t *k0, uint64_t *k1)
{
    uint64_t  a = tok_load64(p), b = tok_load64(p + 8);

    if (len <= 8) {
        a &= keep_low[len];
        b = 0;

    } else {
        b &= keep_low[len - 8];
    }
    *k0 = a;
    *k1 = b | (uint64_t) len << 56;
}


static inline uint32_t
short_slot(uint64_t k0, uint64_t k1)
{
    uint64_t  h = (k0 ^ (k1 * 0x9e3779b97f4a7c15ull)) * 0xd6e8feb86659fd93ull;

    return (uint32_t) (h >> (64 - TOK_CACHE_SHORT_LOG));
}


static int
miss_short(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t len,
    tok_short_t *e, uint64_t k0, uint64_t k1)
{
    size_t    at = s->ids.n, n, i;
    int       rc = tok_bpe_bytes(t, s, p, len, 0);

    if (rc != 0) {
        return rc;
    }
    n = s->ids.n - at;
    if (n >= 1 && n <= 4) {
        e->k0 = k0;
        e->k1 = k1;
        for (i = 0; i < 4; i++) {
            e->ids[i] = i < n ? tok_ids(s)[at + i] : 0;
        }
        e->ids[0] |= (uint32_t) (n - 1) << 30;
    }
    return 0;
}


static int
word_long(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t len)
{
    uint64_t     k[4] = { 0, 0, 0, 0 }, h;
    tok_long_t  *e;
    size_t       at = s->ids.n, n;
    int          rc;

    memcpy(k, p, len);
    h = tok_mix(tok_mix(k[0], k[1]) ^ k[2], k[3] + len);
    e = &s->longs[h >> (64 - TOK_CACHE_LONG_LOG)];
    if ((e->n_len & 0xff) == len && e->k[0] == k[0] && e->k[1] == k[1]
        && e->k[2] == k[2] && e->k[3] == k[3])
    {
        memcpy(tok_ids(s) + at, e->ids, sizeof(e->ids));
        s->ids.n = at + (e->n_len >> 8);
        return 0;
    }
    rc = tok_bpe_bytes(t, s, p, len, 0);
    n = s->ids.n - at;
    if (rc == 0 && n <= TOK_LONG_IDS) {
        memcpy(e->k, k, sizeof(k));
        memcpy(e->ids, tok_ids(s) + at, n * sizeof(uint32_t));
        e->n_len = (uint32_t) (n << 8 | len);
    }
    return rc;
}


/* One word; there is room for its ids and a few more. */
static inline int
word(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t len,
    const uint8_t *end)
{
    uint8_t       tail[16] = { 0 };
    uint64_t      k0, k1;
    uint32_t     *out;
    tok_short_t  *e;

    if (len > TOK_SHORT_BYTES) {
        return len <= TOK_LONG_BYTES ? word_long(t, s, p, len)
               : tok_bpe_bytes(t, s, p, len, 0);
    }
    if (end - p >= 16) {
        short_key(p, len, &k0, &k1);

    } else {
        memcpy(tail, p, len);
        short_key(tail, len, &k0, &k1);
    }
    e = &s->shorts[short_slot(k0, k1)];
    if (e->k0 != k0 || e->k1 != k1) {
        return miss_short(t, s, p, len, e, k0, k1);
    }
    out = tok_ids(s) + s->ids.n;
    out[0] = e->ids[0] & 0x3fffffff;
    out[1] = e->ids[1];
    out[2] = e->ids[2];
    out[3] = e->ids[3];
    s->ids.n += 1 + (e->ids[0] >> 30);
    return 0;
}


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


int
tok_fast_bytes(const tok_t *t, tok_scratch_t *s, const uint8_t *text,
    size_t len, size_t base)
{
    const uint8_t  *p = text, *end = text + len, *q, *limit = NULL;
    uint32_t        scan = t->img->scan;
    size_t          at;
    bool            spans = s->want_spans;
    int             rc;

    rc = tok_room(s, &s->ids, len + 8, sizeof(uint32_t));
    if (rc == 0 && spans) {
        s->spans.n = s->ids.n;
        rc = tok_room(s, &s->spans, len + 8, sizeof(tok_span_t));
    }
    s->want_spans = false;
    while (rc == 0 && p < end) {
        q = tok_scan(scan, p, end, &limit);
        at = s->ids.n;
        rc = word(t, s, p, (size_t) (q - p), end);
        if (spans) {
            word_spans(t, s, at, base + (size_t) (p - text));
        }
        p = q;
    }
    s->want_spans = spans;
    return rc;
}
