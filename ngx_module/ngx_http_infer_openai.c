/*
 * OpenAI's requests to the one neutral request: a table of fields, each with
 * its bounds.  Unknown fields are ignored; fields that are known but not
 * served are refused when they ask for something.  The messages are not
 * looked into: their JSON text goes to the worker as it is.
 */

#include "ngx_module/ngx_http_infer_openai.h"


#define CHAT        (1u << SHR_TASK_CHAT)
#define TEXT        (1u << SHR_TASK_COMPLETE)
#define TOKENIZE    (1u << SHR_TASK_TOKENIZE)
#define DETOKENIZE  (1u << SHR_TASK_DETOKENIZE)
#define GENERATE    (CHAT|TEXT)
#define ALL         (CHAT|TEXT|TOKENIZE|DETOKENIZE)

#define NGX_HTTP_INFER_TEXT_TOKENS  16      /* default of completions */


#define at(field)  offsetof(shr_req_t, field)

/* The most frequent come first. */
static const ngx_http_infer_member_t  ngx_http_infer_members[] = {
    { ngx_string("model"), ALL, ngx_http_infer_f_model, 0, 0, 0 },
    { ngx_string("messages"), CHAT|TOKENIZE, ngx_http_infer_f_messages,
      0, 0, 0 },
    { ngx_string("prompt"), TEXT|TOKENIZE, ngx_http_infer_f_prompt, 0, 0, 0 },
    { ngx_string("content"), TOKENIZE, ngx_http_infer_f_prompt, 0, 0, 0 },
    { ngx_string("tokens"), DETOKENIZE, ngx_http_infer_f_tokens, 0, 0, 0 },
    { ngx_string("stream"), GENERATE, ngx_http_infer_f_stream, 0, 0, 0 },
    { ngx_string("stream_options"), GENERATE, ngx_http_infer_f_stream_options,
      0, 0, 0 },
    { ngx_string("max_tokens"), GENERATE, ngx_http_infer_f_max_tokens,
      0, 0, 0 },
    { ngx_string("max_completion_tokens"), CHAT, ngx_http_infer_f_max_tokens,
      1, 0, 0 },
    { ngx_string("temperature"), GENERATE, ngx_http_infer_f_temperature,
      at(temperature), 0, 2 },
    { ngx_string("top_p"), GENERATE, ngx_http_infer_f_real, at(top_p), 0, 1 },
    { ngx_string("min_p"), GENERATE, ngx_http_infer_f_real, at(min_p), 0, 1 },
    { ngx_string("top_k"), GENERATE, ngx_http_infer_f_count, at(top_k),
      -1, INT32_MAX },
    { ngx_string("presence_penalty"), GENERATE, ngx_http_infer_f_real,
      at(presence_penalty), -2, 2 },
    { ngx_string("frequency_penalty"), GENERATE, ngx_http_infer_f_real,
      at(frequency_penalty), -2, 2 },
    { ngx_string("repetition_penalty"), GENERATE, ngx_http_infer_f_real,
      at(repetition_penalty), 0.01, 100 },
    { ngx_string("n"), GENERATE, ngx_http_infer_f_count, at(n),
      1, SHR_CHOICES_MAX },
    { ngx_string("seed"), GENERATE, ngx_http_infer_f_seed, 0, 0, 0 },
    { ngx_string("stop"), GENERATE, ngx_http_infer_f_stop, 0, 0, 0 },
    { ngx_string("stop_token_ids"), GENERATE, ngx_http_infer_f_stop_ids,
      0, 0, 0 },
    { ngx_string("logit_bias"), GENERATE, ngx_http_infer_f_logit_bias,
      0, 0, 0 },
    { ngx_string("logprobs"), CHAT, ngx_http_infer_f_logprobs_chat, 0, 0, 0 },
    { ngx_string("logprobs"), TEXT, ngx_http_infer_f_logprobs_text, 0, 0, 0 },
    { ngx_string("top_logprobs"), CHAT, ngx_http_infer_f_top_logprobs,
      0, 0, 0 },
    { ngx_string("num_beams"), GENERATE, ngx_http_infer_f_count, at(beams),
      1, SHR_BEAMS_MAX },
    { ngx_string("length_penalty"), GENERATE, ngx_http_infer_f_real,
      at(length_penalty), -SHR_LENGTH_PENALTY, SHR_LENGTH_PENALTY },
    { ngx_string("early_stopping"), GENERATE, ngx_http_infer_f_flag,
      SHR_REQ_EARLY_STOP, 0, 0 },
    { ngx_string("use_beam_search"), GENERATE, ngx_http_infer_f_beam_search,
      0, 0, 0 },
    { ngx_string("echo"), TEXT, ngx_http_infer_f_flag, SHR_REQ_ECHO, 0, 0 },
    { ngx_string("ignore_eos"), GENERATE, ngx_http_infer_f_flag,
      SHR_REQ_IGNORE_EOS, 0, 0 },
    { ngx_string("return_offsets"), TOKENIZE, ngx_http_infer_f_flag,
      SHR_REQ_OFFSETS, 0, 0 },
    { ngx_string("add_special_tokens"), TOKENIZE, ngx_http_infer_f_flag_not,
      SHR_REQ_NO_SPECIAL, 0, 0 },
    { ngx_string("add_generation_prompt"), CHAT|TOKENIZE,
      ngx_http_infer_f_flag_not, SHR_REQ_NO_GEN, 0, 0 },
    { ngx_string("skip_special_tokens"), GENERATE|DETOKENIZE,
      ngx_http_infer_f_flag_not, SHR_REQ_KEEP_SPECIAL, 0, 0 },
    { ngx_string("tools"), CHAT|TOKENIZE, ngx_http_infer_f_tools, 0, 0, 0 },
    { ngx_string("tool_choice"), CHAT, ngx_http_infer_f_tool_choice, 0, 0, 0 },
    { ngx_string("chat_template_kwargs"), CHAT|TOKENIZE, ngx_http_infer_f_raw,
      SHR_R_TEMPLATE_ARGS, 0, 0 },
    { ngx_string("response_format"), GENERATE,
      ngx_http_infer_f_response_format, 0, 0, 0 },
    { ngx_string("modalities"), CHAT, ngx_http_infer_f_modalities, 0, 0, 0 },
    { ngx_string("best_of"), TEXT, ngx_http_infer_f_best_of, 0, 0, 0 },
    { ngx_string("suffix"), TEXT, ngx_http_infer_f_unsupported, 0, 0, 0 },
    { ngx_string("audio"), CHAT, ngx_http_infer_f_unsupported, 0, 0, 0 },
    { ngx_string("functions"), CHAT, ngx_http_infer_f_unsupported, 0, 0, 0 },
    { ngx_string("function_call"), CHAT, ngx_http_infer_f_unsupported,
      0, 0, 0 },
    { ngx_string("web_search_options"), CHAT, ngx_http_infer_f_unsupported,
      0, 0, 0 },
};

#undef at

#define NGX_HTTP_INFER_NMEMBERS                                               \
    (sizeof(ngx_http_infer_members) / sizeof(ngx_http_infer_member_t))

static ngx_int_t ngx_http_infer_parse_begin(ngx_http_infer_parse_t *p);
static ngx_int_t ngx_http_infer_parse_end(ngx_http_infer_parse_t *p);


static const ngx_http_infer_dialect_t  ngx_http_infer_openai = {
    ngx_http_infer_members, NGX_HTTP_INFER_NMEMBERS,
    ngx_http_infer_parse_begin, ngx_http_infer_parse_end
};


void
ngx_http_infer_defaults(shr_req_t *req)
{
    req->n = 1;
    req->temperature = 1;
    req->top_p = 1;
    req->repetition_penalty = 1;
    req->length_penalty = 1;
    req->max_tokens = SHR_MAX_TOKENS_REST;
}


static ngx_int_t
ngx_http_infer_parse_begin(ngx_http_infer_parse_t *p)
{
    if (p->ctx->req.task == SHR_TASK_COMPLETE) {
        p->ctx->req.max_tokens = NGX_HTTP_INFER_TEXT_TOKENS;
    }

    return NGX_OK;
}


static const ngx_http_infer_member_t *
ngx_http_infer_member(const ngx_http_infer_dialect_t *dialect,
    const ngx_http_infer_json_member_t *m, ngx_uint_t bit)
{
    ngx_uint_t                      i;
    const ngx_http_infer_member_t  *f;

    for (i = 0; i < dialect->nmembers; i++) {
        f = &dialect->members[i];

        if (!(f->tasks & bit) || m->name_len < f->name.len) {
            continue;
        }

        /* escapes only make a name longer */
        if (m->name_len == f->name.len
            ? ngx_memcmp(m->name, f->name.data, f->name.len) == 0
            : ngx_http_infer_json_name_is(m, (char *) f->name.data))
        {
            return f;
        }
    }

    return NULL;
}


static ngx_int_t
ngx_http_infer_bad_json(ngx_http_infer_ctx_t *ctx,
    ngx_http_infer_json_err_t *err)
{
    return ngx_http_infer_fail(ctx, NGX_HTTP_BAD_REQUEST, "invalid_json",
                               NULL, "The request body is not a JSON object "
                               "that this server takes: %s at byte %uz.",
                               err->reason, err->offset);
}


/* The table for this request, and its defaults. */
static const ngx_http_infer_dialect_t *
ngx_http_infer_dialect(ngx_http_infer_parse_t *p)
{
    ngx_http_infer_ctx_t            *ctx;
    const ngx_http_infer_dialect_t  *dialect;

    ctx = p->ctx;
    dialect = ctx->api == NGX_HTTP_INFER_OPENAI ? &ngx_http_infer_openai
              : ctx->api < NGX_HTTP_INFER_GENERATE ? &ngx_http_infer_encoders
                                                   : &ngx_http_infer_generators;
    p->bit = 1u << (ctx->api == NGX_HTTP_INFER_OPENAI
                    ? (ngx_uint_t) ctx->req.task : (ngx_uint_t) ctx->api);

    ngx_http_infer_defaults(&ctx->req);

    return dialect->begin(p) == NGX_OK ? dialect : NULL;
}


static ngx_int_t
ngx_http_infer_too_many_parts(ngx_http_infer_ctx_t *ctx)
{
    return ngx_http_infer_fail(ctx, NGX_HTTP_REQUEST_ENTITY_TOO_LARGE,
                               "request_too_large", NULL,
                               "The request has more parts than this server "
                               "takes.");
}


ngx_int_t
ngx_http_infer_parse(ngx_http_infer_ctx_t *ctx, shr_req_writer_t *w)
{
    size_t                                i;
    ngx_http_infer_parse_t                p;
    ngx_http_infer_json_err_t             err;
    const ngx_http_infer_member_t        *f;
    const ngx_http_infer_dialect_t       *dialect;
    const ngx_http_infer_json_member_t   *m;
    static ngx_http_infer_json_doc_t      doc;

    ngx_memzero(&p, sizeof(ngx_http_infer_parse_t));
    p.ctx = ctx;
    p.w = w;

    dialect = ngx_http_infer_dialect(&p);
    if (dialect == NULL) {
        return NGX_ERROR;
    }

    shr_req_begin(w, w->buf, w->cap, &ctx->req);
    shr_req_add(w, SHR_R_REQUEST_ID, ctx->id, NGX_HTTP_INFER_ID_LEN);

    if (ngx_http_infer_json_check(ctx->body.data, ctx->body.len, &doc, &err)
        != 0)
    {
        return ngx_http_infer_bad_json(ctx, &err);
    }

    if (!ngx_http_infer_is(&doc.value, OBJECT)) {
        err.reason = "another value";
        err.offset = 0;
        return ngx_http_infer_bad_json(ctx, &err);
    }

    for (i = 0; i < doc.nmembers; i++) {
        m = &doc.members[i];
        f = ngx_http_infer_member(dialect, m, p.bit);

        if (f != NULL && !ngx_http_infer_is(&m->value, NULL)
            && f->read(&p, f, &m->value) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (ctx->model == NULL) {
        ctx->model = ((ngx_http_infer_model_t **) ctx->conf->models->elts)[0];
    }

    if (dialect->end(&p) != NGX_OK) {
        return NGX_ERROR;
    }

    return w->err == 0 ? NGX_OK : ngx_http_infer_too_many_parts(ctx);
}


static ngx_int_t
ngx_http_infer_missing(ngx_http_infer_ctx_t *ctx, const char *param)
{
    return ngx_http_infer_fail(ctx, NGX_HTTP_BAD_REQUEST,
                               "missing_required_parameter", param,
                               "Missing required parameter: '%s'.", param);
}


/* Each task has its own kind of input, and just one. */
static ngx_int_t
ngx_http_infer_parse_inputs(ngx_http_infer_parse_t *p)
{
    shr_req_t             *req;
    ngx_http_infer_ctx_t  *ctx;

    ctx = p->ctx;
    req = &ctx->req;

    if (req->task == SHR_TASK_CHAT && !p->messages) {
        return ngx_http_infer_missing(ctx, "messages");
    }

    if ((req->task == SHR_TASK_COMPLETE && p->nprompts == 0)
        || (req->task == SHR_TASK_TOKENIZE && !p->messages
            && p->nprompts == 0))
    {
        return ngx_http_infer_missing(ctx, "prompt");
    }

    if (req->task == SHR_TASK_DETOKENIZE && p->nprompts == 0) {
        return ngx_http_infer_missing(ctx, "tokens");
    }

    if (req->task == SHR_TASK_TOKENIZE
        && (p->nprompts > 1 || (p->messages && p->nprompts != 0)))
    {
        return ngx_http_infer_fail(ctx, NGX_HTTP_BAD_REQUEST,
                                   "invalid_value", "prompt",
                                   "'prompt' must be one text, and there may "
                                   "be no 'messages' beside it.");
    }

    return NGX_OK;
}


/* A beam search does not sample; what else it cannot do the worker knows. */
ngx_int_t
ngx_http_infer_parse_beams(ngx_http_infer_parse_t *p)
{
    char                  *param;
    shr_req_t             *req;
    ngx_http_infer_ctx_t  *ctx;

    ctx = p->ctx;
    req = &ctx->req;

    if (req->beams > 1) {

        if (p->sampled == NULL) {
            req->temperature = 0;
            return NGX_OK;
        }

        return ngx_http_infer_fail(ctx, NGX_HTTP_BAD_REQUEST, "invalid_value",
                                   p->sampled, "'%s' asks for sampling, "
                                   "'num_beams' for a beam search: one of "
                                   "them at a time.", p->sampled);
    }

    param = req->length_penalty != 1 ? "length_penalty"
            : req->flags & SHR_REQ_EARLY_STOP ? "early_stopping" : NULL;

    if (param == NULL) {
        return NGX_OK;
    }

    return ngx_http_infer_fail(ctx, NGX_HTTP_BAD_REQUEST, "invalid_value",
                               param, "'%s' is only allowed when 'num_beams' "
                               "is above 1.", param);
}


/* What only all fields together can say. */
static ngx_int_t
ngx_http_infer_parse_end(ngx_http_infer_parse_t *p)
{
    shr_req_t             *req;
    ngx_uint_t             cap;
    ngx_http_infer_ctx_t  *ctx;

    ctx = p->ctx;
    req = &ctx->req;

    if (ngx_http_infer_parse_inputs(p) != NGX_OK
        || ngx_http_infer_parse_beams(p) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (p->top_logprobs && !p->logprobs) {
        return ngx_http_infer_fail(ctx, NGX_HTTP_BAD_REQUEST,
                                   "invalid_value", "top_logprobs",
                                   "'top_logprobs' is only allowed when "
                                   "'logprobs' is true.");
    }

    if (ctx->include_usage && !ctx->stream) {
        return ngx_http_infer_fail(ctx, NGX_HTTP_BAD_REQUEST,
                                   "invalid_value", "stream_options",
                                   "'stream_options' is only allowed when "
                                   "'stream' is true.");
    }

    if (!ctx->stream) {
        req->flags |= SHR_REQ_WHOLE;
    }

    if (p->tools.len != 0 && !p->no_tools) {
        shr_req_add(p->w, SHR_R_TOOLS, p->tools.start,
                    p->tools.len);
    }

    cap = ctx->conf->max_tokens;

    if (cap != 0 && req->max_tokens > cap) {
        req->max_tokens = (uint32_t) cap;
    }

    ctx->nchoices = ngx_max(p->nprompts, 1) * req->n;

    if (ctx->nchoices > SHR_CHOICES_MAX) {
        return ngx_http_infer_fail(ctx, NGX_HTTP_BAD_REQUEST,
                                   "invalid_value", "n",
                                   "%ui prompts times %uD choices: at most "
                                   "%ud answers are given to one request.",
                                   ngx_max(p->nprompts, 1), req->n,
                                   SHR_CHOICES_MAX);
    }

    return NGX_OK;
}


reader(model)
{
    ngx_str_t                 name;
    ngx_uint_t                i;
    ngx_array_t              *models;
    ngx_http_infer_model_t  **model;

    if (ngx_http_infer_read_string(p->ctx, "model", value, &name) != NGX_OK) {
        return NGX_ERROR;
    }

    models = p->ctx->conf->models;
    model = models->elts;

    for (i = 0; i < models->nelts; i++) {
        if (model[i]->name.len == name.len
            && ngx_memcmp(model[i]->name.data, name.data, name.len) == 0)
        {
            p->ctx->model = model[i];
            return NGX_OK;
        }
    }

    name.len = ngx_min(name.len, 256);

    return ngx_http_infer_fail(p->ctx, NGX_HTTP_NOT_FOUND, "model_not_found",
                               "model", "The model \"%V\" does not exist "
                               "here.", &name);
}


reader(messages)
{
    ngx_http_infer_value_t      element;
    ngx_http_infer_json_iter_t  iter;

    if (ngx_http_infer_json_array(value, &iter) != 0) {
        return ngx_http_infer_bad_type(p->ctx, "messages",
                                       "an array of objects");
    }

    if (ngx_http_infer_json_next(&iter, &element) != 0) {
        return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST,
                                   "invalid_value", "messages",
                                   "'messages' is empty: at least one message "
                                   "is needed.");
    }

    if (p->messages) {
        return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST,
                                   "invalid_value", "messages",
                                   "'messages' stands there twice.");
    }

    p->messages = 1;
    shr_req_add(p->w, SHR_R_MESSAGES, value->start, value->len);

    return NGX_OK;
}


static ngx_int_t
ngx_http_infer_add_prompt(ngx_http_infer_parse_t *p,
    const ngx_http_infer_value_t *value)
{
    ngx_str_t  text;

    if (ngx_http_infer_read_string(p->ctx, "prompt", value, &text) != NGX_OK) {
        return NGX_ERROR;
    }

    p->nprompts++;
    shr_req_add(p->w, SHR_R_PROMPT, text.data, text.len);

    return NGX_OK;
}


/* A text, an array of texts, of token ids, or of arrays of token ids. */
reader(prompt)
{
    ngx_int_t              rc;
    ngx_http_infer_value_t      element;
    ngx_http_infer_json_iter_t  iter;

    if (p->nprompts != 0) {
        return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST,
                                   "invalid_value", "prompt",
                                   "'prompt' stands there twice.");
    }

    if (ngx_http_infer_is(value, STRING)) {
        return ngx_http_infer_add_prompt(p, value);
    }

    if (ngx_http_infer_json_array(value, &iter) != 0) {
        return ngx_http_infer_bad_type(p->ctx, "prompt",
                                       "a string or an array");
    }

    while (ngx_http_infer_json_next(&iter, &element) == 0) {

        if (ngx_http_infer_is(&element, NUMBER) && p->nprompts == 0) {
            p->nprompts = 1;
            return ngx_http_infer_read_ids(p->ctx, "prompt", value,
                                           SHR_R_PROMPT_IDS, p->w);
        }

        if (p->nprompts == SHR_CHOICES_MAX) {
            return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST,
                                       "invalid_value", "prompt",
                                       "'prompt' has more than %ud elements.",
                                       SHR_CHOICES_MAX);
        }

        if (ngx_http_infer_is(&element, ARRAY)) {
            p->nprompts++;
            rc = ngx_http_infer_read_ids(p->ctx, "prompt", &element,
                                         SHR_R_PROMPT_IDS, p->w);
        } else {
            rc = ngx_http_infer_add_prompt(p, &element);
        }

        if (rc != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


reader(tokens)
{
    if (p->nprompts != 0) {
        return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST,
                                   "invalid_value", "tokens",
                                   "'tokens' stands there twice.");
    }

    p->nprompts = 1;

    return ngx_http_infer_read_ids(p->ctx, "tokens", value, SHR_R_PROMPT_IDS,
                                   p->w);
}


reader(stream)
{
    ngx_uint_t  b;

    if (ngx_http_infer_read_bool(p->ctx, "stream", value, &b) != NGX_OK) {
        return NGX_ERROR;
    }

    p->ctx->stream = b;

    return NGX_OK;
}


reader(stream_options)
{
    ngx_str_t               name;
    ngx_uint_t              b;
    ngx_http_infer_walk_t   walk;
    ngx_http_infer_value_t  v;

    if (!ngx_http_infer_is(value, OBJECT)) {
        return ngx_http_infer_bad_type(p->ctx, "stream_options", "an object");
    }

    ngx_http_infer_walk(&walk, value);

    while (ngx_http_infer_walk_member(&walk, &name, &v) == NGX_OK) {

        if (!ngx_http_infer_named(&name, "include_usage")
            || ngx_http_infer_is(&v, NULL))
        {
            continue;
        }

        if (ngx_http_infer_read_bool(p->ctx, "stream_options.include_usage",
                                     &v, &b) != NGX_OK)
        {
            return NGX_ERROR;
        }

        p->ctx->include_usage = b;
    }

    return NGX_OK;
}


/* max_completion_tokens is the newer name and wins. */
reader(max_tokens)
{
    int64_t  n, min;

    /* completions may ask for the echo of the prompt alone */
    min = p->ctx->req.task == SHR_TASK_COMPLETE ? 0 : 1;

    if (ngx_http_infer_read_integer(p->ctx, (char *) f->name.data, value, min,
                                    UINT32_MAX - 1, &n) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (p->max_tokens && f->offset == 0) {
        return NGX_OK;
    }

    p->max_tokens = f->offset;
    p->ctx->req.max_tokens = (uint32_t) n;

    return NGX_OK;
}


reader(real)
{
    double  n;

    if (ngx_http_infer_read_real(p->ctx, (char *) f->name.data, value, f->min,
                                 f->max, &n) != NGX_OK)
    {
        return NGX_ERROR;
    }

    *(float *) ((u_char *) &p->ctx->req + f->offset) = (float) n;

    return NGX_OK;
}


/* Noted, as the default is not 0. */
reader(temperature)
{
    if (ngx_http_infer_f_real(p, f, value) != NGX_OK) {
        return NGX_ERROR;
    }

    p->sampled = p->ctx->req.temperature != 0 ? (char *) f->name.data : NULL;

    return NGX_OK;
}


/* A count of 32 bits; -1 stands for "off" where it is allowed. */
reader(count)
{
    int64_t  n;

    if (ngx_http_infer_read_integer(p->ctx, (char *) f->name.data, value,
                                    (int64_t) f->min, (int64_t) f->max, &n)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    *(uint32_t *) ((u_char *) &p->ctx->req + f->offset) =
        n < 0 ? 0 : (uint32_t) n;

    return NGX_OK;
}


reader(seed)
{
    int64_t  n;

    if (ngx_http_infer_read_integer(p->ctx, "seed", value, INT64_MIN,
                                    INT64_MAX, &n) != NGX_OK)
    {
        return NGX_ERROR;
    }

    p->ctx->req.seed = (uint64_t) n;
    p->ctx->req.flags |= SHR_REQ_SEED;

    return NGX_OK;
}
