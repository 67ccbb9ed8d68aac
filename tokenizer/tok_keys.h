/*
 * tok_keys.h: the keys of the tables that the builder fills and encode
 * reads; both sides must agree on them.
 */

#ifndef TOK_KEYS_H
#define TOK_KEYS_H


#include "tokenizer/tok_int.h"


static inline uint64_t
tok_pair_hash(uint32_t a, uint32_t b)
{
    return ((uint64_t) a << 32 | b) * 0x9e3779b97f4a7c15ull;
}


/* Two bits of a word of the filter, from bits that do not choose the word. */
static inline uint64_t
tok_filter_bits(uint64_t h)
{
    return (uint64_t) 1 << (h >> 58) | (uint64_t) 1 << (h >> 52 & 63);
}


static inline uint32_t
tok_merge_slot(uint64_t key, uint32_t mask)
{
    return (uint32_t) ((key * 0x9e3779b97f4a7c15ull) >> 32) & mask;
}


/* Where the bit of bytes x, y, that some token has side by side, lies in
 * TOK_S_JOINS. */
#define TOK_JOINS_WORDS      1024
#define tok_joins_at(x, y)   ((size_t) (x) * 4 + ((y) >> 6))


/*
 * A word of up to TOK_WORD_BYTES bytes that is a token, key and id in one
 * load: bytes 0..7, then bytes 8..11 | length << 32 | id + 1 << 40, zero
 * padded.  A longer word has length 0, its id, and the upper half of its hash
 * in k0.  An empty place has k1 == 0.  A word lies in the first line of
 * TOK_WORD_LINE places, from that of its hash on, that had room for it.
 */
#define TOK_WORD_BYTES  12
#define TOK_WORD_KEY    0xffffffffffull
#define TOK_WORD_ID     40
#define TOK_WORD_LINE   4u          /* 64 bytes */

/* One word of TOK_S_SIEVE is for 1 << TOK_SIEVE_LOG places of TOK_S_WORDS. */
#define TOK_SIEVE_LOG   4

_Static_assert(TOK_IDS_MAX < 1u << 24, "an id fits into the rest of k1");


/* Key (without the id) and place of a word of 1 to 12 bytes. */
static inline tok_word_t
tok_word_short(uint64_t k0, uint32_t tail, size_t len, uint32_t *at)
{
    tok_word_t  w = { k0, tail | (uint64_t) len << 32 };

    *at = (uint32_t) (tok_mix(w.k0, w.k1) >> 32);
    return w;
}


/* Where the sieve has a word, and the two bits that say that it is a token;
 * at: that of its key.  Its lowest bits choose a place of a line. */
static inline uint32_t
tok_sieve_at(uint32_t at, uint32_t word_mask)
{
    return at / TOK_WORD_LINE & word_mask >> TOK_SIEVE_LOG;
}


static inline uint64_t
tok_sieve_bits(uint32_t at)
{
    return (uint64_t) 1 << (at >> 26) | (uint64_t) 1 << (at >> 20 & 63);
}


static inline tok_word_t
tok_word_key(const uint8_t *p, size_t len, uint32_t *at)
{
    uint64_t  h;

    if (len <= TOK_WORD_BYTES) {
        return tok_word_short(tok_load_part(p, len), len > 8
                              ? (uint32_t) tok_load_part(p + 8, len - 8) : 0,
                              len, at);
    }
    h = tok_hash_bytes(p, len);
    *at = (uint32_t) h;
    return (tok_word_t) { h >> 32, 0 };
}


#endif /* TOK_KEYS_H */
