/* Which pool answers between a reload and the new pool's first beat; see the
 * header. */

#include "ngx_module/ngx_http_infer_api.h"
#include "ngx_module/ngx_http_infer_before.h"


#define NGX_HTTP_INFER_FRESH_NS  3000000000     /* an idle one beats each 1 s */


typedef struct {
    uint32_t    state;
    uint64_t    beat_ns;
    uint64_t    todo;
} ngx_http_infer_look_t;


/* Relaxed loads: each value by itself, nothing else is read by it. */
static void
ngx_http_infer_look(ngx_http_infer_pool_t *pool, uint32_t w,
    ngx_http_infer_look_t *look)
{
    const char               *region;
    const shr_counters_t     *counters;
    const shr_worker_line_t  *line;
    shr_worker_layout_t       layout;

    shr_worker_layout(&pool->geom, &layout);
    region = pool->worker_maps[w];
    line = (const void *) (region + layout.line);
    counters = (const void *) (region + layout.counters);

    look->state = atomic_load_explicit(&line->state, memory_order_relaxed);
    look->beat_ns = atomic_load_explicit(&line->beat_ns,
                                         memory_order_relaxed);
    look->todo = atomic_load_explicit(&counters->value[SHR_G_RUNNING],
                                      memory_order_relaxed)
                 | atomic_load_explicit(&counters->value[SHR_G_WAITING],
                                        memory_order_relaxed);
}


static ngx_uint_t
ngx_http_infer_look_is_ready(ngx_http_infer_look_t *look, uint64_t now)
{
    return look->state == SHR_WORKER_READY
           && (look->beat_ns >= now
               || now - look->beat_ns < NGX_HTTP_INFER_FRESH_NS);
}


ngx_uint_t
ngx_http_infer_pool_is_ready(ngx_http_infer_pool_t *pool)
{
    uint32_t               w;
    uint64_t               now;
    ngx_http_infer_look_t  look;

    now = ngx_http_infer_now();

    for (w = 0; w < pool->geom.nworkers; w++) {
        ngx_http_infer_look(pool, w, &look);

        if (ngx_http_infer_look_is_ready(&look, now)) {
            return 1;
        }
    }

    return 0;
}


ngx_uint_t
ngx_http_infer_pool_is_idle(ngx_http_infer_pool_t *pool)
{
    uint32_t               w;
    uint64_t               now;
    ngx_http_infer_look_t  look;

    now = ngx_http_infer_now();

    for (w = 0; w < pool->geom.nworkers; w++) {
        ngx_http_infer_look(pool, w, &look);

        if (look.todo != 0 || !ngx_http_infer_look_is_ready(&look, now)) {
            return 0;
        }
    }

    return 1;
}


/* The generation that runs while a new configuration is read.  An old cycle
 * without this module has no place for it in its arrays. */
static ngx_http_infer_generation_t *
ngx_http_infer_running(ngx_cycle_t *cycle)
{
    ngx_uint_t                   i;
    ngx_cycle_t                 *old;
    ngx_http_infer_main_conf_t  *imcf;

    old = cycle->old_cycle;

    if (ngx_process != NGX_PROCESS_MASTER || old == NULL
        || ngx_is_init_cycle(old))
    {
        return NULL;
    }

    for (i = 0; old->modules[i] != NULL; i++) {

        if (old->modules[i] == &ngx_http_infer_module) {
            imcf = ngx_http_cycle_get_module_main_conf(old,
                                                       ngx_http_infer_module);
            return imcf != NULL ? imcf->generation : NULL;
        }
    }

    return NULL;
}


/* The old cycle's memory goes before the new one's. */
static ngx_int_t
ngx_http_infer_before_keep(ngx_cycle_t *cycle, ngx_str_t *s)
{
    u_char  *p;

    p = ngx_pnalloc(cycle->pool, s->len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, s->data, s->len);
    p[s->len] = '\0';
    s->data = p;

    return NGX_OK;
}


static ngx_http_infer_model_t *
ngx_http_infer_before_copy(ngx_cycle_t *cycle, ngx_http_infer_model_t *old)
{
    ngx_uint_t               i;
    ngx_http_infer_model_t  *copy;

    copy = ngx_pcalloc(cycle->pool, sizeof(ngx_http_infer_model_t));
    if (copy == NULL) {
        return NULL;
    }

    copy->name = old->name;
    copy->file = old->file;
    copy->socket = old->socket;
    copy->text = old->text;
    copy->kind = old->kind;
    copy->architecture = old->architecture;

    ngx_str_t  *kept[] = { &copy->name, &copy->file, &copy->socket,
                           &copy->text, &copy->kind, &copy->architecture };

    for (i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
        if (ngx_http_infer_before_keep(cycle, kept[i]) != NGX_OK) {
            return NULL;
        }
    }

    copy->workers = old->workers;
    copy->slots = old->slots;
    copy->payload = old->payload;
    copy->hash = old->hash;
    ngx_memcpy(copy->fingerprint, old->fingerprint,
               sizeof(copy->fingerprint));

    return copy;
}


ngx_http_infer_model_t *
ngx_http_infer_before_model(ngx_cycle_t *cycle, ngx_http_infer_model_t *model)
{
    ngx_uint_t                    i;
    ngx_str_t                    *name;
    ngx_http_infer_pool_t        *pool;
    ngx_http_infer_generation_t  *gen;

    gen = ngx_http_infer_running(cycle);

    for (i = 0; gen != NULL && i < gen->nmodels; i++) {
        pool = &gen->pools[i];
        name = &pool->model->name;

        if (name->len != model->name.len
            || ngx_memcmp(name->data, model->name.data, name->len) != 0)
        {
            continue;
        }

        /* one that never came to serve has a pool of before itself */
        if (pool->before != NULL && !ngx_http_infer_pool_is_ready(pool)) {
            pool = pool->before;
        }

        if (model->external || pool->model->external
            || pool->model->hash == model->hash
            || pool->model->kind.len != model->kind.len
            || ngx_memcmp(pool->model->kind.data, model->kind.data,
                          model->kind.len) != 0
            || !ngx_http_infer_pool_is_ready(pool))
        {
            return NULL;
        }

        return ngx_http_infer_before_copy(cycle, pool->model);
    }

    return NULL;
}


ngx_http_infer_pool_t *
ngx_http_infer_pool_now(ngx_http_infer_generation_t *gen,
    ngx_http_infer_model_t *model)
{
    ngx_http_infer_pool_t  *pool;

    pool = &gen->pools[model->index];

    if (pool->before == NULL || pool->over) {
        return pool;
    }

    if (ngx_http_infer_pool_is_ready(pool)) {
        pool->over = 1;                 /* there is no way back */
        return pool;
    }

    return ngx_http_infer_pool_is_ready(pool->before) ? pool->before : pool;
}
