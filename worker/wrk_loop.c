/*
 * The worker's loop, the only place of the worker that waits.
 *
 * A turn: take submissions, run one step of the scheduler, ring the clients
 * that sleep.  Without work: say that we are about to sleep, look once more,
 * wait for a doorbell, a timer, or somebody's end.
 */

#include "worker/wrk_loop_int.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "shm/shr_error.h"
#include "worker/kernels/kern.h"
#include "worker/wrk_log.h"


#define CTL_TURN_MAX        64      /* control messages at a time */


/* One loop in a process; it lives as long as the process does. */
static loop_t  *the_loop;


static int first_generation(loop_t *l);
static int configure(loop_t *l);
static int load_model(loop_t *l);
static void tell_supervisor(loop_t *l, uint32_t type, const char *text);
static void serve(loop_t *l);
static int turn(loop_t *l);
static void rest(loop_t *l);
static int all_asleep(loop_t *l);
static void on_event(loop_t *l, uint64_t tag);
static void on_control(loop_t *l);
static void tick(loop_t *l);
static void show_figures(loop_t *l);


int
wrk_loop_run(const wrk_loop_opts_t *opts)
{
    int      status = 1;
    loop_t  *l;

    assert(the_loop == NULL);

    l = the_loop = calloc(1, sizeof(*l));
    if (l == NULL) {
        wrk_log(WRK_LOG_ALERT, "no memory for the loop");
        return 1;
    }
    l->opts = opts;
    l->state = SHR_WORKER_LOADING;
    l->take_max = LOOP_TAKE_MAX;
    wrk_rx_init(&l->rx, 1);

    l->signal_fd = loop_proc_start();
    if (l->signal_fd < 0 || first_generation(l) != 0) {
        goto done;
    }
    if (load_model(l) != 0) {
        goto done;
    }

    show_figures(l);                /* before anybody looks at them */
    loop_set_state(l, SHR_WORKER_READY);
    tell_supervisor(l, SHR_CTL_READY, "");
    serve(l);
    status = 0;

done:
    /* The kernel takes all back; a step's memory may be gigabytes, and
     * unmapping it by hand would only take time. */
    return status;
}


uint64_t
loop_clock(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}


/* Waits for the supervisor's first word: it brings the configuration. */
static int
first_generation(loop_t *l)
{
    int            rc, idle;
    struct pollfd  p = { l->opts->ctl, POLLIN, 0 };

    for ( ;; ) {
        rc = wrk_rx_read(&l->rx, l->opts->ctl, &idle);
        if (rc == 0 && l->rx.msg.type == SHR_CTL_ATTACH) {
            break;
        }
        if (rc == 0 && l->rx.msg.type == SHR_CTL_LOG) {
            wrk_log_reopen(l->rx.fds[0]);
            l->rx.nfds = 0;
            continue;
        }
        if (rc == -SHR_EAGAIN) {
            if (idle) {
                (void) poll(&p, 1, -1);
            }
            continue;
        }
        if (rc != 0 && rc != -SHR_EDONE) {
            wrk_log(WRK_LOG_ALERT, "control socket: %s", shr_strerror(rc));
        }
        if (rc != 0) {
            return -1;
        }
    }

    if (configure(l) != 0) {
        return -1;
    }
    loop_gen_attach(l);
    return 0;
}


static int
configure(loop_t *l)
{
    int                   refused;
    char                  err[WRK_CONF_ERR_MAX];
    const shr_ctl_msg_t  *msg = &l->rx.msg;

    if (msg->abi_hash != shr_abi_hash()
        || wrk_conf_parse(&l->conf, msg->text, msg->text_len, err) != 0)
    {
        wrk_log(WRK_LOG_ALERT, "the supervisor's configuration cannot be "
                "read");
        return -1;
    }
    l->model_hash = msg->model_hash;
    l->index = msg->worker & ~WRK_CTL_FOREIGN_PIDS;
    wrk_log_name(l->conf.name);

    l->wait = wrk_wait_open((int) l->conf.io_uring, &refused);
    if (l->wait == NULL) {
        wrk_log(WRK_LOG_ALERT, "neither io_uring nor epoll: %s",
                strerror(errno));
        return -1;
    }
    if (refused != 0) {
        wrk_log(WRK_LOG_NOTICE, "io_uring is not allowed here (%s), using "
                "epoll", strerror(refused));
    }
    if (wrk_wait_add(l->wait, l->opts->ctl, WRK_WAIT_READ,
                     loop_tag(TAG_CTL, 0, 0)) != 0
        || wrk_wait_add(l->wait, l->signal_fd, WRK_WAIT_READ,
                        loop_tag(TAG_SIGNAL, 0, 0)) != 0)
    {
        wrk_log(WRK_LOG_ALERT, "%s: %s", l->wait->ops->name, strerror(errno));
        return -1;
    }
    return 0;
}


static int
start_scheduler(loop_t *l, char *err)
{
    const char  *why;

    l->buf_bytes = wrk_serve_request_bytes(&l->model);

    if (wrk_serve_open(&l->serve, &l->model, &l->conf, l->buf_bytes, &why) != 0
        || loop_entries_create(l) != 0)
    {
        snprintf(err, WRK_MODEL_ERR_MAX, "scheduler: %s", why);
        return -1;
    }
    return 0;
}


static int
load_model(loop_t *l)
{
    char  err[WRK_MODEL_ERR_MAX], sandbox[64];

    loop_proc_sandbox(l);
    if (wrk_model_open(&l->model, &l->conf, l->index, l->opts->weights_fd,
                       l->opts->tok_image, loop_proc_nice, err) != 0
        || start_scheduler(l, err) != 0)
    {
        tell_supervisor(l, SHR_CTL_REFUSED, err);
        return -1;
    }

    wrk_sandbox_calls(&l->sandbox);
    wrk_sandbox_text(&l->sandbox, sandbox, sizeof(sandbox));
    l->load_us = (loop_clock() - l->opts->started_ns) / 1000;
    wrk_log(WRK_LOG_NOTICE, "worker %u ready in %llu.%llu ms: %s, %s, %u "
            "threads, %s, %s", l->index,
            (unsigned long long) l->load_us / 1000,
            (unsigned long long) l->load_us % 1000 / 100, l->model.summary,
            wrk_model_computes(&l->model) ? kern_isa_name(kern_isa())
                                          : "no kernels",
            wrk_model_computes(&l->model) ? l->conf.threads : 1,
            l->wait->ops->name, sandbox);
    return 0;
}


/* It listens to us before it does anything else with us; a full socket can
 * only mean that it is about to end. */
static void
tell_supervisor(loop_t *l, uint32_t type, const char *text)
{
    size_t         n = strlen(text);
    shr_ctl_msg_t  msg;

    n = n < sizeof(msg.text) ? n : sizeof(msg.text);

    memset(&msg, 0, sizeof(msg));
    msg.type = type;
    msg.abi_hash = shr_abi_hash();
    msg.model_hash = l->model_hash;
    msg.worker = l->index;
    msg.text_len = (uint32_t) n;
    memcpy(msg.text, text, n);
    (void) shr_ctl_send(l->opts->ctl, &msg, NULL);
}


static void
look(loop_t *l, uint64_t timeout_ns)
{
    int       i, n;
    uint64_t  tags[WRK_WAIT_BATCH];

    n = wrk_wait_run(l->wait, timeout_ns, tags);
    l->now = l->look_ns = loop_clock();

    if (n < 0) {
        wrk_log(WRK_LOG_ALERT, "%s: %s", l->wait->ops->name, strerror(errno));
        l->end = 1;
        return;
    }
    for (i = 0; i < n; i++) {
        on_event(l, tags[i]);
    }
}


static inline void
cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}


/*
 * What the scheduler waits for (a step elsewhere, a batch's delay) comes in a
 * moment.  Falling asleep and waking up takes 15 to 60 us and is never exact,
 * so the last stretch is spent awake.
 */
static int
is_near(const loop_t *l)
{
    uint64_t  next = wrk_serve_next_ns(&l->serve);

    return next > l->now && next - l->now <= LOOP_NEAR_NS;
}


static void
serve(loop_t *l)
{
    uint64_t  spin_ns = (uint64_t) l->conf.spin_us * 1000;

    l->now = l->tick_ns = l->busy_ns = loop_clock();
    on_control(l);              /* what came while we loaded */
    tick(l);

    while (!l->end) {
        l->now = loop_clock();

        if (turn(l)) {
            l->busy_ns = l->now;
            l->parked = 0;
            if (l->now - l->look_ns >= LOOP_LOOK_NS) {
                look(l, 0);
            }

        } else if (l->now - l->busy_ns < spin_ns || is_near(l)) {
            cpu_relax();
            if (l->now - l->look_ns >= LOOP_LOOK_NS) {
                look(l, 0);
            }

        } else {
            rest(l);
        }

        if (l->now - l->tick_ns >= LOOP_TICK_NS) {
            tick(l);
        }
        if (l->draining && wrk_serve_idle(&l->serve)) {
            l->end = 1;
        }
    }
    show_figures(l);
}


static void
ring_all(loop_t *l)
{
    uint32_t  i;

    for (i = 0; i < l->ngens; i++) {
        if (!l->gens[i]->gone) {
            shr_server_ring(l->gens[i]->server);
        }
    }
}


/* 1: there may be more to do at once. */
static int
turn(loop_t *l)
{
    int       more;
    uint32_t  i, taken;
    uint64_t  begin;

    taken = loop_take(l);
    begin = loop_clock();
    more = wrk_serve_step(&l->serve, l->now);
    if (more || taken > 0) {
        l->take_max = l->conf.null_delay_us != 0
                      || loop_clock() - begin >= LOOP_LONG_STEP_NS
                      ? LOOP_TAKE_MAX : LOOP_TAKE_FEW;
    }

    for (i = 0; i < l->ngens; i++) {
        if (!l->gens[i]->gone) {
            shr_server_beat(l->gens[i]->server, l->now);
        }
    }

    ring_all(l);

    if (more && l->now - l->figures_ns >= LOOP_FIGURES_NS) {
        show_figures(l);
    }
    return more || taken > 0;
}


static void
rest(loop_t *l)
{
    uint32_t  i;
    uint64_t  next, limit;

    if (!l->parked) {
        wrk_model_park(&l->model);
        l->parked = 1;
    }
    show_figures(l);

    limit = l->tick_ns + LOOP_TICK_NS;
    if (l->draining && limit > l->now + LOOP_DRAIN_NS) {
        limit = l->now + LOOP_DRAIN_NS;
    }
    next = wrk_serve_next_ns(&l->serve);
    next -= next > LOOP_NEAR_NS ? LOOP_NEAR_NS : 0;
    limit = next < limit ? next : limit;

    if (!all_asleep(l)) {
        return;                         /* something came meanwhile */
    }

    /* A client that made room or left just before we were marked asleep did
     * not ring: one more look at what is held.  From here on they ring. */
    if (wrk_serve_idle(&l->serve) || !wrk_serve_step(&l->serve, l->now)) {
        ring_all(l);
        /* the turn itself took a while: not from its begin */
        l->now = loop_clock();
        look(l, limit > l->now ? limit - l->now : 0);
    }

    for (i = 0; i < l->ngens; i++) {
        shr_server_awake(l->gens[i]->server);
    }
}


/* While draining nothing is taken, so what waits must not keep us awake. */
static int
all_asleep(loop_t *l)
{
    uint32_t  i;

    if (l->draining) {
        return 1;
    }
    for (i = 0; i < l->ngens; i++) {
        if (!l->gens[i]->gone && shr_server_sleep(l->gens[i]->server)) {
            while (i-- > 0) {
                shr_server_awake(l->gens[i]->server);
            }
            return 0;
        }
    }
    return 1;
}


static void
on_event(loop_t *l, uint64_t tag)
{
    loop_gen_t               *g;
    struct signalfd_siginfo   info;

    switch (loop_tag_kind(tag)) {

    case TAG_CTL:
        on_control(l);
        return;

    case TAG_SIGNAL:
        while (read(l->signal_fd, &info, sizeof(info)) == sizeof(info)) {
            if (!l->draining) {
                l->draining = 1;
                loop_set_state(l, SHR_WORKER_DRAINING);
            }
        }
        return;

    case TAG_LIFELINE:
    case TAG_CLIENT:
        g = loop_gen_find(l, loop_tag_serial(tag));
        if (g == NULL) {
            return;
        }
        if (loop_tag_kind(tag) == TAG_LIFELINE) {
            loop_gen_gone(l, g);
        } else {
            loop_client_event(g, loop_tag_client(tag));
        }
        return;

    default:
        return;                         /* a doorbell: we are awake */
    }
}


/* New generations; the end of the supervisor is ours. */
static void
on_control(loop_t *l)
{
    int  i, rc, idle;

    for (i = 0; i < CTL_TURN_MAX; i++) {
        rc = wrk_rx_read(&l->rx, l->opts->ctl, &idle);

        if (rc == 0 && l->rx.msg.type == SHR_CTL_ATTACH) {
            loop_gen_attach(l);

        } else if (rc == 0 && l->rx.msg.type == SHR_CTL_LOG) {
            wrk_log_reopen(l->rx.fds[0]);
            l->rx.nfds = 0;

        } else if (rc == -SHR_EAGAIN && idle) {
            return;

        } else if (rc != 0 && rc != -SHR_EAGAIN) {
            if (rc != -SHR_EDONE) {
                wrk_log(WRK_LOG_ALERT, "control socket: %s",
                        shr_strerror(rc));
            }
            l->end = 1;
            return;
        }
    }
}


/* Once a second. */
static void
tick(loop_t *l)
{
    uint32_t     i, c;
    loop_gen_t  *g;

    l->tick_ns = l->now;
    loop_gens_collect(l);

    for (i = 0; i < l->ngens; i++) {
        g = l->gens[i];
        if (g->gone) {
            continue;
        }
        loop_clients_look(l, g);
        for (c = 0; c < g->geom.nclients; c++) {
            shr_server_sweep(g->server);
        }
    }
    show_figures(l);

    if (l->ngens == 0 && l->now - l->alone_ns > LOOP_ALONE_NS) {
        l->end = 1;
    }
}


static void
show_figures(loop_t *l)
{
    uint32_t       i, k;
    uint64_t       value[SHR_NCOUNTERS];
    shr_server_t  *server;

    memset(value, 0, sizeof(value));
    wrk_serve_stats(&l->serve, value);
    value[SHR_G_LOAD_US] = l->load_us;
    value[SHR_G_IO_URING] = (uint64_t) l->wait->is_uring;
    value[SHR_G_ISA] = wrk_model_computes(&l->model) ? (uint64_t) kern_isa()
                                                     : 0;

    for (i = 0; i < l->ngens; i++) {
        server = l->gens[i]->server;
        for (k = 0; k < SHR_NCOUNTERS; k++) {
            shr_server_set(server, (shr_counter_t) k, value[k]);
        }
    }
    l->figures_ns = l->now;
}
