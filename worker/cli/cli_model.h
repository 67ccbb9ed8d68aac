/*
 * Options that several commands of `infer` share: how a model is run.
 */

#ifndef CLI_MODEL_H
#define CLI_MODEL_H

#include "worker/engine/eng_file.h"


#define CLI_MODEL_USAGE                                                       \
    "[--precision int8|exact] [--kv-cache f16|q8_0] [--quantize TYPE] " \
    "[--isa LEVEL]"

/*
 * 1: the option is one of these and mo has its value; 0: it is another one;
 * -1: its value is wrong, and cli_error() has said so.
 */
int cli_model_option(const char *command, const char *option,
    const char *value, eng_model_opts_t *mo);


#endif /* CLI_MODEL_H */
