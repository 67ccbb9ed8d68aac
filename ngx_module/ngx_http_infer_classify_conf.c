/*
 * The directive infer_classify: read, checked and bound to its model.
 */

#include "ngx_module/ngx_http_infer_classify.h"

#include <math.h>


#define NGX_HTTP_INFER_CLASSIFY_MS  1000        /* timeout, unless given */

#define option(s, value)                                                      \
    ((value)->len >= sizeof(s) - 1                                            \
     && ngx_strncmp((value)->data, s, sizeof(s) - 1) == 0)
#define option_is(s, value)                                                   \
    ((value)->len == sizeof(s) - 1 && option(s, value))


static char *ngx_http_infer_classify_option(ngx_conf_t *cf,
    ngx_http_infer_classify_t *c, ngx_str_t *value);


static ngx_int_t
ngx_http_infer_classify_unset(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    v->not_found = 1;

    return NGX_OK;
}


/* As `set` does: a variable that others may set as well. */
static ngx_int_t
ngx_http_infer_classify_variable(ngx_conf_t *cf, ngx_str_t *value,
    ngx_str_t *name, ngx_int_t *index)
{
    ngx_http_variable_t  *v;

    if (value->len < 2 || value->data[0] != '$') {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid variable name \"%V\" in "
                           "\"infer_classify\"", value);
        return NGX_ERROR;
    }

    name->data = value->data + 1;
    name->len = value->len - 1;

    v = ngx_http_add_variable(cf, name, NGX_HTTP_VAR_CHANGEABLE);
    if (v == NULL) {
        return NGX_ERROR;
    }

    if (v->get_handler == NULL) {
        v->get_handler = ngx_http_infer_classify_unset;
    }

    *index = ngx_http_get_variable_index(cf, name);

    return *index == NGX_ERROR ? NGX_ERROR : NGX_OK;
}


static ngx_http_infer_classify_t *
ngx_http_infer_classify_add(ngx_conf_t *cf, ngx_http_infer_loc_conf_t *ilcf)
{
    ngx_http_infer_classify_t    *c, **slot;
    ngx_http_infer_main_conf_t   *imcf;

    imcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_infer_module);

    if (ilcf->classify == NULL) {
        ilcf->classify = ngx_array_create(cf->pool, 2, sizeof(void *));
        if (ilcf->classify == NULL) {
            return NULL;
        }
    }

    c = ngx_pcalloc(cf->pool, sizeof(ngx_http_infer_classify_t));
    if (c == NULL) {
        return NULL;
    }

    slot = ngx_array_push(ilcf->classify);
    if (slot == NULL) {
        return NULL;
    }

    *slot = c;

    slot = ngx_array_push(&imcf->classifies);
    if (slot == NULL) {
        return NULL;
    }

    *slot = c;

    c->score = NGX_ERROR;
    c->over = NAN;
    c->conf.timeout = NGX_HTTP_INFER_CLASSIFY_MS;
    c->conf_file = cf->conf_file->file.name.data;
    c->line = cf->conf_file->line;

    if (ngx_array_init(&c->likes, cf->pool, 2, sizeof(ngx_http_infer_like_t))
        != NGX_OK)
    {
        return NULL;
    }

    return c;
}


char *
ngx_http_infer_classify(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_infer_loc_conf_t *ilcf = conf;

    char                               *rv;
    ngx_str_t                          *value;
    ngx_uint_t                          i;
    ngx_http_infer_classify_t          *c;
    ngx_http_compile_complex_value_t    ccv;

    value = cf->args->elts;

    if (ilcf->classify != NULL
        && ilcf->classify->nelts == NGX_HTTP_INFER_VERDICTS_MAX)
    {
        return "stands there more than 16 times on one level";
    }

    c = ngx_http_infer_classify_add(cf, ilcf);
    if (c == NULL
        || ngx_http_infer_classify_variable(cf, &value[1], &c->name,
                                            &c->index) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    c->model_name = value[2];

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));
    ccv.cf = cf;
    ccv.value = &value[3];
    ccv.complex_value = &c->text;

    if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    c->body = ngx_strstr(value[3].data, "$request_body") != NULL
              || ngx_strstr(value[3].data, "${request_body") != NULL;

    for (i = 4; i < cf->args->nelts; i++) {
        rv = ngx_http_infer_classify_option(cf, c, &value[i]);

        if (rv != NGX_CONF_OK) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\" of "
                               "\"infer_classify\": %s", &value[i], rv);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


/* A number of 0 to 1 with up to six decimals. */
static char *
ngx_http_infer_classify_over(ngx_http_infer_classify_t *c, ngx_str_t *value)
{
    ngx_int_t  n;

    n = ngx_atofp(value->data, value->len, 6);

    if (n == NGX_ERROR || n > 1000000) {
        return "it is a number from 0 to 1 with at most six decimals";
    }

    c->over = (float) n / 1000000;

    return NGX_CONF_OK;
}


static char *
ngx_http_infer_classify_like(ngx_http_infer_classify_t *c, ngx_str_t *value)
{
    u_char                 *colon;
    ngx_http_infer_like_t  *like;

    colon = ngx_strlchr(value->data, value->data + value->len, ':');

    if (colon == NULL || colon == value->data
        || colon + 1 == value->data + value->len)
    {
        return "it is a label, a colon and a text";
    }

    if (c->likes.nelts == NGX_HTTP_INFER_LIKES_MAX) {
        return "there are more than 64 of these";
    }

    like = ngx_array_push(&c->likes);
    if (like == NULL) {
        return "out of memory";
    }

    like->label.data = value->data;
    like->label.len = (size_t) (colon - value->data);
    like->text.data = colon + 1;
    like->text.len = value->len - like->label.len - 1;

    return NGX_CONF_OK;
}


static char *
ngx_http_infer_classify_fail(ngx_http_infer_classify_t *c, ngx_str_t *value)
{
    ngx_int_t  n;

    if (option_is("open", value)) {
        return NGX_CONF_OK;
    }

    if (option_is("closed", value)) {
        c->status = NGX_HTTP_SERVICE_UNAVAILABLE;
        return NGX_CONF_OK;
    }

    n = ngx_atoi(value->data, value->len);

    if (n < 400 || n > 599) {
        return "it is \"open\", \"closed\" or a status from 400 to 599";
    }

    c->status = (ngx_uint_t) n;

    return NGX_CONF_OK;
}


static char *
ngx_http_infer_classify_timeout(ngx_http_infer_classify_t *c,
    ngx_str_t *value)
{
    ngx_int_t  ms;

    ms = ngx_parse_time(value, 0);

    if (ms == NGX_ERROR || ms < 1 || ms > 600000) {
        return "it is a time from 1ms to 600s";
    }

    c->conf.timeout = (ngx_msec_t) ms;

    return NGX_CONF_OK;
}


static char *
ngx_http_infer_classify_option(ngx_conf_t *cf, ngx_http_infer_classify_t *c,
    ngx_str_t *value)
{
    ngx_str_t  name, rest;

    rest.data = ngx_strlchr(value->data, value->data + value->len, '=');

    if (rest.data == NULL) {

        if (option_is("truncate", value)) {
            c->truncate = 1;

        } else if (option_is("unescape", value)) {
            c->unescape = 1;

        } else if (option_is("body", value)) {
            c->body = 1;

        } else {
            return "no such parameter";
        }

        return NGX_CONF_OK;
    }

    rest.data++;
    rest.len = (size_t) (value->data + value->len - rest.data);

    if (option("class=", value)) {
        c->class = rest;
        return NGX_CONF_OK;
    }

    if (option("default=", value)) {
        c->instead = rest;
        return NGX_CONF_OK;
    }

    if (option("score=", value)) {
        return ngx_http_infer_classify_variable(cf, &rest, &name, &c->score)
               == NGX_OK ? NGX_CONF_OK : "it is a variable of its own";
    }

    if (option("over=", value)) {
        return ngx_http_infer_classify_over(c, &rest);
    }

    if (option("like=", value)) {
        return ngx_http_infer_classify_like(c, &rest);
    }

    if (option("timeout=", value)) {
        return ngx_http_infer_classify_timeout(c, &rest);
    }

    return option("fail=", value) ? ngx_http_infer_classify_fail(c, &rest)
                                  : "no such parameter";
}


/* --- at the end of the configuration ------------------------------------- */

ngx_int_t
ngx_http_infer_classify_resolve(ngx_conf_t *cf,
    ngx_http_infer_main_conf_t *imcf)
{
    ngx_uint_t                   i;
    ngx_http_infer_model_t     **slot, *model;
    ngx_http_infer_classify_t  **c;

    c = imcf->classifies.elts;

    for (i = 0; i < imcf->classifies.nelts; i++) {
        model = ngx_http_infer_model_find(imcf, &c[i]->model_name);

        if (model == NULL) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "unknown model \"%V\" in \"infer_classify\" in "
                          "%s:%ui", &c[i]->model_name, c[i]->conf_file,
                          c[i]->line);
            return NGX_ERROR;
        }

        c[i]->conf.models = ngx_array_create(cf->pool, 1, sizeof(void *));
        if (c[i]->conf.models == NULL) {
            return NGX_ERROR;
        }

        slot = ngx_array_push(c[i]->conf.models);
        *slot = model;
    }

    return NGX_OK;
}


static const char *
ngx_http_infer_classify_class(ngx_http_infer_classify_t *c,
    ngx_array_t *labels)
{
    ngx_str_t   *label;
    ngx_uint_t   i;

    if (c->class.len == 0 || labels == NULL) {
        return NULL;
    }

    label = labels->elts;

    for (i = 0; i < labels->nelts; i++) {
        if (label[i].len == c->class.len
            && ngx_memcmp(label[i].data, c->class.data, c->class.len) == 0)
        {
            return NULL;
        }
    }

    return "has no such label as \"class=\" names";
}


static const char *
ngx_http_infer_classify_kind(ngx_http_infer_classify_t *c)
{
    ngx_uint_t               i;
    ngx_http_infer_like_t   *like;
    ngx_http_infer_model_t  *model;

    model = ((ngx_http_infer_model_t **) c->conf.models->elts)[0];
    like = c->likes.elts;

    if (c->likes.nelts == 0) {
        return ngx_http_infer_kind_is(model, "classify")
               ? ngx_http_infer_classify_class(c, model->labels)
               : "is no classifier (a sentence encoder would need "
                 "\"like=\")";
    }

    if (!ngx_http_infer_kind_is(model, "embed")) {
        return "is no sentence encoder, which \"like=\" needs";
    }

    for (i = 0; c->class.len != 0 && i < c->likes.nelts; i++) {
        if (like[i].label.len == c->class.len
            && ngx_memcmp(like[i].label.data, c->class.data, c->class.len)
               == 0)
        {
            return NULL;
        }
    }

    return c->class.len == 0 ? NULL
           : "has no \"like=\" with the label that \"class=\" names";
}


ngx_int_t
ngx_http_infer_classify_finish(ngx_conf_t *cf,
    ngx_http_infer_main_conf_t *imcf)
{
    const char                  *what;
    ngx_uint_t                   i;
    ngx_http_handler_pt         *h;
    ngx_http_core_main_conf_t   *cmcf;
    ngx_http_infer_classify_t  **c;
    static const ngx_uint_t      phases[] = {
        NGX_HTTP_SERVER_REWRITE_PHASE, NGX_HTTP_REWRITE_PHASE
    };

    c = imcf->classifies.elts;

    for (i = 0; i < imcf->classifies.nelts; i++) {
        what = ngx_process == NGX_PROCESS_SIGNALLER
               ? NULL : ngx_http_infer_classify_kind(c[i]);

        if (what != NULL) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "model \"%V\" of \"infer_classify\" %s in %s:%ui",
                          &c[i]->model_name, what, c[i]->conf_file,
                          c[i]->line);
            return NGX_ERROR;
        }
    }

    if (imcf->classifies.nelts == 0) {
        return NGX_OK;
    }

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    /* a phase runs its handlers from the last to the first: ours, which come
     * after those of the rewrite module, are before `if`, `set`, `return` */
    for (i = 0; i < 2; i++) {
        h = ngx_array_push(&cmcf->phases[phases[i]].handlers);
        if (h == NULL) {
            return NGX_ERROR;
        }

        *h = ngx_http_infer_classify_handler;
    }

    return NGX_OK;
}
