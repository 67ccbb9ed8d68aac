/* One of two schedulers; see the header. */

#include <assert.h>
#include <string.h>

#include "worker/wrk_serve.h"


#define REQUEST_BYTES_MIN   (4u << 20)
#define BYTES_PER_TOKEN     8u      /* of text, generously */


size_t
wrk_serve_request_bytes(const wrk_model_t *m)
{
    uint64_t  bytes;

    if (m->eeng.ops != NULL) {
        return SHR_REQ_BYTES_MAX;       /* many inputs, each of any length */
    }

    bytes = (uint64_t) m->eng.limits.ctx_len * BYTES_PER_TOKEN;
    bytes = bytes < REQUEST_BYTES_MIN ? REQUEST_BYTES_MIN : bytes;

    return bytes > SHR_REQ_BYTES_MAX ? SHR_REQ_BYTES_MAX : (size_t) bytes;
}


static int
serve_encoder(wrk_serve_t *v, wrk_model_t *m, const wrk_conf_t *conf)
{
    wrk_esched_opts_t  opts;

    wrk_esched_opts_init(&opts);
    opts.context = conf->context;
    opts.batch = conf->batch;
    opts.sequences = conf->sequences;
    opts.queue_requests = conf->queue_requests;
    opts.queue_tokens = conf->queue_tokens;
    opts.delay_us = conf->batch_delay_us;
    opts.name = conf->name;

    v->enc = wrk_esched_create(&opts, &m->eeng, m->tok);

    return v->enc != NULL ? 0 : -1;
}


int
wrk_serve_open(wrk_serve_t *v, wrk_model_t *m, const wrk_conf_t *conf,
    size_t request_bytes, const char **why)
{
    wrk_sched_opts_t  opts;

    memset(v, 0, sizeof(*v));
    *why = "no memory";

    if (m->eeng.ops != NULL) {
        return serve_encoder(v, m, conf);
    }

    wrk_sched_opts_init(&opts);
    opts.sequences = conf->sequences;
    opts.batch = conf->batch;
    opts.queue_requests = conf->queue_requests;
    opts.queue_tokens = conf->queue_tokens;
    opts.request_bytes_max = (uint32_t) request_bytes;
    opts.prefix_cache = conf->prefix_cache;
    opts.speculate = conf->speculate;
    opts.kv_page_bytes = m->kv_page_bytes;
    opts.name = conf->name;

    if (m->prompt_max != 0) {
        opts.prompt_max = m->prompt_max;
        opts.answer_max = m->answer_max;
        opts.beams = 1;
        opts.prefix_cache = 0;
        opts.speculate = 0;
    }

    v->gen = wrk_sched_create(&opts, &m->eng, m->tok, m->tmpl, why);

    return v->gen != NULL ? 0 : -1;
}


void
wrk_serve_submit(wrk_serve_t *v, const void *req, size_t len,
    const wrk_sink_ops_t *ops, void *ctx, uint64_t now_ns)
{
    assert((v->gen != NULL) != (v->enc != NULL));

    if (v->enc != NULL) {
        wrk_esched_submit(v->enc, req, len, ops, ctx, now_ns);
    } else {
        wrk_sched_submit(v->gen, req, len, ops, ctx, now_ns);
    }
}


int
wrk_serve_step(wrk_serve_t *v, uint64_t now_ns)
{
    return v->enc != NULL ? wrk_esched_step(v->enc, now_ns)
                          : wrk_sched_step(v->gen, now_ns);
}


uint64_t
wrk_serve_next_ns(const wrk_serve_t *v)
{
    return v->enc != NULL ? wrk_esched_next_ns(v->enc)
                          : wrk_sched_next_ns(v->gen);
}


int
wrk_serve_idle(const wrk_serve_t *v)
{
    return v->enc != NULL ? wrk_esched_idle(v->enc)
                          : wrk_sched_idle(v->gen);
}


void
wrk_serve_stats(const wrk_serve_t *v, uint64_t value[SHR_NCOUNTERS])
{
    if (v->enc != NULL) {
        wrk_esched_stats(v->enc, value);
    } else {
        wrk_sched_stats(v->gen, value);
    }
}
