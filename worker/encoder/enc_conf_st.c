/*
 * sentence-transformers' modules.json: which steps follow the encoder, and
 * how tokens become one vector.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/tok_json.h"
#include "worker/encoder/enc_conf.h"
#include "worker/engine/eng_cfg.h"
#include "worker/engine/eng_io.h"

#define MODULES_BYTES_MAX  (64u << 10)
#define PATH_MAX_B         200u
#define MODULES_MAX        16u      /* each may read a file                  */

typedef struct {
    char  type[128];
    char  path[PATH_MAX_B];
} module_t;


static int
pooling(const char *path, const char *folder, enc_hp_t *hp, eng_err_t *err)
{
    int        rc = 0, on, n = 0;
    char       file[PATH_MAX_B + 16];
    size_t     i;
    eng_cfg_t  c;

    static const struct {
        const char  *key;
        int          pool;
    } modes[] = {
        { "pooling_mode_cls_token", ENC_POOL_CLS },
        { "pooling_mode_mean_tokens", ENC_POOL_MEAN },
        { "pooling_mode_max_tokens", ENC_POOL_MAX },
        { "pooling_mode_lasttoken", ENC_POOL_LAST },
        { "pooling_mode_mean_sqrt_len_tokens", -1 },
        { "pooling_mode_weightedmean_tokens", -1 },
    };

    if (strstr(folder, "..") != NULL || folder[0] == '/') {
        return eng_fail(err, ENG_EFORMAT, "%s/modules.json: the path \"%s\" "
                        "leaves the folder", path, folder);
    }
    (void) snprintf(file, sizeof(file), "%s/config.json", folder);
    rc = eng_cfg_open(&c, path, file, err);
    if (rc != 0) {
        return rc;
    }
    for (i = 0; i < sizeof(modes) / sizeof(modes[0]) && rc >= 0; i++) {
        on = 0;
        rc = eng_cfg_bool(&c, modes[i].key, &on, err);
        if (rc < 0 || !on) {
            continue;
        }
        if (modes[i].pool < 0 || n++ > 0) {
            rc = eng_fail(err, ENG_EUNSUP, "%s: \"%s\"%s is not supported",
                          c.name, modes[i].key, n > 1 ? " beside another"
                          : "");
            break;
        }
        hp->pool = (enc_pool_t) modes[i].pool;
    }
    if (rc >= 0 && n == 0) {
        rc = eng_fail(err, ENG_EUNSUP, "%s: no pooling is switched on",
                      c.name);
    }
    eng_cfg_close(&c);

    return rc < 0 ? rc : 0;
}


static int
apply(const char *path, const module_t *m, enc_hp_t *hp, eng_err_t *err)
{
    const char  *name = strrchr(m->type, '.');

    name = name != NULL ? name + 1 : m->type;
    if (strcmp(name, "Transformer") == 0) {
        return 0;
    }
    if (strcmp(name, "Pooling") == 0) {
        return pooling(path, m->path, hp, err);
    }
    if (strcmp(name, "Normalize") == 0) {
        hp->normalize = 1;
        return 0;
    }

    return eng_fail(err, ENG_EUNSUP, "%s/modules.json: the module \"%s\" is "
                    "not supported; known are Transformer, Pooling and "
                    "Normalize", path, m->type);
}


/* A member's text, cut to cap - 1 bytes. */
static void
text_of(tok_json_t *j, const tok_members_t *ms, const char *key, char *dst,
    size_t cap)
{
    size_t     n;
    tok_str_t  s;

    dst[0] = '\0';
    if (tok_json_at(j, ms, key) && tok_json_peek(j) == '"'
        && tok_json_string(j, &s) == 0)
    {
        n = s.len < cap - 1 ? s.len : cap - 1;
        memcpy(dst, s.ptr, n);
        dst[n] = '\0';
    }
}


static int
read_modules(tok_json_t *j, const char *path, enc_hp_t *hp, eng_err_t *err)
{
    int            rc, more;
    bool           first = true;
    uint32_t       n = 0;
    module_t       m;
    const uint8_t *next;
    tok_members_t  ms;

    hp->normalize = 0;
    rc = tok_json_open(j, '[');
    while (rc == 0 && (more = tok_json_next(j, '[', &first)) != 0) {
        rc = more < 0 ? more : tok_json_members(j, &ms);
        if (rc != 0) {
            break;
        }
        if (n++ == MODULES_MAX) {
            return eng_fail(err, ENG_ELIMIT, "%s: more than %u modules",
                            j->name, MODULES_MAX);
        }
        next = j->p;
        text_of(j, &ms, "type", m.type, sizeof(m.type));
        text_of(j, &ms, "path", m.path, sizeof(m.path));
        j->p = next;
        rc = apply(path, &m, hp, err);
        if (rc != 0) {
            return rc;
        }
    }
    if (rc != 0) {
        return eng_fail(err, ENG_EFORMAT, "%s", j->err->msg);
    }

    return 0;
}


int
enc_conf_modules(const char *path, enc_hp_t *hp, eng_err_t *err)
{
    int         rc;
    char        file[ENG_IO_PATH_MAX], *text = NULL;
    uint64_t    len;
    tok_err_t   te;
    tok_json_t  j;

    if (!eng_io_exists(path, "modules.json")) {
        return 0;
    }
    rc = eng_io_join(file, path, "modules.json", err);
    if (rc == 0) {
        rc = eng_io_text(file, MODULES_BYTES_MAX, &text, &len, err);
    }
    if (rc != 0) {
        return rc;
    }

    if (tok_json_init(&j, text, len, file, &te) != 0) {
        rc = eng_fail(err, ENG_EFORMAT, "%s", te.msg);
    } else {
        rc = read_modules(&j, path, hp, err);
        tok_json_free(&j);
    }
    free(text);

    return rc;
}
