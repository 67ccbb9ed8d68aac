/*
 * Conversion to GGUF: header and tensor table first, for all sizes are known,
 * then the rows of one tensor after another.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_convert.h"
#include "worker/engine/eng_io.h"
#include "worker/engine/eng_model.h"
#include "worker/engine/eng_source.h"
#include "worker/engine/eng_type.h"

#define PIECE_BYTES  (1u << 20)
#define TEXTS        4            /* of a folder's tokenizer                 */

typedef struct {
    kern_wtype_t  from, to;       /* equal: rows are copied                  */
    uint32_t      type;           /* in the file                             */
    uint64_t      bytes;
    uint64_t      offset;         /* in the data                             */
} plan_t;

typedef struct {
    const eng_gguf_t          *g;
    const char                *dst;
    FILE                      *out;
    plan_t                    *plan;
    uint64_t                   align;
    uint64_t                   at;      /* bytes written                     */
    uint64_t                   done, total;
    int                        quantised;         /* some tensor is          */
    uint8_t                   *rows;    /* PIECE_BYTES or a row              */
    float                     *before, *after;    /* [columns]               */
    const eng_convert_sink_t  *sink;
    eng_err_t                 *err;
} conv_t;

static int plan_tensors(conv_t *c, kern_wtype_t to);
static int write_header(conv_t *c);
static int write_tensor(conv_t *c, uint32_t i);
static int write_file(conv_t *c);


/* ---- output ------------------------------------------------------------- */

/* Failures are kept by the stream and asked for once, at its end. */
static void
put(conv_t *c, const void *p, uint64_t n)
{
    c->at += fwrite(p, 1, n, c->out);
}


static void
put_u32(conv_t *c, uint32_t v)
{
    put(c, &v, sizeof(v));
}


static void
put_u64(conv_t *c, uint64_t v)
{
    put(c, &v, sizeof(v));
}


static void
put_str(conv_t *c, eng_str_t s)
{
    put_u64(c, s.len);
    put(c, s.p, s.len);
}


static void
put_pad(conv_t *c)
{
    static const uint8_t  zero[64];

    uint64_t  n;

    for (n = (c->align - c->at % c->align) % c->align; n > 64; n -= 64) {
        put(c, zero, 64);
    }
    put(c, zero, n);
}


/* ---- the whole ---------------------------------------------------------- */

static int
convert(conv_t *c, kern_wtype_t to)
{
    int                    rc;
    const eng_gguf_key_t  *k = eng_gguf_key(c->g, "general.alignment");

    /* a power of two up to 1 MiB: checked by the parser */
    c->align = k != NULL && c->g->folder == NULL ? k->v.u : 32;
    c->plan = calloc(c->g->n_tensors + 1, sizeof(c->plan[0]));
    if (c->plan == NULL) {
        return eng_fail(c->err, ENG_ENOMEM, "%s: no memory", c->g->path);
    }
    rc = plan_tensors(c, to);

    return rc == 0 ? write_file(c) : rc;
}


int
eng_convert(const char *src, const char *dst, const char *quantize,
    const eng_convert_sink_t *sink, eng_err_t *err)
{
    int               rc;
    conv_t            c = { .dst = dst, .sink = sink, .err = err };
    eng_gguf_t        g;
    eng_info_t        info;
    kern_wtype_t      to;
    eng_ctx_opts_t    co = ENG_CTX_OPTS_INIT;
    eng_model_opts_t  mo = ENG_MODEL_OPTS_INIT;

    mo.quantize = quantize;
    rc = eng_quant_type(quantize, &to, err);
    if (rc == 0) {
        rc = eng_source_open(&g, src, err);
    }
    if (rc != 0) {
        return rc;
    }

    c.g = &g;
    /* of the header that is read here, not of the file's name: another
       program may write the file meanwhile */
    rc = eng_model_check_source(&g, &mo, &co, &info, err);
    if (rc == 0) {
        rc = convert(&c, to);
    }
    eng_source_close(&g);
    free(c.plan);
    free(c.rows);
    free(c.before);
    free(c.after);

    return rc;
}


static int
plan_tensors(conv_t *c, kern_wtype_t to)
{
    int                       type;
    char                      name[ENG_NAME_MAX];
    uint32_t                  i;
    uint64_t                  cols = 0, offset = 0;
    plan_t                   *p;
    const eng_gguf_tensor_t  *t;

    for (i = 0; i < c->g->n_tensors; i++) {
        t = &c->g->tensors[i];
        p = &c->plan[i];
        type = eng_kern_type(t->type);
        eng_assert(type >= 0);    /* the check has bound all of them         */
        eng_str_print(t->name, name, sizeof(name));
        p->from = p->to = (kern_wtype_t) type;
        p->type = t->type;
        p->bytes = t->bytes;
        if (t->n_dims > 1) {
            p->to = eng_quant_choice(name, p->from, to, t->dim[0]);
        }
        if (p->to != p->from) {
            /* smaller than the source: no overflow */
            c->quantised = 1;
            p->type = eng_gguf_type(p->to);
            p->bytes = t->elements / t->dim[0]
                       * kern_gguf_row_bytes(p->to, (uint32_t) t->dim[0]);
        }
        p->offset = offset;
        if (!eng_chk_add(offset, p->bytes, &offset)
            || !eng_chk_align(offset, c->align, &offset))
        {
            return eng_fail(c->err, ENG_ELIMIT, "%s: too large", c->g->path);
        }
        c->total += p->bytes;
        cols = t->dim[0] > cols ? t->dim[0] : cols;
    }

    c->rows = malloc(cols * 4 > PIECE_BYTES ? cols * 4 : PIECE_BYTES);
    c->before = malloc(cols * sizeof(float) + 1);
    c->after = malloc(cols * sizeof(float) + 1);

    return c->rows != NULL && c->before != NULL && c->after != NULL ? 0
        : eng_fail(c->err, ENG_ENOMEM, "%s: no memory", c->g->path);
}


/* A file that was written to meanwhile gives tensors of two kinds. */
static int
check_same(const conv_t *c)
{
    struct stat  st;

    if (c->g->folder != NULL) {
        return 0;                 /* shards are closed after their rows      */
    }
    if (fstat(c->g->fd, &st) != 0 || (uint64_t) st.st_size != c->g->file_bytes
        || (uint64_t) st.st_mtim.tv_sec * 1000000000u
           + (uint64_t) st.st_mtim.tv_nsec != c->g->mtime_ns)
    {
        return eng_fail(c->err, ENG_EIO, "%s: was changed while it was read; "
                        "convert it again", c->g->path);
    }

    return 0;
}


/* Written under a name of its own and renamed: never half a file. */
static int
write_file(conv_t *c)
{
    int       rc, fd;
    char      temp[ENG_IO_PATH_MAX];
    uint32_t  i;

    i = (uint32_t) snprintf(temp, sizeof(temp), "%s.tmp", c->dst);
    if (i >= sizeof(temp) || access(c->dst, F_OK) == 0) {
        return eng_fail(c->err, ENG_EIO, "%s: exists already, or the path is "
                        "too long", c->dst);
    }
    fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    c->out = fd >= 0 ? fdopen(fd, "wb") : NULL;
    if (c->out == NULL) {
        rc = eng_fail(c->err, ENG_EIO, "%s: cannot be made: %s", temp,
                      strerror(errno));
        if (fd >= 0) {
            (void) close(fd);
        }
        return rc;
    }

    rc = write_header(c);
    for (i = 0; rc == 0 && i < c->g->n_tensors; i++) {
        rc = write_tensor(c, i);
    }
    if (rc == 0) {
        rc = check_same(c);
    }
    errno = 0;
    if (rc == 0 && (fflush(c->out) != 0 || ferror(c->out)
                    || fsync(fileno(c->out)) != 0))
    {
        rc = eng_fail(c->err, ENG_EIO, "%s: cannot be written: %s", temp,
                      errno != 0 ? strerror(errno) : "write error");
    }
    (void) fclose(c->out);
    if (rc == 0 && rename(temp, c->dst) != 0) {
        rc = eng_fail(c->err, ENG_EIO, "%s: cannot be renamed: %s", temp,
                      strerror(errno));
    }
    if (rc != 0) {
        (void) unlink(temp);
    }

    return rc;
}


/* ---- header ------------------------------------------------------------- */

/* What the format's enumeration calls a file of mostly this type. */
static uint32_t
file_type(const conv_t *c)
{
    uint32_t  i, best = 0;
    uint64_t  n[KERN_WTYPE_N] = { 0 };

    static const uint8_t  numbers[KERN_WTYPE_N] = {
        [KERN_F32] = 0, [KERN_F16] = 1, [KERN_BF16] = 32, [KERN_Q8_0] = 7,
        [KERN_Q4_0] = 2, [KERN_Q4_1] = 3, [KERN_Q5_0] = 8, [KERN_Q5_1] = 9,
    };

    for (i = 0; i < c->g->n_tensors; i++) {
        n[c->plan[i].to] += strncmp(c->g->tensors[i].name.p, "blk.", 4) == 0
                            ? c->plan[i].bytes : 0;
    }
    for (i = 1; i < KERN_WTYPE_N; i++) {
        best = n[i] > n[best] ? i : best;
    }

    return numbers[best];
}


/* The keys of a file as they stand there, byte for byte. */
static void
copy_keys(conv_t *c)
{
    uint64_t               from = 24, end, at;
    const eng_gguf_t      *g = c->g;
    const eng_gguf_key_t  *k = eng_gguf_key(g, "general.file_type");

    /* the table of tensors begins with the length of the first one's name */
    eng_assert(g->n_tensors > 0 && g->header_bytes > 32);
    end = (uint64_t) (g->tensors[0].name.p - (const char *) g->header) - 8;
    if (k != NULL && k->kind == ENG_GGUF_U32 && c->quantised) {
        at = k->offset;
        eng_assert(at >= from && at + 4 <= end);
        put(c, g->header + from, at - from);
        put_u32(c, file_type(c));
        from = at + 4;
    }
    put(c, g->header + from, end - from);
}


static void
put_key(conv_t *c, const eng_gguf_key_t *k)
{
    float  f;

    put_str(c, k->key);
    put_u32(c, k->kind);
    if (k->kind == ENG_GGUF_STRING) {
        put_str(c, k->v.s);
    } else if (k->kind == ENG_GGUF_F32) {
        f = (float) k->v.f;
        put(c, &f, sizeof(f));
    } else {
        eng_assert(k->kind == ENG_GGUF_U32);
        put_u32(c, (uint32_t) k->v.u);
    }
}


static void
put_text(conv_t *c, const char *key, const char *text, uint64_t len)
{
    put_str(c, (eng_str_t) { key, (uint32_t) strlen(key) });
    put_u32(c, ENG_GGUF_STRING);
    put_u64(c, len);
    put(c, text, len);
}


/* The tokenizer's files of a folder: those that there are. */
static const struct {
    const char  *file;
    const char  *key;
} texts[TEXTS] = {
    { "tokenizer.json", "tokenizer.huggingface.json" },
    { "tokenizer_config.json", "tokenizer.huggingface.config" },
    { "generation_config.json", "tokenizer.huggingface.generation" },
    { "chat_template.jinja", "tokenizer.chat_template" },
};


static int
put_folder_keys(conv_t *c)
{
    int               rc = ENG_OK;
    char              path[ENG_IO_PATH_MAX], *text[TEXTS] = { NULL };
    uint32_t          i, n = 0;
    uint64_t          len[TEXTS];
    eng_gguf_key_t    type = { .key = { "general.file_type", 17 },
                               .kind = ENG_GGUF_U32 };
    const eng_gguf_t *g = c->g;

    for (i = 0; rc == 0 && i < TEXTS; i++) {
        if (!eng_io_exists(g->path, texts[i].file)) {
            continue;
        }
        rc = eng_io_join(path, g->path, texts[i].file, c->err);
        if (rc == 0) {
            rc = eng_io_text(path, ENG_GGUF_STRING_MAX, &text[i], &len[i],
                             c->err);
        }
        n++;
    }

    if (rc == 0) {
        put_u64(c, g->n_keys + 1 + n);
        type.v.u = file_type(c);
        put_key(c, &type);
        for (i = 0; i < g->n_keys; i++) {
            put_key(c, &g->keys[i]);
        }
    }
    for (i = 0; i < TEXTS; i++) {
        if (rc == 0 && text[i] != NULL) {
            put_text(c, texts[i].key, text[i], len[i]);
        }
        free(text[i]);
    }

    return rc;
}


static int
write_header(conv_t *c)
{
    int                       rc = ENG_OK;
    uint32_t                  i, j;
    const eng_gguf_tensor_t  *t;

    put(c, "GGUF", 4);
    put_u32(c, 3);
    put_u64(c, c->g->n_tensors);
    if (c->g->folder != NULL) {
        rc = put_folder_keys(c);
    } else {
        put_u64(c, c->g->n_keys);
        copy_keys(c);
    }

    for (i = 0; rc == 0 && i < c->g->n_tensors; i++) {
        t = &c->g->tensors[i];
        put_str(c, t->name);
        put_u32(c, t->n_dims);
        for (j = 0; j < t->n_dims; j++) {
            put_u64(c, t->dim[j]);
        }
        put_u32(c, c->plan[i].type);
        put_u64(c, c->plan[i].offset);
    }

    return rc;
}


/* ---- data --------------------------------------------------------------- */

typedef struct {
    double  error, value, max;    /* sums of squares; the largest            */
} loss_t;


static void
add_error(loss_t *e, const float *x, const float *y, uint64_t n)
{
    double    d;
    uint64_t  i;

    for (i = 0; i < n; i++) {
        d = (double) x[i] - (double) y[i];
        e->error += d * d;
        e->value += (double) x[i] * (double) x[i];
        e->max = fabs(d) > e->max ? fabs(d) : e->max;
    }
}


/* n rows in c->rows: each becomes a row of blocks there. */
static int
quantise(conv_t *c, const eng_gguf_tensor_t *t, const plan_t *p, uint64_t n,
    loss_t *e)
{
    char      name[ENG_NAME_MAX];
    size_t    from, to;
    uint32_t  cols = (uint32_t) t->dim[0];
    uint64_t  i;

    from = kern_gguf_row_bytes(p->from, cols);
    to = kern_gguf_row_bytes(p->to, cols);
    eng_assert(to <= from);

    for (i = 0; i < n; i++) {
        kern_gguf_row_f32(p->from, c->rows + i * from, cols, c->before);
        if (eng_quant_row(p->to, c->before, cols, c->rows + i * to) != 0) {
            eng_str_print(t->name, name, sizeof(name));
            return eng_fail(c->err, ENG_EFORMAT, "%s: tensor \"%s\" has "
                            "values that are not finite or too large to be "
                            "quantised", c->g->path, name);
        }
        kern_gguf_row_f32(p->to, c->rows + i * to, cols, c->after);
        add_error(e, c->before, c->after, cols);
    }

    return 0;
}


static void
report(conv_t *c, uint32_t i, const loss_t *e)
{
    char                      name[ENG_NAME_MAX];
    const plan_t             *p = &c->plan[i];
    eng_convert_tensor_t      r = { .name = name };
    const eng_gguf_tensor_t  *t = &c->g->tensors[i];

    eng_str_print(t->name, name, sizeof(name));
    r.from = kern_wtype_name(p->from);
    r.to = kern_wtype_name(p->to);
    r.elements = t->elements;
    r.from_bytes = t->bytes;
    r.to_bytes = p->bytes;
    r.rms = e->value > 0 ? sqrt(e->error / e->value) : 0;
    r.max = e->max;
    r.done = c->done;
    r.total = c->total;
    c->sink->tensor(c->sink->arg, &r);
}


static int
write_tensor(conv_t *c, uint32_t i)
{
    int                       rc = 0;
    loss_t                   e = { 0, 0, 0 };
    uint64_t                  row, n, rows, row_bytes, per;
    const plan_t             *p = &c->plan[i];
    const eng_gguf_tensor_t  *t = &c->g->tensors[i];

    rows = t->elements / t->dim[0];
    row_bytes = t->bytes / rows;
    per = PIECE_BYTES / row_bytes > 0 ? PIECE_BYTES / row_bytes : 1;
    put_pad(c);

    for (row = 0; rc == 0 && row < rows; row += n) {
        n = rows - row < per ? rows - row : per;
        rc = eng_source_rows(c->g, t, row, n, c->rows, c->err);
        if (rc == 0 && p->to != p->from) {
            rc = quantise(c, t, p, n, &e);
        }
        if (rc == 0) {
            put(c, c->rows, p->bytes / rows * n);
        }
    }
    c->done += p->bytes;
    if (rc == 0) {
        report(c, i, &e);
    }

    return rc;
}
