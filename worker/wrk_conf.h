/*
 * The configuration of one model, as the nginx module writes it and hands it
 * to supervisor and workers: one `key value` per line.  The text is foreign
 * bytes: every number has a minimum and a maximum, an unknown or repeated key
 * is refused.
 *
 *   name NAME             shown in logs; required
 *   file PATH             the model; required
 *   workers N             1..32, default 1
 *   threads N             1..64, of each worker, default 2
 *   context N             0..1048576 tokens of a sequence; 0: the model's own
 *   batch N               1..65536 tokens of a step, default 512
 *   batch_delay_us N      0..1000000 that an encoder's batch waits, default 0
 *   sequences N           1..1024 running at once, default 64
 *   kv_bytes N            0..2^40; 0: context * sequences, 512 MiB at most
 *   prefix_cache 0|1      1: beginnings of prompts are kept, default 1
 *   kv_type f16|q8_0      how keys and values are kept, default f16
 *   speculate prompt_lookup|off   default off
 *   queue_requests N      0..65536 waiting, default 256
 *   queue_tokens N        0..2^30 of their prompts; 0: no limit; default 65536
 *   cache DIR|off         where prepared weights are kept, default off
 *   precision default|exact|float32|bfloat16|int8
 *   null 0|1              1: no model is run, a fixed answer is given
 *   null_delay_us N       0..60000000, of each step of the null engine
 *   null_tokens N         0..1000000 of each answer of it, default 64
 *   template PATH|-       a chat template instead of the file's own
 *   quantize TYPE|-       q8_0 ...: matrices of floats become this type
 *   nice N                0..19, default 10
 *   spin_us N             0..1000000 before sleeping, default 0
 *   affinity LIST|-       CPUs like 0,2,4-7
 *   io_uring 0|1          0: epoll, default 1
 *   sandbox 0|1           0: only no_new_privs, default 1
 *   stamp TEXT            which files nginx saw at these paths; not looked at:
 *                         it makes the text another when they are others
 *
 * A value may be "-" where nothing is meant.
 */

#ifndef WRK_CONF_H
#define WRK_CONF_H

#include <stddef.h>
#include <stdint.h>


#define WRK_CONF_TEXT_MAX   4096
#define WRK_CONF_NAME_MAX   64      /* bytes, the NUL included */
#define WRK_CONF_PATH_MAX   1024    /* bytes, the NUL included */
#define WRK_CONF_STAMP_MAX  17      /* bytes, the NUL included */
#define WRK_CONF_CPUS_MAX   256     /* entries of the list */
#define WRK_CONF_TYPE_MAX   16      /* bytes, the NUL included */
#define WRK_CONF_CPU_MAX    1023    /* largest CPU number */
#define WRK_CONF_ERR_MAX    256

#define WRK_KV_BYTES_DEFAULT  (512ull << 20)

/* default: what is usual for the kind of model; exact: the closest to the
 * file's own numbers that there is; the others are for encoders. */
typedef enum {
    WRK_PREC_DEFAULT = 0,
    WRK_PREC_EXACT,
    WRK_PREC_FLOAT32,
    WRK_PREC_BFLOAT16,
    WRK_PREC_INT8,
    WRK_NPRECS
} wrk_precision_t;

typedef struct {
    char      name[WRK_CONF_NAME_MAX];
    char      file[WRK_CONF_PATH_MAX];
    char      cache[WRK_CONF_PATH_MAX];         /* "": off */
    char      template_path[WRK_CONF_PATH_MAX]; /* "": the file's own */
    char      quantize[WRK_CONF_TYPE_MAX];      /* "": nothing */
    char      stamp[WRK_CONF_STAMP_MAX];
    uint32_t  workers;
    uint32_t  threads;
    uint32_t  context;
    uint32_t  batch;
    uint32_t  batch_delay_us;
    uint32_t  sequences;
    uint64_t  kv_bytes;
    uint32_t  kv_q8;                            /* q8_0 instead of f16 */
    uint32_t  prefix_cache;
    uint32_t  speculate;
    uint32_t  queue_requests;
    uint32_t  queue_tokens;
    uint32_t  precision;                        /* wrk_precision_t */
    uint32_t  null_engine;
    uint32_t  null_delay_us;
    uint32_t  null_tokens;
    uint32_t  nice;
    uint32_t  spin_us;
    uint32_t  io_uring;
    uint32_t  sandbox;
    uint32_t  ncpus;                            /* 0: no affinity */
    int       cpus[WRK_CONF_CPUS_MAX];
} wrk_conf_t;


/* Reads the text (no NUL needed).  0, or -1 with one line for people in err
 * (WRK_CONF_ERR_MAX bytes). */
int wrk_conf_parse(wrk_conf_t *conf, const char *text, size_t len, char *err);

/* A decimal number and nothing else; 0, or -1 when it is none or outside
 * [min, max]. */
int wrk_conf_number(const char *s, size_t len, uint64_t min, uint64_t max,
    uint64_t *value);


#endif /* WRK_CONF_H */
