/*
 * Operators of expressions: arithmetic, comparison, attributes, items, slices.
 */

#include <math.h>
#include <string.h>

#include "worker/chat/chat_int.h"


static int add(chat_vm_t *vm, const chat_val_t *v, uint32_t n, chat_val_t *out);
static int concat(chat_vm_t *vm, const chat_val_t *v, uint32_t n,
    chat_val_t *out);
static int join_lists(chat_vm_t *vm, const chat_val_t *v, uint32_t n,
    chat_val_t *out);
static int numbers(chat_vm_t *vm, chat_op_t op, const chat_val_t *a,
    const chat_val_t *b, chat_val_t *out);
static int repeat(chat_vm_t *vm, const chat_val_t *v, int64_t times,
    chat_val_t *out);


static int
wrong(chat_vm_t *vm, const char *what, const chat_val_t *a, const chat_val_t *b)
{
    return chat_fail(vm, CHAT_ERUNTIME, "cannot %s %s and %s", what,
                     chat_type_name(a), chat_type_name(b));
}


/* n operands; more than two only for + and ~. */
int
chat_op_arith(chat_vm_t *vm, chat_op_t op, const chat_val_t *v, uint32_t n,
    chat_val_t *out)
{
    assert(n >= 2);

    if (op == OP_ADD) {
        return add(vm, v, n, out);
    }

    if (op == OP_CONCAT) {
        return concat(vm, v, n, out);
    }

    if (op == OP_MUL && v[1].type == CV_INT && !chat_is_num(&v[0])) {
        return repeat(vm, &v[0], v[1].u.i, out);
    }

    if (op == OP_MUL && v[0].type == CV_INT && !chat_is_num(&v[1])) {
        return repeat(vm, &v[1], v[0].u.i, out);
    }

    return numbers(vm, op, &v[0], &v[1], out);
}


static int
add(chat_vm_t *vm, const chat_val_t *v, uint32_t n, chat_val_t *out)
{
    int       rc;
    uint32_t  i;

    for (i = 1; i < n && v[i].type == v[0].type; i++) {
        /* void */
    }

    if (i == n && v[0].type == CV_STR) {
        return concat(vm, v, n, out);
    }

    if (i == n && (v[0].type == CV_LIST || v[0].type == CV_TUPLE)) {
        return join_lists(vm, v, n, out);
    }

    *out = v[0];

    for (i = 1, rc = CHAT_OK; rc == CHAT_OK && i < n; i++) {
        rc = numbers(vm, OP_ADD, out, &v[i], out);
    }

    return rc;
}


static int
concat(chat_vm_t *vm, const chat_val_t *v, uint32_t n, chat_val_t *out)
{
    int         rc;
    uint32_t    i, total;
    chat_val_t  s;
    chat_buf_t  buf = { 0 };

    for (i = 0, total = 0; i < n; i++) {
        if (v[i].type == CV_STR
            && __builtin_add_overflow(total, v[i].len, &total))
        {
            return chat_fail(vm, CHAT_ELIMIT, "a string above 4 GiB");
        }
    }

    rc = chat_buf_reserve(vm, &buf, total);

    for (i = 0; rc == CHAT_OK && i < n; i++) {
        rc = chat_to_str(vm, &v[i], &s);
        if (rc == CHAT_OK) {
            rc = chat_buf_str(vm, &buf, &s);
        }
    }

    chat_buf_val(&buf, out);
    return rc;
}


static int
join_lists(chat_vm_t *vm, const chat_val_t *v, uint32_t n, chat_val_t *out)
{
    uint32_t     i;
    size_t       total;
    chat_val_t  *items, *to;

    for (i = 0, total = 0; i < n; i++) {
        total += v[i].u.list->count;
    }

    items = chat_alloc(vm, total * sizeof(chat_val_t));
    if (items == NULL) {
        return vm->err->code;
    }

    for (i = 0, to = items; i < n; i++) {
        if (v[i].u.list->count != 0) {
            memcpy(to, v[i].u.list->items,
                   v[i].u.list->count * sizeof(chat_val_t));
            to += v[i].u.list->count;
        }
    }

    return chat_list_of(vm, v[0].type, items, (uint32_t) total, out);
}


static int
repeat(chat_vm_t *vm, const chat_val_t *v, int64_t times, chat_val_t *out)
{
    int          rc;
    int64_t      i, total;
    chat_val_t  *items;
    chat_buf_t   buf = { 0 };

    times = times < 0 ? 0 : times;

    if (v->type != CV_STR && v->type != CV_LIST && v->type != CV_TUPLE) {
        return chat_fail(vm, CHAT_ERUNTIME, "%s cannot be multiplied",
                         chat_type_name(v));
    }

    total = v->type == CV_STR ? v->len : v->u.list->count;

    if (__builtin_mul_overflow(total, times, &total) || total > INT32_MAX / 64)
    {
        return chat_fail(vm, CHAT_ELIMIT,
                         "a multiplication makes a value that is too large");
    }

    times = total == 0 ? 0 : times;

    if (v->type == CV_STR) {
        rc = chat_buf_reserve(vm, &buf, (uint32_t) total);
        if (rc == CHAT_OK) {
            rc = chat_charge(vm, (uint64_t) times);
        }

        for (i = 0; rc == CHAT_OK && i < times; i++) {
            rc = chat_buf_str(vm, &buf, v);
        }

        chat_buf_val(&buf, out);
        return rc;
    }

    items = chat_alloc(vm, (size_t) total * sizeof(chat_val_t));
    if (items == NULL) {
        return vm->err->code;
    }

    rc = chat_charge(vm, (uint64_t) total);

    for (i = 0; rc == CHAT_OK && i < times; i++) {
        memcpy(items + i * v->u.list->count, v->u.list->items,
               v->u.list->count * sizeof(chat_val_t));
    }

    return rc != CHAT_OK ? rc
           : chat_list_of(vm, v->type, items, (uint32_t) total, out);
}


static int
integers(chat_vm_t *vm, chat_op_t op, int64_t a, int64_t b, int64_t *r)
{
    bool     over;
    int64_t  n;

    over = false;

    switch (op) {
    case OP_ADD:
        over = __builtin_add_overflow(a, b, r);
        break;

    case OP_SUB:
        over = __builtin_sub_overflow(a, b, r);
        break;

    case OP_MUL:
        over = __builtin_mul_overflow(a, b, r);
        break;

    case OP_POW:
        for (n = 0, *r = 1; n < b && !over; n++) {
            over = __builtin_mul_overflow(*r, a, r);

            if (*r == 0 || *r == 1) {
                break;
            }

            if (*r == -1) {
                *r = b % 2 == 0 ? 1 : -1;
                break;
            }
        }

        break;

    default:
        if (a == INT64_MIN && b == -1) {
            over = true;
            break;
        }

        n = a / b - ((a % b != 0) && ((a < 0) != (b < 0)));
        *r = op == OP_FLOORDIV ? n : a - n * b;
    }

    return over ? chat_fail(vm, CHAT_ELIMIT, "an integer above 64 bits")
                : CHAT_OK;
}


static int
numbers(chat_vm_t *vm, chat_op_t op, const chat_val_t *a, const chat_val_t *b,
    chat_val_t *out)
{
    double   x, y, r;
    int64_t  i;

    if (!chat_is_num(a) || !chat_is_num(b)) {
        return wrong(vm, op == OP_ADD ? "add" : "compute with", a, b);
    }

    if (chat_num(b) == 0 && (op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD))
    {
        return chat_fail(vm, CHAT_ERUNTIME, "division by zero");
    }

    if (a->type != CV_FLOAT && b->type != CV_FLOAT && op != OP_DIV
        && (op != OP_POW || b->u.i >= 0))
    {
        i = 0;

        if (integers(vm, op, a->u.i, b->u.i, &i) != CHAT_OK) {
            return vm->err->code;
        }

        *out = chat_v_int(i);
        return CHAT_OK;
    }

    x = chat_num(a);
    y = chat_num(b);

    switch (op) {
    case OP_ADD:
        r = x + y;
        break;

    case OP_SUB:
        r = x - y;
        break;

    case OP_MUL:
        r = x * y;
        break;

    case OP_DIV:
        r = x / y;
        break;

    case OP_FLOORDIV:
        r = floor(x / y);
        break;

    case OP_MOD:
        r = fmod(x, y);
        r += r != 0 && (r < 0) != (y < 0) ? y : 0;
        break;

    default:
        r = pow(x, y);
    }

    *out = chat_v_float(r);
    return CHAT_OK;
}


int
chat_op_compare(chat_vm_t *vm, unsigned cmp, const chat_val_t *a,
    const chat_val_t *b, bool *yes)
{
    int  rc, order;

    switch (cmp) {
    case CMP_EQ:
    case CMP_NE:
        rc = chat_equal(vm, a, b, yes);
        *yes ^= cmp == CMP_NE;
        return rc;

    case CMP_IN:
    case CMP_NOT_IN:
        rc = chat_contains(vm, a, b, yes);
        *yes ^= cmp == CMP_NOT_IN;
        return rc;

    default:
        rc = chat_order(vm, a, b, &order);
        *yes = rc == CHAT_OK && (cmp == CMP_LT ? order < 0
                                 : cmp == CMP_LE ? order <= 0
                                 : cmp == CMP_GT ? order > 0 : order >= 0);
        return rc;
    }
}


int
chat_op_unary(chat_vm_t *vm, chat_op_t op, chat_val_t *v)
{
    if (op == OP_NOT) {
        *v = chat_v_bool(!chat_truth(v));
        return CHAT_OK;
    }

    if (!chat_is_num(v)) {
        return chat_fail(vm, CHAT_ERUNTIME, "%s has no sign",
                         chat_type_name(v));
    }

    if (v->type == CV_FLOAT) {
        v->u.f = op == OP_NEG ? -v->u.f : v->u.f;
        return CHAT_OK;
    }

    if (op == OP_NEG && v->u.i == INT64_MIN) {
        return chat_fail(vm, CHAT_ELIMIT, "an integer above 64 bits");
    }

    *v = chat_v_int(op == OP_NEG ? -v->u.i : v->u.i);
    return CHAT_OK;
}


static bool
named(const char *name, uint32_t len, const char *s)
{
    return strlen(s) == len && memcmp(name, s, len) == 0;
}


/* What `loop` knows; the loop must still be running. */
static int
loop_attr(chat_vm_t *vm, const chat_val_t *v, const char *name, uint32_t len,
    chat_val_t *out)
{
    int64_t              i, n;
    const chat_frame_t  *f;

    *out = chat_v_undef();
    f = v->len < vm->frames_len ? &vm->frames[v->len] : NULL;

    if (f == NULL || f->kind != CF_FOR || f->serial != v->u.i) {
        return CHAT_OK;
    }

    n = f->list->count;
    i = (int64_t) f->index - 1;

    if (named(name, len, "index")) {
        *out = chat_v_int(i + 1);
    } else if (named(name, len, "index0")) {
        *out = chat_v_int(i);
    } else if (named(name, len, "revindex")) {
        *out = chat_v_int(n - i);
    } else if (named(name, len, "revindex0")) {
        *out = chat_v_int(n - i - 1);
    } else if (named(name, len, "first")) {
        *out = chat_v_bool(i == 0);
    } else if (named(name, len, "last")) {
        *out = chat_v_bool(i == n - 1);
    } else if (named(name, len, "length")) {
        *out = chat_v_int(n);
    } else if (named(name, len, "depth")) {
        *out = chat_v_int(1);
    } else if (named(name, len, "depth0")) {
        *out = chat_v_int(0);
    } else if (named(name, len, "previtem") && i > 0) {
        *out = f->list->items[i - 1];
    } else if (named(name, len, "nextitem") && i + 1 < n) {
        *out = f->list->items[i + 1];
    }

    return CHAT_OK;
}


/* v.name; an attribute of the value's type comes before a member. */
int
chat_op_getattr(chat_vm_t *vm, const chat_val_t *v, const char *name,
    uint32_t len, uint32_t id, chat_val_t *out)
{
    uint32_t           i;
    chat_val_t         key;
    const chat_val_t  *hit;

    *out = chat_v_undef();

    switch (v->type) {
    case CV_UNDEF:
        return chat_fail(vm, CHAT_ERUNTIME, "\"%.*s\" is undefined and has no "
                         "\"%.*s\"", v->len > 60 ? 60 : (int) v->len,
                         v->u.s != NULL ? v->u.s : "",
                         len > 60 ? 60 : (int) len, name);

    case CV_LOOP:
        return loop_attr(vm, v, name, len, out);

    case CV_NS:
        for (i = 0; i < v->u.ns->count; i++) {
            if (v->u.ns->names[i] == id) {
                *out = v->u.ns->vals[i];
            }
        }

        return CHAT_OK;

    default:
        break;
    }

    if (chat_method_exists(v, name, len)) {
        out->type = CV_METHOD;
        return CHAT_OK;
    }

    if (v->type == CV_DICT) {
        key = chat_v_str(name, len);
        hit = chat_dict_get(vm, v->u.dict, &key);

        if (hit != NULL) {
            *out = *hit;
            return CHAT_OK;
        }
    }

    out->u.s = name;
    out->len = len;
    return CHAT_OK;
}


/* Where an index from Python's view lies in a sequence of n, or -1. */
static int64_t
position(const chat_val_t *key, int64_t n)
{
    int64_t  i;

    if (key->type != CV_INT && key->type != CV_BOOL) {
        return -1;
    }

    i = key->u.i < 0 ? key->u.i + n : key->u.i;
    return i >= 0 && i < n ? i : -1;
}


/* Whether the sequence, string or dictionary v has key, and what is there. */
static bool
member(chat_vm_t *vm, const chat_val_t *v, const chat_val_t *key,
    chat_val_t *out)
{
    int64_t            i;
    uint32_t           off, end;
    const chat_val_t  *hit;

    switch (v->type) {
    case CV_LIST:
    case CV_TUPLE:
        i = position(key, v->u.list->count);

        if (i >= 0) {
            *out = v->u.list->items[i];
        }

        return i >= 0;

    case CV_STR:
        i = position(key, chat_utf8_count(v->u.s, v->len));

        if (i >= 0) {
            off = chat_utf8_offset(v->u.s, v->len, (uint32_t) i);
            end = off + chat_utf8_offset(v->u.s + off, v->len - off, 1);
            *out = chat_v_sub(v, off, end - off);
        }

        return i >= 0;

    case CV_DICT:
        hit = chat_dict_get(vm, v->u.dict, key);

        if (hit != NULL) {
            *out = *hit;
        }

        return hit != NULL;

    default:
        return false;
    }
}


/* v[key]: a member comes before an attribute. */
int
chat_op_getitem(chat_vm_t *vm, const chat_val_t *v, const chat_val_t *key,
    chat_val_t *out)
{
    *out = chat_v_undef();

    if (v->type == CV_STR && chat_charge_bytes(vm, v->len) != CHAT_OK) {
        return vm->err->code;
    }

    if (v->type == CV_UNDEF) {
        return chat_fail(vm, CHAT_ERUNTIME, "\"%.*s\" is undefined and has no "
                         "items", v->len > 60 ? 60 : (int) v->len,
                         v->u.s != NULL ? v->u.s : "");
    }

    if (v->type == CV_LOOP || v->type == CV_NS) {
        return chat_fail(vm, CHAT_EUNSUPPORTED, "%s has no items, only "
                         "attributes", chat_type_name(v));
    }

    if (member(vm, v, key, out)) {
        return CHAT_OK;
    }

    if (key->type == CV_STR && chat_method_exists(v, key->u.s, key->len)) {
        out->type = CV_METHOD;

    } else if (key->type == CV_STR) {
        out->u.s = key->u.s;
        out->len = key->len;
    }

    return CHAT_OK;
}


/* One bound of a slice, as Python clamps it. */
static int
bound(chat_vm_t *vm, const chat_val_t *v, int64_t none, int64_t n, int64_t step,
    int64_t *to)
{
    if (v->type == CV_NONE) {
        *to = none;
        return CHAT_OK;
    }

    if (v->type != CV_INT && v->type != CV_BOOL) {
        return chat_fail(vm, CHAT_ERUNTIME, "%s cannot bound a slice",
                         chat_type_name(v));
    }

    *to = v->u.i < 0 ? v->u.i + n : v->u.i;

    if (*to < 0) {
        *to = step < 0 ? -1 : 0;
    } else if (*to >= n) {
        *to = step < 0 ? n - 1 : n;
    }

    return CHAT_OK;
}


/* v[0][v[1]:v[2]:v[3]] */
int
chat_op_slice(chat_vm_t *vm, const chat_val_t *v, chat_val_t *out)
{
    int                 rc;
    int64_t             n, from, to, step, i;
    uint32_t            k, a, b;
    chat_val_t         *items, list;
    const chat_list_t  *seq;
    chat_args_t         join = { .v = &list, .n = 1 };

    if (v->type != CV_STR && v->type != CV_LIST && v->type != CV_TUPLE) {
        *out = chat_v_undef();
        return v->type != CV_UNDEF ? CHAT_OK
               : chat_fail(vm, CHAT_ERUNTIME, "undefined cannot be sliced");
    }

    rc = chat_length(vm, v, &n);
    step = v[3].type == CV_NONE ? 1 : v[3].type == CV_INT ? v[3].u.i : 0;

    if (step == 0 || step < -INT32_MAX || step > INT32_MAX) {
        return chat_fail(vm, CHAT_ERUNTIME, "a slice with a bad step");
    }

    if (rc == CHAT_OK) {
        rc = bound(vm, &v[1], step < 0 ? n - 1 : 0, n, step, &from);
    }

    if (rc == CHAT_OK) {
        rc = bound(vm, &v[2], step < 0 ? -1 : n, n, step, &to);
    }

    if (rc != CHAT_OK) {
        return rc;
    }

    if (v->type == CV_STR && step == 1) {
        a = chat_utf8_offset(v->u.s, v->len, (uint32_t) from);
        b = to <= from ? a : chat_utf8_offset(v->u.s, v->len, (uint32_t) to);
        *out = chat_v_sub(v, a, b - a);
        return CHAT_OK;
    }

    rc = chat_iterate(vm, v, &seq);
    items = rc == CHAT_OK ? chat_alloc(vm, seq->count * sizeof(chat_val_t))
                          : NULL;
    if (items == NULL) {
        return vm->err->code;
    }

    for (i = from, k = 0; step > 0 ? i < to : i > to; i += step) {
        items[k++] = seq->items[i];
    }

    rc = chat_list_of(vm, v->type == CV_STR ? CV_LIST : v->type, items, k,
                      &list);

    if (rc == CHAT_OK && v->type == CV_STR) {
        return chat_seq_join(vm, &join, out);
    }

    *out = list;
    return rc;
}
