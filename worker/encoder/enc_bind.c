/*
 * Tensors to places: every name that a family has is looked up, its shape
 * compared with what the configuration says, and its place in the image laid
 * down.  Tensors that nothing asks for (poolers, buffers of old versions) are
 * left alone: an encoder's file often carries the heads of its training.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/encoder/enc_model.h"
#include "worker/engine/eng_chk.h"

#define NAME_BYTES  256u
#define ALIGN       128u


/* prefix + name with '#' as the layer + suffix */
static void
compose(const enc_model_t *m, char *dst, size_t cap, const char *name,
    int layer, const char *suffix)
{
    const char  *hash = strchr(name, '#');
    const char  *prefix = m->hp.prefix;

    if (hash == NULL) {
        (void) snprintf(dst, cap, "%s%s%s", prefix, name, suffix);
    } else {
        (void) snprintf(dst, cap, "%s%.*s%d%s%s", prefix,
                        (int) (hash - name), name, layer, hash + 1, suffix);
    }
}


/* 1: found with that shape, 0: absent. */
static int
find(const enc_model_t *m, const enc_src_t *src, const char *name,
    uint32_t rows, uint32_t cols, enc_tensor_t *t, eng_err_t *err)
{
    int  rc = enc_src_find(src, name, t, err);

    (void) m;
    if (rc <= 0) {
        return rc;
    }
    if (t->rows != rows || t->cols != cols) {
        return eng_fail(err, ENG_EFORMAT, "tensor %s is %u x %u, the "
                        "configuration needs %u x %u", name, t->rows,
                        t->cols, rows, cols);
    }

    return 1;
}


static int
missing(const char *name, eng_err_t *err)
{
    return eng_fail(err, ENG_EFORMAT, "tensor %s is missing", name);
}


static enc_item_t *
item_new(enc_model_t *m, enc_item_kind_t kind)
{
    enc_item_t  *p;

    if (m->n_items == m->cap_items) {
        m->cap_items = m->cap_items * 2 + 64;
        p = realloc(m->item, m->cap_items * sizeof(m->item[0]));
        if (p == NULL) {
            return NULL;
        }
        m->item = p;
    }

    p = &m->item[m->n_items];
    *p = (enc_item_t) { .kind = kind };

    return p;
}


/* Gives the item its place. */
static int
item_done(enc_model_t *m, enc_item_t *it, uint64_t bytes, eng_err_t *err)
{
    uint64_t  end;
    uint32_t  i;

    if (bytes == 0 || !eng_chk_align(m->image_bytes, ALIGN, &it->offset)
        || !eng_chk_add(it->offset, bytes, &end) || end > (1ull << 40))
    {
        return eng_fail(err, ENG_ELIMIT, "a tensor of %u x %u is too large",
                        it->rows, it->cols);
    }
    it->bytes = bytes;
    m->image_bytes = end;
    m->n_items++;
    for (i = 0; i < it->n_parts; i++) {
        m->info.parameters += (uint64_t) it->part[i].rows
                              * it->part[i].cols;
    }

    return 0;
}


/* Weights that are int8 in the file lose nothing as they are, but would be
   rounded once more in another order.  With a norm in front of a block the
   stream is of another kind. */
static int
orders(const enc_model_t *m, const enc_item_t *it)
{
    return it->type == KERN_Q8_0 && it->part[0].type != KERN_Q8_0
           && !(m->hp.flags & ENC_F_PRENORM)
           && m->hp.embd <= KERN_COLS_MAX - KERN_BLOCK;
}


/* stream: the input is the residual stream. */
static int
bind_matrix(enc_model_t *m, const enc_src_t *src, int layer,
    const char *const *name, const uint32_t *rows, uint32_t n,
    uint32_t cols, kern_wtype_t type, int stream, kern_weight_t *to,
    eng_err_t *err)
{
    int          rc;
    char         full[NAME_BYTES];
    uint32_t     i;
    enc_item_t  *it = item_new(m, ENC_ITEM_MATRIX);

    eng_assert(n >= 1 && n <= ENC_PARTS_MAX);
    if (it == NULL) {
        return eng_fail(err, ENG_ENOMEM, "no memory");
    }
    it->type = type;
    it->cols = cols;
    it->n_parts = n;
    it->to.matrix = to;
    for (i = 0; i < n; i++) {
        compose(m, full, sizeof(full), name[i], layer, ".weight");
        rc = find(m, src, full, rows[i], cols, &it->part[i], err);
        if (rc <= 0) {
            return rc < 0 ? rc : missing(full, err);
        }
        it->rows += rows[i];
    }
    if (stream && orders(m, it)) {
        it->ordered = m->ordered = 1;
        it->cols += KERN_BLOCK;
    }

    return item_done(m, it, kern_packed_bytes(type, it->rows, it->cols),
                     err);
}


int
enc_bind_matrix(enc_model_t *m, const enc_src_t *src, int layer,
    const char *const *name, const uint32_t *rows, uint32_t n,
    uint32_t cols, kern_wtype_t type, kern_weight_t *to, eng_err_t *err)
{
    return bind_matrix(m, src, layer, name, rows, n, cols, type, 0, to, err);
}


int
enc_bind_vector(enc_model_t *m, const enc_src_t *src, int layer,
    const char *const *name, const char *suffix, const uint32_t *len,
    uint32_t n, int must, const float **to, eng_err_t *err)
{
    int          rc;
    char         full[NAME_BYTES];
    uint32_t     i, found = 0;
    enc_item_t  *it = item_new(m, ENC_ITEM_VECTOR);

    if (it == NULL) {
        return eng_fail(err, ENG_ENOMEM, "no memory");
    }
    it->rows = 1;
    it->n_parts = n;
    it->to.vector = to;
    for (i = 0; i < n; i++) {
        compose(m, full, sizeof(full), name[i], layer, suffix);
        rc = find(m, src, full, 1, len[i], &it->part[i], err);
        if (rc < 0) {
            return rc;
        }
        if (rc == 0 && (must || found > 0)) {
            return missing(full, err);
        }
        found += rc > 0;
        it->cols += len[i];
    }
    if (found == 0) {
        return 0;
    }

    return item_done(m, it, (uint64_t) it->cols * sizeof(float), err);
}


int
enc_bind_norm(enc_model_t *m, const enc_src_t *src, int layer,
    const char *name, enc_norm_t *to, eng_err_t *err)
{
    int  rc;

    rc = enc_bind_vector(m, src, layer, &name, ".weight", &m->hp.embd, 1, 1,
                         &to->w, err);
    if (rc == 0 && !(m->hp.flags & ENC_F_RMS)) {
        rc = enc_bind_vector(m, src, layer, &name, ".bias", &m->hp.embd, 1,
                             0, &to->b, err);
    }

    return rc;
}


int
enc_bind_table(enc_model_t *m, const enc_src_t *src, const char *name,
    uint32_t rows, uint32_t cols, enc_table_t *to, eng_err_t *err)
{
    int          rc;
    char         full[NAME_BYTES];
    enc_item_t  *it = item_new(m, ENC_ITEM_TABLE);

    if (it == NULL) {
        return eng_fail(err, ENG_ENOMEM, "no memory");
    }
    compose(m, full, sizeof(full), name, 0, ".weight");
    rc = find(m, src, full, rows, cols, &it->part[0], err);
    if (rc <= 0) {
        return rc < 0 ? rc : missing(full, err);
    }
    it->n_parts = 1;
    it->rows = rows;
    it->cols = cols;
    it->type = it->part[0].type;
    it->to.table = to;

    return item_done(m, it, (uint64_t) rows * it->part[0].row_bytes, err);
}


static int
bind_linear(enc_model_t *m, const enc_src_t *src, int layer,
    const char *const *name, const uint32_t *rows, uint32_t n,
    uint32_t cols, int stream, enc_linear_t *to, eng_err_t *err)
{
    int  rc;

    rc = bind_matrix(m, src, layer, name, rows, n, cols, m->wtype, stream,
                     &to->w, err);
    if (rc == 0) {
        rc = enc_bind_vector(m, src, layer, name, ".bias", rows, n,
                             (m->hp.flags & ENC_F_BIAS) != 0, &to->b, err);
    }

    return rc;
}


int
enc_bind_linear(enc_model_t *m, const enc_src_t *src, int layer,
    const char *const *name, const uint32_t *rows, uint32_t n,
    uint32_t cols, enc_linear_t *to, eng_err_t *err)
{
    return bind_linear(m, src, layer, name, rows, n, cols, 0, to, err);
}


int
enc_bind_stream(enc_model_t *m, const enc_src_t *src, int layer,
    const char *const *name, const uint32_t *rows, uint32_t n,
    enc_linear_t *to, eng_err_t *err)
{
    return bind_linear(m, src, layer, name, rows, n, m->hp.embd, 1, to, err);
}


static int
bind_ffn(enc_model_t *m, const enc_src_t *src, int i, eng_err_t *err)
{
    int                 rc;
    char                wi[2][NAME_BYTES];
    uint32_t            rows[2] = { m->hp.ff, m->hp.ff }, n = 1;
    const char         *name[2];
    enc_layer_t        *l = &m->layer[i];
    const enc_names_t  *a = m->hp.names;

    name[0] = a->up;
    if (m->hp.flags & ENC_F_GLU) {
        if (a->gate != NULL) {
            name[0] = a->gate;
            name[1] = a->up;
            n = 2;
        } else if (m->hp.flags & ENC_F_REL) {
            /* wi_0 goes through the activation */
            (void) snprintf(wi[0], NAME_BYTES, "%s_0", a->up);
            (void) snprintf(wi[1], NAME_BYTES, "%s_1", a->up);
            name[0] = wi[0];
            name[1] = wi[1];
            n = 2;
        } else {
            rows[0] = 2 * m->hp.ff;
        }
        if (m->hp.flags & ENC_F_GGUF && a->gate == NULL) {
            name[0] = "enc.blk.#.ffn_gate";
            name[1] = a->up;
        }
    }

    rc = enc_bind_stream(m, src, i, name, rows, n, &l->up, err);
    if (rc == 0) {
        rc = enc_bind_linear(m, src, i, &a->down, &m->hp.embd, 1, m->hp.ff,
                             &l->down, err);
    }
    if (rc == 0) {
        rc = enc_bind_norm(m, src, i, a->ffn_norm, &l->ffn_norm, err);
    }

    return rc;
}


static int
bind_layer(enc_model_t *m, const enc_src_t *src, int i, eng_err_t *err)
{
    int                 rc = 0;
    uint32_t            inner = m->hp.heads * m->hp.head_dim;
    uint32_t            rows[3] = { inner, inner, inner };
    uint32_t            all = 3 * inner;
    enc_layer_t        *l = &m->layer[i];
    const enc_names_t  *a = m->hp.names;
    const char         *qkv[3] = { a->q, a->k, a->v };

    if (a->qkv != NULL) {
        rc = enc_bind_stream(m, src, i, &a->qkv, &all, 1, &l->qkv, err);
    } else {
        rc = enc_bind_stream(m, src, i, qkv, rows, 3, &l->qkv, err);
    }
    if (rc == 0) {
        rc = enc_bind_linear(m, src, i, &a->o, &m->hp.embd, 1, inner, &l->o,
                             err);
    }
    if (rc == 0 && !((m->hp.flags & ENC_F_FIRST) && i == 0)) {
        rc = enc_bind_norm(m, src, i, a->attn_norm, &l->attn_norm, err);
    }

    return rc == 0 ? bind_ffn(m, src, i, err) : rc;
}


/* The first prefix under which the embedding is found. */
static int
find_prefix(enc_model_t *m, const enc_src_t *src, eng_err_t *err)
{
    int           rc;
    char          full[NAME_BYTES];
    uint32_t      i;
    enc_tensor_t  t;

    for (i = 0; i < 3 && m->hp.arch->prefix[i] != NULL; i++) {
        m->hp.prefix = m->hp.arch->prefix[i];
        compose(m, full, sizeof(full), m->hp.names->tok, 0, ".weight");
        rc = enc_src_find(src, full, &t, err);
        if (rc != 0) {
            return rc < 0 ? rc : 0;
        }
    }

    return missing(full, err);
}


static int
bind_embedding(enc_model_t *m, const enc_src_t *src, eng_err_t *err)
{
    int                 rc = 0;
    const enc_hp_t     *hp = &m->hp;
    const enc_names_t  *a = hp->names;

    if (hp->kind == ENC_T2T && hp->tied) {
        rc = enc_bind_matrix(m, src, 0, &a->tok, &hp->vocab, 1, hp->embd,
                             m->wtype, &m->tok_packed, err);
    } else {
        rc = enc_bind_table(m, src, a->tok, hp->vocab, hp->embd, &m->tok,
                            err);
    }
    if (rc == 0 && (hp->flags & ENC_F_POS)) {
        rc = enc_bind_table(m, src, a->pos, hp->n_pos, hp->embd, &m->pos,
                            err);
    }
    if (rc == 0 && (hp->flags & ENC_F_TYPES) && hp->types > 0) {
        rc = enc_bind_table(m, src, a->type, hp->types, hp->embd, &m->type,
                            err);
    }
    if (rc == 0 && a->emb_norm != NULL) {
        rc = enc_bind_norm(m, src, 0, a->emb_norm, &m->emb_norm, err);
    }
    if (rc == 0 && a->last_norm != NULL) {
        rc = enc_bind_norm(m, src, 0, a->last_norm, &m->last_norm, err);
    }
    if (rc == 0 && a->rel != NULL) {
        rc = enc_bind_table(m, src, a->rel, hp->buckets, hp->heads, &m->rel,
                            err);
    }

    return rc;
}


/* A classifier's tensors have the body's prefix or none.  Small, and what
   decides: always float32. */
static int
bind_head(enc_model_t *m, const enc_src_t *src, eng_err_t *err)
{
    int                      rc, bert;
    const char              *prefix = m->hp.prefix;
    const enc_head_names_t  *h = m->hp.head;

    bert = strcmp(h->dense, "pooler.dense") == 0;
    m->hp.prefix = bert ? prefix : "";
    rc = enc_bind_matrix(m, src, 0, &h->dense, &m->hp.embd, 1, m->hp.embd,
                         KERN_F32, &m->dense.w, err);
    if (rc == 0) {
        rc = enc_bind_vector(m, src, 0, &h->dense, ".bias", &m->hp.embd, 1,
                             0, &m->dense.b, err);
    }
    m->hp.prefix = "";
    if (rc == 0 && h->norm != NULL) {
        rc = enc_bind_norm(m, src, 0, h->norm, &m->head_norm, err);
    }
    if (rc == 0) {
        rc = enc_bind_matrix(m, src, 0, &h->out, &m->hp.labels, 1,
                             m->hp.embd, KERN_F32, &m->out.w, err);
    }
    if (rc == 0) {
        rc = enc_bind_vector(m, src, 0, &h->out, ".bias", &m->hp.labels, 1,
                             0, &m->out.b, err);
    }
    m->hp.prefix = prefix;

    return rc;
}


int
enc_bind(enc_model_t *m, const enc_src_t *src, eng_err_t *err)
{
    int       rc;
    uint32_t  i;

    m->image_bytes = ENC_IMAGE_HEADER;
    m->layer = calloc(m->hp.layers, sizeof(m->layer[0]));
    m->dec = calloc(m->hp.dec_layers + 1, sizeof(m->dec[0]));
    if (m->layer == NULL || m->dec == NULL) {
        return eng_fail(err, ENG_ENOMEM, "no memory for %u layers",
                        m->hp.layers);
    }

    rc = find_prefix(m, src, err);
    if (rc == 0) {
        rc = bind_embedding(m, src, err);
    }
    for (i = 0; rc == 0 && i < m->hp.layers; i++) {
        rc = bind_layer(m, src, (int) i, err);
    }
    if (rc == 0 && m->hp.head != NULL) {
        rc = bind_head(m, src, err);
    }
    if (rc == 0 && m->hp.kind == ENC_T2T) {
        rc = enc_bind_dec(m, src, err);
    }

    return rc;
}
