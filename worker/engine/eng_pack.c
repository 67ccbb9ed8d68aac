/*
 * Weights of the file -> packed image, with a few threads.  The threads take
 * row ranges from one counter; each reads its rows into its own buffer with
 * pread() (a file that shrinks is an error, not a SIGBUS) and packs them.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_model.h"
#include "worker/engine/eng_source.h"

#define PIECE_BYTES   (256u << 10)

typedef struct {
    const eng_model_t  *m;
    const eng_gguf_t   *g;
    uint8_t            *base;
    uint64_t           *first;      /* [n_items + 1]: piece numbers          */
    uint32_t           *step;       /* [n_items]: rows per piece             */
    uint64_t            buf_bytes;
    uint32_t            cols;       /* of the longest row                    */
    _Atomic uint64_t    next;
    _Atomic int         failed;
} job_t;

typedef struct {
    job_t     *job;
    float     *row;                 /* [cols], NULL: nothing is quantised    */
    int        rc;
    eng_err_t  err;
} packer_t;

static int plan_pieces(job_t *j);
static void *pack_thread(void *arg);
static int pack_piece(packer_t *p, uint8_t *buf, uint64_t piece);


int
eng_pack(const eng_model_t *m, const eng_gguf_t *g, uint8_t *base,
    uint32_t threads, eng_err_t *err)
{
    int        rc = 0, made[ENG_THREADS_MAX] = { 0 };
    job_t      job = { .m = m, .g = g, .base = base };
    uint32_t   i;
    packer_t  *p;
    pthread_t  tid[ENG_THREADS_MAX];

    threads = threads == 0 ? 2 : threads;
    threads = threads > ENG_THREADS_MAX ? ENG_THREADS_MAX : threads;
    job.first = calloc((size_t) m->n_items + 1, sizeof(job.first[0]));
    job.step = calloc((size_t) m->n_items + 1, sizeof(job.step[0]));
    p = calloc(threads, sizeof(*p));
    if (job.first == NULL || job.step == NULL || p == NULL
        || plan_pieces(&job) != 0)
    {
        rc = eng_fail(err, ENG_ENOMEM, "%s: no memory to pack the weights",
                      g->path);
        goto done;
    }

    for (i = 0; i < threads; i++) {
        p[i].job = &job;
        if (i > 0) {
            made[i] = pthread_create(&tid[i], NULL, pack_thread, &p[i]) == 0;
        }
    }
    /* a thread that could not be made leaves its share to the others */
    (void) pack_thread(&p[0]);

    for (i = 0; i < threads; i++) {
        if (made[i]) {
            (void) pthread_join(tid[i], NULL);
        }
        if (p[i].rc != 0 && rc == 0) {
            rc = p[i].rc;
            if (err != NULL) {
                *err = p[i].err;
            }
        }
    }

done:

    free(job.first);
    free(job.step);
    free(p);

    return rc;
}


static int
plan_pieces(job_t *j)
{
    uint32_t           i, rows;
    uint64_t           row_bytes, pieces = 0;
    const eng_item_t  *item;

    for (i = 0; i < j->m->n_items; i++) {
        item = &j->m->item[i];
        row_bytes = item->tensor->bytes / item->rows;
        rows = item->rows;
        if (item->matrix != NULL && row_bytes * rows > PIECE_BYTES) {
            rows = (uint32_t) (PIECE_BYTES / row_bytes) / KERN_ROW_GROUP
                   * KERN_ROW_GROUP;
            rows = rows == 0 ? KERN_ROW_GROUP : rows;
            rows = rows > item->rows ? item->rows : rows;
        }
        j->step[i] = rows;
        j->first[i] = pieces;
        pieces += (item->rows + rows - 1) / rows;
        if (row_bytes * rows > j->buf_bytes) {
            j->buf_bytes = row_bytes * rows;
        }
        if (item->type != item->stored && item->cols > j->cols) {
            j->cols = item->cols;
        }
    }

    j->first[i] = pieces;

    return j->buf_bytes > 0 ? 0 : -1;
}


static void *
pack_thread(void *arg)
{
    job_t     *j;
    uint8_t   *buf;
    uint64_t   piece;
    packer_t  *p = arg;

    j = p->job;
    buf = aligned_alloc(KERN_ALIGN, (j->buf_bytes + KERN_ALIGN - 1)
                        / KERN_ALIGN * KERN_ALIGN);
    p->row = j->cols > 0 ? malloc(j->cols * sizeof(float)) : NULL;
    if (buf == NULL || (j->cols > 0 && p->row == NULL)) {
        free(buf);
        free(p->row);
        p->rc = eng_fail(&p->err, ENG_ENOMEM, "%s: no memory for a %llu byte "
                         "buffer", j->g->path,
                         (unsigned long long) j->buf_bytes);
        atomic_store_explicit(&j->failed, 1, memory_order_relaxed);
        return NULL;
    }

    /* relaxed: the counter orders nothing, pthread_join() publishes */
    while (!atomic_load_explicit(&j->failed, memory_order_relaxed)) {
        piece = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed);
        if (piece >= j->first[j->m->n_items]) {
            break;
        }
        p->rc = pack_piece(p, buf, piece);
        if (p->rc != 0) {
            atomic_store_explicit(&j->failed, 1, memory_order_relaxed);
        }
    }

    free(buf);
    free(p->row);

    return NULL;
}


static uint32_t
item_of_piece(const job_t *j, uint64_t piece)
{
    uint32_t  lo = 0, hi = j->m->n_items, mid;

    while (hi - lo > 1) {
        mid = lo + (hi - lo) / 2;
        if (j->first[mid] <= piece) {
            lo = mid;
        } else {
            hi = mid;
        }
    }

    return lo;
}


/*
 * n rows of floats in buf become rows of blocks there: never longer ones, so
 * that each is written behind what is still to be read.
 */
static int
quantise(packer_t *p, const eng_item_t *item, uint8_t *buf, uint32_t n)
{
    char      name[ENG_NAME_MAX], label[ENG_NAME_MAX];
    size_t    from = kern_gguf_row_bytes(item->stored, item->cols);
    size_t    to = kern_gguf_row_bytes(item->type, item->cols);
    uint32_t  i;

    eng_assert(to <= from && item->cols <= p->job->cols);

    for (i = 0; i < n; i++) {
        kern_gguf_row_f32(item->stored, buf + i * from, item->cols, p->row);
        if (eng_quant_row(item->type, p->row, item->cols, buf + i * to) != 0) {
            eng_str_print(item->tensor->name, name, sizeof(name));
            eng_source_label(p->job->g, name, label, sizeof(label));
            return eng_fail(&p->err, ENG_EFORMAT, "%s: tensor \"%s\" has "
                            "values that are not finite or too large to be "
                            "quantised", p->job->g->path, label);
        }
    }

    return 0;
}


static int
pack_piece(packer_t *p, uint8_t *buf, uint64_t piece)
{
    int                rc;
    size_t             begin, end;
    uint32_t           row, n;
    uint64_t           row_bytes;
    const job_t       *j = p->job;
    uint32_t           i = item_of_piece(j, piece);
    const eng_item_t  *item = &j->m->item[i];

    row = (uint32_t) (piece - j->first[i]) * j->step[i];
    n = item->rows - row < j->step[i] ? item->rows - row : j->step[i];
    row_bytes = item->tensor->bytes / item->rows;
    eng_assert(n > 0 && row_bytes * n <= j->buf_bytes);

    rc = eng_source_rows(j->g, item->tensor, row, n, buf, &p->err);
    if (rc != 0) {
        return rc;
    }

    if (item->matrix == NULL) {
        kern_gguf_row_f32(item->type, buf, item->cols,
                          (float *) (void *) (j->base + item->offset));
        return 0;
    }
    if (item->type != item->stored) {
        rc = quantise(p, item, buf, n);
        if (rc != 0) {
            return rc;
        }
    }

    /* whole row groups stand alone in the packed layout: the piece is packed
       as a matrix of its own */
    kern_packed_range(item->type, item->rows, item->cols, row, row + n,
                      &begin, &end);
    eng_assert(end <= item->bytes);
    rc = kern_pack(item->type, n, item->cols, buf,
                   j->base + item->offset + begin, 0, n);

    return rc == KERN_OK ? 0
        : eng_fail(&p->err, ENG_EUNSUP, "%s: a %s matrix of %u x %u cannot be "
                   "packed (%d)", j->g->path, kern_wtype_name(item->type),
                   item->cols, item->rows, rc);
}
