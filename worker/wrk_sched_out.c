/*
 * Everything that is said to a client: text through the streaming decoder and
 * the stop strings, log probabilities, ends, errors, replies of tokenize and
 * detokenize.
 *
 * Room: a step is planned with room for what it may say, and the frames that
 * end a request have room of their own (wrk_out_end_room), so a put cannot
 * fail while the sink keeps its word; if it does, the request counts as lost.
 */

#include <assert.h>
#include <string.h>

#include "worker/wrk_sched_int.h"


#define WRK_REPLY_TOKENS   500u     /* of one frame; 8 bytes each */
#define WRK_NO_LOGPROB     1.0f     /* of a choice's first prompt token: above
                                       0, so no probability */

_Static_assert(WRK_REPLY_TOKENS * 8 <= SHR_PAYLOAD_MAX, "fits a frame");
_Static_assert(sizeof(tok_span_t) == 8, "offsets go out as they are");


size_t
wrk_out_token_room(const wrk_sched_t *s, const wrk_seat_t *seat)
{
    size_t  room;

    /* the token and what a flush after it gives */
    room = wrk_frame_bytes(seat->pend_len + 2 * s->piece_room);

    if (seat->pend_len + 2 * s->piece_room > SHR_PAYLOAD_MAX) {
        room += wrk_frame_bytes(0);
    }

    if (seat->request->flags & SHR_REQ_LOGPROBS) {
        room += wrk_logprob_bytes(seat->request->top_logprobs);
    }

    return room;
}


size_t
wrk_out_end_room(const wrk_request_t *r)
{
    return (r->nchoices - r->finished) * wrk_frame_bytes(sizeof(shr_finish_t))
           + wrk_frame_bytes(sizeof(shr_start_t))
           + wrk_frame_bytes(sizeof(shr_usage_t))
           + WRK_ERROR_ROOM
           + wrk_frame_bytes(0);
}


void
wrk_out_start(wrk_request_t *r)
{
    wrk_sink_start(&r->sink, r->prompt_tokens,
                   wrk_sink_us(r->queued_ns, r->started_ns));
}


void
wrk_out_usage(wrk_request_t *r)
{
    shr_usage_t  usage;

    memset(&usage, 0, sizeof(usage));
    usage.prompt_tokens = r->prompt_tokens;
    usage.completion_tokens = r->completion_tokens;
    usage.cached_tokens = r->cached_tokens;
    usage.queue_us = wrk_sink_us(r->queued_ns, r->started_ns);
    usage.prefill_us = wrk_sink_us(r->started_ns, r->first_ns);
    usage.decode_us = wrk_sink_us(r->first_ns, r->last_ns);

    wrk_sink_usage(&r->sink, &usage);
}


/* --- text --------------------------------------------------------------- */

/* The largest n' <= n that does not end inside a character. */
static size_t
wrk_out_whole(const char *text, size_t len, size_t n)
{
    while (n > 0 && n < len && ((uint8_t) text[n] & 0xc0) == 0x80) {
        n--;
    }

    return n;
}


static uint32_t
wrk_out_chars(const char *text, size_t len)
{
    size_t    i;
    uint32_t  n;

    for (i = 0, n = 0; i < len; i++) {
        n += ((uint8_t) text[i] & 0xc0) != 0x80;
    }

    return n;
}


/* Sends the first n bytes of what is pending. */
static void
wrk_out_pend(wrk_seat_t *seat, size_t n)
{
    size_t  at, part;

    n = wrk_out_whole(seat->pend, seat->pend_len, n);

    for (at = 0; at < n; at += part) {
        part = wrk_min(n - at, (size_t) SHR_PAYLOAD_MAX);
        part = wrk_out_whole(seat->pend + at, seat->pend_len - at, part);

        if (part == 0) {
            /* No character starts in it: cannot be, the decoder gives whole
               ones.  Never loop on it. */
            part = n - at;
        }

        wrk_sink_put(&seat->request->sink, SHR_F_TEXT, seat->choice,
                     seat->pend + at, part, NULL, 0);
    }

    seat->pend_len -= (uint32_t) n;
    memmove(seat->pend, seat->pend + n, seat->pend_len);
}


/* New text: 1 when a stop string has ended in it; then nothing of it or after
 * it is left pending. */
static int
wrk_out_text(wrk_sched_t *s, wrk_seat_t *seat, const char *text, size_t len)
{
    size_t                 end, match;
    const wrk_stop_set_t  *stops;

    assert(len <= s->pend_cap - seat->pend_len);

    memcpy(seat->pend + seat->pend_len, text, len);
    seat->chars += wrk_out_chars(text, len);
    stops = &seat->request->stops;

    if (stops->n == 0) {
        seat->pend_len += (uint32_t) len;
        return 0;
    }

    match = wrk_stop_feed(stops, &seat->stop, text, len, &end);

    if (match == 0) {
        seat->pend_len += (uint32_t) len;
        return 0;
    }

    assert(match <= seat->pend_len + end);
    seat->pend_len += (uint32_t) (end - match);
    wrk_out_pend(seat, seat->pend_len);
    seat->pend_len = 0;

    return 1;
}


/* --- log probabilities -------------------------------------------------- */

static size_t
wrk_out_entry(wrk_sched_t *s, char *to, const wrk_logprob_t *lp)
{
    char                 *piece;
    size_t                len, padded;
    shr_logprob_entry_t   entry;

    piece = s->piece + s->piece_room;
    len = 0;

    if (tok_id_to_bytes(s->tok, lp->id, piece, s->piece_room, &len) != TOK_OK)
    {
        /* an id that the model has and the tokenizer does not */
        len = 0;
    }

    len = wrk_min(len, (size_t) SHR_TOKEN_TEXT_MAX);
    padded = (len + 3) & ~(size_t) 3;
    entry.id = lp->id;
    entry.logprob = lp->logprob;
    entry.len = (uint32_t) len;

    memcpy(to, &entry, sizeof(entry));
    memset(to + sizeof(entry), 0, padded);
    memcpy(to + sizeof(entry), piece, len);

    return sizeof(entry) + padded;
}


/* row NULL: there is none; then what to say without one. */
static void
wrk_out_logprob(wrk_sched_t *s, wrk_seat_t *seat, uint32_t id,
    const float *row, float without)
{
    char            buf[SHR_PAYLOAD_MAX];
    size_t          len;
    uint32_t        i, n;
    shr_logprob_t   head;
    wrk_logprob_t   lps[1 + WRK_SAMPLE_TOP_MAX];

    if (row != NULL) {
        n = wrk_sample_logprobs(s->sampler, row, id,
                                seat->request->top_logprobs, lps);

    } else {
        n = 1;
        lps[0].id = id;
        lps[0].logprob = without;
    }

    head.nentries = n;
    head.text_offset = seat->chars;
    memcpy(buf, &head, sizeof(head));

    for (i = 0, len = sizeof(head); i < n; i++) {
        len += wrk_out_entry(s, buf + len, &lps[i]);
        assert(len <= sizeof(buf));
    }

    wrk_sink_put(&seat->request->sink, SHR_F_LOGPROB, seat->choice, buf, len,
                 NULL, 0);
}


/* --- choices ------------------------------------------------------------ */

/* FINISH; the seat is free afterwards, and the request may have ended. */
static void
wrk_out_close(wrk_sched_t *s, wrk_seat_t *seat, shr_finish_reason_t reason)
{
    shr_finish_t    finish;
    wrk_request_t  *r;

    r = seat->request;
    finish.reason = reason;
    finish.tokens = seat->ntokens - seat->nprompt;

    wrk_sink_put(&r->sink, SHR_F_FINISH, seat->choice, &finish, sizeof(finish),
                 NULL, 0);
    wrk_seat_free(s, seat);

    if (++r->finished == r->nchoices) {
        wrk_request_end(s, r);
    }
}


void
wrk_out_finish(wrk_sched_t *s, wrk_seat_t *seat, shr_finish_reason_t reason)
{
    size_t  len;

    if (tok_stream_flush(&seat->stream, s->tok, s->piece, s->piece_room, &len)
        == TOK_OK && len != 0 && wrk_out_text(s, seat, s->piece, len))
    {
        reason = SHR_FINISH_STOP;
    }

    wrk_out_pend(seat, seat->pend_len);
    wrk_out_close(s, seat, reason);
}


static int
wrk_out_is_end(const wrk_sched_t *s, const wrk_request_t *r, uint32_t id)
{
    size_t  i;

    if ((r->flags & SHR_REQ_IGNORE_EOS) == 0) {
        for (i = 0; i < s->neos; i++) {
            if (s->eos[i] == id) {
                return 1;
            }
        }
    }

    for (i = 0; i < r->nstop_ids; i++) {
        if (r->stop_ids[i] == id) {
            return 1;
        }
    }

    return 0;
}


void
wrk_out_token(wrk_sched_t *s, wrk_seat_t *seat, uint32_t id, const float *row)
{
    size_t          len;
    wrk_request_t  *r;

    r = seat->request;
    assert(seat->ntokens < s->ctx);
    seat->tokens[seat->ntokens++] = id;

    if (wrk_out_is_end(s, r, id)) {
        wrk_out_finish(s, seat, SHR_FINISH_STOP);
        return;
    }

    if (r->flags & SHR_REQ_LOGPROBS) {
        wrk_out_logprob(s, seat, id, row, seat->nfound != 0
                        ? seat->logprobs[seat->ntokens - seat->nprompt - 1]
                        : 0);
    }

    if (tok_stream_step(&seat->stream, s->tok, id, s->piece, s->piece_room,
                        &len) != TOK_OK)
    {
        /* The model has more rows than the tokenizer has tokens. */
        len = 0;
    }

    if (wrk_out_text(s, seat, s->piece, len)) {
        wrk_out_close(s, seat, SHR_FINISH_STOP);
        return;
    }

    if (seat->ntokens - seat->nprompt == seat->max_tokens) {
        wrk_out_finish(s, seat, SHR_FINISH_LENGTH);
        return;
    }

    len = seat->pend_len - wrk_min(wrk_stop_hold(&r->stops, &seat->stop),
                                   (size_t) seat->pend_len);

    if (!wrk_out_keeps(r, len)) {
        wrk_out_pend(seat, len);
    }
}


/* --- echo --------------------------------------------------------------- */

/* The prompt's text is not searched for stop strings. */
static void
wrk_out_echo_text(wrk_sched_t *s, wrk_seat_t *seat)
{
    size_t  len;

    if (tok_stream_step(&seat->stream, s->tok, seat->tokens[seat->echo_at],
                        s->piece, s->piece_room, &len) != TOK_OK)
    {
        len = 0;
    }

    assert(len <= s->pend_cap - seat->pend_len);
    memcpy(seat->pend + seat->pend_len, s->piece, len);
    seat->pend_len += (uint32_t) len;
    seat->chars += wrk_out_chars(s->piece, len);
    seat->echo_at++;
}


void
wrk_out_echo(wrk_sched_t *s, wrk_seat_t *seat)
{
    size_t          need;
    wrk_request_t  *r;

    r = seat->request;

    while (seat->echo_at < seat->nprompt) {
        need = wrk_max(wrk_out_token_room(s, seat),
                       wrk_frame_bytes(WRK_ECHO_BYTES));

        if (need > r->room) {
            r->short_room = 1;
            break;
        }

        while (seat->echo_at < seat->nprompt
               && s->pend_cap - seat->pend_len > s->piece_room
               && wrk_frame_bytes(seat->pend_len + s->piece_room) <= need)
        {
            wrk_out_echo_text(s, seat);
        }

        r->room -= need;
        wrk_out_pend(seat, seat->pend_len);
    }
}


void
wrk_out_echo_token(wrk_sched_t *s, wrk_seat_t *seat, const float *row)
{
    wrk_out_logprob(s, seat, seat->tokens[seat->echo_at], row,
                    seat->echo_at == 0 ? WRK_NO_LOGPROB : 0.0f);
    wrk_out_echo_text(s, seat);
    wrk_out_pend(seat, seat->pend_len);
}


/* --- replies ------------------------------------------------------------ */

/* Sends up to a frame's worth from reply_at on; how much. */
static uint32_t
wrk_out_reply_part(wrk_request_t *r, uint32_t left)
{
    uint32_t  n, at;

    at = r->reply_at;

    if (r->text != NULL) {
        n = wrk_min(left, (uint32_t) SHR_PAYLOAD_MAX);
        n = (uint32_t) wrk_out_whole(r->text + at, left, n);
        wrk_sink_put(&r->sink, SHR_F_TEXT, r->reply_prompt, r->text + at, n,
                     NULL, 0);
        return n;
    }

    n = wrk_min(left, WRK_REPLY_TOKENS);
    wrk_sink_put(&r->sink, SHR_F_IDS, r->reply_prompt, r->ids + at,
                 n * sizeof(uint32_t), NULL, 0);

    if (r->offsets != NULL) {
        wrk_sink_put(&r->sink, SHR_F_OFFSETS, r->reply_prompt, r->offsets + at,
                     n * sizeof(tok_span_t), NULL, 0);
    }

    return n;
}


void
wrk_out_reply(wrk_sched_t *s, wrk_request_t *r)
{
    size_t    need;
    uint32_t  left;

    need = wrk_out_end_room(r) + wrk_frame_bytes(SHR_PAYLOAD_MAX);

    if (r->offsets != NULL) {
        need += wrk_frame_bytes(WRK_REPLY_TOKENS * sizeof(uint32_t));
    }

    while (r->reply_prompt < r->nprompts) {
        if (wrk_sink_room(&r->sink) < need) {
            if (!r->sink.waits_room) {
                wrk_sink_want_room(&r->sink, 1);
                continue;
            }

            wrk_sink_publish(&r->sink);
            return;
        }

        left = r->at[r->reply_prompt + 1] - r->reply_at;

        if (left != 0 || r->text == NULL) {
            r->reply_at += wrk_out_reply_part(r, left);
        }

        if (r->sink.lost) {
            wrk_request_drop(s, r);
            return;
        }

        r->reply_prompt += r->reply_at == r->at[r->reply_prompt + 1];
    }

    if (r->sink.waits_room) {
        wrk_sink_want_room(&r->sink, 0);
    }

    wrk_request_end(s, r);
}
