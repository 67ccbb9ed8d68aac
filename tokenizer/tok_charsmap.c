/*
 * tok_charsmap.c: the Precompiled normalizer of SentencePiece: a double array
 * of strings (darts-clone format) to replacements.  Grapheme clusters of less
 * than six bytes are looked up whole, else each character.
 */

#include "tokenizer/tok_charsmap.h"
#include "tokenizer/tok_norm.h"
#include "tokenizer/tok_ucd.h"
#include "tokenizer/tok_unicode.h"


static inline uint32_t
unit_at(const uint8_t *map, uint32_t at)
{
    return tok_load32(map + 4 + 4 * (size_t) at);
}


static inline uint32_t
offset_of(uint32_t unit)
{
    return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}


/* The shortest key that text begins with: its replacement's place, or -1. */
static int64_t
shortest(const uint8_t *map, uint32_t n_units, const uint8_t *text,
    size_t len)
{
    uint32_t  at, unit;
    size_t    i;

    at = offset_of(unit_at(map, 0));
    for (i = 0; i < len && text[i] != 0; i++) {
        at ^= text[i];
        if (at >= n_units) {
            return -1;
        }
        unit = unit_at(map, at);
        if ((unit & 0x800000ffu) != text[i]) {
            return -1;
        }
        at ^= offset_of(unit);
        if (unit >> 8 & 1) {
            return at < n_units ? (int64_t) (unit_at(map, at) & 0x7fffffff)
                   : -1;
        }
    }
    return -1;
}


int
tok_charsmap_check(const uint8_t *map, size_t len)
{
    uint32_t  bytes;

    if (len < 8) {
        return TOK_E_FORMAT;
    }
    bytes = tok_load32(map);
    if (bytes < 4 || bytes % 4 || bytes > len - 4) {
        return TOK_E_FORMAT;
    }
    return tok_utf8_check(map + 4 + bytes, len - 4 - bytes)
           == len - 4 - bytes ? 0 : TOK_E_FORMAT;
}


bool
tok_charsmap_find(const uint8_t *map, size_t map_len, const uint8_t *text,
    size_t len, const uint8_t **to, size_t *to_len)
{
    uint32_t        bytes = tok_load32(map);
    size_t          pool_len = map_len - 4 - bytes;
    const uint8_t  *pool = map + 4 + bytes, *nul;
    int64_t         at = shortest(map, bytes / 4, text, len);

    if (at < 0) {
        return false;
    }
    /* Beyond the pool, or inside a character: a damaged map says nothing. */
    if ((uint64_t) at > pool_len
        || ((uint64_t) at < pool_len && (pool[at] & 0xc0) == 0x80))
    {
        return false;
    }
    *to = pool + at;
    nul = memchr(*to, 0, pool_len - (size_t) at);
    *to_len = nul != NULL ? (size_t) (nul - *to) : pool_len - (size_t) at;
    return true;
}


/* --- grapheme clusters ------------------------------------------------- */

typedef struct {
    uint32_t  last;                 /* class of the character before */
    uint32_t  ri;                   /* regional indicators in a row */
    bool      pict;                 /* pictograph, then extenders only */
    bool      pict_zwj;             /* the same, then ZWJ */
    bool      consonant;            /* one, then linkers and extenders */
    bool      linked;               /* the same, a linker among them */
} cluster_t;


static bool
is_control(uint32_t c)
{
    return c == TOK_G_CR || c == TOK_G_LF || c == TOK_G_CONTROL;
}


/*
 * UAX #29: whether there is a boundary before a character of class c that is
 * k in a conjunct.
 */
static bool
boundary(const cluster_t *s, uint32_t c, uint32_t k)
{
    uint32_t  p = s->last;

    if (p == TOK_G_CR && c == TOK_G_LF) {
        return false;
    }
    if (is_control(p) || is_control(c)) {
        return true;
    }
    if ((p == TOK_G_L && (c == TOK_G_L || c == TOK_G_V || c == TOK_G_LV
                          || c == TOK_G_LVT))
        || ((p == TOK_G_LV || p == TOK_G_V) && (c == TOK_G_V
                                                || c == TOK_G_T))
        || ((p == TOK_G_LVT || p == TOK_G_T) && c == TOK_G_T))
    {
        return false;
    }
    if (c == TOK_G_EXTEND || c == TOK_G_ZWJ || c == TOK_G_SPACING
        || p == TOK_G_PREPEND)
    {
        return false;
    }
    if ((s->pict_zwj && c == TOK_G_PICT)
        || (s->linked && k == TOK_C_CONSONANT))
    {
        return false;
    }
    return !(p == TOK_G_RI && c == TOK_G_RI && s->ri % 2 == 1);
}


static void
advance(cluster_t *s, uint32_t c, uint32_t k)
{
    s->linked = s->consonant && (k == TOK_C_LINKER
                                 || (s->linked && k == TOK_C_EXTEND));
    s->consonant = k == TOK_C_CONSONANT
                   || (s->consonant && k != TOK_C_NONE);
    s->pict_zwj = s->pict && c == TOK_G_ZWJ;
    s->pict = c == TOK_G_PICT || (s->pict && c == TOK_G_EXTEND);
    s->ri = c == TOK_G_RI ? s->ri + 1 : 0;
    s->last = c;
}


static size_t
cluster_end(const uint8_t *p, size_t len)
{
    cluster_t  s = { 0 };
    uint32_t   cp, c, k;
    size_t     at, n;

    cp = tok_utf8_get(p, &at);
    advance(&s, tok_cluster_class(cp), tok_conjunct_class(cp));
    while (at < len) {
        cp = tok_utf8_get(p + at, &n);
        c = tok_cluster_class(cp);
        k = tok_conjunct_class(cp);
        if (boundary(&s, c, k)) {
            break;
        }
        advance(&s, c, k);
        at += n;
    }
    return at;
}


/* --- the step ---------------------------------------------------------- */

static size_t
chars_in(const uint8_t *p, size_t len)
{
    size_t  n = 0, i;

    for (i = 0; i < len; i++) {
        n += (p[i] & 0xc0) != 0x80;
    }
    return n;
}


/*
 * One source part becomes to: as the reference counts, new characters are
 * the last ones, and what is dropped belongs to the last one.  With nothing
 * to put, the character written before takes the part over (*owed).
 */
static void
put_part(tok_edit_t *e, const uint8_t *part, size_t len, const uint8_t *to,
    size_t to_len, tok_part_t *last)
{
    int       from_n = (int) chars_in(part, len);
    int       to_n = (int) chars_in(to, to_len), i;
    uint32_t  c;
    size_t    at = 0, n;

    for (i = 0; i < to_n; i++, at += n) {
        c = tok_utf8_get(to + at, &n);
        if (last->have) {
            tok_edit_put(e, last->c, last->change);
        }
        last->have = true;
        last->c = c;
        last->change = to_n > from_n && i >= from_n ? 1 : 0;
    }
    if (to_n < from_n && last->have) {
        last->change += to_n - from_n;
    }
}


int
tok_edit_charsmap(const tok_t *t, const tok_op_t *op, tok_edit_t *e)
{
    const uint8_t  *map = t->charsmap + op->s.off, *to, *text = e->text;
    tok_part_t      last = { 0 };
    size_t          i, n, k, z, to_len;

    for (i = 0; i < e->len && e->rc == 0; i += n) {
        n = cluster_end(text + i, e->len - i);
        if (n < 6 && tok_charsmap_find(map, op->s.len, text + i, n, &to,
                                       &to_len))
        {
            put_part(e, text + i, n, to, to_len, &last);
            continue;
        }
        for (k = i; k < i + n; k += z) {
            z = tok_utf8_size(text[k]);
            if (!tok_charsmap_find(map, op->s.len, text + k, z, &to,
                                   &to_len))
            {
                to = text + k;
                to_len = z;
            }
            put_part(e, text + k, z, to, to_len, &last);
        }
    }
    if (last.have) {
        tok_edit_put(e, last.c, last.change);
    }
    return e->rc;
}
