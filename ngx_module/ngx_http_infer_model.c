/*
 * The infer_model block: reads and bounds every value, and writes the text
 * that supervisor and workers are configured with.  What the model file holds
 * is checked elsewhere (ngx_http_infer_check.c).
 */

#include "ngx_module/ngx_http_infer.h"

#include <sys/un.h>


typedef struct ngx_http_infer_item_s  ngx_http_infer_item_t;

struct ngx_http_infer_item_s {
    ngx_str_t     name;
    char       *(*set)(ngx_conf_t *cf, ngx_http_infer_item_t *item,
                    ngx_http_infer_model_t *model);
    size_t        offset;
    ngx_int_t     min;
    ngx_int_t     max;
};


static char *ngx_http_infer_model_item(ngx_conf_t *cf, ngx_command_t *dummy,
    void *conf);
static char *ngx_http_infer_item_number(ngx_conf_t *cf,
    ngx_http_infer_item_t *item, ngx_http_infer_model_t *model);
static char *ngx_http_infer_item_usec(ngx_conf_t *cf,
    ngx_http_infer_item_t *item, ngx_http_infer_model_t *model);
static char *ngx_http_infer_item_flag(ngx_conf_t *cf,
    ngx_http_infer_item_t *item, ngx_http_infer_model_t *model);
static char *ngx_http_infer_item_path(ngx_conf_t *cf,
    ngx_http_infer_item_t *item, ngx_http_infer_model_t *model);
static char *ngx_http_infer_item_word(ngx_conf_t *cf,
    ngx_http_infer_item_t *item, ngx_http_infer_model_t *model);
static char *ngx_http_infer_item_queue(ngx_conf_t *cf,
    ngx_http_infer_item_t *item, ngx_http_infer_model_t *model);
static char *ngx_http_infer_item_kv(ngx_conf_t *cf,
    ngx_http_infer_item_t *item, ngx_http_infer_model_t *model);
static char *ngx_http_infer_item_null(ngx_conf_t *cf,
    ngx_http_infer_item_t *item, ngx_http_infer_model_t *model);
static ngx_int_t ngx_http_infer_model_text(ngx_conf_t *cf,
    ngx_http_infer_model_t *model);
static ngx_int_t ngx_http_infer_model_socket(ngx_conf_t *cf,
    ngx_http_infer_main_conf_t *imcf, ngx_http_infer_model_t *model);


#define at(field)  offsetof(ngx_http_infer_model_t, field)

/* The bounds are those of worker/wrk_conf.c and shm/shr_layout.h. */
static ngx_http_infer_item_t  ngx_http_infer_items[] = {
    { ngx_string("file"), ngx_http_infer_item_path, at(file), 0, 0 },
    { ngx_string("workers"), ngx_http_infer_item_number, at(workers),
      1, SHR_WORKERS_MAX },
    { ngx_string("threads"), ngx_http_infer_item_number, at(threads), 1, 64 },
    { ngx_string("context"), ngx_http_infer_item_number, at(context),
      0, 1 << 20 },
    { ngx_string("batch"), ngx_http_infer_item_number, at(batch), 1, 65536 },
    { ngx_string("batch_delay"), ngx_http_infer_item_usec,
      at(batch_delay_us), 0, 1000000 },
    { ngx_string("sequences"), ngx_http_infer_item_number, at(sequences),
      1, 1024 },
    { ngx_string("kv_cache"), ngx_http_infer_item_kv, at(kv_bytes),
      1 << 20, (ngx_int_t) 1 << 40 },
    { ngx_string("prefix_cache"), ngx_http_infer_item_flag,
      at(prefix_cache), 0, 0 },
    { ngx_string("speculate"), ngx_http_infer_item_word, at(speculate), 0, 0 },
    { ngx_string("queue"), ngx_http_infer_item_queue, 0, 0, 65536 },
    { ngx_string("cache"), ngx_http_infer_item_path, at(cache), 0, 0 },
    { ngx_string("template"), ngx_http_infer_item_path, at(template), 0, 0 },
    { ngx_string("precision"), ngx_http_infer_item_word, at(precision), 0, 0 },
    { ngx_string("quantize"), ngx_http_infer_item_word, at(quantize), 0, 0 },
    { ngx_string("null"), ngx_http_infer_item_null, 0, 0, 0 },
    { ngx_string("nice"), ngx_http_infer_item_number, at(nice), 0, 19 },
    { ngx_string("spin"), ngx_http_infer_item_usec, at(spin_us), 0, 1000000 },
    { ngx_string("affinity"), ngx_http_infer_item_word, at(affinity), 0, 0 },
    { ngx_string("io_uring"), ngx_http_infer_item_flag, at(io_uring), 0, 0 },
    { ngx_string("sandbox"), ngx_http_infer_item_flag, at(sandbox), 0, 0 },
    { ngx_string("slots"), ngx_http_infer_item_number, at(slots),
      SHR_SLOTS_MIN, SHR_SLOTS_MAX },
    { ngx_string("payload"), ngx_http_infer_item_number, at(payload),
      SHR_CHUNKS_MIN * SHR_CHUNK_BYTES,
      (ngx_int_t) SHR_CHUNKS_MAX * SHR_CHUNK_BYTES },
    { ngx_string("socket"), ngx_http_infer_item_path, at(socket), 0, 0 },
    { ngx_null_string, NULL, 0, 0, 0 }
};

#undef at


static void
ngx_http_infer_model_defaults(ngx_http_infer_model_t *model)
{
    model->workers = 1;
    model->threads = NGX_CONF_UNSET_UINT;
    model->batch = 512;
    model->sequences = 64;
    model->prefix_cache = 1;
    model->queue_requests = 256;
    model->queue_tokens = 65536;
    model->queue_timeout = 30000;
    model->null_tokens = 64;
    model->nice = NGX_CONF_UNSET_UINT;
    model->io_uring = 1;
    model->sandbox = 1;
    model->slots = 512;
    model->payload = 16 * 1024 * 1024;

    ngx_str_set(&model->precision, "default");
    ngx_str_set(&model->quantize, "-");
    ngx_str_set(&model->kv_type, "f16");
    ngx_str_set(&model->speculate, "off");
    ngx_str_set(&model->affinity, "-");
    ngx_str_set(&model->template, "-");
}


static ngx_int_t
ngx_http_infer_model_name_check(ngx_str_t *name)
{
    u_char      ch;
    ngx_uint_t  i;

    if (name->len == 0 || name->len > NGX_HTTP_INFER_NAME_MAX) {
        return NGX_ERROR;
    }

    for (i = 0; i < name->len; i++) {
        ch = name->data[i];

        if ((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z')
            || (ch >= '0' && ch <= '9')
            || (i != 0 && ngx_strchr("._:-", ch) != NULL))
        {
            continue;
        }

        return NGX_ERROR;
    }

    return NGX_OK;
}


char *
ngx_http_infer_model(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_infer_main_conf_t *imcf = conf;

    char                     *rv;
    ngx_str_t                *value;
    ngx_conf_t                save;
    ngx_http_infer_model_t   *model, **slot;

    value = cf->args->elts;

    if (ngx_http_infer_model_name_check(&value[1]) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"infer_model\" name \"%V\" must be 1 to %d "
                           "letters, digits or \"._:-\"",
                           &value[1], NGX_HTTP_INFER_NAME_MAX);
        return NGX_CONF_ERROR;
    }

    if (ngx_http_infer_model_find(imcf, &value[1]) != NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate \"infer_model\" \"%V\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    if (imcf->models.nelts == NGX_HTTP_INFER_MODELS_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "more than %d \"infer_model\" blocks",
                           NGX_HTTP_INFER_MODELS_MAX);
        return NGX_CONF_ERROR;
    }

    model = ngx_pcalloc(cf->pool, sizeof(ngx_http_infer_model_t));
    slot = ngx_array_push(&imcf->models);
    if (model == NULL || slot == NULL) {
        return NGX_CONF_ERROR;
    }

    *slot = model;
    model->name = value[1];
    model->index = imcf->models.nelts - 1;
    model->conf_file = cf->conf_file->file.name.data;
    model->line = cf->conf_file->line;
    ngx_http_infer_model_defaults(model);

    save = *cf;
    cf->handler = ngx_http_infer_model_item;
    cf->handler_conf = (char *) model;
    rv = ngx_conf_parse(cf, NULL);
    *cf = save;

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (model->file.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"infer_model\" \"%V\" has no \"file\"",
                           &model->name);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


ngx_http_infer_model_t *
ngx_http_infer_model_find(ngx_http_infer_main_conf_t *imcf, ngx_str_t *name)
{
    ngx_uint_t                i;
    ngx_http_infer_model_t  **models;

    models = imcf->models.elts;

    for (i = 0; i < imcf->models.nelts; i++) {
        if (models[i]->name.len == name->len
            && ngx_strncmp(models[i]->name.data, name->data, name->len) == 0)
        {
            return models[i];
        }
    }

    return NULL;
}


/* Called for each line of the block. */
static char *
ngx_http_infer_model_item(ngx_conf_t *cf, ngx_command_t *dummy, void *conf)
{
    ngx_http_infer_model_t *model = conf;

    ngx_str_t              *value;
    ngx_http_infer_item_t  *item;

    value = cf->args->elts;

    for (item = ngx_http_infer_items; item->name.len != 0; item++) {

        if (item->name.len != value[0].len
            || ngx_strcmp(item->name.data, value[0].data) != 0)
        {
            continue;
        }

        if (item->set != ngx_http_infer_item_queue
            && item->set != ngx_http_infer_item_kv
            && item->set != ngx_http_infer_item_null
            && cf->args->nelts != 2)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid number of arguments in \"%V\" "
                               "of \"infer_model\"", &value[0]);
            return NGX_CONF_ERROR;
        }

        return item->set(cf, item, model);
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "unknown directive \"%V\" in \"infer_model\"",
                       &value[0]);
    return NGX_CONF_ERROR;
}


static ngx_int_t
ngx_http_infer_number(ngx_conf_t *cf, char *what, ngx_str_t *value,
    ngx_int_t min, ngx_int_t max, ngx_uint_t *result)
{
    off_t  n;

    n = ngx_parse_offset(value);

    if (n < min || n > max) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" of \"%s\" in "
                           "\"infer_model\": it is a number from %i to %i",
                           value, what, min, max);
        return NGX_ERROR;
    }

    *result = (ngx_uint_t) n;

    return NGX_OK;
}


static char *
ngx_http_infer_item_number(ngx_conf_t *cf, ngx_http_infer_item_t *item,
    ngx_http_infer_model_t *model)
{
    ngx_str_t  *value;

    value = cf->args->elts;

    if (ngx_http_infer_number(cf, (char *) item->name.data, &value[1],
                              item->min, item->max,
                              (ngx_uint_t *) ((char *) model + item->offset))
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* A time with a unit, or 0: 50us, 5ms, 2s; in microseconds. */
static ngx_int_t
ngx_http_infer_usec(ngx_conf_t *cf, char *what, ngx_str_t *value,
    ngx_uint_t max, ngx_uint_t *result)
{
    size_t      unit;
    ngx_int_t   n;
    ngx_uint_t  scale;

    unit = value->len;

    while (unit != 0 && (value->data[unit - 1] < '0'
                         || value->data[unit - 1] > '9'))
    {
        unit--;
    }

    n = ngx_atoi(value->data, unit);
    scale = 0;

    switch (value->len - unit) {
    case 0:
        scale = n == 0 ? 1 : 0;
        break;
    case 1:
        scale = value->data[unit] == 's' ? 1000000 : 0;
        break;
    case 2:
        scale = ngx_strncmp(value->data + unit, "us", 2) == 0 ? 1
                : ngx_strncmp(value->data + unit, "ms", 2) == 0 ? 1000 : 0;
        break;
    }

    if (n == NGX_ERROR || scale == 0 || (ngx_uint_t) n > max / scale) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" of \"%s\" in "
                           "\"infer_model\": it is a time like 50us, 5ms "
                           "or 1s, at most %uis", value, what, max / 1000000);
        return NGX_ERROR;
    }

    *result = (ngx_uint_t) n * scale;

    return NGX_OK;
}


static char *
ngx_http_infer_item_usec(ngx_conf_t *cf, ngx_http_infer_item_t *item,
    ngx_http_infer_model_t *model)
{
    ngx_str_t  *value;

    value = cf->args->elts;

    if (ngx_http_infer_usec(cf, (char *) item->name.data, &value[1],
                            (ngx_uint_t) item->max,
                            (ngx_uint_t *) ((char *) model + item->offset))
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_infer_item_flag(ngx_conf_t *cf, ngx_http_infer_item_t *item,
    ngx_http_infer_model_t *model)
{
    ngx_str_t   *value;
    ngx_uint_t  *field;

    value = cf->args->elts;
    field = (ngx_uint_t *) ((char *) model + item->offset);

    if (ngx_strcmp(value[1].data, "on") == 0) {
        *field = 1;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "off") == 0) {
        *field = 0;
        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid value \"%V\" of \"%V\" in \"infer_model\": "
                       "it is \"on\" or \"off\"", &value[1], &value[0]);
    return NGX_CONF_ERROR;
}


static char *
ngx_http_infer_item_path(ngx_conf_t *cf, ngx_http_infer_item_t *item,
    ngx_http_infer_model_t *model)
{
    ngx_str_t   *value, *field;
    ngx_uint_t   i;

    value = cf->args->elts;
    field = (ngx_str_t *) ((char *) model + item->offset);

    for (i = 0; i < value[1].len; i++) {
        if (value[1].data[i] < ' ') {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "control character in \"%V\" of "
                               "\"infer_model\"", &value[0]);
            return NGX_CONF_ERROR;
        }
    }

    *field = value[1];

    if (field == &model->file) {
        model->conf_file = cf->conf_file->file.name.data;
        model->line = cf->conf_file->line;
    }

    if (field == &model->cache && ngx_strcmp(field->data, "off") == 0) {
        return NGX_CONF_OK;
    }

    if (ngx_conf_full_name(cf->cycle, field, 0) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    model->external = model->socket.len != 0;

    return NGX_CONF_OK;
}


static ngx_uint_t
ngx_http_infer_is_precision(ngx_str_t *word)
{
    ngx_uint_t          i;
    static const char  *names[] = { "default", "exact", "float32", "bfloat16",
                                    "int8" };

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (ngx_strcmp(word->data, names[i]) == 0) {
            return 1;
        }
    }

    return 0;
}


/* A word whose letters are bounded here and meaning in the worker. */
static char *
ngx_http_infer_item_word(ngx_conf_t *cf, ngx_http_infer_item_t *item,
    ngx_http_infer_model_t *model)
{
    ngx_str_t   *value, *field;
    ngx_uint_t   i;

    value = cf->args->elts;
    field = (ngx_str_t *) ((char *) model + item->offset);

    if (field == &model->precision
        && !ngx_http_infer_is_precision(&value[1]))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" of \"precision\" in "
                           "\"infer_model\": it is \"default\", \"exact\", "
                           "\"float32\", \"bfloat16\" or \"int8\"",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    /* which types there are, the worker knows: it is asked before a start */
    for (i = 0; field == &model->quantize && i < value[1].len; i++) {
        if (value[1].len > 15
            || ngx_strchr("abcdefghijklmnopqrstuvwxyz_0123456789",
                          value[1].data[i]) == NULL)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid value \"%V\" of \"quantize\" in "
                               "\"infer_model\": it is a type like q8_0",
                               &value[1]);
            return NGX_CONF_ERROR;
        }
    }

    if (field == &model->speculate
        && ngx_strcmp(value[1].data, "prompt_lookup") != 0
        && ngx_strcmp(value[1].data, "off") != 0)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" of \"speculate\" in "
                           "\"infer_model\": it is \"prompt_lookup\" or "
                           "\"off\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    for (i = 0; field == &model->affinity && i < value[1].len; i++) {
        if (ngx_strchr("0123456789,-", value[1].data[i]) == NULL) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid value \"%V\" of \"affinity\" in "
                               "\"infer_model\": it is a list of CPUs "
                               "like 0,2,4-7", &value[1]);
            return NGX_CONF_ERROR;
        }
    }

    *field = value[1];

    return NGX_CONF_OK;
}


static char *
ngx_http_infer_item_bad(ngx_conf_t *cf, ngx_str_t *value)
{
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\" in \"infer_model\"", value);
    return NGX_CONF_ERROR;
}


/* queue N [tokens=N] [timeout=T] */
static char *
ngx_http_infer_item_queue(ngx_conf_t *cf, ngx_http_infer_item_t *item,
    ngx_http_infer_model_t *model)
{
    ngx_str_t   *value, s;
    ngx_int_t    ms;
    ngx_uint_t   i;

    value = cf->args->elts;

    if (cf->args->nelts < 2
        || ngx_http_infer_number(cf, "queue", &value[1], item->min, item->max,
                                 &model->queue_requests) != NGX_OK)
    {
        return cf->args->nelts < 2 ? ngx_http_infer_item_bad(cf, &value[0])
                                   : NGX_CONF_ERROR;
    }

    for (i = 2; i < cf->args->nelts; i++) {
        s = value[i];

        if (ngx_strncmp(s.data, "tokens=", 7) == 0) {
            s.data += 7;
            s.len -= 7;

            if (ngx_http_infer_number(cf, "queue tokens", &s, 0, 1 << 30,
                                      &model->queue_tokens) != NGX_OK)
            {
                return NGX_CONF_ERROR;
            }

        } else if (ngx_strncmp(s.data, "timeout=", 8) == 0) {
            s.data += 8;
            s.len -= 8;
            ms = ngx_parse_time(&s, 0);

            if (ms == NGX_ERROR || ms == 0) {
                return ngx_http_infer_item_bad(cf, &value[i]);
            }

            model->queue_timeout = (ngx_msec_t) ms;

        } else {
            return ngx_http_infer_item_bad(cf, &value[i]);
        }
    }

    return NGX_CONF_OK;
}


/* kv_cache [size] [f16|q8_0] */
static char *
ngx_http_infer_item_kv(ngx_conf_t *cf, ngx_http_infer_item_t *item,
    ngx_http_infer_model_t *model)
{
    ngx_str_t   *value;
    ngx_uint_t   i, word, words, sizes;

    value = cf->args->elts;
    words = sizes = 0;

    for (i = 1; i < cf->args->nelts; i++) {
        word = ngx_strcmp(value[i].data, "f16") == 0
               || ngx_strcmp(value[i].data, "q8_0") == 0;
        words += word;
        sizes += !word;

        if (words > 1 || sizes > 1) {
            return ngx_http_infer_item_bad(cf, &value[i]);
        }

        if (word) {
            model->kv_type = value[i];

        } else if (ngx_http_infer_number(cf, "kv_cache", &value[i], item->min,
                                         item->max, &model->kv_bytes)
                   != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    return words + sizes == 0 ? ngx_http_infer_item_bad(cf, &value[0])
                              : NGX_CONF_OK;
}


/* null [tokens=N] [delay=T] */
static char *
ngx_http_infer_item_null(ngx_conf_t *cf, ngx_http_infer_item_t *item,
    ngx_http_infer_model_t *model)
{
    ngx_str_t   *value, s;
    ngx_int_t    rc;
    ngx_uint_t   i;

    value = cf->args->elts;
    model->null = 1;

    for (i = 1; i < cf->args->nelts; i++) {
        s = value[i];

        if (ngx_strncmp(s.data, "tokens=", 7) == 0) {
            s.data += 7;
            s.len -= 7;
            rc = ngx_http_infer_number(cf, "null tokens", &s, 0, 1 << 20,
                                       &model->null_tokens);

        } else if (ngx_strncmp(s.data, "delay=", 6) == 0) {
            s.data += 6;
            s.len -= 6;
            rc = ngx_http_infer_usec(cf, "null delay", &s, 60000000,
                                     &model->null_delay_us);

        } else {
            return ngx_http_infer_item_bad(cf, &value[i]);
        }

        if (rc != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


/* Called when all of the configuration is known. */
ngx_int_t
ngx_http_infer_model_finish(ngx_conf_t *cf, ngx_http_infer_main_conf_t *imcf,
    ngx_http_infer_model_t *model)
{
    if (model->nice == NGX_CONF_UNSET_UINT) {
        /* without a model there is nothing to compute beside nginx */
        model->nice = model->null ? 0 : 10;
    }

    if (model->threads == NGX_CONF_UNSET_UINT) {
        model->threads = ngx_max((ngx_uint_t) ngx_ncpu / model->workers, 1);
        model->threads = ngx_min(model->threads, 8);
    }

    /* the folder of the sockets is ours alone; another's pool may not see it */
    if (model->cache.data == NULL) {
        if (model->external) {
            ngx_str_set(&model->cache, "off");
        } else {
            model->cache = imcf->run_path->name;
        }
    }

    /* powers of two and whole chunks are what the rings need */
    while (model->slots & (model->slots - 1)) {
        model->slots += model->slots & -model->slots;
    }

    ngx_http_infer_stamp(model);

    if (ngx_http_infer_model_text(cf, model) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_infer_stamp_names(model);

    return ngx_http_infer_model_socket(cf, imcf, model);
}


static ngx_int_t
ngx_http_infer_model_text(ngx_conf_t *cf, ngx_http_infer_model_t *model)
{
    u_char  *p, *last;

    p = ngx_pnalloc(cf->pool, SHR_CTL_TEXT_MAX);
    if (p == NULL) {
        return NGX_ERROR;
    }

    model->text.data = p;
    last = p + SHR_CTL_TEXT_MAX;

    p = ngx_slprintf(p, last,
                     "name %V\nfile %V\nworkers %ui\nthreads %ui\n"
                     "context %ui\nbatch %ui\nbatch_delay_us %ui\n"
                     "sequences %ui\nkv_bytes %ui\n"
                     "prefix_cache %ui\nspeculate %V\nqueue_requests %ui\n"
                     "queue_tokens %ui\ncache %V\nprecision %V\nkv_type %V\n",
                     &model->name, &model->file, model->workers,
                     model->threads, model->context, model->batch,
                     model->batch_delay_us, model->sequences,
                     model->kv_bytes, model->prefix_cache,
                     &model->speculate, model->queue_requests,
                     model->queue_tokens, &model->cache, &model->precision,
                     &model->kv_type);
    p = ngx_slprintf(p, last,
                     "null %ui\nnull_delay_us %ui\nnull_tokens %ui\n"
                     "template %V\nquantize %V\nnice %ui\nspin_us %ui\n"
                     "affinity %V\nio_uring %ui\nsandbox %ui\n"
                     "stamp %016xL\n",
                     model->null, model->null_delay_us, model->null_tokens,
                     &model->template, &model->quantize, model->nice,
                     model->spin_us, &model->affinity, model->io_uring,
                     model->sandbox, model->stamp);

    if (p == last) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "the paths of \"infer_model\" \"%V\" are too long: its "
                      "values must fit into %d bytes in %s:%ui", &model->name,
                      SHR_CTL_TEXT_MAX - 1, model->conf_file, model->line);
        return NGX_ERROR;
    }

    model->text.len = (size_t) (p - model->text.data);

    return NGX_OK;
}


/* Where the pool's supervisor listens: the name tells people whose it is, the
 * hash keeps different configurations apart. */
static ngx_int_t
ngx_http_infer_model_socket(ngx_conf_t *cf, ngx_http_infer_main_conf_t *imcf,
    ngx_http_infer_model_t *model)
{
    u_char      *p;
    size_t       len, max;
    ngx_str_t    dir, name;

    max = sizeof(((struct sockaddr_un *) NULL)->sun_path) - 1;

    if (!model->external) {
        dir = imcf->run_path->name;
        name = model->name;
        name.len = ngx_min(name.len, 24);
        len = dir.len + sizeof("/-.sock") - 1 + name.len + 16;

        p = ngx_pnalloc(cf->pool, len + 1);
        if (p == NULL) {
            return NGX_ERROR;
        }

        model->socket.data = p;
        p = ngx_sprintf(p, "%V/%V-%016xL.sock%Z", &dir, &name, model->hash);
        model->socket.len = (size_t) (p - model->socket.data) - 1;
    }

    if (model->socket.len > max) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "the control socket \"%V\" of \"infer_model\" \"%V\" "
                      "has a path longer than %uz bytes: set a shorter %s "
                      "in %s:%ui", &model->socket, &model->name, max,
                      model->external ? "\"socket\"" : "\"infer_run_path\"",
                      model->conf_file, model->line);
        return NGX_ERROR;
    }

    return NGX_OK;
}
