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
open_json(tok_t **t, const char *path, const char *config_path,
    tok_err_t *err)
{
    char       *json = NULL, *config = NULL;
    size_t      len = 0, config_len = 0;
    int         rc = tok_read_file(path, TOK_FILE_BYTES_MAX, &json, &len,
                                   err);

    if (rc == 0 && config_path != NULL && access(config_path, R_OK) == 0) {
        rc = tok_read_file(config_path, TOK_CONFIG_BYTES_MAX, &config,
                           &config_len, err);
    }
    if (rc == 0) {
        rc = tok_json_memory(t, json, len, config, config_len, path, err);
    }
    free(config);
    free(json);
    return rc;
}


static int
open_folder(tok_t **t, const char *path, tok_err_t *err)
{
    char  json[TOK_PATH_BYTES_MAX], config[TOK_PATH_BYTES_MAX];
    int   a, b;

    a = snprintf(json, sizeof(json), "%s/tokenizer.json", path);
    b = snprintf(config, sizeof(config), "%s/tokenizer_config.json", path);
    if (a < 0 || b < 0 || (size_t) b >= sizeof(config)) {
        return tok_fail(err, TOK_E_LIMIT, "%s: a path of more than %d bytes",
                        path, TOK_PATH_BYTES_MAX);
    }
    return open_json(t, json, config, err);
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
    return open_json(t, path, NULL, err);
}


int
tok_open_json(tok_t **t, const char *json, size_t len, tok_err_t *err)
{
    *t = NULL;
    return tok_json_memory(t, json, len, NULL, 0, "tokenizer.json", err);
}
