/*
 * tok_fast.c: words straight from the text: a hand-written scanner cuts them,
 * a cache of exact keys knows the ids of most, the model does the others.
 *
 * Words are gathered in a batch before the first is looked up, so that the
 * memory of the cache, and of the model's tables for those that it does not
 * know, is fetched for many of them at once.
 */

#include "tokenizer/tok_core.h"
#include "tokenizer/tok_fast.h"
#include "tokenizer/tok_jobs.h"
#include "tokenizer/tok_win.h"

#include <stdlib.h>


/* In a short entry, no id: the word has more than four of them. */
#define MANY   UINT32_MAX

/* A word of a batch. */
typedef struct {
    const uint8_t      *p;
    uint64_t            k0, k1;     /* its key; of more bytes than a key has:
                                       its place among the long words, 1 */
    tok_short_t        *bucket;     /* where the cache would have it */
    const tok_short_t  *e;          /* its ids, or MANY: */
    uint32_t            job;        /* 1 + the job that has them, or 0 */
    uint32_t            len;
} word_t;

struct tok_batch {
    size_t       n, n_jobs;
    word_t       w[TOK_BATCH_WORDS + TOK_WIN_BYTES];
    uint32_t     of[TOK_JOBS];      /* the word of each job, */
    uint32_t     id[TOK_JOBS];      /* the token that it is, or TOK_NO_ID */
    tok_job_t    job[TOK_JOBS];
    tok_short_t  e[TOK_JOBS];
};

/* The bucket of a word that is too long for one: never its key. */
static tok_short_t        no_bucket[2];

static const tok_short_t  many = { 0, 0, { MANY, 0, 0, 0 } };


/* Sixteen bytes of ones, sixteen of zeros: a mask for every length. */
static const uint8_t  mask_bytes[32] = {
    255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255
};


/* The key of a word of 1 to 15 bytes of which 16 can be read. */
static inline void
short_key(const uint8_t *p, size_t len, uint64_t *k0, uint64_t *k1)
{
    *k0 = tok_load64(p) & tok_load64(mask_bytes + 16 - len);
    *k1 = (tok_load64(p + 8) & tok_load64(mask_bytes + 24 - len))
          | (uint64_t) len << 56;
}


/* Buckets of two entries: one cache line. */
static inline uint32_t
short_slot(uint64_t k0, uint64_t k1)
{
    uint64_t  h = (k0 ^ (k1 * 0x9e3779b97f4a7c15ull)) * 0xd6e8feb86659fd93ull;

    return (uint32_t) (h >> (64 - TOK_CACHE_SHORT_LOG)) & ~1u;
}


/* A word that no cache knows. */
static int
model_word(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t len)
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


/* The key of a word of up to 48 bytes, and the entry where the cache would
 * have it. */
static inline tok_long_t *
long_slot(tok_scratch_t *s, const uint8_t *p, size_t len, uint64_t *k)
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


/* Whether an entry has a word of up to 48 bytes, which has its place there. */
static inline bool
is_long(const tok_long_t *e, const uint8_t *p, size_t len)
{
    size_t  i;
    bool    same = (e->n_len & 0xff) == len;

    for (i = 0; same && i < len; i += 8) {
        same = e->k[i / 8] == tok_load_part(p + i, len - i);
    }
    return same;
}


/* A word whose ids no entry of the batch has. */
static int
word_alone(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t len)
{
    const tok_long_t  *e;
    uint64_t           k[TOK_LONG_BYTES / 8];
    size_t             at = s->ids.n, n;
    int                rc;

    if (len > TOK_LONG_BYTES) {
        return model_word(t, s, p, len);
    }
    e = long_slot(s, p, len, k);
    if (is_long(e, p, len)) {
        n = e->n_len >> 8;
        memcpy(tok_ids(s) + at, e->ids, n * sizeof(uint32_t));
        s->ids.n = at + n;
        return 0;
    }
    rc = model_word(t, s, p, len);
    if (rc == 0) {
        keep_long(long_slot(s, p, len, k), k, len, tok_ids(s) + at,
                  s->ids.n - at);
    }
    return rc;
}


/* --- the batch --------------------------------------------------------- */

/* A word of more than 15 bytes: no key, but where long words have it. */
static void
add_long(tok_scratch_t *s, word_t *w)
{
    uint64_t     k[TOK_LONG_BYTES / 8];
    tok_long_t  *e;

    w->k0 = w->k1 = 1;
    w->bucket = no_bucket;
    if (w->len <= TOK_LONG_BYTES) {
        e = long_slot(s, w->p, w->len, k);
        w->k0 = (uint64_t) (e - s->longs);
        __builtin_prefetch(e);
    }
}


/* The key of a word, and its bucket is asked for. */
static inline void
add(tok_scratch_t *s, tok_batch_t *b, const uint8_t *p, size_t len,
    const uint8_t *end)
{
    word_t  *w = &b->w[b->n++];

    w->p = p;
    w->len = (uint32_t) len;
    w->job = 0;
    if (len > TOK_SHORT_BYTES) {
        add_long(s, w);
        return;
    }
    if (end - p >= 16) {
        short_key(p, len, &w->k0, &w->k1);

    } else {
        w->k0 = tok_load_part(p, len);
        w->k1 = (len > 8 ? tok_load_part(p + 8, len - 8) : 0)
                | (uint64_t) len << 56;
    }
    w->bucket = &s->shorts[short_slot(w->k0, w->k1)];
    __builtin_prefetch(w->bucket);
}


/* A word that the cache of short ones does not have: is a job needed? */
static inline bool
is_job(tok_scratch_t *s, word_t *w)
{
    w->e = &many;
    return w->len <= TOK_SHORT_BYTES
           || (w->len <= TOK_LONG_BYTES
               && !is_long(&s->longs[w->k0], w->p, w->len));
}


/* The key of a word of 1 to TOK_WORD_BYTES bytes among the tokens. */
static inline tok_word_t
word_key(const word_t *w, uint32_t *at)
{
    return tok_word_short(w->k0, (uint32_t) w->k1, w->len, at);
}


/* What will say whether a word is a token, and how its bytes merge. */
static inline void
ask_word(const tok_t *t, const word_t *w)
{
    uint32_t  at;
    size_t    i;

    if (w->len <= TOK_WORD_BYTES) {
        (void) word_key(w, &at);
        __builtin_prefetch(&t->sieve[tok_sieve_at(at, t->word_mask)]);
    }
    for (i = 0; i + 1 < w->len; i++) {
        __builtin_prefetch(&t->pairs[w->p[i] << 8 | w->p[i + 1]]);
    }
}


/*
 * The entries of the words from number i on, up to the first for which no job
 * is left.  Which of the two entries of its bucket has a word is no branch,
 * for nobody could foresee it.
 */
static size_t
probe(const tok_t *t, tok_scratch_t *s, tok_batch_t *b, size_t i)
{
    const tok_short_t  *e;
    word_t             *w;

    b->n_jobs = 0;
    for (/* void */; i < b->n; i++) {
        w = &b->w[i];
        e = w->bucket;
        e += ((e->k0 ^ w->k0) | (e->k1 ^ w->k1)) != 0;
        w->e = e;
        if (((e->k0 ^ w->k0) | (e->k1 ^ w->k1)) == 0 || !is_job(s, w)) {
            continue;
        }
        if (b->n_jobs == TOK_JOBS) {
            break;
        }
        b->of[b->n_jobs++] = (uint32_t) i;
        if (t->img->fast == TOK_FAST_BYTES) {
            ask_word(t, w);
        }
    }
    return i;
}


/* The ids of a job from the model; what a job has no room for stays away. */
static int
model_job(const tok_t *t, tok_scratch_t *s, const word_t *w, tok_job_t *j)
{
    size_t  at = s->ids.n;
    int     rc = model_word(t, s, w->p, w->len);

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
    const word_t  *w;
    tok_word_t     key;
    uint32_t       at, may[TOK_JOBS + 1];
    size_t         i, n = 0;
    bool           pass;

    for (i = 0; i < b->n_jobs; i++) {
        w = &b->w[b->of[i]];
        b->id[i] = TOK_NO_ID;
        (void) word_key(w, &at);
        pass = tok_word_may(t, at) | (w->len > TOK_WORD_BYTES);
        may[n] = (uint32_t) i;
        n += pass;
        __builtin_prefetch(pass ? (const void *) &t->words[at & t->word_mask]
                           : b);
    }
    while (n--) {
        i = may[n];
        w = &b->w[b->of[i]];
        if (w->len > TOK_WORD_BYTES) {
            b->id[i] = tok_word_find(t, w->p, w->len);

        } else {
            key = word_key(w, &at);
            b->id[i] = tok_word_get(t, key, at);
        }
    }
}


/* The symbols of a job; *merge: they are to be merged.  id: the token that its
 * word is, if the model is of bytes. */
static int
begin_job(const tok_t *t, tok_scratch_t *s, const word_t *w, tok_job_t *j,
    uint32_t id, bool *merge)
{
    *merge = false;
    if (t->img->fast == TOK_FAST_BYTES) {
        if (id != TOK_NO_ID) {
            j->n = 1;
            j->ids[0] = id;
            return 0;
        }
        j->n = w->len;
        tok_job_begin(t, j, w->p);

    } else if (t->img->fast == TOK_FAST_SPM
               && tok_fast_spm_symbols(t, s, w->p, w->len, j))
    {
        tok_job_begin(t, j, NULL);

    } else {
        return model_job(t, s, w, j);
    }
    *merge = true;
    return 0;
}


/* Whether long words remember it: the bucket has room for four ids. */
static inline bool
is_kept_long(const word_t *w, const tok_job_t *j)
{
    return w->len > TOK_SHORT_BYTES || j->n > 4;
}


/* The words that the caches do not have. */
static int
run_jobs(const tok_t *t, tok_scratch_t *s, tok_batch_t *b)
{
    tok_job_t    *run[TOK_JOBS], *j;
    tok_short_t  *e;
    tok_long_t   *slot;
    word_t       *w;
    uint64_t      long_key[TOK_LONG_BYTES / 8];
    size_t        i, k, n = 0;
    bool          merge;
    int           rc;

    if (t->img->fast == TOK_FAST_BYTES) {
        find_tokens(t, b);
    }
    for (i = 0; i < b->n_jobs; i++) {
        rc = begin_job(t, s, &b->w[b->of[i]], &b->job[i], b->id[i], &merge);
        if (rc != 0) {
            return rc;
        }
        run[n] = &b->job[i];
        n += merge;
    }
    tok_jobs_run(t, run, n);
    for (i = 0; i < b->n_jobs; i++) {
        j = &b->job[i];
        w = &b->w[b->of[i]];
        if (is_kept_long(w, j)) {
            slot = long_slot(s, w->p, w->len, long_key);
            __builtin_prefetch(slot, 1);
            __builtin_prefetch((uint8_t *) slot + 64, 1);
        }
        if (j->n == 0 || j->n > 4) {
            w->job = j->n <= TOK_JOB_SYMBOLS ? (uint32_t) i + 1 : 0;
            continue;
        }
        e = &b->e[i];
        e->k0 = w->k0;
        e->k1 = w->k1;
        for (k = 0; k < j->n; k++) {
            e->ids[k] = j->ids[k];
        }
        e->ids[0] |= (j->n - 1) << 30;
        w->e = e;
    }
    return 0;
}


/* The ids of the words i to n - 1; there is room for them and a few more. */
static inline int
put(const tok_t *t, tok_scratch_t *s, const tok_batch_t *b, size_t i,
    size_t n)
{
    const word_t     *w;
    const tok_job_t  *j;
    uint32_t         *out = tok_ids(s) + s->ids.n, first;
    int               rc;

    for (/* void */; i < n; i++) {
        w = &b->w[i];
        first = w->e->ids[0];
        if (first != MANY) {
            memcpy(out, w->e->ids, sizeof(w->e->ids));
            *out = first & 0x3fffffff;
            out += 1 + (first >> 30);
            continue;
        }
        if (w->job) {
            j = &b->job[w->job - 1];
            copy_ids(out, j->ids, j->n);
            out += j->n;
            continue;
        }
        s->ids.n = (size_t) (out - tok_ids(s));
        rc = word_alone(t, s, w->p, w->len);
        if (rc != 0) {
            return rc;
        }
        out = tok_ids(s) + s->ids.n;
    }
    s->ids.n = (size_t) (out - tok_ids(s));
    return 0;
}


/* What the jobs found out is remembered. */
static void
keep(tok_scratch_t *s, const tok_batch_t *b)
{
    const tok_job_t  *j;
    const word_t     *w;
    tok_short_t       e;
    uint64_t          k[TOK_LONG_BYTES / 8];
    size_t            i;

    for (i = 0; i < b->n_jobs; i++) {
        j = &b->job[i];
        w = &b->w[b->of[i]];
        if (j->n == 0 || j->n > TOK_JOB_SYMBOLS) {
            continue;
        }
        if (is_kept_long(w, j)) {
            keep_long(long_slot(s, w->p, w->len, k), k, w->len, j->ids, j->n);
        }
        if (w->len > TOK_SHORT_BYTES
            || (w->bucket[0].k0 == w->k0 && w->bucket[0].k1 == w->k1))
        {
            continue;
        }
        /* The bucket may say only that the long words have it. */
        e = j->n > 4 ? many : b->e[i];
        e.k0 = w->k0;
        e.k1 = w->k1;
        w->bucket[1] = w->bucket[0];
        w->bucket[0] = e;
    }
}


static int
flush(const tok_t *t, tok_scratch_t *s, tok_batch_t *b)
{
    size_t  i, next;
    int     rc;

    for (i = 0; i < b->n; i = next) {
        next = probe(t, s, b, i);
        assert(next > i);
        rc = b->n_jobs ? run_jobs(t, s, b) : 0;
        rc = rc == 0 ? put(t, s, b, i, next) : rc;
        if (rc != 0) {
            return rc;
        }
        keep(s, b);
    }
    b->n = 0;
    return 0;
}


tok_batch_t *
tok_batch_new(void)
{
    return calloc(1, sizeof(tok_batch_t));
}


void
tok_batch_begin(tok_scratch_t *s)
{
    s->batch->n = 0;
}


int
tok_batch_word(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t len,
    const uint8_t *end)
{
    add(s, s->batch, p, len, end);
    return s->batch->n < TOK_BATCH_WORDS ? 0 : flush(t, s, s->batch);
}


int
tok_batch_end(const tok_t *t, tok_scratch_t *s)
{
    return flush(t, s, s->batch);
}


/* --- byte-level BPE ---------------------------------------------------- */

/* The spans of the ids from at on: each token stands for its own bytes. */
static void
word_spans(const tok_t *t, tok_scratch_t *s, size_t at, size_t begin)
{
    size_t  len;

    for (/* void */; at < s->ids.n; at++) {
        len = t->bytes[tok_ids(s)[at]].len;
        tok_spans(s)[at] = (tok_span_t) { (uint32_t) begin,
                                          (uint32_t) (begin + len) };
        begin += len;
    }
}


/*
 * The next words of the text: those of a window, or one where it shows none.
 * Returns where they end.
 */
static inline const uint8_t *
cut(tok_scratch_t *s, uint32_t scan, const uint8_t *p, const uint8_t *end,
    const uint8_t **limit)
{
    const uint8_t  *base = p, *q;
    uint64_t        ends = 0;

    if (p[0] < 0x80 && (end - p == 1 || p[1] < 0x80)) {
        ends = tok_win_ends(scan, p, (size_t) (end - p));
    }
    if (ends == 0) {
        q = tok_scan(scan, p, end, limit);
        add(s, s->batch, p, (size_t) (q - p), end);
        return q;
    }
    do {
        q = base + __builtin_ctzll(ends);
        add(s, s->batch, p, (size_t) (q - p), end);
        p = q;
        ends &= ends - 1;
    } while (ends);
    return p;
}


static int
scan_words(const tok_t *t, tok_scratch_t *s, const uint8_t *text, size_t len)
{
    const uint8_t  *p = text, *end = text + len, *limit = NULL;
    uint32_t        scan = t->img->scan;
    int             rc = 0;

    assert(tok_win_knows(scan));
    tok_batch_begin(s);
    while (rc == 0 && p < end) {
        p = cut(s, scan, p, end, &limit);
        if (s->batch->n >= TOK_BATCH_WORDS) {
            rc = flush(t, s, s->batch);
        }
    }
    return rc == 0 ? flush(t, s, s->batch) : rc;
}


int
tok_fast_bytes(const tok_t *t, tok_scratch_t *s, const uint8_t *text,
    size_t len, size_t base)
{
    size_t  at = s->ids.n;
    bool    spans = s->want_spans;
    int     rc;

    rc = tok_room(s, &s->ids, len + 8, sizeof(uint32_t));
    if (rc == 0 && spans) {
        s->spans.n = s->ids.n;
        rc = tok_room(s, &s->spans, len + 8, sizeof(tok_span_t));
    }
    if (rc != 0) {
        return rc;
    }
    s->want_spans = false;
    rc = scan_words(t, s, text, len);
    s->want_spans = spans;
    if (rc == 0 && spans) {
        word_spans(t, s, at, base);
    }
    return rc;
}
