/*
 * Rotary position embedding: the frequencies of a model, from the few numbers
 * that model files give, whatever the format of the file.
 */
#ifndef ENG_ROPE_H
#define ENG_ROPE_H

#include <stdint.h>

typedef enum {
    ENG_ROPE_PLAIN = 0,
    ENG_ROPE_LINEAR,       /* positions divided by the factor                */
    ENG_ROPE_YARN,         /* fast frequencies stay, slow ones are divided   */
    ENG_ROPE_LLAMA3,       /* the same by wave length, Llama 3.1             */
    ENG_ROPE_LONG          /* a divisor per frequency, one set for texts up to
                              ctx_orig positions and one for longer ones     */
} eng_rope_kind_t;

typedef struct {
    eng_rope_kind_t  kind;
    uint32_t         dim;         /* rotated values of a head, even          */
    double           base;
    double           factor;      /* all but PLAIN; LONG: for mscale only    */
    uint32_t         ctx_orig;    /* positions before the extension          */
    double           mscale;      /* of cosines and sines; 0: the kind's own */
    double           beta_fast, beta_slow;     /* YARN: turns in ctx_orig    */
    double           freq_low, freq_high;      /* LLAMA3: factors            */
} eng_rope_t;

#define ENG_ROPE_INIT  { ENG_ROPE_PLAIN, 0, 10000.0, 1.0, 0, 0, 32, 1, 1, 4 }

/* freq[dim / 2]: radians per position. */
void eng_rope_freqs(const eng_rope_t *r, float *freq);

/* What cosines and sines are multiplied with. */
float eng_rope_mscale(const eng_rope_t *r);

/* Frequencies divided by a factor each; one that is not above 0 is left. */
void eng_rope_divide(float *freq, const float *factor, uint32_t n);

#endif
