/*
 * Inside of a model: weights bound to names and the one block of memory that
 * holds them.  For the files of this folder only.
 */
#ifndef ENC_MODEL_H
#define ENC_MODEL_H

#include "worker/encoder/enc_arch.h"

#define ENC_VERSION       1u     /* of the image's layout                    */
#define ENC_IMAGE_HEADER  4096u
#define ENC_PARTS_MAX     3u

/* Rows of a few tensors, one below the other, as one item of the image. */
typedef enum {
    ENC_ITEM_MATRIX = 0,          /* packed for kern_matmul()                */
    ENC_ITEM_TABLE,               /* rows as the file has them               */
    ENC_ITEM_VECTOR               /* floats                                  */
} enc_item_kind_t;

/* A table of rows that are only looked up. */
typedef struct {
    kern_wtype_t    type;
    uint32_t        rows, cols;
    size_t          row_bytes;
    const uint8_t  *data;
} enc_table_t;

typedef struct {
    enc_item_kind_t  kind;
    kern_wtype_t     type;        /* in the image                            */
    uint32_t         rows, cols;
    uint32_t         n_parts;
    enc_tensor_t     part[ENC_PARTS_MAX];
    int              ordered;     /* columns in enc_model.order, and a block
                                     more                                    */
    uint64_t         offset, bytes;
    union {
        kern_weight_t  *matrix;
        enc_table_t    *table;
        const float   **vector;
    } to;
} enc_item_t;

/* A matrix with its bias ([rows] or NULL). */
typedef struct {
    kern_weight_t   w;            /* cols a block more than those of its
                                     input: they are in enc_model.order      */
    const float    *b;
} enc_linear_t;

typedef struct {
    const float    *w, *b;        /* b: NULL where there is none             */
} enc_norm_t;

/* I = heads * head_dim.  w.rows 0 or NULL: the family has none. */
typedef struct {
    enc_norm_t      attn_norm;    /* [embd]                                  */
    enc_linear_t    qkv;          /* [3 I][embd]                             */
    enc_linear_t    o;            /* [embd][I]                               */
    enc_norm_t      cross_norm;   /* decoder: attention over the source      */
    enc_linear_t    cq;           /* [I][embd]                               */
    enc_linear_t    ckv;          /* [2 I][embd]                             */
    enc_linear_t    co;           /* [embd][I]                               */
    enc_norm_t      ffn_norm;
    enc_linear_t    up;           /* [ff][embd]; GLU: [2 ff][embd], act's
                                     half first                              */
    enc_linear_t    down;         /* [embd][ff]                              */
} enc_layer_t;

struct enc_model {
    enc_hp_t       hp;
    enc_info_t     info;
    char         (*label)[ENC_LABEL_MAX];

    enc_table_t    tok;           /* [vocab][embd]                           */
    kern_weight_t  tok_packed;    /* instead, where it is the output too     */
    enc_table_t    pos, type;
    enc_norm_t     emb_norm, last_norm;
    enc_layer_t   *layer;         /* [layers]                                */
    enc_layer_t   *dec;           /* [dec_layers]                            */
    enc_norm_t     dec_norm;
    enc_table_t    rel, dec_rel;  /* [buckets][heads]                        */
    kern_weight_t  output;        /* [vocab][embd]                           */
    enc_linear_t   dense, out;    /* classifier                              */
    enc_norm_t     head_norm;

    kern_wtype_t   wtype;         /* of the layers' matrices                 */
    int            ordered;       /* some items are                          */
    uint32_t      *order;         /* then: [embd] dimensions by their size   */
    enc_item_t    *item;
    uint32_t       n_items, cap_items;
    uint64_t       image_bytes;
    uint8_t       *image;
    const char    *origin;        /* where it came from, for the log         */
    uint64_t       hash;
};

/* Finds every tensor, checks its shape, lays out the image. */
int enc_bind(enc_model_t *m, const enc_src_t *src, eng_err_t *err);
/* Its part for decoders. */
int enc_bind_dec(enc_model_t *m, const enc_src_t *src, eng_err_t *err);

/* One item of n tensors by NAME[i].weight; rows[i] x cols is the shape that
   is demanded.  must: absent ones are errors, else nothing is bound. */
int enc_bind_matrix(enc_model_t *m, const enc_src_t *src, int layer,
    const char *const *name, const uint32_t *rows, uint32_t n,
    uint32_t cols, kern_wtype_t type, kern_weight_t *to, eng_err_t *err);
int enc_bind_vector(enc_model_t *m, const enc_src_t *src, int layer,
    const char *const *name, const char *suffix, const uint32_t *len,
    uint32_t n, int must, const float **to, eng_err_t *err);
int enc_bind_norm(enc_model_t *m, const enc_src_t *src, int layer,
    const char *name, enc_norm_t *to, eng_err_t *err);
int enc_bind_table(enc_model_t *m, const enc_src_t *src, const char *name,
    uint32_t rows, uint32_t cols, enc_table_t *to, eng_err_t *err);
/* Matrix with bias, as hp->flags say. */
int enc_bind_linear(enc_model_t *m, const enc_src_t *src, int layer,
    const char *const *name, const uint32_t *rows, uint32_t n,
    uint32_t cols, enc_linear_t *to, eng_err_t *err);
/* One that reads the residual stream; with int8 its columns may be ordered. */
int enc_bind_stream(enc_model_t *m, const enc_src_t *src, int layer,
    const char *const *name, const uint32_t *rows, uint32_t n,
    enc_linear_t *to, eng_err_t *err);

/* The order, where a bound item wants it; before the image is loaded. */
int enc_order_read(enc_model_t *m, const enc_src_t *src, eng_err_t *err);
/* row[embd + KERN_BLOCK] of a matrix' w[embd], and of values x[embd] that meet
   it. */
void enc_order_weights(const enc_model_t *m, const float *w, float *row);
void enc_order_values(const enc_model_t *m, const float *x, float *row);

/* Fills and maps the image; addresses go to where items point.  `path` is the
   model's, by which its cache file is named. */
int enc_image_load(enc_model_t *m, const char *path, const enc_src_t *src,
    const enc_model_opts_t *o, eng_err_t *err);
void enc_image_unload(enc_model_t *m);

/* The memory that an engine would take, in info; limits of options. */
int enc_plan_info(const enc_model_t *m, const enc_opts_t *o,
    enc_info_t *info, eng_err_t *err);

#endif
