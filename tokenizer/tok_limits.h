/*
 * tok_limits.h: every maximum of the tokenizer, in one place.  A file beyond
 * one of them is refused at load with a message that names the limit.
 */

#ifndef TOK_LIMITS_H
#define TOK_LIMITS_H


/* Files. */
#define TOK_FILE_BYTES_MAX      (1u << 30)      /* tokenizer.json, image */
#define TOK_CONFIG_BYTES_MAX    (16u << 20)     /* tokenizer_config.json */
#define TOK_JSON_DEPTH_MAX      64
#define TOK_GGUF_KEYS_MAX       (1u << 20)
#define TOK_GGUF_TENSORS_MAX    (1u << 20)
#define TOK_GGUF_STRING_MAX     (64u << 20)
#define TOK_PATH_BYTES_MAX      4096

/* Vocabularies. */
#define TOK_IDS_MAX             (1u << 22)      /* ids are below this */
#define TOK_TOKEN_BYTES_MAX     (1u << 16)
#define TOK_POOL_BYTES_MAX      (1u << 30)      /* all strings of a file */
#define TOK_MERGES_MAX          (1u << 23)
#define TOK_ADDED_MAX           (1u << 20)
#define TOK_PROBES_MAX          1024            /* in a hash half full: far
                                                   more than by chance */
#define TOK_EOS_MAX             256             /* each is compared with */
#define TOK_OPS_MAX             256             /* normalizers, decoders ... */
#define TOK_PATTERN_BYTES_MAX   (1u << 16)
#define TOK_PIECES_MAX          64              /* of one template */
#define TOK_AFFIX_BYTES_MAX     256
#define TOK_TEMPLATE_BYTES_MAX  (4u << 20)      /* chat template */
#define TOK_LENGTH_MAX          (1u << 22)      /* padding */

/* Texts. */
#define TOK_TEXT_BYTES_MAX      (1u << 28)      /* of one encode call */
#define TOK_NORM_BYTES_MAX      (1u << 30)      /* normalized text */
#define TOK_DECODE_IDS_MAX      (1u << 28)
#define TOK_MATCH_LIMIT         (1u << 22)      /* PCRE2, for one match */
#define TOK_MATCH_DEPTH         (1u << 16)

/* Words: up to this many symbols are merged by scanning, more by a heap. */
#define TOK_SCAN_SYMBOLS_MAX    48
#define TOK_WINDOW_SYMBOLS      512             /* of a heap, if that does */
#define TOK_BACK_STEPS          24              /* a byte, of tok_back.c */
#define TOK_ODD_SYMBOLS         512             /* of a token, or two of them,
                                                   that are merged to see */

/* Word cache of a scratch: entries (powers of two). */
#define TOK_CACHE_SHORT_LOG     16
#define TOK_CACHE_LONG_LOG      14


#endif /* TOK_LIMITS_H */
