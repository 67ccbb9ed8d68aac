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
    uint64_t rows, eng_item_t **item)
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
    if (t->dim[0] != cols || t->dim[1] != rows || t->dim[2] != 1
        || t->dim[3] != 1)
    {
        return eng_fail(b->err, ENG_EFORMAT, "%s: tensor \"%s\" is %llu x "
                        "%llu x %llu x %llu, the model's sizes ask for %llu x "
                        "%llu", b->g->path, label,
                        (unsigned long long) t->dim[0],
                        (unsigned long long) t->dim[1],
                        (unsigned long long) t->dim[2],
                        (unsigned long long) t->dim[3],
                        (unsigned long long) cols, (unsigned long long) rows);
    }

    index = (uint32_t) (t - b->g->tensors);
    eng_assert(index < b->g->n_tensors && !b->used[index]);
    eng_assert(b->m->n_items < b->g->n_tensors);
    b->used[index] = 1;
    *item = &b->m->item[b->m->n_items++];
    (*item)->tensor = t;
    (*item)->rows = (uint32_t) rows;
    (*item)->cols = (uint32_t) cols;

    return 0;
}


static int
bind_matrix(binder_t *b, const char *name, int required, uint32_t rows,
    uint32_t cols, kern_weight_t *w)
{
    int          rc, type;
    eng_item_t  *item;

    rc = find(b, name, required, cols, rows, &item);
    if (rc != 0 || item == NULL) {
        return rc;
    }

    type = eng_kern_type(item->tensor->type);
    if (type < 0) {
        return eng_fail(b->err, ENG_EUNSUP, "%s: tensor \"%s\" has the type "
                        "%s, which is not supported", b->g->path, name,
                        eng_type_get(item->tensor->type)->name);
    }

    item->type = (kern_wtype_t) type;
    item->bytes = kern_packed_bytes(item->type, rows, cols);
    if (item->bytes == 0
        || item->tensor->bytes != (uint64_t) rows
           * kern_gguf_row_bytes(item->type, cols))
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

    rc = find(b, name, required, n, 1, &item);
    if (rc != 0 || item == NULL) {
        return rc;
    }

    type = eng_kern_type(item->tensor->type);
    if (type != KERN_F32 && type != KERN_F16 && type != KERN_BF16) {
        return eng_fail(b->err, ENG_EUNSUP, "%s: tensor \"%s\" has the type "
                        "%s; vectors must be F32, F16 or BF16", b->g->path,
                        name, eng_type_get(item->tensor->type)->name);
    }

    item->type = (kern_wtype_t) type;
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

    rc = bind_matrix(b, "token_embd.weight", 1, hp->vocab, hp->embd,
                     &m->embd);
    if (rc == 0) {
        rc = bind_vector(b, "output_norm.weight", 1, hp->embd,
                         &m->output_norm);
    }
    if (rc == 0) {
        rc = bind_matrix(b, "output.weight", 0, hp->vocab, hp->embd,
                         &m->output);
    }
    if (rc == 0) {
        rc = bind_vector(b, "rope_freqs.weight", 0, hp->rot_dim / 2,
                         &m->rope_factors);
    }

    return rc;
}


typedef struct {
    const char  *name;            /* after "blk.N."                          */
    uint32_t     flag;            /* 0: always there                         */
    uint32_t     rows, cols;      /* rows 1: a vector                        */
    size_t       at;              /* in eng_layer_t                          */
} want_t;


static int
bind_wanted(binder_t *b, uint32_t i, const want_t *want, size_t n)
{
    int           rc;
    char          name[ENG_NAME_MAX];
    size_t        j;
    char         *layer = (char *) &b->m->layer[i];

    for (j = 0, rc = 0; rc == 0 && j < n; j++) {
        if (want[j].flag != 0 && !(b->m->hp.arch->flags & want[j].flag)) {
            continue;
        }
        (void) snprintf(name, sizeof(name), "blk.%u.%s", i, want[j].name);
        if (want[j].rows == 1) {
            rc = bind_vector(b, name, 1, want[j].cols,
                             (const float **) (void *) (layer + want[j].at));
        } else {
            rc = bind_matrix(b, name, 1, want[j].rows, want[j].cols,
                             (kern_weight_t *) (void *) (layer + want[j].at));
        }
    }

    return rc;
}


#define AT(field)  offsetof(eng_layer_t, field)

static int
bind_layer(binder_t *b, uint32_t i)
{
    const eng_hp_t  *hp = &b->m->hp;
    uint32_t         e = hp->embd, hd = hp->head_dim, ff = hp->ff;
    uint32_t         nq = hp->heads * hd, nk = hp->heads_kv * hd;
    const uint32_t   bias = ENG_ARCH_QKV_BIAS, post = ENG_ARCH_POST_NORM;

    const want_t     want[] = {
        { "attn_norm.weight",           0,    1,  e,  AT(attn_norm) },
        { "attn_q.weight",              0,    nq, e,  AT(q) },
        { "attn_k.weight",              0,    nk, e,  AT(k) },
        { "attn_v.weight",              0,    nk, e,  AT(v) },
        { "attn_q.bias",                bias, 1,  nq, AT(q_bias) },
        { "attn_k.bias",                bias, 1,  nk, AT(k_bias) },
        { "attn_v.bias",                bias, 1,  nk, AT(v_bias) },
        { "attn_q_norm.weight", ENG_ARCH_QK_NORM, 1, hd, AT(q_norm) },
        { "attn_k_norm.weight", ENG_ARCH_QK_NORM, 1, hd, AT(k_norm) },
        { "attn_output.weight",         0,    e,  nq, AT(o) },
        { "post_attention_norm.weight", post, 1,  e,  AT(post_attn_norm) },
        { "ffn_norm.weight",            0,    1,  e,  AT(ffn_norm) },
        { "ffn_gate.weight",            0,    ff, e,  AT(gate) },
        { "ffn_up.weight",              0,    ff, e,  AT(up) },
        { "ffn_down.weight",            0,    e,  ff, AT(down) },
        { "post_ffw_norm.weight",       post, 1,  e,  AT(post_ffn_norm) },
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
