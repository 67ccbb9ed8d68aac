/*
 * Sources of models: see eng_source.h.  Here: which form it is, and rows of
 * tensors from either.
 */
#include <stdlib.h>
#include <string.h>

#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_hf.h"
#include "worker/engine/eng_io.h"
#include "worker/engine/eng_source.h"
#include "worker/engine/eng_type.h"

#define PIECE  4096u              /* values converted at a time              */


/* ---- opening ------------------------------------------------------------ */

/* One identity of many files: an image made from others does not fit. */
static void
identify(eng_gguf_t *g)
{
    uint32_t              i;
    uint64_t              id = 0;
    const eng_st_file_t  *f;
    struct eng_folder    *d = g->folder;

    g->header_hash = eng_hash(d->config.text, d->config.len, 0);
    for (i = 0; i < d->st.n_files; i++) {
        f = &d->st.files[i];
        g->file_bytes += f->io.bytes;   /* no overflow: 1024 off_t at most */
        g->mtime_ns = f->io.mtime_ns > g->mtime_ns ? f->io.mtime_ns
                                                   : g->mtime_ns;
        id = eng_hash(&f->io.inode, sizeof(f->io.inode), id);
        id = eng_hash(&f->io.mtime_ns, sizeof(f->io.mtime_ns), id);
        g->header_hash = eng_hash(f->header, f->header_bytes, g->header_hash);
    }
    g->inode = id;
}


static int
open_folder(eng_gguf_t *g, const char *path, eng_err_t *err)
{
    int                 rc;
    struct eng_folder  *d;

    memset(g, 0, sizeof(*g));
    g->path = path;
    g->fd = -1;
    d = calloc(1, sizeof(*d));
    if (d == NULL) {
        return eng_fail(err, ENG_ENOMEM, "%s: no memory", path);
    }
    g->folder = d;
    d->path = path;

    rc = eng_cfg_open(&d->config, path, "config.json", err);
    if (rc == 0 && eng_io_exists(path, "generation_config.json")) {
        rc = eng_cfg_open(&d->generation, path, "generation_config.json",
                          err);
    }
    if (rc == 0) {
        rc = eng_hf_keys(g, err);
    }
    if (rc == 0) {
        rc = eng_st_open(&d->st, path, err);
    }
    if (rc == 0) {
        rc = eng_hf_tensors(g, err);
    }
    if (rc != 0) {
        eng_source_close(g);
        return rc;
    }
    identify(g);

    return ENG_OK;
}


int
eng_source_open(eng_gguf_t *g, const char *path, eng_err_t *err)
{
    return eng_io_is_folder(path) ? open_folder(g, path, err)
                                  : eng_gguf_open(g, path, err);
}


void
eng_source_close(eng_gguf_t *g)
{
    struct eng_folder  *d = g->folder;

    if (d != NULL) {
        eng_st_close(&d->st);
        eng_cfg_close(&d->config);
        eng_cfg_close(&d->generation);
        eng_cfg_close(&d->defaults);
        free(d->place);
        free(d->part);
        free(d->names);
        free(d);
        g->folder = NULL;
    }
    eng_gguf_close(g);
}


/* ---- rows --------------------------------------------------------------- */

/* A whole vector as floats: norms and biases, a few thousand values. */
static int
read_floats(const eng_gguf_t *g, const eng_place_t *place, uint64_t n,
    float *dst, eng_err_t *err)
{
    int                     rc;
    uint8_t                 buf[4 * PIECE];
    uint64_t                at, k, i;
    const struct eng_folder  *d = g->folder;
    const eng_st_tensor_t  *t = &d->st.tensors[d->part[place->first]];
    uint32_t                size = t->type == 0 ? 4 : 2;

    for (at = 0; at < n; at += k) {
        k = n - at < PIECE ? n - at : PIECE;
        rc = eng_st_read(&d->st, t, buf, k * size, at * size, err);
        if (rc != 0) {
            return rc;
        }
        kern_gguf_row_f32(t->type == 0 ? KERN_F32 : t->type == 1 ? KERN_F16
                          : KERN_BF16, buf, (uint32_t) k, dst + at);
        for (i = 0; i < k && (place->how & ENG_ROWS_PLUS_ONE); i++) {
            dst[at + i] += 1.0f;
        }
    }

    return ENG_OK;
}


/* The row of the file that is wanted as `row`. */
static uint64_t
from_row(const eng_place_t *place, uint64_t row)
{
    uint64_t  half = place->head_rows / 2, in = row % place->head_rows;

    return row - in + in % 2 * half + in / 2;
}


static int
folder_rows(const eng_gguf_t *g, const eng_gguf_tensor_t *t, uint64_t row,
    uint64_t n, uint64_t row_bytes, uint8_t *dst, eng_err_t *err)
{
    int                       rc = ENG_OK;
    uint64_t                  at, k, per;
    const struct eng_folder  *d = g->folder;
    const eng_place_t        *place = &d->place[t - g->tensors];
    const eng_st_tensor_t    *s;

    if (place->made != NULL) {
        memcpy(dst, place->made + row * t->dim[0], n * row_bytes);
        return ENG_OK;
    }
    per = t->bytes / row_bytes / place->n_parts;

    for ( /* void */ ; rc == 0 && n > 0; row += k, n -= k) {
        at = row % per;
        k = per - at < n ? per - at : n;
        s = &d->st.tensors[d->part[place->first + row / per]];
        if (place->how & ENG_ROWS_HEADS) {
            k = 1;
            at = from_row(place, at);
        }
        rc = eng_st_read(&d->st, s, dst, k * row_bytes, at * row_bytes, err);
        dst += k * row_bytes;
    }

    return rc;
}


int
eng_source_rows(const eng_gguf_t *g, const eng_gguf_tensor_t *t,
    uint64_t row, uint64_t n, void *dst, eng_err_t *err)
{
    uint64_t            row_bytes, rows;
    float              *f;
    const eng_place_t  *place;
    const eng_type_t   *type = eng_type_get(t->type);

    eng_assert(type != NULL && t->dim[0] > 0);
    row_bytes = t->dim[0] / type->block * type->bytes;
    rows = t->bytes / row_bytes;
    eng_assert(row <= rows && n <= rows - row);

    if (g->folder == NULL) {
        return eng_gguf_read(g, dst, n * row_bytes,
                             t->offset + row * row_bytes, err);
    }
    place = &g->folder->place[t - g->tensors];
    if (place->how & ENG_ROWS_FLOAT) {
        eng_assert(row == 0 && n == 1);
        f = dst;
        return read_floats(g, place, t->dim[0], f, err);
    }

    return folder_rows(g, t, row, n, row_bytes, dst, err);
}


/* ---- names for people --------------------------------------------------- */

void
eng_source_label(const eng_gguf_t *g, const char *name, char *dst, size_t cap)
{
    if (g->folder == NULL || !eng_hf_label(g->folder, name, dst, cap)) {
        (void) snprintf(dst, cap, "%s", name);
    }
}


const char *
eng_source_where(const eng_gguf_key_t *k, char *dst, size_t cap)
{
    if (k->label != NULL) {
        (void) snprintf(dst, cap, "(\"%s\" of config.json)", k->label);
    } else {
        (void) snprintf(dst, cap, "at offset %llu",
                        (unsigned long long) k->offset);
    }

    return dst;
}
