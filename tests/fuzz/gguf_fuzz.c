/*
 * libFuzzer target: a GGUF header from any bytes, through everything that
 * `nginx -t` does with it: parse, sizes, binding of tensors, memory plan.
 *
 *   tests/fuzz/gguf_fuzz.sh [SECONDS]
 *
 * The first four bytes say how long the file claims to be beyond the bytes at
 * hand, so that headers of large files can be valid.
 */
#include <stdlib.h>
#include <string.h>

#include "worker/engine/eng_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t        extra;
    uint8_t        *copy;
    eng_err_t       err;
    eng_gguf_t      g;
    eng_plan_t      plan;
    eng_model_t     m;
    eng_ctx_opts_t  co = ENG_CTX_OPTS_INIT;

    if (size < 4) {
        return 0;
    }
    memcpy(&extra, data, 4);
    size -= 4;
    copy = malloc(size > 0 ? size : 1);   /* ASan sees its very end */
    if (copy == NULL) {
        return 0;
    }
    memcpy(copy, data + 4, size);

    memset(&err, 0, sizeof(err));
    if (eng_gguf_parse(&g, "fuzz", copy, size, size + extra, &err) == 0) {
        memset(&m, 0, sizeof(m));
        if (eng_hp_read(&g, &m.hp, &err) == 0
            && eng_bind(&m, &g, &err) == 0)
        {
            (void) eng_plan(&m, &co, &plan, &err);
        }
        free(m.layer);
        free(m.item);
        eng_gguf_close(&g);
    } else if (err.text[0] == '\0') {
        abort();                          /* an error without words */
    }
    free(copy);

    return 0;
}
