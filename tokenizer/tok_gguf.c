/*
 * tok_gguf.c: the vocabulary keys of a GGUF file.  A bounded reader of the
 * key-value part only: tensors are no business of the tokenizer.  What the
 * keys mean is worked out in tok_ggml.c.
 */

#include "tokenizer/tok_build.h"
#include "tokenizer/tok_load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>


enum {
    G_U8, G_I8, G_U16, G_I16, G_U32, G_I32, G_F32, G_BOOL, G_STRING, G_ARRAY,
    G_U64, G_I64, G_F64, G_TYPES
};

static const uint8_t  type_bytes[G_TYPES] = {
    1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8
};

/* Where reading is; beyond the end everything reads as 0 and bad is set. */
typedef struct {
    const uint8_t  *p;
    size_t          left;
    bool            bad;
} cursor_t;

typedef struct {
    tok_gguf_t   g;
    tok_str_t   *tokens, *merges;
    float       *scores;
    int32_t     *types;
    uint32_t     n_scores, n_types;
    tok_str_t    json;              /* a whole tokenizer.json, and its kin */
    tok_beside_t beside;
    const char  *path;
    tok_err_t   *err;
} reader_t;


static uint64_t
take(cursor_t *c, size_t bytes)
{
    uint64_t  v = 0;

    assert(bytes <= 8);
    if (c->left < bytes) {
        c->bad = true;
        c->left = 0;
        return 0;
    }
    memcpy(&v, c->p, bytes);
    c->p += bytes;
    c->left -= bytes;
    return v;
}


static tok_str_t
take_string(cursor_t *c)
{
    tok_str_t  s = { "", 0 };
    uint64_t   n = take(c, 8);

    if (n > c->left || n > TOK_GGUF_STRING_MAX) {
        c->bad = true;
        return s;
    }
    s.ptr = (const char *) c->p;
    s.len = (size_t) n;
    c->p += n;
    c->left -= (size_t) n;
    return s;
}


static void
skip_bytes(cursor_t *c, uint64_t n)
{
    if (n > c->left) {
        c->bad = true;
        c->left = 0;
        return;
    }
    c->p += n;
    c->left -= (size_t) n;
}


/* Skips the elements of an array; arrays of arrays are not read. */
static void
skip_array(cursor_t *c, uint32_t type, uint64_t n)
{
    if (type == G_STRING) {
        while (n-- > 0 && !c->bad) {
            (void) take_string(c);
        }
        return;
    }
    if (type >= G_TYPES || type_bytes[type] == 0 || n > c->left) {
        c->bad = true;
        return;
    }
    skip_bytes(c, n * type_bytes[type]);
}


static int
damaged(reader_t *r, tok_str_t key)
{
    return tok_fail(r->err, TOK_E_FORMAT, "%s: key \"%.*s\" is damaged or has "
                    "an unexpected type", r->path,
                    (int) (key.len < 80 ? key.len : 80), key.ptr);
}


static int
strings(reader_t *r, cursor_t *c, uint32_t type, uint64_t n, uint32_t max,
    tok_str_t key, tok_str_t **out, uint32_t *count)
{
    uint64_t  i;

    if (type != G_STRING || n > c->left / 8 || *out != NULL) {
        return damaged(r, key);
    }
    if (n > max) {
        return tok_fail(r->err, TOK_E_LIMIT, "%s: %.*s has %llu elements, the "
                        "limit is %u", r->path, (int) key.len, key.ptr,
                        (unsigned long long) n, max);
    }
    *out = malloc(((size_t) n + 1) * sizeof(tok_str_t));
    if (*out == NULL) {
        return tok_fail(r->err, TOK_E_NOMEM, "%s: no memory", r->path);
    }
    for (i = 0; i < n && !c->bad; i++) {
        (*out)[i] = take_string(c);
    }
    *count = (uint32_t) n;
    return c->bad ? damaged(r, key) : 0;
}


static int
numbers(reader_t *r, cursor_t *c, uint32_t type, uint64_t n, bool floats,
    tok_str_t key)
{
    void      **out = floats ? (void **) &r->scores : (void **) &r->types;
    uint64_t    bytes = n * 4;

    if ((type != (floats ? G_F32 : G_I32) && (floats || type != G_U32))
        || n > TOK_IDS_MAX || bytes > c->left || *out != NULL)
    {
        return damaged(r, key);
    }
    *out = malloc((size_t) bytes + 1);
    if (*out == NULL) {
        return tok_fail(r->err, TOK_E_NOMEM, "%s: no memory", r->path);
    }
    memcpy(*out, c->p, (size_t) bytes);
    skip_bytes(c, bytes);
    if (floats) {
        r->n_scores = (uint32_t) n;
    } else {
        r->n_types = (uint32_t) n;
    }
    return 0;
}


static bool
is_key(tok_str_t key, const char *name)
{
    return key.len == strlen(name) && memcmp(key.ptr, name, key.len) == 0;
}


static int
array_value(reader_t *r, cursor_t *c, tok_str_t key)
{
    uint32_t  type = (uint32_t) take(c, 4);
    uint64_t  n = take(c, 8);

    if (is_key(key, "tokenizer.ggml.tokens")) {
        return strings(r, c, type, n, TOK_IDS_MAX, key, &r->tokens,
                       &r->g.n_tokens);
    }
    if (is_key(key, "tokenizer.ggml.merges")) {
        return strings(r, c, type, n, TOK_MERGES_MAX, key, &r->merges,
                       &r->g.n_merges);
    }
    if (is_key(key, "tokenizer.ggml.scores")) {
        return numbers(r, c, type, n, true, key);
    }
    if (is_key(key, "tokenizer.ggml.token_type")) {
        return numbers(r, c, type, n, false, key);
    }
    if (is_key(key, "tokenizer.ggml.precompiled_charsmap")
        && (type == G_U8 || type == G_I8) && n <= c->left)
    {
        r->g.charsmap = (tok_str_t) { (const char *) c->p, (size_t) n };
    }
    skip_array(c, type, n);
    return c->bad ? damaged(r, key) : 0;
}


static void
scalar_value(reader_t *r, tok_str_t key, uint32_t type, uint64_t v)
{
    static const struct {
        const char  *name;
        size_t       at;
    }  ids[] = {
#define ID(n, f)  { "tokenizer.ggml." n, offsetof(tok_gguf_t, f) }
        ID("bos_token_id", bos), ID("eos_token_id", eos),
        ID("eot_token_id", eot), ID("eom_token_id", eom),
        ID("unknown_token_id", unk), ID("separator_token_id", sep),
        ID("seperator_token_id", sep), ID("padding_token_id", pad),
        ID("cls_token_id", cls), ID("mask_token_id", mask)
#undef ID
    };
    size_t  i;

    if (type == G_U32 || type == G_I32 || type == G_U64 || type == G_U16) {
        for (i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
            if (is_key(key, ids[i].name) && v < TOK_IDS_MAX) {
                *(uint32_t *) ((char *) &r->g + ids[i].at) = (uint32_t) v;
            }
        }
    }
    if (type != G_BOOL) {
        return;
    }
    if (is_key(key, "tokenizer.ggml.add_bos_token")) {
        r->g.add_bos = v != 0;

    } else if (is_key(key, "tokenizer.ggml.add_eos_token")) {
        r->g.add_eos = v != 0;

    } else if (is_key(key, "tokenizer.ggml.add_sep_token")) {
        r->g.add_sep = v != 0;

    } else if (is_key(key, "tokenizer.ggml.add_space_prefix")) {
        r->g.add_space_prefix = v != 0;

    } else if (is_key(key, "tokenizer.ggml.remove_extra_whitespaces")) {
        r->g.remove_extra_spaces = v != 0;
    }
}


static int
one_key(reader_t *r, cursor_t *c)
{
    tok_str_t  key = take_string(c), text;
    uint32_t   type = (uint32_t) take(c, 4);
    uint64_t   v;

    if (c->bad || type >= G_TYPES) {
        return damaged(r, key);
    }
    if (type == G_ARRAY) {
        return array_value(r, c, key);
    }
    if (type == G_STRING) {
        text = take_string(c);
        if (is_key(key, "tokenizer.ggml.model")) {
            r->g.model = text;

        } else if (is_key(key, "tokenizer.ggml.pre")) {
            r->g.pre = text;

        } else if (is_key(key, "tokenizer.chat_template")) {
            r->g.chat_template = text;

        } else if (is_key(key, "tokenizer.huggingface.json")) {
            r->json = text;

        } else if (is_key(key, "tokenizer.huggingface.config")) {
            r->beside.config = text;

        } else if (is_key(key, "tokenizer.huggingface.generation")) {
            r->beside.generation = text;
        }
        return c->bad ? damaged(r, key) : 0;
    }
    v = take(c, type_bytes[type]);
    scalar_value(r, key, type, v);
    return c->bad ? damaged(r, key) : 0;
}


static int
read_keys(reader_t *r, cursor_t *c)
{
    uint32_t  version;
    uint64_t  n, i;
    int       rc = 0;

    (void) take(c, 4);
    version = (uint32_t) take(c, 4);
    (void) take(c, 8);
    n = take(c, 8);
    if (c->bad || (version != 2 && version != 3)) {
        return tok_fail(r->err, TOK_E_UNSUPPORTED, "%s: GGUF version %u, 2 and"
                        " 3 are known", r->path, version);
    }
    if (n > TOK_GGUF_KEYS_MAX) {
        return tok_fail(r->err, TOK_E_LIMIT, "%s: %llu keys, the limit is %u",
                        r->path, (unsigned long long) n, TOK_GGUF_KEYS_MAX);
    }
    for (i = 0; i < n && rc == 0; i++) {
        rc = one_key(r, c);
    }
    if (rc != 0) {
        return rc;
    }
    if (r->scores != NULL && r->n_scores != r->g.n_tokens) {
        return tok_fail(r->err, TOK_E_FORMAT, "%s: %u scores for %u tokens",
                        r->path, r->n_scores, r->g.n_tokens);
    }
    if (r->types != NULL && r->n_types != r->g.n_tokens) {
        return tok_fail(r->err, TOK_E_FORMAT, "%s: %u token types for %u "
                        "tokens", r->path, r->n_types, r->g.n_tokens);
    }
    return 0;
}


int
tok_gguf_memory(tok_t **t, const void *data, size_t len, const char *name,
    tok_err_t *err)
{
    reader_t  r;
    cursor_t  c = { data, len, false };
    int       rc;

    memset(&r, 0, sizeof(r));
    tok_gguf_init(&r.g);
    r.path = name;
    r.err = err;
    *t = NULL;
    rc = read_keys(&r, &c);
    if (rc == 0 && r.g.model.len == 0 && r.json.ptr != NULL) {
        r.beside.chat = r.g.chat_template;
        rc = tok_json_memory(t, r.json.ptr, r.json.len, NULL, &r.beside, name,
                             err);

    } else if (rc == 0) {
        r.g.tokens = r.tokens;
        r.g.merges = r.merges;
        r.g.scores = r.scores;
        r.g.types = r.types;
        rc = tok_open_gguf(t, &r.g, err);
    }
    free(r.tokens);
    free(r.merges);
    free(r.scores);
    free(r.types);
    return rc;
}


int
tok_gguf_file(tok_t **t, const char *path, tok_err_t *err)
{
    struct stat  st;
    void        *map;
    int          fd = open(path, O_RDONLY | O_CLOEXEC), rc;

    if (fd < 0 || fstat(fd, &st) != 0 || st.st_size < 24) {
        rc = tok_fail(err, TOK_E_IO, "%s: %s", path,
                      fd < 0 ? strerror(errno) : "too short for GGUF");
        if (fd >= 0) {
            (void) close(fd);
        }
        return rc;
    }
    map = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    (void) close(fd);
    if (map == MAP_FAILED) {
        return tok_fail(err, TOK_E_IO, "%s: cannot be mapped: %s", path,
                        strerror(errno));
    }
    rc = tok_gguf_memory(t, map, (size_t) st.st_size, path, err);
    (void) munmap(map, (size_t) st.st_size);
    return rc;
}
