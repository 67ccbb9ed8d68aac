/* The encoder engine as the scheduler takes it; see wrk_eeng.h. */

#include <assert.h>
#include <stdlib.h>

#include "worker/wrk_eeng.h"


typedef struct {
    const enc_model_t  *model;
    enc_t              *enc;
} wrk_eeng_real_t;


static int
wrk_eeng_real_run(void *ctx, const enc_batch_t *b, float *out,
    uint64_t now_ns, uint64_t *ready_ns)
{
    (void) now_ns;
    *ready_ns = 0;

    return enc_run(((wrk_eeng_real_t *) ctx)->enc, b, out);
}


static const char *
wrk_eeng_real_label(void *ctx, uint32_t i)
{
    return enc_model_label(((wrk_eeng_real_t *) ctx)->model, i);
}


static void
wrk_eeng_real_park(void *ctx)
{
    enc_park(((wrk_eeng_real_t *) ctx)->enc);
}


static void
wrk_eeng_real_destroy(void *ctx)
{
    enc_destroy(((wrk_eeng_real_t *) ctx)->enc);
    free(ctx);
}


static const wrk_eeng_ops_t  wrk_eeng_real_ops = {
    wrk_eeng_real_run, wrk_eeng_real_label, wrk_eeng_real_park,
    wrk_eeng_real_destroy
};


int
wrk_eeng_open(wrk_eeng_t *e, const enc_model_t *model, enc_t *enc)
{
    wrk_eeng_real_t     *real;
    const enc_info_t    *info;
    const enc_limits_t  *l;

    real = malloc(sizeof(*real));

    if (real == NULL) {
        return -1;
    }

    info = enc_model_info(model);
    l = enc_limits(enc);
    assert(l->width > 0 && l->max_tokens >= l->max_seq);

    real->model = model;
    real->enc = enc;
    e->ops = &wrk_eeng_real_ops;
    e->ctx = real;
    e->info.kind = info->kind;
    e->info.score = info->score;
    e->info.normalize = info->normalize;
    e->info.max_tokens = l->max_tokens;
    e->info.max_seqs = l->max_seqs;
    e->info.max_seq = l->max_seq;
    e->info.width = l->width;
    e->info.labels = info->labels;
    e->info.types = l->types;
    e->info.vocab = l->vocab;

    return 0;
}
