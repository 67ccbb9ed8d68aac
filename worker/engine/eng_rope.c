/*
 * Frequencies of the rotary position embedding (Su et al. 2021, "RoFormer")
 * and of its extensions to longer texts.
 */
#include <math.h>

#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_rope.h"


/*
 * YaRN (Peng et al. 2023, "YaRN: Efficient Context Window Extension", the
 * "NTK by parts" interpolation): how much of frequency i stays as it is.
 */
static double
yarn_keep(const eng_rope_t *r, uint32_t i)
{
    double  dim = r->dim, turn = r->ctx_orig / (2 * M_PI), low, high, ramp;

    low = floor(dim * log(turn / r->beta_fast) / (2 * log(r->base)));
    high = ceil(dim * log(turn / r->beta_slow) / (2 * log(r->base)));
    low = fmax(low, 0);
    high = fmin(high, dim - 1);
    ramp = ((double) i - low) / fmax(0.001, high - low);

    return 1 - fmin(1, fmax(0, ramp));
}


/*
 * Llama 3.1 ("The Llama 3 Herd of Models", 2024, and its published code):
 * waves that fit freq_high times into ctx_orig stay, those that fit less than
 * freq_low times are divided, between them both are blended.
 */
static double
llama3_keep(const eng_rope_t *r, double freq)
{
    double  times = r->ctx_orig * freq / (2 * M_PI);

    if (r->freq_high <= r->freq_low) {
        return times > r->freq_low ? 1 : 0;
    }

    return fmin(1, fmax(0, (times - r->freq_low)
                           / (r->freq_high - r->freq_low)));
}


void
eng_rope_freqs(const eng_rope_t *r, float *freq)
{
    double    f, keep;
    uint32_t  i;

    eng_assert(r->dim % 2 == 0 && r->base >= 1.0 && r->factor > 0.0);

    for (i = 0; i < r->dim / 2; i++) {
        f = pow(r->base, -2.0 * i / r->dim);
        keep = r->kind == ENG_ROPE_LINEAR ? 0
               : r->kind == ENG_ROPE_YARN ? yarn_keep(r, i)
               : r->kind == ENG_ROPE_LLAMA3 ? llama3_keep(r, f) : 1;
        freq[i] = (float) (f * keep + f / r->factor * (1 - keep));
    }
}


/* YaRN section 3.4; LongRoPE (Ding et al. 2024) as published with Phi-3. */
float
eng_rope_mscale(const eng_rope_t *r)
{
    if (r->mscale > 0.0) {
        return (float) r->mscale;
    }
    if (r->kind == ENG_ROPE_YARN && r->factor > 1.0) {
        return (float) (1 + 0.1 * log(r->factor));
    }
    if (r->kind == ENG_ROPE_LONG && r->factor > 1.0 && r->ctx_orig > 1) {
        return (float) sqrt(1 + log(r->factor) / log(r->ctx_orig));
    }

    return 1.0f;
}


void
eng_rope_divide(float *freq, const float *factor, uint32_t n)
{
    uint32_t  i;

    for (i = 0; i < n; i++) {
        if (factor[i] > 0.0f) {
            freq[i] /= factor[i];
        }
    }
}
