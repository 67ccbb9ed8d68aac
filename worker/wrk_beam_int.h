/*
 * Inside the scheduler: what wrk_sched_beam.c gives the others, beam searches
 * over text-to-text models.  Included by wrk_sched_int.h, whose types it takes.
 */

#ifndef WRK_BEAM_INT_H
#define WRK_BEAM_INT_H


/* Whether the request may be searched; -1: s->err says why not. */
int wrk_beam_check(wrk_sched_t *s, const wrk_request_t *r);
/* A seat has got its choice: places of the other beams; and gives them back. */
void wrk_beam_hold(wrk_sched_t *s, wrk_seat_t *seat);
void wrk_beam_release(wrk_sched_t *s, wrk_seat_t *seat);
/* The seat's sequence has pages and is empty. */
void wrk_beam_start(wrk_sched_t *s, const wrk_seat_t *seat);
/* A step of its search has run. */
void wrk_beam_apply(wrk_sched_t *s, wrk_seat_t *seat, uint64_t now_ns);
/* Sends what was found, as room allows; may end the choice. */
void wrk_beam_speak(wrk_sched_t *s, wrk_seat_t *seat);

/* Seats that each choice takes. */
static inline uint32_t
wrk_beam_seats(const wrk_request_t *r)
{
    return r->beams != 0 ? r->beams : 1;
}


#endif /* WRK_BEAM_INT_H */
