/*
 * Every architecture and rotary variant against the reference
 * implementation's own code: tests/golden/engine/archs.json, made by
 * tests/tools/make_arch_golden.py.  The models are made here from the tables
 * in that file: weights are a hash of (tensor name, index), stored as F32, so
 * that nothing is left but the order of float sums (and half precision of
 * keys and values, which the reference's cache has too).
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <cjson/cJSON.h>

#include "tests/unit/engine/tiny_put.h"
#include "worker/engine/eng.h"
#include "worker/engine/eng_rope.h"
#include "worker/kernels/kern.h"

#define TENSORS_MAX  256
#define TOKENS_MAX    64
#define VOCAB         96

/*
 * Float sums in another order: 1e-6 of logits of a few units.  A key or value
 * near the middle between two halves may be rounded the other way, by 2^-11 of
 * it, one of some thousands: the most seen in a logit is 1.5e-4, 4e-5 in the
 * mean.  A wrong factor, pair or mask makes 1e-1 and more.
 */
#define WORST         6e-4
#define MEAN          1e-4
/* The five best log probabilities against a cache in float32: what half
   precision costs these models, 4e-3 at most; the reference's own logits
   differ by up to 9e-3 (cache_effect in the file). */
#define TOP_WORST     1e-2

typedef struct {
    char          name[64];
    uint32_t      n_dims;
    uint64_t      dim[3];         /* the file's order: innermost first       */
    uint64_t      n;
    int           norm;
    const cJSON  *values;         /* or NULL: hashed                         */
} tensor_t;

typedef struct {
    tensor_t  t[TENSORS_MAX];
    uint32_t  n;
} table_t;

static cJSON  *golden;


static const cJSON *
item(const cJSON *o, const char *name)
{
    const cJSON  *i = cJSON_GetObjectItem(o, name);

    if (i == NULL) {
        fail_msg("no %s", name);
    }

    return i;
}


static uint32_t
number(const cJSON *o, const char *name)
{
    return (uint32_t) item(o, name)->valuedouble;
}


/* ---- the model file ----------------------------------------------------- */

static void
add_tensor(table_t *table, const cJSON *row, int layer)
{
    int           i, n;
    tensor_t     *t = &table->t[table->n++];
    const cJSON  *dims = cJSON_GetArrayItem(row, 2);
    const char   *name = cJSON_GetArrayItem(row, 0)->valuestring;

    assert_true(table->n <= TENSORS_MAX);
    if (layer < 0) {
        snprintf(t->name, sizeof(t->name), "%s", name);
    } else {
        snprintf(t->name, sizeof(t->name), "blk.%d.%s", layer, name);
    }
    t->norm = strcmp(cJSON_GetArrayItem(row, 1)->valuestring, "norm") == 0;
    n = cJSON_GetArraySize(dims);
    t->n_dims = (uint32_t) n;
    t->n = 1;
    for (i = 0; i < n; i++) {
        t->dim[i] = (uint64_t) cJSON_GetArrayItem(dims, n - 1 - i)
                                   ->valuedouble;
        t->n *= t->dim[i];
    }
}


static void
list_tensors(const cJSON *c, table_t *table)
{
    uint32_t      i;
    const cJSON  *row;

    table->n = 0;
    cJSON_ArrayForEach(row, item(c, "top")) {
        add_tensor(table, row, -1);
    }
    for (i = 0; i < number(c, "layers"); i++) {
        cJSON_ArrayForEach(row, item(c, "layer")) {
            add_tensor(table, row, (int) i);
        }
    }
    cJSON_ArrayForEach(row, item(c, "values")) {
        tensor_t  *t = &table->t[table->n++];

        assert_true(table->n <= TENSORS_MAX);
        snprintf(t->name, sizeof(t->name), "%s", row->string);
        t->values = row;
        t->n_dims = 1;
        t->n = t->dim[0] = (uint64_t) cJSON_GetArraySize(row);
    }
}


static void
put_keys(tiny_t *f, const cJSON *c)
{
    const cJSON  *k;

    tiny_kv_str(f, "general.architecture", item(c, "arch")->valuestring);
    cJSON_ArrayForEach(k, item(c, "keys")) {
        if (cJSON_IsString(k)) {
            tiny_kv_str(f, k->string, k->valuestring);
        } else if (strstr(k->string, "epsilon") != NULL
                   || strstr(k->string, "freq_base") != NULL
                   || strstr(k->string, "factor") != NULL
                   || strstr(k->string, "beta") != NULL
                   || strstr(k->string, "softcapping") != NULL)
        {
            tiny_kv_f32(f, k->string, (float) k->valuedouble);
        } else {
            tiny_kv_u32(f, k->string, (uint32_t) k->valuedouble);
        }
    }
}


/* Number i of a tensor, in [-1, 1): the tool's unit(). */
static float
hashed(uint32_t seed, uint32_t i)
{
    uint32_t  x = seed + i * 0x9E3779B9u;

    x = (x ^ (x >> 16)) * 0x85EBCA6Bu;
    x = (x ^ (x >> 13)) * 0xC2B2AE35u;
    x ^= x >> 16;

    return (float) (x >> 16) / 32768 - 1;
}


static void
put_values(tiny_t *f, const tensor_t *t)
{
    float        v;
    uint32_t     i, seed = 2166136261u;
    const char  *s;

    for (s = t->name; *s != '\0'; s++) {
        seed = (seed ^ (uint8_t) *s) * 16777619u;
    }
    for (i = 0; i < t->n; i++) {
        v = hashed(seed, i) / 4 + (t->norm ? 1 : 0);
        if (t->values != NULL) {
            v = (float) cJSON_GetArrayItem(t->values, (int) i)->valuedouble;
        }
        tiny_put(f, &v, 4);
    }
}


static void
pad(tiny_t *f)
{
    while (f->n % 32 != 0) {
        tiny_put(f, "", 1);
    }
}


static void
build(tiny_t *f, const cJSON *c)
{
    uint32_t        i, d;
    uint64_t        offset = 0;
    static table_t  table;

    memset(f, 0, sizeof(*f));
    memset(&table, 0, sizeof(table));
    list_tensors(c, &table);
    tiny_put(f, "GGUF", 4);
    tiny_u32(f, 3);
    tiny_u64(f, table.n);
    tiny_u64(f, 1 + (uint64_t) cJSON_GetArraySize(item(c, "keys")));
    put_keys(f, c);
    for (i = 0; i < table.n; i++) {
        tiny_str(f, table.t[i].name);
        tiny_u32(f, table.t[i].n_dims);
        for (d = 0; d < table.t[i].n_dims; d++) {
            tiny_u64(f, table.t[i].dim[d]);
        }
        tiny_u32(f, 0);
        tiny_u64(f, offset);
        offset = (offset + table.t[i].n * 4 + 31) / 32 * 32;
    }
    for (i = 0; i < table.n; i++) {
        pad(f);
        put_values(f, &table.t[i]);
    }
}


/* ---- comparison --------------------------------------------------------- */

static eng_model_t *
open_case(const cJSON *c)
{
    char              path[64];
    tiny_t            f;
    eng_err_t         err;
    eng_model_t      *m;
    eng_model_opts_t  o = ENG_MODEL_OPTS_INIT;

    build(&f, c);
    tiny_write(f.p, f.n, path);
    free(f.p);
    if (eng_model_open(path, &o, &m, &err) != 0) {
        fail_msg("%s: %s", item(c, "name")->valuestring, err.text);
    }
    unlink(path);

    return m;
}


/* All positions as one step, or one by one. */
static void
feed(eng_t *e, uint32_t n, int alone, float (*out)[VOCAB])
{
    uint32_t      i, seq;
    eng_tok_t     t[TOKENS_MAX];
    const float  *l[TOKENS_MAX];

    assert_int_equal(eng_seq_open(e, &seq), 0);
    assert_int_equal(eng_seq_reserve(e, seq, n), 0);
    memset(t, 0, sizeof(t));
    for (i = 0; i < n; i++) {
        t[i] = (eng_tok_t) { (i * 37 + i * i) % VOCAB, seq, i, 1 };
        if (alone) {
            assert_int_equal(eng_step(e, &t[i], 1, l), 0);
            memcpy(out[i], l[0], sizeof(out[i]));
        }
    }
    if (!alone) {
        assert_int_equal(eng_step(e, t, n, l), 0);
        for (i = 0; i < n; i++) {
            memcpy(out[i], l[i], sizeof(out[i]));
        }
    }
    eng_seq_close(e, seq);
}


static void
run_case(const cJSON *c, uint32_t n, float (*out)[VOCAB])
{
    eng_t            e;
    uint32_t         i;
    eng_err_t        err;
    eng_model_t     *m = open_case(c);
    eng_ctx_opts_t   co = ENG_CTX_OPTS_INIT;
    static float     again[TOKENS_MAX][VOCAB];

    co.max_seqs = 1;
    co.ctx_len = number(c, "ctx");
    co.max_batch_tokens = TOKENS_MAX;
    co.max_logits = TOKENS_MAX;
    if (eng_create(m, &co, &e, &err) != 0) {
        fail_msg("%s", err.text);
    }
    feed(&e, n, 0, out);
    feed(&e, n, 1, again);
    for (i = 0; i < n; i++) {
        assert_memory_equal(out[i], again[i], sizeof(out[i]));
    }
    eng_destroy(&e);
    eng_model_close(m);
}


static void
compare_case(const cJSON *c, uint32_t n)
{
    int           i, j, p, k;
    double        d, worst = 0, sum = 0, top = 0, all;
    const cJSON  *want, *best;
    static float  got[TOKENS_MAX][VOCAB];

    run_case(c, n, got);
    for (i = 0; i < cJSON_GetArraySize(item(c, "logits")); i++) {
        p = (int) cJSON_GetArrayItem(item(golden, "shown"), i)->valuedouble;
        want = cJSON_GetArrayItem(item(c, "logits"), i);
        for (j = 0; j < VOCAB; j++) {
            d = fabs((double) got[p][j]
                     - cJSON_GetArrayItem(want, j)->valuedouble);
            sum += d;
            worst = d > worst ? d : worst;
        }
        all = (double) kern_logsumexp(got[p], VOCAB);
        for (j = 0; j < 5; j++) {
            best = cJSON_GetArrayItem(cJSON_GetArrayItem(item(c, "top5"), i),
                                      j);
            k = (int) cJSON_GetArrayItem(best, 0)->valuedouble;
            d = fabs((double) got[p][k] - all
                     - cJSON_GetArrayItem(best, 1)->valuedouble);
            top = d > top ? d : top;
        }
    }
    sum /= (double) i * VOCAB;
    print_message("%-14s worst %.1e, mean %.1e; with a float cache, best "
                  "five: %.1e\n", item(c, "name")->valuestring, worst, sum,
                  top);
    assert_true(worst > 0 && worst <= WORST);
    assert_true(sum <= MEAN);
    assert_true(top <= TOP_WORST);
}


static void
test_cases(void **state)
{
    uint32_t      n = number(golden, "tokens");
    const cJSON  *c;

    (void) state;
    assert_true(n <= TOKENS_MAX);
    cJSON_ArrayForEach(c, item(golden, "cases")) {
        compare_case(c, n);
    }
}


static const cJSON *
find_case(const char *name)
{
    const cJSON  *c;

    cJSON_ArrayForEach(c, item(golden, "cases")) {
        if (strcmp(item(c, "name")->valuestring, name) == 0) {
            return c;
        }
    }
    fail_msg("no case %s", name);

    return NULL;
}


/* Four sequences of the same tokens, each step with pieces of 0 to 12 of
   them: the first n positions of every one must be the lone one's. */
static void
feed_mixed(eng_t *e, uint32_t n, float (*alone)[VOCAB])
{
    uint32_t      i, s, k, round = 0, left = 1, seq[4], at[4] = { 0 };
    eng_tok_t     t[TOKENS_MAX];
    const float  *l[TOKENS_MAX];

    for (s = 0; s < 4; s++) {
        assert_int_equal(eng_seq_open(e, &seq[s]), 0);
        assert_int_equal(eng_seq_reserve(e, seq[s], n), 0);
    }
    for (round = 0; left > 0; round++) {
        for (s = 0, k = 0, left = 0; s < 4; s++) {
            for (i = (round * 5 + s * 7) % 13; i > 0 && at[s] < n; i--) {
                t[k++] = (eng_tok_t) { (at[s] * 37 + at[s] * at[s]) % VOCAB,
                                       seq[s], at[s], 1 };
                at[s]++;
            }
            left += n - at[s];
        }
        if (k > 0) {
            assert_int_equal(eng_step(e, t, k, l), 0);
        }
        for (i = 0; i < k; i++) {
            assert_memory_equal(l[i], alone[t[i].pos], sizeof(alone[0]));
        }
    }
    for (s = 0; s < 4; s++) {
        eng_seq_close(e, seq[s]);
    }
}


/* Bitwise the same whatever else is in the batch and with any threads. */
static void
test_mixed(void **state)
{
    static const char *const  names[] = { "mixtral", "qwen2moe", "phi3" };

    eng_t           e;
    size_t          i;
    uint32_t        threads;
    eng_err_t       err;
    eng_model_t    *m;
    const cJSON    *c;
    eng_ctx_opts_t  co = ENG_CTX_OPTS_INIT;
    static float    alone[TOKENS_MAX][VOCAB];

    (void) state;
    co.max_seqs = 4;
    co.max_batch_tokens = co.max_logits = TOKENS_MAX;
    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        c = find_case(names[i]);
        run_case(c, 40, alone);
        m = open_case(c);
        for (threads = 1; threads <= 4; threads += threads) {
            co.threads = threads;
            co.spin = threads > 2 ? 100 : 0;
            assert_int_equal(eng_create(m, &co, &e, &err), 0);
            feed_mixed(&e, 40, alone);
            eng_destroy(&e);
        }
        eng_model_close(m);
    }
}


/* A llama file that counts a window has it in every layer, as mistral. */
static void
test_llama_window(void **state)
{
    char          name[128];
    cJSON        *c = cJSON_Duplicate(find_case("mistral"), 1), *k;
    static float  a[TOKENS_MAX][VOCAB], b[TOKENS_MAX][VOCAB];

    (void) state;
    run_case(c, 40, a);
    cJSON_SetValuestring(cJSON_GetObjectItem(c, "arch"), "llama");
    cJSON_ArrayForEach(k, cJSON_GetObjectItem(c, "keys")) {
        snprintf(name, sizeof(name), "llama.%s", strchr(k->string, '.') + 1);
        memcpy(k->string, name, strlen(name) + 1);      /* is shorter */
    }
    run_case(c, 40, b);
    assert_memory_equal(a, b, sizeof(a[0]) * 40);
    cJSON_SetNumberValue(cJSON_GetObjectItem(item(c, "keys"),
                         "llama.attention.sliding_window"), 0);
    run_case(c, 40, b);
    assert_memory_equal(a[15], b[15], sizeof(a[0]));
    assert_true(memcmp(a[39], b[39], sizeof(a[0])) != 0);
    cJSON_Delete(c);
}


/* The context that is asked for chooses between short and long factors. */
static void
test_context_chooses(void **state)
{
    cJSON        *ctx;
    const cJSON  *c = find_case("phi3-short");
    static float  a[TOKENS_MAX][VOCAB], b[TOKENS_MAX][VOCAB];

    (void) state;
    ctx = cJSON_GetObjectItem(c, "ctx");
    run_case(c, 20, a);
    cJSON_SetNumberValue(ctx, 65);
    run_case(c, 20, b);
    cJSON_SetNumberValue(ctx, 64);
    /* position 0 is not rotated */
    assert_memory_equal(a[0], b[0], sizeof(a[0]));
    assert_true(memcmp(a[19], b[19], sizeof(a[19])) != 0);
}


/* ---- frequencies -------------------------------------------------------- */

static void
check_rope(const cJSON *r)
{
    double        d, want, worst = 0;
    float         freq[256], factor[256];
    uint32_t      i, half;
    eng_rope_t    o = ENG_ROPE_INIT;
    const cJSON  *divide = item(r, "divide");

    o.kind = (eng_rope_kind_t) number(r, "kind");
    o.dim = number(r, "dim");
    o.base = item(r, "base")->valuedouble;
    o.factor = item(r, "factor")->valuedouble;
    o.ctx_orig = number(r, "ctx_orig");
    o.mscale = item(r, "mscale_given")->valuedouble;
    o.beta_fast = item(r, "beta_fast")->valuedouble;
    o.beta_slow = item(r, "beta_slow")->valuedouble;
    o.freq_low = item(r, "freq_low")->valuedouble;
    o.freq_high = item(r, "freq_high")->valuedouble;
    half = o.dim / 2;
    assert_true(half <= 256);
    eng_rope_freqs(&o, freq);
    if (cJSON_GetArraySize(divide) > 0) {
        for (i = 0; i < half; i++) {
            factor[i] = (float) cJSON_GetArrayItem(divide, (int) i)
                                    ->valuedouble;
        }
        eng_rope_divide(freq, factor, half);
    }
    for (i = 0; i < half; i++) {
        want = cJSON_GetArrayItem(item(r, "freq"), (int) i)->valuedouble;
        d = fabs((double) freq[i] - want) / want;
        worst = d > worst ? d : worst;
    }
    d = fabs((double) eng_rope_mscale(&o) - item(r, "mscale")->valuedouble);
    print_message("rope kind %d, %u: relative %.1e, factor %.1e\n",
                  (int) o.kind, o.dim, worst, d);
    /* the reference computes in float32: a few units in the last place */
    assert_true(worst < 2e-6);
    assert_true(d < 1e-6);
}


static void
test_ropes(void **state)
{
    const cJSON  *r;

    (void) state;
    cJSON_ArrayForEach(r, item(golden, "ropes")) {
        check_rope(r);
    }
}


static void
read_golden(void)
{
    long   n;
    char  *p;
    FILE  *f = fopen("tests/golden/engine/archs.json", "rb");

    if (f == NULL) {
        abort();
    }
    fseek(f, 0, SEEK_END);
    n = ftell(f);
    rewind(f);
    p = calloc(1, (size_t) n + 1);
    if (p == NULL || fread(p, 1, (size_t) n, f) != (size_t) n) {
        abort();
    }
    fclose(f);
    golden = cJSON_Parse(p);
    free(p);
    if (golden == NULL) {
        abort();
    }
}


int
main(void)
{
    int                      rc;
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_mixed),
        cmocka_unit_test(test_llama_window),
        cmocka_unit_test(test_context_chooses),
        cmocka_unit_test(test_ropes),
    };

    read_golden();
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    cJSON_Delete(golden);

    return rc;
}
