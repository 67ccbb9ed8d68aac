/*
 * The image of packed weights: where it comes from and where it lives.
 *
 *   memfd of the supervisor, filled   -> mapped            (milliseconds)
 *   memfd, empty                      -> filled, then mapped by all workers
 *   cache file that fits              -> mapped, or copied into the memfd
 *   neither                           -> packed from the model file; written
 *                                        to the cache directory, if there is
 *
 * An image is accepted only with the right header: magic, version, layout of
 * the kernels, size, identity of the source file (size, time, inode, hash of
 * its header), the plan's hash, and the header's own checksum.  A cache
 * file's data have a checksum too, because a crash of the system may leave a
 * renamed file without its content; a memfd's header is written last.
 * Whatever does not fit is ignored and made again.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_model.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE  25
#endif

#define IMAGE_MAGIC   "INFERIM1"
#define HUGE_PAGE     (1u << 21)
#define BLOCK         (1u << 17)  /* read and hashed: stays in the cache     */

typedef struct {
    char      magic[8];
    uint32_t  version;
    uint32_t  layout;
    uint64_t  image_bytes;
    uint64_t  source_bytes;
    uint64_t  source_mtime_ns;
    uint64_t  source_inode;
    uint64_t  source_hash;
    uint64_t  plan_hash;
    uint64_t  data_hash;
    uint64_t  header_hash;        /* of all the above                        */
} header_t;

_Static_assert(sizeof(header_t) == 80, "the header is written as it is");
_Static_assert(sizeof(header_t) <= ENG_IMAGE_HEADER, "the header has room");

static int load_memfd(eng_model_t *m, const eng_gguf_t *g,
    const eng_model_opts_t *opts, eng_err_t *err);
static int fill_memfd(eng_model_t *m, const eng_gguf_t *g,
    const eng_model_opts_t *opts, eng_err_t *err);
static int load_anonymous(eng_model_t *m, const eng_gguf_t *g,
    const eng_model_opts_t *opts, eng_err_t *err);
static int fill(eng_model_t *m, const eng_gguf_t *g,
    const eng_model_opts_t *opts, uint8_t *base, int huge, eng_err_t *err);
static void cache_write(const eng_model_t *m, const eng_gguf_t *g,
    const eng_model_opts_t *opts, uint8_t *base);
static int cache_open(const eng_model_t *m, const eng_gguf_t *g,
    const eng_model_opts_t *opts, uint64_t *hash);
static uint8_t *cache_map(const eng_model_t *m, const eng_gguf_t *g,
    const eng_model_opts_t *opts);
static void *map_aligned(uint64_t bytes, int prot, int flags, int fd);


/*
 * What one thread does of a whole image: the bytes from..to are read from the
 * file (fd -1: they are there already) and hashed while the cache holds them.
 */
typedef struct {
    uint8_t   *image;
    uint64_t   from;
    uint64_t   to;
    uint64_t   hash;
    int        fd;
    int        huge;
    int        failed;
} part_t;


/*
 * Huge pages: up to 30 % more memory bandwidth.  Asked for before the weights
 * are written, so that nothing is copied; the kernel wants one page present
 * in each, and reading makes one.  A refusal costs nothing.
 */
static void
make_huge(uint8_t *image, uint64_t from, uint64_t to)
{
    uint64_t  at;

    from &= ~(uint64_t) (HUGE_PAGE - 1);
    for (at = from; at < to; at += HUGE_PAGE) {
        (void) ((volatile uint8_t *) image)[at];
    }
    (void) madvise(image + from, to - from, MADV_COLLAPSE);
}


static int
read_block(int fd, uint8_t *p, uint64_t n, uint64_t at)
{
    ssize_t  k;

    while (n > 0) {
        k = pread(fd, p, n, (off_t) at);
        if (k < 0 && errno == EINTR) {
            continue;
        }
        if (k <= 0) {
            return -1;
        }
        p += k;
        at += (uint64_t) k;
        n -= (uint64_t) k;
    }

    return 0;
}


/*
 * A checksum at memory speed: eight independent lanes hide the latency of the
 * multiplication.  All sizes are multiples of 64.
 */
static void *
run_part(void *arg)
{
    part_t         *t = arg;
    uint32_t        i;
    uint64_t        at, n, h[8], w[8];
    const uint8_t  *p;

    for (i = 0; i < 8; i++) {
        h[i] = 0x9e3779b97f4a7c15u * (i + 1);
    }
    if (t->huge) {
        make_huge(t->image, t->from, t->to);
    }

    for (at = t->from; at < t->to; at += n) {
        n = t->to - at < BLOCK ? t->to - at : BLOCK;
        if (t->fd >= 0 && read_block(t->fd, t->image + at, n, at) != 0) {
            t->failed = 1;
            return NULL;
        }
        for (p = t->image + at; p < t->image + at + n; p += 64) {
            memcpy(w, p, 64);
            for (i = 0; i < 8; i++) {
                h[i] = (h[i] ^ w[i]) * 0x9fb21c651e98df25u;
                h[i] ^= h[i] >> 32;
            }
        }
    }
    t->hash = eng_hash(h, sizeof(h), 0);

    return NULL;
}


/*
 * The checksum of an image of n bytes without its header, which is read from
 * fd first unless that is -1; two threads, fixed halves.  0 or -1: the file
 * cannot be read.
 */
static int
run_parts(uint8_t *image, uint64_t n, int fd, int huge, uint64_t *hash)
{
    int        made;
    part_t     part[2];
    uint64_t   half = n / 2;
    pthread_t  tid;

    half -= half % (n >= 4 * HUGE_PAGE ? HUGE_PAGE : 64);
    eng_assert(n % 64 == 0 && half > ENG_IMAGE_HEADER);
    part[0] = (part_t) { image, ENG_IMAGE_HEADER, half, 0, fd, huge, 0 };
    part[1] = (part_t) { image, half, n, 0, fd, huge, 0 };
    made = pthread_create(&tid, NULL, run_part, &part[1]) == 0;
    (void) run_part(&part[0]);
    if (made) {
        (void) pthread_join(tid, NULL);
    } else {
        (void) run_part(&part[1]);
    }
    *hash = eng_hash(&part[0].hash, sizeof(part[0].hash), part[1].hash);

    return part[0].failed || part[1].failed ? -1 : 0;
}


static void
header_make(const eng_model_t *m, const eng_gguf_t *g, header_t *h)
{
    memset(h, 0, sizeof(*h));
    memcpy(h->magic, IMAGE_MAGIC, sizeof(h->magic));
    h->version = ENG_VERSION;
    h->layout = kern_layout_id();
    h->image_bytes = m->image_bytes;
    h->source_bytes = g->file_bytes;
    h->source_mtime_ns = g->mtime_ns;
    h->source_inode = g->inode;
    h->source_hash = g->header_hash;
    h->plan_hash = m->plan_hash;
}


static void
header_seal(header_t *h)
{
    h->header_hash = eng_hash(h, offsetof(header_t, header_hash), 1);
}


/* h is our private copy of foreign bytes. */
static int
header_fits(const eng_model_t *m, const eng_gguf_t *g, const header_t *h)
{
    header_t  want;

    header_make(m, g, &want);
    want.data_hash = h->data_hash;
    header_seal(&want);

    return memcmp(&want, h, sizeof(want)) == 0;
}


int
eng_image_load(eng_model_t *m, const eng_gguf_t *g,
    const eng_model_opts_t *opts, eng_err_t *err)
{
    int          rc;
    uint32_t     i;
    eng_item_t  *item;

    eng_assert(m->image == NULL && m->image_bytes > ENG_IMAGE_HEADER);

    if (opts->prepared_fd >= 0) {
        rc = load_memfd(m, g, opts, err);
    } else {
        m->image = cache_map(m, g, opts);
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
    header_t     h;
    struct stat  st;

    if (lock_memfd(fd, F_WRLCK) != 0) {
        return eng_fail(err, ENG_EIO, "prepared weights: lock: %s",
                        strerror(errno));
    }

    if (fstat(fd, &st) != 0 || (uint64_t) st.st_size != m->image_bytes
        || pread(fd, &h, sizeof(h), 0) != (ssize_t) sizeof(h)
        || !header_fits(m, g, &h))
    {
        rc = fill_memfd(m, g, opts, err);
    } else {
        (void) snprintf(m->origin, sizeof(m->origin), "memfd");
    }
    (void) lock_memfd(fd, F_UNLCK);
    if (rc != 0) {
        return rc;
    }

    p = map_aligned(m->image_bytes, PROT_READ, MAP_SHARED, fd);
    if (p == MAP_FAILED) {
        return eng_fail(err, ENG_ENOMEM, "prepared weights: cannot map %llu "
                        "bytes: %s", (unsigned long long) m->image_bytes,
                        strerror(errno));
    }
    m->image = p;

    return 0;
}


/*
 * An address whose low 21 bits are zero: without it the kernel cannot put
 * huge pages under a mapping.
 */
static void *
map_aligned(uint64_t bytes, int prot, int flags, int fd)
{
    uint8_t         *p, *q;
    const uint64_t   huge = HUGE_PAGE;

    p = mmap(NULL, bytes + huge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
             0);
    if (p == MAP_FAILED) {
        return p;
    }
    q = (uint8_t *) (((uintptr_t) p + huge - 1) & ~(uintptr_t) (huge - 1));
    if (mmap(q, bytes, prot, flags | MAP_FIXED, fd, 0) == MAP_FAILED) {
        (void) munmap(p, bytes + huge);
        return MAP_FAILED;
    }
    if (q > p) {
        (void) munmap(p, (size_t) (q - p));
    }
    if (q + bytes < p + bytes + huge) {
        (void) munmap(q + bytes, (size_t) (p + huge - q));
    }

    return q;
}


static int
fill_memfd(eng_model_t *m, const eng_gguf_t *g, const eng_model_opts_t *opts,
    eng_err_t *err)
{
    int          rc, fd = opts->prepared_fd;
    void        *base;
    header_t     h;
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
    base = map_aligned(m->image_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                       fd);
    if (base == MAP_FAILED) {
        return eng_fail(err, ENG_ENOMEM, "prepared weights: cannot map %llu "
                        "bytes: %s", (unsigned long long) m->image_bytes,
                        strerror(errno));
    }

    rc = fill(m, g, opts, base, 1, err);
    if (rc == 0) {
        header_make(m, g, &h);
        header_seal(&h);
        memcpy(base, &h, sizeof(h));
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

    base = map_aligned(m->image_bytes, PROT_READ | PROT_WRITE,
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
    int       rc, fd;
    uint64_t  want, hash;

    fd = cache_open(m, g, opts, &want);
    if (fd >= 0) {
        rc = run_parts(base, m->image_bytes, fd, huge, &hash);
        (void) close(fd);
        if (rc == 0 && hash == want) {
            (void) snprintf(m->origin, sizeof(m->origin),
                            "copied from the cache file");
            return 0;
        }

    } else if (huge) {
        make_huge(base, 0, m->image_bytes);
    }

    if (opts->before_pack != NULL) {
        opts->before_pack(opts->before_pack_arg);
    }
    rc = eng_pack(m, g, base, opts->threads, err);
    if (rc == 0) {
        (void) snprintf(m->origin, sizeof(m->origin),
                        "packed from the model file");
        cache_write(m, g, opts, base);
    }

    return rc;
}


/* ---- cache file --------------------------------------------------------- */

static int
cache_path(const eng_gguf_t *g, const eng_model_opts_t *opts, char *path,
    size_t cap)
{
    int       n;
    uint64_t  id;

    if (opts->cache_dir == NULL) {
        return -1;
    }

    /* One file per name of a source, so that a changed model's image takes
       the old one's place, and layout: two builds do not fight over it. */
    id = eng_hash(g->path, strlen(g->path),
                  opts->quantize != NULL ? eng_hash(opts->quantize,
                  strlen(opts->quantize), 1) : 0);
    n = snprintf(path, cap, "%s/%016llx-%08x.img", opts->cache_dir,
                 (unsigned long long) id, kern_layout_id());

    return n > 0 && (size_t) n < cap ? 0 : -1;
}


/* The file that holds just this image, and its checksum; -1: there is none. */
static int
cache_open(const eng_model_t *m, const eng_gguf_t *g,
    const eng_model_opts_t *opts, uint64_t *hash)
{
    int          fd;
    char         path[4096];
    header_t     h;
    struct stat  st;

    if (cache_path(g, opts, path, sizeof(path)) != 0) {
        return -1;
    }
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        return -1;
    }

    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)
        || (st.st_uid != geteuid() && st.st_uid != 0)
        || (uint64_t) st.st_size != m->image_bytes
        || pread(fd, &h, sizeof(h), 0) != (ssize_t) sizeof(h)
        || !header_fits(m, g, &h))
    {
        (void) close(fd);
        return -1;
    }
    (void) futimens(fd, NULL);    /* used: who tidies up goes by that */
    *hash = h.data_hash;

    return fd;
}


static uint8_t *
cache_map(const eng_model_t *m, const eng_gguf_t *g,
    const eng_model_opts_t *opts)
{
    int       fd;
    void     *p;
    uint64_t  want, hash;

    fd = cache_open(m, g, opts, &want);
    if (fd < 0) {
        return NULL;
    }
    p = mmap(NULL, m->image_bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd,
             0);
    (void) close(fd);
    if (p == MAP_FAILED) {
        return NULL;
    }

    if (run_parts(p, m->image_bytes, -1, 0, &hash) != 0 || hash != want) {
        (void) munmap(p, m->image_bytes);
        return NULL;
    }

    return p;
}


static int
write_all(int fd, const uint8_t *p, uint64_t n)
{
    ssize_t  k;

    while (n > 0) {
        k = write(fd, p, n > (1u << 24) ? (1u << 24) : n);
        if (k < 0 && errno == EINTR) {
            continue;
        }
        if (k <= 0) {
            return -1;
        }
        p += k;
        n -= (uint64_t) k;
    }

    return 0;
}


/*
 * The file under its temporary name, ours alone: a record lock tells a writer
 * at work from what a killed one left behind.  After the lock the name is
 * looked up again, because the other may have finished and renamed it.
 */
static int
open_temp(const char *temp)
{
    int           fd;
    struct stat   here, there;
    struct flock  fl;

    fd = open(temp, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return -1;
    }
    memset(&fl, 0, sizeof(fl));
    fl.l_type = F_WRLCK;
    fl.l_whence = SEEK_SET;
    if (fcntl(fd, F_SETLK, &fl) != 0 || fstat(fd, &here) != 0
        || lstat(temp, &there) != 0 || here.st_ino != there.st_ino
        || here.st_dev != there.st_dev || here.st_uid != geteuid()
        || ftruncate(fd, 0) != 0)
    {
        (void) close(fd);
        return -1;
    }

    return fd;
}


/* A cache that cannot be written is no error: the next start packs again. */
static void
cache_write(const eng_model_t *m, const eng_gguf_t *g,
    const eng_model_opts_t *opts, uint8_t *base)
{
    int       fd, ok;
    char      path[4096], temp[4096 + 8];
    uint8_t   first[ENG_IMAGE_HEADER] = { 0 };
    header_t  h;

    if (cache_path(g, opts, path, sizeof(path)) != 0) {
        return;
    }
    (void) snprintf(temp, sizeof(temp), "%s.tmp", path);
    fd = open_temp(temp);
    if (fd < 0) {
        return;
    }

    header_make(m, g, &h);
    (void) run_parts(base, m->image_bytes, -1, 0, &h.data_hash);
    header_seal(&h);
    memcpy(first, &h, sizeof(h));

    ok = write_all(fd, first, sizeof(first)) == 0
         && write_all(fd, base + ENG_IMAGE_HEADER,
                      m->image_bytes - ENG_IMAGE_HEADER) == 0
         && rename(temp, path) == 0;
    if (!ok) {
        (void) unlink(temp);
    }
    (void) close(fd);             /* last: the lock covers the rename */
}
