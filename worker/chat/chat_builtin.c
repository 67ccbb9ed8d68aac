/*
 * Templates for model files that come without one: chosen by the special tokens
 * that the vocabulary has, since a template whose markers are no tokens would
 * make the model see noise.
 */

#include <stddef.h>

#include "worker/chat/chat.h"


typedef struct {
    const char  *token;
    const char  *text;
} builtin_t;


static const char  gemma[] =
    "{{ bos_token }}"
    "{%- if messages and messages[0].role == 'system' %}"
    "{%- set intro = messages[0].content ~ '\n\n' %}"
    "{%- set turns = messages[1:] %}"
    "{%- else %}"
    "{%- set intro = '' %}"
    "{%- set turns = messages %}"
    "{%- endif %}"
    "{%- for m in turns %}"
    "{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('the roles user and assistant must alternate') }}"
    "{%- endif %}"
    "{{- '<start_of_turn>'"
    " ~ ('model' if m.role == 'assistant' else m.role) ~ '\n' }}"
    "{{- (intro if loop.first else '') ~ m.content | trim"
    " ~ '<end_of_turn>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<start_of_turn>model\n' }}"
    "{%- endif %}";

static const char  headers[] =
    "{{ bos_token }}"
    "{%- for m in messages %}"
    "{{- '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\n\n'"
    " ~ m.content | trim ~ '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{%- endif %}";

static const char  chatml[] =
    "{%- for m in messages %}"
    "{{- '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\n' }}"
    "{%- endif %}";

static const builtin_t  builtins[] = {
    { "<|im_start|>", chatml },
    { "<start_of_turn>", gemma },
    { "<|start_header_id|>", headers }
};


const char *
chat_builtin(int (*has_token)(void *data, const char *token), void *data)
{
    size_t  i;

    if (has_token == NULL) {
        return chatml;
    }

    for (i = 0; i < sizeof(builtins) / sizeof(builtins[0]); i++) {
        if (has_token(data, builtins[i].token)) {
            return builtins[i].text;
        }
    }

    return NULL;
}
