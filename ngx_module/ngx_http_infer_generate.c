/*
 * generate and generate_stream of text-generation-inference: fields of
 * requests, objects and events of answers.
 *
 * In a stream every token is an event of its own.  The worker sends a token
 * before the whole characters that it completes, so a token waits for them:
 * the last one before a text carries it, those before it carry nothing.
 */

#include "ngx_module/ngx_http_infer_generate.h"
#include "ngx_module/ngx_http_infer_openai.h"


#define NGX_HTTP_INFER_GENERATE_TOKENS  100     /* default of max_new_tokens */

#define GENERATE  (1u << NGX_HTTP_INFER_GENERATE)
#define STREAM    (1u << NGX_HTTP_INFER_GENERATE_STREAM)
#define ALL       (GENERATE|STREAM)

reader(generate_input);
reader(generate_parameters);
reader(generate_count);
reader(generate_real);
reader(generate_stop);
reader(generate_flag);

static ngx_int_t ngx_http_infer_generate_begin(ngx_http_infer_parse_t *p);
static ngx_int_t ngx_http_infer_generate_parsed(ngx_http_infer_parse_t *p);


static const ngx_http_infer_member_t  ngx_http_infer_generate_members[] = {
    { ngx_string("model"), ALL, ngx_http_infer_f_model, 0, 0, 0 },
    { ngx_string("inputs"), ALL, ngx_http_infer_f_generate_input, 0, 0, 0 },
    { ngx_string("parameters"), ALL, ngx_http_infer_f_generate_parameters,
      0, 0, 0 },
    { ngx_string("stream"), GENERATE, ngx_http_infer_f_stream, 0, 0, 0 },
};

const ngx_http_infer_dialect_t  ngx_http_infer_generators = {
    ngx_http_infer_generate_members,
    sizeof(ngx_http_infer_generate_members)
    / sizeof(ngx_http_infer_member_t),
    ngx_http_infer_generate_begin, ngx_http_infer_generate_parsed
};


#define at(field)  offsetof(shr_req_t, field)

typedef enum {
    FLAG_DETAILS = 0,
    FLAG_FULL,
    FLAG_SAMPLE
} ngx_http_infer_generate_flag_e;

/* Members of "parameters"; `tasks` 1: it asks for sampling. */
static const ngx_http_infer_member_t  ngx_http_infer_generate_parameters[] = {
    { ngx_string("max_new_tokens"), 0, ngx_http_infer_f_count, at(max_tokens),
      1, UINT32_MAX - 1.0 },
    { ngx_string("do_sample"), 0, ngx_http_infer_f_generate_flag, FLAG_SAMPLE,
      0, 0 },
    { ngx_string("temperature"), 1, ngx_http_infer_f_generate_real,
      at(temperature), 0, 100 },
    { ngx_string("top_k"), 1, ngx_http_infer_f_generate_count, at(top_k),
      -1, INT32_MAX },
    { ngx_string("top_p"), 1, ngx_http_infer_f_generate_real, at(top_p),
      0, 1 },
    { ngx_string("repetition_penalty"), 0, ngx_http_infer_f_real,
      at(repetition_penalty), 0.01, 100 },
    { ngx_string("frequency_penalty"), 0, ngx_http_infer_f_real,
      at(frequency_penalty), -2, 2 },
    { ngx_string("num_beams"), 0, ngx_http_infer_f_count, at(beams),
      1, SHR_BEAMS_MAX },
    { ngx_string("length_penalty"), 0, ngx_http_infer_f_real,
      at(length_penalty), -SHR_LENGTH_PENALTY, SHR_LENGTH_PENALTY },
    { ngx_string("early_stopping"), 0, ngx_http_infer_f_flag,
      SHR_REQ_EARLY_STOP, 0, 0 },
    { ngx_string("seed"), 0, ngx_http_infer_f_seed, 0, 0, 0 },
    { ngx_string("stop"), 0, ngx_http_infer_f_generate_stop, 0, 0, 0 },
    { ngx_string("stop_sequences"), 0, ngx_http_infer_f_generate_stop,
      0, 0, 0 },
    { ngx_string("details"), 0, ngx_http_infer_f_generate_flag, FLAG_DETAILS,
      0, 0 },
    { ngx_string("return_full_text"), 0, ngx_http_infer_f_generate_flag,
      FLAG_FULL, 0, 0 },
    { ngx_string("best_of"), 0, ngx_http_infer_f_best_of, 0, 0, 0 },
    { ngx_string("decoder_input_details"), 0, ngx_http_infer_f_only_false,
      0, 0, 0 },
    { ngx_string("watermark"), 0, ngx_http_infer_f_only_false, 0, 0, 0 },
    { ngx_string("typical_p"), 0, ngx_http_infer_f_unsupported, 0, 0, 0 },
    { ngx_string("truncate"), 0, ngx_http_infer_f_unsupported, 0, 0, 0 },
    { ngx_string("grammar"), 0, ngx_http_infer_f_unsupported, 0, 0, 0 },
    { ngx_string("top_n_tokens"), 0, ngx_http_infer_f_unsupported, 0, 0, 0 },
    { ngx_string("adapter_id"), 0, ngx_http_infer_f_unsupported, 0, 0, 0 },
};

#define NGX_HTTP_INFER_NPARAMETERS                                            \
    (sizeof(ngx_http_infer_generate_parameters)                               \
     / sizeof(ngx_http_infer_member_t))


static ngx_int_t
ngx_http_infer_generate_begin(ngx_http_infer_parse_t *p)
{
    ngx_http_infer_ctx_t  *ctx;

    ctx = p->ctx;
    ctx->error.native = NGX_HTTP_INFER_NATIVE_TGI;
    ctx->stream = ctx->api == NGX_HTTP_INFER_GENERATE_STREAM;
    ctx->req.max_tokens = NGX_HTTP_INFER_GENERATE_TOKENS;
    ctx->generate = ngx_pcalloc(ctx->request->pool,
                                sizeof(ngx_http_infer_generate_t));

    if (ctx->generate != NULL) {
        return NGX_OK;
    }

    return ngx_http_infer_fail(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR, NULL,
                               NULL, "Out of memory.");
}


static ngx_int_t
ngx_http_infer_generate_parsed(ngx_http_infer_parse_t *p)
{
    ngx_http_infer_ctx_t  *ctx;

    ctx = p->ctx;

    if (p->nprompts == 0) {
        return ngx_http_infer_fail(ctx, NGX_HTTP_BAD_REQUEST,
                                   "missing_required_parameter", "inputs",
                                   "Missing required parameter: 'inputs'.");
    }

    if (ngx_http_infer_parse_beams(p) != NGX_OK) {
        return NGX_ERROR;
    }

    if (p->sampled == NULL) {
        ctx->req.temperature = 0;
    }

    if (!ctx->stream) {
        ctx->req.flags |= SHR_REQ_WHOLE;
    }

    if (ctx->stream || ctx->generate->details) {
        ctx->req.flags |= SHR_REQ_LOGPROBS;
    }

    if (ctx->conf->max_tokens != 0
        && ctx->req.max_tokens > ctx->conf->max_tokens)
    {
        ctx->req.max_tokens = (uint32_t) ctx->conf->max_tokens;
    }

    ctx->nchoices = 1;

    return NGX_OK;
}


reader(generate_input)
{
    ngx_str_t  *text;

    text = &p->ctx->generate->input;

    if (ngx_http_infer_read_string(p->ctx, "inputs", value, text) != NGX_OK) {
        return NGX_ERROR;
    }

    if (text->len == 0) {
        return ngx_http_infer_fail(p->ctx, NGX_HTTP_BAD_REQUEST,
                                   "invalid_value", "inputs",
                                   "'inputs' cannot be empty.");
    }

    p->nprompts = 1;
    shr_req_add(p->w, SHR_R_PROMPT, text->data, text->len);

    return NGX_OK;
}


reader(generate_parameters)
{
    ngx_str_t                       name;
    ngx_uint_t                      i;
    ngx_http_infer_walk_t           walk;
    ngx_http_infer_value_t          v;
    const ngx_http_infer_member_t  *m;

    if (!ngx_http_infer_is(value, OBJECT)) {
        return ngx_http_infer_bad_type(p->ctx, "parameters", "an object");
    }

    ngx_http_infer_walk(&walk, value);

    while (ngx_http_infer_walk_member(&walk, &name, &v) == NGX_OK) {

        for (i = 0; i < NGX_HTTP_INFER_NPARAMETERS; i++) {
            m = &ngx_http_infer_generate_parameters[i];

            if (name.len == m->name.len
                && ngx_memcmp(name.data, m->name.data, name.len) == 0)
            {
                break;
            }
        }

        if (i < NGX_HTTP_INFER_NPARAMETERS && !ngx_http_infer_is(&v, NULL)
            && m->read(p, m, &v) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


reader(generate_count)
{
    p->sampled = (char *) f->name.data;

    return ngx_http_infer_f_count(p, f, value);
}


reader(generate_real)
{
    if (ngx_http_infer_f_real(p, f, value) != NGX_OK) {
        return NGX_ERROR;
    }

    if (f->offset != at(temperature) || p->ctx->req.temperature != 0) {
        p->sampled = (char *) f->name.data;
    }

    return NGX_OK;
}


reader(generate_stop)
{
    p->ctx->generate->stops = 1;

    return ngx_http_infer_f_stop(p, f, value);
}


reader(generate_flag)
{
    ngx_uint_t  b;

    if (ngx_http_infer_read_bool(p->ctx, (char *) f->name.data, value, &b)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    switch (f->offset) {
    case FLAG_DETAILS:
        p->ctx->generate->details = b;
        break;
    case FLAG_FULL:
        p->ctx->generate->full = b;
        break;
    default:
        p->sampled = b ? (char *) f->name.data : p->sampled;
    }

    return NGX_OK;
}


#undef at


/* --- the answer --------------------------------------------------------- */

void
ngx_http_infer_generate_init(ngx_http_infer_ctx_t *ctx)
{
    ngx_http_infer_generate_t  *g;

    g = ctx->generate;
    g->index = 0;
    g->npending = 0;

    if (g->full) {
        ngx_http_infer_out_json(&ctx->choices[0].text, g->input.data,
                                g->input.len);
    }
}


/* {"id":…,"text":"…","logprob":…,"special":…} */
static void
ngx_http_infer_generate_token(ngx_http_infer_out_t *out, uint32_t id,
    const u_char *text, size_t len, float logprob, ngx_uint_t special)
{
    ngx_http_infer_out(out, "{\"id\":");
    ngx_http_infer_out_number(out, id);
    ngx_http_infer_out(out, ",\"text\":\"");
    ngx_http_infer_out_text(out, text, len);
    ngx_http_infer_out(out, "\",\"logprob\":");
    ngx_http_infer_out_real(out, logprob);

    if (special) {
        ngx_http_infer_out(out, ",\"special\":true}");

    } else {
        ngx_http_infer_out(out, ",\"special\":false}");
    }
}


/* The event of a token, all but its end. */
static void
ngx_http_infer_generate_event(ngx_http_infer_ctx_t *ctx, uint32_t id,
    const u_char *text, size_t len, float logprob, ngx_uint_t special)
{
    ngx_http_infer_out(&ctx->out, "data:{\"index\":");
    ngx_http_infer_out_number(&ctx->out, ++ctx->generate->index);
    ngx_http_infer_out(&ctx->out, ",\"token\":");
    ngx_http_infer_generate_token(&ctx->out, id, text, len, logprob, special);
}


/* Events of what is pending; the last one carries the text. */
static void
ngx_http_infer_generate_flush(ngx_http_infer_ctx_t *ctx, const u_char *text,
    size_t len)
{
    ngx_uint_t                  i, last;
    shr_logprob_entry_t        *e;
    ngx_http_infer_generate_t  *g;

    g = ctx->generate;

    for (i = 0; i < g->npending; i++) {
        e = &g->pending[i];
        last = i + 1 == g->npending;
        ngx_http_infer_generate_event(ctx, e->id, text, last ? len : 0,
                                      e->logprob, 0);
        ngx_http_infer_out(&ctx->out,
                           ",\"generated_text\":null,\"details\":null}\n\n");
    }

    g->npending = 0;
}


void
ngx_http_infer_generate_text(ngx_http_infer_ctx_t *ctx, const u_char *text,
    size_t len)
{
    ngx_http_infer_generate_t  *g;

    g = ctx->generate;
    ngx_http_infer_out_json(&ctx->choices[0].text, text, len);

    if (!ctx->stream) {
        return;
    }

    if (g->npending == 0) {
        /* more of the last token's: an event of nobody's, id 0 */
        ngx_memzero(&g->pending[0], sizeof(shr_logprob_entry_t));
        g->npending = 1;
    }

    ngx_http_infer_generate_flush(ctx, text, len);
}


void
ngx_http_infer_generate_logprob(ngx_http_infer_ctx_t *ctx, const u_char *data)
{
    shr_logprob_entry_t         entry;
    ngx_http_infer_out_t       *out;
    ngx_http_infer_generate_t  *g;

    g = ctx->generate;
    data += sizeof(shr_logprob_t);
    ngx_memcpy(&entry, data, sizeof(shr_logprob_entry_t));

    if (ctx->stream) {
        if (g->npending == NGX_HTTP_INFER_PENDING_MAX) {
            ngx_http_infer_generate_flush(ctx, (u_char *) "", 0);
        }

        g->pending[g->npending++] = entry;
        return;
    }

    out = &ctx->choices[0].lists[0];

    if (g->index++ != 0) {
        ngx_http_infer_out(out, ",");
    }

    ngx_http_infer_generate_token(out, entry.id, data + sizeof(entry),
                                  entry.len, entry.logprob, 0);
}


/* {"finish_reason":…,"generated_tokens":…,"seed":…, left open */
static void
ngx_http_infer_generate_details(ngx_http_infer_ctx_t *ctx)
{
    ngx_http_infer_out_t  *out;

    out = &ctx->out;

    if (ctx->reason == SHR_FINISH_LENGTH) {
        ngx_http_infer_out(out, "{\"finish_reason\":\"length\"");

    } else if (ctx->generate->stops) {
        ngx_http_infer_out(out, "{\"finish_reason\":\"stop_sequence\"");

    } else {
        ngx_http_infer_out(out, "{\"finish_reason\":\"eos_token\"");
    }

    ngx_http_infer_out(out, ",\"generated_tokens\":");
    ngx_http_infer_out_number(out, ctx->usage.completion_tokens);

    if (ctx->req.flags & SHR_REQ_SEED) {
        ngx_http_infer_out(out, ",\"seed\":");
        ngx_http_infer_out_number(out, ctx->req.seed);

    } else {
        ngx_http_infer_out(out, ",\"seed\":null");
    }

    ngx_http_infer_out(out, ",\"input_length\":");
    ngx_http_infer_out_number(out, ctx->usage.prompt_tokens);
}


void
ngx_http_infer_generate_end(ngx_http_infer_ctx_t *ctx)
{
    ngx_http_infer_out_t  *out;

    out = &ctx->out;

    if (ctx->stream) {
        ngx_http_infer_generate_flush(ctx, (u_char *) "", 0);
        ngx_http_infer_generate_event(ctx, 0, (u_char *) "", 0, 0, 1);
        ngx_http_infer_out(out, ",\"generated_text\":\"");
        ngx_http_infer_out_splice(out, &ctx->choices[0].text);
        ngx_http_infer_out(out, "\",\"details\":");
        ngx_http_infer_generate_details(ctx);
        ngx_http_infer_out(out, "}}\n\n");
        return;
    }

    ngx_http_infer_out(out, "{\"generated_text\":\"");
    ngx_http_infer_out_splice(out, &ctx->choices[0].text);
    ngx_http_infer_out(out, "\"");

    if (ctx->generate->details) {
        ngx_http_infer_out(out, ",\"details\":");
        ngx_http_infer_generate_details(ctx);
        ngx_http_infer_out(out, ",\"prefill\":[],\"tokens\":[");
        ngx_http_infer_out_splice(out, &ctx->choices[0].lists[0]);
        ngx_http_infer_out(out, "]}");
    }

    ngx_http_infer_out(out, "}");
}
