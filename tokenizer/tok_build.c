/*
 * tok_build.c: the builder.  Strings go into one pool, tokens into arrays by
 * id; tok_build_finish asks tok_tables.c for the derived tables and lays all
 * out as one block.
 */

#include "tokenizer/tok_build.h"
#include "tokenizer/tok_made.h"

#include <stdlib.h>


/* How far ahead the index fetches its places. */
#define INDEX_AHEAD  16


void
tok_build_init(tok_build_t *b, tok_err_t *err)
{
    memset(b, 0, sizeof(*b));
    b->err = err;
    b->h.bos = b->h.eos = b->h.pad = b->h.unk = TOK_NO_ID;
}


void
tok_build_free(tok_build_t *b)
{
    size_t  i;

    tok_vec_free(&b->pool);
    tok_vec_free(&b->tokens);
    tok_vec_free(&b->flags);
    tok_vec_free(&b->bytes);
    tok_vec_free(&b->first);
    tok_vec_free(&b->last);
    tok_vec_free(&b->merges);
    tok_vec_free(&b->scores);
    tok_vec_free(&b->added);
    tok_vec_free(&b->added_index);
    tok_vec_free(&b->norm);
    tok_vec_free(&b->pre);
    tok_vec_free(&b->post);
    tok_vec_free(&b->decode);
    tok_vec_free(&b->eos);
    tok_vec_free(&b->charsmap);
    for (i = 0; i < TOK_S_MAX; i++) {
        tok_vec_free(&b->table[i]);
    }
    free(b->hash);
    b->hash = NULL;
}


static int
no_memory(tok_build_t *b)
{
    return tok_fail(b->err, TOK_E_NOMEM, "tokenizer: no memory while loading "
                    "(%zu bytes of strings so far)", b->pool.n);
}


int
tok_build_string(tok_build_t *b, const char *p, size_t len, tok_ref_t *ref)
{
    if (len > TOK_POOL_BYTES_MAX - b->pool.n) {
        return tok_fail(b->err, TOK_E_LIMIT, "tokenizer: strings of more than "
                        "%u bytes", TOK_POOL_BYTES_MAX);
    }
    if (tok_vec_room(&b->pool, len, 1) != 0) {
        return no_memory(b);
    }
    if (len) {
        memcpy((uint8_t *) b->pool.ptr + b->pool.n, p, len);
    }
    ref->off = (uint32_t) b->pool.n;
    ref->len = (uint32_t) len;
    b->pool.n += len;
    return 0;
}


const uint8_t *
tok_build_text(const tok_build_t *b, tok_ref_t ref)
{
    assert(ref.off <= b->pool.n && ref.len <= b->pool.n - ref.off);
    return b->pool.ptr == NULL ? (const uint8_t *) ""
           : (const uint8_t *) b->pool.ptr + ref.off;
}


/* Room that is not used costs nothing; what grows is moved. */
void
tok_build_expect(tok_build_t *b, size_t tokens, size_t merges, size_t bytes)
{
    tokens = tokens < TOK_IDS_MAX ? tokens : TOK_IDS_MAX;
    merges = merges < TOK_MERGES_MAX ? merges : TOK_MERGES_MAX;
    (void) tok_vec_room(&b->tokens, tokens, sizeof(tok_ref_t));
    (void) tok_vec_room(&b->flags, tokens, 1);
    (void) tok_vec_room(&b->merges, merges, sizeof(tok_merge_t));
    (void) tok_vec_room(&b->pool, bytes, 1);
}


int
tok_build_ids(tok_build_t *b, uint32_t n)
{
    uint32_t  have = (uint32_t) b->tokens.n;

    if (n > TOK_IDS_MAX) {
        return tok_fail(b->err, TOK_E_LIMIT, "tokenizer: id %u, the limit is "
                        "%u", n - 1, TOK_IDS_MAX - 1);
    }
    if (n <= have) {
        return 0;
    }
    if (tok_vec_room(&b->tokens, n - have, sizeof(tok_ref_t)) != 0
        || tok_vec_room(&b->flags, n - have, 1) != 0)
    {
        return no_memory(b);
    }
    memset((tok_ref_t *) b->tokens.ptr + have, 0,
           (n - have) * sizeof(tok_ref_t));
    memset((uint8_t *) b->flags.ptr + have, 0, n - have);
    b->tokens.n = n;
    b->flags.n = n;
    return 0;
}


int
tok_build_token(tok_build_t *b, uint32_t id, const char *p, size_t len)
{
    int  rc;

    if (len > TOK_TOKEN_BYTES_MAX) {
        return tok_fail(b->err, TOK_E_LIMIT, "tokenizer: token %u has %zu "
                        "bytes, the limit is %u", id, len,
                        TOK_TOKEN_BYTES_MAX);
    }
    if (id >= b->tokens.n) {
        if (id >= TOK_IDS_MAX) {
            return tok_fail(b->err, TOK_E_LIMIT, "tokenizer: id %u of \"%.*s\""
                            ", the limit is %u", id, (int) (len < 60 ? len
                            : 60), p, TOK_IDS_MAX - 1);
        }
        rc = tok_build_ids(b, id + 1);
        if (rc != 0) {
            return rc;
        }
    }
    if (((uint8_t *) b->flags.ptr)[id] & TOK_F_MODEL) {
        return tok_fail(b->err, TOK_E_FORMAT, "tokenizer: id %u is given to "
                        "two tokens, the second is \"%.*s\"", id,
                        (int) (len < 60 ? len : 60), p);
    }
    ((uint8_t *) b->flags.ptr)[id] |= TOK_F_MODEL;
    b->h.n_model++;
    return tok_build_string(b, p, len, (tok_ref_t *) b->tokens.ptr + id);
}


/* An id whose token is there twice; else its place in the index is taken. */
static int
index_token(tok_build_t *b, uint32_t id, uint64_t h, bool unique)
{
    const tok_ref_t  *tokens = b->tokens.ptr;
    const uint8_t    *text = tok_build_text(b, tokens[id]);
    uint32_t          mask = (1u << b->hash_log) - 1, at, other;
    uint32_t          left = TOK_PROBES_MAX;
    size_t            len = tokens[id].len;

    for (at = (uint32_t) h & mask; b->hash[at] != 0; at = (at + 1) & mask) {
        if (left-- == 0) {
            return tok_fail(b->err, TOK_E_LIMIT, "tokenizer: token \"%.*s\" "
                            "is one of many with nearly the same hash",
                            (int) (len < 60 ? len : 60), (const char *) text);
        }
        other = (uint32_t) b->hash[at] - 1;
        if ((b->hash[at] ^ h) >> 32 || tokens[other].len != len
            || memcmp(tok_build_text(b, tokens[other]), text, len) != 0)
        {
            continue;
        }
        b->repeated = true;
        return !unique ? 0
               : tok_fail(b->err, TOK_E_FORMAT, "tokenizer: token \"%.*s\" is "
                          "there twice", (int) (len < 60 ? len : 60),
                          (const char *) text);
    }
    b->hash[at] = (h & 0xffffffff00000000ull) | (id + 1);
    return 0;
}


int
tok_build_index(tok_build_t *b, bool unique)
{
    const tok_ref_t  *tokens = b->tokens.ptr;
    const uint8_t    *flags = b->flags.ptr;
    uint32_t          id, k, n = (uint32_t) b->tokens.n, log = 4, mask;
    uint64_t          h[INDEX_AHEAD];
    int               rc = 0;

    while ((1u << log) < n + n / 2) {
        log++;
    }
    free(b->hash);
    b->hash = tok_block(sizeof(uint64_t) << log);
    if (b->hash == NULL) {
        return no_memory(b);
    }
    memset(b->hash, 0, sizeof(uint64_t) << log);
    b->hash_log = log;
    b->repeated = false;
    mask = (1u << log) - 1;
    for (id = 0; id < n + INDEX_AHEAD && rc == 0; id++) {
        k = id % INDEX_AHEAD;
        if (id >= INDEX_AHEAD && (flags[id - INDEX_AHEAD] & TOK_F_MODEL)) {
            rc = index_token(b, id - INDEX_AHEAD, h[k], unique);
        }
        if (id < n) {
            h[k] = tok_hash_bytes(tok_build_text(b, tokens[id]),
                                  tokens[id].len);
            __builtin_prefetch(&b->hash[(uint32_t) h[k] & mask], 1);
        }
    }
    return rc;
}


uint32_t
tok_build_find(const tok_build_t *b, const uint8_t *p, size_t len)
{
    const tok_ref_t  *tokens = b->tokens.ptr;
    uint32_t          mask = (1u << b->hash_log) - 1, at, id;
    uint64_t          h = tok_hash_bytes(p, len);

    assert(b->hash != NULL);
    for (at = (uint32_t) h & mask; b->hash[at] != 0; at = (at + 1) & mask) {
        if ((b->hash[at] ^ h) >> 32) {
            continue;
        }
        id = (uint32_t) b->hash[at] - 1;
        if (tokens[id].len == len
            && memcmp(tok_build_text(b, tokens[id]), p, len) == 0)
        {
            return id;
        }
    }
    return TOK_NO_ID;
}


/* Where the index has the added token of this text, or a free place. */
static uint32_t *
added_place(const tok_build_t *b, const uint8_t *p, size_t len)
{
    const tok_added_t  *a = b->added.ptr;
    uint32_t           *index = b->added_index.ptr;
    size_t              mask = b->added_index.n - 1, left = TOK_PROBES_MAX;
    size_t              at = tok_hash_bytes(p, len) & mask;
    tok_ref_t           r;

    for (/* void */; index[at] != 0; at = (at + 1) & mask) {
        if (left-- == 0) {
            return NULL;
        }
        r = a[index[at] - 1].text;
        if (r.len == len && memcmp(tok_build_text(b, r), p, len) == 0) {
            break;
        }
    }
    return &index[at];
}


tok_added_t *
tok_build_added_find(const tok_build_t *b, const uint8_t *p, size_t len)
{
    uint32_t  *place;

    if (b->added.n == 0) {
        return NULL;
    }
    place = added_place(b, p, len);
    return place == NULL || *place == 0 ? NULL
           : (tok_added_t *) b->added.ptr + *place - 1;
}


/* The index is at most half full: all of it is made anew if it grows. */
static int
index_added(tok_build_t *b)
{
    const tok_added_t  *a = b->added.ptr;
    tok_vec_t          *v = &b->added_index;
    uint32_t           *place;
    size_t              from = b->added.n - 1, n;

    if (2 * b->added.n > v->n) {
        n = v->n ? 2 * v->n : 64;
        if (tok_vec_room(v, n - v->n, sizeof(uint32_t)) != 0) {
            return no_memory(b);
        }
        v->n = n;
        memset(v->ptr, 0, n * sizeof(uint32_t));
        from = 0;
    }
    for (/* void */; from < b->added.n; from++) {
        place = added_place(b, tok_build_text(b, a[from].text),
                            a[from].text.len);
        if (place == NULL) {
            return tok_fail(b->err, TOK_E_LIMIT, "tokenizer: added token %u is "
                            "one of many with nearly the same hash",
                            a[from].id);
        }
        *place = (uint32_t) from + 1;
    }
    return 0;
}


int
tok_build_added(tok_build_t *b, uint32_t id, const char *p, size_t len,
    uint32_t flags)
{
    tok_added_t  a = { id, flags, { 0, 0 }, { 0, 0 } };
    int          rc;

    if (b->added.n >= TOK_ADDED_MAX || len > TOK_TOKEN_BYTES_MAX) {
        return tok_fail(b->err, TOK_E_LIMIT, "tokenizer: added token %zu of "
                        "%zu bytes; limits %u and %u", b->added.n, len,
                        TOK_ADDED_MAX, TOK_TOKEN_BYTES_MAX);
    }
    if (id >= TOK_IDS_MAX) {
        return tok_fail(b->err, TOK_E_LIMIT, "tokenizer: added token id %u, "
                        "the limit is %u", id, TOK_IDS_MAX - 1);
    }
    rc = tok_build_ids(b, id + 1);
    if (rc == 0) {
        rc = tok_build_string(b, p, len, &a.text);
    }
    if (rc != 0) {
        return rc;
    }
    a.norm = a.text;
    if (tok_vec_room(&b->added, 1, sizeof(a)) != 0) {
        return no_memory(b);
    }
    ((tok_added_t *) b->added.ptr)[b->added.n++] = a;
    ((uint8_t *) b->flags.ptr)[id] |= (uint8_t)
        (TOK_F_ADDED | (flags & TOK_A_SPECIAL ? TOK_F_SPECIAL : 0));
    return index_added(b);
}


int
tok_build_op(tok_build_t *b, tok_vec_t *list, const tok_op_t *op)
{
    if (list->n >= TOK_OPS_MAX) {
        return tok_fail(b->err, TOK_E_LIMIT, "tokenizer: more than %u steps in"
                        " one sequence", TOK_OPS_MAX);
    }
    if (tok_vec_room(list, 1, sizeof(*op)) != 0) {
        return no_memory(b);
    }
    ((tok_op_t *) list->ptr)[list->n++] = *op;
    return 0;
}


static const uint8_t  sect_size[TOK_S_MAX] = {
    [TOK_S_POOL] = 1, [TOK_S_TOKENS] = sizeof(tok_ref_t), [TOK_S_FLAGS] = 1,
    [TOK_S_BYTES] = sizeof(tok_ref_t), [TOK_S_FIRST] = sizeof(tok_ref_t),
    [TOK_S_LAST] = sizeof(tok_ref_t), [TOK_S_HASH] = 8,
    [TOK_S_MERGES] = sizeof(tok_merge_t), [TOK_S_WORDS] = sizeof(tok_word_t),
    [TOK_S_PAIRS] = sizeof(tok_pair_t), [TOK_S_FILTER] = 8, [TOK_S_SIEVE] = 8,
    [TOK_S_BYTE_IDS] = 4, [TOK_S_SCORES] = 8,
    [TOK_S_TRIE] = sizeof(tok_cell_t), [TOK_S_ADDED] = sizeof(tok_added_t),
    [TOK_S_ADDED_RAW] = sizeof(tok_cell_t),
    [TOK_S_ADDED_NORM] = sizeof(tok_cell_t),
    [TOK_S_NORM] = sizeof(tok_op_t), [TOK_S_PRE] = sizeof(tok_op_t),
    [TOK_S_POST] = sizeof(tok_op_t), [TOK_S_DECODE] = sizeof(tok_op_t),
    [TOK_S_EOS] = 4, [TOK_S_CHARSMAP] = 1, [TOK_S_JOINS] = 8,
    [TOK_S_MADE] = sizeof(tok_made_t)
};


size_t
tok_sect_size(int sect)
{
    assert(sect >= 0 && sect < TOK_S_MAX);
    return sect_size[sect];
}


/* What the file was read to; nobody reads it when tables are made. */
void *
tok_build_lend(tok_build_t *b, size_t bytes)
{
    return b->spare != NULL && bytes <= b->spare_bytes ? *b->spare : NULL;
}


/* Memory of the block: what the file was read to, if that is hardly larger, for
 * its pages are there already. */
static uint8_t *
block_of(tok_build_t *b, size_t bytes)
{
    uint8_t  *p;

    if (b->spare == NULL || b->spare_bytes < bytes
        || b->spare_bytes - bytes > bytes / 4)
    {
        return tok_block(bytes);
    }
    p = (uint8_t *) *b->spare;
    *b->spare = NULL;
    return p;
}


static int
lay_out(tok_build_t *b, tok_t **t)
{
    tok_vec_t    *src[TOK_S_MAX];
    size_t        at = sizeof(tok_image_t), i, bytes;
    uint8_t      *block;
    tok_image_t  *h = &b->h;

    for (i = 0; i < TOK_S_MAX; i++) {
        src[i] = &b->table[i];
    }
    src[TOK_S_POOL] = &b->pool;
    src[TOK_S_TOKENS] = &b->tokens;
    src[TOK_S_FLAGS] = &b->flags;
    src[TOK_S_BYTES] = &b->bytes;
    src[TOK_S_FIRST] = &b->first;
    src[TOK_S_LAST] = &b->last;
    src[TOK_S_SCORES] = &b->scores;
    src[TOK_S_ADDED] = &b->added;
    src[TOK_S_NORM] = &b->norm;
    src[TOK_S_PRE] = &b->pre;
    src[TOK_S_POST] = &b->post;
    src[TOK_S_DECODE] = &b->decode;
    src[TOK_S_EOS] = &b->eos;
    src[TOK_S_CHARSMAP] = &b->charsmap;

    for (i = 0; i < TOK_S_MAX; i++) {
        at = (at + 63) & ~(size_t) 63;
        h->sect[i].off = at;
        h->sect[i].n = src[i]->n;
        at += src[i]->n * sect_size[i];
    }
    /* Loads of a word may reach 31 bytes over the end of the pool. */
    bytes = (at + 64 + 4095) & ~(size_t) 4095;
    block = block_of(b, bytes);
    if (block == NULL) {
        return no_memory(b);
    }
    h->magic = TOK_IMAGE_MAGIC;
    h->version = TOK_IMAGE_VERSION;
    h->bytes_header = sizeof(*h);
    h->bytes = bytes;
    memset(block, 0, sizeof(*h));
    memcpy(block, h, sizeof(*h));
    at = sizeof(*h);
    for (i = 0; i < TOK_S_MAX; i++) {
        memset(block + at, 0, h->sect[i].off - at);
        at = h->sect[i].off + src[i]->n * sect_size[i];
        if (src[i]->n) {
            memcpy(block + h->sect[i].off, src[i]->ptr,
                   src[i]->n * sect_size[i]);
        }
    }
    memset(block + at, 0, bytes - at);
    return tok_bind(t, block, bytes, false, b->err);
}


int
tok_build_finish(tok_build_t *b, tok_t **t)
{
    tok_vec_t  *hash = &b->table[TOK_S_HASH];
    int         rc;

    *t = NULL;
    assert(b->hash != NULL && b->n_waiting == 0);
    b->h.n_ids = (uint32_t) b->tokens.n;
    rc = tok_tables_added(b);
    if (rc == 0) {
        rc = tok_tables_decode(b);
    }
    if (rc == 0 && b->h.model == TOK_M_BPE) {
        rc = tok_tables_bpe(b);
    }
    if (rc == 0 && (b->h.model == TOK_M_UNIGRAM
                    || b->h.model == TOK_M_WORDPIECE))
    {
        rc = tok_tables_trie(b);
    }
    if (rc != 0) {
        return rc;
    }
    if (b->h.model != TOK_M_BPE) {
        tok_tables_fast(b);
    }
    b->h.hash_log = b->hash_log;
    hash->ptr = b->hash;
    hash->n = (size_t) 1 << b->hash_log;
    hash->bytes = hash->n * sizeof(uint64_t);
    b->hash = NULL;
    return lay_out(b, t);
}
