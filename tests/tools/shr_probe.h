/* Inside shr_probe: what its two files share. */

#ifndef SHR_PROBE_H
#define SHR_PROBE_H

#include <stdint.h>

#include "shm/shr_client.h"
#include "shm/shr_ctl.h"


#define REQUESTS_MAX  4096
#define NAME_MAX_     32
#define LINE_MAX_     (1 << 16)
#define REQ_MAX       (1 << 17)
#define BENCH_MAX     2000000

typedef struct {
    char      name[NAME_MAX_];
    int       used;
    int       ended;
    int       paused;
    uint32_t  slot;
    uint64_t  begin_ns;
} request_t;

typedef struct {
    const char     *socket;
    shr_geom_t      geom;
    shr_ctl_msg_t   hello;
    int             ctl;
    int             lifeline;                   /* write end: ours */
    int             nfds;
    int             fds[600];
    void           *clients[SHR_CLIENTS_MAX];
    void           *workers[SHR_WORKERS_MAX];
    shr_client_t   *me;
    request_t       requests[REQUESTS_MAX];
    uint64_t        tokens;                     /* text frames' tokens */
    int             quiet;
} probe_t;


/* Ends the program with errno's text. */
void probe_die(const char *what) __attribute__((noreturn));
/* One line of output, at once. */
void probe_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
uint64_t probe_clock(void);

/* The client end of nginx process `index`, and its bell. */
shr_client_t *probe_open(probe_t *p, uint32_t index);
int probe_bell(const probe_t *p, uint32_t index);

/* shr_probe_req.c: requests, and what the commands of these names do. */
request_t *probe_find(probe_t *p, const char *name);
int probe_send(shr_client_t *c, const char *text, uint32_t max_tokens,
    int chat, uint32_t worker, uint32_t *slot);
void probe_submit(probe_t *p, const char *name, uint32_t worker,
    uint32_t max_tokens, const char *text, int chat);
void probe_read(probe_t *p, uint32_t ms);
void probe_bench(probe_t *p, uint32_t total, uint32_t concurrent,
    uint32_t worker, uint32_t max_tokens, const char *text);


#endif /* SHR_PROBE_H */
