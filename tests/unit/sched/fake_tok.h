/*
 * A tokenizer for tests: one token per byte, a few merges, chat and end
 * tokens.  Ids: 0..255 in the order of bytes, then merges, then specials.
 */

#ifndef FAKE_TOK_H
#define FAKE_TOK_H

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "tokenizer/tok.h"


#define FAKE_TOK_MERGES  4u
#define FAKE_TOK_START   (256u + FAKE_TOK_MERGES)
#define FAKE_TOK_END     (FAKE_TOK_START + 1)
#define FAKE_TOK_N       (FAKE_TOK_START + 2)


/* GPT-2's way to write bytes as printable characters. */
static inline size_t
fake_tok_byte(unsigned b, char *out)
{
    unsigned  c, i;

    c = b;

    if (b < 33 || (b > 126 && b < 161) || b == 173) {
        for (i = 0, c = 256; i < b; i++) {
            c += i < 33 || (i > 126 && i < 161) || i == 173;
        }
    }

    if (c < 128) {
        out[0] = (char) c;
        return 1;
    }

    out[0] = (char) (0xc0 | (c >> 6));
    out[1] = (char) (0x80 | (c & 0x3f));

    return 2;
}


static inline tok_t *
fake_tok_open(void)
{
    static char       bytes[256][2];
    static tok_str_t  tokens[FAKE_TOK_N];
    static int32_t    types[FAKE_TOK_N];
    static const char *merged[FAKE_TOK_MERGES] = { "th", "the", "in", "er" };
    static const char *rules[FAKE_TOK_MERGES] = { "t h", "th e", "i n",
                                                  "e r" };
    unsigned          i;
    tok_t            *tok;
    tok_err_t         err;
    tok_str_t         merges[FAKE_TOK_MERGES];
    tok_gguf_t        g;

    for (i = 0; i < 256; i++) {
        tokens[i].ptr = bytes[i];
        tokens[i].len = fake_tok_byte(i, bytes[i]);
        types[i] = 1;
    }

    for (i = 0; i < FAKE_TOK_MERGES; i++) {
        tokens[256 + i].ptr = merged[i];
        tokens[256 + i].len = strlen(merged[i]);
        types[256 + i] = 1;
        merges[i].ptr = rules[i];
        merges[i].len = strlen(rules[i]);
    }

    tokens[FAKE_TOK_START] = (tok_str_t) { "<|im_start|>", 12 };
    tokens[FAKE_TOK_END] = (tok_str_t) { "<|im_end|>", 10 };
    types[FAKE_TOK_START] = 3;
    types[FAKE_TOK_END] = 3;

    tok_gguf_init(&g);
    g.model = (tok_str_t) { "gpt2", 4 };
    g.pre = (tok_str_t) { "gpt-2", 5 };
    g.tokens = tokens;
    g.n_tokens = FAKE_TOK_N;
    g.types = types;
    g.merges = merges;
    g.n_merges = FAKE_TOK_MERGES;
    g.bos = FAKE_TOK_START;
    g.eos = FAKE_TOK_END;
    g.add_bos = 0;

    if (tok_open_gguf(&tok, &g, &err) != 0) {
        fprintf(stderr, "fake tokenizer: %s\n", err.msg);
        return NULL;
    }

    return tok;
}


#endif /* FAKE_TOK_H */
