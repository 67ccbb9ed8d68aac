/*
 * tok_win.c: the patterns of tok_scan.c on 64 bytes at once.
 *
 * Where a piece begins depends on few bytes around: the class of the byte
 * before, of the byte behind a white space, whether a run of white space has
 * a line break later.  So all beginnings of a window come from shifts and sums
 * of class masks, without a branch for each piece, which no processor would
 * foresee.  What lies beyond the window, or is not ASCII, is not guessed:
 * the window then ends before whatever could depend on it.
 */

#include "tokenizer/tok_win.h"
#include "tokenizer/tok_unicode.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif


/* How the patterns differ. */
enum {
    P_GPT2 = 1,                     /* ' ?' leads all runs; no breaks */
    P_QUOTE = 2,                    /* 's, 't, 're ... where a piece begins */
    P_FOLD = 4,                     /* the same in any case */
    P_TAIL = 8,                     /* the same, as the end of a word */
    P_CASED = 16,                   /* words end before a capital */
    P_DIGIT = 32,                   /* numbers of one digit */
    P_DIGITS = 64,                  /* of up to three */
    P_PARTS = 128,                  /* numbers are cut out before the rest */
    P_CONTROL = 256                 /* controls are a class of their own */
};

static const uint16_t  rules[TOK_R_MAX] = {
    [TOK_R_GPT2] = P_GPT2 | P_QUOTE,
    [TOK_R_GPT2_DIGITS] = P_GPT2 | P_QUOTE | P_DIGIT | P_PARTS,
    [TOK_R_CL100K] = P_QUOTE | P_FOLD | P_DIGITS,
    [TOK_R_QWEN2] = P_QUOTE | P_FOLD | P_DIGIT,
    [TOK_R_O200K] = P_TAIL | P_FOLD | P_CASED | P_DIGITS,
    [TOK_R_TEKKEN] = P_CASED | P_DIGIT,
    [TOK_R_DEEPSEEK3] = P_DIGITS | P_PARTS | P_CONTROL
};


bool
tok_win_knows(uint32_t scan)
{
    return scan < TOK_R_MAX && rules[scan] != 0;
}


/* --- classes ----------------------------------------------------------- */

void
tok_win_classes_ref(tok_win_t *w, const uint8_t *p)
{
    uint64_t  bit;
    uint32_t  k;
    unsigned  i;
    uint8_t   c;

    memset(w, 0, sizeof(*w));
    for (i = 0; i < TOK_WIN_BYTES; i++) {
        bit = (uint64_t) 1 << i;
        c = p[i];
        if (c >= 0x80) {
            w->high |= bit;
            continue;
        }
        k = tok_class_rows[c];
        w->letter |= k & TOK_U_L ? bit : 0;
        w->upper |= k & TOK_U_UP ? bit : 0;
        w->digit |= k & TOK_U_N ? bit : 0;
        w->space |= k & TOK_U_S ? bit : 0;
        w->control |= k & (TOK_U_L | TOK_U_N | TOK_U_S | TOK_U_P | TOK_U_SYM)
                      ? 0 : bit;
        w->blank |= c == ' ' ? bit : 0;
        w->brk |= c == '\n' || c == '\r' ? bit : 0;
        w->quote |= c == '\'' ? bit : 0;
        w->slash |= c == '/' ? bit : 0;
    }
}


#ifdef __SSE2__

/* Bytes from lo to lo + n - 1. */
static inline __m128i
range(__m128i v, char lo, char n)
{
    return _mm_cmplt_epi8(_mm_add_epi8(v, _mm_set1_epi8((char) (0x80 - lo))),
                          _mm_set1_epi8((char) (0x80 + n)));
}


static inline __m128i
equal(__m128i v, char c)
{
    return _mm_cmpeq_epi8(v, _mm_set1_epi8(c));
}


static inline uint64_t
bits(__m128i v, unsigned at)
{
    return (uint64_t) (unsigned) _mm_movemask_epi8(v) << at;
}


static void
classes_sse2(tok_win_t *w, const uint8_t *p)
{
    tok_win_t  m = { 0 };
    __m128i    v, blank;
    unsigned   at;

    for (at = 0; at < TOK_WIN_BYTES; at += 16) {
        v = _mm_loadu_si128((const __m128i *) (p + at));
        blank = equal(v, ' ');
        m.letter |= bits(range(_mm_or_si128(v, _mm_set1_epi8(0x20)), 'a', 26),
                         at);
        m.upper |= bits(range(v, 'A', 26), at);
        m.digit |= bits(range(v, '0', 10), at);
        m.blank |= bits(blank, at);
        m.space |= bits(_mm_or_si128(blank, range(v, '\t', 5)), at);
        m.brk |= bits(_mm_or_si128(equal(v, '\n'), equal(v, '\r')), at);
        m.quote |= bits(equal(v, '\''), at);
        m.slash |= bits(equal(v, '/'), at);
        m.control |= bits(_mm_or_si128(range(v, 0, 32), equal(v, 0x7f)), at);
        m.high |= bits(v, at);
    }
    m.control &= ~m.space;
    *w = m;
}


#endif


void
tok_win_classes(tok_win_t *w, const uint8_t *p)
{
#ifdef __SSE2__
    if (__builtin_cpu_supports("avx512bw")) {
        tok_win_classes_avx512(w, p);

    } else if (__builtin_cpu_supports("avx2")) {
        tok_win_classes_avx2(w, p);

    } else {
        classes_sse2(w, p);
    }
#else
    tok_win_classes_ref(w, p);
#endif
}


/* --- where pieces begin ------------------------------------------------ */

/* Numbers of up to three digits, counted from where their run begins. */
static inline uint64_t
every_third(uint64_t digit)
{
    uint64_t  begin = digit & ~(digit << 1);
    uint64_t  whole = digit & digit << 1 & digit << 2;
    unsigned  step;

    if (whole) {
        for (step = 3; step < TOK_WIN_BYTES; step *= 2) {
            begin |= begin << step & whole;
            whole &= whole << step;
        }
    }
    return begin;
}


static inline uint64_t
digit_begins(uint64_t digit, unsigned rule)
{
    return rule & P_DIGIT ? digit
           : rule & P_DIGITS ? every_third(digit) : digit & ~(digit << 1);
}


/* White space before something else, which leaves its last one to that. */
static inline uint64_t
last_spaces(const tok_win_t *w, uint64_t space, unsigned rule)
{
    uint64_t  next = ~w->space;

    if (rule & P_PARTS) {
        next &= ~w->digit;          /* there the text ends, for the pattern */
    }
    return space & next >> 1;
}


/* gpt2: runs of one class, with a blank before them. */
static inline uint64_t
begins_runs(const tok_win_t *w, unsigned rule)
{
    uint64_t  other = ~(w->letter | w->digit | w->space), b, lead;

    lead = w->blank << 1;
    b = (w->letter & ~(w->letter << 1)) | (other & ~(other << 1));
    if (rule & P_DIGIT) {
        b = (b & ~lead) | w->digit;

    } else {
        b = (b | (w->digit & ~(w->digit << 1))) & ~lead;
    }
    return b | (w->space & ~(w->space << 1)) | last_spaces(w, w->space, rule);
}


/*
 * Runs of white space without a break that follow a break: a piece begins
 * there unless another break comes later in the same white space.
 */
static inline uint64_t
behind_breaks(uint64_t thin, uint64_t brk)
{
    uint64_t  begin = thin & brk << 1;
    uint64_t  bad = (thin + begin) & ~thin & brk, before;

    while (bad) {
        before = begin & ((bad & -bad) - 1);
        assert(before != 0);
        begin ^= (uint64_t) 1 << (63 - __builtin_clzll(before));
        bad &= bad - 1;
    }
    return begin;
}


/* cl100k and what came after it. */
static inline uint64_t
begins_words(const tok_win_t *w, unsigned rule)
{
    uint64_t  other = ~(w->letter | w->digit | w->space);
    uint64_t  thin = w->space & ~w->brk, taken, tail, space, b, words;

    /* Breaks right behind others belong to them (o200k: and slashes). */
    tail = w->brk | (rule & P_CASED ? w->slash : 0);
    taken = w->brk & other << 1;
    taken |= tail & ~(tail + taken);
    other &= ~taken;
    space = w->space & ~taken;
    b = other & ~(other << 1) & ~(w->blank << 1);

    /* One other, or white space, leads a word. */
    words = w->letter & ~(w->letter << 1) & ~(thin << 1) & ~(b << 1);
    if (rule & P_CASED) {
        words |= w->upper & (w->letter & ~w->upper) << 1;
    }
    b |= words | digit_begins(w->digit, rule);
    b |= space & ~(space << 1);
    b |= last_spaces(w, thin, rule);
    return b | behind_breaks(thin, w->brk & ~taken);
}


/* How long the contraction at p is, or 0; two more bytes can be read. */
static inline unsigned
contraction(const uint8_t *p, bool fold)
{
    uint8_t  a = p[1], b = p[2];

    if (fold) {
        a |= 0x20;
        b |= 0x20;
    }
    if (a == 's' || a == 't' || a == 'm' || a == 'd') {
        return 2;
    }
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e')
           || (a == 'l' && b == 'l') ? 3 : 0;
}


/*
 * Contractions: b is changed so that a piece ends behind each, and *sure is
 * lowered where the window does not show enough.
 */
static inline uint64_t
contractions(const tok_win_t *w, const uint8_t *p, uint64_t b, unsigned rule,
    unsigned known, unsigned *sure)
{
    bool      tail = rule & P_TAIL;
    uint64_t  q = w->quote & (tail ? w->letter << 1 : b);
    unsigned  at, n;

    for (/* void */; q; q &= q - 1) {
        at = (unsigned) __builtin_ctzll(q);
        if (at + 3 > known) {
            at -= tail;
            *sure = at < *sure ? at : *sure;
            break;
        }
        n = contraction(p + at, rule & P_FOLD);
        if (n == 0) {
            continue;
        }
        b &= ~((uint64_t) (tail ? 3 : 2) << at);
        if (n == 3) {
            b &= ~((uint64_t) 4 << at);
        }
        if (at + n < TOK_WIN_BYTES) {
            b |= (uint64_t) 1 << (at + n);
            if (tail) {             /* no word ends in two of them */
                q &= ~((uint64_t) 1 << (at + n));
            }
        }
    }
    return b;
}


/* The window of a text that ends within it; white space follows. */
static const uint8_t *
padded(uint8_t *buf, const uint8_t *p, size_t n)
{
    assert(n < TOK_WIN_BYTES);
    memset(buf, ' ', TOK_WIN_BYTES);
    return memcpy(buf, p, n);
}


uint64_t
tok_win_ends(uint32_t scan, const uint8_t *p, size_t left)
{
    uint8_t    buf[TOK_WIN_BYTES];
    tok_win_t  w;
    unsigned   rule = rules[scan], known = TOK_WIN_BYTES, sure;
    uint64_t   strange, b, solid;
    bool       ends = left < TOK_WIN_BYTES;

    assert(tok_win_knows(scan) && left > 0);
    if (ends) {
        known = (unsigned) left;
        p = padded(buf, p, left);
    }
    tok_win_classes(&w, p);
    strange = w.high | (rule & P_CONTROL ? w.control : 0);
    if (strange) {
        known = (unsigned) __builtin_ctzll(strange);
        ends = false;
        if (known == 0) {
            return 0;
        }
    }
    sure = known;
    if (!ends) {
        /* The last run of white space, and what it is cut into, is open. */
        sure = known - 1;
        if (w.space >> sure & 1) {
            solid = ~w.space & (((uint64_t) 1 << sure) - 1);
            sure = solid ? 64 - (unsigned) __builtin_clzll(solid) : 0;
        }
    }
    b = rule & P_GPT2 ? begins_runs(&w, rule) : begins_words(&w, rule);
    if (ends) {
        b |= (uint64_t) 1 << known;
    }
    if ((rule & (P_QUOTE | P_TAIL)) && w.quote) {
        b = contractions(&w, p, b, rule, ends ? TOK_WIN_BYTES : known, &sure);
    }
    return b & (((uint64_t) 2 << sure) - 1) & ~(uint64_t) 1;
}
