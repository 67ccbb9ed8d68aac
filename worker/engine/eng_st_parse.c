/*
 * The header of a safetensors file: a JSON object of tensors, each with a
 * dtype, a shape and a span of the bytes behind the header.
 */
#include <stdlib.h>
#include <string.h>

#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_st_int.h"

typedef struct {
    const char  *name;
    uint32_t     bytes;           /* per element                             */
    uint32_t     type;            /* eng_type.h                              */
} dtype_t;

/* What the format defines with whole bytes per element; only float types are
   ever computed with, the others must not stop a folder that has a buffer of
   them. */
static const dtype_t  dtypes[] = {
    { "F32", 4, 0 }, { "F16", 2, 1 }, { "BF16", 2, 30 }, { "F64", 8, 28 },
    { "I8", 1, 24 }, { "I16", 2, 25 }, { "I32", 4, 26 }, { "I64", 8, 27 },
    { "U8", 1, ENG_ST_NO_TYPE }, { "U16", 2, ENG_ST_NO_TYPE },
    { "U32", 4, ENG_ST_NO_TYPE }, { "U64", 8, ENG_ST_NO_TYPE },
    { "BOOL", 1, ENG_ST_NO_TYPE }, { "F8_E4M3", 1, ENG_ST_NO_TYPE },
    { "F8_E5M2", 1, ENG_ST_NO_TYPE },
};

typedef struct {
    tok_json_t             j;
    tok_err_t              te;
    eng_st_t              *st;
    const eng_st_file_t   *f;
    eng_err_t             *err;
    char                   shown[ENG_NAME_MAX];   /* the tensor, for messages */
} parser_t;

static int read_tensors(parser_t *p, uint32_t file);
static int check_overlap(parser_t *p, uint32_t first);


int
eng_st_json_error(const tok_json_t *j, eng_err_t *err)
{
    int  code = ENG_EFORMAT;

    if (j->err->code == TOK_E_LIMIT) {
        code = ENG_ELIMIT;
    } else if (j->err->code == TOK_E_NOMEM) {
        code = ENG_ENOMEM;
    }

    return eng_fail(err, code, "%s", j->err->msg);
}


int
eng_st_header(eng_st_t *st, uint32_t file, eng_err_t *err)
{
    int       rc;
    uint32_t  first = st->n_tensors;
    parser_t  p = { .st = st, .f = &st->files[file], .err = err };

    eng_assert(p.f->header_bytes >= 10);

    if (tok_json_init(&p.j, (const char *) p.f->header + 8,
                      p.f->header_bytes - 8, p.f->path, &p.te) != 0)
    {
        return eng_st_json_error(&p.j, err);
    }
    rc = read_tensors(&p, file);
    if (rc == 0 && tok_json_peek(&p.j) != 0) {
        rc = eng_fail(err, ENG_EFORMAT, "%s: bytes behind the header's "
                      "object", p.f->path);
    }
    if (rc == 0) {
        rc = check_overlap(&p, first);
    }
    tok_json_free(&p.j);

    return rc;
}


/* ---- one tensor --------------------------------------------------------- */

static int
fail_tensor(parser_t *p, int code, const char *what)
{
    return eng_fail(p->err, code, "%s: tensor \"%s\": %s", p->f->path,
                    p->shown, what);
}


static int
read_dtype(parser_t *p, eng_st_tensor_t *t, uint32_t *size)
{
    size_t     i;
    char       name[16];
    tok_str_t  s;

    if (tok_json_string(&p->j, &s) != 0) {
        return eng_st_json_error(&p->j, p->err);
    }
    for (i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
        if (strlen(dtypes[i].name) == s.len
            && memcmp(dtypes[i].name, s.ptr, s.len) == 0)
        {
            t->dtype = dtypes[i].name;
            t->type = dtypes[i].type;
            *size = dtypes[i].bytes;
            return ENG_OK;
        }
    }
    eng_str_print((eng_str_t) { s.ptr, (uint32_t) s.len }, name,
                  sizeof(name));

    return eng_fail(p->err, ENG_EUNSUP, "%s: tensor \"%s\" has the dtype "
                    "\"%s\", which is not known", p->f->path, p->shown, name);
}


/* A whole number of up to 18 digits: no size on earth needs more. */
static int
read_whole(parser_t *p, uint64_t *v)
{
    uint32_t  n;
    uint64_t  x = 0;
    uint8_t   c;

    c = tok_json_peek(&p->j);
    for (n = 0; c >= '0' && c <= '9'; n++) {
        if (n == 18 || (n == 1 && x == 0)) {
            return fail_tensor(p, ENG_EFORMAT, "a size must be a whole number "
                               "of up to 18 digits");
        }
        x = x * 10 + (uint64_t) (c - '0');
        p->j.p++;
        c = p->j.p < p->j.end ? *p->j.p : 0;
    }
    if (n == 0) {
        return fail_tensor(p, ENG_EFORMAT, "a size must be a whole number");
    }
    *v = x;

    return ENG_OK;
}


static int
read_list(parser_t *p, uint64_t *v, uint32_t max, uint32_t *n)
{
    int   rc, more;
    bool  first = true;

    *n = 0;
    rc = tok_json_open(&p->j, '[');
    while (rc == 0 && (more = tok_json_next(&p->j, '[', &first)) != 0) {
        if (more < 0) {
            return eng_st_json_error(&p->j, p->err);
        }
        if (*n == max) {
            return fail_tensor(p, ENG_ELIMIT, max == 2 ? "data_offsets are "
                               "two numbers" : "more than 8 dimensions");
        }
        rc = read_whole(p, &v[(*n)++]);
        if (rc != 0) {
            return rc;
        }
    }

    return rc != 0 ? eng_st_json_error(&p->j, p->err) : ENG_OK;
}


static int
check_span(parser_t *p, eng_st_tensor_t *t, uint32_t size,
    const uint64_t span[2])
{
    uint32_t  i;
    uint64_t  n = 1, room = p->f->io.bytes - p->f->header_bytes;

    for (i = 0; i < t->n_dims; i++) {
        if (!eng_chk_mul(n, t->dim[i], &n)) {
            return fail_tensor(p, ENG_EFORMAT, "its dimensions overflow");
        }
    }
    t->elements = n;
    if (!eng_chk_mul(n, size, &t->bytes)) {
        return fail_tensor(p, ENG_EFORMAT, "its dimensions overflow");
    }
    if (span[0] > span[1] || span[1] - span[0] != t->bytes) {
        return eng_fail(p->err, ENG_EFORMAT, "%s: tensor \"%s\": the shape "
                        "takes %llu bytes, the data_offsets are %llu to %llu",
                        p->f->path, p->shown, (unsigned long long) t->bytes,
                        (unsigned long long) span[0],
                        (unsigned long long) span[1]);
    }
    if (span[1] > room) {
        return eng_fail(p->err, ENG_EFORMAT, "%s: tensor \"%s\" ends at %llu, "
                        "the file has %llu bytes of data", p->f->path,
                        p->shown, (unsigned long long) span[1],
                        (unsigned long long) room);
    }
    /* no overflow: both are below the file's size */
    t->offset = p->f->header_bytes + span[0];

    return ENG_OK;
}


static int
read_tensor(parser_t *p, eng_st_tensor_t *t)
{
    int            rc;
    uint32_t       i, n, size = 0;
    uint64_t       span[2];
    tok_members_t  m;
    const uint8_t *end;

    if (tok_json_members(&p->j, &m) != 0) {
        return eng_st_json_error(&p->j, p->err);
    }
    end = p->j.p;
    if (m.n != 3) {
        return fail_tensor(p, ENG_EFORMAT, "dtype, shape and data_offsets are "
                           "expected, and nothing else");
    }

    if (!tok_json_at(&p->j, &m, "dtype")) {
        return fail_tensor(p, ENG_EFORMAT, "dtype is missing");
    }
    rc = read_dtype(p, t, &size);
    if (rc != 0) {
        return rc;
    }
    if (!tok_json_at(&p->j, &m, "shape")) {
        return fail_tensor(p, ENG_EFORMAT, "shape is missing");
    }
    rc = read_list(p, t->dim, ENG_ST_DIMS_MAX, &t->n_dims);
    if (rc != 0) {
        return rc;
    }
    for (i = t->n_dims; i < ENG_ST_DIMS_MAX; i++) {
        t->dim[i] = 1;
    }
    if (!tok_json_at(&p->j, &m, "data_offsets")) {
        return fail_tensor(p, ENG_EFORMAT, "data_offsets are missing");
    }
    rc = read_list(p, span, 2, &n);
    if (rc == 0 && n != 2) {
        rc = fail_tensor(p, ENG_EFORMAT, "data_offsets are two numbers");
    }
    p->j.p = end;

    return rc == 0 ? check_span(p, t, size, span) : rc;
}


/* ---- the table ---------------------------------------------------------- */

static int
grow(parser_t *p)
{
    uint32_t          cap;
    eng_st_t         *st = p->st;
    eng_st_tensor_t  *t;

    if (st->n_tensors < st->cap) {
        return ENG_OK;
    }
    if (st->cap >= ENG_ST_TENSORS_MAX) {
        return eng_fail(p->err, ENG_ELIMIT, "%s: more than %u tensors",
                        p->f->path, ENG_ST_TENSORS_MAX);
    }
    cap = st->cap == 0 ? 256 : st->cap * 2;
    t = realloc(st->tensors, cap * sizeof(*t));
    if (t == NULL) {
        return eng_fail(p->err, ENG_ENOMEM, "%s: no memory for %u tensors",
                        p->f->path, cap);
    }
    st->tensors = t;
    st->cap = cap;

    return ENG_OK;
}


static int
read_entry(parser_t *p, uint32_t file)
{
    int               rc;
    eng_str_t         name;
    tok_str_t         key;
    eng_st_tensor_t  *t;

    if (tok_json_string(&p->j, &key) != 0) {
        return eng_st_json_error(&p->j, p->err);
    }
    name = (eng_str_t) { key.ptr, (uint32_t) key.len };
    eng_str_print(name, p->shown, sizeof(p->shown));
    if (key.len == 0 || key.len > ENG_ST_NAME_MAX
        || key.ptr == (const char *) p->j.text.ptr)
    {
        return eng_fail(p->err, ENG_ELIMIT, "%s: tensor \"%s\": a name has 1 "
                        "to %u bytes and no escapes", p->f->path, p->shown,
                        ENG_ST_NAME_MAX);
    }
    if (tok_json_colon(&p->j) != 0) {
        return eng_st_json_error(&p->j, p->err);
    }
    if (eng_str_eq(name, "__metadata__")) {
        return tok_json_skip(&p->j) == 0 ? ENG_OK
               : eng_st_json_error(&p->j, p->err);
    }

    rc = grow(p);
    if (rc != 0) {
        return rc;
    }
    t = &p->st->tensors[p->st->n_tensors];
    memset(t, 0, sizeof(*t));
    t->name = name;
    t->file = file;
    rc = read_tensor(p, t);
    if (rc == 0) {
        p->st->n_tensors++;
    }

    return rc;
}


static int
read_tensors(parser_t *p, uint32_t file)
{
    int   rc, more;
    bool  first = true;

    if (tok_json_open(&p->j, '{') != 0) {
        return eng_st_json_error(&p->j, p->err);
    }
    while ((more = tok_json_next(&p->j, '{', &first)) != 0) {
        rc = more < 0 ? eng_st_json_error(&p->j, p->err)
                      : read_entry(p, file);
        if (rc != 0) {
            return rc;
        }
    }

    return ENG_OK;
}


static int
by_offset(const void *a, const void *b)
{
    const eng_st_tensor_t *const *x = a, *const *y = b;

    if ((*x)->offset != (*y)->offset) {
        return (*x)->offset < (*y)->offset ? -1 : 1;
    }
    /* empty tensors first: they overlap nothing */
    return ((*x)->bytes > (*y)->bytes) - ((*x)->bytes < (*y)->bytes);
}


static int
check_overlap(parser_t *p, uint32_t first)
{
    int                      rc = ENG_OK;
    uint32_t                 i, n = p->st->n_tensors - first;
    const eng_st_tensor_t  **t;

    if (n == 0) {
        return eng_fail(p->err, ENG_EFORMAT, "%s: no tensors", p->f->path);
    }
    t = malloc(n * sizeof(t[0]));
    if (t == NULL) {
        return eng_fail(p->err, ENG_ENOMEM, "%s: no memory", p->f->path);
    }
    for (i = 0; i < n; i++) {
        t[i] = &p->st->tensors[first + i];
    }
    qsort(t, n, sizeof(t[0]), by_offset);
    for (i = 1; i < n && rc == 0; i++) {
        if (t[i]->offset < t[i - 1]->offset + t[i - 1]->bytes) {
            eng_str_print(t[i]->name, p->shown, sizeof(p->shown));
            rc = fail_tensor(p, ENG_EFORMAT, "it overlaps another one");
        }
    }
    free(t);

    return rc;
}


int
eng_st_index(eng_st_t *st, eng_err_t *err)
{
    char       name[ENG_NAME_MAX];
    uint32_t   i, size = 16;
    uint64_t   h, end;
    eng_str_t  s, o;

    while (size < st->n_tensors * 2u) {
        size *= 2;
    }
    free(st->index);
    st->index = calloc(size, sizeof(st->index[0]));
    if (st->index == NULL) {
        return eng_fail(err, ENG_ENOMEM, "%s: no memory", st->path);
    }
    st->index_mask = size - 1;

    for (i = 0; i < st->n_tensors; i++) {
        s = st->tensors[i].name;
        h = eng_str_hash(s);
        end = h + ENG_GGUF_PROBES_MAX;
        for ( /* void */ ; st->index[h & st->index_mask] != 0; h++) {
            if (h == end) {
                eng_str_print(s, name, sizeof(name));
                return eng_fail(err, ENG_ELIMIT, "%s: tensor \"%s\" is one of "
                                "many with nearly the same hash",
                                st->files[st->tensors[i].file].path, name);
            }
            o = st->tensors[st->index[h & st->index_mask] - 1].name;
            if (o.len == s.len && memcmp(o.p, s.p, s.len) == 0) {
                eng_str_print(s, name, sizeof(name));
                return eng_fail(err, ENG_EFORMAT, "%s: tensor \"%s\" stands "
                                "there twice",
                                st->files[st->tensors[i].file].path, name);
            }
        }
        st->index[h & st->index_mask] = i + 1;
    }

    return ENG_OK;
}
