/*
 * Models as a whole: what is refused and with which words, and the life of a
 * prepared image: cache file, memfd, damage.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <dirent.h>
#include <cmocka.h>

#include "tests/unit/engine/tiny_gguf.h"
#include "worker/engine/eng.h"

static tiny_file_t         good;
static char                model_path[64];
static const tiny_model_t  llama = TINY_LLAMA;


static uint8_t *
find_bytes(uint8_t *p, size_t n, const char *s)
{
    uint8_t  *q = memmem(p, n, s, strlen(s));

    assert_non_null(q);

    return q;
}


/* The good file with `from` replaced once by `to` of the same length. */
static void
refuse_edit(const char *from, const char *to, int code, const char *text)
{
    int               rc;
    char              path[64];
    uint8_t          *p = malloc(good.file.n);
    eng_err_t         err;
    eng_info_t        info;
    eng_ctx_opts_t    co = ENG_CTX_OPTS_INIT;
    eng_model_opts_t  mo = ENG_MODEL_OPTS_INIT;

    assert_int_equal(strlen(from), strlen(to));
    memcpy(p, good.file.p, good.file.n);
    memcpy(find_bytes(p, good.file.n, from), to, strlen(to));
    tiny_write(p, good.file.n, path);
    rc = eng_model_check(path, &mo, &co, &info, &err);
    unlink(path);
    free(p);
    assert_int_equal(rc, code);
    if (strstr(err.text, text) == NULL) {
        fail_msg("\"%s\" does not contain \"%s\"", err.text, text);
    }
}


static void
refuse_model(const tiny_model_t *c, int code, const char *text)
{
    int               rc;
    char              path[64];
    eng_err_t         err;
    eng_info_t        info;
    tiny_file_t       f;
    eng_ctx_opts_t    co = ENG_CTX_OPTS_INIT;
    eng_model_opts_t  mo = ENG_MODEL_OPTS_INIT;

    tiny_build(&f, c);
    tiny_write(f.file.p, f.file.n, path);
    rc = eng_model_check(path, &mo, &co, &info, &err);
    unlink(path);
    tiny_free(&f);
    assert_int_equal(rc, code);
    if (strstr(err.text, text) == NULL) {
        fail_msg("\"%s\" does not contain \"%s\"", err.text, text);
    }
}


static void
accept_model(const tiny_model_t *c)
{
    int               rc;
    char              path[64];
    eng_err_t         err;
    eng_info_t        info;
    tiny_file_t       f;
    eng_ctx_opts_t    co = ENG_CTX_OPTS_INIT;
    eng_model_opts_t  mo = ENG_MODEL_OPTS_INIT;

    tiny_build(&f, c);
    tiny_write(f.file.p, f.file.n, path);
    rc = eng_model_check(path, &mo, &co, &info, &err);
    unlink(path);
    tiny_free(&f);
    if (rc != 0) {
        fail_msg("%s", err.text);
    }
}


static void
test_refusals(void **state)
{
    tiny_model_t  c;

    (void) state;
    refuse_edit("blk.1.ffn_down.weight", "blk.1.ffn_dawn.weight", ENG_EFORMAT,
                "\"blk.1.ffn_down.weight\" is missing");
    refuse_edit("general.architecture", "general.architectura", ENG_EFORMAT,
                "\"general.architecture\" is missing");
    refuse_edit("llama.block_count", "llama.block_kount", ENG_EFORMAT,
                "\"llama.block_count\" is missing");
    refuse_edit("output_norm.weight", "outptu_norm.weight", ENG_EFORMAT,
                "\"output_norm.weight\" is missing");

    c = llama;
    c.arch = "mamba";
    refuse_model(&c, ENG_EUNSUP, "architecture \"mamba\" is not supported");
    c = llama;
    c.heads = 3;
    c.heads_kv = 2;
    refuse_model(&c, ENG_EUNSUP, "head counts must divide");
    c = llama;
    c.head_dim = 12;
    refuse_model(&c, ENG_EUNSUP, "multiples of 8");
    c = llama;
    c.ff = 48;
    refuse_model(&c, ENG_EUNSUP, "multiples of 32");
    c = llama;
    c.vocab = 1;                          /* special ids are 1 and 2         */
    refuse_model(&c, ENG_EFORMAT, "must be a token id below 1");
    c = llama;
    c.flags = TINY_POST;                  /* tensors a llama has no use for  */
    refuse_model(&c, ENG_EUNSUP, "has no place in the architecture");
}


/* Experts: counts and shapes that do not fit each other. */
static void
test_refused_experts(void **state)
{
    tiny_model_t        c;
    const tiny_model_t  moe = { .arch = "llama", .vocab = 80, .layers = 2,
        .embd = 64, .heads = 4, .heads_kv = 2, .head_dim = 16, .ff = 96,
        .ctx = 256, .seed = 1, .experts = 4, .used = 2 };

    (void) state;
    c = moe;
    accept_model(&c);
    c.arch = "qwen3moe";
    c.flags = TINY_QKNORM;
    accept_model(&c);

    c = moe;
    c.used = 5;
    refuse_model(&c, ENG_ELIMIT, "\"llama.expert_used_count\"");
    c.used = 0;
    refuse_model(&c, ENG_ELIMIT, "is 0, allowed are 1 to 4");
    c = moe;
    c.stored = 3;
    refuse_model(&c, ENG_EFORMAT, "\"blk.0.ffn_gate_exps.weight\" is 64 x 96 "
                 "x 3 x 1, the model's sizes ask for 64 x 96 x 4");
    c = moe;
    c.router = 5;
    refuse_model(&c, ENG_EFORMAT, "\"blk.0.ffn_gate_inp.weight\"");
    c = moe;
    c.ff_exp = 128;
    refuse_model(&c, ENG_EFORMAT, "\"blk.0.ffn_gate_exps.weight\"");
    c.ff_exp = 48;
    refuse_model(&c, ENG_EUNSUP, "multiples of 32");
    c.ff_exp = 0x7fffffff;
    refuse_model(&c, ENG_ELIMIT, "\"llama.expert_feed_forward_length\"");

    /* counts that only the key claims */
    c = moe;
    c.experts = 513;
    c.stored = c.router = 4;
    refuse_model(&c, ENG_ELIMIT, "is 513, allowed are 0 to 512");
    c.experts = UINT32_MAX;
    refuse_model(&c, ENG_ELIMIT, "\"llama.expert_count\"");
    c.experts = 512;
    refuse_model(&c, ENG_EFORMAT, "\"blk.0.ffn_gate_inp.weight\"");
    c.ff_exp = 65536;
    refuse_model(&c, ENG_EUNSUP, "512 experts of 65536");

    /* a dense file for an architecture of experts, and the other way */
    c = moe;
    c.arch = "qwen3moe";
    c.experts = 0;
    refuse_model(&c, ENG_ELIMIT, "\"qwen3moe.expert_count\"");
    c = moe;
    c.arch = "qwen3";
    refuse_model(&c, ENG_EUNSUP, "experts are not supported");
}


/* Sizes in the keys that contradict the tensors, one byte at a time. */
static void
test_contradictions(void **state)
{
    static const char *const  keys[] = {
        "llama.block_count", "llama.embedding_length",
        "llama.feed_forward_length", "llama.attention.head_count",
        "llama.attention.head_count_kv", "llama.attention.key_length",
    };
    static const uint32_t     values[] = {
        0, 1, 2, 7, 31, 32, 33, 128, 65536, 0x7fffffff, 0x80000000,
        0xffffffff
    };

    int               rc;
    char              path[64];
    size_t            i, j;
    uint8_t          *p = malloc(good.file.n), *at;
    uint32_t          old;
    eng_err_t         err;
    eng_info_t        info;
    eng_ctx_opts_t    co = ENG_CTX_OPTS_INIT;
    eng_model_opts_t  mo = ENG_MODEL_OPTS_INIT;

    (void) state;
    for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        for (j = 0; j < sizeof(values) / sizeof(values[0]); j++) {
            memcpy(p, good.file.p, good.file.n);
            at = find_bytes(p, good.file.n, keys[i]) + strlen(keys[i]) + 4;
            memcpy(&old, at, 4);
            if (old == values[j]) {
                continue;
            }
            memcpy(at, &values[j], 4);
            tiny_write(p, good.file.n, path);
            rc = eng_model_check(path, &mo, &co, &info, &err);
            unlink(path);
            if (rc >= 0) {
                fail_msg("%s = %u was accepted", keys[i], values[j]);
            }
        }
    }
    free(p);
}


static void
limit(eng_ctx_opts_t co, int code, const char *text)
{
    eng_err_t         err = { 0, "" };
    eng_info_t        info;
    eng_model_opts_t  mo = ENG_MODEL_OPTS_INIT;

    assert_int_equal(eng_model_check(model_path, &mo, &co, &info, &err),
                     code);
    assert_true(strstr(err.text, text) != NULL);
}


static void
test_plan(void **state)
{
    eng_err_t             err;
    eng_info_t            info;
    eng_ctx_opts_t        co = ENG_CTX_OPTS_INIT;
    eng_model_opts_t      mo = ENG_MODEL_OPTS_INIT;
    const eng_ctx_opts_t  init = ENG_CTX_OPTS_INIT;

    (void) state;
    assert_int_equal(eng_model_check(model_path, &mo, &co, &info, &err), 0);
    assert_string_equal(info.arch, "llama");
    assert_string_equal(info.name, "tiny");
    assert_int_equal(info.types, 1);
    assert_string_equal(info.type[0].name, "F32");
    assert_int_equal(info.type[0].tensors, good.n);
    assert_int_equal(info.ctx_len, 256);
    /* 2 kv heads x 16 values x 2 bytes, keys and values, 3 layers */
    assert_int_equal(info.kv_bytes_per_token, 2 * 16 * 2 * 2 * 3);
    assert_int_equal(info.kv_bytes, 16 * 256 * info.kv_bytes_per_token);
    assert_int_equal(info.eos_id, 2);
    assert_int_equal(info.eot_id, UINT32_MAX);

    co.ctx_len = 256;
    limit(co, 0, "");
    co.ctx_len = 257;
    limit(co, ENG_ELIMIT, "257 positions: the model was made for 256");
    co = init;
    co.kv_bytes = 256 * info.kv_bytes_per_token;
    limit(co, 0, "");
    co.kv_bytes--;
    limit(co, ENG_ELIMIT, "raise the budget or lower the context");
    co = init;
    co.max_seqs = 0;
    limit(co, ENG_ELIMIT, "sequences");
    co.max_seqs = ENG_SEQS_MAX + 1;
    limit(co, ENG_ELIMIT, "sequences");
    co = init;
    co.max_batch_tokens = ENG_BATCH_MAX + 1;
    limit(co, ENG_ELIMIT, "tokens per step");
    co = init;
    co.threads = ENG_THREADS_MAX + 1;
    limit(co, ENG_ELIMIT, "threads");

    mo.kv_type = ENG_KV_Q8_0;
    assert_int_equal(eng_model_check(model_path, &mo, &init, &info, &err), 0);
    /* 2 kv heads x (16 + 2 bytes of the scale), keys and values, 3 layers */
    assert_int_equal(info.kv_bytes_per_token, 2 * 18 * 2 * 3);
    mo.kv_type = ENG_KV_F16;
    mo.kern_level = "mmx";
    assert_int_equal(eng_model_check(model_path, &mo, &init, &info, &err),
                     ENG_EINVAL);
}


/* ---- images ------------------------------------------------------------- */

/* Logits of a few tokens, and where the weights came from. */
static void
run(const eng_model_opts_t *mo, float *out, const char *origin)
{
    int             rc;
    eng_t           e;
    uint32_t        seq, i;
    eng_err_t       err;
    eng_tok_t       t[4];
    const float    *l[4];
    eng_model_t    *m;
    eng_ctx_opts_t  co = ENG_CTX_OPTS_INIT;

    rc = eng_model_open(model_path, mo, &m, &err);
    if (rc != 0) {
        fail_msg("%s", err.text);
    }
    assert_string_equal(eng_model_origin(m), origin);
    assert_int_equal(eng_create(m, &co, &e, &err), 0);
    assert_int_equal(eng_seq_open(&e, &seq), 0);
    assert_int_equal(eng_seq_reserve(&e, seq, 4), 0);
    for (i = 0; i < 4; i++) {
        t[i] = (eng_tok_t) { 3 + i, seq, i, i == 3 };
    }
    assert_int_equal(eng_step(&e, t, 4, l), 0);
    memcpy(out, l[3], llama.vocab * sizeof(float));
    eng_destroy(&e);
    eng_model_close(m);
}


static void
cache_file(const char *dir, char *path, size_t cap)
{
    int             n = 0;
    DIR            *d = opendir(dir);
    struct dirent  *e;

    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        if (e->d_name[0] != '.') {
            snprintf(path, cap, "%s/%s", dir, e->d_name);
            n++;
        }
    }
    closedir(d);
    assert_int_equal(n, 1);
}


/* One image, the changed model's: nothing temporary, nothing of before. */
static void
remove_cache(const char *dir)
{
    int             n = 0;
    DIR            *d = opendir(dir);
    struct dirent  *e;

    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        if (e->d_name[0] != '.') {
            assert_int_equal(unlinkat(dirfd(d), e->d_name, 0), 0);
            n++;
        }
    }
    closedir(d);
    assert_int_equal(n, 1);
    assert_int_equal(rmdir(dir), 0);
}


static void
damage(const char *path, off_t at, uint8_t with)
{
    int  fd = open(path, O_RDWR);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, &with, 1, at), 1);
    close(fd);
}


static void
test_cache(void **state)
{
    char              dir[64] = "/tmp/infer-cache-XXXXXX", path[600];
    float             first[128], again[128];
    struct stat       st;
    eng_model_opts_t  mo = ENG_MODEL_OPTS_INIT;
    const char *const packed = "packed from the model file";

    (void) state;
    assert_non_null(mkdtemp(dir));
    run(&mo, first, packed);
    mo.cache_dir = dir;
    run(&mo, again, packed);
    assert_memory_equal(first, again, 80 * 4);
    run(&mo, again, "cache file");
    assert_memory_equal(first, again, 80 * 4);
    cache_file(dir, path, sizeof(path));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);

    /* damage in the header, in the data, a cut: made again each time */
    damage(path, 20, 0x55);
    run(&mo, again, packed);
    run(&mo, again, "cache file");
    damage(path, 4096 + 777, 0x55);
    run(&mo, again, packed);
    assert_memory_equal(first, again, 80 * 4);
    assert_int_equal(truncate(path, 5000), 0);
    run(&mo, again, packed);
    run(&mo, again, "cache file");
    assert_memory_equal(first, again, 80 * 4);

    /* the model file changed: the image is of another */
    damage(model_path, (off_t) good.file.n - 1, 0x01);
    run(&mo, again, packed);
    unlink(model_path);
    tiny_write(good.file.p, good.file.n, model_path);

    /* no such directory: works, without a cache */
    mo.cache_dir = "/nonexistent/dir";
    run(&mo, again, packed);
    assert_memory_equal(first, again, 80 * 4);
    remove_cache(dir);
}


static void
test_memfd(void **state)
{
    int               status, fd = memfd_create("t", MFD_CLOEXEC);
    float             first[128], again[128];
    pid_t             pid;
    eng_err_t         err;
    struct stat       st;
    eng_model_t      *m;
    eng_model_opts_t  mo = ENG_MODEL_OPTS_INIT;

    (void) state;
    run(&mo, first, "packed from the model file");
    mo.prepared_fd = fd;
    run(&mo, again, "packed from the model file");
    assert_memory_equal(first, again, 80 * 4);
    run(&mo, again, "memfd");
    assert_memory_equal(first, again, 80 * 4);

    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        run(&mo, again, "memfd");
        _exit(memcmp(first, again, 80 * 4) == 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);

    /* a filler that died half-way: no header yet */
    assert_int_equal(pwrite(fd, "\0\0\0\0", 4, 0), 4);
    run(&mo, again, "packed from the model file");
    assert_memory_equal(first, again, 80 * 4);

    /* another image's memfd is left alone */
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(ftruncate(fd, st.st_size + 4096), 0);
    assert_int_equal(eng_model_open(model_path, &mo, &m, &err), ENG_EINVAL);
    close(fd);
}


int
main(void)
{
    int                      rc;
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_refused_experts),
        cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_plan),
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_memfd),
    };

    tiny_build(&good, &llama);
    tiny_write(good.file.p, good.file.n, model_path);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(model_path);
    tiny_free(&good);

    return rc;
}
