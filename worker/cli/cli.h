/*
 * The `infer` tool: one command per file, listed in main.c.
 *
 * A command gets the arguments from its own name on (argv[0] is the command)
 * and returns the exit code of the process.  Output for machines goes to
 * stdout, everything for people to stderr.
 */

#ifndef CLI_H
#define CLI_H

#include "worker/encoder/enc.h"


#define CLI_VERSION  "0.1.0"

/* Exit codes. */
#define CLI_OK       0
#define CLI_FAILED   1    /* it was tried and did not work        */
#define CLI_USAGE    2    /* the command line is not understood   */
#define CLI_SKIP     77   /* a test cannot run here (model absent) */


typedef struct {
    const char  *name;
    int        (*run)(int argc, char **argv);
    const char  *args;       /* usage, without the command's name */
    const char  *help;       /* one line */
} cli_command_t;


int cli_tokenize(int argc, char **argv);
int cli_detokenize(int argc, char **argv);
int cli_run(int argc, char **argv);
int cli_embed(int argc, char **argv);
int cli_bench(int argc, char **argv);
int cli_inspect(int argc, char **argv);
int cli_score(int argc, char **argv);
int cli_convert(int argc, char **argv);


/*
 * Helpers of main.c for all commands.
 *
 * cli_error() writes "infer: COMMAND: message" and a newline to stderr.
 * cli_number() reads a whole decimal number in [min, max] and returns 0, or -1
 * after having said what is wrong; cli_real() the same for a real number.
 */
__attribute__((format(printf, 2, 3)))
void cli_error(const char *command, const char *fmt, ...);
int cli_number(const char *command, const char *option, const char *text,
    long min, long max, long *out);
int cli_real(const char *command, const char *option, const char *text,
    double min, double max, double *out);


/* float32, bfloat16, int8 or auto of an encoder; an enc_prec_t. */
int cli_precision(const char *command, const char *text, enc_prec_t *out);

/* The parts of inspect and score for what enc_can_open(); exit codes. */
int cli_encoder_inspect(const char *path, enc_prec_t precision);
int cli_encoder_score(const char *path, const char *level, long threads);


#endif /* CLI_H */
