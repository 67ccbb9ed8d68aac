/*
 * tok_tables.c: what is worked out once at load: what each id stands for,
 * the automata of added tokens, the merge table.
 */

#include "tokenizer/tok_build.h"
#include "tokenizer/tok_decode.h"
#include "tokenizer/tok_made.h"
#include "tokenizer/tok_norm.h"
#include "tokenizer/tok_pattern.h"
#include "tokenizer/tok_unicode.h"

#include <stdlib.h>


static int
no_memory(tok_build_t *b)
{
    return tok_fail(b->err, TOK_E_NOMEM, "tokenizer: no memory for tables of "
                    "%zu tokens", b->tokens.n);
}


/* The builder's arrays as a vocabulary, for stages that run at load. */
static int
view_open(tok_build_t *b, tok_t *v)
{
    memset(v, 0, sizeof(*v));
    v->img = &b->h;
    v->pool = b->pool.ptr;
    v->tokens = b->tokens.ptr;
    v->flags = b->flags.ptr;
    v->added = b->added.ptr;
    v->n_added = b->added.n;
    v->norm = b->norm.ptr;
    v->n_norm = b->norm.n;
    v->decode = b->decode.ptr;
    v->n_decode = b->decode.n;
    v->charsmap = b->charsmap.ptr;
    v->n_charsmap = b->charsmap.n;
    return tok_pattern_compile(v, b->err);
}


/* --- what ids stand for ------------------------------------------------ */

static bool
is_local(uint16_t type)
{
    return type != TOK_D_BYTE_FALLBACK && type != TOK_D_FUSE
           && type != TOK_D_BYTE_LEVEL;
}


/* Which of the joins fits the decoder program. */
static void
choose_join(tok_build_t *b)
{
    const tok_op_t  *op = b->decode.ptr;
    tok_image_t     *h = &b->h;
    size_t           n = b->decode.n, k = 0, i;
    bool             first = false, last = false, ctc = false;

    h->join = TOK_J_GENERAL;
    h->dec_strip_char = ' ';
    if (n == 0) {
        h->join = TOK_J_JOIN;
        return;
    }
    if (n == 1 && op[0].type == TOK_D_BYTE_LEVEL) {
        h->join = TOK_J_LOSSY;
        return;
    }
    for (k = 0; k < n && is_local(op[k].type); k++) {
        first |= op[k].type == TOK_D_WORDPIECE
                 || op[k].type == TOK_D_METASPACE;
        last |= op[k].type == TOK_D_BPE;
        ctc |= op[k].type == TOK_D_CTC;
    }
    if ((first && last) || (ctc && n > 1)) {
        return;
    }
    h->n_local = (uint32_t) k;
    h->join_dedup = ctc;
    if (k == n || (k + 1 == n && op[k].type == TOK_D_FUSE)) {
        h->join = TOK_J_CONCAT;
        return;
    }
    i = k;
    i += op[i].type == TOK_D_BYTE_FALLBACK;
    i += i < n && op[i].type == TOK_D_FUSE;
    if (i < n && op[i].type == TOK_D_STRIP && op[i].b == 0 && i > k
        && op[i - 1].type == TOK_D_FUSE && op[i].a <= 255)
    {
        h->dec_strip = op[i].a;
        h->dec_strip_char = op[i].c;
        i++;
    }
    if (i == n && i > k && !last) {
        h->join = TOK_J_RUNS;
        return;
    }
    h->n_local = 0;
}


static int
keep_bytes(tok_build_t *b, const tok_vec_t *text, size_t from, tok_ref_t same,
    tok_ref_t *ref)
{
    const uint8_t  *p = (const uint8_t *) text->ptr + from;
    size_t          len = text->n - from;

    if (len > b->h.token_bytes_max) {
        b->h.token_bytes_max = (uint32_t) len;
    }
    if (len == same.len
        && (len == 0 || memcmp(tok_build_text(b, same), p, len) == 0))
    {
        *ref = same;
        return 0;
    }
    return tok_build_string(b, (const char *) p, len, ref);
}


/* out[id] for every id, with the tokens decoded as first or last or inside. */
static int
decode_all(tok_build_t *b, tok_t *v, tok_scratch_t *s, tok_vec_t *out,
    bool first, bool last, size_t n_ops)
{
    uint32_t   id, n = (uint32_t) b->tokens.n;
    uint8_t   *flags = b->flags.ptr, byte;
    tok_str_t  shown;
    tok_ref_t  same;
    int        rc, c;

    if (tok_vec_room(out, n, sizeof(tok_ref_t)) != 0) {
        return no_memory(b);
    }
    if (n) {
        memset(out->ptr, 0, n * sizeof(tok_ref_t));
    }
    out->n = n;
    for (id = 0; id < n; id++) {
        if (!(flags[id] & (TOK_F_MODEL | TOK_F_ADDED))) {
            continue;
        }
        v->pool = b->pool.ptr;      /* it grows here */
        shown = tok_shown(v, id);
        same.off = (uint32_t) ((const uint8_t *) shown.ptr - v->pool);
        same.len = (uint32_t) shown.len;
        s->text.n = 0;
        rc = tok_decode_token(v, s, (const uint8_t *) shown.ptr, shown.len,
                              first, last, n_ops, &s->text);
        if (rc == TOK_E_NOMEM) {
            return no_memory(b);
        }
        if (rc != 0) {
            return tok_fail(b->err, rc, "tokenizer: the decoder cannot read "
                            "token %u", id);
        }
        if (b->h.join == TOK_J_RUNS && b->decode.n > b->h.n_local
            && ((tok_op_t *) b->decode.ptr)[b->h.n_local].type
               == TOK_D_BYTE_FALLBACK)
        {
            c = tok_byte_token(s->text.ptr, s->text.n);
            if (c >= 0) {
                byte = (uint8_t) c;
                flags[id] |= TOK_F_BYTE;
                s->text.n = 1;
                *(uint8_t *) s->text.ptr = byte;
            }
        }
        rc = keep_bytes(b, &s->text, 0, same, (tok_ref_t *) out->ptr + id);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}


int
tok_tables_decode(tok_build_t *b)
{
    const tok_op_t  *op = b->decode.ptr;
    tok_scratch_t   *s = tok_scratch_new();
    tok_t            v;
    size_t           i, n_ops;
    bool             first = false, last = false;
    int              rc = 0;

    if (s == NULL) {
        return no_memory(b);
    }
    choose_join(b);
    n_ops = b->h.join == TOK_J_LOSSY ? 1 : b->h.n_local;
    for (i = 0; i < n_ops; i++) {
        first |= op[i].type == TOK_D_WORDPIECE
                 || op[i].type == TOK_D_METASPACE;
        last |= op[i].type == TOK_D_BPE;
    }
    rc = view_open(b, &v);
    if (rc == 0) {
        rc = decode_all(b, &v, s, &b->bytes, false, false, n_ops);
    }
    if (rc == 0 && first) {
        rc = decode_all(b, &v, s, &b->first, true, false, n_ops);
    }
    if (rc == 0 && last) {
        rc = decode_all(b, &v, s, &b->last, false, true, n_ops);
    }
    tok_pattern_free(&v);
    tok_scratch_free(s);
    return rc;
}


/* --- added tokens ------------------------------------------------------ */

static int
added_cmp(const void *x, const void *y)
{
    const tok_added_t  *a = x, *b = y;

    return a->id < b->id ? -1 : a->id > b->id;
}


/* Tokens looked for in normalized text are themselves normalized first. */
static int
normalize_added(tok_build_t *b)
{
    tok_added_t    *a = b->added.ptr;
    tok_scratch_t  *s;
    tok_t           v;
    tok_str_t       text, norm;
    size_t          i;
    int             rc;

    if (b->norm.n == 0) {
        return 0;
    }
    s = tok_scratch_new();
    if (s == NULL) {
        return no_memory(b);
    }
    rc = view_open(b, &v);
    for (i = 0; i < b->added.n && rc == 0; i++) {
        if (!(a[i].flags & TOK_A_NORMALIZED)) {
            continue;
        }
        v.pool = b->pool.ptr;
        text.ptr = (const char *) v.pool + a[i].text.off;
        text.len = a[i].text.len;
        rc = tok_normalize_plain(&v, s, text, &norm);
        if (rc != 0) {
            rc = tok_fail(b->err, rc, "tokenizer: added token %u cannot be "
                          "normalized", a[i].id);

        } else if (norm.len == 0) {
            /* The reference would match it between any two characters. */
            rc = tok_fail(b->err, TOK_E_UNSUPPORTED, "tokenizer: added token "
                          "%u is empty when normalized", a[i].id);

        } else if (norm.len != text.len
                   || memcmp(norm.ptr, text.ptr, norm.len) != 0)
        {
            rc = tok_build_string(b, norm.ptr, norm.len, &a[i].norm);
            /* The reference knows special tokens by how they are written. */
            ((uint8_t *) b->flags.ptr)[a[i].id] &= (uint8_t) ~TOK_F_SPECIAL;
        }
    }
    tok_pattern_free(&v);
    tok_scratch_free(s);
    return rc;
}


static int
added_trie(tok_build_t *b, bool normalized, tok_vec_t *cells, uint32_t *first,
    uint32_t *only)
{
    const tok_added_t  *a = b->added.ptr;
    tok_key_t          *keys;
    size_t              i, n = 0;
    int                 rc;

    keys = malloc(2 * (b->added.n + 1) * sizeof(*keys));
    if (keys == NULL) {
        return no_memory(b);
    }
    memset(first, 0, 8 * sizeof(*first));
    for (i = 0; i < b->added.n; i++) {
        if (!!(a[i].flags & TOK_A_NORMALIZED) != normalized
            || a[i].norm.len == 0)
        {
            continue;
        }
        keys[n].ptr = tok_build_text(b, a[i].norm);
        keys[n].len = a[i].norm.len;
        keys[n].value = (uint32_t) i;
        first[keys[n].ptr[0] >> 5] |= 1u << (keys[n].ptr[0] & 31);
        n++;
    }
    *only = n ? keys[0].ptr[0] : 256;
    for (i = 1; i < n; i++) {
        *only = keys[i].ptr[0] == *only ? *only : 256;
    }
    rc = n ? tok_trie_build(cells, keys, n, NULL) : 0;
    free(keys);
    return rc == 0 ? 0 : no_memory(b);
}


int
tok_tables_added(tok_build_t *b)
{
    tok_added_t  *a = b->added.ptr;
    size_t        i;
    int           rc;

    if (b->added.n) {
        qsort(a, b->added.n, sizeof(*a), added_cmp);
    }
    for (i = 1; i < b->added.n; i++) {
        if (a[i].id == a[i - 1].id) {
            return tok_fail(b->err, TOK_E_FORMAT, "tokenizer: added token id "
                            "%u is there twice", a[i].id);
        }
    }
    rc = normalize_added(b);
    if (rc == 0) {
        rc = added_trie(b, false, &b->table[TOK_S_ADDED_RAW], b->h.first_raw,
                        &b->h.only_raw);
    }
    if (rc == 0) {
        rc = added_trie(b, true, &b->table[TOK_S_ADDED_NORM],
                        b->h.first_norm, &b->h.only_norm);
    }
    return rc;
}


/* --- BPE --------------------------------------------------------------- */

/* Which token a byte starts as: by its character, or by its <0xAB>. */
int
tok_tables_bytes(tok_build_t *b)
{
    tok_vec_t  *v = &b->table[TOK_S_BYTE_IDS];
    uint32_t   *ids;
    uint8_t     buf[8];
    int         i;

    if (tok_vec_room(v, 256, sizeof(*ids)) != 0) {
        return no_memory(b);
    }
    ids = v->ptr;
    v->n = 256;
    for (i = 0; i < 256; i++) {
        if (b->h.bpe_flags & TOK_BPE_BYTE_MODE) {
            ids[i] = tok_build_find(b, buf, tok_utf8_put(buf,
                                                         tok_byte_char[i]));
            continue;
        }
        memcpy(buf, "<0x00>", 6);
        buf[3] = (uint8_t) "0123456789ABCDEF"[i >> 4];
        buf[4] = (uint8_t) "0123456789ABCDEF"[i & 15];
        ids[i] = tok_build_find(b, buf, 6);
    }
    return 0;
}


/* Whether words can be merged as bytes, and the whole text scanned at once. */
static void
choose_fast(tok_build_t *b)
{
    const tok_op_t  *p = b->pre.ptr, *last;
    size_t           n = b->pre.n, i;
    uint32_t        *f = &b->h.bpe_flags;
    const uint32_t  *ids;

    if (n == 0 || p[n - 1].type != TOK_P_BYTE_LEVEL
        || b->h.join != TOK_J_LOSSY || b->h.prefix.len
        || b->h.suffix.len || (*f & (TOK_BPE_BYTE_FALLBACK
                                     | TOK_BPE_HAS_UNK)))
    {
        return;
    }
    for (i = 0; i + 1 < n; i++) {
        if (p[i].type == TOK_P_BYTE_LEVEL) {
            return;
        }
    }
    for (i = 0; i < b->norm.n; i++) {
        if (((tok_op_t *) b->norm.ptr)[i].type == TOK_N_BYTE_LEVEL) {
            return;
        }
    }
    *f |= TOK_BPE_BYTE_MODE;
    last = &p[n - 1];
    if (tok_tables_bytes(b) != 0) {
        return;
    }
    ids = b->table[TOK_S_BYTE_IDS].ptr;
    for (i = 0; i < 256; i++) {
        if (ids[i] == TOK_NO_ID) {
            return;
        }
    }
    if (last->a
        || (b->norm.n && !(b->norm.n == 1
            && ((tok_op_t *) b->norm.ptr)->type == TOK_N_NFC)))
    {
        return;
    }
    if (n == 1 && last->b) {
        b->h.scan = TOK_R_GPT2;

    } else if (n == 2 && p[0].type == TOK_P_SCAN && !last->b) {
        b->h.scan = p[0].a;

    } else if (n == 2 && p[0].type == TOK_P_DIGITS && p[0].a && last->b) {
        b->h.scan = TOK_R_GPT2_DIGITS;

    } else {
        return;
    }
    b->h.fast = TOK_FAST_BYTES;
}


/* A token with a character beyond the alphabet is no word of any text. */
static bool
is_bytes(const tok_build_t *b, uint32_t id)
{
    tok_ref_t       r = ((tok_ref_t *) b->tokens.ptr)[id];
    const uint8_t  *p = tok_build_text(b, r);
    size_t          i, n;

    for (i = 0; i < r.len; i += n) {
        if (tok_char_byte(tok_utf8_get(p + i, &n)) < 0) {
            return false;
        }
    }
    return true;
}


int
tok_tables_bpe(tok_build_t *b)
{
    const tok_made_t  *made;
    uint8_t           *flags = b->flags.ptr;
    size_t             i;
    bool               whole;
    int                rc;

    choose_fast(b);
    rc = b->table[TOK_S_BYTE_IDS].n ? 0 : tok_tables_bytes(b);
    if (rc == 0 && !(b->h.bpe_flags & TOK_BPE_BYTE_MODE)) {
        tok_tables_fast(b);
        return b->h.fast != TOK_FAST_NONE ? 0 : tok_tables_merges(b);
    }
    rc = rc == 0 ? tok_tables_made(b) : rc;
    if (rc != 0) {
        return rc;
    }
    made = b->table[TOK_S_MADE].ptr;
    for (i = 0; i < b->flags.n; i++) {
        whole = b->h.bpe_flags & TOK_BPE_IGNORE_MERGES
                ? (flags[i] & TOK_F_MODEL) && is_bytes(b, (uint32_t) i)
                : made[i].rank != TOK_NO_ID;
        flags[i] |= whole ? TOK_F_WHOLE : 0;
    }
    rc = tok_tables_words(b);
    rc = rc == 0 ? tok_tables_pairs(b) : rc;
    return rc == 0 ? tok_tables_back(b) : rc;
}
