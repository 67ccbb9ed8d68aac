/*
 * Conversion: a GGUF file stays the same byte for byte, a folder becomes a
 * file with the same logits, quantised files equal models quantised when they
 * are loaded, and nothing is left of a conversion that fails.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/unit/engine/tiny_gguf.h"
#include "tests/unit/engine/tiny_hf.h"
#include "tokenizer/tok.h"
#include "worker/engine/eng.h"
#include "worker/engine/eng_convert.h"

#define GOLDEN  "tests/golden/engine/hf.jsonl"

#define TOKENIZER \
    "{\"version\":\"1.0\",\"added_tokens\":[],\"normalizer\":null,"          \
    "\"pre_tokenizer\":null,\"post_processor\":null,\"decoder\":null,"       \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2,"        \
    "\"d\":3},\"merges\":[]}}"

static char      dir[64], out[96];
static const char  *change_path;    /* after the first tensor: */
static off_t        change_bytes;   /* its new size, or 0: written again */
static uint32_t  n_tensors, n_changed;
static double    worst;


static void
count(void *arg, const eng_convert_tensor_t *t)
{
    assert_ptr_equal(arg, dir);
    n_tensors++;
    if (change_path != NULL && change_bytes > 0) {
        assert_int_equal(truncate(change_path, change_bytes), 0);
    } else if (change_path != NULL) {
        assert_int_equal(utimensat(AT_FDCWD, change_path,
                                   (struct timespec[2]) { { 1, 0 },
                                                          { 1, 0 } }, 0), 0);
    }
    change_path = NULL;
    n_changed += strcmp(t->from, t->to) != 0;
    worst = t->rms > worst ? t->rms : worst;
    assert_true(t->done <= t->total);
}


static int
convert(const char *src, const char *quantize, eng_err_t *err)
{
    eng_convert_sink_t  sink = { count, dir };

    n_tensors = n_changed = 0;
    worst = 0;

    return eng_convert(src, out, quantize, &sink, err);
}


static void
logits_of(const char *path, const char *quantize, float *dst, uint32_t n)
{
    int               rc;
    eng_t             e;
    uint32_t          seq, i;
    eng_err_t         err;
    eng_tok_t         t[8];
    const float      *l[8];
    eng_model_t      *m;
    eng_ctx_opts_t    co = ENG_CTX_OPTS_INIT;
    eng_model_opts_t  mo = ENG_MODEL_OPTS_INIT;

    mo.quantize = quantize;
    rc = eng_model_open(path, &mo, &m, &err);
    if (rc != 0) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(eng_create(m, &co, &e, &err), 0);
    assert_int_equal(eng_seq_open(&e, &seq), 0);
    assert_int_equal(eng_seq_reserve(&e, seq, 8), 0);
    for (i = 0; i < 8; i++) {
        t[i] = (eng_tok_t) { 3 + i, seq, i, i == 7 };
    }
    assert_int_equal(eng_step(&e, t, 8, l), 0);
    memcpy(dst, l[7], n * sizeof(float));
    eng_destroy(&e);
    eng_model_close(m);
}


static void
test_same(void **state)
{
    char          path[64];
    FILE         *f;
    float         a[80], b[80];
    uint8_t      *copy;
    eng_err_t     err;
    tiny_file_t   file;
    tiny_model_t  c = TINY_LLAMA;

    (void) state;
    tiny_build(&file, &c);
    tiny_write(file.file.p, file.file.n, path);
    if (convert(path, NULL, &err) != 0) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(n_tensors, file.n);
    assert_int_equal(n_changed, 0);
    copy = malloc(file.file.n + 1);
    f = fopen(out, "rb");
    assert_non_null(f);
    assert_int_equal(fread(copy, 1, file.file.n + 1, f), file.file.n);
    fclose(f);
    assert_memory_equal(copy, file.file.p, file.file.n);
    free(copy);

    assert_int_equal(convert(path, NULL, &err), ENG_EIO);
    assert_non_null(strstr(err.text, "exists already"));
    assert_int_equal(unlink(out), 0);

    assert_int_equal(convert(path, "q5_1", &err), 0);
    assert_int_equal(n_changed, 3 * 7 + 1);
    assert_true(worst > 0.001 && worst < 0.05);
    logits_of(path, "q5_1", a, 80);
    logits_of(out, NULL, b, 80);
    assert_memory_equal(a, b, sizeof(a));
    assert_int_equal(unlink(out), 0);
    unlink(path);
    tiny_free(&file);
}


static void
test_refused(void **state)
{
    char          path[64];
    float         nan = NAN;
    eng_err_t     err;
    tiny_file_t   file;
    tiny_model_t  c = TINY_LLAMA;

    (void) state;
    tiny_build(&file, &c);
    memcpy(file.file.p + file.file.n - 4, &nan, 4);
    tiny_write(file.file.p, file.file.n, path);
    assert_int_equal(convert(path, "q4_0", &err), ENG_EFORMAT);
    assert_non_null(strstr(err.text, "not finite"));
    assert_int_equal(access(out, F_OK), -1);
    assert_int_equal(convert(path, "q3_0", &err), ENG_EINVAL);
    assert_int_equal(convert("/nonexistent", "q4_0", &err), ENG_EIO);
    unlink(path);
    tiny_free(&file);
}


static void
check_tokenizer(const char *path)
{
    size_t           n;
    tok_t           *t;
    tok_err_t        err;
    const uint32_t  *eos;

    if (tok_open(&t, path, &err) != 0) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(tok_token_to_id(t, "c", 1), 2);
    assert_int_equal(tok_chat_template(t).len, 8);
    assert_memory_equal(tok_chat_template(t).ptr, "template", 8);
    eos = tok_eos_all(t, &n);
    assert_int_equal(n, 2);
    assert_int_equal(eos[0], 1);
    assert_int_equal(eos[1], 3);
    tok_close(t);
}


/* Every family: the order of rotated rows, norms, factors of frequencies. */
static void
test_folders(void **state)
{
    char       *line = NULL, folder[96];
    FILE       *f = fopen(GOLDEN, "r");
    cJSON      *c;
    float       a[64], b[64];
    size_t      cap = 0;
    uint32_t    n = 0;
    eng_err_t   err;

    (void) state;
    assert_non_null(f);
    snprintf(folder, sizeof(folder), "%s/hf", dir);
    while (getline(&line, &cap, f) > 0) {
        c = cJSON_Parse(line);
        assert_non_null(c);
        hf_write(folder, c, NULL, NULL);
        hf_put(folder, "tokenizer.json", TOKENIZER, strlen(TOKENIZER));
        hf_put(folder, "chat_template.jinja", "template", 8);
        hf_put(folder, "generation_config.json", "{\"eos_token_id\":[3,1]}",
               22);
        if (convert(folder, NULL, &err) != 0) {
            fail_msg("%s", err.text);
        }
        logits_of(folder, NULL, a, 64);
        logits_of(out, NULL, b, 64);
        assert_memory_equal(a, b, sizeof(a));
        check_tokenizer(folder);
        check_tokenizer(out);
        assert_int_equal(unlink(out), 0);

        assert_int_equal(convert(folder, "q8_0", &err), 0);
        assert_true(n_changed > 0);
        logits_of(folder, "q8_0", a, 64);
        logits_of(out, NULL, b, 64);
        assert_memory_equal(a, b, sizeof(a));
        assert_int_equal(unlink(out), 0);
        hf_remove(folder);
        cJSON_Delete(c);
        n++;
    }
    assert_true(n >= 9);
    free(line);
    fclose(f);
}


/* Another program cuts or writes the source meanwhile: an error, no file. */
static void
test_changed(void **state)
{
    char          path[64];
    eng_err_t     err;
    tiny_file_t   file;
    tiny_model_t  c = TINY_LLAMA;

    (void) state;
    tiny_build(&file, &c);
    tiny_write(file.file.p, file.file.n, path);

    change_path = path;
    change_bytes = 0;
    assert_int_equal(convert(path, NULL, &err), ENG_EIO);
    assert_non_null(strstr(err.text, "changed"));
    assert_int_equal(access(out, F_OK), -1);

    change_path = path;
    change_bytes = (off_t) file.file.n - 1000;
    assert_int_equal(convert(path, NULL, &err), ENG_EIO);
    assert_non_null(strstr(err.text, "did it change"));
    assert_int_equal(access(out, F_OK), -1);

    unlink(path);
    tiny_free(&file);
}


int
main(void)
{
    int                      rc;
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_changed),
        cmocka_unit_test(test_folders),
    };

    memcpy(dir, "/tmp/infer-conv-XXXXXX", 23);
    if (mkdtemp(dir) == NULL) {
        return 1;
    }
    snprintf(out, sizeof(out), "%s/out.gguf", dir);
    rc = cmocka_run_group_tests(tests, NULL, NULL);

    return rmdir(dir) != 0 && rc == 0 ? 1 : rc;
}
