/*
 * Stop strings: several patterns matched over a text that comes in pieces
 * (Knuth, Morris, Pratt: one automaton per string, at most
 * WRK_STOP_STRINGS_MAX of them).  Says how many of the last bytes could be the
 * beginning of a stop string and so must be held back.
 *
 * A set belongs to a request and is read-only; a state belongs to a sequence.
 */

#ifndef WRK_STOP_H
#define WRK_STOP_H

#include <stddef.h>
#include <stdint.h>


#define WRK_STOP_STRINGS_MAX  16u
#define WRK_STOP_BYTES_MAX    256u      /* of one string */


typedef struct {
    uint32_t        n;
    uint32_t        used;               /* bytes of all strings */
    uint16_t        at[WRK_STOP_STRINGS_MAX];
    uint16_t        len[WRK_STOP_STRINGS_MAX];
    uint8_t        *bytes;              /* the caller's memory */
    uint8_t        *fail;               /* border lengths, < 256 */
} wrk_stop_set_t;

typedef struct {
    uint16_t  pos[WRK_STOP_STRINGS_MAX];
} wrk_stop_state_t;


/* Memory that a set of strings with `total` bytes needs. */
size_t wrk_stop_memory(size_t total);

/* An empty set in mem, which outlives it. */
void wrk_stop_init(wrk_stop_set_t *set, void *mem, size_t total);

/* Adds a string of 1..WRK_STOP_BYTES_MAX bytes; at most
 * WRK_STOP_STRINGS_MAX, and no more bytes than announced. */
void wrk_stop_add(wrk_stop_set_t *set, const void *text, size_t len);

/* The state before the first byte of a text. */
void wrk_stop_start(wrk_stop_state_t *state);

/*
 * Feeds the next bytes.  0: no string has ended in them.  Else the length of
 * the string that ended first (the longest of those that end there), and *end
 * bytes of text were fed, its last byte included.
 */
size_t wrk_stop_feed(const wrk_stop_set_t *set, wrk_stop_state_t *state,
    const void *text, size_t len, size_t *end);

/* How many of the last bytes fed may be a string's beginning. */
size_t wrk_stop_hold(const wrk_stop_set_t *set,
    const wrk_stop_state_t *state);


#endif /* WRK_STOP_H */
