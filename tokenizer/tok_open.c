/*
 * tok_open.c: what is at a path, and who reads it.
 */

#include "tokenizer/tok_load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const tok_beside_t  none;


/* The first bytes of a file: enough to tell the formats apart. */
static int
first_bytes(const char *path, uint8_t *buf, size_t n, tok_err_t *err)
{
    ssize_t  got;
    int      fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return tok_fail(err, TOK_E_IO, "%s: %s", path, strerror(errno));
    }
    memset(buf, 0, n);
    got = read(fd, buf, n);
    (void) close(fd);
    return got < 0 ? tok_fail(err, TOK_E_IO, "%s: %s", path, strerror(errno))
           : 0;
}


static int
open_json(tok_t **t, const char *path, const tok_beside_t *beside,
    tok_err_t *err)
{
    char    *json = NULL;
    size_t   len = 0;
    int      rc = tok_read_file(path, TOK_FILE_BYTES_MAX, &json, &len, err);

    if (rc == 0) {
        rc = tok_json_memory(t, json, len, &json, beside, path, err);
    }
    free(json);
    return rc;
}


/* A file of the folder that may be absent; *text is malloc'ed then. */
static int
read_beside(const char *folder, const char *name, size_t max, tok_str_t *text,
    tok_err_t *err)
{
    char  path[TOK_PATH_BYTES_MAX], *data;
    int   n = snprintf(path, sizeof(path), "%s/%s", folder, name), rc;

    if (n < 0 || (size_t) n >= sizeof(path)) {
        return tok_fail(err, TOK_E_LIMIT, "%s: a path of more than %d bytes",
                        folder, TOK_PATH_BYTES_MAX);
    }
    if (access(path, R_OK) != 0) {
        return 0;
    }
    rc = tok_read_file(path, max, &data, &text->len, err);
    if (rc == 0) {
        text->ptr = data;
    }
    return rc;
}


static int
open_folder(tok_t **t, const char *path, tok_err_t *err)
{
    char          json[TOK_PATH_BYTES_MAX];
    tok_beside_t  beside = { { NULL, 0 }, { NULL, 0 }, { NULL, 0 } };
    int           n, rc;

    n = snprintf(json, sizeof(json), "%s/tokenizer.json", path);
    if (n < 0 || (size_t) n >= sizeof(json)) {
        return tok_fail(err, TOK_E_LIMIT, "%s: a path of more than %d bytes",
                        path, TOK_PATH_BYTES_MAX);
    }
    rc = read_beside(path, "tokenizer_config.json", TOK_CONFIG_BYTES_MAX,
                     &beside.config, err);
    if (rc == 0) {
        rc = read_beside(path, "generation_config.json", TOK_CONFIG_BYTES_MAX,
                         &beside.generation, err);
    }
    if (rc == 0) {
        rc = read_beside(path, "chat_template.jinja", TOK_TEMPLATE_BYTES_MAX,
                         &beside.chat, err);
    }
    if (rc == 0) {
        rc = open_json(t, json, &beside, err);
    }
    free((char *) (uintptr_t) beside.config.ptr);
    free((char *) (uintptr_t) beside.generation.ptr);
    free((char *) (uintptr_t) beside.chat.ptr);
    return rc;
}


int
tok_open(tok_t **t, const char *path, tok_err_t *err)
{
    struct stat  st;
    uint8_t      head[8];
    int          rc;

    *t = NULL;
    if (stat(path, &st) != 0) {
        return tok_fail(err, TOK_E_IO, "%s: %s", path, strerror(errno));
    }
    if (S_ISDIR(st.st_mode)) {
        return open_folder(t, path, err);
    }
    rc = first_bytes(path, head, sizeof(head), err);
    if (rc != 0) {
        return rc;
    }
    if (memcmp(head, "GGUF", 4) == 0) {
        return tok_gguf_file(t, path, err);
    }
    if (tok_load64(head) == TOK_IMAGE_MAGIC) {
        return tok_image_open(t, path, err);
    }
    return open_json(t, path, &none, err);
}


int
tok_open_json(tok_t **t, const char *json, size_t len, tok_err_t *err)
{
    *t = NULL;
    return tok_json_memory(t, json, len, NULL, &none, "tokenizer.json",
                           err);
}
