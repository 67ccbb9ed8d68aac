/*
 * Tensors of a Hugging Face folder by GGUF's names.  One table says what each
 * name becomes and how its rows are read; a name that is not in it is
 * refused, for a model that runs without one of its tensors is wrong without
 * a sign.
 */
#include <stdlib.h>
#include <string.h>

#include "worker/engine/eng_chk.h"
#include "worker/engine/eng_hf.h"
#include "worker/engine/eng_type.h"

#define NAME_BYTES  64u           /* of a GGUF name here                     */

#define NORM    1u                /* Gemma's hold w - 1                      */
#define HEADS   2u                /* rows of rotated heads                   */

typedef struct {
    const char  *hf;              /* behind "model." and "layers.N."; '*' is
                                     a number: the tensor's place in a stack */
    const char  *gguf;            /* behind "blk.N."                         */
    uint32_t     how;
    uint32_t     family;          /* 0: all; else ENG_HF_* of the families   */
} name_t;

static const name_t  top_names[] = {
    { "embed_tokens.weight", "token_embd.weight", 0, 0 },
    { "norm.weight", "output_norm.weight", NORM, 0 },
    { "lm_head.weight", "output.weight", 0, 0 },
};

static const name_t  layer_names[] = {
    { "input_layernorm.weight", "attn_norm.weight", NORM, 0 },
    { "self_attn.q_proj.weight", "attn_q.weight", HEADS, 0 },
    { "self_attn.k_proj.weight", "attn_k.weight", HEADS, 0 },
    { "self_attn.v_proj.weight", "attn_v.weight", 0, 0 },
    { "self_attn.q_proj.bias", "attn_q.bias", HEADS, 0 },
    { "self_attn.k_proj.bias", "attn_k.bias", HEADS, 0 },
    { "self_attn.v_proj.bias", "attn_v.bias", 0, 0 },
    { "self_attn.q_norm.weight", "attn_q_norm.weight", NORM, 0 },
    { "self_attn.k_norm.weight", "attn_k_norm.weight", NORM, 0 },
    { "self_attn.o_proj.weight", "attn_output.weight", 0, 0 },
    { "post_attention_layernorm.weight", "post_attention_norm.weight", NORM,
      ENG_HF_GEMMA },
    { "post_attention_layernorm.weight", "ffn_norm.weight", NORM,
      ENG_HF_NOT_GEMMA },
    { "pre_feedforward_layernorm.weight", "ffn_norm.weight", NORM,
      ENG_HF_GEMMA },
    { "post_feedforward_layernorm.weight", "post_ffw_norm.weight", NORM,
      ENG_HF_GEMMA },
    { "self_attn.qkv_proj.weight", "attn_qkv.weight", 0, ENG_HF_FUSED },
    { "mlp.gate_up_proj.weight", "ffn_up.weight", 0, ENG_HF_FUSED },
    { "block_sparse_moe.gate.weight", "ffn_gate_inp.weight", 0,
      ENG_HF_SPARSE },
    { "block_sparse_moe.experts.*.w1.weight", "ffn_gate_exps.weight", 0,
      ENG_HF_SPARSE },
    { "block_sparse_moe.experts.*.w3.weight", "ffn_up_exps.weight", 0,
      ENG_HF_SPARSE },
    { "block_sparse_moe.experts.*.w2.weight", "ffn_down_exps.weight", 0,
      ENG_HF_SPARSE },
    { "mlp.gate.weight", "ffn_gate_inp.weight", 0, ENG_HF_TOPK_NORM },
    { "mlp.experts.*.gate_proj.weight", "ffn_gate_exps.weight", 0,
      ENG_HF_TOPK_NORM },
    { "mlp.experts.*.up_proj.weight", "ffn_up_exps.weight", 0,
      ENG_HF_TOPK_NORM },
    { "mlp.experts.*.down_proj.weight", "ffn_down_exps.weight", 0,
      ENG_HF_TOPK_NORM },
    { "mlp.shared_expert_gate.weight", "ffn_gate_inp_shexp.weight", 0,
      ENG_HF_TOPK_NORM },
    { "mlp.shared_expert.gate_proj.weight", "ffn_gate_shexp.weight", 0,
      ENG_HF_TOPK_NORM },
    { "mlp.shared_expert.up_proj.weight", "ffn_up_shexp.weight", 0,
      ENG_HF_TOPK_NORM },
    { "mlp.shared_expert.down_proj.weight", "ffn_down_shexp.weight", 0,
      ENG_HF_TOPK_NORM },
    { "mlp.gate_proj.weight", "ffn_gate.weight", 0, 0 },
    { "mlp.up_proj.weight", "ffn_up.weight", 0, 0 },
    { "mlp.down_proj.weight", "ffn_down.weight", 0, 0 },
};

#define N_TOP    (sizeof(top_names) / sizeof(top_names[0]))
#define N_LAYER  (sizeof(layer_names) / sizeof(layer_names[0]))

/* Parts of models that see: nothing of text needs them. */
static const char *const  ignored[] = {
    "vision_tower.", "model.vision_tower.", "multi_modal_projector.",
    "model.multi_modal_projector.",
};

/* One tensor of the files and what it becomes. */
typedef struct {
    char           gguf[NAME_BYTES];
    uint32_t       nth;           /* in its stack                            */
    uint32_t       index;         /* in st.tensors                           */
    uint32_t       stack;         /* 1: the name has a '*'                   */
    const name_t  *rule;
} entry_t;

typedef struct {
    eng_gguf_t         *g;
    struct eng_folder  *d;
    entry_t            *entry;
    uint32_t            n;
    eng_err_t          *err;
} mapper_t;

static int map_names(mapper_t *m);
static int make_tensors(mapper_t *m);
static int check_head(mapper_t *m);


int
eng_hf_tensors(eng_gguf_t *g, eng_err_t *err)
{
    int       rc;
    size_t    n;
    mapper_t  m = { g, g->folder, NULL, 0, err };

    n = (size_t) m.d->st.n_tensors + ENG_HF_MADE_MAX + 1;
    m.entry = calloc(n, sizeof(m.entry[0]));
    m.d->part = calloc(n, sizeof(m.d->part[0]));
    m.d->place = calloc(n, sizeof(m.d->place[0]));
    m.d->names = calloc(n, NAME_BYTES);
    g->tensors = calloc(n, sizeof(g->tensors[0]));
    if (m.entry == NULL || m.d->part == NULL || m.d->place == NULL
        || m.d->names == NULL || g->tensors == NULL)
    {
        rc = eng_fail(err, ENG_ENOMEM, "%s: no memory for %zu tensors",
                      g->path, n);
    } else {
        rc = map_names(&m);
    }
    if (rc == 0) {
        rc = make_tensors(&m);
    }
    if (rc == 0) {
        rc = eng_gguf_index(g, err);
    }
    if (rc == 0) {
        rc = check_head(&m);
    }
    free(m.entry);

    return rc;
}


/* ---- names -------------------------------------------------------------- */

static int
starts(eng_str_t s, const char *with)
{
    size_t  n = strlen(with);

    return s.len >= n && memcmp(s.p, with, n) == 0;
}


static void
cut(eng_str_t *s, const char *with)
{
    if (starts(*s, with)) {
        s->p += strlen(with);
        s->len -= (uint32_t) strlen(with);
    }
}


/* A number of up to six digits at s, cut off; 0 when there is none. */
static int
cut_number(eng_str_t *s, uint32_t *v)
{
    uint32_t  n;

    *v = 0;
    for (n = 0; n < s->len && n < 6 && s->p[n] >= '0' && s->p[n] <= '9'; n++) {
        *v = *v * 10 + (uint32_t) (s->p[n] - '0');
    }
    if (n == 0 || (n > 1 && s->p[0] == '0')) {
        return 0;
    }
    s->p += n;
    s->len -= n;

    return 1;
}


static int
matches(eng_str_t s, const char *pattern, uint32_t *nth)
{
    const char  *star = strchr(pattern, '*');
    eng_str_t    head;

    *nth = 0;
    if (star == NULL) {
        return eng_str_eq(s, pattern);
    }
    head = (eng_str_t) { pattern, (uint32_t) (star - pattern) };
    if (s.len < head.len || memcmp(s.p, head.p, head.len) != 0) {
        return 0;
    }
    s.p += head.len;
    s.len -= head.len;

    return cut_number(&s, nth) && eng_str_eq(s, star + 1);
}


static int
of_family(const eng_hf_arch_t *arch, const name_t *rule)
{
    uint32_t  flags = arch->flags;

    flags |= flags & ENG_HF_GEMMA ? 0 : ENG_HF_NOT_GEMMA;

    return rule->family == 0 || (rule->family & flags) != 0;
}


static const name_t *
find_rule(const eng_hf_arch_t *arch, const name_t *table, size_t n,
    eng_str_t s, uint32_t *nth)
{
    size_t  i;

    for (i = 0; i < n; i++) {
        if (of_family(arch, &table[i]) && matches(s, table[i].hf, nth)) {
            return &table[i];
        }
    }

    return NULL;
}


static int
skipped(eng_str_t s, int tied)
{
    size_t  i;

    for (i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++) {
        if (starts(s, ignored[i])) {
            return 1;
        }
    }
    /* a table that old files carry and everybody computes */
    if (s.len > 20 && memcmp(s.p + s.len - 20, ".rotary_emb.inv_freq", 20)
                      == 0)
    {
        return 1;
    }
    /* the reference ignores it too when the embedding is said to be it */
    cut(&s, "language_model.");

    return tied && eng_str_eq(s, "lm_head.weight");
}


static int
map_name(mapper_t *m, eng_str_t s, entry_t *e)
{
    uint32_t  layer;

    cut(&s, "language_model.");
    cut(&s, "model.");
    cut(&s, "language_model.");
    if (!starts(s, "layers.")) {
        e->rule = find_rule(m->d->arch, top_names, N_TOP, s, &e->nth);
        if (e->rule != NULL) {
            (void) snprintf(e->gguf, sizeof(e->gguf), "%s", e->rule->gguf);
        }

    } else {
        cut(&s, "layers.");
        if (!cut_number(&s, &layer) || !starts(s, ".")) {
            return 0;
        }
        cut(&s, ".");
        e->rule = find_rule(m->d->arch, layer_names, N_LAYER, s, &e->nth);
        if (e->rule != NULL) {
            (void) snprintf(e->gguf, sizeof(e->gguf), "blk.%u.%s", layer,
                            e->rule->gguf);
        }
    }
    if (e->rule == NULL) {
        return 0;
    }
    e->stack = strchr(e->rule->hf, '*') != NULL;

    return 1;
}


static int
by_name(const void *a, const void *b)
{
    const entry_t  *x = a, *y = b;
    int             c = strcmp(x->gguf, y->gguf);

    return c != 0 ? c : (x->nth > y->nth) - (x->nth < y->nth);
}


static int
map_names(mapper_t *m)
{
    int                     tied = 0;
    char                    name[ENG_NAME_MAX];
    uint32_t                i;
    const eng_st_tensor_t  *t;

    /* once: each question reads the whole file */
    (void) eng_cfg_bool(&m->d->config, "tie_word_embeddings", &tied, NULL);
    for (i = 0; i < m->d->st.n_tensors; i++) {
        t = &m->d->st.tensors[i];
        if (skipped(t->name, tied)) {
            continue;
        }
        m->entry[m->n].index = i;
        if (!map_name(m, t->name, &m->entry[m->n])) {
            eng_str_print(t->name, name, sizeof(name));
            return eng_fail(m->err, ENG_EUNSUP, "%s: tensor \"%s\" has no "
                            "place in a model of the type \"%s\"",
                            m->g->path, name, m->d->arch->model_type);
        }
        m->n++;
    }
    qsort(m->entry, m->n, sizeof(m->entry[0]), by_name);

    return ENG_OK;
}


int
eng_hf_label(const struct eng_folder *f, const char *name, char *dst,
    size_t cap)
{
    size_t         i, n = N_TOP;
    char           at[32] = "";
    uint32_t       layer = 0;
    const name_t  *table = top_names;
    eng_str_t      s = { name, (uint32_t) strlen(name) };

    if (starts(s, "blk.")) {
        cut(&s, "blk.");
        (void) cut_number(&s, &layer);
        cut(&s, ".");
        (void) snprintf(at, sizeof(at), "layers.%u.", layer);
        table = layer_names;
        n = N_LAYER;
    }
    for (i = 0; i < n; i++) {
        if (of_family(f->arch, &table[i]) && eng_str_eq(s, table[i].gguf)) {
            (void) snprintf(dst, cap, "%s%s%s",
                            strncmp(table[i].hf, "lm_head", 7) == 0 ? ""
                            : "model.", at, table[i].hf);
            return 1;
        }
    }

    return 0;
}


/* ---- tensors ------------------------------------------------------------ */

static int
fail_at(mapper_t *m, const entry_t *e, int code, const char *what)
{
    char                    name[ENG_NAME_MAX];
    const eng_st_tensor_t  *t = &m->d->st.tensors[e->index];

    eng_str_print(t->name, name, sizeof(name));

    return eng_fail(m->err, code, "%s: tensor \"%s\" %s",
                    m->d->st.files[t->file].path, name, what);
}


static int
same_shape(const eng_st_tensor_t *a, const eng_st_tensor_t *b)
{
    return a->n_dims == b->n_dims && a->type == b->type
           && memcmp(a->dim, b->dim, sizeof(a->dim)) == 0;
}


static int
set_shape(mapper_t *m, const entry_t *e, uint32_t parts, eng_gguf_tensor_t *t)
{
    uint32_t                i;
    const eng_st_tensor_t  *s = &m->d->st.tensors[e->index];

    if (s->type == ENG_ST_NO_TYPE || s->elements == 0) {
        return fail_at(m, e, ENG_EUNSUP, s->elements == 0 ? "is empty"
                       : "holds no floats (F32, F16 or BF16)");
    }
    t->n_dims = s->n_dims + e->stack;
    if (s->n_dims == 0 || t->n_dims > ENG_GGUF_DIMS_MAX) {
        return fail_at(m, e, ENG_EUNSUP, "must have 1 to 4 dimensions");
    }
    for (i = 0; i < ENG_GGUF_DIMS_MAX; i++) {
        t->dim[i] = i < s->n_dims ? s->dim[s->n_dims - 1 - i] : 1;
    }
    if (e->stack) {
        t->dim[s->n_dims] = parts;
    }
    if (!eng_chk_mul(s->elements, parts, &t->elements)
        || !eng_chk_mul(s->bytes, parts, &t->bytes))
    {
        return fail_at(m, e, ENG_ELIMIT, "is too large");
    }
    t->type = s->type;

    return ENG_OK;
}


/* Vectors become floats, as the conversion to GGUF has them. */
static int
set_place(mapper_t *m, const entry_t *e, eng_gguf_tensor_t *t,
    eng_place_t *place)
{
    uint32_t              head_dim = m->d->head_dim;
    uint64_t              rows;
    const eng_hf_arch_t  *arch = m->d->arch;

    if ((e->rule->how & HEADS) && (arch->flags & ENG_HF_INTERLEAVE)) {
        rows = t->elements / t->dim[0];
        if (t->n_dims != 2 || head_dim < 2 || head_dim % 2 != 0
            || rows % head_dim != 0)
        {
            return fail_at(m, e, ENG_EFORMAT, "has rows that are no whole "
                           "heads");
        }
        place->how |= ENG_ROWS_HEADS;
        place->head_rows = head_dim;
    }
    if (t->n_dims != 1) {
        return ENG_OK;
    }
    if (t->type != 0 && t->type != 1 && t->type != 30) {
        return fail_at(m, e, ENG_EUNSUP, "is a vector and must be F32, F16 or "
                       "BF16");
    }
    place->how |= ENG_ROWS_FLOAT;
    if ((e->rule->how & NORM) && (arch->flags & ENG_HF_GEMMA)) {
        place->how |= ENG_ROWS_PLUS_ONE;
    }
    t->type = 0;
    t->bytes = t->elements * 4;   /* no overflow: elements are in a file */

    return ENG_OK;
}


static int
make_tensor(mapper_t *m, uint32_t first, uint32_t n)
{
    int                 rc;
    char               *name;
    uint32_t            i;
    const entry_t      *e = &m->entry[first];
    eng_place_t        *place = &m->d->place[m->g->n_tensors];
    eng_gguf_tensor_t  *t = &m->g->tensors[m->g->n_tensors];

    for (i = 0; i < n; i++) {
        if (!e->stack && i > 0) {
            return fail_at(m, &e[i], ENG_EFORMAT, "is there a second time "
                           "under another name");
        }
        if (e->stack && e[i].nth != i) {
            return fail_at(m, &e[i], ENG_EFORMAT, "does not follow the one "
                           "before it: its number is not the next");
        }
        if (!same_shape(&m->d->st.tensors[e[i].index],
                        &m->d->st.tensors[e->index]))
        {
            return fail_at(m, &e[i], ENG_EFORMAT, "has another shape or type "
                           "than the first of its kind");
        }
        m->d->part[first + i] = e[i].index;
    }

    place->first = first;
    place->n_parts = n;
    name = m->d->names + (size_t) m->g->n_tensors * NAME_BYTES;
    memcpy(name, e->gguf, NAME_BYTES);
    t->name = (eng_str_t) { name, (uint32_t) strlen(name) };
    rc = set_shape(m, e, n, t);
    if (rc == 0) {
        rc = set_place(m, e, t, place);
    }
    if (rc == 0) {
        m->g->n_tensors++;
    }

    return rc;
}


/* Factors of rotary frequencies, which a folder has in its config.json. */
static void
make_factors(mapper_t *m)
{
    uint32_t            i;
    eng_gguf_tensor_t  *t;
    struct eng_folder  *d = m->d;

    for (i = 0; i < d->n_made; i++) {
        t = &m->g->tensors[m->g->n_tensors];
        t->name = (eng_str_t) { d->made_name[i],
                                (uint32_t) strlen(d->made_name[i]) };
        t->n_dims = 1;
        t->dim[0] = d->made_len;
        t->dim[1] = t->dim[2] = t->dim[3] = 1;
        t->elements = d->made_len;
        t->bytes = t->elements * 4;
        d->place[m->g->n_tensors].made = d->made[i];
        m->g->n_tensors++;
    }
}


static int
make_tensors(mapper_t *m)
{
    int       rc = ENG_OK;
    uint32_t  i, n;

    for (i = 0; rc == 0 && i < m->n; i += n) {
        for (n = 1; i + n < m->n
             && strcmp(m->entry[i + n].gguf, m->entry[i].gguf) == 0; n++)
        {
            /* void */
        }
        rc = make_tensor(m, i, n);
    }
    if (rc == 0) {
        make_factors(m);
    }

    return rc;
}


/* The output matrix may be left out only where the embedding is it; the rows
   of the embedding are the vocabulary of config.json. */
static int
check_head(mapper_t *m)
{
    int                       rc, tied = 1;
    char                      path[32];
    uint32_t                  vocab = 0;
    const eng_gguf_tensor_t  *t;

    (void) snprintf(path, sizeof(path), "%svocab_size", m->d->prefix);
    t = eng_gguf_tensor(m->g, "token_embd.weight");
    rc = eng_cfg_u32(&m->d->config, path, 1, ENG_VOCAB_MAX, &vocab, m->err);
    if (rc < 0) {
        return rc;
    }
    if (rc == 1 && t != NULL && t->dim[1] != vocab) {
        return eng_fail(m->err, ENG_EFORMAT, "%s: \"%s\" is %u, but tensor "
                        "\"model.embed_tokens.weight\" has %llu rows",
                        m->d->config.name, path, vocab,
                        (unsigned long long) t->dim[1]);
    }

    rc = eng_cfg_bool(&m->d->config, "tie_word_embeddings", &tied, m->err);
    if (rc < 0) {
        return rc;
    }
    if (!tied && eng_gguf_tensor(m->g, "output.weight") == NULL) {
        return eng_fail(m->err, ENG_EFORMAT, "%s: tensor \"lm_head.weight\" "
                        "is missing, and \"tie_word_embeddings\" is false",
                        m->g->path);
    }

    return ENG_OK;
}
