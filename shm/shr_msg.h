/*
 * The messages: a request as one flat block (fixed part and records), a
 * response as a stream of small typed frames.  Fixed-size plain structures,
 * numbers in host order, no addresses, nothing that decodes to code.
 *
 * The reader of a message treats it as foreign: shr_req_check() and
 * shr_frame_check() look at a private copy, never at shared memory.
 */

#ifndef SHR_MSG_H
#define SHR_MSG_H

#include <stddef.h>
#include <stdint.h>


#define SHR_REQ_MAGIC       0x51524e49u     /* "INRQ" */
#define SHR_REQ_BYTES_MAX   (64u << 20)
#define SHR_REQ_RECORDS_MAX 8192u
#define SHR_FRAME_MAX       4096u           /* header and payload of a frame */
#define SHR_CHOICES_MAX     128u
#define SHR_INPUTS_MAX      2048u           /* texts or pairs of a request */
#define SHR_DIMS_MAX        16384u          /* values of one result */
#define SHR_PRIORITY_MIN    (-8)
#define SHR_PRIORITY_MAX    8
#define SHR_BEAMS_MAX       16u
#define SHR_LENGTH_PENALTY  10.0f           /* at most, either way */


typedef enum {
    SHR_TASK_CHAT = 1,              /* SHR_R_MESSAGES */
    SHR_TASK_COMPLETE,              /* SHR_R_PROMPT or SHR_R_PROMPT_IDS */
    SHR_TASK_TOKENIZE,              /* SHR_R_PROMPT or SHR_R_MESSAGES */
    SHR_TASK_DETOKENIZE,            /* SHR_R_PROMPT_IDS */
    SHR_TASK_EMBED,                 /* inputs: SHR_R_PROMPT or _IDS */
    SHR_TASK_RERANK,                /* SHR_R_QUERY, then inputs */
    SHR_TASK_CLASSIFY,              /* inputs, each maybe with SHR_R_PAIR */
    SHR_TASK_MAX
} shr_task_t;

/* shr_req_t.flags */
#define SHR_REQ_SEED        0x0001u     /* seed is given */
#define SHR_REQ_LOGPROBS    0x0002u     /* send SHR_F_LOGPROB frames */
#define SHR_REQ_ECHO        0x0004u     /* completions: first the prompt */
#define SHR_REQ_IGNORE_EOS  0x0008u
#define SHR_REQ_NO_SPECIAL  0x0010u     /* tokenize: no special tokens added */
#define SHR_REQ_OFFSETS     0x0020u     /* tokenize: SHR_F_OFFSETS too */
#define SHR_REQ_NO_GEN      0x0040u     /* chat: no generation prompt */
#define SHR_REQ_KEEP_SPECIAL 0x0080u   /* special tokens as text too */
#define SHR_REQ_WHOLE       0x0100u     /* sent whole: only the end is urgent */
#define SHR_REQ_TRUNCATE    0x0200u     /* inputs: cut what is too long */
#define SHR_REQ_LEFT        0x0400u     /* cut the beginning, not the end */
#define SHR_REQ_RAW         0x0800u     /* no normalising, no probabilities */
#define SHR_REQ_NORMALIZE   0x1000u     /* vectors: whatever the model says */
#define SHR_REQ_EARLY_STOP  0x2000u     /* beams: ends with as many answers */
#define SHR_REQ_FLAGS_ALL   0x3fffu
#define SHR_MAX_TOKENS_REST UINT32_MAX  /* as many as the context has room */

typedef struct {
    uint32_t  magic;
    uint32_t  len;                  /* of all, records included */
    uint32_t  task;                 /* shr_task_t */
    uint32_t  flags;
    uint32_t  nrecords;
    uint32_t  max_tokens;           /* per choice; SHR_MAX_TOKENS_REST */
    uint32_t  n;                    /* choices per prompt, >= 1 */
    uint32_t  top_logprobs;         /* 0..20 */
    uint64_t  seed;
    uint64_t  scope;                /* prefix reuse; operator's */
    uint64_t  fair;                 /* whose share it is of; operator's */
    uint64_t  queued_ns;            /* CLOCK_MONOTONIC, when it was accepted */
    uint64_t  deadline_ns;          /* CLOCK_MONOTONIC; 0: none */
    uint64_t  queue_deadline_ns;    /* must have started by then; 0: none */
    float     temperature;          /* 0: greedy */
    float     top_p;                /* (0, 1]; 1: off */
    float     min_p;                /* [0, 1); 0: off */
    int32_t   top_k;                /* 0: off */
    float     repetition_penalty;   /* 1: off */
    float     presence_penalty;     /* 0: off */
    float     frequency_penalty;    /* 0: off */
    uint32_t  dims;                 /* embed: first values only; 0: all */
    int32_t   priority;             /* the higher ones first */
    uint32_t  beams;                /* of a search; 0 and 1: none */
    float     length_penalty;       /* of beams; 1: scores are means */
    uint32_t  reserved;             /* 0 */
} shr_req_t;

_Static_assert(sizeof(shr_req_t) == 128, "the layout is the ABI");


/* Records follow the fixed part; each starts at a multiple of 8 bytes. */
typedef enum {
    SHR_R_MESSAGES = 1,     /* JSON text of the messages array, checked */
    SHR_R_TOOLS,            /* JSON text of the tools array, checked */
    SHR_R_TEMPLATE_ARGS,    /* JSON object: chat_template_kwargs, checked */
    SHR_R_PROMPT,           /* UTF-8 text; one record for each prompt */
    SHR_R_PROMPT_IDS,       /* uint32_t []; one record for each prompt */
    SHR_R_STOP,             /* UTF-8 text, not empty; one for each string */
    SHR_R_STOP_IDS,         /* uint32_t [] */
    SHR_R_LOGIT_BIAS,       /* shr_bias_t [] */
    SHR_R_REQUEST_ID,       /* text for logs, <= 128 bytes */
    SHR_R_QUERY,            /* UTF-8 text; rerank: the first of each pair */
    SHR_R_PAIR,             /* UTF-8 text; the second of the input before */
    SHR_R_MAX
} shr_record_type_t;

typedef struct {
    uint32_t  type;                 /* shr_record_type_t */
    uint32_t  len;                  /* bytes that follow, without padding */
} shr_record_t;

typedef struct {
    uint32_t  id;
    float     bias;
} shr_bias_t;


/* Response frames.  Each starts at a multiple of 8 bytes of the stream. */
typedef enum {
    SHR_F_START = 1,        /* shr_start_t: accepted and tokenized */
    SHR_F_TEXT,             /* UTF-8 text of a choice, whole characters */
    SHR_F_LOGPROB,          /* shr_logprob_t and its entries, of a choice */
    SHR_F_FINISH,           /* shr_finish_t: a choice has ended */
    SHR_F_IDS,              /* uint32_t []; tokenize */
    SHR_F_OFFSETS,          /* uint32_t [][2]; tokenize */
    SHR_F_USAGE,            /* shr_usage_t: before the end */
    SHR_F_ERROR,            /* shr_error_t: before the end, ends the request */
    SHR_F_END,              /* empty: all was said */
    SHR_F_VALUES,           /* shr_values_t and floats: results of inputs */
    SHR_F_LABELS,           /* names of classes, each ended by a NUL */
    SHR_F_MAX
} shr_frame_type_t;

typedef struct {
    uint16_t  type;                 /* shr_frame_type_t */
    uint16_t  choice;               /* prompt index * n + choice, or input */
    uint32_t  len;                  /* payload bytes, without padding */
} shr_frame_t;

#define SHR_PAYLOAD_MAX     (SHR_FRAME_MAX - sizeof(shr_frame_t))

typedef struct {
    uint32_t  prompt_tokens;
    uint32_t  cached_tokens;
    uint64_t  queue_us;
} shr_start_t;

/* One sampled token (or, echoed, a prompt token), then ntop entries. */
typedef struct {
    uint32_t  nentries;             /* 1 + alternatives; the first is chosen */
    uint32_t  text_offset;          /* of the token in the choice's text,
                                       in Unicode characters */
} shr_logprob_t;

typedef struct {
    uint32_t  id;
    float     logprob;              /* natural log; -inf is sent as -9999;
                                       1: none (an echoed prompt's first) */
    uint32_t  len;                  /* bytes of the token's text that follow,
                                       padded to 4; may be part of a char */
} shr_logprob_entry_t;

#define SHR_TOKEN_TEXT_MAX  128u    /* bytes sent of a token's text */

typedef enum {
    SHR_FINISH_STOP = 1,            /* end token or stop string */
    SHR_FINISH_LENGTH,
    SHR_FINISH_CANCELLED,
    SHR_FINISH_ERROR,
    SHR_FINISH_MAX
} shr_finish_reason_t;

typedef struct {
    uint32_t  reason;               /* shr_finish_reason_t */
    uint32_t  tokens;               /* generated for this choice */
} shr_finish_t;

typedef struct {
    uint32_t  prompt_tokens;
    uint32_t  completion_tokens;    /* all choices */
    uint32_t  cached_tokens;
    uint32_t  reserved;
    uint64_t  queue_us;             /* accepted to first step */
    uint64_t  prefill_us;           /* first step to first token */
    uint64_t  decode_us;            /* first token to last token */
} shr_usage_t;

/*
 * Results are a table of one row per input and `width` values in each, sent
 * from its beginning to its end: a frame goes on where the last one stopped,
 * in the middle of a row or over several rows.
 */
typedef struct {
    uint32_t  width;                /* 1..SHR_DIMS_MAX, of the whole answer */
    uint32_t  at;                   /* of the first value in its row */
} shr_values_t;

/* Values of a frame, at most. */
#define SHR_VALUES_MAX                                                        \
    ((SHR_PAYLOAD_MAX - sizeof(shr_values_t)) / sizeof(float))

typedef enum {
    SHR_E_INVALID = 1,              /* 400 invalid_request_error */
    SHR_E_CONTEXT,                  /* 400 context_length_exceeded */
    SHR_E_UNSUPPORTED,              /* 400: known, not served by this model */
    SHR_E_OVERLOADED,               /* 429/503: retry later */
    SHR_E_DEADLINE,                 /* 504 */
    SHR_E_INTERNAL,                 /* 500 */
    SHR_E_SHUTDOWN,                 /* 503: the worker ends */
    SHR_E_MAX
} shr_error_code_t;

/* Then the param's name and the message, both UTF-8 without NUL. */
typedef struct {
    uint32_t  code;                 /* shr_error_code_t */
    uint32_t  param_len;            /* 0: none */
    uint32_t  message_len;
} shr_error_t;


/* A bounded writer of requests into private memory; never writes past cap. */
typedef struct {
    uint8_t  *buf;
    size_t    cap;
    size_t    len;
    int       err;                  /* 0 or -SHR_ETOOBIG: the first failure */
} shr_req_writer_t;

/* Puts the fixed part (its len, nrecords and magic are filled at the end). */
void shr_req_begin(shr_req_writer_t *w, void *buf, size_t cap,
    const shr_req_t *req);
/* Appends a record; data is copied. */
void shr_req_add(shr_req_writer_t *w, uint32_t type, const void *data,
    size_t len);
/* Completes the block; 0 or -SHR_ETOOBIG.  w->len is its length. */
int shr_req_end(shr_req_writer_t *w);

/* Checks a private copy of a request: sizes, enums, ranges (no NaN), records
 * inside the block.  0 or -SHR_EBROKEN. */
int shr_req_check(const void *buf, size_t len);

/* Walks the records of a checked request; the data lies right behind each.
 * *pos starts at 0; NULL at the end. */
const shr_record_t *shr_req_next(const void *buf, size_t *pos);

/* Checks a private copy of a frame.  0 or -SHR_EBROKEN. */
int shr_frame_check(const shr_frame_t *frame, const void *payload);


#endif /* SHR_MSG_H */
