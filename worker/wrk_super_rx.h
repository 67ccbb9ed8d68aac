/*
 * Takes a generation apart over a control socket: an ATTACH message, then as
 * many FDS messages as its descriptors need.  One state per connection; used
 * by the supervisor towards the keeper and by a worker towards its
 * supervisor.  The bytes are foreign; descriptors are closed on any error.
 */

#ifndef WRK_SUPER_RX_H
#define WRK_SUPER_RX_H

#include "shm/shr_ctl.h"


/* Descriptors of the largest generation. */
#define WRK_RX_FDS_MAX  (1 + 2 * SHR_CLIENTS_MAX + 2 * SHR_WORKERS_MAX)

/* From supervisor to worker: lifeline, client regions, its own worker region,
 * client bells, its own doorbell.  shr_ctl_msg_t.worker is the worker's index,
 * with this bit where the clients' pids mean nothing to us (another pid
 * namespace). */
#define WRK_CTL_FOREIGN_PIDS   0x80000000u
#define wrk_ctl_worker_nfds(geom)  (3u + 2u * (geom)->nclients)

typedef struct {
    shr_ctl_msg_t  msg;                     /* the ATTACH */
    int            fds[WRK_RX_FDS_MAX + SHR_CTL_FDS_MAX];
    uint32_t       nfds;
    uint32_t       want;                    /* 0: no generation on its way */
    int            for_worker;              /* which list of descriptors */
} wrk_rx_t;


/* An empty state; for_worker: the supervisor is the sender. */
void wrk_rx_init(wrk_rx_t *rx, int for_worker);

/* Forgets a generation on its way; closes its descriptors. */
void wrk_rx_reset(wrk_rx_t *rx);

/*
 * Receives one message.  0: rx->msg is complete: a generation with rx->fds
 * (the caller takes them and sets rx->nfds to 0), a log with one of them, or
 * another message without descriptors.  -SHR_EAGAIN: nothing complete yet,
 * call again; *idle is 1 when the socket is empty.  Else an error, as of
 * shr_ctl_recv().
 */
int wrk_rx_read(wrk_rx_t *rx, int fd, int *idle);


#endif /* WRK_SUPER_RX_H */
