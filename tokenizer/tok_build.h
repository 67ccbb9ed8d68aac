/*
 * tok_build.h: collects what a file says and makes the image of it.  Used by
 * the readers of the formats; one builder per load, one thread.
 */

#ifndef TOK_BUILD_H
#define TOK_BUILD_H


#include "tokenizer/tok_int.h"


/* Merges whose tokens have not been looked up yet: tok_merges.c. */
#define TOK_WAITING_MAX    64
#define TOK_WAITING_BYTES  8192

typedef struct {
    uint64_t  l_hash, r_hash;
    uint32_t  left, right;
    uint32_t  at;                   /* of both parts in waiting_text */
    uint32_t  l_len, r_len;
} tok_build_waiting_t;

typedef struct {
    tok_vec_t     pool;             /* uint8_t */
    tok_vec_t     tokens;           /* tok_ref_t */
    tok_vec_t     flags;            /* uint8_t */
    tok_vec_t     bytes, first, last;           /* tok_ref_t */
    tok_vec_t     added_index;      /* uint32_t: 1 + number, by text */
    tok_vec_t     merges;           /* tok_merge_t, file order */
    size_t        n_table;          /* of them in the table */
    tok_vec_t     scores;           /* double */
    tok_vec_t     added;            /* tok_added_t */
    tok_vec_t     norm, pre, post, decode;      /* tok_op_t */
    tok_vec_t     eos;              /* uint32_t */
    tok_vec_t     charsmap;         /* uint8_t */
    tok_vec_t     table[TOK_S_MAX]; /* finished tables */
    uint64_t     *hash;             /* spelling to id while building */
    uint32_t      hash_log;
    bool          repeated;         /* a spelling is there twice */
    uint32_t      n_waiting;
    uint32_t      waiting_bytes;
    tok_build_waiting_t  waiting[TOK_WAITING_MAX];
    uint8_t       waiting_text[TOK_WAITING_BYTES];
    tok_image_t   h;
    char        **spare;            /* memory that may be the block, or NULL */
    size_t        spare_bytes;
    tok_err_t    *err;
} tok_build_t;


void tok_build_init(tok_build_t *b, tok_err_t *err);
void tok_build_free(tok_build_t *b);

int tok_build_string(tok_build_t *b, const char *p, size_t len,
    tok_ref_t *ref);
const uint8_t *tok_build_text(const tok_build_t *b, tok_ref_t ref);

/* About so many tokens, or merges, and bytes of text are to come: it is no
 * mistake if they do not. */
void tok_build_expect(tok_build_t *b, size_t tokens, size_t merges,
    size_t bytes);

/* Room for n ids, all unused. */
int tok_build_ids(tok_build_t *b, uint32_t n);

/* A token of the model; TOK_E_FORMAT if the id is taken. */
int tok_build_token(tok_build_t *b, uint32_t id, const char *p, size_t len);

/*
 * Indexes the tokens (call once all are there); then tok_build_find works.
 * unique: the same spelling twice is an error, else the first one counts.
 */
int tok_build_index(tok_build_t *b, bool unique);
uint32_t tok_build_find(const tok_build_t *b, const uint8_t *p, size_t len);

/*
 * A merge of two tokens, in the order of ranks; the bytes are copied.  What
 * is wrong with it may be told by a later call, tok_build_merges_end at last,
 * which must be called behind the last one.
 */
int tok_build_merge(tok_build_t *b, const uint8_t *l, size_t l_len,
    const uint8_t *r, size_t r_len);
int tok_build_merges_end(tok_build_t *b);
int tok_build_added(tok_build_t *b, uint32_t id, const char *p, size_t len,
    uint32_t flags);

/* The added token of this text, or NULL. */
tok_added_t *tok_build_added_find(const tok_build_t *b, const uint8_t *p,
    size_t len);
int tok_build_op(tok_build_t *b, tok_vec_t *list, const tok_op_t *op);

/* Collects the ids that end a generation; added tokens must be there. */
int tok_build_eos(tok_build_t *b);
int tok_build_eos_add(tok_build_t *b, uint32_t id);

/* Memory for a while, none else being lent and before the image is made; NULL:
 * there is none. */
void *tok_build_lend(tok_build_t *b, size_t bytes);

/* Makes the tables and the image; *t is the caller's. */
int tok_build_finish(tok_build_t *b, tok_t **t);


/* --- tok_trie.c --------------------------------------------------------- */

typedef struct {
    const uint8_t  *ptr;
    uint32_t        len;
    uint32_t        value;
    uint64_t        head;           /* set here: its first bytes, on top */
} tok_key_t;

/*
 * A double array of the n keys (sorted here, and there is room for as many
 * behind them); equal keys: the last counts.
 * made: NULL; or it gets the shorter ones of keys, whose values are ids, and
 * walkers have to know TOK_CELL_TAIL.
 */
int tok_trie_build(tok_vec_t *cells, tok_key_t *keys, size_t n,
    tok_made_t *made);


/* --- tok_tables.c ------------------------------------------------------- */

int tok_tables_bpe(tok_build_t *b);
void tok_tables_fast(tok_build_t *b);

/* tok_tables_made.c, with the merge table; and what tok_merge_find and
 * tok_stay_apart need while there is no vocabulary yet. */
int tok_tables_made(tok_build_t *b);
tok_t tok_tables_view(const tok_build_t *b);

/* tok_tables_whole.c: where the one before was. */
int tok_tables_back(tok_build_t *b);

/* tok_tables_pairs.c */
int tok_tables_words(tok_build_t *b);
int tok_tables_pairs(tok_build_t *b);

/* The merge table and its filter: of all merges; or empty for n of them, and
 * then one by one (TOK_E_LIMIT: its place is too crowded, without a message),
 * none of them twice. */
int tok_tables_merges(tok_build_t *b);
int tok_tables_merges_begin(tok_build_t *b, size_t n);
int tok_tables_merges_add(tok_build_t *b, const tok_merge_t *m);

int tok_tables_decode(tok_build_t *b);
int tok_tables_added(tok_build_t *b);
int tok_tables_trie(tok_build_t *b);
int tok_tables_bytes(tok_build_t *b);


/* --- tok_image.c -------------------------------------------------------- */

/* Bytes of one element of a section. */
size_t tok_sect_size(int sect);

/* Takes a block (malloc'ed, or mapped) and sets up a tok_t on it. */
int tok_bind(tok_t **t, void *block, size_t len, bool mapped,
    tok_err_t *err);


#endif /* TOK_BUILD_H */
