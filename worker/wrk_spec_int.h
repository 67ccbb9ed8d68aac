/*
 * Inside the scheduler: what wrk_sched_spec.c gives the others, guesses of
 * tokens to come.  Included by wrk_sched_int.h, whose types it takes.
 */

#ifndef WRK_SPEC_INT_H
#define WRK_SPEC_INT_H


/* A step: whether guesses are worth it now. */
void wrk_spec_begin(wrk_sched_t *s);
/* A seat has got its request: nothing is known of its text. */
void wrk_spec_start(wrk_seat_t *seat);
/* Writes drafts behind the seat's tokens, with pages and room for them; how
   many.  The seat's own next token has both already. */
uint32_t wrk_spec_draft(wrk_sched_t *s, wrk_seat_t *seat);
/* So many of k drafts were right. */
void wrk_spec_learn(wrk_sched_t *s, wrk_seat_t *seat, uint32_t k,
    uint32_t right);


#endif /* WRK_SPEC_INT_H */
