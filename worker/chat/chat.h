/*
 * The chat template: turns a list of messages into the text that a model
 * expects.  A template is a small program in a subset of Jinja that came with
 * the model file, so it is foreign data, and so are the messages.  Both are run
 * by a bounded interpreter that can reach nothing but its inputs.
 *
 * Life: chat_compile() once at model load; chat_render() per request;
 * chat_free() with the model.  A chat_template_t is read-only after compile and
 * may be shared by threads.  Rendering allocates nothing: it works inside the
 * memory that the caller gives.
 *
 * Who may call: an inference worker, the `infer` tool, tests.  nginx never.
 *
 * Rules of rendering: those of transformers' apply_chat_template, which runs
 * Jinja with trim_blocks and lstrip_blocks, the loop controls, a `tojson` that
 * does not escape for HTML, raise_exception() and strftime_now().
 */

#ifndef CHAT_H
#define CHAT_H

#include <stddef.h>
#include <stdint.h>


/* Largest template text, in bytes. */
#define CHAT_TEMPLATE_BYTES_MAX  (512 * 1024)

/* Largest input: messages, tools and kwargs together, in bytes. */
#define CHAT_INPUT_BYTES_MAX     (64 * 1024 * 1024)

/* Smallest useful arena for chat_render(), without the input. */
#define CHAT_ARENA_BYTES_MIN     (256 * 1024)

/*
 * An arena that is enough for a request of `n` bytes of input in all templates
 * known to us: values take about 12 bytes per byte of dense JSON, and a
 * template makes a few copies of the content.
 */
#define CHAT_ARENA_BYTES(n)      (2 * 1024 * 1024 + 24 * (size_t) (n))


/* Error codes.  Each comes with a message for people in chat_err_t. */
#define CHAT_OK             0
#define CHAT_ESYNTAX       (-1)   /* template: not well-formed             */
#define CHAT_EUNSUPPORTED  (-2)   /* template: needs what we do not have   */
#define CHAT_ERAISED       (-3)   /* template called raise_exception(): 400 */
#define CHAT_ELIMIT        (-4)   /* steps, depth or memory used up        */
#define CHAT_ETOOLONG      (-5)   /* the text does not fit the buffer      */
#define CHAT_EINPUT        (-6)   /* messages, tools or kwargs: 400        */
#define CHAT_ERUNTIME      (-7)   /* template: wrong type, undefined, ...  */
#define CHAT_ENOMEM        (-8)   /* compile only: malloc failed           */


typedef struct chat_template_s  chat_template_t;


typedef struct {
    int       code;          /* one of the above                            */
    unsigned  line;          /* in the template, from 1; 0: not about it    */
    unsigned  column;        /* in bytes, from 1                            */
    char      param[96];     /* CHAT_EINPUT: "messages[2].content[0].type"  */
    char      text[256];     /* for people; always ends with NUL            */
} chat_err_t;


/*
 * Input.  The three JSON texts should have passed the caller's strict door;
 * they are checked again here all the same.
 *
 *   messages   array of objects, each with a string `role`, and `content` that
 *              is a string, null, absent, or an array of
 *              {"type":"text","text":...} parts.
 *   tools      array, or NULL.
 *   kwargs     object with more template variables (chat_template_kwargs), or
 *              NULL.  It may not name messages, tools or the tokens.
 *   now        the seconds since 1970 that strftime_now() shows, with the
 *              offset of the time zone already added.
 */
typedef struct {
    const char  *messages;
    size_t       messages_len;
    const char  *tools;
    size_t       tools_len;
    const char  *kwargs;
    size_t       kwargs_len;
    const char  *bos;                /* text of the token, may be NULL */
    size_t       bos_len;
    const char  *eos;
    size_t       eos_len;
    int64_t      now;
    int          add_generation_prompt;
} chat_input_t;


/* A half-open range of bytes. */
typedef struct {
    uint32_t  start;
    uint32_t  end;
} chat_span_t;


/*
 * Output, in buffers of the caller.  `spans` lists, in order and without
 * overlaps, the bytes that came from the input and not from the template.  The
 * text of a special token inside such a span is plain text: a special token is
 * to be recognised only where none of its bytes lies in a span.  (The text
 * between special tokens should still be tokenized as one piece: a span border
 * is not a token border.)
 *
 * A `role` that is one of the well-known names counts as template text, since
 * templates build special tokens from it ("<|" + role + "|>").
 */
typedef struct {
    char         *text;
    size_t        text_cap;
    size_t        text_len;      /* set by chat_render() */
    chat_span_t  *spans;
    size_t        spans_cap;
    size_t        spans_len;     /* set by chat_render() */
} chat_output_t;


/*
 * Compiles `text`; with text NULL, the default template (ChatML).  Returns NULL
 * and fills err on failure.  The text is copied.  Linear in the length.
 */
chat_template_t *chat_compile(const char *text, size_t len, chat_err_t *err);

/* Frees what chat_compile() returned; NULL is nothing.  No render may run. */
void chat_free(chat_template_t *t);

/* Whether the template looks at `tools` (else tools would be silently lost). */
int chat_uses_tools(const chat_template_t *t);

/*
 * Renders into out.  mem is the working memory, any alignment, nothing in it
 * outlives the call.  Returns CHAT_OK or a negative code with err filled; then
 * the contents of out are meaningless.
 */
int chat_render(const chat_template_t *t, const chat_input_t *in, void *mem,
    size_t mem_bytes, chat_output_t *out, chat_err_t *err);

/*
 * A template for a model file that has none: the one whose markers are tokens
 * of the vocabulary (has_token tells), or NULL when none of ours fits.
 */
const char *chat_builtin(int (*has_token)(void *data, const char *token),
    void *data);

/* "syntax", "raised", ... for logs. */
const char *chat_code_name(int code);


#endif /* CHAT_H */
