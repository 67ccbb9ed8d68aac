/*
 * safetensors files and folders: opening, shards, lookups.  The header itself
 * is read in eng_st_parse.c.
 */
#include <stdlib.h>
#include <string.h>

#include "tokenizer/tok_json.h"
#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_st_int.h"

#define SINGLE  "model.safetensors"
#define INDEX   "model.safetensors.index.json"

static int open_index(eng_st_t *st, eng_err_t *err);


/* ---- files -------------------------------------------------------------- */

static int
add_file(eng_st_t *st, const char *path, eng_err_t *err)
{
    eng_st_file_t  *f, *p;

    if (st->n_files == ENG_ST_SHARDS_MAX) {
        return eng_fail(err, ENG_ELIMIT, "%s: more than %u shards", st->path,
                        ENG_ST_SHARDS_MAX);
    }
    p = realloc(st->files, (st->n_files + 1) * sizeof(*p));
    if (p == NULL) {
        return eng_fail(err, ENG_ENOMEM, "%s: no memory", path);
    }
    st->files = p;
    f = &st->files[st->n_files];
    memset(f, 0, sizeof(*f));
    f->io.fd = -1;
    f->path = strdup(path);
    if (f->path == NULL) {
        return eng_fail(err, ENG_ENOMEM, "%s: no memory", path);
    }
    f->name = strrchr(f->path, '/') != NULL ? strrchr(f->path, '/') + 1
                                            : f->path;
    st->n_files++;

    return ENG_OK;
}


/* The length of the header that stands in front of it, checked. */
static int
header_length(const eng_st_file_t *f, const uint8_t *first, uint64_t *len,
    eng_err_t *err)
{
    uint64_t  n = 0;
    int       i;

    for (i = 7; i >= 0; i--) {
        n = n << 8 | first[i];
    }
    if (n < 2 || n > ENG_ST_HEADER_MAX || n > f->io.bytes - 8) {
        return eng_fail(err, ENG_EFORMAT, "%s: a header of %llu bytes in a "
                        "file of %llu; no safetensors file (2 to %u)",
                        f->path, (unsigned long long) n,
                        (unsigned long long) f->io.bytes, ENG_ST_HEADER_MAX);
    }
    *len = n + 8;

    return ENG_OK;
}


static int
open_file(eng_st_t *st, const char *path, eng_err_t *err)
{
    int             rc;
    uint8_t         first[8];
    eng_st_file_t  *f;

    rc = add_file(st, path, err);
    if (rc != 0) {
        return rc;
    }
    f = &st->files[st->n_files - 1];
    rc = eng_io_open(&f->io, f->path, err);
    if (rc == 0 && f->io.bytes < 10) {
        rc = eng_fail(err, ENG_EFORMAT, "%s: %llu bytes are too short for a "
                      "safetensors file", f->path,
                      (unsigned long long) f->io.bytes);
    }
    if (rc == 0) {
        rc = eng_io_read(f->io.fd, f->path, first, 8, 0, err);
    }
    if (rc == 0) {
        rc = header_length(f, first, &f->header_bytes, err);
    }
    if (rc != 0) {
        return rc;
    }

    f->header = malloc(f->header_bytes);
    if (f->header == NULL) {
        return eng_fail(err, ENG_ENOMEM, "%s: no memory for a header of %llu "
                        "bytes", f->path,
                        (unsigned long long) f->header_bytes);
    }
    rc = eng_io_read(f->io.fd, f->path, f->header, f->header_bytes, 0, err);
    if (rc == 0 && memcmp(f->header, first, 8) != 0) {
        rc = eng_fail(err, ENG_EIO, "%s: the file changed while it was read",
                      f->path);
    }

    return rc == 0 ? eng_st_header(st, st->n_files - 1, err) : rc;
}


int
eng_st_open(eng_st_t *st, const char *path, eng_err_t *err)
{
    int   rc;
    char  name[ENG_IO_PATH_MAX];

    memset(st, 0, sizeof(*st));
    st->path = path;

    if (!eng_io_is_folder(path)) {
        rc = open_file(st, path, err);

    } else if (eng_io_exists(path, SINGLE)) {
        rc = eng_io_join(name, path, SINGLE, err);
        if (rc == 0) {
            rc = open_file(st, name, err);
        }

    } else if (eng_io_exists(path, INDEX)) {
        rc = open_index(st, err);

    } else {
        rc = eng_fail(err, ENG_EIO, "%s: the folder holds neither \"" SINGLE
                      "\" nor \"" INDEX "\"%s", path,
                      eng_io_exists(path, "pytorch_model.bin")
                      ? "; \"pytorch_model.bin\" is not read: convert it to "
                      "safetensors" : "");
    }

    if (rc == 0) {
        rc = eng_st_index(st, err);
    }
    if (rc != 0) {
        eng_st_close(st);
    }

    return rc;
}


int
eng_st_parse(eng_st_t *st, const char *path, const uint8_t *data,
    uint64_t len, uint64_t file_bytes, eng_err_t *err)
{
    int             rc;
    eng_st_file_t  *f;

    eng_assert(len <= file_bytes);
    memset(st, 0, sizeof(*st));
    st->path = path;

    rc = add_file(st, path, err);
    if (rc == 0) {
        f = &st->files[0];
        f->io.bytes = file_bytes;
        rc = len < 10 ? eng_fail(err, ENG_EFORMAT, "%s: too short", path)
                      : header_length(f, data, &f->header_bytes, err);
    }
    if (rc == 0 && f->header_bytes > len) {
        rc = eng_fail(err, ENG_ELIMIT, "%s: the header is longer than the "
                      "%llu bytes at hand", path, (unsigned long long) len);
    }
    if (rc == 0) {
        f->header = malloc(f->header_bytes);
        if (f->header == NULL) {
            rc = eng_fail(err, ENG_ENOMEM, "%s: no memory", path);
        } else {
            memcpy(f->header, data, f->header_bytes);
            rc = eng_st_header(st, 0, err);
        }
    }
    if (rc == 0) {
        rc = eng_st_index(st, err);
    }
    if (rc != 0) {
        eng_st_close(st);
    }

    return rc;
}


void
eng_st_close(eng_st_t *st)
{
    uint32_t  i;

    for (i = 0; i < st->n_files; i++) {
        eng_io_close(&st->files[i].io);
        free(st->files[i].path);
        free(st->files[i].header);
    }
    free(st->files);
    free(st->tensors);
    free(st->index);
    memset(st, 0, sizeof(*st));
}


/* ---- shards ------------------------------------------------------------- */

/* A name from the index: it must stay inside the folder. */
static int
shard_name_ok(const char *s, size_t len)
{
    size_t  i;

    if (len == 0 || len > ENG_ST_SHARD_NAME_MAX || s[0] == '.') {
        return 0;
    }
    for (i = 0; i < len; i++) {
        if (s[i] == '/' || s[i] == '\\' || (unsigned char) s[i] < 0x20
            || (s[i] == '.' && i > 0 && s[i - 1] == '.'))
        {
            return 0;
        }
    }

    return 1;
}


static int
find_shard(const eng_st_t *st, tok_str_t name)
{
    uint32_t  i;

    for (i = 0; i < st->n_files; i++) {
        if (strlen(st->files[i].name) == name.len
            && memcmp(st->files[i].name, name.ptr, name.len) == 0)
        {
            return (int) i;
        }
    }

    return -1;
}


static int
open_shard(eng_st_t *st, tok_str_t name, eng_err_t *err)
{
    int   rc;
    char  shown[ENG_NAME_MAX], file[ENG_ST_SHARD_NAME_MAX + 1];
    char  path[ENG_IO_PATH_MAX];

    if (!shard_name_ok(name.ptr, name.len)) {
        eng_str_print((eng_str_t) { name.ptr, (uint32_t) name.len }, shown,
                      sizeof(shown));
        return eng_fail(err, ENG_EFORMAT, "%s/" INDEX ": \"%s\" is no name "
                        "of a file in this folder", st->path, shown);
    }
    memcpy(file, name.ptr, name.len);
    file[name.len] = '\0';
    rc = eng_io_join(path, st->path, file, err);

    return rc == 0 ? open_file(st, path, err) : rc;
}


/* Every tensor that the index promises must be in the shard that it names. */
static int
check_entry(const eng_st_t *st, eng_str_t tensor, tok_str_t file,
    eng_err_t *err)
{
    char                    name[ENG_ST_NAME_MAX + 1];
    const eng_st_tensor_t  *t = NULL;

    if (tensor.len <= ENG_ST_NAME_MAX) {
        memcpy(name, tensor.p, tensor.len);
        name[tensor.len] = '\0';
        t = eng_st_tensor(st, name);
    }
    if (t == NULL || find_shard(st, file) != (int) t->file) {
        eng_str_print(tensor, name, sizeof(name));
        return eng_fail(err, ENG_EFORMAT, "%s/" INDEX ": tensor \"%s\" is not "
                        "in \"%.*s\"", st->path, name, (int) file.len,
                        file.ptr);
    }

    return ENG_OK;
}


/*
 * One walk over "weight_map": the first (check 0) opens the shards, the
 * second compares.
 */
static int
walk_map(eng_st_t *st, tok_json_t *j, int check, eng_err_t *err)
{
    int        rc, more;
    bool       first = true;
    uint32_t   n = 0;
    tok_str_t  key, file;
    eng_str_t  tensor;

    rc = tok_json_open(j, '{');
    while (rc == 0 && (more = tok_json_next(j, '{', &first)) != 0) {
        if (more < 0 || tok_json_string(j, &key) != 0) {
            return eng_st_json_error(j, err);
        }
        tensor = (eng_str_t) { key.ptr, (uint32_t) key.len };
        if (key.ptr == (const char *) j->text.ptr
            || n++ == ENG_ST_TENSORS_MAX)
        {
            return eng_fail(err, ENG_ELIMIT, "%s/" INDEX ": more than %u "
                            "tensors, or a name with escapes", st->path,
                            ENG_ST_TENSORS_MAX);
        }
        if (tok_json_colon(j) != 0 || tok_json_string(j, &file) != 0) {
            return eng_st_json_error(j, err);
        }
        if (check) {
            rc = check_entry(st, tensor, file, err);
        } else if (find_shard(st, file) < 0) {
            rc = open_shard(st, file, err);
        }
        if (rc != 0) {
            return rc;
        }
    }

    return rc != 0 ? eng_st_json_error(j, err) : ENG_OK;
}


static int
read_map(eng_st_t *st, tok_json_t *j, eng_err_t *err)
{
    int            rc;
    tok_members_t  m;

    if (tok_json_members(j, &m) != 0) {
        return eng_st_json_error(j, err);
    }
    if (!tok_json_at(j, &m, "weight_map")) {
        return eng_fail(err, ENG_EFORMAT, "%s/" INDEX ": \"weight_map\" is "
                        "missing", st->path);
    }
    rc = walk_map(st, j, 0, err);
    if (rc == 0 && st->n_tensors == 0) {
        rc = eng_fail(err, ENG_EFORMAT, "%s/" INDEX ": no tensors", st->path);
    }
    if (rc == 0) {
        rc = eng_st_index(st, err);
    }
    if (rc == 0) {
        (void) tok_json_at(j, &m, "weight_map");
        rc = walk_map(st, j, 1, err);
    }

    return rc;
}


static int
open_index(eng_st_t *st, eng_err_t *err)
{
    int         rc;
    char        path[ENG_IO_PATH_MAX], *text;
    uint64_t    len;
    tok_err_t   te;
    tok_json_t  j;

    rc = eng_io_join(path, st->path, INDEX, err);
    if (rc == 0) {
        rc = eng_io_text(path, ENG_ST_INDEX_MAX, &text, &len, err);
    }
    if (rc != 0) {
        return rc;
    }

    if (tok_json_init(&j, text, len, path, &te) != 0) {
        rc = eng_st_json_error(&j, err);
    } else {
        rc = read_map(st, &j, err);
    }
    tok_json_free(&j);
    free(text);

    return rc;
}


/* ---- lookups ------------------------------------------------------------ */

const eng_st_tensor_t *
eng_st_tensor(const eng_st_t *st, const char *name)
{
    uint64_t   h;
    eng_str_t  s = { name, (uint32_t) strlen(name) };

    if (st->index == NULL) {
        return NULL;
    }
    for (h = eng_str_hash(s); st->index[h & st->index_mask] != 0; h++) {
        const eng_st_tensor_t  *t;

        t = &st->tensors[st->index[h & st->index_mask] - 1];
        if (eng_str_eq(t->name, name)) {
            return t;
        }
    }

    return NULL;
}


int
eng_st_read(const eng_st_t *st, const eng_st_tensor_t *t, void *dst,
    uint64_t len, uint64_t at, eng_err_t *err)
{
    const eng_st_file_t  *f = &st->files[t->file];

    eng_assert(at <= t->bytes && len <= t->bytes - at);

    return eng_io_read(f->io.fd, f->path, dst, len, t->offset + at, err);
}
