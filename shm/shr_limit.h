/*
 * Limits of tokens per time and of requests at once, for many keys, in memory
 * that several processes share: a table that works without waiting and stays
 * right when a process is killed at any instruction.
 *
 * Tokens are reserved before they are computed and settled afterwards.  A key
 * has a time until which it has used its rate up (a leaky bucket in one word,
 * as in the generic cell rate algorithm of ITU-T I.371), and for each process
 * one word with what that process holds of it: only that process writes the
 * word, and whoever finds it dead clears its words, so that what it had
 * reserved comes back.  A lock is only taken to enter a new key and to clear
 * a dead process' words; both may be broken off anywhere, and the lock of a
 * dead holder is taken over.
 *
 * Bytes of the zone are trusted as far as nginx's own processes are.
 */

#ifndef SHR_LIMIT_H
#define SHR_LIMIT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>


#define SHR_LIMIT_WAYS        8u        /* places that a key may be in */
#define SHR_LIMIT_OWNERS      28u       /* processes: 256 bytes for each key */
#define SHR_LIMIT_TOKENS_MAX  UINT32_MAX
#define SHR_LIMIT_BURST_MAX   (1u << 30)


typedef struct {
    uint64_t  tokens;                   /* in each period; 0: no limit */
    uint64_t  period_ns;                /* up to a day */
    uint64_t  burst;                    /* tokens at once; >= 1 with a rate */
    uint32_t  running;                  /* requests at once; 0: no limit */
} shr_limit_rate_t;

typedef enum {
    SHR_LIMIT_PASS = 0,
    SHR_LIMIT_TOKENS,                   /* too many; wait_ns says when */
    SHR_LIMIT_RUNNING,                  /* too many requests at once */
    SHR_LIMIT_NEVER,                    /* more tokens than the burst */
    SHR_LIMIT_NO_PLACE                  /* the table is full of keys in use */
} shr_limit_verdict_t;

/* How a key stands, its new request included if that passed. */
typedef struct {
    uint64_t  remaining;                /* tokens that can be had now */
    uint64_t  reset_ns;                 /* until all of the burst is there */
    uint64_t  wait_ns;                  /* until the refused would pass, if
                                           those that run use all they hold */
    uint32_t  running;                  /* requests */
} shr_limit_state_t;

/* What a request holds; all 0: nothing. */
typedef struct {
    uint64_t  key;
    uint32_t  entry;
    uint32_t  tokens;
    uint32_t  held;                     /* 1: to be settled */
} shr_limit_hold_t;

typedef struct shr_limit_zone_s  shr_limit_zone_t;

/* A process' view of a zone. */
typedef struct {
    shr_limit_zone_t  *zone;
    uint64_t           self;            /* this process */
    int                owner;           /* its column; -1: none was left */
} shr_limit_t;


/* Bytes become an empty table, in place: nobody else may use it yet.  NULL:
 * too few of them.  `owners` processes may hold something at a time. */
shr_limit_zone_t *shr_limit_format(void *bytes, size_t size, uint32_t owners);
/* This process takes part.  -1 (and owner is -1): no column is free; it can
 * take part all the same, but what it reserves is used up and its requests at
 * once are not counted. */
int shr_limit_open(shr_limit_t *l, shr_limit_zone_t *zone);
/* It leaves; all it held was settled. */
void shr_limit_close(shr_limit_t *l);

/* Reserves for a key (not 0); the hold is filled when it passes.  Two that
 * come at the same time may both be refused, never both pass where only one
 * may. */
shr_limit_verdict_t shr_limit_reserve(shr_limit_t *l,
    const shr_limit_rate_t *rate, uint64_t key, uint32_t tokens,
    uint64_t now_ns, shr_limit_hold_t *hold, shr_limit_state_t *state);
/* Instead of what was reserved this many tokens were used.  Once for each
 * hold; more often does nothing. */
void shr_limit_settle(shr_limit_t *l, const shr_limit_rate_t *rate,
    shr_limit_hold_t *hold, uint64_t used, uint64_t now_ns);

/* Returns what dead processes held; the number of them.  Cheap; to be called
 * now and then by somebody. */
uint32_t shr_limit_reap(shr_limit_t *l);

/* Keys in the table, tokens and requests that are held; for tests and people,
 * it reads all of the table. */
void shr_limit_count(shr_limit_t *l, uint64_t *keys, uint64_t *tokens,
    uint64_t *running);


#endif /* SHR_LIMIT_H */
