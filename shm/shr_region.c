/*
 * Regions as sealed memfds.  A region cannot shrink (no SIGBUS), has no name,
 * and after shr_region_seal_writes() cannot be mapped writable again.
 */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/shr_error.h"
#include "shm/shr_region.h"


static size_t
client_size(const shr_geom_t *geom)
{
    shr_client_layout_t  at;

    shr_client_layout(geom, &at);

    return at.size;
}


static size_t
worker_size(const shr_geom_t *geom)
{
    shr_worker_layout_t  at;

    shr_worker_layout(geom, &at);

    return at.size;
}


static int
region_create(const char *name, const shr_geom_t *geom, uint32_t index,
    size_t size)
{
    int               fd;
    shr_region_hdr_t  hdr;

    assert(shr_geom_check(geom) == 0);

    fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd == -1) {
        return -SHR_ESYS;
    }

    memset(&hdr, 0, sizeof(hdr));
    hdr.magic = SHR_MAGIC;
    hdr.abi = SHR_ABI_VERSION;
    hdr.index = index;
    hdr.geom = *geom;

    if (ftruncate(fd, (off_t) size) == -1
        || pwrite(fd, &hdr, sizeof(hdr), 0) != (ssize_t) sizeof(hdr)
        || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == -1)
    {
        close(fd);
        return -SHR_ESYS;
    }

    return fd;
}


int
shr_region_create_client(const shr_geom_t *geom, uint32_t index)
{
    return region_create("infer-client", geom, index, client_size(geom));
}


int
shr_region_create_worker(const shr_geom_t *geom, uint32_t index)
{
    return region_create("infer-worker", geom, index, worker_size(geom));
}


int
shr_region_seal_writes(int fd)
{
    return fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == -1 ? -SHR_ESYS : 0;
}


static int
region_check(int fd, size_t size, const shr_geom_t *geom, uint32_t index)
{
    int               seals;
    struct stat       st;
    shr_region_hdr_t  hdr;

    seals = fcntl(fd, F_GET_SEALS);

    if (seals == -1 || fstat(fd, &st) == -1) {
        return -SHR_ESYS;
    }

    if ((seals & (F_SEAL_SHRINK | F_SEAL_GROW))
        != (F_SEAL_SHRINK | F_SEAL_GROW)
        || st.st_size < 0 || (size_t) st.st_size != size
        || pread(fd, &hdr, sizeof(hdr), 0) != (ssize_t) sizeof(hdr)
        || hdr.magic != SHR_MAGIC || hdr.abi != SHR_ABI_VERSION
        || hdr.index != index
        || memcmp(&hdr.geom, geom, sizeof(*geom)) != 0)
    {
        errno = EPROTO;
        return -SHR_EBROKEN;
    }

    return 0;
}


static void *
region_map(int fd, size_t size, const shr_geom_t *geom, uint32_t index,
    int writable)
{
    void  *region;

    if (shr_geom_check(geom) != 0) {
        errno = EPROTO;
        return NULL;
    }

    if (region_check(fd, size, geom, index) != 0) {
        return NULL;
    }

    region = mmap(NULL, size, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                  MAP_SHARED, fd, 0);

    return region == MAP_FAILED ? NULL : region;
}


void *
shr_region_map_client(int fd, const shr_geom_t *geom, uint32_t index,
    int writable)
{
    return region_map(fd, client_size(geom), geom, index, writable);
}


void *
shr_region_map_worker(int fd, const shr_geom_t *geom, uint32_t index,
    int writable)
{
    return region_map(fd, worker_size(geom), geom, index, writable);
}


void
shr_region_unmap_client(void *region, const shr_geom_t *geom)
{
    munmap(region, client_size(geom));
}


void
shr_region_unmap_worker(void *region, const shr_geom_t *geom)
{
    munmap(region, worker_size(geom));
}
