/* The scheduler's memory plan; see the header. */

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

#include "worker/wrk_sched_mem.h"


#define WRK_MEM_NONE   UINT32_MAX

/* state of a block's first smallest block; 0 elsewhere */
#define WRK_MEM_FREE   0x40u
#define WRK_MEM_TAKEN  0x80u
#define WRK_MEM_ORDER  0x3fu


void *
wrk_mem_map(size_t bytes)
{
    void  *p;

    p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}


void
wrk_mem_unmap(void *p, size_t bytes)
{
    if (p != NULL) {
        munmap(p, bytes);
    }
}


void
wrk_mem_forget(void *p, size_t bytes)
{
    /* A failure costs memory only. */
    (void) madvise(p, bytes, MADV_DONTNEED);
}


static void
wrk_mem_push(wrk_mem_t *m, uint32_t block, unsigned order)
{
    m->state[block] = (uint8_t) (WRK_MEM_FREE | order);
    m->prev[block] = WRK_MEM_NONE;
    m->next[block] = m->head[order];

    if (m->head[order] != WRK_MEM_NONE) {
        m->prev[m->head[order]] = block;
    }

    m->head[order] = block;
}


static void
wrk_mem_pull(wrk_mem_t *m, uint32_t block, unsigned order)
{
    assert(m->state[block] == (WRK_MEM_FREE | order));

    if (m->prev[block] != WRK_MEM_NONE) {
        m->next[m->prev[block]] = m->next[block];

    } else {
        m->head[order] = m->next[block];
    }

    if (m->next[block] != WRK_MEM_NONE) {
        m->prev[m->next[block]] = m->prev[block];
    }

    m->state[block] = 0;
}


int
wrk_mem_init(wrk_mem_t *m, size_t bytes)
{
    size_t    nblocks;
    unsigned  i;

    memset(m, 0, sizeof(*m));

    for (i = 0; i < WRK_MEM_ORDERS; i++) {
        m->head[i] = WRK_MEM_NONE;
    }

    m->orders = 1;
    m->bytes = WRK_MEM_BLOCK;

    while (m->bytes < bytes && m->orders < WRK_MEM_ORDERS) {
        m->bytes *= 2;
        m->orders++;
    }

    nblocks = m->bytes / WRK_MEM_BLOCK;
    m->base = wrk_mem_map(m->bytes);
    m->state = wrk_mem_map(nblocks);
    m->next = wrk_mem_map(nblocks * sizeof(uint32_t));
    m->prev = wrk_mem_map(nblocks * sizeof(uint32_t));

    if (m->base == NULL || m->state == NULL || m->next == NULL
        || m->prev == NULL)
    {
        wrk_mem_destroy(m);
        return -1;
    }

    wrk_mem_push(m, 0, m->orders - 1);

    return 0;
}


void
wrk_mem_destroy(wrk_mem_t *m)
{
    size_t  nblocks;

    nblocks = m->bytes / WRK_MEM_BLOCK;
    wrk_mem_unmap(m->base, m->bytes);
    wrk_mem_unmap(m->state, nblocks);
    wrk_mem_unmap(m->next, nblocks * sizeof(uint32_t));
    wrk_mem_unmap(m->prev, nblocks * sizeof(uint32_t));
    memset(m, 0, sizeof(*m));
}


void *
wrk_mem_alloc(wrk_mem_t *m, size_t bytes)
{
    size_t    size;
    unsigned  order, from;
    uint32_t  block;

    for (order = 0, size = WRK_MEM_BLOCK; size < bytes; order++) {
        if (order + 1 >= m->orders) {
            return NULL;
        }

        size *= 2;
    }

    for (from = order; m->head[from] == WRK_MEM_NONE; /* void */) {
        if (++from >= m->orders) {
            return NULL;
        }
    }

    block = m->head[from];
    wrk_mem_pull(m, block, from);

    /* Halve it; the upper halves stay free. */
    while (from > order) {
        from--;
        wrk_mem_push(m, block + (1u << from), from);
    }

    m->state[block] = (uint8_t) (WRK_MEM_TAKEN | order);
    m->used += size;

    return m->base + (size_t) block * WRK_MEM_BLOCK;
}


void
wrk_mem_free(wrk_mem_t *m, void *p)
{
    size_t    at;
    unsigned  order;
    uint32_t  block, buddy;

    assert((uint8_t *) p >= m->base);

    at = (size_t) ((uint8_t *) p - m->base);
    assert(at < m->bytes && at % WRK_MEM_BLOCK == 0);

    block = (uint32_t) (at / WRK_MEM_BLOCK);
    assert(m->state[block] & WRK_MEM_TAKEN);

    order = m->state[block] & WRK_MEM_ORDER;
    m->used -= (size_t) WRK_MEM_BLOCK << order;
    m->state[block] = 0;

    while (order + 1 < m->orders) {
        buddy = block ^ (1u << order);

        if (m->state[buddy] != (WRK_MEM_FREE | order)) {
            break;
        }

        wrk_mem_pull(m, buddy, order);
        block &= ~(1u << order);
        order++;
    }

    wrk_mem_push(m, block, order);
}
