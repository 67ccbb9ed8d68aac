/*
 * Mappings: pairs in order of insertion, and from INDEX_FROM pairs on a hash
 * index.  A mapping may be added to only while it is being built.
 */

#include <string.h>

#include "worker/chat/chat_int.h"


#define INDEX_FROM  12


static uint32_t
key_hash(const chat_val_t *key)
{
    if (key->type == CV_STR || key->type == CV_BIGINT) {
        return chat_hash(key->u.s, key->len);
    }

    /* Numbers that are equal must hash alike, whatever their types. */

    return chat_is_num(key) ? (uint32_t) (int32_t) (
               chat_num(key) > -1e9 && chat_num(key) < 1e9 ? chat_num(key) : 0)
           : 7;
}


static bool
key_equal(const chat_val_t *a, const chat_val_t *b)
{
    if (chat_is_num(a) && chat_is_num(b)) {
        return chat_num(a) == chat_num(b);
    }

    if (a->type != b->type) {
        return false;
    }

    return a->type == CV_STR || a->type == CV_BIGINT
           ? a->len == b->len && memcmp(a->u.s, b->u.s, a->len) == 0
           : a->type == CV_NONE;
}


int
chat_dict_new(chat_vm_t *vm, uint32_t cap, chat_dict_t **out)
{
    uint32_t      slots;
    chat_dict_t  *d;

    d = chat_alloc(vm, sizeof(*d));
    if (d == NULL) {
        return vm->err->code;
    }

    memset(d, 0, sizeof(*d));
    d->cap = cap;
    d->depth = 1;

    d->pairs = chat_alloc(vm, (size_t) cap * sizeof(chat_pair_t));
    if (d->pairs == NULL) {
        return vm->err->code;
    }

    if (cap >= INDEX_FROM) {
        for (slots = 32; slots < cap * 2; slots *= 2) {
            /* void */
        }

        d->mask = slots - 1;
        d->index = chat_alloc(vm, (size_t) slots * sizeof(uint32_t));
        if (d->index == NULL) {
            return vm->err->code;
        }

        memset(d->index, 0, (size_t) slots * sizeof(uint32_t));
    }

    *out = d;
    return CHAT_OK;
}


/* The pair's number; or count, with *slot where it would go in the index. */
static uint32_t
find(chat_vm_t *vm, const chat_dict_t *d, const chat_val_t *key,
    uint32_t *slot)
{
    uint32_t  i, probes;
    uint64_t  bytes;

    /* The lookup itself cannot fail: it uses up the steps, and the run ends. */

    bytes = key->type == CV_STR ? key->len : 0;

    if (chat_charge_bytes(vm, d->index == NULL ? bytes * d->count : bytes)
        != CHAT_OK)
    {
        vm->steps = 0;
    }

    if (d->index == NULL) {
        for (i = 0; i < d->count; i++) {
            if (key_equal(&d->pairs[i].key, key)) {
                return i;
            }
        }

        return d->count;
    }

    /*
     * Probes are charged, so keys that were chosen to collide end at a limit.
     */

    for (i = key_hash(key) & d->mask, probes = 0;
         d->index[i] != 0 && !key_equal(&d->pairs[d->index[i] - 1].key, key);
         i = (i + 1) & d->mask)
    {
        probes++;
    }

    if (chat_charge(vm, probes / 4) != CHAT_OK) {
        vm->steps = 0;
    }

    *slot = i;
    return d->index[i] != 0 ? d->index[i] - 1 : d->count;
}


int
chat_dict_put(chat_vm_t *vm, chat_dict_t *d, const chat_val_t *key,
    const chat_val_t *val)
{
    uint32_t  i, depth, slot;

    if (key->type != CV_STR && key->type != CV_NONE && !chat_is_num(key)) {
        return chat_fail(vm, CHAT_ERUNTIME, "%s cannot be a key",
                         chat_type_name(key));
    }

    slot = 0;
    i = find(vm, d, key, &slot);

    if (vm->steps <= 0) {
        return chat_fail(vm, CHAT_ELIMIT, "a mapping with colliding keys");
    }

    if (i == d->count) {
        assert(d->count < d->cap);

        d->pairs[i].key = *key;
        d->count++;

        if (d->index != NULL) {
            d->index[slot] = d->count;
        }
    }

    d->pairs[i].val = *val;
    depth = chat_depth(val) + 1;
    d->depth = depth > d->depth ? depth : d->depth;

    if (d->depth > CHAT_DEPTH_MAX) {
        return chat_fail(vm, CHAT_ELIMIT, "mappings in one another deeper "
                         "than %d", CHAT_DEPTH_MAX);
    }

    return CHAT_OK;
}


const chat_val_t *
chat_dict_get(chat_vm_t *vm, const chat_dict_t *d, const chat_val_t *key)
{
    uint32_t  i, slot;

    i = find(vm, d, key, &slot);

    return i == d->count ? NULL : &d->pairs[i].val;
}


const chat_val_t *
chat_dict_name(chat_vm_t *vm, const chat_dict_t *d, const char *s)
{
    chat_val_t  key;

    key = chat_v_str(s, (uint32_t) strlen(s));
    return chat_dict_get(vm, d, &key);
}


/* A list of (key, value) tuples. */
int
chat_dict_items(chat_vm_t *vm, const chat_dict_t *d, chat_val_t *out)
{
    int          rc;
    uint32_t     i;
    chat_val_t  *items, *two;

    items = chat_alloc(vm, d->count * sizeof(chat_val_t));
    two = chat_alloc(vm, d->count * 2 * sizeof(chat_val_t));

    if (items == NULL || two == NULL) {
        return vm->err->code;
    }

    for (i = 0; i < d->count; i++) {
        two[2 * i] = d->pairs[i].key;
        two[2 * i + 1] = d->pairs[i].val;

        rc = chat_list_of(vm, CV_TUPLE, &two[2 * i], 2, &items[i]);
        if (rc != CHAT_OK) {
            return rc;
        }
    }

    return chat_list_of(vm, CV_LIST, items, d->count, out);
}
