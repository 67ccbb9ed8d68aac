/*
 * Families of encoders: what sets one apart from the next, as one line of a
 * table, and the sizes that a model's files give.  For the files of this
 * folder only.
 */
#ifndef ENC_ARCH_H
#define ENC_ARCH_H

#include "worker/encoder/enc.h"
#include "worker/encoder/enc_src.h"
#include "worker/kernels/kern.h"

#define ENC_LAYERS_MAX   256u
#define ENC_HEADS_MAX    256u
#define ENC_EMBD_MAX   16384u
#define ENC_FF_MAX     65536u
#define ENC_VOCAB_MAX  (1u << 22)
#define ENC_POS_MAX    32768u
#define ENC_BUCKETS_MAX  256u
#define ENC_NO_ID      UINT32_MAX

#define ENC_F_PRENORM    0x001u   /* norm before each block and at the end   */
#define ENC_F_RMS        0x002u
#define ENC_F_BIAS       0x004u   /* biases must be there, else they may     */
#define ENC_F_ROPE       0x008u
#define ENC_F_POS        0x010u   /* learned positions                       */
#define ENC_F_TYPES      0x020u   /* token types                             */
#define ENC_F_GLU        0x040u   /* act(a) * b                              */
#define ENC_F_REL        0x080u   /* relative position buckets, no scale     */
#define ENC_F_PADPOS     0x100u   /* positions count from pad_id + 1         */
#define ENC_F_FIRST      0x200u   /* layer 0 has no norm before attention    */
#define ENC_F_GGUF       0x400u   /* names and keys of GGUF files            */

/* Names of tensors: '#' is the layer's number, NULL: the family has none.
   A matrix NAME has NAME.weight and perhaps NAME.bias. */
typedef struct {
    const char  *tok, *pos, *type, *emb_norm, *last_norm;
    const char  *qkv;             /* or q, k, v apart                        */
    const char  *q, *k, *v, *o, *attn_norm;
    const char  *up;              /* with GLU: act's half first, unless gate */
    const char  *gate;            /* is apart                                */
    const char  *down, *ffn_norm;
    const char  *rel;             /* table of relative positions             */
} enc_names_t;

typedef struct {
    const char         *type;     /* model_type or general.architecture      */
    const char         *report;   /* what info.arch says                     */
    uint32_t            flags;
    const char         *prefix[3];
    const enc_names_t  *names;
} enc_arch_t;

/* The head of a classifier, as names; NULL: none. */
typedef struct {
    const char  *dense, *norm, *out;
    kern_act_t   act;
    int          tanh;            /* instead of act                          */
} enc_head_names_t;

/* Sizes and constants of one model. */
typedef struct {
    const enc_arch_t        *arch;
    const enc_names_t       *names;
    const enc_head_names_t  *head;          /* NULL: no classifier           */
    const char              *prefix;
    uint32_t    flags;                      /* of arch, as the config says   */
    enc_kind_t  kind;
    enc_pool_t  pool;
    enc_score_t score;
    int         normalize;
    uint32_t    vocab, layers, embd, heads, head_dim, ff, types, labels;
    uint32_t    max_seq, n_pos;
    uint32_t    start_id, eos_id, pad_id;
    kern_act_t  act;
    float       eps, scale;
    uint32_t    window;           /* keys on either side; 0: all             */
    uint32_t    global_every;     /* layers 0, n, 2n ... see everything      */
    float       rope_base, rope_base_local;
    uint32_t    dec_layers, buckets, distance;
    int         tied;             /* output matrix is the embedding, scaled  */
    float       out_scale;
} enc_hp_t;

/* The family of a model_type; gguf: of a general.architecture.  NULL: not
   served here. */
const enc_arch_t *enc_arch_find(const char *type, int gguf);

/*
 * Reads and checks config.json and its companions, or the GGUF keys.  label
 * receives the names, [ENC_LABELS_MAX][ENC_LABEL_MAX].
 */
int enc_hp_folder(const char *path, const enc_src_t *src, enc_hp_t *hp,
    char (*label)[ENC_LABEL_MAX], eng_err_t *err);
int enc_hp_gguf(const enc_src_t *src, enc_hp_t *hp, eng_err_t *err);

#endif
