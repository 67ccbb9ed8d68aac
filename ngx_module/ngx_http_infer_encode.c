/*
 * The fields of requests to encoders, in the words of OpenAI (embeddings), of
 * text-embeddings-inference (embed, similarity, predict, rerank with "texts")
 * and of the rerank and classify endpoints that others have beside OpenAI's.
 */

#include "ngx_module/ngx_http_infer_encode.h"
#include "ngx_module/ngx_http_infer_openai.h"


#define bit(api)    (1u << NGX_HTTP_INFER_##api)

#define EMBEDDINGS  bit(EMBEDDINGS)
#define EMBED       bit(EMBED)
#define SIMILARITY  bit(SIMILARITY)
#define PREDICT     bit(PREDICT)
#define RERANK      bit(RERANK)
#define CLASSIFY    bit(CLASSIFY)
#define ALL         (EMBEDDINGS|EMBED|SIMILARITY|PREDICT|RERANK|CLASSIFY)

reader(inputs);
reader(pairs);
reader(sentences);
reader(parameters);
reader(query);
reader(texts);
reader(encoding);
reader(dimensions);
reader(truncate);
reader(direction);
reader(normalize);
reader(raw_scores);
reader(return_text);
reader(top);


static const ngx_http_infer_member_t  ngx_http_infer_encode_members[] = {
    { ngx_string("model"), ALL, ngx_http_infer_f_model, 0, 0, 0 },
    { ngx_string("input"), EMBEDDINGS, ngx_http_infer_f_inputs, 0, 0, 0 },
    { ngx_string("inputs"), EMBED, ngx_http_infer_f_inputs, 0, 0, 0 },
    { ngx_string("input"), CLASSIFY, ngx_http_infer_f_inputs, 0, 0, 0 },
    { ngx_string("inputs"), PREDICT, ngx_http_infer_f_pairs, 0, 0, 0 },
    { ngx_string("inputs"), SIMILARITY, ngx_http_infer_f_sentences, 0, 0, 0 },
    { ngx_string("parameters"), SIMILARITY, ngx_http_infer_f_parameters,
      0, 0, 0 },
    { ngx_string("query"), RERANK, ngx_http_infer_f_query, 0, 0, 0 },
    { ngx_string("texts"), RERANK, ngx_http_infer_f_texts, 0, 0, 0 },
    { ngx_string("documents"), RERANK, ngx_http_infer_f_texts, 1, 0, 0 },
    { ngx_string("encoding_format"), EMBEDDINGS, ngx_http_infer_f_encoding,
      0, 0, 0 },
    { ngx_string("dimensions"), EMBEDDINGS|EMBED, ngx_http_infer_f_dimensions,
      0, 0, 0 },
    { ngx_string("truncate"), ALL, ngx_http_infer_f_truncate, 0, 0, 0 },
    { ngx_string("truncation_direction"), ALL, ngx_http_infer_f_direction,
      0, 0, 0 },
    { ngx_string("normalize"), EMBEDDINGS|EMBED, ngx_http_infer_f_normalize,
      0, 0, 0 },
    { ngx_string("raw_scores"), PREDICT|RERANK|CLASSIFY,
      ngx_http_infer_f_raw_scores, 0, 0, 0 },
    { ngx_string("return_text"), RERANK, ngx_http_infer_f_return_text,
      0, 0, 0 },
    { ngx_string("return_documents"), RERANK, ngx_http_infer_f_return_text,
      0, 0, 0 },
    { ngx_string("top_n"), RERANK, ngx_http_infer_f_top, 0, 0, 0 },
    { ngx_string("prompt_name"), EMBED, ngx_http_infer_f_unsupported,
      0, 0, 0 },
};

static ngx_int_t ngx_http_infer_encode_begin(ngx_http_infer_parse_t *p);
static ngx_int_t ngx_http_infer_encode_parsed(ngx_http_infer_parse_t *p);


const ngx_http_infer_dialect_t  ngx_http_infer_encoders = {
    ngx_http_infer_encode_members,
    sizeof(ngx_http_infer_encode_members) / sizeof(ngx_http_infer_member_t),
    ngx_http_infer_encode_begin, ngx_http_infer_encode_parsed
};


static ngx_int_t
ngx_http_infer_encode_begin(ngx_http_infer_parse_t *p)
{
    ngx_str_t             *uri;
    ngx_http_infer_ctx_t  *ctx;

    ctx = p->ctx;
    uri = &ctx->request->uri;

    /* rerank: until its fields have told whose words they are */
    ctx->error.native = ctx->api == NGX_HTTP_INFER_EMBED
                        || ctx->api == NGX_HTTP_INFER_SIMILARITY
                        || ctx->api == NGX_HTTP_INFER_PREDICT
                        || (ctx->api == NGX_HTTP_INFER_RERANK
                            && ngx_strlcasestrn(uri->data,
                                                uri->data + uri->len,
                                                (u_char *) "/v1/", 3)
                               == NULL);

    ctx->encode = ngx_pcalloc(ctx->request->pool,
                              sizeof(ngx_http_infer_encode_t));
    if (ctx->encode == NULL) {
        return ngx_http_infer_fail(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR, NULL,
                                   NULL, "Out of memory.");
    }

    /* of these every vector has the length 1 unless asked otherwise */
    if (ctx->api == NGX_HTTP_INFER_EMBED
        || ctx->api == NGX_HTTP_INFER_SIMILARITY)
    {
        ctx->req.flags |= SHR_REQ_NORMALIZE;
    }

    return NGX_OK;
}


const char *
ngx_http_infer_encode_name(ngx_http_infer_ctx_t *ctx)
{
    switch (ctx->api) {
    case NGX_HTTP_INFER_EMBEDDINGS:
    case NGX_HTTP_INFER_CLASSIFY:
        return "input";
    case NGX_HTTP_INFER_RERANK:
        return ctx->encode->documents ? "documents" : "texts";
    default:
        return "inputs";
    }
}


static ngx_int_t
ngx_http_infer_encode_parsed(ngx_http_infer_parse_t *p)
{
    const char            *name;
    ngx_http_infer_ctx_t  *ctx;

    ctx = p->ctx;
    name = ngx_http_infer_encode_name(ctx);

    if (ctx->api == NGX_HTTP_INFER_RERANK && ctx->encode->query.len == 0) {
        return ngx_http_infer_fail(ctx, NGX_HTTP_BAD_REQUEST,
                                   "missing_required_parameter", "query",
                                   "Missing required parameter: 'query'.");
    }

    if (p->nprompts == 0) {
        return ngx_http_infer_fail(ctx, NGX_HTTP_BAD_REQUEST,
                                   "missing_required_parameter", name,
                                   "Missing required parameter: '%s'.", name);
    }

    if (ctx->req.flags & SHR_REQ_RAW) {
        ctx->req.flags &= ~SHR_REQ_NORMALIZE;
    }

    ctx->req.flags |= SHR_REQ_WHOLE;
    ctx->nchoices = p->nprompts;

    return NGX_OK;
}


/* --- inputs ------------------------------------------------------------- */

static ngx_int_t
ngx_http_infer_encode_twice(ngx_http_infer_parse_t *p, const char *name)
{
    if (p->nprompts == 0) {
        return NGX_OK;
    }

    return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST, "invalid_value",
                               name, "Inputs stand there twice.");
}


static ngx_int_t
ngx_http_infer_encode_empty(ngx_http_infer_parse_t *p, const char *name)
{
    if (p->nprompts != 0) {
        return NGX_OK;
    }

    return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST, "empty_array",
                               name, "Invalid '%s': empty array. At least one "
                               "element is needed.", name);
}


/* One more input: within the limit? */
static ngx_int_t
ngx_http_infer_encode_one(ngx_http_infer_parse_t *p, const char *name)
{
    if (p->nprompts++ < SHR_INPUTS_MAX) {
        return NGX_OK;
    }

    return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST,
                               "array_above_max_length", name,
                               "Invalid '%s': array too long. At most %ud "
                               "elements are taken.", name, SHR_INPUTS_MAX);
}


static ngx_int_t
ngx_http_infer_encode_text(ngx_http_infer_parse_t *p, const char *name,
    const ngx_http_infer_value_t *value, ngx_uint_t type, ngx_str_t *text)
{
    if (ngx_http_infer_read_string(p->ctx, name, value, text) != NGX_OK) {
        return NGX_ERROR;
    }

    if (text->len == 0) {
        return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST,
                                   "invalid_value", name,
                                   "Invalid '%s': an empty string cannot be "
                                   "an input.", name);
    }

    shr_req_add(p->w, (uint32_t) type, text->data, text->len);

    return NGX_OK;
}


static ngx_int_t
ngx_http_infer_encode_ids(ngx_http_infer_parse_t *p, const char *name,
    const ngx_http_infer_value_t *value)
{
    ngx_http_infer_value_t      element;
    ngx_http_infer_json_iter_t  iter;

    if (ngx_http_infer_json_array(value, &iter) != 0
        || ngx_http_infer_json_next(&iter, &element) != 0)
    {
        return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST,
                                   "invalid_value", name,
                                   "Invalid '%s': an empty array of tokens "
                                   "cannot be an input.", name);
    }

    return ngx_http_infer_read_ids(p->ctx, name, value, SHR_R_PROMPT_IDS,
                                   p->w);
}


/* A text, an array of texts, of token ids, or of arrays of token ids. */
reader(inputs)
{
    ngx_int_t                   rc;
    ngx_str_t                   text;
    const char                 *name;
    ngx_http_infer_value_t      element;
    ngx_http_infer_json_iter_t  iter;

    name = (char *) f->name.data;

    if (ngx_http_infer_encode_twice(p, name) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_infer_is(value, STRING)) {
        p->nprompts = 1;
        return ngx_http_infer_encode_text(p, name, value, SHR_R_PROMPT, &text);
    }

    if (ngx_http_infer_json_array(value, &iter) != 0) {
        return ngx_http_infer_bad_type(p->ctx, name,
                                       "a string or an array");
    }

    while (ngx_http_infer_json_next(&iter, &element) == 0) {

        if (ngx_http_infer_is(&element, NUMBER) && p->nprompts == 0) {
            p->nprompts = 1;
            return ngx_http_infer_encode_ids(p, name, value);
        }

        if (ngx_http_infer_encode_one(p, name) != NGX_OK) {
            return NGX_ERROR;
        }

        rc = ngx_http_infer_is(&element, ARRAY)
             ? ngx_http_infer_encode_ids(p, name, &element)
             : ngx_http_infer_encode_text(p, name, &element, SHR_R_PROMPT,
                                          &text);
        if (rc != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return ngx_http_infer_encode_empty(p, name);
}


/* ["text"] or ["text", "text"] */
static ngx_int_t
ngx_http_infer_encode_pair(ngx_http_infer_parse_t *p,
    const ngx_http_infer_value_t *value)
{
    ngx_str_t                   text;
    ngx_uint_t                  n;
    ngx_http_infer_value_t      element;
    ngx_http_infer_json_iter_t  iter;

    n = 0;

    if (ngx_http_infer_json_array(value, &iter) == 0) {

        while (ngx_http_infer_json_next(&iter, &element) == 0) {

            if (n == 2) {
                n = 3;
                break;
            }

            if (ngx_http_infer_encode_text(p, "inputs", &element,
                                           n == 0 ? SHR_R_PROMPT : SHR_R_PAIR,
                                           &text) != NGX_OK)
            {
                return NGX_ERROR;
            }

            n++;
        }
    }

    if (n == 1 || n == 2) {
        return NGX_OK;
    }

    return ngx_http_infer_bad_type(p->ctx, "inputs", "a string, an array of "
                                   "one or two strings, or an array of such "
                                   "arrays");
}


/* A text; one or two texts in an array; an array of such arrays. */
reader(pairs)
{
    ngx_str_t                   text;
    ngx_http_infer_value_t      element;
    ngx_http_infer_json_iter_t  iter;

    if (ngx_http_infer_encode_twice(p, "inputs") != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_infer_is(value, STRING)) {
        p->nprompts = 1;
        p->ctx->encode->single = 1;
        return ngx_http_infer_encode_text(p, "inputs", value, SHR_R_PROMPT,
                                          &text);
    }

    if (ngx_http_infer_json_array(value, &iter) != 0) {
        return ngx_http_infer_bad_type(p->ctx, "inputs",
                                       "a string or an array");
    }

    while (ngx_http_infer_json_next(&iter, &element) == 0) {

        if (p->nprompts == 0 && !ngx_http_infer_is(&element, ARRAY)) {
            p->nprompts = 1;
            p->ctx->encode->single = 1;
            return ngx_http_infer_encode_pair(p, value);
        }

        if (ngx_http_infer_encode_one(p, "inputs") != NGX_OK
            || ngx_http_infer_encode_pair(p, &element) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return ngx_http_infer_encode_empty(p, "inputs");
}


/* The texts of an array, none of them anything else. */
static ngx_int_t
ngx_http_infer_encode_list(ngx_http_infer_parse_t *p, const char *name,
    const ngx_http_infer_value_t *value)
{
    ngx_str_t                   text;
    ngx_http_infer_value_t      element;
    ngx_http_infer_json_iter_t  iter;

    if (ngx_http_infer_json_array(value, &iter) != 0) {
        return ngx_http_infer_bad_type(p->ctx, name, "an array of strings");
    }

    while (ngx_http_infer_json_next(&iter, &element) == 0) {
        if (ngx_http_infer_encode_one(p, name) != NGX_OK
            || ngx_http_infer_encode_text(p, name, &element, SHR_R_PROMPT,
                                          &text) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* {"source_sentence": …, "sentences": […]}: the source becomes the first. */
reader(sentences)
{
    ngx_str_t               name, text;
    ngx_http_infer_walk_t   walk;
    ngx_http_infer_value_t  v, source, list;

    source.len = 0;
    list.len = 0;

    if (!ngx_http_infer_is(value, OBJECT)) {
        return ngx_http_infer_bad_type(p->ctx, "inputs", "an object with "
                                       "'source_sentence' and 'sentences'");
    }

    ngx_http_infer_walk(&walk, value);

    while (ngx_http_infer_walk_member(&walk, &name, &v) == NGX_OK) {

        if (ngx_http_infer_named(&name, "source_sentence")) {
            source = v;

        } else if (ngx_http_infer_named(&name, "sentences")) {
            list = v;
        }
    }

    if (source.len == 0 || list.len == 0) {
        return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST,
                                   "missing_required_parameter", "inputs",
                                   "'inputs' needs 'source_sentence' and "
                                   "'sentences'.");
    }

    if (ngx_http_infer_encode_twice(p, "inputs") != NGX_OK) {
        return NGX_ERROR;
    }

    p->nprompts = 1;

    if (ngx_http_infer_encode_text(p, "inputs", &source, SHR_R_PROMPT, &text)
        != NGX_OK
        || ngx_http_infer_encode_list(p, "inputs", &list) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (p->nprompts == 1) {
        p->nprompts = 0;
        return ngx_http_infer_encode_empty(p, "inputs");
    }

    return NGX_OK;
}


reader(query)
{
    return ngx_http_infer_encode_text(p, "query", value, SHR_R_QUERY,
                                      &p->ctx->encode->query);
}


/* A document is a text, or an object with one. */
static ngx_int_t
ngx_http_infer_encode_document(ngx_http_infer_parse_t *p, const char *name,
    const ngx_http_infer_value_t *value, ngx_str_t *text)
{
    ngx_str_t               member;
    ngx_http_infer_walk_t   walk;
    ngx_http_infer_value_t  v;

    if (!ngx_http_infer_is(value, OBJECT)) {
        return ngx_http_infer_encode_text(p, name, value, SHR_R_PROMPT, text);
    }

    ngx_http_infer_walk(&walk, value);

    while (ngx_http_infer_walk_member(&walk, &member, &v) == NGX_OK) {

        if (ngx_http_infer_named(&member, "text")) {
            return ngx_http_infer_encode_text(p, name, &v, SHR_R_PROMPT,
                                              text);
        }
    }

    return ngx_http_infer_bad_type(p->ctx, name, "strings, or objects with a "
                                   "\"text\"");
}


reader(texts)
{
    size_t                       max;
    const char                  *name;
    ngx_http_infer_value_t       element;
    ngx_http_infer_encode_t     *e;
    ngx_http_infer_json_iter_t   iter;

    e = p->ctx->encode;
    name = (char *) f->name.data;
    e->documents = f->offset;
    p->ctx->error.native = !e->documents;

    if (ngx_http_infer_encode_twice(p, name) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_infer_json_array(value, &iter) != 0) {
        return ngx_http_infer_bad_type(p->ctx, name, "an array");
    }

    /* every element but the last takes three bytes at least */
    max = ngx_min(value->len / 3 + 1, SHR_INPUTS_MAX);
    e->texts = ngx_palloc(p->ctx->request->pool, max * sizeof(ngx_str_t));
    if (e->texts == NULL) {
        return ngx_http_infer_fail(p->ctx, NGX_HTTP_INTERNAL_SERVER_ERROR,
                                   NULL, NULL, "Out of memory.");
    }

    while (ngx_http_infer_json_next(&iter, &element) == 0) {
        if (p->nprompts >= max
            || ngx_http_infer_encode_one(p, name) != NGX_OK)
        {
            p->nprompts = SHR_INPUTS_MAX;
            return ngx_http_infer_encode_one(p, name);
        }

        if (ngx_http_infer_encode_document(p, name, &element,
                                           &e->texts[p->nprompts - 1])
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return ngx_http_infer_encode_empty(p, name);
}


/* --- options ------------------------------------------------------------ */

reader(encoding)
{
    if (ngx_http_infer_same(value, "\"base64\"")) {
        p->ctx->encode->base64 = 1;
        return NGX_OK;
    }

    if (ngx_http_infer_same(value, "\"float\"")) {
        return NGX_OK;
    }

    return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST, "invalid_value",
                               "encoding_format", "Invalid value of "
                               "'encoding_format': it is 'float' or "
                               "'base64'.");
}


reader(dimensions)
{
    int64_t  n;

    if (ngx_http_infer_read_integer(p->ctx, "dimensions", value, 1,
                                    SHR_DIMS_MAX, &n) != NGX_OK)
    {
        return NGX_ERROR;
    }

    p->ctx->req.dims = (uint32_t) n;

    return NGX_OK;
}


static ngx_int_t
ngx_http_infer_encode_flag(ngx_http_infer_parse_t *p,
    const ngx_http_infer_member_t *f, const ngx_http_infer_value_t *value,
    ngx_uint_t on, ngx_uint_t off)
{
    ngx_uint_t  b;

    if (ngx_http_infer_read_bool(p->ctx, (char *) f->name.data, value, &b)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    p->ctx->req.flags |= (uint32_t) (b ? on : off);

    return NGX_OK;
}


reader(truncate)
{
    return ngx_http_infer_encode_flag(p, f, value, SHR_REQ_TRUNCATE, 0);
}


reader(normalize)
{
    return ngx_http_infer_encode_flag(p, f, value, SHR_REQ_NORMALIZE,
                                      SHR_REQ_RAW);
}


reader(raw_scores)
{
    return ngx_http_infer_encode_flag(p, f, value, SHR_REQ_RAW, 0);
}


reader(direction)
{
    if (ngx_http_infer_same(value, "\"Left\"")
        || ngx_http_infer_same(value, "\"left\""))
    {
        p->ctx->req.flags |= SHR_REQ_LEFT;
        return NGX_OK;
    }

    if (ngx_http_infer_same(value, "\"Right\"")
        || ngx_http_infer_same(value, "\"right\""))
    {
        return NGX_OK;
    }

    return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST, "invalid_value",
                               "truncation_direction", "Invalid value of "
                               "'truncation_direction': it is 'Left' or "
                               "'Right'.");
}


/* Of similarity: the same options, a level deeper. */
reader(parameters)
{
    ngx_int_t                 rc;
    ngx_str_t                 name;
    ngx_http_infer_walk_t     walk;
    ngx_http_infer_value_t    v;
    ngx_http_infer_member_t   inner;

    if (!ngx_http_infer_is(value, OBJECT)) {
        return ngx_http_infer_bad_type(p->ctx, "parameters", "an object");
    }

    rc = NGX_OK;
    inner = *f;
    ngx_http_infer_walk(&walk, value);

    while (rc == NGX_OK
           && ngx_http_infer_walk_member(&walk, &name, &v) == NGX_OK)
    {
        if (ngx_http_infer_is(&v, NULL)) {
            continue;
        }

        if (ngx_http_infer_named(&name, "truncate")) {
            ngx_str_set(&inner.name, "truncate");
            rc = ngx_http_infer_f_truncate(p, &inner, &v);

        } else if (ngx_http_infer_named(&name, "truncation_direction")) {
            rc = ngx_http_infer_f_direction(p, f, &v);

        } else if (ngx_http_infer_named(&name, "prompt_name")) {
            ngx_str_set(&inner.name, "prompt_name");
            rc = ngx_http_infer_f_unsupported(p, &inner, &v);
        }
    }

    return rc;
}


reader(return_text)
{
    ngx_uint_t  b;

    if (ngx_http_infer_read_bool(p->ctx, (char *) f->name.data, value, &b)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    p->ctx->encode->return_text = b;

    return NGX_OK;
}


reader(top)
{
    int64_t  n;

    if (ngx_http_infer_read_integer(p->ctx, "top_n", value, 1, INT32_MAX, &n)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    p->ctx->encode->top = (ngx_uint_t) n;

    return NGX_OK;
}
