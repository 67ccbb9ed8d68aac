/*
 * Writes a model as one GGUF file, its matrices of floats quantised if asked
 * for.  Only `infer convert` and tests call it.
 *
 * From a GGUF file all keys are kept, "general.file_type" excepted.  From a
 * folder come the keys of its config.json; the tokenizer goes along as it is:
 * "tokenizer.huggingface.json" (a key of the format), ".config" and
 * ".generation" beside it, and "tokenizer.chat_template".  Our tokenizer reads
 * that; programs that want the vocabulary in GGUF's own keys do not.
 */
#ifndef ENG_CONVERT_H
#define ENG_CONVERT_H

#include <stdint.h>

#include "worker/engine/eng_file.h"

/* One tensor, when it is written. */
typedef struct {
    const char  *name;            /* GGUF's                                  */
    const char  *from, *to;       /* "BF16", "Q8_0"                          */
    uint64_t     elements;
    uint64_t     from_bytes, to_bytes;
    double       rms;             /* of the error, relative to the values'   */
    double       max;             /* largest error, absolute                 */
    uint64_t     done, total;     /* bytes written so far and in all         */
} eng_convert_tensor_t;

typedef struct {
    void  (*tensor)(void *arg, const eng_convert_tensor_t *t);
    void   *arg;
} eng_convert_sink_t;

/*
 * quantize as in eng_model_opts_t.  The model is checked before anything is
 * written: one that could not be served is refused.  dst must not exist; it
 * appears under its name when it is complete.
 */
int eng_convert(const char *src, const char *dst, const char *quantize,
    const eng_convert_sink_t *sink, eng_err_t *err);

#endif
