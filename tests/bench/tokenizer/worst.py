#!/usr/bin/env python3
"""Texts that are hard for tokenizers, beside ordinary ones; and languages.

    tests/bench/tokenizer/worst.py VOCAB_FOLDER CORPUS [--names gpt2 ...]
        [--text NAME=FILE ...]

First each --text (a class of text such as a language): MB/s of its pieces of
8 KB, each seen once, a new scratch for every file; and when they are seen
again.  Then texts of 1 MiB: ordinary (of the corpus), one word, runs of one
character, merges that go deep, special tokens only: CPU nanoseconds a byte,
the least of three with a new scratch each, and how many times that is of
ordinary text of the same length, which also starts with an empty cache.
"""

import argparse
import ctypes as C
import json
import os
import random
import statistics
import time

import peers

SIZE = 1 << 20


class Ours:
    def __init__(self, path):
        self.lib = lib = C.CDLL(os.environ["TOKENIZER_LIB"])
        lib.tok_scratch_new.restype = C.c_void_p
        lib.tok_scratch_free.argtypes = [C.c_void_p]
        lib.tok_encode.argtypes = [C.c_void_p, C.c_void_p, C.c_char_p,
                                   C.c_size_t, C.c_uint, C.c_void_p]
        self.t, err = C.c_void_p(), C.create_string_buffer(512)
        if lib.tok_open(C.byref(self.t), path.encode(), err):
            raise ValueError(err.raw[4:].split(b"\0")[0])
        self.r = peers.Result()

    def scratch(self):
        return self.lib.tok_scratch_new()

    def seconds(self, s, raw):
        a = time.thread_time_ns()
        rc = self.lib.tok_encode(self.t, s, raw, len(raw), 2 | 16 | 32,
                                 C.byref(self.r))
        a = time.thread_time_ns() - a
        if rc:
            raise ValueError("encode: %d" % rc)
        return a / 1e9

    def least(self, raw):
        """Of three, each with a scratch that has its memory but no words."""
        best = 1e9
        for _ in range(3):
            s = self.scratch()
            self.seconds(s, b"\n" * len(raw))
            best = min(best, self.seconds(s, raw))
            self.lib.tok_scratch_free(s)
        return best


def hard(path, corpus):
    r = random.Random(5)
    letters = "abcdefghijklmnopqrstuvwxyz"
    spec = json.load(open(path, encoding="utf-8"))
    added = [t["content"] for t in spec["added_tokens"]]
    vocab = spec["model"]["vocab"]
    words = [v[0] if isinstance(v, list) else v for v in vocab]
    words = [w for w in words if w.isascii() and w.isalpha()]
    long = sorted(words, key=len)[-200:]
    yield "one word of random letters", "".join(
        r.choice(letters) for _ in range(SIZE))
    yield "one word of long tokens", "".join(
        r.choice(long) for _ in range(SIZE // 12))
    yield "one word, accents", "".join(
        r.choice("aeiou\u0301\u0308\u00e9\u00fc") for _ in range(SIZE // 2))
    yield "a", "a" * SIZE
    yield "space", " " * SIZE
    yield "line breaks", "\n" * SIZE
    yield "=", "=" * SIZE
    yield "digits", "".join(r.choice("0123456789") for _ in range(SIZE))
    yield "Chinese, random", "".join(
        chr(r.randrange(0x4e00, 0x9fa0)) for _ in range(SIZE // 3))
    yield "any characters", "".join(
        chr(r.choice([r.randrange(32, 0x300), r.randrange(0x400, 0xd7ff),
                      r.randrange(0x10000, 0x1fb00)]))
        for _ in range(SIZE // 3))
    yield "random words", " ".join(
        "".join(r.choice(letters) for _ in range(r.randrange(4, 12)))
        for _ in range(SIZE // 9))
    if added:
        yield "special tokens only", "".join(
            r.choice(added) for _ in range(SIZE // 12))
        yield "cut special tokens", "".join(
            (t := r.choice(added))[:r.randrange(1, len(t) + 1)]
            for _ in range(SIZE // 8))


def classes(o, texts):
    for name, path in texts:
        raw = open(path, encoding="utf-8", errors="ignore").read()
        parts = [raw[i:i + 4096].encode() for i in range(0, len(raw), 4096)]
        s, mbs = o.scratch(), []
        for _ in range(2):
            took = [o.seconds(s, p) for p in parts]
            mbs.append(sum(map(len, parts)) / sum(took) / 1e6)
        o.lib.tok_scratch_free(s)
        print("| %s | %.2f MB | %.0f | %.0f |" % (
            name, len(raw.encode()) / 1e6, mbs[0], mbs[1]), flush=True)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("folder")
    ap.add_argument("corpus")
    ap.add_argument("--names", nargs="*", default=[])
    ap.add_argument("--text", nargs="*", default=[])
    args = ap.parse_args()
    os.environ.setdefault("TOKENIZER_LIB", peers.library())
    corpus = open(args.corpus, encoding="utf-8", errors="ignore").read()
    texts = [t.split("=", 1) for t in args.text]
    for name in args.names or sorted(os.listdir(args.folder)):
        path = os.path.join(args.folder, name, "tokenizer.json")
        if not os.path.exists(path):
            continue
        o = Ours(path)
        print("\n%s\n" % name)
        if texts:
            print("| text | size | MB/s, first | MB/s, again |\n"
                  "|---|---|---|---|")
            classes(o, texts)
            print()
        parts = [corpus[i:i + SIZE].encode()
                 for i in range(0, 3 * SIZE, SIZE)]
        base = statistics.median(o.least(p) / len(p) for p in parts)
        print("| 1 MiB | ns a byte | to ordinary |\n|---|---|---|")
        print("| ordinary | %.1f | 1 |" % (base * 1e9))
        for label, text in hard(path, corpus):
            raw = text.encode()
            each = o.least(raw) / len(raw)
            print("| %s | %.1f | %.1f |" % (label, each * 1e9, each / base),
                  flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
