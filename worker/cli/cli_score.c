/*
 * infer score: the distribution after every position of given ids.  One JSON
 * object per line on stdin, {"ids":[...],"top":5}; one per line on stdout,
 * {"top":[[[id,logprob],...],...],"next":[logprob,...]}, where entry k of
 * "top" is the distribution after ids[0..k] and entry k of "next" what it
 * gives ids[k + 1].
 */

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "worker/cli/cli.h"
#include "worker/cli/cli_model.h"
#include "worker/engine/eng.h"
#include "worker/kernels/kern.h"

#define NAME         "score"
#define CHUNK        64u          /* positions per step, all with logits     */
#define LINE_MAX_B   (16u << 20)
#define TOP_MAX      100

static const char  usage_text[] =
    "usage: infer score -m MODEL [-t THREADS] " CLI_MODEL_USAGE "\n";

typedef struct {
    eng_t      e;
    uint32_t  *ids;               /* [ctx_len]                               */
    float     *next;              /* [ctx_len]: log probability of ids[i+1]  */
    uint32_t   n;
    uint32_t   top;
} score_t;

static int score_line(score_t *s, const char *line);


static int
read_ids(score_t *s, const cJSON *root)
{
    const cJSON  *ids, *id, *top;

    ids = cJSON_GetObjectItemCaseSensitive(root, "ids");
    top = cJSON_GetObjectItemCaseSensitive(root, "top");
    if (!cJSON_IsArray(ids) || cJSON_GetArraySize(ids) < 1) {
        cli_error(NAME, "\"ids\" must be an array of token ids");
        return -1;
    }
    s->top = 5;
    if (top != NULL) {
        if (!cJSON_IsNumber(top) || !(top->valuedouble >= 1)
            || !(top->valuedouble <= TOP_MAX))
        {
            cli_error(NAME, "\"top\" must be a number from 1 to %d", TOP_MAX);
            return -1;
        }
        s->top = (uint32_t) top->valuedouble;
    }

    s->n = 0;
    cJSON_ArrayForEach(id, ids) {
        if (!cJSON_IsNumber(id) || !(id->valuedouble >= 0)
            || !(id->valuedouble < s->e.limits.vocab)
            || id->valuedouble != floor(id->valuedouble))
        {
            cli_error(NAME, "id %u is no token id below %u", s->n,
                      s->e.limits.vocab);
            return -1;
        }
        if (s->n == s->e.limits.ctx_len) {
            cli_error(NAME, "more ids than the context of %u",
                      s->e.limits.ctx_len);
            return -1;
        }
        s->ids[s->n++] = (uint32_t) id->valuedouble;
    }

    return 0;
}


static void
print_top(const score_t *s, const float *logits)
{
    float     val[TOP_MAX], sum;
    uint32_t  i, n, idx[TOP_MAX];

    n = s->top < s->e.limits.vocab ? s->top : s->e.limits.vocab;
    sum = kern_logsumexp(logits, s->e.limits.vocab);
    n = kern_topk(logits, s->e.limits.vocab, n, idx, val);

    putchar('[');
    for (i = 0; i < n; i++) {
        printf("%s[%" PRIu32 ",%.6f]", i > 0 ? "," : "", idx[i],
               (double) (val[i] - sum));
    }
    putchar(']');
}


static void
print_next(const score_t *s)
{
    uint32_t  i;

    for (i = 0; i + 1 < s->n; i++) {
        printf("%s%.6f", i > 0 ? "," : "", (double) s->next[i]);
    }
}


static int
score_ids(score_t *s)
{
    int           rc;
    uint32_t      i, n, at, seq;
    eng_tok_t     tok[CHUNK];
    const float  *logits[CHUNK];

    rc = eng_seq_open(&s->e, &seq);
    if (rc == 0) {
        rc = eng_seq_reserve(&s->e, seq, s->n);
    }

    printf("{\"top\":[");
    for (at = 0; rc == 0 && at < s->n; at += n) {
        n = s->n - at < CHUNK ? s->n - at : CHUNK;
        for (i = 0; i < n; i++) {
            tok[i] = (eng_tok_t) { s->ids[at + i], seq, at + i, 1 };
        }
        rc = eng_step(&s->e, tok, n, logits);
        for (i = 0; rc == 0 && i < n; i++) {
            if (at + i > 0) {
                putchar(',');
            }
            print_top(s, logits[i]);
            if (at + i + 1 < s->n && s->ids[at + i + 1] < s->e.limits.vocab) {
                s->next[at + i] = logits[i][s->ids[at + i + 1]]
                                  - kern_logsumexp(logits[i],
                                                   s->e.limits.vocab);
            }
        }
    }
    printf("],\"next\":[");
    print_next(s);
    puts("]}");
    fflush(stdout);
    eng_seq_close(&s->e, seq);

    return rc;
}


static int
score_line(score_t *s, const char *line)
{
    int     rc;
    cJSON  *root = cJSON_Parse(line);

    if (root == NULL) {
        cli_error(NAME, "a line is not JSON");
        return CLI_FAILED;
    }
    rc = read_ids(s, root);
    cJSON_Delete(root);
    if (rc == 0) {
        rc = score_ids(s);
        if (rc != 0) {
            cli_error(NAME, "the engine returned %d", rc);
        }
    }

    return rc == 0 ? CLI_OK : CLI_FAILED;
}


static int
score_all(eng_model_t *model, long threads)
{
    int             rc = CLI_OK;
    char           *line;
    score_t         s;
    eng_err_t       err;
    eng_ctx_opts_t  co = ENG_CTX_OPTS_INIT;

    co.max_seqs = 1;
    co.max_batch_tokens = CHUNK;
    co.max_logits = CHUNK;
    co.threads = (uint32_t) threads;
    if (eng_create(model, &co, &s.e, &err) != ENG_OK) {
        cli_error(NAME, "%s", err.text);
        return CLI_FAILED;
    }

    s.ids = calloc(s.e.limits.ctx_len, sizeof(s.ids[0]));
    s.next = calloc(s.e.limits.ctx_len, sizeof(s.next[0]));
    line = malloc(LINE_MAX_B);
    if (s.ids == NULL || s.next == NULL || line == NULL) {
        cli_error(NAME, "no memory");
        rc = CLI_FAILED;
    }
    while (rc == CLI_OK && fgets(line, LINE_MAX_B, stdin) != NULL) {
        if (line[0] != '\n') {
            rc = score_line(&s, line);
        }
    }
    free(s.ids);
    free(s.next);
    free(line);
    eng_destroy(&s.e);

    return rc;
}


int
cli_score(int argc, char **argv)
{
    int               i, rc;
    long              threads = 2;
    eng_err_t         err;
    const char       *path = NULL;
    eng_model_t      *model;
    eng_model_opts_t  mo = ENG_MODEL_OPTS_INIT;

    for (i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "-m") == 0) {
            path = argv[i + 1];
            continue;
        }
        rc = cli_model_option(NAME, argv[i], argv[i + 1], &mo);
        if (rc < 0
            || (rc == 0 && (strcmp(argv[i], "-t") != 0
                            || cli_number(NAME, argv[i], argv[i + 1], 1,
                                          ENG_THREADS_MAX, &threads) != 0)))
        {
            break;
        }
    }
    if (path == NULL || i != argc) {
        fputs(usage_text, stderr);
        return CLI_USAGE;
    }

    if (enc_can_open(path)) {
        return cli_encoder_score(path, mo.kern_level, threads);
    }
    if (eng_model_open(path, &mo, &model, &err) != ENG_OK) {
        cli_error(NAME, "%s", err.text);
        return CLI_FAILED;
    }
    rc = score_all(model, threads);
    eng_model_close(model);

    return rc;
}
