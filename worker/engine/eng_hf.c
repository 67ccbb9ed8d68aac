/*
 * config.json of a Hugging Face folder by GGUF's keys: architecture, sizes,
 * constants, rotary scaling, special tokens.  What a model would need and the
 * engine does not have is refused here, by the field's name.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_hf.h"

#define ORDER  ENG_HF_INTERLEAVE

static const eng_hf_arch_t  archs[] = {
    { "llama", "llama", ORDER, 0, 0, "silu", NULL },
    { "mistral", "mistral", ORDER | ENG_HF_WINDOW, ENG_HF_NONE, 0, "silu",
      NULL },
    { "qwen2", "qwen2", 0, 0, 0, "silu", NULL },
    { "qwen3", "qwen3", 0, 0, 0, "silu", NULL },
    { "smollm3", "smollm3", ORDER, 0, 4, "silu", NULL },
    { "gemma2", "gemma2", ENG_HF_GEMMA | ENG_HF_WINDOW, 2, 0,
      "gelu_pytorch_tanh", NULL },
    { "gemma3_text", "gemma3", ENG_HF_GEMMA | ENG_HF_WINDOW, 6, 0,
      "gelu_pytorch_tanh", NULL },
    { "gemma3", "gemma3", ENG_HF_GEMMA | ENG_HF_WINDOW | ENG_HF_NESTED, 6, 0,
      "gelu_pytorch_tanh",
      "{\"num_attention_heads\":8,\"num_key_value_heads\":4,"
      "\"head_dim\":256,\"rms_norm_eps\":1e-6,\"rope_theta\":1000000,"
      "\"max_position_embeddings\":131072,\"sliding_window\":4096,"
      "\"query_pre_attn_scalar\":256}" },
};

/* Numbers that are the same thing under another name. */
static const struct {
    const char  *hf;
    const char  *gguf;
    uint8_t      real;            /* else whole                              */
    uint8_t      required;
    uint32_t     flag;            /* 0: for all; else only with this ENG_HF_ */
} numbers[] = {
    { "num_hidden_layers", "block_count", 0, 1, 0 },
    { "hidden_size", "embedding_length", 0, 1, 0 },
    { "intermediate_size", "feed_forward_length", 0, 1, 0 },
    { "max_position_embeddings", "context_length", 0, 1, 0 },
    { "num_attention_heads", "attention.head_count", 0, 1, 0 },
    { "num_key_value_heads", "attention.head_count_kv", 0, 0, 0 },
    { "head_dim", "attention.key_length", 0, 0, 0 },
    { "head_dim", "attention.value_length", 0, 0, 0 },
    { "rms_norm_eps", "attention.layer_norm_rms_epsilon", 1, 1, 0 },
    { "sliding_window", "attention.sliding_window", 0, 0, ENG_HF_WINDOW },
    { "attn_logit_softcapping", "attn_logit_softcapping", 1, 0, 0 },
    { "final_logit_softcapping", "final_logit_softcapping", 1, 0, 0 },
};

typedef struct {
    eng_gguf_t         *g;
    struct eng_folder  *d;
    eng_err_t          *err;
} hf_t;

static int find_arch(hf_t *h);
static int put_numbers(hf_t *h);
static int put_heads(hf_t *h);
static int put_rope(hf_t *h);
static int put_ids(hf_t *h);
static int check_unsupported(hf_t *h);
static int check_layers(hf_t *h);


int
eng_hf_keys(eng_gguf_t *g, eng_err_t *err)
{
    int   rc;
    hf_t  h = { g, g->folder, err };

    g->keys = calloc(ENG_HF_KEYS_MAX, sizeof(g->keys[0]));
    if (g->keys == NULL) {
        return eng_fail(err, ENG_ENOMEM, "%s: no memory", g->path);
    }
    rc = find_arch(&h);
    if (rc == 0) {
        rc = check_unsupported(&h);
    }
    if (rc == 0) {
        rc = put_numbers(&h);
    }
    if (rc == 0) {
        rc = put_heads(&h);
    }
    if (rc == 0) {
        rc = put_rope(&h);
    }
    if (rc == 0) {
        rc = put_ids(&h);
    }
    if (rc == 0) {
        rc = check_layers(&h);
    }

    return rc;
}


/* ---- answers: keys ------------------------------------------------------ */

static const char *
keep(hf_t *h, const char *prefix, const char *text)
{
    char  *p;

    eng_assert(h->d->n_texts < 2 * ENG_HF_KEYS_MAX);
    p = h->d->text[h->d->n_texts++];
    (void) snprintf(p, ENG_NAME_MAX, "%s%s", prefix, text);

    return p;
}


/* name is of the architecture unless it has a folder of its own before it. */
static eng_gguf_key_t *
add_key(hf_t *h, const char *name, const char *label)
{
    char             full[ENG_NAME_MAX];
    const char      *p;
    eng_gguf_key_t  *k;

    eng_assert(h->g->n_keys < ENG_HF_KEYS_MAX);
    k = &h->g->keys[h->g->n_keys++];
    if (strncmp(name, "general.", 8) == 0
        || strncmp(name, "tokenizer.", 10) == 0)
    {
        p = keep(h, "", name);
    } else {
        (void) snprintf(full, sizeof(full), "%s.", h->d->arch->arch);
        p = keep(h, full, name);
    }
    k->key = (eng_str_t) { p, (uint32_t) strlen(p) };
    k->label = label;

    return k;
}


static void
put_u32(hf_t *h, const char *name, uint32_t v, const char *label)
{
    eng_gguf_key_t  *k = add_key(h, name, label);

    k->kind = ENG_GGUF_U32;
    k->v.u = v;
}


static void
put_f32(hf_t *h, const char *name, float v, const char *label)
{
    eng_gguf_key_t  *k = add_key(h, name, label);

    k->kind = ENG_GGUF_F32;
    k->v.f = (double) v;
}


static void
put_text(hf_t *h, const char *name, const char *v, const char *label)
{
    eng_gguf_key_t  *k = add_key(h, name, label);

    v = keep(h, "", v);
    k->kind = ENG_GGUF_STRING;
    k->v.s = (eng_str_t) { v, (uint32_t) strlen(v) };
}


/* ---- questions: config.json --------------------------------------------- */

static const char *
at(hf_t *h, const char *name, char path[ENG_CFG_PATH_MAX])
{
    (void) snprintf(path, ENG_CFG_PATH_MAX, "%s%s", h->d->prefix, name);

    return path;
}


static int
has(hf_t *h, const char *name)
{
    char  path[ENG_CFG_PATH_MAX];

    return eng_cfg_has(&h->d->config, at(h, name, path));
}


static int
ask_u32(hf_t *h, const char *name, uint32_t *v)
{
    int   rc;
    char  path[ENG_CFG_PATH_MAX];

    rc = eng_cfg_u32(&h->d->config, at(h, name, path), 0, UINT32_MAX, v,
                     h->err);
    if (rc == 0 && h->d->defaults.text != NULL) {
        rc = eng_cfg_u32(&h->d->defaults, name, 0, UINT32_MAX, v, h->err);
    }

    return rc;
}


static int
ask_f32(hf_t *h, const char *name, float *v)
{
    int   rc;
    char  path[ENG_CFG_PATH_MAX];

    rc = eng_cfg_f32(&h->d->config, at(h, name, path), -1e30, 1e30, v,
                     h->err);
    if (rc == 0 && h->d->defaults.text != NULL) {
        rc = eng_cfg_f32(&h->d->defaults, name, -1e30, 1e30, v, h->err);
    }

    return rc;
}


static int
ask_bool(hf_t *h, const char *name, int *v)
{
    char  path[ENG_CFG_PATH_MAX];

    return eng_cfg_bool(&h->d->config, at(h, name, path), v, h->err);
}


static int
ask_text(hf_t *h, const char *name, char *dst, size_t cap)
{
    char  path[ENG_CFG_PATH_MAX];

    return eng_cfg_text(&h->d->config, at(h, name, path), dst, cap, h->err);
}


static int
unsupported(hf_t *h, const char *name, const char *is, const char *known)
{
    char  path[ENG_CFG_PATH_MAX];

    return eng_fail(h->err, ENG_EUNSUP, "%s: \"%s\" is %s; %s supported in a "
                    "model of the type \"%s\"", h->d->config.name,
                    at(h, name, path), is, known, h->d->arch->model_type);
}


/* ---- architecture ------------------------------------------------------- */

static int
find_arch(hf_t *h)
{
    int          rc;
    char         type[ENG_NAME_MAX];
    size_t       i;
    const char  *name;

    rc = eng_cfg_text(&h->d->config, "model_type", type, sizeof(type),
                      h->err);
    if (rc == 0) {
        return eng_fail(h->err, ENG_EFORMAT, "%s: \"model_type\" is missing",
                        h->d->config.name);
    }
    if (rc < 0) {
        return rc;
    }
    for (i = 0; i < sizeof(archs) / sizeof(archs[0]); i++) {
        if (strcmp(archs[i].model_type, type) == 0) {
            break;
        }
    }
    if (i == sizeof(archs) / sizeof(archs[0])) {
        return eng_fail(h->err, ENG_EUNSUP, "%s: \"model_type\" \"%s\" is not "
                        "supported", h->d->config.name, type);
    }
    h->d->arch = &archs[i];
    h->d->prefix = archs[i].flags & ENG_HF_NESTED ? "text_config." : "";
    if (archs[i].defaults != NULL) {
        rc = eng_cfg_parse(&h->d->defaults, "defaults", archs[i].defaults,
                           strlen(archs[i].defaults), h->err);
        if (rc != 0) {
            return rc;
        }
    }

    put_text(h, "general.architecture", archs[i].arch, "model_type");
    name = strrchr(h->g->path, '/');
    put_text(h, "general.name", name != NULL && name[1] != '\0' ? name + 1
             : h->g->path, NULL);

    return 0;
}


static int
check_unsupported(hf_t *h)
{
    int          rc, on = 0;
    char         s[ENG_NAME_MAX] = "";
    const char  *act = "hidden_act";

    if (eng_cfg_has(&h->d->config, "quantization_config")) {
        (void) eng_cfg_text(&h->d->config, "quantization_config.quant_method",
                            s, sizeof(s), NULL);
        return eng_fail(h->err, ENG_EUNSUP, "%s: \"quantization_config\" "
                        "(\"%s\"): only F32, F16 and BF16 weights are read "
                        "from a folder", h->d->config.name, s);
    }

    if (h->d->arch->flags & ENG_HF_GEMMA) {
        act = "hidden_activation";
    }
    rc = ask_text(h, act, s, sizeof(s));
    if (rc == 1 && strcmp(s, h->d->arch->act) != 0) {
        return unsupported(h, act, s, h->d->arch->act);
    }
    if (rc >= 0) {
        rc = ask_bool(h, "use_bidirectional_attention", &on);
    }
    if (rc == 1 && on) {
        return unsupported(h, "use_bidirectional_attention", "true",
                           "false is");
    }

    return rc < 0 ? rc : 0;
}


/* ---- numbers ------------------------------------------------------------ */

static int
put_numbers(hf_t *h)
{
    int       rc;
    float     f;
    size_t    i;
    uint32_t  u;

    for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        if (numbers[i].flag != 0
            && !(numbers[i].flag & h->d->arch->flags))
        {
            continue;
        }
        rc = numbers[i].real ? ask_f32(h, numbers[i].hf, &f)
                             : ask_u32(h, numbers[i].hf, &u);
        if (rc < 0) {
            return rc;
        }
        if (rc == 0 && numbers[i].required) {
            return eng_fail(h->err, ENG_EFORMAT, "%s: \"%s%s\" is missing",
                            h->d->config.name, h->d->prefix, numbers[i].hf);
        }
        if (rc == 1 && numbers[i].real) {
            put_f32(h, numbers[i].gguf, f, numbers[i].hf);
        } else if (rc == 1) {
            put_u32(h, numbers[i].gguf, u, numbers[i].hf);
        }
    }

    return 0;
}


static int
put_heads(hf_t *h)
{
    int       rc;
    float     scale, part = 1.0f;
    uint32_t  heads = 0, embd = 0, dim = 0, rot;

    /* both are there: put_numbers() asked for them */
    (void) ask_u32(h, "num_attention_heads", &heads);
    (void) ask_u32(h, "hidden_size", &embd);
    rc = ask_u32(h, "head_dim", &dim);
    if (rc == 0 && heads > 0) {
        dim = embd / heads;
    }
    h->d->head_dim = dim;

    if (rc >= 0) {
        rc = ask_f32(h, "query_pre_attn_scalar", &scale);
    }
    if (rc == 1) {
        if (!(scale > 0.0f)) {
            return unsupported(h, "query_pre_attn_scalar", "0",
                               "a positive number is");
        }
        put_f32(h, "attention.scale", 1.0f / sqrtf(scale),
                "query_pre_attn_scalar");
    }
    if (rc >= 0) {
        rc = ask_f32(h, "partial_rotary_factor", &part);
    }
    if (rc == 1 && part != 1.0f) {
        rot = part > 0.0f && part < 1.0f ? (uint32_t) ((float) dim * part) : 0;
        if (h->d->arch->flags & ENG_HF_INTERLEAVE || rot == 0) {
            return unsupported(h, "partial_rotary_factor", "not 1", "1 is");
        }
        put_u32(h, "rope.dimension_count", rot, "partial_rotary_factor");
    }

    return rc < 0 ? rc : 0;
}


static int
put_ids(hf_t *h)
{
    static const char *const  ids[2][2] = {
        { "bos_token_id", "tokenizer.ggml.bos_token_id" },
        { "eos_token_id", "tokenizer.ggml.eos_token_id" },
    };

    int       rc;
    size_t    i;
    uint32_t  v, n;

    for (i = 0; i < 2; i++) {
        rc = 0;
        if (h->d->generation.text != NULL) {
            rc = eng_cfg_list(&h->d->generation, ids[i][0], &v, 1, &n,
                              h->err);
        }
        if (rc == 0) {
            rc = eng_cfg_list(&h->d->config, ids[i][0], &v, 1, &n, h->err);
        }
        if (rc < 0) {
            return rc;
        }
        if (rc == 1 && n == 1) {
            put_u32(h, ids[i][1], v, ids[i][0]);
        }
    }

    return 0;
}


/* ---- rotary embedding --------------------------------------------------- */

/* "rope_scaling" of older files, "rope_parameters" of newer ones, which may
   hold one object for each kind of layer. */
static const char *
rope_object(hf_t *h)
{
    if (has(h, "rope_scaling")) {
        return "rope_scaling";
    }

    return has(h, "rope_parameters.full_attention")
           ? "rope_parameters.full_attention" : "rope_parameters";
}


static const char *
part_of(const char *object, const char *name, char path[ENG_CFG_PATH_MAX])
{
    (void) snprintf(path, ENG_CFG_PATH_MAX, "%s.%s", object, name);

    return path;
}


static int
rope_f32(hf_t *h, const char *name, float *v)
{
    char  path[ENG_CFG_PATH_MAX];

    return ask_f32(h, part_of(rope_object(h), name, path), v);
}


static int
rope_u32(hf_t *h, const char *name, uint32_t *v)
{
    int   rc;
    char  path[ENG_CFG_PATH_MAX];

    rc = ask_u32(h, part_of(rope_object(h), name, path), v);

    return rc != 0 ? rc : ask_u32(h, name, v);
}


static int
put_base(hf_t *h, const char *name, const char *object, const char *key)
{
    int    rc;
    char   path[ENG_CFG_PATH_MAX];
    float  base;

    rc = ask_f32(h, name, &base);
    if (rc == 0) {
        rc = ask_f32(h, part_of(object, "rope_theta", path), &base);
    }
    if (rc == 1) {
        put_f32(h, key, base, name);
    }

    return rc < 0 ? rc : 0;
}


/* The reference's "llama3" scaling as a divisor for each frequency. */
static int
llama3_factors(hf_t *h)
{
    int       rc;
    float     factor = 0, low = 0, high = 0, base = 10000.0f;
    double    freq, wave, smooth;
    uint32_t  i, n = h->d->head_dim / 2, orig = 0;
    float    *out = h->d->made[h->d->n_made];

    rc = rope_f32(h, "factor", &factor);
    if (rc >= 0) {
        rc = rope_f32(h, "low_freq_factor", &low);
    }
    if (rc >= 0) {
        rc = rope_f32(h, "high_freq_factor", &high);
    }
    if (rc >= 0) {
        rc = rope_u32(h, "original_max_position_embeddings", &orig);
    }
    if (rc >= 0) {
        rc = ask_f32(h, "rope_theta", &base);
    }
    if (rc == 0) {
        rc = rope_f32(h, "rope_theta", &base);
    }
    if (rc < 0) {
        return rc;
    }
    if (!(factor >= 1.0f) || !(low > 0.0f) || !(high > low) || orig == 0
        || !(base > 1.0f) || n == 0 || n > KERN_HEAD_MAX / 2)
    {
        return unsupported(h, rope_object(h), "llama3 with these factors",
                           "factor >= 1 and 0 < low_freq_factor < "
                           "high_freq_factor are");
    }

    for (i = 0; i < n; i++) {
        freq = pow((double) base, -2.0 * i / h->d->head_dim);
        wave = 2 * M_PI / freq;
        smooth = (orig / wave - (double) low) / ((double) high - (double) low);
        smooth = fmin(1, fmax(0, smooth));
        out[i] = (float) (1 / ((1 - smooth) / (double) factor + smooth));
    }
    h->d->made_name[h->d->n_made++] = "rope_freqs.weight";
    h->d->made_len = n;

    return 0;
}


/* The format's factor multiplies YaRN's own, the reference's replaces it. */
static int
yarn_keys(hf_t *h)
{
    int       rc;
    float     f, factor = 1.0f;
    uint32_t  u;

    if (rope_f32(h, "mscale", &f) == 1 || rope_f32(h, "mscale_all_dim", &f)
        == 1)
    {
        return unsupported(h, rope_object(h), "yarn with \"mscale\"",
                           "\"attention_factor\" is");
    }
    put_text(h, "rope.scaling.type", "yarn", "rope_type");
    rc = rope_f32(h, "factor", &factor);
    if (rc == 1) {
        put_f32(h, "rope.scaling.factor", factor, "factor");
        rc = rope_u32(h, "original_max_position_embeddings", &u);
    }
    if (rc == 1) {
        put_u32(h, "rope.scaling.original_context_length", u,
                "original_max_position_embeddings");
    }
    if (rc >= 0) {
        rc = rope_f32(h, "beta_fast", &f);
    }
    if (rc == 1) {
        put_f32(h, "rope.scaling.yarn_beta_fast", f, "beta_fast");
    }
    if (rc >= 0) {
        rc = rope_f32(h, "beta_slow", &f);
    }
    if (rc == 1) {
        put_f32(h, "rope.scaling.yarn_beta_slow", f, "beta_slow");
    }
    if (rc >= 0) {
        rc = rope_f32(h, "attention_factor", &f);
    }
    if (rc == 1 && factor >= 1.0f) {
        put_f32(h, "rope.scaling.attn_factor",
                f / (1.0f + 0.1f * logf(factor)), "attention_factor");
    }

    return rc < 0 ? rc : 0;
}


static int
put_scaling(hf_t *h, const char *type)
{
    int    rc;
    float  factor = 1.0f;

    if (strcmp(type, "default") == 0) {
        return 0;
    }
    if (strcmp(type, "llama3") == 0) {
        return llama3_factors(h);
    }
    if (strcmp(type, "yarn") == 0) {
        return yarn_keys(h);
    }
    if (strcmp(type, "linear") == 0) {
        rc = rope_f32(h, "factor", &factor);
        if (rc == 1) {
            put_text(h, "rope.scaling.type", "linear", "rope_type");
            put_f32(h, "rope.scaling.factor", factor, "factor");
        }
        return rc < 0 ? rc : 0;
    }

    return unsupported(h, rope_object(h), type, "default, linear, llama3 and "
                       "yarn are");
}


static int
put_rope(hf_t *h)
{
    int   rc;
    char  type[ENG_NAME_MAX], path[ENG_CFG_PATH_MAX];

    rc = put_base(h, "rope_theta", rope_object(h), "rope.freq_base");
    if (rc == 0) {
        rc = put_base(h, "rope_local_base_freq",
                      "rope_parameters.sliding_attention",
                      "rope.local.freq_base");
    }
    if (rc != 0) {
        return rc;
    }

    rc = ask_text(h, part_of(rope_object(h), "rope_type", path), type,
                  sizeof(type));
    if (rc == 0) {
        rc = ask_text(h, part_of(rope_object(h), "type", path), type,
                      sizeof(type));
    }

    return rc == 1 ? put_scaling(h, type) : rc;
}


/* ---- layers ------------------------------------------------------------- */

static int
layer_error(hf_t *h, const char *name, uint32_t i, const char *is)
{
    return eng_fail(h->err, ENG_EUNSUP, "%s: \"%s%s\" gives layer %u %s, "
                    "which is not this architecture's order",
                    h->d->config.name, h->d->prefix, name, i, is);
}


static int
check_types(hf_t *h, uint32_t layers)
{
    int       rc, full, window;
    char      path[ENG_CFG_PATH_MAX], s[ENG_NAME_MAX];
    uint32_t  i, every = h->d->arch->global_every;

    window = (h->d->arch->flags & ENG_HF_WINDOW) && has(h, "sliding_window");
    for (i = 0; i < layers; i++) {
        rc = eng_cfg_item(&h->d->config, at(h, "layer_types", path), i, s,
                          sizeof(s), h->err);
        if (rc != 1) {
            return rc;
        }
        full = !window || every == 0 || (i + 1) % every == 0;
        if (strcmp(s, full ? "full_attention" : "sliding_attention") != 0) {
            return layer_error(h, "layer_types", i, s);
        }
    }

    return 0;
}


static int
check_roped(hf_t *h, uint32_t layers)
{
    int       rc;
    char      path[ENG_CFG_PATH_MAX];
    double    v;
    uint32_t  i, every = h->d->arch->nope_every;

    for (i = 0; i < layers; i++) {
        rc = eng_cfg_number(&h->d->config, at(h, "no_rope_layers", path), i,
                            &v, h->err);
        if (rc != 1) {
            return rc;
        }
        if (v != (every == 0 || (i + 1) % every != 0 ? 1.0 : 0.0)) {
            return layer_error(h, "no_rope_layers", i, v != 0.0 ? "rotation"
                               : "no rotation");
        }
    }

    return 0;
}


/* A fixed number that the architecture has, if config.json tells it. */
static int
check_fixed(hf_t *h, const char *name, uint32_t want)
{
    int       rc;
    char      is[16];
    uint32_t  v;

    rc = ask_u32(h, name, &v);
    if (rc == 1 && want != 0 && v != want) {
        (void) snprintf(is, sizeof(is), "%u", v);
        return unsupported(h, name, is, "the usual number is");
    }

    return rc < 0 ? rc : 0;
}


static int
check_layers(hf_t *h)
{
    int       rc, on = 0;
    uint32_t  layers = 0, first = 0;

    (void) ask_u32(h, "num_hidden_layers", &layers);
    layers = layers > ENG_LAYERS_MAX ? ENG_LAYERS_MAX : layers;
    rc = check_types(h, layers);
    if (rc == 0) {
        rc = check_roped(h, layers);
    }
    if (rc == 0) {
        rc = check_fixed(h, "sliding_window_pattern",
                         h->d->arch->global_every);
    }
    if (rc == 0) {
        rc = check_fixed(h, "no_rope_layer_interval", h->d->arch->nope_every);
    }
    if (rc == 0 && !(h->d->arch->flags & ENG_HF_WINDOW)) {
        rc = ask_bool(h, "use_sliding_window", &on);
        if (rc == 1 && on) {
            rc = ask_u32(h, "max_window_layers", &first);
            if (rc >= 0 && first < layers) {
                return unsupported(h, "use_sliding_window", "true",
                                   "false is");
            }
        }
    }

    return rc < 0 ? rc : 0;
}
