/* See wrk_super_rx.h. */

#include "worker/wrk_super_rx.h"

#include <assert.h>
#include <unistd.h>

#include "shm/shr_error.h"


void
wrk_rx_init(wrk_rx_t *rx, int for_worker)
{
    rx->nfds = 0;
    rx->want = 0;
    rx->for_worker = for_worker;
}


void
wrk_rx_reset(wrk_rx_t *rx)
{
    assert(rx->nfds <= sizeof(rx->fds) / sizeof(rx->fds[0]));

    while (rx->nfds > 0) {
        close(rx->fds[--rx->nfds]);
    }
    rx->want = 0;
}


/* The start of a generation: how many descriptors must come. */
static int
begin(wrk_rx_t *rx, const shr_ctl_msg_t *msg)
{
    if (rx->want != 0) {
        return -SHR_EBROKEN;
    }
    if (shr_geom_check(&msg->geom) != 0) {
        return -SHR_EBROKEN;
    }
    rx->want = rx->for_worker ? wrk_ctl_worker_nfds(&msg->geom)
                              : shr_ctl_nfds(&msg->geom);
    assert(rx->want <= WRK_RX_FDS_MAX);
    rx->msg = *msg;
    return 0;
}


static int
take(wrk_rx_t *rx, const shr_ctl_msg_t *msg)
{
    rx->nfds += msg->nfds;          /* they lie there already */

    if (msg->type == SHR_CTL_ATTACH) {
        if (begin(rx, msg) != 0) {
            return -SHR_EBROKEN;
        }

    } else if (msg->type == SHR_CTL_FDS) {
        if (rx->want == 0) {
            return -SHR_EBROKEN;
        }

    } else {
        /* in between, a log brings a descriptor that is not of the rest */
        if (rx->want != 0
            || msg->nfds != (msg->type == SHR_CTL_LOG ? 1u : 0u))
        {
            return -SHR_EBROKEN;
        }
        rx->msg = *msg;
        return 0;
    }

    if (rx->nfds > rx->want || (rx->nfds < rx->want && msg->nfds == 0)) {
        return -SHR_EBROKEN;
    }
    if (rx->nfds < rx->want) {
        return -SHR_EAGAIN;
    }
    rx->want = 0;
    return 0;
}


int
wrk_rx_read(wrk_rx_t *rx, int fd, int *idle)
{
    int            rc;
    shr_ctl_msg_t  msg;

    assert(rx->nfds <= WRK_RX_FDS_MAX);

    *idle = 0;
    rc = shr_ctl_recv(fd, &msg, rx->fds + rx->nfds);

    if (rc == -SHR_EAGAIN) {
        *idle = 1;
        return rc;
    }
    if (rc == 0) {
        rc = take(rx, &msg);
    }
    if (rc != 0 && rc != -SHR_EAGAIN) {
        wrk_rx_reset(rx);
    }
    return rc;
}
