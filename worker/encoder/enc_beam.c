/*
 * Beam search, in the reference implementation's terms: at each step the
 * 2 * beams best continuations are looked at; those that end and stand among
 * the first `beams` of them become hypotheses, with their sum of log
 * probabilities divided by length^penalty; the best `beams` that do not end
 * go on.  It is over when no running beam can still beat the worst
 * hypothesis, or at max_new tokens.
 *
 * The first continuation of a beam goes on in its parent's sequence, others
 * in copies of it, in sequences of beams that nothing continues: `beams` of
 * them are enough.
 */
#include <math.h>
#include <string.h>

#include "worker/encoder/enc_int.h"
#include "worker/engine/eng_chk.h"

#define NONE  UINT32_MAX

/* Sets of tokens: running beams, the next ones, finished ones. */
enum { RUNS = 0, NEXT, DONE };


void
enc_beam_init(enc_t *e)
{
    uint32_t  i;

    for (i = 0; i < e->limits.max_seqs_out; i++) {
        e->lane[i] = e->limits.max_seqs_out - 1 - i;
    }
    e->free_lanes = e->limits.max_seqs_out;
}


static enc_found_t *
tokens(const enc_beam_t *b, uint32_t set, uint32_t i)
{
    const enc_limits_t  *l = &b->e->limits;

    return b->e->found + ((size_t) set * l->max_seqs_out + b->lane[i])
           * l->max_out;
}


static float
penalised(const enc_beam_t *b, float sum, uint32_t len)
{
    return sum / powf((float) len, b->o.length_penalty);
}


int
enc_beam_open(enc_t *e, uint32_t src, const enc_beam_opts_t *o,
    enc_beam_t **search)
{
    int          rc = 0;
    uint32_t     i;
    enc_beam_t  *b;

    if (!e->has_kv || o->beams == 0 || o->beams > ENC_BEAMS_MAX
        || o->max_new == 0 || o->max_new > e->limits.max_out
        || !isfinite(o->length_penalty))
    {
        return ENG_EINVAL;
    }
    if (o->beams > e->free_lanes) {
        return ENG_ENOSEQ;
    }

    b = &e->search[e->lane[e->free_lanes - 1]];
    memset(b, 0, sizeof(*b));
    b->e = e;
    b->o = *o;
    b->n = 1;
    for (i = 0; i < o->beams; i++) {
        b->lane[i] = e->lane[--e->free_lanes];
    }
    while (rc == 0 && b->n_seq < o->beams) {
        rc = enc_seq_open(e, src, &b->seq[b->n_seq]);
        b->n_seq += rc == 0;
    }
    if (rc != 0) {
        enc_beam_close(b);
        return rc;
    }
    *search = b;

    return 0;
}


void
enc_beam_close(enc_beam_t *b)
{
    uint32_t  i;

    eng_assert(b->e != NULL);
    for (i = 0; i < b->n_seq; i++) {
        enc_seq_close(b->e, b->seq[i]);
    }
    for (i = b->o.beams; i > 0; i--) {
        b->e->lane[b->e->free_lanes++] = b->lane[i - 1];
    }
    b->e = NULL;
}


uint32_t
enc_beam_want(const enc_beam_t *b, enc_tok_t *t)
{
    uint32_t  i;

    for (i = 0; i < b->n; i++) {
        t[i].seq = b->seq[i];
        t[i].token = b->len == 0 ? b->e->m->hp.start_id
                                 : tokens(b, RUNS, i)[b->len - 1].token;
    }

    return b->n;
}


/* ---- one step ------------------------------------------------------------ */

/* Keeps the best candidates, descending; of equals the earlier one. */
static void
offer(enc_beam_t *b, uint32_t cap, const enc_cand_t *c)
{
    uint32_t  i;

    if (b->n_cand == cap && !(c->sum > b->cand[cap - 1].sum)) {
        return;
    }
    i = b->n_cand < cap ? b->n_cand++ : cap - 1;
    while (i > 0 && c->sum > b->cand[i - 1].sum) {
        b->cand[i] = b->cand[i - 1];
        i--;
    }
    b->cand[i] = *c;
}


static int
expand(enc_beam_t *b, const float *const *logits)
{
    float       val[2 * ENC_BEAMS_MAX], lse;
    uint32_t    i, k, n, idx[2 * ENC_BEAMS_MAX], vocab = b->e->limits.vocab;
    uint32_t    cap = b->o.beams == 1 ? 1 : 2 * b->o.beams;
    enc_cand_t  c;

    cap = cap < vocab ? cap : vocab;
    b->n_cand = 0;
    for (i = 0; i < b->n; i++) {
        lse = kern_logsumexp(logits[i], vocab);
        if (!isfinite(lse)) {
            return ENG_EINVAL;
        }
        n = kern_topk(logits[i], vocab, cap, idx, val);
        for (k = 0; k < n; k++) {
            c.parent = i;
            c.last.token = idx[k];
            c.last.logprob = val[k] - lse;
            c.sum = b->sum[i] + c.last.logprob;
            offer(b, cap, &c);
        }
    }

    return b->n_cand > 0 ? 0 : ENG_EINVAL;      /* nothing but NaN */
}


/* A beam's tokens and one more. */
static void
extend(const enc_beam_t *b, uint32_t set, uint32_t i, const enc_cand_t *c)
{
    enc_found_t  *t = tokens(b, set, i);

    memcpy(t, tokens(b, RUNS, c->parent), b->len * sizeof(t[0]));
    t[b->len] = c->last;
}


/* A hypothesis takes the place of the worst, if it is better. */
static void
finish(enc_beam_t *b, const enc_cand_t *c)
{
    float     score = penalised(b, c->sum, b->len + 1);
    uint32_t  i, worst = 0;

    for (i = 0; i < b->o.beams && b->done_len[worst] > 0; i++) {
        worst = b->done_len[i] == 0 || b->done[i] < b->done[worst] ? i
                                                                   : worst;
    }
    if (b->done_len[worst] > 0 && !(score > b->done[worst])) {
        return;
    }
    b->done[worst] = score;
    b->done_len[worst] = b->len + 1;
    extend(b, DONE, worst, c);
}


/* Sequences of the next beams, by their parents. */
static int
inherit(enc_beam_t *b, const uint32_t *parent, uint32_t n)
{
    int        rc = 0;
    uint32_t   i, spares = 0, seq[ENC_BEAMS_MAX], spare[ENC_BEAMS_MAX];
    uint8_t    heir[ENC_BEAMS_MAX] = { 0 };

    for (i = 0; i < n; i++) {
        seq[i] = heir[parent[i]] ? NONE : b->seq[parent[i]];
        heir[parent[i]] = 1;
    }
    for (i = 0; i < b->o.beams; i++) {
        if (!heir[i]) {
            eng_kv_trim(&b->e->ans, b->seq[i], 0);
            spare[spares++] = b->seq[i];
        }
    }
    for (i = 0; rc == 0 && i < n; i++) {
        if (seq[i] == NONE) {
            eng_assert(spares > 0);
            seq[i] = spare[--spares];
            rc = enc_seq_fork(b->e, seq[i], b->seq[parent[i]]);
        }
    }
    if (rc != 0) {
        return rc;                  /* b->seq still has all of them */
    }

    eng_assert(n + spares == b->o.beams);
    memcpy(b->seq, seq, n * sizeof(seq[0]));
    memcpy(b->seq + n, spare, spares * sizeof(seq[0]));

    return 0;
}


/* The best that do not end are the next running beams. */
static int
advance(enc_beam_t *b)
{
    uint32_t          i, n = 0, parent[ENC_BEAMS_MAX];
    const enc_cand_t *c;

    for (i = 0; i < b->n_cand && n < b->o.beams; i++) {
        c = &b->cand[i];
        if (c->last.token != b->e->m->hp.eos_id) {
            b->sum[n] = c->sum;
            parent[n] = c->parent;
            extend(b, NEXT, n++, c);
        }
    }
    b->n = n;
    b->len++;
    for (i = 0; i < n; i++) {
        memcpy(tokens(b, RUNS, i), tokens(b, NEXT, i),
               b->len * sizeof(enc_found_t));
    }

    return inherit(b, parent, n);
}


/* 1 when no running beam can become one of the best hypotheses. */
static int
over(const enc_beam_t *b)
{
    float     worst = b->done[0];
    uint32_t  i;

    for (i = 0; i < b->o.beams; i++) {
        if (b->done_len[i] == 0) {
            return b->n == 0;
        }
        worst = b->done[i] < worst ? b->done[i] : worst;
    }

    return b->o.early_stopping || b->n == 0
           || !(penalised(b, b->sum[0], b->len) > worst);
}


int
enc_beam_take(enc_beam_t *b, const float *const *logits)
{
    int       rc, last = b->len + 1 == b->o.max_new;
    uint32_t  i;

    rc = expand(b, logits);
    if (rc != 0) {
        return rc;
    }
    for (i = 0; i < b->n_cand && i < b->o.beams; i++) {
        if (last || b->cand[i].last.token == b->e->m->hp.eos_id) {
            finish(b, &b->cand[i]);
        }
    }
    rc = last ? 0 : advance(b);

    return rc != 0 ? rc : last || over(b);
}


/* ---- the result ---------------------------------------------------------- */

const enc_found_t *
enc_beam_best(const enc_beam_t *b, uint32_t *n, float *score)
{
    uint32_t  i, best = 0;

    for (i = 1; i < b->o.beams; i++) {
        best = b->done_len[i] > 0 && b->done[i] > b->done[best] ? i : best;
    }
    eng_assert(b->done_len[best] > 0);
    *n = b->done_len[best];
    *score = b->done[best];

    return tokens(b, DONE, best);
}


int
enc_beam(enc_t *e, uint32_t src, const enc_beam_opts_t *o, uint32_t *out,
    uint32_t *n_out, float *score)
{
    int                rc;
    uint32_t           i, n;
    enc_tok_t          t[ENC_BEAMS_MAX];
    enc_beam_t        *b;
    const float       *logits[ENC_BEAMS_MAX];
    const enc_found_t *best;

    rc = enc_beam_open(e, src, o, &b);
    if (rc != 0) {
        return rc;
    }
    do {
        n = enc_beam_want(b, t);
        rc = enc_step(e, t, n, logits);
        rc = rc == 0 ? enc_beam_take(b, logits) : rc;
    } while (rc == 0);

    if (rc == 1) {
        best = enc_beam_best(b, n_out, score);
        for (i = 0; i < *n_out; i++) {
            out[i] = best[i].token;
        }
        rc = 0;
    }
    enc_beam_close(b);

    return rc;
}
