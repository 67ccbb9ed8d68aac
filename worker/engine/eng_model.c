/*
 * A model: opened, checked, its weights prepared.
 */
#include <stdlib.h>
#include <string.h>

#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_model.h"
#include "worker/engine/eng_source.h"
#include "worker/engine/eng_type.h"

static const eng_ctx_opts_t  default_ctx = ENG_CTX_OPTS_INIT;


static int
choose_kernels(const eng_model_opts_t *opts, eng_err_t *err)
{
    int  i;

    if (opts->kern_level == NULL) {
        /* once per process: other models keep their table */
        if (kern_isa() != KERN_ISA_AUTO) {
            return 0;
        }
        if (kern_init(KERN_ISA_AUTO) != KERN_OK) {
            return eng_fail(err, ENG_EUNSUP, "no kernels for this CPU");
        }
        return 0;
    }

    for (i = KERN_ISA_SCALAR; i < KERN_ISA_N; i++) {
        if (strcmp(opts->kern_level, kern_isa_name((kern_isa_t) i)) == 0) {
            if (kern_init((kern_isa_t) i) == KERN_OK) {
                return 0;
            }
            return eng_fail(err, ENG_EUNSUP, "this CPU does not offer the "
                            "kernel level \"%s\"", opts->kern_level);
        }
    }

    return eng_fail(err, ENG_EINVAL, "kernel level \"%s\" is unknown",
                    opts->kern_level);
}


static void
count_types(eng_info_t *info, const eng_gguf_t *g)
{
    uint32_t           i, j;
    const eng_type_t  *type;

    for (i = 0; i < g->n_tensors; i++) {
        info->parameters += g->tensors[i].elements;
        type = eng_type_get(g->tensors[i].type);
        eng_assert(type != NULL);
        for (j = 0; j < info->types; j++) {
            if (strcmp(info->type[j].name, type->name) == 0) {
                break;
            }
        }
        if (j == info->types) {
            eng_assert(j < ENG_TYPES_MAX);
            info->types++;
            (void) snprintf(info->type[j].name, sizeof(info->type[j].name),
                            "%s", type->name);
        }
        info->type[j].tensors++;
        info->type[j].bytes += g->tensors[i].bytes;
    }
}


static void
describe(eng_info_t *info, const eng_gguf_t *g, const eng_hp_t *hp)
{
    const eng_gguf_key_t  *k;

    memset(info, 0, sizeof(*info));
    (void) snprintf(info->arch, sizeof(info->arch), "%s", hp->arch->name);
    k = eng_gguf_key(g, "general.name");
    if (k != NULL && k->kind == ENG_GGUF_STRING) {
        eng_str_print(k->v.s, info->name, sizeof(info->name));
    }
    info->file_bytes = g->file_bytes;
    info->gguf_version = g->version;
    info->tensors = g->n_tensors;
    info->vocab = hp->vocab;
    info->layers = hp->layers;
    info->embd = hp->embd;
    info->heads = hp->heads;
    info->heads_kv = hp->heads_kv;
    info->head_dim = hp->head_dim;
    info->ff = hp->ff;
    info->ctx_train = hp->ctx_train;
    info->bos_id = hp->bos_id;
    info->eos_id = hp->eos_id;
    info->eot_id = hp->eot_id;
    count_types(info, g);
}


/* Header, sizes, tensors, memory: all that needs no weight. */
static int
read_model(eng_model_t *m, const eng_gguf_t *g, const eng_model_opts_t *mo,
    const eng_ctx_opts_t *co, eng_err_t *err)
{
    int         rc;
    eng_plan_t  plan;

    m->precision = mo->precision;
    m->kv_type = mo->kv_type == ENG_KV_Q8_0 ? KERN_KV_Q8_0 : KERN_KV_F16;
    rc = eng_quant_type(mo->quantize, &m->quantize, err);
    if (rc == 0) {
        rc = eng_hp_read(g, &m->hp, err);
    }
    if (rc != 0) {
        return rc;
    }
    describe(&m->info, g, &m->hp);

    rc = eng_bind(m, g, err);
    if (rc == 0) {
        rc = eng_plan(m, co, &plan, err);
    }
    if (rc != 0) {
        return rc;
    }

    m->info.ctx_len = plan.limits.ctx_len;
    m->info.weight_bytes = m->image_bytes;
    m->info.kv_bytes_per_token = plan.page_bytes / KERN_KV_PAGE;
    m->info.kv_bytes = plan.kv_bytes;
    m->info.work_bytes = plan.work_bytes;

    return 0;
}


static void
free_model(eng_model_t *m)
{
    if (m != NULL) {
        eng_image_unload(m);
        free(m->layer);
        free(m->item);
        free(m);
    }
}


int
eng_model_check(const char *path, const eng_model_opts_t *mo,
    const eng_ctx_opts_t *co, eng_info_t *info, eng_err_t *err)
{
    int         rc;
    eng_gguf_t  g;

    rc = eng_source_open(&g, path, err);
    if (rc != 0) {
        return rc;
    }
    rc = eng_model_check_source(&g, mo, co, info, err);
    eng_source_close(&g);

    return rc;
}


int
eng_model_check_source(const eng_gguf_t *g, const eng_model_opts_t *mo,
    const eng_ctx_opts_t *co, eng_info_t *info, eng_err_t *err)
{
    int           rc;
    eng_model_t  *m;

    rc = choose_kernels(mo, err);
    if (rc != 0) {
        return rc;
    }

    m = calloc(1, sizeof(*m));
    rc = m == NULL ? eng_fail(err, ENG_ENOMEM, "%s: no memory", g->path)
                   : read_model(m, g, mo, co, err);
    if (rc == 0) {
        *info = m->info;
    }
    free_model(m);

    return rc;
}


int
eng_model_open(const char *path, const eng_model_opts_t *opts,
    eng_model_t **model, eng_err_t *err)
{
    int           rc;
    eng_gguf_t    g;
    eng_model_t  *m;

    rc = choose_kernels(opts, err);
    if (rc != 0) {
        return rc;
    }
    rc = eng_source_open(&g, path, err);
    if (rc != 0) {
        return rc;
    }

    m = calloc(1, sizeof(*m));
    rc = m == NULL ? eng_fail(err, ENG_ENOMEM, "%s: no memory", path)
                   : read_model(m, &g, opts, &default_ctx, err);
    if (rc == 0) {
        rc = eng_image_load(m, &g, opts, err);
    }
    eng_source_close(&g);
    if (rc != 0) {
        free_model(m);
        return rc;
    }

    if (m->output.rows == 0) {
        m->output = m->embd;      /* tied */
    }
    eng_hp_rope_factors(&m->hp, m->rope_factors, m->rope_short, m->rope_long);
    *model = m;

    return 0;
}


void
eng_model_close(eng_model_t *model)
{
    free_model(model);
}


const eng_info_t *
eng_model_info(const eng_model_t *model)
{
    return &model->info;
}


const char *
eng_model_origin(const eng_model_t *model)
{
    return model->origin;
}
