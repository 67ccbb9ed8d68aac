/*
 * tok_trie.c: builds double-array tries.  Node 0 is the root; the child of a
 * node by byte c is cell base + c, valid if its check is the node plus one.
 */

#include "tokenizer/tok_build.h"

#include <stdlib.h>


typedef struct {
    uint32_t  node;
    uint32_t  lo, hi;               /* keys of this node */
    uint32_t  depth;
} trie_task_t;

typedef struct {
    tok_vec_t   *cells;
    uint32_t     first_free;        /* no free cell below */
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


static int
cells_reach(trie_t *t, size_t n)
{
    tok_cell_t  *c;
    size_t       i;

    if (n <= t->cells->n) {
        return 0;
    }
    if (n >= UINT32_MAX - 512
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
        if (c[at].check == 0 && ++tries > 64) {
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
    while (i < task.hi) {
        labels[n] = keys[i].ptr[task.depth];
        from[n++] = i;
        while (i < task.hi && keys[i].ptr[task.depth] == labels[n - 1]) {
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
tok_trie_build(tok_vec_t *cells, tok_key_t *keys, size_t n)
{
    tok_vec_t    queue = { 0 };
    trie_t       t = { cells, 1 };
    trie_task_t  task = { 0, 0, (uint32_t) n, 0 };
    size_t       i;
    int          rc;

    assert(cells->n == 0);
    if (n) {
        qsort(keys, n, sizeof(*keys), key_cmp);
    }
    rc = cells_reach(&t, 257);
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
