/*
 * The compiler's own types: tokens and the state of a compilation.  Used by
 * chat_lex.c, chat_expr.c, chat_compile.c.
 */

#ifndef CHAT_COMP_H
#define CHAT_COMP_H

#include "worker/chat/chat_int.h"


typedef enum {
    TK_EOF = 0, TK_VAR_END, TK_BLOCK_END, TK_NAME, TK_STR, TK_INT, TK_FLOAT,
    TK_OP
} chat_tk_t;

/* Two-character operators as one number. */
#define CHAT_OP2(a, b)  ((uint16_t) ((a) << 8 | (b)))

typedef struct {
    uint8_t      type;
    uint16_t     op;       /* TK_OP */
    uint32_t     pos;
    const char  *s;        /* TK_NAME: in the source; TK_STR: in the pool */
    uint32_t     len;
    int64_t      i;
    double       f;
} chat_tok_t;

/*
 * An open construct of an expression; what the fields mean is in chat_expr.c.
 */
typedef struct {
    uint8_t   kind;
    uint8_t   op;
    uint8_t   prec;
    bool      flag;
    bool      comma;
    uint16_t  kw;
    uint32_t  count;
    uint32_t  start;
    uint32_t  link;
    uint32_t  name;
    uint32_t  pos;
} chat_ent_t;

enum { B_IF = 0, B_FOR, B_SET, B_MACRO, B_CALL, B_FILTER, B_SCOPE };

/* An open block; what the fields mean is in chat_compile.c. */
typedef struct {
    uint8_t     kind;
    bool        has_else;
    bool        tuple;
    uint32_t    pos;
    uint32_t    start;
    uint32_t    jump;
    uint32_t    chain;
    uint32_t    name;
    uint32_t    filters;
    uint32_t    targets;
    uint16_t    target[CHAT_ARGS_MAX];
    uint32_t    macro;
} chat_block_t;

typedef struct {
    chat_template_t  *t;
    chat_err_t       *err;
    uint32_t          pos;
    uint32_t          brackets;
    bool              line_start;
    uint64_t          moved;          /* instructions moved by ternaries */
    uint32_t          last_attr;      /* code length after a ".name"     */
    chat_tok_t        tok;
    uint32_t          ents_len;
    uint32_t          blocks_len;
    chat_ent_t        ents[CHAT_EXPR_DEPTH];
    chat_block_t      blocks[CHAT_BLOCK_DEPTH];
} chat_comp_t;

#define CHAT_NO_LINK  UINT32_MAX

/* What may follow or stand at the top of an expression. */
#define CHAT_X_TUPLE    1     /* "a, b" is a tuple           */
#define CHAT_X_NO_COND  2     /* "if" ends the expression    */
#define CHAT_X_FILTERS  4     /* only filters, on the stack's top value */


/* chat_lex.c */
typedef enum { CL_EOF = 0, CL_VAR, CL_BLOCK } chat_seg_t;

int chat_lex_text(chat_comp_t *c, chat_seg_t *seg);
int chat_lex_next(chat_comp_t *c);
bool chat_tok_is(const chat_comp_t *c, uint16_t op);
bool chat_tok_name(const chat_comp_t *c, const char *name);

/* chat_expr.c */
int chat_expr(chat_comp_t *c, unsigned flags);

/* chat_compile.c */
__attribute__((format(printf, 4, 5)))
int chat_comp_fail(chat_comp_t *c, int code, uint32_t pos,
    const char *fmt, ...);
int chat_emit(chat_comp_t *c, chat_op_t op, unsigned n, int32_t arg,
    uint32_t pos);
int chat_emit_const(chat_comp_t *c, const chat_val_t *v, uint32_t pos);
int chat_name(chat_comp_t *c, const char *s, size_t len, uint32_t *id);
int chat_kwnames(chat_comp_t *c, uint16_t *kw);
int chat_grow(chat_comp_t *c, void **array, uint32_t len, uint32_t *cap,
    size_t size);
void chat_locate(const chat_template_t *t, uint32_t pos, chat_err_t *err);

/* chat_stmt.c */
int chat_statement(chat_comp_t *c);
int chat_blocks_closed(chat_comp_t *c);
int chat_block_open(chat_comp_t *c, unsigned kind, chat_block_t **b);
int chat_block_top(chat_comp_t *c, unsigned kind, const char *name,
    chat_block_t **b);
void chat_patch(chat_comp_t *c, uint32_t at);
int chat_expect_name(chat_comp_t *c, uint32_t *id);
int chat_expect_op(chat_comp_t *c, char op);
int chat_filters_note(chat_comp_t *c, chat_block_t *b, uint32_t pos);
int chat_filters_apply(chat_comp_t *c, const chat_block_t *b);
int chat_jump_chain(chat_comp_t *c, uint32_t *chain);

/* chat_macro.c */
int chat_stmt_macro(chat_comp_t *c);
int chat_stmt_endmacro(chat_comp_t *c);
int chat_stmt_call(chat_comp_t *c);
int chat_stmt_endcall(chat_comp_t *c);
int chat_stmt_filter(chat_comp_t *c);
int chat_stmt_endfilter(chat_comp_t *c);
int chat_stmt_with(chat_comp_t *c);
int chat_stmt_endwith(chat_comp_t *c);
int chat_stmt_generation(chat_comp_t *c);
int chat_stmt_break(chat_comp_t *c);
int chat_stmt_continue(chat_comp_t *c);


#endif /* CHAT_COMP_H */
