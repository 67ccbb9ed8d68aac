/*
 * Lines of JSON in, lines of JSON out, for commands that work on many texts.
 * One answer per line, written out before the next line is read, so that a
 * program may talk to the command through pipes.
 */

#ifndef CLI_LINES_H
#define CLI_LINES_H

#include <stddef.h>

#include "tokenizer/tok_json.h"


#define CLI_LINE_MAX  (256u << 20)     /* bytes */

/*
 * Reads one line's value from j and prints the answer without the newline.
 * 0; -1 when it is no answer: *why says what is wrong (or *why stays NULL and
 * j's error tells it), and nothing has been printed.
 */
typedef int (*cli_line_pt)(void *data, tok_json_t *j, const char **why);

/*
 * All lines of stdin; empty ones are passed over.  A line that cannot be
 * answered gives {"error": "..."} in its place, and the exit code is
 * CLI_FAILED at the end.
 */
int cli_lines(const char *command, cli_line_pt answer, void *data);

/* A JSON string on stdout; any bytes of UTF-8, NUL included. */
void cli_put_string(const char *text, size_t len);


#endif /* CLI_LINES_H */
