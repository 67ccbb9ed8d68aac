/*
 * Log lines.  No buffering and no thread: the pool says little, and what it
 * says must be there when it dies in the next instruction.
 */

#include "worker/wrk_log.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>


static char  log_name[WRK_LOG_NAME_MAX];
static int   log_verbose;

static const char *const  level_names[WRK_LOG_LEVELS] = {
    "alert", "error", "warn", "notice", "info"
};


void
wrk_log_name(const char *name)
{
    log_name[0] = '\0';
    if (name != NULL) {
        snprintf(log_name, sizeof(log_name), "%s", name);
    }
}


void
wrk_log_verbose(int on)
{
    log_verbose = on;
}


/* Control characters would let a foreign text forge a line of its own. */
static void
make_printable(char *p, size_t len)
{
    size_t         i;
    unsigned char  c;

    for (i = 0; i < len; i++) {
        c = (unsigned char) p[i];
        if (c < 0x20 || c == 0x7f) {
            p[i] = ' ';
        }
    }
}


size_t
wrk_log_format(char *buf, size_t cap, wrk_log_level_t level, const char *text)
{
    int         n;
    size_t      head, len;
    time_t      now;
    struct tm   tm;

    if (cap < 2) {
        return 0;
    }

    now = time(NULL);
    if (localtime_r(&now, &tm) == NULL) {
        memset(&tm, 0, sizeof(tm));
    }

    n = snprintf(buf, cap, "%04d/%02d/%02d %02d:%02d:%02d [%s] %d#0: infer: "
                 "%s%s%s%s", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
                 tm.tm_hour, tm.tm_min, tm.tm_sec, level_names[level],
                 (int) getpid(), log_name[0] != '\0' ? "model " : "",
                 log_name, log_name[0] != '\0' ? ": " : "", text);
    if (n < 0) {
        return 0;
    }

    head = (size_t) n;
    len = head < cap ? head : cap - 1;
    make_printable(buf, len);
    if (len == cap - 1) {
        len--;
    }
    buf[len] = '\n';
    return len + 1;
}


void
wrk_log_reopen(int fd)
{
    assert(fd > STDERR_FILENO);

    (void) dup3(fd, STDERR_FILENO, 0);
    (void) close(fd);
}


void
wrk_log(wrk_log_level_t level, const char *fmt, ...)
{
    int      saved = errno;
    char     text[WRK_LOG_LINE_MAX], line[WRK_LOG_LINE_MAX];
    size_t   len, done;
    ssize_t  n;
    va_list  args;

    if (level >= WRK_LOG_LEVELS
        || (level == WRK_LOG_INFO && !log_verbose))
    {
        return;
    }

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);

    len = wrk_log_format(line, sizeof(line), level, text);

    for (done = 0; done < len; done += (size_t) n) {
        n = write(STDERR_FILENO, line + done, len - done);
        if (n <= 0) {
            break;          /* nobody to tell */
        }
    }

    errno = saved;
}
