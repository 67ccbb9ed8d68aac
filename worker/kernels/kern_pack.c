/*
 * From GGUF rows to the packed layout and back to floats.  The layouts are
 * described in kern_internal.h, the block formats of the file are read by
 * kern_gguf.c.  Not fast on purpose: it runs once per model file, on any
 * number of threads.
 */
#include "worker/kernels/kern_internal.h"

/* Largest packed matrix, so that offsets never overflow a signed size. */
#define KERN_PACKED_BYTES_MAX   ((size_t) 1 << 40)

static void kern_pack_float(kern_wtype_t type, uint32_t cols,
    const uint8_t *row, uint8_t *group, uint32_t lane);
static void kern_pack_int(kern_wtype_t type, uint32_t cols,
    const uint8_t *row, uint8_t *group, uint32_t lane);


int
kern_wtype_supported(kern_wtype_t type)
{
    return (unsigned) type < KERN_WTYPE_N;
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
    return kern_traits[type].form == KERN_FORM_FLOAT ? KERN_PANEL_F32
                                                     : KERN_PANEL_I8;
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

        if (kern_traits[type].form == KERN_FORM_FLOAT) {
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


/* Element [col][row] of a packed float group. */
static inline size_t
kern_float_at(kern_wtype_t type, size_t col, uint32_t row)
{
    return type == KERN_BF16
           ? (col / 2 * KERN_ROW_GROUP + row) * 2 + (1 - col % 2)
           : col * KERN_ROW_GROUP + row;
}


static void
kern_pack_float(kern_wtype_t type, uint32_t cols, const uint8_t *row,
    uint8_t *group, uint32_t lane)
{
    size_t  size = kern_traits[type].gguf_bytes;

    for (size_t c = 0; c < cols; c++) {
        memcpy(group + kern_float_at(type, c, lane) * size, row + c * size,
               size);
    }
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

    if (t->form == KERN_FORM_8) {
        for (uint32_t i = 0; i < KERN_BLOCK; i++) {
            dst[kern_dword(i / 4, lane) + i % 4] = q[i];
        }
        return;
    }

    for (uint32_t i = 0; i < 16; i++) {
        dst[kern_dword(i / 4, lane) + i % 4] =
            (uint8_t) ((q[i] & 15u) | (q[i + 16] & 15u) << 4);
    }

    for (uint32_t i = 0; t->form == KERN_FORM_5 && i < 8; i++) {
        memcpy(&word, dst + 256 + 8 * i, sizeof(word));

        for (uint32_t j = 0; j < 4; j++) {
            word |= (uint64_t) (q[4 * i + j] >> 4 & 1u) << (4 * lane + j);
        }

        memcpy(dst + 256 + 8 * i, &word, sizeof(word));
    }

    for (uint32_t i = 0; t->form == KERN_FORM_6 && i < KERN_BLOCK; i++) {
        dst[256 + i / 16 * 64 + 4 * lane + i % 4] |=
            (uint8_t) ((q[i] >> 4 & 3u) << (i / 4 % 4 * 2));
    }
}


/* The scale record of a block and, once per super-block, its f16 words. */
static void
kern_pack_scales(const kern_trait_t *t, const kern_gguf_block_t *b,
    uint8_t *scale, uint8_t *super, uint32_t lane)
{
    switch (t->scales) {
    case KERN_SCALE_DM:
        kern_write16(scale + 32 + 2 * lane, b->dmin);
        /* fall through */
    case KERN_SCALE_D:
        kern_write16(scale + 2 * lane, b->d);
        return;
    case KERN_SCALE_KHM:
        scale[32 + lane] = b->mn[0];
        scale[48 + lane] = b->mn[1];
        /* fall through */
    case KERN_SCALE_KH:
        scale[lane] = (uint8_t) b->sc[0];
        scale[16 + lane] = (uint8_t) b->sc[1];
        break;
    case KERN_SCALE_KM:
        scale[16 + lane] = b->mn[0];
        /* fall through */
    default:
        scale[lane] = (uint8_t) b->sc[0];
        break;
    }

    kern_write16(super + 2 * lane, b->d);

    if (kern_has_min(t->scales)) {
        kern_write16(super + 32 + 2 * lane, b->dmin);
    }
}


static void
kern_pack_int(kern_wtype_t type, uint32_t cols, const uint8_t *row,
    uint8_t *group, uint32_t lane)
{
    uint8_t             *scale, *super;
    uint32_t             nb = cols / KERN_BLOCK;
    kern_gguf_block_t    b;
    const kern_trait_t  *t = &kern_traits[type];

    scale = group + (size_t) nb * t->quant_bytes * KERN_ROW_GROUP;
    super = scale + (size_t) nb * t->scale_bytes * KERN_ROW_GROUP;

    for (uint32_t i = 0; i < nb; i++) {
        kern_gguf_block(type, row, i, &b);
        kern_pack_quants(t, b.q, group, lane);
        kern_pack_scales(t, &b, scale,
            super + (size_t) (i / 8) * t->super_bytes * KERN_ROW_GROUP, lane);
        group += (size_t) t->quant_bytes * KERN_ROW_GROUP;
        scale += (size_t) t->scale_bytes * KERN_ROW_GROUP;
    }
}


void
kern_block_scales(kern_wtype_t type, const kern_gguf_block_t *b, float d[2],
    float min[2])
{
    int    scales = kern_traits[type].scales;
    float  dmin = kern_f16_f32(b->dmin);

    for (int h = 0; h < 2; h++) {
        d[h] = kern_f16_f32(b->d) * (float) b->sc[h];
        min[h] = scales == KERN_SCALE_DM ? dmin
                 : kern_has_min(scales) ? dmin * -(float) b->mn[h] : 0.0f;
    }
}


/* The reverse of kern_pack_quants. */
static void
kern_unpack_quants(const kern_trait_t *t, const uint8_t *src, uint32_t lane,
    uint8_t *q)
{
    uint64_t  word;

    for (uint32_t i = 0; i < KERN_BLOCK; i++) {
        if (t->form == KERN_FORM_8) {
            q[i] = src[kern_dword(i / 4, lane) + i % 4];
            continue;
        }

        q[i] = src[kern_dword(i % 16 / 4, lane) + i % 4] >> (i / 16 * 4)
               & 15u;

        if (t->form == KERN_FORM_5) {
            memcpy(&word, src + 256 + 8 * (i / 4), sizeof(word));
            q[i] |= (uint8_t) ((word >> (4 * lane + i % 4) & 1u) << 4);
        }

        if (t->form == KERN_FORM_6) {
            q[i] |= (uint8_t) ((src[256 + i / 16 * 64 + 4 * lane + i % 4]
                                >> (i / 4 % 4 * 2) & 3u) << 4);
        }
    }
}


/* The reverse of kern_pack_scales. */
static void
kern_unpack_scales(const kern_trait_t *t, const uint8_t *scale,
    const uint8_t *super, uint32_t lane, kern_gguf_block_t *b)
{
    int  halves = kern_has_halves(t->scales);

    b->sc[0] = b->sc[1] = 1;
    b->mn[0] = b->mn[1] = 0;
    b->dmin = 0;

    if (t->super_bytes == 0) {
        b->d = kern_read16(scale + 2 * lane);
        b->dmin = t->scales == KERN_SCALE_DM
                  ? kern_read16(scale + 32 + 2 * lane) : 0;
        return;
    }

    b->d = kern_read16(super + 2 * lane);
    b->sc[0] = (int8_t) scale[lane];
    b->sc[1] = (int8_t) scale[halves ? 16 + lane : lane];

    if (kern_has_min(t->scales)) {
        b->dmin = kern_read16(super + 32 + 2 * lane);
        b->mn[0] = scale[(halves ? 32 : 16) + lane];
        b->mn[1] = scale[(halves ? 48 : 16) + lane];
    }
}


/* Block `block` of one row of a packed integer matrix. */
static void
kern_row_block(const kern_trait_t *t, const uint8_t *group, uint32_t nb,
    uint32_t block, uint32_t lane, kern_gguf_block_t *b)
{
    const uint8_t  *q, *scale, *super;

    q = group + (size_t) block * t->quant_bytes * KERN_ROW_GROUP;
    scale = group + (size_t) nb * t->quant_bytes * KERN_ROW_GROUP;
    super = scale + (size_t) nb * t->scale_bytes * KERN_ROW_GROUP
            + (size_t) (block / 8) * t->super_bytes * KERN_ROW_GROUP;
    scale += (size_t) block * t->scale_bytes * KERN_ROW_GROUP;
    kern_unpack_quants(t, q, lane, b->q);
    kern_unpack_scales(t, scale, super, lane, b);
}


void
kern_block_get(kern_wtype_t type, const uint8_t *group, uint32_t cols,
    uint32_t block, kern_block_t *out)
{
    kern_gguf_block_t    b;
    const kern_trait_t  *t = &kern_traits[type];

    KERN_ASSERT(t->form != KERN_FORM_FLOAT && block < cols / KERN_BLOCK);

    for (uint32_t r = 0; r < KERN_ROW_GROUP; r++) {
        kern_row_block(t, group, cols / KERN_BLOCK, block, r, &b);
        kern_block_scales(type, &b, out->d[r], out->min[r]);

        for (uint32_t i = 0; i < KERN_BLOCK; i++) {
            out->q[r][i] = (int16_t) kern_quant_value(type, b.q[i]);
        }
    }
}


float
kern_float_get(kern_wtype_t type, const uint8_t *group, uint32_t col,
    uint32_t row)
{
    float     f;
    uint16_t  h;
    size_t    i = kern_float_at(type, col, row);

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
    float                d[2], min[2];
    uint32_t             lane = row % KERN_ROW_GROUP;
    const uint8_t       *group;
    kern_gguf_block_t    b;
    const kern_trait_t  *t = &kern_traits[w->type];

    KERN_ASSERT(kern_wtype_supported(w->type) && row < w->rows);

    group = (const uint8_t *) w->packed
            + row / KERN_ROW_GROUP * kern_group_bytes(t, w->cols);

    if (t->form == KERN_FORM_FLOAT) {
        for (uint32_t i = 0; i < w->cols; i++) {
            out[i] = kern_float_get(w->type, group, i, lane);
        }
        return;
    }

    for (uint32_t i = 0; i < w->cols; i += KERN_BLOCK) {
        kern_row_block(t, group, w->cols / KERN_BLOCK, i / KERN_BLOCK, lane,
                       &b);
        kern_block_scales(w->type, &b, d, min);

        for (uint32_t j = 0; j < KERN_BLOCK; j++) {
            out[i + j] = (float) kern_quant_value(w->type, b.q[j]) * d[j / 16]
                         + min[j / 16];
        }
    }
}
