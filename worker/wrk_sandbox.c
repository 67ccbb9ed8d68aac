/*
 * Files and outward paths: Landlock.  The kernel's interface grew by versions
 * (ABI); what a kernel does not know is left out, never taken for an error.
 */

#include "worker/wrk_sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "worker/wrk_log.h"


#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED  1
#else
#define SANITIZED  0
#endif

#define FOLDER_DEPTH    2           /* of links that are looked for */
#define FOLDER_ENTRIES  4096        /* of one folder */

/* Rights by the ABI that brought them; the headers of Debian 12 end at 3. */
#define FS_ABI_1        ((1ull << 13) - 1)
#define FS_ABI_2        (1ull << 13)            /* REFER */
#define FS_ABI_3        (1ull << 14)            /* TRUNCATE */
#define FS_ABI_5        (1ull << 15)            /* IOCTL_DEV */
#define NET_ABI_4       3ull                    /* bind and connect, TCP */
#define SCOPE_ABI_6     3ull                    /* abstract sockets, signals */

#define FS_READ   (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FS_FILE   (LANDLOCK_ACCESS_FS_READ_FILE \
                   | LANDLOCK_ACCESS_FS_WRITE_FILE | FS_ABI_3)
#define FS_CACHE  (FS_READ | LANDLOCK_ACCESS_FS_WRITE_FILE | FS_ABI_3 \
                   | LANDLOCK_ACCESS_FS_MAKE_REG \
                   | LANDLOCK_ACCESS_FS_REMOVE_FILE)

/* struct landlock_ruleset_attr as of ABI 6. */
typedef struct {
    uint64_t  fs;
    uint64_t  net;
    uint64_t  scoped;
} ruleset_attr_t;


static int
make_ruleset(int abi, uint64_t *handled)
{
    size_t          size;
    ruleset_attr_t  attr = { FS_ABI_1, 0, 0 };

    attr.fs |= abi >= 2 ? FS_ABI_2 : 0;
    attr.fs |= abi >= 3 ? FS_ABI_3 : 0;
    attr.fs |= abi >= 5 ? FS_ABI_5 : 0;
    attr.net = abi >= 4 ? NET_ABI_4 : 0;
    attr.scoped = abi >= 6 ? SCOPE_ABI_6 : 0;
    size = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
    *handled = attr.fs;

    return (int) syscall(SYS_landlock_create_ruleset, &attr, size, 0);
}


/* Rights of folders cannot be given to a file: the kernel says EINVAL. */
static void
allow(int ruleset, int fd, uint64_t rights, uint64_t handled)
{
    struct stat                      st;
    struct landlock_path_beneath_attr  rule = { 0 };

    if (fstat(fd, &st) != 0) {
        return;
    }
    rule.parent_fd = fd;
    rule.allowed_access = rights & handled;
    if (!S_ISDIR(st.st_mode)) {
        rule.allowed_access &= FS_FILE;
    }
    if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH,
                &rule, 0) != 0)
    {
        wrk_log(WRK_LOG_WARN, "landlock rule: %s", strerror(errno));
    }
}


/*
 * Model folders of download caches hold links to files elsewhere, so each
 * link's target gets a rule of its own.  Files only: a folder's rule holds
 * for all below it, and a link to "/" would open everything.  Two levels: a
 * model's folder has folders of parts, those have none.
 */
static void
allow_links(int ruleset, int folder, uint64_t handled, int depth)
{
    int             fd, entries = 0;
    DIR            *dir;
    struct stat     st;
    struct dirent  *e;

    fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL) {
        if (fd >= 0) {
            close(fd);
        }
        return;
    }

    while ((e = readdir(dir)) != NULL && entries++ < FOLDER_ENTRIES) {
        if (e->d_name[0] == '.' || (e->d_type == DT_DIR && depth <= 1)
            || (e->d_type != DT_LNK && e->d_type != DT_DIR
                && e->d_type != DT_UNKNOWN))
        {
            continue;
        }
        fd = openat(folder, e->d_name, O_PATH | O_CLOEXEC);
        if (fd < 0) {
            continue;
        }
        if (e->d_type == DT_DIR) {
            allow_links(ruleset, fd, handled, depth - 1);
        } else if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
            allow(ruleset, fd, FS_READ, handled);
        }
        close(fd);
    }
    closedir(dir);
}


static void
allow_path(int ruleset, const wrk_sandbox_path_t *p, uint64_t handled)
{
    int       fd;
    uint64_t  rights;

    if (p->path == NULL || p->path[0] == '\0') {
        return;
    }
    fd = open(p->path, O_PATH | O_CLOEXEC);
    if (fd < 0) {
        return;
    }

    rights = p->use == WRK_SANDBOX_READ ? FS_READ
             : p->use == WRK_SANDBOX_CACHE ? FS_CACHE
             : (uint64_t) LANDLOCK_ACCESS_FS_WRITE_FILE;
    allow(ruleset, fd, rights, handled);
    if (p->use == WRK_SANDBOX_READ) {
        allow_links(ruleset, fd, handled, FOLDER_DEPTH);
    }
    close(fd);
}


void
wrk_sandbox_files(wrk_sandbox_t *s, const wrk_sandbox_path_t *paths, size_t n)
{
    int       abi, ruleset;
    size_t    i;
    uint64_t  handled;

    if (SANITIZED || s->off) {
        s->off = 1;
        return;
    }
    abi = (int) syscall(SYS_landlock_create_ruleset, NULL, 0,
                        LANDLOCK_CREATE_RULESET_VERSION);
    if (abi < 1) {
        return;
    }
    ruleset = make_ruleset(abi, &handled);
    if (ruleset < 0) {
        return;
    }

    for (i = 0; i < n; i++) {
        allow_path(ruleset, &paths[i], handled);
    }
    if (syscall(SYS_landlock_restrict_self, ruleset, 0) == 0) {
        s->landlock = abi;
    }
    close(ruleset);
}


void
wrk_sandbox_text(const wrk_sandbox_t *s, char *text, size_t cap)
{
    if (s->off) {
        snprintf(text, cap, "no sandbox");
        return;
    }
    if (s->landlock != 0) {
        snprintf(text, cap, "landlock %d, %s", s->landlock,
                 s->seccomp ? "seccomp" : "no seccomp");
        return;
    }
    snprintf(text, cap, "no landlock, %s", s->seccomp ? "seccomp"
                                                      : "no seccomp");
}
