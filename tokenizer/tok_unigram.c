/*
 * tok_unigram.c: Unigram: the way through the text whose pieces have the best
 * sum of scores (Viterbi).  One pass forward, one back; each position tries
 * the pieces that a walk down the trie finds there.
 */

#include "tokenizer/tok_core.h"


typedef struct {
    double    score;
    uint32_t  id;
    uint32_t  from;                 /* UINT32_MAX: not reached */
} best_t;


static inline void
offer(best_t *b, double score, uint32_t id, size_t from)
{
    if (b->from == UINT32_MAX || score > b->score) {
        b->score = score;
        b->id = id;
        b->from = (uint32_t) from;
    }
}


static int
forward(const tok_t *t, best_t *b, const uint8_t *p, size_t len)
{
    const tok_cell_t  *cells = t->trie;
    uint32_t           node, next, id;
    size_t             at, i, n;
    double             here;
    bool               single;

    for (at = 0; at < len; at += n) {
        n = tok_utf8_size(p[at]);
        here = b[at].score;
        single = false;
        node = 0;
        for (i = at; i < len; i++) {
            next = cells[node].base + p[i];
            if (cells[next].check != node + 1) {
                break;
            }
            node = next;
            id = cells[node].value;
            if (id != TOK_NO_ID) {
                offer(&b[i + 1], here + t->scores[id], id, at);
                single |= i + 1 - at == n;
            }
        }
        if (!single) {
            if (t->img->unk == TOK_NO_ID) {
                if (b[at + n].from == UINT32_MAX
                    || here + t->img->unk_score > b[at + n].score)
                {
                    return TOK_E_UNK;
                }
                continue;
            }
            offer(&b[at + n], here + t->img->unk_score, t->img->unk, at);
        }
    }
    return 0;
}


static int
put_unknown(const tok_t *t, tok_scratch_t *s, const uint8_t *p, size_t from,
    size_t to, tok_span_t *out, uint32_t *ids, size_t *n, size_t base)
{
    uint32_t  id = tok_model_find(t, p + from, to - from);
    size_t    i;

    (void) s;
    if (id == TOK_NO_ID && (t->img->bpe_flags & TOK_BPE_BYTE_FALLBACK)) {
        for (i = from; i < to && t->byte_ids[p[i]] != TOK_NO_ID; i++) {
            /* void */
        }
        if (i == to) {
            for (i = to; i-- > from; /* void */) {
                ids[*n] = t->byte_ids[p[i]];
                out[(*n)++] = (tok_span_t) { (uint32_t) (base + from),
                                             (uint32_t) (base + to) };
            }
            return 0;
        }
    }
    ids[*n] = id == TOK_NO_ID ? t->img->unk : id;
    out[(*n)++] = (tok_span_t) { (uint32_t) (base + from),
                                 (uint32_t) (base + to) };
    return 0;
}


int
tok_unigram(const tok_t *t, tok_scratch_t *s, const uint8_t *word,
    size_t len, size_t base)
{
    best_t      *b;
    uint32_t    *ids;
    tok_span_t  *spans;
    size_t       i, n = 0, at, end;
    int          rc;

    s->path.n = s->small.n = s->cuts2.n = 0;
    rc = tok_room(s, &s->path, len + 1, sizeof(best_t));
    if (rc == 0) {
        rc = tok_room(s, &s->small, len + 1, sizeof(uint32_t));
    }
    if (rc == 0) {
        rc = tok_room(s, &s->cuts2, len + 1, sizeof(tok_span_t));
    }
    if (rc == 0) {
        rc = tok_room(s, &s->ids, len + 1, sizeof(uint32_t));
    }
    if (rc == 0 && s->want_spans) {
        s->spans.n = s->ids.n;
        rc = tok_room(s, &s->spans, len + 1, sizeof(tok_span_t));
    }
    if (rc != 0) {
        return rc;
    }
    b = s->path.ptr;
    ids = s->small.ptr;
    spans = s->cuts2.ptr;
    for (i = 1; i <= len; i++) {
        b[i].from = UINT32_MAX;
    }
    b[0] = (best_t) { 0.0, TOK_NO_ID, 0 };
    rc = forward(t, b, word, len);
    /* Backwards; unknown characters in a row are one token. */
    for (at = len; rc == 0 && at > 0; at = b[at].from) {
        assert(b[at].from < at);
        end = at;
        while (b[at].id == t->img->unk && b[at].from > 0
               && b[b[at].from].id == t->img->unk)
        {
            at = b[at].from;
        }
        if (b[at].id == t->img->unk) {
            rc = put_unknown(t, s, word, b[at].from, end, spans, ids, &n,
                             base);
            continue;
        }
        ids[n] = b[at].id;
        spans[n++] = (tok_span_t) { (uint32_t) (base + b[at].from),
                                    (uint32_t) (base + at) };
    }
    for (i = 0; rc == 0 && i < n; i++) {
        if (s->want_spans) {
            tok_spans(s)[s->ids.n] = spans[n - 1 - i];
        }
        tok_ids(s)[s->ids.n++] = ids[n - 1 - i];
    }
    return rc;
}
