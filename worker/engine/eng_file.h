/*
 * The engine's view of a model file: errors, options, what a file is and what
 * it will need.  Part of eng.h; a checker that never runs a model needs only
 * this.
 *
 * Errors: 0 or a negative ENG_E* code.  Functions that read files also fill
 * an eng_err_t with one line for people: what, where, limit and value.
 */
#ifndef ENG_FILE_H
#define ENG_FILE_H

#include <stddef.h>
#include <stdint.h>

#define ENG_OK        0
#define ENG_EIO      -1   /* the file cannot be opened, read or mapped       */
#define ENG_EFORMAT  -2   /* the file is damaged or contradicts itself       */
#define ENG_EUNSUP   -3   /* well formed, but nothing we can serve           */
#define ENG_ELIMIT   -4   /* a documented limit is exceeded                  */
#define ENG_ENOMEM   -5   /* the memory plan does not fit                    */
#define ENG_EINVAL   -6   /* the caller broke this contract                  */
#define ENG_ENOKV    -7   /* no free KV pages: preempt something, try again  */
#define ENG_ENOSEQ   -8   /* all max_seqs sequences are open                 */

#define ENG_ERR_MAX       512
#define ENG_SEQS_MAX     1024   /* sequences of one context                  */
#define ENG_BATCH_MAX    4096   /* tokens of one step                        */
#define ENG_THREADS_MAX    64
#define ENG_TYPES_MAX      40   /* tensor types told apart in eng_info_t     */
#define ENG_NAME_MAX       96

typedef struct {
    int   code;
    char  text[ENG_ERR_MAX];
} eng_err_t;

typedef enum {
    ENG_PREC_INT8 = 0,     /* int8 activations per 32 values: the default    */
    ENG_PREC_EXACT         /* 15-bit activations: twice the integer work     */
} eng_prec_t;

typedef enum {
    ENG_KV_F16 = 0,        /* keys and values in half precision: the default */
    ENG_KV_Q8_0            /* int8 with a scale per 32: 53 % of the memory   */
} eng_kvtype_t;


/* ---- the model file ---------------------------------------------------- */

typedef struct eng_model eng_model_t;

typedef struct {
    uint32_t    threads;      /* used to pack weights; 0: 2                  */
    eng_prec_t  precision;
    eng_kvtype_t kv_type;
    const char *cache_dir;    /* prepared images live here; NULL: no file    */
    int         prepared_fd;  /* -1, or a memfd shared by a pool's workers:
                                 mapped if it holds this model's image,
                                 filled if it is empty; stays the caller's   */
    const char *quantize;     /* NULL, or "q8_0", "q4_0" ...: matrices of
                                 floats become this type when packed         */
    const char *kern_level;   /* NULL: best of this CPU; else a level's name
                                 as kern.h has it ("scalar", "avx2", ...)    */
    void      (*before_pack)(void *arg);  /* NULL, or called when weights    */
    void       *before_pack_arg;          /* must be packed: it takes seconds */
} eng_model_opts_t;

#define ENG_MODEL_OPTS_INIT                                                   \
    { 2, ENG_PREC_INT8, ENG_KV_F16, NULL, -1, NULL, NULL, NULL, NULL }

typedef struct {
    uint32_t    max_seqs;         /* sequences open at once, 1..ENG_SEQS_MAX */
    uint32_t    ctx_len;          /* positions per sequence; 0: the model's  */
    uint32_t    max_batch_tokens; /* per step, 1..ENG_BATCH_MAX              */
    uint32_t    max_logits;       /* wanted logits per step; 0: max_seqs     */
    uint64_t    kv_bytes;         /* KV budget; 0: max_seqs * ctx_len        */
    uint32_t    threads;          /* with the caller; 0: 2                   */
    uint32_t    spin;             /* pauses before a futex sleep; 0: 3000    */
    const int  *cpus;             /* NULL, or one CPU per thread: affinity   */
} eng_ctx_opts_t;

#define ENG_CTX_OPTS_INIT { 16, 0, 512, 0, 0, 2, 0, NULL }

typedef struct {
    char      name[12];           /* "Q4_1"                                  */
    uint32_t  tensors;
    uint64_t  bytes;
} eng_type_info_t;

/* What a file is and what it will need; every text is NUL-terminated and
   printable (other bytes were replaced). */
typedef struct {
    char      arch[ENG_NAME_MAX];
    char      name[ENG_NAME_MAX];
    uint64_t  file_bytes;
    uint64_t  parameters;
    uint32_t  gguf_version;
    uint32_t  tensors;
    uint32_t  types;
    eng_type_info_t type[ENG_TYPES_MAX];

    uint32_t  vocab, layers, embd, heads, heads_kv, head_dim, ff;
    uint32_t  ctx_train;          /* positions the model was trained for     */
    uint32_t  ctx_len;            /* positions with the given options        */
    uint32_t  bos_id, eos_id, eot_id;   /* UINT32_MAX: the file has none     */

    uint64_t  weight_bytes;       /* packed image, shared by all workers     */
    uint64_t  kv_bytes_per_token;
    uint64_t  kv_bytes;           /* with the given options                  */
    uint64_t  work_bytes;         /* activations and logits                  */
} eng_info_t;

/*
 * Reads header and tensor table only: everything is validated, no weight is
 * touched.  Fills info with the memory that `mo` and `co` would take.
 */
int eng_model_check(const char *path, const eng_model_opts_t *mo,
    const eng_ctx_opts_t *co, eng_info_t *info, eng_err_t *err);

/* Opens and prepares: afterwards the weights are mapped read-only.  The file
   itself is closed again. */
int eng_model_open(const char *path, const eng_model_opts_t *opts,
    eng_model_t **model, eng_err_t *err);

/* Every context of the model must be gone. */
void eng_model_close(eng_model_t *model);

/* Valid as long as the model; kv_bytes, ctx_len, work_bytes as for the
   default context options. */
const eng_info_t *eng_model_info(const eng_model_t *model);

/* "cache file", "memfd", "packed from the model file": for a log line. */
const char *eng_model_origin(const eng_model_t *model);

#endif
