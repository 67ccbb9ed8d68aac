/*
 * A client for tests: takes frames, checks their order, keeps what was said,
 * reads as fast or slowly as the test wants.
 */

#ifndef FAKE_SINK_H
#define FAKE_SINK_H

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "shm/shr_msg.h"
#include "worker/wrk_sched.h"


/* A simulation with thousands of them brings its own, smaller ones. */
#ifndef SINK_TEXT_MAX
#define SINK_TEXT_MAX     8192u
#define SINK_CHOICES      128u
#define SINK_LOGPROBS_MAX 512u
#define SINK_IDS_MAX      4096u
#define SINK_VALUES_MAX   65536u
#endif

#ifndef SINK_VALUES_MAX
#define SINK_VALUES_MAX   1u
#endif


typedef struct {
    char      text[SINK_TEXT_MAX];
    uint32_t  len;
    uint32_t  reason;               /* of FINISH; 0: not yet */
    uint32_t  tokens;
} sink_choice_t;

typedef struct {
    uint32_t       cap, unread;     /* bytes of the ring */
    int            cancelled, done, want_room;
    int            start, usage, error, end;
    uint32_t       publishes;
    shr_start_t    started;
    shr_usage_t    used;
    shr_error_t    failed;
    char           message[1024];   /* param, then message */
    uint32_t       nids, noffsets;
    uint32_t       ids[SINK_IDS_MAX];
    uint32_t       nlogprobs;
    struct {
        uint32_t  id, n, offset;
        float     logprob;
    } logprobs[SINK_LOGPROBS_MAX];
    uint32_t       width, nvalues, nlabel_bytes;
    float          values[SINK_VALUES_MAX];
    char           labels[1024];
    uint64_t       first_ns, last_text_ns, gap_ns;
    const uint64_t *clock;
    sink_choice_t  choices[SINK_CHOICES];
} sink_t;


static inline void
sink_text(sink_t *k, uint32_t choice, const void *a, size_t alen)
{
    sink_choice_t  *c = &k->choices[choice];

    assert(c->reason == 0 && alen > 0);
    assert(alen < SINK_TEXT_MAX - c->len);
    memcpy(c->text + c->len, a, alen);
    c->len += (uint32_t) alen;
    c->text[c->len] = '\0';

    if (k->clock != NULL) {
        if (k->last_text_ns != 0 && *k->clock - k->last_text_ns > k->gap_ns) {
            k->gap_ns = *k->clock - k->last_text_ns;
        }

        k->last_text_ns = *k->clock;
    }
}


static inline void
sink_logprob(sink_t *k, const uint8_t *p)
{
    shr_logprob_t        head;
    shr_logprob_entry_t  entry;

    assert(k->nlogprobs < SINK_LOGPROBS_MAX);
    memcpy(&head, p, sizeof(head));
    memcpy(&entry, p + sizeof(head), sizeof(entry));
    k->logprobs[k->nlogprobs].id = entry.id;
    k->logprobs[k->nlogprobs].n = head.nentries;
    k->logprobs[k->nlogprobs].offset = head.text_offset;
    k->logprobs[k->nlogprobs].logprob = entry.logprob;
    k->nlogprobs++;
}


/* Values go on exactly where the last frame stopped. */
static inline void
sink_values(sink_t *k, uint32_t row, const uint8_t *p, size_t len)
{
    shr_values_t  head;

    memcpy(&head, p, sizeof(head));
    len -= sizeof(head);
    k->width = k->width != 0 ? k->width : head.width;
    assert(head.width == k->width && k->start == 1);
    assert(row * head.width + head.at == k->nvalues);
    assert(len / 4 <= SINK_VALUES_MAX - k->nvalues);
    memcpy(k->values + k->nvalues, p + sizeof(head), len);
    k->nvalues += (uint32_t) len / 4;
}


static inline void
sink_frame(sink_t *k, uint32_t type, uint32_t choice, const uint8_t *p,
    size_t len)
{
    shr_finish_t  finish;

    switch (type) {

    case SHR_F_START:
        assert(k->start++ == 0);
        memcpy(&k->started, p, sizeof(k->started));
        break;

    case SHR_F_TEXT:
        sink_text(k, choice, p, len);
        break;

    case SHR_F_LOGPROB:
        sink_logprob(k, p);
        break;

    case SHR_F_FINISH:
        memcpy(&finish, p, sizeof(finish));
        assert(k->choices[choice].reason == 0);
        k->choices[choice].reason = finish.reason;
        k->choices[choice].tokens = finish.tokens;
        break;

    case SHR_F_IDS:
        assert(len / 4 <= SINK_IDS_MAX - k->nids);
        memcpy(k->ids + k->nids, p, len);
        k->nids += (uint32_t) len / 4;
        break;

    case SHR_F_OFFSETS:
        k->noffsets += (uint32_t) len / 8;
        break;

    case SHR_F_USAGE:
        assert(k->usage++ == 0 && k->error == 0);
        memcpy(&k->used, p, sizeof(k->used));
        break;

    case SHR_F_ERROR:
        assert(k->error++ == 0 && k->usage == 0);
        memcpy(&k->failed, p, sizeof(k->failed));
        memcpy(k->message, p + sizeof(shr_error_t),
               len - sizeof(shr_error_t));
        break;

    case SHR_F_END:
        assert(k->end++ == 0);
        break;

    case SHR_F_VALUES:
        sink_values(k, choice, p, len);
        break;

    case SHR_F_LABELS:
        assert(k->nvalues == 0);
        assert(len <= sizeof(k->labels) - k->nlabel_bytes);
        memcpy(k->labels + k->nlabel_bytes, p, len);
        k->nlabel_bytes += (uint32_t) len;
        break;
    }
}


static inline int
sink_put(void *ctx, uint32_t type, uint32_t choice, const void *a,
    size_t alen, const void *b, size_t blen)
{
    sink_t    *k = ctx;
    uint32_t   bytes;
    _Alignas(8) uint8_t  buf[SHR_FRAME_MAX];
    shr_frame_t          frame;

    assert(!k->done && k->end == 0 && alen + blen <= SHR_PAYLOAD_MAX);
    bytes = (uint32_t) (sizeof(frame) + ((alen + blen + 7) & ~(size_t) 7));

    /* the scheduler has asked before */
    assert(bytes <= k->cap - k->unread);
    k->unread += bytes;

    if (alen != 0) {
        memcpy(buf, a, alen);
    }

    if (blen != 0) {
        memcpy(buf + alen, b, blen);
    }

    frame.type = (uint16_t) type;
    frame.choice = (uint16_t) choice;
    frame.len = (uint32_t) (alen + blen);
    assert(shr_frame_check(&frame, buf) == 0);
    assert(choice < SINK_CHOICES || type == SHR_F_VALUES);
    sink_frame(k, type, choice, buf, frame.len);

    return 0;
}


static inline uint32_t
sink_room(void *ctx)
{
    sink_t  *k = ctx;

    assert(!k->done);
    return k->cap - k->unread;
}


static inline int
sink_wanted(void *ctx)
{
    sink_t  *k = ctx;

    assert(!k->done);
    return !k->cancelled;
}


static inline void
sink_publish(void *ctx)
{
    ((sink_t *) ctx)->publishes++;
}


static inline void
sink_want_room(void *ctx, int want)
{
    sink_t  *k = ctx;

    assert(!k->done);
    k->want_room = want;
}


static inline void
sink_done(void *ctx)
{
    sink_t  *k = ctx;

    assert(k->done++ == 0);
    assert(k->end == 1 || k->cancelled);
}


static const wrk_sink_ops_t  sink_ops = {
    sink_put, sink_room, sink_wanted, sink_publish, sink_want_room, sink_done
};


static inline void
sink_init(sink_t *k, uint32_t cap)
{
    memset(k, 0, sizeof(*k));
    k->cap = cap;
}


#endif /* FAKE_SINK_H */
