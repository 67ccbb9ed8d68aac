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


/* Room for ids behind those of a word whose ids are not yet known: what is
 * copied by four, and marks that a model puts in front. */
#define GAP_MORE   8
#define GAPS       160
#define GAP_BYTES  4096             /* of one word at most */
#define NO_JOB     UINT32_MAX

/*
 * A word of a batch.  Of more bytes than a key has: k0 is its place among the
 * long words, k1 LONG and its length.
 */
typedef struct {
    const uint8_t  *p;
    uint64_t        k0, k1;
    tok_short_t    *bucket;         /* where the cache would have it */
} word_t;

#define LONG  ((uint64_t) 0xff << 56)

/* A place among the ids, with room, for the ids of a word. */
typedef struct {
    const uint8_t  *p;
    size_t          at;
    uint32_t        len;
    uint32_t        job;            /* that has them, or NO_JOB */
} gap_t;

struct tok_batch {
    size_t       n, n_jobs, n_gaps;
    word_t       w[TOK_BATCH_WORDS + TOK_WIN_BYTES];
    gap_t        gap[GAPS];
    word_t       of[TOK_JOBS];      /* the word of each job, */
    uint32_t     at[TOK_JOBS];      /* its place among the tokens, */
    uint32_t     id[TOK_JOBS];      /* the token that it is, or TOK_NO_ID */
    tok_job_t    job[TOK_JOBS];
};

/* The bucket of a word that is too long for one: never its key. */
static tok_short_t  no_bucket[2];

_Static_assert(GAPS * GAP_MORE + 16 <= TOK_BATCH_ROOM, "ids of words and gaps");


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


/* --- the batch --------------------------------------------------------- */

static inline size_t
word_len(const word_t *w)
{
    return w->k1 < LONG ? w->k1 >> 56 : (uint32_t) w->k1;
}


/* A word of more than 15 bytes: no key, but where long words have it. */
static void __attribute__((noinline))
add_long(tok_scratch_t *s, word_t *w, size_t len)
{
    uint64_t     k[TOK_LONG_BYTES / 8];
    tok_long_t  *e;

    w->k0 = 0;
    w->k1 = LONG | len;
    w->bucket = no_bucket;
    if (len <= TOK_LONG_BYTES) {
        e = long_slot(s, w->p, len, k);
        w->k0 = (uint64_t) (e - s->longs);
        __builtin_prefetch(e);
    }
}


/* The key of a word, and its bucket is asked for. */
static inline void
add(tok_scratch_t *s, tok_short_t *shorts, word_t *w, const uint8_t *p,
    size_t len, const uint8_t *end)
{
    w->p = p;
    if (__builtin_expect(len > TOK_SHORT_BYTES, 0)) {
        add_long(s, w, len);
        return;
    }
    if (__builtin_expect(end - p >= 16, 1)) {
        short_key(p, len, &w->k0, &w->k1);

    } else {
        w->k0 = tok_load_part(p, len);
        w->k1 = (len > 8 ? tok_load_part(p + 8, len - 8) : 0)
                | (uint64_t) len << 56;
    }
    w->bucket = shorts + short_slot(w->k0, w->k1);
    __builtin_prefetch(w->bucket);
}


/* The key of a word of 1 to TOK_WORD_BYTES bytes among the tokens. */
static inline tok_word_t
word_key(const word_t *w, size_t len, uint32_t *at)
{
    return tok_word_short(w->k0, (uint32_t) w->k1, len, at);
}


/* What will say whether a word is a token, and how its bytes merge. */
static inline void
ask_word(const tok_t *t, const word_t *w, size_t len, uint32_t *at)
{
    *at = 0;
    if (len <= TOK_WORD_BYTES) {
        (void) word_key(w, len, at);
        __builtin_prefetch(&t->sieve[tok_sieve_at(*at, t->word_mask)]);
    }
}


/* Room for the ids of a word. */
static void
add_gap(tok_scratch_t *s, tok_batch_t *b, const word_t *w, uint32_t job)
{
    gap_t  *g = &b->gap[b->n_gaps++];

    g->p = w->p;
    g->len = (uint32_t) word_len(w);
    g->at = s->ids.n;
    g->job = job;
    s->ids.n += g->len + GAP_MORE;
}


/* A job for a word; its entry, if it is a short one, names the job. */
static void
add_job(const tok_t *t, tok_scratch_t *s, tok_batch_t *b, const word_t *w,
    tok_short_t *e)
{
    uint32_t  job = (uint32_t) b->n_jobs++;

    if (w->k1 < LONG) {
        if (e == NULL) {
            e = w->bucket;
            e[1] = e[0];
            e->k0 = w->k0;
            e->k1 = w->k1;
        }
        e->ids[0] = job + 1;
    }
    b->of[job] = *w;
    if (t->img->fast == TOK_FAST_BYTES) {
        ask_word(t, w, word_len(w), &b->at[job]);
    }
    add_gap(s, b, w, job);
}


/* A word of which the short words do not have the ids; e: its entry there, if
 * any.  There is room for a job and a gap. */
static int __attribute__((noinline))
put_other(const tok_t *t, tok_scratch_t *s, tok_batch_t *b, const word_t *w,
    tok_short_t *e)
{
    size_t       len = word_len(w), n;
    uint64_t     k[TOK_LONG_BYTES / 8];
    tok_long_t  *l;

    if (len > TOK_LONG_BYTES) {
        if (len <= GAP_BYTES) {
            add_gap(s, b, w, NO_JOB);
            return 0;
        }
        return model_word(t, s, w->p, len);
    }
    if (e != NULL && e->ids[0]) {
        add_gap(s, b, w, e->ids[0] - 1);
        return 0;
    }
    if (e != NULL || len > TOK_SHORT_BYTES) {
        l = e != NULL ? long_slot(s, w->p, len, k) : &s->longs[w->k0];
        if (is_long(l, w->p, len)) {
            n = l->n_len >> 8;
            memcpy(tok_ids(s) + s->ids.n, l->ids, n * sizeof(uint32_t));
            s->ids.n += n;
            return 0;
        }
    }
    add_job(t, s, b, w, e);
    return 0;
}


/* The ids of a job from the model; what a job has no room for stays away. */
static int
model_job(const tok_t *t, tok_scratch_t *s, const word_t *w, tok_job_t *j)
{
    size_t  at = s->ids.n;
    int     rc = model_word(t, s, w->p, word_len(w));

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
    uint32_t       at, may[TOK_JOBS + 1], pass;
    size_t         i, n = 0, len;

    for (i = 0; i < b->n_jobs; i++) {
        at = b->at[i];
        b->id[i] = TOK_NO_ID;
        pass = (uint32_t) tok_word_may(t, at)
               | (word_len(&b->of[i]) > TOK_WORD_BYTES);
        may[n] = (uint32_t) i;
        n += pass;
        __builtin_prefetch(&t->words[at & t->word_mask & (0 - pass)]);
    }
    while (n--) {
        i = may[n];
        w = &b->of[i];
        len = word_len(w);
        if (len > TOK_WORD_BYTES) {
            b->id[i] = tok_word_find(t, w->p, len);

        } else {
            key = word_key(w, len, &at);
            b->id[i] = tok_word_get(t, key, at);
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
        j->n = (uint32_t) word_len(&b->of[todo[i]]);
        tok_job_begin(t, j, b->of[todo[i]].p);
    }
    return n;
}


/* The same for the others, whose words the model may have to do alone. */
static int
begin_words(const tok_t *t, tok_scratch_t *s, tok_batch_t *b,
    tok_job_t *run[], size_t *n)
{
    const word_t  *w;
    tok_job_t     *j;
    size_t         i;
    int            rc = 0;

    *n = 0;
    for (i = 0; rc == 0 && i < b->n_jobs; i++) {
        j = &b->job[i];
        w = &b->of[i];
        if (t->img->fast == TOK_FAST_SPM
            && tok_fast_spm_symbols(t, s, w->p, word_len(w), j))
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
is_kept_long(const word_t *w, const tok_job_t *j)
{
    return w->k1 >= LONG || j->n > 4;
}


/* The words that the caches do not have. */
static int
run_jobs(const tok_t *t, tok_scratch_t *s, tok_batch_t *b)
{
    tok_job_t   *run[TOK_JOBS];
    tok_long_t  *slot;
    word_t      *w;
    uint64_t     key[TOK_LONG_BYTES / 8];
    size_t       i, n = 0;
    int          rc = 0;

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
            slot = long_slot(s, w->p, word_len(w), key);
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
    const word_t  *w = &b->of[i];
    tok_short_t   *e = w->bucket;

    e += e->k0 != w->k0 || e->k1 != w->k1 || e->ids[0] != i + 1;
    return e->k0 == w->k0 && e->k1 == w->k1 && e->ids[0] == i + 1 ? e : NULL;
}


/* What the jobs found out is remembered. */
static void
keep(tok_scratch_t *s, const tok_batch_t *b)
{
    const tok_job_t  *j;
    const word_t     *w;
    tok_short_t      *e;
    uint64_t          k[TOK_LONG_BYTES / 8];
    size_t            i;

    for (i = 0; i < b->n_jobs; i++) {
        j = &b->job[i];
        w = &b->of[i];
        if (is_kept_long(w, j) && j->n && j->n <= TOK_JOB_SYMBOLS) {
            keep_long(long_slot(s, w->p, word_len(w), k), k, word_len(w),
                      j->ids, j->n);
        }
        e = w->k1 < LONG ? job_entry(b, i) : NULL;
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
    const gap_t      *g;
    const tok_job_t  *j;
    size_t            end = s->ids.n, to = b->gap[0].at, next, from, i, n;
    int               rc;

    for (i = 0; i < b->n_gaps; i++) {
        g = &b->gap[i];
        j = g->job == NO_JOB ? NULL : &b->job[g->job];
        if (j != NULL && j->n <= TOK_JOB_SYMBOLS) {
            n = j->n;
            copy_ids(tok_ids(s) + to, j->ids, n);

        } else {
            s->ids.n = end + 4;
            rc = model_word(t, s, g->p, g->len);
            if (rc != 0) {
                return rc;
            }
            n = s->ids.n - end - 4;
            memcpy(tok_ids(s) + to, tok_ids(s) + end + 4,
                   n * sizeof(uint32_t));
        }
        assert(n + 4 <= g->len + GAP_MORE);
        to += n;
        from = g->at + g->len + GAP_MORE;
        next = i + 1 < b->n_gaps ? g[1].at : end;
        move_ids(tok_ids(s) + to, tok_ids(s) + from, next - from);
        to += next - from;
    }
    s->ids.n = to;
    return 0;
}


/* The ids of the words that wait for theirs. */
static int
settle(const tok_t *t, tok_scratch_t *s, tok_batch_t *b)
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


/*
 * The ids of the words from w on, up to the first of which the short words do
 * not have them; *e: its entry there, or NULL.  Which of two entries has a word
 * is no branch, for nobody could foresee it.
 */
static const word_t *
put(const word_t *w, const word_t *end, uint32_t **to, tok_short_t **entry)
{
    tok_short_t  *e;
    uint32_t     *out = *to;
    uint64_t      first, second;
    size_t        n;

    for (/* void */; w < end; w++) {
        e = w->bucket;
        first = (e[0].k0 ^ w->k0) | ((e[0].k1 & TOK_SHORT_KEY) ^ w->k1);
        second = (e[1].k0 ^ w->k0) | ((e[1].k1 & TOK_SHORT_KEY) ^ w->k1);
        e += first != 0;
        n = e->k1 >> TOK_SHORT_COUNT;
        if (__builtin_expect(((first != 0) & (second != 0)) | (n == 0), 0)) {
            *entry = first && second ? NULL : e;
            break;
        }
        memcpy(out, e->ids, sizeof(e->ids));
        out += n;
    }
    *to = out;
    return w;
}


/* The words of the batch but the last few, which wait. */
static int
look(const tok_t *t, tok_scratch_t *s, tok_batch_t *b, size_t wait)
{
    const word_t  *w = b->w, *end = b->w + b->n - wait;
    tok_short_t   *e = NULL;
    uint32_t      *out;
    int            rc;

    for (;;) {
        out = tok_ids(s) + s->ids.n;
        w = put(w, end, &out, &e);
        s->ids.n = (size_t) (out - tok_ids(s));
        if (w == end) {
            break;
        }
        if (b->n_gaps == GAPS || b->n_jobs == TOK_JOBS
            || (word_len(w) > GAP_BYTES && b->n_gaps))
        {
            rc = settle(t, s, b);       /* and this word once more */

        } else {
            rc = put_other(t, s, b, w, e);
            w++;
        }
        if (rc != 0) {
            return rc;
        }
    }
    memmove(b->w, end, wait * sizeof(b->w[0]));
    b->n = wait;
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
    tok_batch_t  *b = s->batch;
    tok_short_t  *e;
    size_t        i;

    /* Jobs that an error left undone. */
    for (i = 0; i < b->n_jobs; i++) {
        e = b->of[i].k1 < LONG ? job_entry(b, i) : NULL;
        if (e != NULL) {
            memset(e, 0, sizeof(*e));
        }
    }
    b->n = b->n_jobs = b->n_gaps = 0;
}


int
tok_batch_word(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t len,
    const uint8_t *end)
{
    tok_batch_t  *b = s->batch;

    add(s, s->shorts, &b->w[b->n++], p, len, end);
    return b->n < TOK_BATCH_WORDS ? 0
           : look(t, s, b, TOK_BATCH_WAIT);
}


int
tok_batch_end(const tok_t *t, tok_scratch_t *s)
{
    int  rc = look(t, s, s->batch, 0);

    return rc == 0 ? settle(t, s, s->batch) : rc;
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
    tok_batch_t    *b = s->batch;
    tok_short_t    *shorts = s->shorts;
    word_t         *w = &b->w[b->n];
    uint64_t        ends = 0;

    if (p[0] < 0x80 && (end - p == 1 || p[1] < 0x80)) {
        ends = tok_win_ends(scan, p, (size_t) (end - p));
    }
    if (ends == 0) {
        q = tok_scan(scan, p, end, limit);
        add(s, shorts, w, p, (size_t) (q - p), end);
        b->n++;
        return q;
    }
    do {
        q = base + __builtin_ctzll(ends);
        add(s, shorts, w++, p, (size_t) (q - p), end);
        p = q;
        ends &= ends - 1;
    } while (ends);
    b->n = (size_t) (w - b->w);
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
            rc = look(t, s, s->batch, TOK_BATCH_WAIT);
        }
    }
    return rc == 0 ? tok_batch_end(t, s) : rc;
}


int
tok_fast_bytes(const tok_t *t, tok_scratch_t *s, const uint8_t *text,
    size_t len, size_t base)
{
    size_t  at = s->ids.n;
    bool    spans = s->want_spans;
    int     rc;

    rc = tok_room(s, &s->ids, len + TOK_BATCH_ROOM, sizeof(uint32_t));
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
