/*
 * Shared inside worker/kernels/ and by its tests: the layouts of packed
 * matrices and panels, and the scalar view of a packed block that the
 * reference and the row look-up use.
 *
 * Packed matrix: groups of 16 rows, each kern_group_bytes().
 *   Integer types: the quants of all blocks (32 columns each), then the
 *   scales of all blocks, then for K types the f16 words of all super-blocks
 *   (256 columns), padded to 64 bytes.
 *     8-bit: 8 vectors of 16 dwords; vector t, lane r = columns 4t..4t+3 of
 *            row r, as unsigned bytes w + 128.
 *     4-bit: 4 vectors; vector t, lane r: low nibbles are columns 4t..4t+3,
 *            high nibbles 16 + 4t...  (Q2_K and Q3_K too: half a bit to two
 *            bits per weight more than in the file, for one less format.)
 *     5-bit: as 4-bit, then 8 words of 64 bits: bit 4r + j of word t = the
 *            fifth bit of column 4t + j of row r.
 *     6-bit: as 4-bit, then 2 vectors: byte 4r + j of vector v holds at bits
 *            2u..2u+1 the upper two bits of column 16v + 4u + j of row r.
 *     NL:    as 4-bit, the nibble being an index of kern_levels_nl.
 *     scales of a block, 16 of each (one per row):
 *            D   f16 d                   DM   f16 d, f16 min
 *            K   int8                    KM   u8 scale, u8 min
 *            KH  int8 of columns 0..15, int8 of columns 16..31
 *            KHM u8 scale of each half, u8 min of each half
 *     super-block words, 16 of each: f16 d, and f16 dmin for KM and KHM.
 *   Float types: [cols][16] elements; BF16 in pairs, [cols / 2][16][2], the
 *   second column's element first: the upper half of a dword is the first.
 *
 * Panel: columns in slices of 8, the last one narrower (w = its columns).
 *   Slice s starts at column 8 s; value order inside is [block][w][32 bytes]
 *   for int8 and [k][w] for floats, [k / 2][w] dwords for pairs of bfloat16
 *   (as in a matrix).  meta has KERN_META_N fields, each [slice][block][w].
 *   Two planes are two such panels of int8.
 */
#ifndef KERN_INTERNAL_H
#define KERN_INTERNAL_H

#include "worker/kernels/kern.h"
#include "worker/kernels/kern_f16.h"

#define KERN_SLICE      8u      /* columns per slice of a panel */
#define KERN_ATTN_PAGES (KERN_ATTN_BLOCK / KERN_KV_PAGE)
#define KERN_STRETCH    32u     /* blocks expanded at a time: 24 KB */

/* Stays on in release; the process that asserts dies and is replaced. */
#define KERN_ASSERT(c)                                                        \
    do {                                                                      \
        if (__builtin_expect(!(c), 0)) {                                      \
            kern_assert_failed(#c, __FILE__, __LINE__);                       \
        }                                                                     \
    } while (0)

_Noreturn void kern_assert_failed(const char *expr, const char *file,
    int line);

/* Fields of a panel's meta, floats or int32 in the same 4 bytes. */
enum {
    KERN_META_D = 0,            /* scale d */
    KERN_META_DS,               /* d * sum of the 32 int8 */
    KERN_META_N8,               /* -8 * sum, int32: bias of 4-bit types */
    KERN_META_N16,              /* -16 * sum, int32: bias of 5-bit types */
    KERN_META_N128,             /* -128 * sum, int32: bias of 8-bit types */
    KERN_META_N32A,             /* -32 * sum of the lower 16, int32 */
    KERN_META_N32B,             /* -32 * sum of the upper 16 */
    KERN_META_N8A,
    KERN_META_N8B,
    KERN_META_DSA,              /* d * sum of the lower 16 */
    KERN_META_DSB,
    KERN_META_N
};

/* Forms of packed quants and of scales, see above. */
enum {
    KERN_FORM_FLOAT = 0,
    KERN_FORM_8,
    KERN_FORM_4,
    KERN_FORM_5,
    KERN_FORM_6,
    KERN_FORM_NL,
    KERN_FORM_BYTES             /* not stored: a stretch expanded in cache */
};

enum {
    KERN_SCALE_NONE = 0,
    KERN_SCALE_D,
    KERN_SCALE_DM,
    KERN_SCALE_K,
    KERN_SCALE_KM,
    KERN_SCALE_KH,
    KERN_SCALE_KHM
};

/* Static facts of a weight type. */
typedef struct {
    const char     *name;
    uint16_t        gguf_elems;
    uint16_t        gguf_bytes;
    uint8_t         quant_bytes;    /* packed, per block and row */
    uint8_t         scale_bytes;    /* packed, per block and row */
    uint8_t         super_bytes;    /* packed, per super-block and row */
    uint8_t         bias;           /* value = level - bias */
    uint8_t         form;
    uint8_t         scales;
} kern_trait_t;

extern const kern_trait_t  kern_traits[KERN_WTYPE_N];
extern const uint8_t       kern_levels_nl[16];

/* What the arithmetic of a type needs, constants where `scales` is one. */
static inline int
kern_has_min(const int scales)
{
    return scales == KERN_SCALE_DM || scales == KERN_SCALE_KM
           || scales == KERN_SCALE_KHM;
}

static inline int
kern_has_halves(const int scales)
{
    return scales == KERN_SCALE_KH || scales == KERN_SCALE_KHM;
}

/* The meta fields of a bias: -1 for none, the lower of two for halves. */
static inline int
kern_bias_field(uint32_t bias, int halves)
{
    switch (bias) {
    case 8:
        return halves ? KERN_META_N8A : KERN_META_N8;
    case 16:
        return KERN_META_N16;
    case 32:
        return KERN_META_N32A;
    case 128:
        return KERN_META_N128;
    default:
        return -1;
    }
}

/* Bytes of one packed 16-row group; cols is a checked multiple of 32. */
static inline size_t
kern_group_bytes(const kern_trait_t *t, uint32_t cols)
{
    size_t  n = (size_t) cols / KERN_BLOCK * KERN_ROW_GROUP
                * ((size_t) t->quant_bytes + t->scale_bytes)
                + (size_t) cols / 256 * KERN_ROW_GROUP * t->super_bytes;

    return (n + KERN_ALIGN - 1) & ~((size_t) KERN_ALIGN - 1);
}

/* A block of one row read apart: levels 0..255 (or an index for NL), f16
 * words, integer scales and minima of the two halves. */
typedef struct {
    uint8_t     q[KERN_BLOCK];
    uint16_t    d;
    uint16_t    dmin;
    int8_t      sc[2];
    uint8_t     mn[2];
} kern_gguf_block_t;

/* Block `block` (of 32) of a GGUF row. */
void kern_gguf_block(kern_wtype_t type, const uint8_t *row, uint32_t block,
    kern_gguf_block_t *b);

/* Scales and minima of the halves of a block, as every kernel forms them. */
void kern_block_scales(kern_wtype_t type, const kern_gguf_block_t *b,
    float d[2], float min[2]);

/* The integer that a stored quant stands for. */
static inline int
kern_quant_value(kern_wtype_t type, uint8_t q)
{
    const kern_trait_t  *t = &kern_traits[type];

    return (t->form == KERN_FORM_NL ? kern_levels_nl[q & 15] : q) - t->bias;
}

/* One packed block as the reference sees it: 16 rows. */
typedef struct {
    int16_t     q[KERN_ROW_GROUP][KERN_BLOCK];
    float       d[KERN_ROW_GROUP][2];
    float       min[KERN_ROW_GROUP][2];
} kern_block_t;

void kern_block_get(kern_wtype_t type, const uint8_t *group, uint32_t cols,
    uint32_t block, kern_block_t *out);

/* Element [col][row] of a packed float group. */
float kern_float_get(kern_wtype_t type, const uint8_t *group, uint32_t col,
    uint32_t row);

/* Start of a slice's values and of a meta field. */
static inline const int8_t *
kern_panel_i8(const kern_panel_t *p, uint32_t slice)
{
    return (const int8_t *) p->data + (size_t) slice * KERN_SLICE * p->k;
}

static inline float *
kern_panel_f32(const kern_panel_t *p, uint32_t slice)
{
    return (float *) p->data + (size_t) slice * KERN_SLICE * p->k;
}

static inline float *
kern_panel_meta(const kern_panel_t *p, uint32_t field, uint32_t slice)
{
    size_t  nb = p->k / KERN_BLOCK;

    return p->meta + (size_t) field * p->m * nb
           + (size_t) slice * KERN_SLICE * nb;
}

/* Plane 0 or 1 of a panel as one of int8; 0 if it has no such plane. */
static inline int
kern_panel_plane(const kern_panel_t *p, uint32_t i, kern_panel_t *plane)
{
    *plane = *p;
    plane->kind = KERN_PANEL_I8;
    plane->plane = 0;

    if (i != 0) {
        plane->data = (uint8_t *) p->data + p->plane;
        plane->meta = (float *) ((uint8_t *) p->meta + p->plane);
    }

    return i == 0 || (i == 1 && p->plane != 0);
}

static inline uint32_t
kern_slice_width(const kern_panel_t *p, uint32_t slice)
{
    uint32_t  left = p->m - slice * KERN_SLICE;

    return left < KERN_SLICE ? left : KERN_SLICE;
}

#include "worker/kernels/kern_table.h"     /* the table of kernels */

#endif
