/*
 * infer detokenize: one JSON array of token ids per line on stdin, one JSON
 * string per line on stdout.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/tok.h"
#include "worker/cli/cli.h"
#include "worker/cli/cli_lines.h"

#define NAME     "detokenize"
#define IDS_MAX  (1u << 26)


typedef struct {
    const char     *path;
    unsigned        flags;
    tok_t          *tok;
    tok_scratch_t  *scratch;
    uint32_t       *ids;
    size_t          n, cap;
    char            why[64];
} detokenize_t;


static int
parse(int argc, char **argv, detokenize_t *o)
{
    int  i;

    o->flags = TOK_SKIP_SPECIAL;

    for (i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-t") == 0 && i + 1 < argc) {
            o->path = argv[++i];
        } else if (strcmp(argv[i], "--keep-special") == 0) {
            o->flags &= ~(unsigned) TOK_SKIP_SPECIAL;
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
append(detokenize_t *o, uint32_t id, const char **why)
{
    uint32_t  *more;

    if (o->n == o->cap) {
        o->cap = o->cap != 0 ? 2 * o->cap : 1024;
        more = o->cap <= IDS_MAX ? realloc(o->ids, o->cap * sizeof(*more))
                                 : NULL;
        if (more == NULL) {
            o->cap = o->n;
            *why = "too many ids";
            return -1;
        }
        o->ids = more;
    }
    o->ids[o->n++] = id;

    return 0;
}


static int
read_ids(detokenize_t *o, tok_json_t *j, const char **why)
{
    int       rc;
    bool      first = true;
    uint32_t  id;

    o->n = 0;
    rc = tok_json_open(j, '[');
    if (rc != TOK_OK) {
        return rc;
    }
    for ( ;; ) {
        rc = tok_json_next(j, '[', &first);
        if (rc <= 0) {
            break;
        }
        rc = tok_json_u32(j, &id);
        if (rc != TOK_OK || append(o, id, why) != 0) {
            return -1;
        }
    }
    if (rc == 0 && tok_json_peek(j) != 0) {
        *why = "a line is one JSON array of ids and nothing more";
        rc = -1;
    }

    return rc;
}


static int
answer(void *data, tok_json_t *j, const char **why)
{
    int            rc;
    size_t         len;
    const char    *text;
    detokenize_t  *o = data;

    rc = read_ids(o, j, why);
    if (rc != 0) {
        return rc;
    }
    rc = tok_decode(o->tok, o->scratch, o->ids, o->n, o->flags, &text, &len);
    if (rc != TOK_OK) {
        snprintf(o->why, sizeof(o->why), "the ids cannot be decoded (error "
                 "%d)", rc);
        *why = o->why;
        return rc;
    }
    cli_put_string(text, len);

    return 0;
}


int
cli_detokenize(int argc, char **argv)
{
    int           rc;
    tok_err_t     err;
    detokenize_t  o = { 0 };

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
    free(o.ids);
    tok_close(o.tok);

    return rc;
}
