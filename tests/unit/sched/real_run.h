/* A scheduler on a real model, for tests and benches that need one. */

#ifndef REAL_RUN_H
#define REAL_RUN_H

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tokenizer/tok.h"
#include "worker/engine/eng.h"
#include "worker/wrk_sched.h"


typedef struct {
    char              path[4096];
    eng_model_t      *model;
    tok_t            *tok;
    eng_t             eng;
    eng_ctx_opts_t    co;
    wrk_sched_opts_t  so;
    wrk_sched_t      *sched;
} real_t;


static inline uint64_t
real_now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}


/* A file of INFER_MODELS; 0, or -1: it is not there. */
static inline int
real_find(real_t *r, const char *name)
{
    const char  *dir = getenv("INFER_MODELS"), *home = getenv("HOME");

    if (dir != NULL) {
        snprintf(r->path, sizeof(r->path), "%s/%s", dir, name);

    } else {
        snprintf(r->path, sizeof(r->path), "%s/.cache/nginx-infer/%s",
                 home != NULL ? home : "", name);
    }

    return access(r->path, R_OK);
}


static inline void
real_load(real_t *r)
{
    static const eng_ctx_opts_t  co = ENG_CTX_OPTS_INIT;
    eng_model_opts_t             mo = ENG_MODEL_OPTS_INIT;
    eng_err_t                    err;
    tok_err_t                    terr;

    if (eng_model_open(r->path, &mo, &r->model, &err) != 0
        || tok_open(&r->tok, r->path, &terr) != 0)
    {
        fprintf(stderr, "%s cannot be loaded\n", r->path);
        abort();
    }

    r->co = co;
    wrk_sched_opts_init(&r->so);
    r->so.request_bytes_max = 1 << 18;
}


/* With what was set in co and so. */
static inline void
real_start(real_t *r)
{
    eng_err_t  err;

    if (eng_create(r->model, &r->co, &r->eng, &err) != 0) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }

    r->so.sequences = r->co.max_seqs;
    r->sched = wrk_sched_create(&r->so, &r->eng, r->tok, NULL, NULL);
    assert(r->sched != NULL);
}


static inline void
real_stop(real_t *r)
{
    wrk_sched_destroy(r->sched);
    assert(eng_kv_free_pages(&r->eng) == r->eng.limits.kv_pages);
    eng_destroy(&r->eng);
}


static inline void
real_close(real_t *r)
{
    tok_close(r->tok);
    eng_model_close(r->model);
}


/* Parts of a sink that takes whatever comes. */
static inline uint32_t
real_room(void *ctx)
{
    (void) ctx;

    return 1 << 16;
}


static inline void
real_nothing(void *ctx)
{
    (void) ctx;
}


static inline void
real_want_room(void *ctx, int want)
{
    (void) ctx;
    (void) want;
}


/* A number of the command line; more than max if it is more. */
static inline uint32_t
real_number(const char *text, uint32_t max)
{
    uint32_t  n;

    for (n = 0; *text >= '0' && *text <= '9' && n <= max; text++) {
        n = n * 10 + (uint32_t) (*text - '0');
    }

    return n;
}


static inline uint32_t
real_at_most(const char *text, uint32_t max)
{
    uint32_t  n = real_number(text, max);

    return n < max ? n : max;
}


#endif /* REAL_RUN_H */
