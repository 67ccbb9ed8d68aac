#!/usr/bin/env python3
"""Differential fuzzing in bulk: our library against PyPI `tokenizers`.

    tests/fuzz/tokenizer_bulk.py OURS THEIRS.json [--cases N] [--seed S]
        [--corpus FILE ...] [--build FOLDER]

OURS: a tokenizer.json, a GGUF file or a prepared image; THEIRS: what the
reference reads.  Texts are made by tokenizer_bulk.c (compiled here, with the
tokenizer, into a shared library): random Unicode, changed real text, tokens
of the vocabulary, special tokens whole and cut.  Of each batch the ids must
be equal (with and without added tokens, special text recognised or plain);
of every eighth (--deep) also offsets, decoded text and the stream's.  Under
`tokenizers` 1.0, several times faster, only ids are compared, and a --judge
of version 0.23 has the last word on what differs.  Differences are shown
smallest first; the exit code is their number.
"""

import argparse
import array
import ctypes as C
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAYON_NUM_THREADS", "1")

import tokenizers                                          # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.join(HERE, "..", "..")
ADD, PARSE = 1, 2
BATCH = 1000
SEPARATOR = "\U0010ffff"
chain = itertools.chain.from_iterable


def library(folder):
    """Our half of the fuzzer, linked with the tokenizer as it is built."""
    out = os.path.join(folder, "libtokbulk.so")
    archive = os.path.join("build", "libinfer-tokenizer.a")
    subprocess.check_call(["make", "-s", "-C", TOP, archive])
    subprocess.check_call(["cc", "-O2", "-g", "-std=gnu11", "-fPIC",
                           "-fvisibility=hidden", "-D_GNU_SOURCE", "-shared",
                           "-I" + TOP, "-o", out,
                           os.path.join(HERE, "tokenizer_bulk.c"),
                           os.path.join(TOP, archive), "-lpcre2-8", "-lm"])
    return out


class Ours:
    def __init__(self, lib, path, seed, corpus):
        self.lib = lib = C.CDLL(lib)
        lib.bulk_new.restype = C.c_void_p
        lib.bulk_new.argtypes = [C.c_char_p, C.c_uint64, C.c_char_p,
                                 C.c_size_t, C.POINTER(C.c_char_p)]
        lib.bulk_texts.restype = C.c_size_t
        lib.bulk_texts.argtypes = [C.c_void_p, C.c_uint32,
                                   C.POINTER(C.c_void_p)]
        lib.bulk_check.argtypes = [C.c_void_p, C.c_uint] + [C.c_void_p] * 4 \
            + [C.c_uint32]
        lib.bulk_check_text.argtypes = [C.c_void_p, C.c_void_p, C.c_void_p,
                                        C.c_uint, C.c_char_p, C.c_void_p,
                                        C.c_void_p, C.c_uint32]
        lib.bulk_ids.argtypes = [C.c_void_p, C.c_char_p, C.c_size_t, C.c_uint,
                                 C.c_void_p, C.c_size_t]
        lib.bulk_ids.restype = C.c_long
        error = C.c_char_p()
        self.b = lib.bulk_new(path.encode(), seed, corpus, len(corpus),
                              C.byref(error))
        if not self.b:
            sys.exit("%s: %s" % (path, error.value.decode()))
        self.bad = (C.c_uint32 * BATCH)()

    def texts(self, n):
        p = C.c_void_p()
        size = self.lib.bulk_texts(self.b, n, C.byref(p))
        texts = C.string_at(p, size).decode().split(SEPARATOR)
        assert len(texts) == n
        return texts

    def ids(self, text, flags):
        raw = text.encode()
        out = (C.c_uint32 * (4 * len(raw) + 64))()
        n = self.lib.bulk_ids(self.b, raw, len(raw), flags, out, len(out))
        return out[:n] if n >= 0 else None

    def check(self, flags, ids, counts, offsets):
        n = self.lib.bulk_check(self.b, flags, ids.buffer_info()[0],
                                counts.buffer_info()[0],
                                offsets.buffer_info()[0] if offsets else None,
                                self.bad, BATCH)
        return self.bad[:n]

    def check_text(self, ids, counts, flags, texts):
        raw = [t.encode() for t in texts]
        lens = array.array("I", map(len, raw))
        n = self.lib.bulk_check_text(self.b, ids.buffer_info()[0],
                                     counts.buffer_info()[0], flags,
                                     b"".join(raw), lens.buffer_info()[0],
                                     self.bad, BATCH)
        return self.bad[:n]


class Theirs:
    """The reference: 0.23 with everything, or 1.0 (ids only)."""

    def __init__(self, path):
        self.t = tokenizers.Tokenizer.from_file(path)
        self.full = hasattr(self.t, "encode_batch_fast")
        if self.full:
            self.t.no_truncation()
            self.t.no_padding()

    def ids(self, texts, add, plain):
        if not self.full:
            assert not plain
            return [e.ids for e in self.t.encode_batch(
                texts, add_special_tokens=add)]
        self.t.encode_special_tokens = plain
        return [e.ids for e in self.t.encode_batch_fast(
            texts, add_special_tokens=add)]

    def ids_and_offsets(self, texts, add, plain):
        self.t.encode_special_tokens = plain
        encs = self.t.encode_batch(texts, add_special_tokens=add)
        return ([e.ids for e in encs],
                array.array("I", chain(chain(e.offsets for e in encs))))


class Judge:
    """Another version of the reference in a process of its own."""

    def __init__(self, python, path):
        env = dict(os.environ, PYTHONPATH="")
        self.p = subprocess.Popen([python, os.path.abspath(__file__), path,
                                   path, "--answer"], env=env,
                                  stdin=subprocess.PIPE, text=True,
                                  stdout=subprocess.PIPE)

    def ids(self, text, add):
        self.p.stdin.write(json.dumps([text, add]) + "\n")
        self.p.stdin.flush()
        return json.loads(self.p.stdout.readline())


def answer(path):
    theirs = Theirs(path)
    for line in sys.stdin:
        text, add = json.loads(line)
        print(json.dumps(theirs.ids([text], add, False)[0]), flush=True)


def one_batch(ours, theirs, k, n, every):
    """Texts of batch k and the numbers of those that differ."""
    texts = ours.texts(n)
    deep = k % every == 0 and theirs.full
    add = k % 3 == 0
    plain = k % 5 == 4 and ours.same_special and theirs.full
    offsets = None
    if deep:
        lists, offsets = theirs.ids_and_offsets(texts, add, plain)
    else:
        lists = theirs.ids(texts, add, plain)
    ids = array.array("I", chain(lists))
    counts = array.array("I", map(len, lists))
    flags = (ADD if add else 0) | (0 if plain else PARSE)
    bad = [(i, "encode", flags) for i in
           ours.check(flags, ids, counts, offsets)]
    if deep:
        skip = k // every % 2 if ours.same_special else 0
        decoded = theirs.t.decode_batch(lists, skip_special_tokens=bool(skip))
        bad += [(i, "decode", skip) for i in
                ours.check_text(ids, counts, skip, decoded)]
    return texts, bad


def judged(judge, ours, texts, bad):
    """Of what differs from this version, what differs from the judge's."""
    out = []
    for i, what, flags in bad:
        ids = judge.ids(texts[i], bool(flags & ADD))
        if ours.ids(texts[i], flags) != ids:
            out.append((i, what, flags))
    return out


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("ours")
    ap.add_argument("theirs")
    ap.add_argument("--cases", type=int, default=100000)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--corpus", nargs="*", default=[])
    ap.add_argument("--stop", type=int, default=20)
    ap.add_argument("--other-special", action="store_true", help="the files "
                    "call different tokens special (GGUF has more control "
                    "tokens): text of special tokens is always recognised")
    ap.add_argument("--judge", help="a Python whose `tokenizers` decides on "
                    "what differs from this one's (a faster version's)")
    ap.add_argument("--deep", type=int, default=8, help="every so many "
                    "batches compare offsets, decoded text and stream too")
    ap.add_argument("--build", help="folder to compile in (and keep)")
    ap.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    args = ap.parse_args()
    if args.answer:
        return answer(args.theirs)
    folder = args.build or tempfile.mkdtemp()
    lib = os.path.join(folder, "libtokbulk.so")
    if not args.build or not os.path.exists(lib):
        lib = library(folder)
    corpus = b"".join(open(p, "rb").read().decode(errors="ignore")
                      .replace(SEPARATOR, "").encode() for p in args.corpus)
    theirs = Theirs(args.theirs)
    judge = Judge(args.judge, args.theirs) if args.judge else None
    ours = Ours(lib, args.ours, args.seed, corpus)
    ours.same_special = not args.other_special
    found, done, k, apart, start = [], 0, 0, 0, time.time()
    while done < args.cases and len(found) < args.stop:
        n = min(BATCH, args.cases - done)
        texts, bad = one_batch(ours, theirs, k, n, args.deep)
        if judge and bad:
            apart += len(bad)
            bad = judged(judge, ours, texts, bad)
            apart -= len(bad)
        found += [(len(texts[i]), texts[i], what, f) for i, what, f in bad]
        done += n
        k += 1
    for _, text, what, flags in sorted(found)[:args.stop]:
        print("differs:", what, flags, ascii(text))
    print("%s: %d cases, seed %d, %d differences, %.0f s, tokenizers %s%s" % (
        args.ours, done, args.seed, len(found), time.time() - start,
        tokenizers.__version__, " (the judge is with us and against it in %d)"
        % apart if judge else ""), flush=True)
    return min(len(found), 100)


if __name__ == "__main__":
    sys.exit(main())
