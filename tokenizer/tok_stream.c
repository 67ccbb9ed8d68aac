/*
 * tok_stream.c: decoding one id at a time.  The state is a few bytes; what
 * cannot be given out yet (a character cut by tokens, a run of byte tokens)
 * waits in it.
 */

#include "tokenizer/tok_decode.h"
#include "tokenizer/tok_unicode.h"


enum {
    ST_PENDING = 1,                 /* prev is not written yet */
    ST_STARTED = 2                  /* some text was written */
};

typedef struct {
    uint8_t  *p;
    size_t    n, cap;
} sink_t;


static void
put(sink_t *o, const void *p, size_t len)
{
    assert(len <= o->cap - o->n);
    memcpy(o->p + o->n, p, len);
    o->n += len;
}


void
tok_stream_init(tok_stream_t *st, unsigned flags)
{
    memset(st, 0, sizeof(*st));
    st->flags = flags;
    st->prev = TOK_NO_ID;
}


size_t
tok_stream_room(const tok_t *t)
{
    return 3 * ((size_t) t->img->token_bytes_max + TOK_STREAM_HOLD) + 64;
}


/* What was held and len bytes more; a cut character stays held. */
static void
lossy(tok_stream_t *st, sink_t *o, const uint8_t *p, size_t len)
{
    uint8_t  joint[8];
    size_t   k, take, n;
    bool     good, cut;

    while (st->n_held && len) {
        /* Complete or break the held character; it has at most 3 bytes. */
        take = len < 4 ? len : 4;
        memcpy(joint, st->held, st->n_held);
        memcpy(joint + st->n_held, p, take);
        n = st->n_held + take;
        k = tok_utf8_prefix(joint, n, &good, &cut);
        if (cut) {
            assert(take == len && n <= 3);
            memcpy(st->held, joint, n);
            st->n_held = (uint8_t) n;
            return;
        }
        assert(k >= st->n_held);
        if (good) {
            put(o, joint, k);
        } else {
            put(o, "\xef\xbf\xbd", 3);
        }
        p += k - st->n_held;
        len -= k - st->n_held;
        st->n_held = 0;
    }
    while (len) {
        k = tok_utf8_prefix(p, len, &good, &cut);
        if (cut) {
            memcpy(st->held, p, k);
            st->n_held = (uint8_t) k;
            return;
        }
        put(o, good ? (const char *) p : "\xef\xbf\xbd", good ? k : 3);
        p += k;
        len -= k;
    }
}


static void
end_run(tok_stream_t *st, sink_t *o)
{
    size_t  n = st->n_held, i;

    st->n_held = 0;
    if (tok_utf8_check(st->held, n) == n) {
        put(o, st->held, n);
        return;
    }
    for (i = 0; i < n; i++) {
        put(o, "\xef\xbf\xbd", 3);
    }
}


/* A byte token; a run beyond what can be held gives out what is whole. */
static void
run_byte(tok_stream_t *st, sink_t *o, uint8_t byte)
{
    size_t  n;

    st->held[st->n_held++] = byte;
    if (st->n_held < TOK_STREAM_HOLD) {
        return;
    }
    n = tok_utf8_check(st->held, st->n_held);
    if (n == 0 || st->n_held - n > 3) {
        end_run(st, o);
        return;
    }
    put(o, st->held, n);
    memmove(st->held, st->held + n, st->n_held - n);
    st->n_held = (uint8_t) (st->n_held - n);
}


/* Takes the stripped characters off the start of the whole text. */
static void
strip(tok_stream_t *st, const tok_t *t, sink_t *o)
{
    uint8_t  c[4];
    size_t   n, at = 0;

    if (st->state & ST_STARTED) {
        return;
    }
    n = tok_utf8_put(c, t->img->dec_strip_char);
    while (st->mark[0] < t->img->dec_strip && o->n - at >= n
           && memcmp(o->p + at, c, n) == 0)
    {
        at += n;
        st->mark[0]++;
    }
    memmove(o->p, o->p + at, o->n - at);
    o->n -= at;
    if (o->n || st->mark[0] == t->img->dec_strip) {
        st->state |= ST_STARTED;
    }
}


static void
piece(tok_stream_t *st, const tok_t *t, uint32_t id, bool last, sink_t *o)
{
    tok_ref_t       r = tok_piece_of(t, id, st->count == 0, last);
    const uint8_t  *p = t->pool + r.off;

    switch (t->img->join) {
    case TOK_J_LOSSY:
        lossy(st, o, p, r.len);
        break;
    case TOK_J_RUNS:
        if (t->flags[id] & TOK_F_BYTE) {
            assert(r.len == 1);
            run_byte(st, o, p[0]);

        } else {
            end_run(st, o);
            put(o, p, r.len);
        }
        strip(st, t, o);
        break;
    case TOK_J_JOIN:
        if (st->count) {
            put(o, " ", 1);
        }
        put(o, p, r.len);
        break;
    default:
        put(o, p, r.len);
        break;
    }
    st->count++;
}


int
tok_stream_step(tok_stream_t *st, const tok_t *t, uint32_t id, char *out,
    size_t cap, size_t *len)
{
    sink_t  o = { (uint8_t *) out, 0, cap };

    *len = 0;
    if (cap < tok_stream_room(t)) {
        return TOK_E_SPACE;
    }
    if (t->img->join == TOK_J_GENERAL) {
        return TOK_E_UNSUPPORTED;
    }
    if (st->n_held > TOK_STREAM_HOLD) {
        return TOK_E_ARG;
    }
    if (tok_skipped(t, id, st->flags)
        || (t->img->join_dedup && id == st->prev))
    {
        return 0;
    }
    if (t->last == NULL) {
        piece(st, t, id, false, &o);

    } else {
        /* How a token reads depends on whether another follows. */
        if (st->state & ST_PENDING) {
            if (st->prev >= t->img->n_ids) {
                return TOK_E_ARG;
            }
            piece(st, t, st->prev, false, &o);
        }
        st->state |= ST_PENDING;
    }
    st->prev = id;
    *len = o.n;
    return 0;
}


int
tok_stream_flush(tok_stream_t *st, const tok_t *t, char *out, size_t cap,
    size_t *len)
{
    sink_t  o = { (uint8_t *) out, 0, cap };

    *len = 0;
    if (cap < tok_stream_room(t)) {
        return TOK_E_SPACE;
    }
    if (st->n_held > TOK_STREAM_HOLD
        || ((st->state & ST_PENDING) && st->prev >= t->img->n_ids))
    {
        return TOK_E_ARG;
    }
    if (st->state & ST_PENDING) {
        piece(st, t, st->prev, true, &o);
        st->state &= (uint8_t) ~ST_PENDING;
    }
    if (t->img->join == TOK_J_RUNS) {
        end_run(st, &o);
        strip(st, t, &o);

    } else if (st->n_held) {
        put(&o, "\xef\xbf\xbd", 3);
        st->n_held = 0;
    }
    *len = o.n;
    return 0;
}
