/*
 * The prefix cache: which KV pages hold the beginning of which text, so that
 * a prompt that begins like an earlier one is not computed again.
 *
 * A tree of full pages.  A node is a page of the engine (its number is the
 * page's); its place says what is in it: the scope, the parent, the page's own
 * tokens.  A hash finds it; scope, parent and tokens decide, so two texts with
 * one hash cost time and nothing else.  The hash is SipHash-2-4 (Aumasson and
 * Bernstein, 2012) with a random key per start, chained from page to page.
 *
 * A *path* is the way of one sequence through the tree, from the root.  Nodes
 * on a path are held; a node on no path is idle and goes, least recently used
 * first, when pages run short.  Whoever holds a node holds all above it, so
 * children become idle no later than their parents and the oldest idle node
 * never has a child.
 *
 * Scopes never meet: a path finds pages of its own scope only.
 *
 * Who may call: the scheduler, tests.  One thread.  All memory, a node for
 * each page, is taken at create.
 */

#ifndef WRK_PREFIX_H
#define WRK_PREFIX_H

#include <stdint.h>

#include "worker/engine/eng.h"


typedef struct wrk_prefix_s  wrk_prefix_t;

typedef struct {
    uint64_t  scope;
    uint64_t  hash;             /* of all up to node */
    uint32_t  node;             /* the deepest; UINT32_MAX: none */
    uint32_t  n;                /* pages from the root to it */
} wrk_path_t;


/*
 * eng stays the caller's and must outlive the cache.  hash_bits: how many bits
 * of a hash are used, 0..64; tests make texts collide with few.  NULL: no
 * memory.
 */
wrk_prefix_t *wrk_prefix_create(eng_t *eng, uint32_t hash_bits);

/* Gives all pages back; no path may be held. */
void wrk_prefix_destroy(wrk_prefix_t *p);

/* An empty path; holds nothing. */
void wrk_path_init(wrk_path_t *path, uint64_t scope);

/* Follows the tokens of a sequence (from its position 0) as far as pages are
 * known, up to n_pages from the root.  Returns path->n. */
uint32_t wrk_prefix_walk(wrk_prefix_t *p, wrk_path_t *path,
    const uint32_t *tokens, uint32_t n_pages);

/* The path's pages become the beginning of an empty sequence. */
void wrk_prefix_attach(wrk_prefix_t *p, const wrk_path_t *path, uint32_t seq);

/*
 * One page further: the page holds positions path->n * page_tokens... of a
 * sequence whose tokens (from position 0) are given, all computed.  If such a
 * page is known already the path goes there and nothing is added.
 */
void wrk_prefix_add(wrk_prefix_t *p, wrk_path_t *path, const uint32_t *tokens,
    uint32_t page);

/* Holds nothing any more; the path is empty. */
void wrk_prefix_leave(wrk_prefix_t *p, wrk_path_t *path);

/* Pages that only the cache has: what wrk_prefix_evict() can give back. */
uint32_t wrk_prefix_idle(const wrk_prefix_t *p);

/* The least recently used idle page goes back to the engine; there is one. */
void wrk_prefix_evict(wrk_prefix_t *p);


#endif /* WRK_PREFIX_H */
