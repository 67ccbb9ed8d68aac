/*
 * libFuzzer target for the chat template: the input is a template, a zero byte,
 * and the messages (a fixed chat when there is none).  Build with clang
 * -fsanitize=fuzzer,address,undefined and the files of worker/chat.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "worker/chat/chat.h"


#define ARENA_BYTES  (1024 * 1024)
#define OUT_BYTES    65536
#define SPANS        256


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t              i, len;
    chat_err_t          err;
    const uint8_t      *zero;
    chat_input_t        in;
    chat_output_t       out;
    chat_template_t    *t;
    static char         arena[ARENA_BYTES], text[OUT_BYTES];
    static chat_span_t  spans[SPANS];
    static const char   fixed[] =
        "[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\","
        "\"content\":\" h\xc3\xa9llo \"},{\"role\":\"assistant\",\"content\":"
        "null,\"tool_calls\":[{\"id\":\"1\",\"function\":{\"name\":\"f\","
        "\"arguments\":\"{\\\"a\\\":1}\"}}]}]";

    zero = memchr(data, 0, size);
    len = zero != NULL ? (size_t) (zero - data) : size;

    t = chat_compile((const char *) data, len, &err);
    if (t == NULL) {
        if (err.code >= 0 || err.text[0] == '\0') {
            abort();
        }

        return 0;
    }

    memset(&in, 0, sizeof(in));
    in.messages = zero != NULL ? (const char *) zero + 1 : fixed;
    in.messages_len = zero != NULL ? size - len - 1 : sizeof(fixed) - 1;
    in.tools = "[{\"function\":{\"name\":\"f\"}}]";
    in.tools_len = strlen(in.tools);
    in.bos = "<s>";
    in.bos_len = 3;
    in.add_generation_prompt = 1;

    memset(&out, 0, sizeof(out));
    out.text = text;
    out.text_cap = OUT_BYTES;
    out.spans = spans;
    out.spans_cap = SPANS;

    if (chat_render(t, &in, arena, ARENA_BYTES, &out, &err) == CHAT_OK) {
        for (i = 0; i < out.spans_len; i++) {
            if (spans[i].start >= spans[i].end || spans[i].end > out.text_len
                || (i > 0 && spans[i].start <= spans[i - 1].end))
            {
                abort();
            }
        }
    }

    chat_free(t);
    return 0;
}
