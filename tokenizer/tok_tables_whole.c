/*
 * tok_tables_whole.c: which tokens come out when their own text is a word, and
 * what merges make them of.
 *
 * A token t made by merge r of a and b comes out whole if a and b do and no
 * merge across their border comes first: tok_stay_apart.
 */

#include "tokenizer/tok_build.h"
#include "tokenizer/tok_made.h"

#include <stdlib.h>


/* Merges whose tokens are tried, and symbols of such a token. */
#define TRY_TOKENS   8192
#define TRY_SYMBOLS  TOK_ODD_SYMBOLS

/* Merges that are asked for ahead: what makes them; and what is looked at
 * next when that is known. */
#define AHEAD        12
#define NEXT         6

/* In place of a shorter token while the table grows. */
#define ODD          0


static int
no_memory(tok_build_t *b)
{
    return tok_fail(b->err, TOK_E_NOMEM, "tokenizer: no memory for what %zu "
                    "tokens are made of", b->tokens.n);
}


/* What tok_merge_find needs. */
static tok_t
view(const tok_build_t *b)
{
    tok_t  t;

    memset(&t, 0, sizeof(t));
    t.img = &b->h;
    t.merges = b->table[TOK_S_MERGES].ptr;
    t.filter = b->table[TOK_S_FILTER].ptr;
    t.made = b->table[TOK_S_MADE].ptr;
    t.merge_mask = (1u << b->h.merges_log) - 1;
    t.filter_mask = (1u << b->h.filter_log) - 1;
    return t;
}


/* The tokens with which words begin: bytes, or characters. */
static void
mark_symbols(const tok_build_t *b, tok_made_t *made)
{
    const uint32_t   *base = b->table[TOK_S_BYTE_IDS].ptr;
    const tok_ref_t  *r = b->tokens.ptr;
    const uint8_t    *flags = b->flags.ptr, *p;
    size_t            i;

    if (b->h.bpe_flags & TOK_BPE_BYTE_MODE) {
        for (i = 0; i < 256; i++) {
            if (base[i] != TOK_NO_ID) {
                made[base[i]].rank = 0;
            }
        }
        return;
    }
    for (i = 0; i < b->tokens.n; i++) {
        p = tok_build_text(b, r[i]);
        if ((flags[i] & TOK_F_MODEL) && r[i].len
            && tok_utf8_size(p[0]) == r[i].len
            && tok_build_find(b, p, r[i].len) == i)
        {
            made[i].rank = 0;
        }
    }
}


/* What will be looked at first. */
static inline void
ask(const tok_t *t, const tok_made_t *made, const tok_merge_t *m)
{
    uint32_t  at;

    if (made[m->to].rank == TOK_NO_ID) {
        at = (uint32_t) (tok_pair_hash(m->a, m->b) >> 32);
        __builtin_prefetch(&t->filter[at & t->filter_mask], 1);
        __builtin_prefetch(&t->merges[at & t->merge_mask], 1);
        __builtin_prefetch(&made[m->a]);
        __builtin_prefetch(&made[m->b]);
    }
}


/* The border of a and b after its latest merge is undone; false: there is no
 * more to undo. */
static inline bool
undo(const tok_made_t *made, uint32_t *a, uint32_t *b, uint32_t *rank)
{
    uint32_t  x = made[*a].rank, y = made[*b].rank;

    if ((x | y) == 0) {
        return false;
    }
    if (x > y) {
        *rank = x;
        *a = made[*a].right;

    } else {
        *rank = y + 1;
        *b = made[*b].left;
    }
    return true;
}


static inline void
ask_next(const tok_t *t, const tok_made_t *made, const tok_merge_t *m)
{
    uint32_t  a = m->a, b = m->b, rank, n = t->img->n_ids;

    if (made[a].rank < TOK_MADE_ODD && made[b].rank < TOK_MADE_ODD
        && undo(made, &a, &b, &rank) && a < n && b < n)
    {
        __builtin_prefetch(&t->filter[(uint32_t) (tok_pair_hash(a, b) >> 32)
                                      & t->filter_mask]);
        __builtin_prefetch(&made[a]);
        __builtin_prefetch(&made[b]);
    }
}


/*
 * Whether a and b, of which merge number rank - 1 is made, stay apart until
 * then; that they have no merge before this one is known.
 */
static inline bool
apart(const tok_t *t, uint32_t a, uint32_t b, size_t *work)
{
    uint32_t  rank;

    return !undo(t->made, &a, &b, &rank)
           || tok_stay_apart(t, a, b, rank, work);
}


/* No token is made yet. */
static void
begin(tok_build_t *b)
{
    tok_vec_t  *v = &b->table[TOK_S_MADE];

    memset(v->ptr, 0xff, v->n * sizeof(tok_made_t));
    mark_symbols(b, v->ptr);
}


/* With all merges in the table. */
static int
made_of_all(tok_build_t *b)
{
    const tok_merge_t  *m = b->merges.ptr, *found;
    tok_made_t         *made = b->table[TOK_S_MADE].ptr;
    size_t              i, work, left = 64 * b->merges.n + 4096;
    uint32_t            r;
    tok_t               t;
    int                 rc = tok_tables_merges(b);

    if (rc != 0) {
        return rc;
    }
    begin(b);
    t = view(b);
    for (i = 0; i < b->merges.n; i++) {
        if (b->merges.n - i > AHEAD) {
            ask(&t, made, &m[i + AHEAD]);
            ask_next(&t, made, &m[i + NEXT]);
        }
        r = (uint32_t) i + 1;
        if (made[m[i].to].rank != TOK_NO_ID || made[m[i].a].rank >= r
            || made[m[i].b].rank >= r)
        {
            continue;
        }
        found = tok_merge_find(&t, m[i].a, m[i].b);
        work = TOK_TOKEN_BYTES_MAX;
        if (found == NULL || found->rank != i || left == 0
            || !apart(&t, m[i].a, m[i].b, &work))
        {
            continue;
        }
        work = TOK_TOKEN_BYTES_MAX - work;
        left -= work < left ? work : left;
        made[m[i].to].rank = r;
        made[m[i].to].left = m[i].a;
        made[m[i].to].right = m[i].b;
    }
    return 0;
}


/* How many tokens merges lead to; 0: no memory to count them. */
static size_t
count_results(const tok_build_t *b)
{
    const tok_merge_t  *m = b->merges.ptr;
    uint8_t            *is = calloc(b->tokens.n + 1, 1);
    size_t              i, n = 0;

    for (i = 0; is != NULL && i < b->merges.n; i++) {
        n += !is[m[i].to];
        is[m[i].to] = 1;
    }
    free(is);
    return n;
}


/* Whether a merge, whose parts are made before its turn, is never made. */
static inline bool
is_dead(const tok_t *t, const tok_merge_t *m, size_t *left)
{
    size_t  work = TOK_TOKEN_BYTES_MAX;
    bool    dead = !apart(t, m->a, m->b, &work);

    work = TOK_TOKEN_BYTES_MAX - work;
    *left -= work < *left ? work : *left;
    *left = work == TOK_TOKEN_BYTES_MAX ? 0 : *left;
    return dead;
}


/* A merge that is not there yet goes into the table; false: it is there. */
static inline bool
keep(tok_build_t *b, const tok_merge_t *m)
{
    size_t  n = b->n_table;

    return n <= b->tokens.n && tok_tables_merges_add(b, m) == 0
           && b->n_table > n;
}


/*
 * Merges m to end - 1 have one result, and none of them makes it in its turn.
 * Those that would have to wait for their parts may do so out of turn.  False:
 * as made_of_few.
 */
static bool
keep_odd(tok_build_t *b, tok_made_t *made, const tok_merge_t *m,
    const tok_merge_t *end)
{
    for (/* void */; m < end; m++) {
        if (made[m->a].rank > m->rank || made[m->b].rank > m->rank) {
            made[m->to].shorter = ODD;
            if (!keep(b, m)) {
                return false;
            }
        }
    }
    return true;
}


/*
 * The same, but the table grows with what is made: a merge that is never made
 * changes no other, and in some files that is most of them.  Merges with the
 * same result, which stand side by side, do not change each other either.
 * False: too odd a list (as one with a pair twice, of which the last counts),
 * or no memory.
 */
static bool
made_of_few(tok_build_t *b)
{
    const tok_merge_t  *m = b->merges.ptr, *end = m + b->merges.n, *run = m;
    tok_made_t         *made = b->table[TOK_S_MADE].ptr, *x;
    size_t              left = 64 * b->merges.n + 4096;
    tok_t               t;

    if (tok_tables_merges_begin(b, count_results(b)) != 0) {
        return false;
    }
    begin(b);
    t = view(b);
    for (/* void */; m < end; m++) {
        if (end - m > AHEAD) {
            ask(&t, made, m + AHEAD);
            ask_next(&t, made, m + NEXT);
        }
        x = &made[m->to];
        if (run->to != m->to) {
            run = m;
        }
        if (left == 0 || (x->left == m->a && x->right == m->b)
            || (x->shorter == ODD && tok_merge_find(&t, m->a, m->b) != NULL))
        {
            return false;
        }
        if (x->rank != TOK_NO_ID) {
            continue;
        }
        if (made[m->a].rank <= m->rank && made[m->b].rank <= m->rank
            && !is_dead(&t, m, &left))
        {
            if (!keep(b, m)) {
                return false;
            }
            x->rank = m->rank + 1;
            x->left = m->a;
            x->right = m->b;

        } else if ((end - m == 1 || m[1].to != m->to)
                   && !keep_odd(b, made, run, m + 1))
        {
            return false;
        }
    }
    return left > 0;
}


int
tok_tables_made(tok_build_t *b)
{
    tok_vec_t  *v = &b->table[TOK_S_MADE];

    if (tok_vec_room(v, b->tokens.n, sizeof(tok_made_t)) != 0) {
        return no_memory(b);
    }
    v->n = b->tokens.n;
    return made_of_few(b) ? 0 : made_of_all(b);
}


/* --- words as tokens after each other ---------------------------------- */

/* Whether merges, one after the other, make the text of id one token; *last is
 * the merge that does. */
static bool
comes_out(const tok_build_t *b, const tok_t *t, uint32_t id,
    const tok_merge_t **last)
{
    const uint32_t  *base = b->table[TOK_S_BYTE_IDS].ptr;
    bool             bytes = b->h.bpe_flags & TOK_BPE_BYTE_MODE;
    tok_ref_t        r = ((tok_ref_t *) (bytes ? b->bytes.ptr
                                         : b->tokens.ptr))[id];
    const uint8_t   *p = tok_build_text(b, r);
    uint32_t         sym[TRY_SYMBOLS];
    size_t           n = 0, i, size;

    for (i = 0; i < r.len; i += size) {
        size = bytes ? 1 : tok_utf8_size(p[i]);
        if (n == TRY_SYMBOLS) {
            return false;           /* see find_odd */
        }
        sym[n] = bytes ? base[p[i]] : tok_build_find(b, p + i, size);
        if (sym[n++] == TOK_NO_ID) {
            return false;           /* in no word as one of its symbols */
        }
    }
    return tok_merge_ends(t, sym, n, 0, last);
}


/*
 * Tokens that merges make in another order than that of their ranks: made by
 * trying.  false: there are too many, or too long ones, to know them all.
 */
static bool
find_odd(const tok_build_t *b)
{
    const tok_merge_t  *m = b->merges.ptr;
    const tok_merge_t  *last = NULL;
    const uint32_t     *bytes = b->table[TOK_S_BYTE_IDS].ptr;
    tok_made_t         *made = b->table[TOK_S_MADE].ptr;
    tok_t               t = view(b);
    size_t              i, n = 0;
    uint32_t            id;

    if (!(b->h.bpe_flags & TOK_BPE_BYTE_MODE)) {
        for (i = 0; i < 256; i++) {
            if (bytes[i] == TOK_NO_ID || made[bytes[i]].rank != TOK_NO_ID) {
                return false;       /* <0xAB> would stand for two things */
            }
        }
    }
    for (i = 0; i < b->merges.n; i++) {
        id = m[i].to;
        if (made[id].rank != TOK_NO_ID) {
            continue;
        }
        if (++n > TRY_TOKENS
            || ((tok_ref_t *) b->tokens.ptr)[id].len > TRY_SYMBOLS)
        {
            return false;
        }
        if (comes_out(b, &t, id, &last)) {
            assert(last != NULL && last->to == id);
            made[id].rank = TOK_MADE_ODD;
            made[id].left = last->a;
            made[id].right = last->b;
        }
    }
    return true;
}


/*
 * What merges make of a text they make of it inside of every word, so of all
 * merges to a token one at most is ever made: that which makes its own text
 * one token.  The others, in some files most of them, need no table.
 */
static int
drop_dead(tok_build_t *b)
{
    const tok_made_t  *made = b->table[TOK_S_MADE].ptr, *x;
    tok_merge_t       *m = b->merges.ptr;
    size_t             i, n = 0;

    for (i = 0; i < b->merges.n; i++) {
        x = &made[m[i].to];
        if (x->left == m[i].a && x->right == m[i].b) {
            m[n++] = m[i];
        }
    }
    b->merges.n = n;
    return n == b->n_table ? 0 : tok_tables_merges(b);
}


/*
 * The tables of tok_back.c, where tokens are such that it may be used; else
 * none.
 */
int
tok_tables_back(tok_build_t *b)
{
    const bool        bytes = b->h.bpe_flags & TOK_BPE_BYTE_MODE;
    const tok_ref_t  *text = bytes ? b->bytes.ptr : b->tokens.ptr;
    tok_made_t       *made = b->table[TOK_S_MADE].ptr;
    tok_key_t        *keys;
    size_t            i, n = 0;
    int               rc;

    if (!find_odd(b)) {
        b->table[TOK_S_MADE].n = 0;
        return tok_tables_merges(b);
    }
    rc = drop_dead(b);
    if (rc != 0) {
        return rc;
    }
    keys = tok_block((b->tokens.n + 1) * sizeof(*keys));
    if (keys == NULL) {
        return no_memory(b);
    }
    for (i = 0; i < b->tokens.n; i++) {
        if (made[i].rank != TOK_NO_ID) {
            keys[n].ptr = tok_build_text(b, text[i]);
            keys[n].len = text[i].len;
            keys[n++].value = (uint32_t) i;
        }
    }
    rc = tok_trie_build(&b->table[TOK_S_TRIE], keys, n, made);
    free(keys);
    return rc == 0 ? 0 : no_memory(b);
}
