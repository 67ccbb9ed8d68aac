/*
 * test_batch.c: a text of many words, new and known, short and long, has the
 * ids of its words one by one.
 */

#include "tokenizer/tok_core.h"

#include <setjmp.h>             /* cmocka.h needs it */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>


#define WORDS      600
#define TEXT_MAX   200000
#define ROUNDS     60
#define FLAGS      (TOK_NO_TRUNCATION | TOK_NO_PADDING)

static uint64_t  seed = 88172645463325252ull;


static unsigned
rnd(unsigned n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned) (seed >> 33) % n;
}


/* All bytes, and some merges of a space and the letters a to d; words are those
 * of gpt2. */
static tok_t *
load(void)
{
    static const char *const  merges[][2] = {
        { "\\u0120", "a" }, { "a", "b" }, { "c", "d" }, { "ab", "cd" },
        { "\\u0120", "b" }, { "\\u0120a", "b" }, { "d", "d" },
        { "\\u0120ab", "cd" }, { "c", "a" }, { "abcd", "abcd" }
    };
    const size_t              n_merges = sizeof(merges) / sizeof(merges[0]);
    static char               json[16384];
    size_t                    n, i;
    tok_err_t                 err;
    tok_t                    *t;

    n = (size_t) snprintf(json, sizeof(json), "{\"added_tokens\":[],"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":"
        "false,\"trim_offsets\":false,\"use_regex\":true},\"decoder\":{"
        "\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (i = 0; i < 256; i++) {
        n += (size_t) snprintf(json + n, sizeof(json) - n,
                               "\"\\u%04x\":%zu,", tok_byte_char[i], i);
    }
    for (i = 0; i < n_merges; i++) {
        n += (size_t) snprintf(json + n, sizeof(json) - n, "%s\"%s%s\":%zu",
                               i ? "," : "", merges[i][0], merges[i][1],
                               256 + i);
    }
    n += (size_t) snprintf(json + n, sizeof(json) - n, "},\"merges\":[");
    for (i = 0; i < n_merges; i++) {
        n += (size_t) snprintf(json + n, sizeof(json) - n, "%s\"%s %s\"",
                               i ? "," : "", merges[i][0], merges[i][1]);
    }
    n += (size_t) snprintf(json + n, sizeof(json) - n, "]}}");
    assert_true(n < sizeof(json));
    assert_int_equal(tok_open_json(&t, json, n, &err), 0);
    assert_int_equal(t->img->fast, TOK_FAST_BYTES);
    return t;
}


/* A space and letters; at the lengths where a word is treated differently. */
static size_t
new_word(char *p)
{
    static const unsigned  odd[] = {
        14, 15, 16, 17, 47, 48, 49, 50, 200, 4095, 4096, 4097, 9000
    };
    unsigned               n = 1 + rnd(9), i;

    if (rnd(12) == 0) {
        n = odd[rnd(rnd(20) ? 9 : 13)];
    }
    p[0] = ' ';
    for (i = 1; i < n + 1; i++) {
        p[i] = (char) ('a' + rnd(4));
    }
    return i;
}


static void
words_alone(void **state)
{
    static char      text[TEXT_MAX];
    static uint32_t  want[TEXT_MAX];
    size_t           at[WORDS], len[WORDS], n, used, n_ids;
    unsigned         round, words, k;
    tok_scratch_t   *s = NULL, *one = tok_scratch_new();
    tok_result_t     r;
    tok_t           *t = load();

    (void) state;
    assert_non_null(one);
    for (round = 0; round < ROUNDS; round++) {
        if (round % 8 == 0) {
            tok_scratch_free(s);
            s = tok_scratch_new();
            assert_non_null(s);
        }
        words = 1 + rnd(WORDS);
        for (n = used = n_ids = 0; n < words && used + 9100 < TEXT_MAX; n++) {
            if (n > 0 && rnd(3) == 0) {
                k = rnd((unsigned) n);
                len[n] = len[k];
                memcpy(text + used, text + at[k], len[n]);

            } else {
                len[n] = new_word(text + used);
            }
            at[n] = used;
            assert_int_equal(tok_encode(t, one, text + used, len[n], FLAGS,
                                        &r), 0);
            memcpy(want + n_ids, r.ids, r.n * sizeof(r.ids[0]));
            n_ids += r.n;
            used += len[n];
        }
        assert_int_equal(tok_encode(t, s, text, used, FLAGS, &r), 0);
        assert_int_equal(r.n, n_ids);
        assert_memory_equal(r.ids, want, n_ids * sizeof(want[0]));
    }
    tok_scratch_free(s);
    tok_scratch_free(one);
    tok_close(t);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(words_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
