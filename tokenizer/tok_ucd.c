/*
 * tok_ucd.c: Unicode normalization forms, lower case, scripts and grapheme
 * clusters, from tables that tools/gen_ucd.py took from the reference.
 * Standard: UAX #15 (forms), UAX #29 (clusters).
 */

#include "tokenizer/tok_norm.h"
#include "tokenizer/tok_pretok.h"
#include "tokenizer/tok_ucd.h"
#include "tokenizer/tok_unicode.h"
#include "tokenizer/tok_ucd.inc"


#define HANGUL_S  0xac00u
#define HANGUL_L  0x1100u
#define HANGUL_V  0x1161u
#define HANGUL_T  0x11a7u
#define HANGUL_N  11172u

/* Marks of one character that are sorted together; more is absurd text. */
#define MARKS_MAX  64

#define COMPOSE_LOG  11

_Static_assert(sizeof(tok_compose) == 8 << COMPOSE_LOG, "as it was written");

#define ROW(name, cp) \
    tok_##name##_block[(uint32_t) tok_##name##_index[(cp) >> 7] * 128 \
                       + ((cp) & 127)]

typedef struct {
    uint32_t  c;
    int       change;
    uint8_t   ccc;
} mark_t;

/* Recomposition: the character being built and the marks it left behind. */
typedef struct {
    tok_edit_t  *e;
    tok_vec_t   *marks;             /* of the scratch: mark_t */
    bool         compose;
    bool         have;
    mark_t       base;
    int          last_ccc;          /* -1: none */
    size_t       n_sort;            /* start of what is still to sort */
} form_t;


static inline uint32_t
ccc_of(uint32_t c)
{
    return c < 0x300 ? 0 : ROW(ccc, c);
}


uint32_t
tok_script(uint32_t cp)
{
    return ROW(script, cp);
}


uint32_t
tok_cluster_class(uint32_t cp)
{
    return ROW(gcb, cp) & 15u;
}


uint32_t
tok_conjunct_class(uint32_t cp)
{
    return ROW(gcb, cp) >> 4;
}


/* --- composing --------------------------------------------------------- */

/* What a and b compose to, or 0: tok_compose is a hash with open addressing, in
 * each entry both and the result. */
static uint32_t
compose(uint32_t a, uint32_t b)
{
    const size_t  n = sizeof(tok_compose) / sizeof(tok_compose[0]);
    uint64_t      pair = (uint64_t) a << 21 | b;
    size_t        at;

    if (a >= HANGUL_L && a < HANGUL_L + 19 && b >= HANGUL_V
        && b < HANGUL_V + 21)
    {
        return HANGUL_S + ((a - HANGUL_L) * 21 + (b - HANGUL_V)) * 28;
    }
    if (a >= HANGUL_S && a < HANGUL_S + HANGUL_N && (a - HANGUL_S) % 28 == 0
        && b > HANGUL_T && b < HANGUL_T + 28)
    {
        return a + (b - HANGUL_T);
    }
    at = (a * 0x9e3779b1u ^ b * 0x85ebca6bu) >> (32 - COMPOSE_LOG);
    for (/* void */; tok_compose[at] != 0; at = (at + 1) % n) {
        if (tok_compose[at] >> 21 == pair) {
            return tok_compose[at] & 0x1fffff;
        }
    }
    return 0;
}


static void
flush_marks(form_t *f, tok_vec_t *held)
{
    const mark_t  *m = held->ptr;
    size_t         i;

    for (i = 0; i < held->n; i++) {
        tok_edit_put(f->e, m[i].c, m[i].change);
    }
    held->n = 0;
}


static int
hold(form_t *f, mark_t m)
{
    tok_vec_t  *held = &f->e->s->refs2;
    int         rc = tok_room(f->e->s, held, 2, sizeof(mark_t));

    if (rc == 0) {
        ((mark_t *) held->ptr)[held->n++] = m;
    }
    return rc;
}


/* One character in canonical order; writes what cannot change any more. */
static int
recompose(form_t *f, mark_t m)
{
    tok_vec_t  *held = &f->e->s->refs2;
    uint32_t    r;

    if (!f->compose) {
        tok_edit_put(f->e, m.c, m.change);
        return f->e->rc;
    }
    if (!f->have) {
        if (m.ccc != 0) {
            tok_edit_put(f->e, m.c, m.change);

        } else {
            f->have = true;
            f->base = m;
        }
        return f->e->rc;
    }
    if (f->last_ccc < 0 || f->last_ccc < m.ccc) {
        r = compose(f->base.c, m.c);
        if (r != 0) {
            f->base.c = r;
            f->base.change += m.change - 1;
            return 0;
        }
        if (m.ccc != 0 || f->last_ccc >= 0) {
            f->last_ccc = m.ccc;
            return hold(f, m);
        }

    } else if (m.ccc != 0) {
        f->last_ccc = m.ccc;
        return hold(f, m);
    }
    /* A new base: the old one and its marks are done. */
    tok_edit_put(f->e, f->base.c, f->base.change);
    flush_marks(f, held);
    f->base = m;
    f->last_ccc = -1;
    return f->e->rc;
}


/* --- decomposing ------------------------------------------------------- */

/* Counting sort, for texts that are nothing but marks. */
static int
sort_many(form_t *f)
{
    size_t   n = f->marks->n, count[256] = { 0 }, i, k, sum = 0;
    mark_t  *m, *to;
    int      rc = tok_room(f->e->s, f->marks, n, sizeof(mark_t));

    if (rc != 0) {
        return rc;
    }
    m = f->marks->ptr;
    to = m + n;
    for (i = 0; i < n; i++) {
        count[m[i].ccc]++;
    }
    for (i = 0; i < 256; i++) {
        k = count[i];
        count[i] = sum;
        sum += k;
    }
    for (i = 0; i < n; i++) {
        to[count[m[i].ccc]++] = m[i];
    }
    memcpy(m, to, n * sizeof(*m));
    return 0;
}


/* Writes the waiting marks in canonical order (a stable sort). */
static int
flush_sorted(form_t *f)
{
    mark_t  *m = f->marks->ptr, x;
    size_t   n = f->marks->n, i, k;
    int      rc = 0;

    if (n > MARKS_MAX) {
        rc = sort_many(f);
        m = f->marks->ptr;

    } else {
        for (i = 1; i < n; i++) {
            x = m[i];
            for (k = i; k > 0 && m[k - 1].ccc > x.ccc; k--) {
                m[k] = m[k - 1];
            }
            m[k] = x;
        }
    }
    for (i = 0; i < n && rc == 0; i++) {
        rc = recompose(f, m[i]);
    }
    f->marks->n = 0;
    return rc;
}


static int
push(form_t *f, uint32_t c, bool first)
{
    mark_t  m = { c, first ? 0 : 1, (uint8_t) ccc_of(c) };
    int     rc;

    if (m.ccc == 0) {
        rc = flush_sorted(f);
        if (rc != 0) {
            return rc;
        }
    }
    rc = tok_room(f->e->s, f->marks, 1, sizeof(m));
    if (rc == 0) {
        ((mark_t *) f->marks->ptr)[f->marks->n++] = m;
    }
    return rc;
}


static int
decompose(form_t *f, uint32_t c, bool compat)
{
    uint32_t  v, s, i;
    int       rc = 0;

    if (c >= HANGUL_S && c < HANGUL_S + HANGUL_N) {
        s = c - HANGUL_S;
        rc = push(f, HANGUL_L + s / 588, true);
        if (rc == 0) {
            rc = push(f, HANGUL_V + s % 588 / 28, false);
        }
        return rc == 0 && s % 28 ? push(f, HANGUL_T + s % 28, false) : rc;
    }
    v = c < 0xa0 ? 0 : compat ? tok_nfkd_map[ROW(nfkd, c)]
                              : tok_nfd_map[ROW(nfd, c)];
    if (v == 0) {
        return push(f, c, true);
    }
    for (i = 0; i < (v & 31) && rc == 0; i++) {
        rc = push(f, tok_ucd_pool[(v >> 5) + i], i == 0);
    }
    return rc;
}


/* What is left of a text, or of a part that nothing behind composes with. */
static int
form_end(form_t *f)
{
    int  rc = flush_sorted(f);

    if (rc == 0 && f->have) {
        tok_edit_put(f->e, f->base.c, f->base.change);
        flush_marks(f, &f->e->s->refs2);
    }
    f->have = false;
    f->last_ccc = -1;
    return rc != 0 ? rc : f->e->rc;
}


static int
form_all(form_t *f, bool compat)
{
    const tok_edit_t  *e = f->e;
    size_t             i, n;
    int                rc = 0;

    for (i = 0; i < e->len && rc == 0 && e->rc == 0; i += n) {
        rc = decompose(f, tok_utf8_get(e->text + i, &n), compat);
    }
    return rc != 0 ? rc : form_end(f);
}


/* --- form C, where most of a text is in it ----------------------------- */

/* 0: stays what it is, whatever is before it; 255: nobody knows; else a mark
 * that stays if those before it have no higher number. */
static inline uint32_t
sure_of(uint32_t c)
{
    return c < 0x300 ? 0 : ROW(sure, c);
}


/*
 * From i on, where a character begins: the end of what is surely in form C, or
 * the first character that may not be.  *from: the last character in front of
 * that with which nothing before it composes.
 */
static size_t
sure_end(const uint8_t *p, size_t i, size_t len, size_t *from)
{
    uint32_t  v, last = 0;
    size_t    n;

    *from = i;
    while (i < len) {
        while (len - i >= 8
               && (tok_load64(p + i) & 0x8080808080808080ull) == 0)
        {
            i += 8;
            *from = i - 1;
            last = 0;
        }
        if (i == len) {
            break;
        }
        v = sure_of(tok_utf8_get(p + i, &n));
        if (v == 255 || (v != 0 && v < last)) {
            return i;
        }
        *from = v == 0 ? i : *from;
        last = v;
        i += n;
    }
    return len;
}


/* What is written where alignments are kept or not: places in both texts, and
 * the last character with which nothing before it composes, or their start. */
typedef struct {
    uint8_t           *out;
    tok_span_t        *spans;       /* of out, or NULL */
    const uint8_t     *p;           /* the source */
    const tok_span_t  *align;
    size_t             i, d;        /* read, written */
    size_t             i_base, d_base;
    uint32_t           base;        /* TOK_NO_ID: there is none */
    uint32_t           tail;        /* class of the last mark that is in it;
                                       UNKNOWN: if any */
    uint32_t           last;        /* of the last mark behind it, or 0 */
} quick_t;

#define UNKNOWN  256u


/* The class of the last character that c is made of. */
static uint32_t
tail_of(uint32_t c)
{
    uint32_t  v = c < 0xa0 ? 0 : tok_nfd_map[ROW(nfd, c)];

    return v == 0 ? 0 : ccc_of(tok_ucd_pool[(v >> 5) + (v & 31) - 1]);
}


/* n bytes that stay what they are; both texts may be written beyond them. */
static inline void
quick_copy(quick_t *q, size_t n)
{
    size_t  k;

    memcpy(q->out + q->d, q->p + q->i, 8);
    for (k = 0; q->spans != NULL && k < n; k++) {
        q->spans[q->d + k] = q->align[q->i + k];
    }
    q->i += n;
    q->d += n;
}


/* A mark of class k; false: this needs a closer look. */
static inline bool
quick_mark(quick_t *q, uint32_t c, uint32_t k, size_t n)
{
    uint32_t  r = 0;
    size_t    i;

    if (q->base == TOK_NO_ID || k < q->last) {
        return false;
    }
    if (q->tail == UNKNOWN) {
        q->tail = tail_of(q->base);
    }
    if (k < q->tail) {
        return false;
    }
    if (k > q->last) {
        r = compose(q->base, c);
    }
    if (r == 0) {
        q->last = k;
        quick_copy(q, n);
        return true;
    }
    if (q->last) {
        return false;               /* over marks that stay */
    }
    /* It is no longer than its parts, and stands for the first of them. */
    q->base = r;
    q->tail = k;
    q->i += n;
    q->d = q->d_base + tok_utf8_put(q->out + q->d_base, r);
    for (i = q->d_base; q->spans != NULL && i < q->d; i++) {
        q->spans[i] = q->align[q->i_base];
    }
    return true;
}


/*
 * Up to the end, or to what needs a closer look: characters that stay, and
 * marks in order behind them, which compose with them or stay.  No other
 * changes, and the text grows nowhere.
 */
static void
quick(quick_t *q, size_t len)
{
    uint32_t  c, v;
    size_t    n;

    while (len - q->i >= 8) {
        if ((tok_load64(q->p + q->i) & 0x8080808080808080ull) == 0) {
            quick_copy(q, 8);
            q->i_base = q->i - 1;
            q->d_base = q->d - 1;
            q->base = q->p[q->i - 1];
            q->tail = q->last = 0;
            continue;
        }
        c = tok_utf8_get(q->p + q->i, &n);
        v = sure_of(c);
        if (v == 0) {
            q->i_base = q->i;
            q->d_base = q->d;
            q->base = c;
            q->tail = UNKNOWN;
            q->last = 0;
            quick_copy(q, n);
            continue;
        }
        if (v == 255) {
            v = ROW(nfd, c) == 0 ? ccc_of(c) : 0;
            if (v == 0 || !quick_mark(q, c, v, n)) {
                return;
            }

        } else if (v < q->last) {
            return;

        } else {
            q->last = v;
            quick_copy(q, n);
        }
    }
}


/* The quick way as far as that goes, without the last character with which
 * nothing composes: what comes next may change it. */
static int
form_quick(tok_edit_t *e)
{
    tok_ntext_t  *o = e->out;
    quick_t       q = { .p = e->text, .align = e->align, .i = e->at,
                        .i_base = e->at, .base = TOK_NO_ID };
    int           rc = tok_room(e->s, &o->text, e->len - e->at + 8, 1);

    if (rc == 0 && e->align != NULL) {
        rc = tok_room(e->s, &o->align, e->len - e->at + 8,
                      sizeof(tok_span_t));
    }
    if (rc != 0) {
        return rc;
    }
    q.out = (uint8_t *) o->text.ptr + o->text.n;
    q.spans = e->align == NULL ? NULL
              : (tok_span_t *) o->align.ptr + o->align.n;
    quick(&q, e->len);
    e->at = q.i_base;
    o->text.n += q.d_base;
    o->align.n += e->align != NULL ? q.d_base : 0;
    return 0;
}


/* What needs a closer look, and the character before it. */
static int
form_c(form_t *f)
{
    tok_edit_t     *e = f->e;
    const uint8_t  *p = e->text;
    size_t          i, at, n;
    uint32_t        c;
    int             rc = 0;

    while (rc == 0 && e->at < e->len) {
        rc = form_quick(e);
        at = sure_end(p, e->at, e->len, &n);
        for (i = e->at; i < e->len && rc == 0; i += n) {
            c = tok_utf8_get(p + i, &n);
            if (i > at && sure_of(c) == 0) {
                break;
            }
            rc = decompose(f, c, false);
        }
        rc = rc == 0 ? form_end(f) : rc;
    }
    return rc;
}


int
tok_edit_form(tok_edit_t *e, uint16_t type)
{
    bool    compat = type == TOK_N_NFKC || type == TOK_N_NFKD;
    form_t  f = { .e = e, .last_ccc = -1 };

    f.marks = &e->s->refs;
    f.compose = type == TOK_N_NFC || type == TOK_N_NFKC;
    f.marks->n = 0;
    e->s->refs2.n = 0;
    return type == TOK_N_NFC ? form_c(&f) : form_all(&f, compat);
}


bool
tok_is_nfc_sure(const uint8_t *p, size_t len)
{
    size_t  from;

    return sure_end(p, 0, len, &from) == len;
}


/* --- case -------------------------------------------------------------- */

int
tok_edit_lower(tok_edit_t *e)
{
    uint32_t  c, v, k;
    size_t    i, n;

    for (i = 0; i < e->len && e->rc == 0; i += n) {
        c = tok_utf8_get(e->text + i, &n);
        v = tok_lower_map[ROW(lower, c)];
        if (v == 0) {
            tok_edit_put(e, c, 0);
            continue;
        }
        for (k = 0; k < (v & 31); k++) {
            tok_edit_put(e, tok_ucd_pool[(v >> 5) + k], k > 0);
        }
    }
    return e->rc;
}


/* --- characters one by one --------------------------------------------- */

bool
tok_form_same(uint32_t c, bool marks, bool lower)
{
    return !(marks && (ROW(nfd, c) != 0 || ccc_of(c) != 0
                       || (c >= HANGUL_S && c < HANGUL_S + HANGUL_N)
                       || (tok_class(c) & TOK_U_MN)))
           && !(lower && ROW(lower, c) != 0);
}


/* The characters of which c is made; up to 31. */
static size_t
parts_of(uint32_t c, uint32_t *part)
{
    uint32_t  v, s, i;

    if (c >= HANGUL_S && c < HANGUL_S + HANGUL_N) {
        s = c - HANGUL_S;
        part[0] = HANGUL_L + s / 588;
        part[1] = HANGUL_V + s % 588 / 28;
        part[2] = HANGUL_T + s % 28;
        return s % 28 ? 3 : 2;
    }
    v = tok_nfd_map[ROW(nfd, c)];
    if (v == 0) {
        part[0] = c;
        return 1;
    }
    for (i = 0; i < (v & 31); i++) {
        part[i] = tok_ucd_pool[(v >> 5) + i];
    }
    return v & 31;
}


int
tok_form_alone(uint32_t c, bool marks, bool lower, uint8_t *out)
{
    uint32_t  part[32], v, k;
    size_t    n = 1, i, size = 0;

    part[0] = c;
    if (marks) {
        n = parts_of(c, part);
    }
    for (i = 0; i < n; i++) {
        k = tok_class(part[i]);
        if (marks && (k & TOK_U_MN)) {
            continue;
        }
        if ((k & (TOK_U_PUNC | TOK_U_WS)) || (marks && ccc_of(part[i]) != 0)) {
            return -1;
        }
        v = lower ? tok_lower_map[ROW(lower, part[i])] : 0;
        if (size + (v ? (v & 31) : 1) * 4 > TOK_FORM_BYTES) {
            return -1;
        }
        if (v == 0) {
            size += tok_utf8_put(out + size, part[i]);
            continue;
        }
        for (k = 0; k < (v & 31); k++) {
            size += tok_utf8_put(out + size, tok_ucd_pool[(v >> 5) + k]);
        }
    }
    return (int) size;
}
