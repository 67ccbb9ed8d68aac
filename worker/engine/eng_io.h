/*
 * Files of a model: opened as regular files only, read with pread() into
 * private memory (a file that shrinks is an error, not a SIGBUS).
 */
#ifndef ENG_IO_H
#define ENG_IO_H

#include <stdint.h>

#include "worker/engine/eng_file.h"

#define ENG_IO_PATH_MAX  4096u

typedef struct {
    int       fd;                 /* -1: not open                            */
    uint64_t  bytes;
    uint64_t  mtime_ns;
    uint64_t  inode;
    uint64_t  device;
} eng_io_t;

/* ENG_EIO with a message that names the path; then nothing is open. */
int eng_io_open(eng_io_t *f, const char *path, eng_err_t *err);
void eng_io_close(eng_io_t *f);

/* Reads exactly `len` bytes at `offset` into dst; ENG_EIO with a message. */
int eng_io_read(int fd, const char *path, void *dst, uint64_t len,
    uint64_t offset, eng_err_t *err);

/*
 * A whole small file, for the caller to free; *text has a NUL behind its len
 * bytes.  ENG_ELIMIT: more than max bytes.
 */
int eng_io_text(const char *path, uint64_t max, char **text, uint64_t *len,
    eng_err_t *err);

/* FOLDER/NAME into dst; ENG_ELIMIT when it does not fit. */
int eng_io_join(char dst[ENG_IO_PATH_MAX], const char *folder,
    const char *name, eng_err_t *err);

/* 1: there is something of that name in the folder. */
int eng_io_exists(const char *folder, const char *name);

/* 1: the path is a folder. */
int eng_io_is_folder(const char *path);

#endif
