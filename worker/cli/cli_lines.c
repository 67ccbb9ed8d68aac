/* cli_lines.h. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "worker/cli/cli.h"
#include "worker/cli/cli_lines.h"


void
cli_put_string(const char *text, size_t len)
{
    size_t         i;
    unsigned char  c;

    putchar('"');
    for (i = 0; i < len; i++) {
        c = (unsigned char) text[i];
        if (c == '"' || c == '\\') {
            putchar('\\');
            putchar(c);
        } else if (c == '\n') {
            fputs("\\n", stdout);
        } else if (c < 0x20 || c == 0x7f) {
            printf("\\u%04x", c);
        } else {
            putchar(c);
        }
    }
    putchar('"');
}


static int
one_line(const char *text, size_t len, const char *name, cli_line_pt answer,
    void *data)
{
    int          rc;
    tok_err_t    err = { .msg = "" };
    tok_json_t   j;
    const char  *why = NULL;

    rc = tok_json_init(&j, text, len, name, &err);
    if (rc == TOK_OK) {
        rc = answer(data, &j, &why);
        tok_json_free(&j);
    }
    if (rc != 0) {
        fputs("{\"error\":", stdout);
        why = why != NULL ? why : err.msg;
        cli_put_string(why, strlen(why));
        putchar('}');
    }
    putchar('\n');

    return rc;
}


int
cli_lines(const char *command, cli_line_pt answer, void *data)
{
    int       rc = CLI_OK;
    char     *line = NULL, name[32];
    size_t    cap = 0;
    ssize_t   len;
    unsigned  n = 0;

    while ((len = getline(&line, &cap, stdin)) >= 0) {
        n++;
        if (len > 0 && line[len - 1] == '\n') {
            len--;
        }
        if (len == 0) {
            continue;
        }
        if ((size_t) len > CLI_LINE_MAX) {
            cli_error(command, "line %u has more than %u bytes", n,
                      CLI_LINE_MAX);
            rc = CLI_FAILED;
            break;
        }
        snprintf(name, sizeof(name), "line %u of stdin", n);
        if (one_line(line, (size_t) len, name, answer, data) != 0) {
            rc = CLI_FAILED;
        }
        if (fflush(stdout) != 0) {
            cli_error(command, "stdout cannot be written");
            rc = CLI_FAILED;
            break;
        }
    }
    free(line);

    return rc;
}
