/* infer_limit_tokens in the configuration: its zones and what defines them. */

#include "ngx_module/ngx_http_infer_limit.h"


#define NGX_HTTP_INFER_LIMIT_RESERVE   1024     /* tokens of an open end */


static ngx_http_infer_limit_t *ngx_http_infer_limit_zone(ngx_conf_t *cf,
    ngx_str_t *value);
static char *ngx_http_infer_limit_define(ngx_conf_t *cf,
    ngx_http_infer_limit_t *limit, ngx_uint_t from);


/* A zone is made once and kept while its name, size and key stay; its rate may
 * change. */
static ngx_int_t
ngx_http_infer_limit_init_zone(ngx_shm_zone_t *zone, void *data)
{
    ngx_http_infer_limit_t *old = data;

    void                    *bytes;
    size_t                   size;
    ngx_slab_pool_t         *pool;
    ngx_http_infer_limit_t  *limit;

    limit = zone->data;

    if (old != NULL) {
        if (old->key_text.len != limit->key_text.len
            || ngx_strncmp(old->key_text.data, limit->key_text.data,
                           limit->key_text.len) != 0)
        {
            ngx_log_error(NGX_LOG_EMERG, zone->shm.log, 0,
                          "infer_limit_tokens \"%V\" uses the key \"%V\" "
                          "while previously it used the key \"%V\"",
                          &zone->shm.name, &limit->key_text, &old->key_text);
            return NGX_ERROR;
        }

        limit->table.zone = old->table.zone;
        limit->table.owner = -1;
        limit->counts = old->counts;
        return NGX_OK;
    }

    pool = (ngx_slab_pool_t *) zone->shm.addr;
    limit->counts = ngx_slab_calloc(pool,
                                    sizeof(ngx_http_infer_limit_counts_t));
    size = pool->pfree * ngx_pagesize;
    bytes = ngx_slab_alloc(pool, size);

    if (limit->counts == NULL || bytes == NULL) {
        return NGX_ERROR;
    }

    limit->table.zone = shr_limit_format(bytes, size, SHR_LIMIT_OWNERS);
    limit->table.owner = -1;
    pool->data = limit->table.zone;

    return limit->table.zone != NULL ? NGX_OK : NGX_ERROR;
}


char *
ngx_http_infer_limit_tokens(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_infer_loc_conf_t *ilcf = conf;

    char                     *rv;
    ngx_str_t                *value;
    ngx_uint_t                i;
    ngx_http_infer_limit_t   *limit, **slot;

    value = cf->args->elts;

    if (ilcf->limits == NULL) {
        ilcf->limits = ngx_array_create(cf->pool, 2,
                                        sizeof(ngx_http_infer_limit_t *));
        if (ilcf->limits == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        return ilcf->limits->nelts == 0 ? NGX_CONF_OK
                                        : "is off beside other limits";
    }

    limit = ngx_http_infer_limit_zone(cf, &value[1]);
    if (limit == NULL) {
        return NGX_CONF_ERROR;
    }

    if (cf->args->nelts > 2) {
        rv = ngx_http_infer_limit_define(cf, limit, 2);
        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    slot = ilcf->limits->elts;

    for (i = 0; i < ilcf->limits->nelts; i++) {
        if (slot[i] == limit) {
            return "is duplicate";
        }
    }

    if (ilcf->limits->nelts == NGX_HTTP_INFER_LIMITS_MAX) {
        return "is given more than 4 times";
    }

    slot = ngx_array_push(ilcf->limits);
    if (slot == NULL) {
        return NGX_CONF_ERROR;
    }

    *slot = limit;

    return NGX_CONF_OK;
}


/* zone=NAME or zone=NAME:SIZE.  Whoever comes first makes the entry; a zone
 * without a size anywhere is refused by nginx. */
static ngx_http_infer_limit_t *
ngx_http_infer_limit_zone(ngx_conf_t *cf, ngx_str_t *value)
{
    u_char                      *colon;
    ssize_t                      size;
    ngx_str_t                    name, s;
    ngx_shm_zone_t              *zone;
    ngx_http_infer_limit_t      *limit, **slot;
    ngx_http_infer_main_conf_t  *imcf;

    if (value->len <= 5 || ngx_strncmp(value->data, "zone=", 5) != 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"infer_limit_tokens\" begins with \"zone=\" or "
                           "is \"off\", not \"%V\"", value);
        return NULL;
    }

    name.data = value->data + 5;
    name.len = value->len - 5;
    size = 0;
    colon = ngx_strlchr(name.data, name.data + name.len, ':');

    if (colon != NULL) {
        s.data = colon + 1;
        s.len = (size_t) (name.data + name.len - s.data);
        name.len = (size_t) (colon - name.data);
        size = ngx_parse_size(&s);
    }

    if (name.len == 0
        || (colon != NULL && size < (ssize_t) (8 * ngx_pagesize)))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid zone \"%V\": a name, and a size of %uz "
                           "bytes or more", value, 8 * ngx_pagesize);
        return NULL;
    }

    zone = ngx_shared_memory_add(cf, &name, (size_t) size,
                                 &ngx_http_infer_module);
    if (zone == NULL) {
        return NULL;
    }

    if (zone->data != NULL) {
        return zone->data;
    }

    imcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_infer_module);
    limit = ngx_pcalloc(cf->pool, sizeof(ngx_http_infer_limit_t));
    slot = ngx_array_push(&imcf->limits);

    if (limit == NULL || slot == NULL) {
        return NULL;
    }

    *slot = limit;
    limit->zone = zone;
    zone->data = limit;
    zone->init = ngx_http_infer_limit_init_zone;

    return limit;
}


ngx_int_t
ngx_http_infer_limit_check(ngx_conf_t *cf, ngx_http_infer_main_conf_t *imcf)
{
    ngx_uint_t                i;
    ngx_http_infer_limit_t  **limits;

    limits = imcf->limits.elts;

    for (i = 0; i < imcf->limits.nelts; i++) {
        if (limits[i]->key_text.len == 0) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"infer_limit_tokens\" names the zone \"%V\", "
                          "which no other defines with \"key=\"",
                          &limits[i]->zone->shm.name);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* A count and its period: 600/m, also 600r/m and 600t/m. */
static ngx_int_t
ngx_http_infer_limit_rate(ngx_str_t *value, shr_limit_rate_t *rate)
{
    u_char     *slash;
    size_t      len;
    ngx_int_t   n;

    slash = ngx_strlchr(value->data, value->data + value->len, '/');

    if (slash == NULL || slash == value->data
        || value->data + value->len != slash + 2)
    {
        return NGX_ERROR;
    }

    len = (size_t) (slash - value->data);
    len -= slash[-1] == 'r' || slash[-1] == 't';
    n = ngx_atoi(value->data, len);

    if (n == NGX_ERROR || n == 0 || n > (ngx_int_t) SHR_LIMIT_BURST_MAX) {
        return NGX_ERROR;
    }

    rate->tokens = (uint64_t) n;

    switch (slash[1]) {
    case 's':
        rate->period_ns = 1000000000u;
        return NGX_OK;
    case 'm':
        rate->period_ns = 60 * (uint64_t) 1000000000u;
        return NGX_OK;
    case 'h':
        rate->period_ns = 3600 * (uint64_t) 1000000000u;
        return NGX_OK;
    case 'd':
        rate->period_ns = 86400 * (uint64_t) 1000000000u;
        return NGX_OK;
    default:
        return NGX_ERROR;
    }
}


/* One item of the definition; NGX_ERROR: there is no such. */
static ngx_int_t
ngx_http_infer_limit_item(ngx_conf_t *cf, ngx_http_infer_limit_t *limit,
    ngx_str_t *item)
{
    ngx_int_t                          n;
    ngx_str_t                          value;
    u_char                            *equals;
    ngx_http_compile_complex_value_t   ccv;

    equals = ngx_strlchr(item->data, item->data + item->len, '=');
    if (equals == NULL) {
        return NGX_ERROR;
    }

    value.data = equals + 1;
    value.len = (size_t) (item->data + item->len - value.data);

    if (ngx_strncmp(item->data, "key=", 4) == 0) {
        limit->key_text = value;
        ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));
        ccv.cf = cf;
        ccv.value = &value;
        ccv.complex_value = &limit->key;
        return value.len != 0 ? ngx_http_compile_complex_value(&ccv)
                              : NGX_ERROR;
    }

    if (ngx_strncmp(item->data, "rate=", 5) == 0) {
        return ngx_http_infer_limit_rate(&value, &limit->rate);
    }

    n = ngx_atoi(value.data, value.len);

    if (n == NGX_ERROR || n == 0 || n > (ngx_int_t) SHR_LIMIT_BURST_MAX) {
        return NGX_ERROR;
    }

    if (ngx_strncmp(item->data, "burst=", 6) == 0) {
        limit->rate.burst = (uint64_t) n;

    } else if (ngx_strncmp(item->data, "concurrency=", 12) == 0 && n <= 65535)
    {
        limit->rate.running = (uint32_t) n;

    } else if (ngx_strncmp(item->data, "reserve=", 8) == 0) {
        limit->reserve = (uint64_t) n;

    } else {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static char *
ngx_http_infer_limit_define(ngx_conf_t *cf, ngx_http_infer_limit_t *limit,
    ngx_uint_t from)
{
    ngx_str_t   *value;
    ngx_uint_t   i;

    if (limit->key_text.len != 0) {
        return "defines a zone that is defined already; name it with "
               "\"zone=\" alone";
    }

    value = cf->args->elts;
    limit->reserve = NGX_HTTP_INFER_LIMIT_RESERVE;

    for (i = from; i < cf->args->nelts; i++) {
        if (ngx_http_infer_limit_item(cf, limit, &value[i]) != NGX_OK) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\" of "
                               "\"infer_limit_tokens\"", &value[i]);
            return NGX_CONF_ERROR;
        }
    }

    if (limit->key_text.len == 0
        || (limit->rate.tokens == 0 && limit->rate.running == 0))
    {
        return "needs \"key=\", and \"rate=\" or \"concurrency=\"";
    }

    if (limit->rate.burst == 0) {
        limit->rate.burst = ngx_max(limit->rate.tokens, 1);
    }

    return NGX_CONF_OK;
}
