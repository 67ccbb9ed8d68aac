/*
 * safetensors: the tensor tables of a file or of a folder's shards, checked
 * completely.
 *
 * A header is copied once into private memory and read there by the bounded
 * JSON reader; sums and products of its numbers are checked; every tensor's
 * span lies inside its file and overlaps no other.  Weights are read later
 * with pread().  The layout follows the format's public description
 * (huggingface/safetensors, "Format").
 *
 * A folder holds model.safetensors or model.safetensors.index.json and the
 * shards that it names; a shard's name is a plain file name of that folder.
 */
#ifndef ENG_ST_H
#define ENG_ST_H

#include <stdint.h>

#include "worker/engine/eng_gguf.h"
#include "worker/engine/eng_io.h"

#define ENG_ST_HEADER_MAX    100000000u     /* the format's own limit        */
#define ENG_ST_INDEX_MAX     (32u << 20)
#define ENG_ST_TENSORS_MAX   ENG_GGUF_TENSORS_MAX
#define ENG_ST_NAME_MAX      256u
#define ENG_ST_DIMS_MAX      8u
#define ENG_ST_SHARDS_MAX    1024u
#define ENG_ST_SHARD_NAME_MAX 200u
#define ENG_ST_NO_TYPE       UINT32_MAX

typedef struct {
    eng_str_t    name;            /* in the header copy                      */
    const char  *dtype;           /* "BF16", "I64"                           */
    uint32_t     type;            /* the same as in eng_type.h (F32, F16,
                                     BF16 ...), or ENG_ST_NO_TYPE            */
    uint32_t     file;            /* index in files                          */
    uint32_t     n_dims;
    uint64_t     dim[ENG_ST_DIMS_MAX];  /* as in the file: outermost first;
                                           unused ones are 1                 */
    uint64_t     elements;
    uint64_t     offset;          /* absolute, in its file                   */
    uint64_t     bytes;
} eng_st_tensor_t;

typedef struct {
    eng_io_t     io;
    char        *path;
    const char  *name;            /* the last part of path                   */
    uint8_t     *header;          /* private copy                            */
    uint64_t     header_bytes;    /* with the eight bytes of its length      */
} eng_st_file_t;

typedef struct {
    const char       *path;       /* the caller's: for messages              */
    eng_st_file_t    *files;
    uint32_t          n_files;
    eng_st_tensor_t  *tensors;    /* in the order of files and headers       */
    uint32_t          n_tensors;
    uint32_t          cap;
    uint32_t         *index;      /* open hash over tensor names             */
    uint32_t          index_mask;
} eng_st_t;

/*
 * path: a folder or one .safetensors file; it must live as long as st.  On an
 * error nothing is left open.
 */
int eng_st_open(eng_st_t *st, const char *path, eng_err_t *err);

/*
 * One file in memory (tests, fuzzing): `data` holds the first `len` of
 * `file_bytes` bytes; it is copied.
 */
int eng_st_parse(eng_st_t *st, const char *path, const uint8_t *data,
    uint64_t len, uint64_t file_bytes, eng_err_t *err);

/* Nothing of st may be used afterwards. */
void eng_st_close(eng_st_t *st);

/* NULL when absent. */
const eng_st_tensor_t *eng_st_tensor(const eng_st_t *st, const char *name);

/* Reads exactly `len` bytes of the tensor, from its byte `at` on, into dst;
   safe for several threads at once. */
int eng_st_read(const eng_st_t *st, const eng_st_tensor_t *t, void *dst,
    uint64_t len, uint64_t at, eng_err_t *err);

#endif
