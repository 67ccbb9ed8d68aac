/* A scheduler on the tiny engine and tokenizer, and requests for it. */

#ifndef FAKE_RUN_H
#define FAKE_RUN_H

#include "tests/unit/sched/fake_eng.h"
#include "tests/unit/sched/fake_sink.h"
#include "tests/unit/sched/fake_tok.h"
#include "worker/wrk_sched.h"


typedef struct {
    tok_t            *tok;
    chat_template_t  *tmpl;
    fake_eng_t        fake;
    eng_t             eng;
    wrk_sched_opts_t  opts;
    wrk_sched_t      *sched;
} run_t;

typedef struct {
    shr_req_t         fixed;
    shr_req_writer_t  w;
    _Alignas(8) uint8_t  buf[1 << 16];
} block_t;


/* Everything off but what a greedy completion needs. */
static inline void
block_fields(shr_req_t *f, uint32_t task)
{
    memset(f, 0, sizeof(*f));
    f->task = task;
    f->n = 1;
    f->max_tokens = 16;
    f->top_p = 1;
    f->repetition_penalty = 1;
}


static inline void
block_begin(block_t *b)
{
    shr_req_begin(&b->w, b->buf, sizeof(b->buf), &b->fixed);
}


static inline void
block_end(block_t *b)
{
    int  rc;

    rc = shr_req_end(&b->w);
    assert(rc == 0);
    rc = shr_req_check(b->buf, b->w.len);
    assert(rc == 0);
    (void) rc;
}


/* A greedy completion of a text. */
static inline void
block_prompt(block_t *b, const char *text, uint32_t max_tokens)
{
    block_fields(&b->fixed, SHR_TASK_COMPLETE);
    b->fixed.max_tokens = max_tokens;
    block_begin(b);
    shr_req_add(&b->w, SHR_R_PROMPT, text, strlen(text));
    block_end(b);
}


static inline void
run_open(run_t *r, uint32_t seqs, uint32_t ctx, uint32_t batch, uint32_t pages)
{
    const char  *why;
    chat_err_t   err;

    r->tok = fake_tok_open();
    assert(r->tok != NULL);
    r->tmpl = chat_compile(NULL, 0, &err);
    assert(r->tmpl != NULL);
    fake_create(&r->fake, &r->eng, FAKE_TOK_N, seqs, ctx, batch, pages);
    wrk_sched_opts_init(&r->opts);
    r->opts.sequences = seqs;
    r->opts.request_bytes_max = 1 << 16;
    r->opts.kv_page_bytes = 1;
    r->opts.seed = 1;
    r->opts.clock = fake_clock;
    r->opts.clock_data = &r->fake;
    r->sched = wrk_sched_create(&r->opts, &r->eng, r->tok, r->tmpl, &why);
    assert(r->sched != NULL);
}


/* The same with other options, set in r->opts. */
static inline void
run_again(run_t *r)
{
    wrk_sched_destroy(r->sched);
    r->sched = wrk_sched_create(&r->opts, &r->eng, r->tok, r->tmpl, NULL);
    assert(r->sched != NULL);
}


static inline void
run_close(run_t *r)
{
    assert(wrk_sched_idle(r->sched));
    wrk_sched_destroy(r->sched);
    assert(eng_kv_free_pages(&r->eng) == r->eng.limits.kv_pages);
    eng_destroy(&r->eng);
    chat_free(r->tmpl);
    tok_close(r->tok);
}


static inline void
run_submit(run_t *r, block_t *b, sink_t *k)
{
    k->clock = &r->fake.now_ns;
    wrk_sched_submit(r->sched, b->buf, b->w.len, &sink_ops, k,
                     r->fake.now_ns);
}


static inline int
run_step(run_t *r)
{
    return wrk_sched_step(r->sched, r->fake.now_ns);
}


/* Steps until nothing can run; clients read at once. */
static inline void
run_all(run_t *r, sink_t **sinks, uint32_t n)
{
    int       more;
    uint32_t  i, turns;

    for (turns = 0, more = 1; more; turns++) {
        assert(turns < 100000);
        more = run_step(r);

        for (i = 0; i < n; i++) {
            sinks[i]->unread = 0;
        }
    }
}


static inline void
run_one(run_t *r, block_t *b, sink_t *k)
{
    sink_init(k, 1 << 16);
    run_submit(r, b, k);
    run_all(r, &k, 1);
    assert(k->done == 1);
}


#endif /* FAKE_RUN_H */
