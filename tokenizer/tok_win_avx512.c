/*
 * tok_win_avx512.c: the classes of a window in one register.
 */

#include "tokenizer/tok_win.h"

#ifdef __AVX512BW__
#include <immintrin.h>


/* Bytes from lo to lo + n - 1. */
static inline uint64_t
range(__m512i v, char lo, char n)
{
    return _mm512_cmplt_epu8_mask(_mm512_sub_epi8(v, _mm512_set1_epi8(lo)),
                                  _mm512_set1_epi8(n));
}


static inline uint64_t
equal(__m512i v, char c)
{
    return _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8(c));
}


void
tok_win_classes_avx512(tok_win_t *w, const uint8_t *p)
{
    const __m512i  v = _mm512_loadu_si512(p);

    w->letter = range(_mm512_or_si512(v, _mm512_set1_epi8(0x20)), 'a', 26);
    w->upper = range(v, 'A', 26);
    w->digit = range(v, '0', 10);
    w->blank = equal(v, ' ');
    w->space = w->blank | range(v, '\t', 5);
    w->brk = equal(v, '\n') | equal(v, '\r');
    w->quote = equal(v, '\'');
    w->slash = equal(v, '/');
    w->control = (range(v, 0, 32) | equal(v, 0x7f)) & ~w->space;
    w->high = _mm512_movepi8_mask(v);
}


#endif
