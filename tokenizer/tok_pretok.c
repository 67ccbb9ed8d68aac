/*
 * tok_pretok.c: pre-tokenizers in general.  A step cuts each piece of the
 * text; two of them (Metaspace, ByteLevel) also edit it.
 */

#include "tokenizer/tok_pretok.h"
#include "tokenizer/tok_norm.h"
#include "tokenizer/tok_pattern.h"
#include "tokenizer/tok_unicode.h"


static int
cut(tok_scratch_t *s, size_t begin, size_t end, bool match)
{
    tok_cut_t  c = { begin, end, match };
    int        rc = tok_room(s, &s->cuts, 1, sizeof(c));

    if (rc == 0) {
        ((tok_cut_t *) s->cuts.ptr)[s->cuts.n++] = c;
    }
    return rc;
}


static int
add_piece(tok_scratch_t *s, tok_vec_t *to, size_t begin, size_t end,
    uint32_t shift, uint32_t id)
{
    tok_piece_t  p = { (uint32_t) begin, (uint32_t) end, shift, id };
    int          rc;

    if (begin >= end) {
        return 0;
    }
    if (s->keep_align) {
        p.shift = ((tok_span_t *) s->norm.align.ptr)[begin].begin;
    }
    rc = tok_room(s, to, 1, sizeof(p));
    if (rc == 0) {
        ((tok_piece_t *) to->ptr)[to->n++] = p;
    }
    return rc;
}


/* --- where the pattern matches ----------------------------------------- */

/* Each character of the class (or equal to only) is a match of its own. */
static int
cut_class(tok_scratch_t *s, const uint8_t *p, size_t len, uint32_t class,
    uint32_t only)
{
    size_t    i, n, last = 0;
    uint32_t  c;
    int       rc = 0;

    for (i = 0; i < len && rc == 0; i += n) {
        c = tok_utf8_get(p + i, &n);
        if (class ? !(tok_class(c) & class) : c != only) {
            continue;
        }
        if (last < i) {
            rc = cut(s, last, i, false);
        }
        if (rc == 0) {
            rc = cut(s, i, i + n, true);
        }
        last = i + n;
    }
    return rc == 0 && last < len ? cut(s, last, len, false) : rc;
}


static int
cut_string(tok_scratch_t *s, const uint8_t *p, size_t len,
    const uint8_t *what, size_t n)
{
    const uint8_t  *hit;
    size_t          at = 0, i;
    int             rc = 0;

    while (rc == 0 && n && len - at >= n) {
        hit = memmem(p + at, len - at, what, n);
        if (hit == NULL) {
            break;
        }
        i = (size_t) (hit - p);
        if (at < i) {
            rc = cut(s, at, i, false);
        }
        if (rc == 0) {
            rc = cut(s, i, i + n, true);
        }
        at = i + n;
    }
    return rc == 0 && at < len ? cut(s, at, len, false) : rc;
}


static int
cut_pattern(const tok_t *t, tok_scratch_t *s, const tok_op_t *op,
    const uint8_t *p, size_t len)
{
    size_t  at = 0, prev = 0, b, e;
    int     rc = 0;

    while (at <= len) {
        rc = tok_pattern_next(t, s, op, p, len, at, &b, &e);
        if (rc <= 0) {
            break;
        }
        rc = prev < b ? cut(s, prev, b, false) : 0;
        if (rc == 0) {
            rc = cut(s, b, e, true);
        }
        if (rc != 0) {
            return rc;
        }
        prev = e;
        at = e > b ? e : e + (e < len ? tok_utf8_size(p[e]) : 1);
    }
    return rc == 0 && prev < len ? cut(s, prev, len, false) : rc;
}


static int
cut_scan(tok_scratch_t *s, uint32_t pattern, const uint8_t *p, size_t len)
{
    const uint8_t  *at = p, *end = p + len, *limit = NULL, *q;
    int             rc = 0;

    while (rc == 0 && at < end) {
        q = tok_scan(pattern, at, end, &limit);
        rc = cut(s, (size_t) (at - p), (size_t) (q - p), true);
        at = q;
    }
    return rc;
}


/* \w+|[^\w\s]+ */
static int
cut_words(tok_scratch_t *s, const uint8_t *p, size_t len)
{
    size_t    i, n, from = 0;
    uint32_t  c;
    int       kind, last = -1, rc = 0;

    for (i = 0; i < len && rc == 0; i += n) {
        c = tok_class(tok_utf8_get(p + i, &n));
        kind = c & TOK_U_W ? 1 : c & TOK_U_WS ? 0 : 2;
        if (last >= 0 && kind != last) {
            rc = cut(s, from, i, last != 0);
            from = i;
        }
        last = kind;
    }
    return rc == 0 && from < len ? cut(s, from, len, last != 0) : rc;
}


/* Where the script changes; spaces belong to any, and lead nowhere. */
static int
cut_scripts(tok_scratch_t *s, const uint8_t *p, size_t len)
{
    size_t    i, n, from = len;
    uint32_t  script, last = UINT32_MAX;
    int       rc = 0;

    for (i = 0; i < len && rc == 0; i += n) {
        script = tok_script(tok_utf8_get(p + i, &n));
        if (script == 0) {
            continue;
        }
        if (script != last) {
            if (from < i) {
                rc = cut(s, from, i, true);
            }
            from = i;
        }
        last = script;
    }
    return rc == 0 && from < len ? cut(s, from, len, true) : rc;
}


static int
cut_fixed(tok_scratch_t *s, const uint8_t *p, size_t len, uint32_t chars)
{
    size_t    i = 0, from;
    uint32_t  k;
    int       rc = 0;

    assert(chars > 0);
    while (i < len && rc == 0) {
        from = i;
        for (k = 0; k < chars && i < len; k++) {
            i += tok_utf8_size(p[i]);
        }
        rc = cut(s, from, i, true);
    }
    return rc;
}


/* --- what becomes of the matches --------------------------------------- */

static int
merge_previous(tok_scratch_t *s, tok_vec_t *to, const tok_piece_t *p)
{
    const tok_cut_t  *c = s->cuts.ptr;
    size_t            i, b = 0, e = 0;
    bool              before = false, have = false;
    int               rc = 0;

    for (i = 0; i < s->cuts.n && rc == 0; i++) {
        if (c[i].match && !before && have) {
            e = c[i].end;

        } else {
            if (have) {
                rc = add_piece(s, to, p->begin + b, p->begin + e, p->shift,
                               TOK_NO_ID);
            }
            b = c[i].begin;
            e = c[i].end;
            have = true;
        }
        before = c[i].match;
    }
    return rc == 0 && have ? add_piece(s, to, p->begin + b, p->begin + e,
                                       p->shift, TOK_NO_ID) : rc;
}


/* As the reference: from the end backwards; so the cuts are joined first. */
static int
merge_next(tok_scratch_t *s, tok_vec_t *to, const tok_piece_t *p)
{
    tok_cut_t  *c = s->cuts.ptr;
    size_t      i, n = s->cuts.n, at = n;
    bool        before = false;
    int         rc = 0;

    for (i = n; i-- > 0; /* void */) {
        if (c[i].match && !before && at < n) {
            before = c[i].match;
            c[at].begin = c[i].begin;

        } else {
            before = c[i].match;
            c[--at] = c[i];
        }
    }
    for (/* void */; at < n && rc == 0; at++) {
        rc = add_piece(s, to, p->begin + c[at].begin, p->begin + c[at].end,
                       p->shift, TOK_NO_ID);
    }
    return rc;
}


static int
apply_cuts(tok_scratch_t *s, tok_vec_t *to, const tok_piece_t *p,
    uint32_t behaviour, bool invert)
{
    tok_cut_t  *c = s->cuts.ptr;
    size_t      i, b;
    int         rc = 0;

    for (i = 0; invert && i < s->cuts.n; i++) {
        c[i].match = !c[i].match;
    }
    if (behaviour == TOK_B_PREVIOUS) {
        return merge_previous(s, to, p);
    }
    if (behaviour == TOK_B_NEXT) {
        return merge_next(s, to, p);
    }
    for (i = 0; i < s->cuts.n && rc == 0; i++) {
        if (behaviour == TOK_B_REMOVED && c[i].match) {
            continue;
        }
        b = c[i].begin;
        while (behaviour == TOK_B_CONTIGUOUS && i + 1 < s->cuts.n
               && c[i + 1].match == c[i].match)
        {
            i++;
        }
        rc = add_piece(s, to, p->begin + b, p->begin + c[i].end, p->shift,
                       TOK_NO_ID);
    }
    return rc;
}


static int
cut_piece(const tok_t *t, tok_scratch_t *s, const tok_op_t *op,
    const uint8_t *p, size_t len)
{
    switch (op->type) {
    case TOK_P_DELIM:
        return cut_class(s, p, len, 0, op->a);
    case TOK_P_WHITESPACE:
        return cut_words(s, p, len);
    case TOK_P_WS_SPLIT:
        return cut_class(s, p, len, TOK_U_WS, 0);
    case TOK_P_PUNCT:
        return cut_class(s, p, len, TOK_U_PUNC, 0);
    case TOK_P_DIGITS:
        return cut_class(s, p, len, TOK_U_NUM, 0);
    case TOK_P_SPLIT:
        return cut_string(s, p, len, t->pool + op->s.off, op->s.len);
    case TOK_P_SPLIT_RE:
        return cut_pattern(t, s, op, p, len);
    case TOK_P_SCRIPTS:
        return cut_scripts(s, p, len);
    case TOK_P_FIXED:
        return cut_fixed(s, p, len, op->a);
    case TOK_P_METASPACE:
        return cut_string(s, p, len, t->pool + op->s.off, op->s.len);
    case TOK_P_BYTE_LEVEL:
        return cut_scan(s, TOK_R_GPT2, p, len);
    default:
        assert(op->type == TOK_P_SCAN);
        return cut_scan(s, op->a, p, len);
    }
}


static int
split_step(const tok_t *t, tok_scratch_t *s, const tok_op_t *op)
{
    const tok_piece_t  *p;
    tok_vec_t           hold;
    size_t              i;
    int                 rc = 0;

    s->pieces2.n = 0;
    for (i = 0; i < s->pieces.n && rc == 0; i++) {
        p = (tok_piece_t *) s->pieces.ptr + i;
        if (p->id != TOK_NO_ID) {
            rc = add_piece(s, &s->pieces2, p->begin, p->end, p->shift, p->id);
            continue;
        }
        s->cuts.n = 0;
        rc = cut_piece(t, s, op, (uint8_t *) s->norm.text.ptr + p->begin,
                       p->end - p->begin);
        if (rc == 0) {
            rc = apply_cuts(s, &s->pieces2, p, op->b, op->flags & 1);
        }
    }
    hold = s->pieces;
    s->pieces = s->pieces2;
    s->pieces2 = hold;
    return rc;
}


/* --- steps that edit --------------------------------------------------- */

/* Puts what in front of a text; it stands for the text's first character. */
static void
put_front(tok_edit_t *e, const uint8_t *what, size_t len)
{
    uint32_t  c;
    size_t    i, n, at = e->at;

    for (i = 0; i < len; i += n) {
        c = tok_utf8_get(what + i, &n);
        tok_edit_put(e, c, 0);
        e->at = at;
    }
}


static void
metaspace_piece(const tok_t *t, const tok_op_t *op, tok_edit_t *e)
{
    const uint8_t  *rep = t->pool + op->s.off, *hit;
    size_t          n = op->s.len;
    bool            has = (e->len >= n && memcmp(e->text, rep, n) == 0)
                          || (e->len && e->text[0] == ' ');

    if (!has && (op->a == 1 || (op->a == 2 && e->shift == 0))) {
        put_front(e, rep, n);
    }
    while (e->rc == 0 && e->at < e->len) {
        hit = memchr(e->text + e->at, ' ', e->len - e->at);
        if (hit == NULL) {
            break;
        }
        tok_edit_copy(e, (size_t) (hit - e->text) - e->at);
        tok_edit_replace(e, 1, rep, n);
    }
    tok_edit_copy(e, e->len - e->at);
}


static void
byte_map_piece(tok_edit_t *e)
{
    size_t  i, k, n;

    for (i = 0; i < e->len && e->rc == 0; i += n) {
        n = tok_utf8_size(e->text[i]);
        for (k = 0; k < n; k++) {
            tok_edit_put(e, tok_byte_char[e->text[i + k]], k > 0);
        }
    }
}


enum { EDIT_METASPACE, EDIT_SPACE, EDIT_BYTES };

static const uint8_t  space[4] = { ' ' };

static int
edit_step(const tok_t *t, tok_scratch_t *s, const tok_op_t *op, int kind)
{
    tok_piece_t  *p = s->pieces.ptr;
    tok_ntext_t   hold;
    tok_edit_t    e;
    size_t        i, begin;

    s->norm2.text.n = s->norm2.align.n = 0;
    for (i = 0; i < s->pieces.n; i++) {
        begin = s->norm2.text.n;
        tok_edit_begin(&e, s, &s->norm, p[i].begin, p[i].end, p[i].shift,
                       &s->norm2);
        if (e.rc == 0 && p[i].id != TOK_NO_ID) {
            tok_edit_copy(&e, e.len);

        } else if (e.rc == 0 && kind == EDIT_METASPACE) {
            metaspace_piece(t, op, &e);

        } else if (e.rc == 0 && kind == EDIT_SPACE) {
            if (e.len && e.text[0] != ' ') {
                put_front(&e, space, 1);
            }
            tok_edit_copy(&e, e.len - e.at);

        } else if (e.rc == 0) {
            byte_map_piece(&e);
        }
        if (e.rc != 0) {
            return e.rc;
        }
        if (s->norm2.text.n > TOK_NORM_BYTES_MAX) {
            return TOK_E_LIMIT;
        }
        p[i].begin = (uint32_t) begin;
        p[i].end = (uint32_t) s->norm2.text.n;
    }
    hold = s->norm;
    s->norm = s->norm2;
    s->norm2 = hold;
    return 0;
}


static int
byte_level_step(const tok_t *t, tok_scratch_t *s, const tok_op_t *op)
{
    int  rc = 0;

    if (op->a) {
        rc = edit_step(t, s, op, EDIT_SPACE);
    }
    if (rc == 0 && op->b) {
        tok_op_t  split = *op;

        split.b = TOK_B_ISOLATED;
        rc = split_step(t, s, &split);
    }
    /* In byte mode the model knows bytes, their characters are not needed. */
    if (rc == 0 && !(t->img->bpe_flags & TOK_BPE_BYTE_MODE)) {
        rc = edit_step(t, s, op, EDIT_BYTES);
    }
    return rc;
}


static int
bert_step(const tok_t *t, tok_scratch_t *s)
{
    tok_op_t  white = { .type = TOK_P_WS_SPLIT, .b = TOK_B_REMOVED };
    tok_op_t  punct = { .type = TOK_P_PUNCT, .b = TOK_B_ISOLATED };
    int       rc = split_step(t, s, &white);

    return rc == 0 ? split_step(t, s, &punct) : rc;
}


int
tok_pretokenize(const tok_t *t, tok_scratch_t *s)
{
    const tok_op_t  *op;
    size_t           i;
    int              rc = 0;

    for (i = 0; rc == 0 && i < t->n_pre; i++) {
        op = &t->pre[i];
        if (op->type == TOK_P_BERT) {
            rc = bert_step(t, s);

        } else if (op->type == TOK_P_BYTE_LEVEL) {
            rc = byte_level_step(t, s, op);

        } else if (op->type == TOK_P_METASPACE) {
            rc = edit_step(t, s, op, EDIT_METASPACE);
            if (rc == 0 && op->c) {
                rc = split_step(t, s, op);
            }

        } else {
            rc = split_step(t, s, op);
        }
    }
    return rc;
}
