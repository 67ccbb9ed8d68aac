/*
 * Asks the worker binary whether it would serve a model: `nginx -t` and every
 * reload run `nginx-infer-worker --check`, so that nginx itself never parses a
 * model file.  The verdict comes through a pipe, not as an exit status: in a
 * running master the SIGCHLD handler may reap the child before we do.
 */

#include "ngx_module/ngx_http_infer.h"

#include <poll.h>
#include <sys/wait.h>


#define NGX_HTTP_INFER_CHECK_MS     30000       /* in which we ran */
#define NGX_HTTP_INFER_CHECK_STEP   100
#define NGX_HTTP_INFER_CHECK_LIFE   600         /* s; of one whose nginx died */
#define NGX_HTTP_INFER_CHECK_BYTES  (96 * 1024) /* of the verdict */


typedef struct {
    ngx_pid_t   pid;
    int         in[2];                  /* configuration, to the child */
    int         out[2];                 /* verdict, from the child */
    ngx_uid_t   uid;
    ngx_gid_t   gid;
    ngx_uint_t  drop;                   /* become uid and gid first */
} ngx_http_infer_check_t;


static ngx_int_t ngx_http_infer_check_user(ngx_conf_t *cf,
    ngx_http_infer_check_t *check);
static ngx_int_t ngx_http_infer_check_spawn(ngx_conf_t *cf,
    ngx_http_infer_check_t *check, u_char *path);
static ngx_int_t ngx_http_infer_check_read(ngx_http_infer_check_t *check,
    u_char *buf, size_t *len);
static void ngx_http_infer_check_end(ngx_http_infer_check_t *check,
    ngx_uint_t kill_it);
static ngx_int_t ngx_http_infer_check_verdict(ngx_conf_t *cf,
    ngx_http_infer_main_conf_t *imcf, ngx_http_infer_model_t *model,
    u_char *buf, size_t len);


ngx_int_t
ngx_http_infer_check_model(ngx_conf_t *cf, ngx_http_infer_main_conf_t *imcf,
    ngx_http_infer_model_t *model)
{
    u_char                  *buf;
    size_t                   len;
    ngx_int_t                rc;
    ngx_http_infer_check_t   check;

    ngx_memzero(&check, sizeof(ngx_http_infer_check_t));

    buf = ngx_palloc(cf->temp_pool, NGX_HTTP_INFER_CHECK_BYTES);
    if (buf == NULL) {
        return NGX_ERROR;
    }

    if (ngx_http_infer_check_user(cf, &check) != NGX_OK
        || ngx_http_infer_check_spawn(cf, &check, imcf->worker.data) != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* at most 4096 bytes: they fit into the pipe, whether read or not */
    if (write(check.in[1], model->text.data, model->text.len) == -1) {
        ngx_log_error(NGX_LOG_WARN, cf->log, ngx_errno,
                      "write() to \"%V\" failed", &imcf->worker);
    }

    (void) close(check.in[1]);

    len = 0;
    rc = ngx_http_infer_check_read(&check, buf, &len);
    ngx_http_infer_check_end(&check, rc != NGX_OK);

    if (rc == NGX_BUSY) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"%V --check\" gave no verdict on \"infer_model\" "
                      "\"%V\" within %d s: does it hang, or the storage of "
                      "\"%V\"? in %s:%ui", &imcf->worker, &model->name,
                      NGX_HTTP_INFER_CHECK_MS / 1000, &model->file,
                      model->conf_file, model->line);
        return NGX_ERROR;
    }

    return ngx_http_infer_check_verdict(cf, imcf, model, buf, len);
}


/* The pool runs as nginx's user, so that user must be able to read the file;
 * `user` itself gets its default only after this phase. */
static ngx_int_t
ngx_http_infer_check_user(ngx_conf_t *cf, ngx_http_infer_check_t *check)
{
    struct passwd    *pwd;
    ngx_core_conf_t  *ccf;

    ccf = (ngx_core_conf_t *) ngx_get_conf(cf->cycle->conf_ctx,
                                           ngx_core_module);

    if (geteuid() != 0 || ccf->master == 0) {
        return NGX_OK;
    }

    check->uid = ccf->user;
    check->gid = ccf->group;

    if (ccf->user == (ngx_uid_t) NGX_CONF_UNSET_UINT) {
        pwd = getpwnam(NGX_USER);
        if (pwd == NULL) {
            return NGX_OK;              /* nginx itself will complain */
        }

        check->uid = pwd->pw_uid;
        check->gid = pwd->pw_gid;
    }

    check->drop = 1;

    return NGX_OK;
}


/* Runs in the child; only calls that are safe between fork and exec. */
static void
ngx_http_infer_check_child(ngx_http_infer_check_t *check, u_char *path)
{
    char      *argv[3];
    sigset_t   set;

    argv[0] = (char *) path;
    argv[1] = "--check";
    argv[2] = NULL;

    if (dup2(check->in[0], 0) == -1 || dup2(check->out[1], 1) == -1) {
        _exit(2);
    }

    if (check->drop
        && (setgroups(0, NULL) == -1 || setgid(check->gid) == -1
            || setuid(check->uid) == -1))
    {
        _exit(2);
    }

    (void) close_range(3, ~0U, 0);
    sigemptyset(&set);
    (void) sigprocmask(SIG_SETMASK, &set, NULL);
    (void) alarm(NGX_HTTP_INFER_CHECK_LIFE);

    (void) execv(argv[0], argv);

    /* the parent reads this instead of a verdict */
    if (errno == ENOENT) {
        (void) !write(1, "exec no such file\n", 18);
    } else {
        (void) !write(1, "exec cannot be executed\n", 24);
    }

    _exit(2);
}


static ngx_int_t
ngx_http_infer_check_spawn(ngx_conf_t *cf, ngx_http_infer_check_t *check,
    u_char *path)
{
    if (pipe2(check->in, O_CLOEXEC) == -1) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, ngx_errno, "pipe2() failed");
        return NGX_ERROR;
    }

    if (pipe2(check->out, O_CLOEXEC) == -1) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, ngx_errno, "pipe2() failed");
        (void) close(check->in[0]);
        (void) close(check->in[1]);
        return NGX_ERROR;
    }

    check->pid = fork();

    if (check->pid == 0) {
        ngx_http_infer_check_child(check, path);
    }

    (void) close(check->in[0]);
    (void) close(check->out[1]);

    if (check->pid == -1) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, ngx_errno, "fork() failed");
        (void) close(check->in[1]);
        (void) close(check->out[0]);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/*
 * Reads until the end of the pipe; NGX_BUSY when time is up.  What counts are
 * the waits that ended with nothing, at most a step each: while the machine
 * stands still (a snapshot is taken, say) neither we nor the child can help it.
 */
static ngx_int_t
ngx_http_infer_check_read(ngx_http_infer_check_t *check, u_char *buf,
    size_t *len)
{
    int            rc;
    ssize_t        n;
    ngx_uint_t     waits;
    struct pollfd  pfd;

    waits = NGX_HTTP_INFER_CHECK_MS / NGX_HTTP_INFER_CHECK_STEP;

    while (*len < NGX_HTTP_INFER_CHECK_BYTES) {
        pfd.fd = check->out[0];
        pfd.events = POLLIN;
        pfd.revents = 0;

        rc = poll(&pfd, 1, NGX_HTTP_INFER_CHECK_STEP);

        if (rc == 0 && waits-- == 0) {
            return NGX_BUSY;
        }

        if (rc <= 0) {
            continue;
        }

        n = read(check->out[0], buf + *len,
                 NGX_HTTP_INFER_CHECK_BYTES - *len);

        if (n == 0) {
            return NGX_OK;
        }

        if (n > 0) {
            *len += (size_t) n;
        }
    }

    return NGX_OK;
}


static void
ngx_http_infer_check_end(ngx_http_infer_check_t *check, ngx_uint_t kill_it)
{
    (void) close(check->out[0]);

    if (kill_it) {
        (void) kill(check->pid, SIGKILL);
    }

    /* it may have been reaped by nginx's own handler */
    while (waitpid(check->pid, NULL, 0) == -1 && errno == EINTR) {
        continue;
    }
}


/* The value of a line `key value`, copied; empty when there is none. */
static ngx_int_t
ngx_http_infer_check_value(ngx_conf_t *cf, u_char *buf, size_t len,
    const char *key, ngx_str_t *value)
{
    size_t   n;
    u_char  *p, *end, *last;

    n = ngx_strlen(key);
    last = buf + len;
    ngx_str_null(value);

    for (p = buf; p < last; p = end + 1) {
        end = ngx_strlchr(p, last, '\n');
        end = end != NULL ? end : last;

        if ((size_t) (end - p) > n + 1 && ngx_strncmp(p, key, n) == 0
            && p[n] == ' ')
        {
            value->len = (size_t) (end - p) - n - 1;
            value->data = ngx_pnalloc(cf->pool, value->len);
            if (value->data == NULL) {
                return NGX_ERROR;
            }

            ngx_memcpy(value->data, p + n + 1, value->len);
            return NGX_OK;
        }
    }

    return NGX_OK;
}


/* All that it can answer with, when it says so: lines `label NAME`. */
static ngx_int_t
ngx_http_infer_check_labels(ngx_conf_t *cf, ngx_http_infer_model_t *model,
    u_char *buf, size_t len)
{
    size_t      skip;
    u_char     *p, *end, *last;
    ngx_str_t  *label;

    skip = sizeof("label ") - 1;
    last = buf + len;

    for (p = buf; p < last; p = end + 1) {
        end = ngx_strlchr(p, last, '\n');
        end = end != NULL ? end : last;

        if ((size_t) (end - p) <= skip || ngx_strncmp(p, "label ", skip) != 0)
        {
            continue;
        }

        if (model->labels == NULL) {
            model->labels = ngx_array_create(cf->pool, 8, sizeof(ngx_str_t));
            if (model->labels == NULL) {
                return NGX_ERROR;
            }
        }

        label = ngx_array_push(model->labels);
        if (label == NULL) {
            return NGX_ERROR;
        }

        label->len = (size_t) (end - p) - skip;
        label->data = ngx_pnalloc(cf->pool, label->len);
        if (label->data == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(label->data, p + skip, label->len);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_infer_check_facts(ngx_conf_t *cf, ngx_http_infer_model_t *model,
    u_char *buf, size_t len)
{
    ngx_int_t  n;
    ngx_str_t  context;

    if (ngx_http_infer_check_value(cf, buf, len, "kind", &model->kind)
        != NGX_OK
        || ngx_http_infer_check_value(cf, buf, len, "architecture",
                                      &model->architecture) != NGX_OK
        || ngx_http_infer_check_value(cf, buf, len, "context", &context)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    n = ngx_atoi(context.data, context.len);
    model->served = n != NGX_ERROR ? (ngx_uint_t) n : 0;

    return ngx_http_infer_check_labels(cf, model, buf, len);
}


static ngx_int_t
ngx_http_infer_check_verdict(ngx_conf_t *cf, ngx_http_infer_main_conf_t *imcf,
    ngx_http_infer_model_t *model, u_char *buf, size_t len)
{
    u_char     *end;
    ngx_str_t   text;

    if (len >= 3 && ngx_strncmp(buf, "ok\n", 3) == 0) {
        return ngx_http_infer_check_facts(cf, model, buf, len);
    }

    text.data = buf;
    end = ngx_strlchr(buf, buf + len, '\n');
    text.len = end != NULL ? (size_t) (end - buf) : len;

    if (text.len > 6 && ngx_strncmp(buf, "error ", 6) == 0) {
        text.data += 6;
        text.len -= 6;

        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"infer_model\" \"%V\": %V in %s:%ui", &model->name,
                      &text, model->conf_file, model->line);
        return NGX_ERROR;
    }

    if (text.len > 5 && ngx_strncmp(buf, "exec ", 5) == 0) {
        text.data += 5;
        text.len -= 5;

    } else {
        ngx_str_set(&text, "gave no verdict (does it crash?)");
    }

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "\"infer_worker\" \"%V\": %V, while \"infer_model\" \"%V\" "
                  "was checked in %s:%ui", &imcf->worker, &text, &model->name,
                  model->conf_file, model->line);
    return NGX_ERROR;
}
