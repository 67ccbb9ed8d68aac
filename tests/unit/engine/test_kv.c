/*
 * KV pages: a random life of sequences against a simple model of it; in the
 * end every page is back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "worker/engine/eng_kv.h"

#define SEQS   6u
#define PAGES  40u
#define CTX    320u

static uint32_t  rnd = 3;


static uint32_t
random_below(uint32_t n)
{
    rnd = rnd * 1664525u + 1013904223u;

    return (uint32_t) (((uint64_t) rnd * n) >> 32);
}


static void
setup(eng_kv_t *kv)
{
    eng_err_t   err;
    eng_plan_t  p;

    memset(&p, 0, sizeof(p));
    p.limits.max_seqs = SEQS;
    p.limits.ctx_len = CTX;
    p.limits.kv_pages = PAGES;
    p.limits.page_tokens = KERN_KV_PAGE;
    p.page_bytes = 4096;
    p.kv_bytes = p.page_bytes * PAGES;
    assert_int_equal(eng_kv_init(kv, &p, &err), 0);
}


/* References are what the tables hold; free pages are those without. */
static void
check(const eng_kv_t *kv, const uint32_t *held)
{
    uint32_t  refs[PAGES], i, j, n_free = 0;

    memcpy(refs, held, sizeof(refs));
    for (i = 0; i < SEQS; i++) {
        for (j = 0; j < kv->seq[i].n_pages; j++) {
            refs[kv->seq[i].page[j]]++;
            assert_ptr_equal(kv->seq[i].address[j],
                             kv->memory + kv->seq[i].page[j] * 4096u);
        }
    }
    for (i = 0; i < PAGES; i++) {
        assert_int_equal(refs[i], kv->refs[i]);
        n_free += refs[i] == 0;
    }
    assert_int_equal(n_free, kv->n_free);
}


static void
one_action(eng_kv_t *kv, uint32_t *held)
{
    int         rc;
    uint32_t    s = random_below(SEQS), d = random_below(SEQS), n, before;
    eng_seq_t  *q = &kv->seq[s];

    n = random_below(CTX + 1);
    before = kv->n_free;
    if (!q->open) {
        assert_int_equal(eng_kv_open(kv, &d), 0);
        return;
    }
    switch (random_below(6)) {
    case 0:
        eng_kv_close(kv, s);
        break;
    case 1:
        eng_kv_trim(kv, s, n);
        break;
    case 2:
        if (kv->seq[d].open) {
            rc = eng_kv_fork(kv, d, s, n);
            assert_true(rc == 0 || rc == ENG_EINVAL || rc == ENG_ENOKV);
            assert_true(rc == 0 || kv->n_free == before);
        }
        break;
    case 3:
        if (q->n_pages > 0) {
            n = q->page[random_below(q->n_pages)];
            eng_kv_ref(kv, n);
            held[n]++;
        }
        break;
    case 4:
        n = random_below(PAGES);
        if (held[n] > 0) {
            held[n]--;
            eng_kv_unref(kv, n);
        }
        break;
    default:
        rc = eng_kv_reserve(kv, s, n);
        assert_true(rc == 0 || (rc == ENG_ENOKV && kv->n_free == before));
        /* as a step would: only what is ours and follows without gap */
        if (rc == 0 && n > q->length
            && eng_kv_writable(kv, s, q->length, n - q->length))
        {
            q->length = n;
        }
    }
}


static void
test_random_life(void **state)
{
    uint32_t  i, n, held[PAGES] = { 0 };
    eng_kv_t  kv;

    (void) state;
    setup(&kv);
    for (i = 0; i < 100000; i++) {
        one_action(&kv, held);
        if (i % 64 == 0) {
            check(&kv, held);
        }
    }
    for (i = 0; i < SEQS; i++) {
        if (kv.seq[i].open) {
            eng_kv_close(&kv, i);
        }
    }
    for (i = 0; i < PAGES; i++) {
        for (n = held[i]; n > 0; n--) {
            eng_kv_unref(&kv, i);
        }
    }
    assert_int_equal(kv.n_free, PAGES);
    eng_kv_free(&kv);
}


static void
test_limits(void **state)
{
    uint32_t  i, s, t;
    eng_kv_t  kv;

    (void) state;
    setup(&kv);
    for (i = 0; i < SEQS; i++) {
        assert_int_equal(eng_kv_open(&kv, &s), 0);
        assert_int_equal(s, i);
    }
    assert_int_equal(eng_kv_open(&kv, &s), ENG_ENOSEQ);
    assert_int_equal(eng_kv_reserve(&kv, 0, CTX + 1), ENG_ELIMIT);
    for (i = 0; i < 4; i++) {
        assert_int_equal(eng_kv_reserve(&kv, i, CTX), 0);
    }
    assert_int_equal(kv.n_free, 0);
    assert_int_equal(eng_kv_reserve(&kv, 4, 1), ENG_ENOKV);
    eng_kv_trim(&kv, 1, 33);
    assert_int_equal(kv.n_free, 8);
    assert_int_equal(eng_kv_reserve(&kv, 4, 256), 0);
    assert_int_equal(eng_kv_reserve(&kv, 4, 257), ENG_ENOKV);

    /* shared pages are read-only, a position behind the end has a gap */
    eng_kv_close(&kv, 4);
    assert_true(eng_kv_writable(&kv, 0, 0, CTX));
    assert_false(eng_kv_writable(&kv, 0, 1, 1));
    kv.seq[0].length = 64;
    assert_int_equal(eng_kv_fork(&kv, 5, 0, 65), ENG_EINVAL);
    assert_int_equal(eng_kv_fork(&kv, 5, 0, 64), 0);
    assert_false(eng_kv_writable(&kv, 0, 63, 1));
    assert_true(eng_kv_writable(&kv, 0, 64, 1));
    t = kv.seq[0].page[0];
    assert_int_equal(kv.refs[t], 2);
    eng_kv_close(&kv, 0);
    assert_int_equal(kv.refs[t], 1);
    assert_true(eng_kv_writable(&kv, 5, 63, 1));
    assert_false(eng_kv_writable(&kv, 5, 64, 1));
    eng_kv_free(&kv);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_random_life),
        cmocka_unit_test(test_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
