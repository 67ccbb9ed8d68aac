/*
 * Between the files that read config.json only: questions to it, and answers
 * as keys by GGUF's names.
 */
#ifndef ENG_HF_INT_H
#define ENG_HF_INT_H

#include "worker/engine/eng_hf.h"

typedef struct {
    eng_gguf_t         *g;
    struct eng_folder  *d;
    eng_err_t          *err;
} eng_hf_t;

/*
 * A key of the architecture, or "general." and "tokenizer." ones; label: the
 * field that it comes from, for messages, kept by address.
 */
void eng_hf_put_u32(eng_hf_t *h, const char *name, uint32_t v,
    const char *label);
void eng_hf_put_f32(eng_hf_t *h, const char *name, float v,
    const char *label);
void eng_hf_put_text(eng_hf_t *h, const char *name, const char *v,
    const char *label);

/* As the functions of eng_cfg.h: 1, 0 or an error; defaults are asked where
   config.json has none. */
int eng_hf_has(eng_hf_t *h, const char *name);
int eng_hf_u32(eng_hf_t *h, const char *name, uint32_t *v);
int eng_hf_f32(eng_hf_t *h, const char *name, float *v);
int eng_hf_bool(eng_hf_t *h, const char *name, int *v);
int eng_hf_text(eng_hf_t *h, const char *name, char *dst, size_t cap);

/* The field with the prefix of this architecture's fields. */
const char *eng_hf_at(eng_hf_t *h, const char *name,
    char path[ENG_CFG_PATH_MAX]);

/* Fails: the field `is` that, `known` are supported. */
int eng_hf_unsupported(eng_hf_t *h, const char *name, const char *is,
    const char *known);

/* Bases, scaling, factors; eng_hf_rope.c. */
int eng_hf_rope(eng_hf_t *h);

#endif
