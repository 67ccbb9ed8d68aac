/*
 * Inside the scheduler: what wrk_sched_out.c gives the others, the frames of
 * a request.  Included by wrk_sched_int.h, whose types it takes.
 */

#ifndef WRK_OUT_INT_H
#define WRK_OUT_INT_H


/* A log-probability frame with ntop alternatives, at most. */
#define wrk_logprob_bytes(ntop)                                               \
    wrk_frame_bytes(sizeof(shr_logprob_t) + (1 + (size_t) (ntop))             \
                    * (sizeof(shr_logprob_entry_t) + SHR_TOKEN_TEXT_MAX))


/* Bytes that a token of this seat may need, and the ends of its request. */
size_t wrk_out_token_room(const wrk_sched_t *s, const wrk_seat_t *seat);
size_t wrk_out_end_room(const wrk_request_t *r);
/* Whether so much text waits for more: nobody reads it before the end.  With
 * several choices, what each keeps might be more than the ring can promise. */
static inline int
wrk_out_keeps(const wrk_request_t *r, size_t len)
{
    return (r->flags & (SHR_REQ_WHOLE | SHR_REQ_LOGPROBS)) == SHR_REQ_WHOLE
           && r->nchoices == 1 && len < WRK_WHOLE_BYTES;
}


void wrk_out_start(wrk_request_t *r);
void wrk_out_usage(wrk_request_t *r);

/* A generated token: text, stop strings, limits; may end the choice and so
   free the seat and end the request. */
void wrk_out_token(wrk_sched_t *s, wrk_seat_t *seat, uint32_t id,
    const float *row);
/* Ends a choice without a further token. */
void wrk_out_finish(wrk_sched_t *s, wrk_seat_t *seat,
    shr_finish_reason_t reason);
/* Echoes prompt tokens without log probabilities, as room allows. */
void wrk_out_echo(wrk_sched_t *s, wrk_seat_t *seat);
/* Echoes one prompt token; row: logits before it, NULL for the first. */
void wrk_out_echo_token(wrk_sched_t *s, wrk_seat_t *seat, const float *row);
/* Sends what there is room for of a reply; ends the request after the last. */
void wrk_out_reply(wrk_sched_t *s, wrk_request_t *r);


#endif /* WRK_OUT_INT_H */
