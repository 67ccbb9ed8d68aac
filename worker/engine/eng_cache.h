/*
 * The cache file of an image of prepared weights, for any kind of model: found
 * by the source's name, accepted only if it is what would be made now, and
 * copied or mapped.  Also the two ways to get huge pages under an image.
 *
 * A cache file is accepted only with the right header (magic, version, layout
 * of the kernels, size, identity of the source, the plan's hash, its own
 * checksum) and with the checksum of its data, because a crash of the system
 * may leave a renamed file without its content.  Whatever does not fit is
 * ignored and made again.
 *
 * Who may call: one thread of a process at a time; it starts a second one for
 * the time of a call.
 */
#ifndef ENG_CACHE_H
#define ENG_CACHE_H

#include <stdint.h>

#define ENG_CACHE_HEADER  80u     /* bytes at an image's beginning           */
#define ENG_CACHE_ROOM    4096u   /* data begin here                         */

/* What an image is of; all of it is in its header. */
typedef struct {
    uint32_t    version;
    uint64_t    image_bytes;      /* a multiple of 64, more than the room    */
    uint64_t    source_bytes;
    uint64_t    source_mtime_ns;
    uint64_t    source_inode;
    uint64_t    source_hash;
    uint64_t    plan_hash;

    /* where its file is */
    const char *dir;              /* NULL: there is no cache                 */
    const char *source;           /* the model's path                        */
    uint64_t    variant;          /* more than one image of a source         */
} eng_cache_t;

/* The header of such an image. */
void eng_cache_header(const eng_cache_t *c, uint64_t data_hash,
    uint8_t header[ENG_CACHE_HEADER]);
/* 1: it is one; whatever its data_hash.  `header` may be foreign bytes. */
int eng_cache_fits(const eng_cache_t *c,
    const uint8_t header[ENG_CACHE_HEADER]);

/*
 * The file mapped read-only, its checksum verified (which reads all of it), or
 * NULL.  huge: NULL too where the file system's cache does not have it in huge
 * pages, so that a copy would be faster to compute with.
 */
uint8_t *eng_cache_map(const eng_cache_t *c, int huge);

/*
 * Its data (all but the header) into the mapping `base`; shared says that huge
 * pages must be asked for, which is done even where there is no file.  0, or
 * -1: base holds rubbish.
 */
int eng_cache_copy(const eng_cache_t *c, uint8_t *base, int shared);

/* Writes the file.  It cannot be written: no error, the next start packs
   again. */
void eng_cache_write(const eng_cache_t *c, uint8_t *base);

/* Huge pages for a fresh shared mapping; a refusal costs nothing. */
void eng_map_huge(uint8_t *base, uint64_t bytes);

/* mmap() at an address whose low 21 bits are zero: without it the kernel
   cannot put huge pages under a mapping. */
void *eng_map_aligned(uint64_t bytes, int prot, int flags, int fd);

#endif
