/*
 * tok_json.h: a strict, bounded reader of JSON text in memory (RFC 8259),
 * without a tree and without recursion.  Values are found first
 * (tok_json_members) and read when their meaning is known.
 */

#ifndef TOK_JSON_H
#define TOK_JSON_H


#include "tokenizer/tok_int.h"


typedef struct {
    const uint8_t  *start, *p, *end;
    tok_vec_t       text;           /* a string with escapes, decoded */
    tok_vec_t       key;            /* the same of a member's key */
    const char     *name;           /* for messages */
    tok_err_t      *err;
} tok_json_t;

typedef struct {
    tok_str_t       key;            /* as written; empty if with escapes */
    const uint8_t  *escaped;        /* then its quote, else NULL */
    const uint8_t  *value;
} tok_member_t;

#define TOK_MEMBERS_MAX  64

typedef struct {
    tok_member_t  m[TOK_MEMBERS_MAX];
    size_t        n;
} tok_members_t;


/* text must be UTF-8 and is checked to be. */
int tok_json_init(tok_json_t *j, const char *text, size_t len,
    const char *name, tok_err_t *err);
void tok_json_free(tok_json_t *j);

/* A message with the line of where reading is. */
int tok_json_fail(tok_json_t *j, int code, const char *what);

/* The next character that is no white space, 0 at the end. */
uint8_t tok_json_peek(tok_json_t *j);

/* Skips one value, checking that it is well formed. */
int tok_json_skip(tok_json_t *j);

/*
 * The next member of an object that tok_json_open began: its key is put into
 * m, j stands at the value and the caller reads or skips it.  1; 0 behind the
 * last one.
 */
int tok_json_member(tok_json_t *j, tok_members_t *m, bool *first);

/* Reads an object; afterwards j stands behind it. */
int tok_json_members(tok_json_t *j, tok_members_t *m);

/* The value of a key: j stands at it and true, or false. */
bool tok_json_at(tok_json_t *j, const tok_members_t *m, const char *key);

/* '[' or '{': then next gives 1 for an element, 0 behind the last one. */
int tok_json_open(tok_json_t *j, uint8_t bracket);
int tok_json_next(tok_json_t *j, uint8_t bracket, bool *first);
int tok_json_colon(tok_json_t *j);

/* *s points into the text, or to j->text until the next string. */
int tok_json_string(tok_json_t *j, tok_str_t *s);
int tok_json_u32(tok_json_t *j, uint32_t *v);
int tok_json_double(tok_json_t *j, double *v);
int tok_json_bool(tok_json_t *j, bool *v);
bool tok_json_null(tok_json_t *j);      /* true: it was null, and is read */


/*
 * What stands between two strings of a large list (quotes, white space, commas,
 * brackets) is nearly always what stood between those before: then it means the
 * same and need not be read.
 */
#define TOK_GAP_MAX  32

typedef struct {
    uint8_t   text[TOK_GAP_MAX];
    uint32_t  len;                  /* 0: nothing known */
} tok_gap_t;

/* Bytes of the text that were read; from NULL, or too many: nothing known. */
void tok_json_gap_set(tok_gap_t *g, const uint8_t *from, const uint8_t *to);

/* Whether those bytes come next; then j stands behind them. */
bool tok_json_gap(tok_json_t *j, const tok_gap_t *g);

/* j stands behind the quote that begins a string: true if it has no escapes,
 * and j stands at the quote that ends it. */
bool tok_json_plain(tok_json_t *j, tok_str_t *s);


#endif /* TOK_JSON_H */
