/*
 * Opens what a configuration names.  The memory plan in one place: weights as
 * the file has them, keys and values up to kv_bytes (512 MiB unless told), and
 * a context no longer than that can hold.
 */

#include "worker/wrk_model_int.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/shr_layout.h"
#include "worker/wrk_cache.h"
#include "worker/wrk_null.h"


#define SPECULATE_ROWS  16u     /* of logits: all of one sequence's guesses */
#define CONTEXT_STEP  64u       /* a derived context is a multiple of this */


static int open_tokenizer(wrk_model_t *m, const wrk_conf_t *conf,
    const char *image, char *err);
static int open_template(wrk_model_t *m, const wrk_conf_t *conf, char *err);
static int read_template(const char *path, char **text, size_t *len,
    char *err);
static int open_engine(wrk_model_t *m, const wrk_conf_t *conf,
    uint32_t worker, char *err);
static int open_weights(wrk_model_t *m, const wrk_conf_t *conf, int encoder,
    int prepared_fd, void (*settle)(const wrk_conf_t *conf), char *err);
static int open_null(wrk_model_t *m, const wrk_conf_t *conf, char *err);
static void plan(const wrk_conf_t *conf, const eng_info_t *info,
    eng_ctx_opts_t *co);


int
wrk_model_open(wrk_model_t *m, const wrk_conf_t *conf, uint32_t worker,
    int prepared_fd, const char *tok_image,
    void (*settle)(const wrk_conf_t *conf), char err[WRK_MODEL_ERR_MAX])
{
    int  rc, encoder;

    memset(m, 0, sizeof(*m));
    encoder = wrk_model_is_encoder(conf);

    rc = !conf->null_engine
         && open_weights(m, conf, encoder, prepared_fd, settle, err) != 0;
    if (rc == 0) {
        rc = open_tokenizer(m, conf, tok_image, err) != 0
             || (!encoder && open_template(m, conf, err) != 0);
    }
    if (rc == 0 && settle != NULL) {
        settle(conf);
    }
    if (rc == 0) {
        rc = encoder ? wrk_model_enc_engine(m, conf, worker, err)
             : conf->null_engine ? open_null(m, conf, err)
                                 : open_engine(m, conf, worker, err);
    }
    if (rc != 0) {
        wrk_model_close(m);
        return -1;
    }
    return 0;
}


void
wrk_model_close(wrk_model_t *m)
{
    if (m->has_eng) {
        eng_destroy(&m->eng);
        m->has_eng = 0;
    }
    if (m->model != NULL) {
        eng_model_close(m->model);
    }
    wrk_eeng_close(&m->eeng);
    if (m->enc_model != NULL) {
        enc_model_close(m->enc_model);
    }
    if (m->tmpl != NULL) {
        chat_free(m->tmpl);
    }
    if (m->tok != NULL) {
        tok_close(m->tok);
    }
    memset(m, 0, sizeof(*m));
}


void
wrk_model_park(wrk_model_t *m)
{
    if (m->has_eng) {
        eng_park(&m->eng);
    }
    if (m->eeng.ops != NULL) {
        m->eeng.ops->park(m->eeng.ctx);
    }
}


int
wrk_model_computes(const wrk_model_t *m)
{
    return m->model != NULL || m->enc_model != NULL;
}


/* With a cache folder the tables are kept there, named by the source's path;
 * the image itself says whether it fits the source. */
static int
open_tokenizer(wrk_model_t *m, const wrk_conf_t *conf, const char *image,
    char *err)
{
    int        rc;
    char       cached[WRK_CONF_PATH_MAX + 64];
    tok_err_t  te;

    te.msg[0] = '\0';

    if (conf->cache[0] != '\0') {
        snprintf(cached, sizeof(cached), "%s/%016" PRIx64 ".tok", conf->cache,
                 shr_hash64(conf->file, strlen(conf->file)));
        image = cached;
        (void) utimensat(AT_FDCWD, cached, NULL, AT_SYMLINK_NOFOLLOW);
    }
    rc = image != NULL ? tok_open_cached(&m->tok, conf->file, image, &te)
                       : tok_open(&m->tok, conf->file, &te);

    if (rc != TOK_OK) {
        m->tok = NULL;
        return wrk_model_fail(err, "tokenizer: %s", te.msg);
    }
    return 0;
}


static int
has_token(void *data, const char *token)
{
    return tok_token_to_id(data, token, strlen(token)) != TOK_NO_ID;
}


/* The configured one, else the file's own, else the one whose markers the
 * vocabulary has, else ChatML. */
static int
open_template(wrk_model_t *m, const wrk_conf_t *conf, char *err)
{
    char        *text = NULL;
    size_t       len = 0;
    tok_str_t    own;
    chat_err_t   ce;

    if (conf->template_path[0] != '\0') {
        if (read_template(conf->template_path, &text, &len, err) != 0) {
            return -1;
        }
        m->tmpl = chat_compile(text, len, &ce);
        free(text);

    } else {
        own = tok_chat_template(m->tok);

        if (own.len == 0) {
            own.ptr = chat_builtin(has_token, m->tok);
            own.len = own.ptr != NULL ? strlen(own.ptr) : 0;
        }

        m->tmpl = own.len > 0 ? chat_compile(own.ptr, own.len, &ce)
                              : chat_compile(NULL, 0, &ce);
    }

    if (m->tmpl == NULL) {
        return wrk_model_fail(err, "chat template %s, line %u: %s",
                              conf->template_path[0] != '\0'
                              ? conf->template_path
                              : "of the model file (another one can be "
                                "configured)",
                              ce.line, ce.text);
    }
    return 0;
}


static int
read_template(const char *path, char **text, size_t *len, char *err)
{
    int          fd;
    ssize_t      n;
    struct stat  st;

    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0) {
        n = errno;
        if (fd >= 0) {
            close(fd);
        }
        return wrk_model_fail(err, "chat template %s: %s", path,
                              strerror((int) n));
    }
    if (!S_ISREG(st.st_mode) || st.st_size <= 0
        || st.st_size > CHAT_TEMPLATE_BYTES_MAX)
    {
        close(fd);
        return wrk_model_fail(err, "chat template %s is no regular file of 1 "
                              "to %d bytes", path, CHAT_TEMPLATE_BYTES_MAX);
    }

    *text = malloc((size_t) st.st_size);
    if (*text == NULL) {
        close(fd);
        return wrk_model_fail(err, "no memory for the chat template");
    }

    *len = 0;
    while (*len < (size_t) st.st_size) {
        n = read(fd, *text + *len, (size_t) st.st_size - *len);
        if (n <= 0) {
            break;
        }
        *len += (size_t) n;
    }
    close(fd);

    if (*len != (size_t) st.st_size) {
        free(*text);
        *text = NULL;
        return wrk_model_fail(err, "chat template %s cannot be read", path);
    }
    return 0;
}


static void
model_options(const wrk_conf_t *conf, int prepared_fd, eng_model_opts_t *mo)
{
    eng_model_opts_t  init = ENG_MODEL_OPTS_INIT;

    *mo = init;
    mo->threads = conf->threads;
    mo->precision = conf->precision == WRK_PREC_EXACT ? ENG_PREC_EXACT
                                                      : ENG_PREC_INT8;
    mo->kv_type = conf->kv_q8 ? ENG_KV_Q8_0 : ENG_KV_F16;
    mo->cache_dir = conf->cache[0] != '\0' ? conf->cache : NULL;
    mo->prepared_fd = prepared_fd;
    mo->quantize = conf->quantize[0] != '\0' ? conf->quantize : NULL;
}


/*
 * The context that is served and the bytes of its keys and values.  A context
 * that was asked for is given (one sequence of it must fit); a derived one is
 * cut to what the bytes can hold.
 */
static void
plan(const wrk_conf_t *conf, const eng_info_t *info, eng_ctx_opts_t *co)
{
    uint64_t        kv, fit, one;
    eng_ctx_opts_t  init = ENG_CTX_OPTS_INIT;

    *co = init;
    co->max_seqs = conf->sequences;
    co->max_batch_tokens = conf->batch < ENG_BATCH_MAX ? conf->batch
                                                       : ENG_BATCH_MAX;
    co->threads = conf->threads;

    if (conf->speculate) {
        /* few sequences, with rows for their guesses */
        co->max_logits = conf->sequences > SPECULATE_ROWS ? conf->sequences
                                                          : SPECULATE_ROWS;
    }

    kv = conf->kv_bytes != 0 ? conf->kv_bytes : WRK_KV_BYTES_DEFAULT;

    if (conf->context != 0) {
        co->ctx_len = conf->context;
        one = (uint64_t) (conf->context + CONTEXT_STEP)
              * info->kv_bytes_per_token;
        if (conf->kv_bytes == 0 && kv < one) {
            kv = one;
        }

    } else if (info->kv_bytes_per_token != 0) {
        fit = kv / info->kv_bytes_per_token;
        if (fit < info->ctx_train) {
            co->ctx_len = (uint32_t) fit / CONTEXT_STEP * CONTEXT_STEP;
            co->ctx_len = co->ctx_len == 0 ? CONTEXT_STEP : co->ctx_len;
        } else {
            co->ctx_len = info->ctx_train;
        }
    }
    co->kv_bytes = kv;
}


int
wrk_model_cpus(const wrk_conf_t *conf, uint32_t worker, int *cpus)
{
    uint32_t  i, first;

    assert(conf->threads <= ENG_THREADS_MAX);

    if (conf->ncpus == 0) {
        return 0;
    }
    first = conf->ncpus >= conf->workers * conf->threads
            ? worker * conf->threads : 0;
    for (i = 0; i < conf->threads; i++) {
        cpus[i] = conf->cpus[(first + i) % conf->ncpus];
    }
    return 1;
}


/* What must settle before weights are packed: the engine knows when. */
typedef struct {
    void              (*settle)(const wrk_conf_t *conf);
    const wrk_conf_t   *conf;
    int                 packed;
} packing_t;


static void
before_pack(void *arg)
{
    packing_t  *p = arg;

    p->packed = 1;
    if (p->settle != NULL) {
        p->settle(p->conf);
    }
}


static int
open_weights(wrk_model_t *m, const wrk_conf_t *conf, int encoder,
    int prepared_fd, void (*settle)(const wrk_conf_t *conf), char *err)
{
    packing_t         packing = { settle, conf, 0 };
    eng_err_t         ee;
    eng_model_opts_t  mo;

    model_options(conf, prepared_fd, &mo);
    mo.before_pack = before_pack;
    mo.before_pack_arg = &packing;

    if (encoder) {
        if (wrk_model_enc_weights(m, conf, prepared_fd, before_pack,
                                  &packing, err) != 0)
        {
            return -1;
        }

    } else if (eng_model_open(conf->file, &mo, &m->model, &ee) != ENG_OK) {
        m->model = NULL;
        return wrk_model_fail(err, "%s", ee.text);
    }
    if (packing.packed && conf->cache[0] != '\0') {
        wrk_cache_tidy(conf->cache, WRK_CACHE_FILES_MAX);
    }
    return 0;
}


static int
open_engine(wrk_model_t *m, const wrk_conf_t *conf, uint32_t worker,
    char *err)
{
    int                cpus[ENG_THREADS_MAX];
    eng_err_t          ee;
    eng_ctx_opts_t     co;
    const eng_info_t  *info;

    info = eng_model_info(m->model);
    plan(conf, info, &co);
    co.cpus = wrk_model_cpus(conf, worker, cpus) ? cpus : NULL;

    if (eng_create(m->model, &co, &m->eng, &ee) != ENG_OK) {
        return wrk_model_fail(err, "%s", ee.text);
    }
    m->has_eng = 1;
    m->kv_page_bytes = info->kv_bytes_per_token * m->eng.limits.page_tokens;

    snprintf(m->summary, sizeof(m->summary), "%s, %" PRIu64 " M parameters, "
             "weights %" PRIu64 " MiB (%s), keys and values up to %" PRIu64
             " MiB, context %u", info->arch, info->parameters / 1000000,
             info->weight_bytes >> 20, eng_model_origin(m->model),
             (m->eng.limits.kv_pages * m->kv_page_bytes) >> 20,
             m->eng.limits.ctx_len);
    return 0;
}


static int
open_null(wrk_model_t *m, const wrk_conf_t *conf, char *err)
{
    int              rc;
    wrk_null_opts_t  no;

    no.tokens = conf->null_tokens;
    no.delay_us = conf->null_delay_us;
    no.sequences = conf->sequences;
    no.context = conf->context;
    no.batch = conf->batch < ENG_BATCH_MAX ? conf->batch : ENG_BATCH_MAX;

    rc = wrk_null_create(&no, m->tok, &m->eng);
    if (rc != ENG_OK) {
        return wrk_model_fail(err, "the null engine cannot be made (%d)", rc);
    }
    m->has_eng = 1;
    snprintf(m->summary, sizeof(m->summary), "null engine, %u tokens, %u us "
             "a step, context %u", conf->null_tokens, conf->null_delay_us,
             m->eng.limits.ctx_len);
    return 0;
}


static int
check_engine(const wrk_conf_t *conf, char *out, size_t cap, char *err)
{
    eng_err_t         ee;
    eng_info_t        info;
    eng_ctx_opts_t    co = ENG_CTX_OPTS_INIT;
    eng_model_opts_t  mo;

    if (conf->precision > WRK_PREC_EXACT) {
        return wrk_model_fail(err, "%s is a model that generates: its "
                              "\"precision\" is \"default\" or \"exact\"",
                              conf->file);
    }
    model_options(conf, -1, &mo);
    co.ctx_len = CONTEXT_STEP;          /* first what a token takes */
    co.max_seqs = 1;
    if (eng_model_check(conf->file, &mo, &co, &info, &ee) != ENG_OK) {
        return wrk_model_fail(err, "%s", ee.text);
    }
    plan(conf, &info, &co);
    if (eng_model_check(conf->file, &mo, &co, &info, &ee) != ENG_OK) {
        return wrk_model_fail(err, "%s", ee.text);
    }

    snprintf(out, cap, "architecture %s\nparameters %" PRIu64
             "\nweights_bytes %" PRIu64 "\nkv_bytes %" PRIu64
             "\ncontext %u\nkind generate\n", info.arch, info.parameters,
             info.weight_bytes, info.kv_bytes, info.ctx_len);
    return 0;
}


int
wrk_model_check(const wrk_conf_t *conf, char *out, size_t cap,
    char err[WRK_MODEL_ERR_MAX])
{
    int          rc, encoder;
    wrk_model_t  m;

    memset(&m, 0, sizeof(m));

    encoder = wrk_model_is_encoder(conf);

    if (encoder) {
        rc = wrk_model_enc_check(conf, out, cap, err);
    } else if (conf->null_engine) {
        snprintf(out, cap, "architecture null\nparameters 0\nweights_bytes 0"
                 "\nkv_bytes 0\ncontext %u\nkind generate\n",
                 conf->context != 0 ? conf->context : WRK_NULL_CONTEXT);
        rc = 0;
    } else {
        rc = check_engine(conf, out, cap, err);
    }

    if (rc == 0) {
        rc = open_tokenizer(&m, conf, NULL, err);
    }
    if (rc == 0 && !encoder) {
        rc = open_template(&m, conf, err);
    }
    wrk_model_close(&m);
    return rc;
}


int
wrk_model_fail(char *err, const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    vsnprintf(err, WRK_MODEL_ERR_MAX, fmt, args);
    va_end(args);
    return -1;
}
