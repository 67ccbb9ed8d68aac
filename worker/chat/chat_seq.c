/*
 * Filters on sequences: map, select and reject, sort, unique, join, sum.
 */

#include <string.h>

#include "worker/chat/chat_int.h"


/* "a.b.0" on a value, as the filters' attribute argument takes it. */
static int
attribute(chat_vm_t *vm, const chat_val_t *v, const chat_val_t *path,
    chat_val_t *out)
{
    int          rc;
    int64_t      i;
    uint32_t     off, n;
    const char  *dot;
    chat_val_t   key, from;

    if (path->type == CV_INT) {
        return chat_op_getitem(vm, v, path, out);
    }

    if (path->type != CV_STR) {
        return chat_arg_fail(vm, "attribute", "a name", path);
    }

    *out = *v;

    for (off = 0, rc = CHAT_OK; rc == CHAT_OK && off <= path->len; off += n + 1)
    {
        dot = off < path->len ? memchr(path->u.s + off, '.', path->len - off)
                              : NULL;
        n = (dot != NULL ? (uint32_t) (dot - path->u.s) : path->len) - off;
        key = chat_v_sub(path, off, n);

        if (n > 0 && n < 6 && key.u.s[0] >= '0' && key.u.s[0] <= '9') {
            for (i = 0; n > 0 && key.len > 0; key.u.s++, key.len--) {
                i = i * 10 + (*key.u.s - '0');
            }

            key = chat_v_int(i);
        }

        from = *out;
        rc = chat_op_getitem(vm, &from, &key, out);
    }

    return rc;
}


static int
room(chat_vm_t *vm, const chat_val_t *v, const chat_list_t **list,
    chat_val_t **items)
{
    int  rc;

    rc = chat_iterate(vm, v, list);
    if (rc != CHAT_OK) {
        return rc;
    }

    *items = chat_alloc(vm, (*list)->count * sizeof(chat_val_t));
    if (*items == NULL) {
        return vm->err->code;
    }

    return chat_charge(vm, (*list)->count);
}


/* As room(), but what is false counts as empty, as the reference has it. */
static int
room_or_none(chat_vm_t *vm, const chat_val_t *v, const chat_list_t **list,
    chat_val_t **items)
{
    chat_val_t  none;

    none = chat_v_undef();
    return room(vm, chat_truth(v) ? v : &none, list, items);
}


/* map("filter", arguments...) or map(attribute=..., default=...) */
int
chat_seq_map(chat_vm_t *vm, chat_args_t *a, chat_val_t *out)
{
    int                 rc, id;
    uint32_t            i, k;
    chat_val_t         *items, args[CHAT_ARGS_MAX];
    chat_args_t         sub;
    const chat_val_t   *path, *other;
    const chat_list_t  *list;

    rc = room_or_none(vm, &a->v[0], &list, &items);
    id = -1;
    path = a->n == 1 ? chat_arg(vm, a, 1, "attribute") : NULL;
    other = chat_arg(vm, a, CHAT_ARGS_MAX, "default");

    if (rc == CHAT_OK && path == NULL) {
        if (a->n < 2 || a->v[1].type != CV_STR) {
            return chat_arg_fail(vm, "map", "a filter or an attribute", NULL);
        }

        id = chat_filter_find(a->v[1].u.s, a->v[1].len);

        /* Filters that call filters would make this recursive. */

        if (id < 0 || chat_is_str(&a->v[1], "map")
            || chat_is_str(&a->v[1], "select")
            || chat_is_str(&a->v[1], "reject") || a->kw != NULL)
        {
            return chat_fail(vm, CHAT_EUNSUPPORTED,
                             "map with this filter is not supported");
        }
    }

    for (i = 0; rc == CHAT_OK && i < list->count; i++) {
        if (path != NULL) {
            rc = attribute(vm, &list->items[i], path, &items[i]);

            if (rc == CHAT_OK && items[i].type == CV_UNDEF && other != NULL) {
                items[i] = *other;
            }

            continue;
        }

        args[0] = list->items[i];

        for (k = 2; k < a->n && k < CHAT_ARGS_MAX; k++) {
            args[k - 1] = a->v[k];
        }

        sub.v = args;
        sub.n = a->n - 1;
        sub.kw = NULL;
        rc = chat_filter_run(vm, (uint32_t) id, &sub, &items[i]);
    }

    return rc == CHAT_OK ? chat_list_of(vm, CV_LIST, items, list->count, out)
                         : rc;
}


/* select([test, arguments]) and selectattr(attribute, [test, arguments]) */
int
chat_seq_select(chat_vm_t *vm, chat_args_t *a, bool keep, bool by_attr,
    chat_val_t *out)
{
    int                 rc, id;
    bool                yes;
    uint32_t            i, k, n, first;
    chat_val_t         *items, args[CHAT_ARGS_MAX];
    chat_args_t         sub = { .v = args };
    const chat_list_t  *list;

    rc = room_or_none(vm, &a->v[0], &list, &items);
    first = by_attr ? 2 : 1;
    id = -1;

    if (rc == CHAT_OK && by_attr && a->n < 2) {
        return chat_arg_fail(vm, "selectattr", "an attribute", NULL);
    }

    if (rc == CHAT_OK && a->n > first) {
        id = a->v[first].type == CV_STR
             ? chat_test_find(a->v[first].u.s, a->v[first].len) : -1;

        if (id < 0) {
            return chat_fail(vm, CHAT_EUNSUPPORTED,
                             "select with this test is not supported");
        }
    }

    for (i = 0, n = 0; rc == CHAT_OK && i < list->count; i++) {
        args[0] = list->items[i];

        if (by_attr) {
            rc = attribute(vm, &list->items[i], &a->v[1], &args[0]);
        }

        yes = chat_truth(&args[0]);

        if (rc == CHAT_OK && id >= 0) {
            for (k = first + 1; k < a->n && k < CHAT_ARGS_MAX; k++) {
                args[k - first] = a->v[k];
            }

            sub.n = a->n - first;
            rc = chat_test_run(vm, (uint32_t) id, &sub, &yes);
        }

        if (yes == keep) {
            items[n++] = list->items[i];
        }
    }

    return rc == CHAT_OK ? chat_list_of(vm, CV_LIST, items, n, out) : rc;
}


typedef struct {
    chat_val_t  key;
    chat_val_t  val;
} keyed_t;


/* Strings are compared without regard to case unless told otherwise. */
static int
sort_key(chat_vm_t *vm, const chat_val_t *v, const chat_val_t *path,
    bool exact, chat_val_t *key)
{
    int  rc;

    *key = *v;
    rc = path != NULL ? attribute(vm, v, path, key) : CHAT_OK;

    return rc == CHAT_OK && key->type == CV_STR && !exact
           ? chat_s_case(vm, key, 'l', key) : rc;
}


/* A stable merge sort from the bottom up. */
static int
merge_sort(chat_vm_t *vm, keyed_t *v, uint32_t n, bool reverse)
{
    int       rc, order;
    keyed_t  *to, *from, *swap;
    uint64_t  width, lo, mid, hi, i, j, k;

    from = v;
    to = chat_alloc(vm, n * sizeof(keyed_t));
    if (to == NULL) {
        return vm->err->code;
    }

    for (width = 1; width < n; width *= 2) {
        for (lo = 0; lo < n; lo += 2 * width) {
            mid = lo + width < n ? lo + width : n;
            hi = lo + 2 * width < n ? lo + 2 * width : n;

            for (i = lo, j = mid, k = lo; k < hi; k++) {
                order = 0;

                if (i < mid && j < hi) {
                    rc = chat_order(vm, &from[i].key, &from[j].key, &order);
                    rc = rc == CHAT_OK ? chat_charge(vm, 1) : rc;

                    if (rc != CHAT_OK) {
                        return rc;
                    }
                }

                order = reverse ? -order : order;
                to[k] = j >= hi || (i < mid && order <= 0) ? from[i++]
                                                           : from[j++];
            }
        }

        swap = from;
        from = to;
        to = swap;
    }

    if (from != v) {
        memcpy(v, from, n * sizeof(keyed_t));
    }

    return CHAT_OK;
}


static bool
flag(chat_vm_t *vm, const chat_args_t *a, uint32_t i, const char *name)
{
    const chat_val_t  *v;

    v = chat_arg(vm, a, i, name);
    return v != NULL && chat_truth(v);
}


static int
sort_by(chat_vm_t *vm, const chat_list_t *list, const chat_val_t *path,
    bool exact, bool reverse, chat_val_t *out)
{
    int          rc;
    keyed_t     *v;
    uint32_t     i;
    chat_val_t  *items;

    v = chat_alloc(vm, list->count * sizeof(keyed_t));
    items = chat_alloc(vm, list->count * sizeof(chat_val_t));

    if (v == NULL || items == NULL) {
        return vm->err->code;
    }

    for (i = 0, rc = CHAT_OK; rc == CHAT_OK && i < list->count; i++) {
        v[i].val = list->items[i];
        rc = sort_key(vm, &list->items[i], path, exact, &v[i].key);
    }

    if (rc == CHAT_OK) {
        rc = merge_sort(vm, v, list->count, reverse);
    }

    for (i = 0; rc == CHAT_OK && i < list->count; i++) {
        items[i] = v[i].val;
    }

    return rc == CHAT_OK ? chat_list_of(vm, CV_LIST, items, list->count, out)
                         : rc;
}


/* sort(reverse=false, case_sensitive=false, attribute=none) */
int
chat_seq_sort(chat_vm_t *vm, chat_args_t *a, chat_val_t *out)
{
    int                 rc;
    const chat_val_t   *path;
    const chat_list_t  *list;

    path = chat_arg(vm, a, 3, "attribute");
    path = path != NULL && path->type == CV_NONE ? NULL : path;

    rc = chat_iterate(vm, &a->v[0], &list);

    return rc != CHAT_OK ? rc
           : sort_by(vm, list, path, flag(vm, a, 2, "case_sensitive"),
                     flag(vm, a, 1, "reverse"), out);
}


/* dictsort(case_sensitive=false, by="key", reverse=false) */
int
chat_seq_dictsort(chat_vm_t *vm, chat_args_t *a, chat_val_t *out)
{
    int                rc;
    chat_val_t         items, index;
    const chat_val_t  *by;

    if (a->v[0].type != CV_DICT) {
        return chat_arg_fail(vm, "dictsort", "a mapping", &a->v[0]);
    }

    by = chat_arg(vm, a, 2, "by");
    index = chat_v_int(by != NULL && chat_is_str(by, "value"));

    rc = chat_dict_items(vm, a->v[0].u.dict, &items);

    return rc != CHAT_OK ? rc
           : sort_by(vm, items.u.list, &index,
                     flag(vm, a, 1, "case_sensitive"),
                     flag(vm, a, 3, "reverse"), out);
}


/* unique(case_sensitive=false, attribute=none): the first of each stays. */
int
chat_seq_unique(chat_vm_t *vm, chat_args_t *a, chat_val_t *out)
{
    int                 rc;
    bool                exact, same;
    uint32_t            i, k, n;
    chat_val_t         *items, *keys;
    const chat_val_t   *path;
    const chat_list_t  *list;

    exact = flag(vm, a, 1, "case_sensitive");
    path = chat_arg(vm, a, 2, "attribute");
    path = path != NULL && path->type == CV_NONE ? NULL : path;

    rc = room(vm, &a->v[0], &list, &items);
    keys = rc == CHAT_OK ? chat_alloc(vm, list->count * sizeof(chat_val_t))
                         : NULL;
    if (keys == NULL) {
        return vm->err->code;
    }

    for (i = 0, n = 0; rc == CHAT_OK && i < list->count; i++) {
        rc = sort_key(vm, &list->items[i], path, exact, &keys[n]);
        same = false;

        for (k = 0; rc == CHAT_OK && k < n && !same; k++) {
            rc = chat_equal(vm, &keys[k], &keys[n], &same);
            rc = rc == CHAT_OK ? chat_charge(vm, 1) : rc;
        }

        if (rc == CHAT_OK && !same) {
            items[n++] = list->items[i];
        }
    }

    return rc == CHAT_OK ? chat_list_of(vm, CV_LIST, items, n, out) : rc;
}


/* join(d="", attribute=none) */
int
chat_seq_join(chat_vm_t *vm, chat_args_t *a, chat_val_t *out)
{
    int                 rc;
    uint32_t            i;
    chat_val_t          s, sep;
    chat_buf_t          buf = { 0 };
    const chat_val_t   *d, *path;
    const chat_list_t  *list;

    d = chat_arg(vm, a, 1, "d");
    path = chat_arg(vm, a, 2, "attribute");
    path = path != NULL && path->type == CV_NONE ? NULL : path;

    rc = chat_iterate(vm, &a->v[0], &list);
    sep = chat_v_str("", 0);

    if (rc == CHAT_OK && d != NULL) {
        rc = chat_to_str(vm, d, &sep);
    }

    for (i = 0; rc == CHAT_OK && i < list->count; i++) {
        s = list->items[i];

        if (i > 0) {
            rc = chat_buf_str(vm, &buf, &sep);
        }

        if (rc == CHAT_OK && path != NULL) {
            rc = attribute(vm, &list->items[i], path, &s);
        }

        rc = rc == CHAT_OK ? chat_to_str(vm, &s, &s) : rc;
        rc = rc == CHAT_OK ? chat_buf_str(vm, &buf, &s) : rc;
        rc = rc == CHAT_OK ? chat_charge(vm, 1) : rc;
    }

    chat_buf_val(&buf, out);
    return rc;
}


/* sum(attribute=none, start=0) */
int
chat_seq_sum(chat_vm_t *vm, chat_args_t *a, chat_val_t *out)
{
    int                 rc;
    uint32_t            i;
    chat_val_t          v[2];
    const chat_val_t   *path, *start;
    const chat_list_t  *list;

    path = chat_arg(vm, a, 1, "attribute");
    path = path != NULL && path->type == CV_NONE ? NULL : path;
    start = chat_arg(vm, a, 2, "start");
    v[0] = start != NULL ? *start : chat_v_int(0);

    rc = chat_iterate(vm, &a->v[0], &list);

    for (i = 0; rc == CHAT_OK && i < list->count; i++) {
        v[1] = list->items[i];

        if (path != NULL) {
            rc = attribute(vm, &list->items[i], path, &v[1]);
        }

        rc = rc == CHAT_OK ? chat_op_arith(vm, OP_ADD, v, 2, &v[0]) : rc;
        rc = rc == CHAT_OK ? chat_charge(vm, 1) : rc;
    }

    *out = v[0];
    return rc;
}
