/*
 * tok_decode_list.c: decoder programs of unusual shape, run step by step on
 * lists of tokens as the reference does.
 */

#include "tokenizer/tok_decode.h"
#include "tokenizer/tok_unicode.h"


typedef struct {
    tok_vec_t  *text;               /* uint8_t */
    tok_vec_t  *refs;               /* tok_ref_t */
} list_t;


static int
push(tok_scratch_t *s, list_t *l, const void *p, size_t len)
{
    tok_ref_t  r = { (uint32_t) l->text->n, (uint32_t) len };
    int        rc = tok_append(s, l->text, p, len);

    if (rc == 0) {
        rc = tok_room(s, l->refs, 1, sizeof(r));
    }
    if (rc == 0) {
        ((tok_ref_t *) l->refs->ptr)[l->refs->n++] = r;
    }
    return rc;
}


static int
hex(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}


/* <0xAB>: its byte, else -1. */
int
tok_byte_token(const uint8_t *p, size_t len)
{
    int  hi, lo;

    if (len != 6 || memcmp(p, "<0x", 3) != 0 || p[5] != '>') {
        return -1;
    }
    lo = hex(p[4]);
    if (p[3] == '+') {
        /* The reference's number reader takes a sign. */
        return lo;
    }
    hi = hex(p[3]);
    return hi < 0 || lo < 0 ? -1 : hi * 16 + lo;
}


static int
flush_bytes(tok_scratch_t *s, list_t *to, tok_vec_t *run)
{
    size_t  i, n = run->n;
    int     rc = 0;

    run->n = 0;
    if (n == 0) {
        return 0;
    }
    if (tok_utf8_check(run->ptr, n) == n) {
        return push(s, to, run->ptr, n);
    }
    for (i = 0; i < n && rc == 0; i++) {
        rc = push(s, to, "\xef\xbf\xbd", 3);
    }
    return rc;
}


static int
byte_fallback(tok_scratch_t *s, const list_t *from, list_t *to)
{
    const tok_ref_t  *r = from->refs->ptr;
    const uint8_t    *p;
    uint8_t           byte;
    size_t            i;
    int               rc = 0, b;

    s->tmp1.n = 0;
    for (i = 0; i < from->refs->n && rc == 0; i++) {
        p = (uint8_t *) from->text->ptr + r[i].off;
        b = tok_byte_token(p, r[i].len);
        if (b >= 0) {
            byte = (uint8_t) b;
            rc = tok_append(s, &s->tmp1, &byte, 1);
            continue;
        }
        rc = flush_bytes(s, to, &s->tmp1);
        if (rc == 0) {
            rc = push(s, to, p, r[i].len);
        }
    }
    return rc == 0 ? flush_bytes(s, to, &s->tmp1) : rc;
}


static int
lossy(tok_scratch_t *s, tok_vec_t *text)
{
    const uint8_t  *p;
    size_t          at = 0, k;
    bool            good, cut;
    int             rc = 0;

    if (tok_utf8_check(text->ptr, text->n) == text->n) {
        return 0;
    }
    s->tmp1.n = 0;
    while (at < text->n && rc == 0) {
        p = (uint8_t *) text->ptr + at;
        k = tok_utf8_prefix(p, text->n - at, &good, &cut);
        rc = tok_append(s, &s->tmp1, good ? (const char *) p : "\xef\xbf\xbd",
                        good ? k : 3);
        at += k;
    }
    text->n = 0;
    return rc == 0 ? tok_append(s, text, s->tmp1.ptr, s->tmp1.n) : rc;
}


/* All tokens become one. */
static int
fuse(tok_scratch_t *s, list_t *l)
{
    l->refs->n = 0;
    if (tok_room(s, l->refs, 1, sizeof(tok_ref_t)) != 0) {
        return TOK_E_NOMEM;
    }
    ((tok_ref_t *) l->refs->ptr)[l->refs->n++] =
        (tok_ref_t) { 0, (uint32_t) l->text->n };
    return 0;
}


static int
each_token(const tok_t *t, tok_scratch_t *s, const tok_op_t *op,
    const list_t *from, list_t *to)
{
    const tok_ref_t  *r = from->refs->ptr;
    const uint8_t    *p, *q;
    tok_ref_t         out;
    size_t            i, n = from->refs->n;
    int               rc = 0;

    for (i = 0; i < n && rc == 0; i++) {
        p = (uint8_t *) from->text->ptr + r[i].off;
        if (op->type == TOK_D_CTC && i > 0) {
            q = (uint8_t *) from->text->ptr + r[i - 1].off;
            if (r[i].len == r[i - 1].len && memcmp(p, q, r[i].len) == 0) {
                continue;
            }
        }
        out.off = (uint32_t) to->text->n;
        rc = tok_decode_op(t, s, op, to->text, p, r[i].len, i == 0,
                           i + 1 == n);
        out.len = (uint32_t) to->text->n - out.off;
        if (rc == 0 && !(op->type == TOK_D_CTC && out.len == 0)) {
            rc = tok_room(s, to->refs, 1, sizeof(out));
            if (rc == 0) {
                ((tok_ref_t *) to->refs->ptr)[to->refs->n++] = out;
            }
        }
    }
    return rc;
}


static int
step(const tok_t *t, tok_scratch_t *s, const tok_op_t *op, list_t *from,
    list_t *to)
{
    int  rc;

    to->text->n = 0;
    to->refs->n = 0;
    if (op->type == TOK_D_BYTE_FALLBACK) {
        return byte_fallback(s, from, to);
    }
    if (op->type == TOK_D_FUSE) {
        rc = tok_append(s, to->text, from->text->ptr, from->text->n);
        return rc == 0 ? fuse(s, to) : rc;
    }
    rc = each_token(t, s, op, from, to);
    if (rc == 0 && op->type == TOK_D_BYTE_LEVEL) {
        rc = lossy(s, to->text);
        return rc == 0 ? fuse(s, to) : rc;
    }
    return rc;
}


int
tok_decode_general(const tok_t *t, tok_scratch_t *s, const uint32_t *ids,
    size_t n, unsigned flags, const char **text, size_t *len)
{
    list_t     l[2] = { { &s->text, &s->refs }, { &s->text2, &s->refs2 } };
    tok_str_t  v;
    size_t     i;
    int        rc = 0, cur = 0;

    s->refs.n = 0;
    for (i = 0; i < n && rc == 0; i++) {
        if (!tok_skipped(t, ids[i], flags)) {
            v = tok_shown(t, ids[i]);
            rc = push(s, &l[0], v.ptr, v.len);
        }
    }
    for (i = 0; i < t->n_decode && rc == 0; i++) {
        rc = step(t, s, &t->decode[i], &l[cur], &l[1 - cur]);
        cur = 1 - cur;
    }
    if (rc == 0 && l[cur].text->n) {
        *text = l[cur].text->ptr;
        *len = l[cur].text->n;
    }
    return rc;
}
