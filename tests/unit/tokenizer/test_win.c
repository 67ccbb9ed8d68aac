/*
 * test_win.c: pieces found 64 bytes at a time are those that tok_scan finds
 * one by one, for every pattern; classes by vectors are those by table.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tokenizer/tok_core.h"
#include "tokenizer/tok_win.h"


#define TEXT_MAX  300
#define ROUNDS    60000


static uint64_t  seed = 0x2545f4914f6cdd1dull;

static uint32_t
below(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t) (seed >> 32) % n;
}


static void
classes_same(void **state)
{
    uint8_t    buf[TOK_WIN_BYTES];
    tok_win_t  a, b;
    unsigned   i, round;

    (void) state;
    for (round = 0; round < 256 + 4096; round++) {
        for (i = 0; i < sizeof(buf); i++) {
            buf[i] = (uint8_t) (round < 256 ? round + i : below(256));
        }
        tok_win_classes(&a, buf);
        tok_win_classes_ref(&b, buf);
        assert_memory_equal(&a, &b, sizeof(a));
#ifdef __x86_64__
        if (__builtin_cpu_supports("avx2")) {
            tok_win_classes_avx2(&a, buf);
            assert_memory_equal(&a, &b, sizeof(a));
        }
        if (__builtin_cpu_supports("avx512bw")) {
            tok_win_classes_avx512(&a, buf);
            assert_memory_equal(&a, &b, sizeof(a));
        }
#endif
    }
}


/* Text of what the patterns tell apart; rarely something beyond ASCII. */
static size_t
random_text(uint8_t *p)
{
    static const char *const  bits[] = {
        " ", " ", "  ", "\t", "\n", "\n", "\r\n", "\n\n", "\v", "\x1c", "\x7f",
        "a", "b", "word", "Word", "WORD", "wOrD", "s", "t", "re", "LL", "d",
        "'", "'", "'s", "'S", "'Re", "'ve", "'t", "'''", "don't", "1", "7",
        "12", "123", "1234567", "(", "((", ")", "/", "//", "\n/", "-", "_",
        ".", "=====", "\x01", "\xc3\xa9", "\xc5\xbf", "\xcc\x81",
        "\xe4\xb8\xad", "\xc2\xa0", "\xe0\xa5\xa8", "\xf0\x9f\x98\x80",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "          ", "88888888888",
    };
    const uint32_t  all = sizeof(bits) / sizeof(bits[0]);
    size_t          n = 0, want = 1 + below(TEXT_MAX - 60), k;
    uint32_t        i, some = 2 + below(all - 2), from = below(all);
    bool            mixed = below(3) == 0;

    while (n < want) {
        i = mixed ? below(all) : (from + below(some) % 6) % all;
        k = strlen(bits[i]);
        memcpy(p + n, bits[i], k);
        n += k;
    }
    return n;
}


static void
pieces_same(uint32_t scan, const uint8_t *text, size_t len)
{
    const uint8_t  *p = text, *end = text + len, *q, *limit = NULL, *at;
    uint64_t        ends;

    while (p < end) {
        ends = tok_win_ends(scan, p, (size_t) (end - p));
        at = p;
        for (/* void */; ends; ends &= ends - 1) {
            q = tok_scan(scan, p, end, &limit);
            assert_ptr_equal(q, at + __builtin_ctzll(ends));
            p = q;
        }
        if (p == at) {
            p = tok_scan(scan, p, end, &limit);
        }
    }
}


static void
patterns_same(void **state)
{
    uint8_t  *text, buf[TEXT_MAX];
    uint32_t  scan;
    size_t    len;
    int       round;

    (void) state;
    for (round = 0; round < ROUNDS; round++) {
        /* Of exactly its size, so that a sanitizer sees what reads beyond. */
        len = random_text(buf);
        text = malloc(len);
        assert_non_null(text);
        memcpy(text, buf, len);
        for (scan = 1; scan < TOK_R_MAX; scan++) {
            assert_true(tok_win_knows(scan));
            pieces_same(scan, text, len);
        }
        free(text);
    }
}


/* A window of plain words is all cut at once: the test above tests much. */
static void
windows_show_words(void **state)
{
    static const char  text[] = "The quick brown fox, it's said, jumps (twice)"
                                " over 12 lazy dogs.\n  So it goes on";
    uint32_t           scan;

    (void) state;
    for (scan = 1; scan < TOK_R_MAX; scan++) {
        assert_true(__builtin_popcountll(
            tok_win_ends(scan, (const uint8_t *) text, sizeof(text) - 1))
            >= 12);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(classes_same),
        cmocka_unit_test(patterns_same),
        cmocka_unit_test(windows_show_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
