/*
 * tok_norm.c: normalizers.  Each step reads one text and writes another,
 * with alignments if somebody asked for offsets.
 */

#include "tokenizer/tok_norm.h"
#include "tokenizer/tok_pattern.h"
#include "tokenizer/tok_unicode.h"


/* --- editing ----------------------------------------------------------- */

void
tok_edit_begin(tok_edit_t *e, tok_scratch_t *s, const tok_ntext_t *in,
    size_t begin, size_t end, uint32_t shift, tok_ntext_t *out)
{
    assert(in != out && begin <= end && end <= in->text.n);
    e->s = s;
    e->text = (const uint8_t *) in->text.ptr + begin;
    e->align = s->keep_align ? (const tok_span_t *) in->align.ptr + begin
               : NULL;
    e->len = end - begin;
    e->at = 0;
    e->shift = shift;
    e->out = out;
    e->rc = tok_room(s, &out->text, e->len + 64, 1);
    if (e->rc == 0 && e->align != NULL) {
        e->rc = tok_room(s, &out->align, e->len + 64, sizeof(tok_span_t));
    }
}


static void
write_bytes(tok_edit_t *e, const uint8_t *p, size_t n, tok_span_t a)
{
    tok_ntext_t  *o = e->out;
    size_t        i;

    if (e->rc != 0) {
        return;
    }
    e->rc = tok_room(e->s, &o->text, n + 8, 1);
    if (e->rc == 0 && e->align != NULL) {
        e->rc = tok_room(e->s, &o->align, n + 8, sizeof(tok_span_t));
    }
    if (e->rc != 0) {
        return;
    }
    memcpy((uint8_t *) o->text.ptr + o->text.n, p, n);
    o->text.n += n;
    if (e->align != NULL) {
        for (i = 0; i < n; i++) {
            ((tok_span_t *) o->align.ptr)[o->align.n++] = a;
        }
    }
}


static tok_span_t
align_of(const tok_edit_t *e, bool added)
{
    tok_span_t  none = { e->shift, e->shift };

    if (e->align == NULL) {
        return none;
    }
    if (added) {
        return e->at < 1 ? none : e->align[e->at - 1];
    }
    return e->at < e->len ? e->align[e->at] : none;
}


void
tok_edit_skip(tok_edit_t *e, size_t chars)
{
    while (chars-- > 0 && e->at < e->len) {
        e->at += tok_utf8_size(e->text[e->at]);
    }
}


void
tok_edit_put(tok_edit_t *e, uint32_t c, int change)
{
    uint8_t     buf[4];
    tok_span_t  a = align_of(e, change > 0);
    size_t      n = tok_utf8_put(buf, c);

    if (change <= 0) {
        tok_edit_skip(e, 1 + (size_t) -change);
    }
    write_bytes(e, buf, n, a);
}


void
tok_edit_copy(tok_edit_t *e, size_t len)
{
    tok_ntext_t  *o = e->out;

    assert(len <= e->len - e->at);
    if (e->rc == 0) {
        e->rc = tok_room(e->s, &o->text, len + 8, 1);
    }
    if (e->rc == 0 && e->align != NULL) {
        e->rc = tok_room(e->s, &o->align, len + 8, sizeof(tok_span_t));
    }
    if (e->rc != 0 || len == 0) {
        return;
    }
    memcpy((uint8_t *) o->text.ptr + o->text.n, e->text + e->at, len);
    o->text.n += len;
    if (e->align != NULL) {
        memcpy((tok_span_t *) o->align.ptr + o->align.n, e->align + e->at,
               len * sizeof(tok_span_t));
        o->align.n += len;
    }
    e->at += len;
}


void
tok_edit_replace(tok_edit_t *e, size_t len, const uint8_t *content,
    size_t content_len)
{
    assert(len <= e->len - e->at);
    e->at += len;
    write_bytes(e, content, content_len, align_of(e, true));
}


/* --- steps ------------------------------------------------------------- */

static void
do_replace(const tok_t *t, const tok_op_t *op, tok_edit_t *e)
{
    const uint8_t  *hit, *what = t->pool + op->s.off;

    while (e->rc == 0 && op->s.len && e->len - e->at >= op->s.len) {
        hit = memmem(e->text + e->at, e->len - e->at, what, op->s.len);
        if (hit == NULL) {
            break;
        }
        tok_edit_copy(e, (size_t) (hit - e->text) - e->at);
        tok_edit_replace(e, op->s.len, t->pool + op->r.off, op->r.len);
    }
    tok_edit_copy(e, e->len - e->at);
}


static void
do_replace_pattern(const tok_t *t, const tok_op_t *op, tok_edit_t *e)
{
    size_t  at = 0, b, z;
    int     rc;

    while (e->rc == 0 && at <= e->len) {
        rc = tok_pattern_next(t, e->s, op, e->text, e->len, at, &b, &z);
        if (rc <= 0) {
            e->rc = rc;
            break;
        }
        tok_edit_copy(e, b - e->at);
        tok_edit_replace(e, z - b, t->pool + op->r.off, op->r.len);
        at = z > b ? z : z + (z < e->len ? tok_utf8_size(e->text[z]) : 1);
    }
    tok_edit_copy(e, e->len - e->at);
}


static void
do_prepend(const tok_t *t, const tok_op_t *op, tok_edit_t *e)
{
    const uint8_t  *p = t->pool + op->s.off;
    uint32_t        c, next;
    size_t          i, n, k;

    if (e->len == 0) {
        return;
    }
    next = tok_utf8_get(e->text, &k);
    for (i = 0; i < op->s.len; i += n) {
        c = tok_utf8_get(p + i, &n);
        tok_edit_put(e, c, i != 0);
    }
    if (op->s.len) {
        tok_edit_put(e, next, 1);
    }
    tok_edit_copy(e, e->len - e->at);
}


/*
 * Characters that stay are written when the next one is seen, for only then
 * is it known how many dropped ones follow them.
 */
typedef struct {
    uint32_t  last;
    int       dropped;
    bool      have;
} filter_t;


static void
filter_keep(tok_edit_t *e, filter_t *f, uint32_t c)
{
    if (f->have) {
        tok_edit_put(e, f->last, -f->dropped);

    } else {
        tok_edit_skip(e, (size_t) f->dropped);
    }
    f->have = true;
    f->last = c;
    f->dropped = 0;
}


static void
filter_end(tok_edit_t *e, const filter_t *f)
{
    if (f->have) {
        tok_edit_put(e, f->last, -f->dropped);
    }
}


/* Drops characters of a class; the others may become a space. */
static void
do_filter(tok_edit_t *e, uint32_t drop, uint32_t space)
{
    const uint8_t  *text = e->text;
    filter_t        f = { 0 };
    uint32_t        c, class;
    size_t          i, n;

    for (i = 0; i < e->len && e->rc == 0; i += n) {
        c = tok_utf8_get(text + i, &n);
        class = tok_class(c);
        if (class & drop) {
            f.dropped++;
            continue;
        }
        filter_keep(e, &f, class & space ? ' ' : c);
    }
    filter_end(e, &f);
}


static bool
nmt_drops(uint32_t c)
{
    return (c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f)
           || c == 0x7f || c == 0x8f || c == 0x9f;
}


static bool
nmt_spaces(uint32_t c)
{
    return c == 9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680
           || (c >= 0x200b && c <= 0x200f) || c == 0x2028 || c == 0x2029
           || c == 0x2581 || c == 0xfeff || c == 0xfffd;
}


static void
do_nmt(tok_edit_t *e)
{
    filter_t  f = { 0 };
    uint32_t  c;
    size_t    i, n;

    for (i = 0; i < e->len && e->rc == 0; i += n) {
        c = tok_utf8_get(e->text + i, &n);
        if (nmt_drops(c)) {
            f.dropped++;
        } else {
            filter_keep(e, &f, nmt_spaces(c) ? ' ' : c);
        }
    }
    filter_end(e, &f);
}


static void
do_chinese(tok_edit_t *e)
{
    uint32_t  c;
    size_t    i, n;

    for (i = 0; i < e->len && e->rc == 0; i += n) {
        c = tok_utf8_get(e->text + i, &n);
        if (tok_class(c) & TOK_U_CJK) {
            tok_edit_put(e, ' ', 0);
            tok_edit_put(e, c, 1);
            tok_edit_put(e, ' ', 1);

        } else {
            tok_edit_put(e, c, 0);
        }
    }
}


static bool
white_at(const uint8_t *p)
{
    size_t  n;

    return tok_class(tok_utf8_get(p, &n)) & TOK_U_WS;
}


/*
 * White space off the ends.  The reference marks the last kept character as
 * standing for what was dropped behind it only if the text is ASCII; the
 * mark changes no alignment of what is kept.
 */
static void
do_strip(const tok_op_t *op, tok_edit_t *e)
{
    size_t  b = 0, z = e->len, back;

    while (op->a && b < z && white_at(e->text + b)) {
        b += tok_utf8_size(e->text[b]);
    }
    while (op->b && z > b) {
        back = z;
        do {
            back--;
        } while ((e->text[back] & 0xc0) == 0x80);
        if (!white_at(e->text + back)) {
            break;
        }
        z = back;
    }
    e->at = b;
    tok_edit_copy(e, z - b);
}


static void
do_byte_level(tok_edit_t *e)
{
    size_t  i, k, n;

    for (i = 0; i < e->len && e->rc == 0; i += n) {
        n = tok_utf8_size(e->text[i]);
        for (k = 0; k < n; k++) {
            tok_edit_put(e, tok_byte_char[e->text[i + k]], k > 0);
        }
    }
}


static int
step(const tok_t *t, const tok_op_t *op, tok_edit_t *e)
{
    switch (op->type) {
    case TOK_N_NFC:
    case TOK_N_NFD:
    case TOK_N_NFKC:
    case TOK_N_NFKD:
        return tok_edit_form(e, op->type);
    case TOK_N_LOWER:
        return tok_edit_lower(e);
    case TOK_N_CLEAN:
        do_filter(e, TOK_U_CTRL, TOK_U_WS);
        break;
    case TOK_N_CHINESE:
        do_chinese(e);
        break;
    case TOK_N_STRIP_MN:
        do_filter(e, TOK_U_MN, 0);
        break;
    case TOK_N_STRIP_ACCENTS:
        do_filter(e, TOK_U_MARK, 0);
        break;
    case TOK_N_STRIP:
        do_strip(op, e);
        break;
    case TOK_N_REPLACE:
        do_replace(t, op, e);
        break;
    case TOK_N_REPLACE_RE:
        do_replace_pattern(t, op, e);
        break;
    case TOK_N_PREPEND:
        do_prepend(t, op, e);
        break;
    case TOK_N_CHARSMAP:
        return tok_edit_charsmap(t, op, e);
    case TOK_N_NMT:
        do_nmt(e);
        break;
    default:
        assert(op->type == TOK_N_BYTE_LEVEL);
        do_byte_level(e);
        break;
    }
    return e->rc;
}


/* --- all steps --------------------------------------------------------- */

static int
set_text(tok_scratch_t *s, const uint8_t *text, size_t len, size_t base)
{
    tok_ntext_t  *o = &s->norm;
    tok_span_t   *a;
    size_t        i, n, k;
    int           rc;

    o->text.n = o->align.n = 0;
    rc = tok_room(s, &o->text, len + 64, 1);
    if (rc != 0) {
        return rc;
    }
    memcpy(o->text.ptr, text, len);
    o->text.n = len;
    if (!s->keep_align) {
        return 0;
    }
    rc = tok_room(s, &o->align, len + 64, sizeof(*a));
    if (rc != 0) {
        return rc;
    }
    a = o->align.ptr;
    for (i = 0; i < len; i += n) {
        n = tok_utf8_size(text[i]);
        for (k = i; k < i + n; k++) {
            a[k].begin = (uint32_t) (base + i);
            a[k].end = (uint32_t) (base + i + n);
        }
    }
    o->align.n = len;
    return 0;
}


int
tok_normalize(const tok_t *t, tok_scratch_t *s, const uint8_t *text,
    size_t len, size_t base)
{
    tok_ntext_t  hold;
    tok_edit_t   e;
    size_t       i;
    int          rc = set_text(s, text, len, base);

    for (i = 0; rc == 0 && i < t->n_norm; i++) {
        s->norm2.text.n = s->norm2.align.n = 0;
        tok_edit_begin(&e, s, &s->norm, 0, s->norm.text.n, (uint32_t) base,
                       &s->norm2);
        rc = e.rc == 0 ? step(t, &t->norm[i], &e) : e.rc;
        if (rc == 0 && s->norm2.text.n > TOK_NORM_BYTES_MAX) {
            rc = TOK_E_LIMIT;
        }
        hold = s->norm;
        s->norm = s->norm2;
        s->norm2 = hold;
    }
    return rc;
}


int
tok_normalize_plain(const tok_t *t, tok_scratch_t *s, tok_str_t text,
    tok_str_t *norm)
{
    int  rc;

    s->keep_align = false;
    rc = tok_normalize(t, s, (const uint8_t *) text.ptr, text.len, 0);
    norm->ptr = s->norm.text.ptr;
    norm->len = s->norm.text.n;
    return rc;
}
