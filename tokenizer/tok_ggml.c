/*
 * tok_ggml.c: what the keys of a GGUF vocabulary mean.  Each kind is set up
 * as the tokenizer.json that it was made from would be.
 */

#include "tokenizer/tok_ggml.h"

#include <stdlib.h>


void
tok_gguf_init(tok_gguf_t *g)
{
    memset(g, 0, sizeof(*g));
    g->bos = g->eos = g->eot = g->eom = g->unk = TOK_NO_ID;
    g->sep = g->pad = g->cls = g->mask = TOK_NO_ID;
    g->add_bos = g->add_eos = g->add_sep = -1;
    g->add_space_prefix = g->remove_extra_spaces = -1;
}


static bool
is(tok_str_t s, const char *name)
{
    return s.len == strlen(name) && memcmp(s.ptr, name, s.len) == 0;
}


int
tok_ggml_op(tok_build_t *b, tok_vec_t *list, uint16_t type, uint32_t a,
    uint32_t c, const char *s, const char *r)
{
    tok_op_t  op = { .type = type, .a = a, .c = c };
    int       rc = 0;

    if (s != NULL) {
        rc = tok_build_string(b, s, strlen(s), &op.s);
    }
    if (rc == 0 && r != NULL) {
        rc = tok_build_string(b, r, strlen(r), &op.r);
    }
    return rc == 0 ? tok_build_op(b, list, &op) : rc;
}


/* --- what all kinds share ---------------------------------------------- */

int
tok_ggml_tokens(tok_build_t *b, const tok_gguf_t *g)
{
    uint32_t  i;
    int       rc;

    rc = tok_build_ids(b, g->n_tokens);
    for (i = 0; i < g->n_tokens && rc == 0; i++) {
        if (tok_utf8_check((const uint8_t *) g->tokens[i].ptr,
                           g->tokens[i].len) != g->tokens[i].len)
        {
            return tok_fail(b->err, TOK_E_FORMAT, "tokenizer: token %u is not "
                            "UTF-8", i);
        }
        rc = tok_build_token(b, i, g->tokens[i].ptr, g->tokens[i].len);
    }
    return rc == 0 ? tok_build_index(b, false) : rc;
}


int
tok_ggml_added(tok_build_t *b, const tok_gguf_t *g)
{
    uint32_t  i;
    int       rc = 0;

    for (i = 0; i < g->n_tokens && g->types != NULL && rc == 0; i++) {
        if (g->tokens[i].len == 0) {
            continue;
        }
        switch (g->types[i]) {
        case TOK_TYPE_CONTROL:
        case TOK_TYPE_UNKNOWN:
            rc = tok_build_added(b, i, g->tokens[i].ptr, g->tokens[i].len,
                                 TOK_A_SPECIAL);
            break;
        case TOK_TYPE_USER:
        case TOK_TYPE_UNUSED:
            rc = tok_build_added(b, i, g->tokens[i].ptr, g->tokens[i].len, 0);
            break;
        default:
            break;
        }
    }
    return rc;
}


int
tok_build_eos_add(tok_build_t *b, uint32_t id)
{
    uint32_t  *e = b->eos.ptr;
    size_t     i = 0;

    if (id >= b->tokens.n) {
        return 0;
    }
    if (tok_vec_room(&b->eos, 1, sizeof(*e)) != 0) {
        return tok_fail(b->err, TOK_E_NOMEM, "tokenizer: no memory");
    }
    e = b->eos.ptr;
    while (i < b->eos.n && e[i] < id) {
        i++;
    }
    if (i < b->eos.n && e[i] == id) {
        return 0;
    }
    if (b->eos.n == TOK_EOS_MAX) {
        return tok_fail(b->err, TOK_E_LIMIT, "tokenizer: more than %u ids "
                        "that end a text", TOK_EOS_MAX);
    }
    memmove(e + i + 1, e + i, (b->eos.n - i) * sizeof(*e));
    e[i] = id;
    b->eos.n++;
    return 0;
}


/* eos and its kin: the named ids, and control tokens of known spelling. */
int
tok_build_eos(tok_build_t *b)
{
    static const char *const  names[] = {
        "<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>",
        "<end_of_turn>", "<|eom_id|>", "<|end|>", "<|EOT|>", "<|return|>",
        "<|call|>", "<|end_of_sentence|>", "<\xef\xbd\x9c" "end\xe2\x96\x81"
        "of\xe2\x96\x81sentence\xef\xbd\x9c>", "<EOT>", "_<EOT>"
    };
    const tok_added_t  *a = b->added.ptr;
    size_t              i, k;
    int                 rc = tok_build_eos_add(b, b->h.eos);

    for (i = 0; i < b->added.n && rc == 0; i++) {
        for (k = 0; k < sizeof(names) / sizeof(names[0]); k++) {
            if ((a[i].flags & TOK_A_SPECIAL)
                && a[i].text.len == strlen(names[k])
                && memcmp(tok_build_text(b, a[i].text), names[k],
                          a[i].text.len) == 0)
            {
                rc = tok_build_eos_add(b, a[i].id);
            }
        }
    }
    return rc;
}


/* Ids around the text, as add_bos_token and its kin ask for. */
int
tok_ggml_template(tok_build_t *b, uint32_t before, uint32_t between,
    uint32_t after, uint32_t type_b)
{
    const struct {
        uint16_t  type;
        uint32_t  a, b, c;
    }  p[] = {
        { TOK_T_PIECE_ID, before, 0, 0 }, { TOK_T_PIECE_SEQ, 0, 0, 0 },
        { TOK_T_PIECE_ID, after, 0, 0 },
        { TOK_T_PIECE_ID, before, 0, 1 }, { TOK_T_PIECE_SEQ, 0, 0, 1 },
        { TOK_T_PIECE_ID, between, 0, 1 },
        { TOK_T_PIECE_SEQ, 1, type_b, 1 }, { TOK_T_PIECE_ID, after, type_b, 1 }
    };
    tok_op_t  op = { .type = TOK_T_TEMPLATE, .flags = 8 };
    size_t    i;
    int       rc = tok_build_op(b, &b->post, &op);

    for (i = 0; i < sizeof(p) / sizeof(p[0]) && rc == 0; i++) {
        if (p[i].type == TOK_T_PIECE_ID && p[i].a == TOK_NO_ID) {
            continue;
        }
        op = (tok_op_t) { .type = p[i].type, .flags = 8, .a = p[i].a,
                          .b = p[i].b, .c = p[i].c };
        rc = tok_build_op(b, &b->post, &op);
    }
    return rc;
}


uint32_t
tok_ggml_if(int flag, bool otherwise, uint32_t id)
{
    return flag > 0 || (flag < 0 && otherwise) ? id : TOK_NO_ID;
}


/* --- the kinds --------------------------------------------------------- */

static int
merges_of(tok_build_t *b, const tok_gguf_t *g)
{
    const uint8_t  *p, *space;
    size_t          n;
    uint32_t        i;
    int             rc = 0;

    if (tok_vec_room(&b->merges, g->n_merges, sizeof(tok_merge_t)) != 0) {
        return tok_fail(b->err, TOK_E_NOMEM, "tokenizer: no memory");
    }
    for (i = 0; i < g->n_merges && rc == 0; i++) {
        p = (const uint8_t *) g->merges[i].ptr;
        n = g->merges[i].len;
        /* The first part is never empty, and may itself be a space. */
        space = n > 1 ? memchr(p + 1, ' ', n - 1) : NULL;
        if (space == NULL) {
            return tok_fail(b->err, TOK_E_FORMAT, "tokenizer: merge %u has no "
                            "two parts", i);
        }
        rc = tok_build_merge(b, p, (size_t) (space - p), space + 1,
                             n - (size_t) (space - p) - 1);
    }
    return rc == 0 ? tok_build_merges_end(b) : rc;
}


static int
gpt2_of(tok_build_t *b, const tok_gguf_t *g)
{
    tok_op_t  op = { .type = TOK_D_BYTE_LEVEL };
    size_t    pre;
    int       rc;

    if (!tok_ggml_pre_find(g->pre, &pre)) {
        return tok_fail(b->err, TOK_E_UNSUPPORTED, "tokenizer: "
                        "tokenizer.ggml.pre \"%.*s\" is not known",
                        (int) (g->pre.len < 60 ? g->pre.len : 60),
                        g->pre.len ? g->pre.ptr : "");
    }
    b->h.model = TOK_M_BPE;
    rc = tok_ggml_tokens(b, g);
    if (rc == 0) {
        rc = tok_ggml_added(b, g);
    }
    if (rc == 0) {
        rc = merges_of(b, g);
    }
    if (rc == 0) {
        rc = tok_ggml_pre(b, pre);
    }
    if (rc == 0) {
        rc = tok_build_op(b, &b->decode, &op);
    }
    if (rc == 0) {
        rc = tok_ggml_template(b, tok_ggml_if(g->add_bos, tok_ggml_pre_bos(pre),
                                              g->bos), TOK_NO_ID,
                               tok_ggml_if(g->add_eos, false, g->eos), 0);
    }
    return rc;
}


int
tok_open_gguf(tok_t **t, const tok_gguf_t *g, tok_err_t *err)
{
    tok_build_t  b;
    int          rc;

    *t = NULL;
    tok_build_init(&b, err);
    b.h.bos = g->bos;
    b.h.eos = g->eos;
    b.h.pad = g->pad;
    b.h.unk = g->unk;
    rc = g->n_tokens ? 0
         : tok_fail(err, TOK_E_FORMAT, "tokenizer: the file has no "
                    "tokenizer.ggml.tokens");
    if (rc == 0 && g->chat_template.len) {
        rc = g->chat_template.len > TOK_TEMPLATE_BYTES_MAX
             ? tok_fail(err, TOK_E_LIMIT, "tokenizer: chat template of %zu "
                        "bytes, the limit is %u", g->chat_template.len,
                        TOK_TEMPLATE_BYTES_MAX)
             : tok_build_string(&b, g->chat_template.ptr,
                                g->chat_template.len, &b.h.chat);
    }
    if (rc == 0 && is(g->model, "gpt2")) {
        rc = gpt2_of(&b, g);

    } else if (rc == 0 && is(g->model, "llama")) {
        rc = tok_ggml_llama(&b, g);

    } else if (rc == 0 && is(g->model, "bert")) {
        rc = tok_ggml_bert(&b, g);

    } else if (rc == 0 && is(g->model, "t5")) {
        rc = tok_ggml_t5(&b, g);

    } else if (rc == 0) {
        rc = tok_fail(err, TOK_E_UNSUPPORTED, "tokenizer: "
                      "tokenizer.ggml.model \"%.*s\" is not known",
                      (int) (g->model.len < 60 ? g->model.len : 60),
                      g->model.len ? g->model.ptr : "");
    }
    if (rc == 0) {
        rc = tok_build_eos(&b);
    }
    if (rc == 0) {
        rc = tok_build_finish(&b, t);
    }
    tok_build_free(&b);
    return rc;
}
