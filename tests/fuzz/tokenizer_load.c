/*
 * tokenizer_load.c: libFuzzer target: the bytes are a tokenizer.json or a
 * GGUF file; what loads is used on a text.  Without libFuzzer,
 * tokenizer_main.c drives it.
 */

#include "tokenizer/tok.h"
#include "tokenizer/tok_load.h"

#include <stdlib.h>


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
use(const tok_t *t)
{
    static const char  text[] =
        "Hello, world  <s>\xe4\xbd\xa0\xe5\xa5\xbd e\xcc\x81 1234\n\n"
        "\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9 abcabc the lo he llo";
    tok_scratch_t  *s = tok_scratch_new();
    tok_result_t    r;
    tok_stream_t    st;
    const char     *out;
    char           *buf;
    uint32_t       *ids;
    size_t          len, i, n, room = tok_stream_room(t);
    unsigned        flags;

    if (s == NULL) {
        return;
    }
    for (flags = 0; flags < 64; flags += 7) {
        if (tok_encode(t, s, text, sizeof(text) - 1, flags, &r) != 0) {
            continue;
        }
        n = r.n;
        ids = malloc((n + 1) * sizeof(*ids));
        buf = malloc(room);
        for (i = 0; ids != NULL && i < n; i++) {
            ids[i] = r.ids[i];
        }
        if (ids != NULL && buf != NULL) {
            (void) tok_decode(t, s, ids, n, flags & 1, &out, &len);
            tok_stream_init(&st, flags & 1);
            for (i = 0; i < n; i++) {
                (void) tok_stream_step(&st, t, ids[i], buf, room, &len);
            }
            (void) tok_stream_flush(&st, t, buf, room, &len);
        }
        free(ids);
        free(buf);
        (void) tok_encode_pair(t, s, text, 20, text, 9, flags, &r);
    }
    tok_scratch_free(s);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tok_t      *t = NULL;
    tok_err_t   err;
    int         rc;

    if (size >= 4 && memcmp(data, "GGUF", 4) == 0) {
        rc = tok_gguf_memory(&t, data, size, "fuzz", &err);

    } else {
        rc = tok_open_json(&t, (const char *) data, size, &err);
    }
    if (rc == 0) {
        use(t);
        tok_close(t);
    }
    return 0;
}
