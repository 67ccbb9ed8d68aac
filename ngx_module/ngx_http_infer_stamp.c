/*
 * Which files stand behind an infer_model block: device, inode, size and time
 * of change of each become part of the configuration text, so that a reload
 * after a file was replaced under the same path starts another pool, and one
 * after nothing changed finds the pool that runs.  What is in the files is
 * the worker's business.
 */

#include "ngx_module/ngx_http_infer.h"

#include <dirent.h>
#include <linux/magic.h>
#include <sys/vfs.h>


#define NGX_HTTP_INFER_STAMP_FILES  4096        /* looked at in a folder */


typedef struct {
    uint64_t    place;                  /* of one file among all machines' */
    uint64_t    content;                /* the same where a file was copied */
    ngx_uint_t  entries;
    ngx_uint_t  fuse;                   /* numbers of inodes change there */
} ngx_http_infer_stamp_t;


static void ngx_http_infer_stamp_path(ngx_http_infer_stamp_t *stamp,
    const char *path);
static void ngx_http_infer_stamp_folder(ngx_http_infer_stamp_t *stamp,
    int fd, const char *within, uint64_t seed, ngx_uint_t level);


void
ngx_http_infer_stamp(ngx_http_infer_model_t *model)
{
    ngx_file_info_t         fi;
    ngx_http_infer_stamp_t  stamp;

    if (ngx_file_info(model->file.data, &fi) != NGX_FILE_ERROR) {
        model->created = ngx_file_mtime(&fi);
    }

    ngx_memzero(&stamp, sizeof(ngx_http_infer_stamp_t));
    ngx_http_infer_stamp_path(&stamp, (char *) model->file.data);

    if (ngx_strcmp(model->template.data, "-") != 0) {
        ngx_http_infer_stamp_path(&stamp, (char *) model->template.data);
    }

    model->content = stamp.content;

    /* another's pool was started with the files of then, and may see others
     * under these paths: it is its owner who begins it anew */
    model->stamp = model->external ? 0 : stamp.place;
}


void
ngx_http_infer_stamp_names(ngx_http_infer_model_t *model)
{
    size_t    len;
    uint64_t  fingerprint[2];

    len = model->text.len - (sizeof("stamp 0123456789abcdef\n") - 1);

    /* on all nodes that serve the same from the same paths the same */
    fingerprint[0] = model->content;
    fingerprint[1] = shr_hash64(model->text.data, len);
    ngx_sprintf(model->fingerprint, "%016xL",
                shr_hash64(fingerprint, sizeof(fingerprint)));

    model->hash = shr_hash64(model->text.data, model->text.len);
}


/* Sums, as a folder has no order.  A file that cannot be looked at counts as
 * none: the worker's check says what is wrong with it. */
static void
ngx_http_infer_stamp_add(ngx_http_infer_stamp_t *stamp, uint64_t name,
    ngx_file_info_t *fi)
{
    uint64_t  content[3], place[4];

    content[0] = name;
    content[1] = (uint64_t) fi->st_size;
    content[2] = (uint64_t) fi->st_mtim.tv_sec;
    stamp->content += shr_hash64(content, sizeof(content));

    place[0] = shr_hash64(content, sizeof(content));
    place[1] = stamp->fuse ? 0 : (uint64_t) fi->st_dev;
    place[2] = stamp->fuse ? 0 : (uint64_t) fi->st_ino;
    place[3] = (uint64_t) fi->st_mtim.tv_nsec;
    stamp->place += shr_hash64(place, sizeof(place));
}


static void
ngx_http_infer_stamp_path(ngx_http_infer_stamp_t *stamp, const char *path)
{
    int              fd;
    uint64_t         name;
    struct statfs    fs;
    ngx_file_info_t  fi;

    if (stat(path, &fi) == -1) {
        return;
    }

    stamp->fuse = statfs(path, &fs) == 0 && fs.f_type == FUSE_SUPER_MAGIC;

    name = shr_hash64(path, ngx_strlen(path));

    if (!S_ISDIR(fi.st_mode)) {
        ngx_http_infer_stamp_add(stamp, name, &fi);
        return;
    }

    fd = open(path, O_RDONLY|O_DIRECTORY|O_CLOEXEC);
    if (fd != -1) {
        ngx_http_infer_stamp_folder(stamp, fd, ".", name, 0);
        (void) close(fd);
    }
}


/* A README beside a model may change. */
static ngx_uint_t
ngx_http_infer_stamp_counts(const char *name)
{
    size_t              i, len, n;
    static const char  *ends[] = { ".json", ".safetensors", ".model", ".txt",
                                   ".jinja", ".gguf" };

    len = ngx_strlen(name);

    for (i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        n = ngx_strlen(ends[i]);

        if (len > n && ngx_strcmp(name + len - n, ends[i]) == 0) {
            return 1;
        }
    }

    return 0;
}


/* The folder and those in it (the modules of sentence-transformers), no
 * deeper.  Links are followed: caches of models consist of them. */
static void
ngx_http_infer_stamp_folder(ngx_http_infer_stamp_t *stamp, int fd,
    const char *within, uint64_t seed, ngx_uint_t level)
{
    int              at;
    DIR             *dir;
    uint64_t         name[2];
    ngx_file_info_t  fi;
    struct dirent   *entry;

    at = openat(fd, within, O_RDONLY|O_DIRECTORY|O_CLOEXEC);
    dir = at != -1 ? fdopendir(at) : NULL;

    if (dir == NULL) {
        if (at != -1) {
            (void) close(at);
        }

        return;
    }

    name[0] = seed;

    while ((entry = readdir(dir)) != NULL
           && stamp->entries < NGX_HTTP_INFER_STAMP_FILES)
    {
        stamp->entries++;

        if (entry->d_name[0] == '.'
            || fstatat(at, entry->d_name, &fi, 0) == -1)
        {
            continue;
        }

        name[1] = shr_hash64(entry->d_name, ngx_strlen(entry->d_name));

        if (S_ISDIR(fi.st_mode) && level == 0) {
            ngx_http_infer_stamp_folder(stamp, at, entry->d_name,
                                        shr_hash64(name, sizeof(name)), 1);

        } else if (S_ISREG(fi.st_mode)
                   && ngx_http_infer_stamp_counts(entry->d_name))
        {
            ngx_http_infer_stamp_add(stamp, shr_hash64(name, sizeof(name)),
                                     &fi);
        }
    }

    (void) closedir(dir);
}
