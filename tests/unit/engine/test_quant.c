/*
 * Quantisation: the error of a row against the bound of its type, hostile
 * values, and models whose matrices are quantised when they are loaded.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/engine/tiny_gguf.h"
#include "tests/unit/engine/tiny_hf.h"
#include "worker/engine/eng.h"
#include "worker/engine/eng_quant.h"

static const struct {
    const char    *name;
    kern_wtype_t   type;
    float          step;          /* of the range -1..1                      */
} types[] = {
    { "q8_0", KERN_Q8_0, 1.0f / 127 }, { "q4_0", KERN_Q4_0, 1.0f / 8 },
    { "q4_1", KERN_Q4_1, 2.0f / 15 }, { "q5_0", KERN_Q5_0, 1.0f / 16 },
    { "q5_1", KERN_Q5_1, 2.0f / 31 },
};

#define N_TYPES  (sizeof(types) / sizeof(types[0]))


static void
test_names(void **state)
{
    size_t        i;
    eng_err_t     err;
    kern_wtype_t  t;

    (void) state;
    for (i = 0; i < N_TYPES; i++) {
        assert_int_equal(eng_quant_type(types[i].name, &t, &err), 0);
        assert_int_equal(t, types[i].type);
    }
    assert_int_equal(eng_quant_type(NULL, &t, &err), 0);
    assert_int_equal(t, ENG_QUANT_NONE);
    assert_int_equal(eng_quant_type("none", &t, &err), 0);
    assert_int_equal(eng_quant_type("Q8_0", &t, &err), ENG_EINVAL);
    assert_non_null(strstr(err.text, "quantize \"Q8_0\" is not known"));

    assert_int_equal(eng_quant_choice("blk.0.attn_q.weight", KERN_F16,
                                      KERN_Q4_0, 64), KERN_Q4_0);
    assert_int_equal(eng_quant_choice("blk.0.attn_q.weight", KERN_F16,
                                      KERN_Q4_0, 65), KERN_F16);
    assert_int_equal(eng_quant_choice("blk.0.attn_q.weight", KERN_Q8_0,
                                      KERN_Q4_0, 64), KERN_Q8_0);
    assert_int_equal(eng_quant_choice("output.weight", KERN_BF16, KERN_Q4_0,
                                      64), KERN_Q8_0);
    assert_int_equal(eng_quant_choice("blk.1.ffn_gate_inp.weight", KERN_F32,
                                      KERN_Q4_0, 64), KERN_F32);
}


/* Half a step, a step at the end that has no counterpart, and the rounding of
   the scale to a half. */
static void
test_rows(void **state)
{
    float     x[256], y[256], bound;
    size_t    i, j, round;
    uint8_t   q[512];
    uint32_t  seed = 7;

    (void) state;
    for (i = 0; i < N_TYPES; i++) {
        for (round = 0; round < 50; round++) {
            for (j = 0; j < 256; j++) {
                x[j] = tiny_random(&seed);
            }
            memset(q, 0xaa, sizeof(q));
            assert_int_equal(eng_quant_row(types[i].type, x, 256, q), 0);
            assert_int_equal(q[kern_gguf_row_bytes(types[i].type, 256)], 0xaa);
            kern_gguf_row_f32(types[i].type, q, 256, y);
            bound = types[i].step * 0.51f + 0.001f;
            if (types[i].type == KERN_Q4_0 || types[i].type == KERN_Q5_0) {
                bound = types[i].step * 1.01f;
            }
            for (j = 0; j < 256; j++) {
                if (!(fabsf(x[j] - y[j]) <= bound)) {
                    fail_msg("%s: %f became %f", types[i].name, (double) x[j],
                             (double) y[j]);
                }
            }
        }
    }
}


static void
test_edges(void **state)
{
    static const float  bad[] = { NAN, INFINITY, -INFINITY, 3e38f };

    float    x[32], y[32];
    size_t   i, j;
    uint8_t  q[64];

    (void) state;
    for (i = 0; i < N_TYPES; i++) {
        memset(x, 0, sizeof(x));
        assert_int_equal(eng_quant_row(types[i].type, x, 32, q), 0);
        kern_gguf_row_f32(types[i].type, q, 32, y);
        assert_memory_equal(x, y, sizeof(x));

        /* a constant, and values below the smallest half */
        for (j = 0; j < 32; j++) {
            x[j] = 0.5f;
        }
        assert_int_equal(eng_quant_row(types[i].type, x, 32, q), 0);
        kern_gguf_row_f32(types[i].type, q, 32, y);
        assert_true(fabsf(y[7] - 0.5f) < 0.01f);
        x[3] = 1e-30f;
        memset(x, 0, 12);
        for (j = 4; j < 32; j++) {
            x[j] = -1e-30f;
        }
        assert_int_equal(eng_quant_row(types[i].type, x, 32, q), 0);
        kern_gguf_row_f32(types[i].type, q, 32, y);
        assert_true(fabsf(y[3]) < 1e-6f && fabsf(y[5]) < 1e-6f);

        for (j = 0; j < sizeof(bad) / sizeof(bad[0]); j++) {
            memset(x, 0, sizeof(x));
            x[31] = bad[j];
            assert_int_equal(eng_quant_row(types[i].type, x, 32, q), -1);
        }
    }
}


/* ---- models ------------------------------------------------------------- */

static void
logits_of(const char *path, const char *quantize, float *out,
    uint64_t *bytes)
{
    eng_t             e;
    uint32_t          seq, i;
    eng_err_t         err;
    eng_tok_t         t[4];
    const float      *l[4];
    eng_model_t      *m;
    eng_ctx_opts_t    co = ENG_CTX_OPTS_INIT;
    eng_model_opts_t  mo = ENG_MODEL_OPTS_INIT;

    mo.quantize = quantize;
    if (eng_model_open(path, &mo, &m, &err) != 0) {
        fail_msg("%s", err.text);
    }
    *bytes = eng_model_info(m)->weight_bytes;
    assert_int_equal(eng_create(m, &co, &e, &err), 0);
    assert_int_equal(eng_seq_open(&e, &seq), 0);
    assert_int_equal(eng_seq_reserve(&e, seq, 4), 0);
    for (i = 0; i < 4; i++) {
        t[i] = (eng_tok_t) { 3 + i, seq, i, i == 3 };
    }
    assert_int_equal(eng_step(&e, t, 4, l), 0);
    memcpy(out, l[3], 80 * sizeof(float));
    eng_destroy(&e);
    eng_model_close(m);
}


static void
test_model(void **state)
{
    char          path[64];
    float         exact[80], got[80], diff, norm;
    size_t        i, j;
    uint64_t      bytes, full;
    tiny_file_t   f;
    tiny_model_t  c = TINY_LLAMA;

    (void) state;
    c.embd = 256;
    c.head_dim = 64;
    c.ff = 2048;
    c.layers = 2;
    tiny_build(&f, &c);
    tiny_write(f.file.p, f.file.n, path);
    logits_of(path, NULL, exact, &full);
    for (i = 0; i < N_TYPES; i++) {
        logits_of(path, types[i].name, got, &bytes);
        for (diff = norm = 0, j = 0; j < 80; j++) {
            diff += (got[j] - exact[j]) * (got[j] - exact[j]);
            norm += exact[j] * exact[j];
        }
        print_message("%s: %.4f of the logits\n", types[i].name,
                      (double) sqrtf(diff / norm));
        assert_true(sqrtf(diff / norm) < 4 * types[i].step);
        assert_true(bytes < full / 2);
    }
    unlink(path);
    tiny_free(&f);
}


/* Another type is another image, in the cache too; a bad value is named. */
static void
test_image(void **state)
{
    char              cache[64] = "/tmp/infer-cache-XXXXXX";
    char              path[64];
    float             nan = NAN;
    eng_err_t         err;
    tiny_file_t       f;
    eng_model_t      *m;
    eng_model_opts_t  mo = ENG_MODEL_OPTS_INIT;
    const char       *origin[] = { "packed from the model file",
                                   "packed from the model file", "cache file",
                                   "cache file" };
    const char       *type[] = { NULL, "q8_0", NULL, "q8_0" };
    tiny_model_t      c = TINY_LLAMA;
    size_t            i;

    (void) state;
    assert_non_null(mkdtemp(cache));
    mo.cache_dir = cache;
    tiny_build(&f, &c);
    tiny_write(f.file.p, f.file.n, path);
    for (i = 0; i < 4; i++) {
        mo.quantize = type[i];
        assert_int_equal(eng_model_open(path, &mo, &m, &err), 0);
        assert_string_equal(eng_model_origin(m), origin[i]);
        eng_model_close(m);
    }
    unlink(path);

    /* the last tensor of the file is the last layer's ffn_down */
    memcpy(f.file.p + f.file.n - 4, &nan, 4);
    tiny_write(f.file.p, f.file.n, path);
    assert_int_equal(eng_model_open(path, &mo, &m, &err), ENG_EFORMAT);
    assert_non_null(strstr(err.text, "tensor \"blk.2.ffn_down.weight\" has "
                           "values that are not finite"));
    mo.quantize = "q9_0";
    assert_int_equal(eng_model_open(path, &mo, &m, &err), ENG_EINVAL);
    unlink(path);
    tiny_free(&f);
    hf_remove(cache);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_image),
    };

    if (kern_init(KERN_ISA_AUTO) != KERN_OK) {
        return 1;
    }

    return cmocka_run_group_tests(tests, NULL, NULL);
}
