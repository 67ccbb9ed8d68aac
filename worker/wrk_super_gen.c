/*
 * Generations: what one configuration load of nginx brought.  The supervisor
 * checks them once, keeps their descriptors, and hands each worker the part
 * that is meant for it.
 */

#include "worker/wrk_super_int.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/shr_error.h"
#include "shm/shr_region.h"
#include "shm/shr_server.h"
#include "worker/wrk_log.h"


static int check_hello(super_t *s, const shr_ctl_msg_t *msg, char *why);
static int configure(super_t *s, const shr_ctl_msg_t *msg, char *why);
static int check_regions(super_gen_t *g, char *why);
static void free_gen(super_gen_t *g);


int
super_attach(super_t *s, wrk_rx_t *rx, int foreign_pids,
    char why[SUPER_REASON_MAX])
{
    uint32_t              w;
    super_gen_t          *g;
    const shr_ctl_msg_t  *msg = &rx->msg;

    if (super_find(s, msg->generation) != NULL) {
        wrk_rx_reset(rx);
        return 0;                   /* a new keeper tells us again */
    }
    if (check_hello(s, msg, why) != 0) {
        wrk_rx_reset(rx);
        return -1;
    }

    g = calloc(1, sizeof(*g));
    if (g != NULL) {
        g->fds = malloc(rx->nfds * sizeof(int));
    }
    if (g == NULL || g->fds == NULL) {
        free(g);
        wrk_rx_reset(rx);
        snprintf(why, SUPER_REASON_MAX, "no memory");
        return -1;
    }

    g->id[0] = msg->generation[0];
    g->id[1] = msg->generation[1];
    g->geom = msg->geom;
    g->foreign_pids = foreign_pids;
    g->nfds = rx->nfds;
    memcpy(g->fds, rx->fds, rx->nfds * sizeof(int));
    rx->nfds = 0;

    if (check_regions(g, why) != 0
        || (!s->configured && configure(s, msg, why) != 0))
    {
        free_gen(g);
        return -1;
    }

    for (w = 0; w < g->geom.nworkers; w++) {
        (void) shr_worker_reset(&g->geom, g->regions[w], gen_bells(g));
    }
    s->gens[s->ngens++] = g;
    wrk_log(WRK_LOG_NOTICE, "generation %08x attached, %u nginx workers",
            (unsigned) g->id[0], g->geom.nclients);
    return 0;
}


/* Everything about the greeting that does not need the descriptors. */
static int
check_hello(super_t *s, const shr_ctl_msg_t *msg, char *why)
{
    if (msg->abi_hash != shr_abi_hash()) {
        snprintf(why, SUPER_REASON_MAX, "nginx's module and "
                 "nginx-infer-worker are of different versions (layouts "
                 "%016llx and %016llx): a reload keeps an old module, "
                 "restart nginx after an upgrade",
                 (unsigned long long) msg->abi_hash,
                 (unsigned long long) shr_abi_hash());
        return -1;
    }
    if (shr_hash64(msg->text, msg->text_len) != msg->model_hash) {
        snprintf(why, SUPER_REASON_MAX, "the model's configuration does not "
                 "fit its hash %016llx", (unsigned long long) msg->model_hash);
        return -1;
    }
    if (s->configured && msg->model_hash != s->model_hash) {
        snprintf(why, SUPER_REASON_MAX, "this pool serves model \"%s\" with "
                 "another configuration (hash %016llx, not %016llx): it "
                 "needs a socket of its own", s->conf.name,
                 (unsigned long long) s->model_hash,
                 (unsigned long long) msg->model_hash);
        return -1;
    }
    if (s->configured && msg->geom.nworkers != s->conf.workers) {
        snprintf(why, SUPER_REASON_MAX, "regions for %u workers, the "
                 "configuration has %u", msg->geom.nworkers, s->conf.workers);
        return -1;
    }
    if (s->ngens == SUPER_GENS_MAX) {
        snprintf(why, SUPER_REASON_MAX, "%d configuration loads are alive "
                 "already: set worker_shutdown_timeout, so that old nginx "
                 "workers end", SUPER_GENS_MAX);
        return -1;
    }
    if (s->draining) {
        snprintf(why, SUPER_REASON_MAX, "the pool is ending");
        return -1;
    }
    return 0;
}


/* The first generation says what this pool is for. */
static int
configure(super_t *s, const shr_ctl_msg_t *msg, char *why)
{
    uint32_t  w;
    char      err[WRK_CONF_ERR_MAX];

    if (wrk_conf_parse(&s->conf, msg->text, msg->text_len, err) != 0) {
        snprintf(why, SUPER_REASON_MAX, "configuration: %s", err);
        return -1;
    }
    if (msg->geom.nworkers != s->conf.workers) {
        snprintf(why, SUPER_REASON_MAX, "regions for %u workers, the "
                 "configuration has %u", msg->geom.nworkers, s->conf.workers);
        return -1;
    }

    assert(s->weights_fd == -1);
    s->weights_fd = memfd_create("infer-weights",
                                 MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (s->weights_fd < 0) {
        snprintf(why, SUPER_REASON_MAX, "memfd: %s", strerror(errno));
        return -1;
    }

    memcpy(s->text, msg->text, msg->text_len);
    s->text_len = msg->text_len;
    s->model_hash = msg->model_hash;
    s->configured = 1;
    wrk_log_name(s->conf.name);

    for (w = 0; w < s->conf.workers; w++) {
        s->workers[w].due_ns = s->now;
        s->workers[w].failures = 0;
    }
    return 0;
}


/* A write(2) to a bell must never block, whatever its counter says. */
static void
unblock(const int *fds, uint32_t n)
{
    int       flags;
    uint32_t  i;

    for (i = 0; i < n; i++) {
        flags = fcntl(fds[i], F_GETFL);
        if (flags >= 0) {
            (void) fcntl(fds[i], F_SETFL, flags | O_NONBLOCK);
        }
    }
}


static int
check_regions(super_gen_t *g, char *why)
{
    void              *region;
    uint32_t           c, w;
    const shr_geom_t  *geom = &g->geom;

    assert(g->nfds == shr_ctl_nfds(geom));

    for (c = 0; c < geom->nclients; c++) {
        region = shr_region_map_client(gen_client(g, c), geom, c, 0);
        if (region == NULL) {
            snprintf(why, SUPER_REASON_MAX, "client region %u: %s", c,
                     strerror(errno));
            return -1;
        }
        shr_region_unmap_client(region, geom);
    }

    for (w = 0; w < geom->nworkers; w++) {
        g->regions[w] = shr_region_map_worker(gen_worker(g, w), geom, w, 1);
        if (g->regions[w] == NULL) {
            snprintf(why, SUPER_REASON_MAX, "worker region %u: %s", w,
                     strerror(errno));
            return -1;
        }
    }

    unblock(gen_bells(g), geom->nclients + geom->nworkers);
    return 0;
}


super_gen_t *
super_find(super_t *s, const uint64_t id[2])
{
    uint32_t  i;

    for (i = 0; i < s->ngens; i++) {
        if (s->gens[i]->id[0] == id[0] && s->gens[i]->id[1] == id[1]) {
            return s->gens[i];
        }
    }
    return NULL;
}


/*
 * The workers keep its regions until the lifeline ends, as they know no other
 * end; nothing is asked there any more.
 */
void
super_detach(super_t *s, const uint64_t id[2])
{
    uint32_t  i;

    for (i = 0; i < s->ngens; i++) {
        if (s->gens[i]->id[0] == id[0] && s->gens[i]->id[1] == id[1]) {
            super_drop_gen(s, i);
            return;
        }
    }
}


/* Its workers learn it by the same end of file. */
void
super_drop_gen(super_t *s, uint32_t i)
{
    assert(i < s->ngens);

    wrk_log(WRK_LOG_NOTICE, "generation %08x has gone",
            (unsigned) s->gens[i]->id[0]);
    free_gen(s->gens[i]);
    s->ngens--;
    memmove(&s->gens[i], &s->gens[i + 1],
            (s->ngens - i) * sizeof(s->gens[0]));
    if (s->ngens == 0) {
        s->alone_ns = s->now;
    }
}


void
super_free_gens(super_t *s)
{
    while (s->ngens > 0) {
        free_gen(s->gens[--s->ngens]);
    }
}


static void
free_gen(super_gen_t *g)
{
    uint32_t  i;

    for (i = 0; i < g->geom.nworkers; i++) {
        if (g->regions[i] != NULL) {
            shr_region_unmap_worker(g->regions[i], &g->geom);
        }
    }
    for (i = 0; i < g->nfds; i++) {
        close(g->fds[i]);
    }
    free(g->fds);
    free(g);
}


void
super_worker_gone(super_t *s, uint32_t w)
{
    uint32_t  i;

    for (i = 0; i < s->ngens; i++) {
        (void) shr_worker_reset(&s->gens[i]->geom, s->gens[i]->regions[w],
                                gen_bells(s->gens[i]));
        s->gens[i]->sent[w] = 0;
    }
}


/* The descriptors of a worker's part, by number. */
static int
part_fd(const super_gen_t *g, uint32_t w, uint32_t i)
{
    uint32_t  n = g->geom.nclients;

    if (i <= n) {
        return g->fds[i];           /* lifeline, client regions */
    }
    if (i == n + 1) {
        return gen_worker(g, w);
    }
    if (i < 2 * n + 2) {
        return gen_bells(g)[i - n - 2];
    }
    return gen_doorbell(g, w);
}


static int
send_gen(super_t *s, super_gen_t *g, uint32_t w)
{
    int            rc, fds[SHR_CTL_FDS_MAX];
    uint32_t       i, part, total = wrk_ctl_worker_nfds(&g->geom);
    shr_ctl_msg_t  msg;

    while (g->sent[w] < total) {
        memset(&msg, 0, sizeof(msg));
        part = total - g->sent[w];
        part = part < SHR_CTL_FDS_MAX ? part : SHR_CTL_FDS_MAX;
        for (i = 0; i < part; i++) {
            fds[i] = part_fd(g, w, g->sent[w] + i);
        }

        msg.type = g->sent[w] == 0 ? SHR_CTL_ATTACH : SHR_CTL_FDS;
        msg.nfds = part;
        msg.abi_hash = shr_abi_hash();
        msg.model_hash = s->model_hash;
        msg.generation[0] = g->id[0];
        msg.generation[1] = g->id[1];
        msg.geom = g->geom;
        msg.worker = w | (g->foreign_pids ? WRK_CTL_FOREIGN_PIDS : 0);
        msg.text_len = s->text_len;
        memcpy(msg.text, s->text, s->text_len);

        rc = shr_ctl_send(s->workers[w].ctl, &msg, fds);
        if (rc != 0) {
            return rc;
        }
        g->sent[w] += part;
    }
    return 0;
}


int
super_send_gens(super_t *s, uint32_t w)
{
    int       rc;
    uint32_t  i;

    for (i = 0; i < s->ngens; i++) {
        rc = send_gen(s, s->gens[i], w);
        if (rc == -SHR_EAGAIN) {
            return 1;
        }
        if (rc != 0) {
            /* It has died, or the kernel has no room for descriptors in
             * flight; the first we shall be told, the second may pass. */
            return errno != EPIPE;
        }
    }
    return 0;
}
