/*
 * Lists through members of what they hold, for the scheduler's requests: in
 * and out in constant time, no memory of their own, no failure.  One process
 * and one thread; an entry is in one list at most, and whoever frees it has
 * removed it.
 */

#ifndef WRK_LINK_H
#define WRK_LINK_H


/* Both ends of a list, or a member's place in it. */
typedef struct wrk_link_s  wrk_link_t;

struct wrk_link_s {
    wrk_link_t  *next, *prev;
};


/* An empty list; the others take a head that this has set up. */
static inline void
wrk_link_init(wrk_link_t *head)
{
    head->next = head;
    head->prev = head;
}


static inline int
wrk_link_empty(const wrk_link_t *head)
{
    return head->next == head;
}


static inline void
wrk_link_append(wrk_link_t *head, wrk_link_t *link)
{
    link->next = head;
    link->prev = head->prev;
    head->prev->next = link;
    head->prev = link;
}


static inline void
wrk_link_remove(wrk_link_t *link)
{
    link->next->prev = link->prev;
    link->prev->next = link->next;
}


#endif /* WRK_LINK_H */
