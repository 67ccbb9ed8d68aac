/*
 * JSON text straight into values: one pass, in order of appearance, strict
 * (RFC 8259), without recursion.  Strings without escapes are not copied: they
 * point into the caller's text, which outlives the rendering.
 */

#include <stdlib.h>
#include <string.h>

#include "worker/chat/chat_int.h"


#define NUMBER_BYTES_MAX  512

/*
 * Children are collected on a stack of their own, which grows down from the end
 * of the arena while values grow up.
 */
typedef struct {
    chat_vm_t   *vm;
    const char  *what;
    const char  *start;
    const char  *p;
    const char  *end;
    char        *old_end;       /* of the arena */
    uint32_t     depth;
    char         kind[CHAT_JSON_DEPTH];        /* '[' or '{' */
    uint32_t     count[CHAT_JSON_DEPTH];       /* values pushed */
} reader_t;

static int read_value(reader_t *r);
static int read_string(reader_t *r, chat_val_t *v);
static int read_number(reader_t *r, chat_val_t *v);
static int read_word(reader_t *r, chat_val_t *v);
static int close_container(reader_t *r, chat_val_t *v);


static int
bad(reader_t *r, const char *why)
{
    return chat_fail(r->vm, CHAT_EINPUT, "%s is not valid JSON at byte %zu: %s",
                     r->what, (size_t) (r->p - r->start), why);
}


static void
skip_space(reader_t *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\n' || *r->p == '\r'
                             || *r->p == '\t'))
    {
        r->p++;
    }
}


static int
push(reader_t *r, const chat_val_t *v)
{
    chat_vm_t  *vm;

    vm = r->vm;

    if ((size_t) (vm->mem_end - vm->mem) < sizeof(chat_val_t)) {
        return chat_fail(vm, CHAT_ELIMIT, "%s does not fit the working memory "
                         "of the chat template", r->what);
    }

    vm->mem_end -= sizeof(chat_val_t);
    memcpy(vm->mem_end, v, sizeof(*v));
    return CHAT_OK;
}


int
chat_json_read(chat_vm_t *vm, const char *text, size_t len, const char *what,
    chat_val_t *out)
{
    int       rc;
    reader_t  r = { 0 };

    r.vm = vm;
    r.what = what;
    r.start = text;
    r.p = text;
    r.end = text + len;
    r.old_end = vm->mem_end;

    rc = read_value(&r);

    if (rc == CHAT_OK) {
        memcpy(out, vm->mem_end, sizeof(*out));
        skip_space(&r);

        if (r.p != r.end) {
            rc = bad(&r, "more after the value");
        }
    }

    vm->mem_end = r.old_end;
    return rc;
}


/* After "{" or between members: the key and its colon. */
static int
read_key(reader_t *r)
{
    int         rc;
    chat_val_t  key;

    skip_space(r);

    if (r->p == r->end || *r->p != '"') {
        return bad(r, "a member's name is expected");
    }

    rc = read_string(r, &key);
    if (rc == CHAT_OK) {
        rc = push(r, &key);
    }

    if (rc != CHAT_OK) {
        return rc;
    }

    skip_space(r);

    if (r->p == r->end || *r->p != ':') {
        return bad(r, "\":\" is expected");
    }

    r->p++;
    return CHAT_OK;
}


/* Opens a container; *empty says that it was closed at once. */
static int
open_container(reader_t *r, bool *empty)
{
    char  kind;

    if (r->depth == CHAT_JSON_DEPTH) {
        return chat_fail(r->vm, CHAT_EINPUT, "%s is nested deeper than %d",
                         r->what, CHAT_JSON_DEPTH);
    }

    kind = *r->p++;
    r->kind[r->depth] = kind;
    r->count[r->depth] = 0;
    r->depth++;

    skip_space(r);
    *empty = r->p < r->end && *r->p == (kind == '[' ? ']' : '}');

    return *empty || kind == '[' ? CHAT_OK : read_key(r);
}


/* The next scalar, or a whole empty container. */
static int
read_flat(reader_t *r, chat_val_t *v)
{
    if (*r->p == '"') {
        return read_string(r, v);
    }

    return *r->p == '-' || (*r->p >= '0' && *r->p <= '9') ? read_number(r, v)
                                                          : read_word(r, v);
}


/*
 * Reads a scalar or an empty container's begin, which completes a value, or
 * opens a container with something in it: *open.  *empty: its end is next.
 */
static int
read_begin(reader_t *r, bool *open, bool *empty)
{
    int         rc;
    chat_val_t  v;

    *open = false;
    *empty = false;

    skip_space(r);

    if (r->p == r->end) {
        return bad(r, "the text ends too early");
    }

    if (*r->p == '[' || *r->p == '{') {
        rc = open_container(r, empty);
        *open = !*empty;
        return rc;
    }

    rc = read_flat(r, &v);
    return rc == CHAT_OK ? push(r, &v) : rc;
}


/*
 * Reads what follows a complete value: the ends of its containers, up to a
 * comma (*more, at the next value) or the end of the outermost value.
 */
static int
read_after(reader_t *r, bool empty, bool *more)
{
    int         rc;
    chat_val_t  v;

    for (*more = false; r->depth != 0; empty = false) {
        r->count[r->depth - 1] += !empty;
        skip_space(r);

        if (r->p < r->end && *r->p == ',' && !empty) {
            *more = true;
            r->p++;
            return r->kind[r->depth - 1] == '{' ? read_key(r) : CHAT_OK;
        }

        if (r->p == r->end
            || *r->p != (r->kind[r->depth - 1] == '[' ? ']' : '}'))
        {
            return bad(r, "\",\" or the container's end is expected");
        }

        r->p++;
        r->depth--;

        rc = close_container(r, &v);
        if (rc == CHAT_OK) {
            rc = push(r, &v);
        }

        if (rc != CHAT_OK) {
            return rc;
        }
    }

    return CHAT_OK;
}


/* Reads one value of any depth and leaves it on the stack of children. */
static int
read_value(reader_t *r)
{
    int   rc;
    bool  open, empty, more;

    do {
        rc = read_begin(r, &open, &empty);
        more = open;

        if (rc == CHAT_OK && !open) {
            rc = read_after(r, empty, &more);
        }

    } while (rc == CHAT_OK && more);

    return rc;
}


/* The value at i from the bottom among n at the stack's top. */
static void
child(const reader_t *r, uint32_t n, uint32_t i, chat_val_t *v)
{
    memcpy(v, r->vm->mem_end + (size_t) (n - 1 - i) * sizeof(*v), sizeof(*v));
}


static int
close_container(reader_t *r, chat_val_t *v)
{
    int           rc;
    uint32_t      i, n;
    chat_val_t    key, val, *items;
    chat_dict_t  *d;

    n = r->count[r->depth];

    if (r->kind[r->depth] == '[') {
        items = chat_alloc(r->vm, (size_t) n * sizeof(chat_val_t));
        if (items == NULL) {
            return r->vm->err->code;
        }

        for (i = 0; i < n; i++) {
            child(r, n, i, &items[i]);
        }

        r->vm->mem_end += (size_t) n * sizeof(chat_val_t);
        return chat_list_of(r->vm, CV_LIST, items, n, v);
    }

    rc = chat_dict_new(r->vm, n, &d);

    for (i = 0; rc == CHAT_OK && i < n; i++) {
        child(r, 2 * n, 2 * i, &key);
        child(r, 2 * n, 2 * i + 1, &val);
        rc = chat_dict_put(r->vm, d, &key, &val);
    }

    r->vm->mem_end += (size_t) n * 2 * sizeof(chat_val_t);

    memset(v, 0, sizeof(*v));
    v->type = CV_DICT;
    v->u.dict = rc == CHAT_OK ? d : NULL;
    return rc;
}


static int
read_word(reader_t *r, chat_val_t *v)
{
    size_t                i, n;
    static const char    *words[] = { "null", "false", "true" };

    memset(v, 0, sizeof(*v));

    for (i = 0; i < 3; i++) {
        n = strlen(words[i]);

        if ((size_t) (r->end - r->p) >= n && memcmp(r->p, words[i], n) == 0) {
            r->p += n;
            v->type = i == 0 ? CV_NONE : CV_BOOL;
            v->u.i = i == 2;
            return CHAT_OK;
        }
    }

    return bad(r, "a value is expected");
}


static bool
is_digit(const reader_t *r, const char *p)
{
    return p < r->end && *p >= '0' && *p <= '9';
}


/* The end of the number at r->p, or NULL; *real: a fraction or exponent. */
static const char *
number_end(const reader_t *r, bool *real)
{
    const char  *p, *digits;

    digits = r->p + (*r->p == '-');
    *real = false;

    for (p = digits; is_digit(r, p); p++) {
        /* void */
    }

    if (p == digits || (*digits == '0' && p - digits > 1)) {
        return NULL;
    }

    if (p < r->end && *p == '.') {
        *real = true;
        for (p++, digits = p; is_digit(r, p); p++) {
            /* void */
        }

        if (p == digits) {
            return NULL;
        }
    }

    if (p < r->end && (*p == 'e' || *p == 'E')) {
        *real = true;
        p += 1 + (p + 1 < r->end && (p[1] == '-' || p[1] == '+'));

        for (digits = p; is_digit(r, p); p++) {
            /* void */
        }

        if (p == digits) {
            return NULL;
        }
    }

    return p;
}


static int
read_number(reader_t *r, chat_val_t *v)
{
    int          d;
    char         text[NUMBER_BYTES_MAX + 1], *end;
    bool         real, negative, big;
    size_t       n;
    const char  *p, *digits;

    p = number_end(r, &real);

    if (p == NULL) {
        return bad(r, "a number in a wrong form");
    }

    n = (size_t) (p - r->p);

    if (n > NUMBER_BYTES_MAX) {
        return bad(r, "a number of more than 512 bytes");
    }

    if (real) {
        memcpy(text, r->p, n);
        text[n] = '\0';
        *v = chat_v_float(strtod(text, &end));
        r->p = p;
        return CHAT_OK;
    }

    *v = chat_v_int(0);
    negative = *r->p == '-';

    for (big = false, digits = r->p + negative; digits < p; digits++) {
        d = negative ? '0' - *digits : *digits - '0';
        big |= __builtin_mul_overflow(v->u.i, 10, &v->u.i)
               || __builtin_add_overflow(v->u.i, d, &v->u.i);
    }

    if (big) {
        *v = chat_v_str(r->p, (uint32_t) n);
        v->type = CV_BIGINT;
    }

    r->p = p;
    return CHAT_OK;
}


static int
hex4(reader_t *r, const char *p, uint32_t *cp)
{
    int   i;
    char  ch;

    *cp = 0;

    if (r->end - p < 4) {
        return -1;
    }

    for (i = 0; i < 4; i++) {
        ch = p[i];

        if (ch >= '0' && ch <= '9') {
            *cp = *cp << 4 | (uint32_t) (ch - '0');
        } else if ((ch | 32) >= 'a' && (ch | 32) <= 'f') {
            *cp = *cp << 4 | (uint32_t) ((ch | 32) - 'a' + 10);
        } else {
            return -1;
        }
    }

    return 0;
}


/* An escape at *p: its bytes to `to`; returns their number or 0. */
static uint32_t
read_escape(reader_t *r, const char **at, char *to)
{
    uint32_t            cp, low;
    const char         *hit, *p;
    static const char   from[] = "\"\\/bfnrt";
    static const char   what[] = "\"\\/\b\f\n\r\t";

    p = *at + 1;

    if (p == r->end) {
        return 0;
    }

    hit = *p != '\0' ? strchr(from, *p) : NULL;

    if (hit != NULL) {
        *to = what[hit - from];
        *at = p + 1;
        return 1;
    }

    if (*p != 'u' || hex4(r, p + 1, &cp) != 0) {
        return 0;
    }

    p += 5;

    if (cp >= 0xd800 && cp <= 0xdfff) {
        if (cp >= 0xdc00 || r->end - p < 6 || p[0] != '\\' || p[1] != 'u'
            || hex4(r, p + 2, &low) != 0 || low < 0xdc00 || low > 0xdfff)
        {
            return 0;
        }

        cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
        p += 6;
    }

    *at = p;
    return chat_utf8_put(to, cp);
}


static int
read_string(reader_t *r, chat_val_t *v)
{
    char        *to, *copy;
    uint32_t     n;
    const char  *p, *close;

    for (p = r->p + 1; p < r->end && *p != '"' && *p != '\\'; p++) {
        if ((unsigned char) *p < 32) {
            return bad(r, "a control character in a string");
        }
    }

    if (p < r->end && *p == '"') {
        *v = chat_v_str(r->p + 1, (uint32_t) (p - r->p - 1));
        v->taint = CT_INPUT;
        r->p = p + 1;
        return CHAT_OK;
    }

    /* With escapes: never longer than in the text. */

    for (close = p; close < r->end && *close != '"'; close++) {
        close += *close == '\\';
    }

    if (close >= r->end) {
        return bad(r, "a string has no end");
    }

    copy = chat_alloc_bytes(r->vm, (size_t) (close - r->p));
    if (copy == NULL) {
        return r->vm->err->code;
    }

    memcpy(copy, r->p + 1, (size_t) (p - r->p - 1));
    to = copy + (p - r->p - 1);

    while (p < close) {
        if ((unsigned char) *p < 32) {
            return bad(r, "a control character in a string");
        }

        if (*p != '\\') {
            *to++ = *p++;
            continue;
        }

        n = read_escape(r, &p, to);
        if (n == 0) {
            return bad(r, "a bad escape in a string");
        }

        to += n;
    }

    *v = chat_v_str(copy, (uint32_t) (to - copy));
    v->taint = CT_INPUT;
    r->p = close + 1;
    return CHAT_OK;
}
