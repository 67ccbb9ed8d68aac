/*
 * One view of safetensors and GGUF tensors.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "worker/encoder/enc_src.h"
#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_model.h"


int
enc_src_open(enc_src_t *s, const char *path, eng_err_t *err)
{
    struct stat  st;

    *s = (enc_src_t) { 0 };
    if (stat(path, &st) != 0) {
        return eng_fail(err, ENG_EIO, "%s: cannot be found", path);
    }

    if (S_ISDIR(st.st_mode)) {
        return eng_st_open(&s->st, path, err);
    }

    s->gguf = 1;
    return eng_gguf_open(&s->g, path, err);
}


void
enc_src_close(enc_src_t *s)
{
    if (s->gguf) {
        eng_gguf_close(&s->g);
    } else {
        eng_st_close(&s->st);
    }
}


uint64_t
enc_src_bytes(const enc_src_t *s)
{
    uint64_t  sum = 0;
    uint32_t  i;

    if (s->gguf) {
        return s->g.file_bytes;
    }
    for (i = 0; i < s->st.n_files; i++) {
        sum += s->st.files[i].io.bytes;
    }

    return sum;
}


uint64_t
enc_src_hash(const enc_src_t *s)
{
    uint64_t              h = 1;
    uint32_t              i;
    const eng_st_file_t  *f;

    if (s->gguf) {
        uint64_t  v[4] = { s->g.header_hash, s->g.file_bytes, s->g.mtime_ns,
                           s->g.inode };

        return eng_hash(v, sizeof(v), h);
    }

    for (i = 0; i < s->st.n_files; i++) {
        f = &s->st.files[i];
        h = eng_hash(f->header, f->header_bytes, h);
        {
            uint64_t  v[3] = { f->io.bytes, f->io.mtime_ns, f->io.inode };

            h = eng_hash(v, sizeof(v), h);
        }
    }

    return h;
}


/* Dimensions outermost first: one is a vector, two a matrix. */
static int
shape(enc_tensor_t *t, const char *name, uint32_t n_dims, uint64_t rows,
    uint64_t cols, uint32_t type, eng_err_t *err)
{
    int  k = type == ENG_ST_NO_TYPE ? -1 : eng_kern_type(type);

    if (k < 0) {
        return eng_fail(err, ENG_EUNSUP, "tensor %s: its type cannot be "
                        "computed with", name);
    }
    if (n_dims < 1 || n_dims > 2 || rows == 0 || rows > KERN_ROWS_MAX
        || cols == 0 || cols > KERN_ROWS_MAX)
    {
        return eng_fail(err, ENG_EFORMAT, "tensor %s: %u dimensions, %llu x "
                        "%llu; needed are 1 or 2, up to %u each", name,
                        n_dims, (unsigned long long) rows,
                        (unsigned long long) cols, KERN_ROWS_MAX);
    }

    t->type = (kern_wtype_t) k;
    t->rows = (uint32_t) rows;
    t->cols = (uint32_t) cols;
    t->row_bytes = kern_gguf_row_bytes(t->type, t->cols);
    if (t->row_bytes == 0) {
        return eng_fail(err, ENG_EFORMAT, "tensor %s: %u columns are no "
                        "whole blocks of %s", name, t->cols,
                        kern_wtype_name(t->type));
    }

    return 1;
}


int
enc_src_find(const enc_src_t *s, const char *name, enc_tensor_t *t,
    eng_err_t *err)
{
    int  rc;

    *t = (enc_tensor_t) { 0 };
    if (s->gguf) {
        t->g = eng_gguf_tensor(&s->g, name);
        if (t->g == NULL) {
            return 0;
        }
        /* GGUF counts from the innermost dimension */
        return shape(t, name, t->g->n_dims <= 2 ? t->g->n_dims : 9,
                     t->g->dim[1], t->g->dim[0], t->g->type, err);
    }

    t->st = eng_st_tensor(&s->st, name);
    if (t->st == NULL) {
        return 0;
    }
    if (t->st->n_dims == 1) {
        rc = shape(t, name, 1, 1, t->st->dim[0], t->st->type, err);
    } else {
        rc = shape(t, name, t->st->n_dims, t->st->dim[0], t->st->dim[1],
                   t->st->type, err);
    }

    return rc;
}


int
enc_src_rows(const enc_src_t *s, const enc_tensor_t *t, uint32_t row,
    uint32_t n, void *out, eng_err_t *err)
{
    uint64_t  at = (uint64_t) row * t->row_bytes;
    uint64_t  len = (uint64_t) n * t->row_bytes;

    eng_assert(row <= t->rows && n <= t->rows - row);
    if (s->gguf) {
        return eng_gguf_read(&s->g, out, len, t->g->offset + at, err);
    }

    return eng_st_read(&s->st, t->st, out, len, at, err);
}
