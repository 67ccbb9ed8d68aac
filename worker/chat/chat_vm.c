/*
 * The machine that runs a compiled template: a stack of operands, a stack of
 * frames (loops, macros, captures, scopes) with the variables of each, and
 * counters that end every run.  No C recursion, no allocation outside the
 * caller's memory.
 */

#include <string.h>

#include "worker/chat/chat_int.h"


static int run(chat_vm_t *vm);
static int step(chat_vm_t *vm, const chat_ins_t *ins);
static int step_value(chat_vm_t *vm, const chat_ins_t *ins);


static void *
carve(chat_vm_t *vm, size_t n, size_t size)
{
    void  *p;

    p = chat_alloc(vm, n * size);
    if (p != NULL) {
        memset(p, 0, size);
    }

    return p;
}


int
chat_render(const chat_template_t *t, const chat_input_t *in, void *mem,
    size_t mem_bytes, chat_output_t *out, chat_err_t *err)
{
    int        rc;
    chat_vm_t  vm = { 0 };

    memset(err, 0, sizeof(*err));
    out->text_len = 0;
    out->spans_len = 0;

    vm.t = t;
    vm.in = in;
    vm.out = out;
    vm.err = err;
    vm.mem = mem;
    vm.mem_end = (char *) mem + mem_bytes;

    /* What is linear in the input shall not meet the limit. */

    vm.steps = (int64_t) (CHAT_STEPS_MAX
                          + (in->messages_len + in->tools_len) / 2);

    vm.stack = carve(&vm, CHAT_STACK_MAX, sizeof(chat_val_t));
    vm.frames = carve(&vm, CHAT_FRAMES_MAX, sizeof(chat_frame_t));
    vm.binds = carve(&vm, CHAT_BINDS_MAX, sizeof(chat_bind_t));

    if (vm.stack == NULL || vm.frames == NULL || vm.binds == NULL) {
        return err->code;
    }

    vm.frames_len = 1;

    rc = chat_input_bind(&vm);
    if (rc != CHAT_OK) {
        return rc;
    }

    rc = run(&vm);

    if (rc != CHAT_OK && err->line == 0) {
        chat_locate_ins(t, vm.pc, err);
    }

    return rc;
}


static int
run(chat_vm_t *vm)
{
    int                rc;
    const chat_ins_t  *ins;

    for (rc = CHAT_OK; rc == CHAT_OK; ) {
        assert(vm->pc < vm->t->code_len);

        ins = &vm->t->code[vm->pc];

        if (ins->op == OP_END) {
            break;
        }

        if (vm->steps <= 0) {
            return chat_charge(vm, 1);
        }

        vm->steps--;
        rc = step(vm, ins);

        /* Jumps have set pc; others leave it to be moved on. */

        if (rc > 0) {
            rc = CHAT_OK;
        } else if (rc == CHAT_OK) {
            vm->pc++;
        }
    }

    return rc;
}


/* ---- operands and variables ---- */

int
chat_push(chat_vm_t *vm, const chat_val_t *v)
{
    if (vm->sp == CHAT_STACK_MAX) {
        return chat_fail(vm, CHAT_ELIMIT, "the chat template needs more than "
                         "%d operands at once", CHAT_STACK_MAX);
    }

    vm->stack[vm->sp++] = *v;
    return CHAT_OK;
}


chat_val_t *
chat_pop(chat_vm_t *vm, uint32_t n)
{
    assert(vm->sp >= n);

    vm->sp -= n;
    return &vm->stack[vm->sp];
}


static chat_val_t *
peek(chat_vm_t *vm)
{
    assert(vm->sp > 0);

    return &vm->stack[vm->sp - 1];
}


/* A jump: the new pc is set. */
int
chat_jump(chat_vm_t *vm, const chat_ins_t *ins)
{
    vm->pc = (uint32_t) ((int64_t) vm->pc + ins->arg);
    return 1;
}


chat_frame_t *
chat_frame(chat_vm_t *vm)
{
    return &vm->frames[vm->frames_len - 1];
}


chat_val_t *
chat_find_in(chat_vm_t *vm, uint32_t f, uint32_t name)
{
    uint32_t  i, end;

    end = f + 1 < vm->frames_len ? vm->frames[f + 1].binds : vm->binds_len;

    for (i = end; i > vm->frames[f].binds; i--) {
        if (vm->binds[i - 1].name == name) {
            return &vm->binds[i - 1].val;
        }
    }

    return NULL;
}


int
chat_store(chat_vm_t *vm, uint32_t name, const chat_val_t *v)
{
    chat_val_t  *slot;

    slot = chat_find_in(vm, vm->frames_len - 1, name);

    if (slot != NULL) {
        *slot = *v;
        return CHAT_OK;
    }

    if (vm->binds_len == CHAT_BINDS_MAX) {
        return chat_fail(vm, CHAT_ELIMIT, "the chat template has more than %d "
                         "variables", CHAT_BINDS_MAX);
    }

    vm->binds[vm->binds_len].name = name;
    vm->binds[vm->binds_len].val = *v;
    vm->binds_len++;
    return CHAT_OK;
}


static int
load(chat_vm_t *vm, uint32_t name)
{
    uint32_t            f;
    chat_val_t          v, *slot;
    const chat_name_t  *n;

    for (f = vm->frames_len - 1; ; f = vm->frames[f].parent) {
        slot = chat_find_in(vm, f, name);

        if (slot != NULL) {
            return chat_push(vm, slot);
        }

        if (f == 0) {
            break;
        }
    }

    n = &vm->t->names[name];
    v = chat_v_undef();

    if (n->func >= 0) {
        v.type = CV_FUNC;
        v.len = (uint32_t) n->func;
    } else {
        v.u.s = n->s;
        v.len = n->len;
    }

    return chat_push(vm, &v);
}


int
chat_bind_str(chat_vm_t *vm, const char *name, uint32_t len,
    const chat_val_t *v)
{
    uint32_t  i;

    for (i = 0; i < vm->t->names_len; i++) {
        if (vm->t->names[i].len == len
            && memcmp(vm->t->names[i].s, name, len) == 0)
        {
            return chat_store(vm, i, v);
        }
    }

    return chat_charge(vm, vm->t->names_len / 32);
}


int
chat_bind(chat_vm_t *vm, const char *name, const chat_val_t *v)
{
    return chat_bind_str(vm, name, (uint32_t) strlen(name), v);
}


/* ---- instructions ---- */

static int
step(chat_vm_t *vm, const chat_ins_t *ins)
{
    int          rc;
    chat_val_t   v, *p;

    switch (ins->op) {
    case OP_TEXT:
        v = chat_v_str(vm->t->source + ins->pos, (uint32_t) ins->arg);
        return chat_out(vm, &v);

    case OP_OUT:
        rc = chat_to_str(vm, chat_pop(vm, 1), &v);
        return rc == CHAT_OK ? chat_out(vm, &v) : rc;

    case OP_CONST:
        return chat_push(vm, &vm->t->consts[ins->arg]);

    case OP_LOAD:
        return load(vm, (uint32_t) ins->arg);

    case OP_STORE:
        return chat_store(vm, (uint32_t) ins->arg, chat_pop(vm, 1));

    case OP_JMP:
        return chat_jump(vm, ins);

    case OP_JMP_FALSE:
        return chat_truth(chat_pop(vm, 1)) ? CHAT_OK : chat_jump(vm, ins);

    case OP_AND:
    case OP_OR:
        if (chat_truth(peek(vm)) == (ins->op == OP_OR)) {
            return chat_jump(vm, ins);
        }

        chat_pop(vm, 1);
        return CHAT_OK;

    case OP_GETATTR:
        p = peek(vm);
        rc = chat_op_getattr(vm, p, vm->t->names[ins->arg].s,
                             vm->t->names[ins->arg].len,
                             (uint32_t) ins->arg, &v);
        *p = v;
        return rc;

    default:
        return ins->op >= OP_FOR ? chat_step_flow(vm, ins)
                                 : step_value(vm, ins);
    }
}


static int
make_container(chat_vm_t *vm, const chat_ins_t *ins)
{
    int           rc;
    uint32_t      i, n;
    chat_val_t   *from, *items, v = { 0 };
    chat_dict_t  *d;

    n = (uint32_t) ins->arg;

    if (ins->op == OP_DICT) {
        from = chat_pop(vm, 2 * n);
        rc = chat_dict_new(vm, n, &d);

        for (i = 0; rc == CHAT_OK && i < n; i++) {
            rc = chat_dict_put(vm, d, &from[2 * i], &from[2 * i + 1]);
        }

        v.type = CV_DICT;
        v.u.dict = d;
        return rc == CHAT_OK ? chat_push(vm, &v) : rc;
    }

    from = chat_pop(vm, n);
    items = chat_alloc(vm, n * sizeof(chat_val_t));
    if (items == NULL) {
        return vm->err->code;
    }

    memcpy(items, from, n * sizeof(chat_val_t));
    rc = chat_list_of(vm, ins->op == OP_LIST ? CV_LIST : CV_TUPLE, items, n,
                      &v);

    return rc == CHAT_OK ? chat_push(vm, &v) : rc;
}


/* The last item is stored last, so the first must be on top. */
static int
unpack(chat_vm_t *vm, const chat_ins_t *ins)
{
    int                 rc;
    uint32_t            i;
    const chat_list_t  *list;

    rc = chat_iterate(vm, chat_pop(vm, 1), &list);

    if (rc == CHAT_OK && list->count != (uint32_t) ins->arg) {
        return chat_fail(vm, CHAT_ERUNTIME, "%u values for %d names",
                         list->count, ins->arg);
    }

    for (i = (uint32_t) ins->arg; rc == CHAT_OK && i > 0; i--) {
        rc = chat_push(vm, &list->items[i - 1]);
    }

    return rc;
}


static int
store_attr(chat_vm_t *vm, const chat_ins_t *ins)
{
    uint32_t     i;
    chat_ns_t   *ns;
    chat_val_t  *p;

    p = chat_pop(vm, 2);

    if (p[1].type != CV_NS) {
        return chat_fail(vm, CHAT_ERUNTIME,
                         "attributes can be set on namespaces only, not on %s",
                         chat_type_name(&p[1]));
    }

    ns = p[1].u.ns;

    for (i = 0; i < ns->count && ns->names[i] != (uint32_t) ins->arg; i++) {
        /* void */
    }

    if (i == CHAT_NS_ATTRS) {
        return chat_fail(vm, CHAT_ELIMIT, "a namespace with more than %d "
                         "attributes", CHAT_NS_ATTRS);
    }

    ns->names[i] = (uint32_t) ins->arg;
    ns->vals[i] = p[0];
    ns->count += (i == ns->count);
    return CHAT_OK;
}


void
chat_args_of(chat_vm_t *vm, const chat_ins_t *ins, chat_args_t *a)
{
    a->n = ins->n;
    a->kw = ins->kw != 0 ? &vm->t->kwnames[ins->kw] : NULL;
    a->v = chat_pop(vm, chat_args_total(a));
}


/* Filters, tests and methods look at their strings at least once. */
int
chat_charge_args(chat_vm_t *vm, const chat_args_t *a)
{
    uint32_t  i;
    uint64_t  bytes;

    for (i = 0, bytes = 0; i < chat_args_total(a); i++) {
        bytes += a->v[i].type == CV_STR ? a->v[i].len : 0;
    }

    return chat_charge_bytes(vm, bytes);
}


/* Filters and tests have their subject as the first argument. */
static int
filter_or_test(chat_vm_t *vm, const chat_ins_t *ins)
{
    int          rc;
    bool         yes;
    chat_val_t   v;
    chat_args_t  a;

    chat_args_of(vm, ins, &a);
    chat_pop(vm, 1);
    a.v--;
    a.n++;

    rc = chat_charge_args(vm, &a);
    if (rc != CHAT_OK) {
        return rc;
    }

    if (ins->op == OP_FILTER) {
        rc = chat_filter_run(vm, (uint32_t) ins->arg, &a, &v);
    } else {
        rc = chat_test_run(vm, (uint32_t) ins->arg, &a, &yes);
        v = chat_v_bool(yes);
    }

    return rc == CHAT_OK ? chat_push(vm, &v) : rc;
}


/* a < b of a < b < c: leaves b, or false and jumps behind the chain. */
static int
compare_chain(chat_vm_t *vm, const chat_ins_t *ins)
{
    int          rc;
    bool         yes;
    chat_val_t   v, *p;

    p = chat_pop(vm, 2);
    rc = chat_op_compare(vm, ins->n, &p[0], &p[1], &yes);
    if (rc != CHAT_OK) {
        return rc;
    }

    v = yes ? p[1] : chat_v_bool(false);
    rc = chat_push(vm, &v);

    return rc == CHAT_OK && !yes ? chat_jump(vm, ins) : rc;
}


static int
step_value(chat_vm_t *vm, const chat_ins_t *ins)
{
    int          rc;
    bool         yes;
    chat_val_t   v, *p;

    switch (ins->op) {
    case OP_STORE_ATTR:
        return store_attr(vm, ins);

    case OP_POP:
        chat_pop(vm, 1);
        return CHAT_OK;

    case OP_UNPACK:
        return unpack(vm, ins);

    case OP_LIST:
    case OP_TUPLE:
    case OP_DICT:
        return make_container(vm, ins);

    case OP_GETITEM:
        p = chat_pop(vm, 2);
        rc = chat_op_getitem(vm, &p[0], &p[1], &v);
        break;

    case OP_SLICE:
        rc = chat_op_slice(vm, chat_pop(vm, 4), &v);
        break;

    case OP_NEG:
    case OP_POS:
    case OP_NOT:
        return chat_op_unary(vm, ins->op, peek(vm));

    case OP_CMP:
        p = chat_pop(vm, 2);
        rc = chat_op_compare(vm, ins->n, &p[0], &p[1], &yes);
        v = chat_v_bool(yes);
        break;

    case OP_CMP_CHAIN:
        return compare_chain(vm, ins);

    case OP_FILTER:
    case OP_TEST:
        return filter_or_test(vm, ins);

    case OP_CALL:
        return chat_call(vm, ins);

    case OP_CALL_METHOD:
        return chat_call_method(vm, ins);

    default:
        assert(ins->op >= OP_ADD && ins->op <= OP_CONCAT);

        p = chat_pop(vm, ins->n);
        rc = chat_op_arith(vm, ins->op, p, ins->n, &v);
    }

    return rc == CHAT_OK ? chat_push(vm, &v) : rc;
}
