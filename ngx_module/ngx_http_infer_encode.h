/*
 * A request to an encoder: what was asked for, and the table of its results as
 * it comes in.  Shared by ngx_http_infer_encode.c (the fields) and
 * ngx_http_infer_values.c (the answer).
 */

#ifndef NGX_HTTP_INFER_ENCODE_H
#define NGX_HTTP_INFER_ENCODE_H

#include "ngx_module/ngx_http_infer_api.h"
#include "ngx_module/ngx_http_infer_float.h"


#define NGX_HTTP_INFER_LABELS_MAX   1024
#define NGX_HTTP_INFER_SORT_MAX     SHR_INPUTS_MAX


/* A score and the input or class that it is of. */
typedef struct {
    float                           score;
    uint32_t                        index;
} ngx_http_infer_scored_t;

struct ngx_http_infer_encode_s {
    ngx_str_t                      *texts;      /* NULL, or to be returned */
    ngx_str_t                       query;
    ngx_uint_t                      top;        /* best ones; 0: all */
    unsigned                        base64:1;
    unsigned                        documents:1;    /* rerank: v1's answer */
    unsigned                        single:1;   /* predict: one input */
    unsigned                        return_text:1;
    unsigned                        raw:1;      /* not normalised, logits */

    /* results: where the next value belongs */
    ngx_uint_t                      width;      /* 0: none has come */
    ngx_uint_t                      row;
    ngx_uint_t                      at;
    float                          *values;     /* a row that is kept */
    double                          sum;        /* similarity: so far */
    ngx_http_infer_scored_t        *scores;
    ngx_str_t                      *labels;
    ngx_uint_t                      nlabels;
    ngx_http_infer_base64_t         letters;
};


/* What a result of an encoder becomes.  init before the first frame
 * and before another worker starts again; values and labels as their frames
 * say, NGX_ERROR when they do not go on where the last one stopped; end when
 * all was said, NGX_ERROR when not all has come. */
ngx_int_t ngx_http_infer_encode_init(ngx_http_infer_ctx_t *ctx);
ngx_int_t ngx_http_infer_encode_values(ngx_http_infer_ctx_t *ctx,
    ngx_uint_t row, const u_char *data, size_t len);
ngx_int_t ngx_http_infer_encode_labels(ngx_http_infer_ctx_t *ctx,
    const u_char *data, size_t len);
ngx_int_t ngx_http_infer_encode_end(ngx_http_infer_ctx_t *ctx);

/* What the endpoint calls its inputs: the worker says "input". */
const char *ngx_http_infer_encode_name(ngx_http_infer_ctx_t *ctx);


#endif /* NGX_HTTP_INFER_ENCODE_H */
