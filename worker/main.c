/*
 * nginx-infer-worker: the processes beside nginx.
 *
 *   --supervise --socket PATH   the supervisor of one pool
 *   --worker                    an inference worker, started by a supervisor
 *   --check                     reads a model's configuration from standard
 *                               input and says whether it can be served
 *   --version                   version and hash of the shared-memory layout
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "shm/shr_layout.h"
#include "worker/wrk_conf.h"
#include "worker/wrk_log.h"
#include "worker/wrk_loop.h"
#include "worker/wrk_model.h"
#include "worker/wrk_sandbox.h"
#include "worker/wrk_super.h"


#ifndef INFER_VERSION
#define INFER_VERSION  "0.1.0"
#endif

#define CHECK_OUT_MAX  (80u << 10)     /* with all labels of a classifier */

typedef enum {
    MODE_NONE = 0,
    MODE_SUPERVISE,
    MODE_WORKER,
    MODE_CHECK,
    MODE_VERSION,
    MODE_HELP
} main_mode_t;

typedef struct {
    main_mode_t       mode;
    wrk_super_opts_t  super;
    const char       *image;
} main_opts_t;

typedef struct {
    const char   *name;
    main_mode_t   mode;             /* sets the mode, else */
    size_t        flag;             /* sets this int of wrk_super_opts_t, or */
    size_t        number;           /* takes a value for this uint32_t, or */
    const char   *value;            /* takes a text: PATH; or is ignored */
    uint32_t      min;
    uint32_t      max;
} main_option_t;

#define AT(field)  (1 + offsetof(wrk_super_opts_t, field))

static const main_option_t  options[] = {
    { "--supervise", MODE_SUPERVISE, 0, 0, NULL, 0, 0 },
    { "--worker", MODE_WORKER, 0, 0, NULL, 0, 0 },
    { "--check", MODE_CHECK, 0, 0, NULL, 0, 0 },
    { "--version", MODE_VERSION, 0, 0, NULL, 0, 0 },
    { "--help", MODE_HELP, 0, 0, NULL, 0, 0 },
    { "--keep", 0, AT(keep), 0, NULL, 0, 0 },
    { "--core", 0, AT(core), 0, NULL, 0, 0 },
    { "--verbose", 0, AT(verbose), 0, NULL, 0, 0 },
    { "--hang-ms", 0, 0, AT(hang_ms), NULL, WRK_SUPER_HANG_MS_MIN,
      WRK_SUPER_HANG_MS_MAX },
    { "--backoff-max-ms", 0, 0, AT(backoff_max_ms), NULL,
      WRK_SUPER_BACKOFF_MS_MIN, WRK_SUPER_BACKOFF_MS_MAX },
    { "--drain-ms", 0, 0, AT(drain_ms), NULL, 0, WRK_SUPER_DRAIN_MS_MAX },
    { "--socket", 0, 0, 0, "socket", 0, 0 },
    { "--image", 0, 0, 0, "image", 0, 0 },
    { "--name", 0, 0, 0, "", 0, 0 },        /* for ps(1) only */
    { "--index", 0, 0, 0, "", 0, 0 },
};

#define NOPTIONS  (sizeof(options) / sizeof(options[0]))

static const char  help[] =
    "usage: nginx-infer-worker --supervise --socket PATH [options]\n"
    "       nginx-infer-worker --check < CONFIGURATION\n"
    "       nginx-infer-worker --version\n"
    "\n"
    "nginx starts the supervisor by itself; start it by hand (or by a\n"
    "service manager) to run the pool as another user or with other\n"
    "limits.\n"
    "\n"
    "  --socket PATH          control socket; its folder must be ours, 0700\n"
    "  --keep                 wait for nginx for ever, never end by itself\n"
    "  --hang-ms N            kill a worker that stands still so long (60000)\n"
    "  --backoff-max-ms N     longest pause before a worker starts again\n"
    "                         (10000)\n"
    "  --drain-ms N           time for running requests after SIGTERM (30000)\n"
    "  --core                 allow core files\n"
    "  --verbose              more log lines\n";


static int parse_options(main_opts_t *o, int argc, char **argv);
static int set_option(main_opts_t *o, const main_option_t *opt,
    const char *value);
static int run_check(void);
static int run_worker(const main_opts_t *o, uint64_t started_ns);


int
main(int argc, char **argv)
{
    uint64_t         started_ns;
    main_opts_t      o = { MODE_NONE, WRK_SUPER_OPTS_INIT, NULL };
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    started_ns = (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;

    if (parse_options(&o, argc, argv) != 0) {
        return 2;
    }
    wrk_log_verbose(o.super.verbose);

    switch (o.mode) {

    case MODE_SUPERVISE:
        if (o.super.socket == NULL) {
            fprintf(stderr, "nginx-infer-worker: --supervise needs --socket "
                    "PATH\n");
            return 2;
        }
        return wrk_super_run(&o.super);

    case MODE_WORKER:
        return run_worker(&o, started_ns);

    case MODE_CHECK:
        return run_check();

    case MODE_VERSION:
        printf("nginx-infer-worker %s\nabi %016" PRIx64 "\n", INFER_VERSION,
               shr_abi_hash());
        return 0;

    case MODE_HELP:
        fputs(help, stdout);
        return 0;

    default:
        fputs(help, stderr);
        return 2;
    }
}


static int
parse_options(main_opts_t *o, int argc, char **argv)
{
    int          i, takes;
    size_t       k;
    const char  *value;

    for (i = 1; i < argc; i++) {
        for (k = 0; k < NOPTIONS; k++) {
            if (strcmp(argv[i], options[k].name) == 0) {
                break;
            }
        }
        if (k == NOPTIONS) {
            fprintf(stderr, "nginx-infer-worker: unknown option \"%s\"; "
                    "--help lists them\n", argv[i]);
            return -1;
        }

        takes = options[k].number != 0 || options[k].value != NULL;
        value = takes && i + 1 < argc ? argv[++i] : NULL;
        if (takes && value == NULL) {
            fprintf(stderr, "nginx-infer-worker: %s needs a value\n",
                    options[k].name);
            return -1;
        }
        if (set_option(o, &options[k], value) != 0) {
            return -1;
        }
    }
    return 0;
}


static int
set_option(main_opts_t *o, const main_option_t *opt, const char *value)
{
    char      *base = (char *) &o->super;
    uint64_t   n;

    if (opt->mode != MODE_NONE) {
        if (o->mode != MODE_NONE && o->mode != opt->mode) {
            fprintf(stderr, "nginx-infer-worker: %s does not go with another "
                    "mode\n", opt->name);
            return -1;
        }
        o->mode = opt->mode;

    } else if (opt->flag != 0) {
        *(int *) (base + opt->flag - 1) = 1;

    } else if (opt->number != 0) {
        if (wrk_conf_number(value, strlen(value), opt->min, opt->max, &n)) {
            fprintf(stderr, "nginx-infer-worker: %s \"%s\" is not a number "
                    "from %u to %u\n", opt->name, value, opt->min, opt->max);
            return -1;
        }
        *(uint32_t *) (base + opt->number - 1) = (uint32_t) n;

    } else if (strcmp(opt->value, "socket") == 0) {
        o->super.socket = value;

    } else if (strcmp(opt->value, "image") == 0) {
        o->image = value;
    }
    return 0;
}


static int
run_worker(const main_opts_t *o, uint64_t started_ns)
{
    wrk_loop_opts_t  loop;

    if (fcntl(WRK_FD_CTL, F_GETFD) < 0
        || fcntl(WRK_FD_WEIGHTS, F_GETFD) < 0)
    {
        fprintf(stderr, "nginx-infer-worker: --worker is for the supervisor "
                "only\n");
        return 2;
    }
    (void) fcntl(WRK_FD_CTL, F_SETFD, FD_CLOEXEC);
    (void) fcntl(WRK_FD_LOCK, F_SETFD, FD_CLOEXEC);
    (void) fcntl(WRK_FD_WEIGHTS, F_SETFD, FD_CLOEXEC);

    loop.ctl = WRK_FD_CTL;
    loop.weights_fd = WRK_FD_WEIGHTS;
    loop.tok_image = o->image;
    loop.started_ns = started_ns;
    return wrk_loop_run(&loop);
}


/* The whole input, or -1 when it is longer than a configuration may be. */
static ssize_t
read_input(char *buf, size_t cap)
{
    size_t   len = 0;
    ssize_t  n;

    for ( ;; ) {
        n = read(STDIN_FILENO, buf + len, cap - len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -1 : (ssize_t) len;
        }
        len += (size_t) n;
        if (len == cap) {
            return -1;
        }
    }
}


/* nginx -t may run as root, and the file is foreign: it is read with no right
 * to any other, before anything of it is believed. */
static int
check_model(const wrk_conf_t *conf, char *out, size_t cap, char *err)
{
    wrk_sandbox_t       sandbox = { !conf->sandbox, 0, 0 };
    wrk_sandbox_path_t  paths[] = {
        { conf->file, WRK_SANDBOX_READ },
        { conf->template_path, WRK_SANDBOX_READ },
        { conf->cache, WRK_SANDBOX_READ },      /* the tokenizer's image */
        { "/sys/devices/system/cpu", WRK_SANDBOX_READ }
    };

    (void) prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    wrk_sandbox_files(&sandbox, paths, sizeof(paths) / sizeof(paths[0]));

    return wrk_model_check(conf, out, cap, err);
}


static int
run_check(void)
{
    char        text[WRK_CONF_TEXT_MAX + 1];
    static char out[CHECK_OUT_MAX];
    char        err[WRK_MODEL_ERR_MAX], *p;
    ssize_t     len;
    wrk_conf_t  conf;

    _Static_assert(WRK_MODEL_ERR_MAX >= WRK_CONF_ERR_MAX, "err holds both");

    len = read_input(text, sizeof(text));
    if (len < 0) {
        printf("error the configuration is longer than %d bytes\n",
               WRK_CONF_TEXT_MAX);
        return 1;
    }
    if (wrk_conf_parse(&conf, text, (size_t) len, err) != 0
        || check_model(&conf, out, sizeof(out), err) != 0)
    {
        for (p = err; *p != '\0'; p++) {
            if ((unsigned char) *p < 0x20) {
                *p = ' ';               /* one line, whatever a file says */
            }
        }
        printf("error %s\n", err);
        return 1;
    }

    printf("ok\n%s", out);
    return 0;
}
