/*
 * tok_hf_model.c: the model of a tokenizer.json.
 */

#include "tokenizer/tok_hf.h"

#include <math.h>


/* Bytes of a merge's first part. */
#define LEFT_MAX     1024

/* A merge and a token of a file have about so many, or more. */
#define MERGE_BYTES  16
#define ENTRY_BYTES  48

/* A member that may be absent, null or a string. */
static int
maybe_text(tok_hf_t *f, const tok_members_t *m, const char *key,
    tok_ref_t *ref, bool *have)
{
    *have = false;
    if (!tok_json_at(f->j, m, key) || tok_json_null(f->j)) {
        return 0;
    }
    *have = true;
    return tok_hf_text(f, m, key, ref);
}


static int
maybe_flag(tok_hf_t *f, const tok_members_t *m, const char *key,
    uint32_t bit)
{
    bool  v = false;
    int   rc;

    if (!tok_json_at(f->j, m, key) || tok_json_null(f->j)) {
        return 0;
    }
    rc = tok_json_bool(f->j, &v);
    if (rc == 0 && v) {
        f->b->h.bpe_flags |= bit;
    }
    return rc;
}


/* Entries as the last one, but for the token and the id; j stands behind the
 * last id and does again. */
static int
vocab_same(tok_hf_t *f, const tok_gap_t *next, const tok_gap_t *colon)
{
    tok_json_t     *j = f->j;
    const uint8_t  *at = j->p;
    tok_str_t       s;
    uint32_t        id;
    int             rc = 0;

    while (tok_json_gap(j, next)) {
        if (!tok_json_plain(j, &s) || !tok_json_gap(j, colon)) {
            break;
        }
        rc = tok_json_u32(j, &id);
        if (rc == 0) {
            rc = tok_build_token(f->b, id, s.ptr, s.len);
        }
        if (rc != 0) {
            return rc;
        }
        at = j->p;
    }
    j->p = at;
    return 0;
}


/* {"token": id, ...} */
static int
vocab_map(tok_hf_t *f)
{
    tok_json_t     *j = f->j;
    tok_gap_t       next, colon;
    tok_str_t       s;
    const uint8_t  *before = NULL, *open, *close;
    uint32_t        id;
    bool            first = true;
    int             rc = tok_json_open(j, '{');

    while (rc == 0 && (rc = tok_json_next(j, '{', &first)) == 1) {
        (void) tok_json_peek(j);
        open = j->p;
        rc = tok_json_string(j, &s);
        close = j->p - 1;
        if (rc == 0) {
            rc = tok_json_colon(j);
        }
        if (rc == 0) {
            (void) tok_json_peek(j);
            tok_json_gap_set(&colon, close, j->p);
            rc = tok_json_u32(j, &id);
        }
        if (rc == 0) {
            rc = tok_build_token(f->b, id, s.ptr, s.len);
        }
        if (rc == 0) {
            tok_json_gap_set(&next, before, open + 1);
            rc = vocab_same(f, &next, &colon);
        }
        before = j->p;
    }
    return rc == 0 ? tok_build_index(f->b, true) : rc;
}


/* [["token", score], ...] */
static int
vocab_scores(tok_hf_t *f)
{
    tok_vec_t  *scores = &f->b->scores;
    tok_str_t   s;
    double      v;
    bool        outer = true, first;
    uint32_t    id = 0;
    int         rc = tok_json_open(f->j, '[');

    while (rc == 0 && (rc = tok_json_next(f->j, '[', &outer)) == 1) {
        first = true;
        rc = tok_json_open(f->j, '[');
        if (rc == 0 && tok_json_next(f->j, '[', &first) == 1) {
            rc = tok_json_string(f->j, &s);
        }
        if (rc == 0 && first) {
            return tok_json_fail(f->j, TOK_E_FORMAT, "an empty entry of the "
                                 "vocabulary");
        }
        if (rc == 0) {
            rc = tok_build_token(f->b, id++, s.ptr, s.len);
        }
        if (rc == 0 && tok_json_next(f->j, '[', &first) != 1) {
            return tok_json_fail(f->j, TOK_E_FORMAT, "a score is expected");
        }
        if (rc == 0) {
            rc = tok_json_double(f->j, &v);
        }
        if (rc == 0 && tok_json_next(f->j, '[', &first) != 0) {
            return tok_json_fail(f->j, TOK_E_FORMAT, "an entry has more than "
                                 "a token and a score");
        }
        if (rc == 0 && tok_vec_room(scores, 1, sizeof(v)) != 0) {
            return tok_json_fail(f->j, TOK_E_NOMEM, "no memory");
        }
        if (rc == 0) {
            ((double *) scores->ptr)[scores->n++] = v;
        }
    }
    return rc == 0 ? tok_build_index(f->b, false) : rc;
}


/* --- BPE --------------------------------------------------------------- */

/* "a b": exactly one space between two parts. */
static int
merge_text(tok_hf_t *f, tok_str_t s)
{
    const uint8_t  *p = (const uint8_t *) s.ptr, *space;
    size_t          n;

    if (s.len >= 8 && memcmp(p, "#version", 8) == 0) {
        return 0;
    }
    space = memchr(p, ' ', s.len);
    n = space != NULL ? (size_t) (space - p) : 0;
    if (space == NULL || memchr(space + 1, ' ', s.len - n - 1) != NULL) {
        return tok_json_fail(f->j, TOK_E_FORMAT, "a merge needs two parts and "
                             "one space");
    }
    return tok_build_merge(f->b, p, n, space + 1, s.len - n - 1);
}


/* One merge, and those behind it that are set apart as the one before; *before
 * is the quote that ends the last one. */
static int
merge_legacy(tok_hf_t *f, const uint8_t **before)
{
    tok_json_t     *j = f->j;
    const uint8_t  *open = j->p;
    tok_gap_t       next;
    tok_str_t       s;
    int             rc = tok_json_string(j, &s);

    if (rc == 0) {
        tok_json_gap_set(&next, *before, open + 1);
        rc = merge_text(f, s);
    }
    *before = j->p - 1;
    while (rc == 0) {
        j->p = *before;
        if (!tok_json_gap(j, &next) || !tok_json_plain(j, &s)) {
            break;
        }
        *before = j->p++;
        rc = merge_text(f, s);
    }
    j->p = rc == 0 ? *before + 1 : j->p;
    return rc;
}


/* Merges as the last one; j stands behind its second part and does again. */
static int
pairs_same(tok_hf_t *f, const tok_gap_t *next, const tok_gap_t *comma)
{
    tok_json_t     *j = f->j;
    const uint8_t  *at = j->p - 1;
    tok_str_t       l, r;
    int             rc = 0;

    for (j->p = at; rc == 0 && tok_json_gap(j, next); at = j->p) {
        if (!tok_json_plain(j, &l) || l.len > LEFT_MAX
            || !tok_json_gap(j, comma) || !tok_json_plain(j, &r))
        {
            break;
        }
        rc = tok_build_merge(f->b, (const uint8_t *) l.ptr, l.len,
                             (const uint8_t *) r.ptr, r.len);
    }
    j->p = at + 1;
    return rc;
}


/* ["a", "b"], and those behind it as above. */
static int
merge_pair(tok_hf_t *f, const uint8_t **before)
{
    tok_json_t     *j = f->j;
    tok_gap_t       next, comma;
    uint8_t         left[LEFT_MAX];
    tok_str_t       s;
    const uint8_t  *open = NULL, *close;
    size_t          n;
    bool            first = true;
    int             rc = tok_json_open(j, '[');

    if (rc == 0 && tok_json_next(j, '[', &first) != 1) {
        return tok_json_fail(j, TOK_E_FORMAT, "an empty merge");
    }
    if (rc == 0) {
        (void) tok_json_peek(j);
        open = j->p;
        rc = tok_json_string(j, &s);
    }
    if (rc != 0) {
        return rc;
    }
    tok_json_gap_set(&next, *before, open + 1);
    if (s.len > sizeof(left)) {
        return tok_json_fail(j, TOK_E_LIMIT, "a merge of more than 1024 "
                             "bytes");
    }
    /* The second string may take the buffer of the first. */
    n = s.len;
    memcpy(left, s.ptr, n);
    close = j->p - 1;
    if (tok_json_next(j, '[', &first) != 1) {
        return tok_json_fail(j, TOK_E_FORMAT, "a merge of one part");
    }
    (void) tok_json_peek(j);
    open = j->p;
    rc = tok_json_string(j, &s);
    if (rc == 0) {
        tok_json_gap_set(&comma, close, open + 1);
        rc = tok_build_merge(f->b, left, n, (const uint8_t *) s.ptr, s.len);
    }
    if (rc == 0) {
        rc = pairs_same(f, &next, &comma);
    }
    *before = j->p - 1;
    if (rc == 0 && tok_json_next(j, '[', &first) != 0) {
        return tok_json_fail(j, TOK_E_FORMAT, "a merge of more than two "
                             "parts");
    }
    return rc;
}


static int
merges(tok_hf_t *f)
{
    const uint8_t  *before = NULL;
    bool            first = true, pairs = false, known = false, now;
    int             rc = tok_json_open(f->j, '[');

    f->merges = true;
    tok_build_expect(f->b, 0, (size_t) (f->j->end - f->j->p) / MERGE_BYTES,
                     0);
    while (rc == 0 && (rc = tok_json_next(f->j, '[', &first)) == 1) {
        now = tok_json_peek(f->j) == '[';
        if (known && now != pairs) {
            return tok_json_fail(f->j, TOK_E_FORMAT, "merges of both forms");
        }
        pairs = now;
        known = true;
        rc = now ? merge_pair(f, &before) : merge_legacy(f, &before);
    }
    return rc == 0 ? tok_build_merges_end(f->b) : rc;
}


/* Reads the vocabulary where j stands; its form goes with the model. */
static int
vocab_here(tok_hf_t *f)
{
    size_t  left;

    f->vocab = tok_json_peek(f->j) == '[' ? '[' : '{';
    left = (size_t) (f->j->end - f->j->p);
    tok_build_expect(f->b, left / ENTRY_BYTES, 0, left / ENTRY_BYTES * 8);
    return f->vocab == '[' ? vocab_scores(f) : vocab_map(f);
}


static int
vocab(tok_hf_t *f, const tok_members_t *m, uint8_t form)
{
    if (!tok_json_at(f->j, m, "vocab")) {
        return tok_json_fail(f->j, TOK_E_FORMAT, "\"vocab\" is missing");
    }
    if (f->vocab && f->vocab != form) {
        return tok_json_fail(f->j, TOK_E_FORMAT, form == '[' ? "an array is "
                             "expected" : "an object is expected");
    }
    return f->vocab ? 0 : vocab_here(f);
}


static int
dropout(tok_hf_t *f, const tok_members_t *m)
{
    double  v;
    int     rc;

    if (!tok_json_at(f->j, m, "dropout") || tok_json_null(f->j)) {
        return 0;
    }
    rc = tok_json_double(f->j, &v);
    if (rc == 0 && v != 0) {
        return tok_json_fail(f->j, TOK_E_UNSUPPORTED, "dropout is on: ids "
                             "would be random");
    }
    return rc;
}


static int
bpe(tok_hf_t *f, const tok_members_t *m)
{
    tok_image_t  *h = &f->b->h;
    bool          have, unk = false;
    int           rc = dropout(f, m);

    h->model = TOK_M_BPE;
    if (rc == 0) {
        rc = maybe_text(f, m, "unk_token", &h->unk_token, &unk);
    }
    if (rc == 0) {
        rc = maybe_text(f, m, "continuing_subword_prefix", &h->prefix, &have);
    }
    if (rc == 0) {
        rc = maybe_text(f, m, "end_of_word_suffix", &h->suffix, &have);
    }
    if (rc == 0 && (h->prefix.len > TOK_AFFIX_BYTES_MAX
                    || h->suffix.len > TOK_AFFIX_BYTES_MAX))
    {
        return tok_json_fail(f->j, TOK_E_LIMIT, "an affix of more than 256 "
                             "bytes");
    }
    if (rc == 0) {
        rc = maybe_flag(f, m, "fuse_unk", TOK_BPE_FUSE_UNK);
    }
    if (rc == 0) {
        rc = maybe_flag(f, m, "byte_fallback", TOK_BPE_BYTE_FALLBACK);
    }
    if (rc == 0) {
        rc = maybe_flag(f, m, "ignore_merges", TOK_BPE_IGNORE_MERGES);
    }
    if (rc == 0) {
        rc = vocab(f, m, '{');
    }
    if (rc == 0 && unk) {
        h->unk = tok_build_find(f->b, tok_build_text(f->b, h->unk_token),
                                h->unk_token.len);
        h->bpe_flags |= TOK_BPE_HAS_UNK;
        if (h->unk == TOK_NO_ID) {
            return tok_json_fail(f->j, TOK_E_FORMAT, "unk_token is not in the "
                                 "vocabulary");
        }
    }
    if (rc != 0 || f->merges) {
        return rc;
    }
    if (!tok_json_at(f->j, m, "merges")) {
        return tok_json_fail(f->j, TOK_E_FORMAT, "\"merges\" is missing");
    }
    return merges(f);
}


/* --- the others -------------------------------------------------------- */

static int
unk_of(tok_hf_t *f, const tok_members_t *m)
{
    tok_image_t  *h = &f->b->h;
    int           rc = tok_hf_text(f, m, "unk_token", &h->unk_token);

    if (rc == 0) {
        rc = vocab(f, m, '{');
    }
    if (rc == 0) {
        h->unk = tok_build_find(f->b, tok_build_text(f->b, h->unk_token),
                                h->unk_token.len);
    }
    return rc;
}


static int
wordpiece(tok_hf_t *f, const tok_members_t *m)
{
    tok_image_t  *h = &f->b->h;
    int           rc;

    h->model = TOK_M_WORDPIECE;
    rc = tok_hf_text(f, m, "continuing_subword_prefix", &h->prefix);
    if (rc == 0) {
        rc = tok_hf_number(f, m, "max_input_chars_per_word", UINT32_MAX,
                           &h->word_chars_max);
    }
    return rc == 0 ? unk_of(f, m) : rc;
}


static int
unigram(tok_hf_t *f, const tok_members_t *m)
{
    tok_image_t  *h = &f->b->h;
    const double *score;
    double        min = HUGE_VAL;
    size_t        i;
    int           rc;

    h->model = TOK_M_UNIGRAM;
    rc = vocab(f, m, '[');
    if (rc == 0) {
        rc = maybe_flag(f, m, "byte_fallback", TOK_BPE_BYTE_FALLBACK);
    }
    if (rc == 0 && tok_json_at(f->j, m, "unk_id") && !tok_json_null(f->j)) {
        rc = tok_json_u32(f->j, &h->unk);
        if (rc == 0 && h->unk >= f->b->tokens.n) {
            return tok_json_fail(f->j, TOK_E_FORMAT, "unk_id is not in the "
                                 "vocabulary");
        }
    }
    score = f->b->scores.ptr;
    for (i = 0; i < f->b->scores.n; i++) {
        min = score[i] < min ? score[i] : min;
    }
    h->unk_score = min - 10.0;
    return rc;
}


/* Old files have no type: the first kind whose members are all there. */
static int
guess(tok_hf_t *f, const tok_members_t *m)
{
    if (tok_json_at(f->j, m, "merges")) {
        return bpe(f, m);
    }
    if (!tok_json_at(f->j, m, "vocab")) {
        return tok_json_fail(f->j, TOK_E_FORMAT, "\"vocab\" is missing");
    }
    if (tok_json_peek(f->j) == '[') {
        return unigram(f, m);
    }
    if (tok_json_at(f->j, m, "continuing_subword_prefix")
        && tok_json_at(f->j, m, "max_input_chars_per_word"))
    {
        return wordpiece(f, m);
    }
    f->b->h.model = TOK_M_WORDLEVEL;
    return unk_of(f, m);
}


static bool
seen(tok_hf_t *f, const tok_members_t *m, const char *key)
{
    const uint8_t  *at = f->j->p;
    bool            is = tok_json_at(f->j, m, key);

    f->j->p = at;
    return is;
}


/* Merges can be read when all that they need came before them. */
static int
merges_ready(tok_hf_t *f, const tok_members_t *m, bool *ready)
{
    const uint8_t  *at = f->j->p;
    tok_str_t       type = { "", 0 };
    bool            have;
    int             rc = 0;

    *ready = false;
    if (f->vocab != '{' || !seen(f, m, "continuing_subword_prefix")
        || !tok_json_at(f->j, m, "type"))
    {
        return 0;
    }
    rc = tok_hf_type(f, m, &type);
    *ready = rc == 0 && tok_hf_is(type, "BPE");
    if (*ready) {
        rc = maybe_text(f, m, "continuing_subword_prefix", &f->b->h.prefix,
                        &have);
    }
    f->j->p = at;
    return rc;
}


/* The value where j stands: the large ones are read at once, if possible. */
static int
member(tok_hf_t *f, tok_members_t *m)
{
    static const char *const  large[] = {
        "vocab", "merges", "continuing_subword_prefix"
    };
    tok_str_t  key = m->m[m->n - 1].key;
    size_t     i;
    bool       ready = false, twice;
    int        rc = 0;

    for (i = 0; i < 3 && !tok_hf_is(key, large[i]); i++) { /* void */ }
    if (i < 3) {
        m->n--;
        twice = seen(f, m, large[i]);
        m->n++;
        if (twice) {
            return tok_json_fail(f->j, TOK_E_FORMAT, "a member of the model "
                                 "is there twice");
        }
    }
    if (i == 0) {
        return vocab_here(f);
    }
    if (i == 1) {
        rc = merges_ready(f, m, &ready);
    }
    return rc != 0 ? rc : ready ? merges(f) : tok_json_skip(f->j);
}


static int
kind(tok_hf_t *f, const tok_members_t *m)
{
    tok_str_t  type;
    int        rc;

    if (!tok_json_at(f->j, m, "type")) {
        return guess(f, m);
    }
    rc = tok_hf_type(f, m, &type);
    if (rc != 0) {
        return rc;
    }
    if (tok_hf_is(type, "BPE")) {
        return bpe(f, m);
    }
    if (tok_hf_is(type, "WordPiece")) {
        return wordpiece(f, m);
    }
    if (tok_hf_is(type, "Unigram")) {
        return unigram(f, m);
    }
    if (tok_hf_is(type, "WordLevel")) {
        f->b->h.model = TOK_M_WORDLEVEL;
        return unk_of(f, m);
    }
    return tok_hf_unknown(f, "model", type);
}


int
tok_hf_model(tok_hf_t *f)
{
    tok_members_t   m = { .n = 0 };
    const uint8_t  *after;
    bool            first = true;
    int             rc = tok_json_open(f->j, '{');

    while (rc == 0 && (rc = tok_json_member(f->j, &m, &first)) == 1) {
        rc = member(f, &m);
    }
    after = f->j->p;
    if (rc == 0) {
        rc = kind(f, &m);
        if (rc == 0) {
            f->j->p = after;
        }
    }
    return rc;
}
