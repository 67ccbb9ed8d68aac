/*
 * Inside the opening of a model: what wrk_model*.c share.  Nobody else
 * includes this.
 */

#ifndef WRK_MODEL_INT_H
#define WRK_MODEL_INT_H

#include "worker/wrk_model.h"


/* Each worker takes its own part of the list when it is long enough; 0 when
 * there is no list, else cpus is filled. */
int wrk_model_cpus(const wrk_conf_t *conf, uint32_t worker, int *cpus);

/* Puts a line for people into err; -1. */
int wrk_model_fail(char *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));


/* --- wrk_model_enc.c: encoders ------------------------------------------ */

/* Whether the configured file is one that this serves. */
int wrk_model_is_encoder(const wrk_conf_t *conf);
/* Weights, mapped or packed; then the engine, or the null engine. */
int wrk_model_enc_weights(wrk_model_t *m, const wrk_conf_t *conf,
    int prepared_fd, void (*before_pack)(void *arg), void *arg, char *err);
int wrk_model_enc_engine(wrk_model_t *m, const wrk_conf_t *conf,
    uint32_t worker, char *err);
int wrk_model_enc_check(const wrk_conf_t *conf, char *out, size_t cap,
    char *err);


#endif /* WRK_MODEL_INT_H */
