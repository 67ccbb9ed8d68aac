#!/usr/bin/env python3
"""Differential fuzzing in bulk: our library against PyPI `tokenizers`.

    tests/fuzz/tokenizer_bulk.py OURS THEIRS.json [--cases N] [--seed S]
        [--corpus FILE ...] [--build FOLDER]

OURS: a tokenizer.json, a GGUF file or a prepared image; THEIRS: what the
reference reads.  Texts are made by tokenizer_bulk.c (compiled here, with the
tokenizer, into a shared library): random Unicode, changed real text, tokens
of the vocabulary, special tokens whole and cut.  Of each batch the ids must
be equal (with and without added tokens, special text recognised or plain);
of every eighth also offsets, the decoded text and the stream's.  Differences
are shown smallest first; the exit code is their number.
"""

import argparse
import array
import ctypes as C
import itertools
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
    """Compiles the tokenizer and our half of the fuzzer."""
    out = os.path.join(folder, "libtokbulk.so")
    src = [os.path.join(TOP, "tokenizer", n)
           for n in sorted(os.listdir(os.path.join(TOP, "tokenizer")))
           if n.endswith(".c")]
    avx = [s for s in src if "avx" in s]
    flags = ["-O2", "-g", "-std=gnu11", "-fPIC", "-fvisibility=hidden",
             "-D_GNU_SOURCE", "-I" + TOP]
    objects = []
    for s in avx:                   # kernels named after instruction sets
        o = os.path.join(folder, os.path.basename(s) + ".o")
        isa = ["-mavx2", "-mbmi", "-mbmi2"]
        if "avx512" in s:
            isa += ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512vbmi",
                    "-mavx512dq"]
        subprocess.check_call(["cc", *flags, *isa, "-c", s, "-o", o])
        objects.append(o)
    subprocess.check_call(["cc", *flags, "-shared", "-o", out,
                           os.path.join(HERE, "tokenizer_bulk.c"),
                           *[s for s in src if s not in avx], *objects,
                           "-lpcre2-8", "-lm"])
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


def one_batch(ours, theirs, k, n):
    """Texts of batch k and the numbers of those that differ."""
    texts = ours.texts(n)
    deep = k % 8 == 0
    add = k % 3 == 0
    plain = k % 5 == 4
    theirs.encode_special_tokens = plain
    encode = theirs.encode_batch if deep else theirs.encode_batch_fast
    encs = encode(texts, add_special_tokens=add)
    lists = [e.ids for e in encs]
    ids = array.array("I", chain(lists))
    counts = array.array("I", map(len, lists))
    offsets = None
    if deep:
        offsets = array.array("I", chain(chain(e.offsets for e in encs)))
        if not offsets:
            offsets = None
    flags = (ADD if add else 0) | (0 if plain else PARSE)
    bad = [(i, "encode", flags) for i in
           ours.check(flags, ids, counts, offsets)]
    if deep:
        skip = k // 8 % 2
        decoded = theirs.decode_batch(lists, skip_special_tokens=bool(skip))
        bad += [(i, "decode", skip) for i in
                ours.check_text(ids, counts, skip, decoded)]
    return texts, bad


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("ours")
    ap.add_argument("theirs")
    ap.add_argument("--cases", type=int, default=100000)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--corpus", nargs="*", default=[])
    ap.add_argument("--stop", type=int, default=20)
    ap.add_argument("--build", help="folder to compile in (and keep)")
    args = ap.parse_args()
    folder = args.build or tempfile.mkdtemp()
    lib = os.path.join(folder, "libtokbulk.so")
    if not args.build or not os.path.exists(lib):
        lib = library(folder)
    corpus = b"".join(open(p, "rb").read().decode(errors="ignore")
                      .replace(SEPARATOR, "").encode() for p in args.corpus)
    theirs = tokenizers.Tokenizer.from_file(args.theirs)
    theirs.no_truncation()
    theirs.no_padding()
    ours = Ours(lib, args.ours, args.seed, corpus)
    found, done, k, start = [], 0, 0, time.time()
    while done < args.cases and len(found) < args.stop:
        n = min(BATCH, args.cases - done)
        texts, bad = one_batch(ours, theirs, k, n)
        found += [(len(texts[i]), texts[i], what, f) for i, what, f in bad]
        done += n
        k += 1
    for _, text, what, flags in sorted(found)[:args.stop]:
        print("differs:", what, flags, ascii(text))
    print("%s: %d cases, seed %d, %d differences, %.0f s, tokenizers %s" % (
        args.ours, done, args.seed, len(found), time.time() - start,
        tokenizers.__version__), flush=True)
    return min(len(found), 100)


if __name__ == "__main__":
    sys.exit(main())
