/*
 * Results of encoders as answers.  Values come as a table, row by row, in
 * pieces of any size: vectors are written as they come, scores are kept until
 * they can be sorted.
 */

#include "ngx_module/ngx_http_infer_encode.h"


#define NGX_HTTP_INFER_VALUES_BUF  4096     /* text of one turn */
#define NGX_HTTP_INFER_VALUES_OUT  65536    /* largest buffer of an answer */


static ngx_int_t ngx_http_infer_values_first(ngx_http_infer_ctx_t *ctx,
    shr_values_t *head);
static void ngx_http_infer_values_part(ngx_http_infer_ctx_t *ctx,
    const float *v, ngx_uint_t n);
static void ngx_http_infer_values_head(ngx_http_infer_ctx_t *ctx);


ngx_int_t
ngx_http_infer_encode_init(ngx_http_infer_ctx_t *ctx)
{
    ngx_http_infer_encode_t  *e;

    e = ctx->encode;
    e->width = 0;
    e->row = 0;
    e->at = 0;
    e->sum = 0;
    e->nlabels = 0;
    e->letters.nkept = 0;

    if (e->scores == NULL && (ctx->api == NGX_HTTP_INFER_RERANK
                              || ctx->api == NGX_HTTP_INFER_SIMILARITY))
    {
        e->scores = ngx_palloc(ctx->request->pool, ctx->nchoices
                               * sizeof(ngx_http_infer_scored_t));
        if (e->scores == NULL) {
            goto failed;
        }
    }

    if (e->labels == NULL && ctx->req.task == SHR_TASK_CLASSIFY) {
        e->labels = ngx_palloc(ctx->request->pool, NGX_HTTP_INFER_LABELS_MAX
                               * sizeof(ngx_str_t));
        if (e->labels == NULL) {
            goto failed;
        }
    }

    ngx_http_infer_out_init(&ctx->out, ctx->request->pool, 4096,
                            NGX_HTTP_INFER_VALUES_OUT);
    ngx_http_infer_values_head(ctx);

    return NGX_OK;

failed:

    return ngx_http_infer_fail(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR, NULL,
                               NULL, "Out of memory.");
}


/* Names are kept as they come: what they hold is escaped when it is told. */
ngx_int_t
ngx_http_infer_encode_labels(ngx_http_infer_ctx_t *ctx, const u_char *data,
    size_t len)
{
    size_t                    n;
    u_char                   *p;
    ngx_http_infer_encode_t  *e;

    e = ctx->encode;

    if (e->labels == NULL || e->width != 0) {
        return NGX_ERROR;
    }

    p = ngx_pnalloc(ctx->request->pool, len);
    if (p == NULL) {
        ctx->out.failed = 1;
        return NGX_OK;
    }

    ngx_memcpy(p, data, len);

    for ( /* void */ ; len != 0; p += n, len -= n) {
        if (e->nlabels == NGX_HTTP_INFER_LABELS_MAX) {
            return NGX_ERROR;
        }

        /* the frame's last byte is a NUL */
        e->labels[e->nlabels].data = p;
        e->labels[e->nlabels].len = ngx_strlen(p);
        n = e->labels[e->nlabels++].len + 1;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_infer_encode_values(ngx_http_infer_ctx_t *ctx, ngx_uint_t row,
    const u_char *data, size_t len)
{
    ngx_uint_t                n, part;
    shr_values_t              head;
    ngx_http_infer_encode_t  *e;
    float                     v[SHR_VALUES_MAX];

    e = ctx->encode;
    ngx_memcpy(&head, data, sizeof(shr_values_t));
    n = (len - sizeof(shr_values_t)) / sizeof(float);
    ngx_memcpy(v, data + sizeof(shr_values_t), n * sizeof(float));

    if (e->width == 0 && ngx_http_infer_values_first(ctx, &head) != NGX_OK) {
        return NGX_ERROR;
    }

    if (row != e->row || head.at != e->at || head.width != e->width
        || n > (ctx->nchoices - e->row) * e->width - e->at)
    {
        return NGX_ERROR;
    }

    for (data = (u_char *) v; n != 0; n -= part) {
        part = ngx_min(n, e->width - e->at);
        ngx_http_infer_values_part(ctx, (const float *) data, part);
        data += part * sizeof(float);
        e->at += part;

        if (e->at == e->width) {
            e->at = 0;
            e->row++;
        }
    }

    return NGX_OK;
}


/* The width is the worker's word, within what the request asked for. */
static ngx_int_t
ngx_http_infer_values_first(ngx_http_infer_ctx_t *ctx, shr_values_t *head)
{
    ngx_http_infer_encode_t  *e;

    e = ctx->encode;

    if ((ctx->api == NGX_HTTP_INFER_RERANK && head->width != 1)
        || (e->labels != NULL && head->width != e->nlabels)
        || (ctx->req.dims != 0 && head->width != ctx->req.dims))
    {
        return NGX_ERROR;
    }

    e->width = head->width;

    if (ctx->api == NGX_HTTP_INFER_SIMILARITY || e->labels != NULL) {
        e->values = ngx_palloc(ctx->request->pool,
                               e->width * sizeof(float));
        if (e->values == NULL) {
            ctx->out.failed = 1;
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* --- writing ------------------------------------------------------------ */

/* Numbers with commas between them. */
static void
ngx_http_infer_put_floats(ngx_http_infer_out_t *out, const float *v,
    ngx_uint_t n, ngx_uint_t first)
{
    u_char      buf[NGX_HTTP_INFER_VALUES_BUF], *p;
    ngx_uint_t  i;

    p = buf;

    for (i = 0; i < n; i++) {
        if (buf + sizeof(buf) - p < NGX_HTTP_INFER_FLOAT_ROOM + 1)
        {
            ngx_http_infer_out_data(out, buf, (size_t) (p - buf));
            p = buf;
        }

        if (i != 0 || !first) {
            *p++ = ',';
        }

        p = ngx_http_infer_float(p, v[i]);
    }

    ngx_http_infer_out_data(out, buf, (size_t) (p - buf));
}


static void
ngx_http_infer_put_float(ngx_http_infer_out_t *out, float v)
{
    ngx_http_infer_put_floats(out, &v, 1, 1);
}


/* The bytes of binary32, the least significant first. */
static void
ngx_http_infer_put_base64(ngx_http_infer_encode_t *e,
    ngx_http_infer_out_t *out, const float *v, ngx_uint_t n, ngx_uint_t last)
{
    u_char  buf[SHR_PAYLOAD_MAX * 4 / 3 + 8], *p;

#if !(NGX_HAVE_LITTLE_ENDIAN)
#error "floats go out as they lie in memory"
#endif

    p = ngx_http_infer_base64(&e->letters, buf, v, n * sizeof(float));

    if (last) {
        p = ngx_http_infer_base64_end(&e->letters, p);
    }

    ngx_http_infer_out_data(out, buf, (size_t) (p - buf));
}


static void
ngx_http_infer_put_string(ngx_http_infer_out_t *out, const u_char *data,
    size_t len)
{
    ngx_http_infer_out(out, "\"");
    ngx_http_infer_out_text(out, data, len);
    ngx_http_infer_out(out, "\"");
}


/* A part of a vector's row, as it is told. */
static void
ngx_http_infer_values_vector(ngx_http_infer_ctx_t *ctx, const float *v,
    ngx_uint_t n)
{
    ngx_uint_t                first, last, openai;
    ngx_http_infer_out_t     *out;
    ngx_http_infer_encode_t  *e;

    e = ctx->encode;
    out = &ctx->out;
    openai = ctx->api == NGX_HTTP_INFER_EMBEDDINGS;
    first = e->at == 0;
    last = e->at + n == e->width;

    if (first && e->row != 0) {
        ngx_http_infer_out(out, ",");
    }

    if (first && openai) {
        ngx_http_infer_out(out, "{\"object\":\"embedding\",\"index\":");
        ngx_http_infer_out_number(out, e->row);
        ngx_http_infer_out(out, ",\"embedding\":");
    }

    if (e->base64) {
        if (first) {
            ngx_http_infer_out(out, "\"");
        }

        ngx_http_infer_put_base64(e, out, v, n, last);

        if (last) {
            ngx_http_infer_out(out, "\"}");
        }

        return;
    }

    if (first) {
        ngx_http_infer_out(out, "[");
    }

    ngx_http_infer_put_floats(out, v, n, first);

    if (last) {
        ngx_http_infer_out(out, "]");
    }

    if (last && openai) {
        ngx_http_infer_out(out, "}");
    }
}


/* The vectors have the length 1: their product is the cosine. */
static void
ngx_http_infer_values_product(ngx_http_infer_encode_t *e, const float *v,
    ngx_uint_t n)
{
    ngx_uint_t  i;

    if (e->row == 0) {
        ngx_memcpy(e->values + e->at, v, n * sizeof(float));
        return;
    }

    for (i = 0; i < n; i++) {
        e->sum += (double) v[i] * (double) e->values[e->at + i];
    }

    if (e->at + n == e->width) {
        e->scores[e->row - 1].score = (float) e->sum;
        e->sum = 0;
    }
}


/* The highest first, equal ones as they came; gaps after Ciura 2001. */
static void
ngx_http_infer_values_sort(ngx_http_infer_scored_t *s, ngx_uint_t n)
{
    ngx_uint_t                g, gap, i, k;
    ngx_http_infer_scored_t   one;
    static const ngx_uint_t   gaps[] = { 701, 301, 132, 57, 23, 10, 4, 1 };

    for (g = 0; g < sizeof(gaps) / sizeof(gaps[0]); g++) {
        gap = gaps[g];

        for (i = gap; i < n; i++) {
            one = s[i];

            for (k = i; k >= gap
                 && (s[k - gap].score < one.score
                     || (s[k - gap].score == one.score
                         && s[k - gap].index > one.index)); k -= gap)
            {
                s[k] = s[k - gap];
            }

            s[k] = one;
        }
    }
}


/* [{"score":…,"label":…}, …], the likeliest first. */
static void
ngx_http_infer_values_predicted(ngx_http_infer_ctx_t *ctx)
{
    ngx_uint_t                i;
    ngx_str_t                *label;
    ngx_http_infer_out_t     *out;
    ngx_http_infer_encode_t  *e;
    ngx_http_infer_scored_t   s[NGX_HTTP_INFER_LABELS_MAX];

    e = ctx->encode;
    out = &ctx->out;

    for (i = 0; i < e->width; i++) {
        s[i].score = e->values[i];
        s[i].index = (uint32_t) i;
    }

    ngx_http_infer_values_sort(s, e->width);
    ngx_http_infer_out(out, "[");

    for (i = 0; i < e->width; i++) {
        label = &e->labels[s[i].index];

        if (i != 0) {
            ngx_http_infer_out(out, ",");
        }

        ngx_http_infer_out(out, "{\"score\":");
        ngx_http_infer_put_float(out, s[i].score);
        ngx_http_infer_out(out, ",\"label\":");
        ngx_http_infer_put_string(out, label->data, label->len);
        ngx_http_infer_out(out, "}");
    }

    ngx_http_infer_out(out, "]");
}


/* {"index":…,"label":…,"probs":[…],"num_classes":…} */
static void
ngx_http_infer_values_classified(ngx_http_infer_ctx_t *ctx)
{
    ngx_uint_t                i, best;
    ngx_str_t                *label;
    ngx_http_infer_out_t     *out;
    ngx_http_infer_encode_t  *e;

    e = ctx->encode;
    out = &ctx->out;

    for (i = 1, best = 0; i < e->width; i++) {
        best = e->values[i] > e->values[best] ? i : best;
    }

    label = &e->labels[best];
    ngx_http_infer_out(out, "{\"index\":");
    ngx_http_infer_out_number(out, e->row);
    ngx_http_infer_out(out, ",\"label\":");
    ngx_http_infer_put_string(out, label->data, label->len);
    ngx_http_infer_out(out, ",\"probs\":[");
    ngx_http_infer_put_floats(out, e->values, e->width, 1);
    ngx_http_infer_out(out, "],\"num_classes\":");
    ngx_http_infer_out_number(out, e->width);
    ngx_http_infer_out(out, "}");
}


/* n values of the current row, never more than its rest. */
static void
ngx_http_infer_values_part(ngx_http_infer_ctx_t *ctx, const float *v,
    ngx_uint_t n)
{
    ngx_http_infer_encode_t  *e;

    e = ctx->encode;

    switch (ctx->api) {

    case NGX_HTTP_INFER_SIMILARITY:
        ngx_http_infer_values_product(e, v, n);
        return;

    case NGX_HTTP_INFER_RERANK:
        e->scores[e->row].score = v[0];
        e->scores[e->row].index = (uint32_t) e->row;
        return;

    case NGX_HTTP_INFER_CLASSIFY:
    case NGX_HTTP_INFER_PREDICT:
    case NGX_HTTP_INFER_LABEL:
        ngx_memcpy(e->values + e->at, v, n * sizeof(float));

        if (e->at + n < e->width || ctx->api == NGX_HTTP_INFER_LABEL) {
            return;
        }

        if (e->row != 0) {
            ngx_http_infer_out(&ctx->out, ",");
        }

        if (ctx->api == NGX_HTTP_INFER_PREDICT) {
            ngx_http_infer_values_predicted(ctx);

        } else {
            ngx_http_infer_values_classified(ctx);
        }

        return;

    default:
        ngx_http_infer_values_vector(ctx, v, n);
    }
}


/* --- around the values -------------------------------------------------- */

static void
ngx_http_infer_put_id(ngx_http_infer_ctx_t *ctx, const char *kind)
{
    ngx_http_infer_out_t  *out;

    out = &ctx->out;
    ngx_http_infer_out(out, "{\"id\":\"");
    ngx_http_infer_out_data(out, kind, ngx_strlen(kind));
    ngx_http_infer_out(out, "-");
    ngx_http_infer_out_data(out, ctx->id, NGX_HTTP_INFER_ID_LEN);
    ngx_http_infer_out(out, "\",");
}


static void
ngx_http_infer_put_model(ngx_http_infer_ctx_t *ctx)
{
    ngx_http_infer_out(&ctx->out, "\"model\":\"");
    ngx_http_infer_out_data(&ctx->out, ctx->model->name.data,
                            ctx->model->name.len);
    ngx_http_infer_out(&ctx->out, "\"");
}


static void
ngx_http_infer_values_usage(ngx_http_infer_ctx_t *ctx)
{
    ngx_http_infer_out(&ctx->out, "\"usage\":{\"prompt_tokens\":");
    ngx_http_infer_out_number(&ctx->out, ctx->usage.prompt_tokens);
    ngx_http_infer_out(&ctx->out, ",\"total_tokens\":");
    ngx_http_infer_out_number(&ctx->out, ctx->usage.prompt_tokens);
    ngx_http_infer_out(&ctx->out, "}");
}


/* What stands before the first value. */
static void
ngx_http_infer_values_head(ngx_http_infer_ctx_t *ctx)
{
    ngx_http_infer_out_t  *out;

    out = &ctx->out;

    switch (ctx->api) {

    case NGX_HTTP_INFER_EMBEDDINGS:
        ngx_http_infer_out(out, "{\"object\":\"list\",\"data\":[");
        return;

    case NGX_HTTP_INFER_EMBED:
        ngx_http_infer_out(out, "[");
        return;

    case NGX_HTTP_INFER_PREDICT:
        if (!ctx->encode->single) {
            ngx_http_infer_out(out, "[");
        }
        return;

    case NGX_HTTP_INFER_CLASSIFY:
        ngx_http_infer_put_id(ctx, "classify");
        ngx_http_infer_out(out, "\"object\":\"list\",\"created\":");
        ngx_http_infer_out_number(out, (uint64_t) ngx_time());
        ngx_http_infer_out(out, ",");
        ngx_http_infer_put_model(ctx);
        ngx_http_infer_out(out, ",\"data\":[");
        return;

    default:                            /* nothing is known before the end */
        return;
    }
}


/* The texts in the order of their scores. */
static void
ngx_http_infer_values_ranked(ngx_http_infer_ctx_t *ctx)
{
    ngx_str_t                *text;
    ngx_uint_t                i, n;
    ngx_http_infer_out_t     *out;
    ngx_http_infer_encode_t  *e;

    e = ctx->encode;
    out = &ctx->out;
    n = e->top != 0 ? ngx_min(e->top, ctx->nchoices) : ctx->nchoices;
    ngx_http_infer_values_sort(e->scores, ctx->nchoices);

    if (e->documents) {
        ngx_http_infer_put_id(ctx, "rerank");
        ngx_http_infer_put_model(ctx);
        ngx_http_infer_out(out, ",\"results\":[");

    } else {
        ngx_http_infer_out(out, "[");
    }

    for (i = 0; i < n; i++) {
        text = &e->texts[e->scores[i].index];

        if (i != 0) {
            ngx_http_infer_out(out, ",");
        }

        ngx_http_infer_out(out, "{\"index\":");
        ngx_http_infer_out_number(out, e->scores[i].index);

        if (e->return_text) {
            if (e->documents) {
                ngx_http_infer_out(out, ",\"document\":{\"text\":");
                ngx_http_infer_put_string(out, text->data, text->len);
                ngx_http_infer_out(out, "}");

            } else {
                ngx_http_infer_out(out, ",\"text\":");
                ngx_http_infer_put_string(out, text->data, text->len);
            }
        }

        if (e->documents) {
            ngx_http_infer_out(out, ",\"relevance_score\":");

        } else {
            ngx_http_infer_out(out, ",\"score\":");
        }

        ngx_http_infer_put_float(out, e->scores[i].score);
        ngx_http_infer_out(out, "}");
    }

    ngx_http_infer_out(out, "]");
}


ngx_int_t
ngx_http_infer_encode_end(ngx_http_infer_ctx_t *ctx)
{
    ngx_uint_t                i;
    ngx_http_infer_out_t     *out;
    ngx_http_infer_encode_t  *e;

    e = ctx->encode;
    out = &ctx->out;

    if (e->row != ctx->nchoices) {
        return NGX_ERROR;
    }

    switch (ctx->api) {

    case NGX_HTTP_INFER_EMBEDDINGS:
        ngx_http_infer_out(out, "],");
        ngx_http_infer_put_model(ctx);
        ngx_http_infer_out(out, ",");
        ngx_http_infer_values_usage(ctx);
        ngx_http_infer_out(out, "}");
        break;

    case NGX_HTTP_INFER_CLASSIFY:
        ngx_http_infer_out(out, "],");
        ngx_http_infer_values_usage(ctx);
        ngx_http_infer_out(out, "}");
        break;

    case NGX_HTTP_INFER_RERANK:
        ngx_http_infer_values_ranked(ctx);

        if (e->documents) {
            ngx_http_infer_out(out, ",");
            ngx_http_infer_values_usage(ctx);
            ngx_http_infer_out(out, "}");
        }
        break;

    case NGX_HTTP_INFER_SIMILARITY:
        for (i = 0; i + 1 < ctx->nchoices; i++) {
            ngx_http_infer_out_data(out, i == 0 ? "[" : ",", 1);
            ngx_http_infer_put_float(out, e->scores[i].score);
        }

        ngx_http_infer_out(out, "]");
        break;

    case NGX_HTTP_INFER_LABEL:
        break;

    case NGX_HTTP_INFER_PREDICT:
        if (!e->single) {
            ngx_http_infer_out(out, "]");
        }
        break;

    default:
        ngx_http_infer_out(out, "]");
    }

    return NGX_OK;
}
