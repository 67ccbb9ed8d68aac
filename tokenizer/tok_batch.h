/*
 * tok_batch.h: words between the scanner, the caches and the model: tok_fast.c
 * finds and puts those that a cache has, tok_batch.c does the others.
 */

#ifndef TOK_BATCH_H
#define TOK_BATCH_H


#include "tokenizer/tok_fast.h"
#include "tokenizer/tok_win.h"


/* Room for ids behind those of a word whose ids are not yet known: what is
 * copied by four, and marks that a model puts in front. */
#define TOK_GAP_MORE   8
#define TOK_GAPS       160
#define TOK_GAP_BYTES  4096         /* of one word at most */
#define TOK_NO_JOB     UINT32_MAX

/*
 * A word of a batch.  The last byte of the key of a short word is 255.  Of more
 * bytes than a key has: k0 is its place among the long words, k1 its length.
 */
typedef struct {
    _Alignas(16) uint64_t   k0;
    uint64_t                k1;
    const uint8_t          *p;
    tok_short_t            *bucket; /* where the cache would have it */
} tok_bword_t;

/* The sixteen bytes of a key. */
typedef uint64_t  tok_bytes_t __attribute__((vector_size(16)));

/* A place among the ids, with room, for the ids of a word. */
typedef struct {
    const uint8_t  *p;
    size_t          at;
    uint32_t        len;
    uint32_t        job;            /* that has them, or TOK_NO_JOB */
} tok_gap_t;

struct tok_batch {
    size_t        n, n_jobs, n_gaps;
    tok_bword_t   w[TOK_BATCH_WORDS + TOK_WIN_BYTES];
    tok_gap_t     gap[TOK_GAPS];
    tok_bword_t   of[TOK_JOBS];     /* the word of each job, */
    tok_word_t    key[TOK_JOBS];    /* its key among the tokens, */
    uint32_t      at[TOK_JOBS];     /* its place there, */
    uint32_t      id[TOK_JOBS];     /* the token that it is, or TOK_NO_ID */
    tok_job_t     job[TOK_JOBS];
};

_Static_assert(TOK_GAPS * TOK_GAP_MORE + 16 <= TOK_BATCH_ROOM,
               "gaps, and what is copied by four behind the last word");


static inline bool
tok_bword_short(const tok_bword_t *w)
{
    return w->k1 >> 56 != 0;
}


static inline size_t
tok_bword_len(const tok_bword_t *w)
{
    size_t  high, low;

    if (!tok_bword_short(w)) {
        return w->k1;
    }
    /* Both, for which of them it is nobody could foresee. */
    high = 16 - (size_t) __builtin_clzll(~w->k1 | 1) / 8;
    low = 8 - (size_t) __builtin_clzll(~w->k0 | 1) / 8;
    return ~w->k1 ? high : low;
}


/* The key of a word of up to 48 bytes, and the entry where the cache would
 * have it. */
static inline tok_long_t *
tok_long_slot(tok_scratch_t *s, const uint8_t *p, size_t len, uint64_t *k)
{
    uint64_t  h;
    size_t    i;

    assert(len <= TOK_LONG_BYTES);
    for (i = 0; i < TOK_LONG_BYTES / 8; i++) {
        k[i] = len <= i * 8 ? 0 : tok_load_part(p + i * 8, len - i * 8);
    }
    h = tok_mix(tok_mix(k[0] ^ k[4], k[1] ^ k[5]) ^ k[2], k[3] + len);
    return &s->longs[h >> (64 - TOK_CACHE_LONG_LOG)];
}


/* A word that no cache knows. */
int tok_batch_model(const tok_t *t, tok_scratch_t *s, const uint8_t *p,
    size_t len);

/* The ids of the words that wait for theirs. */
int tok_batch_settle(const tok_t *t, tok_scratch_t *s, tok_batch_t *b);

/* Words that wait, and shall not: an error left them. */
void tok_batch_forget(tok_batch_t *b);


#endif /* TOK_BATCH_H */
