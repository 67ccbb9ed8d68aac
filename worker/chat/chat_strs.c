/*
 * What filters and methods do with strings.  The provenance of each byte goes
 * with it.  Upper and lower case are those of ASCII: templates use them on
 * roles and options.
 */

#include <string.h>

#include "worker/chat/chat_int.h"


static char
to_lower(char ch)
{
    return ch >= 'A' && ch <= 'Z' ? (char) (ch + 32) : ch;
}


static char
to_upper(char ch)
{
    return ch >= 'a' && ch <= 'z' ? (char) (ch - 32) : ch;
}


static bool
is_alpha(char ch)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z')
           || (unsigned char) ch >= 0x80;
}


/*
 * how: l(ower), u(pper), c(apitalize), t(itle as the filter does it: words are
 * cut at white space and some marks), m (title as the method does it: at all
 * that is no letter).
 */
int
chat_s_case(chat_vm_t *vm, const chat_val_t *v, char how, chat_val_t *out)
{
    bool      first;
    char     *s, ch;
    uint32_t  i;

    s = chat_alloc_bytes(vm, v->len);
    if (s == NULL) {
        return vm->err->code;
    }

    for (i = 0, first = true; i < v->len; i++) {
        ch = v->u.s[i];

        s[i] = how == 'u' || (how != 'l' && first) ? to_upper(ch)
                                                   : to_lower(ch);

        first = how == 't' ? ch != '\0' && (strchr("-({[<", ch) != NULL
                                            || strchr(" \t\n\r\v\f", ch)
                                               != NULL)
                : how == 'm' ? !is_alpha(ch) : false;
    }

    *out = *v;
    out->u.s = s;
    return chat_charge_bytes(vm, v->len);
}


int
chat_s_replace(chat_vm_t *vm, const chat_val_t *v, const chat_val_t *from,
    const chat_val_t *to, int64_t count, chat_val_t *out)
{
    int          rc;
    uint32_t     off, n;
    const char  *hit;
    chat_val_t   part;
    chat_buf_t   buf = { 0 };

    rc = chat_charge_bytes(vm, v->len);

    for (off = 0; rc == CHAT_OK && count != 0; count--) {

        if (from->len == 0) {
            /* An empty string stands before each character and at the end. */

            rc = chat_buf_str(vm, &buf, to);

            if (rc != CHAT_OK || off == v->len) {
                break;
            }

            n = chat_utf8_offset(v->u.s + off, v->len - off, 1);

        } else {
            hit = memmem(v->u.s + off, v->len - off, from->u.s, from->len);
            if (hit == NULL) {
                break;
            }

            n = (uint32_t) (hit - v->u.s) - off;
        }

        part = chat_v_sub(v, off, n);
        rc = rc == CHAT_OK ? chat_buf_str(vm, &buf, &part) : rc;
        off += n;

        if (rc == CHAT_OK && from->len != 0) {
            rc = chat_buf_str(vm, &buf, to);
            off += from->len;
        }

        if (rc == CHAT_OK) {
            rc = chat_charge(vm, 1);
        }
    }

    part = chat_v_sub(v, off, v->len - off);

    if (off == 0 && buf.len == 0) {
        *out = part;
        return rc;
    }

    rc = rc == CHAT_OK ? chat_buf_str(vm, &buf, &part) : rc;
    chat_buf_val(&buf, out);
    return rc;
}


static bool
is_one_of(const char *p, uint32_t n, const chat_val_t *set)
{
    uint32_t  off, m;

    for (off = 0; off < set->len; off += m) {
        m = chat_utf8_offset(set->u.s + off, set->len - off, 1);

        if (m == n && memcmp(set->u.s + off, p, n) == 0) {
            return true;
        }
    }

    return false;
}


void
chat_s_strip(const chat_val_t *v, const chat_val_t *chars, unsigned sides,
    chat_val_t *out)
{
    uint32_t     start, end, n;
    const char  *s;

    s = v->u.s;
    start = 0;
    end = v->len;

    if (chars == NULL) {
        if (sides & 1) {
            start = chat_lstrip_off(s, end);
        }

        if (sides & 2) {
            end = start + chat_rstrip_len(s + start, end - start);
        }

        *out = chat_v_sub(v, start, end - start);
        return;
    }

    while (sides & 1 && start < end) {
        n = chat_utf8_offset(s + start, end - start, 1);

        if (!is_one_of(s + start, n, chars)) {
            break;
        }

        start += n;
    }

    while (sides & 2 && start < end) {
        for (n = 1; n < end - start
             && ((unsigned char) s[end - n] & 0xc0) == 0x80; n++)
        {
            /* void */
        }

        if (!is_one_of(s + end - n, n, chars)) {
            break;
        }

        end -= n;
    }

    *out = chat_v_sub(v, start, end - start);
}


/* Byte offset of the first or last occurrence, or -1. */
int64_t
chat_s_find(const chat_val_t *v, const chat_val_t *what, bool last)
{
    uint32_t     off;
    const char  *hit;

    if (what->len > v->len) {
        return -1;
    }

    if (!last) {
        hit = what->len == 0 ? v->u.s
              : memmem(v->u.s, v->len, what->u.s, what->len);

        return hit == NULL ? -1 : hit - v->u.s;
    }

    for (off = v->len - what->len; ; off--) {
        if (what->len == 0 || memcmp(v->u.s + off, what->u.s, what->len) == 0) {
            return off;
        }

        if (off == 0) {
            return -1;
        }
    }
}


/* indent(width=4, first=false, blank=false) */
int
chat_s_indent(chat_vm_t *vm, chat_args_t *a, chat_val_t *out)
{
    int                rc;
    bool               first, blank, empty;
    uint32_t           off, n;
    const char        *end;
    chat_val_t         s, pad, part;
    chat_buf_t         buf = { 0 };
    const chat_val_t  *width, *v;
    static const char  spaces[] = "                                ";

    width = chat_arg(vm, a, 1, "width");
    v = chat_arg(vm, a, 2, "first");
    first = v != NULL && chat_truth(v);
    v = chat_arg(vm, a, 3, "blank");
    blank = v != NULL && chat_truth(v);

    if (width != NULL && width->type == CV_STR) {
        pad = *width;
    } else if (width == NULL || (width->type == CV_INT && width->u.i >= 0
                                 && width->u.i < (int) sizeof(spaces)))
    {
        pad = chat_v_str(spaces, width == NULL ? 4 : (uint32_t) width->u.i);
    } else {
        return chat_arg_fail(vm, "indent", "a width from 0 to 32", width);
    }

    rc = chat_to_str(vm, &a->v[0], &s);

    for (off = 0; rc == CHAT_OK && off <= s.len; off += n + 1) {
        end = s.len > off ? memchr(s.u.s + off, '\n', s.len - off) : NULL;
        n = (end != NULL ? (uint32_t) (end - s.u.s) : s.len) - off;
        empty = n == 0;

        if (off == 0 ? first : (blank || !empty)) {
            rc = chat_buf_str(vm, &buf, &pad);
        }

        if (rc == CHAT_OK) {
            part = chat_v_sub(&s, off, n + (end != NULL));
            rc = chat_buf_str(vm, &buf, &part);
        }

        if (rc == CHAT_OK) {
            rc = chat_charge(vm, 1);
        }
    }

    chat_buf_val(&buf, out);
    return rc;
}
