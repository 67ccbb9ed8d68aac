/*
 * Statements ({% ... %}) to code.  Open blocks wait on c->blocks; nothing here
 * recurses.
 */

#include <string.h>

#include "worker/chat/chat_comp.h"


typedef struct {
    const char  *name;
    int        (*run)(chat_comp_t *c);
} statement_t;

static int stmt_for(chat_comp_t *c);
static int stmt_endfor(chat_comp_t *c);
static int stmt_if(chat_comp_t *c);
static int stmt_elif(chat_comp_t *c);
static int stmt_else(chat_comp_t *c);
static int stmt_endif(chat_comp_t *c);
static int stmt_set(chat_comp_t *c);
static int stmt_endset(chat_comp_t *c);

static const statement_t  statements[] = {
    { "if", stmt_if },               { "elif", stmt_elif },
    { "else", stmt_else },           { "endif", stmt_endif },
    { "for", stmt_for },             { "endfor", stmt_endfor },
    { "set", stmt_set },             { "endset", stmt_endset },
    { "macro", chat_stmt_macro },         { "endmacro", chat_stmt_endmacro },
    { "call", chat_stmt_call },           { "endcall", chat_stmt_endcall },
    { "filter", chat_stmt_filter },       { "endfilter", chat_stmt_endfilter },
    { "with", chat_stmt_with },           { "endwith", chat_stmt_endwith },
    { "generation", chat_stmt_generation },
    { "endgeneration", chat_stmt_endwith },
    { "break", chat_stmt_break },         { "continue", chat_stmt_continue }
};


int
chat_statement(chat_comp_t *c)
{
    int       rc;
    unsigned  i;

    if (c->tok.type != TK_NAME) {
        return chat_comp_fail(c, CHAT_ESYNTAX, c->tok.pos,
                              "expected a statement's name after \"{%%\"");
    }

    for (i = 0; i < sizeof(statements) / sizeof(statements[0]); i++) {
        if (!chat_tok_name(c, statements[i].name)) {
            continue;
        }

        rc = chat_lex_next(c);
        if (rc == CHAT_OK) {
            rc = statements[i].run(c);
        }

        if (rc == CHAT_OK && c->tok.type != TK_BLOCK_END) {
            rc = chat_comp_fail(c, CHAT_ESYNTAX, c->tok.pos, "expected \"%%}\" "
                                "to end the \"%s\"", statements[i].name);
        }

        return rc;
    }

    return chat_comp_fail(c, CHAT_EUNSUPPORTED, c->tok.pos,
                          "the statement \"%.*s\" is not supported",
                          c->tok.len > 40 ? 40 : (int) c->tok.len, c->tok.s);
}


int
chat_blocks_closed(chat_comp_t *c)
{
    if (c->blocks_len == 0) {
        return CHAT_OK;
    }

    return chat_comp_fail(c, CHAT_ESYNTAX, c->blocks[c->blocks_len - 1].pos,
                          "the block that begins here has no end");
}


int
chat_block_open(chat_comp_t *c, unsigned kind, chat_block_t **b)
{
    *b = NULL;

    if (c->blocks_len == CHAT_BLOCK_DEPTH) {
        return chat_comp_fail(c, CHAT_ELIMIT, c->tok.pos,
                              "more than %d blocks in one another",
                              CHAT_BLOCK_DEPTH);
    }

    *b = &c->blocks[c->blocks_len++];
    memset(*b, 0, sizeof(**b));
    (*b)->kind = (uint8_t) kind;
    (*b)->pos = c->tok.pos;
    (*b)->chain = CHAT_NO_LINK;
    (*b)->jump = CHAT_NO_LINK;

    return CHAT_OK;
}


/* The innermost block, if it is of this kind. */
int
chat_block_top(chat_comp_t *c, unsigned kind, const char *name,
    chat_block_t **b)
{
    *b = NULL;

    if (c->blocks_len == 0 || c->blocks[c->blocks_len - 1].kind != kind) {
        return chat_comp_fail(c, CHAT_ESYNTAX, c->tok.pos,
                              "\"%s\" does not belong to the open block", name);
    }

    *b = &c->blocks[c->blocks_len - 1];
    return CHAT_OK;
}


void
chat_patch(chat_comp_t *c, uint32_t at)
{
    assert(at < c->t->code_len);

    c->t->code[at].arg = (int32_t) (c->t->code_len - at);
}


/* Emits a jump to be patched; *chain lists the jumps with the same target. */
int
chat_jump_chain(chat_comp_t *c, uint32_t *chain)
{
    int  rc;

    rc = chat_emit(c, OP_JMP, 0, (int32_t) *chain, c->tok.pos);
    if (rc == CHAT_OK) {
        *chain = c->t->code_len - 1;
    }

    return rc;
}


static void
patch_chain(chat_comp_t *c, uint32_t chain)
{
    uint32_t  next;

    while (chain != CHAT_NO_LINK) {
        next = (uint32_t) c->t->code[chain].arg;
        chat_patch(c, chain);
        chain = next;
    }
}


/* A jump back to an instruction that is there already. */
static int
jump_back(chat_comp_t *c, chat_op_t op, uint32_t to)
{
    return chat_emit(c, op, 0, (int32_t) to - (int32_t) c->t->code_len,
                     c->tok.pos);
}


int
chat_expect_name(chat_comp_t *c, uint32_t *id)
{
    int  rc;

    if (c->tok.type != TK_NAME) {
        return chat_comp_fail(c, CHAT_ESYNTAX, c->tok.pos,
                              "expected a name here");
    }

    rc = chat_name(c, c->tok.s, c->tok.len, id);
    return rc != CHAT_OK ? rc : chat_lex_next(c);
}


int
chat_expect_op(chat_comp_t *c, char op)
{
    if (!chat_tok_is(c, (uint16_t) (unsigned char) op)) {
        return chat_comp_fail(c, CHAT_ESYNTAX, c->tok.pos,
                              "expected \"%c\" here", op);
    }

    return chat_lex_next(c);
}


/* "a" or "a, b" or "(a, b)", kept in the block until their values are there. */
static int
targets(chat_comp_t *c, chat_block_t *b)
{
    int       rc;
    bool      parens;
    uint32_t  id;

    parens = chat_tok_is(c, '(');
    rc = parens ? chat_lex_next(c) : CHAT_OK;

    while (rc == CHAT_OK) {
        if (b->targets == CHAT_ARGS_MAX || chat_tok_is(c, '(')) {
            return chat_comp_fail(c, CHAT_EUNSUPPORTED, c->tok.pos,
                                  "targets in one another are not supported");
        }

        rc = chat_expect_name(c, &id);
        if (rc != CHAT_OK) {
            return rc;
        }

        b->target[b->targets++] = (uint16_t) id;

        if (!chat_tok_is(c, ',')) {
            break;
        }

        b->tuple = true;                /* even of one */
        rc = chat_lex_next(c);

        if (chat_tok_is(c, '=') || chat_tok_is(c, ')')
            || chat_tok_name(c, "in"))
        {
            break;
        }
    }

    return rc == CHAT_OK && parens ? chat_expect_op(c, ')') : rc;
}


static int
targets_store(chat_comp_t *c, const chat_block_t *b)
{
    int       rc;
    uint32_t  i;

    rc = CHAT_OK;

    if (b->tuple) {
        rc = chat_emit(c, OP_UNPACK, 0, (int32_t) b->targets, b->pos);
    }

    for (i = 0; rc == CHAT_OK && i < b->targets; i++) {
        rc = chat_emit(c, OP_STORE, 0, b->target[i], b->pos);
    }

    return rc;
}


/* "if" of a loop's head: picks the items before the loop counts them. */
static int
for_filter(chat_comp_t *c, const chat_block_t *b)
{
    int       rc;
    uint32_t  again;

    rc = chat_lex_next(c);
    if (rc == CHAT_OK) {
        rc = chat_emit(c, OP_PICK, 0, 0, b->pos);
    }

    again = c->t->code_len;

    if (rc == CHAT_OK) {
        rc = chat_emit(c, OP_PICK_NEXT, 0, 0, b->pos);
    }

    if (rc == CHAT_OK) {
        rc = targets_store(c, b);
    }

    if (rc == CHAT_OK) {
        rc = chat_expr(c, 0);
    }

    if (rc == CHAT_OK) {
        rc = jump_back(c, OP_PICK_ADD, again);
    }

    if (rc == CHAT_OK) {
        chat_patch(c, again);
    }

    return rc;
}


static int
stmt_for(chat_comp_t *c)
{
    int            rc;
    chat_block_t  *b;

    rc = chat_block_open(c, B_FOR, &b);
    if (rc == CHAT_OK) {
        rc = targets(c, b);
    }

    if (rc == CHAT_OK && !chat_tok_name(c, "in")) {
        rc = chat_comp_fail(c, CHAT_ESYNTAX, c->tok.pos, "expected \"in\"");
    }

    if (rc == CHAT_OK) {
        rc = chat_lex_next(c);
    }

    if (rc == CHAT_OK) {
        rc = chat_expr(c, CHAT_X_TUPLE | CHAT_X_NO_COND);
    }

    if (rc == CHAT_OK && chat_tok_name(c, "if")) {
        rc = for_filter(c, b);
    }

    if (rc == CHAT_OK && chat_tok_name(c, "recursive")) {
        rc = chat_comp_fail(c, CHAT_EUNSUPPORTED, c->tok.pos,
                            "recursive loops are not supported");
    }

    if (rc == CHAT_OK) {
        rc = chat_emit(c, OP_FOR, 0, 0, b->pos);
    }

    b->start = c->t->code_len;

    if (rc == CHAT_OK) {
        rc = chat_emit(c, OP_FOR_NEXT, 0, 0, b->pos);
    }

    if (rc == CHAT_OK) {
        rc = targets_store(c, b);
    }

    return rc;
}


/* The loop's end: where FOR_NEXT and "break" go. */
static int
for_close(chat_comp_t *c, chat_block_t *b)
{
    int  rc;

    rc = jump_back(c, OP_JMP, b->start);
    if (rc != CHAT_OK) {
        return rc;
    }

    chat_patch(c, b->start);
    patch_chain(c, b->chain);
    b->chain = CHAT_NO_LINK;
    b->jump = c->t->code_len;

    return chat_emit(c, OP_FOR_END, 0, 1, c->tok.pos);
}


static int
stmt_endfor(chat_comp_t *c)
{
    int            rc;
    chat_block_t  *b;

    rc = chat_block_top(c, B_FOR, "endfor", &b);
    if (rc != CHAT_OK) {
        return rc;
    }

    if (!b->has_else) {
        rc = for_close(c, b);
    }

    if (rc == CHAT_OK) {
        chat_patch(c, b->jump);      /* after a loop that ran, past the else */
        c->blocks_len--;
    }

    return rc;
}


static int
stmt_if(chat_comp_t *c)
{
    int            rc;
    chat_block_t  *b;

    rc = chat_block_open(c, B_IF, &b);
    if (rc == CHAT_OK) {
        rc = chat_expr(c, CHAT_X_TUPLE);
    }

    if (rc == CHAT_OK) {
        b->jump = c->t->code_len;
        rc = chat_emit(c, OP_JMP_FALSE, 0, 0, b->pos);
    }

    return rc;
}


/* The end of one branch: a jump to the end, and the start of the next. */
static int
branch_end(chat_comp_t *c, chat_block_t *b)
{
    int  rc;

    if (b->has_else) {
        return chat_comp_fail(c, CHAT_ESYNTAX, c->tok.pos,
                              "a branch after \"else\"");
    }

    rc = chat_jump_chain(c, &b->chain);
    if (rc == CHAT_OK) {
        chat_patch(c, b->jump);
        b->jump = CHAT_NO_LINK;
    }

    return rc;
}


static int
stmt_elif(chat_comp_t *c)
{
    int            rc;
    chat_block_t  *b;

    rc = chat_block_top(c, B_IF, "elif", &b);
    if (rc == CHAT_OK) {
        rc = branch_end(c, b);
    }

    if (rc == CHAT_OK) {
        rc = chat_expr(c, CHAT_X_TUPLE);
    }

    if (rc == CHAT_OK) {
        b->jump = c->t->code_len;
        rc = chat_emit(c, OP_JMP_FALSE, 0, 0, c->tok.pos);
    }

    return rc;
}


static int
stmt_else(chat_comp_t *c)
{
    int            rc;
    chat_block_t  *b;

    if (c->blocks_len > 0 && c->blocks[c->blocks_len - 1].kind == B_FOR) {
        b = &c->blocks[c->blocks_len - 1];

        if (b->has_else) {
            return chat_comp_fail(c, CHAT_ESYNTAX, c->tok.pos,
                                  "a second \"else\"");
        }

        rc = for_close(c, b);

    } else {
        rc = chat_block_top(c, B_IF, "else", &b);
        if (rc == CHAT_OK) {
            rc = branch_end(c, b);
        }
    }

    if (rc == CHAT_OK) {
        b->has_else = true;
    }

    return rc;
}


static int
stmt_endif(chat_comp_t *c)
{
    int            rc;
    chat_block_t  *b;

    rc = chat_block_top(c, B_IF, "endif", &b);
    if (rc != CHAT_OK) {
        return rc;
    }

    if (b->jump != CHAT_NO_LINK) {
        chat_patch(c, b->jump);
    }

    patch_chain(c, b->chain);
    c->blocks_len--;
    return CHAT_OK;
}


/* Filters written at the head of a block apply to its end: note their place. */
int
chat_filters_note(chat_comp_t *c, chat_block_t *b, uint32_t pos)
{
    int  rc;

    b->filters = pos;

    for (rc = CHAT_OK; rc == CHAT_OK && c->tok.type != TK_BLOCK_END; ) {
        if (c->tok.type == TK_EOF || c->tok.type == TK_VAR_END) {
            return chat_comp_fail(c, CHAT_ESYNTAX, c->tok.pos,
                                  "expected \"%%}\" here");
        }

        rc = chat_lex_next(c);
    }

    return rc;
}


/* Compiles the filters noted, then goes back to where the source is read. */
int
chat_filters_apply(chat_comp_t *c, const chat_block_t *b)
{
    int         rc;
    bool        line_start;
    uint32_t    pos;
    chat_tok_t  tok;

    if (b->filters == 0) {
        return CHAT_OK;
    }

    tok = c->tok;
    pos = c->pos;
    line_start = c->line_start;

    c->pos = b->filters;
    c->tok.type = TK_OP;
    c->tok.op = '|';

    rc = chat_expr(c, CHAT_X_FILTERS);

    if (rc == CHAT_OK && c->tok.type != TK_BLOCK_END) {
        rc = chat_comp_fail(c, CHAT_ESYNTAX, c->tok.pos,
                            "expected filters here");
    }

    c->tok = tok;
    c->pos = pos;
    c->line_start = line_start;
    return rc;
}


static int
stmt_set(chat_comp_t *c)
{
    int            rc;
    uint32_t       attr;
    chat_block_t  *b;

    attr = 0;

    rc = chat_block_open(c, B_SET, &b);
    if (rc == CHAT_OK) {
        rc = targets(c, b);
    }

    if (rc == CHAT_OK && chat_tok_is(c, '.')) {
        rc = chat_lex_next(c);
        if (rc == CHAT_OK) {
            rc = chat_expect_name(c, &attr);
        }

        b->name = attr + 1;
    }

    if (rc != CHAT_OK) {
        return rc;
    }

    if (!chat_tok_is(c, '=')) {
        if (b->name != 0 || b->targets != 1 || b->tuple) {
            return chat_comp_fail(c, CHAT_EUNSUPPORTED, c->tok.pos,
                                  "this form of \"set\" is not supported");
        }

        rc = chat_tok_is(c, '|') ? chat_filters_note(c, b, c->tok.pos + 1)
                                 : CHAT_OK;
        return rc != CHAT_OK ? rc : chat_emit(c, OP_CAPTURE, 0, 0, b->pos);
    }

    rc = chat_lex_next(c);
    if (rc == CHAT_OK) {
        rc = chat_expr(c, CHAT_X_TUPLE);
    }

    if (rc == CHAT_OK && b->name != 0) {
        rc = chat_emit(c, OP_LOAD, 0, b->target[0], b->pos);
        if (rc == CHAT_OK) {
            rc = chat_emit(c, OP_STORE_ATTR, 0, (int32_t) attr, b->pos);
        }

    } else if (rc == CHAT_OK) {
        rc = targets_store(c, b);
    }

    c->blocks_len--;
    return rc;
}


static int
stmt_endset(chat_comp_t *c)
{
    int            rc;
    chat_block_t  *b;

    rc = chat_block_top(c, B_SET, "endset", &b);
    if (rc == CHAT_OK) {
        rc = chat_emit(c, OP_CAPTURE_END, 0, 0, c->tok.pos);
    }

    if (rc == CHAT_OK) {
        rc = chat_filters_apply(c, b);
    }

    if (rc == CHAT_OK) {
        rc = chat_emit(c, OP_STORE, 0, b->target[0], b->pos);
    }

    c->blocks_len -= (rc == CHAT_OK);
    return rc;
}
