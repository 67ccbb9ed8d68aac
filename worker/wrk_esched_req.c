/*
 * From a request's block to the tokens of its inputs.  The block comes from
 * another process: numbers and records are checked here once more, whatever
 * the module did.
 */

#include <assert.h>
#include <string.h>

#include "worker/wrk_esched_int.h"


#define WRK_EIN_FLAGS  (TOK_ADD_SPECIAL | TOK_NO_TRUNCATION | TOK_NO_PADDING)


static int wrk_ein_task(wrk_esched_t *s);
static int wrk_ein_record(wrk_esched_t *s, const shr_record_t *record);
static int wrk_ein_complete(wrk_esched_t *s);


int
wrk_ein_decode(wrk_esched_t *s, const void *buf, size_t len)
{
    size_t               pos;
    wrk_ein_t           *in;
    const shr_record_t  *record;

    assert(len >= sizeof(shr_req_t) && (uintptr_t) buf % 8 == 0);

    in = &s->in;
    memcpy(&in->fixed, buf, sizeof(shr_req_t));
    in->ninputs = 0;
    in->type = 0;
    in->npairs = 0;
    in->query.data = NULL;
    in->query.len = 0;
    in->id.data = NULL;
    in->id.len = 0;

    if (wrk_ein_task(s) != 0) {
        return -1;
    }

    pos = 0;

    while ((record = shr_req_next(buf, &pos)) != NULL) {
        if (wrk_ein_record(s, record) != 0) {
            return -1;
        }
    }

    return wrk_ein_complete(s);
}


static int
wrk_ein_input(wrk_esched_t *s, const shr_record_t *record)
{
    wrk_ein_t  *in;

    in = &s->in;

    if (in->ninputs == SHR_INPUTS_MAX) {
        return wrk_req_fail(&s->err, SHR_E_INVALID, "input",
                            "more than %u inputs in one request",
                            SHR_INPUTS_MAX);
    }

    if (in->ninputs != 0 && in->type != record->type) {
        return wrk_req_fail(&s->err, SHR_E_INVALID, "input",
                            "inputs must be all text or all token ids");
    }

    if (record->len == 0) {
        return wrk_req_fail(&s->err, SHR_E_INVALID, "input",
                            "input %u is empty", in->ninputs);
    }

    in->type = record->type;
    in->inputs[in->ninputs].a.data = (const char *) (record + 1);
    in->inputs[in->ninputs].a.len = record->len;
    in->inputs[in->ninputs].b.data = NULL;
    in->inputs[in->ninputs].b.len = 0;
    in->ninputs++;

    return 0;
}


/* The second text of the input before. */
static int
wrk_ein_pair(wrk_esched_t *s, const shr_record_t *record)
{
    wrk_ein_t     *in;
    wrk_einput_t  *input;

    in = &s->in;
    input = &in->inputs[in->ninputs - (in->ninputs != 0)];

    if (in->ninputs == 0 || in->type != SHR_R_PROMPT || input->b.data != NULL
        || record->len == 0)
    {
        return wrk_req_fail(&s->err, SHR_E_INVALID, "input",
                            "a pair is two texts, and neither is empty");
    }

    input->b.data = (const char *) (record + 1);
    input->b.len = record->len;
    in->npairs++;

    return 0;
}


static int
wrk_ein_record(wrk_esched_t *s, const shr_record_t *record)
{
    switch (record->type) {

    case SHR_R_PROMPT:
    case SHR_R_PROMPT_IDS:
        return wrk_ein_input(s, record);

    case SHR_R_PAIR:
        return wrk_ein_pair(s, record);

    case SHR_R_QUERY:
        if (s->in.query.data != NULL) {
            return wrk_req_fail(&s->err, SHR_E_INVALID, "query",
                                "query comes twice");
        }

        s->in.query.data = (const char *) (record + 1);
        s->in.query.len = record->len;
        return 0;

    case SHR_R_REQUEST_ID:
        s->in.id.data = (const char *) (record + 1);
        s->in.id.len = record->len;
        return 0;

    default:
        return wrk_req_fail(&s->err, SHR_E_INVALID, NULL,
                            "record type %u is nothing for this task",
                            record->type);
    }
}


static const char *
wrk_ein_kind(enc_kind_t kind)
{
    switch (kind) {
    case ENC_EMBED:
        return "gives embeddings";
    case ENC_CLASSIFY:
        return "classifies texts";
    case ENC_RERANK:
        return "scores pairs of texts (rerank)";
    default:
        return "generates text";
    }
}


/* What the model is for. */
static int
wrk_ein_task(wrk_esched_t *s)
{
    int                     ok;
    uint32_t                task;
    const wrk_eeng_info_t  *info;

    task = s->in.fixed.task;
    info = &s->eng->info;

    switch (task) {
    case SHR_TASK_EMBED:
        ok = info->kind == ENC_EMBED;
        break;
    case SHR_TASK_RERANK:
        ok = info->kind != ENC_EMBED && info->labels <= 1;
        break;
    case SHR_TASK_CLASSIFY:
        ok = info->kind != ENC_EMBED && info->labels >= 1;
        break;
    case SHR_TASK_TOKENIZE:
        ok = 1;
        break;
    default:
        ok = 0;
    }

    return ok ? 0
           : wrk_req_fail(&s->err, SHR_E_UNSUPPORTED, "model",
                          "the model \"%s\" %s, this endpoint is for another "
                          "kind of model", s->opts.name,
                          wrk_ein_kind(info->kind));
}


static int
wrk_ein_complete(wrk_esched_t *s)
{
    uint32_t    task, dims;
    wrk_ein_t  *in;

    in = &s->in;
    task = in->fixed.task;
    dims = in->fixed.dims;

    if (in->ninputs == 0) {
        return wrk_req_fail(&s->err, SHR_E_INVALID, "input",
                            "there is no input");
    }

    if (task == SHR_TASK_RERANK
        && (in->query.data == NULL || in->npairs != 0
            || in->type != SHR_R_PROMPT))
    {
        return wrk_req_fail(&s->err, SHR_E_INVALID, "query",
                            "rerank takes a query and texts");
    }

    if ((task == SHR_TASK_EMBED && in->npairs != 0)
        || (task != SHR_TASK_RERANK && in->query.data != NULL))
    {
        return wrk_req_fail(&s->err, SHR_E_INVALID, "input",
                            "this task takes single texts");
    }

    if (task == SHR_TASK_TOKENIZE
        && (in->ninputs != 1 || in->npairs != 0 || in->type != SHR_R_PROMPT))
    {
        return wrk_req_fail(&s->err, SHR_E_INVALID, "prompt",
                            "tokenize takes one text");
    }

    if (dims != 0 && (task != SHR_TASK_EMBED || dims > s->eng->info.width)) {
        return wrk_req_fail(&s->err, SHR_E_INVALID, "dimensions",
                            "the model \"%s\" has %u dimensions, %u cannot be "
                            "had", s->opts.name, s->eng->info.width, dims);
    }

    return 0;
}


/* --- tokens ------------------------------------------------------------- */

/* A run of tokens that came from a text, in a tokenized input. */
typedef struct {
    size_t  begin, len, keep;
} wrk_erun_t;


/* The runs between what the post-processor added: one per text that has any
 * token. */
static unsigned
wrk_erun_find(const tok_result_t *res, wrk_erun_t runs[2])
{
    size_t    i;
    unsigned  n;

    n = 0;

    for (i = 0; i < res->n; i++) {
        if (res->special[i]) {
            continue;
        }

        if (i != 0 && !res->special[i - 1]) {
            runs[n - 1].len++;
            continue;
        }

        if (n == 2) {
            break;
        }

        runs[n].begin = i;
        runs[n].len = 1;
        n++;
    }

    return n;
}


/* How much of each is kept, `left` in all: the longer one gives first, as the
 * reference implementation's "longest first" has it. */
static void
wrk_erun_share(wrk_erun_t *runs, unsigned n, size_t left)
{
    wrk_erun_t  *small, *large;

    if (n == 1) {
        runs[0].keep = wrk_min(runs[0].len, left);
        return;
    }

    small = runs[0].len <= runs[1].len ? &runs[0] : &runs[1];
    large = small == &runs[0] ? &runs[1] : &runs[0];

    if (small->len <= left / 2) {
        small->keep = small->len;
        large->keep = wrk_min(large->len, left - small->len);

    } else {
        small->keep = left / 2;
        large->keep = left - left / 2;
    }
}


/* Copies a too long input without what is cut; how many tokens are left, 0 if
 * nothing of the text can be kept. */
static size_t
wrk_ein_cut(const tok_result_t *res, size_t max, int left, uint32_t *ids,
    uint32_t *second)
{
    size_t      i, n, k, own;
    unsigned    nruns, r;
    wrk_erun_t  runs[2];

    nruns = wrk_erun_find(res, runs);
    own = res->n;

    for (r = 0; r < nruns; r++) {
        own -= runs[r].len;
    }

    if (nruns == 0 || own >= max) {
        return 0;
    }

    wrk_erun_share(runs, nruns, max - own);

    for (i = 0, n = 0; i < res->n; i++) {
        for (r = 0; r < nruns; r++) {
            k = i - runs[r].begin;      /* huge if before it */

            if (k < runs[r].len
                && (left ? runs[r].len - k > runs[r].keep
                         : k >= runs[r].keep))
            {
                break;
            }
        }

        if (r < nruns) {
            continue;
        }

        *second += res->type_ids[i] == 0;
        ids[n++] = res->ids[i];
    }

    assert(n <= max);

    return n;
}


static int
wrk_ein_error(wrk_esched_t *s, int rc, uint32_t i, const tok_result_t *res)
{
    switch (rc) {

    case TOK_E_UTF8:
        return wrk_req_fail(&s->err, SHR_E_INVALID, "input",
                            "input %u is not valid UTF-8 at byte %zu", i,
                            res->bad_at);

    case TOK_E_LIMIT:
    case TOK_E_MATCH:
    case TOK_E_UNK:
        return wrk_req_fail(&s->err, SHR_E_INVALID, "input",
                            "input %u cannot be tokenized (code %d)", i, rc);

    default:
        return wrk_req_fail(&s->err, SHR_E_INTERNAL, NULL,
                            "the tokenizer failed (code %d)", rc);
    }
}


static int
wrk_ein_encode(wrk_esched_t *s, uint32_t i, tok_result_t *res)
{
    int                  rc;
    unsigned             flags;
    const wrk_bytes_t   *a, *b;
    const wrk_einput_t  *input;

    input = &s->in.inputs[i];
    memset(res, 0, sizeof(*res));

    if (s->in.type == SHR_R_PROMPT_IDS) {
        res->ids = (const uint32_t *) input->a.data;
        res->n = input->a.len / sizeof(uint32_t);
        return 0;
    }

    a = s->in.query.data != NULL ? &s->in.query : &input->a;
    b = s->in.query.data != NULL ? &input->a : &input->b;
    flags = WRK_EIN_FLAGS;

    if (s->in.fixed.flags & SHR_REQ_NO_SPECIAL) {
        flags &= ~(unsigned) TOK_ADD_SPECIAL;
    }

    if (s->in.fixed.flags & SHR_REQ_OFFSETS) {
        flags |= TOK_OFFSETS;
    }

    if (b->data != NULL || (s->in.fixed.flags & SHR_REQ_TRUNCATE)) {
        flags |= TOK_TYPES;
    }

    rc = b->data != NULL
         ? tok_encode_pair(s->tok, s->scratch, a->data, a->len, b->data,
                           b->len, flags, res)
         : tok_encode(s->tok, s->scratch, a->data, a->len, flags, res);

    return rc == TOK_OK ? 0 : wrk_ein_error(s, rc, i, res);
}


/* Ids are of the vocabulary; an input of ids is cut like one without special
 * tokens. */
static int
wrk_ein_check(wrk_esched_t *s, uint32_t i, tok_result_t *res)
{
    size_t  k;

    if (res->n == 0 && s->in.fixed.task != SHR_TASK_TOKENIZE) {
        return wrk_req_fail(&s->err, SHR_E_INVALID, "input",
                            "input %u has no tokens", i);
    }

    for (k = 0; k < res->n; k++) {
        if (res->ids[k] >= s->eng->info.vocab) {
            return wrk_req_fail(&s->err, SHR_E_INVALID, "input",
                                "token id %u is not in the vocabulary of %u "
                                "tokens", res->ids[k], s->eng->info.vocab);
        }
    }

    if (res->n <= s->max_seq || s->in.fixed.task == SHR_TASK_TOKENIZE) {
        return 0;
    }

    if (!(s->in.fixed.flags & SHR_REQ_TRUNCATE)) {
        return wrk_req_fail(&s->err, SHR_E_CONTEXT, "input",
                            "This model's maximum context length is %u "
                            "tokens, but input %u came to %zu tokens. Please "
                            "shorten it.", s->max_seq, i, res->n);
    }

    if (s->in.type == SHR_R_PROMPT_IDS) {
        if (s->in.fixed.flags & SHR_REQ_LEFT) {
            res->ids += res->n - s->max_seq;
        }

        res->n = s->max_seq;
    }

    return 0;
}


/* Tokens of type 0 come first; a pair's second text may be of type 1. */
static uint32_t
wrk_ein_second(const tok_result_t *res)
{
    uint32_t  n;

    if (res->type_ids == NULL) {
        return (uint32_t) res->n;
    }

    for (n = 0; n < res->n && res->type_ids[n] == 0; n++) {
        continue;
    }

    return n;
}


int
wrk_ein_tokenize(wrk_esched_t *s)
{
    size_t        n, at;
    uint32_t      i;
    tok_result_t  res;

    if (s->in.fixed.len > WRK_ESCHED_WINDOW_BYTES) {
        /* what an earlier large request has left */
        wrk_mem_forget(s->ids, s->ids_cap * sizeof(uint32_t));
    }

    for (i = 0, at = 0; i < s->in.ninputs; i++) {
        if (wrk_ein_encode(s, i, &res) != 0
            || wrk_ein_check(s, i, &res) != 0)
        {
            return -1;
        }

        n = s->in.fixed.task != SHR_TASK_TOKENIZE
            ? wrk_min(res.n, (size_t) s->max_seq) : res.n;

        if (n > s->ids_cap - at) {
            return wrk_req_fail(&s->err, SHR_E_INVALID, "input",
                                "the inputs have more than %zu tokens",
                                s->ids_cap);
        }

        s->at[i] = (uint32_t) at;
        s->second[i] = 0;

        if (res.n > n) {
            n = wrk_ein_cut(&res, n,
                            (s->in.fixed.flags & SHR_REQ_LEFT) != 0,
                            s->ids + at, &s->second[i]);
        } else {
            memcpy(s->ids + at, res.ids, n * sizeof(uint32_t));
            s->second[i] = wrk_ein_second(&res);
        }

        if (n == 0 && res.n != 0) {
            return wrk_req_fail(&s->err, SHR_E_INVALID, "input",
                                "input %u cannot be cut to %u tokens", i,
                                s->max_seq);
        }

        at += n;
    }

    s->at[i] = (uint32_t) at;
    s->offsets = s->in.fixed.task == SHR_TASK_TOKENIZE ? res.offsets : NULL;

    return 0;
}
