/*
 * tokenizer_main.c: drives a libFuzzer target where there is no libFuzzer.
 *
 *     PROGRAM SECONDS SEED FILE...
 *
 * First every file as it is, then changed copies of them: bytes, pieces moved
 * or repeated, numbers made large, pieces of other files put in.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>


#define BYTES_MAX    (1u << 20)
#define FILES_MAX    4096
#define SECONDS_MAX  1000000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t  state;

static struct {
    uint8_t  *p;
    size_t    n;
}  files[FILES_MAX];


static uint64_t
rnd(uint64_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return below ? state % below : 0;
}


static size_t
change(uint8_t *p, size_t n, size_t n_files)
{
    static const char *const  words[] = {
        "4294967295", "-1", "1e999", "null", "{}", "[]", "\"\"", "true",
        "\\ud800", "18446744073709551615", "0.5", "[[", "}}"
    };
    const char  *w;
    size_t       at = (size_t) rnd(n ? n : 1), len, from, k;

    switch (rnd(6)) {
    case 0:
        if (n) {
            p[at] = (uint8_t) rnd(256);
        }
        return n;
    case 1:
        if (n) {
            p[at] ^= (uint8_t) (1u << rnd(8));
        }
        return n;
    case 2:
        len = (size_t) rnd(n - at + 1);
        memmove(p + at, p + at + len, n - at - len);
        return n - len;
    case 3:
        len = (size_t) rnd(64);
        if (n + len > BYTES_MAX || at + len > n) {
            return n;
        }
        memmove(p + at + len, p + at, n - at);
        return n + len;
    case 4:
        w = words[rnd(sizeof(words) / sizeof(words[0]))];
        len = strlen(w);
        if (n + len > BYTES_MAX) {
            return n;
        }
        memmove(p + at + len, p + at, n - at);
        memcpy(p + at, w, len);
        return n + len;
    default:
        k = (size_t) rnd(n_files);
        from = (size_t) rnd(files[k].n ? files[k].n : 1);
        len = (size_t) rnd(files[k].n - from + 1);
        len = len > n - at ? n - at : len;
        memcpy(p + at, files[k].p + from, len);
        return n;
    }
}


/* Decimal digits only; returns 0, or -1 where the text is no such number. */
static int
number(const char *text, uint64_t *n)
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


int
main(int argc, char **argv)
{
    static uint8_t  buf[BYTES_MAX + 1];
    uint8_t        *copy;
    size_t          n, n_files = 0, k;
    unsigned long   runs = 0;
    uint64_t        seconds, seed;
    time_t          end;
    FILE           *f;
    int             i;

    if (argc < 4 || number(argv[1], &seconds) != 0 || seconds > SECONDS_MAX
        || number(argv[2], &seed) != 0)
    {
        fprintf(stderr, "usage: %s SECONDS SEED FILE...\n", argv[0]);
        return 2;
    }
    state = seed * 2654435769u + 88172645463325252u;
    for (i = 3; i < argc && n_files < FILES_MAX; i++) {
        f = fopen(argv[i], "rb");
        if (f == NULL) {
            continue;
        }
        n = fread(buf, 1, BYTES_MAX, f);
        (void) fclose(f);
        files[n_files].p = malloc(n + 1);
        if (files[n_files].p == NULL) {
            return 2;
        }
        memcpy(files[n_files].p, buf, n);
        files[n_files++].n = n;
        (void) LLVMFuzzerTestOneInput(files[n_files - 1].p, n);
    }
    end = time(NULL) + (time_t) seconds;
    while (n_files && time(NULL) < end) {
        k = (size_t) rnd(n_files);
        n = files[k].n;
        memcpy(buf, files[k].p, n);
        for (i = (int) rnd(6); i >= 0; i--) {
            n = change(buf, n, n_files);
        }
        /* An exact copy, so that a sanitizer sees reads past the end. */
        copy = malloc(n ? n : 1);
        if (copy == NULL) {
            return 2;
        }
        memcpy(copy, buf, n);
        (void) LLVMFuzzerTestOneInput(copy, n);
        free(copy);
        runs++;
    }
    printf("%lu runs\n", runs);
    return 0;
}
