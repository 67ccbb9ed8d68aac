/*
 * Floats as text: the shortest decimal number that reads back as the same
 * binary32, as JSON takes it; and their bytes in base64.  Answers with vectors
 * consist of little else, so both are fast and neither allocates.
 *
 * Needs no nginx, keeps no state.  Who may call: nginx processes and tests.
 */

#ifndef NGX_HTTP_INFER_FLOAT_H
#define NGX_HTTP_INFER_FLOAT_H

#include <stddef.h>


#define NGX_HTTP_INFER_FLOAT_MAX   16   /* bytes of a number: -1.1754944e-38 */
#define NGX_HTTP_INFER_FLOAT_ROOM  32   /* that may be written for one */


/* Writes a finite number, no NUL, and beyond it what does not matter; the byte
 * after its last. */
unsigned char *ngx_http_infer_float(unsigned char *p, float value);

/* Bytes of a stream that is cut anywhere: what does not make four letters yet
 * is kept. */
typedef struct {
    unsigned char  kept[3];
    unsigned       nkept;
} ngx_http_infer_base64_t;

/* Writes at most (len + 2) / 3 * 4 bytes; the byte after the last. */
unsigned char *ngx_http_infer_base64(ngx_http_infer_base64_t *s,
    unsigned char *p, const void *data, size_t len);
/* The rest, 4 bytes at most; the state is as new. */
unsigned char *ngx_http_infer_base64_end(ngx_http_infer_base64_t *s,
    unsigned char *p);


#endif /* NGX_HTTP_INFER_FLOAT_H */
