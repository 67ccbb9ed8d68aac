/*
 * Sampling (the order of the steps is in wrk_sample.h).  A row is never
 * sorted: block maxima and a threshold below the largest logit yield a few
 * candidates, and a heap gives those that the filters let through.  Not here:
 * stop conditions, text.
 */

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "worker/wrk_sample.h"
#include "worker/wrk_sample_row.h"


#define WRK_SAMPLE_LOGPROB_MIN  -9999.0f    /* what minus infinity is sent as */
#define WRK_SAMPLE_NATS_FIRST   4.0f        /* first threshold */
#define WRK_SAMPLE_NATS_LAST    87.0f       /* exp() is 0 beyond */
#define WRK_SAMPLE_NATS_BINS    32.0f       /* what the bins cover */
#define WRK_SAMPLE_BINS         512u


typedef struct {
    float     x;                /* logit */
    uint32_t  id;
} wrk_cand_t;

struct wrk_sampler_s {
    const wrk_row_ops_t  *ops;
    uint32_t              vocab;
    uint32_t              ncands;
    float                *blocks;       /* per block of the row */
    float                *row;          /* changed logits */
    float                *weights;      /* of the candidates */
    wrk_cand_t           *cands;
    wrk_cand_t           *bin_cands;    /* those of one bin */
    uint16_t             *counts;       /* of tokens; all 0 between calls */
};


static const float *wrk_sample_change(wrk_sampler_t *s,
    const wrk_sample_params_t *p, const float *logits, const uint32_t *tokens,
    uint32_t nprompt, uint32_t ntokens);
static uint32_t wrk_sample_first(const wrk_sampler_t *s, const float *x,
    float max);
static uint32_t wrk_sample_row(wrk_sampler_t *s, const float *x, float max,
    float scale, double u);
static uint32_t wrk_sample_filtered(wrk_sampler_t *s,
    const wrk_sample_params_t *p, const float *x, float max, float scale,
    double u);


wrk_sampler_t *
wrk_sampler_create(uint32_t vocab)
{
    uint32_t        nblocks;
    wrk_sampler_t  *s;

    assert(vocab > 0 && vocab <= WRK_SAMPLE_VOCAB_MAX);

    s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }

    nblocks = (vocab + WRK_ROW_BLOCK - 1) / WRK_ROW_BLOCK;
    s->ops = wrk_row_ops();
    s->vocab = vocab;
    s->blocks = calloc(nblocks, sizeof(float));
    s->row = calloc(vocab, sizeof(float));
    s->weights = calloc(vocab, sizeof(float));
    s->cands = calloc(vocab, sizeof(wrk_cand_t));
    s->bin_cands = calloc(vocab, sizeof(wrk_cand_t));
    s->counts = calloc(vocab, sizeof(uint16_t));

    if (s->blocks == NULL || s->row == NULL || s->weights == NULL
        || s->cands == NULL || s->bin_cands == NULL || s->counts == NULL)
    {
        wrk_sampler_destroy(s);
        return NULL;
    }

    return s;
}


void
wrk_sampler_destroy(wrk_sampler_t *s)
{
    if (s == NULL) {
        return;
    }

    free(s->blocks);
    free(s->row);
    free(s->weights);
    free(s->cands);
    free(s->bin_cands);
    free(s->counts);
    free(s);
}


void
wrk_sample_params_init(wrk_sample_params_t *p)
{
    memset(p, 0, sizeof(*p));
    p->top_p = 1;
    p->repetition = 1;
}


uint32_t
wrk_sample(wrk_sampler_t *s, const wrk_sample_params_t *p,
    const float *logits, const uint32_t *tokens, uint32_t nprompt,
    uint32_t ntokens)
{
    float         max, scale;
    double        u;
    uint64_t      bits;
    const float  *x;

    assert(nprompt <= ntokens);

    x = wrk_sample_change(s, p, logits, tokens, nprompt, ntokens);
    max = s->ops->max(x, s->vocab, s->blocks);

    if (!isfinite(max)) {
        return WRK_SAMPLE_NONE;
    }

    if (p->temperature <= 0 || p->top_k == 1) {
        return wrk_sample_first(s, x, max);
    }

    bits = wrk_sample_random(p->seed, p->choice, ntokens - nprompt);
    u = (double) (bits >> 11) * 0x1p-53;

    /* A temperature that small is greedy in all but name; keep the scale
       finite. */
    scale = 1 / fmaxf(p->temperature, 1e-4f);

    if (p->top_k <= 0 && p->top_p >= 1 && p->min_p <= 0) {
        return wrk_sample_row(s, x, max, scale, u);
    }

    return wrk_sample_filtered(s, p, x, max, scale, u);
}


/* Philox4x32-10: ten rounds of two 32x32 bit products. */
uint64_t
wrk_sample_random(uint64_t seed, uint32_t choice, uint32_t index)
{
    uint32_t  c0, c1, c2, c3, k0, k1;
    uint64_t  a, b;
    unsigned  round;

    c0 = index;
    c1 = choice;
    c2 = 0;
    c3 = 0;
    k0 = (uint32_t) seed;
    k1 = (uint32_t) (seed >> 32);

    for (round = 0; round < 10; round++) {
        a = (uint64_t) 0xd2511f53u * c0;
        b = (uint64_t) 0xcd9e8d57u * c2;
        c0 = (uint32_t) (b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t) b;
        c2 = (uint32_t) (a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t) a;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }

    return (uint64_t) c1 << 32 | c0;
}


static void
wrk_sample_penalize(wrk_sampler_t *s, const wrk_sample_params_t *p,
    const uint32_t *tokens, uint32_t nprompt, uint32_t ntokens)
{
    float     *x;
    uint32_t   i, id;

    /* First the prompt's, marked so that each counts once. */
    if (p->repetition != 1) {
        for (i = 0; i < ntokens; i++) {
            id = tokens[i];
            assert(id < s->vocab);

            if (s->counts[id]++ == 0) {
                x = &s->row[id];
                *x = *x > 0 ? *x / p->repetition : *x * p->repetition;
            }

            /* no way back to 0 */
            s->counts[id] |= 1;
        }

        for (i = 0; i < ntokens; i++) {
            s->counts[tokens[i]] = 0;
        }
    }

    if (p->presence == 0 && p->frequency == 0) {
        return;
    }

    for (i = nprompt; i < ntokens; i++) {
        id = tokens[i];
        assert(id < s->vocab);
        s->counts[id] += s->counts[id] < UINT16_MAX;
    }

    for (i = nprompt; i < ntokens; i++) {
        id = tokens[i];

        if (s->counts[id] != 0) {
            s->row[id] -= p->presence + p->frequency * s->counts[id];
            s->counts[id] = 0;
        }
    }
}


/* Bias and penalties, in a copy of the row if there are any. */
static const float *
wrk_sample_change(wrk_sampler_t *s, const wrk_sample_params_t *p,
    const float *logits, const uint32_t *tokens, uint32_t nprompt,
    uint32_t ntokens)
{
    uint32_t  i;

    if (p->nbias == 0 && p->repetition == 1 && p->presence == 0
        && p->frequency == 0)
    {
        return logits;
    }

    memcpy(s->row, logits, s->vocab * sizeof(float));

    for (i = 0; i < p->nbias; i++) {
        assert(p->bias[i].id < s->vocab);
        s->row[p->bias[i].id] += p->bias[i].bias;
    }

    wrk_sample_penalize(s, p, tokens, nprompt, ntokens);

    return s->row;
}


/* The smallest id with the largest logit. */
static uint32_t
wrk_sample_first(const wrk_sampler_t *s, const float *x, float max)
{
    uint32_t  i, b;

    for (b = 0; s->blocks[b] != max; b++) { /* void */ }

    for (i = b * WRK_ROW_BLOCK; x[i] != max; i++) { /* void */ }

    assert(i < s->vocab);
    return i;
}


/* Draws from the whole row: which block, then which token in it. */
static uint32_t
wrk_sample_row(wrk_sampler_t *s, const float *x, float max, float scale,
    double u)
{
    double    target, sum;
    uint32_t  i, b, n, nblocks, last;
    float     e[WRK_ROW_BLOCK];

    target = u * s->ops->expsum(x, s->vocab, max, scale, s->blocks);
    nblocks = (s->vocab + WRK_ROW_BLOCK - 1) / WRK_ROW_BLOCK;
    sum = 0;
    last = 0;

    for (b = 0; b < nblocks; b++) {
        if (s->blocks[b] > 0) {
            last = b;

            if (sum + s->blocks[b] > target) {
                break;
            }
        }

        sum += s->blocks[b];
    }

    /* Within a block the sum's order differs by rounding: then its last token
       that can be drawn. */
    i = last * WRK_ROW_BLOCK;
    x += i;
    n = s->vocab - i < WRK_ROW_BLOCK ? s->vocab - i : WRK_ROW_BLOCK;
    s->ops->exps(x, n, max, scale, e);

    for (b = 0, last = 0; b < n; b++) {
        if (e[b] > 0) {
            last = b;
            sum += e[b];

            if (sum > target) {
                break;
            }
        }
    }

    return i + last;
}


/* Likelier first; the smaller id among equals. */
static inline int
wrk_cand_before(const wrk_cand_t *a, const wrk_cand_t *b)
{
    return a->x > b->x || (a->x == b->x && a->id < b->id);
}


static void
wrk_cand_sift(wrk_cand_t *h, uint32_t n, uint32_t i)
{
    uint32_t    child;
    wrk_cand_t  v;

    v = h[i];

    for ( ;; ) {
        child = 2 * i + 1;

        if (child >= n) {
            break;
        }

        if (child + 1 < n && wrk_cand_before(&h[child + 1], &h[child])) {
            child++;
        }

        if (!wrk_cand_before(&h[child], &v)) {
            break;
        }

        h[i] = h[child];
        i = child;
    }

    h[i] = v;
}


static void
wrk_cand_heap(wrk_cand_t *h, uint32_t n)
{
    uint32_t  i;

    for (i = n / 2; i > 0; i--) {
        wrk_cand_sift(h, n, i - 1);
    }
}


/* Takes the likeliest of the heap h[0..n-1] and puts it into h[n-1]. */
static void
wrk_cand_pop(wrk_cand_t *h, uint32_t n)
{
    wrk_cand_t  top;

    assert(n > 0);

    top = h[0];
    h[0] = h[n - 1];
    wrk_cand_sift(h, n - 1, 0);
    h[n - 1] = top;
}


/* Candidates: logits >= low, in the order of ids. */
static void
wrk_sample_gather(wrk_sampler_t *s, const float *x, float low)
{
    uint32_t  i, b, n, end;

    n = 0;

    for (i = 0, b = 0; i < s->vocab; b++) {
        end = s->vocab - i < WRK_ROW_BLOCK ? s->vocab : i + WRK_ROW_BLOCK;

        if (!(s->blocks[b] >= low)) {
            i = end;
            continue;
        }

        for (/* void */; i < end; i++) {
            s->cands[n].x = x[i];
            s->cands[n].id = i;
            n += x[i] >= low;
        }
    }

    s->ncands = n;
}


/* exp of the candidates' logits into weights[]; returns their sum. */
static double
wrk_sample_weigh(wrk_sampler_t *s, const wrk_cand_t *c, uint32_t n, float max,
    float scale)
{
    double    sum;
    uint32_t  i;

    for (i = 0; i < n; i++) {
        s->weights[i] = c[i].x;
    }

    s->ops->exps(s->weights, n, max, scale, s->weights);

    for (i = 0, sum = 0; i < n; i++) {
        sum += s->weights[i];
    }

    return sum;
}


static uint32_t
wrk_sample_draw(const wrk_sampler_t *s, const wrk_cand_t *c, uint32_t n,
    double target)
{
    double    sum;
    uint32_t  i, last;

    for (i = 0, last = 0, sum = 0; i < n; i++) {
        if (s->weights[i] > 0) {
            last = i;
            sum += s->weights[i];

            if (sum > target) {
                break;
            }
        }
    }

    return c[last].id;
}


static inline uint32_t
wrk_sample_bin(float at)
{
    return at < (float) (WRK_SAMPLE_BINS - 1) ? (uint32_t) at
                                              : WRK_SAMPLE_BINS - 1;
}


/* The likeliest k of the candidates, sorted, to the front; how many. */
static uint32_t
wrk_sample_top_k(wrk_sampler_t *s, uint32_t k)
{
    uint32_t    i, n, count;
    wrk_cand_t  t, *c;

    c = s->cands;
    count = s->ncands;
    wrk_cand_heap(c, count);

    for (n = 0; n < k && n < count; n++) {
        wrk_cand_pop(c, count - n);
    }

    /* They stand at the end, the likeliest last: turn the array round. */
    for (i = 0; i < count / 2; i++) {
        t = c[i];
        c[i] = c[count - 1 - i];
        c[count - 1 - i] = t;
    }

    return n;
}


/*
 * The likeliest candidates with that mass or more, to the front; how many.
 * weights[] holds theirs.  Bins by distance from the largest say where the
 * mass is reached; only that bin is put in order.
 */
static uint32_t
wrk_sample_top_p(wrk_sampler_t *s, double mass, float max, float scale)
{
    float        e, width;
    double       sum, bins[WRK_SAMPLE_BINS];
    uint32_t     i, n, bin, cut, ncut;
    wrk_cand_t  *c;

    width = scale * (float) WRK_SAMPLE_BINS / WRK_SAMPLE_NATS_BINS;
    memset(bins, 0, sizeof(bins));

    for (i = 0; i < s->ncands; i++) {
        bins[wrk_sample_bin((max - s->cands[i].x) * width)] += s->weights[i];
    }

    for (cut = 0, sum = 0; cut < WRK_SAMPLE_BINS - 1; cut++) {
        if (sum + bins[cut] >= mass) {
            break;
        }

        sum += bins[cut];
    }

    /* Above the cut: stays in front.  In the cut's bin: to be put in order. */
    c = s->bin_cands;

    for (i = 0, n = 0, ncut = 0; i < s->ncands; i++) {
        bin = wrk_sample_bin((max - s->cands[i].x) * width);

        if (bin == cut) {
            c[ncut++] = s->cands[i];

        } else if (bin < cut) {
            s->cands[n++] = s->cands[i];
        }
    }

    wrk_cand_heap(c, ncut);

    while (ncut > 0 && (sum < mass || n == 0)) {
        wrk_cand_pop(c, ncut);
        s->cands[n++] = c[--ncut];
        s->ops->exps(&c[ncut].x, 1, max, scale, &e);
        sum += e;
    }

    return n;
}


static uint32_t
wrk_sample_filtered(wrk_sampler_t *s, const wrk_sample_params_t *p,
    const float *x, float max, float scale, double u)
{
    int       complete;
    float     nats, nats_max;
    double    all, mass;
    uint32_t  k, n;

    k = p->top_k > 0 ? (uint32_t) p->top_k : 0;
    nats_max = p->min_p > 0 ? -logf(p->min_p) : WRK_SAMPLE_NATS_LAST;
    nats_max = fminf(nats_max, WRK_SAMPLE_NATS_LAST);
    all = 0;

    if (k == 0 && p->min_p <= 0) {
        /* The mass that top_p is a part of; uses blocks, so take the maxima
           again. */
        all = s->ops->expsum(x, s->vocab, max, scale, s->blocks);
        s->ops->max(x, s->vocab, s->blocks);
    }

    for (nats = WRK_SAMPLE_NATS_FIRST; /* void */; nats *= 2) {
        complete = nats >= nats_max;
        wrk_sample_gather(s, x, max - fminf(nats, nats_max) / scale);

        if (complete || (k != 0 && s->ncands >= k)) {
            break;
        }

        if (k == 0 && all > 0
            && wrk_sample_weigh(s, s->cands, s->ncands, max, scale)
               >= p->top_p * all)
        {
            break;
        }
    }

    assert(s->ncands > 0);

    mass = wrk_sample_weigh(s, s->cands, s->ncands, max, scale);

    if (all == 0) {
        all = mass;
    }

    if (k == 0 && p->top_p >= 1) {
        return wrk_sample_draw(s, s->cands, s->ncands, u * mass);
    }

    n = s->ncands;

    if (k != 0) {
        n = wrk_sample_top_k(s, k);
        s->ncands = n;
        all = wrk_sample_weigh(s, s->cands, n, max, scale);
    }

    if (p->top_p < 1) {
        n = wrk_sample_top_p(s, p->top_p * all, max, scale);
    }

    mass = wrk_sample_weigh(s, s->cands, n, max, scale);

    return wrk_sample_draw(s, s->cands, n, u * mass);
}


/* The ntop largest of the row, sorted; ntop is small: insertion. */
static uint32_t
wrk_sample_top(wrk_sampler_t *s, const float *x, uint32_t ntop,
    wrk_cand_t *top)
{
    uint32_t    i, b, j, n, end;
    wrk_cand_t  c;

    n = 0;

    for (i = 0, b = 0; i < s->vocab; b++) {
        end = s->vocab - i < WRK_ROW_BLOCK ? s->vocab : i + WRK_ROW_BLOCK;

        if (n == ntop && !(s->blocks[b] > top[n - 1].x)) {
            i = end;
            continue;
        }

        for (/* void */; i < end; i++) {
            if (!(x[i] > -INFINITY) || (n == ntop && !(x[i] > top[n - 1].x))) {
                continue;
            }

            c.x = x[i];
            c.id = i;
            n += n < ntop;

            for (j = n - 1; j > 0 && c.x > top[j - 1].x; j--) {
                top[j] = top[j - 1];
            }

            top[j] = c;
        }
    }

    return n;
}


uint32_t
wrk_sample_logprobs(wrk_sampler_t *s, const float *logits, uint32_t chosen,
    uint32_t ntop, wrk_logprob_t *out)
{
    float       max, lp;
    double      log_sum;
    uint32_t    i, n;
    wrk_cand_t  top[WRK_SAMPLE_TOP_MAX];

    assert(chosen < s->vocab && ntop <= WRK_SAMPLE_TOP_MAX);

    max = s->ops->max(logits, s->vocab, s->blocks);

    if (!isfinite(max)) {
        out[0].id = chosen;
        out[0].logprob = WRK_SAMPLE_LOGPROB_MIN;
        return 1;
    }

    n = ntop != 0 ? wrk_sample_top(s, logits, ntop, top) : 0;
    log_sum = log(s->ops->expsum(logits, s->vocab, max, 1, s->blocks));

    for (i = 0; i <= n; i++) {
        out[i].id = i == 0 ? chosen : top[i - 1].id;
        lp = (float) ((double) logits[out[i].id] - max - log_sum);
        out[i].logprob = lp > WRK_SAMPLE_LOGPROB_MIN ? lp
                                                   : WRK_SAMPLE_LOGPROB_MIN;
    }

    return n + 1;
}
