/*
 * What the encoder scheduler says: start, labels, values, the end or an error.
 * The end has room of its own in a ring (WRK_EOUT_END), so it can always be
 * said; a put that fails although there was room makes a request a lost one.
 */

#include <assert.h>
#include <string.h>

#include "worker/wrk_esched_int.h"
#include "worker/wrk_log.h"


#define WRK_EOUT_PART    256u           /* values: fewer are not hurried */
#define WRK_EOUT_TOKENS  400u           /* of a frame */

/* An error, or usage, and the end; START goes before. */
#define WRK_EOUT_END                                                          \
    (WRK_ERROR_ROOM + wrk_frame_bytes(sizeof(shr_usage_t))                    \
     + 2 * wrk_frame_bytes(sizeof(shr_start_t)))


void
wrk_eout_start(wrk_ereq_t *r)
{
    wrk_sink_start(&r->sink, r->ntokens,
                   wrk_sink_us(r->queued_ns, r->started_ns));
}


void
wrk_eout_error(wrk_ereq_t *r, const wrk_req_error_t *err)
{
    if (err->code == SHR_E_INTERNAL && !r->sink.lost) {
        wrk_log(WRK_LOG_ERROR, "request %s failed: %s", r->id, err->text);
    }

    wrk_sink_error(&r->sink, err);
}


static void
wrk_eout_usage(wrk_ereq_t *r)
{
    shr_usage_t  usage;

    memset(&usage, 0, sizeof(usage));
    usage.prompt_tokens = r->ntokens;
    usage.queue_us = wrk_sink_us(r->queued_ns, r->started_ns);
    usage.prefill_us = wrk_sink_us(r->started_ns, r->last_ns);

    wrk_sink_usage(&r->sink, &usage);
}


/* As the request wants it: shortened, normalised, probabilities. */
void
wrk_eout_row(const wrk_esched_t *s, wrk_ereq_t *r, uint32_t row, float *v)
{
    int                     normalize;
    const wrk_eeng_info_t  *info;

    info = &s->eng->info;
    assert(row == r->ready && row < r->ninputs);
    assert(row - r->sent / r->width < r->window);

    if (r->task == SHR_TASK_EMBED) {
        normalize = r->flags & SHR_REQ_NORMALIZE
                    || (info->normalize && !(r->flags & SHR_REQ_RAW));
        enc_vector(v, r->width, normalize);

    } else if (!(r->flags & SHR_REQ_RAW)) {
        enc_scores(v, r->width, info->score);
    }

    memcpy(r->rows + (size_t) (row % r->window) * r->width, v,
           r->width * sizeof(float));
    r->ready++;
}


/* --- sending ------------------------------------------------------------ */

/* Room beyond the end's, or 0 when there is less than `need` and the sink has
 * been told that we wait. */
static size_t
wrk_eout_room(wrk_ereq_t *r, size_t need)
{
    size_t  room;

    need += WRK_EOUT_END;
    room = wrk_sink_room(&r->sink);

    if (room < need && !r->sink.waits_room) {
        /* what is read from here on rings: look again */
        wrk_sink_want_room(&r->sink, 1);
        room = wrk_sink_room(&r->sink);
    }

    return room < need ? 0 : room - WRK_EOUT_END;
}


/* The names of the classes, as many as fit a frame.  0: no room. */
static int
wrk_eout_labels(const wrk_esched_t *s, wrk_ereq_t *r)
{
    char         buf[2048];
    size_t       len, n;
    const char  *name;

    _Static_assert(sizeof(buf) >= ENC_LABEL_MAX, "a name fits");

    if (wrk_eout_room(r, wrk_frame_bytes(sizeof(buf))) == 0) {
        return 0;
    }

    for (len = 0; r->labels_sent < r->nlabels; r->labels_sent++) {
        name = s->eng->ops->label(s->eng->ctx, r->labels_sent);
        n = strnlen(name, ENC_LABEL_MAX - 1);

        if (n + 1 > sizeof(buf) - len) {
            break;
        }

        memcpy(buf + len, name, n);
        buf[len + n] = '\0';
        len += n + 1;
    }

    wrk_sink_put(&r->sink, SHR_F_LABELS, 0, buf, len, NULL, 0);

    return 1;
}


/* Values in a row in the window, as many as fit a frame.  0: no room. */
static int
wrk_eout_values(wrk_ereq_t *r)
{
    size_t        room, at, n;
    uint32_t      row;
    shr_values_t  head;

    /* up to where the window begins again */
    row = (uint32_t) (r->sent / r->width);
    at = r->sent % ((size_t) r->window * r->width);
    n = (size_t) r->window * r->width - at;
    n = wrk_min(n, (size_t) r->ready * r->width - r->sent);
    n = wrk_min(n, (size_t) SHR_VALUES_MAX);

    room = wrk_eout_room(r, wrk_frame_bytes(sizeof(head)
                             + wrk_min(n, (size_t) WRK_EOUT_PART) * 4));
    if (room == 0) {
        return 0;
    }

    n = wrk_min(n, (room - wrk_frame_bytes(sizeof(head)) - 8) / 4);
    head.width = r->width;
    head.at = (uint32_t) (r->sent % r->width);
    wrk_sink_put(&r->sink, SHR_F_VALUES, row, &head, sizeof(head),
                 r->rows + at, n * sizeof(float));
    r->sent += n;

    return 1;
}


/* Tokens, and where they stand in the text, as many as fit a frame.  0: no
 * room. */
static int
wrk_eout_tokens(wrk_ereq_t *r)
{
    uint32_t  n;

    if (wrk_eout_room(r, wrk_frame_bytes(WRK_EOUT_TOKENS * 4)
                         + wrk_frame_bytes(WRK_EOUT_TOKENS * 8)) == 0)
    {
        return 0;
    }

    n = wrk_min(r->ntokens - (uint32_t) r->sent, WRK_EOUT_TOKENS);
    wrk_sink_put(&r->sink, SHR_F_IDS, 0, r->ids + r->sent,
                 n * sizeof(uint32_t), NULL, 0);

    if (r->offsets != NULL) {
        wrk_sink_put(&r->sink, SHR_F_OFFSETS, 0, r->offsets + r->sent,
                     n * sizeof(tok_span_t), NULL, 0);
    }

    r->sent += n;

    return 1;
}


/* 1: all was said. */
static int
wrk_eout_all_sent(const wrk_ereq_t *r)
{
    return r->sent == (r->task == SHR_TASK_TOKENIZE
                       ? r->ntokens : (uint64_t) r->ninputs * r->width);
}


void
wrk_eout_send(wrk_esched_t *s, wrk_ereq_t *r)
{
    int  more;

    more = 1;

    while (more && !r->sink.lost && r->task == SHR_TASK_TOKENIZE
           && r->sent < r->ntokens)
    {
        more = wrk_eout_tokens(r);
    }

    while (more && !r->sink.lost && r->ready != 0
           && r->labels_sent < r->nlabels)
    {
        more = wrk_eout_labels(s, r);
    }

    while (more && !r->sink.lost && r->sent < (uint64_t) r->ready * r->width) {
        more = wrk_eout_values(r);
    }

    if (r->sink.lost) {
        wrk_ereq_drop(s, r);
        return;
    }

    if (more && r->sink.waits_room) {
        wrk_sink_want_room(&r->sink, 0);
    }

    if (wrk_eout_all_sent(r)) {
        wrk_eout_usage(r);
        wrk_ereq_done(s, r);
        return;
    }

    if (r->sink.dirty) {
        wrk_sink_publish(&r->sink);
    }
}
