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
product_of(kern_wtype_t type, uint32_t rows, uint32_t k, uint32_t m)
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
    kern_panel_init(&panel, kern_panel_kind(type), m, k,
                    guarded(kern_panel_bytes(kern_panel_kind(type), m, k),
                            KERN_ALIGN));
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
                product_of((kern_wtype_t) type, rows[i % 6],
                           kt_cols((kern_wtype_t) type, cols[i / 6 % 2]),
                           batch[i / 12]);
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
