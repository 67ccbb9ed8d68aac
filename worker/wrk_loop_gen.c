/*
 * Generations as a worker sees them: regions, bells, and the processes behind
 * the client regions.  nginx's regions are foreign bytes; shr_server_* reads
 * them.
 */

#include "worker/wrk_loop_int.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shm/shr_region.h"
#include "worker/wrk_log.h"


static loop_gen_t *gen_new(const wrk_rx_t *rx);
static int gen_map(loop_gen_t *g, const wrk_rx_t *rx);
static int gen_watch(loop_t *l, loop_gen_t *g);
static void gen_free(loop_t *l, loop_gen_t *g);


void
loop_gen_attach(loop_t *l)
{
    uint32_t     n;
    loop_gen_t  *g;
    wrk_rx_t    *rx = &l->rx;

    n = rx->msg.geom.nclients;
    assert(rx->nfds == wrk_ctl_worker_nfds(&rx->msg.geom));

    if (l->ngens == LOOP_GENS_MAX
        || (rx->msg.worker & ~WRK_CTL_FOREIGN_PIDS)
           >= rx->msg.geom.nworkers
        || (g = gen_new(rx)) == NULL)
    {
        wrk_log(WRK_LOG_ERROR, "generation %08x cannot be taken",
                (unsigned) rx->msg.generation[0]);
        wrk_rx_reset(rx);
        return;
    }

    /* From here on the descriptors are the generation's, except that those of
     * the regions are of no use once these are mapped. */
    g->lifeline = rx->fds[0];
    memcpy(g->bells, rx->fds + n + 2, n * sizeof(int));
    g->doorbell = rx->fds[2 * n + 2];
    g->serial = ++l->serial;

    if (gen_map(g, rx) != 0 || gen_watch(l, g) != 0) {
        wrk_log(WRK_LOG_ERROR, "generation %08x cannot be mapped: %s",
                (unsigned) g->id[0], strerror(errno));
        gen_free(l, g);
        rx->nfds = 0;
        return;
    }
    rx->nfds = 0;

    l->gens[l->ngens++] = g;
    l->alone_ns = 0;
    shr_server_beat(g->server, loop_clock());
    shr_server_set_state(g->server, l->state, (int32_t) getpid());
    loop_clients_look(l, g);
}


static loop_gen_t *
gen_new(const wrk_rx_t *rx)
{
    uint32_t     i, n = rx->msg.geom.nclients;
    loop_gen_t  *g;

    g = calloc(1, sizeof(*g));
    if (g == NULL) {
        return NULL;
    }
    g->bells = calloc(n, sizeof(int));
    g->regions = calloc(n, sizeof(void *));
    g->clients = calloc(n, sizeof(loop_client_t));
    if (g->bells == NULL || g->regions == NULL || g->clients == NULL) {
        free(g->bells);
        free(g->regions);
        free(g->clients);
        free(g);
        return NULL;
    }

    for (i = 0; i < n; i++) {
        g->clients[i].pidfd = -1;
    }
    g->id[0] = rx->msg.generation[0];
    g->id[1] = rx->msg.generation[1];
    g->geom = rx->msg.geom;
    g->index = rx->msg.worker & ~WRK_CTL_FOREIGN_PIDS;
    g->foreign_pids = (rx->msg.worker & WRK_CTL_FOREIGN_PIDS) != 0;
    return g;
}


/* Maps all regions and closes their descriptors, also after an error. */
static int
gen_map(loop_gen_t *g, const wrk_rx_t *rx)
{
    int       err = 0;
    uint32_t  i, n = g->geom.nclients;

    for (i = 0; i < n && err == 0; i++) {
        g->regions[i] = shr_region_map_client(rx->fds[1 + i], &g->geom, i, 0);
        err = g->regions[i] == NULL ? errno : 0;
    }
    if (err == 0) {
        g->region = shr_region_map_worker(rx->fds[1 + n], &g->geom, g->index,
                                          1);
        err = g->region == NULL ? errno : 0;
    }
    for (i = 0; i <= n; i++) {
        close(rx->fds[1 + i]);
    }
    if (err == 0) {
        g->server = shr_server_open(&g->geom, g->index, g->region, g->regions,
                                    g->bells);
        err = g->server == NULL ? ENOMEM : 0;
    }
    errno = err;
    return err == 0 ? 0 : -1;
}


static int
gen_watch(loop_t *l, loop_gen_t *g)
{
    if (wrk_wait_add(l->wait, g->lifeline, WRK_WAIT_GONE,
                     loop_tag(TAG_LIFELINE, g->serial, 0)) != 0)
    {
        return -1;
    }
    return wrk_wait_add(l->wait, g->doorbell, WRK_WAIT_READ,
                        loop_tag(TAG_DOORBELL, g->serial, 0));
}


loop_gen_t *
loop_gen_find(loop_t *l, uint32_t serial)
{
    uint32_t  i;

    for (i = 0; i < l->ngens; i++) {
        if (l->gens[i]->serial == serial) {
            return l->gens[i];
        }
    }
    return NULL;
}


void
loop_gen_gone(loop_t *l, loop_gen_t *g)
{
    struct pollfd  p = { g->lifeline, 0, 0 };

    /* A notice may be a late one: ask the pipe itself. */
    if (g->gone || poll(&p, 1, 0) != 1) {
        return;
    }
    g->gone = 1;
    wrk_log(WRK_LOG_INFO, "generation %08x has gone with %u requests",
            (unsigned) g->id[0], g->nentries);
    loop_gens_collect(l);
}


void
loop_gens_collect(loop_t *l)
{
    uint32_t     i;
    loop_gen_t  *g;

    for (i = l->ngens; i > 0; i--) {
        g = l->gens[i - 1];
        if (!g->gone || g->nentries > 0) {
            continue;
        }
        gen_free(l, g);
        l->ngens--;
        memmove(&l->gens[i - 1], &l->gens[i],
                (l->ngens - (i - 1)) * sizeof(l->gens[0]));
        if (l->ngens == 0) {
            l->alone_ns = loop_clock();
        }
    }
}


static void
client_forget(loop_t *l, loop_gen_t *g, uint32_t c)
{
    if (g->clients[c].pidfd >= 0) {
        wrk_wait_del(l->wait, g->clients[c].pidfd,
                     loop_tag(TAG_CLIENT, g->serial, c));
        close(g->clients[c].pidfd);
        g->clients[c].pidfd = -1;
    }
}


static void
gen_free(loop_t *l, loop_gen_t *g)
{
    uint32_t  i, n = g->geom.nclients;

    assert(g->nentries == 0);

    wrk_wait_del(l->wait, g->lifeline, loop_tag(TAG_LIFELINE, g->serial, 0));
    wrk_wait_del(l->wait, g->doorbell, loop_tag(TAG_DOORBELL, g->serial, 0));
    if (g->server != NULL) {
        shr_server_close(g->server);
    }
    for (i = 0; i < n; i++) {
        client_forget(l, g, i);
        if (g->regions[i] != NULL) {
            shr_region_unmap_client(g->regions[i], &g->geom);
        }
        close(g->bells[i]);
    }
    if (g->region != NULL) {
        shr_region_unmap_worker(g->region, &g->geom);
    }
    close(g->lifeline);
    close(g->doorbell);
    free(g->bells);
    free(g->regions);
    free(g->clients);
    free(g);
}


/*
 * A pid is a foreign number and may be reused: it is trusted only if the
 * client's epoch is the same after the pidfd was opened, and what its end
 * costs are the requests of that epoch, which the client owns anyway.
 */
void
loop_clients_look(loop_t *l, loop_gen_t *g)
{
    int             fd;
    int32_t         pid;
    uint32_t        c, epoch, after;
    loop_client_t  *client;

    for (c = 0; c < g->geom.nclients; c++) {
        client = &g->clients[c];
        pid = shr_server_client_pid(g->server, c, &epoch);
        if (epoch == client->epoch) {
            continue;
        }

        client_forget(l, g, c);
        client->epoch = epoch;
        client->dead = 0;
        if (g->foreign_pids || pid <= 0) {
            continue;
        }

        fd = (int) syscall(SYS_pidfd_open, pid, 0);
        if (fd < 0) {
            continue;               /* slower ways tell us: the next epoch */
        }
        (void) shr_server_client_pid(g->server, c, &after);
        if (after != epoch
            || wrk_wait_add(l->wait, fd, WRK_WAIT_READ,
                            loop_tag(TAG_CLIENT, g->serial, c)) != 0)
        {
            close(fd);
            client->epoch = 0;      /* once more with the next look */
            continue;
        }
        client->pidfd = fd;
    }
}


void
loop_client_event(loop_gen_t *g, uint32_t c)
{
    struct pollfd  p;

    if (c >= g->geom.nclients || g->clients[c].pidfd < 0) {
        return;
    }
    p.fd = g->clients[c].pidfd;
    p.events = POLLIN;
    if (poll(&p, 1, 0) == 1 && (p.revents & POLLIN)) {
        g->clients[c].dead = 1;
    }
}


void
loop_set_state(loop_t *l, shr_worker_state_t state)
{
    uint32_t  i;

    l->state = state;
    for (i = 0; i < l->ngens; i++) {
        shr_server_set_state(l->gens[i]->server, state, (int32_t) getpid());
    }
}
