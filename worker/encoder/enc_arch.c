/*
 * The table of families and the names of their tensors.
 */
#include <string.h>

#include "worker/encoder/enc_arch.h"

static const enc_names_t  bert = {
    .tok = "embeddings.word_embeddings",
    .pos = "embeddings.position_embeddings",
    .type = "embeddings.token_type_embeddings",
    .emb_norm = "embeddings.LayerNorm",
    .q = "encoder.layer.#.attention.self.query",
    .k = "encoder.layer.#.attention.self.key",
    .v = "encoder.layer.#.attention.self.value",
    .o = "encoder.layer.#.attention.output.dense",
    .attn_norm = "encoder.layer.#.attention.output.LayerNorm",
    .up = "encoder.layer.#.intermediate.dense",
    .down = "encoder.layer.#.output.dense",
    .ffn_norm = "encoder.layer.#.output.LayerNorm",
};

static const enc_names_t  distilbert = {
    .tok = "embeddings.word_embeddings",
    .pos = "embeddings.position_embeddings",
    .emb_norm = "embeddings.LayerNorm",
    .q = "transformer.layer.#.attention.q_lin",
    .k = "transformer.layer.#.attention.k_lin",
    .v = "transformer.layer.#.attention.v_lin",
    .o = "transformer.layer.#.attention.out_lin",
    .attn_norm = "transformer.layer.#.sa_layer_norm",
    .up = "transformer.layer.#.ffn.lin1",
    .down = "transformer.layer.#.ffn.lin2",
    .ffn_norm = "transformer.layer.#.output_layer_norm",
};

static const enc_names_t  modernbert = {
    .tok = "embeddings.tok_embeddings",
    .emb_norm = "embeddings.norm",
    .last_norm = "final_norm",
    .qkv = "layers.#.attn.Wqkv",
    .o = "layers.#.attn.Wo",
    .attn_norm = "layers.#.attn_norm",
    .up = "layers.#.mlp.Wi",
    .down = "layers.#.mlp.Wo",
    .ffn_norm = "layers.#.mlp_norm",
};

static const enc_names_t  nomic = {
    .tok = "embeddings.word_embeddings",
    .type = "embeddings.token_type_embeddings",
    .emb_norm = "emb_ln",
    .qkv = "encoder.layers.#.attn.Wqkv",
    .o = "encoder.layers.#.attn.out_proj",
    .attn_norm = "encoder.layers.#.norm1",
    .gate = "encoder.layers.#.mlp.fc12",
    .up = "encoder.layers.#.mlp.fc11",
    .down = "encoder.layers.#.mlp.fc2",
    .ffn_norm = "encoder.layers.#.norm2",
};

static const enc_names_t  t5 = {
    .tok = "shared",
    .last_norm = "encoder.final_layer_norm",
    .q = "encoder.block.#.layer.0.SelfAttention.q",
    .k = "encoder.block.#.layer.0.SelfAttention.k",
    .v = "encoder.block.#.layer.0.SelfAttention.v",
    .o = "encoder.block.#.layer.0.SelfAttention.o",
    .attn_norm = "encoder.block.#.layer.0.layer_norm",
    .up = "encoder.block.#.layer.1.DenseReluDense.wi",
    .down = "encoder.block.#.layer.1.DenseReluDense.wo",
    .ffn_norm = "encoder.block.#.layer.1.layer_norm",
    .rel = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
};

static const enc_names_t  gguf_bert = {
    .tok = "token_embd",
    .pos = "position_embd",
    .type = "token_types",
    .emb_norm = "token_embd_norm",
    .q = "blk.#.attn_q",
    .k = "blk.#.attn_k",
    .v = "blk.#.attn_v",
    .o = "blk.#.attn_output",
    .attn_norm = "blk.#.attn_output_norm",
    .up = "blk.#.ffn_up",
    .down = "blk.#.ffn_down",
    .ffn_norm = "blk.#.layer_output_norm",
};

static const enc_names_t  gguf_nomic = {
    .tok = "token_embd",
    .type = "token_types",
    .emb_norm = "token_embd_norm",
    .qkv = "blk.#.attn_qkv",
    .o = "blk.#.attn_output",
    .attn_norm = "blk.#.attn_output_norm",
    .gate = "blk.#.ffn_gate",
    .up = "blk.#.ffn_up",
    .down = "blk.#.ffn_down",
    .ffn_norm = "blk.#.layer_output_norm",
};

static const enc_names_t  gguf_t5 = {
    .tok = "token_embd",
    .last_norm = "enc.output_norm",
    .q = "enc.blk.#.attn_q",
    .k = "enc.blk.#.attn_k",
    .v = "enc.blk.#.attn_v",
    .o = "enc.blk.#.attn_o",
    .attn_norm = "enc.blk.#.attn_norm",
    .up = "enc.blk.#.ffn_up",
    .down = "enc.blk.#.ffn_down",
    .ffn_norm = "enc.blk.#.ffn_norm",
    .rel = "enc.blk.0.attn_rel_b",
};

#define BERT   (ENC_F_BIAS | ENC_F_POS | ENC_F_TYPES)
#define T5     (ENC_F_PRENORM | ENC_F_RMS | ENC_F_REL)
#define NOMIC  (ENC_F_ROPE | ENC_F_TYPES | ENC_F_GLU)

static const enc_arch_t  archs[] = {
    { "bert", "bert", BERT, { "bert.", "" }, &bert },
    { "roberta", "roberta", BERT | ENC_F_PADPOS, { "roberta.", "" }, &bert },
    { "xlm-roberta", "xlm-roberta", BERT | ENC_F_PADPOS,
      { "roberta.", "" }, &bert },
    { "camembert", "camembert", BERT | ENC_F_PADPOS,
      { "roberta.", "" }, &bert },
    { "distilbert", "distilbert", ENC_F_BIAS | ENC_F_POS,
      { "distilbert.", "" }, &distilbert },
    { "modernbert", "modernbert",
      ENC_F_PRENORM | ENC_F_ROPE | ENC_F_GLU | ENC_F_FIRST,
      { "model.", "" }, &modernbert },
    { "nomic_bert", "nomic-bert", NOMIC, { "", "bert." }, &nomic },
    { "t5", "t5", T5, { "", "transformer." }, &t5 },
    { "mt5", "mt5", T5, { "", "transformer." }, &t5 },

    { "bert", "bert", BERT | ENC_F_GGUF, { "" }, &gguf_bert },
    { "nomic-bert", "nomic-bert", NOMIC | ENC_F_GGUF, { "" }, &gguf_nomic },
    { "t5", "t5", T5 | ENC_F_GGUF, { "" }, &gguf_t5 },
    { "t5encoder", "t5", T5 | ENC_F_GGUF, { "" }, &gguf_t5 },
};


const enc_arch_t *
enc_arch_find(const char *type, int gguf)
{
    size_t  i;

    for (i = 0; i < sizeof(archs) / sizeof(archs[0]); i++) {
        if (strcmp(archs[i].type, type) == 0
            && ((archs[i].flags & ENC_F_GGUF) != 0) == (gguf != 0))
        {
            return &archs[i];
        }
    }

    return NULL;
}
