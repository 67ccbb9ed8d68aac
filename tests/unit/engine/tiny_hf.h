/*
 * Writes small Hugging Face folders from a line of tests/golden/engine/
 * hf.jsonl: config.json, and safetensors with the weights of the formula that
 * tests/tools/hf_golden.py has too.  For tests only.
 */
#ifndef TINY_HF_H
#define TINY_HF_H

#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>
#include <cjson/cJSON.h>

#include "tests/unit/engine/tiny_put.h"


static inline void
hf_put(const char *dir, const char *name, const void *p, size_t n)
{
    char   path[256];
    FILE  *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "wb");
    if (f == NULL || fwrite(p, 1, n, f) != n || fclose(f) != 0) {
        abort();
    }
}


static inline void
hf_unlink(const char *dir, const char *name)
{
    char  path[512];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    if (unlink(path) != 0) {
        abort();
    }
}


static inline void
hf_remove(const char *dir)
{
    DIR            *d = opendir(dir);
    struct dirent  *e;

    while (d != NULL && (e = readdir(d)) != NULL) {
        if (e->d_name[0] != '.') {
            hf_unlink(dir, e->d_name);
        }
    }
    if (d == NULL || closedir(d) != 0 || rmdir(dir) != 0) {
        abort();
    }
}


/* The values of a tensor: see the script. */
static inline void
hf_values(tiny_t *out, const char *name, const char *kind, const char *dtype,
    size_t n)
{
    int       k;
    float     v;
    size_t    i;
    uint16_t  h;
    uint32_t  w, state = 2166136261u;

    for (i = 0; name[i] != '\0'; i++) {
        state = (state ^ (uint8_t) name[i]) * 16777619u;
    }
    for (i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        k = (int) (state >> 24) - 128;
        v = strcmp(kind, "matrix") == 0 ? (float) k / 1024.0f
            : (float) ((k + 128) / 8 - 16) / 64.0f
              + (strcmp(kind, "norm1") == 0 ? 1.0f : 0.0f);
        if (strcmp(dtype, "F32") == 0) {
            tiny_put(out, &v, 4);
        } else if (strcmp(dtype, "F16") == 0) {
            h = tiny_half(v);
            tiny_put(out, &h, 2);
        } else {
            memcpy(&w, &v, 4);
            h = (uint16_t) (w >> 16);
            tiny_put(out, &h, 2);
        }
    }
}


/* Every shards-th tensor from `shard` on; `skip` is left out or, with `as`,
   written under that name. */
static inline void
hf_shard(const char *dir, const cJSON *c, int shard, int shards,
    const char *skip, const char *as, cJSON *map)
{
    int          i, j, n;
    char         file[64], *text;
    cJSON       *header = cJSON_CreateObject(), *t, *shape, *at;
    size_t       count, begin;
    tiny_t       data = { 0 }, out = { 0 };
    const cJSON *list = cJSON_GetObjectItem(c, "tensors"), *item;
    const char  *name, *dtype = cJSON_GetObjectItem(c, "dtype")->valuestring;

    snprintf(file, sizeof(file), shards == 1 ? "model.safetensors"
             : "model-%d.safetensors", shard + 1);
    n = cJSON_GetArraySize(list);
    for (i = shard; i < n; i += shards) {
        item = cJSON_GetArrayItem(list, i);
        name = cJSON_GetArrayItem(item, 0)->valuestring;
        shape = cJSON_GetArrayItem(item, 2);
        for (count = 1, j = 0; j < cJSON_GetArraySize(shape); j++) {
            count *= (size_t) cJSON_GetArrayItem(shape, j)->valueint;
        }
        begin = data.n;
        hf_values(&data, name, cJSON_GetArrayItem(item, 1)->valuestring,
                  dtype, count);
        if (skip != NULL && strcmp(skip, name) == 0) {
            name = as;
        }
        if (name == NULL) {
            continue;
        }
        t = cJSON_AddObjectToObject(header, name);
        cJSON_AddStringToObject(t, "dtype", dtype);
        cJSON_AddItemToObject(t, "shape", cJSON_Duplicate(shape, 1));
        at = cJSON_AddArrayToObject(t, "data_offsets");
        cJSON_AddItemToArray(at, cJSON_CreateNumber((double) begin));
        cJSON_AddItemToArray(at, cJSON_CreateNumber((double) data.n));
        cJSON_AddStringToObject(map, name, file);
    }
    text = cJSON_PrintUnformatted(header);
    tiny_u64(&out, strlen(text));
    tiny_put(&out, text, strlen(text));
    tiny_put(&out, data.p, data.n);
    hf_put(dir, file, out.p, out.n);
    free(text);
    free(data.p);
    free(out.p);
    cJSON_Delete(header);
}


static inline void
hf_write(const char *dir, const cJSON *c, const char *skip, const char *as)
{
    int    i, shards = cJSON_GetObjectItem(c, "shards")->valueint;
    char  *text;
    cJSON *index = cJSON_CreateObject(), *map;

    if (mkdir(dir, 0700) != 0 && errno != EEXIST) {
        abort();
    }
    map = cJSON_AddObjectToObject(index, "weight_map");
    for (i = 0; i < shards; i++) {
        hf_shard(dir, c, i, shards, skip, as, map);
    }
    text = cJSON_PrintUnformatted(index);
    if (shards > 1) {
        hf_put(dir, "model.safetensors.index.json", text, strlen(text));
    }
    free(text);
    cJSON_Delete(index);
    text = cJSON_PrintUnformatted(cJSON_GetObjectItem(c, "config"));
    hf_put(dir, "config.json", text, strlen(text));
    free(text);
}

#endif
