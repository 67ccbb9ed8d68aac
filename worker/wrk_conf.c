/*
 * The door for a model's configuration text: one pass over lines, a table of
 * keys, no allocation.
 */

#include "worker/wrk_conf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>


#define AT(field)  offsetof(wrk_conf_t, field)

typedef enum {
    KEY_U32 = 0,
    KEY_U64,
    KEY_TEXT,                       /* max is the size of the field */
    KEY_PATH,                       /* the same, "-" and "off" are empty */
    KEY_PRECISION,
    KEY_KV_TYPE,
    KEY_SPECULATE,
    KEY_CPUS
} key_kind_t;

typedef struct {
    const char  *name;
    key_kind_t   kind;
    size_t       field;
    uint64_t     min;
    uint64_t     max;
    uint64_t     preset;
} conf_key_t;

static const conf_key_t  keys[] = {
    { "name", KEY_TEXT, AT(name), 0, WRK_CONF_NAME_MAX, 0 },
    { "file", KEY_TEXT, AT(file), 0, WRK_CONF_PATH_MAX, 0 },
    { "workers", KEY_U32, AT(workers), 1, 32, 1 },
    { "threads", KEY_U32, AT(threads), 1, 64, 2 },
    { "context", KEY_U32, AT(context), 0, 1 << 20, 0 },
    { "batch", KEY_U32, AT(batch), 1, 65536, 512 },
    { "batch_delay_us", KEY_U32, AT(batch_delay_us), 0, 1000000, 0 },
    { "sequences", KEY_U32, AT(sequences), 1, 1024, 64 },
    { "kv_bytes", KEY_U64, AT(kv_bytes), 0, 1ull << 40, 0 },
    { "prefix_cache", KEY_U32, AT(prefix_cache), 0, 1, 1 },
    { "kv_type", KEY_KV_TYPE, AT(kv_q8), 0, 0, 0 },
    { "speculate", KEY_SPECULATE, AT(speculate), 0, 0, 0 },
    { "queue_requests", KEY_U32, AT(queue_requests), 0, 65536, 256 },
    { "queue_tokens", KEY_U32, AT(queue_tokens), 0, 1 << 30, 65536 },
    { "cache", KEY_PATH, AT(cache), 0, WRK_CONF_PATH_MAX, 0 },
    { "precision", KEY_PRECISION, AT(precision), 0, 0, 0 },
    { "null", KEY_U32, AT(null_engine), 0, 1, 0 },
    { "null_delay_us", KEY_U32, AT(null_delay_us), 0, 60000000, 0 },
    { "null_tokens", KEY_U32, AT(null_tokens), 0, 1000000, 64 },
    { "template", KEY_PATH, AT(template_path), 0, WRK_CONF_PATH_MAX, 0 },
    { "quantize", KEY_PATH, AT(quantize), 0, WRK_CONF_TYPE_MAX, 0 },
    { "nice", KEY_U32, AT(nice), 0, 19, 10 },
    { "spin_us", KEY_U32, AT(spin_us), 0, 1000000, 0 },
    { "affinity", KEY_CPUS, AT(cpus), 0, 0, 0 },
    { "io_uring", KEY_U32, AT(io_uring), 0, 1, 1 },
    { "sandbox", KEY_U32, AT(sandbox), 0, 1, 1 },
    { "stamp", KEY_TEXT, AT(stamp), 0, WRK_CONF_STAMP_MAX, 0 },
};

#define NKEYS  (sizeof(keys) / sizeof(keys[0]))


static void set_defaults(wrk_conf_t *conf);
static int parse_line(wrk_conf_t *conf, const char *line, size_t len,
    uint64_t *seen, char *err);
static int set_value(wrk_conf_t *conf, const conf_key_t *key,
    const char *value, size_t len, char *err);
static int set_cpus(wrk_conf_t *conf, const char *value, size_t len,
    char *err);
static int fail(char *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));


int
wrk_conf_parse(wrk_conf_t *conf, const char *text, size_t len, char *err)
{
    size_t       n;
    uint64_t     seen = 0;
    const char  *end;

    _Static_assert(NKEYS <= 64, "a bit for each key");
    assert(conf != NULL && err != NULL);

    set_defaults(conf);

    if (len > WRK_CONF_TEXT_MAX) {
        return fail(err, "configuration of %zu bytes, the limit is %d", len,
                    WRK_CONF_TEXT_MAX);
    }
    if (memchr(text, '\0', len) != NULL) {
        return fail(err, "configuration with a NUL byte");
    }

    while (len > 0) {
        end = memchr(text, '\n', len);
        n = end != NULL ? (size_t) (end - text) : len;
        if (n > 0 && parse_line(conf, text, n, &seen, err) != 0) {
            return -1;
        }
        if (end == NULL) {
            break;
        }
        text += n + 1;
        len -= n + 1;
    }

    if (conf->name[0] == '\0') {
        return fail(err, "configuration without \"name\"");
    }
    if (conf->file[0] == '\0') {
        return fail(err, "configuration without \"file\"");
    }
    return 0;
}


static void
set_defaults(wrk_conf_t *conf)
{
    size_t  i;

    memset(conf, 0, sizeof(*conf));
    for (i = 0; i < NKEYS; i++) {
        if (keys[i].kind == KEY_U32) {
            *(uint32_t *) ((char *) conf + keys[i].field) =
                (uint32_t) keys[i].preset;
        }
    }
}


static int
parse_line(wrk_conf_t *conf, const char *line, size_t len, uint64_t *seen,
    char *err)
{
    size_t       i, nkey;
    const char  *space;

    space = memchr(line, ' ', len);
    nkey = space != NULL ? (size_t) (space - line) : len;
    if (space == NULL || nkey + 1 == len) {
        return fail(err, "\"%.*s\" has no value",
                    (int) (nkey < 64 ? nkey : 64), line);
    }

    for (i = 0; i < NKEYS; i++) {
        if (strlen(keys[i].name) != nkey
            || memcmp(keys[i].name, line, nkey) != 0)
        {
            continue;
        }
        if (*seen & (1ull << i)) {
            return fail(err, "\"%s\" stands there twice", keys[i].name);
        }
        *seen |= 1ull << i;
        return set_value(conf, &keys[i], space + 1, len - nkey - 1, err);
    }

    return fail(err, "unknown key \"%.*s\": are nginx's module and "
                "nginx-infer-worker of the same version?",
                (int) (nkey < 64 ? nkey : 64), line);
}


/* One of two words: 0 or 1. */
static int
set_word(char *field, const conf_key_t *key, const char *value, size_t len,
    const char *zero, const char *one, char *err)
{
    if (len == strlen(zero) && memcmp(value, zero, len) == 0) {
        *(uint32_t *) field = 0;
    } else if (len == strlen(one) && memcmp(value, one, len) == 0) {
        *(uint32_t *) field = 1;
    } else {
        return fail(err, "%s is \"%s\" or \"%s\"", key->name, zero, one);
    }
    return 0;
}


static int
set_precision(wrk_conf_t *conf, const char *value, size_t len, char *err)
{
    uint32_t            i;
    static const char  *names[WRK_NPRECS] = {
        "default", "exact", "float32", "bfloat16", "int8"
    };

    for (i = 0; i < WRK_NPRECS; i++) {
        if (strlen(names[i]) == len && memcmp(names[i], value, len) == 0) {
            conf->precision = i;
            return 0;
        }
    }

    return fail(err, "precision is \"default\", \"exact\", \"float32\", "
                "\"bfloat16\" or \"int8\"");
}


static int
set_value(wrk_conf_t *conf, const conf_key_t *key, const char *value,
    size_t len, char *err)
{
    char      *field = (char *) conf + key->field;
    uint64_t   n;

    switch (key->kind) {

    case KEY_U32:
    case KEY_U64:
        if (wrk_conf_number(value, len, key->min, key->max, &n) != 0) {
            return fail(err, "%s \"%.*s\" is not a number from %llu to %llu",
                        key->name, (int) (len < 32 ? len : 32), value,
                        (unsigned long long) key->min,
                        (unsigned long long) key->max);
        }
        if (key->kind == KEY_U32) {
            *(uint32_t *) field = (uint32_t) n;
        } else {
            *(uint64_t *) field = n;
        }
        return 0;

    case KEY_PATH:
        if ((len == 1 && value[0] == '-')
            || (len == 3 && memcmp(value, "off", 3) == 0))
        {
            field[0] = '\0';
            return 0;
        }
        /* fall through */

    case KEY_TEXT:
        if (len >= key->max) {
            return fail(err, "%s of %zu bytes, the limit is %llu", key->name,
                        len, (unsigned long long) key->max - 1);
        }
        memcpy(field, value, len);
        field[len] = '\0';
        return 0;

    case KEY_PRECISION:
        return set_precision(conf, value, len, err);

    case KEY_KV_TYPE:
        return set_word(field, key, value, len, "f16", "q8_0", err);

    case KEY_SPECULATE:
        return set_word(field, key, value, len, "off", "prompt_lookup", err);

    case KEY_CPUS:
        return set_cpus(conf, value, len, err);
    }

    return fail(err, "%s cannot be set", key->name);
}


/* One element: "3" or "4-7". */
static int
add_range(wrk_conf_t *conf, const char *p, size_t len)
{
    size_t       n;
    uint64_t     a, b;
    const char  *dash;

    dash = memchr(p, '-', len);
    n = dash != NULL ? (size_t) (dash - p) : len;
    if (wrk_conf_number(p, n, 0, WRK_CONF_CPU_MAX, &a) != 0) {
        return -1;
    }
    b = a;
    if (dash != NULL
        && wrk_conf_number(dash + 1, len - n - 1, a, WRK_CONF_CPU_MAX, &b))
    {
        return -1;
    }

    for ( /* void */ ; a <= b; a++) {
        if (conf->ncpus == WRK_CONF_CPUS_MAX) {
            return -1;
        }
        conf->cpus[conf->ncpus++] = (int) a;
    }
    return 0;
}


static int
set_cpus(wrk_conf_t *conf, const char *value, size_t len, char *err)
{
    size_t       n;
    const char  *p = value, *comma;

    if (len == 1 && value[0] == '-') {
        return 0;
    }

    while (len > 0) {
        comma = memchr(p, ',', len);
        n = comma != NULL ? (size_t) (comma - p) : len;
        if (add_range(conf, p, n) != 0 || (comma != NULL && n + 1 == len)) {
            return fail(err, "affinity is a list of CPUs from 0 to %d, like "
                        "0,2,4-7, of at most %d", WRK_CONF_CPU_MAX,
                        WRK_CONF_CPUS_MAX);
        }
        n += comma != NULL;
        p += n;
        len -= n;
    }
    return 0;
}


int
wrk_conf_number(const char *s, size_t len, uint64_t min, uint64_t max,
    uint64_t *value)
{
    size_t    i;
    uint64_t  n = 0, digit;

    assert(min <= max);

    if (len == 0 || len > 20) {
        return -1;
    }
    for (i = 0; i < len; i++) {
        if (s[i] < '0' || s[i] > '9') {
            return -1;
        }
        digit = (uint64_t) (s[i] - '0');
        if (n > (UINT64_MAX - digit) / 10) {
            return -1;
        }
        n = n * 10 + digit;
    }
    if (n < min || n > max) {
        return -1;
    }
    *value = n;
    return 0;
}


static int
fail(char *err, const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    vsnprintf(err, WRK_CONF_ERR_MAX, fmt, args);
    va_end(args);
    return -1;
}
