/*
 * Quantisation of rows.  A block has 32 values, a scale d as a half and for
 * Q4_1 and Q5_1 a minimum m: value = q * d + m.  The quants are rounded with
 * the scale that is stored, not with the one before it became a half.
 */
#include <math.h>
#include <string.h>

#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_quant.h"
#include "worker/kernels/kern_f16.h"

#define BLOCK      32
#define HALF_MAX   65504.0f

static const struct {
    const char    *name;
    kern_wtype_t   type;
} names[] = {
    { "q8_0", KERN_Q8_0 }, { "q4_0", KERN_Q4_0 }, { "q4_1", KERN_Q4_1 },
    { "q5_0", KERN_Q5_0 }, { "q5_1", KERN_Q5_1 },
};


int
eng_quant_type(const char *name, kern_wtype_t *type, eng_err_t *err)
{
    size_t  i;

    *type = ENG_QUANT_NONE;
    if (name == NULL || name[0] == '\0' || strcmp(name, "none") == 0) {
        return ENG_OK;
    }
    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(names[i].name, name) == 0) {
            *type = names[i].type;
            return ENG_OK;
        }
    }

    return eng_fail(err, ENG_EINVAL, "quantize \"%.20s\" is not known: it is "
                    "q8_0, q5_1, q5_0, q4_1, q4_0 or none", name);
}


kern_wtype_t
eng_quant_choice(const char *name, kern_wtype_t from, kern_wtype_t to,
    uint64_t cols)
{
    if (to == ENG_QUANT_NONE || cols % BLOCK != 0
        || (from != KERN_F32 && from != KERN_F16 && from != KERN_BF16)
        || strstr(name, "ffn_gate_inp") != NULL)
    {
        return from;
    }
    if (strcmp(name, "token_embd.weight") == 0
        || strcmp(name, "output.weight") == 0)
    {
        return KERN_Q8_0;
    }

    return to;
}


/* ---- one block ---------------------------------------------------------- */

static void
put_half(uint8_t *dst, float *v)
{
    uint16_t  h = kern_f32_f16(*v);

    memcpy(dst, &h, sizeof(h));
    *v = kern_f16_f32(h);
}


static int
clamp(float v, int low, int high)
{
    /* v is finite; compared as a float before it becomes an int */
    return v <= (float) low ? low : v >= (float) high ? high : (int) v;
}


static int
quant_8(const float *x, uint8_t *dst)
{
    int    i;
    float  d, top = 0, inv;

    for (i = 0; i < BLOCK; i++) {
        top = fmaxf(top, fabsf(x[i]));
    }
    d = top / 127.0f;
    if (!(d <= HALF_MAX)) {
        return -1;
    }
    put_half(dst, &d);
    inv = d > 0.0f ? 1.0f / d : 0.0f;
    for (i = 0; i < BLOCK; i++) {
        dst[2 + i] = (uint8_t) (int8_t) clamp(rintf(x[i] * inv), -127, 127);
    }

    return 0;
}


/* The largest magnitude gets the quant that has no counterpart: -8 or -16. */
static float
scale_signed(const float *x, int half)
{
    int    i;
    float  top = 0, at = 0;

    for (i = 0; i < BLOCK; i++) {
        if (fabsf(x[i]) > top) {
            top = fabsf(x[i]);
            at = x[i];
        }
    }

    return at / (float) -half;
}


static void
bounds(const float *x, float *low, float *high)
{
    int  i;

    *low = *high = x[0];
    for (i = 1; i < BLOCK; i++) {
        *low = fminf(*low, x[i]);
        *high = fmaxf(*high, x[i]);
    }
}


/*
 * Types of 4 and 5 bits: q[i] in 0..levels - 1, and the header.  Returns the
 * bytes of the header, or -1.
 */
static int
quant_low(const float *x, int bits, int with_min, uint8_t *dst,
    uint8_t q[BLOCK])
{
    int    i, levels = 1 << bits;
    float  d, m, high, inv;

    if (with_min) {
        bounds(x, &m, &high);
        d = (high - m) / (float) (levels - 1);
        if (!(d <= HALF_MAX) || !(fabsf(m) <= HALF_MAX)) {
            return -1;
        }
        put_half(dst + 2, &m);
    } else {
        d = scale_signed(x, levels / 2);
        m = 0;
        if (!(fabsf(d) <= HALF_MAX)) {
            return -1;
        }
    }
    put_half(dst, &d);
    inv = d != 0.0f ? 1.0f / d : 0.0f;
    if (!isfinite(inv)) {
        inv = 0.0f;               /* a scale below the smallest half         */
    }
    if (!with_min) {
        m = -d * (float) (levels / 2);
    }
    for (i = 0; i < BLOCK; i++) {
        q[i] = (uint8_t) clamp(rintf((x[i] - m) * inv), 0, levels - 1);
    }

    return with_min ? 4 : 2;
}


static int
quant_block(kern_wtype_t type, const float *x, uint8_t *dst)
{
    int       i, n;
    uint8_t   q[BLOCK];
    uint32_t  high = 0;
    const int five = type == KERN_Q5_0 || type == KERN_Q5_1;

    if (type == KERN_Q8_0) {
        return quant_8(x, dst);
    }
    n = quant_low(x, five ? 5 : 4, type == KERN_Q4_1 || type == KERN_Q5_1,
                  dst, q);
    if (n < 0) {
        return -1;
    }
    if (five) {
        for (i = 0; i < BLOCK; i++) {
            high |= (uint32_t) (q[i] >> 4) << i;
        }
        memcpy(dst + n, &high, sizeof(high));
        n += 4;
    }
    for (i = 0; i < BLOCK / 2; i++) {
        dst[n + i] = (uint8_t) ((q[i] & 15) | (q[i + BLOCK / 2] & 15) << 4);
    }

    return 0;
}


int
eng_quant_row(kern_wtype_t type, const float *x, uint32_t n, uint8_t *dst)
{
    float     sum;
    uint32_t  i, j, bytes = kern_gguf_block_bytes(type);

    eng_assert(n % BLOCK == 0 && bytes > 0 && bytes <= 34);

    for (i = 0; i < n; i += BLOCK, dst += bytes) {
        /* minimum and maximum skip a NaN, a sum keeps it */
        for (sum = 0, j = 0; j < BLOCK; j++) {
            sum += x[i + j] * 0.0f;
        }
        if (sum != 0.0f || quant_block(type, x + i, dst) != 0) {
            return -1;
        }
    }

    return 0;
}
