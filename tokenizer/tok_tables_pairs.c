/*
 * tok_tables_pairs.c: tables that spare merges a look into the merge table,
 * which lies outside the caches of a core: words that are tokens with key and
 * id in one place, the merges of two bytes by their values, and a filter that
 * most pairs without a merge do not pass.
 */

#include "tokenizer/tok_build.h"
#include "tokenizer/tok_keys.h"


static int
no_memory(tok_build_t *b)
{
    return tok_fail(b->err, TOK_E_NOMEM, "tokenizer: no memory for tables of "
                    "%zu tokens", b->tokens.n);
}


/* A zeroed table of n elements. */
static void *
table(tok_build_t *b, int sect, size_t n)
{
    tok_vec_t  *v = &b->table[sect];
    size_t      size = tok_sect_size(sect);

    if (tok_vec_room(v, n, size) != 0) {
        (void) no_memory(b);
        return NULL;
    }
    v->n = n;
    return memset(v->ptr, 0, n * size);
}


/* The least log with 1 << log >= n. */
static uint32_t
log_of(size_t n)
{
    uint32_t  log = 4;

    while (((size_t) 1 << log) < n) {
        log++;
    }
    return log;
}


int
tok_tables_words(tok_build_t *b)
{
    const tok_ref_t  *bytes = b->bytes.ptr;
    const uint8_t    *flags = b->flags.ptr;
    uint32_t          mask, at, id, n_ids = (uint32_t) b->tokens.n, left;
    size_t            n = 0;
    tok_word_t       *slot, w;
    uint64_t         *sieve;

    for (id = 0; id < n_ids; id++) {
        n += (flags[id] & TOK_F_WHOLE) != 0;
    }
    b->h.words_log = log_of(n + n / 2);
    mask = (1u << b->h.words_log) - 1;
    slot = table(b, TOK_S_WORDS, (size_t) mask + 1);
    sieve = table(b, TOK_S_SIEVE, (mask >> TOK_SIEVE_LOG) + 1);
    if (slot == NULL || sieve == NULL) {
        return TOK_E_NOMEM;
    }
    for (id = 0; id < n_ids; id++) {
        if (!(flags[id] & TOK_F_WHOLE) || bytes[id].len == 0) {
            continue;
        }
        w = tok_word_key(tok_build_text(b, bytes[id]), bytes[id].len, &at);
        sieve[tok_sieve_at(at, mask)] |= tok_sieve_bits(at);
        left = TOK_PROBES_MAX;
        /* The first free place of the line, then of the next lines. */
        for (at &= mask & ~(TOK_WORD_LINE - 1); slot[at].k1 != 0;
             at = (at + 1) & mask)
        {
            if (left-- == 0) {
                return tok_fail(b->err, TOK_E_LIMIT, "tokenizer: token %u is "
                                "one of many with nearly the same hash", id);
            }
        }
        w.k1 |= (uint64_t) (id + 1) << TOK_WORD_ID;
        slot[at] = w;
    }
    return 0;
}


static const tok_merge_t *
find(const tok_build_t *b, uint32_t l, uint32_t r)
{
    const tok_merge_t  *m = b->table[TOK_S_MERGES].ptr;
    uint32_t            mask = (1u << b->h.merges_log) - 1, at;

    at = tok_merge_slot((uint64_t) l << 32 | r, mask);
    for (;; at = (at + 1) & mask) {
        if (m[at].a == l && m[at].b == r) {
            return &m[at];
        }
        if (m[at].a == TOK_NO_ID) {
            return NULL;
        }
    }
}


/* Only merges of two byte tokens are looked up, not all 65,536 pairs. */
int
tok_tables_pairs(tok_build_t *b)
{
    const uint32_t     *ids = b->table[TOK_S_BYTE_IDS].ptr;
    const tok_merge_t  *list = b->merges.ptr, *m;
    const uint8_t      *p;
    const tok_ref_t    *bytes = b->bytes.ptr;
    tok_pair_t         *pair = table(b, TOK_S_PAIRS, 65536);
    size_t              i;
    uint8_t             x, y;

    if (pair == NULL) {
        return TOK_E_NOMEM;
    }
    memset(pair, 0xff, 65536 * sizeof(*pair));
    for (i = 0; i < b->merges.n; i++) {
        if (bytes[list[i].a].len != 1 || bytes[list[i].b].len != 1) {
            continue;
        }
        p = tok_build_text(b, bytes[list[i].a]);
        x = p[0];
        p = tok_build_text(b, bytes[list[i].b]);
        y = p[0];
        if (ids[x] != list[i].a || ids[y] != list[i].b) {
            continue;
        }
        m = find(b, list[i].a, list[i].b);
        if (m != NULL) {
            pair[x << 8 | y] = (tok_pair_t) { m->rank, m->to };
        }
    }
    return 0;
}


/* --- merges ------------------------------------------------------------ */

/* Of the filter eight bits a merge, two of them set, both in one word of 64. */
int
tok_tables_merges_begin(tok_build_t *b, size_t n)
{
    size_t  places;

    tok_vec_free(&b->table[TOK_S_MERGES]);
    tok_vec_free(&b->table[TOK_S_FILTER]);
    b->h.merges_log = log_of(n + n / 2);
    b->h.filter_log = log_of(n / 8 + 1);
    b->n_table = 0;
    places = (size_t) 1 << b->h.merges_log;
    if (table(b, TOK_S_MERGES, places) == NULL
        || table(b, TOK_S_FILTER, (size_t) 1 << b->h.filter_log) == NULL)
    {
        return TOK_E_NOMEM;
    }
    memset(b->table[TOK_S_MERGES].ptr, 0xff, places * sizeof(tok_merge_t));
    return 0;
}


/* Of a pair that is there already the last merge counts. */
static inline int
add(tok_build_t *b, const tok_merge_t *m)
{
    tok_merge_t  *slot = b->table[TOK_S_MERGES].ptr;
    uint64_t     *filter = b->table[TOK_S_FILTER].ptr;
    uint64_t      h = tok_pair_hash(m->a, m->b);
    uint32_t      mask = (1u << b->h.merges_log) - 1, left = TOK_PROBES_MAX;
    uint32_t      at = (uint32_t) (h >> 32);

    filter[at & ((1u << b->h.filter_log) - 1)] |= tok_filter_bits(h);
    for (at &= mask; slot[at].a != TOK_NO_ID; at = (at + 1) & mask) {
        if (slot[at].a == m->a && slot[at].b == m->b) {
            slot[at] = *m;
            return 0;
        }
        if (left-- == 0) {
            return TOK_E_LIMIT;
        }
    }
    slot[at] = *m;
    b->n_table++;
    return 0;
}


int
tok_tables_merges_add(tok_build_t *b, const tok_merge_t *m)
{
    return add(b, m);
}


int
tok_tables_merges(tok_build_t *b)
{
    const tok_merge_t  *m = b->merges.ptr, *slot;
    const uint64_t     *filter;
    uint32_t            at, mask, filter_mask;
    size_t              i;
    int                 rc = tok_tables_merges_begin(b, b->merges.n);

    slot = b->table[TOK_S_MERGES].ptr;
    filter = b->table[TOK_S_FILTER].ptr;
    mask = (1u << b->h.merges_log) - 1;
    filter_mask = (1u << b->h.filter_log) - 1;
    for (i = 0; i < b->merges.n && rc == 0; i++) {
        if (b->merges.n - i > 16) {
            at = (uint32_t) (tok_pair_hash(m[i + 16].a, m[i + 16].b) >> 32);
            __builtin_prefetch(&slot[at & mask], 1);
            __builtin_prefetch(&filter[at & filter_mask], 1);
        }
        rc = add(b, &m[i]);
        if (rc != 0) {
            return tok_fail(b->err, rc, "tokenizer: merge %zu is one of many "
                            "with nearly the same hash", i);
        }
    }
    return rc;
}
