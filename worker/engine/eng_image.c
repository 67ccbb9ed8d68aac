/*
 * The image of packed weights: where it comes from and where it lives.
 *
 *   memfd of the supervisor, filled   -> mapped            (milliseconds)
 *   memfd, empty                      -> filled, then mapped by all workers
 *   cache file that fits              -> mapped, or copied into the memfd
 *   neither                           -> packed from the model file; written
 *                                        to the cache directory, if there is
 *
 * An image is accepted only with the right header (eng_cache.h); a memfd's
 * is written last.  Whatever does not fit is ignored and made again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/engine/eng_cache.h"
#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_model.h"

_Static_assert(ENG_CACHE_ROOM == ENG_IMAGE_HEADER, "data begin there");

static int load_memfd(eng_model_t *m, const eng_gguf_t *g,
    const eng_model_opts_t *opts, eng_err_t *err);
static int fill_memfd(eng_model_t *m, const eng_gguf_t *g,
    const eng_model_opts_t *opts, eng_err_t *err);
static int load_anonymous(eng_model_t *m, const eng_gguf_t *g,
    const eng_model_opts_t *opts, eng_err_t *err);
static int fill(eng_model_t *m, const eng_gguf_t *g,
    const eng_model_opts_t *opts, uint8_t *base, int huge, eng_err_t *err);


static void
cache_of(const eng_model_t *m, const eng_gguf_t *g,
    const eng_model_opts_t *opts, eng_cache_t *c)
{
    *c = (eng_cache_t) {
        .version = ENG_VERSION,
        .image_bytes = m->image_bytes,
        .source_bytes = g->file_bytes,
        .source_mtime_ns = g->mtime_ns,
        .source_inode = g->inode,
        .source_hash = g->header_hash,
        .plan_hash = m->plan_hash,
        .dir = opts->cache_dir,
        .source = g->path,
        .variant = opts->quantize != NULL
                   ? eng_hash(opts->quantize, strlen(opts->quantize), 1) : 0
    };
}


int
eng_image_load(eng_model_t *m, const eng_gguf_t *g,
    const eng_model_opts_t *opts, eng_err_t *err)
{
    int          rc;
    uint32_t     i;
    eng_item_t  *item;
    eng_cache_t  c;

    eng_assert(m->image == NULL && m->image_bytes > ENG_IMAGE_HEADER);

    if (opts->prepared_fd >= 0) {
        rc = load_memfd(m, g, opts, err);
    } else {
        cache_of(m, g, opts, &c);
        m->image = eng_cache_map(&c, 0);
        rc = 0;
        if (m->image == NULL) {
            rc = load_anonymous(m, g, opts, err);
        } else {
            (void) snprintf(m->origin, sizeof(m->origin), "cache file");
        }
    }
    if (rc != 0) {
        return rc;
    }

    for (i = 0; i < m->n_items; i++) {
        item = &m->item[i];
        if (item->matrix != NULL) {
            item->matrix->packed = m->image + item->offset;
        } else {
            *item->vector = (const float *) (void *) (m->image
                            + item->offset);
        }
    }

    return 0;
}


void
eng_image_unload(eng_model_t *m)
{
    if (m->image != NULL) {
        (void) munmap(m->image, m->image_bytes);
        m->image = NULL;
    }
}


/* ---- memfd -------------------------------------------------------------- */

static int
lock_memfd(int fd, short type)
{
    int           rc;
    struct flock  fl;

    /* A record lock belongs to the process and ends with it: a worker killed
       while it fills blocks nobody. */
    memset(&fl, 0, sizeof(fl));
    fl.l_type = type;
    fl.l_whence = SEEK_SET;
    fl.l_len = 1;
    do {
        rc = fcntl(fd, F_SETLKW, &fl);
    } while (rc != 0 && errno == EINTR);

    return rc;
}


static int
load_memfd(eng_model_t *m, const eng_gguf_t *g, const eng_model_opts_t *opts,
    eng_err_t *err)
{
    int          rc = 0, fd = opts->prepared_fd;
    void        *p;
    uint8_t      h[ENG_CACHE_HEADER];
    eng_cache_t  c;
    struct stat  st;

    cache_of(m, g, opts, &c);
    if (lock_memfd(fd, F_WRLCK) != 0) {
        return eng_fail(err, ENG_EIO, "prepared weights: lock: %s",
                        strerror(errno));
    }

    if (fstat(fd, &st) != 0 || (uint64_t) st.st_size != m->image_bytes
        || pread(fd, h, sizeof(h), 0) != (ssize_t) sizeof(h)
        || !eng_cache_fits(&c, h))
    {
        rc = fill_memfd(m, g, opts, err);
    } else {
        (void) snprintf(m->origin, sizeof(m->origin), "memfd");
    }
    (void) lock_memfd(fd, F_UNLCK);
    if (rc != 0) {
        return rc;
    }

    p = eng_map_aligned(m->image_bytes, PROT_READ, MAP_SHARED, fd);
    if (p == MAP_FAILED) {
        return eng_fail(err, ENG_ENOMEM, "prepared weights: cannot map %llu "
                        "bytes: %s", (unsigned long long) m->image_bytes,
                        strerror(errno));
    }
    m->image = p;

    return 0;
}


static int
fill_memfd(eng_model_t *m, const eng_gguf_t *g, const eng_model_opts_t *opts,
    eng_err_t *err)
{
    int          rc, fd = opts->prepared_fd;
    void        *base;
    uint8_t      h[ENG_CACHE_HEADER];
    eng_cache_t  c;
    struct stat  st;

    /* Others may have mapped a memfd that has a size: it is never cut. */
    if (fstat(fd, &st) != 0
        || (st.st_size != 0 && (uint64_t) st.st_size != m->image_bytes)
        || (st.st_size == 0 && ftruncate(fd, (off_t) m->image_bytes) != 0))
    {
        return eng_fail(err, ENG_EINVAL, "prepared weights: the memfd must be "
                        "empty or of %llu bytes",
                        (unsigned long long) m->image_bytes);
    }
    base = eng_map_aligned(m->image_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                       fd);
    if (base == MAP_FAILED) {
        return eng_fail(err, ENG_ENOMEM, "prepared weights: cannot map %llu "
                        "bytes: %s", (unsigned long long) m->image_bytes,
                        strerror(errno));
    }

    rc = fill(m, g, opts, base, 1, err);
    if (rc == 0) {
        cache_of(m, g, opts, &c);
        eng_cache_header(&c, 0, h);
        memcpy(base, h, sizeof(h));
    }
    (void) munmap(base, m->image_bytes);

    return rc;
}


/* ---- private memory ----------------------------------------------------- */

static int
load_anonymous(eng_model_t *m, const eng_gguf_t *g,
    const eng_model_opts_t *opts, eng_err_t *err)
{
    int    rc;
    void  *base;

    base = eng_map_aligned(m->image_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1);
    if (base == MAP_FAILED) {
        return eng_fail(err, ENG_ENOMEM, "%s: no memory for %llu bytes of "
                        "weights", g->path,
                        (unsigned long long) m->image_bytes);
    }
    (void) madvise(base, m->image_bytes, MADV_HUGEPAGE);

    rc = fill(m, g, opts, base, 0, err);
    if (rc == 0 && mprotect(base, m->image_bytes, PROT_READ) != 0) {
        rc = eng_fail(err, ENG_EIO, "%s: cannot protect the weights: %s",
                      g->path, strerror(errno));
    }
    if (rc != 0) {
        (void) munmap(base, m->image_bytes);
        return rc;
    }
    m->image = base;

    return 0;
}


/* huge: base is a shared mapping, whose huge pages must be asked for. */
static int
fill(eng_model_t *m, const eng_gguf_t *g, const eng_model_opts_t *opts,
    uint8_t *base, int huge, eng_err_t *err)
{
    int          rc;
    eng_cache_t  c;

    cache_of(m, g, opts, &c);
    if (eng_cache_copy(&c, base, huge) == 0) {
        (void) snprintf(m->origin, sizeof(m->origin),
                        "copied from the cache file");
        return 0;
    }

    if (opts->before_pack != NULL) {
        opts->before_pack(opts->before_pack_arg);
    }
    rc = eng_pack(m, g, base, opts->threads, err);
    if (rc == 0) {
        (void) snprintf(m->origin, sizeof(m->origin),
                        "packed from the model file");
        eng_cache_write(&c, base);
    }

    return rc;
}
