/*
 * infer convert: a model as one GGUF file, quantised if asked for.  What
 * became of each tensor is reported, progress goes to the terminal only.
 */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "worker/cli/cli.h"
#include "worker/engine/eng_convert.h"

#define NAME  "convert"

static const char  usage_text[] =
    "usage: infer convert -m MODEL -o OUT [--quantize TYPE]\n";

typedef struct {
    int       terminal;
    uint32_t  tensors, changed;
    uint64_t  from_bytes, to_bytes;
    double    worst;
    char      worst_name[ENG_NAME_MAX];
} report_t;


static void
one_tensor(void *arg, const eng_convert_tensor_t *t)
{
    report_t  *r = arg;

    r->tensors++;
    r->from_bytes += t->from_bytes;
    r->to_bytes += t->to_bytes;

    if (strcmp(t->from, t->to) != 0) {
        if (r->changed++ == 0) {
            printf("%-40s %-5s %-5s %10s %10s %12s\n", "tensor", "from", "to",
                   "rms error", "max error", "bytes");
        }
        printf("%-40s %-5s %-5s %9.4f%% %10.3g %12" PRIu64 "\n", t->name,
               t->from, t->to, 100.0 * t->rms, t->max, t->to_bytes);
        if (t->rms >= r->worst) {
            r->worst = t->rms;
            snprintf(r->worst_name, sizeof(r->worst_name), "%s", t->name);
        }
    }

    if (r->terminal) {
        fprintf(stderr, "\r%3.0f %%  %-50.50s", t->total > 0
                ? 100.0 * (double) t->done / (double) t->total : 100.0,
                t->name);
    }
}


static void
summary(const report_t *r, const char *out)
{
    const double  mib = 1024.0 * 1024.0;

    if (r->terminal) {
        fprintf(stderr, "\r%60s\r", "");
    }
    printf("%s: %" PRIu32 " tensors, %.1f MiB (before: %.1f MiB), %" PRIu32
           " quantised\n", out, r->tensors, (double) r->to_bytes / mib,
           (double) r->from_bytes / mib, r->changed);
    if (r->changed > 0) {
        printf("largest relative error: %.4f%% in %s\n", 100.0 * r->worst,
               r->worst_name);
    }
}


int
cli_convert(int argc, char **argv)
{
    int                 i;
    report_t            r;
    eng_err_t           err;
    const char         *model = NULL, *out = NULL, *quantize = NULL;
    eng_convert_sink_t  sink = { one_tensor, &r };

    for (i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "-m") == 0) {
            model = argv[i + 1];
        } else if (strcmp(argv[i], "-o") == 0) {
            out = argv[i + 1];
        } else if (strcmp(argv[i], "--quantize") == 0) {
            quantize = argv[i + 1];
        } else {
            cli_error(NAME, "unknown option \"%s\"", argv[i]);
            return CLI_USAGE;
        }
    }
    if (model == NULL || out == NULL || i != argc) {
        fputs(usage_text, stderr);
        return CLI_USAGE;
    }

    memset(&r, 0, sizeof(r));
    r.terminal = isatty(STDERR_FILENO);
    if (eng_convert(model, out, quantize, &sink, &err) != ENG_OK) {
        if (r.terminal && r.tensors > 0) {
            fputc('\n', stderr);
        }
        cli_error(NAME, "%s", err.text);
        return CLI_FAILED;
    }
    summary(&r, out);

    return CLI_OK;
}
