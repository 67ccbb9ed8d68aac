/*
 * The sizes and places of packed quants, scale records and super-block words,
 * as constants where form and scales are.  The layouts themselves are in
 * kern_internal.h.  Private to kern_matmul_<isa>.c.
 */
#ifndef KERN_FORM_H
#define KERN_FORM_H

#include "worker/kernels/kern_internal.h"

/* Tiles become constant loops by inlining.  A sanitizer's build leaves them
 * as they are: it checks the same code and compiles in seconds. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define KERN_FN_INLINE  static inline
#else
#define KERN_FN_INLINE  static inline __attribute__((always_inline))
#endif


KERN_FN_INLINE size_t
kern_form_bytes(const int form)
{
    switch (form) {
    case KERN_FORM_4:
    case KERN_FORM_NL:
        return 256;
    case KERN_FORM_5:
        return 320;
    case KERN_FORM_6:
        return 384;
    default:
        return 512;
    }
}


KERN_FN_INLINE size_t
kern_record_bytes(const int scales)
{
    switch (scales) {
    case KERN_SCALE_K:
        return 16;
    case KERN_SCALE_DM:
    case KERN_SCALE_KHM:
        return 64;
    default:
        return 32;
    }
}


KERN_FN_INLINE size_t
kern_super_bytes(const int scales)
{
    switch (scales) {
    case KERN_SCALE_D:
    case KERN_SCALE_DM:
        return 0;
    case KERN_SCALE_KM:
    case KERN_SCALE_KHM:
        return 64;
    default:
        return 32;
    }
}


/* The packed scale record and super-block words of a block. */
KERN_FN_INLINE const uint8_t *
kern_record(const uint8_t *group, uint32_t nb_all, uint32_t b, const int form,
    const int scales)
{
    return group + nb_all * kern_form_bytes(form)
           + b * kern_record_bytes(scales);
}


KERN_FN_INLINE const uint8_t *
kern_super(const uint8_t *group, uint32_t nb_all, uint32_t b, const int form,
    const int scales)
{
    return kern_record(group, nb_all, nb_all, form, scales)
           + b / 8 * kern_super_bytes(scales);
}


/* Expanded records come in four kinds only. */
KERN_FN_INLINE int
kern_expanded_scales(int scales)
{
    return scales == KERN_SCALE_K ? KERN_SCALE_D
           : scales == KERN_SCALE_KM ? KERN_SCALE_DM : scales;
}

#endif
