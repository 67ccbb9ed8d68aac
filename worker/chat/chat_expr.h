/*
 * What chat_expr.c (the two states) and chat_expr_ops.c (the operators) share.
 */

#ifndef CHAT_EXPR_H
#define CHAT_EXPR_H

#include "worker/chat/chat_comp.h"


/* Contexts first: they end where their closing token stands. */
enum {
    E_BASE = 0, E_PAREN, E_LIST, E_DICT, E_SUB, E_CALL, E_FILTER, E_TEST,
    E_BINARY, E_UNARY, E_NOT, E_AND, E_OR, E_CMP, E_COND, E_ELSE, E_TESTARG
};

enum {
    P_COND = 1, P_OR, P_AND, P_NOT, P_CMP, P_ADD, P_CONCAT, P_MUL, P_POW,
    P_UNARY, P_TESTARG
};

/* What a step of the parser tells the loop. */
enum { X_OPERAND = 1, X_OPERATOR = 2, X_DONE = 3 };

typedef struct {
    uint16_t  token;
    uint8_t   op;
    uint8_t   prec;
} binary_t;


static inline chat_ent_t *
chat_x_top(chat_comp_t *c)
{
    assert(c->ents_len > 0);

    return &c->ents[c->ents_len - 1];
}


int chat_x_push(chat_comp_t *c, unsigned kind, unsigned op, unsigned prec);
int chat_x_unexpected(chat_comp_t *c);
int chat_x_postfix(chat_comp_t *c);
int chat_x_filter(chat_comp_t *c, bool *filtered);
int chat_x_test(chat_comp_t *c, bool *filtered);
int chat_x_compare(chat_comp_t *c, unsigned cmp);
int chat_x_binary(chat_comp_t *c, const binary_t *b);
int chat_x_comma(chat_comp_t *c, unsigned flags);
int chat_x_colon(chat_comp_t *c);
int chat_x_close_context(chat_comp_t *c, bool *filtered);
int chat_x_finish(chat_comp_t *c, unsigned flags);
int chat_x_reduce(chat_comp_t *c, unsigned prec);
int chat_x_reduce_top(chat_comp_t *c);
int chat_x_cond_begin(chat_comp_t *c);
int chat_x_cond_else(chat_comp_t *c, int32_t *jump);


#endif /* CHAT_EXPR_H */
