/*
 * Who of those that wait is next: the highest priority, inside it the key that
 * has got the fewest tokens, inside that the oldest.
 *
 * Shares are kept by counting the tokens that each key has got (Sheng et al.,
 * "Fairness in Serving Large Language Models", OSDI 2024): a key that comes
 * back after a while without requests starts where the one served last stands,
 * so nobody saves up, and nobody pays for a time when he was alone.
 *
 * A priority goes up by one for each WRK_FAIR_AGE_NS that its requests have
 * waited without one of them being taken, so none starves.
 *
 * One process, one thread.  Memory is taken in wrk_fair_init(); an item lies
 * in what waits and is the caller's.
 */

#ifndef WRK_FAIR_H
#define WRK_FAIR_H

#include <stddef.h>
#include <stdint.h>

#include "shm/shr_msg.h"
#include "worker/wrk_link.h"


#define WRK_FAIR_AGE_NS    1000000000u
#define WRK_FAIR_IDLE      256u     /* keys without requests, remembered */
#define WRK_FAIR_BANDS     (SHR_PRIORITY_MAX - SHR_PRIORITY_MIN + 1)


typedef struct wrk_fair_key_s  wrk_fair_key_t;

/* One key at one priority. */
struct wrk_fair_key_s {
    wrk_link_t       link;          /* free, idle or its band's waiting keys */
    wrk_link_t       items;         /* that wait, the oldest first */
    wrk_fair_key_t  *next;          /* of its hash */
    uint64_t         key;
    uint64_t         tokens;        /* it has got */
    uint32_t         held;          /* items that wait or run */
    uint32_t         waiting;
    uint32_t         band;
};

/* Of a request, while the scheduler holds it. */
typedef struct {
    wrk_link_t       link;          /* waiting */
    wrk_fair_key_t  *key;           /* NULL: not held */
    int              waits;
} wrk_fair_item_t;

typedef struct {
    wrk_link_t       keys;          /* that have items waiting */
    uint64_t         tokens;        /* of the key taken last, at that time */
    uint64_t         since_ns;      /* items wait, and none was taken */
} wrk_fair_band_t;

typedef struct {
    wrk_fair_band_t  bands[WRK_FAIR_BANDS];
    wrk_link_t       free, idle;    /* keys; idle: the oldest first */
    uint32_t         nkeys;
    uint32_t         nhash;         /* a power of two */
    wrk_fair_key_t  *keys;
    wrk_fair_key_t **hash;
} wrk_fair_t;


/* For at most nitems at a time; 0, or -1: no memory. */
int wrk_fair_init(wrk_fair_t *f, uint32_t nitems);
void wrk_fair_destroy(wrk_fair_t *f);

/* The item waits from now on.  priority is within SHR_PRIORITY_MIN and _MAX. */
void wrk_fair_push(wrk_fair_t *f, wrk_fair_item_t *item, uint64_t key,
    int32_t priority, uint64_t now_ns);
/* Who is next; NULL: nobody waits.  Changes nothing. */
wrk_fair_item_t *wrk_fair_next(wrk_fair_t *f, uint64_t now_ns);
/* It waits no longer: it was taken and runs. */
void wrk_fair_take(wrk_fair_t *f, wrk_fair_item_t *item, uint64_t now_ns);
/* It is gone; nothing happens when it is not held. */
void wrk_fair_leave(wrk_fair_t *f, wrk_fair_item_t *item);
/* Who gives up his place when there is none left for a newcomer: somebody with
 * a lower priority, else one of the key that has the most waiting, if that has
 * more than the newcomer's.  The youngest; NULL: nobody. */
wrk_fair_item_t *wrk_fair_yield(wrk_fair_t *f, uint64_t key,
    int32_t priority);
/* It got so many tokens. */
void wrk_fair_charge(wrk_fair_item_t *item, uint32_t tokens);


#endif /* WRK_FAIR_H */
