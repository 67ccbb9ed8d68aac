/*
 * safetensors and config.json: what is read, and which damage is refused with
 * which words.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "tests/unit/engine/tiny_put.h"
#include "worker/engine/eng_cfg.h"
#include "worker/engine/eng_st.h"

#define GOOD                                                                 \
    "{\"__metadata__\":{\"format\":\"pt\"},"                                 \
    "\"a.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],"                       \
    "\"data_offsets\":[0,24]},"                                              \
    "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]},"     \
    "\"ids\":{\"shape\":[],\"data_offsets\":[32,40],\"dtype\":\"I64\"}}   "
#define GOOD_DATA  40

/* One tensor of one F32 vector, with parts replaced. */
#define ONE(type, shape, offsets)                                            \
    "{\"x\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":"   \
    offsets "}}"


static void
build(tiny_t *t, const char *json, size_t data)
{
    size_t  i;

    memset(t, 0, sizeof(*t));
    tiny_u64(t, strlen(json));
    tiny_put(t, json, strlen(json));
    for (i = 0; i < data; i++) {
        tiny_put(t, &(uint8_t) { (uint8_t) i }, 1);
    }
}


static void
refuse_data(const char *json, size_t data, int code, const char *text)
{
    int        rc;
    tiny_t     t;
    eng_st_t   st;
    eng_err_t  err = { 0, "" };

    build(&t, json, data);
    rc = eng_st_parse(&st, "dir/m.safetensors", t.p, t.n, t.n, &err);
    free(t.p);
    if (rc != code || strstr(err.text, text) == NULL
        || strncmp(err.text, "dir/m.safetensors: ", 19) != 0)
    {
        fail_msg("%d \"%s\", expected %d \"%s\"", rc, err.text, code, text);
    }
    assert_null(st.tensors);
}


static void
refuse(const char *json, int code, const char *text)
{
    refuse_data(json, 64, code, text);
}


static void
test_good(void **state)
{
    int                     i;
    char                    path[64];
    tiny_t                  t;
    uint8_t                 b[8];
    eng_st_t                st;
    eng_err_t               err;
    const eng_st_tensor_t  *x;

    (void) state;
    build(&t, GOOD, GOOD_DATA);
    tiny_write(t.p, t.n, path);
    assert_int_equal(eng_st_open(&st, path, &err), 0);
    unlink(path);
    free(t.p);

    assert_int_equal(st.n_tensors, 3);
    x = eng_st_tensor(&st, "a.weight");
    assert_non_null(x);
    assert_string_equal(x->dtype, "F32");
    assert_int_equal(x->n_dims, 2);
    assert_int_equal(x->dim[0], 2);
    assert_int_equal(x->dim[1], 3);
    assert_int_equal(x->dim[2], 1);
    assert_int_equal(x->bytes, 24);
    x = eng_st_tensor(&st, "b");
    assert_int_equal(x->type, 30);
    assert_int_equal(eng_st_read(&st, x, b, 6, 2, &err), 0);
    for (i = 0; i < 6; i++) {
        assert_int_equal(b[i], 26 + i);
    }
    x = eng_st_tensor(&st, "ids");
    assert_int_equal(x->elements, 1);
    assert_int_equal(x->n_dims, 0);
    assert_null(eng_st_tensor(&st, "a"));
    assert_null(eng_st_tensor(&st, "__metadata__"));
    eng_st_close(&st);
}


/* Every length of file and every length of header. */
static void
test_truncations(void **state)
{
    int        rc;
    size_t     n, h = strlen(GOOD);
    tiny_t     t;
    uint8_t   *copy;
    eng_st_t   st;
    eng_err_t  err;

    (void) state;
    build(&t, GOOD, GOOD_DATA);
    for (n = 0; n <= t.n; n++) {
        copy = malloc(n + 1);               /* ASan sees its very end */
        memcpy(copy, t.p, n);
        memset(&err, 0, sizeof(err));
        rc = eng_st_parse(&st, "f", copy, n, n, &err);
        assert_int_equal(rc == 0, n == t.n);
        assert_true(rc == 0 || err.text[0] != '\0');
        eng_st_close(&st);
        free(copy);
    }
    for (n = 0; n < h; n++) {
        memcpy(t.p, &(uint64_t) { n }, 8);
        rc = eng_st_parse(&st, "f", t.p, t.n, t.n, &err);
        /* the blanks at the end are no part of the object */
        assert_int_equal(rc == 0, n >= h - 3);
        eng_st_close(&st);
    }
    free(t.p);
}


static void
test_lengths(void **state)
{
    static const uint64_t  bad[] = {
        0, 1, 100000001, 1ull << 32, 1ull << 63, UINT64_MAX, UINT64_MAX - 8
    };

    size_t     i;
    tiny_t     t;
    eng_st_t   st;
    eng_err_t  err;

    (void) state;
    build(&t, GOOD, GOOD_DATA);
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        memcpy(t.p, &bad[i], 8);
        assert_int_equal(eng_st_parse(&st, "f", t.p, t.n, t.n, &err),
                         ENG_EFORMAT);
        assert_non_null(strstr(err.text, "no safetensors file"));
    }
    free(t.p);
}


static void
test_refusals(void **state)
{
    (void) state;
    refuse("{}", ENG_EFORMAT, "no tensors");
    refuse("[]", ENG_EFORMAT, "an object is expected");
    refuse(ONE("F32", "[2]", "[0,8]") "x", ENG_EFORMAT, "bytes behind");
    refuse(ONE("F4", "[2]", "[0,8]"), ENG_EUNSUP,
           "tensor \"x\" has the dtype \"F4\"");
    refuse(ONE("F32", "[3]", "[0,8]"), ENG_EFORMAT,
           "tensor \"x\": the shape takes 12 bytes");
    refuse(ONE("F32", "[2]", "[8,0]"), ENG_EFORMAT, "data_offsets are 8 to 0");
    refuse(ONE("F32", "[2]", "[57,65]"), ENG_EFORMAT, "ends at 65");
    refuse(ONE("F32", "[2]", "[0]"), ENG_EFORMAT, "two numbers");
    refuse(ONE("F32", "[2]", "[0,8,9]"), ENG_ELIMIT, "two numbers");
    refuse(ONE("F32", "[-2]", "[0,8]"), ENG_EFORMAT, "whole number");
    refuse(ONE("F32", "[2.0]", "[0,8]"), ENG_EFORMAT, "comma");
    refuse(ONE("F32", "[02]", "[0,8]"), ENG_EFORMAT, "comma");
    refuse(ONE("F32", "[1e1]", "[0,8]"), ENG_EFORMAT, "comma");
    refuse(ONE("F32", "[9999999999999999999]", "[0,8]"), ENG_EFORMAT,
           "18 digits");
    refuse(ONE("F32", "[999999999999,999999999999]", "[0,8]"), ENG_EFORMAT,
           "overflow");
    refuse(ONE("F64", "[999999999999999999,18]", "[0,8]"), ENG_EFORMAT,
           "overflow");
    refuse(ONE("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]"), ENG_ELIMIT,
           "more than 8 dimensions");
    refuse("{\"x\":{\"dtype\":\"F32\",\"shape\":[2]}}", ENG_EFORMAT,
           "nothing else");
    refuse("{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"offsets\":[0,8]}}",
           ENG_EFORMAT, "data_offsets are missing");
    refuse("{\"\":{}}", ENG_ELIMIT, "a name has 1 to 256 bytes");
    refuse("{\"\\u0041\":{}}", ENG_ELIMIT, "no escapes");
    refuse("{\"x\":7}", ENG_EFORMAT, "an object is expected");
}


static void
test_pairs(void **state)
{
    (void) state;
    refuse("{\"x\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},"
           "\"x\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[8,16]}}",
           ENG_EFORMAT, "\"x\" stands there twice");
    refuse("{\"x\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},"
           "\"y\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[7,15]}}",
           ENG_EFORMAT, "tensor \"y\": it overlaps");
}


/* Names made to meet in one place of the hash cost no quadratic time. */
static void
test_collisions(void **state)
{
    char       s[128];
    tiny_t     t, json = { 0 };
    eng_st_t   st;
    uint32_t   i, n;
    eng_err_t  err;

    (void) state;
    for (i = 0, n = 0; n < ENG_GGUF_PROBES_MAX + 2; i++) {
        snprintf(s, sizeof(s), "t%u", i);
        if ((eng_str_hash((eng_str_t) { s, (uint32_t) strlen(s) }) & 4095)
            != 77)
        {
            continue;
        }
        if (n == ENG_GGUF_PROBES_MAX + 1) {
            build(&t, (char *) json.p, 0);
            t.p[t.n - 1] = '}';                 /* in place of the comma */
            assert_int_equal(eng_st_parse(&st, "f", t.p, t.n, t.n, &err), 0);
            eng_st_close(&st);
            free(t.p);
            json.n--;
        }
        n++;
        snprintf(s, sizeof(s), "%s\"t%u\":{\"dtype\":\"U8\",\"shape\":[0],"
                 "\"data_offsets\":[0,0]},", n == 1 ? "{" : "", i);
        tiny_put(&json, s, strlen(s) + (n == ENG_GGUF_PROBES_MAX + 1));
    }
    json.p[json.n - 1] = '}';
    tiny_put(&json, "", 1);
    refuse((char *) json.p, ENG_ELIMIT, "nearly the same hash");
    free(json.p);
}


/* Deep nesting where it is only skipped, and as many names as there may be. */
static void
test_large(void **state)
{
    char       s[128];
    tiny_t     t = { 0 }, json = { 0 };
    eng_st_t   st;
    uint32_t   i;
    eng_err_t  err;

    (void) state;
    tiny_put(&json, "{\"__metadata__\":", 16);
    for (i = 0; i < 70; i++) {
        tiny_put(&json, "[", 1);
    }
    tiny_put(&json, "", 1);
    refuse((char *) json.p, ENG_ELIMIT, "nested deeper");

    json.n = 0;
    for (i = 0; i <= ENG_ST_TENSORS_MAX; i++) {
        snprintf(s, sizeof(s), "%c\"t%u\":{\"dtype\":\"U8\",\"shape\":[0],"
                 "\"data_offsets\":[0,0]}", i == 0 ? '{' : ',', i);
        tiny_put(&json, s, strlen(s));
    }
    tiny_put(&json, "}", 2);
    refuse((char *) json.p, ENG_ELIMIT, "more than 65536 tensors");

    /* one less is read */
    json.n = (size_t) (strrchr((char *) json.p, ',') - (char *) json.p);
    json.n = (size_t) ((char *) memrchr(json.p, 't', json.n)
                       - (char *) json.p);
    while (json.p[json.n] != '}') {
        json.n--;
    }
    tiny_put(&json, "}}", 3);
    build(&t, (char *) json.p, 0);
    if (eng_st_parse(&st, "f", t.p, t.n, t.n, &err) != 0) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(st.n_tensors, ENG_ST_TENSORS_MAX);
    assert_non_null(eng_st_tensor(&st, "t65535"));
    eng_st_close(&st);
    free(t.p);
    free(json.p);
}


/* ---- folders ------------------------------------------------------------ */

static char  dir[64];


static void
put_file(const char *name, const void *p, size_t n)
{
    char   path[256];
    FILE  *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}


static void
remove_file(const char *name)
{
    char  path[256];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    assert_int_equal(unlink(path), 0);
}


static void
open_index(const char *map, int code, const char *text)
{
    int        rc;
    char       json[1024];
    eng_st_t   st;
    eng_err_t  err = { 0, "" };

    snprintf(json, sizeof(json), "{\"metadata\":{},\"weight_map\":{%s}}", map);
    put_file("model.safetensors.index.json", json, strlen(json));
    rc = eng_st_open(&st, dir, &err);
    if (rc != code || strstr(err.text, text) == NULL) {
        fail_msg("%d \"%s\", expected %d \"%s\"", rc, err.text, code, text);
    }
    eng_st_close(&st);
}


static void
test_shards(void **state)
{
    tiny_t     a, b;
    eng_st_t   st;
    eng_err_t  err;

    (void) state;
    memcpy(dir, "/tmp/infer-test-XXXXXX", 23);
    assert_non_null(mkdtemp(dir));
    assert_int_equal(eng_st_open(&st, dir, &err), ENG_EIO);
    assert_non_null(strstr(err.text, "neither \"model.safetensors\" nor"));

    build(&a, ONE("F32", "[2]", "[0,8]"), 8);
    build(&b, "{\"y\":{\"dtype\":\"F16\",\"shape\":[2],"
          "\"data_offsets\":[0,4]}}", 4);
    put_file("m-1.safetensors", a.p, a.n);
    put_file("m-2.safetensors", b.p, b.n);
    open_index("\"x\":\"m-1.safetensors\",\"y\":\"m-2.safetensors\"", 0, "");
    open_index("\"x\":\"m-2.safetensors\",\"y\":\"m-1.safetensors\"",
               ENG_EFORMAT, "tensor \"x\" is not in \"m-2.safetensors\"");
    open_index("\"x\":\"m-1.safetensors\",\"z\":\"m-2.safetensors\"",
               ENG_EFORMAT, "tensor \"z\" is not in");
    open_index("\"x\":\"m-3.safetensors\"", ENG_EIO, "m-3.safetensors: ");
    open_index("\"x\":\"../m-1.safetensors\"", ENG_EFORMAT, "no name of a "
               "file in this folder");
    open_index("\"x\":\"/etc/passwd\"", ENG_EFORMAT, "no name of a file");
    open_index("\"x\":\"sub/m\"", ENG_EFORMAT, "no name of a file");
    open_index("\"x\":\"\"", ENG_EFORMAT, "no name of a file");
    open_index("\"x\":\"..\"", ENG_EFORMAT, "no name of a file");
    open_index("\"x\":\"a\\u0000\"", ENG_EFORMAT, "no name of a file");
    open_index("\"x\":7", ENG_EFORMAT, "a string is expected");
    open_index("", ENG_EFORMAT, "no tensors");
    put_file("m-2.safetensors", a.p, a.n);
    open_index("\"x\":\"m-1.safetensors\",\"y\":\"m-2.safetensors\"",
               ENG_EFORMAT, "tensor \"x\" stands there twice");

    put_file("model.safetensors", a.p, a.n - 1);
    assert_int_equal(eng_st_open(&st, dir, &err), ENG_EFORMAT);
    assert_non_null(strstr(err.text, "/model.safetensors: tensor \"x\" ends"));
    remove_file("model.safetensors");
    remove_file("model.safetensors.index.json");
    remove_file("m-1.safetensors");
    remove_file("m-2.safetensors");
    put_file("pytorch_model.bin", "", 0);
    assert_int_equal(eng_st_open(&st, dir, &err), ENG_EIO);
    assert_non_null(strstr(err.text, "convert it to safetensors"));
    remove_file("pytorch_model.bin");
    assert_int_equal(rmdir(dir), 0);
    free(a.p);
    free(b.p);
}


/* ---- config.json -------------------------------------------------------- */

static void
test_config(void **state)
{
    int         b = -1;
    char        s[16];
    char        text[] = "{\"n\":7,\"f\":1e-05,\"t\":{\"n\":8,\"n\":9,"
                         "\"z\":null},\"b\":true,\"s\":\"ab\\u0001c\","
                         "\"l\":[1,2,3],\"m\":[\"p\",\"q\"],\"w\":-1.5,"
                         "\"r\":[0.5,-2]}";
    float       f = 0;
    double      d;
    uint32_t    u = 0, l[2], n;
    eng_cfg_t   c;
    eng_err_t   err;

    (void) state;
    assert_int_equal(eng_cfg_parse(&c, "config.json", text, strlen(text),
                                   &err), 0);
    assert_int_equal(eng_cfg_u32(&c, "n", 0, 7, &u, &err), 1);
    assert_int_equal(u, 7);
    assert_int_equal(eng_cfg_u32(&c, "n", 0, 6, &u, &err), ENG_ELIMIT);
    assert_string_equal(err.text, "config.json: \"n\" is 7, allowed are whole "
                        "numbers from 0 to 6");
    assert_int_equal(eng_cfg_u32(&c, "t.n", 0, 9, &u, &err), 1);
    assert_int_equal(u, 9);
    assert_int_equal(eng_cfg_u32(&c, "t.z", 0, 9, &u, &err), 0);
    assert_int_equal(eng_cfg_u32(&c, "t.y", 0, 9, &u, &err), 0);
    assert_int_equal(eng_cfg_u32(&c, "n.y", 0, 9, &u, &err), 0);
    assert_int_equal(eng_cfg_u32(&c, "w", 0, 9, &u, &err), ENG_ELIMIT);
    assert_int_equal(eng_cfg_u32(&c, "f", 0, 9, &u, &err), ENG_ELIMIT);
    assert_int_equal(eng_cfg_u32(&c, "s", 0, 9, &u, &err), ENG_EFORMAT);
    assert_int_equal(eng_cfg_f32(&c, "f", 0, 1, &f, &err), 1);
    assert_true(f == 1e-05f);
    assert_int_equal(eng_cfg_f32(&c, "f", 1, 2, &f, &err), ENG_ELIMIT);
    assert_int_equal(eng_cfg_bool(&c, "b", &b, &err), 1);
    assert_int_equal(b, 1);
    assert_int_equal(eng_cfg_bool(&c, "n", &b, &err), ENG_EFORMAT);
    assert_int_equal(eng_cfg_text(&c, "s", s, sizeof(s), &err), 1);
    assert_string_equal(s, "ab?c");
    assert_int_equal(eng_cfg_text(&c, "s", s, 3, &err), 1);
    assert_string_equal(s, "ab");
    assert_int_equal(eng_cfg_list(&c, "l", l, 2, &n, &err), 1);
    assert_int_equal(n, 2);
    assert_int_equal(l[1], 2);
    assert_int_equal(eng_cfg_list(&c, "n", l, 2, &n, &err), 1);
    assert_int_equal(n, 1);
    assert_int_equal(eng_cfg_item(&c, "m", 1, s, sizeof(s), &err), 1);
    assert_string_equal(s, "q");
    assert_int_equal(eng_cfg_item(&c, "m", 2, s, sizeof(s), &err), 0);
    assert_int_equal(eng_cfg_number(&c, "r", 1, &d, &err), 1);
    assert_true(d == -2);
    assert_int_equal(eng_cfg_has(&c, "t"), 1);
    assert_int_equal(eng_cfg_has(&c, "t.z"), 0);
    eng_cfg_close(&c);

    for (n = 0; n < sizeof(text) - 1; n++) {
        assert_int_equal(eng_cfg_parse(&c, "c", text, n, &err), ENG_EFORMAT);
    }
    assert_int_equal(eng_cfg_parse(&c, "c", "[]", 2, &err), ENG_EFORMAT);
    assert_int_equal(eng_cfg_parse(&c, "c", "{} {}", 5, &err), ENG_EFORMAT);
    assert_int_equal(eng_cfg_parse(&c, "c", "{}", (1u << 20) + 1, &err),
                     ENG_ELIMIT);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_truncations),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_collisions),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_config),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
