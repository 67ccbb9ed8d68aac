/*
 * tokenizer_encode.c: libFuzzer target: the bytes are a text for the
 * vocabulary that TOKENIZER (environment) names.  Ids must not depend on
 * whether offsets are asked for, and the stream must give the whole's text.
 */

#include "tokenizer/tok.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
must(int condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "failed: %s\n", what);
        abort();
    }
}


static void
stream(const tok_t *t, const uint32_t *ids, size_t n, const char *text,
    size_t len)
{
    tok_stream_t  st;
    size_t        room = tok_stream_room(t), at = 0, k, i;
    char         *buf = malloc(room);

    if (buf == NULL) {
        return;
    }
    tok_stream_init(&st, 0);
    for (i = 0; i <= n; i++) {
        must((i < n ? tok_stream_step(&st, t, ids[i], buf, room, &k)
              : tok_stream_flush(&st, t, buf, room, &k)) == 0, "stream");
        must(at + k <= len && memcmp(buf, text + at, k) == 0,
             "stream against whole");
        at += k;
    }
    must(at == len, "stream's length");
    free(buf);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static tok_t          *t;
    static tok_scratch_t  *s;
    const char            *out;
    tok_result_t           r;
    tok_err_t              err;
    uint32_t              *ids;
    size_t                 n, len;

    if (t == NULL) {
        if (getenv("TOKENIZER") == NULL
            || tok_open(&t, getenv("TOKENIZER"), &err) != 0)
        {
            fprintf(stderr, "TOKENIZER must name a vocabulary\n");
            exit(2);
        }
        s = tok_scratch_new();
    }
    if (tok_encode(t, s, (const char *) data, size, TOK_PARSE_SPECIAL, &r)
        != 0)
    {
        return 0;
    }
    n = r.n;
    ids = malloc((n + 1) * sizeof(*ids));
    if (ids == NULL) {
        return 0;
    }
    if (n) {
        memcpy(ids, r.ids, n * sizeof(*ids));
    }
    must(tok_encode(t, s, (const char *) data, size, TOK_PARSE_SPECIAL
                    | TOK_OFFSETS | TOK_TYPES, &r) == 0, "encode again");
    must(r.n == n && (n == 0 || memcmp(r.ids, ids, n * sizeof(*ids)) == 0),
         "ids with offsets");
    must(tok_decode(t, s, ids, n, 0, &out, &len) == 0, "decode");
    stream(t, ids, n, out, len);
    free(ids);
    return 0;
}
