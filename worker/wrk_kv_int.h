/*
 * Inside the scheduler: what wrk_sched_kv.c gives the others, the pages of
 * running sequences.  Included by wrk_sched_int.h, whose types it takes.
 */

#ifndef WRK_KV_INT_H
#define WRK_KV_INT_H


/* Prompt tokens are sent with the logits of the step. */
static inline int
wrk_seat_scores(const wrk_seat_t *seat)
{
    return seat->echo_at < seat->nprompt
           && (seat->request->flags & SHR_REQ_LOGPROBS);
}


/* Starts what can be started, with shared pages where there are some. */
void wrk_kv_starts(wrk_sched_t *s);
/* Pages for all tokens of order[at], at the cost of others; -1: it lost its
   own. */
int wrk_kv_grow(wrk_sched_t *s, uint32_t at);
/* Pages for up to k tokens more, if they cost nobody anything; how many. */
uint32_t wrk_kv_more(wrk_sched_t *s, wrk_seat_t *seat, uint32_t k);
/* Forgets what lies behind the computed positions. */
void wrk_kv_trim(wrk_sched_t *s, wrk_seat_t *seat);
/* More of the seat has been computed: full pages become known. */
void wrk_kv_computed(wrk_sched_t *s, wrk_seat_t *seat);
/* All its pages go back. */
void wrk_kv_give(wrk_sched_t *s, wrk_seat_t *seat);


#endif /* WRK_KV_INT_H */
