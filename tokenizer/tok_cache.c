/*
 * tok_cache.c: the prepared image as a file.
 *
 * It is a cache that we wrote ourselves.  Opening it costs a map and a look
 * at its header: magic, version, layout, size, every section inside the file,
 * and a sum over the header.  The tables behind are not read then, so the
 * file must belong to us or to root, and nobody else may write to it.
 */

#include "tokenizer/tok_build.h"
#include "tokenizer/tok_keys.h"
#include "tokenizer/tok_load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>


#define HEAD_BYTES  4096

/* What an image is made from. */
typedef struct {
    uint64_t  bytes;
    int64_t   mtime_ns;
    uint64_t  sum;
} stamp_t;


static uint64_t
header_sum(const tok_image_t *h)
{
    tok_image_t  copy = *h;

    copy.sum = 0;
    return tok_hash_bytes((const uint8_t *) &copy, sizeof(copy));
}


static int
check_header(const tok_image_t *h, size_t len)
{
    uint64_t  bytes;
    int       i;

    if (h->magic != TOK_IMAGE_MAGIC || h->version != TOK_IMAGE_VERSION
        || h->bytes_header != sizeof(*h) || h->bytes != len
        || h->sum != header_sum(h))
    {
        return TOK_E_STALE;
    }
    for (i = 0; i < TOK_S_MAX; i++) {
        if (__builtin_mul_overflow(h->sect[i].n, tok_sect_size(i), &bytes)
            || h->sect[i].off % 64 || h->sect[i].off > len
            || bytes > len - h->sect[i].off)
        {
            return TOK_E_FORMAT;
        }
    }
    if (len - h->sect[TOK_S_POOL].off - h->sect[TOK_S_POOL].n < 32
        || h->sect[TOK_S_TOKENS].n != h->n_ids
        || h->sect[TOK_S_FLAGS].n != h->n_ids
        || h->sect[TOK_S_BYTES].n != h->n_ids || h->hash_log > 31
        || h->sect[TOK_S_HASH].n != (uint64_t) 1 << h->hash_log
        || (h->fast == TOK_FAST_SPM
            && h->sect[TOK_S_JOINS].n != TOK_JOINS_WORDS)
        || (h->sect[TOK_S_MADE].n && h->sect[TOK_S_MADE].n != h->n_ids)
        || h->merges_log > 31 || h->words_log > 31 || h->filter_log > 31
        || (h->sect[TOK_S_WORDS].n && h->sect[TOK_S_SIEVE].n
            != ((((uint64_t) 1 << h->words_log) - 1) >> TOK_SIEVE_LOG) + 1))
    {
        return TOK_E_FORMAT;
    }
    return 0;
}


int
tok_image_open(tok_t **t, const char *path, tok_err_t *err)
{
    struct stat  st;
    void        *map;
    int          fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), rc;

    *t = NULL;
    if (fd < 0 || fstat(fd, &st) != 0) {
        rc = tok_fail(err, TOK_E_IO, "%s: %s", path, strerror(errno));
        if (fd >= 0) {
            (void) close(fd);
        }
        return rc;
    }
    if (!S_ISREG(st.st_mode) || (st.st_uid != geteuid() && st.st_uid != 0)
        || (st.st_mode & (S_IWGRP | S_IWOTH)))
    {
        (void) close(fd);
        return tok_fail(err, TOK_E_IO, "%s: an image must belong to this user "
                        "or root and be writable by nobody else", path);
    }
    if ((uint64_t) st.st_size < sizeof(tok_image_t)
        || (uint64_t) st.st_size > 4ull * TOK_FILE_BYTES_MAX)
    {
        (void) close(fd);
        return tok_fail(err, TOK_E_STALE, "%s: no image of this version",
                        path);
    }
    map = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    (void) close(fd);
    if (map == MAP_FAILED) {
        return tok_fail(err, TOK_E_IO, "%s: cannot be mapped: %s", path,
                        strerror(errno));
    }
    rc = check_header(map, (size_t) st.st_size);
    if (rc != 0) {
        (void) munmap(map, (size_t) st.st_size);
        return tok_fail(err, rc, "%s: no image of this version, or damaged",
                        path);
    }
    return tok_bind(t, map, (size_t) st.st_size, true, err);
}


/* --- writing ----------------------------------------------------------- */

static int
write_all(int fd, const void *data, size_t len)
{
    const uint8_t  *p = data;
    ssize_t         n;

    while (len) {
        n = write(fd, p, len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return TOK_E_IO;
        }
        p += n;
        len -= (size_t) n;
    }
    return 0;
}


static int
image_write(const tok_t *t, const char *image, const stamp_t *stamp,
    tok_err_t *err)
{
    char         temp[TOK_PATH_BYTES_MAX];
    tok_image_t  h = *t->img;
    int          fd, rc, n;

    n = snprintf(temp, sizeof(temp), "%s.%ld.tmp", image, (long) getpid());
    if (n < 0 || (size_t) n >= sizeof(temp)) {
        return tok_fail(err, TOK_E_LIMIT, "%s: a path of more than %d bytes",
                        image, TOK_PATH_BYTES_MAX);
    }
    h.source_bytes = stamp->bytes;
    h.source_mtime_ns = stamp->mtime_ns;
    h.source_sum = stamp->sum;
    h.sum = header_sum(&h);
    /* Read-only: whoever cut it off would end the processes that map it. */
    fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
              0444);
    if (fd < 0) {
        return tok_fail(err, TOK_E_IO, "%s: %s", temp, strerror(errno));
    }
    rc = write_all(fd, &h, sizeof(h));
    if (rc == 0) {
        rc = write_all(fd, (const uint8_t *) t->img + sizeof(h),
                       t->block_bytes - sizeof(h));
    }
    if (close(fd) != 0 || rc != 0 || rename(temp, image) != 0) {
        rc = tok_fail(err, TOK_E_IO, "%s: cannot be written: %s", image,
                      strerror(errno));
        (void) unlink(temp);
    }
    return rc;
}


int
tok_image_write(const tok_t *t, const char *image, tok_err_t *err)
{
    stamp_t  none = { 0 };

    return image_write(t, image, &none, err);
}


/* --- cached ------------------------------------------------------------ */

static int
stamp_file(stamp_t *s, const char *path)
{
    uint8_t      head[HEAD_BYTES];
    struct stat  st;
    ssize_t      n;
    int          fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return TOK_E_IO;
    }
    n = fstat(fd, &st) == 0 ? read(fd, head, sizeof(head)) : -1;
    (void) close(fd);
    if (n < 0) {
        return TOK_E_IO;
    }
    s->bytes = s->bytes * 3 + (uint64_t) st.st_size;
    /* unsigned: a mixture of several files' times may wrap */
    s->mtime_ns = (int64_t) ((uint64_t) s->mtime_ns * 3
                             + (uint64_t) st.st_mtim.tv_sec * 1000000000u
                             + (uint64_t) st.st_mtim.tv_nsec);
    s->sum = tok_mix(s->sum, tok_hash_bytes(head, (size_t) n));
    return 0;
}


static int
stamp_source(stamp_t *s, const char *source)
{
    static const char *const  names[] = {
        "tokenizer.json", "tokenizer_config.json", "generation_config.json",
        "chat_template.jinja"
    };
    char         path[TOK_PATH_BYTES_MAX];
    struct stat  st;
    size_t       i;
    int          n;

    memset(s, 0, sizeof(*s));
    if (stat(source, &st) != 0) {
        return TOK_E_IO;
    }
    if (!S_ISDIR(st.st_mode)) {
        return stamp_file(s, source);
    }
    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        n = snprintf(path, sizeof(path), "%s/%s", source, names[i]);
        if (n < 0 || (size_t) n >= sizeof(path)) {
            return TOK_E_LIMIT;
        }
        if (stamp_file(s, path) != 0 && i == 0) {
            return TOK_E_IO;
        }
    }
    return 0;
}


int
tok_open_cached(tok_t **t, const char *source, const char *image,
    tok_err_t *err)
{
    stamp_t    s;
    tok_err_t  ignored;
    int        rc = stamp_source(&s, source);

    *t = NULL;
    if (rc != 0) {
        return tok_fail(err, rc, "%s: cannot be read", source);
    }
    if (tok_image_open(t, image, &ignored) == 0) {
        if ((*t)->img->source_bytes == s.bytes
            && (*t)->img->source_mtime_ns == s.mtime_ns
            && (*t)->img->source_sum == s.sum)
        {
            return 0;
        }
        tok_close(*t);
        *t = NULL;
    }
    rc = tok_open(t, source, err);
    if (rc == 0) {
        (void) image_write(*t, image, &s, &ignored);
    }
    return rc;
}
