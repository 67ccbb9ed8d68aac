/*
 * OpenAI's answer objects: chat.completion and text_completion, their chunks
 * for streams, log probabilities in both shapes, usage; and the answers of
 * tokenize and detokenize.
 *
 * An answer that is not streamed grows in one buffer chain per choice; the
 * chains are joined at the end.  A stream has one chain that is sent as it
 * grows.
 */

#include "ngx_module/ngx_http_infer_encode.h"
#include "ngx_module/ngx_http_infer_generate.h"


#define NGX_HTTP_INFER_HEAD_MAX  256     /* without the name */


static void ngx_http_infer_open_choice(ngx_http_infer_ctx_t *ctx,
    ngx_uint_t index);
static void ngx_http_infer_open_chunk(ngx_http_infer_ctx_t *ctx,
    ngx_uint_t index);
static void ngx_http_infer_close_chunk(ngx_http_infer_ctx_t *ctx,
    ngx_uint_t reason);
static void ngx_http_infer_put_logprobs(ngx_http_infer_ctx_t *ctx,
    ngx_http_infer_out_t *out, ngx_http_infer_choice_t *choice);
static void ngx_http_infer_put_usage(ngx_http_infer_ctx_t *ctx,
    ngx_http_infer_out_t *out);


#define ngx_http_infer_is_chat(ctx)  ((ctx)->req.task == SHR_TASK_CHAT)
#define ngx_http_infer_is_text(ctx)                                           \
    ((ctx)->req.task == SHR_TASK_TOKENIZE                                     \
     || (ctx)->req.task == SHR_TASK_DETOKENIZE)


/* What all objects of this answer begin with. */
static ngx_int_t
ngx_http_infer_render_head(ngx_http_infer_ctx_t *ctx)
{
    u_char     *p;
    ngx_str_t  *name;

#define put(s)  ngx_cpymem(p, s, sizeof(s) - 1)

    name = &ctx->model->name;
    p = ngx_pnalloc(ctx->request->pool, NGX_HTTP_INFER_HEAD_MAX + name->len);
    if (p == NULL) {
        return ngx_http_infer_fail(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR, NULL,
                                   NULL, "Out of memory.");
    }

    ctx->chunk.data = p;

    if (ctx->stream) {
        p = put("data: ");
    }

    p = ngx_http_infer_is_chat(ctx) ? put("{\"id\":\"chatcmpl-")
                                    : put("{\"id\":\"cmpl-");
    p = ngx_cpymem(p, ctx->id, NGX_HTTP_INFER_ID_LEN);

    if (!ngx_http_infer_is_chat(ctx)) {
        p = put("\",\"object\":\"text_completion\",\"created\":");

    } else if (ctx->stream) {
        p = put("\",\"object\":\"chat.completion.chunk\",\"created\":");

    } else {
        p = put("\",\"object\":\"chat.completion\",\"created\":");
    }

    p = ngx_sprintf(p, "%T", ngx_time());
    p = put(",\"model\":\"");
    p = ngx_cpymem(p, name->data, name->len);
    p = put("\",\"system_fingerprint\":\"fp_");
    p = ngx_cpymem(p, ctx->pool != NULL ? ctx->pool->model->fingerprint
                                        : ctx->model->fingerprint, 10);
    p = put("\",\"choices\":[");
    ctx->chunk.len = (size_t) (p - ctx->chunk.data);

#undef put

    return NGX_OK;
}


ngx_int_t
ngx_http_infer_render_init(ngx_http_infer_ctx_t *ctx)
{
    ngx_uint_t                i, k;
    ngx_pool_t               *pool;
    ngx_http_infer_choice_t  *choice;

    if (ctx->encode != NULL) {
        return ngx_http_infer_encode_init(ctx);
    }

    pool = ctx->request->pool;

    if (ctx->choices == NULL) {
        ctx->choices = ngx_palloc(pool, ctx->nchoices
                                        * sizeof(ngx_http_infer_choice_t));

        if (ctx->choices == NULL) {
            return ngx_http_infer_fail(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR,
                                       NULL, NULL, "Out of memory.");
        }
    }

    ngx_http_infer_out_init(&ctx->out, pool, ctx->stream
                            ? ctx->conf->buffer_size : 512,
                            ctx->conf->buffer_size);

    for (i = 0; i < ctx->nchoices; i++) {
        choice = &ctx->choices[i];
        ngx_memzero(choice, sizeof(ngx_http_infer_choice_t));
        ngx_http_infer_out_init(&choice->text, pool, 1024, 16384);

        for (k = 0; k < NGX_HTTP_INFER_LISTS; k++) {
            ngx_http_infer_out_init(&choice->lists[k], pool, 512, 8192);
        }
    }

    if (ctx->generate != NULL) {
        ngx_http_infer_generate_init(ctx);
        return NGX_OK;
    }

    return ctx->chunk.len == 0 ? ngx_http_infer_render_head(ctx) : NGX_OK;
}


void
ngx_http_infer_render_text(ngx_http_infer_ctx_t *ctx, ngx_uint_t index,
    const u_char *text, size_t len)
{
    ngx_http_infer_choice_t  *choice;

    choice = &ctx->choices[index];

    if (ctx->plain) {
        ngx_http_infer_out_data(&choice->text, text, len);
        return;
    }

    if (ctx->generate != NULL) {
        ngx_http_infer_generate_text(ctx, text, len);
        return;
    }

    if (!ctx->stream) {
        ngx_http_infer_open_choice(ctx, index);
        ngx_http_infer_out_json(&choice->text, text, len);
        return;
    }

    ngx_http_infer_open_chunk(ctx, index);

    if (ngx_http_infer_is_chat(ctx)) {
        ngx_http_infer_out(&ctx->out, "\"delta\":{\"content\":\"");
        ngx_http_infer_out_json(&ctx->out, text, len);
        ngx_http_infer_out(&ctx->out, "\"}");

    } else {
        ngx_http_infer_out(&ctx->out, "\"text\":\"");
        ngx_http_infer_out_json(&ctx->out, text, len);
        ngx_http_infer_out(&ctx->out, "\"");
    }

    ngx_http_infer_put_logprobs(ctx, &ctx->out, choice);
    ngx_http_infer_close_chunk(ctx, 0);
}


/* The beginning of a choice in an answer that is not streamed. */
static void
ngx_http_infer_open_choice(ngx_http_infer_ctx_t *ctx, ngx_uint_t index)
{
    ngx_http_infer_out_t  *out;

    if (ctx->choices[index].begun) {
        return;
    }

    ctx->choices[index].begun = 1;
    out = &ctx->choices[index].text;

    if (ngx_http_infer_is_text(ctx)) {
        return;
    }

    if (index == 0) {
        ngx_http_infer_out_data(out, ctx->chunk.data, ctx->chunk.len);

    } else {
        ngx_http_infer_out(out, ",");
    }

    ngx_http_infer_out(out, "{\"index\":");
    ngx_http_infer_out_number(out, index);

    if (ngx_http_infer_is_chat(ctx)) {
        ngx_http_infer_out(out, ",\"message\":{\"role\":\"assistant\","
                           "\"content\":\"");
    } else {
        ngx_http_infer_out(out, ",\"text\":\"");
    }
}


/* The first chunk of a chat's choice carries the role, never before there is
 * something to say. */
static void
ngx_http_infer_open_chunk(ngx_http_infer_ctx_t *ctx, ngx_uint_t index)
{
    ngx_http_infer_out_t  *out;

    out = &ctx->out;

    if (!ctx->choices[index].begun) {
        ctx->choices[index].begun = 1;

        if (ngx_http_infer_is_chat(ctx)) {
            ngx_http_infer_open_chunk(ctx, index);
            ngx_http_infer_out(out, "\"delta\":{\"role\":\"assistant\","
                               "\"content\":\"\"},\"logprobs\":null");
            ngx_http_infer_close_chunk(ctx, 0);
        }
    }

    ngx_http_infer_out_data(out, ctx->chunk.data, ctx->chunk.len);
    ngx_http_infer_out(out, "{\"index\":");
    ngx_http_infer_out_number(out, index);
    ngx_http_infer_out(out, ",");
}


static void
ngx_http_infer_put_reason(ngx_http_infer_out_t *out, ngx_uint_t reason)
{
    switch (reason) {
    case 0:
        ngx_http_infer_out(out, ",\"finish_reason\":null}");
        return;
    case SHR_FINISH_LENGTH:
        ngx_http_infer_out(out, ",\"finish_reason\":\"length\"}");
        return;
    default:
        ngx_http_infer_out(out, ",\"finish_reason\":\"stop\"}");
    }
}


static void
ngx_http_infer_close_chunk(ngx_http_infer_ctx_t *ctx, ngx_uint_t reason)
{
    ngx_http_infer_put_reason(&ctx->out, reason);

    if (ctx->include_usage) {
        ngx_http_infer_out(&ctx->out, "],\"usage\":null}\n\n");

    } else {
        ngx_http_infer_out(&ctx->out, "]}\n\n");
    }
}


void
ngx_http_infer_render_finish(ngx_http_infer_ctx_t *ctx, ngx_uint_t index,
    ngx_uint_t reason)
{
    ngx_http_infer_out_t     *out;
    ngx_http_infer_choice_t  *choice;

    choice = &ctx->choices[index];

    if (choice->reason != 0 || ctx->generate != NULL || ctx->plain) {
        return;                         /* a worker that repeats itself */
    }

    choice->reason = reason;

    if (!ctx->stream) {
        ngx_http_infer_open_choice(ctx, index);
        out = &choice->text;

        if (ngx_http_infer_is_chat(ctx)) {
            ngx_http_infer_out(out, "\",\"refusal\":null}");

        } else if (!ngx_http_infer_is_text(ctx)) {
            ngx_http_infer_out(out, "\"");

        } else {
            return;
        }

        ngx_http_infer_put_logprobs(ctx, out, choice);
        ngx_http_infer_put_reason(out, reason);
        return;
    }

    ngx_http_infer_open_chunk(ctx, index);

    if (ngx_http_infer_is_chat(ctx)) {
        ngx_http_infer_out(&ctx->out, "\"delta\":{}");

    } else {
        ngx_http_infer_out(&ctx->out, "\"text\":\"\"");
    }

    ngx_http_infer_put_logprobs(ctx, &ctx->out, choice);
    ngx_http_infer_close_chunk(ctx, reason);
}


/* What was collected since the last time, or null. */
static void
ngx_http_infer_put_logprobs(ngx_http_infer_ctx_t *ctx,
    ngx_http_infer_out_t *out, ngx_http_infer_choice_t *choice)
{
    ngx_uint_t          i;
    static const char  *names[NGX_HTTP_INFER_LISTS] = {
        "{\"tokens\":[", "],\"token_logprobs\":[", "],\"top_logprobs\":[",
        "],\"text_offset\":["
    };

    if (choice->nlogprobs == 0) {
        ngx_http_infer_out(out, ",\"logprobs\":null");
        return;
    }

    choice->nlogprobs = 0;

    if (ctx->stream) {
        ctx->bytes -= choice->held;
        choice->held = 0;
    }

    ngx_http_infer_out(out, ",\"logprobs\":");

    if (ngx_http_infer_is_chat(ctx)) {
        ngx_http_infer_out(out, "{\"content\":[");
        ngx_http_infer_out_copy(out, &choice->lists[0]);
        ngx_http_infer_out(out, "],\"refusal\":null}");
        return;
    }

    for (i = 0; i < NGX_HTTP_INFER_LISTS; i++) {
        ngx_http_infer_out_data(out, names[i], ngx_strlen(names[i]));
        ngx_http_infer_out_copy(out, &choice->lists[i]);
    }

    ngx_http_infer_out(out, "]}");
}


/* One entry of a SHR_F_LOGPROB frame, already checked to lie inside it. */
static const u_char *
ngx_http_infer_entry(const u_char *p, shr_logprob_entry_t *entry,
    const u_char **text)
{
    ngx_memcpy(entry, p, sizeof(shr_logprob_entry_t));
    *text = p + sizeof(shr_logprob_entry_t);

    return *text + ((entry->len + 3) & ~3u);
}


/* The first token of an echoed prompt follows nothing: it has none. */
static void
ngx_http_infer_put_logprob(ngx_http_infer_out_t *out, float logprob)
{
    if (logprob > 0) {
        ngx_http_infer_out(out, "null");

    } else {
        ngx_http_infer_out_real(out, logprob);
    }
}


/* {"token":…,"logprob":…,"bytes":[…]; the caller closes it. */
static void
ngx_http_infer_put_entry(ngx_http_infer_out_t *out,
    shr_logprob_entry_t *entry, const u_char *text)
{
    uint32_t  i;

    ngx_http_infer_out(out, "{\"token\":\"");
    ngx_http_infer_out_text(out, text, entry->len);
    ngx_http_infer_out(out, "\",\"logprob\":");
    ngx_http_infer_put_logprob(out, entry->logprob);
    ngx_http_infer_out(out, ",\"bytes\":[");

    for (i = 0; i < entry->len; i++) {
        if (i != 0) {
            ngx_http_infer_out(out, ",");
        }

        ngx_http_infer_out_number(out, text[i]);
    }

    ngx_http_infer_out(out, "]");
}


static void
ngx_http_infer_logprob_chat(ngx_http_infer_choice_t *choice,
    const u_char *p, uint32_t n)
{
    uint32_t               i;
    const u_char          *text;
    shr_logprob_entry_t    entry;
    ngx_http_infer_out_t  *out;

    out = &choice->lists[0];

    if (choice->nlogprobs != 0) {
        ngx_http_infer_out(out, ",");
    }

    p = ngx_http_infer_entry(p, &entry, &text);
    ngx_http_infer_put_entry(out, &entry, text);
    ngx_http_infer_out(out, ",\"top_logprobs\":[");

    for (i = 1; i < n; i++) {
        if (i != 1) {
            ngx_http_infer_out(out, ",");
        }

        p = ngx_http_infer_entry(p, &entry, &text);
        ngx_http_infer_put_entry(out, &entry, text);
        ngx_http_infer_out(out, "}");
    }

    ngx_http_infer_out(out, "]}");
}


static void
ngx_http_infer_logprob_text(ngx_http_infer_choice_t *choice,
    const u_char *p, shr_logprob_t *lp)
{
    uint32_t               i;
    const u_char          *text;
    shr_logprob_entry_t    entry;
    ngx_http_infer_out_t  *lists;

    lists = choice->lists;

    for (i = 0; choice->nlogprobs != 0 && i < NGX_HTTP_INFER_LISTS; i++) {
        ngx_http_infer_out(&lists[i], ",");
    }

    p = ngx_http_infer_entry(p, &entry, &text);

    ngx_http_infer_out(&lists[0], "\"");
    ngx_http_infer_out_token(&lists[0], text, entry.len);
    ngx_http_infer_out(&lists[0], "\"");
    ngx_http_infer_put_logprob(&lists[1], entry.logprob);
    ngx_http_infer_out_number(&lists[3], lp->text_offset);

    if (entry.logprob > 0) {
        ngx_http_infer_out(&lists[2], "null");
        return;
    }

    ngx_http_infer_out(&lists[2], "{");

    for (i = 1; i < lp->nentries; i++) {
        p = ngx_http_infer_entry(p, &entry, &text);

        if (i != 1) {
            ngx_http_infer_out(&lists[2], ",");
        }

        ngx_http_infer_out(&lists[2], "\"");
        ngx_http_infer_out_token(&lists[2], text, entry.len);
        ngx_http_infer_out(&lists[2], "\":");
        ngx_http_infer_out_real(&lists[2], entry.logprob);
    }

    ngx_http_infer_out(&lists[2], "}");
}


void
ngx_http_infer_render_logprob(ngx_http_infer_ctx_t *ctx, ngx_uint_t index,
    const u_char *data, size_t len)
{
    shr_logprob_t             lp;
    ngx_http_infer_choice_t  *choice;

    if (ctx->generate != NULL) {
        ngx_http_infer_generate_logprob(ctx, data);
        return;
    }

    choice = &ctx->choices[index];
    ngx_memcpy(&lp, data, sizeof(shr_logprob_t));
    data += sizeof(shr_logprob_t);

    if (ngx_http_infer_is_chat(ctx)) {
        ngx_http_infer_logprob_chat(choice, data, lp.nentries);

    } else {
        ngx_http_infer_logprob_text(choice, data, &lp);
    }

    choice->nlogprobs++;
    choice->held += sizeof(shr_frame_t) + len;
}


/* Numbers, or pairs of them: token ids, offsets. */
void
ngx_http_infer_render_ids(ngx_http_infer_ctx_t *ctx, ngx_uint_t pairs,
    const u_char *data, size_t len)
{
    uint32_t               n;
    const u_char          *last;
    ngx_http_infer_out_t  *out;

    out = pairs ? &ctx->choices[0].lists[0] : &ctx->choices[0].text;
    last = data + len;

    for (/* void */; data < last; data += sizeof(n)) {
        if (out->head != NULL) {
            ngx_http_infer_out(out, ",");
        }

        ngx_memcpy(&n, data, sizeof(n));

        if (pairs) {
            ngx_http_infer_out(out, "[");
            ngx_http_infer_out_number(out, n);
            ngx_http_infer_out(out, ",");
            data += sizeof(n);
            ngx_memcpy(&n, data, sizeof(n));
            ngx_http_infer_out_number(out, n);
            ngx_http_infer_out(out, "]");
            continue;
        }

        ngx_http_infer_out_number(out, n);
        ctx->nids++;
    }
}


static void
ngx_http_infer_put_usage(ngx_http_infer_ctx_t *ctx, ngx_http_infer_out_t *out)
{
    shr_usage_t  *u;

    u = &ctx->usage;

    ngx_http_infer_out(out, "\"usage\":{\"prompt_tokens\":");
    ngx_http_infer_out_number(out, u->prompt_tokens);
    ngx_http_infer_out(out, ",\"completion_tokens\":");
    ngx_http_infer_out_number(out, u->completion_tokens);
    ngx_http_infer_out(out, ",\"total_tokens\":");
    ngx_http_infer_out_number(out, (uint64_t) u->prompt_tokens
                                   + u->completion_tokens);
    ngx_http_infer_out(out, ",\"prompt_tokens_details\":{\"cached_tokens\":");
    ngx_http_infer_out_number(out, u->cached_tokens);
    ngx_http_infer_out(out, "},\"completion_tokens_details\":"
                       "{\"reasoning_tokens\":0}}");
}


static void
ngx_http_infer_end_text(ngx_http_infer_ctx_t *ctx)
{
    shr_worker_info_t         info;
    ngx_http_infer_out_t     *out;
    ngx_http_infer_choice_t  *choice;

    out = &ctx->out;
    choice = &ctx->choices[0];

    if (ctx->req.task == SHR_TASK_DETOKENIZE) {
        ngx_http_infer_out(out, "{\"prompt\":\"");
        ngx_http_infer_out_splice(out, &choice->text);
        ngx_http_infer_out(out, "\",\"model\":\"");

    } else {
        ngx_http_infer_out(out, "{\"tokens\":[");
        ngx_http_infer_out_splice(out, &choice->text);
        ngx_http_infer_out(out, "]");

        if (ctx->req.flags & SHR_REQ_OFFSETS) {
            ngx_http_infer_out(out, ",\"offsets\":[");
            ngx_http_infer_out_splice(out, &choice->lists[0]);
            ngx_http_infer_out(out, "]");
        }

        shr_client_info(ctx->pool->client, ctx->worker, &info);
        ngx_http_infer_out(out, ",\"count\":");
        ngx_http_infer_out_number(out, ctx->nids);
        ngx_http_infer_out(out, ",\"max_model_len\":");
        ngx_http_infer_out_number(out, info.counters[SHR_G_CONTEXT]);
        ngx_http_infer_out(out, ",\"model\":\"");
    }

    ngx_http_infer_out_data(out, ctx->model->name.data, ctx->model->name.len);
    ngx_http_infer_out(out, "\"}");
}


void
ngx_http_infer_render_end(ngx_http_infer_ctx_t *ctx)
{
    ngx_uint_t             i;
    ngx_http_infer_out_t  *out;

    out = &ctx->out;

    if (ctx->generate != NULL) {
        ngx_http_infer_generate_end(ctx);
        return;
    }

    if (ngx_http_infer_is_text(ctx)) {
        ngx_http_infer_end_text(ctx);
        return;
    }

    /* a choice that its worker has forgotten still gets its end */
    for (i = 0; i < ctx->nchoices; i++) {
        ngx_http_infer_render_finish(ctx, i, SHR_FINISH_STOP);
    }

    if (!ctx->stream) {
        for (i = 0; i < ctx->nchoices; i++) {
            ngx_http_infer_out_splice(out, &ctx->choices[i].text);
        }

        ngx_http_infer_out(out, "],");
        ngx_http_infer_put_usage(ctx, out);
        ngx_http_infer_out(out, "}");
        return;
    }

    if (ctx->include_usage) {
        ngx_http_infer_out_data(out, ctx->chunk.data, ctx->chunk.len);
        ngx_http_infer_out(out, "],");
        ngx_http_infer_put_usage(ctx, out);
        ngx_http_infer_out(out, "}\n\n");
    }

    ngx_http_infer_out(out, "data: [DONE]\n\n");
}
