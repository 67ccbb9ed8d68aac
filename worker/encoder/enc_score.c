/*
 * What callers do with a result: shortening and normalising of vectors,
 * probabilities of logits.  Doubles for the sums: a vector has a few hundred
 * values and the cost is nothing beside the model's.
 */
#include <math.h>

#include "worker/encoder/enc.h"
#include "worker/engine/eng_chk.h"

/* As the reference: a vector of zeros stays one. */
#define NORM_MIN  1e-12


void
enc_vector(float *v, uint32_t dims, int normalize)
{
    double    sum = 0;
    uint32_t  i;

    eng_assert(dims > 0);
    if (!normalize) {
        return;
    }

    for (i = 0; i < dims; i++) {
        sum += (double) v[i] * (double) v[i];
    }
    sum = sqrt(sum);
    sum = sum > NORM_MIN ? sum : NORM_MIN;
    for (i = 0; i < dims; i++) {
        v[i] = (float) ((double) v[i] / sum);
    }
}


void
enc_scores(float *v, uint32_t n, enc_score_t how)
{
    float     max;
    double    sum = 0;
    uint32_t  i;

    eng_assert(n > 0);
    if (how == ENC_SCORE_NONE) {
        return;
    }

    if (how == ENC_SCORE_SIGMOID) {
        for (i = 0; i < n; i++) {
            v[i] = (float) (1.0 / (1.0 + exp(-(double) v[i])));
        }
        return;
    }

    max = v[0];
    for (i = 1; i < n; i++) {
        max = v[i] > max ? v[i] : max;
    }
    for (i = 0; i < n; i++) {
        v[i] = expf(v[i] - max);
        sum += (double) v[i];
    }
    for (i = 0; i < n; i++) {
        v[i] = (float) ((double) v[i] / sum);
    }
}
