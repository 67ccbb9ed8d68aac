/*
 * tok_long.c: a long byte-level word in short windows, many of them merged side
 * by side.
 *
 * Two neighbours that come out of one window would come out if they were all
 * of the word: until some merge crosses a border, both its sides merge as if
 * they were alone.  And where all neighbours of a word are such, no merge
 * crosses any border first.  So two windows that overlap and have a token in
 * common make one row of tokens there.  Where windows have none in common
 * tok_back.c does a part of the word; if that happens too often, the rest; and
 * where tokens are long, for it takes its time by the token.
 */

#include "tokenizer/tok_jobs.h"
#include "tokenizer/tok_made.h"


#define WINDOW   48u                /* bytes, each a symbol */
#define STRIDE   32u                /* from window to window, at least: the
                                       less they overlap the sooner the word
                                       is done, but some words need it */
#define STRIDE_1 40u                /* at first */
#define STRIDE_2 4u                 /* less each time that was too much */
#define REPAIR   1024u              /* bytes of a part for tok_back.c */
#define SLACK    64u                /* its end, which is not trusted */
#define SPARSE   4u                 /* bytes a token, from which on tok_back.c
                                       is faster */

_Static_assert(WINDOW <= TOK_JOB_SYMBOLS && STRIDE_1 < WINDOW
               && (STRIDE_1 - STRIDE) % STRIDE_2 == 0, "a window is one job");

typedef struct {
    const tok_t    *t;
    tok_scratch_t  *s;
    const uint8_t  *p;
    size_t          len;
    size_t          at;             /* where the row ends */
    uint32_t        next;           /* the token that has to be there, or
                                       TOK_NO_ID */
    tok_job_t      *jobs;
    unsigned        stride;
    size_t          good, bad;      /* windows with a token in common */
} long_t;


/* The token that begins at place at, counted from 1. */
static inline uint32_t
id_at(const tok_job_t *j, unsigned at)
{
    return j->ids[__builtin_popcountll(j->live & (((uint64_t) 1 << at) - 2))];
}


/* The live place behind at. */
static inline unsigned
behind(const tok_job_t *j, unsigned at)
{
    return (unsigned) __builtin_ctzll(j->live & (~(uint64_t) 1 << at));
}


/* Tokens of j from place from up to place to. */
static inline void
emit(long_t *l, const tok_job_t *j, unsigned from, unsigned to)
{
    uint64_t   some = j->live & (((uint64_t) 1 << to) - ((uint64_t) 1 << from));
    size_t     n = (size_t) __builtin_popcountll(some), first;
    uint32_t  *out = tok_ids(l->s) + l->s->ids.n;

    first = (size_t) __builtin_popcountll(j->live
                                          & (((uint64_t) 1 << from) - 2));
    memcpy(out, j->ids + first, n * sizeof(*out));
    l->s->ids.n += n;
}


/* The place in b of the first token that a, stride bytes before, has too. */
static inline unsigned
common(const tok_job_t *a, const tok_job_t *b, unsigned stride)
{
    uint64_t  both = (a->live >> stride) & b->live & ~(uint64_t) 1;
    unsigned  at;

    for (/* void */; both; both &= both - 1) {
        at = (unsigned) __builtin_ctzll(both);
        if (at > b->symbols || at + stride > a->symbols) {
            break;
        }
        if (behind(a, at + stride) == behind(b, at) + stride) {
            return at;
        }
    }
    return 0;
}


/* The last token of j that begins in its first STRIDE bytes. */
static inline unsigned
last_of(const tok_job_t *j)
{
    return 63 - (unsigned) __builtin_clzll(j->live & (((uint64_t) 2 << STRIDE)
                                                      - 2));
}


/* Merges the windows from l->at on; 0: a byte has no token. */
static size_t
run(long_t *l)
{
    tok_job_t  *run[TOK_JOBS], *j;
    size_t      n, i, at = l->at;
    bool        odd = false;

    for (n = 0; n < TOK_JOBS && (n == 0 || at + WINDOW - l->stride < l->len);
         n++, at += l->stride)
    {
        j = run[n] = &l->jobs[n];
        j->n = (uint32_t) (l->len - at < WINDOW ? l->len - at : WINDOW);
        j->symbols = j->n;
        for (i = 0; i < j->n; i++) {
            odd |= l->t->byte_ids[l->p[at + i]] == TOK_NO_ID;
        }
        if (odd) {
            return 0;
        }
        tok_job_begin(l->t, j, l->p + at);
    }
    tok_jobs_run(l->t, run, n);
    return n;
}


/* Windows from l->at on; *broken: two of them had nothing in common.  False:
 * what was emitted before does not fit. */
static bool
windows(long_t *l, bool *broken)
{
    const tok_job_t  *j = l->jobs;
    size_t            n = run(l), i;
    unsigned          from = 1, at = 0;

    *broken = false;
    if (n == 0 || (l->next != TOK_NO_ID && id_at(j, 1) != l->next)) {
        return false;
    }
    for (i = 1; i < n; i++, j++, from = at) {
        at = common(j, j + 1, l->stride);
        if (at == 0) {
            *broken = true;
            l->bad++;
            break;
        }
        l->good++;
        emit(l, j, from, at + l->stride);
        l->at += l->stride;
    }
    if (l->at + j->symbols == l->len) {
        emit(l, j, from, j->symbols + 1);
        l->at = l->len;
        return true;
    }
    at = last_of(j);
    if (at > from) {
        emit(l, j, from, at);
        from = at;
    }
    l->next = id_at(j, from);
    l->at += from - 1;
    if (*broken && l->stride > STRIDE) {
        l->stride -= STRIDE_2;
        l->bad = 0;
    }
    return true;
}


/* A part of the word, or the rest of it, as one row; *fits: false as above, or
 * where one token is all of the part. */
static int
part(long_t *l, bool rest, bool *fits)
{
    tok_scratch_t  *s = l->s;
    const bool      spans = s->want_spans;
    size_t          from = s->ids.n, n = l->len - l->at, end;
    bool            done;
    int             rc;

    if (!rest && n > REPAIR + SLACK) {
        n = REPAIR;
    }
    s->want_spans = false;
    rc = tok_back_word(l->t, s, l->p + l->at, n, 0, &done);
    s->want_spans = spans;
    *fits = rc == 0 && done && s->ids.n > from
            && (l->next == TOK_NO_ID || tok_ids(s)[from] == l->next);
    if (!*fits) {
        return rc;
    }
    end = l->at + n;
    if (end < l->len) {
        do {
            l->next = tok_ids(s)[--s->ids.n];
            end -= l->t->bytes[l->next].len;
        } while (end > l->at + REPAIR - SLACK && s->ids.n > from);
        *fits = end > l->at;
    }
    l->at = end;
    return 0;
}


static void
spans(const tok_t *t, tok_scratch_t *s, size_t i, size_t base)
{
    size_t  n;

    for (/* void */; i < s->ids.n; i++) {
        n = t->bytes[tok_ids(s)[i]].len;
        tok_spans(s)[i] = (tok_span_t) { (uint32_t) base,
                                         (uint32_t) (base + n) };
        base += n;
    }
}


int
tok_long_word(const tok_t *t, tok_scratch_t *s, const uint8_t *word,
    size_t len, size_t base, bool *done)
{
    long_t  l = { t, s, word, len, 0, TOK_NO_ID, NULL, STRIDE_1, 0, 0 };
    size_t  from = s->ids.n, at, n;
    bool    fits = true, broken, sparse = false;
    int     rc;

    *done = false;
    s->jobs.n = 0;
    rc = tok_room(s, &s->jobs, TOK_JOBS, sizeof(tok_job_t));
    l.jobs = s->jobs.ptr;
    while (rc == 0 && fits && l.at < len) {
        at = l.at;
        n = s->ids.n;
        broken = true;
        if (!sparse) {
            fits = windows(&l, &broken);
        }
        if (fits && broken) {
            rc = part(&l, l.bad > 2 && l.bad * 8 > l.good, &fits);
        }
        sparse = l.at - at >= SPARSE * (s->ids.n - n);
    }
    if (rc != 0 || !fits) {
        s->ids.n = from;
        return rc;
    }
    if (s->want_spans) {
        spans(t, s, from, base);
    }
    *done = true;
    return 0;
}
