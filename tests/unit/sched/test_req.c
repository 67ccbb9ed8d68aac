/* Decoding of requests: each limit, and one past it. */

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "worker/wrk_req.h"
#include "worker/wrk_stop.h"


#define VOCAB  1000u


static _Alignas(8) uint8_t  buf[1 << 17];
static shr_req_t            fixed;
static shr_req_writer_t     w;
static wrk_req_t            req;
static wrk_req_error_t      err;


static void
begin(uint32_t task)
{
    memset(&fixed, 0, sizeof(fixed));
    fixed.task = task;
    fixed.n = 1;
    fixed.top_p = 1;
    fixed.repetition_penalty = 1;
    shr_req_begin(&w, buf, sizeof(buf), &fixed);
}


static int
decode(void)
{
    assert_int_equal(shr_req_end(&w), 0);
    memset(&err, 0, sizeof(err));

    return wrk_req_decode(&req, buf, w.len, VOCAB, &err);
}


static void
refused(const char *param)
{
    assert_int_equal(decode(), -1);
    assert_int_equal(err.code, SHR_E_INVALID);
    assert_string_equal(err.param, param);
    assert_true(strlen(err.text) > 0);
}


static void
expect(uint32_t past, const char *param)
{
    if (past) {
        refused(param);

    } else {
        assert_int_equal(decode(), 0);
    }
}


/* The fixed part is checked again, whatever the first check said. */
static void
test_numbers(void **state)
{
    size_t    i;
    float     v;
    static const struct {
        const char  *param;
        size_t       at;
        float        good, bad;
    } fields[] = {
        { "temperature", offsetof(shr_req_t, temperature), 100, 100.5f },
        { "temperature", offsetof(shr_req_t, temperature), 0, -0.1f },
        { "top_p", offsetof(shr_req_t, top_p), 1, 1.01f },
        { "min_p", offsetof(shr_req_t, min_p), 1, 1.01f },
        { "repetition_penalty", offsetof(shr_req_t, repetition_penalty), 100,
          0 },
        { "presence_penalty", offsetof(shr_req_t, presence_penalty), -100,
          -101 },
        { "frequency_penalty", offsetof(shr_req_t, frequency_penalty), 100,
          101 },
        { "length_penalty", offsetof(shr_req_t, length_penalty),
          -SHR_LENGTH_PENALTY, SHR_LENGTH_PENALTY + 1 },
    };

    (void) state;

    for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        begin(SHR_TASK_COMPLETE);
        shr_req_add(&w, SHR_R_PROMPT, "a", 1);
        memcpy(buf + fields[i].at, &fields[i].good, sizeof(float));
        assert_int_equal(decode(), 0);
        memcpy(buf + fields[i].at, &fields[i].bad, sizeof(float));
        refused(fields[i].param);
        v = NAN;
        memcpy(buf + fields[i].at, &v, sizeof(float));
        refused(fields[i].param);
    }

    begin(SHR_TASK_COMPLETE);
    shr_req_add(&w, SHR_R_PROMPT, "a", 1);
    ((shr_req_t *) buf)->top_logprobs = 20;
    assert_int_equal(decode(), 0);
    ((shr_req_t *) buf)->top_logprobs = 21;
    refused("top_logprobs");
    ((shr_req_t *) buf)->top_logprobs = 0;
    ((shr_req_t *) buf)->n = 128;
    assert_int_equal(decode(), 0);
    ((shr_req_t *) buf)->n = 129;
    refused("n");
    ((shr_req_t *) buf)->n = 0;
    refused("n");
}


static void
test_counts(void **state)
{
    uint32_t    i, n, ids[WRK_REQ_STOP_IDS_MAX + 1] = { 0 };
    char        text[WRK_STOP_BYTES_MAX + 1];
    shr_bias_t  bias[WRK_REQ_BIAS_MAX + 1];

    (void) state;
    memset(text, 'x', sizeof(text));
    memset(bias, 0, sizeof(bias));

    for (n = 0; n < 2; n++) {
        begin(SHR_TASK_COMPLETE);
        shr_req_add(&w, SHR_R_PROMPT, "a", 1);
        shr_req_add(&w, SHR_R_STOP, text, WRK_STOP_BYTES_MAX + n);
        expect(n, "stop");

        begin(SHR_TASK_COMPLETE);
        shr_req_add(&w, SHR_R_PROMPT, "a", 1);

        for (i = 0; i < WRK_STOP_STRINGS_MAX + n; i++) {
            shr_req_add(&w, SHR_R_STOP, "s", 1);
        }

        expect(n, "stop");

        begin(SHR_TASK_COMPLETE);
        shr_req_add(&w, SHR_R_PROMPT, "a", 1);
        shr_req_add(&w, SHR_R_STOP_IDS, ids, (WRK_REQ_STOP_IDS_MAX + n) * 4);
        expect(n, "stop_token_ids");

        begin(SHR_TASK_COMPLETE);
        shr_req_add(&w, SHR_R_PROMPT, "a", 1);
        shr_req_add(&w, SHR_R_LOGIT_BIAS, bias,
                    (WRK_REQ_BIAS_MAX + n) * sizeof(shr_bias_t));
        expect(n, "logit_bias");

        begin(SHR_TASK_COMPLETE);

        for (i = 0; i < SHR_CHOICES_MAX + n; i++) {
            shr_req_add(&w, SHR_R_PROMPT, "a", 1);
        }

        expect(n, "prompt");

        begin(SHR_TASK_COMPLETE);
        ids[0] = VOCAB - 1 + n;
        shr_req_add(&w, SHR_R_PROMPT_IDS, ids, 4);
        expect(n, "prompt");
        ids[0] = 0;

        begin(SHR_TASK_COMPLETE);
        ((shr_req_t *) buf)->n = 64 + n;
        shr_req_add(&w, SHR_R_PROMPT, "a", 1);
        shr_req_add(&w, SHR_R_PROMPT, "b", 1);
        expect(n, "n");
    }
}


static void
test_tasks(void **state)
{
    (void) state;

    begin(SHR_TASK_CHAT);
    refused("messages");
    shr_req_add(&w, SHR_R_MESSAGES, "[]", 2);
    assert_int_equal(decode(), 0);
    shr_req_add(&w, SHR_R_MESSAGES, "[]", 2);
    refused("messages");

    begin(SHR_TASK_COMPLETE);
    refused("prompt");
    shr_req_add(&w, SHR_R_MESSAGES, "[]", 2);
    refused("prompt");

    begin(SHR_TASK_TOKENIZE);
    shr_req_add(&w, SHR_R_PROMPT_IDS, NULL, 0);
    refused("prompt");

    begin(SHR_TASK_DETOKENIZE);
    shr_req_add(&w, SHR_R_PROMPT, "a", 1);
    refused("tokens");

    begin(SHR_TASK_MAX);
    shr_req_add(&w, SHR_R_PROMPT, "a", 1);
    assert_int_equal(decode(), -1);
    assert_int_equal(err.code, SHR_E_UNSUPPORTED);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_tasks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
