/*
 * tok_lookup.c: questions about ids.
 */

#include "tokenizer/tok_decode.h"


uint32_t
tok_vocab_size(const tok_t *t)
{
    return t->img->n_ids;
}


uint32_t
tok_token_to_id(const tok_t *t, const char *token, size_t len)
{
    const tok_added_t  *a;
    uint32_t            id, i;

    id = tok_model_find(t, (const uint8_t *) token, len);
    if (id != TOK_NO_ID && !(t->flags[id] & TOK_F_ADDED)) {
        return id;
    }
    for (i = 0; i < t->n_added; i++) {
        a = &t->added[i];
        if (a->text.len == len
            && memcmp(t->pool + a->text.off, token, len) == 0)
        {
            return a->id;
        }
    }
    return id;
}


tok_str_t
tok_id_to_token(const tok_t *t, uint32_t id)
{
    return tok_shown(t, id);
}


int
tok_id_to_bytes(const tok_t *t, uint32_t id, char *out, size_t cap,
    size_t *len)
{
    tok_ref_t  r;

    *len = 0;
    if (id >= t->img->n_ids) {
        return TOK_E_ARG;
    }
    r = t->bytes[id];
    *len = r.len;
    if (r.len > cap) {
        return TOK_E_SPACE;
    }
    if (r.len) {
        memcpy(out, t->pool + r.off, r.len);
    }
    return 0;
}


bool
tok_is_special(const tok_t *t, uint32_t id)
{
    return id < t->img->n_ids && (t->flags[id] & TOK_F_SPECIAL);
}


uint32_t
tok_bos(const tok_t *t)
{
    return t->img->bos;
}


uint32_t
tok_eos(const tok_t *t)
{
    return t->img->eos;
}


uint32_t
tok_pad(const tok_t *t)
{
    return t->img->pad;
}


uint32_t
tok_unk(const tok_t *t)
{
    return t->img->unk;
}


const uint32_t *
tok_eos_all(const tok_t *t, size_t *n)
{
    *n = t->n_eos;
    return t->eos_ids;
}


tok_str_t
tok_chat_template(const tok_t *t)
{
    return (tok_str_t) { (const char *) t->pool + t->img->chat.off,
                         t->img->chat.len };
}


const char *
tok_kind(const tok_t *t)
{
    switch (t->img->model) {
    case TOK_M_WORDPIECE:
        return "WordPiece";
    case TOK_M_UNIGRAM:
        return "Unigram";
    case TOK_M_WORDLEVEL:
        return "WordLevel";
    default:
        return t->img->bpe_flags & TOK_BPE_BYTE_MODE ? "byte-level BPE"
               : t->img->bpe_flags & TOK_BPE_BYTE_FALLBACK
               ? "SentencePiece BPE" : "BPE";
    }
}


size_t
tok_max_length(const tok_t *t)
{
    return t->img->trunc_max;
}
