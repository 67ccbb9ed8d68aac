/*
 * Readers of fields, with the answers that their errors get.
 */

#include "ngx_module/ngx_http_infer_fields.h"


static void ngx_http_infer_skip_space(ngx_http_infer_walk_t *walk);
static void ngx_http_infer_skip_string(ngx_http_infer_walk_t *walk);
static void ngx_http_infer_skip_value(ngx_http_infer_walk_t *walk);


ngx_int_t
ngx_http_infer_bad_type(ngx_http_infer_ctx_t *ctx, const char *param,
    const char *want)
{
    return ngx_http_infer_fail(ctx, NGX_HTTP_BAD_REQUEST, "invalid_type",
                               param, "Invalid type for '%s': expected %s.",
                               param, want);
}


ngx_int_t
ngx_http_infer_read_real(ngx_http_infer_ctx_t *ctx, const char *param,
    const ngx_http_infer_value_t *value, double min, double max, double *n)
{
    int  rc;

    rc = ngx_http_infer_json_number(value, n);

    if (rc == NGX_HTTP_INFER_JSON_ETYPE) {
        return ngx_http_infer_bad_type(ctx, param, "a number");
    }

    if (rc != 0 || *n < min || *n > max) {
        return ngx_http_infer_fail(ctx, NGX_HTTP_BAD_REQUEST, "invalid_value",
                                   param, "Invalid value of '%s': it must be "
                                   "from %.2f to %.2f.", param, min, max);
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_infer_read_integer(ngx_http_infer_ctx_t *ctx, const char *param,
    const ngx_http_infer_value_t *value, int64_t min, int64_t max, int64_t *n)
{
    int        rc;
    long long  number;

    rc = ngx_http_infer_json_integer(value, &number);

    if (rc == NGX_HTTP_INFER_JSON_ETYPE) {
        return ngx_http_infer_bad_type(ctx, param, "an integer");
    }

    if (rc != 0 || number < min || number > max) {
        return ngx_http_infer_fail(ctx, NGX_HTTP_BAD_REQUEST, "invalid_value",
                                   param, "Invalid value of '%s': it must be "
                                   "an integer from %s%uL to %L.", param,
                                   min < 0 ? "-" : "", min < 0
                                   ? 0 - (uint64_t) min : (uint64_t) min,
                                   (int64_t) max);
    }

    *n = (int64_t) number;

    return NGX_OK;
}


ngx_int_t
ngx_http_infer_read_bool(ngx_http_infer_ctx_t *ctx, const char *param,
    const ngx_http_infer_value_t *value, ngx_uint_t *b)
{
    int  yes;

    if (ngx_http_infer_json_bool(value, &yes) != 0) {
        return ngx_http_infer_bad_type(ctx, param, "a boolean");
    }

    *b = yes != 0;

    return NGX_OK;
}


ngx_int_t
ngx_http_infer_read_string(ngx_http_infer_ctx_t *ctx, const char *param,
    const ngx_http_infer_value_t *value, ngx_str_t *s)
{
    size_t  len;

    if (!ngx_http_infer_is(value, STRING) || value->len < 2) {
        return ngx_http_infer_bad_type(ctx, param, "a string");
    }

    s->data = (u_char *) value->start + 1;
    s->len = value->len - 2;

    if (memchr(s->data, '\\', s->len) == NULL) {
        return NGX_OK;
    }

    s->data = ngx_pnalloc(ctx->request->pool, s->len);

    if (s->data == NULL
        || ngx_http_infer_json_string(value, s->data, s->len, &len) != 0)
    {
        return ngx_http_infer_fail(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR, NULL,
                                   param, "'%s' could not be read.", param);
    }

    s->len = len;

    return NGX_OK;
}


ngx_int_t
ngx_http_infer_read_ids(ngx_http_infer_ctx_t *ctx, const char *param,
    const ngx_http_infer_value_t *value, ngx_uint_t type, shr_req_writer_t *w)
{
    size_t                       n, max;
    int64_t                      id;
    uint32_t                    *ids;
    ngx_http_infer_value_t       element;
    ngx_http_infer_json_iter_t   iter;

    if (ngx_http_infer_json_array(value, &iter) != 0) {
        return ngx_http_infer_bad_type(ctx, param, "an array of token ids");
    }

    /* every element but the last takes a digit and a comma */
    max = value->len / 2 + 1;
    ids = ngx_palloc(ctx->request->pool, max * sizeof(uint32_t));
    if (ids == NULL) {
        return ngx_http_infer_fail(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR, NULL,
                                   NULL, "Out of memory.");
    }

    for (n = 0; n < max; n++) {

        if (ngx_http_infer_json_next(&iter, &element) != 0) {
            break;
        }

        if (ngx_http_infer_read_integer(ctx, param, &element, 0, INT32_MAX,
                                        &id) != NGX_OK)
        {
            return NGX_ERROR;
        }

        ids[n] = (uint32_t) id;
    }

    shr_req_add(w, (uint32_t) type, ids, n * sizeof(uint32_t));
    (void) ngx_pfree(ctx->request->pool, ids);

    return NGX_OK;
}


/* Steps into the object. */
void
ngx_http_infer_walk(ngx_http_infer_walk_t *walk,
    const ngx_http_infer_value_t *object)
{
    walk->p = object->start + 1;
    walk->last = object->start + object->len - 1;
}


ngx_int_t
ngx_http_infer_walk_member(ngx_http_infer_walk_t *walk, ngx_str_t *name,
    ngx_http_infer_value_t *value)
{
    ngx_http_infer_skip_space(walk);

    if (walk->p >= walk->last || *walk->p != '"') {
        return NGX_DONE;
    }

    name->data = (u_char *) walk->p + 1;
    ngx_http_infer_skip_string(walk);
    name->len = (size_t) (walk->p - name->data) - 1;
    ngx_http_infer_skip_space(walk);

    value->start = walk->p;
    ngx_http_infer_skip_value(walk);
    value->len = (size_t) (walk->p - value->start);
    ngx_http_infer_skip_space(walk);

    if (value->len == 0) {
        return NGX_DONE;
    }

    switch (value->start[0]) {
    case '{':
        value->type = NGX_HTTP_INFER_JSON_OBJECT;
        break;
    case '[':
        value->type = NGX_HTTP_INFER_JSON_ARRAY;
        break;
    case '"':
        value->type = NGX_HTTP_INFER_JSON_STRING;
        break;
    case 't':
        value->type = NGX_HTTP_INFER_JSON_TRUE;
        break;
    case 'f':
        value->type = NGX_HTTP_INFER_JSON_FALSE;
        break;
    case 'n':
        value->type = NGX_HTTP_INFER_JSON_NULL;
        break;
    default:
        value->type = NGX_HTTP_INFER_JSON_NUMBER;
    }

    return NGX_OK;
}


/* White space and what separates members. */
static void
ngx_http_infer_skip_space(ngx_http_infer_walk_t *walk)
{
    while (walk->p < walk->last
           && (*walk->p == ' ' || *walk->p == '\t' || *walk->p == '\n'
               || *walk->p == '\r' || *walk->p == ',' || *walk->p == ':'))
    {
        walk->p++;
    }
}


static void
ngx_http_infer_skip_string(ngx_http_infer_walk_t *walk)
{
    for (walk->p++; walk->p < walk->last && *walk->p != '"'; walk->p++) {
        if (*walk->p == '\\') {
            walk->p++;
        }
    }

    walk->p++;
    walk->p = ngx_min(walk->p, walk->last);
}


static void
ngx_http_infer_skip_value(ngx_http_infer_walk_t *walk)
{
    ngx_uint_t  depth;

    depth = 0;

    while (walk->p < walk->last) {

        switch (*walk->p) {

        case '"':
            ngx_http_infer_skip_string(walk);
            break;

        case '[':
        case '{':
            depth++;
            walk->p++;
            break;

        case ']':
        case '}':
            depth -= depth != 0;
            walk->p++;
            break;

        case ',': case ' ': case '\t': case '\n': case '\r':
            if (depth == 0) {
                return;
            }

            walk->p++;
            break;

        default:
            walk->p++;
            continue;                   /* inside a number or a word */
        }

        if (depth == 0) {
            return;
        }
    }
}
