/*
 * What the encoder scheduler runs batches on: the encoder engine (enc.h), or
 * nothing at all (a null engine that answers the same for every input, at once
 * or after a delay that stands for an accelerator), or a test's.
 *
 * Who may call: an inference worker's loop thread, tests, benches.
 */

#ifndef WRK_EENG_H
#define WRK_EENG_H

#include <stdint.h>

#include "worker/encoder/enc.h"


#define WRK_EENG_DELAY_US_MAX  60000000u


/* Facts, fixed at creation. */
typedef struct {
    enc_kind_t   kind;
    enc_score_t  score;
    int          normalize;         /* the model's own word about vectors */
    uint32_t     max_tokens;        /* of a batch; >= max_seq */
    uint32_t     max_seqs;          /* of a batch */
    uint32_t     max_seq;           /* tokens of an input, specials included */
    uint32_t     width;             /* values of one result of run() */
    uint32_t     labels;
    uint32_t     types;             /* token types; 1: no batch has any */
    uint32_t     vocab;
} wrk_eeng_info_t;

typedef struct {
    /* As enc_run().  A result that is there later says when: *ready_ns is 0
       or a time of the caller's clock, until which out may be written. */
    int          (*run)(void *ctx, const enc_batch_t *b, float *out,
                     uint64_t now_ns, uint64_t *ready_ns);
    /* As enc_model_label(). */
    const char  *(*label)(void *ctx, uint32_t i);
    void         (*park)(void *ctx);
    void         (*destroy)(void *ctx);
} wrk_eeng_ops_t;

typedef struct {
    const wrk_eeng_ops_t  *ops;
    void                  *ctx;
    wrk_eeng_info_t        info;
} wrk_eeng_t;


/* Takes over the engine (when it returns 0; -1: no memory), not the model,
 * which must outlive it. */
int wrk_eeng_open(wrk_eeng_t *e, const enc_model_t *model, enc_t *enc);

/*
 * The null engine.  `like` has the facts of the model that it stands in for;
 * labels are named label_0 and so on.  -1: no memory, or a delay above
 * WRK_EENG_DELAY_US_MAX.
 */
int wrk_eeng_null(wrk_eeng_t *e, const wrk_eeng_info_t *like,
    uint32_t delay_us);

static inline void
wrk_eeng_close(wrk_eeng_t *e)
{
    if (e->ops != NULL) {
        e->ops->destroy(e->ctx);
        e->ops = NULL;
    }
}


#endif /* WRK_EENG_H */
