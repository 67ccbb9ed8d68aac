/*
 * tok_util.h: small things that all files of the tokenizer use: errors, checked
 * sums, growing arrays, hashing, walking UTF-8.  Not for callers.
 */

#ifndef TOK_UTIL_H
#define TOK_UTIL_H

#include "tokenizer/tok.h"
#include "tokenizer/tok_limits.h"

#include <assert.h>
#include <string.h>

#include "tokenizer/tok_classes.inc"


int tok_fail(tok_err_t *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

bool chk_add(size_t a, size_t b, size_t *sum);
bool chk_mul(size_t a, size_t b, size_t *product);

/*
 * A growing array.  Its room is kept in bytes, so that working memory may
 * hold elements of another size after n was set to 0.
 */
typedef struct {
    void    *ptr;
    size_t   n;                     /* elements */
    size_t   bytes;                 /* room */
} tok_vec_t;

int tok_vec_room(tok_vec_t *v, size_t more, size_t size);
void tok_vec_free(tok_vec_t *v);

/* At least so many bytes, aligned to pages; for free(). */
void *tok_block(size_t bytes);

/* Whole file; *data is malloc'ed and has a NUL after its len bytes. */
int tok_read_file(const char *path, size_t max, char **data, size_t *len,
    tok_err_t *err);

static inline uint64_t
tok_load64(const void *p)
{
    uint64_t  v;

    memcpy(&v, p, sizeof(v));
    return v;
}


static inline uint32_t
tok_load32(const void *p)
{
    uint32_t  v;

    memcpy(&v, p, sizeof(v));
    return v;
}


static inline uint64_t
tok_mix(uint64_t a, uint64_t b)
{
    __uint128_t  m = (__uint128_t) (a ^ 0x9e3779b97f4a7c15ull)
                     * (b ^ 0xd1b54a32d192ed03ull);

    return (uint64_t) m ^ (uint64_t) (m >> 64);
}


/* Bytes 0..len-1 of p (len <= 8) as a number, without reading beyond. */
static inline uint64_t
tok_load_part(const uint8_t *p, size_t len)
{
    if (len >= 8) {
        return tok_load64(p);
    }
    if (len >= 4) {
        return tok_load32(p)
               | (uint64_t) tok_load32(p + len - 4) << (8 * (len - 4));
    }
    if (len == 0) {
        return 0;
    }
    return p[0] | (uint64_t) p[len >> 1] << (8 * (len >> 1))
           | (uint64_t) p[len - 1] << (8 * (len - 1));
}


/* memcmp(p, q, len) == 0, for short texts. */
static inline bool
tok_same(const uint8_t *p, const uint8_t *q, size_t len)
{
    if (len > 16) {
        return memcmp(p, q, len) == 0;
    }
    if (len > 8) {
        return ((tok_load64(p) ^ tok_load64(q))
                | (tok_load64(p + len - 8) ^ tok_load64(q + len - 8))) == 0;
    }
    return tok_load_part(p, len) == tok_load_part(q, len);
}


/* memmem for texts of a few bytes, where its preparations would cost most. */
static inline const uint8_t *
tok_find(const uint8_t *p, size_t len, const uint8_t *what, size_t n)
{
    const uint8_t  *last = p + len - n;

    if (len < n || n == 0 || len > 64) {
        return n ? memmem(p, len, what, n) : p;
    }
    for (/* void */; p <= last; p++) {
        if (*p == *what && memcmp(p, what, n) == 0) {
            return p;
        }
    }
    return NULL;
}


static inline uint64_t
tok_hash_bytes(const uint8_t *p, size_t len)
{
    uint64_t  h = len * 0x9e3779b97f4a7c15ull;

    while (len > 16) {
        h = tok_mix(tok_load64(p) ^ h, tok_load64(p + 8));
        p += 16;
        len -= 16;
    }
    if (len > 8) {
        return tok_mix(tok_load64(p) ^ h, tok_load64(p + len - 8));
    }
    return tok_mix(tok_load_part(p, len) ^ h, h);
}


/* Unicode: tok_unicode.c */

size_t tok_utf8_check(const uint8_t *p, size_t len);   /* len, or where bad */

/* Decodes one character of checked UTF-8. */
static inline uint32_t
tok_utf8_get(const uint8_t *p, size_t *len)
{
    if (p[0] < 0x80) {
        *len = 1;
        return p[0];
    }
    if (p[0] < 0xe0) {
        *len = 2;
        return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
    }
    if (p[0] < 0xf0) {
        *len = 3;
        return (p[0] & 0xfu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    }
    *len = 4;
    return (p[0] & 7u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6
           | (p[3] & 0x3fu);
}


static inline size_t
tok_utf8_put(uint8_t *p, uint32_t c)
{
    if (c < 0x80) {
        p[0] = (uint8_t) c;
        return 1;
    }
    if (c < 0x800) {
        p[0] = (uint8_t) (0xc0 | c >> 6);
        p[1] = (uint8_t) (0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        p[0] = (uint8_t) (0xe0 | c >> 12);
        p[1] = (uint8_t) (0x80 | (c >> 6 & 0x3f));
        p[2] = (uint8_t) (0x80 | (c & 0x3f));
        return 3;
    }
    p[0] = (uint8_t) (0xf0 | c >> 18);
    p[1] = (uint8_t) (0x80 | (c >> 12 & 0x3f));
    p[2] = (uint8_t) (0x80 | (c >> 6 & 0x3f));
    p[3] = (uint8_t) (0x80 | (c & 0x3f));
    return 4;
}


static inline size_t
tok_utf8_size(uint8_t first)
{
    return first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}


/* The byte-level alphabet: byte to code point, code point to byte or -1. */
extern const uint16_t tok_byte_char[256];
int tok_char_byte(uint32_t cp);


#endif /* TOK_UTIL_H */
