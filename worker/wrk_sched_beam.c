/*
 * Beam searches.  A search is one seat whose steps the engine answers with
 * "not yet" (wrk_t2t.h); its other beams have no seats but count as such, so
 * that the engine's sequences and the rows of a step are enough for all.
 *
 * The seat's tokens are not known before the search is over: until then each
 * step appends one that means nothing.  What was found goes through the same
 * door as sampled tokens, so stop strings and limits cut it as they do there.
 */

#include <assert.h>

#include "worker/wrk_sched_int.h"
#include "worker/wrk_t2t.h"


_Static_assert(SHR_BEAMS_MAX == ENC_BEAMS_MAX, "one limit");


/* A field that asks for what a search does not do; NULL: none. */
static const char *
wrk_beam_against(const wrk_sched_t *s, const wrk_request_t *r)
{
    const wrk_sample_params_t  *p;

    p = &r->sample;

    return r->n != 1 ? "n"
           : p->temperature != 0 ? "temperature"
           : p->top_p != 1 ? "top_p"
           : p->top_k != 0 ? "top_k"
           : p->min_p != 0 ? "min_p"
           : p->repetition != 1 ? "repetition_penalty"
           : p->presence != 0 ? "presence_penalty"
           : p->frequency != 0 ? "frequency_penalty"
           : s->req.nbias != 0 ? "logit_bias"
           : r->flags & SHR_REQ_IGNORE_EOS ? "ignore_eos"
           : r->top_logprobs == 0 ? NULL
           : r->task == SHR_TASK_CHAT ? "top_logprobs" : "logprobs";
}


int
wrk_beam_check(wrk_sched_t *s, const wrk_request_t *r)
{
    const char  *param;

    if (r->beams == 0) {
        return 0;
    }

    if (!s->opts.beams) {
        return wrk_req_fail(&s->err, SHR_E_UNSUPPORTED, "num_beams",
                            "beam search is for text-to-text models, the "
                            "model \"%s\" only decodes", s->opts.name);
    }

    if (r->beams > s->nseats) {
        return wrk_req_fail(&s->err, SHR_E_INVALID, "num_beams",
                            "a search with %u beams needs as many sequences, "
                            "the model \"%s\" has %u", r->beams,
                            s->opts.name, s->nseats);
    }

    param = wrk_beam_against(s, r);

    if (param != NULL) {
        return wrk_req_fail(&s->err, SHR_E_INVALID, param,
                            "a beam search (num_beams %u) cannot do what "
                            "\"%s\" asks for", r->beams, param);
    }

    return 0;
}


void
wrk_beam_hold(wrk_sched_t *s, wrk_seat_t *seat)
{
    seat->nfound = 0;
    seat->held = wrk_beam_seats(seat->request) - 1;
    s->nheld += seat->held;
    assert(s->nused + s->nheld <= s->nseats);
}


void
wrk_beam_release(wrk_sched_t *s, wrk_seat_t *seat)
{
    assert(s->nheld >= seat->held);
    s->nheld -= seat->held;
    seat->held = 0;
}


void
wrk_beam_start(wrk_sched_t *s, const wrk_seat_t *seat)
{
    enc_beam_opts_t       o;
    const wrk_request_t  *r;

    r = seat->request;

    if (r->beams == 0 || seat->max_tokens == 0) {
        return;
    }

    assert(seat->nfound == 0 && seat->ntokens == seat->nprompt);

    o.beams = r->beams;
    o.max_new = seat->max_tokens;
    o.length_penalty = r->length_penalty;
    o.early_stopping = (r->flags & SHR_REQ_EARLY_STOP) != 0;
    wrk_t2t_search(s->eng, seat->seq, &o);
}


/* Keeps the answer, and gives everything else back. */
static void
wrk_beam_found(wrk_sched_t *s, wrk_seat_t *seat, const enc_found_t *found,
    uint32_t n)
{
    uint32_t  i;

    assert(n > 0 && n <= seat->max_tokens);

    for (i = 0; i < n; i++) {
        seat->tokens[seat->nprompt + i] = found[i].token;
        seat->logprobs[i] = found[i].logprob;
    }

    seat->nfound = n;
    seat->ntokens = seat->nprompt;
    wrk_kv_give(s, seat);
    wrk_beam_release(s, seat);
}


void
wrk_beam_apply(wrk_sched_t *s, wrk_seat_t *seat, uint64_t now_ns)
{
    int                 rc;
    uint32_t            n;
    wrk_request_t      *r;
    const enc_found_t  *found;

    r = seat->request;
    r->first_ns = r->first_ns != 0 ? r->first_ns : now_ns;
    r->last_ns = now_ns;
    wrk_fair_charge(&r->fair, r->beams);
    rc = wrk_t2t_found(s->eng, seat->seq, &found, &n);

    if (rc == 1) {
        wrk_beam_found(s, seat, found, n);

    } else if (rc == 0) {
        assert(seat->ntokens < seat->nprompt + seat->max_tokens);
        seat->tokens[seat->ntokens++] = 0;

    } else {
        wrk_req_fail(&s->err, SHR_E_INTERNAL, NULL,
                     "the model's logits are not finite");
        wrk_request_fail(s, r, &s->err);
    }
}


void
wrk_beam_speak(wrk_sched_t *s, wrk_seat_t *seat)
{
    size_t          need, before, after;
    wrk_request_t  *r;

    r = seat->request;

    do {
        need = wrk_out_token_room(s, seat);

        if (need > r->room) {
            r->short_room = 1;
            return;
        }

        if (seat->ntokens == seat->nprompt + seat->nfound) {
            /* its end is none to the tokenizer */
            wrk_out_finish(s, seat, SHR_FINISH_STOP);
            return;
        }

        before = wrk_sink_room(&r->sink);
        r->completion_tokens++;
        s->count[SHR_C_TOKENS]++;
        wrk_out_token(s, seat, seat->tokens[seat->ntokens], NULL);

        if (seat->state != WRK_SEAT_RUN) {
            return;
        }

        /* the client may have read meanwhile */
        after = wrk_sink_room(&r->sink);
        r->room -= wrk_min(need, before > after ? before - after : 0);

    } while (1);
}
