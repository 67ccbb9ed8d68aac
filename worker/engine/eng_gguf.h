/*
 * GGUF: header, keys and tensor table of a model file, checked completely.
 *
 * The header is copied once into private memory and read from there by a
 * bounded cursor, so that nobody can change it under us and a file that
 * shrinks cannot raise SIGBUS.  Weights are read later with pread().
 * The layout follows the format's public description (ggml docs/gguf.md).
 */
#ifndef ENG_GGUF_H
#define ENG_GGUF_H

#include <stdint.h>
#include "worker/engine/eng.h"

#define ENG_GGUF_KEYS_MAX      65536u
#define ENG_GGUF_TENSORS_MAX   65536u
#define ENG_GGUF_KEY_MAX       1024u
#define ENG_GGUF_NAME_MAX      128u
#define ENG_GGUF_STRING_MAX    (64u << 20)
#define ENG_GGUF_ALIGN_MAX     (1u << 20)
#define ENG_GGUF_HEADER_MAX    (256u << 20)
#define ENG_GGUF_DIMS_MAX      4u
/* Names compared before one has its place in a hash that is at most half
   full: far more than chance gives, so that names made to collide cost no
   quadratic time.  Here and in eng_st.h. */
#define ENG_GGUF_PROBES_MAX    1024u

/* A string inside the header copy: not terminated. */
typedef struct {
    const char  *p;
    uint32_t     len;
} eng_str_t;

typedef enum {
    ENG_GGUF_U8 = 0, ENG_GGUF_I8, ENG_GGUF_U16, ENG_GGUF_I16, ENG_GGUF_U32,
    ENG_GGUF_I32, ENG_GGUF_F32, ENG_GGUF_BOOL, ENG_GGUF_STRING,
    ENG_GGUF_ARRAY, ENG_GGUF_U64, ENG_GGUF_I64, ENG_GGUF_F64, ENG_GGUF_KINDS
} eng_gguf_kind_t;

typedef struct {
    eng_str_t        key;
    uint64_t         offset;      /* of the value in the file, for messages  */
    const char      *label;       /* of a folder: its name in config.json    */
    eng_gguf_kind_t  kind;
    eng_gguf_kind_t  item;        /* arrays                                  */
    uint64_t         count;       /* arrays                                  */
    const uint8_t   *items;       /* arrays: first byte in the header copy   */
    union {
        uint64_t     u;           /* all unsigned kinds and bool             */
        int64_t      i;
        double       f;
        eng_str_t    s;
    } v;
} eng_gguf_key_t;

typedef struct {
    eng_str_t  name;
    uint32_t   type;              /* as in the file: see eng_type.h          */
    uint32_t   n_dims;
    uint64_t   dim[ENG_GGUF_DIMS_MAX];   /* unused ones are 1                */
    uint64_t   elements;
    uint64_t   offset;            /* absolute, in the file                   */
    uint64_t   bytes;
} eng_gguf_tensor_t;

typedef struct {
    const char         *path;     /* the caller's                            */
    int                 fd;       /* -1 for a parse from memory              */
    uint64_t            file_bytes;
    uint64_t            mtime_ns;
    uint64_t            inode;
    uint64_t            device;
    uint32_t            version;
    uint8_t            *header;   /* private copy; NULL: caller's memory     */
    uint64_t            header_bytes;   /* up to and with the tensor table   */
    uint64_t            header_hash;
    uint64_t            data_offset;
    uint32_t            n_keys;
    uint32_t            n_tensors;
    eng_gguf_key_t     *keys;
    eng_gguf_tensor_t  *tensors;
    uint32_t           *index;    /* open hash over tensor names             */
    uint32_t            index_mask;
    struct eng_folder  *folder;   /* NULL: a GGUF file (eng_source.h)        */
} eng_gguf_t;

/* Regular files only.  On an error nothing is left open. */
int eng_gguf_open(eng_gguf_t *g, const char *path, eng_err_t *err);

/*
 * The same on bytes in memory (tests, fuzzing): `data` holds the first `len`
 * of `file_bytes` bytes and must outlive g.
 */
int eng_gguf_parse(eng_gguf_t *g, const char *path, const uint8_t *data,
    uint64_t len, uint64_t file_bytes, eng_err_t *err);

/* Nothing of g may be used afterwards. */
void eng_gguf_close(eng_gguf_t *g);

/* Makes the hash over the names of all tensors; ENG_EFORMAT: one of them
   stands there twice. */
int eng_gguf_index(eng_gguf_t *g, eng_err_t *err);

/* NULL when absent. */
const eng_gguf_key_t *eng_gguf_key(const eng_gguf_t *g, const char *key);
const eng_gguf_tensor_t *eng_gguf_tensor(const eng_gguf_t *g,
    const char *name);

/* Reads exactly `len` bytes of the file into dst; ENG_EIO with a message. */
int eng_gguf_read(const eng_gguf_t *g, void *dst, uint64_t len,
    uint64_t offset, eng_err_t *err);

/* Copies at most cap - 1 bytes, others than printable ASCII as '?'. */
void eng_str_print(eng_str_t s, char *dst, size_t cap);
int eng_str_eq(eng_str_t s, const char *z);
uint64_t eng_str_hash(eng_str_t s);

/* Fills err (if any) and returns code. */
int eng_fail(eng_err_t *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* 64-bit hash of a byte range (FNV-1a over 8-byte words): a checksum against
   damage, not against an attacker. */
uint64_t eng_hash(const void *data, uint64_t len, uint64_t seed);

#endif
