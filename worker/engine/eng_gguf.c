/*
 * GGUF files: opening, the private copy of the header, lookups.  The parse
 * itself is in eng_gguf_parse.c.
 *
 * The header's size is not known before it is read: a parse that runs off
 * the private copy while the file has more is started again on a larger one.
 */
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_gguf_int.h"
#include "worker/engine/eng_io.h"

#define FIRST_READ         (2u << 20)


int
eng_fail(eng_err_t *err, int code, const char *fmt, ...)
{
    va_list  ap;

    if (err != NULL) {
        err->code = code;
        va_start(ap, fmt);
        (void) vsnprintf(err->text, sizeof(err->text), fmt, ap);
        va_end(ap);
    }

    return code;
}


uint64_t
eng_hash(const void *data, uint64_t len, uint64_t seed)
{
    const uint8_t  *p = data;
    uint64_t        h = seed ^ 0xcbf29ce484222325u, w;

    for ( ; len >= 8; len -= 8, p += 8) {
        memcpy(&w, p, 8);
        h = (h ^ w) * 0x100000001b3u;
        h ^= h >> 29;
    }

    for ( ; len > 0; len--, p++) {
        h = (h ^ *p) * 0x100000001b3u;
    }

    return h ^ (h >> 32);
}


void
eng_str_print(eng_str_t s, char *dst, size_t cap)
{
    size_t  i;

    for (i = 0; i < s.len && i + 1 < cap; i++) {
        dst[i] = (s.p[i] >= 0x20 && s.p[i] < 0x7f) ? s.p[i] : '?';
    }

    dst[i] = '\0';
}


int
eng_str_eq(eng_str_t s, const char *z)
{
    return strlen(z) == s.len && memcmp(s.p, z, s.len) == 0;
}


int
eng_gguf_read(const eng_gguf_t *g, void *dst, uint64_t len, uint64_t offset,
    eng_err_t *err)
{
    return eng_io_read(g->fd, g->path, dst, len, offset, err);
}


static int
open_regular(eng_gguf_t *g, eng_err_t *err)
{
    int       rc;
    eng_io_t  f;

    rc = eng_io_open(&f, g->path, err);
    g->fd = f.fd;
    g->file_bytes = f.bytes;
    g->inode = f.inode;
    g->device = f.device;
    g->mtime_ns = f.mtime_ns;

    return rc;
}


static void
forget_tables(eng_gguf_t *g)
{
    free(g->keys);
    free(g->tensors);
    free(g->index);
    g->keys = NULL;
    g->tensors = NULL;
    g->index = NULL;
    g->n_keys = 0;
    g->n_tensors = 0;
}


static int
load_header(eng_gguf_t *g, uint64_t want, eng_err_t *err)
{
    uint8_t  *p;

    p = realloc(g->header, want > 0 ? want : 1);
    if (p == NULL) {
        return eng_fail(err, ENG_ENOMEM, "%s: no memory for %llu header "
                        "bytes", g->path, (unsigned long long) want);
    }
    g->header = p;

    return eng_gguf_read(g, p, want, 0, err);
}


int
eng_gguf_open(eng_gguf_t *g, const char *path, eng_err_t *err)
{
    int       rc;
    uint64_t  want;
    eng_gguf_cursor_t  c;

    memset(g, 0, sizeof(*g));
    g->path = path;
    rc = open_regular(g, err);

    for (want = FIRST_READ; rc == 0; want *= 4) {
        if (want > g->file_bytes) {
            want = g->file_bytes;
        }
        rc = load_header(g, want, err);
        if (rc != 0) {
            break;
        }
        c = (eng_gguf_cursor_t) { g, g->header, want, 0, err };
        rc = eng_gguf_header(&c);
        if (rc != ENG_GGUF_MORE) {
            break;
        }
        forget_tables(g);
        if (want >= ENG_GGUF_HEADER_MAX) {
            rc = eng_fail(err, ENG_ELIMIT, "%s: the header is longer than %u "
                          "bytes", path, ENG_GGUF_HEADER_MAX);
            break;
        }
        rc = 0;
    }

    if (rc != 0) {
        eng_gguf_close(g);
    }

    return rc;
}


int
eng_gguf_parse(eng_gguf_t *g, const char *path, const uint8_t *data,
    uint64_t len, uint64_t file_bytes, eng_err_t *err)
{
    int       rc;
    eng_gguf_cursor_t  c = { g, data, len, 0, err };

    eng_assert(len <= file_bytes);

    memset(g, 0, sizeof(*g));
    g->path = path;
    g->fd = -1;
    g->file_bytes = file_bytes;

    rc = eng_gguf_header(&c);
    if (rc == ENG_GGUF_MORE) {
        rc = eng_fail(err, ENG_ELIMIT, "%s: the header is longer than the "
                      "%llu bytes at hand", path, (unsigned long long) len);
    }
    if (rc != 0) {
        eng_gguf_close(g);
    }

    return rc;
}


void
eng_gguf_close(eng_gguf_t *g)
{
    forget_tables(g);
    free(g->header);
    g->header = NULL;
    if (g->fd >= 0) {
        (void) close(g->fd);
    }
    g->fd = -1;
}


uint64_t
eng_str_hash(eng_str_t s)
{
    return eng_hash(s.p, s.len, s.len);
}


const eng_gguf_key_t *
eng_gguf_key(const eng_gguf_t *g, const char *key)
{
    uint32_t  i;

    for (i = 0; i < g->n_keys; i++) {
        if (eng_str_eq(g->keys[i].key, key)) {
            return &g->keys[i];
        }
    }

    return NULL;
}


const eng_gguf_tensor_t *
eng_gguf_tensor(const eng_gguf_t *g, const char *name)
{
    uint64_t   h;
    eng_str_t  s = { name, (uint32_t) strlen(name) };

    for (h = eng_str_hash(s); g->index[h & g->index_mask] != 0; h++) {
        const eng_gguf_tensor_t  *t;

        t = &g->tensors[g->index[h & g->index_mask] - 1];
        if (eng_str_eq(t->name, name)) {
            return t;
        }
    }

    return NULL;
}
