/*
 * tok_trie.c: builds double-array tries.  Node 0 is the root; the child of a
 * node by byte c is cell base + c, valid if its check is the node plus one.
 * With tails, a node with one key below it has no children but the key.
 */

#include "tokenizer/tok_build.h"
#include "tokenizer/tok_made.h"

#include <stdlib.h>


typedef struct {
    uint32_t  node;
    uint32_t  lo, hi;               /* keys of this node */
    uint32_t  depth;
} trie_task_t;

typedef struct {
    tok_vec_t   *cells;
    uint32_t     first_free;        /* no free cell below */
    bool         tails;
} trie_t;


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


/* Sorts keys by each byte of their heads in turn, the last first; copy has room
 * for as many. */
static void
sort_heads(tok_key_t *keys, tok_key_t *copy, size_t n)
{
    size_t      count[256], sum, k, i;
    unsigned    shift;
    tok_key_t  *swap;

    for (shift = 0; shift < 64; shift += 8) {
        memset(count, 0, sizeof(count));
        for (i = 0; i < n; i++) {
            count[keys[i].head >> shift & 255]++;
        }
        for (sum = 0, i = 0; i < 256; i++) {
            k = count[i];
            count[i] = sum;
            sum += k;
        }
        for (i = 0; i < n; i++) {
            copy[count[keys[i].head >> shift & 255]++] = keys[i];
        }
        swap = keys;
        keys = copy;
        copy = swap;
    }
}


/* Vocabularies have hundreds of thousands of keys: by eight bytes at once, and
 * only those that have these in common by the rest. */
static int
sort_keys(tok_key_t *keys, size_t n)
{
    tok_key_t  *copy = malloc((n + 1) * sizeof(*copy));
    size_t      i, k;

    if (copy == NULL) {
        return TOK_E_NOMEM;
    }
    for (i = 0; i < n; i++) {
        k = keys[i].len < 8 ? keys[i].len : 8;
        keys[i].head = __builtin_bswap64(tok_load_part(keys[i].ptr, k));
    }
    sort_heads(keys, copy, n);
    free(copy);
    for (i = 0; i < n; i = k) {
        for (k = i + 1; k < n && keys[k].head == keys[i].head; k++) {
            /* void */
        }
        if (k > i + 1) {
            qsort(keys + i, k - i, sizeof(*keys), key_cmp);
        }
    }
    return 0;
}


static inline uint8_t
byte_at(const tok_key_t *k, uint32_t depth)
{
    return depth < 8 ? (uint8_t) (k->head >> (56 - 8 * depth)) : k->ptr[depth];
}


static int
cells_reach(trie_t *t, size_t n)
{
    tok_cell_t  *c;
    size_t       i;

    if (n <= t->cells->n) {
        return 0;
    }
    if (n >= TOK_CELL_TAIL - 512
        || tok_vec_room(t->cells, n - t->cells->n, sizeof(*c)) != 0)
    {
        return TOK_E_NOMEM;
    }
    c = t->cells->ptr;
    for (i = t->cells->n; i < n; i++) {
        c[i].base = 0;
        c[i].check = 0;
        c[i].value = TOK_NO_ID;
    }
    t->cells->n = n;
    return 0;
}


/* A base at which every label's cell is free. */
static int
find_base(trie_t *t, const uint8_t *labels, size_t n, uint32_t *out)
{
    tok_cell_t  *c = t->cells->ptr;
    uint32_t     at, base;
    size_t       k, tries = 0;

    while (t->first_free < t->cells->n && c[t->first_free].check != 0) {
        t->first_free++;
    }
    for (at = t->first_free; ; at++) {
        if (at < labels[0] + 1u) {
            continue;
        }
        base = at - labels[0];
        if (cells_reach(t, (size_t) base + 257) != 0) {
            return TOK_E_NOMEM;
        }
        c = t->cells->ptr;
        for (k = 0; k < n && c[base + labels[k]].check == 0; k++) { /* void */ }
        if (k == n) {
            *out = base;
            return 0;
        }
        /* A crowded start would make the search quadratic: leave holes. */
        if (c[at].check == 0 && ++tries > 16) {
            t->first_free = at + 1;
        }
    }
}


static int
place_node(trie_t *t, const tok_key_t *keys, trie_task_t task,
    tok_vec_t *queue)
{
    uint8_t      labels[256];
    uint32_t     from[257], base, i = task.lo;
    size_t       n = 0, k;
    tok_cell_t  *c = t->cells->ptr;

    while (i < task.hi && keys[i].len == task.depth) {
        c[task.node].value = keys[i++].value;
    }
    if (t->tails && i + 1 == task.hi && task.depth) {
        c[task.node].base = TOK_CELL_TAIL | keys[i].value;
        return 0;
    }
    while (i < task.hi) {
        labels[n] = byte_at(&keys[i], task.depth);
        from[n++] = i;
        while (i < task.hi && byte_at(&keys[i], task.depth) == labels[n - 1]) {
            i++;
        }
    }
    from[n] = task.hi;
    if (n == 0) {
        return 0;
    }
    if (find_base(t, labels, n, &base) != 0
        || tok_vec_room(queue, n, sizeof(task)) != 0)
    {
        return TOK_E_NOMEM;
    }
    c = t->cells->ptr;
    c[task.node].base = base;
    for (k = 0; k < n; k++) {
        c[base + labels[k]].check = task.node + 1;
        ((trie_task_t *) queue->ptr)[queue->n++] = (trie_task_t) {
            base + labels[k], from[k], from[k + 1], task.depth + 1
        };
    }
    return 0;
}


int
tok_trie_build(tok_vec_t *cells, tok_key_t *keys, size_t n, bool tails)
{
    tok_vec_t    queue = { 0 };
    trie_t       t = { cells, 1, tails };
    trie_task_t  task = { 0, 0, (uint32_t) n, 0 };
    size_t       i;
    int          rc;

    assert(cells->n == 0);
    rc = n ? sort_keys(keys, n) : 0;
    if (rc == 0 && (tok_vec_room(cells, n + n / 2, sizeof(tok_cell_t)) != 0
                    || tok_vec_room(&queue, n, sizeof(task)) != 0))
    {
        rc = TOK_E_NOMEM;
    }
    rc = rc == 0 ? cells_reach(&t, 257) : rc;
    if (rc == 0) {
        ((tok_cell_t *) cells->ptr)[0].check = UINT32_MAX;
        rc = place_node(&t, keys, task, &queue);
    }
    for (i = 0; rc == 0 && i < queue.n; i++) {
        task = ((trie_task_t *) queue.ptr)[i];
        rc = place_node(&t, keys, task, &queue);
    }
    tok_vec_free(&queue);
    /* Walkers read base + 255 unchecked. */
    return rc == 0 ? cells_reach(&t, cells->n + 257) : rc;
}
