/*
 * Values to text: as {{ }} prints them (Python's str and repr), and as JSON in
 * the manner of Python's json.dumps.  One walk serves both; it keeps its own
 * stack.
 */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/chat/chat_int.h"


#define INDENT_MAX  32

typedef struct {
    chat_vm_t              *vm;
    chat_buf_t             *buf;
    const chat_json_fmt_t  *fmt;        /* NULL: repr */
} dump_t;

static int dump(dump_t *d, const chat_val_t *v);
static int dump_flat(dump_t *d, const chat_val_t *v);
static int dump_key(dump_t *d, const chat_val_t *key);
static int json_string(dump_t *d, const chat_val_t *v);
static int repr_string(dump_t *d, const chat_val_t *v);


int
chat_to_str(chat_vm_t *vm, const chat_val_t *v, chat_val_t *out)
{
    int         rc;
    dump_t      d = { 0 };
    chat_buf_t  buf = { 0 };

    if (v->type == CV_STR) {
        *out = *v;
        return CHAT_OK;
    }

    if (v->type == CV_UNDEF) {
        *out = chat_v_str("", 0);
        return CHAT_OK;
    }

    d.vm = vm;
    d.buf = &buf;

    rc = dump(&d, v);
    if (rc == CHAT_OK) {
        chat_buf_val(&buf, out);
    }

    return rc;
}


int
chat_to_json(chat_vm_t *vm, const chat_val_t *v, const chat_json_fmt_t *f,
    chat_val_t *out)
{
    int         rc;
    dump_t      d = { 0 };
    chat_buf_t  buf = { 0 };

    if (f->indent > INDENT_MAX) {
        return chat_fail(vm, CHAT_ELIMIT, "tojson with an indent of %d, the "
                         "limit is %d", f->indent, INDENT_MAX);
    }

    d.vm = vm;
    d.buf = &buf;
    d.fmt = f;

    rc = dump(&d, v);
    if (rc != CHAT_OK) {
        return rc;
    }

    chat_buf_val(&buf, out);

    /* JSON of a value that holds input is input as a whole. */

    if (out->taint == CT_MIXED) {
        out->taint = CT_INPUT;
        out->map = NULL;
    }

    return CHAT_OK;
}


static bool
is_container(const chat_val_t *v)
{
    return v->type == CV_LIST || v->type == CV_TUPLE || v->type == CV_DICT;
}


static uint32_t
count_of(const chat_val_t *v)
{
    return v->type == CV_DICT ? v->u.dict->count : v->u.list->count;
}


static int
newline(dump_t *d, uint32_t depth)
{
    int                rc;
    uint32_t           i;
    static const char  spaces[] = "                                ";

    if (d->fmt == NULL || d->fmt->indent < 0) {
        return CHAT_OK;
    }

    rc = chat_buf_lit(d->vm, d->buf, "\n");

    for (i = 0; rc == CHAT_OK && i < depth; i++) {
        rc = chat_buf_add(d->vm, d->buf, spaces, (uint32_t) d->fmt->indent,
                          CT_TEMPLATE, NULL);
    }

    return rc;
}


static int
open_container(dump_t *d, const chat_val_t *v)
{
    return chat_buf_lit(d->vm, d->buf, v->type == CV_DICT ? "{"
                        : v->type == CV_TUPLE && d->fmt == NULL ? "(" : "[");
}


static int
close_container(dump_t *d, const chat_val_t *v, uint32_t depth)
{
    int  rc;

    rc = count_of(v) > 0 ? newline(d, depth) : CHAT_OK;
    if (rc != CHAT_OK) {
        return rc;
    }

    return chat_buf_lit(d->vm, d->buf, v->type == CV_DICT ? "}"
                        : v->type != CV_TUPLE || d->fmt != NULL ? "]"
                        : count_of(v) == 1 ? ",)" : ")");
}


static int
separator(dump_t *d, bool key)
{
    if (d->fmt == NULL) {
        return chat_buf_lit(d->vm, d->buf, key ? ": " : ", ");
    }

    return chat_buf_str(d->vm, d->buf, key ? &d->fmt->key_sep
                                           : &d->fmt->item_sep);
}


/* The order of a mapping's keys, for sort_keys. */
static int
sorted(dump_t *d, const chat_val_t *v, chat_val_t *out)
{
    int          rc;
    chat_val_t   copy;
    chat_args_t  a = { .v = &copy, .n = 1 };
    chat_dict_t *made;
    uint32_t     i;

    copy = *v;
    rc = chat_seq_dictsort(d->vm, &a, out);
    if (rc != CHAT_OK) {
        return rc;
    }

    rc = chat_dict_new(d->vm, v->u.dict->count, &made);

    for (i = 0; rc == CHAT_OK && i < v->u.dict->count; i++) {
        rc = chat_dict_put(d->vm, made, &out->u.list->items[i].u.list->items[0],
                           &out->u.list->items[i].u.list->items[1]);
    }

    *out = *v;
    out->u.dict = made;
    return rc;
}


static int
dump(dump_t *d, const chat_val_t *v)
{
    int                rc;
    uint32_t           depth;
    chat_walk_t       *w, stack[CHAT_DEPTH_MAX + 1];
    chat_val_t         keep[CHAT_DEPTH_MAX + 1];

    depth = 0;
    rc = CHAT_OK;

    for ( ;; ) {
        if (is_container(v)) {
            assert(depth <= CHAT_DEPTH_MAX);

            if (v->type == CV_DICT && d->fmt != NULL && d->fmt->sort) {
                rc = sorted(d, v, &keep[depth]);
                v = &keep[depth];
            }

            stack[depth++] = (chat_walk_t) { v, 0 };
            rc = rc == CHAT_OK ? open_container(d, v) : rc;
        } else {
            rc = dump_flat(d, v);
        }

        if (rc == CHAT_OK) {
            rc = chat_charge(d->vm, 3);
        }

        /* Close what is complete. */

        while (rc == CHAT_OK && depth > 0
               && stack[depth - 1].next == count_of(stack[depth - 1].v))
        {
            depth--;
            rc = close_container(d, stack[depth].v, depth);
        }

        if (rc != CHAT_OK || depth == 0) {
            return rc;
        }

        w = &stack[depth - 1];

        rc = w->next > 0 ? separator(d, false) : CHAT_OK;
        if (rc == CHAT_OK) {
            rc = newline(d, depth);
        }

        if (rc == CHAT_OK && w->v->type == CV_DICT) {
            rc = dump_key(d, &w->v->u.dict->pairs[w->next].key);
        }

        if (rc != CHAT_OK) {
            return rc;
        }

        v = w->v->type == CV_DICT ? &w->v->u.dict->pairs[w->next].val
                                  : &w->v->u.list->items[w->next];
        w->next++;
    }
}


static int
dump_key(dump_t *d, const chat_val_t *key)
{
    int         rc;
    bool        bare;

    bare = d->fmt != NULL && key->type != CV_STR;

    rc = bare ? chat_buf_lit(d->vm, d->buf, "\"") : CHAT_OK;
    if (rc == CHAT_OK) {
        rc = dump_flat(d, key);
    }

    if (rc == CHAT_OK && bare) {
        rc = chat_buf_lit(d->vm, d->buf, "\"");
    }

    return rc == CHAT_OK ? separator(d, true) : rc;
}


static int
dump_flat(dump_t *d, const chat_val_t *v)
{
    char  text[64];

    switch (v->type) {
    case CV_STR:
        return d->fmt != NULL ? json_string(d, v) : repr_string(d, v);

    case CV_BIGINT:
        return chat_buf_str(d->vm, d->buf, v);

    case CV_NONE:
        return chat_buf_lit(d->vm, d->buf, d->fmt != NULL ? "null" : "None");

    case CV_BOOL:
        return chat_buf_lit(d->vm, d->buf,
                            d->fmt != NULL ? (v->u.i ? "true" : "false")
                                           : (v->u.i ? "True" : "False"));

    case CV_INT:
        snprintf(text, sizeof(text), "%lld", (long long) v->u.i);
        return chat_buf_lit(d->vm, d->buf, text);

    case CV_FLOAT:
        chat_float_text(v->u.f, text, sizeof(text));

        if (d->fmt != NULL && !isfinite(v->u.f)) {
            return chat_buf_lit(d->vm, d->buf, isnan(v->u.f) ? "NaN"
                                : v->u.f > 0 ? "Infinity" : "-Infinity");
        }

        return chat_buf_lit(d->vm, d->buf, text);

    case CV_UNDEF:
        if (d->fmt == NULL) {
            return chat_buf_lit(d->vm, d->buf, "Undefined");
        }

        /* fall through */

    default:
        return chat_fail(d->vm, CHAT_ERUNTIME, "%s cannot be shown as text",
                         chat_type_name(v));
    }
}


/* The shortest decimal that reads back as f, in Python's form. */
int
chat_float_text(double f, char *to, size_t cap)
{
    int    p, e, n, i, at;
    char   sci[40], digits[24], *end, *exp;

    if (!isfinite(f)) {
        return snprintf(to, cap, "%s", isnan(f) ? "nan" : f > 0 ? "inf"
                                                               : "-inf");
    }

    for (p = 0; p < 17; p++) {
        snprintf(sci, sizeof(sci), "%.*e", p, f);
        if (strtod(sci, &end) == f) {
            break;
        }
    }

    exp = strchr(sci, 'e');
    assert(exp != NULL);

    for (e = 0, i = 2; exp[i] != '\0'; i++) {
        e = e * 10 + (exp[i] - '0');
    }

    e = exp[1] == '-' ? -e : e;

    for (n = 0, i = 0; &sci[i] < exp; i++) {
        if (sci[i] >= '0' && sci[i] <= '9') {
            digits[n++] = sci[i];
        }
    }

    while (n > 1 && digits[n - 1] == '0') {
        n--;
    }

    digits[n] = '\0';

    if (e < -4 || e >= 16) {
        return snprintf(to, cap, "%s%c%s%se%c%02d", signbit(f) ? "-" : "",
                        digits[0], n > 1 ? "." : "", digits + 1,
                        e < 0 ? '-' : '+', e < 0 ? -e : e);
    }

    if (e < 0) {
        return snprintf(to, cap, "%s0.%.*s%s", signbit(f) ? "-" : "", -e - 1,
                        "000", digits);
    }

    at = snprintf(to, cap, "%s%.*s", signbit(f) ? "-" : "",
                  n < e + 1 ? n : e + 1, digits);

    for (i = n; i < e + 1; i++) {
        to[at++] = '0';
    }

    return at + snprintf(to + at, cap - (size_t) at, ".%s",
                         n > e + 1 ? digits + e + 1 : "0");
}


/*
 * Adds v's bytes with `escape` giving the text for those that need it; runs
 * that need none are copied at once.
 */
static int
escaped(dump_t *d, const chat_val_t *v, char quote,
    uint32_t (*escape)(const dump_t *, char, const char *, const char *,
                       char *, uint32_t *))
{
    int         rc;
    char        text[32], q[2] = { quote, '\0' };
    uint32_t    i, run, n, used;
    chat_val_t  part;

    rc = chat_buf_lit(d->vm, d->buf, q);

    for (i = 0, run = 0; rc == CHAT_OK && i < v->len; i += used) {
        used = 1;

        if ((v->u.s[i] >= ' ' && v->u.s[i] <= '~') && v->u.s[i] != '"'
            && v->u.s[i] != '\\' && v->u.s[i] != '\'')
        {
            continue;
        }

        n = escape(d, quote, v->u.s + i, v->u.s + v->len, text, &used);

        if (n == 0) {
            continue;
        }

        part = chat_v_sub(v, run, i - run);
        rc = chat_charge(d->vm, 1);

        if (rc == CHAT_OK) {
            rc = chat_buf_str(d->vm, d->buf, &part);
        }

        if (rc == CHAT_OK) {
            rc = chat_buf_add(d->vm, d->buf, text, n, v->taint == CT_MIXED
                              ? v->map[i] : v->taint, NULL);
        }

        run = i + used;
    }

    if (rc == CHAT_OK) {
        part = chat_v_sub(v, run, v->len - run);
        rc = chat_buf_str(d->vm, d->buf, &part);
    }

    return rc == CHAT_OK ? chat_buf_lit(d->vm, d->buf, q) : rc;
}


static uint32_t
short_escape(char ch, const char *from, const char *to, char *text)
{
    const char  *hit;

    hit = ch != '\0' ? strchr(from, ch) : NULL;
    if (hit == NULL) {
        return 0;
    }

    text[0] = '\\';
    text[1] = to[hit - from];
    return 2;
}


static uint32_t
json_escape(const dump_t *d, char quote, const char *p, const char *end,
    char *text, uint32_t *used)
{
    uint32_t       cp, n;
    unsigned char  ch;

    (void) quote;

    ch = (unsigned char) *p;
    *used = 1;

    if (ch >= 0x80) {
        if (!d->fmt->ascii) {
            return 0;
        }

        *used = chat_utf8_get(p, end, &cp);

        return (uint32_t) (cp < 0x10000 ? snprintf(text, 32, "\\u%04x", cp)
                           : snprintf(text, 32, "\\u%04x\\u%04x",
                                      0xd800 + ((cp - 0x10000) >> 10),
                                      0xdc00 + ((cp - 0x10000) & 0x3ff)));
    }

    if (ch >= 32 && ch != '"' && ch != '\\') {
        return 0;
    }

    n = short_escape(*p, "\"\\\b\f\n\r\t", "\"\\bfnrt", text);
    return n != 0 ? n : (uint32_t) snprintf(text, 32, "\\u%04x", ch);
}


static uint32_t
repr_escape(const dump_t *d, char quote, const char *p, const char *end,
    char *text, uint32_t *used)
{
    uint32_t       cp, n;
    unsigned char  ch;

    (void) d;

    ch = (unsigned char) *p;
    *used = 1;

    if (ch >= 0x80) {
        *used = chat_utf8_get(p, end, &cp);

        if (cp < 0xa1 || cp == 0xad) {
            return (uint32_t) snprintf(text, 32, "\\x%02x", cp);
        }

        return chat_space_len(p, end) != 0 && cp > 0xff
               ? (uint32_t) snprintf(text, 32, "\\u%04x", cp) : 0;
    }

    if (*p == quote) {
        text[0] = '\\';
        text[1] = quote;
        return 2;
    }

    if (ch >= 32 && ch != '\\' && ch != 127) {
        return 0;
    }

    n = short_escape(*p, "\\\n\r\t", "\\nrt", text);
    return n != 0 ? n : (uint32_t) snprintf(text, 32, "\\x%02x", ch);
}


static int
json_string(dump_t *d, const chat_val_t *v)
{
    return escaped(d, v, '"', json_escape);
}


static int
repr_string(dump_t *d, const chat_val_t *v)
{
    bool  doubled;

    doubled = memchr(v->u.s, '\'', v->len) != NULL
              && memchr(v->u.s, '"', v->len) == NULL;

    return escaped(d, v, doubled ? '"' : '\'', repr_escape);
}
