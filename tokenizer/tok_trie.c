/*
 * tok_trie.c: builds double-array tries.  Node 0 is the root; the child of a
 * node by byte c is cell base + c, valid if its check is the node plus one.
 * With tails, a node with one key below it has no children but the key.
 */

#include "tokenizer/tok_build.h"
#include "tokenizer/tok_made.h"

#include <stdlib.h>


/* Up to so many keys are sorted by comparing, and from so many on by eight
 * bits; and how far a place is looked for before what is free in front of that
 * is given up. */
#define SORT_FEW     16
#define SORT_MANY    512
#define WORDS_TRIED  32

/* Keys of a node that is placed with all below it: so what is near in the list
 * of keys is done at once; those with more come first, and lie together. */
#define NODE_SMALL   64

typedef struct {
    uint32_t  node;
    uint32_t  lo, hi;               /* keys of this node */
    uint32_t  depth;
    uint32_t  above;                /* the longest key that it begins with */
} trie_task_t;

typedef struct {
    tok_vec_t       *cells;
    tok_vec_t        free;          /* uint64_t: a bit for each cell */
    tok_vec_t        queue;         /* trie_task_t */
    const tok_key_t *keys;
    tok_made_t      *made;
    size_t           first;         /* no free cell in words before */
} trie_t;


/* --- keys in order ----------------------------------------------------- */

static int
key_cmp(const void *x, const void *y)
{
    const tok_key_t  *a = x, *b = y;
    uint32_t          n = a->len < b->len ? a->len : b->len;
    int               c = n ? memcmp(a->ptr, b->ptr, n) : 0;

    if (c != 0) {
        return c;
    }
    if (a->len != b->len) {
        return a->len < b->len ? -1 : 1;
    }
    return a->value < b->value ? -1 : a->value > b->value;
}


/* Eight bytes from place from on, the first on top; zeros behind the key. */
static inline uint64_t
head_of(const tok_key_t *k, uint32_t from)
{
    size_t  n = k->len > from ? k->len - from : 0;

    return __builtin_bswap64(tok_load_part(k->ptr + (n ? from : 0),
                                           n < 8 ? n : 8));
}


/* A few keys, to where they are to be. */
static void
sort_few(tok_key_t *to, const tok_key_t *from, size_t n)
{
    tok_key_t  x;
    size_t     i, k;

    for (i = 0; i < n; i++) {
        x = from[i];
        for (k = i; k > 0 && (x.head < to[k - 1].head
                              || (x.head == to[k - 1].head
                                  && key_cmp(&x, &to[k - 1]) < 0)); k--)
        {
            to[k] = to[k - 1];
        }
        to[k] = x;
    }
}


typedef struct {
    uint32_t  lo, n;
    uint64_t  head;                 /* of all, if second */
    bool      second;               /* heads are the next eight bytes */
    bool      copied;               /* they lie in the copy */
} sort_task_t;


/* Splits the keys of a task by the first bits in which their heads differ:
 * eight, or four if there are not many.  Returns how many tasks more there
 * are. */
static size_t
split(tok_key_t *keys, tok_key_t *copy, sort_task_t t, uint64_t differ,
    sort_task_t *tasks)
{
    const tok_key_t  *from = (t.copied ? copy : keys) + t.lo;
    tok_key_t        *to = (t.copied ? keys : copy) + t.lo;
    const unsigned    bits = t.n < SORT_MANY ? 4 : 8, mask = (1u << bits) - 1;
    uint32_t          at[256], count[256], sum = 0, i;
    unsigned          shift = (unsigned) __builtin_clzll(differ) / bits * bits;
    size_t            n = 0;

    shift = 64 - bits - shift;
    memset(count, 0, (mask + 1) * sizeof(*count));
    for (i = 0; i < t.n; i++) {
        count[from[i].head >> shift & mask]++;
    }
    for (i = 0; i <= mask; i++) {
        at[i] = sum;
        tasks[n] = (sort_task_t) { t.lo + sum, count[i], t.head, t.second,
                                   !t.copied };
        n += count[i] != 0;
        sum += count[i];
    }
    for (i = 0; i < t.n; i++) {
        to[at[from[i].head >> shift & mask]++] = from[i];
    }
    return n;
}


/*
 * Vocabularies have hundreds of thousands of keys, and many begin alike: so by
 * the first of eight bytes in which they differ, each part again, and by the
 * next eight if there is none.
 */
static void
sort_keys(tok_key_t *keys, tok_key_t *copy, size_t n)
{
    /* Of the parts of a split one is split on: eight bytes, twice. */
    sort_task_t  task[16 * 256 + 32 * 16 + 256], t;
    tok_key_t   *k;
    uint64_t     differ;
    size_t       left = 1, i;

    for (i = 0; i < n; i++) {
        keys[i].head = head_of(&keys[i], 0);
    }
    task[0] = (sort_task_t) { 0, (uint32_t) n, 0, false, false };
    while (left && n) {
        t = task[--left];
        k = (t.copied ? copy : keys) + t.lo;
        for (differ = 0, i = 1; t.n > SORT_FEW && i < t.n; i++) {
            differ |= k[i].head ^ k[0].head;
        }
        if (differ) {
            assert(left + 256 <= sizeof(task) / sizeof(task[0]));
            left += split(keys, copy, t, differ, task + left);
            continue;
        }
        if (t.n > SORT_FEW && !t.second) {
            t.head = k[0].head;
            t.second = true;
            for (i = 0; i < t.n; i++) {
                k[i].head = head_of(&k[i], 8);
            }
            task[left++] = t;
            continue;
        }
        if (t.n > SORT_FEW) {
            qsort(k, t.n, sizeof(*k), key_cmp);
        }
        sort_few(keys + t.lo, k, t.n);
        for (i = 0; t.second && i < t.n; i++) {
            keys[t.lo + i].head = t.head;
        }
    }
}


/* --- cells ------------------------------------------------------------- */

static int
cells_reach(trie_t *t, size_t n)
{
    tok_cell_t  *c;
    size_t       i, words = (n + 63) / 64;

    if (words <= t->free.n) {
        return 0;
    }
    n = words * 64;
    if (n >= TOK_CELL_TAIL - 512
        || tok_vec_room(t->cells, n - t->cells->n, sizeof(*c)) != 0
        || tok_vec_room(&t->free, words - t->free.n, sizeof(uint64_t)) != 0)
    {
        return TOK_E_NOMEM;
    }
    c = t->cells->ptr;
    for (i = t->cells->n; i < n; i++) {
        c[i].base = 0;
        c[i].check = 0;
        c[i].value = TOK_NO_ID;
    }
    memset((uint64_t *) t->free.ptr + t->free.n, 0xff,
           (words - t->free.n) * sizeof(uint64_t));
    t->cells->n = n;
    t->free.n = words;
    return 0;
}


static inline void
take(trie_t *t, size_t cell)
{
    ((uint64_t *) t->free.ptr)[cell / 64] &= ~((uint64_t) 1 << cell % 64);
}


/* The 64 bits from one on. */
static inline uint64_t
bits_at(const uint64_t *bits, size_t at)
{
    uint64_t  v = bits[at / 64] >> at % 64;

    return at % 64 ? v | bits[at / 64 + 1] << (64 - at % 64) : v;
}


/* A base at which every label's cell is free: for 64 of them at once. */
static int
find_base(trie_t *t, const uint8_t *labels, size_t n, uint32_t *out)
{
    const uint64_t  *bits = t->free.ptr;
    uint64_t         may;
    size_t           word, at, k, tries = 0;

    while (t->first < t->free.n && bits[t->first] == 0) {
        t->first++;
    }
    for (word = t->first; ; word++) {
        if (cells_reach(t, word * 64 + 64 + 257 + 64) != 0) {
            return TOK_E_NOMEM;
        }
        bits = t->free.ptr;
        may = bits[word];
        for (k = 1; k < n && may; k++) {
            may &= bits_at(bits, word * 64 + labels[k] - labels[0]);
        }
        /* The base is not 0. */
        for (/* void */; may; may &= may - 1) {
            at = word * 64 + (size_t) __builtin_ctzll(may);
            if (at > labels[0]) {
                *out = (uint32_t) (at - labels[0]);
                return 0;
            }
        }
        /* A crowded start would make the search quadratic: leave holes. */
        if (++tries > WORDS_TRIED) {
            t->first = word;
        }
    }
}


/* --- nodes ------------------------------------------------------------- */

static inline uint8_t
byte_at(const tok_key_t *k, uint32_t depth)
{
    return depth < 8 ? (uint8_t) (k->head >> (56 - 8 * depth)) : k->ptr[depth];
}


/* The end of the keys from i on with the same byte: in steps that double, then
 * halve. */
static inline uint32_t
same_end(const tok_key_t *keys, uint32_t i, uint32_t hi, uint32_t depth)
{
    const uint8_t  c = byte_at(&keys[i], depth);
    uint32_t       step = 1;

    while (step < hi - i && byte_at(&keys[i + step], depth) == c) {
        i += step;
        step *= 2;
    }
    while (step > 1) {
        step /= 2;
        if (step < hi - i && byte_at(&keys[i + step], depth) == c) {
            i += step;
        }
    }
    return i + 1;
}


/* A child of a node; depth is its own. */
static int
place_child(trie_t *t, trie_task_t child)
{
    const tok_key_t  *key = &t->keys[child.lo];
    tok_cell_t       *c = (tok_cell_t *) t->cells->ptr + child.node;

    if (child.hi - child.lo == 1 && (t->made != NULL
                                     || key->len == child.depth))
    {
        if (key->len == child.depth) {
            c->value = key->value;

        } else {
            c->base = TOK_CELL_TAIL | key->value;
        }
        if (t->made != NULL) {
            t->made[key->value].shorter = child.above;
        }
        return 0;
    }
    if (tok_vec_room(&t->queue, 1, sizeof(child)) != 0) {
        return TOK_E_NOMEM;
    }
    ((trie_task_t *) t->queue.ptr)[t->queue.n++] = child;
    return 0;
}


static int
place_node(trie_t *t, trie_task_t task)
{
    const tok_key_t  *keys = t->keys;
    tok_cell_t       *c = (tok_cell_t *) t->cells->ptr + task.node;
    uint8_t           labels[256];
    uint32_t          from[257], base, i = task.lo, above = task.above;
    size_t            n = 0, k;
    int               rc = 0;

    for (/* void */; i < task.hi && keys[i].len == task.depth; i++) {
        c->value = above = keys[i].value;
        if (t->made != NULL) {
            t->made[keys[i].value].shorter = task.above;
        }
    }
    if (t->made != NULL && i + 1 == task.hi && task.depth) {
        c->base = TOK_CELL_TAIL | keys[i].value;
        t->made[keys[i].value].shorter = above;
        return 0;
    }
    while (i < task.hi) {
        labels[n] = byte_at(&keys[i], task.depth);
        from[n++] = i;
        i = same_end(keys, i, task.hi, task.depth);
    }
    from[n] = task.hi;
    if (n == 0) {
        return 0;
    }
    if (find_base(t, labels, n, &base) != 0) {
        return TOK_E_NOMEM;
    }
    c = t->cells->ptr;
    c[task.node].base = base;
    for (k = 0; k < n && rc == 0; k++) {
        c[base + labels[k]].check = task.node + 1;
        take(t, base + labels[k]);
        rc = place_child(t, (trie_task_t) { base + labels[k], from[k],
                         from[k + 1], task.depth + 1, above });
    }
    return rc;
}


/* A node and all below it. */
static int
place_below(trie_t *t, trie_task_t task)
{
    const size_t  n = t->queue.n;
    int           rc = place_node(t, task);

    while (rc == 0 && t->queue.n > n) {
        rc = place_node(t, ((trie_task_t *) t->queue.ptr)[--t->queue.n]);
    }
    return rc;
}


int
tok_trie_build(tok_vec_t *cells, tok_key_t *keys, size_t n, tok_made_t *made)
{
    trie_t       t = { .cells = cells, .keys = keys, .made = made };
    trie_task_t  task = { 0, 0, (uint32_t) n, 0, TOK_NO_ID };
    size_t       i;
    int          rc;

    assert(cells->n == 0);
    sort_keys(keys, keys + n, n);
    rc = tok_vec_room(cells, n + n / 2, sizeof(tok_cell_t)) != 0
         ? TOK_E_NOMEM : cells_reach(&t, 257);
    if (rc == 0) {
        ((tok_cell_t *) cells->ptr)[0].check = UINT32_MAX;
        take(&t, 0);
        rc = place_node(&t, task);
    }
    for (i = 0; rc == 0 && i < t.queue.n; i++) {
        task = ((trie_task_t *) t.queue.ptr)[i];
        if (task.hi - task.lo > NODE_SMALL) {
            rc = place_node(&t, task);
        }
    }
    for (i = 0, n = t.queue.n; rc == 0 && i < n; i++) {
        task = ((trie_task_t *) t.queue.ptr)[i];
        if (task.hi - task.lo <= NODE_SMALL) {
            rc = place_below(&t, task);
        }
    }
    /* Walkers read base + 255 unchecked. */
    rc = rc == 0 ? cells_reach(&t, cells->n + 257) : rc;
    tok_vec_free(&t.queue);
    tok_vec_free(&t.free);
    return rc;
}
