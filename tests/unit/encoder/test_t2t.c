/*
 * Encoder and decoder as an engine that generates (wrk_t2t.h): the same bits
 * as the encoder engine's own calls, whatever the chunks of a prompt, the
 * others in a step, and forks before and after the prompt was encoded; searches
 * beside greedy answers; and everything is given back.
 */
#include "tests/unit/encoder/tiny_st.h"
#include "worker/wrk_t2t.h"

#define GOLDEN  "tests/golden/encoder/families.json"
#define STEPS   6
#define SEQS    8

static cJSON        *golden;
static char          path[TINY_PATH];
static enc_model_t  *model;
static eng_t         eng;
static uint32_t      prompt[4][64], len[4], nprompts;
static float        *want[4][STEPS];            /* logits of greedy answers */
static uint32_t      greedy[4][STEPS];
static uint32_t      vocab;


static uint32_t
best(const float *l)
{
    uint32_t  i, k = 0;

    for (i = 1; i < vocab; i++) {
        k = l[i] > l[k] ? i : k;
    }

    return k;
}


/* What the encoder engine itself answers. */
static void
learn(void)
{
    enc_t         *e = tiny_engine(model, 2);
    uint32_t       i, k, src, seq, at[2] = { 0, 0 };
    enc_tok_t      tok;
    enc_batch_t    b;
    const float   *l;

    vocab = enc_limits(e)->vocab;
    for (i = 0; i < nprompts; i++) {
        at[1] = len[i];
        b = (enc_batch_t) { prompt[i], NULL, at, 1 };
        assert_int_equal(enc_sources_open(e, &b, &src), 0);
        assert_int_equal(enc_seq_open(e, src, &seq), 0);
        tok = (enc_tok_t) { seq, enc_model_info(model)->start_id };
        for (k = 0; k < STEPS; k++) {
            assert_int_equal(enc_step(e, &tok, 1, &l), 0);
            want[i][k] = malloc(vocab * sizeof(float));
            memcpy(want[i][k], l, vocab * sizeof(float));
            tok.token = greedy[i][k] = best(l);
        }
        enc_seq_close(e, seq);
        enc_source_close(e, src);
    }
    enc_destroy(e);
}


static int
setup(void **state)
{
    const cJSON  *m, *c;

    (void) state;
    golden = tiny_json(GOLDEN);
    assert_non_null(golden);
    cJSON_ArrayForEach(m, golden) {
        if (strncmp(cJSON_GetObjectItem(m, "name")->valuestring, "t5", 2)
            == 0)
        {
            break;
        }
    }
    assert_non_null(m);
    tiny_folder(path, m, NULL, NULL);
    model = tiny_open(path, ENC_PREC_F32);
    cJSON_ArrayForEach(c, cJSON_GetObjectItem(m, "cases")) {
        if (nprompts < 4) {
            len[nprompts] = tiny_ids(cJSON_GetObjectItem(c, "ids"),
                                     prompt[nprompts], 64);
            nprompts++;
        }
    }
    assert_true(nprompts > 1);
    learn();

    return 0;
}


static int
teardown(void **state)
{
    uint32_t  i, k;

    (void) state;
    for (i = 0; i < nprompts; i++) {
        for (k = 0; k < STEPS; k++) {
            free(want[i][k]);
        }
    }
    enc_model_close(model);
    tiny_drop(path);
    cJSON_Delete(golden);

    return 0;
}


static void
open_engine(uint32_t sequences)
{
    enc_t  *e = tiny_decoder(model, SEQS, 32);

    assert_int_equal(wrk_t2t_open(&eng, model, e, sequences, 64), 0);
    assert_int_equal(eng.limits.max_seqs, sequences);
    assert_int_equal(eng.limits.ctx_len,
                     enc_model_info(model)->max_seq + 32);
}


/* Tokens of prompt i from position a to b, the last one with logits. */
static uint32_t
feed(eng_tok_t *t, uint32_t seq, uint32_t i, uint32_t a, uint32_t b)
{
    uint32_t  k, n = 0;

    for (k = a; k < b; k++) {
        t[n++] = (eng_tok_t) { prompt[i][k], seq, k, k + 1 == len[i] };
    }

    return n;
}


/* Steps k to STEPS of an answer to prompt i that runs alone. */
static void
follow(uint32_t seq, uint32_t i, uint32_t k)
{
    eng_tok_t     t;
    const float  *l;

    for ( /* void */ ; k < STEPS; k++) {
        t = (eng_tok_t) { greedy[i][k - 1], seq, len[i] + k - 1, 1 };
        assert_int_equal(eng_seq_reserve(&eng, seq, len[i] + k), 0);
        assert_int_equal(eng_step(&eng, &t, 1, &l), 0);
        assert_memory_equal(l, want[i][k], vocab * sizeof(float));
    }
}


/* A prompt in chunks of every size; the sequence is used again and again. */
static void
test_chunks(void **state)
{
    uint32_t      i, seq, at, n = 0, chunk, pages;
    eng_tok_t     t[64];
    const float  *l[64];

    (void) state;
    open_engine(2);
    pages = eng_kv_free_pages(&eng);
    assert_int_equal(eng_seq_open(&eng, &seq), 0);
    for (i = 0; i < nprompts; i++) {
        for (chunk = 1; chunk <= len[i]; chunk++) {
            assert_int_equal(eng_seq_reserve(&eng, seq, len[i]), 0);
            assert_true(eng_kv_free_pages(&eng) < pages);
            for (at = 0; at < len[i]; at += n) {
                n = len[i] - at < chunk ? len[i] - at : chunk;
                assert_int_equal(feed(t, seq, i, at, at + n), n);
                assert_int_equal(eng_step(&eng, t, n, l), 0);
            }
            assert_memory_equal(l[n - 1], want[i][0],
                                vocab * sizeof(float));
            follow(seq, i, 1);
            eng_seq_trim(&eng, seq, 0);
            assert_int_equal(eng_kv_free_pages(&eng), pages);
        }
    }
    eng_seq_close(&eng, seq);
    eng_destroy(&eng);
}


/* Prompts that end in the same step as answers of others go on. */
static void
test_together(void **state)
{
    uint32_t      i, k, n, at[5], seq[4];
    eng_tok_t     t[256];
    const float  *l[256];

    (void) state;
    open_engine(SEQS);
    for (i = 0; i < nprompts; i++) {
        assert_int_equal(eng_seq_open(&eng, &seq[i]), 0);
        assert_int_equal(eng_seq_reserve(&eng, seq[i], len[i] + STEPS), 0);
    }
    /* prompt i begins in step i */
    for (k = 0; k < nprompts + STEPS; k++) {
        for (i = 0, n = 0; i < nprompts; i++) {
            at[i] = n;
            if (k == i) {
                n += feed(t + n, seq[i], i, 0, len[i]);
            } else if (k > i && k - i < STEPS) {
                t[n++] = (eng_tok_t) { greedy[i][k - i - 1], seq[i],
                                       len[i] + k - i - 1, 1 };
            }
        }
        at[i] = n;
        if (n == 0) {
            break;
        }
        assert_int_equal(eng_step(&eng, t, n, l), 0);
        for (i = 0; i < nprompts; i++) {
            if (at[i + 1] > at[i]) {
                assert_memory_equal(l[at[i + 1] - 1], want[i][k - i],
                                    vocab * sizeof(float));
            }
        }
    }
    for (i = 0; i < nprompts; i++) {
        eng_seq_close(&eng, seq[i]);
    }
    eng_destroy(&eng);
}


/* A second answer to a prompt: copied before its end, or sharing what was
 * encoded; whoever ends first takes nothing from the other. */
static void
test_forks(void **state)
{
    uint32_t      i, late, pages, seq[2];
    eng_tok_t     t[64];
    const float  *l[64];

    (void) state;
    open_engine(2);
    pages = eng_kv_free_pages(&eng);
    for (i = 0; i < nprompts; i++) {
        for (late = 0; late < 2 && len[i] > 1; late++) {
            assert_int_equal(eng_seq_open(&eng, &seq[0]), 0);
            assert_int_equal(eng_seq_open(&eng, &seq[1]), 0);
            assert_int_equal(eng_seq_reserve(&eng, seq[0], len[i]), 0);
            (void) feed(t, seq[0], i, 0, len[i]);
            assert_int_equal(eng_step(&eng, t, len[i] - 1 + late, l), 0);
            assert_int_equal(eng_seq_fork(&eng, seq[1], seq[0], len[i] - 1),
                             0);
            if (late) {
                follow(seq[0], i, 1);
                eng_seq_close(&eng, seq[0]);
            }
            (void) feed(t, seq[1], i, len[i] - 1, len[i]);
            assert_int_equal(eng_step(&eng, t, 1, l), 0);
            assert_memory_equal(l[0], want[i][0], vocab * sizeof(float));
            follow(seq[1], i, 1);
            eng_seq_close(&eng, seq[1]);
            if (!late) {
                eng_seq_close(&eng, seq[0]);
            }
            assert_int_equal(eng_kv_free_pages(&eng), pages);
        }
    }
    eng_destroy(&eng);
}


/* What the encoder engine finds alone. */
static uint32_t
search_alone(uint32_t i, const enc_beam_opts_t *o, uint32_t *out)
{
    enc_t        *e = tiny_engine(model, 2);
    float         score;
    uint32_t      src, n, at[2] = { 0, len[i] };
    enc_batch_t   b = { prompt[i], NULL, at, 1 };

    assert_int_equal(enc_sources_open(e, &b, &src), 0);
    assert_int_equal(enc_beam(e, src, o, out, &n, &score), 0);
    enc_destroy(e);

    return n;
}


/* A search of prompt i in sequence 0, left after `most` steps, beside a greedy
 * answer in sequence 1; how many steps it took. */
static uint32_t
search_beside(uint32_t i, const enc_beam_opts_t *o, uint32_t most)
{
    int                rc = 0;
    uint32_t           k, n, n_out, n_found, seq[2], out[32];
    eng_tok_t          t[128];
    const float       *l[128];
    const enc_found_t *found;

    n_out = search_alone(i, o, out);
    assert_int_equal(eng_seq_open(&eng, &seq[0]), 0);
    assert_int_equal(eng_seq_open(&eng, &seq[1]), 0);
    wrk_t2t_search(&eng, seq[0], o);
    assert_int_equal(eng_seq_reserve(&eng, seq[0], len[i] + 32), 0);
    assert_int_equal(eng_seq_reserve(&eng, seq[1], len[i] + 32), 0);
    for (k = 0; rc == 0 && k < most; k++) {
        n = k == 0 ? feed(t, seq[0], i, 0, len[i]) : 1;
        t[0] = k == 0 ? t[0] : (eng_tok_t) { 7, seq[0], len[i] + k - 1, 1 };
        if (k == 0) {
            n += feed(t + n, seq[1], i, 0, len[i]);
        } else if (k < STEPS) {
            t[n++] = (eng_tok_t) { greedy[i][k - 1], seq[1], len[i] + k - 1,
                                   1 };
        }
        assert_int_equal(eng_step(&eng, t, n, l), 0);
        if (k < STEPS) {
            assert_memory_equal(l[n - 1], want[i][k], vocab * sizeof(float));
        }
        rc = wrk_t2t_found(&eng, seq[0], &found, &n_found);
    }
    assert_true(rc == (k < most ? 1 : rc));
    if (rc == 1) {
        assert_int_equal(n_found, n_out);
        for (n = 0; n < n_out; n++) {
            assert_int_equal(found[n].token, out[n]);
        }
    }
    /* emptied, it is a sequence like any other */
    eng_seq_trim(&eng, seq[0], 0);
    assert_int_equal(eng_seq_reserve(&eng, seq[0], len[i]), 0);
    n = feed(t, seq[0], i, 0, len[i]);
    assert_int_equal(eng_step(&eng, t, n, l), 0);
    assert_memory_equal(l[n - 1], want[i][0], vocab * sizeof(float));
    eng_seq_close(&eng, seq[0]);
    eng_seq_close(&eng, seq[1]);
    assert_int_equal(eng_kv_free_pages(&eng), eng.limits.kv_pages);

    return k;
}


static void
test_search(void **state)
{
    uint32_t         i, k, steps;
    enc_beam_opts_t  o = { 5, 20, 1, 0 };

    (void) state;
    open_engine(SEQS);
    for (i = 0; i < nprompts; i++) {
        steps = search_beside(i, &o, UINT32_MAX);
        assert_true(steps > 1);
        for (k = 0; k < steps; k += 3) {
            (void) search_beside(i, &o, k);
        }
    }
    eng_destroy(&eng);
}


/* All sequences at their longest, and what the contract refuses. */
static void
test_limits(void **state)
{
    uint32_t      i, seq[SEQS], more, max;
    eng_tok_t     t;
    const float  *l;

    (void) state;
    open_engine(SEQS);
    max = eng.limits.ctx_len;
    for (i = 0; i < SEQS; i++) {
        assert_int_equal(eng_seq_open(&eng, &seq[i]), 0);
        assert_int_equal(eng_seq_reserve(&eng, seq[i], max), 0);
    }
    assert_int_equal(eng_seq_open(&eng, &more), ENG_ENOSEQ);
    assert_int_equal(eng_kv_free_pages(&eng), 0);
    assert_int_equal(eng_seq_reserve(&eng, seq[0], max + 64), ENG_ENOKV);

    t = (eng_tok_t) { 5, seq[0], 1, 1 };                    /* a gap */
    assert_int_equal(eng_step(&eng, &t, 1, &l), ENG_EINVAL);
    for (i = 0; i < enc_model_info(model)->max_seq; i++) {
        t = (eng_tok_t) { 5, seq[1], i, 0 };
        assert_int_equal(eng_step(&eng, &t, 1, &l), 0);
    }
    t = (eng_tok_t) { 5, seq[1], i, 1 };                    /* one more */
    assert_int_equal(eng_step(&eng, &t, 1, &l), ENG_ELIMIT);
    for (i = 0; i < SEQS; i++) {
        eng_seq_close(&eng, seq[i]);
    }
    eng_destroy(&eng);
}


static void
test_sequences(void **state)
{
    enc_info_t  info;

    (void) state;
    memset(&info, 0, sizeof(info));
    info.max_seq = 512;
    info.kv_bytes_per_token = 1000;
    assert_int_equal(wrk_t2t_sequences(&info, 512, 1024 * 1000 * 4, 64), 4);
    assert_int_equal(wrk_t2t_sequences(&info, 512, 1024 * 1000 * 4 - 1, 64),
                     3);
    assert_int_equal(wrk_t2t_sequences(&info, 512, 1, 64), 1);
    assert_int_equal(wrk_t2t_sequences(&info, 512, UINT64_MAX, 64), 64);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_together),
        cmocka_unit_test(test_forks),
        cmocka_unit_test(test_search),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_sequences),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
