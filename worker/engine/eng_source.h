/*
 * What a model is read from: a GGUF file, or a folder as Hugging Face has
 * them (config.json, safetensors).  Both come as an eng_gguf_t: keys and
 * tensors by GGUF's names.  A folder is translated into that form by the
 * tables of eng_hf.c and eng_hf_names.c, so that everything behind (sizes,
 * binding, packing, conversion) knows one form only.
 */
#ifndef ENG_SOURCE_H
#define ENG_SOURCE_H

#include "worker/engine/eng_gguf.h"

/* A folder, or a GGUF file.  `path` must live as long as g. */
int eng_source_open(eng_gguf_t *g, const char *path, eng_err_t *err);
void eng_source_close(eng_gguf_t *g);

/*
 * Rows [row, row + n) of a tensor into dst, as blocks of its type (t->type);
 * dim[0] values are a row, all further dimensions count as rows.  Safe for
 * several threads at once.  ENG_EIO with a message.
 */
int eng_source_rows(const eng_gguf_t *g, const eng_gguf_tensor_t *t,
    uint64_t row, uint64_t n, void *dst, eng_err_t *err);

/* What the source itself calls a tensor of that GGUF name: for messages. */
void eng_source_label(const eng_gguf_t *g, const char *name, char *dst,
    size_t cap);

/* Where a key stands: "at offset 12", or which part of which file it was. */
const char *eng_source_where(const eng_gguf_key_t *k, char *dst, size_t cap);

#endif
