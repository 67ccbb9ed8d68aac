/*
 * What the files of worker/chat share: limits, values, the program, the
 * machine. Not for others; the contract is chat.h.
 *
 * Values are immutable once built, except namespaces, so that a container's
 * depth is known when it is made and no walk can meet a cycle.
 */

#ifndef CHAT_INT_H
#define CHAT_INT_H

#include <assert.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/chat/chat.h"


/* Compile time. */
#define CHAT_CODE_MAX      (1 << 18)  /* instructions                       */
#define CHAT_EXPR_DEPTH    96         /* brackets, operators waiting        */
#define CHAT_BLOCK_DEPTH   64         /* {% if %} inside {% for %} inside ... */
#define CHAT_ARGS_MAX      32         /* of one call, or of one macro       */
#define CHAT_ITEMS_MAX     1024       /* of one list or dict literal        */
#define CHAT_NAMES_MAX     8192       /* distinct names                     */

/* Run time. */
#define CHAT_STEPS_MAX     (1 << 20)  /* instructions and their equivalents */
#define CHAT_STEP_BYTES    16         /* bytes moved that count as one step */
#define CHAT_STACK_MAX     2048       /* operands                           */
#define CHAT_FRAMES_MAX    160        /* loops, macros, captures            */
#define CHAT_BINDS_MAX     2048       /* variables alive                    */
#define CHAT_DEPTH_MAX     80         /* containers in containers           */
#define CHAT_RANGE_MAX     100000     /* items of range(), as the reference */
#define CHAT_JSON_DEPTH    64         /* of the input                       */
#define CHAT_NS_ATTRS      32         /* attributes of one namespace        */


typedef enum {
    CV_UNDEF = 0, CV_NONE, CV_BOOL, CV_INT, CV_BIGINT, CV_FLOAT, CV_STR,
    CV_LIST, CV_TUPLE, CV_DICT, CV_NS, CV_LOOP, CV_MACRO, CV_FUNC, CV_METHOD
} chat_type_t;

/* Where the bytes of a string come from. */
enum { CT_TEMPLATE = 0, CT_INPUT = 1, CT_MIXED = 2 };

typedef struct chat_list_s  chat_list_t;
typedef struct chat_dict_s  chat_dict_t;
typedef struct chat_ns_s    chat_ns_t;

/*
 * CV_STR, CV_BIGINT: u.s, len bytes of UTF-8, not NUL-terminated; with CT_MIXED
 * map[i] says CT_TEMPLATE or CT_INPUT for byte i.  CV_UNDEF: u.s is the name
 * that was looked for, or NULL.  CV_MACRO: len is the macro's number, u.i the
 * frame it was defined in, with its serial above.  CV_LOOP: len is the frame,
 * u.i its serial.  CV_FUNC: len is the function's number.
 */
typedef struct {
    uint8_t         type;
    uint8_t         taint;
    uint32_t        len;
    const uint8_t  *map;
    union {
        int64_t             i;
        double              f;
        const char         *s;
        const chat_list_t  *list;
        const chat_dict_t  *dict;
        chat_ns_t          *ns;
    } u;
} chat_val_t;

struct chat_list_s {
    const chat_val_t  *items;
    uint32_t           count;
    uint32_t           depth;
};

typedef struct {
    chat_val_t  key;
    chat_val_t  val;
} chat_pair_t;

/* In order of insertion; index (open addressing, 0 is empty) when large. */
struct chat_dict_s {
    chat_pair_t  *pairs;
    uint32_t      count;
    uint32_t      cap;
    uint32_t      depth;
    uint32_t      mask;
    uint32_t     *index;
};

struct chat_ns_s {
    uint32_t    count;
    uint32_t    names[CHAT_NS_ATTRS];
    chat_val_t  vals[CHAT_NS_ATTRS];
};


/* ---- the program ---- */

typedef enum {
    OP_TEXT = 0, OP_OUT, OP_CONST, OP_LOAD, OP_STORE, OP_STORE_ATTR, OP_POP,
    OP_UNPACK, OP_LIST, OP_TUPLE, OP_DICT, OP_GETATTR, OP_GETITEM, OP_SLICE,
    OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_FLOORDIV, OP_MOD, OP_POW, OP_CONCAT,
    OP_NEG, OP_POS, OP_NOT, OP_CMP, OP_CMP_CHAIN, OP_JMP, OP_JMP_FALSE,
    OP_AND, OP_OR, OP_FILTER, OP_TEST, OP_CALL, OP_CALL_METHOD,
    OP_FOR, OP_FOR_NEXT, OP_FOR_END, OP_PICK, OP_PICK_NEXT, OP_PICK_ADD,
    OP_CAPTURE, OP_CAPTURE_END, OP_SCOPE, OP_SCOPE_END, OP_MACRO, OP_RETURN,
    OP_DEFAULT, OP_END
} chat_op_t;

enum { CMP_EQ = 0, CMP_NE, CMP_LT, CMP_LE, CMP_GT, CMP_GE, CMP_IN, CMP_NOT_IN };

/*
 * arg: constant, name, count, or a jump as a distance from this instruction. n:
 * number of positional arguments.  kw: number of the list of keyword names, 0
 * for none.  pos: offset in the source, for messages.
 */
typedef struct {
    uint8_t   op;
    uint8_t   n;
    uint16_t  kw;
    int32_t   arg;
    uint32_t  pos;
} chat_ins_t;

typedef struct {
    const char  *s;
    uint32_t     len;
    int16_t      func;        /* what an unbound name means: builtin or -1 */
} chat_name_t;

typedef struct {
    uint8_t   count;
    uint16_t  names[CHAT_ARGS_MAX];
} chat_kwnames_t;

typedef struct {
    uint32_t  entry;                     /* first instruction              */
    uint8_t   params;
    bool      is_caller;                 /* the body of a call block       */
    uint16_t  names[CHAT_ARGS_MAX];
    uint32_t  has_default;               /* a bit per parameter            */
    uint16_t  name;
} chat_macro_t;

struct chat_template_s {
    char            *source;     /* own copy, line ends made "\n" */
    uint32_t         source_len;
    char            *pool;       /* strings whose escapes were resolved */
    uint32_t         pool_len;
    chat_ins_t      *code;
    uint32_t         code_len, code_cap;
    chat_val_t      *consts;
    uint32_t         consts_len, consts_cap;
    chat_name_t     *names;
    uint32_t         names_len, names_cap;
    uint32_t        *name_hash;
    chat_kwnames_t  *kwnames;
    uint32_t         kwnames_len, kwnames_cap;
    chat_macro_t    *macros;
    uint32_t         macros_len, macros_cap;
    uint32_t         loop_name;        /* number of "loop" plus 1, or 0   */
    bool             wants_parts;      /* iterates content itself          */
    bool             wants_none;       /* tests content against none       */
    bool             wants_arguments;  /* takes arguments as an object     */
    bool             uses_tools;
};


/* ---- the machine ---- */

typedef struct {
    char      *s;
    uint8_t   *map;
    uint32_t   len;
    uint32_t   cap;
    uint32_t   map_cap;
    uint8_t    taint;
} chat_buf_t;

typedef enum { CF_ROOT = 0, CF_FOR, CF_PICK, CF_CAPTURE, CF_SCOPE, CF_MACRO }
    chat_frame_kind_t;

typedef struct {
    uint8_t             kind;
    bool                is_caller;    /* a macro that is a call block's body */
    uint32_t            serial;       /* tells reuse of a frame's number     */
    uint32_t            binds;        /* its first variable                  */
    uint32_t            parent;       /* frame to look in next               */
    uint32_t            ret;          /* macro: where to go on               */
    uint32_t            index;        /* loops: next item                    */
    uint32_t            picked;       /* pick: items kept                    */
    uint32_t            sink;         /* macro, capture: outer sink          */
    const chat_list_t  *list;
    chat_val_t         *keep;         /* pick: kept items                    */
    chat_buf_t          buf;          /* macro, capture                      */
} chat_frame_t;

typedef struct {
    uint32_t    name;
    chat_val_t  val;
} chat_bind_t;

typedef struct {
    const chat_template_t  *t;
    const chat_input_t     *in;
    chat_output_t          *out;
    chat_err_t             *err;
    char                   *mem;      /* the arena: next free byte */
    char                   *mem_end;
    int64_t                 steps;    /* left */
    uint32_t                pc;
    uint32_t                sp;
    uint32_t                frames_len;
    uint32_t                binds_len;
    uint32_t                serial;
    uint32_t                sink;     /* frame that takes output, 0 is `out` */
    chat_val_t             *stack;
    chat_frame_t           *frames;
    chat_bind_t            *binds;
} chat_vm_t;


/* A call's arguments, as filters, tests, methods and functions get them. */
typedef struct {
    chat_val_t            *v;         /* n positional, then the keywords */
    uint32_t               n;
    const chat_kwnames_t  *kw;        /* or NULL */
} chat_args_t;


/* Most containers waiting in a walk over a value. */
typedef struct {
    const chat_val_t  *v;
    uint32_t           next;
} chat_walk_t;


#include "worker/chat/chat_fn.h"


#endif /* CHAT_INT_H */
