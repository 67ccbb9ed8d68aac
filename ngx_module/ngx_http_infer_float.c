/*
 * Shortest decimal numbers after R. Giulietti, "The Schubfach way to render
 * doubles" (2020), for binary32: a product with one 64-bit power of ten tells
 * the ends of the interval of numbers that read back as this float, and the
 * shortest one in it is found without a loop.
 */

#include <stdint.h>
#include <string.h>

#include "ngx_module/ngx_http_infer_float.h"


#define POW10_MIN   (-31)
#define DIGITS_MAX  10              /* of 32 bits; a float needs 9 */
#define COPY        16

/* 10^k as 64 bits, rounded up: floor(10^k * 2^(63 - floor(log2(10^k)))) + 1,
 * k from POW10_MIN on. */
static const uint64_t  pow10_64[] = {
    0x81ceb32c4b43fcf5u, 0xa2425ff75e14fc32u, 0xcad2f7f5359a3b3fu,
    0xfd87b5f28300ca0eu, 0x9e74d1b791e07e49u, 0xc612062576589ddbu,
    0xf79687aed3eec552u, 0x9abe14cd44753b53u, 0xc16d9a0095928a28u,
    0xf1c90080baf72cb2u, 0x971da05074da7befu, 0xbce5086492111aebu,
    0xec1e4a7db69561a6u, 0x9392ee8e921d5d08u, 0xb877aa3236a4b44au,
    0xe69594bec44de15cu, 0x901d7cf73ab0acdau, 0xb424dc35095cd810u,
    0xe12e13424bb40e14u, 0x8cbccc096f5088ccu, 0xafebff0bcb24aaffu,
    0xdbe6fecebdedd5bfu, 0x89705f4136b4a598u, 0xabcc77118461cefdu,
    0xd6bf94d5e57a42bdu, 0x8637bd05af6c69b6u, 0xa7c5ac471b478424u,
    0xd1b71758e219652cu, 0x83126e978d4fdf3cu, 0xa3d70a3d70a3d70bu,
    0xcccccccccccccccdu, 0x8000000000000001u, 0xa000000000000001u,
    0xc800000000000001u, 0xfa00000000000001u, 0x9c40000000000001u,
    0xc350000000000001u, 0xf424000000000001u, 0x9896800000000001u,
    0xbebc200000000001u, 0xee6b280000000001u, 0x9502f90000000001u,
    0xba43b74000000001u, 0xe8d4a51000000001u, 0x9184e72a00000001u,
    0xb5e620f480000001u, 0xe35fa931a0000001u, 0x8e1bc9bf04000001u,
    0xb1a2bc2ec5000001u, 0xde0b6b3a76400001u, 0x8ac7230489e80001u,
    0xad78ebc5ac620001u, 0xd8d726b7177a8001u, 0x878678326eac9001u,
    0xa968163f0a57b401u, 0xd3c21bcecceda101u, 0x84595161401484a1u,
    0xa56fa5b99019a5c9u, 0xcecb8f27f4200f3bu, 0x813f3978f8940985u,
    0xa18f07d736b90be6u, 0xc9f2c9cd04674edfu, 0xfc6f7c4045812297u,
    0x9dc5ada82b70b59eu, 0xc5371912364ce306u, 0xf684df56c3e01bc7u,
    0x9a130b963a6c115du, 0xc097ce7bc90715b4u, 0xf0bdc21abb48db21u,
    0x96769950b50d88f5u, 0xbc143fa4e250eb32u, 0xeb194f8e1ae525feu,
    0x92efd1b8d0cf37bfu, 0xb7abc627050305aeu, 0xe596b7b0c643c71au,
    0x8f7e32ce7bea5c70u, 0xb35dbf821ae4f38cu,
};

_Static_assert(sizeof(pow10_64) / 8 == 45 - POW10_MIN + 1, "all exponents");


/* 00 to 99 */
static const unsigned char  pairs[] =
    "0001020304050607080910111213141516171819"
    "2021222324252627282930313233343536373839"
    "4041424344454647484950515253545556575859"
    "6061626364656667686970717273747576777879"
    "8081828384858687888990919293949596979899";


/* The logarithms below are floors, right for every exponent of a float. */

static int
log10_pow2(int e)
{
    return (e * 1262611) >> 22;
}


static int
log10_three_quarters_pow2(int e)
{
    return (e * 1262611 - 524031) >> 22;
}


static int
log2_pow10(int e)
{
    return (e * 1741647) >> 19;
}


/* The upper bits of g * c / 2^64; the last one is 1 when any below is. */
static uint32_t
round_to_odd(uint64_t g, uint32_t c)
{
    uint64_t           low;
    unsigned __int128  p;

    p = (unsigned __int128) g * c;
    low = (uint64_t) p >> 32;

    return (uint32_t) (p >> 64) | (low > 1);
}


/* c * 2^q as digits * 10^*exponent. */
static uint32_t
shortest(uint32_t c, int q, int closer, int *exponent)
{
    int       h, k, odd;
    uint32_t  lower, upper, v, s, low, high, mid, tens, in_low, in_high;
    uint64_t  g;

    odd = c & 1;
    k = closer ? log10_three_quarters_pow2(q) : log10_pow2(q);
    h = q + log2_pow10(-k) + 1;
    g = pow10_64[-k - POW10_MIN];

    low = 4 * c - 2 + (closer != 0);
    high = 4 * c + 2;
    lower = round_to_odd(g, low << h) + (uint32_t) odd;
    v = round_to_odd(g, (4 * c) << h);
    upper = round_to_odd(g, high << h) - (uint32_t) odd;

    s = v / 4;

    if (s >= 10) {
        /* one digit less, if just one such number lies inside */
        tens = s / 10;
        in_low = lower <= 40 * tens;
        in_high = 40 * tens + 40 <= upper;

        if (in_low != in_high) {
            *exponent = k + 1;
            return tens + in_high;
        }
    }

    *exponent = k;
    in_low = lower <= 4 * s;
    in_high = 4 * s + 4 <= upper;

    if (in_low != in_high) {
        return s + in_high;
    }

    mid = 4 * s + 2;

    return s + (v > mid || (v == mid && (s & 1)));
}


/* Digits of a number, with room for copies of a fixed size: those take one or
 * two instructions. */
typedef struct {
    unsigned char  text[DIGITS_MAX + COPY];
    unsigned       begin;
} digits_t;


/* Without zeros at the end; how many. */
static int
print_digits(digits_t *d, uint32_t n, int *exponent)
{
    uint32_t       part;
    unsigned char  *p;

    while (n % 10 == 0) {
        n /= 10;
        ++*exponent;
    }

    for (p = d->text + DIGITS_MAX; n >= 100; n /= 100) {
        part = n % 100 * 2;
        *--p = pairs[part + 1];
        *--p = pairs[part];
    }

    *--p = pairs[n * 2 + 1];

    if (n >= 10) {
        *--p = pairs[n * 2];
    }

    d->begin = (unsigned) (p - d->text);

    return (int) (DIGITS_MAX - d->begin);
}


/* d.ddde-NN */
static unsigned char *
print_scientific(unsigned char *p, const unsigned char *digits, int n,
    int point)
{
    p[0] = digits[0];
    p[1] = '.';
    memcpy(p + 2, digits + 1, COPY - 1);
    p += n > 1 ? n + 1 : 1;

    point--;
    *p++ = 'e';
    *p++ = point < 0 ? '-' : '+';
    point = point < 0 ? -point : point;
    *p++ = (unsigned char) ('0' + point / 10);
    *p++ = (unsigned char) ('0' + point % 10);

    return p;
}


/* The number is 0.DIGITS * 10^point. */
static unsigned char *
print_number(unsigned char *p, const unsigned char *digits, int n, int point)
{
    if (point < -3 || point > 9) {
        return print_scientific(p, digits, n, point);
    }

    if (point <= 0) {
        memcpy(p, "0.000", 5);
        p += 2 - point;
        memcpy(p, digits, COPY);
        return p + n;
    }

    memcpy(p, digits, COPY);

    if (point >= n) {
        memset(p + n, '0', (size_t) (point - n));
        p += point;
        *p++ = '.';
        *p++ = '0';
        return p;
    }

    p[point] = '.';
    memcpy(p + point + 1, digits + point, COPY);

    return p + n + 1;
}


unsigned char *
ngx_http_infer_float(unsigned char *p, float value)
{
    int            q, n, exponent;
    uint32_t       bits, fraction, biased;
    digits_t       d;

    memcpy(&bits, &value, sizeof(bits));

    if (bits >> 31) {
        *p++ = '-';
    }

    fraction = bits & 0x7fffff;
    biased = bits >> 23 & 0xff;

    if (biased == 0xff || (bits & 0x7fffffff) == 0) {
        memcpy(p, "0.0", 3);                /* no number is none in JSON */
        return p + 3;
    }

    if (biased != 0) {
        q = (int) biased - 150;
        n = print_digits(&d, shortest(fraction | 0x800000, q,
                                      fraction == 0 && biased > 1,
                                      &exponent), &exponent);
    } else {
        n = print_digits(&d, shortest(fraction, -149, 0, &exponent),
                         &exponent);
    }

    return print_number(p, d.text + d.begin, n, exponent + n);
}


/* --- base64 ------------------------------------------------------------- */

static const unsigned char  letters[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";


static unsigned char *
put_four(unsigned char *p, const unsigned char *b)
{
    p[0] = letters[b[0] >> 2];
    p[1] = letters[(b[0] & 3) << 4 | b[1] >> 4];
    p[2] = letters[(b[1] & 15) << 2 | b[2] >> 6];
    p[3] = letters[b[2] & 63];

    return p + 4;
}


unsigned char *
ngx_http_infer_base64(ngx_http_infer_base64_t *s, unsigned char *p,
    const void *data, size_t len)
{
    const unsigned char  *b;

    b = data;

    if (s->nkept != 0) {
        while (s->nkept < 3 && len != 0) {
            s->kept[s->nkept++] = *b++;
            len--;
        }

        if (s->nkept < 3) {
            return p;
        }

        p = put_four(p, s->kept);
        s->nkept = 0;
    }

    for ( /* void */ ; len >= 3; len -= 3, b += 3) {
        p = put_four(p, b);
    }

    memcpy(s->kept, b, len);
    s->nkept = (unsigned) len;

    return p;
}


unsigned char *
ngx_http_infer_base64_end(ngx_http_infer_base64_t *s, unsigned char *p)
{
    unsigned  n;

    n = s->nkept;
    s->nkept = 0;

    if (n == 0) {
        return p;
    }

    memset(s->kept + n, 0, 3 - n);
    p = put_four(p, s->kept);
    p[-1] = '=';

    if (n == 1) {
        p[-2] = '=';
    }

    return p;
}
