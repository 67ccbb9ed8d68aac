/*
 * W3C trace context: the trace that a client has begun goes on with a span of
 * ours; without one, or with one that breaks the format, a trace begins here.
 * The ids are variables, for logs and for what is passed on.
 */

#include "ngx_module/ngx_http_infer_api.h"

#include <ngx_sha1.h>


#define NGX_HTTP_INFER_TRACE_LEN     55         /* 00-trace-parent-flags */
#define NGX_HTTP_INFER_TRACESTATE    512        /* bytes that are passed on */


typedef struct {
    u_char       trace[32];
    u_char       span[16];                      /* ours */
    u_char       flags[2];
    ngx_str_t    parent;                        /* of the client; or empty */
} ngx_http_infer_trace_t;


/* The one header of this name; NULL: there is none, or several. */
static ngx_str_t *
ngx_http_infer_header(ngx_http_request_t *r, const char *name, size_t len)
{
    ngx_str_t        *found;
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    found = NULL;

    for (part = &r->headers_in.headers.part; part != NULL; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (h[i].key.len != len
                || ngx_strncasecmp(h[i].key.data, (u_char *) name, len) != 0)
            {
                continue;
            }

            if (found != NULL) {
                return NULL;
            }

            found = &h[i].value;
        }
    }

    return found;
}


/* Lower-case hexadecimal digits; 0 when others are among them, or when they
 * are all zero and must not be. */
static ngx_uint_t
ngx_http_infer_trace_hex(const u_char *p, size_t len, ngx_uint_t zero)
{
    size_t      i;
    ngx_uint_t  some;

    for (i = 0, some = zero; i < len; i++) {
        if ((p[i] < '0' || p[i] > '9') && (p[i] < 'a' || p[i] > 'f')) {
            return 0;
        }

        some |= p[i] != '0';
    }

    return some;
}


/* version "-" trace-id "-" parent-id "-" flags; later versions may go on after
 * another "-".  Version ff is forbidden. */
static ngx_uint_t
ngx_http_infer_trace_parse(ngx_str_t *s)
{
    u_char  *p;

    p = s->data;

    if (s->len < NGX_HTTP_INFER_TRACE_LEN || p[2] != '-' || p[35] != '-'
        || p[52] != '-' || !ngx_http_infer_trace_hex(p, 2, 1)
        || !ngx_http_infer_trace_hex(p + 3, 32, 0)
        || !ngx_http_infer_trace_hex(p + 36, 16, 0)
        || !ngx_http_infer_trace_hex(p + 53, 2, 1))
    {
        return 0;
    }

    if (p[0] == '0' && p[1] == '0') {
        return s->len == NGX_HTTP_INFER_TRACE_LEN;
    }

    return !(p[0] == 'f' && p[1] == 'f')
           && (s->len == NGX_HTTP_INFER_TRACE_LEN
               || p[NGX_HTTP_INFER_TRACE_LEN] == '-');
}


/* The same for a request whenever it is asked, without a place to keep it. */
static void
ngx_http_infer_trace_ids(ngx_http_request_t *r, u_char digest[20])
{
    uint64_t    seed[6];
    ngx_str_t   name = ngx_string("trace");
    ngx_sha1_t  sha1;

    seed[0] = ngx_http_infer_key(&name);
    seed[1] = (uint64_t) ngx_pid;
    seed[2] = (uint64_t) r->main->connection->number;
    seed[3] = (uint64_t) r->main->connection->requests;
    seed[4] = (uint64_t) r->main->start_sec * 1000 + r->main->start_msec;
    seed[5] = (uint64_t) (uintptr_t) r->main;

    ngx_sha1_init(&sha1);
    ngx_sha1_update(&sha1, seed, sizeof(seed));
    ngx_sha1_final(digest, &sha1);
}


static void
ngx_http_infer_trace(ngx_http_request_t *r, ngx_http_infer_trace_t *trace)
{
    u_char      digest[20];
    ngx_str_t  *s;

    ngx_http_infer_trace_ids(r, digest);
    digest[16] |= 1;                            /* never all zero */
    (void) ngx_hex_dump(trace->span, digest + 12, 8);
    ngx_str_null(&trace->parent);

    s = ngx_http_infer_header(r->main, "traceparent",
                              sizeof("traceparent") - 1);

    if (s != NULL && ngx_http_infer_trace_parse(s)) {
        ngx_memcpy(trace->trace, s->data + 3, 32);
        ngx_memcpy(trace->flags, s->data + 53, 2);
        trace->parent.data = s->data + 36;
        trace->parent.len = 16;
        return;
    }

    /* nobody has asked for it to be sampled */
    digest[0] |= 1;
    (void) ngx_hex_dump(trace->trace, digest, 12);
    (void) ngx_hex_dump(trace->trace + 24, digest + 4, 4);
    trace->flags[0] = '0';
    trace->flags[1] = '0';
}


static ngx_int_t
ngx_http_infer_trace_state(ngx_http_request_t *r, ngx_str_t *value,
    ngx_http_infer_trace_t *trace)
{
    size_t      i;
    ngx_str_t  *s;

    s = ngx_http_infer_header(r->main, "tracestate",
                              sizeof("tracestate") - 1);

    if (trace->parent.len == 0 || s == NULL
        || s->len > NGX_HTTP_INFER_TRACESTATE)
    {
        return NGX_DECLINED;
    }

    for (i = 0; i < s->len; i++) {
        if (s->data[i] < ' ' || s->data[i] > '~') {
            return NGX_DECLINED;
        }
    }

    *value = *s;

    return NGX_OK;
}


ngx_int_t
ngx_http_infer_trace_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char                   text[NGX_HTTP_INFER_TRACE_LEN + 1];
    ngx_str_t                value;
    ngx_http_infer_trace_t   trace;

    ngx_http_infer_trace(r, &trace);
    value.data = text;

    switch (data) {

    case NGX_HTTP_INFER_TRACE_ID:
        value.len = (size_t) (ngx_cpymem(text, trace.trace, 32) - text);
        break;

    case NGX_HTTP_INFER_TRACE_SPAN:
        value.len = (size_t) (ngx_cpymem(text, trace.span, 16) - text);
        break;

    case NGX_HTTP_INFER_TRACE_PARENT:
        value = trace.parent;
        break;

    case NGX_HTTP_INFER_TRACE_STATE:
        if (ngx_http_infer_trace_state(r, &value, &trace) != NGX_OK) {
            value.len = 0;
        }

        break;

    default:                            /* NGX_HTTP_INFER_TRACE_ALL */
        value.len = (size_t) (ngx_sprintf(text, "00-%*s-%*s-%*s",
                                          (size_t) 32, trace.trace,
                                          (size_t) 16, trace.span,
                                          (size_t) 2, trace.flags) - text);
    }

    v->data = ngx_pnalloc(r->pool, ngx_max(value.len, 1));
    if (v->data == NULL) {
        return NGX_ERROR;
    }

    if (value.len != 0) {
        ngx_memcpy(v->data, value.data, value.len);
    }

    v->len = (unsigned) value.len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = value.len == 0;

    return NGX_OK;
}
