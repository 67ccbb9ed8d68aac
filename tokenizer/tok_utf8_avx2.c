/*
 * tok_utf8_avx2.c: whether text is UTF-8, 32 bytes at once.
 *
 * Three looks into tables of 16, by the halves of a byte and the upper half of
 * the next, each give the mistakes that are still possible; what all three
 * give is one.  The method: Keiser and Lemire, "Validating UTF-8 in less than
 * one instruction per byte", 2020.
 */

#include "tokenizer/tok_unicode.h"


#ifdef __AVX2__

#include <immintrin.h>


/* What can be wrong with two bytes. */
enum {
    ALONE = 1,                      /* a lead, and none of its bytes behind */
    STRAY = 2,                      /* ASCII, and a byte of a character */
    SHORT3 = 4,                     /* e0 80 ... 9f: fewer bytes would do */
    LARGE = 8,                      /* f4 90 and beyond */
    HALF = 16,                      /* ed a0 ... bf: surrogates */
    SHORT2 = 32,                    /* c0, c1 */
    SHORT4 = 64,                    /* f0 80 ... 8f; and f5 ... ff with them */
    PAIR = 128,                     /* two that lead nothing: right if a lead
                                       of three or four is before them */
    ANY = ALONE | STRAY | PAIR
};

#define B  (char)

static const char  of_upper[16] = {
    STRAY, STRAY, STRAY, STRAY, STRAY, STRAY, STRAY, STRAY,
    B PAIR, B PAIR, B PAIR, B PAIR,
    ALONE | SHORT2, ALONE, ALONE | SHORT3 | HALF, ALONE | LARGE | SHORT4
};

static const char  of_lower[16] = {
    B (ANY | SHORT2 | SHORT3 | SHORT4), B (ANY | SHORT2), B ANY, B ANY,
    B (ANY | LARGE),
    B (ANY | LARGE | SHORT4), B (ANY | LARGE | SHORT4),
    B (ANY | LARGE | SHORT4), B (ANY | LARGE | SHORT4),
    B (ANY | LARGE | SHORT4), B (ANY | LARGE | SHORT4),
    B (ANY | LARGE | SHORT4), B (ANY | LARGE | SHORT4),
    B (ANY | LARGE | SHORT4 | HALF),
    B (ANY | LARGE | SHORT4), B (ANY | LARGE | SHORT4)
};

static const char  of_next[16] = {
    ALONE, ALONE, ALONE, ALONE, ALONE, ALONE, ALONE, ALONE,
    B (STRAY | PAIR | SHORT2 | SHORT3 | SHORT4),
    B (STRAY | PAIR | SHORT2 | SHORT3 | LARGE),
    B (STRAY | PAIR | SHORT2 | HALF | LARGE),
    B (STRAY | PAIR | SHORT2 | HALF | LARGE),
    ALONE, ALONE, ALONE, ALONE
};

typedef struct {
    __m256i  upper, lower, next;
} tables_t;


static inline __m256i
twice(const char *p)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *) p));
}


/* Whether a block is well-formed behind the one before; what its last bytes
 * begin is for the next. */
static inline bool
is_good(const tables_t *t, __m256i last, __m256i v)
{
    __m256i  low = _mm256_set1_epi8(0x0f), cross, p1, p2, p3, bad, more;

    cross = _mm256_permute2x128_si256(last, v, 0x21);
    p1 = _mm256_alignr_epi8(v, cross, 15);
    p2 = _mm256_alignr_epi8(v, cross, 14);
    p3 = _mm256_alignr_epi8(v, cross, 13);
    bad = _mm256_and_si256(
              _mm256_shuffle_epi8(t->upper, _mm256_and_si256(
                                  _mm256_srli_epi16(p1, 4), low)),
              _mm256_shuffle_epi8(t->lower, _mm256_and_si256(p1, low)));
    bad = _mm256_and_si256(
              bad, _mm256_shuffle_epi8(t->next, _mm256_and_si256(
                                       _mm256_srli_epi16(v, 4), low)));
    /* The top bit: a third or fourth byte must be here; PAIR says it is. */
    more = _mm256_or_si256(
               _mm256_subs_epu8(p2, _mm256_set1_epi8(0xe0 - 0x80)),
               _mm256_subs_epu8(p3, _mm256_set1_epi8(0xf0 - 0x80)));
    more = _mm256_and_si256(more, _mm256_set1_epi8(B 0x80));
    bad = _mm256_xor_si256(bad, more);
    return _mm256_testz_si256(bad, bad);
}


size_t
tok_utf8_good_avx2(const uint8_t *p, size_t len)
{
    tables_t  t = { twice(of_upper), twice(of_lower), twice(of_next) };
    __m256i   last = _mm256_setzero_si256(), v;
    size_t    i;

    for (i = 0; len - i >= 32; i += 32, last = v) {
        v = _mm256_loadu_si256((const void *) (p + i));
        if (_mm256_movemask_epi8(_mm256_or_si256(v, last)) != 0
            && !is_good(&t, last, v))
        {
            break;
        }
    }
    if (i == 0) {
        return 0;
    }
    return p[i - 1] >= 0xc0 ? i - 1 : p[i - 2] >= 0xe0 ? i - 2
           : p[i - 3] >= 0xf0 ? i - 3 : i;
}


#endif
