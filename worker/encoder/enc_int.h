/*
 * A running engine: memory, threads and the job in progress.  Between
 * enc_ctx.c (life, checks), enc_forward.c (the encoder), enc_result.c (what
 * comes out of it), enc_dec.c (the decoder) and enc_beam.c (searches).
 */
#ifndef ENC_INT_H
#define ENC_INT_H

#include <stdatomic.h>

#include "worker/encoder/enc_beam.h"
#include "worker/encoder/enc_model.h"
#include "worker/engine/eng_kv.h"
#include "worker/engine/eng_pool.h"

/* Tokens that go through a matrix together: their inputs and outputs stay in
   the second-level cache. */
#define ENC_CHUNK        128u
/* A task for one thread has at least that many tokens, if there are. */
#define ENC_TASK_TOKENS  128u
/* Up to this many tokens the threads split a matrix' rows, so that each reads
   its part of the weights only; beyond, they split the tokens. */
#define ENC_ROWS_TOKENS  32u

/* What the job is to leave behind. */
typedef enum {
    ENC_JOB_RESULT = 0,           /* pooled vectors or logits                */
    ENC_JOB_HIDDEN,
    ENC_JOB_SOURCE,               /* keys and values for the decoder         */
    ENC_JOB_STEP                  /* the decoder's step                      */
} enc_job_t;

/* Sequences [s0, s1) of the batch. */
typedef struct {
    uint32_t  s0, s1;
} enc_task_t;

/* What a thread has for itself. */
typedef struct {
    uint8_t  *panel;              /* ENC_CHUNK columns of the widest input   */
    float    *tmp;                /* [ENC_CHUNK][max(embd, 2 inner)]         */
    float    *up;                 /* [ENC_CHUNK][ff or 2 ff]                 */
    float    *keys;               /* packed keys of one head, one sequence   */
    float    *scratch;            /* of kern_full()                          */
    float    *x;                  /* [rows_max][embd]: rows mode             */
} enc_own_t;

/* A continuation that a search looks at. */
typedef struct {
    float        sum;
    uint32_t     parent;          /* of the running beams                    */
    enc_found_t  last;
} enc_cand_t;

/* A search; its place in enc.search is that of its first lane. */
struct enc_beam {
    enc_t           *e;
    enc_beam_opts_t  o;
    uint32_t         lane[ENC_BEAMS_MAX];
    uint32_t         seq[ENC_BEAMS_MAX];        /* running, then spare ones  */
    uint32_t         n_seq;                     /* open                      */
    uint32_t         n;                         /* running beams             */
    uint32_t         len;                       /* tokens of each            */
    float            sum[ENC_BEAMS_MAX];
    uint32_t         n_cand;
    enc_cand_t       cand[2 * ENC_BEAMS_MAX];   /* the best first            */
    float            done[ENC_BEAMS_MAX];       /* scores of hypotheses      */
    uint32_t         done_len[ENC_BEAMS_MAX];   /* 0: none                   */
};

struct enc {
    const enc_model_t  *m;
    enc_limits_t        limits;
    enc_pool_t          how;
    eng_pool_t         *pool;
    uint32_t            threads;
    uint32_t            rows_max;      /* columns that rows mode may have    */
    uint8_t            *memory;

    /* T = max_tokens, I = heads * head_dim */
    float              *x;             /* [T][embd]                          */
    float              *qkv;           /* [T][3 I]                           */
    float              *att;           /* [T][I]                             */
    float              *sub;           /* [T][embd]                          */
    uint8_t            *inner;         /* rows mode: the panel of rows_max
                                          columns of ff values               */
    float              *pooled;        /* [max_seqs][embd]                   */
    float              *dense;         /* [max_seqs][embd]                   */
    float              *rope[2];       /* all, windowed: [max_seq][cos|sin]  */
    float              *rel;           /* [heads][2 max_seq - 1]             */
    float              *dec_rel;       /* [heads][max_out]                   */
    float              *logits;        /* [max_seqs_out][vocab]              */
    uint32_t           *pos;           /* [T]                                */
    enc_task_t         *task;          /* [max_seqs]                         */
    enc_own_t           own[ENG_THREADS_MAX];

    eng_kv_t            src, ans;      /* sources and answers                */
    int                 has_kv;
    uint32_t           *src_of;        /* [max_seqs_out]                     */
    uint32_t            free_lanes;    /* of max_seqs_out                    */
    uint32_t           *lane;          /* a stack of the free ones           */
    enc_beam_t         *search;        /* [max_seqs_out]                     */
    enc_found_t        *found;         /* [3][max_seqs_out][max_out]         */
    uint64_t            layer_bytes;   /* of a page                          */

    /* the job */
    enc_job_t           job;
    enc_batch_t         batch;
    float              *out;
    const uint32_t     *source;        /* [n_seqs]                           */
    const enc_tok_t    *step;
    uint32_t            n_step;
    uint32_t            n_tasks;
    int                 together;      /* all threads on one task            */
    int                 rows;
    _Atomic uint32_t    next;
};

/* A thread's view of a task. */
typedef struct {
    enc_t      *e;
    enc_own_t  *own;
    uint32_t    thread, team;
    int         rows;             /* rows of matrices are split, not tokens  */
    enc_task_t  task;
    uint32_t    t0, t1;           /* the task's tokens                       */
    uint32_t    a, b;             /* this thread's part of them              */
    float      *x;                /* of token t0                             */
} enc_run_t;

static inline float *
enc_row(const enc_run_t *r, uint32_t token)
{
    return r->x + (size_t) (token - r->t0) * r->e->m->hp.embd;
}


static inline void
enc_barrier(const enc_run_t *r)
{
    if (r->team > 1) {
        eng_pool_barrier(r->e->pool);
    }
}


/* bfloat16 means inputs, too. */
static inline kern_panel_kind_t
enc_panel_kind(kern_wtype_t type)
{
    return type == KERN_BF16 ? KERN_PANEL_BF16 : kern_panel_kind(type);
}


/* n columns from x on as input of matrices with k columns of `type`. */
void enc_panel(const enc_run_t *r, kern_panel_t *p, kern_wtype_t type,
    const float *x, size_t ldx, uint32_t n, uint32_t k);
/* out[c][row] of this thread's rows (all but in rows mode), bias added. */
void enc_product(const enc_run_t *r, const enc_linear_t *l,
    const kern_panel_t *p, float *out, size_t ldo);
void enc_norm(const enc_model_t *m, const enc_norm_t *n, float *y,
    const float *x);
/* A feed forward's first product and activation as input *p of the second,
   where rows are split: each thread rounds what it made into one panel for
   all.  Ends with a barrier; the panel is free after the second product's. */
void enc_ffn_rows(const enc_run_t *r, const enc_linear_t *l,
    const kern_panel_t *in, kern_panel_t *p);

/* The encoder over the task; afterwards x holds the last hidden states. */
void enc_forward(enc_run_t *r);
/* What the job wants of them. */
void enc_result(enc_run_t *r);
/* One decoder step; all threads. */
void enc_decode(enc_run_t *r);

/* bias[heads][2 n - 1] (or [n], keys before the query only) of a table. */
void enc_rel_table(const enc_hp_t *hp, const enc_table_t *t, uint32_t n,
    int both, float *bias);

/* All lanes are free. */
void enc_beam_init(enc_t *e);

/* Answers at a time: one for each source, and enough for any search. */
static inline uint32_t
enc_answers(uint32_t sources)
{
    return sources > ENC_BEAMS_MAX ? sources : ENC_BEAMS_MAX;
}

/* Sequences and sources: memory. */
int enc_kv_create(enc_t *e, const enc_opts_t *o, eng_err_t *err);
void enc_kv_destroy(enc_t *e);
uint64_t enc_kv_plan(const enc_hp_t *hp, const enc_opts_t *o,
    eng_plan_t *src, eng_plan_t *ans);

#endif
