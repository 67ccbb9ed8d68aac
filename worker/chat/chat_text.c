/*
 * Bytes of text: white space, UTF-8, and the buffer that strings are built in,
 * which remembers which of its bytes came from the input.
 */

#include <string.h>

#include "worker/chat/chat_int.h"


uint32_t
chat_space_len(const char *p, const char *end)
{
    uint32_t  cp, n;

    if (p == end) {
        return 0;
    }

    if ((unsigned char) *p < 0x80) {
        return *p == ' ' || (*p >= 9 && *p <= 13) || (*p >= 28 && *p <= 31);
    }

    n = chat_utf8_get(p, end, &cp);

    return cp == 0x85 || cp == 0xa0 || cp == 0x1680
           || (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029
           || cp == 0x202f || cp == 0x205f || cp == 0x3000 ? n : 0;
}


uint32_t
chat_lstrip_off(const char *s, uint32_t len)
{
    uint32_t  off, n;

    off = 0;

    while ((n = chat_space_len(s + off, s + len)) != 0) {
        off += n;
    }

    return off;
}


uint32_t
chat_rstrip_len(const char *s, uint32_t len)
{
    uint32_t  back;

    while (len > 0) {
        back = 1;

        while (back < 4 && back < len
               && ((unsigned char) s[len - back] & 0xc0) == 0x80)
        {
            back++;
        }

        if (chat_space_len(s + len - back, s + len) != back) {
            break;
        }

        len -= back;
    }

    return len;
}


uint32_t
chat_hash(const char *s, size_t len)
{
    size_t    i;
    uint32_t  h;

    h = 2166136261u;

    for (i = 0; i < len; i++) {
        h = (h ^ (unsigned char) s[i]) * 16777619u;
    }

    return h;
}


uint32_t
chat_utf8_put(char *to, uint32_t cp)
{
    assert(cp <= 0x10ffff);

    if (cp < 0x80) {
        to[0] = (char) cp;
        return 1;
    }

    if (cp < 0x800) {
        to[0] = (char) (0xc0 | cp >> 6);
        to[1] = (char) (0x80 | (cp & 63));
        return 2;
    }

    if (cp < 0x10000) {
        to[0] = (char) (0xe0 | cp >> 12);
        to[1] = (char) (0x80 | (cp >> 6 & 63));
        to[2] = (char) (0x80 | (cp & 63));
        return 3;
    }

    to[0] = (char) (0xf0 | cp >> 18);
    to[1] = (char) (0x80 | (cp >> 12 & 63));
    to[2] = (char) (0x80 | (cp >> 6 & 63));
    to[3] = (char) (0x80 | (cp & 63));
    return 4;
}


uint32_t
chat_utf8_get(const char *p, const char *end, uint32_t *cp)
{
    uint32_t       n, i;
    unsigned char  b;

    b = (unsigned char) *p;
    n = b < 0x80 ? 1 : b >= 0xf0 && b < 0xf8 ? 4 : b >= 0xe0 && b < 0xf0 ? 3
        : b >= 0xc2 && b < 0xe0 ? 2 : 0;
    *cp = b;

    if (n <= 1 || (size_t) (end - p) < n) {
        *cp = n == 1 ? b : 0xfffd;
        return 1;
    }

    *cp = b & (0x7fu >> n);

    for (i = 1; i < n; i++) {
        b = (unsigned char) p[i];

        if ((b & 0xc0) != 0x80) {
            *cp = 0xfffd;
            return 1;
        }

        *cp = *cp << 6 | (b & 63u);
    }

    return n;
}


uint32_t
chat_utf8_count(const char *s, uint32_t len)
{
    uint32_t  i, n;

    for (i = 0, n = 0; i < len; i++) {
        n += ((unsigned char) s[i] & 0xc0) != 0x80;
    }

    return n;
}


uint32_t
chat_utf8_offset(const char *s, uint32_t len, uint32_t n)
{
    uint32_t  i;

    for (i = 0; i < len; i++) {
        if (((unsigned char) s[i] & 0xc0) != 0x80 && n-- == 0) {
            break;
        }
    }

    return i;
}


/*
 * Grows *s (of *cap bytes, len used) in place when it lies at the arena's end,
 * else by a copy of twice the size.
 */
static int
grow(chat_vm_t *vm, char **s, uint32_t *cap, uint32_t len, uint32_t need)
{
    char    *p;
    size_t   more, size;

    if (need <= *cap) {
        return CHAT_OK;
    }

    size = (size_t) *cap * 2 > need ? (size_t) *cap * 2 : need;
    size = size < 64 ? 64 : size;
    more = size - *cap;

    if (*s != NULL && *s + *cap == vm->mem
        && more <= (size_t) (vm->mem_end - vm->mem))
    {
        vm->mem += more;
        *cap = (uint32_t) size;
        return CHAT_OK;
    }

    if (size > (size_t) (vm->mem_end - vm->mem)) {
        size = need;
    }

    p = chat_alloc_bytes(vm, size);
    if (p == NULL) {
        return vm->err->code;
    }

    if (len > 0) {
        memcpy(p, *s, len);
    }

    *s = p;
    *cap = (uint32_t) size;
    return chat_charge_bytes(vm, len);
}


/* Room for len more bytes. */
int
chat_buf_reserve(chat_vm_t *vm, chat_buf_t *b, uint32_t len)
{
    uint32_t  need;

    if (__builtin_add_overflow(b->len, len, &need) || need > INT32_MAX) {
        return chat_fail(vm, CHAT_ELIMIT, "a string above 2 GiB");
    }

    return grow(vm, &b->s, &b->cap, b->len, need);
}


/* From here on the buffer needs a map, since its bytes differ in provenance. */
static int
map_begin(chat_vm_t *vm, chat_buf_t *b)
{
    int  rc;

    rc = grow(vm, (char **) &b->map, &b->map_cap, 0, b->cap);
    if (rc == CHAT_OK) {
        memset(b->map, b->taint, b->len);
        b->taint = CT_MIXED;
    }

    return rc;
}


int
chat_buf_add(chat_vm_t *vm, chat_buf_t *b, const char *s, uint32_t len,
    uint8_t taint, const uint8_t *map)
{
    int  rc;

    if (len == 0) {
        return CHAT_OK;
    }

    rc = chat_buf_reserve(vm, b, len);
    if (rc == CHAT_OK) {
        rc = chat_charge_bytes(vm, len);
    }

    if (rc == CHAT_OK && b->len == 0) {
        b->taint = taint;
        if (taint == CT_MIXED) {
            rc = map_begin(vm, b);
        }

    } else if (rc == CHAT_OK && b->taint != CT_MIXED && b->taint != taint) {
        rc = map_begin(vm, b);
    }

    if (rc == CHAT_OK && b->taint == CT_MIXED) {
        rc = grow(vm, (char **) &b->map, &b->map_cap, b->len, b->len + len);
    }

    if (rc != CHAT_OK) {
        return rc;
    }

    memcpy(b->s + b->len, s, len);

    if (b->taint == CT_MIXED) {
        if (taint == CT_MIXED) {
            memcpy(b->map + b->len, map, len);
        } else {
            memset(b->map + b->len, taint, len);
        }
    }

    b->len += len;
    return CHAT_OK;
}


int
chat_buf_str(chat_vm_t *vm, chat_buf_t *b, const chat_val_t *v)
{
    assert(v->type == CV_STR || v->type == CV_BIGINT);

    return chat_buf_add(vm, b, v->u.s, v->len, v->taint, v->map);
}


int
chat_buf_lit(chat_vm_t *vm, chat_buf_t *b, const char *s)
{
    return chat_buf_add(vm, b, s, (uint32_t) strlen(s), CT_TEMPLATE, NULL);
}


void
chat_buf_val(const chat_buf_t *b, chat_val_t *out)
{
    *out = chat_v_str(b->s != NULL ? b->s : "", b->len);
    out->taint = b->taint;
    out->map = b->map;
}
