/*
 * Functions that a template may call by name: range, dict, namespace,
 * raise_exception, strftime_now.  They see their arguments and the time that
 * the caller gave, nothing else.
 */

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "worker/chat/chat_int.h"


#define TIME_BYTES_MAX  256

typedef int (*func_t)(chat_vm_t *vm, chat_args_t *a, chat_val_t *out);

static int fn_range(chat_vm_t *vm, chat_args_t *a, chat_val_t *out);
static int fn_dict(chat_vm_t *vm, chat_args_t *a, chat_val_t *out);
static int fn_namespace(chat_vm_t *vm, chat_args_t *a, chat_val_t *out);
static int fn_raise(chat_vm_t *vm, chat_args_t *a, chat_val_t *out);
static int fn_strftime(chat_vm_t *vm, chat_args_t *a, chat_val_t *out);
static int fn_absent(chat_vm_t *vm, chat_args_t *a, chat_val_t *out);

static const struct {
    const char  *name;
    func_t       run;
} funcs[] = {
    { "range", fn_range },               { "dict", fn_dict },
    { "namespace", fn_namespace },       { "raise_exception", fn_raise },
    { "strftime_now", fn_strftime },     { "lipsum", fn_absent },
    { "cycler", fn_absent },             { "joiner", fn_absent }
};


int
chat_func_find(const char *s, size_t len)
{
    unsigned  i;

    for (i = 0; i < sizeof(funcs) / sizeof(funcs[0]); i++) {
        if (strlen(funcs[i].name) == len && memcmp(funcs[i].name, s, len) == 0)
        {
            return (int) i;
        }
    }

    return -1;
}


int
chat_func_run(chat_vm_t *vm, uint32_t id, chat_args_t *a, chat_val_t *out)
{
    assert(id < sizeof(funcs) / sizeof(funcs[0]));

    return funcs[id].run(vm, a, out);
}


static int
fn_absent(chat_vm_t *vm, chat_args_t *a, chat_val_t *out)
{
    (void) a;
    (void) out;

    return chat_fail(vm, CHAT_EUNSUPPORTED,
                     "lipsum, cycler and joiner are not supported");
}


static int
fn_range(chat_vm_t *vm, chat_args_t *a, chat_val_t *out)
{
    int          rc;
    int64_t      v[3] = { 0, 0, 1 }, n, i;
    uint32_t     k;
    chat_val_t  *items;

    if (a->n < 1 || a->n > 3 || a->kw != NULL) {
        return chat_arg_fail(vm, "range", "one to three integers", NULL);
    }

    for (k = 0; k < a->n; k++) {
        if ((a->v[k].type != CV_INT && a->v[k].type != CV_BOOL)
            || a->v[k].u.i > INT32_MAX * 1000LL
            || a->v[k].u.i < INT32_MIN * 1000LL)
        {
            return chat_arg_fail(vm, "range", "integers", &a->v[k]);
        }

        v[a->n == 1 ? 1 : k] = a->v[k].u.i;
    }

    if (v[2] == 0) {
        return chat_arg_fail(vm, "range", "a step that is not 0", NULL);
    }

    n = v[2] > 0 ? (v[1] - v[0] + v[2] - 1) / v[2]
                 : (v[0] - v[1] - v[2] - 1) / -v[2];
    n = n < 0 ? 0 : n;

    if (n > CHAT_RANGE_MAX) {
        return chat_fail(vm, CHAT_ELIMIT, "a range of %lld, the limit is %d",
                         (long long) n, CHAT_RANGE_MAX);
    }

    rc = chat_charge(vm, (uint64_t) n / 4);
    items = rc == CHAT_OK ? chat_alloc(vm, (size_t) n * sizeof(chat_val_t))
                          : NULL;
    if (items == NULL) {
        return vm->err->code;
    }

    for (i = 0; i < n; i++) {
        items[i] = chat_v_int(v[0] + i * v[2]);
    }

    return chat_list_of(vm, CV_LIST, items, (uint32_t) n, out);
}


/* dict(mapping, name=value, ...) */
static int
fn_dict(chat_vm_t *vm, chat_args_t *a, chat_val_t *out)
{
    int                 rc;
    uint32_t            i, kw;
    chat_val_t          key;
    chat_dict_t        *d;
    const chat_name_t  *name;
    const chat_dict_t  *from;

    from = a->n == 1 && a->v[0].type == CV_DICT ? a->v[0].u.dict : NULL;
    kw = a->kw != NULL ? a->kw->count : 0;

    if (a->n > 0 && from == NULL) {
        return chat_arg_fail(vm, "dict", "a mapping", &a->v[0]);
    }

    rc = chat_dict_new(vm, kw + (from != NULL ? from->count : 0), &d);

    for (i = 0; rc == CHAT_OK && from != NULL && i < from->count; i++) {
        rc = chat_dict_put(vm, d, &from->pairs[i].key, &from->pairs[i].val);
    }

    for (i = 0; rc == CHAT_OK && i < kw; i++) {
        name = &vm->t->names[a->kw->names[i]];
        key = chat_v_str(name->s, name->len);
        rc = chat_dict_put(vm, d, &key, &a->v[a->n + i]);
    }

    memset(out, 0, sizeof(*out));
    out->type = CV_DICT;
    out->u.dict = rc == CHAT_OK ? d : NULL;
    return rc;
}


/* The number of a name that is text; only names in the template matter. */
static uint32_t
name_of(const chat_template_t *t, const chat_val_t *key)
{
    uint32_t  i;

    for (i = 0; i < t->names_len; i++) {
        if (key->type == CV_STR && t->names[i].len == key->len
            && memcmp(t->names[i].s, key->u.s, key->len) == 0)
        {
            return i;
        }
    }

    return UINT32_MAX;
}


/* namespace(mapping, name=value, ...) */
static int
fn_namespace(chat_vm_t *vm, chat_args_t *a, chat_val_t *out)
{
    int                 rc;
    uint32_t            i, id;
    chat_ns_t          *ns;
    chat_val_t          made;
    const chat_dict_t  *d;

    rc = fn_dict(vm, a, &made);
    if (rc != CHAT_OK) {
        return rc;
    }

    ns = chat_alloc(vm, sizeof(*ns));
    if (ns == NULL) {
        return vm->err->code;
    }

    ns->count = 0;
    d = made.u.dict;

    for (i = 0; i < d->count; i++) {
        id = name_of(vm->t, &d->pairs[i].key);

        if (id == UINT32_MAX) {
            continue;
        }

        if (ns->count == CHAT_NS_ATTRS) {
            return chat_fail(vm, CHAT_ELIMIT, "a namespace with more than %d "
                             "attributes", CHAT_NS_ATTRS);
        }

        ns->names[ns->count] = id;
        ns->vals[ns->count++] = d->pairs[i].val;
    }

    memset(out, 0, sizeof(*out));
    out->type = CV_NS;
    out->u.ns = ns;
    return chat_charge(vm, (uint64_t) d->count * vm->t->names_len / 16);
}


static int
fn_raise(chat_vm_t *vm, chat_args_t *a, chat_val_t *out)
{
    int  rc;

    if (a->n != 1) {
        return chat_arg_fail(vm, "raise_exception", "a message", NULL);
    }

    rc = chat_to_str(vm, &a->v[0], out);

    return rc != CHAT_OK ? rc
           : chat_fail(vm, CHAT_ERAISED, "%.*s", out->len > 250 ? 250
                       : (int) out->len, out->u.s != NULL ? out->u.s : "");
}


static int
fn_strftime(chat_vm_t *vm, chat_args_t *a, chat_val_t *out)
{
    char       *to, format[TIME_BYTES_MAX];
    time_t      now;
    size_t      n;
    struct tm   tm;

    if (a->n != 1 || a->v[0].type != CV_STR
        || a->v[0].len >= sizeof(format) - 1)
    {
        return chat_arg_fail(vm, "strftime_now", "a short format",
                             a->n > 0 ? &a->v[0] : NULL);
    }

    now = (time_t) vm->in->now;

    if (gmtime_r(&now, &tm) == NULL) {
        return chat_fail(vm, CHAT_ERUNTIME, "the time is out of range");
    }

    /* A mark at the end tells an empty result from one that does not fit. */

    memcpy(format, a->v[0].u.s, a->v[0].len);
    format[a->v[0].len] = '.';
    format[a->v[0].len + 1] = '\0';

    to = chat_alloc_bytes(vm, TIME_BYTES_MAX);
    if (to == NULL) {
        return vm->err->code;
    }

    n = strftime(to, TIME_BYTES_MAX, format, &tm);

    if (n == 0) {
        return chat_fail(vm, CHAT_ELIMIT, "a time of more than %d bytes",
                         TIME_BYTES_MAX - 1);
    }

    *out = chat_v_str(to, (uint32_t) n - 1);
    out->taint = a->v[0].taint == CT_TEMPLATE ? CT_TEMPLATE : CT_INPUT;
    return CHAT_OK;
}
