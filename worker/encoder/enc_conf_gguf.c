/*
 * GGUF keys of encoder families to sizes, and the check of sizes that both
 * kinds of file share.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "worker/encoder/enc_arch.h"
#include "worker/encoder/enc_conf.h"

typedef struct {
    const eng_gguf_t  *g;
    const char        *arch;
    eng_err_t         *err;
} reader_t;


static const eng_gguf_key_t *
key_of(const reader_t *r, const char *key, char *full, size_t cap)
{
    (void) snprintf(full, cap, "%s%s%s", key[0] == '.' ? r->arch : "",
                    key, "");

    return eng_gguf_key(r->g, full);
}


/* need: 1 when the file must have it. */
static int
get_u32(const reader_t *r, const char *key, int must, uint32_t min,
    uint32_t max, uint32_t *out)
{
    char                   full[128];
    uint64_t               v;
    const eng_gguf_key_t  *k = key_of(r, key, full, sizeof(full));

    if (k == NULL) {
        return must ? eng_fail(r->err, ENG_EFORMAT, "%s: the key %s is "
                               "missing", r->g->path, full) : 0;
    }
    switch (k->kind) {
    case ENG_GGUF_U8: case ENG_GGUF_U16: case ENG_GGUF_U32:
    case ENG_GGUF_U64: case ENG_GGUF_BOOL:
        v = k->v.u;
        break;
    case ENG_GGUF_I8: case ENG_GGUF_I16: case ENG_GGUF_I32:
    case ENG_GGUF_I64:
        v = k->v.i < 0 ? UINT64_MAX : (uint64_t) k->v.i;
        break;
    default:
        v = UINT64_MAX;
    }
    if (v < min || v > max) {
        return eng_fail(r->err, ENG_EFORMAT, "%s: %s is no number from %u "
                        "to %u", r->g->path, full, min, max);
    }
    *out = (uint32_t) v;

    return 1;
}


static int
get_f32(const reader_t *r, const char *key, double min, double max,
    float *out)
{
    char                   full[128];
    const eng_gguf_key_t  *k = key_of(r, key, full, sizeof(full));

    if (k == NULL) {
        return 0;
    }
    if ((k->kind != ENG_GGUF_F32 && k->kind != ENG_GGUF_F64)
        || !(k->v.f >= min && k->v.f <= max))
    {
        return eng_fail(r->err, ENG_EFORMAT, "%s: %s is no number from %g "
                        "to %g", r->g->path, full, min, max);
    }
    *out = (float) k->v.f;

    return 1;
}


static int
read_sizes(const reader_t *r, enc_hp_t *hp)
{
    int                    rc;
    uint32_t               causal = 0;
    const eng_gguf_key_t  *k = eng_gguf_key(r->g, "tokenizer.ggml.tokens");

    if (k == NULL || k->kind != ENG_GGUF_ARRAY || k->count == 0
        || k->count > ENC_VOCAB_MAX)
    {
        return eng_fail(r->err, ENG_EFORMAT, "%s: tokenizer.ggml.tokens is "
                        "missing or too long", r->g->path);
    }
    hp->vocab = (uint32_t) k->count;

    if ((rc = get_u32(r, ".embedding_length", 1, 1, ENC_EMBD_MAX,
                      &hp->embd)) < 0
        || (rc = get_u32(r, ".block_count", 1, 1, ENC_LAYERS_MAX,
                         &hp->layers)) < 0
        || (rc = get_u32(r, ".attention.head_count", 1, 1, ENC_HEADS_MAX,
                         &hp->heads)) < 0
        || (rc = get_u32(r, ".feed_forward_length", 1, 1, ENC_FF_MAX,
                         &hp->ff)) < 0
        || (rc = get_u32(r, ".context_length", 1, 1, ENC_POS_MAX,
                         &hp->n_pos)) < 0
        || (rc = get_u32(r, ".attention.causal", 0, 0, 1, &causal)) < 0)
    {
        return rc;
    }
    if (causal && !(hp->flags & ENC_F_REL)) {
        return eng_fail(r->err, ENG_EUNSUP, "%s: causal attention",
                        r->g->path);
    }

    hp->head_dim = hp->embd % hp->heads == 0 ? hp->embd / hp->heads : 0;
    rc = get_u32(r, ".attention.key_length", 0, 1, KERN_HEAD_MAX,
                 &hp->head_dim);
    if (rc < 0) {
        return rc;
    }
    hp->max_seq = hp->n_pos;
    hp->types = 2;

    return get_u32(r, "tokenizer.ggml.token_type_count", 0, 0, 256,
                   &hp->types);
}


static int
read_rest(const reader_t *r, enc_hp_t *hp)
{
    int       rc;
    uint32_t  pool = 1;

    hp->eps = hp->flags & ENC_F_RMS ? 1e-6f : 1e-12f;
    hp->rope_base = 10000;
    hp->pad_id = 0;
    hp->eos_id = hp->start_id = ENC_NO_ID;
    if ((rc = get_f32(r, ".attention.layer_norm_epsilon", 0, 1,
                      &hp->eps)) < 0
        || (rc = get_f32(r, ".attention.layer_norm_rms_epsilon", 0, 1,
                         &hp->eps)) < 0
        || (rc = get_f32(r, ".rope.freq_base", 1, 1e9, &hp->rope_base)) < 0
        || (rc = get_u32(r, ".pooling_type", 0, 0, 4, &pool)) < 0
        || (rc = get_u32(r, "tokenizer.ggml.eos_token_id", 0, 0,
                         hp->vocab - 1, &hp->eos_id)) < 0
        || (rc = get_u32(r, "tokenizer.ggml.padding_token_id", 0, 0,
                         hp->vocab - 1, &hp->pad_id)) < 0)
    {
        return rc;
    }
    hp->rope_base_local = hp->rope_base;
    hp->act = hp->flags & ENC_F_ROPE ? KERN_ACT_SILU : KERN_ACT_GELU_ERF;
    hp->kind = ENC_EMBED;
    if (pool == 4) {
        return eng_fail(r->err, ENG_EUNSUP, "%s: reranking from GGUF is not "
                        "supported, use the model's folder", r->g->path);
    }
    hp->pool = pool == 2 ? ENC_POOL_CLS : pool == 3 ? ENC_POOL_LAST
               : ENC_POOL_MEAN;

    return 0;
}


/* Keys of the t5 family; "t5encoder" has no decoder. */
static int
read_t5(const reader_t *r, enc_hp_t *hp)
{
    int  rc;

    hp->buckets = 32;
    hp->distance = 128;
    hp->scale = 1;
    hp->start_id = 0;
    hp->dec_layers = hp->layers;
    hp->act = KERN_ACT_RELU;
    rc = get_u32(r, ".attention.relative_buckets_count", 0, 4,
                 ENC_BUCKETS_MAX, &hp->buckets);
    if (rc >= 0) {
        rc = get_u32(r, ".decoder_start_token_id", 0, 0, hp->vocab - 1,
                     &hp->start_id);
    }
    if (rc >= 0) {
        rc = get_u32(r, ".decoder_block_count", 0, 1, ENC_LAYERS_MAX,
                     &hp->dec_layers);
    }
    if (rc < 0) {
        return rc;
    }
    hp->kind = strcmp(hp->arch->type, "t5") == 0 ? ENC_T2T : ENC_EMBED;
    if (eng_gguf_tensor(r->g, "enc.blk.0.ffn_gate.weight") != NULL) {
        hp->flags |= ENC_F_GLU;
        hp->act = KERN_ACT_GELU_TANH;
    }
    hp->tied = eng_gguf_tensor(r->g, "output.weight") == NULL;
    if (hp->kind == ENC_T2T && hp->eos_id == ENC_NO_ID) {
        return eng_fail(r->err, ENG_EFORMAT, "%s: "
                        "tokenizer.ggml.eos_token_id is missing",
                        r->g->path);
    }

    return 0;
}


int
enc_hp_gguf(const enc_src_t *src, enc_hp_t *hp, eng_err_t *err)
{
    int                    rc;
    char                   type[64] = "";
    reader_t               r = { &src->g, NULL, err };
    const eng_gguf_key_t  *k;

    *hp = (enc_hp_t) { .pool = ENC_POOL_MEAN, .normalize = 1,
                       .out_scale = 1 };
    k = eng_gguf_key(&src->g, "general.architecture");
    if (k != NULL && k->kind == ENG_GGUF_STRING) {
        eng_str_print(k->v.s, type, sizeof(type));
    }
    hp->arch = enc_arch_find(type, 1);
    if (hp->arch == NULL) {
        return eng_fail(err, ENG_EUNSUP, "%s: the architecture \"%s\" is "
                        "none of the encoders that are served",
                        src->g.path, type);
    }
    r.arch = hp->arch->type;
    hp->names = hp->arch->names;
    hp->flags = hp->arch->flags;

    rc = read_sizes(&r, hp);
    if (rc >= 0) {
        rc = read_rest(&r, hp);
    }
    if (rc >= 0 && (hp->flags & ENC_F_REL)) {
        rc = read_t5(&r, hp);
    }

    return rc < 0 ? rc : enc_conf_check(hp, src->g.path, err);
}


/* The kernels' widths: rows are cut into blocks of 32, heads into 16. */
int
enc_conf_check(enc_hp_t *hp, const char *where, eng_err_t *err)
{
    uint32_t  inner, exact;

    if (hp->head_dim == 0 || hp->head_dim > KERN_HEAD_MAX
        || hp->head_dim % 16 != 0)
    {
        return eng_fail(err, ENG_EUNSUP, "%s: heads of %u values; supported "
                        "are multiples of 16 up to %u", where, hp->head_dim,
                        KERN_HEAD_MAX);
    }
    inner = hp->heads * hp->head_dim;
    if (hp->embd % KERN_BLOCK != 0 || hp->ff % KERN_BLOCK != 0
        || inner % KERN_BLOCK != 0 || inner > ENC_EMBD_MAX)
    {
        return eng_fail(err, ENG_EUNSUP, "%s: widths of %u, %u (heads) and "
                        "%u (feed forward); supported are multiples of %u, "
                        "heads up to %u", where, hp->embd, inner, hp->ff,
                        KERN_BLOCK, ENC_EMBD_MAX);
    }
    /* a bucket's number is a quotient of logarithms of these: the encoder's
       are half of them for each direction, half of those exact; the decoder
       has all for one direction */
    exact = hp->buckets / (hp->kind == ENC_T2T ? 2 : 4);
    if ((hp->flags & ENC_F_REL) && hp->distance <= exact) {
        return eng_fail(err, ENG_EFORMAT, "%s: relative positions: a largest "
                        "distance of %u is not above the %u exact ones of %u "
                        "buckets", where, hp->distance, exact, hp->buckets);
    }
    if (hp->scale == 0) {
        hp->scale = 1.0f / sqrtf((float) hp->head_dim);
    }
    if (hp->tied && hp->kind == ENC_T2T) {
        hp->out_scale = 1.0f / sqrtf((float) hp->embd);
    }

    return 0;
}
