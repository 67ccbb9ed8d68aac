/*
 * infer inspect: what a model file or folder is and what it will need.
 * Reads headers only; the same check runs behind `nginx -t`.
 */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "worker/cli/cli.h"
#include "worker/cli/cli_model.h"
#include "worker/engine/eng.h"

#define NAME  "inspect"

static const char  usage_text[] =
    "usage: infer inspect -m MODEL [--context N] [--sequences N] "
    "[--kv-mb N] " CLI_MODEL_USAGE "\n"
    "       infer inspect -m ENCODER [--precision float32|bfloat16|int8]\n";


/* The model may come behind its options. */
static const char *
model_of(int argc, char **argv)
{
    int  i;

    for (i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "-m") == 0) {
            return argv[i + 1];
        }
    }

    return NULL;
}


static int
inspect_encoder(const char *model, int argc, char **argv)
{
    int         i;
    enc_prec_t  precision = ENC_PREC_AUTO;

    for (i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--precision") == 0) {
            if (cli_precision(NAME, argv[i + 1], &precision) != 0) {
                return CLI_USAGE;
            }
        } else if (strcmp(argv[i], "-m") != 0) {
            cli_error(NAME, "unknown option \"%s\"", argv[i]);
            return CLI_USAGE;
        }
    }
    if (i != argc) {
        fputs(usage_text, stderr);
        return CLI_USAGE;
    }

    return cli_encoder_inspect(model, precision);
}


static void
print_id(const char *what, uint32_t id)
{
    if (id != UINT32_MAX) {
        printf("%-22s %" PRIu32 "\n", what, id);
    }
}


static void
print_info(const eng_info_t *i)
{
    uint32_t      t;
    const double  mib = 1024.0 * 1024.0;

    printf("%-22s %s\n", "architecture", i->arch);
    printf("%-22s %s\n", "name", i->name);
    if (i->gguf_version > 0) {
        printf("%-22s GGUF version %" PRIu32, "file", i->gguf_version);
    } else {
        printf("%-22s folder, safetensors", "file");
    }
    printf(", %.1f MiB, %" PRIu32 " tensors\n", (double) i->file_bytes / mib,
           i->tensors);
    printf("%-22s %.1f million\n", "parameters",
           (double) i->parameters / 1e6);
    for (t = 0; t < i->types; t++) {
        printf("  %-20s %" PRIu32 " tensors, %.1f MiB\n", i->type[t].name,
               i->type[t].tensors, (double) i->type[t].bytes / mib);
    }
    printf("%-22s %" PRIu32 " layers of %" PRIu32 ", feed forward %" PRIu32
           "\n", "sizes", i->layers, i->embd, i->ff);
    printf("%-22s %" PRIu32 " of %" PRIu32 ", %" PRIu32 " for keys and "
           "values\n", "heads", i->heads, i->head_dim, i->heads_kv);
    printf("%-22s %" PRIu32 " tokens\n", "vocabulary", i->vocab);
    print_id("begin token", i->bos_id);
    print_id("end token", i->eos_id);
    print_id("end-of-turn token", i->eot_id);
    printf("%-22s %" PRIu32 " (trained for %" PRIu32 ")\n", "context",
           i->ctx_len, i->ctx_train);
    printf("%-22s %.1f MiB, shared by all workers\n", "memory: weights",
           (double) i->weight_bytes / mib);
    printf("%-22s up to %.1f MiB (%.1f KiB per position)\n",
           "memory: KV cache", (double) i->kv_bytes / mib,
           (double) i->kv_bytes_per_token / 1024.0);
    printf("%-22s up to %.1f MiB\n", "memory: work",
           (double) i->work_bytes / mib);
}


int
cli_inspect(int argc, char **argv)
{
    int               i, rc;
    long              n;
    eng_err_t         err;
    eng_info_t        info;
    const char       *model = NULL;
    eng_ctx_opts_t    co = ENG_CTX_OPTS_INIT;
    eng_model_opts_t  mo = ENG_MODEL_OPTS_INIT;

    model = model_of(argc, argv);
    if (model != NULL && enc_can_open(model)) {
        return inspect_encoder(model, argc, argv);
    }
    for (i = 1; i + 1 < argc; i += 2) {
        n = 0;
        rc = cli_model_option(NAME, argv[i], argv[i + 1], &mo);
        if (rc > 0) {
            continue;
        }
        if (rc < 0) {
            return CLI_USAGE;
        }
        if (strcmp(argv[i], "-m") == 0) {
            model = argv[i + 1];
        } else if (strcmp(argv[i], "--context") == 0) {
            rc = cli_number(NAME, argv[i], argv[i + 1], 1, 1L << 22, &n);
            co.ctx_len = (uint32_t) n;
        } else if (strcmp(argv[i], "--sequences") == 0) {
            rc = cli_number(NAME, argv[i], argv[i + 1], 1, ENG_SEQS_MAX, &n);
            co.max_seqs = (uint32_t) n;
        } else if (strcmp(argv[i], "--kv-mb") == 0) {
            rc = cli_number(NAME, argv[i], argv[i + 1], 1, 1L << 30, &n);
            co.kv_bytes = (uint64_t) n << 20;
        } else {
            rc = -1;
            cli_error(NAME, "unknown option \"%s\"", argv[i]);
        }
        if (rc != 0) {
            return CLI_USAGE;
        }
    }

    if (model == NULL || i != argc) {
        fputs(usage_text, stderr);
        return CLI_USAGE;
    }

    if (eng_model_check(model, &mo, &co, &info, &err) != ENG_OK) {
        cli_error(NAME, "%s", err.text);
        return CLI_FAILED;
    }
    print_info(&info);

    return CLI_OK;
}
