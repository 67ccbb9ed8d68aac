/*
 * Counters and histograms in memory that all nginx workers share; they are
 * made once by the first master and kept over reloads, found by the model's
 * name.  Prometheus text is rendered from them and from what the inference
 * workers say of themselves.
 */

#include "ngx_module/ngx_http_infer_api.h"

#include <sys/mman.h>


#define NGX_HTTP_INFER_BUCKETS_MAX  20


typedef enum {
    NGX_HTTP_INFER_END_STOP = 0,
    NGX_HTTP_INFER_END_LENGTH,
    NGX_HTTP_INFER_END_CANCELLED,
    NGX_HTTP_INFER_END_ERROR,
    NGX_HTTP_INFER_NENDS
} ngx_http_infer_end_e;

typedef enum {
    NGX_HTTP_INFER_H_FIRST = 0,
    NGX_HTTP_INFER_H_GAP,
    NGX_HTTP_INFER_H_QUEUE,
    NGX_HTTP_INFER_H_TOTAL,
    NGX_HTTP_INFER_NHISTOGRAMS
} ngx_http_infer_histogram_e;

typedef struct {
    ngx_atomic_t               bucket[NGX_HTTP_INFER_BUCKETS_MAX + 1];
    ngx_atomic_t               sum_us;
} ngx_http_infer_histogram_t;

typedef struct {
    u_char                     name[NGX_HTTP_INFER_NAME_MAX + 1];
    ngx_atomic_t               ends[NGX_HTTP_INFER_NENDS];
    ngx_atomic_t               shed[NGX_HTTP_INFER_NSHED];
    ngx_atomic_t               retries;
    ngx_atomic_t               prompt_tokens;
    ngx_atomic_t               cached_tokens;
    ngx_atomic_t               tokens;
    ngx_http_infer_histogram_t histograms[NGX_HTTP_INFER_NHISTOGRAMS];
} ngx_http_infer_metrics_t;


/* Upper bounds in seconds, as text for the label and in microseconds. */
typedef struct {
    const char                *le;
    uint64_t                   us;
} ngx_http_infer_bound_t;

typedef struct {
    const char                *name;
    const char                *help;
    ngx_uint_t                 n;
    ngx_http_infer_bound_t     bounds[NGX_HTTP_INFER_BUCKETS_MAX];
} ngx_http_infer_bounds_t;


/* The sets of OpenTelemetry's GenAI conventions; slow CPUs need a few more. */
static const ngx_http_infer_bounds_t  ngx_http_infer_bounds[] = {

    { "time_to_first_token_seconds",
      "From the accepted request to its first text", 19,
      { { "0.001", 1000 }, { "0.005", 5000 }, { "0.01", 10000 },
        { "0.02", 20000 }, { "0.04", 40000 }, { "0.06", 60000 },
        { "0.08", 80000 }, { "0.1", 100000 }, { "0.25", 250000 },
        { "0.5", 500000 }, { "0.75", 750000 }, { "1", 1000000 },
        { "2.5", 2500000 }, { "5", 5000000 }, { "7.5", 7500000 },
        { "10", 10000000 }, { "20", 20000000 }, { "40", 40000000 },
        { "80", 80000000 } } },

    { "inter_token_seconds",
      "Between two tokens of a request, as nginx saw them", 13,
      { { "0.01", 10000 }, { "0.025", 25000 }, { "0.05", 50000 },
        { "0.075", 75000 }, { "0.1", 100000 }, { "0.15", 150000 },
        { "0.2", 200000 }, { "0.3", 300000 }, { "0.4", 400000 },
        { "0.5", 500000 }, { "0.75", 750000 }, { "1", 1000000 },
        { "2.5", 2500000 } } },

    { "queue_seconds",
      "From the accepted request to its first step", 16,
      { { "0.001", 1000 }, { "0.005", 5000 }, { "0.01", 10000 },
        { "0.02", 20000 }, { "0.04", 40000 }, { "0.06", 60000 },
        { "0.08", 80000 }, { "0.1", 100000 }, { "0.25", 250000 },
        { "0.5", 500000 }, { "0.75", 750000 }, { "1", 1000000 },
        { "2.5", 2500000 }, { "5", 5000000 }, { "7.5", 7500000 },
        { "10", 10000000 } } },

    { "request_duration_seconds",
      "From the accepted request to its end", 14,
      { { "0.01", 10000 }, { "0.02", 20000 }, { "0.04", 40000 },
        { "0.08", 80000 }, { "0.16", 160000 }, { "0.32", 320000 },
        { "0.64", 640000 }, { "1.28", 1280000 }, { "2.56", 2560000 },
        { "5.12", 5120000 }, { "10.24", 10240000 }, { "20.48", 20480000 },
        { "40.96", 40960000 }, { "81.92", 81920000 } } },
};

static const char  *ngx_http_infer_ends[] = {
    "stop", "length", "cancelled", "error"
};

static const char  *ngx_http_infer_sheds[] = {
    "queue_full", "no_room", "queue_timeout", "unavailable", "displaced",
    "deadline", "token_limit", "concurrency_limit"
};


/* Shared by all processes; [NGX_HTTP_INFER_MODELS_MAX]. */
static ngx_http_infer_metrics_t  *ngx_http_infer_metrics;
/* Of this configuration's models, by their index. */
static ngx_http_infer_metrics_t  *ngx_http_infer_metrics_of[
                                      NGX_HTTP_INFER_MODELS_MAX];


ngx_int_t
ngx_http_infer_metrics_init(ngx_cycle_t *cycle,
    ngx_http_infer_main_conf_t *imcf)
{
    void                      *p;
    ngx_uint_t                 i, k;
    ngx_http_infer_model_t   **models;

    if (ngx_http_infer_metrics == NULL) {
        p = mmap(NULL, NGX_HTTP_INFER_MODELS_MAX
                       * sizeof(ngx_http_infer_metrics_t),
                 PROT_READ|PROT_WRITE, MAP_ANON|MAP_SHARED, -1, 0);

        if (p == MAP_FAILED) {
            ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_errno,
                          "mmap() of metrics failed");
            return NGX_ERROR;
        }

        ngx_http_infer_metrics = p;
    }

    models = imcf->models.elts;

    for (i = 0; i < imcf->models.nelts; i++) {
        ngx_http_infer_metrics_of[i] = NULL;

        for (k = 0; k < NGX_HTTP_INFER_MODELS_MAX; k++) {

            if (ngx_http_infer_metrics[k].name[0] == '\0') {
                ngx_memcpy(ngx_http_infer_metrics[k].name,
                           models[i]->name.data, models[i]->name.len);
            }

            if (ngx_strcmp(ngx_http_infer_metrics[k].name,
                           models[i]->name.data) == 0)
            {
                ngx_http_infer_metrics_of[i] = &ngx_http_infer_metrics[k];
                break;
            }
        }

        if (ngx_http_infer_metrics_of[i] == NULL) {
            ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                          "infer: no metrics of \"%V\": %d names were used "
                          "since nginx's start", &models[i]->name,
                          NGX_HTTP_INFER_MODELS_MAX);
        }
    }

    return NGX_OK;
}


static void
ngx_http_infer_observe(ngx_http_infer_metrics_t *m,
    ngx_http_infer_histogram_e which, uint64_t us, ngx_uint_t times)
{
    ngx_uint_t                      i;
    ngx_http_infer_histogram_t     *h;
    const ngx_http_infer_bounds_t  *b;

    b = &ngx_http_infer_bounds[which];
    h = &m->histograms[which];

    for (i = 0; i < b->n && us > b->bounds[i].us; i++) { /* void */ }

    (void) ngx_atomic_fetch_add(&h->bucket[i], (ngx_atomic_int_t) times);
    (void) ngx_atomic_fetch_add(&h->sum_us, (ngx_atomic_int_t) (us * times));
}


/* Once for each request that was handed to a worker. */
void
ngx_http_infer_count_end(ngx_http_infer_ctx_t *ctx)
{
    ngx_http_infer_end_e       end;
    ngx_http_infer_metrics_t  *m;

    if (ctx->counted || !ctx->claimed) {
        return;
    }

    ctx->counted = 1;
    m = ngx_http_infer_metrics_of[ctx->model->index];

    if (m == NULL) {
        return;
    }

    end = ctx->error.status != 0 ? NGX_HTTP_INFER_END_ERROR
          : !ctx->ended ? NGX_HTTP_INFER_END_CANCELLED
          : ctx->reason == SHR_FINISH_LENGTH ? NGX_HTTP_INFER_END_LENGTH
          : NGX_HTTP_INFER_END_STOP;

    (void) ngx_atomic_fetch_add(&m->ends[end], 1);
    ngx_http_infer_observe(m, NGX_HTTP_INFER_H_TOTAL,
                           (ctx->end_ns - ctx->req.queued_ns) / 1000, 1);

    if (!ctx->started) {
        return;
    }

    (void) ngx_atomic_fetch_add(&m->prompt_tokens, ctx->usage.prompt_tokens);
    (void) ngx_atomic_fetch_add(&m->cached_tokens, ctx->usage.cached_tokens);
    (void) ngx_atomic_fetch_add(&m->tokens, ctx->usage.completion_tokens);

    if (ctx->first_ns != 0) {
        ngx_http_infer_observe(m, NGX_HTTP_INFER_H_QUEUE, ctx->usage.queue_us,
                               1);
        ngx_http_infer_observe(m, NGX_HTTP_INFER_H_FIRST,
                               (ctx->first_ns - ctx->req.queued_ns) / 1000, 1);
    }
}


uint64_t
ngx_http_infer_count_answers(ngx_http_infer_model_t *model)
{
    ngx_http_infer_metrics_t  *m;

    m = ngx_http_infer_metrics_of[model->index];

    return m == NULL ? 0 : m->ends[NGX_HTTP_INFER_END_STOP]
                           + m->ends[NGX_HTTP_INFER_END_LENGTH];
}


void
ngx_http_infer_count_shed(ngx_http_infer_model_t *model,
    ngx_http_infer_shed_e reason)
{
    ngx_http_infer_metrics_t  *m;

    m = ngx_http_infer_metrics_of[model->index];

    if (m != NULL) {
        (void) ngx_atomic_fetch_add(&m->shed[reason], 1);
    }
}


void
ngx_http_infer_count_retry(ngx_http_infer_model_t *model)
{
    ngx_http_infer_metrics_t  *m;

    m = ngx_http_infer_metrics_of[model->index];

    if (m != NULL) {
        (void) ngx_atomic_fetch_add(&m->retries, 1);
    }
}


void
ngx_http_infer_count_gap(ngx_http_infer_ctx_t *ctx, uint64_t ns,
    ngx_uint_t tokens)
{
    ngx_http_infer_metrics_t  *m;

    m = ngx_http_infer_metrics_of[ctx->model->index];

    if (m != NULL) {
        ngx_http_infer_observe(m, NGX_HTTP_INFER_H_GAP, ns / 1000 / tokens,
                               tokens);
    }
}


static void
ngx_http_infer_json_names(ngx_http_infer_out_t *out, const char *name,
    const char **names, ngx_atomic_t *values, ngx_uint_t n)
{
    ngx_uint_t  i;

    for (i = 0; i < n; i++) {
        ngx_http_infer_out_print(out, i == 0 ? ",\"%s\":{\"%s\":%uA"
                                             : "%s,\"%s\":%uA",
                                 i == 0 ? name : "", names[i], values[i]);
    }

    ngx_http_infer_out(out, "}");
}


void
ngx_http_infer_metrics_json(ngx_http_infer_out_t *out,
    ngx_http_infer_model_t *model)
{
    ngx_uint_t                      i, k;
    ngx_http_infer_metrics_t       *m;
    const ngx_http_infer_bounds_t  *b;

    m = ngx_http_infer_metrics_of[model->index];

    if (m == NULL) {
        return;
    }

    ngx_http_infer_json_names(out, "requests", ngx_http_infer_ends, m->ends,
                              NGX_HTTP_INFER_NENDS);
    ngx_http_infer_json_names(out, "shed", ngx_http_infer_sheds, m->shed,
                              NGX_HTTP_INFER_NSHED);
    ngx_http_infer_out_print(out, ",\"retries\":%uA,\"prompt_tokens\":%uA,"
                             "\"cached_tokens\":%uA,\"tokens\":%uA",
                             m->retries, m->prompt_tokens, m->cached_tokens,
                             m->tokens);

    for (k = 0; k < NGX_HTTP_INFER_NHISTOGRAMS; k++) {
        b = &ngx_http_infer_bounds[k];
        ngx_http_infer_out_print(out, ",\"%s\":{\"le\":[", b->name);

        for (i = 0; i < b->n; i++) {
            ngx_http_infer_out_print(out, i == 0 ? "%s" : ",%s",
                                     b->bounds[i].le);
        }

        ngx_http_infer_out(out, "],\"count\":[");

        for (i = 0; i <= b->n; i++) {
            ngx_http_infer_out_print(out, i == 0 ? "%uA" : ",%uA",
                                     m->histograms[k].bucket[i]);
        }

        ngx_http_infer_out(out, "]}");
    }
}


static void
ngx_http_infer_put_help(ngx_http_infer_out_t *out, const char *name,
    const char *type, const char *help)
{
    ngx_http_infer_out_print(out, "# HELP nginx_infer_%s %s\n"
                             "# TYPE nginx_infer_%s %s\n", name, help, name,
                             type);
}


static void
ngx_http_infer_put_counter(ngx_http_infer_out_t *out, const char *name,
    ngx_http_infer_metrics_t *m, const char *label, const char *value,
    ngx_atomic_uint_t n)
{
    if (label == NULL) {
        ngx_http_infer_out_print(out, "nginx_infer_%s{model=\"%s\"} %uA\n",
                                 name, m->name, n);
        return;
    }

    ngx_http_infer_out_print(out,
                             "nginx_infer_%s{model=\"%s\",%s=\"%s\"} %uA\n",
                             name, m->name, label, value, n);
}


/* name: with its prefix; label: what the model is called. */
static void
ngx_http_infer_put_histogram(ngx_http_infer_out_t *out, const char *name,
    const char *label, ngx_http_infer_metrics_t *m, ngx_uint_t which)
{
    ngx_uint_t                      i;
    ngx_atomic_uint_t               n, us;
    ngx_http_infer_histogram_t     *h;
    const ngx_http_infer_bounds_t  *b;

    b = &ngx_http_infer_bounds[which];
    h = &m->histograms[which];

    for (n = 0, i = 0; i <= b->n; i++) {
        n += h->bucket[i];
        ngx_http_infer_out_print(out,
                                 "%s_bucket{%s=\"%s\",le=\"%s\"} %uA\n",
                                 name, label, m->name,
                                 i < b->n ? b->bounds[i].le : "+Inf", n);
    }

    us = h->sum_us;
    ngx_http_infer_out_print(out,
                             "%s_sum{%s=\"%s\"} %uA.%06uA\n"
                             "%s_count{%s=\"%s\"} %uA\n",
                             name, label, m->name, us / 1000000,
                             us % 1000000, name, label, m->name, n);
}


/* Of nginx's side; one family after the other, as the format wants it. */
static void
ngx_http_infer_put_own(ngx_http_infer_out_t *out, ngx_uint_t nmodels)
{
    u_char                      name[64];
    ngx_uint_t                  i, k;
    ngx_http_infer_metrics_t  **of;

    of = ngx_http_infer_metrics_of;

#define each(i)  for (i = 0; i < nmodels; i++) if (of[i] != NULL)

    ngx_http_infer_put_help(out, "requests_total", "counter",
                            "Requests that were given to a worker, by how "
                            "they ended");
    each (i) {
        for (k = 0; k < NGX_HTTP_INFER_NENDS; k++) {
            ngx_http_infer_put_counter(out, "requests_total", of[i], "finish",
                                       ngx_http_infer_ends[k],
                                       of[i]->ends[k]);
        }
    }

    ngx_http_infer_put_help(out, "shed_total", "counter",
                            "Requests that were refused, by reason");
    each (i) {
        for (k = 0; k < NGX_HTTP_INFER_NSHED; k++) {
            ngx_http_infer_put_counter(out, "shed_total", of[i], "reason",
                                       ngx_http_infer_sheds[k],
                                       of[i]->shed[k]);
        }
    }

#define family(name, field, help)                                             \
    ngx_http_infer_put_help(out, name, "counter", help);                      \
    each (i) {                                                                \
        ngx_http_infer_put_counter(out, name, of[i], NULL, NULL,              \
                                   of[i]->field);                             \
    }

    family("retries_total", retries, "Requests that went to another worker");
    family("prompt_tokens_total", prompt_tokens, "Tokens of prompts");
    family("cached_prompt_tokens_total", cached_tokens,
           "Tokens of prompts that were not computed again");
    family("generation_tokens_total", tokens, "Tokens generated");

    for (k = 0; k < NGX_HTTP_INFER_NHISTOGRAMS; k++) {
        ngx_http_infer_put_help(out, ngx_http_infer_bounds[k].name,
                                "histogram", ngx_http_infer_bounds[k].help);
        each (i) {
            (void) ngx_sprintf(name, "nginx_infer_%s%Z",
                               ngx_http_infer_bounds[k].name);
            ngx_http_infer_put_histogram(out, (char *) name, "model", of[i],
                                         k);
        }
    }

#undef family
#undef each
}


typedef struct {
    const char     *name;
    const char     *type;
    const char     *help;
    shr_counter_t   counter;
} ngx_http_infer_family_t;

static const ngx_http_infer_family_t  ngx_http_infer_families[] = {
    { "requests_waiting", "gauge", "Requests taken by the worker, not begun",
      SHR_G_WAITING },
    { "queued_prompt_tokens", "gauge", "Prompt tokens of waiting requests",
      SHR_G_WAITING_TOKENS },
    { "requests_running", "gauge", "Sequences in the batch", SHR_G_RUNNING },
    { "kv_bytes_used", "gauge", "Bytes of the KV cache in use",
      SHR_G_KV_USED },
    { "kv_bytes_limit", "gauge", "Bytes of the KV cache", SHR_G_KV_TOTAL },
    { "context_tokens", "gauge", "Context length served", SHR_G_CONTEXT },
    { "worker_io_uring", "gauge", "1: io_uring, 0: epoll", SHR_G_IO_URING },
    { "steps_total", "counter", "Steps of the engine", SHR_C_STEPS },
    { "step_tokens_total", "counter", "Tokens of all steps",
      SHR_C_STEP_TOKENS },
    { "preempted_total", "counter", "Sequences that gave their KV pages back "
      "and were computed again", SHR_C_PREEMPTED },
    { "cancelled_waiting_total", "counter", "Requests cancelled while they "
      "waited", SHR_C_CANCELLED_WAITING },
    { "cancelled_prefill_total", "counter", "Requests cancelled in prefill",
      SHR_C_CANCELLED_PREFILL },
    { "cancelled_decode_total", "counter", "Requests cancelled in decode",
      SHR_C_CANCELLED_DECODE },
    { "expired_total", "counter", "Requests past their deadline",
      SHR_C_EXPIRED },
    { "drafted_tokens_total", "counter", "Tokens guessed in advance",
      SHR_C_DRAFTED },
    { "drafted_tokens_right_total", "counter", "Guesses that were right",
      SHR_C_DRAFTS_RIGHT },
};

#define NGX_HTTP_INFER_NFAMILIES                                              \
    (sizeof(ngx_http_infer_families) / sizeof(ngx_http_infer_family_t))


static void
ngx_http_infer_put_worker(ngx_http_infer_out_t *out, const char *name,
    ngx_http_infer_pool_t *pool, uint32_t w, uint64_t n)
{
    ngx_http_infer_out_print(out, "nginx_infer_%s{model=\"%V\",worker=\"%uD\"}"
                             " %uL\n", name, &pool->model->name, w, n);
}


/* Of the inference workers, as they say themselves. */
static void
ngx_http_infer_put_workers(ngx_http_infer_out_t *out,
    ngx_http_infer_generation_t *gen, const ngx_http_infer_family_t *family)
{
    uint32_t                w;
    uint64_t                n;
    ngx_uint_t              i;
    shr_worker_info_t       info;
    ngx_http_infer_pool_t  *pool;

    for (i = 0; i < gen->nmodels; i++) {
        pool = &gen->pools[i];

        if (pool->client == NULL) {
            continue;
        }

        for (w = 0; w < pool->geom.nworkers; w++) {
            shr_client_info(pool->client, w, &info);

            if (family->counter != SHR_NCOUNTERS) {
                n = info.counters[family->counter];

            } else if (family->type[0] == 'g') {
                n = info.state == SHR_WORKER_READY;

            } else {
                n = info.incarnation;
            }

            ngx_http_infer_put_worker(out, family->name, pool, w, n);
        }
    }
}


/* Sum of a figure over the inference workers of a model, those of the pool of
 * before too. */
static uint64_t
ngx_http_infer_sum(ngx_http_infer_pool_t *pool, shr_counter_t counter)
{
    uint32_t           w;
    uint64_t           n;
    shr_worker_info_t  info;

    for (n = 0; pool != NULL; pool = pool->before) {

        for (w = 0; pool->client != NULL && w < pool->geom.nworkers; w++) {
            shr_client_info(pool->client, w, &info);
            n += ngx_min(info.counters[counter], UINT64_MAX / 256);
        }
    }

    return n;
}


static void
ngx_http_infer_put_alias(ngx_http_infer_out_t *out,
    ngx_http_infer_main_conf_t *imcf, const char *name, const char *type,
    shr_counter_t counter, shr_counter_t of)
{
    uint64_t                n, total;
    ngx_uint_t              i;
    ngx_http_infer_pool_t  *pool;

    ngx_http_infer_out_print(out, "# TYPE vllm:%s %s\n", name, type);

    for (i = 0; imcf->generation != NULL && i < imcf->generation->nmodels; i++)
    {
        pool = &imcf->generation->pools[i];
        n = ngx_http_infer_sum(pool, counter);

        if (of == counter) {
            ngx_http_infer_out_print(out, "vllm:%s{model_name=\"%V\"} %uL\n",
                                     name, &pool->model->name, n);
            continue;
        }

        total = ngx_max(ngx_http_infer_sum(pool, of), 1);
        n = ngx_min(n, total);
        ngx_http_infer_out_print(out, "vllm:%s{model_name=\"%V\"} %.6f\n",
                                 name, &pool->model->name,
                                 (double) n / (double) total);
    }
}


/* The names that vLLM gives the same things: autoscalers and routers that were
 * made for it read them. */
static void
ngx_http_infer_put_aliases(ngx_http_infer_out_t *out,
    ngx_http_infer_main_conf_t *imcf)
{
    ngx_uint_t                 i, k;
    ngx_http_infer_metrics_t  *m;
    static const char         *histograms[] = {
        "vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds",
        "vllm:request_queue_time_seconds", "vllm:e2e_request_latency_seconds"
    };

    ngx_http_infer_put_alias(out, imcf, "num_requests_running", "gauge",
                             SHR_G_RUNNING, SHR_G_RUNNING);
    ngx_http_infer_put_alias(out, imcf, "num_requests_waiting", "gauge",
                             SHR_G_WAITING, SHR_G_WAITING);
    ngx_http_infer_put_alias(out, imcf, "kv_cache_usage_perc", "gauge",
                             SHR_G_KV_USED, SHR_G_KV_TOTAL);
    ngx_http_infer_put_alias(out, imcf, "prompt_tokens_total", "counter",
                             SHR_C_PROMPT_TOKENS, SHR_C_PROMPT_TOKENS);
    ngx_http_infer_put_alias(out, imcf, "generation_tokens_total", "counter",
                             SHR_C_TOKENS, SHR_C_TOKENS);
    ngx_http_infer_put_alias(out, imcf, "prefix_cache_queries_total",
                             "counter", SHR_C_PROMPT_TOKENS,
                             SHR_C_PROMPT_TOKENS);
    ngx_http_infer_put_alias(out, imcf, "prefix_cache_hits_total", "counter",
                             SHR_C_CACHED_TOKENS, SHR_C_CACHED_TOKENS);
    ngx_http_infer_out(out, "# TYPE vllm:request_success_total counter\n");

    for (i = 0; i < imcf->models.nelts; i++) {
        m = ngx_http_infer_metrics_of[i];

        for (k = 0; m != NULL && k <= NGX_HTTP_INFER_END_LENGTH; k++) {
            ngx_http_infer_out_print(out, "vllm:request_success_total"
                                     "{model_name=\"%s\",finished_reason="
                                     "\"%s\"} %uA\n", m->name,
                                     ngx_http_infer_ends[k], m->ends[k]);
        }
    }

    for (k = 0; k < NGX_HTTP_INFER_NHISTOGRAMS; k++) {
        ngx_http_infer_out_print(out, "# TYPE %s histogram\n", histograms[k]);

        for (i = 0; i < imcf->models.nelts; i++) {
            if (ngx_http_infer_metrics_of[i] != NULL) {
                ngx_http_infer_put_histogram(out, histograms[k], "model_name",
                                             ngx_http_infer_metrics_of[i], k);
            }
        }
    }
}


ngx_int_t
ngx_http_infer_metrics_handler(ngx_http_request_t *r)
{
    ngx_int_t                       rc;
    ngx_uint_t                      i;
    ngx_http_infer_out_t            out;
    ngx_http_infer_main_conf_t     *imcf;
    const ngx_http_infer_family_t  *family;
    static const ngx_http_infer_family_t  own[] = {
        { "pool_worker_up", "gauge", "1: the worker is ready", SHR_NCOUNTERS },
        { "pool_worker_starts_total", "counter", "Processes that were this "
          "worker, in this configuration", SHR_NCOUNTERS },
    };

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    imcf = ngx_http_get_module_main_conf(r, ngx_http_infer_module);
    ngx_http_infer_out_init(&out, r->pool, 16384, 65536);
    ngx_http_infer_put_own(&out, imcf->models.nelts);
    ngx_http_infer_limit_metrics(imcf, &out);

    if (((ngx_http_infer_loc_conf_t *) ngx_http_get_module_loc_conf(r,
            ngx_http_infer_module))->vllm)
    {
        ngx_http_infer_put_aliases(&out, imcf);
    }

    for (i = 0; i < 2 + NGX_HTTP_INFER_NFAMILIES; i++) {
        family = i < 2 ? &own[i] : &ngx_http_infer_families[i - 2];
        ngx_http_infer_put_help(&out, family->name, family->type,
                                family->help);

        if (imcf->generation != NULL) {
            ngx_http_infer_put_workers(&out, imcf->generation, family);
        }
    }

    return ngx_http_infer_send_out(r, NGX_HTTP_OK,
                                   "text/plain; version=0.0.4", &out);
}
