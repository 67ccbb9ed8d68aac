/*
 * What a worker gives up, in two steps, so that a model file or a request that
 * takes it over finds as little as possible:
 *
 *   wrk_sandbox_files()  before anything foreign is read: of all files only
 *                        those that loading needs, no TCP, no signals and no
 *                        abstract sockets outwards (Landlock);
 *   wrk_sandbox_calls()  when the model is loaded: only the system calls that
 *                        serving needs, in all threads (seccomp); resource
 *                        limits.
 *
 * Where the kernel or a container has less to offer, the rest is still done;
 * wrk_sandbox_text() says what is in force.  Builds with sanitizers stay
 * outside: their reports need files and calls that a worker must not have.
 *
 * Only the worker's main thread calls these, once each, with no_new_privs set.
 * Sources: landlock(7), seccomp(2), io_uring_register(2).
 */

#ifndef WRK_SANDBOX_H
#define WRK_SANDBOX_H

#include <stddef.h>


typedef struct {
    int  off;                       /* not wanted, or a sanitizer build */
    int  landlock;                  /* ABI in force; 0: none */
    int  seccomp;                   /* 1: in force in all threads */
} wrk_sandbox_t;

typedef enum {
    WRK_SANDBOX_READ = 0,           /* a file, or a folder with all below it */
    WRK_SANDBOX_CACHE,              /* a folder whose files may be replaced */
    WRK_SANDBOX_WRITE               /* one file that may be written */
} wrk_sandbox_use_t;

typedef struct {
    const char         *path;       /* "" or NULL: skipped */
    wrk_sandbox_use_t   use;
} wrk_sandbox_path_t;


/* Threads made later inherit it.  A path that does not exist is skipped: who
 * opens it will say so. */
void wrk_sandbox_files(wrk_sandbox_t *s, const wrk_sandbox_path_t *paths,
    size_t n);

/* For the calling thread and all others of the process. */
void wrk_sandbox_calls(wrk_sandbox_t *s);

/* One line for people, "landlock 7, seccomp" for example. */
void wrk_sandbox_text(const wrk_sandbox_t *s, char *text, size_t cap);


#endif /* WRK_SANDBOX_H */
