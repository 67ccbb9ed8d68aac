#!/usr/bin/env python3
"""Holds the house style: tidy.py [TREE]

Each rule is one function that yields (path, line, what is wrong). A rule
without findings has passed; the last line counts rules:
"tidy: N passed, N failed".
"""

import os
import re
import subprocess
import sys

from csource import CSource

COLUMNS_MAX = 80
FUNCTION_LINES_MAX = 70
C_LINES_MAX = 800
H_LINES_MAX = 250
FILE_BYTES_MAX = 1 << 20
ATOMIC_COMMENT_LINES = 6

CODE_DIRS = ("ngx_module/", "shm/", "tokenizer/", "worker/")
CORPUS = "tests/fuzz/corpus/"
SKIP_DIRS = {".git", "build", "__pycache__", ".pytest_cache"}
TEXT = (".c", ".h", ".inc", ".py", ".sh", ".md", ".conf", ".list", ".txt")
TEXT_NAMES = {"Makefile", "config", "quickstart", "check", "run"}

LIBC = set("""
    assert ctype dirent elf endian errno fcntl fenv float getopt glob
    inttypes libgen limits linkprop locale math netdb poll pthread pwd grp sched
    signal stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib
    stdnoreturn string strings syslog termios time unistd spawn ucontext
    """.split())

PCRE2 = {"pcre2.h"}
CJSON = {"cjson/cJSON.h"}

# Folder: what it may include by <> beyond libc, and by "" as path prefixes.
# The longest folder that fits a file decides.
DIRECTIONS = {
    "shm/": (set(), ("shm/",)),
    "tokenizer/": (PCRE2 | {"emmintrin.h", "immintrin.h"}, ("tokenizer/",)),
    "ngx_module/": (set(), ("ngx_module/", "shm/")),
    "worker/": ({"liburing.h"}, ("worker/", "shm/", "tokenizer/")),
    "worker/cli/": (CJSON, ("worker/", "shm/", "tokenizer/")),
    "worker/kernels/": ({"cblas.h", "immintrin.h", "cpuid.h", "arm_neon.h"},
                        ("worker/kernels/",)),
    "worker/engine/": (set(), ("worker/engine/", "worker/kernels/",
                               "tokenizer/tok_json.h")),
    "worker/chat/": (set(), ("worker/chat/",)),
}

BANNED = set("""
    strtol strtoul strtoll strtoull atoi atol atoll atof sscanf scanf fscanf
    strcpy strcat strncpy strncat stpcpy sprintf vsprintf gets alloca
    setjmp longjmp sigsetjmp siglongjmp system popen tmpnam mktemp strtok
    """.split())
EXIT_CALLS = {"exit", "_exit", "_Exit", "quick_exit"}
AFTER_FORK = {"_exit"}           # the right end of a child that cannot exec
ATOMIC = re.compile(r"\b(atomic_(load|store|exchange|fetch_\w+|"
                    r"compare_exchange_\w+|thread_fence)\w*|__atomic_\w+)"
                    r"\s*\(")
IMPLICIT = re.compile(r"\batomic_(load|store|exchange|fetch_(add|sub|or|and|"
                      r"xor)|compare_exchange_(weak|strong))\s*\(")


class Tree:
    """The files of the repository, each read once."""

    def __init__(self, top):
        self.top = top
        self.paths = sorted(self._list())
        self._text = {}
        self._source = {}

    def _list(self):
        if os.path.isdir(os.path.join(self.top, ".git")):
            out = subprocess.run(
                ["git", "ls-files", "-z", "-co", "--exclude-standard"],
                cwd=self.top, stdout=subprocess.PIPE, check=True).stdout
            names = set(out.decode().split("\0")) - {""}
            return [n for n in names
                    if os.path.isfile(os.path.join(self.top, n))]
        found = []
        for root, dirs, files in os.walk(self.top):
            dirs[:] = [d for d in dirs if d not in SKIP_DIRS]
            found += [os.path.relpath(os.path.join(root, f), self.top)
                      for f in files]
        return found

    def size(self, path):
        return os.path.getsize(os.path.join(self.top, path))

    def text(self, path):
        if path not in self._text:
            with open(os.path.join(self.top, path), encoding="utf-8",
                      errors="replace", newline="") as file:
                self._text[path] = file.read()
        return self._text[path]

    def source(self, path):
        if path not in self._source:
            self._source[path] = CSource(self.text(path))
        return self._source[path]

    def texts(self):
        return [p for p in self.paths
                if p.endswith(TEXT) or os.path.basename(p) in TEXT_NAMES]

    def c_files(self, *ends):
        return [p for p in self.paths if p.endswith(ends or (".c", ".h"))]

    def own_code(self, *ends):
        return [p for p in self.c_files(*ends) if p.startswith(CODE_DIRS)]


def is_libc(name):
    if name.startswith(("sys/", "linux/", "arpa/", "netinet/", "net/")):
        return True
    return name.endswith(".h") and name[:-2] in LIBC


def rule_includes(tree):
    """Folders use each other in the agreed direction only."""
    for path in tree.own_code(".c", ".h", ".inc"):
        folder = max((f for f in DIRECTIONS if path.startswith(f)), key=len)
        angled, quoted = DIRECTIONS[folder]
        for line, name, is_angled in tree.source(path).includes():
            ngx = path.startswith("ngx_module/") and name.startswith("ngx_")
            if is_angled and not (is_libc(name) or name in angled or ngx):
                yield path, line, "%s may not include <%s>" % (folder, name)
            if not is_angled and not name.startswith(quoted):
                yield path, line, ('%s may not include "%s" (paths start at '
                                   "the root)" % (folder, name))


def rule_banned_calls(tree):
    """No call that cannot bound, cannot fail or cannot be undone."""
    for path in tree.c_files(".c", ".h", ".inc"):
        foreign_allowed = path.startswith("tests/")
        forks = re.search(r"\b(fork|clone3?)\s*\(", tree.source(path).code)
        for line, name in tree.source(path).calls():
            if name in BANNED and not (foreign_allowed and "jmp" in name):
                yield path, line, "%s() is banned" % name
            if name in EXIT_CALLS and not foreign_allowed \
                    and os.path.basename(path) != "main.c" \
                    and not (forks and name in AFTER_FORK):
                yield path, line, "%s() outside main.c" % name


def rule_nginx_never_asserts(tree):
    """A wrong byte in shared memory must not end nginx."""
    for path in tree.own_code(".c", ".h"):
        if not path.startswith("ngx_module/"):
            continue
        for line, name in tree.source(path).calls():
            if name in ("assert", "abort", "ngx_abort"):
                yield path, line, "%s() in the nginx process" % name


def rule_function_size(tree):
    """A function has at most 70 lines."""
    for path in tree.c_files():
        for name, first, last in tree.source(path).functions():
            if last - first + 1 > FUNCTION_LINES_MAX:
                yield path, first, "%s() has %d lines, at most %d" % (
                    name, last - first + 1, FUNCTION_LINES_MAX)


def rule_file_size(tree):
    """A .c has at most 800 lines, a header 250; no tracked file is huge. A
    header below tests/ is a fixture, no contract: it counts as a .c."""
    for path in tree.c_files():
        lines = tree.text(path).count("\n")
        contract = path.endswith(".h") and not path.startswith("tests/")
        limit = H_LINES_MAX if contract else C_LINES_MAX
        if lines > limit:
            yield path, 1, "%d lines, at most %d" % (lines, limit)
    for path in tree.paths:
        if tree.size(path) > FILE_BYTES_MAX:
            yield path, 1, "%d bytes, at most %d" % (
                tree.size(path), FILE_BYTES_MAX)


def rule_lines(tree):
    """80 columns, no tabs, no blanks at the end, one line end at the end.
    Inputs of the fuzzers are data."""
    for path in tree.texts():
        if path.startswith(CORPUS):
            continue
        text = tree.text(path)
        code = not path.endswith((".md", ".txt"))
        tabs = os.path.basename(path) == "Makefile" or path.endswith(".txt")
        for number, line in enumerate(text.split("\n"), 1):
            if code and len(line) > COLUMNS_MAX:
                yield path, number, "%d columns, at most %d" % (
                    len(line), COLUMNS_MAX)
            if "\t" in line and not tabs:
                yield path, number, "a tab"
            if line != line.rstrip(" \t\r"):
                yield path, number, "blanks at the end of the line"
        if text and (not text.endswith("\n") or text.endswith("\n\n")):
            yield path, text.count("\n") + 1, "must end with one line end"


def rule_shape(tree):
    """Comments by /* */, a head paragraph, names and braces at column 0, two
    blank lines between functions (one may do in a header)."""
    for path in tree.c_files(".c", ".h", ".inc"):
        source = tree.source(path)
        for line in source.line_comments:
            yield path, line, "a // comment"
        if not tree.text(path).startswith("/*"):
            yield path, 1, "no paragraph that says what the file is for"
        yield from one_line_heads(path, source)
        if path.endswith(".c"):
            yield from gaps(path, source)


def one_line_heads(path, source):
    lines = source.plain.split("\n") + [""]
    for number, line in enumerate(lines[:-1], 1):
        if re.match(r"(static |inline |const )*[a-z_]\w*[ *]+\w+\(.*\) *\{?$",
                    line) and (line.endswith("{") or lines[number] == "{"):
            yield path, number, "the return type stands on its own line"
        if re.match(r"[a-z_]\w*\(.*\) *\{$", line):
            yield path, number, "the brace of a function stands at column 0"


def gaps(path, source):
    """After a function: the end of the file, a preprocessor line, or exactly
    two blank lines."""
    for _, _, last in source.functions():
        after = source.lines[last:last + 4]
        if all(not line.strip() for line in after):
            continue
        if after[0].startswith("#") or after[1:2] == ["#endif"]:
            continue
        if after[:2] != ["", ""] or not after[2].strip():
            yield path, last + 1, "not two blank lines after a function"


def rule_headers(tree):
    """Every function of a public header has its contract: a comment before
    it, or before the group that it stands in without a blank line, or behind
    it. Public is what another folder includes, and all of worker/ and shm/
    themselves but *_int.h: what only one folder's own files share is its own
    affair."""
    public = {name for path in tree.own_code(".c", ".h", ".inc")
              for _, name, angled in tree.source(path).includes()
              if not angled and os.path.dirname(name)
              != os.path.dirname(path)}
    for path in tree.own_code(".h"):
        if path in public or (os.path.dirname(path) in ("worker", "shm")
                              and not path.endswith("_int.h")):
            yield from undocumented(path, tree.source(path))


def undocumented(path, source):
    starts = {first for first, _, _ in source.comments}
    ends = {last for _, last, _ in source.comments}
    documented = set()
    for name, first, last in source.prototypes():
        section = first - 2 in ends and not source.lines[first - 2].strip()
        if first - 1 in ends or first - 1 in documented or section \
                or last in starts:
            documented.add(last)
        else:
            yield path, first, "%s() has no comment before it" % name


def rule_names(tree):
    """A function that a header declares carries the header's prefix; what
    *_int.h shares inside one folder needs none."""
    for path in tree.own_code(".h"):
        if path.endswith("_int.h"):
            continue
        prefix = os.path.basename(path)[:-2].split("_")[0] + "_"
        if path.startswith("ngx_module/"):
            prefix = "ngx_http_infer_"
        for name, first, _ in tree.source(path).prototypes():
            if not name.startswith((prefix, "chk_")):
                yield path, first, "%s() should begin with %s" % (
                    name, prefix)


def rule_atomics(tree):
    """An atomic names its order. One that orders something (all but relaxed)
    has a comment near it, or before its function, that names its partner."""
    for path in tree.own_code(".c", ".h", ".inc"):
        source = tree.source(path)
        commented = set()
        for first, last, _ in source.comments:
            commented.update(range(first, last + 1))
        heads = {number: name_line for _, name_line, end in source.functions()
                 for number in range(name_line, end + 1)}
        for match in ATOMIC.finditer(source.plain):
            line = source.line_of(match.start())
            call = call_text(source.plain, match.end())
            if IMPLICIT.match(match.group()):
                yield path, line, "an atomic without an explicit order"
            elif not re.search(r"(?i)acq|rel\b|release|seq_cst", call):
                continue
            near = set(range(line - ATOMIC_COMMENT_LINES, line + 2))
            head = heads.get(line, line)
            near.update(range(head - 4, head))
            if not commented.intersection(near):
                yield path, line, "no comment names this atomic's partner"


def call_text(code, begin):
    """From behind an opening parenthesis to the one that closes it."""
    depth, end = 1, begin
    while depth and end < len(code):
        depth += {"(": 1, ")": -1}.get(code[end], 0)
        end += 1
    return code[begin:end]


def rule_goto(tree):
    """A function has one label at most, at its end."""
    for path in tree.own_code(".c", ".inc"):
        source = tree.source(path)
        lines = source.plain.split("\n")
        for name, first, last in source.functions():
            body = "\n".join(lines[first - 1:last])
            labels = set(re.findall(r"\bgoto\s+(\w+)", body))
            if len(labels) > 1:
                yield path, first, "%s() has %d labels: %s" % (
                    name, len(labels), ", ".join(sorted(labels)))
            for label in labels:
                place = re.search(r"^\s*%s:" % label, body, re.M)
                jump = re.search(r"\bgoto\s+%s\b" % label, body)
                if place and place.start() < jump.start():
                    yield path, first, "%s() jumps back to %s" % (name, label)


def rule_unfinished(tree):
    """Nothing is left for later."""
    words = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b"
                       r"|not imp" r"lemented", re.I)
    exact = re.compile(r"TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK|imp" r"lemented")
    for path in tree.texts():
        for number, line in enumerate(tree.text(path).split("\n"), 1):
            match = words.search(line)
            if match and exact.search(match.group()):
                yield path, number, "unfinished: %s" % match.group()


def rule_places(tree):
    """No path of one machine, no package registry's host."""
    places = re.compile(
        r"(^|[^\w.$}/-])/(wor[k]|roo[t]|hom[e]/\w+)/\w"
        r"|deb\.debian\.org|security\.debian\.org|pypi\.org"
        r"|pythonhosted\.org|crates\.io|npmjs\.(org|com)|proxy\.golang\.org"
        r"|huggingface\.co/|localhost:\d{4}")
    for path in tree.texts():
        for number, line in enumerate(tree.text(path).split("\n"), 1):
            match = places.search(line)
            if match:
                yield path, number, "names a place: %s" % match.group()


def rule_dead_files(tree):
    """Every source is built, every table included, every test run."""
    config = tree.text("config") if "config" in tree.paths else ""
    included = {name for path in tree.c_files(".c", ".h", ".inc")
                for _, name, angled in tree.source(path).includes()
                if not angled}
    names = {os.path.basename(name) for name in included}
    for path in tree.paths:
        base = os.path.basename(path)
        if path.endswith(".c") and path.startswith(("ngx_module/", "shm/")) \
                and base not in config and client_side(path):
            yield path, 1, "is not listed in ./config"
        if path.endswith((".inc", ".h")) and base not in names:
            yield path, 1, "is included by no file"
        if path.startswith("tests/unit/") and path.endswith(".c") \
                and not base.startswith("test_") and base not in names:
            yield path, 1, "is built by nothing: tests are named test_*.c"
        if path.startswith("tests/http/") and path.endswith(".py") \
                and not is_http_test(tree, base):
            yield path, 1, "is run by nothing: tests are named test_*.py"
    yield from dead_names(tree)


def client_side(path):
    """The worker's end of shm/ is not linked into nginx."""
    return "server" not in os.path.basename(path)


def is_http_test(tree, base):
    if base.startswith("test_") or base == "conftest.py":
        return True
    word = re.compile(r"\b(import|from) +%s\b" % re.escape(base[:-3]))
    return any(word.search(tree.text(p)) for p in tree.paths
               if p.startswith("tests/http/") and p.endswith(".py"))


def dead_names(tree):
    """A program that tsan.list names exists."""
    path = "tests/unit/tsan.list"
    if path not in tree.paths:
        return
    for number, line in enumerate(tree.text(path).split("\n"), 1):
        if line and not line.startswith("#") \
                and "tests/unit/%s.c" % line not in tree.paths:
            yield path, number, "names no test: %s" % line


RULES = [rule_includes, rule_banned_calls, rule_nginx_never_asserts,
         rule_function_size, rule_file_size, rule_lines, rule_shape,
         rule_headers, rule_names, rule_atomics, rule_goto, rule_unfinished,
         rule_places, rule_dead_files]


def main(top):
    tree = Tree(top)
    failed = 0
    for rule in RULES:
        findings = list(rule(tree))
        failed += bool(findings)
        name = rule.__name__[len("rule_"):]
        print("%-4s %s" % ("FAIL" if findings else "ok", name))
        for path, line, what in findings:
            print("    %s:%d: %s" % (path, line, what))
    print("tidy: %d passed, %d failed" % (len(RULES) - failed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1
                  else os.path.dirname(os.path.dirname(here))))
