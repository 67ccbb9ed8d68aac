/*
 * Tests (value is name): the table and the tests.
 */

#include <math.h>
#include <string.h>

#include "worker/chat/chat_int.h"


enum {
    T_BOOLEAN = 0, T_CALLABLE, T_DEFINED, T_DIVISIBLEBY, T_EQ, T_EVEN, T_FALSE,
    T_FLOAT, T_GE, T_GT, T_IN, T_INTEGER, T_ITERABLE, T_LE, T_LOWER, T_LT,
    T_MAPPING, T_NE, T_NONE, T_NUMBER, T_ODD, T_SAMEAS, T_SEQUENCE, T_STRING,
    T_TRUE, T_UNDEFINED, T_UPPER
};

static const struct {
    const char  *name;
    uint8_t      id;
} tests[] = {
    { "boolean", T_BOOLEAN },         { "callable", T_CALLABLE },
    { "defined", T_DEFINED },         { "divisibleby", T_DIVISIBLEBY },
    { "eq", T_EQ },                   { "equalto", T_EQ },
    { "even", T_EVEN },               { "false", T_FALSE },
    { "float", T_FLOAT },             { "ge", T_GE },
    { "greaterthan", T_GT },          { "gt", T_GT },
    { "in", T_IN },                   { "integer", T_INTEGER },
    { "iterable", T_ITERABLE },       { "le", T_LE },
    { "lessthan", T_LT },             { "lower", T_LOWER },
    { "lt", T_LT },                   { "mapping", T_MAPPING },
    { "ne", T_NE },                   { "none", T_NONE },
    { "number", T_NUMBER },           { "odd", T_ODD },
    { "sameas", T_SAMEAS },           { "sequence", T_SEQUENCE },
    { "string", T_STRING },           { "true", T_TRUE },
    { "undefined", T_UNDEFINED },     { "upper", T_UPPER }
};


int
chat_test_find(const char *s, size_t len)
{
    unsigned  i;

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        if (strlen(tests[i].name) == len && memcmp(tests[i].name, s, len) == 0)
        {
            return tests[i].id;
        }
    }

    return -1;
}


bool
chat_test_is_shape(uint32_t id)
{
    return id == T_STRING || id == T_ITERABLE || id == T_SEQUENCE
           || id == T_MAPPING;
}


bool
chat_test_is_none(uint32_t id)
{
    return id == T_NONE;
}


/* Tests of one value that cannot fail. */
static bool
plain(const chat_val_t *v, uint32_t id)
{
    bool  sequence, container;

    container = v->type == CV_LIST || v->type == CV_TUPLE || v->type == CV_DICT;
    sequence = container || v->type == CV_STR || v->type == CV_UNDEF;

    switch (id) {
    case T_BOOLEAN:
        return v->type == CV_BOOL;

    case T_CALLABLE:
        return v->type == CV_MACRO || v->type == CV_FUNC
               || v->type == CV_METHOD;

    case T_DEFINED:
        return v->type != CV_UNDEF;

    case T_UNDEFINED:
        return v->type == CV_UNDEF;

    case T_FALSE:
        return v->type == CV_BOOL && v->u.i == 0;

    case T_TRUE:
        return v->type == CV_BOOL && v->u.i != 0;

    case T_FLOAT:
        return v->type == CV_FLOAT;

    case T_INTEGER:
        return v->type == CV_INT || v->type == CV_BIGINT;

    case T_NUMBER:
        return chat_is_num(v) || v->type == CV_BIGINT;

    case T_ITERABLE:
    case T_SEQUENCE:
        return sequence;

    case T_MAPPING:
        return v->type == CV_DICT;

    case T_NONE:
        return v->type == CV_NONE;

    default:
        assert(id == T_STRING);
        return v->type == CV_STR;
    }
}


/* Whether a string is all in one case, as Python sees it (ASCII here). */
static bool
in_case(const chat_val_t *v, bool upper)
{
    char      ch;
    bool      any;
    uint32_t  i;

    if (v->type != CV_STR) {
        return false;
    }

    for (i = 0, any = false; i < v->len; i++) {
        ch = v->u.s[i];

        if (upper ? ch >= 'a' && ch <= 'z' : ch >= 'A' && ch <= 'Z') {
            return false;
        }

        any |= (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z');
    }

    return any;
}


static int
modulo(chat_vm_t *vm, const chat_val_t *v, int64_t by, int64_t want, bool *yes)
{
    if (!chat_is_num(v) || by == 0) {
        return chat_arg_fail(vm, "this test", "a number and no zero", v);
    }

    if (v->type == CV_FLOAT) {
        *yes = fabs(fmod(v->u.f, (double) by)) == (double) want;
        return CHAT_OK;
    }

    *yes = (by == -1 ? 0 : v->u.i % by != 0) == want;
    return CHAT_OK;
}


int
chat_test_run(chat_vm_t *vm, uint32_t id, chat_args_t *a, bool *yes)
{
    const chat_val_t  *v, *b;

    v = &a->v[0];
    b = a->n > 1 ? &a->v[1] : NULL;
    *yes = false;

    switch (id) {
    case T_EVEN:
        return modulo(vm, v, 2, 0, yes);

    case T_ODD:
        return modulo(vm, v, 2, 1, yes);

    case T_LOWER:
    case T_UPPER:
        *yes = in_case(v, id == T_UPPER);
        return CHAT_OK;

    case T_DIVISIBLEBY:
    case T_EQ:
    case T_NE:
    case T_LT:
    case T_LE:
    case T_GT:
    case T_GE:
    case T_IN:
    case T_SAMEAS:
        break;

    default:
        *yes = plain(v, id);
        return CHAT_OK;
    }

    if (b == NULL) {
        return chat_arg_fail(vm, "this test", "something to compare with", b);
    }

    switch (id) {
    case T_DIVISIBLEBY:
        return b->type == CV_INT ? modulo(vm, v, b->u.i, 0, yes)
                                 : chat_arg_fail(vm, "divisibleby",
                                                 "an integer", b);

    case T_SAMEAS:
        return v->type != b->type ? CHAT_OK
               : chat_op_compare(vm, CMP_EQ, v, b, yes);

    default:
        return chat_op_compare(vm, id == T_EQ ? CMP_EQ : id == T_NE ? CMP_NE
                               : id == T_LT ? CMP_LT : id == T_LE ? CMP_LE
                               : id == T_GT ? CMP_GT : id == T_GE ? CMP_GE
                               : CMP_IN, v, b, yes);
    }
}
