/*
 * tok_pattern.c: PCRE2.  The reference runs patterns with Oniguruma; where
 * the two languages differ a pattern is refused (tok_hf_parts.c), not guessed.
 */

#define PCRE2_CODE_UNIT_WIDTH 8

#include "tokenizer/tok_pattern.h"

#include <pcre2.h>
#include <stdlib.h>


struct tok_re {
    const tok_op_t  *op;
    pcre2_code      *code;
};


static size_t
count_patterns(const tok_t *t)
{
    size_t  n = 0, i;

    for (i = 0; i < t->n_norm; i++) {
        n += t->norm[i].type == TOK_N_REPLACE_RE;
    }
    for (i = 0; i < t->n_pre; i++) {
        n += t->pre[i].type == TOK_P_SPLIT_RE;
    }
    for (i = 0; i < t->n_decode; i++) {
        n += t->decode[i].type == TOK_D_REPLACE_RE;
    }
    return n;
}


static int
compile_one(tok_t *t, const tok_op_t *op, tok_err_t *err)
{
    uint32_t     opts = PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK
                        | PCRE2_NEVER_BACKSLASH_C;
    int          code;
    PCRE2_SIZE   at;
    tok_re_t    *re = t->re;
    pcre2_code  *c;
    PCRE2_UCHAR  text[120];

    c = pcre2_compile(t->pool + op->s.off, op->s.len, opts, &code, &at, NULL);
    if (c == NULL) {
        (void) pcre2_get_error_message(code, text, sizeof(text));
        return tok_fail(err, TOK_E_UNSUPPORTED, "tokenizer: pattern "
                        "\"%.*s\" cannot be compiled: %s at byte %zu",
                        (int) (op->s.len < 80 ? op->s.len : 80),
                        (const char *) t->pool + op->s.off,
                        (const char *) text, (size_t) at);
    }
    (void) pcre2_jit_compile(c, PCRE2_JIT_COMPLETE);
    while (re->op != NULL) {
        re++;
    }
    re->op = op;
    re->code = c;
    return 0;
}


int
tok_pattern_compile(tok_t *t, tok_err_t *err)
{
    size_t  n = count_patterns(t), i;
    int     rc = 0;

    t->re = calloc(n + 1, sizeof(tok_re_t));
    if (t->re == NULL) {
        return tok_fail(err, TOK_E_NOMEM, "tokenizer: no memory");
    }
    for (i = 0; rc == 0 && i < t->n_norm; i++) {
        if (t->norm[i].type == TOK_N_REPLACE_RE) {
            rc = compile_one(t, &t->norm[i], err);
        }
    }
    for (i = 0; rc == 0 && i < t->n_pre; i++) {
        if (t->pre[i].type == TOK_P_SPLIT_RE) {
            rc = compile_one(t, &t->pre[i], err);
        }
    }
    for (i = 0; rc == 0 && i < t->n_decode; i++) {
        if (t->decode[i].type == TOK_D_REPLACE_RE) {
            rc = compile_one(t, &t->decode[i], err);
        }
    }
    return rc;
}


void
tok_pattern_free(tok_t *t)
{
    tok_re_t  *re;

    for (re = t->re; re != NULL && re->op != NULL; re++) {
        pcre2_code_free(re->code);
    }
    free(t->re);
    t->re = NULL;
}


typedef struct {
    pcre2_match_data     *data;
    pcre2_match_context  *context;
} match_t;


void *
tok_pattern_match_new(void)
{
    match_t  *m = calloc(1, sizeof(*m));

    if (m == NULL) {
        return NULL;
    }
    m->data = pcre2_match_data_create(32, NULL);
    m->context = pcre2_match_context_create(NULL);
    if (m->data == NULL || m->context == NULL) {
        tok_pattern_match_free(m);
        return NULL;
    }
    (void) pcre2_set_match_limit(m->context, TOK_MATCH_LIMIT);
    (void) pcre2_set_depth_limit(m->context, TOK_MATCH_DEPTH);
    return m;
}


void
tok_pattern_match_free(void *match)
{
    match_t  *m = match;

    if (m != NULL) {
        pcre2_match_data_free(m->data);
        pcre2_match_context_free(m->context);
        free(m);
    }
}


int
tok_pattern_next(const tok_t *t, tok_scratch_t *s, const tok_op_t *op,
    const uint8_t *text, size_t len, size_t at, size_t *begin, size_t *end)
{
    match_t         *m = s->match;
    const tok_re_t  *re = t->re;
    PCRE2_SIZE      *ov;
    int              rc;

    while (re->op != op) {
        assert(re->op != NULL);
        re++;
    }
    rc = pcre2_match(re->code, text, len, at, PCRE2_NO_UTF_CHECK, m->data,
                     m->context);
    if (rc == PCRE2_ERROR_NOMATCH) {
        return 0;
    }
    if (rc < 0) {
        return TOK_E_MATCH;
    }
    ov = pcre2_get_ovector_pointer(m->data);
    *begin = ov[0];
    *end = ov[1];
    return *begin <= *end ? 1 : TOK_E_MATCH;
}
