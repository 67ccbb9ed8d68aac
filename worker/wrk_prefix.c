/* The prefix cache's tree, its hash table and its list of idle pages. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "worker/wrk_prefix.h"
#include "worker/wrk_sched_mem.h"


#define WRK_NODE_NONE  UINT32_MAX

typedef struct {
    uint64_t  hash;
    uint64_t  scope;
    uint32_t  parent;
    uint32_t  children;
    uint32_t  users;            /* paths that go through it */
    uint32_t  chain;            /* next with the same bucket */
    uint32_t  prev, next;       /* idle list, the oldest first */
    uint32_t  known;            /* the page is in the tree */
} wrk_node_t;

struct wrk_prefix_s {
    eng_t       *eng;
    uint64_t     key[2];
    uint64_t     hash_mask;
    uint32_t     npages;        /* of the engine */
    uint32_t     page_tokens;
    uint32_t     bucket_mask;
    uint32_t     nidle;
    uint32_t     first, last;   /* idle */
    wrk_node_t  *nodes;         /* [npages] */
    uint32_t    *tokens;        /* [npages][page_tokens] */
    uint32_t    *buckets;       /* [bucket_mask + 1] */
    uint32_t    *pages;         /* of one sequence, for attach */
    size_t       seq_pages;
};


/* --- SipHash-2-4 over 64-bit words --------------------------------------- */

#define rotl(x, n)  (((x) << (n)) | ((x) >> (64 - (n))))

static void
sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] = rotl(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] = rotl(v[2], 32);
}


static void
sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    sip_round(v);
    v[0] ^= word;
}


/* Of what stands before, the scope and a page of tokens. */
static uint64_t
prefix_hash(const wrk_prefix_t *p, uint64_t before, uint64_t scope,
    const uint32_t *tokens)
{
    uint32_t  i;
    uint64_t  v[4];

    v[0] = p->key[0] ^ 0x736f6d6570736575ull;
    v[1] = p->key[1] ^ 0x646f72616e646f6dull;
    v[2] = p->key[0] ^ 0x6c7967656e657261ull;
    v[3] = p->key[1] ^ 0x7465646279746573ull;

    sip_word(v, before);
    sip_word(v, scope);

    for (i = 0; i < p->page_tokens; i++) {
        sip_word(v, tokens[i]);
    }

    v[2] ^= 0xff;

    for (i = 0; i < 4; i++) {
        sip_round(v);
    }

    return (v[0] ^ v[1] ^ v[2] ^ v[3]) & p->hash_mask;
}


/* --- create, destroy ---------------------------------------------------- */

wrk_prefix_t *
wrk_prefix_create(eng_t *eng, uint32_t hash_bits)
{
    uint32_t       i, buckets;
    wrk_prefix_t  *p;

    assert(hash_bits <= 64);

    p = calloc(1, sizeof(*p));

    if (p == NULL) {
        return NULL;
    }

    p->eng = eng;
    p->npages = eng->limits.kv_pages;
    p->page_tokens = eng->limits.page_tokens;
    p->hash_mask = hash_bits == 64 ? UINT64_MAX
                                   : ((uint64_t) 1 << hash_bits) - 1;
    p->first = WRK_NODE_NONE;
    p->last = WRK_NODE_NONE;
    p->seq_pages = eng->limits.ctx_len / p->page_tokens + 1;
    assert(p->npages < WRK_NODE_NONE / 2);

    for (buckets = 1; buckets < p->npages; /* void */) {
        buckets *= 2;
    }

    p->bucket_mask = buckets - 1;

    if (getrandom(p->key, sizeof(p->key), GRND_NONBLOCK)
        != (ssize_t) sizeof(p->key))
    {
        /* The system has just started: better a weak key than none. */
        p->key[0] ^= (uint64_t) time(NULL) ^ (uint64_t) (uintptr_t) p;
    }

    p->nodes = wrk_mem_map(p->npages * sizeof(wrk_node_t));
    p->tokens = wrk_mem_map((size_t) p->npages * p->page_tokens
                            * sizeof(uint32_t));
    p->buckets = wrk_mem_map(buckets * sizeof(uint32_t));
    p->pages = wrk_mem_map(p->seq_pages * sizeof(uint32_t));

    if (p->nodes == NULL || p->tokens == NULL || p->buckets == NULL
        || p->pages == NULL)
    {
        wrk_prefix_destroy(p);
        return NULL;
    }

    for (i = 0; i < buckets; i++) {
        p->buckets[i] = WRK_NODE_NONE;
    }

    return p;
}


void
wrk_prefix_destroy(wrk_prefix_t *p)
{
    if (p == NULL) {
        return;
    }

    while (p->nidle != 0) {
        wrk_prefix_evict(p);
    }

    wrk_mem_unmap(p->nodes, p->npages * sizeof(wrk_node_t));
    wrk_mem_unmap(p->tokens, (size_t) p->npages * p->page_tokens
                             * sizeof(uint32_t));
    wrk_mem_unmap(p->buckets, ((size_t) p->bucket_mask + 1)
                              * sizeof(uint32_t));
    wrk_mem_unmap(p->pages, p->seq_pages * sizeof(uint32_t));
    free(p);
}


/* --- the idle list ------------------------------------------------------ */

static void
idle_append(wrk_prefix_t *p, uint32_t node)
{
    wrk_node_t  *q = &p->nodes[node];

    q->next = WRK_NODE_NONE;
    q->prev = p->last;

    if (p->last != WRK_NODE_NONE) {
        p->nodes[p->last].next = node;

    } else {
        p->first = node;
    }

    p->last = node;
    p->nidle++;
}


static void
idle_remove(wrk_prefix_t *p, uint32_t node)
{
    wrk_node_t  *q = &p->nodes[node];

    assert(q->users == 0 && p->nidle > 0);

    if (q->prev != WRK_NODE_NONE) {
        p->nodes[q->prev].next = q->next;

    } else {
        p->first = q->next;
    }

    if (q->next != WRK_NODE_NONE) {
        p->nodes[q->next].prev = q->prev;

    } else {
        p->last = q->prev;
    }

    p->nidle--;
}


uint32_t
wrk_prefix_idle(const wrk_prefix_t *p)
{
    return p->nidle;
}


void
wrk_prefix_evict(wrk_prefix_t *p)
{
    uint32_t     node, *link;
    wrk_node_t  *q;

    node = p->first;
    assert(node != WRK_NODE_NONE);
    q = &p->nodes[node];
    assert(q->children == 0);

    idle_remove(p, node);
    link = &p->buckets[q->hash & p->bucket_mask];

    while (*link != node) {
        link = &p->nodes[*link].chain;
    }

    *link = q->chain;
    q->known = 0;

    if (q->parent != WRK_NODE_NONE) {
        assert(p->nodes[q->parent].children > 0);
        p->nodes[q->parent].children--;
    }

    eng_page_unref(p->eng, node);
}


/* --- paths -------------------------------------------------------------- */

void
wrk_path_init(wrk_path_t *path, uint64_t scope)
{
    path->scope = scope;
    path->hash = 0;
    path->node = WRK_NODE_NONE;
    path->n = 0;
}


/* The path goes on to this child of its node. */
static void
path_enter(wrk_prefix_t *p, wrk_path_t *path, uint32_t node)
{
    wrk_node_t  *q = &p->nodes[node];

    assert(q->parent == path->node && q->scope == path->scope);

    if (q->users == 0) {
        idle_remove(p, node);
    }

    q->users++;
    path->hash = q->hash;
    path->node = node;
    path->n++;
}


/* The known page that follows on the path, or none. */
static uint32_t
path_child(const wrk_prefix_t *p, const wrk_path_t *path, uint64_t hash,
    const uint32_t *tokens)
{
    uint32_t           i;
    const wrk_node_t  *q;

    for (i = p->buckets[hash & p->bucket_mask]; i != WRK_NODE_NONE;
         i = p->nodes[i].chain)
    {
        q = &p->nodes[i];

        if (q->hash == hash && q->parent == path->node
            && q->scope == path->scope
            && memcmp(&p->tokens[(size_t) i * p->page_tokens], tokens,
                      p->page_tokens * sizeof(uint32_t)) == 0)
        {
            return i;
        }
    }

    return WRK_NODE_NONE;
}


uint32_t
wrk_prefix_walk(wrk_prefix_t *p, wrk_path_t *path, const uint32_t *tokens,
    uint32_t n_pages)
{
    uint32_t         node;
    uint64_t         hash;
    const uint32_t  *at;

    while (path->n < n_pages) {
        at = tokens + (size_t) path->n * p->page_tokens;
        hash = prefix_hash(p, path->hash, path->scope, at);
        node = path_child(p, path, hash, at);

        if (node == WRK_NODE_NONE) {
            break;
        }

        path_enter(p, path, node);
    }

    return path->n;
}


void
wrk_prefix_attach(wrk_prefix_t *p, const wrk_path_t *path, uint32_t seq)
{
    int       rc;
    uint32_t  i, node;

    assert(path->n != 0 && path->n <= p->seq_pages);

    for (i = path->n, node = path->node; i > 0; i--) {
        p->pages[i - 1] = node;
        node = p->nodes[node].parent;
    }

    assert(node == WRK_NODE_NONE);
    rc = eng_seq_attach(p->eng, seq, p->pages, path->n);
    assert(rc == 0);
    (void) rc;
}


void
wrk_prefix_add(wrk_prefix_t *p, wrk_path_t *path, const uint32_t *tokens,
    uint32_t page)
{
    uint32_t     node, *bucket;
    uint64_t     hash;
    wrk_node_t  *q;

    assert(page < p->npages);

    tokens += (size_t) path->n * p->page_tokens;
    hash = prefix_hash(p, path->hash, path->scope, tokens);
    node = path_child(p, path, hash, tokens);

    if (node == WRK_NODE_NONE) {
        node = page;
        q = &p->nodes[node];
        assert(!q->known);
        q->known = 1;
        bucket = &p->buckets[hash & p->bucket_mask];
        q->hash = hash;
        q->scope = path->scope;
        q->parent = path->node;
        q->children = 0;
        q->users = 0;
        q->chain = *bucket;
        *bucket = node;
        memcpy(&p->tokens[(size_t) node * p->page_tokens], tokens,
               p->page_tokens * sizeof(uint32_t));
        eng_page_ref(p->eng, node);
        idle_append(p, node);

        if (path->node != WRK_NODE_NONE) {
            p->nodes[path->node].children++;
        }
    }

    path_enter(p, path, node);
}


void
wrk_prefix_leave(wrk_prefix_t *p, wrk_path_t *path)
{
    uint32_t     node;
    wrk_node_t  *q;

    /* Upwards: children become idle before their parents. */
    for (node = path->node; node != WRK_NODE_NONE; node = q->parent) {
        q = &p->nodes[node];
        assert(q->users > 0 && path->n > 0);
        path->n--;

        if (--q->users == 0) {
            idle_append(p, node);
        }
    }

    assert(path->n == 0);
    wrk_path_init(path, path->scope);
}
