/*
 * Renders chat templates for tests/fuzz/chat_diff.py: reads cases from stdin,
 * writes results to stdout.  A case is six chunks (template, messages, tools,
 * kwargs, bos, eos), each a decimal length, a newline and that many bytes;
 * length "-" means absent.  A result is "code line text_len spans\n", the text
 * or message, and the spans.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/chat/chat.h"


#define OUT_BYTES    (1024 * 1024)
#define SPANS        65536
#define ARENA_BYTES  (64 * 1024 * 1024)
#define CHUNKS       6

#define CHUNK_BYTES_MAX  (1024 * 1024 * 1024)


static int
chunk(char **text, size_t *len)
{
    char         line[32];
    const char  *p;

    *text = NULL;
    *len = 0;

    if (fgets(line, sizeof(line), stdin) == NULL) {
        return -1;
    }

    if (line[0] == '-') {
        return 0;
    }

    for (p = line; *p >= '0' && *p <= '9'; p++) {
        *len = *len * 10 + (size_t) (*p - '0');

        if (*len > CHUNK_BYTES_MAX) {
            return -1;
        }
    }

    if (p == line || *p != '\n') {
        return -1;
    }

    *text = malloc(*len + 1);

    return *text != NULL && fread(*text, 1, *len, stdin) == *len ? 0 : -1;
}


int
main(void)
{
    int               rc, i;
    char             *text[CHUNKS];
    size_t            len[CHUNKS], k;
    chat_err_t        err;
    chat_input_t      in;
    chat_output_t     out;
    chat_template_t  *t;
    void             *mem;

    memset(&out, 0, sizeof(out));
    mem = malloc(ARENA_BYTES);
    out.text = malloc(OUT_BYTES);
    out.text_cap = OUT_BYTES;
    out.spans = malloc(SPANS * sizeof(chat_span_t));
    out.spans_cap = SPANS;

    if (mem == NULL || out.text == NULL || out.spans == NULL) {
        return 1;
    }

    for ( ;; ) {
        for (i = 0; i < CHUNKS; i++) {
            if (chunk(&text[i], &len[i]) != 0) {
                return 0;
            }
        }

        memset(&in, 0, sizeof(in));
        in.messages = text[1];
        in.messages_len = len[1];
        in.tools = text[2];
        in.tools_len = len[2];
        in.kwargs = text[3];
        in.kwargs_len = len[3];
        in.bos = text[4];
        in.bos_len = len[4];
        in.eos = text[5];
        in.eos_len = len[5];
        in.now = 1735689600;              /* 2025-01-01 00:00:00 */
        in.add_generation_prompt = 1;

        t = chat_compile(text[0], len[0], &err);
        rc = err.code;

        if (t != NULL) {
            rc = chat_render(t, &in, mem, ARENA_BYTES, &out, &err);
        }

        if (rc == CHAT_OK) {
            printf("0 0 %zu %zu\n", out.text_len, out.spans_len);
            fwrite(out.text, 1, out.text_len, stdout);

            for (k = 0; k < out.spans_len; k++) {
                printf("%u %u\n", out.spans[k].start, out.spans[k].end);
            }

        } else {
            printf("%d %u %zu 0\n%s", rc, err.line, strlen(err.text), err.text);
        }

        fflush(stdout);
        chat_free(t);

        for (i = 0; i < CHUNKS; i++) {
            free(text[i]);
        }
    }
}
