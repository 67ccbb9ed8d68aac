/*
 * Pieces of a GGUF file, appended to a buffer: numbers, strings, keys,
 * quantised blocks.  For tests only.
 */
#ifndef TINY_PUT_H
#define TINY_PUT_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    uint8_t  *p;
    size_t    n, cap;
} tiny_t;

static inline void
tiny_put(tiny_t *t, const void *p, size_t n)
{
    if (t->n + n > t->cap) {
        t->cap = (t->n + n) * 2 + 4096;
        t->p = realloc(t->p, t->cap);
        if (t->p == NULL) {
            abort();
        }
    }
    if (n > 0) {
        memcpy(t->p + t->n, p, n);
    }
    t->n += n;
}


static inline void
tiny_u32(tiny_t *t, uint32_t v)
{
    tiny_put(t, &v, 4);
}


static inline void
tiny_u64(tiny_t *t, uint64_t v)
{
    tiny_put(t, &v, 8);
}


static inline void
tiny_str(tiny_t *t, const char *s)
{
    tiny_u64(t, strlen(s));
    tiny_put(t, s, strlen(s));
}


static inline void
tiny_kv_u32(tiny_t *t, const char *key, uint32_t v)
{
    tiny_str(t, key);
    tiny_u32(t, 4);
    tiny_u32(t, v);
}


static inline void
tiny_kv_f32(tiny_t *t, const char *key, float v)
{
    tiny_str(t, key);
    tiny_u32(t, 6);
    tiny_put(t, &v, 4);
}


static inline void
tiny_kv_str(tiny_t *t, const char *key, const char *v)
{
    tiny_str(t, key);
    tiny_u32(t, 8);
    tiny_str(t, v);
}


static inline float
tiny_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;

    return (float) ((int32_t) *state) / 2147483648.0f;
}


static inline uint16_t
tiny_half(float f)
{
    _Float16  h = (_Float16) f;
    uint16_t  u;

    memcpy(&u, &h, 2);

    return u;
}


static inline uint64_t
tiny_row_bytes(uint32_t type, uint32_t cols)
{
    return type == 0 ? cols * 4u : type == 8 ? cols / 32 * 34u
                                             : cols / 32 * 20u;
}


/* Writes one block of 32 and puts what it means back into x. */
static inline void
tiny_block(tiny_t *out, uint32_t type, float *x)
{
    int       i;
    float     d, m = 0;
    uint8_t   b[34], q[32];
    uint16_t  h;

    d = type == 8 ? 1.0f / 127 : 2.0f / 15;
    d = (float) (_Float16) (d * 0.2f);
    m = type == 8 ? 0 : (float) (_Float16) -0.2f;
    for (i = 0; i < 32; i++) {
        float  v = roundf((x[i] - m) / d);

        if (type == 8) {
            q[i] = (uint8_t) (int8_t) v;
            x[i] = (float) (int8_t) q[i] * d;
        } else {
            v = v < 0 ? 0 : v > 15 ? 15 : v;
            q[i] = (uint8_t) v;
            x[i] = (float) q[i] * d + m;
        }
    }
    h = tiny_half(d);
    memcpy(b, &h, 2);
    if (type == 8) {
        memcpy(b + 2, q, 32);
        tiny_put(out, b, 34);
        return;
    }
    h = tiny_half(m);
    memcpy(b + 2, &h, 2);
    for (i = 0; i < 16; i++) {
        b[4 + i] = (uint8_t) (q[i] | q[i + 16] << 4);
    }
    tiny_put(out, b, 20);
}


/* A temporary file with n bytes; path is a buffer of at least 64. */
static inline void
tiny_write(const void *p, size_t n, char *path)
{
    int  fd;

    memcpy(path, "/tmp/infer-test-XXXXXX", 23);
    fd = mkstemp(path);
    if (fd < 0 || write(fd, p, n) != (ssize_t) n || close(fd) != 0) {
        abort();
    }
}

#endif
