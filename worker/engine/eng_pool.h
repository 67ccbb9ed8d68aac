/*
 * A few threads that run one function together, with barriers inside it.
 *
 * The caller is thread 0.  Waiting is a bounded spin of pause instructions,
 * then a futex: measured, anything else loses (sched_yield by an order of
 * magnitude when cores are shared, a bare futex by half when they are not).
 * Between runs the threads sleep in the kernel.
 */
#ifndef ENG_POOL_H
#define ENG_POOL_H

#include <stdatomic.h>
#include <stdint.h>

typedef struct eng_pool eng_pool_t;
typedef void (*eng_pool_fn_t)(void *arg, uint32_t thread);

/* cpus: NULL or one CPU number per thread.  NULL when a thread or memory
   cannot be had. */
eng_pool_t *eng_pool_create(uint32_t threads, uint32_t spin,
    const int *cpus);
void eng_pool_destroy(eng_pool_t *p);

/* fn(arg, t) on every thread t; returns when all have returned. */
void eng_pool_run(eng_pool_t *p, eng_pool_fn_t fn, void *arg);

/* Inside fn only, by every thread: writes before it are seen after it. */
void eng_pool_barrier(eng_pool_t *p);

/* Ends the spinning of waiting threads until the next run. */
void eng_pool_park(eng_pool_t *p);

#endif
