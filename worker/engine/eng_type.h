/*
 * Tensor types of the GGUF format: sizes of their blocks and, where we can
 * compute with them, the kernels' name for them.
 */
#ifndef ENG_TYPE_H
#define ENG_TYPE_H

#include <stdint.h>

typedef struct {
    uint32_t     id;              /* the number in the file                  */
    const char  *name;
    uint32_t     block;           /* elements per block                      */
    uint32_t     bytes;           /* per block                               */
} eng_type_t;

/* NULL: a number that no released format defines. */
const eng_type_t *eng_type_get(uint32_t id);

#endif
