/*
 * Opening and reading of a model's files.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/engine/eng_gguf.h"
#include "worker/engine/eng_io.h"
#include "worker/engine/eng_chk.h"


int
eng_io_open(eng_io_t *f, const char *path, eng_err_t *err)
{
    int          rc = 0;
    struct stat  st;

    memset(f, 0, sizeof(*f));
    /* O_NONBLOCK: a FIFO must not hold the caller up before it is refused. */
    f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (f->fd < 0) {
        return eng_fail(err, ENG_EIO, "%s: cannot open: %s", path,
                        strerror(errno));
    }
    if (fstat(f->fd, &st) != 0) {
        rc = eng_fail(err, ENG_EIO, "%s: cannot stat: %s", path,
                      strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        rc = eng_fail(err, ENG_EIO, "%s: not a regular file", path);
    }
    if (rc != 0) {
        eng_io_close(f);
        return rc;
    }

    f->bytes = (uint64_t) st.st_size;
    f->inode = (uint64_t) st.st_ino;
    f->device = (uint64_t) st.st_dev;
    f->mtime_ns = (uint64_t) st.st_mtim.tv_sec * 1000000000u
                  + (uint64_t) st.st_mtim.tv_nsec;

    return ENG_OK;
}


void
eng_io_close(eng_io_t *f)
{
    if (f->fd >= 0) {
        (void) close(f->fd);
    }
    f->fd = -1;
}


static int
read_at(int fd, uint8_t *dst, uint64_t len, uint64_t offset)
{
    ssize_t  n;

    while (len > 0) {
        n = pread(fd, dst, len > (1u << 30) ? (1u << 30) : len,
                  (off_t) offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? errno : ENODATA;
        }
        dst += n;
        len -= (uint64_t) n;
        offset += (uint64_t) n;
    }

    return 0;
}


int
eng_io_read(int fd, const char *path, void *dst, uint64_t len,
    uint64_t offset, eng_err_t *err)
{
    int  rc;

    rc = read_at(fd, dst, len, offset);
    if (rc == ENODATA) {
        return eng_fail(err, ENG_EIO, "%s: the file ended while %llu bytes at "
                        "offset %llu were read: did it change?", path,
                        (unsigned long long) len, (unsigned long long) offset);
    }
    if (rc != 0) {
        return eng_fail(err, ENG_EIO, "%s: read at offset %llu: %s", path,
                        (unsigned long long) offset, strerror(rc));
    }

    return ENG_OK;
}


int
eng_io_text(const char *path, uint64_t max, char **text, uint64_t *len,
    eng_err_t *err)
{
    int       rc;
    char     *p;
    eng_io_t  f;

    rc = eng_io_open(&f, path, err);
    if (rc != 0) {
        return rc;
    }
    if (f.bytes > max) {
        eng_io_close(&f);
        return eng_fail(err, ENG_ELIMIT, "%s: %llu bytes, at most %llu are "
                        "read", path, (unsigned long long) f.bytes,
                        (unsigned long long) max);
    }

    p = malloc(f.bytes + 1);
    rc = p == NULL ? eng_fail(err, ENG_ENOMEM, "%s: no memory for %llu bytes",
                              path, (unsigned long long) f.bytes)
                   : eng_io_read(f.fd, path, p, f.bytes, 0, err);
    eng_io_close(&f);
    if (rc != 0) {
        free(p);
        return rc;
    }
    p[f.bytes] = '\0';
    *text = p;
    *len = f.bytes;

    return ENG_OK;
}


int
eng_io_join(char dst[ENG_IO_PATH_MAX], const char *folder, const char *name,
    eng_err_t *err)
{
    int  n;

    n = snprintf(dst, ENG_IO_PATH_MAX, "%s/%s", folder, name);
    if (n < 0 || (uint32_t) n >= ENG_IO_PATH_MAX) {
        return eng_fail(err, ENG_ELIMIT, "%s: a path of more than %u bytes",
                        folder, ENG_IO_PATH_MAX - 1);
    }

    return ENG_OK;
}


int
eng_io_exists(const char *folder, const char *name)
{
    char         path[ENG_IO_PATH_MAX];
    struct stat  st;

    return eng_io_join(path, folder, name, NULL) == 0 && stat(path, &st) == 0;
}


int
eng_io_is_folder(const char *path)
{
    struct stat  st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}
