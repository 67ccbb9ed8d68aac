/*
 * Where weights come from: safetensors files of a folder, or a GGUF file,
 * behind one look-up by name and one way to read rows as floats.  For the
 * files of this folder only.
 */
#ifndef ENC_SRC_H
#define ENC_SRC_H

#include "worker/engine/eng_gguf.h"
#include "worker/engine/eng_st.h"
#include "worker/kernels/kern.h"

typedef struct {
    int         gguf;
    eng_gguf_t  g;
    eng_st_t    st;
} enc_src_t;

/* A matrix or (rows 1) a vector. */
typedef struct {
    const eng_gguf_tensor_t  *g;
    const eng_st_tensor_t    *st;
    kern_wtype_t              type;
    uint32_t                  rows, cols;
    size_t                    row_bytes;
} enc_tensor_t;

/* path: a folder with config.json, or a .gguf file. */
int enc_src_open(enc_src_t *s, const char *path, eng_err_t *err);
void enc_src_close(enc_src_t *s);

uint64_t enc_src_bytes(const enc_src_t *s);
/* Identifies headers and files: another value is another model. */
uint64_t enc_src_hash(const enc_src_t *s);

/* 1: there, 0: absent, or an error: a type or shape that nothing here has. */
int enc_src_find(const enc_src_t *s, const char *name, enc_tensor_t *t,
    eng_err_t *err);

/* Rows [row, row + n) in the tensor's own format. */
int enc_src_rows(const enc_src_t *s, const enc_tensor_t *t, uint32_t row,
    uint32_t n, void *out, eng_err_t *err);

#endif
