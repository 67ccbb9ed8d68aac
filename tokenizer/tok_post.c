/*
 * tok_post.c: what happens to ids after the model: truncation, special tokens
 * around them, padding.
 */

#include "tokenizer/tok_core.h"
#include "tokenizer/tok_unicode.h"


/* One sequence while it is worked on: a part of the scratch's arrays. */
typedef struct {
    size_t    begin, n;
    uint32_t  type;
} seq_t;


/* --- truncation -------------------------------------------------------- */

static size_t
added_by_op(const tok_t *t, const tok_op_t *op, bool pair)
{
    size_t    i, n = 0;

    switch (op->type) {
    case TOK_T_BERT:
        return pair ? 3 : 2;
    case TOK_T_ROBERTA:
        return pair ? 4 : 2;
    case TOK_T_TEMPLATE:
        for (i = 0; i < t->n_post; i++) {
            n += t->post[i].type == TOK_T_PIECE_ID
                 && t->post[i].flags == op->flags
                 && t->post[i].c == (pair ? 1u : 0u);
        }
        return n;
    default:
        return 0;
    }
}


static size_t
added_count(const tok_t *t, bool pair)
{
    size_t  i, n = 0;

    for (i = 0; i < t->n_post; i++) {
        n += added_by_op(t, &t->post[i], pair);
    }
    return n;
}


static void
cut_seq(const tok_t *t, seq_t *q, size_t max)
{
    if (q->n <= max) {
        return;
    }
    if (t->img->trunc_left) {
        q->begin += q->n - max;
    }
    q->n = max;
}


/* How two sequences share max tokens, longest first. */
static void
share(size_t *a, size_t *b, size_t max)
{
    size_t  n1 = *a, n2 = *b, hold;
    bool    swap = n1 > n2;

    if (swap) {
        hold = n1;
        n1 = n2;
        n2 = hold;
    }
    if (n1 > max) {
        n2 = n1;

    } else {
        n2 = n1 > max - n1 ? n1 : max - n1;
    }
    if (n1 + n2 > max) {
        n1 = max / 2;
        n2 = n1 + max % 2;
    }
    *a = swap ? n2 : n1;
    *b = swap ? n1 : n2;
}


/*
 * How many tokens of a sequence the reference makes at all: it stops behind a
 * word (never an added token) with which there are max of them, from the side
 * that is kept.
 */
static size_t
made(const tok_t *t, const tok_scratch_t *s, const seq_t *q, size_t max)
{
    const uint32_t  *b = s->bounds.ptr;
    size_t           n = s->bounds.n, i, end = q->begin + q->n, at;

    if (t->img->trunc_left) {
        for (i = n; i-- > 0; /* void */) {
            at = b[i] & ~TOK_BOUND_ADDED;
            if (at >= q->begin && at <= end && end - at >= max
                && !(i + 1 < n && (b[i + 1] & TOK_BOUND_ADDED)))
            {
                return end - at;
            }
        }
        return q->n;
    }
    for (i = 0; i < n; i++) {
        at = b[i];
        if (at > q->begin && at <= end && at - q->begin >= max) {
            return at - q->begin;
        }
    }
    return q->n;
}


static int
truncate_seqs(const tok_t *t, const tok_scratch_t *s, seq_t *q, bool pair,
    bool add_special)
{
    size_t  max = t->img->trunc_max, extra, total, over, a, b;
    seq_t  *target;

    extra = add_special ? added_count(t, pair) : 0;
    if (extra > max) {
        return TOK_E_LIMIT;
    }
    max -= extra;
    total = q[0].n + (pair ? q[1].n : 0);
    if (total <= max) {
        return 0;
    }
    if (max == 0) {
        q[0].n = q[1].n = 0;
        return 0;
    }
    over = total - max;
    if (t->img->trunc_strategy == 0) {
        a = made(t, s, &q[0], t->img->trunc_max);
        b = pair ? made(t, s, &q[1], t->img->trunc_max) : 0;
        if (pair) {
            share(&a, &b, max);

        } else {
            a = max;
        }
        cut_seq(t, &q[0], a);
        if (pair) {
            cut_seq(t, &q[1], b);
        }
        return 0;
    }
    if (t->img->trunc_strategy == 2 && !pair) {
        return TOK_E_LIMIT;
    }
    if (t->img->trunc_strategy == 1 && pair && q[0].n == 0 && extra == 0) {
        /* The reference stops early with the second and so is content. */
        cut_seq(t, &q[1], max);
        return 0;
    }
    target = t->img->trunc_strategy == 1 ? &q[0] : &q[1];
    if (target->n <= over) {
        return TOK_E_LIMIT;
    }
    cut_seq(t, target, target->n - over);
    return 0;
}


/* --- output ------------------------------------------------------------ */

static int
out_room(tok_scratch_t *s, size_t n, bool types)
{
    int  rc = tok_room(s, &s->out_ids, n, sizeof(uint32_t));

    if (rc == 0 && s->want_spans) {
        rc = tok_room(s, &s->out_spans, n, sizeof(tok_span_t));
    }
    if (rc == 0 && types) {
        rc = tok_room(s, &s->out_types, n, 1);
        if (rc == 0) {
            rc = tok_room(s, &s->out_special, n, 1);
        }
        if (rc == 0) {
            rc = tok_room(s, &s->out_mask, n, 1);
        }
    }
    return rc;
}


static void
out_seq(tok_scratch_t *s, const seq_t *q, uint32_t type, bool types)
{
    size_t  at = s->out_ids.n;

    if (q->n == 0) {
        return;
    }
    memcpy((uint32_t *) s->out_ids.ptr + at, tok_ids(s) + q->begin,
           q->n * sizeof(uint32_t));
    if (s->want_spans) {
        memcpy((tok_span_t *) s->out_spans.ptr + at, tok_spans(s) + q->begin,
               q->n * sizeof(tok_span_t));
    }
    if (types) {
        memset((uint8_t *) s->out_types.ptr + at, (int) type, q->n);
        memset((uint8_t *) s->out_special.ptr + at, 0, q->n);
        memset((uint8_t *) s->out_mask.ptr + at, 1, q->n);
    }
    s->out_ids.n += q->n;
}


static void
out_special(tok_scratch_t *s, size_t at, uint32_t id, uint32_t type,
    uint8_t mask, bool types)
{
    ((uint32_t *) s->out_ids.ptr)[at] = id;
    if (s->want_spans) {
        ((tok_span_t *) s->out_spans.ptr)[at] = (tok_span_t) { 0, 0 };
    }
    if (types) {
        ((uint8_t *) s->out_types.ptr)[at] = (uint8_t) type;
        ((uint8_t *) s->out_special.ptr)[at] = 1;
        ((uint8_t *) s->out_mask.ptr)[at] = mask;
    }
}


static void
out_id(tok_scratch_t *s, uint32_t id, uint32_t type, bool types)
{
    out_special(s, s->out_ids.n++, id, type, 1, types);
}


/* --- offsets of byte-level tokens -------------------------------------- */

/* Leading (or trailing) characters of a token that stand for white space. */
static uint32_t
spaces_of(tok_str_t v, bool leading)
{
    const uint8_t  *p = (const uint8_t *) v.ptr;
    size_t          i, n, end = v.len;
    uint32_t        c, count = 0;

    if (leading) {
        for (i = 0; i < v.len; i += n, count++) {
            c = tok_utf8_get(p + i, &n);
            if (c != tok_byte_char[' '] && !(tok_class(c) & TOK_U_WS)) {
                break;
            }
        }
        return count;
    }
    while (end > 0) {
        i = end;
        do {
            i--;
        } while (i > 0 && (p[i] & 0xc0) == 0x80);
        c = tok_utf8_get(p + i, &n);
        if (c != tok_byte_char[' '] && !(tok_class(c) & TOK_U_WS)) {
            break;
        }
        end = i;
        count++;
    }
    return count;
}


/* The text of an added token is what it took from the input. */
void
tok_trim_note(tok_scratch_t *s, const uint8_t *p, size_t len)
{
    tok_str_t   text = { (const char *) p, len };
    tok_trim_t  m;

    m.index = (uint32_t) s->ids.n - 1;
    m.lead = spaces_of(text, true);
    m.trail = spaces_of(text, false);
    if (tok_room(s, &s->trims, 1, sizeof(m)) == 0) {
        ((tok_trim_t *) s->trims.ptr)[s->trims.n++] = m;
    }
}


static void
trim_spans(const tok_t *t, tok_scratch_t *s, const seq_t *q, bool prefix)
{
    const tok_trim_t  *m = s->trims.ptr;
    tok_span_t        *v;
    tok_str_t          text;
    uint32_t           lead, trail, end;
    size_t             i, k = 0;

    for (i = 0; i < q->n; i++) {
        v = &tok_spans(s)[q->begin + i];
        while (k < s->trims.n && m[k].index < q->begin + i) {
            k++;
        }
        if (k < s->trims.n && m[k].index == q->begin + i) {
            lead = m[k].lead;
            trail = m[k].trail;

        } else {
            text = tok_shown(t, tok_ids(s)[q->begin + i]);
            lead = spaces_of(text, true);
            trail = spaces_of(text, false);
        }
        if (lead > 0) {
            if ((i == 0 || v->begin == 0) && prefix && lead == 1) {
                lead = 0;
            }
            v->begin = v->end - v->begin < lead ? v->end : v->begin + lead;
        }
        if (trail > 0 && v->end >= trail) {
            end = v->end - trail;
            v->end = end > v->begin ? end : v->begin;
        }
    }
}


/* --- processors -------------------------------------------------------- */

/* A template's pieces follow it in the list, marked with its number. */
static void
run_template(const tok_t *t, tok_scratch_t *s, const tok_op_t *op,
    const seq_t *q, bool pair, bool add_special, bool types)
{
    const tok_op_t  *p;
    size_t           i;

    for (i = 0; i < t->n_post; i++) {
        p = &t->post[i];
        if (p->flags != op->flags || p->c != (pair ? 1u : 0u)) {
            continue;
        }
        if (p->type == TOK_T_PIECE_SEQ && (p->a == 0 || pair)) {
            out_seq(s, &q[p->a], p->b, types);

        } else if (p->type == TOK_T_PIECE_ID && add_special) {
            out_id(s, p->a, p->b, types);
        }
    }
}


static void
run_bert(const tok_t *t, tok_scratch_t *s, const tok_op_t *op, const seq_t *q,
    bool pair, bool add_special, bool types)
{
    bool      roberta = op->type == TOK_T_ROBERTA;
    uint32_t  second = roberta ? 0 : 1;

    (void) t;
    if (add_special) {
        out_id(s, op->a, 0, types);
    }
    out_seq(s, &q[0], 0, types);
    if (add_special) {
        out_id(s, op->b, 0, types);
    }
    if (pair) {
        if (add_special && roberta) {
            out_id(s, op->b, 0, types);
        }
        out_seq(s, &q[1], second, types);
        if (add_special) {
            out_id(s, op->b, second, types);
        }
    }
}


static int
pad_out(const tok_t *t, tok_scratch_t *s, bool types)
{
    const tok_image_t  *h = t->img;
    size_t              n = s->out_ids.n, want, more, i, at;
    int                 rc;

    want = h->pad_fixed ? h->pad_fixed : n;
    if (h->pad_multiple && want % h->pad_multiple) {
        want += h->pad_multiple - want % h->pad_multiple;
    }
    if (want <= n) {
        return 0;
    }
    more = want - n;
    s->out_spans.n = s->out_types.n = s->out_special.n = s->out_mask.n = n;
    rc = out_room(s, more, types);
    if (rc != 0) {
        return rc;
    }
    if (h->pad_left) {
        memmove((uint32_t *) s->out_ids.ptr + more, s->out_ids.ptr,
                n * sizeof(uint32_t));
        if (s->want_spans) {
            memmove((tok_span_t *) s->out_spans.ptr + more, s->out_spans.ptr,
                    n * sizeof(tok_span_t));
        }
        if (types) {
            memmove((uint8_t *) s->out_types.ptr + more, s->out_types.ptr, n);
            memmove((uint8_t *) s->out_special.ptr + more,
                    s->out_special.ptr, n);
            memmove((uint8_t *) s->out_mask.ptr + more, s->out_mask.ptr, n);
        }
    }
    for (i = 0; i < more; i++) {
        at = h->pad_left ? i : n + i;
        out_special(s, at, h->pad_id, h->pad_type, 0, types);
    }
    s->out_ids.n = want;
    return 0;
}


/*
 * The processor that writes the sequences (at most one of a chain does, as
 * the loader sees to it), else both one after the other.
 */
static void
write_out(const tok_t *t, tok_scratch_t *s, const seq_t *q, bool pair,
    bool add_special, bool types)
{
    const tok_op_t  *op;
    size_t           i;

    for (i = 0; i < t->n_post; i++) {
        op = &t->post[i];
        if (op->type == TOK_T_TEMPLATE) {
            run_template(t, s, op, q, pair, add_special, types);
            return;
        }
        if (op->type == TOK_T_BERT || op->type == TOK_T_ROBERTA) {
            run_bert(t, s, op, q, pair, add_special, types);
            return;
        }
    }
    out_seq(s, &q[0], 0, types);
    if (pair) {
        out_seq(s, &q[1], t->n_post || !types ? 1 : q[1].type, types);
    }
}


static void
trim_all(const tok_t *t, tok_scratch_t *s, const seq_t *q, bool pair)
{
    const tok_op_t  *op;
    size_t           i;

    for (i = 0; i < t->n_post; i++) {
        op = &t->post[i];
        if ((op->type == TOK_T_BYTE_LEVEL || op->type == TOK_T_ROBERTA)
            && (op->flags & TOK_POST_TRIM))
        {
            trim_spans(t, s, &q[0], op->flags & TOK_POST_PREFIX);
            if (pair) {
                trim_spans(t, s, &q[1], op->flags & TOK_POST_PREFIX);
            }
        }
    }
}


int
tok_post_run(const tok_t *t, tok_scratch_t *s, size_t n_first, bool pair,
    unsigned flags, tok_result_t *out)
{
    seq_t  q[2] = { { 0, n_first, 0 }, { n_first, s->ids.n - n_first, 1 } };
    bool   add = flags & TOK_ADD_SPECIAL, types = flags & TOK_TYPES;
    int    rc = 0;

    assert(n_first <= s->ids.n);
    if (t->img->trunc_max && !(flags & TOK_NO_TRUNCATION)) {
        rc = truncate_seqs(t, s, q, pair, add);
    }
    s->out_ids.n = 0;
    s->out_spans.n = s->out_types.n = s->out_special.n = s->out_mask.n = 0;
    if (rc == 0) {
        rc = out_room(s, s->ids.n + 2 * TOK_PIECES_MAX + 8, types);
    }
    if (rc != 0) {
        return rc;
    }
    if (s->want_spans) {
        trim_all(t, s, q, pair);
    }
    write_out(t, s, q, pair, add, types);
    if (t->img->pad_on && !(flags & TOK_NO_PADDING)) {
        rc = pad_out(t, s, types);
        if (rc != 0) {
            return rc;
        }
    }
    out->ids = s->out_ids.ptr;
    out->n = s->out_ids.n;
    out->offsets = s->want_spans ? s->out_spans.ptr : NULL;
    out->type_ids = types ? s->out_types.ptr : NULL;
    out->special = types ? s->out_special.ptr : NULL;
    out->mask = types ? s->out_mask.ptr : NULL;
    return 0;
}
