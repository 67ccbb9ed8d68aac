/*
 * tok_hf_util.c: members of objects, sequences of components.
 */

#include "tokenizer/tok_hf.h"


bool
tok_hf_is(tok_str_t s, const char *name)
{
    return s.len == strlen(name) && memcmp(s.ptr, name, s.len) == 0;
}


int
tok_hf_unknown(tok_hf_t *f, const char *what, tok_str_t name)
{
    return tok_fail(f->b->err, TOK_E_UNSUPPORTED, "%s: %s \"%.*s\" is not "
                    "known", f->j->name, what,
                    (int) (name.len < 100 ? name.len : 100), name.ptr);
}


static int
missing(tok_hf_t *f, const char *key)
{
    return tok_fail(f->b->err, TOK_E_FORMAT, "%s: \"%s\" is missing (in the "
                    "object before byte %zu)", f->j->name, key,
                    (size_t) (f->j->p - f->j->start));
}


int
tok_hf_type(tok_hf_t *f, const tok_members_t *m, tok_str_t *type)
{
    const uint8_t  *at;
    int             rc;

    if (!tok_json_at(f->j, m, "type")) {
        return missing(f, "type");
    }
    at = f->j->p;
    rc = tok_json_string(f->j, type);
    /* No type has an escape; the span must outlive the next string. */
    if (rc == 0 && (type->ptr < (const char *) at
                    || type->ptr > (const char *) f->j->end))
    {
        return tok_json_fail(f->j, TOK_E_UNSUPPORTED, "a type with escapes");
    }
    return rc;
}


int
tok_hf_text(tok_hf_t *f, const tok_members_t *m, const char *key,
    tok_ref_t *ref)
{
    tok_str_t  s;
    int        rc;

    if (!tok_json_at(f->j, m, key)) {
        return missing(f, key);
    }
    rc = tok_json_string(f->j, &s);
    return rc == 0 ? tok_build_string(f->b, s.ptr, s.len, ref) : rc;
}


int
tok_hf_flag(tok_hf_t *f, const tok_members_t *m, const char *key,
    int otherwise, bool *v)
{
    if (!tok_json_at(f->j, m, key)) {
        if (otherwise < 0) {
            return missing(f, key);
        }
        *v = otherwise;
        return 0;
    }
    return tok_json_bool(f->j, v);
}


int
tok_hf_number(tok_hf_t *f, const tok_members_t *m, const char *key,
    uint32_t max, uint32_t *v)
{
    int  rc;

    if (!tok_json_at(f->j, m, key)) {
        return missing(f, key);
    }
    rc = tok_json_u32(f->j, v);
    if (rc == 0 && *v > max) {
        return tok_fail(f->b->err, TOK_E_LIMIT, "%s: \"%s\" is %u, the limit "
                        "is %u", f->j->name, key, *v, max);
    }
    return rc;
}


/* A string of exactly one character. */
int
tok_hf_char(tok_hf_t *f, const tok_members_t *m, const char *key,
    uint32_t *c, tok_ref_t *ref)
{
    tok_str_t  s;
    size_t     n = 0;
    int        rc;

    if (!tok_json_at(f->j, m, key)) {
        return missing(f, key);
    }
    rc = tok_json_string(f->j, &s);
    if (rc != 0) {
        return rc;
    }
    if (s.len > 0) {
        n = tok_utf8_size((uint8_t) s.ptr[0]);
    }
    if (s.len == 0 || n != s.len) {
        return tok_json_fail(f->j, TOK_E_FORMAT, "one character is expected");
    }
    *c = tok_utf8_get((const uint8_t *) s.ptr, &n);
    return tok_build_string(f->b, s.ptr, s.len, ref);
}


/* --- sequences --------------------------------------------------------- */

/* The open arrays of nested sequences. */
typedef struct {
    const uint8_t  *at;
    bool            first;
} level_t;

#define LEVELS_MAX  16

static int
enter(tok_hf_t *f, const tok_members_t *m, const char *list, level_t *levels,
    size_t *n)
{
    int  rc;

    if (*n == LEVELS_MAX) {
        return tok_json_fail(f->j, TOK_E_LIMIT, "sequences nested deeper than "
                             "16");
    }
    if (!tok_json_at(f->j, m, list)) {
        return missing(f, list);
    }
    rc = tok_json_open(f->j, '[');
    levels[*n].at = f->j->p;
    levels[*n].first = true;
    (*n)++;
    return rc;
}


int
tok_hf_walk(tok_hf_t *f, const char *list, tok_hf_fn fn)
{
    level_t        levels[LEVELS_MAX];
    tok_members_t  m;
    tok_str_t      type;
    const uint8_t *after;
    size_t         n = 0;
    int            rc;

    if (tok_json_null(f->j)) {
        return 0;
    }
    do {
        if (n) {
            f->j->p = levels[n - 1].at;
            rc = tok_json_next(f->j, '[', &levels[n - 1].first);
            if (rc < 0) {
                return rc;
            }
            if (rc == 0) {
                n--;
                continue;
            }
        }
        rc = tok_json_members(f->j, &m);
        after = f->j->p;
        if (n) {
            levels[n - 1].at = after;
        }
        if (rc == 0) {
            rc = tok_hf_type(f, &m, &type);
        }
        if (rc == 0) {
            rc = tok_hf_is(type, "Sequence") ? enter(f, &m, list, levels, &n)
                 : fn(f, &m, type);
        }
        if (rc != 0) {
            return rc;
        }
    } while (n);
    return 0;
}


int
tok_hf_pattern(tok_hf_t *f, const tok_members_t *m, tok_op_t *op,
    uint16_t string_type, uint16_t regex_type, tok_str_t *raw)
{
    tok_members_t  p;
    tok_str_t      s;
    int            rc;

    if (!tok_json_at(f->j, m, "pattern")) {
        return missing(f, "pattern");
    }
    rc = tok_json_members(f->j, &p);
    if (rc != 0) {
        return rc;
    }
    if (p.n == 1 && tok_json_at(f->j, &p, "String")) {
        op->type = string_type;
        rc = tok_json_string(f->j, &s);
        if (rc == 0 && s.len == 0) {
            return tok_json_fail(f->j, TOK_E_UNSUPPORTED, "an empty pattern");
        }
        return rc == 0 ? tok_build_string(f->b, s.ptr, s.len, &op->s) : rc;
    }
    if (p.n == 1 && tok_json_at(f->j, &p, "Regex")) {
        op->type = regex_type;
        rc = tok_json_string(f->j, &s);
        if (rc == 0 && raw != NULL) {
            /* A pattern that a scanner knows is not translated. */
            *raw = s;
            return 0;
        }
        return rc == 0 ? tok_hf_translate(f, s, &op->s) : rc;
    }
    return tok_json_fail(f->j, TOK_E_UNSUPPORTED, "a pattern that is neither "
                         "String nor Regex");
}
