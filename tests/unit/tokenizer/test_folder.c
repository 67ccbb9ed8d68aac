/*
 * test_folder.c: what a folder has beside tokenizer.json: special tokens, the
 * chat template in either file, the ids that end a generation.
 */

#include "tokenizer/tok.h"
#include "tokenizer/tok_limits.h"
#include "tokenizer/tok_util.h"

#include <setjmp.h>             /* cmocka.h needs it */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>


#define TOKENIZER \
    "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":4,\"content\":\"<e>\"," \
    "\"special\":true,\"single_word\":false,\"lstrip\":false," \
    "\"rstrip\":false,\"normalized\":false}],\"normalizer\":null," \
    "\"pre_tokenizer\":null,\"post_processor\":null,\"decoder\":null," \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2," \
    "\"d\":3},\"merges\":[]}}"

static char  dir[64];


static void
put(const char *name, const char *text)
{
    char   path[128];
    FILE  *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    if (text == NULL) {
        (void) unlink(path);
        return;
    }
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}


static tok_t *
open_dir(const char *image)
{
    tok_t      *t;
    tok_err_t   err;
    int         rc = image != NULL ? tok_open_cached(&t, dir, image, &err)
                                   : tok_open(&t, dir, &err);

    if (rc != 0) {
        fail_msg("%s", err.msg);
    }
    return t;
}


static void
expect(const char *image, const char *chat, size_t n_eos, uint32_t first)
{
    tok_t           *t = open_dir(image);
    tok_str_t        s = tok_chat_template(t);
    size_t           n;
    const uint32_t  *eos = tok_eos_all(t, &n);

    assert_int_equal(s.len, strlen(chat));
    assert_memory_equal(s.ptr, chat, s.len);
    assert_int_equal(n, n_eos);
    assert_true(n == 0 || eos[0] == first);
    tok_close(t);
}


static void
refuse(const char *name, const char *text, const char *word)
{
    tok_t      *t;
    tok_err_t   err;

    put(name, text);
    assert_true(tok_open(&t, dir, &err) < 0);
    if (strstr(err.msg, name) == NULL || strstr(err.msg, word) == NULL) {
        fail_msg("%s", err.msg);
    }
    put(name, NULL);
}


static void
refuse_folder(const char *word)
{
    tok_t      *t;
    tok_err_t   err = { 0 };

    assert_true(tok_open(&t, dir, &err) < 0);
    if (strstr(err.msg, word) == NULL) {
        fail_msg("%s", err.msg);
    }
}


static void
beside(void **state)
{
    char  image[128];

    (void) state;
    snprintf(image, sizeof(image), "%s/image", dir);
    put("tokenizer.json", TOKENIZER);
    expect(NULL, "", 0, 0);
    put("tokenizer_config.json",
        "{\"eos_token\":\"<e>\",\"chat_template\":\"one\"}");
    expect(image, "one", 1, 4);
    put("chat_template.jinja", "the other");
    expect(image, "the other", 1, 4);
    put("generation_config.json", "{\"eos_token_id\":2}");
    expect(image, "the other", 2, 2);
    put("generation_config.json", "{\"x\":{},\"eos_token_id\":[3,1,4,99]}");
    expect(image, "the other", 3, 1);
    put("generation_config.json", "{\"eos_token_id\":null}");
    expect(image, "the other", 1, 4);
    put("generation_config.json", NULL);
    put("chat_template.jinja", NULL);
    expect(image, "one", 1, 4);

    refuse("chat_template.jinja", "\xff", "not UTF-8 at byte 0");
    refuse("generation_config.json", "{\"eos_token_id\":[1", "");
    refuse("generation_config.json", "{\"eos_token_id\":-1}", "number");
    refuse("generation_config.json", "[]", "object");
}


/* Each id of a list is compared with all others, and each token with all: as
   many as there may be, and one more. */
static void
eos_limit(void **state)
{
    char    json[8192];
    size_t  n, i;

    (void) state;
    put("tokenizer.json", "{\"version\":\"1.0\",\"added_tokens\":[],"
        "\"normalizer\":null,\"pre_tokenizer\":null,\"post_processor\":null,"
        "\"decoder\":null,\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,"
        "\"b\":999},\"merges\":[]}}");
    put("tokenizer_config.json", NULL);
    n = (size_t) snprintf(json, sizeof(json), "{\"eos_token_id\":[0");
    for (i = 1; i < 256; i++) {
        n += (size_t) snprintf(json + n, sizeof(json) - n, ",%zu", i);
    }
    snprintf(json + n, sizeof(json) - n, ",7]}");
    put("generation_config.json", json);
    expect(NULL, "", 256, 0);
    snprintf(json + n, sizeof(json) - n, ",7,256]}");
    put("generation_config.json", json);
    refuse_folder("more than 256 ids that end a text");
    put("generation_config.json", NULL);
}


/* A vocabulary of n tokens that begin at one place of a hash of 4096. */
static void
put_crowd(uint32_t n)
{
    char      *json = malloc(128 + 32 * n), s[16];
    size_t     at, len;
    uint32_t   i, k;

    assert_non_null(json);
    at = (size_t) snprintf(json, 128, "{\"added_tokens\":[],\"model\":{"
                          "\"type\":\"BPE\",\"merges\":[],\"vocab\":{");
    for (i = 0, k = 0; k < n; i++) {
        len = (size_t) snprintf(s, sizeof(s), "t%u", i);
        if ((tok_hash_bytes((const uint8_t *) s, len) & 4095) == 77) {
            at += (size_t) snprintf(json + at, 32, "%s\"%s\":%u",
                                    k > 0 ? "," : "", s, k);
            k++;
        }
    }
    snprintf(json + at, 4, "}}}");
    put("tokenizer.json", json);
    free(json);
}


static void
collisions(void **state)
{
    (void) state;
    put_crowd(TOK_PROBES_MAX + 1);
    expect(NULL, "", 0, 0);
    put_crowd(TOK_PROBES_MAX + 2);
    refuse_folder("nearly the same hash");
}


int
main(void)
{
    int                      rc;
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(beside), cmocka_unit_test(eos_limit),
        cmocka_unit_test(collisions)
    };

    memcpy(dir, "/tmp/infer-tok-XXXXXX", 22);
    if (mkdtemp(dir) == NULL) {
        return 1;
    }
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    put("tokenizer.json", NULL);
    put("tokenizer_config.json", NULL);
    put("image", NULL);
    (void) rmdir(dir);
    return rc;
}
