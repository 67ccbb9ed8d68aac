/*
 * Readers of what the JSON door has let in: names, strings, numbers.  The
 * contract is in the header.  They stay inside the span they are given,
 * whatever it holds.
 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ngx_module/ngx_http_infer_json.h"


int
ngx_http_infer_json_hex4(const unsigned char *p, const unsigned char *end,
    unsigned *v)
{
    unsigned  i, ch;

    *v = 0;

    if (end - p < 4) {
        return -1;
    }

    for (i = 0; i < 4; i++) {
        ch = p[i];

        if (ch - '0' <= 9) {
            *v = *v << 4 | (ch - '0');
        } else if ((ch | 32) - 'a' <= 5) {
            *v = *v << 4 | ((ch | 32) - 'a' + 10);
        } else {
            return -1;
        }
    }

    return 0;
}


/*
 * The bytes that the next character of a checked string stands for, up to 4
 * into `to`; moves *p past it.
 */
static size_t
unescape(const unsigned char **p, const unsigned char *end, unsigned char *to)
{
    unsigned              v, low;
    const char           *hit;
    static const char     from[] = "\"\\/bfnrt";
    static const char     what[] = "\"\\/\b\f\n\r\t";

    if (**p != '\\' || end - *p < 2) {
        *to = *(*p)++;
        return 1;
    }

    hit = strchr(from, (*p)[1]);

    if ((*p)[1] != '\0' && hit != NULL) {
        *to = (unsigned char) what[hit - from];
        *p += 2;
        return 1;
    }

    if (ngx_http_infer_json_hex4(*p + 2, end, &v) != 0) {
        *to = *(*p)++;
        return 1;
    }

    *p += 6;

    if (v >= 0xd800 && v <= 0xdbff && end - *p >= 6
        && ngx_http_infer_json_hex4(*p + 2, end, &low) == 0)
    {
        v = 0x10000 + ((v - 0xd800) << 10) + ((low - 0xdc00) & 0x3ff);
        *p += 6;
    }

    if (v < 0x80) {
        to[0] = (unsigned char) v;
        return 1;
    }

    if (v < 0x800) {
        to[0] = (unsigned char) (0xc0 | v >> 6);
        to[1] = (unsigned char) (0x80 | (v & 63));
        return 2;
    }

    if (v < 0x10000) {
        to[0] = (unsigned char) (0xe0 | v >> 12);
        to[1] = (unsigned char) (0x80 | (v >> 6 & 63));
        to[2] = (unsigned char) (0x80 | (v & 63));
        return 3;
    }

    to[0] = (unsigned char) (0xf0 | (v >> 18 & 7));
    to[1] = (unsigned char) (0x80 | (v >> 12 & 63));
    to[2] = (unsigned char) (0x80 | (v >> 6 & 63));
    to[3] = (unsigned char) (0x80 | (v & 63));
    return 4;
}


unsigned
ngx_http_infer_json_hash(const unsigned char *name, size_t len)
{
    size_t                i, n;
    uint32_t              h;
    unsigned char         ch[4];
    const unsigned char  *end;

    h = 2166136261u;

    for (end = name + len; name < end; ) {
        n = unescape(&name, end, ch);

        for (i = 0; i < n; i++) {
            h = (h ^ ch[i]) * 16777619u;
        }
    }

    return h;
}


/* Compares what two names stand for; with `plain`, b has no escapes. */
int
ngx_http_infer_json_same(const unsigned char *a, size_t a_len,
    const unsigned char *b, size_t b_len, int plain)
{
    size_t                i, j, n, m;
    unsigned char         x[4], y[4];
    const unsigned char  *a_end, *b_end;

    a_end = a + a_len;
    b_end = b + b_len;
    i = j = n = m = 0;

    for ( ;; ) {
        if (i == n) {
            i = 0;
            n = a < a_end ? unescape(&a, a_end, x) : 0;
        }

        if (j == m) {
            j = 0;

            if (b == b_end) {
                m = 0;
            } else if (plain) {
                y[0] = *b++;
                m = 1;
            } else {
                m = unescape(&b, b_end, y);
            }
        }

        if (n == 0 || m == 0) {
            return n == m;
        }

        if (x[i++] != y[j++]) {
            return 0;
        }
    }
}


int
ngx_http_infer_json_name_is(const ngx_http_infer_json_member_t *m,
    const char *name)
{
    return ngx_http_infer_json_same(m->name, m->name_len,
                                    (const unsigned char *) name,
                                    strlen(name), 1);
}


const ngx_http_infer_json_value_t *
ngx_http_infer_json_member(const ngx_http_infer_json_doc_t *doc,
    const char *name)
{
    size_t  i;

    for (i = 0; i < doc->nmembers; i++) {
        if (ngx_http_infer_json_name_is(&doc->members[i], name)) {
            return &doc->members[i].value;
        }
    }

    return NULL;
}


static int
copy_text(const unsigned char *p, const unsigned char *end, unsigned char *to,
    size_t cap, size_t *len)
{
    size_t                n, run;
    unsigned char         ch[4];
    const unsigned char  *stop;

    *len = 0;

    while (p < end) {
        stop = memchr(p, '\\', (size_t) (end - p));
        run = (size_t) ((stop != NULL ? stop : end) - p);

        if (run > cap - *len) {
            return NGX_HTTP_INFER_JSON_ESPACE;
        }

        memcpy(to + *len, p, run);
        *len += run;
        p += run;

        if (p == end) {
            break;
        }

        n = unescape(&p, end, ch);

        if (n > cap - *len) {
            return NGX_HTTP_INFER_JSON_ESPACE;
        }

        memcpy(to + *len, ch, n);
        *len += n;
    }

    return NGX_HTTP_INFER_JSON_OK;
}


int
ngx_http_infer_json_string(const ngx_http_infer_json_value_t *value,
    unsigned char *to, size_t cap, size_t *len)
{
    *len = 0;

    if (value->type != NGX_HTTP_INFER_JSON_STRING || value->len < 2) {
        return NGX_HTTP_INFER_JSON_ETYPE;
    }

    return copy_text(value->start + 1, value->start + value->len - 1, to, cap,
                     len);
}


int
ngx_http_infer_json_name(const ngx_http_infer_json_member_t *m,
    unsigned char *to, size_t cap, size_t *len)
{
    return copy_text(m->name, m->name + m->name_len, to, cap, len);
}


int
ngx_http_infer_json_number(const ngx_http_infer_json_value_t *value,
    double *number)
{
    char  text[NGX_HTTP_INFER_JSON_NUMBER_MAX + 1], *end;

    if (value->type != NGX_HTTP_INFER_JSON_NUMBER) {
        return NGX_HTTP_INFER_JSON_ETYPE;
    }

    if (value->len > NGX_HTTP_INFER_JSON_NUMBER_MAX) {
        return NGX_HTTP_INFER_JSON_ERANGE;
    }

    memcpy(text, value->start, value->len);
    text[value->len] = '\0';
    *number = strtod(text, &end);

    return *end == '\0' && isfinite(*number) ? NGX_HTTP_INFER_JSON_OK
                                             : NGX_HTTP_INFER_JSON_ERANGE;
}


int
ngx_http_infer_json_integer(const ngx_http_infer_json_value_t *value,
    long long *number)
{
    int                   rc, negative, d;
    double                real;
    long long             n;
    const unsigned char  *p, *end;

    if (value->type != NGX_HTTP_INFER_JSON_NUMBER) {
        return NGX_HTTP_INFER_JSON_ETYPE;
    }

    p = value->start;
    end = p + value->len;
    negative = *p == '-';

    for (p += negative, n = 0; p < end && *p >= '0' && *p <= '9'; p++) {
        d = negative ? '0' - *p : *p - '0';

        if (__builtin_mul_overflow(n, 10LL, &n)
            || __builtin_add_overflow(n, (long long) d, &n))
        {
            return NGX_HTTP_INFER_JSON_ERANGE;
        }
    }

    if (p == end) {
        *number = n;
        return NGX_HTTP_INFER_JSON_OK;
    }

    rc = ngx_http_infer_json_number(value, &real);
    if (rc != NGX_HTTP_INFER_JSON_OK) {
        return rc;
    }

    /* Without trunc(): nginx may not be linked with the maths library. */

    if (real > 9007199254740992.0 || real < -9007199254740992.0
        || real != (double) (long long) real)
    {
        return NGX_HTTP_INFER_JSON_ERANGE;
    }

    *number = (long long) real;
    return NGX_HTTP_INFER_JSON_OK;
}


int
ngx_http_infer_json_bool(const ngx_http_infer_json_value_t *value, int *yes)
{
    *yes = value->type == NGX_HTTP_INFER_JSON_TRUE;

    return *yes || value->type == NGX_HTTP_INFER_JSON_FALSE
           ? NGX_HTTP_INFER_JSON_OK : NGX_HTTP_INFER_JSON_ETYPE;
}


int
ngx_http_infer_json_object(const ngx_http_infer_json_value_t *value,
    ngx_http_infer_json_doc_t *doc, ngx_http_infer_json_err_t *err)
{
    if (value->type != NGX_HTTP_INFER_JSON_OBJECT) {
        memset(err, 0, sizeof(*err));
        err->code = NGX_HTTP_INFER_JSON_ETYPE;
        err->reason = "not an object";
        return NGX_HTTP_INFER_JSON_ETYPE;
    }

    return ngx_http_infer_json_check(value->start, value->len, doc, err);
}


int
ngx_http_infer_json_array(const ngx_http_infer_json_value_t *value,
    ngx_http_infer_json_iter_t *iter)
{
    if (value->type != NGX_HTTP_INFER_JSON_ARRAY || value->len < 2) {
        return NGX_HTTP_INFER_JSON_ETYPE;
    }

    iter->p = value->start + 1;
    iter->end = value->start + value->len - 1;
    return NGX_HTTP_INFER_JSON_OK;
}
