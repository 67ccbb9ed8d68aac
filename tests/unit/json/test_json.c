/*
 * The JSON door: what it lets in, what it refuses and where, limits at and one
 * past each, members, readers, and the time that hostile bodies take.
 */

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* Nothing but nginx links the module: the test takes the source. */
#include "ngx_module/ngx_http_infer_json.c"
#include "ngx_module/ngx_http_infer_json_read.c"


#define BODY_BYTES  (1024 * 1024)

static ngx_http_infer_json_doc_t  doc;
static ngx_http_infer_json_err_t  err;


/* In a copy of exact size, so that a sanitizer sees any step past the end. */
static int
check_n(const void *text, size_t len)
{
    int             rc;
    unsigned char  *copy;

    copy = malloc(len > 0 ? len : 1);
    assert_non_null(copy);
    memcpy(copy, text, len);

    rc = ngx_http_infer_json_check(copy, len, &doc, &err);

    assert_int_equal(rc, err.code);
    assert_true(rc == 0 || (err.reason != NULL && err.offset <= len));
    free(copy);
    return rc;
}


static int
check(const char *text)
{
    return check_n(text, strlen(text));
}


static int
keep(const char *text)
{
    return ngx_http_infer_json_check((const unsigned char *) text,
                                     strlen(text), &doc, &err);
}


static const char  *accepted[] = {
    "null", "true", "false", "0", "-0", "1", "-1", "12.5", "1e5", "1E+5",
    "1e-5", "-0.0e0", "123456789012345678901234567890", "\"\"", "\"a\"", "[]",
    "{}", " [ ] ", "\t{\r\n}\n", "[1,2]", "[ 1 , 2 ]", "[[],[[]],{}]",
    "{\"a\":1}", "{\"\":0}", "{\"a\":{\"a\":{}}}", "[{\"a\":1},{\"a\":2}]",
    "[{\"a\":1,\"a\":2}]", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\u0000\"",
    "\"\\u00e9\\uD83D\\uDE00\"", "\"\\uFFFF\\uFDD0\"", "\"/\"",
    "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"", "\"\x7f\"",
    "\"\xf4\x8f\xbf\xbf\"", "\"\xed\x9f\xbf\"", "\"\xef\xbf\xbf\"",
    "[1e999]", "[-1e-999]", "{\"a\\u0062\":1}", "[\"12345678\",\"1234567\"]",
    "\"a long text of plain letters, longer than one word of eight bytes\""
};

static const char  *refused[] = {
    "", " ", "nul", "nulll", "True", "tru", "NaN", "Infinity", "-Infinity",
    "-", "+1", "01", "-01", "00", "1.", ".5", "1.e1", "1e", "1e+", "0x10",
    "1a", "--1", "- 1", "1 2", "1,", "[", "]", "[1", "[1,", "[1,]", "[,1]",
    "[,]", "[1,,2]", "[1 2]", "[1:2]", "[1}", "{", "}", "{]", "{\"a\"}",
    "{\"a\":}", "{\"a\":1,}", "{\"a\":1 \"b\":2}", "{,}", "{1:2}", "{a:1}",
    "{'a':1}", "{\"a\"::1}", "{\"a\":1,,\"b\":2}", "{\"a\":1}}", "[]]", "{}1",
    "[] x", "\"", "\"a", "\"\\", "\"\\\"", "\"\\x41\"", "\"\\a\"", "\"\\'\"",
    "\"\\0\"", "\"\\u\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\U0041\"",
    "'a'", "a", "/**/1", "1//x", "\"\t\"", "\"\n\"", "\"\x1f\"", "\f1",
    "\v1", "\xa0" "1", "\xef\xbb\xbf" "1", "[\"a\",\n4,\n1,", "{\"a\":\"b",
    "[\"\\uD800\"]", "[\"\\uDC00\"]", "[\"\\uD800\\u0041\"]",
    "[\"\\uD800\\uD800\"]", "[\"\\uD800x\"]", "[\"\\uDE00\\uD83D\"]",
    "\"\x80\"", "\"\xc0\xaf\"", "\"\xc1\xbf\"", "\"\xc3\"", "\"\xc3(\"",
    "\"\xe0\x80\xaf\"", "\"\xe2\x82\"", "\"\xed\xa0\x80\"",
    "\"\xf0\x80\x80\x80\"", "\"\xf0\x9f\x98\"", "\"\xf4\x90\x80\x80\"",
    "\"\xf5\x80\x80\x80\"", "\"\xff\"", "\xc3\xa9", "[\xff]",
    "{\"a\":1,\"a\":2}", "{\"ab\":1,\"\\u0061b\":2}",
    "{\"\\/\":1,\"/\":2}", "[1]\\u0000"
};


static void
test_accepted(void **state)
{
    unsigned  i;

    (void) state;

    for (i = 0; i < sizeof(accepted) / sizeof(accepted[0]); i++) {
        if (check(accepted[i]) != 0) {
            fail_msg("refused: %s (%s at %zu)", accepted[i], err.reason,
                     err.offset);
        }
    }
}


static void
test_refused(void **state)
{
    unsigned  i;

    (void) state;

    for (i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        if (check(refused[i]) == 0) {
            fail_msg("accepted: %s", refused[i]);
        }
    }

    assert_int_not_equal(check_n("1\0", 2), 0);
    assert_int_not_equal(check_n("\"a\0b\"", 5), 0);
    assert_int_not_equal(check_n("[1]\0[2]", 7), 0);
    assert_int_not_equal(check_n("{\"a\0\":1}", 8), 0);
    assert_int_not_equal(check_n("\0", 1), 0);
}


/* Every prefix of a text that is longer than it is not JSON. */
static void
test_truncated(void **state)
{
    size_t             n;
    static const char  text[] = "{\"model\":\"m\\u00e9\xc3\xa9\",\"a\":[1.5e3,"
                                "true,null,{\"b\":[]}],\"c\":\"\\ud83d\\ude00"
                                "\"}";

    (void) state;

    assert_int_equal(check(text), 0);

    for (n = 0; n < sizeof(text) - 1; n++) {
        assert_int_not_equal(check_n(text, n), 0);
    }
}


/* No changed byte makes it read past the end or accept bad UTF-8. */
static void
test_flipped(void **state)
{
    size_t             i;
    unsigned           b;
    unsigned char      text[] = "{\"a\":[1.5e3,\"x\\n\xc3\xa9\"],\"b\":false}";

    (void) state;

    for (i = 0; i < sizeof(text) - 1; i++) {
        for (b = 1; b < 256; b++) {
            text[i] ^= b;
            (void) check_n(text, sizeof(text) - 1);
            text[i] ^= b;
        }
    }

    assert_int_equal(check_n(text, sizeof(text) - 1), 0);
}


static void
test_offsets(void **state)
{
    (void) state;

    assert_int_equal(check("[1,x]"), NGX_HTTP_INFER_JSON_ESYNTAX);
    assert_int_equal(err.offset, 3);
    assert_int_equal(check("\"ab\xff\""), NGX_HTTP_INFER_JSON_EUTF8);
    assert_int_equal(err.offset, 3);
    assert_int_equal(check("{} {"), NGX_HTTP_INFER_JSON_ESYNTAX);
    assert_int_equal(err.offset, 3);
}


/* n openings, then as many ends. */
static int
nested(unsigned n, int object)
{
    char         text[8 * 200];
    size_t       len, one;
    unsigned     i;
    const char  *open;

    open = object ? "{\"a\":" : "[";
    one = strlen(open);
    assert_true(n * (one + 1) < sizeof(text));

    for (i = 0, len = 0; i < n; i++, len += one) {
        memcpy(text + len, open, one);
    }

    text[len++] = '1';

    for (i = 0; i < n; i++) {
        text[len++] = object ? '}' : ']';
    }

    return check_n(text, len);
}


static char *
repeated(const char *head, const char *item, unsigned n, const char *tail,
    size_t *len)
{
    char      *text;
    size_t     one;
    unsigned   i;

    one = strlen(item);
    text = malloc(strlen(head) + one * n + strlen(tail) + 1);
    assert_non_null(text);

    *len = strlen(head);
    memcpy(text, head, *len);

    for (i = 0; i < n; i++, *len += one) {
        memcpy(text + *len, item, one);
    }

    memcpy(text + *len, tail, strlen(tail));
    *len += strlen(tail);
    return text;
}


static int
check_repeated(const char *head, const char *item, unsigned n, const char *tail)
{
    int      rc;
    char    *text;
    size_t   len;

    text = repeated(head, item, n, tail, &len);
    rc = check_n(text, len);
    free(text);
    return rc;
}


static int
members(unsigned n, unsigned name_len)
{
    int        rc;
    char      *text;
    size_t     len, cap;
    unsigned   i;

    cap = (size_t) n * (name_len + 32) + 2;
    text = malloc(cap);
    assert_non_null(text);
    text[0] = '{';
    len = 1;

    for (i = 0; i < n; i++) {
        len += (size_t) snprintf(text + len, cap - len, "%s\"%0*u\":%u",
                                 i ? "," : "", (int) name_len, i, i);
        assert_true(len < cap);
    }

    text[len++] = '}';
    rc = check_n(text, len);
    free(text);
    return rc;
}


static void
test_limits(void **state)
{
    unsigned  max;

    (void) state;

    max = NGX_HTTP_INFER_JSON_DEPTH_MAX;
    assert_int_equal(nested(max, 0), 0);
    assert_int_equal(nested(max + 1, 0), NGX_HTTP_INFER_JSON_EDEPTH);
    assert_int_equal(nested(max, 1), 0);
    assert_int_equal(nested(max + 1, 1), NGX_HTTP_INFER_JSON_EDEPTH);

    /* The array itself is one, the last item another. */

    max = NGX_HTTP_INFER_JSON_NODES_MAX;
    assert_int_equal(check_repeated("[", "0,", max - 2, "0]"), 0);
    assert_int_equal(check_repeated("[", "0,", max - 1, "0]"),
                     NGX_HTTP_INFER_JSON_ENODES);

    max = NGX_HTTP_INFER_JSON_MEMBERS_MAX;
    assert_int_equal(members(max, 4), 0);
    assert_int_equal(doc.nmembers, max);
    assert_int_equal(members(max + 1, 4), NGX_HTTP_INFER_JSON_EMEMBERS);

    max = NGX_HTTP_INFER_JSON_NAME_MAX;
    assert_int_equal(members(2, max), 0);
    assert_int_equal(members(2, max + 1), NGX_HTTP_INFER_JSON_EMEMBERS);
}


static void
same(const ngx_http_infer_json_value_t *v, ngx_http_infer_json_type_e type,
    const char *text)
{
    assert_non_null(v);
    assert_int_equal(v->type, type);
    assert_int_equal(v->len, strlen(text));
    assert_memory_equal(v->start, text, v->len);
}


static void
test_members(void **state)
{
    (void) state;

    assert_int_equal(keep(" { \"model\" : \"m\" , \"n\":-1.5e2, \"t\" :true,"
                          "\"f\":false,\"z\": null ,\"a\": [ 1 , {\"x\":2} ] ,"
                          "\"o\":{\"p\":{\"q\":[]}} , \"e\":{ },\"s\\u0074p\":"
                          "\"\"} "), 0);

    assert_int_equal(doc.value.type, NGX_HTTP_INFER_JSON_OBJECT);
    assert_int_equal(doc.nmembers, 9);
    same(ngx_http_infer_json_member(&doc, "model"),
         NGX_HTTP_INFER_JSON_STRING, "\"m\"");
    same(ngx_http_infer_json_member(&doc, "n"), NGX_HTTP_INFER_JSON_NUMBER,
         "-1.5e2");
    same(ngx_http_infer_json_member(&doc, "t"), NGX_HTTP_INFER_JSON_TRUE,
         "true");
    same(ngx_http_infer_json_member(&doc, "f"), NGX_HTTP_INFER_JSON_FALSE,
         "false");
    same(ngx_http_infer_json_member(&doc, "z"), NGX_HTTP_INFER_JSON_NULL,
         "null");
    same(ngx_http_infer_json_member(&doc, "a"), NGX_HTTP_INFER_JSON_ARRAY,
         "[ 1 , {\"x\":2} ]");
    same(ngx_http_infer_json_member(&doc, "o"), NGX_HTTP_INFER_JSON_OBJECT,
         "{\"p\":{\"q\":[]}}");
    same(ngx_http_infer_json_member(&doc, "e"), NGX_HTTP_INFER_JSON_OBJECT,
         "{ }");
    same(ngx_http_infer_json_member(&doc, "stp"), NGX_HTTP_INFER_JSON_STRING,
         "\"\"");
    assert_null(ngx_http_infer_json_member(&doc, "x"));
    assert_null(ngx_http_infer_json_member(&doc, "mode"));
    assert_null(ngx_http_infer_json_member(&doc, "models"));
    assert_null(ngx_http_infer_json_member(&doc, "s\\u0074p"));

    assert_int_equal(keep("[{\"a\":1}]"), 0);
    assert_int_equal(doc.value.type, NGX_HTTP_INFER_JSON_ARRAY);
    assert_int_equal(doc.nmembers, 0);
}


static void
test_strings(void **state)
{
    size_t                              len;
    unsigned char                       to[64];
    const ngx_http_infer_json_value_t  *v;

    (void) state;

    assert_int_equal(keep("{\"a\":\"x\\u00e9\\ud83d\\ude00\\n\\\"\\/y\\u0000z"
                          "\",\"n\\u0061\":3}"), 0);
    v = ngx_http_infer_json_member(&doc, "a");

    assert_int_equal(ngx_http_infer_json_string(v, to, sizeof(to), &len), 0);
    assert_int_equal(len, 13);
    assert_memory_equal(to, "x\xc3\xa9\xf0\x9f\x98\x80\n\"/y\0z", 13);
    assert_int_equal(ngx_http_infer_json_string(v, to, 13, &len), 0);
    assert_int_equal(ngx_http_infer_json_string(v, to, 12, &len),
                     NGX_HTTP_INFER_JSON_ESPACE);
    assert_int_equal(ngx_http_infer_json_string(v, to, 2, &len),
                     NGX_HTTP_INFER_JSON_ESPACE);
    assert_int_equal(ngx_http_infer_json_string(v, to, 0, &len),
                     NGX_HTTP_INFER_JSON_ESPACE);

    v = ngx_http_infer_json_member(&doc, "na");
    assert_int_equal(ngx_http_infer_json_string(v, to, sizeof(to), &len),
                     NGX_HTTP_INFER_JSON_ETYPE);
    assert_int_equal(ngx_http_infer_json_name(&doc.members[1], to, sizeof(to),
                                              &len), 0);
    assert_int_equal(len, 2);
    assert_memory_equal(to, "na", 2);
}


static int
integer(const char *text, long long *n)
{
    assert_int_equal(keep(text), 0);
    return ngx_http_infer_json_integer(&doc.value, n);
}


static void
test_numbers(void **state)
{
    int        yes;
    double     d;
    long long  n;

    (void) state;

    assert_int_equal(integer("9223372036854775807", &n), 0);
    assert_true(n == INT64_MAX);
    assert_int_equal(integer("-9223372036854775808", &n), 0);
    assert_true(n == INT64_MIN);
    assert_int_equal(integer("9223372036854775808", &n),
                     NGX_HTTP_INFER_JSON_ERANGE);
    assert_int_equal(integer("2.0", &n), 0);
    assert_int_equal(n, 2);
    assert_int_equal(integer("1e3", &n), 0);
    assert_int_equal(n, 1000);
    assert_int_equal(integer("2.5", &n), NGX_HTTP_INFER_JSON_ERANGE);
    assert_int_equal(integer("1e300", &n), NGX_HTTP_INFER_JSON_ERANGE);
    assert_int_equal(integer("1e999", &n), NGX_HTTP_INFER_JSON_ERANGE);
    assert_int_equal(integer("\"1\"", &n), NGX_HTTP_INFER_JSON_ETYPE);
    assert_int_equal(integer("true", &n), NGX_HTTP_INFER_JSON_ETYPE);

    assert_int_equal(keep("-1.25e-1"), 0);
    assert_int_equal(ngx_http_infer_json_number(&doc.value, &d), 0);
    assert_true(d == -0.125);
    assert_int_equal(keep("1e999"), 0);
    assert_int_equal(ngx_http_infer_json_number(&doc.value, &d),
                     NGX_HTTP_INFER_JSON_ERANGE);

    assert_int_equal(keep("true"), 0);
    assert_int_equal(ngx_http_infer_json_bool(&doc.value, &yes), 0);
    assert_int_equal(yes, 1);
    assert_int_equal(keep("false"), 0);
    assert_int_equal(ngx_http_infer_json_bool(&doc.value, &yes), 0);
    assert_int_equal(yes, 0);
    assert_int_equal(keep("0"), 0);
    assert_int_equal(ngx_http_infer_json_bool(&doc.value, &yes),
                     NGX_HTTP_INFER_JSON_ETYPE);
}


/* A number as long as the reader takes, and one byte more. */
static void
test_number_limit(void **state)
{
    double                       d;
    ngx_http_infer_json_value_t  v;
    static unsigned char         text[NGX_HTTP_INFER_JSON_NUMBER_MAX + 1];

    (void) state;

    memset(text, '0', sizeof(text));
    text[0] = '0';
    text[1] = '.';
    text[2] = '5';
    v.start = text;
    v.type = NGX_HTTP_INFER_JSON_NUMBER;

    v.len = NGX_HTTP_INFER_JSON_NUMBER_MAX;
    assert_int_equal(ngx_http_infer_json_number(&v, &d), 0);
    assert_true(d == 0.5);
    v.len++;
    assert_int_equal(ngx_http_infer_json_number(&v, &d),
                     NGX_HTTP_INFER_JSON_ERANGE);
}


static void
test_arrays(void **state)
{
    int                          rc, n;
    ngx_http_infer_json_doc_t    inner;
    ngx_http_infer_json_iter_t   iter;
    ngx_http_infer_json_value_t  v;
    static const char           *want[] = {
        "1", "\"a,]\"", "[2,[3]]", "{\"k\":[1]}", "null"
    };

    (void) state;

    assert_int_equal(keep("[ 1 , \"a,]\",[2,[3]],{\"k\":[1]} , null ]"), 0);
    assert_int_equal(ngx_http_infer_json_array(&doc.value, &iter), 0);

    for (n = 0; (rc = ngx_http_infer_json_next(&iter, &v)) == 0; n++) {
        assert_true(n < 5);
        assert_int_equal(v.len, strlen(want[n]));
        assert_memory_equal(v.start, want[n], v.len);

        if (n == 3) {
            assert_int_equal(ngx_http_infer_json_object(&v, &inner, &err), 0);
            same(ngx_http_infer_json_member(&inner, "k"),
                 NGX_HTTP_INFER_JSON_ARRAY, "[1]");
        }
    }

    assert_int_equal(rc, NGX_HTTP_INFER_JSON_END);
    assert_int_equal(n, 5);

    assert_int_equal(keep("[ ]"), 0);
    assert_int_equal(ngx_http_infer_json_array(&doc.value, &iter), 0);
    assert_int_equal(ngx_http_infer_json_next(&iter, &v),
                     NGX_HTTP_INFER_JSON_END);

    assert_int_equal(keep("{}"), 0);
    assert_int_equal(ngx_http_infer_json_array(&doc.value, &iter),
                     NGX_HTTP_INFER_JSON_ETYPE);
    assert_int_equal(keep("[]"), 0);
    assert_int_equal(ngx_http_infer_json_object(&doc.value, &inner, &err),
                     NGX_HTTP_INFER_JSON_ETYPE);
}


static double
now_ms(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double) ts.tv_sec * 1e3 + (double) ts.tv_nsec * 1e-6;
}


/* 1 MiB of each: the best of five runs, since the machine is shared. */
static void
test_time(void **state)
{
    char                *text;
    size_t               len;
    double               t, best, limit;
    unsigned             i, k;
    static const char   *items[] = {
        "0,", "[],", "{},", "\"\",", "\"\\u0000\",", " ", "\"a\":0,",
        "x", "\xc3\xa9", "\\n", "\\ud83d\\ude00", "1", "\xf0\x9f\x98\x80"
    };
    static const char   *heads[] = {
        "[", "[", "[", "[", "[", "[", "[{", "\"", "\"", "\"", "\"", "[", "\""
    };

    (void) state;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    limit = 60;
#else
    limit = 4;
#endif

    for (i = 0; i < sizeof(items) / sizeof(items[0]); i++) {
        text = repeated(heads[i], items[i],
                        (unsigned) (BODY_BYTES / strlen(items[i])), "", &len);
        best = 1e9;

        for (k = 0; k < 5; k++) {
            t = now_ms();
            (void) ngx_http_infer_json_check((unsigned char *) text, len, &doc,
                                             &err);
            t = now_ms() - t;
            best = t < best ? t : best;
        }

        print_message("    1 MiB of %-14s %.2f ms\n", items[i], best);
        assert_true(best < limit);
        free(text);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_flipped),
        cmocka_unit_test(test_offsets),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_number_limit),
        cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_time)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
