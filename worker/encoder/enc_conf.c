/*
 * config.json and its companions to sizes: one table of keys per family, as
 * each spells them its own way.  What is missing, beyond its bounds or
 * unknown in a way that changes results is refused by name.
 */
#include <stdio.h>
#include <string.h>

#include "worker/encoder/enc_arch.h"
#include "worker/encoder/enc_conf.h"
#include "worker/engine/eng_cfg.h"
#include "worker/engine/eng_io.h"

#define MAX_SEQ_T5         512u     /* where a file does not say             */

/* How a family spells its sizes; NULL: it has no such key. */
typedef struct {
    const char  *type;
    const char  *embd, *layers, *heads, *head_dim, *ff, *pos, *types, *eps;
    const char  *act;
} keys_t;

static const keys_t  keys[] = {
    { "distilbert", "dim", "n_layers", "n_heads", NULL, "hidden_dim",
      "max_position_embeddings", NULL, NULL, "activation" },
    { "modernbert", "hidden_size", "num_hidden_layers",
      "num_attention_heads", NULL, "intermediate_size",
      "max_position_embeddings", NULL, "norm_eps", "hidden_activation" },
    { "nomic_bert", "n_embd", "n_layer", "n_head", NULL, "n_inner",
      "n_positions", "type_vocab_size", "layer_norm_epsilon",
      "activation_function" },
    { "t5", "d_model", "num_layers", "num_heads", "d_kv", "d_ff",
      "n_positions", NULL, "layer_norm_epsilon", "feed_forward_proj" },
    { "mt5", "d_model", "num_layers", "num_heads", "d_kv", "d_ff",
      "n_positions", NULL, "layer_norm_epsilon", "feed_forward_proj" },
    { NULL, "hidden_size", "num_hidden_layers", "num_attention_heads",
      "head_dim", "intermediate_size", "max_position_embeddings",
      "type_vocab_size", "layer_norm_eps", "hidden_act" },
};

static const struct {
    const char  *name;
    kern_act_t   act;
    int          gated;
} acts[] = {
    { "gelu", KERN_ACT_GELU_ERF, 0 },
    { "gelu_python", KERN_ACT_GELU_ERF, 0 },
    { "gelu_new", KERN_ACT_GELU_TANH, 0 },
    { "gelu_fast", KERN_ACT_GELU_TANH, 0 },
    { "gelu_pytorch_tanh", KERN_ACT_GELU_TANH, 0 },
    { "relu", KERN_ACT_RELU, 0 },
    { "silu", KERN_ACT_SILU, 0 },
    { "swish", KERN_ACT_SILU, 0 },
    { "swiglu", KERN_ACT_SILU, 1 },
    { "gated-gelu", KERN_ACT_GELU_TANH, 1 },
    { "gated-silu", KERN_ACT_SILU, 1 },
};


int
enc_conf_act(const char *name, enc_hp_t *hp, const char *where,
    eng_err_t *err)
{
    size_t  i;

    for (i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) {
        if (strcmp(acts[i].name, name) == 0) {
            hp->act = acts[i].act;
            if (acts[i].gated) {
                hp->flags |= ENC_F_GLU;
            }
            return 0;
        }
    }

    return eng_fail(err, ENG_EUNSUP, "%s: activation \"%s\" is not known",
                    where, name);
}


/* A number that must be there. */
static int
need(const eng_cfg_t *c, const char *key, uint32_t max, uint32_t *out,
    eng_err_t *err)
{
    int  rc = eng_cfg_u32(c, key, 1, max, out, err);

    if (rc == 0) {
        rc = eng_fail(err, ENG_EFORMAT, "%s: \"%s\" is missing", c->name,
                      key);
    }

    return rc < 0 ? rc : 0;
}


/* The first negative result of a row of questions. */
#define TRY(call)                                                            \
    do {                                                                     \
        int  try_rc = (call);                                                \
                                                                             \
        if (try_rc < 0) {                                                    \
            return try_rc;                                                   \
        }                                                                    \
    } while (0)


static int
read_sizes(const eng_cfg_t *c, const keys_t *k, enc_hp_t *hp, eng_err_t *err)
{
    char  act[64] = "gelu";

    TRY(need(c, "vocab_size", ENC_VOCAB_MAX, &hp->vocab, err));
    TRY(need(c, k->embd, ENC_EMBD_MAX, &hp->embd, err));
    TRY(need(c, k->layers, ENC_LAYERS_MAX, &hp->layers, err));
    TRY(need(c, k->heads, ENC_HEADS_MAX, &hp->heads, err));
    hp->ff = 4 * hp->embd;
    TRY(eng_cfg_u32(c, k->ff, 1, ENC_FF_MAX, &hp->ff, err));

    if (hp->flags & ENC_F_REL) {
        TRY(need(c, k->head_dim, KERN_HEAD_MAX, &hp->head_dim, err));
        hp->n_pos = MAX_SEQ_T5;
        TRY(eng_cfg_u32(c, k->pos, 1, ENC_POS_MAX, &hp->n_pos, err));
        (void) snprintf(act, sizeof(act), "relu");
    } else {
        if (hp->embd % hp->heads != 0) {
            return eng_fail(err, ENG_EFORMAT, "%s: \"%s\" %u is no multiple "
                            "of \"%s\" %u", c->name, k->embd, hp->embd,
                            k->heads, hp->heads);
        }
        hp->head_dim = hp->embd / hp->heads;
        TRY(need(c, k->pos, ENC_POS_MAX, &hp->n_pos, err));
    }

    if (k->types != NULL) {
        hp->types = 2;
        TRY(eng_cfg_u32(c, k->types, 0, 256, &hp->types, err));
    }
    hp->eps = 1e-12f;
    if (k->eps != NULL) {
        hp->eps = hp->flags & (ENC_F_REL) ? 1e-6f
                  : hp->flags & ENC_F_PRENORM ? 1e-5f : 1e-12f;
        TRY(eng_cfg_f32(c, k->eps, 0, 1, &hp->eps, err));
    }
    TRY(eng_cfg_text(c, k->act, act, sizeof(act), err));

    return enc_conf_act(act, hp, c->name, err);
}


static int
read_ids(const eng_cfg_t *c, enc_hp_t *hp, eng_err_t *err)
{
    uint32_t  max = hp->vocab - 1;

    hp->pad_id = hp->flags & ENC_F_PADPOS ? 1 : 0;
    hp->eos_id = ENC_NO_ID;
    hp->start_id = ENC_NO_ID;
    TRY(eng_cfg_u32(c, "pad_token_id", 0, max, &hp->pad_id, err));
    TRY(eng_cfg_u32(c, "eos_token_id", 0, max, &hp->eos_id, err));
    TRY(eng_cfg_u32(c, "decoder_start_token_id", 0, max, &hp->start_id,
                    err));

    if (hp->flags & ENC_F_PADPOS) {
        if (hp->n_pos <= hp->pad_id + 1) {
            return eng_fail(err, ENG_EFORMAT, "%s: %u positions, of which "
                            "the pad id %u takes all", c->name, hp->n_pos,
                            hp->pad_id);
        }
    }

    return 0;
}


static int
read_rope(const eng_cfg_t *c, enc_hp_t *hp, eng_err_t *err)
{
    int       prenorm = 0;
    float     fraction = 1;
    uint32_t  every = 3, local = 128;

    if (strcmp(hp->arch->type, "nomic_bert") == 0) {
        hp->rope_base = 10000;
        TRY(eng_cfg_f32(c, "rotary_emb_base", 1, 1e9, &hp->rope_base, err));
        TRY(eng_cfg_f32(c, "rotary_emb_fraction", 0, 1, &fraction, err));
        TRY(eng_cfg_bool(c, "prenorm", &prenorm, err));
        if (fraction < 1 || prenorm) {
            return eng_fail(err, ENG_EUNSUP, "%s: rotary_emb_fraction below "
                            "1 and prenorm are not supported", c->name);
        }
        hp->rope_base_local = hp->rope_base;
        return 0;
    }

    hp->rope_base = 160000;
    hp->rope_base_local = 10000;
    TRY(eng_cfg_f32(c, "global_rope_theta", 1, 1e9, &hp->rope_base, err));
    TRY(eng_cfg_f32(c, "local_rope_theta", 1, 1e9, &hp->rope_base_local,
                    err));
    TRY(eng_cfg_u32(c, "global_attn_every_n_layers", 1, ENC_LAYERS_MAX,
                    &every, err));
    TRY(eng_cfg_u32(c, "local_attention", 2, ENC_POS_MAX, &local, err));
    hp->global_every = every;
    hp->window = local / 2;

    return 0;
}


static int
read_t5(const eng_cfg_t *c, enc_hp_t *hp, eng_err_t *err)
{
    int  tied = strcmp(hp->arch->type, "mt5") != 0;

    hp->buckets = 32;
    hp->distance = 128;
    hp->dec_layers = hp->layers;
    hp->scale = 1;
    TRY(eng_cfg_u32(c, "relative_attention_num_buckets", 4, ENC_BUCKETS_MAX,
                    &hp->buckets, err));
    TRY(eng_cfg_u32(c, "relative_attention_max_distance", 2, ENC_POS_MAX,
                    &hp->distance, err));
    TRY(eng_cfg_u32(c, "num_decoder_layers", 1, ENC_LAYERS_MAX,
                    &hp->dec_layers, err));
    TRY(eng_cfg_bool(c, "tie_word_embeddings", &tied, err));
    hp->tied = tied;
    return 0;
}


/* id2label: {"0": "NEGATIVE", ...}; without it the classifier's rows name
   themselves LABEL_0 ... later. */
static int
read_labels(const eng_cfg_t *c, enc_hp_t *hp, char (*label)[ENC_LABEL_MAX],
    eng_err_t *err)
{
    int   rc = 1;
    char  key[32], type[64] = "";

    hp->labels = 0;
    while (rc > 0 && hp->labels < ENC_LABELS_MAX) {
        (void) snprintf(key, sizeof(key), "id2label.%u", hp->labels);
        rc = eng_cfg_name(c, key, label[hp->labels], ENC_LABEL_MAX, err);
        TRY(rc);
        hp->labels += rc > 0;
    }
    if (hp->labels == 0) {
        hp->labels = 2;
        TRY(eng_cfg_u32(c, "num_labels", 1, ENC_LABELS_MAX, &hp->labels,
                        err));
        for (uint32_t i = 0; i < hp->labels; i++) {
            (void) snprintf(label[i], ENC_LABEL_MAX, "LABEL_%u", i);
        }
    }

    TRY(eng_cfg_text(c, "problem_type", type, sizeof(type), err));
    hp->score = hp->labels == 1 || strcmp(type, "multi_label_classification")
                == 0 ? ENC_SCORE_SIGMOID : ENC_SCORE_SOFTMAX;
    if (strcmp(type, "regression") == 0) {
        hp->score = ENC_SCORE_NONE;
    }
    hp->kind = hp->labels == 1 ? ENC_RERANK : ENC_CLASSIFY;

    return 0;
}


static const enc_head_names_t  head_bert = {
    "pooler.dense", NULL, "classifier", KERN_ACT_RELU, 1
};
static const enc_head_names_t  head_roberta = {
    "classifier.dense", NULL, "classifier.out_proj", KERN_ACT_RELU, 1
};
static const enc_head_names_t  head_distilbert = {
    "pre_classifier", NULL, "classifier", KERN_ACT_RELU, 0
};
static const enc_head_names_t  head_modernbert = {
    "head.dense", "head.norm", "classifier", KERN_ACT_GELU_ERF, 0
};


static int
read_head(const eng_cfg_t *c, enc_hp_t *hp, eng_err_t *err)
{
    char         pool[32] = "cls", act[64] = "gelu";
    const char  *type = hp->arch->type;

    hp->pool = ENC_POOL_CLS;
    if (strcmp(type, "bert") == 0) {
        hp->head = &head_bert;
    } else if (hp->flags & ENC_F_PADPOS) {
        hp->head = &head_roberta;
    } else if (strcmp(type, "distilbert") == 0) {
        hp->head = &head_distilbert;
    } else if (strcmp(type, "modernbert") == 0) {
        hp->head = &head_modernbert;
        TRY(eng_cfg_text(c, "classifier_pooling", pool, sizeof(pool), err));
        TRY(eng_cfg_text(c, "classifier_activation", act, sizeof(act), err));
        hp->pool = strcmp(pool, "mean") == 0 ? ENC_POOL_MEAN : ENC_POOL_CLS;
        if (strcmp(act, "gelu") != 0) {
            return eng_fail(err, ENG_EUNSUP, "%s: \"classifier_activation\" "
                            "\"%s\" is not known", c->name, act);
        }
    } else {
        return eng_fail(err, ENG_EUNSUP, "%s: classification with \"%s\" is "
                        "not supported", c->name, type);
    }

    return 0;
}


static int
ends_with(const char *s, const char *end)
{
    size_t  n = strlen(s), m = strlen(end);

    return n >= m && strcmp(s + n - m, end) == 0;
}


/* What the model is for, by "architectures". */
static int
read_kind(const eng_cfg_t *c, enc_hp_t *hp, char (*label)[ENC_LABEL_MAX],
    eng_err_t *err)
{
    char  arch[96] = "";

    hp->kind = ENC_EMBED;
    TRY(eng_cfg_item(c, "architectures", 0, arch, sizeof(arch), err));

    if (ends_with(arch, "ForSequenceClassification")) {
        TRY(read_labels(c, hp, label, err));
        return read_head(c, hp, err);
    }
    if (ends_with(arch, "ForTokenClassification")
        || ends_with(arch, "ForQuestionAnswering")
        || ends_with(arch, "ForMultipleChoice"))
    {
        return eng_fail(err, ENG_EUNSUP, "%s: %s is not supported; served "
                        "are embeddings, sequence classification and text "
                        "to text", c->name, arch);
    }
    if ((hp->flags & ENC_F_REL) && !ends_with(arch, "EncoderModel")) {
        hp->kind = ENC_T2T;
        if (hp->start_id == ENC_NO_ID || hp->eos_id == ENC_NO_ID) {
            return eng_fail(err, ENG_EFORMAT, "%s: \"%s\" is missing",
                            c->name, hp->start_id == ENC_NO_ID
                            ? "decoder_start_token_id" : "eos_token_id");
        }
    }

    return 0;
}


static int
read_config(const eng_cfg_t *c, enc_hp_t *hp, char (*label)[ENC_LABEL_MAX],
    eng_err_t *err)
{
    char           type[64] = "", kind[32] = "absolute";
    const keys_t  *k = keys;

    TRY(eng_cfg_text(c, "model_type", type, sizeof(type), err));
    hp->arch = enc_arch_find(type, 0);
    if (hp->arch == NULL) {
        return eng_fail(err, ENG_EUNSUP, "%s: \"model_type\" \"%s\" is none "
                        "of the encoders that are served", c->name, type);
    }
    hp->names = hp->arch->names;
    hp->flags = hp->arch->flags;
    while (k->type != NULL && strcmp(k->type, type) != 0) {
        k++;
    }

    TRY(read_sizes(c, k, hp, err));
    TRY(read_ids(c, hp, err));
    hp->max_seq = hp->n_pos;
    if (hp->flags & ENC_F_PADPOS) {
        hp->max_seq = hp->n_pos - hp->pad_id - 1;
    }
    TRY(eng_cfg_text(c, "position_embedding_type", kind, sizeof(kind), err));
    if ((hp->flags & ENC_F_POS) && strcmp(kind, "absolute") != 0) {
        return eng_fail(err, ENG_EUNSUP, "%s: \"position_embedding_type\" "
                        "\"%s\" is not supported", c->name, kind);
    }
    if (hp->flags & ENC_F_ROPE) {
        TRY(read_rope(c, hp, err));
    }
    if (hp->flags & ENC_F_REL) {
        TRY(read_t5(c, hp, err));
    }

    return read_kind(c, hp, label, err);
}


/* sentence_bert_config.json: how long texts may be. */
static int
read_sentence(const char *path, enc_hp_t *hp, eng_err_t *err)
{
    int        rc;
    uint32_t   n = hp->max_seq;
    eng_cfg_t  c;

    if (!eng_io_exists(path, "sentence_bert_config.json")) {
        return 0;
    }
    TRY(eng_cfg_open(&c, path, "sentence_bert_config.json", err));
    rc = eng_cfg_u32(&c, "max_seq_length", 1, UINT32_MAX, &n, err);
    eng_cfg_close(&c);
    hp->max_seq = n < hp->max_seq ? n : hp->max_seq;

    return rc < 0 ? rc : 0;
}


int
enc_hp_folder(const char *path, const enc_src_t *src, enc_hp_t *hp,
    char (*label)[ENC_LABEL_MAX], eng_err_t *err)
{
    int        rc;
    eng_cfg_t  c;

    (void) src;
    *hp = (enc_hp_t) { .pool = ENC_POOL_MEAN, .normalize = 1,
                       .out_scale = 1 };
    TRY(eng_cfg_open(&c, path, "config.json", err));
    rc = read_config(&c, hp, label, err);
    eng_cfg_close(&c);
    TRY(rc);
    TRY(read_sentence(path, hp, err));
    if (hp->kind == ENC_EMBED) {
        TRY(enc_conf_modules(path, hp, err));
    }

    return enc_conf_check(hp, "config.json", err);
}
