/*
 * Half-precision and bfloat16 words in plain C (IEEE 754 binary16, round to
 * nearest even, denormals kept), equal to vcvtph2ps and vcvtps2ph.  Private
 * to this folder and its tests.
 */
#ifndef KERN_F16_H
#define KERN_F16_H

#include <stdint.h>
#include <string.h>

static inline float
kern_u32_f32(uint32_t u)
{
    float  f;

    memcpy(&f, &u, sizeof(f));
    return f;
}

static inline uint32_t
kern_f32_u32(float f)
{
    uint32_t  u;

    memcpy(&u, &f, sizeof(u));
    return u;
}

static inline float
kern_f16_f32(uint16_t h)
{
    uint32_t  sign = (uint32_t) (h & 0x8000u) << 16;
    uint32_t  exp = (h >> 10) & 31u;
    uint32_t  man = h & 0x3ffu;

    if (exp == 0) {
        /* zero and denormals: man * 2^-24, exact in float */
        float  f = (float) man * 0x1p-24f;

        return sign ? -f : f;
    }

    if (exp == 31) {
        /* infinity, or NaN made quiet as the instruction does */
        return kern_u32_f32(sign | 0x7f800000u | man << 13
                            | (man ? 0x400000u : 0));
    }

    return kern_u32_f32(sign | (exp + 112) << 23 | man << 13);
}

static inline uint16_t
kern_f32_f16(float f)
{
    uint32_t  u = kern_f32_u32(f);
    uint32_t  sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu, r;

    if (a > 0x7f800000u) {
        return (uint16_t) (sign | 0x7e00u | ((a >> 13) & 0x3ffu));
    }

    if (a >= 0x477ff000u) {
        return (uint16_t) (sign | 0x7c00u);     /* rounds to infinity */
    }

    if (a < 0x38800000u) {
        /* denormal result: adding 0.5 rounds at 2^-24, nearest even */
        r = kern_f32_u32(kern_u32_f32(a) + 0.5f) - 0x3f000000u;
        return (uint16_t) (sign | r);
    }

    r = a - 0x38000000u;
    r += 0xfffu + ((r >> 13) & 1u);
    return (uint16_t) (sign | r >> 13);
}

static inline float
kern_bf16_f32(uint16_t h)
{
    return kern_u32_f32((uint32_t) h << 16);
}

/* To nearest even; NaN stays NaN.  Denormals become zero: the instruction
 * that multiplies pairs takes them for it. */
static inline uint16_t
kern_f32_bf16(float f)
{
    uint32_t  u = kern_f32_u32(f), a = u & 0x7fffffffu;

    if (a > 0x7f800000u) {
        return (uint16_t) ((u | 0x400000u) >> 16);
    }

    return a < 0x800000u ? 0
           : (uint16_t) ((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

#endif
