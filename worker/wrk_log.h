/*
 * Log lines of the pool: to standard error, which is nginx's error log, in
 * nginx's own shape.  One line is one write(2), so that lines of several
 * processes never mix.  Bytes that are no printable ASCII or UTF-8 are
 * replaced: texts of files and of other processes may be part of a line.
 *
 * Used by the supervisor and the inference workers, one thread each.
 */

#ifndef WRK_LOG_H
#define WRK_LOG_H

#include <stddef.h>


#define WRK_LOG_LINE_MAX    2048    /* longer lines are cut */
#define WRK_LOG_NAME_MAX    64

typedef enum {
    WRK_LOG_ALERT = 0,
    WRK_LOG_ERROR,
    WRK_LOG_WARN,
    WRK_LOG_NOTICE,
    WRK_LOG_INFO,                   /* written with --verbose only */
    WRK_LOG_LEVELS
} wrk_log_level_t;


/* Names the model in all lines that follow; NULL or "" takes the name away. */
void wrk_log_name(const char *name);

/* 1: WRK_LOG_INFO lines are written too. */
void wrk_log_verbose(int on);

/* Lines go to this descriptor from now on; it is closed. */
void wrk_log_reopen(int fd);

/* Writes one line.  errno is kept. */
void wrk_log(wrk_log_level_t level, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* The same into memory (cap bytes at most, ends with '\n', no NUL is counted):
 * for tests.  Returns the length. */
size_t wrk_log_format(char *buf, size_t cap, wrk_log_level_t level,
    const char *text);


#endif /* WRK_LOG_H */
