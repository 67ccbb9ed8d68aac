/*
 * Architectures: what sets one decoder family apart from the next, as one
 * line of a table, and the sizes that a file gives for it.
 */
#ifndef ENG_ARCH_H
#define ENG_ARCH_H

#include <stdint.h>

#include "worker/engine/eng_gguf.h"
#include "worker/kernels/kern.h"

#define ENG_LAYERS_MAX    1024u
#define ENG_VOCAB_MAX     (1u << 22)
#define ENG_CTX_MAX       (1u << 22)
#define ENG_HEADS_MAX     1024u
#define ENG_NO_ID         UINT32_MAX

#define ENG_ARCH_QKV_BIAS     0x01u   /* biases on q, k and v                */
#define ENG_ARCH_QK_NORM      0x02u   /* RMS norm of each q and k head       */
#define ENG_ARCH_POST_NORM    0x04u   /* norms after attention and ffn       */
#define ENG_ARCH_EMBD_SCALE   0x08u   /* embeddings times sqrt(embd)         */

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
    uint32_t  window;
    uint32_t  bos_id, eos_id, eot_id;
    float     eps;
    float     attn_scale;
    float     attn_softcap;      /* 0: none                                  */
    float     final_softcap;
    float     embd_scale;
    float     rope_mscale;
    /* radians per position, [rot_dim / 2], for global and windowed layers */
    float     freq[KERN_HEAD_MAX / 2];
    float     freq_local[KERN_HEAD_MAX / 2];
} eng_hp_t;

/* Reads and checks every size; ENG_EUNSUP names what is unknown. */
int eng_hp_read(const eng_gguf_t *g, eng_hp_t *hp, eng_err_t *err);

/* Applies the file's rope_freqs.weight (one factor per frequency). */
void eng_hp_rope_factors(eng_hp_t *hp, const float *factor);

int eng_layer_windowed(const eng_hp_t *hp, uint32_t layer);
int eng_layer_roped(const eng_hp_t *hp, uint32_t layer);

#endif
