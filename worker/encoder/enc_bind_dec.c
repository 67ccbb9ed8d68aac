/*
 * The decoder's tensors: two attentions and a feed forward per layer.
 */
#include <stdio.h>
#include <string.h>

#include "worker/encoder/enc_model.h"

typedef struct {
    const char  *q, *k, *v, *o, *attn_norm;
    const char  *cq, *ck, *cv, *co, *cross_norm;
    const char  *up, *gate, *gate_up, *down, *ffn_norm;
    const char  *rel, *last_norm, *output;
} dec_names_t;

#define L  "decoder.block.#.layer."

static const dec_names_t  folder = {
    .q = L "0.SelfAttention.q", .k = L "0.SelfAttention.k",
    .v = L "0.SelfAttention.v", .o = L "0.SelfAttention.o",
    .attn_norm = L "0.layer_norm",
    .cq = L "1.EncDecAttention.q", .ck = L "1.EncDecAttention.k",
    .cv = L "1.EncDecAttention.v", .co = L "1.EncDecAttention.o",
    .cross_norm = L "1.layer_norm",
    .up = L "2.DenseReluDense.wi", .gate = L "2.DenseReluDense.wi_0",
    .gate_up = L "2.DenseReluDense.wi_1", .down = L "2.DenseReluDense.wo",
    .ffn_norm = L "2.layer_norm",
    .rel = "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    .last_norm = "decoder.final_layer_norm",
    .output = "lm_head",
};

#undef L
#define L  "dec.blk.#."

static const dec_names_t  gguf = {
    .q = L "attn_q", .k = L "attn_k", .v = L "attn_v", .o = L "attn_o",
    .attn_norm = L "attn_norm",
    .cq = L "cross_attn_q", .ck = L "cross_attn_k", .cv = L "cross_attn_v",
    .co = L "cross_attn_o", .cross_norm = L "cross_attn_norm",
    .up = L "ffn_up", .gate = L "ffn_gate", .gate_up = L "ffn_up",
    .down = L "ffn_down", .ffn_norm = L "ffn_norm",
    .rel = "dec.blk.0.attn_rel_b",
    .last_norm = "dec.output_norm",
    .output = "output",
};

#undef L


static int
bind_attention(enc_model_t *m, const enc_src_t *src, int i,
    const dec_names_t *a, eng_err_t *err)
{
    int           rc;
    uint32_t      inner = m->hp.heads * m->hp.head_dim;
    uint32_t      rows[3] = { inner, inner, inner };
    const char   *qkv[3] = { a->q, a->k, a->v }, *kv[2] = { a->ck, a->cv };
    enc_layer_t  *l = &m->dec[i];

    if ((rc = enc_bind_linear(m, src, i, qkv, rows, 3, m->hp.embd, &l->qkv,
                              err)) != 0
        || (rc = enc_bind_linear(m, src, i, &a->o, &m->hp.embd, 1, inner,
                                 &l->o, err)) != 0
        || (rc = enc_bind_norm(m, src, i, a->attn_norm, &l->attn_norm,
                               err)) != 0
        || (rc = enc_bind_linear(m, src, i, &a->cq, rows, 1, m->hp.embd,
                                 &l->cq, err)) != 0
        || (rc = enc_bind_linear(m, src, i, kv, rows, 2, m->hp.embd,
                                 &l->ckv, err)) != 0
        || (rc = enc_bind_linear(m, src, i, &a->co, &m->hp.embd, 1, inner,
                                 &l->co, err)) != 0)
    {
        return rc;
    }

    return enc_bind_norm(m, src, i, a->cross_norm, &l->cross_norm, err);
}


static int
bind_ffn(enc_model_t *m, const enc_src_t *src, int i, const dec_names_t *a,
    eng_err_t *err)
{
    int           rc;
    uint32_t      rows[2] = { m->hp.ff, m->hp.ff };
    const char   *glu[2] = { a->gate, a->gate_up };
    enc_layer_t  *l = &m->dec[i];

    if (m->hp.flags & ENC_F_GLU) {
        rc = enc_bind_linear(m, src, i, glu, rows, 2, m->hp.embd, &l->up,
                             err);
    } else {
        rc = enc_bind_linear(m, src, i, &a->up, rows, 1, m->hp.embd, &l->up,
                             err);
    }
    if (rc == 0) {
        rc = enc_bind_linear(m, src, i, &a->down, &m->hp.embd, 1, m->hp.ff,
                             &l->down, err);
    }

    return rc == 0 ? enc_bind_norm(m, src, i, a->ffn_norm, &l->ffn_norm, err)
                   : rc;
}


int
enc_bind_dec(enc_model_t *m, const enc_src_t *src, eng_err_t *err)
{
    int                 rc = 0;
    uint32_t            i;
    const dec_names_t  *a = m->hp.flags & ENC_F_GGUF ? &gguf : &folder;

    for (i = 0; rc == 0 && i < m->hp.dec_layers; i++) {
        rc = bind_attention(m, src, (int) i, a, err);
        if (rc == 0) {
            rc = bind_ffn(m, src, (int) i, a, err);
        }
    }
    if (rc == 0) {
        rc = enc_bind_table(m, src, a->rel, m->hp.buckets, m->hp.heads,
                            &m->dec_rel, err);
    }
    if (rc == 0) {
        rc = enc_bind_norm(m, src, 0, a->last_norm, &m->dec_norm, err);
    }
    if (rc == 0 && !m->hp.tied) {
        rc = enc_bind_matrix(m, src, 0, &a->output, &m->hp.vocab, 1,
                             m->hp.embd, m->wtype, &m->output, err);
    }

    return rc;
}
