/*
 * infer_classify: a label or score of a text as a variable, computed before
 * the content phase.  Shared by ngx_http_infer_classify.c (the requests) and
 * ngx_http_infer_classify_conf.c (the directive).
 */

#ifndef NGX_HTTP_INFER_CLASSIFY_H
#define NGX_HTTP_INFER_CLASSIFY_H

#include "ngx_module/ngx_http_infer_encode.h"


#define NGX_HTTP_INFER_LIKES_MAX    64      /* like= of one directive */
#define NGX_HTTP_INFER_VERDICTS_MAX 16      /* directives of one level */


/* like=label:text */
typedef struct {
    ngx_str_t                       label;
    ngx_str_t                       text;
} ngx_http_infer_like_t;

/* One directive; made by the master, read-only afterwards. */
typedef struct {
    ngx_str_t                       name;       /* of the variable */
    ngx_int_t                       index;
    ngx_int_t                       score;      /* index, or NGX_ERROR */
    ngx_str_t                       model_name;
    ngx_http_complex_value_t        text;
    ngx_str_t                       class;      /* empty: the likeliest */
    float                           over;       /* NaN: not given */
    ngx_array_t                     likes;      /* ngx_http_infer_like_t */
    ngx_str_t                       instead;    /* default= */
    ngx_uint_t                      status;     /* of fail=; 0: open */
    unsigned                        truncate:1;
    unsigned                        unescape:1;
    unsigned                        body:1;     /* is read first */

    /* what dispatch and reply look at: timeout, models */
    ngx_http_infer_loc_conf_t       conf;
    u_char                         *conf_file;
    ngx_uint_t                      line;
} ngx_http_infer_classify_t;


/* The directive's function, and what waits for the end of the configuration:
 * names of models before they are checked, their kinds afterwards, then the
 * phase handlers. */
char *ngx_http_infer_classify(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_http_infer_classify_resolve(ngx_conf_t *cf,
    ngx_http_infer_main_conf_t *imcf);
ngx_int_t ngx_http_infer_classify_finish(ngx_conf_t *cf,
    ngx_http_infer_main_conf_t *imcf);

/* The handler of both rewrite phases. */
ngx_int_t ngx_http_infer_classify_handler(ngx_http_request_t *r);


#endif /* NGX_HTTP_INFER_CLASSIFY_H */
