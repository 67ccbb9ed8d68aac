/*
 * tok_decode.c: ids to text.
 *
 * Most decoders work on one token at a time, so what each id stands for is
 * worked out at load (TOK_S_BYTES) and decoding is copying.  What is left for
 * later depends on h->join: the first token may differ, UTF-8 cut by tokens
 * is repaired at the end, runs of byte tokens are read as a whole.  Programs
 * that fit none of this run step by step on lists of tokens (TOK_J_GENERAL).
 */

#include "tokenizer/tok_core.h"
#include "tokenizer/tok_decode.h"
#include "tokenizer/tok_pattern.h"
#include "tokenizer/tok_unicode.h"


static const uint8_t  replacement[3] = { 0xef, 0xbf, 0xbd };


/* The token as decoders see it. */
tok_str_t
tok_shown(const tok_t *t, uint32_t id)
{
    const tok_added_t  *a;
    tok_ref_t           r = { 0, 0 };

    if (id < t->img->n_ids) {
        r = t->tokens[id];
        if (t->flags[id] & TOK_F_ADDED) {
            a = tok_added_find(t, id);
            assert(a != NULL);
            r = a->norm;
        }
    }
    return (tok_str_t) { (const char *) t->pool + r.off, r.len };
}


int
tok_append(tok_scratch_t *s, tok_vec_t *out, const void *p, size_t len)
{
    int  rc = tok_room(s, out, len + 16, 1);

    if (rc == 0 && len) {
        memcpy((uint8_t *) out->ptr + out->n, p, len);
        out->n += len;
    }
    return rc;
}


/* --- steps that look at one token -------------------------------------- */

static int
replace_text(tok_scratch_t *s, tok_vec_t *out, const uint8_t *p, size_t len,
    const uint8_t *from, size_t from_len, const void *to, size_t to_len)
{
    const uint8_t  *hit, *end = p + len;
    int             rc = 0;

    while (rc == 0 && from_len && (size_t) (end - p) >= from_len) {
        hit = tok_find(p, (size_t) (end - p), from, from_len);
        if (hit == NULL) {
            break;
        }
        rc = tok_append(s, out, p, (size_t) (hit - p));
        if (rc == 0) {
            rc = tok_append(s, out, to, to_len);
        }
        p = hit + from_len;
    }
    return rc == 0 ? tok_append(s, out, p, (size_t) (end - p)) : rc;
}


static int
replace_pattern(const tok_t *t, tok_scratch_t *s, const tok_op_t *op,
    tok_vec_t *out, const uint8_t *p, size_t len)
{
    size_t  at = 0, done = 0, b, e;
    int     rc;

    while (at <= len) {
        rc = tok_pattern_next(t, s, op, p, len, at, &b, &e);
        if (rc < 0) {
            return rc;
        }
        if (rc == 0) {
            break;
        }
        rc = tok_append(s, out, p + done, b - done);
        if (rc == 0) {
            rc = tok_append(s, out, t->pool + op->r.off, op->r.len);
        }
        if (rc != 0) {
            return rc;
        }
        done = e;
        at = e > b ? e : e + (e < len ? tok_utf8_size(p[e]) : 1);
    }
    return tok_append(s, out, p + done, len - done);
}


static int
byte_level(tok_scratch_t *s, tok_vec_t *out, const uint8_t *p, size_t len)
{
    uint8_t  *d;
    size_t    i, n, at;
    int       rc = tok_room(s, out, len + 16, 1), b;

    if (rc != 0) {
        return rc;
    }
    d = out->ptr;
    at = out->n;
    for (i = 0; i < len; i += n) {
        b = tok_char_byte(tok_utf8_get(p + i, &n));
        if (b < 0) {
            /* A token with a foreign character stands for itself. */
            return tok_append(s, out, p, len);
        }
        d[at++] = (uint8_t) b;
    }
    out->n = at;
    return 0;
}


static const struct {
    const char  *from, *to;
}  cleanups[] = {
    { " .", "." }, { " ?", "?" }, { " !", "!" }, { " ,", "," },
    { " ' ", "'" }, { " n't", "n't" }, { " 'm", "'m" },
    { " do not", " don't" }, { " 's", "'s" }, { " 've", "'ve" },
    { " 're", "'re" }
};


/* In place: nothing becomes longer. */
static size_t
cleanup(uint8_t *p, size_t len)
{
    size_t   k, n, m, i, at;
    uint8_t *hit;

    for (k = 0; k < sizeof(cleanups) / sizeof(cleanups[0]); k++) {
        n = strlen(cleanups[k].from);
        m = strlen(cleanups[k].to);
        assert(m <= n);
        hit = memmem(p, len, cleanups[k].from, n);
        if (hit == NULL) {
            continue;
        }
        at = i = (size_t) (hit - p);
        while (i < len) {
            if (len - i >= n && memcmp(p + i, cleanups[k].from, n) == 0) {
                memcpy(p + at, cleanups[k].to, m);
                at += m;
                i += n;
            } else {
                p[at++] = p[i++];
            }
        }
        len = at;
    }
    return len;
}


static int
wordpiece_op(const tok_t *t, tok_scratch_t *s, const tok_op_t *op,
    tok_vec_t *out, const uint8_t *p, size_t len, bool first)
{
    size_t  at = out->n, skip = op->s.len;
    int     rc = 0;

    if (!first) {
        if (len >= skip && memcmp(p, t->pool + op->s.off, skip) == 0) {
            p += skip;
            len -= skip;

        } else {
            rc = tok_append(s, out, " ", 1);
        }
    }
    if (rc == 0) {
        rc = tok_append(s, out, p, len);
    }
    if (rc == 0 && op->a) {
        out->n = at + cleanup((uint8_t *) out->ptr + at, out->n - at);
    }
    return rc;
}


static int
ctc_op(const tok_t *t, tok_scratch_t *s, const tok_op_t *op, tok_vec_t *out,
    const uint8_t *p, size_t len)
{
    size_t    at = out->n, n;
    int       rc;

    rc = replace_text(s, out, p, len, t->pool + op->s.off, op->s.len, "", 0);
    if (rc != 0 || !op->a) {
        return rc;
    }
    n = cleanup((uint8_t *) out->ptr + at, out->n - at);
    /* The cleaned text is the source of the last replacement. */
    s->tmp3.n = 0;
    rc = tok_append(s, &s->tmp3, (uint8_t *) out->ptr + at, n);
    if (rc != 0) {
        return rc;
    }
    out->n = at;
    return replace_text(s, out, s->tmp3.ptr, n, t->pool + op->r.off,
                        op->r.len, " ", 1);
}


static int
metaspace_op(const tok_t *t, tok_scratch_t *s, const tok_op_t *op,
    tok_vec_t *out, const uint8_t *p, size_t len, bool first)
{
    return replace_text(s, out, p, len, t->pool + op->s.off, op->s.len, " ",
                        first && op->a ? 0 : 1);
}


static int
strip_op(tok_scratch_t *s, const tok_op_t *op, tok_vec_t *out,
    const uint8_t *p, size_t len)
{
    uint8_t   c[4];
    size_t    n = tok_utf8_put(c, op->c), i;

    for (i = 0; i < op->a && len >= n && memcmp(p, c, n) == 0; i++) {
        p += n;
        len -= n;
    }
    for (i = 0; i < op->b && len >= n && memcmp(p + len - n, c, n) == 0; i++) {
        len -= n;
    }
    return tok_append(s, out, p, len);
}


int
tok_decode_op(const tok_t *t, tok_scratch_t *s, const tok_op_t *op,
    tok_vec_t *out, const uint8_t *p, size_t len, bool first, bool last)
{
    switch (op->type) {
    case TOK_D_BYTE_LEVEL:
        return byte_level(s, out, p, len);
    case TOK_D_REPLACE:
        return replace_text(s, out, p, len, t->pool + op->s.off, op->s.len,
                            t->pool + op->r.off, op->r.len);
    case TOK_D_REPLACE_RE:
        return replace_pattern(t, s, op, out, p, len);
    case TOK_D_STRIP:
        return strip_op(s, op, out, p, len);
    case TOK_D_WORDPIECE:
        return wordpiece_op(t, s, op, out, p, len, first);
    case TOK_D_CTC:
        return ctc_op(t, s, op, out, p, len);
    case TOK_D_BPE:
        return replace_text(s, out, p, len, t->pool + op->s.off, op->s.len,
                            " ", last ? 0 : 1);
    case TOK_D_METASPACE:
        return metaspace_op(t, s, op, out, p, len, first);
    default:
        return tok_append(s, out, p, len);
    }
}


/* One token through the first n_ops steps; the result is added to out. */
int
tok_decode_token(const tok_t *t, tok_scratch_t *s, const uint8_t *p,
    size_t len, bool first, bool last, size_t n_ops, tok_vec_t *out)
{
    tok_vec_t  *to;
    size_t      i;
    int         rc = 0;

    assert(n_ops <= t->n_decode);
    if (n_ops == 0) {
        return tok_append(s, out, p, len);
    }
    for (i = 0; i < n_ops && rc == 0; i++) {
        to = i + 1 == n_ops ? out : i & 1 ? &s->tmp2 : &s->tmp1;
        if (to != out) {
            to->n = 0;
        }
        rc = tok_decode_op(t, s, &t->decode[i], to, p, len, first, last);
        p = to->ptr;
        len = to->n;
    }
    return rc;
}


/* --- joining ----------------------------------------------------------- */

/* UTF-8 as String::from_utf8_lossy repairs it; in place if it is whole. */
static int
repair(tok_scratch_t *s, const char **text, size_t *len)
{
    const uint8_t  *p = s->text.ptr;
    size_t          n = s->text.n, at = n ? tok_utf8_check(p, n) : 0, k;
    bool            good, cut;
    int             rc;

    if (n == 0) {
        return 0;
    }
    if (at == n) {
        *text = s->text.ptr;
        *len = n;
        return 0;
    }
    s->text2.n = 0;
    rc = tok_room(s, &s->text2, 3 * n + 16, 1);
    if (rc != 0) {
        return rc;
    }
    (void) tok_append(s, &s->text2, p, at);
    while (at < n) {
        k = tok_utf8_prefix(p + at, n - at, &good, &cut);
        if (good) {
            (void) tok_append(s, &s->text2, p + at, k);
        } else {
            (void) tok_append(s, &s->text2, replacement, 3);
        }
        at += k;
    }
    *text = s->text2.ptr;
    *len = s->text2.n;
    return 0;
}


/* A run of byte tokens that ends: text if valid, else one mark per byte. */
static int
end_run(tok_scratch_t *s, size_t start)
{
    size_t  n = s->text.n - start, i;
    int     rc = 0;

    if (n == 0
        || tok_utf8_check((uint8_t *) s->text.ptr + start, n) == n)
    {
        return 0;
    }
    s->text.n = start;
    for (i = 0; i < n && rc == 0; i++) {
        rc = tok_append(s, &s->text, replacement, 3);
    }
    return rc;
}


static size_t
strip_start(const tok_t *t, const uint8_t *p, size_t len)
{
    uint8_t  c[4];
    size_t   n = tok_utf8_put(c, t->img->dec_strip_char), i, at = 0;

    for (i = 0; i < t->img->dec_strip && len - at >= n
         && memcmp(p + at, c, n) == 0; i++)
    {
        at += n;
    }
    return at;
}


/* What an id stands for; first: nothing came before, last: nothing after. */
tok_ref_t
tok_piece_of(const tok_t *t, uint32_t id, bool first, bool last)
{
    if (first && t->first != NULL) {
        return t->first[id];
    }
    if (last && t->last != NULL) {
        return t->last[id];
    }
    return t->bytes[id];
}


bool
tok_skipped(const tok_t *t, uint32_t id, unsigned flags)
{
    return id >= t->img->n_ids
           || !(t->flags[id] & (TOK_F_MODEL | TOK_F_ADDED))
           || ((flags & TOK_SKIP_SPECIAL) && (t->flags[id] & TOK_F_SPECIAL));
}


/* Concatenation only: most texts. */
static int
decode_plain(const tok_t *t, tok_scratch_t *s, const uint32_t *ids, size_t n,
    unsigned flags)
{
    uint8_t    skip = flags & TOK_SKIP_SPECIAL ? TOK_F_SPECIAL : 0, f, *d;
    size_t     i, at = 0;
    tok_ref_t  r;
    int        rc;

    for (i = 0; i < n; i++) {
        if (ids[i] >= t->img->n_ids) {
            continue;
        }
        f = t->flags[ids[i]];
        if ((f & skip) || !(f & (TOK_F_MODEL | TOK_F_ADDED))) {
            continue;
        }
        r = t->bytes[ids[i]];
        s->text.n = at;
        rc = tok_room(s, &s->text, (size_t) r.len + 16, 1);
        if (rc != 0) {
            return rc;
        }
        d = (uint8_t *) s->text.ptr + at;
        /* The pool ends with room for a load of 16 bytes. */
        memcpy(d, t->pool + r.off, 16);
        if (r.len > 16) {
            memcpy(d + 16, t->pool + r.off + 16, r.len - 16);
        }
        at += r.len;
    }
    s->text.n = at;
    return 0;
}


static int
decode_bytes(const tok_t *t, tok_scratch_t *s, const uint32_t *ids, size_t n,
    unsigned flags)
{
    size_t     i, run = SIZE_MAX, at = 0;
    uint32_t   prev = TOK_NO_ID;
    tok_ref_t  r;
    int        rc = 0;

    for (i = 0; i < n && rc == 0; i++) {
        if (tok_skipped(t, ids[i], flags)
            || (t->img->join_dedup && ids[i] == prev))
        {
            continue;
        }
        if (run != SIZE_MAX && !(t->flags[ids[i]] & TOK_F_BYTE)) {
            rc = end_run(s, run);
            run = SIZE_MAX;
        }
        if (t->img->join == TOK_J_JOIN && prev != TOK_NO_ID && rc == 0) {
            rc = tok_append(s, &s->text, " ", 1);
        }
        at = s->text.n;
        if ((t->flags[ids[i]] & TOK_F_BYTE) && run == SIZE_MAX) {
            run = at;
        }
        r = tok_piece_of(t, ids[i], prev == TOK_NO_ID, false);
        rc = rc == 0 ? tok_append(s, &s->text, t->pool + r.off, r.len) : rc;
        prev = ids[i];
    }
    if (rc == 0 && run != SIZE_MAX) {
        rc = end_run(s, run);
    }
    if (rc == 0 && t->last != NULL && prev != TOK_NO_ID) {
        s->text.n = at;
        r = t->last[prev];
        rc = tok_append(s, &s->text, t->pool + r.off, r.len);
    }
    return rc;
}


int
tok_decode(const tok_t *t, tok_scratch_t *s, const uint32_t *ids, size_t n,
    unsigned flags, const char **text, size_t *len)
{
    size_t  skip;
    int     rc;

    *text = "";
    *len = 0;
    if (n > TOK_DECODE_IDS_MAX) {
        return TOK_E_LIMIT;
    }
    s->text.n = 0;
    if (t->img->join == TOK_J_GENERAL) {
        return tok_decode_general(t, s, ids, n, flags, text, len);
    }
    rc = t->img->join == TOK_J_LOSSY ? decode_plain(t, s, ids, n, flags)
         : decode_bytes(t, s, ids, n, flags);
    if (rc != 0) {
        return rc;
    }
    if (t->img->join == TOK_J_LOSSY) {
        return repair(s, text, len);
    }
    skip = t->img->join == TOK_J_RUNS
           ? strip_start(t, s->text.ptr, s->text.n) : 0;
    if (s->text.n) {
        *text = (char *) s->text.ptr + skip;
        *len = s->text.n - skip;
    }
    return 0;
}
