/*
 * Page tables, reference counts and the free list of the KV cache.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_kv.h"


int
eng_kv_init(eng_kv_t *kv, const eng_plan_t *plan, eng_err_t *err)
{
    void      *p;
    uint32_t   i, n = plan->limits.kv_pages, s = plan->limits.max_seqs;

    memset(kv, 0, sizeof(*kv));
    kv->plan = *plan;
    kv->pages_max = (plan->limits.ctx_len + KERN_KV_PAGE - 1) / KERN_KV_PAGE;

    /* Untouched pages cost nothing: the budget is a limit, not a need. */
    p = mmap(NULL, plan->kv_bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    kv->memory = p == MAP_FAILED ? NULL : p;
    if (kv->memory != NULL) {
        (void) madvise(p, plan->kv_bytes, MADV_HUGEPAGE);
    }
    kv->refs = calloc(n, sizeof(kv->refs[0]));
    kv->free_page = calloc(n, sizeof(kv->free_page[0]));
    kv->seq = calloc(s, sizeof(kv->seq[0]));
    kv->numbers = calloc((size_t) s * kv->pages_max, sizeof(kv->numbers[0]));
    kv->addresses = calloc((size_t) s * kv->pages_max,
                           sizeof(kv->addresses[0]));
    if (kv->memory == NULL || kv->refs == NULL || kv->free_page == NULL
        || kv->seq == NULL || kv->numbers == NULL || kv->addresses == NULL)
    {
        eng_kv_free(kv);
        return eng_fail(err, ENG_ENOMEM, "no memory for a KV cache of %llu "
                        "bytes", (unsigned long long) plan->kv_bytes);
    }

    for (i = 0; i < n; i++) {
        kv->free_page[i] = n - 1 - i;   /* page 0 is taken first */
    }
    kv->n_free = n;
    for (i = 0; i < s; i++) {
        kv->seq[i].page = kv->numbers + (size_t) i * kv->pages_max;
        kv->seq[i].address = kv->addresses + (size_t) i * kv->pages_max;
    }

    return 0;
}


void
eng_kv_free(eng_kv_t *kv)
{
    if (kv->memory != NULL) {
        (void) munmap(kv->memory, kv->plan.kv_bytes);
    }
    free(kv->refs);
    free(kv->free_page);
    free(kv->seq);
    free(kv->numbers);
    free(kv->addresses);
    memset(kv, 0, sizeof(*kv));
}


static eng_seq_t *
open_seq(const eng_kv_t *kv, uint32_t seq)
{
    eng_assert(seq < kv->plan.limits.max_seqs && kv->seq[seq].open);

    return &kv->seq[seq];
}


static uint8_t *
page_address(const eng_kv_t *kv, uint32_t page)
{
    eng_assert(page < kv->plan.limits.kv_pages);

    return kv->memory + (size_t) page * kv->plan.page_bytes;
}


static void
append_page(eng_kv_t *kv, eng_seq_t *s, uint32_t page)
{
    eng_assert(s->n_pages < kv->pages_max);

    s->page[s->n_pages] = page;
    s->address[s->n_pages] = page_address(kv, page);
    s->n_pages++;
}


static uint32_t
take_page(eng_kv_t *kv)
{
    uint32_t  page;

    eng_assert(kv->n_free > 0);
    page = kv->free_page[--kv->n_free];
    eng_assert(kv->refs[page] == 0);
    kv->refs[page] = 1;

    return page;
}


int
eng_kv_open(eng_kv_t *kv, uint32_t *seq)
{
    uint32_t  i;

    for (i = 0; i < kv->plan.limits.max_seqs; i++) {
        if (!kv->seq[i].open) {
            kv->seq[i].open = 1;
            kv->seq[i].length = 0;
            eng_assert(kv->seq[i].n_pages == 0);
            *seq = i;
            return 0;
        }
    }

    return ENG_ENOSEQ;
}


void
eng_kv_close(eng_kv_t *kv, uint32_t seq)
{
    eng_kv_trim(kv, seq, 0);
    kv->seq[seq].open = 0;
}


int
eng_kv_reserve(eng_kv_t *kv, uint32_t seq, uint32_t n)
{
    uint32_t    want;
    eng_seq_t  *s = open_seq(kv, seq);

    if (n > kv->plan.limits.ctx_len) {
        return ENG_ELIMIT;
    }
    want = (n + KERN_KV_PAGE - 1) / KERN_KV_PAGE;
    if (want > s->n_pages && want - s->n_pages > kv->n_free) {
        return ENG_ENOKV;
    }
    while (s->n_pages < want) {
        append_page(kv, s, take_page(kv));
    }

    return 0;
}


void
eng_kv_trim(eng_kv_t *kv, uint32_t seq, uint32_t n)
{
    uint32_t    keep = (n + KERN_KV_PAGE - 1) / KERN_KV_PAGE;
    eng_seq_t  *s = open_seq(kv, seq);

    while (s->n_pages > keep) {
        s->n_pages--;
        eng_kv_unref(kv, s->page[s->n_pages]);
    }
    if (s->length > n) {
        s->length = n;
    }
}


int
eng_kv_fork(eng_kv_t *kv, uint32_t dst, uint32_t src, uint32_t n)
{
    uint32_t    i, full = n / KERN_KV_PAGE, page;
    eng_seq_t  *d = open_seq(kv, dst), *s = open_seq(kv, src);

    if (dst == src || d->n_pages != 0 || n > s->length) {
        return ENG_EINVAL;
    }
    if (n % KERN_KV_PAGE != 0 && kv->n_free == 0) {
        return ENG_ENOKV;
    }

    for (i = 0; i < full; i++) {
        eng_kv_ref(kv, s->page[i]);
        append_page(kv, d, s->page[i]);
    }
    if (n % KERN_KV_PAGE != 0) {
        page = take_page(kv);
        memcpy(page_address(kv, page), s->address[full],
               kv->plan.page_bytes);
        append_page(kv, d, page);
    }
    d->length = n;

    return 0;
}


int
eng_kv_attach(eng_kv_t *kv, uint32_t seq, const uint32_t *pages, uint32_t n)
{
    uint32_t    i;
    eng_seq_t  *s = open_seq(kv, seq);

    if (s->n_pages != 0 || n > kv->pages_max
        || n > kv->plan.limits.ctx_len / KERN_KV_PAGE)
    {
        return ENG_EINVAL;
    }
    for (i = 0; i < n; i++) {
        eng_kv_ref(kv, pages[i]);
        append_page(kv, s, pages[i]);
    }
    s->length = n * KERN_KV_PAGE;

    return 0;
}


void
eng_kv_ref(eng_kv_t *kv, uint32_t page)
{
    eng_assert(page < kv->plan.limits.kv_pages);
    eng_assert(kv->refs[page] > 0 && kv->refs[page] < UINT32_MAX);
    kv->refs[page]++;
}


void
eng_kv_unref(eng_kv_t *kv, uint32_t page)
{
    eng_assert(page < kv->plan.limits.kv_pages);
    eng_assert(kv->refs[page] > 0);
    if (--kv->refs[page] == 0) {
        eng_assert(kv->n_free < kv->plan.limits.kv_pages);
        kv->free_page[kv->n_free++] = page;
    }
}


int
eng_kv_writable(const eng_kv_t *kv, uint32_t seq, uint32_t pos, uint32_t n)
{
    uint32_t          i, end;
    const eng_seq_t  *s;

    if (seq >= kv->plan.limits.max_seqs || !kv->seq[seq].open || n == 0) {
        return 0;
    }
    s = &kv->seq[seq];
    if (pos > s->length || n > s->n_pages * KERN_KV_PAGE - pos) {
        return 0;
    }

    end = (pos + n - 1) / KERN_KV_PAGE;
    for (i = pos / KERN_KV_PAGE; i <= end; i++) {
        if (kv->refs[s->page[i]] != 1) {
            return 0;
        }
    }

    return 1;
}
