/*
 * Sixteen floats as an array, in plain C.  Part of kern_v16.h, which says
 * what all of its forms share; included by nothing else.
 */
#ifndef KERN_V16_C_H
#define KERN_V16_C_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "worker/kernels/kern_f16.h"

typedef struct { float f[16]; } v16;
typedef struct { int32_t i[16]; } v16i;

#define V_FN static inline
#define V_EACH(type, field, expr)                                             \
    type r;                                                                   \
    for (int i = 0; i < 16; i++) {                                            \
        r.field[i] = (expr);                                                  \
    }                                                                         \
    return r

V_FN v16 v_load(const float *p) { V_EACH(v16, f, p[i]); }
V_FN void v_store(float *p, v16 a) { memcpy(p, a.f, sizeof(a.f)); }
V_FN v16 v_set(float a) { V_EACH(v16, f, a); }
V_FN v16 v_add(v16 a, v16 b) { V_EACH(v16, f, a.f[i] + b.f[i]); }
V_FN v16 v_sub(v16 a, v16 b) { V_EACH(v16, f, a.f[i] - b.f[i]); }
V_FN v16 v_mul(v16 a, v16 b) { V_EACH(v16, f, a.f[i] * b.f[i]); }
V_FN v16 v_div(v16 a, v16 b) { V_EACH(v16, f, a.f[i] / b.f[i]); }
V_FN v16
v_fma(v16 a, v16 b, v16 c) { V_EACH(v16, f, fmaf(a.f[i], b.f[i], c.f[i])); }
V_FN v16
v_max(v16 a, v16 b) { V_EACH(v16, f, a.f[i] > b.f[i] ? a.f[i] : b.f[i]); }
V_FN v16
v_min(v16 a, v16 b) { V_EACH(v16, f, a.f[i] < b.f[i] ? a.f[i] : b.f[i]); }
V_FN v16i v_seti(int32_t a) { V_EACH(v16i, i, a); }

V_FN v16i
v_addi(v16i a, v16i b)
{
    V_EACH(v16i, i, (int32_t) ((uint32_t) a.i[i] + (uint32_t) b.i[i]));
}

V_FN v16i
v_shl23(v16i a)
{
    V_EACH(v16i, i, (int32_t) ((uint32_t) a.i[i] << 23));
}

V_FN v16i
v_subi(v16i a, v16i b)
{
    V_EACH(v16i, i, (int32_t) ((uint32_t) a.i[i] - (uint32_t) b.i[i]));
}

V_FN v16i
v_shl7(v16i a) { V_EACH(v16i, i, (int32_t) ((uint32_t) a.i[i] << 7)); }

/* a >> 7 as gcc defines it: the sign is kept. */
V_FN v16i v_sar7(v16i a) { V_EACH(v16i, i, a.i[i] >> 7); }

V_FN v16
v_bits(v16i a)
{
    v16  r;

    memcpy(r.f, a.i, sizeof(r.f));
    return r;
}

/* Out of range and NaN give INT32_MIN, as cvtps2dq does. */
V_FN v16i
v_int(v16 a)
{
    V_EACH(v16i, i, fabsf(a.f[i]) < 0x1p31f ? (int32_t) rintf(a.f[i])
                                            : INT32_MIN);
}

V_FN v16 v_rint(v16 a) { V_EACH(v16, f, rintf(a.f[i])); }
V_FN v16 v_flt(v16i a) { V_EACH(v16, f, (float) a.i[i]); }
V_FN v16 v_abs(v16 a) { V_EACH(v16, f, fabsf(a.f[i])); }

/* a < b ? x : y */
V_FN v16
v_lt(v16 a, v16 b, v16 x, v16 y)
{
    V_EACH(v16, f, a.f[i] < b.f[i] ? x.f[i] : y.f[i]);
}

V_FN v16 v_loadh(const uint16_t *p) { V_EACH(v16, f, kern_f16_f32(p[i])); }
V_FN v16 v_bf16(v16 a) { V_EACH(v16, f, kern_bf16_f32(kern_f32_bf16(a.f[i]))); }

V_FN void
v_storeh(uint16_t *p, v16 a)
{
    for (int i = 0; i < 16; i++) {
        p[i] = kern_f32_f16(a.f[i]);
    }
}

V_FN v16 v_loadi8(const int8_t *p) { V_EACH(v16, f, (float) p[i]); }

V_FN v16
v_loadi8_8(const int8_t *p) { V_EACH(v16, f, i < 8 ? (float) p[i] : 0); }

V_FN v16
v_loadh8(const uint16_t *p) { V_EACH(v16, f, i < 8 ? kern_f16_f32(p[i]) : 0); }

/* max of m and |a| compared as integers, so that NaN counts as largest. */
V_FN v16i
v_absmax(v16i m, v16 a)
{
    for (int i = 0; i < 16; i++) {
        int32_t  b = (int32_t) (kern_f32_u32(a.f[i]) & 0x7fffffffu);

        m.i[i] = b > m.i[i] ? b : m.i[i];
    }
    return m;
}

V_FN int32_t
v_hmaxi(v16i a)
{
    int32_t  m = a.i[0];

    for (int i = 1; i < 16; i++) {
        m = a.i[i] > m ? a.i[i] : m;
    }
    return m;
}

V_FN int32_t
v_hsumi(v16i a)
{
    int32_t  s = 0;

    for (int i = 0; i < 16; i++) {
        s += a.i[i];
    }
    return s;
}

V_FN void
v_store8(int8_t *p, v16i a)
{
    for (int i = 0; i < 16; i++) {
        p[i] = (int8_t) a.i[i];
    }
}

V_FN void
v_store8_sums(int8_t *p, v16i a, v16i b, int32_t *sa, int32_t *sb)
{
    v_store8(p, a);
    v_store8(p + 16, b);
    *sa = v_hsumi(a);
    *sb = v_hsumi(b);
}

/* Pairs apart and together: e = even lanes of a|b, o = odd ones. */
V_FN void
v_unzip(v16 a, v16 b, v16 *e, v16 *o)
{
    for (int i = 0; i < 8; i++) {
        e->f[i] = a.f[2 * i];
        e->f[i + 8] = b.f[2 * i];
        o->f[i] = a.f[2 * i + 1];
        o->f[i + 8] = b.f[2 * i + 1];
    }
}

V_FN void
v_zip(v16 e, v16 o, v16 *a, v16 *b)
{
    for (int i = 0; i < 8; i++) {
        a->f[2 * i] = e.f[i];
        a->f[2 * i + 1] = o.f[i];
        b->f[2 * i] = e.f[i + 8];
        b->f[2 * i + 1] = o.f[i + 8];
    }
}

#define V_TREE(name, expr)                                                    \
V_FN float                                                                    \
name(v16 a)                                                                   \
{                                                                             \
    for (int s = 8; s > 0; s /= 2) {                                          \
        for (int i = 0; i < s; i++) {                                         \
            float  x = a.f[i], y = a.f[i + s];                                \
            a.f[i] = (expr);                                                  \
        }                                                                     \
    }                                                                         \
    return a.f[0];                                                            \
}

V_TREE(v_hsum, x + y)
V_TREE(v_hmax, x > y ? x : y)

#endif
