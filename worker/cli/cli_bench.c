/*
 * infer bench: tokens per second of this machine with a model, picking the
 * best token included.  "prompt" N: N tokens of one sequence from nothing;
 * "generate" S: S sequences at once, one token each per step.  Medians.
 */

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "worker/cli/cli.h"
#include "worker/cli/cli_model.h"
#include "worker/engine/eng.h"
#include "worker/kernels/kern.h"

#define NAME         "bench"
#define BATCH        512u
#define SEQS         16u
#define START        32u          /* positions before generation is timed    */
#define STEPS        64u
#define ROUNDS_MAX   101
#define PING_ROUNDS  2000u
#define READ_BYTES   ((size_t) 256 << 20)
#define READ_ROUNDS  3

static const char  usage_text[] =
    "usage: infer bench -m MODEL [-t THREADS] [--rounds N] [--cache DIR] "
    CLI_MODEL_USAGE " [--cpu-time] [--json]\n";

static const uint32_t  prompts[] = { 128, 512 };
static const uint32_t  generates[] = { 1, 4, 16 };

typedef struct {
    eng_t     e;
    long      threads;
    long      rounds;
    int       json;
    double    load_ms;
    double    ping_us;
    double    read_gbs;           /* memory, all threads together            */
    double    read_share;         /* of it that one sequence uses            */
    double    prompt[2];
    double    generate[3];
} bench_t;


/* Of what all figures are seconds: the wall clock, or with --cpu-time what
   the process used of its CPUs, which says something on a busy machine too
   (with one thread: others wait by spinning). */
static clockid_t  clock_id = CLOCK_MONOTONIC;


static double
now_s(void)
{
    struct timespec  ts;

    (void) clock_gettime(clock_id, &ts);

    return (double) ts.tv_sec + (double) ts.tv_nsec * 1e-9;
}


static int
compare(const void *a, const void *b)
{
    double  x = *(const double *) a, y = *(const double *) b;

    return (x > y) - (x < y);
}


static double
median(double *v, long n)
{
    qsort(v, (size_t) n, sizeof(v[0]), compare);

    return v[n / 2];
}


/* ---- cache line ping-pong: which placement the two CPUs have now --------- */

static void *
pong(void *arg)
{
    uint32_t           i;
    _Atomic uint32_t  *line = arg;

    for (i = 0; i < PING_ROUNDS; i++) {
        while (atomic_load_explicit(line, memory_order_acquire)
               != 2 * i + 1)
        {
        }
        atomic_store_explicit(line, 2 * i + 2, memory_order_release);
    }

    return NULL;
}


static double
ping_us(void)
{
    double                         t;
    uint32_t                       i;
    pthread_t                      tid;
    static _Alignas(128) _Atomic uint32_t  line;

    atomic_store_explicit(&line, 0, memory_order_relaxed);
    if (pthread_create(&tid, NULL, pong, (void *) &line) != 0) {
        return 0;
    }
    t = now_s();
    for (i = 0; i < PING_ROUNDS; i++) {
        if (i == PING_ROUNDS / 4) {
            t = now_s();          /* the other thread runs by now */
        }
        atomic_store_explicit(&line, 2 * i + 1, memory_order_release);
        while (atomic_load_explicit(&line, memory_order_acquire)
               != 2 * i + 2)
        {
        }
    }
    t = now_s() - t;
    (void) pthread_join(tid, NULL);

    return t * 1e6 / (PING_ROUNDS - PING_ROUNDS / 4);
}


/* ---- memory: what all threads together read ------------------------------ */

typedef struct {
    const uint64_t  *at;
    size_t           words;
    uint64_t         sum;
} read_t;


static void *
read_part(void *arg)
{
    size_t   i;
    read_t  *r = arg;

    for (i = 0; i < r->words; i += 8) {
        __builtin_prefetch(r->at + i + 512, 0, 3);
        r->sum += r->at[i];       /* one word of each line                   */
    }

    return NULL;
}


/* GB/s in huge pages where the system gives them, as weights have them; 0 if
   there is no memory for it.  The best of some rounds: a limit. */
static double
read_gbs(uint32_t threads)
{
    double     t, best = 0;
    uint32_t   i, r, n;
    read_t     part[ENG_THREADS_MAX];
    uint64_t  *p;
    pthread_t  tid[ENG_THREADS_MAX];

    p = mmap(NULL, READ_BYTES + 4096, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        return 0;
    }
    (void) madvise(p, READ_BYTES + 4096, MADV_HUGEPAGE);
    memset(p, 1, READ_BYTES + 4096);

    for (r = 0; r < READ_ROUNDS; r++) {
        t = now_s();
        for (i = 0, n = 0; i < threads; i++) {
            part[i] = (read_t) { p + READ_BYTES / 8 / threads / 8 * 8 * i,
                                 READ_BYTES / 8 / threads / 8 * 8, 0 };
            if (i + 1 == threads) {
                (void) read_part(&part[i]);
            } else if (pthread_create(&tid[n], NULL, read_part, &part[i])
                       == 0)
            {
                n++;
            } else {
                (void) read_part(&part[i]);
            }
        }
        for (i = 0; i < n; i++) {
            (void) pthread_join(tid[i], NULL);
        }
        t = now_s() - t;
        best = (double) READ_BYTES / t * 1e-9 > best
               ? (double) READ_BYTES / t * 1e-9 : best;
    }
    (void) munmap(p, READ_BYTES + 4096);

    return best;
}


/* ---- the two measurements ------------------------------------------------ */

static uint32_t
some_token(const bench_t *b, uint32_t i)
{
    return (uint32_t) (((uint64_t) i * 2654435761u + 12345u)
                       % b->e.limits.vocab);
}


/* Feeds n tokens; the last one's best continuation or UINT32_MAX. */
static uint32_t
feed(bench_t *b, uint32_t seq, uint32_t n)
{
    uint32_t      i, m = 1, at;
    eng_tok_t     tok[BATCH];
    const float  *logits[BATCH];

    for (at = 0; at < n; at += m) {
        m = n - at < BATCH ? n - at : BATCH;
        for (i = 0; i < m; i++) {
            tok[i] = (eng_tok_t) { some_token(b, at + i), seq, at + i,
                                   at + i + 1 == n };
        }
        if (eng_step(&b->e, tok, m, logits) != 0) {
            return UINT32_MAX;
        }
    }

    return kern_argmax(logits[m - 1], b->e.limits.vocab);
}


static double
bench_prompt(bench_t *b, uint32_t n)
{
    double    t;
    uint32_t  seq, best = UINT32_MAX;

    if (eng_seq_open(&b->e, &seq) != 0) {
        return 0;
    }
    t = now_s();
    if (eng_seq_reserve(&b->e, seq, n) == 0) {
        best = feed(b, seq, n);
    }
    t = now_s() - t;
    eng_seq_close(&b->e, seq);

    return best == UINT32_MAX ? 0 : n / t;
}


static double
bench_generate(bench_t *b, uint32_t n)
{
    double        t;
    uint32_t      i, k, seq[SEQS];
    eng_tok_t     tok[SEQS];
    const float  *logits[SEQS];

    for (i = 0; i < n; i++) {
        if (eng_seq_open(&b->e, &seq[i]) != 0
            || eng_seq_reserve(&b->e, seq[i], START + STEPS) != 0)
        {
            return 0;
        }
        tok[i] = (eng_tok_t) { feed(b, seq[i], START), seq[i], START, 1 };
    }

    t = now_s();
    for (k = 0; k < STEPS; k++) {
        if (eng_step(&b->e, tok, n, logits) != 0) {
            return 0;
        }
        for (i = 0; i < n; i++) {
            tok[i].token = kern_argmax(logits[i], b->e.limits.vocab);
            tok[i].pos++;
        }
    }
    t = now_s() - t;
    for (i = 0; i < n; i++) {
        eng_seq_close(&b->e, seq[i]);
    }

    return n * STEPS / t;
}


static void
measure(bench_t *b, uint64_t weight_bytes)
{
    long    r;
    size_t  i;
    double  v[7][ROUNDS_MAX], share[ROUNDS_MAX];

    (void) bench_prompt(b, prompts[0]);       /* touches all memory once */
    for (r = 0; r < b->rounds; r++) {
        for (i = 0; i < 2; i++) {
            v[i][r] = bench_prompt(b, prompts[i]);
        }
        for (i = 1; i < 3; i++) {
            v[2 + i][r] = bench_generate(b, generates[i]);
        }
        v[5][r] = ping_us();
        /* beside the figure it is compared with: bandwidth jumps */
        v[2][r] = bench_generate(b, generates[0]);
        v[6][r] = read_gbs((uint32_t) b->threads);
        share[r] = v[6][r] > 0
                   ? v[2][r] * (double) weight_bytes * 1e-9 / v[6][r] : 0;
    }
    for (i = 0; i < 2; i++) {
        b->prompt[i] = median(v[i], b->rounds);
    }
    for (i = 0; i < 3; i++) {
        b->generate[i] = median(v[2 + i], b->rounds);
    }
    b->ping_us = median(v[5], b->rounds);
    b->read_gbs = median(v[6], b->rounds);
    b->read_share = median(share, b->rounds);
}


static void
report(const bench_t *b, const eng_model_t *model)
{
    size_t  i;

    if (b->json) {
        printf("{\"prompt\":{");
        for (i = 0; i < 2; i++) {
            printf("%s\"%" PRIu32 "\":%.1f", i > 0 ? "," : "", prompts[i],
                   b->prompt[i]);
        }
        printf("},\"generate\":{");
        for (i = 0; i < 3; i++) {
            printf("%s\"%" PRIu32 "\":%.1f", i > 0 ? "," : "", generates[i],
                   b->generate[i]);
        }
        printf("},\"threads\":%ld,\"kernels\":\"%s\",\"load_ms\":%.1f,"
               "\"ping_us\":%.3f,\"read_gbs\":%.1f,\"read_share\":%.3f}\n",
               b->threads, kern_isa_name(kern_isa()), b->load_ms, b->ping_us,
               b->read_gbs, b->read_share);
        return;
    }

    printf("load            %9.1f ms (%s)\n", b->load_ms,
           eng_model_origin(model));
    for (i = 0; i < 2; i++) {
        printf("prompt %-8" PRIu32 " %9.1f tokens/s\n", prompts[i],
               b->prompt[i]);
    }
    for (i = 0; i < 3; i++) {
        printf("generate x%-5" PRIu32 " %9.1f tokens/s\n", generates[i],
               b->generate[i]);
    }
    printf("ping-pong       %9.3f us, %ld threads, kernels %s\n", b->ping_us,
           b->threads, kern_isa_name(kern_isa()));
    printf("memory reads    %9.1f GB/s; x1 uses %.0f %% of that for weights\n",
           b->read_gbs, b->read_share * 100);
}


static int
parse(bench_t *b, eng_model_opts_t *mo, const char **path, int argc,
    char **argv)
{
    int  i, rc;

    for (i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            b->json = 1;
            continue;
        }
        if (strcmp(argv[i], "--cpu-time") == 0) {
            clock_id = CLOCK_PROCESS_CPUTIME_ID;
            continue;
        }
        if (i + 1 == argc) {
            return -1;
        }
        i++;
        rc = cli_model_option(NAME, argv[i - 1], argv[i], mo);
        if (rc != 0) {
            if (rc < 0) {
                return -1;
            }
            continue;
        }
        if (strcmp(argv[i - 1], "-m") == 0) {
            *path = argv[i];
        } else if (strcmp(argv[i - 1], "--cache") == 0) {
            mo->cache_dir = argv[i];
        } else if (strcmp(argv[i - 1], "-t") == 0) {
            if (cli_number(NAME, "-t", argv[i], 1, ENG_THREADS_MAX,
                           &b->threads) != 0)
            {
                return -1;
            }
        } else if (strcmp(argv[i - 1], "--rounds") == 0) {
            if (cli_number(NAME, "--rounds", argv[i], 1, ROUNDS_MAX,
                           &b->rounds) != 0)
            {
                return -1;
            }
        } else {
            return -1;
        }
    }

    return *path != NULL ? 0 : -1;
}


int
cli_bench(int argc, char **argv)
{
    bench_t           b = { .threads = 2, .rounds = 5 };
    eng_err_t         err;
    const char       *path = NULL;
    eng_model_t      *model;
    eng_ctx_opts_t    co = ENG_CTX_OPTS_INIT;
    eng_model_opts_t  mo = ENG_MODEL_OPTS_INIT;

    if (parse(&b, &mo, &path, argc, argv) != 0) {
        fputs(usage_text, stderr);
        return CLI_USAGE;
    }

    b.load_ms = now_s();
    if (eng_model_open(path, &mo, &model, &err) != ENG_OK) {
        cli_error(NAME, "%s", err.text);
        return CLI_FAILED;
    }
    b.load_ms = (now_s() - b.load_ms) * 1e3;

    co.max_seqs = SEQS;
    co.max_batch_tokens = BATCH;
    co.ctx_len = 1024;
    if (co.ctx_len > eng_model_info(model)->ctx_train) {
        co.ctx_len = eng_model_info(model)->ctx_train;
    }
    co.threads = (uint32_t) b.threads;
    if (eng_create(model, &co, &b.e, &err) != ENG_OK) {
        cli_error(NAME, "%s", err.text);
        eng_model_close(model);
        return CLI_FAILED;
    }

    measure(&b, eng_model_info(model)->weight_bytes);
    report(&b, model);
    eng_destroy(&b.e);
    eng_model_close(model);

    return CLI_OK;
}
