/*
 * See wrk_model_null.h.  A page is as long as the context and belongs to one
 * sequence, so there is never a full page that a prefix could share.
 */

#include "worker/wrk_model_null.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "worker/kernels/kern.h"


#define TEXT_IDS_MAX  256

typedef struct {
    uint32_t  open;
    uint32_t  len;                      /* positions written */
    uint32_t  given;                    /* tokens answered */
} null_seq_t;

typedef struct {
    wrk_null_opts_t  opts;
    uint32_t         eos;
    uint32_t         nopen;
    uint32_t         nids;
    uint32_t         ids[TEXT_IDS_MAX];
    null_seq_t       seqs[];
} null_t;

static const char  text[] =
    "Water that falls on the hills runs to the river, and the river runs to "
    "the sea. On its way it turns mills, carries boats and feeds fields; "
    "towns were built where it could be crossed. In winter it is high and "
    "brown, in summer low and clear, and those who live beside it know its "
    "sound at every hour. Nobody owns it, and all of them use it. ";


static int
null_seq_open(void *ctx, uint32_t *seq)
{
    null_t    *n = ctx;
    uint32_t   i;

    for (i = 0; i < n->opts.max_seqs; i++) {
        if (!n->seqs[i].open) {
            memset(&n->seqs[i], 0, sizeof(null_seq_t));
            n->seqs[i].open = 1;
            n->nopen++;
            *seq = i;
            return ENG_OK;
        }
    }
    return ENG_ENOSEQ;
}


static null_seq_t *
get(null_t *n, uint32_t seq)
{
    assert(seq < n->opts.max_seqs && n->seqs[seq].open);
    return &n->seqs[seq];
}


static void
null_seq_close(void *ctx, uint32_t seq)
{
    null_t  *n = ctx;

    get(n, seq)->open = 0;
    n->nopen--;
}


static int
null_seq_reserve(void *ctx, uint32_t seq, uint32_t positions)
{
    null_t  *n = ctx;

    (void) get(n, seq);
    return positions > n->opts.ctx_len ? ENG_ELIMIT : ENG_OK;
}


static void
null_seq_trim(void *ctx, uint32_t seq, uint32_t positions)
{
    null_seq_t  *s = get(ctx, seq);

    if (s->len > positions) {
        s->len = positions;
    }
}


static int
null_seq_fork(void *ctx, uint32_t dst, uint32_t src, uint32_t positions)
{
    null_seq_t  *d = get(ctx, dst);

    assert(positions <= get(ctx, src)->len);
    d->len = positions;
    return ENG_OK;
}


/* No page is ever full, so nothing can be attached. */
static int
null_seq_attach(void *ctx, uint32_t seq, const uint32_t *pages, uint32_t n)
{
    (void) get(ctx, seq);
    (void) pages;
    return n == 0 ? ENG_OK : ENG_EINVAL;
}


static uint32_t
null_seq_page(void *ctx, uint32_t seq, uint32_t index)
{
    (void) get(ctx, seq);
    assert(index == 0);
    return seq;
}


static void
null_page_use(void *ctx, uint32_t page)
{
    (void) ctx;
    (void) page;
}


static uint32_t
null_free_pages(void *ctx)
{
    null_t  *n = ctx;

    return n->opts.max_seqs - n->nopen;
}


static int
null_step(void *ctx, const eng_tok_t *toks, uint32_t n, const float **logits)
{
    (void) ctx;
    (void) toks;
    (void) n;
    (void) logits;
    return ENG_EINVAL;                  /* null_step_tokens() is used */
}


/* The text goes by the position, so a sequence that was dropped and computed
 * again goes on where it was. */
static int
null_step_tokens(void *ctx, const eng_tok_t *toks, uint32_t n,
    uint32_t *tokens, uint64_t now_ns, uint64_t *ready_ns)
{
    null_t      *x = ctx;
    uint32_t     i;
    null_seq_t  *s;

    if (n == 0 || n > x->opts.max_batch_tokens) {
        return ENG_EINVAL;
    }

    for (i = 0; i < n; i++) {
        s = get(x, toks[i].seq);
        if (toks[i].pos >= x->opts.ctx_len) {
            return ENG_EINVAL;
        }
        s->len = toks[i].pos + 1;
        if (!toks[i].want_logits) {
            continue;
        }
        if (x->opts.tokens != 0 && s->given >= x->opts.tokens
            && x->eos != TOK_NO_ID)
        {
            tokens[i] = x->eos;
            continue;
        }
        tokens[i] = x->ids[toks[i].pos % x->nids];
        s->given++;
    }

    *ready_ns = x->opts.delay_us == 0
                ? 0 : now_ns + (uint64_t) x->opts.delay_us * 1000;
    return ENG_OK;
}


static void
null_park(void *ctx)
{
    (void) ctx;
}


static void
null_destroy(void *ctx)
{
    free(ctx);
}


static const eng_ops_t  null_ops = {
    .seq_open = null_seq_open,
    .seq_close = null_seq_close,
    .seq_reserve = null_seq_reserve,
    .seq_trim = null_seq_trim,
    .seq_fork = null_seq_fork,
    .seq_attach = null_seq_attach,
    .seq_page = null_seq_page,
    .page_ref = null_page_use,
    .page_unref = null_page_use,
    .kv_free_pages = null_free_pages,
    .step = null_step,
    .park = null_park,
    .destroy = null_destroy,
    .step_tokens = null_step_tokens
};


int
wrk_null_create(const wrk_null_opts_t *opts, eng_t *eng)
{
    int             rc;
    null_t         *n;
    tok_result_t    res;
    tok_scratch_t  *scratch;

    /* The sampler uses the kernels' table even where the engine does not. */
    if (kern_init(KERN_ISA_AUTO) != 0) {
        return -1;
    }

    n = calloc(1, sizeof(*n) + opts->max_seqs * sizeof(null_seq_t));
    scratch = tok_scratch_new();
    if (n == NULL || scratch == NULL) {
        free(n);
        tok_scratch_free(scratch);
        return -1;
    }

    rc = tok_encode(opts->tok, scratch, text, sizeof(text) - 1,
                    TOK_NO_TRUNCATION | TOK_NO_PADDING, &res);
    if (rc != TOK_OK || res.n == 0) {
        free(n);
        tok_scratch_free(scratch);
        return -1;
    }
    n->nids = res.n < TEXT_IDS_MAX ? (uint32_t) res.n : TEXT_IDS_MAX;
    memcpy(n->ids, res.ids, n->nids * sizeof(uint32_t));
    tok_scratch_free(scratch);

    n->opts = *opts;
    n->eos = tok_eos(opts->tok);

    eng->ops = &null_ops;
    eng->ctx = n;
    eng->limits.vocab = tok_vocab_size(opts->tok);
    eng->limits.max_seqs = opts->max_seqs;
    eng->limits.ctx_len = opts->ctx_len;
    eng->limits.max_batch_tokens = opts->max_batch_tokens;
    eng->limits.max_logits = opts->max_batch_tokens;
    eng->limits.page_tokens = opts->ctx_len + 1;
    eng->limits.kv_pages = opts->max_seqs;
    return 0;
}
