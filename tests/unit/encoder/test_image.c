/*
 * Prepared weights of encoders: packed, kept in the cache folder, mapped from
 * there or shared by a memfd; the same bits whatever the way, and made again
 * when anything about the file or its source is not as it was.
 */
#include "tests/unit/encoder/tiny_st.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define GOLDEN  "tests/golden/encoder/families.json"
#define WIDTH   256u

static cJSON     *golden;
static char       path[TINY_PATH];
static uint32_t   ids[64], len;


static int
setup(void **state)
{
    const cJSON  *m, *c;

    (void) state;
    golden = tiny_json(GOLDEN);
    assert_non_null(golden);
    m = cJSON_GetArrayItem(golden, 0);
    tiny_folder(path, m, NULL, NULL);
    c = cJSON_GetArrayItem(cJSON_GetObjectItem(m, "cases"), 0);
    len = tiny_ids(cJSON_GetObjectItem(c, "ids"), ids, 64);
    assert_true(len > 0);

    return 0;
}


static int
teardown(void **state)
{
    (void) state;
    tiny_drop(path);
    cJSON_Delete(golden);

    return 0;
}


/* Opens the model as mo says, which must come from `origin`; its result. */
static void
run(const enc_model_opts_t *mo, float *out, const char *origin)
{
    enc_t        *e;
    uint32_t      at[2] = { 0, len };
    eng_err_t     err;
    enc_batch_t   b = { ids, NULL, at, 1 };
    enc_model_t  *m;

    if (enc_model_open(path, mo, &m, &err) != 0) {
        fail_msg("%s", err.text);
    }
    assert_string_equal(enc_model_origin(m), origin);
    e = tiny_engine(m, 2);
    assert_true(enc_limits(e)->width <= WIDTH);
    memset(out, 0, WIDTH * sizeof(float));
    assert_int_equal(enc_run(e, &b, out), 0);
    enc_destroy(e);
    enc_model_close(m);
}


/* The only file of the folder. */
static void
cached(const char *dir, char *file, size_t cap)
{
    DIR                  *d = opendir(dir);
    uint32_t              n = 0;
    const struct dirent  *e;

    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        if (e->d_name[0] != '.') {
            snprintf(file, cap, "%s/%s", dir, e->d_name);
            n++;
        }
    }
    closedir(d);
    assert_int_equal(n, 1);
}


static void
drop(const char *dir)
{
    DIR                  *d = opendir(dir);
    const struct dirent  *e;

    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        if (e->d_name[0] != '.') {
            assert_int_equal(unlinkat(dirfd(d), e->d_name, 0), 0);
        }
    }
    closedir(d);
    assert_int_equal(rmdir(dir), 0);
}


static void
flip(const char *file, off_t at)
{
    int      fd = open(file, O_RDWR | O_CLOEXEC);
    uint8_t  v;

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &v, 1, at), 1);
    v ^= 0x55;
    assert_int_equal(pwrite(fd, &v, 1, at), 1);
    close(fd);
}


static void
test_cache(void **state)
{
    char              dir[] = "/tmp/infer-enc-cache-XXXXXX", file[512];
    char              weights[2 * TINY_PATH];
    float             first[WIDTH], again[WIDTH];
    struct stat       st;
    enc_model_opts_t  mo = ENC_MODEL_OPTS_INIT;

    (void) state;
    assert_non_null(mkdtemp(dir));
    run(&mo, first, "packed");
    mo.cache_dir = dir;
    run(&mo, again, "packed");
    assert_memory_equal(first, again, sizeof(first));
    run(&mo, again, "cache file");
    assert_memory_equal(first, again, sizeof(first));
    cached(dir, file, sizeof(file));
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);

    /* damage in the header, in the data, at the end; a cut */
    flip(file, 20);
    run(&mo, again, "packed");
    flip(file, 4096 + 77);
    run(&mo, again, "packed");
    flip(file, st.st_size - 1);
    run(&mo, again, "packed");
    assert_int_equal(truncate(file, 5000), 0);
    run(&mo, again, "packed");
    run(&mo, again, "cache file");
    assert_memory_equal(first, again, sizeof(first));

    /* the weights changed under the same name */
    snprintf(weights, sizeof(weights), "%s/model.safetensors", path);
    assert_int_equal(stat(weights, &st), 0);
    flip(weights, st.st_size - 2);
    run(&mo, again, "packed");
    flip(weights, st.st_size - 2);
    run(&mo, again, "packed");
    assert_memory_equal(first, again, sizeof(first));

    /* another precision has an image of its own beside it */
    mo.precision = ENC_PREC_BF16;
    run(&mo, again, "packed");
    run(&mo, again, "cache file");
    mo.precision = ENC_PREC_F32;
    run(&mo, again, "cache file");
    assert_memory_equal(first, again, sizeof(first));

    mo.cache_dir = "/nonexistent/dir";
    run(&mo, again, "packed");
    assert_memory_equal(first, again, sizeof(first));
    drop(dir);
}


/* Workers of a pool: the first one packs, the others find it done. */
static void
test_shared(void **state)
{
    int               fd = memfd_create("t", MFD_CLOEXEC), status;
    float             first[WIDTH], again[WIDTH];
    pid_t             pid;
    eng_err_t         err;
    enc_model_t      *m;
    enc_model_opts_t  mo = ENC_MODEL_OPTS_INIT;

    (void) state;
    assert_true(fd >= 0);
    run(&mo, first, "packed");
    mo.prepared_fd = fd;
    run(&mo, again, "packed");
    assert_memory_equal(first, again, sizeof(first));
    run(&mo, again, "shared");
    assert_memory_equal(first, again, sizeof(first));

    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        run(&mo, again, "shared");
        _exit(memcmp(first, again, sizeof(first)) == 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);

    /* of this size, but not this: never taken for it */
    mo.precision = ENC_PREC_INT8;
    assert_int_equal(enc_model_open(path, &mo, &m, &err), ENG_EINVAL);
    close(fd);
}


/* Pool and cache folder: what the first start of a pool finds there. */
static void
test_both(void **state)
{
    int               fd = memfd_create("t", MFD_CLOEXEC);
    char              dir[] = "/tmp/infer-enc-cache-XXXXXX";
    float             first[WIDTH], again[WIDTH];
    enc_model_opts_t  mo = ENC_MODEL_OPTS_INIT;

    (void) state;
    assert_true(fd >= 0);
    assert_non_null(mkdtemp(dir));
    mo.cache_dir = dir;
    mo.prepared_fd = fd;
    run(&mo, first, "packed");
    run(&mo, again, "shared");
    assert_memory_equal(first, again, sizeof(first));
    close(fd);

    fd = memfd_create("t", MFD_CLOEXEC);
    assert_true(fd >= 0);
    mo.prepared_fd = fd;
    run(&mo, again, "cache file");
    assert_memory_equal(first, again, sizeof(first));
    close(fd);
    drop(dir);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_both),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
