/*
 * tok_scan.c: the pre-tokenizer patterns in wide use, by hand.  Each function
 * gives the end of the match that starts at p, as a backtracking engine would
 * find it, alternatives in the pattern's order.  end is also what the
 * pattern's look-ahead sees as the end of the text.
 */

#include "tokenizer/tok_core.h"
#include "tokenizer/tok_unicode.h"


#define L   TOK_U_L
#define N   TOK_U_N
#define S   TOK_U_S
#define M   TOK_U_M

typedef const uint8_t *(*scan_fn)(const uint8_t *p, const uint8_t *end,
    const uint8_t **limit);


/* Class and length of the character at p. */
static inline uint32_t
class_at(const uint8_t *p, size_t *n)
{
    if (p[0] < 0x80) {
        *n = 1;
        return tok_class_rows[p[0]];
    }
    return tok_class(tok_utf8_get(p, n));
}


static inline bool
is_break(uint8_t c)
{
    return c == '\r' || c == '\n';
}


/* The end of the run of characters that have one of want and none of not. */
static inline const uint8_t *
run_of(const uint8_t *p, const uint8_t *end, uint32_t want, uint32_t not)
{
    uint32_t  c;
    size_t    n;

    while (p < end) {
        c = class_at(p, &n);
        if (((c & want) == 0 && want) || (c & not)) {
            break;
        }
        p += n;
    }
    return p;
}


static inline const uint8_t *
one_back(const uint8_t *p)
{
    do {
        p--;
    } while ((*p & 0xc0) == 0x80);
    return p;
}


/* \s+(?!\S)|\s+ on the run of spaces p..q. */
static inline const uint8_t *
spaces_end(const uint8_t *p, const uint8_t *q, const uint8_t *end)
{
    const uint8_t  *last;

    assert(p < q);
    if (q == end) {
        return q;
    }
    last = one_back(q);
    return last > p ? last : q;
}


/* \s*[\r\n]+|\s+(?!\S)|\s+ */
static inline const uint8_t *
spaces_breaks_end(const uint8_t *p, const uint8_t *end)
{
    const uint8_t  *q = run_of(p, end, S, 0), *r;

    for (r = q; r > p; r--) {
        if (is_break(r[-1])) {
            return r;
        }
    }
    return spaces_end(p, q, end);
}


/* 's|'t|'re|'ve|'m|'ll|'d at p, which is an apostrophe; 0 or its length. */
static inline size_t
contraction(const uint8_t *p, const uint8_t *end, bool any_case)
{
    uint8_t  fold = any_case ? 0x20 : 0, a, b;

    if (end - p < 2) {
        return 0;
    }
    a = p[1] | fold;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') {
        return 2;
    }
    if (end - p < 3) {
        return 0;
    }
    b = p[2] | fold;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e')
        || (a == 'l' && b == 'l'))
    {
        return 3;
    }
    /* The long s folds to s. */
    return any_case && p[1] == 0xc5 && p[2] == 0xbf ? 3 : 0;
}


/* ' ?' and a run of letters, numbers or others, else spaces; gpt2. */
static const uint8_t *
scan_gpt2(const uint8_t *p, const uint8_t *end, const uint8_t **limit)
{
    const uint8_t  *q = p;
    uint32_t        c;
    size_t          n;

    (void) limit;
    if (*p == '\'') {
        n = contraction(p, end, false);
        if (n) {
            return p + n;
        }
    }
    if (*p == ' ' && end - p > 1) {
        q = p + 1;
    }
    c = class_at(q, &n);
    if (c & L) {
        return run_of(q + n, end, L, 0);
    }
    if (c & N) {
        return run_of(q + n, end, N, 0);
    }
    if (!(c & S)) {
        return run_of(q + n, end, 0, S | L | N);
    }
    return spaces_end(p, run_of(p, end, S, 0), end);
}


/* gpt2 with each digit cut out first (Digits, then ByteLevel). */
static const uint8_t *
scan_gpt2_digits(const uint8_t *p, const uint8_t *end, const uint8_t **limit)
{
    const uint8_t  *q = p, *r;
    uint32_t        c;
    size_t          n, k;

    (void) limit;
    c = class_at(p, &n);
    if (c & TOK_U_NUM) {
        return p + n;
    }
    if (*p == '\'') {
        k = contraction(p, end, false);
        if (k) {
            return p + k;
        }
    }
    if (*p == ' ' && end - p > 1) {
        c = class_at(p + 1, &k);
        if (!(c & TOK_U_NUM)) {
            q = p + 1;
            n = k;

        } else {
            return p + 1;
        }
    }
    if (c & L) {
        return run_of(q + n, end, L, TOK_U_NUM);
    }
    if (c & N) {
        return run_of(q + n, end, N, TOK_U_NUM);
    }
    if (!(c & S)) {
        return run_of(q + n, end, 0, S | L | N | TOK_U_NUM);
    }
    r = run_of(p, end, S, 0);
    if (r < end && (class_at(r, &n) & TOK_U_NUM)) {
        return r;
    }
    return spaces_end(p, r, end);
}


static inline const uint8_t *
digits_upto(const uint8_t *p, const uint8_t *end, int max)
{
    uint32_t  c;
    size_t    n;

    while (max-- > 0 && p < end) {
        c = class_at(p, &n);
        if (!(c & N)) {
            break;
        }
        p += n;
    }
    return p;
}


/* What cl100k and its kin share after words: numbers, others, spaces. */
static inline const uint8_t *
scan_rest(const uint8_t *p, const uint8_t *end, uint32_t c, size_t n,
    int digits, bool slash)
{
    const uint8_t  *q = p;

    if (c & N) {
        return digits_upto(p, end, digits);
    }
    if (*p == ' ' && end - p > 1) {
        q = p + 1;
        c = class_at(q, &n);
    }
    if (!(c & (S | L | N))) {
        q = run_of(q + n, end, 0, S | L | N);
        while (q < end && (is_break(*q) || (slash && *q == '/'))) {
            q++;
        }
        return q;
    }
    return spaces_breaks_end(p, end);
}


static inline const uint8_t *
scan_cl100k_n(const uint8_t *p, const uint8_t *end, int digits)
{
    uint32_t  c, d;
    size_t    n, k;

    if (*p == '\'') {
        n = contraction(p, end, true);
        if (n) {
            return p + n;
        }
    }
    c = class_at(p, &n);
    if (c & L) {
        return run_of(p + n, end, L, 0);
    }
    if (!(c & N) && !is_break(*p) && (size_t) (end - p) > n) {
        d = class_at(p + n, &k);
        if (d & L) {
            return run_of(p + n + k, end, L, 0);
        }
    }
    return scan_rest(p, end, c, n, digits, false);
}


static const uint8_t *
scan_cl100k(const uint8_t *p, const uint8_t *end, const uint8_t **limit)
{
    (void) limit;
    return scan_cl100k_n(p, end, 3);
}


static const uint8_t *
scan_qwen2(const uint8_t *p, const uint8_t *end, const uint8_t **limit)
{
    (void) limit;
    return scan_cl100k_n(p, end, 1);
}


/* May stand in the upper part of a word, in the lower part. */
static inline bool
is_upper(uint32_t c)
{
    return (c & (L | M)) && !(c & TOK_U_LOW);
}


static inline bool
is_lower(uint32_t c)
{
    return (c & (L | M)) && !(c & TOK_U_UP);
}


/*
 * [upper]*[lower]+ at p: the end of the match or NULL.  *run is the end of
 * the greedy [upper]* for the other alternative.  Characters that are both
 * (letters without case, marks) make the engine step back: the match then
 * ends behind the last of them.
 */
static const uint8_t *
upper_lower(const uint8_t *p, const uint8_t *end, const uint8_t **run)
{
    const uint8_t  *both = NULL;
    uint32_t        c = 0;
    size_t          n;

    while (p < end) {
        c = class_at(p, &n);
        if (!is_upper(c)) {
            break;
        }
        p += n;
        if (is_lower(c)) {
            both = p;
        }
    }
    *run = p;
    if (p == end || !is_lower(c)) {
        return both;
    }
    while (p < end) {
        c = class_at(p, &n);
        if (!is_lower(c)) {
            break;
        }
        p += n;
    }
    return p;
}


static inline const uint8_t *
scan_cased(const uint8_t *p, const uint8_t *end, bool contractions,
    int digits)
{
    const uint8_t  *q = NULL, *run = NULL, *run2 = NULL, *after;
    uint32_t        c;
    size_t          n;
    bool            lead;

    c = class_at(p, &n);
    after = p + n;
    lead = !(c & (L | N)) && !is_break(*p);
    if (lead) {
        q = upper_lower(after, end, &run);
    }
    if (q == NULL && (c & (L | M))) {
        q = upper_lower(p, end, &run2);
    }
    if (q == NULL && lead && run > after) {
        q = run;
    }
    if (q == NULL && run2 != NULL && run2 > p) {
        q = run2;
    }
    if (q == NULL) {
        return scan_rest(p, end, c, n, digits, true);
    }
    if (contractions && q < end && *q == '\'') {
        q += contraction(q, end, true);
    }
    return q;
}


static const uint8_t *
scan_o200k(const uint8_t *p, const uint8_t *end, const uint8_t **limit)
{
    (void) limit;
    return scan_cased(p, end, true, 3);
}


static const uint8_t *
scan_tekken(const uint8_t *p, const uint8_t *end, const uint8_t **limit)
{
    (void) limit;
    return scan_cased(p, end, false, 1);
}


static inline bool
is_kana(uint32_t cp)
{
    return (cp >= 0x4e00 && cp <= 0x9fa5) || (cp >= 0x3040 && cp <= 0x30ff);
}


static inline bool
is_ascii_letter(uint8_t c)
{
    return (uint8_t) ((c | 0x20) - 'a') < 26;
}


static inline bool
is_ascii_punct(uint8_t c)
{
    return c > 0x20 && c < 0x7f && !is_ascii_letter(c)
           && !(c >= '0' && c <= '9');
}


/* DeepSeek's third pattern at p; NULL: no match starts here. */
static const uint8_t *
deepseek_at(const uint8_t *p, const uint8_t *end)
{
    const uint8_t  *q;
    uint32_t        c, d;
    size_t          n, k;

    if (is_ascii_punct(*p) && end - p > 1 && is_ascii_letter(p[1])) {
        q = p + 2;
        while (q < end && is_ascii_letter(*q)) {
            q++;
        }
        return q;
    }
    c = class_at(p, &n);
    if (!(c & (L | TOK_U_P | TOK_U_SYM)) && !is_break(*p)
        && (size_t) (end - p) > n)
    {
        d = class_at(p + n, &k);
        if (d & (L | M)) {
            return run_of(p + n + k, end, L | M, 0);
        }
    }
    if (c & (L | M)) {
        return run_of(p + n, end, L | M, 0);
    }
    q = p;
    if (*p == ' ' && end - p > 1) {
        q = p + 1;
        d = class_at(q, &k);

    } else {
        d = c;
        k = n;
    }
    if (d & (TOK_U_P | TOK_U_SYM)) {
        q = run_of(q + k, end, TOK_U_P | TOK_U_SYM, 0);
        while (q < end && is_break(*q)) {
            q++;
        }
        return q;
    }
    return c & S ? spaces_breaks_end(p, end) : NULL;
}


/* Where the kana or non-kana, number or non-number part at p ends. */
static const uint8_t *
deepseek_part(const uint8_t *p, const uint8_t *end)
{
    uint32_t  cp, c;
    size_t    n;
    bool      kana, first = true, is;

    kana = false;
    while (p < end) {
        if (*p < 0x80) {
            if (!first && kana) {
                break;
            }
            if (*p >= '0' && *p <= '9') {
                break;
            }
            p++;
            first = false;
            continue;
        }
        cp = tok_utf8_get(p, &n);
        c = tok_class(cp);
        is = is_kana(cp);
        if ((c & N) || (!first && is != kana)) {
            break;
        }
        kana = is;
        first = false;
        p += n;
    }
    return p;
}


/*
 * The three patterns of DeepSeek one after the other; text that the third
 * does not match makes a piece up to where it matches again.  *limit keeps
 * the end of the present part between calls, else a long part would be
 * searched for its end again and again.
 */
static const uint8_t *
scan_deepseek(const uint8_t *p, const uint8_t *end, const uint8_t **limit)
{
    const uint8_t  *q;
    size_t          n;

    if (*limit == NULL || *limit <= p) {
        q = digits_upto(p, end, 3);
        if (q > p) {
            return q;
        }
        *limit = deepseek_part(p, end);
    }
    q = deepseek_at(p, *limit);
    if (q != NULL) {
        return q;
    }
    for (q = p; q < *limit; q += n) {
        if (deepseek_at(q, *limit) != NULL) {
            break;
        }
        (void) tok_utf8_get(q, &n);
    }
    return q;
}


static const scan_fn  scanners[TOK_R_MAX] = {
    [TOK_R_GPT2] = scan_gpt2,
    [TOK_R_CL100K] = scan_cl100k,
    [TOK_R_QWEN2] = scan_qwen2,
    [TOK_R_O200K] = scan_o200k,
    [TOK_R_TEKKEN] = scan_tekken,
    [TOK_R_DEEPSEEK3] = scan_deepseek,
    [TOK_R_GPT2_DIGITS] = scan_gpt2_digits
};


const uint8_t *
tok_scan(uint32_t pattern, const uint8_t *p, const uint8_t *end,
    const uint8_t **limit)
{
    const uint8_t  *q;

    assert(pattern < TOK_R_MAX && scanners[pattern] != NULL && p < end);
    q = scanners[pattern](p, end, limit);
    assert(q > p && q <= end);
    return q;
}
