/*
 * From a decoded request to tokens: chat template, then tokenizer; and back,
 * for the detokenize task.  One text, one arena, one array of ids, used by one
 * request at a time.
 */

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "worker/wrk_req.h"
#include "worker/wrk_sched_mem.h"


/* A request larger than this gives its pages back afterwards. */
#define WRK_ENC_KEEP_BYTES  (256u << 10)
#define WRK_ENC_SLACK       (64u << 10)     /* a template's own text */
#define WRK_ENC_FLAGS       (TOK_NO_TRUNCATION | TOK_NO_PADDING)


struct wrk_enc_s {
    const tok_t            *tok;
    const chat_template_t  *tmpl;
    tok_scratch_t          *scratch;
    tok_str_t               bos, eos;
    char                   *text;
    size_t                  text_cap;
    chat_span_t            *spans;
    tok_range_t            *plain;
    size_t                  spans_cap;
    void                   *arena;
    size_t                  arena_bytes;
    uint32_t               *ids;
    size_t                  ids_cap;
};


static int wrk_enc_chat(wrk_enc_t *enc, const wrk_req_t *r, tok_result_t *res,
    wrk_req_error_t *err);
static int wrk_enc_prompt(wrk_enc_t *enc, const wrk_req_t *r,
    uint32_t prompt, tok_result_t *res, wrk_req_error_t *err);


static tok_str_t
wrk_enc_special(const tok_t *tok, uint32_t id)
{
    tok_str_t  none = { "", 0 };

    return id == TOK_NO_ID ? none : tok_id_to_token(tok, id);
}


wrk_enc_t *
wrk_enc_create(const tok_t *tok, const chat_template_t *tmpl, size_t bytes_max)
{
    wrk_enc_t  *enc;

    assert(bytes_max <= SHR_REQ_BYTES_MAX);

    enc = calloc(1, sizeof(*enc));
    if (enc == NULL) {
        return NULL;
    }

    enc->tok = tok;
    enc->tmpl = tmpl;
    enc->bos = wrk_enc_special(tok, tok_bos(tok));
    enc->eos = wrk_enc_special(tok, tok_eos(tok));

    /* A template may repeat parts of its input, tools above all. */
    enc->text_cap = 2 * bytes_max + WRK_ENC_SLACK;
    enc->spans_cap = bytes_max / 8 + 64;
    enc->arena_bytes = CHAT_ARENA_BYTES(bytes_max);
    /* A token stands for a byte or more, but for a few special ones. */
    enc->ids_cap = enc->text_cap + 16 * SHR_CHOICES_MAX;

    enc->scratch = tok_scratch_new();
    enc->text = wrk_mem_map(enc->text_cap);
    enc->spans = wrk_mem_map(enc->spans_cap * sizeof(chat_span_t));
    enc->plain = wrk_mem_map(enc->spans_cap * sizeof(tok_range_t));
    enc->arena = wrk_mem_map(enc->arena_bytes);
    enc->ids = wrk_mem_map(enc->ids_cap * sizeof(uint32_t));

    if (enc->scratch == NULL || enc->text == NULL || enc->spans == NULL
        || enc->plain == NULL || enc->arena == NULL || enc->ids == NULL)
    {
        wrk_enc_destroy(enc);
        return NULL;
    }

    return enc;
}


void
wrk_enc_destroy(wrk_enc_t *enc)
{
    if (enc == NULL) {
        return;
    }

    tok_scratch_free(enc->scratch);
    wrk_mem_unmap(enc->text, enc->text_cap);
    wrk_mem_unmap(enc->spans, enc->spans_cap * sizeof(chat_span_t));
    wrk_mem_unmap(enc->plain, enc->spans_cap * sizeof(tok_range_t));
    wrk_mem_unmap(enc->arena, enc->arena_bytes);
    wrk_mem_unmap(enc->ids, enc->ids_cap * sizeof(uint32_t));
    free(enc);
}


static void
wrk_enc_forget(wrk_enc_t *enc)
{
    wrk_mem_forget(enc->text, enc->text_cap);
    wrk_mem_forget(enc->spans, enc->spans_cap * sizeof(chat_span_t));
    wrk_mem_forget(enc->plain, enc->spans_cap * sizeof(tok_range_t));
    wrk_mem_forget(enc->arena, enc->arena_bytes);
    wrk_mem_forget(enc->ids, enc->ids_cap * sizeof(uint32_t));
}


static int
wrk_enc_tok_error(int rc, const tok_result_t *res, const char *param,
    wrk_req_error_t *err)
{
    switch (rc) {

    case TOK_E_UTF8:
        return wrk_req_fail(err, SHR_E_INVALID, param,
                            "the text is not valid UTF-8 at byte %zu",
                            res->bad_at);

    case TOK_E_LIMIT:
    case TOK_E_MATCH:
    case TOK_E_UNK:
        return wrk_req_fail(err, SHR_E_INVALID, param,
                            "the text cannot be tokenized (code %d)", rc);

    default:
        return wrk_req_fail(err, SHR_E_INTERNAL, NULL,
                            "the tokenizer failed (code %d)", rc);
    }
}


int
wrk_enc_prompts(wrk_enc_t *enc, const wrk_req_t *r, wrk_prompts_t *out,
    wrk_req_error_t *err)
{
    int           rc;
    uint32_t      i;
    tok_result_t  res;

    /* What an earlier large request has left. */
    if (r->fixed.len > WRK_ENC_KEEP_BYTES) {
        wrk_enc_forget(enc);
    }

    out->n = r->messages.data != NULL ? 1 : r->nprompts;
    out->at[0] = 0;
    out->ids = enc->ids;
    out->offsets = NULL;

    for (i = 0; i < out->n; i++) {
        memset(&res, 0, sizeof(res));
        rc = r->messages.data != NULL ? wrk_enc_chat(enc, r, &res, err)
                                      : wrk_enc_prompt(enc, r, i, &res, err);

        if (rc != 0) {
            return -1;
        }

        if (res.n > enc->ids_cap - out->at[i]) {
            return wrk_req_fail(err, SHR_E_INVALID, "prompt",
                                "the prompts have more than %zu tokens",
                                enc->ids_cap);
        }

        memcpy(enc->ids + out->at[i], res.ids, res.n * sizeof(uint32_t));
        out->at[i + 1] = out->at[i] + res.n;
        out->offsets = out->n == 1 ? res.offsets : NULL;
    }

    return 0;
}


static unsigned
wrk_enc_flags(const wrk_req_t *r)
{
    return WRK_ENC_FLAGS
           | (r->fixed.flags & SHR_REQ_OFFSETS ? TOK_OFFSETS : 0);
}


static int
wrk_enc_prompt(wrk_enc_t *enc, const wrk_req_t *r, uint32_t prompt,
    tok_result_t *res, wrk_req_error_t *err)
{
    int                 rc;
    unsigned            flags;
    const wrk_bytes_t  *p;

    p = &r->prompts[prompt];

    if (r->prompt_type == SHR_R_PROMPT_IDS) {
        res->ids = (const uint32_t *) p->data;
        res->n = p->len / sizeof(uint32_t);
        return 0;
    }

    flags = wrk_enc_flags(r) | TOK_PARSE_SPECIAL;

    if ((r->fixed.flags & SHR_REQ_NO_SPECIAL) == 0) {
        flags |= TOK_ADD_SPECIAL;
    }

    rc = tok_encode(enc->tok, enc->scratch, p->data, p->len, flags, res);

    return rc == TOK_OK ? 0 : wrk_enc_tok_error(rc, res, "prompt", err);
}


static int
wrk_enc_chat_error(const chat_err_t *cerr, wrk_req_error_t *err)
{
    switch (cerr->code) {

    case CHAT_EINPUT:
        return wrk_req_fail(err, SHR_E_INVALID,
                            cerr->param[0] != '\0' ? cerr->param : "messages",
                            "%s", cerr->text);

    case CHAT_ERAISED:
        return wrk_req_fail(err, SHR_E_INVALID, "messages",
                            "the model's chat template refuses these "
                            "messages: %s", cerr->text);

    case CHAT_ELIMIT:
    case CHAT_ETOOLONG:
        return wrk_req_fail(err, SHR_E_INVALID, "messages",
                            "the messages are too much for the chat template: "
                            "%s", cerr->text);

    default:
        return wrk_req_fail(err, SHR_E_INVALID, "messages",
                            "the model's chat template failed at line %u: %s",
                            cerr->line, cerr->text);
    }
}


static int
wrk_enc_render(wrk_enc_t *enc, const wrk_req_t *r, chat_output_t *out,
    wrk_req_error_t *err)
{
    chat_err_t       cerr;
    chat_input_t     in;
    struct timespec  ts;

    clock_gettime(CLOCK_REALTIME_COARSE, &ts);

    in.messages = r->messages.data;
    in.messages_len = r->messages.len;
    in.tools = r->tools.data;
    in.tools_len = r->tools.len;
    in.kwargs = r->args.data;
    in.kwargs_len = r->args.len;
    in.bos = enc->bos.ptr;
    in.bos_len = enc->bos.len;
    in.eos = enc->eos.ptr;
    in.eos_len = enc->eos.len;
    in.now = ts.tv_sec;
    in.add_generation_prompt = (r->fixed.flags & SHR_REQ_NO_GEN) == 0;

    out->text = enc->text;
    out->text_cap = enc->text_cap;
    out->spans = enc->spans;
    out->spans_cap = enc->spans_cap;

    if (chat_render(enc->tmpl, &in, enc->arena, enc->arena_bytes, out, &cerr)
        != CHAT_OK)
    {
        return wrk_enc_chat_error(&cerr, err);
    }

    assert(out->text_len <= out->text_cap && out->spans_len <= out->spans_cap);

    return 0;
}


static int
wrk_enc_chat(wrk_enc_t *enc, const wrk_req_t *r, tok_result_t *res,
    wrk_req_error_t *err)
{
    int            rc;
    size_t         i;
    chat_output_t  out;

    if (enc->tmpl == NULL) {
        return wrk_req_fail(err, SHR_E_UNSUPPORTED, "messages",
                            "this model has no chat template: use "
                            "completions, or give it one with `template`");
    }

    if (r->tools.data != NULL && !chat_uses_tools(enc->tmpl)) {
        return wrk_req_fail(err, SHR_E_UNSUPPORTED, "tools",
                            "this model's chat template does not know tools");
    }

    if (wrk_enc_render(enc, r, &out, err) != 0) {
        return -1;
    }

    for (i = 0; i < out.spans_len; i++) {
        enc->plain[i].begin = out.spans[i].start;
        enc->plain[i].end = out.spans[i].end;
    }

    rc = tok_encode_chat(enc->tok, enc->scratch, out.text, out.text_len,
                         enc->plain, out.spans_len, wrk_enc_flags(r), res);

    return rc == TOK_OK ? 0 : wrk_enc_tok_error(rc, res, "messages", err);
}


int
wrk_enc_texts(wrk_enc_t *enc, const wrk_req_t *r, wrk_prompts_t *out,
    const char **text, wrk_req_error_t *err)
{
    int                 rc;
    size_t              len;
    unsigned            flags;
    uint32_t            i;
    const char         *part;
    tok_result_t        res;
    const wrk_bytes_t  *p;

    assert(r->prompt_type == SHR_R_PROMPT_IDS);

    flags = r->fixed.flags & SHR_REQ_KEEP_SPECIAL ? 0 : TOK_SKIP_SPECIAL;
    memset(&res, 0, sizeof(res));
    memset(out, 0, sizeof(*out));
    out->n = r->nprompts;
    *text = enc->text;

    for (i = 0; i < out->n; i++) {
        p = &r->prompts[i];
        rc = tok_decode(enc->tok, enc->scratch, (const uint32_t *) p->data,
                        p->len / sizeof(uint32_t), flags, &part, &len);

        if (rc == TOK_E_ARG) {
            return wrk_req_fail(err, SHR_E_INVALID, "tokens",
                                "a token id is not in the vocabulary of %u "
                                "tokens", tok_vocab_size(enc->tok));
        }

        if (rc != TOK_OK) {
            return wrk_enc_tok_error(rc, &res, "tokens", err);
        }

        if (len > enc->text_cap - out->at[i]) {
            return wrk_req_fail(err, SHR_E_INVALID, "tokens",
                                "the text has more than %zu bytes",
                                enc->text_cap);
        }

        if (len != 0) {
            memcpy(enc->text + out->at[i], part, len);
        }

        out->at[i + 1] = out->at[i] + len;
    }

    return 0;
}
