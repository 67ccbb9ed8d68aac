/*
 * The scheduler allocates nothing once it is warm: malloc and its family are
 * counted from the first token of a request to its last.  Sanitizers bring
 * their own malloc: skipped there.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/unit/sched/fake_run.h"


#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

int
main(void)
{
    printf("counts of malloc mean nothing under a sanitizer\n");
    return 77;
}


#else

static uint64_t  allocations;

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);


__attribute__((visibility("default"))) void *
malloc(size_t n)
{
    allocations++;
    return __libc_malloc(n);
}


__attribute__((visibility("default"))) void *
calloc(size_t n, size_t size)
{
    allocations++;
    return __libc_calloc(n, size);
}


__attribute__((visibility("default"))) void *
realloc(void *p, size_t n)
{
    allocations++;
    return __libc_realloc(p, n);
}


__attribute__((visibility("default"))) void *
aligned_alloc(size_t align, size_t n)
{
    allocations++;
    return __libc_memalign(align, n);
}


static sink_t   sinks[6];
static block_t  block;


static void
submit_some(run_t *run)
{
    uint32_t  i;

    for (i = 0; i < 6; i++) {
        block_fields(&block.fixed, SHR_TASK_COMPLETE);
        block.fixed.max_tokens = 60;
        block.fixed.flags = SHR_REQ_SEED | (i % 2 ? SHR_REQ_LOGPROBS : 0);
        block.fixed.top_logprobs = 5;
        block.fixed.n = 1 + i % 3;
        block.fixed.temperature = (float) i * 0.3f;
        block.fixed.top_p = 0.9f;
        block.fixed.frequency_penalty = 0.5f;
        block_begin(&block);
        shr_req_add(&block.w, SHR_R_PROMPT, "the same length each time", 25);
        shr_req_add(&block.w, SHR_R_STOP, "zzzz", 4);
        block_end(&block);
        sink_init(&sinks[i], 1 << 16);
        run_submit(run, &block, &sinks[i]);
    }
}


static void
test_counted(void **state)
{
    uint32_t     i;
    uint64_t     before;
    /* through a pointer: the compiler drops what it sees through */
    void        *(*volatile get)(size_t n) = malloc;
    static run_t run;
    sink_t      *all[6];

    (void) state;

    for (i = 0; i < 6; i++) {
        all[i] = &sinks[i];
    }

    before = allocations;
    free(get(10));
    assert_int_equal(allocations, before + 1);

    run_open(&run, 4, 256, 32, 40);
    submit_some(&run);
    run_all(&run, all, 6);

    /* warm: the tokenizer has met texts of this length */
    before = allocations;
    submit_some(&run);
    run_all(&run, all, 6);
    assert_int_equal(allocations, before);

    for (i = 0; i < 6; i++) {
        assert_int_equal(sinks[i].done, 1);
        assert_int_equal(sinks[i].error, 0);
    }

    run_close(&run);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
