/*
 * Locations whose input comes from variables (infer_input, infer_field) and
 * whose output may be plain text (infer_output): for GET, SSI, subrequests.
 */

#ifndef NGX_HTTP_INFER_INPUT_H
#define NGX_HTTP_INFER_INPUT_H

#include "ngx_module/ngx_http_infer_encode.h"


/* infer_field name value, the value as JSON. */
typedef struct {
    ngx_str_t                       name;
    ngx_str_t                       value;
} ngx_http_infer_field_t;

struct ngx_http_infer_input_s {
    ngx_http_complex_value_t        text;
    ngx_array_t                     fields;     /* ngx_http_infer_field_t */
    unsigned                        unescape:1;
    unsigned                        set:1;      /* infer_input was there */
    unsigned                        plain:1;    /* infer_output text */
    u_char                         *conf_file;
    ngx_uint_t                      line;
};


char *ngx_http_infer_input(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_infer_field(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_infer_output(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
/* A location that has infer_pass too, when kinds of models are known. */
ngx_int_t ngx_http_infer_input_finish(ngx_conf_t *cf,
    ngx_http_infer_loc_conf_t *ilcf);

/* Task and api of such a location. */
void ngx_http_infer_input_kind(ngx_http_infer_loc_conf_t *ilcf,
    shr_task_t *task, ngx_http_infer_api_e *api);
/* Makes ctx->body of the variables; NGX_ERROR with ctx->error. */
ngx_int_t ngx_http_infer_input_body(ngx_http_infer_ctx_t *ctx);
/* The whole answer as text, all was said; of labels and of texts. */
ngx_int_t ngx_http_infer_input_send(ngx_http_infer_ctx_t *ctx);
/* ctx->error as text; in a subrequest as its status alone. */
ngx_int_t ngx_http_infer_input_error(ngx_http_infer_ctx_t *ctx);


#endif /* NGX_HTTP_INFER_INPUT_H */
