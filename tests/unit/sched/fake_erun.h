/* An encoder scheduler on the fake engine, and requests for it.  For programs
 * that have included cmocka.h. */

#ifndef FAKE_ERUN_H
#define FAKE_ERUN_H

#include "tests/unit/sched/fake_eeng.h"
#include "tests/unit/sched/fake_sink.h"
#include "worker/wrk_esched.h"


#define SINKS  40

typedef struct {
    fake_eeng_t         fake;
    wrk_eeng_t          eng;
    tok_t              *tok;
    wrk_esched_opts_t   opts;
    wrk_esched_t       *s;
} run_t;

static run_t             r;
static sink_t            sinks[SINKS];
static shr_req_t         fixed;
static shr_req_writer_t  w;
static _Alignas(8) uint8_t  buf[1 << 18];


static inline void
again(void)
{
    wrk_esched_destroy(r.s);
    r.s = wrk_esched_create(&r.opts, &r.eng, r.tok);
    assert_non_null(r.s);
}


static inline void
begin_run(enc_kind_t kind, uint32_t max_seq, uint32_t max_tokens,
    uint32_t max_seqs, uint32_t width)
{
    memset(&r, 0, sizeof(r));
    fake_eeng_create(&r.fake, &r.eng, kind, max_seq, max_tokens, max_seqs,
                     width);
    r.tok = fake_eeng_tok();
    assert_non_null(r.tok);
    wrk_esched_opts_init(&r.opts);
    r.opts.clock = fake_eeng_clock;
    r.opts.clock_data = &r.fake;
    again();
}


static inline void
end_run(void)
{
    assert_true(wrk_esched_idle(r.s));
    wrk_esched_destroy(r.s);
    tok_close(r.tok);
}


static inline void
begin(uint32_t task, uint32_t flags)
{
    memset(&fixed, 0, sizeof(fixed));
    fixed.task = task;
    fixed.flags = flags;
    fixed.n = 1;
    fixed.top_p = 1;
    fixed.repetition_penalty = 1;
    shr_req_begin(&w, buf, sizeof(buf), &fixed);
}


static inline void
add(uint32_t type, const char *text)
{
    shr_req_add(&w, type, text, strlen(text));
}


static inline void
submit(sink_t *k)
{
    assert_int_equal(shr_req_end(&w), 0);
    assert_int_equal(shr_req_check(buf, w.len), 0);
    wrk_esched_submit(r.s, buf, w.len, &sink_ops, k, r.fake.now_ns);
}


/* Until nothing can run; clients read at once. */
static inline void
run(sink_t *k, uint32_t n)
{
    int       more;
    uint32_t  i, turns;

    for (turns = 0, more = 1; more; turns++) {
        assert_true(turns < 100000);
        r.fake.now_ns += 1000;
        more = wrk_esched_step(r.s, r.fake.now_ns);

        for (i = 0; i < n; i++) {
            k[i].unread = 0;
        }
    }
}


/* One text, as the request alone. */
static inline void
ask(sink_t *k, uint32_t task, uint32_t flags, const char *text)
{
    sink_init(k, 8192);
    begin(task, flags);
    add(SHR_R_PROMPT, text);
    submit(k);
    run(k, 1);
    assert_int_equal(k->done, 1);
}


#endif /* FAKE_ERUN_H */
