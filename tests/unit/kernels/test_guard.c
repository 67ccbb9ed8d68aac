/*
 * Kernels read and write what they are given and nothing behind it: every
 * operand ends where a page without access begins, at odd sizes, at every
 * level.  Sanitizers do not instrument these files; a fault shows as SIGSEGV.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/unit/kernels/kern_test.h"

#define LEN_MAX     70u
#define REGIONS_MAX 16

typedef struct {
    void   *map;
    size_t  bytes;
} region_t;

static region_t  regions[REGIONS_MAX];
static int       nregions;


/* Memory that ends at the guard page; `align` is what its start needs, so at
 * most align - 1 bytes lie between its end and the guard. */
static void *
guarded(size_t bytes, size_t align)
{
    size_t    page = (size_t) sysconf(_SC_PAGESIZE), size, at;
    uint8_t  *map;

    size = (bytes + page - 1) / page * page + page;
    map = mmap(NULL, size, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(map != MAP_FAILED && nregions < REGIONS_MAX);
    assert_int_equal(mprotect(map + size - page, page, PROT_NONE), 0);

    regions[nregions].map = map;
    regions[nregions++].bytes = size;
    at = (size - page - bytes) / align * align;

    return map + at;
}


static float *
floats(size_t n)
{
    float  *p = guarded(n * sizeof(float), sizeof(float));

    for (size_t i = 0; i < n; i++) {
        p[i] = kt_float();
    }

    return p;
}


static void
drop_all(void)
{
    while (nregions != 0) {
        nregions--;
        assert_int_equal(munmap(regions[nregions].map,
                                regions[nregions].bytes), 0);
    }
}


static void
rows_of(uint32_t n)
{
    float     *x, *u, *y, *val;
    uint32_t  *idx, k = n < 5 ? n : 5;

    x = floats(n);
    u = floats(n);
    y = floats(n);
    val = floats(k);
    idx = guarded(k * sizeof(uint32_t), sizeof(uint32_t));

    kern_rmsnorm(y, x, u, n, 1e-5f);
    kern_layernorm(y, x, u, u, n, 1e-5f);
    kern_layernorm(y, x, u, NULL, n, 1e-5f);
    kern_add(y, x, u, n);
    kern_scale(y, x, 0.5f, n);
    kern_softcap(y, x, 30.0f, n);
    for (int act = KERN_ACT_SILU; act <= KERN_ACT_RELU; act++) {
        kern_act((kern_act_t) act, y, x, n);
        kern_glu((kern_act_t) act, y, x, u, n);
    }
    kern_softmax(y, x, n);
    assert_true(kern_argmax(x, n) < n);
    assert_true(isfinite(kern_logsumexp(x, n)));
    assert_int_equal(kern_topk(x, n, k, idx, val), k);
    assert_true(idx[0] == kern_argmax(x, n));
    drop_all();
}


static void
test_rows(void **state)
{
    (void) state;

    for (kern_isa_t level = KERN_ISA_SCALAR; level < KERN_ISA_N; level++) {
        if (!kern_isa_supported(level)) {
            continue;
        }
        kern_init(level);
        for (uint32_t n = 1; n <= LEN_MAX; n++) {
            rows_of(n);
        }
    }
}


static void
test_rope(void **state)
{
    float                  *x, *cs, *sn;
    static const uint32_t   dims[] = { 2, 6, 10, 34, 64, 80 };

    (void) state;

    for (kern_isa_t level = KERN_ISA_SCALAR; level < KERN_ISA_N; level++) {
        if (!kern_isa_supported(level)) {
            continue;
        }
        kern_init(level);
        for (size_t i = 0; i < sizeof(dims) / sizeof(dims[0]); i++) {
            for (int order = 0; order <= KERN_ROPE_NEOX; order++) {
                x = floats(3 * dims[i]);
                cs = floats(dims[i] / 2);
                sn = floats(dims[i] / 2);
                kern_rope((kern_rope_t) order, x, 3, dims[i], dims[i], cs,
                          sn);
                drop_all();
            }
        }
    }
}


/* A matrix of guarded parts times m guarded columns. */
static void
product_of(kern_wtype_t type, kern_panel_kind_t kind, uint32_t rows,
    uint32_t k, uint32_t m)
{
    size_t          bytes;
    float          *x, *out, *row;
    uint8_t        *made, *gguf;
    kern_panel_t    panel;
    kern_weight_t   w = { type, rows, k, NULL };

    bytes = kern_gguf_row_bytes(type, k) * rows;
    made = kt_gguf(type, rows, k);
    gguf = guarded(bytes, 2);
    memcpy(gguf, made, bytes);
    free(made);

    w.packed = guarded(kern_packed_bytes(type, rows, k), KERN_ALIGN);
    assert_int_equal(kern_pack(type, rows, k, gguf, (void *) w.packed, 0,
                               rows), 0);
    row = floats(k);
    kern_row_f32(&w, rows - 1, row);
    kern_gguf_row_f32(type, gguf + bytes - bytes / rows, k, row);

    x = floats((size_t) m * k);
    kern_panel_init(&panel, kind, m, k,
                    guarded(kern_panel_bytes(kind, m, k), KERN_ALIGN));
    kern_quant_rmsnorm(&panel, 0, m, x, k, row, 1e-5f);
    kern_quant_glu(&panel, 0, m, KERN_ACT_SILU, x, x, k);
    kern_quant(&panel, 0, m, x, k);

    out = floats((size_t) m * rows);
    kern_matmul(&w, &panel, out, rows, 0, rows);
    for (size_t i = 0; i < (size_t) m * rows; i++) {
        assert_true(isfinite(out[i]));
    }
    drop_all();
}


/* Both kinds of a type's panels, or the one that it has. */
static void
products_of(kern_wtype_t type, uint32_t rows, uint32_t k, uint32_t m)
{
    kern_panel_kind_t  kind = kern_panel_kind(type);

    product_of(type, kind, rows, k, m);
    if (kind == KERN_PANEL_I8) {
        product_of(type, KERN_PANEL_I15, rows, k, m);
    }
}


static void
test_products(void **state)
{
    static const uint32_t  rows[] = { 1, 15, 16, 17, 33, 65 };
    static const uint32_t  cols[] = { 32, 96 };
    static const uint32_t  batch[] = { 1, 2, 3, 5, 9, 17 };

    (void) state;

    for (kern_isa_t level = KERN_ISA_SCALAR; level < KERN_ISA_N; level++) {
        if (!kern_isa_supported(level)) {
            continue;
        }
        kern_init(level);
        for (int type = 0; type < KERN_WTYPE_N; type++) {
            if (!kern_wtype_supported((kern_wtype_t) type)) {
                continue;
            }
            for (size_t i = 0; i < 6 * 2 * 6; i++) {
                products_of((kern_wtype_t) type, rows[i % 6],
                            kt_cols((kern_wtype_t) type, cols[i / 6 % 2]),
                            batch[i / 12]);
            }
        }
    }
}


/* Pages, queries, results, biases and parts that end at a guard. */
static void
attention_of(kern_kvtype_t type, uint32_t group, uint32_t hd, uint32_t n_key,
    uint32_t n_query)
{
    float          *q, *k, *out, *part;
    size_t          bytes = kern_kv_page_bytes(type, 2, hd);
    uint32_t        heads = 2 * group;
    kern_attn_t     a = { .type = type };
    const uint8_t  *pages[3];

    assert_true(n_key <= 96);
    for (uint32_t i = 0; i < (n_key + 31) / 32; i++) {
        pages[i] = guarded(bytes, KERN_ALIGN);
        memset((void *) pages[i], 0xff, bytes);
    }
    k = floats(2 * hd);
    for (uint32_t i = 0; i < n_key; i++) {
        kern_kv_append(type, (void *) pages[i / 32], i % 32, 2, hd, k, k);
    }

    q = floats((size_t) n_query * heads * hd);
    out = floats((size_t) n_query * heads * hd);
    a.n_head = heads;
    a.n_kv_head = 2;
    a.head_dim = hd;
    a.scale = 0.1f;
    a.causal = 1;
    a.n_query = n_query;
    a.pos = n_key - n_query;
    a.n_key = n_key;
    a.q = q;
    a.ldq = a.ldo = (size_t) heads * hd;
    a.out = out;
    a.pages = pages;
    a.ld_bias = n_key;
    a.bias_zero = (int32_t) n_key - 1;
    a.bias = floats((size_t) heads * n_key);

    kern_attn(&a, 0, 2, 0, n_query);
    for (size_t i = 0; i < (size_t) n_query * heads * hd; i++) {
        assert_true(isfinite(out[i]));
    }
    if (n_query == 1) {
        part = floats(KERN_ATTN_PART(hd) * group);
        kern_attn_part(&a, 1, 0, part);
        kern_attn_merge(&a, 1, 1, part);
    }
    drop_all();
}


static void
test_attention(void **state)
{
    static const uint32_t  dims[] = { 8, 16, 24, 32, 40, 64, 256 };
    static const uint32_t  keys[] = { 1, 16, 33, 70 };

    (void) state;

    for (kern_isa_t level = KERN_ISA_SCALAR; level < KERN_ISA_N; level++) {
        if (!kern_isa_supported(level)) {
            continue;
        }
        kern_init(level);
        for (uint32_t i = 0; i < 7 * 4 * 7; i++) {
            for (int type = 0; type < KERN_KV_N; type++) {
                attention_of((kern_kvtype_t) type, 1 + i / 28, dims[i % 7],
                             keys[i / 7 % 4], 1);
                attention_of((kern_kvtype_t) type, 1 + i / 28, dims[i % 7],
                             keys[i / 7 % 4],
                             keys[i / 7 % 4] < 3 ? 1 : 3);
            }
        }
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_attention),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
