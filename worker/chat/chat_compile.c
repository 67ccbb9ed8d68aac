/*
 * The compiler's entry, and what its parts share: emitting code, constants,
 * names, errors with their place.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/chat/chat_comp.h"


#define NAME_HASH  (CHAT_NAMES_MAX * 2)

static int source_copy(chat_template_t *t, const char *text, size_t len,
    chat_err_t *err);
static int compile(chat_comp_t *c);
static void scan(chat_template_t *t);


chat_template_t *
chat_compile(const char *text, size_t len, chat_err_t *err)
{
    int               rc;
    chat_comp_t      *c;
    chat_template_t  *t;

    memset(err, 0, sizeof(*err));

    if (text == NULL) {
        text = chat_builtin(NULL, NULL);
        len = strlen(text);
    }

    if (len > CHAT_TEMPLATE_BYTES_MAX) {
        err->code = CHAT_ELIMIT;
        snprintf(err->text, sizeof(err->text), "the chat template has %zu "
                 "bytes, the limit is %d", len, CHAT_TEMPLATE_BYTES_MAX);
        return NULL;
    }

    t = calloc(1, sizeof(*t));
    c = calloc(1, sizeof(*c));
    rc = CHAT_ENOMEM;

    if (t != NULL && c != NULL) {
        c->t = t;
        c->err = err;
        c->line_start = true;
        rc = source_copy(t, text, len, err);
    }

    if (rc == CHAT_OK) {
        rc = compile(c);
    }

    free(c);

    if (rc == CHAT_OK) {
        scan(t);
        return t;
    }

    if (rc == CHAT_ENOMEM) {
        snprintf(err->text, sizeof(err->text),
                 "no memory to compile a chat template of %zu bytes", len);
    }

    err->code = rc;
    chat_free(t);
    return NULL;
}


void
chat_free(chat_template_t *t)
{
    if (t == NULL) {
        return;
    }

    free(t->source);
    free(t->pool);
    free(t->code);
    free(t->consts);
    free(t->names);
    free(t->name_hash);
    free(t->kwnames);
    free(t->macros);
    free(t);
}


int
chat_uses_tools(const chat_template_t *t)
{
    return t->uses_tools;
}


const char *
chat_code_name(int code)
{
    static const char  *names[] = {
        "ok", "syntax", "unsupported", "raised", "limit", "too long", "input",
        "runtime", "no memory"
    };

    return code <= 0 && code >= CHAT_ENOMEM ? names[-code] : "unknown";
}


/* Line ends become "\n", and one at the very end goes, as in the reference. */
static int
source_copy(chat_template_t *t, const char *text, size_t len, chat_err_t *err)
{
    size_t  i, n;

    t->source = malloc(len + 1);
    t->pool = malloc(2 * len + 1);
    t->name_hash = calloc(NAME_HASH, sizeof(uint32_t));

    if (t->source == NULL || t->pool == NULL || t->name_hash == NULL) {
        return CHAT_ENOMEM;
    }

    n = 0;

    for (i = 0; i < len; i++) {
        if (text[i] == '\0') {
            err->code = CHAT_ESYNTAX;
            snprintf(err->text, sizeof(err->text),
                     "the chat template has a NUL byte at offset %zu", i);
            return CHAT_ESYNTAX;
        }

        if (text[i] == '\r') {
            i += (i + 1 < len && text[i + 1] == '\n');
            t->source[n++] = '\n';
        } else {
            t->source[n++] = text[i];
        }
    }

    n -= (n > 0 && t->source[n - 1] == '\n');
    t->source[n] = '\0';
    t->source_len = (uint32_t) n;

    return CHAT_OK;
}


static int
compile(chat_comp_t *c)
{
    int         rc;
    uint16_t    none;
    uint32_t    pos;
    chat_seg_t  seg;

    rc = chat_kwnames(c, &none);        /* number 0 stands for "none" */

    while (rc == CHAT_OK) {
        rc = chat_lex_text(c, &seg);

        if (rc != CHAT_OK || seg == CL_EOF) {
            break;
        }

        if (seg == CL_BLOCK) {
            rc = chat_statement(c);
            continue;
        }

        pos = c->tok.pos;

        rc = chat_expr(c, CHAT_X_TUPLE);
        if (rc != CHAT_OK) {
            break;
        }

        if (c->tok.type != TK_VAR_END) {
            rc = chat_comp_fail(c, CHAT_ESYNTAX, c->tok.pos,
                                "expected \"}}\" here");
            break;
        }

        rc = chat_emit(c, OP_OUT, 0, 0, pos);
    }

    if (rc == CHAT_OK) {
        rc = chat_blocks_closed(c);
    }

    return rc != CHAT_OK ? rc : chat_emit(c, OP_END, 0, 0, c->pos);
}


int
chat_comp_fail(chat_comp_t *c, int code, uint32_t pos, const char *fmt, ...)
{
    va_list  args;

    c->err->code = code;
    chat_locate(c->t, pos, c->err);

    va_start(args, fmt);
    vsnprintf(c->err->text, sizeof(c->err->text), fmt, args);
    va_end(args);

    return code;
}


/* Line and column of an offset in the template. */
void
chat_locate(const chat_template_t *t, uint32_t pos, chat_err_t *err)
{
    uint32_t  i, line, start;

    line = 1;
    start = 0;
    pos = pos < t->source_len ? pos : t->source_len;

    for (i = 0; i < pos; i++) {
        if (t->source[i] == '\n') {
            line++;
            start = i + 1;
        }
    }

    err->line = line;
    err->column = pos - start + 1;
}


void
chat_locate_ins(const chat_template_t *t, uint32_t pc, chat_err_t *err)
{
    assert(pc < t->code_len);

    chat_locate(t, t->code[pc].pos, err);
}


/* Makes room for one more element. */
int
chat_grow(chat_comp_t *c, void **array, uint32_t len, uint32_t *cap,
    size_t size)
{
    void      *p;
    uint32_t   n;

    if (len < *cap) {
        return CHAT_OK;
    }

    n = *cap == 0 ? 64 : *cap * 2;
    assert(n <= CHAT_CODE_MAX * 2 && size <= 4096);

    p = realloc(*array, n * size);
    if (p == NULL) {
        c->err->code = CHAT_ENOMEM;
        return CHAT_ENOMEM;
    }

    *array = p;
    *cap = n;
    return CHAT_OK;
}


int
chat_emit(chat_comp_t *c, chat_op_t op, unsigned n, int32_t arg, uint32_t pos)
{
    int               rc;
    chat_ins_t       *ins;
    chat_template_t  *t;

    t = c->t;
    assert(n <= UINT8_MAX);

    if (t->code_len == CHAT_CODE_MAX) {
        return chat_comp_fail(c, CHAT_ELIMIT, pos, "a template of more than "
                              "%d instructions", CHAT_CODE_MAX);
    }

    rc = chat_grow(c, (void **) &t->code, t->code_len, &t->code_cap,
                   sizeof(chat_ins_t));
    if (rc != CHAT_OK) {
        return rc;
    }

    ins = &t->code[t->code_len++];
    ins->op = (uint8_t) op;
    ins->n = (uint8_t) n;
    ins->kw = 0;
    ins->arg = arg;
    ins->pos = pos;

    return CHAT_OK;
}


int
chat_emit_const(chat_comp_t *c, const chat_val_t *v, uint32_t pos)
{
    int               rc;
    chat_template_t  *t;

    t = c->t;

    rc = chat_grow(c, (void **) &t->consts, t->consts_len, &t->consts_cap,
                   sizeof(chat_val_t));
    if (rc != CHAT_OK) {
        return rc;
    }

    t->consts[t->consts_len] = *v;
    rc = chat_emit(c, OP_CONST, 0, (int32_t) t->consts_len, pos);
    t->consts_len++;

    return rc;
}


/* The number of a name; new ones are added. */
int
chat_name(chat_comp_t *c, const char *s, size_t len, uint32_t *id)
{
    int               rc;
    uint32_t          h, slot;
    chat_name_t      *name;
    chat_template_t  *t;

    t = c->t;
    h = chat_hash(s, len);

    for (slot = h % NAME_HASH; t->name_hash[slot] != 0;
         slot = (slot + 1) % NAME_HASH)
    {
        name = &t->names[t->name_hash[slot] - 1];

        if (name->len == len && memcmp(name->s, s, len) == 0) {
            *id = t->name_hash[slot] - 1;
            return CHAT_OK;
        }
    }

    if (t->names_len == CHAT_NAMES_MAX) {
        return chat_comp_fail(c, CHAT_ELIMIT, c->tok.pos,
                              "more than %d names", CHAT_NAMES_MAX);
    }

    rc = chat_grow(c, (void **) &t->names, t->names_len, &t->names_cap,
                   sizeof(chat_name_t));
    if (rc != CHAT_OK) {
        return rc;
    }

    name = &t->names[t->names_len];
    name->s = s;
    name->len = (uint32_t) len;
    name->func = (int16_t) chat_func_find(s, len);

    *id = t->names_len++;
    t->name_hash[slot] = t->names_len;
    return CHAT_OK;
}


int
chat_kwnames(chat_comp_t *c, uint16_t *kw)
{
    int               rc;
    chat_template_t  *t;

    t = c->t;

    if (t->kwnames_len == UINT16_MAX) {
        return chat_comp_fail(c, CHAT_ELIMIT, c->tok.pos,
                              "too many calls with named arguments");
    }

    rc = chat_grow(c, (void **) &t->kwnames, t->kwnames_len, &t->kwnames_cap,
                   sizeof(chat_kwnames_t));
    if (rc != CHAT_OK) {
        return rc;
    }

    memset(&t->kwnames[t->kwnames_len], 0, sizeof(chat_kwnames_t));
    *kw = (uint16_t) t->kwnames_len++;
    return CHAT_OK;
}


/* Whether the access that ends at instruction i is for key. */
static bool
accesses(const chat_template_t *t, uint32_t i, const char *key)
{
    const char        *s;
    uint32_t           len;
    const chat_val_t  *v;

    if (t->code[i].op == OP_GETATTR) {
        s = t->names[t->code[i].arg].s;
        len = t->names[t->code[i].arg].len;

    } else if (t->code[i].op == OP_GETITEM && i > 0
               && t->code[i - 1].op == OP_CONST
               && t->consts[t->code[i - 1].arg].type == CV_STR)
    {
        v = &t->consts[t->code[i - 1].arg];
        s = v->u.s;
        len = v->len;

    } else {
        return false;
    }

    return len == strlen(key) && memcmp(s, key, len) == 0;
}


/*
 * What the template does with a message decides in which shape it gets it:
 * templates differ in whether they take content as parts, whether null content
 * is none for them, and whether a tool call's arguments are an object.
 */
static void
scan(chat_template_t *t)
{
    bool               text, looks;
    uint32_t           i;
    const chat_ins_t  *next;
    const chat_name_t *name;

    text = false;
    looks = false;

    for (i = 0; i < t->names_len; i++) {
        if (t->names[i].len == 4 && memcmp(t->names[i].s, "loop", 4) == 0) {
            t->loop_name = i + 1;
        }
    }

    for (i = 0; i + 1 < t->code_len; i++) {
        next = &t->code[i + 1];

        if (t->code[i].op == OP_LOAD) {
            name = &t->names[t->code[i].arg];
            t->uses_tools |= name->len == 5
                             && memcmp(name->s, "tools", 5) == 0;
        }

        text |= accesses(t, i, "text");
        looks |= next->op == OP_TEST
                 && chat_test_is_shape((uint32_t) next->arg);

        if (accesses(t, i, "content")) {
            looks |= next->op == OP_FOR || next->op == OP_PICK;
            t->wants_none |= next->op == OP_TEST
                             && chat_test_is_none((uint32_t) next->arg);
        }

        if (accesses(t, i, "arguments")) {
            t->wants_arguments |= next->op == OP_FILTER || next->op == OP_STORE
                                  || next->op == OP_CALL_METHOD
                                  || next->op == OP_FOR || next->op == OP_TEST;
        }
    }

    t->wants_parts = text && looks;
}
