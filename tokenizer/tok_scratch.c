/*
 * tok_scratch.c: the caller's working memory.
 */

#include "tokenizer/tok_core.h"
#include "tokenizer/tok_pattern.h"

#include <stdlib.h>
#include <sys/mman.h>


/*
 * Zeroed memory that costs nothing until it is touched.  Words lie all over
 * the caches, so that pages of 4 KB would cost a walk of the page tables for
 * most of them: huge pages, where the kernel has some.
 */
static void *
pages(size_t bytes)
{
    const size_t  huge = (size_t) 2 << 20;
    uintptr_t     at, end;
    uint8_t      *p;

    assert(bytes % huge == 0);
    p = mmap(NULL, bytes + huge, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        return NULL;
    }
    at = ((uintptr_t) p + huge - 1) & ~(huge - 1);
    end = (uintptr_t) p + bytes + huge;
    if (at > (uintptr_t) p) {
        (void) munmap(p, at - (uintptr_t) p);
    }
    if (end > at + bytes) {
        (void) munmap((void *) (at + bytes), end - at - bytes);
    }
    (void) madvise((void *) at, bytes, MADV_HUGEPAGE);
    return (void *) at;
}


tok_scratch_t *
tok_scratch_new(void)
{
    tok_scratch_t  *s = calloc(1, sizeof(*s));

    if (s == NULL) {
        return NULL;
    }
    s->shorts = pages(sizeof(tok_short_t) << TOK_CACHE_SHORT_LOG);
    s->longs = pages(sizeof(tok_long_t) << TOK_CACHE_LONG_LOG);
    s->match = tok_pattern_match_new();
    s->batch = tok_batch_new();
    if (s->shorts == NULL || s->longs == NULL || s->match == NULL
        || s->batch == NULL)
    {
        tok_scratch_free(s);
        return NULL;
    }
    return s;
}


void
tok_scratch_free(tok_scratch_t *s)
{
    tok_vec_t  *all[40];
    size_t      n = 0, i;

    if (s == NULL) {
        return;
    }
    all[n++] = &s->ids;
    all[n++] = &s->spans;
    all[n++] = &s->out_ids;
    all[n++] = &s->out_spans;
    all[n++] = &s->out_types;
    all[n++] = &s->out_special;
    all[n++] = &s->out_mask;
    all[n++] = &s->syms;
    all[n++] = &s->heap;
    all[n++] = &s->small;
    all[n++] = &s->pieces;
    all[n++] = &s->pieces2;
    all[n++] = &s->cuts;
    all[n++] = &s->norm.text;
    all[n++] = &s->norm.align;
    all[n++] = &s->norm2.text;
    all[n++] = &s->norm2.align;
    all[n++] = &s->cuts2;
    all[n++] = &s->path;
    all[n++] = &s->text;
    all[n++] = &s->text2;
    all[n++] = &s->refs;
    all[n++] = &s->refs2;
    all[n++] = &s->tmp1;
    all[n++] = &s->tmp2;
    all[n++] = &s->tmp3;
    all[n++] = &s->trims;
    all[n++] = &s->parts;
    all[n++] = &s->lower;
    all[n++] = &s->bounds;
    all[n++] = &s->dead;
    all[n++] = &s->jobs;
    assert(n <= sizeof(all) / sizeof(all[0]));
    for (i = 0; i < n; i++) {
        tok_vec_free(all[i]);
    }
    tok_pattern_match_free(s->match);
    free(s->batch);
    if (s->shorts != NULL) {
        (void) munmap(s->shorts, sizeof(tok_short_t) << TOK_CACHE_SHORT_LOG);
    }
    if (s->longs != NULL) {
        (void) munmap(s->longs, sizeof(tok_long_t) << TOK_CACHE_LONG_LOG);
    }
    free(s);
}


uint64_t
tok_scratch_grown(const tok_scratch_t *s)
{
    return s->grown;
}


int
tok_room(tok_scratch_t *s, tok_vec_t *v, size_t more, size_t size)
{
    size_t  before = v->bytes;
    int     rc;

    /* Texts are bounded, so the product cannot overflow. */
    if ((v->n + more) * size <= before) {
        return 0;
    }
    rc = tok_vec_room(v, more, size);
    s->grown += v->bytes != before;
    return rc;
}


/* The symbol of each ASCII character of a SentencePiece word. */
static void
ascii_symbols(const tok_t *t, tok_scratch_t *s)
{
    uint8_t  c;

    for (c = 0; c < 128; c++) {
        s->char_ids[c] = c == ' '
                         ? tok_model_find(t, (uint8_t *) "\xe2\x96\x81", 3)
                         : tok_model_find(t, &c, 1);
        if (s->char_ids[c] == TOK_NO_ID) {
            s->char_ids[c] = t->byte_ids[c];
        }
    }
}


/* The word cache holds ids of one vocabulary only. */
int
tok_scratch_adopt(tok_scratch_t *s, const tok_t *t)
{
    if (s->owner != t || s->serial != t->serial) {
        if (s->owner != NULL) {
            memset(s->shorts, 0, sizeof(tok_short_t) << TOK_CACHE_SHORT_LOG);
            memset(s->longs, 0, sizeof(tok_long_t) << TOK_CACHE_LONG_LOG);
        }
        memset(s->near, 0, sizeof(s->near));
        if (t->img->fast == TOK_FAST_SPM) {
            ascii_symbols(t, s);
        }
        s->owner = t;
        s->serial = t->serial;
    }
    s->bad_at = 0;
    return 0;
}
