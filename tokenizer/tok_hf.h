/*
 * tok_hf.h: the parts of the tokenizer.json reader.
 */

#ifndef TOK_HF_H
#define TOK_HF_H


#include "tokenizer/tok_build.h"
#include "tokenizer/tok_json.h"


typedef struct {
    tok_build_t  *b;
    tok_json_t   *j;
    uint32_t      n_templates;
    uint8_t       vocab;            /* read already: '{' or '[', else 0 */
    bool          merges;           /* read already */
} tok_hf_t;

/* j stands at the component, which may be null. */
int tok_hf_normalizer(tok_hf_t *f);
int tok_hf_pre(tok_hf_t *f);
int tok_hf_post(tok_hf_t *f);
int tok_hf_decoder(tok_hf_t *f);

/* Afterwards j stands behind the model. */
int tok_hf_model(tok_hf_t *f);

/* tok_hf_util.c: members of an object, with the reference's defaults. */
int tok_hf_type(tok_hf_t *f, const tok_members_t *m, tok_str_t *type);
int tok_hf_text(tok_hf_t *f, const tok_members_t *m, const char *key,
    tok_ref_t *ref);
int tok_hf_flag(tok_hf_t *f, const tok_members_t *m, const char *key,
    int otherwise, bool *v);
int tok_hf_number(tok_hf_t *f, const tok_members_t *m, const char *key,
    uint32_t max, uint32_t *v);
int tok_hf_char(tok_hf_t *f, const tok_members_t *m, const char *key,
    uint32_t *c, tok_ref_t *ref);
bool tok_hf_is(tok_str_t s, const char *name);
int tok_hf_unknown(tok_hf_t *f, const char *what, tok_str_t name);

/*
 * A component or a Sequence of them (list: its key), in order: each is
 * called once with its members.
 */
typedef int (*tok_hf_fn)(tok_hf_t *f, const tok_members_t *m, tok_str_t type);
int tok_hf_walk(tok_hf_t *f, const char *list, tok_hf_fn fn);

/*
 * {"String": ...} or {"Regex": ...}.  *op gets the text and either type; a
 * pattern is translated to PCRE2's language, or refused.
 */
int tok_hf_pattern(tok_hf_t *f, const tok_members_t *m, tok_op_t *op,
    uint16_t string_type, uint16_t regex_type, tok_str_t *raw);
int tok_hf_translate(tok_hf_t *f, tok_str_t from, tok_ref_t *ref);


#endif /* TOK_HF_H */
