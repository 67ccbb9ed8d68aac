/*
 * tok_encode.c: text to ids.
 *
 * Added tokens are cut out first; what lies between them is normalized, cut
 * into words and given to the model.  Spans are byte offsets until the end,
 * where they become characters.
 */

#include "tokenizer/tok_core.h"
#include "tokenizer/tok_fast.h"
#include "tokenizer/tok_norm.h"
#include "tokenizer/tok_pretok.h"


/* The end of a word, or of an added token, in ids. */
static int
note_bound(tok_scratch_t *s, bool added)
{
    int  rc;

    if (!s->want_bounds) {
        return 0;
    }
    rc = tok_room(s, &s->bounds, 1, sizeof(uint32_t));
    if (rc == 0) {
        ((uint32_t *) s->bounds.ptr)[s->bounds.n++] = (uint32_t) s->ids.n
                                                      | (added
                                                         ? TOK_BOUND_ADDED
                                                         : 0);
    }
    return rc;
}


static int
model_word(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t len,
    size_t base)
{
    switch (t->img->model) {
    case TOK_M_BPE:
        return t->img->bpe_flags & TOK_BPE_BYTE_MODE
               ? tok_bpe_bytes(t, s, p, len, base)
               : tok_bpe_chars(t, s, p, len, base);
    case TOK_M_WORDPIECE:
        return tok_wordpiece(t, s, p, len, base);
    case TOK_M_WORDLEVEL:
        return tok_wordlevel(t, s, p, len, base);
    default:
        assert(t->img->model == TOK_M_UNIGRAM);
        return tok_unigram(t, s, p, len, base);
    }
}


/*
 * Spans of new ids: from offsets in the normalized text to the original.
 * Affixes that became bytes can reach beyond their piece; the reference then
 * keeps the numbers as they are.
 */
static void
spans_to_original(tok_scratch_t *s, size_t from, const tok_piece_t *p)
{
    const tok_span_t  *a = s->norm.align.ptr;
    tok_span_t        *span = tok_spans(s), v;
    size_t             i;

    for (i = from; i < s->ids.n; i++) {
        v = span[i];
        assert(v.begin <= v.end && p->end <= s->norm.text.n);
        if (v.end > p->end) {
            span[i].begin = v.begin - p->begin;
            span[i].end = v.end - p->begin;

        } else if (v.begin < v.end) {
            span[i].begin = a[v.begin].begin;
            span[i].end = a[v.end - 1].end;
        }
    }
}


/* A piece of the normalized text through the pre-tokenizers and the model. */
static int
encode_pieces(const tok_t *t, tok_scratch_t *s)
{
    const tok_piece_t  *p;
    size_t              i, from;
    int                 rc = tok_pretokenize(t, s);

    for (i = 0; rc == 0 && i < s->pieces.n; i++) {
        p = (tok_piece_t *) s->pieces.ptr + i;
        from = s->ids.n;
        if (p->id != TOK_NO_ID) {
            rc = tok_push_id(s, p->id, p->begin, p->end);
            if (rc == 0 && s->want_spans) {
                tok_trim_note(s, (uint8_t *) s->norm.text.ptr + p->begin,
                              p->end - p->begin);
            }

        } else {
            rc = model_word(t, s, (uint8_t *) s->norm.text.ptr + p->begin,
                            p->end - p->begin, p->begin);
        }
        if (rc == 0 && s->want_spans) {
            spans_to_original(s, from, p);
        }
        rc = rc == 0 ? note_bound(s, p->id != TOK_NO_ID) : rc;
    }
    return rc;
}


static int
push_piece(tok_scratch_t *s, size_t begin, size_t end, uint32_t shift,
    uint32_t id)
{
    tok_piece_t  p = { (uint32_t) begin, (uint32_t) end, shift, id };
    int          rc;

    if (begin >= end) {
        return 0;
    }
    if (s->keep_align) {
        p.shift = ((tok_span_t *) s->norm.align.ptr)[begin].begin;
    }
    rc = tok_room(s, &s->pieces, 1, sizeof(p));
    if (rc == 0) {
        ((tok_piece_t *) s->pieces.ptr)[s->pieces.n++] = p;
    }
    return rc;
}


/* The general way: any normalizer, any pre-tokenizer, any model. */
static int
encode_general(const tok_t *t, tok_scratch_t *s, const uint8_t *text,
    size_t len, size_t base, bool special)
{
    size_t       done = 0, at = 0, n;
    tok_match_t  m;
    uint8_t     *p;
    int          rc = tok_normalize(t, s, text, len, base);

    if (rc != 0) {
        return rc;
    }
    s->pieces.n = 0;
    n = s->norm.text.n;
    p = s->norm.text.ptr;
    while (t->n_nrm && tok_added_next(t, p, n, true, special, at, done, &m)) {
        rc = push_piece(s, done, m.begin, (uint32_t) base, TOK_NO_ID);
        if (rc == 0) {
            rc = push_piece(s, m.begin, m.end, (uint32_t) base, m.id);
        }
        if (rc != 0) {
            return rc;
        }
        done = m.end;
        at = m.resume;
    }
    rc = push_piece(s, done, n, (uint32_t) base, TOK_NO_ID);
    return rc == 0 ? encode_pieces(t, s) : rc;
}


int
tok_encode_general(const tok_t *t, tok_scratch_t *s, const uint8_t *text,
    size_t len, size_t base)
{
    return encode_general(t, s, text, len, base, true);
}


/*
 * The shortcuts that cut words themselves.  Offsets want the alignments that
 * only the general way keeps.
 */
static int
encode_words(const tok_t *t, tok_scratch_t *s, const uint8_t *text,
    size_t len, bool *done)
{
    *done = false;
    if (s->want_spans || t->n_nrm) {
        return 0;
    }
    switch (t->img->fast) {
    case TOK_FAST_SPM:
        return tok_fast_spm(t, s, text, len, done);
    case TOK_FAST_WORDPIECE:
        return tok_fast_wordpiece(t, s, text, len, done);
    case TOK_FAST_UNIGRAM:
        return tok_fast_unigram(t, s, text, len, done);
    default:
        return 0;
    }
}


/*
 * Byte-level text that its normalizer leaves as it is, or has made: the added
 * tokens that are looked for in normalized text are cut out of it at once.
 */
static int
encode_bytes(const tok_t *t, tok_scratch_t *s, const uint8_t *text,
    size_t len, size_t base, bool special)
{
    size_t       done = 0, at = 0;
    tok_match_t  m;
    int          rc = 0;

    while (rc == 0 && t->n_nrm
           && tok_added_next(t, text, len, true, special, at, done, &m))
    {
        if (m.begin > done) {
            rc = tok_fast_bytes(t, s, text + done, m.begin - done,
                                base + done);
        }
        if (rc == 0 && m.end > m.begin) {
            rc = tok_push_id(s, m.id, base + m.begin, base + m.end);
            if (rc == 0 && s->want_spans) {
                tok_trim_note(s, text + m.begin, m.end - m.begin);
            }
        }
        done = m.end;
        at = m.resume;
    }
    return rc != 0 || done == len ? rc
           : tok_fast_bytes(t, s, text + done, len - done, base + done);
}


/* The same for text that the normalizer has to change. */
static int
encode_normalized(const tok_t *t, tok_scratch_t *s, const uint8_t *text,
    size_t len, size_t base, bool special)
{
    tok_piece_t  all = { 0, 0, (uint32_t) base, TOK_NO_ID };
    size_t       from = s->ids.n;
    int          rc = tok_normalize(t, s, text, len, base);

    all.end = (uint32_t) s->norm.text.n;
    if (rc == 0) {
        rc = encode_bytes(t, s, s->norm.text.ptr, all.end, 0, special);
    }
    if (rc == 0 && s->want_spans) {
        spans_to_original(s, from, &all);
    }
    return rc;
}


/* Text between added tokens; base is its offset in the input. */
static int
encode_plain(const tok_t *t, tok_scratch_t *s, const uint8_t *text,
    size_t len, size_t base, bool special)
{
    bool  done;
    int   rc;

    if (len == 0) {
        return 0;
    }
    if (s->want_bounds) {
        return encode_general(t, s, text, len, base, special);
    }
    if (t->img->fast == TOK_FAST_BYTES) {
        return t->n_norm == 0 || tok_is_nfc_sure(text, len)
               ? encode_bytes(t, s, text, len, base, special)
               : encode_normalized(t, s, text, len, base, special);
    }
    rc = encode_words(t, s, text, len, &done);
    return rc != 0 || done ? rc
           : encode_general(t, s, text, len, base, special);
}


/* --- spans in characters ----------------------------------------------- */

#define BLOCK  64

/* Characters that begin in p[0..n-1]. */
static uint32_t
starts(const uint8_t *p, size_t n)
{
    uint32_t  c = 0;
    size_t    i;

    for (i = 0; i < n; i++) {
        c += (p[i] & 0xc0) != 0x80;
    }
    return c;
}


static int
spans_to_chars(tok_scratch_t *s, const uint8_t *text, size_t len, size_t from)
{
    uint32_t    *sum, b, e;
    tok_span_t  *span = tok_spans(s);
    size_t       i, n = len / BLOCK + 1;
    int          rc;

    s->small.n = 0;
    rc = tok_room(s, &s->small, n + 1, sizeof(uint32_t));
    if (rc != 0) {
        return rc;
    }
    sum = s->small.ptr;
    sum[0] = 0;
    for (i = 0; i < n; i++) {
        sum[i + 1] = sum[i] + starts(text + i * BLOCK,
                                     len - i * BLOCK < BLOCK
                                     ? len - i * BLOCK : BLOCK);
    }
    if (sum[n] == len) {
        return 0;
    }
    for (i = from; i < s->ids.n; i++) {
        b = span[i].begin;
        e = span[i].end;
        if (b > len || e > len) {
            continue;
        }
        /* A token inside a character stands for all of it. */
        span[i].begin = b == len ? sum[n]
                        : sum[b / BLOCK] + starts(text + b / BLOCK * BLOCK,
                                                  b % BLOCK + 1) - 1;
        span[i].end = sum[e / BLOCK] + starts(text + e / BLOCK * BLOCK,
                                              e % BLOCK);
    }
    return 0;
}


/* --- one text ---------------------------------------------------------- */

/*
 * Whether bytes begin..end-1 touch a plain range.  *k goes up only: callers ask
 * in ascending order, so that all questions together are linear.
 */
static bool
in_plain(const tok_scratch_t *s, size_t *k, size_t begin, size_t end)
{
    const tok_range_t  *r = s->plain;

    while (*k < s->n_plain
           && (r[*k].end <= begin || r[*k].begin == r[*k].end))
    {
        (*k)++;
    }
    return *k < s->n_plain && r[*k].begin < end;
}


static int
encode_text(const tok_t *t, tok_scratch_t *s, const char *in, size_t len,
    unsigned flags)
{
    const uint8_t  *text = (const uint8_t *) in;
    bool            special = flags & TOK_PARSE_SPECIAL;
    size_t          done = 0, at = 0, from = s->ids.n, k = 0, k_text = 0;
    tok_match_t     m;
    int             rc = 0;

    if (len > TOK_TEXT_BYTES_MAX) {
        return TOK_E_LIMIT;
    }
    s->bad_at = tok_utf8_check(text, len);
    if (s->bad_at != len) {
        return TOK_E_UTF8;
    }
    while (rc == 0 && t->n_raw
           && tok_added_next(t, text, len, false, special, at, done, &m))
    {
        if (in_plain(s, &k, m.raw, m.resume) && tok_is_special(t, m.id)) {
            at = m.resume;
            continue;
        }
        if (m.begin > done) {
            rc = encode_plain(t, s, text + done, m.begin - done, done,
                              special && !in_plain(s, &k_text, done, m.begin));
        }
        if (rc == 0 && m.end > m.begin) {
            rc = tok_push_id(s, m.id, m.begin, m.end);
            if (rc == 0 && s->want_spans) {
                tok_trim_note(s, text + m.begin, m.end - m.begin);
            }
            rc = rc == 0 ? note_bound(s, true) : rc;
        }
        done = m.end;
        at = m.resume;
    }
    if (rc == 0 && len > done) {
        rc = encode_plain(t, s, text + done, len - done, done,
                          special && !in_plain(s, &k_text, done, len));
    }
    if (rc == 0 && s->want_spans) {
        rc = spans_to_chars(s, text, len, from);
    }
    return rc;
}


static int
encode_both(const tok_t *t, tok_scratch_t *s, const char *a, size_t a_len,
    const char *b, size_t b_len, bool pair, unsigned flags,
    tok_result_t *out)
{
    size_t  n_first;
    int     rc;

    memset(out, 0, sizeof(*out));
    s->ids.n = 0;
    s->spans.n = 0;
    s->trims.n = 0;
    s->bounds.n = 0;
    s->want_bounds = pair && t->img->trunc_max
                     && !(flags & TOK_NO_TRUNCATION);
    s->want_spans = flags & TOK_OFFSETS;
    s->keep_align = s->want_spans || (t->img->spm_flags & TOK_SPM_ALIGN);
    rc = tok_scratch_adopt(s, t);
    if (rc == 0) {
        rc = encode_text(t, s, a, a_len, flags);
    }
    n_first = s->ids.n;
    rc = rc == 0 ? note_bound(s, false) : rc;
    if (rc == 0 && pair) {
        rc = encode_text(t, s, b, b_len, flags);
    }
    if (rc == 0) {
        rc = tok_post_run(t, s, n_first, pair, flags, out);
    }
    if (rc == TOK_E_UTF8) {
        out->bad_at = s->bad_at;
    }
    return rc;
}


int
tok_encode(const tok_t *t, tok_scratch_t *s, const char *text, size_t len,
    unsigned flags, tok_result_t *out)
{
    s->n_plain = 0;
    return encode_both(t, s, text, len, NULL, 0, false, flags, out);
}


int
tok_encode_chat(const tok_t *t, tok_scratch_t *s, const char *text,
    size_t len, const tok_range_t *plain, size_t n_plain, unsigned flags,
    tok_result_t *out)
{
    size_t  i, last = 0;

    for (i = 0; i < n_plain; i++) {
        if (plain[i].begin < last || plain[i].end < plain[i].begin
            || plain[i].end > len)
        {
            memset(out, 0, sizeof(*out));
            return TOK_E_ARG;
        }
        last = plain[i].end;
    }
    s->plain = plain;
    s->n_plain = n_plain;
    return encode_both(t, s, text, len, NULL, 0, false,
                       flags | TOK_PARSE_SPECIAL, out);
}


int
tok_encode_pair(const tok_t *t, tok_scratch_t *s, const char *a,
    size_t a_len, const char *b, size_t b_len, unsigned flags,
    tok_result_t *out)
{
    s->n_plain = 0;
    return encode_both(t, s, a, a_len, b, b_len, true, flags, out);
}
