/*
 * The scheduler's memory plan: address space is taken once, pages are touched
 * when used.  A buddy allocator (Knuth, TAOCP 1, 2.5) hands out the blocks
 * that requests of different sizes need; it never asks the system again.
 * One thread.
 */

#ifndef WRK_SCHED_MEM_H
#define WRK_SCHED_MEM_H

#include <stddef.h>
#include <stdint.h>


#define WRK_MEM_BLOCK       1024u       /* smallest block, bytes */
#define WRK_MEM_ORDERS      22u         /* largest block: 2 GiB */


typedef struct {
    uint8_t   *base;
    size_t     bytes;
    size_t     used;                    /* bytes in blocks handed out */
    unsigned   orders;                  /* block sizes in use */
    uint8_t   *state;                   /* per smallest block */
    uint32_t  *next, *prev;             /* free lists, by block index */
    uint32_t   head[WRK_MEM_ORDERS];
} wrk_mem_t;


/* Zeroed pages, not yet backed by memory; NULL: refused. */
void *wrk_mem_map(size_t bytes);
void wrk_mem_unmap(void *p, size_t bytes);

/* Gives touched pages back; they read as zero afterwards. */
void wrk_mem_forget(void *p, size_t bytes);

/* bytes is rounded up to a power of two blocks.  0, or -1: no memory. */
int wrk_mem_init(wrk_mem_t *m, size_t bytes);
void wrk_mem_destroy(wrk_mem_t *m);

/* Aligned to WRK_MEM_BLOCK, contents undefined; NULL when it does not fit. */
void *wrk_mem_alloc(wrk_mem_t *m, size_t bytes);
void wrk_mem_free(wrk_mem_t *m, void *p);


#endif /* WRK_SCHED_MEM_H */
