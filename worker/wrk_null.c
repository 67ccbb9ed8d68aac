/* The null engine; see the header. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "worker/wrk_null.h"


#define WRK_NULL_PAGE  64u


typedef struct {
    uint32_t   tokens, end;
    uint64_t   delay_ns;
    uint32_t   nseqs, kv_pages;
    uint32_t   ntext;
    uint32_t  *text;                /* ids of the answer, round and round */
    uint32_t  *said;                /* per sequence: tokens given */
    uint8_t   *open;
} wrk_null_t;


static const char  wrk_null_text[] =
    " This answer comes from no model: it is here to show what everything "
    "around a model costs, and it says the same to whatever it is asked.";


static int
wrk_null_seq_open(void *ctx, uint32_t *seq)
{
    uint32_t     i;
    wrk_null_t  *e;

    e = ctx;

    for (i = 0; i < e->nseqs; i++) {
        if (!e->open[i]) {
            e->open[i] = 1;
            e->said[i] = 0;
            *seq = i;
            return ENG_OK;
        }
    }

    return ENG_ENOSEQ;
}


static void
wrk_null_seq_close(void *ctx, uint32_t seq)
{
    wrk_null_t  *e;

    e = ctx;
    assert(seq < e->nseqs && e->open[seq]);
    e->open[seq] = 0;
}


static int
wrk_null_seq_reserve(void *ctx, uint32_t seq, uint32_t n)
{
    (void) ctx;
    (void) seq;
    (void) n;

    return ENG_OK;
}


static void
wrk_null_seq_trim(void *ctx, uint32_t seq, uint32_t n)
{
    if (n == 0) {
        ((wrk_null_t *) ctx)->said[seq] = 0;
    }
}


static int
wrk_null_seq_fork(void *ctx, uint32_t dst, uint32_t src, uint32_t n)
{
    (void) src;
    (void) n;
    ((wrk_null_t *) ctx)->said[dst] = 0;

    return ENG_OK;
}


static int
wrk_null_seq_attach(void *ctx, uint32_t seq, const uint32_t *pages, uint32_t n)
{
    (void) ctx;
    (void) seq;
    (void) pages;
    (void) n;

    return ENG_OK;
}


static uint32_t
wrk_null_seq_page(void *ctx, uint32_t seq, uint32_t index)
{
    (void) ctx;
    (void) seq;
    (void) index;

    return 0;
}


static void
wrk_null_page(void *ctx, uint32_t page)
{
    (void) ctx;
    (void) page;
}


static uint32_t
wrk_null_free_pages(void *ctx)
{
    return ((wrk_null_t *) ctx)->kv_pages;
}


/* There are no logits; wrk_null_step_tokens() is called instead. */
static int
wrk_null_step(void *ctx, const eng_tok_t *toks, uint32_t n,
    const float **logits)
{
    (void) ctx;
    (void) toks;
    (void) n;
    (void) logits;

    return ENG_EUNSUP;
}


static int
wrk_null_step_tokens(void *ctx, const eng_tok_t *toks, uint32_t n,
    uint32_t *tokens, uint64_t now_ns, uint64_t *ready_ns)
{
    uint32_t     i, said;
    wrk_null_t  *e;

    e = ctx;

    for (i = 0; i < n; i++) {
        if (!toks[i].want_logits) {
            continue;
        }

        said = e->said[toks[i].seq]++;
        *tokens++ = said < e->tokens ? e->text[said % e->ntext] : e->end;
    }

    *ready_ns = e->delay_ns != 0 ? now_ns + e->delay_ns : 0;

    return ENG_OK;
}


static void
wrk_null_park(void *ctx)
{
    (void) ctx;
}


static void
wrk_null_destroy(void *ctx)
{
    wrk_null_t  *e;

    e = ctx;
    free(e->text);
    free(e->said);
    free(e->open);
    free(e);
}


static const eng_ops_t  wrk_null_ops = {
    .seq_open = wrk_null_seq_open,
    .seq_close = wrk_null_seq_close,
    .seq_reserve = wrk_null_seq_reserve,
    .seq_trim = wrk_null_seq_trim,
    .seq_fork = wrk_null_seq_fork,
    .seq_attach = wrk_null_seq_attach,
    .seq_page = wrk_null_seq_page,
    .page_ref = wrk_null_page,
    .page_unref = wrk_null_page,
    .kv_free_pages = wrk_null_free_pages,
    .step = wrk_null_step,
    .park = wrk_null_park,
    .destroy = wrk_null_destroy,
    .step_tokens = wrk_null_step_tokens,
};


/* The ids of the answer's text. */
static int
wrk_null_encode(wrk_null_t *e, const tok_t *tok)
{
    int             rc;
    tok_result_t    res;
    tok_scratch_t  *scratch;

    scratch = tok_scratch_new();

    if (scratch == NULL) {
        return ENG_ENOMEM;
    }

    rc = ENG_EUNSUP;

    if (tok_encode(tok, scratch, wrk_null_text, sizeof(wrk_null_text) - 1,
                   TOK_NO_TRUNCATION | TOK_NO_PADDING, &res) == TOK_OK
        && res.n > 0)
    {
        rc = ENG_ENOMEM;
        e->ntext = (uint32_t) res.n;
        e->text = calloc(res.n, sizeof(uint32_t));

        if (e->text != NULL) {
            memcpy(e->text, res.ids, res.n * sizeof(uint32_t));
            rc = ENG_OK;
        }
    }

    tok_scratch_free(scratch);

    return rc;
}


int
wrk_null_create(const wrk_null_opts_t *opts, const tok_t *tok, eng_t *eng)
{
    int              rc;
    size_t           n;
    eng_limits_t    *l;
    wrk_null_t      *e;
    const uint32_t  *ends;

    if (opts->tokens > WRK_NULL_TOKENS_MAX
        || opts->delay_us > WRK_NULL_DELAY_US_MAX
        || opts->sequences > ENG_SEQS_MAX || opts->batch > ENG_BATCH_MAX)
    {
        return ENG_EINVAL;
    }

    e = calloc(1, sizeof(*e));

    if (e == NULL) {
        return ENG_ENOMEM;
    }

    l = &eng->limits;
    l->vocab = tok_vocab_size(tok);
    l->max_seqs = opts->sequences != 0 ? opts->sequences : ENG_SEQS_MAX;
    l->ctx_len = opts->context != 0 ? opts->context : WRK_NULL_CONTEXT;
    l->max_batch_tokens = opts->batch != 0 ? opts->batch : ENG_BATCH_MAX;
    l->max_logits = l->max_seqs;
    l->page_tokens = WRK_NULL_PAGE;
    l->kv_pages = l->ctx_len / WRK_NULL_PAGE + 1;
    eng->ops = &wrk_null_ops;
    eng->ctx = e;

    e->tokens = opts->tokens;
    e->delay_ns = (uint64_t) opts->delay_us * 1000;
    e->nseqs = l->max_seqs;
    e->kv_pages = l->kv_pages;
    e->said = calloc(e->nseqs, sizeof(uint32_t));
    e->open = calloc(e->nseqs, 1);
    ends = tok_eos_all(tok, &n);
    /* without one, answers end by their length only */
    e->end = n != 0 ? ends[0] : 0;

    rc = e->said != NULL && e->open != NULL ? wrk_null_encode(e, tok)
                                            : ENG_ENOMEM;

    if (rc != ENG_OK) {
        wrk_null_destroy(e);
    }

    return rc;
}
