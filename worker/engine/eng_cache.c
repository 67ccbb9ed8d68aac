/*
 * Files of prepared weights; see the header.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/engine/eng_cache.h"
#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_gguf.h"
#include "worker/kernels/kern.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE  25
#endif

#define IMAGE_MAGIC   "INFERIM1"
#define HUGE_PAGE     (1u << 21)
#define BLOCK         (1u << 17)  /* read and hashed: stays in the cache     */
#define PREFETCH      4096u       /* a third of the time less                */
#define FAULTS_MIN    64u         /* that an image may always take           */

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

_Static_assert(sizeof(header_t) == ENG_CACHE_HEADER, "written as it is");

/*
 * What one thread does of a whole image: the bytes from..to are read from the
 * file (fd -1: they are there already) and hashed while the cache holds them.
 */
typedef struct {
    uint8_t   *image;
    uint64_t   from;
    uint64_t   to;
    uint64_t   hash;
    uint64_t   faults;
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


void
eng_map_huge(uint8_t *base, uint64_t bytes)
{
    make_huge(base, 0, bytes);
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
    struct rusage   before, after;

    (void) getrusage(RUSAGE_THREAD, &before);

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
            __builtin_prefetch(p + PREFETCH);
            memcpy(w, p, 64);
            for (i = 0; i < 8; i++) {
                h[i] = (h[i] ^ w[i]) * 0x9fb21c651e98df25u;
                h[i] ^= h[i] >> 32;
            }
        }
    }
    t->hash = eng_hash(h, sizeof(h), 0);
    (void) getrusage(RUSAGE_THREAD, &after);
    t->faults = (uint64_t) (after.ru_minflt - before.ru_minflt
                            + after.ru_majflt - before.ru_majflt);

    return NULL;
}


/*
 * The checksum of an image of n bytes without its header, which is read from
 * fd first unless that is -1; two threads, fixed halves.  How many page faults
 * that took, or -1: the file cannot be read.
 */
static int64_t
run_parts(uint8_t *image, uint64_t n, int fd, int huge, uint64_t *hash)
{
    int        made;
    part_t     part[2];
    uint64_t   half = n / 2;
    pthread_t  tid;

    half -= half % (n >= 4 * HUGE_PAGE ? HUGE_PAGE : 64);
    half = half > ENG_CACHE_ROOM ? half : ENG_CACHE_ROOM;
    eng_assert(n % 64 == 0 && n > half);
    part[0] = (part_t) { image, ENG_CACHE_ROOM, half, 0, 0, fd, huge, 0 };
    part[1] = (part_t) { image, half, n, 0, 0, fd, huge, 0 };
    made = pthread_create(&tid, NULL, run_part, &part[1]) == 0;
    (void) run_part(&part[0]);
    if (made) {
        (void) pthread_join(tid, NULL);
    } else {
        (void) run_part(&part[1]);
    }
    *hash = eng_hash(&part[0].hash, sizeof(part[0].hash), part[1].hash);

    return part[0].failed || part[1].failed
           ? -1 : (int64_t) (part[0].faults + part[1].faults);
}


void
eng_cache_header(const eng_cache_t *c, uint64_t data_hash,
    uint8_t header[ENG_CACHE_HEADER])
{
    header_t  h;

    memset(&h, 0, sizeof(h));
    memcpy(h.magic, IMAGE_MAGIC, sizeof(h.magic));
    h.version = c->version;
    h.layout = kern_layout_id();
    h.image_bytes = c->image_bytes;
    h.source_bytes = c->source_bytes;
    h.source_mtime_ns = c->source_mtime_ns;
    h.source_inode = c->source_inode;
    h.source_hash = c->source_hash;
    h.plan_hash = c->plan_hash;
    h.data_hash = data_hash;
    h.header_hash = eng_hash(&h, offsetof(header_t, header_hash), 1);
    memcpy(header, &h, sizeof(h));
}


static uint64_t
header_data_hash(const uint8_t header[ENG_CACHE_HEADER])
{
    uint64_t  hash;

    memcpy(&hash, header + offsetof(header_t, data_hash), sizeof(hash));

    return hash;
}


int
eng_cache_fits(const eng_cache_t *c, const uint8_t header[ENG_CACHE_HEADER])
{
    uint8_t  want[ENG_CACHE_HEADER];

    eng_cache_header(c, header_data_hash(header), want);

    return memcmp(want, header, sizeof(want)) == 0;
}


/*
 * An address whose low 21 bits are zero: without it the kernel cannot put
 * huge pages under a mapping.
 */
void *
eng_map_aligned(uint64_t bytes, int prot, int flags, int fd)
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
cache_path(const eng_cache_t *c, char *path, size_t cap)
{
    int       n;
    uint64_t  id;

    if (c->dir == NULL) {
        return -1;
    }

    /* One file per name of a source, so that a changed model's image takes
       the old one's place, and layout: two builds do not fight over it. */
    id = eng_hash(c->source, strlen(c->source), c->variant);
    n = snprintf(path, cap, "%s/%016llx-%08x.img", c->dir,
                 (unsigned long long) id, kern_layout_id());

    return n > 0 && (size_t) n < cap ? 0 : -1;
}


/* The file that holds just this image, and its checksum; -1: there is none. */
static int
cache_open(const eng_cache_t *c, uint64_t *hash)
{
    int          fd;
    char         path[4096];
    uint8_t      h[ENG_CACHE_HEADER];
    struct stat  st;

    if (cache_path(c, path, sizeof(path)) != 0) {
        return -1;
    }
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        return -1;
    }

    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)
        || (st.st_uid != geteuid() && st.st_uid != 0)
        || (uint64_t) st.st_size != c->image_bytes
        || pread(fd, h, sizeof(h), 0) != (ssize_t) sizeof(h)
        || !eng_cache_fits(c, h))
    {
        (void) close(fd);
        return -1;
    }
    (void) futimens(fd, NULL);    /* used: who tidies up goes by that */
    *hash = header_data_hash(h);

    return fd;
}


uint8_t *
eng_cache_map(const eng_cache_t *c, int huge)
{
    int       fd;
    void     *p;
    int64_t   faults;
    uint64_t  want, hash;

    fd = cache_open(c, &want);
    if (fd < 0) {
        return NULL;
    }
    p = eng_map_aligned(c->image_bytes, PROT_READ, MAP_SHARED, fd);
    (void) close(fd);
    if (p == MAP_FAILED) {
        return NULL;
    }
    (void) madvise(p, c->image_bytes, MADV_HUGEPAGE);

    faults = run_parts(p, c->image_bytes, -1, 0, &hash);
    if (faults < 0 || hash != want
        || (huge && (uint64_t) faults > FAULTS_MIN
                                        + c->image_bytes / HUGE_PAGE * 8))
    {
        (void) munmap(p, c->image_bytes);
        return NULL;
    }

    return p;
}


int
eng_cache_copy(const eng_cache_t *c, uint8_t *base, int shared)
{
    int       fd, rc;
    uint64_t  want, hash;

    fd = cache_open(c, &want);
    if (fd < 0) {
        if (shared) {
            make_huge(base, 0, c->image_bytes);
        }
        return -1;
    }
    rc = run_parts(base, c->image_bytes, fd, shared, &hash) >= 0
         && hash == want ? 0 : -1;
    (void) close(fd);

    return rc;
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


void
eng_cache_write(const eng_cache_t *c, uint8_t *base)
{
    int       fd, ok;
    char      path[4096], temp[4096 + 8];
    uint8_t   first[ENG_CACHE_ROOM] = { 0 };
    uint64_t  hash;

    if (cache_path(c, path, sizeof(path)) != 0) {
        return;
    }
    (void) snprintf(temp, sizeof(temp), "%s.tmp", path);
    fd = open_temp(temp);
    if (fd < 0) {
        return;
    }

    (void) run_parts(base, c->image_bytes, -1, 0, &hash);
    eng_cache_header(c, hash, first);

    ok = write_all(fd, first, sizeof(first)) == 0
         && write_all(fd, base + ENG_CACHE_ROOM,
                      c->image_bytes - ENG_CACHE_ROOM) == 0
         && rename(temp, path) == 0;
    if (!ok) {
        (void) unlink(temp);
    }
    (void) close(fd);             /* last: the lock covers the rename */
}
