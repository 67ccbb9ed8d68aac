/*
 * Opens encoders: what wrk_model.c does for models that generate.  The memory
 * plan: weights, and the activations of one batch.
 */

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/wrk_model_int.h"
#include "worker/wrk_t2t.h"


static const char  *kinds[] = {
    [ENC_EMBED] = "embed", [ENC_CLASSIFY] = "classify",
    [ENC_RERANK] = "rerank", [ENC_T2T] = "text-to-text"
};

static const char  *precisions[] = {
    [ENC_PREC_AUTO] = "auto", [ENC_PREC_F32] = "float32",
    [ENC_PREC_BF16] = "bfloat16", [ENC_PREC_INT8] = "int8"
};


static void
model_options(const wrk_conf_t *conf, int prepared_fd, enc_model_opts_t *mo)
{
    enc_model_opts_t  init = ENC_MODEL_OPTS_INIT;

    *mo = init;
    mo->threads = conf->threads;
    mo->prepared_fd = prepared_fd;
    mo->cache_dir = conf->cache[0] != '\0' ? conf->cache : NULL;

    switch (conf->precision) {
    case WRK_PREC_EXACT:
    case WRK_PREC_FLOAT32:
        mo->precision = ENC_PREC_F32;
        break;
    case WRK_PREC_BFLOAT16:
        mo->precision = ENC_PREC_BF16;
        break;
    case WRK_PREC_INT8:
        mo->precision = ENC_PREC_INT8;
        break;
    default:
        mo->precision = ENC_PREC_AUTO;
    }
}


static void
engine_options(const wrk_conf_t *conf, enc_opts_t *co)
{
    enc_opts_t  init = ENC_OPTS_INIT;

    *co = init;
    co->max_tokens = conf->batch;
    co->max_seqs = conf->sequences;
    co->threads = conf->threads;
}


/* The null engine that generates stands in for text-to-text models, and for
 * files that have no weights beside their tokenizer. */
int
wrk_model_is_encoder(const wrk_conf_t *conf)
{
    eng_err_t         ee;
    enc_info_t        info;
    enc_opts_t        co;
    enc_model_opts_t  mo;

    if (!conf->null_engine) {
        return enc_can_open(conf->file);
    }

    model_options(conf, -1, &mo);
    engine_options(conf, &co);

    return enc_can_open(conf->file)
           && enc_model_check(conf->file, &mo, &co, &info, &ee) == ENG_OK
           && info.kind != ENC_T2T;
}


static int
check(const wrk_conf_t *conf, enc_info_t *info, char *err)
{
    eng_err_t         ee;
    enc_opts_t        co;
    enc_model_opts_t  mo;

    model_options(conf, -1, &mo);
    engine_options(conf, &co);

    if (enc_model_check(conf->file, &mo, &co, info, &ee) != ENG_OK) {
        return wrk_model_fail(err, "%s", ee.text);
    }

    return 0;
}


int
wrk_model_enc_weights(wrk_model_t *m, const wrk_conf_t *conf,
    int prepared_fd, void (*before_pack)(void *arg), void *arg, char *err)
{
    eng_err_t         ee;
    enc_info_t        info;
    enc_model_opts_t  mo;

    if (check(conf, &info, err) != 0) {
        return -1;
    }

    model_options(conf, prepared_fd, &mo);
    mo.before_pack = before_pack;
    mo.before_pack_arg = arg;

    if (enc_model_open(conf->file, &mo, &m->enc_model, &ee) != ENG_OK) {
        m->enc_model = NULL;
        return wrk_model_fail(err, "%s", ee.text);
    }

    return 0;
}


static int
open_null(wrk_model_t *m, const wrk_conf_t *conf, char *err)
{
    enc_info_t       info;
    wrk_eeng_info_t  like;

    if (check(conf, &info, err) != 0) {
        return -1;
    }

    memset(&like, 0, sizeof(like));
    like.kind = info.kind;
    like.score = info.score;
    like.normalize = info.normalize;
    like.max_seq = info.max_seq;
    like.max_tokens = conf->batch > info.max_seq ? conf->batch : info.max_seq;
    like.max_seqs = conf->sequences;
    like.labels = info.labels;
    like.width = info.kind == ENC_EMBED ? info.dim : info.labels;
    like.types = info.types;
    like.vocab = info.vocab;

    if (wrk_eeng_null(&m->eeng, &like, conf->null_delay_us) != 0) {
        return wrk_model_fail(err, "no memory for the null engine");
    }

    snprintf(m->summary, sizeof(m->summary), "null engine, %s, %u values, %u "
             "us a batch, context %u", kinds[info.kind], like.width,
             conf->null_delay_us, like.max_seq);
    return 0;
}


/* How many answers run at once, and the bytes that they take. */
static uint32_t
plan_t2t(const wrk_conf_t *conf, const enc_info_t *info, enc_opts_t *co)
{
    uint64_t  kv;
    uint32_t  n;

    kv = conf->kv_bytes != 0 ? conf->kv_bytes : WRK_KV_BYTES_DEFAULT;
    co->max_out = WRK_T2T_OUT;
    n = conf->sequences < ENG_SEQS_MAX / 2 ? conf->sequences
                                           : ENG_SEQS_MAX / 2;
    n = wrk_t2t_sequences(info, co->max_out, kv, n);
    co->max_sources = n;
    co->max_seqs = n;
    co->kv_bytes = UINT64_MAX;      /* all of them: n was chosen so */

    return n;
}


static int
open_t2t(wrk_model_t *m, const wrk_conf_t *conf, enc_opts_t *co, char *err)
{
    enc_t             *enc;
    uint32_t           n;
    eng_err_t          ee;
    const enc_info_t  *info;

    info = enc_model_info(m->enc_model);
    n = plan_t2t(conf, info, co);

    if (enc_create(m->enc_model, co, &enc, &ee) != ENG_OK) {
        return wrk_model_fail(err, "%s", ee.text);
    }

    if (wrk_t2t_open(&m->eng, m->enc_model, enc, n,
                     conf->batch < ENG_BATCH_MAX ? conf->batch
                                                 : ENG_BATCH_MAX) != ENG_OK)
    {
        enc_destroy(enc);
        return wrk_model_fail(err, "no memory for the engine");
    }

    m->has_eng = 1;
    m->kv_page_bytes = info->kv_bytes_per_token * m->eng.limits.page_tokens;
    m->prompt_max = enc_limits(enc)->max_seq;
    m->answer_max = enc_limits(enc)->max_out;
    snprintf(m->summary, sizeof(m->summary), "%s, text to text, %" PRIu64
             " M parameters, weights %" PRIu64 " MiB (%s, %s), %u sequences, "
             "prompts of %u and answers of %u tokens", info->arch,
             info->parameters / 1000000, info->weight_bytes >> 20,
             precisions[info->precision],
             enc_model_origin(m->enc_model), n, m->prompt_max, m->answer_max);
    return 0;
}


int
wrk_model_enc_engine(wrk_model_t *m, const wrk_conf_t *conf, uint32_t worker,
    char *err)
{
    int                cpus[ENG_THREADS_MAX];
    enc_t             *enc;
    eng_err_t          ee;
    enc_opts_t         co;
    const enc_info_t  *info;

    if (conf->null_engine) {
        return open_null(m, conf, err);
    }

    info = enc_model_info(m->enc_model);
    engine_options(conf, &co);
    co.cpus = wrk_model_cpus(conf, worker, cpus) ? cpus : NULL;

    if (info->kind == ENC_T2T) {
        return open_t2t(m, conf, &co, err);
    }

    if (enc_create(m->enc_model, &co, &enc, &ee) != ENG_OK) {
        return wrk_model_fail(err, "%s", ee.text);
    }

    if (wrk_eeng_open(&m->eeng, m->enc_model, enc) != 0) {
        enc_destroy(enc);
        return wrk_model_fail(err, "no memory for the engine");
    }

    snprintf(m->summary, sizeof(m->summary), "%s, %s, %" PRIu64 " M "
             "parameters, weights %" PRIu64 " MiB (%s, %s), context %u",
             info->arch, kinds[info->kind], info->parameters / 1000000,
             info->weight_bytes >> 20, precisions[info->precision],
             enc_model_origin(m->enc_model), m->eeng.info.max_seq);
    return 0;
}


/* All labels or none: half of them would be a lie.  The null engine has its
 * own. */
static int
check_labels(const wrk_conf_t *conf, char *out, size_t cap, char *err)
{
    size_t            at;
    uint32_t          i, n;
    eng_err_t         ee;
    enc_model_opts_t  mo;
    char            (*label)[ENC_LABEL_MAX];

    model_options(conf, -1, &mo);
    if (enc_model_labels(conf->file, &mo, &label, &n, &ee) != ENG_OK) {
        return wrk_model_fail(err, "%s", ee.text);
    }

    for (i = 0, at = 0; i < n && at < cap; i++) {
        at += (size_t) snprintf(out + at, cap - at, "label %s\n", label[i]);
    }
    if (at >= cap) {
        out[0] = '\0';
    }
    free(label);
    return 0;
}


int
wrk_model_enc_check(const wrk_conf_t *conf, char *out, size_t cap, char *err)
{
    size_t      len;
    uint32_t    context;
    enc_info_t  info;

    if (check(conf, &info, err) != 0) {
        return -1;
    }

    context = info.max_seq;
    if (info.kind == ENC_T2T) {
        context += WRK_T2T_OUT;

    } else if (conf->context != 0 && conf->context < context) {
        context = conf->context;
    }

    snprintf(out, cap, "architecture %s\nparameters %" PRIu64
             "\nweights_bytes %" PRIu64 "\nkv_bytes %" PRIu64 "\ncontext %u\n"
             "kind %s\n", conf->null_engine ? "null" : info.arch,
             info.parameters, info.weight_bytes, info.kv_bytes, context,
             kinds[info.kind]);

    if (info.kind != ENC_CLASSIFY || conf->null_engine) {
        return 0;
    }

    len = strlen(out);
    return check_labels(conf, out + len, cap - len, err);
}
