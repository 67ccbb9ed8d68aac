/*
 * The image: all weights in one block.  From the cache file, if there is one
 * that fits, mapped as it is; else packed by a few threads from the model's
 * files, into anonymous memory or a memfd that the workers of a pool share,
 * and written to the cache folder.  A memfd's header is written last: what
 * has one is whole.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/encoder/enc_model.h"
#include "worker/engine/eng_cache.h"
#include "worker/engine/eng_chk.h"
#include "worker/kernels/kern_f16.h"

#define THREADS_MAX  8u
#define Q8_BYTES     34u          /* a block of Q8_0: f16 d, 32 int8         */
#define UNIT_ROWS    2048u        /* of a matrix, for a thread at a time     */

_Static_assert(ENC_IMAGE_HEADER == ENG_CACHE_ROOM, "data begin there");

typedef struct {
    const enc_model_t       *m;
    const enc_src_t         *src;
    uint8_t                 *base;
    uint32_t                 units;
    _Atomic uint32_t         next;
    _Atomic int              failed;
    pthread_mutex_t          lock;         /* of err                         */
    eng_err_t                err;
} packer_t;

/* What one thread has for the rows of one group. */
typedef struct {
    uint8_t  *raw, *out;
    float    *f32, *ordered;
} rows_t;


/* A row of floats to blocks of Q8_0: d = max / 127. */
static void
row_q8(const float *x, uint32_t cols, uint8_t *out)
{
    float     max, id;
    int8_t    q[KERN_BLOCK];
    uint16_t  d;
    uint32_t  b, i;

    for (b = 0; b < cols / KERN_BLOCK; b++) {
        max = 0;
        for (i = 0; i < KERN_BLOCK; i++) {
            max = __builtin_fabsf(x[i]) > max ? __builtin_fabsf(x[i]) : max;
        }
        d = kern_f32_f16(max / 127.0f);
        /* by the scale as it is stored: half of the rounding's error less */
        id = kern_f16_f32(d) > 0 ? 1.0f / kern_f16_f32(d) : 0.0f;
        for (i = 0; i < KERN_BLOCK; i++) {
            float  v = __builtin_rintf(x[i] * id);

            v = v > 127 ? 127 : v < -127 ? -127 : v;
            q[i] = v == v ? (int8_t) v : 0;
        }
        memcpy(out, &d, 2);
        memcpy(out + 2, q, KERN_BLOCK);
        out += Q8_BYTES;
        x += KERN_BLOCK;
    }
}


static void
row_bf16(const float *x, uint32_t cols, uint8_t *out)
{
    uint16_t  h;
    uint32_t  i;

    for (i = 0; i < cols; i++) {
        h = kern_f32_bf16(x[i]);
        memcpy(out + 2 * (size_t) i, &h, 2);
    }
}


static void
row_convert(const packer_t *p, const enc_item_t *it, const enc_tensor_t *t,
    const uint8_t *raw, const rows_t *r, uint8_t *out)
{
    const float  *row = r->f32;

    kern_gguf_row_f32(t->type, raw, t->cols, r->f32);
    if (it->ordered) {
        enc_order_weights(p->m, r->f32, r->ordered);
        row = r->ordered;
    }
    switch (it->type) {
    case KERN_Q8_0:
        row_q8(row, it->cols, out);
        break;
    case KERN_BF16:
        row_bf16(row, it->cols, out);
        break;
    default:
        memcpy(out, row, (size_t) it->cols * sizeof(float));
    }
}


/* Rows [row, row + n) of the item, which may cross its parts, as the image
   has them before packing; *rows is where. */
static int
read_rows(packer_t *p, const enc_item_t *it, uint32_t row, uint32_t n,
    rows_t *r, const uint8_t **rows, eng_err_t *err)
{
    int                  rc;
    size_t               bytes = kern_gguf_row_bytes(it->type, it->cols);
    uint32_t             i, k, some, part = 0, at = row;
    const enc_tensor_t  *t;

    for (i = 0; i < n; i += some, at += some) {
        while (at >= it->part[part].rows) {
            at -= it->part[part++].rows;
            eng_assert(part < it->n_parts);
        }
        t = &it->part[part];
        some = n - i < t->rows - at ? n - i : t->rows - at;
        rc = enc_src_rows(p->src, t, at, some, r->raw, err);
        if (rc != 0) {
            return rc;
        }
        if (some == n && t->type == it->type && !it->ordered) {
            *rows = r->raw;
            return 0;
        }
        for (k = 0; k < some; k++) {
            row_convert(p, it, t, r->raw + k * t->row_bytes, r,
                        r->out + (i + k) * bytes);
        }
    }
    *rows = r->out;

    return 0;
}


static int
pack_matrix(packer_t *p, const enc_item_t *it, uint32_t unit, rows_t *r,
    eng_err_t *err)
{
    int             rc;
    size_t          begin, end;
    uint32_t        row, n, stop;
    const uint8_t  *rows = NULL;

    row = unit * UNIT_ROWS;
    stop = it->rows - row < UNIT_ROWS ? it->rows : row + UNIT_ROWS;
    for (; row < stop; row += n) {
        n = stop - row < KERN_ROW_GROUP ? stop - row : KERN_ROW_GROUP;
        rc = read_rows(p, it, row, n, r, &rows, err);
        if (rc != 0) {
            return rc;
        }
        /* a group stands for itself: packed as a matrix of its own */
        kern_packed_range(it->type, it->rows, it->cols, row, row + n, &begin,
                          &end);
        rc = kern_pack(it->type, n, it->cols, rows,
                       p->base + it->offset + begin, 0, n);
        eng_assert(rc == KERN_OK && end <= it->bytes);
    }

    return 0;
}


/* What a thread takes at a time: rows of a matrix, or a whole other item. */
static uint32_t
units_of(const enc_item_t *it)
{
    return it->kind == ENC_ITEM_MATRIX
           ? (it->rows + UNIT_ROWS - 1) / UNIT_ROWS : 1;
}


static int
pack_unit(packer_t *p, uint32_t unit, rows_t *r, eng_err_t *err)
{
    int                  rc = 0;
    float               *dst;
    uint32_t             i, n;
    const enc_item_t    *it;
    const enc_tensor_t  *t;

    for (it = p->m->item; unit >= units_of(it); it++) {
        unit -= units_of(it);
    }
    dst = (float *) (void *) (p->base + it->offset);
    if (it->kind == ENC_ITEM_MATRIX) {
        return pack_matrix(p, it, unit, r, err);
    }
    if (it->kind == ENC_ITEM_TABLE) {
        /* a stretch at a time: a read has a limit */
        for (i = 0; rc == 0 && i < it->rows; i += n) {
            n = it->rows - i < 4096 ? it->rows - i : 4096;
            rc = enc_src_rows(p->src, &it->part[0], i, n, p->base + it->offset
                              + (size_t) i * it->part[0].row_bytes, err);
        }
        return rc;
    }

    for (i = 0; rc == 0 && i < it->n_parts; i++) {
        t = &it->part[i];
        rc = enc_src_rows(p->src, t, 0, 1, r->raw, err);
        if (rc == 0) {
            kern_gguf_row_f32(t->type, r->raw, t->cols, dst);
        }
        dst += t->cols;
    }

    return rc;
}


static void *
pack_thread(void *arg)
{
    int                 rc;
    size_t              most = 0;
    rows_t              r;
    uint32_t            i, k;
    packer_t           *p = arg;
    eng_err_t           err = { 0, "" };
    const enc_item_t   *it;

    for (i = 0; i < p->m->n_items; i++) {
        for (k = 0, it = &p->m->item[i]; k < it->n_parts; k++) {
            most = it->part[k].cols > most ? it->part[k].cols : most;
        }
    }
    most += KERN_BLOCK;         /* of an ordered one */
    /* the widest format of all is 4 bytes a value */
    r.raw = malloc(most * 4 * KERN_ROW_GROUP + 64);
    r.f32 = malloc(most * 4);
    r.ordered = malloc(most * 4);
    r.out = malloc(most * 4 * KERN_ROW_GROUP);
    rc = r.raw == NULL || r.f32 == NULL || r.out == NULL || r.ordered == NULL
         ? eng_fail(&err, ENG_ENOMEM, "no memory to pack weights") : 0;

    /* relaxed: only the number is shared, joining publishes the rest */
    while (rc == 0 && !atomic_load_explicit(&p->failed, memory_order_relaxed)
           && (i = atomic_fetch_add_explicit(&p->next, 1,
                                             memory_order_relaxed))
              < p->units)
    {
        rc = pack_unit(p, i, &r, &err);
    }

    if (rc != 0) {
        (void) pthread_mutex_lock(&p->lock);
        p->err = err;
        /* relaxed: a hint to stop early */
        atomic_store_explicit(&p->failed, rc, memory_order_relaxed);
        (void) pthread_mutex_unlock(&p->lock);
    }
    free(r.raw);
    free(r.f32);
    free(r.ordered);
    free(r.out);

    return NULL;
}


static int
pack_all(const enc_model_t *m, const enc_src_t *src, uint8_t *base,
    uint32_t threads, eng_err_t *err)
{
    packer_t   p = { .m = m, .src = src, .base = base,
                     .lock = PTHREAD_MUTEX_INITIALIZER };
    uint32_t   i, n = 0;
    pthread_t  tid[THREADS_MAX];

    for (i = 0; i < m->n_items; i++) {
        p.units += units_of(&m->item[i]);
    }
    threads = threads == 0 ? 2 : threads;
    threads = threads < THREADS_MAX ? threads : THREADS_MAX;
    for (i = 1; i < threads; i++) {
        if (pthread_create(&tid[n], NULL, pack_thread, &p) != 0) {
            break;          /* fewer threads pack as well */
        }
        n++;
    }
    (void) pack_thread(&p);
    for (i = 0; i < n; i++) {
        (void) pthread_join(tid[i], NULL);
    }

    /* relaxed: the threads are gone */
    if (atomic_load_explicit(&p.failed, memory_order_relaxed) != 0) {
        *err = p.err;
        return p.err.code;
    }

    return 0;
}


static void
point(enc_model_t *m)
{
    uint32_t     i;
    uint8_t     *at;
    enc_item_t  *it;

    for (i = 0; i < m->n_items; i++) {
        it = &m->item[i];
        at = m->image + it->offset;
        switch (it->kind) {
        case ENC_ITEM_MATRIX:
            *it->to.matrix = (kern_weight_t) { it->type, it->rows, it->cols,
                                               at };
            break;
        case ENC_ITEM_TABLE:
            *it->to.table = (enc_table_t) { it->type, it->rows, it->cols,
                                            it->part[0].row_bytes, at };
            break;
        default:
            *it->to.vector = (const float *) (const void *) at;
        }
    }
}


/* What the image is of: the sources, and what becomes of them. */
static void
cache_of(const enc_model_t *m, const enc_src_t *src,
    const enc_model_opts_t *o, const char *path, eng_cache_t *c)
{
    uint32_t           i, k;
    uint64_t           plan = m->hash;
    const enc_item_t  *it;

    for (i = 0; i < m->n_items; i++) {
        it = &m->item[i];
        uint64_t  v[5] = { it->kind, it->type, it->rows, it->cols,
                           it->offset };

        plan = eng_hash(v, sizeof(v), plan);
        for (k = 0; k < it->n_parts; k++) {
            const enc_tensor_t  *t = &it->part[k];

            v[0] = t->g != NULL ? t->g->offset : t->st->offset;
            v[1] = t->g != NULL ? 0 : t->st->file;
            plan = eng_hash(v, 2 * sizeof(v[0]), plan);
        }
    }
    *c = (eng_cache_t) {
        .version = ENC_VERSION,
        .image_bytes = m->image_bytes,
        .source_bytes = enc_src_bytes(src),
        .source_hash = enc_src_hash(src),
        .plan_hash = plan,
        .dir = o->cache_dir,
        .source = path,
        .variant = (uint64_t) m->wtype + 1
    };
}


/* Into `base`, of which nothing has been written; then for the next start. */
static int
pack(enc_model_t *m, const enc_src_t *src, const enc_model_opts_t *o,
    const eng_cache_t *c, uint8_t *base, eng_err_t *err)
{
    int  rc;

    if (o->before_pack != NULL) {
        o->before_pack(o->before_pack_arg);
    }
    rc = pack_all(m, src, base, o->threads, err);
    if (rc == 0) {
        m->origin = "packed";
        eng_cache_write(c, base);
    }

    return rc;
}


/* A shared image is written by whoever has the lock and finds it empty. */
static int
fill_shared(enc_model_t *m, const enc_src_t *src, const enc_model_opts_t *o,
    const eng_cache_t *c, eng_err_t *err)
{
    int           rc = 0, fd = o->prepared_fd;
    uint8_t      *p, h[ENG_CACHE_HEADER];
    struct stat   st;

    if (fstat(fd, &st) != 0
        || (st.st_size != 0 && (uint64_t) st.st_size != m->image_bytes))
    {
        return eng_fail(err, ENG_EINVAL, "prepared weights: the shared "
                        "memory holds another model");
    }
    if (st.st_size != 0
        && pread(fd, h, sizeof(h), 0) == (ssize_t) sizeof(h)
        && eng_cache_fits(c, h))
    {
        m->origin = "shared";
        return 0;
    }
    /* the file itself is as good, if its pages are large */
    m->image = eng_cache_map(c, 1);
    if (m->image != NULL) {
        m->origin = "cache file";
        return 0;
    }

    if (st.st_size == 0 && ftruncate(fd, (off_t) m->image_bytes) != 0) {
        return eng_fail(err, ENG_ENOMEM, "prepared weights: %llu bytes: %s",
                        (unsigned long long) m->image_bytes,
                        strerror(errno));
    }
    p = eng_map_aligned(m->image_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                        fd);
    if (p == MAP_FAILED) {
        return eng_fail(err, ENG_ENOMEM, "prepared weights: %llu bytes: %s",
                        (unsigned long long) m->image_bytes,
                        strerror(errno));
    }
    m->origin = "copied from the cache file";
    if (eng_cache_copy(c, p, 1) != 0) {
        rc = pack(m, src, o, c, p, err);
    }
    if (rc == 0) {
        eng_cache_header(c, 0, h);
        memcpy(p, h, sizeof(h));
    }
    (void) munmap(p, m->image_bytes);

    return rc;
}


static int
load_shared(enc_model_t *m, const enc_src_t *src, const enc_model_opts_t *o,
    const eng_cache_t *c, eng_err_t *err)
{
    int           rc;
    struct flock  lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    while ((rc = fcntl(o->prepared_fd, F_OFD_SETLKW, &lock)) != 0
           && errno == EINTR)
    {
        /* once more */
    }
    if (rc != 0) {
        return eng_fail(err, ENG_EIO, "prepared weights: cannot lock: %s",
                        strerror(errno));
    }
    rc = fill_shared(m, src, o, c, err);
    lock.l_type = F_UNLCK;
    (void) fcntl(o->prepared_fd, F_OFD_SETLK, &lock);
    if (rc != 0 || m->image != NULL) {
        return rc;
    }

    m->image = eng_map_aligned(m->image_bytes, PROT_READ, MAP_SHARED,
                               o->prepared_fd);
    if (m->image == MAP_FAILED) {
        m->image = NULL;
        return eng_fail(err, ENG_ENOMEM, "prepared weights: %s",
                        strerror(errno));
    }

    return 0;
}


static int
load_own(enc_model_t *m, const enc_src_t *src, const enc_model_opts_t *o,
    const eng_cache_t *c, eng_err_t *err)
{
    int  rc;

    m->image = eng_cache_map(c, 0);
    if (m->image != NULL) {
        m->origin = "cache file";
        return 0;
    }
    m->image = eng_map_aligned(m->image_bytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1);
    if (m->image == MAP_FAILED) {
        m->image = NULL;
        return eng_fail(err, ENG_ENOMEM, "no memory for %llu bytes of "
                        "weights", (unsigned long long) m->image_bytes);
    }
    (void) madvise(m->image, m->image_bytes, MADV_HUGEPAGE);
    rc = pack(m, src, o, c, m->image, err);
    if (rc == 0) {
        (void) mprotect(m->image, m->image_bytes, PROT_READ);
    }

    return rc;
}


int
enc_image_load(enc_model_t *m, const char *path, const enc_src_t *src,
    const enc_model_opts_t *o, eng_err_t *err)
{
    int          rc;
    eng_cache_t  c;

    m->image_bytes = (m->image_bytes + 4095) & ~4095ull;
    rc = enc_order_read(m, src, err);
    if (rc != 0) {
        return rc;
    }
    cache_of(m, src, o, path, &c);
    rc = o->prepared_fd >= 0 ? load_shared(m, src, o, &c, err)
                             : load_own(m, src, o, &c, err);
    if (rc == 0) {
        point(m);
    }

    return rc;
}


void
enc_image_unload(enc_model_t *m)
{
    if (m->image != NULL) {
        (void) munmap(m->image, m->image_bytes);
        m->image = NULL;
    }
}
