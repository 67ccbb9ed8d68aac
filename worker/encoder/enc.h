/*
 * Encoders and text-to-text models: token ids in, vectors, scores, class
 * logits or next-token logits out.
 *
 * What it is not: no text (the tokenizer is the caller's), no scheduling, no
 * processes.  Only inference workers, their model check and the `infer` tool
 * link this.  A model is read-only once open and may serve several engines;
 * an engine (enc_t) belongs to one thread of the caller, and each call uses
 * the engine's own threads and returns when the whole batch is done.
 *
 * Errors: 0 or a negative ENG_E* code of eng_file.h; functions that read
 * files also leave one line for people in an eng_err_t.
 *
 * A sequence's result is bitwise the same whatever else is in the batch and
 * however many threads run.
 */
#ifndef ENC_H
#define ENC_H

#include <stddef.h>
#include <stdint.h>

#include "worker/engine/eng_file.h"

#define ENC_TOKENS_MAX   65536u   /* of one batch                            */
#define ENC_SEQS_MAX      4096u   /* of one batch                            */
#define ENC_LABELS_MAX    1024u
#define ENC_LABEL_MAX       64u   /* bytes of a label with its NUL           */
#define ENC_BEAMS_MAX       16u

/* What a model is for; its own files decide. */
typedef enum {
    ENC_EMBED = 0,                /* a vector per text                       */
    ENC_CLASSIFY,                 /* logits of id2label per text             */
    ENC_RERANK,                   /* one score per pair (cross-encoder)      */
    ENC_T2T                       /* encoder and decoder: text to text       */
} enc_kind_t;

typedef enum {
    ENC_POOL_MEAN = 0,
    ENC_POOL_CLS,                 /* the first token                         */
    ENC_POOL_LAST,                /* the last token                          */
    ENC_POOL_MAX
} enc_pool_t;

typedef enum {
    ENC_PREC_AUTO = 0,            /* bfloat16 where the CPU multiplies it
                                     faster than floats, else float32        */
    ENC_PREC_F32,
    ENC_PREC_BF16,                /* weights and inputs of matrix products
                                     rounded to bfloat16, sums in float32    */
    ENC_PREC_INT8                 /* int8 with a scale per 32 values, weights
                                     and inputs; more bits for what is large
                                     in the residual stream; sums in float32 */
} enc_prec_t;

/* How classes are scored by the model's own word (problem_type). */
typedef enum {
    ENC_SCORE_SOFTMAX = 0,        /* one of the labels                       */
    ENC_SCORE_SIGMOID,            /* each label by itself, or one label      */
    ENC_SCORE_NONE                /* regression: the logit itself            */
} enc_score_t;

typedef struct {
    uint32_t    threads;          /* that pack weights; 0: 2                 */
    enc_prec_t  precision;
    int         prepared_fd;      /* -1, or a memfd that a pool's workers
                                     share: mapped if it holds this model,
                                     filled if empty and the cache file
                                     cannot be mapped in huge pages; stays
                                     the caller's                            */
    const char *cache_dir;        /* prepared images live here; NULL: no file */
    const char *kern_level;       /* NULL: best of this CPU                  */
    void      (*before_pack)(void *arg);    /* NULL, or called when weights  */
    void       *before_pack_arg;            /* must be packed                */
} enc_model_opts_t;

#define ENC_MODEL_OPTS_INIT \
    { 2, ENC_PREC_AUTO, -1, NULL, NULL, NULL, NULL }

typedef struct {
    uint32_t    max_tokens;       /* of a batch; raised to one sequence's    */
    uint32_t    max_seqs;         /* of a batch                              */
    uint32_t    threads;          /* with the caller; 0: 2                   */
    uint32_t    spin;             /* pauses before a futex sleep; 0: 3000    */
    const int  *cpus;             /* NULL, or one CPU per thread             */

    /* text-to-text only */
    uint32_t    max_sources;      /* encoded inputs held at once; 0: 16      */
    uint32_t    max_out;          /* positions of an answer; 0: 512          */
    uint64_t    kv_bytes;         /* keys and values of inputs and answers;
                                     0: all sources at their longest, at
                                     most 512 MiB                            */
} enc_opts_t;

#define ENC_OPTS_INIT { 4096, 256, 2, 0, NULL, 0, 0, 0 }

/* Facts of an open or checked model. */
typedef struct {
    char        arch[ENG_NAME_MAX];     /* "bert", "modernbert", "t5" ...    */
    char        name[ENG_NAME_MAX];
    enc_kind_t  kind;
    enc_pool_t  pool;
    int         normalize;        /* the model's modules end in Normalize    */
    enc_prec_t  precision;        /* in use, never AUTO                      */
    uint32_t    dim;              /* of a vector                             */
    uint32_t    max_seq;          /* tokens of a sequence, specials included */
    uint32_t    vocab, layers, embd, heads, head_dim, ff, types;
    uint32_t    dec_layers;       /* text-to-text                            */
    uint32_t    start_id, eos_id, pad_id;       /* UINT32_MAX: none          */
    uint32_t    labels;
    enc_score_t score;
    uint64_t    file_bytes, parameters, weight_bytes, work_bytes;
    uint64_t    kv_bytes;         /* with default options                    */
    uint64_t    kv_bytes_per_token;
} enc_info_t;

typedef struct enc_model  enc_model_t;
typedef struct enc        enc_t;

/*
 * 1 if `path` names something this folder serves: a folder whose config.json
 * names an encoder or encoder-decoder family, or a GGUF file of one; 0 if
 * not (decoders are eng.h's) or if it cannot be read.
 */
int enc_can_open(const char *path);

/* Headers and configuration only, no weight is touched; quick. */
int enc_model_check(const char *path, const enc_model_opts_t *mo,
    const enc_opts_t *co, enc_info_t *info, eng_err_t *err);

/* Labels as enc_model_label() gives them; to be freed.  *n may be 0. */
int enc_model_labels(const char *path, const enc_model_opts_t *mo,
    char (**label)[ENC_LABEL_MAX], uint32_t *n, eng_err_t *err);

/* Afterwards the files are closed and the weights mapped read-only. */
int enc_model_open(const char *path, const enc_model_opts_t *opts,
    enc_model_t **model, eng_err_t *err);
/* Every engine of the model must be gone. */
void enc_model_close(enc_model_t *model);

/* Valid as long as the model. */
const enc_info_t *enc_model_info(const enc_model_t *model);
/* "cache file", "packed" ...: for a log line. */
const char *enc_model_origin(const enc_model_t *model);
/* NUL-terminated, printable UTF-8 as in config.json; i < info.labels. */
const char *enc_model_label(const enc_model_t *model, uint32_t i);

/* One memory plan for everything, then no allocation; starts the threads. */
int enc_create(const enc_model_t *model, const enc_opts_t *opts, enc_t **e,
    eng_err_t *err);
void enc_destroy(enc_t *e);
/* No batch for a while: the threads stop spinning. */
void enc_park(enc_t *e);

/* Facts fixed at creation. */
typedef struct {
    uint32_t  max_tokens, max_seqs, max_seq, vocab, types;
    uint32_t  width;              /* floats of one result of enc_run()       */
    uint32_t  max_sources, max_seqs_out, max_out;
    uint64_t  memory_bytes;
} enc_limits_t;

/* Valid as long as the engine. */
const enc_limits_t *enc_limits(const enc_t *e);

/*
 * A packed batch: sequence i has ids[offsets[i]] to ids[offsets[i + 1] - 1],
 * offsets[0] = 0, nothing between and no padding.  types: NULL (all 0) or
 * one per id.
 */
typedef struct {
    const uint32_t  *ids;
    const uint8_t   *types;
    const uint32_t  *offsets;     /* [n_seqs + 1]                            */
    uint32_t         n_seqs;
} enc_batch_t;

/*
 * The results of all sequences: out[i * limits.width ...].  Embedding: the
 * pooled vector as the last layer gives it (finish it with enc_vector());
 * classification and rerank: the logits.  ENG_EINVAL: the contract is broken
 * (empty sequence, an id beyond the vocabulary, too many): nothing computed.
 */
int enc_run(enc_t *e, const enc_batch_t *b, float *out);

/* As enc_run() for any encoder, but every token's last hidden state:
   out[tokens][embd]. */
int enc_hidden(enc_t *e, const enc_batch_t *b, float *out);

/* Another pooling than the model's own, for the next calls. */
void enc_set_pool(enc_t *e, enc_pool_t pool);

/* The first `dims` values of v (Matryoshka), divided by their length if
   normalize; dims <= info.dim. */
void enc_vector(float *v, uint32_t dims, int normalize);

/* Logits to probabilities in place. */
void enc_scores(float *v, uint32_t n, enc_score_t how);


/* ---- text to text ------------------------------------------------------ */

/*
 * A source is an encoded input; sequences are answers to it being written.
 * Several sequences may share a source (beams, n > 1).  Pages of keys and
 * values come from one budget.
 */

/* Encodes sequence i of the batch into the fresh source src[i]: all of them
   or none.  ENG_ENOSEQ: no source free; ENG_ENOKV: no pages. */
int enc_sources_open(enc_t *e, const enc_batch_t *b, uint32_t *src);
/* Its sequences must be closed. */
void enc_source_close(enc_t *e, uint32_t src);

/* An empty answer; ENG_ENOSEQ when max_seqs_out are open. */
int enc_seq_open(enc_t *e, uint32_t src, uint32_t *seq);
void enc_seq_close(enc_t *e, uint32_t seq);
/* Makes `dst` (open, any content) a copy of `from`, of the same source. */
int enc_seq_fork(enc_t *e, uint32_t dst, uint32_t from);

typedef struct {
    uint32_t  seq;
    uint32_t  token;              /* the first one is info.start_id          */
} enc_tok_t;

/*
 * One decoder step: each named sequence (once) gets its next token, and
 * logits[i] points to limits.vocab floats, valid until the next call.  n is
 * at most max_seqs_out.  ENG_ELIMIT: a sequence is max_out long; ENG_ENOKV:
 * no page; nothing was computed.
 */
int enc_step(enc_t *e, const enc_tok_t *t, uint32_t n,
    const float **logits);

/* Beam search is in enc_beam.h. */

#endif
