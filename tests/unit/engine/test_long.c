/*
 * Contexts of several blocks of positions: the same bits whether blocks are
 * dealt to threads, taken in turn or met in chunks of a prompt.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/engine/tiny_gguf.h"
#include "worker/engine/eng.h"

#define LONG  1100u


static eng_model_t *
open_tiny(const tiny_file_t *f, eng_kvtype_t kv)
{
    char              path[64];
    eng_err_t         err;
    eng_model_t      *m;
    eng_model_opts_t  o = ENG_MODEL_OPTS_INIT;

    o.kv_type = kv;
    tiny_write(f->file.p, f->file.n, path);
    if (eng_model_open(path, &o, &m, &err) != 0) {
        fail_msg("%s", err.text);
    }
    unlink(path);

    return m;
}


/* A position beyond two blocks: with few heads and several threads, blocks
   are dealt out; one thread takes them in turn, and a chunk as well. */
static void
long_context(const tiny_model_t *c, eng_kvtype_t kv)
{
    eng_t           e;
    uint32_t        i, n, seq, threads;
    eng_tok_t       t[128];
    eng_err_t       err;
    eng_model_t    *m;
    tiny_file_t     f;
    const float    *l[128];
    static float    want[LONG][80];
    eng_ctx_opts_t  o = ENG_CTX_OPTS_INIT;

    tiny_build(&f, c);
    m = open_tiny(&f, kv);
    o.max_seqs = 1;
    o.max_batch_tokens = 128;
    o.max_logits = 128;
    for (threads = 1; threads <= 3; threads++) {
        o.threads = threads;
        o.spin = threads > 2 ? 100 : 0;
        assert_int_equal(eng_create(m, &o, &e, &err), 0);
        assert_int_equal(eng_seq_open(&e, &seq), 0);
        assert_int_equal(eng_seq_reserve(&e, seq, LONG), 0);
        for (i = 0; i < LONG; i += n) {
            /* one by one around the ends of blocks and at the end */
            n = threads == 1 || (i + 64 < 1020) ? 64 : 1;
            n = LONG - i < n ? LONG - i : n;
            for (uint32_t j = 0; j < n; j++) {
                t[j] = (eng_tok_t) { (i + j) * (i + j + 37) % 80, seq, i + j,
                                     1 };
            }
            assert_int_equal(eng_step(&e, t, n, l), 0);
            for (uint32_t j = 0; j < n; j++) {
                if (threads == 1) {
                    memcpy(want[i + j], l[j], 80 * sizeof(float));
                } else if (memcmp(want[i + j], l[j], 80 * 4) != 0) {
                    fail_msg("%u threads: position %u differs", threads,
                             i + j);
                }
            }
        }
        eng_destroy(&e);
    }
    eng_model_close(m);
    tiny_free(&f);
}


static void
test_types(void **state)
{
    tiny_model_t  c = TINY_LLAMA;

    (void) state;
    c.ctx = LONG;
    c.layers = 2;
    long_context(&c, ENG_KV_F16);
    long_context(&c, ENG_KV_Q8_0);
}


/* One kv head, and layers with a window between those without. */
static void
test_window(void **state)
{
    tiny_model_t  c = TINY_LLAMA;

    (void) state;
    c.ctx = LONG;
    c.layers = 3;
    c.arch = "gemma2";
    c.flags = TINY_GEMMA;
    c.heads_kv = 1;
    c.global_every = 2;
    c.softcap = 5.0f;
    long_context(&c, ENG_KV_F16);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_window),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
