/*
 * tok_unicode.c: character classes, UTF-8, the byte-level alphabet.  The
 * classes are tables that tools/gen_classes.py took from the reference.
 */

#define TOK_CLASSES_DATA
#include "tokenizer/tok_int.h"
#include "tokenizer/tok_unicode.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif


const uint16_t *const  tok_class_rows = tok_class_block;
const uint16_t *const  tok_class_rows_index = tok_class_index;

/*
 * Bytes that print as themselves stand for themselves, the other 68 for the
 * code points from U+0100 on, in order.
 */
const uint16_t  tok_byte_char[256] = {
#define ROW_UP(b)    256 + b, 257 + b, 258 + b, 259 + b, 260 + b, 261 + b,   \
                     262 + b, 263 + b
#define ROW_SAME(b)  b, b + 1, b + 2, b + 3, b + 4, b + 5, b + 6, b + 7
    ROW_UP(0), ROW_UP(8), ROW_UP(16), ROW_UP(24),
    288, 33, 34, 35, 36, 37, 38, 39, ROW_SAME(40), ROW_SAME(48), ROW_SAME(56),
    ROW_SAME(64), ROW_SAME(72), ROW_SAME(80), ROW_SAME(88),
    ROW_SAME(96), ROW_SAME(104), ROW_SAME(112),
    120, 121, 122, 123, 124, 125, 126, 289,
    ROW_UP(34), ROW_UP(42), ROW_UP(50), ROW_UP(58),
    322, 161, 162, 163, 164, 165, 166, 167,
    168, 169, 170, 171, 172, 323, 174, 175, ROW_SAME(176), ROW_SAME(184),
    ROW_SAME(192), ROW_SAME(200), ROW_SAME(208), ROW_SAME(216),
    ROW_SAME(224), ROW_SAME(232), ROW_SAME(240), ROW_SAME(248)
#undef ROW_UP
#undef ROW_SAME
};

_Static_assert(sizeof(tok_byte_char) == 512, "one code point per byte");


int
tok_char_byte(uint32_t cp)
{
    if (cp < 256) {
        return tok_byte_char[cp] == cp ? (int) cp : -1;
    }
    if (cp <= 288) {
        return (int) cp - 256;
    }
    if (cp <= 322) {
        return (int) cp - 289 + 0x7f;
    }
    return cp == 323 ? 0xad : -1;
}


/* The length of the well-formed character at p, or 0. */
static inline size_t
utf8_one(const uint8_t *p, size_t left)
{
    uint8_t  lo = 0x80, hi = 0xbf;
    size_t   n, i;

    if (p[0] < 0x80) {
        return 1;
    }
    if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        n = 2;

    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        n = 3;
        lo = p[0] == 0xe0 ? 0xa0 : 0x80;
        hi = p[0] == 0xed ? 0x9f : 0xbf;

    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        n = 4;
        lo = p[0] == 0xf0 ? 0x90 : 0x80;
        hi = p[0] == 0xf4 ? 0x8f : 0xbf;

    } else {
        return 0;
    }
    if (left < n || p[1] < lo || p[1] > hi) {
        return 0;
    }
    for (i = 2; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return n;
}


size_t
tok_utf8_check(const uint8_t *p, size_t len)
{
    size_t    i = 0, n;
    unsigned  high;

#ifdef __SSE2__
    if (len >= 32 && __builtin_cpu_supports("avx2")) {
        i = tok_utf8_good_avx2(p, len);
    }
#endif
    while (i < len) {
#ifdef __SSE2__
        while (len - i >= 16) {
            high = (unsigned) _mm_movemask_epi8(
                                  _mm_loadu_si128((const __m128i *) (p + i)));
            if (high) {
                i += (size_t) __builtin_ctz(high);
                break;
            }
            i += 16;
        }
#else
        high = 0;
        while (len - i >= 8 && (tok_load64(p + i) & 0x8080808080808080ull)
               == high)
        {
            i += 8;
        }
#endif
        while (i < len && p[i] < 0x80 && len - i < 16) {
            i++;
        }
        /* Characters beyond ASCII come in runs. */
        while (i < len && (p[i] >= 0x80 || len - i < 16)) {
            n = utf8_one(p + i, len - i);
            if (n == 0) {
                return i;
            }
            i += n;
        }
    }
    return len;
}


/*
 * For repairing: length of the longest prefix of a well-formed character
 * (at least 1), *good if it is whole.
 */
size_t
tok_utf8_prefix(const uint8_t *p, size_t left, bool *good, bool *cut)
{
    uint8_t  lo = 0x80, hi = 0xbf;
    size_t   n = utf8_one(p, left), want, i;

    *good = n != 0;
    *cut = false;
    if (n) {
        return n;
    }
    want = p[0] >= 0xc2 && p[0] <= 0xdf ? 2
           : (p[0] & 0xf0) == 0xe0 ? 3
           : p[0] >= 0xf0 && p[0] <= 0xf4 ? 4 : 0;
    if (want == 0) {
        return 1;
    }
    lo = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : 0x80;
    hi = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : 0xbf;
    for (i = 1; i < want && i < left; i++) {
        if (p[i] < lo || p[i] > hi) {
            return i;
        }
        lo = 0x80;
        hi = 0xbf;
    }
    *cut = true;
    return i;
}
