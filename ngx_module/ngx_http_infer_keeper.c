/*
 * The keeper: sees to it that every pool has a supervisor and that this
 * configuration's generation is attached to it.  It runs in nginx's cache
 * manager process (or in the only process), never blocks, and holds one
 * control connection per pool: its end tells at once that a supervisor died.
 *
 * It works on a timer of its own, so that the cache managers of other modules,
 * who share the process, are not called any oftener than before.
 */

#include "ngx_module/ngx_http_infer.h"
#include "ngx_module/ngx_http_infer_before.h"


#define NGX_HTTP_INFER_QUICK_MS     5       /* retries while a pool starts */
#define NGX_HTTP_INFER_QUICK_FOR    500
#define NGX_HTTP_INFER_SLOW_MS      50
#define NGX_HTTP_INFER_SLOW_FOR     5000
#define NGX_HTTP_INFER_TICK_MS      1000
#define NGX_HTTP_INFER_ANSWER_MS    5000    /* for the answer to a message */
#define NGX_HTTP_INFER_RESTART_MS   1000    /* doubled up to … */
#define NGX_HTTP_INFER_RESTART_MAX  10000
#define NGX_HTTP_INFER_QUIET_LOOKS  3       /* before a pool is left */


static void ngx_http_infer_keeper_tick(ngx_event_t *ev);
static void ngx_http_infer_keeper_look(ngx_http_infer_pool_t *pool);
static ngx_uint_t ngx_http_infer_keeper_leave(ngx_http_infer_pool_t *pool);
static void ngx_http_infer_keeper_message(ngx_http_infer_pool_t *pool,
    shr_ctl_msg_t *msg, uint32_t type);
static void ngx_http_infer_keeper_connect(ngx_http_infer_pool_t *pool);
static void ngx_http_infer_keeper_attach(ngx_http_infer_pool_t *pool, int fd);
static void ngx_http_infer_keeper_ping(ngx_http_infer_pool_t *pool);
static void ngx_http_infer_keeper_read(ngx_event_t *rev);
static void ngx_http_infer_keeper_answer(ngx_http_infer_pool_t *pool,
    shr_ctl_msg_t *msg);
static void ngx_http_infer_keeper_detach(ngx_http_infer_pool_t *pool,
    ngx_msec_t wait);
static void ngx_http_infer_keeper_spawn(ngx_http_infer_pool_t *pool);


/* One process is the keeper of one configuration. */
static ngx_http_infer_main_conf_t  *ngx_http_infer_keeper_conf;
static ngx_event_t                  ngx_http_infer_keeper_timer;
static ngx_connection_t             ngx_http_infer_keeper_dummy;


ngx_msec_t
ngx_http_infer_keeper_manager(void *data)
{
    if (ngx_http_infer_keeper_conf == NULL) {
        (void) ngx_http_infer_keeper_start(data);
    }

    return 60 * 60 * 1000;
}


ngx_int_t
ngx_http_infer_keeper_start(ngx_http_infer_main_conf_t *imcf)
{
    if (imcf->generation == NULL) {
        return NGX_OK;
    }

    ngx_http_infer_keeper_conf = imcf;
    ngx_http_infer_keeper_dummy.fd = (ngx_socket_t) -1;

    ngx_http_infer_keeper_timer.handler = ngx_http_infer_keeper_tick;
    ngx_http_infer_keeper_timer.data = &ngx_http_infer_keeper_dummy;
    ngx_http_infer_keeper_timer.log = ngx_cycle->log;
    ngx_http_infer_keeper_timer.cancelable = 1;

    ngx_http_infer_keeper_tick(&ngx_http_infer_keeper_timer);

    return NGX_OK;
}


static void
ngx_http_infer_keeper_tick(ngx_event_t *ev)
{
    ngx_uint_t                    i;
    ngx_msec_t                    delay;
    ngx_msec_int_t                left;
    ngx_http_infer_pool_t        *pool;
    ngx_http_infer_generation_t  *gen;

    gen = ngx_http_infer_keeper_conf->generation;
    delay = NGX_HTTP_INFER_TICK_MS;

    for (i = 0; i < gen->npools; i++) {
        pool = &gen->pools[i];
        left = (ngx_msec_int_t) (pool->keeper.next - ngx_current_msec);

        if (left <= 0) {
            ngx_http_infer_keeper_look(pool);
            left = (ngx_msec_int_t) (pool->keeper.next - ngx_current_msec);
        }

        left = ngx_max(left, 1);
        delay = ngx_min(delay, (ngx_msec_t) left);
    }

    ngx_add_timer(ev, delay);
}


static void
ngx_http_infer_keeper_look(ngx_http_infer_pool_t *pool)
{
    ngx_http_infer_keeper_t  *k;

    k = &pool->keeper;

    if (pool->after != NULL && ngx_http_infer_keeper_leave(pool)) {
        k->next = ngx_current_msec + NGX_HTTP_INFER_RESTART_MAX;
        return;
    }

    switch (k->state) {

    case NGX_HTTP_INFER_DETACHED:
        ngx_http_infer_keeper_connect(pool);
        return;

    case NGX_HTTP_INFER_ATTACHING:
        if (ngx_current_msec - k->since > NGX_HTTP_INFER_ANSWER_MS) {
            ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                          "infer: pool of \"%V\" does not answer at %V",
                          &pool->model->name, &pool->model->socket);
            ngx_http_infer_keeper_detach(pool, NGX_HTTP_INFER_TICK_MS);
            return;
        }

        k->next = ngx_current_msec + NGX_HTTP_INFER_TICK_MS;
        return;

    case NGX_HTTP_INFER_ATTACHED:
        ngx_http_infer_keeper_ping(pool);
        return;
    }
}


/*
 * A pool of before is left when the one after it serves and the last request
 * has gone; with the configuration that it was made for gone too, it ends.
 */
static ngx_uint_t
ngx_http_infer_keeper_leave(ngx_http_infer_pool_t *pool)
{
    shr_ctl_msg_t             msg;
    ngx_http_infer_keeper_t  *k;

    k = &pool->keeper;

    if (k->left) {
        return 1;
    }

    if (!ngx_http_infer_pool_is_ready(pool->after)
        || (k->state == NGX_HTTP_INFER_ATTACHED
            && !ngx_http_infer_pool_is_idle(pool)))
    {
        k->quiet = 0;
        return 0;
    }

    if (++k->quiet < NGX_HTTP_INFER_QUIET_LOOKS) {
        return 0;
    }

    if (k->state == NGX_HTTP_INFER_ATTACHED) {
        ngx_http_infer_keeper_message(pool, &msg, SHR_CTL_DETACH);
        (void) shr_ctl_send(k->connection->fd, &msg, NULL);
    }

    ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                  "infer: the new pool of \"%V\" has taken over",
                  &pool->model->name);
    k->left = 1;
    ngx_http_infer_keeper_detach(pool, NGX_HTTP_INFER_RESTART_MAX);

    return 1;
}


static void
ngx_http_infer_keeper_connect(ngx_http_infer_pool_t *pool)
{
    int                       fd;
    ngx_msec_t                age, wait;
    ngx_http_infer_keeper_t  *k;

    k = &pool->keeper;
    fd = shr_ctl_connect((char *) pool->model->socket.data);

    if (fd >= 0) {
        ngx_http_infer_keeper_attach(pool, fd);
        return;
    }

    if (pool->model->external) {
        if (!k->complained) {
            k->complained = 1;
            ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, ngx_errno,
                          "infer: nobody serves \"%V\" at %V yet",
                          &pool->model->name, &pool->model->socket);
        }

        k->next = ngx_current_msec + NGX_HTTP_INFER_TICK_MS;
        return;
    }

    age = ngx_current_msec - k->started;
    wait = (ngx_msec_t) NGX_HTTP_INFER_RESTART_MS << ngx_min(k->starts, 5);
    wait = ngx_min(wait, NGX_HTTP_INFER_RESTART_MAX);

    if (k->starts == 0) {
        wait = NGX_HTTP_INFER_SLOW_MS;      /* after a life that was good */
    }

    if (age >= wait) {
        ngx_http_infer_keeper_spawn(pool);
        age = 0;
    }

    k->next = ngx_current_msec
              + (age < NGX_HTTP_INFER_QUICK_FOR ? NGX_HTTP_INFER_QUICK_MS
                 : age < NGX_HTTP_INFER_SLOW_FOR ? NGX_HTTP_INFER_SLOW_MS
                 : NGX_HTTP_INFER_TICK_MS);
}


/* In the order of shr_ctl.h. */
static ngx_uint_t
ngx_http_infer_keeper_fds(ngx_http_infer_pool_t *pool, int *fds)
{
    ngx_uint_t                    n;
    ngx_http_infer_generation_t  *gen;

    gen = ngx_http_infer_keeper_conf->generation;

    fds[0] = gen->lifeline[0];
    n = 1;
    ngx_memcpy(fds + n, pool->client_fds, pool->geom.nclients * sizeof(int));
    n += pool->geom.nclients;
    ngx_memcpy(fds + n, pool->worker_fds, pool->geom.nworkers * sizeof(int));
    n += pool->geom.nworkers;
    ngx_memcpy(fds + n, gen->bells, pool->geom.nclients * sizeof(int));
    n += pool->geom.nclients;
    ngx_memcpy(fds + n, pool->doorbells, pool->geom.nworkers * sizeof(int));

    return n + pool->geom.nworkers;
}


static void
ngx_http_infer_keeper_message(ngx_http_infer_pool_t *pool, shr_ctl_msg_t *msg,
    uint32_t type)
{
    ngx_http_infer_generation_t  *gen;

    gen = ngx_http_infer_keeper_conf->generation;

    ngx_memzero(msg, sizeof(shr_ctl_msg_t));
    msg->type = type;
    msg->abi_hash = shr_abi_hash();
    msg->model_hash = pool->model->hash;
    msg->generation[0] = gen->id[0];
    msg->generation[1] = gen->id[1];
    msg->geom = pool->geom;

    if (type == SHR_CTL_ATTACH) {
        msg->text_len = (uint32_t) pool->model->text.len;
        ngx_memcpy(msg->text, pool->model->text.data, pool->model->text.len);
    }
}


static void
ngx_http_infer_keeper_attach(ngx_http_infer_pool_t *pool, int fd)
{
    int                       fds[1 + 2 * SHR_CLIENTS_MAX
                                  + 2 * SHR_WORKERS_MAX];
    shr_ctl_msg_t             msg;
    ngx_connection_t         *c;
    ngx_http_infer_keeper_t  *k;

    k = &pool->keeper;
    k->state = NGX_HTTP_INFER_ATTACHING;
    k->since = ngx_current_msec;
    k->next = ngx_current_msec + NGX_HTTP_INFER_TICK_MS;

    if (!pool->model->external && shr_ctl_check_peer(fd) != 0) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "infer: %V belongs to another user, not used",
                      &pool->model->socket);
        (void) close(fd);
        ngx_http_infer_keeper_detach(pool, NGX_HTTP_INFER_RESTART_MAX);
        return;
    }

    c = ngx_get_connection(fd, ngx_cycle->log);
    if (c == NULL) {
        (void) close(fd);
        ngx_http_infer_keeper_detach(pool, NGX_HTTP_INFER_TICK_MS);
        return;
    }

    c->data = pool;
    c->log = ngx_cycle->log;
    c->read->handler = ngx_http_infer_keeper_read;
    c->read->log = c->log;
    c->read->channel = 1;
    c->write->log = c->log;
    k->connection = c;

    if (ngx_add_event(c->read, NGX_READ_EVENT, NGX_CLEAR_EVENT) != NGX_OK) {
        ngx_http_infer_keeper_detach(pool, NGX_HTTP_INFER_TICK_MS);
        return;
    }

    ngx_http_infer_keeper_message(pool, &msg, SHR_CTL_ATTACH);
    (void) ngx_http_infer_keeper_fds(pool, fds);

    if (shr_ctl_send_generation(fd, &msg, fds) != 0) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, ngx_errno,
                      "infer: attaching to %V failed", &pool->model->socket);
        ngx_http_infer_keeper_detach(pool, NGX_HTTP_INFER_SLOW_MS);
    }
}


/* Closes the connection; the next look comes after `wait` ms. */
static void
ngx_http_infer_keeper_detach(ngx_http_infer_pool_t *pool, ngx_msec_t wait)
{
    ngx_http_infer_keeper_t  *k;

    k = &pool->keeper;

    if (k->connection != NULL) {
        ngx_close_connection(k->connection);
        k->connection = NULL;
    }

    k->state = NGX_HTTP_INFER_DETACHED;
    k->pinged = 0;
    k->log_ino = 0;
    k->next = ngx_current_msec + wait;
}


/* nginx's standard error is its log, opened again when logs are rotated: the
 * pool that it started goes along.  Told once for each file. */
static void
ngx_http_infer_keeper_log(ngx_http_infer_pool_t *pool)
{
    int                       fd;
    struct stat               st;
    shr_ctl_msg_t             msg;
    ngx_http_infer_keeper_t  *k;

    k = &pool->keeper;
    fd = STDERR_FILENO;

    if (pool->model->external || fstat(fd, &st) != 0
        || (st.st_dev == k->log_dev && st.st_ino == k->log_ino))
    {
        return;
    }

    ngx_http_infer_keeper_message(pool, &msg, SHR_CTL_LOG);
    msg.nfds = 1;

    if (shr_ctl_send(k->connection->fd, &msg, &fd) == 0) {
        k->log_dev = st.st_dev;
        k->log_ino = st.st_ino;
    }
}


static void
ngx_http_infer_keeper_ping(ngx_http_infer_pool_t *pool)
{
    shr_ctl_msg_t             msg;
    ngx_http_infer_keeper_t  *k;

    k = &pool->keeper;
    k->next = ngx_current_msec + NGX_HTTP_INFER_TICK_MS;
    ngx_http_infer_keeper_log(pool);

    if (k->pinged != 0) {
        if (ngx_current_msec - k->pinged <= NGX_HTTP_INFER_ANSWER_MS) {
            return;
        }

        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "infer: supervisor of \"%V\" does not answer, "
                      "attaching again", &pool->model->name);
        ngx_http_infer_keeper_detach(pool, 0);
        return;
    }

    ngx_http_infer_keeper_message(pool, &msg, SHR_CTL_PING);

    if (shr_ctl_send(k->connection->fd, &msg, NULL) == 0) {
        k->pinged = ngx_current_msec ? ngx_current_msec : 1;
    }
}


static void
ngx_http_infer_keeper_read(ngx_event_t *rev)
{
    int                     rc, fds[SHR_CTL_FDS_MAX];
    uint32_t                i;
    shr_ctl_msg_t           msg;
    ngx_connection_t       *c;
    ngx_http_infer_pool_t  *pool;

    c = rev->data;
    pool = c->data;

    do {
        rc = shr_ctl_recv(c->fd, &msg, fds);

        if (rc == 0) {
            for (i = 0; i < msg.nfds; i++) {
                (void) close(fds[i]);       /* none is expected */
            }

            ngx_http_infer_keeper_answer(pool, &msg);
        }

    } while (rc == 0 && pool->keeper.connection == c);

    if (rc == 0 || rc == -SHR_EAGAIN) {
        return;
    }

    if (pool->keeper.state == NGX_HTTP_INFER_ATTACHED) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "infer: supervisor of \"%V\" has gone",
                      &pool->model->name);
        ngx_http_infer_keeper_detach(pool, 0);
        ngx_http_infer_keeper_look(pool);

    } else {
        ngx_http_infer_keeper_detach(pool, NGX_HTTP_INFER_SLOW_MS);
    }

    ngx_add_timer(&ngx_http_infer_keeper_timer, NGX_HTTP_INFER_QUICK_MS);
}


static void
ngx_http_infer_keeper_answer(ngx_http_infer_pool_t *pool, shr_ctl_msg_t *msg)
{
    ngx_str_t                 text;
    ngx_http_infer_keeper_t  *k;

    k = &pool->keeper;
    k->pinged = 0;

    if (msg->type == SHR_CTL_OK) {

        if (k->state == NGX_HTTP_INFER_ATTACHING) {
            ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                          "infer: attached to the pool of \"%V\"",
                          &pool->model->name);
        }

        k->state = NGX_HTTP_INFER_ATTACHED;
        k->starts = 0;
        k->complained = 0;
        k->next = ngx_current_msec + NGX_HTTP_INFER_TICK_MS;
        return;
    }

    if (msg->type != SHR_CTL_REFUSED) {
        return;
    }

    if (k->state == NGX_HTTP_INFER_ATTACHED) {
        ngx_http_infer_keeper_detach(pool, 1);
        ngx_add_timer(&ngx_http_infer_keeper_timer, 1);
        return;
    }

    if (!k->complained) {
        k->complained = 1;
        text.data = (u_char *) msg->text;
        text.len = msg->text_len;
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "infer: the pool of \"%V\" refuses this nginx: %V",
                      &pool->model->name, &text);
    }

    ngx_http_infer_keeper_detach(pool, NGX_HTTP_INFER_TICK_MS);
}


/* Runs in the child; only calls that are safe between fork and exec.  nginx's
 * descriptors and its signal mask must not reach the pool; standard error is
 * nginx's error log. */
static void
ngx_http_infer_keeper_exec(char *worker, char *socket)
{
    int        fd;
    char      *argv[5];
    sigset_t   set;

    argv[0] = worker;
    argv[1] = "--supervise";
    argv[2] = "--socket";
    argv[3] = socket;
    argv[4] = NULL;

    fd = open("/dev/null", O_RDWR);

    if (fd == -1 || dup2(fd, 0) == -1 || dup2(fd, 1) == -1) {
        _exit(1);
    }

    (void) close_range(3, ~0U, 0);
    (void) signal(SIGPIPE, SIG_DFL);
    sigemptyset(&set);
    (void) sigprocmask(SIG_SETMASK, &set, NULL);

    (void) execv(worker, argv);
    _exit(1);
}


static void
ngx_http_infer_keeper_spawn(ngx_http_infer_pool_t *pool)
{
    ngx_pid_t                 pid;
    ngx_str_t                *worker;
    ngx_uint_t                level;
    ngx_http_infer_keeper_t  *k;

    k = &pool->keeper;
    worker = &ngx_http_infer_keeper_conf->worker;

    k->started = ngx_current_msec;
    k->starts++;

    pid = fork();

    if (pid == 0) {
        ngx_http_infer_keeper_exec((char *) worker->data,
                                   (char *) pool->model->socket.data);
    }

    if (pid == -1) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, ngx_errno,
                      "infer: fork() failed");
        return;
    }

    level = k->starts > 1 ? NGX_LOG_ERR : NGX_LOG_NOTICE;

    ngx_log_error(level, ngx_cycle->log, 0,
                  "infer: supervisor %P of \"%V\" started, attempt %ui",
                  pid, &pool->model->name, k->starts);
}
