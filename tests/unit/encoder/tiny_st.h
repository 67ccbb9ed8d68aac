/*
 * Small model folders for the encoder tests: a config.json and a
 * model.safetensors with weights by formula (tests/golden/encoder/make.py has
 * the same), in a folder below TMPDIR that drop_folder() removes.
 */
#ifndef TINY_ST_H
#define TINY_ST_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

#include "worker/encoder/enc.h"

#define TINY_PATH  256
#define HEAD       (1u << 20)


static inline float
tiny_value(const char *name, uint32_t seed, uint32_t i, int dims,
    uint32_t cols)
{
    size_t    n = strlen(name);
    float     v;
    uint32_t  x = i * 2654435761u + seed;

    x = (x ^ (x >> 15)) * 0x2c1b3c6du;
    x = (x ^ (x >> 12)) * 0x297a2d39u;
    x ^= x >> 15;
    v = (float) (x >> 8) / 16777216.0f - 0.5f;
    if (dims == 1) {
        return n > 7 && strcmp(name + n - 7, ".weight") == 0
               ? 1 + v * 0.5f : v * 0.5f;
    }
    if (strstr(name, "embed") != NULL || strstr(name, "shared") != NULL
        || strstr(name, "bias") != NULL)
    {
        return v * 2;
    }

    return v * (float) pow(2, -rint(log2((double) cols) / 2 - 1.8));
}


static inline void
tiny_write(const char *folder, const char *file, const void *data, size_t len)
{
    char   path[3 * TINY_PATH];
    FILE  *f;

    snprintf(path, sizeof(path), "%s/%s", folder, file);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}


/* [[name, [shape...]], ...] to a file; `skip` is left out, `bad` gets one
   column more than it should (NULL: none). */
static inline void
tiny_weights(const char *folder, const cJSON *tensors, const char *skip,
    const char *bad)
{
    char         *head = calloc(1, HEAD);
    float        *data = calloc(1, 16 << 20);
    size_t        n = 8, at = 0, i, len, k;
    uint64_t      bytes;
    uint32_t      seed, rows, cols;
    const char   *name, *c;
    const cJSON  *t, *shape;

    n += (size_t) snprintf(head + n, HEAD - n, "{");
    cJSON_ArrayForEach(t, tensors) {
        name = cJSON_GetArrayItem(t, 0)->valuestring;
        shape = cJSON_GetArrayItem(t, 1);
        if (skip != NULL && strcmp(name, skip) == 0) {
            continue;
        }
        rows = (uint32_t) cJSON_GetArrayItem(shape, 0)->valuedouble;
        cols = cJSON_GetArraySize(shape) > 1
               ? (uint32_t) cJSON_GetArrayItem(shape, 1)->valuedouble : 0;
        if (bad != NULL && strcmp(name, bad) == 0) {
            cols = cols > 0 ? cols + 1 : 0;
            rows += cols == 0;
        }
        for (seed = 2166136261u, c = name; *c != '\0'; c++) {
            seed = (seed ^ (uint8_t) *c) * 16777619u;
        }
        len = (size_t) rows * (cols > 0 ? cols : 1);
        for (i = 0, k = at; i < len; i++) {
            data[k++] = tiny_value(name, seed, (uint32_t) i, cols > 0 ? 2 : 1,
                                   cols);
        }
        n += (size_t) snprintf(head + n, HEAD - n, "%s\"%s\":{\"dtype\":"
                               "\"F32\",\"shape\":[%u", n > 9 ? "," : "",
                               name, rows);
        n += (size_t) (cols == 0 ? 0
                       : snprintf(head + n, HEAD - n, ",%u", cols));
        n += (size_t) snprintf(head + n, HEAD - n, "],\"data_offsets\":"
                               "[%zu,%zu]}", at * 4, k * 4);
        at = k;
    }
    n += (size_t) snprintf(head + n, HEAD - n, "}");
    bytes = n - 8;
    memcpy(head, &bytes, 8);
    head = realloc(head, n + at * 4);
    memcpy(head + n, data, at * 4);
    tiny_write(folder, "model.safetensors", head, n + at * 4);
    free(head);
    free(data);
}


static inline void
tiny_folder(char *folder, const cJSON *model, const char *skip,
    const char *bad)
{
    char  *config;

    snprintf(folder, TINY_PATH, "%s/infer-enc-XXXXXX",
             getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(folder));
    config = cJSON_PrintUnformatted(cJSON_GetObjectItem(model, "config"));
    tiny_write(folder, "config.json", config, strlen(config));
    free(config);
    tiny_weights(folder, cJSON_GetObjectItem(model, "tensors"), skip, bad);
}


static inline void
tiny_drop(const char *folder)
{
    char         path[2 * TINY_PATH];
    size_t       i;
    const char  *const file[] = { "config.json", "model.safetensors",
                                  "modules.json", "1_Pooling/config.json",
                                  "1_Pooling", "sentence_bert_config.json" };

    for (i = 0; i < sizeof(file) / sizeof(file[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, file[i]);
        (void) remove(path);
    }
    assert_int_equal(rmdir(folder), 0);
}


static inline cJSON *
tiny_json(const char *path)
{
    long    len;
    char   *text;
    FILE   *f = fopen(path, "r");
    cJSON  *root;

    if (f == NULL) {
        return NULL;
    }
    fseek(f, 0, SEEK_END);
    len = ftell(f);
    rewind(f);
    text = calloc(1, (size_t) len + 1);
    assert_int_equal(fread(text, 1, (size_t) len, f), (size_t) len);
    fclose(f);
    root = cJSON_Parse(text);
    free(text);

    return root;
}


/* An array of numbers. */
static inline uint32_t
tiny_ids(const cJSON *a, uint32_t *ids, uint32_t cap)
{
    uint32_t      n = 0;
    const cJSON  *v;

    cJSON_ArrayForEach(v, a) {
        assert_true(n < cap);
        ids[n++] = (uint32_t) v->valuedouble;
    }

    return n;
}


static inline enc_model_t *
tiny_open(const char *path, enc_prec_t precision)
{
    eng_err_t         err;
    enc_model_t      *m;
    enc_model_opts_t  o = ENC_MODEL_OPTS_INIT;

    o.precision = precision;
    if (enc_model_open(path, &o, &m, &err) != 0) {
        fail_msg("%s", err.text);
    }

    return m;
}


static inline enc_t *
tiny_engine(const enc_model_t *m, uint32_t threads)
{
    enc_t       *e;
    eng_err_t    err;
    enc_opts_t   o = ENC_OPTS_INIT;

    o.threads = threads;
    o.max_tokens = 1024;
    o.max_seqs = 80;
    o.max_out = 32;
    if (enc_create(m, &o, &e, &err) != 0) {
        fail_msg("%s", err.text);
    }

    return e;
}


/* For so many answers of up to `out` tokens at a time. */
static inline enc_t *
tiny_decoder(const enc_model_t *m, uint32_t answers, uint32_t out)
{
    enc_t       *e;
    eng_err_t    err;
    enc_opts_t   o = ENC_OPTS_INIT;

    o.max_tokens = 128;
    o.max_seqs = answers;
    o.max_sources = answers;
    o.max_out = out;
    if (enc_create(m, &o, &e, &err) != 0) {
        fail_msg("%s", err.text);
    }

    return e;
}

#endif
