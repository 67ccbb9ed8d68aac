/*
 * tok_tables_fast.c: whether one of the shortcuts of tok_fast_words.c fits a
 * vocabulary: only if its pipeline is exactly the one that the shortcut knows.
 */

#include "tokenizer/tok_build.h"
#include "tokenizer/tok_charsmap.h"
#include "tokenizer/tok_keys.h"

#include <stdlib.h>


static const char  mark[] = "\xe2\x96\x81";


static bool
is_text(const tok_build_t *b, tok_ref_t r, const char *text)
{
    return r.len == strlen(text)
           && memcmp(tok_build_text(b, r), text, r.len) == 0;
}


/* The byte at p, or a space for a mark. */
static inline uint8_t
next_byte(const uint8_t **p, const uint8_t *end)
{
    const uint8_t  *q = (*p)++;

    if (*q == 0xe2 && end - q >= 3 && q[1] == 0x96 && q[2] == 0x81) {
        *p += 2;
        return ' ';
    }
    return *q;
}


/*
 * Which bytes stand side by side in some token, each mark as one space.  Where
 * two that do not meet in a text no token reaches across, and so no merge
 * does: words end there.  Never inside a character.
 */
static bool
joins(tok_build_t *b)
{
    tok_vec_t        *v = &b->table[TOK_S_JOINS];
    const tok_ref_t  *r = b->tokens.ptr;
    const uint8_t    *flags = b->flags.ptr, *p, *end;
    uint8_t          *is = calloc(65536, 1), last, c;
    uint64_t         *bit;
    unsigned          x, y;
    size_t            i;

    if (is == NULL || tok_vec_room(v, TOK_JOINS_WORDS, sizeof(*bit)) != 0) {
        free(is);
        return false;
    }
    for (i = 0; i < b->tokens.n; i++) {
        if (!(flags[i] & TOK_F_MODEL) || r[i].len == 0) {
            continue;
        }
        p = tok_build_text(b, r[i]);
        end = p + r[i].len;
        for (last = next_byte(&p, end); p < end; last = c) {
            c = next_byte(&p, end);
            is[last << 8 | c] = 1;
        }
    }
    v->n = TOK_JOINS_WORDS;
    bit = v->ptr;
    memset(bit, 0, TOK_JOINS_WORDS * sizeof(*bit));
    for (x = 0; x < 256; x++) {
        for (y = 0; y < 256; y++) {
            bit[tok_joins_at(x, y)] |= (uint64_t) is[x << 8 | y] << (y & 63);
        }
        bit[tok_joins_at(x, 0x80)] = ~(uint64_t) 0;
    }
    free(is);
    return true;
}


/* Each byte has a token, and no merge takes one of those. */
static bool
bytes_alone(const tok_build_t *b)
{
    const uint32_t     *ids = b->table[TOK_S_BYTE_IDS].ptr;
    const tok_merge_t  *m = b->merges.ptr;
    uint8_t            *is;
    uint32_t            low = TOK_NO_ID, high = 0;
    size_t              i;
    bool                alone = true;

    is = calloc(b->tokens.n + 1, 1);
    if (is == NULL) {
        return false;
    }
    for (i = 0; i < 256; i++) {
        if (ids[i] == TOK_NO_ID) {
            alone = false;
            break;
        }
        is[ids[i]] = 1;
        low = ids[i] < low ? ids[i] : low;
        high = ids[i] > high ? ids[i] : high;
    }
    for (i = 0; alone && i < b->merges.n; i++) {
        if (m[i].a - low <= high - low || m[i].b - low <= high - low) {
            alone = !is[m[i].a] && !is[m[i].b];
        }
    }
    free(is);
    return alone;
}


static void
choose_spm(tok_build_t *b)
{
    const tok_op_t  *norm = b->norm.ptr, *pre = b->pre.ptr;
    size_t           n = b->norm.n;

    if (b->h.prefix.len || b->h.suffix.len
        || (b->h.bpe_flags & TOK_BPE_IGNORE_MERGES)
        || !(b->h.bpe_flags & TOK_BPE_BYTE_FALLBACK))
    {
        return;
    }
    if (b->pre.n > 1 || (b->pre.n == 1 && !(pre[0].type == TOK_P_SPLIT
                                            && is_text(b, pre[0].s, " "))))
    {
        return;
    }
    if (n < 1 || n > 2 || norm[n - 1].type != TOK_N_REPLACE
        || !is_text(b, norm[n - 1].s, " ") || !is_text(b, norm[n - 1].r, mark)
        || (n == 2 && !(norm[0].type == TOK_N_PREPEND
                        && is_text(b, norm[0].s, mark))))
    {
        return;
    }
    if (tok_build_find(b, (const uint8_t *) mark, 3) == TOK_NO_ID
        || !bytes_alone(b) || !joins(b))
    {
        return;
    }
    if (tok_tables_made(b) != 0 || tok_tables_back(b) != 0) {
        b->table[TOK_S_MADE].n = 0;
        return;
    }
    b->h.spm_flags |= n == 2 ? TOK_SPM_PREPEND : 0;
    b->h.fast = TOK_FAST_SPM;
}


static void
choose_wordpiece(tok_build_t *b)
{
    static const uint16_t  order[] = {
        TOK_N_CLEAN, TOK_N_CHINESE, TOK_N_NFD, TOK_N_STRIP_MN, TOK_N_LOWER
    };
    const tok_op_t  *norm = b->norm.ptr, *pre = b->pre.ptr;
    size_t           i, k = 0;
    bool             has[5] = { false };

    if (b->pre.n != 1 || pre[0].type != TOK_P_BERT || b->norm.n < 1
        || norm[0].type != TOK_N_CLEAN)
    {
        return;
    }
    for (i = 0; i < b->norm.n; i++) {
        while (k < 5 && order[k] != norm[i].type) {
            k++;
        }
        if (k == 5) {
            return;
        }
        has[k] = true;
    }
    b->h.spm_flags |= (has[1] ? TOK_SPM_CHINESE : 0)
                      | (has[2] ? TOK_SPM_MARKS : 0)
                      | (has[2] == has[3] ? TOK_SPM_CHARS : 0)
                      | (has[4] ? TOK_SPM_LOWER : 0);
    b->h.fast = TOK_FAST_WORDPIECE;
}


/* Plain ASCII goes through the map as it is, and no key begins with space. */
static bool
map_keeps_ascii(const tok_build_t *b, const tok_op_t *op)
{
    const uint8_t  *map = (const uint8_t *) b->charsmap.ptr + op->s.off, *to;
    uint8_t         c;
    size_t          n;

    for (c = 0x20; c < 0x7f; c++) {
        if (tok_charsmap_find(map, op->s.len, &c, 1, &to, &n)
            && !(n == 1 && to[0] == c))
        {
            return false;
        }
    }
    return true;
}


/* Line breaks and tabs stay white space, so that they end words. */
static bool
map_keeps_breaks(const tok_build_t *b, const tok_op_t *op)
{
    const uint8_t  *map = (const uint8_t *) b->charsmap.ptr + op->s.off, *to;
    size_t          n, i;

    for (i = 0; i < 2; i++) {
        if (tok_charsmap_find(map, op->s.len, (const uint8_t *) "\n\t" + i,
                              1, &to, &n)
            && !(n == 1 && to[0] == ' '))
        {
            return false;
        }
    }
    return true;
}


static void
choose_unigram(tok_build_t *b)
{
    const tok_op_t  *norm = b->norm.ptr, *pre = b->pre.ptr;

    if (b->norm.n > 1 || (b->norm.n == 1
        && (norm[0].type != TOK_N_CHARSMAP || !map_keeps_ascii(b, norm))))
    {
        return;
    }
    if (b->pre.n != 2 || pre[0].type != TOK_P_WS_SPLIT
        || pre[0].b != TOK_B_REMOVED || pre[1].type != TOK_P_METASPACE
        || pre[1].a != 1 || !is_text(b, pre[1].s, mark))
    {
        return;
    }
    if (b->norm.n == 0 || map_keeps_breaks(b, norm)) {
        b->h.spm_flags |= TOK_SPM_BREAKS;
    }
    b->h.fast = TOK_FAST_UNIGRAM;
}


void
tok_tables_fast(tok_build_t *b)
{
    if (b->h.fast != TOK_FAST_NONE) {
        return;
    }
    switch (b->h.model) {
    case TOK_M_BPE:
        choose_spm(b);
        break;
    case TOK_M_WORDPIECE:
        choose_wordpiece(b);
        break;
    case TOK_M_UNIGRAM:
        choose_unigram(b);
        break;
    default:
        break;
    }
}
