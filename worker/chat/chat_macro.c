/*
 * Statements that open a scope: macros, call blocks, filter blocks, with; and
 * the two that leave a loop.
 */

#include <string.h>

#include "worker/chat/chat_comp.h"


static int macro_new(chat_comp_t *c, uint32_t *id);
static int params(chat_comp_t *c, uint32_t id);
static int body_begin(chat_comp_t *c, chat_block_t *b);
static int body_end(chat_comp_t *c, chat_block_t *b);


/*
 * A macro lies in line: its value is made, stored, and the body is jumped over.
 * The defaults of parameters are code at the head of the body.
 */
int
chat_stmt_macro(chat_comp_t *c)
{
    int            rc;
    uint32_t       name;
    chat_block_t  *b;

    rc = chat_block_open(c, B_MACRO, &b);
    if (rc == CHAT_OK) {
        rc = macro_new(c, &b->macro);
    }

    if (rc == CHAT_OK) {
        rc = chat_expect_name(c, &name);
    }

    if (rc == CHAT_OK) {
        c->t->macros[b->macro].name = (uint16_t) name;
        rc = chat_emit(c, OP_MACRO, 0, (int32_t) b->macro, b->pos);
    }

    if (rc == CHAT_OK) {
        rc = chat_emit(c, OP_STORE, 0, (int32_t) name, b->pos);
    }

    if (rc == CHAT_OK) {
        rc = body_begin(c, b);
    }

    return rc == CHAT_OK ? params(c, b->macro) : rc;
}


static int
macro_new(chat_comp_t *c, uint32_t *id)
{
    int  rc;

    rc = chat_grow(c, (void **) &c->t->macros, c->t->macros_len,
                   &c->t->macros_cap, sizeof(chat_macro_t));
    if (rc != CHAT_OK) {
        return rc;
    }

    memset(&c->t->macros[c->t->macros_len], 0, sizeof(chat_macro_t));
    *id = c->t->macros_len++;
    return CHAT_OK;
}


static int
body_begin(chat_comp_t *c, chat_block_t *b)
{
    int  rc;

    b->jump = c->t->code_len;

    rc = chat_emit(c, OP_JMP, 0, 0, b->pos);
    c->t->macros[b->macro].entry = c->t->code_len;
    return rc;
}


static int
body_end(chat_comp_t *c, chat_block_t *b)
{
    int  rc;

    rc = chat_emit(c, OP_RETURN, 0, 0, c->tok.pos);
    if (rc == CHAT_OK) {
        chat_patch(c, b->jump);
        c->blocks_len--;
    }

    return rc;
}


/* "(a, b=1)" and the code of the defaults. */
static int
params(chat_comp_t *c, uint32_t id)
{
    int            rc;
    uint32_t       name, jump, n;

    rc = chat_expect_op(c, '(');

    for (n = 0; rc == CHAT_OK && !chat_tok_is(c, ')'); n++) {
        if (n == CHAT_ARGS_MAX - 1) {
            return chat_comp_fail(c, CHAT_ELIMIT, c->tok.pos,
                                  "a macro with more than %d parameters",
                                  CHAT_ARGS_MAX - 1);
        }

        rc = chat_expect_name(c, &name);
        if (rc != CHAT_OK) {
            return rc;
        }

        c->t->macros[id].names[n] = (uint16_t) name;
        c->t->macros[id].params++;

        if (chat_tok_is(c, '=')) {
            c->t->macros[id].has_default |= 1u << n;
            jump = c->t->code_len;

            rc = chat_emit(c, OP_DEFAULT, 0, 0, c->tok.pos);
            if (rc == CHAT_OK) {
                c->t->code[jump].kw = (uint16_t) name;
                rc = chat_lex_next(c);
            }

            if (rc == CHAT_OK) {
                rc = chat_expr(c, 0);
            }

            if (rc == CHAT_OK) {
                rc = chat_emit(c, OP_STORE, 0, (int32_t) name, c->tok.pos);
            }

            if (rc == CHAT_OK) {
                chat_patch(c, jump);
            }
        }

        if (rc == CHAT_OK && !chat_tok_is(c, ')')) {
            rc = chat_expect_op(c, ',');
        }
    }

    return rc == CHAT_OK ? chat_expect_op(c, ')') : rc;
}


int
chat_stmt_endmacro(chat_comp_t *c)
{
    int            rc;
    chat_block_t  *b;

    rc = chat_block_top(c, B_MACRO, "endmacro", &b);
    if (rc != CHAT_OK) {
        return rc;
    }

    if (c->tok.type == TK_NAME) {
        rc = chat_lex_next(c);          /* {% endmacro name %} */
    }

    return rc == CHAT_OK ? body_end(c, b) : rc;
}


/* Whether a jump in the code from start on could lead to its end. */
static bool
jumps(const chat_comp_t *c, uint32_t start)
{
    uint32_t  i, op;

    for (i = start; i < c->t->code_len; i++) {
        op = c->t->code[i].op;

        if (op == OP_AND || op == OP_OR || op == OP_JMP || op == OP_JMP_FALSE
            || op == OP_CMP_CHAIN)
        {
            return true;
        }
    }

    return false;
}


/*
 * {% call f(y) %} body {% endcall %}: the body is a macro without a name that
 * f gets as its keyword `caller`.  Its code follows the call.
 */
int
chat_stmt_call(chat_comp_t *c)
{
    int            rc;
    uint16_t       kw;
    uint32_t       start;
    chat_ins_t     ins;
    chat_block_t  *b;

    start = c->t->code_len;

    if (chat_tok_is(c, '(')) {
        return chat_comp_fail(c, CHAT_EUNSUPPORTED, c->tok.pos,
                              "a call block with parameters is not supported");
    }

    rc = chat_block_open(c, B_CALL, &b);
    if (rc == CHAT_OK) {
        rc = macro_new(c, &b->macro);
    }

    if (rc == CHAT_OK) {
        c->t->macros[b->macro].is_caller = true;
        rc = chat_name(c, "caller", 6, &b->name);
    }

    if (rc == CHAT_OK) {
        rc = chat_expr(c, 0);
    }

    if (rc == CHAT_OK) {
        rc = chat_kwnames(c, &kw);
    }

    if (rc != CHAT_OK) {
        return rc;
    }

    ins = c->t->code[c->t->code_len - 1];

    if (c->t->code_len == start || jumps(c, start)
        || (ins.op != OP_CALL && ins.op != OP_CALL_METHOD))
    {
        return chat_comp_fail(c, CHAT_ESYNTAX, b->pos,
                              "a call block needs a plain call");
    }

    c->t->kwnames[kw] = c->t->kwnames[ins.kw];
    c->t->kwnames[kw].names[c->t->kwnames[kw].count++] = (uint16_t) b->name;
    ins.kw = kw;

    c->t->code_len--;
    rc = chat_emit(c, OP_MACRO, 0, (int32_t) b->macro, b->pos);

    if (rc == CHAT_OK) {
        rc = chat_emit(c, ins.op, ins.n, ins.arg, ins.pos);
    }

    if (rc == CHAT_OK) {
        c->t->code[c->t->code_len - 1].kw = kw;
        rc = chat_emit(c, OP_OUT, 0, 0, b->pos);
    }

    return rc == CHAT_OK ? body_begin(c, b) : rc;
}


int
chat_stmt_endcall(chat_comp_t *c)
{
    int            rc;
    chat_block_t  *b;

    rc = chat_block_top(c, B_CALL, "endcall", &b);

    return rc == CHAT_OK ? body_end(c, b) : rc;
}


int
chat_stmt_filter(chat_comp_t *c)
{
    int            rc;
    chat_block_t  *b;

    rc = chat_block_open(c, B_FILTER, &b);
    if (rc == CHAT_OK) {
        rc = chat_filters_note(c, b, c->tok.pos);
    }

    return rc == CHAT_OK ? chat_emit(c, OP_CAPTURE, 0, 0, b->pos) : rc;
}


int
chat_stmt_endfilter(chat_comp_t *c)
{
    int            rc;
    chat_block_t  *b;

    rc = chat_block_top(c, B_FILTER, "endfilter", &b);
    if (rc == CHAT_OK) {
        rc = chat_emit(c, OP_CAPTURE_END, 0, 0, c->tok.pos);
    }

    if (rc == CHAT_OK) {
        rc = chat_filters_apply(c, b);
    }

    if (rc == CHAT_OK) {
        rc = chat_emit(c, OP_OUT, 0, 0, b->pos);
    }

    c->blocks_len -= (rc == CHAT_OK);
    return rc;
}


/* All values are computed outside, then bound inside. */
int
chat_stmt_with(chat_comp_t *c)
{
    int            rc;
    uint32_t       id;
    chat_block_t  *b;

    rc = chat_block_open(c, B_SCOPE, &b);

    while (rc == CHAT_OK && c->tok.type != TK_BLOCK_END) {
        if (b->targets == CHAT_ARGS_MAX) {
            return chat_comp_fail(c, CHAT_ELIMIT, c->tok.pos,
                                  "\"with\" of more than %d names",
                                  CHAT_ARGS_MAX);
        }

        rc = chat_expect_name(c, &id);
        if (rc == CHAT_OK) {
            b->target[b->targets++] = (uint16_t) id;
            rc = chat_expect_op(c, '=');
        }

        if (rc == CHAT_OK) {
            rc = chat_expr(c, 0);
        }

        if (rc == CHAT_OK && c->tok.type != TK_BLOCK_END) {
            rc = chat_expect_op(c, ',');
        }
    }

    if (rc == CHAT_OK) {
        rc = chat_emit(c, OP_SCOPE, 0, 0, b->pos);
    }

    while (rc == CHAT_OK && b->targets > 0) {
        rc = chat_emit(c, OP_STORE, 0, b->target[--b->targets], b->pos);
    }

    return rc;
}


/* Also the end of a generation block. */
int
chat_stmt_endwith(chat_comp_t *c)
{
    int            rc;
    chat_block_t  *b;

    rc = chat_block_top(c, B_SCOPE, "endwith or endgeneration", &b);
    if (rc == CHAT_OK) {
        rc = chat_emit(c, OP_SCOPE_END, 0, 0, c->tok.pos);
    }

    c->blocks_len -= (rc == CHAT_OK);
    return rc;
}


/* Marks what the model wrote, for training; here it is a scope only. */
int
chat_stmt_generation(chat_comp_t *c)
{
    int            rc;
    chat_block_t  *b;

    rc = chat_block_open(c, B_SCOPE, &b);
    return rc == CHAT_OK ? chat_emit(c, OP_SCOPE, 0, 0, b->pos) : rc;
}


/* Closes the scopes between here and the loop. */
static int
loop_find(chat_comp_t *c, chat_block_t **loop)
{
    int            rc;
    uint32_t       i;
    chat_block_t  *b;

    for (i = c->blocks_len; i > 0; i--) {
        b = &c->blocks[i - 1];

        if (b->kind == B_FOR && !b->has_else) {
            *loop = b;
            return CHAT_OK;
        }

        if (b->kind == B_SCOPE) {
            rc = chat_emit(c, OP_SCOPE_END, 0, 0, c->tok.pos);
            if (rc != CHAT_OK) {
                return rc;
            }

        } else if (b->kind != B_IF && b->kind != B_FOR) {
            return chat_comp_fail(c, CHAT_EUNSUPPORTED, c->tok.pos,
                                  "leaving a loop out of a block inside it");
        }
    }

    return chat_comp_fail(c, CHAT_ESYNTAX, c->tok.pos, "no loop to leave here");
}


int
chat_stmt_break(chat_comp_t *c)
{
    int            rc;
    chat_block_t  *loop;

    rc = loop_find(c, &loop);
    return rc == CHAT_OK ? chat_jump_chain(c, &loop->chain) : rc;
}


int
chat_stmt_continue(chat_comp_t *c)
{
    int            rc;
    chat_block_t  *loop;

    rc = loop_find(c, &loop);
    if (rc != CHAT_OK) {
        return rc;
    }

    return chat_emit(c, OP_JMP, 0,
                     (int32_t) loop->start - (int32_t) c->t->code_len,
                     c->tok.pos);
}
