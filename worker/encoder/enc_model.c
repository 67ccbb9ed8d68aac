/*
 * A model's life: what its files say, its weights, its facts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "worker/encoder/enc_model.h"
#include "worker/engine/eng_cfg.h"
#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_io.h"


/* The family that a folder's config.json names, or NULL. */
static const enc_arch_t *
folder_arch(const char *path)
{
    char       type[64] = "";
    eng_err_t  err;
    eng_cfg_t  c;

    if (eng_cfg_open(&c, path, "config.json", &err) != 0) {
        return NULL;
    }
    (void) eng_cfg_text(&c, "model_type", type, sizeof(type), &err);
    eng_cfg_close(&c);

    return enc_arch_find(type, 0);
}


int
enc_can_open(const char *path)
{
    int                    can = 0;
    char                   type[64] = "";
    eng_err_t              err;
    eng_gguf_t             g;
    const eng_gguf_key_t  *k;

    if (eng_io_is_folder(path)) {
        return folder_arch(path) != NULL;
    }
    if (eng_gguf_open(&g, path, &err) == 0) {
        k = eng_gguf_key(&g, "general.architecture");
        if (k != NULL && k->kind == ENG_GGUF_STRING) {
            eng_str_print(k->v.s, type, sizeof(type));
        }
        can = enc_arch_find(type, 1) != NULL;
        eng_gguf_close(&g);
    }

    return can;
}


/* The type of the layers' matrices for a precision. */
static int
choose(enc_model_t *m, enc_prec_t want, eng_err_t *err)
{
    if (want == ENC_PREC_AUTO) {
        want = kern_isa() == KERN_ISA_BF16 ? ENC_PREC_BF16 : ENC_PREC_F32;
    }
    switch (want) {
    case ENC_PREC_F32:
        m->wtype = KERN_F32;
        break;
    case ENC_PREC_BF16:
        m->wtype = KERN_BF16;
        break;
    case ENC_PREC_INT8:
        m->wtype = KERN_Q8_0;
        break;
    default:
        return eng_fail(err, ENG_EINVAL, "no such precision: %d",
                        (int) want);
    }
    m->info.precision = want;

    return 0;
}


static void
fill_info(enc_model_t *m, const enc_src_t *src, const char *path)
{
    size_t           n = strlen(path);
    enc_info_t      *i = &m->info;
    const char      *name;
    const enc_hp_t  *hp = &m->hp;

    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    name = path + n;
    while (name > path && name[-1] != '/') {
        name--;
    }
    (void) snprintf(i->name, sizeof(i->name), "%.*s",
                    (int) (path + n - name), name);
    (void) snprintf(i->arch, sizeof(i->arch), "%s", hp->arch->report);
    i->kind = hp->kind;
    i->pool = hp->pool;
    i->normalize = hp->normalize;
    i->dim = hp->embd;
    i->max_seq = hp->max_seq;
    i->vocab = hp->vocab;
    i->layers = hp->layers;
    i->embd = hp->embd;
    i->heads = hp->heads;
    i->head_dim = hp->head_dim;
    i->ff = hp->ff;
    i->types = hp->flags & ENC_F_TYPES ? hp->types : 0;
    i->dec_layers = hp->kind == ENC_T2T ? hp->dec_layers : 0;
    i->start_id = hp->start_id;
    i->eos_id = hp->eos_id;
    i->pad_id = hp->pad_id;
    i->labels = hp->head != NULL ? hp->labels : 0;
    i->score = hp->score;
    i->file_bytes = enc_src_bytes(src);
    i->weight_bytes = m->image_bytes;
}


/* Everything but the weights. */
static int
prepare(enc_model_t *m, const char *path, const enc_src_t *src,
    const enc_model_opts_t *o, eng_err_t *err)
{
    int       rc;
    uint32_t  v[2];

    m->label = calloc(ENC_LABELS_MAX, sizeof(m->label[0]));
    if (m->label == NULL) {
        return eng_fail(err, ENG_ENOMEM, "no memory");
    }
    rc = src->gguf ? enc_hp_gguf(src, &m->hp, err)
                   : enc_hp_folder(path, src, &m->hp, m->label, err);
    if (rc == 0) {
        rc = choose(m, o->precision, err);
    }
    if (rc == 0) {
        rc = enc_bind(m, src, err);
    }
    if (rc != 0) {
        return rc;
    }

    fill_info(m, src, path);
    v[0] = (uint32_t) m->wtype;
    v[1] = m->n_items;
    m->hash = eng_hash(v, sizeof(v), enc_src_hash(src));

    return 0;
}


static int
use_level(const char *name, eng_err_t *err)
{
    int  i;

    if (name == NULL) {
        return kern_isa() == KERN_ISA_AUTO ? kern_init(KERN_ISA_AUTO) : 0;
    }
    for (i = KERN_ISA_AUTO; i < KERN_ISA_N; i++) {
        if (strcmp(name, kern_isa_name((kern_isa_t) i)) == 0
            && kern_init((kern_isa_t) i) == KERN_OK)
        {
            return 0;
        }
    }

    return eng_fail(err, ENG_EUNSUP, "the kernel level \"%s\" is unknown or "
                    "not offered by this CPU", name);
}


/* With weights or (load 0) without. */
static int
model_open(const char *path, const enc_model_opts_t *o, int load,
    enc_model_t **model, eng_err_t *err)
{
    int           rc;
    enc_src_t     src;
    enc_model_t  *m;

    *model = NULL;
    rc = use_level(o->kern_level, err);
    if (rc == 0) {
        rc = enc_src_open(&src, path, err);
    }
    if (rc != 0) {
        return rc;
    }
    m = calloc(1, sizeof(*m));
    if (m == NULL) {
        enc_src_close(&src);
        return eng_fail(err, ENG_ENOMEM, "no memory");
    }

    rc = prepare(m, path, &src, o, err);
    if (rc == 0 && load) {
        rc = enc_image_load(m, path, &src, o, err);
    }
    enc_src_close(&src);
    if (rc != 0) {
        enc_model_close(m);
        return rc;
    }
    *model = m;

    return 0;
}


int
enc_model_open(const char *path, const enc_model_opts_t *opts,
    enc_model_t **model, eng_err_t *err)
{
    int         rc = model_open(path, opts, 1, model, err);
    enc_opts_t  o = ENC_OPTS_INIT;

    if (rc == 0) {
        rc = enc_plan_info(*model, &o, &(*model)->info, err);
        if (rc != 0) {
            enc_model_close(*model);
            *model = NULL;
        }
    }

    return rc;
}


int
enc_model_check(const char *path, const enc_model_opts_t *mo,
    const enc_opts_t *co, enc_info_t *info, eng_err_t *err)
{
    int           rc;
    enc_model_t  *m;

    rc = model_open(path, mo, 0, &m, err);
    if (rc == 0) {
        *info = m->info;
        rc = enc_plan_info(m, co, info, err);
        enc_model_close(m);
    }

    return rc;
}


int
enc_model_labels(const char *path, const enc_model_opts_t *mo,
    char (**label)[ENC_LABEL_MAX], uint32_t *n, eng_err_t *err)
{
    int           rc;
    enc_model_t  *m;

    rc = model_open(path, mo, 0, &m, err);
    if (rc == 0) {
        *label = m->label;
        *n = m->info.labels;
        m->label = NULL;
        enc_model_close(m);
    }

    return rc;
}


void
enc_model_close(enc_model_t *m)
{
    if (m == NULL) {
        return;
    }
    enc_image_unload(m);
    free(m->order);
    free(m->item);
    free(m->layer);
    free(m->dec);
    free(m->label);
    free(m);
}


const enc_info_t *
enc_model_info(const enc_model_t *m)
{
    return &m->info;
}


const char *
enc_model_origin(const enc_model_t *m)
{
    return m->origin != NULL ? m->origin : "";
}


const char *
enc_model_label(const enc_model_t *m, uint32_t i)
{
    eng_assert(i < m->info.labels);

    return m->label[i];
}
