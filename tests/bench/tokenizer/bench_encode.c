/*
 * bench_encode.c: time of encode and decode for texts of 2,048 tokens.
 *
 *     bench_encode TOKENIZER CORPUS [TEXTS]
 *
 * The corpus is cut into distinct texts of about 2,048 tokens.  Each is
 * encoded once (CPU time, median over texts): no text is seen twice, but as
 * with every peer the words of earlier texts may be remembered.  Then the same
 * texts again ("repeated"), and decode.
 */

#include "tokenizer/tok.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>


#define TEXT_TOKENS  2048
#define TEXTS_MAX    4096
#define FLAGS        (TOK_NO_TRUNCATION | TOK_NO_PADDING)

/* By text, in microseconds of CPU time; of the measured half, the sums. */
typedef struct {
    double  first[TEXTS_MAX];
    double  again[TEXTS_MAX];
    double  dec[TEXTS_MAX];
    size_t  bytes;
    size_t  tokens;
} bench_t;


static double
cpu_us(void)
{
    struct timespec  t;

    (void) clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double) t.tv_sec * 1e6 + (double) t.tv_nsec / 1e3;
}


static int
cmp(const void *a, const void *b)
{
    double  x = *(const double *) a, y = *(const double *) b;

    return x < y ? -1 : x > y;
}


static double
median(double *v, size_t n)
{
    qsort(v, n, sizeof(*v), cmp);
    return n ? v[n / 2] : 0;
}


static char *
slurp(const char *path, size_t *len)
{
    FILE  *f = fopen(path, "rb");
    char  *buf;

    if (f == NULL || fseek(f, 0, SEEK_END) != 0) {
        return NULL;
    }
    *len = (size_t) ftell(f);
    rewind(f);
    buf = malloc(*len + 64);
    if (buf != NULL && fread(buf, 1, *len, f) != *len) {
        free(buf);
        buf = NULL;
    }
    (void) fclose(f);
    return buf;
}


/* Cuts the corpus at line ends into texts of about 2,048 tokens. */
static size_t
cut(const tok_t *t, tok_scratch_t *s, const char *p, size_t len,
    tok_str_t *texts, size_t max)
{
    tok_result_t  r;
    size_t        n = 0, at = 0, size = 8192, end;

    while (at < len && n < max) {
        end = len - at < size ? len : at + size;
        while (end < len && p[end - 1] != '\n') {
            end++;
        }
        if (end == len || tok_encode(t, s, p + at, end - at, FLAGS, &r) != 0) {
            break;
        }
        if (r.n > 0 && (r.n < TEXT_TOKENS * 9 / 10
                        || r.n > TEXT_TOKENS * 11 / 10))
        {
            size = (end - at) * TEXT_TOKENS / r.n + 1;
            end = len - at < size ? len : at + size;
            while (end < len && (p[end] & 0xc0) == 0x80) {
                end++;
            }
        }
        texts[n++] = (tok_str_t) { p + at, end - at };
        at = end;
    }
    return n;
}


/* Decimal digits only; returns 0, or -1 where the text is no such number. */
static int
number(const char *text, size_t *n)
{
    for (*n = 0; *text >= '0' && *text <= '9'; text++) {
        if (__builtin_mul_overflow(*n, 10, n)
            || __builtin_add_overflow(*n, (unsigned) (*text - '0'), n))
        {
            return -1;
        }
    }
    return *text == '\0' ? 0 : -1;
}


/*
 * The first half of the texts warms up memory and caches; the second is
 * measured.  ids has room for the ids of any text.
 */
static void
measure(tok_t *t, tok_scratch_t *s, const tok_str_t *texts, size_t n,
    uint32_t *ids, bench_t *b)
{
    double         a;
    size_t         i, k, dlen;
    const char    *text;
    tok_result_t   r;

    for (i = 0; i < n; i++) {
        a = cpu_us();
        (void) tok_encode(t, s, texts[i].ptr, texts[i].len, FLAGS, &r);
        b->first[i] = cpu_us() - a;
        if (i >= n / 2) {
            b->bytes += texts[i].len;
            b->tokens += r.n;
        }
    }
    for (i = n / 2; i < n; i++) {
        for (k = 0; k < 3; k++) {
            a = cpu_us();
            (void) tok_encode(t, s, texts[i].ptr, texts[i].len, FLAGS, &r);
            b->again[i] = cpu_us() - a;
        }
        memcpy(ids, r.ids, r.n * sizeof(*ids));
        k = r.n;
        a = cpu_us();
        (void) tok_decode(t, s, ids, k, 0, &text, &dlen);
        b->dec[i] = cpu_us() - a;
    }
}


int
main(int argc, char **argv)
{
    static tok_str_t  texts[TEXTS_MAX];
    static bench_t    b;
    tok_t            *t;
    tok_scratch_t    *s, *warm;
    tok_err_t         err;
    char             *corpus;
    uint32_t         *ids;
    size_t            len, n, i, max = 600;
    double            a;

    if (argc < 3 || tok_open(&t, argv[1], &err) != 0) {
        fprintf(stderr, "usage: bench_encode TOKENIZER CORPUS [TEXTS]: %s\n",
                argc < 3 ? "" : err.msg);
        return 2;
    }
    if (argc > 3 && (number(argv[3], &max) != 0 || max > TEXTS_MAX)) {
        fprintf(stderr, "TEXTS \"%s\" is not a number up to %d\n", argv[3],
                TEXTS_MAX);
        return 2;
    }
    corpus = slurp(argv[2], &len);
    s = tok_scratch_new();
    warm = tok_scratch_new();
    if (corpus == NULL || s == NULL || warm == NULL) {
        return 2;
    }
    n = cut(t, warm, corpus, len, texts, max);
    ids = malloc((len + 16) * sizeof(*ids));
    if (n < 4 || ids == NULL) {
        fprintf(stderr, "the corpus is too small\n");
        return 2;
    }
    measure(t, s, texts, n, ids, &b);
    a = 0;
    for (i = n / 2; i < n; i++) {
        a += b.first[i];
    }
    n -= n / 2;
    printf("%-10s %4zu texts, %5.0f tokens, %6.0f bytes each: distinct p50 "
           "%7.1f us (%.0f MB/s), repeated %7.1f us, decode %6.1f us, "
           "grown %llu\n", tok_kind(t), n, (double) b.tokens / (double) n,
           (double) b.bytes / (double) n, median(b.first + n, n),
           (double) b.bytes / a, median(b.again + n, n), median(b.dec + n, n),
           (unsigned long long) tok_scratch_grown(s));
    free(ids);
    free(corpus);
    tok_scratch_free(s);
    tok_scratch_free(warm);
    tok_close(t);
    return 0;
}
