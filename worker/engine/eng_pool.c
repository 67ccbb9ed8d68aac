/*
 * The thread pool: one gate that starts a run, one barrier inside it.
 * Both are a generation number that waiters watch; the number's change is the
 * release that publishes what happened before it.
 */
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "worker/engine/eng.h"
#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_pool.h"

/* A line each, because everybody spins on them. */
typedef struct {
    _Alignas(64) _Atomic uint32_t  generation;
    _Alignas(64) _Atomic uint32_t  sleepers;
} gate_t;

typedef struct {
    eng_pool_t  *pool;
    uint32_t     thread;
    pthread_t    tid;
} member_t;

struct eng_pool {
    gate_t                         start;
    gate_t                         barrier;
    _Alignas(64) _Atomic uint32_t  arrived;
    _Alignas(64) _Atomic uint32_t  parked;
    uint32_t                       threads;
    uint32_t                       running;    /* made, without the caller   */
    uint32_t                       spin;
    int                            stop;       /* published by start         */
    eng_pool_fn_t                  fn;         /* the same                   */
    void                          *arg;
    member_t                       member[ENG_THREADS_MAX];
};

#define POOL_LOOK_NS  250000

static void *pool_thread(void *arg);
static void gate_wait(eng_pool_t *p, gate_t *g, uint32_t seen);
static void gate_open(gate_t *g);
static void let_others_run(void);


static void
pin(pthread_t tid, int cpu)
{
    cpu_set_t  set;

    CPU_ZERO(&set);
    if (cpu >= 0 && cpu < CPU_SETSIZE) {
        CPU_SET((unsigned) cpu, &set);
        /* a CPU that is not ours leaves the thread where it may run */
        (void) pthread_setaffinity_np(tid, sizeof(set), &set);
    }
}


eng_pool_t *
eng_pool_create(uint32_t threads, uint32_t spin, const int *cpus)
{
    uint32_t     i;
    eng_pool_t  *p;

    eng_assert(threads >= 1 && threads <= ENG_THREADS_MAX);

    p = aligned_alloc(64, (sizeof(*p) + 63) / 64 * 64);
    if (p == NULL) {
        return NULL;
    }
    *p = (eng_pool_t) { .threads = threads, .spin = spin };

    if (cpus != NULL) {
        pin(pthread_self(), cpus[0]);
    }
    for (i = 1; i < threads; i++) {
        p->member[i].pool = p;
        p->member[i].thread = i;
        if (pthread_create(&p->member[i].tid, NULL, pool_thread,
                           &p->member[i]) != 0)
        {
            eng_pool_destroy(p);
            return NULL;
        }
        p->running++;
        if (cpus != NULL) {
            pin(p->member[i].tid, cpus[i]);
        }
    }

    return p;
}


void
eng_pool_destroy(eng_pool_t *p)
{
    uint32_t  i;

    p->stop = 1;
    gate_open(&p->start);
    for (i = 1; i <= p->running; i++) {
        (void) pthread_join(p->member[i].tid, NULL);
    }
    free(p);
}


void
eng_pool_run(eng_pool_t *p, eng_pool_fn_t fn, void *arg)
{
    p->fn = fn;
    p->arg = arg;
    if (p->threads > 1) {
        atomic_store_explicit(&p->parked, 0, memory_order_relaxed);
        gate_open(&p->start);
    }
    fn(arg, 0);
    eng_pool_barrier(p);
}


void
eng_pool_park(eng_pool_t *p)
{
    /* relaxed: a hint to spinning threads, nothing depends on it */
    atomic_store_explicit(&p->parked, 1, memory_order_relaxed);
}


static void *
pool_thread(void *arg)
{
    uint32_t     seen = 0;
    member_t    *m = arg;
    eng_pool_t  *p = m->pool;

    for ( ;; ) {
        gate_wait(p, &p->start, seen);
        seen++;
        if (p->stop) {
            return NULL;
        }
        p->fn(p->arg, m->thread);
        eng_pool_barrier(p);
    }
}


void
eng_pool_barrier(eng_pool_t *p)
{
    uint32_t  seen;

    let_others_run();
    if (p->threads == 1) {
        return;
    }

    /* Nobody can open this generation before we arrive: the load is not
       ordered with anything. */
    seen = atomic_load_explicit(&p->barrier.generation, memory_order_relaxed);

    /* acq_rel: the last to arrive sees what all others wrote before */
    if (atomic_fetch_add_explicit(&p->arrived, 1, memory_order_acq_rel) + 1
        == p->threads)
    {
        /* relaxed: published by gate_open() */
        atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
        gate_open(&p->barrier);
        return;
    }

    gate_wait(p, &p->barrier, seen);
}


/*
 * A process that was woken while we compute gets the CPU when the kernel looks
 * again: where another CPU woke it, that may be at the next tick, 4 ms later.
 * Any system call makes it look earlier and costs 0.1 us.  Not sched_yield():
 * that gives up all of the slice that is left, and beside one busy program on
 * the same CPU we would get 9 % of it (measured; with a long slice nothing)
 * instead of half.
 */
static void
let_others_run(void)
{
    uint64_t                       now;
    struct timespec                ts;
    static _Thread_local uint64_t  last;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);
    now = (uint64_t) ts.tv_sec * 1000000000 + (uint64_t) ts.tv_nsec;
    if (now - last >= POOL_LOOK_NS) {
        last = now;
        (void) syscall(SYS_getpid);
    }
}


static inline void
pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory");
#endif
}


/* Until the generation is no longer `seen`. */
static void
gate_wait(eng_pool_t *p, gate_t *g, uint32_t seen)
{
    uint32_t  i;

    for (i = 0; i < p->spin; i++) {
        /* acquire: pairs with gate_open() */
        if (atomic_load_explicit(&g->generation, memory_order_acquire)
            != seen)
        {
            return;
        }
        if (atomic_load_explicit(&p->parked, memory_order_relaxed)) {
            break;
        }
        pause_cpu();
    }

    /* seq_cst: either gate_open() sees us in sleepers, or the kernel sees its
       new generation and does not sleep */
    (void) atomic_fetch_add_explicit(&g->sleepers, 1, memory_order_seq_cst);
    while (atomic_load_explicit(&g->generation, memory_order_seq_cst)
           == seen)
    {
        (void) syscall(SYS_futex, &g->generation, FUTEX_WAIT_PRIVATE, seen,
                       NULL, NULL, 0);
    }
    (void) atomic_fetch_sub_explicit(&g->sleepers, 1, memory_order_relaxed);
}


static void
gate_open(gate_t *g)
{
    /* seq_cst: release for gate_wait()'s acquire, and ordered before the look
       at sleepers */
    (void) atomic_fetch_add_explicit(&g->generation, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&g->sleepers, memory_order_seq_cst) > 0) {
        (void) syscall(SYS_futex, &g->generation, FUTEX_WAKE_PRIVATE,
                       INT32_MAX, NULL, NULL, 0);
    }
}
