/*
 * Keeps the folder of prepared files bounded.
 */

#include "worker/wrk_cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/wrk_log.h"


#define NAME_MAX_OURS  48u
#define ROUNDS_MAX     64u      /* files removed at a time */


static size_t
hex_digits(const char *s)
{
    return strspn(s, "0123456789abcdef");
}


static int
is_ours(const char *name)
{
    if (strlen(name) >= NAME_MAX_OURS || hex_digits(name) != 16) {
        return 0;
    }
    name += 16;
    if (strcmp(name, ".tok") == 0) {
        return 1;
    }
    if (name[0] != '-' || hex_digits(name + 1) != 8) {
        return 0;
    }
    name += 9;
    return strcmp(name, ".img") == 0 || strcmp(name, ".img.tmp") == 0;
}


/* How many files are ours, and which of them is the oldest. */
static uint32_t
find_oldest(DIR *d, char oldest[NAME_MAX_OURS])
{
    uint32_t              n = 0;
    struct stat           st;
    struct timespec       best = { 0, 0 };
    const struct dirent  *e;

    rewinddir(d);
    while ((e = readdir(d)) != NULL) {
        if (!is_ours(e->d_name)
            || fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0
            || !S_ISREG(st.st_mode))
        {
            continue;
        }
        if (n++ == 0 || st.st_mtim.tv_sec < best.tv_sec
            || (st.st_mtim.tv_sec == best.tv_sec
                && st.st_mtim.tv_nsec < best.tv_nsec))
        {
            best = st.st_mtim;
            memcpy(oldest, e->d_name, strlen(e->d_name) + 1);
        }
    }
    return n;
}


void
wrk_cache_tidy(const char *dir, uint32_t keep)
{
    DIR       *d;
    char       oldest[NAME_MAX_OURS];
    uint32_t   i;

    d = opendir(dir);
    if (d == NULL) {
        return;
    }

    for (i = 0; i < ROUNDS_MAX && find_oldest(d, oldest) > keep; i++) {
        if (unlinkat(dirfd(d), oldest, 0) != 0) {
            break;
        }
        wrk_log(WRK_LOG_INFO, "prepared file \"%s/%s\" removed: %u others "
                "were used later", dir, oldest, keep);
    }
    closedir(d);
}
