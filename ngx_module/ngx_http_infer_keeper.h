/* What the keeper knows of one pool: how far it is with attaching this
 * configuration's generation to it.  In the keeper's process alone. */

#ifndef NGX_HTTP_INFER_KEEPER_H
#define NGX_HTTP_INFER_KEEPER_H

#include <ngx_config.h>
#include <ngx_core.h>


typedef enum {
    NGX_HTTP_INFER_DETACHED = 0,
    NGX_HTTP_INFER_ATTACHING,
    NGX_HTTP_INFER_ATTACHED
} ngx_http_infer_keeper_state_e;

typedef struct {
    ngx_http_infer_keeper_state_e   state;
    ngx_connection_t               *connection;
    ngx_msec_t                      started;    /* supervisor, last time */
    ngx_msec_t                      since;      /* of this state */
    ngx_msec_t                      pinged;     /* 0: no answer is awaited */
    ngx_msec_t                      next;       /* when to look again */
    ngx_uint_t                      starts;     /* without success, so far */
    ngx_uint_t                      complained;
    ngx_uint_t                      quiet;      /* looks at an idle one */
    ngx_uint_t                      left;       /* for the pool after it */
    dev_t                           log_dev;    /* the pool's log, as it */
    ino_t                           log_ino;    /* was told; 0: not yet */
} ngx_http_infer_keeper_t;


#endif /* NGX_HTTP_INFER_KEEPER_H */
