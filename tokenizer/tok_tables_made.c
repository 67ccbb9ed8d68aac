/*
 * tok_tables_made.c: which tokens come out when their own text is a word, and
 * what merges make them of.
 *
 * A token t made by merge r of a and b comes out whole if a and b do and no
 * merge across their border comes first: tok_stay_apart.
 */

#include "tokenizer/tok_build.h"
#include "tokenizer/tok_made.h"

#include <stdlib.h>


/* Results that are looked at side by side, and merges that are asked for
 * ahead. */
#define WALKS  32
#define AHEAD  24

/* In place of a shorter token while the table grows: a merge that leads to this
 * one is in the table though it may never be made; it is being looked at. */
#define ODD      0
#define PENDING  1


static int
no_memory(tok_build_t *b)
{
    return tok_fail(b->err, TOK_E_NOMEM, "tokenizer: no memory for what %zu "
                    "tokens are made of", b->tokens.n);
}


/* What tok_merge_find needs. */
tok_t
tok_tables_view(const tok_build_t *b)
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
    t = tok_tables_view(b);
    for (i = 0; i < b->merges.n; i++) {
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


/* --- a table that grows ------------------------------------------------- */

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


/* A merge that is not there yet goes into the table; false: it is there, or the
 * table would be full. */
static inline bool
keep(tok_build_t *b, const tok_merge_t *m)
{
    size_t  n = b->n_table, places = (size_t) 1 << b->h.merges_log;

    return n < places - places / 4 && tok_tables_merges_add(b, m) == 0
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


/* Merges with one result, and how far they are looked at. */
typedef struct {
    const tok_merge_t  *begin, *end;
    const tok_merge_t  *m;          /* this one; it is made, if its border is
                                       undone and none was found across it */
    uint32_t            a, b, rank;
    bool                look;       /* the pair passed the filter */
} walk_t;

typedef struct {
    tok_build_t        *b;
    tok_made_t         *made;
    tok_t               t;
    const tok_merge_t  *end;
    size_t              left;       /* steps */
    size_t              n;
    walk_t              w[WALKS];
} few_t;


/* What the next step of a walk needs; false: the border is undone. */
static inline bool
walk_on(const few_t *f, walk_t *w)
{
    if (!undo(f->made, &w->a, &w->b, &w->rank)) {
        return false;
    }
    __builtin_prefetch(&f->t.filter[(uint32_t) (tok_pair_hash(w->a, w->b)
                                                >> 32) & f->t.filter_mask]);
    __builtin_prefetch(&f->made[w->a]);
    __builtin_prefetch(&f->made[w->b]);
    return true;
}


/* The next merge, from m on, whose parts are made before its turn; false: there
 * is none, or it is made. */
static inline bool
walk_begin(const few_t *f, walk_t *w)
{
    for (/* void */; w->m < w->end; w->m++) {
        if (f->made[w->m->a].rank <= w->m->rank
            && f->made[w->m->b].rank <= w->m->rank)
        {
            w->a = w->m->a;
            w->b = w->m->b;
            w->look = false;
            return walk_on(f, w);
        }
    }
    return false;
}


/* As tok_stay_apart, a part of it at a time; false: it is known. */
static inline bool
walk_step(const few_t *f, walk_t *w)
{
    uint64_t            h = tok_pair_hash(w->a, w->b);
    const tok_merge_t  *m;

    if (!w->look && tok_merge_may(&f->t, h)) {
        __builtin_prefetch(&f->t.merges[(uint32_t) (h >> 32)
                                        & f->t.merge_mask]);
        w->look = true;
        return true;
    }
    if (w->look) {
        w->look = false;
        m = tok_merge_get(&f->t, w->a, w->b, h);
        if (m != NULL && m->rank + 1 < w->rank) {
            w->m++;
            return walk_begin(f, w);
        }
    }
    return walk_on(f, w);
}


/*
 * The next results: as many as do not need what is found out about each other,
 * that is whose parts are others.  Returns where the merges go on, or NULL.
 */
static const tok_merge_t *
gather(few_t *f, const tok_merge_t *m)
{
    const tok_merge_t  *k, *next;
    tok_made_t         *x;
    bool                wait = false;

    for (f->n = 0; m < f->end && f->n < WALKS && !wait; m = next) {
        x = &f->made[m->to];
        wait = x->shorter == PENDING || (x->shorter == ODD && f->n > 0);
        for (k = m; k < f->end && k->to == m->to && !wait; k++) {
            if (f->end - k > AHEAD) {
                __builtin_prefetch(&f->made[k[AHEAD].to]);
                __builtin_prefetch(&f->made[k[AHEAD].a]);
                __builtin_prefetch(&f->made[k[AHEAD].b]);
            }
            wait = f->made[k->a].shorter == PENDING
                   || f->made[k->b].shorter == PENDING;
            if ((x->left == k->a && x->right == k->b)
                || (x->shorter == ODD
                    && tok_merge_find(&f->t, k->a, k->b) != NULL))
            {
                return NULL;
            }
        }
        next = wait ? m : k;
        if (!wait && x->rank == TOK_NO_ID) {
            f->w[f->n++] = (walk_t) { m, k, m, 0, 0, 0, false };
            wait = x->shorter == ODD;
            x->shorter = wait ? ODD : PENDING;
        }
    }
    return m;
}


static void
walk_all(few_t *f)
{
    walk_t  *run[WALKS];
    size_t   i, k, n = 0;

    for (i = 0; i < f->n; i++) {
        run[n] = &f->w[i];
        n += walk_begin(f, run[n]);
    }
    for (/* void */; n; n = k) {
        f->left -= n < f->left ? n : f->left;
        for (i = k = 0; i < n; i++) {
            run[k] = run[i];
            k += walk_step(f, run[i]);
        }
    }
}


/* What was found out, in the order of ranks; false: as made_of_few. */
static bool
settle(few_t *f)
{
    const tok_merge_t  *m, *k;
    tok_made_t         *x;
    uint32_t            at;
    size_t              i;

    for (i = 0; i < f->n; i++) {
        m = f->w[i].m < f->w[i].end ? f->w[i].m : f->w[i].begin;
        at = (uint32_t) (tok_pair_hash(m->a, m->b) >> 32);
        __builtin_prefetch(&f->t.filter[at & f->t.filter_mask], 1);
        __builtin_prefetch(&f->t.merges[at & f->t.merge_mask], 1);
    }
    for (i = 0; i < f->n; i++) {
        m = f->w[i].m;
        x = &f->made[f->w[i].begin->to];
        x->shorter = x->shorter == PENDING ? TOK_NO_ID : x->shorter;
        if (m == f->w[i].end) {
            if (!keep_odd(f->b, f->made, f->w[i].begin, m)) {
                return false;
            }
            continue;
        }
        for (k = f->w[i].begin; k < f->w[i].end; k++) {
            if (k != m && k->a == m->a && k->b == m->b) {
                return false;
            }
        }
        if (!keep(f->b, m)) {
            return false;
        }
        x->rank = m->rank + 1;
        x->left = m->a;
        x->right = m->b;
    }
    return f->left > 0;
}


/*
 * The same, but the table grows with what is made: a merge that is never made
 * changes no other, and in some files that is most of them.  Whether a merge is
 * made depends on those that come before one of its parts is made only, so
 * several are looked at side by side.  False: too odd a list (as one with a
 * pair twice, of which the last counts), or no memory.
 */
static bool
made_of_few(tok_build_t *b)
{
    const tok_merge_t  *m = b->merges.ptr;
    few_t               f = { .b = b, .made = b->table[TOK_S_MADE].ptr,
                              .end = m + b->merges.n,
                              .left = 64 * b->merges.n + 4096 };

    if (tok_tables_merges_begin(b, count_results(b)) != 0) {
        return false;
    }
    begin(b);
    f.t = tok_tables_view(b);
    while (m < f.end) {
        m = gather(&f, m);
        if (m == NULL) {
            return false;
        }
        walk_all(&f);
        if (!settle(&f)) {
            return false;
        }
    }
    return true;
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
