/*
 * The GGUF header: one pass of a bounded cursor.  Every length is compared
 * with the bytes that are left, every count has a limit before anything is
 * allocated for it, nothing recurses.
 */
#include <string.h>

#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_gguf_int.h"
#include "worker/engine/eng_type.h"

#define KEY_BYTES_MIN      (8 + 1 + 4 + 1)      /* length, name, kind, value */
#define CROWDED            UINT32_MAX
#define TENSOR_BYTES_MIN   (8 + 1 + 4 + 8 + 4 + 8)

typedef eng_gguf_cursor_t  cursor_t;

static int parse_head(cursor_t *c, uint64_t *n_keys, uint64_t *n_tensors);
static int parse_keys(cursor_t *c);
static int parse_key(cursor_t *c, eng_gguf_key_t *k);
static int parse_scalar(cursor_t *c, eng_gguf_key_t *k);
static int parse_array(cursor_t *c, eng_gguf_key_t *k);
static int parse_tensors(cursor_t *c);
static int parse_tensor(cursor_t *c, eng_gguf_tensor_t *t);
static int place_tensors(cursor_t *c);
static int tensor_span(cursor_t *c, eng_gguf_tensor_t *t);
static int check_unique_keys(cursor_t *c);

static const uint8_t  kind_bytes[ENG_GGUF_KINDS] = {
    1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8
};


int
eng_gguf_header(cursor_t *c)
{
    int          rc;
    uint64_t     n_keys, n_tensors;
    eng_gguf_t  *g = c->g;

    rc = parse_head(c, &n_keys, &n_tensors);
    if (rc != 0) {
        return rc;
    }

    g->n_keys = (uint32_t) n_keys;
    g->n_tensors = (uint32_t) n_tensors;
    g->keys = calloc(n_keys + 1, sizeof(g->keys[0]));
    g->tensors = calloc(n_tensors + 1, sizeof(g->tensors[0]));
    if (g->keys == NULL || g->tensors == NULL) {
        return eng_fail(c->err, ENG_ENOMEM, "%s: no memory for %llu keys and "
                        "%llu tensors", g->path, (unsigned long long) n_keys,
                        (unsigned long long) n_tensors);
    }

    rc = parse_keys(c);
    if (rc == 0) {
        rc = check_unique_keys(c);
    }
    if (rc == 0) {
        rc = parse_tensors(c);
    }
    if (rc == 0) {
        rc = eng_gguf_index(c->g, c->err);
    }
    if (rc == 0) {
        g->header_bytes = c->pos;
        g->header_hash = eng_hash(c->data, c->pos, g->file_bytes);
        rc = place_tensors(c);
    }

    return rc;
}


/* ---- the cursor: nothing below reads a byte except through take() ------- */

static int
take(cursor_t *c, uint64_t n, const uint8_t **p, const char *what)
{
    uint64_t  left = c->len - c->pos;

    if (n > left) {
        if (n <= c->g->file_bytes - c->pos) {
            return ENG_GGUF_MORE;
        }
        return eng_fail(c->err, ENG_EFORMAT, "%s: %s at offset %llu needs "
                        "%llu bytes, the file has %llu left", c->g->path, what,
                        (unsigned long long) c->pos, (unsigned long long) n,
                        (unsigned long long) (c->g->file_bytes - c->pos));
    }

    *p = c->data + c->pos;
    c->pos += n;

    return 0;
}


static int
take_u32(cursor_t *c, uint32_t *v, const char *what)
{
    int             rc;
    const uint8_t  *p = NULL;

    rc = take(c, 4, &p, what);
    if (rc == 0) {
        memcpy(v, p, 4);
    }

    return rc;
}


static int
take_u64(cursor_t *c, uint64_t *v, const char *what)
{
    int             rc;
    const uint8_t  *p = NULL;

    rc = take(c, 8, &p, what);
    if (rc == 0) {
        memcpy(v, p, 8);
    }

    return rc;
}


static int
take_string(cursor_t *c, eng_str_t *s, uint64_t len_max, const char *what)
{
    int             rc;
    uint64_t        len, at = c->pos;
    const uint8_t  *p;

    rc = take_u64(c, &len, what);
    if (rc != 0) {
        return rc;
    }
    if (len > len_max) {
        return eng_fail(c->err, ENG_ELIMIT, "%s: %s at offset %llu has %llu "
                        "bytes, at most %llu are allowed", c->g->path, what,
                        (unsigned long long) at, (unsigned long long) len,
                        (unsigned long long) len_max);
    }
    rc = take(c, len, &p, what);
    if (rc == 0) {
        s->p = (const char *) p;
        s->len = (uint32_t) len;
    }

    return rc;
}


static int
take_count(cursor_t *c, uint64_t *n, uint64_t limit, uint64_t item_min,
    const char *what)
{
    int       rc;
    uint64_t  at = c->pos, left;

    rc = take_u64(c, n, what);
    if (rc != 0) {
        return rc;
    }
    left = c->g->file_bytes - c->pos;
    if (*n > limit || *n > left / item_min) {
        return eng_fail(c->err, ENG_ELIMIT, "%s: %s at offset %llu is %llu; "
                        "the limit is %llu and the file has %llu bytes left",
                        c->g->path, what, (unsigned long long) at,
                        (unsigned long long) *n, (unsigned long long) limit,
                        (unsigned long long) left);
    }

    return 0;
}


/* ---- the parts of the header -------------------------------------------- */

static int
parse_head(cursor_t *c, uint64_t *n_keys, uint64_t *n_tensors)
{
    int             rc;
    uint32_t        version = 0;
    const uint8_t  *p;

    rc = take(c, 4, &p, "the magic");
    if (rc != 0) {
        return rc;
    }
    if (memcmp(p, "GGUF", 4) != 0) {
        return eng_fail(c->err, ENG_EFORMAT, "%s: not a GGUF file: it begins "
                        "with %02x %02x %02x %02x instead of \"GGUF\"",
                        c->g->path, p[0], p[1], p[2], p[3]);
    }

    rc = take_u32(c, &version, "the version");
    if (rc != 0) {
        return rc;
    }
    if (version != 2 && version != 3) {
        return eng_fail(c->err, ENG_EUNSUP, "%s: GGUF version %u%s; versions "
                        "2 and 3 are read: convert the file again", c->g->path,
                        version, (version & 0xffff) == 0 && version != 0
                        ? " (a big-endian file)" : "");
    }
    c->g->version = version;

    rc = take_count(c, n_tensors, ENG_GGUF_TENSORS_MAX, TENSOR_BYTES_MIN,
                    "the number of tensors");
    if (rc == 0) {
        rc = take_count(c, n_keys, ENG_GGUF_KEYS_MAX, KEY_BYTES_MIN,
                        "the number of keys");
    }

    return rc;
}


static int
parse_keys(cursor_t *c)
{
    int       rc = 0;
    uint32_t  i;

    for (i = 0; rc == 0 && i < c->g->n_keys; i++) {
        rc = parse_key(c, &c->g->keys[i]);
    }

    return rc;
}


static int
parse_key(cursor_t *c, eng_gguf_key_t *k)
{
    int       rc;
    char      name[ENG_NAME_MAX];
    uint32_t  kind;

    rc = take_string(c, &k->key, ENG_GGUF_KEY_MAX, "a key's name");
    if (rc == 0) {
        rc = take_u32(c, &kind, "a key's type");
    }
    if (rc != 0) {
        return rc;
    }

    k->offset = c->pos;
    if (kind >= ENG_GGUF_KINDS) {
        eng_str_print(k->key, name, sizeof(name));
        return eng_fail(c->err, ENG_EFORMAT, "%s: key \"%s\" at offset %llu "
                        "has the unknown type %u", c->g->path, name,
                        (unsigned long long) k->offset, kind);
    }

    k->kind = (eng_gguf_kind_t) kind;
    if (k->kind == ENG_GGUF_STRING) {
        return take_string(c, &k->v.s, ENG_GGUF_STRING_MAX, "a string");
    }
    if (k->kind == ENG_GGUF_ARRAY) {
        return parse_array(c, k);
    }

    return parse_scalar(c, k);
}


static int
parse_scalar(cursor_t *c, eng_gguf_key_t *k)
{
    int             rc;
    float           f;
    int8_t          i8;
    int16_t         i16;
    int32_t         i32;
    const uint8_t  *p;

    rc = take(c, kind_bytes[k->kind], &p, "a value");
    if (rc != 0) {
        return rc;
    }

    switch (k->kind) {
    case ENG_GGUF_I8:
        memcpy(&i8, p, 1);
        k->v.i = i8;
        break;
    case ENG_GGUF_I16:
        memcpy(&i16, p, 2);
        k->v.i = i16;
        break;
    case ENG_GGUF_I32:
        memcpy(&i32, p, 4);
        k->v.i = i32;
        break;
    case ENG_GGUF_F32:
        memcpy(&f, p, 4);
        k->v.f = f;
        break;
    default:
        /* unsigned kinds, bool, I64 and F64: little-endian bytes as is */
        memcpy(&k->v.u, p, kind_bytes[k->kind]);
        break;
    }

    return 0;
}


static int
skip_strings(cursor_t *c, uint64_t count)
{
    int        rc = 0;
    eng_str_t  s;

    while (rc == 0 && count-- > 0) {
        rc = take_string(c, &s, ENG_GGUF_STRING_MAX, "a string of an array");
    }

    return rc;
}


static int
parse_array(cursor_t *c, eng_gguf_key_t *k)
{
    int             rc;
    char            name[ENG_NAME_MAX];
    uint32_t        item;
    uint64_t        bytes;
    const uint8_t  *p;

    rc = take_u32(c, &item, "an array's item type");
    if (rc != 0) {
        return rc;
    }
    if (item >= ENG_GGUF_KINDS || item == ENG_GGUF_ARRAY) {
        eng_str_print(k->key, name, sizeof(name));
        return eng_fail(c->err, item == ENG_GGUF_ARRAY ? ENG_EUNSUP
                        : ENG_EFORMAT, "%s: key \"%s\" at offset %llu is an "
                        "array of %s", c->g->path, name,
                        (unsigned long long) k->offset, item == ENG_GGUF_ARRAY
                        ? "arrays, which is not read" : "an unknown type");
    }
    k->item = (eng_gguf_kind_t) item;

    rc = take_count(c, &k->count, UINT32_MAX,
                    item == ENG_GGUF_STRING ? 8 : kind_bytes[item],
                    "an array's length");
    if (rc != 0) {
        return rc;
    }

    if (item == ENG_GGUF_STRING) {
        k->items = c->data + c->pos;
        return skip_strings(c, k->count);
    }

    if (!eng_chk_mul(k->count, kind_bytes[item], &bytes)) {
        return eng_fail(c->err, ENG_EFORMAT, "%s: array size overflows at "
                        "offset %llu", c->g->path,
                        (unsigned long long) k->offset);
    }
    rc = take(c, bytes, &p, "an array");
    k->items = p;

    return rc;
}


static int
parse_tensors(cursor_t *c)
{
    int       rc = 0;
    uint32_t  i;

    for (i = 0; rc == 0 && i < c->g->n_tensors; i++) {
        rc = parse_tensor(c, &c->g->tensors[i]);
    }

    return rc;
}


static int
parse_tensor(cursor_t *c, eng_gguf_tensor_t *t)
{
    int       rc;
    char      name[ENG_NAME_MAX];
    uint32_t  i;

    rc = take_string(c, &t->name, ENG_GGUF_NAME_MAX, "a tensor's name");
    if (rc == 0) {
        rc = take_u32(c, &t->n_dims, "a tensor's number of dimensions");
    }
    if (rc != 0) {
        return rc;
    }

    if (t->n_dims == 0 || t->n_dims > ENG_GGUF_DIMS_MAX) {
        eng_str_print(t->name, name, sizeof(name));
        return eng_fail(c->err, ENG_EFORMAT, "%s: tensor \"%s\" at offset "
                        "%llu has %u dimensions, allowed are 1 to %u",
                        c->g->path, name, (unsigned long long) c->pos,
                        t->n_dims, ENG_GGUF_DIMS_MAX);
    }

    for (i = 0; i < ENG_GGUF_DIMS_MAX; i++) {
        t->dim[i] = 1;
    }
    for (i = 0; rc == 0 && i < t->n_dims; i++) {
        rc = take_u64(c, &t->dim[i], "a tensor's dimension");
    }
    if (rc == 0) {
        rc = take_u32(c, &t->type, "a tensor's type");
    }
    if (rc == 0) {
        rc = take_u64(c, &t->offset, "a tensor's offset");
    }

    return rc;
}


static int
data_alignment(cursor_t *c, uint64_t *align)
{
    const eng_gguf_key_t  *k = eng_gguf_key(c->g, "general.alignment");

    *align = 32;
    if (k == NULL) {
        return 0;
    }
    if (k->kind != ENG_GGUF_U32 || k->v.u == 0 || (k->v.u & (k->v.u - 1)) != 0
        || k->v.u > ENG_GGUF_ALIGN_MAX)
    {
        return eng_fail(c->err, ENG_EFORMAT, "%s: general.alignment at offset "
                        "%llu must be a power of two of at most %u, given as "
                        "a 32-bit number", c->g->path,
                        (unsigned long long) k->offset, ENG_GGUF_ALIGN_MAX);
    }
    *align = k->v.u;

    return 0;
}


static int
place_tensors(cursor_t *c)
{
    int          rc;
    uint32_t     i;
    uint64_t     align;
    eng_gguf_t  *g = c->g;

    rc = data_alignment(c, &align);
    if (rc != 0) {
        return rc;
    }
    if (!eng_chk_align(g->header_bytes, align, &g->data_offset)
        || (g->n_tensors > 0 && g->data_offset > g->file_bytes))
    {
        return eng_fail(c->err, ENG_EFORMAT, "%s: the header ends at %llu, "
                        "the file at %llu: no room for the tensors", g->path,
                        (unsigned long long) g->header_bytes,
                        (unsigned long long) g->file_bytes);
    }

    for (i = 0; rc == 0 && i < g->n_tensors; i++) {
        if ((g->tensors[i].offset & (align - 1)) != 0) {
            char  name[ENG_NAME_MAX];

            eng_str_print(g->tensors[i].name, name, sizeof(name));
            return eng_fail(c->err, ENG_EFORMAT, "%s: tensor \"%s\" at data "
                            "offset %llu is not aligned to %llu", g->path,
                            name, (unsigned long long) g->tensors[i].offset,
                            (unsigned long long) align);
        }
        rc = tensor_span(c, &g->tensors[i]);
    }

    return rc;
}


static int
tensor_span(cursor_t *c, eng_gguf_tensor_t *t)
{
    int                ok = 1;
    char               name[ENG_NAME_MAX];
    uint32_t           i;
    uint64_t           n = 1, end = 0;
    const eng_type_t  *type = eng_type_get(t->type);

    eng_str_print(t->name, name, sizeof(name));
    if (type == NULL) {
        return eng_fail(c->err, ENG_EUNSUP, "%s: tensor \"%s\" has the "
                        "unknown type number %u", c->g->path, name, t->type);
    }

    for (i = 0; i < ENG_GGUF_DIMS_MAX; i++) {
        ok = ok && t->dim[i] > 0 && eng_chk_mul(n, t->dim[i], &n);
    }
    if (!ok || t->dim[0] % type->block != 0
        || !eng_chk_mul(n / type->block, type->bytes, &t->bytes))
    {
        return eng_fail(c->err, ENG_EFORMAT, "%s: tensor \"%s\" has the "
                        "dimensions %llu x %llu x %llu x %llu: zero, too "
                        "large, or rows that are no multiple of %u", c->g->path,
                        name, (unsigned long long) t->dim[0],
                        (unsigned long long) t->dim[1],
                        (unsigned long long) t->dim[2],
                        (unsigned long long) t->dim[3], type->block);
    }

    t->elements = n;
    if (!eng_chk_add(t->offset, c->g->data_offset, &t->offset)
        || !eng_chk_add(t->offset, t->bytes, &end) || end > c->g->file_bytes)
    {
        return eng_fail(c->err, ENG_EFORMAT, "%s: tensor \"%s\" at offset "
                        "%llu needs %llu bytes, beyond the file's end at %llu: "
                        "the file is cut or damaged", c->g->path, name,
                        (unsigned long long) t->offset,
                        (unsigned long long) t->bytes,
                        (unsigned long long) c->g->file_bytes);
    }

    return 0;
}


/* ---- names are unique --------------------------------------------------- */

/*
 * Puts i into an open hash of `mask + 1` entries (0: empty, else index + 1);
 * returns the entry of the same name, i itself, or CROWDED.
 */
static uint32_t
hash_put(uint32_t *tab, uint32_t mask, const char *base, size_t stride,
    uint32_t i)
{
    eng_str_t  s = *(const eng_str_t *) (base + i * stride), o;
    uint64_t   h = eng_str_hash(s), end = h + ENG_GGUF_PROBES_MAX;

    for ( ;; h++) {
        if (tab[h & mask] == 0) {
            tab[h & mask] = i + 1;
            return i;
        }
        if (h == end) {
            return CROWDED;
        }
        o = *(const eng_str_t *) (base + (tab[h & mask] - 1) * stride);
        if (o.len == s.len && memcmp(o.p, s.p, s.len) == 0) {
            return tab[h & mask] - 1;
        }
    }
}


static int
hash_names(const eng_gguf_t *g, const void *base, size_t stride, uint32_t n,
    const char *what, uint32_t **tab, uint32_t *mask, eng_err_t *err)
{
    char      name[ENG_NAME_MAX];
    uint32_t  i, at, size = 16;

    while (size < 2 * n) {
        size *= 2;
    }
    *mask = size - 1;
    *tab = calloc(size, sizeof(**tab));
    if (*tab == NULL) {
        return eng_fail(err, ENG_ENOMEM, "%s: no memory for %u names",
                        g->path, n);
    }

    for (i = 0; i < n; i++) {
        at = hash_put(*tab, *mask, base, stride, i);
        if (at != i) {
            eng_str_print(*(const eng_str_t *) ((const char *) base
                          + i * stride), name, sizeof(name));
            return eng_fail(err, at == CROWDED ? ENG_ELIMIT : ENG_EFORMAT,
                            "%s: %s \"%s\" %s", g->path, what, name,
                            at == CROWDED ? "is one of many with nearly the "
                            "same hash" : "appears twice");
        }
    }

    return 0;
}


static int
check_unique_keys(cursor_t *c)
{
    int        rc;
    uint32_t  *tab, mask;

    rc = hash_names(c->g, c->g->keys, sizeof(c->g->keys[0]), c->g->n_keys,
                    "key", &tab, &mask, c->err);
    free(tab);

    return rc;
}


int
eng_gguf_index(eng_gguf_t *g, eng_err_t *err)
{
    return hash_names(g, g->tensors, sizeof(g->tensors[0]), g->n_tensors,
                      "tensor", &g->index, &g->index_mask, err);
}
