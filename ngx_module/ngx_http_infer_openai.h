/*
 * What the readers of fields share; the tables of fields are in
 * ngx_http_infer_openai.c and, for encoders, in ngx_http_infer_encode.c.
 */

#ifndef NGX_HTTP_INFER_OPENAI_H
#define NGX_HTTP_INFER_OPENAI_H

#include "ngx_module/ngx_http_infer_fields.h"


/* One parse. */
typedef struct {
    ngx_http_infer_ctx_t  *ctx;
    shr_req_writer_t      *w;
    ngx_uint_t             bit;                 /* of the endpoint */
    ngx_uint_t             nprompts;
    ngx_uint_t             messages;
    ngx_uint_t             logprobs;
    ngx_uint_t             top_logprobs;
    ngx_uint_t             max_tokens;
    ngx_uint_t             no_tools;
    char                  *sampled;             /* the field that asks so */
    ngx_http_infer_value_t tools;
} ngx_http_infer_parse_t;

typedef struct ngx_http_infer_member_s  ngx_http_infer_member_t;

struct ngx_http_infer_member_s {
    ngx_str_t     name;
    ngx_uint_t    tasks;
    ngx_int_t   (*read)(ngx_http_infer_parse_t *p,
                    const ngx_http_infer_member_t *f,
                    const ngx_http_infer_value_t *value);
    size_t        offset;           /* into shr_req_t, or flag */
    double        min;
    double        max;
};

/* The fields of some endpoints, and what only all together can say.  A
 * member's `tasks` has a bit for each endpoint: its task, or its api. */
typedef struct {
    const ngx_http_infer_member_t  *members;
    ngx_uint_t                      nmembers;
    ngx_int_t                     (*begin)(ngx_http_infer_parse_t *p);
    ngx_int_t                     (*end)(ngx_http_infer_parse_t *p);
} ngx_http_infer_dialect_t;

extern const ngx_http_infer_dialect_t  ngx_http_infer_encoders;
extern const ngx_http_infer_dialect_t  ngx_http_infer_generators;

#define reader(name)                                                          \
    ngx_int_t ngx_http_infer_f_##name(ngx_http_infer_parse_t *p,              \
        const ngx_http_infer_member_t *f,                                     \
        const ngx_http_infer_value_t *value)

reader(model);
reader(messages);
reader(prompt);
reader(tokens);
reader(stream);
reader(stream_options);
reader(max_tokens);
reader(real);
reader(temperature);
reader(count);
reader(seed);
reader(stop);
reader(stop_ids);
reader(logit_bias);
reader(logprobs_chat);
reader(logprobs_text);
reader(top_logprobs);
reader(flag);
reader(flag_not);
reader(raw);
reader(tools);
reader(tool_choice);
reader(response_format);
reader(modalities);
reader(best_of);
reader(only_false);
reader(beam_search);
reader(unsupported);


/* What the fields of beam searches say together. */
ngx_int_t ngx_http_infer_parse_beams(ngx_http_infer_parse_t *p);

/* The name of a member of an inner object, as it is written. */
#define ngx_http_infer_named(name, s)                                         \
    ((name)->len == sizeof(s) - 1                                             \
     && ngx_memcmp((name)->data, s, sizeof(s) - 1) == 0)


#endif /* NGX_HTTP_INFER_OPENAI_H */
