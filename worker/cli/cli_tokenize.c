/*
 * cli_tokenize.c: `infer tokenize`: text from the arguments or stdin to ids.
 */

#include "tokenizer/tok.h"
#include "worker/cli/cli.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


#define INPUT_BYTES_MAX  (256u << 20)


typedef struct {
    const char  *model;
    const char  *text;              /* NULL: stdin */
    unsigned     flags;
    bool         tokens;            /* a line for each token */
} options_t;


/* All of stdin, ended by a NUL; the caller frees it. */
static char *
read_input(size_t *len)
{
    size_t  cap = 1 << 16, n = 0, got;
    char   *buf = malloc(cap + 1), *more;

    while (buf != NULL) {
        got = fread(buf + n, 1, cap - n, stdin);
        n += got;
        if (got == 0) {
            break;
        }
        if (n == cap) {
            if (cap >= INPUT_BYTES_MAX) {
                cli_error("tokenize", "more than %u bytes of input",
                          INPUT_BYTES_MAX);
                free(buf);
                return NULL;
            }
            cap *= 2;
            more = realloc(buf, cap + 1);
            if (more == NULL) {
                free(buf);
            }
            buf = more;
        }
    }
    if (buf == NULL) {
        cli_error("tokenize", "no memory");
        return NULL;
    }
    buf[n] = '\0';
    *len = n;
    return buf;
}


static int
parse(int argc, char **argv, options_t *o)
{
    int  i;

    memset(o, 0, sizeof(*o));
    o->flags = TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL | TOK_NO_TRUNCATION
               | TOK_NO_PADDING;
    for (i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--plain") == 0) {
            o->flags &= ~(unsigned) TOK_PARSE_SPECIAL;

        } else if (strcmp(argv[i], "--no-special") == 0) {
            o->flags &= ~(unsigned) TOK_ADD_SPECIAL;

        } else if (strcmp(argv[i], "--truncate") == 0) {
            o->flags &= ~(unsigned) (TOK_NO_TRUNCATION | TOK_NO_PADDING);

        } else if (strcmp(argv[i], "--tokens") == 0) {
            o->tokens = true;
            o->flags |= TOK_OFFSETS;

        } else if (argv[i][0] == '-' && argv[i][1] == '-') {
            cli_error("tokenize", "option %s is not known", argv[i]);
            return CLI_USAGE;

        } else if (o->model == NULL) {
            o->model = argv[i];

        } else if (o->text == NULL) {
            o->text = argv[i];

        } else {
            cli_error("tokenize", "one text at a time");
            return CLI_USAGE;
        }
    }
    if (o->model == NULL) {
        cli_error("tokenize", "usage: infer tokenize MODEL [TEXT] [--tokens] "
                  "[--plain] [--no-special] [--truncate]");
        return CLI_USAGE;
    }
    return CLI_OK;
}


/* A token's spelling on one line: control characters as escapes. */
static void
print_token(tok_str_t s)
{
    size_t  i;

    for (i = 0; i < s.len; i++) {
        if ((unsigned char) s.ptr[i] < 0x20 || s.ptr[i] == 0x7f) {
            printf("\\x%02x", (unsigned) (unsigned char) s.ptr[i]);
        } else {
            putchar(s.ptr[i]);
        }
    }
}


static void
print_result(const tok_t *t, const tok_result_t *r, bool tokens)
{
    size_t  i;

    for (i = 0; i < r->n; i++) {
        if (tokens) {
            printf("%u\t%u\t%u\t", r->ids[i], r->offsets[i].begin,
                   r->offsets[i].end);
            print_token(tok_id_to_token(t, r->ids[i]));
            putchar('\n');

        } else {
            printf("%s%u", i ? " " : "", r->ids[i]);
        }
    }
    if (!tokens) {
        putchar('\n');
    }
}


static int
encode(const tok_t *t, const options_t *o, const char *text, size_t len)
{
    tok_scratch_t  *s = tok_scratch_new();
    tok_result_t    r;
    int             rc;

    if (s == NULL) {
        cli_error("tokenize", "no memory");
        return CLI_FAILED;
    }
    rc = tok_encode(t, s, text, len, o->flags, &r);
    if (rc == TOK_E_UTF8) {
        cli_error("tokenize", "the text is not UTF-8 at byte %zu", r.bad_at);

    } else if (rc != 0) {
        cli_error("tokenize", "the text cannot be tokenized (error %d)", rc);

    } else {
        print_result(t, &r, o->tokens);
    }
    tok_scratch_free(s);
    return rc == 0 ? CLI_OK : CLI_FAILED;
}


int
cli_tokenize(int argc, char **argv)
{
    options_t   o;
    tok_t      *t;
    tok_err_t   err;
    char       *input = NULL;
    size_t      len;
    int         rc = parse(argc, argv, &o);

    if (rc != CLI_OK) {
        return rc;
    }
    if (tok_open(&t, o.model, &err) != 0) {
        cli_error("tokenize", "%s", err.msg);
        return CLI_FAILED;
    }
    if (o.text == NULL) {
        input = read_input(&len);
        rc = input == NULL ? CLI_FAILED : encode(t, &o, input, len);

    } else {
        rc = encode(t, &o, o.text, strlen(o.text));
    }
    free(input);
    tok_close(t);
    return rc;
}
