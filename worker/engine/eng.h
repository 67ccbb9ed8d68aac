/*
 * The engine: model file -> weights -> one batch step at a time.
 *
 * What callers need and nothing of tensors.  Only the inference worker, its
 * model-check helper and the `infer` tool link this; nginx never does.  One
 * eng_t belongs to one thread of the caller; a step uses the context's own
 * thread pool and returns when the whole batch is done.  Models and errors
 * are in eng_file.h.
 */
#ifndef ENG_H
#define ENG_H

#include <stddef.h>
#include <stdint.h>

#include "worker/engine/eng_file.h"

typedef struct {
    uint32_t  token;
    uint32_t  seq;
    uint32_t  pos;
    uint32_t  want_logits;        /* 0 or 1                                  */
} eng_tok_t;

/* Facts fixed at creation; the scheduler reads them, nobody writes. */
typedef struct {
    uint32_t  vocab;
    uint32_t  max_seqs;
    uint32_t  ctx_len;            /* positions per sequence                  */
    uint32_t  max_batch_tokens;
    uint32_t  max_logits;
    uint32_t  page_tokens;        /* positions per KV page                   */
    uint32_t  kv_pages;           /* pages in all                            */
} eng_limits_t;

typedef struct eng_ops_s  eng_ops_t;

/* An engine: the model's (eng_create) or the null model's (the worker's). */
typedef struct {
    const eng_ops_t  *ops;
    void             *ctx;
    eng_limits_t      limits;
} eng_t;

/*
 * The functions of an engine; none allocates.  Call them through the eng_*
 * wrappers below, which say what they do.
 */
struct eng_ops_s {
    int       (*seq_open)(void *ctx, uint32_t *seq);
    void      (*seq_close)(void *ctx, uint32_t seq);
    int       (*seq_reserve)(void *ctx, uint32_t seq, uint32_t n_positions);
    void      (*seq_trim)(void *ctx, uint32_t seq, uint32_t n_positions);
    int       (*seq_fork)(void *ctx, uint32_t dst, uint32_t src, uint32_t n);
    int       (*seq_attach)(void *ctx, uint32_t seq, const uint32_t *pages,
                  uint32_t n_pages);
    uint32_t  (*seq_page)(void *ctx, uint32_t seq, uint32_t index);
    void      (*page_ref)(void *ctx, uint32_t page);
    void      (*page_unref)(void *ctx, uint32_t page);
    uint32_t  (*kv_free_pages)(void *ctx);
    int       (*step)(void *ctx, const eng_tok_t *toks, uint32_t n,
                  const float **logits);
    void      (*park)(void *ctx);
    void      (*destroy)(void *ctx);

    /*
     * May be NULL; used instead of step where it is not.  For an engine that
     * picks its tokens itself and runs elsewhere: tokens[i] is set for the
     * i-th token with want_logits and may be used from *ready_ns on
     * (CLOCK_MONOTONIC, as now_ns; 0: at once).  No other step before that.
     */
    int       (*step_tokens)(void *ctx, const eng_tok_t *toks, uint32_t n,
                  uint32_t *tokens, uint64_t now_ns, uint64_t *ready_ns);
};

/*
 * One memory plan for everything, then no allocation.  Starts the threads.
 * The model must outlive the engine.
 */
int eng_create(const eng_model_t *model, const eng_ctx_opts_t *opts,
    eng_t *eng, eng_err_t *err);

static inline void
eng_destroy(eng_t *e)
{
    e->ops->destroy(e->ctx);
}


/* A fresh, empty sequence; 0 or ENG_ENOSEQ. */
static inline int
eng_seq_open(eng_t *e, uint32_t *seq)
{
    return e->ops->seq_open(e->ctx, seq);
}


/* Gives back its pages (shared ones lose one reference). */
static inline void
eng_seq_close(eng_t *e, uint32_t seq)
{
    e->ops->seq_close(e->ctx, seq);
}


/* Makes room for positions 0..n-1: all of it or nothing.  ENG_ENOKV: not
   enough free pages; ENG_ELIMIT: n > ctx_len. */
static inline int
eng_seq_reserve(eng_t *e, uint32_t seq, uint32_t n)
{
    return e->ops->seq_reserve(e->ctx, seq, n);
}


/* Forgets all positions >= n and frees the pages they had for themselves. */
static inline void
eng_seq_trim(eng_t *e, uint32_t seq, uint32_t n)
{
    e->ops->seq_trim(e->ctx, seq, n);
}


/*
 * dst (empty) gets src's positions 0..n-1: whole pages are shared, the last
 * partial one is copied.  ENG_ENOKV when there is no page for the copy.
 */
static inline int
eng_seq_fork(eng_t *e, uint32_t dst, uint32_t src, uint32_t n)
{
    return e->ops->seq_fork(e->ctx, dst, src, n);
}


/* For a prefix cache: seq (empty) begins with these full pages; each gets a
   reference.  The next position is n_pages * page_tokens. */
static inline int
eng_seq_attach(eng_t *e, uint32_t seq, const uint32_t *pages, uint32_t n)
{
    return e->ops->seq_attach(e->ctx, seq, pages, n);
}


/* The page that holds positions index * page_tokens...; no reference. */
static inline uint32_t
eng_seq_page(eng_t *e, uint32_t seq, uint32_t index)
{
    return e->ops->seq_page(e->ctx, seq, index);
}


static inline void
eng_page_ref(eng_t *e, uint32_t page)
{
    e->ops->page_ref(e->ctx, page);
}


static inline void
eng_page_unref(eng_t *e, uint32_t page)
{
    e->ops->page_unref(e->ctx, page);
}


static inline uint32_t
eng_kv_free_pages(eng_t *e)
{
    return e->ops->kv_free_pages(e->ctx);
}


/*
 * Runs one batch of 1..max_batch_tokens tokens, decode tokens and prompt
 * chunks of many sequences mixed.  Tokens of one sequence stand together in
 * ascending positions without gap; the first is at most the sequence's
 * length (a smaller one overwrites, which shared pages forbid); every
 * position was reserved.  logits has n entries; logits[i] is set where
 * toks[i].want_logits, to `limits.vocab` floats that stay valid until the
 * next step, and left alone elsewhere.
 * A sequence's result is bitwise the same whatever else is in the batch,
 * however the prompt was cut and however many threads run.
 * ENG_EINVAL: the contract was broken; nothing was computed.
 */
static inline int
eng_step(eng_t *e, const eng_tok_t *toks, uint32_t n, const float **logits)
{
    return e->ops->step(e->ctx, toks, n, logits);
}


/* No step for a while: the pool's threads stop spinning at once. */
static inline void
eng_park(eng_t *e)
{
    e->ops->park(e->ctx);
}

#endif
