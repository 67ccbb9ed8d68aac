/*
 * Beam searches in the scheduler, over a small T5: the same answers as alone
 * beside greedy ones, in rings that are short, with everything given back
 * however a search ends; and what does not go with them is refused by name.
 */

#include "tests/unit/encoder/tiny_st.h"
#include "tests/unit/sched/fake_run.h"
#include "worker/wrk_t2t.h"


#define GOLDEN  "tests/golden/encoder/families.json"
#define OUT     24
#define SEQS    8

static char          path[TINY_PATH];
static cJSON        *golden;
static enc_model_t  *model;
static tok_t        *tok;
static eng_t         eng;
static wrk_sched_t  *sched;
static block_t       block;
static sink_t        sinks[12];
static uint64_t      now_ns = 1000000;

/* ends are 1 to the model; to the tokenizer, ids are bytes */
static const uint32_t  prompts[3][6] = {
    { 2, 17, 5, 40, 33, 1 }, { 9, 9, 60, 61, 90, 1 }, { 4, 70, 71, 5, 8, 1 }
};


static int
setup(void **state)
{
    const cJSON  *m;

    (void) state;
    golden = tiny_json(GOLDEN);
    assert_non_null(golden);
    cJSON_ArrayForEach(m, golden) {
        if (strcmp(cJSON_GetObjectItem(m, "name")->valuestring,
                   "t5-gated-untied") == 0)
        {
            break;
        }
    }
    assert_non_null(m);
    tiny_folder(path, m, NULL, NULL);
    model = tiny_open(path, ENC_PREC_F32);
    tok = fake_tok_open();

    return 0;
}


static int
teardown(void **state)
{
    (void) state;
    tok_close(tok);
    enc_model_close(model);
    tiny_drop(path);
    cJSON_Delete(golden);

    return 0;
}


static uint64_t
test_clock(void *data)
{
    return *(uint64_t *) data;
}


static void
start(uint32_t sequences)
{
    enc_t             *e = tiny_decoder(model, SEQS, OUT);
    wrk_sched_opts_t   o;

    assert_int_equal(wrk_t2t_open(&eng, model, e, sequences, 64), 0);
    wrk_sched_opts_init(&o);
    o.sequences = sequences;
    o.request_bytes_max = 1 << 16;
    o.prefix_cache = 0;
    o.prompt_max = enc_limits(e)->max_seq;
    o.answer_max = OUT;
    o.beams = 1;
    o.kv_page_bytes = 1;
    o.seed = 1;
    o.clock = test_clock;
    o.clock_data = &now_ns;
    sched = wrk_sched_create(&o, &eng, tok, NULL, NULL);
    assert_non_null(sched);
}


static void
stop(void)
{
    uint64_t  v[SHR_NCOUNTERS];

    assert_true(wrk_sched_idle(sched));
    wrk_sched_stats(sched, v);
    assert_int_equal(v[SHR_G_RUNNING], 0);
    assert_int_equal(eng_kv_free_pages(&eng), eng.limits.kv_pages);
    wrk_sched_destroy(sched);
    eng_destroy(&eng);
}


static uint64_t
running(void)
{
    uint64_t  v[SHR_NCOUNTERS];

    wrk_sched_stats(sched, v);

    return v[SHR_G_RUNNING];
}


/* A completion of prompt i; fields may be changed before submit(). */
static void
ask(uint32_t i, uint32_t beams)
{
    block_fields(&block.fixed, SHR_TASK_COMPLETE);
    block.fixed.max_tokens = OUT;
    block.fixed.beams = beams;
    block.fixed.length_penalty = 1;
    block_begin(&block);
    shr_req_add(&block.w, SHR_R_PROMPT_IDS, prompts[i], sizeof(prompts[i]));
}


static void
submit(sink_t *k, uint32_t cap)
{
    memcpy(block.buf, &block.fixed, offsetof(shr_req_t, nrecords));
    memcpy(block.buf + offsetof(shr_req_t, max_tokens),
           &block.fixed.max_tokens,
           sizeof(shr_req_t) - offsetof(shr_req_t, max_tokens));
    block_end(&block);
    sink_init(k, cap);
    wrk_sched_submit(sched, block.buf, block.w.len, &sink_ops, k, now_ns);
}


/* n steps, or until nothing can run; clients read at once. */
static void
steps(uint32_t n)
{
    uint32_t  i, more = 1;

    for (; more && n > 0; n--) {
        more = wrk_sched_step(sched, now_ns += 1000);
        for (i = 0; i < 12; i++) {
            sinks[i].unread = 0;
        }
    }
}


/* What the encoder engine finds alone, without its end. */
static uint32_t
alone(uint32_t i, uint32_t beams, float penalty, char *text)
{
    enc_t           *e = tiny_decoder(model, SEQS, OUT);
    float            score;
    uint32_t         k, n, src, out[OUT], at[2] = { 0, 6 };
    enc_batch_t      b = { prompts[i], NULL, at, 1 };
    enc_beam_opts_t  o = { beams, OUT, penalty, 0 };

    assert_int_equal(enc_sources_open(e, &b, &src), 0);
    assert_int_equal(enc_beam(e, src, &o, out, &n, &score), 0);
    enc_destroy(e);
    for (k = 0; k < n; k++) {
        text[k] = (char) out[k];
    }

    return n;
}


static void
check(const sink_t *k, uint32_t choice, uint32_t i, uint32_t beams)
{
    char                 text[OUT];
    uint32_t             n = alone(i, beams, 1, text);
    const sink_choice_t *c = &k->choices[choice];

    assert_int_equal(k->done, 1);
    assert_int_equal(k->error, 0);
    assert_int_equal(c->len, n);
    assert_memory_equal(c->text, text, n);
    assert_int_equal(c->tokens, n);
    assert_int_equal(c->reason, n == OUT ? SHR_FINISH_LENGTH
                                         : SHR_FINISH_STOP);
}


/* ---- answers ------------------------------------------------------------- */

static void
test_beside(void **state)
{
    uint32_t  i;

    (void) state;
    start(SEQS);
    for (i = 0; i < 3; i++) {
        ask(i, 4 - i);
        submit(&sinks[i], 1 << 16);
        ask(i, i == 1);                 /* 0 and 1: none */
        submit(&sinks[3 + i], 1 << 16);
        steps(i);
    }
    steps(UINT32_MAX);
    for (i = 0; i < 3; i++) {
        check(&sinks[i], 0, i, 4 - i);
        assert_int_equal(sinks[i].used.completion_tokens,
                         sinks[i].choices[0].tokens);
        assert_int_equal(sinks[3 + i].choices[0].tokens, OUT);
    }
    stop();
}


/* Beams count as sequences: who needs more than are free waits for them, and
 * is not overtaken. */
static void
test_seats(void **state)
{
    uint32_t  i;

    (void) state;
    start(4);
    ask(0, 3);
    submit(&sinks[0], 1 << 16);
    ask(1, 2);
    submit(&sinks[1], 1 << 16);
    ask(2, 0);
    submit(&sinks[2], 1 << 16);
    steps(1);
    assert_int_equal(running(), 3);
    assert_int_equal(sinks[0].start, 1);
    assert_int_equal(sinks[1].start + sinks[2].start, 0);
    for (i = 0; i < 1000 && !sinks[0].done; i++) {
        steps(1);
        assert_true(running() <= 4);
        assert_true(!sinks[2].done || sinks[1].start);
    }
    steps(UINT32_MAX);
    check(&sinks[0], 0, 0, 3);
    check(&sinks[1], 0, 1, 2);
    assert_int_equal(sinks[2].done, 1);
    stop();
}


/* Several prompts in one request, a search each. */
static void
test_prompts(void **state)
{
    uint32_t  i;

    (void) state;
    start(SEQS);
    ask(0, 3);
    for (i = 1; i < 3; i++) {
        shr_req_add(&block.w, SHR_R_PROMPT_IDS, prompts[i],
                    sizeof(prompts[i]));
    }
    submit(&sinks[0], 1 << 16);
    steps(2);
    assert_int_equal(running(), 6);     /* the third does not fit */
    steps(UINT32_MAX);
    for (i = 0; i < 3; i++) {
        check(&sinks[0], i, i, 3);
    }
    stop();
}


/* A ring that is just large enough for the request, and a client that reads
 * when there is nothing else to do. */
static void
test_slow_reader(void **state)
{
    uint32_t  i, cap, waits = 0, whole;

    (void) state;
    for (whole = 0; whole < 2; whole++) {
        start(SEQS);
        cap = 1024;
        do {
            ask(0, 4);
            block.fixed.flags = SHR_REQ_LOGPROBS
                                | (whole ? SHR_REQ_WHOLE : 0);
            submit(&sinks[0], cap += 8);
            assert_true(cap < 4096);
        } while (sinks[0].done);
        for (i = 0; i < 10000 && !sinks[0].done; i++) {
            if (!wrk_sched_step(sched, now_ns += 1000) && !sinks[0].done) {
                assert_int_equal(sinks[0].want_room, 1);
                assert_int_equal(running(), 1);     /* no beam any more */
                sinks[0].unread = 0;
                waits++;
            }
        }
        check(&sinks[0], 0, 0, 4);
        assert_int_equal(sinks[0].nlogprobs, sinks[0].choices[0].tokens);
        for (i = 0; i < sinks[0].nlogprobs; i++) {
            assert_true(sinks[0].logprobs[i].logprob < 0);
            assert_int_equal(sinks[0].logprobs[i].id,
                             sinks[0].choices[0].text[i]);
        }
        stop();
    }
    assert_true(waits > 1);
}


static void
test_stops(void **state)
{
    char  text[OUT], end[2];

    (void) state;
    assert_true(alone(0, 4, 1, text) > 4);
    start(SEQS);

    memcpy(end, text + 2, 2);
    ask(0, 4);
    shr_req_add(&block.w, SHR_R_STOP, end, 2);
    submit(&sinks[0], 1 << 16);

    ask(0, 4);
    shr_req_add(&block.w, SHR_R_STOP_IDS, &(uint32_t) { (uint32_t) text[3] },
                4);
    submit(&sinks[1], 1 << 16);

    ask(0, 4);
    block.fixed.max_tokens = 0;
    submit(&sinks[2], 1 << 16);

    steps(UINT32_MAX);
    assert_int_equal(sinks[0].choices[0].len,
                     (char *) memmem(text, OUT, end, 2) - text);
    assert_memory_equal(sinks[0].choices[0].text, text,
                        sinks[0].choices[0].len);
    assert_int_equal(sinks[0].choices[0].reason, SHR_FINISH_STOP);
    assert_int_equal(sinks[1].choices[0].len,
                     (char *) memchr(text, text[3], OUT) - text);
    assert_int_equal(sinks[1].choices[0].reason, SHR_FINISH_STOP);
    assert_int_equal(sinks[2].choices[0].len, 0);
    assert_int_equal(sinks[2].choices[0].reason, SHR_FINISH_LENGTH);
    stop();
}


/* ---- ends ---------------------------------------------------------------- */

static void
test_cancelled(void **state)
{
    uint32_t  k;

    (void) state;
    start(SEQS);
    for (k = 1; k < OUT; k++) {
        ask(0, 8);
        submit(&sinks[0], 1 << 16);
        ask(1, 4);                          /* waits for the first one */
        submit(&sinks[1], 1 << 16);
        steps(k);
        assert_true(running() == 8 || sinks[0].done);
        sinks[0].cancelled = 1;
        steps(UINT32_MAX);
        assert_int_equal(sinks[0].done, 1);
        check(&sinks[1], 0, 1, 4);
        assert_int_equal(running(), 0);
        assert_int_equal(eng_kv_free_pages(&eng), eng.limits.kv_pages);
    }
    stop();
}


static void
test_deadline(void **state)
{
    (void) state;
    start(SEQS);
    ask(0, 8);
    block.fixed.deadline_ns = now_ns + 5000;
    submit(&sinks[0], 1 << 16);
    steps(UINT32_MAX);
    assert_int_equal(sinks[0].error, 1);
    assert_int_equal(sinks[0].failed.code, SHR_E_DEADLINE);
    ask(1, 8);
    submit(&sinks[1], 1 << 16);
    steps(3);
    wrk_sched_shutdown(sched);
    assert_int_equal(sinks[1].failed.code, SHR_E_SHUTDOWN);
    stop();
}


/* ---- refusals ------------------------------------------------------------ */

static void
refused(const char *param, const char *text)
{
    submit(&sinks[0], 1 << 16);
    assert_int_equal(sinks[0].error, 1);
    assert_int_equal(strncmp(sinks[0].message, param, strlen(param)), 0);
    assert_int_equal(sinks[0].failed.param_len, strlen(param));
    assert_non_null(strstr(sinks[0].message, text));
    memset(sinks[0].message, 0, sizeof(sinks[0].message));
}


static void
test_refused(void **state)
{
    shr_bias_t  bias = { 5, 1 };

    (void) state;
    start(4);
#define refuse(field, value, param)                                           \
    ask(0, 2);                                                                \
    block.fixed.field = value;                                                \
    refused(param, param)

    refuse(n, 2, "n");
    refuse(temperature, 0.5f, "temperature");
    refuse(top_p, 0.5f, "top_p");
    refuse(top_k, 3, "top_k");
    refuse(min_p, 0.5f, "min_p");
    refuse(repetition_penalty, 1.5f, "repetition_penalty");
    refuse(presence_penalty, 1, "presence_penalty");
    refuse(frequency_penalty, -1, "frequency_penalty");
    refuse(flags, SHR_REQ_IGNORE_EOS, "ignore_eos");
    refuse(flags, SHR_REQ_ECHO, "echo");
    refuse(top_logprobs, 1, "logprobs");
    ask(0, 2);
    shr_req_add(&block.w, SHR_R_LOGIT_BIAS, &bias, sizeof(bias));
    refused("logit_bias", "beam");
    ask(0, 5);
    refused("num_beams", "5 beams");
    ask(0, 5);
    refused("num_beams", "has 4");
    stop();
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_beside),
        cmocka_unit_test(test_seats),
        cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_stops),
        cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
