/* Encoder and decoder as an engine; see the header. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "worker/wrk_t2t.h"


#define NONE  UINT32_MAX

typedef enum {
    SEQ_FREE = 0,
    SEQ_PROMPT,                     /* gathers its prompt */
    SEQ_ANSWER
} seq_state_t;

typedef struct {
    seq_state_t   state;
    uint32_t      len;              /* positions so far */
    uint32_t      reserved;         /* pages */
    uint32_t      source;           /* of the encoder, NONE: not yet */
    uint32_t      answer;           /* of the decoder */
    uint32_t     *prompt;           /* max_seq ids */
    uint32_t      row, nrows;       /* of the decoder's step */

    enc_beam_opts_t  search;        /* beams 0: none */
    enc_beam_t      *beam;          /* NULL: not begun */
    int              found;         /* what its last step said */
} seq_t;

typedef struct {
    enc_t        *enc;
    uint32_t      start_id, max_seq, max_tokens, max_seqs;
    uint32_t      npages, nfree;    /* the account */
    uint32_t      nsources;
    seq_t        *seqs;
    uint32_t     *users;            /* of each source */

    /* of a step */
    uint32_t     *ids;              /* prompts to be encoded */
    uint32_t     *at;
    uint32_t     *whose;
    uint32_t     *sources;
    enc_tok_t    *toks;
    const float **rows;
} t2t_t;


static int
t2t_seq_open(void *ctx, uint32_t *seq)
{
    uint32_t  i;
    t2t_t    *e;

    e = ctx;

    for (i = 0; i < e->max_seqs; i++) {
        if (e->seqs[i].state == SEQ_FREE) {
            e->seqs[i].state = SEQ_PROMPT;
            *seq = i;
            return ENG_OK;
        }
    }

    return ENG_ENOSEQ;
}


static uint32_t
t2t_pages(uint32_t positions)
{
    return (positions + WRK_T2T_PAGE - 1) / WRK_T2T_PAGE;
}


/* Back to an empty one that is open. */
static void
t2t_seq_clear(t2t_t *e, seq_t *q)
{
    if (q->answer != NONE) {
        enc_seq_close(e->enc, q->answer);
        q->answer = NONE;
    }

    if (q->beam != NULL) {
        enc_beam_close(q->beam);
        q->beam = NULL;
    }

    if (q->source != NONE) {
        assert(e->users[q->source] > 0);

        if (--e->users[q->source] == 0) {
            enc_source_close(e->enc, q->source);
        }

        q->source = NONE;
    }

    e->nfree += q->reserved;
    q->reserved = 0;
    q->len = 0;
    q->search.beams = 0;
    q->found = 0;
    q->state = SEQ_PROMPT;
}


static void
t2t_seq_trim(void *ctx, uint32_t seq, uint32_t n)
{
    t2t_t  *e;
    seq_t  *q;

    e = ctx;
    q = &e->seqs[seq];
    assert(q->state != SEQ_FREE);

    if (n == 0) {
        t2t_seq_clear(e, q);
        return;
    }

    assert(n >= q->len);            /* nothing of an answer is taken back */
    n = t2t_pages(n);

    if (n < q->reserved) {
        e->nfree += q->reserved - n;
        q->reserved = n;
    }
}


static void
t2t_seq_close(void *ctx, uint32_t seq)
{
    t2t_t  *e;

    e = ctx;
    t2t_seq_clear(e, &e->seqs[seq]);
    e->seqs[seq].state = SEQ_FREE;
}


static int
t2t_seq_reserve(void *ctx, uint32_t seq, uint32_t n)
{
    t2t_t  *e;
    seq_t  *q;

    e = ctx;
    q = &e->seqs[seq];
    n = t2t_pages(n);

    if (n <= q->reserved) {
        return ENG_OK;
    }

    if (n - q->reserved > e->nfree) {
        return ENG_ENOKV;
    }

    e->nfree -= n - q->reserved;
    q->reserved = n;

    return ENG_OK;
}


/* The same prompt: with luck its source is there already. */
static int
t2t_seq_fork(void *ctx, uint32_t dst, uint32_t src, uint32_t n)
{
    int     rc;
    t2t_t  *e;
    seq_t  *d, *s;

    e = ctx;
    d = &e->seqs[dst];
    s = &e->seqs[src];
    assert(d->state == SEQ_PROMPT && d->len == 0 && n <= e->max_seq);

    rc = t2t_seq_reserve(ctx, dst, n);
    if (rc != ENG_OK) {
        return rc;
    }

    memcpy(d->prompt, s->prompt, n * sizeof(uint32_t));
    d->len = n;

    if (s->source != NONE) {
        d->source = s->source;
        e->users[d->source]++;
    }

    return ENG_OK;
}


static int
t2t_seq_attach(void *ctx, uint32_t seq, const uint32_t *pages, uint32_t n)
{
    (void) ctx;
    (void) seq;
    (void) pages;

    return n == 0 ? ENG_OK : ENG_EUNSUP;
}


static uint32_t
t2t_seq_page(void *ctx, uint32_t seq, uint32_t index)
{
    (void) ctx;
    (void) seq;
    (void) index;

    return 0;
}


static void
t2t_page(void *ctx, uint32_t page)
{
    (void) ctx;
    (void) page;
}


static uint32_t
t2t_free_pages(void *ctx)
{
    return ((t2t_t *) ctx)->nfree;
}


/* --- a step ------------------------------------------------------------- */

/* Encodes the prompts that were gathered. */
static int
t2t_encode(t2t_t *e, uint32_t n)
{
    int          rc;
    uint32_t     i;
    enc_batch_t  b;

    if (n == 0) {
        return ENG_OK;
    }

    b.ids = e->ids;
    b.types = NULL;
    b.offsets = e->at;
    b.n_seqs = n;
    rc = enc_sources_open(e->enc, &b, e->sources);

    for (i = 0; rc == ENG_OK && i < n; i++) {
        e->seqs[e->whose[i]].source = e->sources[i];
        e->users[e->sources[i]] = 1;
    }

    return rc;
}


/* The prompts that end with this batch and have no source yet. */
static int
t2t_sources(t2t_t *e, const eng_tok_t *toks, uint32_t ntoks)
{
    int       rc;
    uint32_t  i, n;
    seq_t    *q;

    e->at[0] = 0;

    for (i = 0, n = 0; i < ntoks; i++) {
        q = &e->seqs[toks[i].seq];

        if (q->state != SEQ_PROMPT || !toks[i].want_logits
            || q->source != NONE)
        {
            continue;
        }

        if (q->len > e->max_tokens - e->at[n]) {
            rc = t2t_encode(e, n);

            if (rc != ENG_OK) {
                return rc;
            }

            n = 0;
        }

        memcpy(e->ids + e->at[n], q->prompt, q->len * sizeof(uint32_t));
        e->at[n + 1] = e->at[n] + q->len;
        e->whose[n++] = toks[i].seq;
    }

    return t2t_encode(e, n);
}


/* Notes the tokens of prompts. */
static int
t2t_gather(t2t_t *e, const eng_tok_t *toks, uint32_t ntoks)
{
    uint32_t  i;
    seq_t    *q;

    for (i = 0; i < ntoks; i++) {
        q = &e->seqs[toks[i].seq];

        if (q->state == SEQ_FREE || toks[i].pos != q->len) {
            return ENG_EINVAL;
        }

        if (q->state == SEQ_PROMPT) {
            if (q->len == e->max_seq) {
                return ENG_ELIMIT;
            }

            q->prompt[q->len] = toks[i].token;

        } else if (!toks[i].want_logits) {
            return ENG_EINVAL;
        }

        q->len++;
    }

    return ENG_OK;
}


/* The decoder's first step of an answer is to come. */
static int
t2t_begin(t2t_t *e, seq_t *q)
{
    q->state = SEQ_ANSWER;

    return q->search.beams != 0
           ? enc_beam_open(e->enc, q->source, &q->search, &q->beam)
           : enc_seq_open(e->enc, q->source, &q->answer);
}


/* The decoder's tokens for those that want logits; how many, or an error. */
static int
t2t_tokens(t2t_t *e, const eng_tok_t *toks, uint32_t ntoks)
{
    int       rc, first;
    uint32_t  i, n;
    seq_t    *q;

    for (i = 0, n = 0; i < ntoks; i++) {
        q = &e->seqs[toks[i].seq];

        if (!toks[i].want_logits) {
            continue;
        }

        first = q->state == SEQ_PROMPT;
        rc = first ? t2t_begin(e, q) : ENG_OK;

        if (rc != ENG_OK) {
            return rc;
        }

        if (q->found != 0) {
            return ENG_EINVAL;          /* nothing more to search */
        }

        q->row = n;
        q->nrows = 1;

        if (q->beam != NULL) {
            assert(q->search.beams <= e->max_seqs - n);
            q->nrows = enc_beam_want(q->beam, &e->toks[n]);

        } else {
            assert(n < e->max_seqs);
            e->toks[n].seq = q->answer;
            e->toks[n].token = first ? e->start_id : toks[i].token;
        }

        n += q->nrows;
    }

    return (int) n;
}


/* What the decoder said, to the searches and to the caller.  A search that
 * fails is its own sequence's trouble. */
static void
t2t_results(t2t_t *e, const eng_tok_t *toks, uint32_t ntoks,
    const float **logits)
{
    uint32_t  i;
    seq_t    *q;

    for (i = 0; i < ntoks; i++) {
        q = &e->seqs[toks[i].seq];

        if (!toks[i].want_logits) {
            continue;
        }

        if (q->beam != NULL) {
            q->found = enc_beam_take(q->beam, &e->rows[q->row]);
            logits[i] = NULL;

        } else {
            logits[i] = e->rows[q->row];
        }
    }
}


static int
t2t_step(void *ctx, const eng_tok_t *toks, uint32_t ntoks,
    const float **logits)
{
    int     rc;
    t2t_t  *e;

    e = ctx;
    rc = t2t_gather(e, toks, ntoks);

    if (rc == ENG_OK) {
        rc = t2t_sources(e, toks, ntoks);
    }

    if (rc == ENG_OK) {
        rc = t2t_tokens(e, toks, ntoks);
    }

    if (rc > 0) {
        rc = enc_step(e->enc, e->toks, (uint32_t) rc, e->rows);

        if (rc == ENG_OK) {
            t2t_results(e, toks, ntoks, logits);
        }
    }

    return rc;
}


static void
t2t_park(void *ctx)
{
    enc_park(((t2t_t *) ctx)->enc);
}


static void
t2t_free(t2t_t *e)
{
    uint32_t  i;

    for (i = 0; e->seqs != NULL && i < e->max_seqs; i++) {
        free(e->seqs[i].prompt);
    }

    free(e->seqs);
    free(e->users);
    free(e->ids);
    free(e->at);
    free(e->whose);
    free(e->sources);
    free(e->toks);
    free(e->rows);
    free(e);
}


static void
t2t_destroy(void *ctx)
{
    t2t_t  *e;

    e = ctx;
    enc_destroy(e->enc);
    t2t_free(e);
}


static const eng_ops_t  t2t_ops = {
    .seq_open = t2t_seq_open,
    .seq_close = t2t_seq_close,
    .seq_reserve = t2t_seq_reserve,
    .seq_trim = t2t_seq_trim,
    .seq_fork = t2t_seq_fork,
    .seq_attach = t2t_seq_attach,
    .seq_page = t2t_seq_page,
    .page_ref = t2t_page,
    .page_unref = t2t_page,
    .kv_free_pages = t2t_free_pages,
    .step = t2t_step,
    .park = t2t_park,
    .destroy = t2t_destroy,
};


uint32_t
wrk_t2t_sequences(const enc_info_t *info, uint32_t max_out, uint64_t bytes,
    uint32_t want)
{
    uint64_t  one, n;

    /* beams take sequences of their own */
    one = (uint64_t) t2t_pages(info->max_seq) + t2t_pages(max_out);
    one *= WRK_T2T_PAGE * info->kv_bytes_per_token;
    n = one != 0 ? bytes / one : want;
    n = n < want ? n : want;

    return n != 0 ? (uint32_t) n : 1;
}


static int
t2t_alloc(t2t_t *e)
{
    uint32_t  i;

    e->seqs = calloc(e->max_seqs, sizeof(seq_t));
    e->users = calloc(e->nsources, sizeof(uint32_t));
    e->ids = calloc(e->max_tokens, sizeof(uint32_t));
    e->at = calloc(e->max_seqs + 1, sizeof(uint32_t));
    e->whose = calloc(e->max_seqs, sizeof(uint32_t));
    e->sources = calloc(e->max_seqs, sizeof(uint32_t));
    e->toks = calloc(e->max_seqs, sizeof(enc_tok_t));
    e->rows = calloc(e->max_seqs, sizeof(float *));

    if (e->seqs == NULL || e->users == NULL || e->ids == NULL
        || e->at == NULL || e->whose == NULL || e->sources == NULL
        || e->toks == NULL || e->rows == NULL)
    {
        return -1;
    }

    for (i = 0; i < e->max_seqs; i++) {
        e->seqs[i].source = NONE;
        e->seqs[i].answer = NONE;
        e->seqs[i].prompt = calloc(e->max_seq, sizeof(uint32_t));

        if (e->seqs[i].prompt == NULL) {
            return -1;
        }
    }

    return 0;
}


int
wrk_t2t_open(eng_t *eng, const enc_model_t *model, enc_t *enc,
    uint32_t sequences, uint32_t batch)
{
    t2t_t               *e;
    eng_limits_t        *out;
    const enc_limits_t  *l;

    l = enc_limits(enc);
    assert(sequences > 0 && sequences <= l->max_sources);
    assert(sequences <= l->max_seqs_out && sequences <= l->max_seqs);

    e = calloc(1, sizeof(*e));

    if (e == NULL) {
        return ENG_ENOMEM;
    }

    e->enc = enc;
    e->start_id = enc_model_info(model)->start_id;
    e->max_seq = l->max_seq;
    e->max_tokens = l->max_tokens;
    e->max_seqs = sequences;
    e->nsources = l->max_sources;
    e->npages = sequences * t2t_pages(l->max_seq + l->max_out);
    e->nfree = e->npages;

    if (t2t_alloc(e) != 0) {
        t2t_free(e);
        return ENG_ENOMEM;
    }

    out = &eng->limits;
    out->vocab = l->vocab;
    out->max_seqs = sequences;
    out->ctx_len = l->max_seq + l->max_out;
    out->max_batch_tokens = batch > sequences ? batch : sequences;
    out->max_logits = sequences;
    out->page_tokens = WRK_T2T_PAGE;
    out->kv_pages = e->npages;
    eng->ops = &t2t_ops;
    eng->ctx = e;

    return ENG_OK;
}


/* --- searches ------------------------------------------------------------- */

static seq_t *
t2t_seq(eng_t *eng, uint32_t seq)
{
    t2t_t  *e;

    assert(eng->ops == &t2t_ops);
    e = eng->ctx;
    assert(seq < e->max_seqs && e->seqs[seq].state != SEQ_FREE);

    return &e->seqs[seq];
}


void
wrk_t2t_search(eng_t *eng, uint32_t seq, const enc_beam_opts_t *o)
{
    seq_t  *q;

    q = t2t_seq(eng, seq);
    assert(q->state == SEQ_PROMPT && q->len == 0 && o->beams != 0);
    q->search = *o;
}


int
wrk_t2t_found(eng_t *eng, uint32_t seq, const enc_found_t **found, uint32_t *n)
{
    float   score;
    seq_t  *q;

    q = t2t_seq(eng, seq);

    if (q->found == 1) {
        *found = enc_beam_best(q->beam, n, &score);
    }

    return q->found;
}
