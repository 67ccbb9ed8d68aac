/*
 * test_load.c: the same vocabulary however its file is written: members in
 * any order, keys with escapes, merges by the hundred, long merges; names of
 * tokenizer.ggml.pre that are known and refused.
 */

#include "tokenizer/tok.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>


#define MERGES  "\"merges\":[[\"a\",\"b\"],[\"ab\",\"c\"]]"
#define VOCAB   "\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4," \
                "\"\\u00e9\":5,\"[CLS]\":6}"
#define REST    "\"dropout\":null,\"continuing_subword_prefix\":null"
#define CLS     "\"post_processor\":{\"type\":\"TemplateProcessing\"," \
                "\"single\":[{\"SpecialToken\":{\"id\":\"caf\\u00e9\"," \
                "\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}]" \
                ",\"pair\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}," \
                "{\"Sequence\":{\"id\":\"B\",\"type_id\":1}}]," \
                "\"special_tokens\":{\"caf\\u00e9\":{\"id\":\"caf\\u00e9\"," \
                "\"ids\":[6],\"tokens\":[\"[CLS]\"]}}}"


static void
ids_are(const char *json, const char *text, const uint32_t *ids, size_t n)
{
    tok_t          *t;
    tok_err_t       err;
    tok_scratch_t  *s = tok_scratch_new();
    tok_result_t    r;

    assert_non_null(s);
    if (tok_open_json(&t, json, strlen(json), &err) != 0) {
        fail_msg("%s: %s", json, err.msg);
    }
    assert_int_equal(tok_encode(t, s, text, strlen(text), TOK_ADD_SPECIAL,
                                &r), 0);
    assert_int_equal(r.n, n);
    assert_memory_equal(r.ids, ids, n * sizeof(*ids));
    tok_scratch_free(s);
    tok_close(t);
}


static void
any_order(void **state)
{
    static const uint32_t     ids[] = { 6, 4, 5 };
    static const char *const  files[] = {
        "{" CLS ",\"model\":{\"type\":\"BPE\"," REST "," VOCAB "," MERGES "}}",
        "{\"model\":{" MERGES "," VOCAB "," REST ",\"type\":\"BPE\"}," CLS "}",
        "{\"model\":{" VOCAB "," MERGES ",\"type\":\"BPE\"}," CLS "}",
        "{\"model\":{" VOCAB "," MERGES "}," CLS "}",
        "{\"mod\\u0065l\":{\"type\":\"BPE\"," VOCAB "," MERGES "}," CLS "}",
        "{\"model\":{\"type\":\"BPE\"," REST ",\"voc\\u0061b\":{\"a\":0,"
        "\"b\":1,\"c\":2,\"ab\":3,\"abc\":4,\"\\u00e9\":5,\"[CLS]\":6}"
        ",\"m\\u0065rges\":[\"a b\",\"ab c\"]}," CLS "}",
        "{\r\n\t\"model\" : {\n                          \"type\":\"BPE\" ,\t"
        REST "," VOCAB "," MERGES "}, \r\n " CLS "\n}\n"
    };
    size_t  i;

    (void) state;
    for (i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        ids_are(files[i], "abc\xc3\xa9", ids, 3);
    }
}


static void
twice(void **state)
{
    static const char *const  files[] = {
        "{\"model\":{\"type\":\"BPE\"," VOCAB "," VOCAB "," MERGES "}}",
        "{\"model\":{\"type\":\"BPE\"," REST "," VOCAB "," MERGES "," MERGES
        "}}",
        "{\"model\":{\"type\":\"BPE\"," VOCAB "," MERGES "},\"model\":{}}"
    };
    tok_t      *t;
    tok_err_t   err;
    size_t      i;

    (void) state;
    for (i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        assert_int_equal(tok_open_json(&t, files[i], strlen(files[i]), &err),
                         TOK_E_FORMAT);
        assert_null(t);
    }
}


/* a, aa, aaa ... each one longer: batches, and merges too long for them. */
static void
many_merges(void **state)
{
    const unsigned  n = 3000;
    const size_t    room = (size_t) n * n + (size_t) n * 64 + 256;
    char           *json = malloc(room), *a = malloc(n + 1);
    uint32_t        id = n - 1;
    size_t          at = 0;
    unsigned        i;

    (void) state;
    assert_non_null(json);
    assert_non_null(a);
    memset(a, 'a', n);
    at += (size_t) snprintf(json, room, "{\"model\":{\"type\":\"BPE\","
                            "\"continuing_subword_prefix\":null,\"vocab\":{");
    for (i = 1; i <= n; i++) {
        at += (size_t) snprintf(json + at, room - at, "%s\"%.*s\":%u",
                                i > 1 ? "," : "", (int) i, a, i - 1);
    }
    at += (size_t) snprintf(json + at, room - at, "},\"merges\":[");
    for (i = 1; i < n; i++) {
        at += (size_t) snprintf(json + at, room - at, "%s\"a %.*s\"",
                                i > 1 ? "," : "", (int) i, a);
    }
    at += (size_t) snprintf(json + at, room - at, "]}}");
    assert_true(at < room);
    a[2] = '\0';
    id = 1;
    ids_are(json, a, &id, 1);
    free(json);
    free(a);
}


static void
nested_set(void **state)
{
    static const uint32_t  ids[] = { 0, 1, 2 };
    static const char      head[] = "{\"pre_tokenizer\":{\"type\":\"Split\","
        "\"behavior\":\"Isolated\",\"invert\":false,\"pattern\":{\"Regex\":\"";
    static const char      tail[] = "\"}},\"model\":{\"type\":\"BPE\"," VOCAB
        "," MERGES "}}";
    char                   json[1024];
    tok_t                 *t;
    tok_err_t              err;

    (void) state;
    (void) snprintf(json, sizeof(json), "%s[^x[bq]]%s", head, tail);
    ids_are(json, "abc", ids, 3);
    (void) snprintf(json, sizeof(json), "%s[a-[bq]]%s", head, tail);
    assert_int_equal(tok_open_json(&t, json, strlen(json), &err),
                     TOK_E_UNSUPPORTED);
    (void) snprintf(json, sizeof(json), "%s[a[^b]]%s", head, tail);
    assert_int_equal(tok_open_json(&t, json, strlen(json), &err),
                     TOK_E_UNSUPPORTED);
    (void) snprintf(json, sizeof(json), "%s[a[b]%s", head, tail);
    assert_int_equal(tok_open_json(&t, json, strlen(json), &err),
                     TOK_E_UNSUPPORTED);
}


static void
pre_names(void **state)
{
    static const char *const  known[] = {
        "gpt-2", "llama-bpe", "falcon", "bloom", "viking", "poro-chat",
        "deepseek-llm", "deepseek-coder", "deepseek-v3", "starcoder",
        "refact", "command-r", "gpt-4o", "tekken", "smollm", "codeshell",
        "dbrx", "olmo", "jais", "chameleon", "mpt", "stablelm2",
        "chatglm-bpe", "qwen35", "seed-coder", "bailingmoe", "minicpm5"
    };
    static const tok_str_t  tokens[] = { { "a", 1 }, { "b", 1 }, { "ab", 2 } };
    static const tok_str_t  merges[] = { { "a b", 3 } };
    tok_gguf_t              g;
    tok_t                  *t;
    tok_err_t               err;
    size_t                  i;

    (void) state;
    tok_gguf_init(&g);
    g.model = (tok_str_t) { "gpt2", 4 };
    g.tokens = tokens;
    g.n_tokens = 3;
    g.merges = merges;
    g.n_merges = 1;
    for (i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        g.pre = (tok_str_t) { known[i], strlen(known[i]) };
        if (tok_open_gguf(&t, &g, &err) != 0) {
            fail_msg("%s: %s", known[i], err.msg);
        }
        tok_close(t);
    }
    g.pre = (tok_str_t) { "oracle", 6 };
    assert_int_equal(tok_open_gguf(&t, &g, &err), TOK_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "oracle"));
}


#define OTHERS  ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false," \
                "\"normalized\":false}"

/* Each of many added tokens stands twice: the second only changes flags. */
static void
added_again(void **state)
{
    const int     n = 9000;
    char         *json = malloc((size_t) n * 2 * 128 + 256), text[16];
    size_t        at;
    int           i, round;
    tok_t        *t;
    tok_err_t     err;

    (void) state;
    assert_non_null(json);
    at = (size_t) snprintf(json, 256, "{\"added_tokens\":[");
    for (round = 0; round < 2; round++) {
        for (i = 0; i < n; i++) {
            at += (size_t) snprintf(json + at, 256, "%s{\"id\":%d,"
                                    "\"content\":\"<x%d>\",\"special\":%s"
                                    OTHERS, round + i ? "," : "", 7 + i, i,
                                    round ? "true" : "false");
        }
    }
    at += (size_t) snprintf(json + at, 256, "],\"model\":{" VOCAB "," MERGES
                            "}}");
    if (tok_open_json(&t, json, at, &err) != 0) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(tok_vocab_size(t), 7 + n);
    for (i = 0; i < n; i += 97) {
        at = (size_t) snprintf(text, sizeof(text), "<x%d>", i);
        assert_int_equal(tok_token_to_id(t, text, at), 7 + i);
        assert_true(tok_is_special(t, (uint32_t) (7 + i)));
    }
    tok_close(t);
    free(json);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(any_order), cmocka_unit_test(twice),
        cmocka_unit_test(many_merges), cmocka_unit_test(nested_set),
        cmocka_unit_test(pre_names), cmocka_unit_test(added_again)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
