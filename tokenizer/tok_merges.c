/*
 * tok_merges.c: the builder's merges.  Each names two tokens and makes a
 * third: three look-ups in tables far larger than a cache.  So merges wait
 * until there are some dozens of them, and what each will read is fetched
 * ahead, step by step, for all of them at once.
 */

#include "tokenizer/tok_build.h"

#include <stdlib.h>


static int
missing(tok_build_t *b, const char *what, const uint8_t *p, size_t len)
{
    return tok_fail(b->err, TOK_E_FORMAT, "tokenizer: merge %zu: %s \"%.*s\" "
                    "is not in the vocabulary", b->merges.n, what,
                    (int) (len < 60 ? len : 60), (const char *) p);
}


/* The result of a merge, without asking the index if it is a near id. */
static uint32_t
result_of(const tok_build_t *b, const uint8_t *p, size_t len)
{
    const tok_ref_t    *tokens = b->tokens.ptr;
    const tok_merge_t  *m = b->merges.ptr;
    uint32_t            id = b->merges.n ? m[b->merges.n - 1].to : 0, last;

    /*
     * Files list merges by their results: by rank, and where a result has
     * several merges those beside each other.  With spellings that are there
     * twice the index knows the one that counts.
     */
    last = b->repeated ? id : id + 3;
    for (/* void */; id < last && id < b->tokens.n; id++) {
        if (tokens[id].len == len
            && tok_same(tok_build_text(b, tokens[id]), p, len)
            && (((const uint8_t *) b->flags.ptr)[id] & TOK_F_MODEL))
        {
            return id;
        }
    }
    return tok_build_find(b, p, len);
}


/* l and r stand at p, one behind the other; a and b are their ids. */
static int
append(tok_build_t *b, const uint8_t *p, size_t l_len, size_t r_len,
    uint32_t left, uint32_t right)
{
    uint8_t      *joined = NULL;
    tok_merge_t   m = { left, right, (uint32_t) b->merges.n, 0 };
    size_t        skip = b->h.prefix.len, len;
    int           rc = 0;

    if (left == TOK_NO_ID) {
        return missing(b, "token", p, l_len);
    }
    if (right == TOK_NO_ID) {
        return missing(b, "token", p + l_len, r_len);
    }
    if (r_len < skip) {
        return missing(b, "the prefix of token", p + l_len, r_len);
    }
    len = l_len + r_len - skip;
    if (skip) {
        joined = malloc(len + 1);
        if (joined == NULL) {
            return tok_fail(b->err, TOK_E_NOMEM, "tokenizer: no memory");
        }
        memcpy(joined, p, l_len);
        memcpy(joined + l_len, p + l_len + skip, r_len - skip);
        p = joined;
    }
    m.to = result_of(b, p, len);
    if (m.to == TOK_NO_ID) {
        rc = missing(b, "its result", p, len);

    } else if (tok_vec_room(&b->merges, 1, sizeof(m)) != 0) {
        rc = tok_fail(b->err, TOK_E_NOMEM, "tokenizer: no memory");

    } else {
        ((tok_merge_t *) b->merges.ptr)[b->merges.n++] = m;
    }
    free(joined);
    return rc;
}


/* The first token whose hash looks right. */
static uint32_t
candidate(const tok_build_t *b, uint64_t h)
{
    uint32_t  mask = (1u << b->hash_log) - 1, at = (uint32_t) h & mask;

    while (b->hash[at] != 0 && ((b->hash[at] ^ h) >> 32)) {
        at = (at + 1) & mask;
    }
    return (uint32_t) b->hash[at] - 1;          /* an empty one: TOK_NO_ID */
}


static uint32_t
settle(const tok_build_t *b, uint32_t id, const uint8_t *p, size_t len)
{
    const tok_ref_t  *r = (const tok_ref_t *) b->tokens.ptr + id;

    if (id == TOK_NO_ID || (r->len == len
                            && tok_same(tok_build_text(b, *r), p, len)))
    {
        return id;
    }
    return tok_build_find(b, p, len);
}


int
tok_build_merges_end(tok_build_t *b)
{
    const tok_ref_t      *tokens = b->tokens.ptr;
    tok_build_waiting_t  *w = b->waiting;
    const uint8_t        *p;
    uint32_t              i, n = b->n_waiting;
    int                   rc = 0;

    b->n_waiting = 0;
    b->waiting_bytes = 0;
    for (i = 0; i < n; i++) {
        w[i].left = candidate(b, w[i].l_hash);
        w[i].right = candidate(b, w[i].r_hash);
        if (w[i].left != TOK_NO_ID && w[i].right != TOK_NO_ID) {
            __builtin_prefetch(&tokens[w[i].left]);
            __builtin_prefetch(&tokens[w[i].right]);
        }
    }
    for (i = 0; i < n; i++) {
        if (w[i].left != TOK_NO_ID && w[i].right != TOK_NO_ID) {
            __builtin_prefetch(tok_build_text(b, tokens[w[i].left]));
            __builtin_prefetch(tok_build_text(b, tokens[w[i].right]));
        }
    }
    for (i = 0; i < n && rc == 0; i++) {
        p = b->waiting_text + w[i].at;
        rc = append(b, p, w[i].l_len, w[i].r_len,
                    settle(b, w[i].left, p, w[i].l_len),
                    settle(b, w[i].right, p + w[i].l_len, w[i].r_len));
    }
    return rc;
}


/* Too long to wait: at once, after those that wait. */
static int
merge_long(tok_build_t *b, const uint8_t *l, size_t l_len, const uint8_t *r,
    size_t r_len)
{
    uint8_t  *p;
    int       rc = tok_build_merges_end(b);

    if (rc != 0) {
        return rc;
    }
    if (l_len > TOK_TOKEN_BYTES_MAX || r_len > TOK_TOKEN_BYTES_MAX) {
        return missing(b, "token", l_len > r_len ? l : r,
                       l_len > r_len ? l_len : r_len);
    }
    p = malloc(l_len + r_len);
    if (p == NULL) {
        return tok_fail(b->err, TOK_E_NOMEM, "tokenizer: no memory");
    }
    memcpy(p, l, l_len);
    memcpy(p + l_len, r, r_len);
    rc = append(b, p, l_len, r_len, tok_build_find(b, l, l_len),
                tok_build_find(b, r, r_len));
    free(p);
    return rc;
}


int
tok_build_merge(tok_build_t *b, const uint8_t *l, size_t l_len,
    const uint8_t *r, size_t r_len)
{
    uint32_t              mask = (1u << b->hash_log) - 1;
    tok_build_waiting_t  *w;
    uint8_t              *p;
    int                   rc;

    assert(b->hash != NULL);
    if (b->merges.n + b->n_waiting >= TOK_MERGES_MAX) {
        return tok_fail(b->err, TOK_E_LIMIT, "tokenizer: more than %u merges",
                        TOK_MERGES_MAX);
    }
    if (l_len > TOK_WAITING_BYTES / 4 || r_len > TOK_WAITING_BYTES / 4) {
        return merge_long(b, l, l_len, r, r_len);
    }
    if (b->n_waiting == TOK_WAITING_MAX
        || l_len + r_len > TOK_WAITING_BYTES - b->waiting_bytes)
    {
        rc = tok_build_merges_end(b);
        if (rc != 0) {
            return rc;
        }
    }
    w = &b->waiting[b->n_waiting++];
    p = b->waiting_text + b->waiting_bytes;
    w->at = b->waiting_bytes;
    w->l_len = (uint32_t) l_len;
    w->r_len = (uint32_t) r_len;
    b->waiting_bytes += (uint32_t) (l_len + r_len);
    memcpy(p, l, l_len);
    memcpy(p + l_len, r, r_len);
    w->l_hash = tok_hash_bytes(p, l_len);
    w->r_hash = tok_hash_bytes(p + l_len, r_len);
    __builtin_prefetch(&b->hash[(uint32_t) w->l_hash & mask]);
    __builtin_prefetch(&b->hash[(uint32_t) w->r_hash & mask]);
    return 0;
}
