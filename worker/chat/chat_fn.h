/*
 * The functions that the files of worker/chat call of each other.  Included by
 * chat_int.h, which has the types.
 *
 * Functions that return int return CHAT_OK or a negative code, with vm->err
 * filled.  What they make lies in the arena of the rendering.
 */

#ifndef CHAT_FN_H
#define CHAT_FN_H


/* ---- chat_text.c: bytes, UTF-8, buffers ---- */

/* Length of the white space character at p (Python's isspace), or 0. */
uint32_t chat_space_len(const char *p, const char *end);
/* Length of s without white space at its end. */
uint32_t chat_rstrip_len(const char *s, uint32_t len);
uint32_t chat_lstrip_off(const char *s, uint32_t len);
uint32_t chat_hash(const char *s, size_t len);
/* Writes a code point (not a surrogate) and returns its length, up to 4. */
uint32_t chat_utf8_put(char *to, uint32_t cp);
/* Reads one; a broken byte counts as one character. */
uint32_t chat_utf8_get(const char *p, const char *end, uint32_t *cp);
/* Number of characters; offset of character n (len when there are fewer). */
uint32_t chat_utf8_count(const char *s, uint32_t len);
uint32_t chat_utf8_offset(const char *s, uint32_t len, uint32_t n);

/* Adds bytes; map is looked at with CT_MIXED only. */
int chat_buf_add(chat_vm_t *vm, chat_buf_t *b, const char *s, uint32_t len,
    uint8_t taint, const uint8_t *map);
int chat_buf_str(chat_vm_t *vm, chat_buf_t *b, const chat_val_t *v);
int chat_buf_lit(chat_vm_t *vm, chat_buf_t *b, const char *s);
int chat_buf_reserve(chat_vm_t *vm, chat_buf_t *b, uint32_t len);
void chat_buf_val(const chat_buf_t *b, chat_val_t *out);

/* ---- chat_val.c: memory, values ---- */

__attribute__((format(printf, 3, 4)))
int chat_fail(chat_vm_t *vm, int code, const char *fmt, ...);
/* NULL with vm->err filled when the arena is full. */
void *chat_alloc(chat_vm_t *vm, size_t bytes);
char *chat_alloc_bytes(chat_vm_t *vm, size_t bytes);
int chat_charge(chat_vm_t *vm, uint64_t steps);
int chat_charge_bytes(chat_vm_t *vm, uint64_t bytes);

chat_val_t chat_v_undef(void);
chat_val_t chat_v_bool(bool b);
chat_val_t chat_v_int(int64_t i);
chat_val_t chat_v_float(double f);
chat_val_t chat_v_str(const char *s, uint32_t len);
/* Part of a string, with its provenance. */
chat_val_t chat_v_sub(const chat_val_t *v, uint32_t off, uint32_t len);

const char *chat_type_name(const chat_val_t *v);
bool chat_truth(const chat_val_t *v);
bool chat_is_str(const chat_val_t *v, const char *s);
bool chat_is_num(const chat_val_t *v);
double chat_num(const chat_val_t *v);
int chat_equal(chat_vm_t *vm, const chat_val_t *a, const chat_val_t *b,
    bool *equal);
/* -1, 0, 1 for numbers, strings, lists of those; else an error. */
int chat_order(chat_vm_t *vm, const chat_val_t *a, const chat_val_t *b,
    int *order);
int chat_contains(chat_vm_t *vm, const chat_val_t *item,
    const chat_val_t *in, bool *found);
/* What a loop over v sees. */
int chat_iterate(chat_vm_t *vm, const chat_val_t *v, const chat_list_t **list);
int chat_length(chat_vm_t *vm, const chat_val_t *v, int64_t *n);
/* A list or tuple of n items; the items are not copied. */
int chat_list_of(chat_vm_t *vm, chat_type_t type, const chat_val_t *items,
    uint32_t n, chat_val_t *out);
uint32_t chat_depth(const chat_val_t *v);

/* ---- chat_dict.c ---- */

int chat_dict_new(chat_vm_t *vm, uint32_t cap, chat_dict_t **d);
int chat_dict_put(chat_vm_t *vm, chat_dict_t *d, const chat_val_t *key,
    const chat_val_t *val);
/* NULL when absent; may charge steps, never fails. */
const chat_val_t *chat_dict_get(chat_vm_t *vm, const chat_dict_t *d,
    const chat_val_t *key);
const chat_val_t *chat_dict_name(chat_vm_t *vm, const chat_dict_t *d,
    const char *s);
int chat_dict_items(chat_vm_t *vm, const chat_dict_t *d, chat_val_t *out);

/* ---- chat_dump.c: values to text ---- */

typedef struct {
    int         indent;       /* -1: on one line */
    bool        ascii;
    bool        sort;
    chat_val_t  item_sep;
    chat_val_t  key_sep;
} chat_json_fmt_t;

/* str(v), as {{ }} prints it. */
int chat_to_str(chat_vm_t *vm, const chat_val_t *v, chat_val_t *out);
int chat_to_json(chat_vm_t *vm, const chat_val_t *v, const chat_json_fmt_t *f,
    chat_val_t *out);
int chat_float_text(double f, char *to, size_t cap);

/* ---- chat_json.c, chat_input.c: input to values ---- */

int chat_json_read(chat_vm_t *vm, const char *text, size_t len,
    const char *what, chat_val_t *out);
int chat_input_bind(chat_vm_t *vm);

/* ---- chat_ops.c: operators ---- */

int chat_op_arith(chat_vm_t *vm, chat_op_t op, const chat_val_t *v, uint32_t n,
    chat_val_t *out);
int chat_op_compare(chat_vm_t *vm, unsigned cmp, const chat_val_t *a,
    const chat_val_t *b, bool *yes);
int chat_op_unary(chat_vm_t *vm, chat_op_t op, chat_val_t *v);
int chat_op_getattr(chat_vm_t *vm, const chat_val_t *v, const char *name,
    uint32_t len, uint32_t id, chat_val_t *out);
int chat_op_getitem(chat_vm_t *vm, const chat_val_t *v, const chat_val_t *key,
    chat_val_t *out);
int chat_op_slice(chat_vm_t *vm, const chat_val_t *v, chat_val_t *out);

/* ---- chat_compile.c ---- */

/* Line and column of an instruction. */
void chat_locate_ins(const chat_template_t *t, uint32_t pc, chat_err_t *err);

/* ---- chat_vm.c ---- */

/* Binds a global variable; a name that the template does not use is dropped. */
int chat_bind(chat_vm_t *vm, const char *name, const chat_val_t *v);
int chat_bind_str(chat_vm_t *vm, const char *name, uint32_t len,
    const chat_val_t *v);

int chat_push(chat_vm_t *vm, const chat_val_t *v);
chat_val_t *chat_pop(chat_vm_t *vm, uint32_t n);
int chat_jump(chat_vm_t *vm, const chat_ins_t *ins);
chat_frame_t *chat_frame(chat_vm_t *vm);
/* A variable of one frame, or NULL; sets one in the top frame. */
chat_val_t *chat_find_in(chat_vm_t *vm, uint32_t f, uint32_t name);
int chat_store(chat_vm_t *vm, uint32_t name, const chat_val_t *v);
void chat_args_of(chat_vm_t *vm, const chat_ins_t *ins, chat_args_t *a);
int chat_charge_args(chat_vm_t *vm, const chat_args_t *a);

/* ---- chat_frame.c: a positive result means that pc is set ---- */

int chat_step_flow(chat_vm_t *vm, const chat_ins_t *ins);
int chat_call(chat_vm_t *vm, const chat_ins_t *ins);
int chat_call_method(chat_vm_t *vm, const chat_ins_t *ins);
int chat_out(chat_vm_t *vm, const chat_val_t *v);

/* ---- filters, tests, methods, functions: number of a name or -1; run ---- */

int chat_filter_find(const char *s, size_t len);
int chat_filter_run(chat_vm_t *vm, uint32_t id, chat_args_t *a,
    chat_val_t *out);
int chat_test_find(const char *s, size_t len);
int chat_test_run(chat_vm_t *vm, uint32_t id, chat_args_t *a, bool *yes);
/* A test for a value's shape (string, mapping, ...); the test "none". */
bool chat_test_is_shape(uint32_t id);
bool chat_test_is_none(uint32_t id);
int chat_func_find(const char *s, size_t len);
int chat_func_run(chat_vm_t *vm, uint32_t id, chat_args_t *a, chat_val_t *out);
int chat_method_run(chat_vm_t *vm, const char *name, uint32_t len,
    chat_args_t *a, chat_val_t *out);
/* Whether the reference has an attribute of that name on such a value. */
bool chat_method_exists(const chat_val_t *v, const char *name, uint32_t len);

/* chat_seq.c: filters on sequences. */
int chat_seq_map(chat_vm_t *vm, chat_args_t *a, chat_val_t *out);
int chat_seq_select(chat_vm_t *vm, chat_args_t *a, bool keep, bool by_attr,
    chat_val_t *out);
int chat_seq_sort(chat_vm_t *vm, chat_args_t *a, chat_val_t *out);
int chat_seq_dictsort(chat_vm_t *vm, chat_args_t *a, chat_val_t *out);
int chat_seq_unique(chat_vm_t *vm, chat_args_t *a, chat_val_t *out);
int chat_seq_join(chat_vm_t *vm, chat_args_t *a, chat_val_t *out);
int chat_seq_sum(chat_vm_t *vm, chat_args_t *a, chat_val_t *out);

/* chat_strs.c: what filters and methods do with strings. */
int chat_s_case(chat_vm_t *vm, const chat_val_t *v, char how, chat_val_t *out);
int chat_s_replace(chat_vm_t *vm, const chat_val_t *v, const chat_val_t *from,
    const chat_val_t *to, int64_t count, chat_val_t *out);
/* sides: 1 left, 2 right, 3 both; chars NULL: white space. */
void chat_s_strip(const chat_val_t *v, const chat_val_t *chars, unsigned sides,
    chat_val_t *out);
int chat_s_indent(chat_vm_t *vm, chat_args_t *a, chat_val_t *out);
int64_t chat_s_find(const chat_val_t *v, const chat_val_t *what, bool last);

/* Argument i or named; NULL when not given. */
const chat_val_t *chat_arg(chat_vm_t *vm, const chat_args_t *a, uint32_t i,
    const char *name);
uint32_t chat_args_total(const chat_args_t *a);
/* An error that names what was given; for argument checks. */
int chat_arg_fail(chat_vm_t *vm, const char *who, const char *wants,
    const chat_val_t *v);


#endif /* CHAT_FN_H */
