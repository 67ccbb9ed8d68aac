/*
 * libFuzzer target: a Hugging Face folder from any bytes, through everything
 * that `nginx -t` does with it: safetensors header, config.json, keys, names,
 * sizes, binding of tensors, memory plan.
 *
 *   tests/fuzz/hf_fuzz.sh [SECONDS]
 *
 * The input is the text of config.json, a NUL, and a safetensors header
 * without its length; the file claims to have 64 MiB of data behind it.
 */
#include <stdlib.h>
#include <string.h>

#include "worker/engine/eng_hf.h"
#include "worker/engine/eng_model.h"
#include "worker/engine/eng_source.h"

#define DATA  (64u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static int
open_bytes(eng_gguf_t *g, const uint8_t *data, size_t n_config, size_t size,
    eng_err_t *err)
{
    int                 rc;
    size_t              n = size - n_config - 1;
    uint8_t            *file;
    struct eng_folder  *d = calloc(1, sizeof(*d));

    memset(g, 0, sizeof(*g));
    g->path = "fuzz";
    g->fd = -1;
    g->folder = d;
    file = malloc(n + 8);
    if (d == NULL || file == NULL) {
        abort();
    }
    d->path = "fuzz";
    memcpy(file, &(uint64_t) { n }, 8);
    memcpy(file + 8, data + n_config + 1, n);

    rc = eng_cfg_parse(&d->config, "config.json", (const char *) data,
                       n_config, err);
    if (rc == 0) {
        rc = eng_hf_keys(g, err);
    }
    if (rc == 0) {
        rc = eng_st_parse(&d->st, "fuzz", file, n + 8, n + 8 + DATA, err);
    }
    if (rc == 0) {
        rc = eng_hf_tensors(g, err);
    }
    free(file);

    return rc;
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    eng_err_t       err;
    eng_gguf_t      g;
    eng_plan_t      plan;
    eng_model_t     m;
    const uint8_t  *nul = size > 0 ? memchr(data, '\0', size) : NULL;
    eng_ctx_opts_t  co = ENG_CTX_OPTS_INIT;

    if (nul == NULL) {
        return 0;
    }
    memset(&err, 0, sizeof(err));
    if (open_bytes(&g, data, (size_t) (nul - data), size, &err) == 0) {
        memset(&m, 0, sizeof(m));
        if (eng_hp_read(&g, &m.hp, &err) == 0
            && eng_bind(&m, &g, &err) == 0)
        {
            (void) eng_plan(&m, &co, &plan, &err);
        }
        free(m.layer);
        free(m.item);
    } else if (err.text[0] == '\0') {
        abort();                          /* an error without words */
    }
    eng_source_close(&g);

    return 0;
}
