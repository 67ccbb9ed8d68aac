/*
 * KV pages: who holds which page of the key/value cache.  Counts and tables
 * only; the kernels know what is inside a page.
 *
 * A page holds page_tokens positions of one sequence for all layers.  Pages
 * have reference counts: a page that several sequences (or a prefix cache)
 * hold is read-only, which holds by itself as long as only full pages are
 * shared and nobody writes behind a sequence's length.
 */
#ifndef ENG_KV_H
#define ENG_KV_H

#include <stdint.h>

#include "worker/engine/eng_model.h"

#define ENG_NO_PAGE  UINT32_MAX

typedef struct {
    uint32_t         open;
    uint32_t         length;        /* positions computed                    */
    uint32_t         n_pages;
    uint32_t        *page;          /* [pages_max]: numbers                  */
    const uint8_t  **address;       /* [pages_max]: the same as addresses    */
} eng_seq_t;

typedef struct {
    eng_plan_t    plan;
    uint8_t      *memory;           /* kv_pages pages                        */
    uint32_t     *refs;             /* [kv_pages]                            */
    uint32_t     *free_page;        /* [kv_pages]: a stack                   */
    uint32_t      n_free;
    uint32_t      pages_max;        /* per sequence                          */
    eng_seq_t    *seq;              /* [max_seqs]                            */
    uint32_t     *numbers;          /* the tables of all sequences           */
    const uint8_t  **addresses;
} eng_kv_t;

/* Pages, tables and counts for what the plan says; ENG_ENOMEM. */
int eng_kv_init(eng_kv_t *kv, const eng_plan_t *plan, eng_err_t *err);
void eng_kv_free(eng_kv_t *kv);

/* As the functions of the same names in eng.h. */
int eng_kv_open(eng_kv_t *kv, uint32_t *seq);
void eng_kv_close(eng_kv_t *kv, uint32_t seq);
int eng_kv_reserve(eng_kv_t *kv, uint32_t seq, uint32_t n);
void eng_kv_trim(eng_kv_t *kv, uint32_t seq, uint32_t n);
int eng_kv_fork(eng_kv_t *kv, uint32_t dst, uint32_t src, uint32_t n);
int eng_kv_attach(eng_kv_t *kv, uint32_t seq, const uint32_t *pages,
    uint32_t n);
void eng_kv_ref(eng_kv_t *kv, uint32_t page);
void eng_kv_unref(eng_kv_t *kv, uint32_t page);

/* 1 when positions [pos, pos + n) may be written now. */
int eng_kv_writable(const eng_kv_t *kv, uint32_t seq, uint32_t pos,
    uint32_t n);

#endif
