/* Shares of keys and priorities; see wrk_fair.h. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "worker/wrk_fair.h"


#define wrk_link_key(l)   ((wrk_fair_key_t *) (l))
#define wrk_link_item(l)  ((wrk_fair_item_t *) (l))


int
wrk_fair_init(wrk_fair_t *f, uint32_t nitems)
{
    uint32_t  i;

    memset(f, 0, sizeof(*f));
    wrk_link_init(&f->free);
    wrk_link_init(&f->idle);

    for (i = 0; i < WRK_FAIR_BANDS; i++) {
        wrk_link_init(&f->bands[i].keys);
    }

    /* each item holds one key at most */
    f->nkeys = nitems + WRK_FAIR_IDLE;
    f->nhash = 1;

    while (f->nhash < f->nkeys) {
        f->nhash *= 2;
    }

    f->keys = calloc(f->nkeys, sizeof(*f->keys));
    f->hash = calloc(f->nhash, sizeof(*f->hash));

    if (f->keys == NULL || f->hash == NULL) {
        wrk_fair_destroy(f);
        return -1;
    }

    for (i = 0; i < f->nkeys; i++) {
        wrk_link_append(&f->free, &f->keys[i].link);
    }

    return 0;
}


void
wrk_fair_destroy(wrk_fair_t *f)
{
    free(f->keys);
    free(f->hash);
    f->keys = NULL;
    f->hash = NULL;
}


static wrk_fair_key_t **
wrk_fair_place(wrk_fair_t *f, uint64_t key, uint32_t band)
{
    uint64_t          h;
    wrk_fair_key_t  **at;

    /* keys are hashes with a secret already */
    h = key + band;

    for (at = &f->hash[h & (f->nhash - 1)]; *at != NULL; at = &(*at)->next) {
        if ((*at)->key == key && (*at)->band == band) {
            break;
        }
    }

    return at;
}


/* A key that is neither waiting nor running makes room: the one that has been
 * so for longest. */
static wrk_fair_key_t *
wrk_fair_new(wrk_fair_t *f)
{
    wrk_link_t       *link;
    wrk_fair_key_t   *k, **at;

    if (wrk_link_empty(&f->free)) {
        assert(!wrk_link_empty(&f->idle));
        k = wrk_link_key(f->idle.next);
        assert(k->held == 0);

        at = wrk_fair_place(f, k->key, k->band);
        assert(*at == k);
        *at = k->next;
        wrk_link_remove(&k->link);
        return k;
    }

    link = f->free.next;
    wrk_link_remove(link);

    return wrk_link_key(link);
}


static wrk_fair_key_t *
wrk_fair_find(wrk_fair_t *f, uint64_t key, uint32_t band)
{
    wrk_fair_key_t  *k, **at;

    k = *wrk_fair_place(f, key, band);

    if (k != NULL) {
        if (k->held == 0) {
            wrk_link_remove(&k->link);
        }

        return k;
    }

    k = wrk_fair_new(f);
    at = wrk_fair_place(f, key, band);
    memset(k, 0, sizeof(*k));
    wrk_link_init(&k->items);
    k->key = key;
    k->band = band;
    *at = k;

    return k;
}


void
wrk_fair_push(wrk_fair_t *f, wrk_fair_item_t *item, uint64_t key,
    int32_t priority, uint64_t now_ns)
{
    wrk_fair_key_t   *k;
    wrk_fair_band_t  *band;

    assert(priority >= SHR_PRIORITY_MIN && priority <= SHR_PRIORITY_MAX);
    assert(item->key == NULL);

    k = wrk_fair_find(f, key, (uint32_t) (priority - SHR_PRIORITY_MIN));
    band = &f->bands[k->band];

    if (wrk_link_empty(&band->keys)) {
        band->since_ns = now_ns;
    }

    if (wrk_link_empty(&k->items)) {
        wrk_link_append(&band->keys, &k->link);

        if (k->tokens < band->tokens) {
            k->tokens = band->tokens;
        }
    }

    wrk_link_append(&k->items, &item->link);
    k->held++;
    k->waiting++;
    item->key = k;
    item->waits = 1;
}


static wrk_fair_band_t *
wrk_fair_band(wrk_fair_t *f, uint64_t now_ns)
{
    uint64_t          rank, best;
    uint32_t          i;
    wrk_fair_band_t  *band, *found;

    found = NULL;
    best = 0;

    /* from above: of two that have got equal, the one that began higher */
    for (i = WRK_FAIR_BANDS; i > 0; i--) {
        band = &f->bands[i - 1];

        if (wrk_link_empty(&band->keys)) {
            continue;
        }

        rank = now_ns > band->since_ns
               ? (now_ns - band->since_ns) / WRK_FAIR_AGE_NS : 0;
        rank += i;

        if (rank > best) {
            best = rank;
            found = band;
        }
    }

    return found;
}


wrk_fair_item_t *
wrk_fair_next(wrk_fair_t *f, uint64_t now_ns)
{
    wrk_link_t       *link;
    wrk_fair_key_t   *least;
    wrk_fair_band_t  *band;

    band = wrk_fair_band(f, now_ns);

    if (band == NULL) {
        return NULL;
    }

    least = wrk_link_key(band->keys.next);

    for (link = least->link.next; link != &band->keys; link = link->next) {
        if (wrk_link_key(link)->tokens < least->tokens) {
            least = wrk_link_key(link);
        }
    }

    assert(!wrk_link_empty(&least->items));

    return wrk_link_item(least->items.next);
}


/* Its key waits only while one of its items does. */
static void
wrk_fair_unwait(wrk_fair_item_t *item)
{
    assert(item->key != NULL && item->waits);

    wrk_link_remove(&item->link);
    item->waits = 0;
    item->key->waiting--;

    if (wrk_link_empty(&item->key->items)) {
        wrk_link_remove(&item->key->link);
    }
}


void
wrk_fair_take(wrk_fair_t *f, wrk_fair_item_t *item, uint64_t now_ns)
{
    wrk_fair_band_t  *band;

    band = &f->bands[item->key->band];
    band->since_ns = now_ns;

    if (band->tokens < item->key->tokens) {
        band->tokens = item->key->tokens;
    }

    wrk_fair_unwait(item);
}


void
wrk_fair_leave(wrk_fair_t *f, wrk_fair_item_t *item)
{
    wrk_fair_key_t  *k;

    k = item->key;

    if (k == NULL) {
        return;
    }

    if (item->waits) {
        wrk_fair_unwait(item);
    }

    assert(k->held > 0);
    k->held--;
    item->key = NULL;

    if (k->held == 0) {
        wrk_link_append(&f->idle, &k->link);
    }
}


wrk_fair_item_t *
wrk_fair_yield(wrk_fair_t *f, uint64_t key, int32_t priority)
{
    uint32_t         i, own, most;
    wrk_link_t      *link, *keys;
    wrk_fair_key_t  *k, *found;

    own = (uint32_t) (priority - SHR_PRIORITY_MIN);

    for (i = 0; i < own && wrk_link_empty(&f->bands[i].keys); i++) {
        /* void */
    }

    most = 0;

    if (i == own) {
        k = *wrk_fair_place(f, key, own);
        most = k != NULL ? k->waiting + 1 : 1;
    }

    found = NULL;
    keys = &f->bands[i].keys;

    for (link = keys->next; link != keys; link = link->next) {
        if (wrk_link_key(link)->waiting > most) {
            found = wrk_link_key(link);
            most = found->waiting;
        }
    }

    return found != NULL ? wrk_link_item(found->items.prev) : NULL;
}


void
wrk_fair_charge(wrk_fair_item_t *item, uint32_t tokens)
{
    if (item->key != NULL) {
        item->key->tokens += tokens;
    }
}
