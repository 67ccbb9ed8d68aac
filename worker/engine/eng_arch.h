/*
 * Architectures: what sets one decoder family apart from the next, as one
 * line of a table, and the sizes that a file gives for it.
 */
#ifndef ENG_ARCH_H
#define ENG_ARCH_H

#include <stdint.h>

#include "worker/engine/eng_gguf.h"
#include "worker/engine/eng_rope.h"
#include "worker/kernels/kern.h"

#define ENG_LAYERS_MAX    1024u
#define ENG_VOCAB_MAX     (1u << 22)
#define ENG_CTX_MAX       (1u << 22)
#define ENG_HEADS_MAX     1024u
#define ENG_EXPERTS_MAX    512u
#define ENG_NO_ID         UINT32_MAX

#define ENG_ARCH_QKV_BIAS     0x01u   /* biases on q, k and v                */
#define ENG_ARCH_QK_NORM      0x02u   /* RMS norm of each q and k head       */
#define ENG_ARCH_POST_NORM    0x04u   /* norms after attention and ffn       */
#define ENG_ARCH_EMBD_SCALE   0x08u   /* embeddings times sqrt(embd)         */
#define ENG_ARCH_FUSED        0x10u   /* q|k|v and gate|up: a matrix each    */
#define ENG_ARCH_EXPERTS      0x20u   /* a mixture of experts                */
#define ENG_ARCH_EXPERTS_MAY  0x40u   /* the same if the file counts some    */
#define ENG_ARCH_SHARED       0x80u   /* with an expert that all tokens meet */
#define ENG_ARCH_EXPERTS_NORM 0x100u  /* chosen experts' weights sum to 1    */

#define ENG_EVERY_NONE  UINT32_MAX    /* global_every: no layer is global    */

typedef struct {
    const char   *name;          /* general.architecture, prefix of its keys */
    kern_rope_t   rope;
    kern_act_t    act;
    uint32_t      flags;
    uint32_t      global_every;  /* n: layers n-1, 2n-1, ... see everything,
                                    the others a window; 0: no windows       */
    uint32_t      window_default;
    float         base_local;    /* rope base of windowed layers; 0: same    */
    uint32_t      nope_every;    /* n: layers n-1, 2n-1, ... have no rope    */
    uint32_t      scale_layers;  /* models with this many layers scale scores
                                    by 1/sqrt(embd/heads), not head_dim      */
} eng_arch_t;

/* Sizes and constants of one model. */
typedef struct {
    const eng_arch_t  *arch;
    uint32_t  vocab, layers, embd, heads, heads_kv, head_dim, rot_dim, ff;
    uint32_t  ctx_train;
    uint32_t  window;            /* of layers that have one; 0: none         */
    uint32_t  experts;           /* 0: a dense model                         */
    uint32_t  experts_used;      /* by a token                               */
    uint32_t  ff_exp, ff_shared; /* of an expert; of the shared one, 0: none */
    int       experts_norm;      /* weights of the chosen ones sum to 1      */
    uint32_t  bos_id, eos_id, eot_id;
    float     eps;
    float     attn_scale;
    float     attn_softcap;      /* 0: none                                  */
    float     final_softcap;
    float     embd_scale;
    eng_rope_t  rope;
    float     rope_mscale;
    /*
     * Radians per position, [rot_dim / 2]: of most models; of contexts above
     * rope.ctx_orig where the file has other factors for them; of windowed
     * layers where these have a base of their own.
     */
    float     freq[KERN_HEAD_MAX / 2];
    float     freq_long[KERN_HEAD_MAX / 2];
    float     freq_local[KERN_HEAD_MAX / 2];
} eng_hp_t;

/* Reads and checks every size; ENG_EUNSUP names what is unknown. */
int eng_hp_read(const eng_gguf_t *g, eng_hp_t *hp, eng_err_t *err);

/*
 * Applies the file's factors, one per frequency; each may be NULL: for all
 * contexts (rope_freqs), or for short and for long ones (rope_factors_*).
 */
void eng_hp_rope_factors(eng_hp_t *hp, const float *all,
    const float *factor_short, const float *factor_long);

/* The frequencies of a context of ctx_len positions. */
const float *eng_hp_freq(const eng_hp_t *hp, uint32_t ctx_len);

int eng_layer_windowed(const eng_hp_t *hp, uint32_t layer);
/* 1: the layer rotates by freq_local. */
int eng_layer_local(const eng_hp_t *hp, uint32_t layer);
int eng_layer_roped(const eng_hp_t *hp, uint32_t layer);

#endif
