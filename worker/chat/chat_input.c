/*
 * The input door of a rendering: reads messages, tools and kwargs, checks the
 * shape of each message, and brings content and tool calls into the form that
 * the template at hand expects.  Errors name the field.
 */

#include <stdio.h>
#include <string.h>

#include "worker/chat/chat_int.h"


/* Names that kwargs may not take. */
static const char  *reserved[] = {
    "messages", "tools", "documents", "add_generation_prompt", "bos_token",
    "eos_token", NULL
};

/* Role names that count as template text; see chat.h. */
static const char  *roles[] = {
    "system", "user", "assistant", "tool", "developer", "function", "model",
    "ipython", "observation", NULL
};

static int bind_messages(chat_vm_t *vm);
static int message(chat_vm_t *vm, uint32_t i, const chat_val_t *in,
    chat_val_t *out);
static int role(chat_vm_t *vm, uint32_t i, chat_val_t *v);
static int content(chat_vm_t *vm, uint32_t i, const chat_val_t *m,
    chat_val_t *v);
static int parts(chat_vm_t *vm, uint32_t i, chat_val_t *v);
static int tool_calls(chat_vm_t *vm, uint32_t i, chat_val_t *v);
static int tool_call(chat_vm_t *vm, uint32_t i, uint32_t j, chat_val_t *v);


__attribute__((format(printf, 3, 4)))
static int
bad(chat_vm_t *vm, const char *why, const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    vsnprintf(vm->err->param, sizeof(vm->err->param), fmt, args);
    va_end(args);

    return chat_fail(vm, CHAT_EINPUT, "%s %s", vm->err->param, why);
}


static int
bind_json(chat_vm_t *vm, const char *name, const char *text, size_t len,
    chat_type_t type, const char *why)
{
    int         rc;
    chat_val_t  v = { .type = CV_NONE };

    if (text != NULL) {
        rc = chat_json_read(vm, text, len, name, &v);

        if (rc == CHAT_OK && v.type == CV_NONE) {
            return chat_bind(vm, name, &v);
        }

        if (rc == CHAT_OK && v.type != type) {
            rc = bad(vm, why, "%s", name);
        }

        if (rc == CHAT_EINPUT) {
            snprintf(vm->err->param, sizeof(vm->err->param), "%s", name);
        }

        if (rc != CHAT_OK) {
            return rc;
        }
    }

    return chat_bind(vm, name, &v);
}


static int
bind_kwargs(chat_vm_t *vm)
{
    int                 rc;
    uint32_t            i;
    const char        **r;
    chat_val_t          v;
    const chat_dict_t  *d;
    const chat_pair_t  *pair;

    if (vm->in->kwargs == NULL) {
        return CHAT_OK;
    }

    rc = chat_json_read(vm, vm->in->kwargs, vm->in->kwargs_len,
                        "chat_template_kwargs", &v);

    if (rc == CHAT_EINPUT || (rc == CHAT_OK && v.type != CV_DICT)) {
        snprintf(vm->err->param, sizeof(vm->err->param),
                 "chat_template_kwargs");
        return rc != CHAT_OK ? rc : v.type == CV_NONE ? CHAT_OK
               : bad(vm, "must be an object", "chat_template_kwargs");
    }

    if (rc != CHAT_OK) {
        return rc;
    }

    d = v.u.dict;

    for (i = 0; rc == CHAT_OK && i < d->count; i++) {
        pair = &d->pairs[i];

        for (r = reserved; *r != NULL; r++) {
            if (chat_is_str(&pair->key, *r)) {
                return bad(vm, "is set by the server",
                           "chat_template_kwargs.%s", *r);
            }
        }

        rc = chat_bind_str(vm, pair->key.u.s, pair->key.len, &pair->val);
    }

    return rc;
}


int
chat_input_bind(chat_vm_t *vm)
{
    int                  rc;
    size_t               bytes;
    chat_val_t           v;
    const chat_input_t  *in;

    in = vm->in;

    if (__builtin_add_overflow(in->messages_len, in->tools_len, &bytes)
        || __builtin_add_overflow(bytes, in->kwargs_len, &bytes)
        || bytes > CHAT_INPUT_BYTES_MAX)
    {
        return bad(vm, "and tools are too large together", "messages");
    }

    rc = bind_messages(vm);

    if (rc == CHAT_OK) {
        rc = bind_json(vm, "tools", in->tools, in->tools_len, CV_LIST,
                       "must be an array");
    }

    if (rc == CHAT_OK) {
        rc = bind_json(vm, "documents", NULL, 0, CV_LIST, "");
    }

    if (rc == CHAT_OK) {
        v = chat_v_bool(in->add_generation_prompt != 0);
        rc = chat_bind(vm, "add_generation_prompt", &v);
    }

    if (rc == CHAT_OK && in->bos != NULL) {
        v = chat_v_str(in->bos, (uint32_t) in->bos_len);
        rc = chat_bind(vm, "bos_token", &v);
    }

    if (rc == CHAT_OK && in->eos != NULL) {
        v = chat_v_str(in->eos, (uint32_t) in->eos_len);
        rc = chat_bind(vm, "eos_token", &v);
    }

    return rc == CHAT_OK ? bind_kwargs(vm) : rc;
}


static int
bind_messages(chat_vm_t *vm)
{
    int          rc;
    uint32_t     i, n;
    chat_val_t   in, out, *items;

    rc = chat_json_read(vm, vm->in->messages, vm->in->messages_len, "messages",
                        &in);
    if (rc != CHAT_OK) {
        snprintf(vm->err->param, sizeof(vm->err->param), "messages");
        return rc;
    }

    if (in.type != CV_LIST) {
        return bad(vm, "must be an array", "messages");
    }

    n = in.u.list->count;
    items = chat_alloc(vm, (size_t) n * sizeof(chat_val_t));
    if (items == NULL) {
        return vm->err->code;
    }

    for (i = 0; rc == CHAT_OK && i < n; i++) {
        rc = message(vm, i, &in.u.list->items[i], &items[i]);
    }

    if (rc == CHAT_OK) {
        rc = chat_list_of(vm, CV_LIST, items, n, &out);
    }

    return rc == CHAT_OK ? chat_bind(vm, "messages", &out) : rc;
}


/* A copy of the message with its fields brought into form. */
static int
message(chat_vm_t *vm, uint32_t i, const chat_val_t *in, chat_val_t *out)
{
    int                 rc;
    bool                has_role, has_content;
    uint32_t            k;
    chat_val_t          v, key;
    chat_dict_t        *d;
    const chat_dict_t  *m;

    if (in->type != CV_DICT) {
        return bad(vm, "must be an object", "messages[%u]", i);
    }

    m = in->u.dict;
    has_role = false;
    has_content = false;

    rc = chat_dict_new(vm, m->count + 1, &d);

    for (k = 0; rc == CHAT_OK && k < m->count; k++) {
        key = m->pairs[k].key;
        v = m->pairs[k].val;

        if (chat_is_str(&key, "role")) {
            has_role = true;
            rc = role(vm, i, &v);

        } else if (chat_is_str(&key, "content")) {
            has_content = true;
            rc = content(vm, i, in, &v);

        } else if (chat_is_str(&key, "tool_calls")) {
            if (v.type == CV_NONE) {
                continue;
            }

            rc = tool_calls(vm, i, &v);
        }

        if (rc == CHAT_OK) {
            rc = chat_dict_put(vm, d, &key, &v);
        }
    }

    if (rc == CHAT_OK && !has_role) {
        rc = bad(vm, "is missing", "messages[%u].role", i);
    }

    if (rc == CHAT_OK && !has_content) {
        v.type = CV_NONE;
        key = chat_v_str("content", 7);
        rc = content(vm, i, in, &v);
        rc = rc == CHAT_OK ? chat_dict_put(vm, d, &key, &v) : rc;
    }

    memset(out, 0, sizeof(*out));
    out->type = CV_DICT;
    out->u.dict = d;
    return rc;
}


static int
role(chat_vm_t *vm, uint32_t i, chat_val_t *v)
{
    const char  **r;

    if (v->type != CV_STR) {
        return bad(vm, "must be a string", "messages[%u].role", i);
    }

    for (r = roles; *r != NULL; r++) {
        if (chat_is_str(v, *r)) {
            v->taint = CT_TEMPLATE;
        }
    }

    return CHAT_OK;
}


static int
content(chat_vm_t *vm, uint32_t i, const chat_val_t *m, chat_val_t *v)
{
    const chat_val_t  *r;

    switch (v->type) {
    case CV_STR:
        return CHAT_OK;

    case CV_LIST:
        return parts(vm, i, v);

    case CV_NONE:
        r = chat_dict_name(vm, m->u.dict, "role");

        if (r == NULL || !chat_is_str(r, "assistant")) {
            return bad(vm, "must be a string or an array of parts",
                       "messages[%u].content", i);
        }

        /* Most templates add strings; few ask whether it is none. */

        if (!vm->t->wants_none) {
            *v = chat_v_str("", 0);
        }

        return CHAT_OK;

    default:
        return bad(vm, "must be a string or an array of parts",
                   "messages[%u].content", i);
    }
}


/*
 * Checks the parts; joins them with line ends unless the template wants parts.
 */
static int
parts(chat_vm_t *vm, uint32_t i, chat_val_t *v)
{
    int                 rc;
    uint32_t            j;
    chat_buf_t          buf = { 0 };
    const chat_val_t   *part, *type, *text;
    const chat_list_t  *list;

    list = v->u.list;
    rc = CHAT_OK;

    for (j = 0; rc == CHAT_OK && j < list->count; j++) {
        part = &list->items[j];

        if (part->type != CV_DICT) {
            return bad(vm, "must be an object", "messages[%u].content[%u]", i,
                       j);
        }

        type = chat_dict_name(vm, part->u.dict, "type");

        if (type == NULL || !chat_is_str(type, "text")) {
            return bad(vm, "must be \"text\": this model reads text only",
                       "messages[%u].content[%u].type", i, j);
        }

        text = chat_dict_name(vm, part->u.dict, "text");

        if (text == NULL || text->type != CV_STR) {
            return bad(vm, "must be a string", "messages[%u].content[%u].text",
                       i, j);
        }

        if (vm->t->wants_parts) {
            continue;
        }

        if (j > 0) {
            rc = chat_buf_add(vm, &buf, "\n", 1, CT_INPUT, NULL);
        }

        if (rc == CHAT_OK) {
            rc = chat_buf_str(vm, &buf, text);
        }
    }

    if (rc == CHAT_OK && !vm->t->wants_parts) {
        chat_buf_val(&buf, v);
    }

    return rc;
}


static int
tool_calls(chat_vm_t *vm, uint32_t i, chat_val_t *v)
{
    int          rc;
    uint32_t     j, n;
    chat_val_t  *items;

    if (v->type != CV_LIST) {
        return bad(vm, "must be an array", "messages[%u].tool_calls", i);
    }

    n = v->u.list->count;
    items = chat_alloc(vm, (size_t) n * sizeof(chat_val_t));
    if (items == NULL) {
        return vm->err->code;
    }

    for (rc = CHAT_OK, j = 0; rc == CHAT_OK && j < n; j++) {
        items[j] = v->u.list->items[j];
        rc = tool_call(vm, i, j, &items[j]);
    }

    return rc == CHAT_OK ? chat_list_of(vm, CV_LIST, items, n, v) : rc;
}


/* A copy of mapping v with one member replaced. */
static int
replaced(chat_vm_t *vm, const char *name, const chat_val_t *val, chat_val_t *v)
{
    int                 rc;
    uint32_t            k;
    chat_dict_t        *d;
    const chat_dict_t  *old;

    old = v->u.dict;
    rc = chat_dict_new(vm, old->count, &d);

    for (k = 0; rc == CHAT_OK && k < old->count; k++) {
        rc = chat_dict_put(vm, d, &old->pairs[k].key,
                           chat_is_str(&old->pairs[k].key, name)
                           ? val : &old->pairs[k].val);
    }

    v->u.dict = rc == CHAT_OK ? d : old;
    return rc;
}


/*
 * Clients send a call's arguments as a string that holds JSON; templates that
 * work on the object get the object.
 */
static int
tool_call(chat_vm_t *vm, uint32_t i, uint32_t j, chat_val_t *v)
{
    int                rc;
    char               what[64];
    chat_val_t         f, object;
    const chat_val_t  *function, *arguments;

    function = v->type == CV_DICT
               ? chat_dict_name(vm, v->u.dict, "function") : NULL;

    if (function == NULL || function->type != CV_DICT) {
        return bad(vm, "must be an object with \"function\"",
                   "messages[%u].tool_calls[%u]", i, j);
    }

    f = *function;
    arguments = chat_dict_name(vm, f.u.dict, "arguments");

    if (arguments == NULL || arguments->type != CV_STR
        || !vm->t->wants_arguments)
    {
        return CHAT_OK;
    }

    if (arguments->len == 0) {
        arguments = NULL;
        rc = chat_json_read(vm, "{}", 2, "arguments", &object);
    } else {
        snprintf(what, sizeof(what),
                 "messages[%u].tool_calls[%u].function.arguments", i, j);
        rc = chat_json_read(vm, arguments->u.s, arguments->len, what, &object);

        if (rc == CHAT_EINPUT) {
            snprintf(vm->err->param, sizeof(vm->err->param), "%s", what);
        }
    }

    if (rc == CHAT_OK) {
        rc = replaced(vm, "arguments", &object, &f);
    }

    return rc == CHAT_OK ? replaced(vm, "function", &f, v) : rc;
}
