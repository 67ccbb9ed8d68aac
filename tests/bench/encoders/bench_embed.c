/*
 * Texts per second of an encoder: batches of equal length with made-up ids.
 *
 *   build/bench/encoders/bench_embed MODEL PRECISION THREADS TOKENS SECONDS
 *       [cpu]           seconds of CPU time, of all threads
 *
 * One JSON line: {"1": texts/s, "8": ..., "32": ...}.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "worker/encoder/enc.h"

#define BATCH_MAX  32u

static clockid_t  clock_id = CLOCK_MONOTONIC;


static double
now(void)
{
    struct timespec  t;

    clock_gettime(clock_id, &t);

    return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}


static double
rate(enc_t *e, uint32_t batch, uint32_t tokens, double seconds, float *out)
{
    double           start, t;
    uint32_t         i, n = 0, at[BATCH_MAX + 1];
    static uint32_t  ids[BATCH_MAX * 512];
    enc_batch_t      b = { ids, NULL, at, batch };

    for (i = 0; i < batch * tokens; i++) {
        ids[i] = 1000 + i * 7919 % 20000;
    }
    for (i = 0; i <= batch; i++) {
        at[i] = i * tokens;
    }
    if (enc_run(e, &b, out) != 0) {
        return -1;
    }
    start = now();
    do {
        (void) enc_run(e, &b, out);
        n += batch;
        t = now() - start;
    } while (t < seconds);

    return n / t;
}


int
main(int argc, char **argv)
{
    enc_t             *e;
    float             *out;
    double             seconds;
    uint32_t           tokens, i;
    eng_err_t          err;
    enc_opts_t         o = ENC_OPTS_INIT;
    enc_model_t       *m;
    enc_model_opts_t   mo = ENC_MODEL_OPTS_INIT;

    static const uint32_t  batch[] = { 1, 8, 32 };

    if (argc != 6 && (argc != 7 || strcmp(argv[6], "cpu") != 0)) {
        fprintf(stderr, "usage: bench_embed MODEL "
                "float32|bfloat16|int8 THREADS TOKENS SECONDS [cpu]\n");
        return 2;
    }
    if (argc == 7) {
        clock_id = CLOCK_PROCESS_CPUTIME_ID;
    }
    mo.precision = strcmp(argv[2], "int8") == 0 ? ENC_PREC_INT8
                   : strcmp(argv[2], "bfloat16") == 0 ? ENC_PREC_BF16
                   : ENC_PREC_F32;
    o.threads = (uint32_t) strtod(argv[3], NULL);
    tokens = (uint32_t) strtod(argv[4], NULL);
    seconds = strtod(argv[5], NULL);
    o.max_tokens = BATCH_MAX * tokens;
    if (tokens < 1 || tokens > 512
        || enc_model_open(argv[1], &mo, &m, &err) != 0
        || enc_create(m, &o, &e, &err) != 0)
    {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    out = calloc(BATCH_MAX, enc_limits(e)->width * sizeof(float));
    for (i = 0; i < 3; i++) {
        printf("%s\"%u\": %.2f", i == 0 ? "{" : ", ", batch[i],
               rate(e, batch[i], tokens, seconds, out));
    }
    puts("}");
    free(out);
    enc_destroy(e);
    enc_model_close(m);

    return 0;
}
