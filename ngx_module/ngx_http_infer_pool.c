/*
 * Generations: what nginx and the pools share for one configuration load.
 * Made by the master before its processes are forked, so that they inherit
 * every mapping and descriptor, and closed with the cycle's memory.  All
 * descriptors are close-on-exec: a pool gets its own by SCM_RIGHTS only.
 */

#include "ngx_module/ngx_http_infer.h"
#include "ngx_module/ngx_http_infer_before.h"

#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/random.h>


#define NGX_HTTP_INFER_RESP_BYTES  SHR_RESP_BYTES_MIN


static ngx_int_t ngx_http_infer_generation_make(ngx_cycle_t *cycle,
    ngx_http_infer_main_conf_t *imcf, ngx_http_infer_generation_t *gen);
static ngx_int_t ngx_http_infer_pools_before(ngx_cycle_t *cycle,
    ngx_http_infer_generation_t *gen);
static ngx_int_t ngx_http_infer_pool_make(ngx_cycle_t *cycle,
    ngx_http_infer_generation_t *gen, ngx_http_infer_pool_t *pool,
    ngx_http_infer_model_t *model);
static void ngx_http_infer_generation_close(void *data);


ngx_int_t
ngx_http_infer_pool_init(ngx_cycle_t *cycle)
{
    ngx_core_conf_t              *ccf;
    ngx_pool_cleanup_t           *cln;
    ngx_http_infer_main_conf_t   *imcf;
    ngx_http_infer_generation_t  *gen;

    imcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_infer_module);

    if (imcf == NULL || imcf->models.nelts == 0) {
        return NGX_OK;
    }

    ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_core_module);

    if (ccf->worker_processes > SHR_CLIENTS_MAX) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "\"worker_processes\" %i: inference serves at most %d "
                      "nginx workers", ccf->worker_processes, SHR_CLIENTS_MAX);
        return NGX_ERROR;
    }

    gen = ngx_pcalloc(cycle->pool, sizeof(ngx_http_infer_generation_t));
    cln = ngx_pool_cleanup_add(cycle->pool, 0);
    if (gen == NULL || cln == NULL) {
        return NGX_ERROR;
    }

    gen->log = cycle->log;
    gen->lifeline[0] = -1;
    gen->lifeline[1] = -1;
    gen->nclients = ccf->master ? (ngx_uint_t) ccf->worker_processes : 1;
    cln->handler = ngx_http_infer_generation_close;
    cln->data = gen;

    if (ngx_http_infer_generation_make(cycle, imcf, gen) != NGX_OK
        || ngx_http_infer_metrics_init(cycle, imcf) != NGX_OK)
    {
        return NGX_ERROR;
    }

    imcf->generation = gen;

    /* supervisors outlive their keepers: they shall become children of the
     * master, not of the system's first process */
    (void) prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);

    return NGX_OK;
}


/* An array of descriptors, all -1. */
static int *
ngx_http_infer_fds(ngx_cycle_t *cycle, ngx_uint_t n)
{
    int         *fds;
    ngx_uint_t   i;

    fds = ngx_palloc(cycle->pool, n * sizeof(int));
    if (fds == NULL) {
        return NULL;
    }

    for (i = 0; i < n; i++) {
        fds[i] = -1;
    }

    return fds;
}


static ngx_int_t
ngx_http_infer_bells(ngx_cycle_t *cycle, int *fds, ngx_uint_t n)
{
    ngx_uint_t  i;

    for (i = 0; i < n; i++) {
        fds[i] = eventfd(0, EFD_CLOEXEC|EFD_NONBLOCK);

        if (fds[i] == -1) {
            ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_errno,
                          "eventfd() failed");
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_infer_generation_make(ngx_cycle_t *cycle,
    ngx_http_infer_main_conf_t *imcf, ngx_http_infer_generation_t *gen)
{
    ngx_uint_t                i;
    ngx_http_infer_model_t  **models;

    models = imcf->models.elts;

    gen->bells = ngx_http_infer_fds(cycle, gen->nclients);
    gen->pools = ngx_pcalloc(cycle->pool, 2 * imcf->models.nelts
                                          * sizeof(ngx_http_infer_pool_t));
    if (gen->bells == NULL || gen->pools == NULL) {
        return NGX_ERROR;
    }

    if (ngx_http_infer_scope_init(cycle) != NGX_OK) {
        return NGX_ERROR;
    }

    if (getrandom(gen->id, sizeof(gen->id), 0) != sizeof(gen->id)) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_errno,
                      "getrandom() failed");
        return NGX_ERROR;
    }

    if (pipe2(gen->lifeline, O_CLOEXEC) == -1) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_errno, "pipe2() failed");
        return NGX_ERROR;
    }

    if (ngx_http_infer_bells(cycle, gen->bells, gen->nclients) != NGX_OK) {
        return NGX_ERROR;
    }

    for (i = 0; i < imcf->models.nelts; i++) {
        gen->npools++;

        if (ngx_http_infer_pool_make(cycle, gen, &gen->pools[i], models[i])
            != NGX_OK)
        {
            ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_errno,
                          "shared memory of \"infer_model\" \"%V\" failed",
                          &models[i]->name);
            return NGX_ERROR;
        }
    }

    gen->nmodels = gen->npools;

    return ngx_http_infer_pools_before(cycle, gen);
}


/* Behind the models' own pools, those that answer until they are ready. */
static ngx_int_t
ngx_http_infer_pools_before(ngx_cycle_t *cycle,
    ngx_http_infer_generation_t *gen)
{
    ngx_uint_t               i;
    ngx_http_infer_pool_t   *pool;
    ngx_http_infer_model_t  *model;

    for (i = 0; i < gen->nmodels; i++) {
        model = ngx_http_infer_before_model(cycle, gen->pools[i].model);

        if (model == NULL) {
            continue;
        }

        pool = &gen->pools[gen->npools++];

        if (ngx_http_infer_pool_make(cycle, gen, pool, model) != NGX_OK) {
            ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_errno,
                          "shared memory of \"infer_model\" \"%V\", as it "
                          "was before, failed", &model->name);
            return NGX_ERROR;
        }

        pool->after = &gen->pools[i];
        gen->pools[i].before = pool;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_infer_pool_alloc(ngx_cycle_t *cycle, ngx_http_infer_pool_t *pool)
{
    shr_geom_t  *geom;

    geom = &pool->geom;

    pool->client_fds = ngx_http_infer_fds(cycle, geom->nclients);
    pool->worker_fds = ngx_http_infer_fds(cycle, geom->nworkers);
    pool->doorbells = ngx_http_infer_fds(cycle, geom->nworkers);
    pool->client_maps = ngx_pcalloc(cycle->pool,
                                    geom->nclients * sizeof(void *));
    pool->worker_maps = ngx_pcalloc(cycle->pool,
                                    geom->nworkers * sizeof(void *));

    if (pool->client_fds == NULL || pool->worker_fds == NULL
        || pool->doorbells == NULL || pool->client_maps == NULL
        || pool->worker_maps == NULL)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_infer_pool_make(ngx_cycle_t *cycle, ngx_http_infer_generation_t *gen,
    ngx_http_infer_pool_t *pool, ngx_http_infer_model_t *model)
{
    uint32_t     i;
    shr_geom_t  *geom;

    pool->model = model;
    geom = &pool->geom;
    geom->nclients = (uint32_t) gen->nclients;
    geom->nworkers = (uint32_t) model->workers;
    geom->nslots = (uint32_t) model->slots;
    geom->nchunks = (uint32_t) (model->payload / SHR_CHUNK_BYTES);
    geom->resp_bytes = NGX_HTTP_INFER_RESP_BYTES;

    if (shr_geom_check(geom) != 0
        || ngx_http_infer_pool_alloc(cycle, pool) != NGX_OK
        || ngx_http_infer_bells(cycle, pool->doorbells, model->workers)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* client regions: mapped here first, then nobody else may write */
    for (i = 0; i < geom->nclients; i++) {
        pool->client_fds[i] = shr_region_create_client(geom, i);

        if (pool->client_fds[i] < 0) {
            return NGX_ERROR;
        }

        pool->client_maps[i] = shr_region_map_client(pool->client_fds[i],
                                                     geom, i, 1);

        if (pool->client_maps[i] == NULL
            || shr_region_seal_writes(pool->client_fds[i]) != 0)
        {
            return NGX_ERROR;
        }
    }

    for (i = 0; i < geom->nworkers; i++) {
        pool->worker_fds[i] = shr_region_create_worker(geom, i);

        if (pool->worker_fds[i] < 0) {
            return NGX_ERROR;
        }

        pool->worker_maps[i] = shr_region_map_worker(pool->worker_fds[i],
                                                     geom, i, 0);
        if (pool->worker_maps[i] == NULL) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static void
ngx_http_infer_close_fds(int *fds, ngx_uint_t n)
{
    ngx_uint_t  i;

    for (i = 0; fds != NULL && i < n; i++) {
        if (fds[i] >= 0) {
            (void) close(fds[i]);
        }
    }
}


static void
ngx_http_infer_pool_close(ngx_http_infer_pool_t *pool)
{
    uint32_t     i;
    shr_geom_t  *geom;

    geom = &pool->geom;

    if (pool->client != NULL) {
        shr_client_close(pool->client);
    }

    for (i = 0; pool->client_maps != NULL && i < geom->nclients; i++) {
        if (pool->client_maps[i] != NULL) {
            shr_region_unmap_client(pool->client_maps[i], geom);
        }
    }

    for (i = 0; pool->worker_maps != NULL && i < geom->nworkers; i++) {
        if (pool->worker_maps[i] != NULL) {
            shr_region_unmap_worker(pool->worker_maps[i], geom);
        }
    }

    ngx_http_infer_close_fds(pool->client_fds, geom->nclients);
    ngx_http_infer_close_fds(pool->worker_fds, geom->nworkers);
    ngx_http_infer_close_fds(pool->doorbells, geom->nworkers);
}


/* The cycle's memory goes: in the master after a reload, elsewhere at exit. */
static void
ngx_http_infer_generation_close(void *data)
{
    ngx_http_infer_generation_t *gen = data;

    ngx_uint_t  i;

    for (i = 0; i < gen->npools; i++) {
        ngx_http_infer_pool_close(&gen->pools[i]);
    }

    ngx_http_infer_close_fds(gen->bells, gen->nclients);
    ngx_http_infer_close_fds(gen->lifeline, 2);
    gen->npools = 0;
}


ngx_int_t
ngx_http_infer_pool_open(ngx_cycle_t *cycle, ngx_http_infer_generation_t *gen,
    ngx_uint_t index)
{
    uint32_t                w;
    ngx_uint_t              i;
    shr_worker_info_t       info;
    ngx_http_infer_pool_t  *pool;

    if (index >= gen->nclients) {
        ngx_log_error(NGX_LOG_ALERT, cycle->log, 0,
                      "nginx worker %ui has no place in the pools of %ui",
                      index, gen->nclients);
        return NGX_ERROR;
    }

    for (i = 0; i < gen->npools; i++) {
        pool = &gen->pools[i];

        pool->slots = ngx_pcalloc(cycle->pool, pool->geom.nslots
                                               * sizeof(void *));
        pool->peers = ngx_pcalloc(cycle->pool, pool->geom.nworkers
                                              * sizeof(ngx_http_infer_peer_t));
        pool->client = shr_client_open(&pool->geom, (uint32_t) index,
                                       pool->client_maps[index],
                                       pool->worker_maps, pool->doorbells);

        if (pool->slots == NULL || pool->peers == NULL
            || pool->client == NULL)
        {
            ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                          "no memory for the client end of \"infer_model\" "
                          "\"%V\"", &pool->model->name);
            return NGX_ERROR;
        }

        for (w = 0; w < pool->geom.nworkers; w++) {
            shr_client_info(pool->client, w, &info);
            pool->peers[w].incarnation = info.incarnation;
        }
    }

    return NGX_OK;
}
