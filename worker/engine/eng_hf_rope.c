/*
 * Rotary embedding of a Hugging Face folder: bases and scaling by GGUF's keys
 * and tensors of factors.
 */
#include <math.h>
#include <string.h>

#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_hf_int.h"


/* "rope_scaling" of older files, "rope_parameters" of newer ones, which may
   hold one object for each kind of layer. */
static const char *
rope_object(eng_hf_t *h)
{
    if (eng_hf_has(h, "rope_scaling")) {
        return "rope_scaling";
    }

    return eng_hf_has(h, "rope_parameters.full_attention")
           ? "rope_parameters.full_attention" : "rope_parameters";
}


static const char *
part_of(const char *object, const char *name, char path[ENG_CFG_PATH_MAX])
{
    (void) snprintf(path, ENG_CFG_PATH_MAX, "%s.%s", object, name);

    return path;
}


static int
rope_f32(eng_hf_t *h, const char *name, float *v)
{
    char  path[ENG_CFG_PATH_MAX];

    return eng_hf_f32(h, part_of(rope_object(h), name, path), v);
}


static int
rope_u32(eng_hf_t *h, const char *name, uint32_t *v)
{
    int   rc;
    char  path[ENG_CFG_PATH_MAX];

    rc = eng_hf_u32(h, part_of(rope_object(h), name, path), v);

    return rc != 0 ? rc : eng_hf_u32(h, name, v);
}


static int
put_base(eng_hf_t *h, const char *name, const char *object, const char *key)
{
    int    rc;
    char   path[ENG_CFG_PATH_MAX];
    float  base;

    rc = eng_hf_f32(h, name, &base);
    if (rc == 0) {
        rc = eng_hf_f32(h, part_of(object, "rope_theta", path), &base);
    }
    if (rc == 1) {
        eng_hf_put_f32(h, key, base, name);
    }

    return rc < 0 ? rc : 0;
}


/* The reference's "llama3" scaling as a divisor for each frequency. */
static int
llama3_factors(eng_hf_t *h)
{
    int       rc;
    float     factor = 0, low = 0, high = 0, base = 10000.0f;
    double    freq, wave, smooth;
    uint32_t  i, n = h->d->head_dim / 2, orig = 0;
    float    *out = h->d->made[h->d->n_made];

    rc = rope_f32(h, "factor", &factor);
    if (rc >= 0) {
        rc = rope_f32(h, "low_freq_factor", &low);
    }
    if (rc >= 0) {
        rc = rope_f32(h, "high_freq_factor", &high);
    }
    if (rc >= 0) {
        rc = rope_u32(h, "original_max_position_embeddings", &orig);
    }
    if (rc >= 0) {
        rc = eng_hf_f32(h, "rope_theta", &base);
    }
    if (rc == 0) {
        rc = rope_f32(h, "rope_theta", &base);
    }
    if (rc < 0) {
        return rc;
    }
    if (!(factor >= 1.0f) || !(low > 0.0f) || !(high > low) || orig == 0
        || !(base > 1.0f) || n == 0 || n > KERN_HEAD_MAX / 2)
    {
        return eng_hf_unsupported(h, rope_object(h),
                                  "llama3 with these factors",
                                  "factor >= 1 and 0 < low_freq_factor < "
                                  "high_freq_factor are");
    }

    for (i = 0; i < n; i++) {
        freq = pow((double) base, -2.0 * i / h->d->head_dim);
        wave = 2 * M_PI / freq;
        smooth = (orig / wave - (double) low) / ((double) high - (double) low);
        smooth = fmin(1, fmax(0, smooth));
        out[i] = (float) (1 / ((1 - smooth) / (double) factor + smooth));
    }
    h->d->made_name[h->d->n_made++] = "rope_freqs.weight";
    h->d->made_len = n;

    return 0;
}


/* The format's factor multiplies YaRN's own, the reference's replaces it. */
static int
yarn_keys(eng_hf_t *h)
{
    int       rc;
    float     f, factor = 1.0f;
    uint32_t  u;

    if (rope_f32(h, "mscale", &f) == 1 || rope_f32(h, "mscale_all_dim", &f)
        == 1)
    {
        return eng_hf_unsupported(h, rope_object(h), "yarn with \"mscale\"",
                           "\"attention_factor\" is");
    }
    eng_hf_put_text(h, "rope.scaling.type", "yarn", "rope_type");
    rc = rope_f32(h, "factor", &factor);
    if (rc == 1) {
        eng_hf_put_f32(h, "rope.scaling.factor", factor, "factor");
        rc = rope_u32(h, "original_max_position_embeddings", &u);
    }
    if (rc == 1) {
        eng_hf_put_u32(h, "rope.scaling.original_context_length", u,
                "original_max_position_embeddings");
    }
    if (rc >= 0) {
        rc = rope_f32(h, "beta_fast", &f);
    }
    if (rc == 1) {
        eng_hf_put_f32(h, "rope.scaling.yarn_beta_fast", f, "beta_fast");
    }
    if (rc >= 0) {
        rc = rope_f32(h, "beta_slow", &f);
    }
    if (rc == 1) {
        eng_hf_put_f32(h, "rope.scaling.yarn_beta_slow", f, "beta_slow");
    }
    if (rc >= 0) {
        rc = rope_f32(h, "attention_factor", &f);
    }
    if (rc == 1 && factor >= 1.0f) {
        eng_hf_put_f32(h, "rope.scaling.attn_factor",
                f / (1.0f + 0.1f * logf(factor)), "attention_factor");
    }

    return rc < 0 ? rc : 0;
}


/* A list of divisors as a tensor; rot / 2 of them. */
static int
long_factors(eng_hf_t *h, const char *name, const char *tensor, uint32_t n)
{
    int       rc;
    char      list[ENG_CFG_PATH_MAX], path[ENG_CFG_PATH_MAX], is[64];
    double    v;
    uint32_t  i;
    float    *out = h->d->made[h->d->n_made];

    (void) part_of(rope_object(h), name, list);
    for (i = 0; ; i++) {
        rc = eng_cfg_number(&h->d->config, eng_hf_at(h, list, path), i, &v,
                            h->err);
        if (rc < 0) {
            return rc;
        }
        if (rc == 0) {
            break;
        }
        if (i >= n || !(v > 0.0 && v < 1e9)) {
            return eng_hf_unsupported(h, list, i >= n ? "too long"
                                      : "not positive everywhere",
                                      "half as many as a head has rotated "
                                      "values are");
        }
        out[i] = (float) v;
    }
    if (i != n) {
        (void) snprintf(is, sizeof(is), "%u numbers, wanted are %u", i, n);
        return eng_hf_unsupported(h, list, is, "half as many as a head has "
                                  "rotated values are");
    }
    h->d->made_name[h->d->n_made++] = tensor;
    h->d->made_len = n;

    return 0;
}


/* The reference takes the factor from the lengths of the texts; the engine
   does so where the keys name none. */
static int
long_keys(eng_hf_t *h)
{
    int       rc;
    float     f, part = 1.0f;
    uint32_t  u, n;

    (void) eng_hf_f32(h, "partial_rotary_factor", &part);
    part = part > 0.0f && part <= 1.0f ? part : 1.0f;
    n = 0;
    if (h->d->head_dim <= KERN_HEAD_MAX) {
        n = (uint32_t) ((float) h->d->head_dim * part) / 2;
    }
    if (n == 0) {
        return eng_hf_unsupported(h, "head_dim", "out of range",
                                  "2 to 256 are");
    }
    eng_hf_put_text(h, "rope.scaling.type", "longrope", "type");
    rc = rope_u32(h, "original_max_position_embeddings", &u);
    if (rc == 0) {
        return eng_fail(h->err, ENG_EFORMAT, "%s: "
                        "\"original_max_position_embeddings\" is missing",
                        h->d->config.name);
    }
    if (rc == 1) {
        eng_hf_put_u32(h, "rope.scaling.original_context_length", u,
                       "original_max_position_embeddings");
        rc = rope_f32(h, "attention_factor", &f);
    }
    if (rc == 1) {
        eng_hf_put_f32(h, "rope.scaling.attn_factor", f, "attention_factor");
    }
    if (rc >= 0) {
        rc = long_factors(h, "short_factor", "rope_factors_short.weight", n);
    }
    if (rc >= 0) {
        rc = long_factors(h, "long_factor", "rope_factors_long.weight", n);
    }

    return rc;
}


static int
put_scaling(eng_hf_t *h, const char *type)
{
    int    rc;
    float  factor = 1.0f;

    if (strcmp(type, "default") == 0) {
        return 0;
    }
    if (strcmp(type, "llama3") == 0) {
        return llama3_factors(h);
    }
    if (strcmp(type, "yarn") == 0) {
        return yarn_keys(h);
    }
    if (strcmp(type, "linear") == 0) {
        rc = rope_f32(h, "factor", &factor);
        if (rc == 1) {
            eng_hf_put_text(h, "rope.scaling.type", "linear", "rope_type");
            eng_hf_put_f32(h, "rope.scaling.factor", factor, "factor");
        }
        return rc < 0 ? rc : 0;
    }

    if (strcmp(type, "longrope") == 0 || strcmp(type, "su") == 0) {
        return long_keys(h);
    }

    return eng_hf_unsupported(h, rope_object(h), type, "default, linear, "
                              "llama3, yarn and longrope are");
}


int
eng_hf_rope(eng_hf_t *h)
{
    int   rc;
    char  type[ENG_NAME_MAX], path[ENG_CFG_PATH_MAX];

    rc = put_base(h, "rope_theta", rope_object(h), "rope.freq_base");
    if (rc == 0) {
        rc = put_base(h, "rope_local_base_freq",
                      "rope_parameters.sliding_attention",
                      "rope.local.freq_base");
    }
    if (rc != 0) {
        return rc;
    }

    rc = eng_hf_text(h, part_of(rope_object(h), "rope_type", path), type,
                  sizeof(type));
    if (rc == 0) {
        rc = eng_hf_text(h, part_of(rope_object(h), "type", path), type,
                      sizeof(type));
    }

    return rc == 1 ? put_scaling(h, type) : rc;
}
