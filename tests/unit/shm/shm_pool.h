/*
 * A pool in one process, for tests: both ends open on the same regions, all
 * free-running indices set to just below 2^32 first, so that every test also
 * crosses the wrap.
 */

#ifndef SHM_POOL_H
#define SHM_POOL_H

#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "shm/shr_client.h"
#include "shm/shr_error.h"
#include "shm/shr_region.h"
#include "shm/shr_server.h"


#define POOL_SIDES  4

typedef struct {
    shr_geom_t     geom;
    int            client_fd[POOL_SIDES];
    int            worker_fd[POOL_SIDES];
    int            client_bell[POOL_SIDES];
    int            worker_bell[POOL_SIDES];
    void          *client_rw[POOL_SIDES];
    void          *client_ro[POOL_SIDES];
    void          *worker_rw[POOL_SIDES];
    void          *worker_ro[POOL_SIDES];
    shr_client_t  *client[POOL_SIDES];
    shr_server_t  *server[POOL_SIDES];
} pool_t;


static inline void
pool_preset(pool_t *p, uint32_t start)
{
    uint32_t             i, k;
    shr_client_layout_t  cl;
    shr_worker_layout_t  wl;

    shr_client_layout(&p->geom, &cl);
    shr_worker_layout(&p->geom, &wl);

    for (i = 0; i < p->geom.nclients; i++) {
        uint8_t  *base = p->client_rw[i];

        for (k = 0; k < p->geom.nworkers; k++) {
            atomic_store(&((shr_index_t *) (base + cl.cq_head))[k].value,
                         start);
            atomic_store(&((shr_index_t *) (base + cl.sq_tail))[k].value,
                         start);
        }

        for (k = 0; k < p->geom.nslots; k++) {
            atomic_store(&((shr_slot_t *) (base + cl.slots))[k].word,
                         shr_word(start, 0));
        }
    }

    for (i = 0; i < p->geom.nworkers; i++) {
        uint8_t  *base = p->worker_rw[i];

        for (k = 0; k < p->geom.nclients; k++) {
            atomic_store(&((shr_index_t *) (base + wl.sq_head))[k].value,
                         start);
            atomic_store(&((shr_index_t *) (base + wl.cq_tail))[k].value,
                         start);
        }
    }
}


static inline void
pool_regions(pool_t *p, const shr_geom_t *geom, uint32_t start)
{
    uint32_t  i;

    memset(p, 0, sizeof(*p));
    p->geom = *geom;

    for (i = 0; i < geom->nclients; i++) {
        p->client_fd[i] = shr_region_create_client(geom, i);
        p->client_bell[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        p->client_rw[i] = shr_region_map_client(p->client_fd[i], geom, i, 1);
        p->client_ro[i] = shr_region_map_client(p->client_fd[i], geom, i, 0);
        assert(p->client_rw[i] != NULL && p->client_ro[i] != NULL);
    }

    for (i = 0; i < geom->nworkers; i++) {
        p->worker_fd[i] = shr_region_create_worker(geom, i);
        p->worker_bell[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        p->worker_rw[i] = shr_region_map_worker(p->worker_fd[i], geom, i, 1);
        p->worker_ro[i] = shr_region_map_worker(p->worker_fd[i], geom, i, 0);
        assert(p->worker_rw[i] != NULL && p->worker_ro[i] != NULL);
    }

    pool_preset(p, start);
}


static inline void
pool_open_client(pool_t *p, uint32_t i)
{
    p->client[i] = shr_client_open(&p->geom, i, p->client_rw[i], p->worker_ro,
                                   p->worker_bell);
    assert(p->client[i] != NULL);
}


static inline void
pool_open_server(pool_t *p, uint32_t i)
{
    shr_worker_reset(&p->geom, p->worker_rw[i], p->client_bell);
    p->server[i] = shr_server_open(&p->geom, i, p->worker_rw[i], p->client_ro,
                                   p->client_bell);
    assert(p->server[i] != NULL);
    shr_server_set_state(p->server[i], SHR_WORKER_READY, (int32_t) getpid());
}


static inline void
pool_open(pool_t *p, uint32_t nclients, uint32_t nworkers)
{
    uint32_t    i;
    shr_geom_t  geom = { nclients, nworkers, 16, 32, 8192, 0 };

    pool_regions(p, &geom, UINT32_MAX - 7);

    for (i = 0; i < nclients; i++) {
        pool_open_client(p, i);
    }

    for (i = 0; i < nworkers; i++) {
        pool_open_server(p, i);
    }
}


static inline void
pool_close(pool_t *p)
{
    uint32_t  i;

    for (i = 0; i < p->geom.nclients; i++) {
        if (p->client[i] != NULL) {
            shr_client_close(p->client[i]);
        }

        shr_region_unmap_client(p->client_rw[i], &p->geom);
        shr_region_unmap_client(p->client_ro[i], &p->geom);
        close(p->client_fd[i]);
        close(p->client_bell[i]);
    }

    for (i = 0; i < p->geom.nworkers; i++) {
        if (p->server[i] != NULL) {
            shr_server_close(p->server[i]);
        }

        shr_region_unmap_worker(p->worker_rw[i], &p->geom);
        shr_region_unmap_worker(p->worker_ro[i], &p->geom);
        close(p->worker_fd[i]);
        close(p->worker_bell[i]);
    }
}


/* Reads an eventfd's count, 0 when it was not rung. */
static inline uint64_t
bell_count(int fd)
{
    uint64_t  n = 0;

    return read(fd, &n, sizeof(n)) == (ssize_t) sizeof(n) ? n : 0;
}


#endif /* SHM_POOL_H */
