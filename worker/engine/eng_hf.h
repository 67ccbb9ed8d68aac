/*
 * A Hugging Face folder as keys and tensors by GGUF's names.  For the files
 * of this folder only; others use eng_source.h.
 *
 * To add an architecture: a line in archs[] (eng_hf.c), what its config.json
 * has beyond others in the tables there, names of new tensors in the tables
 * of eng_hf_names.c.  Whatever has no place is refused by name.
 */
#ifndef ENG_HF_H
#define ENG_HF_H

#include "worker/engine/eng_arch.h"
#include "worker/engine/eng_cfg.h"
#include "worker/engine/eng_gguf.h"
#include "worker/engine/eng_st.h"

#define ENG_HF_KEYS_MAX    64u
#define ENG_HF_MADE_MAX    3u     /* tensors of factors that no file holds   */

/* How rows get from the file to where they are wanted. */
#define ENG_ROWS_FLOAT     1u     /* as floats                               */
#define ENG_ROWS_PLUS_ONE  2u     /* with one added (norms of Gemma)         */
#define ENG_ROWS_HEADS     4u     /* each head's halves interleaved: rotary
                                     order "normal" from "NeoX"              */

/* What sets names and values of one family apart from others. */
#define ENG_HF_GEMMA       0x01u  /* norms hold w - 1, and stand elsewhere   */
#define ENG_HF_INTERLEAVE  0x02u  /* q and k rows for the order "normal"     */
#define ENG_HF_WINDOW      0x04u  /* "sliding_window" counts                 */
#define ENG_HF_NESTED      0x08u  /* sizes in "text_config"                  */
#define ENG_HF_TOPK_NORM   0x20u  /* experts, "norm_topk_prob" counts        */
#define ENG_HF_FUSED       0x40u  /* q|k|v and gate|up are a tensor each     */
#define ENG_HF_SPARSE      0x80u  /* experts as Mixtral names them           */
#define ENG_HF_NOT_GEMMA   0x10u  /* in name tables: any other family        */

typedef struct {
    const char  *model_type;      /* config.json                             */
    const char  *arch;            /* GGUF                                    */
    uint32_t     flags;
    uint32_t     global_every;    /* layers n-1, 2n-1 ... see everything; 0:
                                     all do; ENG_HF_NONE: none does          */
    uint32_t     nope_every;
    const char  *act;             /* "silu"                                  */
    const char  *defaults;        /* JSON of what a config.json may leave out */
} eng_hf_arch_t;

#define ENG_HF_NONE  UINT32_MAX

/* Where a tensor of the table comes from. */
typedef struct {
    uint32_t      first;          /* in part[]                               */
    uint32_t      n_parts;        /* tensors of equal shape, one after other */
    uint32_t      how;
    uint32_t      head_rows;      /* ENG_ROWS_HEADS                          */
    const float  *made;           /* NULL, or the values themselves          */
} eng_place_t;

struct eng_folder {
    const char           *path;
    const eng_hf_arch_t  *arch;
    const char           *prefix; /* of questions to config: "" or nested    */
    eng_st_t              st;
    eng_cfg_t             config;
    eng_cfg_t             generation;   /* text NULL: there is none          */
    eng_cfg_t             defaults;     /* the same                          */
    eng_place_t          *place;        /* by tensor                         */
    uint32_t             *part;         /* indexes into st.tensors           */
    char                 *names;        /* GGUF names of all tensors         */
    uint32_t              n_texts;
    char                  text[2 * ENG_HF_KEYS_MAX][ENG_NAME_MAX];
    uint32_t              head_dim;
    uint32_t              n_made;
    uint32_t              made_len;
    const char           *made_name[ENG_HF_MADE_MAX];
    float                 made[ENG_HF_MADE_MAX][KERN_HEAD_MAX / 2];
};

/* Finds the architecture and fills g's keys from config.json. */
int eng_hf_keys(eng_gguf_t *g, eng_err_t *err);

/* Fills g's tensors from the safetensors tables. */
int eng_hf_tensors(eng_gguf_t *g, eng_err_t *err);

/* The folder's name of the tensor that has this GGUF name; 0: none known. */
int eng_hf_label(const struct eng_folder *f, const char *name, char *dst,
    size_t cap);

#endif
