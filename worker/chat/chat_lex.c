/*
 * Template source to tokens.  Outside of tags the text is cut by Jinja's rules
 * for white space (trim_blocks and lstrip_blocks on, "-" and "+" at either end
 * of a tag); inside, names, numbers, strings and operators come one by one.
 */

#include <stdlib.h>
#include <string.h>

#include "worker/chat/chat_comp.h"


#define NUMBER_BYTES_MAX  64


static int text_emit(chat_comp_t *c, uint32_t start, uint32_t end, char tag,
    char sign);
static int comment_skip(chat_comp_t *c);
static int raw_find(chat_comp_t *c, uint32_t *after);
static int raw_emit(chat_comp_t *c, uint32_t body);
static int tag_end(chat_comp_t *c, uint32_t len, char sign, bool block);
static int lex_number(chat_comp_t *c);
static int lex_string(chat_comp_t *c);
static int lex_escape(chat_comp_t *c, uint32_t *at);
static int lex_operator(chat_comp_t *c);


static char
at(const chat_comp_t *c, uint32_t pos)
{
    return pos < c->t->source_len ? c->t->source[pos] : '\0';
}


static uint32_t
space_skip(const chat_comp_t *c, uint32_t pos)
{
    uint32_t     n;
    const char  *end;

    end = c->t->source + c->t->source_len;

    while ((n = chat_space_len(c->t->source + pos, end)) != 0) {
        pos += n;
    }

    return pos;
}


/* From text to the next tag; comments and raw blocks are done on the way. */
int
chat_lex_text(chat_comp_t *c, chat_seg_t *seg)
{
    int          rc;
    char         tag, sign;
    uint32_t     start, pos, body;
    const char  *p;

    start = c->pos;
    pos = start;

    for ( ;; ) {
        p = memchr(c->t->source + pos, '{', c->t->source_len - pos);

        if (p == NULL) {
            c->pos = c->t->source_len;
            *seg = CL_EOF;
            return text_emit(c, start, c->pos, '\0', '\0');
        }

        pos = (uint32_t) (p - c->t->source);
        tag = at(c, pos + 1);

        if (tag != '{' && tag != '%' && tag != '#') {
            pos++;
            continue;
        }

        sign = at(c, pos + 2);
        sign = (sign == '-' || sign == '+') ? sign : '\0';

        rc = text_emit(c, start, pos, tag, sign);
        if (rc != CHAT_OK) {
            return rc;
        }

        c->pos = pos + 2 + (sign != '\0');

        if (tag == '#') {
            rc = comment_skip(c);
        } else if (tag == '%' && raw_find(c, &body)) {
            rc = raw_emit(c, body);
        } else {
            *seg = tag == '{' ? CL_VAR : CL_BLOCK;
            c->brackets = 0;
            return chat_lex_next(c);
        }

        if (rc != CHAT_OK) {
            return rc;
        }

        start = c->pos;
        pos = start;
    }
}


/* Emits source[start, end) without the space that the coming tag takes away. */
static int
text_emit(chat_comp_t *c, uint32_t start, uint32_t end, char tag, char sign)
{
    uint32_t     line;
    const char  *s;

    s = c->t->source;

    if (sign == '-') {
        end = start + chat_rstrip_len(s + start, end - start);

    } else if (sign != '+' && (tag == '%' || tag == '#')) {
        for (line = end; line > start && s[line - 1] != '\n'; line--) {
            /* void */
        }

        if ((line > start || c->line_start)
            && chat_rstrip_len(s + line, end - line) == 0)
        {
            end = line;
        }
    }

    if (start == end) {
        return CHAT_OK;
    }

    return chat_emit(c, OP_TEXT, 0, (int32_t) (end - start), start);
}


static int
comment_skip(chat_comp_t *c)
{
    char         sign;
    uint32_t     body, end;
    const char  *p;

    body = c->pos;
    p = memmem(c->t->source + body, c->t->source_len - body, "#}", 2);

    if (p == NULL) {
        return chat_comp_fail(c, CHAT_ESYNTAX, body, "a comment has no end");
    }

    end = (uint32_t) (p - c->t->source);
    sign = end > body ? p[-1] : '\0';
    c->pos = end;

    return tag_end(c, 2, sign, true);
}


/*
 * Moves past a tag's end of len bytes and the white space that belongs to it.
 */
static int
tag_end(chat_comp_t *c, uint32_t len, char sign, bool block)
{
    c->pos += len;

    if (sign == '-') {
        c->pos = space_skip(c, c->pos);
    } else if (block && sign != '+' && at(c, c->pos) == '\n') {
        c->pos++;
    }

    c->line_start = (c->t->source[c->pos - 1] == '\n');
    return CHAT_OK;
}


/* Whether a block tag whose inside starts at c->pos is {% raw %}. */
static int
raw_find(chat_comp_t *c, uint32_t *after)
{
    uint32_t  pos;

    pos = space_skip(c, c->pos);

    if (c->t->source_len - pos < 3 || memcmp(c->t->source + pos, "raw", 3) != 0)
    {
        return 0;
    }

    pos = space_skip(c, pos + 3);

    if (at(c, pos) == '-' && at(c, pos + 1) == '%' && at(c, pos + 2) == '}') {
        *after = space_skip(c, pos + 3);
        return 1;
    }

    *after = pos + 2;
    return at(c, pos) == '%' && at(c, pos + 1) == '}';
}


static int
raw_emit(chat_comp_t *c, uint32_t body)
{
    int          rc;
    char         sign;
    uint32_t     pos, end;
    const char  *p;

    c->line_start = (c->t->source[body - 1] == '\n');

    for (pos = body; /* void */ ; pos = end + 2) {
        p = memmem(c->t->source + pos, c->t->source_len - pos, "{%", 2);
        if (p == NULL) {
            return chat_comp_fail(c, CHAT_ESYNTAX, body,
                                  "a raw block has no end");
        }

        end = (uint32_t) (p - c->t->source);
        sign = at(c, end + 2);
        sign = (sign == '-' || sign == '+') ? sign : '\0';
        pos = space_skip(c, end + 2 + (sign != '\0'));

        if (c->t->source_len - pos < 6
            || memcmp(c->t->source + pos, "endraw", 6) != 0)
        {
            continue;
        }

        rc = text_emit(c, body, end, '%', sign);
        if (rc != CHAT_OK) {
            return rc;
        }

        pos = space_skip(c, pos + 6);
        sign = at(c, pos);
        pos += (sign == '-' || sign == '+');

        if (at(c, pos) != '%' || at(c, pos + 1) != '}') {
            return chat_comp_fail(c, CHAT_ESYNTAX, pos, "bad endraw tag");
        }

        c->pos = pos;
        return tag_end(c, 2, sign, true);
    }
}


bool
chat_tok_is(const chat_comp_t *c, uint16_t op)
{
    return c->tok.type == TK_OP && c->tok.op == op;
}


bool
chat_tok_name(const chat_comp_t *c, const char *name)
{
    return c->tok.type == TK_NAME && c->tok.len == strlen(name)
           && memcmp(c->tok.s, name, c->tok.len) == 0;
}


static bool
is_name(char ch)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || ch == '_'
           || (ch >= '0' && ch <= '9');
}


/* Reads the next token of a tag into c->tok. */
int
chat_lex_next(chat_comp_t *c)
{
    char      ch, sign;
    uint32_t  pos;

    c->pos = space_skip(c, c->pos);
    c->tok.pos = c->pos;

    if (c->pos == c->t->source_len) {
        c->tok.type = TK_EOF;
        return CHAT_OK;
    }

    ch = at(c, c->pos);
    sign = (ch == '-' || ch == '+') ? ch : '\0';
    pos = c->pos + (sign != '\0');

    if (c->brackets == 0 && at(c, pos + 1) == '}') {
        if (at(c, pos) == '%') {
            c->tok.type = TK_BLOCK_END;
            c->pos = pos;
            return tag_end(c, 2, sign, true);
        }

        if (at(c, pos) == '}' && sign != '+') {
            c->tok.type = TK_VAR_END;
            c->pos = pos;
            return tag_end(c, 2, sign, false);
        }
    }

    if (ch >= '0' && ch <= '9') {
        return lex_number(c);
    }

    if (is_name(ch)) {
        for (pos = c->pos; is_name(at(c, pos)); pos++) {
            /* void */
        }

        c->tok.type = TK_NAME;
        c->tok.s = c->t->source + c->pos;
        c->tok.len = pos - c->pos;
        c->pos = pos;
        return CHAT_OK;
    }

    if (ch == '\'' || ch == '"') {
        return lex_string(c);
    }

    return lex_operator(c);
}


static uint32_t
digits(const chat_comp_t *c, uint32_t pos, char *to, uint32_t *n)
{
    char  ch;

    for ( ;; ) {
        ch = at(c, pos);

        if ((ch < '0' || ch > '9') && ch != '_') {
            return pos;
        }

        if (ch != '_' && *n < NUMBER_BYTES_MAX - 4) {
            to[(*n)++] = ch;
        }

        pos++;
    }
}


static int
lex_number(chat_comp_t *c)
{
    char      text[NUMBER_BYTES_MAX], *end;
    bool      real;
    uint32_t  i, n, pos, mark;

    n = 0;
    real = false;
    pos = digits(c, c->pos, text, &n);

    if (at(c, pos) == '.' && at(c, pos + 1) >= '0' && at(c, pos + 1) <= '9') {
        text[n++] = '.';
        pos = digits(c, pos + 1, text, &n);
        real = true;
    }

    if (at(c, pos) == 'e' || at(c, pos) == 'E') {
        mark = pos + 1 + (at(c, pos + 1) == '-' || at(c, pos + 1) == '+');

        if (at(c, mark) >= '0' && at(c, mark) <= '9') {
            text[n++] = 'e';
            text[n++] = at(c, pos + 1) == '-' ? '-' : '+';
            pos = digits(c, mark, text, &n);
            real = true;
        }
    }

    text[n] = '\0';

    if (is_name(at(c, pos)) || n > NUMBER_BYTES_MAX - 8) {
        return chat_comp_fail(c, CHAT_EUNSUPPORTED, c->pos,
                              "a number in a form that is not supported");
    }

    c->tok.type = real ? TK_FLOAT : TK_INT;
    c->tok.i = 0;
    c->pos = pos;

    if (real) {
        c->tok.f = strtod(text, &end);
        return CHAT_OK;
    }

    for (i = 0; i < n; i++) {
        if (__builtin_mul_overflow(c->tok.i, 10, &c->tok.i)
            || __builtin_add_overflow(c->tok.i, text[i] - '0', &c->tok.i))
        {
            return chat_comp_fail(c, CHAT_EUNSUPPORTED, c->tok.pos,
                                  "a number above 64 bits");
        }
    }

    return CHAT_OK;
}


/*
 * A string goes into the pool, which is twice as long as the source: no escape
 * is shorter than what it stands for, and a block's filters are read twice.
 */
static int
lex_string(chat_comp_t *c)
{
    int       rc;
    char      quote, ch;
    uint32_t  pos;

    quote = at(c, c->pos);
    pos = c->pos + 1;
    c->tok.type = TK_STR;
    c->tok.s = c->t->pool + c->t->pool_len;

    for ( ;; ) {
        if (pos >= c->t->source_len) {
            return chat_comp_fail(c, CHAT_ESYNTAX, c->pos,
                                  "a string has no end");
        }

        ch = at(c, pos);

        if (ch == quote) {
            break;
        }

        if (ch == '\\') {
            rc = lex_escape(c, &pos);
            if (rc != CHAT_OK) {
                return rc;
            }

            continue;
        }

        assert(c->t->pool_len < 2 * c->t->source_len);
        c->t->pool[c->t->pool_len++] = ch;
        pos++;
    }

    c->tok.len = (uint32_t) (c->t->pool + c->t->pool_len - c->tok.s);
    c->pos = pos + 1;
    return CHAT_OK;
}


static int
hex(const chat_comp_t *c, uint32_t pos, unsigned n, uint32_t *v)
{
    char      ch;
    unsigned  i;

    *v = 0;

    for (i = 0; i < n; i++) {
        ch = at(c, pos + i);

        if (ch >= '0' && ch <= '9') {
            *v = *v << 4 | (uint32_t) (ch - '0');
        } else if ((ch | 32) >= 'a' && (ch | 32) <= 'f') {
            *v = *v << 4 | (uint32_t) ((ch | 32) - 'a' + 10);
        } else {
            return -1;
        }
    }

    return 0;
}


/* Resolves the escape at *pos into the pool and moves past it. */
static int
lex_escape(chat_comp_t *c, uint32_t *pos)
{
    char                     ch;
    uint32_t                 p, v, n, octal;
    static const char        from[] = "abfnrtv\\'\"";
    static const char        to[] = "\a\b\f\n\r\t\v\\'\"";
    const char              *hit;
    chat_template_t         *t;

    t = c->t;
    p = *pos;
    ch = at(c, p + 1);
    hit = ch != '\0' ? strchr(from, ch) : NULL;

    if (hit != NULL) {
        t->pool[t->pool_len++] = to[hit - from];
        *pos = p + 2;
        return CHAT_OK;
    }

    if (ch == '\n') {
        *pos = p + 2;
        return CHAT_OK;
    }

    if (ch >= '0' && ch <= '7') {
        for (v = 0, octal = 0; octal < 3 && at(c, p + 1) >= '0'
             && at(c, p + 1) <= '7'; octal++, p++)
        {
            v = v * 8 + (uint32_t) (at(c, p + 1) - '0');
        }

        *pos = p + 1;

    } else if (ch == 'x' || ch == 'u' || ch == 'U') {
        n = ch == 'x' ? 2 : ch == 'u' ? 4 : 8;

        if (hex(c, p + 2, n, &v) != 0 || v > 0x10ffff
            || (v >= 0xd800 && v <= 0xdfff))
        {
            return chat_comp_fail(c, CHAT_ESYNTAX, p, "bad escape in a string");
        }

        *pos = p + 2 + n;

    } else if (ch == 'N') {
        return chat_comp_fail(c, CHAT_EUNSUPPORTED, p,
                              "\\N{...} in a string is not supported");
    } else {
        t->pool[t->pool_len++] = '\\';
        *pos = p + 1;
        return CHAT_OK;
    }

    t->pool_len += chat_utf8_put(t->pool + t->pool_len, v);
    assert(t->pool_len <= 2 * t->source_len);
    return CHAT_OK;
}


static int
lex_operator(chat_comp_t *c)
{
    char              a, b;
    const char       *p;
    static const char pairs[] = "**//==!=<=>=";

    a = at(c, c->pos);
    b = at(c, c->pos + 1);
    c->tok.type = TK_OP;

    for (p = pairs; *p != '\0'; p += 2) {
        if (p[0] == a && p[1] == b) {
            c->tok.op = CHAT_OP2(a, b);
            c->pos += 2;
            return CHAT_OK;
        }
    }

    if (a == '\0' || strchr("+-*/%~<>=.,:|()[]{}", a) == NULL) {
        return chat_comp_fail(c, CHAT_ESYNTAX, c->pos,
                              "unexpected character in a tag");
    }

    if (a == '(' || a == '[' || a == '{') {
        c->brackets++;

    } else if (a == ')' || a == ']' || a == '}') {
        if (c->brackets == 0) {
            return chat_comp_fail(c, CHAT_ESYNTAX, c->pos,
                                  "'%c' without its opening", a);
        }

        c->brackets--;
    }

    c->tok.op = (uint16_t) (unsigned char) a;
    c->pos++;
    return CHAT_OK;
}
