/*
 * tok_core.h: encode and decode internals: the scratch, the stages, the
 * models.
 */

#ifndef TOK_CORE_H
#define TOK_CORE_H


#include "tokenizer/tok_find.h"


/*
 * The word cache remembers what words merge to.  A short word has up to 15
 * bytes, padded by 255, which no text has: so keys are exact.  The upper half
 * of the last byte has how many ids there are; a word of more than four has
 * none, its ids are among the long words.
 */
typedef struct {
    _Alignas(32) uint64_t  k0;
    uint64_t  k1;
    uint32_t  ids[4];
} tok_short_t;

#define TOK_SHORT_BYTES  15
#define TOK_SHORT_COUNT  60         /* k1: from this bit on */
#define TOK_SHORT_KEY    (((uint64_t) 1 << 56) - 1)
#define TOK_LONG_BYTES   48
#define TOK_LONG_IDS     19

typedef struct {
    uint64_t  k[6];
    uint32_t  n_len;                /* n << 8 | len; 0: empty */
    uint32_t  ids[TOK_LONG_IDS];
} tok_long_t;

_Static_assert(sizeof(tok_short_t) == 32, "half a cache line");
_Static_assert(sizeof(tok_long_t) == 128, "two cache lines");

/* A symbol of a long word while it is merged. */
typedef struct {
    uint32_t  id;
    uint32_t  prev, next;           /* UINT32_MAX: none */
    uint32_t  len;                  /* bytes; 0: merged away */
} tok_sym_t;

typedef struct {
    uint64_t  key;                  /* rank << 32 | position */
    uint32_t  to;
} tok_heap_t;

/* Neighbours that tok_back.c knows: ids a + 1 << 32 | b << 1 | stay apart. */
#define TOK_NEAR_LOG  10

/* A piece of the normalized text. */
typedef struct {
    uint32_t  begin, end;
    uint32_t  shift;                /* of its original text */
    uint32_t  id;                   /* an added token, or TOK_NO_ID */
} tok_piece_t;

/* Normalized text with, for each byte, the original bytes it stands for. */
typedef struct {
    tok_vec_t  text;                /* uint8_t */
    tok_vec_t  align;               /* tok_span_t, if alignments are kept */
} tok_ntext_t;

/* White space at the ends of an added token's text, for trimmed offsets. */
typedef struct {
    uint32_t  index;                /* of its id */
    uint32_t  lead, trail;
} tok_trim_t;

#define TOK_BOUND_ADDED  (1u << 31)

typedef struct tok_batch tok_batch_t;   /* tok_fast.c */

struct tok_scratch {
    const tok_t  *owner;
    uint64_t      serial;
    uint64_t      grown;
    tok_short_t  *shorts;
    tok_long_t   *longs;
    tok_batch_t  *batch;
    uint64_t      near[1 << TOK_NEAR_LOG];
    uint32_t      char_ids[128];    /* SPM shortcut: symbols of ASCII */
    tok_vec_t     ids;              /* uint32_t */
    tok_vec_t     spans;            /* tok_span_t: bytes, later characters */
    tok_vec_t     out_ids, out_spans, out_types, out_special, out_mask;
    tok_vec_t     syms;             /* tok_sym_t */
    tok_vec_t     heap;             /* tok_heap_t */
    tok_vec_t     small;            /* uint32_t pairs of a word */
    tok_vec_t     pieces, pieces2;  /* tok_piece_t */
    tok_vec_t     cuts;             /* tok_cut_t of pattern matches */
    tok_ntext_t   norm, norm2;
    tok_vec_t     path, cuts2;      /* Unigram: nodes, tok_span_t */
    tok_vec_t     text;             /* decode */
    tok_vec_t     text2, refs, refs2;
    tok_vec_t     tmp1, tmp2, tmp3; /* uint8_t */
    tok_vec_t     trims;            /* tok_trim_t */
    tok_vec_t     parts;            /* tokens of windows: tok_bpe.c */
    tok_vec_t     lower;            /* uint8_t: WordPiece in lower case */
    tok_vec_t     bounds;           /* uint32_t: ids before a word's end,
                                       TOK_BOUND_ADDED if it is none */
    tok_vec_t     dead;             /* uint8_t: tok_back.c */
    tok_vec_t     jobs;             /* tok_job_t: tok_long.c */
    bool          want_spans;
    bool          want_bounds;      /* truncation of pairs counts by words */
    bool          keep_align;       /* offsets, or a step that needs them */
    size_t        bad_at;
    const tok_range_t *plain;       /* no special tokens here; the caller's */
    size_t        n_plain;
    void         *match;            /* PCRE2 match data */
};

#define tok_ids(s)    ((uint32_t *) (s)->ids.ptr)
#define tok_spans(s)  ((tok_span_t *) (s)->spans.ptr)


/* tok_scratch.c: room for n more elements; counts allocations. */
int tok_room(tok_scratch_t *s, tok_vec_t *v, size_t more, size_t size);
int tok_scratch_adopt(tok_scratch_t *s, const tok_t *t);
tok_batch_t *tok_batch_new(void);

/* tok_added.c */
typedef struct {
    size_t    begin, end;
    size_t    raw;                  /* its own bytes: from here to resume */
    size_t    resume;               /* where the search goes on */
    uint32_t  id;
} tok_match_t;

/*
 * The next added token at or after *at: text before it is plain.  Returns
 * false if there is none.  from: end of the match before, which lstrip may
 * not reach.
 */
bool tok_added_next(const tok_t *t, const uint8_t *text, size_t len,
    bool normalized, bool special, size_t at, size_t from, tok_match_t *m);
const tok_added_t *tok_added_find(const tok_t *t, uint32_t id);

/* tok_bpe.c: each appends ids (and spans, relative to base) of one word. */
int tok_bpe_bytes(const tok_t *t, tok_scratch_t *s, const uint8_t *word,
    size_t len, size_t base);
int tok_bpe_chars(const tok_t *t, tok_scratch_t *s, const uint8_t *word,
    size_t len, size_t base);
int tok_wordpiece(const tok_t *t, tok_scratch_t *s, const uint8_t *word,
    size_t len, size_t base);
int tok_wordlevel(const tok_t *t, tok_scratch_t *s, const uint8_t *word,
    size_t len, size_t base);
int tok_unigram(const tok_t *t, tok_scratch_t *s, const uint8_t *word,
    size_t len, size_t base);

uint32_t tok_model_find(const tok_t *t, const uint8_t *p, size_t len);

/* The token that a byte-level word is as a whole, or TOK_NO_ID. */
uint32_t tok_word_find(const tok_t *t, const uint8_t *p, size_t len);

/* The merges of a byte-level word that tok_word_find does not know. */
int tok_bpe_merge(const tok_t *t, tok_scratch_t *s, const uint8_t *word,
    size_t len, size_t base);

/* tok_fast.c: byte-level BPE straight on the text. */
int tok_fast_bytes(const tok_t *t, tok_scratch_t *s, const uint8_t *text,
    size_t len, size_t base);

/*
 * tok_scan.c: the end of the piece that starts at p (p < end).  *limit is
 * NULL for the first piece of a text and the scanner's own after.
 */
const uint8_t *tok_scan(uint32_t pattern, const uint8_t *p,
    const uint8_t *end, const uint8_t **limit);

/* tok_encode.c: any text, through all stages one after the other. */
int tok_encode_general(const tok_t *t, tok_scratch_t *s, const uint8_t *text,
    size_t len, size_t base);

/* tok_post.c */
void tok_trim_note(tok_scratch_t *s, const uint8_t *p, size_t len);
int tok_post_run(const tok_t *t, tok_scratch_t *s, size_t n_first, bool pair,
    unsigned flags, tok_result_t *out);

/* tok_decode.c */
int tok_decode_token(const tok_t *t, tok_scratch_t *s, const uint8_t *p,
    size_t len, bool first, bool last, size_t n_ops, tok_vec_t *out);
tok_str_t tok_shown(const tok_t *t, uint32_t id);


/* One more id of the result, and its span where spans are wanted. */
static inline int
tok_push_id(tok_scratch_t *s, uint32_t id, size_t begin, size_t end)
{
    int  rc = tok_room(s, &s->ids, 1, sizeof(uint32_t));

    if (rc == 0 && s->want_spans) {
        s->spans.n = s->ids.n;
        rc = tok_room(s, &s->spans, 1, sizeof(tok_span_t));
    }
    if (rc != 0) {
        return rc;
    }
    if (s->want_spans) {
        tok_spans(s)[s->ids.n] = (tok_span_t) { (uint32_t) begin,
                                                (uint32_t) end };
    }
    tok_ids(s)[s->ids.n++] = id;
    return 0;
}


#endif /* TOK_CORE_H */
