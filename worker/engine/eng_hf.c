/*
 * config.json of a Hugging Face folder by GGUF's keys: architecture, sizes,
 * constants, rotary scaling, special tokens.  What a model would need and the
 * engine does not have is refused here, by the field's name.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_hf_int.h"

#define ORDER  ENG_HF_INTERLEAVE

static const eng_hf_arch_t  archs[] = {
    { "llama", "llama", ORDER, 0, 0, "silu", NULL },
    { "mistral", "mistral", ORDER | ENG_HF_WINDOW, ENG_HF_NONE, 0, "silu",
      NULL },
    { "mixtral", "mistral", ORDER | ENG_HF_WINDOW | ENG_HF_SPARSE,
      ENG_HF_NONE, 0, "silu", NULL },
    { "phi3", "phi3", ENG_HF_WINDOW | ENG_HF_FUSED, ENG_HF_NONE, 0, "silu",
      NULL },
    { "qwen2", "qwen2", 0, 0, 0, "silu", NULL },
    { "qwen2_moe", "qwen2moe", ENG_HF_TOPK_NORM, 0, 0, "silu", NULL },
    { "qwen3_moe", "qwen3moe", ENG_HF_TOPK_NORM, 0, 0, "silu", NULL },
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
    { "num_local_experts", "expert_count", 0, 0, 0 },
    { "num_experts", "expert_count", 0, 0, ENG_HF_TOPK_NORM },
    { "num_experts_per_tok", "expert_used_count", 0, 0, 0 },
    { "moe_intermediate_size", "expert_feed_forward_length", 0, 0, 0 },
    { "shared_expert_intermediate_size", "expert_shared_feed_forward_length",
      0, 0, 0 },
    { "attn_logit_softcapping", "attn_logit_softcapping", 1, 0, 0 },
    { "final_logit_softcapping", "final_logit_softcapping", 1, 0, 0 },
};

static int find_arch(eng_hf_t *h);
static int put_numbers(eng_hf_t *h);
static int put_heads(eng_hf_t *h);
static int put_ids(eng_hf_t *h);
static int put_experts(eng_hf_t *h);
static int check_unsupported(eng_hf_t *h);
static int check_layers(eng_hf_t *h);


int
eng_hf_keys(eng_gguf_t *g, eng_err_t *err)
{
    int   rc;
    eng_hf_t  h = { g, g->folder, err };

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
        rc = eng_hf_rope(&h);
    }
    if (rc == 0) {
        rc = put_ids(&h);
    }
    if (rc == 0) {
        rc = put_experts(&h);
    }
    if (rc == 0) {
        rc = check_layers(&h);
    }

    return rc;
}


/* ---- architecture ------------------------------------------------------- */

static int
find_arch(eng_hf_t *h)
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

    eng_hf_put_text(h, "general.architecture", archs[i].arch, "model_type");
    name = strrchr(h->g->path, '/');
    eng_hf_put_text(h, "general.name", name != NULL && name[1] != '\0'
                    ? name + 1 : h->g->path, NULL);

    return 0;
}


static int
check_unsupported(eng_hf_t *h)
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
    rc = eng_hf_text(h, act, s, sizeof(s));
    if (rc == 1 && strcmp(s, h->d->arch->act) != 0) {
        return eng_hf_unsupported(h, act, s, h->d->arch->act);
    }
    if (rc >= 0) {
        rc = eng_hf_bool(h, "use_bidirectional_attention", &on);
    }
    if (rc == 1 && on) {
        return eng_hf_unsupported(h, "use_bidirectional_attention", "true",
                           "false is");
    }

    return rc < 0 ? rc : 0;
}


/* ---- numbers ------------------------------------------------------------ */

static int
put_numbers(eng_hf_t *h)
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
        rc = numbers[i].real ? eng_hf_f32(h, numbers[i].hf, &f)
                             : eng_hf_u32(h, numbers[i].hf, &u);
        if (rc < 0) {
            return rc;
        }
        if (rc == 0 && numbers[i].required) {
            return eng_fail(h->err, ENG_EFORMAT, "%s: \"%s%s\" is missing",
                            h->d->config.name, h->d->prefix, numbers[i].hf);
        }
        if (rc == 1 && numbers[i].real) {
            eng_hf_put_f32(h, numbers[i].gguf, f, numbers[i].hf);
        } else if (rc == 1) {
            eng_hf_put_u32(h, numbers[i].gguf, u, numbers[i].hf);
        }
    }

    return 0;
}


static int
put_heads(eng_hf_t *h)
{
    int       rc;
    float     scale, part = 1.0f;
    uint32_t  heads = 0, embd = 0, dim = 0, rot;

    /* both are there: put_numbers() asked for them */
    (void) eng_hf_u32(h, "num_attention_heads", &heads);
    (void) eng_hf_u32(h, "hidden_size", &embd);
    rc = eng_hf_u32(h, "head_dim", &dim);
    if (rc == 0 && heads > 0) {
        dim = embd / heads;
    }
    h->d->head_dim = dim;

    if (rc >= 0) {
        rc = eng_hf_f32(h, "query_pre_attn_scalar", &scale);
    }
    if (rc == 1) {
        if (!(scale > 0.0f)) {
            return eng_hf_unsupported(h, "query_pre_attn_scalar", "0",
                               "a positive number is");
        }
        eng_hf_put_f32(h, "attention.scale", 1.0f / sqrtf(scale),
                "query_pre_attn_scalar");
    }
    if (rc >= 0) {
        rc = eng_hf_f32(h, "partial_rotary_factor", &part);
    }
    if (rc == 1 && part != 1.0f) {
        rot = part > 0.0f && part < 1.0f ? (uint32_t) ((float) dim * part) : 0;
        if (h->d->arch->flags & ENG_HF_INTERLEAVE || rot == 0) {
            return eng_hf_unsupported(h, "partial_rotary_factor", "not 1",
                                      "1 is");
        }
        eng_hf_put_u32(h, "rope.dimension_count", rot, "partial_rotary_factor");
    }

    return rc < 0 ? rc : 0;
}


/* Every layer has experts, or the layers do not differ. */
static int
put_experts(eng_hf_t *h)
{
    int       rc, norm = 0;
    char      path[ENG_CFG_PATH_MAX];
    double    v;
    uint32_t  step;

    if (!(h->d->arch->flags & ENG_HF_TOPK_NORM)) {
        return 0;
    }
    rc = eng_hf_bool(h, "norm_topk_prob", &norm);
    if (rc < 0) {
        return rc;
    }
    eng_hf_put_u32(h, "expert_weights_norm", norm != 0, "norm_topk_prob");

    rc = eng_hf_u32(h, "decoder_sparse_step", &step);
    if (rc == 1 && step != 1) {
        return eng_hf_unsupported(h, "decoder_sparse_step", "not 1", "1 is");
    }
    if (rc >= 0) {
        rc = eng_cfg_number(&h->d->config,
                            eng_hf_at(h, "mlp_only_layers", path), 0, &v,
                            h->err);
    }
    if (rc == 1) {
        return eng_hf_unsupported(h, "mlp_only_layers", "not empty",
                                  "none are");
    }

    return rc < 0 ? rc : 0;
}


static int
put_ids(eng_hf_t *h)
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
            eng_hf_put_u32(h, ids[i][1], v, ids[i][0]);
        }
    }

    return 0;
}


/* ---- layers ------------------------------------------------------------- */

static int
layer_error(eng_hf_t *h, const char *name, uint32_t i, const char *is)
{
    return eng_fail(h->err, ENG_EUNSUP, "%s: \"%s%s\" gives layer %u %s, "
                    "which is not this architecture's order",
                    h->d->config.name, h->d->prefix, name, i, is);
}


static int
check_types(eng_hf_t *h, uint32_t layers)
{
    int       rc, full, window;
    char      path[ENG_CFG_PATH_MAX], s[ENG_NAME_MAX];
    uint32_t  i, every = h->d->arch->global_every;

    window = (h->d->arch->flags & ENG_HF_WINDOW)
             && eng_hf_has(h, "sliding_window");
    for (i = 0; i < layers; i++) {
        rc = eng_cfg_item(&h->d->config, eng_hf_at(h, "layer_types", path), i,
                          s, sizeof(s), h->err);
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
check_roped(eng_hf_t *h, uint32_t layers)
{
    int       rc;
    char      path[ENG_CFG_PATH_MAX];
    double    v;
    uint32_t  i, every = h->d->arch->nope_every;

    for (i = 0; i < layers; i++) {
        rc = eng_cfg_number(&h->d->config,
                            eng_hf_at(h, "no_rope_layers", path), i, &v,
                            h->err);
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
check_fixed(eng_hf_t *h, const char *name, uint32_t want)
{
    int       rc;
    char      is[16];
    uint32_t  v;

    rc = eng_hf_u32(h, name, &v);
    if (rc == 1 && want != 0 && v != want) {
        (void) snprintf(is, sizeof(is), "%u", v);
        return eng_hf_unsupported(h, name, is, "the usual number is");
    }

    return rc < 0 ? rc : 0;
}


static int
check_layers(eng_hf_t *h)
{
    int       rc, on = 0;
    uint32_t  layers = 0, first = 0;

    (void) eng_hf_u32(h, "num_hidden_layers", &layers);
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
        rc = eng_hf_bool(h, "use_sliding_window", &on);
        if (rc == 1 && on) {
            rc = eng_hf_u32(h, "max_window_layers", &first);
            if (rc >= 0 && first < layers) {
                return eng_hf_unsupported(h, "use_sliding_window", "true",
                                   "false is");
            }
        }
    }

    return rc < 0 ? rc : 0;
}
