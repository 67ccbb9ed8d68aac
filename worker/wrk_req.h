/*
 * A neutral request (shm/shr_msg.h) as the scheduler needs it: fields and
 * records checked once more with their limits, prompts turned into tokens.
 *
 * Two steps: wrk_req_decode() looks at numbers and records only;
 * wrk_enc_prompts() renders the chat template and tokenizes.  Neither keeps
 * the block; a wrk_req_t points into it.  Called by the loop thread of an
 * inference worker and by tests.
 */

#ifndef WRK_REQ_H
#define WRK_REQ_H

#include <stddef.h>
#include <stdint.h>

#include "shm/shr_msg.h"
#include "tokenizer/tok.h"
#include "worker/chat/chat.h"


#define WRK_REQ_STOP_IDS_MAX   64u
#define WRK_REQ_BIAS_MAX       1024u
#define WRK_REQ_ID_MAX         128u
#define WRK_REQ_PARAM_MAX      96u      /* with the NUL */
#define WRK_REQ_TEXT_MAX       512u     /* with the NUL */


typedef struct {
    shr_error_code_t  code;
    char              param[WRK_REQ_PARAM_MAX];
    char              text[WRK_REQ_TEXT_MAX];
} wrk_req_error_t;

typedef struct {
    const char  *data;                  /* NULL: absent */
    size_t       len;
} wrk_bytes_t;

typedef struct {
    shr_req_t          fixed;
    wrk_bytes_t        messages, tools, args, id;
    uint32_t           nprompts;
    uint32_t           prompt_type;     /* SHR_R_PROMPT or SHR_R_PROMPT_IDS */
    wrk_bytes_t        prompts[SHR_CHOICES_MAX];
    uint32_t           nstops;
    uint32_t           stop_bytes;
    wrk_bytes_t        stops[16];
    uint32_t           nstop_ids;
    const uint32_t    *stop_ids;
    uint32_t           nbias;
    const shr_bias_t  *bias;
} wrk_req_t;


/*
 * Decodes a block that passed shr_req_check(), 8-aligned.  vocab: ids must be
 * below.  0, or -1 with err filled.
 */
int wrk_req_decode(wrk_req_t *r, const void *buf, size_t len, uint32_t vocab,
    wrk_req_error_t *err);

/* Fills err; text is a format.  Returns -1. */
int wrk_req_fail(wrk_req_error_t *err, shr_error_code_t code,
    const char *param, const char *text, ...)
    __attribute__((format(printf, 4, 5)));


typedef struct wrk_enc_s  wrk_enc_t;

/* The tokens of all prompts in a row, in the encoder's memory until its next
 * use; prompt i is ids[at[i]] up to ids[at[i + 1]]. */
typedef struct {
    uint32_t           n;
    size_t             at[SHR_CHOICES_MAX + 1];
    const uint32_t    *ids;
    const tok_span_t  *offsets;         /* one prompt, SHR_REQ_OFFSETS only */
} wrk_prompts_t;

/*
 * tok and tmpl (or NULL) stay the caller's.  bytes_max: of a request.  Takes
 * all its memory (untouched pages cost nothing).  NULL: no memory.
 */
wrk_enc_t *wrk_enc_create(const tok_t *tok, const chat_template_t *tmpl,
    size_t bytes_max);
void wrk_enc_destroy(wrk_enc_t *enc);

/*
 * Tokenizes the prompts of a request.  A chat's special tokens are recognised
 * in the template's text only; a prompt of completions is the model's raw
 * input, special tokens included.  0, or -1 with err filled.
 */
int wrk_enc_prompts(wrk_enc_t *enc, const wrk_req_t *r, wrk_prompts_t *out,
    wrk_req_error_t *err);

/* The texts of all prompts of ids in a row, in the encoder's memory until its
 * next use; text i is (*text)[at[i]] up to (*text)[at[i + 1]]. */
int wrk_enc_texts(wrk_enc_t *enc, const wrk_req_t *r, wrk_prompts_t *out,
    const char **text, wrk_req_error_t *err);


#endif /* WRK_REQ_H */
