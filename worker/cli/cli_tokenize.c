/*
 * infer tokenize: one JSON string per line on stdin, one object per line on
 * stdout, {"ids":[...]} and with --offsets "offsets":[[begin,end],...] in
 * Unicode characters.
 */

#include <stdio.h>
#include <string.h>

#include "tokenizer/tok.h"
#include "worker/cli/cli.h"
#include "worker/cli/cli_lines.h"

#define NAME  "tokenize"


typedef struct {
    const char     *path;
    unsigned        flags;
    tok_t          *tok;
    tok_scratch_t  *scratch;
    char            why[64];
} tokenize_t;


static int
parse(int argc, char **argv, tokenize_t *o)
{
    int  i;

    o->flags = TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL;

    for (i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-t") == 0 && i + 1 < argc) {
            o->path = argv[++i];
        } else if (strcmp(argv[i], "--no-special") == 0) {
            o->flags &= ~(unsigned) TOK_ADD_SPECIAL;
        } else if (strcmp(argv[i], "--no-truncation") == 0) {
            o->flags |= TOK_NO_TRUNCATION;
        } else if (strcmp(argv[i], "--no-padding") == 0) {
            o->flags |= TOK_NO_PADDING;
        } else if (strcmp(argv[i], "--offsets") == 0) {
            o->flags |= TOK_OFFSETS;
        } else {
            cli_error(NAME, "\"%s\" is not understood; see \"infer help "
                      NAME "\"", argv[i]);
            return CLI_USAGE;
        }
    }
    if (o->path == NULL) {
        cli_error(NAME, "-t TOKENIZER is missing");
        return CLI_USAGE;
    }

    return CLI_OK;
}


static int
answer(void *data, tok_json_t *j, const char **why)
{
    int            rc;
    size_t         i;
    tok_str_t      text;
    tokenize_t    *o = data;
    tok_result_t   r;

    rc = tok_json_string(j, &text);
    if (rc != TOK_OK) {
        return rc;
    }
    if (tok_json_peek(j) != 0) {
        *why = "a line is one JSON string and nothing more";
        return -1;
    }

    rc = tok_encode(o->tok, o->scratch, text.ptr, text.len, o->flags, &r);
    if (rc != TOK_OK) {
        snprintf(o->why, sizeof(o->why), "the text cannot be tokenized "
                 "(error %d)", rc);
        *why = o->why;
        return rc;
    }

    fputs("{\"ids\":[", stdout);
    for (i = 0; i < r.n; i++) {
        printf(i == 0 ? "%u" : ",%u", r.ids[i]);
    }
    putchar(']');
    if (o->flags & TOK_OFFSETS) {
        fputs(",\"offsets\":[", stdout);
        for (i = 0; i < r.n; i++) {
            printf(i == 0 ? "[%u,%u]" : ",[%u,%u]", r.offsets[i].begin,
                   r.offsets[i].end);
        }
        putchar(']');
    }
    putchar('}');

    return 0;
}


int
cli_tokenize(int argc, char **argv)
{
    int         rc;
    tok_err_t   err;
    tokenize_t  o = { 0 };

    rc = parse(argc, argv, &o);
    if (rc != CLI_OK) {
        return rc;
    }
    if (tok_open(&o.tok, o.path, &err) != TOK_OK) {
        cli_error(NAME, "%s", err.msg);
        return CLI_FAILED;
    }
    o.scratch = tok_scratch_new();
    if (o.scratch == NULL) {
        cli_error(NAME, "no memory");
        rc = CLI_FAILED;
    } else {
        rc = cli_lines(NAME, answer, &o);
        tok_scratch_free(o.scratch);
    }
    tok_close(o.tok);

    return rc;
}
