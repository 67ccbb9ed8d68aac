/*
 * Shared by the kernel tests: a random generator, memory, the levels that
 * this machine can run, and GGUF rows with random content.
 */
#ifndef KERN_TEST_H
#define KERN_TEST_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "worker/kernels/kern_internal.h"

static uint64_t  kt_state = 88172645463325252u;


static inline uint32_t
kt_rand(void)
{
    kt_state ^= kt_state << 13;
    kt_state ^= kt_state >> 7;
    kt_state ^= kt_state << 17;
    return (uint32_t) (kt_state >> 16);
}


/* Roughly normal, mean 0, deviation 1. */
static inline float
kt_float(void)
{
    float  s = 0;

    for (int i = 0; i < 6; i++) {
        s += (float) (kt_rand() & 0xffff) / 65536.0f - 0.5f;
    }

    return s * 1.414f;
}


static inline void *
kt_alloc(size_t bytes)
{
    void  *p = aligned_alloc(64, (bytes + 63) / 64 * 64);

    assert_non_null(p);
    memset(p, 0xa5, (bytes + 63) / 64 * 64);
    return p;
}


static inline float *
kt_floats(size_t n)
{
    float  *p = kt_alloc(n * sizeof(float));

    for (size_t i = 0; i < n; i++) {
        p[i] = kt_float();
    }

    return p;
}


/* Where a GGUF block keeps its f16 d and minimum; -1: none. */
static inline void
kt_scale_at(kern_wtype_t type, int *d, int *m)
{
    *d = 0;
    *m = -1;

    switch (type) {
    case KERN_Q4_1:
    case KERN_Q5_1:
    case KERN_Q4_K:
    case KERN_Q5_K:
        *m = 2;
        break;
    case KERN_Q2_K:
        *d = 80;
        *m = 82;
        break;
    case KERN_Q3_K:
        *d = 108;
        break;
    case KERN_Q6_K:
        *d = 208;
        break;
    default:
        break;
    }
}


/* k as the type's blocks allow it. */
static inline uint32_t
kt_cols(kern_wtype_t type, uint32_t k)
{
    uint32_t  step = kern_gguf_block_elems(type);

    return step == 256 ? (k + 255) / 256 * 256 : k;
}


/* GGUF rows: random quants, scales of ordinary size. */
static inline uint8_t *
kt_gguf(kern_wtype_t type, uint32_t rows, uint32_t cols)
{
    int        d, m;
    float      f;
    size_t     bytes = kern_gguf_row_bytes(type, cols) * rows;
    uint8_t   *p = kt_alloc(bytes + 64);
    uint16_t   h;
    uint32_t   step = kern_gguf_block_bytes(type);

    kt_scale_at(type, &d, &m);

    for (size_t i = 0; i < bytes; i++) {
        p[i] = (uint8_t) kt_rand();
    }

    for (size_t i = 0; i < bytes; i += step) {
        f = kt_float() * 0.02f;

        if (type == KERN_F32) {
            memcpy(p + i, &f, sizeof(f));
            continue;
        }

        h = kern_f32_f16(f);

        if (type == KERN_BF16) {
            h = (uint16_t) (kern_f32_u32(f) >> 16);
        }

        memcpy(p + i + d, &h, sizeof(h));

        if (m >= 0) {
            h = kern_f32_f16(kt_float() * 0.1f);
            memcpy(p + i + m, &h, sizeof(h));
        }
    }

    return p;
}


static inline kern_weight_t
kt_weight(kern_wtype_t type, uint32_t rows, uint32_t cols,
    const uint8_t *gguf)
{
    void           *dst = kt_alloc(kern_packed_bytes(type, rows, cols));
    kern_weight_t   w = { type, rows, cols, dst };

    assert_int_equal(kern_pack(type, rows, cols, gguf, dst, 0, rows), 0);
    return w;
}


/* Bitwise comparison; says where. NaN equals NaN of any payload. */
static inline void
kt_same(const char *what, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (kern_f32_u32(a[i]) != kern_f32_u32(b[i])
            && !(a[i] != a[i] && b[i] != b[i]))
        {
            fail_msg("%s: element %zu: %.9g, expected %.9g", what, i,
                     (double) a[i], (double) b[i]);
        }
    }
}


/* For each level above scalar that runs here. */
#define KT_LEVELS(level)                                                      \
    for (kern_isa_t level = KERN_ISA_AVX2; level < KERN_ISA_N; level++)       \
        if (kern_isa_supported(level))

#endif
