/*
 * tok_json.c: see tok_json.h.
 */

#include "tokenizer/tok_json.h"
#include "tokenizer/tok_pow10.inc"

#include <math.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif


int
tok_json_init(tok_json_t *j, const char *text, size_t len, const char *name,
    tok_err_t *err)
{
    size_t  at;

    memset(j, 0, sizeof(*j));
    j->start = j->p = (const uint8_t *) text;
    j->end = j->start + len;
    j->name = name;
    j->err = err;
    at = tok_utf8_check(j->start, len);
    if (at != len) {
        return tok_fail(err, TOK_E_FORMAT, "%s: not UTF-8 at byte %zu", name,
                        at);
    }
    return 0;
}


void
tok_json_free(tok_json_t *j)
{
    tok_vec_free(&j->text);
    tok_vec_free(&j->key);
}


int
tok_json_fail(tok_json_t *j, int code, const char *what)
{
    const uint8_t  *p;
    size_t          line = 1;

    for (p = j->start; p < j->p && p < j->end; p++) {
        line += *p == '\n';
    }
    return tok_fail(j->err, code, "%s: %s (line %zu, byte %zu)", j->name,
                    what, line, (size_t) (j->p - j->start));
}


static inline bool
is_white(uint8_t c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}


/* Files are often indented: more bytes of white space than of anything. */
static inline void
white(tok_json_t *j)
{
    const uint8_t  *p = j->p, *end = j->end;

    if (p < end && *p > ' ') {
        return;
    }
#ifdef __SSE2__
    while (end - p >= 16) {
        __m128i   v = _mm_loadu_si128((const __m128i *) p);
        __m128i   w = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8(' ')),
                                   _mm_cmpeq_epi8(v, _mm_set1_epi8('\n')));
        unsigned  other = 0xffffu ^ (unsigned) _mm_movemask_epi8(w);

        if (other) {
            p += __builtin_ctz(other);
            if (*p > ' ') {
                j->p = p;
                return;
            }
            break;                  /* a tab, a carriage return, or an error */
        }
        p += 16;
    }
#endif
    while (p < end && is_white(*p)) {
        p++;
    }
    j->p = p;
}


uint8_t
tok_json_peek(tok_json_t *j)
{
    white(j);
    return j->p < j->end ? *j->p : 0;
}


/* --- strings ----------------------------------------------------------- */

/* From p to the quote, backslash or control character that ends plain text. */
static const uint8_t *
plain_end(const uint8_t *p, const uint8_t *end)
{
    const uint64_t  ones = 0x0101010101010101ull, high = ones * 0x80;
    uint64_t        v, q, b, c;

#ifdef __SSE2__
    while (end - p >= 16) {
        __m128i   x = _mm_loadu_si128((const __m128i *) p);
        __m128i   e = _mm_or_si128(_mm_cmpeq_epi8(x, _mm_set1_epi8('"')),
                                   _mm_cmpeq_epi8(x, _mm_set1_epi8('\\')));
        unsigned  stop;

        e = _mm_or_si128(e, _mm_cmpeq_epi8(_mm_max_epu8(x,
                         _mm_set1_epi8(0x1f)), _mm_set1_epi8(0x1f)));
        stop = (unsigned) _mm_movemask_epi8(e);
        if (stop) {
            return p + __builtin_ctz(stop);
        }
        p += 16;
    }
#endif
    while (end - p >= 8) {
        v = tok_load64(p);
        q = v ^ (ones * '"');
        b = v ^ (ones * '\\');
        c = (v - ones * 0x20) & ~v;
        if ((((q - ones) & ~q) | ((b - ones) & ~b) | c) & high) {
            break;
        }
        p += 8;
    }
    while (p < end && *p != '"' && *p != '\\' && *p >= 0x20) {
        p++;
    }
    return p;
}


static int
hex4(tok_json_t *j, uint32_t *v)
{
    uint8_t  c;
    int      i;

    *v = 0;
    if (j->end - j->p < 4) {
        return tok_json_fail(j, TOK_E_FORMAT, "the text ends in an escape");
    }
    for (i = 0; i < 4; i++) {
        c = *j->p++;
        if (c >= '0' && c <= '9') {
            c = (uint8_t) (c - '0');

        } else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
            c = (uint8_t) ((c | 0x20) - 'a' + 10);

        } else {
            return tok_json_fail(j, TOK_E_FORMAT, "\\u needs four hex "
                                 "digits");
        }
        *v = *v << 4 | c;
    }
    return 0;
}


/* One escape, behind its backslash; a code point, or an error. */
static int
escape(tok_json_t *j, uint32_t *out)
{
    static const char  from[] = "\"\\/bfnrt";
    static const char  to[] = "\"\\/\b\f\n\r\t";
    const char        *at;
    uint32_t           low;
    uint8_t            c;
    int                rc;

    if (j->p == j->end) {
        return tok_json_fail(j, TOK_E_FORMAT, "the text ends in an escape");
    }
    c = *j->p++;
    if (c != 'u') {
        at = c ? strchr(from, c) : NULL;
        if (at == NULL) {
            return tok_json_fail(j, TOK_E_FORMAT, "unknown escape");
        }
        *out = (uint8_t) to[at - from];
        return 0;
    }
    rc = hex4(j, out);
    if (rc != 0 || *out < 0xd800 || *out > 0xdfff) {
        return rc;
    }
    if (*out > 0xdbff || j->end - j->p < 6 || j->p[0] != '\\'
        || j->p[1] != 'u')
    {
        return tok_json_fail(j, TOK_E_FORMAT, "a lone surrogate");
    }
    j->p += 2;
    rc = hex4(j, &low);
    if (rc == 0 && (low < 0xdc00 || low > 0xdfff)) {
        return tok_json_fail(j, TOK_E_FORMAT, "a lone surrogate");
    }
    *out = 0x10000 + ((*out - 0xd800) << 10) + (low - 0xdc00);
    return rc;
}


static int
escaped_string(tok_json_t *j, const uint8_t *begin, tok_str_t *s)
{
    const uint8_t  *q = begin;
    uint32_t        c;
    size_t          n;
    int             rc;

    j->text.n = 0;
    for (;;) {
        n = (size_t) (j->p - q);
        if (tok_vec_room(&j->text, n + 8, 1) != 0) {
            return tok_json_fail(j, TOK_E_NOMEM, "no memory");
        }
        memcpy((uint8_t *) j->text.ptr + j->text.n, q, n);
        j->text.n += n;
        if (j->p == j->end || *j->p < 0x20) {
            return tok_json_fail(j, TOK_E_FORMAT, "a string does not end");
        }
        if (*j->p++ == '"') {
            break;
        }
        rc = escape(j, &c);
        if (rc != 0) {
            return rc;
        }
        j->text.n += tok_utf8_put((uint8_t *) j->text.ptr + j->text.n, c);
        q = j->p;
        j->p = plain_end(j->p, j->end);
    }
    s->ptr = j->text.ptr;
    s->len = j->text.n;
    return 0;
}


int
tok_json_string(tok_json_t *j, tok_str_t *s)
{
    const uint8_t  *begin;

    if (tok_json_peek(j) != '"') {
        return tok_json_fail(j, TOK_E_FORMAT, "a string is expected");
    }
    begin = ++j->p;
    j->p = plain_end(j->p, j->end);
    if (j->p < j->end && *j->p == '"') {
        s->ptr = (const char *) begin;
        s->len = (size_t) (j->p - begin);
        j->p++;
        return 0;
    }
    return escaped_string(j, begin, s);
}


void
tok_json_gap_set(tok_gap_t *g, const uint8_t *from, const uint8_t *to)
{
    size_t  n = from == NULL ? 0 : (size_t) (to - from);

    memset(g, 0, sizeof(*g));
    if (n > 0 && n <= TOK_GAP_MAX) {
        memcpy(g->text, from, n);
        g->len = (uint32_t) n;
    }
}


bool
tok_json_gap(tok_json_t *j, const tok_gap_t *g)
{
    const uint8_t  *p = j->p;

    if (g->len == 0 || (size_t) (j->end - p) < TOK_GAP_MAX) {
        return false;
    }
#ifdef __SSE2__
    __m128i   a = _mm_loadu_si128((const __m128i *) p);
    __m128i   b = _mm_loadu_si128((const __m128i *) (p + 16));
    uint32_t  same;

    a = _mm_cmpeq_epi8(a, _mm_loadu_si128((const __m128i *) g->text));
    b = _mm_cmpeq_epi8(b, _mm_loadu_si128((const __m128i *) (g->text + 16)));
    same = (uint32_t) _mm_movemask_epi8(a)
           | (uint32_t) _mm_movemask_epi8(b) << 16;
    if (~same << (32 - g->len)) {
        return false;
    }
#else
    if (memcmp(p, g->text, g->len) != 0) {
        return false;
    }
#endif
    j->p = p + g->len;
    return true;
}


bool
tok_json_plain(tok_json_t *j, tok_str_t *s)
{
    const uint8_t  *begin = j->p;

    j->p = plain_end(j->p, j->end);
    s->ptr = (const char *) begin;
    s->len = (size_t) (j->p - begin);
    return j->p < j->end && *j->p == '"';
}


/* --- numbers and words ------------------------------------------------- */

static bool
digits(tok_json_t *j)
{
    const uint8_t  *p = j->p;

    while (j->p < j->end && *j->p >= '0' && *j->p <= '9') {
        j->p++;
    }
    return j->p > p;
}


static int
number(tok_json_t *j)
{
    if (j->p < j->end && *j->p == '-') {
        j->p++;
    }
    if (j->p < j->end && *j->p == '0') {
        j->p++;

    } else if (!digits(j)) {
        return tok_json_fail(j, TOK_E_FORMAT, "a value is expected");
    }
    if (j->p < j->end && *j->p == '.') {
        j->p++;
        if (!digits(j)) {
            return tok_json_fail(j, TOK_E_FORMAT, "a number without digits");
        }
    }
    if (j->p < j->end && (*j->p | 0x20) == 'e') {
        j->p++;
        if (j->p < j->end && (*j->p == '+' || *j->p == '-')) {
            j->p++;
        }
        if (!digits(j)) {
            return tok_json_fail(j, TOK_E_FORMAT, "a number without digits");
        }
    }
    return 0;
}


static bool
word(tok_json_t *j, const char *w)
{
    size_t  n = strlen(w);

    if ((size_t) (j->end - j->p) < n || memcmp(j->p, w, n) != 0) {
        return false;
    }
    j->p += n;
    return true;
}


int
tok_json_u32(tok_json_t *j, uint32_t *v)
{
    const uint8_t  *p;
    uint64_t        x = 0;
    int             rc;

    white(j);
    p = j->p;
    if (j->end - p > 8 && *p >= '1' && *p <= '9') {
        /* Nearly all: a few digits, then a comma, a bracket or white space. */
        do {
            x = x * 10 + (uint64_t) (*p++ - '0');
        } while (p - j->p < 8 && *p >= '0' && *p <= '9');
        if (*p == ',' || *p == ']' || *p == '}' || is_white(*p)) {
            j->p = p;
            *v = (uint32_t) x;
            return 0;
        }
        x = 0;
        p = j->p;
    }
    rc = number(j);
    if (rc != 0) {
        return rc;
    }
    for (/* void */; p < j->p; p++) {
        if (*p < '0' || *p > '9') {
            return tok_json_fail(j, TOK_E_FORMAT, "a whole number without a "
                                 "sign is expected");
        }
        x = x * 10 + (uint64_t) (*p - '0');
        if (x > UINT32_MAX) {
            return tok_json_fail(j, TOK_E_LIMIT, "a number beyond 32 bits");
        }
    }
    *v = (uint32_t) x;
    return 0;
}


/*
 * As the reference's JSON library reads numbers: digits up to 64 bits, then
 * one multiplication or division by a power of ten.  The last bit may differ
 * from the nearest double, and scores must not.
 */
static double
scale(double f, int exponent)
{
    double  pow = 1;
    int     n = exponent < 0 ? -exponent : exponent;

    while (n > 308 && exponent < 0 && f != 0) {
        f /= 1e308;
        n -= 308;
    }
    if (n > 308) {
        return f == 0 ? 0 : exponent < 0 ? 0 : HUGE_VAL;
    }
    /* Exact: the compiler's own constant for each power. */
    pow = tok_pow10[n];
    return exponent < 0 ? f / pow : f * pow;
}


static void
add_digit(uint64_t *v, bool *full, uint8_t c, int *lost)
{
    uint64_t  d = (uint64_t) (c - '0');

    if (!*full && (*v < UINT64_MAX / 10
                   || (*v == UINT64_MAX / 10 && d <= UINT64_MAX % 10)))
    {
        *v = *v * 10 + d;
        return;
    }
    *full = true;
    (*lost)++;
}


int
tok_json_double(tok_json_t *j, double *v)
{
    const uint8_t  *p;
    uint64_t        sig = 0;
    int             rc, exponent = 0, lost, e = 0;
    bool            neg, full = false, e_neg = false;

    white(j);
    p = j->p;
    rc = number(j);
    if (rc != 0) {
        return rc;
    }
    neg = *p == '-';
    p += neg;
    for (/* void */; p < j->p && *p >= '0' && *p <= '9'; p++) {
        lost = 0;
        add_digit(&sig, &full, *p, &lost);
        exponent += lost;
    }
    if (p < j->p && *p == '.') {
        for (p++; p < j->p && *p >= '0' && *p <= '9'; p++) {
            lost = 0;
            add_digit(&sig, &full, *p, &lost);
            exponent -= 1 - lost;
        }
    }
    if (p < j->p) {
        p++;
        e_neg = *p == '-';
        p += *p == '-' || *p == '+';
        for (/* void */; p < j->p; p++) {
            e = e < 100000 ? e * 10 + (*p - '0') : e;
        }
    }
    *v = scale((double) sig, e_neg ? exponent - e : exponent + e);
    if (!isfinite(*v)) {
        return tok_json_fail(j, TOK_E_LIMIT, "a number out of range");
    }
    *v = neg ? -*v : *v;
    return 0;
}


int
tok_json_bool(tok_json_t *j, bool *v)
{
    white(j);
    if (word(j, "true")) {
        *v = true;
        return 0;
    }
    if (word(j, "false")) {
        *v = false;
        return 0;
    }
    return tok_json_fail(j, TOK_E_FORMAT, "true or false is expected");
}


bool
tok_json_null(tok_json_t *j)
{
    white(j);
    return word(j, "null");
}


/* --- structure --------------------------------------------------------- */

int
tok_json_open(tok_json_t *j, uint8_t bracket)
{
    if (tok_json_peek(j) != bracket) {
        return tok_json_fail(j, TOK_E_FORMAT, bracket == '[' ? "an array is "
                             "expected" : "an object is expected");
    }
    j->p++;
    return 0;
}


int
tok_json_next(tok_json_t *j, uint8_t bracket, bool *first)
{
    uint8_t  c = tok_json_peek(j), close = bracket == '[' ? ']' : '}';

    if (c == close) {
        j->p++;
        return 0;
    }
    if (!*first) {
        if (c != ',') {
            return tok_json_fail(j, TOK_E_FORMAT, "a comma is expected");
        }
        j->p++;
    }
    *first = false;
    return 1;
}


int
tok_json_colon(tok_json_t *j)
{
    if (tok_json_peek(j) != ':') {
        return tok_json_fail(j, TOK_E_FORMAT, "a colon is expected");
    }
    j->p++;
    return 0;
}


static int
skip_string(tok_json_t *j)
{
    uint32_t  c;
    int       rc;

    j->p++;
    for (;;) {
        j->p = plain_end(j->p, j->end);
        if (j->p == j->end || *j->p < 0x20) {
            return tok_json_fail(j, TOK_E_FORMAT, "a string does not end");
        }
        if (*j->p++ == '"') {
            return 0;
        }
        rc = escape(j, &c);
        if (rc != 0) {
            return rc;
        }
    }
}


static int
skip_scalar(tok_json_t *j, uint8_t c)
{
    if (c == '"') {
        return skip_string(j);
    }
    if (word(j, "true") || word(j, "false") || word(j, "null")) {
        return 0;
    }
    return number(j);
}


/* The brackets that are open, one bit each: 1 for an object. */
int
tok_json_skip(tok_json_t *j)
{
    uint64_t  open = 0;
    unsigned  depth = 0;
    bool      first = true;
    uint8_t   c;
    int       rc;

    for (;;) {
        c = tok_json_peek(j);
        if (c == '{' || c == '[') {
            if (depth == TOK_JSON_DEPTH_MAX) {
                return tok_json_fail(j, TOK_E_LIMIT, "nested deeper than 64");
            }
            open = open << 1 | (c == '{');
            depth++;
            j->p++;
            first = true;

        } else {
            rc = skip_scalar(j, c);
            if (rc != 0) {
                return rc;
            }
        }
        /* On to the next value: over commas and closing brackets. */
        for (;;) {
            if (depth == 0) {
                return 0;
            }
            rc = tok_json_next(j, open & 1 ? '{' : '[', &first);
            if (rc < 0) {
                return rc;
            }
            if (rc == 1) {
                break;
            }
            open >>= 1;
            depth--;
            first = false;
        }
        if (open & 1) {
            if (tok_json_peek(j) != '"') {
                return tok_json_fail(j, TOK_E_FORMAT, "a key is expected");
            }
            rc = skip_string(j);
            if (rc == 0) {
                rc = tok_json_colon(j);
            }
            if (rc != 0) {
                return rc;
            }
        }
    }
}


int
tok_json_member(tok_json_t *j, tok_members_t *m, bool *first)
{
    tok_member_t  *at;
    int            rc = tok_json_next(j, '{', first);

    if (rc != 1) {
        return rc;
    }
    if (m->n == TOK_MEMBERS_MAX) {
        return tok_json_fail(j, TOK_E_LIMIT, "an object of more than 64 "
                             "members");
    }
    at = &m->m[m->n];
    (void) tok_json_peek(j);
    at->escaped = j->p;
    rc = tok_json_string(j, &at->key);
    if (rc == 0 && at->key.ptr == (const char *) at->escaped + 1) {
        at->escaped = NULL;

    } else {
        at->key.len = 0;            /* decoded when it is looked for */
    }
    if (rc == 0) {
        rc = tok_json_colon(j);
    }
    if (rc != 0) {
        return rc;
    }
    (void) tok_json_peek(j);
    at->value = j->p;
    m->n++;
    return 1;
}


int
tok_json_members(tok_json_t *j, tok_members_t *m)
{
    bool  first = true;
    int   rc = tok_json_open(j, '{');

    m->n = 0;
    while (rc == 0 && (rc = tok_json_member(j, m, &first)) == 1) {
        rc = tok_json_skip(j);
    }
    return rc;
}


/* A key with escapes was read before, so reading it again cannot fail. */
static bool
escaped_is(tok_json_t *j, const uint8_t *quote, const char *key, size_t n)
{
    const uint8_t  *at = j->p;
    tok_vec_t       text = j->text;
    tok_str_t       s = { "", 0 };
    int             rc;

    j->text = j->key;
    j->p = quote;
    rc = tok_json_string(j, &s);
    j->key = j->text;
    j->text = text;
    j->p = at;
    return rc == 0 && s.len == n && memcmp(s.ptr, key, n) == 0;
}


bool
tok_json_at(tok_json_t *j, const tok_members_t *m, const char *key)
{
    size_t  i = m->n, n = strlen(key);

    /* Backwards: of equal keys the last one counts. */
    while (i-- > 0) {
        if (m->m[i].escaped != NULL
            ? escaped_is(j, m->m[i].escaped, key, n)
            : m->m[i].key.len == n && memcmp(m->m[i].key.ptr, key, n) == 0)
        {
            j->p = m->m[i].value;
            return true;
        }
    }
    return false;
}
