/*
 * Builds small GGUF files in memory: a complete decoder of any sizes with
 * random weights.  For tests only.
 */
#ifndef TINY_GGUF_H
#define TINY_GGUF_H

#include "tests/unit/engine/tiny_put.h"

typedef struct {
    const char  *arch;
    uint32_t     vocab, layers, embd, heads, heads_kv, head_dim, ff, ctx;
    uint32_t     type;            /* of matrices: 0 F32, 8 Q8_0, 3 Q4_1      */
    int          untied, factors;
    uint32_t     flags;           /* TINY_*                                  */
    uint32_t     global_every;    /* windows of TINY_WINDOW elsewhere        */
    uint32_t     nope_every;
    float        softcap;         /* of attention and of logits              */
    uint32_t     seed;
    uint32_t     experts, used;   /* 0: dense                                */
    uint32_t     stored;          /* experts in the tensors; 0: the same     */
    uint32_t     router;          /* rows of the router; 0: the same         */
    uint32_t     ff_exp;          /* in the keys; 0: ff                      */
} tiny_model_t;

#define TINY_NEOX    1u
#define TINY_BIAS    2u
#define TINY_QKNORM  4u
#define TINY_POST    8u
#define TINY_GELU    16u
#define TINY_SCALE   32u
#define TINY_GEMMA   (TINY_NEOX | TINY_POST | TINY_GELU | TINY_SCALE)
#define TINY_WINDOW  40u

#define TINY_LLAMA  { .arch = "llama", .vocab = 80, .layers = 3, .embd = 64, \
    .heads = 4, .heads_kv = 2, .head_dim = 16, .ff = 96, .ctx = 256,         \
    .seed = 1 }

/* One tensor of the table, with its values as floats. */
typedef struct {
    char      name[64];
    uint32_t  rows, cols, type;
    uint32_t  depth;              /* 1, or more: a third dimension           */
    uint64_t  offset, bytes;
    float    *f32;                /* what the type really holds              */
} tiny_tensor_t;

typedef struct {
    tiny_t         file;
    tiny_tensor_t  t[256];
    uint32_t       n;
    size_t         header_bytes;
} tiny_file_t;


static void
tiny_add(tiny_file_t *f, const char *name, uint32_t type, uint32_t rows,
    uint32_t cols)
{
    tiny_tensor_t  *t = &f->t[f->n++];

    t->depth = 1;
    snprintf(t->name, sizeof(t->name), "%s", name);
    t->rows = rows;
    t->cols = cols;
    t->type = type;
    t->bytes = tiny_row_bytes(type, cols) * rows;
}


static void
tiny_deepen(tiny_tensor_t *t, uint32_t depth)
{
    t->depth = depth;
    t->bytes *= depth;
}


static void
tiny_tensors(tiny_file_t *f, const tiny_model_t *m)
{
    char      s[64];
    uint32_t  i, nq = m->heads * m->head_dim, nk = m->heads_kv * m->head_dim;

    tiny_add(f, "token_embd.weight", m->type, m->vocab, m->embd);
    tiny_add(f, "output_norm.weight", 0, 1, m->embd);
    if (m->untied) {
        tiny_add(f, "output.weight", m->type, m->vocab, m->embd);
    }
    if (m->factors) {
        tiny_add(f, "rope_freqs.weight", 0, 1, m->head_dim / 2);
    }
#define TINY_L(n, ty, r, c)                                                  \
    snprintf(s, sizeof(s), "blk.%u." n ".weight", i);                        \
    tiny_add(f, s, ty, r, c)
#define TINY_E(name, r, c)                                                   \
    TINY_L(name, m->type, r, c);                                             \
    tiny_deepen(&f->t[f->n - 1], m->stored ? m->stored : m->experts)
#define TINY_B(n, c)                                                         \
    snprintf(s, sizeof(s), "blk.%u." n ".bias", i);                          \
    tiny_add(f, s, 0, 1, c)
    for (i = 0; i < m->layers; i++) {
        TINY_L("attn_norm", 0, 1, m->embd);
        TINY_L("attn_q", m->type, nq, m->embd);
        TINY_L("attn_k", m->type, nk, m->embd);
        TINY_L("attn_v", m->type, nk, m->embd);
        TINY_L("attn_output", m->type, m->embd, nq);
        TINY_L("ffn_norm", 0, 1, m->embd);
        if (m->experts == 0) {
            TINY_L("ffn_gate", m->type, m->ff, m->embd);
            TINY_L("ffn_up", m->type, m->ff, m->embd);
            TINY_L("ffn_down", m->type, m->embd, m->ff);
        } else {
            TINY_L("ffn_gate_inp", 0, m->router ? m->router : m->experts,
                   m->embd);
            TINY_E("ffn_gate_exps", m->ff, m->embd);
            TINY_E("ffn_up_exps", m->ff, m->embd);
            TINY_E("ffn_down_exps", m->embd, m->ff);
        }
        if (m->flags & TINY_BIAS) {
            TINY_B("attn_q", nq);
            TINY_B("attn_k", nk);
            TINY_B("attn_v", nk);
        }
        if (m->flags & TINY_QKNORM) {
            TINY_L("attn_q_norm", 0, 1, m->head_dim);
            TINY_L("attn_k_norm", 0, 1, m->head_dim);
        }
        if (m->flags & TINY_POST) {
            TINY_L("post_attention_norm", 0, 1, m->embd);
            TINY_L("post_ffw_norm", 0, 1, m->embd);
        }
    }
#undef TINY_L
#undef TINY_E
#undef TINY_B
}


static void
tiny_keys(tiny_t *t, const tiny_model_t *m)
{
    char      s[64], v[32];
    uint32_t  i;

#define TINY_K(n)  (snprintf(s, sizeof(s), "%s." n, m->arch), s)
    tiny_kv_str(t, "general.architecture", m->arch);
    tiny_kv_str(t, "general.name", "tiny");
    tiny_kv_u32(t, TINY_K("block_count"), m->layers);
    tiny_kv_u32(t, TINY_K("context_length"), m->ctx);
    tiny_kv_u32(t, TINY_K("embedding_length"), m->embd);
    tiny_kv_u32(t, TINY_K("feed_forward_length"), m->ff);
    tiny_kv_u32(t, TINY_K("attention.head_count"), m->heads);
    tiny_kv_u32(t, TINY_K("attention.head_count_kv"), m->heads_kv);
    tiny_kv_u32(t, TINY_K("attention.key_length"), m->head_dim);
    tiny_kv_u32(t, TINY_K("attention.value_length"), m->head_dim);
    tiny_kv_f32(t, TINY_K("attention.layer_norm_rms_epsilon"), 1e-5f);
    tiny_kv_f32(t, TINY_K("rope.freq_base"), 10000.0f);
    tiny_kv_u32(t, TINY_K("attention.sliding_window"),
                m->global_every ? TINY_WINDOW : 0);
    tiny_kv_u32(t, TINY_K("expert_count"), m->experts);
    tiny_kv_u32(t, TINY_K("expert_used_count"), m->used);
    tiny_kv_u32(t, TINY_K("expert_feed_forward_length"),
                m->ff_exp ? m->ff_exp : m->ff);
    tiny_kv_f32(t, TINY_K("attn_logit_softcapping"), m->softcap);
    tiny_kv_f32(t, TINY_K("final_logit_softcapping"), m->softcap);
#undef TINY_K
    tiny_kv_u32(t, "tokenizer.ggml.bos_token_id", 1);
    tiny_kv_u32(t, "tokenizer.ggml.eos_token_id", 2);
    tiny_kv_u32(t, "general.alignment", 64);
    tiny_str(t, "tokenizer.ggml.tokens");
    tiny_u32(t, 9);
    tiny_u32(t, 8);
    tiny_u64(t, m->vocab);
    for (i = 0; i < m->vocab; i++) {
        snprintf(v, sizeof(v), "t%u", i);
        tiny_str(t, v);
    }
}

#define TINY_KEYS  22


static void
tiny_pad(tiny_t *t, size_t align)
{
    while (t->n % align != 0) {
        tiny_put(t, "", 1);
    }
}


static void
tiny_values(tiny_file_t *f, tiny_tensor_t *t, uint32_t *seed)
{
    size_t  i, n = (size_t) t->rows * t->cols * t->depth;

    t->f32 = malloc(n * sizeof(float));
    if (t->f32 == NULL) {
        abort();
    }
    for (i = 0; i < n; i++) {
        t->f32[i] = 0.2f * tiny_random(seed);
        if (t->rows == 1) {
            t->f32[i] += 1.0f;
        }
    }
    if (t->type == 0) {
        tiny_put(&f->file, t->f32, n * 4);
        return;
    }
    for (i = 0; i < n; i += 32) {
        tiny_block(&f->file, t->type, t->f32 + i);
    }
}


static void
tiny_build(tiny_file_t *f, const tiny_model_t *m)
{
    uint32_t  i, seed = m->seed;
    uint64_t  offset = 0;

    memset(f, 0, sizeof(*f));
    tiny_tensors(f, m);
    tiny_put(&f->file, "GGUF", 4);
    tiny_u32(&f->file, 3);
    tiny_u64(&f->file, f->n);
    tiny_u64(&f->file, TINY_KEYS);
    tiny_keys(&f->file, m);
    for (i = 0; i < f->n; i++) {
        tiny_str(&f->file, f->t[i].name);
        tiny_u32(&f->file, f->t[i].depth > 1 ? 3 : f->t[i].rows == 1 ? 1 : 2);
        tiny_u64(&f->file, f->t[i].cols);
        if (f->t[i].rows != 1) {
            tiny_u64(&f->file, f->t[i].rows);
        }
        if (f->t[i].depth > 1) {
            tiny_u64(&f->file, f->t[i].depth);
        }
        tiny_u32(&f->file, f->t[i].type);
        tiny_u64(&f->file, offset);
        f->t[i].offset = offset;
        offset = (offset + f->t[i].bytes + 63) / 64 * 64;
    }
    f->header_bytes = f->file.n;
    for (i = 0; i < f->n; i++) {
        tiny_pad(&f->file, 64);
        tiny_values(f, &f->t[i], &seed);
    }
}


static void
tiny_free(tiny_file_t *f)
{
    uint32_t  i;

    for (i = 0; i < f->n; i++) {
        free(f->t[i].f32);
    }
    free(f->file.p);
    memset(f, 0, sizeof(*f));
}


static inline const float *
tiny_find(const tiny_file_t *f, const char *name)
{
    uint32_t  i;

    for (i = 0; i < f->n; i++) {
        if (strcmp(f->t[i].name, name) == 0) {
            return f->t[i].f32;
        }
    }

    return NULL;
}

#endif
