/*
 * Binds the tensors of a file to the places where the forward pass wants
 * them.  Reads the header's table only, never a weight.
 */
#include <stdlib.h>
#include <string.h>

#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_model.h"
#include "worker/engine/eng_source.h"
#include "worker/engine/eng_type.h"

typedef struct {
    eng_model_t       *m;
    const eng_gguf_t  *g;
    uint8_t           *used;      /* by tensor index                         */
    eng_err_t         *err;
} binder_t;

static int bind_top(binder_t *b);
static int bind_layer(binder_t *b, uint32_t i);
static int check_unused(binder_t *b);
static int lay_out(binder_t *b);

static const struct {
    uint8_t  gguf;
    uint8_t  kern;
} kern_types[] = {
    {  0, KERN_F32  }, {  1, KERN_F16  }, { 30, KERN_BF16 },
    {  2, KERN_Q4_0 }, {  3, KERN_Q4_1 }, {  6, KERN_Q5_0 },
    {  7, KERN_Q5_1 }, {  8, KERN_Q8_0 }, { 10, KERN_Q2_K },
    { 11, KERN_Q3_K }, { 12, KERN_Q4_K }, { 13, KERN_Q5_K },
    { 14, KERN_Q6_K }, { 20, KERN_IQ4_NL }, { 23, KERN_IQ4_XS },
};


int
eng_kern_type(uint32_t gguf_type)
{
    size_t  i;

    for (i = 0; i < sizeof(kern_types) / sizeof(kern_types[0]); i++) {
        if (kern_types[i].gguf == gguf_type
            && kern_wtype_supported((kern_wtype_t) kern_types[i].kern))
        {
            return kern_types[i].kern;
        }
    }

    return -1;
}


uint32_t
eng_gguf_type(kern_wtype_t type)
{
    size_t  i;

    for (i = 0; i < sizeof(kern_types) / sizeof(kern_types[0]); i++) {
        if (kern_types[i].kern == type) {
            return kern_types[i].gguf;
        }
    }
    eng_assert(0 && "a type of the table");

    return UINT32_MAX;
}


int
eng_bind(eng_model_t *m, const eng_gguf_t *g, eng_err_t *err)
{
    int       rc;
    uint32_t  i;
    binder_t  b = { m, g, NULL, err };

    b.used = calloc(g->n_tensors + 1, 1);
    m->item = calloc(g->n_tensors + 1, sizeof(m->item[0]));
    m->layer = calloc(m->hp.layers, sizeof(m->layer[0]));
    if (b.used == NULL || m->item == NULL || m->layer == NULL) {
        rc = eng_fail(err, ENG_ENOMEM, "%s: no memory for %u layers", g->path,
                      m->hp.layers);
        goto done;
    }

    rc = bind_top(&b);
    for (i = 0; rc == 0 && i < m->hp.layers; i++) {
        rc = bind_layer(&b, i);
    }
    if (rc == 0) {
        rc = check_unused(&b);
    }
    if (rc == 0) {
        rc = lay_out(&b);
    }

done:

    free(b.used);

    return rc;
}


/* ---- one tensor --------------------------------------------------------- */

static int
find(binder_t *b, const char *name, int required, uint64_t cols,
    uint64_t rows, uint64_t depth, eng_item_t **item)
{
    char                      label[ENG_NAME_MAX];
    uint32_t                  index;
    const eng_gguf_tensor_t  *t = eng_gguf_tensor(b->g, name);

    *item = NULL;
    eng_source_label(b->g, name, label, sizeof(label));
    if (t == NULL) {
        return !required ? 0
            : eng_fail(b->err, ENG_EFORMAT, "%s: tensor \"%s\" is missing",
                       b->g->path, label);
    }
    if (t->dim[0] != cols || t->dim[1] != rows || t->dim[2] != depth
        || t->dim[3] != 1)
    {
        return eng_fail(b->err, ENG_EFORMAT, "%s: tensor \"%s\" is %llu x "
                        "%llu x %llu x %llu, the model's sizes ask for %llu x "
                        "%llu x %llu", b->g->path, label,
                        (unsigned long long) t->dim[0],
                        (unsigned long long) t->dim[1],
                        (unsigned long long) t->dim[2],
                        (unsigned long long) t->dim[3],
                        (unsigned long long) cols, (unsigned long long) rows,
                        (unsigned long long) depth);
    }

    index = (uint32_t) (t - b->g->tensors);
    eng_assert(index < b->g->n_tensors && !b->used[index]);
    eng_assert(b->m->n_items < b->g->n_tensors);
    b->used[index] = 1;
    *item = &b->m->item[b->m->n_items++];
    (*item)->tensor = t;
    (*item)->rows = (uint32_t) (rows * depth);
    (*item)->cols = (uint32_t) cols;

    return 0;
}


/* A matrix of rows * depth rows: `depth` of them one after the other. */
static int
bind_matrix(binder_t *b, const char *name, int required, uint32_t rows,
    uint32_t cols, uint32_t depth, kern_weight_t *w)
{
    int          rc, type;
    eng_item_t  *item;

    rc = find(b, name, required, cols, rows, depth, &item);
    if (rc != 0 || item == NULL) {
        return rc;
    }
    rows = item->rows;

    type = eng_kern_type(item->tensor->type);
    if (type < 0) {
        return eng_fail(b->err, ENG_EUNSUP, "%s: tensor \"%s\" has the type "
                        "%s, which is not supported", b->g->path, name,
                        eng_type_get(item->tensor->type)->name);
    }

    item->stored = (kern_wtype_t) type;
    item->type = eng_quant_choice(name, item->stored, b->m->quantize, cols);
    item->bytes = kern_packed_bytes(item->type, rows, cols);
    if (item->bytes == 0
        || item->tensor->bytes != (uint64_t) rows
           * kern_gguf_row_bytes(item->stored, cols))
    {
        return eng_fail(b->err, ENG_EUNSUP, "%s: tensor \"%s\" (%s, %u x %u) "
                        "cannot be packed", b->g->path, name,
                        kern_wtype_name(item->type), cols, rows);
    }

    item->matrix = w;
    w->type = item->type;
    w->rows = rows;
    w->cols = cols;

    return 0;
}


static int
bind_vector(binder_t *b, const char *name, int required, uint32_t n,
    const float **v)
{
    int          rc, type;
    eng_item_t  *item;

    rc = find(b, name, required, n, 1, 1, &item);
    if (rc != 0 || item == NULL) {
        return rc;
    }

    type = eng_kern_type(item->tensor->type);
    if (type != KERN_F32 && type != KERN_F16 && type != KERN_BF16) {
        return eng_fail(b->err, ENG_EUNSUP, "%s: tensor \"%s\" has the type "
                        "%s; vectors must be F32, F16 or BF16", b->g->path,
                        name, eng_type_get(item->tensor->type)->name);
    }

    item->stored = item->type = (kern_wtype_t) type;
    item->bytes = (uint64_t) n * sizeof(float);
    item->vector = v;

    return 0;
}


/* ---- the model ---------------------------------------------------------- */

static int
bind_top(binder_t *b)
{
    int              rc;
    eng_model_t     *m = b->m;
    const eng_hp_t  *hp = &m->hp;

    rc = bind_matrix(b, "token_embd.weight", 1, hp->vocab, hp->embd, 1,
                     &m->embd);
    if (rc == 0) {
        rc = bind_vector(b, "output_norm.weight", 1, hp->embd,
                         &m->output_norm);
    }
    if (rc == 0) {
        rc = bind_matrix(b, "output.weight", 0, hp->vocab, hp->embd, 1,
                         &m->output);
    }
    if (rc == 0) {
        rc = bind_vector(b, "rope_freqs.weight", 0, hp->rot_dim / 2,
                         &m->rope_factors);
    }
    if (rc == 0) {
        rc = bind_vector(b, "rope_factors_short.weight", 0, hp->rot_dim / 2,
                         &m->rope_short);
    }
    if (rc == 0) {
        rc = bind_vector(b, "rope_factors_long.weight", 0, hp->rot_dim / 2,
                         &m->rope_long);
    }

    return rc;
}


/* Parts of a layer beside the flags of its architecture. */
#define PART_APART    0x10000u    /* q, k and v are three matrices           */
#define PART_GATE_UP  0x20000u    /* gate and up are two                     */
#define PART_FUSED    0x40000u    /* gate and up are one                     */
#define PART_DENSE    0x80000u
#define PART_EXPERTS  0x100000u
#define PART_SHARED   0x200000u

typedef struct {
    const char  *name;            /* after "blk.N."                          */
    uint32_t     part;            /* a flag; 0: always there                 */
    uint32_t     rows, cols;
    uint32_t     depth;           /* 0: a vector of cols, rows is 1          */
    size_t       at;              /* in eng_layer_t                          */
} want_t;


static uint32_t
parts_of(const eng_hp_t *hp)
{
    uint32_t  fused = hp->arch->flags & ENG_ARCH_FUSED, parts;

    parts = hp->arch->flags | (fused ? 0 : PART_APART);
    if (hp->experts > 0) {
        return parts | PART_EXPERTS | (hp->ff_shared > 0 ? PART_SHARED : 0);
    }

    return parts | PART_DENSE | (fused ? PART_FUSED : PART_GATE_UP);
}


static int
bind_wanted(binder_t *b, uint32_t i, const want_t *want, size_t n)
{
    int           rc;
    char          name[ENG_NAME_MAX];
    size_t        j;
    char         *layer = (char *) &b->m->layer[i];
    uint32_t      parts = parts_of(&b->m->hp);

    for (j = 0, rc = 0; rc == 0 && j < n; j++) {
        if (want[j].part != 0 && !(parts & want[j].part)) {
            continue;
        }
        (void) snprintf(name, sizeof(name), "blk.%u.%s", i, want[j].name);
        if (want[j].depth == 0) {
            rc = bind_vector(b, name, 1, want[j].cols,
                             (const float **) (void *) (layer + want[j].at));
        } else {
            rc = bind_matrix(b, name, 1, want[j].rows, want[j].cols,
                             want[j].depth,
                             (kern_weight_t *) (void *) (layer + want[j].at));
        }
    }

    return rc;
}


#define VEC(name, part, n, field)                                            \
    { name, part, 1, n, 0, offsetof(eng_layer_t, field) }
#define MAT(name, part, rows, cols, field)                                   \
    { name, part, rows, cols, 1, offsetof(eng_layer_t, field) }
#define EXP(name, rows, cols, field)                                         \
    { name, PART_EXPERTS, rows, cols, n_exp, offsetof(eng_layer_t, field) }

/* In the order of their use: the image has the same. */
static int
bind_layer(binder_t *b, uint32_t i)
{
    const eng_hp_t  *hp = &b->m->hp;
    uint32_t         e = hp->embd, hd = hp->head_dim, ff = hp->ff;
    uint32_t         nq = hp->heads * hd, nk = hp->heads_kv * hd;
    uint32_t         n_exp = hp->experts, fe = hp->ff_exp, fs = hp->ff_shared;
    const uint32_t   bias = ENG_ARCH_QKV_BIAS, post = ENG_ARCH_POST_NORM;

    const want_t     want[] = {
        VEC("attn_norm.weight", 0, e, attn_norm),
        MAT("attn_qkv.weight", ENG_ARCH_FUSED, nq + 2 * nk, e, q),
        MAT("attn_q.weight", PART_APART, nq, e, q),
        MAT("attn_k.weight", PART_APART, nk, e, k),
        MAT("attn_v.weight", PART_APART, nk, e, v),
        VEC("attn_q.bias", bias, nq, q_bias),
        VEC("attn_k.bias", bias, nk, k_bias),
        VEC("attn_v.bias", bias, nk, v_bias),
        VEC("attn_q_norm.weight", ENG_ARCH_QK_NORM, hd, q_norm),
        VEC("attn_k_norm.weight", ENG_ARCH_QK_NORM, hd, k_norm),
        MAT("attn_output.weight", 0, e, nq, o),
        VEC("post_attention_norm.weight", post, e, post_attn_norm),
        VEC("ffn_norm.weight", 0, e, ffn_norm),
        MAT("ffn_up.weight", PART_FUSED, 2 * ff, e, gate),
        MAT("ffn_gate.weight", PART_GATE_UP, ff, e, gate),
        MAT("ffn_up.weight", PART_GATE_UP, ff, e, up),
        MAT("ffn_down.weight", PART_DENSE, e, ff, down),
        MAT("ffn_gate_inp.weight", PART_EXPERTS, n_exp, e, router),
        MAT("ffn_gate_inp_shexp.weight", PART_SHARED, 1, e, sh_router),
        EXP("ffn_gate_exps.weight", fe, e, exp_gate),
        EXP("ffn_up_exps.weight", fe, e, exp_up),
        MAT("ffn_gate_shexp.weight", PART_SHARED, fs, e, sh_gate),
        MAT("ffn_up_shexp.weight", PART_SHARED, fs, e, sh_up),
        EXP("ffn_down_exps.weight", e, fe, exp_down),
        MAT("ffn_down_shexp.weight", PART_SHARED, e, fs, sh_down),
        VEC("post_ffw_norm.weight", post, e, post_ffn_norm),
    };

    return bind_wanted(b, i, want, sizeof(want) / sizeof(want[0]));
}


static int
check_unused(binder_t *b)
{
    char      name[ENG_NAME_MAX], label[ENG_NAME_MAX];
    uint32_t  i;

    for (i = 0; i < b->g->n_tensors; i++) {
        if (!b->used[i]) {
            eng_str_print(b->g->tensors[i].name, name, sizeof(name));
            eng_source_label(b->g, name, label, sizeof(label));
            return eng_fail(b->err, ENG_EUNSUP, "%s: tensor \"%s\" has no "
                            "place in the architecture \"%s\"", b->g->path,
                            label, b->m->hp.arch->name);
        }
    }

    return 0;
}


/*
 * Offsets in the image.  Items stand in the order of their use in a step, so
 * that decoding reads the image from front to back; the embedding, which the
 * output matrix often is, comes last.
 */
static int
lay_out(binder_t *b)
{
    int           ok = 1;
    uint32_t      i;
    uint64_t      at = ENG_IMAGE_HEADER, hash = ENG_VERSION;
    eng_item_t   *item;
    eng_model_t  *m = b->m;

    for (i = 1; i <= m->n_items; i++) {
        item = &m->item[i % m->n_items];
        item->offset = at;
        ok = ok && eng_chk_add(at, item->bytes, &at)
             && eng_chk_align(at, ENG_IMAGE_ALIGN, &at);
        hash = eng_hash(&item->type, sizeof(item->type), hash);
        hash = eng_hash(&item->rows, sizeof(item->rows), hash);
        hash = eng_hash(&item->cols, sizeof(item->cols), hash);
        hash = eng_hash(&item->offset, sizeof(item->offset), hash);
    }

    if (!ok || !eng_chk_align(at, 1u << 21, &m->image_bytes)
        || m->image_bytes > (uint64_t) INT64_MAX)
    {
        return eng_fail(b->err, ENG_ELIMIT, "%s: the weights do not fit the "
                        "address space", b->g->path);
    }
    m->plan_hash = hash;

    return 0;
}
