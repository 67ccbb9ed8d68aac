/*
 * The module's shared types and limits: configuration, the pools of a
 * configuration load (a generation), and the state of one request.
 *
 * Who runs what: the master parses the configuration and makes the generation;
 * the keeper (cache manager) attaches it to the pools; each nginx worker owns
 * one client end per pool and everything about its requests.
 */

#ifndef NGX_HTTP_INFER_H
#define NGX_HTTP_INFER_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_http.h>

#include "ngx_module/ngx_http_infer_keeper.h"
#include "shm/shr_client.h"
#include "shm/shr_ctl.h"
#include "shm/shr_error.h"
#include "shm/shr_region.h"


#define NGX_HTTP_INFER_MODELS_MAX   64
#define NGX_HTTP_INFER_NAME_MAX     63          /* bytes of a model's name */
#define NGX_HTTP_INFER_RETRIES      1           /* of a request that was lost */

#ifndef NGX_HTTP_INFER_VERSION
#define NGX_HTTP_INFER_VERSION      "0.1.0"
#endif

#ifndef NGX_HTTP_INFER_WORKER
#define NGX_HTTP_INFER_WORKER       "/usr/lib/nginx/nginx-infer-worker"
#endif

#define ngx_http_infer_kind_is(model, s)                                      \
    ((model)->kind.len == sizeof(s) - 1                                       \
     && ngx_memcmp((model)->kind.data, s, sizeof(s) - 1) == 0)

#define ngx_http_infer_literal(s)   (u_char *) s, sizeof(s) - 1


/* Whose words a request and its answer are in. */
typedef enum {
    NGX_HTTP_INFER_OPENAI = 0,                  /* the task says the rest */
    NGX_HTTP_INFER_EMBEDDINGS,                  /* OpenAI's */
    NGX_HTTP_INFER_EMBED,                       /* text-embeddings-inference */
    NGX_HTTP_INFER_SIMILARITY,
    NGX_HTTP_INFER_PREDICT,
    NGX_HTTP_INFER_RERANK,                      /* "texts" or "documents" */
    NGX_HTTP_INFER_CLASSIFY,                    /* v1's */
    NGX_HTTP_INFER_LABEL,                       /* nobody's: values kept */
    NGX_HTTP_INFER_GENERATE,                    /* text-generation-inference */
    NGX_HTTP_INFER_GENERATE_STREAM,
    NGX_HTTP_INFER_NAPIS
} ngx_http_infer_api_e;


/* One infer_model block. */
typedef struct {
    ngx_str_t                       name;
    ngx_str_t                       file;
    ngx_str_t                       cache;
    ngx_str_t                       template;
    ngx_str_t                       precision;
    ngx_str_t                       quantize;
    ngx_str_t                       kv_type;
    ngx_str_t                       affinity;
    ngx_str_t                       socket;     /* path, NUL-terminated */
    ngx_uint_t                      workers;
    ngx_uint_t                      threads;
    ngx_uint_t                      context;
    ngx_uint_t                      batch;
    ngx_uint_t                      batch_delay_us;
    ngx_uint_t                      sequences;
    ngx_uint_t                      kv_bytes;
    ngx_uint_t                      queue_requests;
    ngx_uint_t                      queue_tokens;
    ngx_msec_t                      queue_timeout;
    ngx_uint_t                      null;
    ngx_uint_t                      null_tokens;
    ngx_uint_t                      null_delay_us;
    ngx_uint_t                      nice;
    ngx_uint_t                      spin_us;
    ngx_uint_t                      prefix_cache;
    ngx_str_t                       speculate;
    ngx_uint_t                      io_uring;
    ngx_uint_t                      sandbox;
    ngx_uint_t                      slots;
    ngx_uint_t                      payload;    /* bytes, per nginx worker */
    unsigned                        external:1; /* socket is not ours */

    ngx_uint_t                      index;      /* in the main conf's array */
    time_t                          created;    /* mtime of the file */
    ngx_str_t                       kind;       /* what --check has said */
    ngx_str_t                       architecture;
    ngx_uint_t                      served;     /* tokens of a sequence */
    ngx_array_t                    *labels;     /* ngx_str_t; NULL: unknown */
    uint64_t                        stamp;      /* of the files, where */
    uint64_t                        content;    /* of the files, what */
    uint64_t                        hash;       /* of text */
    ngx_str_t                       text;       /* for supervisor and worker */
    u_char                          fingerprint[16];
    u_char                         *conf_file;
    ngx_uint_t                      line;       /* of `file` */
} ngx_http_infer_model_t;


/* What one nginx worker knows of one inference worker. */
typedef struct {
    uint32_t                        incarnation;
    uint32_t                        served;     /* incarnation seen ready */
    uint32_t                        retired;    /* incarnation that lied */
    uint32_t                        inflight;   /* of this nginx worker */
} ngx_http_infer_peer_t;


typedef struct ngx_http_infer_ctx_s  ngx_http_infer_ctx_t;
typedef struct ngx_http_infer_input_s  ngx_http_infer_input_t;

/* One model's regions in a generation; the lower part lives in each nginx
 * worker alone. */
typedef struct ngx_http_infer_pool_s  ngx_http_infer_pool_t;

struct ngx_http_infer_pool_s {
    ngx_http_infer_model_t         *model;
    ngx_http_infer_pool_t          *before;     /* serves until this is ready */
    ngx_http_infer_pool_t          *after;      /* whose `before` this is */
    shr_geom_t                      geom;
    int                            *client_fds;
    int                            *worker_fds;
    int                            *doorbells;
    void                          **client_maps;
    void                          **worker_maps;
    ngx_http_infer_keeper_t         keeper;

    shr_client_t                   *client;
    ngx_http_infer_ctx_t          **slots;
    ngx_http_infer_peer_t          *peers;
    ngx_msec_t                      rate_time;  /* drain rate: window start */
    uint64_t                        rate_ends;  /* answers at that time */
    ngx_uint_t                      rate_busy;  /* somebody waited then */
    uint64_t                        rate;       /* per 1024 seconds, or 0 */
    unsigned                        over:1;     /* has been seen ready */
};


typedef struct {
    uint64_t                        id[2];
    int                             lifeline[2];
    ngx_uint_t                      nclients;
    int                            *bells;      /* one per nginx worker */
    ngx_uint_t                      nmodels;    /* the first pools are theirs */
    ngx_uint_t                      npools;
    ngx_http_infer_pool_t          *pools;
    ngx_log_t                      *log;
} ngx_http_infer_generation_t;


typedef struct {
    ngx_array_t                     models;     /* ngx_http_infer_model_t * */
    ngx_array_t                     passes;     /* to be resolved */
    ngx_array_t                     limits;     /* ngx_http_infer_limit_t * */
    ngx_array_t                     classifies; /* infer_classify, all */
    ngx_str_t                       worker;
    ngx_path_t                     *run_path;
    ngx_http_infer_generation_t    *generation;
    ngx_int_t                       request_id; /* index, or NGX_ERROR */
} ngx_http_infer_main_conf_t;


typedef struct {
    ngx_array_t                    *models;     /* ngx_http_infer_model_t * */
    ngx_flag_t                      pass;       /* 0: off */
    ngx_msec_t                      timeout;
    ngx_msec_t                      ping;       /* 0: off */
    ngx_uint_t                      vllm;       /* names of metrics too */
    ngx_uint_t                      max_tokens;
    size_t                          buffer_size;
    ngx_flag_t                      ignore_client_abort;
    ngx_http_complex_value_t       *scope;
    ngx_http_complex_value_t       *fair_key;
    ngx_http_complex_value_t       *priority;
    ngx_http_complex_value_t       *deadline;
    ngx_array_t                    *limits;     /* NULL: as outside */
    ngx_str_t                       fallback;
    ngx_array_t                    *classify;   /* infer_classify's */
    ngx_http_infer_input_t         *input;      /* NULL: the body is it */
} ngx_http_infer_loc_conf_t;


extern ngx_module_t  ngx_http_infer_module;


/* model: the infer_model block; names and values checked as they are read. */
char *ngx_http_infer_model(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_http_infer_model_finish(ngx_conf_t *cf,
    ngx_http_infer_main_conf_t *imcf, ngx_http_infer_model_t *model);
ngx_http_infer_model_t *ngx_http_infer_model_find(
    ngx_http_infer_main_conf_t *imcf, ngx_str_t *name);

/* stamp: which files the model's are; sets created, stamp, content; then, of
 * the text that ends with the stamp's line, hash and fingerprint. */
void ngx_http_infer_stamp(ngx_http_infer_model_t *model);
void ngx_http_infer_stamp_names(ngx_http_infer_model_t *model);

/* check: asks the worker binary whether it would serve the model. */
ngx_int_t ngx_http_infer_check_model(ngx_conf_t *cf,
    ngx_http_infer_main_conf_t *imcf, ngx_http_infer_model_t *model);

/* pool: the generation of a cycle, made by the master, ended with the
 * cycle's memory. */
ngx_int_t ngx_http_infer_pool_init(ngx_cycle_t *cycle);
/* Makes this process the client `index` of all pools. */
ngx_int_t ngx_http_infer_pool_open(ngx_cycle_t *cycle,
    ngx_http_infer_generation_t *gen, ngx_uint_t index);

/* keeper: runs in the cache manager, or in the only process. */
ngx_msec_t ngx_http_infer_keeper_manager(void *data);
ngx_int_t ngx_http_infer_keeper_start(ngx_http_infer_main_conf_t *imcf);

/* event: wakes requests that have news. */
ngx_int_t ngx_http_infer_event_init(ngx_cycle_t *cycle,
    ngx_http_infer_generation_t *gen, ngx_uint_t index);
/* Looks again soon, without waiting for a bell. */
void ngx_http_infer_event_post(void);

/* status, metrics, variables */
ngx_int_t ngx_http_infer_metrics_init(ngx_cycle_t *cycle,
    ngx_http_infer_main_conf_t *imcf);
ngx_int_t ngx_http_infer_status_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_infer_metrics_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_infer_add_variables(ngx_conf_t *cf);

/* request */
ngx_int_t ngx_http_infer_handler(ngx_http_request_t *r);
/* The number that stands for a key (a scope, a share), chosen by clients
 * perhaps: none of them finds another's. */
uint64_t ngx_http_infer_key(ngx_str_t *name);
/* In the master, before workers: the secret that keys are named with. */
ngx_int_t ngx_http_infer_scope_init(ngx_cycle_t *cycle);
/* error: answers of nginx itself in our locations become JSON. */
ngx_int_t ngx_http_infer_error_filter_init(ngx_conf_t *cf);


#endif /* NGX_HTTP_INFER_H */
