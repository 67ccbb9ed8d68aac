/*
 * What a chat request costs the worker beside the arithmetic: template,
 * tokenizer, queue, batch, detokenizer, with the null engine and a sink that
 * counts.  REQUESTS at once, each its own question, answers of TOKENS.
 *
 * usage: bench_request [ROUNDS [REQUESTS [TOKENS]]]; needs smollm2.gguf
 */

#include "tests/unit/sched/real_run.h"
#include "worker/chat/chat.h"
#include "worker/wrk_null.h"


#define REQUESTS_MAX  1024u
#define TOKENS_MAX    512u

static real_t           real;
static uint64_t         blocks[REQUESTS_MAX][128];
static size_t           lens[REQUESTS_MAX];
static uint64_t         frames;
static uint32_t         ended;


static int
put(void *ctx, uint32_t type, uint32_t choice, const void *a, size_t alen,
    const void *b, size_t blen)
{
    (void) ctx;
    (void) choice;
    (void) a;
    (void) alen;
    (void) b;
    (void) blen;
    assert(type != SHR_F_ERROR);
    frames++;

    return 0;
}


static int
wanted(void *ctx)
{
    (void) ctx;

    return 1;
}


static void
done(void *ctx)
{
    (void) ctx;
    ended++;
}


static const wrk_sink_ops_t  ops = {
    put, real_room, wanted, real_nothing, real_want_room, done
};


static void
prepare(uint32_t i)
{
    int               rc;
    char              text[512];
    shr_req_t         f;
    shr_req_writer_t  w;

    memset(&f, 0, sizeof(f));
    f.task = SHR_TASK_CHAT;
    f.flags = SHR_REQ_WHOLE;
    f.n = 1;
    f.max_tokens = 16;
    f.top_p = 1;
    f.repetition_penalty = 1;
    snprintf(text, sizeof(text), "[{\"role\":\"system\",\"content\":\"You are "
             "a helpful assistant.\"},{\"role\":\"user\",\"content\":\"Say in "
             "one sentence what the weather number %u is like on the moon "
             "today, please.\"}]", i);
    shr_req_begin(&w, blocks[i], sizeof(blocks[i]), &f);
    shr_req_add(&w, SHR_R_MESSAGES, text, strlen(text));
    rc = shr_req_end(&w);
    assert(rc == 0);
    (void) rc;
    lens[i] = w.len;
}


static int
open_all(uint32_t requests, uint32_t tokens)
{
    tok_err_t          terr;
    chat_err_t         cerr;
    chat_template_t   *tmpl;
    tok_str_t          own;
    wrk_null_opts_t    no = { .tokens = tokens, .sequences = 256 };

    if (real_find(&real, "smollm2.gguf") != 0
        || tok_open(&real.tok, real.path, &terr) != 0)
    {
        printf("no model at %s\n", real.path);
        return -1;
    }

    own = tok_chat_template(real.tok);
    tmpl = chat_compile(own.ptr, own.len, &cerr);
    assert(tmpl != NULL);

    if (wrk_null_create(&no, real.tok, &real.eng) != 0) {
        return -1;
    }

    wrk_sched_opts_init(&real.so);
    real.so.sequences = 256;
    real.so.queue_requests = requests;
    real.sched = wrk_sched_create(&real.so, &real.eng, real.tok, tmpl, NULL);
    assert(real.sched != NULL);

    return 0;
}


int
main(int argc, char **argv)
{
    double    submit, steps, best_submit, best_steps;
    uint32_t  i, k, rounds, requests, tokens;
    uint64_t  at[3];

    rounds = argc > 1 ? real_at_most(argv[1], 1000000) : 200;
    requests = argc > 2 ? real_at_most(argv[2], REQUESTS_MAX) : 200;
    tokens = argc > 3 ? real_at_most(argv[3], TOKENS_MAX) : 8;
    best_submit = best_steps = 1e18;

    if (open_all(requests, tokens) != 0) {
        return 77;
    }

    for (i = 0; i < requests; i++) {
        prepare(i);
    }

    for (k = 0; k < rounds; k++) {
        at[0] = real_now();

        for (i = 0; i < requests; i++) {
            wrk_sched_submit(real.sched, blocks[i], lens[i], &ops, &ended,
                             at[0]);
        }

        at[1] = real_now();

        while (!wrk_sched_idle(real.sched)) {
            (void) wrk_sched_step(real.sched, real_now());
        }

        at[2] = real_now();
        submit = (double) (at[1] - at[0]) / requests;
        steps = (double) (at[2] - at[1]) / requests;
        best_submit = submit < best_submit ? submit : best_submit;
        best_steps = steps < best_steps ? steps : best_steps;
    }

    printf("%u requests at once, answers of %u tokens, best of %u rounds: "
           "coming %.0f, computing and answering %.0f ns a request\n",
           requests, tokens, rounds, best_submit, best_steps);

    return 0;
}
