/*
 * tok_hf_parts.c: normalizers, pre-tokenizers, post-processors and decoders
 * of a tokenizer.json become steps.
 */

#include "tokenizer/tok_hf.h"
#include "tokenizer/tok_charsmap.h"


static int
add(tok_hf_t *f, tok_vec_t *list, const tok_op_t *op)
{
    return tok_build_op(f->b, list, op);
}


/* --- normalizers ------------------------------------------------------- */

static int
norm_add(tok_hf_t *f, uint16_t type)
{
    tok_op_t  op = { .type = type };

    return add(f, &f->b->norm, &op);
}


static int
norm_bert(tok_hf_t *f, const tok_members_t *m)
{
    bool  clean, chinese, lower, strip;
    int   rc = tok_hf_flag(f, m, "clean_text", -1, &clean);

    if (rc == 0) {
        rc = tok_hf_flag(f, m, "handle_chinese_chars", -1, &chinese);
    }
    if (rc == 0) {
        rc = tok_hf_flag(f, m, "lowercase", -1, &lower);
    }
    if (rc != 0) {
        return rc;
    }
    strip = lower;
    if (tok_json_at(f->j, m, "strip_accents") && !tok_json_null(f->j)) {
        rc = tok_json_bool(f->j, &strip);
    }
    if (rc == 0 && clean) {
        rc = norm_add(f, TOK_N_CLEAN);
    }
    if (rc == 0 && chinese) {
        rc = norm_add(f, TOK_N_CHINESE);
    }
    if (rc == 0 && strip) {
        rc = norm_add(f, TOK_N_NFD);
        if (rc == 0) {
            rc = norm_add(f, TOK_N_STRIP_MN);
        }
    }
    return rc == 0 && lower ? norm_add(f, TOK_N_LOWER) : rc;
}


static int
base64_digit(uint8_t c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}


/* Standard alphabet, padding required, no white space. */
static int
base64(tok_hf_t *f, tok_str_t s, tok_vec_t *out)
{
    uint8_t   *d;
    uint32_t   v;
    size_t     i, k, pad = 0;
    int        x;

    if (s.len % 4 || tok_vec_room(out, s.len / 4 * 3 + 4, 1) != 0) {
        return tok_json_fail(f->j, TOK_E_FORMAT, "precompiled_charsmap is no "
                             "base64");
    }
    d = (uint8_t *) out->ptr + out->n;
    while (s.len && pad < 2 && s.ptr[s.len - 1] == '=') {
        s.len--;
        pad++;
    }
    for (i = 0; i < s.len; i += 4) {
        v = 0;
        for (k = 0; k < 4; k++) {
            x = i + k < s.len ? base64_digit((uint8_t) s.ptr[i + k]) : 0;
            if (x < 0) {
                return tok_json_fail(f->j, TOK_E_FORMAT, "precompiled_charsmap"
                                     " is no base64");
            }
            v = v << 6 | (uint32_t) x;
        }
        *d++ = (uint8_t) (v >> 16);
        *d++ = (uint8_t) (v >> 8);
        *d++ = (uint8_t) v;
    }
    out->n = (size_t) (d - (uint8_t *) out->ptr) - pad;
    return 0;
}


static int
norm_charsmap(tok_hf_t *f, const tok_members_t *m)
{
    tok_op_t    op = { .type = TOK_N_CHARSMAP };
    tok_vec_t  *map = &f->b->charsmap;
    tok_str_t   s;
    int         rc;

    if (!tok_json_at(f->j, m, "precompiled_charsmap")) {
        return tok_json_fail(f->j, TOK_E_FORMAT, "precompiled_charsmap is "
                             "missing");
    }
    rc = tok_json_string(f->j, &s);
    op.s.off = (uint32_t) map->n;
    if (rc == 0) {
        rc = base64(f, s, map);
    }
    if (rc != 0) {
        return rc;
    }
    op.s.len = (uint32_t) map->n - op.s.off;
    if (tok_charsmap_check((uint8_t *) map->ptr + op.s.off, op.s.len) != 0) {
        return tok_json_fail(f->j, TOK_E_FORMAT, "precompiled_charsmap is "
                             "damaged");
    }
    return add(f, &f->b->norm, &op);
}


static int
norm_strip(tok_hf_t *f, const tok_members_t *m)
{
    tok_op_t  op = { .type = TOK_N_STRIP };
    bool      left, right;
    int       rc = tok_hf_flag(f, m, "strip_left", -1, &left);

    if (rc == 0) {
        rc = tok_hf_flag(f, m, "strip_right", -1, &right);
    }
    if (rc != 0) {
        return rc;
    }
    op.a = left;
    op.b = right;
    return add(f, &f->b->norm, &op);
}


static int
norm_replace(tok_hf_t *f, const tok_members_t *m)
{
    tok_op_t  op = { 0 };
    int       rc = tok_hf_pattern(f, m, &op, TOK_N_REPLACE, TOK_N_REPLACE_RE,
                                  NULL);

    if (rc == 0) {
        rc = tok_hf_text(f, m, "content", &op.r);
    }
    return rc == 0 ? add(f, &f->b->norm, &op) : rc;
}


static int
norm_prepend(tok_hf_t *f, const tok_members_t *m)
{
    tok_op_t  op = { .type = TOK_N_PREPEND };
    int       rc = tok_hf_text(f, m, "prepend", &op.s);

    return rc == 0 ? add(f, &f->b->norm, &op) : rc;
}


static int
norm_one(tok_hf_t *f, const tok_members_t *m, tok_str_t type)
{
    static const struct {
        const char  *name;
        uint16_t     type;
    }  plain[] = {
        { "NFC", TOK_N_NFC }, { "NFD", TOK_N_NFD }, { "NFKC", TOK_N_NFKC },
        { "NFKD", TOK_N_NFKD }, { "Lowercase", TOK_N_LOWER },
        { "StripAccents", TOK_N_STRIP_ACCENTS }, { "Nmt", TOK_N_NMT },
        { "ByteLevel", TOK_N_BYTE_LEVEL }
    };
    size_t  i;

    for (i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
        if (tok_hf_is(type, plain[i].name)) {
            return norm_add(f, plain[i].type);
        }
    }
    if (tok_hf_is(type, "BertNormalizer")) {
        return norm_bert(f, m);
    }
    if (tok_hf_is(type, "Strip")) {
        return norm_strip(f, m);
    }
    if (tok_hf_is(type, "Replace")) {
        return norm_replace(f, m);
    }
    if (tok_hf_is(type, "Prepend")) {
        return norm_prepend(f, m);
    }
    if (tok_hf_is(type, "Precompiled")) {
        return norm_charsmap(f, m);
    }
    return tok_hf_unknown(f, "normalizer", type);
}


int
tok_hf_normalizer(tok_hf_t *f)
{
    return tok_hf_walk(f, "normalizers", norm_one);
}


/* --- pre-tokenizers ---------------------------------------------------- */

static const char  re_cl100k[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char  re_qwen2[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char  re_o200k[] =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*"
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+"
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|"
    "\\s+(?!\\S)|\\s+";
static const char  re_tekken[] =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*"
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+"
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|"
    "\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|"
    "\\s+(?!\\S)|\\s+";
static const char  re_gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|"
    "\\s+(?!\\S)|\\s+";
static const char  re_num3[] = "\\p{N}{1,3}";
static const char  re_kana[] =
    "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f\xe3\x82\xa0-"
    "\xe3\x83\xbf]+";
static const char  re_deepseek[] =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
    "[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|"
    "\\s*[\r\n]+|\\s+(?!\\S)|\\s+";

/* Marks of the parts of DeepSeek's pattern until all three are there. */
enum { PART_NUM3 = 1, PART_KANA, PART_DEEPSEEK };

static const struct {
    const char  *text;
    uint32_t     scan;              /* TOK_R_*, covers every text */
    uint16_t     part;
}  known[] = {
    { re_cl100k, TOK_R_CL100K, 0 }, { re_qwen2, TOK_R_QWEN2, 0 },
    { re_o200k, TOK_R_O200K, 0 }, { re_tekken, TOK_R_TEKKEN, 0 },
    { re_gpt2, TOK_R_GPT2, 0 }, { re_num3, 0, PART_NUM3 },
    { re_kana, 0, PART_KANA }, { re_deepseek, 0, PART_DEEPSEEK }
};


static int
behaviour(tok_hf_t *f, const tok_members_t *m, bool needed, uint32_t *v)
{
    static const struct {
        const char  *name;
        uint32_t     v;
    }  names[] = {
        { "Removed", TOK_B_REMOVED }, { "Isolated", TOK_B_ISOLATED },
        { "MergedWithPrevious", TOK_B_PREVIOUS },
        { "MergedWithNext", TOK_B_NEXT }, { "Contiguous", TOK_B_CONTIGUOUS }
    };
    tok_str_t  s;
    size_t     i;
    int        rc;

    if (!tok_json_at(f->j, m, "behavior")) {
        if (needed) {
            return tok_json_fail(f->j, TOK_E_FORMAT, "\"behavior\" is "
                                 "missing");
        }
        *v = TOK_B_ISOLATED;
        return 0;
    }
    rc = tok_json_string(f->j, &s);
    if (rc != 0) {
        return rc;
    }
    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (tok_hf_is(s, names[i].name)) {
            *v = names[i].v;
            return 0;
        }
    }
    return tok_hf_unknown(f, "split behaviour", s);
}


/* Num3, kana and the long one in a row are DeepSeek's scanner. */
static void
join_deepseek(tok_vec_t *pre)
{
    tok_op_t  *op = pre->ptr, *p;
    size_t     n = pre->n;

    if (n < 3) {
        return;
    }
    p = op + n - 3;
    if (p[0].c == PART_NUM3 && p[1].c == PART_KANA && p[2].c == PART_DEEPSEEK
        && p[0].type == TOK_P_SPLIT_RE && p[1].type == TOK_P_SPLIT_RE
        && p[2].type == TOK_P_SPLIT_RE)
    {
        *p = (tok_op_t) { .type = TOK_P_SCAN, .a = TOK_R_DEEPSEEK3,
                          .b = TOK_B_ISOLATED };
        pre->n -= 2;
    }
}


static int
pre_split(tok_hf_t *f, const tok_members_t *m)
{
    tok_op_t   op = { 0 };
    tok_str_t  raw = { NULL, 0 };
    bool       invert;
    size_t     i, n = sizeof(known) / sizeof(known[0]);
    int        rc = behaviour(f, m, true, &op.b);

    if (rc == 0) {
        rc = tok_hf_flag(f, m, "invert", -1, &invert);
    }
    if (rc == 0) {
        rc = tok_hf_pattern(f, m, &op, TOK_P_SPLIT, TOK_P_SPLIT_RE, &raw);
    }
    if (rc != 0) {
        return rc;
    }
    op.flags = invert;
    if (op.type == TOK_P_SPLIT) {
        return add(f, &f->b->pre, &op);
    }
    for (i = 0; i < n && !tok_hf_is(raw, known[i].text); i++) { /* void */ }
    if (i < n && known[i].scan
        && ((op.b == TOK_B_ISOLATED && !invert)
            || (op.b == TOK_B_REMOVED && invert)))
    {
        op = (tok_op_t) { .type = TOK_P_SCAN, .a = known[i].scan,
                          .b = TOK_B_ISOLATED };
        return add(f, &f->b->pre, &op);
    }
    rc = tok_hf_translate(f, raw, &op.s);
    if (rc == 0 && i < n && op.b == TOK_B_ISOLATED && !invert) {
        op.c = known[i].part;
    }
    if (rc == 0) {
        rc = add(f, &f->b->pre, &op);
    }
    if (rc == 0) {
        join_deepseek(&f->b->pre);
    }
    return rc;
}


static int
pre_byte_level(tok_hf_t *f, const tok_members_t *m)
{
    tok_op_t  op = { .type = TOK_P_BYTE_LEVEL };
    bool      prefix, regex, trim;
    int       rc = tok_hf_flag(f, m, "add_prefix_space", -1, &prefix);

    if (rc == 0) {
        rc = tok_hf_flag(f, m, "use_regex", 1, &regex);
    }
    if (rc == 0) {
        rc = tok_hf_flag(f, m, "trim_offsets", -1, &trim);
    }
    op.a = rc == 0 && prefix;
    op.b = rc == 0 && regex;
    return rc == 0 ? add(f, &f->b->pre, &op) : rc;
}


/* prepend_scheme: 0 never, 1 always, 2 first. */
static int
metaspace(tok_hf_t *f, const tok_members_t *m, tok_op_t *op, bool *split)
{
    tok_str_t  s;
    uint32_t   c;
    bool       prefix = true;
    int        rc = tok_hf_char(f, m, "replacement", &c, &op->s);

    op->a = 1;
    if (rc == 0 && tok_json_at(f->j, m, "prepend_scheme")) {
        rc = tok_json_string(f->j, &s);
        if (rc == 0 && tok_hf_is(s, "never")) {
            op->a = 0;

        } else if (rc == 0 && tok_hf_is(s, "first")) {
            op->a = 2;

        } else if (rc == 0 && !tok_hf_is(s, "always")) {
            return tok_hf_unknown(f, "prepend scheme", s);
        }
    }
    if (rc == 0 && tok_json_at(f->j, m, "add_prefix_space")
        && !tok_json_null(f->j))
    {
        rc = tok_json_bool(f->j, &prefix);
        if (rc == 0 && !prefix && op->a != 0) {
            return tok_json_fail(f->j, TOK_E_FORMAT, "add_prefix_space does "
                                 "not match prepend_scheme");
        }
    }
    *split = true;
    if (rc == 0 && tok_json_at(f->j, m, "split") && !tok_json_null(f->j)) {
        rc = tok_json_bool(f->j, split);
    }
    return rc;
}


static int
pre_metaspace(tok_hf_t *f, const tok_members_t *m)
{
    tok_op_t  op = { .type = TOK_P_METASPACE, .b = TOK_B_NEXT };
    bool      split = true;
    int       rc = metaspace(f, m, &op, &split);

    op.c = split;
    if (op.a == 2) {
        f->b->h.spm_flags |= TOK_SPM_ALIGN;
    }
    return rc == 0 ? add(f, &f->b->pre, &op) : rc;
}


static int
pre_other(tok_hf_t *f, const tok_members_t *m, tok_str_t type)
{
    tok_op_t  op = { .b = TOK_B_ISOLATED };
    bool      flag;
    int       rc = 0;

    if (tok_hf_is(type, "BertPreTokenizer")) {
        op.type = TOK_P_BERT;

    } else if (tok_hf_is(type, "Whitespace")) {
        op.type = TOK_P_WHITESPACE;
        op.b = TOK_B_REMOVED;
        op.flags = 1;

    } else if (tok_hf_is(type, "WhitespaceSplit")) {
        op.type = TOK_P_WS_SPLIT;
        op.b = TOK_B_REMOVED;

    } else if (tok_hf_is(type, "UnicodeScripts")) {
        op.type = TOK_P_SCRIPTS;

    } else if (tok_hf_is(type, "Punctuation")) {
        op.type = TOK_P_PUNCT;
        rc = behaviour(f, m, false, &op.b);

    } else if (tok_hf_is(type, "Digits")) {
        op.type = TOK_P_DIGITS;
        rc = tok_hf_flag(f, m, "individual_digits", -1, &flag);
        op.a = rc == 0 && flag;
        op.b = op.a ? TOK_B_ISOLATED : TOK_B_CONTIGUOUS;

    } else if (tok_hf_is(type, "CharDelimiterSplit")) {
        op.type = TOK_P_DELIM;
        op.b = TOK_B_REMOVED;
        rc = tok_hf_char(f, m, "delimiter", &op.a, &op.s);

    } else if (tok_hf_is(type, "FixedLength")) {
        op.type = TOK_P_FIXED;
        op.a = 5;
        if (tok_json_at(f->j, m, "length")) {
            rc = tok_json_u32(f->j, &op.a);
        }
        if (rc == 0 && op.a == 0) {
            return tok_json_fail(f->j, TOK_E_FORMAT, "a length of 0");
        }

    } else {
        return tok_hf_unknown(f, "pre-tokenizer", type);
    }
    return rc == 0 ? add(f, &f->b->pre, &op) : rc;
}


static int
pre_one(tok_hf_t *f, const tok_members_t *m, tok_str_t type)
{
    if (tok_hf_is(type, "Split")) {
        return pre_split(f, m);
    }
    if (tok_hf_is(type, "ByteLevel")) {
        return pre_byte_level(f, m);
    }
    if (tok_hf_is(type, "Metaspace")) {
        return pre_metaspace(f, m);
    }
    return pre_other(f, m, type);
}


int
tok_hf_pre(tok_hf_t *f)
{
    return tok_hf_walk(f, "pretokenizers", pre_one);
}


/* --- decoders ---------------------------------------------------------- */

static int
dec_ctc(tok_hf_t *f, const tok_members_t *m, tok_op_t *op)
{
    bool  clean = false;
    int   rc = tok_hf_text(f, m, "pad_token", &op->s);

    op->type = TOK_D_CTC;
    if (rc == 0) {
        rc = tok_hf_text(f, m, "word_delimiter_token", &op->r);
    }
    if (rc == 0) {
        rc = tok_hf_flag(f, m, "cleanup", -1, &clean);
    }
    op->a = clean;
    if (rc == 0 && (op->s.len == 0 || op->r.len == 0)) {
        return tok_json_fail(f->j, TOK_E_UNSUPPORTED, "CTC with an empty "
                             "token");
    }
    return rc;
}


static int
dec_strip(tok_hf_t *f, const tok_members_t *m, tok_op_t *op)
{
    int  rc = tok_hf_char(f, m, "content", &op->c, &op->s);

    op->type = TOK_D_STRIP;
    if (rc == 0) {
        rc = tok_hf_number(f, m, "start", TOK_LENGTH_MAX, &op->a);
    }
    return rc == 0 ? tok_hf_number(f, m, "stop", TOK_LENGTH_MAX, &op->b) : rc;
}


static int
dec_one(tok_hf_t *f, const tok_members_t *m, tok_str_t type)
{
    tok_op_t  op = { 0 };
    bool      flag = false;
    int       rc = 0;

    if (tok_hf_is(type, "ByteLevel")) {
        op.type = TOK_D_BYTE_LEVEL;

    } else if (tok_hf_is(type, "ByteFallback")) {
        op.type = TOK_D_BYTE_FALLBACK;

    } else if (tok_hf_is(type, "Fuse")) {
        op.type = TOK_D_FUSE;

    } else if (tok_hf_is(type, "Replace")) {
        rc = tok_hf_pattern(f, m, &op, TOK_D_REPLACE, TOK_D_REPLACE_RE, NULL);
        if (rc == 0) {
            rc = tok_hf_text(f, m, "content", &op.r);
        }

    } else if (tok_hf_is(type, "Strip")) {
        rc = dec_strip(f, m, &op);

    } else if (tok_hf_is(type, "WordPiece")) {
        op.type = TOK_D_WORDPIECE;
        rc = tok_hf_text(f, m, "prefix", &op.s);
        if (rc == 0) {
            rc = tok_hf_flag(f, m, "cleanup", -1, &flag);
        }
        op.a = flag;

    } else if (tok_hf_is(type, "CTC")) {
        rc = dec_ctc(f, m, &op);

    } else if (tok_hf_is(type, "BPEDecoder")) {
        op.type = TOK_D_BPE;
        rc = tok_hf_text(f, m, "suffix", &op.s);
        if (rc == 0 && op.s.len == 0) {
            return tok_json_fail(f->j, TOK_E_UNSUPPORTED, "BPEDecoder with an "
                                 "empty suffix");
        }

    } else if (tok_hf_is(type, "Metaspace")) {
        op.type = TOK_D_METASPACE;
        rc = metaspace(f, m, &op, &flag);

    } else {
        return tok_hf_unknown(f, "decoder", type);
    }
    return rc == 0 ? add(f, &f->b->decode, &op) : rc;
}


int
tok_hf_decoder(tok_hf_t *f)
{
    tok_op_t  fuse = { .type = TOK_D_FUSE };
    bool      present = tok_json_peek(f->j) != 'n';
    int       rc = tok_hf_walk(f, "decoders", dec_one);

    /* An empty sequence joins tokens without spaces, unlike no decoder. */
    return rc == 0 && present && f->b->decode.n == 0
           ? add(f, &f->b->decode, &fuse) : rc;
}
