/*
 * Reads a model's sizes from the keys of its file.  A new architecture of
 * the llama family is a line in the table; what the table cannot say needs a
 * flag here and one use of it in eng_bind.c or eng_step.c.
 */
#include <math.h>
#include <string.h>

#include "worker/engine/eng_arch.h"
#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_source.h"

#define GEMMA  (ENG_ARCH_POST_NORM | ENG_ARCH_EMBD_SCALE)

static const eng_arch_t  archs[] = {
    { .name = "llama", .rope = KERN_ROPE_NORMAL },
    { .name = "smollm3", .rope = KERN_ROPE_NORMAL, .nope_every = 4 },
    { .name = "qwen2", .rope = KERN_ROPE_NEOX, .flags = ENG_ARCH_QKV_BIAS },
    { .name = "qwen3", .rope = KERN_ROPE_NEOX, .flags = ENG_ARCH_QK_NORM },
    { .name = "gemma2", .rope = KERN_ROPE_NEOX, .act = KERN_ACT_GELU_TANH,
      .flags = GEMMA, .global_every = 2, .window_default = 4096,
      .scale_layers = 46 },
    { .name = "gemma3", .rope = KERN_ROPE_NEOX, .act = KERN_ACT_GELU_TANH,
      .flags = GEMMA | ENG_ARCH_QK_NORM, .global_every = 6,
      .window_default = 512, .base_local = 10000.0f, .scale_layers = 62 },
};

typedef struct {
    const eng_gguf_t  *g;
    const eng_arch_t  *arch;
    eng_err_t         *err;
} reader_t;

static int read_sizes(reader_t *r, eng_hp_t *hp);
static int read_heads(reader_t *r, eng_hp_t *hp);
static int read_floats(reader_t *r, eng_hp_t *hp);
static int read_rope(reader_t *r, eng_hp_t *hp);
static int read_vocab(reader_t *r, eng_hp_t *hp);
static int read_ids(reader_t *r, eng_hp_t *hp);


static int
find_arch(reader_t *r)
{
    size_t                 i;
    char                   name[ENG_NAME_MAX];
    const eng_gguf_key_t  *k;

    k = eng_gguf_key(r->g, "general.architecture");
    if (k == NULL || k->kind != ENG_GGUF_STRING) {
        return eng_fail(r->err, ENG_EFORMAT, "%s: the key "
                        "\"general.architecture\" is missing or no string",
                        r->g->path);
    }

    for (i = 0; i < sizeof(archs) / sizeof(archs[0]); i++) {
        if (eng_str_eq(k->v.s, archs[i].name)) {
            r->arch = &archs[i];
            return 0;
        }
    }

    eng_str_print(k->v.s, name, sizeof(name));

    return eng_fail(r->err, ENG_EUNSUP, "%s: architecture \"%s\" is not "
                    "supported", r->g->path, name);
}


int
eng_hp_read(const eng_gguf_t *g, eng_hp_t *hp, eng_err_t *err)
{
    int       rc;
    reader_t  r = { g, NULL, err };

    memset(hp, 0, sizeof(*hp));

    rc = find_arch(&r);
    if (rc != 0) {
        return rc;
    }
    hp->arch = r.arch;

    rc = read_sizes(&r, hp);
    if (rc == 0) {
        rc = read_heads(&r, hp);
    }
    if (rc == 0) {
        rc = read_floats(&r, hp);
    }
    if (rc == 0) {
        rc = read_rope(&r, hp);
    }
    if (rc == 0) {
        rc = read_vocab(&r, hp);
    }
    if (rc == 0) {
        rc = read_ids(&r, hp);
    }

    return rc;
}


int
eng_layer_windowed(const eng_hp_t *hp, uint32_t layer)
{
    uint32_t  every = hp->arch->global_every;

    return every != 0 && hp->window != 0 && (layer + 1) % every != 0;
}


int
eng_layer_roped(const eng_hp_t *hp, uint32_t layer)
{
    uint32_t  every = hp->arch->nope_every;

    return every == 0 || (layer + 1) % every != 0;
}


/* ---- single values ------------------------------------------------------ */

static const eng_gguf_key_t *
arch_key(reader_t *r, const char *key, char *full, size_t cap)
{
    (void) snprintf(full, cap, "%s.%s", r->arch->name, key);

    return eng_gguf_key(r->g, full);
}


/* 0 and *out unchanged when an optional key is absent. */
static int
get_u32(reader_t *r, const char *key, int required, uint32_t min,
    uint32_t max, uint32_t *out)
{
    int64_t                v;
    char                   full[ENG_NAME_MAX], where[ENG_NAME_MAX];
    const eng_gguf_key_t  *k = arch_key(r, key, full, sizeof(full));

    if (k == NULL) {
        return !required ? 0
            : eng_fail(r->err, ENG_EFORMAT, "%s: the key \"%s\" is missing",
                       r->g->path, full);
    }

    switch (k->kind) {
    case ENG_GGUF_U8:
    case ENG_GGUF_U16:
    case ENG_GGUF_U32:
        v = (int64_t) k->v.u;
        break;
    case ENG_GGUF_U64:
        v = k->v.u > INT64_MAX ? INT64_MAX : (int64_t) k->v.u;
        break;
    case ENG_GGUF_I8:
    case ENG_GGUF_I16:
    case ENG_GGUF_I32:
    case ENG_GGUF_I64:
        v = k->v.i;
        break;
    default:
        return eng_fail(r->err, ENG_EUNSUP, "%s: the key \"%s\" %s is not a "
                        "single number", r->g->path, full,
                        eng_source_where(k, where, sizeof(where)));
    }

    if (v < (int64_t) min || v > (int64_t) max) {
        return eng_fail(r->err, ENG_ELIMIT, "%s: \"%s\" %s is %lld, allowed "
                        "are %u to %u", r->g->path, full,
                        eng_source_where(k, where, sizeof(where)),
                        (long long) v, min, max);
    }
    *out = (uint32_t) v;

    return 0;
}


static int
get_f32(reader_t *r, const char *key, int required, double min, double max,
    float *out)
{
    char                   full[ENG_NAME_MAX], where[ENG_NAME_MAX];
    const eng_gguf_key_t  *k = arch_key(r, key, full, sizeof(full));

    if (k == NULL) {
        return !required ? 0
            : eng_fail(r->err, ENG_EFORMAT, "%s: the key \"%s\" is missing",
                       r->g->path, full);
    }

    /* written so that NaN fails */
    if ((k->kind != ENG_GGUF_F32 && k->kind != ENG_GGUF_F64)
        || !(k->v.f >= min && k->v.f <= max))
    {
        return eng_fail(r->err, ENG_EFORMAT, "%s: \"%s\" %s must be a number "
                        "from %g to %g", r->g->path, full,
                        eng_source_where(k, where, sizeof(where)), min, max);
    }
    *out = (float) k->v.f;

    return 0;
}


/* ---- groups ------------------------------------------------------------- */

static int
read_sizes(reader_t *r, eng_hp_t *hp)
{
    int  rc;

    rc = get_u32(r, "block_count", 1, 1, ENG_LAYERS_MAX, &hp->layers);
    if (rc == 0) {
        rc = get_u32(r, "embedding_length", 1, 32, KERN_COLS_MAX, &hp->embd);
    }
    if (rc == 0) {
        rc = get_u32(r, "feed_forward_length", 1, 32, KERN_COLS_MAX, &hp->ff);
    }
    if (rc == 0) {
        rc = get_u32(r, "context_length", 1, 1, ENG_CTX_MAX, &hp->ctx_train);
    }
    if (rc == 0 && (hp->embd % 32 != 0 || hp->ff % 32 != 0)) {
        rc = eng_fail(r->err, ENG_EUNSUP, "%s: embedding length %u and feed "
                      "forward length %u must be multiples of 32", r->g->path,
                      hp->embd, hp->ff);
    }

    return rc;
}


static int
read_heads(reader_t *r, eng_hp_t *hp)
{
    int       rc;
    uint32_t  len_v;

    rc = get_u32(r, "attention.head_count", 1, 1, ENG_HEADS_MAX, &hp->heads);
    hp->heads_kv = hp->heads;
    if (rc == 0) {
        rc = get_u32(r, "attention.head_count_kv", 0, 1, ENG_HEADS_MAX,
                     &hp->heads_kv);
    }
    if (rc != 0) {
        return rc;
    }

    hp->head_dim = hp->embd / hp->heads;
    rc = get_u32(r, "attention.key_length", 0, 8, KERN_HEAD_MAX,
                 &hp->head_dim);
    len_v = hp->head_dim;
    if (rc == 0) {
        rc = get_u32(r, "attention.value_length", 0, 8, KERN_HEAD_MAX, &len_v);
    }
    hp->rot_dim = hp->head_dim;
    if (rc == 0) {
        rc = get_u32(r, "rope.dimension_count", 0, 2, KERN_HEAD_MAX,
                     &hp->rot_dim);
    }
    if (rc != 0) {
        return rc;
    }

    if (hp->heads % hp->heads_kv != 0 || hp->head_dim % 8 != 0
        || hp->head_dim == 0 || hp->head_dim > KERN_HEAD_MAX
        || len_v != hp->head_dim || hp->rot_dim > hp->head_dim
        || hp->rot_dim % 2 != 0
        || (hp->heads * hp->head_dim) % 32 != 0
        || hp->heads * hp->head_dim > KERN_COLS_MAX)
    {
        return eng_fail(r->err, ENG_EUNSUP, "%s: %u heads over %u key/value "
                        "heads of size %u (values %u, rotated %u): sizes must "
                        "be equal multiples of 8 up to %u, head counts must "
                        "divide", r->g->path, hp->heads, hp->heads_kv,
                        hp->head_dim, len_v, hp->rot_dim, KERN_HEAD_MAX);
    }

    return 0;
}


static int
read_floats(reader_t *r, eng_hp_t *hp)
{
    int  rc;

    rc = get_f32(r, "attention.layer_norm_rms_epsilon", 1, 1e-12, 1.0,
                 &hp->eps);
    if (rc == 0) {
        rc = get_f32(r, "attn_logit_softcapping", 0, 0.0, 1e6,
                     &hp->attn_softcap);
    }
    if (rc == 0) {
        rc = get_f32(r, "final_logit_softcapping", 0, 0.0, 1e6,
                     &hp->final_softcap);
    }

    hp->attn_scale = 1.0f / sqrtf((float) hp->head_dim);
    if (hp->layers == hp->arch->scale_layers) {
        hp->attn_scale = 1.0f / sqrtf((float) (hp->embd / hp->heads));
    }
    if (rc == 0) {
        rc = get_f32(r, "attention.scale", 0, 1e-6, 1e6, &hp->attn_scale);
    }

    hp->embd_scale = 1.0f;
    if (hp->arch->flags & ENG_ARCH_EMBD_SCALE) {
        hp->embd_scale = sqrtf((float) hp->embd);
    }

    if (hp->arch->global_every != 0) {
        hp->window = hp->arch->window_default;
        if (rc == 0) {
            rc = get_u32(r, "attention.sliding_window", 0, 0, ENG_CTX_MAX,
                         &hp->window);
        }
    }

    return rc;
}


/*
 * YaRN (Peng et al. 2023, "YaRN: Efficient Context Window Extension", the
 * "NTK by parts" interpolation): fast frequencies stay, slow ones are divided
 * by the factor, those between are blended.
 */
static void
yarn_blend(eng_hp_t *hp, double base, double factor, double ctx_orig)
{
    double    dim = hp->rot_dim, low, high, ramp, keep;
    uint32_t  i;

    low = floor(dim * log(ctx_orig / (32.0 * 2 * M_PI)) / (2 * log(base)));
    high = ceil(dim * log(ctx_orig / (1.0 * 2 * M_PI)) / (2 * log(base)));
    low = fmax(low, 0);
    high = fmin(high, dim - 1);

    for (i = 0; i < hp->rot_dim / 2; i++) {
        ramp = ((double) i - low) / fmax(0.001, high - low);
        keep = 1 - fmin(1, fmax(0, ramp));
        hp->freq[i] = (float) (hp->freq[i] * keep
                               + hp->freq[i] / factor * (1 - keep));
    }

    hp->rope_mscale = (float) (1 + 0.1 * log(factor));
}


static int
rope_scaling(reader_t *r, eng_hp_t *hp, float base)
{
    int                    rc;
    char                   full[ENG_NAME_MAX], name[ENG_NAME_MAX];
    float                  factor = 1.0f;
    uint32_t               i, orig = hp->ctx_train;
    const eng_gguf_key_t  *k;

    k = arch_key(r, "rope.scaling.type", full, sizeof(full));
    rc = get_f32(r, "rope.scaling.factor", 0, 1e-3, 1e4, &factor);
    if (rc == 0) {
        rc = get_u32(r, "rope.scaling.original_context_length", 0, 1,
                     ENG_CTX_MAX, &orig);
    }
    if (rc != 0 || k == NULL) {
        return rc;
    }
    if (k->kind == ENG_GGUF_STRING && eng_str_eq(k->v.s, "none")) {
        return 0;
    }
    if (k->kind == ENG_GGUF_STRING && eng_str_eq(k->v.s, "linear")) {
        for (i = 0; i < hp->rot_dim / 2; i++) {
            hp->freq[i] /= factor;
        }
        return 0;
    }
    if (k->kind == ENG_GGUF_STRING && eng_str_eq(k->v.s, "yarn")) {
        yarn_blend(hp, base, factor, orig);
        return 0;
    }

    (void) snprintf(name, sizeof(name), "(no string)");
    if (k->kind == ENG_GGUF_STRING) {
        eng_str_print(k->v.s, name, sizeof(name));
    }

    return eng_fail(r->err, ENG_EUNSUP, "%s: \"%s\" is \"%s\"; none, linear "
                    "and yarn are supported", r->g->path, full, name);
}


static void
rope_freqs(float *freq, uint32_t rot_dim, double base)
{
    uint32_t  i;

    for (i = 0; i < rot_dim / 2; i++) {
        freq[i] = (float) pow(base, -2.0 * i / rot_dim);
    }
}


static int
read_rope(reader_t *r, eng_hp_t *hp)
{
    int    rc;
    float  base = 10000.0f, local;

    rc = get_f32(r, "rope.freq_base", 0, 1.0, 1e12, &base);
    local = hp->arch->base_local > 0 ? hp->arch->base_local : base;
    if (rc == 0) {
        rc = get_f32(r, "rope.local.freq_base", 0, 1.0, 1e12, &local);
    }
    if (rc != 0) {
        return rc;
    }

    hp->rope_mscale = 1.0f;
    rope_freqs(hp->freq, hp->rot_dim, base);
    rope_freqs(hp->freq_local, hp->rot_dim, local);

    return rope_scaling(r, hp, base);
}


void
eng_hp_rope_factors(eng_hp_t *hp, const float *factor)
{
    uint32_t  i;

    for (i = 0; i < hp->rot_dim / 2; i++) {
        if (factor[i] > 0.0f) {
            hp->freq[i] /= factor[i];
        }
    }
}


static int
read_vocab(reader_t *r, eng_hp_t *hp)
{
    char                      name[ENG_NAME_MAX];
    const eng_gguf_key_t     *k;
    const eng_gguf_tensor_t  *t;

    t = eng_gguf_tensor(r->g, "token_embd.weight");
    if (t == NULL) {
        eng_source_label(r->g, "token_embd.weight", name, sizeof(name));
        return eng_fail(r->err, ENG_EFORMAT, "%s: tensor \"%s\" is missing",
                        r->g->path, name);
    }
    if (t->dim[1] == 0 || t->dim[1] > ENG_VOCAB_MAX) {
        return eng_fail(r->err, ENG_ELIMIT, "%s: \"token_embd.weight\" has "
                        "%llu rows, allowed are 1 to %u", r->g->path,
                        (unsigned long long) t->dim[1], ENG_VOCAB_MAX);
    }
    hp->vocab = (uint32_t) t->dim[1];

    k = eng_gguf_key(r->g, "tokenizer.ggml.tokens");
    if (k != NULL && (k->kind != ENG_GGUF_ARRAY || k->count > hp->vocab)) {
        return eng_fail(r->err, ENG_EFORMAT, "%s: tokenizer.ggml.tokens at "
                        "offset %llu has %llu entries, the embedding %u rows",
                        r->g->path, (unsigned long long) k->offset,
                        (unsigned long long) k->count, hp->vocab);
    }

    return 0;
}


static int
read_ids(reader_t *r, eng_hp_t *hp)
{
    static const struct {
        const char  *key;
        size_t       at;
    } ids[] = {
        { "tokenizer.ggml.bos_token_id", offsetof(eng_hp_t, bos_id) },
        { "tokenizer.ggml.eos_token_id", offsetof(eng_hp_t, eos_id) },
        { "tokenizer.ggml.eot_token_id", offsetof(eng_hp_t, eot_id) },
        { "tokenizer.ggml.unknown_token_id", SIZE_MAX },
        { "tokenizer.ggml.padding_token_id", SIZE_MAX },
        { "tokenizer.ggml.seperator_token_id", SIZE_MAX },
        { "tokenizer.ggml.cls_token_id", SIZE_MAX },
        { "tokenizer.ggml.mask_token_id", SIZE_MAX },
    };

    char                   where[ENG_NAME_MAX];
    size_t                 i;
    const eng_gguf_key_t  *k;

    hp->bos_id = hp->eos_id = hp->eot_id = ENG_NO_ID;

    for (i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        k = eng_gguf_key(r->g, ids[i].key);
        if (k == NULL) {
            continue;
        }
        if (k->kind != ENG_GGUF_U32 || k->v.u >= hp->vocab) {
            return eng_fail(r->err, ENG_EFORMAT, "%s: \"%s\" %s must be a "
                            "token id below %u", r->g->path, ids[i].key,
                            eng_source_where(k, where, sizeof(where)),
                            hp->vocab);
        }
        if (ids[i].at != SIZE_MAX) {
            *(uint32_t *) ((char *) hp + ids[i].at) = (uint32_t) k->v.u;
        }
    }

    return 0;
}
