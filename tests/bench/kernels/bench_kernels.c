/*
 * Bench of the kernels: each level that this CPU has, against the limits
 * measured in the same run.
 *
 *   build/bench/kernels/bench_kernels [tile|stream|matmul|attn|rows] ...
 *
 * Time is the thread's CPU time, the figure the best of several short runs:
 * it says what the code can do, not what a shared machine gave it.
 *
 *   peak     vpdpbusd (or fma) from registers, G(op)/s, 1 multiply-add = 2
 *   read     one thread reading 256 MB, GB/s
 *   tile     a product whose weights and activations stay in the L1/L2
 *            caches: % of peak
 *   stream   m = 1 over weights larger than the L2 cache: % of read
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "worker/kernels/kern_internal.h"

#define READ_BYTES      ((size_t) 256 << 20)

static double  peak_int, peak_float, read_rate;

typedef struct {
    kern_weight_t   w;
    kern_panel_t    p;
    float          *out;
} product_t;


static double
seconds(void)
{
    struct timespec  t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}


/* Huge pages where the system gives them, as the worker has them. */
static void *
memory(size_t bytes)
{
    void  *p;

    bytes = (bytes + ((size_t) 2 << 20)) & ~(((size_t) 2 << 20) - 1);
    p = aligned_alloc((size_t) 2 << 20, bytes);

    if (p == NULL) {
        fprintf(stderr, "bench: no memory for %zu bytes\n", bytes);
        exit(1);
    }

    madvise(p, bytes, MADV_HUGEPAGE);
    memset(p, 0x11, bytes);
    return p;
}


#if defined(__x86_64__)

#define REP12(ins)                                                            \
    ins "0\n" ins "1\n" ins "2\n" ins "3\n" ins "4\n" ins "5\n" ins "6\n"     \
    ins "7\n" ins "8\n" ins "9\n" ins "10\n" ins "11\n"

/* Twelve independent chains; ops per instruction given by the caller. */
#define PEAK(name, ins)                                                       \
static double                                                                 \
name(double ops)                                                              \
{                                                                             \
    double  best = 1e9, t;                                                    \
                                                                              \
    for (int r = 0; r < 200; r++) {                                           \
        long  i = 20000;                                                      \
                                                                              \
        t = seconds();                                                        \
        /* zeros: a denormal left in a register would cost an assist */      \
        __asm__ volatile ("vzeroall\n1:\n" REP12(ins) "dec %0\njnz 1b"        \
                          : "+r" (i) : : "xmm0", "xmm1", "xmm2", "xmm3",      \
                          "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",     \
                          "xmm10", "xmm11", "xmm14", "xmm15");                \
        t = seconds() - t;                                                    \
        best = t < best ? t : best;                                           \
    }                                                                         \
                                                                              \
    return 20000.0 * 12 * ops / best * 1e-9;                                  \
}

PEAK(peak_vnni, "vpdpbusd %%zmm15, %%zmm14, %%zmm")
PEAK(peak_fma512, "vfmadd231ps %%zmm15, %%zmm14, %%zmm")
PEAK(peak_maddubs, "vpmaddubsw %%ymm15, %%ymm14, %%ymm")
PEAK(peak_fma256, "vfmadd231ps %%ymm15, %%ymm14, %%ymm")


static void
peaks(void)
{
    peak_int = peak_float = 1e-9;

    if (kern_isa() >= KERN_ISA_VNNI) {
        peak_int = peak_vnni(128);
    } else if (kern_isa() >= KERN_ISA_AVX2) {
        peak_int = peak_maddubs(64);
    }

    if (kern_isa() >= KERN_ISA_AVX512) {
        peak_float = peak_fma512(32);
    } else if (kern_isa() == KERN_ISA_AVX2) {
        peak_float = peak_fma256(16);
    }
}


#else

static void
peaks(void)
{
    peak_int = peak_float = 1e-9;
}

#endif


/* One word per line, hardware prefetch only. */
static double
read_speed(void)
{
    double           best = 1e9, t;
    uint64_t         sum = 0;
    const uint64_t  *p = memory(READ_BYTES);

    for (int r = 0; r < 5; r++) {
        t = seconds();

        for (size_t i = 0; i < READ_BYTES / 8; i += 8) {
            sum += p[i];
        }

        t = seconds() - t;
        best = t < best ? t : best;
    }

    __asm__ volatile ("" : : "r" (sum));
    free((void *) (uintptr_t) p);
    return (double) READ_BYTES / best * 1e-9;
}


/* 576, or the next that a type of blocks of 256 allows. */
static uint32_t
cols(kern_wtype_t type, uint32_t k)
{
    return kern_gguf_block_elems(type) == 256 ? (k + 255) / 256 * 256 : k;
}


static product_t
product(kern_wtype_t type, uint32_t rows, uint32_t k, uint32_t m)
{
    float              *x = memory((size_t) m * k * sizeof(float));
    product_t           r;
    kern_panel_kind_t   kind = kern_panel_kind(type);

    for (size_t i = 0; i < (size_t) m * k; i++) {
        x[i] = (float) (i * 2654435761u % 1000) - 500.0f;
    }

    /* 0x11 bytes everywhere: small normal scales, all quants 1 */
    r.w.type = type;
    r.w.rows = rows;
    r.w.cols = k;
    r.w.packed = memory(kern_packed_bytes(type, rows, k));
    kern_panel_init(&r.p, kind, m, k, memory(kern_panel_bytes(kind, m, k)));
    kern_quant(&r.p, 0, m, x, k);
    r.out = memory((size_t) m * rows * sizeof(float));
    free(x);
    return r;
}


static void
product_free(product_t *r)
{
    free((void *) (uintptr_t) r->w.packed);
    free(r->p.data);
    free(r->out);
}


/* Best seconds of one product. */
static double
product_time(const product_t *r)
{
    double    best = 1e9, t, total = 0;
    uint32_t  n = 1;

    for (int i = 0; i < 200 && total < 0.25; i++) {
        t = seconds();

        for (uint32_t j = 0; j < n; j++) {
            kern_matmul(&r->w, &r->p, r->out, r->w.rows, 0, r->w.rows);
        }

        t = seconds() - t;
        total += t;

        if (t < 100e-6 && n < 10000) {
            n *= 2;         /* too short for the clock */
            continue;
        }

        best = t / n < best ? t / n : best;
    }

    return best;
}


static void
bench_tile(kern_wtype_t type)
{
    double     gops, peak;
    uint32_t   k = cols(type, 576);
    product_t  r = product(type, 16, k, 64);

    gops = 2.0 * 16 * k * 64 / product_time(&r) * 1e-9;
    peak = kern_panel_kind(type) == KERN_PANEL_I8 ? peak_int : peak_float;
    printf("tile    %-6s 16x%u m=64     %7.1f GOPS  %5.1f %% of peak\n",
           kern_wtype_name(type), k, gops, gops / peak * 100);
    product_free(&r);
}


static void
bench_stream(kern_wtype_t type)
{
    double     t;
    size_t     bytes;
    uint32_t   rows, k = cols(type, 576);
    product_t  r;

    bytes = kern_packed_bytes(type, 16, k);
    rows = (uint32_t) (((size_t) 128 << 20) / bytes) * 16;
    bytes = kern_packed_bytes(type, rows, k);
    r = product(type, rows, k, 1);
    t = product_time(&r);
    printf("stream  %-6s %ux%u m=1 %7.2f GB/s  %5.1f %% of read\n",
           kern_wtype_name(type), rows, k, (double) bytes / t * 1e-9,
           (double) bytes / t * 1e-7 / read_rate);
    product_free(&r);
}


static void
bench_matmul(kern_wtype_t type)
{
    static const uint32_t  shapes[][2] = {
        { 960, 576 }, { 3072, 576 }, { 576, 1536 }
    };
    static const uint32_t  ms[] = { 1, 4, 8, 12, 16, 64, 256 };
    double                 t, ops, peak;
    uint32_t               k;
    product_t              r;

    peak = kern_panel_kind(type) == KERN_PANEL_I8 ? peak_int : peak_float;

    for (int s = 0; s < 3; s++) {
        k = cols(type, shapes[s][1]);
        printf("matmul  %-6s %4ux%-4u", kern_wtype_name(type), shapes[s][0],
               k);

        for (size_t i = 0; i < sizeof(ms) / sizeof(ms[0]); i++) {
            r = product(type, shapes[s][0], k, ms[i]);
            t = product_time(&r);
            ops = 2.0 * shapes[s][0] * k * ms[i];
            printf("  m=%u %.0f (%.0f%%)", ms[i], ops / t * 1e-9,
                   ops / t * 1e-7 / peak);
            product_free(&r);
        }

        printf("\n");
    }
}


static void
bench_attn_one(kern_kvtype_t type, uint32_t n_head, uint32_t n_kv, uint32_t hd,
    uint32_t n_key, uint32_t n_query)
{
    float           *x = memory((size_t) n_query * n_head * hd * 8);
    size_t           bytes = kern_kv_page_bytes(type, n_kv, hd);
    double           best = 1e9, t, ops, total = 0;
    uint8_t         *page = memory(bytes * (n_key + 31) / 32 + bytes);
    kern_attn_t      a = { .type = type };
    const uint8_t  **pages = memory((n_key + 31) / 32 * sizeof(page));

    for (uint32_t i = 0; i < (n_key + 31) / 32; i++) {
        pages[i] = page + i * bytes;
    }

    a.n_head = n_head;
    a.n_kv_head = n_kv;
    a.head_dim = hd;
    a.scale = 0.1f;
    a.causal = 1;
    a.n_query = n_query;
    a.pos = n_key - n_query;
    a.n_key = n_key;
    a.q = x;
    a.ldq = a.ldo = n_head * hd;
    a.out = x + (size_t) n_query * n_head * hd;
    a.pages = pages;

    for (int i = 0; i < 2000 && total < 0.2; i++) {
        t = seconds();
        kern_attn(&a, 0, n_kv, 0, n_query);
        t = seconds() - t;
        total += t;
        best = t < best ? t : best;
    }

    /* seen pairs only */
    ops = 4.0 * n_head * hd * n_query * (n_key - (n_query - 1) / 2.0);
    printf("attn    %s %u/%u heads of %u, %u keys, %u queries: %.1f us, "
           "%.1f GFLOP/s (%.0f%% of peak), %.1f GB/s of cache\n",
           type == KERN_KV_F16 ? "f16 " : "q8_0",
           n_head, n_kv, hd, n_key, n_query, best * 1e6, ops / best * 1e-9,
           ops / best * 1e-7 / peak_float,
           (double) bytes * n_key / 32 / best * 1e-9);
    free(x);
    free(page);
    free(pages);
}


static void
bench_rows(void)
{
    float         *x = memory(200000), *y = memory(200000);
    double         best[6], t;
    uint32_t       idx[64];
    kern_panel_t   p;
    const char    *names[6] = {
        "quant 576", "rmsnorm+quant 576", "silu*up+quant 1536",
        "argmax 49152", "softmax 49152", "top-40 of 49152"
    };

    for (int i = 0; i < 50000; i++) {
        x[i] = (float) ((uint32_t) i * 2654435761u % 10007) / 1000.0f;
    }

    for (int k = 0; k < 6; k++) {
        best[k] = 1e9;
        kern_panel_init(&p, KERN_PANEL_I8, 1, k == 2 ? 1536 : 576, y);

        for (int i = 0; i < 300; i++) {
            t = seconds();

            for (int j = 0; j < 10; j++) {
                switch (k) {
                case 0: kern_quant(&p, 0, 1, x, 576); break;
                case 1: kern_quant_rmsnorm(&p, 0, 1, x, 576, x, 1e-5f); break;
                case 2: kern_quant_glu(&p, 0, 1, KERN_ACT_SILU, x, x, 0);
                        break;
                case 3: idx[0] = kern_argmax(x, 49152); break;
                case 4: kern_softmax(y, x, 49152); break;
                case 5: kern_topk(x, 49152, 40, idx, y); break;
                }
            }

            t = (seconds() - t) / 10;
            best[k] = t < best[k] ? t : best[k];
        }

        printf("rows    %-20s %8.2f us\n", names[k], best[k] * 1e6);
    }

    free(x);
    free(y);
}


static int
wanted(int argc, char **argv, const char *what)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], what) == 0) {
            return 1;
        }
    }

    return argc == 1;
}


static void
bench_level(int argc, char **argv)
{
    peaks();
    printf("== %s: int8 peak %.0f GOPS, float peak %.0f GFLOP/s, read %.1f "
           "GB/s\n", kern_isa_name(kern_isa()), peak_int, peak_float,
           read_rate);

    for (int t = 0; t < KERN_WTYPE_N; t++) {
        if (!kern_wtype_supported((kern_wtype_t) t)) {
            continue;
        }

        if (wanted(argc, argv, "tile")) {
            bench_tile((kern_wtype_t) t);
        }
        if (wanted(argc, argv, "stream")) {
            bench_stream((kern_wtype_t) t);
        }
        if (wanted(argc, argv, "matmul")) {
            bench_matmul((kern_wtype_t) t);
        }
    }

    if (wanted(argc, argv, "attn")) {
        for (kern_kvtype_t t = 0; t < KERN_KV_N; t++) {
            bench_attn_one(t, 9, 3, 64, 256, 1);
            bench_attn_one(t, 9, 3, 64, 2048, 1);
            bench_attn_one(t, 9, 3, 64, 512, 512);
            bench_attn_one(t, 4, 1, 256, 512, 1);
            bench_attn_one(t, 4, 1, 256, 512, 512);
            bench_attn_one(t, 12, 12, 32, 128, 128);
        }
    }

    if (wanted(argc, argv, "rows")) {
        bench_rows();
    }
}


int
main(int argc, char **argv)
{
    read_rate = read_speed();

    if (getenv("INFER_KERN_ISA") != NULL) {
        kern_init(KERN_ISA_AUTO);
        bench_level(argc, argv);
        return 0;
    }

    for (kern_isa_t l = KERN_ISA_N - 1; l >= KERN_ISA_AVX2; l--) {
        if (kern_init(l) == KERN_OK) {
            bench_level(argc, argv);
        }
    }

    return 0;
}
