/* infer_status: the pools as this nginx worker sees them, as JSON. */

#include "ngx_module/ngx_http_infer_api.h"
#include "ngx_module/ngx_http_infer_before.h"


static const char  *ngx_http_infer_states[] = {
    "none", "loading", "ready", "draining"
};

typedef struct {
    const char     *name;
    shr_counter_t   counter;
} ngx_http_infer_field_t;

static const ngx_http_infer_field_t  ngx_http_infer_fields[] = {
    { "waiting", SHR_G_WAITING },
    { "waiting_tokens", SHR_G_WAITING_TOKENS },
    { "running", SHR_G_RUNNING },
    { "kv_used", SHR_G_KV_USED },
    { "kv_total", SHR_G_KV_TOTAL },
    { "context", SHR_G_CONTEXT },
    { "load_us", SHR_G_LOAD_US },
    { "isa", SHR_G_ISA },
    { "requests", SHR_C_REQUESTS },
    { "prompt_tokens", SHR_C_PROMPT_TOKENS },
    { "cached_tokens", SHR_C_CACHED_TOKENS },
    { "tokens", SHR_C_TOKENS },
    { "steps", SHR_C_STEPS },
    { "step_tokens", SHR_C_STEP_TOKENS },
    { "cancelled_waiting", SHR_C_CANCELLED_WAITING },
    { "cancelled_prefill", SHR_C_CANCELLED_PREFILL },
    { "cancelled_decode", SHR_C_CANCELLED_DECODE },
    { "preempted", SHR_C_PREEMPTED },
    { "shed", SHR_C_SHED },
    { "expired", SHR_C_EXPIRED },
    { "drafted_tokens", SHR_C_DRAFTED },
    { "drafts_right", SHR_C_DRAFTS_RIGHT },
};

#define NGX_HTTP_INFER_NFIELDS                                                \
    (sizeof(ngx_http_infer_fields) / sizeof(ngx_http_infer_field_t))


static void
ngx_http_infer_status_worker(ngx_http_infer_out_t *out,
    ngx_http_infer_pool_t *pool, uint32_t w)
{
    uint64_t           now;
    ngx_uint_t         i;
    shr_worker_info_t  info;

    shr_client_info(pool->client, w, &info);
    now = ngx_http_infer_now();

    ngx_http_infer_out_print(out, "{\"index\":%uD,\"pid\":%D,"
                             "\"incarnation\":%uD,\"state\":\"%s\","
                             "\"retired\":%s,\"wait\":\"%s\",",
                             w, info.pid, info.incarnation,
                             ngx_http_infer_states[info.state],
                             ngx_http_infer_is_retired(&pool->peers[w], &info)
                             ? "true" : "false",
                             info.counters[SHR_G_IO_URING]
                             ? "io_uring" : "epoll");
    ngx_http_infer_out_print(out, "\"heartbeat_age_us\":%uL,"
                             "\"backlog\":%uD,\"inflight\":%uD",
                             info.beat_ns != 0 && info.beat_ns < now
                             ? (now - info.beat_ns) / 1000 : 0,
                             shr_client_backlog(pool->client, w),
                             pool->peers[w].inflight);

    for (i = 0; i < NGX_HTTP_INFER_NFIELDS; i++) {
        ngx_http_infer_out_print(out, ",\"%s\":%uL",
                                 ngx_http_infer_fields[i].name,
                                 info.counters[
                                     ngx_http_infer_fields[i].counter]);
    }

    ngx_http_infer_out(out, "}");
}


static void
ngx_http_infer_status_pool(ngx_http_infer_out_t *out,
    ngx_http_infer_pool_t *pool)
{
    uint32_t                 w;
    ngx_http_infer_model_t  *model;

    model = pool->model;

    ngx_http_infer_out(out, "{\"name\":\"");
    ngx_http_infer_out_data(out, model->name.data, model->name.len);
    ngx_http_infer_out(out, "\",\"file\":\"");
    ngx_http_infer_out_text(out, model->file.data, model->file.len);
    ngx_http_infer_out_print(out, "\",\"hash\":\"%016xL\",\"queue_limit\":%ui,"
                             "\"queue_tokens_limit\":%ui,\"slots\":%uD,",
                             model->hash, model->queue_requests,
                             model->queue_tokens, pool->geom.nslots);
    ngx_http_infer_out_print(out, "\"kind\":\"%V\",\"architecture\":\"%V\"",
                             &model->kind, &model->architecture);
    ngx_http_infer_metrics_json(out, model);
    ngx_http_infer_out_print(out, ",\"answered_by\":\"%s\"",
                             pool->before != NULL && !pool->over
                             && !ngx_http_infer_pool_is_ready(pool)
                             && ngx_http_infer_pool_is_ready(pool->before)
                             ? "pool of before" : "pool");

    if (pool->client == NULL) {
        ngx_http_infer_out(out, ",\"slots_used\":0,\"workers\":[]}");
        return;
    }

    ngx_http_infer_out_print(out, ",\"slots_used\":%uD,\"ready\":%ui,"
                             "\"workers\":[",
                             shr_client_inflight(pool->client),
                             ngx_http_infer_ready_workers(pool));

    for (w = 0; w < pool->geom.nworkers; w++) {
        if (w != 0) {
            ngx_http_infer_out(out, ",");
        }

        ngx_http_infer_status_worker(out, pool, w);
    }

    ngx_http_infer_out(out, "]}");
}


ngx_int_t
ngx_http_infer_status_handler(ngx_http_request_t *r)
{
    ngx_int_t                     rc;
    ngx_uint_t                    i;
    ngx_http_infer_out_t          out;
    ngx_http_infer_main_conf_t   *imcf;
    ngx_http_infer_generation_t  *gen;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    imcf = ngx_http_get_module_main_conf(r, ngx_http_infer_module);
    gen = imcf->generation;

    ngx_http_infer_out_init(&out, r->pool, 4096, 16384);
    ngx_http_infer_out_print(&out, "{\"nginx\":{\"version\":\"%s\","
                             "\"pid\":%P,\"worker\":%ui,\"abi\":\"%016xL\"},",
                             NGINX_VERSION, ngx_pid, ngx_worker,
                             shr_abi_hash());

    if (gen != NULL) {
        ngx_http_infer_out_print(&out, "\"generation\":\"%016xL%016xL\","
                                 "\"nginx_workers\":%ui,", gen->id[0],
                                 gen->id[1], gen->nclients);
    }

    ngx_http_infer_out(&out, "\"models\":[");

    for (i = 0; gen != NULL && i < gen->nmodels; i++) {
        if (i != 0) {
            ngx_http_infer_out(&out, ",");
        }

        ngx_http_infer_status_pool(&out, &gen->pools[i]);
    }

    ngx_http_infer_out(&out, "]}\n");

    return ngx_http_infer_send_out(r, NGX_HTTP_OK, "application/json", &out);
}
