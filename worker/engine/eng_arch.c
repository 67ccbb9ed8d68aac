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
    { .name = "llama", .rope = KERN_ROPE_NORMAL,
      .flags = ENG_ARCH_EXPERTS_MAY | ENG_ARCH_EXPERTS_NORM,
      .global_every = ENG_EVERY_NONE },
    { .name = "mistral", .rope = KERN_ROPE_NORMAL,
      .flags = ENG_ARCH_EXPERTS_MAY | ENG_ARCH_EXPERTS_NORM,
      .global_every = ENG_EVERY_NONE },
    { .name = "smollm3", .rope = KERN_ROPE_NORMAL, .nope_every = 4 },
    { .name = "qwen2", .rope = KERN_ROPE_NEOX, .flags = ENG_ARCH_QKV_BIAS },
    { .name = "qwen3", .rope = KERN_ROPE_NEOX, .flags = ENG_ARCH_QK_NORM },
    { .name = "qwen2moe", .rope = KERN_ROPE_NEOX,
      .flags = ENG_ARCH_QKV_BIAS | ENG_ARCH_EXPERTS | ENG_ARCH_SHARED },
    { .name = "qwen3moe", .rope = KERN_ROPE_NEOX,
      .flags = ENG_ARCH_QK_NORM | ENG_ARCH_EXPERTS | ENG_ARCH_EXPERTS_NORM },
    { .name = "phi3", .rope = KERN_ROPE_NEOX, .flags = ENG_ARCH_FUSED,
      .global_every = ENG_EVERY_NONE },
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
static int read_experts(reader_t *r, eng_hp_t *hp);
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
        rc = read_experts(&r, hp);
    }
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
eng_layer_local(const eng_hp_t *hp, uint32_t layer)
{
    return hp->arch->base_local > 0.0f && eng_layer_windowed(hp, layer);
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


/*
 * expert_gating_func 1 is softmax, the only one here; layers without experts
 * between others are not supported.
 */
static int
read_expert_sizes(reader_t *r, eng_hp_t *hp)
{
    int       rc;
    uint32_t  ignored = 0;

    rc = get_u32(r, "expert_used_count", 1, 1, hp->experts,
                 &hp->experts_used);
    if (rc != 0) {
        return rc;
    }
    hp->ff_exp = hp->arch->flags & ENG_ARCH_EXPERTS_MAY
                 ? hp->ff : hp->ff / hp->experts_used;
    rc = get_u32(r, "expert_feed_forward_length", 0, 32, KERN_COLS_MAX,
                 &hp->ff_exp);
    if (rc == 0 && hp->arch->flags & ENG_ARCH_SHARED) {
        hp->ff_shared = hp->ff;
        rc = get_u32(r, "expert_shared_feed_forward_length", 0, 32,
                     KERN_COLS_MAX, &hp->ff_shared);
    }
    if (rc == 0) {
        rc = get_u32(r, "expert_gating_func", 0, 0, 1, &ignored);
    }
    if (rc == 0) {
        rc = get_u32(r, "leading_dense_block_count", 0, 0, 0, &ignored);
    }

    return rc;
}


static int
read_experts(reader_t *r, eng_hp_t *hp)
{
    int                    rc;
    char                   full[ENG_NAME_MAX];
    uint64_t               rows;
    const eng_gguf_key_t  *k;

    rc = get_u32(r, "expert_count", hp->arch->flags & ENG_ARCH_EXPERTS ? 1 : 0,
                 hp->arch->flags & ENG_ARCH_EXPERTS ? 1 : 0, ENG_EXPERTS_MAX,
                 &hp->experts);
    if (rc != 0 || hp->experts == 0) {
        return rc;
    }
    if (!(hp->arch->flags & (ENG_ARCH_EXPERTS | ENG_ARCH_EXPERTS_MAY))) {
        return eng_fail(r->err, ENG_EUNSUP, "%s: \"%s.expert_count\" is %u: "
                        "experts are not supported in this architecture",
                        r->g->path, hp->arch->name, hp->experts);
    }
    rc = read_expert_sizes(r, hp);
    if (rc != 0) {
        return rc;
    }

    hp->experts_norm = (hp->arch->flags & ENG_ARCH_EXPERTS_NORM) != 0;
    k = arch_key(r, "expert_weights_norm", full, sizeof(full));
    if (k != NULL && (k->kind == ENG_GGUF_BOOL || k->kind == ENG_GGUF_U32)) {
        hp->experts_norm = k->v.u != 0;
    }
    rows = hp->ff_exp > hp->embd ? hp->ff_exp : hp->embd;
    if (hp->ff_exp == 0 || hp->ff_exp % 32 != 0 || hp->ff_shared % 32 != 0
        || rows * hp->experts > KERN_ROWS_MAX)
    {
        return eng_fail(r->err, ENG_EUNSUP, "%s: %u experts of %u (shared: "
                        "%u): sizes must be multiples of 32, and experts "
                        "times size at most %u", r->g->path, hp->experts,
                        hp->ff_exp, hp->ff_shared, KERN_ROWS_MAX);
    }

    return 0;
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


static int
rope_kind(reader_t *r, eng_rope_t *rope)
{
    size_t                 i;
    char                   full[ENG_NAME_MAX], name[ENG_NAME_MAX];
    const eng_gguf_key_t  *k;

    static const struct {
        const char       *name;
        eng_rope_kind_t   kind;
    } kinds[] = {
        { "none", ENG_ROPE_PLAIN }, { "linear", ENG_ROPE_LINEAR },
        { "yarn", ENG_ROPE_YARN }, { "longrope", ENG_ROPE_LONG },
    };

    k = arch_key(r, "rope.scaling.type", full, sizeof(full));
    if (k == NULL) {
        return 0;
    }
    (void) snprintf(name, sizeof(name), "(no string)");
    if (k->kind == ENG_GGUF_STRING) {
        for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
            if (eng_str_eq(k->v.s, kinds[i].name)) {
                rope->kind = kinds[i].kind;
                return 0;
            }
        }
        eng_str_print(k->v.s, name, sizeof(name));
    }

    return eng_fail(r->err, ENG_EUNSUP, "%s: \"%s\" is \"%s\"; none, linear, "
                    "yarn and longrope are supported", r->g->path, full,
                    name);
}


static int
rope_scaling(reader_t *r, eng_rope_t *rope)
{
    int    rc;
    float  factor = 1.0f, mscale = 0.0f, fast = 32.0f, slow = 1.0f;

    rc = get_f32(r, "rope.scaling.factor", 0, 1e-3, 1e4, &factor);
    if (rc == 0) {
        rc = get_u32(r, "rope.scaling.original_context_length", 0, 1,
                     ENG_CTX_MAX, &rope->ctx_orig);
    }
    if (rc == 0) {
        rc = get_f32(r, "rope.scaling.attn_factor", 0, 1e-3, 1e3, &mscale);
    }
    if (rc == 0) {
        rc = get_f32(r, "rope.scaling.yarn_beta_fast", 0, 1e-3, 1e6, &fast);
    }
    if (rc == 0) {
        rc = get_f32(r, "rope.scaling.yarn_beta_slow", 0, 1e-3, 1e6, &slow);
    }
    if (rc == 0) {
        rc = rope_kind(r, rope);
    }
    rope->factor = (double) factor;
    rope->beta_fast = (double) fast;
    rope->beta_slow = (double) slow;

    /* the format multiplies YaRN's own factor by this one, which else is 1 */
    if (rope->kind == ENG_ROPE_YARN && mscale > 0.0f) {
        mscale *= eng_rope_mscale(rope);
    }
    rope->mscale = (double) mscale;

    return rc;
}


static int
read_rope(reader_t *r, eng_hp_t *hp)
{
    int         rc;
    float       base = 10000.0f, local;
    eng_rope_t  rope = ENG_ROPE_INIT;

    rc = get_f32(r, "rope.freq_base", 0, 1.0, 1e12, &base);
    local = hp->arch->base_local;
    if (rc == 0 && local > 0) {
        rc = get_f32(r, "rope.local.freq_base", 0, 1.0, 1e12, &local);
    }
    rope.dim = hp->rot_dim;
    rope.base = (double) local;
    if (rc == 0 && local > 0) {
        eng_rope_freqs(&rope, hp->freq_local);
    }
    rope.base = (double) base;
    rope.ctx_orig = hp->ctx_train;
    if (rc == 0) {
        rc = rope_scaling(r, &rope);
    }
    if (rc == 0) {
        hp->rope = rope;
        eng_rope_freqs(&rope, hp->freq);
        hp->rope_mscale = eng_rope_mscale(&rope);
        memcpy(hp->freq_long, hp->freq, sizeof(hp->freq));
    }

    return rc;
}


void
eng_hp_rope_factors(eng_hp_t *hp, const float *all,
    const float *factor_short, const float *factor_long)
{
    uint32_t  half = hp->rot_dim / 2;

    if (all != NULL) {
        eng_rope_divide(hp->freq, all, half);
        eng_rope_divide(hp->freq_long, all, half);
    }
    if (factor_short != NULL) {
        eng_rope_divide(hp->freq, factor_short, half);
    }
    if (factor_long != NULL) {
        eng_rope_divide(hp->freq_long, factor_long, half);
    }

    /* a file with such factors needs not name the kind nor the factor */
    if (factor_long != NULL && hp->rope.mscale <= 0.0) {
        hp->rope.kind = ENG_ROPE_LONG;
        if (hp->rope.factor <= 1.0) {
            hp->rope.factor = (double) hp->ctx_train / hp->rope.ctx_orig;
        }
        hp->rope_mscale = eng_rope_mscale(&hp->rope);
    }
}


const float *
eng_hp_freq(const eng_hp_t *hp, uint32_t ctx_len)
{
    return ctx_len > hp->rope.ctx_orig ? hp->freq_long : hp->freq;
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
