/*
 * Frames of the machine: loops, captures, macros and what calls them, and where
 * output goes.
 */

#include <string.h>

#include "worker/chat/chat_int.h"


static int loop_begin(chat_vm_t *vm, chat_frame_kind_t kind);
static int loop_next(chat_vm_t *vm, const chat_ins_t *ins);
static int pick_next(chat_vm_t *vm, const chat_ins_t *ins);
static int macro_enter(chat_vm_t *vm, const chat_val_t *callee,
    const chat_args_t *a);
static int out_add(chat_vm_t *vm, const chat_val_t *v);


static int
frame_push(chat_vm_t *vm, chat_frame_kind_t kind)
{
    chat_frame_t  *f;

    if (vm->frames_len == CHAT_FRAMES_MAX) {
        return chat_fail(vm, CHAT_ELIMIT, "loops and macros in one another "
                         "deeper than %d", CHAT_FRAMES_MAX);
    }

    f = &vm->frames[vm->frames_len];
    memset(f, 0, sizeof(*f));
    f->kind = (uint8_t) kind;
    f->serial = ++vm->serial;
    f->binds = vm->binds_len;
    f->parent = vm->frames_len - 1;
    f->sink = vm->sink;

    if (kind == CF_CAPTURE || kind == CF_MACRO) {
        vm->sink = vm->frames_len;
    }

    vm->frames_len++;
    return CHAT_OK;
}


static void
frame_pop(chat_vm_t *vm, chat_frame_kind_t kind)
{
    chat_frame_t  *f;

    f = chat_frame(vm);
    assert(vm->frames_len > 1 && f->kind == kind);

    vm->sink = f->sink;
    vm->binds_len = f->binds;
    vm->frames_len--;
}


static int
capture_end(chat_vm_t *vm, chat_frame_kind_t kind)
{
    chat_val_t  v;

    chat_buf_val(&chat_frame(vm)->buf, &v);
    frame_pop(vm, kind);
    return chat_push(vm, &v);
}


int
chat_step_flow(chat_vm_t *vm, const chat_ins_t *ins)
{
    int            rc;
    uint32_t       ret;
    chat_val_t     v = { 0 };
    chat_frame_t  *f;

    f = chat_frame(vm);

    switch (ins->op) {
    case OP_FOR:
        return loop_begin(vm, CF_FOR);

    case OP_FOR_NEXT:
        return loop_next(vm, ins);

    case OP_FOR_END:
        rc = f->list->count > 0;
        frame_pop(vm, CF_FOR);
        return rc ? chat_jump(vm, ins) : CHAT_OK;

    case OP_PICK:
        return loop_begin(vm, CF_PICK);

    case OP_PICK_NEXT:
        return pick_next(vm, ins);

    case OP_PICK_ADD:
        assert(f->kind == CF_PICK);

        if (chat_truth(chat_pop(vm, 1))) {
            f->keep[f->picked++] = f->list->items[f->index - 1];
        }

        return chat_jump(vm, ins);

    case OP_CAPTURE:
        return frame_push(vm, CF_CAPTURE);

    case OP_CAPTURE_END:
        return capture_end(vm, CF_CAPTURE);

    case OP_SCOPE:
        return frame_push(vm, CF_SCOPE);

    case OP_SCOPE_END:
        frame_pop(vm, CF_SCOPE);
        return CHAT_OK;

    case OP_MACRO:
        v.type = CV_MACRO;
        v.len = (uint32_t) ins->arg;
        v.u.i = (int64_t) f->serial << 32 | (vm->frames_len - 1);
        return chat_push(vm, &v);

    case OP_DEFAULT:
        return chat_find_in(vm, vm->frames_len - 1, ins->kw) != NULL
               ? chat_jump(vm, ins) : CHAT_OK;

    default:
        assert(ins->op == OP_RETURN);

        ret = f->ret;
        rc = capture_end(vm, CF_MACRO);
        vm->pc = ret;
        return rc == CHAT_OK ? 1 : rc;
    }
}


static int
loop_begin(chat_vm_t *vm, chat_frame_kind_t kind)
{
    int                 rc;
    chat_frame_t       *f;
    const chat_list_t  *list;

    rc = chat_iterate(vm, chat_pop(vm, 1), &list);
    if (rc == CHAT_OK) {
        rc = frame_push(vm, kind);
    }

    if (rc != CHAT_OK) {
        return rc;
    }

    f = chat_frame(vm);
    f->list = list;

    if (kind == CF_PICK) {
        f->keep = chat_alloc(vm, (size_t) list->count * sizeof(chat_val_t));
        if (f->keep == NULL) {
            return vm->err->code;
        }
    }

    return CHAT_OK;
}


/* Each turn starts with no variables but `loop`, and the item on the stack. */
static int
loop_next(chat_vm_t *vm, const chat_ins_t *ins)
{
    int            rc;
    chat_val_t     loop = { 0 };
    chat_frame_t  *f;

    f = chat_frame(vm);
    assert(f->kind == CF_FOR);
    vm->binds_len = f->binds;

    if (f->index == f->list->count) {
        return chat_jump(vm, ins);
    }

    f->index++;
    rc = CHAT_OK;

    if (vm->t->loop_name != 0) {
        loop.type = CV_LOOP;
        loop.len = vm->frames_len - 1;
        loop.u.i = f->serial;
        rc = chat_store(vm, vm->t->loop_name - 1, &loop);
    }

    return rc == CHAT_OK ? chat_push(vm, &f->list->items[f->index - 1]) : rc;
}


static int
pick_next(chat_vm_t *vm, const chat_ins_t *ins)
{
    int            rc;
    chat_val_t     v;
    chat_frame_t  *f;

    f = chat_frame(vm);
    assert(f->kind == CF_PICK);
    vm->binds_len = f->binds;

    if (f->index < f->list->count) {
        f->index++;
        return chat_push(vm, &f->list->items[f->index - 1]);
    }

    rc = chat_list_of(vm, CV_LIST, f->keep, f->picked, &v);
    frame_pop(vm, CF_PICK);

    if (rc == CHAT_OK) {
        rc = chat_push(vm, &v);
    }

    return rc == CHAT_OK ? chat_jump(vm, ins) : rc;
}


/* ---- calls ---- */

int
chat_call(chat_vm_t *vm, const chat_ins_t *ins)
{
    int          rc;
    chat_val_t   callee, v;
    chat_args_t  a;

    chat_args_of(vm, ins, &a);
    callee = *chat_pop(vm, 1);

    if (callee.type == CV_MACRO) {
        return macro_enter(vm, &callee, &a);
    }

    if (callee.type == CV_FUNC) {
        rc = chat_func_run(vm, callee.len, &a, &v);
        return rc == CHAT_OK ? chat_push(vm, &v) : rc;
    }

    if (callee.type == CV_UNDEF) {
        return chat_fail(vm, CHAT_ERUNTIME, "\"%.*s\" is undefined and cannot "
                         "be called", callee.len > 60 ? 60 : (int) callee.len,
                         callee.u.s != NULL ? callee.u.s : "");
    }

    return chat_fail(vm, callee.type == CV_METHOD ? CHAT_EUNSUPPORTED
                     : CHAT_ERUNTIME, "%s cannot be called here",
                     chat_type_name(&callee));
}


/* x.f(...): a macro in a namespace, or a method of the value's type. */
int
chat_call_method(chat_vm_t *vm, const chat_ins_t *ins)
{
    int                 rc;
    chat_val_t          v, *self;
    chat_args_t         a;
    const chat_name_t  *name;

    name = &vm->t->names[ins->arg];
    chat_args_of(vm, ins, &a);
    self = chat_pop(vm, 1);

    if (self->type == CV_NS) {
        rc = chat_op_getattr(vm, self, name->s, name->len,
                             (uint32_t) ins->arg, &v);

        if (rc == CHAT_OK && v.type == CV_MACRO) {
            return macro_enter(vm, &v, &a);
        }
    }

    a.v--;
    a.n++;

    rc = chat_charge_args(vm, &a);
    if (rc != CHAT_OK) {
        return rc;
    }

    rc = chat_method_run(vm, name->s, name->len, &a, &v);
    return rc == CHAT_OK ? chat_push(vm, &v) : rc;
}


static int
macro_bind(chat_vm_t *vm, const chat_macro_t *m, const chat_args_t *a)
{
    int                 rc;
    uint32_t            i, k;
    chat_val_t          undefined;
    const chat_name_t  *name;

    undefined = chat_v_undef();

    if (a->n > m->params) {
        return chat_fail(vm, CHAT_ERUNTIME, "%u arguments for a macro that "
                         "takes %u", a->n, m->params);
    }

    for (i = 0, rc = CHAT_OK; rc == CHAT_OK && i < a->n; i++) {
        rc = chat_store(vm, m->names[i], &a->v[i]);
    }

    for (k = 0; rc == CHAT_OK && a->kw != NULL && k < a->kw->count; k++) {
        name = &vm->t->names[a->kw->names[k]];

        for (i = 0; i < m->params && m->names[i] != a->kw->names[k]; i++) {
            /* void */
        }

        if (i == m->params && (name->len != 6
                               || memcmp(name->s, "caller", 6) != 0))
        {
            return chat_fail(vm, CHAT_ERUNTIME, "a macro has no parameter "
                             "\"%.*s\"", name->len > 60 ? 60 : (int) name->len,
                             name->s);
        }

        rc = chat_store(vm, a->kw->names[k], &a->v[a->n + k]);
    }

    /* Those without a value: undefined, unless a default will be computed. */

    for (i = 0; rc == CHAT_OK && i < m->params; i++) {
        if (!(m->has_default >> i & 1)
            && chat_find_in(vm, vm->frames_len - 1, m->names[i]) == NULL)
        {
            undefined.u.s = vm->t->names[m->names[i]].s;
            undefined.len = vm->t->names[m->names[i]].len;
            rc = chat_store(vm, m->names[i], &undefined);
        }
    }

    return rc;
}


static int
macro_enter(chat_vm_t *vm, const chat_val_t *callee, const chat_args_t *a)
{
    int                  rc;
    uint32_t             home, i;
    chat_frame_t        *f;
    chat_args_t          copy;
    chat_val_t           args[2 * CHAT_ARGS_MAX];
    const chat_macro_t  *m;

    m = &vm->t->macros[callee->len];
    home = (uint32_t) callee->u.i;

    /* The frame it was defined in may be gone; then it sees the globals. */

    if (home >= vm->frames_len
        || vm->frames[home].serial != (uint32_t) (callee->u.i >> 32))
    {
        home = 0;
    }

    copy = *a;
    copy.v = args;

    for (i = 0; i < chat_args_total(a); i++) {
        assert(i < 2 * CHAT_ARGS_MAX);
        args[i] = a->v[i];
    }

    rc = frame_push(vm, CF_MACRO);
    if (rc != CHAT_OK) {
        return rc;
    }

    f = chat_frame(vm);
    f->parent = home;
    f->ret = vm->pc + 1;

    rc = macro_bind(vm, m, &copy);
    vm->pc = m->entry;
    return rc == CHAT_OK ? 1 : rc;
}


/* ---- output ---- */

int
chat_out(chat_vm_t *vm, const chat_val_t *v)
{
    if (vm->sink != 0) {
        return chat_buf_str(vm, &vm->frames[vm->sink].buf, v);
    }

    return out_add(vm, v);
}


static int
span_add(chat_vm_t *vm, uint32_t start, uint32_t end)
{
    chat_output_t  *out;

    out = vm->out;

    if (out->spans_len > 0 && out->spans[out->spans_len - 1].end == start) {
        out->spans[out->spans_len - 1].end = end;
        return CHAT_OK;
    }

    if (out->spans_len == out->spans_cap) {
        return chat_fail(vm, CHAT_ETOOLONG, "the rendered chat has more than "
                         "%zu pieces of input", out->spans_cap);
    }

    out->spans[out->spans_len].start = start;
    out->spans[out->spans_len].end = end;
    out->spans_len++;
    return CHAT_OK;
}


static int
out_add(chat_vm_t *vm, const chat_val_t *v)
{
    int             rc;
    uint32_t        i, base, from;
    chat_output_t  *out;

    out = vm->out;

    if (v->len > out->text_cap - out->text_len
        || out->text_len + v->len > UINT32_MAX)
    {
        return chat_fail(vm, CHAT_ETOOLONG, "the rendered chat is longer than "
                         "%zu bytes", out->text_cap);
    }

    if (v->len == 0) {
        return CHAT_OK;
    }

    base = (uint32_t) out->text_len;
    memcpy(out->text + base, v->u.s, v->len);
    out->text_len += v->len;

    rc = chat_charge_bytes(vm, v->len);

    if (rc != CHAT_OK || v->taint == CT_TEMPLATE) {
        return rc;
    }

    if (v->taint == CT_INPUT) {
        return span_add(vm, base, base + v->len);
    }

    for (i = 0; rc == CHAT_OK && i < v->len; ) {
        if (v->map[i] == CT_TEMPLATE) {
            i++;
            continue;
        }

        for (from = i; i < v->len && v->map[i] != CT_TEMPLATE; i++) {
            /* void */
        }

        rc = span_add(vm, base + from, base + i);
    }

    return rc;
}
