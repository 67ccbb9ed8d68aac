/*
 * The JSON door and the readers behind it; the contract is in the header.  A
 * scanner walks over the text with one bit per open container, so that no
 * nesting costs stack, and notes the members of the outermost object as it
 * passes them.
 */

#include <stdint.h>
#include <string.h>

#include "ngx_module/ngx_http_infer_json.h"


typedef struct {
    const unsigned char         *start;
    const unsigned char         *p;
    const unsigned char         *end;
    uint64_t                     objects;    /* bit per depth: an object? */
    unsigned                     depth;
    unsigned                     nodes;
    ngx_http_infer_json_doc_t   *doc;        /* NULL: note nothing */
    ngx_http_infer_json_err_t   *err;
} scan_t;

static int scan(scan_t *s, ngx_http_infer_json_value_t *value);
static int scan_after(scan_t *s, ngx_http_infer_json_type_e type);
static int scan_key(scan_t *s);
static int scan_scalar(scan_t *s, ngx_http_infer_json_type_e *type);
static int scan_string(scan_t *s);
static int scan_escape(scan_t *s);
static int scan_utf8(scan_t *s);
static int scan_number(scan_t *s);
static int note_key(scan_t *s, const unsigned char *name, size_t len);


static int
refuse(scan_t *s, int code, const char *reason)
{
    s->err->code = code;
    s->err->offset = (size_t) (s->p - s->start);
    s->err->reason = reason;
    return code;
}


static void
skip_space(scan_t *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r'
                             || *s->p == '\t'))
    {
        s->p++;
    }
}


int
ngx_http_infer_json_check(const unsigned char *data, size_t len,
    ngx_http_infer_json_doc_t *doc, ngx_http_infer_json_err_t *err)
{
    int     rc;
    scan_t  s;

    memset(&s, 0, sizeof(s));
    memset(err, 0, sizeof(*err));
    s.start = data;
    s.p = data;
    s.end = data + len;
    s.doc = doc;
    s.err = err;
    doc->nmembers = 0;

    rc = scan(&s, &doc->value);
    if (rc != NGX_HTTP_INFER_JSON_OK) {
        return rc;
    }

    skip_space(&s);

    return s.p == s.end ? NGX_HTTP_INFER_JSON_OK
           : refuse(&s, NGX_HTTP_INFER_JSON_ESYNTAX, "more after the value");
}


/* Moves over one value of any depth. */
static int
scan(scan_t *s, ngx_http_infer_json_value_t *value)
{
    int                          rc;
    unsigned char                ch;
    ngx_http_infer_json_type_e   type;

    skip_space(s);
    value->start = s->p;

    do {
        skip_space(s);

        if (s->p == s->end) {
            return refuse(s, NGX_HTTP_INFER_JSON_ESYNTAX, "a value is missing");
        }

        if (++s->nodes > NGX_HTTP_INFER_JSON_NODES_MAX) {
            return refuse(s, NGX_HTTP_INFER_JSON_ENODES, "too many values");
        }

        ch = *s->p;

        if (ch == '{' || ch == '[') {
            type = ch == '{' ? NGX_HTTP_INFER_JSON_OBJECT
                             : NGX_HTTP_INFER_JSON_ARRAY;

            if (s->depth == NGX_HTTP_INFER_JSON_DEPTH_MAX) {
                return refuse(s, NGX_HTTP_INFER_JSON_EDEPTH,
                            "nested too deeply");
            }

            s->objects = s->objects << 1 | (ch == '{');
            s->depth++;
            s->p++;
            skip_space(s);

            if (s->p < s->end && *s->p == (ch == '{' ? '}' : ']')) {
                rc = NGX_HTTP_INFER_JSON_OK;     /* empty: closed below */
            } else {
                rc = ch == '{' ? scan_key(s) : NGX_HTTP_INFER_JSON_OK;

                if (s->depth == 1) {
                    value->type = type;
                }

                continue;
            }

            s->p++;
            s->depth--;
            s->objects >>= 1;

        } else {
            rc = scan_scalar(s, &type);
        }

        if (s->depth == 0) {
            value->type = type;
        }

        if (rc == NGX_HTTP_INFER_JSON_OK) {
            rc = scan_after(s, type);
        }

    } while (rc == NGX_HTTP_INFER_JSON_OK && s->depth > 0);

    value->len = (size_t) (s->p - value->start);
    return rc;
}


/* A member's value is complete: note it. */
static void
note_value(scan_t *s, ngx_http_infer_json_type_e type)
{
    ngx_http_infer_json_member_t  *m;

    if (s->doc == NULL || s->depth != 1 || !(s->objects & 1)) {
        return;
    }

    m = &s->doc->members[s->doc->nmembers - 1];

    m->value.type = type;
    m->value.len = (size_t) (s->p - m->value.start);
}


/* After a value: closes what ends here and moves to the next value's start. */
static int
scan_after(scan_t *s, ngx_http_infer_json_type_e type)
{
    unsigned char  ch;

    while (s->depth > 0) {
        note_value(s, type);
        skip_space(s);

        ch = s->p < s->end ? *s->p : '\0';

        if (ch == ',') {
            s->p++;
            return s->objects & 1 ? scan_key(s) : NGX_HTTP_INFER_JSON_OK;
        }

        if (ch != (s->objects & 1 ? '}' : ']')) {
            return refuse(s, NGX_HTTP_INFER_JSON_ESYNTAX,
                        s->objects & 1 ? "\",\" or \"}\" is expected"
                                       : "\",\" or \"]\" is expected");
        }

        type = s->objects & 1 ? NGX_HTTP_INFER_JSON_OBJECT
                              : NGX_HTTP_INFER_JSON_ARRAY;
        s->p++;
        s->depth--;
        s->objects >>= 1;
    }

    return NGX_HTTP_INFER_JSON_OK;
}


/* A member's name, its colon, and the place of its value. */
static int
scan_key(scan_t *s)
{
    int                   rc;
    const unsigned char  *name;

    skip_space(s);

    if (s->p == s->end || *s->p != '"') {
        return refuse(s, NGX_HTTP_INFER_JSON_ESYNTAX,
                    "a member's name is expected");
    }

    if (++s->nodes > NGX_HTTP_INFER_JSON_NODES_MAX) {
        return refuse(s, NGX_HTTP_INFER_JSON_ENODES, "too many values");
    }

    name = s->p + 1;
    rc = scan_string(s);

    if (rc == NGX_HTTP_INFER_JSON_OK && s->doc != NULL && s->depth == 1) {
        rc = note_key(s, name, (size_t) (s->p - name) - 1);
    }

    if (rc != NGX_HTTP_INFER_JSON_OK) {
        return rc;
    }

    skip_space(s);

    if (s->p == s->end || *s->p != ':') {
        return refuse(s, NGX_HTTP_INFER_JSON_ESYNTAX, "\":\" is expected");
    }

    s->p++;

    if (s->doc != NULL && s->depth == 1) {
        skip_space(s);
        s->doc->members[s->doc->nmembers - 1].value.start = s->p;
    }

    return NGX_HTTP_INFER_JSON_OK;
}


/* Two members of one name: whoever reads next might take the other one. */
static int
note_key(scan_t *s, const unsigned char *name, size_t len)
{
    size_t                         i;
    unsigned                       hash;
    ngx_http_infer_json_member_t  *m;

    if (len > NGX_HTTP_INFER_JSON_NAME_MAX) {
        return refuse(s, NGX_HTTP_INFER_JSON_EMEMBERS,
                    "a member's name is too long");
    }

    if (s->doc->nmembers == NGX_HTTP_INFER_JSON_MEMBERS_MAX) {
        return refuse(s, NGX_HTTP_INFER_JSON_EMEMBERS, "too many members");
    }

    hash = ngx_http_infer_json_hash(name, len);

    for (i = 0; i < s->doc->nmembers; i++) {
        m = &s->doc->members[i];

        if (m->hash == hash
            && ngx_http_infer_json_same(m->name, m->name_len, name, len, 0)) {
            return refuse(s, NGX_HTTP_INFER_JSON_EDOUBLE,
                        "a member's name appears twice");
        }
    }

    m = &s->doc->members[s->doc->nmembers++];
    memset(m, 0, sizeof(*m));
    m->name = name;
    m->name_len = len;
    m->hash = hash;

    return NGX_HTTP_INFER_JSON_OK;
}


static int
scan_scalar(scan_t *s, ngx_http_infer_json_type_e *type)
{
    size_t       n;
    const char  *word;

    switch (*s->p) {

    case '"':
        *type = NGX_HTTP_INFER_JSON_STRING;
        return scan_string(s);

    case 't':
        *type = NGX_HTTP_INFER_JSON_TRUE;
        word = "true";
        break;

    case 'f':
        *type = NGX_HTTP_INFER_JSON_FALSE;
        word = "false";
        break;

    case 'n':
        *type = NGX_HTTP_INFER_JSON_NULL;
        word = "null";
        break;

    default:
        *type = NGX_HTTP_INFER_JSON_NUMBER;
        return scan_number(s);
    }

    n = strlen(word);

    if ((size_t) (s->end - s->p) < n || memcmp(s->p, word, n) != 0) {
        return refuse(s, NGX_HTTP_INFER_JSON_ESYNTAX, "a value is expected");
    }

    s->p += n;
    return NGX_HTTP_INFER_JSON_OK;
}


/* How many of the next eight bytes are plain up to the first that is not:
 * ASCII, no control, quote or backslash.  A borrow spoils only bytes behind the
 * first hit, which stands lowest. */
static size_t
plain8(const unsigned char *p)
{
    uint64_t        v, quote, slash;
    const uint64_t  ones = 0x0101010101010101u, high = ones * 0x80;

    memcpy(&v, p, sizeof(v));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    quote = v ^ ones * '"';
    slash = v ^ ones * '\\';
    v = (v | (v - ones * 0x20) | (quote - ones) | (slash - ones)) & high;

    return v == 0 ? 8 : (size_t) __builtin_ctzll(v) / 8;
}


static int
scan_string(scan_t *s)
{
    int     rc;
    size_t  n;

    s->p++;

    for ( ;; ) {
        /* After an escape or a character beyond ASCII another one is likely. */

        if (s->p < s->end && *s->p != '\\' && *s->p < 0x80) {
            for (n = 8; n == 8 && s->end - s->p >= 8; s->p += n) {
                n = plain8(s->p);
            }
        }

        if (s->p == s->end) {
            return refuse(s, NGX_HTTP_INFER_JSON_ESYNTAX,
                          "a string has no end");
        }

        if (*s->p == '"') {
            s->p++;
            return NGX_HTTP_INFER_JSON_OK;
        }

        if (*s->p == '\\') {
            rc = scan_escape(s);
        } else if (*s->p >= 0x80) {
            rc = scan_utf8(s);
        } else if (*s->p < 0x20) {
            rc = refuse(s, NGX_HTTP_INFER_JSON_ESYNTAX,
                      "a control character in a string");
        } else {
            s->p++;
            continue;
        }

        if (rc != NGX_HTTP_INFER_JSON_OK) {
            return rc;
        }
    }
}


static int
scan_escape(scan_t *s)
{
    unsigned              v, low;
    const unsigned char  *p;

    p = s->p + 1;

    switch (p < s->end ? *p : '\0') {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        s->p += 2;
        return NGX_HTTP_INFER_JSON_OK;

    case 'u':
        break;

    default:
        return refuse(s, NGX_HTTP_INFER_JSON_ESYNTAX, "an unknown escape");
    }

    if (ngx_http_infer_json_hex4(p + 1, s->end, &v) != 0) {
        return refuse(s, NGX_HTTP_INFER_JSON_ESYNTAX, "a bad \\u escape");
    }

    if (v < 0xd800 || v > 0xdfff) {
        s->p += 6;
        return NGX_HTTP_INFER_JSON_OK;
    }

    p += 5;

    if (v > 0xdbff || s->end - p < 6 || p[0] != '\\' || p[1] != 'u'
        || ngx_http_infer_json_hex4(p + 2, s->end, &low) != 0
        || low < 0xdc00 || low > 0xdfff)
    {
        return refuse(s, NGX_HTTP_INFER_JSON_EUTF8, "half of a surrogate pair");
    }

    s->p += 12;
    return NGX_HTTP_INFER_JSON_OK;
}


/* One character beyond ASCII: shortest form, no surrogate, up to U+10FFFF. */
static int
scan_utf8(scan_t *s)
{
    size_t                n;
    const unsigned char  *p;

    p = s->p;
    n = p[0] >= 0xc2 && p[0] <= 0xdf ? 2 : (p[0] & 0xf0) == 0xe0 ? 3
        : p[0] >= 0xf0 && p[0] <= 0xf4 ? 4 : 0;

    if (n == 0 || (size_t) (s->end - p) < n || (p[1] & 0xc0) != 0x80
        || (n > 2 && (p[2] & 0xc0) != 0x80) || (n > 3 && (p[3] & 0xc0) != 0x80)
        || (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f)
        || (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
    {
        return refuse(s, NGX_HTTP_INFER_JSON_EUTF8, "invalid UTF-8");
    }

    s->p += n;
    return NGX_HTTP_INFER_JSON_OK;
}


static int
digits(scan_t *s)
{
    const unsigned char  *from;

    for (from = s->p; s->p < s->end && *s->p >= '0' && *s->p <= '9'; s->p++) {
        /* void */
    }

    return s->p > from;
}


static int
scan_number(scan_t *s)
{
    const unsigned char  *from;

    if (*s->p == '-') {
        s->p++;
    }

    from = s->p;

    if (!digits(s)) {
        return refuse(s, NGX_HTTP_INFER_JSON_ESYNTAX, "a value is expected");
    }

    if (*from == '0' && s->p - from > 1) {
        return refuse(s, NGX_HTTP_INFER_JSON_ESYNTAX, "a number begins with 0");
    }

    if (s->p < s->end && *s->p == '.') {
        s->p++;

        if (!digits(s)) {
            return refuse(s, NGX_HTTP_INFER_JSON_ESYNTAX,
                        "digits are expected after \".\"");
        }
    }

    if (s->p < s->end && (*s->p == 'e' || *s->p == 'E')) {
        s->p++;

        if (s->p < s->end && (*s->p == '-' || *s->p == '+')) {
            s->p++;
        }

        if (!digits(s)) {
            return refuse(s, NGX_HTTP_INFER_JSON_ESYNTAX,
                        "digits are expected in an exponent");
        }
    }

    return NGX_HTTP_INFER_JSON_OK;
}


int
ngx_http_infer_json_next(ngx_http_infer_json_iter_t *iter,
    ngx_http_infer_json_value_t *element)
{
    int                        rc;
    scan_t                     s;
    ngx_http_infer_json_err_t  err;

    memset(&s, 0, sizeof(s));
    s.start = iter->p;
    s.p = iter->p;
    s.end = iter->end;
    s.err = &err;

    skip_space(&s);

    if (s.p == s.end) {
        return NGX_HTTP_INFER_JSON_END;
    }

    if (*s.p == ',') {
        s.p++;
    }

    rc = scan(&s, element);
    iter->p = s.p;
    return rc;
}
