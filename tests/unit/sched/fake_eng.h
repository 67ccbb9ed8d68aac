/*
 * A tiny engine for tests of the scheduler.  The logits after a position are a
 * hash of all tokens up to it, read from the KV pages: a page lost, shared
 * wrongly or not recomputed changes the answer.  Every rule of eng.h that the
 * scheduler must keep is asserted.
 */

#ifndef FAKE_ENG_H
#define FAKE_ENG_H

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "worker/engine/eng.h"


#define FAKE_PAGE    8u
#define FAKE_DRAFTS  8u        /* rows of logits beside one per sequence */


typedef struct {
    int        open;
    uint32_t   len, npages;
    uint32_t  *pages;
} fake_seq_t;

typedef struct {
    eng_limits_t  limits;
    fake_seq_t   *seqs;
    uint32_t     *kv;           /* tokens, kv_pages * FAKE_PAGE */
    uint32_t     *refs;
    uint32_t      nfree;
    float        *logits;
    uint64_t      steps, tokens;
    uint64_t      now_ns;       /* a clock that steps move on */
    uint64_t      ns_step, ns_token;
    uint32_t      largest_with_decode;
    int           fail_at;      /* this step fails; 0: none */
    int           copies;       /* what followed once is likely again */
    uint32_t      corrupt;      /* one in so many tokens is written wrongly */
} fake_eng_t;


static inline uint64_t
fake_mix(uint64_t h)
{
    h ^= h >> 30;
    h *= 0xbf58476d1ce4e5b9ull;
    h ^= h >> 27;
    h *= 0x94d049bb133111ebull;

    return h ^ (h >> 31);
}


static inline int
fake_page_get(fake_eng_t *e, uint32_t *page)
{
    uint32_t  i;

    for (i = 0; i < e->limits.kv_pages; i++) {
        if (e->refs[i] == 0) {
            e->refs[i] = 1;
            e->nfree--;
            memset(e->kv + i * FAKE_PAGE, 0xee, FAKE_PAGE * 4);
            *page = i;
            return 0;
        }
    }

    return ENG_ENOKV;
}


static inline void
fake_page_put(fake_eng_t *e, uint32_t page)
{
    assert(e->refs[page] > 0);
    e->nfree += --e->refs[page] == 0;
}


static inline int
fake_seq_open(void *ctx, uint32_t *seq)
{
    uint32_t     i;
    fake_eng_t  *e = ctx;

    for (i = 0; i < e->limits.max_seqs; i++) {
        if (!e->seqs[i].open) {
            e->seqs[i].open = 1;
            *seq = i;
            return 0;
        }
    }

    return ENG_ENOSEQ;
}


static inline void
fake_seq_trim(void *ctx, uint32_t seq, uint32_t n)
{
    uint32_t     keep;
    fake_eng_t  *e = ctx;
    fake_seq_t  *q = &e->seqs[seq];

    assert(q->open);
    keep = (n + FAKE_PAGE - 1) / FAKE_PAGE;

    while (q->npages > keep) {
        fake_page_put(e, q->pages[--q->npages]);
    }

    q->len = q->len < n ? q->len : n;
}


static inline void
fake_seq_close(void *ctx, uint32_t seq)
{
    fake_eng_t  *e = ctx;

    fake_seq_trim(ctx, seq, 0);
    e->seqs[seq].open = 0;
}


static inline int
fake_seq_reserve(void *ctx, uint32_t seq, uint32_t n)
{
    uint32_t     want;
    fake_eng_t  *e = ctx;
    fake_seq_t  *q = &e->seqs[seq];

    assert(q->open);

    if (n > e->limits.ctx_len) {
        return ENG_ELIMIT;
    }

    want = (n + FAKE_PAGE - 1) / FAKE_PAGE;

    if (want > q->npages && want - q->npages > e->nfree) {
        return ENG_ENOKV;
    }

    while (q->npages < want) {
        if (fake_page_get(e, &q->pages[q->npages]) != 0) {
            abort();
        }

        q->npages++;
    }

    return 0;
}


static inline int
fake_seq_fork(void *ctx, uint32_t dst, uint32_t src, uint32_t n)
{
    uint32_t     i, page = 0;
    fake_eng_t  *e = ctx;
    fake_seq_t  *d = &e->seqs[dst], *s = &e->seqs[src];

    assert(d->open && s->open && d->npages == 0 && n <= s->len);

    if (n % FAKE_PAGE != 0 && fake_page_get(e, &page) != 0) {
        return ENG_ENOKV;
    }

    for (i = 0; i < n / FAKE_PAGE; i++) {
        d->pages[i] = s->pages[i];
        e->refs[d->pages[i]]++;
    }

    if (n % FAKE_PAGE != 0) {
        memcpy(e->kv + page * FAKE_PAGE, e->kv + s->pages[i] * FAKE_PAGE,
               n % FAKE_PAGE * 4);
        d->pages[i++] = page;
    }

    d->npages = i;
    d->len = n;

    return 0;
}


static inline int
fake_seq_attach(void *ctx, uint32_t seq, const uint32_t *pages, uint32_t n)
{
    uint32_t     i;
    fake_eng_t  *e = ctx;
    fake_seq_t  *q = &e->seqs[seq];

    assert(q->open && q->npages == 0 && n <= e->limits.ctx_len / FAKE_PAGE);

    for (i = 0; i < n; i++) {
        assert(e->refs[pages[i]] > 0);
        e->refs[pages[i]]++;
        q->pages[i] = pages[i];
    }

    q->npages = n;
    q->len = n * FAKE_PAGE;

    return 0;
}


static inline uint32_t
fake_seq_page(void *ctx, uint32_t seq, uint32_t index)
{
    fake_eng_t  *e = ctx;

    assert(index < e->seqs[seq].npages);

    return e->seqs[seq].pages[index];
}


static inline void
fake_page_ref(void *ctx, uint32_t page)
{
    fake_eng_t  *e = ctx;

    assert(e->refs[page] > 0);
    e->refs[page]++;
}


static inline void
fake_page_unref(void *ctx, uint32_t page)
{
    fake_page_put(ctx, page);
}


static inline uint32_t
fake_free_pages(void *ctx)
{
    return ((fake_eng_t *) ctx)->nfree;
}


static inline uint32_t
fake_at(const fake_eng_t *e, uint32_t seq, uint32_t pos)
{
    return e->kv[e->seqs[seq].pages[pos / FAKE_PAGE] * FAKE_PAGE
                 + pos % FAKE_PAGE];
}


static inline void
fake_logits(fake_eng_t *e, uint32_t seq, uint32_t n, float *out)
{
    uint32_t  i;
    uint64_t  h, x;

    h = 7;

    for (i = 0; i < n; i++) {
        h = fake_mix(h * 31 + fake_at(e, seq, i));
    }

    for (i = 0; i < e->limits.vocab; i++) {
        x = fake_mix(h + i * 0x9e3779b97f4a7c15ull);
        out[i] = (float) (x >> 40) / 1048576.0f - 8;
    }

    for (i = n - 1; e->copies && h % 8 != 0 && i > 0; i--) {
        if (fake_at(e, seq, i - 1) == fake_at(e, seq, n - 1)) {
            x = fake_at(e, seq, i);
            out[x < e->limits.vocab ? x : 0] += 20;
            break;
        }
    }
}


static inline int
fake_step(void *ctx, const eng_tok_t *toks, uint32_t n, const float **logits)
{
    uint32_t     i, rows, singles, page;
    fake_eng_t  *e = ctx;
    fake_seq_t  *q;

    assert(n > 0 && n <= e->limits.max_batch_tokens);
    rows = 0;
    singles = 0;
    e->steps++;
    e->tokens += n;
    e->now_ns += e->ns_step + n * e->ns_token;

    if (e->fail_at != 0 && e->steps == (uint64_t) e->fail_at) {
        return ENG_EINVAL;
    }

    for (i = 0; i < n; i++) {
        q = &e->seqs[toks[i].seq];
        assert(q->open && toks[i].pos == q->len);
        assert(toks[i].pos / FAKE_PAGE < q->npages);
        assert(toks[i].token < e->limits.vocab);
        assert(i == 0 || toks[i].seq == toks[i - 1].seq
               || toks[i].pos == q->len);
        page = q->pages[toks[i].pos / FAKE_PAGE];
        assert(e->refs[page] == 1);
        e->kv[page * FAKE_PAGE + toks[i].pos % FAKE_PAGE] = toks[i].token
            + (e->corrupt != 0 && (e->tokens + i) % e->corrupt == 0);
        q->len++;
        singles += (i == 0 || toks[i].seq != toks[i - 1].seq)
                   && (i + 1 == n || toks[i].seq != toks[i + 1].seq);

        if (toks[i].want_logits) {
            assert(rows < e->limits.max_logits);
            logits[i] = e->logits + (size_t) rows * e->limits.vocab;
            fake_logits(e, toks[i].seq, q->len,
                        e->logits + (size_t) rows * e->limits.vocab);
            rows++;
        }
    }

    if (singles != 0 && n - singles > e->largest_with_decode) {
        e->largest_with_decode = n - singles;
    }

    return 0;
}


static inline void
fake_park(void *ctx)
{
    (void) ctx;
}


static inline void
fake_destroy(void *ctx)
{
    uint32_t     i;
    fake_eng_t  *e = ctx;

    for (i = 0; i < e->limits.max_seqs; i++) {
        assert(!e->seqs[i].open);
        free(e->seqs[i].pages);
    }

    assert(e->nfree == e->limits.kv_pages);
    free(e->seqs);
    free(e->kv);
    free(e->refs);
    free(e->logits);
}


static inline void
fake_create(fake_eng_t *e, eng_t *eng, uint32_t vocab, uint32_t seqs,
    uint32_t ctx, uint32_t batch, uint32_t pages)
{
    uint32_t                i;
    static const eng_ops_t  ops = {
        .seq_open = fake_seq_open, .seq_close = fake_seq_close,
        .seq_reserve = fake_seq_reserve, .seq_trim = fake_seq_trim,
        .seq_fork = fake_seq_fork, .seq_attach = fake_seq_attach,
        .seq_page = fake_seq_page, .page_ref = fake_page_ref,
        .page_unref = fake_page_unref, .kv_free_pages = fake_free_pages,
        .step = fake_step, .park = fake_park, .destroy = fake_destroy
    };

    memset(e, 0, sizeof(*e));
    e->limits.vocab = vocab;
    e->limits.max_seqs = seqs;
    e->limits.ctx_len = ctx;
    e->limits.max_batch_tokens = batch;
    e->limits.max_logits = seqs + FAKE_DRAFTS;
    e->limits.page_tokens = FAKE_PAGE;
    e->limits.kv_pages = pages;
    e->seqs = calloc(seqs, sizeof(fake_seq_t));
    e->kv = calloc((size_t) pages * FAKE_PAGE, 4);
    e->refs = calloc(pages, 4);
    e->logits = calloc((size_t) e->limits.max_logits * vocab, sizeof(float));
    e->nfree = pages;
    e->now_ns = 1000;
    e->ns_step = 1000000;

    for (i = 0; i < seqs; i++) {
        e->seqs[i].pages = calloc(ctx / FAKE_PAGE + 1, 4);
    }

    eng->ops = &ops;
    eng->ctx = e;
    eng->limits = e->limits;
}


static inline uint64_t
fake_clock(void *data)
{
    return ((fake_eng_t *) data)->now_ns;
}


#endif /* FAKE_ENG_H */
