/*
 * tokenizer_bulk.c: our half of tokenizer_bulk.py, as a shared library: makes
 * random texts (random Unicode, changed pieces of real text, tokens of the
 * vocabulary, special tokens whole and cut) and compares what the reference
 * answers with what the library answers, so that Python handles a batch of
 * cases and not each one.  A seed gives the same texts everywhere.
 */

#include "tokenizer/tok.h"
#include "tokenizer/tok_util.h"

#include <stdlib.h>


#define BULK_API  __attribute__((visibility("default")))

#define TEXT_MAX   (1u << 16)       /* bytes of one case, with room */
#define BATCH_MAX  4096

/* What a piece of a text may cost at most: the longest token. */
#define PIECE_MAX  256

typedef struct {
    const uint8_t  *ptr;
    uint32_t        len;
} bytes_t;

typedef struct {
    tok_t          *t;
    tok_scratch_t  *s;
    tok_err_t       err;
    uint64_t        rnd;
    const uint8_t  *corpus;
    size_t          corpus_bytes;
    bytes_t        *words;          /* of the vocabulary, as text */
    bytes_t        *specials;
    size_t          n_words, n_specials;
    uint8_t        *pool;
    uint8_t        *buf;            /* the batch: texts and separators */
    uint32_t        begin[BATCH_MAX], end[BATCH_MAX];
    uint32_t        n;
} bulk_t;

/* Between two texts: U+10FFFF, which no text holds. */
static const uint8_t  separator[4] = { 0xf4, 0x8f, 0xbf, 0xbf };

static const struct {
    uint32_t  lo, hi;
}  ranges[] = {
    { 0x20, 0x7e }, { 0x20, 0x7e }, { 0x20, 0x7e }, { 0x61, 0x7a },
    { 0, 0x1f }, { 0x80, 0xff }, { 0x100, 0x24f }, { 0x250, 0x2ff },
    { 0x300, 0x36f }, { 0x370, 0x3ff }, { 0x400, 0x4ff }, { 0x530, 0x58f },
    { 0x590, 0x6ff }, { 0x700, 0x8ff }, { 0x900, 0x97f }, { 0x980, 0xdff },
    { 0xe00, 0xfff }, { 0x1000, 0x109f }, { 0x1100, 0x11ff },
    { 0x1200, 0x1cff }, { 0x1d00, 0x1dff }, { 0x1e00, 0x1fff },
    { 0x2000, 0x206f }, { 0x2070, 0x20ff }, { 0x2100, 0x218f },
    { 0x2190, 0x2bff }, { 0x2c00, 0x2dff }, { 0x2e00, 0x2fff },
    { 0x3000, 0x30ff }, { 0x3100, 0x4dff }, { 0x4e00, 0x9fff },
    { 0xa000, 0xabff }, { 0xac00, 0xd7ff }, { 0xe000, 0xf8ff },
    { 0xf900, 0xfaff }, { 0xfb00, 0xfdff }, { 0xfe00, 0xfeff },
    { 0xff00, 0xffff }, { 0x10000, 0x107ff }, { 0x10800, 0x10fff },
    { 0x11000, 0x12fff }, { 0x13000, 0x1bfff }, { 0x1c000, 0x1dfff },
    { 0x1e000, 0x1efff }, { 0x1f1e6, 0x1f1ff }, { 0x1f300, 0x1f6ff },
    { 0x1f700, 0x1ffff }, { 0x20000, 0x323af }, { 0xe0000, 0xe01ef },
    { 0xf0000, 0x10fffe }
};

static const char *const  pieces[] = {
    " ", " ", " ", "  ", "   ", "\n", "\r\n", "\n\n", "\t", "'s", "'S", "'ll",
    "'\xc5\xbf", "\xc2\xa0", "\xe3\x80\x80", "\xe2\x80\x8d", "\xef\xb8\x8f",
    "\xcc\x81", "\xcd\x85", "\xe2\x96\x81", "\xe2\x96\x81\xe2\x96\x81", "1",
    "12", "123", "1234", ".", "...", "!?", "don't", "I'VE", "  \n ",
    "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "a\xcc\x81", "A\xcc\x8a",
    "\xef\xbf\xbd", "##", "<0x41>", "_", " \n", "\n ", "\xc2\x85",
    "\xe2\x80\xa8", "\xe2\x80\x8b", "\xc4\xb0", "\xc3\x9f", "\xce\xa3",
    "\xef\xac\x81", "\xe0\xb8\xb3", "\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91"
    "\xa9", "\xd7\x90\xd6\xb7", "\xe0\xa4\x95\xe0\xa5\x8d\xe0\xa4\xb7", "=",
    "==", "//", "/*", "();", "->", "\"", "'", "\\n", "\xe2\x80\x99s",
    "\xe0\xa4\x95\xe0\xa5\x8d\xe0\xa5\x98\xcc\x81", "\xe2\x84\x85\xd7\x88"
};


static uint32_t
rnd(bulk_t *b, uint32_t below)
{
    b->rnd ^= b->rnd << 13;
    b->rnd ^= b->rnd >> 7;
    b->rnd ^= b->rnd << 17;
    return (uint32_t) ((b->rnd >> 32) * below >> 32);
}


static uint32_t
a_char(bulk_t *b)
{
    uint32_t  k = rnd(b, sizeof(ranges) / sizeof(ranges[0]));
    uint32_t  c = ranges[k].lo + rnd(b, ranges[k].hi - ranges[k].lo + 1);

    return (c >= 0xd800 && c <= 0xdfff) || c == 0x10ffff ? 'x' : c;
}


/* A piece of real text that begins and ends between characters. */
static size_t
put_real(bulk_t *b, uint8_t *p, uint32_t max)
{
    size_t  at, n;

    if (b->corpus_bytes < 2 * PIECE_MAX) {
        return tok_utf8_put(p, a_char(b));
    }
    at = (size_t) (((uint64_t) rnd(b, UINT32_MAX)
                    * (b->corpus_bytes - 2 * PIECE_MAX)) >> 32);
    while ((b->corpus[at] & 0xc0) == 0x80) {
        at++;
    }
    n = 1 + rnd(b, max);
    while ((b->corpus[at + n] & 0xc0) == 0x80) {
        n--;
    }
    memcpy(p, b->corpus + at, n);
    return n;
}


/* A special token, in one case of three without an end or a beginning. */
static size_t
put_special(bulk_t *b, uint8_t *p)
{
    bytes_t  s;
    size_t   cut;

    if (b->n_specials == 0) {
        return 0;
    }
    s = b->specials[rnd(b, (uint32_t) b->n_specials)];
    cut = rnd(b, 3) == 0 ? rnd(b, s.len) : 0;
    while (cut && (s.ptr[cut] & 0xc0) == 0x80) {
        cut--;
    }
    if (cut && rnd(b, 2)) {
        memcpy(p, s.ptr, cut);
        return cut;
    }
    memcpy(p, s.ptr + cut, s.len - cut);
    return s.len - cut;
}


static size_t
put_repeated(bulk_t *b, uint8_t *p)
{
    uint32_t  c = a_char(b), n = 2 + rnd(b, rnd(b, 8) ? 12 : 60);
    size_t    len = 0;

    while (n-- > 0) {
        len += tok_utf8_put(p + len, c);
    }
    return len;
}


/* At most PIECE_MAX bytes. */
static size_t
put_piece(bulk_t *b, uint8_t *p)
{
    uint32_t  k = rnd(b, 100);
    bytes_t   w;

    if (k < 26) {
        return tok_utf8_put(p, a_char(b));
    }
    if (k < 50) {
        k = rnd(b, sizeof(pieces) / sizeof(pieces[0]));
        memcpy(p, pieces[k], strlen(pieces[k]));
        return strlen(pieces[k]);
    }
    if (k < 55) {
        return put_special(b, p);
    }
    if (k < 75 && b->n_words) {
        w = b->words[rnd(b, (uint32_t) b->n_words)];
        memcpy(p, w.ptr, w.len);
        return w.len;
    }
    if (k < 77) {
        return put_repeated(b, p);
    }
    if (k < 92) {
        return put_real(b, p, 16);
    }
    p[0] = (uint8_t) ('a' + rnd(b, 26));
    return 1;
}


/* Takes characters out, doubles, swaps or replaces them. */
static size_t
change(bulk_t *b, uint8_t *p, size_t len)
{
    uint8_t  c[8];
    size_t   at, n, k, times = rnd(b, 4);

    while (times-- > 0 && len > 4) {
        at = rnd(b, (uint32_t) len);
        while (at && (p[at] & 0xc0) == 0x80) {
            at--;
        }
        n = tok_utf8_size(p[at]);
        switch (rnd(b, 4)) {
        case 0:
            memmove(p + at, p + at + n, len - at - n);
            len -= n;
            break;
        case 1:
            memmove(p + at + n, p + at, len - at);
            len += n;
            break;
        case 2:
            k = tok_utf8_put(c, a_char(b));
            memmove(p + at + k, p + at + n, len - at - n);
            memcpy(p + at, c, k);
            len = len - n + k;
            break;
        default:
            if (p[at] < 0x80 && ((p[at] | 0x20) >= 'a')
                && (p[at] | 0x20) <= 'z')
            {
                p[at] ^= 0x20;
            }
            break;
        }
    }
    return len;
}


static size_t
put_text(bulk_t *b, uint8_t *p)
{
    uint32_t  k = rnd(b, 1000), n;
    size_t    len = 0;

    if (k < 300) {
        return change(b, p, put_real(b, p, rnd(b, 8) ? 16 : 80));
    }
    if (k < 354) {                  /* one long word or run */
        for (n = 20 + rnd(b, 400); n > 0; n--) {
            len += tok_utf8_put(p + len, k < 352 ? 'a' + rnd(b, 4)
                                : k < 353 ? 'a' + rnd(b, 26) : a_char(b));
        }
        return len;
    }
    if (k < 358) {                  /* a long text */
        n = 20 + rnd(b, 60);

    } else {                        /* mostly short: more borders a second */
        n = 1 + rnd(b, rnd(b, 10) ? 4 : 16);
    }
    while (n-- > 0) {
        len += put_piece(b, p + len);
    }
    return len;
}


BULK_API size_t bulk_texts(bulk_t *b, uint32_t n, const uint8_t **texts);
BULK_API bulk_t *bulk_new(const char *path, uint64_t seed,
    const uint8_t *corpus, size_t corpus_bytes, const char **error);
BULK_API uint32_t bulk_check(bulk_t *b, unsigned flags, const uint32_t *ids,
    const uint32_t *counts, const uint32_t *offsets, uint32_t *bad,
    uint32_t bad_max);
BULK_API uint32_t bulk_check_text(bulk_t *b, const uint32_t *ids,
    const uint32_t *counts, unsigned flags, const uint8_t *text,
    const uint32_t *lens, uint32_t *bad, uint32_t bad_max);
BULK_API long bulk_ids(bulk_t *b, const char *text, size_t len,
    unsigned flags, uint32_t *ids, size_t max);


/* Makes n texts; they lie in one piece with a separator between them. */
size_t
bulk_texts(bulk_t *b, uint32_t n, const uint8_t **texts)
{
    size_t    at = 0;
    uint32_t  i;

    assert(n <= BATCH_MAX);
    for (i = 0; i < n; i++) {
        if (i) {
            memcpy(b->buf + at, separator, sizeof(separator));
            at += sizeof(separator);
        }
        b->begin[i] = (uint32_t) at;
        at += put_text(b, b->buf + at);
        b->end[i] = (uint32_t) at;
    }
    b->n = n;
    *texts = b->buf;
    return at;
}


/* ids, counts, offsets: of the reference, text by text; offsets or NULL. */
uint32_t
bulk_check(bulk_t *b, unsigned flags, const uint32_t *ids,
    const uint32_t *counts, const uint32_t *offsets, uint32_t *bad,
    uint32_t bad_max)
{
    tok_result_t  r;
    uint32_t      i, n_bad = 0;
    bool          same;

    flags |= TOK_NO_TRUNCATION | TOK_NO_PADDING;
    for (i = 0; i < b->n; i++) {
        same = tok_encode(b->t, b->s, (const char *) b->buf + b->begin[i],
                          b->end[i] - b->begin[i], flags, &r) == 0
               && r.n == counts[i]
               && (r.n == 0 || memcmp(r.ids, ids, r.n * sizeof(*ids)) == 0);
        if (same && offsets != NULL) {
            same = tok_encode(b->t, b->s, (const char *) b->buf + b->begin[i],
                              b->end[i] - b->begin[i], flags | TOK_OFFSETS,
                              &r) == 0 && r.n == counts[i]
                   && (r.n == 0
                       || (memcmp(r.ids, ids, r.n * sizeof(*ids)) == 0
                           && memcmp(r.offsets, offsets,
                                     r.n * sizeof(*r.offsets)) == 0));
        }
        if (!same && n_bad < bad_max) {
            bad[n_bad++] = i;
        }
        ids += counts[i];
        offsets += offsets != NULL ? 2 * (size_t) counts[i] : 0;
    }
    return n_bad;
}


static bool
same_stream(bulk_t *b, const uint32_t *ids, uint32_t n, unsigned flags,
    const uint8_t *text, size_t len)
{
    char          out[8192];
    tok_stream_t  st;
    size_t        at = 0, k;
    uint32_t      i;

    if (tok_stream_room(b->t) > sizeof(out)) {
        return true;
    }
    tok_stream_init(&st, flags);
    for (i = 0; i <= n; i++) {
        if ((i < n ? tok_stream_step(&st, b->t, ids[i], out, sizeof(out), &k)
             : tok_stream_flush(&st, b->t, out, sizeof(out), &k)) != 0
            || k > len - at || (k && memcmp(out, text + at, k) != 0))
        {
            return false;
        }
        at += k;
    }
    return at == len;
}


/* Decoded whole, and (up to 120 ids) id by id. */
uint32_t
bulk_check_text(bulk_t *b, const uint32_t *ids, const uint32_t *counts,
    unsigned flags, const uint8_t *text, const uint32_t *lens, uint32_t *bad,
    uint32_t bad_max)
{
    const char  *out;
    size_t       len;
    uint32_t     i, n_bad = 0;

    for (i = 0; i < b->n; i++) {
        if ((tok_decode(b->t, b->s, ids, counts[i], flags, &out, &len) != 0
             || len != lens[i] || (len && memcmp(out, text, len) != 0)
             || (counts[i] <= 120 && !same_stream(b, ids, counts[i], flags,
                                                  text, lens[i])))
            && n_bad < bad_max)
        {
            bad[n_bad++] = i;
        }
        ids += counts[i];
        text += lens[i];
    }
    return n_bad;
}


/* The vocabulary's tokens that are text, and its special ones. */
static int
collect(bulk_t *b)
{
    uint32_t   n = tok_vocab_size(b->t), id;
    size_t     at = 0, len;
    uint8_t    piece[PIECE_MAX];
    tok_str_t  s;

    b->words = calloc(n + 1u, sizeof(bytes_t));
    b->specials = calloc(n + 1u, sizeof(bytes_t));
    b->pool = malloc((size_t) (n + 1) * PIECE_MAX);
    b->buf = malloc((size_t) BATCH_MAX * TEXT_MAX);
    if (!b->words || !b->specials || !b->pool || !b->buf) {
        return TOK_E_NOMEM;
    }
    for (id = 0; id < n; id++) {
        s = tok_id_to_token(b->t, id);
        if (tok_is_special(b->t, id) && s.len && s.len <= PIECE_MAX) {
            memcpy(b->pool + at, s.ptr, s.len);
            b->specials[b->n_specials++] = (bytes_t) {
                b->pool + at, (uint32_t) s.len
            };
            at += s.len;

        } else if (tok_id_to_bytes(b->t, id, (char *) piece, PIECE_MAX, &len)
                   == 0 && len && tok_utf8_check(piece, len) == len)
        {
            memcpy(b->pool + at, piece, len);
            b->words[b->n_words++] = (bytes_t) {
                b->pool + at, (uint32_t) len
            };
            at += len;
        }
    }
    return 0;
}


bulk_t *
bulk_new(const char *path, uint64_t seed, const uint8_t *corpus,
    size_t corpus_bytes, const char **error)
{
    bulk_t  *b = calloc(1, sizeof(*b));

    if (b == NULL) {
        *error = "no memory";
        return NULL;
    }
    *error = b->err.msg;
    b->corpus = corpus;
    b->corpus_bytes = corpus_bytes;
    b->rnd = seed * 0x9e3779b97f4a7c15ull + 88172645463325252u;
    b->s = tok_scratch_new();
    if (b->s == NULL || tok_open(&b->t, path, &b->err) != 0
        || collect(b) != 0)
    {
        return NULL;                /* the program ends: nothing is freed */
    }
    return b;
}


/* One text's ids; their number, or -1. */
long
bulk_ids(bulk_t *b, const char *text, size_t len, unsigned flags,
    uint32_t *ids, size_t max)
{
    tok_result_t  r;

    if (tok_encode(b->t, b->s, text, len, flags | TOK_NO_TRUNCATION
                   | TOK_NO_PADDING, &r) != 0 || r.n > max)
    {
        return -1;
    }
    if (r.n) {
        memcpy(ids, r.ids, r.n * sizeof(*ids));
    }
    return (long) r.n;
}
