/*
 * What one configuration needs to answer requests: tokenizer and engine, and
 * for models that generate the chat template, opened together and closed
 * together.  The file says which kind of model it is.
 *
 * Who may call: an inference worker (open), `--check` (check only).  Errors
 * are 0 or -1 with one line for people.
 */

#ifndef WRK_MODEL_H
#define WRK_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "tokenizer/tok.h"
#include "worker/chat/chat.h"
#include "worker/engine/eng.h"
#include "worker/wrk_conf.h"
#include "worker/wrk_eeng.h"


#define WRK_MODEL_ERR_MAX      768
#define WRK_MODEL_SUMMARY_MAX  512

typedef struct {
    tok_t            *tok;
    chat_template_t  *tmpl;
    eng_model_t      *model;            /* NULL: the null engine, encoders */
    eng_t             eng;
    int               has_eng;
    enc_model_t      *enc_model;        /* NULL: it is no encoder, or null */
    wrk_eeng_t        eeng;             /* ops NULL: it is no encoder */
    uint32_t          prompt_max;       /* text to text: tokens; else 0 */
    uint32_t          answer_max;
    uint64_t          kv_page_bytes;
    char              summary[WRK_MODEL_SUMMARY_MAX];   /* for the log */
} wrk_model_t;


/*
 * Opens all.  prepared_fd is the pool's memfd of packed weights (-1: none),
 * tok_image a file for the tokenizer's image where no cache folder is
 * configured (NULL: none); `worker` chooses this worker's part of the CPU
 * list.  settle (may be NULL) makes the process nice: it is called, maybe
 * twice, before anything long is done or a thread of the engine starts;
 * mapping what was prepared comes before it, so that a start on a busy
 * machine is quick.  On error nothing is left open.
 */
int wrk_model_open(wrk_model_t *m, const wrk_conf_t *conf, uint32_t worker,
    int prepared_fd, const char *tok_image,
    void (*settle)(const wrk_conf_t *conf), char err[WRK_MODEL_ERR_MAX]);
void wrk_model_close(wrk_model_t *m);

/* No work for a while: the engine's threads stop spinning. */
void wrk_model_park(wrk_model_t *m);
/* 1: kernels are used, so the instruction set matters. */
int wrk_model_computes(const wrk_model_t *m);

/*
 * Reads headers, tokenizer and template, no weights.  On success writes the
 * `key value` lines of --check into out.
 */
int wrk_model_check(const wrk_conf_t *conf, char *out, size_t cap,
    char err[WRK_MODEL_ERR_MAX]);


#endif /* WRK_MODEL_H */
