/*
 * tok_hf.c: tokenizer.json as a whole: its top level, added tokens,
 * truncation and padding, and what tokenizer_config.json beside it says.
 */

#include "tokenizer/tok_hf.h"
#include "tokenizer/tok_load.h"


/* --- added tokens ------------------------------------------------------ */

static int
added_token(tok_hf_t *f, uint32_t *next_id)
{
    static const struct {
        const char  *key;
        uint32_t     bit;
    }  flags[] = {
        { "single_word", TOK_A_SINGLE_WORD }, { "lstrip", TOK_A_LSTRIP },
        { "rstrip", TOK_A_RSTRIP }, { "normalized", TOK_A_NORMALIZED },
        { "special", TOK_A_SPECIAL }
    };
    tok_members_t   m;
    const uint8_t  *after;
    tok_added_t    *old;
    tok_str_t       s;
    uint32_t        bits = 0, id;
    size_t          i;
    bool            v;
    int             rc = tok_json_members(f->j, &m);

    after = f->j->p;
    for (i = 0; i < sizeof(flags) / sizeof(flags[0]) && rc == 0; i++) {
        rc = tok_hf_flag(f, &m, flags[i].key, -1, &v);
        bits |= rc == 0 && v ? flags[i].bit : 0;
    }
    if (rc == 0) {
        rc = tok_hf_number(f, &m, "id", UINT32_MAX, &id);
    }
    if (rc == 0 && !tok_json_at(f->j, &m, "content")) {
        return tok_json_fail(f->j, TOK_E_FORMAT, "an added token without "
                             "content");
    }
    if (rc == 0) {
        rc = tok_json_string(f->j, &s);
    }
    f->j->p = after;
    if (rc != 0 || s.len == 0) {
        return rc;
    }
    /* As the reference: the model's id, else the next one; never the file's. */
    id = tok_build_find(f->b, (const uint8_t *) s.ptr, s.len);
    old = tok_build_added_find(f->b, (const uint8_t *) s.ptr, s.len);
    if (old != NULL) {
        old->flags = bits;
        /* For the reference a token once special stays so. */
        ((uint8_t *) f->b->flags.ptr)[old->id] |=
            bits & TOK_A_SPECIAL ? TOK_F_SPECIAL : 0;
        return 0;
    }
    if (id == TOK_NO_ID) {
        id = (*next_id)++;
    }
    return tok_build_added(f->b, id, s.ptr, s.len, bits);
}


static int
added_tokens(tok_hf_t *f)
{
    uint32_t  next_id = f->b->h.n_model;
    bool      first = true;
    int       rc = tok_json_open(f->j, '[');

    while (rc == 0 && (rc = tok_json_next(f->j, '[', &first)) == 1) {
        if (f->b->added.n >= TOK_ADDED_MAX) {
            return tok_json_fail(f->j, TOK_E_LIMIT, "too many added tokens");
        }
        rc = added_token(f, &next_id);
    }
    return rc;
}


/* --- truncation, padding ----------------------------------------------- */

static int
direction(tok_hf_t *f, const tok_members_t *m, uint32_t *left)
{
    tok_str_t  s;
    int        rc;

    *left = 0;
    if (!tok_json_at(f->j, m, "direction")) {
        return 0;
    }
    rc = tok_json_string(f->j, &s);
    if (rc != 0) {
        return rc;
    }
    *left = tok_hf_is(s, "Left");
    return *left || tok_hf_is(s, "Right") ? 0
           : tok_hf_unknown(f, "direction", s);
}


static int
truncation(tok_hf_t *f)
{
    static const char *const  names[] = {
        "LongestFirst", "OnlyFirst", "OnlySecond"
    };
    tok_image_t    *h = &f->b->h;
    tok_members_t   m;
    tok_str_t       s;
    int             rc;

    if (tok_json_null(f->j)) {
        return 0;
    }
    rc = tok_json_members(f->j, &m);
    if (rc == 0) {
        rc = direction(f, &m, &h->trunc_left);
    }
    if (rc == 0) {
        rc = tok_hf_number(f, &m, "max_length", UINT32_MAX, &h->trunc_max);
    }
    if (rc == 0) {
        rc = tok_hf_number(f, &m, "stride", UINT32_MAX, &h->trunc_stride);
    }
    if (rc == 0 && h->trunc_max == 0) {
        return tok_json_fail(f->j, TOK_E_UNSUPPORTED, "truncation to 0 "
                             "tokens");
    }
    if (rc == 0 && !tok_json_at(f->j, &m, "strategy")) {
        return tok_json_fail(f->j, TOK_E_FORMAT, "\"strategy\" is missing");
    }
    if (rc == 0) {
        rc = tok_json_string(f->j, &s);
    }
    if (rc != 0) {
        return rc;
    }
    for (h->trunc_strategy = 0; h->trunc_strategy < 3; h->trunc_strategy++) {
        if (tok_hf_is(s, names[h->trunc_strategy])) {
            return 0;
        }
    }
    return tok_hf_unknown(f, "truncation strategy", s);
}


static int
pad_strategy(tok_hf_t *f, const tok_members_t *m)
{
    tok_members_t  fixed;
    tok_str_t      s;
    int            rc;

    if (!tok_json_at(f->j, m, "strategy")) {
        return tok_json_fail(f->j, TOK_E_FORMAT, "\"strategy\" is missing");
    }
    if (tok_json_peek(f->j) == '"') {
        rc = tok_json_string(f->j, &s);
        return rc != 0 || tok_hf_is(s, "BatchLongest") ? rc
               : tok_hf_unknown(f, "padding strategy", s);
    }
    rc = tok_json_members(f->j, &fixed);
    return rc == 0 ? tok_hf_number(f, &fixed, "Fixed", TOK_LENGTH_MAX,
                                   &f->b->h.pad_fixed) : rc;
}


static int
padding(tok_hf_t *f)
{
    tok_image_t   *h = &f->b->h;
    tok_members_t  m;
    int            rc;

    if (tok_json_null(f->j)) {
        return 0;
    }
    h->pad_on = 1;
    rc = tok_json_members(f->j, &m);
    if (rc == 0) {
        rc = pad_strategy(f, &m);
    }
    if (rc == 0) {
        rc = direction(f, &m, &h->pad_left);
    }
    if (rc == 0 && tok_json_at(f->j, &m, "pad_to_multiple_of")
        && !tok_json_null(f->j))
    {
        rc = tok_hf_number(f, &m, "pad_to_multiple_of", TOK_LENGTH_MAX,
                           &h->pad_multiple);
    }
    if (rc == 0) {
        rc = tok_hf_number(f, &m, "pad_id", TOK_IDS_MAX - 1, &h->pad_id);
    }
    if (rc == 0) {
        rc = tok_hf_number(f, &m, "pad_type_id", 255, &h->pad_type);
    }
    h->pad = h->pad_id;
    return rc;
}


/* --- tokenizer_config.json --------------------------------------------- */

/* "</s>" or {"content": "</s>", ...}: its id. */
static int
named_token(tok_hf_t *f, const tok_members_t *m, const char *key,
    uint32_t *id)
{
    tok_members_t  token;
    tok_added_t   *a;
    tok_str_t      s;
    int            rc = 0;

    if (!tok_json_at(f->j, m, key) || tok_json_null(f->j)) {
        return 0;
    }
    if (tok_json_peek(f->j) == '{') {
        rc = tok_json_members(f->j, &token);
        if (rc != 0 || !tok_json_at(f->j, &token, "content")) {
            return rc;
        }
    }
    rc = tok_json_string(f->j, &s);
    if (rc != 0) {
        return rc;
    }
    a = tok_build_added_find(f->b, (const uint8_t *) s.ptr, s.len);
    *id = a != NULL ? a->id
          : tok_build_find(f->b, (const uint8_t *) s.ptr, s.len);
    return 0;
}


static int
chat_text(tok_hf_t *f)
{
    tok_str_t  s;
    int        rc = tok_json_string(f->j, &s);

    if (rc == 0 && s.len > TOK_TEMPLATE_BYTES_MAX) {
        return tok_json_fail(f->j, TOK_E_LIMIT, "a chat template beyond the "
                             "limit");
    }
    return rc == 0 ? tok_build_string(f->b, s.ptr, s.len, &f->b->h.chat) : rc;
}


/* A text, or a list of named ones: the one named "default", or the first. */
static int
chat_template(tok_hf_t *f, const tok_members_t *m)
{
    tok_members_t   one;
    const uint8_t  *after;
    tok_str_t       name;
    bool            first = true, have = false;
    int             rc;

    if (!tok_json_at(f->j, m, "chat_template") || tok_json_null(f->j)) {
        return 0;
    }
    if (tok_json_peek(f->j) == '"') {
        return chat_text(f);
    }
    rc = tok_json_open(f->j, '[');
    while (rc == 0 && (rc = tok_json_next(f->j, '[', &first)) == 1) {
        rc = tok_json_members(f->j, &one);
        after = f->j->p;
        if (rc == 0 && tok_json_at(f->j, &one, "name")) {
            rc = tok_json_string(f->j, &name);
            if (rc == 0 && (!have || tok_hf_is(name, "default"))
                && tok_json_at(f->j, &one, "template"))
            {
                have = true;
                rc = chat_text(f);
            }
        }
        f->j->p = after;
    }
    return rc;
}


static int
read_config(tok_hf_t *f, const char *text, size_t len)
{
    tok_json_t     j, *before = f->j;
    tok_members_t  m;
    int            rc = tok_json_init(&j, text, len, "tokenizer_config.json",
                                      f->b->err);

    f->j = &j;
    if (rc == 0) {
        rc = tok_json_members(&j, &m);
    }
    if (rc == 0) {
        rc = chat_template(f, &m);
    }
    if (rc == 0) {
        rc = named_token(f, &m, "bos_token", &f->b->h.bos);
    }
    if (rc == 0) {
        rc = named_token(f, &m, "eos_token", &f->b->h.eos);
    }
    if (rc == 0) {
        rc = named_token(f, &m, "pad_token", &f->b->h.pad);
    }
    f->j = before;
    tok_json_free(&j);
    return rc;
}


/* A template in a file of its own comes before one in the configuration. */
static int
chat_file(tok_hf_t *f, tok_str_t text)
{
    size_t  at = tok_utf8_check((const uint8_t *) text.ptr, text.len);

    if (at != text.len) {
        return tok_fail(f->b->err, TOK_E_FORMAT, "chat_template.jinja: not "
                        "UTF-8 at byte %zu", at);
    }
    return tok_build_string(f->b, text.ptr, text.len, &f->b->h.chat);
}


/* "eos_token_id": one id or several; each ends a generation. */
static int
eos_ids(tok_hf_t *f)
{
    uint32_t  id;
    bool      first = true;
    int       rc = 0, more = 1;

    if (tok_json_peek(f->j) != '[') {
        rc = tok_json_u32(f->j, &id);
        return rc == 0 ? tok_build_eos_add(f->b, id) : rc;
    }
    rc = tok_json_open(f->j, '[');
    while (rc == 0 && (more = tok_json_next(f->j, '[', &first)) == 1) {
        rc = tok_json_u32(f->j, &id);
        if (rc == 0) {
            rc = tok_build_eos_add(f->b, id);
        }
    }
    return rc != 0 ? rc : more;
}


static int
read_generation(tok_hf_t *f, tok_str_t text)
{
    tok_json_t     j, *before = f->j;
    tok_members_t  m;
    int            rc = tok_json_init(&j, text.ptr, text.len,
                                      "generation_config.json", f->b->err);

    f->j = &j;
    if (rc == 0) {
        rc = tok_json_members(&j, &m);
    }
    if (rc == 0 && tok_json_at(&j, &m, "eos_token_id")
        && !tok_json_null(&j))
    {
        rc = eos_ids(f);
    }
    f->j = before;
    tok_json_free(&j);
    return rc;
}


/* --- the top ----------------------------------------------------------- */

static int
version(tok_hf_t *f, const tok_members_t *m)
{
    tok_str_t  s;
    int        rc;

    if (!tok_json_at(f->j, m, "version")) {
        return 0;
    }
    rc = tok_json_string(f->j, &s);
    return rc != 0 || tok_hf_is(s, "1.0") ? rc
           : tok_hf_unknown(f, "version", s);
}


static int
read_all(tok_hf_t *f)
{
    static const struct {
        const char  *key;
        int        (*fn)(tok_hf_t *f);
    }  parts[] = {
        { "truncation", truncation }, { "padding", padding },
        { "normalizer", tok_hf_normalizer }, { "pre_tokenizer", tok_hf_pre },
        { "post_processor", tok_hf_post }, { "decoder", tok_hf_decoder }
    };
    tok_members_t  m;
    size_t         i;
    bool           first = true, model = false;
    int            rc = tok_json_open(f->j, '{');

    m.n = 0;
    while (rc == 0 && (rc = tok_json_member(f->j, &m, &first)) == 1) {
        if (!tok_hf_is(m.m[m.n - 1].key, "model")) {
            rc = tok_json_skip(f->j);
            continue;
        }
        /* The large one: it is read at once, and so gone through once. */
        if (model) {
            return tok_json_fail(f->j, TOK_E_FORMAT, "a second \"model\"");
        }
        model = true;
        rc = version(f, &m);
        f->j->p = m.m[m.n - 1].value;
        if (rc == 0) {
            rc = tok_hf_model(f);
        }
    }
    if (rc == 0 && tok_json_peek(f->j) != 0) {
        return tok_json_fail(f->j, TOK_E_FORMAT, "text behind the object");
    }
    if (rc == 0) {
        rc = version(f, &m);
    }
    if (rc == 0 && !model && tok_json_at(f->j, &m, "model")) {
        model = true;               /* its key has escapes */
        rc = tok_hf_model(f);
    }
    if (rc == 0 && !model) {
        return tok_json_fail(f->j, TOK_E_FORMAT, "\"model\" is missing");
    }
    for (i = 0; i < sizeof(parts) / sizeof(parts[0]) && rc == 0; i++) {
        if (tok_json_at(f->j, &m, parts[i].key)) {
            rc = parts[i].fn(f);
        }
    }
    if (rc == 0 && tok_json_at(f->j, &m, "added_tokens")) {
        rc = added_tokens(f);
    }
    return rc;
}


int
tok_json_memory(tok_t **t, const char *json, size_t len, char **spare,
    const tok_beside_t *beside, const char *name, tok_err_t *err)
{
    tok_build_t  b;
    tok_json_t   j;
    tok_hf_t     f = { .b = &b, .j = &j };
    int          rc;

    *t = NULL;
    tok_build_init(&b, err);
    rc = tok_json_init(&j, json, len, name, err);
    if (rc == 0) {
        rc = read_all(&f);
    }
    if (rc == 0 && beside->config.ptr != NULL) {
        rc = read_config(&f, beside->config.ptr, beside->config.len);
    }
    if (rc == 0 && beside->chat.ptr != NULL) {
        rc = chat_file(&f, beside->chat);
    }
    if (rc == 0 && beside->generation.ptr != NULL) {
        rc = read_generation(&f, beside->generation);
    }
    if (rc == 0) {
        rc = tok_build_eos(&b);
    }
    tok_json_free(&j);
    if (rc == 0) {
        b.spare = spare;
        b.spare_bytes = len;
        rc = tok_build_finish(&b, t);
    }
    tok_build_free(&b);
    return rc;
}
