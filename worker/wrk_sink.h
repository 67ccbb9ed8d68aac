/*
 * Where the frames of a request go, and what both schedulers (wrk_sched*.c,
 * wrk_esched*.c) say there alike: the start, the end, an error.
 *
 * A scheduler asks for room before it puts, so a put that fails is treated as
 * a lost client: nothing more is put, and the request is dropped.
 *
 * Who may call: the loop thread of an inference worker, tests.
 */

#ifndef WRK_SINK_H
#define WRK_SINK_H

#include <stddef.h>
#include <stdint.h>

#include "shm/shr_msg.h"
#include "worker/wrk_req.h"


/* Bytes of a frame in the ring. */
#define wrk_frame_bytes(payload)                                              \
    (sizeof(shr_frame_t) + (((size_t) (payload) + 7) & ~(size_t) 7))

#define WRK_ERROR_ROOM  768u            /* an error frame, its text included */


/*
 * What the loop gives; ctx is its entry for the request.  Sizes and meanings
 * are those of shr_server_*.
 */
typedef struct {
    /* 0, or negative: no room or too big. */
    int       (*put)(void *ctx, uint32_t type, uint32_t choice, const void *a,
                  size_t alen, const void *b, size_t blen);
    /* Bytes that can be put now; every frame takes its header, its payload
       and up to 7 bytes of padding. */
    uint32_t  (*room)(void *ctx);
    /* 0: cancelled, or nobody is there any more. */
    int       (*wanted)(void *ctx);
    /* What was put becomes visible; called at most once per step. */
    void      (*publish)(void *ctx);
    /* 1: a sequence is paused until the client has read; 0: no longer. */
    void      (*want_room)(void *ctx, int want);
    /* The last call for this ctx; publishes too.  Exactly once. */
    void      (*done)(void *ctx);
} wrk_sink_ops_t;

typedef struct {
    const wrk_sink_ops_t  *ops;
    void                  *ctx;
    uint8_t                dirty;       /* frames to publish */
    uint8_t                waits_room;  /* told the loop */
    uint8_t                lost;        /* a put failed */
} wrk_sink_t;


static inline uint32_t
wrk_sink_room(const wrk_sink_t *k)
{
    return k->ops->room(k->ctx);
}


/* 0: the client has gone. */
static inline int
wrk_sink_wanted(const wrk_sink_t *k)
{
    return !k->lost && k->ops->wanted(k->ctx);
}


static inline void
wrk_sink_want_room(wrk_sink_t *k, int want)
{
    k->waits_room = want != 0;
    k->ops->want_room(k->ctx, want);
}


static inline void
wrk_sink_publish(wrk_sink_t *k)
{
    k->dirty = 0;
    k->ops->publish(k->ctx);
}


/* A frame; a put that fails loses the client. */
void wrk_sink_put(wrk_sink_t *k, uint32_t type, uint32_t choice,
    const void *a, size_t alen, const void *b, size_t blen);

/* Microseconds between two times; 0 where one of them has not come. */
uint64_t wrk_sink_us(uint64_t from_ns, uint64_t to_ns);

/* The request has been accepted: before anything else. */
void wrk_sink_start(wrk_sink_t *k, uint32_t prompt_tokens, uint64_t queue_us);

/* These two end the answer; the request's owner calls done(). */
void wrk_sink_usage(wrk_sink_t *k, const shr_usage_t *usage);
void wrk_sink_error(wrk_sink_t *k, const wrk_req_error_t *err);

/*
 * For a request that never became one (too large, malformed): answers with
 * this error and ends it.
 */
void wrk_sink_refuse(shr_error_code_t code, const char *text,
    const wrk_sink_ops_t *ops, void *ctx);


#endif /* WRK_SINK_H */
