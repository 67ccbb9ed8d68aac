/*
 * What eng_hf.c and eng_hf_rope.c ask a config.json and answer as keys.
 */
#include <string.h>

#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_hf_int.h"


/* ---- answers: keys ------------------------------------------------------ */

static const char *
keep(eng_hf_t *h, const char *prefix, const char *text)
{
    char  *p;

    eng_assert(h->d->n_texts < 2 * ENG_HF_KEYS_MAX);
    p = h->d->text[h->d->n_texts++];
    (void) snprintf(p, ENG_NAME_MAX, "%s%s", prefix, text);

    return p;
}


/* name is of the architecture unless it has a folder of its own before it. */
static eng_gguf_key_t *
add_key(eng_hf_t *h, const char *name, const char *label)
{
    char             full[ENG_NAME_MAX];
    const char      *p;
    eng_gguf_key_t  *k;

    eng_assert(h->g->n_keys < ENG_HF_KEYS_MAX);
    k = &h->g->keys[h->g->n_keys++];
    if (strncmp(name, "general.", 8) == 0
        || strncmp(name, "tokenizer.", 10) == 0)
    {
        p = keep(h, "", name);
    } else {
        (void) snprintf(full, sizeof(full), "%s.", h->d->arch->arch);
        p = keep(h, full, name);
    }
    k->key = (eng_str_t) { p, (uint32_t) strlen(p) };
    k->label = label;

    return k;
}


void
eng_hf_put_u32(eng_hf_t *h, const char *name, uint32_t v, const char *label)
{
    eng_gguf_key_t  *k = add_key(h, name, label);

    k->kind = ENG_GGUF_U32;
    k->v.u = v;
}


void
eng_hf_put_f32(eng_hf_t *h, const char *name, float v, const char *label)
{
    eng_gguf_key_t  *k = add_key(h, name, label);

    k->kind = ENG_GGUF_F32;
    k->v.f = (double) v;
}


void
eng_hf_put_text(eng_hf_t *h, const char *name, const char *v, const char *label)
{
    eng_gguf_key_t  *k = add_key(h, name, label);

    v = keep(h, "", v);
    k->kind = ENG_GGUF_STRING;
    k->v.s = (eng_str_t) { v, (uint32_t) strlen(v) };
}


/* ---- questions: config.json --------------------------------------------- */

const char *
eng_hf_at(eng_hf_t *h, const char *name, char path[ENG_CFG_PATH_MAX])
{
    (void) snprintf(path, ENG_CFG_PATH_MAX, "%s%s", h->d->prefix, name);

    return path;
}


int
eng_hf_has(eng_hf_t *h, const char *name)
{
    char  path[ENG_CFG_PATH_MAX];

    return eng_cfg_has(&h->d->config, eng_hf_at(h, name, path));
}


int
eng_hf_u32(eng_hf_t *h, const char *name, uint32_t *v)
{
    int   rc;
    char  path[ENG_CFG_PATH_MAX];

    rc = eng_cfg_u32(&h->d->config, eng_hf_at(h, name, path), 0, UINT32_MAX, v,
                     h->err);
    if (rc == 0 && h->d->defaults.text != NULL) {
        rc = eng_cfg_u32(&h->d->defaults, name, 0, UINT32_MAX, v, h->err);
    }

    return rc;
}


int
eng_hf_f32(eng_hf_t *h, const char *name, float *v)
{
    int   rc;
    char  path[ENG_CFG_PATH_MAX];

    rc = eng_cfg_f32(&h->d->config, eng_hf_at(h, name, path), -1e30, 1e30, v,
                     h->err);
    if (rc == 0 && h->d->defaults.text != NULL) {
        rc = eng_cfg_f32(&h->d->defaults, name, -1e30, 1e30, v, h->err);
    }

    return rc;
}


int
eng_hf_bool(eng_hf_t *h, const char *name, int *v)
{
    char  path[ENG_CFG_PATH_MAX];

    return eng_cfg_bool(&h->d->config, eng_hf_at(h, name, path), v, h->err);
}


int
eng_hf_text(eng_hf_t *h, const char *name, char *dst, size_t cap)
{
    char  path[ENG_CFG_PATH_MAX];

    return eng_cfg_text(&h->d->config, eng_hf_at(h, name, path), dst, cap,
                        h->err);
}


int
eng_hf_unsupported(eng_hf_t *h, const char *name, const char *is,
    const char *known)
{
    char  path[ENG_CFG_PATH_MAX];

    return eng_fail(h->err, ENG_EUNSUP, "%s: \"%s\" is %s; %s supported in a "
                    "model of the type \"%s\"", h->d->config.name,
                    eng_hf_at(h, name, path), is, known,
                    h->d->arch->model_type);
}
