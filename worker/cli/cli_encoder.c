/*
 * What `infer inspect` and `infer score` do with encoders and
 * encoder-decoders.
 *
 * score: one JSON object per line on stdin, {"ids":[...],"target":[...],
 * "top":5}; one per line on stdout, {"top":[[[id,logprob],...],...]}, where
 * entry k is the distribution before target[k].
 */

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "worker/cli/cli.h"
#include "worker/encoder/enc.h"
#include "worker/kernels/kern.h"

#define LINE_MAX_B   (16u << 20)
#define TARGET_MAX   512u
#define TOP_MAX      100

static const char  score[] = "score";


int
cli_encoder_inspect(const char *path, enc_prec_t precision)
{
    uint32_t           i;
    enc_info_t         info;
    eng_err_t          err;
    enc_opts_t         co = ENC_OPTS_INIT;
    const double       mib = 1024.0 * 1024.0;
    enc_model_opts_t   mo = ENC_MODEL_OPTS_INIT;

    static const char  *const kind[] = { "embedding", "classification",
                                         "reranking", "text to text" };
    static const char  *const used[] = { "auto", "float32", "bfloat16",
                                         "int8" };
    static const char  *const pool[] = { "mean", "first token", "last token",
                                         "maximum" };

    mo.precision = precision;
    if (enc_model_check(path, &mo, &co, &info, &err) != ENG_OK) {
        cli_error("inspect", "%s", err.text);
        return CLI_FAILED;
    }
    i = info.pool < 4 ? (uint32_t) info.pool : 0;
    printf("%-22s %s, for %s\n", "architecture", info.arch,
           kind[info.kind]);
    printf("%-22s %s\n", "name", info.name);
    printf("%-22s %.1f MiB\n", "files", (double) info.file_bytes / mib);
    printf("%-22s %.1f million\n", "parameters",
           (double) info.parameters / 1e6);
    printf("%-22s %" PRIu32 " + %" PRIu32 " layers of %" PRIu32
           ", feed forward %" PRIu32 "\n", "sizes", info.layers,
           info.dec_layers, info.embd, info.ff);
    printf("%-22s %" PRIu32 " of %" PRIu32 "\n", "heads", info.heads,
           info.head_dim);
    printf("%-22s %" PRIu32 " tokens\n", "vocabulary", info.vocab);
    printf("%-22s %" PRIu32 " tokens\n", "longest text", info.max_seq);
    if (info.kind == ENC_EMBED) {
        printf("%-22s %" PRIu32 " values, %s%s\n", "vectors", info.dim,
               pool[i], info.normalize ? ", normalized" : "");
    } else if (info.kind != ENC_T2T) {
        printf("%-22s %" PRIu32 "\n", "labels", info.labels);
    }
    printf("%-22s %.1f MiB, shared by all workers, %s\n", "memory: weights",
           (double) info.weight_bytes / mib, used[info.precision]);
    if (info.kv_bytes > 0) {
        printf("%-22s up to %.1f MiB (%.1f KiB per position)\n",
               "memory: KV cache", (double) info.kv_bytes / mib,
               (double) info.kv_bytes_per_token / 1024.0);
    }
    printf("%-22s up to %.1f MiB\n", "memory: work",
           (double) info.work_bytes / mib);

    return CLI_OK;
}


/* The ids of a member, 1..cap of them below vocab; 0 after an error. */
static uint32_t
read_ids(const cJSON *root, const char *key, uint32_t *ids, uint32_t cap,
    uint32_t vocab)
{
    uint32_t      n = 0;
    const cJSON  *id, *a = cJSON_GetObjectItemCaseSensitive(root, key);

    cJSON_ArrayForEach(id, a) {
        if (!cJSON_IsNumber(id) || !(id->valuedouble >= 0)
            || !(id->valuedouble < vocab) || n == cap
            || id->valuedouble != floor(id->valuedouble))
        {
            n = 0;
            break;
        }
        ids[n++] = (uint32_t) id->valuedouble;
    }
    if (n == 0) {
        cli_error(score, "\"%s\" must be an array of 1 to %u token ids below "
                  "%u", key, cap, vocab);
    }

    return n;
}


static void
print_top(const float *logits, uint32_t vocab, uint32_t top)
{
    float     val[TOP_MAX], sum = kern_logsumexp(logits, vocab);
    uint32_t  i, n, idx[TOP_MAX];

    n = kern_topk(logits, vocab, top < vocab ? top : vocab, idx, val);
    putchar('[');
    for (i = 0; i < n; i++) {
        printf("%s[%" PRIu32 ",%.6f]", i > 0 ? "," : "", idx[i],
               (double) (val[i] - sum));
    }
    putchar(']');
}


static int
score_ids(enc_t *e, const enc_info_t *info, const enc_batch_t *b,
    const uint32_t *target, uint32_t n, uint32_t top)
{
    int           rc;
    uint32_t      i, src, seq;
    enc_tok_t     t;
    const float  *logits;

    rc = enc_sources_open(e, b, &src);
    if (rc != 0) {
        return rc;
    }
    rc = enc_seq_open(e, src, &seq);
    if (rc == 0) {
        t = (enc_tok_t) { seq, info->start_id };
        printf("{\"top\":[");
        for (i = 0; rc == 0 && i < n; i++) {
            rc = enc_step(e, &t, 1, &logits);
            if (rc == 0) {
                fputs(i > 0 ? "," : "", stdout);
                print_top(logits, info->vocab, top);
                t.token = target[i];
            }
        }
        puts("]}");
        fflush(stdout);
        enc_seq_close(e, seq);
    }
    enc_source_close(e, src);

    return rc;
}


static int
score_line(enc_t *e, const enc_info_t *info, uint32_t *ids, const char *line)
{
    int           rc = -1;
    cJSON        *root = cJSON_Parse(line);
    double        top = 5;
    uint32_t      n, at[2] = { 0, 0 }, target[TARGET_MAX];
    enc_batch_t   b = { ids, NULL, at, 1 };
    const cJSON  *t = cJSON_GetObjectItemCaseSensitive(root, "top");

    if (cJSON_IsNumber(t) && t->valuedouble >= 1
        && t->valuedouble <= TOP_MAX)
    {
        top = t->valuedouble;
    }
    at[1] = read_ids(root, "ids", ids, info->max_seq, info->vocab);
    n = at[1] == 0 ? 0 : read_ids(root, "target", target, TARGET_MAX,
                                  info->vocab);
    if (n > 0) {
        rc = score_ids(e, info, &b, target, n, (uint32_t) top);
        if (rc != 0) {
            cli_error(score, "the engine returned %d", rc);
        }
    }
    cJSON_Delete(root);

    return rc == 0 ? CLI_OK : CLI_FAILED;
}


int
cli_encoder_score(const char *path, const char *level, long threads)
{
    int                rc = CLI_FAILED;
    char              *line = malloc(LINE_MAX_B);
    enc_t             *e = NULL;
    uint32_t          *ids = NULL;
    eng_err_t          err;
    enc_opts_t         o = ENC_OPTS_INIT;
    enc_model_t       *m = NULL;
    enc_model_opts_t   mo = ENC_MODEL_OPTS_INIT;
    const enc_info_t  *info;

    mo.kern_level = level;
    mo.precision = ENC_PREC_F32;
    o.threads = (uint32_t) threads;
    o.max_out = TARGET_MAX;
    if (enc_model_open(path, &mo, &m, &err) != ENG_OK
        || enc_create(m, &o, &e, &err) != ENG_OK)
    {
        cli_error(score, "%s", err.text);
        goto done;
    }
    info = enc_model_info(m);
    if (info->kind != ENC_T2T) {
        cli_error(score, "%s has no decoder; use \"infer embed\"", path);
        goto done;
    }
    ids = calloc(info->max_seq, sizeof(ids[0]));
    if (ids == NULL || line == NULL) {
        cli_error(score, "no memory");
        goto done;
    }

    rc = CLI_OK;
    while (rc == CLI_OK && fgets(line, LINE_MAX_B, stdin) != NULL) {
        if (line[0] != '\n') {
            rc = score_line(e, info, ids, line);
        }
    }

done:

    free(ids);
    free(line);
    if (e != NULL) {
        enc_destroy(e);
    }
    enc_model_close(m);

    return rc;
}
