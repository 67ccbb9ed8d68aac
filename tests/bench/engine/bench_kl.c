/*
 * What rounding costs: the divergence of a model's distributions from those
 * of a reference, teacher forced over the texts of a golden file.
 *
 *   build/bench/engine/bench_kl REFERENCE.gguf MODEL.gguf GOLDEN.json
 *
 * REFERENCE is the same model with float weights (requant.py IN OUT F32), so
 * its activations are floats.  For each precision and each type of keys and
 * values: mean and largest Kullback-Leibler divergence in nats, and the share
 * of equal best tokens, over all positions.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "worker/engine/eng.h"
#include "worker/kernels/kern.h"

#define IDS_MAX  512

typedef struct {
    uint32_t  n;
    uint32_t  id[IDS_MAX];
} text_t;

typedef struct {
    double    sum, max;
    uint32_t  positions, equal;
} result_t;

typedef struct {
    eng_model_t  *model;
    eng_t         e;
} run_t;


static void
fail(const char *what)
{
    fprintf(stderr, "bench_kl: %s\n", what);
    exit(1);
}


static char *
read_file(const char *path)
{
    long   n;
    char  *p;
    FILE  *f = fopen(path, "rb");

    if (f == NULL) {
        fail(path);
    }
    fseek(f, 0, SEEK_END);
    n = ftell(f);
    rewind(f);
    p = calloc(1, (size_t) n + 1);
    if (p == NULL || fread(p, 1, (size_t) n, f) != (size_t) n) {
        fail(path);
    }
    fclose(f);

    return p;
}


static void
open_run(run_t *r, const char *path, eng_prec_t precision, eng_kvtype_t kv)
{
    eng_err_t         err;
    eng_ctx_opts_t    co = ENG_CTX_OPTS_INIT;
    eng_model_opts_t  mo = ENG_MODEL_OPTS_INIT;

    mo.precision = precision;
    mo.kv_type = kv;
    co.max_seqs = 1;
    co.ctx_len = IDS_MAX;
    co.max_batch_tokens = IDS_MAX;
    co.max_logits = IDS_MAX;
    if (eng_model_open(path, &mo, &r->model, &err) != 0
        || eng_create(r->model, &co, &r->e, &err) != 0)
    {
        fail(err.text);
    }
}


static void
close_run(run_t *r)
{
    eng_destroy(&r->e);
    eng_model_close(r->model);
}


/* Logits after every position, valid until the next call. */
static void
score(run_t *r, const text_t *t, const float **l)
{
    uint32_t   i, seq;
    eng_tok_t  tok[IDS_MAX];

    for (i = 0; i < t->n; i++) {
        tok[i] = (eng_tok_t) { t->id[i], 0, i, 1 };
    }
    if (eng_seq_open(&r->e, &seq) != 0 || seq != 0
        || eng_seq_reserve(&r->e, seq, t->n) != 0
        || eng_step(&r->e, tok, t->n, l) != 0)
    {
        fail("the engine refused a text");
    }
    eng_seq_close(&r->e, seq);
}


static void
compare(result_t *r, const float *ref, const float *l, uint32_t vocab)
{
    double    a = (double) kern_logsumexp(ref, vocab), kl = 0, p;
    double    b = (double) kern_logsumexp(l, vocab);
    uint32_t  i;

    for (i = 0; i < vocab; i++) {
        p = (double) ref[i] - a;
        kl += exp(p) * (p - ((double) l[i] - b));
    }
    r->sum += kl;
    r->max = kl > r->max ? kl : r->max;
    r->positions++;
    r->equal += kern_argmax(ref, vocab) == kern_argmax(l, vocab);
}


static uint32_t
read_texts(const char *path, text_t *text, uint32_t max)
{
    char         *s = read_file(path);
    cJSON        *root = cJSON_Parse(s);
    uint32_t      n = 0;
    const cJSON  *c, *id;

    if (root == NULL) {
        fail(path);
    }
    cJSON_ArrayForEach(c, cJSON_GetObjectItem(root, "cases")) {
        text_t  *t = &text[n];

        if (n++ == max) {
            fail("too many texts");
        }
        t->n = 0;
        cJSON_ArrayForEach(id, cJSON_GetObjectItem(c, "prompt_ids")) {
            t->id[t->n++ % IDS_MAX] = (uint32_t) id->valuedouble;
        }
        cJSON_ArrayForEach(id, cJSON_GetObjectItem(c, "tokens")) {
            t->id[t->n++ % IDS_MAX] = (uint32_t) id->valuedouble;
        }
        if (t->n == 0 || t->n > IDS_MAX) {
            fail("a text is empty or too long");
        }
    }
    cJSON_Delete(root);
    free(s);

    return n;
}


int
main(int argc, char **argv)
{
    static text_t  text[64];
    run_t          ref, r;
    uint32_t       n, i, j, k;
    result_t       res[4];
    const float   *want[IDS_MAX], *got[IDS_MAX];
    static const struct {
        const char    *name;
        eng_prec_t     precision;
        eng_kvtype_t   kv;
    } runs[4] = {
        { "int8 per 32, kv f16", ENG_PREC_INT8, ENG_KV_F16 },
        { "exact, kv f16", ENG_PREC_EXACT, ENG_KV_F16 },
        { "int8 per 32, kv q8_0", ENG_PREC_INT8, ENG_KV_Q8_0 },
        { "exact, kv q8_0", ENG_PREC_EXACT, ENG_KV_Q8_0 },
    };

    if (argc != 4) {
        fail("usage: bench_kl REFERENCE.gguf MODEL.gguf GOLDEN.json");
    }
    n = read_texts(argv[3], text, 64);
    memset(res, 0, sizeof(res));
    open_run(&ref, argv[1], ENG_PREC_EXACT, ENG_KV_F16);

    for (k = 0; k < 4; k++) {
        open_run(&r, argv[2], runs[k].precision, runs[k].kv);
        for (i = 0; i < n; i++) {
            score(&ref, &text[i], want);
            score(&r, &text[i], got);
            for (j = 0; j < text[i].n; j++) {
                compare(&res[k], want[j], got[j], ref.e.limits.vocab);
            }
        }
        close_run(&r);
        printf("%-22s KL mean %.2e, largest %.2e; %.2f %% of %u best tokens "
               "equal\n", runs[k].name, res[k].sum / res[k].positions,
               res[k].max, 100.0 * res[k].equal / res[k].positions,
               res[k].positions);
    }
    close_run(&ref);

    return 0;
}
