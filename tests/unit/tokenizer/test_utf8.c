/*
 * test_utf8.c: what is UTF-8 and where it stops to be, many bytes at once and
 * one by one, beside a check that goes by code points.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "tokenizer/tok_util.h"


#define TEXT  104

/* Bytes on both sides of every border that the standard draws. */
static const uint8_t  border[] = {
    0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf,
    0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff
};

#define N  (sizeof(border) / sizeof(border[0]))


/* The length of the character at p, or 0: the number that its bytes make must
 * need as many bytes, and be no surrogate. */
static size_t
one(const uint8_t *p, size_t left)
{
    static const uint32_t  least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    uint32_t               c = p[0];
    size_t                 n, i;

    if (c < 0x80) {
        return 1;
    }
    n = c >= 0xf8 ? 0 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 0;
    if (n == 0 || left < n) {
        return 0;
    }
    c &= 0x7fu >> n;
    for (i = 1; i < n; i++) {
        if (p[i] < 0x80 || p[i] > 0xbf) {
            return 0;
        }
        c = c << 6 | (p[i] & 0x3fu);
    }
    return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)
           ? 0 : n;
}


static size_t
expected(const uint8_t *p, size_t len)
{
    size_t  i = 0, n;

    while (i < len) {
        n = one(p + i, len - i);
        if (n == 0) {
            return i;
        }
        i += n;
    }
    return len;
}


/* Any four of the bytes, at any place of a block, before any end. */
static void
borders(void **state)
{
    uint8_t  text[TEXT];
    size_t   a, b, c, d, at = 24, len = 36, want;

    (void) state;
    for (a = 0; a < N; a++) {
        for (b = 0; b < N; b++) {
            for (c = 0; c < N; c++) {
                for (d = 0; d < N; d++) {
                    at = at == 66 ? 24 : at + 1;
                    len = len >= TEXT ? at + 4 : len + 1;
                    len = len < at + 1 ? at + 1 : len;
                    memset(text, 'a', sizeof(text));
                    text[at] = border[a];
                    text[at + 1] = border[b];
                    text[at + 2] = border[c];
                    text[at + 3] = border[d];
                    want = expected(text, len);
                    assert_int_equal(tok_utf8_check(text, len), want);
                }
            }
        }
    }
}


/* Text of long characters, one byte of which is another; cut anywhere. */
static void
changed(void **state)
{
    static const char *const  chars[] = {
        "\xc3\xa9", "\xe4\xb8\xad", "\xf0\x9f\x98\x80", "\xed\x9f\xbf",
        "\xf4\x8f\xbf\xbf", "\xef\xbf\xbf", "a"
    };
    uint8_t  text[TEXT + 4], was;
    size_t   shift, n, at, len, k;

    (void) state;
    for (shift = 0; shift < 7; shift++) {
        for (n = 0, k = shift; n < TEXT; k = k * 5 + 3, n += len) {
            len = strlen(chars[k % 7]);
            memcpy(text + n, chars[k % 7], len);
        }
        for (len = 1; len <= TEXT; len++) {
            assert_int_equal(tok_utf8_check(text, len), expected(text, len));
        }
        for (at = 0; at < TEXT; at++) {
            was = text[at];
            for (k = 0; k < N; k++) {
                text[at] = border[k];
                assert_int_equal(tok_utf8_check(text, TEXT),
                                 expected(text, TEXT));
            }
            text[at] = was;
        }
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(borders),
        cmocka_unit_test(changed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
