/*
 * infer_input: variables become the same JSON that a client would send, and go
 * the same way from there.  infer_output text: what a model says as it is, or
 * the likeliest label.
 */

#include "ngx_module/ngx_http_infer_input.h"
#include "ngx_module/ngx_http_infer_json.h"


static ngx_http_infer_model_t *
ngx_http_infer_input_model(ngx_http_infer_loc_conf_t *ilcf)
{
    return ((ngx_http_infer_model_t **) ilcf->models->elts)[0];
}


void
ngx_http_infer_input_kind(ngx_http_infer_loc_conf_t *ilcf, shr_task_t *task,
    ngx_http_infer_api_e *api)
{
    ngx_http_infer_model_t  *model;

    model = ngx_http_infer_input_model(ilcf);
    *api = NGX_HTTP_INFER_OPENAI;

    if (ngx_http_infer_kind_is(model, "classify")) {
        *task = SHR_TASK_CLASSIFY;
        *api = NGX_HTTP_INFER_PREDICT;

    } else if (ngx_http_infer_kind_is(model, "embed")) {
        *task = SHR_TASK_EMBED;
        *api = NGX_HTTP_INFER_EMBEDDINGS;

    } else if (ngx_http_infer_kind_is(model, "text-to-text")) {
        *task = SHR_TASK_COMPLETE;

    } else {
        *task = SHR_TASK_CHAT;
    }
}


/* The text and what was asked for as a client would write it. */
static ngx_int_t
ngx_http_infer_input_write(ngx_http_infer_ctx_t *ctx, ngx_str_t *text)
{
    size_t                   size;
    ngx_uint_t               i;
    const char              *head, *tail;
    ngx_http_infer_out_t     out;
    ngx_http_infer_field_t  *field;

    head = ctx->req.task == SHR_TASK_CHAT
           ? "{\"messages\":[{\"role\":\"user\",\"content\":\""
           : ctx->req.task == SHR_TASK_COMPLETE ? "{\"prompt\":\""
           : ctx->req.task == SHR_TASK_EMBED ? "{\"input\":\""
                                             : "{\"inputs\":\"";
    tail = ctx->req.task == SHR_TASK_CHAT ? "\"}]" : "\"";

    /* one buffer holds it all: escapes take six bytes at most */
    field = ctx->conf->input->fields.elts;
    size = text->len * 6 + 256;

    for (i = 0; i < ctx->conf->input->fields.nelts; i++) {
        size += field[i].name.len + field[i].value.len + 4;
    }

    ngx_http_infer_out_init(&out, ctx->request->pool, size, size);
    ngx_http_infer_out_data(&out, head, ngx_strlen(head));
    ngx_http_infer_out_text(&out, text->data, text->len);
    ngx_http_infer_out_data(&out, tail, ngx_strlen(tail));

    for (i = 0; i < ctx->conf->input->fields.nelts; i++) {
        ngx_http_infer_out(&out, ",\"");
        ngx_http_infer_out_data(&out, field[i].name.data, field[i].name.len);
        ngx_http_infer_out(&out, "\":");
        ngx_http_infer_out_data(&out, field[i].value.data,
                                field[i].value.len);
    }

    ngx_http_infer_out(&out, "}");

    if (out.failed || out.head->next != NULL) {
        return NGX_ERROR;
    }

    ctx->body.data = out.head->buf->pos;
    ctx->body.len = (size_t) (out.head->buf->last - out.head->buf->pos);

    return NGX_OK;
}


ngx_int_t
ngx_http_infer_input_body(ngx_http_infer_ctx_t *ctx)
{
    ngx_str_t                text;
    ngx_http_request_t      *r;
    ngx_http_infer_input_t  *input;

    r = ctx->request;
    input = ctx->conf->input;

    if (r->request_body != NULL && r->request_body->temp_file != NULL) {
        return ngx_http_infer_fail(ctx, NGX_HTTP_REQUEST_ENTITY_TOO_LARGE,
                                   "request_too_large", NULL, "The request "
                                   "body does not fit into \"client_body_"
                                   "buffer_size\".");
    }

    if (ngx_http_complex_value(r, &input->text, &text) == NGX_OK
        && ngx_http_infer_text(r->pool, &text, input->unescape) == NGX_OK)
    {
        if (text.len == 0) {
            return ngx_http_infer_fail(ctx, NGX_HTTP_BAD_REQUEST,
                                       "missing_required_parameter", NULL,
                                       "The input of this location is "
                                       "empty.");
        }

        if (ngx_http_infer_input_write(ctx, &text) == NGX_OK) {
            return NGX_OK;
        }
    }

    return ngx_http_infer_fail(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR, NULL,
                               NULL, "Out of memory.");
}


/* --- plain text ---------------------------------------------------------- */

static ngx_int_t
ngx_http_infer_input_text(ngx_http_request_t *r, ngx_uint_t status,
    ngx_http_infer_out_t *out)
{
    ngx_int_t  rc;

    ngx_str_set(&r->headers_out.charset, "utf-8");

    if (out->head != NULL) {
        return ngx_http_infer_send_out(r, status, "text/plain", out);
    }

    r->headers_out.status = status;
    ngx_str_set(&r->headers_out.content_type, "text/plain");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;
    r->headers_out.content_length_n = 0;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    return ngx_http_send_special(r, NGX_HTTP_LAST);
}


ngx_int_t
ngx_http_infer_input_send(ngx_http_infer_ctx_t *ctx)
{
    ngx_uint_t                i, best;
    ngx_http_infer_encode_t  *e;

    e = ctx->encode;

    if (e == NULL) {
        return ngx_http_infer_input_text(ctx->request, NGX_HTTP_OK,
                                         &ctx->choices[0].text);
    }

    for (i = 1, best = 0; i < e->width; i++) {
        best = e->values[i] > e->values[best] ? i : best;
    }

    ngx_http_infer_out_data(&ctx->out, e->labels[best].data,
                            e->labels[best].len);

    return ngx_http_infer_input_text(ctx->request, NGX_HTTP_OK, &ctx->out);
}


ngx_int_t
ngx_http_infer_input_error(ngx_http_infer_ctx_t *ctx)
{
    ngx_http_request_t    *r;
    ngx_http_infer_out_t   out;

    r = ctx->request;
    ngx_http_infer_out_init(&out, r->pool, 512, 4096);

    /* a page that includes it shows its own words */
    if (r == r->main) {
        ngx_http_infer_out_data(&out, ctx->error.message.data,
                                ctx->error.message.len);
        ngx_http_infer_out(&out, "\n");
    }

    return ngx_http_infer_input_text(r, ctx->error.status, &out);
}


/* --- configuration ------------------------------------------------------- */

static ngx_http_infer_input_t *
ngx_http_infer_input_conf(ngx_conf_t *cf, ngx_http_infer_loc_conf_t *ilcf)
{
    ngx_http_infer_input_t  *input;

    if (ilcf->input != NULL) {
        return ilcf->input;
    }

    input = ngx_pcalloc(cf->pool, sizeof(ngx_http_infer_input_t));

    if (input == NULL
        || ngx_array_init(&input->fields, cf->pool, 4,
                          sizeof(ngx_http_infer_field_t)) != NGX_OK)
    {
        return NULL;
    }

    input->conf_file = cf->conf_file->file.name.data;
    input->line = cf->conf_file->line;
    ilcf->input = input;

    return input;
}


char *
ngx_http_infer_input(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_infer_loc_conf_t *ilcf = conf;

    ngx_str_t                         *value;
    ngx_http_infer_input_t            *input;
    ngx_http_compile_complex_value_t   ccv;

    input = ngx_http_infer_input_conf(cf, ilcf);
    if (input == NULL) {
        return NGX_CONF_ERROR;
    }

    if (input->set) {
        return "is duplicate";
    }

    value = cf->args->elts;
    input->set = 1;

    if (cf->args->nelts == 3) {
        if (ngx_strcmp(value[2].data, "unescape") != 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\" of \"infer_input\": "
                               "it may be \"unescape\"", &value[2]);
            return NGX_CONF_ERROR;
        }

        input->unescape = 1;
    }

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));
    ccv.cf = cf;
    ccv.value = &value[1];
    ccv.complex_value = &input->text;

    return ngx_http_compile_complex_value(&ccv) == NGX_OK ? NGX_CONF_OK
                                                          : NGX_CONF_ERROR;
}


/* Names that infer_input itself writes, or that make another answer of it. */
static ngx_uint_t
ngx_http_infer_field_taken(ngx_str_t *name)
{
    ngx_uint_t          i;
    static const char  *taken[] = {
        "messages", "prompt", "input", "inputs", "model", "stream", "n"
    };

    for (i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
        if (ngx_strcmp(name->data, taken[i]) == 0) {
            return 1;
        }
    }

    for (i = 0; i < name->len; i++) {
        if (name->data[i] != '_'
            && (name->data[i] < 'a' || name->data[i] > 'z'))
        {
            return 1;
        }
    }

    return name->len == 0;
}


char *
ngx_http_infer_field(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_infer_loc_conf_t *ilcf = conf;

    u_char                     *p;
    size_t                      len;
    ngx_str_t                  *value;
    ngx_http_infer_field_t     *field;
    ngx_http_infer_input_t     *input;
    ngx_http_infer_json_err_t   err;
    ngx_http_infer_json_doc_t  *doc;

    value = cf->args->elts;
    input = ngx_http_infer_input_conf(cf, ilcf);
    doc = ngx_palloc(cf->temp_pool, sizeof(ngx_http_infer_json_doc_t));
    len = value[2].len + sizeof("{\"\":}");
    p = ngx_pnalloc(cf->temp_pool, len);
    if (input == NULL || doc == NULL || p == NULL) {
        return NGX_CONF_ERROR;
    }

    if (ngx_http_infer_field_taken(&value[1])) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid field \"%V\" in \"infer_field\"",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    len = (size_t) (ngx_sprintf(p, "{\"\":%V}", &value[2]) - p);

    if (ngx_http_infer_json_check(p, len, doc, &err) != 0
        || doc->nmembers != 1)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the value of \"infer_field\" \"%V\" is not one "
                           "JSON value: %V", &value[1], &value[2]);
        return NGX_CONF_ERROR;
    }

    field = ngx_array_push(&input->fields);
    if (field == NULL) {
        return NGX_CONF_ERROR;
    }

    field->name = value[1];
    field->value = value[2];

    return NGX_CONF_OK;
}


char *
ngx_http_infer_output(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_infer_loc_conf_t *ilcf = conf;

    ngx_str_t               *value;
    ngx_http_infer_input_t  *input;

    value = cf->args->elts;
    input = ngx_http_infer_input_conf(cf, ilcf);
    if (input == NULL) {
        return NGX_CONF_ERROR;
    }

    if (ngx_strcmp(value[1].data, "text") == 0) {
        input->plain = 1;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "json") == 0) {
        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid value \"%V\" of \"infer_output\": it is "
                       "\"text\" or \"json\"", &value[1]);
    return NGX_CONF_ERROR;
}


ngx_int_t
ngx_http_infer_input_finish(ngx_conf_t *cf, ngx_http_infer_loc_conf_t *ilcf)
{
    const char              *what;
    ngx_http_infer_model_t  *model;
    ngx_http_infer_input_t  *input;

    input = ilcf->input;

    if (input == NULL || ngx_process == NGX_PROCESS_SIGNALLER) {
        return NGX_OK;
    }

    model = ngx_http_infer_input_model(ilcf);
    what = NULL;

    if (!input->set) {
        what = "\"infer_output\" and \"infer_field\" need \"infer_input\"";

    } else if (ngx_http_infer_kind_is(model, "rerank")) {
        what = "\"infer_input\" is one text, this model takes pairs";

    } else if (input->plain && ngx_http_infer_kind_is(model, "embed")) {
        what = "this model has no words for \"infer_output text\"";
    }

    if (what == NULL) {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "model \"%V\": %s in %s:%ui",
                  &model->name, what, input->conf_file, input->line);

    return NGX_ERROR;
}
