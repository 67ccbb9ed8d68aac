/*
 * The forward pass: against a plain float reference written from the
 * architecture's description, and bitwise the same for every batch, chunking
 * and number of threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/engine/tiny_gguf.h"
#include "worker/engine/eng.h"

#define N_MAX  100

typedef struct {
    const tiny_model_t  *c;
    const tiny_file_t   *f;
    double               k[4][N_MAX][64], v[4][N_MAX][64];
} ref_t;


/* ---- the reference: one token after the other, in double ----------------- */

static const float *
tensor(const ref_t *r, int layer, const char *name, const char *kind)
{
    char          s[64];
    const float  *w;

    if (layer < 0) {
        snprintf(s, sizeof(s), "%s.%s", name, kind);
    } else {
        snprintf(s, sizeof(s), "blk.%d.%s.%s", layer, name, kind);
    }
    w = tiny_find(r->f, s);
    if (w == NULL) {
        fail_msg("no %s", s);
    }

    return w;
}


static const float *
weight(const ref_t *r, int layer, const char *name)
{
    return tensor(r, layer, name, "weight");
}


static int
has(const ref_t *r, uint32_t flag)
{
    return (r->c->flags & flag) != 0;
}


static void
add_bias(const ref_t *r, int layer, const char *name, double *y, uint32_t n)
{
    uint32_t  i;

    if (has(r, TINY_BIAS)) {
        for (i = 0; i < n; i++) {
            y[i] += (double) tensor(r, layer, name, "bias")[i];
        }
    }
}


static double
soft(const ref_t *r, double x)
{
    return r->c->softcap > 0 ? r->c->softcap * tanh(x / r->c->softcap) : x;
}


static void
norm(double *y, const double *x, const float *w, uint32_t n)
{
    double    s = 0;
    uint32_t  i;

    for (i = 0; i < n; i++) {
        s += x[i] * x[i];
    }
    s = 1 / sqrt(s / n + 1e-5f);
    for (i = 0; i < n; i++) {
        y[i] = x[i] * s * w[i];
    }
}


static void
mul(double *y, const float *w, const double *x, uint32_t rows, uint32_t cols)
{
    uint32_t  i, j;

    for (i = 0; i < rows; i++) {
        y[i] = 0;
        for (j = 0; j < cols; j++) {
            y[i] += (double) w[(size_t) i * cols + j] * x[j];
        }
    }
}


static void
rope(const ref_t *r, int layer, double *x, uint32_t pos)
{
    double    base = 10000, f, a, b, t;
    uint32_t  i, p, q, half = r->c->head_dim / 2;

    if (r->c->nope_every != 0 && (layer + 1) % (int) r->c->nope_every == 0) {
        return;
    }
    for (i = 0; i < half; i++) {
        f = pow(base, -2.0 * i / r->c->head_dim);
        if (r->c->factors) {
            f /= weight(r, -1, "rope_freqs")[i];
        }
        t = pos * f;
        p = has(r, TINY_NEOX) ? i : 2 * i;
        q = has(r, TINY_NEOX) ? i + half : 2 * i + 1;
        a = x[p] * cos(t) - x[q] * sin(t);
        b = x[p] * sin(t) + x[q] * cos(t);
        x[p] = a;
        x[q] = b;
    }
}


static void
ref_attention(ref_t *r, int l, const double *xn, uint32_t pos, double *out)
{
    double    q[64], s[N_MAX], sum, max;
    uint32_t  h, i, p, first, hd = r->c->head_dim;
    uint32_t  g = r->c->heads / r->c->heads_kv;

    mul(q, weight(r, l, "attn_q"), xn, r->c->heads * hd, r->c->embd);
    mul(r->k[l][pos], weight(r, l, "attn_k"), xn, r->c->heads_kv * hd,
        r->c->embd);
    mul(r->v[l][pos], weight(r, l, "attn_v"), xn, r->c->heads_kv * hd,
        r->c->embd);
    add_bias(r, l, "attn_q", q, r->c->heads * hd);
    add_bias(r, l, "attn_k", r->k[l][pos], r->c->heads_kv * hd);
    add_bias(r, l, "attn_v", r->v[l][pos], r->c->heads_kv * hd);
    for (h = 0; h < r->c->heads_kv; h++) {
        if (has(r, TINY_QKNORM)) {
            norm(r->k[l][pos] + h * hd, r->k[l][pos] + h * hd,
                 weight(r, l, "attn_k_norm"), hd);
        }
        rope(r, l, r->k[l][pos] + h * hd, pos);
    }
    first = r->c->global_every != 0 && (l + 1) % (int) r->c->global_every != 0
            && pos >= TINY_WINDOW ? pos - TINY_WINDOW + 1 : 0;

    for (h = 0; h < r->c->heads; h++) {
        if (has(r, TINY_QKNORM)) {
            norm(q + h * hd, q + h * hd, weight(r, l, "attn_q_norm"), hd);
        }
        rope(r, l, q + h * hd, pos);
        max = -1e30;
        for (p = first; p <= pos; p++) {
            s[p] = 0;
            for (i = 0; i < hd; i++) {
                s[p] += q[h * hd + i] * r->k[l][p][h / g * hd + i];
            }
            s[p] = soft(r, s[p] / sqrt(hd));
            max = s[p] > max ? s[p] : max;
        }
        for (sum = 0, p = first; p <= pos; p++) {
            s[p] = exp(s[p] - max);
            sum += s[p];
        }
        for (i = 0; i < hd; i++) {
            out[h * hd + i] = 0;
            for (p = first; p <= pos; p++) {
                out[h * hd + i] += s[p] / sum * r->v[l][p][h / g * hd + i];
            }
        }
    }
}


static double
activation(const ref_t *r, double x)
{
    if (has(r, TINY_GELU)) {
        return 0.5 * x * (1 + tanh(sqrt(2 / M_PI)
                                   * (x + 0.044715 * x * x * x)));
    }

    return x / (1 + exp(-x));
}


static void
ref_token(ref_t *r, uint32_t token, uint32_t pos, double *logits)
{
    int       l;
    double    x[64], n[64], a[64], t[64], g[96], u[96];
    uint32_t  i, e = r->c->embd, ff = r->c->ff;

    for (i = 0; i < e; i++) {
        x[i] = weight(r, -1, "token_embd")[token * e + i];
        x[i] *= has(r, TINY_SCALE) ? sqrt(e) : 1;
    }
    for (l = 0; l < (int) r->c->layers; l++) {
        norm(n, x, weight(r, l, "attn_norm"), e);
        ref_attention(r, l, n, pos, a);
        mul(t, weight(r, l, "attn_output"), a, e,
            r->c->heads * r->c->head_dim);
        if (has(r, TINY_POST)) {
            norm(t, t, weight(r, l, "post_attention_norm"), e);
        }
        for (i = 0; i < e; i++) {
            x[i] += t[i];
        }
        norm(n, x, weight(r, l, "ffn_norm"), e);
        mul(g, weight(r, l, "ffn_gate"), n, ff, e);
        mul(u, weight(r, l, "ffn_up"), n, ff, e);
        for (i = 0; i < ff; i++) {
            g[i] = activation(r, g[i]) * u[i];
        }
        mul(t, weight(r, l, "ffn_down"), g, e, ff);
        if (has(r, TINY_POST)) {
            norm(t, t, weight(r, l, "post_ffw_norm"), e);
        }
        for (i = 0; i < e; i++) {
            x[i] += t[i];
        }
    }
    norm(n, x, weight(r, -1, "output_norm"), e);
    mul(logits, weight(r, -1, r->c->untied ? "output" : "token_embd"), n,
        r->c->vocab, e);
    for (i = 0; i < r->c->vocab; i++) {
        logits[i] = soft(r, logits[i]);
    }
}


/* ---- the engine --------------------------------------------------------- */

/* How the models of a test are opened. */
static eng_kvtype_t  kv_type = ENG_KV_F16;
static eng_prec_t    precision = ENG_PREC_INT8;


static eng_model_t *
open_tiny(const tiny_file_t *f, const char *level)
{
    char              path[64];
    eng_err_t         err;
    eng_model_t      *m;
    eng_model_opts_t  o = ENG_MODEL_OPTS_INIT;

    o.kern_level = level;
    o.kv_type = kv_type;
    o.precision = precision;
    tiny_write(f->file.p, f->file.n, path);
    if (eng_model_open(path, &o, &m, &err) != 0) {
        fail_msg("%s", err.text);
    }
    unlink(path);

    return m;
}


static void
create(const eng_model_t *m, uint32_t threads, eng_t *e)
{
    eng_err_t       err;
    eng_ctx_opts_t  o = ENG_CTX_OPTS_INIT;

    o.max_seqs = 8;
    o.max_batch_tokens = 128;
    o.max_logits = 128;
    o.threads = threads;
    o.spin = threads > 2 ? 100 : 0;       /* more threads than cores */
    if (eng_create(m, &o, e, &err) != 0) {
        fail_msg("%s", err.text);
    }
}


static uint32_t
token(uint32_t seq, uint32_t pos)
{
    return (pos * 37 + seq * 11 + pos * pos) % 80;
}


/* Runs positions [from, to) of seq as one step, alone. */
static void
feed(eng_t *e, uint32_t seq, uint32_t who, uint32_t from, uint32_t to,
    float (*out)[80])
{
    uint32_t      i;
    eng_tok_t     t[N_MAX];
    const float  *l[N_MAX];

    memset(t, 0, sizeof(t));
    for (i = from; i < to; i++) {
        t[i - from] = (eng_tok_t) { token(who, i), seq, i, 1 };
    }
    assert_int_equal(eng_step(e, t, to - from, l), 0);
    for (i = from; i < to; i++) {
        memcpy(out[i], l[i - from], 80 * sizeof(float));
    }
}


static double
compare_with_reference(const tiny_model_t *c, const char *level)
{
    eng_t          e;
    double         want[80], d, worst = 0;
    uint32_t       i, j, seq;
    eng_model_t   *m;
    tiny_file_t    f;
    static ref_t   r;
    static float   got[N_MAX][80];

    tiny_build(&f, c);
    m = open_tiny(&f, level);
    create(m, 2, &e);
    assert_int_equal(eng_seq_open(&e, &seq), 0);
    assert_int_equal(eng_seq_reserve(&e, seq, N_MAX), 0);
    feed(&e, seq, 0, 0, N_MAX, got);

    r.c = c;
    r.f = &f;
    for (i = 0; i < N_MAX; i++) {
        ref_token(&r, token(0, i), i, want);
        for (j = 0; j < 80; j++) {
            d = fabs(want[j] - got[i][j]);
            worst = d > worst ? d : worst;
        }
    }
    eng_destroy(&e);
    eng_model_close(m);
    tiny_free(&f);

    return worst;
}


/* Float weights: what is left is the f16 of keys and values. */
static void
test_reference_float(void **state)
{
    double        d;
    tiny_model_t  c = TINY_LLAMA;

    (void) state;
    d = compare_with_reference(&c, NULL);
    print_message("llama, float: %g\n", d);
    assert_true(d < 4e-3);
    d = compare_with_reference(&c, "scalar");
    print_message("llama, float, scalar: %g\n", d);
    assert_true(d < 4e-3);

    c.untied = 1;
    c.factors = 1;
    c.heads_kv = 4;
    c.seed = 5;
    d = compare_with_reference(&c, NULL);
    print_message("llama, untied, rope factors: %g\n", d);
    assert_true(d < 4e-3);
}


/* Every other line of the table, with what sets it apart. */
static void
test_reference_archs(void **state)
{
    static const struct {
        const char  *arch;
        uint32_t     flags, global_every, nope_every;
        float        softcap;
        double       worst;
    } t[] = {
        { "smollm3", 0, 0, 4, 0, 4e-3 },
        { "qwen2", TINY_NEOX | TINY_BIAS, 0, 0, 0, 4e-3 },
        { "qwen3", TINY_NEOX | TINY_QKNORM, 0, 0, 0, 4e-3 },
        { "gemma2", TINY_GEMMA, 2, 0, 5.0f, 4e-3 },
        { "gemma3", TINY_GEMMA | TINY_QKNORM, 6, 0, 0, 4e-3 },
    };

    size_t        i;
    double        d;
    tiny_model_t  c = TINY_LLAMA;

    (void) state;
    for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        c.arch = t[i].arch;
        c.flags = t[i].flags;
        c.global_every = t[i].global_every;
        c.nope_every = t[i].nope_every;
        c.softcap = t[i].softcap;
        c.layers = 4;
        c.seed = 11 + (uint32_t) i;
        d = compare_with_reference(&c, NULL);
        print_message("%s: %g\n", t[i].arch, d);
        assert_true(d > 0 && d < t[i].worst);
    }
}


/* Quantised weights as they are, activations int8: an error, but bounded. */
static void
test_reference_quantised(void **state)
{
    double        d;
    tiny_model_t  c = TINY_LLAMA;

    (void) state;
    c.type = 8;
    d = compare_with_reference(&c, NULL);
    print_message("llama, Q8_0: %g\n", d);
    assert_true(d > 0 && d < 0.15);
    c.type = 3;
    d = compare_with_reference(&c, NULL);
    print_message("llama, Q4_1: %g\n", d);
    assert_true(d > 0 && d < 0.15);

    /* 15 bits are as good as floats: what is left is the f16 of the cache */
    precision = ENG_PREC_EXACT;
    d = compare_with_reference(&c, NULL);
    print_message("llama, Q4_1, exact: %g\n", d);
    assert_true(d > 0 && d < 8e-3);
    d = compare_with_reference(&c, "scalar");
    assert_true(d > 0 && d < 8e-3);
    kv_type = ENG_KV_Q8_0;
    d = compare_with_reference(&c, NULL);
    print_message("llama, Q4_1, exact, Q8_0 cache: %g\n", d);
    assert_true(d > 0 && d < 0.1);
    kv_type = ENG_KV_F16;
    precision = ENG_PREC_INT8;
}


/* ---- independence ------------------------------------------------------- */

static void
expect_same(float (*a)[80], float (*b)[80], uint32_t n, const char *what)
{
    uint32_t  i;

    for (i = 0; i < n; i++) {
        if (memcmp(a[i], b[i], sizeof(a[i])) != 0) {
            fail_msg("%s: position %u differs", what, i);
        }
    }
}


/* Five sequences in one batch, chunks of different sizes, interleaved. */
static void
feed_mixed(eng_t *e, float (*out)[N_MAX][80])
{
    uint32_t      s, i, n, left, seq[5], at[5] = { 0 };
    eng_tok_t     t[128];
    const float  *l[128];

    memset(t, 0, sizeof(t));
    for (s = 0; s < 5; s++) {
        assert_int_equal(eng_seq_open(e, &seq[s]), 0);
        assert_int_equal(eng_seq_reserve(e, seq[s], N_MAX), 0);
    }
    do {
        for (s = 0, n = 0, left = 0; s < 5; s++) {
            for (i = 0; i < 1 + s * s && at[s] < N_MAX && n < 128; i++) {
                t[n++] = (eng_tok_t) { token(s, at[s]), seq[s], at[s], 1 };
                at[s]++;
            }
            left += N_MAX - at[s];
        }
        assert_int_equal(eng_step(e, t, n, l), 0);
        for (i = 0; i < n; i++) {
            for (s = 0; seq[s] != t[i].seq; s++) {
            }
            memcpy(out[s][t[i].pos], l[i], 80 * sizeof(float));
        }
    } while (left > 0);
    for (s = 0; s < 5; s++) {
        eng_seq_close(e, seq[s]);
    }
}


static void
independence(const tiny_model_t *c, const char *level)
{
    eng_t         e;
    uint32_t      s, i, threads, seq;
    eng_model_t  *m;
    tiny_file_t   f;
    static float  alone[5][N_MAX][80], other[5][N_MAX][80];

    tiny_build(&f, c);
    m = open_tiny(&f, level);
    for (threads = 1; threads <= 5; threads += threads > 1 ? 3 : 1) {
        create(m, threads, &e);
        for (s = 0; s < 5; s++) {
            assert_int_equal(eng_seq_open(&e, &seq), 0);
            assert_int_equal(eng_seq_reserve(&e, seq, N_MAX), 0);
            if (threads == 1) {
                feed(&e, seq, s, 0, N_MAX, alone[s]);
            } else {
                for (i = 0; i < N_MAX; i++) {
                    feed(&e, seq, s, i, i + 1, other[s]);
                }
                expect_same(alone[s], other[s], N_MAX, "one by one");
            }
            eng_seq_close(&e, seq);
        }
        memset(other, 0, sizeof(other));
        feed_mixed(&e, other);
        for (s = 0; s < 5; s++) {
            expect_same(alone[s], other[s], N_MAX, "mixed batch");
        }
        eng_destroy(&e);
    }
    eng_model_close(m);
    tiny_free(&f);
}


static void
test_independence(void **state)
{
    tiny_model_t  c = TINY_LLAMA;

    (void) state;
    independence(&c, NULL);
    c.type = 3;
    independence(&c, NULL);
    c.type = 8;
    independence(&c, NULL);
    c.arch = "gemma3";
    c.flags = TINY_GEMMA | TINY_QKNORM;
    c.heads_kv = 1;
    independence(&c, NULL);
}


static void
test_independence_options(void **state)
{
    tiny_model_t  c = TINY_LLAMA;

    (void) state;
    c.type = 3;
    kv_type = ENG_KV_Q8_0;
    independence(&c, NULL);
    precision = ENG_PREC_EXACT;
    independence(&c, NULL);
    kv_type = ENG_KV_F16;
    independence(&c, NULL);
    precision = ENG_PREC_INT8;
}


/* Quantised experts, with both precisions. */
static void
test_independence_experts(void **state)
{
    tiny_model_t  c = TINY_LLAMA;

    (void) state;
    c.type = 3;
    c.experts = 5;
    c.used = 2;
    independence(&c, NULL);
    c.type = 8;
    c.used = 3;
    precision = ENG_PREC_EXACT;
    independence(&c, NULL);
    precision = ENG_PREC_INT8;
}


/* Few wanted logits: the last layer drops the other columns. */
static void
test_wanted_only(void **state)
{
    eng_t         e;
    uint32_t      i, k, seq, n, want[4] = { 0, 3, 40, 99 };
    eng_tok_t     t[N_MAX];
    const float  *l[N_MAX];
    eng_model_t  *m;
    tiny_file_t   f;
    tiny_model_t  conf = TINY_LLAMA;
    static float  all[N_MAX][80];

    (void) state;
    conf.type = 3;
    tiny_build(&f, &conf);
    m = open_tiny(&f, NULL);
    create(m, 2, &e);
    assert_int_equal(eng_seq_open(&e, &seq), 0);
    assert_int_equal(eng_seq_reserve(&e, seq, N_MAX), 0);
    feed(&e, seq, 0, 0, N_MAX, all);
    for (k = 0; k <= 4; k++) {
        eng_seq_trim(&e, seq, 0);
        assert_int_equal(eng_seq_reserve(&e, seq, N_MAX), 0);
        for (i = 0; i < N_MAX; i++) {
            t[i] = (eng_tok_t) { token(0, i), seq, i, 0 };
        }
        for (i = 0; i < k; i++) {
            t[want[i]].want_logits = 1;
        }
        /* in two chunks, of which the second may want nothing */
        n = k == 2 ? 97 : 50;
        memset(l, 0, sizeof(l));
        assert_int_equal(eng_step(&e, t, n, l), 0);
        for (i = 0; i < k && want[i] < n; i++) {
            assert_memory_equal(l[want[i]], all[want[i]], 80 * 4);
        }
        assert_int_equal(eng_step(&e, t + n, N_MAX - n, l + n), 0);
        for ( ; i < k; i++) {
            assert_memory_equal(l[want[i]], all[want[i]], 80 * 4);
        }
    }
    eng_destroy(&e);
    eng_model_close(m);
    tiny_free(&f);
}


/* A fork and an attached prefix continue like the original. */
static void
test_shared_prefix(void **state)
{
    eng_t         e;
    uint32_t      a, b, c, page[2], free_pages;
    eng_model_t  *m;
    tiny_file_t   f;
    tiny_model_t  conf = TINY_LLAMA;
    static float  first[N_MAX][80], second[N_MAX][80], third[N_MAX][80];

    (void) state;
    conf.type = 3;
    tiny_build(&f, &conf);
    m = open_tiny(&f, NULL);
    create(m, 2, &e);
    free_pages = eng_kv_free_pages(&e);

    assert_int_equal(eng_seq_open(&e, &a), 0);
    assert_int_equal(eng_seq_reserve(&e, a, N_MAX), 0);
    feed(&e, a, 0, 0, 70, first);
    assert_int_equal(eng_seq_open(&e, &b), 0);
    assert_int_equal(eng_seq_fork(&e, b, a, 70), 0);
    assert_int_equal(eng_seq_reserve(&e, b, N_MAX), 0);
    page[0] = eng_seq_page(&e, a, 0);
    page[1] = eng_seq_page(&e, a, 1);
    assert_int_equal(page[1], eng_seq_page(&e, b, 1));
    assert_int_not_equal(eng_seq_page(&e, a, 2), eng_seq_page(&e, b, 2));

    /* the original goes another way first: the fork does not see it */
    feed(&e, a, 3, 70, N_MAX, first);
    feed(&e, b, 0, 70, N_MAX, second);
    eng_seq_trim(&e, a, 70);
    assert_int_equal(eng_seq_reserve(&e, a, N_MAX), 0);
    feed(&e, a, 0, 70, N_MAX, first);
    expect_same(first + 70, second + 70, 30, "fork");

    eng_page_ref(&e, page[0]);
    eng_page_ref(&e, page[1]);
    eng_seq_close(&e, a);
    eng_seq_close(&e, b);
    assert_int_equal(eng_kv_free_pages(&e), free_pages - 2);
    assert_int_equal(eng_seq_open(&e, &c), 0);
    assert_int_equal(eng_seq_attach(&e, c, page, 2), 0);
    assert_int_equal(eng_seq_reserve(&e, c, N_MAX), 0);
    feed(&e, c, 0, 64, N_MAX, third);
    expect_same(first + 70, third + 70, 30, "attached prefix");
    eng_seq_close(&e, c);
    eng_page_unref(&e, page[0]);
    eng_page_unref(&e, page[1]);
    assert_int_equal(eng_kv_free_pages(&e), free_pages);

    eng_destroy(&e);
    eng_model_close(m);
    tiny_free(&f);
}


static void
refuse(eng_t *e, const eng_tok_t *t, uint32_t n)
{
    const float  *l[160];

    assert_int_equal(eng_step(e, t, n, l), ENG_EINVAL);
}


static void
test_contract(void **state)
{
    eng_t         e;
    uint32_t      a, b, i;
    eng_tok_t     t[160];
    const float  *l[160];
    eng_model_t  *m;
    tiny_file_t   f;
    tiny_model_t  conf = TINY_LLAMA;

    (void) state;
    tiny_build(&f, &conf);
    m = open_tiny(&f, NULL);
    create(m, 2, &e);
    assert_int_equal(eng_seq_open(&e, &a), 0);
    assert_int_equal(eng_seq_open(&e, &b), 0);
    assert_int_equal(eng_seq_reserve(&e, a, 257), ENG_ELIMIT);
    assert_int_equal(eng_seq_reserve(&e, a, 32), 0);

    for (i = 0; i < 160; i++) {
        t[i] = (eng_tok_t) { 5, a, i, 0 };
    }
    refuse(&e, t, 0);
    refuse(&e, t, 129);                   /* more than the batch             */
    refuse(&e, t, 33);                    /* not reserved                    */
    refuse(&e, t + 1, 1);                 /* a gap before the first          */
    t[1].pos = 5;
    refuse(&e, t, 2);                     /* a gap inside                    */
    t[1].pos = 1;
    t[1].token = 80;
    refuse(&e, t, 2);                     /* no such token                   */
    t[1].token = 5;
    t[1].seq = 7;
    refuse(&e, t, 2);                     /* no such sequence                */
    t[1].seq = UINT32_MAX;
    refuse(&e, t, 2);
    t[1].seq = b;
    t[1].pos = 0;
    refuse(&e, t, 2);                     /* b has no pages                  */
    assert_int_equal(eng_seq_reserve(&e, b, 1), 0);
    t[2].pos = 1;
    refuse(&e, t, 3);                     /* a in two places                 */
    assert_int_equal(eng_step(&e, t, 2, l), 0);

    eng_destroy(&e);
    eng_model_close(m);
    tiny_free(&f);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_reference_float),
        cmocka_unit_test(test_reference_archs),
        cmocka_unit_test(test_reference_quantised),
        cmocka_unit_test(test_independence),
        cmocka_unit_test(test_independence_options),
        cmocka_unit_test(test_independence_experts),
        cmocka_unit_test(test_wanted_only),
        cmocka_unit_test(test_shared_prefix),
        cmocka_unit_test(test_contract),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
