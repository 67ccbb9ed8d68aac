"""What the rules need to know of a C file: comments, functions, prototypes.

Not a C parser. It relies on the house style (a function's name and its braces
stand at column 0), and tidy's rule "shape" holds that style.
"""

import re

TOKEN = re.compile(
    r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def blank(text):
    """The text as blanks, line breaks kept."""
    return re.sub(r"[^\n]", " ", text)


class CSource:
    def __init__(self, text):
        self.text = text
        self.lines = text.split("\n")
        self.comments = []              # (first line, last line, text)
        self.line_comments = []         # lines with a // comment
        self.code = TOKEN.sub(self._strip, text)
        self.plain = self._without_directives()

    def line_of(self, offset):
        return self.text.count("\n", 0, offset) + 1

    def _strip(self, match):
        token = match.group()
        if token.startswith(("/*", "//")):
            first = self.line_of(match.start())
            last = first + token.count("\n")
            self.comments.append((first, last, token))
            if token.startswith("//"):
                self.line_comments.append(first)
            return blank(token)
        return token[0] + blank(token[1:-1]) + token[-1]

    def _without_directives(self):
        """The code without preprocessor lines and their continuations."""
        out, inside = [], False
        for line in self.code.split("\n"):
            inside = inside or line.lstrip().startswith("#")
            out.append(blank(line) if inside else line)
            inside = inside and line.endswith("\\")
        return "\n".join(out)

    def includes(self):
        """(line, name, True for <>) of each #include; names are strings, so
        they are read from the text and not from the code."""
        for number, line in enumerate(self.lines, 1):
            match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if match:
                yield number, match.group(2), match.group(1) == "<"

    def calls(self):
        """(line, name) of whatever looks like a call or a declaration."""
        for match in re.finditer(r"\b([A-Za-z_]\w*)\s*\(", self.code):
            yield self.line_of(match.start()), match.group(1)

    def functions(self):
        """(name, line of the name, line of the closing brace)."""
        lines = self.plain.split("\n")
        name = first = start = None
        for number, line in enumerate(lines, 1):
            head = re.match(r"([A-Za-z_]\w*)\s*\(", line)
            if start is None and head:
                name, first = head.group(1), number
            elif start is None and re.match(r"\{", line) and name:
                start = first
            elif start is None and line.startswith("}"):
                name = None
            elif start is not None and line.startswith("}"):
                yield name, start, number
                name = start = None
            if start is None and line.rstrip().endswith(";"):
                name = None

    def prototypes(self):
        """(name, first line, last line) of each function declared at the top
        level; typedefs and function pointers are none."""
        depth, begin = 0, 0
        for offset, char in enumerate(self.plain):
            if char == "{":
                depth += 1
            elif char == "}":
                depth -= 1
                if depth == 0:
                    begin = offset + 1
            elif char == ";" and depth == 0:
                found = self._prototype(begin, offset)
                if found:
                    yield found
                begin = offset + 1

    def _prototype(self, begin, end):
        words = self.plain[begin:end]
        match = re.match(r"\s*([A-Za-z_][\w\s\*]*?)\b(\w+)\s*\(", words)
        if not match or re.match(r"\s*(typedef|_Static_assert)\b", words):
            return None
        if "=" in words or not match.group(1).strip():
            return None
        start = begin + len(words) - len(words.lstrip())
        return match.group(2), self.line_of(start), self.line_of(end)
