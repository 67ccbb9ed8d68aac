/*
 * Generation in the words of text-generation-inference: what was asked for and
 * what the answer needs to remember.  Shared by the fields and the rendering
 * (ngx_http_infer_generate.c) and by ngx_http_infer_render.c, which hands such
 * requests over.
 */

#ifndef NGX_HTTP_INFER_GENERATE_H
#define NGX_HTTP_INFER_GENERATE_H

#include "ngx_module/ngx_http_infer_api.h"


/* Tokens whose text has not come: part of a character, or of what may become a
 * stop string. */
#define NGX_HTTP_INFER_PENDING_MAX  64

struct ngx_http_infer_generate_s {
    ngx_str_t                       input;
    unsigned                        details:1;
    unsigned                        full:1;     /* the input goes before */
    unsigned                        stops:1;    /* stop strings were given */

    ngx_uint_t                      index;      /* of the next event */
    ngx_uint_t                      npending;
    shr_logprob_entry_t             pending[NGX_HTTP_INFER_PENDING_MAX];
};


/* As their namesakes of render: for requests with ctx->generate. */
void ngx_http_infer_generate_init(ngx_http_infer_ctx_t *ctx);
void ngx_http_infer_generate_text(ngx_http_infer_ctx_t *ctx,
    const u_char *text, size_t len);
void ngx_http_infer_generate_logprob(ngx_http_infer_ctx_t *ctx,
    const u_char *data);
void ngx_http_infer_generate_end(ngx_http_infer_ctx_t *ctx);


#endif /* NGX_HTTP_INFER_GENERATE_H */
