/*
 * tok_hf_post.c: post-processors of a tokenizer.json.
 */

#include "tokenizer/tok_hf.h"


static int
add(tok_hf_t *f, const tok_op_t *op)
{
    return tok_build_op(f->b, &f->b->post, op);
}


/* A chain may trim offsets as often as it likes, but adds tokens once. */
static int
writer(tok_hf_t *f)
{
    if (f->n_templates++) {
        return tok_json_fail(f->j, TOK_E_UNSUPPORTED, "two post-processors "
                             "that add tokens");
    }
    return 0;
}


/* ["[SEP]", 102] */
static int
pair(tok_hf_t *f, const tok_members_t *m, const char *key, uint32_t *id)
{
    tok_str_t  s;
    bool       first = true;
    int        rc;

    if (!tok_json_at(f->j, m, key)) {
        return tok_json_fail(f->j, TOK_E_FORMAT, "sep or cls is missing");
    }
    rc = tok_json_open(f->j, '[');
    if (rc == 0 && tok_json_next(f->j, '[', &first) != 1) {
        return tok_json_fail(f->j, TOK_E_FORMAT, "a token and its id are "
                             "expected");
    }
    if (rc == 0) {
        rc = tok_json_string(f->j, &s);
    }
    if (rc == 0 && tok_json_next(f->j, '[', &first) != 1) {
        return tok_json_fail(f->j, TOK_E_FORMAT, "an id is expected");
    }
    if (rc == 0) {
        rc = tok_json_u32(f->j, id);
    }
    if (rc == 0 && *id >= TOK_IDS_MAX) {
        return tok_json_fail(f->j, TOK_E_LIMIT, "an id beyond the limit");
    }
    return rc;
}


static int
trim_flags(tok_hf_t *f, const tok_members_t *m, tok_op_t *op)
{
    bool  trim = false, prefix = false;
    int   rc = tok_hf_flag(f, m, "trim_offsets", -1, &trim);

    if (rc == 0) {
        rc = tok_hf_flag(f, m, "add_prefix_space", -1, &prefix);
    }
    op->flags = (uint16_t) ((trim ? TOK_POST_TRIM : 0)
                            | (prefix ? TOK_POST_PREFIX : 0));
    return rc;
}


static int
bert(tok_hf_t *f, const tok_members_t *m, bool roberta)
{
    tok_op_t  op = { .type = roberta ? TOK_T_ROBERTA : TOK_T_BERT };
    int       rc = writer(f);

    if (rc == 0) {
        rc = pair(f, m, "cls", &op.a);
    }
    if (rc == 0) {
        rc = pair(f, m, "sep", &op.b);
    }
    if (rc == 0 && roberta) {
        rc = trim_flags(f, m, &op);
    }
    return rc == 0 ? add(f, &op) : rc;
}


/* --- templates --------------------------------------------------------- */

/* The ids of a special token of the template, as pieces. */
static int
special(tok_hf_t *f, const tok_members_t *tokens, tok_str_t name,
    const tok_op_t *like)
{
    tok_members_t   m;
    tok_op_t        op = *like;
    bool            first = true;
    char            key[TOK_AFFIX_BYTES_MAX];
    int             rc;

    if (name.len >= sizeof(key) || memchr(name.ptr, 0, name.len) != NULL) {
        return tok_json_fail(f->j, TOK_E_LIMIT, "a special token's name of "
                             "more than 255 bytes");
    }
    memcpy(key, name.ptr, name.len);
    key[name.len] = '\0';
    if (!tok_json_at(f->j, tokens, key)) {
        return tok_hf_unknown(f, "special token of the template", name);
    }
    rc = tok_json_members(f->j, &m);
    if (rc == 0 && !tok_json_at(f->j, &m, "ids")) {
        return tok_json_fail(f->j, TOK_E_FORMAT, "ids are missing");
    }
    if (rc == 0) {
        rc = tok_json_open(f->j, '[');
    }
    while (rc == 0 && (rc = tok_json_next(f->j, '[', &first)) == 1) {
        rc = tok_json_u32(f->j, &op.a);
        if (rc == 0 && op.a >= TOK_IDS_MAX) {
            return tok_json_fail(f->j, TOK_E_LIMIT, "an id beyond the limit");
        }
        if (rc == 0) {
            rc = add(f, &op);
        }
    }
    return rc;
}


static int
piece(tok_hf_t *f, const tok_members_t *tokens, tok_op_t op)
{
    tok_members_t   outer, m;
    tok_str_t       name;
    const uint8_t  *after;
    uint32_t        type;
    bool            seq;
    int             rc = tok_json_members(f->j, &outer);

    after = f->j->p;
    if (rc != 0) {
        return rc;
    }
    seq = tok_json_at(f->j, &outer, "Sequence");
    if (outer.n != 1 || (!seq && !tok_json_at(f->j, &outer, "SpecialToken"))) {
        return tok_json_fail(f->j, TOK_E_UNSUPPORTED, "a template piece that "
                             "is neither Sequence nor SpecialToken");
    }
    rc = tok_json_members(f->j, &m);
    if (rc == 0) {
        rc = tok_hf_number(f, &m, "type_id", 255, &type);
    }
    if (rc == 0 && !tok_json_at(f->j, &m, "id")) {
        return tok_json_fail(f->j, TOK_E_FORMAT, "an id is missing");
    }
    if (rc == 0) {
        rc = tok_json_string(f->j, &name);
    }
    if (rc != 0) {
        return rc;
    }
    op.b = type;
    if (seq) {
        if (!tok_hf_is(name, "A") && !tok_hf_is(name, "B")) {
            return tok_hf_unknown(f, "sequence", name);
        }
        op.type = TOK_T_PIECE_SEQ;
        op.a = tok_hf_is(name, "B");
        rc = op.a == 1 && op.c == 0
             ? tok_json_fail(f->j, TOK_E_FORMAT, "sequence B in the template "
                             "for one sequence")
             : add(f, &op);

    } else {
        op.type = TOK_T_PIECE_ID;
        rc = special(f, tokens, name, &op);
    }
    f->j->p = after;
    return rc;
}


static int
pieces(tok_hf_t *f, const tok_members_t *m, const char *key,
    const tok_members_t *tokens, uint32_t pair_flag)
{
    tok_op_t  op = { .flags = 8, .c = pair_flag };
    bool      first = true;
    int       rc;

    if (!tok_json_at(f->j, m, key)) {
        return tok_json_fail(f->j, TOK_E_FORMAT, "a template is missing");
    }
    rc = tok_json_open(f->j, '[');
    while (rc == 0 && (rc = tok_json_next(f->j, '[', &first)) == 1) {
        rc = piece(f, tokens, op);
    }
    return rc;
}


static int
template(tok_hf_t *f, const tok_members_t *m)
{
    tok_op_t       op = { .type = TOK_T_TEMPLATE, .flags = 8 };
    tok_members_t  tokens;
    int            rc = writer(f);

    if (rc == 0) {
        rc = add(f, &op);
    }
    if (rc == 0 && !tok_json_at(f->j, m, "special_tokens")) {
        return tok_json_fail(f->j, TOK_E_FORMAT, "special_tokens is missing");
    }
    if (rc == 0) {
        rc = tok_json_members(f->j, &tokens);
    }
    if (rc == 0) {
        rc = pieces(f, m, "single", &tokens, 0);
    }
    return rc == 0 ? pieces(f, m, "pair", &tokens, 1) : rc;
}


static int
one(tok_hf_t *f, const tok_members_t *m, tok_str_t type)
{
    tok_op_t  op = { .type = TOK_T_BYTE_LEVEL };
    int       rc;

    if (tok_hf_is(type, "ByteLevel")) {
        rc = trim_flags(f, m, &op);
        return rc == 0 ? add(f, &op) : rc;
    }
    if (tok_hf_is(type, "TemplateProcessing")) {
        return template(f, m);
    }
    if (tok_hf_is(type, "BertProcessing")) {
        return bert(f, m, false);
    }
    if (tok_hf_is(type, "RobertaProcessing")) {
        return bert(f, m, true);
    }
    return tok_hf_unknown(f, "post-processor", type);
}


int
tok_hf_post(tok_hf_t *f)
{
    return tok_hf_walk(f, "processors", one);
}
