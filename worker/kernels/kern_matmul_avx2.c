/*
 * Integer matrix products for AVX2.  A tile is 8 rows (half a packed group)
 * against up to 4 columns.  vpmaddubsw multiplies unsigned weights by signed
 * activations and adds pairs into 16 bits; how many steps may be summed there
 * without saturating decides the loops:
 *
 *   4 bits  15 * 127 * 2 * 8 steps = 30480: the whole block
 *   5 bits  31 * 127 * 2 * 4 steps = 31496: half a block
 *   6 bits  63 * 127 * 2 * 2 steps = 32004: two steps
 *   8 bits  128 * 127 * 2 = 32512: one step, on |w| and sign(w) x
 *
 * 8-bit and NL weights are therefore taken as signed bytes and need no bias.
 * The walk is kern_int.h's; up to 4 columns unpack on their way.
 */
#include "worker/kernels/kern_int_avx2.h"

#define KERN_NAME(op)   op##__avx2
#define KERN_COLS       4u      /* columns per tile */
#define KERN_COLS_N     4
#define KERN_DIRECT     4u      /* columns that unpack on their way, at most */

/* Bits of a weight, which choose the loop. */
enum {
    KERN_BITS_4 = 4,
    KERN_BITS_5 = 5,
    KERN_BITS_6 = 6,
    KERN_BITS_S8 = 8            /* signed bytes */
};

KERN_FN_INLINE int
kern_bits(const int form)
{
    return form == KERN_FORM_4 ? KERN_BITS_4
           : form == KERN_FORM_5 ? KERN_BITS_5
           : form == KERN_FORM_6 ? KERN_BITS_6 : KERN_BITS_S8;
}


/* Whether the weights are unsigned and their bias comes from the panel. */
KERN_FN_INLINE int
kern_biased(const int bits)
{
    return bits != KERN_BITS_S8;
}


/* The same as bytes of the tile: 8-bit and NL weights signed. */
KERN_FN_INLINE __m256i
kern_weights(const uint8_t *q, uint32_t t, uint32_t half, const int form)
{
    __m256i  v = kern_stored(q, t, half, form);

    if (form == KERN_FORM_8 || form == KERN_FORM_NL) {
        v = _mm256_xor_si256(v, _mm256_set1_epi8((char) 0x80));
    }

    return v;
}


/* Adds the dots of four vectors of weights (`part` 0: columns 0..15 of the
 * block, 1: 16..31) with n columns to dot. */
KERN_FN_INLINE void
kern_dots_part(__m256i *dot, const uint8_t *q, const int8_t *x, uint32_t half,
    const uint32_t part, const uint32_t n, const int form, const int bits)
{
    __m256i  sum[KERN_COLS], w, a, v, ones = _mm256_set1_epi16(1);

#pragma GCC unroll 8
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t  k = 4 * part + i;

        w = kern_weights(q, k, half, form);
        a = bits == KERN_BITS_S8 ? _mm256_abs_epi8(w) : w;

#pragma GCC unroll 8
        for (uint32_t c = 0; c < n; c++) {
            int32_t  word;

            memcpy(&word, x + 32 * c + 4 * k, sizeof(word));
            v = _mm256_set1_epi32(word);
            v = bits == KERN_BITS_S8 ? _mm256_sign_epi8(v, w) : v;
            v = _mm256_maddubs_epi16(a, v);

            if (bits == KERN_BITS_S8) {
                dot[c] = _mm256_add_epi32(dot[c], _mm256_madd_epi16(v, ones));
                continue;
            }

            sum[c] = i == 0 || (bits == KERN_BITS_6 && i == 2)
                     ? v : _mm256_add_epi16(sum[c], v);

            if (i == 3 || (bits == KERN_BITS_6 && i == 1)) {
                dot[c] = _mm256_add_epi32(dot[c],
                                          _mm256_madd_epi16(sum[c], ones));
            }
        }
    }
}


/* The dots of both halves of a block. */
KERN_FN_INLINE void
kern_dots(i_t *dot, i_t *dot1, const uint8_t *q, const int8_t *x,
    uint32_t half, const uint32_t n, const int form, const int bits)
{
    kern_dots_part(dot, q, x, half, 0, n, form, bits);
    kern_dots_part(dot1, q, x, half, 1, n, form, bits);
}


#include "worker/kernels/kern_tile.inc"


KERN_BYTES(s8_d, KERN_BITS_S8, KERN_SCALE_D)
KERN_BYTES(4_d, KERN_BITS_4, KERN_SCALE_D)
KERN_BYTES(4_dm, KERN_BITS_4, KERN_SCALE_DM)
KERN_BYTES(4_kh, KERN_BITS_4, KERN_SCALE_KH)
KERN_BYTES(4_khm, KERN_BITS_4, KERN_SCALE_KHM)
KERN_BYTES(5_d, KERN_BITS_5, KERN_SCALE_D)
KERN_BYTES(5_dm, KERN_BITS_5, KERN_SCALE_DM)
KERN_BYTES(6_kh, KERN_BITS_6, KERN_SCALE_KH)

static const kern_slice_pt  kern_bytes[9][KERN_SCALE_KHM + 1] = {
    [KERN_BITS_S8][KERN_SCALE_D] = kern_bytes_s8_d,
    [KERN_BITS_4][KERN_SCALE_D] = kern_bytes_4_d,
    [KERN_BITS_4][KERN_SCALE_DM] = kern_bytes_4_dm,
    [KERN_BITS_4][KERN_SCALE_KH] = kern_bytes_4_kh,
    [KERN_BITS_4][KERN_SCALE_KHM] = kern_bytes_4_khm,
    [KERN_BITS_5][KERN_SCALE_D] = kern_bytes_5_d,
    [KERN_BITS_5][KERN_SCALE_DM] = kern_bytes_5_dm,
    [KERN_BITS_6][KERN_SCALE_KH] = kern_bytes_6_kh,
};

KERN_INT_TYPES(KERN_STAMP)
