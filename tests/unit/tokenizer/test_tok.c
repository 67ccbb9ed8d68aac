/*
 * test_tok.c: small vocabularies made here: what is refused at load, texts
 * that are refused, the image, memory after warm-up, long words.
 */

#include "tokenizer/tok.h"

#include <setjmp.h>             /* cmocka.h needs it */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>


#define PARTS_NONE \
    "\"normalizer\":null,\"pre_tokenizer\":null,\"post_processor\":null," \
    "\"decoder\":null"
#define VOCAB  "{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4,\"aa\":5," \
               "\"aaaa\":6,\"<unk>\":7}"
#define MERGES  "[\"a b\",\"ab c\",\"a a\",\"aa aa\"]"
#define BPE(extra) \
    "{\"version\":\"1.0\",\"added_tokens\":[" extra "]," PARTS_NONE \
    ",\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"vocab\":" VOCAB \
    ",\"merges\":" MERGES "}}"


static int
load(const char *json, tok_t **t, tok_err_t *err)
{
    return tok_open_json(t, json, strlen(json), err);
}


static void
merges_in_order(void **state)
{
    tok_t          *t;
    tok_err_t       err;
    tok_scratch_t  *s = tok_scratch_new();
    tok_result_t    r;

    (void) state;
    assert_int_equal(load(BPE(""), &t, &err), 0);
    assert_int_equal(tok_encode(t, s, "abcaaaaax", 9, TOK_OFFSETS, &r), 0);
    assert_int_equal(r.n, 4);
    assert_int_equal(r.ids[0], 4);
    assert_int_equal(r.ids[1], 6);
    assert_int_equal(r.ids[2], 0);
    assert_int_equal(r.ids[3], 7);
    assert_int_equal(r.offsets[3].begin, 8);
    assert_int_equal(r.offsets[3].end, 9);
    tok_scratch_free(s);
    tok_close(t);
}


/* Each is refused, and the message has the word. */
static void
refused(void **state)
{
    static const struct {
        const char  *json, *word;
        int          code;
    }  cases[] = {
        { "", "object", TOK_E_FORMAT },
        { "{", "string", TOK_E_FORMAT },
        { "{}", "model", TOK_E_FORMAT },
        { "{\"model\":{\"type\":\"Oracle\",\"vocab\":{}}}", "Oracle",
          TOK_E_UNSUPPORTED },
        { "{\"version\":\"2.0\",\"model\":{}}", "2.0", TOK_E_UNSUPPORTED },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},"
          "\"merges\":[]}}", "two tokens", TOK_E_FORMAT },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"a\":1},"
          "\"merges\":[]}}", "twice", TOK_E_FORMAT },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":4294967295},"
          "\"merges\":[]}}", "limit", TOK_E_LIMIT },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},"
          "\"merges\":[]}}", "whole number", TOK_E_FORMAT },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},"
          "\"merges\":[\"a b\"]}}", "not in the vocabulary", TOK_E_FORMAT },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},"
          "\"merges\":[\"a a\"]}}", "its result", TOK_E_FORMAT },
        { "{\"model\":{\"type\":\"BPE\",\"dropout\":0.5,\"vocab\":{},"
          "\"merges\":[]}}", "dropout", TOK_E_UNSUPPORTED },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\\ud800\":0},"
          "\"merges\":[]}}", "surrogate", TOK_E_FORMAT },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\xff\":0},"
          "\"merges\":[]}}", "UTF-8", TOK_E_FORMAT },
        { "{\"normalizer\":{\"type\":\"Magic\"},\"model\":{\"type\":\"BPE\","
          "\"vocab\":{},\"merges\":[]}}", "Magic", TOK_E_UNSUPPORTED },
        { "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":"
          "\"(?<n>a)\\\\k<n>\"},\"behavior\":\"Isolated\",\"invert\":false},"
          "\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}",
          "group option", TOK_E_UNSUPPORTED },
        { "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":"
          "\"(\"},\"behavior\":\"Isolated\",\"invert\":false},"
          "\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}",
          "cannot be compiled", TOK_E_UNSUPPORTED },
        { "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":"
          "\"AAAA\"},\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}",
          "damaged", TOK_E_FORMAT }
    };
    tok_t      *t;
    tok_err_t   err;
    size_t      i;
    int         rc;

    (void) state;
    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        rc = load(cases[i].json, &t, &err);
        if (rc != cases[i].code || strstr(err.msg, cases[i].word) == NULL) {
            fail_msg("case %zu: code %d, \"%s\"; expected %d and \"%s\"", i,
                     rc, rc ? err.msg : "", cases[i].code, cases[i].word);
        }
        assert_null(t);
        assert_int_equal(err.code, rc);
    }
}


/* At the limit of nesting and one past it. */
static void
nesting(void **state)
{
    char        json[512];
    tok_t      *t;
    tok_err_t   err;
    int         depth, rc;

    (void) state;
    for (depth = 64; depth <= 65; depth++) {
        (void) snprintf(json, sizeof(json), "{\"x\":%.*s%.*s,\"model\":"
                        "{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}",
                        depth, "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
                        "[[[[[[[[[[[[[[[[[[[[", depth,
                        "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"
                        "]]]]]]]]]]]]]]]]]]]]");
        rc = load(json, &t, &err);
        assert_int_equal(rc, depth == 64 ? 0 : TOK_E_LIMIT);
        tok_close(t);
    }
}


static void
bad_text(void **state)
{
    static const struct {
        const char  *text;
        size_t       len, at;
    }  cases[] = {
        { "a\xff", 2, 1 }, { "\xc0\x80", 2, 0 }, { "\xed\xa0\x80", 3, 0 },
        { "aaaa\xe4\xbd", 6, 4 }, { "\xf4\x90\x80\x80", 4, 0 },
        { "\x80", 1, 0 }
    };
    tok_t          *t;
    tok_err_t       err;
    tok_scratch_t  *s = tok_scratch_new();
    tok_result_t    r;
    size_t          i;

    (void) state;
    assert_int_equal(load(BPE(""), &t, &err), 0);
    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(tok_encode(t, s, cases[i].text, cases[i].len, 0, &r),
                         TOK_E_UTF8);
        assert_int_equal(r.bad_at, cases[i].at);
    }
    /* A NUL is a character like any other. */
    assert_int_equal(tok_encode(t, s, "a\0b", 3, 0, &r), 0);
    assert_int_equal(r.n, 3);
    tok_scratch_free(s);
    tok_close(t);
}


/* Users' text does not become special tokens; other added tokens do. */
static void
special_text(void **state)
{
    static const char  extra[] =
        "{\"id\":8,\"content\":\"<s>\",\"single_word\":false,\"lstrip\":false,"
        "\"rstrip\":false,\"normalized\":false,\"special\":true},"
        "{\"id\":9,\"content\":\"[x]\",\"single_word\":false,\"lstrip\":false,"
        "\"rstrip\":false,\"normalized\":false,\"special\":false}";
    char            json[2048];
    tok_t          *t;
    tok_err_t       err;
    tok_scratch_t  *s = tok_scratch_new();
    tok_result_t    r;

    (void) state;
    (void) snprintf(json, sizeof(json), "{\"added_tokens\":[%s],\"model\":"
                    "{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"vocab\":%s,"
                    "\"merges\":%s}}", extra, VOCAB, MERGES);
    assert_int_equal(load(json, &t, &err), 0);
    assert_int_equal(tok_encode(t, s, "a<s>[x]", 7, 0, &r), 0);
    assert_int_equal(r.n, 5);
    assert_int_equal(r.ids[4], 9);
    assert_int_equal(tok_encode(t, s, "a<s>[x]", 7, TOK_PARSE_SPECIAL, &r),
                     0);
    assert_int_equal(r.n, 3);
    assert_int_equal(r.ids[1], 8);
    assert_true(tok_is_special(t, 8));
    assert_false(tok_is_special(t, 9));
    assert_int_equal(tok_token_to_id(t, "<s>", 3), 8);
    assert_int_equal(tok_token_to_id(t, "none", 4), TOK_NO_ID);
    tok_scratch_free(s);
    tok_close(t);
}


static void
image(void **state)
{
    char            path[64];
    tok_t          *a, *b;
    tok_err_t       err;
    tok_scratch_t  *s = tok_scratch_new();
    tok_result_t    r;
    FILE           *f;

    struct stat     st;

    (void) state;
    (void) snprintf(path, sizeof(path), "/tmp/test_tok.%ld.image",
                    (long) getpid());
    assert_int_equal(load(BPE(""), &a, &err), 0);
    assert_int_equal(tok_image_write(a, path, &err), 0);
    /* Nobody is to write to it; who makes a new one puts it in its place. */
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0444);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(tok_open(&b, path, &err), 0);
    assert_int_equal(tok_encode(b, s, "abca", 4, 0, &r), 0);
    assert_int_equal(r.n, 2);
    assert_int_equal(r.ids[0], 4);
    tok_close(b);
    /* Somebody else may write to it: refused. */
    assert_int_equal(chmod(path, 0666), 0);
    assert_int_equal(tok_open(&b, path, &err), TOK_E_IO);
    assert_int_equal(chmod(path, 0644), 0);
    /* A bit of its header is turned: refused. */
    f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, 200, SEEK_SET), 0);
    assert_int_equal(fputc(0x55, f), 0x55);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(tok_open(&b, path, &err), TOK_E_STALE);
    /* It is cut off anywhere: refused. */
    assert_int_equal(tok_image_write(a, path, &err), 0);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(tok_open(&b, path, &err), 0);
    tok_close(b);
    assert_int_equal(truncate(path, st.st_size - 1), 0);
    assert_int_equal(tok_open(&b, path, &err), TOK_E_STALE);
    assert_int_equal(truncate(path, st.st_size / 2), 0);
    assert_int_equal(tok_open(&b, path, &err), TOK_E_STALE);
    assert_int_equal(truncate(path, 100), 0);
    assert_int_equal(tok_open(&b, path, &err), TOK_E_STALE);
    (void) unlink(path);
    tok_scratch_free(s);
    tok_close(a);
}


/* A pair cut to max tokens, the longest first: how many ids of a stay. */
static size_t
kept_of_first(tok_t *t, const char *a, const char *b)
{
    tok_scratch_t  *s = tok_scratch_new();
    tok_result_t    r;
    size_t          n = 0, i;

    assert_int_equal(tok_encode_pair(t, s, a, strlen(a), b, strlen(b),
                                     TOK_PARSE_SPECIAL | TOK_TYPES, &r), 0);
    assert_int_equal(r.n, 5);
    for (i = 0; i < r.n; i++) {
        n += r.type_ids[i] == 0;
    }
    tok_scratch_free(s);
    return n;
}


/*
 * Who gets the odd token of two long sequences depends on how many tokens the
 * reference makes of each before it stops: behind a word, not behind an added
 * token.  The counts are those of `tokenizers` 0.23.2.
 */
static void
odd_token(void **state)
{
    static const char  json[] =
        "{\"truncation\":{\"max_length\":5,\"strategy\":\"LongestFirst\","
        "\"stride\":0,\"direction\":\"Right\"},\"added_tokens\":[{\"id\":5,"
        "\"content\":\"<x>\",\"single_word\":false,\"lstrip\":false,"
        "\"rstrip\":false,\"normalized\":false,\"special\":true}],"
        "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"},"
        "\"post_processor\":null,\"decoder\":null,\"model\":{\"type\":"
        "\"WordLevel\",\"unk_token\":\"u\",\"vocab\":{\"a\":0,\"b\":1,"
        "\"c\":2,\"d\":3,\"u\":4,\"<x>\":5}}}";
    tok_err_t          err;
    tok_t             *t;

    (void) state;
    assert_int_equal(load(json, &t, &err), 0);
    assert_int_equal(kept_of_first(t, "a b c<x><x><x>a", "d d d d d d"), 3);
    assert_int_equal(kept_of_first(t, "a b c d a b a", "d d d d d d"), 2);
    assert_int_equal(kept_of_first(t, "a b c d a", "d d d d d d"), 2);
    assert_int_equal(kept_of_first(t, "d d d d d d", "a b c<x><x><x>a"), 2);
    tok_close(t);
}


/*
 * Characters that Unicode 14 does not know, in classes of patterns: where the
 * pieces begin, as `tokenizers` 0.23.2 cuts them.
 */
static void
newer_characters(void **state)
{
    static const struct {
        const char  *pattern, *text;
        uint32_t     n, begin[4];
    } cases[] = {
        { "\\\\p{L}+", "a\U000138b9 b", 3, { 0, 2, 3 } },
        { "\\\\P{L}+", "a\U000138b9 !b", 3, { 0, 2, 4 } },
        { "[^\\\\s\\\\p{L}\\\\p{N}]+", "!\U00011f50!", 3, { 0, 1, 2 } },
        { "\\\\w+", "a\U0001e4f0-b", 3, { 0, 2, 3 } },
        { "\\\\d", "1\U0001e4f0x", 3, { 0, 1, 2 } },
        { "\\\\D+", "1\U0001e4f0x", 2, { 0, 2 } },
        { "\\\\p{Han}+", "\u6f22\U00031350x", 2, { 0, 2 } },
        { "\\\\p{Lu}", "\ua7dax", 2, { 0, 1 } },
        { "\\\\bx", "\U00011f50x x", 2, { 0, 3 } },
        { "[\\\\p{Ll}-]+", "\ua7db-B", 2, { 0, 2 } },
        { "\\\\p{Alphabetic}+", "a\U00016d63b!", 2, { 0, 3 } }
    };
    char            json[600];
    tok_t          *t;
    size_t          i;
    uint32_t        k;
    tok_err_t       err;
    tok_scratch_t  *s = tok_scratch_new();
    tok_result_t    r;

    (void) state;
    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        (void) snprintf(json, sizeof(json), "{\"pre_tokenizer\":{\"type\":"
                        "\"Split\",\"pattern\":{\"Regex\":\"%s\"},"
                        "\"behavior\":\"Isolated\",\"invert\":false},"
                        "\"model\":{\"type\":\"WordLevel\",\"unk_token\":"
                        "\"u\",\"vocab\":{\"u\":0}}}", cases[i].pattern);
        assert_int_equal(load(json, &t, &err), 0);
        assert_int_equal(tok_encode(t, s, cases[i].text,
                                    strlen(cases[i].text), TOK_OFFSETS, &r),
                         0);
        assert_int_equal(r.n, cases[i].n);
        for (k = 0; k < r.n; k++) {
            assert_int_equal(r.offsets[k].begin, cases[i].begin[k]);
        }
        tok_close(t);
    }
    tok_scratch_free(s);
}


static double
encode_seconds(tok_t *t, tok_scratch_t *s, const char *text, size_t len)
{
    struct timespec  a, b;
    tok_result_t     r;

    (void) clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
    assert_int_equal(tok_encode(t, s, text, len, 0, &r), 0);
    (void) clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
    return (double) (b.tv_sec - a.tv_sec)
           + (double) (b.tv_nsec - a.tv_nsec) / 1e9;
}


/* A word of 1 MiB: no quadratic time, and no memory once warmed up. */
static void
long_word(void **state)
{
    size_t          len = 1 << 20, i;
    char           *text = malloc(len);
    tok_t          *t;
    tok_err_t       err;
    tok_scratch_t  *s = tok_scratch_new();
    uint64_t        grown;

    (void) state;
    assert_non_null(text);
    assert_int_equal(load(BPE(""), &t, &err), 0);
    for (i = 0; i < len; i++) {
        text[i] = "aaaabcab"[(i * 7 + i / 13) % 8];
    }
    (void) encode_seconds(t, s, text, len);
    grown = tok_scratch_grown(s);
    /* Quadratic time would be minutes. */
    assert_true(encode_seconds(t, s, text, len) < 5.0);
    memset(text, 'a', len);
    assert_true(encode_seconds(t, s, text, len) < 5.0);
    assert_int_equal(tok_scratch_grown(s), grown);
    free(text);
    tok_scratch_free(s);
    tok_close(t);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(merges_in_order), cmocka_unit_test(refused),
        cmocka_unit_test(nesting), cmocka_unit_test(bad_text),
        cmocka_unit_test(special_text), cmocka_unit_test(image),
        cmocka_unit_test(odd_token),
        cmocka_unit_test(newer_characters), cmocka_unit_test(long_word)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
