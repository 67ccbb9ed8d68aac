/*
 * tok_hf_util.c: members of objects, sequences of components, patterns.
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


/* --- patterns ---------------------------------------------------------- */

typedef struct {
    tok_hf_t   *f;
    tok_str_t   from;
    size_t      at;
    tok_vec_t   out;
    int         rc;
} translate_t;


static void
emit(translate_t *t, const char *s, size_t n)
{
    if (t->rc == 0 && tok_vec_room(&t->out, n, 1) != 0) {
        t->rc = tok_json_fail(t->f->j, TOK_E_NOMEM, "no memory");
    }
    if (t->rc == 0) {
        memcpy((char *) t->out.ptr + t->out.n, s, n);
        t->out.n += n;
    }
}


static void
refuse(translate_t *t, const char *what)
{
    if (t->rc == 0) {
        t->rc = tok_fail(t->f->b->err, TOK_E_UNSUPPORTED, "%s: pattern "
                         "\"%.*s\": %s at byte %zu is not known",
                         t->f->j->name, (int) (t->from.len < 80 ? t->from.len
                         : 80), t->from.ptr, what, t->at);
    }
}


/* Asked of the reference, character by character: six fractions are words. */
#define WORDS  "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}"     \
               "\\x{bc}-\\x{be}"
#define WORD   "[" WORDS "]"

/* What the two engines understand differently, written out. */
static const struct {
    char         c;
    const char  *inside, *outside;
}  classes[] = {
    { 's', "\\p{White_Space}", "\\p{White_Space}" },
    { 'S', "\\P{White_Space}", "\\P{White_Space}" },
    { 'd', "\\p{Nd}", "\\p{Nd}" },
    { 'D', "\\P{Nd}", "\\P{Nd}" },
    { 'w', WORDS, WORD },
    { 'W', NULL, "[^" WORDS "]" },
    { 'b', NULL, "(?:(?<=" WORD ")(?!" WORD ")|(?<!" WORD ")(?=" WORD "))" },
    { 'B', NULL, "(?:(?<=" WORD ")(?=" WORD ")|(?<!" WORD ")(?!" WORD "))" },
    { 'h', "0-9a-fA-F", "[0-9a-fA-F]" },
    { 'v', "\\x0b", "\\x0b" }
};


static void
escape(translate_t *t, bool inside)
{
    size_t  i, n = t->from.len, from = t->at;
    char    c;

    if (t->at + 1 >= n) {
        refuse(t, "a lone backslash");
        return;
    }
    c = t->from.ptr[t->at + 1];
    t->at += 2;
    for (i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        if (classes[i].c == c) {
            if (inside && classes[i].inside == NULL) {
                refuse(t, "an escape in brackets");
                return;
            }
            emit(t, inside ? classes[i].inside : classes[i].outside,
                 strlen(inside ? classes[i].inside : classes[i].outside));
            return;
        }
    }
    if ((c == 'p' || c == 'P') && t->at < n && t->from.ptr[t->at] == '{') {
        while (t->at < n && t->from.ptr[t->at] != '}') {
            t->at++;
        }
        t->at += t->at < n;
        emit(t, t->from.ptr + from, t->at - from);
        return;
    }
    if (c == 'u' && n - t->at >= 4) {
        emit(t, "\\x{", 3);
        emit(t, t->from.ptr + t->at, 4);
        emit(t, "}", 1);
        t->at += 4;
        return;
    }
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z')
        || (c >= 'A' && c <= 'Z') || (c & 0x80))
    {
        if (strchr(inside ? "nrtfaex" : "nrtfaexAz", c) == NULL) {
            refuse(t, "an escape");
            return;
        }
    }
    emit(t, t->from.ptr + from, 2);
}


/*
 * "[" or "]" of a set inside another: their union, which is the outer set
 * with the inner one's members, unless a "-" would become a range.
 */
static bool
plain_border(const translate_t *t)
{
    const char  *p = t->from.ptr + t->at;
    size_t       left = t->from.len - t->at;

    return left > 1 && strchr(*p == '[' ? "-^:]&" : "-&", p[1]) == NULL
           && p[-1] != '-';
}


static void
brackets(translate_t *t)
{
    size_t  n = t->from.len, depth = 1;
    char    c;

    emit(t, "[", 1);
    t->at++;
    if (t->at < n && t->from.ptr[t->at] == '^') {
        emit(t, "^", 1);
        t->at++;
    }
    if (t->at < n && t->from.ptr[t->at] == ']') {
        refuse(t, "an empty bracket");
    }
    while (t->rc == 0) {
        if (t->at >= n) {
            refuse(t, "an open bracket");
            return;
        }
        c = t->from.ptr[t->at];
        if (c == '\\') {
            escape(t, true);
            continue;
        }
        if ((c == '[' && !plain_border(t))
            || (c == ']' && depth > 1 && !plain_border(t))
            || (c == '&' && t->at + 1 < n && t->from.ptr[t->at + 1] == '&'))
        {
            refuse(t, "a set inside brackets");
            return;
        }
        depth += c == '[';
        depth -= c == ']';
        if (c != '[' && (c != ']' || depth == 0)) {
            emit(t, &c, 1);
        }
        t->at++;
        if (depth == 0) {
            return;
        }
    }
}


/* (? and what follows; only what means the same to both engines. */
static void
group(translate_t *t)
{
    static const char *const  same[] = {
        "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?i)", "(?-i:"
    };
    size_t  i, n;

    for (i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
        n = strlen(same[i]);
        if (t->from.len - t->at >= n
            && memcmp(t->from.ptr + t->at, same[i], n) == 0)
        {
            emit(t, same[i], n);
            t->at += n;
            return;
        }
    }
    refuse(t, "a group option");
}


int
tok_hf_translate(tok_hf_t *f, tok_str_t from, tok_ref_t *ref)
{
    translate_t  t = { .f = f, .from = from };
    char         c;

    if (from.len > TOK_PATTERN_BYTES_MAX) {
        return tok_fail(f->b->err, TOK_E_LIMIT, "%s: a pattern of %zu bytes, "
                        "the limit is %u", f->j->name, from.len,
                        TOK_PATTERN_BYTES_MAX);
    }
    emit(&t, "(?m)", 4);            /* ^ and $ know lines there */
    while (t.rc == 0 && t.at < from.len) {
        c = from.ptr[t.at];
        if (c == '\\') {
            escape(&t, false);

        } else if (c == '[') {
            brackets(&t);

        } else if (c == '(' && t.at + 1 < from.len
                   && from.ptr[t.at + 1] == '?')
        {
            group(&t);

        } else if (c == '}' && t.at + 1 < from.len
                   && from.ptr[t.at + 1] == '+')
        {
            refuse(&t, "a plus behind braces");

        } else {
            emit(&t, &c, 1);
            t.at++;
        }
    }
    if (t.rc == 0) {
        t.rc = tok_build_string(f->b, t.out.ptr, t.out.n, ref);
    }
    tok_vec_free(&t.out);
    return t.rc;
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
