/*
 * test_alloc.c: no allocation in encode or decode after warm-up.  malloc and
 * its kin are this program's own, count, and call libc's.  Needs the
 * vocabularies of tests/tools/fetch_vocab.sh; without any it is skipped, as
 * it is where a sanitizer has its own malloc.
 */

#include "tokenizer/tok.h"

#include <stdarg.h>
#include <setjmp.h>             /* cmocka.h needs it */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>


#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)             \
    || !defined(__GLIBC__)

int
main(void)
{
    return 77;
}


#else

#define ROUNDS    3
#define TEXT_MAX  6000

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);

static unsigned long  calls;


void *
malloc(size_t n)
{
    calls++;
    return __libc_malloc(n);
}


void *
calloc(size_t n, size_t size)
{
    calls++;
    return __libc_calloc(n, size);
}


void *
realloc(void *p, size_t n)
{
    calls++;
    return __libc_realloc(p, n);
}


void *
aligned_alloc(size_t align, size_t n)
{
    calls++;
    return __libc_memalign(align, n);
}


static uint64_t  seed;

static uint32_t
below(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t) (seed >> 32) % n;
}


/* Words of many kinds; every text has another order of them, none is longer
 * than the first. */
static size_t
text_of(uint32_t number, char *p)
{
    static const char *const  parts[] = {
        "The", " quick", " fox", " don't", "\n\n", "    return x;\n", " 12345",
        " \xd0\xbf\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82", "<|endoftext|>",
        " \xe4\xbd\xa0\xe5\xa5\xbd", " caf\xc3\xa9", " <s>", "\xf0\x9f\x98\x80",
        "============", " unbelievable", "_snake_case", "e\xcc\x81", "\t"
    };
    size_t  n = 0, k, max = number == 0 ? TEXT_MAX : TEXT_MAX / 2;

    seed = 0x2545f4914f6cdd1dull + number;
    for (;;) {
        k = below(sizeof(parts) / sizeof(parts[0]));
        if (n + strlen(parts[k]) > max) {
            return n;
        }
        memcpy(p + n, parts[k], strlen(parts[k]));
        n += strlen(parts[k]);
    }
}


/* A text in all ways; returns how many allocations that took. */
static unsigned long
use(const tok_t *t, tok_scratch_t *s, uint32_t number)
{
    static const unsigned  flags[] = {
        0, TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, TOK_OFFSETS | TOK_TYPES
    };
    static char      text[TEXT_MAX];
    static uint32_t  ids[TEXT_MAX * 4];
    size_t           len = text_of(number, text), n, out;
    const char      *back;
    tok_result_t     r;
    unsigned long    before = calls;
    unsigned         i;

    for (i = 0; i < 3; i++) {
        assert_int_equal(tok_encode(t, s, text, len, flags[i]
                                    | TOK_NO_TRUNCATION | TOK_NO_PADDING, &r),
                         0);
        assert_true(r.n > 100);
        n = r.n;
        assert_true(n <= sizeof(ids) / sizeof(ids[0]));
        memcpy(ids, r.ids, n * sizeof(ids[0]));
        assert_int_equal(tok_decode(t, s, ids, n, 0, &back, &out), 0);
        assert_true(out > 0);
    }
    return calls - before;
}


static void
none_after_warm_up(void **state)
{
    static const char *const  families[] = {
        "gpt2", "gpt4o", "llama2", "llama3_1", "qwen2_5", "deepseek_v3",
        "gemma3", "bert", "t5_small"
    };
    const char     *models = getenv("INFER_MODELS"), *home = getenv("HOME");
    char            path[4096];
    tok_scratch_t  *s;
    tok_err_t       err;
    tok_t          *t;
    uint32_t        i, k;
    int             seen = 0;

    (void) state;
    for (i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
        (void) snprintf(path, sizeof(path), "%s%s/vocab/%s/tokenizer.json",
                        models != NULL ? models : home != NULL ? home : "",
                        models != NULL ? "" : "/.cache/nginx-infer",
                        families[i]);
        if (access(path, R_OK) != 0) {
            continue;
        }
        seen++;
        assert_int_equal(tok_open(&t, path, &err), 0);
        s = tok_scratch_new();
        assert_non_null(s);
        assert_true(use(t, s, 0) > 0);      /* the counter counts */
        for (k = 1; k <= ROUNDS; k++) {
            if (use(t, s, k) != 0) {
                fail_msg("%s: text %u took memory", families[i], k);
            }
        }
        tok_scratch_free(s);
        tok_close(t);
    }
    if (seen == 0) {
        skip();
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(none_after_warm_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}


#endif
