/*
 * Attention: the scalar level against a plain double softmax, every other
 * level bitwise against the scalar one, and the same bits for any chunking
 * of the queries, any placement of the pages and any split into blocks.
 */
#include "tests/unit/kernels/kern_test.h"

static kern_kvtype_t  kv = KERN_KV_F16;     /* of the cases made */

typedef struct {
    kern_attn_t      a;
    uint32_t         n_page;
    uint8_t        **pages;
    float           *q, *k, *v, *out, *bias;
    size_t           floats;        /* of out */
} attn_case_t;


static attn_case_t
make(uint32_t n_head, uint32_t n_kv, uint32_t hd, uint32_t n_key,
    uint32_t n_query)
{
    size_t       bytes = kern_kv_page_bytes(kv, n_kv, hd);
    attn_case_t  c = { 0 };

    c.n_page = (n_key + 31) / 32;
    c.pages = kt_alloc(c.n_page * sizeof(c.pages[0]));

    for (uint32_t i = 0; i < c.n_page; i++) {
        /* filled with 0xff, which is NaN: slots not written must not count */
        c.pages[i] = kt_alloc(bytes + 64);
        memset(c.pages[i], 0xff, bytes + 64);
    }

    c.q = kt_floats((size_t) n_query * n_head * hd);
    c.k = kt_floats((size_t) n_key * n_kv * hd);
    c.v = kt_floats((size_t) n_key * n_kv * hd);
    c.floats = (size_t) n_query * n_head * hd;
    c.out = kt_alloc(c.floats * sizeof(float));

    for (uint32_t i = 0; i < n_key; i++) {
        kern_kv_append(kv, c.pages[i / 32] + 64, i % 32, n_kv, hd,
                       c.k + (size_t) i * n_kv * hd,
                       c.v + (size_t) i * n_kv * hd);
    }

    c.a = (kern_attn_t) {
        .type = kv, .n_head = n_head, .n_kv_head = n_kv,
        .head_dim = hd, .scale = 1.0f / sqrtf((float) hd), .causal = 1,
        .n_query = n_query, .pos = n_key - n_query, .n_key = n_key,
        .q = c.q, .ldq = n_head * hd, .out = c.out, .ldo = n_head * hd,
        .pages = (const uint8_t *const *) c.pages, .page_offset = 64,
    };
    return c;
}


static void
drop(attn_case_t *c)
{
    for (uint32_t i = 0; i < c->n_page; i++) {
        free(c->pages[i]);
    }

    free(c->pages);
    free(c->q);
    free(c->k);
    free(c->v);
    free(c->out);
    free(c->bias);
}


static double
half(float f)
{
    return (double) kern_f16_f32(kern_f32_f16(f));
}


/* What the cache keeps of dimension d of a head's key or value. */
static double
kept(const attn_case_t *c, const float *x, uint32_t d)
{
    float     amax = 0, q, s;
    uint32_t  i = d / 32 * 32;

    if (c->a.type == KERN_KV_F16) {
        return half(x[d]);
    }

    for ( /* void */ ; i < d / 32 * 32 + 32 && i < c->a.head_dim; i++) {
        amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
    }
    s = kern_f16_f32(kern_f32_f16(amax / 127.0f));
    q = rintf(x[d] * (1.0f / s));
    q = q > 127 ? 127 : q < -127 ? -127 : q;

    return (double) s * (double) q;
}


static double
score(const attn_case_t *c, uint32_t query, uint32_t head, uint32_t key)
{
    double              s = 0;
    uint32_t            hd = c->a.head_dim;
    uint32_t            kvh = head / (c->a.n_head / c->a.n_kv_head);
    const kern_attn_t  *a = &c->a;

    for (uint32_t d = 0; d < hd; d++) {
        s += (double) c->q[query * a->ldq + head * hd + d]
             * kept(c, c->k + ((size_t) key * a->n_kv_head + kvh) * hd, d);
    }

    s *= (double) a->scale;

    if (a->softcap > 0) {
        s = (double) a->softcap * tanh(s / (double) a->softcap);
    }

    if (a->bias != NULL) {
        s += (double) a->bias[head * a->ld_bias + (size_t) a->bias_zero + key
                              - (a->pos + query)];
    }

    return s;
}


static void
against_double(const attn_case_t *c)
{
    double              *w = kt_alloc(c->a.n_key * sizeof(double));
    double               max, sum, o;
    uint32_t             pos, lo, hi, kvh, hd = c->a.head_dim;
    const kern_attn_t   *a = &c->a;

    for (uint32_t q = 0; q < a->n_query; q++) {
        for (uint32_t h = 0; h < a->n_head; h++) {
            pos = a->pos + q;
            lo = a->window && pos >= a->window ? pos - a->window + 1 : 0;
            hi = a->causal ? pos : a->n_key - 1;
            kvh = h / (a->n_head / a->n_kv_head);
            max = -1e300;
            sum = 0;

            for (uint32_t i = lo; i <= hi; i++) {
                w[i] = score(c, q, h, i);
                max = w[i] > max ? w[i] : max;
            }

            for (uint32_t i = lo; i <= hi; i++) {
                w[i] = exp(w[i] - max);
                sum += w[i];
            }

            for (uint32_t d = 0; d < hd; d++) {
                o = 0;

                for (uint32_t i = lo; i <= hi; i++) {
                    o += w[i] / sum
                         * kept(c, c->v + ((size_t) i * a->n_kv_head + kvh)
                                          * hd, d);
                }

                if (!(fabs(o - (double) a->out[q * a->ldo + h * hd + d])
                      < 2e-5))
                {
                    fail_msg("hd %u query %u head %u dim %u: %g, expected %g",
                             hd, q, h, d,
                             (double) a->out[q * a->ldo + h * hd + d], o);
                }
            }
        }
    }

    free(w);
}


/* Every query block by block at the level in use: the same bits. */
static void
in_parts(const attn_case_t *c, const float *whole)
{
    float         *part;
    size_t         step;
    uint32_t       pos, lo, b, n;
    kern_attn_t    one;

    step = KERN_ATTN_PART(c->a.head_dim) * (c->a.n_head / c->a.n_kv_head);
    part = kt_alloc((c->a.n_key / KERN_ATTN_BLOCK + 1) * step * 4);
    memset(c->out, 0, c->floats * sizeof(float));

    for (uint32_t q = 0; q < c->a.n_query; q++) {
        one = c->a;
        one.n_query = 1;
        one.pos = pos = c->a.pos + q;
        one.q = c->q + q * c->a.ldq;
        one.out = c->out + q * c->a.ldo;
        lo = one.window && pos >= one.window ? pos - one.window + 1 : 0;

        for (uint32_t h = 0; h < one.n_kv_head; h++) {
            b = (one.causal ? pos : one.n_key - 1) / KERN_ATTN_BLOCK;
            n = b - lo / KERN_ATTN_BLOCK + 1;

            /* the last one first: the order of the parts is nothing */
            for (uint32_t i = n; i-- > 0; b--) {
                kern_attn_part(&one, h, b, part + i * step);
            }
            kern_attn_merge(&one, h, n, part);
        }
    }

    kt_same("parts", c->out, whole, c->floats);
    free(part);
}


/* Scalar against double, then all levels against scalar, then chunks. */
static void
check(attn_case_t *c)
{
    float        *whole;
    uint32_t      n = c->a.n_query;
    kern_attn_t   one;

    kern_init(KERN_ISA_SCALAR);
    kern_attn(&c->a, 0, c->a.n_kv_head, 0, n);
    against_double(c);
    whole = kt_alloc(c->floats * sizeof(float));
    memcpy(whole, c->out, c->floats * sizeof(float));
    in_parts(c, whole);

    KT_LEVELS(level) {
        kern_init(level);
        memset(c->out, 0, c->floats * sizeof(float));

        for (uint32_t h = 0; h < c->a.n_kv_head; h++) {
            kern_attn(&c->a, h, h + 1, 0, n / 3);
            kern_attn(&c->a, h, h + 1, n / 3, n);
        }

        kt_same(kern_isa_name(level), c->out, whole, c->floats);

        /* one query per call with only the keys up to it, as in decode */
        memset(c->out, 0, c->floats * sizeof(float));

        for (uint32_t q = 0; q < n; q++) {
            one = c->a;
            one.n_query = 1;
            one.pos = c->a.pos + q;
            one.n_key = c->a.causal ? one.pos + 1 : c->a.n_key;
            one.q = c->q + q * c->a.ldq;
            one.out = c->out + q * c->a.ldo;
            kern_attn(&one, 0, one.n_kv_head, 0, 1);
        }

        kt_same(kern_isa_name(level), c->out, whole, c->floats);
        in_parts(c, whole);
    }

    free(whole);
}


static void
test_shapes(void **state)
{
    static const uint32_t  dims[] = { 8, 16, 24, 32, 40, 64, 80, 96, 128, 256 };
    static const uint32_t  keys[] = { 1, 2, 15, 16, 17, 31, 32, 33, 64, 100 };
    attn_case_t            c;

    (void) state;

    for (int d = 0; d < 10; d++) {
        for (int k = 0; k < 10; k++) {
            c = make(6, 2, dims[d], keys[k], keys[k] < 11 ? keys[k] : 11);
            check(&c);
            drop(&c);
        }
    }
}


static void
test_groups(void **state)
{
    attn_case_t  c;

    (void) state;

    for (uint32_t g = 1; g <= 9; g++) {
        c = make(2 * g, 2, 32, 70, 5);
        check(&c);
        drop(&c);
    }
}


/* More than one block of positions, with and without a window. */
static void
test_blocks(void **state)
{
    static const uint32_t  keys[] = { 511, 512, 513, 1024, 1500 };
    static const uint32_t  windows[] = { 0, 1, 500, 513, 1100 };
    attn_case_t            c;

    (void) state;

    for (int i = 0; i < 5; i++) {
        c = make(3, 1, 24, keys[i], 3);
        check(&c);
        drop(&c);
        c = make(4, 2, 32, 1500, 9);
        c.a.window = windows[i];
        check(&c);
        drop(&c);
    }

    c = make(2, 2, 16, 700, 40);
    c.a.causal = 0;
    check(&c);
    drop(&c);
}


static void
test_options(void **state)
{
    static const uint32_t  windows[] = { 1, 2, 16, 31, 32, 33, 64, 1000 };
    attn_case_t            c;

    (void) state;

    for (int w = 0; w < 8; w++) {
        c = make(4, 2, 32, 130, 75);
        c.a.window = windows[w];
        c.a.softcap = w % 2 ? 5.0f : 0.0f;
        check(&c);
        drop(&c);
    }

    /* a whole text at once, as an encoder sees it */
    c = make(3, 3, 32, 45, 45);
    c.a.causal = 0;
    check(&c);
    drop(&c);

    for (int causal = 0; causal < 2; causal++) {
        c = make(3, 3, 32, 45, 45);
        c.a.causal = causal;
        c.bias = kt_floats(3 * 89);
        c.a.bias = c.bias;
        c.a.ld_bias = 89;
        c.a.bias_zero = 44;
        check(&c);
        drop(&c);
    }
}


/* Scores far apart, and huge values in the cache. */
static void
test_extremes(void **state)
{
    float        big[32];
    attn_case_t  c;

    (void) state;

    c = make(1, 1, 32, 80, 3);

    for (uint32_t i = 0; i < 3 * 32; i++) {
        c.q[i] *= 300;
    }

    check(&c);
    drop(&c);

    /* beyond the range of f16: clamped, so the result stays finite */
    c = make(1, 1, 32, 1, 1);

    for (int i = 0; i < 32; i++) {
        big[i] = i % 2 ? 1e30f : -1e30f;
    }

    for (kern_isa_t level = KERN_ISA_SCALAR; level < KERN_ISA_N; level++) {
        if (kern_init(level) != KERN_OK) {
            continue;
        }

        kern_kv_append(kv, c.pages[0] + 64, 0, 1, 32, big, big);
        kern_attn(&c.a, 0, 1, 0, 1);

        for (int i = 0; i < 32; i++) {
            assert_true(fabsf(c.out[i] - (i % 2 ? 65504.0f : -65504.0f))
                        <= (kv == KERN_KV_F16 ? 0.0f : 32.0f));
        }
    }

    drop(&c);
}


static void
test_page_bytes(void **state)
{
    (void) state;
    assert_int_equal(kern_kv_page_bytes(KERN_KV_F16, 3, 64), 3 * 64 * 128);
    assert_int_equal(kern_kv_page_bytes(KERN_KV_F16, 3, 0), 0);
    assert_int_equal(kern_kv_page_bytes(KERN_KV_F16, 3, 12), 0);
    assert_int_equal(kern_kv_page_bytes(KERN_KV_F16, 3, 264), 0);
    assert_int_equal(kern_kv_page_bytes(KERN_KV_F16, 0, 64), 0);
    assert_int_equal(kern_kv_page_bytes((kern_kvtype_t) 9, 1, 64), 0);
    /* int8, and two bytes for each 32 of them */
    assert_int_equal(kern_kv_page_bytes(KERN_KV_Q8_0, 3, 64),
                     3 * 64 * 64 * 34 / 32);
    assert_int_equal(kern_kv_page_bytes(KERN_KV_Q8_0, 1, 8),
                     2 * 32 * (8 + 2));
}


static int
f16(void **state)
{
    (void) state;
    kv = KERN_KV_F16;
    return 0;
}


static int
q8_0(void **state)
{
    (void) state;
    kv = KERN_KV_Q8_0;
    return 0;
}


/* NaN and zeros: the block is NaN, or zero, and others are untouched. */
static void
test_odd_values(void **state)
{
    float        x[40];
    attn_case_t  c;

    (void) state;
    c = make(1, 1, 40, 1, 1);
    memset(x, 0, sizeof(x));
    x[3] = NAN;

    for (kern_isa_t level = KERN_ISA_SCALAR; level < KERN_ISA_N; level++) {
        if (kern_init(level) != KERN_OK) {
            continue;
        }
        kern_kv_append(kv, c.pages[0] + 64, 0, 1, 40, c.k, x);
        kern_attn(&c.a, 0, 1, 0, 1);
        assert_true(isnan(c.out[3]) && c.out[32] == 0 && c.out[39] == 0);
    }
    drop(&c);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_page_bytes),
        cmocka_unit_test_setup(test_shapes, f16),
        cmocka_unit_test_setup(test_groups, f16),
        cmocka_unit_test_setup(test_options, f16),
        cmocka_unit_test_setup(test_blocks, f16),
        cmocka_unit_test_setup(test_extremes, f16),
        cmocka_unit_test_setup(test_odd_values, f16),
        cmocka_unit_test_setup(test_shapes, q8_0),
        cmocka_unit_test_setup(test_groups, q8_0),
        cmocka_unit_test_setup(test_options, q8_0),
        cmocka_unit_test_setup(test_blocks, q8_0),
        cmocka_unit_test_setup(test_extremes, q8_0),
        cmocka_unit_test_setup(test_odd_values, q8_0),
    };

    if (kern_init(KERN_ISA_AUTO) != KERN_OK) {
        return 1;
    }

    return cmocka_run_group_tests(tests, NULL, NULL);
}
