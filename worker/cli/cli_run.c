/*
 * infer run: answers one prompt and writes the text as it comes.  One sequence,
 * no server; the same tokenizer, chat template, engine and sampler as the
 * worker.
 */

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tokenizer/tok.h"
#include "worker/chat/chat.h"
#include "worker/cli/cli.h"
#include "worker/cli/cli_model.h"
#include "worker/engine/eng.h"
#include "worker/wrk_sample.h"


#define NAME          "run"
#define PROMPT_MAX    (4 * 1024 * 1024)
#define SPANS_MAX     65536
#define NEW_DEFAULT   256
#define BATCH         512u

typedef struct {
    const char           *model_path;
    const char           *prompt;
    const char           *system;
    eng_model_opts_t      mo;
    long                  new_max;
    long                  threads;
    long                  context;
    bool                  raw;
    wrk_sample_params_t   params;

    tok_t                *tok;
    tok_scratch_t        *scratch;
    eng_model_t          *model;
    eng_t                 eng;
    bool                  has_eng;
    wrk_sampler_t        *sampler;
    uint32_t             *ids;
    uint32_t              n_ids;
    uint32_t              n_prompt;
} run_t;

static int options(run_t *r, int argc, char **argv);
static int open_all(run_t *r);
static void close_all(run_t *r);
static int encode(run_t *r);
static int encode_chat(run_t *r, tok_result_t *out);
static int generate(run_t *r);


int
cli_run(int argc, char **argv)
{
    int               rc;
    run_t             r;
    eng_model_opts_t  mo = ENG_MODEL_OPTS_INIT;

    memset(&r, 0, sizeof(r));
    r.mo = mo;
    r.new_max = NEW_DEFAULT;
    r.threads = 2;
    wrk_sample_params_init(&r.params);

    rc = options(&r, argc, argv);
    if (rc != CLI_OK) {
        return rc;
    }

    rc = open_all(&r);
    rc = rc == CLI_OK ? encode(&r) : rc;
    rc = rc == CLI_OK ? generate(&r) : rc;

    close_all(&r);
    return rc;
}


/* Options with a number; 1 when `name` is none of them. */
static int
number_option(run_t *r, const char *name, const char *text)
{
    int     rc;
    long    n;
    double  d;

    if (strcmp(name, "-n") == 0) {
        return cli_number(NAME, name, text, 1, 1000000, &r->new_max);
    }

    if (strcmp(name, "-t") == 0) {
        return cli_number(NAME, name, text, 1, ENG_THREADS_MAX, &r->threads);
    }

    if (strcmp(name, "-c") == 0) {
        return cli_number(NAME, name, text, 16, 1 << 20, &r->context);
    }

    if (strcmp(name, "--seed") == 0) {
        rc = cli_number(NAME, name, text, 0, INT32_MAX, &n);
        r->params.seed = rc == 0 ? (uint64_t) n : 0;
        return rc;
    }

    if (strcmp(name, "--top-k") == 0) {
        rc = cli_number(NAME, name, text, 0, WRK_SAMPLE_VOCAB_MAX, &n);
        r->params.top_k = rc == 0 ? (int32_t) n : 0;
        return rc;
    }

    if (strcmp(name, "--temp") == 0) {
        rc = cli_real(NAME, name, text, 0, 10, &d);
        r->params.temperature = rc == 0 ? (float) d : 0;
        return rc;
    }

    if (strcmp(name, "--top-p") == 0) {
        rc = cli_real(NAME, name, text, 1e-6, 1, &d);
        r->params.top_p = rc == 0 ? (float) d : 1;
        return rc;
    }

    return 1;
}


static int
options(run_t *r, int argc, char **argv)
{
    int          i, rc;
    const char  *name;

    for (i = 1; i < argc; i++) {
        name = argv[i];

        if (strcmp(name, "--raw") == 0) {
            r->raw = true;
            continue;
        }

        if (i + 1 == argc) {
            cli_error(NAME, "\"%s\" is unknown or lacks its value", name);
            return CLI_USAGE;
        }

        i++;

        if (strcmp(name, "-m") == 0) {
            r->model_path = argv[i];
        } else if (strcmp(name, "-p") == 0) {
            r->prompt = argv[i];
        } else if (strcmp(name, "-s") == 0) {
            r->system = argv[i];
        } else {
            rc = cli_model_option(NAME, name, argv[i], &r->mo);

            if (rc == 0) {
                rc = number_option(r, name, argv[i]);
            } else if (rc > 0) {
                continue;
            }

            if (rc > 0) {
                cli_error(NAME, "there is no option \"%s\"", name);
            }

            if (rc != 0) {
                return CLI_USAGE;
            }
        }
    }

    if (r->model_path == NULL || r->prompt == NULL) {
        cli_error(NAME, "-m MODEL and -p PROMPT are needed");
        return CLI_USAGE;
    }

    if (strlen(r->prompt) > PROMPT_MAX) {
        cli_error(NAME, "the prompt is longer than %d bytes", PROMPT_MAX);
        return CLI_USAGE;
    }

    return CLI_OK;
}


static int
open_all(run_t *r)
{
    tok_err_t         te;
    eng_err_t         ee;
    eng_ctx_opts_t    co = ENG_CTX_OPTS_INIT;

    if (tok_open(&r->tok, r->model_path, &te) != TOK_OK) {
        cli_error(NAME, "tokenizer: %s", te.msg);
        return CLI_FAILED;
    }

    r->mo.threads = (uint32_t) r->threads;

    if (eng_model_open(r->model_path, &r->mo, &r->model, &ee) != ENG_OK) {
        cli_error(NAME, "%s", ee.text);
        return CLI_FAILED;
    }

    co.max_seqs = 1;
    co.ctx_len = (uint32_t) r->context;
    co.max_batch_tokens = BATCH;
    co.threads = (uint32_t) r->threads;

    if (eng_create(r->model, &co, &r->eng, &ee) != ENG_OK) {
        cli_error(NAME, "%s", ee.text);
        return CLI_FAILED;
    }

    r->has_eng = true;
    r->scratch = tok_scratch_new();
    r->sampler = wrk_sampler_create(r->eng.limits.vocab);
    r->ids = malloc(r->eng.limits.ctx_len * sizeof(uint32_t));

    if (r->scratch == NULL || r->sampler == NULL || r->ids == NULL) {
        cli_error(NAME, "not enough memory");
        return CLI_FAILED;
    }

    return CLI_OK;
}


static void
close_all(run_t *r)
{
    free(r->ids);

    if (r->sampler != NULL) {
        wrk_sampler_destroy(r->sampler);
    }

    if (r->has_eng) {
        eng_destroy(&r->eng);
    }

    if (r->model != NULL) {
        eng_model_close(r->model);
    }

    tok_scratch_free(r->scratch);

    if (r->tok != NULL) {
        tok_close(r->tok);
    }
}


static int
encode(run_t *r)
{
    int           rc;
    tok_result_t  out;

    if (r->raw) {
        rc = tok_encode(r->tok, r->scratch, r->prompt, strlen(r->prompt),
                        TOK_ADD_SPECIAL | TOK_NO_TRUNCATION | TOK_NO_PADDING,
                        &out);

        if (rc != TOK_OK) {
            cli_error(NAME, "the prompt cannot be tokenized (error %d)", rc);
            return CLI_FAILED;
        }

    } else {
        rc = encode_chat(r, &out);
        if (rc != CLI_OK) {
            return rc;
        }
    }

    if (out.n == 0 || out.n >= r->eng.limits.ctx_len) {
        cli_error(NAME, "the prompt has %zu tokens, it must have 1 to %u",
                  out.n, r->eng.limits.ctx_len - 1);
        return CLI_FAILED;
    }

    memcpy(r->ids, out.ids, out.n * sizeof(uint32_t));
    r->n_ids = (uint32_t) out.n;
    r->n_prompt = r->n_ids;
    return CLI_OK;
}


/* Appends {"role":role,"content":text}; to has room for 6 bytes per byte. */
static size_t
put_message(char *to, const char *role, const char *text)
{
    size_t                n;
    const unsigned char  *p;
    static const char     hex[] = "0123456789abcdef";

    n = strlen(role);
    memcpy(to, "{\"role\":\"", 9);
    memcpy(to + 9, role, n);
    memcpy(to + 9 + n, "\",\"content\":\"", 13);
    n += 22;

    for (p = (const unsigned char *) text; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\') {
            to[n++] = '\\';
            to[n++] = (char) *p;
        } else if (*p < 0x20) {
            memcpy(to + n, "\\u00", 4);
            to[n + 4] = hex[*p >> 4];
            to[n + 5] = hex[*p & 15];
            n += 6;
        } else {
            to[n++] = (char) *p;
        }
    }

    memcpy(to + n, "\"}", 2);
    return n + 2;
}


static int
has_token(void *data, const char *token)
{
    const tok_t  *tok = data;

    return tok_token_to_id(tok, token, strlen(token)) != TOK_NO_ID;
}


static chat_template_t *
template_open(run_t *r)
{
    chat_err_t        err;
    tok_str_t         text;
    chat_template_t  *t;

    text = tok_chat_template(r->tok);

    if (text.len == 0) {
        text.ptr = chat_builtin(has_token, r->tok);

        if (text.ptr == NULL) {
            cli_error(NAME, "the model has no chat template; try --raw");
            return NULL;
        }

        text.len = strlen(text.ptr);
    }

    t = chat_compile(text.ptr, text.len, &err);

    if (t == NULL) {
        cli_error(NAME, "chat template, line %u, column %u: %s; try --raw",
                  err.line, err.column, err.text);
    }

    return t;
}


static tok_str_t
token_text(const run_t *r, uint32_t id)
{
    tok_str_t  none = { NULL, 0 };

    return id == TOK_NO_ID ? none : tok_id_to_token(r->tok, id);
}


static size_t
messages(const run_t *r, char *to)
{
    size_t  n;

    n = 0;
    to[n++] = '[';

    if (r->system != NULL) {
        n += put_message(to + n, "system", r->system);
        to[n++] = ',';
    }

    n += put_message(to + n, "user", r->prompt);
    to[n++] = ']';
    return n;
}


static int
encode_chat(run_t *r, tok_result_t *out)
{
    int               rc;
    size_t            bytes, cap, arena_bytes;
    char             *json;
    void             *arena;
    tok_str_t         bos, eos;
    chat_err_t        err;
    chat_input_t      in = { 0 };
    chat_output_t     text = { 0 };
    chat_template_t  *t;

    _Static_assert(sizeof(chat_span_t) == sizeof(tok_range_t), "one layout");

    bytes = strlen(r->prompt) + (r->system != NULL ? strlen(r->system) : 0);
    cap = 6 * bytes + 256;
    arena_bytes = CHAT_ARENA_BYTES(cap);

    json = malloc(cap);
    arena = malloc(arena_bytes);
    text.text_cap = cap + 64 * 1024;
    text.text = malloc(text.text_cap);
    text.spans_cap = SPANS_MAX;
    text.spans = malloc(SPANS_MAX * sizeof(chat_span_t));
    t = template_open(r);
    rc = CLI_FAILED;

    if (json == NULL || arena == NULL || text.text == NULL || text.spans == NULL
        || t == NULL)
    {
        goto done;
    }

    bos = token_text(r, tok_bos(r->tok));
    eos = token_text(r, tok_eos(r->tok));
    in.messages = json;
    in.messages_len = messages(r, json);
    in.bos = bos.ptr;
    in.bos_len = bos.len;
    in.eos = eos.ptr;
    in.eos_len = eos.len;
    in.now = (int64_t) time(NULL);
    in.add_generation_prompt = 1;

    if (chat_render(t, &in, arena, arena_bytes, &text, &err) != CHAT_OK) {
        cli_error(NAME, "chat template: %s", err.text);
        goto done;
    }

    rc = tok_encode_chat(r->tok, r->scratch, text.text, text.text_len,
                         (const tok_range_t *) text.spans, text.spans_len,
                         TOK_NO_TRUNCATION | TOK_NO_PADDING, out);

    if (rc != TOK_OK) {
        cli_error(NAME, "the prompt cannot be tokenized (error %d)", rc);
    }

    rc = rc == TOK_OK ? CLI_OK : CLI_FAILED;

done:

    chat_free(t);
    free(text.spans);
    free(text.text);
    free(arena);
    free(json);
    return rc;
}


static bool
is_end(const run_t *r, uint32_t id)
{
    size_t           i, n;
    const uint32_t  *ends;

    ends = tok_eos_all(r->tok, &n);

    for (i = 0; i < n; i++) {
        if (ends[i] == id) {
            return true;
        }
    }

    return false;
}


/* Runs the tokens from `from` on; the logits of the last one come back. */
static const float *
step(run_t *r, uint32_t seq, uint32_t from)
{
    uint32_t      i, n;
    eng_tok_t     toks[BATCH];
    const float  *logits[BATCH];

    n = 0;

    if (eng_seq_reserve(&r->eng, seq, r->n_ids) != ENG_OK) {
        return NULL;
    }

    for ( /* void */ ; from < r->n_ids; from += n) {
        n = r->n_ids - from < BATCH ? r->n_ids - from : BATCH;

        for (i = 0; i < n; i++) {
            toks[i].token = r->ids[from + i];
            toks[i].seq = seq;
            toks[i].pos = from + i;
            toks[i].want_logits = from + i + 1 == r->n_ids;
        }

        if (eng_step(&r->eng, toks, n, logits) != ENG_OK) {
            return NULL;
        }
    }

    return n > 0 ? logits[n - 1] : NULL;
}


static void
print(run_t *r, tok_stream_t *st, char *text, size_t cap, uint32_t id)
{
    size_t  len;

    if (tok_stream_step(st, r->tok, id, text, cap, &len) == TOK_OK) {
        fwrite(text, 1, len, stdout);
        fflush(stdout);
    }
}


static int
generate(run_t *r)
{
    int            rc;
    char          *text;
    size_t         cap, len;
    uint32_t       seq, id, from;
    const float   *logits;
    tok_stream_t   st;

    cap = tok_stream_room(r->tok);
    text = malloc(cap);
    rc = CLI_FAILED;

    if (text == NULL || eng_seq_open(&r->eng, &seq) != ENG_OK) {
        cli_error(NAME, "not enough memory");
        goto done;
    }

    tok_stream_init(&st, TOK_SKIP_SPECIAL);

    for (from = 0; /* void */ ; from = r->n_ids - 1) {
        logits = step(r, seq, from);
        id = logits == NULL ? WRK_SAMPLE_NONE
             : wrk_sample(r->sampler, &r->params, logits, r->ids, r->n_prompt,
                          r->n_ids);

        if (id == WRK_SAMPLE_NONE) {
            cli_error(NAME, "the engine could not compute the next token");
            goto done;
        }

        if (is_end(r, id)) {
            break;
        }

        print(r, &st, text, cap, id);
        r->ids[r->n_ids++] = id;

        if (r->n_ids == r->eng.limits.ctx_len
            || r->n_ids - r->n_prompt == (uint32_t) r->new_max)
        {
            break;
        }
    }

    if (tok_stream_flush(&st, r->tok, text, cap, &len) == TOK_OK) {
        fwrite(text, 1, len, stdout);
    }

    putchar('\n');
    rc = ferror(stdout) ? CLI_FAILED : CLI_OK;

done:

    free(text);
    return rc;
}
