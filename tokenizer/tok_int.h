/*
 * tok_int.h: what the files of the tokenizer share.  Not for callers.
 *
 * A loaded vocabulary is one block of memory without pointers, the image: a
 * header and sections (arrays).  A tok_t is a small private object that holds
 * addresses of the sections; so the block can be mapped from a file and
 * shared.  The builder (tok_build.c) makes the block, tok_image.c maps it.
 */

#ifndef TOK_INT_H
#define TOK_INT_H

#include "tokenizer/tok_util.h"


#define TOK_IMAGE_MAGIC    0x31474d494b4f5471ull
#define TOK_IMAGE_VERSION  6u

typedef struct {
    uint32_t  off;                  /* into the string pool */
    uint32_t  len;
} tok_ref_t;

enum {
    TOK_S_POOL,                     /* uint8_t */
    TOK_S_TOKENS,                   /* tok_ref_t by id: the model's spelling */
    TOK_S_FLAGS,                    /* uint8_t by id */
    TOK_S_BYTES,                    /* tok_ref_t by id: inside a text */
    TOK_S_FIRST,                    /* the same at its start, if different */
    TOK_S_LAST,                     /* the same at its end, if different */
    TOK_S_HASH,                     /* uint64_t, model spelling to id */
    TOK_S_MERGES,                   /* tok_merge_t, open addressing */
    TOK_S_WORDS,                    /* tok_word_t, text bytes to id */
    TOK_S_PAIRS,                    /* tok_pair_t[65536], two bytes */
    TOK_S_FILTER,                   /* uint64_t, which pairs may merge */
    TOK_S_BYTE_IDS,                 /* uint32_t[256] */
    TOK_S_SCORES,                   /* double by id */
    TOK_S_TRIE,                     /* tok_cell_t: vocabulary trie */
    TOK_S_ADDED,                    /* tok_added_t, by id */
    TOK_S_ADDED_RAW,                /* tok_cell_t: trie, raw text */
    TOK_S_ADDED_NORM,               /* tok_cell_t: trie, normalized text */
    TOK_S_NORM,                     /* tok_op_t */
    TOK_S_PRE, TOK_S_POST,
    TOK_S_DECODE,
    TOK_S_EOS,                      /* uint32_t, sorted */
    TOK_S_CHARSMAP,                 /* uint8_t: precompiled normalizers */
    TOK_S_JOINS,                    /* uint64_t[1024]: tok_keys.h */
    TOK_S_MADE,                     /* tok_made_t by id (BPE) */
    TOK_S_SIEVE,                    /* uint64_t, which words may be tokens */
    TOK_S_MAX
};

/* Flags of an id. */
enum {
    TOK_F_MODEL   = 1,              /* the model has it */
    TOK_F_ADDED   = 2,
    TOK_F_SPECIAL = 4,
    TOK_F_BYTE    = 8,              /* <0xAB>, and the decoder reads it so */
    TOK_F_WHOLE   = 16              /* its bytes as a word give this id */
};

typedef enum { TOK_M_BPE = 1, TOK_M_WORDPIECE, TOK_M_UNIGRAM,
               TOK_M_WORDLEVEL } tok_model_t;

typedef struct {
    uint32_t  a, b;                 /* a == TOK_NO_ID: empty */
    uint32_t  rank;
    uint32_t  to;
} tok_merge_t;

/* The merge of two bytes, by their values; rank TOK_NO_ID: none. */
typedef struct {
    uint32_t  rank, to;
} tok_pair_t;

typedef struct {                    /* see tok_keys.h */
    uint64_t  k0, k1;
} tok_word_t;

/* One cell of a trie by double array: check == parent's base + 1. */
typedef struct {
    uint32_t  base;
    uint32_t  check;
    uint32_t  value;                /* TOK_NO_ID: no key ends here */
} tok_cell_t;

enum {
    TOK_A_SINGLE_WORD = 1, TOK_A_LSTRIP = 2, TOK_A_RSTRIP = 4,
    TOK_A_NORMALIZED = 8, TOK_A_SPECIAL = 16
};

typedef struct {
    uint32_t   id;
    uint32_t   flags;
    tok_ref_t  text;
    tok_ref_t  norm;                /* what is looked for in the text */
} tok_added_t;

/* One step of a pipeline; what a, b, c, s, r mean depends on the type. */
typedef struct {
    uint16_t   type;
    uint16_t   flags;
    uint32_t   a, b, c;
    tok_ref_t  s, r;
} tok_op_t;

enum {                              /* normalizers */
    TOK_N_CLEAN = 1, TOK_N_CHINESE, TOK_N_STRIP_MN, TOK_N_NFC, TOK_N_NFD,
    TOK_N_NFKC, TOK_N_NFKD, TOK_N_LOWER, TOK_N_STRIP_ACCENTS, TOK_N_STRIP,
    TOK_N_REPLACE, TOK_N_REPLACE_RE, TOK_N_PREPEND, TOK_N_CHARSMAP,
    TOK_N_NMT, TOK_N_BYTE_LEVEL
};

enum {                              /* pre-tokenizers */
    TOK_P_BERT = 1, TOK_P_BYTE_LEVEL, TOK_P_DELIM, TOK_P_METASPACE,
    TOK_P_WHITESPACE, TOK_P_WS_SPLIT, TOK_P_SPLIT, TOK_P_SPLIT_RE,
    TOK_P_SCAN, TOK_P_PUNCT, TOK_P_DIGITS, TOK_P_SCRIPTS, TOK_P_FIXED
};

enum {                              /* split behaviours */
    TOK_B_REMOVED = 1, TOK_B_ISOLATED, TOK_B_PREVIOUS, TOK_B_NEXT,
    TOK_B_CONTIGUOUS
};

enum {                              /* known patterns */
    TOK_R_GPT2 = 1, TOK_R_CL100K, TOK_R_QWEN2, TOK_R_O200K, TOK_R_TEKKEN,
    TOK_R_DEEPSEEK3, TOK_R_GPT2_DIGITS, TOK_R_MAX
};

enum {                              /* post-processors */
    TOK_T_BYTE_LEVEL = 1, TOK_T_TEMPLATE, TOK_T_BERT, TOK_T_ROBERTA,
    TOK_T_PIECE_SEQ, TOK_T_PIECE_ID
};

enum { TOK_POST_TRIM = 1, TOK_POST_PREFIX = 2 };

enum {                              /* decoders */
    TOK_D_BYTE_LEVEL = 1, TOK_D_REPLACE, TOK_D_REPLACE_RE,
    TOK_D_BYTE_FALLBACK, TOK_D_FUSE, TOK_D_STRIP, TOK_D_WORDPIECE,
    TOK_D_CTC, TOK_D_BPE, TOK_D_METASPACE
};

/* How encode runs: 0 is the general pipeline, the others are shortcuts. */
enum {
    TOK_FAST_NONE, TOK_FAST_BYTES, TOK_FAST_SPM, TOK_FAST_WORDPIECE,
    TOK_FAST_UNIGRAM
};

/* How a text is put together from the bytes of its tokens. */
enum {
    TOK_J_GENERAL,                  /* the decoder program, token lists */
    TOK_J_CONCAT,                   /* first token differs, then concat */
    TOK_J_LOSSY,                    /* concat, then repair UTF-8 */
    TOK_J_RUNS,                     /* byte-fallback runs, fused */
    TOK_J_JOIN                      /* no decoder: joined by spaces */
};

typedef struct {
    uint64_t  magic;
    uint32_t  version;
    uint32_t  bytes_header;         /* sizeof: another build's layout */
    uint64_t  bytes;
    uint64_t  source_bytes;
    int64_t   source_mtime_ns;
    uint64_t  source_sum;
    uint64_t  sum;                  /* of everything after the header */

    struct {
        uint64_t  off;
        uint64_t  n;                /* elements */
    } sect[TOK_S_MAX];

    uint32_t  n_ids;
    uint32_t  model;
    uint32_t  bos, eos, pad, unk;
    uint32_t  bpe_flags;
    uint32_t  fast;
    uint32_t  join;
    uint32_t  join_dedup;           /* CTC: a repeated token counts once */
    uint32_t  n_local;              /* decoder steps worked out by id */
    uint32_t  scan;                 /* TOK_R_* of the byte-level shortcut */
    uint32_t  word_chars_max;       /* WordPiece */
    uint32_t  trie_inner;           /* its cell behind "##" */
    uint32_t  token_bytes_max;      /* longest in TOK_S_BYTES */
    uint32_t  dec_strip;            /* TOK_J_RUNS: spaces off the start */
    uint32_t  n_model;              /* ids of the model */
    uint32_t  trunc_max, trunc_stride, trunc_strategy, trunc_left;
    uint32_t  pad_on, pad_fixed, pad_multiple, pad_id, pad_type, pad_left;
    uint32_t  merges_log, hash_log, words_log, filter_log;
    uint32_t  first_raw[8], first_norm[8];  /* first bytes, as bitmaps */
    uint32_t  only_raw, only_norm;  /* the only first byte, or 256 */
    uint32_t  spm_flags;
    uint32_t  dec_strip_char;
    double    unk_score;
    tok_ref_t prefix, suffix;       /* BPE affixes, WordPiece prefix */
    tok_ref_t unk_token, chat;
} tok_image_t;

enum {                              /* bpe_flags */
    TOK_BPE_BYTE_FALLBACK = 1, TOK_BPE_FUSE_UNK = 2,
    TOK_BPE_IGNORE_MERGES = 4, TOK_BPE_HAS_UNK = 8, TOK_BPE_BYTE_MODE = 16,
    TOK_BPE_LOCAL = 32              /* no token crosses x|U+2581 */
};

typedef struct tok_re tok_re_t;     /* compiled patterns: tok_pattern.c */
typedef struct tok_made tok_made_t; /* tok_made.h */

enum {                              /* spm_flags */
    TOK_SPM_ALIGN = 1,              /* Metaspace "first" asks for offsets */
    TOK_SPM_PREPEND = 2,            /* texts get a space in front */
    TOK_SPM_LOWER = 4,              /* WordPiece: lower case */
    TOK_SPM_BREAKS = 8,             /* Unigram: \n and \t end words too */
    TOK_SPM_CHARS = 16,             /* WordPiece: characters change alone, */
    TOK_SPM_CHINESE = 32,           /* such are words, */
    TOK_SPM_MARKS = 64              /* form D, and marks away */
};

struct tok {
    const tok_image_t  *img;
    const uint8_t      *pool;
    const tok_ref_t    *tokens;
    const uint8_t      *flags;
    const tok_ref_t    *bytes, *first, *last;   /* first, last: or NULL */
    const uint64_t     *hash;
    const tok_merge_t  *merges;
    const tok_word_t   *words;
    const tok_pair_t   *pairs;      /* byte-level BPE, or NULL */
    const uint64_t     *filter, *sieve;
    const uint32_t     *byte_ids;
    const double       *scores;
    const tok_cell_t   *trie;
    const tok_added_t  *added;
    const tok_cell_t   *added_raw;
    const tok_cell_t   *added_norm;
    const tok_op_t     *norm, *pre, *post, *decode;
    const uint32_t     *eos_ids;
    const uint8_t      *charsmap;
    const uint64_t     *joins;
    const tok_made_t   *made;       /* or NULL: words are merged only */
    size_t              n_added, n_norm, n_pre, n_post, n_decode, n_eos;
    size_t              n_trie, n_raw, n_nrm, n_charsmap;
    uint32_t            hash_mask, merge_mask, word_mask, filter_mask;
    uint64_t            serial;     /* tells word caches apart */
    tok_re_t           *re;         /* one per op with a pattern */
    size_t              block_bytes;
    bool                mapped;
};


#endif /* TOK_INT_H */
