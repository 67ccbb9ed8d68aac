#!/usr/bin/env python3
"""Differential fuzzing: our library against PyPI `tokenizers`.

    tests/fuzz/tokenizer_diff.py LIB.so TOKENIZER.json [--cases N] [--seed S]
        [--corpus FILE ...]

Cases are random Unicode, mutated real text and text with the file's own added
tokens in it.  Ids, offsets and decoded text must be equal.  Each difference
is made smaller before it is shown; the exit code is the number of them.
"""

import argparse
import ctypes as C
import random
import sys
import time

from tokenizers import Tokenizer

ADD, PARSE, OFF, NOTRUNC, NOPAD = 1, 2, 4, 16, 32


class Err(C.Structure):
    _fields_ = [("code", C.c_int), ("msg", C.c_char * 256)]


class Result(C.Structure):
    _fields_ = [("ids", C.POINTER(C.c_uint32)), ("n", C.c_size_t),
                ("off", C.POINTER(C.c_uint32)), ("types", C.c_void_p),
                ("special", C.c_void_p), ("mask", C.c_void_p),
                ("bad", C.c_size_t)]


class Ours:
    def __init__(self, lib, path):
        self.lib = C.CDLL(lib)
        self.lib.tok_scratch_new.restype = C.c_void_p
        self.lib.tok_encode.argtypes = [C.c_void_p, C.c_void_p, C.c_char_p,
                                        C.c_size_t, C.c_uint,
                                        C.POINTER(Result)]
        self.lib.tok_decode.argtypes = [C.c_void_p, C.c_void_p, C.c_void_p,
                                        C.c_size_t, C.c_uint,
                                        C.POINTER(C.c_void_p),
                                        C.POINTER(C.c_size_t)]
        tok, err = C.c_void_p(), Err()
        if self.lib.tok_open(C.byref(tok), path.encode(), C.byref(err)):
            sys.exit(err.msg.decode())
        self.t = tok
        self.s = C.c_void_p(self.lib.tok_scratch_new())
        self.r = Result()

    def encode(self, text, add):
        raw = text.encode()
        rc = self.lib.tok_encode(self.t, self.s, raw, len(raw),
                                 (ADD if add else 0) | PARSE | OFF | NOTRUNC
                                 | NOPAD, C.byref(self.r))
        if rc:
            return rc, None
        n = self.r.n
        off = self.r.off[:2 * n]
        return self.r.ids[:n], list(zip(off[::2], off[1::2]))

    def decode(self, ids, skip):
        a = (C.c_uint32 * max(1, len(ids)))(*ids)
        p, n = C.c_void_p(), C.c_size_t()
        rc = self.lib.tok_decode(self.t, self.s, a, len(ids), int(skip),
                                 C.byref(p), C.byref(n))
        if rc:
            return rc
        return C.string_at(p, n.value).decode() if n.value else ""


RANGES = [(0x20, 0x7e)] * 6 + [
    (0, 0x1f), (0x80, 0xff), (0x100, 0x24f), (0x300, 0x36f), (0x370, 0x3ff),
    (0x400, 0x4ff), (0x590, 0x6ff), (0x900, 0x97f), (0xe00, 0xe7f),
    (0x1100, 0x11ff), (0x1e00, 0x1fff), (0x2000, 0x206f), (0x2100, 0x218f),
    (0x2580, 0x25ff), (0x3000, 0x30ff), (0x4e00, 0x9fff), (0xac00, 0xd7a3),
    (0xf900, 0xfaff), (0xfb00, 0xfdff), (0xff00, 0xffff), (0x10000, 0x107ff),
    (0x1f1e6, 0x1f1ff), (0x1f300, 0x1f6ff), (0x20000, 0x2a6df),
    (0xe000, 0xf8ff), (0xe0000, 0xe01ef)]
PIECES = [" ", "  ", "   ", "\n", "\r\n", "\n\n", "\t", "'s", "'S", "'ll",
          "'\u017f", "\u00a0", "\u3000", "\u200d", "\ufe0f", "\u0301", "\u0345",
          "\u2581", "1", "12", "123", "1234", ".", "...", "!?", "don't",
          "I'VE", "  \n ", "\u1100\u1161\u11a8", "\U0001f468\u200d\U0001f469",
          "a\u0301", "\u0041\u030a", "\ufffd", "\x00", "##", "<0x41>", "_"]


class Cases:
    def __init__(self, tokenizer, corpus, rng):
        self.rng = rng
        self.added = [t.content for t in
                      tokenizer.get_added_tokens_decoder().values()] or ["x"]
        self.texts = [open(p, encoding="utf-8", errors="ignore").read()
                      for p in corpus]
        vocab = list(tokenizer.get_vocab())
        self.vocab = vocab

    def char(self):
        a, b = self.rng.choice(RANGES)
        c = self.rng.randint(a, b)
        return chr(c) if not 0xd800 <= c <= 0xdfff else "x"

    def piece(self):
        k = self.rng.random()
        if k < 0.35:
            return self.char()
        if k < 0.6:
            return self.rng.choice(PIECES)
        if k < 0.65:
            return self.rng.choice(self.added)
        if k < 0.8:
            return self.rng.choice(self.vocab).replace("\u0120", " ")
        if k < 0.83:
            return self.char() * self.rng.randint(2, 40)
        if k < 0.9 and self.texts:
            t = self.rng.choice(self.texts)
            i = self.rng.randrange(max(1, len(t)))
            return t[i:i + self.rng.randint(1, 60)]
        return chr(self.rng.randint(97, 122))

    def __next__(self):
        n = 1 if self.rng.random() < 0.1 else self.rng.randint(2, 14)
        return "".join(self.piece() for _ in range(n))


def differs(ours, theirs, text, enc=None):
    enc = enc or theirs.encode(text, add_special_tokens=False)
    ids, off = ours.encode(text, False)
    if ids != enc.ids:
        return "ids", enc.ids, ids
    if off != enc.offsets:
        return "offsets", enc.offsets, off
    if ids:
        want = theirs.decode(ids, skip_special_tokens=False)
        have = ours.decode(ids, False)
        if want != have:
            return "text", want, have
    return None


def shrink(ours, theirs, text):
    step = max(1, len(text) // 2)
    while step:
        i = 0
        while i < len(text):
            less = text[:i] + text[i + step:]
            if less and differs(ours, theirs, less):
                text = less
            else:
                i += step
        step //= 2
    return text


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("lib")
    ap.add_argument("json")
    ap.add_argument("--cases", type=int, default=100000)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--corpus", nargs="*", default=[])
    ap.add_argument("--stop", type=int, default=8)
    args = ap.parse_args()
    theirs = Tokenizer.from_file(args.json)
    theirs.no_truncation()
    theirs.no_padding()
    ours = Ours(args.lib, args.json)
    cases = Cases(theirs, args.corpus, random.Random(args.seed))
    bad, done, start = 0, 0, time.time()
    while done < args.cases:
        batch = [next(cases) for _ in range(256)]
        encs = theirs.encode_batch(batch, add_special_tokens=False)
        for text, enc in zip(batch, encs):
            if differs(ours, theirs, text, enc):
                small = shrink(ours, theirs, text)
                print(ascii(small), *map(ascii, differs(ours, theirs, small)
                                         or ["only in", text]), flush=True)
                bad += 1
        done += len(batch)
        if bad >= args.stop:
            break
    print("%s: %d cases, seed %d, %d differences, %.0f s" % (
        args.json, done, args.seed, bad, time.time() - start))
    return min(bad, 100)


if __name__ == "__main__":
    sys.exit(main())
