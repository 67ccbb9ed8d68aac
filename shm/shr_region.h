/* Regions: anonymous sealed memfds, made by the nginx master (or a test),
 * mapped by everybody else.  No names, no truncation, one writer. */

#ifndef SHR_REGION_H
#define SHR_REGION_H

#include "shm/shr_layout.h"


/* Makes a region of a checked geometry with its header written, close-on-exec,
 * sealed against shrinking and growing.  The fd, or -SHR_ESYS. */
int shr_region_create_client(const shr_geom_t *geom, uint32_t index);
int shr_region_create_worker(const shr_geom_t *geom, uint32_t index);

/* Adds F_SEAL_FUTURE_WRITE: mappings that exist stay writable, new ones are
 * read-only.  For client regions, after the master has mapped them. */
int shr_region_seal_writes(int fd);

/* Maps a region; checks seals, size, and the header against geom and index.
 * NULL: errno is set (EPROTO for a region that is not what it should be). */
void *shr_region_map_client(int fd, const shr_geom_t *geom, uint32_t index,
    int writable);
void *shr_region_map_worker(int fd, const shr_geom_t *geom, uint32_t index,
    int writable);
void shr_region_unmap_client(void *region, const shr_geom_t *geom);
void shr_region_unmap_worker(void *region, const shr_geom_t *geom);


#endif /* SHR_REGION_H */
