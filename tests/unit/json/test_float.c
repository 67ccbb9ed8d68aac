/*
 * Floats as text: each reads back as itself and none is longer than it must
 * be; and base64 in pieces.
 */

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ngx_module/ngx_http_infer_float.c"


#define STEP  49999u                /* of the bit patterns; prime */


static size_t
print(char *text, float v)
{
    unsigned char  *end;

    memset(text, '#', NGX_HTTP_INFER_FLOAT_ROOM + 4);
    end = ngx_http_infer_float((unsigned char *) text, v);
    assert_true(end - (unsigned char *) text <= NGX_HTTP_INFER_FLOAT_MAX);
    assert_memory_equal(text + NGX_HTTP_INFER_FLOAT_ROOM, "####", 4);
    *end = '\0';

    return (size_t) (end - (unsigned char *) text);
}


/* Significant digits of a printed number. */
static int
digits_of(const char *text)
{
    int  n, zeros;

    for (n = 0, zeros = 0; *text != '\0' && *text != 'e'; text++) {
        if (*text == '0') {
            zeros += n != 0;
        } else if (*text >= '1' && *text <= '9') {
            n += 1 + zeros;
            zeros = 0;
        }
    }

    return n;
}


static void
check(uint32_t bits)
{
    int    n;
    char   text[NGX_HTTP_INFER_FLOAT_ROOM + 8], other[64];
    float  v, back;

    memcpy(&v, &bits, sizeof(v));

    if (!isfinite(v)) {
        return;
    }

    (void) print(text, v);
    back = strtof(text, NULL);

    if (memcmp(&back, &v, sizeof(v)) != 0) {
        fail_msg("%08x is printed as %s", bits, text);
    }

    for (n = 1; n < 9; n++) {
        snprintf(other, sizeof(other), "%.*e", n - 1, (double) v);

        if (strtof(other, NULL) == v) {
            break;
        }
    }

    if (v != 0 && digits_of(text) > n) {
        fail_msg("%08x is printed as %s, %s is shorter", bits, text, other);
    }
}


static void
test_all_exponents(void **state)
{
    uint32_t  e, i;

    (void) state;

    for (e = 0; e < 512; e++) {
        for (i = 0; i < 40; i++) {
            check(e << 23 | i);
            check((e << 23) + 0x7fffff - i);
        }
    }
}


static void
test_many(void **state)
{
    uint64_t  bits;

    (void) state;

    for (bits = 0; bits < (1ull << 32); bits += STEP) {
        check((uint32_t) bits);
    }
}


static void
test_shape(void **state)
{
    size_t  i;
    char    text[NGX_HTTP_INFER_FLOAT_ROOM + 8];
    static const struct { float v; const char *text; }  cases[] = {
        { 0, "0.0" }, { -0.0f, "-0.0" }, { 1, "1.0" }, { -2.5f, "-2.5" },
        { 0.1f, "0.1" }, { 0.034512345f, "0.034512345" },
        { 0.00012345f, "0.00012345" }, { 0.000012345f, "1.2345e-05" },
        { 123456.0f, "123456.0" }, { 16777216.0f, "16777216.0" },
        { 1e9f, "1e+09" }, { 1e10f, "1e+10" }, { 1e-45f, "1e-45" },
        { 3.4028235e38f, "3.4028235e+38" }, { 1.1754944e-38f,
        "1.1754944e-38" }, { -1.1754944e-38f, "-1.1754944e-38" },
        { NAN, "0.0" }, { 999999984.0f, "1e+09" },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        (void) print(text, cases[i].v);
        assert_string_equal(text, cases[i].text);
    }
}


static void
test_base64(void **state)
{
    size_t                    n, part, at, i;
    unsigned char             data[64], whole[128], text[128], *p;
    ngx_http_infer_base64_t   s = { { 0 }, 0 };
    static const char *const  known[] = { "", "Zg==", "Zm8=", "Zm9v",
                                          "Zm9vYg==", "Zm9vYmE=",
                                          "Zm9vYmFy" };

    (void) state;

    for (n = 0; n <= 6; n++) {                  /* RFC 4648, 10 */
        p = ngx_http_infer_base64(&s, text, "foobar", n);
        p = ngx_http_infer_base64_end(&s, p);
        *p = '\0';
        assert_string_equal((char *) text, known[n]);
    }

    for (i = 0; i < sizeof(data); i++) {
        data[i] = (unsigned char) (i * 37 + 200);
    }

    for (n = 0; n <= sizeof(data); n++) {
        p = ngx_http_infer_base64(&s, whole, data, n);
        *ngx_http_infer_base64_end(&s, p) = '\0';

        for (part = 1; part < 9; part++) {
            for (at = 0, p = text; at < n; at += part) {
                p = ngx_http_infer_base64(&s, p, data + at,
                                          n - at < part ? n - at : part);
            }

            *ngx_http_infer_base64_end(&s, p) = '\0';
            assert_string_equal((char *) text, (char *) whole);
        }
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_shape),
        cmocka_unit_test(test_all_exponents),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_base64),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
