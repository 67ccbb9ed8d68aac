/*
 * Attention over a paged key/value cache.  Included by kern.h.
 *
 * A page holds KERN_KV_PAGE consecutive token positions of one sequence for
 * one layer, all its kv heads: page i of a table holds positions 32 i to
 * 32 i + 31.  Its inner layout is ours: per kv head, keys transposed in two
 * halves of 16 positions [2][head_dim][16], then values [32][head_dim]; of
 * Q8_0, whose numbers are int8 with a scale per 32 dimensions of a position,
 * then the f16 scales of keys [(head_dim + 31) / 32][32] and of values.
 * A caller that keeps several layers in one page gives the layer's offset.
 *
 * Order of the sums (the same for decode, prefill, any chunking and any
 * placement of pages): a score is the sum over even dimensions plus the sum
 * over odd ones, of Q8_0 for each 32 of them and then these scaled, ascending;
 * pages ascend; per page one online-softmax step over its 32 positions
 * (Milakov and Gimelshein, "Online normalizer calculation for softmax",
 * 2018), masked positions having weight zero.  After every KERN_ATTN_BLOCK
 * positions the sums begin anew, and the blocks' are put together in
 * ascending order: other threads may compute other blocks.
 */
#ifndef KERN_ATTN_H
#define KERN_ATTN_H

#include <stddef.h>
#include <stdint.h>

typedef enum {
    KERN_KV_F16 = 0,
    KERN_KV_Q8_0,
    KERN_KV_N
} kern_kvtype_t;

#define KERN_ATTN_BLOCK  512u   /* positions */

/* f16 scales of one kv head's keys, or values, in a page of Q8_0. */
#define KERN_KV_SCALES(head_dim)                                              \
    (((size_t) (head_dim) + 31) / 32 * KERN_KV_PAGE)

/* Floats of one head's part of a block: maximum, sum, values. */
#define KERN_ATTN_PART(head_dim)                                              \
    (((size_t) (head_dim) + 2 + 15) / 16 * 16)

/* Bytes of one layer's page, a multiple of KERN_ALIGN; head_dim a multiple of
 * 8 up to KERN_HEAD_MAX, otherwise 0.  Fresh pages need no clearing. */
size_t kern_kv_page_bytes(kern_kvtype_t type, uint32_t n_kv_head,
    uint32_t head_dim);

/* Writes position slot (0..31) of a layer's page: k and v are
 * [n_kv_head][head_dim], k after its rotary embedding.  Values beyond the
 * range of f16 are clamped to it, in either type. */
void kern_kv_append(kern_kvtype_t type, void *page, uint32_t slot,
    uint32_t n_kv_head, uint32_t head_dim, const float *k, const float *v);

typedef struct {
    kern_kvtype_t   type;
    uint32_t        n_head;         /* a multiple of n_kv_head */
    uint32_t        n_kv_head;
    uint32_t        head_dim;
    float           scale;          /* of q*k, usually 1/sqrt(head_dim) */
    float           softcap;        /* 0: none, else cap*tanh(s/cap) */
    uint32_t        window;         /* 0: none, else key > pos - window */
    int             causal;         /* 0: all n_key keys are seen */

    uint32_t        n_query;        /* consecutive positions, >= 1 */
    uint32_t        pos;            /* of the first query */
    uint32_t        n_key;          /* keys present; causal: >= pos+n_query */
    const float    *q;              /* [n_query][ldq], head h at h*head_dim */
    size_t          ldq;
    float          *out;            /* [n_query][ldo], same order */
    size_t          ldo;

    const uint8_t *const *pages;    /* (n_key + 31) / 32 entries in use */
    size_t          page_offset;    /* of this layer inside each page */
    const uint8_t  *next;           /* a hint, may be NULL: what the caller
                                       reads afterwards, a head's page of it,
                                       is prefetched */

    /* Optional additive term of (key - query): bias[h * ld_bias + key -
     * query + bias_zero].  NULL: none.  Every pair that is seen must lie
     * inside the row of ld_bias values. */
    const float    *bias;
    size_t          ld_bias;
    int32_t         bias_zero;
} kern_attn_t;

/* Computes the heads of kv heads [kvh_begin, kvh_end) for the queries
 * [q_begin, q_end) (indices into n_query): threads split either. */
void kern_attn(const kern_attn_t *a, uint32_t kvh_begin, uint32_t kvh_end,
    uint32_t q_begin, uint32_t q_end);

/* The same of one query in two steps: the heads of a kv head against the
 * positions [KERN_ATTN_BLOCK * block, + KERN_ATTN_BLOCK), some of which it
 * sees, into part [n_head / n_kv_head][KERN_ATTN_PART(head_dim)]; and all of
 * the blocks that it sees, one after the other in part, to a->out.  The bits
 * are those of kern_attn(). */
void kern_attn_part(const kern_attn_t *a, uint32_t kvh, uint32_t block,
    float *part);
void kern_attn_merge(const kern_attn_t *a, uint32_t kvh, uint32_t blocks,
    const float *part);

#endif
