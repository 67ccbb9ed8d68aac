/*
 * tok_ggml_spm.c: GGUF vocabularies that come from SentencePiece and BERT.
 */

#include "tokenizer/tok_ggml.h"
#include "tokenizer/tok_charsmap.h"

#include <stdlib.h>


#define SPACE_MARK  "\xe2\x96\x81"          /* U+2581 */


static bool
checked(tok_build_t *b, const tok_gguf_t *g, uint32_t i, int *rc)
{
    if (tok_utf8_check((const uint8_t *) g->tokens[i].ptr, g->tokens[i].len)
        == g->tokens[i].len)
    {
        return true;
    }
    *rc = tok_fail(b->err, TOK_E_FORMAT, "tokenizer: token %u is not UTF-8",
                   i);
    return false;
}


static bool
all_spaces(tok_str_t s)
{
    size_t  i;

    for (i = 0; i < s.len; i++) {
        if (s.ptr[i] != ' ') {
            return false;
        }
    }
    return s.len >= 2;
}


/* --- llama: SentencePiece BPE ------------------------------------------ */

typedef struct {
    uint32_t  id;
    double    score;
} order_t;


static int
order_cmp(const void *x, const void *y)
{
    const order_t  *a = x, *b = y;

    if (a->score != b->score) {
        return a->score > b->score ? -1 : 1;
    }
    return a->id < b->id ? -1 : a->id > b->id;
}


/*
 * Runs of spaces are given as they read; the model spells them with its
 * mark, and merges them before anything else.
 */
static int
llama_tokens(tok_build_t *b, const tok_gguf_t *g, order_t *order, size_t *n)
{
    uint8_t    *buf = NULL;
    tok_str_t   s;
    uint32_t    i;
    size_t      k;
    int         rc = tok_build_ids(b, g->n_tokens), type;

    *n = 0;
    for (i = 0; i < g->n_tokens && rc == 0 && checked(b, g, i, &rc); i++) {
        s = g->tokens[i];
        type = g->types != NULL ? g->types[i] : TOK_TYPE_NORMAL;
        order[*n] = (order_t) { i, g->scores != NULL ? (double) g->scores[i]
                                                     : -(double) i };
        if (type == TOK_TYPE_USER && all_spaces(s)
            && s.len <= TOK_TOKEN_BYTES_MAX / 3)
        {
            buf = malloc(3 * s.len);
            if (buf == NULL) {
                return tok_fail(b->err, TOK_E_NOMEM, "tokenizer: no memory");
            }
            for (k = 0; k < s.len; k++) {
                memcpy(buf + 3 * k, SPACE_MARK, 3);
            }
            rc = tok_build_token(b, i, (char *) buf, 3 * s.len);
            if (rc == 0) {
                rc = tok_build_added(b, i, (char *) buf, 3 * s.len, 0);
            }
            free(buf);
            order[*n].score = 1e9 + (double) s.len;
            (*n)++;
            continue;
        }
        rc = tok_build_token(b, i, s.ptr, s.len);
        if (rc != 0 || s.len == 0) {
            continue;
        }
        if (type == TOK_TYPE_NORMAL) {
            (*n)++;

        } else if (type != TOK_TYPE_BYTE) {
            rc = tok_build_added(b, i, s.ptr, s.len, type == TOK_TYPE_CONTROL
                                 || type == TOK_TYPE_UNKNOWN
                                 ? TOK_A_SPECIAL : 0);
        }
    }
    return rc == 0 ? tok_build_index(b, false) : rc;
}


/* Every way to split a token in two tokens is a merge, the long left first. */
static int
llama_merges(tok_build_t *b, const order_t *order, size_t n)
{
    tok_merge_t     m;
    tok_ref_t       r;
    const uint8_t  *p;
    size_t          i, k;

    for (i = 0; i < n; i++) {
        r = ((tok_ref_t *) b->tokens.ptr)[order[i].id];
        p = tok_build_text(b, r);
        m.to = order[i].id;
        if (tok_build_find(b, p, r.len) != m.to) {
            continue;
        }
        for (k = r.len; k-- > 1; /* void */) {
            if ((p[k] & 0xc0) == 0x80) {
                continue;
            }
            m.a = tok_build_find(b, p, k);
            if (m.a == TOK_NO_ID) {
                continue;
            }
            m.b = tok_build_find(b, p + k, r.len - k);
            if (m.b == TOK_NO_ID) {
                continue;
            }
            if (b->merges.n >= TOK_MERGES_MAX
                || tok_vec_room(&b->merges, 1, sizeof(m)) != 0)
            {
                return tok_fail(b->err, TOK_E_LIMIT, "tokenizer: more than %u "
                                "merges", TOK_MERGES_MAX);
            }
            m.rank = (uint32_t) b->merges.n;
            ((tok_merge_t *) b->merges.ptr)[b->merges.n++] = m;
        }
    }
    return 0;
}


static int
spm_decoder(tok_build_t *b, bool strip)
{
    int  rc = tok_ggml_op(b, &b->decode, TOK_D_REPLACE, 0, 0, SPACE_MARK,
                          " ");

    if (rc == 0) {
        rc = tok_ggml_op(b, &b->decode, TOK_D_BYTE_FALLBACK, 0, 0, NULL,
                         NULL);
    }
    if (rc == 0) {
        rc = tok_ggml_op(b, &b->decode, TOK_D_FUSE, 0, 0, NULL, NULL);
    }
    return rc == 0 && strip ? tok_ggml_op(b, &b->decode, TOK_D_STRIP, 1, ' ',
                                          NULL, NULL) : rc;
}


int
tok_ggml_llama(tok_build_t *b, const tok_gguf_t *g)
{
    order_t  *order = malloc(((size_t) g->n_tokens + 1) * sizeof(*order));
    bool      prefix = g->add_space_prefix != 0;
    size_t    n = 0;
    int       rc;

    if (order == NULL) {
        return tok_fail(b->err, TOK_E_NOMEM, "tokenizer: no memory");
    }
    b->h.model = TOK_M_BPE;
    b->h.bpe_flags = TOK_BPE_BYTE_FALLBACK | TOK_BPE_FUSE_UNK;
    rc = llama_tokens(b, g, order, &n);
    if (rc == 0) {
        qsort(order, n, sizeof(*order), order_cmp);
        rc = llama_merges(b, order, n);
    }
    free(order);
    if (rc != 0) {
        return rc;
    }
    if (b->h.unk == TOK_NO_ID || b->h.unk >= g->n_tokens) {
        b->h.unk = tok_build_find(b, (const uint8_t *) "<unk>", 5);
    }
    if (b->h.unk != TOK_NO_ID) {
        b->h.bpe_flags |= TOK_BPE_HAS_UNK;
    }
    if (prefix) {
        rc = tok_ggml_op(b, &b->norm, TOK_N_PREPEND, 0, 0, SPACE_MARK, NULL);
    }
    if (rc == 0) {
        rc = tok_ggml_op(b, &b->norm, TOK_N_REPLACE, 0, 0, " ", SPACE_MARK);
    }
    if (rc == 0) {
        rc = spm_decoder(b, prefix);
    }
    return rc == 0
           ? tok_ggml_template(b, tok_ggml_if(g->add_bos, true, g->bos),
                               TOK_NO_ID, tok_ggml_if(g->add_eos, false,
                                                      g->eos), 1)
           : rc;
}


/* --- bert: WordPiece --------------------------------------------------- */

/*
 * A word's start carries a mark that WordPiece does not have, inner pieces
 * lost theirs; tokens in brackets are as they were.
 */
static int
bert_token(tok_build_t *b, uint32_t id, tok_str_t s, int type)
{
    char  small[256];
    int   rc;

    if (s.len >= 3 && memcmp(s.ptr, SPACE_MARK, 3) == 0) {
        return tok_build_token(b, id, s.ptr + 3, s.len - 3);
    }
    if (type != TOK_TYPE_NORMAL
        || (s.len >= 2 && s.ptr[0] == '[' && s.ptr[s.len - 1] == ']'))
    {
        rc = tok_build_token(b, id, s.ptr, s.len);
        return rc == 0 && (type == TOK_TYPE_CONTROL
                           || type == TOK_TYPE_UNKNOWN) && s.len
               ? tok_build_added(b, id, s.ptr, s.len, TOK_A_SPECIAL) : rc;
    }
    if (s.len + 2 > sizeof(small)) {
        return tok_fail(b->err, TOK_E_LIMIT, "tokenizer: token %u has %zu "
                        "bytes, the limit is %zu", id, s.len,
                        sizeof(small) - 2);
    }
    small[0] = small[1] = '#';
    memcpy(small + 2, s.ptr, s.len);
    return tok_build_token(b, id, small, s.len + 2);
}


int
tok_ggml_bert(tok_build_t *b, const tok_gguf_t *g)
{
    static const uint16_t  norms[] = {
        TOK_N_CLEAN, TOK_N_CHINESE, TOK_N_NFD, TOK_N_STRIP_MN, TOK_N_LOWER
    };
    uint32_t  i, cls, sep;
    int       rc = tok_build_ids(b, g->n_tokens);

    b->h.model = TOK_M_WORDPIECE;
    b->h.word_chars_max = 100;
    for (i = 0; i < g->n_tokens && rc == 0 && checked(b, g, i, &rc); i++) {
        rc = bert_token(b, i, g->tokens[i], g->types != NULL ? g->types[i]
                                                           : TOK_TYPE_NORMAL);
    }
    if (rc == 0) {
        rc = tok_build_index(b, false);
    }
    if (rc == 0) {
        rc = tok_build_string(b, "##", 2, &b->h.prefix);
    }
    for (i = 0; i < sizeof(norms) / sizeof(norms[0]) && rc == 0; i++) {
        rc = tok_ggml_op(b, &b->norm, norms[i], 0, 0, NULL, NULL);
    }
    if (rc == 0) {
        rc = tok_ggml_op(b, &b->pre, TOK_P_BERT, 0, 0, NULL, NULL);
    }
    if (rc == 0) {
        rc = tok_ggml_op(b, &b->decode, TOK_D_WORDPIECE, 1, 0, "##", NULL);
    }
    if (rc != 0) {
        return rc;
    }
    if (b->h.unk == TOK_NO_ID) {
        b->h.unk = tok_build_find(b, (const uint8_t *) "[UNK]", 5);
    }
    cls = g->cls != TOK_NO_ID ? g->cls : g->bos != TOK_NO_ID ? g->bos
          : tok_build_find(b, (const uint8_t *) "[CLS]", 5);
    sep = g->sep != TOK_NO_ID ? g->sep : g->eos != TOK_NO_ID ? g->eos
          : tok_build_find(b, (const uint8_t *) "[SEP]", 5);
    return tok_ggml_template(b, cls, sep, sep, 1);
}


/* --- t5: Unigram ------------------------------------------------------- */

int
tok_ggml_t5(tok_build_t *b, const tok_gguf_t *g)
{
    tok_op_t   op = { .type = TOK_N_CHARSMAP };
    double    *score, min = 1e300;
    uint32_t   i;
    int        rc;

    if (g->scores == NULL) {
        return tok_fail(b->err, TOK_E_FORMAT, "tokenizer: a Unigram vocabulary"
                        " without tokenizer.ggml.scores");
    }
    b->h.model = TOK_M_UNIGRAM;
    rc = tok_ggml_tokens(b, g);
    if (rc == 0) {
        rc = tok_ggml_added(b, g);
    }
    if (rc == 0 && tok_vec_room(&b->scores, g->n_tokens, sizeof(*score)) != 0)
    {
        rc = tok_fail(b->err, TOK_E_NOMEM, "tokenizer: no memory");
    }
    if (rc != 0) {
        return rc;
    }
    score = b->scores.ptr;
    b->scores.n = g->n_tokens;
    for (i = 0; i < g->n_tokens; i++) {
        score[i] = (double) g->scores[i];
        min = score[i] < min ? score[i] : min;
    }
    b->h.unk_score = min - 10.0;
    if (g->charsmap.len) {
        if (tok_charsmap_check((const uint8_t *) g->charsmap.ptr,
                               g->charsmap.len) != 0
            || tok_vec_room(&b->charsmap, g->charsmap.len, 1) != 0)
        {
            return tok_fail(b->err, TOK_E_FORMAT, "tokenizer: "
                            "precompiled_charsmap is damaged");
        }
        memcpy(b->charsmap.ptr, g->charsmap.ptr, g->charsmap.len);
        b->charsmap.n = g->charsmap.len;
        op.s.len = (uint32_t) g->charsmap.len;
        rc = tok_build_op(b, &b->norm, &op);
    }
    op = (tok_op_t) { .type = TOK_P_WS_SPLIT, .b = TOK_B_REMOVED };
    if (rc == 0 && g->remove_extra_spaces != 0) {
        rc = tok_build_op(b, &b->pre, &op);
    }
    op = (tok_op_t) { .type = TOK_P_METASPACE, .a = g->add_space_prefix != 0,
                      .b = TOK_B_NEXT, .c = 1 };
    if (rc == 0) {
        rc = tok_build_string(b, SPACE_MARK, 3, &op.s);
    }
    if (rc == 0) {
        rc = tok_build_op(b, &b->pre, &op);
    }
    if (rc == 0) {
        rc = tok_ggml_op(b, &b->decode, TOK_D_METASPACE,
                         g->add_space_prefix != 0, 0, SPACE_MARK, NULL);
    }
    return rc == 0
           ? tok_ggml_template(b, tok_ggml_if(g->add_bos, false, g->bos),
                               tok_ggml_if(g->add_eos, true, g->eos),
                               tok_ggml_if(g->add_eos, true, g->eos), 0)
           : rc;
}
