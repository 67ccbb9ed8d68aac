/*
 * tok.h: the public contract of libinfer-tokenizer.
 *
 * Text to ids and back, equal to the reference implementation of the file's
 * format (Hugging Face tokenizers for tokenizer.json and for the vocabularies
 * that GGUF files carry).  The library needs libc and PCRE2 only, starts no
 * thread, keeps no global state and writes to no file unless tok_image_write
 * is called.
 *
 * Who may call what: a tok_t is read-only once opened; any number of threads
 * may use it at once, and processes may share one (by fork, or by mapping the
 * same prepared image).  A tok_scratch_t and a tok_stream_t belong to one
 * thread at a time.
 *
 * Errors: 0, or a negative TOK_E_* code.  Functions that take a tok_err_t
 * also leave a sentence for people in it: what, where, limit and value.
 */

#ifndef TOK_H
#define TOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define TOK_API  __attribute__((visibility("default")))
#else
#define TOK_API
#endif

enum {
    TOK_OK            =  0,
    TOK_E_IO          = -1,  /* a file cannot be opened, read, mapped */
    TOK_E_FORMAT      = -2,  /* damaged: not JSON, not GGUF, wrong types */
    TOK_E_UNSUPPORTED = -3,  /* well formed, but uses something unknown */
    TOK_E_LIMIT       = -4,  /* a named maximum of tok_limits.h is exceeded */
    TOK_E_NOMEM       = -5,
    TOK_E_UTF8        = -6,  /* the text is not valid UTF-8 */
    TOK_E_ARG         = -7,  /* an argument makes no sense (id out of range) */
    TOK_E_SPACE       = -8,  /* the caller's buffer is too small */
    TOK_E_MATCH       = -9,  /* a pattern of the file ran into its limit */
    TOK_E_UNK         = -10, /* text has no token and the file no unknown */
    TOK_E_STALE       = -11  /* image: made from another source or version */
};

#define TOK_ERR_MAX  256
#define TOK_NO_ID    UINT32_MAX

typedef struct tok          tok_t;
typedef struct tok_scratch  tok_scratch_t;

typedef struct {
    int   code;
    char  msg[TOK_ERR_MAX];         /* always ended by a NUL */
} tok_err_t;

/* A span of foreign or our own bytes; not ended by a NUL. */
typedef struct {
    const char  *ptr;
    size_t       len;
} tok_str_t;

/*
 * path: a tokenizer.json, a folder with one (and perhaps chat_template.jinja,
 * tokenizer_config.json, generation_config.json: its ids of ends), a .gguf
 * file, or a prepared image.  *t is the caller's; on error it is NULL.
 */
TOK_API int tok_open(tok_t **t, const char *path, tok_err_t *err);

/* The same from a tokenizer.json in memory (json may be freed after). */
TOK_API int tok_open_json(tok_t **t, const char *json, size_t len,
    tok_err_t *err);

/*
 * A vocabulary as a GGUF file carries it, given as plain arrays by a caller
 * that has read the file already.  Every pointer may be released after
 * tok_open_gguf.  Absent things: len 0, n 0, TOK_NO_ID, flag -1.
 */
typedef struct {
    tok_str_t         model;        /* tokenizer.ggml.model */
    tok_str_t         pre;          /* tokenizer.ggml.pre */
    const tok_str_t  *tokens;       /* tokenizer.ggml.tokens */
    uint32_t          n_tokens;
    const float      *scores;       /* n_tokens of them, or NULL */
    const int32_t    *types;        /* n_tokens of them, or NULL */
    const tok_str_t  *merges;       /* tokenizer.ggml.merges */
    uint32_t          n_merges;
    uint32_t          bos, eos, eot, eom, unk, sep, pad, cls, mask;
    int               add_bos, add_eos, add_sep;
    int               add_space_prefix, remove_extra_spaces;
    tok_str_t         charsmap;     /* precompiled_charsmap (t5) */
    tok_str_t         chat_template;
} tok_gguf_t;

/* Everything absent; set what the file has. */
TOK_API void tok_gguf_init(tok_gguf_t *g);
TOK_API int tok_open_gguf(tok_t **t, const tok_gguf_t *g, tok_err_t *err);

/* Frees what tok_open* made; nothing that it gave out may be used after. */
TOK_API void tok_close(tok_t *t);

/*
 * The prepared image: the loaded tables as one file, mapped read-only and
 * shared by whoever opens it.  It is a cache: tok_open_cached opens image if
 * it was made by this version of the library from source (size, time and
 * checksum of the header agree), else it opens source and rewrites the image
 * (to a temporary name, then renamed; a failure to write is no error).  A cut
 * file is refused, but it must not be cut while it is mapped. */
TOK_API int tok_image_write(const tok_t *t, const char *image, tok_err_t *err);
TOK_API int tok_open_cached(tok_t **t, const char *source, const char *image,
    tok_err_t *err);

/*
 * Memory of encode and decode: it grows while texts get longer and is then
 * never allocated again.  A scratch may be used with any tok_t, but a switch
 * of the tok_t empties its word cache.  NULL: no memory.
 */
TOK_API tok_scratch_t *tok_scratch_new(void);
TOK_API void tok_scratch_free(tok_scratch_t *s);

/* How often this scratch has asked for memory (for tests and metrics). */
TOK_API uint64_t tok_scratch_grown(const tok_scratch_t *s);

enum {
    TOK_ADD_SPECIAL   = 1 << 0, /* what the post-processor adds: bos, [CLS] */
    TOK_PARSE_SPECIAL = 1 << 1, /* text like "<|im_end|>" becomes that token;
                                   without the flag it is plain text.  Chat
                                   templates set it, users' text must not.
                                   Added tokens that are not special are
                                   always recognised. */
    TOK_OFFSETS       = 1 << 2, /* fill in offsets */
    TOK_TYPES         = 1 << 3, /* fill in type_ids, special and mask */
    TOK_NO_TRUNCATION = 1 << 4, /* leave out what the file asks for */
    TOK_NO_PADDING    = 1 << 5
};

typedef struct {
    uint32_t  begin;            /* in Unicode characters of the input text */
    uint32_t  end;
} tok_span_t;

/* All arrays lie in the scratch and stay valid until its next use.  offsets,
 * type_ids, special and mask are NULL unless asked for. */
typedef struct {
    const uint32_t    *ids;
    size_t             n;
    const tok_span_t  *offsets;
    const uint8_t     *type_ids;
    const uint8_t     *special; /* 1: added by the post-processor */
    const uint8_t     *mask;    /* 0: padding */
    size_t             bad_at;  /* TOK_E_UTF8: first bad byte of the text */
} tok_result_t;

/* One text.  TOK_E_UTF8, TOK_E_LIMIT, TOK_E_NOMEM, TOK_E_UNK, TOK_E_MATCH. */
TOK_API int tok_encode(const tok_t *t, tok_scratch_t *s, const char *text,
    size_t len, unsigned flags, tok_result_t *out);

/*
 * A rendered chat: as tok_encode with TOK_PARSE_SPECIAL, but the text of a
 * special token is plain text where any of its bytes lies in one of the
 * `plain` ranges (users' text; in bytes, ascending, without overlaps).  A
 * border of a range is no border of a token: without special text inside the
 * ranges the ids equal tok_encode's of the whole.
 */
typedef struct {
    uint32_t  begin;            /* in bytes of the text */
    uint32_t  end;
} tok_range_t;

/* Errors as tok_encode. */
TOK_API int tok_encode_chat(const tok_t *t, tok_scratch_t *s,
    const char *text, size_t len, const tok_range_t *plain, size_t n_plain,
    unsigned flags, tok_result_t *out);

/* A pair (query and document); offsets of b's tokens count in b. */
TOK_API int tok_encode_pair(const tok_t *t, tok_scratch_t *s, const char *a,
    size_t a_len, const char *b, size_t b_len, unsigned flags,
    tok_result_t *out);

enum { TOK_SKIP_SPECIAL = 1 << 0 };     /* no tokens marked special */

/* text lies in the scratch, valid until its next use; always valid UTF-8. */
TOK_API int tok_decode(const tok_t *t, tok_scratch_t *s, const uint32_t *ids,
    size_t n, unsigned flags, const char **text, size_t *len);

/*
 * Streaming: one state per sequence, plain bytes without pointers, may be
 * copied with =.  Feeding the ids of a sequence one by one and then flushing
 * gives the bytes of tok_decode of the whole; each piece is whole characters.
 * A run of byte-fallback tokens is held back until it ends, for its last byte
 * decides how it reads (at most TOK_STREAM_HOLD bytes: beyond that complete
 * characters are given out).
 */
#define TOK_STREAM_HOLD  120

typedef struct {
    uint32_t  flags;
    uint32_t  count;            /* tokens decoded so far */
    uint32_t  prev;             /* the token before */
    uint8_t   state;
    uint8_t   n_held;
    uint8_t   mark[2];
    uint8_t   held[TOK_STREAM_HOLD + 8];
} tok_stream_t;

/* Begins a sequence; flags: TOK_SKIP_SPECIAL. */
TOK_API void tok_stream_init(tok_stream_t *st, unsigned flags);

/* Room that one step or flush can need at most. */
TOK_API size_t tok_stream_room(const tok_t *t);
/* out: cap >= tok_stream_room(t), else TOK_E_SPACE.  *len may be 0. */
TOK_API int tok_stream_step(tok_stream_t *st, const tok_t *t, uint32_t id,
    char *out, size_t cap, size_t *len);
TOK_API int tok_stream_flush(tok_stream_t *st, const tok_t *t, char *out,
    size_t cap, size_t *len);

/* One more than the largest id; ids below it may be unused. */
TOK_API uint32_t tok_vocab_size(const tok_t *t);

/* The token as the file spells it ("Ġthe"); TOK_NO_ID if there is none. */
TOK_API uint32_t tok_token_to_id(const tok_t *t, const char *token,
    size_t len);
TOK_API tok_str_t tok_id_to_token(const tok_t *t, uint32_t id);

/* The bytes that the token stands for inside a text (" the"; a byte token
 * gives its byte, so this need not be valid UTF-8).  Returns TOK_E_SPACE with
 * *len set if cap is too small; tok_stream_room(t) is always enough. */
TOK_API int tok_id_to_bytes(const tok_t *t, uint32_t id, char *out,
    size_t cap, size_t *len);

/* Properties of ids and of the vocabulary. */
TOK_API bool tok_is_special(const tok_t *t, uint32_t id);
TOK_API uint32_t tok_bos(const tok_t *t);           /* or TOK_NO_ID */
TOK_API uint32_t tok_eos(const tok_t *t);
TOK_API uint32_t tok_pad(const tok_t *t);
TOK_API uint32_t tok_unk(const tok_t *t);

/* Every id that ends a generation: *n of them, sorted; eos is among them. */
TOK_API const uint32_t *tok_eos_all(const tok_t *t, size_t *n);

/* Empty if the file has none. */
TOK_API tok_str_t tok_chat_template(const tok_t *t);
/* "byte-level BPE", "WordPiece" ...: for logs. */
TOK_API const char *tok_kind(const tok_t *t);

/* Truncation that the file asks for, in tokens; 0: none. */
TOK_API size_t tok_max_length(const tok_t *t);

#endif /* TOK_H */
