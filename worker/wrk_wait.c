/* The choice between the twins of wrk_wait.h. */

#include "worker/wrk_wait.h"

#include <errno.h>


wrk_wait_t *
wrk_wait_open(int want_uring, int *refused)
{
    wrk_wait_t  *w;

    *refused = 0;

    if (want_uring) {
        w = wrk_wait_open_uring();
        if (w != NULL) {
            return w;
        }
        *refused = errno;
    }

    return wrk_wait_open_epoll();
}
