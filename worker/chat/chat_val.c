/*
 * Values: the arena they lie in, making them, and what is true, equal, smaller
 * or contained.  Walks over containers keep their own stack; a container's
 * depth is checked when it is made.
 */

#include <stdio.h>
#include <string.h>

#include "worker/chat/chat_int.h"


#define ALIGN  16

typedef struct {
    const chat_val_t  *a;
    const chat_val_t  *b;
    uint32_t           next;
} pair_walk_t;


int
chat_fail(chat_vm_t *vm, int code, const char *fmt, ...)
{
    va_list  args;

    vm->err->code = code;

    va_start(args, fmt);
    vsnprintf(vm->err->text, sizeof(vm->err->text), fmt, args);
    va_end(args);

    return code;
}


void *
chat_alloc(chat_vm_t *vm, size_t bytes)
{
    size_t  pad;

    pad = (ALIGN - (uintptr_t) vm->mem % ALIGN) % ALIGN;

    if (pad > (size_t) (vm->mem_end - vm->mem)) {
        pad = 0;
        bytes = SIZE_MAX;
    }

    vm->mem += pad;
    return chat_alloc_bytes(vm, bytes);
}


char *
chat_alloc_bytes(chat_vm_t *vm, size_t bytes)
{
    char  *p;

    if (bytes > (size_t) (vm->mem_end - vm->mem)) {
        chat_fail(vm, CHAT_ELIMIT,
                  "the chat template used up its working memory");
        return NULL;
    }

    p = vm->mem;
    vm->mem += bytes;
    return p;
}


int
chat_charge(chat_vm_t *vm, uint64_t steps)
{
    if (steps > (uint64_t) vm->steps) {
        vm->steps = 0;
        return chat_fail(vm, CHAT_ELIMIT, "the chat template needs more than "
                         "%d steps", CHAT_STEPS_MAX);
    }

    vm->steps -= (int64_t) steps;
    return CHAT_OK;
}


int
chat_charge_bytes(chat_vm_t *vm, uint64_t bytes)
{
    return chat_charge(vm, bytes / CHAT_STEP_BYTES);
}


chat_val_t
chat_v_undef(void)
{
    chat_val_t  v = { .type = CV_UNDEF };

    return v;
}


chat_val_t
chat_v_bool(bool b)
{
    chat_val_t  v = { .type = CV_BOOL, .u.i = b };

    return v;
}


chat_val_t
chat_v_int(int64_t i)
{
    chat_val_t  v = { .type = CV_INT, .u.i = i };

    return v;
}


chat_val_t
chat_v_float(double f)
{
    chat_val_t  v = { .type = CV_FLOAT, .u.f = f };

    return v;
}


chat_val_t
chat_v_str(const char *s, uint32_t len)
{
    chat_val_t  v = { .type = CV_STR, .len = len, .u.s = s };

    return v;
}


chat_val_t
chat_v_sub(const chat_val_t *v, uint32_t off, uint32_t len)
{
    chat_val_t  r;

    assert(v->type == CV_STR && off <= v->len && len <= v->len - off);

    r = *v;
    r.u.s += off;
    r.len = len;
    r.map = v->map != NULL ? v->map + off : NULL;

    return r;
}


const char *
chat_type_name(const chat_val_t *v)
{
    static const char  *names[] = {
        "undefined", "none", "a boolean", "an integer", "an integer",
        "a float", "a string", "a list", "a tuple", "a mapping",
        "a namespace", "a loop", "a macro", "a function", "a method"
    };

    assert(v->type <= CV_METHOD);

    return names[v->type];
}


bool
chat_truth(const chat_val_t *v)
{
    switch (v->type) {
    case CV_UNDEF:
    case CV_NONE:
        return false;

    case CV_BOOL:
    case CV_INT:
        return v->u.i != 0;

    case CV_FLOAT:
        return v->u.f != 0;

    case CV_STR:
        return v->len != 0;

    case CV_LIST:
    case CV_TUPLE:
        return v->u.list->count != 0;

    case CV_DICT:
        return v->u.dict->count != 0;

    default:
        return true;
    }
}


bool
chat_is_str(const chat_val_t *v, const char *s)
{
    return v->type == CV_STR && v->len == strlen(s)
           && memcmp(v->u.s, s, v->len) == 0;
}


bool
chat_is_num(const chat_val_t *v)
{
    return v->type == CV_BOOL || v->type == CV_INT || v->type == CV_FLOAT;
}


double
chat_num(const chat_val_t *v)
{
    return v->type == CV_FLOAT ? v->u.f : (double) v->u.i;
}


uint32_t
chat_depth(const chat_val_t *v)
{
    return v->type == CV_LIST || v->type == CV_TUPLE ? v->u.list->depth
           : v->type == CV_DICT ? v->u.dict->depth : 0;
}


int
chat_list_of(chat_vm_t *vm, chat_type_t type, const chat_val_t *items,
    uint32_t n, chat_val_t *out)
{
    uint32_t      i, depth;
    chat_list_t  *list;

    list = chat_alloc(vm, sizeof(*list));
    if (list == NULL) {
        return vm->err->code;
    }

    list->items = items;
    list->count = n;
    list->depth = 1;

    for (i = 0; i < n; i++) {
        depth = chat_depth(&items[i]) + 1;
        list->depth = depth > list->depth ? depth : list->depth;
    }

    if (list->depth > CHAT_DEPTH_MAX) {
        return chat_fail(vm, CHAT_ELIMIT, "lists in one another deeper than "
                         "%d", CHAT_DEPTH_MAX);
    }

    memset(out, 0, sizeof(*out));
    out->type = (uint8_t) type;
    out->u.list = list;
    return chat_charge(vm, n / 8);
}


/* Equality of what is no container; type 0: they need a walk. */
static bool
equal_flat(const chat_val_t *a, const chat_val_t *b, bool *walk)
{
    *walk = false;

    if (chat_is_num(a) && chat_is_num(b)) {
        return a->type != CV_FLOAT && b->type != CV_FLOAT
               ? a->u.i == b->u.i : chat_num(a) == chat_num(b);
    }

    if (a->type != b->type) {
        return false;
    }

    switch (a->type) {
    case CV_UNDEF:
    case CV_NONE:
        return true;

    case CV_STR:
    case CV_BIGINT:
        return a->len == b->len && memcmp(a->u.s, b->u.s, a->len) == 0;

    case CV_LIST:
    case CV_TUPLE:
        *walk = a->u.list->count == b->u.list->count;
        return *walk;

    case CV_DICT:
        *walk = a->u.dict->count == b->u.dict->count;
        return *walk;

    case CV_NS:
        return a->u.ns == b->u.ns;

    default:
        return a->len == b->len && a->u.i == b->u.i;
    }
}


int
chat_equal(chat_vm_t *vm, const chat_val_t *a, const chat_val_t *b, bool *equal)
{
    bool          walk;
    uint32_t      depth;
    pair_walk_t  *w, stack[CHAT_DEPTH_MAX + 1];

    *equal = equal_flat(a, b, &walk);
    if (!walk) {
        return a->type == CV_STR ? chat_charge_bytes(vm, a->len) : CHAT_OK;
    }

    depth = 1;
    stack[0] = (pair_walk_t) { a, b, 0 };

    while (depth > 0) {
        w = &stack[depth - 1];

        if (w->a->type == CV_DICT) {
            if (w->next == w->a->u.dict->count) {
                depth--;
                continue;
            }

            b = chat_dict_get(vm, w->b->u.dict,
                              &w->a->u.dict->pairs[w->next].key);
            a = &w->a->u.dict->pairs[w->next].val;

        } else {
            if (w->next == w->a->u.list->count) {
                depth--;
                continue;
            }

            b = &w->b->u.list->items[w->next];
            a = &w->a->u.list->items[w->next];
        }

        w->next++;

        if (chat_charge(vm, 1 + (a->type == CV_STR ? a->len : 0)
                                / CHAT_STEP_BYTES) != CHAT_OK)
        {
            return vm->err->code;
        }

        if (b == NULL || !equal_flat(a, b, &walk)) {
            *equal = false;
            return CHAT_OK;
        }

        if (walk) {
            assert(depth <= CHAT_DEPTH_MAX);
            stack[depth++] = (pair_walk_t) { a, b, 0 };
        }
    }

    return CHAT_OK;
}


static int
order_flat(const chat_val_t *a, const chat_val_t *b, int *order)
{
    int       d;
    uint32_t  n;

    if (chat_is_num(a) && chat_is_num(b)) {
        if (a->type != CV_FLOAT && b->type != CV_FLOAT) {
            *order = (a->u.i > b->u.i) - (a->u.i < b->u.i);
        } else {
            *order = (chat_num(a) > chat_num(b)) - (chat_num(a) < chat_num(b));
        }

        return 0;
    }

    if (a->type != CV_STR || b->type != CV_STR) {
        return -1;
    }

    n = a->len < b->len ? a->len : b->len;
    d = n == 0 ? 0 : memcmp(a->u.s, b->u.s, n);
    *order = d != 0 ? (d > 0) - (d < 0) : (a->len > b->len) - (a->len < b->len);
    return 0;
}


int
chat_order(chat_vm_t *vm, const chat_val_t *a, const chat_val_t *b, int *order)
{
    uint32_t  i, n, na, nb;

    if (order_flat(a, b, order) == 0) {
        return chat_charge_bytes(vm, a->type == CV_STR ? a->len : 0);
    }

    if ((a->type == CV_LIST || a->type == CV_TUPLE) && a->type == b->type) {
        na = a->u.list->count;
        nb = b->u.list->count;
        n = na < nb ? na : nb;
        *order = 0;

        for (i = 0; i < n && *order == 0; i++) {
            if (order_flat(&a->u.list->items[i], &b->u.list->items[i], order)
                != 0)
            {
                goto bad;
            }

            if (chat_charge_bytes(vm, a->u.list->items[i].type == CV_STR
                                  ? a->u.list->items[i].len : 0) != CHAT_OK)
            {
                return vm->err->code;
            }
        }

        *order = *order != 0 ? *order : (na > nb) - (na < nb);
        return chat_charge(vm, n);
    }

bad:

    return chat_fail(vm, CHAT_ERUNTIME, "%s and %s have no order",
                     chat_type_name(a), chat_type_name(b));
}


int
chat_contains(chat_vm_t *vm, const chat_val_t *item, const chat_val_t *in,
    bool *found)
{
    int                 rc;
    uint32_t            i;
    const chat_list_t  *list;

    *found = false;

    switch (in->type) {
    case CV_STR:
        if (item->type != CV_STR) {
            return chat_fail(vm, CHAT_ERUNTIME, "%s cannot be in a string",
                             chat_type_name(item));
        }

        *found = chat_s_find(in, item, false) >= 0;
        return chat_charge_bytes(vm, in->len);

    case CV_DICT:
        *found = chat_dict_get(vm, in->u.dict, item) != NULL;
        return CHAT_OK;

    case CV_UNDEF:
    case CV_LIST:
    case CV_TUPLE:
        rc = chat_iterate(vm, in, &list);

        for (i = 0; rc == CHAT_OK && i < list->count && !*found; i++) {
            rc = chat_charge(vm, 1);
            if (rc == CHAT_OK) {
                rc = chat_equal(vm, item, &list->items[i], found);
            }
        }

        return rc;

    default:
        return chat_fail(vm, CHAT_ERUNTIME, "nothing can be in %s",
                         chat_type_name(in));
    }
}


static int
iterate_str(chat_vm_t *vm, const chat_val_t *v, const chat_list_t **list)
{
    int          rc;
    uint32_t     i, off, n, cp, count;
    chat_val_t  *items, made;

    count = 0;

    for (off = 0; off < v->len; off += n, count++) {
        n = chat_utf8_get(v->u.s + off, v->u.s + v->len, &cp);
    }

    items = chat_alloc(vm, (size_t) count * sizeof(chat_val_t));
    if (items == NULL) {
        return vm->err->code;
    }

    for (i = 0, off = 0; off < v->len; off += n, i++) {
        n = chat_utf8_get(v->u.s + off, v->u.s + v->len, &cp);
        items[i] = chat_v_sub(v, off, n);
    }

    rc = chat_list_of(vm, CV_LIST, items, count, &made);
    *list = made.u.list;
    return rc;
}


int
chat_iterate(chat_vm_t *vm, const chat_val_t *v, const chat_list_t **list)
{
    int                       rc;
    uint32_t                  i;
    chat_val_t               *items, made;
    const chat_dict_t        *d;
    static const chat_list_t  empty = { NULL, 0, 1 };

    switch (v->type) {
    case CV_UNDEF:
        *list = &empty;
        return CHAT_OK;

    case CV_LIST:
    case CV_TUPLE:
        *list = v->u.list;
        return CHAT_OK;

    case CV_STR:
        return iterate_str(vm, v, list);

    case CV_DICT:
        d = v->u.dict;
        items = chat_alloc(vm, d->count * sizeof(chat_val_t));
        if (items == NULL) {
            return vm->err->code;
        }

        for (i = 0; i < d->count; i++) {
            items[i] = d->pairs[i].key;
        }

        rc = chat_list_of(vm, CV_LIST, items, d->count, &made);
        *list = made.u.list;
        return rc;

    default:
        return chat_fail(vm, CHAT_ERUNTIME, "%s cannot be iterated over",
                         chat_type_name(v));
    }
}


int
chat_length(chat_vm_t *vm, const chat_val_t *v, int64_t *n)
{
    switch (v->type) {
    case CV_UNDEF:
        *n = 0;
        return CHAT_OK;

    case CV_STR:
        *n = chat_utf8_count(v->u.s, v->len);
        return chat_charge_bytes(vm, v->len);

    case CV_LIST:
    case CV_TUPLE:
        *n = v->u.list->count;
        return CHAT_OK;

    case CV_DICT:
        *n = v->u.dict->count;
        return CHAT_OK;

    default:
        return chat_fail(vm, CHAT_ERUNTIME, "%s has no length",
                         chat_type_name(v));
    }
}
