/*
 * The JSON door: one strict pass (RFC 8259) over a body before anybody else
 * looks at it, and readers for the parts that it found.
 *
 * It allocates nothing, keeps no state, needs no nginx and no tree: a member is
 * a span of the body.  A body of 1 MiB takes about a millisecond whatever it
 * holds. Refused, beyond what is not JSON: invalid UTF-8, lone surrogates,
 * nesting and numbers of values above the limits, more members than fit,
 * members of one name.
 *
 * Who may call: nginx processes and tests.  Everything points into the body,
 * which must live as long.
 */

#ifndef NGX_HTTP_INFER_JSON_H
#define NGX_HTTP_INFER_JSON_H

#include <stddef.h>


#define NGX_HTTP_INFER_JSON_DEPTH_MAX    64
#define NGX_HTTP_INFER_JSON_NODES_MAX    100000   /* values and names */
#define NGX_HTTP_INFER_JSON_MEMBERS_MAX  64       /* of a recorded object */
#define NGX_HTTP_INFER_JSON_NAME_MAX     256      /* bytes of such a name */
#define NGX_HTTP_INFER_JSON_NUMBER_MAX   400      /* bytes, when read */


/* Errors. */
#define NGX_HTTP_INFER_JSON_OK        0
#define NGX_HTTP_INFER_JSON_ESYNTAX  (-1)   /* not JSON                       */
#define NGX_HTTP_INFER_JSON_EUTF8    (-2)   /* bad UTF-8, a lone surrogate    */
#define NGX_HTTP_INFER_JSON_EDEPTH   (-3)   /* nested too deeply              */
#define NGX_HTTP_INFER_JSON_ENODES   (-4)   /* too many values                */
#define NGX_HTTP_INFER_JSON_EMEMBERS (-5)   /* too many members, long name    */
#define NGX_HTTP_INFER_JSON_EDOUBLE  (-6)   /* two members of one name        */
#define NGX_HTTP_INFER_JSON_ETYPE    (-7)   /* readers: another type          */
#define NGX_HTTP_INFER_JSON_ERANGE   (-8)   /* readers: not representable     */
#define NGX_HTTP_INFER_JSON_ESPACE   (-9)   /* readers: buffer too small */
#define NGX_HTTP_INFER_JSON_END       1     /* ngx_http_infer_json_next()     */


typedef enum {
    NGX_HTTP_INFER_JSON_NULL = 0,
    NGX_HTTP_INFER_JSON_FALSE,
    NGX_HTTP_INFER_JSON_TRUE,
    NGX_HTTP_INFER_JSON_NUMBER,
    NGX_HTTP_INFER_JSON_STRING,
    NGX_HTTP_INFER_JSON_ARRAY,
    NGX_HTTP_INFER_JSON_OBJECT
} ngx_http_infer_json_type_e;

/* A value with its quotes or brackets, without white space around it. */
typedef struct {
    const unsigned char         *start;
    size_t                       len;
    ngx_http_infer_json_type_e   type;
} ngx_http_infer_json_value_t;

typedef struct {
    const unsigned char          *name;       /* as written, without quotes */
    size_t                        name_len;
    unsigned                      hash;       /* of the name it stands for */
    ngx_http_infer_json_value_t   value;
} ngx_http_infer_json_member_t;

typedef struct {
    ngx_http_infer_json_value_t   value;      /* the whole */
    size_t                        nmembers;   /* 0 when it is no object */
    ngx_http_infer_json_member_t  members[NGX_HTTP_INFER_JSON_MEMBERS_MAX];
} ngx_http_infer_json_doc_t;

typedef struct {
    int          code;
    size_t       offset;                      /* in bytes, from 0 */
    const char  *reason;                      /* for people, a constant */
} ngx_http_infer_json_err_t;


/*
 * Checks that data holds exactly one value; if it is an object, its members are
 * in doc, in their order.  On error err is filled and doc means nothing.
 */
int ngx_http_infer_json_check(const unsigned char *data, size_t len,
    ngx_http_infer_json_doc_t *doc, ngx_http_infer_json_err_t *err);

/* The member of that name, or NULL; escapes in the body's name are resolved. */
const ngx_http_infer_json_value_t *ngx_http_infer_json_member(
    const ngx_http_infer_json_doc_t *doc, const char *name);

/* Whether a member's name is this one. */
int ngx_http_infer_json_name_is(const ngx_http_infer_json_member_t *m,
    const char *name);

/*
 * Readers of values that the door has let in (of members, of elements).
 *
 * string: unescapes into `to`, not NUL-terminated; ESPACE when cap is too
 * small. The text is never longer than value->len - 2. name: the same for a
 * member's name. number: any number that is finite as a double.  integer: one
 * without fraction ("2.0" is one).
 */
int ngx_http_infer_json_string(const ngx_http_infer_json_value_t *value,
    unsigned char *to, size_t cap, size_t *len);
int ngx_http_infer_json_name(const ngx_http_infer_json_member_t *m,
    unsigned char *to, size_t cap, size_t *len);
int ngx_http_infer_json_number(const ngx_http_infer_json_value_t *value,
    double *number);
int ngx_http_infer_json_integer(const ngx_http_infer_json_value_t *value,
    long long *number);
int ngx_http_infer_json_bool(const ngx_http_infer_json_value_t *value,
    int *yes);

/* The members of an object inside the body, as check() gives them. */
int ngx_http_infer_json_object(const ngx_http_infer_json_value_t *value,
    ngx_http_infer_json_doc_t *doc, ngx_http_infer_json_err_t *err);

/*
 * The elements of an array, one by one:
 *     rc = ngx_http_infer_json_array(value, &iter);
 *     while (rc == 0 && (rc = ngx_http_infer_json_next(&iter, &element)) == 0)
 * ends with NGX_HTTP_INFER_JSON_END.
 */
typedef struct {
    const unsigned char  *p;
    const unsigned char  *end;
} ngx_http_infer_json_iter_t;

int ngx_http_infer_json_array(const ngx_http_infer_json_value_t *value,
    ngx_http_infer_json_iter_t *iter);
int ngx_http_infer_json_next(ngx_http_infer_json_iter_t *iter,
    ngx_http_infer_json_value_t *element);


/*
 * Shared by the two files of the door: four hex digits; the hash of what a name
 * stands for; whether two names stand for the same (plain: b has no escapes).
 */
int ngx_http_infer_json_hex4(const unsigned char *p, const unsigned char *end,
    unsigned *v);
unsigned ngx_http_infer_json_hash(const unsigned char *name, size_t len);
int ngx_http_infer_json_same(const unsigned char *a, size_t a_len,
    const unsigned char *b, size_t b_len, int plain);


#endif /* NGX_HTTP_INFER_JSON_H */
