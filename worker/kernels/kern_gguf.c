/*
 * Block formats of GGUF, one block of 32 values at a time, by the layouts of
 * the GGUF project's type definitions (ggml, ggml-common.h).  Nothing here
 * trusts a value: every bit pattern has a meaning.
 */
#include "worker/kernels/kern_internal.h"

const kern_trait_t  kern_traits[KERN_WTYPE_N] = {
    /*              name    elems bytes  quant scale super bias  form, scales */
    [KERN_F32]    = { "F32",    1,   4,  128,  0, 0,   0, KERN_FORM_FLOAT,
                      KERN_SCALE_NONE },
    [KERN_F16]    = { "F16",    1,   2,   64,  0, 0,   0, KERN_FORM_FLOAT,
                      KERN_SCALE_NONE },
    [KERN_BF16]   = { "BF16",   1,   2,   64,  0, 0,   0, KERN_FORM_FLOAT,
                      KERN_SCALE_NONE },
    [KERN_Q8_0]   = { "Q8_0",  32,  34,   32,  2, 0, 128, KERN_FORM_8,
                      KERN_SCALE_D },
    [KERN_Q4_0]   = { "Q4_0",  32,  18,   16,  2, 0,   8, KERN_FORM_4,
                      KERN_SCALE_D },
    [KERN_Q4_1]   = { "Q4_1",  32,  20,   16,  4, 0,   0, KERN_FORM_4,
                      KERN_SCALE_DM },
    [KERN_Q5_0]   = { "Q5_0",  32,  22,   20,  2, 0,  16, KERN_FORM_5,
                      KERN_SCALE_D },
    [KERN_Q5_1]   = { "Q5_1",  32,  24,   20,  4, 0,   0, KERN_FORM_5,
                      KERN_SCALE_DM },
    [KERN_Q2_K]   = { "Q2_K",  256,  84,  16,  4, 4,   0, KERN_FORM_4,
                      KERN_SCALE_KHM },
    [KERN_Q3_K]   = { "Q3_K",  256, 110,  16,  2, 2,   8, KERN_FORM_4,
                      KERN_SCALE_KH },
    [KERN_Q4_K]   = { "Q4_K",  256, 144,  16,  2, 4,   0, KERN_FORM_4,
                      KERN_SCALE_KM },
    [KERN_Q5_K]   = { "Q5_K",  256, 176,  20,  2, 4,   0, KERN_FORM_5,
                      KERN_SCALE_KM },
    [KERN_Q6_K]   = { "Q6_K",  256, 210,  24,  2, 2,  32, KERN_FORM_6,
                      KERN_SCALE_KH },
    [KERN_IQ4_NL] = { "IQ4_NL", 32,  18,  16,  2, 0, 128, KERN_FORM_NL,
                      KERN_SCALE_D },
    [KERN_IQ4_XS] = { "IQ4_XS", 256, 136, 16,  1, 2, 128, KERN_FORM_NL,
                      KERN_SCALE_K },
};

/* The non-linear levels of the IQ4 types, 128 added. */
const uint8_t  kern_levels_nl[16] = {
    1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241
};


static uint16_t
kern_read16(const uint8_t *p)
{
    return (uint16_t) (p[0] | p[1] << 8);
}


/* Types whose block of 32 stands alone: d, (min), (fifth bits), quants. */
static void
kern_gguf_simple(kern_wtype_t type, const uint8_t *p, kern_gguf_block_t *b)
{
    uint32_t             fifth = 0;
    const kern_trait_t  *t = &kern_traits[type];

    b->d = kern_read16(p);
    b->dmin = t->scales == KERN_SCALE_DM ? kern_read16(p + 2) : 0;
    p += t->scale_bytes;

    if (t->form == KERN_FORM_8) {
        for (uint32_t i = 0; i < KERN_BLOCK; i++) {
            b->q[i] = (uint8_t) (p[i] ^ 0x80u);     /* int8 + 128 */
        }
        return;
    }

    if (t->form == KERN_FORM_5) {
        fifth = (uint32_t) kern_read16(p)
                | (uint32_t) kern_read16(p + 2) << 16;
        p += 4;
    }

    for (uint32_t i = 0; i < 16; i++) {
        b->q[i] = (uint8_t) ((p[i] & 15u) | (fifth >> i & 1u) << 4);
        b->q[i + 16] = (uint8_t) (p[i] >> 4 | (fifth >> (i + 16) & 1u) << 4);
    }
}


/* scales[16], 2-bit quants [64], d, dmin */
static void
kern_gguf_q2_k(const uint8_t *p, uint32_t j, kern_gguf_block_t *b)
{
    for (uint32_t i = 0; i < KERN_BLOCK; i++) {
        b->q[i] = p[16 + j / 4 * 32 + i] >> (j % 4 * 2) & 3u;
    }

    for (uint32_t h = 0; h < 2; h++) {
        b->sc[h] = (int8_t) (p[2 * j + h] & 15u);
        b->mn[h] = p[2 * j + h] >> 4;
    }

    b->d = kern_read16(p + 80);
    b->dmin = kern_read16(p + 82);
}


/* high bits [32], 2-bit quants [64], 16 scales of 6 bits in 12 bytes, d.
 * Quants are 0..7 minus 4; packed with 4 added to fit the 4-bit bias of 8. */
static void
kern_gguf_q3_k(const uint8_t *p, uint32_t j, kern_gguf_block_t *b)
{
    uint32_t        low, s;
    const uint8_t  *sc = p + 96;

    for (uint32_t i = 0; i < KERN_BLOCK; i++) {
        low = p[32 + j / 4 * 32 + i] >> (j % 4 * 2) & 3u;
        b->q[i] = (uint8_t) ((low | (p[i] >> j & 1u) << 2) + 4);
    }

    for (uint32_t h = 0; h < 2; h++) {
        s = 2 * j + h;
        low = s < 8 ? sc[s] & 15u : sc[s - 8] >> 4;
        b->sc[h] = (int8_t) ((int) (low | (sc[8 + s % 4] >> (s / 4 * 2) & 3u)
                                          << 4) - 32);
    }

    b->d = kern_read16(p + 108);
}


/* d, dmin, 8 scales and 8 minima of 6 bits in 12 bytes, (fifth bits [32]),
 * nibbles [128] in runs of 32 bytes: low nibbles one block, high the next. */
static void
kern_gguf_q45_k(kern_wtype_t type, const uint8_t *p, uint32_t j,
    kern_gguf_block_t *b)
{
    const uint8_t  *sc = p + 4;
    const uint8_t  *high = type == KERN_Q5_K ? p + 16 : NULL;
    const uint8_t  *qs = p + (type == KERN_Q5_K ? 48 : 16) + j / 2 * 32;

    for (uint32_t i = 0; i < KERN_BLOCK; i++) {
        b->q[i] = qs[i] >> (j % 2 * 4) & 15u;

        if (high != NULL) {
            b->q[i] |= (uint8_t) ((high[i] >> j & 1u) << 4);
        }
    }

    if (j < 4) {
        b->sc[0] = (int8_t) (sc[j] & 63u);
        b->mn[0] = sc[j + 4] & 63u;
    } else {
        b->sc[0] = (int8_t) ((sc[j + 4] & 15u) | sc[j - 4] >> 6 << 4);
        b->mn[0] = (uint8_t) (sc[j + 4] >> 4 | sc[j] >> 6 << 4);
    }

    b->sc[1] = b->sc[0];
    b->mn[1] = b->mn[0];
    b->d = kern_read16(p);
    b->dmin = kern_read16(p + 2);
}


/* low nibbles [128], high pairs [64], int8 scales [16], d */
static void
kern_gguf_q6_k(const uint8_t *p, uint32_t j, kern_gguf_block_t *b)
{
    uint32_t        r = j % 4;
    const uint8_t  *low = p + j / 4 * 64 + r % 2 * 32;
    const uint8_t  *high = p + 128 + j / 4 * 32;

    for (uint32_t i = 0; i < KERN_BLOCK; i++) {
        b->q[i] = (uint8_t) ((low[i] >> (r / 2 * 4) & 15u)
                             | (high[i] >> (2 * r) & 3u) << 4);
    }

    b->sc[0] = (int8_t) p[192 + 2 * j];
    b->sc[1] = (int8_t) p[192 + 2 * j + 1];
    b->d = kern_read16(p + 208);
}


/* d, high scale bits [16 bits], low scale nibbles [4], nibbles [128] */
static void
kern_gguf_iq4_xs(const uint8_t *p, uint32_t j, kern_gguf_block_t *b)
{
    uint32_t        low = p[4 + j / 2] >> (j % 2 * 4) & 15u;
    uint32_t        high = kern_read16(p + 2) >> (2 * j) & 3u;
    const uint8_t  *qs = p + 8 + j * 16;

    for (uint32_t i = 0; i < 16; i++) {
        b->q[i] = qs[i] & 15u;
        b->q[i + 16] = qs[i] >> 4;
    }

    b->sc[0] = b->sc[1] = (int8_t) ((int) (low | high << 4) - 32);
    b->d = kern_read16(p);
}


void
kern_gguf_block(kern_wtype_t type, const uint8_t *row, uint32_t block,
    kern_gguf_block_t *b)
{
    uint32_t             per = kern_traits[type].gguf_elems / KERN_BLOCK;
    const uint8_t       *p;

    KERN_ASSERT(per == 1 || per == 8);

    p = row + (size_t) (block / per) * kern_traits[type].gguf_bytes;
    block %= per;
    b->dmin = 0;
    b->sc[0] = b->sc[1] = 1;
    b->mn[0] = b->mn[1] = 0;

    switch (type) {
    case KERN_Q2_K:
        kern_gguf_q2_k(p, block, b);
        break;
    case KERN_Q3_K:
        kern_gguf_q3_k(p, block, b);
        break;
    case KERN_Q4_K:
    case KERN_Q5_K:
        kern_gguf_q45_k(type, p, block, b);
        break;
    case KERN_Q6_K:
        kern_gguf_q6_k(p, block, b);
        break;
    case KERN_IQ4_XS:
        kern_gguf_iq4_xs(p, block, b);
        break;
    default:
        kern_gguf_simple(type, p, b);
        break;
    }
}


void
kern_gguf_row_f32(kern_wtype_t type, const void *row, uint32_t n, float *out)
{
    float               f, d[2], min[2];
    kern_gguf_block_t   b;
    const uint8_t      *p = row;

    KERN_ASSERT(kern_wtype_supported(type));
    KERN_ASSERT(n % kern_traits[type].gguf_elems == 0);

    if (kern_traits[type].form == KERN_FORM_FLOAT) {
        for (uint32_t i = 0; i < n; i++) {
            if (type == KERN_F32) {
                memcpy(&f, p + 4 * (size_t) i, sizeof(f));
                out[i] = f;
            } else {
                uint16_t  h = kern_read16(p + 2 * (size_t) i);

                out[i] = type == KERN_F16 ? kern_f16_f32(h)
                                          : kern_bf16_f32(h);
            }
        }
        return;
    }

    for (uint32_t i = 0; i < n; i += KERN_BLOCK) {
        kern_gguf_block(type, p, i / KERN_BLOCK, &b);
        kern_block_scales(type, &b, d, min);

        for (uint32_t j = 0; j < KERN_BLOCK; j++) {
            out[i + j] = (float) kern_quant_value(type, b.q[j]) * d[j / 16]
                         + min[j / 16];
        }
    }
}
