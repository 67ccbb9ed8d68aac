/*
 * infer embed: vectors of texts.  One JSON value per line on stdin, a string
 * or an array of token ids; one JSON array of numbers per line on stdout.
 * With a classifier or a cross-encoder the numbers are the labels' scores.
 */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "tokenizer/tok.h"
#include "worker/cli/cli.h"
#include "worker/encoder/enc.h"

#define NAME         "embed"
#define LINE_MAX_B   (16u << 20)

static const char  usage_text[] =
    "usage: infer embed -m MODEL [--precision float32|bfloat16|int8] "
    "[--dimensions N] [-t THREADS] [--isa LEVEL]\n";

typedef struct {
    enc_t             *e;
    const enc_info_t  *info;
    tok_t             *tok;
    tok_scratch_t     *scratch;
    uint32_t          *ids;       /* [max_seq]                               */
    uint32_t           n;
    float             *out;       /* [width]                                 */
    uint32_t           dims;
} embed_t;


int
cli_precision(const char *command, const char *text, enc_prec_t *out)
{
    static const char  *const name[] = { "auto", "float32", "bfloat16",
                                         "int8" };
    size_t  i;

    for (i = 0; i < sizeof(name) / sizeof(name[0]); i++) {
        if (strcmp(text, name[i]) == 0) {
            *out = (enc_prec_t) i;
            return 0;
        }
    }
    cli_error(command, "the precision must be float32, bfloat16 or int8, "
              "not \"%s\"", text);

    return -1;
}


/* As the reference cuts: what the post-processor ends with stays. */
static int
encode(embed_t *s, const char *text)
{
    uint32_t      max = s->info->max_seq;
    tok_result_t  r;

    if (tok_encode(s->tok, s->scratch, text, strlen(text), TOK_ADD_SPECIAL
                   | TOK_NO_TRUNCATION | TOK_NO_PADDING | TOK_TYPES, &r)
        != TOK_OK)
    {
        cli_error(NAME, "a text cannot be tokenized");
        return -1;
    }
    if (r.n == 0) {
        cli_error(NAME, "a text has no tokens");
        return -1;
    }

    s->n = r.n < max ? (uint32_t) r.n : max;
    memcpy(s->ids, r.ids, s->n * sizeof(s->ids[0]));
    if (r.n > max && r.special[r.n - 1]) {
        s->ids[max - 1] = r.ids[r.n - 1];
    }

    return 0;
}


static int
read_ids(embed_t *s, const cJSON *root)
{
    const cJSON  *id;

    s->n = 0;
    cJSON_ArrayForEach(id, root) {
        if (!cJSON_IsNumber(id) || !(id->valuedouble >= 0)
            || !(id->valuedouble < s->info->vocab)
            || id->valuedouble != floor(id->valuedouble)
            || s->n == s->info->max_seq)
        {
            cli_error(NAME, "id %u is no token id below %u, or one more than "
                      "%u", s->n, s->info->vocab, s->info->max_seq);
            return -1;
        }
        s->ids[s->n++] = (uint32_t) id->valuedouble;
    }
    if (s->n == 0) {
        cli_error(NAME, "an empty array of ids");
        return -1;
    }

    return 0;
}


static int
embed_line(embed_t *s, const char *line)
{
    int           rc = -1;
    cJSON        *root = cJSON_Parse(line);
    uint32_t      i, n, offsets[2] = { 0, 0 };
    enc_batch_t   b = { s->ids, NULL, offsets, 1 };

    if (cJSON_IsString(root)) {
        rc = encode(s, root->valuestring);
    } else if (cJSON_IsArray(root)) {
        rc = read_ids(s, root);
    } else {
        cli_error(NAME, "a line is neither a JSON string nor an array");
    }
    cJSON_Delete(root);
    if (rc != 0) {
        return CLI_FAILED;
    }

    offsets[1] = s->n;
    rc = enc_run(s->e, &b, s->out);
    if (rc != 0) {
        cli_error(NAME, "the engine returned %d", rc);
        return CLI_FAILED;
    }
    n = s->dims;
    if (s->info->kind == ENC_EMBED) {
        enc_vector(s->out, n, s->info->normalize || n < s->info->dim);
    } else {
        n = s->info->labels;
        enc_scores(s->out, n, s->info->score);
    }
    for (i = 0; i < n; i++) {
        printf("%c%.9g", i == 0 ? '[' : ',', (double) s->out[i]);
    }
    puts("]");
    fflush(stdout);

    return CLI_OK;
}


static int
embed_all(const enc_model_t *model, const char *path, uint32_t dims,
    uint32_t threads)
{
    int         rc = CLI_FAILED;
    char       *line = malloc(LINE_MAX_B);
    embed_t     s = { .info = enc_model_info(model) };
    eng_err_t   err;
    tok_err_t   te;
    enc_opts_t  o = ENC_OPTS_INIT;

    o.max_tokens = s.info->max_seq;
    o.max_seqs = 1;
    o.threads = threads;
    if (s.info->kind == ENC_T2T) {
        cli_error(NAME, "%s gives texts and no vectors", path);
        goto done;
    }
    s.dims = dims == 0 ? s.info->dim : dims;
    if (s.dims > s.info->dim) {
        cli_error(NAME, "%u dimensions, the model has %u", dims,
                  s.info->dim);
        goto done;
    }
    if (tok_open(&s.tok, path, &te) != TOK_OK) {
        cli_error(NAME, "%s", te.msg);
        goto done;
    }
    if (enc_create(model, &o, &s.e, &err) != ENG_OK) {
        cli_error(NAME, "%s", err.text);
        goto done;
    }
    s.scratch = tok_scratch_new();
    s.ids = calloc(s.info->max_seq, sizeof(s.ids[0]));
    s.out = calloc(enc_limits(s.e)->width, sizeof(s.out[0]));
    if (s.ids == NULL || s.out == NULL || s.scratch == NULL || line == NULL)
    {
        cli_error(NAME, "no memory");
        goto done;
    }

    rc = CLI_OK;
    while (rc == CLI_OK && fgets(line, LINE_MAX_B, stdin) != NULL) {
        if (line[0] != '\n') {
            rc = embed_line(&s, line);
        }
    }

done:

    free(line);
    free(s.ids);
    free(s.out);
    if (s.scratch != NULL) {
        tok_scratch_free(s.scratch);
    }
    if (s.e != NULL) {
        enc_destroy(s.e);
    }
    if (s.tok != NULL) {
        tok_close(s.tok);
    }

    return rc;
}


int
cli_embed(int argc, char **argv)
{
    int               i, rc = 0;
    long              threads = 2, dims = 0;
    eng_err_t         err;
    const char       *path = NULL;
    enc_model_t      *model;
    enc_model_opts_t  mo = ENC_MODEL_OPTS_INIT;

    for (i = 1; i + 1 < argc && rc == 0; i += 2) {
        if (strcmp(argv[i], "-m") == 0) {
            path = argv[i + 1];
        } else if (strcmp(argv[i], "--isa") == 0) {
            mo.kern_level = argv[i + 1];
        } else if (strcmp(argv[i], "--precision") == 0) {
            rc = cli_precision(NAME, argv[i + 1], &mo.precision);
        } else if (strcmp(argv[i], "--dimensions") == 0) {
            rc = cli_number(NAME, argv[i], argv[i + 1], 1, 1 << 20, &dims);
        } else if (strcmp(argv[i], "-t") == 0) {
            rc = cli_number(NAME, argv[i], argv[i + 1], 1, ENG_THREADS_MAX,
                            &threads);
        } else {
            break;
        }
    }
    if (rc != 0 || path == NULL || i != argc) {
        fputs(usage_text, stderr);
        return CLI_USAGE;
    }

    mo.threads = (uint32_t) threads;
    if (enc_model_open(path, &mo, &model, &err) != ENG_OK) {
        cli_error(NAME, "%s", err.text);
        return CLI_FAILED;
    }
    rc = embed_all(model, path, (uint32_t) dims, (uint32_t) threads);
    enc_model_close(model);

    return rc;
}
