/*
 * config.json and its like: typed values by their path, without a tree.
 *
 * The text is kept and walked for every question: these files have a few
 * kilobytes and are asked once.  Where a key stands twice the last one
 * counts, as in the reference implementation.
 */
#ifndef ENG_CFG_H
#define ENG_CFG_H

#include <stdint.h>

#include "worker/engine/eng_file.h"

#define ENG_CFG_BYTES_MAX  (1u << 20)
#define ENG_CFG_PATH_MAX   128u   /* of a question: "a.b.c"                  */

typedef struct {
    char      *name;              /* the file, for messages                  */
    char      *text;
    uint64_t   len;
} eng_cfg_t;

/* FOLDER/FILE, an object; every byte is checked to be JSON. */
int eng_cfg_open(eng_cfg_t *c, const char *folder, const char *file,
    eng_err_t *err);

/* The same from memory; the text is copied. */
int eng_cfg_parse(eng_cfg_t *c, const char *name, const char *text,
    uint64_t len, eng_err_t *err);
void eng_cfg_close(eng_cfg_t *c);

/*
 * Questions: 1 and *out, 0 when the key is absent or null (*out stays as it
 * is), or a negative code with a message that names file, key, value's kind
 * and bounds.  A path's parts are member names: "rope_scaling.factor".
 */
int eng_cfg_u32(const eng_cfg_t *c, const char *path, uint32_t min,
    uint32_t max, uint32_t *out, eng_err_t *err);
int eng_cfg_f32(const eng_cfg_t *c, const char *path, double min, double max,
    float *out, eng_err_t *err);
int eng_cfg_bool(const eng_cfg_t *c, const char *path, int *out,
    eng_err_t *err);
/* dst: cap bytes, NUL-terminated, bytes that are not printable as '?'. */
int eng_cfg_text(const eng_cfg_t *c, const char *path, char *dst, size_t cap,
    eng_err_t *err);
/* The same for words that people chose in their language: whole characters
 * of UTF-8, only control characters as '?'. */
int eng_cfg_name(const eng_cfg_t *c, const char *path, char *dst, size_t cap,
    eng_err_t *err);

/* A number or an array of numbers: the first *n (at most cap) of them. */
int eng_cfg_list(const eng_cfg_t *c, const char *path, uint32_t *out,
    uint32_t cap, uint32_t *n, eng_err_t *err);

/* The i-th text of an array; 0: the array has no such element. */
int eng_cfg_item(const eng_cfg_t *c, const char *path, uint32_t i, char *dst,
    size_t cap, eng_err_t *err);

/* The i-th number of an array of numbers (also with fractions or signs);
   0: the array has no such element. */
int eng_cfg_number(const eng_cfg_t *c, const char *path, uint32_t i,
    double *out, eng_err_t *err);

/* 1: the key is there and not null. */
int eng_cfg_has(const eng_cfg_t *c, const char *path);

#endif
