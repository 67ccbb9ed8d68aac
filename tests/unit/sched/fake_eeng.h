/*
 * An encoder engine and a tokenizer for tests.  A row depends on nothing but
 * its own tokens and their types, so any mix-up of rows or tokens shows; every
 * rule of enc_run() is asserted.
 */

#ifndef FAKE_EENG_H
#define FAKE_EENG_H

#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "tokenizer/tok.h"
#include "worker/wrk_eeng.h"


#define FAKE_CLS    2u
#define FAKE_SEP    3u
#define FAKE_VOCAB  30u

/* Letters are words; [CLS] a [SEP] and [CLS] a [SEP] b [SEP]. */
static const char  fake_tokenizer[] =
    "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,"
    "\"added_tokens\":["
    "{\"id\":2,\"content\":\"[CLS]\",\"single_word\":false,\"lstrip\":false,"
    "\"rstrip\":false,\"normalized\":false,\"special\":true},"
    "{\"id\":3,\"content\":\"[SEP]\",\"single_word\":false,\"lstrip\":false,"
    "\"rstrip\":false,\"normalized\":false,\"special\":true}],"
    "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
    "\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"[SEP]\",3],"
    "\"cls\":[\"[CLS]\",2]},\"decoder\":null,"
    "\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\","
    "\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":100,"
    "\"vocab\":{\"[PAD]\":0,\"[UNK]\":1,\"[CLS]\":2,\"[SEP]\":3,\"a\":4,"
    "\"b\":5,\"c\":6,\"d\":7,\"e\":8,\"f\":9,\"g\":10,\"h\":11,\"i\":12,"
    "\"j\":13,\"k\":14,\"l\":15,\"m\":16,\"n\":17,\"o\":18,\"p\":19,"
    "\"q\":20,\"r\":21,\"s\":22,\"t\":23,\"u\":24,\"v\":25,\"w\":26,"
    "\"x\":27,\"y\":28,\"z\":29}}}";

typedef struct {
    wrk_eeng_info_t  info;
    uint64_t         batches, tokens, seqs;
    uint32_t         last_seqs, last_tokens;
    uint64_t         delay_ns;      /* the result is there later */
    uint64_t         now_ns;        /* a clock that batches move on */
    int              fail;          /* 1: an error, 2: a value that is none */
    int              parked;
} fake_eeng_t;


/* What the engine says to these tokens: value k of the row. */
static inline float
fake_value(const uint32_t *ids, const uint8_t *types, uint32_t n, uint32_t k)
{
    uint32_t  i, h = 2166136261u + k;

    for (i = 0; i < n; i++) {
        h = (h ^ (ids[i] * 2 + (types != NULL ? types[i] : 0))) * 16777619u;
        h ^= h >> 15;
    }

    return (float) (h >> 8) / 16777216.0f - 0.5f;
}


static inline int
fake_eeng_run(void *ctx, const enc_batch_t *b, float *out, uint64_t now_ns,
    uint64_t *ready_ns)
{
    uint32_t      i, k, n, at;
    fake_eeng_t  *e = ctx;

    assert(b->n_seqs > 0 && b->n_seqs <= e->info.max_seqs);
    assert(b->offsets[0] == 0);
    assert(b->offsets[b->n_seqs] <= e->info.max_tokens);
    assert((b->types != NULL) == (e->info.types > 1));

    for (i = 0; i < b->n_seqs; i++) {
        at = b->offsets[i];
        n = b->offsets[i + 1] - at;
        assert(n > 0 && n <= e->info.max_seq);
        assert(i == 0 || n <= at - b->offsets[i - 1]);      /* by length */

        for (k = 0; k < n; k++) {
            assert(b->ids[at + k] < e->info.vocab);
        }

        for (k = 0; k < e->info.width; k++) {
            out[i * e->info.width + k] = fake_value(
                b->ids + at, b->types != NULL ? b->types + at : NULL, n, k);
        }
    }

    e->batches++;
    e->seqs += b->n_seqs;
    e->tokens += b->offsets[b->n_seqs];
    e->last_seqs = b->n_seqs;
    e->last_tokens = b->offsets[b->n_seqs];
    e->parked = 0;
    *ready_ns = e->delay_ns != 0 ? now_ns + e->delay_ns : 0;

    if (e->fail == 2) {
        out[0] = NAN;
    }

    return e->fail == 1 ? ENG_EINVAL : 0;
}


static inline const char *
fake_eeng_label(void *ctx, uint32_t i)
{
    static char  name[ENC_LABEL_MAX];

    assert(i < ((fake_eeng_t *) ctx)->info.labels);
    snprintf(name, sizeof(name), "class %u", i);

    return name;
}


static inline void
fake_eeng_park(void *ctx)
{
    ((fake_eeng_t *) ctx)->parked = 1;
}


static inline void
fake_eeng_destroy(void *ctx)
{
    (void) ctx;
}


static inline uint64_t
fake_eeng_clock(void *data)
{
    return ((fake_eeng_t *) data)->now_ns;
}


static const wrk_eeng_ops_t  fake_eeng_ops = {
    fake_eeng_run, fake_eeng_label, fake_eeng_park, fake_eeng_destroy
};


static inline void
fake_eeng_create(fake_eeng_t *e, wrk_eeng_t *eng, enc_kind_t kind,
    uint32_t max_seq, uint32_t max_tokens, uint32_t max_seqs, uint32_t width)
{
    memset(e, 0, sizeof(*e));
    e->info.kind = kind;
    e->info.score = width == 1 ? ENC_SCORE_SIGMOID : ENC_SCORE_SOFTMAX;
    e->info.max_seq = max_seq;
    e->info.max_tokens = max_tokens;
    e->info.max_seqs = max_seqs;
    e->info.width = width;
    e->info.labels = kind == ENC_EMBED ? 0 : width;
    e->info.types = 2;
    e->info.vocab = FAKE_VOCAB;
    e->now_ns = 1000000;
    eng->ops = &fake_eeng_ops;
    eng->ctx = e;
    eng->info = e->info;
}


static inline tok_t *
fake_eeng_tok(void)
{
    tok_t      *tok;
    tok_err_t   err;

    if (tok_open_json(&tok, fake_tokenizer, sizeof(fake_tokenizer) - 1, &err)
        != TOK_OK)
    {
        fprintf(stderr, "fake tokenizer: %s\n", err.msg);
        return NULL;
    }

    return tok;
}


#endif /* FAKE_EENG_H */
