/*
 * tok_fast.c: words straight from the text: a hand-written scanner cuts them,
 * a cache of exact keys knows the ids of most, the model does the others.
 *
 * Words are gathered in a batch before the first is looked up, so that the
 * memory of the cache, and of the model's tables for those that it does not
 * know, is fetched for many of them at once.
 */

#include "tokenizer/tok_batch.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif


/* The bucket of a word that is too long for one: never its key. */
static tok_short_t  no_bucket[2];

/* Sixteen bytes of zeros, sixteen of ones: what follows a word of any length.
 * No text has such a byte. */
static const _Alignas(32) uint8_t  pad_bytes[32] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255
};


/* The key of a word of 1 to 15 bytes of which 16 can be read. */
static inline void
short_key(tok_bword_t *w, const uint8_t *p, size_t len)
{
    tok_bytes_t  v, pad;

    memcpy(&v, p, sizeof(v));
    memcpy(&pad, pad_bytes + 16 - len, sizeof(pad));
    v |= pad;
    w->k0 = v[0];
    w->k1 = v[1];
}


/* Buckets of two entries: one cache line. */
static inline uint32_t
short_slot(uint64_t k0, uint64_t k1)
{
    uint64_t  h = (k0 ^ (k1 * 0x9e3779b97f4a7c15ull)) * 0xd6e8feb86659fd93ull;

    return (uint32_t) (h >> (64 - TOK_CACHE_SHORT_LOG)) & ~1u;
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

/* A word of more than 15 bytes: no key, but where long words have it. */
static void __attribute__((noinline))
add_long(tok_scratch_t *s, tok_bword_t *w, size_t len)
{
    uint64_t     k[TOK_LONG_BYTES / 8];
    tok_long_t  *e;

    w->k0 = 0;
    w->k1 = len;
    w->bucket = no_bucket;
    if (len <= TOK_LONG_BYTES) {
        e = tok_long_slot(s, w->p, len, k);
        w->k0 = (uint64_t) (e - s->longs);
        __builtin_prefetch(e);
    }
}


/* A word at the end of what can be read. */
static void __attribute__((noinline))
last_key(tok_bword_t *w, const uint8_t *p, size_t len)
{
    uint8_t  last[16] = { 0 };

    memcpy(last, p, len);
    short_key(w, last, len);
}


/* The key of a word, and its bucket is asked for; whole: sixteen bytes can be
 * read. */
static inline void
add(tok_scratch_t *s, tok_short_t *shorts, tok_bword_t *w, const uint8_t *p,
    size_t len, bool whole)
{
    w->p = p;
    if (__builtin_expect(len > TOK_SHORT_BYTES, 0)) {
        add_long(s, w, len);
        return;
    }
    if (__builtin_expect(whole, 1)) {
        short_key(w, p, len);

    } else {
        last_key(w, p, len);
    }
    w->bucket = shorts + short_slot(w->k0, w->k1);
    __builtin_prefetch(w->bucket);
}


/* What will say whether the word of a job is a token. */
static inline void
ask_word(const tok_t *t, tok_batch_t *b, uint32_t job)
{
    const tok_bword_t  *w = &b->of[job];
    size_t              len = tok_bword_len(w);

    b->at[job] = 0;
    if (len <= TOK_WORD_BYTES) {
        b->key[job] = tok_word_short(
            w->k0 & ~tok_load64(pad_bytes + 16 - len),
            (uint32_t) (w->k1 & ~tok_load64(pad_bytes + 24 - len)), len,
            &b->at[job]);
        __builtin_prefetch(&t->sieve[tok_sieve_at(b->at[job],
                                                  t->word_mask)]);
    }
}


/* Room for the ids of a word. */
static void
add_gap(tok_scratch_t *s, tok_batch_t *b, const tok_bword_t *w, uint32_t job)
{
    tok_gap_t  *g = &b->gap[b->n_gaps++];

    g->p = w->p;
    g->len = (uint32_t) tok_bword_len(w);
    g->at = s->ids.n;
    g->job = job;
    s->ids.n += g->len + TOK_GAP_MORE;
}


/* A job for a word; its entry, if it is a short one, names the job. */
static void
add_job(const tok_t *t, tok_scratch_t *s, tok_batch_t *b, const tok_bword_t *w,
    tok_short_t *e)
{
    uint32_t  job = (uint32_t) b->n_jobs++;

    if (tok_bword_short(w)) {
        if (e == NULL) {
            e = w->bucket;
            e[1] = e[0];
            e->k0 = w->k0;
            e->k1 = w->k1 & TOK_SHORT_KEY;
        }
        e->ids[0] = job + 1;
    }
    b->of[job] = *w;
    if (t->img->fast == TOK_FAST_BYTES) {
        ask_word(t, b, job);
    }
    add_gap(s, b, w, job);
}


/* A word of which the short words do not have the ids; e: its entry there, if
 * any.  There is room for a job and a gap. */
static int __attribute__((noinline))
put_other(const tok_t *t, tok_scratch_t *s, tok_batch_t *b,
    const tok_bword_t *w, tok_short_t *e)
{
    size_t       len = tok_bword_len(w), n;
    uint64_t     k[TOK_LONG_BYTES / 8];
    tok_long_t  *l;

    if (len > TOK_LONG_BYTES) {
        if (len <= TOK_GAP_BYTES) {
            add_gap(s, b, w, TOK_NO_JOB);
            return 0;
        }
        return tok_batch_model(t, s, w->p, len);
    }
    if (e != NULL && e->ids[0]) {
        add_gap(s, b, w, e->ids[0] - 1);
        return 0;
    }
    if (e != NULL || len > TOK_SHORT_BYTES) {
        l = e != NULL ? tok_long_slot(s, w->p, len, k) : &s->longs[w->k0];
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


/* Whether an entry has another word. */
static inline bool
is_other(const tok_short_t *e, const tok_bword_t *w)
{
#ifdef __SSE2__
    /* All bytes but the last. */
    return (_mm_movemask_epi8(_mm_cmpeq_epi8(
                _mm_load_si128((const __m128i *) &e->k0),
                _mm_load_si128((const __m128i *) &w->k0))) & 0x7fff)
           != 0x7fff;
#else
    return ((e->k0 ^ w->k0) | ((e->k1 ^ w->k1) & TOK_SHORT_KEY)) != 0;
#endif
}


/*
 * The ids of the words from w on, up to the first of which the short words do
 * not have them; *e: its entry there, or NULL.  Which of two entries has a word
 * is no branch, for nobody could foresee it.
 */
static const tok_bword_t *
put(const tok_bword_t *w, const tok_bword_t *end, uint32_t **to,
    tok_short_t **entry)
{
    tok_short_t  *e;
    uint32_t     *out = *to;
    bool          first, second;
    size_t        n;

    for (/* void */; w < end; w++) {
        e = w->bucket;
        first = is_other(e, w);
        second = is_other(e + 1, w);
        e += first;
        n = e->k1 >> TOK_SHORT_COUNT;
        if (__builtin_expect((first & second) | (n == 0), 0)) {
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
    const tok_bword_t  *w = b->w, *end = b->w + b->n - wait;
    tok_short_t        *e = NULL;
    uint32_t           *out;
    int                 rc;

    for (;;) {
        out = tok_ids(s) + s->ids.n;
        w = put(w, end, &out, &e);
        s->ids.n = (size_t) (out - tok_ids(s));
        if (w == end) {
            break;
        }
        if (b->n_gaps == TOK_GAPS || b->n_jobs == TOK_JOBS
            || (tok_bword_len(w) > TOK_GAP_BYTES && b->n_gaps))
        {
            rc = tok_batch_settle(t, s, b);       /* and this word once more */

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


void
tok_batch_begin(tok_scratch_t *s)
{
    tok_batch_forget(s->batch);
    s->batch->n = 0;
}


int
tok_batch_word(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t len,
    const uint8_t *end)
{
    tok_batch_t  *b = s->batch;

    add(s, s->shorts, &b->w[b->n++], p, len, end - p >= 16);
    return b->n < TOK_BATCH_WORDS ? 0
           : look(t, s, b, TOK_BATCH_WAIT);
}


int
tok_batch_end(const tok_t *t, tok_scratch_t *s)
{
    int  rc = look(t, s, s->batch, 0);

    return rc == 0 ? tok_batch_settle(t, s, s->batch) : rc;
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
    tok_bword_t    *w = &b->w[b->n];
    uint64_t        ends = 0;
    bool            whole = end - p >= TOK_WIN_BYTES + 16;

    if (p[0] < 0x80 && (end - p == 1 || p[1] < 0x80)) {
        ends = tok_win_ends(scan, p, (size_t) (end - p));
    }
    if (ends == 0) {
        q = tok_scan(scan, p, end, limit);
        add(s, shorts, w, p, (size_t) (q - p), end - p >= 16);
        b->n++;
        return q;
    }
    do {
        q = base + __builtin_ctzll(ends);
        add(s, shorts, w++, p, (size_t) (q - p), whole || end - p >= 16);
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
