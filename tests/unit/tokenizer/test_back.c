/*
 * test_back.c: words as tokens after each other (tok_back.c), in windows
 * (tok_long.c) and words merged pair by pair give the same: vocabularies of
 * random merges, also in orders that no training makes, and those of
 * tests/tools/fetch_vocab.sh.
 */

#include "tokenizer/tok_made.h"

#include <assert.h>
#include <setjmp.h>             /* cmocka.h needs it */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>


#define MERGES_MAX  120
#define PART_MAX    12
#define WORD_MAX    700
#define FLAGS       (TOK_OFFSETS | TOK_NO_TRUNCATION | TOK_NO_PADDING)

/* A vocabulary of random merges of the letters a to d. */
typedef struct {
    char      token[MERGES_MAX + 4][PART_MAX + 1];
    size_t    n_tokens;
    unsigned  left[MERGES_MAX], right[MERGES_MAX], result[MERGES_MAX];
    size_t    n_merges;
} random_bpe_t;

static uint64_t  seed = 88172645463325252ull;


static unsigned
rnd(unsigned n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned) (seed >> 33) % n;
}


static size_t
token_of(random_bpe_t *b, const char *text)
{
    size_t  i;

    for (i = 0; i < b->n_tokens && strcmp(b->token[i], text) != 0; i++) {
        /* void */
    }
    if (i == b->n_tokens) {
        assert(strlen(text) <= PART_MAX);
        memcpy(b->token[b->n_tokens++], text, strlen(text) + 1);
    }
    return i;
}


static void
make(random_bpe_t *b, bool shuffle)
{
    char      text[2 * PART_MAX + 1];
    unsigned  i, k, l, r;

    memset(b, 0, sizeof(*b));
    for (i = 0; i < 4; i++) {
        b->token[i][0] = (char) ('a' + i);
    }
    b->n_tokens = 4;
    while (b->n_merges < MERGES_MAX / 4 + rnd(MERGES_MAX * 3 / 4)) {
        l = rnd((unsigned) b->n_tokens);
        r = rnd((unsigned) b->n_tokens);
        (void) snprintf(text, sizeof(text), "%s%s", b->token[l], b->token[r]);
        for (i = 0; i < b->n_merges && (b->left[i] != l || b->right[i] != r);
             i++)
        {
            /* void */
        }
        if (i == b->n_merges && strlen(text) <= PART_MAX) {
            b->result[b->n_merges] = (unsigned) token_of(b, text);
            b->left[b->n_merges] = l;
            b->right[b->n_merges++] = r;
        }
    }
    for (i = 0; shuffle && i < b->n_merges; i++) {
        k = rnd((unsigned) b->n_merges);
        l = b->left[i];
        r = b->right[i];
        b->left[i] = b->left[k];
        b->right[i] = b->right[k];
        b->left[k] = l;
        b->right[k] = r;
        l = b->result[i];
        b->result[i] = b->result[k];
        b->result[k] = l;
    }
}


static tok_t *
load(const random_bpe_t *b)
{
    static char  json[65536];
    size_t       n, i;
    tok_err_t    err;
    tok_t       *t;

    n = (size_t) snprintf(json, sizeof(json), "{\"added_tokens\":[],"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
        "\"trim_offsets\":false,\"use_regex\":false},\"decoder\":{\"type\":"
        "\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (i = 0; i < b->n_tokens; i++) {
        n += (size_t) snprintf(json + n, sizeof(json) - n, "%s\"%s\":%zu",
                               i ? "," : "", b->token[i], i);
    }
    n += (size_t) snprintf(json + n, sizeof(json) - n, "},\"merges\":[");
    for (i = 0; i < b->n_merges; i++) {
        n += (size_t) snprintf(json + n, sizeof(json) - n,
                               "%s[\"%s\",\"%s\"]", i ? "," : "",
                               b->token[b->left[i]], b->token[b->right[i]]);
    }
    n += (size_t) snprintf(json + n, sizeof(json) - n, "]}}");
    assert_true(n < sizeof(json));
    assert_int_equal(tok_open_json(&t, json, n, &err), 0);
    return t;
}


/* Encodes both ways; whether tok_back.c did it. */
static bool
same_both_ways(const tok_t *t, const char *text, size_t len, tok_scratch_t *s,
    tok_scratch_t *s2)
{
    tok_t         merged = *t;
    tok_result_t  a, b;
    bool          done;

    merged.made = NULL;
    merged.serial = t->serial | (uint64_t) 1 << 63;
    assert_int_equal(tok_encode(t, s, text, len, FLAGS, &a), 0);
    assert_int_equal(tok_encode(&merged, s2, text, len, FLAGS, &b), 0);
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.ids, b.ids, a.n * sizeof(*a.ids));
    assert_memory_equal(a.offsets, b.offsets, a.n * sizeof(*a.offsets));
    s->ids.n = 0;
    s->want_spans = false;
    assert_int_equal(tok_room(s, &s->ids, len, sizeof(uint32_t)), 0);
    assert_int_equal(tok_back_word(t, s, (const uint8_t *) text, len, 0,
                                   &done), 0);
    return done;
}


/* The ids by the rule itself: the lowest rank, the leftmost of equals. */
static void
same_as_rule(const random_bpe_t *b, const tok_t *t, const char *text,
    size_t n, tok_scratch_t *s)
{
    static int    rank[MERGES_MAX + 4][MERGES_MAX + 4];
    uint32_t      sym[WORD_MAX];
    tok_result_t  r;
    size_t        i, at, len = n;
    int           best;

    memset(rank, 0xff, sizeof(rank));
    for (i = 0; i < b->n_merges; i++) {
        rank[b->left[i]][b->right[i]] = (int) i;
    }
    for (i = 0; i < n; i++) {
        sym[i] = (uint32_t) (text[i] - 'a');
    }
    for (;;) {
        for (best = -1, at = i = 0; i + 1 < n; i++) {
            if (rank[sym[i]][sym[i + 1]] >= 0
                && (best < 0 || rank[sym[i]][sym[i + 1]] < best))
            {
                best = rank[sym[i]][sym[i + 1]];
                at = i;
            }
        }
        if (best < 0) {
            break;
        }
        sym[at] = b->result[best];
        n--;
        memmove(sym + at + 1, sym + at + 2, (n - at - 1) * sizeof(*sym));
    }
    assert_int_equal(tok_encode(t, s, text, len, FLAGS, &r), 0);
    assert_int_equal(r.n, n);
    assert_memory_equal(r.ids, sym, n * sizeof(*sym));
}


static void
random_merges(void **state)
{
    static random_bpe_t  b;
    char                 text[WORD_MAX];
    tok_scratch_t       *s = tok_scratch_new(), *s2 = tok_scratch_new();
    tok_t               *t;
    size_t               i, n, period, odd = 0, done = 0, k;
    int                  round, word;

    (void) state;
    assert_non_null(s);
    assert_non_null(s2);
    for (round = 0; round < 300; round++) {
        make(&b, round % 3 == 0);
        t = load(&b);
        assert_non_null(t->made);
        for (k = 0; k < b.n_tokens; k++) {
            odd += t->made[k].rank == TOK_MADE_ODD;
        }
        for (word = 0; word < 20; word++) {
            n = 49 + rnd(word % 5 ? 100 : WORD_MAX - 49);
            period = word % 2 ? n : 1 + rnd(9);
            for (i = 0; i < n; i++) {
                text[i] = i < period ? (char) ('a' + rnd(4))
                          : text[i - period];
            }
            done += same_both_ways(t, text, n, s, s2);
            same_as_rule(&b, t, text, n, s);
            same_as_rule(&b, t, text, 1 + rnd(48), s);
        }
        tok_close(t);
    }
    assert_true(done > 300 * 20 * 3 / 4);
    /* Merges in any order make some tokens out of it. */
    assert_true(odd > 100);
    tok_scratch_free(s);
    tok_scratch_free(s2);
}


/* A word of tokens, runs and letters of a real vocabulary. */
static size_t
real_word(const tok_t *t, char *text)
{
    size_t    n = 0, want = 60 + rnd(WORD_MAX - 400), i, len;
    unsigned  kind = rnd(4);
    char      piece[64], c;

    while (n < want) {
        if (kind == 0) {
            text[n++] = (char) ('a' + rnd(26));

        } else if (kind == 1) {
            c = "=-*.a_ #"[rnd(8)];
            for (i = rnd(150); i > 0; i--) {
                text[n++] = c;
            }

        } else if (tok_id_to_bytes(t, rnd(tok_vocab_size(t)), piece,
                                   sizeof(piece), &len) == 0
                   && tok_utf8_check((uint8_t *) piece, len) == len)
        {
            for (i = 0; i < len; i++) {
                if (kind == 3 || piece[i] != ' ') {
                    text[n++] = piece[i];
                }
            }
        }
    }
    return n;
}


static void
real_vocabularies(void **state)
{
    static const char *const  names[] = { "gpt2", "llama3_1", "llama2" };
    const char               *models = getenv("INFER_MODELS");
    const char               *home = getenv("HOME");
    tok_scratch_t            *s = tok_scratch_new(), *s2 = tok_scratch_new();
    char                      path[4096], text[WORD_MAX];
    tok_err_t                 err;
    tok_t                    *t;
    size_t                    i, n;
    int                       word, seen = 0;

    (void) state;
    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        (void) snprintf(path, sizeof(path), "%s%s/vocab/%s/tokenizer.json",
                        models ? models : home ? home : "",
                        models ? "" : "/.cache/nginx-infer", names[i]);
        if (access(path, R_OK) != 0) {
            continue;
        }
        seen++;
        assert_int_equal(tok_open(&t, path, &err), 0);
        assert_non_null(t->made);
        for (word = 0; word < 400; word++) {
            n = real_word(t, text);
            (void) same_both_ways(t, text, n, s, s2);
        }
        tok_close(t);
    }
    tok_scratch_free(s);
    tok_scratch_free(s2);
    if (seen == 0) {
        skip();
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(random_merges),
        cmocka_unit_test(real_vocabularies)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
