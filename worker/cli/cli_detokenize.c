/*
 * cli_detokenize.c: `infer detokenize`: ids from the arguments or stdin to
 * text.
 */

#include "tokenizer/tok.h"
#include "worker/cli/cli.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


#define IDS_MAX  (1u << 26)


typedef struct {
    uint32_t  *ids;
    size_t     n, cap;
} list_t;


static int
append(list_t *l, const char *text)
{
    uint32_t  *more;
    long       v;

    if (cli_number("detokenize", "id", text, 0, UINT32_MAX, &v) != 0) {
        return CLI_USAGE;
    }
    if (l->n == l->cap) {
        if (l->n >= IDS_MAX) {
            cli_error("detokenize", "more than %u ids", IDS_MAX);
            return CLI_FAILED;
        }
        l->cap = l->cap ? 2 * l->cap : 1024;
        more = realloc(l->ids, l->cap * sizeof(*more));
        if (more == NULL) {
            cli_error("detokenize", "no memory");
            return CLI_FAILED;
        }
        l->ids = more;
    }
    l->ids[l->n++] = (uint32_t) v;
    return CLI_OK;
}


/* Numbers of stdin, with white space or commas between them. */
static int
read_ids(list_t *l)
{
    char    word[24];
    size_t  n = 0;
    int     c, rc = CLI_OK;

    do {
        c = getchar();
        if (c != EOF && c != ' ' && c != '\n' && c != '\t' && c != '\r'
            && c != ',' && c != '[' && c != ']')
        {
            if (n + 1 == sizeof(word)) {
                cli_error("detokenize", "an id of more than %zu characters",
                          sizeof(word) - 1);
                return CLI_USAGE;
            }
            word[n++] = (char) c;
            continue;
        }
        if (n) {
            word[n] = '\0';
            n = 0;
            rc = append(l, word);
        }
    } while (c != EOF && rc == CLI_OK);
    return rc;
}


static int
decode(const tok_t *t, const list_t *l, bool skip)
{
    tok_scratch_t  *s = tok_scratch_new();
    const char     *text;
    size_t          len;
    int             rc = s == NULL ? TOK_E_NOMEM
                         : tok_decode(t, s, l->ids, l->n,
                                      skip ? TOK_SKIP_SPECIAL : 0, &text,
                                      &len);

    if (rc != 0) {
        cli_error("detokenize", "the ids cannot be decoded (error %d)", rc);

    } else if (fwrite(text, 1, len, stdout) != len || putchar('\n') == EOF) {
        cli_error("detokenize", "stdout cannot be written");
        rc = CLI_FAILED;
    }
    tok_scratch_free(s);
    return rc == 0 ? CLI_OK : CLI_FAILED;
}


int
cli_detokenize(int argc, char **argv)
{
    const char  *model = NULL;
    list_t       l = { NULL, 0, 0 };
    tok_t       *t = NULL;
    tok_err_t    err;
    bool         skip = false;
    int          rc = CLI_OK, i;

    for (i = 1; i < argc && rc == CLI_OK; i++) {
        if (strcmp(argv[i], "--skip-special") == 0) {
            skip = true;

        } else if (model == NULL) {
            model = argv[i];

        } else {
            rc = append(&l, argv[i]);
        }
    }
    if (rc == CLI_OK && model == NULL) {
        cli_error("detokenize", "usage: infer detokenize MODEL [ID ...] "
                  "[--skip-special]");
        rc = CLI_USAGE;
    }
    if (rc == CLI_OK && l.n == 0) {
        rc = read_ids(&l);
    }
    if (rc == CLI_OK && tok_open(&t, model, &err) != 0) {
        cli_error("detokenize", "%s", err.msg);
        rc = CLI_FAILED;
    }
    if (rc == CLI_OK) {
        rc = decode(t, &l, skip);
    }
    free(l.ids);
    tok_close(t);
    return rc;
}
