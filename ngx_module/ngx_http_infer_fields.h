/*
 * Readers of fields: the door (ngx_http_infer_json.c) has checked the body and
 * reads its values; these bound them, and name the field when they refuse.
 */

#ifndef NGX_HTTP_INFER_FIELDS_H
#define NGX_HTTP_INFER_FIELDS_H

#include "ngx_module/ngx_http_infer_api.h"
#include "ngx_module/ngx_http_infer_json.h"


typedef ngx_http_infer_json_value_t  ngx_http_infer_value_t;

/* NGX_OK, or NGX_ERROR with ctx->error. */
ngx_int_t ngx_http_infer_read_real(ngx_http_infer_ctx_t *ctx,
    const char *param, const ngx_http_infer_value_t *value, double min,
    double max, double *n);
ngx_int_t ngx_http_infer_read_integer(ngx_http_infer_ctx_t *ctx,
    const char *param, const ngx_http_infer_value_t *value, int64_t min,
    int64_t max, int64_t *n);
ngx_int_t ngx_http_infer_read_bool(ngx_http_infer_ctx_t *ctx,
    const char *param, const ngx_http_infer_value_t *value, ngx_uint_t *b);
/* Points into the body, or to memory of the request. */
ngx_int_t ngx_http_infer_read_string(ngx_http_infer_ctx_t *ctx,
    const char *param, const ngx_http_infer_value_t *value, ngx_str_t *s);
/* Token ids, as a record of this type. */
ngx_int_t ngx_http_infer_read_ids(ngx_http_infer_ctx_t *ctx,
    const char *param, const ngx_http_infer_value_t *value, ngx_uint_t type,
    shr_req_writer_t *w);

ngx_int_t ngx_http_infer_bad_type(ngx_http_infer_ctx_t *ctx,
    const char *param, const char *want);

/* Walks an object of any number of members, unlike the door's; names as they
 * are written, without quotes. */
typedef struct {
    const u_char  *p;
    const u_char  *last;
} ngx_http_infer_walk_t;

void ngx_http_infer_walk(ngx_http_infer_walk_t *walk,
    const ngx_http_infer_value_t *object);
/* NGX_DONE at the end. */
ngx_int_t ngx_http_infer_walk_member(ngx_http_infer_walk_t *walk,
    ngx_str_t *name, ngx_http_infer_value_t *value);

#define ngx_http_infer_is(value, what)                                        \
    ((value)->type == NGX_HTTP_INFER_JSON_##what)
/* By its text, quotes included. */
#define ngx_http_infer_same(value, s)                                         \
    ((value)->len == sizeof(s) - 1                                            \
     && ngx_memcmp((value)->start, s, sizeof(s) - 1) == 0)


#endif /* NGX_HTTP_INFER_FIELDS_H */
