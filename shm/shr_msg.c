/*
 * Writing and checking messages.  The checks are the door for bytes of the
 * other side: the caller has copied them, nothing here reads shared memory.
 */

#include <assert.h>
#include <math.h>
#include <string.h>

#include "shm/shr_error.h"
#include "shm/shr_msg.h"


static size_t
shr_pad8(size_t n)
{
    return (n + 7) & ~(size_t) 7;
}


void
shr_req_begin(shr_req_writer_t *w, void *buf, size_t cap, const shr_req_t *req)
{
    w->buf = buf;
    w->cap = cap;
    w->len = 0;
    w->err = 0;

    if (cap < sizeof(shr_req_t)) {
        w->err = -SHR_ETOOBIG;
        return;
    }

    memcpy(w->buf, req, sizeof(shr_req_t));
    ((shr_req_t *) w->buf)->nrecords = 0;
    w->len = sizeof(shr_req_t);
}


void
shr_req_add(shr_req_writer_t *w, uint32_t type, const void *data, size_t len)
{
    size_t        need;
    shr_record_t  record;

    if (w->err != 0) {
        return;
    }

    if (len > SHR_REQ_BYTES_MAX) {
        w->err = -SHR_ETOOBIG;
        return;
    }

    need = sizeof(record) + shr_pad8(len);

    if (need > w->cap - w->len
        || ((shr_req_t *) w->buf)->nrecords == SHR_REQ_RECORDS_MAX)
    {
        w->err = -SHR_ETOOBIG;
        return;
    }

    record.type = type;
    record.len = (uint32_t) len;
    memcpy(w->buf + w->len, &record, sizeof(record));
    w->len += sizeof(record);

    if (len != 0) {
        memcpy(w->buf + w->len, data, len);
        memset(w->buf + w->len + len, 0, shr_pad8(len) - len);
        w->len += shr_pad8(len);
    }

    ((shr_req_t *) w->buf)->nrecords++;
}


int
shr_req_end(shr_req_writer_t *w)
{
    shr_req_t  *req;

    if (w->err == 0 && w->len > SHR_REQ_BYTES_MAX) {
        w->err = -SHR_ETOOBIG;
    }

    if (w->err != 0) {
        return w->err;
    }

    req = (shr_req_t *) w->buf;
    req->magic = SHR_REQ_MAGIC;
    req->len = (uint32_t) w->len;

    return 0;
}


static int
shr_float_in(float v, float min, float max)
{
    /* false for a NaN */
    return v >= min && v <= max;
}


static int
shr_req_check_fixed(const shr_req_t *req, size_t len)
{
    if (req->magic != SHR_REQ_MAGIC || req->len != len
        || req->task == 0 || req->task >= SHR_TASK_MAX
        || (req->flags & ~SHR_REQ_FLAGS_ALL) != 0
        || req->nrecords > SHR_REQ_RECORDS_MAX
        || req->n == 0 || req->n > SHR_CHOICES_MAX
        || req->top_logprobs > 20
        || req->top_k < 0 || req->dims > SHR_DIMS_MAX
        || req->priority < SHR_PRIORITY_MIN
        || req->priority > SHR_PRIORITY_MAX || req->reserved != 0
        || req->beams > SHR_BEAMS_MAX)
    {
        return -SHR_EBROKEN;
    }

    if (!shr_float_in(req->temperature, 0, 100)
        || !shr_float_in(req->top_p, 0, 1)
        || !shr_float_in(req->min_p, 0, 1)
        || !shr_float_in(req->repetition_penalty, 0.01f, 100)
        || !shr_float_in(req->presence_penalty, -100, 100)
        || !shr_float_in(req->frequency_penalty, -100, 100)
        || !shr_float_in(req->length_penalty, -SHR_LENGTH_PENALTY,
                         SHR_LENGTH_PENALTY))
    {
        return -SHR_EBROKEN;
    }

    return 0;
}


static int
shr_record_check(const shr_record_t *record, const uint8_t *data)
{
    size_t      i;
    shr_bias_t  bias;

    switch (record->type) {

    case SHR_R_PROMPT_IDS:
    case SHR_R_STOP_IDS:
        return record->len % 4 == 0 ? 0 : -SHR_EBROKEN;

    case SHR_R_LOGIT_BIAS:
        if (record->len % sizeof(bias) != 0) {
            return -SHR_EBROKEN;
        }

        for (i = 0; i < record->len; i += sizeof(bias)) {
            memcpy(&bias, data + i, sizeof(bias));
            if (!shr_float_in(bias.bias, -1000, 1000)) {
                return -SHR_EBROKEN;
            }
        }

        return 0;

    case SHR_R_STOP:
    case SHR_R_QUERY:
        return record->len != 0 ? 0 : -SHR_EBROKEN;

    default:
        return record->type != 0 && record->type < SHR_R_MAX ? 0
                                                            : -SHR_EBROKEN;
    }
}


int
shr_req_check(const void *buf, size_t len)
{
    size_t          at, left;
    uint32_t        i;
    shr_req_t       req;
    shr_record_t    record;
    const uint8_t  *bytes;

    bytes = buf;

    if (len < sizeof(req) || len > SHR_REQ_BYTES_MAX || len % 8 != 0) {
        return -SHR_EBROKEN;
    }

    memcpy(&req, bytes, sizeof(req));

    if (shr_req_check_fixed(&req, len) != 0) {
        return -SHR_EBROKEN;
    }

    at = sizeof(req);

    for (i = 0; i < req.nrecords; i++) {
        left = len - at;

        if (left < sizeof(record)) {
            return -SHR_EBROKEN;
        }

        memcpy(&record, bytes + at, sizeof(record));
        left -= sizeof(record);

        if (record.len > left || shr_pad8(record.len) > left
            || shr_record_check(&record, bytes + at + sizeof(record)) != 0)
        {
            return -SHR_EBROKEN;
        }

        at += sizeof(record) + shr_pad8(record.len);
    }

    return at == len ? 0 : -SHR_EBROKEN;
}


const shr_record_t *
shr_req_next(const void *buf, size_t *pos)
{
    const uint8_t       *bytes;
    const shr_req_t     *req;
    const shr_record_t  *record;

    bytes = buf;
    req = buf;
    assert(req->magic == SHR_REQ_MAGIC);

    if (*pos == 0) {
        *pos = sizeof(shr_req_t);
    }

    if (*pos >= req->len) {
        return NULL;
    }

    record = (const shr_record_t *) (bytes + *pos);
    *pos += sizeof(*record) + shr_pad8(record->len);
    assert(*pos <= req->len);

    return record;
}


static int
shr_logprob_check(const uint8_t *bytes, size_t len)
{
    size_t               at, need;
    uint32_t             i;
    shr_logprob_t        lp;
    shr_logprob_entry_t  entry;

    if (len < sizeof(lp)) {
        return -SHR_EBROKEN;
    }

    memcpy(&lp, bytes, sizeof(lp));
    at = sizeof(lp);

    for (i = 0; i < lp.nentries; i++) {
        if (len - at < sizeof(entry)) {
            return -SHR_EBROKEN;
        }

        memcpy(&entry, bytes + at, sizeof(entry));
        at += sizeof(entry);
        need = ((size_t) entry.len + 3) & ~(size_t) 3;

        if (entry.len > SHR_TOKEN_TEXT_MAX || need > len - at
            || !shr_float_in(entry.logprob, -10000, 1))
        {
            return -SHR_EBROKEN;
        }

        at += need;
    }

    return lp.nentries != 0 && at == len ? 0 : -SHR_EBROKEN;
}


static int
shr_error_check(const uint8_t *bytes, size_t len)
{
    shr_error_t  error;

    if (len < sizeof(error)) {
        return -SHR_EBROKEN;
    }

    memcpy(&error, bytes, sizeof(error));
    len -= sizeof(error);

    if (error.code == 0 || error.code >= SHR_E_MAX || error.param_len > len
        || error.message_len != len - error.param_len)
    {
        return -SHR_EBROKEN;
    }

    return 0;
}


static int
shr_finish_check(const uint8_t *bytes, size_t len)
{
    shr_finish_t  finish;

    if (len != sizeof(finish)) {
        return -SHR_EBROKEN;
    }

    memcpy(&finish, bytes, sizeof(finish));

    return finish.reason != 0 && finish.reason < SHR_FINISH_MAX
           ? 0 : -SHR_EBROKEN;
}


/* Finite values of rows that the frame's choice may begin. */
static int
shr_values_check(const uint8_t *bytes, size_t len)
{
    float         v;
    size_t        at;
    shr_values_t  head;

    if (len <= sizeof(head) || len % sizeof(v) != 0) {
        return -SHR_EBROKEN;
    }

    memcpy(&head, bytes, sizeof(head));

    if (head.width == 0 || head.width > SHR_DIMS_MAX || head.at >= head.width)
    {
        return -SHR_EBROKEN;
    }

    for (at = sizeof(head); at < len; at += sizeof(v)) {
        memcpy(&v, bytes + at, sizeof(v));

        if (!isfinite(v)) {
            return -SHR_EBROKEN;
        }
    }

    return 0;
}


int
shr_frame_check(const shr_frame_t *frame, const void *payload)
{
    int  ok;

    if (frame->len > SHR_PAYLOAD_MAX) {
        return -SHR_EBROKEN;
    }

    switch (frame->type) {
    case SHR_F_START:
        ok = frame->len == sizeof(shr_start_t);
        break;
    case SHR_F_TEXT:
        ok = frame->len != 0;
        break;
    case SHR_F_LOGPROB:
        return shr_logprob_check(payload, frame->len);
    case SHR_F_FINISH:
        return shr_finish_check(payload, frame->len);
    case SHR_F_IDS:
        ok = frame->len % 4 == 0;
        break;
    case SHR_F_OFFSETS:
        ok = frame->len % 8 == 0;
        break;
    case SHR_F_USAGE:
        ok = frame->len == sizeof(shr_usage_t);
        break;
    case SHR_F_ERROR:
        return shr_error_check(payload, frame->len);
    case SHR_F_END:
        ok = frame->len == 0;
        break;
    case SHR_F_VALUES:
        return shr_values_check(payload, frame->len);
    case SHR_F_LABELS:
        ok = frame->len != 0
             && ((const uint8_t *) payload)[frame->len - 1] == '\0';
        break;
    default:
        ok = 0;
    }

    return ok ? 0 : -SHR_EBROKEN;
}
