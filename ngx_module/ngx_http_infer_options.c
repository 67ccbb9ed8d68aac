/*
 * OpenAI's fields beyond input and sampling numbers: stop strings, biases,
 * log probabilities, flags, tools, and what is known but not served.
 */

#include "ngx_module/ngx_http_infer_openai.h"


static ngx_int_t
ngx_http_infer_add_stop(ngx_http_infer_parse_t *p,
    const ngx_http_infer_value_t *value)
{
    ngx_str_t  text;

    if (ngx_http_infer_read_string(p->ctx, "stop", value, &text) != NGX_OK) {
        return NGX_ERROR;
    }

    if (text.len == 0 || text.len > NGX_HTTP_INFER_STOP_BYTES) {
        return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST,
                                   "invalid_value", "stop",
                                   "A string of 'stop' must have 1 to %d "
                                   "bytes.", NGX_HTTP_INFER_STOP_BYTES);
    }

    shr_req_add(p->w, SHR_R_STOP, text.data, text.len);

    return NGX_OK;
}


reader(stop)
{
    ngx_uint_t                  n;
    ngx_http_infer_value_t      element;
    ngx_http_infer_json_iter_t  iter;

    if (ngx_http_infer_is(value, STRING)) {
        return ngx_http_infer_add_stop(p, value);
    }

    if (ngx_http_infer_json_array(value, &iter) != 0) {
        return ngx_http_infer_bad_type(p->ctx, "stop",
                                       "a string or an array of strings");
    }

    for (n = 0; ngx_http_infer_json_next(&iter, &element) == 0; n++) {

        if (n == NGX_HTTP_INFER_STOPS_MAX) {
            return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST,
                                       "invalid_value", "stop",
                                       "'stop' has more than %d strings.",
                                       NGX_HTTP_INFER_STOPS_MAX);
        }

        if (ngx_http_infer_add_stop(p, &element) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


reader(stop_ids)
{
    return ngx_http_infer_read_ids(p->ctx, "stop_token_ids", value,
                                   SHR_R_STOP_IDS, p->w);
}


/* {"50256": -100, …} */
reader(logit_bias)
{
    double                  bias;
    ngx_int_t               id;
    ngx_str_t               name;
    ngx_uint_t              n;
    shr_bias_t             *table;
    ngx_http_infer_walk_t   walk;
    ngx_http_infer_value_t  v;

    if (!ngx_http_infer_is(value, OBJECT)) {
        return ngx_http_infer_bad_type(p->ctx, "logit_bias", "an object");
    }

    table = ngx_palloc(p->ctx->request->pool,
                       NGX_HTTP_INFER_BIASES_MAX * sizeof(shr_bias_t));
    if (table == NULL) {
        return ngx_http_infer_fail(p->ctx, NGX_HTTP_INTERNAL_SERVER_ERROR,
                                   NULL, NULL, "Out of memory.");
    }

    ngx_http_infer_walk(&walk, value);

    for (n = 0; ngx_http_infer_walk_member(&walk, &name, &v) == NGX_OK; n++) {
        id = ngx_atoi(name.data, name.len);

        if (id == NGX_ERROR || id > INT32_MAX
            || n == NGX_HTTP_INFER_BIASES_MAX)
        {
            return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST,
                                       "invalid_value", "logit_bias",
                                       "'logit_bias' maps token ids to "
                                       "numbers, at most %d of them.",
                                       NGX_HTTP_INFER_BIASES_MAX);
        }

        if (ngx_http_infer_read_real(p->ctx, "logit_bias", &v, -100, 100,
                                     &bias) != NGX_OK)
        {
            return NGX_ERROR;
        }

        table[n].id = (uint32_t) id;
        table[n].bias = (float) bias;
    }

    shr_req_add(p->w, SHR_R_LOGIT_BIAS, table, n * sizeof(shr_bias_t));

    return NGX_OK;
}


reader(logprobs_chat)
{
    ngx_uint_t  b;

    if (ngx_http_infer_read_bool(p->ctx, "logprobs", value, &b) != NGX_OK) {
        return NGX_ERROR;
    }

    if (b) {
        p->logprobs = 1;
        p->ctx->req.flags |= SHR_REQ_LOGPROBS;
    }

    return NGX_OK;
}


reader(logprobs_text)
{
    int64_t  n;

    if (ngx_http_infer_read_integer(p->ctx, "logprobs", value, 0, 20, &n)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    p->ctx->req.flags |= SHR_REQ_LOGPROBS;
    p->ctx->req.top_logprobs = (uint32_t) n;

    return NGX_OK;
}


reader(top_logprobs)
{
    int64_t  n;

    if (ngx_http_infer_read_integer(p->ctx, "top_logprobs", value, 0, 20, &n)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    p->top_logprobs = n != 0;
    p->ctx->req.top_logprobs = (uint32_t) n;

    return NGX_OK;
}


reader(flag)
{
    ngx_uint_t  b;

    if (ngx_http_infer_read_bool(p->ctx, (char *) f->name.data, value, &b)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (b) {
        p->ctx->req.flags |= (uint32_t) f->offset;
    }

    return NGX_OK;
}


reader(flag_not)
{
    ngx_uint_t  b;

    if (ngx_http_infer_read_bool(p->ctx, (char *) f->name.data, value, &b)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (!b) {
        p->ctx->req.flags |= (uint32_t) f->offset;
    }

    return NGX_OK;
}


/* A checked JSON object that goes to the worker as it is. */
reader(raw)
{
    if (!ngx_http_infer_is(value, OBJECT)) {
        return ngx_http_infer_bad_type(p->ctx, (char *) f->name.data,
                                       "an object");
    }

    shr_req_add(p->w, (uint32_t) f->offset, value->start, value->len);

    return NGX_OK;
}


reader(tools)
{
    ngx_http_infer_value_t      element;
    ngx_http_infer_json_iter_t  iter;

    if (ngx_http_infer_json_array(value, &iter) != 0) {
        return ngx_http_infer_bad_type(p->ctx, "tools",
                                       "an array of objects");
    }

    while (ngx_http_infer_json_next(&iter, &element) == 0) {
        if (!ngx_http_infer_is(&element, OBJECT)) {
            return ngx_http_infer_bad_type(p->ctx, "tools",
                                           "an array of objects");
        }

        p->tools = *value;
    }

    return NGX_OK;
}


reader(tool_choice)
{
    if (ngx_http_infer_same(value, "\"auto\"")) {
        return NGX_OK;
    }

    if (ngx_http_infer_same(value, "\"none\"")) {
        p->no_tools = 1;
        return NGX_OK;
    }

    return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST,
                               "unsupported_value", "tool_choice",
                               "'tool_choice' may be \"auto\" or \"none\": "
                               "forced calls are not supported.");
}


reader(response_format)
{
    ngx_str_t               name;
    ngx_http_infer_walk_t   walk;
    ngx_http_infer_value_t  v;

    if (!ngx_http_infer_is(value, OBJECT)) {
        return ngx_http_infer_bad_type(p->ctx, "response_format",
                                       "an object");
    }

    ngx_http_infer_walk(&walk, value);

    while (ngx_http_infer_walk_member(&walk, &name, &v) == NGX_OK) {

        if (ngx_http_infer_named(&name, "type")
            && !ngx_http_infer_same(&v, "\"text\""))
        {
            return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST,
                                       "unsupported_value",
                                       "response_format.type",
                                       "'response_format.type' other than "
                                       "\"text\" is not supported.");
        }
    }

    return NGX_OK;
}


reader(modalities)
{
    ngx_http_infer_value_t      element;
    ngx_http_infer_json_iter_t  iter;

    if (ngx_http_infer_json_array(value, &iter) != 0) {
        return ngx_http_infer_bad_type(p->ctx, "modalities",
                                       "an array of strings");
    }

    while (ngx_http_infer_json_next(&iter, &element) == 0) {

        if (!ngx_http_infer_same(&element, "\"text\"")) {
            return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST,
                                       "unsupported_value", "modalities",
                                       "'modalities' other than \"text\" are "
                                       "not supported.");
        }
    }

    return NGX_OK;
}


reader(best_of)
{
    int64_t  n;

    if (ngx_http_infer_read_integer(p->ctx, "best_of", value, 1,
                                    SHR_CHOICES_MAX, &n) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (n == 1) {
        return NGX_OK;
    }

    return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST,
                               "unsupported_parameter", "best_of",
                               "'best_of' other than 1 is not supported.");
}


/* Known, and only "no" is served. */
reader(only_false)
{
    ngx_uint_t  b;

    if (ngx_http_infer_read_bool(p->ctx, (char *) f->name.data, value, &b)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return b ? ngx_http_infer_f_unsupported(p, f, value) : NGX_OK;
}


reader(beam_search)
{
    ngx_uint_t  b;

    if (ngx_http_infer_read_bool(p->ctx, "use_beam_search", value, &b)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (!b) {
        return NGX_OK;
    }

    return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST,
                               "unsupported_parameter", "use_beam_search",
                               "'use_beam_search' is not supported: "
                               "'num_beams' asks for a beam search, and for "
                               "its best answer.");
}


reader(unsupported)
{
    return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST,
                               "unsupported_parameter",
                               (char *) f->name.data,
                               "'%V' is not supported.", &f->name);
}
