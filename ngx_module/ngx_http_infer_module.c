/*
 * The table of contents: directives, configuration, the module's hooks.
 *
 * infer_pass sets the content handler (ngx_http_infer_request.c); a request is
 * parsed (_openai.c), handed over (_dispatch.c), woken (_event.c) and answered
 * (_reply.c).  The pools live in _pool.c and _keeper.c.
 */

#include "ngx_module/ngx_http_infer.h"
#include "ngx_module/ngx_http_infer_api.h"
#include "ngx_module/ngx_http_infer_classify.h"
#include "ngx_module/ngx_http_infer_input.h"
#include "ngx_module/ngx_http_infer_limit.h"


#define NGX_HTTP_INFER_HEAP_BLOCK  (2 * 1024 * 1024)


/* An infer_pass whose names wait for the end of the configuration. */
typedef struct {
    ngx_http_infer_loc_conf_t  *conf;
    ngx_array_t                *args;       /* ngx_str_t */
    u_char                     *conf_file;
    ngx_uint_t                  line;
} ngx_http_infer_pass_t;


static char *ngx_http_infer_pass(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_infer_worker(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_infer_fallback(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_infer_set_handler(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static void *ngx_http_infer_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_infer_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_infer_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_http_infer_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_infer_postconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_infer_init_module(ngx_cycle_t *cycle);
static ngx_int_t ngx_http_infer_init_process(ngx_cycle_t *cycle);
static void ngx_http_infer_exit_process(ngx_cycle_t *cycle);


static ngx_conf_num_bounds_t  ngx_http_infer_max_tokens_bounds = {
    ngx_conf_check_num_bounds, 0, 1 << 20
};


static ngx_command_t  ngx_http_infer_commands[] = {

    { ngx_string("infer_model"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_BLOCK|NGX_CONF_TAKE1,
      ngx_http_infer_model,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("infer_worker"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_infer_worker,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("infer_run_path"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_path_slot,
      NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_http_infer_main_conf_t, run_path),
      NULL },

    { ngx_string("infer_pass"),
      NGX_HTTP_LOC_CONF|NGX_HTTP_LIF_CONF|NGX_CONF_1MORE,
      ngx_http_infer_pass,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("infer_timeout"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_infer_loc_conf_t, timeout),
      NULL },

    { ngx_string("infer_ping"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_infer_loc_conf_t, ping),
      NULL },

    { ngx_string("infer_max_tokens"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_infer_loc_conf_t, max_tokens),
      &ngx_http_infer_max_tokens_bounds },

    { ngx_string("infer_buffer_size"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_size_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_infer_loc_conf_t, buffer_size),
      NULL },

    { ngx_string("infer_ignore_client_abort"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_infer_loc_conf_t, ignore_client_abort),
      NULL },

    { ngx_string("infer_scope"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_set_complex_value_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_infer_loc_conf_t, scope),
      NULL },

    { ngx_string("infer_fair_key"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_set_complex_value_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_infer_loc_conf_t, fair_key),
      NULL },

    { ngx_string("infer_priority"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_set_complex_value_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_infer_loc_conf_t, priority),
      NULL },

    { ngx_string("infer_deadline"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_set_complex_value_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_infer_loc_conf_t, deadline),
      NULL },

    { ngx_string("infer_limit_tokens"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_infer_limit_tokens,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("infer_fallback"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_infer_fallback,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_infer_loc_conf_t, fallback),
      NULL },

    { ngx_string("infer_classify"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_2MORE,
      ngx_http_infer_classify,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("infer_input"),
      NGX_HTTP_LOC_CONF|NGX_CONF_TAKE12,
      ngx_http_infer_input,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("infer_field"),
      NGX_HTTP_LOC_CONF|NGX_CONF_TAKE2,
      ngx_http_infer_field,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("infer_output"),
      NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_infer_output,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("infer_status"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_http_infer_set_handler,
      0,
      0,
      ngx_http_infer_status_handler },

    { ngx_string("infer_metrics"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE1,
      ngx_http_infer_set_handler,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      ngx_http_infer_metrics_handler },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_infer_module_ctx = {
    ngx_http_infer_preconfiguration,       /* preconfiguration */
    ngx_http_infer_postconfiguration,      /* postconfiguration */

    ngx_http_infer_create_main_conf,       /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_infer_create_loc_conf,        /* create location configuration */
    ngx_http_infer_merge_loc_conf          /* merge location configuration */
};


ngx_module_t  ngx_http_infer_module = {
    NGX_MODULE_V1,
    &ngx_http_infer_module_ctx,            /* module context */
    ngx_http_infer_commands,               /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    ngx_http_infer_init_module,            /* init module */
    ngx_http_infer_init_process,           /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_infer_exit_process,           /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_http_infer_init_module(ngx_cycle_t *cycle)
{
    /* nginx -t runs this hook as well, and must leave nothing behind */
    if (ngx_test_config) {
        return NGX_OK;
    }

    return ngx_http_infer_pool_init(cycle);
}


/*
 * Answers come in bursts: a batch ends, and the memory of all its requests is
 * freed and asked for again a moment later.  glibc hands free memory beyond
 * 128 KiB at the heap's end to the kernel, and page faults were up to a fifth
 * of what a request cost nginx.  The limit becomes twice the largest block that
 * was mapped and freed (mallopt(3), "dynamic mmap threshold"), so one such
 * block at the start sets it, and leaves the rest of glibc's ways alone.
 */
static void
ngx_http_infer_keep_heap(ngx_log_t *log)
{
    void  *p = ngx_alloc(NGX_HTTP_INFER_HEAP_BLOCK, log);

    if (p != NULL) {
        ngx_free(p);
    }
}


static ngx_int_t
ngx_http_infer_init_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                    index;
    ngx_http_infer_main_conf_t   *imcf;
    ngx_http_infer_generation_t  *gen;

    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    imcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_infer_module);

    if (imcf == NULL || imcf->generation == NULL) {
        return NGX_OK;
    }

    ngx_http_infer_keep_heap(cycle->log);

    gen = imcf->generation;
    index = ngx_process == NGX_PROCESS_SINGLE ? 0 : ngx_worker;

    if (ngx_http_infer_pool_open(cycle, gen, index) != NGX_OK
        || ngx_http_infer_event_init(cycle, gen, index) != NGX_OK
        || ngx_http_infer_limit_init(cycle, imcf) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_process == NGX_PROCESS_SINGLE) {
        return ngx_http_infer_keeper_start(imcf);
    }

    return NGX_OK;
}


static void
ngx_http_infer_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_infer_main_conf_t  *imcf;

    imcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_infer_module);

    if (imcf != NULL) {
        ngx_http_infer_limit_exit(cycle, imcf);
    }
}


static ngx_int_t
ngx_http_infer_preconfiguration(ngx_conf_t *cf)
{
    return ngx_http_infer_add_variables(cf);
}


static ngx_int_t
ngx_http_infer_resolve_pass(ngx_conf_t *cf, ngx_http_infer_main_conf_t *imcf,
    ngx_http_infer_pass_t *pass)
{
    ngx_str_t                *names;
    ngx_uint_t                i;
    ngx_http_infer_model_t  **slot, *model;

    names = pass->args->elts;

    for (i = 0; i < pass->args->nelts; i++) {
        model = ngx_http_infer_model_find(imcf, &names[i]);

        if (model == NULL) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "unknown model \"%V\" in \"infer_pass\" in %s:%ui",
                          &names[i], pass->conf_file, pass->line);
            return NGX_ERROR;
        }

        slot = ngx_array_push(pass->conf->models);
        if (slot == NULL) {
            return NGX_ERROR;
        }

        *slot = model;
    }

    return NGX_OK;
}


/* The folder of control sockets, beside nginx's other temporary folders. */
static ngx_int_t
ngx_http_infer_add_run_path(ngx_conf_t *cf, ngx_http_infer_main_conf_t *imcf)
{
    u_char           *slash, *p;
    ngx_str_t         base;
    ngx_path_init_t   init;

    ngx_memzero(&init, sizeof(ngx_path_init_t));
    ngx_str_set(&base, NGX_HTTP_CLIENT_TEMP_PATH);
    ngx_str_set(&init.name, "infer_temp");

    slash = ngx_strlchr(base.data, base.data + base.len, '/');

    while (slash != NULL) {
        base.len = (size_t) (slash - base.data) + 1;
        slash = ngx_strlchr(slash + 1,
                            base.data + sizeof(NGX_HTTP_CLIENT_TEMP_PATH) - 1,
                            '/');
    }

    if (base.data[base.len - 1] == '/') {
        init.name.len = base.len + sizeof("infer") - 1;
        p = ngx_pnalloc(cf->pool, init.name.len + 1);
        if (p == NULL) {
            return NGX_ERROR;
        }

        init.name.data = p;
        p = ngx_cpymem(p, base.data, base.len);
        ngx_memcpy(p, "infer", sizeof("infer"));
    }

    if (ngx_conf_merge_path_value(cf, &imcf->run_path, NULL, &init)
        != NGX_CONF_OK)
    {
        return NGX_ERROR;
    }

    /* a path with a manager makes the master run the cache manager process,
     * which is our keeper */
    imcf->run_path->manager = ngx_http_infer_keeper_manager;
    imcf->run_path->data = imcf;

    return NGX_OK;
}


/* The index of $request_id when something before us uses it, a log format for
 * example: then our answers carry the same.  NGX_ERROR: nobody asks for it, and
 * cheaper ids will do. */
static ngx_int_t
ngx_http_infer_find_request_id(ngx_conf_t *cf)
{
    ngx_str_t                   name = ngx_string("request_id");
    ngx_uint_t                  i;
    ngx_http_variable_t        *v;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    v = cmcf->variables.elts;

    for (i = 0; i < cmcf->variables.nelts; i++) {
        if (v[i].name.len == name.len
            && ngx_strncmp(v[i].name.data, name.data, name.len) == 0)
        {
            return (ngx_int_t) i;
        }
    }

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_infer_postconfiguration(ngx_conf_t *cf)
{
    ngx_uint_t                    i;
    ngx_http_infer_pass_t        *passes;
    ngx_http_infer_model_t      **models;
    ngx_http_infer_main_conf_t   *imcf;

    imcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_infer_module);

    passes = imcf->passes.elts;

    for (i = 0; i < imcf->passes.nelts; i++) {
        if (ngx_http_infer_resolve_pass(cf, imcf, &passes[i]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (ngx_http_infer_limit_check(cf, imcf) != NGX_OK
        || ngx_http_infer_classify_resolve(cf, imcf) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (imcf->models.nelts == 0) {
        return NGX_OK;
    }

    imcf->request_id = ngx_http_infer_find_request_id(cf);

    if (ngx_http_infer_add_run_path(cf, imcf) != NGX_OK) {
        return NGX_ERROR;
    }

    if (imcf->worker.data == NULL) {
        ngx_str_set(&imcf->worker, NGX_HTTP_INFER_WORKER);
    }

    models = imcf->models.elts;

    for (i = 0; i < imcf->models.nelts; i++) {
        if (ngx_http_infer_model_finish(cf, imcf, models[i]) != NGX_OK) {
            return NGX_ERROR;
        }

        /* a signaller only wants the pid file's name */
        if (ngx_process != NGX_PROCESS_SIGNALLER
            && ngx_http_infer_check_model(cf, imcf, models[i]) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    for (i = 0; i < imcf->passes.nelts; i++) {
        if (ngx_http_infer_input_finish(cf, passes[i].conf) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (ngx_http_infer_classify_finish(cf, imcf) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_infer_error_filter_init(cf);
}


static char *
ngx_http_infer_pass(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_infer_loc_conf_t *ilcf = conf;

    ngx_str_t                   *value, *name;
    ngx_uint_t                   i;
    ngx_http_infer_pass_t       *pass;
    ngx_http_core_loc_conf_t    *clcf;
    ngx_http_infer_main_conf_t  *imcf;

    if (ilcf->pass != NGX_CONF_UNSET) {
        return "is duplicate";
    }

    value = cf->args->elts;
    ilcf->pass = 0;

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        return NGX_CONF_OK;
    }

    imcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_infer_module);
    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    pass = ngx_array_push(&imcf->passes);
    ilcf->models = ngx_array_create(cf->pool, cf->args->nelts,
                                    sizeof(ngx_http_infer_model_t *));
    if (pass == NULL || ilcf->models == NULL) {
        return NGX_CONF_ERROR;
    }

    pass->conf = ilcf;
    pass->conf_file = cf->conf_file->file.name.data;
    pass->line = cf->conf_file->line;
    pass->args = ngx_array_create(cf->pool, cf->args->nelts,
                                  sizeof(ngx_str_t));
    if (pass->args == NULL) {
        return NGX_CONF_ERROR;
    }

    for (i = 1; i < cf->args->nelts; i++) {
        name = ngx_array_push(pass->args);
        if (name == NULL) {
            return NGX_CONF_ERROR;
        }

        *name = value[i];
    }

    ilcf->pass = 1;
    clcf->handler = ngx_http_infer_handler;

    return NGX_CONF_OK;
}


static char *
ngx_http_infer_worker(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_infer_main_conf_t *imcf = conf;

    ngx_str_t  *value;

    if (imcf->worker.data != NULL) {
        return "is duplicate";
    }

    value = cf->args->elts;
    imcf->worker = value[1];

    if (ngx_conf_full_name(cf->cycle, &imcf->worker, 0) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_infer_fallback(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_infer_loc_conf_t *ilcf = conf;

    ngx_str_t  *value;

    if (ilcf->fallback.data != NULL) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        ilcf->fallback.data = (u_char *) "";
        return NGX_CONF_OK;
    }

    if (value[1].data[0] != '@') {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" of \"infer_fallback\": it is "
                           "a named location like @other, or \"off\"",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    ilcf->fallback = value[1];

    return NGX_CONF_OK;
}


static char *
ngx_http_infer_set_handler(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t                  *value;
    ngx_http_core_loc_conf_t   *clcf;
    ngx_http_infer_loc_conf_t  *ilcf;

    if (cf->args->nelts == 2) {
        value = cf->args->elts;

        if (ngx_strcmp(value[1].data, "vllm") != 0) {
            return "has another parameter than \"vllm\"";
        }

        ilcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_infer_module);
        ilcf->vllm = 1;
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = (ngx_http_handler_pt) cmd->post;

    return NGX_CONF_OK;
}


static void *
ngx_http_infer_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_infer_main_conf_t  *imcf;

    imcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_infer_main_conf_t));
    if (imcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&imcf->models, cf->pool, 4,
                       sizeof(ngx_http_infer_model_t *)) != NGX_OK
        || ngx_array_init(&imcf->passes, cf->pool, 4,
                          sizeof(ngx_http_infer_pass_t)) != NGX_OK
        || ngx_array_init(&imcf->limits, cf->pool, 4,
                          sizeof(ngx_http_infer_limit_t *)) != NGX_OK
        || ngx_array_init(&imcf->classifies, cf->pool, 4,
                          sizeof(void *)) != NGX_OK)
    {
        return NULL;
    }

    return imcf;
}


static void *
ngx_http_infer_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_infer_loc_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_infer_loc_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     conf->models = NULL;
     *     conf->scope = NULL;
     *     conf->fair_key = NULL;
     *     conf->priority = NULL;
     *     conf->deadline = NULL;
     *     conf->limits = NULL;
     *     conf->fallback = { 0, NULL };
     *     conf->classify = NULL;
     *     conf->input = NULL;
     */

    conf->pass = NGX_CONF_UNSET;
    conf->timeout = NGX_CONF_UNSET_MSEC;
    conf->ping = NGX_CONF_UNSET_MSEC;
    conf->max_tokens = NGX_CONF_UNSET_UINT;
    conf->buffer_size = NGX_CONF_UNSET_SIZE;
    conf->ignore_client_abort = NGX_CONF_UNSET;

    return conf;
}


static char *
ngx_http_infer_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_infer_loc_conf_t *prev = parent;
    ngx_http_infer_loc_conf_t *conf = child;

    ngx_http_core_loc_conf_t  *clcf;

    ngx_conf_merge_msec_value(conf->timeout, prev->timeout, 600000);
    ngx_conf_merge_msec_value(conf->ping, prev->ping, 0);
    ngx_conf_merge_uint_value(conf->max_tokens, prev->max_tokens, 0);
    ngx_conf_merge_size_value(conf->buffer_size, prev->buffer_size, 4096);
    ngx_conf_merge_value(conf->ignore_client_abort,
                         prev->ignore_client_abort, 0);
    ngx_conf_merge_str_value(conf->fallback, prev->fallback, "");

    if (conf->scope == NULL) {
        conf->scope = prev->scope;
    }

    if (conf->fair_key == NULL) {
        conf->fair_key = prev->fair_key;
    }

    if (conf->priority == NULL) {
        conf->priority = prev->priority;
    }

    if (conf->limits == NULL) {
        conf->limits = prev->limits;
    }

    if (conf->deadline == NULL) {
        conf->deadline = prev->deadline;
    }

    if (conf->classify == NULL) {
        conf->classify = prev->classify;
    }

    if (conf->buffer_size < 512 || conf->buffer_size > 1024 * 1024) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"infer_buffer_size\" must be from 512 to 1m");
        return NGX_CONF_ERROR;
    }

    /* like proxy_pass, infer_pass is not inherited by another location, but
     * by `if` and `limit_except` inside its own */
    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (conf->pass == NGX_CONF_UNSET) {
        conf->pass = 0;

        if ((clcf->noname || clcf->lmt_excpt) && prev->pass == 1) {
            conf->pass = 1;
            conf->models = prev->models;
            conf->input = prev->input;
            clcf->handler = ngx_http_infer_handler;
        }
    }

    return NGX_CONF_OK;
}
