/*
 * The options of cli_model.h.
 */

#include <string.h>

#include "worker/cli/cli.h"
#include "worker/cli/cli_model.h"


/* Which of two words the value is: 0, 1, or -1 after an error. */
static int
one_of(const char *command, const char *option, const char *value,
    const char *first, const char *second)
{
    if (strcmp(value, first) == 0) {
        return 0;
    }
    if (strcmp(value, second) == 0) {
        return 1;
    }
    cli_error(command, "%s is \"%s\" or \"%s\", not \"%s\"", option, first,
              second, value);

    return -1;
}


int
cli_model_option(const char *command, const char *option,
    const char *value, eng_model_opts_t *mo)
{
    int  which;

    if (strcmp(option, "--isa") == 0) {
        mo->kern_level = value;
        return 1;
    }

    if (strcmp(option, "--quantize") == 0) {
        mo->quantize = value;
        return 1;
    }

    if (strcmp(option, "--precision") == 0) {
        which = one_of(command, option, value, "int8", "exact");
        mo->precision = which == 1 ? ENG_PREC_EXACT : ENG_PREC_INT8;
        return which < 0 ? -1 : 1;
    }

    if (strcmp(option, "--kv-cache") == 0) {
        which = one_of(command, option, value, "f16", "q8_0");
        mo->kv_type = which == 1 ? ENG_KV_Q8_0 : ENG_KV_F16;
        return which < 0 ? -1 : 1;
    }

    return 0;
}
