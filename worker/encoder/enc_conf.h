/*
 * Between enc_conf.c, enc_conf_st.c and enc_conf_gguf.c: the parts of a
 * model's description.
 */
#ifndef ENC_CONF_H
#define ENC_CONF_H

#include "worker/encoder/enc_arch.h"

/* Activation by name into hp->act (and the GLU flag). */
int enc_conf_act(const char *name, enc_hp_t *hp, const char *where,
    eng_err_t *err);

/* modules.json and the pooling's config, if the folder has them. */
int enc_conf_modules(const char *path, enc_hp_t *hp, eng_err_t *err);

/* Sizes that the kernels can do. */
int enc_conf_check(enc_hp_t *hp, const char *where, eng_err_t *err);

#endif
