/*
 * The bounded writer: bytes, JSON strings and numbers into chained buffers.
 * One pass; nobody computes a length first.
 */

#include "ngx_module/ngx_http_infer_api.h"


#define NGX_HTTP_INFER_PRINT_MAX  512


/* 0: as it is; 'u': \u00XX; else the letter after a backslash. */
static const u_char  ngx_http_infer_escape[256] = {
    'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'b', 't', 'n', 'u', 'f', 'r', 'u',
    'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u',
    'u', 'u', ['"'] = '"', ['\\'] = '\\'
};


void
ngx_http_infer_out_init(ngx_http_infer_out_t *out, ngx_pool_t *pool,
    size_t size, size_t size_max)
{
    ngx_memzero(out, sizeof(ngx_http_infer_out_t));
    out->pool = pool;
    out->last = &out->head;
    out->size = size;
    out->size_max = size_max;
}


/* Opens a fresh buffer at the end of the chain. */
static ngx_buf_t *
ngx_http_infer_out_buf(ngx_http_infer_out_t *out)
{
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    cl = ngx_chain_get_free_buf(out->pool, &out->free);
    if (cl == NULL) {
        out->failed = 1;
        return NULL;
    }

    b = cl->buf;

    if (b->start == NULL) {
        b->start = ngx_pnalloc(out->pool, out->size);
        if (b->start == NULL) {
            out->failed = 1;
            return NULL;
        }

        b->end = b->start + out->size;
        b->tag = (ngx_buf_tag_t) &ngx_http_infer_module;
        out->size = ngx_min(out->size * 2, out->size_max);
    }

    b->pos = b->start;
    b->last = b->start;
    b->temporary = 1;
    b->flush = 0;
    b->last_buf = 0;
    b->last_in_chain = 0;

    *out->last = cl;
    out->last = &cl->next;
    out->buf = b;

    return b;
}


void
ngx_http_infer_out_data(ngx_http_infer_out_t *out, const void *data,
    size_t len)
{
    size_t         n;
    ngx_buf_t     *b;
    const u_char  *p;

    p = data;
    b = out->buf;

    for ( ;; ) {
        if (b != NULL) {
            n = ngx_min(len, (size_t) (b->end - b->last));
            b->last = ngx_cpymem(b->last, p, n);
            p += n;
            len -= n;
        }

        if (len == 0) {
            return;
        }

        b = ngx_http_infer_out_buf(out);
        if (b == NULL) {
            return;
        }
    }
}


static void
ngx_http_infer_out_escaped(ngx_http_infer_out_t *out, u_char ch)
{
    u_char              s[6] = { '\\', 'u', '0', '0', 0, 0 };
    static const char   hex[] = "0123456789abcdef";

    if (ngx_http_infer_escape[ch] != 'u') {
        s[1] = ngx_http_infer_escape[ch];
        ngx_http_infer_out_data(out, s, 2);
        return;
    }

    s[4] = (u_char) hex[ch >> 4];
    s[5] = (u_char) hex[ch & 15];
    ngx_http_infer_out_data(out, s, 6);
}


void
ngx_http_infer_out_json(ngx_http_infer_out_t *out, const u_char *data,
    size_t len)
{
    const u_char  *run, *last;

    last = data + len;

    for (run = data; data < last; data++) {
        if (ngx_http_infer_escape[*data] == 0) {
            continue;
        }

        ngx_http_infer_out_data(out, run, (size_t) (data - run));
        ngx_http_infer_out_escaped(out, *data);
        run = data + 1;
    }

    ngx_http_infer_out_data(out, run, (size_t) (data - run));
}


/* Bytes of the UTF-8 character at p, or 0 when it is none. */
static size_t
ngx_http_infer_utf8(const u_char *p, const u_char *last)
{
    size_t    n, i;
    uint32_t  min, ch;

    if (*p < 0x80) {
        return 1;
    }

    if (*p >= 0xc2 && *p < 0xe0) {
        n = 2;
        min = 0x80;
        ch = *p & 0x1f;

    } else if (*p >= 0xe0 && *p < 0xf0) {
        n = 3;
        min = 0x800;
        ch = *p & 0x0f;

    } else if (*p >= 0xf0 && *p < 0xf5) {
        n = 4;
        min = 0x10000;
        ch = *p & 0x07;

    } else {
        return 0;
    }

    if ((size_t) (last - p) < n) {
        return 0;
    }

    for (i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }

        ch = ch << 6 | (p[i] & 0x3f);
    }

    return ch < min || ch > 0x10ffff || (ch >= 0xd800 && ch < 0xe000) ? 0 : n;
}


void
ngx_http_infer_out_text(ngx_http_infer_out_t *out, const u_char *data,
    size_t len)
{
    size_t         n;
    const u_char  *last;

    last = data + len;

    while (data < last) {
        n = ngx_http_infer_utf8(data, last);

        if (n == 0) {
            ngx_http_infer_out(out, "\xef\xbf\xbd");
            data++;
            continue;
        }

        ngx_http_infer_out_json(out, data, n);
        data += n;
    }
}


/* %41 and plus signs in place; what is no escape stays. */
static size_t
ngx_http_infer_unescape(u_char *p, size_t len)
{
    size_t     i, n;
    ngx_int_t  ch;

    for (i = 0, n = 0; i < len; i++, n++) {
        ch = p[i] == '%' && len - i > 2 ? ngx_hextoi(p + i + 1, 2)
                                        : NGX_ERROR;

        if (ch != NGX_ERROR) {
            p[n] = (u_char) ch;
            i += 2;

        } else {
            p[n] = p[i] == '+' ? ' ' : p[i];
        }
    }

    return n;
}


ngx_int_t
ngx_http_infer_text(ngx_pool_t *pool, ngx_str_t *text, ngx_uint_t unescape)
{
    u_char  *p, *to, *last;
    size_t   n;

    /* each broken byte becomes three */
    p = ngx_pnalloc(pool, text->len * 4 + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    to = p + text->len;
    ngx_memcpy(p, text->data, text->len);
    last = p + (unescape ? ngx_http_infer_unescape(p, text->len)
                         : text->len);
    text->data = to;

    while (p < last) {
        n = ngx_http_infer_utf8(p, last);
        to = n != 0 ? ngx_cpymem(to, p, n)
                    : ngx_cpymem(to, "\xef\xbf\xbd", 3);
        p += n != 0 ? n : 1;
    }

    text->len = (size_t) (to - text->data);

    return NGX_OK;
}


void
ngx_http_infer_out_token(ngx_http_infer_out_t *out, const u_char *data,
    size_t len)
{
    size_t  n, at;

    for (at = 0; at < len; at += n) {
        n = ngx_http_infer_utf8(data + at, data + len);

        if (n == 0) {
            break;
        }
    }

    if (at == len) {
        ngx_http_infer_out_json(out, data, len);
        return;
    }

    ngx_http_infer_out(out, "bytes:");

    for (at = 0; at < len; at++) {
        ngx_http_infer_out_print(out, "\\\\x%02xi", (ngx_int_t) data[at]);
    }
}


void
ngx_http_infer_out_number(ngx_http_infer_out_t *out, uint64_t n)
{
    u_char  buf[20], *p;

    p = buf + sizeof(buf);

    do {
        *--p = (u_char) ('0' + n % 10);
        n /= 10;
    } while (n != 0);

    ngx_http_infer_out_data(out, p, (size_t) (buf + sizeof(buf) - p));
}


void
ngx_http_infer_out_real(ngx_http_infer_out_t *out, double n)
{
    ngx_http_infer_out_print(out, "%.6f", n);
}


void
ngx_http_infer_out_print(ngx_http_infer_out_t *out, const char *fmt, ...)
{
    u_char    buf[NGX_HTTP_INFER_PRINT_MAX], *p;
    va_list   args;

    va_start(args, fmt);
    p = ngx_vslprintf(buf, buf + sizeof(buf), fmt, args);
    va_end(args);

    ngx_http_infer_out_data(out, buf, (size_t) (p - buf));
}


void
ngx_http_infer_out_splice(ngx_http_infer_out_t *out,
    ngx_http_infer_out_t *from)
{
    out->failed |= from->failed;

    if (from->head == NULL) {
        return;
    }

    *out->last = from->head;
    out->last = from->last;
    out->buf = from->buf;

    from->head = NULL;
    from->last = &from->head;
    from->buf = NULL;
}


void
ngx_http_infer_out_copy(ngx_http_infer_out_t *out, ngx_http_infer_out_t *from)
{
    ngx_chain_t  *cl;

    out->failed |= from->failed;

    for (cl = from->head; cl != NULL; cl = cl->next) {
        ngx_http_infer_out_data(out, cl->buf->pos,
                                (size_t) (cl->buf->last - cl->buf->pos));
    }

    if (from->head != NULL) {
        *from->last = from->free;
        from->free = from->head;
        from->head = NULL;
        from->last = &from->head;
        from->buf = NULL;
    }
}


ngx_chain_t *
ngx_http_infer_out_take(ngx_http_infer_out_t *out)
{
    ngx_chain_t  *head;

    head = out->head;
    out->head = NULL;
    out->last = &out->head;
    out->buf = NULL;

    return head;
}


void
ngx_http_infer_out_update(ngx_http_infer_out_t *out, ngx_chain_t *sent)
{
    ngx_chain_update_chains(out->pool, &out->free, &out->busy, &sent,
                            (ngx_buf_tag_t) &ngx_http_infer_module);
}


off_t
ngx_http_infer_out_bytes(ngx_chain_t *chain)
{
    off_t  n;

    for (n = 0; chain != NULL; chain = chain->next) {
        n += chain->buf->last - chain->buf->pos;
    }

    return n;
}
