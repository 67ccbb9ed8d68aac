/*
 * Methods of strings, lists and mappings: those of Python that do not change
 * their object, as the reference's sandbox allows.
 */

#include <string.h>

#include "worker/chat/chat_int.h"


#define SPLIT_MAX        1000000
#define STRIP_CHARS_MAX  64

typedef int (*method_t)(chat_vm_t *vm, chat_args_t *a, chat_val_t *out);

#define METHOD(name)                                                          \
    static int m_##name(chat_vm_t *vm, chat_args_t *a, chat_val_t *out)

METHOD(capitalize);
METHOD(copy);
METHOD(count);
METHOD(endswith);
METHOD(find);
METHOD(get);
METHOD(index);
METHOD(isdigit);
METHOD(isspace);
METHOD(items);
METHOD(join);
METHOD(keys);
METHOD(lower);
METHOD(lstrip);
METHOD(removeprefix);
METHOD(removesuffix);
METHOD(replace);
METHOD(rfind);
METHOD(rsplit);
METHOD(rstrip);
METHOD(split);
METHOD(splitlines);
METHOD(startswith);
METHOD(strip);
METHOD(title);
METHOD(upper);
METHOD(values);

typedef struct {
    const char  *name;
    uint8_t      type;       /* CV_STR, CV_LIST (and tuples), CV_DICT */
    method_t     run;        /* NULL: exists, but is not supported */
} entry_t;

static const entry_t  methods[] = {
    { "capitalize", CV_STR, m_capitalize },
    { "casefold", CV_STR, m_lower },
    { "center", CV_STR, NULL },
    { "count", CV_STR, m_count },
    { "encode", CV_STR, NULL },
    { "endswith", CV_STR, m_endswith },
    { "expandtabs", CV_STR, NULL },
    { "find", CV_STR, m_find },
    { "format", CV_STR, NULL },
    { "index", CV_STR, m_index },
    { "isalnum", CV_STR, NULL },
    { "isalpha", CV_STR, NULL },
    { "isdigit", CV_STR, m_isdigit },
    { "islower", CV_STR, NULL },
    { "isnumeric", CV_STR, m_isdigit },
    { "isspace", CV_STR, m_isspace },
    { "istitle", CV_STR, NULL },
    { "isupper", CV_STR, NULL },
    { "join", CV_STR, m_join },
    { "ljust", CV_STR, NULL },
    { "lower", CV_STR, m_lower },
    { "lstrip", CV_STR, m_lstrip },
    { "partition", CV_STR, NULL },
    { "removeprefix", CV_STR, m_removeprefix },
    { "removesuffix", CV_STR, m_removesuffix },
    { "replace", CV_STR, m_replace },
    { "rfind", CV_STR, m_rfind },
    { "rindex", CV_STR, NULL },
    { "rjust", CV_STR, NULL },
    { "rpartition", CV_STR, NULL },
    { "rsplit", CV_STR, m_rsplit },
    { "rstrip", CV_STR, m_rstrip },
    { "split", CV_STR, m_split },
    { "splitlines", CV_STR, m_splitlines },
    { "startswith", CV_STR, m_startswith },
    { "strip", CV_STR, m_strip },
    { "swapcase", CV_STR, NULL },
    { "title", CV_STR, m_title },
    { "translate", CV_STR, NULL },
    { "upper", CV_STR, m_upper },
    { "zfill", CV_STR, NULL },
    { "copy", CV_LIST, m_copy },
    { "count", CV_LIST, m_count },
    { "index", CV_LIST, m_index },
    { "copy", CV_DICT, m_copy },
    { "fromkeys", CV_DICT, NULL },
    { "get", CV_DICT, m_get },
    { "items", CV_DICT, m_items },
    { "keys", CV_DICT, m_keys },
    { "values", CV_DICT, m_values }
};

#define METHODS_COUNT  (sizeof(methods) / sizeof(methods[0]))


static const entry_t *
find(const chat_val_t *v, const char *name, uint32_t len)
{
    unsigned  i, type;

    type = v->type == CV_TUPLE ? CV_LIST : v->type;

    for (i = 0; i < METHODS_COUNT; i++) {
        if (methods[i].type == type && strlen(methods[i].name) == len
            && memcmp(methods[i].name, name, len) == 0)
        {
            return &methods[i];
        }
    }

    return NULL;
}


bool
chat_method_exists(const chat_val_t *v, const char *name, uint32_t len)
{
    return find(v, name, len) != NULL;
}


int
chat_method_run(chat_vm_t *vm, const char *name, uint32_t len, chat_args_t *a,
    chat_val_t *out)
{
    const entry_t  *m;

    m = find(&a->v[0], name, len);

    if (m != NULL && m->run != NULL) {
        return m->run(vm, a, out);
    }

    return chat_fail(vm, m != NULL ? CHAT_EUNSUPPORTED : CHAT_ERUNTIME,
                     "%s has no method \"%.*s\" that a template may call",
                     chat_type_name(&a->v[0]), len > 60 ? 60 : (int) len, name);
}


/* Argument i as a string; *v is NULL when it is absent or none. */
static int
str_arg(chat_vm_t *vm, const chat_args_t *a, uint32_t i, const char *name,
    const chat_val_t **v)
{
    *v = chat_arg(vm, a, i, name);

    if (*v != NULL && (*v)->type == CV_NONE) {
        *v = NULL;
    }

    return *v == NULL || (*v)->type == CV_STR ? CHAT_OK
           : chat_arg_fail(vm, "this method", "a string", *v);
}


static int
str_needed(chat_vm_t *vm, const chat_args_t *a, const chat_val_t **v)
{
    int  rc;

    rc = str_arg(vm, a, 1, NULL, v);
    return rc == CHAT_OK && *v == NULL
           ? chat_arg_fail(vm, "this method", "a string", NULL) : rc;
}


METHOD(capitalize)
{
    return chat_s_case(vm, &a->v[0], 'c', out);
}


METHOD(lower)
{
    return chat_s_case(vm, &a->v[0], 'l', out);
}


METHOD(upper)
{
    return chat_s_case(vm, &a->v[0], 'u', out);
}


METHOD(title)
{
    return chat_s_case(vm, &a->v[0], 'm', out);
}


METHOD(copy)
{
    (void) vm;

    *out = a->v[0];
    return CHAT_OK;
}


METHOD(count)
{
    int                rc;
    bool               same;
    int64_t            n, at;
    uint32_t           i;
    chat_val_t         rest;
    const chat_val_t  *what;

    if (a->n != 2) {
        return chat_arg_fail(vm, "count", "one argument", NULL);
    }

    n = 0;

    if (a->v[0].type != CV_STR) {
        for (i = 0, rc = CHAT_OK; rc == CHAT_OK && i < a->v[0].u.list->count;
             i++)
        {
            rc = chat_equal(vm, &a->v[0].u.list->items[i], &a->v[1], &same);
            rc = rc == CHAT_OK ? chat_charge(vm, 1) : rc;
            n += same;
        }

        *out = chat_v_int(n);
        return rc;
    }

    rc = str_needed(vm, a, &what);

    if (rc == CHAT_OK && what->len == 0) {
        n = (int64_t) chat_utf8_count(a->v[0].u.s, a->v[0].len) + 1;

    } else if (rc == CHAT_OK) {
        for (rest = a->v[0]; (at = chat_s_find(&rest, what, false)) >= 0; n++) {
            at += what->len;
            rest = chat_v_sub(&rest, (uint32_t) at, rest.len - (uint32_t) at);
        }
    }

    *out = chat_v_int(n);
    return rc == CHAT_OK ? chat_charge(vm, (uint64_t) n) : rc;
}


/* startswith and endswith: a string or a tuple of them. */
static int
affix(chat_vm_t *vm, chat_args_t *a, bool end, chat_val_t *out)
{
    uint32_t           i, n;
    const chat_val_t  *v, *list, *self;

    self = &a->v[0];
    *out = chat_v_bool(false);

    if (a->n != 2 || (a->v[1].type != CV_STR && a->v[1].type != CV_TUPLE)) {
        return chat_arg_fail(vm, "this method", "a string or a tuple",
                             a->n > 1 ? &a->v[1] : NULL);
    }

    list = a->v[1].type == CV_STR ? &a->v[1] : a->v[1].u.list->items;
    n = a->v[1].type == CV_STR ? 1 : a->v[1].u.list->count;

    for (i = 0; i < n; i++) {
        v = &list[i];

        if (v->type != CV_STR) {
            return chat_arg_fail(vm, "this method", "strings", v);
        }

        if (v->len <= self->len
            && (v->len == 0
                || memcmp(self->u.s + (end ? self->len - v->len : 0), v->u.s,
                          v->len) == 0))
        {
            *out = chat_v_bool(true);
        }
    }

    return chat_charge_bytes(vm, (uint64_t) n * self->len / 16);
}


METHOD(endswith)
{
    return affix(vm, a, true, out);
}


METHOD(startswith)
{
    return affix(vm, a, false, out);
}


static int
position(chat_vm_t *vm, chat_args_t *a, bool last, chat_val_t *out)
{
    int                rc;
    int64_t            at;
    const chat_val_t  *what;

    rc = str_needed(vm, a, &what);

    if (rc == CHAT_OK && a->n != 2) {
        rc = chat_fail(vm, CHAT_EUNSUPPORTED,
                       "find with a start is not supported");
    }

    if (rc == CHAT_OK && last) {
        rc = chat_charge_bytes(vm, (uint64_t) a->v[0].len
                                   * (1 + what->len / 8));
    }

    if (rc != CHAT_OK) {
        return rc;
    }

    at = chat_s_find(&a->v[0], what, last);
    *out = chat_v_int(at < 0 ? -1 : (int64_t) chat_utf8_count(a->v[0].u.s,
                                                              (uint32_t) at));
    return CHAT_OK;
}


METHOD(find)
{
    return position(vm, a, false, out);
}


METHOD(rfind)
{
    return position(vm, a, true, out);
}


METHOD(index)
{
    int       rc;
    bool      same;
    uint32_t  i;

    if (a->v[0].type == CV_STR) {
        rc = position(vm, a, false, out);

        return rc == CHAT_OK && out->u.i < 0
               ? chat_fail(vm, CHAT_ERUNTIME, "index: not found") : rc;
    }

    for (i = 0; a->n == 2 && i < a->v[0].u.list->count; i++) {
        rc = chat_equal(vm, &a->v[0].u.list->items[i], &a->v[1], &same);
        rc = rc == CHAT_OK ? chat_charge(vm, 1) : rc;

        if (rc != CHAT_OK) {
            return rc;
        }

        if (same) {
            *out = chat_v_int(i);
            return CHAT_OK;
        }
    }

    return chat_fail(vm, CHAT_ERUNTIME, "index: not found");
}


METHOD(isdigit)
{
    uint32_t  i;

    for (i = 0; i < a->v[0].len && a->v[0].u.s[i] >= '0'
         && a->v[0].u.s[i] <= '9'; i++)
    {
        /* void */
    }

    (void) vm;
    *out = chat_v_bool(i > 0 && i == a->v[0].len);
    return CHAT_OK;
}


METHOD(isspace)
{
    (void) vm;

    *out = chat_v_bool(a->v[0].len > 0
                       && chat_rstrip_len(a->v[0].u.s, a->v[0].len) == 0);
    return CHAT_OK;
}


METHOD(get)
{
    const chat_val_t  *hit;

    if (a->n < 2) {
        return chat_arg_fail(vm, "get", "a key", NULL);
    }

    hit = chat_dict_get(vm, a->v[0].u.dict, &a->v[1]);

    if (hit != NULL) {
        *out = *hit;
    } else if (a->n > 2) {
        *out = a->v[2];
    } else {
        *out = chat_v_undef();
        out->type = CV_NONE;
    }

    return CHAT_OK;
}


METHOD(items)
{
    return chat_dict_items(vm, a->v[0].u.dict, out);
}


static int
half(chat_vm_t *vm, chat_args_t *a, bool keys, chat_val_t *out)
{
    uint32_t            i;
    chat_val_t         *items;
    const chat_dict_t  *d;

    d = a->v[0].u.dict;

    items = chat_alloc(vm, d->count * sizeof(chat_val_t));
    if (items == NULL) {
        return vm->err->code;
    }

    for (i = 0; i < d->count; i++) {
        items[i] = keys ? d->pairs[i].key : d->pairs[i].val;
    }

    return chat_list_of(vm, CV_LIST, items, d->count, out);
}


METHOD(keys)
{
    return half(vm, a, true, out);
}


METHOD(values)
{
    return half(vm, a, false, out);
}


/* sep.join(list): all must be strings. */
METHOD(join)
{
    int                 rc;
    uint32_t            i;
    chat_val_t          args[2];
    chat_args_t         sub = { .v = args, .n = 2 };
    const chat_list_t  *list;

    if (a->n != 2) {
        return chat_arg_fail(vm, "join", "a list", NULL);
    }

    args[0] = a->v[1];
    args[1] = a->v[0];

    rc = chat_iterate(vm, &args[0], &list);

    for (i = 0; rc == CHAT_OK && i < list->count; i++) {
        if (list->items[i].type != CV_STR) {
            rc = chat_arg_fail(vm, "join", "strings", &list->items[i]);
        }
    }

    return rc == CHAT_OK ? chat_seq_join(vm, &sub, out) : rc;
}


static int
strip(chat_vm_t *vm, chat_args_t *a, unsigned sides, chat_val_t *out)
{
    int                rc;
    const chat_val_t  *chars;

    rc = str_arg(vm, a, 1, "chars", &chars);

    if (rc == CHAT_OK && chars != NULL && chars->len > STRIP_CHARS_MAX) {
        rc = chat_fail(vm, CHAT_ELIMIT, "strip of more than %d bytes",
                       STRIP_CHARS_MAX);
    }

    if (rc == CHAT_OK) {
        chat_s_strip(&a->v[0], chars, sides, out);
        rc = chat_charge_bytes(vm, (uint64_t) (a->v[0].len - out->len)
                                   * (chars != NULL ? chars->len : 1));
    }

    return rc;
}


METHOD(lstrip)
{
    return strip(vm, a, 1, out);
}


METHOD(rstrip)
{
    return strip(vm, a, 2, out);
}


METHOD(strip)
{
    return strip(vm, a, 3, out);
}


METHOD(removeprefix)
{
    int                rc;
    const chat_val_t  *what;

    rc = affix(vm, a, false, out);

    if (rc == CHAT_OK) {
        rc = str_needed(vm, a, &what);
    }

    if (rc == CHAT_OK) {
        *out = out->u.i ? chat_v_sub(&a->v[0], what->len,
                                     a->v[0].len - what->len) : a->v[0];
    }

    return rc;
}


METHOD(removesuffix)
{
    int                rc;
    const chat_val_t  *what;

    rc = affix(vm, a, true, out);

    if (rc == CHAT_OK) {
        rc = str_needed(vm, a, &what);
    }

    if (rc == CHAT_OK) {
        *out = out->u.i ? chat_v_sub(&a->v[0], 0, a->v[0].len - what->len)
                        : a->v[0];
    }

    return rc;
}


METHOD(replace)
{
    int64_t            times;
    const chat_val_t  *count;

    count = chat_arg(vm, a, 3, "count");
    times = count != NULL && count->type == CV_INT ? count->u.i : -1;

    if (a->n < 3 || a->v[1].type != CV_STR || a->v[2].type != CV_STR) {
        return chat_arg_fail(vm, "replace", "two strings",
                             a->n > 1 ? &a->v[1] : NULL);
    }

    return chat_s_replace(vm, &a->v[0], &a->v[1], &a->v[2], times, out);
}


/* The pieces are gathered at the arena's end, in blocks that double. */
typedef struct {
    chat_val_t  *items;
    uint32_t     n;
    uint32_t     cap;
} pieces_t;


static int
piece(chat_vm_t *vm, pieces_t *p, const chat_val_t *v, int64_t off, int64_t len)
{
    uint32_t     cap;
    chat_val_t  *items;

    if (p->n == p->cap) {
        cap = p->cap == 0 ? 8 : p->cap * 2;

        items = cap > SPLIT_MAX ? NULL : chat_alloc(vm, cap * sizeof(*items));
        if (items == NULL) {
            return chat_fail(vm, CHAT_ELIMIT, "split makes too many pieces");
        }

        if (p->n > 0) {
            memcpy(items, p->items, p->n * sizeof(*items));
        }

        p->items = items;
        p->cap = cap;
    }

    p->items[p->n++] = chat_v_sub(v, (uint32_t) off, (uint32_t) len);
    return chat_charge(vm, 1);
}


/* split() at white space: no empty pieces. */
static int
split_space(chat_vm_t *vm, const chat_val_t *v, int64_t most, pieces_t *p)
{
    int          rc;
    uint32_t     off, start, cp;
    const char  *end;

    end = v->u.s + v->len;
    off = 0;

    for (rc = CHAT_OK; rc == CHAT_OK; most--) {
        off += chat_lstrip_off(v->u.s + off, v->len - off);
        start = off;

        if (off == v->len) {
            break;
        }

        while (off < v->len && chat_space_len(v->u.s + off, end) == 0) {
            off += chat_utf8_get(v->u.s + off, end, &cp);
        }

        if (most == 0) {
            off = v->len;
        }

        rc = piece(vm, p, v, start, off - start);
    }

    return rc;
}


static int
split(chat_vm_t *vm, chat_args_t *a, bool last, chat_val_t *out)
{
    int                rc;
    int64_t            most, at;
    uint32_t           i;
    pieces_t           p = { 0 };
    chat_val_t         rest, swap;
    const chat_val_t  *sep, *count;

    rc = str_arg(vm, a, 1, "sep", &sep);
    count = chat_arg(vm, a, 2, "maxsplit");
    most = count != NULL && count->type == CV_INT ? count->u.i : -1;
    rest = a->v[0];

    if (rc == CHAT_OK && (sep == NULL || sep->len == 0)) {
        if (sep != NULL || (last && most >= 0)) {
            return chat_fail(vm, CHAT_ERUNTIME, "split with this separator");
        }

        rc = split_space(vm, &rest, most, &p);
        return rc == CHAT_OK ? chat_list_of(vm, CV_LIST, p.items, p.n, out)
                             : rc;
    }

    if (rc == CHAT_OK && last) {
        rc = chat_charge_bytes(vm, (uint64_t) rest.len * (1 + sep->len / 8));
    }

    for ( /* void */ ; rc == CHAT_OK && most != 0; most--) {
        at = chat_s_find(&rest, sep, last);
        if (at < 0) {
            break;
        }

        i = (uint32_t) at + sep->len;

        if (last) {
            rc = piece(vm, &p, &rest, i, rest.len - i);
            rest = chat_v_sub(&rest, 0, (uint32_t) at);
        } else {
            rc = piece(vm, &p, &rest, 0, at);
            rest = chat_v_sub(&rest, i, rest.len - i);
        }
    }

    rc = rc == CHAT_OK ? piece(vm, &p, &rest, 0, rest.len) : rc;

    for (i = 0; last && rc == CHAT_OK && i < p.n / 2; i++) {
        swap = p.items[i];
        p.items[i] = p.items[p.n - 1 - i];
        p.items[p.n - 1 - i] = swap;
    }

    return rc == CHAT_OK ? chat_list_of(vm, CV_LIST, p.items, p.n, out) : rc;
}


METHOD(split)
{
    return split(vm, a, false, out);
}


METHOD(rsplit)
{
    return split(vm, a, true, out);
}


METHOD(splitlines)
{
    int                rc;
    bool               keep;
    uint32_t           i, start;
    pieces_t           p = { 0 };
    const chat_val_t  *v, *k;

    v = &a->v[0];
    k = chat_arg(vm, a, 1, "keepends");
    keep = k != NULL && chat_truth(k);

    for (i = 0, start = 0, rc = CHAT_OK; rc == CHAT_OK && i < v->len; i++) {
        if (v->u.s[i] != '\n' && v->u.s[i] != '\r') {
            continue;
        }

        rc = piece(vm, &p, v, start, i - start + keep);
        i += v->u.s[i] == '\r' && i + 1 < v->len && v->u.s[i + 1] == '\n';

        if (keep && rc == CHAT_OK) {
            p.items[p.n - 1].len = i + 1 - start;
        }

        start = i + 1;
    }

    if (rc == CHAT_OK && start < v->len) {
        rc = piece(vm, &p, v, start, v->len - start);
    }

    return rc == CHAT_OK ? chat_list_of(vm, CV_LIST, p.items, p.n, out) : rc;
}
