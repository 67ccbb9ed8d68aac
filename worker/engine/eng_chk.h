/*
 * Checked arithmetic on sizes that come from a file.  Every sum and product
 * of foreign numbers in this folder goes through these two; both leave *out
 * alone and return 0 when the result does not fit 64 bits.
 */
#ifndef ENG_CHK_H
#define ENG_CHK_H

#include <stdint.h>
#include <stdlib.h>
#include <stdio.h>


static inline int
eng_chk_add(uint64_t a, uint64_t b, uint64_t *out)
{
    uint64_t  r;

    if (__builtin_add_overflow(a, b, &r)) {
        return 0;
    }

    *out = r;

    return 1;
}


static inline int
eng_chk_mul(uint64_t a, uint64_t b, uint64_t *out)
{
    uint64_t  r;

    if (__builtin_mul_overflow(a, b, &r)) {
        return 0;
    }

    *out = r;

    return 1;
}


/* The next multiple of `align`, a power of two. */
static inline int
eng_chk_align(uint64_t a, uint64_t align, uint64_t *out)
{
    uint64_t  r;

    if (!eng_chk_add(a, align - 1, &r)) {
        return 0;
    }

    *out = r & ~(align - 1);

    return 1;
}


/* Our own invariants; on in release, a worker that fails one is replaced. */
#define eng_assert(c)                                                        \
    do {                                                                     \
        if (__builtin_expect(!(c), 0)) {                                     \
            fprintf(stderr, "%s:%d: assertion failed: %s\n", __FILE__,       \
                    __LINE__, #c);                                           \
            abort();                                                         \
        }                                                                    \
    } while (0)

#endif
