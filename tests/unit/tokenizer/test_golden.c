/*
 * test_golden.c: every case of tests/golden/tokenizers: ids, offsets, special
 * tokens, pairs, decoded text, and the stream against the whole.  Needs the
 * vocabularies of tests/tools/fetch_vocab.sh; without any it is skipped.
 */

#include "tokenizer/tok.h"

#include <cjson/cJSON.h>
#include <stdarg.h>
#include <setjmp.h>             /* cmocka.h needs it */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>


#define RAW  (TOK_PARSE_SPECIAL | TOK_NO_TRUNCATION | TOK_NO_PADDING)

static const char *const  families[] = {
    "gpt2", "gpt4o", "llama2", "llama3_1", "qwen2_5", "gemma3", "bert",
    "t5_small"
};

typedef struct {
    tok_t          *t;
    tok_scratch_t  *s;
    const char     *name;
    int             rows;
} run_t;


static bool
vocab_path(char *buf, size_t size, const char *name)
{
    const char  *models = getenv("INFER_MODELS"), *home = getenv("HOME");

    if (models != NULL) {
        (void) snprintf(buf, size, "%s/vocab/%s/tokenizer.json", models,
                        name);
    } else {
        (void) snprintf(buf, size, "%s/.cache/nginx-infer/vocab/%s/"
                        "tokenizer.json", home ? home : "", name);
    }
    return access(buf, R_OK) == 0;
}


/* Compares ids with a row's array; n limits what is shown on failure. */
static void
same_ids(const run_t *r, const cJSON *row, const char *key,
    const tok_result_t *res)
{
    const cJSON  *want = cJSON_GetObjectItem(row, key), *v;
    size_t        i = 0;

    assert_non_null(want);
    if ((size_t) cJSON_GetArraySize(want) != res->n) {
        fail_msg("%s row %d %s: %zu ids, %d expected", r->name,
                 cJSON_GetObjectItem(row, "i")->valueint, key, res->n,
                 cJSON_GetArraySize(want));
    }
    cJSON_ArrayForEach(v, want) {
        if ((uint32_t) v->valuedouble != res->ids[i]) {
            fail_msg("%s row %d %s: id %zu is %u, %u expected", r->name,
                     cJSON_GetObjectItem(row, "i")->valueint, key, i,
                     res->ids[i], (uint32_t) v->valuedouble);
        }
        i++;
    }
}


static void
same_offsets(const run_t *r, const cJSON *row, const tok_result_t *res)
{
    const cJSON  *want = cJSON_GetObjectItem(row, "off"), *v;
    size_t        i = 0;

    cJSON_ArrayForEach(v, want) {
        if ((uint32_t) v->child->valuedouble != res->offsets[i].begin
            || (uint32_t) v->child->next->valuedouble != res->offsets[i].end)
        {
            fail_msg("%s row %d: offset %zu", r->name,
                     cJSON_GetObjectItem(row, "i")->valueint, i);
        }
        i++;
    }
    assert_int_equal(i, res->n);
}


static void
same_text(const run_t *r, const cJSON *row, const char *key,
    const uint32_t *ids, size_t n, unsigned flags)
{
    const char   *want = cJSON_GetStringValue(cJSON_GetObjectItem(row, key));
    const char   *text;
    size_t        len, room = tok_stream_room(r->t), at = 0, k;
    char          piece[8192];
    tok_stream_t  st;

    assert_int_equal(tok_decode(r->t, r->s, ids, n, flags, &text, &len), 0);
    /* cJSON ends strings at NUL: rows with one are compared up to it. */
    if (strncmp(text, want, strlen(want)) != 0
        || (len != strlen(want) && memchr(text, 0, len) == NULL))
    {
        fail_msg("%s row %d %s", r->name,
                 cJSON_GetObjectItem(row, "i")->valueint, key);
    }
    /* The stream, piece by piece, is the same text. */
    tok_stream_init(&st, flags);
    for (size_t i = 0; i <= n; i++) {
        assert_true(room <= sizeof(piece));
        assert_int_equal(i < n ? tok_stream_step(&st, r->t, ids[i], piece,
                                                 sizeof(piece), &k)
                         : tok_stream_flush(&st, r->t, piece, sizeof(piece),
                                            &k), 0);
        assert_true(at + k <= len);
        assert_memory_equal(piece, text + at, k);
        at += k;
    }
    assert_int_equal(at, len);
}


static void
pair_row(const run_t *r, const cJSON *row)
{
    const char    *a = cJSON_GetStringValue(cJSON_GetObjectItem(row, "a"));
    const char    *b = cJSON_GetStringValue(cJSON_GetObjectItem(row, "b"));
    const cJSON   *v;
    tok_result_t   res;
    unsigned       add = cJSON_IsTrue(cJSON_GetObjectItem(row, "sp"))
                         ? TOK_ADD_SPECIAL : 0;
    size_t         i = 0;

    assert_int_equal(tok_encode_pair(r->t, r->s, a, strlen(a), b, strlen(b),
                                     RAW | TOK_OFFSETS | TOK_TYPES | add,
                                     &res), 0);
    same_ids(r, row, "ids", &res);
    same_offsets(r, row, &res);
    cJSON_ArrayForEach(v, cJSON_GetObjectItem(row, "type_ids")) {
        assert_int_equal(v->valueint, res.type_ids[i++]);
    }
    i = 0;
    cJSON_ArrayForEach(v, cJSON_GetObjectItem(row, "spmask")) {
        assert_int_equal(v->valueint, res.special[i++]);
    }
}


static void
text_row(const run_t *r, const cJSON *row)
{
    const char    *text = cJSON_GetStringValue(cJSON_GetObjectItem(row,
                                                                   "text"));
    size_t         len = strlen(text), n;
    uint32_t      *ids;
    tok_result_t   res;

    assert_int_equal(tok_encode(r->t, r->s, text, len, RAW, &res), 0);
    same_ids(r, row, "ids", &res);
    assert_int_equal(tok_encode(r->t, r->s, text, len, RAW | TOK_OFFSETS,
                                &res), 0);
    same_ids(r, row, "ids", &res);
    same_offsets(r, row, &res);
    ids = malloc((res.n + 1) * sizeof(*ids));
    assert_non_null(ids);
    n = res.n;
    memcpy(ids, res.ids, n * sizeof(*ids));
    same_text(r, row, "dec_nosp", ids, n, 0);
    free(ids);
    assert_int_equal(tok_encode(r->t, r->s, text, len, RAW | TOK_ADD_SPECIAL,
                                &res), 0);
    same_ids(r, row, "ids_sp", &res);
    ids = malloc((res.n + 1) * sizeof(*ids));
    assert_non_null(ids);
    n = res.n;
    memcpy(ids, res.ids, n * sizeof(*ids));
    same_text(r, row, "dec_skip", ids, n, TOK_SKIP_SPECIAL);
    same_text(r, row, "dec_keep", ids, n, 0);
    free(ids);
}


static void
one_row(run_t *r, const char *line)
{
    cJSON         *row = cJSON_Parse(line);
    const char    *text;
    tok_result_t   res;

    assert_non_null(row);
    r->rows++;
    text = cJSON_GetStringValue(cJSON_GetObjectItem(row, "text"));
    if (strstr(line, "\\u0000") != NULL) {
        /* cJSON cannot hold a NUL. */
    } else if (text == NULL) {
        pair_row(r, row);

    } else if (cJSON_GetObjectItem(row, "ids") == NULL) {
        assert_int_equal(tok_encode(r->t, r->s, text, strlen(text),
                                    RAW | TOK_ADD_SPECIAL, &res), 0);
        assert_int_equal(res.n, cJSON_GetObjectItem(row, "n_sp")->valueint);

    } else {
        text_row(r, row);
    }
    cJSON_Delete(row);
}


/* A compressed file's text, from the child process *pid. */
static FILE *
unpack(const char *path, pid_t *pid)
{
    int    ends[2];
    FILE  *f;

    assert_int_equal(pipe(ends), 0);
    *pid = fork();
    assert_true(*pid >= 0);
    if (*pid == 0) {
        (void) dup2(ends[1], STDOUT_FILENO);
        (void) close(ends[0]);
        (void) close(ends[1]);
        (void) execlp("xz", "xz", "-dc", path, (char *) NULL);
        _exit(127);
    }
    (void) close(ends[1]);
    f = fdopen(ends[0], "r");
    assert_non_null(f);
    return f;
}


static void
family(const char *name)
{
    int        status;
    char       path[4096], *line = NULL;
    pid_t      pid;
    size_t     cap = 0;
    run_t      r = { .name = name };
    tok_err_t  err;
    FILE      *f;

    if (!vocab_path(path, sizeof(path), name)) {
        return;
    }
    if (tok_open(&r.t, path, &err) != 0) {
        fail_msg("%s", err.msg);
    }
    r.s = tok_scratch_new();
    assert_non_null(r.s);
    (void) snprintf(path, sizeof(path), "tests/golden/tokenizers/%s.jsonl.xz",
                    name);
    f = unpack(path, &pid);
    while (getline(&line, &cap, f) > 0) {
        one_row(&r, line);
    }
    (void) fclose(f);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_true(r.rows > 200);
    free(line);
    tok_scratch_free(r.s);
    tok_close(r.t);
}


static void
all_families(void **state)
{
    size_t  i;

    (void) state;
    for (i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
        family(families[i]);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = { cmocka_unit_test(all_families) };
    char                     path[4096];

    if (!vocab_path(path, sizeof(path), "gpt2")) {
        fprintf(stderr, "skipped: no vocabularies, see "
                "tests/tools/fetch_vocab.sh\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
