/*
 * tok_image.c: a block of tables becomes a tok_t.  Blocks made by the builder
 * in this process and blocks mapped from a file go the same way.
 */

#include "tokenizer/tok_build.h"
#include "tokenizer/tok_pattern.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>


/* Numbers the vocabularies of this process, so that caches can tell. */
static _Atomic uint64_t  serial_next = 1;


static void
bind_sections(tok_t *t, const uint8_t *p)
{
    const tok_image_t  *h = t->img;
    const void         *at[TOK_S_MAX];
    int                 i;

    for (i = 0; i < TOK_S_MAX; i++) {
        at[i] = p + h->sect[i].off;
    }
    t->pool = at[TOK_S_POOL];
    t->tokens = at[TOK_S_TOKENS];
    t->flags = at[TOK_S_FLAGS];
    t->bytes = at[TOK_S_BYTES];
    t->first = h->sect[TOK_S_FIRST].n ? at[TOK_S_FIRST] : NULL;
    t->last = h->sect[TOK_S_LAST].n ? at[TOK_S_LAST] : NULL;
    t->hash = at[TOK_S_HASH];
    t->merges = at[TOK_S_MERGES];
    t->words = at[TOK_S_WORDS];
    t->pairs = h->sect[TOK_S_PAIRS].n ? at[TOK_S_PAIRS] : NULL;
    t->filter = at[TOK_S_FILTER];
    t->sieve = at[TOK_S_SIEVE];
    t->byte_ids = at[TOK_S_BYTE_IDS];
    t->scores = at[TOK_S_SCORES];
    t->trie = at[TOK_S_TRIE];
    t->added = at[TOK_S_ADDED];
    t->added_raw = at[TOK_S_ADDED_RAW];
    t->added_norm = at[TOK_S_ADDED_NORM];
    t->norm = at[TOK_S_NORM];
    t->pre = at[TOK_S_PRE];
    t->post = at[TOK_S_POST];
    t->decode = at[TOK_S_DECODE];
    t->eos_ids = at[TOK_S_EOS];
    t->charsmap = at[TOK_S_CHARSMAP];
    t->joins = at[TOK_S_JOINS];
    t->made = h->sect[TOK_S_MADE].n ? at[TOK_S_MADE] : NULL;
    t->n_added = h->sect[TOK_S_ADDED].n;
    t->n_norm = h->sect[TOK_S_NORM].n;
    t->n_pre = h->sect[TOK_S_PRE].n;
    t->n_post = h->sect[TOK_S_POST].n;
    t->n_decode = h->sect[TOK_S_DECODE].n;
    t->n_eos = h->sect[TOK_S_EOS].n;
    t->n_trie = h->sect[TOK_S_TRIE].n;
    t->n_raw = h->sect[TOK_S_ADDED_RAW].n;
    t->n_nrm = h->sect[TOK_S_ADDED_NORM].n;
    t->n_charsmap = h->sect[TOK_S_CHARSMAP].n;
    t->hash_mask = (1u << h->hash_log) - 1;
    t->merge_mask = (1u << h->merges_log) - 1;
    t->word_mask = (1u << h->words_log) - 1;
    t->filter_mask = (1u << h->filter_log) - 1;
}


int
tok_bind(tok_t **out, void *block, size_t len, bool mapped, tok_err_t *err)
{
    tok_t  *t = calloc(1, sizeof(*t));
    int     rc;

    *out = NULL;
    if (t == NULL) {
        if (mapped) {
            (void) munmap(block, len);
        } else {
            free(block);
        }
        return tok_fail(err, TOK_E_NOMEM, "tokenizer: no memory");
    }
    t->img = block;
    t->block_bytes = len;
    t->mapped = mapped;
    t->serial = atomic_fetch_add_explicit(&serial_next, 1,
                                          memory_order_relaxed);
    bind_sections(t, block);
    rc = tok_pattern_compile(t, err);
    if (rc != 0) {
        tok_close(t);
        return rc;
    }
    *out = t;
    return 0;
}


void
tok_close(tok_t *t)
{
    if (t == NULL) {
        return;
    }
    tok_pattern_free(t);
    if (t->mapped) {
        (void) munmap((void *) (uintptr_t) t->img, t->block_bytes);
    } else {
        free((void *) (uintptr_t) t->img);
    }
    free(t);
}
