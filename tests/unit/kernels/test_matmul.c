/*
 * Matrix products: the scalar level against plain double arithmetic on
 * independently decoded GGUF data, every other level bitwise against the
 * scalar one at each tile edge, and independence of batch and split.
 */
#include "tests/unit/kernels/kern_test.h"

static const kern_wtype_t  types[] = {
    KERN_F32, KERN_F16, KERN_BF16, KERN_Q8_0, KERN_Q4_0, KERN_Q4_1,
    KERN_Q5_0, KERN_Q5_1, KERN_Q2_K, KERN_Q3_K, KERN_Q4_K, KERN_Q5_K,
    KERN_Q6_K, KERN_IQ4_NL, KERN_IQ4_XS
};

#define TYPES   (sizeof(types) / sizeof(types[0]))

/* KERN_PANEL_I15 while a test runs its second time; BF16 has floats first,
 * then rounded ones. */
static kern_panel_kind_t  integers = KERN_PANEL_I8;


static kern_panel_kind_t
kind_of(kern_wtype_t type)
{
    kern_panel_kind_t  kind = kern_panel_kind(type);

    if (type == KERN_BF16 && integers == KERN_PANEL_I15) {
        return KERN_PANEL_BF16;
    }

    return kind == KERN_PANEL_I8 ? integers : kind;
}


static double
half_at(const uint8_t *p)
{
    uint16_t  h;

    memcpy(&h, p, 2);
    return (double) kern_f16_f32(h);
}


/* Scale i of 8 and minimum i of the 12 packed bytes of Q4_K and Q5_K: six
 * bits each, the first four in the low bits of bytes 0..7, the others spread
 * over the nibbles of bytes 8..11 and the top bits of 0..7. */
static uint32_t
six_bits(const uint8_t *s, uint32_t i, int min)
{
    if (i < 4) {
        return s[i + (min ? 4 : 0)] % 64;
    }

    return (min ? s[i + 4] / 16 : s[i + 4] % 16)
           + s[i - (min ? 0 : 4)] / 64 * 16;
}


/* Value i of a super-block of 256, by the format's own description. */
static double
element_k(kern_wtype_t type, const uint8_t *b, uint32_t i)
{
    static const int  nl[16] = {
        -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89,
        113
    };
    int               q, s;
    uint32_t          n = i / 128, j = i / 32, l = i % 32;

    switch (type) {
    case KERN_Q2_K:
        q = b[16 + n * 32 + l] / (1 << 2 * (j % 4)) % 4;
        return half_at(b + 80) * (b[i / 16] % 16) * q
               - half_at(b + 82) * (b[i / 16] / 16);

    case KERN_Q3_K:
        q = b[32 + n * 32 + l] / (1 << 2 * (j % 4)) % 4;
        q -= b[l] / (1 << j) % 2 ? 0 : 4;
        s = i / 16 < 8 ? b[96 + i / 16] % 16 : b[96 + i / 16 - 8] / 16;
        s += b[104 + i / 16 % 4] / (1 << 2 * (i / 64)) % 4 * 16;
        return half_at(b + 108) * (s - 32) * q;

    case KERN_Q4_K:
        q = j % 2 ? b[16 + i / 64 * 32 + l] / 16 : b[16 + i / 64 * 32 + l] % 16;
        return half_at(b) * six_bits(b + 4, j, 0) * q
               - half_at(b + 2) * six_bits(b + 4, j, 1);

    case KERN_Q5_K:
        q = j % 2 ? b[48 + i / 64 * 32 + l] / 16 : b[48 + i / 64 * 32 + l] % 16;
        q += b[16 + l] / (1 << j) % 2 * 16;
        return half_at(b) * six_bits(b + 4, j, 0) * q
               - half_at(b + 2) * six_bits(b + 4, j, 1);

    case KERN_Q6_K:
        q = b[n * 64 + i % 64];
        q = (i % 128 < 64 ? q % 16 : q / 16)
            + b[128 + n * 32 + l] / (1 << 2 * (j % 4)) % 4 * 16;
        return half_at(b + 208) * (int8_t) b[192 + i / 16] * (q - 32);

    default:
        q = l < 16 ? b[8 + j * 16 + l] % 16 : b[8 + j * 16 + l - 16] / 16;
        s = b[4 + j / 2] / (j % 2 ? 16 : 1) % 16
            + (b[2] + b[3] * 256) / (1 << 2 * j) % 4 * 16;
        return half_at(b) * (s - 32) * nl[q];
    }
}


/* Element (row, col) of GGUF data by the format's own formulas, written
 * apart from kern_pack.c. */
static double
element(kern_wtype_t type, const uint8_t *row, uint32_t col)
{
    float           f;
    double          d, m;
    uint16_t        h;
    uint32_t        i = col % 32, q, fifth = 0, at = 0;
    const uint8_t  *b;

    switch (type) {
    case KERN_F32:
        memcpy(&f, row + 4 * (size_t) col, 4);
        return (double) f;
    case KERN_F16:
        memcpy(&h, row + 2 * (size_t) col, 2);
        return (double) kern_f16_f32(h);
    case KERN_BF16:
        memcpy(&h, row + 2 * (size_t) col, 2);
        return (double) kern_bf16_f32(h);
    default:
        break;
    }

    if (kern_gguf_block_elems(type) == 256) {
        b = row + (size_t) (col / 256) * kern_gguf_block_bytes(type);
        return element_k(type, b, col % 256);
    }

    b = row + (size_t) (col / 32) * kern_gguf_block_bytes(type);
    d = half_at(b);
    m = half_at(b + 2);

    if (type == KERN_Q8_0) {
        return d * (int8_t) b[2 + i];
    }

    at = type == KERN_Q4_1 || type == KERN_Q5_1 ? 4 : 2;

    if (type == KERN_Q5_0 || type == KERN_Q5_1) {
        memcpy(&fifth, b + at, 4);
        at += 4;
    }

    q = i < 16 ? b[at + i] & 15u : b[at + i - 16] >> 4;
    q |= (fifth >> i & 1u) << 4;

    switch (type) {
    case KERN_IQ4_NL:
        return d * (kern_levels_nl[q] - 128);
    case KERN_Q4_0:
        return d * ((int) q - 8);
    case KERN_Q5_0:
        return d * ((int) q - 16);
    default:
        return d * q + m;
    }
}


/* What the panel holds of x: rounded to 8 or 15 bits per 32, or x itself. */
static double
activation(kern_panel_kind_t kind, const float *x, uint32_t i)
{
    int     exp;
    float   amax = 0, top = kind == KERN_PANEL_I15 ? 127.0f * 128 : 127.0f;
    double  d;

    if (kind == KERN_PANEL_F32) {
        return (double) x[i];
    }

    if (kind == KERN_PANEL_BF16) {
        /* 8 bits of significand */
        d = frexp((double) x[i], &exp);
        return ldexp(rint(ldexp(d, 8)), exp - 8);
    }

    for (uint32_t j = i / 32 * 32; j < i / 32 * 32 + 32; j++) {
        amax = fabsf(x[j]) > amax ? fabsf(x[j]) : amax;
    }

    d = (double) (amax / top);
    return d > 0 ? d * (double) rintf(x[i] * (top / amax)) : 0;
}


static kern_panel_t
panel(kern_wtype_t type, uint32_t m, uint32_t k, const float *x)
{
    kern_panel_t       p;
    kern_panel_kind_t  kind = kind_of(type);

    kern_panel_init(&p, kind, m, k, kt_alloc(kern_panel_bytes(kind, m, k)));

    /* what a type does not ask for is not there: bytes that spoil a sum */
    memset(p.data, 0xff, kern_panel_bytes(kind, m, k));
    p.sums = kern_panel_sums(type);
    kern_quant(&p, 0, m, x, k);
    return p;
}


static void
one_against_double(kern_wtype_t type, uint32_t rows, uint32_t cols, uint32_t m)
{
    uint32_t        k = kt_cols(type, cols);
    float          *x = kt_floats((size_t) m * k), *out;
    double          sum, size, e, a;
    uint8_t        *gguf = kt_gguf(type, rows, k);
    kern_panel_t    p;
    kern_weight_t   w = kt_weight(type, rows, k, gguf);

    out = kt_alloc((size_t) m * rows * sizeof(float));
    p = panel(type, m, k, x);
    kern_matmul(&w, &p, out, rows, 0, rows);

    for (uint32_t c = 0; c < m; c++) {
        for (uint32_t r = 0; r < rows; r++) {
            sum = size = 0;

            for (uint32_t i = 0; i < k; i++) {
                e = element(type, gguf + r * kern_gguf_row_bytes(type, k), i);
                a = activation(p.kind, x + (size_t) c * k, i);
                sum += e * a;
                size += fabs(e * a);
            }

            if (fabs((double) out[c * rows + r] - sum) > 1e-5 * size) {
                fail_msg("%s row %u column %u: %g, expected %g",
                         kern_wtype_name(type), r, c,
                         (double) out[c * rows + r], sum);
            }
        }
    }

    free(x);
    free(out);
    free(gguf);
    free(p.data);
    free((void *) w.packed);
}


static void
test_scalar(void **state)
{
    (void) state;
    assert_int_equal(kern_init(KERN_ISA_SCALAR), KERN_OK);

    for (size_t t = 0; t < TYPES; t++) {
        one_against_double(types[t], 17, 96, 3);
        one_against_double(types[t], 16, 32, 9);
        one_against_double(types[t], 5, 1056, 1);
        one_against_double(types[t], 3, 2112, 2);
    }
}


/* Every level against the scalar one for one shape, written floats only. */
static void
one_levels(kern_wtype_t type, uint32_t rows, uint32_t cols, uint32_t m)
{
    char            what[96];
    uint32_t        k = kt_cols(type, cols);
    float          *x = kt_floats((size_t) m * k), *want, *got;
    size_t          n = (size_t) m * (rows + 3);
    uint8_t        *gguf = kt_gguf(type, rows, k);
    kern_panel_t    p;
    kern_weight_t   w = kt_weight(type, rows, k, gguf);

    want = kt_alloc(n * sizeof(float));
    assert_int_equal(kern_init(KERN_ISA_SCALAR), KERN_OK);
    p = panel(type, m, k, x);
    kern_matmul(&w, &p, want, rows + 3, 0, rows);

    KT_LEVELS(level) {
        got = kt_alloc(n * sizeof(float));
        assert_int_equal(kern_init(level), KERN_OK);
        kern_matmul(&w, &p, got, rows + 3, 0, rows);
        snprintf(what, sizeof(what), "%s %s rows %u k %u m %u",
                 kern_wtype_name(type), kern_isa_name(level), rows, k, m);
        kt_same(what, got, want, n);
        free(got);
    }

    free(x);
    free(want);
    free(gguf);
    free(p.data);
    free((void *) w.packed);
}


static void
test_levels(void **state)
{
    static const uint32_t  rows[] = { 1, 7, 8, 9, 15, 16, 31, 65 };

    (void) state;

    for (size_t t = 0; t < TYPES; t++) {
        for (uint32_t m = 1; m <= 26; m++) {
            one_levels(types[t], 17, m % 2 ? 32 : 96, m);
        }

        for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
            one_levels(types[t], rows[r], 32, 1);
            one_levels(types[t], rows[r], 32, 5);
            one_levels(types[t], rows[r], 64, 20);
        }

        /* stretches of 32 blocks: one short, exact, one more */
        one_levels(types[t], 5, 31 * 32, 17);
        one_levels(types[t], 5, 32 * 32, 18);
        one_levels(types[t], 5, 33 * 32, 17);
        one_levels(types[t], 5, 66 * 32, 1);
    }

    /* passes over columns: one short, exact, more */
    for (uint32_t m = 255; m <= 257; m++) {
        one_levels(KERN_F32, 3, 32, m);
        one_levels(KERN_Q4_1, 3, 32, 2 * m);
    }
}


/* A column alone, at every place of batches of every size, and rows split
 * at every group: the same bits. */
static void
test_invariance(void **state)
{
    float          *x, *alone, *out;
    uint8_t        *gguf;
    kern_panel_t    p;
    kern_weight_t   w;
    uint32_t        k;
    const uint32_t  rows = 70, m_max = 19;

    (void) state;

    for (size_t t = 0; t < TYPES; t++) {
        k = kt_cols(types[t], 1120);

        KT_LEVELS(level) {
            assert_int_equal(kern_init(level), KERN_OK);
            gguf = kt_gguf(types[t], rows, k);
            w = kt_weight(types[t], rows, k, gguf);
            x = kt_floats((size_t) m_max * k);
            alone = kt_alloc(rows * m_max * sizeof(float));
            out = kt_alloc(rows * m_max * sizeof(float));

            for (uint32_t c = 0; c < m_max; c++) {
                p = panel(types[t], 1, k, x + (size_t) c * k);
                kern_matmul(&w, &p, alone + c * rows, rows, 0, rows);
                free(p.data);
            }

            for (uint32_t m = 2; m <= m_max; m++) {
                p = panel(types[t], m, k, x);
                kern_matmul(&w, &p, out, rows, 0, m * 3 / 16 * 16);
                kern_matmul(&w, &p, out, rows, m * 3 / 16 * 16, rows);
                kt_same(kern_wtype_name(types[t]), out, alone,
                        (size_t) m * rows);
                free(p.data);
            }

            free(gguf);
            free((void *) w.packed);
            free(x);
            free(alone);
            free(out);
        }
    }
}


/* Packed by pieces equals packed at once; rows come back exactly. */
static void
test_pack(void **state)
{
    float          *a, *b;
    size_t          bytes, begin, end;
    uint8_t        *gguf, *dst;
    kern_weight_t   w;
    uint32_t        k;
    const uint32_t  rows = 50;

    (void) state;
    assert_int_equal(kern_init(KERN_ISA_AUTO), KERN_OK);
    a = kt_alloc(512 * sizeof(float));
    b = kt_alloc(512 * sizeof(float));

    for (size_t t = 0; t < TYPES; t++) {
        k = kt_cols(types[t], t % 2 ? 96 : 320);
        gguf = kt_gguf(types[t], rows, k);
        w = kt_weight(types[t], rows, k, gguf);
        bytes = kern_packed_bytes(types[t], rows, k);
        dst = kt_alloc(bytes);
        assert_int_equal(kern_pack(types[t], rows, k, gguf, dst, 32, 50), 0);
        assert_int_equal(kern_pack(types[t], rows, k, gguf, dst, 0, 32), 0);
        assert_memory_equal(dst, w.packed, bytes);
        kern_packed_range(types[t], rows, k, 32, 50, &begin, &end);
        assert_int_equal(begin, bytes / 2);
        assert_int_equal(end, bytes);

        for (uint32_t r = 0; r < rows; r++) {
            kern_row_f32(&w, r, a);
            kern_gguf_row_f32(types[t],
                gguf + r * kern_gguf_row_bytes(types[t], k), k, b);
            kt_same("row", a, b, k);

            for (uint32_t i = 0; i < k; i++) {
                double  e = element(types[t], gguf
                                + r * kern_gguf_row_bytes(types[t], k), i);

                assert_true(fabs((double) a[i] - e) <= 1e-6 * fabs(e) + 1e-7);
            }
        }

        free(gguf);
        free(dst);
        free((void *) w.packed);
    }

    free(a);
    free(b);
}


static void
test_shapes(void **state)
{
    (void) state;

    assert_int_equal(kern_packed_bytes(KERN_Q4_1, 16, 32), 320);
    assert_int_equal(kern_packed_bytes(KERN_Q4_1, 17, 32), 640);
    assert_int_equal(kern_packed_bytes(KERN_Q4_1, 0, 32), 0);
    assert_int_equal(kern_packed_bytes(KERN_Q4_1, 16, 0), 0);
    assert_int_equal(kern_packed_bytes(KERN_Q4_1, 16, 33), 0);
    assert_int_equal(kern_packed_bytes(KERN_F32, KERN_ROWS_MAX + 1, 32), 0);
    assert_int_equal(kern_packed_bytes(KERN_F32, 16, KERN_COLS_MAX + 32), 0);
    assert_int_equal(kern_packed_bytes(KERN_F32, KERN_ROWS_MAX,
                                       KERN_COLS_MAX), 0);
    assert_int_equal(kern_packed_bytes((kern_wtype_t) 99, 16, 32), 0);
    assert_int_equal(kern_packed_bytes((kern_wtype_t) -1, 16, 32), 0);
    assert_int_equal(kern_pack((kern_wtype_t) 99, 1, 32, NULL, NULL, 0, 1),
                     KERN_E_TYPE);
    assert_int_equal(kern_pack(KERN_Q4_1, 1, 31, NULL, NULL, 0, 1),
                     KERN_E_SHAPE);
    assert_int_equal(kern_init((kern_isa_t) 77), KERN_E_ISA);
}


/* Columns with one of `values` each, then full of the largest ones: m is 16. */
static float *
extreme_columns(uint32_t m, uint32_t k)
{
    static const float  values[] = {
        0.0f, -0.0f, 1e-38f, 1e-45f, 9e-31f, 1e-30f, 1.1e-30f, 3e38f, -3e38f,
        INFINITY, -INFINITY, NAN, 1.0f
    };
    float              *x = kt_floats((size_t) m * k);

    for (uint32_t c = 0; c < 13; c++) {
        x[c * k + 7] = values[c];
        x[c * k + 8] = -values[c];
    }

    for (uint32_t i = 0; i < k; i++) {
        /* the largest sums there are, of either sign */
        x[13 * k + i] = 1.0f;
        x[14 * k + i] = -1.0f;
        x[15 * k + i] = i % 2 ? 1.0f : -1.0f;
    }

    return x;
}


/* What the instruction for pairs of bfloat16 takes for zero differs. */
static void
drop_tiny(kern_isa_t level, kern_wtype_t type, float *want, float *got,
    size_t n)
{
    if (level != KERN_ISA_BF16 || kind_of(type) != KERN_PANEL_BF16) {
        return;
    }

    for (size_t i = 0; i < n; i++) {
        if (fabsf(want[i]) < 1e-30f && fabsf(got[i]) < 1e-30f) {
            want[i] = got[i] = 0.0f;
        }
    }
}


/* One round of test_extremes: weights of one byte (or random). */
static void
one_extreme(kern_wtype_t type, int fill)
{
    static const uint16_t  scales[] = {
        0x0000, 0x8000, 0x0001, 0x03ff, 0x7bff, 0xfbff, 0x7c00, 0xfc00,
        0x7e00, 0x3c00
    };
    int             d, min;
    float          *x, *want, *got;
    size_t          bytes;
    uint8_t        *gguf;
    uint32_t        k = kt_cols(type, 64);
    kern_panel_t    p, q;
    kern_weight_t   w;
    const uint32_t  rows = 16, m = 16;

    x = extreme_columns(m, k);
    gguf = kt_gguf(type, rows, k);
    bytes = kern_gguf_row_bytes(type, k);
    kt_scale_at(type, &d, &min);

    if (fill >= 0) {
        memset(gguf, fill, bytes * rows);
    }

    for (uint32_t r = 0; kern_panel_kind(type) == KERN_PANEL_I8 && r < rows;
         r++)
    {
        memcpy(gguf + r * bytes + d, &scales[r % 10], 2);
    }

    w = kt_weight(type, rows, k, gguf);
    want = kt_alloc(m * rows * sizeof(float));
    got = kt_alloc(m * rows * sizeof(float));
    kern_init(KERN_ISA_SCALAR);
    p = panel(type, m, k, x);
    kern_matmul(&w, &p, want, rows, 0, rows);

    KT_LEVELS(level) {
        kern_init(level);
        q = panel(type, m, k, x);
        kern_matmul(&w, &q, got, rows, 0, rows);
        drop_tiny(level, type, want, got, m * rows);
        kt_same(kern_isa_name(level), got, want, m * rows);
        free(q.data);

        /* and unpacking on the way */
        q = panel(type, 3, k, x + 13 * k);
        kern_matmul(&w, &q, got, rows, 0, rows);
        drop_tiny(level, type, want + 13 * rows, got, 3 * rows);
        kt_same(kern_isa_name(level), got, want + 13 * rows, 3 * rows);
        free(q.data);
    }

    free(x);
    free(gguf);
    free(p.data);
    free(want);
    free(got);
    free((void *) w.packed);
}


/* Weights and activations at the ends of their ranges: every level gives
 * the scalar level's bits, and nothing traps. */
static void
test_extremes(void **state)
{
    static const int  fills[] = { -1, 0x00, 0xff, 0x80, 0x7f, 0x0f, 0xf0 };

    (void) state;

    for (size_t t = 0; t < TYPES; t++) {
        for (int i = 0; i < 7; i++) {
            one_extreme(types[t], fills[i]);
        }
    }
}


static int
one_plane(void **state)
{
    (void) state;
    integers = KERN_PANEL_I8;
    return 0;
}


static int
two_planes(void **state)
{
    (void) state;
    integers = KERN_PANEL_I15;
    return 0;
}


/* What two planes keep of a column: 15 bits of the block's largest value. */
static void
test_two_planes(void **state)
{
    float           x[64], out, sum = 0;
    uint8_t        *gguf;
    kern_panel_t    p;
    kern_weight_t   w;

    (void) state;
    assert_int_equal(kern_init(KERN_ISA_AUTO), KERN_OK);
    assert_int_equal(kern_panel_bytes(KERN_PANEL_I15, 3, 64),
                     2 * ((kern_panel_bytes(KERN_PANEL_I8, 3, 64) + 63) / 64
                          * 64));

    /* a row of ones: d = 1, q = 1 */
    gguf = kt_gguf(KERN_Q8_0, 1, 64);
    for (int b = 0; b < 2; b++) {
        memset(gguf + 34 * b, 1, 34);
        gguf[34 * b] = 0x00;
        gguf[34 * b + 1] = 0x3c;
    }
    w = kt_weight(KERN_Q8_0, 1, 64, gguf);

    for (uint32_t i = 0; i < 64; i++) {
        x[i] = (float) ((int) (i * 509) - 16256);   /* integers of 15 bits */
        sum += x[i];
    }
    x[31] = x[63] = 16256;
    sum += 2 * 16256 - (float) (31 * 509 - 16256) - (float) (63 * 509 - 16256);

    p = panel(KERN_Q8_0, 1, 64, x);
    kern_matmul(&w, &p, &out, 1, 0, 1);
    /* the first block's scale is 1: exact; the second's is another */
    assert_true(fabsf(out - sum) < 32.0f * 16256 * 0.5f / 16256);

    free(p.data);
    free(gguf);
    free((void *) w.packed);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_pack),
        cmocka_unit_test_setup(test_scalar, one_plane),
        cmocka_unit_test_setup(test_levels, one_plane),
        cmocka_unit_test_setup(test_invariance, one_plane),
        cmocka_unit_test_setup(test_extremes, one_plane),
        cmocka_unit_test_setup(test_scalar, two_planes),
        cmocka_unit_test_setup(test_levels, two_planes),
        cmocka_unit_test_setup(test_invariance, two_planes),
        cmocka_unit_test_setup(test_extremes, two_planes),
        cmocka_unit_test_setup(test_two_planes, two_planes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
