/*
 * The operators of expressions: what follows a value, what closes a bracket,
 * and how a waiting operator becomes code.  See chat_expr.c for the way it
 * works.
 */

#include <string.h>

#include "worker/chat/chat_expr.h"


/* Instructions that all ternaries of a template together may move. */
#define MOVED_MAX  (1u << 24)


static int call_end(chat_comp_t *c, const chat_ent_t *e);


int
chat_x_push(chat_comp_t *c, unsigned kind, unsigned op, unsigned prec)
{
    chat_ent_t  *e;

    if (c->ents_len == CHAT_EXPR_DEPTH) {
        return chat_comp_fail(c, CHAT_ELIMIT, c->tok.pos, "an expression with "
                              "more than %d open parts", CHAT_EXPR_DEPTH);
    }

    e = &c->ents[c->ents_len++];
    memset(e, 0, sizeof(*e));
    e->kind = (uint8_t) kind;
    e->op = (uint8_t) op;
    e->prec = (uint8_t) prec;
    e->start = c->t->code_len;
    e->link = CHAT_NO_LINK;
    e->pos = c->tok.pos;

    return X_OPERAND;
}


int
chat_x_unexpected(chat_comp_t *c)
{
    return chat_comp_fail(c, CHAT_ESYNTAX, c->tok.pos,
                          "unexpected %s in an expression",
                          c->tok.type == TK_EOF ? "end of the template"
                          : c->tok.type == TK_VAR_END
                            || c->tok.type == TK_BLOCK_END ? "end of the tag"
                          : c->tok.type == TK_OP ? "operator"
                          : c->tok.type == TK_NAME ? "name" : "literal");
}


static void
patch(chat_comp_t *c, uint32_t at)
{
    assert(at < c->t->code_len);

    c->t->code[at].arg = (int32_t) (c->t->code_len - at);
}


/* "x[" or "f(" or "x.f(": the latter keeps x on the stack and no attribute. */
static int
open_bracket(chat_comp_t *c, uint16_t op)
{
    int       rc;
    bool      method;
    uint32_t  name;

    name = 0;
    method = op == '(' && c->last_attr == c->t->code_len;

    if (method) {
        c->last_attr = 0;
        c->t->code_len--;
        name = (uint32_t) c->t->code[c->t->code_len].arg;
    }

    rc = chat_x_push(c, op == '[' ? E_SUB : E_CALL, method, 0);
    if (rc < 0) {
        return rc;
    }

    chat_x_top(c)->name = name;

    rc = chat_lex_next(c);
    return rc < 0 ? rc : X_OPERAND;
}


/* ".name", ".0", "[...]", "(...)" on the value just made. */
int
chat_x_postfix(chat_comp_t *c)
{
    int         rc;
    uint16_t    op;
    uint32_t    id, pos;
    chat_val_t  v = { 0 };

    op = c->tok.op;
    pos = c->tok.pos;

    if (op != '.') {
        return open_bracket(c, op);
    }

    rc = chat_lex_next(c);
    if (rc < 0) {
        return rc;
    }

    if (c->tok.type == TK_NAME) {
        rc = chat_name(c, c->tok.s, c->tok.len, &id);
        if (rc == CHAT_OK) {
            rc = chat_emit(c, OP_GETATTR, 0, (int32_t) id, pos);
            c->last_attr = c->t->code_len;
        }

    } else if (c->tok.type == TK_INT) {
        v.type = CV_INT;
        v.u.i = c->tok.i;
        rc = chat_emit_const(c, &v, pos);
        if (rc == CHAT_OK) {
            rc = chat_emit(c, OP_GETITEM, 0, 0, pos);
        }

    } else {
        return chat_x_unexpected(c);
    }

    if (rc == CHAT_OK) {
        rc = chat_lex_next(c);
    }

    return rc < 0 ? rc : X_OPERATOR;
}


/* The name of a filter or test after "|" or "is". */
static int
callee(chat_comp_t *c, const char *what, int (*find)(const char *, size_t),
    uint32_t *number)
{
    int  id;

    if (c->tok.type != TK_NAME) {
        return chat_x_unexpected(c);
    }

    id = find(c->tok.s, c->tok.len);

    if (id < 0) {
        return chat_comp_fail(c, CHAT_EUNSUPPORTED, c->tok.pos,
                              "the %s \"%.*s\" is not supported", what,
                              c->tok.len > 40 ? 40 : (int) c->tok.len,
                              c->tok.s);
    }

    *number = (uint32_t) id;
    return chat_lex_next(c);
}


int
chat_x_filter(chat_comp_t *c, bool *filtered)
{
    int       rc;
    uint32_t  id, pos;

    rc = chat_lex_next(c);
    pos = c->tok.pos;

    if (rc == CHAT_OK) {
        rc = callee(c, "filter", chat_filter_find, &id);
    }

    if (rc < 0) {
        return rc;
    }

    if (chat_tok_is(c, '.')) {
        return chat_comp_fail(c, CHAT_EUNSUPPORTED, c->tok.pos,
                              "filters with a dot are not supported");
    }

    if (chat_tok_is(c, '(')) {
        rc = chat_x_push(c, E_FILTER, 0, 0);
        if (rc > 0) {
            chat_x_top(c)->name = id;
            rc = chat_lex_next(c);
        }

        return rc < 0 ? rc : X_OPERAND;
    }

    rc = chat_emit(c, OP_FILTER, 0, (int32_t) id, pos);
    *filtered = true;
    return rc < 0 ? rc : X_OPERATOR;
}


int
chat_x_test(chat_comp_t *c, bool *filtered)
{
    int       rc;
    bool      negated, arg;
    uint32_t  id, pos;

    rc = chat_lex_next(c);
    negated = rc == CHAT_OK && chat_tok_name(c, "not");

    if (negated) {
        rc = chat_lex_next(c);
    }

    pos = c->tok.pos;

    if (rc == CHAT_OK) {
        rc = callee(c, "test", chat_test_find, &id);
    }

    if (rc < 0) {
        return rc;
    }

    arg = c->tok.type == TK_STR || c->tok.type == TK_INT
          || c->tok.type == TK_FLOAT || chat_tok_is(c, '[')
          || chat_tok_is(c, '{')
          || (c->tok.type == TK_NAME && !chat_tok_name(c, "else")
              && !chat_tok_name(c, "or") && !chat_tok_name(c, "and")
              && !chat_tok_name(c, "if") && !chat_tok_name(c, "is")
              && !chat_tok_name(c, "in") && !chat_tok_name(c, "not"));

    if (arg || chat_tok_is(c, '(')) {
        rc = chat_x_push(c, arg ? E_TESTARG : E_TEST, negated,
                         arg ? P_TESTARG : 0);
        if (rc > 0) {
            chat_x_top(c)->name = id;
            rc = arg ? CHAT_OK : chat_lex_next(c);
        }

        return rc < 0 ? rc : X_OPERAND;
    }

    rc = chat_emit(c, OP_TEST, 0, (int32_t) id, pos);
    if (rc == CHAT_OK && negated) {
        rc = chat_emit(c, OP_NOT, 0, 0, pos);
    }

    *filtered = true;
    return rc < 0 ? rc : X_OPERATOR;
}


/* "a < b < c": each link but the last jumps out when it is false. */
int
chat_x_compare(chat_comp_t *c, unsigned cmp)
{
    int          rc;
    uint32_t     pos;
    chat_ent_t  *e;

    pos = c->tok.pos;

    rc = chat_x_reduce(c, P_CMP + 1);
    if (rc < 0) {
        return rc;
    }

    e = chat_x_top(c);

    if (e->kind == E_CMP) {
        rc = chat_emit(c, OP_CMP_CHAIN, e->op,
                       e->link == CHAT_NO_LINK ? -1 : (int32_t) e->link, pos);
        e->link = c->t->code_len - 1;
        e->op = (uint8_t) cmp;
    } else {
        rc = chat_x_push(c, E_CMP, cmp, P_CMP);
    }

    if (rc >= 0) {
        rc = chat_lex_next(c);
    }

    return rc < 0 ? rc : X_OPERAND;
}


int
chat_x_binary(chat_comp_t *c, const binary_t *b)
{
    int          rc;
    chat_ent_t  *e;

    rc = chat_x_reduce(c, b->prec + 1u);
    if (rc < 0) {
        return rc;
    }

    e = chat_x_top(c);

    /* A chain of one operator is one instruction: strings are copied once. */

    if (e->kind == E_BINARY && e->op == b->op
        && (b->op == OP_ADD || b->op == OP_CONCAT)
        && e->count < CHAT_ARGS_MAX - 2)
    {
        e->count++;
        rc = CHAT_OK;

    } else {
        rc = chat_x_reduce(c, b->prec);
        if (rc == CHAT_OK) {
            rc = chat_x_push(c, E_BINARY, b->op, b->prec);
        }
    }

    if (rc >= 0) {
        rc = chat_lex_next(c);
    }

    return rc < 0 ? rc : X_OPERAND;
}


int
chat_x_comma(chat_comp_t *c, unsigned flags)
{
    int          rc;
    chat_ent_t  *e;

    rc = chat_x_reduce(c, P_COND);
    if (rc < 0) {
        return rc;
    }

    e = chat_x_top(c);

    if ((e->kind == E_BASE && !(flags & CHAT_X_TUPLE)) || e->kind == E_SUB
        || (e->kind == E_DICT && !e->flag))
    {
        return e->kind == E_BASE ? chat_x_finish(c, flags)
                                 : chat_x_unexpected(c);
    }

    if (e->count == (e->kind >= E_CALL ? CHAT_ARGS_MAX - 1u : CHAT_ITEMS_MAX)) {
        return chat_comp_fail(c, CHAT_ELIMIT, c->tok.pos,
                              "a list of more than %u parts", e->count);
    }

    if (e->kind >= E_CALL && e->kw != 0 && !e->flag) {
        return chat_comp_fail(c, CHAT_ESYNTAX, c->tok.pos,
                              "a positional argument after a named one");
    }

    e->count++;
    e->comma = true;
    e->flag = false;
    e->start = c->t->code_len;

    rc = chat_lex_next(c);
    return rc < 0 ? rc : X_OPERAND;
}


/* ":" in a dict literal or a slice. */
int
chat_x_colon(chat_comp_t *c)
{
    int          rc;
    chat_ent_t  *e;
    chat_val_t   none = { .type = CV_NONE };

    rc = chat_x_reduce(c, P_COND);
    e = chat_x_top(c);

    if (rc == CHAT_OK && e->kind == E_DICT && !e->flag) {
        e->flag = true;

    } else if (rc == CHAT_OK && e->kind == E_SUB && e->count < 2) {
        if (e->start == c->t->code_len) {
            rc = chat_emit_const(c, &none, c->tok.pos);
        }

        e->count++;

    } else {
        return rc < 0 ? rc : chat_x_unexpected(c);
    }

    e->start = c->t->code_len;

    if (rc == CHAT_OK) {
        rc = chat_lex_next(c);
    }

    return rc < 0 ? rc : X_OPERAND;
}


static int
sub_end(chat_comp_t *c, chat_ent_t *e)
{
    int         rc;
    chat_val_t  none = { .type = CV_NONE };

    if (e->count == 0) {
        return chat_emit(c, OP_GETITEM, 0, 0, e->pos);
    }

    if (e->start == c->t->code_len) {
        rc = chat_emit_const(c, &none, e->pos);
        if (rc < 0) {
            return rc;
        }
    }

    if (e->count == 1) {
        rc = chat_emit_const(c, &none, e->pos);
        if (rc < 0) {
            return rc;
        }
    }

    return chat_emit(c, OP_SLICE, 0, 0, e->pos);
}


/* ")", "]" or "}". */
int
chat_x_close_context(chat_comp_t *c, bool *filtered)
{
    int          rc;
    uint16_t     closing;
    uint32_t     count;
    chat_ent_t   e;

    rc = chat_x_reduce(c, P_COND);
    if (rc < 0) {
        return rc;
    }

    e = *chat_x_top(c);

    if (e.kind == E_BASE) {
        return chat_x_finish(c, 0);      /* the bracket is someone else's */
    }

    closing = e.kind == E_LIST || e.kind == E_SUB ? ']'
              : e.kind == E_DICT ? '}' : ')';

    if (e.kind > E_TEST || c->tok.op != closing
        || (e.kind == E_DICT && !e.flag && e.start != c->t->code_len))
    {
        return chat_x_unexpected(c);
    }

    count = e.count + (e.start != c->t->code_len);
    e.count = e.kind == E_SUB ? e.count : count;
    c->ents_len--;
    *filtered = false;

    switch (e.kind) {
    case E_PAREN:
        c->last_attr = 0;
        rc = count == 1 && !e.comma ? CHAT_OK
             : chat_emit(c, OP_TUPLE, 0, (int32_t) count, e.pos);
        break;

    case E_LIST:
        rc = chat_emit(c, OP_LIST, 0, (int32_t) count, e.pos);
        break;

    case E_DICT:
        rc = chat_emit(c, OP_DICT, 0, (int32_t) count, e.pos);
        break;

    case E_SUB:
        rc = sub_end(c, &e);
        break;

    default:
        if (e.kw != 0 && !e.flag && e.start != c->t->code_len) {
            return chat_comp_fail(c, CHAT_ESYNTAX, c->tok.pos,
                                  "a positional argument after a named one");
        }

        rc = call_end(c, &e);
        *filtered = e.kind != E_CALL;
    }

    if (rc == CHAT_OK) {
        rc = chat_lex_next(c);
    }

    return rc < 0 ? rc : X_OPERATOR;
}


/* The end of the whole expression; only the base may be open then. */
int
chat_x_finish(chat_comp_t *c, unsigned flags)
{
    int          rc;
    uint32_t     count;
    chat_ent_t  *e;

    (void) flags;

    rc = chat_x_reduce(c, P_COND);
    if (rc < 0) {
        return rc;
    }

    e = chat_x_top(c);

    if (e->kind != E_BASE) {
        return chat_x_unexpected(c);
    }

    if (e->comma) {
        count = e->count + (e->start != c->t->code_len);
        rc = chat_emit(c, OP_TUPLE, 0, (int32_t) count, e->pos);
        if (rc < 0) {
            return rc;
        }
    }

    c->ents_len = 0;
    return X_DONE;
}


/* Turns waiting operators that bind at least as tightly as prec into code. */
int
chat_x_reduce(chat_comp_t *c, unsigned prec)
{
    int  rc;

    while (chat_x_top(c)->kind > E_TEST && chat_x_top(c)->prec >= prec) {
        rc = chat_x_reduce_top(c);
        if (rc < 0) {
            return rc;
        }
    }

    return CHAT_OK;
}


int
chat_x_reduce_top(chat_comp_t *c)
{
    int         rc;
    int32_t     at, next;
    chat_ent_t  e;
    chat_val_t  undefined = { .type = CV_UNDEF };

    e = *chat_x_top(c);

    if (e.kind == E_COND) {
        rc = chat_x_cond_else(c, &at);
        if (rc == CHAT_OK) {
            rc = chat_emit_const(c, &undefined, e.pos);
        }

        if (rc == CHAT_OK) {
            patch(c, (uint32_t) at);
        }

        return rc;
    }

    c->ents_len--;

    switch (e.kind) {
    case E_BINARY:
        return chat_emit(c, e.op, e.count + 2, 0, e.pos);

    case E_UNARY:
        return chat_emit(c, e.op, 0, 0, e.pos);

    case E_NOT:
        return chat_emit(c, OP_NOT, 0, 0, e.pos);

    case E_AND:
    case E_OR:
        patch(c, e.start);
        return CHAT_OK;

    case E_ELSE:
        patch(c, e.link);
        return CHAT_OK;

    case E_TESTARG:
        rc = chat_emit(c, OP_TEST, 1, (int32_t) e.name, e.pos);
        return rc == CHAT_OK && e.op ? chat_emit(c, OP_NOT, 0, 0, e.pos) : rc;

    default:
        assert(e.kind == E_CMP);

        rc = chat_emit(c, OP_CMP, e.op, 0, e.pos);

        for (at = (int32_t) e.link; rc == CHAT_OK && at != -1; at = next) {
            next = c->t->code[at].arg;
            patch(c, (uint32_t) at);
        }

        return rc;
    }
}


/* "A if": A's code begins where the innermost open part does. */
int
chat_x_cond_begin(chat_comp_t *c)
{
    int       rc;
    uint32_t  start;

    if (chat_x_top(c)->kind == E_COND) {
        rc = chat_x_reduce_top(c);
        if (rc < 0) {
            return rc;
        }
    }

    start = chat_x_top(c)->start;

    rc = chat_x_push(c, E_COND, 0, P_COND);
    if (rc < 0) {
        return rc;
    }

    chat_x_top(c)->link = c->t->code_len;
    chat_x_top(c)->start = start;

    rc = chat_lex_next(c);
    return rc < 0 ? rc : X_OPERAND;
}


static void
reverse(chat_ins_t *code, uint32_t n)
{
    uint32_t    i;
    chat_ins_t  swap;

    for (i = 0; i < n / 2; i++) {
        swap = code[i];
        code[i] = code[n - 1 - i];
        code[n - 1 - i] = swap;
    }
}


/* A, C become C, "jump if false", A, "jump"; *jump is the latter, unpatched. */
int
chat_x_cond_else(chat_comp_t *c, int32_t *jump)
{
    int         rc;
    uint32_t    a, b;
    chat_ent_t  e;

    e = *chat_x_top(c);
    assert(e.kind == E_COND);
    c->ents_len--;

    a = e.link - e.start;

    rc = chat_emit(c, OP_JMP_FALSE, 0, (int32_t) a + 2, e.pos);
    if (rc < 0) {
        return rc;
    }

    b = c->t->code_len - e.link;
    c->moved += a + b;

    if (c->moved > MOVED_MAX) {
        return chat_comp_fail(c, CHAT_ELIMIT, e.pos,
                              "too many conditions in one another");
    }

    reverse(c->t->code + e.start, a);
    reverse(c->t->code + e.link, b);
    reverse(c->t->code + e.start, a + b);

    *jump = (int32_t) c->t->code_len;
    return chat_emit(c, OP_JMP, 0, 0, e.pos);
}


static int
call_end(chat_comp_t *c, const chat_ent_t *e)
{
    int        rc;
    unsigned   n;
    chat_op_t  op;

    op = e->kind == E_FILTER ? OP_FILTER : e->kind == E_TEST ? OP_TEST
         : e->op ? OP_CALL_METHOD : OP_CALL;
    n = e->count - (e->kw != 0 ? c->t->kwnames[e->kw].count : 0);

    rc = chat_emit(c, op, n, (int32_t) e->name, e->pos);
    if (rc < 0) {
        return rc;
    }

    c->t->code[c->t->code_len - 1].kw = e->kw;

    return e->kind == E_TEST && e->op ? chat_emit(c, OP_NOT, 0, 0, e->pos)
                                      : CHAT_OK;
}
