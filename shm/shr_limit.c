/* Limits per key in shared memory; see shr_limit.h. */

#include "shm/shr_limit.h"

#include <assert.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>


#define SHR_LIMIT_TRIES    4u           /* a key moved under our feet */
#define SHR_LIMIT_SPINS    400u         /* for the lock, between two looks */
#define SHR_LIMIT_LOOKS    16u          /* whether its holder lives */
#define SHR_LIMIT_ONE      (1ull << 40) /* a request in a held word */
#define SHR_LIMIT_FAR_NS   (1ull << 62)
#define SHR_LIMIT_BURSTS   64u          /* of debt */

#define held_tokens(word)   ((word) & (SHR_LIMIT_ONE - 1))
#define held_running(word)  ((word) >> 40)


/* Then `held`, a word for each process. */
typedef struct {
    _Atomic uint64_t  key;              /* 0: free */
    _Atomic uint64_t  until_ns;         /* its rate is used up until then */
    _Atomic uint64_t  used_ns;          /* last request */
    uint64_t          pad;
    _Atomic uint64_t  held[];           /* requests << 40 | tokens */
} entry_t;

struct shr_limit_zone_s {
    uint32_t          nowners;
    uint32_t          nsets;            /* of SHR_LIMIT_WAYS entries */
    uint64_t          stride;           /* of an entry */
    _Atomic uint64_t  lock;             /* who holds it; 0: nobody */
    uint8_t           pad[40];
    _Atomic uint64_t  owner[];          /* processes; 0: free.  Then entries */
};


/* Who a process is: its pid and when it began, so that another one with the
 * same pid is somebody else.  0: it is dead. */
static uint64_t
limit_process(uint32_t pid)
{
    int          fd, i;
    char         path[32], text[512], *p;
    ssize_t      n;
    uint64_t     start;

    (void) snprintf(path, sizeof(path), "/proc/%u/stat", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return 0;
    }

    n = read(fd, text, sizeof(text) - 1);
    (void) close(fd);

    if (n <= 0) {
        return 0;
    }

    text[n] = '\0';
    p = strrchr(text, ')');             /* the name may hold anything */

    if (p == NULL || p[1] != ' ' || p[2] == 'Z' || p[2] == 'X') {
        return 0;
    }

    /* field 22, counted from 1; the name was the second */
    for (i = 2; i < 22 && p != NULL; i++) {
        p = strchr(p + 1, ' ');
    }

    for (start = 0; p != NULL && p[1] >= '0' && p[1] <= '9'; p++) {
        start = start * 10 + (uint64_t) (p[1] - '0');
    }

    return (uint64_t) pid << 32 | (uint32_t) start;
}


static int
limit_alive(uint64_t who)
{
    return limit_process((uint32_t) (who >> 32)) == who;
}


/*
 * Who holds a key says so in his word and looks at the key and at the words of
 * the others then; who gives a key up takes it away and looks at the words
 * then.  In one order for all, so one of two always sees the other.
 */
static void
limit_put(_Atomic uint64_t *word, uint64_t value)
{
    /* seq_cst; pairs with limit_get() in another process */
    atomic_store_explicit(word, value, memory_order_seq_cst);
}


static uint64_t
limit_get(const _Atomic uint64_t *word)
{
    /* seq_cst; pairs with limit_put() in another process */
    return atomic_load_explicit(word, memory_order_seq_cst);
}


static entry_t *
limit_entry(const shr_limit_zone_t *z, uint32_t i)
{
    return (entry_t *) ((uint8_t *) z->owner + z->nowners * sizeof(uint64_t)
                        + i * z->stride);
}


shr_limit_zone_t *
shr_limit_format(void *bytes, size_t size, uint32_t owners)
{
    size_t             head, stride, sets;
    shr_limit_zone_t  *z;

    head = sizeof(*z) + owners * sizeof(uint64_t);
    stride = sizeof(entry_t) + owners * sizeof(uint64_t);

    if (owners == 0 || owners > 4096
        || size < head + SHR_LIMIT_WAYS * stride)
    {
        return NULL;
    }

    sets = (size - head) / (SHR_LIMIT_WAYS * stride);
    z = bytes;
    memset(bytes, 0, size);
    z->nowners = owners;
    z->nsets = sets < (1u << 24) ? (uint32_t) sets : 1u << 24;
    z->stride = stride;

    return z;
}


/* --- the lock ----------------------------------------------------------- */

/* 0: it is ours.  The words that it guards are right at any moment, so the
 * lock of a dead process is simply taken over. */
static int
limit_lock(shr_limit_t *l)
{
    uint32_t           i, k;
    uint64_t           holder;
    shr_limit_zone_t  *z;

    z = l->zone;

    for (k = 0; k < SHR_LIMIT_LOOKS; k++) {
        for (i = 0; i < SHR_LIMIT_SPINS; i++) {
            holder = 0;

            /* acquire; pairs with the release in limit_unlock() */
            if (atomic_compare_exchange_strong_explicit(&z->lock, &holder,
                    l->self, memory_order_acquire, memory_order_relaxed))
            {
                return 0;
            }

            if (i % 16 == 15) {
                (void) sched_yield();
            }
        }

        /* acquire; the words of the dead are right as they are */
        if (!limit_alive(holder)
            && atomic_compare_exchange_strong_explicit(&z->lock, &holder,
                   l->self, memory_order_acquire, memory_order_relaxed))
        {
            return 0;
        }
    }

    return -1;
}


static void
limit_unlock(shr_limit_t *l)
{
    /* release; pairs with the acquire in limit_lock() */
    atomic_store_explicit(&l->zone->lock, 0, memory_order_release);
}


/* --- processes ---------------------------------------------------------- */

int
shr_limit_open(shr_limit_t *l, shr_limit_zone_t *zone)
{
    uint32_t  i;
    uint64_t  nobody;

    l->zone = zone;
    l->owner = -1;
    l->self = limit_process((uint32_t) getpid());

    if (l->self == 0) {
        l->self = (uint64_t) getpid() << 32 | 1;
        return -1;
    }

    (void) shr_limit_reap(l);

    for (i = 0; i < zone->nowners; i++) {
        nobody = 0;

        /* acquire; pairs with the release in shr_limit_reap(): the column is
           clear */
        if (atomic_compare_exchange_strong_explicit(&zone->owner[i], &nobody,
                l->self, memory_order_acquire, memory_order_relaxed))
        {
            l->owner = (int) i;
            return 0;
        }
    }

    return -1;
}


/* Everything that a process had reserved comes back. */
static void
limit_clear(shr_limit_zone_t *z, uint32_t owner)
{
    uint32_t  i;

    for (i = 0; i < z->nsets * SHR_LIMIT_WAYS; i++) {
        atomic_store_explicit(&limit_entry(z, i)->held[owner], 0,
                              memory_order_relaxed);
    }
}


void
shr_limit_close(shr_limit_t *l)
{
    if (l->owner >= 0) {
        limit_clear(l->zone, (uint32_t) l->owner);
        /* release; pairs with the acquire in shr_limit_open() */
        atomic_store_explicit(&l->zone->owner[l->owner], 0,
                              memory_order_release);
        l->owner = -1;
    }
}


uint32_t
shr_limit_reap(shr_limit_t *l)
{
    uint32_t           i, n;
    uint64_t           who;
    shr_limit_zone_t  *z;

    z = l->zone;

    for (i = 0, n = 0; i < z->nowners; i++) {
        who = atomic_load_explicit(&z->owner[i], memory_order_relaxed);

        if (who == 0 || who == l->self || limit_alive(who)
            || limit_lock(l) != 0)
        {
            continue;
        }

        /* once only: another one may have begun to use it */
        if (atomic_load_explicit(&z->owner[i], memory_order_relaxed) == who) {
            limit_clear(z, i);
            n++;
            /* release; pairs with the acquire in shr_limit_open() */
            atomic_store_explicit(&z->owner[i], 0, memory_order_release);
        }

        limit_unlock(l);
    }

    return n;
}


/* --- keys --------------------------------------------------------------- */

static uint64_t
limit_held(const shr_limit_zone_t *z, entry_t *e)
{
    uint32_t  i;
    uint64_t  sum;

    for (i = 0, sum = 0; i < z->nowners; i++) {
        sum += limit_get(&e->held[i]);
    }

    return sum;
}


static uint32_t
limit_set(const shr_limit_zone_t *z, uint64_t key)
{
    return (uint32_t) (key % z->nsets) * SHR_LIMIT_WAYS;
}


/* The place of a key, or -1. */
static int64_t
limit_find(const shr_limit_zone_t *z, uint64_t key)
{
    uint32_t  i, set;

    set = limit_set(z, key);

    for (i = set; i < set + SHR_LIMIT_WAYS; i++) {
        /* acquire; pairs with the release in limit_enter() */
        if (atomic_load_explicit(&limit_entry(z, i)->key,
                                 memory_order_acquire) == key)
        {
            return i;
        }
    }

    return -1;
}


/* The place that is given up for a new key: a free one, else one that owes
 * nothing, else the one not used for longest; -1: all of them are in use. */
static int64_t
limit_victim(const shr_limit_zone_t *z, uint32_t set, uint64_t now_ns)
{
    int64_t   found;
    uint32_t  i;
    uint64_t  rank, best;
    entry_t  *e;

    found = -1;
    best = UINT64_MAX;

    for (i = set; i < set + SHR_LIMIT_WAYS; i++) {
        e = limit_entry(z, i);

        if (atomic_load_explicit(&e->key, memory_order_relaxed) == 0
            && limit_held(z, e) == 0)
        {
            return i;
        }

        rank = atomic_load_explicit(&e->used_ns, memory_order_relaxed) / 2;

        if (atomic_load_explicit(&e->until_ns, memory_order_relaxed)
            > now_ns)
        {
            rank += UINT64_MAX / 2;
        }

        if (rank < best && limit_held(z, e) == 0) {
            best = rank;
            found = i;
        }
    }

    return found;
}


/* A place for a key that has none. */
static int64_t
limit_enter(shr_limit_t *l, uint64_t key, uint64_t now_ns)
{
    int64_t    i;
    uint64_t   old;
    uint32_t   n;
    entry_t   *e;

    if (limit_lock(l) != 0) {
        return -1;
    }

    i = limit_find(l->zone, key);

    for (n = 0; i < 0 && n < SHR_LIMIT_TRIES; n++) {
        i = limit_victim(l->zone, limit_set(l->zone, key), now_ns);

        if (i < 0) {
            break;
        }

        e = limit_entry(l->zone, (uint32_t) i);
        old = atomic_load_explicit(&e->key, memory_order_relaxed);
        limit_put(&e->key, 0);

        if (limit_held(l->zone, e) != 0) {
            limit_put(&e->key, old);
            i = -1;
            continue;
        }

        atomic_store_explicit(&e->until_ns, 0, memory_order_relaxed);
        atomic_store_explicit(&e->used_ns, now_ns, memory_order_relaxed);
        /* release; pairs with the acquire in limit_find() */
        atomic_store_explicit(&e->key, key, memory_order_release);
    }

    limit_unlock(l);

    return i;
}


/* --- reserve and settle ------------------------------------------------- */

/* How long the rate needs for so many tokens. */
static uint64_t
limit_ns(const shr_limit_rate_t *rate, uint64_t tokens)
{
    unsigned __int128  ns;

    if (rate->tokens == 0) {
        return 0;
    }

    ns = (unsigned __int128) tokens * rate->period_ns / rate->tokens;

    return ns < SHR_LIMIT_FAR_NS ? (uint64_t) ns : SHR_LIMIT_FAR_NS;
}


static uint64_t
limit_tokens(const shr_limit_rate_t *rate, uint64_t ns)
{
    return (uint64_t) ((unsigned __int128) ns * rate->tokens
                       / rate->period_ns);
}


/* Uses up so many tokens. */
static void
limit_charge(entry_t *e, const shr_limit_rate_t *rate, uint64_t tokens,
    uint64_t now_ns)
{
    uint64_t  until, next;

    if (rate->tokens == 0 || tokens == 0) {
        return;
    }

    until = atomic_load_explicit(&e->until_ns, memory_order_relaxed);

    do {
        next = (until > now_ns ? until : now_ns) + limit_ns(rate, tokens);
        next = next - now_ns < SHR_LIMIT_FAR_NS ? next
                                                : now_ns + SHR_LIMIT_FAR_NS;
        /* relaxed; the word says all */
    } while (!atomic_compare_exchange_weak_explicit(&e->until_ns, &until,
                 next, memory_order_relaxed, memory_order_relaxed));
}


/* Until when the key has used its rate up.  A debt of many bursts is one of
 * another rate, before a reload: it must not last for the days that it was. */
static uint64_t
limit_until(entry_t *e, const shr_limit_rate_t *rate, uint64_t now_ns)
{
    uint64_t  until, most;

    until = limit_get(&e->until_ns);
    most = limit_ns(rate, SHR_LIMIT_BURSTS * rate->burst);

    if (rate->tokens != 0 && until > now_ns && until - now_ns > most
        /* relaxed; the word says all, and who fails has another's newer one */
        && atomic_compare_exchange_strong_explicit(&e->until_ns, &until,
               now_ns + most, memory_order_relaxed, memory_order_relaxed))
    {
        until = now_ns + most;
    }

    return until;
}


static shr_limit_verdict_t
limit_judge(const shr_limit_rate_t *rate, uint64_t held, uint64_t until_ns,
    uint64_t now_ns, shr_limit_state_t *state)
{
    uint64_t  used, burst;

    memset(state, 0, sizeof(*state));
    state->running = (uint32_t) held_running(held);

    if (rate->tokens != 0) {
        burst = limit_ns(rate, rate->burst);
        used = until_ns > now_ns ? until_ns - now_ns : 0;
        state->reset_ns = used + limit_ns(rate, held_tokens(held));

        if (state->reset_ns > burst) {
            state->wait_ns = state->reset_ns - burst;
            return SHR_LIMIT_TOKENS;
        }

        state->remaining = limit_tokens(rate, burst - state->reset_ns);
    }

    return rate->running != 0 && state->running > rate->running
           ? SHR_LIMIT_RUNNING : SHR_LIMIT_PASS;
}


/* Its own word of a key; -1: the key was given up meanwhile. */
static int
limit_hold(shr_limit_t *l, entry_t *e, uint64_t key, uint64_t word)
{
    limit_put(&e->held[l->owner], word);

    return limit_get(&e->key) == key ? 0 : -1;
}


/* Without a column of its own: what passes is used up. */
static shr_limit_verdict_t
limit_spend(shr_limit_t *l, entry_t *e, const shr_limit_rate_t *rate,
    uint32_t tokens, uint64_t now_ns, shr_limit_state_t *state)
{
    shr_limit_verdict_t  verdict;

    verdict = limit_judge(rate, limit_held(l->zone, e) + tokens,
                          limit_until(e, rate, now_ns), now_ns, state);

    if (verdict == SHR_LIMIT_PASS) {
        limit_charge(e, rate, tokens, now_ns);
    }

    return verdict;
}


shr_limit_verdict_t
shr_limit_reserve(shr_limit_t *l, const shr_limit_rate_t *rate, uint64_t key,
    uint32_t tokens, uint64_t now_ns, shr_limit_hold_t *hold,
    shr_limit_state_t *state)
{
    int64_t              i;
    entry_t             *e;
    uint32_t             n;
    uint64_t             before;
    shr_limit_verdict_t  verdict;

    assert(key != 0);
    memset(state, 0, sizeof(*state));

    if (rate->tokens != 0 && tokens > rate->burst) {
        return SHR_LIMIT_NEVER;
    }

    for (n = 0; n < SHR_LIMIT_TRIES; n++) {
        i = limit_find(l->zone, key);
        i = i >= 0 ? i : limit_enter(l, key, now_ns);

        if (i < 0) {
            return SHR_LIMIT_NO_PLACE;
        }

        e = limit_entry(l->zone, (uint32_t) i);

        if (l->owner < 0) {
            return limit_spend(l, e, rate, tokens, now_ns, state);
        }

        before = atomic_load_explicit(&e->held[l->owner],
                                      memory_order_relaxed);

        if (limit_hold(l, e, key, before + SHR_LIMIT_ONE + tokens) != 0) {
            limit_put(&e->held[l->owner], before);
            continue;
        }

        verdict = limit_judge(rate, limit_held(l->zone, e),
                              limit_until(e, rate, now_ns), now_ns, state);

        if (verdict != SHR_LIMIT_PASS) {
            limit_put(&e->held[l->owner], before);
            return verdict;
        }

        atomic_store_explicit(&e->used_ns, now_ns, memory_order_relaxed);
        hold->key = key;
        hold->entry = (uint32_t) i;
        hold->tokens = tokens;
        hold->held = 1;

        return SHR_LIMIT_PASS;
    }

    return SHR_LIMIT_NO_PLACE;
}


void
shr_limit_settle(shr_limit_t *l, const shr_limit_rate_t *rate,
    shr_limit_hold_t *hold, uint64_t used, uint64_t now_ns)
{
    entry_t   *e;
    uint64_t   word, key;

    if (!hold->held) {
        return;
    }

    assert(l->owner >= 0 && hold->entry < l->zone->nsets * SHR_LIMIT_WAYS);

    hold->held = 0;
    e = limit_entry(l->zone, hold->entry);

    /* used before it is no longer held: never counted as neither.  The key of
       a place that is held stays, but limit_enter() may just be looking, and
       who is killed there leaves a place without a key. */
    key = limit_get(&e->key);

    if (key == hold->key || key == 0) {
        limit_charge(e, rate, used, now_ns);
    }

    word = atomic_load_explicit(&e->held[l->owner], memory_order_relaxed);
    assert(word >= SHR_LIMIT_ONE + hold->tokens);
    limit_put(&e->held[l->owner], word - SHR_LIMIT_ONE - hold->tokens);
}


void
shr_limit_count(shr_limit_t *l, uint64_t *keys, uint64_t *tokens,
    uint64_t *running)
{
    uint32_t  i;
    uint64_t  held;
    entry_t  *e;

    *keys = 0;
    *tokens = 0;
    *running = 0;

    for (i = 0; i < l->zone->nsets * SHR_LIMIT_WAYS; i++) {
        e = limit_entry(l->zone, i);
        held = limit_held(l->zone, e);
        *keys += atomic_load_explicit(&e->key, memory_order_relaxed) != 0;
        *tokens += held_tokens(held);
        *running += held_running(held);
    }
}
