/*
 * The kernel for AVX512_BF16, bitwise against the scalar level: here with its
 * one instruction written out, for CPUs that have AVX-512 and not this.  Where
 * it is, test_matmul.c tests the level, and here the instruction is compared
 * with what stands for it.  Also panels of bfloat16 by themselves.
 */
#include "tests/unit/kernels/kern_test.h"

#if defined(__x86_64__)

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

#include <immintrin.h>

typedef __m512  (*step_pt)(__m512 w, __m512 a, __m512 acc);


static float
flush(float x)
{
    return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x;
}


/* One lane's half: denormals are zero before and after. */
static float
half_step(uint32_t w, uint32_t a, float acc)
{
    return flush(fmaf(flush(kern_u32_f32(w)), flush(kern_u32_f32(a)),
                      flush(acc)));
}


/* VDPBF16PS by Intel's description: the upper product, then the lower. */
static __m512
step_written(__m512 w, __m512 a, __m512 acc)
{
    float     s[16];
    uint32_t  x[16], y[16];

    _mm512_storeu_ps(x, w);
    _mm512_storeu_ps(y, a);
    _mm512_storeu_ps(s, acc);

    for (int i = 0; i < 16; i++) {
        s[i] = half_step(x[i] & 0xffff0000, y[i] & 0xffff0000, s[i]);
        s[i] = half_step(x[i] << 16, y[i] << 16, s[i]);
    }

    return _mm512_loadu_ps(s);
}


static __m512
step_instruction(__m512 w, __m512 a, __m512 acc)
{
    return _mm512_dpbf16_ps(acc, (__m512bh) w, (__m512bh) a);
}


#define KERN_NAME(op)           op##__written
#define KERN_STEP(w, a, acc)    step_written(w, a, acc)

void kern_matmul_bf16__written(const kern_weight_t *w, const kern_panel_t *p,
    float *out, size_t ldo, uint32_t row_begin, uint32_t row_end);

#include "worker/kernels/kern_matmul_bf16.c"


/* Random pairs, some of them at the ends of their range, through both. */
static void
compare_steps(step_pt one, step_pt other)
{
    float     s[2][16];
    __m512    acc[2], w, a;
    uint32_t  x[16], y[16];

    static const uint32_t  ends[] = {
        0x00000000, 0x80000000, 0x0001007f, 0x00800080, 0x7f7fff7f,
        0x7f80ff80, 0x3f803f80, 0x1f801f80, 0x20002000
    };

    for (int round = 0; round < 100000; round++) {
        for (int i = 0; i < 16; i++) {
            x[i] = (kern_f32_u32(kt_float()) & 0xffff0000)
                   | kern_f32_u32(kt_float()) >> 16;
            y[i] = (kern_f32_u32(kt_float()) & 0xffff0000)
                   | kern_f32_u32(kt_float()) >> 16;
            s[0][i] = kt_float();

            if (round % 4 == 3) {
                x[i] = ends[kt_rand() % 9];
                y[i] = ends[kt_rand() % 9];
                s[0][i] *= kt_rand() % 2 ? 1e-38f : 1e-39f;
            }
        }

        w = _mm512_loadu_ps(x);
        a = _mm512_loadu_ps(y);
        acc[0] = one(w, a, _mm512_loadu_ps(s[0]));
        acc[1] = other(w, a, _mm512_loadu_ps(s[0]));
        _mm512_storeu_ps(s[0], acc[0]);
        _mm512_storeu_ps(s[1], acc[1]);
        kt_same("step", s[0], s[1], 16);
    }
}


#pragma GCC pop_options


static void
one_shape(uint32_t rows, uint32_t k, uint32_t m)
{
    char            what[96];
    float          *x = kt_floats((size_t) m * k), *want, *got;
    size_t          n = (size_t) m * (rows + 3);
    uint32_t        half = rows / 32 * 16;
    uint8_t        *gguf = kt_gguf(KERN_BF16, rows, k);
    kern_panel_t    p, q;
    kern_weight_t   w = kt_weight(KERN_BF16, rows, k, gguf);

    want = kt_alloc(n * sizeof(float));
    got = kt_alloc(n * sizeof(float));
    kern_panel_init(&p, KERN_PANEL_BF16, m, k,
                    kt_alloc(kern_panel_bytes(KERN_PANEL_BF16, m, k)));
    kern_panel_init(&q, KERN_PANEL_BF16, m, k,
                    kt_alloc(kern_panel_bytes(KERN_PANEL_BF16, m, k)));
    p.pairs = 0;
    q.pairs = 1;
    kern_quant(&p, 0, m, x, k);
    kern_quant(&q, 0, m, x, k);
    kern_matmul(&w, &p, want, rows + 3, 0, rows);
    kern_matmul_bf16__written(&w, &q, got, rows + 3, 0, half);
    kern_matmul_bf16__written(&w, &q, got, rows + 3, half, rows);
    snprintf(what, sizeof(what), "rows %u k %u m %u", rows, k, m);
    kt_same(what, got, want, n);

    free(x);
    free(want);
    free(got);
    free(gguf);
    free(p.data);
    free(q.data);
    free((void *) w.packed);
}


static void
test_shapes(void **state)
{
    static const uint32_t  rows[] = { 1, 7, 8, 9, 15, 16, 31, 63, 64, 65 };

    (void) state;

    if (!kern_isa_supported(KERN_ISA_AVX512)) {
        skip();
    }

    for (kern_isa_t level = KERN_ISA_SCALAR; level <= KERN_ISA_AVX512;
         level++)
    {
        if (kern_init(level) != KERN_OK) {
            continue;
        }

        for (uint32_t m = 1; m <= 26; m++) {
            one_shape(17, m % 2 ? 32 : 96, m);
        }

        for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
            one_shape(rows[r], 1056, 1);
            one_shape(rows[r], 96, 9);
        }

        one_shape(48, 256, 257);
    }
}


static void
test_step(void **state)
{
    (void) state;

    if (!kern_isa_supported(KERN_ISA_BF16)) {
        skip();
    }

    compare_steps(step_instruction, step_written);
}

#endif


/* Every level rounds as the scalar one: all signs, exponents and ties. */
static void
test_round(void **state)
{
    float         x[64], want[64];
    uint8_t       mem[2][64 * 4] __attribute__((aligned(64)));
    kern_panel_t  p, q;

    static const uint32_t  low[] = {
        0x0000, 0x0001, 0x7fff, 0x8000, 0x8001, 0xffff
    };

    (void) state;

    for (uint32_t u = 0; u < 0x10000; u += 64) {
        for (uint32_t l = 0; l < 6; l++) {
            for (uint32_t i = 0; i < 64; i++) {
                x[i] = kern_u32_f32((u + i) << 16 | low[l]);
                want[i] = kern_bf16_f32(kern_f32_bf16(x[i]));
            }

            kern_init(KERN_ISA_SCALAR);
            kern_panel_init(&p, KERN_PANEL_BF16, 1, 64, mem[0]);
            kern_quant(&p, 0, 1, x, 64);
            kt_same("scalar", p.data, want, 64);

            KT_LEVELS(level) {
                kern_init(level);
                kern_panel_init(&q, KERN_PANEL_BF16, 1, 64, mem[1]);
                q.pairs = 0;
                kern_quant(&q, 0, 1, x, 64);
                assert_memory_equal(q.data, p.data, sizeof(mem[0]));
            }
        }
    }

    /* nearest, ties to even, no denormals */
    assert_int_equal(kern_f32_bf16(kern_u32_f32(0x3f808000)), 0x3f80);
    assert_int_equal(kern_f32_bf16(kern_u32_f32(0x3f818000)), 0x3f82);
    assert_int_equal(kern_f32_bf16(kern_u32_f32(0xbf808001)), 0xbf81);
    assert_int_equal(kern_f32_bf16(kern_u32_f32(0x7f7fffff)), 0x7f80);
    assert_int_equal(kern_f32_bf16(kern_u32_f32(0x007fffff)), 0);
    assert_int_equal(kern_f32_bf16(kern_u32_f32(0x7f800001)), 0x7fc0);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
#if defined(__x86_64__)
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_step),
#endif
        cmocka_unit_test(test_round),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
