/*
 * config.json: see eng_cfg.h.
 */
#include <stdlib.h>
#include <string.h>

#include "tokenizer/tok_json.h"
#include "worker/engine/eng_cfg.h"
#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_gguf.h"
#include "worker/engine/eng_io.h"

typedef struct {
    tok_json_t   j;
    tok_err_t    te;
    const char  *path;
    eng_err_t   *err;
} ask_t;


static int
check(eng_cfg_t *c, eng_err_t *err)
{
    int         rc;
    tok_err_t   te;
    tok_json_t  j;

    if (tok_json_init(&j, c->text, c->len, c->name, &te) != 0
        || (tok_json_peek(&j) != '{'
            && tok_json_fail(&j, TOK_E_FORMAT, "an object is expected") != 0)
        || tok_json_skip(&j) != 0
        || (tok_json_peek(&j) != 0
            && tok_json_fail(&j, TOK_E_FORMAT, "bytes behind the object")
               != 0))
    {
        rc = eng_fail(err, ENG_EFORMAT, "%s", te.msg);
        tok_json_free(&j);
        eng_cfg_close(c);
        return rc;
    }
    tok_json_free(&j);

    return ENG_OK;
}


int
eng_cfg_open(eng_cfg_t *c, const char *folder, const char *file,
    eng_err_t *err)
{
    int   rc;
    char  path[ENG_IO_PATH_MAX];

    memset(c, 0, sizeof(*c));
    rc = eng_io_join(path, folder, file, err);
    if (rc == 0) {
        rc = eng_io_text(path, ENG_CFG_BYTES_MAX, &c->text, &c->len, err);
    }
    if (rc != 0) {
        return rc;
    }
    c->name = strdup(path);
    if (c->name == NULL) {
        eng_cfg_close(c);
        return eng_fail(err, ENG_ENOMEM, "%s: no memory", path);
    }

    return check(c, err);
}


int
eng_cfg_parse(eng_cfg_t *c, const char *name, const char *text, uint64_t len,
    eng_err_t *err)
{
    memset(c, 0, sizeof(*c));
    if (len > ENG_CFG_BYTES_MAX) {
        return eng_fail(err, ENG_ELIMIT, "%s: %llu bytes, at most %u are read",
                        name, (unsigned long long) len, ENG_CFG_BYTES_MAX);
    }
    c->name = strdup(name);
    c->text = malloc(len + 1);
    if (c->name == NULL || c->text == NULL) {
        eng_cfg_close(c);
        return eng_fail(err, ENG_ENOMEM, "%s: no memory", name);
    }
    memcpy(c->text, text, len);
    c->text[len] = '\0';
    c->len = len;

    return check(c, err);
}


void
eng_cfg_close(eng_cfg_t *c)
{
    free(c->name);
    free(c->text);
    memset(c, 0, sizeof(*c));
}


/* ---- where a value stands ----------------------------------------------- */

/* In the object at j: on to the value of the last member of that name. */
static int
member(tok_json_t *j, const char *name, size_t len)
{
    int             found = 0;
    bool            first = true;
    tok_str_t       key;
    const uint8_t  *at = NULL;

    if (tok_json_peek(j) != '{' || tok_json_open(j, '{') != 0) {
        return 0;
    }
    /* well formed: checked when it was opened */
    while (tok_json_next(j, '{', &first) == 1
           && tok_json_string(j, &key) == 0)
    {
        int  same = key.len == len && memcmp(key.ptr, name, len) == 0;

        if (tok_json_colon(j) != 0) {
            return 0;
        }
        (void) tok_json_peek(j);
        if (same) {
            at = j->p;
            found = 1;
        }
        if (tok_json_skip(j) != 0) {
            return 0;
        }
    }
    if (found) {
        j->p = at;
    }

    return found;
}


/* 1: j stands at the value, which is not null. */
static int
find(ask_t *a, const eng_cfg_t *c, const char *path, eng_err_t *err)
{
    const char  *dot;

    a->path = path;
    a->err = err;
    if (tok_json_init(&a->j, c->text, c->len, c->name, &a->te) != 0) {
        return 0;
    }
    for ( ;; ) {
        dot = strchr(path, '.');
        if (!member(&a->j, path, dot != NULL ? (size_t) (dot - path)
                                             : strlen(path)))
        {
            return 0;
        }
        if (dot == NULL) {
            return !tok_json_null(&a->j);
        }
        path = dot + 1;
    }
}


static int
wrong(ask_t *a, const char *what)
{
    return eng_fail(a->err, ENG_EFORMAT, "%s: \"%s\" must be %s", a->j.name,
                    a->path, what);
}


int
eng_cfg_has(const eng_cfg_t *c, const char *path)
{
    ask_t  a;
    int    rc = find(&a, c, path, NULL);

    tok_json_free(&a.j);

    return rc;
}


/* ---- values ------------------------------------------------------------- */

static int
read_u32(ask_t *a, uint32_t min, uint32_t max, uint32_t *out)
{
    double  v;

    if (tok_json_double(&a->j, &v) != 0) {
        return wrong(a, "a number");
    }
    if (!(v >= min && v <= max) || v != (double) (uint32_t) v) {
        return eng_fail(a->err, ENG_ELIMIT, "%s: \"%s\" is %.15g, allowed are "
                        "whole numbers from %u to %u", a->j.name, a->path, v,
                        min, max);
    }
    *out = (uint32_t) v;

    return 1;
}


int
eng_cfg_u32(const eng_cfg_t *c, const char *path, uint32_t min, uint32_t max,
    uint32_t *out, eng_err_t *err)
{
    ask_t  a;
    int    rc = find(&a, c, path, err);

    if (rc == 1) {
        rc = read_u32(&a, min, max, out);
    }
    tok_json_free(&a.j);

    return rc;
}


int
eng_cfg_f32(const eng_cfg_t *c, const char *path, double min, double max,
    float *out, eng_err_t *err)
{
    ask_t   a;
    int     rc = find(&a, c, path, err);
    double  v;

    if (rc == 1 && tok_json_double(&a.j, &v) != 0) {
        rc = wrong(&a, "a number");
    }
    if (rc == 1 && !(v >= min && v <= max)) {
        rc = eng_fail(err, ENG_ELIMIT, "%s: \"%s\" is %g, allowed are %g to "
                      "%g", c->name, path, v, min, max);
    }
    if (rc == 1) {
        *out = (float) v;
    }
    tok_json_free(&a.j);

    return rc;
}


int
eng_cfg_bool(const eng_cfg_t *c, const char *path, int *out, eng_err_t *err)
{
    ask_t  a;
    int    rc = find(&a, c, path, err);
    bool   v;

    if (rc == 1 && tok_json_bool(&a.j, &v) != 0) {
        rc = wrong(&a, "true or false");
    }
    if (rc == 1) {
        *out = v;
    }
    tok_json_free(&a.j);

    return rc;
}


static int
read_text(ask_t *a, char *dst, size_t cap)
{
    tok_str_t  s;

    if (tok_json_string(&a->j, &s) != 0) {
        return wrong(a, "a string");
    }
    eng_str_print((eng_str_t) { s.ptr, (uint32_t) s.len }, dst, cap);

    return 1;
}


int
eng_cfg_text(const eng_cfg_t *c, const char *path, char *dst, size_t cap,
    eng_err_t *err)
{
    ask_t  a;
    int    rc = find(&a, c, path, err);

    if (rc == 1) {
        rc = read_text(&a, dst, cap);
    }
    tok_json_free(&a.j);

    return rc;
}


/* As much as fits, but no part of a character. */
static void
copy_name(tok_str_t s, char *dst, size_t cap)
{
    size_t  i, n = s.len < cap ? s.len : cap - 1;

    while (n > 0 && n < s.len && ((uint8_t) s.ptr[n] & 0xc0) == 0x80) {
        n--;
    }
    for (i = 0; i < n; i++) {
        dst[i] = (uint8_t) s.ptr[i] < 0x20 || s.ptr[i] == 0x7f ? '?'
                                                               : s.ptr[i];
    }
    dst[n] = '\0';
}


int
eng_cfg_name(const eng_cfg_t *c, const char *path, char *dst, size_t cap,
    eng_err_t *err)
{
    ask_t      a;
    int        rc = find(&a, c, path, err);
    tok_str_t  s;

    if (rc == 1 && tok_json_string(&a.j, &s) != 0) {
        rc = wrong(&a, "a string");
    } else if (rc == 1) {
        copy_name(s, dst, cap);
    }
    tok_json_free(&a.j);

    return rc;
}


int
eng_cfg_list(const eng_cfg_t *c, const char *path, uint32_t *out,
    uint32_t cap, uint32_t *n, eng_err_t *err)
{
    int       rc;
    bool      first = true;
    ask_t     a;
    uint32_t  v;

    *n = 0;
    rc = find(&a, c, path, err);
    if (rc == 1 && tok_json_peek(&a.j) != '[') {
        rc = read_u32(&a, 0, UINT32_MAX, &out[0]);
        *n = rc == 1;
    } else if (rc == 1) {
        (void) tok_json_open(&a.j, '[');
        while (rc == 1 && tok_json_next(&a.j, '[', &first) == 1) {
            rc = read_u32(&a, 0, UINT32_MAX, &v);
            if (rc == 1 && *n < cap) {
                out[(*n)++] = v;
            }
        }
    }
    tok_json_free(&a.j);

    return rc;
}


/* 1: a stands at the i-th element of the array at path. */
static int
find_item(ask_t *a, const eng_cfg_t *c, const char *path, uint32_t i,
    eng_err_t *err)
{
    int       rc;
    bool      first = true;
    uint32_t  k;

    rc = find(a, c, path, err);
    if (rc != 1) {
        return rc;
    }
    if (tok_json_peek(&a->j) != '[') {
        return wrong(a, "an array");
    }
    (void) tok_json_open(&a->j, '[');
    for (k = 0; tok_json_next(&a->j, '[', &first) == 1; k++) {
        if (k == i) {
            (void) tok_json_peek(&a->j);
            return 1;
        }
        if (tok_json_skip(&a->j) != 0) {
            break;
        }
    }

    return 0;
}


int
eng_cfg_item(const eng_cfg_t *c, const char *path, uint32_t i, char *dst,
    size_t cap, eng_err_t *err)
{
    ask_t  a;
    int    rc = find_item(&a, c, path, i, err);

    if (rc == 1) {
        rc = read_text(&a, dst, cap);
    }
    tok_json_free(&a.j);

    return rc;
}


int
eng_cfg_number(const eng_cfg_t *c, const char *path, uint32_t i, double *out,
    eng_err_t *err)
{
    ask_t  a;
    int    rc = find_item(&a, c, path, i, err);

    if (rc == 1 && tok_json_double(&a.j, out) != 0) {
        rc = wrong(&a, "an array of numbers");
    }
    tok_json_free(&a.j);

    return rc;
}
