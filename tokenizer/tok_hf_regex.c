/*
 * tok_hf_regex.c: patterns of the reference, which runs them with Oniguruma,
 * in PCRE2's language.  What the two understand differently is written out
 * or refused, not guessed.
 *
 * PCRE2 may know an older Unicode than the reference does.  Where a class
 * names a property, characters that have it and that PCRE2 may not know
 * (tok_newer.inc) are written beside the property; one that it does know is
 * then named twice, which changes nothing.
 */

#include "tokenizer/tok_hf.h"

#include <stdio.h>


#define NAME_MAX_BYTES  40u             /* of a property */

typedef struct {
    uint32_t     first, last;
    char         category[3];
    bool         alphabetic;
    const char  *script;                /* "": none that patterns name */
} newer_t;

static const newer_t  newer[] = {
#include "tokenizer/tok_newer.inc"
};


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


static bool
has(const newer_t *c, const char *name)
{
    if (strcmp(name, "L&") == 0) {
        return c->category[0] == 'L' && strchr("ult", c->category[1]) != NULL;
    }
    if (name[1] == '\0' || name[2] == '\0') {
        return memcmp(c->category, name, strlen(name)) == 0;
    }
    if (strcmp(name, "Alphabetic") == 0) {
        return c->alphabetic;
    }
    return strcmp(name, c->script) == 0;
}


/* The newer characters that have a property, as members of a class; whether
 * there are any. */
static bool
emit_newer(translate_t *t, const char *name, size_t len)
{
    bool    any = false;
    char    copy[NAME_MAX_BYTES + 1], range[40];
    size_t  i;

    if (len == 0 || len > NAME_MAX_BYTES) {
        return false;
    }
    memcpy(copy, name, len);
    copy[len] = '\0';
    for (i = 0; i < sizeof(newer) / sizeof(newer[0]); i++) {
        if (has(&newer[i], copy)) {
            emit(t, range, (size_t) snprintf(range, sizeof(range),
                                             "\\x{%x}-\\x{%x}",
                                             newer[i].first, newer[i].last));
            any = true;
        }
    }
    return any;
}


/* Members of a class; every property in them is made whole. */
static void
emit_members(translate_t *t, const char *s)
{
    const char  *end;

    while (*s != '\0') {
        if (strncmp(s, "\\p{", 3) == 0) {
            end = strchr(s, '}');
            assert(end != NULL);
            emit(t, s, (size_t) (end - s) + 1);
            (void) emit_newer(t, s + 3, (size_t) (end - s) - 3);
            s = end + 1;

        } else {
            emit(t, s++, 1);
        }
    }
}


/* \p{NAME} or \P{NAME}; t->at is behind the letter. */
static void
property(translate_t *t, bool inside)
{
    bool         not = t->from.ptr[t->at - 1] == 'P';
    size_t       name = t->at + 1, len;
    const char  *end;

    end = memchr(t->from.ptr + t->at, '}', t->from.len - t->at);
    if (end == NULL) {
        refuse(t, "a property without an end");
        return;
    }
    len = (size_t) (end - t->from.ptr) - name;
    t->at = name + len + 1;
    if (inside && not) {
        /* a class cannot take single members out of it again */
        emit(t, "\\P{", 3);
        emit(t, t->from.ptr + name, len + 1);
        return;
    }
    emit(t, not ? "[^" : "[", inside ? 0 : 1 + (size_t) not);
    emit(t, "\\p{", 3);
    emit(t, t->from.ptr + name, len + 1);
    (void) emit_newer(t, t->from.ptr + name, len);
    emit(t, "]", inside ? 0 : 1);
}


/* Asked of the reference, character by character: six fractions are words. */
#define WORDS  "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}"     \
               "\\x{bc}-\\x{be}"
#define WORD   "[" WORDS "]"

/* As above, for outside of brackets and inside; NULL: refused there. */
static const struct {
    char         c;
    const char  *inside, *outside;
} classes[] = {
    { 's', "\\p{White_Space}", "\\p{White_Space}" },
    { 'S', "\\P{White_Space}", "\\P{White_Space}" },
    { 'd', "\\p{Nd}", "[\\p{Nd}]" },
    { 'D', "\\P{Nd}", "[^\\p{Nd}]" },
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
            emit_members(t, inside ? classes[i].inside : classes[i].outside);
            return;
        }
    }
    if ((c == 'p' || c == 'P') && t->at < n && t->from.ptr[t->at] == '{') {
        property(t, inside);
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
