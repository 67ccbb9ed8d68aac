/*
 * tok_batch.c: the words of a batch that no cache has: what they have in common
 * is done for all of them at once, so that the memory answers many questions
 * at a time.
 */

#include "tokenizer/tok_batch.h"

#include <stdlib.h>


int
tok_batch_model(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t len)
{
    switch (t->img->fast) {
    case TOK_FAST_BYTES:
        return tok_bpe_bytes(t, s, p, len, 0);
    case TOK_FAST_SPM:
        return tok_fast_spm_word(t, s, p, len);
    case TOK_FAST_WORDPIECE:
        return tok_wordpiece(t, s, p, len, 0);
    default:
        assert(t->img->fast == TOK_FAST_UNIGRAM);
        return tok_fast_unigram_word(t, s, p, len);
    }
}


/* Copies n ids by four, up to three more than there are: what has a fixed
 * length costs no call. */
static inline void
copy_ids(uint32_t *to, const uint32_t *ids, size_t n)
{
    size_t  i;

    for (i = 0; i < n; i += 4) {
        memcpy(to + i, ids + i, 4 * sizeof(*ids));
    }
}


/* The ids of a word are remembered if they are few; three more can be read. */
static void
keep_long(tok_long_t *e, const uint64_t *k, size_t len, const uint32_t *ids,
    size_t n)
{
    if (n <= TOK_LONG_IDS) {
        memcpy(e->k, k, sizeof(e->k));
        copy_ids(e->ids, ids, n < 16 ? n : 16);
        if (n > 16) {
            memcpy(e->ids + 16, ids + 16, (TOK_LONG_IDS - 16) * sizeof(*ids));
        }
        e->n_len = (uint32_t) (n << 8 | len);
    }
}


/* The ids of a job from the model; what a job has no room for stays away. */
static int
model_job(const tok_t *t, tok_scratch_t *s, const tok_bword_t *w, tok_job_t *j)
{
    size_t  at = s->ids.n;
    int     rc = tok_batch_model(t, s, w->p, tok_bword_len(w));

    j->n = (uint32_t) (s->ids.n - at);
    s->ids.n = at;
    if (j->n <= TOK_JOB_SYMBOLS) {
        memcpy(j->ids, tok_ids(s) + at, j->n * sizeof(uint32_t));
    }
    return rc;
}


/*
 * The words of jobs that are tokens.  Those that pass the sieve are asked for
 * before the first is compared, for the memory need not answer one by one then;
 * and passing is no branch, for nobody could foresee it.
 */
static void
find_tokens(const tok_t *t, tok_batch_t *b)
{
    const tok_bword_t  *w;
    uint32_t            at, may[TOK_JOBS + 1], pass;
    size_t              i, n = 0, len;

    for (i = 0; i < b->n_jobs; i++) {
        at = b->at[i];
        b->id[i] = TOK_NO_ID;
        pass = (uint32_t) tok_word_may(t, at)
               | (tok_bword_len(&b->of[i]) > TOK_WORD_BYTES);
        may[n] = (uint32_t) i;
        n += pass;
        __builtin_prefetch(&t->words[at & t->word_mask & (0 - pass)]);
    }
    while (n--) {
        i = may[n];
        w = &b->of[i];
        len = tok_bword_len(w);
        if (len > TOK_WORD_BYTES) {
            b->id[i] = tok_word_find(t, w->p, len);

        } else {
            b->id[i] = tok_word_get(t, b->key[i], b->at[i]);
        }
    }
}


/* Begins the jobs of a byte-level model; returns how many are to be merged. */
static size_t
begin_bytes(const tok_t *t, tok_batch_t *b, tok_job_t *run[])
{
    tok_job_t  *j;
    uint32_t    todo[TOK_JOBS + 1];
    size_t      i, n = 0;

    find_tokens(t, b);
    for (i = 0; i < b->n_jobs; i++) {
        j = &b->job[i];
        j->n = 1;
        j->ids[0] = b->id[i];
        todo[n] = (uint32_t) i;
        n += b->id[i] == TOK_NO_ID;
    }
    for (i = 0; i < n; i++) {
        j = run[i] = &b->job[todo[i]];
        j->n = (uint32_t) tok_bword_len(&b->of[todo[i]]);
        tok_job_begin(t, j, b->of[todo[i]].p);
    }
    return n;
}


/* The same for the others, whose words the model may have to do alone. */
static int
begin_words(const tok_t *t, tok_scratch_t *s, tok_batch_t *b,
    tok_job_t *run[], size_t *n)
{
    const tok_bword_t  *w;
    tok_job_t          *j;
    size_t              i;
    int                 rc = 0;

    *n = 0;
    for (i = 0; rc == 0 && i < b->n_jobs; i++) {
        j = &b->job[i];
        w = &b->of[i];
        if (t->img->fast == TOK_FAST_SPM
            && tok_fast_spm_symbols(t, s, w->p, tok_bword_len(w), j))
        {
            tok_job_begin(t, j, NULL);
            run[(*n)++] = j;

        } else {
            rc = model_job(t, s, w, j);
        }
    }
    return rc;
}


/* Whether long words remember it: the bucket has room for four ids. */
static inline bool
is_kept_long(const tok_bword_t *w, const tok_job_t *j)
{
    return !tok_bword_short(w) || j->n > 4;
}


/* The words that the caches do not have. */
static int
run_jobs(const tok_t *t, tok_scratch_t *s, tok_batch_t *b)
{
    tok_job_t    *run[TOK_JOBS];
    tok_long_t   *slot;
    tok_bword_t  *w;
    uint64_t      key[TOK_LONG_BYTES / 8];
    size_t        i, n = 0;
    int           rc = 0;

    if (t->img->fast == TOK_FAST_BYTES) {
        n = begin_bytes(t, b, run);

    } else {
        rc = begin_words(t, s, b, run, &n);
    }
    if (rc != 0) {
        return rc;
    }
    tok_jobs_run(t, run, n);
    for (i = 0; i < b->n_jobs; i++) {
        w = &b->of[i];
        if (is_kept_long(w, &b->job[i])) {
            slot = tok_long_slot(s, w->p, tok_bword_len(w), key);
            __builtin_prefetch(slot, 1);
            __builtin_prefetch((uint8_t *) slot + 64, 1);
        }
    }
    return 0;
}


/* The entry of a word that names its job, or NULL: others took its place. */
static inline tok_short_t *
job_entry(const tok_batch_t *b, size_t i)
{
    const tok_bword_t  *w = &b->of[i];
    uint64_t            k1 = w->k1 & TOK_SHORT_KEY;
    tok_short_t        *e = w->bucket;
    unsigned            n;

    for (n = 0; n < 2; n++, e++) {
        if (e->k0 == w->k0 && e->k1 == k1 && e->ids[0] == i + 1) {
            return e;
        }
    }
    return NULL;
}


/* What the jobs found out is remembered. */
static void
keep(tok_scratch_t *s, const tok_batch_t *b)
{
    const tok_job_t    *j;
    const tok_bword_t  *w;
    tok_short_t        *e;
    uint64_t            k[TOK_LONG_BYTES / 8];
    size_t              i, len;

    for (i = 0; i < b->n_jobs; i++) {
        j = &b->job[i];
        w = &b->of[i];
        if (is_kept_long(w, j) && j->n && j->n <= TOK_JOB_SYMBOLS) {
            len = tok_bword_len(w);
            keep_long(tok_long_slot(s, w->p, len, k), k, len, j->ids, j->n);
        }
        e = tok_bword_short(w) ? job_entry(b, i) : NULL;
        if (e == NULL) {
            continue;
        }
        if (j->n == 0 || j->n > TOK_JOB_SYMBOLS) {
            memset(e, 0, sizeof(*e));

        } else if (j->n > 4) {
            e->ids[0] = 0;

        } else {
            memcpy(e->ids, j->ids, sizeof(e->ids));
            e->k1 |= (uint64_t) j->n << TOK_SHORT_COUNT;
        }
    }
}


/* Copies n ids to where they overlap with themselves, if at all, from below;
 * up to three more than there are. */
static inline void
move_ids(uint32_t *to, const uint32_t *ids, size_t n)
{
    uint32_t  four[4];
    size_t    i;

    for (i = 0; i < n; i += 4) {
        memcpy(four, ids + i, sizeof(four));
        memcpy(to + i, four, sizeof(four));
    }
}


/* The ids of all words, one behind the other. */
static int
close_gaps(const tok_t *t, tok_scratch_t *s, const tok_batch_t *b)
{
    const tok_gap_t  *g;
    const tok_job_t  *j;
    size_t            end = s->ids.n, to = b->gap[0].at, next, from, i, n;
    int               rc;

    for (i = 0; i < b->n_gaps; i++) {
        g = &b->gap[i];
        j = g->job == TOK_NO_JOB ? NULL : &b->job[g->job];
        if (j != NULL && j->n <= TOK_JOB_SYMBOLS) {
            n = j->n;
            copy_ids(tok_ids(s) + to, j->ids, n);

        } else {
            s->ids.n = end + 4;
            rc = tok_batch_model(t, s, g->p, g->len);
            if (rc != 0) {
                return rc;
            }
            n = s->ids.n - end - 4;
            memcpy(tok_ids(s) + to, tok_ids(s) + end + 4,
                   n * sizeof(uint32_t));
        }
        assert(n + 4 <= g->len + TOK_GAP_MORE);
        to += n;
        from = g->at + g->len + TOK_GAP_MORE;
        next = i + 1 < b->n_gaps ? g[1].at : end;
        move_ids(tok_ids(s) + to, tok_ids(s) + from, next - from);
        to += next - from;
    }
    s->ids.n = to;
    return 0;
}


int
tok_batch_settle(const tok_t *t, tok_scratch_t *s, tok_batch_t *b)
{
    int  rc;

    if (b->n_gaps == 0) {
        return 0;
    }
    rc = run_jobs(t, s, b);
    rc = rc == 0 ? close_gaps(t, s, b) : rc;
    if (rc == 0) {
        keep(s, b);
        b->n_jobs = b->n_gaps = 0;
    }
    return rc;
}


void
tok_batch_forget(tok_batch_t *b)
{
    tok_short_t  *e;
    size_t        i;

    for (i = 0; i < b->n_jobs; i++) {
        e = tok_bword_short(&b->of[i]) ? job_entry(b, i) : NULL;
        if (e != NULL) {
            memset(e, 0, sizeof(*e));
        }
    }
    b->n_jobs = b->n_gaps = 0;
}


tok_batch_t *
tok_batch_new(void)
{
    return calloc(1, sizeof(tok_batch_t));
}
