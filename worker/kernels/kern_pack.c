/*
 * From GGUF rows to the packed layout and back to floats.  The layouts are
 * described in kern_internal.h; the block formats are those of the GGUF
 * specification (ggml project, docs/gguf.md and the type definitions).  Not
 * fast on purpose: it runs once per model file, on any number of threads.
 */
#include "worker/kernels/kern_internal.h"

/* Largest packed matrix, so that offsets never overflow a signed size. */
#define KERN_PACKED_BYTES_MAX   ((size_t) 1 << 40)

#define KERN_NOT_YET(name, elems, bytes)                                      \
    { name, elems, bytes, 0, KERN_PANEL_I8, 0, 0, 0, -1, 0 }

const kern_trait_t  kern_traits[KERN_WTYPE_N] = {
    /*             name   elems bytes  on  panel        q  s  bias  field */
    [KERN_F32] = { "F32",    1,   4, 1, KERN_PANEL_F32, 128, 0, 0, -1, 0 },
    [KERN_F16] = { "F16",    1,   2, 1, KERN_PANEL_F32,  64, 0, 0, -1, 0 },
    [KERN_BF16] = { "BF16",  1,   2, 1, KERN_PANEL_F32,  64, 0, 0, -1, 0 },
    [KERN_Q8_0] = { "Q8_0", 32,  34, 1, KERN_PANEL_I8,   32, 2, 128,
                    KERN_META_N128, 0 },
    [KERN_Q4_0] = { "Q4_0", 32,  18, 1, KERN_PANEL_I8,   16, 2, 8,
                    KERN_META_N8, 0 },
    [KERN_Q4_1] = { "Q4_1", 32,  20, 1, KERN_PANEL_I8,   16, 4, 0, -1, 1 },
    [KERN_Q5_0] = { "Q5_0", 32,  22, 1, KERN_PANEL_I8,   20, 2, 16,
                    KERN_META_N16, 0 },
    [KERN_Q5_1] = { "Q5_1", 32,  24, 1, KERN_PANEL_I8,   20, 4, 0, -1, 1 },
    [KERN_Q2_K] = KERN_NOT_YET("Q2_K", 256, 84),
    [KERN_Q3_K] = KERN_NOT_YET("Q3_K", 256, 110),
    [KERN_Q4_K] = KERN_NOT_YET("Q4_K", 256, 144),
    [KERN_Q5_K] = KERN_NOT_YET("Q5_K", 256, 176),
    [KERN_Q6_K] = KERN_NOT_YET("Q6_K", 256, 210),
    [KERN_IQ4_NL] = KERN_NOT_YET("IQ4_NL", 32, 18),
    [KERN_IQ4_XS] = KERN_NOT_YET("IQ4_XS", 256, 136),
};

static void kern_pack_float(kern_wtype_t type, uint32_t cols,
    const uint8_t *row, uint8_t *group, uint32_t lane);
static void kern_pack_int(kern_wtype_t type, uint32_t cols,
    const uint8_t *row, uint8_t *group, uint32_t lane);


/* A GGUF block of one row, read apart: 32 unsigned quants, scale words. */
typedef struct {
    uint8_t     q[KERN_BLOCK];
    uint16_t    d;
    uint16_t    min;
} kern_gguf_block_t;


int
kern_wtype_supported(kern_wtype_t type)
{
    return (unsigned) type < KERN_WTYPE_N && kern_traits[type].supported;
}


const char *
kern_wtype_name(kern_wtype_t type)
{
    return (unsigned) type < KERN_WTYPE_N ? kern_traits[type].name : "?";
}


uint32_t
kern_gguf_block_elems(kern_wtype_t type)
{
    return (unsigned) type < KERN_WTYPE_N ? kern_traits[type].gguf_elems : 0;
}


uint32_t
kern_gguf_block_bytes(kern_wtype_t type)
{
    return (unsigned) type < KERN_WTYPE_N ? kern_traits[type].gguf_bytes : 0;
}


size_t
kern_gguf_row_bytes(kern_wtype_t type, uint32_t cols)
{
    uint32_t  elems = kern_gguf_block_elems(type);

    if (elems == 0 || cols % elems != 0) {
        return 0;
    }

    return (size_t) (cols / elems) * kern_traits[type].gguf_bytes;
}


kern_panel_kind_t
kern_panel_kind(kern_wtype_t type)
{
    KERN_ASSERT(kern_wtype_supported(type));
    return kern_traits[type].kind;
}


static int
kern_shape_ok(kern_wtype_t type, uint32_t rows, uint32_t cols)
{
    return rows > 0 && rows <= KERN_ROWS_MAX && cols > 0
           && cols <= KERN_COLS_MAX && cols % KERN_BLOCK == 0
           && cols % kern_traits[type].gguf_elems == 0;
}


size_t
kern_packed_bytes(kern_wtype_t type, uint32_t rows, uint32_t cols)
{
    size_t  groups, bytes;

    if (!kern_wtype_supported(type) || !kern_shape_ok(type, rows, cols)) {
        return 0;
    }

    groups = ((size_t) rows + KERN_ROW_GROUP - 1) / KERN_ROW_GROUP;

    if (__builtin_mul_overflow(groups,
                               kern_group_bytes(&kern_traits[type], cols),
                               &bytes)
        || bytes > KERN_PACKED_BYTES_MAX)
    {
        return 0;
    }

    return bytes;
}


void
kern_packed_range(kern_wtype_t type, uint32_t rows, uint32_t cols,
    uint32_t row_begin, uint32_t row_end, size_t *begin, size_t *end)
{
    size_t  group;

    KERN_ASSERT(kern_packed_bytes(type, rows, cols) != 0);
    KERN_ASSERT(row_begin % KERN_ROW_GROUP == 0 && row_begin <= row_end);
    KERN_ASSERT(row_end == rows || row_end % KERN_ROW_GROUP == 0);

    group = kern_group_bytes(&kern_traits[type], cols);
    *begin = row_begin / KERN_ROW_GROUP * group;
    *end = ((size_t) row_end + KERN_ROW_GROUP - 1) / KERN_ROW_GROUP * group;
}


int
kern_pack(kern_wtype_t type, uint32_t rows, uint32_t cols,
    const void *rows_data, void *dst, uint32_t row_begin, uint32_t row_end)
{
    size_t          group_bytes, row_bytes;
    uint8_t        *group;
    const uint8_t  *src = rows_data;

    if (!kern_wtype_supported(type)) {
        return KERN_E_TYPE;
    }

    if (kern_packed_bytes(type, rows, cols) == 0) {
        return KERN_E_SHAPE;
    }

    KERN_ASSERT(row_begin % KERN_ROW_GROUP == 0 && row_end <= rows);
    KERN_ASSERT(row_end == rows || row_end % KERN_ROW_GROUP == 0);
    KERN_ASSERT((uintptr_t) dst % KERN_ALIGN == 0);

    group_bytes = kern_group_bytes(&kern_traits[type], cols);
    row_bytes = kern_gguf_row_bytes(type, cols);

    for (uint32_t row = row_begin; row < row_end; row++) {
        group = (uint8_t *) dst + row / KERN_ROW_GROUP * group_bytes;

        /* padding rows, and the plane whose bits are set one by one */
        if (row % KERN_ROW_GROUP == 0) {
            memset(group, 0, group_bytes);
        }

        if (kern_traits[type].kind == KERN_PANEL_F32) {
            kern_pack_float(type, cols, src + row * row_bytes, group,
                            row % KERN_ROW_GROUP);
        } else {
            kern_pack_int(type, cols, src + row * row_bytes, group,
                          row % KERN_ROW_GROUP);
        }
    }

    return KERN_OK;
}


static uint16_t
kern_read16(const uint8_t *p)
{
    return (uint16_t) (p[0] | p[1] << 8);
}


static void
kern_write16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t) v;
    p[1] = (uint8_t) (v >> 8);
}


static void
kern_pack_float(kern_wtype_t type, uint32_t cols, const uint8_t *row,
    uint8_t *group, uint32_t lane)
{
    size_t  size = kern_traits[type].gguf_bytes;

    for (size_t c = 0; c < cols; c++) {
        memcpy(group + (c * KERN_ROW_GROUP + lane) * size, row + c * size,
               size);
    }
}


/* The 16 nibble bytes of a 4- or 5-bit block: low nibbles come first. */
static void
kern_gguf_nibbles(const uint8_t *qs, uint32_t fifth, uint8_t *q)
{
    for (uint32_t i = 0; i < 16; i++) {
        q[i] = (uint8_t) ((qs[i] & 15u) | ((fifth >> i) & 1u) << 4);
        q[i + 16] = (uint8_t) (qs[i] >> 4 | ((fifth >> (i + 16)) & 1u) << 4);
    }
}


static void
kern_gguf_block(kern_wtype_t type, const uint8_t *p, kern_gguf_block_t *b)
{
    const kern_trait_t  *t = &kern_traits[type];
    uint32_t             fifth = 0;

    b->d = kern_read16(p);
    b->min = t->has_min ? kern_read16(p + 2) : 0;
    p += t->scale_bytes;

    if (type == KERN_Q8_0) {
        for (uint32_t i = 0; i < KERN_BLOCK; i++) {
            b->q[i] = (uint8_t) (p[i] ^ 0x80u);     /* int8 + 128 */
        }
        return;
    }

    if (t->quant_bytes == 20) {
        fifth = (uint32_t) kern_read16(p)
                | (uint32_t) kern_read16(p + 2) << 16;
        p += 4;
    }

    kern_gguf_nibbles(p, fifth, b->q);
}


/* Offset of the dword of vector t, lane r. */
static inline size_t
kern_dword(uint32_t t, uint32_t lane)
{
    return ((size_t) t * KERN_ROW_GROUP + lane) * 4;
}


static void
kern_pack_quants(const kern_trait_t *t, const uint8_t *q, uint8_t *dst,
    uint32_t lane)
{
    uint64_t  word;

    if (t->quant_bytes == 32) {
        for (uint32_t i = 0; i < KERN_BLOCK; i++) {
            dst[kern_dword(i / 4, lane) + i % 4] = q[i];
        }
        return;
    }

    for (uint32_t i = 0; i < 16; i++) {
        dst[kern_dword(i / 4, lane) + i % 4] =
            (uint8_t) ((q[i] & 15u) | (q[i + 16] & 15u) << 4);
    }

    for (uint32_t i = 0; t->quant_bytes == 20 && i < 8; i++) {
        memcpy(&word, dst + 256 + 8 * i, sizeof(word));

        for (uint32_t j = 0; j < 4; j++) {
            word |= (uint64_t) (q[4 * i + j] >> 4 & 1u) << (4 * lane + j);
        }

        memcpy(dst + 256 + 8 * i, &word, sizeof(word));
    }
}


static void
kern_pack_int(kern_wtype_t type, uint32_t cols, const uint8_t *row,
    uint8_t *group, uint32_t lane)
{
    uint8_t             *scale;
    uint32_t             nb = cols / KERN_BLOCK;
    kern_gguf_block_t    b;
    const kern_trait_t  *t = &kern_traits[type];

    scale = group + (size_t) nb * t->quant_bytes * KERN_ROW_GROUP;

    for (uint32_t i = 0; i < nb; i++) {
        kern_gguf_block(type, row + (size_t) i * t->gguf_bytes, &b);
        kern_pack_quants(t, b.q, group, lane);
        kern_write16(scale + 2 * lane, b.d);

        if (t->has_min) {
            kern_write16(scale + 32 + 2 * lane, b.min);
        }

        group += (size_t) t->quant_bytes * KERN_ROW_GROUP;
        scale += (size_t) t->scale_bytes * KERN_ROW_GROUP;
    }
}


void
kern_block_get(kern_wtype_t type, const uint8_t *group, uint32_t cols,
    uint32_t block, kern_block_t *out)
{
    uint64_t             word;
    uint32_t             nb = cols / KERN_BLOCK;
    const uint8_t       *q, *scale;
    const kern_trait_t  *t = &kern_traits[type];

    KERN_ASSERT(t->kind == KERN_PANEL_I8 && block < nb);

    scale = group + (size_t) nb * t->quant_bytes * KERN_ROW_GROUP
            + (size_t) block * t->scale_bytes * KERN_ROW_GROUP;
    q = group + (size_t) block * t->quant_bytes * KERN_ROW_GROUP;

    for (uint32_t r = 0; r < KERN_ROW_GROUP; r++) {
        out->d[r] = kern_f16_f32(kern_read16(scale + 2 * r));
        out->min[r] = t->has_min
                      ? kern_f16_f32(kern_read16(scale + 32 + 2 * r)) : 0;

        for (uint32_t i = 0; i < KERN_BLOCK; i++) {
            if (t->quant_bytes == 32) {
                out->q[r][i] = q[kern_dword(i / 4, r) + i % 4];
                continue;
            }

            out->q[r][i] = (uint8_t) (q[kern_dword(i % 16 / 4, r) + i % 4]
                                      >> (i / 16 * 4) & 15u);

            if (t->quant_bytes == 20) {
                memcpy(&word, q + 256 + 8 * (i / 4), sizeof(word));
                out->q[r][i] |= (uint8_t) ((word >> (4 * r + i % 4) & 1u)
                                           << 4);
            }
        }
    }
}


float
kern_float_get(kern_wtype_t type, const uint8_t *group, uint32_t col,
    uint32_t row)
{
    float     f;
    uint16_t  h;
    size_t    i = (size_t) col * KERN_ROW_GROUP + row;

    if (type == KERN_F32) {
        memcpy(&f, group + i * sizeof(f), sizeof(f));
        return f;
    }

    memcpy(&h, group + i * sizeof(h), sizeof(h));
    return type == KERN_F16 ? kern_f16_f32(h) : kern_bf16_f32(h);
}


void
kern_row_f32(const kern_weight_t *w, uint32_t row, float *out)
{
    uint32_t             lane = row % KERN_ROW_GROUP;
    kern_block_t         b;
    const uint8_t       *group;
    const kern_trait_t  *t = &kern_traits[w->type];

    KERN_ASSERT(kern_wtype_supported(w->type) && row < w->rows);

    group = (const uint8_t *) w->packed
            + row / KERN_ROW_GROUP * kern_group_bytes(t, w->cols);

    if (t->kind == KERN_PANEL_F32) {
        for (uint32_t i = 0; i < w->cols; i++) {
            out[i] = kern_float_get(w->type, group, i, lane);
        }
        return;
    }

    for (uint32_t i = 0; i < w->cols / KERN_BLOCK; i++) {
        kern_block_get(w->type, group, w->cols, i, &b);

        for (uint32_t j = 0; j < KERN_BLOCK; j++) {
            out[i * KERN_BLOCK + j] = (float) (b.q[lane][j] - t->bias)
                                      * b.d[lane] + b.min[lane];
        }
    }
}


void
kern_gguf_row_f32(kern_wtype_t type, const void *row, uint32_t n, float *out)
{
    float                f;
    const uint8_t       *p = row;
    kern_gguf_block_t    b;
    const kern_trait_t  *t = &kern_traits[type];

    KERN_ASSERT(kern_wtype_supported(type) && n % t->gguf_elems == 0);

    for (uint32_t i = 0; i < n; i += t->gguf_elems) {

        if (type == KERN_F32) {
            memcpy(&f, p, sizeof(f));
            out[i] = f;

        } else if (t->kind == KERN_PANEL_F32) {
            out[i] = type == KERN_F16 ? kern_f16_f32(kern_read16(p))
                                      : kern_bf16_f32(kern_read16(p));
        } else {
            kern_gguf_block(type, p, &b);

            for (uint32_t j = 0; j < KERN_BLOCK; j++) {
                out[i + j] = (float) (b.q[j] - t->bias) * kern_f16_f32(b.d)
                             + (t->has_min ? kern_f16_f32(b.min) : 0.0f);
            }
        }

        p += t->gguf_bytes;
    }
}
