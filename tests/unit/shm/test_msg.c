/* Messages: what the writer makes passes the check, every bound is held at
 * the limit and refused one past it, no mutation gets the check out of step. */

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shm/shr_error.h"
#include "shm/shr_msg.h"


static const shr_req_t  plain = {
    .task = SHR_TASK_CHAT, .n = 1, .max_tokens = 16, .temperature = 1,
    .top_p = 1, .repetition_penalty = 1
};


static size_t
make(uint8_t *buf, size_t cap)
{
    shr_bias_t        bias = { 7, -100 };
    uint32_t          ids[3] = { 1, 2, 3 };
    shr_req_writer_t  w;

    shr_req_begin(&w, buf, cap, &plain);
    shr_req_add(&w, SHR_R_MESSAGES, "[{}]", 4);
    shr_req_add(&w, SHR_R_STOP, "stop", 4);
    shr_req_add(&w, SHR_R_PROMPT_IDS, ids, sizeof(ids));
    shr_req_add(&w, SHR_R_LOGIT_BIAS, &bias, sizeof(bias));
    shr_req_add(&w, SHR_R_PROMPT, "", 0);

    return shr_req_end(&w) == 0 ? w.len : 0;
}


static void
test_round_trip(void **state)
{
    size_t               len, pos;
    uint8_t              buf[512];
    const shr_record_t  *r;
    static const struct { uint32_t type, len; }  want[] = {
        { SHR_R_MESSAGES, 4 }, { SHR_R_STOP, 4 }, { SHR_R_PROMPT_IDS, 12 },
        { SHR_R_LOGIT_BIAS, 8 }, { SHR_R_PROMPT, 0 }
    };
    size_t  i;

    (void) state;
    len = make(buf, sizeof(buf));
    assert_true(len > 0);
    assert_int_equal(shr_req_check(buf, len), 0);

    pos = 0;
    for (i = 0; i < 5; i++) {
        r = shr_req_next(buf, &pos);
        assert_non_null(r);
        assert_int_equal(r->type, want[i].type);
        assert_int_equal(r->len, want[i].len);
    }

    assert_null(shr_req_next(buf, &pos));
}


static void
test_no_room_and_truncation(void **state)
{
    size_t    len, cap;
    uint8_t   buf[512];

    (void) state;
    len = make(buf, sizeof(buf));

    for (cap = 0; cap < len; cap++) {
        uint8_t  small[512];

        assert_int_equal(make(small, cap), 0);      /* bounded writer */
        assert_int_equal(shr_req_check(buf, cap), -SHR_EBROKEN);
    }

    assert_int_equal(make(buf, len), len);
}


/* A request with one field changed. */
static int
check_with(size_t offset, const void *value, size_t size)
{
    size_t   len;
    uint8_t  buf[512];

    len = make(buf, sizeof(buf));
    memcpy(buf + offset, value, size);

    return shr_req_check(buf, len);
}


#define with_u32(field, v)                                                    \
    check_with(offsetof(shr_req_t, field), &(uint32_t) { v }, 4)
#define with_float(field, v)                                                  \
    check_with(offsetof(shr_req_t, field), &(float) { v }, 4)


static void
test_fixed_part_bounds(void **state)
{
    (void) state;
    assert_int_equal(with_u32(n, SHR_CHOICES_MAX), 0);
    assert_int_not_equal(with_u32(n, SHR_CHOICES_MAX + 1), 0);
    assert_int_not_equal(with_u32(n, 0), 0);
    assert_int_equal(with_u32(top_logprobs, 20), 0);
    assert_int_not_equal(with_u32(top_logprobs, 21), 0);
    assert_int_equal(with_u32(flags, SHR_REQ_FLAGS_ALL), 0);
    assert_int_not_equal(with_u32(flags, SHR_REQ_FLAGS_ALL + 1), 0);
    assert_int_not_equal(with_u32(task, 0), 0);
    assert_int_not_equal(with_u32(task, SHR_TASK_MAX), 0);
    assert_int_not_equal(with_u32(magic, 0), 0);
    assert_int_not_equal(with_u32(nrecords, 4), 0);
    assert_int_not_equal(with_u32(nrecords, 6), 0);
    assert_int_not_equal(with_u32(nrecords, SHR_REQ_RECORDS_MAX + 1), 0);
    assert_int_not_equal(with_u32(top_k, 0x80000000u), 0);
    assert_int_equal(with_float(temperature, 100), 0);
    assert_int_not_equal(with_float(temperature, 100.1f), 0);
    assert_int_not_equal(with_float(temperature, -0.1f), 0);
    assert_int_not_equal(with_float(temperature, NAN), 0);
    assert_int_not_equal(with_float(top_p, INFINITY), 0);
    assert_int_not_equal(with_float(top_p, 1.1f), 0);
    assert_int_not_equal(with_float(min_p, -1), 0);
    assert_int_not_equal(with_float(repetition_penalty, 0), 0);
    assert_int_not_equal(with_float(presence_penalty, NAN), 0);
    assert_int_not_equal(with_float(frequency_penalty, 101), 0);
    assert_int_equal(with_u32(beams, SHR_BEAMS_MAX), 0);
    assert_int_not_equal(with_u32(beams, SHR_BEAMS_MAX + 1), 0);
    assert_int_equal(with_float(length_penalty, -SHR_LENGTH_PENALTY), 0);
    assert_int_not_equal(with_float(length_penalty, 10.1f), 0);
    assert_int_not_equal(with_float(length_penalty, -INFINITY), 0);
    assert_int_not_equal(with_float(length_penalty, NAN), 0);
}


static void
test_mutated_requests(void **state)
{
    int                  turn, n;
    size_t               len, pos, seen;
    uint8_t              buf[512];
    const shr_record_t  *r;

    (void) state;
    srand(1);

    for (turn = 0; turn < 300000; turn++) {
        len = make(buf, sizeof(buf));

        for (n = rand() % 4; n >= 0; n--) {
            buf[(size_t) rand() % len] = (uint8_t) (rand() % 3 ? rand() : 255);
        }

        if (shr_req_check(buf, len) != 0) {
            continue;
        }

        seen = sizeof(shr_req_t);
        pos = 0;

        while ((r = shr_req_next(buf, &pos)) != NULL) {
            assert_true((const uint8_t *) (r + 1) + r->len <= buf + len);
            seen += sizeof(*r) + ((r->len + 7u) & ~7u);
        }

        assert_int_equal(seen, len);
    }
}


static int
frame_ok(uint16_t type, const void *payload, uint32_t len)
{
    shr_frame_t  frame = { type, 0, len };

    return shr_frame_check(&frame, payload) == 0;
}


static void
test_frames(void **state)
{
    uint8_t       error[sizeof(shr_error_t) + 8] = { 0 };
    uint8_t       zero[64] = { 0 };
    shr_error_t   e = { SHR_E_CONTEXT, 3, 5 };
    shr_finish_t  f = { SHR_FINISH_STOP, 1 };

    (void) state;
    assert_true(frame_ok(SHR_F_END, NULL, 0));
    assert_false(frame_ok(SHR_F_END, zero, 8));
    assert_false(frame_ok(0, zero, 8));
    assert_false(frame_ok(SHR_F_MAX, zero, 8));
    assert_false(frame_ok(SHR_F_TEXT, zero, 0));
    assert_true(frame_ok(SHR_F_TEXT, zero, 1));
    assert_false(frame_ok(SHR_F_TEXT, zero, SHR_PAYLOAD_MAX + 1));
    assert_true(frame_ok(SHR_F_IDS, zero, 8));
    assert_false(frame_ok(SHR_F_IDS, zero, 7));
    assert_false(frame_ok(SHR_F_OFFSETS, zero, 12));
    assert_true(frame_ok(SHR_F_FINISH, &f, sizeof(f)));
    f.reason = SHR_FINISH_MAX;
    assert_false(frame_ok(SHR_F_FINISH, &f, sizeof(f)));

    memcpy(error, &e, sizeof(e));
    assert_true(frame_ok(SHR_F_ERROR, error, sizeof(error)));
    assert_false(frame_ok(SHR_F_ERROR, error, sizeof(error) - 1));
    e.param_len = 9;
    memcpy(error, &e, sizeof(e));
    assert_false(frame_ok(SHR_F_ERROR, error, sizeof(error)));
}


static void
test_logprob_frames(void **state)
{
    uint8_t              buf[sizeof(shr_logprob_t) + 2 * 16];
    shr_logprob_t        lp = { 2, 0 };
    shr_logprob_entry_t  entry = { 5, -1.5f, 3 };

    (void) state;
    memset(buf, 0, sizeof(buf));
    memcpy(buf, &lp, sizeof(lp));
    memcpy(buf + 8, &entry, sizeof(entry));
    memcpy(buf + 24, &entry, sizeof(entry));
    assert_true(frame_ok(SHR_F_LOGPROB, buf, sizeof(buf)));
    assert_false(frame_ok(SHR_F_LOGPROB, buf, sizeof(buf) - 4));

    entry.logprob = NAN;
    memcpy(buf + 8, &entry, sizeof(entry));
    assert_false(frame_ok(SHR_F_LOGPROB, buf, sizeof(buf)));

    entry.logprob = 0;
    entry.len = SHR_TOKEN_TEXT_MAX + 1;
    memcpy(buf + 8, &entry, sizeof(entry));
    assert_false(frame_ok(SHR_F_LOGPROB, buf, sizeof(buf)));

    lp.nentries = 0;
    memcpy(buf, &lp, sizeof(lp));
    assert_false(frame_ok(SHR_F_LOGPROB, buf, sizeof(lp)));
}


/* Results: width and position within it, finite values, whole ones. */
static void
test_value_frames(void **state)
{
    uint8_t       buf[sizeof(shr_values_t) + 12];
    float         v[3] = { 1, -0.5f, 0 };
    shr_values_t  head = { 384, 383 };

    (void) state;
    memcpy(buf, &head, sizeof(head));
    memcpy(buf + sizeof(head), v, sizeof(v));
    assert_true(frame_ok(SHR_F_VALUES, buf, sizeof(buf)));
    assert_true(frame_ok(SHR_F_VALUES, buf, sizeof(head) + 4));
    assert_false(frame_ok(SHR_F_VALUES, buf, sizeof(head)));
    assert_false(frame_ok(SHR_F_VALUES, buf, sizeof(buf) - 1));
    assert_false(frame_ok(SHR_F_VALUES, buf, 4));

    head.at = 384;
    memcpy(buf, &head, sizeof(head));
    assert_false(frame_ok(SHR_F_VALUES, buf, sizeof(buf)));

    head.at = 0;
    head.width = 0;
    memcpy(buf, &head, sizeof(head));
    assert_false(frame_ok(SHR_F_VALUES, buf, sizeof(buf)));

    head.width = SHR_DIMS_MAX;
    memcpy(buf, &head, sizeof(head));
    assert_true(frame_ok(SHR_F_VALUES, buf, sizeof(buf)));

    head.width = SHR_DIMS_MAX + 1;
    memcpy(buf, &head, sizeof(head));
    assert_false(frame_ok(SHR_F_VALUES, buf, sizeof(buf)));

    head.width = 384;
    v[1] = INFINITY;
    memcpy(buf, &head, sizeof(head));
    memcpy(buf + sizeof(head), v, sizeof(v));
    assert_false(frame_ok(SHR_F_VALUES, buf, sizeof(buf)));

    v[1] = NAN;
    memcpy(buf + sizeof(head), v, sizeof(v));
    assert_false(frame_ok(SHR_F_VALUES, buf, sizeof(buf)));

    assert_true(frame_ok(SHR_F_LABELS, "yes\0no", 7));
    assert_false(frame_ok(SHR_F_LABELS, "yes\0no", 6));
    assert_false(frame_ok(SHR_F_LABELS, "", 0));
}


/* As many inputs as there may be, each with its pair, and one query. */
static void
test_many_inputs(void **state)
{
    size_t             cap = 1 << 17;
    uint8_t           *buf;
    uint32_t           i;
    shr_req_t          req = plain;
    shr_req_writer_t   w;
    static const int32_t  priority[] = {
        SHR_PRIORITY_MIN, SHR_PRIORITY_MAX, SHR_PRIORITY_MIN - 1,
        SHR_PRIORITY_MAX + 1
    };

    (void) state;
    buf = malloc(cap);
    assert_non_null(buf);
    req.task = SHR_TASK_CLASSIFY;
    req.dims = SHR_DIMS_MAX;
    shr_req_begin(&w, buf, cap, &req);
    shr_req_add(&w, SHR_R_QUERY, "q", 1);

    for (i = 0; i < SHR_INPUTS_MAX; i++) {
        shr_req_add(&w, SHR_R_PROMPT, "a", 1);
        shr_req_add(&w, SHR_R_PAIR, "b", 1);
    }

    assert_int_equal(shr_req_end(&w), 0);
    assert_int_equal(shr_req_check(buf, w.len), 0);
    ((shr_req_t *) buf)->dims = SHR_DIMS_MAX + 1;
    assert_int_equal(shr_req_check(buf, w.len), -SHR_EBROKEN);
    ((shr_req_t *) buf)->dims = SHR_DIMS_MAX;

    for (i = 0; i < 4; i++) {
        ((shr_req_t *) buf)->priority = priority[i];
        assert_int_equal(shr_req_check(buf, w.len),
                         i < 2 ? 0 : -SHR_EBROKEN);
    }

    ((shr_req_t *) buf)->priority = 0;
    ((shr_req_t *) buf)->reserved = 1;
    assert_int_equal(shr_req_check(buf, w.len), -SHR_EBROKEN);

    shr_req_begin(&w, buf, cap, &req);
    shr_req_add(&w, SHR_R_QUERY, "", 0);
    assert_int_equal(shr_req_end(&w), 0);
    assert_int_equal(shr_req_check(buf, w.len), -SHR_EBROKEN);
    free(buf);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_no_room_and_truncation),
        cmocka_unit_test(test_fixed_part_bounds),
        cmocka_unit_test(test_mutated_requests),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_logprob_frames),
        cmocka_unit_test(test_value_frames),
        cmocka_unit_test(test_many_inputs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
