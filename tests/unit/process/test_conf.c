/* The door for a model's configuration text, and the pauses of a supervisor:
 * each limit, and one past it. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "worker/wrk_conf.h"
#include "worker/wrk_log.h"
#include "worker/wrk_super.h"


#define HEAD  "name smollm2\nfile /models/smollm2.gguf\n"


static int
parse(wrk_conf_t *conf, const char *text, char *err)
{
    err[0] = '\0';
    return wrk_conf_parse(conf, text, strlen(text), err);
}


static void
expect_refused(const char *text, const char *part)
{
    char        err[WRK_CONF_ERR_MAX];
    wrk_conf_t  conf;

    assert_int_equal(parse(&conf, text, err), -1);
    if (strstr(err, part) == NULL) {
        fail_msg("\"%s\" does not mention \"%s\"", err, part);
    }
}


static void
conf_defaults(void **state)
{
    char        err[WRK_CONF_ERR_MAX];
    wrk_conf_t  c;

    (void) state;
    assert_int_equal(parse(&c, HEAD, err), 0);
    assert_string_equal(c.name, "smollm2");
    assert_string_equal(c.file, "/models/smollm2.gguf");
    assert_int_equal(c.workers, 1);
    assert_int_equal(c.threads, 2);
    assert_int_equal(c.context, 0);
    assert_int_equal(c.batch, 512);
    assert_int_equal(c.sequences, 64);
    assert_int_equal(c.queue_requests, 256);
    assert_int_equal(c.nice, 10);
    assert_int_equal(c.io_uring, 1);
    assert_int_equal(c.null_engine, 0);
    assert_string_equal(c.cache, "");
    assert_string_equal(c.template_path, "");
    assert_string_equal(c.quantize, "");
    assert_int_equal(c.ncpus, 0);
}


static void
conf_all_keys(void **state)
{
    char        err[WRK_CONF_ERR_MAX];
    wrk_conf_t  c;

    (void) state;
    assert_int_equal(parse(&c, HEAD "workers 3\nthreads 4\ncontext 4096\n"
        "batch 65536\nbatch_delay_us 200\nsequences 16\n"
        "kv_bytes 1099511627776\n"
        "prefix_cache 0\nspeculate prompt_lookup\n"
        "queue_requests 7\nqueue_tokens 9\n"
        "cache /var/cache/infer\n"
        "precision exact\nkv_type q8_0\n"
        "null 1\nnull_delay_us 20000\nnull_tokens 5\n"
        "template /etc/t.jinja\nquantize q8_0\nnice 0\nspin_us 50\n"
        "affinity 0,2,4-7\nio_uring 0", err), 0);
    assert_int_equal(c.workers, 3);
    assert_true(c.kv_bytes == 1ull << 40);
    assert_int_equal(c.prefix_cache, 0);
    assert_int_equal(c.speculate, 1);
    assert_int_equal(c.queue_tokens, 9);
    assert_string_equal(c.cache, "/var/cache/infer");
    assert_int_equal(c.precision, WRK_PREC_EXACT);
    assert_int_equal(c.batch_delay_us, 200);
    assert_int_equal(c.kv_q8, 1);
    assert_int_equal(c.null_engine, 1);
    assert_int_equal(c.null_delay_us, 20000);
    assert_int_equal(c.null_tokens, 5);
    assert_string_equal(c.template_path, "/etc/t.jinja");
    assert_string_equal(c.quantize, "q8_0");
    assert_int_equal(c.nice, 0);
    assert_int_equal(c.spin_us, 50);
    assert_int_equal(c.io_uring, 0);
    assert_int_equal(c.ncpus, 6);
    assert_int_equal(c.cpus[1], 2);
    assert_int_equal(c.cpus[5], 7);
}


static void
conf_absent_values(void **state)
{
    char        err[WRK_CONF_ERR_MAX];
    wrk_conf_t  c;

    (void) state;
    assert_int_equal(parse(&c, HEAD "cache off\ntemplate -\naffinity -\n"
                           "precision default\n", err), 0);
    assert_string_equal(c.cache, "");
    assert_string_equal(c.template_path, "");
    assert_int_equal(c.ncpus, 0);
}


static void
conf_refuses(void **state)
{
    (void) state;
    expect_refused("", "without \"name\"");
    expect_refused("name a\n", "without \"file\"");
    expect_refused(HEAD "workers\n", "no value");
    expect_refused(HEAD "workers \n", "no value");
    expect_refused(HEAD "colour blue\n", "unknown key \"colour\"");
    expect_refused(HEAD "name again\n", "twice");
    expect_refused(HEAD "workers 0\n", "1 to 32");
    expect_refused(HEAD "workers 33\n", "1 to 32");
    expect_refused(HEAD "workers 1 \n", "number");
    expect_refused(HEAD "workers +1\n", "number");
    expect_refused(HEAD "workers 1e1\n", "number");
    expect_refused(HEAD "workers 99999999999999999999\n", "number");
    expect_refused(HEAD "kv_bytes 1099511627777\n", "number");
    expect_refused(HEAD "precision best\n", "precision");
    expect_refused(HEAD "quantize q8_0q8_0q8_0q8_0\n", "quantize");
    expect_refused(HEAD "kv_type q4_0\n", "kv_type");
    expect_refused(HEAD "affinity 1,\n", "affinity");
    expect_refused(HEAD "affinity ,1\n", "affinity");
    expect_refused(HEAD "affinity 3-1\n", "affinity");
    expect_refused(HEAD "affinity 1024\n", "affinity");
    expect_refused(HEAD "affinity 0-256\n", "affinity");
    expect_refused(HEAD "nice 20\n", "0 to 19");
    expect_refused(HEAD "nice -5\n", "number");
}


static void
conf_limits_of_text(void **state)
{
    char        err[WRK_CONF_ERR_MAX], text[WRK_CONF_TEXT_MAX + 2];
    size_t      n;
    wrk_conf_t  c;

    (void) state;

    n = (size_t) snprintf(text, sizeof(text), "name ");
    memset(text + n, 'n', WRK_CONF_NAME_MAX);
    memcpy(text + n + WRK_CONF_NAME_MAX - 1, "\nfile /f\n", 10);
    assert_int_equal(parse(&c, text, err), 0);
    assert_int_equal(strlen(c.name), WRK_CONF_NAME_MAX - 1);

    memset(text + n, 'n', WRK_CONF_NAME_MAX);
    memcpy(text + n + WRK_CONF_NAME_MAX, "\nfile /f\n", 10);
    assert_int_equal(parse(&c, text, err), -1);
    assert_non_null(strstr(err, "the limit is 63"));

    memset(text, '\n', sizeof(text));
    memcpy(text, HEAD, sizeof(HEAD) - 1);
    assert_int_equal(wrk_conf_parse(&c, text, WRK_CONF_TEXT_MAX, err), 0);
    assert_int_equal(wrk_conf_parse(&c, text, WRK_CONF_TEXT_MAX + 1, err),
                     -1);
    text[3] = '\0';
    assert_int_equal(wrk_conf_parse(&c, text, 100, err), -1);
}


/* Whatever the bytes are, the answer is yes or no. */
static void
conf_mutations(void **state)
{
    char        err[WRK_CONF_ERR_MAX];
    char        text[] = HEAD "workers 3\naffinity 0,2,4-7\nprecision exact\n";
    int         yes = 0, no = 0;
    size_t      i, len = sizeof(text) - 1;
    unsigned    byte;
    wrk_conf_t  c;

    (void) state;
    for (i = 0; i < len; i++) {
        char  saved = text[i];

        for (byte = 0; byte < 256; byte++) {
            text[i] = (char) byte;
            if (wrk_conf_parse(&c, text, len, err) == 0) {
                assert_in_range(c.workers, 1, 32);
                assert_in_range(c.ncpus, 0, WRK_CONF_CPUS_MAX);
                yes++;
            } else {
                assert_true(err[0] != '\0');
                no++;
            }
        }
        text[i] = saved;
        assert_true(wrk_conf_parse(&c, text, i, err) == 0 || err[0] != '\0');
    }
    assert_true(yes > 0 && no > 0);
}


static void
numbers(void **state)
{
    uint64_t  n;

    (void) state;
    assert_int_equal(wrk_conf_number("18446744073709551615", 20, 0,
                                     UINT64_MAX, &n), 0);
    assert_true(n == UINT64_MAX);
    assert_int_equal(wrk_conf_number("18446744073709551616", 20, 0,
                                     UINT64_MAX, &n), -1);
    assert_int_equal(wrk_conf_number("", 0, 0, 1, &n), -1);
    assert_int_equal(wrk_conf_number("7", 1, 7, 7, &n), 0);
    assert_int_equal(wrk_conf_number("8", 1, 7, 7, &n), -1);
    assert_int_equal(wrk_conf_number("6", 1, 7, 7, &n), -1);
}


static void
backoff(void **state)
{
    int       i;
    uint32_t  step = 0, ms, before = 0;

    (void) state;
    assert_int_equal(wrk_super_backoff_ms(&step, 0, 10000), 0);
    assert_int_equal(wrk_super_backoff_ms(&step, 0, 10000), 50);
    assert_int_equal(wrk_super_backoff_ms(&step, 9999, 10000), 100);
    assert_int_equal(wrk_super_backoff_ms(&step, 0, 10000), 200);
    for (i = 0; i < 200; i++) {
        ms = wrk_super_backoff_ms(&step, 0, 10000);
        assert_true(ms >= before && ms <= 10000);
        before = ms;
    }
    assert_int_equal(before, 10000);

    /* It had served for long: as if nothing had been. */
    assert_int_equal(wrk_super_backoff_ms(&step, 10000, 10000), 0);
    assert_int_equal(wrk_super_backoff_ms(&step, 0, 50), 50);
    assert_int_equal(wrk_super_backoff_ms(&step, 0, 50), 50);
}


static void
log_lines(void **state)
{
    char    line[WRK_LOG_LINE_MAX], small[40];
    size_t  n;

    (void) state;
    wrk_log_name("m1");
    n = wrk_log_format(line, sizeof(line), WRK_LOG_WARN, "two\nlines\x1b[0m");
    assert_int_equal(line[n - 1], '\n');
    line[n - 1] = '\0';
    assert_null(strchr(line, '\n'));
    assert_null(strchr(line, '\x1b'));
    assert_non_null(strstr(line, " [warn] "));
    assert_non_null(strstr(line, "infer: model m1: two lines"));

    n = wrk_log_format(small, sizeof(small), WRK_LOG_ERROR,
                       "a text that is longer than the room for it");
    assert_true(n <= sizeof(small));
    assert_int_equal(small[n - 1], '\n');
    wrk_log_name(NULL);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(conf_defaults),
        cmocka_unit_test(conf_all_keys),
        cmocka_unit_test(conf_absent_values),
        cmocka_unit_test(conf_refuses),
        cmocka_unit_test(conf_limits_of_text),
        cmocka_unit_test(conf_mutations),
        cmocka_unit_test(numbers),
        cmocka_unit_test(backoff),
        cmocka_unit_test(log_lines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
