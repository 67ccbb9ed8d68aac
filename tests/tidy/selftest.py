#!/usr/bin/env python3
"""Shows that tidy can fail: a small clean tree passes every rule, and each
violation seeded into it is caught by its rule and by no other.

The last line is "tidy-self: N passed, N failed".
"""

import os
import shutil
import sys
import tempfile

import tidy

HEAD = "/*\n * A file of the sample tree, which breaks no rule.\n */\n"

CLEAN = {
    "config": "ngx_module_srcs=\"shm/shr_a.c ngx_module/m.c\"\n",
    "shm/shr_a.h": HEAD + '#include <stdint.h>\n\n'
                   '/* One more. */\nint shr_next(int value);\n',
    "shm/shr_a.c": HEAD + '#include "shm/shr_a.h"\n\n\n'
                   'int\nshr_next(int value)\n{\n'
                   '    return value + 1;\n}\n',
    "ngx_module/m.c": HEAD + '#include <ngx_config.h>\n'
                      '#include "shm/shr_a.h"\n',
    "worker/wrk_b.c": HEAD + '#include "tokenizer/tok.h"\n'
                      '#include "worker/kernels/kern.h"\n',
    "tokenizer/tok.h": HEAD + '/* Frees it. */\nvoid tok_free(void *tok);\n',
    "worker/kernels/kern.h": HEAD + '/* Adds. */\nvoid kern_add(float *x);\n',
    "tests/unit/shm/fake.h": HEAD,
    "tests/unit/shm/test_a.c": HEAD + '#include "shm/shr_a.c"\n'
                               '#include "tests/unit/shm/fake.h"\n',
    "tests/unit/tsan.list": "shm/test_a\n",
    "tests/http/test_a.py": "def test_nothing():\n    pass\n",
    "README.md": "# Sample\n",
}

ATOMIC_HEAD = "#include <stdatomic.h>\n\n\nstatic int\nload(_Atomic int *x)\n"


def function(lines):
    return "\n\nstatic void\nlong_one(void)\n{\n%s}\n" % (
        "    ;\n" * (lines - 3))


def body(text):
    return "\n\nstatic void\nextra(void)\n{\n    %s\n}\n" % text


# Rule, file, text that is added at its end (or the file's whole text).
SEEDS = [
    ("includes", "shm/shr_a.c", '#include "worker/kernels/kern.h"\n'),
    ("includes", "shm/shr_a.c", "#include <cjson/cJSON.h>\n"),
    ("includes", "ngx_module/m.c", '#include "tokenizer/tok.h"\n'),
    ("includes", "worker/wrk_b.c", "#include <ngx_core.h>\n"),
    ("includes", "worker/wrk_b.c", '#include "tests/http/test_a.py"\n'),
    ("banned_calls", "worker/wrk_b.c", body("strcpy(a, b);")),
    ("banned_calls", "worker/wrk_b.c", body("exit(1);")),
    ("banned_calls", "worker/wrk_b.c", body("_exit(1);")),
    ("banned_calls", "shm/shr_a.c", body("n = strtol(s, &e, 10);")),
    ("nginx_never_asserts", "ngx_module/m.c", body("assert(x == 1);")),
    ("function_size", "shm/shr_a.c", function(71)),
    ("file_size", "worker/wrk_b.c", "\n" + "static int x;\n" * 800),
    ("file_size", "tokenizer/tok.h", "#define X 1\n" * 250),
    ("file_size", "tests/unit/shm/fake.h", "#define X 1\n" * 800),
    ("file_size", "README.md", ("x" * 79 + "\n") * 14000),
    ("lines", "worker/wrk_b.c", "/* " + "x" * 76 + " */\n"),
    ("lines", "worker/wrk_b.c", "static int\tx;\n"),
    ("lines", "worker/wrk_b.c", "static int x; \n"),
    ("lines", "tests/http/test_a.py", "\n"),
    ("lines", "worker/wrk_b.c", "static int x;"),
    ("lines", "tests/fuzz/notes.txt", "blank \n"),
    ("shape", "shm/shr_a.c", "// no\n"),
    ("shape", "shm/shr_a.c", "\nint two(void)\n{\n}\n"),
    ("shape", "shm/shr_a.c", "\n\nint\ntwo(void) {\n}\n"),
    ("shape", "shm/shr_a.c", "\nstatic int\nnear(void)\n{\n}\n"),
    ("headers", "shm/shr_a.h", "\nint shr_silent(void);\n"),
    ("headers", "tokenizer/tok.h", "\nint tok_a(void);\nint tok_b(void);\n"),
    ("names", "shm/shr_a.h", "\n/* Adds. */\nint other(void);\n"),
    ("atomics", "shm/shr_a.c", ATOMIC_HEAD
     + "{\n\n\n\n\n\n\n    return atomic_load_explicit(x,\n"
       "        memory_order_acquire);\n}\n"),
    ("atomics", "shm/shr_a.c", ATOMIC_HEAD
     + "{\n    /* pairs with nobody */\n    return atomic_load(x);\n}\n"),
    ("goto", "shm/shr_a.c", body("goto one;\n    goto two;\n\n"
                                 "one:\n\ntwo:\n\n    return;")),
    ("goto", "shm/shr_a.c", body("again:\n\n    goto again;")),
    ("unfinished", "worker/wrk_b.c", "/* TO" + "DO: more */\n"),
    ("unfinished", "README.md", "This is not imp" + "lemented.\n"),
    ("places", "README.md", "See /wor" + "k/main/file\n"),
    ("places", "README.md", "from https://deb.debian" + ".org/debian\n"),
    ("dead_files", "config", None),
    ("dead_files", "shm/shr_lost.h", HEAD),
    ("dead_files", "tests/unit/shm/helper.c", HEAD),
    ("dead_files", "tests/http/helper.py", "x = 1\n"),
    ("dead_files", "tests/unit/tsan.list", "shm/test_gone\n"),
]

# What looks like a violation and is none.
ALLOWED = [
    ("worker/wrk_b.c", "/* strcpy(a, b) in a comment */\n"),
    ("worker/wrk_b.c", 'static const char *x = "strcpy(a, b); // no";\n'),
    ("shm/shr_a.c", function(70)),
    ("tests/unit/shm/fake.h", "#define X 1\n" * 797),
    ("tests/fuzz/corpus/a/00.txt", "blank \n\n\nno end"),
    ("worker/wrk_b.c", body("if (fork() == 0) {\n        _exit(1);\n    }")),
    ("worker/wrk_b.c", "/* " + "x" * 74 + " */\n"),
    ("shm/shr_a.c", body("goto done;\n\ndone:\n\n    return;")),
    ("shm/shr_a.c", ATOMIC_HEAD
     + "{\n    /* acquire; pairs with the release in store() */\n"
       "    return atomic_load_explicit(x, memory_order_acquire);\n}\n"),
    ("shm/shr_a.c", ATOMIC_HEAD + "{\n\n\n\n\n\n\n\n"
     "    return atomic_load_explicit(x, memory_order_relaxed);\n}\n"),
    ("tokenizer/tok.h", "int tok_b(void);\n"),
    ("tokenizer/tok.h", "\n/* Both. */\nint tok_b(void);\nint tok_c(int a,\n"
                        "    int b);\nint tok_d(void);\n"),
]


def write_tree(top, changes):
    for path, text in {**CLEAN, **changes}.items():
        full = os.path.join(top, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(text)


def rules_broken(changes):
    top = tempfile.mkdtemp(prefix="tidy-self.")
    try:
        write_tree(top, changes)
        tree = tidy.Tree(top)
        return [rule.__name__[len("rule_"):] for rule in tidy.RULES
                if list(rule(tree))]
    finally:
        shutil.rmtree(top)


def seeded(path, addition):
    if addition is None:
        return {path: "nothing\n"}
    return {path: CLEAN.get(path, "") + addition}


def main():
    cases = [("a clean tree", {}, [])]
    cases += [("%s: seed %d" % (rule, number), seeded(path, text), [rule])
              for number, (rule, path, text) in enumerate(SEEDS)]
    cases += [("allowed %d" % number, seeded(path, text), [])
              for number, (path, text) in enumerate(ALLOWED)]
    cases.append(("every rule has a seed",
                  None, sorted({rule for rule, _, _ in SEEDS})))
    failed = 0
    for name, changes, expected in cases:
        if changes is None:
            found = sorted(r.__name__[len("rule_"):] for r in tidy.RULES)
        else:
            found = rules_broken(changes)
        if found != expected:
            failed += 1
            print("FAIL %s: expected %s, found %s" % (name, expected, found))
    print("tidy-self: %d passed, %d failed" % (len(cases) - failed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
