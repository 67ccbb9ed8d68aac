/* The null engine of encoders; see wrk_eeng.h. */

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/wrk_eeng.h"


#define WRK_EENG_NAME_MAX  24

typedef struct {
    uint64_t   delay_ns;
    uint32_t   width;
    float     *row;                 /* the answer to everything */
    char      (*names)[WRK_EENG_NAME_MAX];
} wrk_eeng_null_t;


static int
wrk_eeng_null_run(void *ctx, const enc_batch_t *b, float *out,
    uint64_t now_ns, uint64_t *ready_ns)
{
    uint32_t          i;
    wrk_eeng_null_t  *e;

    e = ctx;

    for (i = 0; i < b->n_seqs; i++) {
        memcpy(out + (size_t) i * e->width, e->row,
               e->width * sizeof(float));
    }

    *ready_ns = e->delay_ns != 0 ? now_ns + e->delay_ns : 0;

    return ENG_OK;
}


static const char *
wrk_eeng_null_label(void *ctx, uint32_t i)
{
    return ((wrk_eeng_null_t *) ctx)->names[i];
}


static void
wrk_eeng_null_park(void *ctx)
{
    (void) ctx;
}


static void
wrk_eeng_null_destroy(void *ctx)
{
    wrk_eeng_null_t  *e;

    e = ctx;
    free(e->row);
    free(e->names);
    free(e);
}


static const wrk_eeng_ops_t  wrk_eeng_null_ops = {
    wrk_eeng_null_run, wrk_eeng_null_label, wrk_eeng_null_park,
    wrk_eeng_null_destroy
};


/* Values as a model's are: about 1 / sqrt(width), of both signs, with all
 * their digits, so that what they cost to print is what it is. */
static void
wrk_eeng_null_fill(float *row, uint32_t width)
{
    uint32_t  i, x;

    for (i = 0, x = 1; i < width; i++) {
        x = x * 1664525u + 1013904223u;     /* Knuth, TAOCP 2, 3.3.4 */
        row[i] = (float) (int32_t) x * (1.0f / 2147483648.0f);
    }
}


int
wrk_eeng_null(wrk_eeng_t *e, const wrk_eeng_info_t *like, uint32_t delay_us)
{
    uint32_t          i;
    wrk_eeng_null_t  *null;

    assert(like->width > 0 && like->max_tokens >= like->max_seq);

    null = delay_us <= WRK_EENG_DELAY_US_MAX ? calloc(1, sizeof(*null)) : NULL;

    if (null == NULL) {
        return -1;
    }

    null->delay_ns = (uint64_t) delay_us * 1000;
    null->width = like->width;
    null->row = calloc(like->width, sizeof(float));
    null->names = calloc(like->labels + 1, sizeof(*null->names));

    if (null->row == NULL || null->names == NULL) {
        wrk_eeng_null_destroy(null);
        return -1;
    }

    wrk_eeng_null_fill(null->row, like->width);

    if (like->kind == ENC_EMBED) {
        enc_vector(null->row, like->width, 1);
    }

    for (i = 0; i < like->labels; i++) {
        snprintf(null->names[i], sizeof(null->names[i]), "label_%u", i);
    }

    e->ops = &wrk_eeng_null_ops;
    e->ctx = null;
    e->info = *like;

    return 0;
}
