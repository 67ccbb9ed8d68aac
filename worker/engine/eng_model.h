/*
 * Inside of a model: its tensors bound to names, and the image that holds
 * them packed.  For the files of this folder only.
 */
#ifndef ENG_MODEL_H
#define ENG_MODEL_H

#include <stdint.h>

#include "worker/engine/eng.h"
#include "worker/engine/eng_arch.h"
#include "worker/engine/eng_gguf.h"
#include "worker/engine/eng_quant.h"
#include "worker/kernels/kern.h"

#define ENG_VERSION        3u    /* of the image: raise with its layout      */
#define ENG_IMAGE_ALIGN    128u  /* of an item in the image                  */
#define ENG_IMAGE_HEADER   4096u
#define ENG_ITEMS_MAX      (ENG_GGUF_TENSORS_MAX)

/* One tensor of the image: a packed matrix or a vector of floats. */
typedef struct {
    const eng_gguf_tensor_t  *tensor;
    kern_weight_t            *matrix;   /* where to put the address, or NULL */
    const float             **vector;   /* the same                          */
    kern_wtype_t              stored;   /* in the source                     */
    kern_wtype_t              type;     /* in the image                      */
    uint32_t                  rows, cols;
    uint64_t                  offset;   /* in the image                      */
    uint64_t                  bytes;
} eng_item_t;

/*
 * Weights of a layer; a matrix is [outputs][inputs].  NULL or rows 0: the
 * architecture has none.
 */
typedef struct {
    const float    *attn_norm;          /* [embd]                            */
    kern_weight_t   q;                  /* [heads * head_dim][embd]; fused
                                           models: q|k|v, and k, v have none */
    kern_weight_t   k;                  /* [heads_kv * head_dim][embd]       */
    kern_weight_t   v;                  /* [heads_kv * head_dim][embd]       */
    const float    *q_bias, *k_bias, *v_bias;
    const float    *q_norm, *k_norm;    /* [head_dim]                        */
    kern_weight_t   o;                  /* [embd][heads * head_dim]          */
    const float    *post_attn_norm;     /* [embd]                            */
    const float    *ffn_norm;           /* [embd]                            */
    kern_weight_t   gate, up;           /* [ff][embd]; fused: gate|up        */
    kern_weight_t   down;               /* [embd][ff]                        */
    kern_weight_t   router;             /* [experts][embd]                   */
    kern_weight_t   exp_gate, exp_up;   /* [experts * ff_exp][embd]          */
    kern_weight_t   exp_down;           /* [experts * embd][ff_exp]          */
    kern_weight_t   sh_router;          /* [1][embd]                         */
    kern_weight_t   sh_gate, sh_up;     /* [ff_shared][embd]                 */
    kern_weight_t   sh_down;            /* [embd][ff_shared]                 */
    const float    *post_ffn_norm;      /* [embd]                            */
} eng_layer_t;

struct eng_model {
    eng_hp_t        hp;
    eng_info_t      info;
    char            origin[ENG_NAME_MAX];
    eng_prec_t      precision;
    kern_kvtype_t   kv_type;
    kern_weight_t   embd;               /* [vocab][embd], looked up by row   */
    kern_weight_t   output;             /* [vocab][embd], may equal embd     */
    const float    *output_norm;        /* [embd]                            */
    const float    *rope_factors;       /* [rot_dim / 2] or NULL             */
    const float    *rope_short, *rope_long;     /* the same                  */
    eng_layer_t    *layer;              /* [layers]                          */

    kern_wtype_t    quantize;           /* ENG_QUANT_NONE or for floats      */
    eng_item_t     *item;
    uint32_t        n_items;
    uint64_t        image_bytes;
    uint64_t        plan_hash;
    uint8_t        *image;              /* read-only once loaded             */
};

/* The kernels' type for a file's tensor type, or -1. */
int eng_kern_type(uint32_t gguf_type);

/* The file's tensor type for a kernels' type that eng_kern_type() knows. */
uint32_t eng_gguf_type(kern_wtype_t type);

/*
 * Finds every tensor that the architecture needs, checks its shape and type,
 * and lays out the image.  Tensors that nobody would use are refused: a
 * forward pass without them would be wrong without a sign.
 */
int eng_bind(eng_model_t *m, const eng_gguf_t *g, eng_err_t *err);

/* eng_model_check() of a source that is open: what is done with it afterwards
 * meets the same header. */
int eng_model_check_source(const eng_gguf_t *g, const eng_model_opts_t *mo,
    const eng_ctx_opts_t *co, eng_info_t *info, eng_err_t *err);

/* Fills m->image as the options say: mapped, copied or packed. */
int eng_image_load(eng_model_t *m, const eng_gguf_t *g,
    const eng_model_opts_t *opts, eng_err_t *err);
void eng_image_unload(eng_model_t *m);

/* Packs every item into base (image_bytes, aligned) with n threads. */
int eng_pack(const eng_model_t *m, const eng_gguf_t *g, uint8_t *base,
    uint32_t threads, eng_err_t *err);

/* What a context takes. */
typedef struct {
    eng_limits_t  limits;
    uint32_t      threads;
    uint64_t      page_bytes;           /* one page, all layers              */
    uint64_t      layer_page_bytes;
    uint64_t      kv_bytes;
    uint64_t      work_bytes;
} eng_plan_t;

/* 0 or ENG_ENOMEM/ENG_ELIMIT/ENG_EINVAL. */
int eng_plan(const eng_model_t *m, const eng_ctx_opts_t *co, eng_plan_t *plan,
    eng_err_t *err);

#endif
