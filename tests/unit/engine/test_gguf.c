/*
 * The GGUF door: damaged, cut, oversized and contradictory headers get an
 * error that names the place; nothing is read outside the bytes (ASan).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "tests/unit/engine/tiny_gguf.h"
#include "worker/engine/eng_gguf.h"
#include "worker/engine/eng_model.h"

static tiny_file_t         good;
static const tiny_model_t  llama = TINY_LLAMA;


/* Parses a copy that ends exactly at an allocation's end. */
static int
parse(const uint8_t *p, size_t len, size_t file_bytes, eng_err_t *err)
{
    int         rc;
    uint8_t    *copy = malloc(len > 0 ? len : 1);
    eng_gguf_t  g;

    memcpy(copy, p, len);
    memset(err, 0, sizeof(*err));
    rc = eng_gguf_parse(&g, "test.gguf", copy, len, file_bytes, err);
    if (rc == 0) {
        eng_gguf_close(&g);
    } else {
        assert_int_equal(err->code, rc);
        assert_true(strstr(err->text, "test.gguf") != NULL);
    }
    free(copy);

    return rc;
}


static void
expect(tiny_t *t, int code, const char *text)
{
    int        rc;
    eng_err_t  err;

    rc = parse(t->p, t->n, t->n, &err);
    assert_int_equal(rc, code);
    if (strstr(err.text, text) == NULL) {
        fail_msg("\"%s\" does not contain \"%s\"", err.text, text);
    }
    free(t->p);
    memset(t, 0, sizeof(*t));
}


static tiny_t
head(uint64_t tensors, uint64_t keys)
{
    tiny_t  t = { NULL, 0, 0 };

    tiny_put(&t, "GGUF", 4);
    tiny_u32(&t, 3);
    tiny_u64(&t, tensors);
    tiny_u64(&t, keys);

    return t;
}


static void
pad(tiny_t *t, size_t n)
{
    while (n-- > 0) {
        tiny_put(t, "", 1);
    }
}


static void
test_good(void **state)
{
    eng_err_t                 err;
    eng_gguf_t                g;
    const eng_gguf_tensor_t  *t;

    (void) state;
    assert_int_equal(eng_gguf_parse(&g, "x", good.file.p, good.file.n,
                                    good.file.n, &err), 0);
    assert_int_equal(g.n_keys, TINY_KEYS);
    assert_int_equal(g.n_tensors, good.n);
    assert_int_equal(g.header_bytes, good.header_bytes);
    t = eng_gguf_tensor(&g, "blk.1.ffn_down.weight");
    assert_non_null(t);
    assert_int_equal(t->dim[0], 96);
    assert_int_equal(t->dim[1], 64);
    assert_null(eng_gguf_tensor(&g, "blk.9.ffn_down.weight"));
    assert_null(eng_gguf_key(&g, "general.architectur"));
    assert_int_equal(eng_gguf_key(&g, "llama.block_count")->v.u, 3);
    eng_gguf_close(&g);
}


/* The file cut at every byte of header and data. */
static void
test_every_truncation(void **state)
{
    int        rc;
    size_t     n;
    eng_err_t  err;

    (void) state;
    for (n = 0; n < good.header_bytes + 64; n++) {
        rc = parse(good.file.p, n, n, &err);
        if (rc >= 0) {
            fail_msg("a file cut at %zu of %zu was accepted", n,
                     good.file.n);
        }
    }
    for ( ; n < good.file.n; n += 61) {
        assert_int_equal(parse(good.file.p, n, n, &err), ENG_EFORMAT);
        assert_true(strstr(err.text, "beyond the file's end") != NULL);
    }
}


/* The header's end has come, the file goes on: the reader asks for more. */
static void
test_short_copy(void **state)
{
    size_t     n;
    eng_err_t  err;

    (void) state;
    for (n = 0; n < good.header_bytes; n++) {
        assert_int_equal(parse(good.file.p, n, good.file.n, &err),
                         ENG_ELIMIT);
    }
    assert_int_equal(parse(good.file.p, good.header_bytes, good.file.n, &err),
                     0);
}


static void
test_random_flips(void **state)
{
    int        round, k, flips;
    size_t     at;
    uint32_t   r = 7;
    uint8_t   *p = malloc(good.file.n);
    eng_err_t  err;

    (void) state;
    for (round = 0; round < 20000; round++) {
        memcpy(p, good.file.p, good.header_bytes);
        r = r * 1664525u + 1013904223u;
        flips = 1 + (int) (r >> 29);
        for (k = 0; k < flips; k++) {
            r = r * 1664525u + 1013904223u;
            at = (r >> 4) % good.header_bytes;
            r = r * 1664525u + 1013904223u;
            p[at] = (r & 0x100) ? (uint8_t) (r >> 16)
                                : (r & 0x200) ? 0xff : (uint8_t) (p[at]
                                  ^ (1u << ((r >> 12) & 7)));
        }
        (void) parse(p, good.header_bytes, good.file.n, &err);
    }
    free(p);
}


static void
test_head(void **state)
{
    tiny_t  t = { NULL, 0, 0 };

    (void) state;
    tiny_put(&t, "GGML", 4);
    pad(&t, 64);
    expect(&t, ENG_EFORMAT, "not a GGUF file");

    tiny_put(&t, "GGUF", 4);
    tiny_u32(&t, 1);
    pad(&t, 64);
    expect(&t, ENG_EUNSUP, "version 1");

    tiny_put(&t, "GGUF", 4);
    tiny_u32(&t, 0x03000000);
    pad(&t, 64);
    expect(&t, ENG_EUNSUP, "big-endian");

    t = head(1, UINT64_MAX);
    pad(&t, 64);
    expect(&t, ENG_ELIMIT, "the number of keys at offset 16 is "
                           "18446744073709551615");
    t = head(UINT64_MAX, 0);
    pad(&t, 64);
    expect(&t, ENG_ELIMIT, "the number of tensors at offset 8");
    t = head(0, ENG_GGUF_KEYS_MAX + 1);
    pad(&t, 14 * (ENG_GGUF_KEYS_MAX + 2));
    expect(&t, ENG_ELIMIT, "the limit is 65536");
    /* a count that the limit allows and the file cannot hold */
    t = head(60000, 0);
    pad(&t, 500);
    expect(&t, ENG_ELIMIT, "the file has 508 bytes left");
}


/* n keys whose names begin at the same place of a hash of 4096. */
static void
crowd(tiny_t *t, uint32_t n)
{
    char      s[16];
    uint32_t  i;

    *t = head(0, n);
    for (i = 0; n > 0; i++) {
        snprintf(s, sizeof(s), "k%u", i);
        if ((eng_str_hash((eng_str_t) { s, (uint32_t) strlen(s) }) & 4095)
            == 77)
        {
            tiny_kv_u32(t, s, 1);
            n--;
        }
    }
}


static void
test_keys(void **state)
{
    tiny_t     t;
    eng_err_t  err;

    (void) state;
    t = head(0, 1);
    tiny_u64(&t, UINT64_MAX - 3);
    pad(&t, 64);
    expect(&t, ENG_ELIMIT, "a key's name at offset 24");

    t = head(0, 1);
    tiny_str(&t, "k");
    tiny_u32(&t, 13);
    pad(&t, 64);
    expect(&t, ENG_EFORMAT, "unknown type 13");

    t = head(0, 1);
    tiny_str(&t, "k");
    tiny_u32(&t, 8);
    tiny_u64(&t, (64u << 20) + 1);
    pad(&t, 64);
    expect(&t, ENG_ELIMIT, "at most 67108864");

    t = head(0, 1);
    tiny_str(&t, "k");
    tiny_u32(&t, 9);
    tiny_u32(&t, 9);
    tiny_u64(&t, 1);
    pad(&t, 64);
    expect(&t, ENG_EUNSUP, "array of arrays");

    t = head(0, 1);
    tiny_str(&t, "k");
    tiny_u32(&t, 9);
    tiny_u32(&t, 12);
    tiny_u64(&t, UINT64_MAX / 8 + 1);
    pad(&t, 64);
    expect(&t, ENG_ELIMIT, "an array's length");

    t = head(0, 2);
    tiny_kv_u32(&t, "same", 1);
    tiny_kv_u32(&t, "same", 2);
    expect(&t, ENG_EFORMAT, "key \"same\" appears twice");
    crowd(&t, ENG_GGUF_PROBES_MAX + 1);
    assert_int_equal(parse(t.p, t.n, t.n, &err), 0);
    free(t.p);
    crowd(&t, ENG_GGUF_PROBES_MAX + 2);
    expect(&t, ENG_ELIMIT, "is one of many with nearly the same hash");
}


static void
alignment(uint32_t align, int code)
{
    tiny_t     t = head(0, 1);
    eng_err_t  err;

    tiny_kv_u32(&t, "general.alignment", align);
    assert_int_equal(parse(t.p, t.n, t.n, &err), code);
    if (code != 0) {
        assert_true(strstr(err.text, "general.alignment at offset") != NULL);
    }
    free(t.p);
}


static void
test_alignment(void **state)
{
    (void) state;
    alignment(0, ENG_EFORMAT);
    alignment(3, ENG_EFORMAT);
    alignment(UINT32_MAX, ENG_EFORMAT);
    alignment(1u << 21, ENG_EFORMAT);
    alignment(1, 0);
    alignment(1u << 20, 0);
}


static tiny_t
tensor(uint32_t n_dims, uint64_t d0, uint64_t d1, uint64_t d2, uint32_t type,
    uint64_t offset)
{
    tiny_t    t = head(1, 0);
    uint64_t  d[3] = { d0, d1, d2 };
    uint32_t  i;

    tiny_str(&t, "w");
    tiny_u32(&t, n_dims);
    for (i = 0; i < n_dims && i < 3; i++) {
        tiny_u64(&t, d[i]);
    }
    tiny_u32(&t, type);
    tiny_u64(&t, offset);
    pad(&t, 256);

    return t;
}


static void
test_tensors(void **state)
{
    tiny_t  t;

    (void) state;
    t = tensor(0, 0, 0, 0, 0, 0);
    expect(&t, ENG_EFORMAT, "has 0 dimensions");
    t = tensor(5, 1, 1, 1, 0, 0);
    expect(&t, ENG_EFORMAT, "has 5 dimensions");
    t = tensor(2, 0, 4, 1, 0, 0);
    expect(&t, ENG_EFORMAT, "zero, too large");
    t = tensor(3, INT64_MAX, 2, 1, 0, 0);
    expect(&t, ENG_EFORMAT, "too large");
    t = tensor(2, 1ull << 32, 1ull << 32, 1, 0, 0);
    expect(&t, ENG_EFORMAT, "too large");
    /* elements fit 64 bits, bytes do not */
    t = tensor(2, 1ull << 31, 1ull << 32, 1, 0, 0);
    expect(&t, ENG_EFORMAT, "too large");
    t = tensor(1, 33, 1, 1, 8, 0);
    expect(&t, ENG_EFORMAT, "no multiple of 32");
    t = tensor(1, 32, 1, 1, 7777, 0);
    expect(&t, ENG_EUNSUP, "unknown type number 7777");
    t = tensor(1, 8, 1, 1, 0, 1);
    expect(&t, ENG_EFORMAT, "not aligned");
    t = tensor(1, 8, 1, 1, 0, UINT64_MAX - 31);
    expect(&t, ENG_EFORMAT, "beyond the file's end");
    t = tensor(1, 8, 1, 1, 0, 512);
    expect(&t, ENG_EFORMAT, "beyond the file's end");
    t = tensor(1, 1u << 20, 1, 1, 0, 0);
    expect(&t, ENG_EFORMAT, "needs 4194304 bytes");

    t = head(2, 0);
    tiny_str(&t, "w");
    tiny_u32(&t, 1);
    tiny_u64(&t, 8);
    tiny_u32(&t, 0);
    tiny_u64(&t, 0);
    tiny_str(&t, "w");
    tiny_u32(&t, 1);
    tiny_u64(&t, 8);
    tiny_u32(&t, 0);
    tiny_u64(&t, 32);
    pad(&t, 256);
    expect(&t, ENG_EFORMAT, "tensor \"w\" appears twice");
}


static void
test_not_regular(void **state)
{
    char        path[64];
    eng_err_t   err;
    eng_gguf_t  g;

    (void) state;
    assert_int_equal(eng_gguf_open(&g, "/nonexistent/x.gguf", &err), ENG_EIO);
    assert_int_equal(eng_gguf_open(&g, "/tmp", &err), ENG_EIO);
    assert_true(strstr(err.text, "not a regular file") != NULL);
    assert_int_equal(eng_gguf_open(&g, "/dev/zero", &err), ENG_EIO);

    tiny_write("", 0, path);
    assert_int_equal(eng_gguf_open(&g, path, &err), ENG_EFORMAT);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(eng_gguf_open(&g, path, &err), ENG_EIO);
    unlink(path);
}


/* A real header (vocabulary and all) cut at many points. */
static void
test_real_header(void **state)
{
    char         path[1024];
    size_t       n, end;
    FILE        *f;
    uint8_t     *p;
    eng_err_t    err;
    eng_gguf_t   g;
    const char  *dir = getenv("INFER_MODELS"), *home = getenv("HOME");

    (void) state;
    if (dir != NULL) {
        snprintf(path, sizeof(path), "%s/smollm2.gguf", dir);
    } else {
        snprintf(path, sizeof(path), "%s/.cache/nginx-infer/smollm2.gguf",
                 home != NULL ? home : "");
    }
    if (access(path, R_OK) != 0) {
        skip();
    }
    assert_int_equal(eng_gguf_open(&g, path, &err), 0);
    end = g.header_bytes;
    eng_gguf_close(&g);
    p = malloc(end);
    f = fopen(path, "rb");
    assert_int_equal(fread(p, 1, end, f), end);
    fclose(f);

    for (n = 0; n < 3000; n++) {
        assert_true(parse(p, n, n, &err) < 0);
    }
    for ( ; n < end; n += n > end - 16000 ? 97 : 9973) {
        assert_true(parse(p, n, n, &err) < 0);
    }
    free(p);
}


int
main(void)
{
    int                      rc;
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_short_copy),
        cmocka_unit_test(test_random_flips),
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_not_regular),
        cmocka_unit_test(test_real_header),
    };

    tiny_build(&good, &llama);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    tiny_free(&good);

    return rc;
}
