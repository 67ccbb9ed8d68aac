/*
 * $infer_prefix_key: names the beginning of a request's prompt, so that
 *
 *     upstream nodes { hash $infer_prefix_key consistent; ... }
 *
 * sends requests that begin alike to the node whose prefix cache is warm for
 * them: all turns of a conversation, and those that ask about one text.  It is
 * computed in any location, from the body that was read for it.
 */

#include "ngx_module/ngx_http_infer_api.h"
#include "ngx_module/ngx_http_infer_fields.h"

#include <ngx_sha1.h>


#define NGX_HTTP_INFER_PREFIX_BYTES  1024       /* of what the user says */
#define NGX_HTTP_INFER_PREFIX_HEX    16


/* Values are told apart by their length, so that none runs into the next. */
static void
ngx_http_infer_prefix_add(ngx_sha1_t *sha1,
    const ngx_http_infer_value_t *value, size_t most)
{
    size_t  len;

    len = ngx_min(value->len, most);
    ngx_sha1_update(sha1, &len, sizeof(len));
    ngx_sha1_update(sha1, value->start, len);
}


/* One message.  NGX_DONE: it is the user's, what follows does not count. */
static ngx_int_t
ngx_http_infer_prefix_message(ngx_sha1_t *sha1,
    const ngx_http_infer_value_t *message)
{
    ngx_str_t                name;
    ngx_uint_t               user;
    ngx_http_infer_walk_t    walk;
    ngx_http_infer_value_t   v, content;

    if (!ngx_http_infer_is(message, OBJECT)) {
        return NGX_DONE;
    }

    user = 0;
    ngx_memzero(&content, sizeof(content));
    ngx_http_infer_walk(&walk, message);

    while (ngx_http_infer_walk_member(&walk, &name, &v) == NGX_OK) {

        if (name.len == 4 && ngx_strncmp(name.data, "role", 4) == 0) {
            user = ngx_http_infer_same(&v, "\"user\"");
            ngx_http_infer_prefix_add(sha1, &v, v.len);

        } else if (name.len == 7
                   && ngx_strncmp(name.data, "content", 7) == 0)
        {
            content = v;
        }
    }

    ngx_http_infer_prefix_add(sha1, &content,
                              user ? NGX_HTTP_INFER_PREFIX_BYTES
                                   : content.len);

    return user ? NGX_DONE : NGX_OK;
}


static void
ngx_http_infer_prefix_messages(ngx_sha1_t *sha1,
    const ngx_http_infer_value_t *messages)
{
    ngx_http_infer_value_t      element;
    ngx_http_infer_json_iter_t  iter;

    if (ngx_http_infer_json_array(messages, &iter) != 0) {
        return;
    }

    while (ngx_http_infer_json_next(&iter, &element) == 0) {
        if (ngx_http_infer_prefix_message(sha1, &element) != NGX_OK) {
            return;
        }
    }
}


/* 1: something of the prompt was found. */
static ngx_uint_t
ngx_http_infer_prefix_body(ngx_sha1_t *sha1, ngx_str_t *body)
{
    size_t                                i;
    ngx_uint_t                            found;
    ngx_http_infer_json_err_t             err;
    const ngx_http_infer_json_value_t    *value;
    static ngx_http_infer_json_doc_t      doc;
    static const char                    *whole[] = { "model", "tools" };
    static const char                    *begin[] = {
        "prompt", "inputs", "input", "query", "system", "instructions"
    };

    if (ngx_http_infer_json_check(body->data, body->len, &doc, &err) != 0
        || doc.value.type != NGX_HTTP_INFER_JSON_OBJECT)
    {
        return 0;
    }

    for (i = 0; i < sizeof(whole) / sizeof(whole[0]); i++) {
        value = ngx_http_infer_json_member(&doc, whole[i]);

        if (value != NULL) {
            ngx_http_infer_prefix_add(sha1, value, value->len);
        }
    }

    for (i = 0, found = 0; i < sizeof(begin) / sizeof(begin[0]); i++) {
        value = ngx_http_infer_json_member(&doc, begin[i]);

        if (value != NULL) {
            found = 1;
            ngx_http_infer_prefix_add(sha1, value,
                                      NGX_HTTP_INFER_PREFIX_BYTES);
        }
    }

    value = ngx_http_infer_json_member(&doc, "messages");

    if (value != NULL) {
        found = 1;
        ngx_http_infer_prefix_messages(sha1, value);
    }

    return found;
}


ngx_int_t
ngx_http_infer_prefix_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char                 digest[20], *p;
    ngx_sha1_t             sha1;
    ngx_http_infer_ctx_t   ctx;

    /* asked before the body was read, it may be asked again; known once, it
     * stays, when the body has gone */
    v->not_found = 1;
    v->no_cacheable = 1;

    if (r->request_body == NULL || r->request_body->bufs == NULL) {
        return NGX_OK;                  /* not read yet, or there is none */
    }

    ngx_memzero(&ctx, sizeof(ngx_http_infer_ctx_t));
    ctx.request = r;

    if (ngx_http_infer_body(&ctx) != NGX_OK || ctx.body.len == 0) {
        return NGX_OK;
    }

    ngx_sha1_init(&sha1);

    if (!ngx_http_infer_prefix_body(&sha1, &ctx.body)) {
        ngx_sha1_update(&sha1, ctx.body.data, ctx.body.len);
    }

    ngx_sha1_final(digest, &sha1);

    p = ngx_pnalloc(r->pool, NGX_HTTP_INFER_PREFIX_HEX);
    if (p == NULL) {
        return NGX_ERROR;
    }

    v->data = p;
    v->len = NGX_HTTP_INFER_PREFIX_HEX;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    (void) ngx_hex_dump(p, digest, NGX_HTTP_INFER_PREFIX_HEX / 2);

    return NGX_OK;
}
