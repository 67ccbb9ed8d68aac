/*
 * Beam search, in the reference implementation's terms: at each step the
 * 2 * beams best continuations are looked at; those that end and stand among
 * the first `beams` of them become hypotheses, with their sum of log
 * probabilities divided by length^penalty; the best `beams` that do not end
 * go on.  It is over when no running beam can still beat the worst
 * hypothesis, or at max_new tokens.  Memory is part of the engine's plan.
 */
#include <math.h>
#include <string.h>

#include "worker/encoder/enc_int.h"
#include "worker/engine/eng_chk.h"

#define CANDIDATES  (2u * ENC_BEAMS_MAX)
#define NEVER       -1e9f

typedef struct {
    float     sum;
    uint32_t  parent;             /* of the running beams                    */
    uint32_t  token;
} cand_t;

typedef struct {
    enc_t                  *e;
    const enc_beam_opts_t  *o;
    uint32_t                seq[2][ENC_BEAMS_MAX];  /* running, spare        */
    uint32_t                n_seq;
    uint32_t                n;                      /* running beams         */
    uint32_t                len;                    /* tokens of each        */
    float                   sum[ENC_BEAMS_MAX];
    cand_t                  cand[CANDIDATES];
    uint32_t                n_cand;
    float                   done[ENC_BEAMS_MAX];    /* NEVER: none           */
    uint32_t                done_len[ENC_BEAMS_MAX];
} beam_t;


/* Tokens: sets 0 and 1 are the running beams' and the next ones', 2 the
   finished ones'. */
static uint32_t *
tokens(const beam_t *b, uint32_t set, uint32_t i)
{
    return b->e->beam + ((size_t) set * ENC_BEAMS_MAX + i)
           * b->e->limits.max_out;
}


static float
penalised(const beam_t *b, float sum, uint32_t len)
{
    return sum / powf((float) len, b->o->length_penalty);
}


/* Keeps the best candidates, descending; of equals the earlier one. */
static void
offer(beam_t *b, uint32_t cap, float sum, uint32_t parent, uint32_t token)
{
    uint32_t  i;

    if (b->n_cand == cap && !(sum > b->cand[cap - 1].sum)) {
        return;
    }
    i = b->n_cand < cap ? b->n_cand++ : cap - 1;
    while (i > 0 && sum > b->cand[i - 1].sum) {
        b->cand[i] = b->cand[i - 1];
        i--;
    }
    b->cand[i] = (cand_t) { sum, parent, token };
}


static int
expand(beam_t *b)
{
    int           rc;
    enc_t        *e = b->e;
    float         val[CANDIDATES], lse;
    uint32_t      i, k, n, idx[CANDIDATES], cap = 2 * b->o->beams;
    uint32_t      vocab = e->limits.vocab;
    enc_tok_t     t[ENC_BEAMS_MAX];
    const float  *logits[ENC_BEAMS_MAX];

    for (i = 0; i < b->n; i++) {
        t[i].seq = b->seq[0][i];
        t[i].token = b->len == 0 ? e->m->hp.start_id
                                 : tokens(b, 0, i)[b->len - 1];
    }
    rc = enc_step(e, t, b->n, logits);
    if (rc != 0) {
        return rc;
    }

    b->n_cand = 0;
    cap = cap < vocab ? cap : vocab;
    for (i = 0; i < b->n; i++) {
        lse = kern_logsumexp(logits[i], vocab);
        n = kern_topk(logits[i], vocab, cap, idx, val);
        for (k = 0; k < n; k++) {
            offer(b, cap, b->sum[i] + (val[k] - lse), i, idx[k]);
        }
    }

    return b->n_cand > 0 ? 0 : ENG_EINVAL;      /* nothing but NaN */
}


/* A hypothesis takes the place of the worst, if it is better. */
static void
finish(beam_t *b, const cand_t *c)
{
    float      score = penalised(b, c->sum, b->len + 1);
    uint32_t   i, worst = 0, *t;

    for (i = 1; i < b->o->beams; i++) {
        worst = b->done[i] < b->done[worst] ? i : worst;
    }
    if (!(score > b->done[worst])) {
        return;
    }
    b->done[worst] = score;
    b->done_len[worst] = b->len + 1;
    t = tokens(b, 2, worst);
    memcpy(t, tokens(b, 0, c->parent), b->len * sizeof(t[0]));
    t[b->len] = c->token;
}


/* The next running beams: copies of their parents' keys and values. */
static int
advance(beam_t *b)
{
    int           rc = 0;
    uint32_t      i, n = 0, *t, swap;
    uint32_t      eos = b->e->m->hp.eos_id;
    const cand_t *c;

    for (i = 0; rc == 0 && i < b->n_cand && n < b->o->beams; i++) {
        c = &b->cand[i];
        if (c->token == eos) {
            continue;
        }
        rc = enc_seq_fork(b->e, b->seq[1][n], b->seq[0][c->parent]);
        t = tokens(b, 1, n);
        memcpy(t, tokens(b, 0, c->parent), b->len * sizeof(t[0]));
        t[b->len] = c->token;
        b->sum[n++] = c->sum;
    }
    if (rc != 0) {
        return rc;
    }

    for (i = 0; i < b->o->beams; i++) {
        swap = b->seq[0][i];
        b->seq[0][i] = b->seq[1][i];
        b->seq[1][i] = swap;
    }
    for (i = 0; i < n; i++) {
        memcpy(tokens(b, 0, i), tokens(b, 1, i),
               (b->len + 1) * sizeof(uint32_t));
    }
    /* the old ones' pages are free for the next step */
    for (i = 0; i < b->o->beams; i++) {
        eng_kv_trim(&b->e->ans, b->seq[1][i], 0);
    }
    b->n = n;
    b->len++;

    return 0;
}


/* 1 when no running beam can become one of the best hypotheses. */
static int
over(const beam_t *b)
{
    float     worst = b->done[0];
    uint32_t  i;

    for (i = 0; i < b->o->beams; i++) {
        if (b->done[i] <= NEVER) {
            return b->n == 0;
        }
        worst = b->done[i] < worst ? b->done[i] : worst;
    }

    return b->o->early_stopping || b->n == 0
           || !(penalised(b, b->sum[0], b->len) > worst);
}


static int
search(beam_t *b)
{
    int       rc, last;
    uint32_t  i, eos = b->e->m->hp.eos_id;

    do {
        rc = expand(b);
        if (rc != 0) {
            return rc;
        }
        last = b->len + 1 == b->o->max_new;
        for (i = 0; i < b->n_cand && i < b->o->beams; i++) {
            if (last || b->cand[i].token == eos) {
                finish(b, &b->cand[i]);
            }
        }
        rc = last ? 0 : advance(b);
    } while (rc == 0 && !last && !over(b));

    return rc;
}


/* One beam: the best token at each step. */
static int
greedy(beam_t *b, uint32_t *out)
{
    int           rc = 0;
    enc_t        *e = b->e;
    enc_tok_t     t = { b->seq[0][0], e->m->hp.start_id };
    const float  *logits;

    b->sum[0] = 0;
    while (b->len < b->o->max_new) {
        rc = enc_step(e, &t, 1, &logits);
        if (rc != 0) {
            return rc;
        }
        t.token = kern_argmax(logits, e->limits.vocab);
        b->sum[0] += logits[t.token] - kern_logsumexp(logits,
                                                      e->limits.vocab);
        out[b->len++] = t.token;
        if (t.token == e->m->hp.eos_id) {
            break;
        }
    }

    return rc;
}


static int
run(beam_t *b, uint32_t *out, uint32_t *n_out, float *score)
{
    int       rc;
    uint32_t  i, best = 0;

    if (b->o->beams == 1) {
        rc = greedy(b, out);
        *n_out = b->len;
        *score = rc == 0 ? penalised(b, b->sum[0], b->len) : 0;
        return rc;
    }

    rc = search(b);
    if (rc != 0) {
        return rc;
    }
    for (i = 1; i < b->o->beams; i++) {
        best = b->done[i] > b->done[best] ? i : best;
    }
    *n_out = b->done_len[best];
    *score = b->done[best];
    memcpy(out, tokens(b, 2, best), *n_out * sizeof(out[0]));

    return 0;
}


int
enc_beam(enc_t *e, uint32_t src, const enc_beam_opts_t *o, uint32_t *out,
    uint32_t *n_out, float *score)
{
    int       rc = 0;
    beam_t    b = { .e = e, .o = o, .n = 1 };
    uint32_t  i, sets = o->beams > 1 ? 2 : 1;

    if (!e->has_kv || o->beams == 0 || o->beams > ENC_BEAMS_MAX
        || o->max_new == 0 || o->max_new > e->limits.max_out)
    {
        return ENG_EINVAL;
    }
    for (i = 0; i < ENC_BEAMS_MAX; i++) {
        b.done[i] = NEVER;
    }
    while (rc == 0 && b.n_seq < sets * o->beams) {
        rc = enc_seq_open(e, src, &b.seq[b.n_seq / o->beams]
                                        [b.n_seq % o->beams]);
        b.n_seq += rc == 0;
    }
    if (rc == 0) {
        rc = run(&b, out, n_out, score);
    }

    for (i = 0; i < b.n_seq; i++) {
        enc_seq_close(e, b.seq[i / o->beams][i % o->beams]);
    }

    return rc;
}
