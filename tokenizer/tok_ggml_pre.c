/*
 * tok_ggml_pre.c: what tokenizer.ggml.pre names: the pre-tokenizer of the
 * tokenizer.json that a byte-level vocabulary was made from, and what else
 * went with it.  Patterns that no scanner knows are written as those files
 * have them.  A name that is not here is refused.
 */

#include "tokenizer/tok_ggml.h"
#include "tokenizer/tok_hf.h"


enum {
    PRE_NFC = 1, PRE_IGNORE_MERGES = 2, PRE_BOS = 4, PRE_DIGITS = 8,
    PRE_WORDS = 16,                 /* behind the patterns gpt-2's own */
    PRE_FALCON = 32
};

/* Upper, lower and title case letters, as the model's file lists them. */
static const char  deepseek_letters[] =
    "\\s?[A-Za-z\xc2\xb5\xc3\x80-\xc3\x96\xc3\x98-\xc3\xb6\xc3\xb8-\xc6\xba"
    "\xc6\xbc-\xc6\xbf\xc7\x84-\xca\x93\xca\x95-\xca\xaf\xcd\xb0-\xcd\xb3"
    "\xcd\xb6\xcd\xb7\xcd\xbb-\xcd\xbd\xcd\xbf\xce\x86\xce\x88-\xce\x8a"
    "\xce\x8c\xce\x8e-\xce\xa1\xce\xa3-\xcf\xb5\xcf\xb7-\xd2\x81\xd2\x8a-"
    "\xd4\xaf\xd4\xb1-\xd5\x96\xe1\x82\xa0-\xe1\x83\x85\xe1\x8e\xa0-"
    "\xe1\x8f\xb5\xe1\x8f\xb8-\xe1\x8f\xbd\xe1\xb2\x90-\xe1\xb2\xba"
    "\xe1\xb2\xbd-\xe1\xb2\xbf\xe1\xb4\x80-\xe1\xb4\xab\xe1\xb5\xab-"
    "\xe1\xb5\xb7\xe1\xb5\xb9-\xe1\xb6\x9a\xe1\xb8\x80-\xe1\xbc\x95"
    "\xe1\xbc\x98-\xe1\xbc\x9d\xe1\xbc\xa0-\xe1\xbd\x85\xe1\xbd\x88-"
    "\xe1\xbd\x8d\xe1\xbd\x90-\xe1\xbd\x97\xe1\xbd\x99\xe1\xbd\x9b"
    "\xe1\xbd\x9d\xe1\xbd\x9f-\xe1\xbd\xbd\xe1\xbe\x80-\xe1\xbe\xb4"
    "\xe1\xbe\xb6-\xe1\xbe\xbc\xe1\xbe\xbe\xe1\xbf\x82-\xe1\xbf\x84"
    "\xe1\xbf\x86-\xe1\xbf\x8c\xe1\xbf\x90-\xe1\xbf\x93\xe1\xbf\x96-"
    "\xe1\xbf\x9b\xe1\xbf\xa0-\xe1\xbf\xac\xe1\xbf\xb2-\xe1\xbf\xb4"
    "\xe1\xbf\xb6-\xe1\xbf\xbc\xe2\x84\x82\xe2\x84\x87\xe2\x84\x8a-"
    "\xe2\x84\x93\xe2\x84\x95\xe2\x84\x99-\xe2\x84\x9d\xe2\x84\xa4"
    "\xe2\x84\xa6\xe2\x84\xa8\xe2\x84\xaa-\xe2\x84\xad\xe2\x84\xaf-"
    "\xe2\x84\xb4\xe2\x84\xb9\xe2\x84\xbc-\xe2\x84\xbf\xe2\x85\x85-"
    "\xe2\x85\x89\xe2\x85\x8e\xe2\x86\x83\xe2\x86\x84\xe2\xb0\x80-"
    "\xe2\xb1\xbb\xe2\xb1\xbe-\xe2\xb3\xa4\xe2\xb3\xab-\xe2\xb3\xae"
    "\xe2\xb3\xb2\xe2\xb3\xb3\xea\x99\x80-\xea\x99\xad\xea\x9a\x80-"
    "\xea\x9a\x9b\xea\x9c\xa2-\xea\x9d\xaf\xea\x9d\xb1-\xea\x9e\x87"
    "\xea\x9e\x8b-\xea\x9e\x8e\xea\xad\xb0-\xea\xae\xbf\xef\xac\x80-"
    "\xef\xac\x86\xef\xac\x93-\xef\xac\x97\xef\xbc\xa1-\xef\xbc\xba"
    "\xef\xbd\x81-\xef\xbd\x9a\xf0\x90\x90\x80-\xf0\x90\x91\x8f"
    "\xf0\x90\x92\xb0-\xf0\x90\x93\x93\xf0\x90\x93\x98-\xf0\x90\x93\xbb"
    "\xf0\x90\xb2\x80-\xf0\x90\xb2\xb2\xf0\x90\xb3\x80-\xf0\x90\xb3\xb2"
    "\xf0\x91\xa2\xa0-\xf0\x91\xa3\x9f\xf0\x9e\xa4\x80-\xf0\x9e\xa5\x83]+";

static const char *const  deepseek_llm[] = {
    "[\r\n]", deepseek_letters,
    "\\s?[!-/:-~\xef\xbc\x81-\xef\xbc\x8f\xef\xbc\x9a-\xef\xbd\x9e\xe2"
    "\x80\x98-\xe2\x80\x9f\xe3\x80\x80-\xe3\x80\x82]+",
    "\\s+$",
    "[\xe4\xb8\x80-\xe9\xbe\xa5\xe0\xa0\x80-\xe4\xb8\x80\xea\xb0\x80-"
    "\xed\x9f\xbf]+",
    "\\p{N}", NULL
};
static const char *const  deepseek_coder[] = {
    "[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+",
    "[\xe4\xb8\x80-\xe9\xbe\xa5\xe0\xa0\x80-\xe4\xb8\x80\xea\xb0\x80-"
    "\xed\x9f\xbf]+",
    "\\p{N}", NULL
};
static const char *const  bloom[] = {
    " ?[^(\\s|[.,!?\xe2\x80\xa6\xe3\x80\x82\xef\xbc\x8c\xe3\x80\x81\xe0"
    "\xa5\xa4\xdb\x94\xd8\x8c])]+",
    NULL
};
static const char *const  viking[] = {
    " ?[^(\\s|[.,!?\xe2\x80\xa6\xe3\x80\x82\xef\xbc\x8c\xe3\x80\x81\xe0"
    "\xa5\xa4\xdb\x94\xd8\x8c])]+",
    "\\p{N}", NULL
};
static const char *const  chameleon[] = {
    "<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
    "([\\t\\n]|    |  )", "\\p{N}", "[\\p{P}!-/:-@\\[-`{-~]", NULL
};
static const char *const  bailing[] = {
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+", NULL
};
static const char *const  seed_coder[] = {
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
    "\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|\\s*[\\r\\n]+|"
    "\\s+(?!\\S)|\\s+", NULL
};
static const char *const  qwen35[] = {
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|"
    "\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
    "\\s+(?!\\S)|\\s+", NULL
};
static const char *const  minicpm5[] = {
    "\\p{N}{1,3}",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
    "\\p{N}+| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
    "\\s+(?!\\S)|\\s+", NULL
};

static const struct {
    const char         *name;
    uint16_t            scan;       /* TOK_R_*, or 0: the patterns */
    uint16_t            flags;
    const char *const  *patterns;
}  pres[] = {
    { "gpt-2", TOK_R_GPT2, 0, NULL },
    { "gpt2", TOK_R_GPT2, 0, NULL },
    { "phi-2", TOK_R_GPT2, 0, NULL },
    { "mpt", TOK_R_GPT2, PRE_NFC, NULL },
    { "olmo", TOK_R_GPT2, PRE_NFC, NULL },
    { "jina-es", TOK_R_GPT2, 0, NULL },
    { "jina-de", TOK_R_GPT2, 0, NULL },
    { "jina-v2-code", TOK_R_GPT2, 0, NULL },
    { "roberta-bpe", TOK_R_GPT2, 0, NULL },
    { "trillion", TOK_R_GPT2, 0, NULL },
    { "granite-docling", TOK_R_GPT2, 0, NULL },
    { "starcoder", TOK_R_GPT2_DIGITS, PRE_DIGITS, NULL },
    { "refact", TOK_R_GPT2_DIGITS, PRE_DIGITS, NULL },
    { "command-r", TOK_R_GPT2_DIGITS, PRE_DIGITS | PRE_NFC, NULL },
    { "smollm", TOK_R_GPT2_DIGITS, PRE_DIGITS, NULL },
    { "codeshell", TOK_R_GPT2_DIGITS, PRE_DIGITS, NULL },
    { "exaone", TOK_R_GPT2_DIGITS, PRE_DIGITS | PRE_NFC, NULL },
    { "minerva-7b", TOK_R_GPT2_DIGITS, PRE_DIGITS, NULL },
    { "llama3", TOK_R_CL100K, PRE_IGNORE_MERGES | PRE_BOS, NULL },
    { "llama-v3", TOK_R_CL100K, PRE_IGNORE_MERGES | PRE_BOS, NULL },
    { "llama-bpe", TOK_R_CL100K, PRE_IGNORE_MERGES | PRE_BOS, NULL },
    { "falcon3", TOK_R_CL100K, PRE_IGNORE_MERGES, NULL },
    { "pixtral", TOK_R_TEKKEN, PRE_IGNORE_MERGES | PRE_BOS, NULL },
    { "dbrx", TOK_R_CL100K, 0, NULL },
    { "smaug-bpe", TOK_R_CL100K, 0, NULL },
    { "glm4", TOK_R_CL100K, PRE_IGNORE_MERGES, NULL },
    { "chatglm-bpe", TOK_R_CL100K, 0, NULL },
    { "gpt-4", TOK_R_CL100K, 0, NULL },
    { "qwen2", TOK_R_QWEN2, PRE_NFC, NULL },
    { "deepseek-r1-qwen", TOK_R_QWEN2, PRE_NFC, NULL },
    { "stablelm2", TOK_R_QWEN2, PRE_NFC, NULL },
    { "hunyuan", TOK_R_QWEN2, 0, NULL },
    { "megrez", TOK_R_QWEN2, PRE_NFC, NULL },
    { "gpt-4o", TOK_R_O200K, 0, NULL },
    { "llama4", TOK_R_O200K, 0, NULL },
    { "tekken", TOK_R_TEKKEN, PRE_IGNORE_MERGES | PRE_BOS, NULL },
    { "deepseek-v3", TOK_R_DEEPSEEK3, 0, NULL },
    { "hunyuan-dense", TOK_R_DEEPSEEK3, 0, NULL },
    { "jina-v1-en", TOK_R_GPT2, 0, NULL },
    { "jina-v2-es", TOK_R_GPT2, 0, NULL },
    { "jina-v2-de", TOK_R_GPT2, 0, NULL },
    { "gigachat", TOK_R_GPT2, 0, NULL },
    { "a.x-4.0", TOK_R_GPT2, 0, NULL },
    { "mellum", TOK_R_GPT2, 0, NULL },
    { "modern-bert", TOK_R_GPT2, PRE_NFC, NULL },
    { "exaone4", TOK_R_GPT2, 0, NULL },
    { "jais", TOK_R_GPT2, 0, NULL },
    { "mellum2", TOK_R_GPT2_DIGITS, PRE_DIGITS, NULL },
    { "falcon-h1", TOK_R_CL100K, PRE_IGNORE_MERGES | PRE_BOS, NULL },
    { "midm-2.0", TOK_R_CL100K, PRE_IGNORE_MERGES | PRE_BOS, NULL },
    { "lfm2", TOK_R_CL100K, PRE_IGNORE_MERGES | PRE_BOS, NULL },
    { "jina-v5-nano", TOK_R_CL100K, PRE_IGNORE_MERGES | PRE_BOS, NULL },
    { "glm5", TOK_R_CL100K, PRE_IGNORE_MERGES, NULL },
    { "kormo", TOK_R_QWEN2, 0, NULL },
    { "f2llmv2", TOK_R_QWEN2, 0, NULL },
    { "solar-open", TOK_R_QWEN2, 0, NULL },
    { "grok-2", TOK_R_QWEN2, 0, NULL },
    { "kanana2", TOK_R_O200K, 0, NULL },
    { "talkie", TOK_R_O200K, 0, NULL },
    { "minimax-m2", TOK_R_O200K, 0, NULL },
    { "joyai-llm", TOK_R_DEEPSEEK3, 0, NULL },
    { "hy_v4", TOK_R_DEEPSEEK3, 0, NULL },
    { "falcon", 0, PRE_FALCON, NULL },
    { "deepseek-llm", 0, 0, deepseek_llm },
    { "deepseek-coder", 0, 0, deepseek_coder },
    { "bloom", 0, 0, bloom },
    { "poro-chat", 0, 0, bloom },
    { "gpt3-finnish", 0, 0, bloom },
    { "viking", 0, 0, viking },
    { "chameleon", 0, PRE_BOS | PRE_WORDS, chameleon },
    { "bailingmoe", 0, 0, bailing },
    { "bailingmoe2", 0, 0, bailing },
    { "llada-moe", 0, 0, bailing },
    { "seed-coder", 0, 0, seed_coder },
    { "qwen35", 0, PRE_NFC, qwen35 },
    { "minicpm5", 0, PRE_IGNORE_MERGES, minicpm5 }
};


bool
tok_ggml_pre_find(tok_str_t name, size_t *at)
{
    size_t  i;

    for (i = 0; i < sizeof(pres) / sizeof(pres[0]); i++) {
        if (name.len == strlen(pres[i].name)
            && memcmp(name.ptr, pres[i].name, name.len) == 0)
        {
            *at = i;
            return true;
        }
    }
    return false;
}


bool
tok_ggml_pre_bos(size_t at)
{
    return pres[at].flags & PRE_BOS;
}


static int
step(tok_build_t *b, uint16_t type, uint32_t a, uint32_t behaviour)
{
    tok_op_t  op = { .type = type, .a = a, .b = behaviour };

    return tok_build_op(b, &b->pre, &op);
}


static int
pattern(tok_build_t *b, const char *text)
{
    tok_json_t  j = { .name = "tokenizer.ggml.pre", .err = b->err };
    tok_hf_t    f = { .b = b, .j = &j };
    tok_op_t    op = { .type = TOK_P_SPLIT_RE, .b = TOK_B_ISOLATED };
    int         rc = tok_hf_translate(&f, (tok_str_t) { text, strlen(text) },
                                      &op.s);

    return rc == 0 ? tok_build_op(b, &b->pre, &op) : rc;
}


/* Here the byte-level step comes first and the others see its characters. */
static int
falcon(tok_build_t *b)
{
    int  rc = step(b, TOK_P_PUNCT, 0, TOK_B_CONTIGUOUS);

    if (rc == 0) {
        rc = step(b, TOK_P_BYTE_LEVEL, 0, 1);
    }
    if (rc == 0) {
        rc = step(b, TOK_P_DIGITS, 0, TOK_B_CONTIGUOUS);
    }
    return rc == 0 ? pattern(b, "[0-9][0-9][0-9]") : rc;
}


int
tok_ggml_pre(tok_build_t *b, size_t at)
{
    const char *const  *p = pres[at].patterns;
    uint16_t            flags = pres[at].flags;
    bool                words;
    int                 rc = 0;

    if (flags & PRE_IGNORE_MERGES) {
        b->h.bpe_flags |= TOK_BPE_IGNORE_MERGES;
    }
    if (flags & PRE_NFC) {
        rc = tok_ggml_op(b, &b->norm, TOK_N_NFC, 0, 0, NULL, NULL);
    }
    if (rc == 0 && (flags & PRE_FALCON)) {
        return falcon(b);
    }
    if (rc == 0 && (flags & PRE_DIGITS)) {
        rc = step(b, TOK_P_DIGITS, 1, TOK_B_ISOLATED);

    } else if (rc == 0 && p == NULL && pres[at].scan != TOK_R_GPT2) {
        rc = step(b, TOK_P_SCAN, pres[at].scan, TOK_B_ISOLATED);
    }
    for (/* void */; rc == 0 && p != NULL && *p != NULL; p++) {
        rc = pattern(b, *p);
    }
    words = pres[at].scan == TOK_R_GPT2 || (flags & (PRE_DIGITS | PRE_WORDS));
    return rc == 0 ? step(b, TOK_P_BYTE_LEVEL, 0, words) : rc;
}
