/*
 * The same bytes whatever else happens, on a real model: PROMPTS requests,
 * greedy and seeded, short and with a long common beginning, first each alone,
 * then
 *
 *   - many at once;
 *   - with their prompts in small chunks;
 *   - with too few KV pages, so that sequences are preempted;
 *   - with the prefix cache, twice, so that pages are found again;
 *   - with tokens guessed in advance, alone, several at once and preempted.
 *
 * usage: sim_same [PROMPTS [FIRST]]; exit status 77 without smollm2.gguf, 1
 * with the requests that differ.  FIRST: from that way on in the order above,
 * which begins with 1, after each alone.
 */

#include "tests/unit/sched/real_run.h"


#define SAME_PROMPTS_MAX  4000u
#define SAME_TEXT         512u

typedef struct {
    uint32_t  done, failed, len, tokens, reason;
    char      text[SAME_TEXT];
} same_answer_t;

typedef struct {
    const char  *name;
    uint32_t     at_once, batch, seqs, pages, cache, rounds, speculate;
    int          must;          /* counter that must have moved; 0: none */
} same_mode_t;

typedef struct {
    real_t         real;
    uint32_t       n;
    same_answer_t  alone[SAME_PROMPTS_MAX], now[SAME_PROMPTS_MAX];
    uint64_t       request[1 << 10];
} same_t;

static const same_mode_t  same_modes[] = {
    { "alone", 1, 512, 1, 0, 0, 1, 0, 0 },
    { "many at once", 0, 512, 16, 0, 0, 1, 0, 0 },
    { "in chunks", 0, 17, 8, 0, 0, 1, 0, 0 },
    { "preempted", 0, 64, 8, 12, 0, 1, 0, SHR_C_PREEMPTED },
    { "from the cache", 0, 512, 8, 0, 1, 2, 0, SHR_C_CACHED_TOKENS },
    { "preempted, with the cache", 0, 64, 8, 12, 1, 1, 0, SHR_C_PREEMPTED },
    { "guessed, alone", 1, 512, 1, 0, 0, 1, 1, SHR_C_DRAFTS_RIGHT },
    { "guessed, a few at once", 0, 512, 3, 0, 1, 1, 1, SHR_C_DRAFTS_RIGHT },
    { "guessed, preempted", 0, 64, 4, 5, 1, 1, 1, SHR_C_PREEMPTED },
};


static int
same_put(void *ctx, uint32_t type, uint32_t choice, const void *a, size_t alen,
    const void *b, size_t blen)
{
    shr_finish_t    finish;
    same_answer_t  *k = ctx;

    (void) choice;
    (void) b;
    (void) blen;

    if (type == SHR_F_TEXT) {
        assert(alen <= SAME_TEXT - k->len);
        memcpy(k->text + k->len, a, alen);
        k->len += (uint32_t) alen;

    } else if (type == SHR_F_FINISH) {
        memcpy(&finish, a, sizeof(finish));
        k->tokens = finish.tokens;
        k->reason = finish.reason;

    } else if (type == SHR_F_ERROR) {
        k->failed = 1;
    }

    return 0;
}


static uint32_t
same_room(void *ctx)
{
    (void) ctx;

    return 1 << 16;
}


static int
same_wanted(void *ctx)
{
    (void) ctx;

    return 1;
}


static void
same_nothing(void *ctx)
{
    (void) ctx;
}


static void
same_want_room(void *ctx, int want)
{
    (void) ctx;
    (void) want;
}


static void
same_done(void *ctx)
{
    ((same_answer_t *) ctx)->done++;
}


static const wrk_sink_ops_t  same_ops = {
    same_put, same_room, same_wanted, same_nothing, same_want_room, same_done
};


/* A text for a number: words, some behind a long beginning, some that repeat
 * themselves. */
static void
same_prompt(uint32_t i, char *text, size_t cap)
{
    uint32_t     j, x;
    size_t       len;
    const char  *kind;
    static const char *const  begin[] = {
        "", "", "You are a careful assistant. Answer in one short sentence, "
        "name no sources, and say so when you do not know. The conversation "
        "so far was about the weather of the last week, the price of bread, "
        "and whether a train leaves on Sunday morning. Now: ",
        "1. red 2. green 3. blue 1. red 2. green 3. blue 1. red 2. green "
    };
    static const char *const  words[] = {
        "the", "river", "seven", "after", "def", "print(", "Paris", "because",
        "water", "is", "a", "list", "of", "moon", "and", "not", "2024", "?",
        "please", "write"
    };

    kind = begin[i % 4];
    len = strlen(kind);
    assert(len + 200 < cap);
    memcpy(text, kind, len);
    x = i * 2654435761u + 1;

    for (j = 0; j < 3 + i % 13; j++) {
        x = x * 1664525u + 1013904223u;
        len += (size_t) snprintf(text + len, cap - len, "%s%s", j ? " " : "",
                                 words[(x >> 16) % 20]);
    }
}


static void
same_submit(same_t *s, uint32_t i)
{
    char              text[1024];
    shr_req_t         f;
    shr_req_writer_t  w;

    memset(&f, 0, sizeof(f));
    f.task = SHR_TASK_COMPLETE;
    f.flags = SHR_REQ_SEED | (i % 5 ? SHR_REQ_IGNORE_EOS : 0);
    f.n = 1;
    f.seed = i;
    f.max_tokens = 6 + i % 17;
    f.temperature = i / 4 % 2 ? 0.8f : 0;
    f.top_p = i % 3 ? 0.95f : 1;
    f.top_k = i % 7 == 0 ? 40 : 0;
    f.min_p = i % 11 == 0 ? 0.05f : 0;
    f.repetition_penalty = i % 6 == 0 ? 1.1f : 1;
    f.frequency_penalty = i % 13 == 0 ? 0.4f : 0;

    same_prompt(i, text, sizeof(text));
    shr_req_begin(&w, s->request, sizeof(s->request), &f);
    shr_req_add(&w, SHR_R_PROMPT, text, strlen(text));

    if (shr_req_end(&w) != 0) {
        abort();
    }

    memset(&s->now[i], 0, sizeof(s->now[i]));
    wrk_sched_submit(s->real.sched, s->request, w.len, &same_ops, &s->now[i],
                     real_now());
}


static void
same_run(same_t *s, const same_mode_t *m)
{
    uint32_t  i;

    for (i = 0; i < s->n; i++) {
        same_submit(s, i);

        while (m->at_once && !s->now[i].done) {
            (void) wrk_sched_step(s->real.sched, real_now());
        }
    }

    while (wrk_sched_step(s->real.sched, real_now())) { /* void */ }

    assert(wrk_sched_idle(s->real.sched));
}


/* How many answers are not what they are alone. */
static uint32_t
same_compare(const same_t *s, const char *mode)
{
    uint32_t              i, wrong;
    const same_answer_t  *a, *b;

    for (i = 0, wrong = 0; i < s->n; i++) {
        a = &s->alone[i];
        b = &s->now[i];

        if (b->done != 1 || b->failed || a->len != b->len
            || a->tokens != b->tokens || a->reason != b->reason
            || memcmp(a->text, b->text, a->len) != 0)
        {
            fprintf(stderr, "%s: request %u differs:\n  \"%.*s\"\n  "
                    "\"%.*s\"\n", mode, i, (int) a->len, a->text,
                    (int) b->len, b->text);
            wrong++;
        }
    }

    return wrong;
}


static uint32_t
same_mode(same_t *s, const same_mode_t *m)
{
    uint32_t  i, wrong;
    uint64_t  counts[SHR_NCOUNTERS], start;

    s->real.co.max_seqs = m->seqs;
    s->real.co.max_batch_tokens = m->batch;
    s->real.co.ctx_len = 160;
    s->real.co.kv_bytes = m->pages * 32
        * eng_model_info(s->real.model)->kv_bytes_per_token;
    s->real.so.queue_requests = s->n;
    s->real.so.prefix_cache = m->cache;
    s->real.so.speculate = m->speculate;
    s->real.co.max_logits = 32;
    real_start(&s->real);
    start = real_now();

    for (i = 0, wrong = 0; i < m->rounds; i++) {
        same_run(s, m);

        if (m == &same_modes[0]) {
            memcpy(s->alone, s->now, sizeof(s->now));
        }

        wrong += same_compare(s, m->name);
    }

    wrk_sched_stats(s->real.sched, counts);
    printf("%s: %u of %u differ, %.1f s\n", m->name, wrong, s->n * m->rounds,
           (double) (real_now() - start) / 1e9);

    if (m->must != 0 && counts[m->must] == 0) {
        fprintf(stderr, "%s: that did not happen\n", m->name);
        wrong++;
    }

    real_stop(&s->real);

    return wrong;
}


/* 0: all the same; 77: no model. */
static int
same_all(uint32_t n, uint32_t first)
{
    size_t    i;
    uint32_t  wrong;
    same_t   *s;

    s = calloc(1, sizeof(*s));
    assert(s != NULL && n > 0 && n <= SAME_PROMPTS_MAX);

    if (real_find(&s->real, "smollm2.gguf") != 0) {
        printf("no model at %s\n", s->real.path);
        free(s);
        return 77;
    }

    s->n = n;
    real_load(&s->real);

    for (i = 0, wrong = 0; i < sizeof(same_modes) / sizeof(same_modes[0]);
         i++)
    {
        wrong += i == 0 || i >= first ? same_mode(s, &same_modes[i]) : 0;
        fflush(stdout);
    }

    real_close(&s->real);
    free(s);

    return wrong != 0;
}


#ifndef SAME_NO_MAIN

int
main(int argc, char **argv)
{
    uint32_t  n, first, modes = sizeof(same_modes) / sizeof(same_modes[0]);

    n = real_number(argc > 1 ? argv[1] : "1000", SAME_PROMPTS_MAX);
    first = real_number(argc > 2 ? argv[2] : "1", modes - 1);

    if (n == 0 || n > SAME_PROMPTS_MAX || first == 0 || first >= modes) {
        fprintf(stderr, "prompts: 1 to %u, first: 1 to %u\n",
                SAME_PROMPTS_MAX, modes - 1);
        return 1;
    }

    return same_all(n, first);
}

#endif
