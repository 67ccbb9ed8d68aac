/*
 * What a location serves, in the words of text-embeddings-inference and of
 * text-generation-inference: GET info.
 */

#include "ngx_module/ngx_http_infer_api.h"


static void
ngx_http_infer_info_word(ngx_http_infer_out_t *out, const char *name,
    const u_char *data, size_t len)
{
    ngx_http_infer_out(out, ",\"");
    ngx_http_infer_out_data(out, name, ngx_strlen(name));
    ngx_http_infer_out(out, "\":\"");
    ngx_http_infer_out_text(out, data, len);
    ngx_http_infer_out(out, "\"");
}


static void
ngx_http_infer_info_number(ngx_http_infer_out_t *out, const char *name,
    uint64_t n)
{
    ngx_http_infer_out(out, ",\"");
    ngx_http_infer_out_data(out, name, ngx_strlen(name));
    ngx_http_infer_out(out, "\":");
    ngx_http_infer_out_number(out, n);
}


static void
ngx_http_infer_info_encoder(ngx_http_infer_out_t *out,
    ngx_http_infer_model_t *model)
{
    ngx_http_infer_out(out, ",\"model_type\":{\"");

    if (ngx_http_infer_kind_is(model, "embed")) {
        ngx_http_infer_out(out, "embedding");

    } else if (ngx_http_infer_kind_is(model, "classify")) {
        ngx_http_infer_out(out, "classifier");

    } else {
        ngx_http_infer_out(out, "reranker");
    }

    ngx_http_infer_out(out, "\":{}}");
    ngx_http_infer_info_number(out, "max_input_length", model->served);
    ngx_http_infer_info_number(out, "max_batch_tokens", model->batch);
    ngx_http_infer_info_number(out, "max_client_batch_size", SHR_INPUTS_MAX);
    ngx_http_infer_out(out, ",\"auto_truncate\":false");
}


static void
ngx_http_infer_info_generator(ngx_http_infer_out_t *out,
    ngx_http_infer_model_t *model)
{
    ngx_http_infer_out(out, ",\"model_pipeline_tag\":\"text-generation\"");
    ngx_http_infer_info_number(out, "max_best_of", 1);
    ngx_http_infer_info_number(out, "max_stop_sequences",
                               NGX_HTTP_INFER_STOPS_MAX);
    ngx_http_infer_info_number(out, "max_input_tokens",
                               model->served > 0 ? model->served - 1 : 0);
    ngx_http_infer_info_number(out, "max_total_tokens", model->served);
    ngx_http_infer_info_number(out, "max_client_batch_size",
                               SHR_CHOICES_MAX);
}


ngx_int_t
ngx_http_infer_info_handler(ngx_http_request_t *r,
    ngx_http_infer_loc_conf_t *ilcf, ngx_str_t *rest)
{
    ngx_http_infer_out_t     out;
    ngx_http_infer_model_t  *model;

    model = ((ngx_http_infer_model_t **) ilcf->models->elts)[0];

    ngx_http_infer_out_init(&out, r->pool, 1024, 4096);
    ngx_http_infer_out(&out, "{\"model_id\":\"");
    ngx_http_infer_out_data(&out, model->name.data, model->name.len);
    ngx_http_infer_out(&out, "\",\"model_sha\":null");
    ngx_http_infer_info_word(&out, "model_architecture",
                             model->architecture.data,
                             model->architecture.len);

    if (ngx_http_infer_kind_is(model, "embed")
        || ngx_http_infer_kind_is(model, "classify")
        || ngx_http_infer_kind_is(model, "rerank"))
    {
        ngx_http_infer_info_encoder(&out, model);

    } else {
        ngx_http_infer_info_generator(&out, model);
    }

    ngx_http_infer_info_number(&out, "max_concurrent_requests",
                               model->queue_requests);
    ngx_http_infer_info_word(&out, "version",
                             ngx_http_infer_literal(NGX_HTTP_INFER_VERSION));
    ngx_http_infer_out(&out, ",\"sha\":null,\"docker_label\":null}");

    return ngx_http_infer_send_out(r, NGX_HTTP_OK, "application/json", &out);
}
