/*
 * The order of the residual stream's dimensions for int8.  Some of them are
 * many times larger than the others, and with a scale for 32 values together
 * the others' bits are lost.  So the columns of matrices that read the stream
 * stand in the order of their size, the largest 32 once more, where they meet
 * what rounding took away of these: one block more instead of 15 bits for all.
 *
 * Sizes are guessed from the norms' weights.  Where the norm stands behind a
 * block these make what is large, and through the sum before the next norm it
 * stays large, so that all norms together say more than a matrix' own one.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "worker/encoder/enc_model.h"
#include "worker/engine/eng_chk.h"

/* How much a standard deviation counts beside a mean. */
#define SPREAD  2.0f

/* Adding it rounds to a whole number, to nearest even, below 2^22. */
#define WHOLE   12582912.0f


/* The item whose place is `to`; NULL: the model has none. */
static const enc_item_t *
vector_of(const enc_model_t *m, const float *const *to)
{
    uint32_t  i;

    for (i = 0; i < m->n_items; i++) {
        if (m->item[i].kind == ENC_ITEM_VECTOR && m->item[i].to.vector == to)
        {
            return &m->item[i];
        }
    }

    return NULL;
}


/* sum[embd] += how * |the vector at `to`| */
static int
add_sizes(const enc_model_t *m, const enc_src_t *src, const float *const *to,
    float how, uint8_t *raw, float *v, float *sum, eng_err_t *err)
{
    int                rc;
    uint32_t           i;
    const enc_item_t  *it = vector_of(m, to);

    if (it == NULL) {
        return 0;
    }
    rc = enc_src_rows(src, &it->part[0], 0, 1, raw, err);
    if (rc != 0) {
        return rc;
    }
    kern_gguf_row_f32(it->part[0].type, raw, m->hp.embd, v);
    for (i = 0; i < m->hp.embd; i++) {
        v[i] = fabsf(v[i]) < INFINITY ? fabsf(v[i]) : 0.0f;
        sum[i] += how * v[i];
    }

    return 0;
}


/* What one norm says; all norms count the same. */
static int
add_norm(const enc_model_t *m, const enc_src_t *src, const enc_norm_t *n,
    float *room, float *all, eng_err_t *err)
{
    int        rc;
    float     *v = room, *own = room + m->hp.embd, mean = 0.0f;
    uint8_t   *raw = (uint8_t *) (room + 2 * (size_t) m->hp.embd);
    uint32_t   i;

    memset(own, 0, m->hp.embd * sizeof(float));
    rc = add_sizes(m, src, &n->w, SPREAD, raw, v, own, err);
    if (rc == 0) {
        rc = add_sizes(m, src, &n->b, 1.0f, raw, v, own, err);
    }
    for (i = 0; i < m->hp.embd; i++) {
        mean += own[i] / (float) m->hp.embd;
    }
    for (i = 0; rc == 0 && i < m->hp.embd && mean > 0.0f; i++) {
        all[i] += own[i] / mean;
    }

    return rc;
}


static int
ascending(const void *a, const void *b)
{
    const uint64_t  x = *(const uint64_t *) a, y = *(const uint64_t *) b;

    return (x > y) - (x < y);
}


/* Equal ones as they come. */
static int
sort(const float *all, uint32_t n, uint32_t *order)
{
    uint32_t   i, bits;
    uint64_t  *key = calloc(n, sizeof(*key));

    if (key == NULL) {
        return -1;
    }
    for (i = 0; i < n; i++) {
        /* not negative: as numbers they are in the order of their bits */
        memcpy(&bits, &all[i], sizeof(bits));
        key[i] = (uint64_t) bits << 32 | i;
    }
    qsort(key, n, sizeof(*key), ascending);
    for (i = 0; i < n; i++) {
        order[i] = (uint32_t) key[i];
    }
    free(key);

    return 0;
}


int
enc_order_read(enc_model_t *m, const enc_src_t *src, eng_err_t *err)
{
    int        rc;
    float     *all;
    uint32_t   i, embd = m->hp.embd;

    if (!m->ordered) {
        return 0;
    }
    m->order = calloc(embd, sizeof(m->order[0]));
    /* a row of any type is at most 4 bytes a value */
    all = calloc((size_t) embd * 4 + 64, sizeof(*all));
    if (m->order == NULL || all == NULL) {
        free(all);
        return eng_fail(err, ENG_ENOMEM, "no memory");
    }

    rc = add_norm(m, src, &m->emb_norm, all + embd, all, err);
    for (i = 0; rc == 0 && i < m->hp.layers; i++) {
        rc = add_norm(m, src, &m->layer[i].attn_norm, all + embd, all, err);
        if (rc == 0 && i + 1 < m->hp.layers) {
            rc = add_norm(m, src, &m->layer[i].ffn_norm, all + embd, all,
                          err);
        }
    }
    if (rc == 0 && sort(all, embd, m->order) != 0) {
        rc = eng_fail(err, ENG_ENOMEM, "no memory");
    }
    free(all);

    return rc;
}


void
enc_order_weights(const enc_model_t *m, const float *w, float *row)
{
    uint32_t  i, embd = m->hp.embd;

    for (i = 0; i < embd; i++) {
        row[i] = w[m->order[i]];
    }
    memcpy(row + embd, row + embd - KERN_BLOCK, KERN_BLOCK * sizeof(float));
}


/* What int8 rounds away of a block, by the kernels' own rounding. */
static void
remainder_of(const float *x, float *rest)
{
    float     max = 0.0f, d, id;
    uint32_t  i;

    for (i = 0; i < KERN_BLOCK; i++) {
        max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
    }
    if (!(max > 1e-30f && max < INFINITY)) {
        memset(rest, 0, KERN_BLOCK * sizeof(float));
        return;
    }
    id = 127.0f / max;
    d = max / 127.0f;
    for (i = 0; i < KERN_BLOCK; i++) {
        rest[i] = x[i] - ((x[i] * id + WHOLE) - WHOLE) * d;
    }
}


void
enc_order_values(const enc_model_t *m, const float *x, float *row)
{
    uint32_t         i, embd = m->hp.embd;
    const uint32_t  *order = m->order;

    for (i = 0; i < embd; i++) {
        row[i] = x[order[i]];
    }
    remainder_of(row + embd - KERN_BLOCK, row + embd);
}
