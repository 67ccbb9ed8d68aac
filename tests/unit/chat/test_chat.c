/*
 * Chat templates: the golden cases (made with the reference by
 * tests/fuzz/chat_golden.py), provenance of the output, shapes of input and
 * their errors, limits, and hostile templates, which must end soon.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cJSON.h>
#include <cmocka.h>

#include "worker/chat/chat_int.h"


#define GOLDEN      "tests/golden/chat/"
#define FILE_MAX    (4 * 1024 * 1024)
#define OUT_BYTES   (256 * 1024)
#define SPANS       4096
#define ARENA       (8 * 1024 * 1024)

static char           text[OUT_BYTES];
static chat_span_t    spans[SPANS];
static char           arena[ARENA];
static chat_output_t  out;
static chat_err_t     err;


static int
render_in(const char *template, size_t len, const chat_input_t *in,
    size_t arena_bytes, size_t out_bytes)
{
    int               rc;
    chat_template_t  *t;

    t = chat_compile(template, len, &err);

    if (t == NULL) {
        assert_true(err.code < 0 && err.text[0] != '\0');
        return err.code;
    }

    memset(&out, 0, sizeof(out));
    out.text = text;
    out.text_cap = out_bytes;
    out.spans = spans;
    out.spans_cap = SPANS;

    rc = chat_render(t, in, arena, arena_bytes, &out, &err);
    assert_int_equal(rc, err.code);
    chat_free(t);
    return rc;
}


static int
render(const char *template, const char *messages)
{
    chat_input_t  in;

    memset(&in, 0, sizeof(in));
    in.messages = messages;
    in.messages_len = strlen(messages);
    in.bos = "<s>";
    in.bos_len = 3;
    in.add_generation_prompt = 1;

    return render_in(template, strlen(template), &in, ARENA, OUT_BYTES);
}


static void
expect(const char *template, const char *messages, const char *want)
{
    if (render(template, messages) != CHAT_OK) {
        fail_msg("%s: %s", template, err.text);
    }

    if (out.text_len != strlen(want)
        || memcmp(out.text, want, out.text_len) != 0)
    {
        fail_msg("%s: got \"%.*s\"", template, (int) out.text_len, out.text);
    }
}


static char *
read_file(const char *path, size_t *len)
{
    FILE  *f;
    char  *data;

    f = fopen(path, "rb");

    if (f == NULL) {
        fail_msg("cannot open %s (run from the repository's root)", path);
    }

    data = malloc(FILE_MAX);
    assert_non_null(data);
    *len = fread(data, 1, FILE_MAX - 1, f);
    data[*len] = '\0';
    fclose(f);
    return data;
}


static const char *
string_of(const cJSON *object, const char *name)
{
    const cJSON  *item;

    item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsString(item) ? item->valuestring : NULL;
}


/*
 * The raw JSON text of a member: cJSON would lose big integers.  Members are in
 * the writer's order and its spacing is known.
 */
static const char *
raw_member(const char *line, const char *name, size_t *len)
{
    int          depth, quoted;
    char         key[64];
    const char  *p, *from;

    snprintf(key, sizeof(key), ", \"%s\": ", name);
    p = strstr(line, key);

    if (p == NULL) {
        *len = 0;
        return NULL;
    }

    from = p + strlen(key);

    for (p = from, depth = 0, quoted = 0; depth > 0 || p == from; p++) {
        if (*p == '"') {
            quoted = !quoted;
        } else if (*p == '\\') {
            p++;
        } else if (!quoted) {
            depth += (*p == '[' || *p == '{') - (*p == ']' || *p == '}');
        }
    }

    *len = (size_t) (p - from);
    return from;
}


static void
golden_case(const char *line)
{
    int           rc;
    char          path[256], *file;
    cJSON        *c;
    size_t        len;
    const char   *template, *want, *kind, *name;
    chat_input_t  in;

    c = cJSON_Parse(line);
    assert_non_null(c);

    file = NULL;
    name = string_of(c, "name");
    template = string_of(c, "template");
    want = string_of(c, "want");
    kind = string_of(c, "error");
    len = template != NULL ? strlen(template) : 0;

    if (template == NULL) {
        snprintf(path, sizeof(path), GOLDEN "templates/%s",
                 string_of(c, "file"));
        template = file = read_file(path, &len);
    }

    memset(&in, 0, sizeof(in));
    in.messages = raw_member(line, "messages", &in.messages_len);
    in.tools = raw_member(line, "tools", &in.tools_len);
    in.kwargs = raw_member(line, "kwargs", &in.kwargs_len);
    in.bos = string_of(c, "bos");
    in.bos_len = in.bos != NULL ? strlen(in.bos) : 0;
    in.eos = string_of(c, "eos");
    in.eos_len = in.eos != NULL ? strlen(in.eos) : 0;
    in.now = 1735689600;
    in.add_generation_prompt = 1;

    rc = render_in(template, len, &in, ARENA, OUT_BYTES);

    if (kind == NULL) {
        if (rc != CHAT_OK || out.text_len != strlen(want)
            || memcmp(out.text, want, out.text_len) != 0)
        {
            fail_msg("%s: %d %s\nwant: %s\ngot:  %.*s", name, rc, err.text,
                     want, (int) out.text_len, text);
        }

    } else if (strcmp(kind, "compile") == 0) {
        assert_true(rc == CHAT_ESYNTAX || rc == CHAT_EUNSUPPORTED);
        assert_true(err.line > 0 && err.column > 0);

    } else if (strcmp(kind, "raised") == 0) {
        assert_int_equal(rc, CHAT_ERAISED);
        assert_string_equal(err.text, want);

    } else if (rc != CHAT_ERUNTIME && rc != CHAT_EUNSUPPORTED
               && rc != CHAT_ELIMIT)
    {
        fail_msg("%s: an error was expected, not %d", name, rc);
    }

    free(file);
    cJSON_Delete(c);
}


static void
test_golden(void **state)
{
    char    *data, *line, *save;
    size_t   len, n;

    (void) state;

    data = read_file(GOLDEN "cases.jsonl", &len);
    n = 0;

    for (line = strtok_r(data, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save))
    {
        golden_case(line);
        n++;
    }

    assert_true(n > 200);
    free(data);
}


/* Marks each byte of the output: "." template, "i" input. */
static void
provenance(const char *template, const char *messages, const char *want)
{
    char    mark[256];
    size_t  i, k;

    assert_int_equal(render(template, messages), CHAT_OK);
    assert_true(out.text_len < sizeof(mark));
    memset(mark, '.', out.text_len);
    mark[out.text_len] = '\0';

    for (i = 0; i < out.spans_len; i++) {
        assert_true(spans[i].start < spans[i].end);
        assert_true(spans[i].end <= out.text_len);
        assert_true(i == 0 || spans[i - 1].end < spans[i].start);

        for (k = spans[i].start; k < spans[i].end; k++) {
            mark[k] = 'i';
        }
    }

    if (strcmp(mark, want) != 0) {
        fail_msg("%s:\n%.*s\n%s\n%s", template, (int) out.text_len, text, mark,
                 want);
    }
}


static void
test_provenance(void **state)
{
    static const char  m[] = "[{\"role\":\"user\",\"content\":\" a<x>b \"}]";
    static const char  odd[] = "[{\"role\":\"<x>\",\"content\":\"\"}]";

    (void) state;

    provenance("<|{{ messages[0].role }}|>", m, "........");
    provenance("<|{{ messages[0].role }}|>", odd, "..iii..");
    provenance("{{ '<' + messages[0].content + '>' }}", m, ".iiiiiii.");
    provenance("{{ messages[0].content | trim ~ 'e' }}", m, "iiiii.");
    provenance("{{ (':' ~ messages[0].content)[1:4] }}", m, "iii");
    provenance("{{ (':' ~ messages[0].content ~ ':')[::-1] }}", m, ".iiiiiii.");
    provenance("{{ messages[0].content | replace('<', '[') }}", m, "ii.iiii");
    provenance("{{ 'x-x' | replace('x', messages[0].content) }}", m,
               "iiiiiii.iiiiiii");
    provenance("{{ messages[0].content.split('<') | join('+') }}", m,
               "ii.iiii");
    provenance("{{ messages[0].content | upper }}|", m, "iiiiiii.");
    provenance("{{ messages[0].content | tojson }}|", m, "iiiiiiiii.");
    provenance("{{ ['t', messages[0].content] | tojson }}", m,
               "iiiiiiiiiiiiiiii");
    provenance("{% set x %}<{{ messages[0].content }}>{% endset %}{{ x }}", m,
               ".iiiiiii.");
    provenance("{% macro f(a) %}<{{ a }}>{% endmacro %}"
               "{{ f(messages[0].content) ~ '!' }}", m, ".iiiiiii..");
    provenance("{% for c in messages[0].content %}{{ c }},{% endfor %}", m,
               "i.i.i.i.i.i.i.");
    provenance("{{ messages[0].content * 2 }}|{{ messages | length }}", m,
               "iiiiiiiiiiiiii..");
    provenance("{{ 'ab' | indent(2, true) }}{{ messages[0].content | indent }}",
               m, "....iiiiiii");
    provenance("{{ bos_token }}{{ messages[0].content | string }}", m,
               "...iiiiiii");
}


static void
input_error(const char *messages, const char *param)
{
    assert_int_equal(render("{{ messages[0].content }}", messages),
                     CHAT_EINPUT);
    assert_string_equal(err.param, param);
    assert_true(strlen(err.text) > 0);
}


static void
test_input(void **state)
{
    (void) state;

    input_error("{}", "messages");
    input_error("[", "messages");
    input_error("[1]", "messages[0]");
    input_error("[{\"content\":\"x\"}]", "messages[0].role");
    input_error("[{\"role\":1,\"content\":\"x\"}]", "messages[0].role");
    input_error("[{\"role\":\"user\"}]", "messages[0].content");
    input_error("[{\"role\":\"user\",\"content\":null}]",
                "messages[0].content");
    input_error("[{\"role\":\"user\",\"content\":5}]", "messages[0].content");
    input_error("[{\"role\":\"user\",\"content\":[\"x\"]}]",
                "messages[0].content[0]");
    input_error("[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":"
                "\"a\"},{\"type\":\"image_url\"}]}]",
                "messages[0].content[1].type");
    input_error("[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]",
                "messages[0].content[0].text");
    input_error("[{\"role\":\"assistant\",\"content\":null,"
                "\"tool_calls\":[1]}]",
                "messages[0].tool_calls[0]");
}


/* Content in parts, null content, arguments as text. */
static void
test_shapes(void **state)
{
    static const char  parts[] = "[{\"role\":\"user\",\"content\":[{\"type\":"
                                 "\"text\",\"text\":\"a\"},{\"type\":\"text\","
                                 "\"text\":\"b\"}]}]";
    static const char  null[] = "[{\"role\":\"assistant\",\"content\":null}]";
    static const char  call[] = "[{\"role\":\"assistant\",\"tool_calls\":[{"
                                "\"function\":{\"name\":\"f\",\"arguments\":"
                                "\"{\\\"b\\\": 1, \\\"a\\\":[2]}\"}}]}]";

    (void) state;

    expect("{{ messages[0].content }}", parts, "a\nb");
    expect("{% for p in messages[0].content %}{{ p.text }};{% endfor %}", parts,
           "a;b;");
    expect("{{ '<' + messages[0].content + '>' }}", null, "<>");
    expect("{{ messages[0].content is none }}", null, "True");
    expect("{{ messages[0].tool_calls[0].function.arguments | tojson }}", call,
           "{\"b\": 1, \"a\": [2]}");
    expect("{{ '=' + messages[0].tool_calls[0].function.arguments }}", call,
           "={\"b\": 1, \"a\":[2]}");
    assert_int_equal(render("{{ messages[0].tool_calls[0].function.arguments"
                            " | tojson }}",
                            "[{\"role\":\"assistant\",\"tool_calls\":[{"
                            "\"function\":{\"arguments\":\"{x\"}}]}]"),
                     CHAT_EINPUT);
    assert_string_equal(err.param,
                        "messages[0].tool_calls[0].function.arguments");
}


static void
test_kwargs(void **state)
{
    chat_input_t  in;

    (void) state;

    memset(&in, 0, sizeof(in));
    in.messages = "[]";
    in.messages_len = 2;
    in.kwargs = "{\"a\":\"x\",\"unused\":1}";
    in.kwargs_len = strlen(in.kwargs);

    assert_int_equal(render_in("{{ a }}", 7, &in, ARENA, OUT_BYTES), CHAT_OK);
    assert_int_equal(out.text_len, 1);
    assert_int_equal(out.spans_len, 1);

    in.kwargs = "{\"messages\":[]}";
    in.kwargs_len = strlen(in.kwargs);
    assert_int_equal(render_in("{{ a }}", 7, &in, ARENA, OUT_BYTES),
                     CHAT_EINPUT);
    assert_string_equal(err.param, "chat_template_kwargs.messages");

    in.kwargs = "[]";
    in.kwargs_len = 2;
    assert_int_equal(render_in("{{ a }}", 7, &in, ARENA, OUT_BYTES),
                     CHAT_EINPUT);
}


static int
any_token(void *data, const char *token)
{
    return data != NULL && strcmp(data, token) == 0;
}


static void
test_builtin(void **state)
{
    char               token[] = "<start_of_turn>";
    static const char  m[] = "[{\"role\":\"system\",\"content\":\"s\"},"
                             "{\"role\":\"user\",\"content\":\" u \"}]";
    chat_template_t   *t;

    (void) state;

    t = chat_compile(NULL, 0, &err);
    assert_non_null(t);
    assert_false(chat_uses_tools(t));
    chat_free(t);

    expect(chat_builtin(NULL, NULL), m, "<|im_start|>system\ns<|im_end|>\n"
           "<|im_start|>user\n u <|im_end|>\n<|im_start|>assistant\n");
    expect(chat_builtin(any_token, token), m, "<s><start_of_turn>user\ns\n\nu"
           "<end_of_turn>\n<start_of_turn>model\n");
    assert_null(chat_builtin(any_token, NULL));
}


/* head, n times item, tail. */
static int
render_repeated(const char *head, const char *item, unsigned n,
    const char *tail)
{
    int        rc;
    char      *template;
    size_t     len, one;
    unsigned   i;

    one = strlen(item);
    template = malloc(strlen(head) + n * one + strlen(tail) + 1);
    assert_non_null(template);
    len = strlen(head);
    memcpy(template, head, len);

    for (i = 0; i < n; i++, len += one) {
        memcpy(template + len, item, one);
    }

    memcpy(template + len, tail, strlen(tail) + 1);
    rc = render(template, "[]");
    free(template);
    return rc;
}


static void
test_limits(void **state)
{
    chat_input_t       in;
    static const char  m[] = "[{\"role\":\"user\",\"content\":\"12345\"}]";

    (void) state;

    memset(&in, 0, sizeof(in));
    in.messages = m;
    in.messages_len = strlen(m);

    assert_int_equal(render_in("{{ messages[0].content }}", 25, &in, ARENA, 5),
                     CHAT_OK);
    assert_int_equal(render_in("{{ messages[0].content }}", 25, &in, ARENA, 4),
                     CHAT_ETOOLONG);
    assert_int_equal(render_in("x", 1, &in, 1000, 4), CHAT_ELIMIT);
    assert_int_equal(render_in("x", 1, &in, CHAT_ARENA_BYTES_MIN, 4), CHAT_OK);

    assert_int_equal(render("{{ range(100000) | length }}", "[]"), CHAT_OK);
    assert_int_equal(render("{{ range(100001) | length }}", "[]"),
                     CHAT_ELIMIT);

    /* The expression itself is one open part. */

    assert_int_equal(render_repeated("{{ ", "-", CHAT_EXPR_DEPTH - 1, "1 }}"),
                     CHAT_OK);
    assert_int_equal(render_repeated("{{ ", "-", CHAT_EXPR_DEPTH, "1 }}"),
                     CHAT_ELIMIT);
    assert_int_equal(render_repeated("", "{% if true %}", CHAT_BLOCK_DEPTH + 1,
                                     ""), CHAT_ELIMIT);
    assert_int_equal(render_repeated("", "{% if true %}", CHAT_BLOCK_DEPTH, ""),
                     CHAT_ESYNTAX);
    assert_int_equal(render_repeated("{{ ", "[", CHAT_DEPTH_MAX + 1, ""),
                     CHAT_ESYNTAX);
    assert_int_equal(render_repeated("{{ [", "1,", CHAT_ITEMS_MAX, "] }}"),
                     CHAT_OK);
    assert_int_equal(render_repeated("{{ [", "1,", CHAT_ITEMS_MAX + 1, "] }}"),
                     CHAT_ELIMIT);
    assert_int_equal(render_repeated("", "a", CHAT_TEMPLATE_BYTES_MAX + 1, ""),
                     CHAT_ELIMIT);
}


static double
now_ms(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double) ts.tv_sec * 1e3 + (double) ts.tv_nsec * 1e-6;
}


/* Programs that want to run for ever, or to fill the memory. */
static const char *const  hostile[] = {
    "{{ range(10**9) }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}"
    "{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% set x = range(99999) %}{% endfor %}",
    "{{ 'a' * 10**9 }}",
    "{% set ns = namespace(s='a') %}{% for i in range(99) %}"
    "{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{% set ns = namespace(s='aa') %}{% for i in range(99) %}"
    "{% set ns.s = ns.s | replace('a', ns.s) %}{% endfor %}",
    "{% set ns = namespace(s='a') %}{% for i in range(99) %}"
    "{% set ns.s = ns.s | tojson %}{% endfor %}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}"
    "{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}"
    "{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l | tojson }}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}"
    "{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l == [ns.l, ns.l] }}"
    "{{ ns.l == ns.l }}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}"
    "{% set ns.l = ns.l + ns.l %}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% set s = 'a' * 1000000 %}{% for i in range(99999) %}"
    "{% if s == s + '' %}{% endif %}{% endfor %}",
    "{% set s = 'a' * 1000000 %}{% for i in range(99999) %}"
    "{{ s[999999999] }}{% endfor %}",
    "{% set s = 'a' * 1000000 %}{% for i in range(99999) %}"
    "{{ s in {s: 1} }}{% endfor %}",
    "{% set s = 'a' * 1000000 %}{% for i in range(99999) %}"
    "{{ s | trim | length }}{% endfor %}",
    "{% set s = 'a' * 500000 %}{% for i in range(99999) %}"
    "{{ s.rfind(s[1:] ~ 'b') }}{% endfor %}",
    "{% set s = 'a' * 500000 %}{{ s.strip(s) }}",
    "{% set s = ' ' * 500000 %}{% for i in range(99999) %}"
    "{{ s.split() }}{% endfor %}",
    "{% for i in range(99999) %}{{ 'a' * 100000 }}{% endfor %}",
    "{% for i in range(99999) %}{{ messages[0].content }}x{% endfor %}",
    "{% for i in range(99999) %}{{ messages[0].content | list | join }}"
    "{% endfor %}",
    "{% for i in range(99999) %}{{ range(99) | map('string') | list | sort "
    "}}{% endfor %}",
    "{{ range(99999) | list | unique | length }}",
    "{{ range(99999) | join(range(9999) | join('x')) }}",
    "{{ [1] | tojson(indent=1000000) }}",
    "{{ 2 ** 10**18 }}", "{{ 1 ** 10**18 }}",
    "{{ strftime_now('%1000000000d') }}"
};


static void
test_hostile(void **state)
{
    int                rc;
    double             t, limit;
    unsigned           i;
    static const char  m[] = "[{\"role\":\"user\",\"content\":\"aaaaaaaaaaaaaaa"
                             "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                             "a\"}]";

    (void) state;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    limit = 2000;
#else
    limit = 150;        /* 50 on a machine of its own */
#endif

    for (i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++) {
        t = now_ms();
        rc = render(hostile[i], m);
        t = now_ms() - t;

        if (t > limit / 4) {
            print_message("    %.1f ms: %s\n", t, hostile[i]);
        }

        if (t > limit || (rc != CHAT_OK && rc != CHAT_ELIMIT
                          && rc != CHAT_ETOOLONG && rc != CHAT_ERUNTIME))
        {
            fail_msg("%s: %d %s after %.1f ms", hostile[i], rc, err.text, t);
        }
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_provenance),
        cmocka_unit_test(test_input),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_kwargs),
        cmocka_unit_test(test_builtin),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_hostile)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
