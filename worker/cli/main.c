/*
 * The `infer` tool: looks at models and runs them from the command line with
 * the same tokenizer, templates and engine that the worker uses.  This file is
 * the table of commands, the help text and the reading of numbers; each command
 * has its own file.
 */

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/cli/cli.h"
#include "worker/cli/cli_model.h"


static void usage(FILE *to);
static int help(const char *name);


static const cli_command_t  commands[] = {
    { "run", cli_run, "-m MODEL -p PROMPT [-s SYSTEM] [-n N] [--temp T] "
      "[--top-p P] [--top-k K] [--seed S] [-t THREADS] [-c CONTEXT] "
      CLI_MODEL_USAGE " [--raw]",
      "answer a prompt" },
    { "tokenize", cli_tokenize, "-t TOKENIZER [--no-special] "
      "[--no-truncation] [--no-padding] [--offsets]",
      "ids of texts, one JSON string per line" },
    { "detokenize", cli_detokenize, "-t TOKENIZER [--keep-special]",
      "texts of ids, one JSON array per line" },
    { "embed", cli_embed, "-m MODEL [--precision float32|bfloat16|int8] "
      "[--dimensions N] [-t THREADS] [--isa LEVEL]",
      "vectors of texts, one JSON string per line" },
    { "inspect", cli_inspect, "-m MODEL [--context N] [--sequences N] "
      "[--kv-mb N] " CLI_MODEL_USAGE, "show what a model file holds" },
    { "convert", cli_convert, "-m MODEL -o OUT [--quantize TYPE]",
      "write a model as one GGUF file" },
    { "score", cli_score, "-m MODEL [-t THREADS] " CLI_MODEL_USAGE,
      "log probabilities of given tokens" },
    { "bench", cli_bench, "-m MODEL [-t THREADS] [--rounds N] "
      "[--cache DIR] " CLI_MODEL_USAGE " [--cpu-time] [--json]",
      "measure tokens per second" },
    { NULL, NULL, NULL, NULL }
};


int
main(int argc, char **argv)
{
    const char           *name;
    const cli_command_t  *c;

    if (argc < 2) {
        usage(stderr);
        return CLI_USAGE;
    }

    name = argv[1];

    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0
        || strcmp(name, "-h") == 0)
    {
        return help(argc > 2 ? argv[2] : NULL);
    }

    if (strcmp(name, "version") == 0 || strcmp(name, "--version") == 0) {
        printf("infer %s\n", CLI_VERSION);
        return CLI_OK;
    }

    for (c = commands; c->name != NULL; c++) {
        if (strcmp(c->name, name) == 0) {
            return c->run(argc - 1, argv + 1);
        }
    }

    fprintf(stderr, "infer: there is no command \"%s\"; "
                    "\"infer help\" lists them\n", name);
    return CLI_USAGE;
}


static void
usage(FILE *to)
{
    const cli_command_t  *c;

    fprintf(to, "usage: infer COMMAND [OPTIONS]\n\ncommands:\n");

    for (c = commands; c->name != NULL; c++) {
        fprintf(to, "  %-12s %s\n", c->name, c->help);
    }

    fprintf(to, "  %-12s %s\n  %-12s %s\n\n"
                "\"infer help COMMAND\" shows a command's options.\n",
            "help", "show this text or a command's options",
            "version", "show the version");
}


static int
help(const char *name)
{
    const cli_command_t  *c;

    if (name == NULL) {
        usage(stdout);
        return CLI_OK;
    }

    for (c = commands; c->name != NULL; c++) {
        if (strcmp(c->name, name) == 0) {
            printf("usage: infer %s %s\n\n%s\n", c->name, c->args, c->help);
            return CLI_OK;
        }
    }

    fprintf(stderr, "infer: there is no command \"%s\"\n", name);
    return CLI_USAGE;
}


void
cli_error(const char *command, const char *fmt, ...)
{
    va_list  args;

    fprintf(stderr, "infer: %s: ", command);

    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);

    fputc('\n', stderr);
}


int
cli_number(const char *command, const char *option, const char *text,
    long min, long max, long *out)
{
    long         n;
    int          negative;
    const char  *p;

    n = 0;
    negative = (text[0] == '-');
    p = text + negative;

    if (*p == '\0') {
        goto bad;
    }

    for ( /* void */ ; *p != '\0'; p++) {
        if (*p < '0' || *p > '9'
            || __builtin_mul_overflow(n, 10L, &n)
            || __builtin_add_overflow(n, (long) (*p - '0'), &n))
        {
            goto bad;
        }
    }

    n = negative ? -n : n;

    if (n < min || n > max) {
        goto bad;
    }

    *out = n;
    return 0;

bad:

    cli_error(command, "%s must be a whole number from %ld to %ld, not \"%s\"",
              option, min, max, text);
    return -1;
}


int
cli_real(const char *command, const char *option, const char *text,
    double min, double max, double *out)
{
    char    *end;
    double   v;

    errno = 0;
    v = strtod(text, &end);

    if (end == text || *end != '\0' || errno != 0 || !isfinite(v)
        || v < min || v > max)
    {
        cli_error(command, "%s must be a number from %g to %g, not \"%s\"",
                  option, min, max, text);
        return -1;
    }

    *out = v;
    return 0;
}
