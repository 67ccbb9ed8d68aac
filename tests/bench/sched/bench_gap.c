/*
 * What running streams feel of a long prompt: the gaps between two tokens of
 * STREAMS streams, without and while a prompt of PROMPT tokens is computed.
 * The bound is gap_ms of the scheduler and one step without a prompt.
 *
 * usage: bench_gap [ROUNDS [STREAMS [PROMPT]]]; needs smollm2.gguf
 */

#include "tests/unit/sched/real_run.h"


#define STREAMS_MAX  16u
#define GAPS_MAX     65536u
#define PROMPT_MAX   8150u
#define RESERVE      32u        /* of the context, for answers */
#define QUIET_NS     2000000000u

typedef struct {
    int       done;
    uint64_t  last;             /* token */
    uint64_t  tokens;
} stream_t;

static real_t    real;
static stream_t  streams[STREAMS_MAX + 1];
static uint64_t  gaps[2][GAPS_MAX];
static uint32_t  ngaps[2];
static int       phase;
static uint64_t  request[1 << 14];


static int
put(void *ctx, uint32_t type, uint32_t choice, const void *a, size_t alen,
    const void *b, size_t blen)
{
    uint64_t   now;
    stream_t  *s = ctx;

    (void) choice;
    (void) a;
    (void) alen;
    (void) b;
    (void) blen;

    if (type != SHR_F_LOGPROB) {
        assert(type != SHR_F_ERROR);
        return 0;
    }

    now = real_now();

    if (s->last != 0 && s != &streams[STREAMS_MAX]
        && ngaps[phase] < GAPS_MAX)
    {
        gaps[phase][ngaps[phase]++] = now - s->last;
    }

    s->last = now;
    s->tokens++;

    return 0;
}


static int
wanted(void *ctx)
{
    return ((stream_t *) ctx)->done == 0;
}


static void
done(void *ctx)
{
    ((stream_t *) ctx)->done = 1;
}


static const wrk_sink_ops_t  ops = {
    put, real_room, wanted, real_nothing, real_want_room, done
};


static void
submit(stream_t *s, uint32_t n, uint32_t max_tokens, uint32_t seed)
{
    uint32_t          i;
    shr_req_t         f;
    shr_req_writer_t  w;
    static uint32_t   ids[PROMPT_MAX];

    memset(&f, 0, sizeof(f));
    memset(s, 0, sizeof(*s));
    f.task = SHR_TASK_COMPLETE;
    f.flags = SHR_REQ_IGNORE_EOS | SHR_REQ_LOGPROBS;
    f.n = 1;
    f.max_tokens = max_tokens;
    f.top_p = 1;
    f.repetition_penalty = 1;

    for (i = 0; i < n; i++) {
        ids[i] = 1000 + (seed * 7919 + i * 31) % 40000;
    }

    shr_req_begin(&w, request, sizeof(request), &f);
    shr_req_add(&w, SHR_R_PROMPT_IDS, ids, n * sizeof(ids[0]));

    if (shr_req_end(&w) != 0) {
        abort();
    }

    wrk_sched_submit(real.sched, request, w.len, &ops, s, real_now());
}


static int
by_size(const void *a, const void *b)
{
    const uint64_t  *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}


static double
at(uint64_t *v, uint32_t n, double q)
{
    return n == 0 ? 0 : (double) v[(uint32_t) ((n - 1) * q)] / 1e6;
}


/* One long prompt beside the streams; how long it took, in ms. */
static double
round_of(uint32_t nstreams, uint32_t prompt, uint32_t seed)
{
    uint32_t  i;
    uint64_t  start;

    for (i = 0; i < nstreams; i++) {
        submit(&streams[i], 16, 8000, seed + i);
    }

    phase = 0;

    for (start = real_now(); real_now() - start < QUIET_NS; /* void */) {
        (void) wrk_sched_step(real.sched, real_now());
    }

    phase = 1;
    start = real_now();
    submit(&streams[STREAMS_MAX], prompt, 1, seed + 100);

    while (!streams[STREAMS_MAX].done) {
        (void) wrk_sched_step(real.sched, real_now());
    }

    start = real_now() - start;

    for (i = 0; i < nstreams; i++) {
        streams[i].done = 1;
    }

    (void) wrk_sched_step(real.sched, real_now());
    assert(wrk_sched_idle(real.sched));

    return (double) start / 1e6;
}


int
main(int argc, char **argv)
{
    double    bound;
    uint32_t  i, j, rounds, nstreams, prompt, over;

    rounds = argc > 1 ? real_at_most(argv[1], 100) : 1;
    nstreams = argc > 2 ? real_at_most(argv[2], STREAMS_MAX) : 1;
    prompt = argc > 3 ? real_at_most(argv[3], PROMPT_MAX) : 8000;

    if (real_find(&real, "smollm2.gguf") != 0) {
        printf("no model at %s\n", real.path);
        return 77;
    }

    real_load(&real);
    real.co.ctx_len = 8192;
    real.co.max_seqs = STREAMS_MAX + 1;
    real.co.kv_bytes = 1ull << 30;
    real.so.prefix_cache = 0;
    real_start(&real);

    for (i = 0; i < rounds; i++) {
        printf("prompt of %u: first token after %.0f ms\n", prompt,
               round_of(nstreams, prompt, i * 1000));
    }

    qsort(gaps[0], ngaps[0], sizeof(gaps[0][0]), by_size);
    qsort(gaps[1], ngaps[1], sizeof(gaps[1][0]), by_size);
    bound = real.so.gap_ms + at(gaps[0], ngaps[0], 0.5);

    for (i = 0; i < 2; i++) {
        for (j = 0, over = 0; j < ngaps[i]; j++) {
            over += (double) gaps[i][j] > bound * 1e6;
        }

        printf("%s: %u gaps, p50 %.1f, p90 %.1f, p99 %.1f, worst %.1f ms; "
               "above %.1f ms: %u\n", i ? "beside the prompt" : "streams alone",
               ngaps[i], at(gaps[i], ngaps[i], 0.5),
               at(gaps[i], ngaps[i], 0.9), at(gaps[i], ngaps[i], 0.99),
               at(gaps[i], ngaps[i], 1), bound, over);
    }

    real_stop(&real);
    real_close(&real);

    return 0;
}
