/*
 * Expressions to code for the stack machine, in one pass and without recursion:
 * c->ents is the stack of what is open (operators that wait for their right
 * side, brackets).  Two states alternate: an operand is expected, or an
 * operator is.
 *
 * Jumps are distances, so a finished piece of code can be moved: that is how
 * "A if C" puts C in front of A.
 */

#include <string.h>

#include "worker/chat/chat_expr.h"


static const binary_t  binaries[] = {
    { '+', OP_ADD, P_ADD },
    { '-', OP_SUB, P_ADD },
    { '~', OP_CONCAT, P_CONCAT },
    { '*', OP_MUL, P_MUL },
    { '/', OP_DIV, P_MUL },
    { CHAT_OP2('/', '/'), OP_FLOORDIV, P_MUL },
    { '%', OP_MOD, P_MUL },
    { CHAT_OP2('*', '*'), OP_POW, P_POW }
};

static const struct {
    uint16_t  token;
    uint8_t   cmp;
} comparisons[] = {
    { CHAT_OP2('=', '='), CMP_EQ }, { CHAT_OP2('!', '='), CMP_NE },
    { '<', CMP_LT }, { CHAT_OP2('<', '='), CMP_LE },
    { '>', CMP_GT }, { CHAT_OP2('>', '='), CMP_GE }
};

static int operand(chat_comp_t *c, unsigned flags);
static int operand_op(chat_comp_t *c, unsigned flags);
static int operand_name(chat_comp_t *c);
static int operand_string(chat_comp_t *c);
static int operator(chat_comp_t *c, unsigned flags, bool *filtered);
static int operator_op(chat_comp_t *c, unsigned flags, bool *filtered);
static int operator_name(chat_comp_t *c, unsigned flags, bool *filtered);

/*
 * Compiles the expression that starts at c->tok; its value will be on top of
 * the stack.  c->tok is then the first token that does not belong to it.
 */
int
chat_expr(chat_comp_t *c, unsigned flags)
{
    int   rc, state;
    bool  filtered;

    c->ents_len = 0;
    rc = chat_x_push(c, E_BASE, 0, 0);
    state = flags & CHAT_X_FILTERS ? X_OPERATOR : X_OPERAND;
    filtered = false;

    while (rc > 0 && state != X_DONE) {

        if (state == X_OPERAND) {
            rc = operand(c, flags);
            filtered = false;
        } else {
            rc = operator(c, flags, &filtered);
        }

        state = rc;
    }

    return rc < 0 ? rc : CHAT_OK;
}


/* One step where an operand is expected: returns the next state or an error. */
static int
operand(chat_comp_t *c, unsigned flags)
{
    int         rc;
    chat_val_t  v = { 0 };

    switch (c->tok.type) {

    case TK_INT:
    case TK_FLOAT:
        if (c->tok.type == TK_INT) {
            v.type = CV_INT;
            v.u.i = c->tok.i;
        } else {
            v.type = CV_FLOAT;
            v.u.f = c->tok.f;
        }

        rc = chat_emit_const(c, &v, c->tok.pos);
        break;

    case TK_STR:
        return operand_string(c);

    case TK_NAME:
        return operand_name(c);

    case TK_OP:
        return operand_op(c, flags);

    default:
        if (chat_x_top(c)->kind == E_BASE && chat_x_top(c)->comma) {
            return chat_x_finish(c, flags);
        }

        return chat_x_unexpected(c);
    }

    if (rc == CHAT_OK) {
        rc = chat_lex_next(c);
    }

    return rc < 0 ? rc : X_OPERATOR;
}


static int
operand_string(chat_comp_t *c)
{
    int         rc;
    uint32_t    pos;
    chat_val_t  v = { 0 };

    v.type = CV_STR;
    v.u.s = c->tok.s;
    v.len = c->tok.len;
    pos = c->tok.pos;

    /* Neighbours are one string; in the pool they lie side by side. */

    for ( ;; ) {
        rc = chat_lex_next(c);
        if (rc < 0) {
            return rc;
        }

        if (c->tok.type != TK_STR) {
            break;
        }

        v.len += c->tok.len;
    }

    rc = chat_emit_const(c, &v, pos);
    return rc < 0 ? rc : X_OPERATOR;
}


/* "name=" at the start of an argument. */
static int
keyword(chat_comp_t *c, uint32_t id, bool *taken)
{
    int              rc;
    chat_ent_t      *e;
    chat_kwnames_t  *kw;

    e = chat_x_top(c);
    *taken = false;

    if (e->kind < E_CALL || e->kind > E_TEST || !chat_tok_is(c, '=')) {
        return CHAT_OK;
    }

    if (e->flag) {
        return chat_x_unexpected(c);     /* f(a=b=1) */
    }

    if (e->kw == 0) {
        rc = chat_kwnames(c, &e->kw);
        if (rc != CHAT_OK) {
            return rc;
        }
    }

    kw = &c->t->kwnames[e->kw];

    if (kw->count == CHAT_ARGS_MAX - 1) {
        return chat_comp_fail(c, CHAT_ELIMIT, c->tok.pos,
                              "a call with more than %d arguments",
                              CHAT_ARGS_MAX - 1);
    }

    kw->names[kw->count++] = (uint16_t) id;
    e->flag = true;
    *taken = true;

    return chat_lex_next(c);
}


static int
operand_name(chat_comp_t *c)
{
    int         rc;
    bool        taken;
    uint32_t    id, pos;
    chat_val_t  v = { 0 };

    pos = c->tok.pos;

    if (chat_tok_name(c, "not")) {
        rc = chat_x_push(c, E_NOT, 0, P_NOT);
        return rc < 0 || chat_lex_next(c) == CHAT_OK ? rc : c->err->code;
    }

    if (chat_tok_name(c, "true") || chat_tok_name(c, "True")) {
        v.type = CV_BOOL;
        v.u.i = 1;
    } else if (chat_tok_name(c, "false") || chat_tok_name(c, "False")) {
        v.type = CV_BOOL;
    } else if (chat_tok_name(c, "none") || chat_tok_name(c, "None")) {
        v.type = CV_NONE;
    } else if (chat_tok_name(c, "if") || chat_tok_name(c, "else")
               || chat_tok_name(c, "and") || chat_tok_name(c, "or")
               || chat_tok_name(c, "in") || chat_tok_name(c, "is"))
    {
        return chat_x_unexpected(c);
    }

    if (v.type != CV_UNDEF) {
        rc = chat_emit_const(c, &v, pos);
        if (rc == CHAT_OK) {
            rc = chat_lex_next(c);
        }

        return rc < 0 ? rc : X_OPERATOR;
    }

    rc = chat_name(c, c->tok.s, c->tok.len, &id);
    if (rc == CHAT_OK) {
        rc = chat_lex_next(c);
    }

    if (rc == CHAT_OK) {
        rc = keyword(c, id, &taken);
        if (rc == CHAT_OK && taken) {
            return X_OPERAND;
        }
    }

    if (rc == CHAT_OK) {
        rc = chat_emit(c, OP_LOAD, 0, (int32_t) id, pos);
    }

    return rc < 0 ? rc : X_OPERATOR;
}


static int
operand_op(chat_comp_t *c, unsigned flags)
{
    int          rc;
    bool         filtered;
    unsigned     kind;
    chat_ent_t  *e;

    e = chat_x_top(c);

    switch (c->tok.op) {

    case '(':
        kind = E_PAREN;
        break;

    case '[':
        kind = E_LIST;
        break;

    case '{':
        kind = E_DICT;
        break;

    case '-':
    case '+':
        rc = chat_x_push(c, E_UNARY, c->tok.op == '-' ? OP_NEG : OP_POS,
                         P_UNARY);
        return rc < 0 || chat_lex_next(c) == CHAT_OK ? rc : c->err->code;

    case ':':
        return e->kind == E_SUB && !e->flag ? chat_x_colon(c)
                                            : chat_x_unexpected(c);

    case '*':
    case CHAT_OP2('*', '*'):
        return chat_comp_fail(c, CHAT_EUNSUPPORTED, c->tok.pos,
                              "\"*\" arguments are not supported");

    default:

        /* "()", "[]", "f()", "x[1:]" and a comma before the end. */

        if (e->kind > E_TEST || (e->flag && e->kind != E_SUB
                                 && e->kind != E_DICT)
            || (e->kind == E_SUB && e->count == 0)
            || (e->kind == E_DICT && e->flag))
        {
            return chat_x_unexpected(c);
        }

        if (e->kind == E_BASE) {
            return e->comma ? chat_x_finish(c, flags) : chat_x_unexpected(c);
        }

        return chat_x_close_context(c, &filtered);
    }

    rc = chat_x_push(c, kind, 0, 0);
    return rc < 0 || chat_lex_next(c) == CHAT_OK ? rc : c->err->code;
}


/* One step where an operator is expected. */
static int
operator(chat_comp_t *c, unsigned flags, bool *filtered)
{
    int  rc;

    if (!*filtered && c->tok.type == TK_OP
        && (c->tok.op == '.' || c->tok.op == '[' || c->tok.op == '('))
    {
        return chat_x_postfix(c);
    }

    if (chat_x_top(c)->kind == E_TESTARG) {
        rc = chat_x_reduce_top(c);
        *filtered = true;
        return rc < 0 ? rc : X_OPERATOR;
    }

    rc = chat_x_reduce(c, P_UNARY);
    if (rc < 0) {
        return rc;
    }

    if (c->tok.type == TK_OP) {
        return operator_op(c, flags, filtered);
    }

    if (c->tok.type == TK_NAME) {
        return operator_name(c, flags, filtered);
    }

    return chat_x_finish(c, flags);
}


static int
operator_op(chat_comp_t *c, unsigned flags, bool *filtered)
{
    unsigned  i;

    if (c->tok.op == '|') {
        return chat_x_filter(c, filtered);
    }

    if (flags & CHAT_X_FILTERS && c->ents_len == 1) {
        return chat_x_finish(c, flags);
    }

    for (i = 0; i < sizeof(binaries) / sizeof(binaries[0]); i++) {
        if (binaries[i].token == c->tok.op) {
            return chat_x_binary(c, &binaries[i]);
        }
    }

    for (i = 0; i < sizeof(comparisons) / sizeof(comparisons[0]); i++) {
        if (comparisons[i].token == c->tok.op) {
            return chat_x_compare(c, comparisons[i].cmp);
        }
    }

    switch (c->tok.op) {
    case ',':
        return chat_x_comma(c, flags);

    case ':':
        return chat_x_colon(c);

    case ')':
    case ']':
    case '}':
        return chat_x_close_context(c, filtered);

    default:
        return chat_x_finish(c, flags);
    }
}


/* "and", "or": a jump over the right side, to be patched at its end. */
static int
logical(chat_comp_t *c, unsigned kind, unsigned prec, chat_op_t op)
{
    int       rc;
    uint32_t  pos;

    pos = c->tok.pos;

    rc = chat_x_reduce(c, prec);
    if (rc == CHAT_OK) {
        rc = chat_x_push(c, kind, 0, prec);
    }

    if (rc > 0) {
        rc = chat_emit(c, op, 0, 0, pos);
    }

    if (rc == CHAT_OK) {
        rc = chat_lex_next(c);
    }

    return rc < 0 ? rc : X_OPERAND;
}


/* "else" of a conditional expression; any other ends the expression. */
static int
cond_else(chat_comp_t *c, unsigned flags)
{
    int      rc;
    int32_t  jump;

    rc = chat_x_reduce(c, P_OR);
    if (rc < 0) {
        return rc;
    }

    if (chat_x_top(c)->kind != E_COND) {
        return chat_x_finish(c, flags);
    }

    rc = chat_x_cond_else(c, &jump);
    if (rc == CHAT_OK) {
        rc = chat_x_push(c, E_ELSE, 0, P_COND);
    }

    if (rc > 0) {
        chat_x_top(c)->link = (uint32_t) jump;
        rc = chat_lex_next(c);
    }

    return rc < 0 ? rc : X_OPERAND;
}


static int
operator_name(chat_comp_t *c, unsigned flags, bool *filtered)
{
    int  rc;

    if (chat_tok_name(c, "is")) {
        return chat_x_test(c, filtered);
    }

    if (flags & CHAT_X_FILTERS && c->ents_len == 1) {
        return chat_x_finish(c, flags);
    }

    if (chat_tok_name(c, "in")) {
        return chat_x_compare(c, CMP_IN);
    }

    if (chat_tok_name(c, "not")) {
        rc = chat_lex_next(c);

        if (rc < 0) {
            return rc;
        }

        return chat_tok_name(c, "in") ? chat_x_compare(c, CMP_NOT_IN)
                                      : chat_x_unexpected(c);
    }

    if (chat_tok_name(c, "and")) {
        return logical(c, E_AND, P_AND, OP_AND);
    }

    if (chat_tok_name(c, "or")) {
        return logical(c, E_OR, P_OR, OP_OR);
    }

    if (chat_tok_name(c, "if")) {
        rc = chat_x_reduce(c, P_OR);
        if (rc < 0) {
            return rc;
        }

        return (flags & CHAT_X_NO_COND) && chat_x_top(c)->kind == E_BASE
               ? chat_x_finish(c, flags) : chat_x_cond_begin(c);
    }

    return chat_tok_name(c, "else") ? cond_else(c, flags)
                                    : chat_x_finish(c, flags);
}
