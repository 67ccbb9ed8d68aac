"""Runs our renderer (tests/fuzz/chat_driver.c) from Python."""

import json
import subprocess


class Driver:
    def __init__(self, path):
        self.p = subprocess.Popen([path], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE)

    def render(self, template, messages, tools=None, kwargs=None, bos=None,
               eos=None):
        """Returns (code, line, text, spans)."""
        out = self.p.stdin
        for x in (template, json.dumps(messages, ensure_ascii=False),
                  tools and json.dumps(tools, ensure_ascii=False),
                  kwargs and json.dumps(kwargs, ensure_ascii=False), bos, eos):
            if x is None:
                out.write(b"-\n")
            else:
                b = x.encode("utf-8")
                out.write(b"%d\n" % len(b) + b)
        out.flush()
        head = self.p.stdout.readline().split()
        if len(head) != 4:
            raise RuntimeError("the driver died on %r" % (template,))
        code, line, size, spans = map(int, head)
        text = self.p.stdout.read(size).decode("utf-8", "replace")
        return code, line, text, [
            tuple(map(int, self.p.stdout.readline().split()))
            for _ in range(spans)]
