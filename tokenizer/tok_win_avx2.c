/*
 * tok_win_avx2.c: the classes of a window in two registers.
 */

#include "tokenizer/tok_win.h"

#ifdef __AVX2__
#include <immintrin.h>


/* Bytes from lo to lo + n - 1. */
static inline __m256i
range(__m256i v, char lo, char n)
{
    return _mm256_cmpgt_epi8(_mm256_set1_epi8((char) (0x80 + n)),
                             _mm256_add_epi8(v, _mm256_set1_epi8(
                                                    (char) (0x80 - lo))));
}


static inline __m256i
equal(__m256i v, char c)
{
    return _mm256_cmpeq_epi8(v, _mm256_set1_epi8(c));
}


static inline uint64_t
bits(__m256i a, __m256i b)
{
    return (uint32_t) _mm256_movemask_epi8(a)
           | (uint64_t) (uint32_t) _mm256_movemask_epi8(b) << 32;
}


void
tok_win_classes_avx2(tok_win_t *w, const uint8_t *p)
{
    const __m256i  fold = _mm256_set1_epi8(0x20);
    const __m256i  a = _mm256_loadu_si256((const __m256i *) p);
    const __m256i  b = _mm256_loadu_si256((const __m256i *) (p + 32));

    w->letter = bits(range(_mm256_or_si256(a, fold), 'a', 26),
                     range(_mm256_or_si256(b, fold), 'a', 26));
    w->upper = bits(range(a, 'A', 26), range(b, 'A', 26));
    w->digit = bits(range(a, '0', 10), range(b, '0', 10));
    w->blank = bits(equal(a, ' '), equal(b, ' '));
    w->space = w->blank | bits(range(a, '\t', 5), range(b, '\t', 5));
    w->brk = bits(_mm256_or_si256(equal(a, '\n'), equal(a, '\r')),
                  _mm256_or_si256(equal(b, '\n'), equal(b, '\r')));
    w->quote = bits(equal(a, '\''), equal(b, '\''));
    w->slash = bits(equal(a, '/'), equal(b, '/'));
    w->control = bits(_mm256_or_si256(range(a, 0, 32), equal(a, 0x7f)),
                      _mm256_or_si256(range(b, 0, 32), equal(b, 0x7f)))
                 & ~w->space;
    w->high = bits(a, b);
}


#endif
