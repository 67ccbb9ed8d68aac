/*
 * Filters (value | name(arguments)): the table, and those that work on one
 * value. Filters on sequences are in chat_seq.c, on strings in chat_strs.c.
 */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "worker/chat/chat_int.h"


typedef int (*filter_t)(chat_vm_t *vm, chat_args_t *a, chat_val_t *out);

#define FILTER(name)                                                          \
    static int f_##name(chat_vm_t *vm, chat_args_t *a, chat_val_t *out)

FILTER(abs);
FILTER(attr);
FILTER(capitalize);
FILTER(count);
FILTER(default);
FILTER(first);
FILTER(float);
FILTER(int);
FILTER(items);
FILTER(last);
FILTER(list);
FILTER(lower);
FILTER(reject);
FILTER(rejectattr);
FILTER(replace);
FILTER(reverse);
FILTER(round);
FILTER(safe);
FILTER(select);
FILTER(selectattr);
FILTER(string);
FILTER(title);
FILTER(tojson);
FILTER(trim);
FILTER(upper);

static const struct {
    const char  *name;
    filter_t     run;
} filters[] = {
    { "abs", f_abs },               { "attr", f_attr },
    { "capitalize", f_capitalize }, { "count", f_count },
    { "d", f_default },             { "default", f_default },
    { "dictsort", chat_seq_dictsort },
    { "first", f_first },           { "float", f_float },
    { "indent", chat_s_indent },    { "int", f_int },
    { "items", f_items },           { "join", chat_seq_join },
    { "last", f_last },             { "length", f_count },
    { "list", f_list },             { "lower", f_lower },
    { "map", chat_seq_map },        { "reject", f_reject },
    { "rejectattr", f_rejectattr }, { "replace", f_replace },
    { "reverse", f_reverse },       { "round", f_round },
    { "safe", f_safe },             { "select", f_select },
    { "selectattr", f_selectattr }, { "sort", chat_seq_sort },
    { "string", f_string },         { "sum", chat_seq_sum },
    { "title", f_title },           { "tojson", f_tojson },
    { "trim", f_trim },             { "unique", chat_seq_unique },
    { "upper", f_upper }
};


int
chat_filter_find(const char *s, size_t len)
{
    unsigned  i;

    for (i = 0; i < sizeof(filters) / sizeof(filters[0]); i++) {
        if (strlen(filters[i].name) == len
            && memcmp(filters[i].name, s, len) == 0)
        {
            return (int) i;
        }
    }

    return -1;
}


int
chat_filter_run(chat_vm_t *vm, uint32_t id, chat_args_t *a, chat_val_t *out)
{
    assert(id < sizeof(filters) / sizeof(filters[0]) && a->n > 0);

    return filters[id].run(vm, a, out);
}


/* ---- arguments ---- */

uint32_t
chat_args_total(const chat_args_t *a)
{
    return a->n + (a->kw != NULL ? a->kw->count : 0);
}


const chat_val_t *
chat_arg(chat_vm_t *vm, const chat_args_t *a, uint32_t i, const char *name)
{
    uint32_t            k;
    const chat_name_t  *n;

    if (i < a->n) {
        return &a->v[i];
    }

    for (k = 0; name != NULL && a->kw != NULL && k < a->kw->count; k++) {
        n = &vm->t->names[a->kw->names[k]];

        if (n->len == strlen(name) && memcmp(n->s, name, n->len) == 0) {
            return &a->v[a->n + k];
        }
    }

    return NULL;
}


int
chat_arg_fail(chat_vm_t *vm, const char *who, const char *wants,
    const chat_val_t *v)
{
    return chat_fail(vm, CHAT_ERUNTIME, "%s needs %s, not %s", who, wants,
                     v != NULL ? chat_type_name(v) : "nothing");
}


static bool
arg_true(chat_vm_t *vm, const chat_args_t *a, uint32_t i, const char *name)
{
    const chat_val_t  *v;

    v = chat_arg(vm, a, i, name);
    return v != NULL && chat_truth(v);
}


/* ---- filters ---- */

FILTER(abs)
{
    const chat_val_t  *v;

    v = &a->v[0];

    if (!chat_is_num(v)) {
        return chat_arg_fail(vm, "abs", "a number", v);
    }

    if (v->type == CV_FLOAT) {
        *out = chat_v_float(fabs(v->u.f));
        return CHAT_OK;
    }

    if (v->u.i == INT64_MIN) {
        return chat_fail(vm, CHAT_ELIMIT, "an integer above 64 bits");
    }

    *out = chat_v_int(v->u.i < 0 ? -v->u.i : v->u.i);
    return CHAT_OK;
}


/* Attributes only; no member of a mapping is one. */
FILTER(attr)
{
    const chat_val_t  *name;

    name = chat_arg(vm, a, 1, "name");

    if (name == NULL || name->type != CV_STR) {
        return chat_arg_fail(vm, "attr", "a name", name);
    }

    if (a->v[0].type != CV_NS && a->v[0].type != CV_LOOP) {
        *out = chat_v_undef();
        return CHAT_OK;
    }

    return chat_fail(vm, CHAT_EUNSUPPORTED, "attr of %s is not supported",
                     chat_type_name(&a->v[0]));
}


static int
cased(chat_vm_t *vm, chat_args_t *a, char how, chat_val_t *out)
{
    int         rc;
    chat_val_t  s;

    rc = chat_to_str(vm, &a->v[0], &s);
    return rc == CHAT_OK ? chat_s_case(vm, &s, how, out) : rc;
}


FILTER(capitalize)
{
    return cased(vm, a, 'c', out);
}


FILTER(lower)
{
    return cased(vm, a, 'l', out);
}


FILTER(title)
{
    return cased(vm, a, 't', out);
}


FILTER(upper)
{
    return cased(vm, a, 'u', out);
}


FILTER(count)
{
    int      rc;
    int64_t  n;

    rc = chat_length(vm, &a->v[0], &n);
    *out = chat_v_int(rc == CHAT_OK ? n : 0);
    return rc;
}


FILTER(default)
{
    const chat_val_t  *other;

    other = chat_arg(vm, a, 1, "default_value");

    if (a->v[0].type == CV_UNDEF
        || (arg_true(vm, a, 2, "boolean") && !chat_truth(&a->v[0])))
    {
        *out = other != NULL ? *other : chat_v_str("", 0);
    } else {
        *out = a->v[0];
    }

    return CHAT_OK;
}


static int
end_of(chat_vm_t *vm, chat_args_t *a, bool last, chat_val_t *out)
{
    int                 rc;
    const chat_list_t  *list;

    rc = chat_iterate(vm, &a->v[0], &list);

    if (rc == CHAT_OK) {
        *out = list->count == 0 ? chat_v_undef()
               : list->items[last ? list->count - 1 : 0];
    }

    return rc;
}


FILTER(first)
{
    return end_of(vm, a, false, out);
}


FILTER(last)
{
    return end_of(vm, a, true, out);
}


/* A number from a whole string, surrounded by white space at most. */
static bool
parse_number(const chat_val_t *v, double *f, int64_t *i, bool *whole)
{
    char        text[64], *end;
    uint32_t    k;
    chat_val_t  s;

    chat_s_strip(v, NULL, 3, &s);

    if (s.len == 0 || s.len >= sizeof(text)) {
        return false;
    }

    memcpy(text, s.u.s, s.len);
    text[s.len] = '\0';

    *i = 0;
    *whole = true;

    for (k = (text[0] == '-' || text[0] == '+'); k < s.len; k++) {
        if (text[k] < '0' || text[k] > '9') {
            *whole = false;

            if (strchr("+-.eE", text[k]) == NULL) {
                return false;
            }

        } else if (*whole && (__builtin_mul_overflow(*i, 10, i)
                              || __builtin_add_overflow(*i, text[k] - '0', i)))
        {
            return false;
        }
    }

    *i = text[0] == '-' ? -*i : *i;
    *f = strtod(text, &end);
    return end == text + s.len;
}


FILTER(float)
{
    bool               whole;
    double             f;
    int64_t            i;
    const chat_val_t  *v, *other;

    v = &a->v[0];
    other = chat_arg(vm, a, 1, "default");

    if (v->type == CV_UNDEF) {
        return chat_arg_fail(vm, "float", "a value", v);
    }

    if (chat_is_num(v)) {
        *out = chat_v_float(chat_num(v));
    } else if (v->type == CV_STR && parse_number(v, &f, &i, &whole)) {
        *out = chat_v_float(f);
    } else {
        *out = other != NULL ? *other : chat_v_float(0);
    }

    return CHAT_OK;
}


FILTER(int)
{
    bool               whole;
    double             f;
    int64_t            i;
    const chat_val_t  *v, *other;

    v = &a->v[0];
    other = chat_arg(vm, a, 1, "default");

    if (v->type == CV_UNDEF || chat_arg(vm, a, 2, "base") != NULL) {
        return chat_arg_fail(vm, "int", "a value and no base", v);
    }

    if (v->type == CV_INT || v->type == CV_BOOL) {
        *out = chat_v_int(v->u.i);
        return CHAT_OK;
    }

    whole = false;
    i = 0;
    f = v->type == CV_FLOAT ? v->u.f : NAN;

    if (v->type == CV_STR && !parse_number(v, &f, &i, &whole)) {
        f = NAN;
    }

    if (whole) {
        *out = chat_v_int(i);
    } else if (f > -9e18 && f < 9e18) {
        *out = chat_v_int((int64_t) f);
    } else {
        *out = other != NULL ? *other : chat_v_int(0);
    }

    return CHAT_OK;
}


FILTER(items)
{
    static chat_list_t  empty = { NULL, 0, 1 };

    if (a->v[0].type == CV_DICT) {
        return chat_dict_items(vm, a->v[0].u.dict, out);
    }

    if (a->v[0].type != CV_UNDEF) {
        return chat_arg_fail(vm, "items", "a mapping", &a->v[0]);
    }

    memset(out, 0, sizeof(*out));
    out->type = CV_LIST;
    out->u.list = &empty;
    return CHAT_OK;
}


FILTER(list)
{
    int                 rc;
    const chat_list_t  *list;

    rc = chat_iterate(vm, &a->v[0], &list);

    if (rc == CHAT_OK) {
        memset(out, 0, sizeof(*out));
        out->type = CV_LIST;
        out->u.list = list;
    }

    return rc;
}


FILTER(reject)
{
    return chat_seq_select(vm, a, false, false, out);
}


FILTER(rejectattr)
{
    return chat_seq_select(vm, a, false, true, out);
}


FILTER(select)
{
    return chat_seq_select(vm, a, true, false, out);
}


FILTER(selectattr)
{
    return chat_seq_select(vm, a, true, true, out);
}


FILTER(replace)
{
    int                rc;
    int64_t            times;
    chat_val_t         s, from, to;
    const chat_val_t  *old, *new, *count;

    old = chat_arg(vm, a, 1, "old");
    new = chat_arg(vm, a, 2, "new");
    count = chat_arg(vm, a, 3, "count");

    if (old == NULL || new == NULL) {
        return chat_arg_fail(vm, "replace", "two strings", NULL);
    }

    times = count != NULL && count->type == CV_INT ? count->u.i : -1;

    rc = chat_to_str(vm, &a->v[0], &s);
    rc = rc == CHAT_OK ? chat_to_str(vm, old, &from) : rc;
    rc = rc == CHAT_OK ? chat_to_str(vm, new, &to) : rc;

    return rc == CHAT_OK ? chat_s_replace(vm, &s, &from, &to, times, out) : rc;
}


FILTER(reverse)
{
    int                 rc;
    uint32_t            i;
    chat_val_t         *items, list;
    const chat_list_t  *from;
    chat_args_t         join = { .v = &list, .n = 1 };

    rc = chat_iterate(vm, &a->v[0], &from);
    items = rc == CHAT_OK ? chat_alloc(vm, from->count * sizeof(chat_val_t))
                          : NULL;
    if (items == NULL) {
        return vm->err->code;
    }

    for (i = 0; i < from->count; i++) {
        items[i] = from->items[from->count - 1 - i];
    }

    rc = chat_list_of(vm, CV_LIST, items, from->count, &list);

    if (rc == CHAT_OK && a->v[0].type == CV_STR) {
        return chat_seq_join(vm, &join, out);
    }

    *out = list;
    return rc;
}


FILTER(round)
{
    double             f, scale;
    const chat_val_t  *digits, *how;

    digits = chat_arg(vm, a, 1, "precision");
    how = chat_arg(vm, a, 2, "method");

    if (!chat_is_num(&a->v[0]) || (digits != NULL && digits->type != CV_INT)
        || (digits != NULL && (digits->u.i < -15 || digits->u.i > 15)))
    {
        return chat_arg_fail(vm, "round", "a number and a small precision",
                             &a->v[0]);
    }

    f = chat_num(&a->v[0]);
    scale = pow(10, digits != NULL ? (double) digits->u.i : 0);

    if (how != NULL && chat_is_str(how, "ceil")) {
        f = ceil(f * scale) / scale;
    } else if (how != NULL && chat_is_str(how, "floor")) {
        f = floor(f * scale) / scale;
    } else if (how == NULL || chat_is_str(how, "common")) {
        f = nearbyint(f * scale) / scale;

        if (a->v[0].type != CV_FLOAT) {     /* as Python's round() */
            *out = chat_v_int((int64_t) f);
            return CHAT_OK;
        }
    } else {
        return chat_arg_fail(vm, "round", "\"common\", \"ceil\" or \"floor\"",
                             how);
    }

    *out = chat_v_float(f);
    return CHAT_OK;
}


FILTER(safe)
{
    return chat_to_str(vm, &a->v[0], out);
}


FILTER(string)
{
    return chat_to_str(vm, &a->v[0], out);
}


FILTER(tojson)
{
    chat_json_fmt_t     f;
    const chat_val_t   *indent, *seps;

    indent = chat_arg(vm, a, 2, "indent");
    seps = chat_arg(vm, a, 3, "separators");

    f.indent = -1;
    f.ascii = arg_true(vm, a, 1, "ensure_ascii");
    f.sort = arg_true(vm, a, 4, "sort_keys");

    if (indent != NULL && indent->type == CV_INT) {
        f.indent = indent->u.i < 0 ? 0 : indent->u.i > 1000
                   ? 1000 : (int) indent->u.i;
    }

    f.item_sep = f.indent >= 0 ? chat_v_str(",", 1) : chat_v_str(", ", 2);
    f.key_sep = chat_v_str(": ", 2);

    if (seps != NULL && seps->type != CV_NONE) {
        if ((seps->type != CV_TUPLE && seps->type != CV_LIST)
            || seps->u.list->count != 2
            || seps->u.list->items[0].type != CV_STR
            || seps->u.list->items[1].type != CV_STR)
        {
            return chat_arg_fail(vm, "tojson", "two separators", seps);
        }

        f.item_sep = seps->u.list->items[0];
        f.key_sep = seps->u.list->items[1];
    }

    return chat_to_json(vm, &a->v[0], &f, out);
}


FILTER(trim)
{
    int                rc;
    chat_val_t         s;
    const chat_val_t  *chars;

    chars = chat_arg(vm, a, 1, "chars");

    if (chars != NULL && chars->type == CV_NONE) {
        chars = NULL;
    }

    if (chars != NULL && chars->type != CV_STR) {
        return chat_arg_fail(vm, "trim", "a string", chars);
    }

    rc = chat_to_str(vm, &a->v[0], &s);

    if (rc == CHAT_OK) {
        chat_s_strip(&s, chars, 3, out);
        rc = chat_charge_bytes(vm, s.len);
    }

    return rc;
}
