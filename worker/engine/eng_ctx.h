/*
 * A running engine: KV cache, work memory, threads, and the batch of the step
 * in progress.  Between eng_ctx.c (life, checks) and eng_step.c (arithmetic).
 */
#ifndef ENG_CTX_H
#define ENG_CTX_H

#include <stdint.h>

#include "worker/engine/eng_kv.h"
#include "worker/engine/eng_model.h"
#include "worker/engine/eng_pool.h"

/* Batches up to this many tokens are prepared by every thread for itself:
   repeating the small work costs less than one more barrier (measured with
   two threads: 6 to 9 % of a step for 2 to 8 tokens, a loss from 16 on). */
#define ENG_REDUNDANT_MAX  8u

/* A step of single tokens with at most this many (sequence, kv head) pairs per
   thread deals long contexts out by blocks of positions. */
#define ENG_SPLIT_TASKS  4u

/* Floats from one column to the next where a product writes columns: an odd
   number of cache lines.  A row group writes one line of every column, and at
   a distance of whole pages (3,072 floats) all of them would fall into the
   same few sets of the caches (measured: a fifth of the product's time). */
static inline uint32_t
eng_stride(uint32_t floats)
{
    return ((floats + 15) / 16 | 1) * 16;
}


/* Tokens of one sequence in a batch. */
typedef struct {
    uint32_t  seq;
    uint32_t  first;              /* index of the first token in the batch   */
    uint32_t  n;
    uint32_t  pos;                /* of the first token                      */
} eng_seg_t;

/* The tokens of an expert: pairs [first, first + count). */
typedef struct {
    uint32_t  first;
    uint32_t  count;
} eng_group_t;

/* What a thread has for itself. */
typedef struct {
    float    *x;                  /* [ENG_REDUNDANT_MAX][embd]               */
    float    *row;                /* [max(embd, heads * head_dim)]           */
    uint8_t  *panel;              /* ENG_REDUNDANT_MAX columns of each kind  */
    eng_group_t  *group;          /* [experts + 1]: the shared one is last   */
    uint32_t *column;             /* [M * slots]: token of a pair            */
    uint32_t *place;              /* [M][slots]: pair of a token's choice    */
} eng_own_t;

typedef struct {
    const eng_model_t  *m;
    const float        *freq;     /* of global layers, for this context      */
    eng_kv_t            kv;
    eng_plan_t          plan;
    eng_pool_t         *pool;
    uint8_t            *memory;
    uint64_t            memory_bytes;

    /* shared work memory; M = max_batch_tokens, W = max_logits */
    float     *x;                 /* [M][embd]: the residual stream          */
    float     *act;               /* [M][...]: q|k|v, gate|up, moving columns */
    float     *att;               /* [M][heads * head_dim]                   */
    float     *sub;               /* [M][stride of embd]: from o and down    */
    float     *part;              /* [pairs][blocks][group][KERN_ATTN_PART]  */
    float     *rope;              /* [M][2 tables][cos|sin][rot_dim / 2]     */
    float     *logits;            /* [W][vocab]                              */
    uint8_t   *panel[2];          /* M columns, one memory per kind          */
    uint8_t   *inner[2];          /* the same for down: filled while others
                                     still read `panel`                      */
    uint64_t   own_panel_bytes;   /* of one kind                             */

    /* with experts; slots = experts_used and 1 for a shared one */
    uint32_t  *moe_id;            /* [M][experts_used]                       */
    float     *moe_weight;        /* [M][slots]                              */
    float     *moe_out;           /* [M * slots][embd]: outputs by pair      */
    uint8_t   *moe_panel[2];      /* one memory per kind                     */
    eng_own_t  own[ENG_THREADS_MAX];

    /* the step in progress */
    eng_tok_t *tok;               /* [M]: private copy                       */
    uint32_t   n_tok;
    eng_seg_t *seg;               /* [M]                                     */
    uint32_t   n_seg;
    int        decode_only;       /* every segment has one token             */
    uint32_t  *want;              /* [W]: token indices                      */
    uint32_t   n_want;
} eng_ctx_t;

/* The panel that serves a kind of weights in the model's precision. */
static inline kern_panel_kind_t
eng_panel_kind(const eng_model_t *m, kern_panel_kind_t kind)
{
    return kind == KERN_PANEL_I8 && m->precision == ENG_PREC_EXACT
           ? KERN_PANEL_I15 : kind;
}

/* Room that a column takes in a panel that others follow. */
static inline size_t
eng_panel_column(const eng_model_t *m, uint32_t kind, uint32_t k)
{
    return (kern_panel_bytes(eng_panel_kind(m, (kern_panel_kind_t) kind),
                             1, k) + KERN_ALIGN - 1)
           / KERN_ALIGN * KERN_ALIGN;
}


/* Blocks of positions that one sequence can have; none with one thread. */
static inline uint32_t
eng_split_blocks(const eng_plan_t *plan)
{
    return plan->threads == 1 ? 0 : (plan->limits.ctx_len - 1)
                                    / KERN_ATTN_BLOCK + 1;
}

/* Runs the step; eng_pool_fn_t, arg is the eng_ctx_t. */
void eng_forward(void *arg, uint32_t thread);

#endif
