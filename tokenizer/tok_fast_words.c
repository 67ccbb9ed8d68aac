/*
 * tok_fast_words.c: shortcuts for SentencePiece BPE, WordPiece and Unigram:
 * the text is cut where no token can reach across, so that words can be
 * remembered; what is unusual about a text sends it the general way.
 */

#include "tokenizer/tok_fast.h"
#include "tokenizer/tok_ucd.h"
#include "tokenizer/tok_unicode.h"


static int
ids_room(tok_scratch_t *s, size_t len)
{
    return tok_room(s, &s->ids, 4 * len + TOK_BATCH_ROOM,
                    sizeof(uint32_t));
}


/* --- SentencePiece BPE ------------------------------------------------- */

/* The word as the model spells it: each space is U+2581. */
int
tok_fast_spm_word(const tok_t *t, tok_scratch_t *s, const uint8_t *p,
    size_t len)
{
    uint8_t  *d;
    size_t    i, n = 0;
    int       rc;

    s->tmp1.n = 0;
    rc = tok_room(s, &s->tmp1, 3 * len + 16, 1);
    if (rc != 0) {
        return rc;
    }
    d = s->tmp1.ptr;
    for (i = 0; i < len; i++) {
        if (p[i] == ' ') {
            d[n] = 0xe2;
            d[n + 1] = 0x96;
            d[n + 2] = 0x81;
            n += 3;

        } else {
            d[n++] = p[i];
        }
    }
    return tok_bpe_chars(t, s, d, n, 0);
}


bool
tok_fast_spm_symbols(const tok_t *t, tok_scratch_t *s, const uint8_t *p,
    size_t len, tok_job_t *j)
{
    uint32_t  id, n = 0;
    size_t    i, k, size;

    assert(len <= TOK_JOB_SYMBOLS);
    for (i = 0; i < len; i += size) {
        if (p[i] < 0x80) {
            size = 1;
            id = s->char_ids[p[i]];
            j->ids[n++] = id;

        } else {
            size = tok_utf8_size(p[i]);
            id = tok_model_find(t, p + i, size);
            j->ids[n] = id;
            n += id != TOK_NO_ID;
            for (k = 0; id == TOK_NO_ID && k < size; k++) {
                j->ids[n + k] = t->byte_ids[p[i + k]];
                if (j->ids[n + k] == TOK_NO_ID) {
                    return false;
                }
            }
            n += (uint32_t) k;
            id = 0;
        }
        if (id == TOK_NO_ID) {
            return false;
        }
    }
    j->n = n;
    return true;
}


/*
 * Bit i (1 <= i < n): a word may end before p[i], for no token has p[i - 1] and
 * p[i] side by side.
 */
static inline uint64_t
spm_ends(const uint64_t *joins, const uint8_t *p, size_t n)
{
    uint64_t  ends = 0;
    size_t    i;

    for (i = 1; i < n; i++) {
        ends |= (~joins[tok_joins_at(p[i - 1], p[i])] >> (p[i] & 63) & 1) << i;
    }
    return ends;
}


/* The first word of a text that gets a space put in front of it. */
static int
spm_first(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t len)
{
    uint8_t  *d;
    int       rc;

    s->tmp2.n = 0;
    rc = tok_room(s, &s->tmp2, len + 32, 1);
    if (rc != 0) {
        return rc;
    }
    d = s->tmp2.ptr;
    d[0] = ' ';
    memcpy(d + 1, p, len);
    return tok_batch_word(t, s, d, len + 1, d + len + 32);
}


/* The words of a text; lead: the first of them gets a space in front. */
static int
spm_words(const tok_t *t, tok_scratch_t *s, const uint8_t *p,
    const uint8_t *end, bool lead)
{
    const uint8_t  *at, *q;
    uint64_t        ends;
    size_t          n;
    int             rc = 0;

    for (at = p; rc == 0 && p < end; at += n) {
        n = (size_t) (end - at) < 64 ? (size_t) (end - at) : 64;
        ends = n == 64 ? spm_ends(t->joins, at, 64)
               : spm_ends(t->joins, at, n) | (uint64_t) 1 << n;
        for (/* void */; rc == 0 && ends; ends &= ends - 1) {
            q = at + __builtin_ctzll(ends);
            rc = lead ? spm_first(t, s, p, (size_t) (q - p))
                 : tok_batch_word(t, s, p, (size_t) (q - p), end);
            lead = false;
            p = q;
        }
        n -= n == 64;               /* the next window begins with its last */
    }
    return rc;
}


int
tok_fast_spm(const tok_t *t, tok_scratch_t *s, const uint8_t *text,
    size_t len, bool *done)
{
    int  rc;

    /* The mark itself in a text would join words. */
    *done = memmem(text, len, "\xe2\x96\x81", 3) == NULL;
    if (!*done) {
        return 0;
    }
    rc = ids_room(s, len);
    tok_batch_begin(s);
    if (rc == 0) {
        rc = spm_words(t, s, text, text + len,
                       t->img->spm_flags & TOK_SPM_PREPEND);
    }
    return rc == 0 ? tok_batch_end(t, s) : rc;
}


/* --- WordPiece --------------------------------------------------------- */

enum { W_WORD, W_SPACE, W_PUNCT, W_ODD };

static inline unsigned
bert_class(uint8_t c)
{
    uint32_t  k;

    if (c >= 0x80) {
        return W_ODD;
    }
    k = tok_class_rows[c];
    return k & TOK_U_CTRL ? W_ODD : k & TOK_U_WS ? W_SPACE
           : k & TOK_U_PUNC ? W_PUNCT : W_WORD;
}


/* An ASCII word in lower case, if the file asks for that. */
static int
bert_word(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t len)
{
    bool      lower = t->img->spm_flags & TOK_SPM_LOWER;
    uint8_t  *d;
    size_t    i;

    if (!lower) {
        return tok_batch_word(t, s, p, len, p + len);
    }
    /* The words of a batch lie one behind the other. */
    d = (uint8_t *) s->lower.ptr + s->lower.n;
    s->lower.n += len;
    for (i = 0; i < len; i++) {
        d[i] = (uint8_t) (p[i] + (p[i] >= 'A' && p[i] <= 'Z' ? 32 : 0));
    }
    return tok_batch_word(t, s, d, len, d + len + 16);
}


/* Whether the character at p, beyond ASCII, is white space; *n: its bytes. */
static bool
bert_space(const uint8_t *p, size_t *n)
{
    uint32_t  k = tok_class(tok_utf8_get(p, n));

    return (k & TOK_U_WS) && !(k & TOK_U_CTRL);
}


/*
 * The class of a character beyond ASCII inside a word, which is W_PUNCT for
 * all that are words by themselves; *size: its bytes; what it becomes, *n
 * bytes, is written to d.
 */
static unsigned
bert_char(const tok_t *t, const uint8_t *p, uint8_t *d, size_t *size, int *n)
{
    uint32_t  flags = t->img->spm_flags, c = tok_utf8_get(p, size);
    uint32_t  k = tok_class(c);
    bool      marks = flags & TOK_SPM_MARKS, lower = flags & TOK_SPM_LOWER;

    *n = 0;
    if (!(flags & TOK_SPM_CHARS)) {
        return W_ODD;
    }
    if (k & TOK_U_CTRL) {
        return W_WORD;              /* it goes, and words grow together */
    }
    if (k & TOK_U_WS) {
        return W_SPACE;
    }
    if ((k & TOK_U_PUNC) || ((k & TOK_U_CJK) && (flags & TOK_SPM_CHINESE))) {
        memcpy(d, p, *size);
        *n = (int) *size;
        return tok_form_same(c, marks, lower) ? W_PUNCT : W_ODD;
    }
    *n = tok_form_alone(c, marks, lower, d);
    return *n < 0 ? W_ODD : W_WORD;
}


/*
 * A word with characters beyond ASCII, from p on, which is no white space; *rc
 * is that of the batch.  Returns its end, or where something odd stands; then
 * *odd is true and nothing was written.
 */
static const uint8_t *
bert_mixed(const tok_t *t, tok_scratch_t *s, const uint8_t *p,
    const uint8_t *end, bool *odd, int *rc)
{
    uint32_t        lower = t->img->spm_flags & TOK_SPM_LOWER;
    uint8_t        *d = (uint8_t *) s->lower.ptr + s->lower.n;
    const uint8_t  *q;
    unsigned        class = W_WORD;
    size_t          size, n = 0, room = s->lower.bytes - s->lower.n;
    int             add;

    *odd = false;
    for (q = p; q < end; q += size, n += (size_t) add) {
        if (room < n + TOK_FORM_BYTES + 16) {
            *odd = true;
            return q;
        }
        size = 1;
        add = 1;
        if (*q < 0x80) {
            class = bert_class(*q);
            d[n] = (uint8_t) (*q + (lower && *q >= 'A' && *q <= 'Z'
                                    ? 32 : 0));
            if (class == W_ODD) {
                class = bert_char(t, q, d + n, &size, &add);
            }

        } else {
            class = bert_char(t, q, d + n, &size, &add);
        }
        if (class == W_ODD) {
            *odd = true;
            return q;
        }
        if (class != W_WORD) {
            break;
        }
    }
    if (q == p && q < end && class == W_PUNCT) {
        q += size;
        n = (size_t) add;
    }
    if (n) {
        s->lower.n += n;
        *rc = tok_batch_word(t, s, d, n, d + n + 16);
    }
    return q;
}


/* The first character from p on that ends every word before it, and that
 * nothing before it changes. */
static const uint8_t *
odd_end(const tok_t *t, const uint8_t *p, const uint8_t *end)
{
    uint8_t   d[TOK_FORM_BYTES];
    unsigned  class;
    size_t    size;
    int       n;

    for (/* void */; p < end; p += size) {
        size = 1;
        class = *p < 0x80 ? bert_class(*p) : bert_char(t, p, d, &size, &n);
        if (class == W_SPACE || class == W_PUNCT) {
            break;
        }
    }
    return p;
}


/* From p up to what ends the word with q, which is odd. */
static int
bert_odd(const tok_t *t, tok_scratch_t *s, const uint8_t *p,
    const uint8_t **q, const uint8_t *end)
{
    int  rc = tok_batch_end(t, s);

    *q = odd_end(t, *q, end);
    rc = rc == 0 ? tok_encode_general(t, s, p, (size_t) (*q - p), 0) : rc;
    return rc == 0 ? ids_room(s, (size_t) (end - *q)) : rc;
}


/*
 * White space, and what is a word by itself, end everything that the normalizer
 * and the pre-tokenizer look at, so an unusual word goes the general way alone.
 */
int
tok_fast_wordpiece(const tok_t *t, tok_scratch_t *s, const uint8_t *text,
    size_t len, bool *done)
{
    const uint8_t  *p = text, *end = text + len, *q;
    unsigned        class;
    size_t          n;
    bool            odd;
    int             rc = ids_room(s, len);

    *done = true;
    s->lower.n = 0;
    if (rc == 0) {
        rc = tok_room(s, &s->lower, 2 * len + 2 * TOK_FORM_BYTES, 1);
    }
    tok_batch_begin(s);
    for (/* void */; rc == 0 && p < end; p = q) {
        n = 1;
        class = bert_class(*p);
        if (class == W_SPACE || (*p >= 0x80 && bert_space(p, &n))) {
            q = p + n;
            continue;
        }
        q = p + 1;
        if (class == W_WORD) {
            while (q < end && bert_class(*q) == W_WORD) {
                q++;
            }
        }
        odd = class == W_ODD || (class == W_WORD && q < end
                                 && bert_class(*q) == W_ODD);
        if (!odd) {
            rc = bert_word(t, s, p, (size_t) (q - p));
            continue;
        }
        q = bert_mixed(t, s, p, end, &odd, &rc);
        if (odd) {
            rc = bert_odd(t, s, p, &q, end);
        }
    }
    return rc == 0 ? tok_batch_end(t, s) : rc;
}


/* --- Unigram ----------------------------------------------------------- */

/* The word with the mark in front, as Metaspace puts it. */
int
tok_fast_unigram_word(const tok_t *t, tok_scratch_t *s, const uint8_t *p,
    size_t len)
{
    uint8_t  *d;
    int       rc;

    s->tmp1.n = 0;
    rc = tok_room(s, &s->tmp1, len + 16, 1);
    if (rc != 0) {
        return rc;
    }
    d = s->tmp1.ptr;
    memcpy(d, "\xe2\x96\x81", 3);
    memcpy(d + 3, p, len);
    return tok_unigram(t, s, d, len + 3, 0);
}


/* Whether a cluster of characters reaches over the space before p. */
static bool
joins_space(const uint8_t *p)
{
    size_t    n;
    uint32_t  c = tok_cluster_class(tok_utf8_get(p, &n));

    return c == TOK_G_EXTEND || c == TOK_G_ZWJ || c == TOK_G_SPACING;
}


/*
 * Whether p is between words.  A line break behind \r is one character with
 * it, and left to the general way with the word before.
 */
static inline bool
is_gap(const uint8_t *text, const uint8_t *p, bool breaks)
{
    return *p == ' ' || (breaks && (*p == '\n' || *p == '\t')
                         && !(p > text && p[-1] == '\r'));
}


int
tok_fast_unigram(const tok_t *t, tok_scratch_t *s, const uint8_t *text,
    size_t len, bool *done)
{
    const uint8_t  *p, *end = text + len, *q;
    bool            odd, breaks = t->img->spm_flags & TOK_SPM_BREAKS;
    int             rc;

    for (p = text; p < end; p++) {
        if (*p == ' ' && p + 1 < end && p[1] >= 0x80 && joins_space(p + 1)) {
            *done = false;
            return 0;
        }
    }
    *done = true;
    rc = ids_room(s, len);
    tok_batch_begin(s);
    p = text;
    while (rc == 0 && p < end) {
        if (is_gap(text, p, breaks)) {
            p++;
            continue;
        }
        odd = false;
        for (q = p; q < end && !is_gap(text, q, breaks); q++) {
            odd |= *q >= 0x80 || *q < 0x20 || *q == 0x7f;
        }
        if (odd) {
            rc = tok_batch_end(t, s);
            rc = rc == 0 ? tok_encode_general(t, s, p, (size_t) (q - p), 0)
                 : rc;
            rc = rc == 0 ? ids_room(s, (size_t) (end - q)) : rc;

        } else {
            rc = tok_batch_word(t, s, p, (size_t) (q - p), end);
        }
        p = q;
    }
    return rc == 0 ? tok_batch_end(t, s) : rc;
}
