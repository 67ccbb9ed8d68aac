/* Text of an answer, written into chained buffers. */

#ifndef NGX_HTTP_INFER_OUT_H
#define NGX_HTTP_INFER_OUT_H

#include <ngx_config.h>
#include <ngx_core.h>


/*
 * A writer into chained buffers of a request.  It never needs a length in
 * advance and never writes past a buffer; the first failure (no memory) is
 * kept in `failed`, so a caller may check once, at the end.
 */
typedef struct {
    ngx_pool_t                     *pool;
    ngx_chain_t                    *head;       /* written, not yet taken */
    ngx_chain_t                   **last;
    ngx_chain_t                    *free;
    ngx_chain_t                    *busy;
    ngx_buf_t                      *buf;        /* has room; in the chain */
    size_t                          size;       /* of the next buffer */
    size_t                          size_max;
    ngx_uint_t                      failed;
} ngx_http_infer_out_t;

/* Buffers double from size to size_max. */
void ngx_http_infer_out_init(ngx_http_infer_out_t *out, ngx_pool_t *pool,
    size_t size, size_t size_max);
void ngx_http_infer_out_data(ngx_http_infer_out_t *out, const void *data,
    size_t len);
/* As the inside of a JSON string. */
void ngx_http_infer_out_json(ngx_http_infer_out_t *out, const u_char *data,
    size_t len);
/* The same for bytes that may break UTF-8: U+FFFD stands for what does. */
void ngx_http_infer_out_text(ngx_http_infer_out_t *out, const u_char *data,
    size_t len);
/* Text of variables as UTF-8; `unescape`: percent and plus signs as in URIs. */
ngx_int_t ngx_http_infer_text(ngx_pool_t *pool, ngx_str_t *text,
    ngx_uint_t unescape);
/* A token's name: its text, or bytes:\xHH... for a part of a character, so
 * that different tokens have different names. */
void ngx_http_infer_out_token(ngx_http_infer_out_t *out, const u_char *data,
    size_t len);
void ngx_http_infer_out_number(ngx_http_infer_out_t *out, uint64_t n);
void ngx_http_infer_out_real(ngx_http_infer_out_t *out, double n);
/* ngx_sprintf() of at most 512 bytes; for names and numbers. */
void ngx_http_infer_out_print(ngx_http_infer_out_t *out, const char *fmt, ...);
/* Moves all buffers of `from` behind those of `out`. */
void ngx_http_infer_out_splice(ngx_http_infer_out_t *out,
    ngx_http_infer_out_t *from);
/* Copies them instead, and keeps them for `from` to use again. */
void ngx_http_infer_out_copy(ngx_http_infer_out_t *out,
    ngx_http_infer_out_t *from);
/* Takes what was written: NULL when nothing was. */
ngx_chain_t *ngx_http_infer_out_take(ngx_http_infer_out_t *out);
/* After the chain was sent: what is done with can be used again. */
void ngx_http_infer_out_update(ngx_http_infer_out_t *out, ngx_chain_t *sent);
off_t ngx_http_infer_out_bytes(ngx_chain_t *chain);

#define ngx_http_infer_out(out, s)                                            \
    ngx_http_infer_out_data(out, s, sizeof(s) - 1)


#endif /* NGX_HTTP_INFER_OUT_H */
