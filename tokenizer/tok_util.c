/*
 * tok_util.c: errors, checked sums, growing arrays, whole files.
 */

#include "tokenizer/tok_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>


int
tok_fail(tok_err_t *err, int code, const char *fmt, ...)
{
    va_list  args;

    assert(code < 0);
    if (err != NULL) {
        err->code = code;
        va_start(args, fmt);
        (void) vsnprintf(err->msg, sizeof(err->msg), fmt, args);
        va_end(args);
    }
    return code;
}


bool
chk_add(size_t a, size_t b, size_t *sum)
{
    return !__builtin_add_overflow(a, b, sum);
}


bool
chk_mul(size_t a, size_t b, size_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}


#define LARGE  ((size_t) 2 << 20)

/*
 * Large blocks lie in large pages where the system has some: fewer faults
 * while they are filled, fewer misses of the address cache afterwards.
 */
static void *
large_block(size_t bytes)
{
    void  *p;

    if (bytes > SIZE_MAX / 2) {
        return NULL;
    }
    bytes = (bytes + LARGE - 1) & ~(LARGE - 1);
    p = aligned_alloc(LARGE, bytes);
    if (p != NULL) {
        (void) madvise(p, bytes, MADV_HUGEPAGE);
    }
    return p;
}


/* The same for memory that may lie anywhere: where whole pages fit in. */
static void
want_large(void *ptr, size_t bytes)
{
    uintptr_t  at = ((uintptr_t) ptr + LARGE - 1) & ~(LARGE - 1);
    uintptr_t  end = ((uintptr_t) ptr + bytes) & ~(LARGE - 1);

    if (bytes >= 2 * LARGE && end > at) {
        (void) madvise((void *) at, end - at, MADV_HUGEPAGE);
    }
}


void *
tok_block(size_t bytes)
{
    const size_t  page = 4096;

    return bytes >= 2 * LARGE ? large_block(bytes)
           : aligned_alloc(page, (bytes + page - 1) & ~(page - 1));
}


int
tok_vec_room(tok_vec_t *v, size_t more, size_t size)
{
    void    *ptr;
    size_t   want, bytes;

    assert(size > 0);
    if (!chk_add(v->n, more, &want) || !chk_mul(want, size, &bytes)
        || bytes > SIZE_MAX / 2 - 64)
    {
        return TOK_E_NOMEM;
    }
    if (bytes <= v->bytes) {
        return 0;
    }
    bytes += bytes / 2 + 64;
    if (v->ptr == NULL && bytes >= LARGE / 2) {
        ptr = large_block(bytes);

    } else {
        ptr = realloc(v->ptr, bytes);
    }
    if (ptr == NULL) {
        return TOK_E_NOMEM;
    }
    want_large(ptr, bytes);
    v->ptr = ptr;
    v->bytes = bytes;
    return 0;
}


void
tok_vec_free(tok_vec_t *v)
{
    free(v->ptr);
    v->ptr = NULL;
    v->n = 0;
    v->bytes = 0;
}


static int
read_all(int fd, const char *path, char *buf, size_t len, tok_err_t *err)
{
    size_t   have = 0;
    ssize_t  n;

    while (have < len) {
        n = read(fd, buf + have, len - have);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return tok_fail(err, TOK_E_IO, "%s: read stopped after %zu of %zu "
                            "bytes: %s", path, have, len,
                            n < 0 ? strerror(errno) : "end of file");
        }
        have += (size_t) n;
    }
    return 0;
}


int
tok_read_file(const char *path, size_t max, char **data, size_t *len,
    tok_err_t *err)
{
    struct stat  st;
    char        *buf;
    int          fd, rc;

    *data = NULL;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return tok_fail(err, TOK_E_IO, "%s: %s", path, strerror(errno));
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        (void) close(fd);
        return tok_fail(err, TOK_E_IO, "%s: not a regular file", path);
    }
    if ((uint64_t) st.st_size > max) {
        (void) close(fd);
        return tok_fail(err, TOK_E_LIMIT, "%s: %lld bytes, the limit is %zu",
                        path, (long long) st.st_size, max);
    }
    buf = tok_block((size_t) st.st_size + 1);
    if (buf == NULL) {
        (void) close(fd);
        return tok_fail(err, TOK_E_NOMEM, "%s: no memory for %lld bytes",
                        path, (long long) st.st_size);
    }
    rc = read_all(fd, path, buf, (size_t) st.st_size, err);
    (void) close(fd);
    if (rc != 0) {
        free(buf);
        return rc;
    }
    buf[st.st_size] = '\0';
    *data = buf;
    *len = (size_t) st.st_size;
    return 0;
}
